"""The controller's loop of comparisons: git against cluster, and the decision to sync."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from bot.playground.argocd import operations
from bot.playground.argocd.application import Application
from bot.playground.argocd.hydrator import Hydrator
from bot.playground.argocd.manifests import Json, Key, RenderError
from bot.playground.argocd.objects import health_of
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.repo_server import load_failed
from bot.playground.argocd.specs import Revisions, revisions_in
from bot.playground.argocd.syncer import Syncer, World
from bot.playground.argocd.workloads import workloads_of

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
    is_refresh: bool
    status: str
    revisions: Revisions
    compared_to: Json
    health: str
    resources: list[Json]
    images: list[str]
    urls: list[str]
    targets: dict[Key, Json]
    live: dict[Key, Json]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why comparisons fail: a condition of that kind, and the revision that is shown all the same."""

    kind: str
    message: str
    revision: str = ""


class Reconciler:
    """The loop of comparisons: git against cluster, written as sync status and health.

    `trouble`, while it is set, is what each comparison runs into.
    """

    def __init__(self, application: Application, world: World, syncer: Syncer, hydrator: Hydrator) -> None:
        self.is_polling = False
        self.trouble: Trouble | None = None
        self._application = application
        self._world = world
        self._syncer = syncer
        self._hydrator = hydrator
        self._is_running = False
        self._came_late: str | None = None
        self._pending: Level | None = None
        self._was_kept_back = False
        self._reconciled_at = application.created_at

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
            self._world.repo_server.drop_manifests(application.spec.instance)
        if level is not Level.WITH_RECENT:
            self._hydrator.look(application, forced=level is Level.WITH_LATEST_FORCE_RESOLVE)
        comparison = self._compare(level)
        self._world.timeline.after(self._world.timings.reconcile_takes, lambda: self._end(comparison))

    def _compare(self, level: Level) -> Comparison:
        """Snapshot git and cluster as they are at the start of the reconcile."""
        world, spec, trouble = self._world, self._application.spec, self.trouble
        revisions, error, targets = Revisions(), None, dict[Key, Json]()
        try:
            self._check_trouble()
            revisions = self._resolve(level)
            targets = operations.without_hooks(world.repo_server.manifests(spec, revisions))
        except RenderError as problem:
            revisions = self._revisions_of_error()
            error = trouble.message if trouble is not None else load_failed(spec, problem)
        owned = world.cluster.owned(spec.instance)
        resources = self._resources(targets, failed=error is not None)
        statuses = {resource["status"] for resource in resources}
        status = "Unknown" if error else "OutOfSync" if "OutOfSync" in statuses else "Synced"
        return Comparison(
            started_at=world.timeline.now,
            is_refresh=level is Level.WITH_LATEST_FORCE_RESOLVE,
            status=status,
            revisions=revisions,
            compared_to={**spec.shown_sources, "destination": spec.destination},
            health=self._health(),
            resources=resources,
            images=sorted(
                {image for workload in workloads_of(owned) for pod in workload.pods for image in pod.images}
            ),
            urls=[url for found in owned.values() for url in _urls(found.applied)],
            targets=targets,
            live={key: found.live() for key, found in owned.items()},
            error=error,
        )

    def _check_trouble(self) -> None:
        if self.trouble is not None and self.trouble.kind == "ComparisonError":
            raise RenderError(self.trouble.message)

    def _resolve(self, level: Level) -> Revisions:
        known = self._application.revisions
        is_current = (
            len(known) == len(self._application.spec.all_sources) and self._compares_the_present_spec()
        )
        if level is Level.WITH_RECENT and is_current:
            return known
        return self._world.repo_server.resolve_all(
            self._application.spec, forced=level is Level.WITH_LATEST_FORCE_RESOLVE
        )

    def _compares_the_present_spec(self) -> bool:
        spec, compared = self._application.spec, self._application.status["sync"]["comparedTo"]
        return all(compared.get(name) == shown for name, shown in spec.shown_sources.items())

    def _revisions_of_error(self) -> Revisions:
        """What a failed comparison shows as its revision: a branch's name, or nothing."""
        if self.trouble is None or not self.trouble.revision:
            return ()
        return (self.trouble.revision,) * len(self._application.spec.all_sources)

    def _resources(self, targets: dict[Key, Json], *, failed: bool) -> list[Json]:
        owned = self._world.cluster.owned(self._application.spec.instance)
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
            if wave := operations.wave_of(manifest):
                shown["syncWave"] = wave
            if not failed and key not in targets:
                shown["requiresPruning"] = True
            resources.append(shown)
        return resources

    def _health(self) -> str:
        """The worst health of the managed objects; a missing one counts only if all are missing."""
        owned = self._world.cluster.owned(self._application.spec.instance)
        if not owned:
            return "Missing"
        found = [health["status"] for live in owned.values() if (health := health_of(live)) is not None]
        return max(found, key=_WORST.index, default="Healthy")

    def _end(self, comparison: Comparison) -> None:
        """Queue an operation if auto-sync wants one, and only then write the comparison that says why."""
        refused = None
        if self.trouble is None and self._wants_operation(comparison):
            refused = self._refusal(comparison)
            if refused is None:
                self._syncer.queue(self._operation(comparison))
                takes = self._world.timings.persist_takes
                self._world.timeline.after(takes, lambda: self._persist(comparison, None))
                return
        self._persist(comparison, refused)

    def _wants_operation(self, comparison: Comparison) -> bool:
        application = self._application
        if comparison.status != "OutOfSync" or not application.spec.automated or application.is_syncing:
            return False
        if application.deleted_at is not None or not self._may_start(comparison):
            return False
        return not self._was_synced_to(comparison) or self._heals(comparison)

    def _may_start(self, comparison: Comparison) -> bool:
        """Whether the windows let auto-sync begin; what they kept back may have to wait for the next refresh."""
        if not self._world.can_sync(self._application.spec, manual=False):
            self._was_kept_back = self._world.switches.waits_after_window
            return False
        if self._was_kept_back and not comparison.is_refresh:
            return False
        self._was_kept_back = False
        return True

    def _was_synced_to(self, comparison: Comparison) -> bool:
        state = self._application.operation_state or {}
        return _attempted(state) == comparison.revisions and state.get("phase") == "Succeeded"

    def _heals(self, comparison: Comparison) -> bool:
        """Whether drift after a success is undone; a state without a result lets nothing begin."""
        state = self._application.operation_state or {}
        return self._application.spec.self_heal and "syncResult" in state and bool(comparison.targets)

    def _operation(self, comparison: Comparison) -> Json:
        """The operation for a comparison: everything for new revisions, only what drifted for known ones."""
        spec = self._application.spec
        if not self._was_synced_to(comparison):
            return operations.automated(spec, comparison.revisions)
        before = (self._application.operation_state or {})["operation"]["sync"]
        drifted: list[Json] = [
            {name: resource[name] for name in ("group", "kind", "namespace", "name") if name in resource}
            for resource in comparison.resources
            if resource["status"] == "OutOfSync"
        ]
        heals = before.get("autoHealAttemptsCount", 0) + 1
        return operations.automated(spec, comparison.revisions, resources=drifted, heals=heals)

    def _refusal(self, comparison: Comparison) -> str | None:
        """Why auto-sync does not begin: a revision whose sync has failed, or nothing left of the application."""
        state = self._application.operation_state or {}
        revisions = ", ".join(comparison.revisions)
        if _attempted(state) == comparison.revisions and state.get("phase") != "Succeeded":
            return f"Failed last sync attempt to {revisions}: {state.get('message', '')}"
        if not comparison.targets:
            return f"Skipping sync attempt to {revisions}: auto-sync will wipe out all resources"
        return None

    def _persist(self, comparison: Comparison, refused: str | None) -> None:
        """Write the comparison, remove the refresh annotation, and begin the reconcile that waits, if any."""
        application = self._application
        application.status = self._status(comparison, refused)
        application.targets, application.compared = comparison.targets, comparison.live
        application.is_cached = True
        self._reconciled_at = comparison.started_at
        if comparison.status == "Synced":
            application.synced_revisions = comparison.revisions
        self._is_running = False
        if self._came_late is None:
            application.remove_refresh()
        else:
            self._pending = Level.WITH_LATEST_FORCE_RESOLVE
        application.touch()
        self._world.timeline.after(
            self._world.timings.poll_interval, lambda: self._poll_if_due(comparison.started_at)
        )
        if self._pending is not None:
            self._begin(self._pending)

    def _poll_if_due(self, reconciled_at: datetime) -> None:
        if self.is_polling and self._reconciled_at == reconciled_at:
            self.request(Level.WITH_LATEST)

    def _status(self, comparison: Comparison, refused: str | None) -> Json:
        before, trouble = self._application.status, self.trouble
        found = [("ComparisonError", comparison.error), ("SyncError", refused)]
        if trouble is not None and trouble.kind != "ComparisonError":
            found.append((trouble.kind, trouble.message))
        status = self._compared(comparison)
        if trouble is not None and trouble.kind == "UnknownError":
            status = {name: value for name, value in before.items() if name != "conditions"}
        elif trouble is not None and trouble.kind == "InvalidSpecError":
            status["sync"] = before["sync"] | {"status": "Unknown"}
            status["health"] = self._changed_health("Unknown")
        now = stamp(self._world.timeline.now)
        conditions = [
            self._condition(kind, message, before.get("conditions", []), now)
            for kind, message in found
            if message
        ]
        return status | ({"conditions": conditions} if conditions else {})

    def _compared(self, comparison: Comparison) -> Json:
        """The status that a comparison gives."""
        sync: Json = {"status": comparison.status, "comparedTo": comparison.compared_to}
        if comparison.revisions:
            sync |= self._application.spec.shown_revisions(comparison.revisions)
        summary = {"images": comparison.images, "externalURLs": comparison.urls}
        return {
            "sync": sync,
            "health": self._changed_health(comparison.health),
            "resources": comparison.resources,
            "summary": {name: values for name, values in summary.items() if values},
            "reconciledAt": stamp(comparison.started_at),
        }

    def _changed_health(self, health: str) -> Json:
        """The health with the moment it last changed."""
        before: Json = self._application.status["health"]
        if before.get("status") == health:
            return before
        return {"status": health, "lastTransitionTime": stamp(self._world.timeline.now)}

    @staticmethod
    def _condition(kind: str, message: str, before: list[Json], now: str) -> Json:
        for known in before:
            if (known["type"], known["message"]) == (kind, message):
                return known
        return {"type": kind, "message": message, "lastTransitionTime": now}


def _attempted(state: Json) -> Revisions:
    """What the last operation synced, or was to sync."""
    return revisions_in(state.get("syncResult", {})) or revisions_in(
        state.get("operation", {}).get("sync", {})
    )


def _urls(manifest: Json) -> list[str]:
    """The addresses an Ingress serves."""
    rules = manifest["spec"].get("rules", []) if manifest["kind"] == "Ingress" else []
    return [f"http://{rule['host']}/" for rule in rules]
