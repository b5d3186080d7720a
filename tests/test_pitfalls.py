"""The eighteen ways in which a look at Argo CD misleads, each with the rule that sees through it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rollout_cases import (
    APPLICATION,
    IMAGE,
    LATER,
    OLD,
    OURS,
    REVERTED,
    UNKNOWN,
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

from bot.core.facts import ResourceResult, running_version
from bot.core.outcome import Outcome
from bot.core.progress import Baseline, Look, wants_refresh, wants_rendering
from bot.core.rollout import Relation, Stage, decide
from bot.core.rules import STUCK_AFTER


def test_p01_the_old_commit_is_synced_and_healthy_right_after_the_push() -> None:
    """However long it stays so: only a revision that contains our commit proves anything."""
    following = Following()
    assert following.every(range(0, 300, 5), unnoticed()) is Stage.UNNOTICED


def test_p02_the_health_is_from_before_the_operation_ended() -> None:
    """Succeeded and Healthy at once: the comparison has to be younger than the operation, and to last."""
    stale = facts(reconciled_at=after(-2))
    assert decide(stale, case()).stage is Stage.SETTLING
    assert Following().look(0, facts()) is Stage.CONFIRMING


def test_p03_a_refresh_is_swallowed_by_a_comparison_under_way() -> None:
    """It is asked for again and again, until the revision shows that it was answered."""
    following = Following()
    following.every([0, 2, 4, 5, 10, 20, 35, 50, 65], unnoticed())
    assert following.refreshed_at == [0, 5, 20, 35, 50]


def test_p04_a_descendant_of_our_commit_counts_as_ours() -> None:
    """Argo CD may see only the tip of several pushes; equality would wait for ever."""
    found = facts(revision=LATER, operation=operation(revision=LATER), history_revision=LATER)
    following = Following()
    following.look(0, found)
    assert following.look(10, found) is Stage.LIVE
    assert following.progress
    assert following.progress.outcome is Outcome.LIVE_WITHIN
    assert "cccccccc by Sam contains it" in following.progress.says


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_p05_an_operation_of_something_else_proves_nothing(phase: str) -> None:
    """A dry run, a selective sync, one of the old commit: neither success nor failure of ours."""
    for other in (operation(phase=phase, is_full=False), operation(phase=phase, revision=OLD)):
        found = unnoticed(operation=other)
        assert decide(found, case()).stage is Stage.UNNOTICED


def test_p06_an_application_without_an_operation_on_record_is_judged_by_what_is_queued() -> None:
    """The record is taken away when the next operation is queued."""
    assert decide(syncing(operation=None), case()).stage is Stage.SYNCING
    assert decide(facts(operation=None), case()).stage is Stage.CONFIRMING


def test_p07_between_queueing_and_start_the_old_health_shows() -> None:
    """Synced and Healthy at our commit, and an operation is queued: not live yet."""
    queued = facts(is_operating=True, operation=operation(phase="", finished_at=None))
    following = Following()
    assert following.every([0, 10, 20], queued) is Stage.SYNCING


def test_p08_health_that_flickers_is_not_believed() -> None:
    """Healthy, Progressing, Healthy: the hold begins anew each time."""
    following = Following()
    for start in (0, 10, 20):
        assert following.look(start, facts()) is Stage.CONFIRMING
        assert following.look(start + 9, facts(health="Progressing")) is Stage.ROLLING_OUT
    following.look(30, facts())
    assert following.look(40, facts()) is Stage.LIVE


def test_p09_manifests_of_the_commit_before_are_rendered_anew_once() -> None:
    """Synced at our commit, with the image of the old one: Argo CD's cache is asked to forget, then blamed."""
    stale = facts(workloads=workloads(pod("14"), rendered="14"))
    following = Following()
    assert following.look(0, stale) is Stage.MISMATCH
    assert following.progress is not None
    assert wants_rendering(following.progress)
    asked = replace(following.progress, rendered_anew_at=after(1))
    assert not wants_rendering(asked)
    following.progress = asked
    following.every([20, 40, 60, 65], stale)
    assert following.progress.outcome is Outcome.MISMATCH
    assert "the manifests hold 14" in following.progress.says


def test_p10_a_comparison_of_another_spec_is_none() -> None:
    """The application was changed and not compared since."""
    assert decide(facts(compares_spec=False), case()).stage is Stage.SETTLING


def test_p11_a_descendant_that_took_our_value_back_supersedes_it() -> None:
    """It contains our commit, and not what we brought."""
    progress = decide(facts(revision=LATER), case(relations=REVERTED))
    assert (progress.stage, progress.outcome) == (Stage.SUPERSEDED, Outcome.SUPERSEDED)


def test_p12_an_application_that_an_application_set_syncs_waits_for_its_step() -> None:
    """Automated sync is off there, and nobody has to press anything."""
    found = unnoticed(
        sync="OutOfSync", revision=OURS, automated=False, rolls_with="step 2 of the ApplicationSet shop"
    )
    progress = decide(found, case())
    assert progress.stage is Stage.WAITING
    assert progress.says == "waits for its turn: step 2 of the ApplicationSet shop"


def test_p13_a_closed_sync_window_is_named_and_does_not_use_up_the_time() -> None:
    """Argo CD says nothing itself: no condition, no operation. Hours later it rolls out, with all of its time."""
    closed = unnoticed(
        sync="OutOfSync", revision=OURS, closed="a sync window keeps Argo CD from syncing until 18:00 UTC"
    )
    following = Following()
    assert following.every(range(0, 4 * 3600, 600), closed) is Stage.CLOSED
    assert following.progress
    assert following.progress.says.endswith("until 18:00 UTC")
    opened = 4 * 3600
    assert following.look(opened, syncing()) is Stage.SYNCING
    assert following.look(opened + 19 * 60, syncing()) is Stage.SYNCING
    assert following.look(opened + 20 * 60, syncing()) is Stage.FAILED
    assert following.progress.outcome is Outcome.TIMED_OUT


def test_p14_a_running_operation_that_nothing_drives_is_stuck() -> None:
    """Its record says Running, and the request for it is gone: ten minutes, then somebody has to end it."""
    orphan = syncing(operation=operation(phase="Running", finished_at=None, is_driven=False))
    following = Following()
    assert following.every(range(0, 600, 20), orphan) is Stage.SYNCING
    assert following.look(STUCK_AFTER.total_seconds(), orphan) is Stage.FAILED
    assert following.progress
    assert following.progress.outcome is Outcome.STUCK


def test_p15_what_is_out_of_sync_again_is_not_live_and_is_named() -> None:
    """Another controller, or a loop of self-healing, fights with the manifests."""
    drifting = facts(sync="OutOfSync", out_of_sync=("Deployment/manual-app",))
    following = Following()
    assert following.every(range(0, 60, 10), drifting) is Stage.ROLLING_OUT
    assert following.progress
    assert following.progress.says.endswith("different from the manifests again: Deployment/manual-app")


def test_p16_an_error_condition_keeps_a_healthy_application_from_being_live() -> None:
    """A status that could not be written may be an old one."""
    found = facts(errors=("the status could not be persisted and may be stale",))
    following = Following()
    assert following.every([0, 10, 20], found) is Stage.SETTLING


def test_p17_applications_of_one_name_are_told_apart() -> None:
    """The same name on two servers, or in two namespaces: what is remembered of one never counts for the other."""
    places = [replace(APPLICATION, server="eu"), replace(APPLICATION, namespace="team-a"), APPLICATION]
    look = Look(
        applications=tuple(
            been(Stage.SYNCING, since=number, key=place.key) for number, place in enumerate(places)
        )
    )
    assert [look.of(place) for place in places] == list(look.applications)
    assert look.of(replace(APPLICATION, server="us")) is None


def test_p18_a_healthy_parent_says_nothing_about_what_it_deploys() -> None:
    """An application of applications renders no workload with our image: that is no proof."""
    parent = facts(workloads=replace(workloads(), rendered_images=frozenset()))
    progress = decide(parent, case())
    assert progress.stage is Stage.MISMATCH
    assert "the manifests hold no version of" in progress.says
    assert running_version(parent, IMAGE)[0] is None


# --- endings beside them


def test_a_commit_that_was_taken_off_the_branch_is_lost() -> None:
    """Whatever runs now: nobody can find in git what it is."""
    progress = decide(facts(), case(is_lost=True))
    assert (progress.stage, progress.outcome) == (Stage.FAILED, Outcome.LOST)


def test_a_commit_that_changes_nothing_here_says_so() -> None:
    """Synced at our commit without any sync: what runs was the same before."""
    found = facts(operation=operation(revision=OLD, finished_at=after(-900)), history_revision=OLD)
    following = Following()
    following.look(0, found)
    following.look(10, found)
    assert following.progress
    assert following.progress.outcome is Outcome.NOTHING_CHANGED
    assert following.progress.says == "the manifests are as before, every pod runs it"


def test_what_only_has_to_be_pruned_is_live_with_a_note() -> None:
    """Argo CD may not remove things here; everything else is as git has it."""
    found = facts(sync="OutOfSync", to_prune=("ConfigMap/old",))
    following = Following()
    following.look(0, found)
    assert following.look(10, found) is Stage.LIVE
    assert following.progress
    assert following.progress.says.endswith("; 1 resources need pruning")


def test_what_differs_and_has_to_be_pruned_is_not_live() -> None:
    """The note must not hide a difference."""
    found = facts(sync="OutOfSync", to_prune=("ConfigMap/old",), out_of_sync=("Deployment/manual-app",))
    assert decide(found, case()).stage is Stage.ROLLING_OUT


def test_a_refusal_to_sync_is_an_end_when_it_lasts() -> None:
    """“auto-sync will wipe out all resources” does not go away by waiting."""
    found = unnoticed(sync="OutOfSync", revision=OURS, errors=("auto-sync will wipe out all resources",))
    following = Following()
    assert following.every([0, 20, 40], found) is Stage.WAITING
    assert following.look(60, found) is Stage.FAILED
    assert following.progress
    assert following.progress.outcome is Outcome.SYNC_FAILED
    assert "wipe out" in following.progress.says


def test_what_was_degraded_before_is_not_blamed_on_this_commit() -> None:
    """The look before the push remembers it."""
    baseline = Baseline(key="main//manual-app-prod", sync="Synced", health="Degraded")
    progress = decide(facts(health="Degraded"), case(baseline=baseline))
    assert progress.says.startswith("degraded, as before this commit:")


def test_more_failed_resources_than_are_shown_are_counted() -> None:
    """Three in full, the others as a number."""
    broken = tuple(
        ResourceResult(name=f"Service/{n}", status="SyncFailed", message="denied") for n in range(5)
    )
    progress = decide(facts(operation=operation(phase="Failed", resources=broken)), case())
    assert progress.says.endswith("Service/2: denied (and 2 more)")


def test_an_operation_that_ours_waits_for_can_be_ended() -> None:
    """After two minutes, or where it tries again and again, people are told what they can do."""
    other = syncing(operation=operation(phase="Running", revision=OLD, finished_at=None))
    following = Following()
    following.look(0, other)
    assert following.progress
    assert "terminated" not in following.progress.says
    following.look(120, other)
    assert following.progress.says.endswith("it can be terminated in Argo CD")


def test_a_wait_for_people_ends_after_a_day() -> None:
    """Nobody pressed Sync: the ending says so, and not that it timed out."""
    found = unnoticed(sync="OutOfSync", revision=OURS, automated=False, may_sync=True)
    following = Following()
    assert following.every(range(0, 86_400, 3600), found) is Stage.UNSYNCED
    assert following.progress
    assert following.progress.may_sync
    assert following.look(86_400, found) is Stage.FAILED
    assert following.progress.outcome is Outcome.NOT_SYNCED


def test_a_wait_for_people_is_looked_at_every_minute() -> None:
    """A day of waiting costs no more refreshes than it has minutes."""
    waiting = been(Stage.UNSYNCED, since=0, refreshed_at=after(0))
    assert not wants_refresh(waiting, now=after(59), policy=case().policy)
    assert wants_refresh(waiting, now=after(60), policy=case().policy)


def test_an_unknown_revision_is_never_success_whatever_else_is_right() -> None:
    """A commit that the repository does not hold may be anything."""
    found = facts(revision=UNKNOWN, operation=operation(revision=UNKNOWN), history_revision=UNKNOWN)
    relations = {UNKNOWN: Relation(contains=None)}
    assert decide(found, case(relations=relations)).stage is Stage.UNNOTICED


def test_the_digest_of_the_pods_is_told_where_it_proves_something() -> None:
    """Equal: proved. Another one may be the platform's part of the same image: that is said, and no failure."""
    digest, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    for found, says in ((digest, "1 of 1 proved by the digest"), (other, "its digest cannot be compared")):
        following = Following()
        running = facts(workloads=workloads(pod(digests=frozenset({found}))))
        confirmed = been(Stage.CONFIRMING, since=0, refreshed_at=after(10))
        progress = decide(
            replace(running, reconciled_at=after(11)), case(12, before=confirmed, digests=frozenset({digest}))
        )
        assert progress.stage is Stage.LIVE, following
        assert says in progress.says
