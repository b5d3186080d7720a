"""Sync windows: when a project lets its applications sync, by Argo CD's rules."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal
from zoneinfo import ZoneInfo

from bot.playground.argocd.manifests import Json
from bot.playground.argocd.specs import SERVER, SimulatedApplication

_MINUTE = timedelta(minutes=1)
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncWindow:
    """One window of a project.

    Attributes:
        kind: whether it lets applications sync or keeps them from it.
        schedule: when it begins, as a cron expression of five fields with numbers, lists, ranges and steps.
        duration: how long it lasts, as Go writes it: `90m`, `1h30m`.
        manual_sync: whether a person may sync in spite of it.
        time_zone: where the schedule's hours are counted.
        applications: globs of names; a window is assigned to whatever one of its three lists matches.
        namespaces: globs of destination namespaces.
        clusters: globs of destination servers.
    """

    kind: Literal["allow", "deny"]
    schedule: str
    duration: str
    manual_sync: bool = False
    time_zone: str = "UTC"
    applications: Sequence[str] = ("*",)
    namespaces: Sequence[str] = ()
    clusters: Sequence[str] = ()

    def is_assigned_to(self, application: SimulatedApplication) -> bool:
        """Whether it concerns an application."""
        named = (
            (self.applications, application.name),
            (self.namespaces, application.destination_namespace),
            (self.clusters, SERVER),
        )
        return any(fnmatchcase(value, glob) for globs, value in named for glob in globs)

    def is_active(self, now: datetime) -> bool:
        """Whether it has begun, a moment ago at least, and not ended."""
        here = now.astimezone(ZoneInfo(self.time_zone))
        return any(_fires(self.schedule, minute) for minute in _minutes(here, _length(self.duration)))

    def json(self) -> Json:
        """The shape of an `ApplicationSyncWindow`; Go leaves out what is false."""
        shown: Json = {"kind": self.kind, "schedule": self.schedule, "duration": self.duration}
        return shown | ({"manualSync": True} if self.manual_sync else {})


def can_sync(windows: Sequence[SyncWindow], now: datetime, *, manual: bool) -> bool:
    """Whether windows that are assigned to an application let it sync now.

    An active deny wins over an active allow; if there is any allow, one of them has to be active. A manual sync passes
    if all windows that would keep it back allow that.
    """
    active = [window for window in windows if window.is_active(now)]
    denying = [window for window in active if window.kind == "deny"]
    if denying:
        return manual and all(window.manual_sync for window in denying)
    allowing = [window for window in windows if window.kind == "allow"]
    if not allowing or any(window in active for window in allowing):
        return True
    return manual and all(window.manual_sync for window in allowing)


def _length(duration: str) -> timedelta:
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", duration)
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _minutes(now: datetime, length: timedelta) -> Iterator[datetime]:
    """The whole minutes after `now - length` and before `now`."""
    minute = now.replace(second=0, microsecond=0)
    if minute == now:
        minute -= _MINUTE
    while minute > now - length:
        yield minute
        minute -= _MINUTE


def _fires(schedule: str, minute: datetime) -> bool:
    """Whether a cron expression names a minute; of two restricted day fields, one is enough."""
    fields = schedule.split()
    if len(fields) != len(_RANGES):
        raise ValueError(f"a schedule has five fields: {schedule}")
    values = (minute.minute, minute.hour, minute.day, minute.month, minute.isoweekday() % 7)
    met = [
        _includes(field, value, *limits) for field, value, limits in zip(fields, values, _RANGES, strict=True)
    ]
    of_month, of_week = met[2], met[4]
    is_day = of_month and of_week if "*" in (fields[2][:1], fields[4][:1]) else of_month or of_week
    return met[0] and met[1] and met[3] and is_day


def _includes(field: str, value: int, low: int, high: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin = low if first == "*" else int(first)
        end = int(last) if last else high if first == "*" or step else begin
        if value in range(begin, end + 1, int(step or 1)):
            return True
    return False
