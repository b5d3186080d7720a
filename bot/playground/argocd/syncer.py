"""The controller's loop of operations: applies what git says, object by object."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from bot.playground.argocd.application import Application, Switches, Timings
from bot.playground.argocd.cluster import Cluster
from bot.playground.argocd.manifests import Json, Key, RenderError, images_of, key_of
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.repo_server import LOAD_FAILED, RepoServer
from bot.playground.argocd.timeline import Timeline

_HISTORY = 10
_BACK_OFF = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What both loops work on."""

    timeline: Timeline
    timings: Timings
    switches: Switches
    repo_server: RepoServer
    cluster: Cluster


class Syncer:
    """The loop of operations: takes the queued one, applies object by object, and records the result."""

    def __init__(self, application: Application, world: World, ended: Callable[[], None]) -> None:
        self.failures: list[str] = []
        self._application = application
        self._world = world
        self._ended = ended
        self._failure: str | None = None

    def queue(self, revision: str) -> None:
        """Queue an automated sync: the old operation state goes, sync status and health stay what they were."""
        application = self._application
        application.operation = {
            "sync": {"revision": revision, "prune": True},
            "initiatedBy": application.spec.initiator,
            "retry": application.spec.retry,
        }
        application.operation_state = None
        application.touch()
        self._world.timeline.after(self._world.timings.queue_takes, self._begin)

    def _begin(self) -> None:
        application = self._application
        if application.operation is None:
            return
        now = self._world.timeline.now
        self._failure = self.failures.pop(0) if self.failures else None
        revision = application.operation["sync"]["revision"]
        application.events.append((now, "OperationStarted", f"Initiated automated sync to '{revision}'"))
        application.operation_state = {
            "operation": application.operation,
            "phase": "Running",
            "startedAt": stamp(now),
        }
        application.touch()
        self._run()

    def _run(self) -> None:
        """Spread the operation's tasks over the time it takes."""
        world, revision = self._world, self._revision()
        try:
            targets = world.repo_server.manifests(self._application.spec, revision)
        except RenderError as error:
            message = f"ComparisonError: {LOAD_FAILED}{error}"
            world.timeline.after(world.timings.sync_takes, lambda: self._complete("Error", message))
            return
        surplus = [key for key in world.cluster.owned(self._application.spec.name) if key not in targets]
        tasks = [lambda manifest=manifest: self._apply(manifest) for manifest in targets.values()]
        tasks += [lambda key=key: self._prune(key) for key in surplus]
        step = world.timings.sync_takes / (len(tasks) + 1)
        for place, task in enumerate(tasks, start=1):
            world.timeline.after(step * place, task)
        world.timeline.after(world.timings.sync_takes - step / 4, self._record)
        world.timeline.after(world.timings.sync_takes, self._conclude)

    def _revision(self) -> str:
        state = self._state()
        return str(state["operation"]["sync"]["revision"])

    def _state(self) -> Json:
        state = self._application.operation_state
        if state is None:
            raise LookupError("no operation runs")
        return state

    def _apply(self, manifest: Json) -> None:
        group, kind, _, name = key_of(manifest)
        shown = f"{kind.lower()}{'.' + group if group else ''}/{name}"
        if self._failure is not None and kind == "Deployment":
            self._report(manifest, status="SyncFailed", message=self._failure)
            return
        done = self._world.cluster.apply(manifest, owner=self._application.spec.name)
        self._report(manifest, status="Synced", message=f"{shown} {done}")

    def _prune(self, key: Key) -> None:
        live = self._world.cluster.owned(self._application.spec.name).get(key)
        if live is not None:
            self._world.cluster.delete(key)
            self._report(live.applied, status="Pruned", message="pruned")

    def _report(self, manifest: Json, *, status: str, message: str) -> None:
        """Add one object's result to the operation."""
        state = self._state()
        result = self._identity(manifest) | {
            "status": status,
            "message": message,
            "hookPhase": "Failed" if status == "SyncFailed" else "Running",
            "syncPhase": "Sync",
        }
        if images := images_of(manifest):
            result["images"] = images
        before = state.get("syncResult", {}).get("resources", [])
        sync_result = {
            "resources": [*before, result],
            "revision": self._revision(),
            "source": self._application.spec.source,
        }
        self._write(syncResult=sync_result, message="one or more tasks are running")

    @staticmethod
    def _identity(manifest: Json) -> Json:
        group, kind, namespace, name = key_of(manifest)
        return {
            "group": group,
            "version": manifest["apiVersion"].rpartition("/")[2],
            "kind": kind,
            "namespace": namespace,
            "name": name,
        }

    def _record(self) -> None:
        """Append to the history, which happens before the operation is called Succeeded."""
        if self._failure is not None:
            return
        application, state = self._application, self._state()
        entry = {
            "id": application.history[-1]["id"] + 1 if application.history else 0,
            "revision": self._revision(),
            "deployStartedAt": state["startedAt"],
            "deployedAt": stamp(self._world.timeline.now),
            "source": application.spec.source,
            "initiatedBy": application.spec.initiator,
        }
        application.history = [*application.history, entry][-_HISTORY:]
        application.touch()

    def _conclude(self) -> None:
        if self._failure is not None:
            self._complete("Failed", f"one or more objects failed to apply, reason: {self._failure}")
        else:
            self._application.synced_revision = self._revision()
            self._complete("Succeeded", "successfully synced (all tasks run)")

    def _complete(self, phase: str, message: str) -> None:
        application, now, state = self._application, self._world.timeline.now, self._state()
        retried = state.get("retryCount", 0)
        if phase == "Failed" and retried < application.spec.retry_limit:
            self._retry_later(message, attempt=retried + 1)
            return
        if phase == "Failed" and retried:
            message = f"{message} (retried {retried} times)."
        application.operation = None
        application.events.append(
            (now, "OperationCompleted", f"Sync operation to {self._revision()} {phase.lower()}")
        )
        self._write(phase=phase, message=message, finishedAt=stamp(now))
        self._ended()

    def _retry_later(self, message: str, *, attempt: int) -> None:
        """Wait for the next attempt, which Argo CD shows as Running with a finishedAt."""
        now = self._world.timeline.now
        wait = _BACK_OFF * 2 ** (attempt - 1)
        at = f"{now + wait:%I:%M%p}".lstrip("0")
        self._write(
            message=f"{message}. Retrying attempt #{attempt} at {at}.",
            finishedAt=stamp(now),
            retryCount=attempt,
        )
        self._world.timeline.after(wait, self._retry)

    def _retry(self) -> None:
        state = self._state()
        kept = {name: value for name, value in state.items() if name not in {"finishedAt", "syncResult"}}
        self._application.operation_state = kept
        self._application.touch()
        self._run()

    def _write(self, **fields: object) -> None:
        self._application.operation_state = self._state() | fields
        self._application.touch()
