"""Argo CD's Application object: what the controller's two loops write and the API server shows."""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.cluster import Deployment, LiveObject
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.pods import stamp

REFRESH = "argocd.argoproj.io/refresh"
CONTROL_PLANE = "argocd"
_versions = itertools.count(48_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedApplication:
    """One Argo CD application of the simulation: the sample chart with one values file in one namespace."""

    name: str
    destination_namespace: str
    values_file: str
    repo_url: str
    project: str = "default"
    branch: str = "main"
    image_repository: str = "ghcr.io/acme/manual-app"
    namespace: str = CONTROL_PLANE
    automated: bool = True
    retry_limit: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Json:
        """Its `spec.source`."""
        return {
            "repoURL": self.repo_url,
            "path": ".",
            "targetRevision": self.branch,
            "helm": {"valueFiles": [self.values_file]},
        }

    @property
    def destination(self) -> Json:
        """Its `spec.destination`."""
        return {"server": "https://kubernetes.default.svc", "namespace": self.destination_namespace}

    @property
    def initiator(self) -> Json:
        """Who starts its operations."""
        return {"automated": True} if self.automated else {"username": "admin"}

    @property
    def retry(self) -> Json:
        """Its `spec.syncPolicy.retry`; a limit of zero is left out, as Go's omitempty does."""
        return {"limit": self.retry_limit} if self.retry_limit else {}


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
    settle_gap: timedelta = timedelta(seconds=1)
    """From a change in the cluster, or the end of an operation, to the reconcile that looks at it."""
    pod_takes: timedelta = timedelta(seconds=1)
    progress_deadline: timedelta = timedelta(seconds=20)


@dataclass(slots=True, kw_only=True)
class Switches:
    """What can be turned on and off while the simulation runs."""

    deaf: bool = False
    lossy_refresh: bool = True


class Application:
    """The persisted object of one application, with the comparison that the API server reads from the cache."""

    def __init__(self, spec: SimulatedApplication, *, created_at: datetime) -> None:
        self.spec = spec
        self.created_at = created_at
        self.refresh: str | None = None
        self.operation: Json | None = None
        self.operation_state: Json | None = None
        self.status: Json = {"sync": {"status": "", "comparedTo": {}}, "health": {}, "summary": {}}
        self.history: list[Json] = []
        self.targets: dict[Key, Json] = {}
        self.compared: dict[Key, Json] = {}
        self.synced_revision: str | None = None
        self.events: list[tuple[datetime, str, str]] = []
        self._refreshed: list[asyncio.Future[None]] = []
        self.touch()

    @property
    def is_syncing(self) -> bool:
        """Whether an operation is queued or runs."""
        return self.operation is not None

    def touch(self) -> None:
        """Give the object its next resourceVersion: it was written."""
        self.version = next(_versions)

    def refreshed(self) -> asyncio.Future[None]:
        """What is done when the refresh annotation has been removed."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._refreshed.append(waiting)
        return waiting

    def remove_refresh(self) -> None:
        """Remove the refresh annotation and answer everybody who waits for that."""
        self.refresh = None
        for waiting in self._refreshed:
            if not waiting.done():
                waiting.set_result(None)
        self._refreshed.clear()

    def listed(self) -> Json:
        """The object as a list shows it: without the health of its resources."""
        status = self.status | {
            "sourceType": "Helm",
            "controllerNamespace": CONTROL_PLANE,
            "resourceHealthSource": "appTree",
        }
        if self.operation_state is not None:
            status["operationState"] = self.operation_state
        if self.history:
            status["history"] = self.history
        shown: Json = {"metadata": self._metadata(), "spec": self._spec(), "status": status}
        return shown | ({"operation": self.operation} if self.operation is not None else {})

    def shown(self, live: Mapping[Key, LiveObject]) -> Json:
        """The object as a single GET shows it: with the health its resources have this very moment."""
        shown = self.listed()
        resources = [
            resource | _health_of(resource, live) for resource in shown["status"].get("resources", [])
        ]
        if resources:
            shown["status"]["resources"] = resources
        return shown

    def _metadata(self) -> Json:
        spec = self.spec
        metadata: Json = {
            "name": spec.name,
            "namespace": spec.namespace,
            "uid": str(uuid5(NAMESPACE_URL, f"{spec.namespace}/{spec.name}")),
            "resourceVersion": str(self.version),
            "generation": self.version,
            "creationTimestamp": stamp(self.created_at),
        }
        if spec.labels:
            metadata["labels"] = dict(spec.labels)
        if self.refresh:
            metadata["annotations"] = {REFRESH: self.refresh}
        return metadata

    def _spec(self) -> Json:
        spec = self.spec
        policy: Json = {"retry": spec.retry} | ({"automated": {"prune": True}} if spec.automated else {})
        return {
            "source": spec.source,
            "destination": spec.destination,
            "project": spec.project,
            "syncPolicy": policy,
        }


def health_of(live: LiveObject | None) -> Json | None:
    """The health of one managed object, or None for a kind that has none."""
    if live is None:
        return {"status": "Missing"}
    return live.health.json() if live.health is not None else None


def deployments_of(live: Mapping[Key, LiveObject]) -> list[Deployment]:
    """The Deployments among an application's objects."""
    return [found for found in live.values() if isinstance(found, Deployment)]


def _health_of(resource: Json, live: Mapping[Key, LiveObject]) -> Json:
    health = health_of(
        live.get((resource.get("group", ""), resource["kind"], resource["namespace"], resource["name"]))
    )
    return {"health": health} if health is not None else {}
