"""A whole world in one process: everything is real but Slack, Argo CD and the clock.

dev holds and runs 16, stage 15 and prod 14, so that both promotions are possible from the first moment. Nothing
happens by itself: tests call `advance` and move the clock.
"""

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.app import bolt
from bot.config import build_catalog
from bot.config_models import Config
from bot.core.advance import Engine
from bot.core.announcing import Announcing
from bot.core.catalog import Catalog, Target
from bot.core.drafting import Drafting
from bot.core.errors import Unavailable
from bot.core.following import Following
from bot.core.gatekeeper import Gatekeeper
from bot.core.guarding import RuleChanges
from bot.core.keeper import Keeper
from bot.core.noticing import Noticing
from bot.core.ports import Announcer, Cluster, Directory, Edit, Images, PullRequests, Store, ValuesRepository
from bot.core.promoter import Promoter
from bot.core.promotion import Phase, Promotion, PromotionId
from bot.core.proposing import NoHosts
from bot.core.seals import Sealer
from bot.forge_access import Forges
from bot.git_access import COMMITTER
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.board import RedisBoard
from bot.integrations.calendar import CronCalendar
from bot.integrations.gitops import GitRepository
from bot.integrations.probes import HttpProbes
from bot.integrations.registry import Registry
from bot.integrations.rulebook import RedisRulebook
from bot.integrations.slack import SlackAnnouncer, SlackDirectory, web_client
from bot.integrations.store import RedisStore, connect
from bot.outside import Outside
from bot.playground import repository as sample
from bot.playground.argocd.server import SimulatedApplication, SimulatedArgoCD
from bot.playground.slack.fake import FakeSlack, Reply
from bot.playground.slack.state import Message
from bot.settings import Settings
from bot.source_access import SourceCommits
from bot.watching import Watching
from handlers.listening import Background
from handlers.requests import slack_events

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
CHANNEL = "C0DEPLOYS01"
DANA, AMY, BEN, MEL = "U0DANADEV01", "U0AMYAPPR01", "U0BENAPPR01", "U0MELMEMBR1"
GUS, OLGA, ZED, ROBO = "U0GUSGUEST1", "U0OLGAOUTS1", "U0ZEDLEFT01", "U0ROBOBOT01"
GROUP = "S0RELEASERS"
TEAM = "T0DEMO00001"
ENVIRONMENTS = ("dev", "stage", "prod")
VERSIONS = {"dev": "16", "stage": "15", "prod": "14"}
SIGNING_SECRET, BOT_TOKEN, SEAL_SECRET = (
    "a-signing-secret",
    "xoxb-simulated-world",
    "a-seal-secret-of-32-characters!!",
)
ARGOCD_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwcm9tb3RlLWJvdCJ9.c2lnbmF0dXJl"
ROLLOUT = {"stable_for": "5s", "degraded_grace": "8s", "pick_up_within": "2m", "timeout": "5m"}
PROD_RULES = [{"users": [AMY, BEN], "min": 1}]


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the bot is made of; a test may put something else in the place of one."""

    catalog: Catalog
    store: Store
    values: ValuesRepository
    cluster: Cluster
    images: Images
    directory: Directory
    announcer: Announcer
    sealer: Sealer
    pulls: PullRequests = field(default_factory=NoHosts)


class NeverArrives(GitRepository):
    """Its pushes never leave the house, and nobody hears so."""

    async def commit(self, edit: Edit) -> str:
        """Say that nobody knows."""
        raise Unavailable("the git host", f"{edit.promotion} was not answered.", maybe_done=True)


class World:
    """The bot, what it works on, and the people."""

    def __init__(
        self, folder: Path, redis_url: str, *, prod_rules: Any = None, **prod_application: Any
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        self.alarms: list[str] = []
        self.redis_url = redis_url
        self.repository = sample.create_repository(folder)
        for environment, version in VERSIONS.items():
            if version != "14":
                self.push_by_hand(environment, version)
        self.slack = FakeSlack(signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN)
        populate(self.slack)
        self.argocd = SimulatedArgoCD(
            repository=self.repository,
            token=ARGOCD_TOKEN,
            applications=[
                self.application("dev"),
                self.application("stage"),
                self.application("prod", **prod_application),
            ],
            now=self.clock.now,
        )
        self._prod_rules = prod_rules or PROD_RULES
        self._closing = contextlib.AsyncExitStack()
        self._writers = 0

    def application(self, environment: str, **different: Any) -> SimulatedApplication:
        """Argo CD's application of an environment."""
        return SimulatedApplication(
            name=f"manual-app-{environment}",
            destination_namespace=environment,
            values_file=f"values-{environment}.yaml",
            repo_url=self.repository.as_uri(),
            **different,
        )

    async def open(self) -> None:
        """Start the outside, then connect the bot to it."""
        await self.slack.start()
        self._closing.push_async_callback(self.slack.stop)
        await self.argocd.start(background=False)
        self._closing.push_async_callback(self.stop_argocd)
        client = connect(self.redis_url, quick=False)
        self.store, self.board = RedisStore(client), RedisBoard(client)
        self.rulebook = RedisRulebook(client)
        self._closing.push_async_callback(self.store.aclose)
        self.quick_board = RedisBoard(connect(self.redis_url, quick=True))
        self._closing.push_async_callback(self.quick_board.aclose)
        self.values = self.new_writer()
        self.cluster = ArgoCD(
            servers={"main": Server(url=self.argocd.url, token=ARGOCD_TOKEN)},
            call_limit=timedelta(seconds=5),
        )
        self._closing.push_async_callback(self.cluster.aclose)
        self.images = Registry({}, verify=ssl.create_default_context())
        self._closing.push_async_callback(self.images.aclose)
        self.probes = HttpProbes(token=lambda _: None, verify=ssl.create_default_context())
        self._closing.push_async_callback(self.probes.aclose)
        self.sources = SourceCommits(images=self.images, logs={})
        self._closing.push_async_callback(self.sources.aclose)
        self.client = web_client(BOT_TOKEN, api_url=self.slack.api_url)
        self.directory = SlackDirectory(self.client)
        self.parts = Parts(
            catalog=self.configure(),
            store=self.store,
            values=self.values,
            cluster=self.cluster,
            images=self.images,
            directory=self.directory,
            announcer=SlackAnnouncer(self.client),
            sealer=Sealer(SEAL_SECRET),
        )
        self.engine = self.new_engine()

    async def close(self) -> None:
        """End everything."""
        await self._closing.aclose()

    async def stop_argocd(self) -> None:
        """End whichever Argo CD there is now."""
        await self.argocd.stop()

    def configure(self, **different: Any) -> Catalog:
        """The catalog that `promote.yaml` would give; `different` replaces whole keys of the file."""
        return build_catalog(self.config(**different))

    def config(self, **different: Any) -> Config:
        """What `promote.yaml` would say; `different` replaces whole keys of the file."""
        rollout = {"rollout": ROLLOUT}
        approvals = {"rules": self._prod_rules, "expires": "4h"}
        config = {
            "version": 1,
            "environments": ENVIRONMENTS,
            "slack": {"channel": CHANNEL},
            "repositories": {"gitops": {"url": self.repository.as_uri(), "allow_local": True}},
            "argocd": {"main": {"url": self.argocd.url, "allow_local": True}},
            "defaults": {
                "repository": "gitops",
                "argocd": "main",
                "keys": ["image.tag"],
                "values": "values-{env}.yaml",
                "applications": ["{app}-{env}"],
            },
            "apps": {"manual-app": {"image": "ghcr.io/acme/manual-app"}},
            "policies": {"dev": rollout, "stage": rollout, "prod": rollout | {"approvals": approvals}},
        }
        return Config.model_validate(config | different)

    def new_writer(self) -> GitRepository:
        """A writer with a copy of its own, as another process would have."""
        self._writers += 1
        writer = GitRepository(
            cache=self.folder / f"mirrors-{self._writers}",
            committer=COMMITTER,
            allow_local=frozenset({"gitops"}),
            turns=self.store,
        )
        self._closing.push_async_callback(writer.aclose)
        return writer

    def new_engine(self, **different: Any) -> Engine:
        """An engine of the world's parts, or of `different` ones."""
        parts = replace(self.parts, **different)
        return Engine(
            alarm=self.alarms.append,
            catalog=parts.catalog,
            store=parts.store,
            values=parts.values,
            images=parts.images,
            directory=parts.directory,
            clock=self.clock,
            sealer=parts.sealer,
            drafting=self.new_drafting(**different),
            following=Following(
                store=parts.store,
                values=parts.values,
                cluster=parts.cluster,
                images=parts.images,
                clock=self.clock,
            ),
            announcing=Announcing(store=parts.store, announcer=parts.announcer, clock=self.clock),
            pulls=parts.pulls,
        )

    def new_drafting(self, **different: Any) -> Drafting:
        """What finds out about requests, on the world's parts, or on `different` ones."""
        parts = replace(self.parts, **different)
        watched = Watching(argocd=self.cluster, gitops=self.values, catalog=parts.catalog)
        gatekeeper = Gatekeeper(
            board=self.board,
            calendar=CronCalendar(),
            probes=self.probes,
            watched=watched,
            clock=self.clock,
            sealer=parts.sealer,
        )
        return Drafting(
            catalog=parts.catalog,
            values=parts.values,
            cluster=parts.cluster,
            images=parts.images,
            directory=parts.directory,
            sources=self.sources,
            watched=watched,
            board=self.board,
            gatekeeper=gatekeeper,
            changes=RuleChanges(catalog=parts.catalog, rulebook=self.rulebook, clock=self.clock),
        )

    def new_promoter(self, **different: Any) -> Promoter:
        """The use cases on the world's parts, or on `different` ones."""
        parts = replace(self.parts, **different)
        return Promoter(
            catalog=parts.catalog,
            store=parts.store,
            values=parts.values,
            cluster=parts.cluster,
            images=parts.images,
            directory=parts.directory,
            clock=self.clock,
            sealer=parts.sealer,
            drafting=self.new_drafting(**different),
        )

    def new_noticing(self, **different: Any) -> Noticing:
        """What sees the commits of others, on the world's parts, or on `different` ones."""
        parts = replace(self.parts, **different)
        return Noticing(
            catalog=parts.catalog,
            store=parts.store,
            branches=parts.values,
            board=self.board,
            images=parts.images,
            clock=self.clock,
        )

    @property
    def promoter(self) -> Promoter:
        """The use cases."""
        return self.new_promoter()

    @property
    def keeper(self) -> Keeper:
        """What people can lock, block and report."""
        return Keeper(
            catalog=self.parts.catalog,
            board=self.board,
            directory=self.parts.directory,
            clock=self.clock,
            calendar=CronCalendar(),
            sealer=self.parts.sealer,
            requester_of=self.promoter.requester_of,
            build=self.new_drafting().running,
        )

    def restart(self) -> None:
        """Another process takes over: an engine that remembers nothing and has a copy of its own."""
        self.parts = replace(self.parts, values=self.new_writer(), store=self.new_store())
        self.engine = self.new_engine()

    def new_store(self) -> RedisStore:
        """Another process's connections to the same store."""
        store = RedisStore(connect(self.redis_url, quick=False))
        self._closing.push_async_callback(store.aclose)
        return store

    # --- time

    def passes(self, seconds: float) -> None:
        """Let time pass, also in Argo CD."""
        self.clock.at += timedelta(seconds=seconds)
        self.argocd.tick()

    async def moving(self, work: Awaitable[Any]) -> Any:
        """Do it, and let time pass as long as Argo CD is asked for a new comparison, which takes a while there."""
        task = asyncio.ensure_future(work)
        try:
            await self.until(task.done, "it comes to an end", seconds=20)
        finally:
            task.cancel()
        return task.result()

    async def until(self, holds: Callable[[], object], what: str, *, seconds: float = 10) -> None:
        """Give everything else its turn until it holds, and Argo CD the time for its comparisons."""

        def look() -> object:
            if any(application.refresh for application in self.argocd.known()):
                self.passes(0.1)
            return holds()

        await wait_until(look, what, seconds=seconds)

    async def advance(self, id: str, engine: Engine | None = None) -> timedelta | None:
        """One step; returns when the next is due, None for never."""
        edition, after = await self.moving((engine or self.engine).advance(id))
        assert edition
        return after

    async def advance_until(self, id: str, phase: Phase, *, steps: int = 200) -> Promotion:
        """Step by step, each when it is due, until it is in a phase."""
        for _ in range(steps):
            if (promotion := await self.find(id)).phase is phase:
                return promotion
            assert not promotion.phase.is_final, f"ended as {promotion.phase}: {promotion.ending}"
            after = await self.advance(id)
            assert after is not None
            self.passes(after.total_seconds())
        raise AssertionError(f"still {promotion.phase} after {steps} steps, not {phase}")

    async def rest(self, id: str, engine: Engine | None = None, *, steps: int = 200) -> Promotion:
        """Step by step, each when it is due, until nothing is left to do or to show."""
        for _ in range(steps):
            after = await self.advance(id, engine)
            if after is None:
                return await self.find(id)
            self.passes(after.total_seconds())
        raise AssertionError(f"never rests: {await self.find(id)}")

    async def rest_until(self, since_noon: timedelta) -> None:
        """Step by step, each when it is due, until the clock shows this time."""
        [(promotion, _)] = await self.promoter.pending()
        while self.clock.at < NOON + since_noon:
            after = await self.advance(promotion.id)
            assert after is not None
            self.clock.at = min(self.clock.at + after, NOON + since_noon)
        await self.advance(promotion.id)

    async def show(self, id: str) -> str:
        """What the card says, once it may be edited again."""
        self.passes(3)
        await self.advance(id)
        return await self.shown(id)

    # --- what people do

    async def request(
        self,
        environment: str = "prod",
        version: str | None = None,
        *,
        user: str = DANA,
        reason: str | None = None,
        delivery: str | None = None,
    ) -> PromotionId:
        """Ask for a promotion, as `/promote manual-app` does."""
        request = self.promoter.request(
            app="manual-app",
            environment=environment,
            version=version,
            reason=reason,
            user=user,
            delivery=delivery,
        )
        promotion: Promotion = await self.moving(request)
        return promotion.id

    async def approved(self) -> PromotionId:
        """A promotion to prod that has reached `approved`, with its card posted."""
        id = await self.request()
        await self.advance(id)
        await self.promoter.approve(id, user=AMY)
        await self.advance(id)
        assert (await self.find(id)).phase is Phase.APPROVED
        return id

    async def pushed_in_vain(self, id: str) -> None:
        """A worker writes an approved promotion, its push never arrives, and nobody hears so."""
        writer = NeverArrives(
            cache=self.folder / "in-vain", committer=COMMITTER, allow_local=frozenset({"gitops"})
        )
        try:
            await self.advance(id, self.new_engine(values=writer))
        finally:
            await writer.aclose()
        assert (await self.find(id)).phase is Phase.COMMITTING

    async def committed(self) -> PromotionId:
        """A promotion to prod whose commit is on the branch."""
        id = await self.approved()
        await self.advance(id)
        assert (await self.find(id)).phase is Phase.COMMITTED
        return id

    # --- what is true

    async def find(self, id: str) -> Promotion:
        """The promotion as it stands."""
        promotion = await self.store.load(id)
        assert promotion is not None, f"there is no {id}"
        return promotion

    async def pending(self) -> list[Promotion]:
        """What waits for approval, oldest first."""
        return list(await self.store.in_phase(Phase.REQUESTED))

    def target(self, environment: str = "prod") -> Target:
        """`manual-app` in an environment."""
        return self.parts.catalog.target("manual-app", environment)

    def value(self, environment: str = "prod") -> str:
        """The version that the branch holds."""
        text = sample.read_file(self.repository, f"values-{environment}.yaml")
        return text.partition('tag: "')[2].partition('"')[0]

    def commits(self, id: str | None = None) -> list[sample.Commit]:
        """The commits of one promotion, or of all, newest first."""
        return [
            commit
            for commit in sample.log(self.repository, limit=100)
            if ("Promotion-Id", id) in commit.trailers or (id is None and commit.trailers)
        ]

    def cards(self) -> list[Message]:
        """The messages in the channel, oldest first."""
        return self.slack.messages(CHANNEL)

    async def card(self, id: str) -> Message:
        """The promotion's card as people see it."""
        place = await self.store.card(id)
        found = self.slack.workspace.find(place.channel or "", place.ts or "")
        assert found is not None, "there is no card"
        return found

    async def shown(self, id: str) -> str:
        """Everything that the promotion's card says, with its buttons."""
        card = await self.card(id)
        return f"{card.text}\n{json.dumps(card.blocks, ensure_ascii=False)}"

    async def thread(self, id: str) -> str:
        """What stands in the thread of the promotion's card."""
        card = await self.card(id)
        return "\n".join(message.text for message in self.slack.thread(CHANNEL, card.ts))

    # --- trouble

    def push_by_hand(self, environment: str, version: str) -> str:
        """Somebody puts another version into the values file, and tells nobody; returns the revision."""
        path = f"values-{environment}.yaml"
        text = sample.read_file(self.repository, path)
        return push(self.repository, {path: re.sub('tag: ".*?"', f'tag: "{version}"', text)})

    async def roll_out(self, environment: str, *, seconds: int = 40) -> None:
        """Argo CD notices what was pushed by hand, and does what it does."""
        self.argocd.refresh(f"manual-app-{environment}", "normal")
        for _ in range(seconds * 2):
            self.passes(0.5)

    @contextlib.contextmanager
    def git_host_away(self) -> Iterator[None]:
        """Git hangs up on everybody, as it does on a repository from the future."""
        config = self.repository / "config"
        before = config.read_text()
        config.write_text(before.replace("repositoryformatversion = 0", "repositoryformatversion = 99"))
        try:
            yield
        finally:
            config.write_text(before)

    @contextlib.asynccontextmanager
    async def hearing(self, promoter: Promoter | None = None) -> AsyncIterator[Background]:
        """Serve Slack's requests as the real bot does, with the clock of this world."""
        background = Background()
        outside = WorldOutside(
            settings=Settings(
                environ={"SLACK_SIGNING_SECRET": SIGNING_SECRET, "PROMOTE_SECRET": SEAL_SECRET}
            ),
            config=self.config(),
            catalog=self.parts.catalog,
            store=self.store,
            quick_store=self.store,
            gitops=self.values,
            pulls=Forges({}),
            argocd=self.cluster,
            images=self.images,
            board=self.board,
            quick_board=self.quick_board,
            rulebook=self.rulebook,
            probes=self.probes,
            sources=self.sources,
            client=self.client,
            directory=self.directory,
            use_cases=promoter or self.promoter,
            keeping=self.keeper,
        )
        public = web.Application()
        public.router.add_post("/slack/events", slack_events(bolt(outside, background), SIGNING_SECRET))
        runner = web.AppRunner(public, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.slack.events_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
        try:
            yield background
        finally:
            await runner.cleanup()
            await background.finish(5)

    async def command(self, text: str, *, user: str = DANA, **more: Any) -> Reply:
        """Type `/promote …` in the channel."""
        return await self.slack.command(user, CHANNEL, text, **more)

    async def press(self, id: str, action: str, *, user: str) -> Reply:
        """Press a button of the promotion's card."""
        return await self.slack.click(user, CHANNEL, (await self.card(id)).ts, f"promotion_{action}")

    def told(self, user: str = DANA) -> list[str]:
        """What this person was told privately, oldest first."""
        return [message.text for message in self.slack.ephemerals(user)]

    async def answer(self, user: str = DANA, *, number: int = 1) -> str:
        """The newest private answer, once there are so many."""
        await self.until(lambda: len(self.told(user)) >= number, f"{user} is told something")
        return self.told(user)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldOutside(Outside):
    """The bot's connections, with use cases that follow the world's clock."""

    use_cases: Promoter
    keeping: Keeper

    def promoter(self) -> Promoter:
        """What people can do."""
        return self.use_cases

    def keeper(self) -> Keeper:
        """What people can lock, block and report."""
        return self.keeping


def populate(slack: FakeSlack) -> None:
    """The people and the channel."""
    people: Mapping[str, tuple[str, Any]] = {
        DANA: ("Dana Ortiz", "member"),
        AMY: ("Amy Chen", "member"),
        BEN: ("Ben Ruiz", "member"),
        MEL: ("Mel Roth", "member"),
        GUS: ("Gus Weber", "guest"),
        OLGA: ("Olga Sand", "stranger"),
        ZED: ("Zed Gray", "deactivated"),
        ROBO: ("Robo", "bot"),
    }
    for id, (name, kind) in people.items():
        first = name.split()[0].lower()
        slack.add_user(id, name=first, real_name=name, email=f"{first}@acme.example", kind=kind)
    slack.add_channel(CHANNEL, name="deploys", members=list(people))


def push(
    repository: Path,
    files: Mapping[str, str],
    *,
    message: str = "Change a file by hand",
    who: tuple[str, str] = ("Sam Okafor", "sam@acme.example"),
) -> str:
    """Commit these texts on top of `main`, without a clone; returns the revision."""
    index = repository / "by-hand"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_INDEX_FILE": str(index)}

    def git(*words: str, stdin: str | None = None) -> str:
        command = ["git", "-c", f"user.name={who[0]}", "-c", f"user.email={who[1]}", *words]
        done = subprocess.run(
            command, cwd=repository, env=environment, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("read-tree", "main")
    for path, text in files.items():
        blob = git("hash-object", "-w", "--stdin", stdin=text)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    revision = git("commit-tree", git("write-tree"), "-p", "main", "-m", message)
    git("update-ref", "refs/heads/main", revision)
    index.unlink()
    return revision


async def wait_until(holds: Callable[[], object], what: str, *, seconds: float = 10.0) -> None:
    """Give everything else its turn until it holds; says what never came true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def world_in(folder: Path, redis_url: str, **different: Any) -> AsyncIterator[World]:
    """A world, open."""
    world = World(folder, redis_url, **different)
    try:
        await world.open()
        yield world
    finally:
        await world.close()
