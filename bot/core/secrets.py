"""Takes out of a text what looks like a secret: what a program logs when it fails is not meant for everybody.

Every pattern takes time in proportion to the text: repetitions are bounded, or consume what they have looked at.
"""

from __future__ import annotations

import re

HIDDEN = "***"
LONGEST = 4096
"""Characters of a text that are looked at, half of them at its beginning and half at its end."""
_CUT = " … "

_NAME = r"""
    (?: passw(?:or)?d | passphrase | pwd | secret | token | api[_-]?key | access[_-]?key | private[_-]?key
      | credential(?!s?:\s) | session[_-]?id | connection[_-]?string | dsn ) [\w.-]{0,64}
    | (?: (?<![a-z]) pass | (?-i: (?<=[a-z]) Pass ) ) (?![\w.-])
"""
_VALUE = r"""
    (?: "(?:[^"\\\n]|\\.?)*+"? | '(?:[^'\\\n]|\\.?)*+'? | \\["'][^\\"'\n]* | [^\s,;&"'][^\s,;&]* )
"""
_NAMED = re.compile(
    rf"""(?ix) (?P<name> {_NAME} ) (?P<between> \\?["']? \s{{0,8}} [:=] \s{{0,8}} (?: (?:bearer|basic) \s{{1,8}} )? )
    {_VALUE}"""
)
_QUOTED = re.compile(
    rf"""(?ix) (?P<before> ["'] [^"'\n]{{0,256}}? (?: {_NAME} ) \s{{0,8}} [:=] \s{{0,8}} ) [^"'\n]+"""
)
_FLAG = re.compile(rf"(?ix) (?P<flag> --[\w.-]{{0,64}}? (?: {_NAME} ) \s{{1,8}} ) (?!--) {_VALUE}")
_HEADER = re.compile(r"""(?i)(?P<name>authorization|cookie)(?P<between>\\?["']?[ \t]{0,8}[:=])[^\n]+""")
_SIGNATURE = re.compile(r"""(?i)(?P<name>(?:(?<![a-z0-9])sig|signature)=)[^\s&"']+""")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s{1,8}[\w.~+/=-]{8,}")
_URL = re.compile(r"://(?:[^\s/]{1,256}|[^\s/:@]{1,256}:[^\s@]{1,256})@")
_KNOWN = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]+){0,2}"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|sk-|AKIA|ASIA|AIza)[\w-]{8,}"
)
_LONG = re.compile(r"(?<!sha256:)(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_=-]{40,}")
_REVISION = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"[A-Za-z0-9]{32,}")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)", re.DOTALL
)


def without_secrets(text: str) -> str:
    """The text with passwords, tokens and keys hidden, as far as they can be told; rather too much than too little.

    Of one longer than `LONGEST`, the middle is left out.
    """
    text = _KEY.sub(HIDDEN, bounded(text))
    text = _URL.sub(f"://{HIDDEN}@", text)
    text = _HEADER.sub(lambda found: f"{found['name']}{found['between']} {HIDDEN}", text)
    text = _FLAG.sub(lambda found: f"{found['flag']}{HIDDEN}", text)
    text = _QUOTED.sub(lambda found: f"{found['before']}{HIDDEN}", text)
    text = _NAMED.sub(lambda found: f"{found['name']}{found['between']}{HIDDEN}", text)
    text = _SIGNATURE.sub(lambda found: f"{found['name']}{HIDDEN}", text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    return _LONG.sub(_hidden_if_random, _KNOWN.sub(HIDDEN, text))


def bounded(text: str) -> str:
    """The beginning and the end of a long text, cut where a word ends: half a secret looks like none."""
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - len(_CUT)) // 2
    return f"{text[:half]}{_CUT}{_from_next_word(text[-half:])}"


def _from_next_word(text: str) -> str:
    words = text.split(maxsplit=1)
    return words[1] if len(words) == 2 else text


def _hidden_if_random(found: re.Match[str]) -> str:
    """A long word, unless it is made as names and paths are, or as revisions."""
    word = found[0]
    has_digit = any(sign.isdigit() for sign in word)
    if not has_digit or not any(sign.isalpha() for sign in word) or _REVISION.fullmatch(word):
        return word
    is_mixed = word != word.lower() and word != word.upper()
    return HIDDEN if is_mixed or _PART.search(word) else word
