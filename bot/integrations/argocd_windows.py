"""Sync windows: does one keep Argo CD from syncing by itself, and until when?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from bot.integrations.argocd_answers import Window, Windows

LOOKS_AHEAD = timedelta(days=7)
_STEPS = 1000
"""How many beginnings and ends are gone through: a window may begin anew every minute."""
_SAYS = "a sync window keeps Argo CD from syncing"
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def closed(windows: Windows, now: datetime) -> str:
    """Why Argo CD may not sync by itself, as the end of a sentence; empty where it may.

    Whether it may is Argo CD's word. Until when is computed from the schedules; they are not believed where they
    contradict it, because a window can have a time zone that Argo CD does not tell.
    """
    if _is_open(windows.active_windows, windows.assigned_windows):
        return ""
    try:
        spans = [_Span(window) for window in windows.assigned_windows]
        if _active(windows.active_windows) != _active([each.window for each in spans if each.end_at(now)]):
            return _SAYS
        opens_at = _opening(spans, now)
    except (ValueError, CronSimError, KeyError, OverflowError):
        return _SAYS
    if opens_at is None:
        return f"{_SAYS} until somebody changes it"
    opens_at = opens_at.astimezone(UTC)
    return f"{_SAYS} until {opens_at:%H:%M} UTC, {opens_at.day} {opens_at:%b}"


def _is_open(active: Sequence[Window], assigned: Sequence[Window]) -> bool:
    """May Argo CD sync by itself? A deny forbids; where there are allows, one of them must be active."""
    kinds = {window.kind for window in active}
    return "deny" not in kinds and ("allow" in kinds or all(window.kind != "allow" for window in assigned))


def _active(windows: Sequence[Window]) -> list[str]:
    """Windows in an order of their own, for a comparison."""
    return sorted(window.model_dump_json() for window in windows)


class _Span:
    """One window in time. Raises `ValueError` where its schedule or its duration cannot be read."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._schedule = _NICKNAMES.get(window.schedule.strip(), window.schedule.replace("?", "*"))
        self._duration = _duration(window.duration)
        self._zone = ZoneInfo(window.time_zone) if window.time_zone else UTC

    def next_begin(self, at: datetime) -> datetime | None:
        """When it begins next after `at`; None for never."""
        return next(CronSim(self._schedule, at.astimezone(self._zone)), None)

    def end_at(self, at: datetime) -> datetime | None:
        """When the occurrence ends that `at` is in; None where it is in none."""
        # Seen from a second later, a beginning at this very instant is in the past too.
        a_little_later = at.astimezone(self._zone) + timedelta(seconds=1)
        begun = next(CronSim(self._schedule, a_little_later, reverse=True), None)
        if begun is None:
            return None
        end = begun.astimezone(UTC) + self._duration
        return end if at < end else None


def _opening(spans: Sequence[_Span], now: datetime) -> datetime | None:
    """The first instant from now on at which Argo CD may sync by itself; None where there is none in sight."""
    at, allows = now, [span for span in spans if span.window.kind == "allow"]
    for _ in range(_STEPS):
        if at > now + LOOKS_AHEAD:
            return None
        denied_until = [end for span in spans if span.window.kind == "deny" and (end := span.end_at(at))]
        if denied_until:
            at = max(denied_until)
        elif not allows or any(span.end_at(at) for span in allows):
            return at
        else:
            begins = [begin for span in allows if (begin := span.next_begin(at))]
            if not begins:
                return None
            at = min(begins)
    return None


def _duration(text: str) -> timedelta:
    """From Go's `1h30m`."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
