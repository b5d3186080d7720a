"""The picture of the numbers: a PNG that shows what it is told, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import pytest
from builders import NOON, PROD, same_as_golden, target
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_messages import assert_harmless

from bot.core.measuring import Measured, Statistics
from bot.core.stats import Numbers, Spread
from bot.messages import stats
from bot.messages.chart import GREEN, MOST_ROWS, PAPER, RED, UNKNOWN, draw

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SINCE = NOON - 30 * DAY
NOTHING = Spread(known=0, of=0)


def numbers(count: int, environment: str = "prod", **changes: object) -> Numbers:
    """So many deployments, evenly over thirty days, all of them good."""
    dates = tuple(SINCE + (place + 0.5) * 30 * DAY / count for place in range(count))
    plain = Numbers(
        app="manual-app",
        environment=environment,
        first="dev",
        since=SINCE,
        until=NOON,
        dates=dates,
        rollbacks=0,
        emergencies=0,
        failures=0,
        rolled_back=0,
        endings=count,
        lead=NOTHING,
        restore=NOTHING,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


DEV = numbers(
    63,
    "dev",
    lead=None,
    endings=2,
    failures=2,
    rolled_back=2,
    restore=Spread(known=2, of=2, median=22 * MINUTE, p90=35 * MINUTE),
)
STAGE = numbers(
    22,
    "stage",
    lead=Spread(known=20, of=22, median=90 * MINUTE, p90=7.2 * HOUR),
    failures=3,
    rolled_back=1,
    endings=19,
    restore=Spread(known=1, of=3, median=66 * MINUTE, p90=66 * MINUTE),
)
BUSY = numbers(
    14,
    lead=Spread(known=1, of=14, median=28.2 * HOUR, p90=28.2 * HOUR),
    failures=2,
    rolled_back=1,
    rollbacks=1,
    emergencies=1,
    restore=NOTHING,
)
QUIET = numbers(0)
BLIND = numbers(1, endings=0, lead=Spread(known=0, of=1))
BROKEN = numbers(2, failures=2, lead=Spread(known=0, of=2), restore=Spread(known=0, of=2))


def found(*each: Numbers, **changes: object) -> Statistics:
    """What was asked for."""
    measured = tuple(Measured(target=target(one.environment), numbers=one) for one in each)
    return replace(Statistics(since=SINCE, until=NOON, targets=measured), **changes)  # type: ignore[arg-type]


def opened(picture: bytes) -> Image.Image:
    """The picture as a reader opens it."""
    image = Image.open(BytesIO(picture))
    assert image.format == "PNG"
    return image.convert("RGB")


def share(picture: bytes, colour: str) -> float:
    """How much of the picture has this very colour."""
    image = opened(picture)
    wanted = tuple(bytes.fromhex(colour[1:]))
    amounts = {each: count for count, each in image.getcolors(image.width * image.height) or []}
    return amounts.get(wanted, 0) / (image.width * image.height)


def test_equal_numbers_give_equal_bytes() -> None:
    """Nothing of the clock or the machine is in the file."""
    assert draw(found(DEV, STAGE, BUSY)) == draw(found(DEV, STAGE, BUSY))
    assert draw(found(DEV)) != draw(found(STAGE))


def test_the_picture_is_small_enough_to_send_and_large_enough_to_read() -> None:
    """Less than a megabyte, and sharp on dense screens."""
    picture = draw(found(*[BUSY] * MOST_ROWS))
    assert len(picture) < 1_000_000
    assert opened(picture).width == 1600


def test_more_targets_than_eight_are_left_out() -> None:
    """A picture that grows without an end is read by nobody; how many are missing is written above."""
    eight, nine = draw(found(*[BUSY] * MOST_ROWS)), draw(found(*[BUSY] * (MOST_ROWS + 1)))
    assert opened(eight).height == opened(nine).height
    assert eight != nine


@pytest.mark.parametrize(
    ("shown", "red", "grey", "green"),
    [
        (BUSY, True, False, True),
        (BLIND, False, True, False),
        (BROKEN, True, False, False),
        (QUIET, False, False, False),
    ],
    ids=["some failed", "nobody knows", "all failed", "nothing was deployed"],
)
def test_the_colours_say_what_is_known(shown: Numbers, *, red: bool, grey: bool, green: bool) -> None:
    """Failures are red and what nobody knows is grey: neither is ever shown as good."""
    picture = draw(found(replace(shown, restore=NOTHING)))
    assert [share(picture, each) > 0 for each in (RED, UNKNOWN, GREEN)] == [red, grey, green]


def test_the_more_failed_the_more_is_red() -> None:
    """The bar is as long as the share."""
    shares = [share(draw(found(numbers(10, failures=failures))), RED) for failures in (1, 5, 10)]
    assert shares == sorted(set(shares))


TIMES = st.timedeltas(timedelta(0), timedelta(days=400))


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    """Any spread that can be counted."""
    times = sorted(draw(st.lists(TIMES, min_size=2, max_size=2)))
    known = draw(st.integers(0, 500))
    of = known + draw(st.integers(0, 500))
    return Spread(known=known, of=of, median=times[0], p90=times[1]) if known else Spread(known=0, of=of)


@st.composite
def any_numbers(draw: st.DrawFn) -> Numbers:
    """Any numbers that can be counted."""
    name = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,39}", fullmatch=True)
    count = draw(st.integers(0, 60))
    endings = draw(st.integers(0, count))
    failures = draw(st.integers(0, endings))
    since = NOON - draw(st.timedeltas(timedelta(hours=1), timedelta(days=366)))
    return replace(
        numbers(0),
        app=draw(name),
        environment=draw(name),
        first=draw(name),
        since=since,
        dates=tuple(since + draw(st.floats(0, 1.1)) * (NOON - since) for _ in range(count)),
        rollbacks=draw(st.integers(0, 9)),
        emergencies=draw(st.integers(0, count)),
        endings=endings,
        failures=failures,
        rolled_back=draw(st.integers(0, failures)),
        lead=draw(st.none() | spreads()),
        restore=draw(spreads()) if failures else NOTHING,
    )


def has_empty_margins(image: Image.Image) -> bool:
    """Is nothing drawn at the left and the right edge?"""
    blank = tuple(bytes.fromhex(PAPER[1:]))
    edges = (image.crop((left, 0, left + 40, image.height)) for left in (0, image.width - 40))
    return all(edge.getcolors() == [(40 * image.height, blank)] for edge in edges)


def test_long_names_are_cut() -> None:
    """Forty of the widest letter for each name stay within the picture."""
    long = replace(STAGE, app="w" * 40, environment="w" * 40, first="w" * 40)
    assert has_empty_margins(opened(draw(found(long, replace(long, lead=Spread(known=0, of=2))))))


@settings(max_examples=40)
@given(st.lists(any_numbers(), max_size=3))
def test_whatever_can_be_counted_can_be_shown(each: list[Numbers]) -> None:
    """In words and as a picture: nothing is drawn into the margin, and no name acts in Slack."""
    everything = found(*each)
    assert has_empty_margins(opened(draw(everything)))
    assert_harmless(stats.answer(everything))
    assert_harmless(stats.caption(everything, user="U0DANA"))
    assert len(stats.alternative(everything)) <= 1000


# --- in words


def lines() -> Iterator[str]:
    """Every kind of answer."""
    for name, shown in {
        "an app": found(DEV, STAGE, BUSY),
        "nothing was deployed, nobody knows, nothing is restored": found(QUIET, BLIND, BROKEN),
        "many targets": found(*[DEV, BUSY, QUIET, BLIND] * 2, left_out=3),
        "a short window": replace(found(numbers(1, since=NOON - 36 * HOUR)), since=NOON - 36 * HOUR),
        "doubts": found(doubts=("gitops cannot be read, so what is there is left out: it is <away>",)),
    }.items():
        yield f"--- {name}\n{stats.answer(shown)}"
    yield "\n".join(
        (
            "--- pictures",
            stats.shown("C0DEPLOYS"),
            stats.shown_lately("C0DEPLOYS"),
            stats.cannot_show("C0DEPLOYS"),
            stats.not_shown("C0DEPLOYS", "the app may not upload files"),
            stats.not_shown_everywhere(4),
            stats.caption(found(BUSY), user="U0DANA"),
            stats.alternative(found(BUSY, QUIET)),
        )
    )


def test_the_words_are_as_they_were_agreed() -> None:
    """Every answer, and every sentence about the picture, is under review as a golden file."""
    same_as_golden("stats.txt", "\n\n".join(lines()) + "\n")


def test_a_long_answer_loses_targets_and_not_what_could_not_be_read() -> None:
    """Thirty targets with long names do not fit; what else there is to say does, and how many are missing."""
    long = replace(BUSY, app="a" * 40, environment="e" * 40)
    said = stats.answer(
        found(*[long] * 30, doubts=("One. " * 200, "two", "three")), pictures=[stats.shown("C0DEPLOYS")]
    )
    assert len(said) <= 4000
    assert ":warning: three." in said
    assert said.endswith("The picture is in <#C0DEPLOYS>.")
    assert " more\n" in said


@pytest.mark.parametrize(
    ("time", "words"),
    {
        timedelta(0): "0 s",
        timedelta(seconds=59): "59 s",
        timedelta(seconds=60): "1 min",
        timedelta(minutes=61): "1 h 1 min",
        timedelta(days=1, minutes=5): "1 d",
        timedelta(days=2, hours=3, minutes=59): "2 d 3 h",
        timedelta(seconds=-5): "0 s",
    }.items(),
)
def test_a_time_is_told_in_its_two_largest_units(time: timedelta, words: str) -> None:
    """`2 d 3 h`, and nothing that is zero."""
    assert stats.duration(time) == words


def test_a_rate_that_is_not_zero_is_never_told_as_zero() -> None:
    """One failure of three hundred is 0.3%."""
    assert stats.failures(numbers(300, failures=1)).value == "0.3%"
    assert stats.failures(numbers(300)).value == "0%"


def test_the_target_of_the_examples_is_the_usual_one() -> None:
    """The examples stand in the channel of the target."""
    assert found(BUSY).targets[0].target == PROD
