"""The controller's loop of comparisons: git against cluster, and the decision to sync."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from bot.playground.argocd.application import Application, deployments_of, health_of
from bot.playground.argocd.manifests import Json, Key, RenderError
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.repo_server import LOAD_FAILED
from bot.playground.argocd.syncer import Syncer, World

_WORST = ("Healthy", "Suspended", "Progressing", "Missing", "Degraded", "Unknown")


class Level(IntEnum):
    """How new the git state of a comparison has to be, in the names of Argo CD's source."""

    WITH_RECENT = 1
    WITH_LATEST = 2
    WITH_LATEST_FORCE_RESOLVE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one reconcile found at its start; it is written at its end."""

    started_at: datetime
    status: str
    revision: str | None
    health: str
    resources: list[Json]
    images: list[str]
    urls: list[str]
    targets: dict[Key, Json]
    live: dict[Key, Json]
    error: str | None = None


class Reconciler:
    """The loop of comparisons: git against cluster, written as sync status and health."""

    def __init__(self, application: Application, world: World, syncer: Syncer) -> None:
        self.is_polling = False
        self._application = application
        self._world = world
        self._syncer = syncer
        self._is_running = False
        self._came_late: str | None = None
        self._pending: Level | None = None

    def request(self, level: Level) -> None:
        """Ask for a reconcile; while one runs, at most one more waits."""
        if self._is_running:
            self._pending = max(self._pending or level, level)
        else:
            self._begin(level)

    def refresh(self, kind: str) -> None:
        """Set the refresh annotation, which bypasses the caches of the reconcile that sees it at its start."""
        self._application.refresh = kind
        self._application.touch()
        if not self._is_running:
            self._begin(Level.WITH_LATEST_FORCE_RESOLVE)
        elif not self._world.switches.lossy_refresh:
            self._came_late = kind

    def poll(self) -> None:
        """Reconcile without a reason, and again a poll interval after the last reconcile."""
        self.is_polling = True
        self.request(Level.WITH_LATEST)

    def _begin(self, level: Level) -> None:
        application = self._application
        self._is_running = True
        self._pending = self._came_late = None
        if application.refresh is not None:
            level = Level.WITH_LATEST_FORCE_RESOLVE
        if application.refresh == "hard":
            self._world.repo_server.drop_manifests(application.spec.name)
        comparison = self._compare(level)
        self._world.timeline.after(self._world.timings.reconcile_takes, lambda: self._end(comparison))

    def _compare(self, level: Level) -> Comparison:
        """Snapshot git and cluster as they are at the start of the reconcile."""
        world, spec = self._world, self._application.spec
        known = self._application.status["sync"].get("revision")
        revision, error, targets = None, None, dict[Key, Json]()
        try:
            if level is Level.WITH_RECENT and known:
                revision = known
            else:
                revision = world.repo_server.resolve(
                    spec.branch, forced=level is Level.WITH_LATEST_FORCE_RESOLVE
                )
            targets = world.repo_server.manifests(spec, revision)
        except RenderError as problem:
            revision, error = None, f"{LOAD_FAILED}{problem}"
        owned = world.cluster.owned(spec.name)
        resources = self._resources(targets, failed=error is not None)
        statuses = {resource["status"] for resource in resources}
        status = "Unknown" if error else "OutOfSync" if "OutOfSync" in statuses else "Synced"
        deployments = deployments_of(owned)
        return Comparison(
            started_at=world.timeline.now,
            status=status,
            revision=revision,
            health=self._health(),
            resources=resources,
            images=sorted(
                {image for deployment in deployments for pod in deployment.pods for image in pod.images}
            ),
            urls=[url for found in owned.values() for url in _urls(found.applied)],
            targets=targets,
            live={key: found.live() for key, found in owned.items()},
            error=error,
        )

    def _resources(self, targets: dict[Key, Json], *, failed: bool) -> list[Json]:
        owned = self._world.cluster.owned(self._application.spec.name)
        resources = []
        for key in [*targets, *(key for key in owned if key not in targets)]:
            live = owned.get(key)
            same = live is not None and live.applied == targets.get(key)
            manifest = targets.get(key) or (live.applied if live is not None else {})
            group, kind, namespace, name = key
            resource = {"group": group} if group else {}
            resource |= {"version": manifest["apiVersion"].rpartition("/")[2], "kind": kind}
            resource |= {"namespace": namespace, "name": name}
            shown: Json = resource | {"status": "Unknown" if failed else "Synced" if same else "OutOfSync"}
            if not failed and key not in targets:
                shown["requiresPruning"] = True
            resources.append(shown)
        return resources

    def _health(self) -> str:
        """The worst health of the managed objects; a missing one counts only if all are missing."""
        owned = self._world.cluster.owned(self._application.spec.name)
        if not owned:
            return "Missing"
        found = [health["status"] for live in owned.values() if (health := health_of(live)) is not None]
        return max(found, key=_WORST.index, default="Healthy")

    def _end(self, comparison: Comparison) -> None:
        """Queue an operation if auto-sync wants one, and only then write the comparison that says why."""
        refused = None
        if self._wants_operation(comparison):
            refused = self._refusal(comparison)
            if refused is None and comparison.revision is not None:
                self._syncer.queue(comparison.revision)
                takes = self._world.timings.persist_takes
                self._world.timeline.after(takes, lambda: self._persist(comparison, None))
                return
        self._persist(comparison, refused)

    def _wants_operation(self, comparison: Comparison) -> bool:
        application = self._application
        if comparison.status != "OutOfSync" or not application.spec.automated or application.is_syncing:
            return False
        state = application.operation_state or {}
        tried = state.get("syncResult", {}).get("revision") == comparison.revision
        return not (tried and state.get("phase") == "Succeeded")

    def _refusal(self, comparison: Comparison) -> str | None:
        """Why auto-sync does not try again: it never repeats a revision whose sync has failed."""
        state = self._application.operation_state or {}
        attempted = state.get("operation", {}).get("sync", {}).get("revision")
        if attempted == comparison.revision and state.get("phase") in {"Failed", "Error"}:
            return f"Failed last sync attempt to {attempted}: {state['message']}"
        return None

    def _persist(self, comparison: Comparison, refused: str | None) -> None:
        """Write the comparison, remove the refresh annotation, and begin the reconcile that waits, if any."""
        application = self._application
        application.status = self._status(comparison, refused)
        application.targets, application.compared = comparison.targets, comparison.live
        if comparison.status == "Synced":
            application.synced_revision = comparison.revision
        application.touch()
        self._is_running = False
        if self._came_late is None:
            application.remove_refresh()
        else:
            self._pending = Level.WITH_LATEST_FORCE_RESOLVE
        self._world.timeline.after(
            self._world.timings.poll_interval, lambda: self._poll_if_due(comparison.started_at)
        )
        if self._pending is not None:
            self._begin(self._pending)

    def _poll_if_due(self, reconciled_at: datetime) -> None:
        if self.is_polling and self._application.status["reconciledAt"] == stamp(reconciled_at):
            self.request(Level.WITH_LATEST)

    def _status(self, comparison: Comparison, refused: str | None) -> Json:
        spec, before, now = self._application.spec, self._application.status, stamp(self._world.timeline.now)
        health_before = before["health"]
        same_health = health_before.get("status") == comparison.health
        sync: Json = {
            "status": comparison.status,
            "comparedTo": {"source": spec.source, "destination": spec.destination},
        }
        if comparison.revision is not None:
            sync["revision"] = comparison.revision
        summary = {"images": comparison.images, "externalURLs": comparison.urls}
        status: Json = {
            "sync": sync,
            "health": health_before
            if same_health
            else {"status": comparison.health, "lastTransitionTime": now},
            "resources": comparison.resources,
            "summary": {name: values for name, values in summary.items() if values},
            "reconciledAt": stamp(comparison.started_at),
        }
        found = (("ComparisonError", comparison.error), ("SyncError", refused))
        conditions = [
            self._condition(kind, message, before.get("conditions", []), now)
            for kind, message in found
            if message
        ]
        return status | ({"conditions": conditions} if conditions else {})

    @staticmethod
    def _condition(kind: str, message: str, before: list[Json], now: str) -> Json:
        for known in before:
            if (known["type"], known["message"]) == (kind, message):
                return known
        return {"type": kind, "message": message, "lastTransitionTime": now}


def _urls(manifest: Json) -> list[str]:
    """The addresses an Ingress serves."""
    rules = manifest["spec"].get("rules", []) if manifest["kind"] == "Ingress" else []
    return [f"http://{rule['host']}/" for rule in rules]
