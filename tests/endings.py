"""What a card shows when a rollout ends, and while it waits: one case for each ending, in Argo CD's usual words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from builders import AMY, MINUTE, NOON, PROD, approval, in_phase, requested

from bot.core.catalog import Application, Target
from bot.core.outcome import Outcome
from bot.core.progress import Look, Progress, Stage
from bot.core.promotion import Phase, Promotion, PromotionId

Case = tuple[Target, Promotion, Look]

READY = "3 of 3 pods ready"
CRASHING = "1 of 3 pods ready, CrashLoopBackOff"
LIVE = "synced and healthy, every pod runs it"

SAYS = {
    Outcome.LIVE: LIVE,
    Outcome.LIVE_WITHIN: "dddddddd by Sam contains it, every pod runs it",
    Outcome.NOTHING_CHANGED: "the manifests are as before, every pod runs it",
    Outcome.SYNC_FAILED: 'sync failed: Deployment/manual-app: The Deployment "manual-app" is invalid: spec.selector: '
    "field is immutable; Service/manual-app: port 80 is already allocated",
    Outcome.DEGRADED: 'degraded: Deployment/manual-app: ReplicaSet "manual-app-7d9f" has timed out progressing',
    Outcome.NOT_PICKED_UP: "not picked up: Argo CD has not noticed the commit for 10 minutes",
    Outcome.WINDOW_CLOSED: "a sync window keeps Argo CD from syncing until 06:00 UTC, 2 Mar; it has waited for "
    "24 hours",
    Outcome.NOT_SYNCED: "automated sync is off: somebody has to press Sync, which would change "
    "Deployment/manual-app; it has waited for 24 hours",
    Outcome.CANNOT_RENDER: "Argo CD cannot render it: Failed to load target state: helm template . failed: execution "
    "error at (manual-app/templates/deployment.yaml:14): image.digest is required",
    Outcome.SUPERSEDED: "dddddddd by Sam changed the version again",
    Outcome.MISMATCH: "synced and healthy, but not with the promoted image: the manifests hold 13",
    Outcome.STUCK: "a sync is on record as running for 12 minutes, and nothing moves: synced 3 of 4, waiting for "
    "completion of hook batch/Job/manual-app-migrate",
    Outcome.TIMED_OUT: "timed out after 20 minutes while rolling out: synced, pods rolling out",
    Outcome.UNREACHABLE: "nobody knows whether it is live: Argo CD is not available: no answer within 10 s, for "
    "15 minutes; the commit is pushed",
    Outcome.TOKEN_EXPIRED: "nobody knows whether it is live: Argo CD at argocd.example.com does not take the bot's "
    "token any more: token is expired; the commit is pushed",
    Outcome.NO_PERMISSION: "nobody knows whether it is live: Argo CD at argocd.example.com does not let the bot see "
    "“manual-app-prod”: its account needs applications, get, default/manual-app-prod; the commit is pushed",
    Outcome.MISSING: "nobody knows whether it is live: there is no application “manual-app-prod” in the project "
    "default of Argo CD at argocd.example.com; the commit is pushed",
    Outcome.DELETED: "the application is being deleted",
    Outcome.NOT_TRACKED: "the application does not follow this commit: it tracks release-1.4, not the branch main",
    Outcome.BROKEN: "Something broke on our side (ref 4f2a91)",
    Outcome.LOST: "somebody took cccccccc off the branch",
}
"""What is said of an application at each ending."""
PODS = {
    Outcome.LIVE: READY,
    Outcome.DEGRADED: CRASHING,
    Outcome.MISMATCH: READY,
    Outcome.TIMED_OUT: "2 of 3 pods ready",
}
"""And of its pods, where the commit reached them."""

GOOD = (Outcome.LIVE, Outcome.LIVE_WITHIN, Outcome.NOTHING_CHANGED, Outcome.SUPERSEDED)
"""Endings that need nobody: everything else ends badly."""
BAD = tuple(outcome for outcome in Outcome if outcome not in GOOD)


def progress(stage: Stage, says: str, *, name: str = "manual-app-prod", **changes: Any) -> Progress:
    """One application, as it was seen last."""
    return Progress(name=name, stage=stage, since=NOON, says=says, **changes)


def stage_of(outcome: Outcome) -> Stage:
    """The stage in which an application stays that ended so."""
    if outcome is Outcome.SUPERSEDED:
        return Stage.SUPERSEDED
    return Stage.LIVE if outcome in GOOD else Stage.FAILED


def ending(outcome: Outcome, *, committed: Promotion | None = None) -> Case:
    """A rollout of one application that ended so."""
    committed = committed or in_phase(Phase.COMMITTED)
    says, pods = SAYS[outcome], PODS.get(outcome, "")
    seen = progress(stage_of(outcome), says, pods=pods, outcome=outcome)
    at = NOON + 2 * MINUTE + timedelta(seconds=42)
    why = f"{seen.name}: {says}{f' ({pods})' if pods else ''}"
    ended = {
        Stage.LIVE: lambda: committed.go_live(at=at, why=says, outcome=outcome),
        Stage.SUPERSEDED: lambda: committed.supersede(at=at, why=f"{seen.name}: {says}", outcome=outcome),
        Stage.FAILED: lambda: committed.fail(at=at, why=why, outcome=outcome),
    }
    return PROD, ended[seen.stage](), Look(applications=(seen,))


def _recovered() -> Case:
    where, promotion, look = ending(Outcome.DEGRADED)
    return where, promotion, replace(look, recovered=LIVE, recovered_at=NOON + 9 * MINUTE)


def _rollback(phase: Phase) -> Promotion:
    """Back from 15 to 14."""
    return in_phase(
        phase,
        version="14",
        old_version="15",
        rollback_of=PromotionId("P-0000000000"),
        reason="checkout is slow since 15",
        changes=tuple(
            replace(change, before=change.after, after=change.before) for change in requested().changes
        ),
    )


def regions(*names: str) -> Target:
    """Prod as several applications, each in a cluster of its own."""
    return replace(
        PROD,
        applications=tuple(
            Application(
                server="main",
                name=f"manual-app-{name}",
                project="default",
                link=f"https://argocd.example.com/applications/manual-app-{name}",
            )
            for name in names
        ),
    )


THREE = regions("eu", "us", "asia")
IN_STAGES = Look(
    applications=(
        progress(Stage.LIVE, LIVE, name="manual-app-eu", pods=READY, outcome=Outcome.LIVE),
        progress(
            Stage.ROLLING_OUT, "synced, pods rolling out", name="manual-app-us", pods="1 of 3 pods ready"
        ),
        progress(Stage.UNNOTICED, "Argo CD has not noticed the commit yet", name="manual-app-asia"),
    )
)
ONE_FAILED = Look(
    applications=(
        IN_STAGES.applications[0],
        progress(
            Stage.FAILED,
            SAYS[Outcome.DEGRADED],
            name="manual-app-us",
            pods=CRASHING,
            outcome=Outcome.DEGRADED,
        ),
        progress(
            Stage.FAILED,
            SAYS[Outcome.TIMED_OUT],
            name="manual-app-asia",
            pods="2 of 3 pods ready",
            outcome=Outcome.TIMED_OUT,
        ),
    )
)
UNSYNCED = Look(
    applications=(
        progress(
            Stage.UNSYNCED,
            "automated sync is off: somebody has to press Sync, which would change Deployment/manual-app",
            may_sync=True,
            to_sync=("Deployment/manual-app", "ConfigMap/manual-app"),
        ),
    )
)
CLOSED = Look(
    applications=(progress(Stage.CLOSED, "a sync window keeps Argo CD from syncing until 06:00 UTC, 2 Mar"),)
)

WAITING: dict[str, Case] = {
    "three applications": (THREE, in_phase(Phase.COMMITTED), IN_STAGES),
    "waiting for Sync": (PROD, in_phase(Phase.COMMITTED), UNSYNCED),
    "waiting for Sync, not allowed": (
        PROD,
        in_phase(Phase.COMMITTED),
        Look(applications=tuple(replace(each, may_sync=False) for each in UNSYNCED.applications)),
    ),
    "waiting for a window": (PROD, in_phase(Phase.COMMITTED), CLOSED),
    "rollback requested": (
        PROD,
        _rollback(Phase.REQUESTED).approve(approval(_rollback(Phase.REQUESTED), AMY)),
        Look(),
    ),
}
ENDINGS: dict[str, Case] = {
    **{f"ended, {outcome}": ending(outcome) for outcome in Outcome},
    "ended, two of three failed": (
        THREE,
        in_phase(Phase.COMMITTED).fail(
            at=NOON + 5 * MINUTE,
            why=f"manual-app-us: {SAYS[Outcome.DEGRADED]} ({CRASHING}); "
            f"manual-app-asia: {SAYS[Outcome.TIMED_OUT]} (2 of 3 pods ready)",
            outcome=Outcome.DEGRADED,
        ),
        ONE_FAILED,
    ),
    "ended, recovered": _recovered(),
    "ended, rolled back": ending(Outcome.LIVE, committed=_rollback(Phase.COMMITTED)),
    "ended, rollback failed": ending(Outcome.SYNC_FAILED, committed=_rollback(Phase.COMMITTED)),
}
