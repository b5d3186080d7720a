"""Rollouts through random trouble: what is said of them is true at that instant; and this is seen where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core import rules
from bot.core.case import Case
from bot.core.facts import ApplicationFacts
from bot.core.outcome import Outcome
from bot.core.progress import Stage
from chaos.rollouts import (
    INSIDE,
    LASTING,
    OUTSIDE,
    PASSING,
    TRUE,
    Ended,
    Happening,
    History,
    Schedule,
    drawn,
    follow,
    shortest,
    tally,
)

EACH = 50


@pytest.fixture
def history(tmp_path: Path) -> History:
    """The repository of a test."""
    return History(tmp_path)


def schedule(*happenings: tuple[float, str], **different: bool) -> Schedule:
    """What happens, by the second after the push."""
    return Schedule(happenings=tuple(Happening(*each) for each in happenings), **different)


async def ended(history: History, *happenings: tuple[float, str], **different: bool) -> Ended:
    """How a rollout ends during which this happens."""
    return await follow(schedule(*happenings, **different), history)


@pytest.mark.parametrize("first", range(1, 200, EACH))
async def test_whatever_happens_what_is_said_is_true(tmp_path: Path, first: int) -> None:
    """Every ending is as the cluster is, at that very instant, and there is one in time."""
    found = await tally(range(first, first + EACH), tmp_path)
    again = "; repeat one with: python -m chaos --part rollouts --only SEED"
    assert not found.violations, "\n".join(found.violations) + again
    assert sum(found.outcomes.values()) == EACH
    assert len(found.outcomes) >= 5, "the schedules reach hardly any ending"


async def test_a_seed_is_the_same_schedule_again(history: History) -> None:
    """What failed once can be run again, to the same look and the same second."""
    for seed in (11, 50, 96):
        assert await follow(drawn(seed), history) == await follow(drawn(seed), history)


def test_each_ending_has_a_claim_and_each_happening_is_known() -> None:
    """Nothing can be said that is not checked, and nothing is drawn that cannot happen."""
    assert set(TRUE) == set(Outcome)
    assert {*LASTING, *LASTING.values(), *PASSING} <= {*OUTSIDE, *INSIDE}


@pytest.mark.parametrize(
    ("happenings", "outcome"),
    [
        ((), Outcome.LIVE),
        ([(4, "notes")], Outcome.LIVE_WITHIN),
        ([(-9, "15"), (-8, "refreshed")], Outcome.NOTHING_CHANGED),
        ([(4, "16")], Outcome.SUPERSEDED),
        ([(4, "forced off")], Outcome.LOST),
        ([(-1, "apply fails")], Outcome.SYNC_FAILED),
        ([(-1, "crash")], Outcome.DEGRADED),
        ([(-1, "broken")], Outcome.CANNOT_RENDER),
        ([(-1, "deaf")], Outcome.NOT_PICKED_UP),
        ([(-1, "window closed")], Outcome.WINDOW_CLOSED),
        ([(-1, "sync by hand")], Outcome.NOT_SYNCED),
        ([(1.5, "operation lost")], Outcome.STUCK),
        ([(2, "argo down")], Outcome.UNREACHABLE),
        ([(2, "token expired")], Outcome.TOKEN_EXPIRED),
        ([(2, "right revoked")], Outcome.NO_PERMISSION),
        ([(2, "delete")], Outcome.DELETED),
        ([(2, "other branch")], Outcome.NOT_TRACKED),
        ([(3, "status not written")], Outcome.TIMED_OUT),
    ],
)
async def test_an_ending_is_reached_by_what_it_is_named_after(
    history: History, happenings: list[tuple[float, str]], outcome: Outcome
) -> None:
    """The claims are not empty: each ending but the rarest is said, and is true."""
    found = await ended(history, *happenings)
    assert (found.outcome, found.wrong) == (outcome, "")


async def test_a_bot_that_is_killed_again_and_again_says_nothing_else(history: History) -> None:
    """What was saved is enough, wherever it dies."""
    found = await ended(history, *((at, "kill") for at in range(0, 120, 7)))
    assert (found.outcome, found.wrong) == (Outcome.LIVE, "")


def _no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "image_doubt", lambda *_, **__: "")


def _no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_is_confirmed", lambda *_: True)


def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_lasted(case: Case, stage: Stage, _patience: object, _facts: ApplicationFacts) -> bool:
        return case.before is not None and case.before.stage is stage

    monkeypatch.setattr(Case, "has_lasted", has_lasted)


@pytest.mark.parametrize(
    ("without", "happenings", "outcome"),
    [
        (_no_image, [(-1, "stale render")], Outcome.NOTHING_CHANGED),
        (_no_hold, [], Outcome.LIVE),
        (_no_patience, [(-1, "crash"), (35, "recover")], Outcome.DEGRADED),
    ],
)
async def test_without_a_defence_something_untrue_is_said(
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    without: Callable[[pytest.MonkeyPatch], None],
    happenings: list[tuple[float, str]],
    outcome: Outcome,
) -> None:
    """The image of the pods, the hold and the grace are each what keeps one schedule true, and it is seen."""
    assert not (await ended(history, *happenings)).wrong
    without(monkeypatch)
    found = await ended(history, *happenings)
    assert found.outcome is outcome
    assert f"“{outcome}” is not true" in found.wrong


async def test_what_goes_wrong_is_told_by_its_shortest_schedule(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a violation does not need is left out of it."""
    _no_image(monkeypatch)
    long = schedule((-1, "stale render"), (3, "cache lost"), (5, "kill"), (60, "scale"))
    assert await shortest(long, history) == replace(long, happenings=(Happening(-1, "stale render"),))


async def test_an_older_sync_that_failed_is_no_error_of_rendering(history: History) -> None:
    """Argo CD refuses to sync the commit before ours again, and does not see ours: it can render all the same."""
    found = await ended(history, (-18, "apply fails"), (-15, "replicas"), (-14, "refreshed"), (-2, "deaf"))
    assert (found.outcome, found.wrong) == (Outcome.NOT_PICKED_UP, "")
