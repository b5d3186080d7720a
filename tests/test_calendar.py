"""Open or closed by the windows of a policy, until when, and in which words."""

from __future__ import annotations

import sys
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import config_texts
from bot.config_texts import checked_cron, checked_zone
from bot.core.errors import Failed
from bot.core.policy import Effect, Window
from bot.core.ports import Calendar, Hours
from bot.integrations.calendar import LOOKS_AHEAD, CronCalendar

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
DENY, ALLOW = Effect.DENY, Effect.ALLOW
MINUTE = timedelta(minutes=1)
CALENDAR: Calendar = CronCalendar()


def every(cron: str, hours: float, effect: Effect = DENY, *, zone: str = BERLIN, why: str = "") -> Window:
    return Window(effect=effect, zone=zone, cron=cron, lasts=timedelta(hours=hours), why=why)


def once(begins: datetime, ends: datetime, effect: Effect = DENY, *, why: str = "") -> Window:
    return Window(effect=effect, zone=BERLIN, begins=begins, ends=ends, why=why)


def local(text: str, zone: str = BERLIN, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def hours(at: datetime, *windows: Window) -> Hours:
    return CALENDAR.hours(windows, at)


def closed_spans(begin: datetime, end: datetime, *windows: Window) -> Iterator[tuple[str, str]]:
    """Every closed span between two moments, as the wall clock of the beginning's zone shows it."""
    at = begin
    while at < end:
        found = hours(at, *windows)
        until = found.changes_at or end
        if not found.is_open:
            yield tuple(f"{each.astimezone(begin.tzinfo):%H:%M %Z}" for each in (at, until))  # type: ignore[misc]
        at = until


WEEKEND = every("0 17 * * 5", 63, why="weekend")
OFFICE = every("0 9 * * MON-FRI", 8, ALLOW, why="office hours")
SATURDAY = local("2026-11-21T12:00")


def test_without_windows_it_is_always_open() -> None:
    """No window, no word, no change."""
    assert hours(SATURDAY) == Hours(is_open=True)


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-11-20T16:59", True),
        ("2026-11-20T17:00", False),
        ("2026-11-23T07:59:59.999999", False),
        ("2026-11-23T08:00", True),
    ],
)
def test_a_window_holds_from_its_beginning_until_right_before_its_end(at: str, is_open: bool) -> None:
    """A weekend that began on Friday is still there on Monday at 07:59, and over at 08:00."""
    assert hours(local(at), WEEKEND).is_open is is_open


def test_a_fixed_window_holds_between_its_two_moments() -> None:
    """It begins once, and never again."""
    freeze = once(local("2026-12-18T17:00"), local("2027-01-04T08:00"))
    assert hours(local("2026-12-18T16:59"), freeze) == Hours(
        is_open=True, changes_at=local("2026-12-18T17:00")
    )
    assert hours(local("2026-12-18T17:00"), freeze).changes_at == local("2027-01-04T08:00")
    assert hours(local("2027-01-04T08:00"), freeze) == Hours(is_open=True)


def test_outside_all_allow_windows_it_is_closed() -> None:
    """One of several is enough; outside of them all nothing moves."""
    early = every("0 6 * * *", 1, ALLOW)
    assert hours(local("2026-11-24T06:30"), OFFICE, early).is_open
    assert hours(local("2026-11-24T09:30"), OFFICE, early).is_open
    assert not hours(local("2026-11-24T07:30"), OFFICE, early).is_open


def test_deny_goes_before_allow() -> None:
    """A freeze within office hours is a freeze, and the hours go on after it."""
    freeze = every("0 10 * * *", 1)
    assert hours(local("2026-11-24T09:30"), OFFICE, freeze).changes_at == local("2026-11-24T10:00")
    assert hours(local("2026-11-24T10:30"), OFFICE, freeze).changes_at == local("2026-11-24T11:00")


@pytest.mark.parametrize(
    ("windows", "changes_at"),
    [
        ((WEEKEND, every("0 8 * * 1", 4)), "2026-11-23T12:00"),
        ((WEEKEND, every("0 7 * * 1", 5)), "2026-11-23T12:00"),
        ((WEEKEND, OFFICE), "2026-11-23T09:00"),
        ((WEEKEND, once(local("2026-11-22T00:00"), local("2026-11-25T18:00"))), "2026-11-25T18:00"),
        ((WEEKEND, OFFICE, once(local("2026-11-22T00:00"), local("2026-11-25T18:00"))), "2026-11-26T09:00"),
    ],
    ids=["adjacent", "overlapping", "hours begin later", "a freeze goes on", "hours after the freeze"],
)
def test_windows_that_follow_one_another_are_one_closed_time(
    windows: tuple[Window, ...], changes_at: str
) -> None:
    """The next change is when it really opens, not when the first of them ends."""
    assert hours(SATURDAY, *windows).changes_at == local(changes_at)


@pytest.mark.parametrize(
    "always",
    [
        (every("0 0 * * *", 24),),
        (every("0 * * * *", 2),),
        (every("* * * * *", 1 / 60),),
        (every("0 0 * * *", 24 * 5),),
        (every("0 20 * * *", 12, zone="UTC"), every("0 8 * * *", 12, zone="UTC")),
        (every("0 0 1 1 *", 1, ALLOW), every("0 0 1 1 *", 2)),
    ],
)
def test_what_never_opens_says_that_no_end_is_in_sight(always: tuple[Window, ...]) -> None:
    """Windows longer than their own period, and those that take turns, do not open, on no night of the year."""
    found = hours(SATURDAY, *always)
    assert not found.is_open
    assert found.changes_at is None
    assert "in sight" in found.says


def test_the_search_ends_after_370_days() -> None:
    """What begins on the last day is found, what begins after it is not."""
    begins = SATURDAY + LOOKS_AHEAD
    assert hours(SATURDAY, once(begins, begins + MINUTE)).changes_at == begins
    assert hours(SATURDAY, once(begins + MINUTE, begins + 2 * MINUTE)).changes_at is None
    assert hours(local("2026-12-30T12:00"), every("0 0 3 1 *", 1)).changes_at == local("2027-01-03T00:00")
    assert hours(local("2026-03-01T00:00"), every("0 0 29 2 *", 1)).changes_at is None
    assert hours(local("2027-12-30T12:00"), every("0 0 29 2 *", 1)).changes_at == local("2028-02-29T00:00")


def test_what_begins_every_minute_is_followed_to_its_end() -> None:
    """Two weeks of minutes are one span, and a long window leads over many short ones."""
    fortnight = every("* * 1-14 * *", 1 / 60)
    assert hours(local("2026-11-02T12:00"), fortnight).changes_at == local("2026-11-15T00:00")
    turns = [every(f"{minutes} * 21-25 11 *", 1 / 60) for minutes in ("*/2", "1-59/2")]
    freeze = once(SATURDAY, local("2026-11-30T00:00"), why="freeze")
    assert hours(SATURDAY, *turns, freeze).changes_at == local("2026-11-30T00:00")


def test_windows_that_take_turns_every_minute_do_not_keep_the_search_busy() -> None:
    """Where it gives up, it says that nobody can tell; the answer for now stands."""
    odd = [every("1-59/2 * * * *", 1 / 60, effect) for effect in (DENY, ALLOW)]
    began = time.process_time()
    assert hours(SATURDAY, *odd * 10).changes_at is None
    assert time.process_time() - began < 20


SPRING = [("2026-03-29", BERLIN, "CET", "CEST"), ("2026-03-08", NEW_YORK, "EST", "EDT")]
AUTUMN = [("2026-10-25", BERLIN, "CEST", "CET"), ("2026-11-01", NEW_YORK, "EDT", "EST")]
TWICE = {BERLIN: 2, NEW_YORK: 1}
"""The hour that comes twice."""


def night(day: str, zone: str, *windows: Window) -> list[tuple[str, str]]:
    return list(closed_spans(local(f"{day}T00:00", zone), local(f"{day}T12:00", zone), *windows))


@pytest.mark.parametrize(("day", "zone", "winter", "summer"), SPRING)
def test_a_time_that_the_clocks_skip_begins_when_they_have_jumped(
    day: str, zone: str, winter: str, summer: str
) -> None:
    """There is no 02:30 in that night: it begins at 03:00, and lasts as long as ever."""
    assert night(day, zone, every("30 2 * * *", 1, zone=zone)) == [(f"03:00 {summer}", f"04:00 {summer}")]
    assert night(day, zone, every("0 2,3 * * *", 0.5, zone=zone)) == [(f"03:00 {summer}", f"03:30 {summer}")]
    assert night(day, zone, every("30 1 * * *", 1, zone=zone)) == [(f"01:30 {winter}", f"03:30 {summer}")]


@pytest.mark.parametrize(("day", "zone", "summer", "winter"), AUTUMN)
def test_a_time_that_comes_twice_begins_once(day: str, zone: str, summer: str, winter: str) -> None:
    """The first time counts: the second one starts no window anew."""
    hour = TWICE[zone]
    begins = f"{hour:02}:30 {summer}"
    half = night(day, zone, every(f"30 {hour} * * *", 0.5, zone=zone))
    assert half == [(begins, f"{hour:02}:00 {winter}")]
    two = night(day, zone, every(f"30 {hour} * * *", 2, zone=zone))
    assert two == [(begins, f"{hour + 1:02}:30 {winter}")]
    before = night(day, zone, every(f"30 {hour - 1} * * *", 2, zone=zone))
    assert before == [(f"{hour - 1:02}:30 {summer}", f"{hour:02}:30 {winter}")]


@pytest.mark.parametrize(("day", "zone", "summer", "winter"), AUTUMN)
def test_what_begins_every_hour_begins_in_both_that_look_alike(
    day: str, zone: str, summer: str, winter: str
) -> None:
    """An hourly window is there every hour that passes."""
    found = night(day, zone, every("10 * * * *", 0.5, zone=zone))
    hour = TWICE[zone]
    assert len(found) == 13
    assert found[hour : hour + 2] == [
        (f"{hour:02}:10 {name}", f"{hour:02}:40 {name}") for name in (summer, winter)
    ]


@pytest.mark.parametrize(("day", "zone", "summer", "winter"), AUTUMN)
def test_no_hole_is_left_where_an_hour_comes_twice(day: str, zone: str, summer: str, winter: str) -> None:
    """Beginnings that run into one another on the wall clock stay one span, within a day and from day to day."""
    halves = every("*/30 0-5 * * *", 0.5, zone=zone)
    assert night(day, zone, halves) == [(f"00:00 {summer}", f"06:00 {winter}")]
    daily = every("0 0 * * *", 24, zone=zone)
    assert hours(local(f"{day}T12:00", zone), daily).changes_at is None


@pytest.mark.parametrize(
    ("at", "zone", "ends"),
    [
        ("2026-03-28T12:00", BERLIN, "Mon 09:00 CEST"),
        ("2026-10-24T12:00", BERLIN, "Mon 07:00 CET"),
        ("2026-03-07T12:00", NEW_YORK, "Mon 09:00 EDT"),
        ("2026-10-31T12:00", NEW_YORK, "Mon 07:00 EST"),
    ],
)
def test_a_length_is_time_that_really_passes(at: str, zone: str, ends: str) -> None:
    """63 hours are 63 hours, also through a night that has one more or one less."""
    found = hours(local(at, zone), every("0 17 * * 5", 63, zone=zone, why="weekend"))
    assert found.says == f"weekend: closed until {ends}"


def test_a_cron_line_is_read_in_its_own_zone() -> None:
    """09:00 in New York is 15:00 in Berlin, and 14:00 in the weeks between their two changes."""
    window = every("0 9 * * *", 1, zone=NEW_YORK)
    assert hours(local("2026-11-24T12:00"), window).changes_at == local("2026-11-24T15:00")
    assert hours(local("2026-03-16T12:00"), window).changes_at == local("2026-03-16T14:00")


@pytest.mark.parametrize(
    "zone", ["America/Santiago", "America/Havana", "Australia/Lord_Howe", "Antarctica/Troll"]
)
def test_odd_zones_do_not_leave_a_hole_either(zone: str) -> None:
    """Clocks that change at midnight, by half an hour or by two hours: every day for 24 h is always."""
    assert hours(local("2026-01-01T12:00", zone), every("0 0 * * *", 24, zone=zone)).changes_at is None
    assert hours(local("2026-01-01T12:00", zone), every("*/30 * * * *", 0.5, zone=zone)).changes_at is None


def test_clocks_that_go_back_over_midnight_hide_no_beginning() -> None:
    """In St. John's the 7th had begun for a minute in 2010 when it was the 6th again."""
    zone = "America/St_Johns"
    seventh = every("0 0 7 11 *", 2, zone=zone)
    assert not hours(local("2010-11-06T23:15", zone, fold=1), seventh).is_open
    sixth = every("30 * 6 11 *", 0.5, zone=zone)
    again = local("2010-11-06T23:30", zone, fold=1).astimezone(UTC)
    assert hours(local("2010-11-07T00:00", zone), sixth).changes_at == again


@pytest.mark.parametrize(
    ("at", "windows", "says"),
    [
        (SATURDAY, (WEEKEND,), "weekend: closed until Mon 08:00 CET"),
        (SATURDAY, (every("0 17 * * 5", 63),), "the calendar: closed until Mon 08:00 CET"),
        (
            SATURDAY,
            (WEEKEND, every("0 0 * * 6", 48, why="audit"), OFFICE),
            "audit, weekend: closed until Mon 09:00 CET",
        ),
        (SATURDAY, (WEEKEND, every("0 0 * * 6", 48, why="weekend")), "weekend: closed until Mon 08:00 CET"),
        (
            local("2026-11-24T08:00"),
            (OFFICE,),
            "outside the hours in which it may move (office hours); they begin at Tue 09:00 CET",
        ),
        (
            SATURDAY,
            (OFFICE, every("0 12 * * MON", 1, ALLOW, zone=NEW_YORK, why="lunch")),
            "outside the hours in which it may move (lunch, office hours); they begin at Mon 09:00 CET",
        ),
        (
            SATURDAY,
            (every("0 9 * * *", 1, ALLOW),),
            "outside the hours in which it may move; they begin at Sun 09:00 CET",
        ),
        (
            local("2026-12-23T12:00"),
            (once(local("2026-12-18T17:00"), local("2027-01-04T08:00"), why="year end"),),
            "year end: closed until Mon 4 Jan 08:00 CET",
        ),
        (
            local("2026-11-16T12:00"),
            (once(local("2026-11-16T00:00"), local("2026-11-22T13:00"), why="freeze"),),
            "freeze: closed until Sun 13:00 CET",
        ),
        (
            local("2026-11-16T12:00"),
            (once(local("2026-11-16T00:00"), local("2026-11-23T08:00"), why="freeze"),),
            "freeze: closed until Mon 23 Nov 08:00 CET",
        ),
        (
            SATURDAY,
            (every("0 0 * * 6", 48, zone="America/Sao_Paulo", why="weekend"),),
            "weekend: closed until Mon 00:00 UTC-03",
        ),
    ],
)
def test_people_read_the_windows_own_words(at: datetime, windows: tuple[Window, ...], says: str) -> None:
    """Why, until when in the window's zone, and the date where the day of the week would mislead."""
    assert hours(at, *windows).says == says


@pytest.mark.parametrize(
    "window",
    [
        every("61 * * * *", 1),
        every("0 0 * * * *", 1),
        every("0 0 * * *", 0),
        every("0 0 * * *", 24 * 400),
        every("0 0 * * *", 1, zone="Europe/Berln"),
        Window(effect=DENY, zone=BERLIN, cron="0 0 * * *"),
        Window(effect=DENY, zone=BERLIN, begins=SATURDAY),
        once(SATURDAY, SATURDAY),
    ],
)
def test_a_window_that_cannot_be_read_is_never_taken_for_none(window: Window) -> None:
    """Nobody can tell whether it is open: that is an error, not an open gate."""
    with pytest.raises(Failed, match=r"cannot be read: .*\. Put it right"):
        hours(SATURDAY, window)


@pytest.mark.parametrize(
    ("cron", "at", "begins"),
    [
        ("0 17 * * FRI", "2026-11-01T00:00", "2026-11-06T17:00"),
        ("0 17 * nov fri", "2026-11-01T00:00", "2026-11-06T17:00"),
        ("0 17 * * 7", "2026-11-02T00:00", "2026-11-08T17:00"),
        ("0 0 L * *", "2026-11-02T00:00", "2026-11-30T00:00"),
        ("0 0 LW * *", "2026-10-02T00:00", "2026-10-30T00:00"),
        ("0 0 * * 5L", "2026-11-01T00:00", "2026-11-27T00:00"),
        ("0 0 * * FRI#2", "2026-11-01T00:00", "2026-11-13T00:00"),
        ("0 0 13 * 5", "2026-11-01T00:00", "2026-11-06T00:00"),
        ("0 0 13 * *", "2026-11-01T00:00", "2026-11-13T00:00"),
    ],
)
def test_what_a_cron_line_may_hold(cron: str, at: str, begins: str) -> None:
    """Names in any case, 7 for Sunday, last and n-th days; day of month and of week add up where both are said."""
    assert checked_cron(cron) == cron
    assert hours(local(at), every(cron, 1)).changes_at == local(begins)


def test_a_cron_line_has_single_blanks() -> None:
    """However it was written, it reads the same."""
    assert checked_cron("  0 17\t*  * FRI\n") == "0 17 * * FRI"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 fields"),
        ("@weekly", "has 1 fields"),
        ("0 17 * *", "has 4 fields"),
        ("0 0 17 * * 5", "has 6 fields"),
        ("61 * * * *", "its minute is wrong"),
        ("0 24 * * *", "its hour is wrong"),
        ("0 0 ? * *", "its day of month is wrong"),
        ("0 0 30 2 *", "its day of month is wrong"),
        ("0 0 * 13 *", "its month is wrong"),
        ("0 0 * * FRI-MON", "so SAT,SUN, not SAT-SUN"),
        ("0 0 * * L", "its day of week is wrong"),
        ("*/90 * * * *", "a step in its minute is over 60"),
        ("0 8-18/25 * * *", "a step in its hour is over 24"),
        ("*/0 * * * *", "its minute is wrong"),
        ("*/1234567890123 * * * *", "a step in its minute is over 60"),
    ],
)
def test_a_wrong_cron_line_is_refused_with_what_to_write(text: str, says: str) -> None:
    """Six fields would be read as seconds, and a step of 90 minutes as every hour: neither is meant."""
    with pytest.raises(ValueError, match=r"like “0 17 \* \* FRI”") as refusal:
        checked_cron(text)
    assert says in str(refusal.value)


@given(st.text(alphabet="0123456789*/,-#LW ?@FRIMON", max_size=30))
def test_whatever_is_written_is_a_line_that_works_or_a_refusal(text: str) -> None:
    """What is accepted can be asked for its hours, and what is not is a `ValueError`."""
    try:
        cron = checked_cron(text)
    except ValueError:
        return
    hours(SATURDAY, every(cron, 1))


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, "UTC", "America/Argentina/Buenos_Aires"])
def test_a_zone_that_exists_is_taken_as_it_is(zone: str) -> None:
    """The name is its own answer."""
    assert checked_zone(zone) == zone


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Berlin", "Did you mean “Europe/Berlin”?"),
        ("europe/berlin", "Did you mean “Europe/Berlin”?"),
        ("Europe/Belrin", "Did you mean “Europe/Berlin”?"),
        ("New York", "Did you mean “America/New_York”?"),
        ("posix/Europe/Berlin", "Did you mean “Europe/Berlin”?"),
        ("right/Europe/Berlin", "Did you mean “Europe/Berlin”?"),
        ("Europe", "Did you mean “Europe/"),
        ("localtime", "Write a name like Europe/Berlin"),
        ("/etc/localtime", "no time zone"),
        ("../Europe/Berlin", "Did you mean “Europe/Berlin”?"),
        ("", "Write a name like Europe/Berlin"),
        ("Middle-earth", "no time zone"),
    ],
)
def test_a_zone_that_does_not_exist_is_refused_with_the_nearest(text: str, hint: str) -> None:
    """Also what only one machine knows, and the zones that count leap seconds."""
    with pytest.raises(ValueError, match="is no time zone") as refusal:
        checked_zone(text)
    assert hint in str(refusal.value)


def test_a_machine_without_zones_is_told_apart_from_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no name is right, and a package helps."""
    monkeypatch.setitem(sys.modules, "tzdata", None)
    config_texts._zones.cache_clear()
    zoneinfo.reset_tzpath(to=[])
    try:
        with pytest.raises(ValueError, match="Install the Python package tzdata"):
            checked_zone(BERLIN)
    finally:
        zoneinfo.reset_tzpath()
        config_texts._zones.cache_clear()


def test_twenty_windows_are_answered_at_once() -> None:
    """The question is asked at a click: 20 different windows take less than 20 ms."""
    windows = [
        *(every(f"{n} {n} * * {n % 7}", 10 + n, zone=(BERLIN, NEW_YORK)[n % 2]) for n in range(10)),
        *(every(f"{n} 9 * * {n % 7}", 8, ALLOW) for n in range(10)),
    ]
    took = []
    for _ in range(5):
        began = time.process_time()
        hours(SATURDAY, *windows)
        took.append(time.process_time() - began)
    assert min(took) < 0.020


# Around all four nights of 2026, and any other time.
moments = st.one_of(
    *(
        st.datetimes(night - timedelta(days=2), night + timedelta(days=2))
        for night in (datetime(2026, month, day) for month, day in [(3, 8), (3, 29), (10, 25), (11, 1)])  # noqa: DTZ001
    ),
    st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
).map(lambda naive: naive.replace(tzinfo=UTC))
minute_fields = st.one_of(st.integers(0, 59).map(str), st.sampled_from(["0,30", "*/20", "0-10"]))
hour_fields = st.one_of(st.integers(0, 23).map(str), st.sampled_from(["1,2,3", "*/6", "1-4", "*"]))
days = st.sampled_from(
    ["* * *", "* * 0", "* * 1-5", "* * SAT,SUN", "1 * *", "L * *", "* * 0L", "13 * 5", "*/10 3,10 *"]
)
crons = st.builds("{} {} {}".format, minute_fields, hour_fields, days)
lengths = st.one_of(st.integers(1, 240), st.integers(1, 10_000), st.just(1440)).map(lambda n: n * MINUTE)
zones = st.sampled_from([BERLIN, NEW_YORK, "UTC", "America/Santiago", "Australia/Lord_Howe"])
repeated = st.builds(
    Window,
    effect=st.sampled_from(Effect),
    zone=zones,
    cron=crons,
    lasts=lengths,
    why=st.sampled_from(["", "weekend", "freeze"]),
)
fixed = st.builds(
    lambda effect, begins, lasts: once(begins, begins + lasts, effect),
    st.sampled_from(Effect),
    moments,
    lengths,
)
plans = st.lists(st.one_of(repeated, fixed), max_size=4).map(tuple)
shares = st.floats(0, 0.999)


@settings(max_examples=300)
@given(plans, moments, st.lists(shares, min_size=1, max_size=20))
def test_the_answer_holds_until_it_changes(
    windows: tuple[Window, ...], at: datetime, samples: list[float]
) -> None:
    """At every moment before the change it is the same, and at the change the other one."""
    found = hours(at, *windows)
    until = found.changes_at or at + timedelta(days=30)
    assert at < until <= at + LOOKS_AHEAD
    for share in samples:
        assert hours(at + share * (until - at), *windows).is_open is found.is_open
    if found.changes_at:
        assert hours(found.changes_at, *windows).is_open is not found.is_open
        assert hours(found.changes_at - timedelta(microseconds=1), *windows).is_open is found.is_open


@given(plans.flatmap(lambda plan: st.tuples(st.just(plan), st.permutations(plan))), moments)
def test_the_order_of_windows_does_not_matter(
    orders: tuple[tuple[Window, ...], list[Window]], at: datetime
) -> None:
    """The same windows give the same answer, in the same words."""
    first, second = orders
    assert hours(at, *first) == hours(at, *second)


@given(plans, plans, moments)
def test_a_window_that_denies_wins(
    some: tuple[Window, ...], others: tuple[Window, ...], at: datetime
) -> None:
    """It is open exactly where the denying windows by themselves are, and the allowing ones too."""
    windows = (*some, *others)
    denies = [window for window in windows if window.effect is DENY]
    allows = [window for window in windows if window.effect is ALLOW]
    assert hours(at, *windows).is_open is (hours(at, *denies).is_open and hours(at, *allows).is_open)


@settings(max_examples=300)
@given(crons, lengths, st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1)))  # noqa: DTZ001
def test_where_clocks_never_change_it_is_as_cronsim_counts(
    cron: str, lasts: timedelta, naive: datetime
) -> None:
    """Closed while less than its length has passed since the line's latest time."""
    at = naive.replace(tzinfo=UTC)
    begun = next(CronSim(cron, at + timedelta(seconds=1), reverse=True))
    window = Window(effect=DENY, zone="UTC", cron=cron, lasts=lasts)
    assert hours(at, window).is_open is (at >= begun + lasts)


@settings(max_examples=300)
@given(crons, lengths, zones, moments)
def test_a_span_begins_at_a_time_of_the_line_or_right_after_a_jump(
    cron: str, lasts: timedelta, zone: str, at: datetime
) -> None:
    """Where it closes, the wall clock shows a time of the line, or has just jumped over one."""
    found = hours(at, Window(effect=DENY, zone=zone, cron=cron, lasts=lasts))
    if not found.is_open or found.changes_at is None:
        return
    here = found.changes_at.astimezone(ZoneInfo(zone))
    before = (found.changes_at - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)
    shown = next(CronSim(cron, before))
    assert before < shown <= here.replace(tzinfo=UTC)
