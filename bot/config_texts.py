"""Texts of `promote.yaml` that have a grammar of their own: cron lines, time zones, addresses and queries of probes.

Each check gives the text back, or raises `ValueError` with what is wrong and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from functools import cache
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError

from bot.core.catalog import nearest
from bot.core.image_name import is_local

PLACEHOLDERS = ("app", "environment", "version", "digest")
"""What an address or a query of a probe may hold in braces."""

_STEPS = {"minute": 60, "hour": 24, "day": 31, "month": 12, "weekday": 7}
"""The fields of a cron line, and the longest step in each."""
_CRON_RULE = "Write minute, hour, day, month and weekday, like “0 17 * * FRI”"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>(?:[A-Za-z0-9._-]|\{app\}|\{environment\})+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?P<path>(?:/[^?]*)?)(?P<query>(?:\?.*)?)"
)
_PLAIN = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?%-]|\{\w+\})*")
_QUOTED = re.compile(r"""(?P<double>"(?:[^"\\]|\\.)*")|'(?:[^'\\]|\\.)*'|`[^`]*`|\#[^\n]*""", re.DOTALL)


def checked_cron(text: str) -> str:
    """Five fields of a cron line, with single blanks between them."""
    fields = text.split()
    if len(fields) != len(_STEPS):
        raise ValueError(f"{text!r} is no cron line: it has {len(fields)} fields, not five. {_CRON_RULE}")
    for part, (name, longest) in zip(fields, _STEPS.items(), strict=True):
        if any(int(step) > longest for step in re.findall(r"/(\d{1,9})", part)):
            raise ValueError(
                f"{text!r} is no cron line: a step of its {name} is over {longest}. {_CRON_RULE}"
            )
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError) as error:
        raise ValueError(f"{text!r} is no cron line: {str(error).lower()}. {_CRON_RULE}") from error
    return " ".join(fields)


def checked_zone(text: str) -> str:
    """The IANA name of a time zone."""
    if text in _zones():
        return text
    match = difflib.get_close_matches(text, _zones(), n=1)
    hint = f"Did you mean “{match[0]}”?" if match else "Write a name like Europe/Berlin"
    raise ValueError(f"{text!r} is no time zone. {hint}")


@cache
def _zones() -> tuple[str, ...]:
    """Every name; `localtime` would be another zone on each machine, and `Factory` is none."""
    return tuple(sorted(available_timezones() - {"localtime", "Factory"}))


def checked_address(url: str, *, allow_local: bool) -> str:
    """The address of a probe. What people ask for never decides who is asked, so a version stays out of the host.

    Args:
        url: With placeholders.
        allow_local: May it be plain http on another machine too?
    """
    _check_placeholders(url)
    found = _ADDRESS.fullmatch(url)
    if re.match(r"https?://[^/?#]*@", url):
        raise ValueError("url holds a user or a password; put a token into PROBE_TOKEN_<NAME>")
    if found is None:
        raise ValueError(
            "url must be like https://host/path; its host may hold {app} and {environment} alone"
        )
    if not _PLAIN.fullmatch(found["path"] + found["query"]):
        raise ValueError("url holds a #, or characters that must be percent-encoded in an address")
    if {".", ".."} & set(found["path"].split("/")):
        raise ValueError("url holds /./ or /../; write the path without them")
    if found["scheme"] == "http" and not (allow_local or found["host"] == "[::1]" or is_local(found["host"])):
        raise ValueError(
            "url is not encrypted, and its token would travel in clear; use https://, or set allow_local: true"
        )
    return url


def checked_query(text: str) -> str:
    """PromQL; in it placeholders are values, so each stands inside of double quotes."""
    _check_placeholders(text)
    if not text.strip():
        raise ValueError("must not be empty")
    outside = _QUOTED.sub(lambda quoted: "" if quoted["double"] else quoted[0], text)
    if found := _PLACEHOLDER.search(outside):
        raise ValueError(f'{found[0]} must stand inside of double quotes, like app="{found[0]}"')
    return text


def _check_placeholders(text: str) -> None:
    for word in _PLACEHOLDER.findall(text):
        if word not in PLACEHOLDERS:
            raise ValueError(f"{{{word}}} is unknown.{nearest(word, PLACEHOLDERS)}")
