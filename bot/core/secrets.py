"""Takes out of a text what looks like a secret: what a program logs when it fails is not meant for everybody."""

from __future__ import annotations

import re

HIDDEN = "***"

_NAMED = re.compile(
    r"""(?ix) (?P<name> [\w.-]*
        (?: passw(?:or)?d | passphrase | pwd | secret | token | api[_-]?key | access[_-]?key | private[_-]?key
          | credential | authorization | cookie | session[_-]?id | connection[_-]?string | dsn ) [\w.-]* )
    (?P<between> ["']? \s* [:=] \s* (?: bearer \s+ | basic \s+ )? )
    (?P<value> "[^"]*" | '[^']*' | [^\s,;&"']+ )"""
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s@]+@")
_KNOWN = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]+){1,2}"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|sk-|AKIA|ASIA|AIza)[\w-]{8,}"
)
_LONG = re.compile(r"\b(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[A-Za-z0-9+/_=-]{40,}")
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def without_secrets(text: str) -> str:
    """The text with passwords, tokens and keys hidden, as far as they can be told; rather too much than too little."""
    text = _KEY.sub(HIDDEN, text)
    text = _URL.sub(lambda found: f"{found['scheme']}{HIDDEN}@", text)
    text = _NAMED.sub(lambda found: f"{found['name']}{found['between']}{HIDDEN}", text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    return _LONG.sub(HIDDEN, _KNOWN.sub(HIDDEN, text))
