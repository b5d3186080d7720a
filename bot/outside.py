"""The composition root: constructors are called here, and clients opened and closed. Nothing clever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.config import build_catalog, load
from bot.config_models import Config
from bot.core.advance import Engine
from bot.core.announcing import Announcing
from bot.core.catalog import Catalog
from bot.core.delivering import Delivering
from bot.core.drafting import Drafting
from bot.core.following import Following
from bot.core.gatekeeper import Gatekeeper
from bot.core.guarding import Guard, RuleChanges
from bot.core.keeper import Keeper
from bot.core.measuring import Measuring
from bot.core.noticing import Noticing
from bot.core.promoter import Promoter
from bot.core.reconciling import Reconciling
from bot.core.reporting import Reporting
from bot.core.seals import Sealer
from bot.forge_access import Forges, forges
from bot.git_access import git_repository
from bot.guard_access import deployed, guard_of
from bot.integrations import embedded
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.board import RedisBoard
from bot.integrations.calendar import CronCalendar
from bot.integrations.gitops import GitRepository
from bot.integrations.probes import HttpProbes
from bot.integrations.registry import Registry
from bot.integrations.rulebook import RedisRulebook
from bot.integrations.slack import SlackAnnouncer, SlackDirectory, SlackNotices, web_client
from bot.integrations.store import RedisStore, connect
from bot.probe_access import http_probes
from bot.registry_access import registry
from bot.settings import Settings, SettingsError
from bot.shared_directory import SharedDirectory
from bot.source_access import SourceCommits
from bot.telemetry import ARGOCD_CALLS, alarm
from bot.watching import Watching
from bot.worker import Worker

A_LITTLE = timedelta(seconds=2)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Aware, in UTC."""
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Every outside system, connected as the settings say."""

    settings: Settings
    config: Config
    catalog: Catalog
    store: RedisStore
    quick_store: RedisStore
    gitops: GitRepository
    pulls: Forges
    argocd: ArgoCD
    images: Registry
    board: RedisBoard
    quick_board: RedisBoard
    rulebook: RedisRulebook
    probes: HttpProbes
    sources: SourceCommits
    client: AsyncWebClient
    directory: SlackDirectory

    def drafting(self, board: RedisBoard) -> Drafting:
        """What finds out about a request before it is made, and before it is written."""
        watching = Watching(argocd=self.argocd, gitops=self.gitops, catalog=self.catalog)
        gatekeeper = Gatekeeper(
            board=board,
            calendar=CronCalendar(),
            probes=self.probes,
            watched=watching,
            clock=SystemClock(),
            sealer=sealer(self.settings),
        )
        return Drafting(
            catalog=self.catalog,
            values=self.gitops,
            cluster=self.argocd,
            images=self.images,
            directory=self.people(board),
            sources=self.sources,
            watched=watching,
            board=board,
            gatekeeper=gatekeeper,
            changes=RuleChanges(catalog=self.catalog, rulebook=self.rulebook, clock=SystemClock()),
        )

    def people(self, board: RedisBoard) -> SharedDirectory:
        """Slack's people; what is read of user groups, all replicas share for thirty seconds."""
        return SharedDirectory(
            directory=self.directory, board=board, sealer=sealer(self.settings), clock=SystemClock()
        )

    def promoter(self) -> Promoter:
        """What people can do."""
        return Promoter(**self._cases())

    def keeper(self) -> Keeper:
        """What people can lock, block and report."""
        return Keeper(
            catalog=self.catalog,
            board=self.quick_board,
            directory=self.people(self.quick_board),
            clock=SystemClock(),
            calendar=CronCalendar(),
            sealer=sealer(self.settings),
            requester_of=self.promoter().requester_of,
            build=self.drafting(self.quick_board).running,
        )

    def delivering(self) -> Delivering:
        """What machines can deliver."""
        return Delivering(**self._cases())

    def _cases(self) -> dict[str, Any]:
        """What the use cases are made on that somebody waits for."""
        return {
            "catalog": self.catalog,
            "store": self.quick_store,
            "values": self.gitops,
            "cluster": self.argocd,
            "images": self.images,
            "directory": self.people(self.quick_board),
            "clock": SystemClock(),
            "sealer": sealer(self.settings),
            "drafting": self.drafting(self.quick_board),
        }

    def reporting(self) -> Reporting:
        """What machines can report."""
        return Reporting(
            catalog=self.catalog,
            board=self.quick_board,
            images=self.images,
            clock=SystemClock(),
            sealer=sealer(self.settings),
        )

    def worker(self) -> Worker:
        """What moves promotions on."""
        lease = timedelta(seconds=self.settings.lease_seconds)
        return Worker(engine=self.engine(), queue=self.store, lease=lease)

    def reconciling(self) -> Reconciling:
        """What compares git with the store."""
        return Reconciling(engine=self.engine())

    def noticing(self) -> Noticing:
        """What sees the commits of others."""
        return Noticing(
            catalog=self.catalog,
            store=self.store,
            branches=self.gitops,
            board=self.board,
            images=self.images,
            clock=SystemClock(),
        )

    def measuring(self) -> Measuring:
        """What counts how often, how fast and how safely targets are deployed to."""
        return Measuring(catalog=self.catalog, values=self.gitops, store=self.store, clock=SystemClock())

    def engine(self) -> Engine:
        """What takes a promotion's next step."""
        clock, lease = SystemClock(), timedelta(seconds=self.settings.lease_seconds)
        announcing = Announcing(
            store=self.store,
            announcer=SlackAnnouncer(self.client),
            clock=clock,
            confirm_after=lease + A_LITTLE,
        )
        return Engine(
            catalog=self.catalog,
            store=self.store,
            values=self.gitops,
            images=self.images,
            directory=self.people(self.board),
            clock=clock,
            sealer=sealer(self.settings),
            drafting=self.drafting(self.board),
            following=Following(
                store=self.store, values=self.gitops, cluster=self.argocd, images=self.images, clock=clock
            ),
            announcing=announcing,
            pulls=self.pulls,
            alarm=alarm,
            policy_revision=deployed(self.settings).revision or None,
        )

    def guard(self) -> Guard:
        """What tells people when other rules are in force."""
        return guard_of(
            self.settings,
            self.catalog,
            rulebook=self.rulebook,
            board=self.board,
            notices=SlackNotices(self.client),
            clock=SystemClock(),
            alarm=alarm,
        )


def sealer(settings: Settings) -> Sealer:
    """The maker of seals; raises `SettingsError` where its key is missing or too short."""
    try:
        secret = settings.require("PROMOTE_SECRET", "approvals are sealed with it.")
        return Sealer(secret, old=settings.get("PROMOTE_SECRET_OLD"))
    except ValueError as error:
        raise SettingsError(str(error)) from error


@contextlib.asynccontextmanager
async def open_outside(settings: Settings, *, may_embed: bool) -> AsyncIterator[Outside]:
    """Connect to everything and disconnect at the end; raises `SettingsError` and `ConfigError` before anything."""
    if not may_embed:
        settings.require(
            "REDIS_URL", "web and worker are two processes, so they need one store between them."
        )
    config = load(settings.config_path)
    catalog = build_catalog(config)
    token = settings.require("SLACK_BOT_TOKEN", "it is the bot's token, xoxb-….")
    async with contextlib.AsyncExitStack() as stack:
        url = settings.get("REDIS_URL") or await _embedded(settings, stack)
        try:
            client = web_client(token, api_url=settings.get("SLACK_API_URL"), tls=settings.tls())
            clients = [connect(url, quick=quick) for quick in (False, True)]
        except ValueError as error:
            raise SettingsError(str(error)) from error
        replicas = settings.wait_replicas
        stores = [
            RedisStore(each, wait_replicas=replicas, allow_plain=settings.allow_plain) for each in clients
        ]
        boards = [RedisBoard(each, wait_replicas=replicas) for each in clients]
        for store in stores:
            stack.push_async_callback(store.aclose)
        gitops = git_repository(settings, config, turns=stores[1])
        stack.push_async_callback(gitops.aclose)
        pulls = forges(settings, config)
        stack.push_async_callback(pulls.aclose)
        argocd = argo_cd(settings, config)
        stack.push_async_callback(argocd.aclose)
        images = registry(settings, config)
        stack.push_async_callback(images.aclose)
        probes = http_probes(settings, catalog)
        stack.push_async_callback(probes.aclose)
        sources = SourceCommits.open(settings, config, images=images)
        stack.push_async_callback(sources.aclose)
        yield Outside(
            settings=settings,
            config=config,
            catalog=catalog,
            store=stores[0],
            quick_store=stores[1],
            gitops=gitops,
            pulls=pulls,
            argocd=argocd,
            images=images,
            board=boards[0],
            quick_board=boards[1],
            rulebook=RedisRulebook(clients[1]),
            probes=probes,
            sources=sources,
            client=client,
            directory=SlackDirectory(client),
        )


async def _embedded(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    server = await asyncio.to_thread(embedded.start, settings.data_dir)
    stack.push_async_callback(server.stop)
    return server.url


def argo_cd(settings: Settings, config: Config) -> ArgoCD:
    """The client of every Argo CD server of the configuration."""
    tls = settings.tls()
    return ArgoCD(
        servers={
            name: Server(
                url=model.url,
                token=settings.named("ARGOCD_TOKEN", name)
                or settings.require("ARGOCD_TOKEN", f"it is the account's token for Argo CD ({name})."),
                verify=tls,
                headers=model.headers,
            )
            for name, model in config.argocd.items()
        },
        count=lambda server, call, status: ARGOCD_CALLS.labels(server, call, status).inc(),
    )
