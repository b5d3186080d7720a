"""Looks at a rollout one after the other: holds, graces and time limits, and when to ask and look again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from rollout_cases import (
    LATER,
    POLICY,
    PUSHED_AT,
    Following,
    after,
    been,
    case,
    facts,
    operation,
    pod,
    syncing,
    unnoticed,
    workloads,
)

from bot.core.facts import ApplicationFacts, Unseen
from bot.core.progress import Look, Stage, next_look, wants_refresh
from bot.core.rollout import decide

UNAVAILABLE = Unseen(name="manual-app-prod", reason="Argo CD is not available: 503", is_final=False)
REFUSED = Unseen(name="manual-app-prod", reason="the token for Argo CD expired", is_final=True)


def test_a_rollout_that_goes_well_is_live_after_the_hold() -> None:
    """From the push to the end, with each stage in its order."""
    following = Following()
    seen = [
        following.look(0, unnoticed()),
        following.look(2, syncing()),
        following.look(4, facts(sync="OutOfSync", operation=operation(finished_at=after(4))), compared=False),
        following.look(6, facts(health="Progressing")),
        following.look(8, facts()),
        following.look(18, facts()),
    ]
    assert seen == [
        Stage.UNNOTICED,
        Stage.SYNCING,
        Stage.SETTLING,
        Stage.ROLLING_OUT,
        Stage.CONFIRMING,
        Stage.LIVE,
    ]
    assert following.progress
    assert following.progress.says == "synced and healthy, every pod runs it"
    assert following.progress.pods == "1 of 1 pods ready"


def test_the_hold_ends_at_its_very_second_and_not_before() -> None:
    """Ten seconds of health, and the look that ends them asks for a new comparison."""
    following = Following()
    following.look(0, facts())
    assert following.look(9.9, facts()) is Stage.CONFIRMING
    assert following.look(10, facts()) is Stage.LIVE
    assert following.refreshed_at == [0, 10]


def test_a_comparison_that_nobody_asked_for_does_not_end_the_hold() -> None:
    """It may have begun before the last pod turned ready; the one that decides is asked for after the hold."""
    held = been(Stage.CONFIRMING, since=0, refreshed_at=after(9.9))
    compared = facts(reconciled_at=after(5))
    assert decide(compared, case(10, before=held)).stage is Stage.CONFIRMING
    asked = replace(held, refreshed_at=after(10))
    assert decide(compared, case(10, before=asked)).stage is Stage.LIVE


def test_a_lost_refresh_keeps_the_hold_until_one_is_answered() -> None:
    """Argo CD loses a refresh that comes during a comparison: only a newer stamp proves that it looked again."""
    following = Following()
    following.look(0, facts())
    stale = replace(facts(), reconciled_at=after(0))
    assert following.look(10, stale, compared=False) is Stage.CONFIRMING
    assert following.look(14, stale, compared=False) is Stage.CONFIRMING
    assert following.look(15, facts()) is Stage.LIVE
    assert following.refreshed_at == [0, 10, 15]


@pytest.mark.parametrize(
    "between",
    [
        facts(health="Progressing"),
        facts(workloads=None),
        facts(workloads=workloads(pod("14"))),
        syncing(),
        UNAVAILABLE,
    ],
    ids=["progressing", "pods not read", "an old pod", "another sync", "unseen"],
)
def test_the_hold_begins_anew_after_anything_else(between: ApplicationFacts | Unseen) -> None:
    """Health must last without a break that anybody saw."""
    following = Following()
    following.look(0, facts())
    following.look(5, between)
    assert following.every([6, 11, 15.9], facts()) is Stage.CONFIRMING
    assert following.look(16, facts()) is Stage.LIVE


def test_commits_of_others_do_not_restart_the_hold() -> None:
    """In a busy repository the revision moves on all the time; while it keeps our value, health is what counts."""
    following = Following()
    following.look(0, facts())
    assert following.look(10, facts(revision=LATER)) is Stage.LIVE
    assert following.progress
    assert following.progress.says == "cccccccc by Sam contains it, every pod runs it"


def test_live_says_what_waits_behind_it_and_what_was_not_checked() -> None:
    """A later commit that is not synced yet is named, and an application without pods says so."""
    following = Following()
    found = facts(sync="OutOfSync", revision=LATER, workloads=workloads())
    assert following.every([0, 10], found) is Stage.LIVE
    assert following.progress
    assert following.progress.says == (
        "synced and healthy, it has no pods to check; cccccccc by Sam waits to be synced"
    )


PATIENCE = {
    Stage.DEGRADED: facts(health="Degraded", health_message="crash loop"),
    Stage.MISMATCH: facts(workloads=workloads(pod("14"))),
    Stage.COMPARING: unnoticed(sync="Unknown", errors=("no such file",)),
}


@pytest.mark.parametrize(("stage", "found"), PATIENCE.items(), ids=[str(stage) for stage in PATIENCE])
def test_a_bad_sign_fails_after_a_minute_of_it_over_two_comparisons(
    stage: Stage, found: ApplicationFacts
) -> None:
    """A flap, a stumbling git host, a slow old pod heal; a minute, and Argo CD's second word on it, do not."""
    following = Following()
    assert following.every([0, 30, 59.9], found) is stage
    unchanged = replace(found, reconciled_at=after(0))
    assert following.look(60, unchanged, compared=False) is stage
    assert following.look(75, found) is Stage.FAILED


@pytest.mark.parametrize(("stage", "found"), PATIENCE.items(), ids=[str(stage) for stage in PATIENCE])
def test_a_bad_sign_that_passes_is_forgiven(stage: Stage, found: ApplicationFacts) -> None:
    """After a recovery the minute begins anew."""
    following = Following()
    following.every([0, 59], found)
    assert following.look(60, facts()) is Stage.CONFIRMING
    assert following.every([61, 120.9], found) is stage


def test_not_picked_up_is_an_end_after_its_time() -> None:
    """Ten minutes of answers without notice, by the policy; one second less is still hope."""
    following = Following()
    assert following.every([5, *range(10, 600, 10), 604], unnoticed()) is Stage.UNNOTICED
    assert following.look(605, unnoticed()) is Stage.FAILED
    assert following.progress
    assert following.progress.says == "not picked up: Argo CD has not noticed the commit for 10 minutes"


def test_a_late_first_look_is_not_the_end_of_the_time_to_notice() -> None:
    """Nobody had asked Argo CD before it; it notices when it is asked."""
    following = Following()
    assert following.look(700, unnoticed()) is Stage.UNNOTICED
    assert following.refreshed_at == [700]
    assert following.every([702, 712], facts()) is Stage.LIVE


def test_an_argo_cd_that_was_away_gets_its_time_to_notice_afterwards() -> None:
    """It missed the push while it was down: the first good look asks it to compare, and it may take its time."""
    following = Following()
    following.look(0, unnoticed())
    following.every(range(10, 700, 15), UNAVAILABLE)
    assert following.every([700, 715], unnoticed()) is Stage.UNNOTICED
    assert following.refreshed_at[-2:] == [700, 715]
    assert following.every([720, 730], facts()) is Stage.LIVE


def test_a_bot_that_was_away_does_not_take_its_own_silence_for_that_of_argo_cd() -> None:
    """Two looks far apart, of which one asked, are not ten minutes of asking; those that follow decide."""
    following = Following()
    following.look(0, unnoticed())
    assert following.look(900, unnoticed()) is Stage.UNNOTICED
    assert following.look(915, unnoticed()) is Stage.FAILED


def test_without_a_refresh_nobody_is_accused_of_not_noticing() -> None:
    """Argo CD may never have been asked since it began to answer."""
    unasked = been(Stage.UNNOTICED, since=0, seen_at=after(590), refreshed_at=after(-1))
    assert decide(unnoticed(), case(600, before=unasked)).stage is Stage.UNNOTICED
    asked = replace(unasked, refreshed_at=after(0))
    assert decide(unnoticed(), case(600, before=asked)).stage is Stage.FAILED


def test_whatever_still_goes_on_at_the_time_limit_has_timed_out() -> None:
    """The end says in which stage, and what was missing."""
    found = facts(health="Progressing", health_message="1 of 3 updated")
    assert decide(found, case(1199)).stage is Stage.ROLLING_OUT
    late = decide(found, case(1200))
    assert (late.stage, late.says) == (
        Stage.FAILED,
        "timed out after 20 minutes while rolling out: 1 of 3 updated",
    )


def test_what_is_live_at_the_first_look_of_a_bot_that_was_away_is_live() -> None:
    """The time limit ends no hold that could not begin before it."""
    following = Following()
    following.look(0, syncing())
    assert following.look(3000, facts(workloads=None)) is Stage.SETTLING
    assert following.look(3020, facts()) is Stage.CONFIRMING
    assert following.look(3030, facts()) is Stage.LIVE


def test_a_hold_that_began_before_the_time_limit_may_end_after_it() -> None:
    """Health at the last moment is health, also where Argo CD stumbles once over the limit."""
    following = Following()
    assert following.every([1195, 1204], facts()) is Stage.CONFIRMING
    assert following.look(1204.9, UNAVAILABLE) is Stage.UNREACHABLE
    assert following.every([1210, 1219], facts()) is Stage.CONFIRMING
    assert following.look(1220, facts()) is Stage.LIVE


def test_what_is_not_deployed_has_no_overtime() -> None:
    """A hold that breaks past the time limit is over at once."""
    following = Following()
    assert following.look(3000, facts()) is Stage.CONFIRMING
    assert following.look(3005, facts(health="Progressing")) is Stage.FAILED
    assert following.progress
    assert following.progress.says == "timed out after 50 minutes while rolling out: synced, pods rolling out"


@pytest.mark.parametrize("other", [facts(workloads=None), UNAVAILABLE], ids=["settling", "unreachable"])
def test_a_flapping_application_times_out_in_the_end(other: ApplicationFacts | Unseen) -> None:
    """Two minutes and two holds past the limit, whatever it flaps between."""
    following = Following()
    following.look(1199, facts())
    stages = [following.look(1200 + 5 * place, (other, facts())[place % 2]) for place in range(29)]
    assert [stage.is_end for stage in stages] == [False] * 28 + [True]
    assert stages[-1] is Stage.FAILED


def test_a_refresh_that_is_never_answered_times_out_in_the_end() -> None:
    """Health that Argo CD does not look at anew stays unproved."""
    following = Following()
    stale = facts()
    assert [following.look(now, stale, compared=False) for now in (3000, 3010, 3139)] == [
        Stage.CONFIRMING
    ] * 3
    assert following.look(3140, stale, compared=False) is Stage.FAILED
    assert following.progress
    assert following.progress.says.startswith("timed out after 52 minutes while confirming: healthy")


def test_an_argo_cd_that_does_not_answer_decides_nothing() -> None:
    """It is followed on, with the length of the silence after five minutes, until the time is up."""
    following = Following()
    following.look(0, facts(health="Progressing"))
    assert following.every([10, 299], UNAVAILABLE) is Stage.UNREACHABLE
    assert following.progress
    assert following.progress.says == "Argo CD is not available: 503; the commit is pushed"
    assert following.progress.pods == ""
    following.look(300, UNAVAILABLE)
    assert following.progress.says == "Argo CD is not available: 503, for 5 minutes; the commit is pushed"
    assert following.look(1199, UNAVAILABLE) is Stage.UNREACHABLE
    assert following.look(1200, UNAVAILABLE) is Stage.FAILED
    assert "nobody knows whether it is live" in following.progress.says


def test_a_refusal_is_told_at_once_with_the_time_that_is_left_to_mend_it() -> None:
    """People can replace a token only when they hear of it."""
    progress = decide(REFUSED, case())
    assert progress.stage is Stage.UNREACHABLE
    assert progress.says == (
        "the token for Argo CD expired; somebody has to put that right within 5 minutes; the commit is pushed"
    )


def test_a_refusal_that_lasts_is_an_end_that_claims_nothing() -> None:
    """Five minutes of an expired token say nothing about the rollout, and nobody mends it."""
    following = Following()
    following.look(0, facts(health="Progressing"))
    assert following.every([10, 309.9], REFUSED) is Stage.UNREACHABLE
    assert following.look(310, REFUSED) is Stage.FAILED
    assert following.progress
    assert following.progress.says == (
        "nobody knows whether it is live: the token for Argo CD expired, for 5 minutes; the commit is pushed"
    )


@pytest.mark.parametrize("between", [facts(health="Progressing"), UNAVAILABLE], ids=["seen", "unavailable"])
def test_a_refusal_that_heals_is_forgiven(between: ApplicationFacts | Unseen) -> None:
    """A replaced token, a server that restarted: the next refusal has five minutes of its own."""
    following = Following()
    following.every([0, 299], REFUSED)
    following.look(300, between)
    assert following.every([310, 609], REFUSED) is Stage.UNREACHABLE
    assert following.every([609.5, 619.5], facts()) is Stage.LIVE


def test_silence_before_a_refusal_does_not_count_as_one() -> None:
    """Argo CD that comes back after a long outage may take the bot for a stranger while it starts."""
    following = Following()
    following.every([0, 400], UNAVAILABLE)
    assert following.look(415, REFUSED) is Stage.UNREACHABLE


def test_a_refusal_ends_at_the_time_limit_too() -> None:
    """The whole rollout has one limit, whatever is being waited for."""
    following = Following()
    assert following.every([1100, 1199], REFUSED) is Stage.UNREACHABLE
    assert following.look(1200, REFUSED) is Stage.FAILED


@pytest.mark.parametrize("end", [Stage.LIVE, Stage.FAILED, Stage.SUPERSEDED])
def test_an_end_stays_an_end(end: Stage) -> None:
    """Whatever is seen later, while other applications of the target are still followed."""
    ended = been(end, since=20)
    assert decide(facts(health="Degraded"), case(30, before=ended)) == ended
    assert not wants_refresh(ended, now=after(99), policy=POLICY)


def test_pods_in_trouble_are_named_at_once() -> None:
    """Nobody waits ten minutes for Degraded to learn of a crash loop; pods on their way out are not counted."""
    broken = pod(is_ready=False, trouble="CrashLoopBackOff (3 restarts)")
    leaving = pod("14", is_terminating=True, is_ready=False)
    found = facts(health="Progressing", workloads=workloads(pod(), broken, leaving))
    assert decide(found, case()).pods == "1 of 2 pods ready, CrashLoopBackOff (3 restarts)"


def test_an_unnoticed_commit_is_asked_for_quickly_and_then_each_minute() -> None:
    """At once, soon again, three times at fifteen seconds, then once a minute: a refresh can be lost."""
    following = Following()
    for now in range(0, 200, 5):
        following.look(now, unnoticed())
    assert following.refreshed_at == [0, 5, 20, 35, 50, 110, 170]


def test_what_settles_is_asked_for_at_each_look_but_not_for_ever() -> None:
    """Two seconds apart for half a minute, then as seldom as everything else."""
    assert wants_refresh(been(Stage.SETTLING, since=0, refreshed_at=after(1)), now=after(3), policy=POLICY)
    assert not wants_refresh(
        been(Stage.SETTLING, since=0, refreshed_at=after(30)), now=after(33), policy=POLICY
    )


@pytest.mark.parametrize("stage", [Stage.SYNCING, Stage.BEHIND, Stage.ROLLING_OUT, Stage.PAUSED])
def test_what_moves_by_itself_is_left_alone(stage: Stage) -> None:
    """Argo CD tells of each change of these without being asked."""
    assert not wants_refresh(been(stage, since=0, refreshed_at=after(0)), now=after(500), policy=POLICY)


def test_an_argo_cd_out_of_sight_is_asked_calmly_and_quickly_again_afterwards() -> None:
    """At most each fifteen seconds, however long it lasts, so that the first good look asks; the rest is as new."""
    following = Following()
    following.every(range(0, 400, 5), UNAVAILABLE)
    assert following.refreshed_at == list(range(0, 400, 15))
    following.every(range(405, 450, 5), unnoticed())
    assert following.refreshed_at[-4:] == [405, 410, 425, 440]


@pytest.mark.parametrize(("age", "pace"), [(5, 2), (121, 10), (601, 20)])
def test_looks_come_closely_at_first(age: float, pace: float) -> None:
    """Two, ten, twenty seconds apart."""
    look = Look(applications=(been(Stage.ROLLING_OUT, since=0),))
    found = next_look(look, committed_at=PUSHED_AT, now=after(age), policy=POLICY)
    assert found == timedelta(seconds=pace)


def test_the_next_look_comes_when_a_hold_ends() -> None:
    """Not two seconds late, and never closer than half a second."""
    look = Look(applications=(been(Stage.ROLLING_OUT, since=0), been(Stage.CONFIRMING, since=640)))
    waits = [
        next_look(look, committed_at=PUSHED_AT, now=after(now), policy=POLICY).total_seconds()
        for now in (641, 649.9, 650)
    ]
    assert waits == [9, 0.5, 20]


def test_a_silent_argo_cd_is_asked_more_and_more_seldom() -> None:
    """Up to fifteen seconds apart; one application that answers keeps the pace of all."""
    silent = been(Stage.UNREACHABLE, since=0)
    both = Look(applications=(silent, been(Stage.ROLLING_OUT, since=0)))
    waits = [
        next_look(Look(applications=(silent,)), committed_at=PUSHED_AT, now=after(now), policy=POLICY)
        for now in (1, 8, 100)
    ]
    assert [wait.total_seconds() for wait in waits] == [2, 8, 15]
    assert next_look(both, committed_at=PUSHED_AT, now=after(100), policy=POLICY) == timedelta(seconds=2)
