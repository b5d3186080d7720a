"""The controller's loop of operations: applies what git says, wave by wave and object by object."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from bot.playground.argocd import operations
from bot.playground.argocd.application import Application, Switches, Timings
from bot.playground.argocd.cluster import Cluster
from bot.playground.argocd.manifests import Json, Key, RenderError, images_of
from bot.playground.argocd.objects import health_of
from bot.playground.argocd.operations import Task
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.repo_server import RepoServer, load_failed
from bot.playground.argocd.specs import Revisions, SimulatedApplication, revisions_in
from bot.playground.argocd.timeline import Timeline
from bot.playground.argocd.windows import SyncWindow, can_sync
from bot.playground.argocd.workload_kinds import KINDS

_HISTORY = 10
_BACK_OFF = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What both loops work on. `windows` are the sync windows of each project."""

    timeline: Timeline
    timings: Timings
    switches: Switches
    repo_server: RepoServer
    cluster: Cluster
    windows: dict[str, list[SyncWindow]]

    def assigned(self, application: SimulatedApplication) -> list[SyncWindow]:
        """The sync windows that concern an application."""
        known = self.windows.get(application.project, [])
        return [window for window in known if window.is_assigned_to(application)]

    def can_sync(self, application: SimulatedApplication, *, manual: bool) -> bool:
        """Whether the windows let an application sync now."""
        return can_sync(self.assigned(application), self.timeline.now, manual=manual)


@dataclass(slots=True, kw_only=True)
class Failures:
    """What is to go wrong with the coming operations, the first entry with the next one."""

    applying: list[str] = field(default_factory=list)
    starting: list[str] = field(default_factory=list)
    hooks: dict[str, str] = field(default_factory=dict)
    """The message with which the next hook of a phase fails."""


class Syncer:
    """The loop of operations: takes the queued one, applies object by object, and records the result."""

    def __init__(self, application: Application, world: World, ended: Callable[[], None]) -> None:
        self.failures = Failures()
        self._application = application
        self._world = world
        self._ended = ended
        self._attempt = 0
        self._failure: str | None = None
        self._failed: list[str] = []
        self._targets: dict[Key, Json] = {}
        self._resolved: Revisions = ()

    def queue(self, operation: Json) -> None:
        """Queue an operation: the old operation state goes, sync status and health stay what they were."""
        application = self._application
        application.operation = operation
        application.operation_state = None
        application.touch()
        self._cancel()
        self._later(self._world.timings.queue_takes, self._begin)

    def terminate(self) -> None:
        """End the operation that runs: first Terminating, a moment later Failed."""
        self._cancel()
        self._write(phase="Terminating", message="operation is terminating")
        self._later(self._world.timings.queue_takes, lambda: self._complete("Failed", "Operation terminated"))

    def lose(self) -> None:
        """Lose the operation while it runs: it is gone from the object, and its state says Running for ever."""
        self._cancel()
        self._application.operation = None
        self._application.touch()

    def orphan(self, revisions: Revisions) -> None:
        """Leave the state of an operation that says Succeeded, without an end and without a result."""
        self._cancel()
        application = self._application
        application.operation = None
        application.operation_state = {
            "operation": operations.automated(application.spec, revisions),
            "phase": "Succeeded",
            "startedAt": stamp(self._world.timeline.now),
        }
        application.touch()

    def _cancel(self) -> None:
        """Let nothing happen any more of what the present attempt has planned."""
        self._attempt += 1

    def _later(self, delay: timedelta, action: Callable[[], None]) -> None:
        attempt = self._attempt

        def act() -> None:
            if attempt == self._attempt:
                action()

        self._world.timeline.after(delay, act)

    def _begin(self) -> None:
        application = self._application
        if application.operation is None:
            return
        now = self._world.timeline.now
        kind = "automated sync" if self._is_automated(application.operation) else "sync"
        revision = ", ".join(revisions_in(application.operation["sync"]))
        application.events.append((now, "OperationStarted", f"Initiated {kind} to '{revision}'"))
        application.operation_state = {
            "operation": application.operation,
            "phase": "Running",
            "startedAt": stamp(now),
        }
        application.touch()
        self._start()

    def _start(self) -> None:
        """Run unless a window keeps the operation back; it is looked at again a poll interval later."""
        operation = self._state()["operation"]
        if not self._world.can_sync(self._application.spec, manual=not self._is_automated(operation)):
            self._write(message="Sync operation blocked by sync window")
            self._later(self._world.timings.poll_interval, self._start)
            return
        self._failure = self.failures.applying.pop(0) if self.failures.applying else None
        self._run()

    def _run(self) -> None:
        """Begin the first stage of the operation."""
        world, spec = self._world, self._application.spec
        self._failed = []
        self._resolved = ()
        if self.failures.starting:
            self._complete("Error", self.failures.starting.pop(0))
            return
        try:
            self._resolved = revisions_in(self._sync()) or world.repo_server.resolve_all(spec, forced=True)
            self._targets = world.repo_server.manifests(spec, self._revisions())
        except RenderError as error:
            message = f"ComparisonError: {load_failed(spec, error)}"
            self._later(world.timings.sync_takes, lambda: self._complete("Error", message))
            return
        surplus = {
            key: live.applied
            for key, live in world.cluster.owned(spec.instance).items()
            if key not in self._targets
        }
        self._run_stages(operations.stages(self._targets, surplus, self._sync()))

    def _run_stages(self, stages: Sequence[Sequence[Task]]) -> None:
        """Spread the tasks of a stage over the time it takes, the record of a sync's success just before its end."""
        stage, rest, takes = stages[0], stages[1:], self._world.timings.sync_takes
        step = takes / (len(stage) + 1)
        hook_takes = self._world.timings.hook_takes
        if any(task.is_hook for task in stage):
            takes = step * len(stage) + hook_takes
        for place, task in enumerate(stage, start=1):
            self._later(step * place, partial(self._perform, task))
            if task.is_hook:
                self._later(step * (place - 0.5) + hook_takes, partial(self._end_hook, task))
        if not rest:
            self._later(takes - step / 4, self._record)
        self._later(takes, lambda: self._end_stage(stage, rest))

    def _end_stage(self, stage: Sequence[Task], rest: Sequence[Sequence[Task]]) -> None:
        """Go on with the next stage once everything of this one is healthy; after the last one nobody waits."""
        if self._failed:
            self._end_failed(stage)
            return
        if not rest:
            self._conclude()
            return
        waiting = [task for task in stage if not self._is_healthy(task)]
        if waiting:
            group, kind, _, name = waiting[0].key
            more = f" and {len(waiting) - 1} more resources" if waiting[1:] else ""
            self._write(message=f"waiting for healthy state of {group}/{kind}/{name}{more}")
            self._later(self._world.timings.settle_gap, lambda: self._end_stage(stage, rest))
            return
        for task in stage:
            self._amend(task.key, hookPhase="Succeeded")
        self._run_stages(rest)

    def _end_failed(self, stage: Sequence[Task]) -> None:
        """Run the hooks for failures, unless those were the ones that ran, and call the operation Failed."""
        message, hooks = self._failed[0], operations.failure_hooks(self._targets)
        if hooks and not any(task.phase == operations.SYNC_FAIL for task in stage):
            self._run_stages([hooks])
            return
        self._complete("Failed", message)

    def _is_healthy(self, task: Task) -> bool:
        live = self._world.cluster.owned(self._application.spec.instance).get(task.key)
        if task.is_hook or task.is_surplus or self._sync().get("dryRun"):
            return True
        health = health_of(live)
        return health is None or health["status"] == "Healthy"

    def _perform(self, task: Task) -> None:
        group, kind, _, name = task.key
        shown = f"{kind.lower()}{'.' + group if group else ''}/{name}"
        is_dry = bool(self._sync().get("dryRun"))
        if task.is_hook:
            self._report(task, message=f"{shown} created", hookPhase="Running", hookType=task.phase)
            self._write(message=f"waiting for completion of hook {group}/{kind}/{name}")
        elif task.is_surplus:
            self._prune(task, is_dry=is_dry)
        elif self._failure is not None and kind in KINDS:
            self._failed.append(f"one or more objects failed to apply, reason: {self._failure}")
            self._report(task, status="SyncFailed", message=self._failure, hookPhase="Failed")
        else:
            done = f"{shown} configured (dry run)" if is_dry else f"{shown} {self._apply(task)}"
            self._report(task, status="Synced", message=done, hookPhase="Running")

    def _apply(self, task: Task) -> str:
        return self._world.cluster.apply(task.manifest, owner=self._application.spec.instance)

    def _prune(self, task: Task, *, is_dry: bool) -> None:
        if not self._sync().get("prune"):
            self._report(
                task, status="PruneSkipped", message="ignored (requires pruning)", hookPhase="Succeeded"
            )
            return
        if not is_dry and task.key in self._world.cluster.owned(self._application.spec.instance):
            self._world.cluster.delete(task.key)
        message = "pruned (dry run)" if is_dry else "pruned"
        self._report(task, status="Pruned", message=message, hookPhase="Running")

    def _end_hook(self, task: Task) -> None:
        failure = self.failures.hooks.pop(task.phase, None)
        if failure is None:
            self._amend(task.key, hookPhase="Succeeded")
            return
        self._amend(task.key, hookPhase="Failed", message=failure)
        reason = f"one or more synchronization tasks completed unsuccessfully, reason: {failure}"
        self._failed.append(reason)

    def _report(self, task: Task, **told: str) -> None:
        """Add one object's result to the operation."""
        group, kind, namespace, name = task.key
        result: Json = {
            "group": group,
            "version": task.manifest["apiVersion"].rpartition("/")[2],
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "syncPhase": task.phase,
            **told,
        }
        if images := images_of(task.manifest):
            result["images"] = images
        self._write_results([*self._results(), result])

    def _amend(self, key: Key, **told: str) -> None:
        """Change what is told of one object."""
        self._write_results(
            [
                result | told
                if (result["group"], result["kind"], result["namespace"], result["name"]) == key
                else result
                for result in self._results()
            ]
        )

    def _results(self) -> list[Json]:
        found: list[Json] = self._state().get("syncResult", {}).get("resources", [])
        return found

    def _write_results(self, results: list[Json]) -> None:
        spec = self._application.spec
        sync_result = {
            "resources": results,
            **spec.shown_revisions(self._revisions()),
            **spec.shown_sources,
        }
        self._write(syncResult=sync_result, message="one or more tasks are running")

    def _record(self) -> None:
        """Append to the history, which happens before the operation is called Succeeded."""
        application, state, spec = self._application, self._state(), self._application.spec
        if self._failed or not self._is_full:
            return
        entry = {
            "id": application.history[-1]["id"] + 1 if application.history else 0,
            **spec.shown_revisions(self._revisions()),
            "deployStartedAt": state["startedAt"],
            "deployedAt": stamp(self._world.timeline.now),
            **spec.shown_sources,
            "initiatedBy": state["operation"]["initiatedBy"],
        }
        application.history = [*application.history, entry][-_HISTORY:]
        application.touch()

    @property
    def _is_full(self) -> bool:
        """Whether the operation really syncs everything."""
        return not self._sync().get("dryRun") and not self._sync().get("resources")

    def _conclude(self) -> None:
        if self._is_full:
            self._application.synced_revisions = self._revisions()
        self._complete("Succeeded", "successfully synced (all tasks run)")

    def _complete(self, phase: str, message: str) -> None:
        application, now, state = self._application, self._world.timeline.now, self._state()
        retried = state.get("retryCount", 0)
        limit = state["operation"].get("retry", {}).get("limit", 0)
        if phase == "Failed" and state["phase"] == "Running" and retried < limit:
            self._retry_later(message, attempt=retried + 1)
            return
        if phase == "Failed" and retried:
            message = f"{message} (retried {retried} times)."
        application.operation = None
        self._cancel()
        said = f"Sync operation to {', '.join(self._revisions())} {phase.lower()}"
        application.events.append((now, "OperationCompleted", said))
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
        self._later(wait, self._retry)

    def _retry(self) -> None:
        state = self._state()
        kept = {name: value for name, value in state.items() if name not in {"finishedAt", "syncResult"}}
        self._application.operation_state = kept
        self._application.touch()
        self._run()

    @staticmethod
    def _is_automated(operation: Json) -> bool:
        return bool(operation["initiatedBy"].get("automated"))

    def _sync(self) -> Json:
        asked: Json = self._state()["operation"]["sync"]
        return asked

    def _revisions(self) -> Revisions:
        """What it syncs: the commits it names, or those of its branches when it began."""
        return revisions_in(self._sync()) or self._resolved

    def _state(self) -> Json:
        state = self._application.operation_state
        if state is None:
            raise LookupError("no operation runs")
        return state

    def _write(self, **fields: object) -> None:
        self._application.operation_state = self._state() | fields
        self._application.touch()
