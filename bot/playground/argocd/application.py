"""Argo CD's Application object: what the controller's two loops write and the API server shows."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.objects import LiveObject, health_of
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.specs import (
    CONTROL_PLANE,
    Revisions,
    SimulatedApplication,
    Switches,
    Timings,
    revisions_in,
)

__all__ = ["Application", "SimulatedApplication", "Switches", "Timings"]

REFRESH = "argocd.argoproj.io/refresh"
_versions = itertools.count(48_000)


class Application:
    """The persisted object of one application, with the comparison that the API server reads from the cache."""

    def __init__(
        self,
        spec: SimulatedApplication,
        *,
        created_at: datetime,
        written: "Callable[[Application], None]" = lambda _application: None,
    ) -> None:
        self.spec = spec
        self.created_at = created_at
        self.refresh: str | None = None
        self.operation: Json | None = None
        self.operation_state: Json | None = None
        self.status: Json = {"sync": {"status": "", "comparedTo": {}}, "health": {}, "summary": {}}
        self.hydration: Json = {}
        self.history: list[Json] = []
        self.targets: dict[Key, Json] = {}
        self.compared: dict[Key, Json] = {}
        self.is_cached = True
        self.deleted_at: datetime | None = None
        self.synced_revisions: Revisions = ()
        self.events: list[tuple[datetime, str, str]] = []
        self._written = written
        self._refreshed: list[asyncio.Future[None]] = []
        self.version = next(_versions)

    @property
    def is_syncing(self) -> bool:
        """Whether an operation is queued or runs."""
        return self.operation is not None

    @property
    def revisions(self) -> Revisions:
        """The commits of the last comparison."""
        return revisions_in(self.status["sync"])

    def touch(self) -> None:
        """Give the object its next resourceVersion: it was written."""
        self.version = next(_versions)
        self._written(self)

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
        if self.hydration:
            status["sourceHydrator"] = self.hydration
        shown: Json = {"metadata": self._metadata(), "spec": self.spec.json(), "status": status}
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
        if self.deleted_at is not None:
            metadata["deletionTimestamp"] = stamp(self.deleted_at)
            metadata["finalizers"] = ["resources-finalizer.argocd.argoproj.io"]
        if spec.application_set:
            metadata["ownerReferences"] = [_owner(spec.application_set)]
        if spec.labels:
            metadata["labels"] = dict(spec.labels)
        if self.refresh:
            metadata["annotations"] = {REFRESH: self.refresh}
        return metadata


def _owner(application_set: str) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ApplicationSet",
        "name": application_set,
        "uid": str(uuid5(NAMESPACE_URL, f"ApplicationSet {application_set}")),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _health_of(resource: Json, live: Mapping[Key, LiveObject]) -> Json:
    health = health_of(
        live.get((resource.get("group", ""), resource["kind"], resource["namespace"], resource["name"]))
    )
    return {"health": health} if health is not None else {}
