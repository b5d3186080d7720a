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
from functools import partial
from pathlib import Path

from aiohttp import web

from bot.playground.argocd.api import Api
from bot.playground.argocd.application import (
    Application,
    SimulatedApplication,
    Switches,
    Timings,
    deployments_of,
)
from bot.playground.argocd.cluster import Cluster, LiveObject, Pace
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.reconciler import Level, Reconciler
from bot.playground.argocd.repo_server import RepoServer
from bot.playground.argocd.syncer import Syncer, World
from bot.playground.argocd.timeline import Timeline

__all__ = ["RecordedRequest", "SimulatedApplication", "SimulatedArgoCD", "Timings", "Truth"]

_LEAD = timedelta(days=2)
_TICK = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request the API server has received."""

    method: str
    path: str
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the simulated cluster really runs, whatever the API says about it.

    `versions` are the image tags of all pods that are not terminating; `health` is the Deployments' present one;
    `revision` is the newest commit whose manifests the cluster was made, or found, equal to.
    """

    versions: frozenset[str]
    all_ready: bool
    health: str
    revision: str | None

    def runs(self, version: str) -> bool:
        """Whether every pod is of that version, ready, and none is missing."""
        return self.all_ready and self.versions == {version}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Controlled:
    """One application with its two loops."""

    application: Application
    reconciler: Reconciler
    syncer: Syncer


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatedArgoCD:
    """An Argo CD that listens on 127.0.0.1 and deploys into a cluster that exists in memory alone.

    Args:
        repository: the bare repository its applications follow.
        token: the one bearer token it accepts; it must look like a JWT, as Argo CD ignores others.
        applications: what it deploys; each starts synced and healthy at the present commit of its branch.
        timings: how long things take; the defaults suit a demo.
        now: the source of time, aware and in UTC.

    Attributes:
        down: while true, every request is answered 503 with a proxy's HTML page.
        token_expired: while true, the token is answered like an expired one.
        forbidden: the names of applications the token may not read.
        requests: every request received so far.
    """

    def __init__(
        self,
        *,
        repository: Path,
        token: str,
        applications: Sequence[SimulatedApplication],
        timings: Timings | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.down = False
        self.token_expired = False
        self.forbidden: set[str] = set()
        self.requests: list[RecordedRequest] = []
        self.token = token
        self.now = now
        self._timings = timings or Timings()
        self._switches = Switches()
        self._timeline = Timeline(begins_at=now() - _LEAD)
        self._repo_server = RepoServer(repository, self._timeline, self._timings, self._switches)
        pace = Pace(pod_takes=self._timings.pod_takes, progress_deadline=self._timings.progress_deadline)
        self._cluster = Cluster(self._timeline, pace, partial(self._look_later, level=Level.WITH_RECENT))
        self._controlled = {spec.name: self._control(spec) for spec in applications}
        self._looking: set[str] = set()
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
        return self._switches.deaf

    @deaf.setter
    def deaf(self, is_deaf: bool) -> None:
        self._switches.deaf = is_deaf

    @property
    def lossy_refresh(self) -> bool:
        """Whether a refresh asked for during a reconcile is lost, as in every release up to 3.5.1."""
        return self._switches.lossy_refresh

    @lossy_refresh.setter
    def lossy_refresh(self, is_lossy: bool) -> None:
        self._switches.lossy_refresh = is_lossy

    async def start(self, port: int = 0, *, background: bool = True) -> None:
        """Deploy the present commits, then listen; without `background` time passes only by `tick` and by requests."""
        self._deploy_everything()
        self._runner = web.AppRunner(Api(self).web_application(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        host, bound = self._runner.addresses[0][:2]
        self._url = f"http://{host}:{bound}"
        if background:
            self._ticking = asyncio.create_task(self._tick_forever())

    async def stop(self) -> None:
        """Stop listening and end the model's time."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        for controlled in self._controlled.values():
            controlled.application.remove_refresh()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def tick(self) -> None:
        """Bring the model up to `now`."""
        self._timeline.run_until(self.now())

    def degrade_next_rollout(self, application: str | None = None) -> None:
        """Let the pods of the next rollout crash, of one application or of whichever rolls out first."""
        self._cluster.doom(application)

    @property
    def degrades_next(self) -> bool:
        """Whether a rollout that has not begun yet is to crash."""
        return self._cluster.awaits_doom

    def spare_next_rollout(self) -> None:
        """Take back `degrade_next_rollout`."""
        self._cluster.spare()

    def fail_next_sync(self, application: str, message: str) -> None:
        """Let the application's next operation fail at its Deployment, with all of its retries."""
        self._controlled[application].syncer.failures.append(message)

    def stale_render_next(self, application: str) -> None:
        """Let the application's next new revision be rendered from the files of the one before."""
        self._repo_server.serve_stale(application)

    def truth(self, application: str) -> Truth:
        """What the cluster really runs for an application now."""
        found = self._controlled[application].application
        deployments = deployments_of(self.live(application))
        active = [pod for deployment in deployments for pod in deployment.pods if not pod.is_terminating]
        wanted = sum(deployment.desired for deployment in deployments)
        prefix = f"{found.spec.image_repository}:"
        images = [image for pod in active for image in pod.images if image.startswith(prefix)]
        unhealthy = [
            deployment.health.status for deployment in deployments if deployment.health.status != "Healthy"
        ]
        return Truth(
            versions=frozenset(image.removeprefix(prefix).partition("@")[0] for image in images),
            all_ready=len(active) >= wanted and all(pod.is_ready for pod in active),
            health=unhealthy[0] if unhealthy else "Healthy" if deployments else "Missing",
            revision=found.synced_revision,
        )

    def snapshot(self) -> list[Json]:
        """One line for each application, as a page shows it: what the API would say, beside the pods there are."""
        return [self._line(controlled.application) for controlled in self._controlled.values()]

    def record(self, method: str, path: str, query: Mapping[str, str]) -> None:
        """Remember a request that came in."""
        self.requests.append(RecordedRequest(method=method, path=path, query=query))

    def find(self, name: str, namespace: str) -> Application | None:
        """The application of that name in that namespace."""
        controlled = self._controlled.get(name)
        return (
            controlled.application
            if controlled and controlled.application.spec.namespace == namespace
            else None
        )

    def known(self) -> Iterator[Application]:
        """Every application."""
        return (controlled.application for controlled in self._controlled.values())

    def live(self, application: str) -> dict[Key, LiveObject]:
        """The live objects of an application."""
        return self._cluster.owned(application)

    def refresh(self, application: str, kind: str) -> None:
        """Set an application's refresh annotation."""
        self._controlled[application].reconciler.refresh(kind)

    def _line(self, application: Application) -> Json:
        spec, status = application.spec, application.status
        deployments = deployments_of(self.live(spec.name))
        ready = sum(pod.is_ready for deployment in deployments for pod in deployment.current.pods)
        state = application.operation_state or {}
        conditions = [condition["message"] for condition in status.get("conditions", [])]
        rollouts = [deployment.health.message for deployment in deployments if deployment.health.message]
        running = [state["message"]] if application.is_syncing and "message" in state else []
        return {
            "name": spec.name,
            "namespace": spec.destination_namespace,
            "sync": status["sync"]["status"],
            "health": status["health"].get("status", ""),
            "revision": status["sync"].get("revision", "")[:7],
            "version": ", ".join(sorted(self.truth(spec.name).versions)),
            "pods": f"{ready}/{sum(deployment.desired for deployment in deployments)}",
            "message": next(iter([*running, *conditions, *rollouts]), ""),
        }

    def _control(self, spec: SimulatedApplication) -> _Controlled:
        """Give an application its two loops; the end of an operation asks for a comparison, but does not wait."""
        world = World(
            timeline=self._timeline,
            timings=self._timings,
            switches=self._switches,
            repo_server=self._repo_server,
            cluster=self._cluster,
        )
        application = Application(spec, created_at=self._timeline.now)
        syncer = Syncer(application, world, partial(self._look_later, spec.name, level=Level.WITH_LATEST))
        reconciler = Reconciler(application, world, syncer)
        return _Controlled(application=application, reconciler=reconciler, syncer=syncer)

    def _deploy_everything(self) -> None:
        """Let the past happen: every application was deployed two days ago and has been compared since."""
        for controlled in self._controlled.values():
            branch = controlled.application.spec.branch
            controlled.syncer.queue(self._repo_server.resolve(branch, forced=False))
        self._timeline.run_until(self.now() - self._timings.poll_interval)
        for place, controlled in enumerate(self._controlled.values()):
            share = (place + 0.5) / len(self._controlled)
            self._timeline.after(self._timings.poll_interval * share, controlled.reconciler.poll)
        self.tick()

    def _look_later(self, application: str, *, level: Level) -> None:
        """Reconcile after the settling gap; several changes within it are looked at together."""
        if level is Level.WITH_RECENT:
            if application in self._looking:
                return
            self._looking.add(application)

        def look() -> None:
            if level is Level.WITH_RECENT:
                self._looking.discard(application)
            self._controlled[application].reconciler.request(level)

        self._timeline.after(self._timings.settle_gap, look)

    async def _tick_forever(self) -> None:
        while True:
            self.tick()
            await asyncio.sleep(_TICK)
