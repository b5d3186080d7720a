"""Is the commit live? A pure decision procedure: facts in, verdict out.

The rules judge one look; here is what time adds to it: when silence, a refusal or a stage has lasted too long.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from bot.core.case import Case, Relation, Verdict, failed, minutes
from bot.core.facts import (
    ApplicationFacts,
    Operation,
    Pod,
    ResourceResult,
    Unseen,
    Workloads,
    image_doubt,
    running_version,
)
from bot.core.outcome import Outcome
from bot.core.progress import Baseline, Look, Progress, Stage, next_look, wants_refresh
from bot.core.rules import judge

__all__ = [
    "ApplicationFacts",
    "Baseline",
    "Case",
    "Look",
    "Operation",
    "Outcome",
    "Pod",
    "Progress",
    "Relation",
    "ResourceResult",
    "Stage",
    "Unseen",
    "Workloads",
    "decide",
    "image_doubt",
    "next_look",
    "running_version",
    "wants_refresh",
]

UNREACHABLE_AFTER = timedelta(minutes=5)
REFUSED_FOR = timedelta(minutes=5)
"""How long a refusal may last: a token is replaced, and a server that restarts takes everybody for a stranger."""
OVERTIME = timedelta(minutes=2)
"""How long, beside two holds, what is deployed may prove itself past the time limit: the bot may have been away."""
PEOPLE_TAKE = timedelta(hours=24)
"""How long a window, or somebody who has to press Sync, is waited for."""

_APPLIED = frozenset(
    {Stage.SETTLING, Stage.ROLLING_OUT, Stage.PAUSED, Stage.DEGRADED, Stage.MISMATCH}
    | {Stage.CONFIRMING, Stage.LIVE}
)
"""Stages in which the pods that there are tell of this commit; before, they tell of the one that it replaces."""
_DEPLOYED = (Stage.SETTLING, Stage.CONFIRMING)
"""Stages in which nothing is missing but the proof."""
_WAITED_IN_VAIN = {Stage.CLOSED: Outcome.WINDOW_CLOSED, Stage.UNSYNCED: Outcome.NOT_SYNCED}


def decide(facts: ApplicationFacts | Unseen, case: Case) -> Progress:
    """What to remember of this application, from this look: its stage, and what to say of it. An end stays."""
    if case.before and case.before.stage.is_end:
        return case.before
    if isinstance(facts, Unseen):
        return _unseen(facts, case)
    verdict = judge(facts, case)
    is_applied = verdict.stage in _APPLIED or verdict.outcome in (Outcome.DEGRADED, Outcome.MISMATCH)
    if not verdict.stage.is_end and _is_over(verdict.stage, case):
        verdict = _timed_out(verdict, case)
    progress = _remember(facts.name, verdict, case, compared_at=facts.reconciled_at)
    pods = facts.workloads.says if facts.workloads and is_applied else ""
    return replace(
        progress,
        seen_at=case.now,
        refused_since=None,
        pods=pods,
        may_sync=verdict.stage is Stage.UNSYNCED and facts.may_sync,
        to_sync=facts.out_of_sync if verdict.stage is Stage.UNSYNCED else (),
    )


def _timed_out(verdict: Verdict, case: Case) -> Verdict:
    if outcome := _WAITED_IN_VAIN.get(verdict.stage):
        return failed(outcome, f"{verdict.says}; it has waited for 24 hours")
    after = minutes(case.now - case.began_at)
    return failed(Outcome.TIMED_OUT, f"timed out after {after} while {verdict.stage}: {verdict.says}")


def _unseen(facts: Unseen, case: Case) -> Progress:
    """Not seeing is neither success nor failure of the rollout, until its time is up."""
    seen_at = case.before.seen_at if case.before else None
    blind_for = case.now - (seen_at or case.committed_at)
    lasted = f", for {minutes(blind_for)}" if blind_for >= UNREACHABLE_AFTER else ""
    refused_since = ((case.before and case.before.refused_since) or case.now) if facts.is_final else None
    has_lasted = refused_since is not None and case.now - refused_since >= REFUSED_FOR
    if has_lasted or _is_over(Stage.UNREACHABLE, case):
        if facts.outcome is Outcome.MISSING and case.baseline:
            says = f"it was deleted after the commit: {facts.reason}"
            return _remember(facts.name, failed(Outcome.DELETED, says), case)
        says = f"nobody knows whether it is live: {facts.reason}{lasted}; the commit is pushed"
        return _remember(facts.name, failed(facts.outcome, says), case)
    todo = f"; somebody has to put that right within {minutes(REFUSED_FOR)}" if facts.is_final else ""
    says = f"{facts.reason}{lasted}{todo}; the commit is pushed"
    # A refresh that was asked for meanwhile counts for nothing: afterwards it is asked for quickly again.
    progress = _remember(facts.name, Verdict(Stage.UNREACHABLE, says), case)
    return replace(progress, refused_since=refused_since, refreshes=0, pods="", may_sync=False)


def _is_over(stage: Stage, case: Case) -> bool:
    """Does the time limit end this stage? What is deployed has an overtime, also where it is out of sight in it."""
    before = case.before
    waits = stage.waits_for_people or (stage is Stage.UNREACHABLE and before is not None and before.waits)
    if waits:
        return case.now - case.committed_at >= PEOPLE_TAKE
    if not case.is_late or (before and before.waits):
        return False
    began = before.overtime_since if before else None
    if began and case.now - began >= OVERTIME + 2 * case.policy.stable_for:
        return True
    was_deployed = before is not None and (before.stage in _DEPLOYED or began is not None)
    return stage not in _DEPLOYED and not (stage is Stage.UNREACHABLE and was_deployed)


def _remember(name: str, verdict: Verdict, case: Case, *, compared_at: datetime | None = None) -> Progress:
    """Keep the beginning of a stage that goes on: a hold and a grace are measured from there."""
    stage, says, outcome = verdict
    before, is_late = case.before or Progress(name=name, stage=stage, since=case.now, says=says), case.is_late
    if before.stage is stage:
        compared_at = before.compared_at or compared_at
    else:
        before = replace(before, stage=stage, since=case.now)
    waits = stage.waits_for_people or (stage is Stage.UNREACHABLE and before.waits)
    if before.waits and not waits:
        before, is_late = replace(before, resumed_at=case.now), False
    overtime_since = (before.overtime_since or case.now) if is_late and not waits else None
    return replace(
        before,
        says=says,
        outcome=outcome,
        compared_at=compared_at,
        overtime_since=overtime_since,
        waits=waits,
    )
