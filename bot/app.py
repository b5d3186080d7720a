"""The bot as a process: what it hears, what it does now and then, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult

from bot import telemetry, tidings
from bot.core.errors import Failed, Unavailable
from bot.core.limits import Limits
from bot.core.reconciling import Reconciling
from bot.dev_lane import keep_noticed
from bot.dora import DORA, keep_measured
from bot.git_access import unsigned
from bot.guard_access import keep_guarded
from bot.hints import Hints
from bot.hook_access import hooks
from bot.integrations.argocd import ArgoCD
from bot.integrations.slack import SlackNotices
from bot.integrations.store import RedisStore
from bot.outside import Outside, SystemClock, open_outside
from bot.settings import Settings, SettingsError
from bot.telemetry import BUGS, TOKEN_ENDS, alarm
from bot.worker import Worker, end
from handlers import register
from handlers.listening import Background
from handlers.requests import slack_events
from handlers.socket import SocketMode

SHUTDOWN_WITHIN = 10.0
ANSWERED_WITHIN = 3.0
"""Seconds until a request is answered, as Slack demands it."""
RECONCILE_EVERY = 600.0
EXAMINE_EVERY = 600.0
LOOK_AT_TOKENS_EVERY = 12 * 3600.0
TOKEN_WARNED = timedelta(days=14)
LAST_SECOND = 1.0
"""What a push has left that is still under way when everything else has ended."""
SWEEP_EVERY = 3600.0
SWEEP_AT_ONCE = 500

log = structlog.get_logger()


def bolt(outside: Outside, background: Background) -> AsyncApp:
    """Bolt with every listener; who may do what is asked of Slack's directory by the core, not here."""

    async def authorize(**_: Any) -> AuthorizeResult:
        # Bolt's own way asks Slack before the first acknowledgement, which may then come too late.
        return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=outside.client.token)

    app = AsyncApp(
        signing_secret=outside.settings.get("SLACK_SIGNING_SECRET") or "",
        client=outside.client,
        authorize=authorize,
        logger=logging.getLogger("slack_bolt"),
    )
    register(
        app,
        outside.promoter(),
        outside.keeper(),
        notices=SlackNotices(outside.client),
        pictures=SlackNotices(outside.client),
        limits=Limits(outside.quick_board),
        background=background,
    )
    return app


async def run(settings: Settings, *, web_side: bool, worker_side: bool) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs, within ten seconds."""
    telemetry.set_up(settings.secrets)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_outside(settings, may_embed=web_side and worker_side) as outside:
        await _refuse_unsound(outside)
        if worker_side and (missing := unsigned(settings, outside.config)):
            raise SettingsError(missing[0])
        async with contextlib.AsyncExitStack() as stack:
            hearing = await stack.enter_async_context(contextlib.AsyncExitStack())
            working = await stack.enter_async_context(contextlib.AsyncExitStack())
            socket = await _hear(outside, hearing) if web_side else None
            # Web and worker may stand on one machine, as the Procfile has them.
            port = settings.operations_port(9090 if web_side else 9091)
            await stack.enter_async_context(_operations(outside, stopping, socket, port))
            if worker_side:
                await _work(outside, working)
            log.info("ready", web=web_side, worker=worker_side, targets=len(outside.catalog.targets))
            await stopping.wait()
            log.info("stopping")
            ends_at = asyncio.get_running_loop().time() + SHUTDOWN_WITHIN
            # Side by side, while `/readyz` still says that we are about to go.
            await asyncio.gather(hearing.aclose(), working.aclose())
            left = max(LAST_SECOND, ends_at - asyncio.get_running_loop().time())
            await outside.gitops.aclose(within=left)


async def _work(outside: Outside, stack: contextlib.AsyncExitStack) -> None:
    """Move promotions on, and do what has to be done now and then."""
    guard = outside.guard()
    with contextlib.suppress(Unavailable):
        await guard.take_note()  # before anything moves under these rules
    repositories = {target.repository for target in outside.catalog.targets}
    for work in (
        keep_guarded(guard),
        outside.gitops.keep_fresh(repositories),
        _keep_reconciled(outside.reconciling()),
        keep_noticed(outside.noticing(), outside.board),
        _keep_swept(outside.store, outside.settings),
        _keep_examined(outside.store),
        _keep_tokens(outside.argocd, outside.config.argocd),
        keep_measured(outside.measuring(), DORA),
        *tidings.works(outside.drafting(outside.board), SlackNotices(outside.client), SystemClock(), alarm),
    ):
        await stack.enter_async_context(_running(work))
    hints = Hints(catalog=outside.catalog, store=outside.store, queue=outside.store)
    for server, projects in hints.projects().items():
        events = outside.argocd.hints(server, projects)
        await stack.enter_async_context(_running(hints.listen(server, events)))
    await stack.enter_async_context(_working(outside.worker()))


async def _keep_examined(store: RedisStore) -> None:
    """Look at the store's settings again and again: it may have been away at first, or be changed as it runs."""
    while True:
        await asyncio.sleep(EXAMINE_EVERY)
        with contextlib.suppress(Unavailable):
            for finding in await store.soundness():
                if finding.level == "error":
                    alarm(f"The store is not safe any more: {finding.text}")


async def _keep_tokens(argocd: ArgoCD, servers: Collection[str]) -> None:
    """Twice a day: does a token for Argo CD end soon? Then somebody has to make another one."""
    while True:
        for server in servers:
            with contextlib.suppress(Unavailable, Failed):
                if ends_at := (await argocd.identity(server)).token_expires_at:
                    TOKEN_ENDS.labels(server).set(ends_at.timestamp())
                    if ends_at - datetime.now(UTC) <= TOKEN_WARNED:
                        alarm(f"The token for Argo CD ({server}) ends at {ends_at:%H:%M UTC, %d %b %Y}.")
        await asyncio.sleep(LOOK_AT_TOKENS_EVERY)


async def _keep_reconciled(reconciling: Reconciling) -> None:
    """Compare git with the store now, and then every ten minutes."""
    while True:
        try:
            for sentence in await reconciling.reconcile():
                log.warning("reconciling", what=sentence)
        except Exception:
            # One strange commit must not end it for all the others.
            BUGS.inc()
            log.exception("cannot reconcile")
        await asyncio.sleep(RECONCILE_EVERY)


async def _keep_swept(store: RedisStore, settings: Settings) -> None:
    """Every hour, write down the promotions that ended long ago, and remove them from the store."""

    def write(line: str) -> None:
        settings.archive.parent.mkdir(parents=True, exist_ok=True)
        with settings.archive.open("a", encoding="utf-8") as archive:
            archive.write(f"{line}\n")
            archive.flush()
            os.fsync(archive.fileno())

    while True:
        try:
            if swept := await store.sweep(before_days=settings.keep, write=write, limit=SWEEP_AT_ONCE):
                log.info("swept", promotions=swept, archive=str(settings.archive))
        except (Unavailable, OSError) as error:
            log.warning("cannot sweep", error=str(error))
        await asyncio.sleep(SWEEP_EVERY)


async def _refuse_unsound(outside: Outside) -> None:
    """A store that may throw promotions away is refused at once; one that is away is waited for."""
    try:
        findings = await outside.store.soundness()
    except Unavailable as error:
        log.warning("store away", error=str(error))
        return
    for finding in findings:
        if finding.level == "error":
            raise SettingsError(f"The store cannot be used: {finding.text}")
        if finding.level == "warn":
            log.warning("store", finding=finding.text)


async def _hear(outside: Outside, stack: contextlib.AsyncExitStack) -> SocketMode | None:
    """Open Slack's way in: Socket Mode where there is an app token, else HTTP on the public port."""
    background = Background()
    stack.push_async_callback(background.finish, SHUTDOWN_WITHIN - ANSWERED_WITHIN)
    settings, public = outside.settings, web.Application()
    machines = hooks(
        settings,
        outside.config,
        outside.catalog,
        reporting=outside.reporting(),
        delivering=outside.delivering(),
        board=outside.quick_board,
        clock=SystemClock(),
    )
    public.add_routes(machines)
    if app_token := settings.get("SLACK_APP_TOKEN"):
        if machines:
            await stack.enter_async_context(_site(public, settings.host, settings.port))
        socket = SocketMode(bolt(outside, background), app_token)
        await stack.enter_async_context(_running(socket.run()))
        return socket
    secret = settings.require(
        "SLACK_SIGNING_SECRET", "it proves that a request comes from Slack (or set SLACK_APP_TOKEN)."
    )
    public.router.add_post("/slack/events", slack_events(bolt(outside, background), secret))
    await stack.enter_async_context(_site(public, settings.host, settings.port))
    return None


@contextlib.asynccontextmanager
async def _operations(
    outside: Outside, stopping: asyncio.Event, socket: SocketMode | None, port: int
) -> AsyncIterator[None]:
    """`/healthz`, `/readyz` and `/metrics`, on a port of their own."""

    async def health(_: web.Request) -> web.Response:
        if socket is not None and not socket.is_hearing:
            return web.Response(status=503, text="Slack's socket is silent")
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        if stopping.is_set():
            return web.Response(status=503, text="stopping")
        try:
            await outside.quick_store.ping()
        except Unavailable as error:
            return web.Response(status=503, text=str(error))
        return web.Response(text="ready")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    operations = web.Application()
    operations.router.add_get("/healthz", health)
    operations.router.add_get("/readyz", ready)
    operations.router.add_get("/metrics", metrics)
    async with _site(operations, outside.settings.host, port):
        yield


@contextlib.asynccontextmanager
async def _site(application: web.Application, host: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=ANSWERED_WITHIN)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SettingsError(f"Port {port} cannot be opened: {error.strerror}.") from error
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _working(worker: Worker) -> AsyncIterator[None]:
    async with _running(worker.run()):
        try:
            yield
        finally:
            await worker.stop(SHUTDOWN_WITHIN)


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end(task)
