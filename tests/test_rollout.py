"""The decision procedure: when a commit is live, when it failed, and when nobody can say yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.catalog import RolloutPolicy
from bot.core.facts import Operation, Pod, ResourceResult, Workloads
from bot.core.rollout import (
    ApplicationFacts,
    Case,
    Look,
    Progress,
    Relation,
    Stage,
    Unseen,
    decide,
    image_doubt,
    next_look,
    running_version,
    wants_refresh,
)

OLD, OURS, LATER, UNKNOWN = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
IMAGE = "ghcr.io/acme/manual-app"
PUSHED_AT = datetime(2026, 8, 24, 9, 0, tzinfo=UTC)
POLICY = RolloutPolicy()
RELATIONS = {
    OLD: Relation(contains=False),
    OURS: Relation(contains=True, author="Priya"),
    LATER: Relation(contains=True, author="Sam"),
    UNKNOWN: Relation(contains=None),
}
REVERTED = RELATIONS | {LATER: Relation(contains=True, holds_value=False, author="Sam")}


def after(seconds: float) -> datetime:
    """An instant, counted from the push."""
    return PUSHED_AT + timedelta(seconds=seconds)


def operation(**changes: Any) -> Operation:
    """The operation that synced our commit."""
    whole = Operation(phase="Succeeded", revision=OURS, is_full=True, finished_at=after(3))
    return replace(whole, **changes)


def pod(version: str = "15", **changes: Any) -> Pod:
    whole = Pod(name="pod-1", images=(f"{IMAGE}:{version}",), is_ready=True, is_terminating=False)
    return replace(whole, **changes)


def workloads(*pods: Pod, rendered: str = "15") -> Workloads:
    return Workloads(rendered_images=frozenset({f"{IMAGE}:{rendered}"}), pods=pods)


def facts(**changes: Any) -> ApplicationFacts:
    """An application that runs our commit and has been compared since."""
    whole = ApplicationFacts(
        name="manual-app-prod",
        tracks=None,
        automated=True,
        sync="Synced",
        revision=OURS,
        compares_spec=True,
        health="Healthy",
        is_operating=False,
        operation=operation(),
        reconciled_at=after(4),
        history_revision=OURS,
        workloads=workloads(pod()),
    )
    return replace(whole, **changes)


def unnoticed(**changes: Any) -> ApplicationFacts:
    """The same application while Argo CD knows only the commit before ours: Synced and Healthy, as it happens."""
    old = operation(revision=OLD, finished_at=after(-900))
    whole = facts(
        revision=OLD, history_revision=OLD, operation=old, workloads=workloads(pod("14"), rendered="14")
    )
    return replace(whole, **changes)


def syncing(**changes: Any) -> ApplicationFacts:
    running = operation(phase="Running", finished_at=None)
    return replace(unnoticed(is_operating=True, operation=running, workloads=None), **changes)


def case(now: float = 10, **changes: Any) -> Case:
    whole = Case(
        revision=OURS,
        image=f"{IMAGE}:15",
        committed_at=PUSHED_AT,
        now=after(now),
        policy=POLICY,
        relations=RELATIONS,
        before=None,
    )
    return replace(whole, **changes)


def been(stage: Stage, *, since: float, **changes: Any) -> Progress:
    """What was remembered of an application that has been in a stage for a while."""
    whole = Progress(
        name="manual-app-prod", stage=stage, since=after(since), says="", compared_at=after(since)
    )
    return replace(whole, **changes)


@dataclass(kw_only=True)
class Following:
    """Looks at an application again and again, as the engine does, and keeps the account of it."""

    policy: RolloutPolicy = POLICY
    relations: dict[str, Relation] = field(default_factory=lambda: dict(RELATIONS))
    progress: Progress | None = None
    refreshed_at: list[float] = field(default_factory=list)

    def look(self, now: float, found: ApplicationFacts | Unseen, *, compared: bool = True) -> Stage:
        """One look; Argo CD compares just before it, unless it does not."""
        if isinstance(found, ApplicationFacts) and compared:
            found = replace(found, reconciled_at=after(now))
        refresh = wants_refresh(self.progress, now=after(now), policy=self.policy)
        asked = {"refreshed_at": after(now)}
        before = replace(self.progress, **asked) if refresh and self.progress else self.progress
        done = decide(found, case(now, before=before, policy=self.policy, relations=self.relations))
        if refresh:
            done = replace(done, refreshed_at=after(now), refreshes=done.refreshes + 1)
            self.refreshed_at.append(now)
        self.progress = done
        return done.stage

    def every(self, seconds: Sequence[float], found: ApplicationFacts | Unseen) -> Stage:
        """The same look several times."""
        return [self.look(now, found) for now in seconds][-1]


STAGES: dict[str, tuple[ApplicationFacts, Stage, str]] = {
    "the old commit, Synced and Healthy, is not ours": (unnoticed(), Stage.UNNOTICED, "not noticed"),
    "a branch name in place of a revision proves nothing": (
        unnoticed(revision=None),
        Stage.UNNOTICED,
        "not noticed",
    ),
    "a revision of unknown ancestry proves nothing": (
        unnoticed(revision=UNKNOWN),
        Stage.UNNOTICED,
        "not noticed",
    ),
    "an application that is being deleted is an end": (facts(is_deleting=True), Stage.FAILED, "deleted"),
    "an application that tracks another branch is an end": (
        unnoticed(tracks="release, not the branch main"),
        Stage.FAILED,
        "it tracks release",
    ),
    "a queued operation of our commit is a sync": (
        syncing(operation=operation(phase="", finished_at=None)),
        Stage.SYNCING,
        "sync queued",
    ),
    "a queued operation that nobody described is a sync": (
        syncing(operation=None),
        Stage.SYNCING,
        "sync queued",
    ),
    "a running operation of our commit tells how far it is": (
        syncing(
            operation=operation(
                phase="Running",
                expected=3,
                message="waiting for healthy state of apps/Deployment/manual-app",
                resources=(ResourceResult(name="Service/manual-app", status="Synced"),),
            )
        ),
        Stage.SYNCING,
        "synced 1 of 3, waiting for healthy state",
    ),
    "an operation that waits for its retry still runs": (
        syncing(operation=operation(phase="Running", retries=2, message="Retrying attempt #2")),
        Stage.SYNCING,
        "retry 2, Retrying attempt #2",
    ),
    "a running operation of the old commit is waited for": (
        syncing(operation=operation(phase="Running", revision=OLD)),
        Stage.BEHIND,
        "waits behind the sync of aaaaaaaa",
    ),
    "a failed operation of our commit is an end, in the words of the resource that failed": (
        facts(
            operation=operation(
                phase="Failed",
                message="one or more objects failed to apply",
                resources=(
                    ResourceResult(name="Deployment/manual-app", status="SyncFailed", message="denied"),
                ),
            ),
        ),
        Stage.FAILED,
        "sync failed: Deployment/manual-app: denied",
    ),
    "a failed operation counts although the comparison is Synced": (
        facts(operation=operation(phase="Error", message="hook failed")),
        Stage.FAILED,
        "sync failed: hook failed",
    ),
    "a failed operation of a commit after ours names its author": (
        facts(operation=operation(phase="Failed", revision=LATER, message="denied")),
        Stage.FAILED,
        "sync failed at cccccccc by Sam, which contains this commit: denied",
    ),
    "a failed dry run or partial sync is not ours": (
        facts(revision=OLD, operation=operation(phase="Failed", is_full=False)),
        Stage.UNNOTICED,
        "not noticed",
    ),
    "a failed operation of the old commit is not ours": (
        unnoticed(operation=operation(phase="Failed", revision=OLD)),
        Stage.UNNOTICED,
        "not noticed",
    ),
    "an error of rendering is given time": (
        unnoticed(sync="Unknown", revision=None, errors=("helm template failed",)),
        Stage.COMPARING,
        "cannot compare yet: helm template failed",
    ),
    "an error of rendering hides what the revision says": (
        facts(sync="Unknown", errors=("helm template failed",)),
        Stage.COMPARING,
        "cannot compare yet",
    ),
    "a noticed commit waits for its sync": (
        unnoticed(sync="OutOfSync", revision=OURS),
        Stage.WAITING,
        "the sync has not begun yet",
    ),
    "without automated sync somebody has to press Sync": (
        unnoticed(sync="OutOfSync", revision=OURS, automated=False),
        Stage.WAITING,
        "press Sync",
    ),
    "a refused automated sync says why": (
        unnoticed(sync="OutOfSync", revision=OURS, errors=("auto-sync will wipe out all resources",)),
        Stage.WAITING,
        "wipe out",
    ),
    "Succeeded beside a comparison from before it settles": (
        facts(sync="OutOfSync", reconciled_at=after(2)),
        Stage.SETTLING,
        "next comparison",
    ),
    "a comparison within the same second as the operation's end is too old": (
        facts(reconciled_at=after(3)),
        Stage.SETTLING,
        "next comparison",
    ),
    "a comparison with other settings of the application settles": (
        facts(compares_spec=False),
        Stage.SETTLING,
        "next comparison",
    ),
    "a deployed commit that is compared with the old one settles": (
        facts(revision=OLD),
        Stage.SETTLING,
        "does not compare with this commit",
    ),
    "out of sync again at the same commit is no success": (
        facts(sync="OutOfSync"),
        Stage.ROLLING_OUT,
        "different from the manifests again",
    ),
    "Progressing rolls out": (
        facts(health="Progressing", health_message="1 of 3 updated"),
        Stage.ROLLING_OUT,
        "1 of 3 updated",
    ),
    "Missing rolls out": (facts(health="Missing"), Stage.ROLLING_OUT, "pods rolling out"),
    "a health that nobody knows yet is not healthy": (
        facts(health="Hibernating"),
        Stage.ROLLING_OUT,
        "rolling out",
    ),
    "Suspended is paused": (facts(health="Suspended"), Stage.PAUSED, "resume"),
    "Degraded is given time and names the resource": (
        facts(
            health="Degraded",
            unhealthy=(
                ResourceResult(name="Deployment/manual-app", status="Degraded", message="deadline exceeded"),
            ),
        ),
        Stage.DEGRADED,
        "degraded: Deployment/manual-app: deadline exceeded",
    ),
    "an error condition blocks a healthy application": (
        facts(errors=("status could not be persisted",)),
        Stage.SETTLING,
        "could not be persisted",
    ),
    "without its pods a healthy application is not believed": (
        facts(workloads=None),
        Stage.SETTLING,
        "checking the image",
    ),
    "manifests rendered with the old image are a mismatch": (
        facts(workloads=workloads(pod(), rendered="14")),
        Stage.MISMATCH,
        "the manifests hold 14",
    ),
    "an old pod is a mismatch": (
        facts(workloads=workloads(pod(), pod("14", name="pod-2"))),
        Stage.MISMATCH,
        "pod pod-2 still runs 14",
    ),
    "a pod that is not ready rolls out, whatever the health says": (
        facts(workloads=workloads(pod(is_ready=False, trouble="CrashLoopBackOff"))),
        Stage.ROLLING_OUT,
        "pod-1 is not ready: CrashLoopBackOff",
    ),
    "healthy is held before it is believed": (facts(), Stage.CONFIRMING, "must stay so for 10 s"),
    "a commit that changes nothing here needs no operation": (
        facts(operation=operation(revision=OLD, finished_at=after(-900)), history_revision=OLD),
        Stage.CONFIRMING,
        "must stay so",
    ),
    "an application without any operation on record may be healthy": (
        facts(operation=None, history_revision=None),
        Stage.CONFIRMING,
        "must stay so",
    ),
    "ours runs while a later commit waits": (
        facts(sync="OutOfSync", revision=LATER),
        Stage.CONFIRMING,
        "must stay so",
    ),
    "a partial sync of our commit is no deployment": (
        unnoticed(sync="OutOfSync", revision=OURS, operation=operation(is_full=False)),
        Stage.WAITING,
        "has not begun",
    ),
}


@pytest.mark.parametrize(("found", "stage", "says"), STAGES.values(), ids=STAGES.keys())
def test_the_first_rule_that_fits_answers(found: ApplicationFacts, stage: Stage, says: str) -> None:
    """One look at each situation, and what is said of it."""
    progress = decide(found, case())
    assert progress.stage is stage, progress.says
    assert says in progress.says


@pytest.mark.parametrize("place", ["revision", "operation", "history_revision"])
def test_a_later_commit_with_another_version_supersedes_ours(place: str) -> None:
    """Wherever Argo CD names it: the rollout of our version is over, and nobody failed."""
    found = operation(revision=LATER) if place == "operation" else LATER
    progress = decide(facts(**{place: found}), case(relations=REVERTED))
    assert progress.stage is Stage.SUPERSEDED
    assert progress.says == "cccccccc by Sam changed the version again"


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


def test_a_lost_refresh_keeps_the_hold_until_one_is_answered() -> None:
    """Argo CD loses a refresh that comes during a comparison: only a newer stamp proves that it looked again."""
    following = Following()
    following.look(0, facts())
    stale = replace(facts(), reconciled_at=after(0))
    assert following.look(10, stale, compared=False) is Stage.CONFIRMING
    assert following.look(24, stale, compared=False) is Stage.CONFIRMING
    assert following.look(25, facts()) is Stage.LIVE
    assert following.refreshed_at == [0, 10, 25]


@pytest.mark.parametrize(
    "between",
    [
        facts(health="Progressing"),
        facts(workloads=None),
        facts(workloads=workloads(pod("14"))),
        syncing(),
        Unseen(name="manual-app-prod", reason="Argo CD is not available", is_final=False),
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
    assert following.progress.says == "live as part of cccccccc by Sam, every pod runs it"


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
    """Ten minutes without notice, by the policy; one second less is still hope."""
    assert decide(unnoticed(), case(599)).stage is Stage.UNNOTICED
    late = decide(unnoticed(), case(600))
    assert late.stage is Stage.FAILED
    assert late.says == "not picked up: Argo CD has not noticed the commit for 10 minutes"


def test_whatever_still_goes_on_at_the_time_limit_has_timed_out() -> None:
    """The end says in which stage, and what was missing."""
    found = facts(health="Progressing", health_message="1 of 3 updated")
    assert decide(found, case(1199)).stage is Stage.ROLLING_OUT
    late = decide(found, case(1200))
    assert (late.stage, late.says) == (Stage.FAILED, "timed out while rolling out: 1 of 3 updated")


def test_an_argo_cd_that_does_not_answer_decides_nothing() -> None:
    """It is followed on, with the length of the silence after five minutes, until the time is up."""
    following = Following()
    unseen = Unseen(name="manual-app-prod", reason="Argo CD is not available: 503", is_final=False)
    following.look(0, facts(health="Progressing"))
    assert following.every([10, 299], unseen) is Stage.UNREACHABLE
    assert following.progress
    assert following.progress.says == "Argo CD is not available: 503; the commit is pushed"
    assert following.progress.pods == ""
    following.look(300, unseen)
    assert following.progress.says == "Argo CD is not available: 503, for 5 minutes; the commit is pushed"
    assert following.look(1199, unseen) is Stage.UNREACHABLE
    assert following.look(1200, unseen) is Stage.FAILED
    assert "nobody knows whether it is live" in following.progress.says


def test_a_refusal_to_tell_is_an_end_that_claims_nothing() -> None:
    """An expired token says nothing about the rollout, and waiting will not help."""
    unseen = Unseen(name="manual-app-prod", reason="the token for Argo CD expired", is_final=True)
    progress = decide(unseen, case())
    assert progress.stage is Stage.FAILED
    assert (
        progress.says
        == "nobody knows whether it is live: the token for Argo CD expired; the commit is pushed"
    )


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
    """At once, four times at fifteen seconds, then once a minute: a refresh can be lost."""
    following = Following()
    for now in range(0, 200, 5):
        following.look(now, unnoticed())
    assert following.refreshed_at == [0, 15, 30, 45, 60, 120, 180]


def test_what_settles_is_asked_for_at_each_look_but_not_for_ever() -> None:
    """Two seconds apart for half a minute, then as seldom as everything else."""
    assert wants_refresh(been(Stage.SETTLING, since=0, refreshed_at=after(1)), now=after(3), policy=POLICY)
    assert not wants_refresh(
        been(Stage.SETTLING, since=0, refreshed_at=after(30)), now=after(33), policy=POLICY
    )


@pytest.mark.parametrize(
    "stage", [Stage.SYNCING, Stage.BEHIND, Stage.ROLLING_OUT, Stage.PAUSED, Stage.UNREACHABLE]
)
def test_what_moves_by_itself_is_left_alone(stage: Stage) -> None:
    """Argo CD tells of each change of these without being asked, or could not be asked at all."""
    assert not wants_refresh(been(stage, since=0, refreshed_at=after(0)), now=after(500), policy=POLICY)


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
