"""The controllers of the simulation: every application with its two loops, and the ApplicationSets beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bot.playground import repository as git
from bot.playground.argocd.application import Application
from bot.playground.argocd.application_sets import ApplicationSet
from bot.playground.argocd.cluster import Cluster
from bot.playground.argocd.hydrator import Hydrator
from bot.playground.argocd.manifests import Json, Key, documents
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.reconciler import Level, Reconciler
from bot.playground.argocd.repo_server import RepoServer
from bot.playground.argocd.specs import (
    CONTROL_PLANE,
    SimulatedApplication,
    SimulatedApplicationSet,
    Switches,
    Timings,
)
from bot.playground.argocd.syncer import Syncer, World
from bot.playground.argocd.timeline import Timeline
from bot.playground.argocd.workloads import Pace

Written = Callable[[Application, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """One application with its two loops."""

    application: Application
    reconciler: Reconciler
    syncer: Syncer


class Controllers:
    """Every application, by its instance name, and what it lives in.

    Args:
        repository: the bare repository that sources follow unless they name another.
        timeline: when things happen.
        timings: how long they take.
        sets: the ApplicationSets there are.
        written: hears of each write of an application, with the kind of the event.
    """

    def __init__(
        self,
        *,
        repository: Path,
        timeline: Timeline,
        timings: Timings,
        sets: Sequence[SimulatedApplicationSet],
        written: Written,
    ) -> None:
        self._repository = repository
        self._timeline = timeline
        self._timings = timings
        self._written = written
        self._looking: set[str] = set()
        self._controlled: dict[str, Controlled] = {}
        self._applied: dict[str, str] = {}
        self.switches = Switches()
        self.repo_server = RepoServer(repository, timeline, timings, self.switches)
        gap = timings.settle_gap
        pace = Pace(
            pod_takes=timings.pod_takes,
            progress_deadline=timings.progress_deadline,
            flaps_after=gap + timings.reconcile_takes,
            flaps_for=gap + timings.reconcile_takes,
        )
        self.cluster = Cluster(timeline, pace, partial(self.look_later, level=Level.WITH_RECENT))
        self.world = World(
            timeline=timeline,
            timings=timings,
            switches=self.switches,
            repo_server=self.repo_server,
            cluster=self.cluster,
            windows={},
        )
        again = partial(self.look_later, level=Level.WITH_LATEST_FORCE_RESOLVE)
        self._hydrator = Hydrator(repository, self.repo_server, timeline, timings, again)
        self.sets = {
            spec.name: ApplicationSet(
                spec,
                members=partial(self._members, spec.name),
                queue=lambda application, operation: self.named(application.spec.instance).syncer.queue(
                    operation
                ),
                timeline=timeline,
            )
            for spec in sets
        }

    def add(self, spec: SimulatedApplication) -> Controlled:
        """Give an application its two loops; the end of an operation asks for a comparison, but does not wait."""
        spec = self._governed(spec)
        application = Application(spec, created_at=self._timeline.now, written=self._hear)
        ended = partial(self.look_later, spec.instance, level=Level.WITH_LATEST)
        syncer = Syncer(application, self.world, ended)
        reconciler = Reconciler(application, self.world, syncer, self._hydrator)
        controlled = Controlled(application=application, reconciler=reconciler, syncer=syncer)
        self._controlled[spec.instance] = controlled
        self._hydrator.hydrate_now(application)
        return controlled

    def change(self, application: Application, **fields: Any) -> None:
        """Change fields of an application's spec; the controller notices that at once."""
        application.spec = self._governed(replace(application.spec, **fields))
        application.touch()
        self.named(application.spec.instance).reconciler.request(Level.WITH_LATEST_FORCE_RESOLVE)

    def apply_declared(self) -> None:
        """Let the app of apps apply what `main` declares of the other applications, as soon as it is pushed."""
        for application in [each for each in self.known() if each.spec.declared_in]:
            file, repository = application.spec.declared_in, application.spec.repository or self._repository
            revision = git.head(repository) or ""
            if self._applied.get(application.spec.instance) == revision:
                continue
            self._applied[application.spec.instance] = revision
            [manifest] = documents(git.read_file(repository, file, revision), file)
            followed = manifest["spec"]["source"]["targetRevision"]
            if followed != application.spec.branch:
                self.change(application, branch=followed)

    def delete(self, application: Application, takes: timedelta) -> None:
        """Delete an application with its objects: it is marked now and gone when its finalizer has run."""
        application.deleted_at = self._timeline.now
        application.touch()
        self._timeline.after(takes, lambda: self._finalize(application))

    def named(self, application: str) -> Controlled:
        """The application of a name, or of `namespace/name` where a name is not enough; raises LookupError."""
        found = [
            controlled
            for controlled in self._controlled.values()
            if application in _names(controlled.application.spec)
        ]
        if not found:
            raise LookupError(f"no application {application}")
        return min(found, key=lambda each: each.application.spec.namespace != CONTROL_PLANE)

    def find(self, name: str, namespace: str) -> Application | None:
        """The application of that name in that namespace."""
        for application in self.known():
            if (application.spec.name, application.spec.namespace) == (name, namespace):
                return application
        return None

    def known(self) -> Iterator[Application]:
        """Every application."""
        return (controlled.application for controlled in self._controlled.values())

    def live(self, application: Application) -> dict[Key, LiveObject]:
        """The live objects of an application."""
        return self.cluster.owned(application.spec.instance)

    def shown(self, application: Application) -> Json:
        """An application as a single GET shows it."""
        return application.shown(self.live(application))

    def deploy_everything(self, *, ago: timedelta) -> None:
        """Let the past happen: every application was deployed and has been compared since."""
        end = self._timeline.now + ago
        for controlled in self._controlled.values():
            spec = controlled.application.spec
            revisions = self.repo_server.resolve_all(spec, forced=True)
            controlled.syncer.queue(
                {
                    "sync": spec.shown_revisions(revisions) | {"prune": True},
                    "initiatedBy": spec.initiator,
                    "retry": spec.retry,
                }
            )
        self._timeline.run_until(end - self._timings.poll_interval)
        for place, controlled in enumerate(self._controlled.values()):
            share = (place + 0.5) / len(self._controlled)
            self._timeline.after(self._timings.poll_interval * share, controlled.reconciler.poll)
        self._timeline.run_until(end)

    def look_later(self, instance: str, *, level: Level) -> None:
        """Reconcile after the settling gap; several changes within it are looked at together."""
        if level is Level.WITH_RECENT:
            if instance in self._looking:
                return
            self._looking.add(instance)

        def look() -> None:
            if level is Level.WITH_RECENT:
                self._looking.discard(instance)
            if instance in self._controlled:
                self._controlled[instance].reconciler.request(level)

        self._timeline.after(self._timings.settle_gap, look)

    def _finalize(self, application: Application) -> None:
        for key in self.live(application):
            self.cluster.delete(key)
        controlled = self._controlled.pop(application.spec.instance)
        controlled.reconciler.is_polling = False
        application.remove_refresh()
        self._written(application, "DELETED")

    def _governed(self, spec: SimulatedApplication) -> SimulatedApplication:
        """A spec without auto-sync where a rolling ApplicationSet starts the operations."""
        owner = self.sets.get(spec.application_set)
        is_rolling = owner is not None and bool(owner.spec.steps)
        return replace(spec, automated=False) if is_rolling else spec

    def _members(self, application_set: str) -> list[Application]:
        return [known for known in self.known() if known.spec.application_set == application_set]

    def _hear(self, application: Application) -> None:
        """Tell of a write, and let the owning ApplicationSet look a moment later."""
        self._written(application, "MODIFIED")
        owner = self.sets.get(application.spec.application_set)
        if owner is not None:
            self._timeline.after(self._timings.queue_takes, owner.look)


def _names(spec: SimulatedApplication) -> set[str]:
    return {spec.name, spec.instance, f"{spec.namespace}/{spec.name}"}
