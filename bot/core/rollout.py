"""Is the commit live? A pure decision procedure: facts in, verdict out.

For each application of a target, on every fresh look, the rules are asked in order and the first that fits
answers. The revision is the only proof that Argo CD has seen the commit: a look at the old commit is Synced and
Healthy too. Argo CD's time stamps are compared only with one another, never with the bot's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from bot.core.catalog import RolloutPolicy
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
from bot.core.progress import Look, Progress, Stage, next_look, wants_refresh

__all__ = [
    "ApplicationFacts",
    "Case",
    "Look",
    "Operation",
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

CANNOT_COMPARE_FOR = timedelta(seconds=60)
"""How long an error of rendering may last: a git host that stumbles is no broken chart."""
UNREACHABLE_AFTER = timedelta(minutes=5)
REFUSED_FOR = timedelta(minutes=5)
"""How long a refusal may last: a token is replaced, and a server that restarts takes everybody for a stranger."""
OVERTIME = timedelta(minutes=2)
"""How long, beside two holds, what is deployed may prove itself past the time limit: the bot may have been away."""
LOOKED_LATELY = timedelta(minutes=2)
"""How old the look before may be where a silence of Argo CD is measured: looks far apart prove no silence."""

_DEPLOYED = (Stage.SETTLING, Stage.CONFIRMING)
"""Stages in which nothing is missing but the proof."""

Verdict: TypeAlias = tuple[Stage, str]
"""A stage, and what to say of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How a revision stands to our commit: does it contain it (None: unknown), and still hold our value?"""

    contains: bool | None
    holds_value: bool = True
    author: str = "somebody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that one decision needs: the commit, where it went, the clock, and what was remembered."""

    revision: str
    image: str
    """The promoted image with its tag."""
    committed_at: datetime
    now: datetime
    policy: RolloutPolicy
    relations: Mapping[str, Relation]
    before: Progress | None

    def relation(self, revision: str | None) -> Relation:
        """How a revision stands to our commit; an unknown one is never success."""
        if revision is None:
            return Relation(contains=None)
        return self.relations.get(revision, Relation(contains=None))

    def has(self, revision: str | None) -> bool:
        """Does this revision surely contain our commit?"""
        return self.relation(revision).contains is True

    @property
    def is_late(self) -> bool:
        """Is the time for the whole rollout up?"""
        return self.now - self.committed_at >= self.policy.timeout


def decide(facts: ApplicationFacts | Unseen, case: Case) -> Progress:
    """What to remember of this application, from this look: its stage, and what to say of it. An end stays."""
    if case.before and case.before.stage.is_end:
        return case.before
    if isinstance(facts, Unseen):
        return _unseen(facts, case)
    stage, says = _judge(facts, case)
    if not stage.is_end and _is_over(stage, case):
        stage, says = Stage.FAILED, f"timed out while {stage}: {says}"
    progress = _remember(facts.name, stage, says, case, compared_at=facts.reconciled_at)
    pods = facts.workloads.says if facts.workloads else ""
    return replace(progress, seen_at=case.now, refused_since=None, pods=pods)


def _unseen(facts: Unseen, case: Case) -> Progress:
    """Not seeing is neither success nor failure of the rollout, until its time is up."""
    seen_at = case.before.seen_at if case.before else None
    blind_for = case.now - (seen_at or case.committed_at)
    minutes = f", for {_minutes(blind_for)}" if blind_for >= UNREACHABLE_AFTER else ""
    refused_since = ((case.before and case.before.refused_since) or case.now) if facts.is_final else None
    has_lasted = refused_since is not None and case.now - refused_since >= REFUSED_FOR
    if has_lasted or _is_over(Stage.UNREACHABLE, case):
        says = f"nobody knows whether it is live: {facts.reason}{minutes}; the commit is pushed"
        return _remember(facts.name, Stage.FAILED, says, case)
    todo = f"; somebody has to put that right within {_minutes(REFUSED_FOR)}" if facts.is_final else ""
    says = f"{facts.reason}{minutes}{todo}; the commit is pushed"
    # A refresh that was asked for meanwhile counts for nothing: afterwards it is asked for quickly again.
    progress = _remember(facts.name, Stage.UNREACHABLE, says, case)
    return replace(progress, refused_since=refused_since, refreshes=0, pods="")


def _is_over(stage: Stage, case: Case) -> bool:
    """Does the time limit end this stage? What is deployed has an overtime, also where it is out of sight in it."""
    if not case.is_late:
        return False
    before = case.before
    began = before.overtime_since if before else None
    if began and case.now - began >= OVERTIME + 2 * case.policy.stable_for:
        return True
    was_deployed = before is not None and (before.stage in _DEPLOYED or began is not None)
    return stage not in _DEPLOYED and not (stage is Stage.UNREACHABLE and was_deployed)


def _judge(facts: ApplicationFacts, case: Case) -> Verdict:
    """Every rule in its order; the first that has a verdict wins."""
    return (
        _excluded(facts)
        or _replaced(facts, case)
        or _operating(facts, case)
        or _sync_failed(facts, case)
        or _incomparable(facts, case)
        or _deployed(facts, case)
        or _noticed(facts, case)
        or _unnoticed(case)
    )


def _excluded(facts: ApplicationFacts) -> Verdict | None:
    """The commit can never arrive here."""
    if facts.is_deleting:
        return Stage.FAILED, "the application is being deleted"
    if facts.tracks:
        return Stage.FAILED, f"the application does not follow this commit: it tracks {facts.tracks}"
    return None


def _replaced(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """A later commit changed the value again."""
    for revision in sorted(facts.revisions):
        relation = case.relation(revision)
        if relation.contains and not relation.holds_value:
            return Stage.SUPERSEDED, f"{revision[:8]} by {relation.author} changed the version again"
    return None


def _operating(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """An operation is queued or runs: ours, or one that ours waits for."""
    operation = facts.operation
    if not facts.is_operating:
        return None
    if operation is None:
        return Stage.SYNCING, "sync queued"
    if operation.revision and not case.has(operation.revision):
        return Stage.BEHIND, f"waits behind the sync of {operation.revision[:8]}: {operation.says}"
    return Stage.SYNCING, operation.says


def _sync_failed(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """The operation ended badly. It counts even where the comparison is Synced: a hook may have failed after it."""
    operation = facts.operation
    if operation is None or operation.phase not in ("Failed", "Error") or not operation.is_full:
        return None
    if not case.has(operation.revision):
        return None
    failed = [result for result in operation.resources if result.status == "SyncFailed"]
    causes = "; ".join(f"{result.name}: {result.message}" for result in failed[:3]) or operation.message
    return Stage.FAILED, f"sync failed{_within(operation.revision, case)}: {causes}"


def _within(revision: str | None, case: Case) -> str:
    """Whose commit it was, where it was not ours but one that contains ours."""
    if revision is None or revision == case.revision:
        return ""
    return f" at {revision[:8]} by {case.relation(revision).author}, which contains this commit"


def _incomparable(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """Argo CD cannot render: because of this commit, or because it cannot get at the repository."""
    if not facts.is_incomparable:
        return None
    if _has_lasted(Stage.COMPARING, CANNOT_COMPARE_FOR, facts, case):
        return Stage.FAILED, f"Argo CD cannot render it: {facts.errors[0]}"
    return Stage.COMPARING, f"Argo CD cannot compare yet: {facts.errors[0]}"


def _deployed(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """The commit is applied: the comparison says so, or the last operation; how does it fare?"""
    is_synced = facts.sync == "Synced" and case.has(facts.revision)
    if not is_synced and not _was_synced(facts, case):
        return None
    if not facts.is_fresh or not facts.compares_spec:
        return Stage.SETTLING, "synced, waiting for Argo CD's next comparison"
    if not case.has(facts.revision) or facts.sync not in ("Synced", "OutOfSync"):
        return Stage.SETTLING, "synced, but Argo CD does not compare with this commit now"
    if is_synced or _is_newer(facts, case):
        return _by_health(facts, case)
    return Stage.ROLLING_OUT, "synced, but already different from the manifests again"


def _is_newer(facts: ApplicationFacts, case: Case) -> bool:
    """Is it out of sync only because a commit after ours waits? Then ours is what runs."""
    operation = facts.operation
    return operation is not None and operation.revision == case.revision != facts.revision


def _was_synced(facts: ApplicationFacts, case: Case) -> bool:
    """Did the last operation deploy our commit? A partial one counts where the history says the rest was there."""
    operation = facts.operation
    return (
        operation is not None
        and operation.phase == "Succeeded"
        and case.has(operation.revision)
        and (operation.is_full or operation.revision == facts.history_revision)
    )


def _noticed(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """Argo CD has seen the commit and has not begun to sync."""
    if not case.has(facts.revision):
        return None
    if not facts.automated:
        return Stage.WAITING, "automated sync is off: somebody has to press Sync in Argo CD"
    if facts.errors:
        return Stage.WAITING, f"Argo CD does not sync: {facts.errors[0]}"
    return Stage.WAITING, "noticed, the sync has not begun yet"


def _unnoticed(case: Case) -> Verdict:
    """Only the time counts in which Argo CD answered, and was asked to compare: nobody else may have told it."""
    before = case.before
    if before and before.stage is Stage.UNNOTICED and before.seen_at and before.refreshed_at:
        lasted = case.now - before.since
        was_asked = before.refreshed_at >= before.since and case.now - before.seen_at <= LOOKED_LATELY
        if was_asked and lasted >= case.policy.pick_up_within:
            return Stage.FAILED, f"not picked up: Argo CD has not noticed the commit for {_minutes(lasted)}"
    return Stage.UNNOTICED, "Argo CD has not noticed the commit yet"


def _by_health(facts: ApplicationFacts, case: Case) -> Verdict:
    """What a fresh comparison with our commit says of the health; unknown words are not healthy."""
    if facts.health == "Degraded":
        says = f"degraded: {facts.trouble or 'no reason given'}"
        lasted = _has_lasted(Stage.DEGRADED, case.policy.degraded_grace, facts, case)
        return Stage.FAILED if lasted else Stage.DEGRADED, says
    if facts.health == "Suspended":
        return Stage.PAUSED, f"paused: {facts.trouble or 'somebody has to resume it'}"
    if facts.health != "Healthy":
        return Stage.ROLLING_OUT, facts.trouble or "synced, pods rolling out"
    if facts.errors:
        return Stage.SETTLING, f"healthy, but Argo CD reports: {facts.errors[0]}"
    return _healthy(facts, case)


def _healthy(facts: ApplicationFacts, case: Case) -> Verdict:
    """Healthy is believed when the image is proved, and when it lasts: transient health is common."""
    if facts.workloads is None:
        return Stage.SETTLING, "healthy, checking the image"
    if doubt := image_doubt(facts.workloads, case.image):
        if doubt == facts.workloads.unready:
            return Stage.ROLLING_OUT, f"healthy, but {doubt}"
        if _has_lasted(Stage.MISMATCH, case.policy.degraded_grace, facts, case):
            return (
                Stage.FAILED,
                f"synced and healthy, but not with the promoted image: {doubt}; try a hard refresh in Argo CD",
            )
        return Stage.MISMATCH, f"healthy, but {doubt}"
    if _is_confirmed(facts, case):
        return Stage.LIVE, _live(facts, case)
    return Stage.CONFIRMING, f"healthy, must stay so for {case.policy.stable_for.total_seconds():g} s"


def _is_confirmed(facts: ApplicationFacts, case: Case) -> bool:
    """Did it stay healthy long enough, and was Argo CD asked after that and compared anew?"""
    before, patience = case.before, case.policy.stable_for
    if before is None or before.refreshed_at is None:
        return False
    asked_after = before.refreshed_at >= before.since + patience
    return asked_after and _has_lasted(Stage.CONFIRMING, patience, facts, case)


def _live(facts: ApplicationFacts, case: Case) -> str:
    pods = facts.workloads.staying if facts.workloads else ()
    runs = "every pod runs it" if pods else "it has no pods to check"
    revision = facts.revision or ""
    if revision == case.revision:
        return f"synced and healthy, {runs}"
    author = case.relation(revision).author
    if facts.sync == "Synced":
        return f"live as part of {revision[:8]} by {author}, {runs}"
    return f"synced and healthy, {runs}; {revision[:8]} by {author} waits to be synced"


def _has_lasted(stage: Stage, patience: timedelta, facts: ApplicationFacts, case: Case) -> bool:
    """Has this stage lasted so long, over two comparisons at the least?"""
    before = case.before
    if before is None or before.stage is not stage or case.now - before.since < patience:
        return False
    if before.compared_at is None or facts.reconciled_at is None:
        return False
    return facts.reconciled_at > before.compared_at


def _minutes(span: timedelta) -> str:
    return f"{int(span.total_seconds() // 60)} minutes"


def _remember(
    name: str, stage: Stage, says: str, case: Case, *, compared_at: datetime | None = None
) -> Progress:
    """Keep the beginning of a stage that goes on: a hold and a grace are measured from there."""
    before = case.before or Progress(name=name, stage=stage, since=case.now, says=says)
    if before.stage is stage:
        compared_at = before.compared_at or compared_at
    else:
        before = replace(before, stage=stage, since=case.now)
    overtime_since = before.overtime_since or (case.now if case.is_late else None)
    return replace(before, says=says, compared_at=compared_at, overtime_since=overtime_since)
