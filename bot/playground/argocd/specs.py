"""What somebody configures in Argo CD: applications with their sources, how long things take, and what goes wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bot.playground.argocd.manifests import Json

CONTROL_PLANE = "argocd"
SERVER = "https://kubernetes.default.svc"
Revisions = tuple[str, ...]
"""The commit of each source, in the order of the sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSource:
    """One source of an application.

    Attributes:
        repo_url: its address, as the application names it.
        branch: what it follows: a branch, `HEAD`, or a whole commit id.
        repository: the bare repository behind the address; None is the simulation's own.
        value_files: the chart's values files; `$ref/path` takes one from the source of that `ref`.
        path: the folder of the chart or of the plain manifests.
        ref: the name by which other sources take values files from it; such a source renders nothing itself.
    """

    repo_url: str
    branch: str = "main"
    repository: Path | None = None
    value_files: Sequence[str] = ()
    path: str = "."
    ref: str = ""

    def json(self) -> Json:
        """The shape of an `ApplicationSource`."""
        source: Json = {"repoURL": self.repo_url, "path": self.path, "targetRevision": self.branch}
        if self.value_files:
            source["helm"] = {"valueFiles": list(self.value_files)}
        return source | ({"ref": self.ref} if self.ref else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedHydration:
    """Where the source hydrator puts what it renders: a branch and a folder on it."""

    branch: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedApplication:
    """One Argo CD application of the simulation.

    It deploys the sample chart of `branch` with one values file into one namespace. `sources` replaces that by several
    sources, and `hydration` puts a branch of rendered manifests between the chart and the cluster.
    """

    name: str
    destination_namespace: str
    values_file: str
    repo_url: str
    project: str = "default"
    branch: str = "main"
    image_repository: str = "ghcr.io/acme/manual-app"
    namespace: str = CONTROL_PLANE
    automated: bool = True
    prune: bool = True
    self_heal: bool = False
    retry_limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    sources: Sequence[SimulatedSource] = ()
    hydration: SimulatedHydration | None = None
    application_set: str = ""
    repository: Path | None = None
    """Where its repository is, unless it is the simulation's own."""
    declared_in: str = ""
    """A file of `main` that holds its manifest: another application applies that, and so `targetRevision` with it."""

    @property
    def instance(self) -> str:
        """Its name among all applications, as Argo CD writes it into tracking ids."""
        return self.name if self.namespace == CONTROL_PLANE else f"{self.namespace}_{self.name}"

    @property
    def rbac_name(self) -> str:
        """Its object in rights: the namespace counts only outside the control plane's."""
        if self.namespace == CONTROL_PLANE:
            return f"{self.project}/{self.name}"
        return f"{self.project}/{self.namespace}/{self.name}"

    @property
    def dry_source(self) -> SimulatedSource:
        """The chart with its values file, wherever it is rendered."""
        return SimulatedSource(
            repo_url=self.repo_url,
            branch=self.branch,
            repository=self.repository,
            value_files=(self.values_file,),
            path=".",
        )

    @property
    def all_sources(self) -> Sequence[SimulatedSource]:
        """What is compared with the cluster: one source or several."""
        if self.hydration is not None:
            hydrated = self.hydration
            return [
                SimulatedSource(repo_url=self.repo_url, branch=hydrated.branch, path=hydrated.path),
            ]
        return self.sources or [self.dry_source]

    @property
    def has_many_sources(self) -> bool:
        """Whether it is written with `sources` and `revisions`, as one with a single entry there is as well."""
        return bool(self.sources) and self.hydration is None

    @property
    def shown_sources(self) -> Json:
        """`source` or `sources`, whichever it has."""
        if self.has_many_sources:
            return {"sources": [source.json() for source in self.sources]}
        return {"source": self.all_sources[0].json()}

    @property
    def source_hydrator(self) -> Json:
        """Its `spec.sourceHydrator`; empty if it has none."""
        if self.hydration is None:
            return {}
        return {
            "drySource": self.dry_source.json(),
            "syncSource": {"targetBranch": self.hydration.branch, "path": self.hydration.path},
        }

    @property
    def destination(self) -> Json:
        """Its `spec.destination`."""
        return {"server": SERVER, "namespace": self.destination_namespace}

    @property
    def initiator(self) -> Json:
        """Who started the operations of its past."""
        return {"automated": True} if self.automated else {"username": "admin"}

    @property
    def retry(self) -> Json:
        """Its `spec.syncPolicy.retry`; a limit of zero is left out, as Go's omitempty does."""
        return {"limit": self.retry_limit} if self.retry_limit else {}

    def shown_revisions(self, revisions: Revisions) -> Json:
        """`revision` or `revisions`, whichever belongs to its sources."""
        return {"revisions": list(revisions)} if self.has_many_sources else {"revision": revisions[0]}

    def json(self) -> Json:
        """Its `spec`."""
        automated = {"prune": self.prune, "selfHeal": self.self_heal}
        policy: Json = {"retry": self.retry}
        if self.automated:
            policy["automated"] = {name: is_on for name, is_on in automated.items() if is_on}
        hydrator = self.source_hydrator
        return {
            **({"sourceHydrator": hydrator} if hydrator else self.shown_sources),
            "destination": self.destination,
            "project": self.project,
            "syncPolicy": policy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedApplicationSet:
    """What generates applications.

    `steps` names the applications of each step of its `rollingSync`; without steps it only owns them. A rolling set
    switches the auto-sync of its applications off and starts their operations itself, step by step.
    """

    name: str
    namespace: str = CONTROL_PLANE
    project: str = "default"
    steps: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long the steps of the simulation take; the defaults suit a demo that somebody watches."""

    poll_interval: timedelta = timedelta(minutes=3)
    """From one reconcile to the next without a reason; also how long an answer of ls-remote is reused."""
    reconcile_takes: timedelta = timedelta(milliseconds=300)
    persist_takes: timedelta = timedelta(milliseconds=50)
    """From queueing an operation to the write of the comparison that asked for it."""
    queue_takes: timedelta = timedelta(milliseconds=200)
    """From queueing an operation to its start."""
    sync_takes: timedelta = timedelta(milliseconds=1500)
    """One wave of a sync."""
    hook_takes: timedelta = timedelta(seconds=1)
    hydrate_takes: timedelta = timedelta(seconds=1)
    settle_gap: timedelta = timedelta(seconds=1)
    """From a change in the cluster, or the end of an operation, to the reconcile that looks at it."""
    pod_takes: timedelta = timedelta(seconds=1)
    progress_deadline: timedelta = timedelta(seconds=20)


@dataclass(slots=True, kw_only=True)
class Switches:
    """What can be turned on and off while the simulation runs."""

    deaf: bool = False
    lossy_refresh: bool = True
    waits_after_window: bool = False


def revisions_in(shown: Json) -> Revisions:
    """The commits that a sync status, an operation or its result names; empty if it names none."""
    many = shown.get("revisions")
    return tuple(many) if many else (shown["revision"],) if shown.get("revision") else ()
