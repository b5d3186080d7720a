"""When a sync window lets Argo CD sync again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.integrations.argocd_answers import Window, Windows
from bot.integrations.argocd_windows import closed

NOW = datetime(2026, 11, 24, 16, 30, tzinfo=UTC)  # a Tuesday
SAYS = "a sync window keeps Argo CD from syncing"


def window(kind: str, schedule: str, duration: str, zone: str = "") -> Window:
    return Window(kind=kind, schedule=schedule, duration=duration, timeZone=zone)


def says(*assigned: Window, active: tuple[Window, ...] = ()) -> str:
    return closed(Windows(activeWindows=active, assignedWindows=assigned), NOW)


BUSY = window("deny", "0 16 * * *", "2h")
NIGHTS = window("allow", "0 22 * * *", "4h")


@pytest.mark.parametrize(
    ("assigned", "active", "until"),
    [
        ((), (), ""),
        ((NIGHTS,), (NIGHTS,), ""),
        ((window("deny", "0 1 * * *", "1h"),), (), ""),
        ((BUSY,), (BUSY,), f"{SAYS} until 18:00 UTC, 24 Nov"),
        ((NIGHTS,), (), f"{SAYS} until 22:00 UTC, 24 Nov"),
        ((BUSY, NIGHTS), (BUSY,), f"{SAYS} until 22:00 UTC, 24 Nov"),
        ((window("deny", "@daily", "24h"),) * 2, (window("deny", "@daily", "24h"),) * 2, "somebody"),
        ((window("allow", "0 8 1 1 *", "1h"),), (), "somebody"),
        ((window("allow", "0 8 * * SAT", "1h30m"),), (), f"{SAYS} until 08:00 UTC, 28 Nov"),
        ((window("allow", "0 8 ? * 6", "1h"),), (), f"{SAYS} until 08:00 UTC, 28 Nov"),
    ],
    ids=[
        "none",
        "allowed",
        "denied at another time",
        "denied",
        "not yet allowed",
        "allowed after the denial",
        "denied for ever",
        "allowed next year",
        "by name",
        "question mark",
    ],
)
def test_the_next_opening_is_told(
    assigned: tuple[Window, ...], active: tuple[Window, ...], until: str
) -> None:
    """A denial must be over, and where some are allowed, one of them has begun; a week is looked ahead."""
    expected = f"{SAYS} until somebody changes it" if until == "somebody" else until
    assert says(*assigned, active=active) == expected


def test_a_window_in_a_time_zone_is_told_in_utc() -> None:
    """Ten in the evening of New York."""
    assert says(window("allow", "0 22 * * *", "1h", "America/New_York")) == f"{SAYS} until 03:00 UTC, 25 Nov"


@pytest.mark.parametrize(
    "odd",
    [
        window("deny", "every day", "2h"),
        window("deny", "0 16 * *", "2h"),
        window("deny", "0 16 * * *", "2 hours"),
        window("deny", "0 16 * * *", ""),
        window("deny", "0 16 * * *", "2h", "Mars/Olympus"),
    ],
)
def test_a_window_that_cannot_be_read_is_told_without_a_time(odd: Window) -> None:
    """That it is closed is Argo CD's word, and it stands."""
    assert says(odd, active=(odd,)) == SAYS


def test_schedules_that_contradict_argo_cd_are_not_believed() -> None:
    """The window has a time zone that Argo CD does not tell: a time would be wrong."""
    elsewhere = window("deny", "0 23 * * *", "2h")
    assert says(elsewhere, active=(elsewhere,)) == SAYS


def test_windows_without_an_end_in_sight_are_given_up_soon() -> None:
    """One that begins anew every minute does not keep the bot busy."""
    endless = window("deny", "* * * * *", "1m30s")
    began = time.monotonic()
    assert says(endless, active=(endless,)) == f"{SAYS} until somebody changes it"
    assert time.monotonic() - began < 2


HOURS = st.integers(0, 23)
WINDOWS = st.lists(
    st.builds(
        lambda kind, hour, days, hours: window(kind, f"0 {hour} * * {days}", f"{hours}h"),
        st.sampled_from(["allow", "deny"]),
        HOURS,
        st.sampled_from(["*", "1-5", "0,6", "2"]),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=4,
)


def is_active(one: Window, at: datetime) -> bool:
    """Has it begun at a full hour of the last `duration`? Hour by hour, without a cron library."""
    _, hour, _, _, days = one.schedule.split()
    wanted = {"*": range(7), "1-5": range(1, 6), "0,6": (0, 6), "2": (2,)}[days]
    begins = at.replace(minute=0)
    for _ in range(int(one.duration.removesuffix("h")) + 1):
        if begins.hour == int(hour) and begins.isoweekday() % 7 in wanted:
            return begins <= at < begins + timedelta(hours=int(one.duration.removesuffix("h")))
        begins -= timedelta(hours=1)
    return False


def is_open(windows: list[Window], at: datetime) -> bool:
    active = [one.kind for one in windows if is_active(one, at)]
    return "deny" not in active and ("allow" in active or all(one.kind == "deny" for one in windows))


@given(WINDOWS)
def test_the_opening_is_the_first_hour_that_is_open(windows: list[Window]) -> None:
    """As somebody finds it who goes through the calendar hour by hour."""
    active = tuple(one for one in windows if is_active(one, NOW))
    hours = [NOW.replace(minute=0) + timedelta(hours=ahead) for ahead in range(1, 24 * 7 + 1)]
    opens_at = next((hour for hour in hours if is_open(windows, hour)), None)
    expected = f"{opens_at:%H:%M} UTC, {opens_at.day} {opens_at:%b}" if opens_at else "somebody changes it"
    assert says(*windows, active=active) == ("" if is_open(windows, NOW) else f"{SAYS} until {expected}")


def test_a_window_over_the_change_of_the_clocks_lasts_as_long_as_it_says() -> None:
    """Berlin's Sunday of 25 hours: four hours from midnight end at three, by its clocks."""
    night = window("deny", "0 0 * * *", "4h", "Europe/Berlin")
    at = datetime(2026, 10, 25, 0, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    found = closed(Windows(activeWindows=(night,), assignedWindows=(night,)), at.astimezone(UTC))
    assert found == f"{SAYS} until 02:00 UTC, 25 Oct"
