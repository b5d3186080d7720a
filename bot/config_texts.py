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

_SIZES = {"minute": 60, "hour": 24, "day of month": 31, "month": 12, "day of week": 7}
"""The fields of a cron line, and the longest step in each."""
_EXAMPLE = "Write minute, hour, day of month, month and day of week, like “0 17 * * FRI”"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>(?:[A-Za-z0-9._-]|\{app\}|\{environment\})+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[^?]*)?)(?P<query>(?:\?.*)?)"
)
_PLAIN = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?%-]|\{\w+\})*")
_QUOTED = re.compile(r"""(?P<double>"(?:[^"\\]|\\.)*")|'(?:[^'\\]|\\.)*'|`[^`]*`|\#[^\n]*""", re.DOTALL)


def checked_cron(text: str) -> str:
    """The cron line, with single blanks.

    Five fields; names of days and months, `L`, `LW`, `5L` and `5#2` mean what they mean to cronsim.

    Raises:
        ValueError: It cannot be read, or a step is longer than its field; the message says what to write.
    """
    fields = text.split()
    if len(fields) != len(_SIZES):
        raise ValueError(f"“{text}” is no cron line: it has {len(fields)} fields, not five. {_EXAMPLE}")
    for part, (name, size) in zip(fields, _SIZES.items(), strict=True):
        if any(int(step) > size for step in re.findall(r"/(\d{1,9})", part)):
            raise ValueError(f"“{text}” is no cron line: a step in its {name} is over {size}. {_EXAMPLE}")
    try:
        CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError) as error:
        wrong = str(error).removeprefix("Bad ").replace("-", " ")
        raise ValueError(
            f"“{text}” is no cron line: its {wrong} is wrong. {_EXAMPLE}; ranges go upwards, so SAT,SUN, not SAT-SUN"
        ) from error
    return " ".join(fields)


def checked_zone(text: str) -> str:
    """The name of the time zone, as it is.

    Raises:
        ValueError: There is none of this name; the message has the nearest one.
    """
    zones = _zones()
    if text in zones.values():
        return text
    if not zones:
        raise ValueError(
            f"“{text}” cannot be found: this machine has no time zones. Install the Python package tzdata"
        )
    match = difflib.get_close_matches(text.lower().replace(" ", "_"), zones, n=1, cutoff=0.7)
    hint = f"Did you mean “{zones[match[0]]}”?" if match else "Write a name like Europe/Berlin"
    raise ValueError(f"“{text}” is no time zone. {hint}")


@cache
def _zones() -> dict[str, str]:
    """The names of all zones, by what people may write: the name, or only the city, in small letters.

    `localtime` is another zone on each machine, and `Factory` is none.
    """
    names = sorted(available_timezones() - {"localtime", "Factory"})
    return {name.rpartition("/")[2].lower(): name for name in names} | {name.lower(): name for name in names}


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
    if found is None or int(found["port"] or 0) > 65535:
        raise ValueError(
            "url must be like https://host/path, with a port that exists; its host may hold {app} and {environment} alone"
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
