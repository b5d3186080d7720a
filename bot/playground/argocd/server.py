"""A simulated Argo CD 3.5: two independent loops over the sample repository, and the API server in front of them.

It is a model, not a set of canned answers: a commit is noticed when the real one would notice it, an operation that
succeeded leaves the old health standing until the next reconcile, and pods come up one by one. The rules are those of
Argo CD's source, release 3.5.1.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.playground.argocd.access import Access
from bot.playground.argocd.api import Api
from bot.playground.argocd.application import Application
from bot.playground.argocd.application_sets import ApplicationSet
from bot.playground.argocd.controllers import Controllers
from bot.playground.argocd.interceptions import Interception
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.pods import CRASHING
from bot.playground.argocd.reconciler import Trouble
from bot.playground.argocd.specs import (
    SimulatedApplication,
    SimulatedApplicationSet,
    SimulatedHydration,
    SimulatedSource,
    Timings,
)
from bot.playground.argocd.syncer import World
from bot.playground.argocd.timeline import Timeline
from bot.playground.argocd.truth import Truth, line_of, truth_of
from bot.playground.argocd.watch import Streams
from bot.playground.argocd.windows import SyncWindow
from bot.playground.argocd.workloads import workloads_of

__all__ = [
    "RecordedRequest",
    "SimulatedApplication",
    "SimulatedApplicationSet",
    "SimulatedArgoCD",
    "SimulatedHydration",
    "SimulatedSource",
    "SyncWindow",
    "Timings",
    "Truth",
]

_LEAD = timedelta(days=2)
_TICK = 0.05
_NOVELTY = "fieldOfALaterRelease"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request the API server has received."""

    method: str
    path: str
    query: Mapping[str, str]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatedArgoCD:
    """An Argo CD that listens on 127.0.0.1 and deploys into a cluster that exists in memory alone.

    Applications are named in its methods by `name`, or by `namespace/name` where the name alone is another one's.

    Args:
        repository: the bare repository its applications follow.
        token: the bearer token of its first account; it must look like a JWT, as Argo CD ignores others.
        applications: what it deploys; each starts synced and healthy at the present commit of its branch.
        application_sets: what owns applications that name one.
        timings: how long things take; the defaults suit a demo.
        rootpath: the path below which everything is served, `/argocd` for one; empty without.
        now: the source of time, aware and in UTC.

    Attributes:
        down: while true, every request is answered 503 with a proxy's HTML page.
        is_newer: while true, applications have fields that no release has yet.
        requests: every request received so far.
        access: its accounts, with their tokens and rights.
        streams: the watch of applications, and what can go wrong with it.
        windows: the sync windows of each project; change them at any time.
    """

    def __init__(
        self,
        *,
        repository: Path,
        token: str,
        applications: Sequence[SimulatedApplication],
        application_sets: Sequence[SimulatedApplicationSet] = (),
        timings: Timings | None = None,
        rootpath: str = "",
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.down = False
        self.is_newer = False
        self.requests: list[RecordedRequest] = []
        self.token = token
        self.now = now
        self._rootpath = rootpath.rstrip("/")
        self._timeline = Timeline(begins_at=now() - _LEAD)
        self._controllers = Controllers(
            repository=repository,
            timeline=self._timeline,
            timings=timings or Timings(),
            sets=application_sets,
            written=self._tell,
        )
        self.streams = Streams(self._timeline, self.shown)
        self.access = Access(token, projects=self._projects, now=now)
        self.windows = self._controllers.world.windows
        for spec in applications:
            self._controllers.add(spec)
        self._frozen_list: list[tuple[SimulatedApplication, Json]] | None = None
        self._interceptions: list[Interception] = []
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """The server's base address, without a slash at the end; empty before it has started."""
        return self._url

    @property
    def deaf(self) -> bool:
        """Whether new commits go unnoticed."""
        return self._controllers.switches.deaf

    @deaf.setter
    def deaf(self, is_deaf: bool) -> None:
        self._controllers.switches.deaf = is_deaf

    @property
    def lossy_refresh(self) -> bool:
        """Whether a refresh asked for during a reconcile is lost, as in every release up to 3.5.1."""
        return self._controllers.switches.lossy_refresh

    @lossy_refresh.setter
    def lossy_refresh(self, is_lossy: bool) -> None:
        self._controllers.switches.lossy_refresh = is_lossy

    @property
    def waits_after_window(self) -> bool:
        """Whether what a sync window kept back does not start by itself when the window ends, but with a refresh."""
        return self._controllers.switches.waits_after_window

    @waits_after_window.setter
    def waits_after_window(self, waits: bool) -> None:
        self._controllers.switches.waits_after_window = waits

    @property
    def token_expired(self) -> bool:
        """Whether every token is answered like an expired one."""
        return self.access.token_expired

    @token_expired.setter
    def token_expired(self, is_expired: bool) -> None:
        self.access.token_expired = is_expired

    @property
    def forbidden(self) -> set[str]:
        """The names of applications that nobody may read."""
        return self.access.forbidden

    @forbidden.setter
    def forbidden(self, names: set[str]) -> None:
        self.access.forbidden = names

    @property
    def list_lags(self) -> bool:
        """Whether lists keep showing what they would have shown when this was switched on."""
        return self._frozen_list is not None

    @list_lags.setter
    def list_lags(self, lags: bool) -> None:
        self._frozen_list = None
        self._frozen_list = self.listed() if lags else None

    async def start(self, port: int = 0, *, background: bool = True) -> None:
        """Deploy the present commits, then listen; without `background` time passes only by `tick` and by requests."""
        self._controllers.deploy_everything(ago=_LEAD)
        self.tick()
        api = Api(self, rootpath=self._rootpath)
        self._runner = web.AppRunner(
            api.web_application(), access_log=None, shutdown_timeout=1, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        host, bound = self._runner.addresses[0][:2]
        self._url = f"http://{host}:{bound}{self._rootpath}"
        if background:
            self._ticking = asyncio.create_task(self._tick_forever())

    async def stop(self) -> None:
        """Stop listening and end the model's time."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        for application in self.known():
            application.remove_refresh()
        self.streams.end()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def tick(self) -> None:
        """Bring the model up to `now`."""
        self._timeline.run_until(self.now())
        self._controllers.apply_declared()

    # What happens to applications.

    def add(self, spec: SimulatedApplication) -> None:
        """Let an application appear now, as an ApplicationSet or an app of apps creates one."""
        controlled = self._controllers.add(spec)
        self.streams.written(controlled.application, "ADDED")
        controlled.reconciler.poll()

    def change(self, application: str, **fields: Any) -> None:
        """Change fields of an application: `project` moves it, `branch` lets it follow another branch."""
        self._controllers.change(self._named(application), **fields)

    def delete(self, application: str, *, takes: timedelta = timedelta(seconds=2)) -> None:
        """Delete an application and what it deployed: marked at once, gone when that is done."""
        self._controllers.delete(self._named(application), takes)

    def sync(self, application: str, *, username: str = "admin", **sync: object) -> None:
        """Let somebody else start an operation; `sync` are fields of a `SyncOperation`, its revision for one."""
        operation: Json = {"sync": sync, "initiatedBy": {"username": username}, "retry": {}}
        self._controllers.named(application).syncer.queue(operation)

    def queue(self, application: Application, operation: Json) -> None:
        """Queue an operation that was asked for."""
        self._controllers.named(application.spec.instance).syncer.queue(operation)

    def terminate(self, application: str) -> None:
        """End the operation that runs."""
        self._controllers.named(application).syncer.terminate()

    def lose_operation(self, application: str) -> None:
        """Lose the operation that runs: its state says Running for ever, and the object names no operation."""
        self._controllers.named(application).syncer.lose()

    def orphan_operation(self, application: str, revision: str) -> None:
        """Leave an operation's state that says Succeeded at a revision, with neither an end nor a result."""
        self._controllers.named(application).syncer.orphan((revision,))

    def refresh(self, application: str, kind: str) -> None:
        """Set an application's refresh annotation."""
        self._controllers.named(application).reconciler.refresh(kind)

    def scale_by_hand(self, application: str, replicas: int) -> None:
        """Let somebody change the workloads behind Argo CD's back."""
        for workload in workloads_of(self.live(application)):
            workload.apply(workload.applied | {"spec": workload.applied["spec"] | {"replicas": replicas}})

    # What goes wrong.

    def degrade_next_rollout(self, application: str | None = None, *, trouble: str = CRASHING) -> None:
        """Let the pods of the next rollout get into trouble, of one application or of whichever rolls out first."""
        owner = self._named(application).spec.instance if application is not None else None
        self._controllers.cluster.doom(owner, trouble)

    @property
    def degrades_next(self) -> bool:
        """Whether a rollout that has not begun yet is to crash."""
        return self._controllers.cluster.awaits_doom

    def spare_next_rollout(self) -> None:
        """Take back `degrade_next_rollout`."""
        self._controllers.cluster.spare()

    def recover(self, application: str) -> None:
        """Let the pods that are in trouble serve after all."""
        self._controllers.cluster.recover(self._named(application).spec.instance)

    def flap_next_rollout(self, application: str) -> None:
        """Let a pod fail its probe for a moment just after the application's next rollout has become healthy."""
        self._controllers.cluster.flap(self._named(application).spec.instance)

    def fail_next_sync(self, application: str, message: str) -> None:
        """Let the application's next operation fail at its workload, with all of its retries."""
        self._controllers.named(application).syncer.failures.applying.append(message)

    def break_next_sync(self, application: str, message: str) -> None:
        """Let the application's next operation end as Error, before it has any result."""
        self._controllers.named(application).syncer.failures.starting.append(message)

    def fail_next_hook(self, application: str, phase: str, message: str) -> None:
        """Let the application's next hook of a phase (`PreSync`, `PostSync`) fail."""
        self._controllers.named(application).syncer.failures.hooks[phase] = message

    def break_comparisons(
        self, application: str, message: str, *, kind: str = "ComparisonError", revision: str = ""
    ) -> None:
        """Let every comparison run into an error condition until `mend_comparisons`.

        `ComparisonError` leaves the health as it is, and `revision` as the revision; `InvalidSpecError` makes sync and
        health Unknown; `UnknownError` stands for a status that could not be written and stays the old one.
        """
        reconciler = self._controllers.named(application).reconciler
        reconciler.trouble = Trouble(kind=kind, message=message, revision=revision)

    def mend_comparisons(self, application: str) -> None:
        """Let comparisons succeed again."""
        self._controllers.named(application).reconciler.trouble = None

    def stale_render_next(self, application: str) -> None:
        """Let the application's next new revision be rendered from the files of the one before."""
        self._controllers.repo_server.serve_stale(self._named(application).spec.instance)

    def lose_cache(self, application: str) -> None:
        """Lose the tree and the managed resources of an application until it is compared again."""
        self._named(application).is_cached = False

    def intercept(self, *answers: Interception) -> None:
        """Let the next requests be answered by what stands before Argo CD, one each."""
        self._interceptions.extend(answers)

    # What is really so.

    def truth(self, application: str) -> Truth:
        """What the cluster really runs for an application now."""
        return truth_of(self._named(application), self.live(application))

    def snapshot(self) -> list[Json]:
        """One line for each application, as a page shows it: what the API would say, beside the pods there are."""
        return [
            line_of(application, self._controllers.live(application))
            for application in self._controllers.known()
        ]

    # What the API asks.

    @property
    def world(self) -> World:
        """What the controller's loops work on."""
        return self._controllers.world

    def record(self, method: str, path: str, query: Mapping[str, str]) -> None:
        """Remember a request that came in."""
        self.requests.append(RecordedRequest(method=method, path=path, query=query))

    def take_interception(self, path: str) -> Interception | None:
        """The answer that something else gives to a request for a path; asking uses it up."""
        for answer in self._interceptions:
            if answer.path in path:
                self._interceptions.remove(answer)
                return answer
        return None

    def resolve(self, source: SimulatedSource) -> str:
        """The present revision of a source; raises RenderError if it has none."""
        return self._controllers.repo_server.resolve(source, forced=True)

    def application_set(self, name: str) -> ApplicationSet | None:
        """The ApplicationSet of that name."""
        return self._controllers.sets.get(name)

    def find(self, name: str, namespace: str) -> Application | None:
        """The application of that name in that namespace."""
        return self._controllers.find(name, namespace)

    def known(self) -> Iterator[Application]:
        """Every application."""
        return self._controllers.known()

    def shown(self, application: Application) -> Json:
        """An application as a single GET and the streams show it."""
        shown = self._controllers.shown(application)
        if not self.is_newer:
            return shown
        parts = {name: shown[name] | {_NOVELTY: {"enabled": True}} for name in ("spec", "status")}
        return shown | parts | {_NOVELTY: []}

    def listed(self) -> list[tuple[SimulatedApplication, Json]]:
        """Every application as lists show it, which may be how it was some time ago."""
        if self._frozen_list is not None:
            return self._frozen_list
        return [(application.spec, application.listed()) for application in self.known()]

    def live(self, application: str) -> dict[Key, LiveObject]:
        """The live objects of an application."""
        return self._controllers.live(self._named(application))

    def _tell(self, application: Application, kind: str) -> None:
        self.streams.written(application, kind)

    def _named(self, application: str) -> Application:
        return self._controllers.named(application).application

    def _projects(self) -> set[str]:
        return {application.spec.project for application in self.known()}

    async def _tick_forever(self) -> None:
        while True:
            self.tick()
            await asyncio.sleep(_TICK)
