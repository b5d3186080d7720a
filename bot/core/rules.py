"""The rules of a rollout, asked in their order on every fresh look at an application; the first that fits answers.

The revision is the only proof that Argo CD has seen the commit: a look at the old commit is Synced and Healthy too.
Argo CD's time stamps are compared only with one another, never with the bot's clock.
"""

from __future__ import annotations

from datetime import timedelta

from bot.core.case import Case, Verdict, failed, minutes
from bot.core.facts import ApplicationFacts, image_doubt
from bot.core.outcome import Outcome
from bot.core.progress import Stage

CANNOT_COMPARE_FOR = timedelta(seconds=60)
"""How long an error may last: a git host that stumbles is no broken chart."""
BEHIND_FOR = timedelta(minutes=2)
"""After which somebody should look at the operation that ours waits for."""
FORGOTTEN_AFTER = timedelta(minutes=5)
"""After which somebody should look why a sync that nothing keeps from beginning has not begun."""
STUCK_AFTER = timedelta(minutes=10)
"""How long a record may say that an operation runs that nothing drives."""
LOOKED_LATELY = timedelta(minutes=2)
"""How old the look before may be where a silence of Argo CD is measured: looks far apart prove no silence."""


def judge(facts: ApplicationFacts, case: Case) -> Verdict:
    """What this look says of the rollout."""
    return (
        _excluded(facts, case)
        or _replaced(facts, case)
        or _operating(facts, case)
        or _sync_failed(facts, case)
        or _incomparable(facts, case)
        or _deployed(facts, case)
        or _noticed(facts, case)
        or _unnoticed(facts, case)
    )


def _excluded(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """The commit can never arrive here."""
    if facts.is_deleting:
        return failed(Outcome.DELETED, "the application is being deleted")
    if facts.tracks:
        says = f"the application does not follow this commit: it tracks {facts.tracks}"
        return failed(Outcome.NOT_TRACKED, says)
    if case.is_lost:
        return failed(Outcome.LOST, f"somebody took {case.revision[:8]} off the branch")
    return None


def _replaced(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """A later commit changed the value again."""
    for revision in sorted(facts.revisions):
        relation = case.relation(revision)
        if relation.contains and not relation.holds_value:
            says = f"{revision[:8]} by {relation.author} changed the version again"
            return Verdict(Stage.SUPERSEDED, says, Outcome.SUPERSEDED)
    return None


def _operating(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """An operation is queued or runs: ours, or one that ours waits for."""
    operation = facts.operation
    if not facts.is_operating:
        return None
    if operation is None:
        return Verdict(Stage.SYNCING, "sync queued")
    if not operation.is_full and case.before and case.before.stage is Stage.UNSYNCED:
        return None  # a rehearsal, or a sync of something else: ours has not begun
    if "blocked by sync window" in operation.message:
        return Verdict(Stage.CLOSED, facts.closed or operation.message)
    is_ours = not operation.revision or case.has(operation.revision)
    stage = Stage.SYNCING if is_ours else Stage.BEHIND
    lasted = case.now - case.before.since if case.before and case.before.stage is stage else timedelta(0)
    if not operation.is_driven and lasted >= STUCK_AFTER:
        says = f"a sync is on record as running for {minutes(lasted)}, and nothing moves: {operation.says}"
        return failed(Outcome.STUCK, says)
    if is_ours:
        return Verdict(Stage.SYNCING, operation.says)
    says = f"waits behind the sync of {(operation.revision or '')[:8]}: {operation.says}"
    if operation.retries or lasted >= BEHIND_FOR:
        says += "; it can be terminated in Argo CD"
    return Verdict(Stage.BEHIND, says)


def _sync_failed(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """The operation ended badly. It counts even where the comparison is Synced: a hook may have failed after it."""
    operation = facts.operation
    if operation is None or operation.phase not in ("Failed", "Error") or not operation.is_full:
        return None
    if not case.has(operation.revision):
        return None
    broken = [result for result in operation.resources if result.status == "SyncFailed"]
    causes = "; ".join(result.says for result in broken[:3]) or operation.message
    more = f" (and {len(broken) - 3} more)" if len(broken) > 3 else ""
    return failed(Outcome.SYNC_FAILED, f"sync failed{_within(operation.revision, case)}: {causes}{more}")


def _within(revision: str | None, case: Case) -> str:
    """Whose commit it was, where it was not ours but one that contains ours."""
    if revision is None or revision == case.revision:
        return ""
    return f" at {revision[:8]} by {case.relation(revision).author}, which contains this commit"


def _incomparable(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """Argo CD cannot render: because of this commit, or because it cannot get at the repository."""
    if not facts.is_incomparable:
        return None
    if case.has_lasted(Stage.COMPARING, CANNOT_COMPARE_FOR, facts):
        return failed(Outcome.CANNOT_RENDER, f"Argo CD cannot render it: {facts.errors[0]}")
    return Verdict(Stage.COMPARING, f"Argo CD cannot compare yet: {facts.errors[0]}")


def _deployed(facts: ApplicationFacts, case: Case) -> Verdict | None:
    """The commit is applied: the comparison says so, or the last operation; how does it fare?"""
    is_synced = _is_applied(facts) and case.has(facts.revision)
    if not is_synced and not _was_synced(facts, case):
        return None
    if not facts.is_fresh or not facts.compares_spec:
        return Verdict(Stage.SETTLING, "synced, waiting for Argo CD's next comparison")
    if not case.has(facts.revision) or facts.sync not in ("Synced", "OutOfSync"):
        return Verdict(Stage.SETTLING, "synced, but Argo CD does not compare with this commit now")
    if is_synced or _is_newer(facts, case):
        return _by_health(facts, case)
    differing = ", ".join(facts.out_of_sync[:3])
    says = "synced, but already different from the manifests again"
    return Verdict(Stage.ROLLING_OUT, f"{says}: {differing}" if differing else says)


def _is_applied(facts: ApplicationFacts) -> bool:
    """Is everything as git has it, but for what Argo CD may not remove?"""
    only_to_prune = bool(facts.to_prune) and not facts.out_of_sync
    return facts.sync == "Synced" or (facts.sync == "OutOfSync" and only_to_prune)


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
    if facts.rolls_with:
        return Verdict(Stage.WAITING, f"waits for its turn: {facts.rolls_with}")
    if not facts.automated:
        changes = f", which would change {', '.join(facts.out_of_sync[:5])}" if facts.out_of_sync else ""
        return Verdict(Stage.UNSYNCED, f"automated sync is off: somebody has to press Sync{changes}")
    if facts.closed:
        return Verdict(Stage.CLOSED, facts.closed)
    if facts.errors:
        if case.has_lasted(Stage.WAITING, CANNOT_COMPARE_FOR, facts):
            return failed(Outcome.SYNC_FAILED, f"Argo CD refuses to sync: {facts.errors[0]}")
        return Verdict(Stage.WAITING, f"Argo CD does not sync: {facts.errors[0]}")
    before = case.before
    waited = case.now - before.since if before and before.stage is Stage.WAITING else timedelta(0)
    hint = "; press Sync in Argo CD if it has forgotten to" if waited >= FORGOTTEN_AFTER else ""
    return Verdict(Stage.WAITING, f"noticed, the sync has not begun yet{hint}")


def _unnoticed(facts: ApplicationFacts, case: Case) -> Verdict:
    """Only the time counts in which Argo CD answered, and was asked to compare: nobody else may have told it."""
    # An error may be of the commit before: it is told, and proves nothing about this one.
    error = f": {facts.errors[0]}" if facts.errors else ""
    before = case.before
    if before and before.stage is Stage.UNNOTICED and before.seen_at and before.refreshed_at:
        lasted = case.now - before.since
        was_asked = before.refreshed_at >= before.since and case.now - before.seen_at <= LOOKED_LATELY
        if was_asked and lasted >= case.policy.pick_up_within:
            says = f"not picked up: Argo CD has not noticed the commit for {minutes(lasted)}{error}"
            return failed(Outcome.NOT_PICKED_UP, says)
    return Verdict(Stage.UNNOTICED, f"Argo CD has not noticed the commit yet{error}")


def _by_health(facts: ApplicationFacts, case: Case) -> Verdict:
    """What a fresh comparison with our commit says of the health; unknown words are not healthy."""
    if facts.health == "Degraded":
        was = case.baseline is not None and case.baseline.health == "Degraded"
        says = f"degraded{', as before this commit' if was else ''}: {facts.trouble or 'no reason given'}"
        if case.has_lasted(Stage.DEGRADED, case.policy.degraded_grace, facts):
            return failed(Outcome.DEGRADED, says)
        return Verdict(Stage.DEGRADED, says)
    was_suspended = case.baseline is not None and case.baseline.health == "Suspended"
    if facts.health == "Suspended" and not was_suspended:
        return Verdict(Stage.PAUSED, f"paused: {facts.trouble or 'somebody has to resume it'}")
    if facts.health not in ("Healthy", "Suspended"):
        return Verdict(Stage.ROLLING_OUT, facts.trouble or "synced, pods rolling out")
    if facts.errors:
        return Verdict(Stage.SETTLING, f"healthy, but Argo CD reports: {facts.errors[0]}")
    return _healthy(facts, case)


def _healthy(facts: ApplicationFacts, case: Case) -> Verdict:
    """Healthy is believed when the image is proved, and when it lasts: transient health is common."""
    if facts.workloads is None:
        return Verdict(Stage.SETTLING, "healthy, checking the image")
    if doubt := image_doubt(facts.workloads, case.image, digests=case.digests):
        return _doubtful(doubt, facts, case)
    if _is_confirmed(facts, case):
        return _live(facts, case)
    patience = case.policy.stable_for.total_seconds()
    return Verdict(Stage.CONFIRMING, f"healthy, must stay so for {patience:g} s")


def _doubtful(doubt: str, facts: ApplicationFacts, case: Case) -> Verdict:
    """Healthy, and yet not with the promoted image everywhere."""
    if facts.workloads and doubt == facts.workloads.unready:
        return Verdict(Stage.ROLLING_OUT, f"healthy, but {doubt}")
    if case.has_lasted(Stage.MISMATCH, case.policy.degraded_grace, facts):
        says = f"synced and healthy, but not with the promoted image: {doubt}"
        return failed(Outcome.MISMATCH, says)
    return Verdict(Stage.MISMATCH, f"healthy, but {doubt}")


def _is_confirmed(facts: ApplicationFacts, case: Case) -> bool:
    """Did it stay healthy long enough, and was Argo CD asked after that and compared anew?"""
    before, patience = case.before, case.policy.stable_for
    if before is None or before.refreshed_at is None:
        return False
    asked_after = before.refreshed_at >= before.since + patience
    return asked_after and case.has_lasted(Stage.CONFIRMING, patience, facts)


def _live(facts: ApplicationFacts, case: Case) -> Verdict:
    runs = _runs(facts, case)
    left = f"; {len(facts.to_prune)} resources need pruning" if facts.to_prune else ""
    revision = facts.revision or ""
    if revision != case.revision:
        author = case.relation(revision).author
        if _is_applied(facts):
            says = f"{revision[:8]} by {author} contains it, {runs}{left}"
            return Verdict(Stage.LIVE, says, Outcome.LIVE_WITHIN)
        says = f"synced and healthy, {runs}; {revision[:8]} by {author} waits to be synced"
        return Verdict(Stage.LIVE, says, Outcome.LIVE)
    operation = facts.operation
    was_synced = case.has(facts.history_revision) or (operation is not None and case.has(operation.revision))
    if not was_synced:
        return Verdict(Stage.LIVE, f"the manifests are as before, {runs}", Outcome.NOTHING_CHANGED)
    return Verdict(Stage.LIVE, f"synced and healthy, {runs}{left}", Outcome.LIVE)


def _runs(facts: ApplicationFacts, case: Case) -> str:
    """Which of the pods run it, and of how many that is proved."""
    pods = facts.workloads.running(case.image) if facts.workloads else ()
    if not pods:
        return "it has no pods to check"
    asked = [pod for pod in pods if pod.digests]
    if not case.digests or not asked:
        return "every pod runs it"
    proved = sum(bool(case.digests & pod.digests) for pod in asked)
    if proved < len(asked):
        return "every pod runs it; its digest cannot be compared"
    return f"every pod runs it, {proved} of {len(pods)} proved by the digest"
