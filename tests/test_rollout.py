"""One look at an application: which stage its rollout is in, and what is said of it."""

from __future__ import annotations

import pytest
from rollout_cases import (
    LATER,
    OLD,
    OURS,
    REVERTED,
    UNKNOWN,
    after,
    case,
    facts,
    operation,
    pod,
    syncing,
    unnoticed,
    workloads,
)

from bot.core.facts import ApplicationFacts, ResourceResult
from bot.core.rollout import Stage, decide

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
        Stage.UNSYNCED,
        "press Sync",
    ),
    "a refused automated sync says why": (
        unnoticed(sync="OutOfSync", revision=OURS, errors=("auto-sync will wipe out all resources",)),
        Stage.WAITING,
        "wipe out",
    ),
    "Succeeded beside a comparison from before it settles": (
        facts(sync="OutOfSync", reconciled_at=after(-3)),
        Stage.SETTLING,
        "next comparison",
    ),
    "a comparison within the same second as the operation's end is too old": (
        facts(reconciled_at=after(-2)),
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
    "a deployed commit that cannot be compared settles": (
        facts(sync="Unknown"),
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
