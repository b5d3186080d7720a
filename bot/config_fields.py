"""What single values of `promote.yaml` may look like: ids, durations, names, cron lines, time zones."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bot.config_texts import checked_cron, checked_query, checked_zone

DURATION = re.compile(r"(\d+)(s|m|h|d)")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = 365 * UNITS["d"]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (found := DURATION.fullmatch(value)):
        seconds = int(found[1]) * UNITS[found[2]]
        if 1 <= seconds <= LONGEST:
            return timedelta(seconds=seconds)
        raise ValueError("must be from 1s to 365d")
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a number with a unit, like 30s, 20m, 4h or 7d")


def _duration_or_none(value: Any) -> Any:
    return timedelta(0) if value == "0s" else _duration(value)


def _moment(value: Any) -> Any:
    if isinstance(value, str) and MOMENT.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{value} is no moment: {error}") from error
    if isinstance(value, datetime) and value.tzinfo is None and not value.second:
        return value
    raise ValueError("must be like 2026-12-23T18:00, without seconds; zone says where the clock hangs")


def _person(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[UW][A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a user id. Write the id, like U0123ABCD: in Slack, open the profile, ⋮, “Copy member ID”"
    )


def _group(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"S[A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a user group's id. Write the id, like S0123ABCD; its page in Slack shows it"
    )


def _person_or_group(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[UWS][A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is the id of neither a person nor a user group. Write the id, like U0123ABCD or S0123ABCD"
    )


def _channel(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[CG][A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a channel id. Write the id, like C0123ABCD: it stands at the end of “View channel details”"
    )


_DURATION_SCHEMA = Annotated[str, Field(pattern=r"^\d+(s|m|h|d)$")]
_MOMENT_SCHEMA = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d$")]

Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=_DURATION_SCHEMA)]
DurationOrNone = Annotated[
    timedelta, BeforeValidator(_duration_or_none, json_schema_input_type=_DURATION_SCHEMA)
]
"""Also 0s, for none at all."""
Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=_MOMENT_SCHEMA)]
"""What a clock on the wall shows, without a zone."""
PersonId = Annotated[str, BeforeValidator(_person)]
GroupId = Annotated[str, BeforeValidator(_group)]
Id = Annotated[str, BeforeValidator(_person_or_group)]
"""Of a person or of a user group."""
ChannelId = Annotated[str, BeforeValidator(_channel)]
Cron = Annotated[str, AfterValidator(checked_cron)]
Zone = Annotated[str, AfterValidator(checked_zone)]
Query = Annotated[str, AfterValidator(checked_query)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]


class Strict(BaseModel):
    """A part of the file; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
