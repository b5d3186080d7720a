"""What Argo CD shows of an application at one look, and what that says of its image."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import datetime

from bot.core.outcome import Outcome
from bot.core.ranges import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceResult:
    """What became of one resource: `Deployment/manual-app`, and Argo CD's own words."""

    name: str
    status: str
    message: str = ""

    @property
    def says(self) -> str:
        """Argo CD's words, with the resource's name before them unless they hold it already."""
        words = self.message or self.status
        return words if self.name.rpartition("/")[2] in words else f"{self.name}: {words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Argo CD's operation, running or last. `is_full` is false for dry runs and partial syncs."""

    phase: str
    revision: str | None
    is_full: bool
    is_driven: bool = True
    """False where its record says that it runs, and nothing in Argo CD works on it any more."""
    by: str = ""
    """Who started it; empty for Argo CD itself."""
    message: str = ""
    finished_at: datetime | None = None
    retries: int = 0
    resources: tuple[ResourceResult, ...] = ()
    expected: int = 0
    """About how many resources it will touch: Argo CD lists them wave by wave."""

    @property
    def says(self) -> str:
        """How far a running one is."""
        if not self.phase:
            return "sync queued"
        done = sum(result.status in ("Synced", "Pruned", "PruneSkipped") for result in self.resources)
        says = f"synced {done} of {max(self.expected, len(self.resources))}" if done else "sync started"
        if self.retries:
            says += f", retry {self.retries}"
        return f"{says}, {self.message}" if self.message else says


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of the current ReplicaSet. `trouble` is the kubelet's word for it, CrashLoopBackOff and the like."""

    name: str
    images: tuple[str, ...]
    is_ready: bool
    is_terminating: bool
    trouble: str = ""
    digests: frozenset[str] = frozenset()
    """What its containers really run, `sha256:…`, where that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workloads:
    """What the application should run and what really runs."""

    rendered_images: frozenset[str]
    """Every image of the rendered workloads (`managed-resources`, target state)."""
    pods: tuple[Pod, ...]

    @property
    def staying(self) -> tuple[Pod, ...]:
        """The pods that are not on their way out."""
        return tuple(pod for pod in self.pods if not pod.is_terminating)

    def running(self, image: str) -> tuple[Pod, ...]:
        """The pods that stay and hold this image, whatever else they hold."""
        name = split_image(image)[0]
        return tuple(pod for pod in self.staying if any(split_image(each)[0] == name for each in pod.images))

    @property
    def says(self) -> str:
        """How many pods are ready, and the troubles of those that are not."""
        pods = self.staying
        says = f"{sum(pod.is_ready for pod in pods)} of {len(pods)} pods ready"
        troubles = sorted({pod.trouble for pod in pods if pod.trouble and not pod.is_ready})
        return f"{says}, {', '.join(troubles)}" if troubles else says

    @property
    def unready(self) -> str:
        """Which pod is not ready, and the trouble that it has; empty where all are."""
        waiting = [pod for pod in self.staying if not pod.is_ready]
        # One in trouble says more than one that has just begun.
        for pod in sorted(waiting, key=lambda pod: not pod.trouble):
            return f"pod {pod.name} is not ready{': ' if pod.trouble else ''}{pod.trouble}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationFacts:
    """One GET of an Application, and its workloads where they were asked for. Revisions are 40 hex digits or None."""

    name: str
    tracks: str | None
    """What it follows where that is not our branch and path; None where it is right."""
    range: str = ""
    """The range whose highest tag it follows, `v1.*`, where the target's tags are followed so."""
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
    out_of_sync: tuple[str, ...] = ()
    """What differs from the manifests, `Deployment/manual-app`, without what only has to be removed."""
    to_prune: tuple[str, ...] = ()
    """What is not in the manifests any more, and stays because nobody lets Argo CD remove it."""
    closed: str = ""
    """Why a sync window keeps Argo CD from syncing by itself, and until when; empty where none does."""
    may_sync: bool = False
    """May the bot's account have it synced? Asked where it waits for somebody to do so."""
    rolls_with: str = ""
    """The ApplicationSet that syncs it in a rolling step, and how far that is; empty where there is none."""
    history_revision: str | None = None
    unhealthy: tuple[ResourceResult, ...] = ()
    workloads: Workloads | None = None

    @property
    def is_fresh(self) -> bool:
        """Was the comparison begun after the last operation ended? Strictly: the stamps are whole seconds."""
        if self.operation is None or self.operation.finished_at is None:
            return True
        return self.reconciled_at is not None and self.reconciled_at > self.operation.finished_at

    def takes(self, tag: str) -> bool:
        """Would it go to a tag that is made, once that is the highest?"""
        followed = Range.parse(self.range)
        return followed is None or followed.admits(tag)

    @property
    def is_incomparable(self) -> bool:
        """Does Argo CD fail to render it, or to get at the repository?"""
        return bool(self.errors) and self.sync in ("Unknown", "")

    @property
    def trouble(self) -> str:
        """Why its health is what it is, in Argo CD's words; empty where it gives no reason."""
        return "; ".join(result.says for result in self.unhealthy[:3]) or self.health_message

    @property
    def revisions(self) -> frozenset[str]:
        """Every revision that it names."""
        named = (self.revision, self.operation and self.operation.revision, self.history_revision)
        return frozenset(revision for revision in named if revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Nothing is known of the application: Argo CD does not answer or will not tell, or git cannot be asked about it.

    `is_final` where it stays so until somebody acts.
    """

    name: str
    reason: str
    is_final: bool
    outcome: Outcome = Outcome.UNREACHABLE


def image_doubt(workloads: Workloads, image: str, *, digests: Set[str] = frozenset()) -> str:
    """Why the image is not proved to run everywhere; empty where it is.

    The rendered manifests must hold it, and of the pods that stay, each must be ready and run no other version of it;
    where its digests are known, none of them may name another one.
    """
    name, wanted = split_image(image)
    spelled = [*workloads.rendered_images, *(each for pod in workloads.staying for each in pod.images)]
    if digests and (others := _digests(spelled, name) - digests):
        return f"the manifests or pods name the digest {min(others)[:19]}…, not {min(digests)[:19]}…"
    rendered = _versions(workloads.rendered_images, name)
    if wanted not in rendered:
        return f"the manifests hold {' and '.join(sorted(rendered)) or 'no version of ' + name}"
    for pod in workloads.staying:
        if others := _versions(pod.images, name) - {wanted}:
            return f"pod {pod.name} still runs {' and '.join(sorted(others))}"
    return workloads.unready


def running_version(facts: ApplicationFacts, image: str) -> tuple[str | None, str]:
    """The version that an application runs, live and healthy, or None with the reason why there is none."""
    name = facts.name
    if facts.is_operating:
        return None, f"{name} is being synced"
    if facts.errors:
        return None, f"{name} has a problem: {facts.errors[0]}"
    if facts.sync != "Synced" or facts.health != "Healthy":
        return None, f"{name} is {facts.sync or 'not compared'} and {facts.health or 'of unknown health'}"
    if not facts.is_fresh or not facts.compares_spec:
        return None, f"{name} has just changed and not been compared since"
    if facts.workloads is None:
        return None, f"the pods of {name} could not be read"
    found = _versions(
        (spelled for pod in facts.workloads.staying for spelled in pod.images), split_image(image)[0]
    )
    if len(found) != 1:
        return None, f"{name} runs {' and '.join(sorted(found)) or 'no pod of ' + image}"
    version = found.pop()
    if doubt := image_doubt(facts.workloads, f"{image}:{version}"):
        return None, f"{name}: {doubt}"
    return version, ""


def split_image(image: str) -> tuple[str, str]:
    """Name and version of an image in one spelling: `nginx` is `docker.io/library/nginx` and `latest`.

    A digest beside a tag is left out; one without a tag is the version.
    """
    spelled, _, digest = image.partition("@")
    name, colon, tag = spelled.rpartition(":")
    if not colon or "/" in tag:
        name, tag = spelled, digest or "latest"
    host, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in host and ":" not in host and host != "localhost":
        name = f"docker.io/{host}/{rest}"
    return name, tag


def _digests(images: Iterable[str], name: str) -> set[str]:
    """Which digests of one image are named among these."""
    named = (each.partition("@") for each in images if split_image(each)[0] == name)
    return {digest for _, _, digest in named if digest}


def _versions(images: Iterable[str], name: str) -> set[str]:
    """Which versions of one image are among these."""
    return {version for other, version in map(split_image, images) if other == name}
