"""Is the commit live? A pure decision procedure: facts in, verdict out.

For each application of a target, on every fresh look, the rules are asked in order and the first that fits
answers. The revision is the only proof that Argo CD has seen the commit: a look at the old commit is Synced and
Healthy too. Argo CD's time stamps are compared only with one another, never with the bot's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.catalog import RolloutPolicy

REFRESH_EVERY = timedelta(seconds=15)
REFRESH_SLOWLY = timedelta(seconds=60)
QUICK_REFRESHES = 5
UNREACHABLE_AFTER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceResult:
    """What became of one resource: `Deployment/manual-app`, and Argo CD's own words."""

    name: str
    status: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Argo CD's operation, running or last. `is_full` is false for dry runs and partial syncs."""

    phase: str
    revision: str | None
    is_full: bool
    message: str = ""
    finished_at: datetime | None = None
    retries: int = 0
    resources: tuple[ResourceResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of the current ReplicaSet. `trouble` is the kubelet's word for it, CrashLoopBackOff and the like."""

    name: str
    images: tuple[str, ...]
    is_ready: bool
    is_terminating: bool
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workloads:
    """What the application should run and what really runs."""

    rendered_images: frozenset[str]
    """Every image of the rendered workloads (`managed-resources`, target state)."""
    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationFacts:
    """One GET of an Application, and its workloads where they were asked for. Revisions are 40 hex digits or None."""

    name: str
    tracks: str | None
    """What it follows where that is not our branch and path; None where it is right."""
    automated: bool
    sync: str
    revision: str | None
    compares_spec: bool
    health: str
    health_message: str = ""
    is_operating: bool
    operation: Operation | None
    reconciled_at: datetime | None
    is_deleting: bool = False
    errors: tuple[str, ...] = ()
    """Texts of the error conditions."""
    history_revision: str | None = None
    unhealthy: tuple[ResourceResult, ...] = ()
    workloads: Workloads | None = None

    @property
    def is_fresh(self) -> bool:
        """Was the comparison begun after the last operation ended? Strictly: the stamps are whole seconds."""
        if self.operation is None or self.operation.finished_at is None:
            return True
        return self.reconciled_at is not None and self.reconciled_at > self.operation.finished_at

    @property
    def revisions(self) -> frozenset[str]:
        """Every revision that it names."""
        named = (self.revision, self.operation and self.operation.revision, self.history_revision)
        return frozenset(revision for revision in named if revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Argo CD could not be asked about the application, or would not tell; `is_final` when waiting cannot help."""

    name: str
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How a revision stands to our commit: does it contain it (None: unknown), and still hold our value?"""

    contains: bool | None
    holds_value: bool = True
    author: str = "somebody"


class Stage(StrEnum):
    """How far the rollout of one application is."""

    UNREACHABLE = "unreachable"
    UNNOTICED = "unnoticed"
    BEHIND = "behind"
    COMPARING = "comparing"
    WAITING = "waiting"
    SYNCING = "syncing"
    SETTLING = "settling"
    ROLLING_OUT = "rolling out"
    PAUSED = "paused"
    DEGRADED = "degraded"
    MISMATCH = "mismatch"
    CONFIRMING = "confirming"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_end(self) -> bool:
        """Has the rollout of this application ended?"""
        return self in (Stage.LIVE, Stage.FAILED, Stage.SUPERSEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is remembered of one application between two looks. `stage` began at `since`."""

    name: str
    stage: Stage
    since: datetime
    says: str
    seen_at: datetime | None = None
    """When Argo CD last answered."""
    refreshed_at: datetime | None = None
    refreshes: int = 0
    confirming: str | None = None
    """The revision that was healthy when the hold began."""
    pods: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The last look at a rollout: what is remembered of every application of the target."""

    applications: tuple[Progress, ...] = field(default=())
    waits_for: str = ""
    """What the promotion waits for, as a sentence for people: an outside system that does not answer."""
    tries: int = 0
    """How many times in a row its next step could not be taken."""

    def of(self, name: str) -> Progress | None:
        """What is remembered of one application."""
        return next((progress for progress in self.applications if progress.name == name), None)


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


def decide(facts: ApplicationFacts | Unseen, case: Case) -> Progress:
    """What to remember of this application, from this look: its stage, and what to say of it."""
    if isinstance(facts, Unseen):
        return _unseen(facts, case)
    stage, says = _judge(facts, case)
    if not stage.is_end and case.now - case.committed_at >= case.policy.timeout:
        stage, says = Stage.FAILED, f"timed out while {stage}: {says}"
    confirming = facts.revision if stage is Stage.CONFIRMING else None
    progress = _remember(facts.name, stage, says, case, confirming=confirming)
    return replace(progress, seen_at=case.now, pods=_pods(facts))


def wants_refresh(progress: Progress | None, *, now: datetime, policy: RolloutPolicy) -> bool:
    """Should this look ask Argo CD to compare anew? A refresh can be lost, so it is asked for again and again."""
    if progress is None or progress.refreshed_at is None:
        return True
    if progress.stage in (Stage.UNREACHABLE, Stage.SYNCING, Stage.ROLLING_OUT, Stage.BEHIND, Stage.PAUSED):
        return False
    if progress.stage is Stage.SETTLING:
        return now - progress.refreshed_at >= timedelta(seconds=2)
    if progress.stage is Stage.CONFIRMING:
        held_at = progress.since + policy.stable_for
        return now >= held_at > progress.refreshed_at
    quick = progress.refreshes < QUICK_REFRESHES
    return now - progress.refreshed_at >= (REFRESH_EVERY if quick else REFRESH_SLOWLY)


def next_look(look: Look, *, committed_at: datetime, now: datetime, policy: RolloutPolicy) -> timedelta:
    """When to look again: closely at first, and at the instant when a hold ends."""
    age = now - committed_at
    pace = timedelta(seconds=2)
    if age > timedelta(minutes=2):
        pace = timedelta(seconds=10)
    if age > timedelta(minutes=10):
        pace = timedelta(seconds=20)
    holds = [
        progress.since + policy.stable_for - now
        for progress in look.applications
        if progress.stage is Stage.CONFIRMING
    ]
    waits = [pace, *(max(hold, timedelta(milliseconds=500)) for hold in holds)]
    return min(waits)


def _unseen(facts: Unseen, case: Case) -> Progress:
    """Not seeing is neither success nor failure of the rollout, until its time is up."""
    before = case.before
    seen_at = before.seen_at if before else None
    blind_for = case.now - (seen_at or case.committed_at)
    says = f"{facts.reason}; the commit is pushed"
    if blind_for >= UNREACHABLE_AFTER:
        says = f"{facts.reason}, for {int(blind_for.total_seconds() // 60)} minutes; the commit is pushed"
    timed_out = case.now - case.committed_at >= case.policy.timeout
    if facts.is_final or timed_out:
        return _remember(facts.name, Stage.FAILED, f"nobody knows whether it is live: {says}", case)
    return replace(_remember(facts.name, Stage.UNREACHABLE, says, case), seen_at=seen_at)


def _judge(facts: ApplicationFacts, case: Case) -> tuple[Stage, str]:
    if facts.is_deleting:
        return Stage.FAILED, "the application is being deleted"
    if facts.tracks:
        return Stage.FAILED, f"the application does not follow this commit: it tracks {facts.tracks}"
    if replaced := _replaced(facts, case):
        return replaced
    if operating := _operation(facts, case):
        return operating
    if case.relation(facts.revision).contains is not True and not _was_deployed(facts, case):
        return _unnoticed(facts, case)
    if facts.sync == "Synced" and facts.compares_spec:
        return _arrived(facts, case)
    if _was_deployed(facts, case) and facts.revision and case.relation(facts.revision).contains:
        return _arrived(facts, case)
    return _waiting(facts)


def _replaced(facts: ApplicationFacts, case: Case) -> tuple[Stage, str] | None:
    """A later commit changed the value again."""
    for revision in sorted(facts.revisions):
        relation = case.relation(revision)
        if relation.contains and not relation.holds_value:
            return Stage.SUPERSEDED, f"{revision[:8]} by {relation.author} changed the version again"
    return None


def _operation(facts: ApplicationFacts, case: Case) -> tuple[Stage, str] | None:
    operation = facts.operation
    ours = case.relation(operation.revision).contains if operation else None
    if facts.is_operating:
        if operation is None or operation.revision is None:
            return Stage.SYNCING, "sync queued"
        if not ours:
            return Stage.BEHIND, f"waits behind the sync of {operation.revision[:8]}"
        return Stage.SYNCING, _syncing(operation)
    if operation and operation.is_full and ours and operation.phase in ("Failed", "Error"):
        return Stage.FAILED, _sync_failure(operation)
    return None


def _syncing(operation: Operation) -> str:
    done = sum(result.status in ("Synced", "Pruned", "PruneSkipped") for result in operation.resources)
    says = f"synced {done} of {len(operation.resources)}" if operation.resources else "sync started"
    if operation.retries:
        says += f", retry {operation.retries}"
    return f"{says}: {operation.message}" if operation.message else says


def _sync_failure(operation: Operation) -> str:
    failed = [result for result in operation.resources if result.status == "SyncFailed"]
    causes = "; ".join(f"{result.name}: {result.message}" for result in failed[:3])
    return f"sync failed: {causes or operation.message}"


def _was_deployed(facts: ApplicationFacts, case: Case) -> bool:
    """Is our commit in the last deployment on record, by an operation that succeeded?"""
    operation = facts.operation
    return (
        case.relation(facts.history_revision).contains is True
        and operation is not None
        and operation.phase == "Succeeded"
        and operation.revision == facts.history_revision
    )


def _unnoticed(facts: ApplicationFacts, case: Case) -> tuple[Stage, str]:
    age = case.now - case.committed_at
    if facts.errors and facts.sync == "Unknown":
        if (
            case.before
            and case.before.stage is Stage.COMPARING
            and case.now - case.before.since >= timedelta(seconds=60)
        ):
            return Stage.FAILED, f"Argo CD cannot render it: {facts.errors[0]}"
        return Stage.COMPARING, f"Argo CD cannot compare yet: {facts.errors[0]}"
    if age >= case.policy.pick_up_within:
        minutes = int(age.total_seconds() // 60)
        return Stage.FAILED, f"not picked up: Argo CD has not noticed the commit for {minutes} minutes"
    return Stage.UNNOTICED, "Argo CD has not noticed the commit yet"


def _waiting(facts: ApplicationFacts) -> tuple[Stage, str]:
    if not facts.automated:
        return Stage.WAITING, "automated sync is off: somebody has to press Sync in Argo CD"
    if facts.errors:
        return Stage.WAITING, f"Argo CD does not sync: {facts.errors[0]}"
    return Stage.WAITING, "noticed, the sync has not begun yet"


def _arrived(facts: ApplicationFacts, case: Case) -> tuple[Stage, str]:
    """The commit is compared and applied; is it healthy, and is it really our image?"""
    if not facts.is_fresh:
        return Stage.SETTLING, "synced, waiting for Argo CD's next comparison"
    if facts.health in ("Progressing", "Missing", "Unknown", ""):
        return Stage.ROLLING_OUT, _unhealthy(facts) or "synced, pods rolling out"
    if facts.health == "Suspended":
        return Stage.PAUSED, f"paused: {_unhealthy(facts) or 'somebody has to resume it'}"
    if facts.health == "Degraded":
        return _degraded(facts, case)
    if facts.errors:
        return Stage.SETTLING, f"healthy, but Argo CD reports: {facts.errors[0]}"
    return _healthy(facts, case)


def _unhealthy(facts: ApplicationFacts) -> str:
    named = "; ".join(f"{result.name}: {result.message or result.status}" for result in facts.unhealthy[:3])
    return named or facts.health_message


def _degraded(facts: ApplicationFacts, case: Case) -> tuple[Stage, str]:
    says = f"degraded: {_unhealthy(facts) or 'no reason given'}"
    before = case.before
    if before and before.stage is Stage.DEGRADED and case.now - before.since >= case.policy.degraded_grace:
        return Stage.FAILED, says
    return Stage.DEGRADED, says


def _healthy(facts: ApplicationFacts, case: Case) -> tuple[Stage, str]:
    if facts.workloads is None:
        return Stage.SETTLING, "healthy, checking the image"
    if doubt := image_doubt(facts.workloads, case.image):
        mismatched_for = case.before and case.before.stage is Stage.MISMATCH and case.now - case.before.since
        if mismatched_for and mismatched_for >= case.policy.degraded_grace:
            return Stage.FAILED, f"synced and healthy, but not with the promoted image: {doubt}"
        return Stage.MISMATCH, f"healthy, but {doubt}"
    before = case.before
    held = (
        before is not None
        and before.stage is Stage.CONFIRMING
        and before.confirming == facts.revision
        and before.refreshed_at is not None
        and before.refreshed_at - before.since >= case.policy.stable_for
    )
    if not held:
        return Stage.CONFIRMING, f"healthy, must stay so for {int(case.policy.stable_for.total_seconds())} s"
    if facts.revision == case.revision or facts.revision is None:
        return Stage.LIVE, "synced and healthy, every pod runs it"
    author = case.relation(facts.revision).author
    return Stage.LIVE, f"live as part of {facts.revision[:8]} by {author}, every pod runs it"


def image_doubt(workloads: Workloads, image: str) -> str:
    """Why the image is not proved to run everywhere; empty where it is."""
    wanted = normal_image(image)
    name = wanted.rpartition(":")[0]
    ours = [normal_image(found) for found in workloads.rendered_images]
    if wanted not in ours:
        rendered = next((found for found in ours if found.rpartition(":")[0] == name), "no such image")
        return f"the manifests hold {rendered}"
    pods = [pod for pod in workloads.pods if not pod.is_terminating]
    for pod in pods:
        images = {normal_image(found) for found in pod.images}
        if wanted not in images and any(found.rpartition(":")[0] == name for found in images):
            return f"pod {pod.name} still runs {', '.join(sorted(images))}"
        if not pod.is_ready:
            return f"pod {pod.name} is not ready{': ' + pod.trouble if pod.trouble else ''}"
    return ""


def normal_image(image: str) -> str:
    """One spelling for an image: `nginx` is `docker.io/library/nginx:latest`; a digest beside a tag is left out."""
    name, _, _digest = image.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, "latest"
    host, slash, rest = path.partition("/")
    if not slash:
        path = f"docker.io/library/{path}"
    elif "." not in host and ":" not in host and host != "localhost":
        path = f"docker.io/{host}/{rest}"
    return f"{path}:{tag}"


def running_version(facts: ApplicationFacts, image: str) -> tuple[str | None, str]:
    """The version that an application runs, live and healthy, or None with the reason why there is none."""
    if facts.is_operating:
        return None, f"{facts.name} is being synced"
    if facts.sync != "Synced" or facts.health != "Healthy":
        return (
            None,
            f"{facts.name} is {facts.sync or 'not compared'} and {facts.health or 'of unknown health'}",
        )
    if not facts.is_fresh:
        return None, f"{facts.name} has just been synced and not been compared since"
    if facts.workloads is None:
        return None, f"the pods of {facts.name} could not be read"
    name = normal_image(image).rpartition(":")[0]
    found = {
        normal_image(spelled).rpartition(":")[2]
        for pod in facts.workloads.pods
        if not pod.is_terminating
        for spelled in pod.images
        if normal_image(spelled).rpartition(":")[0] == name
    }
    if len(found) != 1:
        return None, f"{facts.name} runs {' and '.join(sorted(found)) or 'no pod of ' + image}"
    version = found.pop()
    if doubt := image_doubt(facts.workloads, f"{image}:{version}"):
        return None, f"{facts.name}: {doubt}"
    return version, ""


def _pods(facts: ApplicationFacts) -> str:
    if facts.workloads is None:
        return ""
    pods = [pod for pod in facts.workloads.pods if not pod.is_terminating]
    says = f"{sum(pod.is_ready for pod in pods)} of {len(pods)} pods ready"
    troubles = sorted({pod.trouble for pod in pods if pod.trouble and not pod.is_ready})
    return f"{says}, {', '.join(troubles)}" if troubles else says


def _remember(name: str, stage: Stage, says: str, case: Case, *, confirming: str | None = None) -> Progress:
    """Keep the beginning of a stage that goes on, so that a hold and a grace are measured from there."""
    before = case.before
    if before is None:
        return Progress(name=name, stage=stage, since=case.now, says=says, confirming=confirming)
    goes_on = before.stage is stage and before.confirming == confirming
    since = before.since if goes_on else case.now
    return replace(before, stage=stage, since=since, says=says, confirming=confirming)
