"""What the windows of a policy say at one moment: open or closed, until when, and why.

A cron line is read on the wall clock of its zone:

- A time that the clocks skip in spring begins when they have jumped: `30 2` begins at 03:00.
- A time that comes twice in autumn begins once, the first time; where the line names every hour, both times.
- `lasts` is time that really passes: what runs through the night of such a change ends an hour earlier or later on the
  wall clock than in other weeks.
- Spans that touch on the wall clock leave no hole where an hour comes twice: what begins every day for 24 h never ends.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

from bot.config_texts import checked_cron, checked_zone
from bot.core.errors import Failed
from bot.core.policy import Effect, Window
from bot.core.ports import Hours

LOOKS_AHEAD = timedelta(days=370)
LONGEST = timedelta(days=366)
"""How long a window may last that begins again and again."""
_LOOKS = 6000
"""How often a window is looked at for the next change, in all: windows may take turns every minute."""
_ANY_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 — a line is parsed without looking at it
_DAY = timedelta(days=1)


class CronCalendar:
    """Windows by the clock: implements `bot.core.ports.Calendar`."""

    def hours(self, windows: Sequence[Window], at: datetime) -> Hours:
        """Open or closed at this moment, and when that changes next with all windows taken together.

        Args:
            windows: In any order; a window holds from its beginning until right before its end.
            at: An aware moment.

        Returns:
            The answer; its `changes_at` is in UTC, and None where nothing changes within 370 days, or where the
            windows take turns so often that the search gives up.

        Raises:
            Failed: A window cannot be read, so nobody can tell.
        """
        at = at.astimezone(UTC)
        plan = _Plan.of(windows)
        is_open, changes_at = plan.until_change(at)
        says = "" if is_open else plan.why_closed(at, changes_at)
        return Hours(is_open=is_open, says=says, changes_at=changes_at)


@dataclass(frozen=True, slots=True)
class _Span:
    """From a moment until right before another, in UTC."""

    begin: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        return self.begin <= at < self.end


class _Spans(Protocol):
    """All spans of one window."""

    def span(self, at: datetime) -> _Span | None:
        """The span that the moment is in, else the next one; None where none is in sight."""
        ...


@dataclass(slots=True)
class _Track:
    """One window, followed forward in time."""

    window: Window
    _spans: _Spans
    _span: _Span | None

    @classmethod
    def of(cls, window: Window, at: datetime) -> _Track:
        """From this moment on; raises `Failed` where the window cannot be read."""
        spans = _read(window)
        return cls(window, spans, spans.span(at))

    def span(self, at: datetime) -> _Span | None:
        """As `_Spans.span`; the moments asked for must not go back."""
        if self._span and self._span.end <= at:
            self._span = self._spans.span(at)
        return self._span

    def end_at(self, at: datetime) -> datetime | None:
        """When the span ends that the moment is in."""
        span = self.span(at)
        return span.end if span and span.holds(at) else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """All windows together, in an order of their own."""

    denies: tuple[Window, ...]
    allows: tuple[Window, ...]

    @classmethod
    def of(cls, windows: Iterable[Window]) -> _Plan:
        """From windows in any order."""
        ordered = sorted(windows, key=lambda window: (window.why, window.zone))
        return cls(
            denies=tuple(window for window in ordered if window.effect is Effect.DENY),
            allows=tuple(window for window in ordered if window.effect is Effect.ALLOW),
        )

    def until_change(self, at: datetime) -> tuple[bool, datetime | None]:
        """Is it open, and when is that no longer so?"""
        denies, allows = _tracks(self.denies, at), _tracks(self.allows, at)
        is_open, again_at = _look(denies, allows, at)
        for _ in range(_LOOKS // (len(denies) + len(allows) or 1)):
            if again_at is None or again_at > at + LOOKS_AHEAD:
                break
            changes_at = again_at
            is_open_then, again_at = _look(denies, allows, changes_at)
            if is_open_then is not is_open:
                return is_open, changes_at
        return is_open, None

    def why_closed(self, at: datetime, opens_at: datetime | None) -> str:
        """The windows' own words, as a part of a sentence."""
        if denying := _holding(self.denies, at):
            until = f"until {_when(opens_at, at, denying)}" if opens_at else "with no end in sight"
            return f"{_words(denying) or 'the calendar'}: closed {until}"
        hours = f" ({words})" if (words := _words(self.allows)) else ""
        outside = f"outside the hours in which it may move{hours}"
        if opens_at is None:
            return f"{outside}; no beginning is in sight"
        return f"{outside}; they begin at {_when(opens_at, at, _holding(self.allows, opens_at))}"


def _tracks(windows: Iterable[Window], at: datetime) -> list[_Track]:
    """What lasts longest is asked first: it leads furthest."""
    tracks = [_Track.of(window, at) for window in windows]
    return sorted(tracks, key=lambda track: _length(track.window), reverse=True)


def _length(window: Window) -> timedelta:
    if window.begins and window.ends:
        return window.ends - window.begins
    return window.lasts or timedelta(0)


def _look(denies: Iterable[_Track], allows: Collection[_Track], at: datetime) -> tuple[bool, datetime | None]:
    """Is it open, and until when is that certain? None for all the time in sight."""
    if denied_until := _first_end(denies, at):
        return False, denied_until
    allowed_until = _first_end(allows, at)
    if allows and not allowed_until:
        return False, min(_begins(allows, at), default=None)
    latest = [allowed_until] if allowed_until else []
    return True, min([*_begins(denies, at), *latest], default=None)


def _first_end(tracks: Iterable[_Track], at: datetime) -> datetime | None:
    """The end of the first span that the moment is in."""
    return next((end for track in tracks if (end := track.end_at(at))), None)


def _begins(tracks: Iterable[_Track], at: datetime) -> list[datetime]:
    """When each begins next, of those that the moment is not in."""
    return [span.begin for track in tracks if (span := track.span(at))]


def _holding(windows: Iterable[Window], at: datetime) -> list[Window]:
    """Those that the moment is in."""
    return [window for window in windows if (span := _read(window).span(at)) and span.holds(at)]


def _words(windows: Iterable[Window]) -> str:
    """What they say of themselves, each once."""
    return ", ".join(dict.fromkeys(window.why for window in windows if window.why))


def _when(moment: datetime, now: datetime, windows: Sequence[Window]) -> str:
    """`Mon 08:00 CET` in the first window's own zone, with the date where the day of the week is not enough."""
    zone = ZoneInfo(windows[0].zone)
    there = moment.astimezone(zone)
    is_far = (there.date() - now.astimezone(zone).date()).days > 6
    day = f"{there:%a} {there.day} {there:%b}" if is_far else f"{there:%a}"
    name = f"{there:%Z}"
    return f"{day} {there:%H:%M} {name if name.isalpha() else 'UTC' + name}"


@lru_cache(maxsize=1024)
def _read(window: Window) -> _Spans:
    """The spans of a window; raises `Failed` where it cannot be read."""
    try:
        return _spans(window)
    except ValueError as error:
        raise Failed(
            f"The window “{window.why or window.cron or window.begins}” cannot be read: {error}. "
            "Put it right in the configuration; nothing moves until then."
        ) from error


def _spans(window: Window) -> _Spans:
    zone = ZoneInfo(checked_zone(window.zone))
    if window.cron is not None and window.lasts is not None:
        if not timedelta(0) < window.lasts <= LONGEST:
            raise ValueError(f"a time may last up to {LONGEST.days} days, and not nothing")
        return _Repeated.of(checked_cron(window.cron), zone, window.lasts)
    if window.begins is None or window.ends is None:
        raise ValueError("it needs a cron line and how long it lasts, or a beginning and an end")
    if window.begins >= window.ends:
        raise ValueError("it ends before it begins")
    return _Once(_Span(window.begins.astimezone(UTC), window.ends.astimezone(UTC)))


@dataclass(frozen=True, slots=True)
class _Once:
    """One span alone."""

    only: _Span

    def span(self, at: datetime) -> _Span | None:
        return self.only if at < self.only.end else None


@dataclass(frozen=True, slots=True)
class _Part:
    """Beginnings of one day that run into one another, or a single one, on the wall clock."""

    first: timedelta
    """Since midnight, as `last`."""
    last: timedelta


@dataclass(frozen=True, slots=True)
class _Walls:
    """The same on its day; naive moments."""

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class _Repeated:
    """The spans of a cron line."""

    cron: str
    zone: ZoneInfo
    lasts: timedelta
    parts: tuple[_Part, ...]
    """Of each day on which it begins, in order."""
    folds: tuple[int, ...]
    """Which of two equal times on the wall clock begin: the first, or both."""

    @classmethod
    def of(cls, cron: str, zone: ZoneInfo, lasts: timedelta) -> _Repeated:
        """From a checked cron line."""
        line = CronSim(cron, _ANY_DAY)
        times = (
            timedelta(hours=hour, minutes=minute)
            for hour in sorted(line.hours)
            for minute in sorted(line.minutes)
        )
        folds = (0, 1) if len(line.hours) == 24 else (0,)
        return cls(cron, zone, lasts, _parts(times, lasts), folds)

    def span(self, at: datetime) -> _Span | None:
        spans = (span for fold in self.folds for span in self._around(at, fold))
        return min((span for span in spans if at < span.end), key=lambda span: span.begin, default=None)

    def _around(self, at: datetime, fold: int) -> Iterator[_Span]:
        """The span that was the last to begin, and the next one."""
        begun, following = self._last_begun(at, fold), self._following(at, fold)
        if begun:
            yield self._span(begun, following, fold)
        if following:
            yield self._span(following, None, fold)

    def _span(self, walls: _Walls, following: _Walls | None, fold: int) -> _Span:
        """The span of these beginnings, without a hole before those that follow, where they touch it."""
        end = self._moment(walls.last, fold) + self.lasts
        if following and following.first - walls.last <= self.lasts:
            end = max(end, self._moment(following.first, fold))
        return _Span(self._moment(walls.first, fold), end)

    def _last_begun(self, at: datetime, fold: int) -> _Walls | None:
        for day in self._days_back(at):
            if begun := self._count_begun(day, at, fold):
                return _on(day, self.parts[begun - 1])
        return None

    def _following(self, at: datetime, fold: int) -> _Walls | None:
        for day in self._days_ahead(at):
            begun = self._count_begun(day, at, fold)
            if begun < len(self.parts):
                return _on(day, self.parts[begun])
        return None

    def _count_begun(self, day: datetime, at: datetime, fold: int) -> int:
        """How many of the day's parts have begun: with one fold, moments are in the order of the wall clock."""
        return bisect_right(self.parts, at, key=lambda part: self._moment(day + part.first, fold))

    def _moment(self, wall: datetime, fold: int) -> datetime:
        """The moment in UTC at which the wall clock shows this, or has jumped over it."""
        local = wall.replace(tzinfo=self.zone, fold=fold)
        while _is_skipped(local):
            local += timedelta(minutes=1)
        return local.astimezone(UTC)

    # Both begin a day too early, as clocks may go back over midnight.

    def _days_back(self, at: datetime) -> Iterator[datetime]:
        """The days on which it begins, from the latest that may have come, for as long as one may last."""
        latest = _day(at.astimezone(self.zone)) + _DAY
        for year in range(latest.year, (latest - LONGEST - _DAY).year - 1, -1):
            days = _days(self.cron, year)
            yield from reversed(days[: bisect_right(days, latest)])

    def _days_ahead(self, at: datetime) -> Iterator[datetime]:
        """The days on which it begins, from the first that may come."""
        first = _day(at.astimezone(self.zone)) - _DAY
        for year in range(first.year, (first + LOOKS_AHEAD + _DAY).year + 1):
            days = _days(self.cron, year)
            yield from days[bisect_left(days, first) :]


def _parts(times: Iterable[timedelta], lasts: timedelta) -> tuple[_Part, ...]:
    """Times of a day in order, those together that are not further apart than one lasts."""
    parts: list[_Part] = []
    for each in times:
        if parts and each - parts[-1].last <= lasts:
            parts[-1] = replace(parts[-1], last=each)
        else:
            parts.append(_Part(each, each))
    return tuple(parts)


def _on(day: datetime, part: _Part) -> _Walls:
    return _Walls(day + part.first, day + part.last)


def _is_skipped(local: datetime) -> bool:
    """Do the clocks jump over it? Then the first fold has the offset before, the second a greater one after."""
    before, after = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return before is not None and after is not None and before < after


def _day(local: datetime) -> datetime:
    """Its day, as a naive midnight."""
    return datetime.combine(local, time())


@lru_cache(maxsize=1024)
def _days(cron: str, year: int) -> tuple[datetime, ...]:
    """The days of a year on which the line begins, as naive midnights."""
    line = CronSim(cron, _ANY_DAY)
    days = (datetime(year, 1, 1) + timedelta(days=number) for number in range(366))  # noqa: DTZ001 — on the wall
    return tuple(day for day in days if day.year == year and day.month in line.months and line.match_day(day))
