"""One target, several applications on several Argo CD servers: what is said of the whole, and what the bot may do."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import TARGET
from world import AMY, ARGOCD_TOKEN, DANA, World

from bot import check
from bot.config_models import Config
from bot.core.catalog import Application
from bot.core.errors import Unavailable
from bot.core.outcome import Outcome
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Progress, Stage
from bot.forge_access import Forges
from bot.integrations import argocd_sync
from bot.integrations.argocd import ArgoCD, Server
from bot.messages import answers
from bot.outside import Outside, argo_cd
from bot.playground.argocd.access import make_token
from bot.playground.argocd.server import SimulatedApplication, SimulatedArgoCD, SimulatedSource
from bot.playground.repository import create_repository
from bot.settings import Settings

INSTALL = Path(__file__).parents[1] / "docs" / "install.md"
NAME = "manual-app-prod"
EU, US, TEAM = f"eu//{NAME}", f"us//{NAME}", f"us/team-a/{NAME}"
OF_TEAM = f"team-a/{NAME}"
ENTRIES = [
    "{app}-{env}",
    {"name": "{app}-{env}", "server": "us"},
    {"name": "{app}-{env}", "server": "us", "namespace": "team-a"},
]
US_TOKEN = make_token("promote-bot-us")


class Regions(World):
    """Prod runs in two regions: `eu` has one application for it, `us` two, one of them in a namespace of its own.

    All three have the same name. With `has_chart_apart`, eu's takes its chart from another repository.
    """

    def __init__(self, folder: Path, redis_url: str, *, has_chart_apart: bool = False) -> None:
        self.has_chart_apart = has_chart_apart
        super().__init__(folder, redis_url)
        prod = replace(self.application("prod"), sources=())
        of_team = replace(prod, namespace="team-a", destination_namespace="prod-of-team-a")
        self.us = SimulatedArgoCD(
            repository=self.repository, token=US_TOKEN, applications=[prod, of_team], now=self.clock.now
        )

    def application(self, environment: str, **different: Any) -> SimulatedApplication:
        if not (self.has_chart_apart and environment == "prod"):
            return super().application(environment, **different)
        chart = SimulatedSource(
            repo_url="https://git.acme.example/team/charts.git",
            repository=create_repository(self.folder / "charts"),
            value_files=(f"$values/values-{environment}.yaml",),
        )
        values = SimulatedSource(repo_url=self.repository.as_uri(), ref="values")
        return super().application(environment, sources=(chart, values), **different)

    async def open(self) -> None:
        await self.us.start(background=False)
        self._closing.push_async_callback(self.us.stop)
        await super().open()
        settings = Settings(environ={"ARGOCD_TOKEN": ARGOCD_TOKEN, "ARGOCD_TOKEN_US": US_TOKEN})
        self.use(argo_cd(settings, self.config()))

    def use(self, cluster: ArgoCD) -> None:
        """Look at Argo CD with this client from now on."""
        self._closing.push_async_callback(cluster.aclose)
        self.cluster = cluster
        self.parts = replace(self.parts, cluster=cluster)
        self.engine = self.new_engine()

    def config(self, **different: Any) -> Config:
        servers = {"eu": {"url": self.argocd.url}, "us": {"url": self.us.url}}
        defaults = {"repository": "gitops", "keys": ["image.tag"], "values": "values-{env}.yaml"}
        prod = {"applications": ENTRIES}
        app = {"image": TARGET.image, "environments": {"dev": {}, "stage": {}, "prod": prod}}
        parts: dict[str, Any] = {
            "argocd": {name: server | {"allow_local": True} for name, server in servers.items()},
            "defaults": defaults | {"argocd": "eu", "applications": ["{app}-{env}"]},
            "apps": {"manual-app": app},
        }
        return super().config(**(parts | different))

    def passes(self, seconds: float) -> None:
        super().passes(seconds)
        self.us.tick()

    async def until(self, holds: Callable[[], object], what: str, *, seconds: float = 10) -> None:
        def look() -> object:
            if any(application.refresh for application in self.us.known()):
                self.passes(0.1)
            return holds()

        await super().until(look, what, seconds=seconds)

    async def stages(self, id: str) -> dict[str, Stage]:
        """How far each application is, by its key."""
        return {key: progress.stage for key, progress in (await self.progress(id)).items()}

    async def progress(self, id: str) -> dict[str, Progress]:
        """What is remembered of each application, by its key."""
        return {each.key: each for each in (await self.store.look(id)).applications}

    async def follow(self, id: str, holds: Callable[[dict[str, Stage]], object]) -> None:
        """Step by step, each when it is due, until something holds of the applications' stages."""
        for _ in range(200):
            after = await self.advance(id)
            if holds(await self.stages(id)):
                return
            assert after is not None, (await self.find(id)).told
            self.passes(after.total_seconds())
        raise AssertionError(f"still {await self.stages(id)}")

    def running(self, version: str) -> list[bool]:
        """Does each of the three really run this version?"""
        places = ((self.argocd, NAME), (self.us, NAME), (self.us, OF_TEAM))
        return [argocd.truth(name).runs(version) for argocd, name in places]


@asynccontextmanager
async def opened(world: Any) -> AsyncIterator[Any]:
    """The world, open."""
    try:
        await world.open()
        yield world
    finally:
        await world.close()


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[Regions]:
    async with opened(Regions(tmp_path, redis_url)) as made:
        yield made


def is_live(*keys: str) -> Callable[[Mapping[str, Stage]], bool]:
    """Do the applications of these keys run the commit?"""
    return lambda stages: all(stages.get(key) is Stage.LIVE for key in keys)


# --- one ending of several


@pytest.mark.parametrize("last", ["eu", "us"])
async def test_it_is_live_when_all_its_applications_are(world: Regions, last: str) -> None:
    """As long as one region has not noticed the commit, the others are live and the promotion is not."""
    late, early = (world.argocd, (US, TEAM)) if last == "eu" else (world.us, (EU,))
    late.deaf = True
    id = await world.committed()
    await world.follow(id, is_live(*early))
    for _ in range(5):
        world.passes(5)
        await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    assert "has not noticed the commit yet" in await world.show(id)
    late.deaf = False
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.outcome) == (Phase.LIVE, Outcome.LIVE)
    assert world.running("15") == [True] * 3
    assert len(world.commits(id)) == 1


async def test_a_chart_of_another_repository_and_an_own_namespace_go_live_with_the_rest(
    tmp_path: Path, redis_url: str
) -> None:
    """Several sources in one region, and apps in any namespace in the other."""
    async with opened(Regions(tmp_path, redis_url, has_chart_apart=True)) as world:
        id = await world.committed()
        promotion = await world.rest(id)
        assert promotion.phase is Phase.LIVE, promotion.ending
        assert world.running("15") == [True] * 3
        [spec] = [each.spec.json() for each in world.argocd.known() if each.spec.name == NAME]
        assert len(spec["sources"]) == 2


async def test_one_that_degrades_fails_it_and_the_others_are_followed_to_their_end(world: Regions) -> None:
    """The headline and the sentence are of the one that failed; the others have lines that say live."""
    world.us.degrade_next_rollout(OF_TEAM)
    world.argocd.deaf = True
    id = await world.committed()
    await world.follow(id, lambda stages: stages[TEAM] is Stage.FAILED and stages[US] is Stage.LIVE)
    assert (await world.find(id)).phase is Phase.COMMITTED
    world.argocd.deaf = False
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.outcome) == (Phase.FAILED, Outcome.DEGRADED)
    assert (promotion.ending or "").startswith(f"{NAME} (us, team-a): degraded")
    assert ";" not in (promotion.ending or "")
    assert await world.stages(id) == {EU: Stage.LIVE, US: Stage.LIVE, TEAM: Stage.FAILED}
    assert world.running("15") == [True, True, False]


async def test_a_server_that_is_away_is_named_and_the_other_one_goes_on(world: Regions) -> None:
    """What it has is not lost, only out of sight; when it is back, all are live."""
    id = await world.committed()
    world.us.down = True
    await world.follow(id, is_live(EU))
    shown = await world.show(id)
    assert f"{world.us.url.removeprefix('http://')} answers 503" in shown
    assert world.argocd.url.removeprefix("http://") + " answers" not in shown
    assert (await world.find(id)).phase is Phase.COMMITTED
    world.us.down = False
    assert (await world.rest(id)).phase is Phase.LIVE
    assert world.running("15") == [True] * 3


async def test_it_is_superseded_when_one_of_them_went_on_to_a_later_version(world: Regions) -> None:
    """One region ran it, and the other never will."""
    world.us.deaf = True
    id = await world.committed()
    await world.follow(id, is_live(EU))
    later = world.push_by_hand("prod", "16")
    world.us.deaf = False
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.outcome) == (Phase.SUPERSEDED, Outcome.SUPERSEDED)
    assert later[:8] in (promotion.ending or "")
    assert await world.stages(id) == {EU: Stage.LIVE, US: Stage.SUPERSEDED, TEAM: Stage.SUPERSEDED}


async def test_a_rollback_brings_all_of_them_back(world: Regions) -> None:
    """One more commit, and it is live when every region runs the old version again."""
    gone = await world.rest(await world.committed())
    promotion = await world.moving(world.promoter.roll_back_from(gone.id, user=DANA))
    await world.advance(promotion.id)
    await world.promoter.approve(promotion.id, user=AMY)
    back: Promotion = await world.rest(promotion.id)
    assert (back.phase, back.version, back.rollback_of) == (Phase.LIVE, "14", gone.id)
    assert world.running("14") == [True] * 3
    assert "ROLLBACK" in await world.shown(back.id)


# --- names


async def test_the_card_tells_applications_of_one_name_apart(world: Regions) -> None:
    """Each line has a name of its own, with a link to its own page; so has the end."""
    world.us.degrade_next_rollout(OF_TEAM)
    id = await world.committed()
    await world.follow(id, is_live(EU, US))
    at_eu, at_us = world.argocd.url, world.us.url
    pages = [
        f"<{at_eu}/applications/{NAME}|{NAME} (eu)>",
        f"<{at_us}/applications/{NAME}|{NAME} (us)>",
        f"<{at_us}/applications/{OF_TEAM}|{NAME} (us, team-a)>",
    ]
    shown = await world.show(id)
    assert [page for page in pages if f"{page}: " not in shown] == []
    promotion = await world.rest(id)
    shown = await world.shown(id)
    assert [page for page in pages if f"{page}: " not in shown] == []
    assert f"{NAME} (us, team-a): degraded" in (promotion.ending or "")


async def test_a_card_that_says_live_names_each_of_its_applications(world: Regions) -> None:
    """Once each, with its own page."""
    id = await world.committed()
    await world.rest(id)
    shown = await world.shown(id)
    named = [
        f"|{NAME} (eu)>",
        f"|{NAME} (us)>",
        f"{OF_TEAM}|{NAME} (us, team-a)>",
    ]
    assert [shown.count(name) for name in named] == [1, 1, 1]


async def test_check_names_them_too_and_what_more_rights_would_be_for(world: Regions) -> None:
    """In the words of the button and of the policy."""
    world.argocd.access.grant("applications, sync, default/*-prod")
    outside = Outside(
        settings=Settings(environ={}),
        config=world.config(),
        catalog=world.parts.catalog,
        store=world.store,
        quick_store=world.store,
        gitops=world.values,
        pulls=Forges({}),
        argocd=world.cluster,
        images=world.images,
        board=world.board,
        quick_board=world.board,
        rulebook=world.rulebook,
        probes=world.probes,
        sources=world.sources,
        client=world.client,
        directory=world.directory,
    )
    lines = {line.what: line for line in await check._target(outside, world.target())}
    eu, team = (lines[f"rights: {NAME} ({name})"] for name in ("eu", "us, team-a"))
    assert f"manual-app/prod: {NAME} (us)" in lines
    assert "has applications get, applications sync; " in eu.says
    assert f"; for Sync now: applications, sync, default/{OF_TEAM}; " in team.says
    assert {eu.level, team.level} == {"note"}


# --- status


async def test_status_shows_each_application_by_a_name_of_its_own(world: Regions) -> None:
    """Live in one place, not in another, out of sight in a third: whoever asks sees which is which."""
    world.us.degrade_next_rollout(OF_TEAM)
    id = await world.committed()
    await world.follow(id, is_live(EU, US))
    told = answers.status(await world.promoter.status(app="manual-app")).splitlines()
    [place] = [line for line in told if "*prod*" in line]
    assert "git holds `15`" in place
    assert id in place
    eu, us, team = told[told.index(place) + 1 :]
    assert eu.endswith(f"`15` is live and healthy in <{world.argocd.url}/applications/{NAME}|{NAME} (eu)>")
    assert us.endswith(f"`15` is live and healthy in <{world.us.url}/applications/{NAME}|{NAME} (us)>")
    assert f"{NAME} (us, team-a) is Synced and " in team
    world.us.down = True
    told = answers.status(await world.promoter.status(app="manual-app")).splitlines()
    away = f"<{world.us.url}/applications/{OF_TEAM}|{NAME} (us, team-a)>: Argo CD is not available"
    assert away in told[-1]


def applications() -> st.SearchStrategy[tuple[Application, ...]]:
    """A few applications, no two of which are the same, many of which share a name."""
    one = st.builds(
        Application,
        server=st.sampled_from(["eu", "us"]),
        name=st.sampled_from(["web", "shop"]),
        project=st.just("default"),
        namespace=st.sampled_from([None, "team-a", "team-b"]),
    )
    return st.lists(one, min_size=1, max_size=12, unique_by=lambda each: each.key).map(tuple)


@given(applications())
def test_no_two_applications_of_a_target_are_called_the_same(found: tuple[Application, ...]) -> None:
    """And one whose name says it all has nothing added to it."""
    target = replace(TARGET, applications=found)
    names = [target.called(each) for each in found]
    assert len(set(names)) == len(names)
    often = Counter(each.name for each in found)
    assert all(name == each.name for each, name in zip(found, names, strict=True) if often[each.name] == 1)
    assert all(name.startswith(each.name) for each, name in zip(found, names, strict=True))


# --- an Argo CD that is not simply there


class Edge:
    """What may stand before an Argo CD: TLS with a certificate of an own authority, and a header that it insists on."""

    def __init__(self, folder: Path, behind: SimulatedArgoCD) -> None:
        self.certificate = folder / "edge.pem"
        self.key = folder / "edge.key"
        self.behind = behind
        self.sent_away = 0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Make the certificate and listen."""
        self._certify()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        application = web.Application()
        application.router.add_get("/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        root = self.behind.url.partition("://")[2].partition("/")[2]
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}/{root}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    def _certify(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an own authority")])
        place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        made = made.serial_number(1).not_valid_before(now - timedelta(days=1))
        made = made.not_valid_after(now + timedelta(days=1)).add_extension(place, critical=False)
        signed = made.sign(key, hashes.SHA256())
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(*form))

    async def _pass_on(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Edge-Client") != "promote-bot":
            self.sent_away += 1
            raise web.HTTPFound("https://login.acme.example/?session=1")
        headers = {"Authorization": request.headers["Authorization"]}
        origin = self.behind.url.partition("://")[2].partition("/")[0]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{origin}{request.path_qs}", headers=headers) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )


class Fenced(World):
    """A world whose Argo CD is served below a path, behind an `Edge`."""

    async def open(self) -> None:
        specs = [self.application(environment) for environment in ("dev", "stage", "prod")]
        self.argocd = SimulatedArgoCD(
            repository=self.repository,
            token=ARGOCD_TOKEN,
            applications=specs,
            rootpath="/argocd",
            now=self.clock.now,
        )
        await super().open()
        self.edge = Edge(self.folder, self.argocd)
        await self.edge.start()
        self._closing.push_async_callback(self.edge.stop)

    def client_of(self, *, headers: Mapping[str, str], authority: Path | None) -> ArgoCD:
        """The client that the bot would make of these settings."""
        server = {"url": self.edge.url, "headers": headers}
        environ = {"ARGOCD_TOKEN": ARGOCD_TOKEN}
        if authority:
            environ["PROMOTE_CA_BUNDLE"] = str(authority)
        made = argo_cd(Settings(environ=environ), self.config(argocd={"main": server}))
        self._closing.push_async_callback(made.aclose)
        return made


async def test_an_argo_cd_below_a_path_with_an_own_authority_behind_a_proxy(
    tmp_path: Path, redis_url: str
) -> None:
    """With all three in the configuration a promotion goes live; without one of them the error says what is wrong."""
    async with opened(Fenced(tmp_path, redis_url)) as world:
        known = {"X-Edge-Client": "promote-bot"}
        [application] = world.target().applications
        stranger = world.client_of(headers=known, authority=None)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.observe(world.target(), application, refresh=False)
        nobody = world.client_of(headers={}, authority=world.edge.certificate)
        with pytest.raises(Unavailable, match=r"no Argo CD API .* sends to login\.acme\.example$"):
            await nobody.observe(world.target(), application, refresh=False)
        assert world.edge.sent_away == 1
        cluster = world.client_of(headers=known, authority=world.edge.certificate)
        world.parts = replace(world.parts, cluster=cluster)
        world.engine = world.new_engine()
        assert (await world.rest(await world.committed())).phase is Phase.LIVE
        assert world.argocd.truth(NAME).runs("15")
        assert world.edge.sent_away == 1


@pytest.mark.parametrize(
    ("days", "level", "says"),
    [
        (10, "warn", "as promote-bot-us; the token expires at "),
        (-1, "error", "the token expired at "),
        (None, "ok", "as promote-bot-us"),
    ],
    ids=["in 10 days", "yesterday", "never"],
)
async def test_the_token_of_each_server_is_looked_at(
    world: Regions, days: int | None, level: str, says: str
) -> None:
    """The one that ends is named by its server; the other one is in order."""
    now = datetime.now(UTC)
    token = make_token("promote-bot", expires_at=now + timedelta(days=days) if days else None)
    world.us.access.add(token, "promote-bot-us", "applications, get, default/*")
    servers = {"eu": (world.argocd.url, ARGOCD_TOKEN), "us": (world.us.url, token)}
    world.use(ArgoCD(servers={name: Server(url=url, token=token) for name, (url, token) in servers.items()}))
    eu, us = [await check._server(world.cluster, name, now) for name in ("eu", "us")]
    assert (eu.what, eu.level) == ("argo cd: eu", "ok")
    assert (us.what, us.level) == ("argo cd: us", level)
    assert says in us.says


# --- rights


def policies() -> list[list[str]]:
    """The rights of each block of the policy that the guide tells people to copy, for the project `default`."""
    blocks = re.findall(
        r"^```\n(p, .*?)```", INSTALL.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    lines = [re.findall(r"^p, role:promote, (.*), allow$", block, flags=re.MULTILINE) for block in blocks]
    return [[right.replace("<project>", "default") for right in rights] for rights in lines]


class Watched(World):
    """A world whose Argo CD knows the bot by an account with the rights that a test gives it, and no other."""

    def __init__(self, folder: Path, redis_url: str, *rights: str, **prod: Any) -> None:
        super().__init__(folder, redis_url, **prod)
        self.token = make_token("promote-bot-of-the-guide")
        self.argocd.access.add(self.token, "promote-bot", *rights)
        self.answers: Counter[str] = Counter()
        self.calls: set[str] = set()

    async def open(self) -> None:
        await super().open()
        servers = {"main": Server(url=self.argocd.url, token=self.token)}
        self.cluster = ArgoCD(servers=servers, count=self._count)
        self._closing.push_async_callback(self.cluster.aclose)
        self.parts = replace(self.parts, cluster=self.cluster)
        self.engine = self.new_engine()

    async def as_time_passes(self, work: Coroutine[Any, Any, Promotion]) -> Promotion:
        """What `work` returns, while Argo CD goes on with what it does."""
        task = asyncio.create_task(work)

        def is_done() -> bool:
            self.passes(0.05)
            return task.done()

        await self.until(is_done, "it comes to an end")
        return task.result()

    def _count(self, _server: str, call: str, answer: str) -> None:
        self.answers[answer] += 1
        self.calls.add(call)


def test_the_guide_asks_for_one_right_and_offers_the_others() -> None:
    """First what everybody needs, then what nobody has to give."""
    assert policies() == [
        ["applications, get, default/*"],
        ["applications, sync, default/*-prod", "logs, get, default/*", "applicationsets, get, default/*"],
    ]


async def test_the_one_right_is_enough_for_a_whole_promotion(tmp_path: Path, redis_url: str) -> None:
    """From the request to live, and back: nothing is refused, nothing is changed, and the stream is heard."""
    async with opened(Watched(tmp_path, redis_url, *policies()[0])) as world:
        heard: set[tuple[str, str]] = set()

        async def listen() -> None:
            async for hint in world.cluster.hints("main", ["default"]):
                heard.add(hint)

        listening = asyncio.create_task(listen())
        gone = await world.rest(await world.committed())
        assert gone.phase is Phase.LIVE, gone.ending
        back = await world.moving(world.promoter.roll_back_from(gone.id, user=DANA))
        await world.advance(back.id)
        await world.promoter.approve(back.id, user=AMY)
        assert (await world.rest(back.id)).phase is Phase.LIVE
        await world.until(lambda: ("argocd", NAME) in heard, "the stream tells of it")
        listening.cancel()
        await asyncio.wait([listening])
        assert world.answers.keys() == {"2xx"}
        assert {request.method for request in world.argocd.requests} == {"GET"}
        looks = {"application", "refresh", "managed-resources", "resource-tree", "resource", "syncwindows"}
        assert world.calls == looks | {"stream"}


@pytest.mark.parametrize("is_granted", [True, False], ids=["with", "without"])
async def test_sync_now_is_offered_where_the_policy_gives_the_right(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, is_granted: bool
) -> None:
    """Prod is synced by hand; without the right the promotion waits all the same, and says for what."""
    monkeypatch.setattr(argocd_sync, "LOOK_EVERY", 0.01)
    follow, more = policies()
    rights = [*follow, *more] if is_granted else follow
    async with opened(Watched(tmp_path, redis_url, *rights, automated=False)) as world:
        id = await world.committed()
        for _ in range(10):
            await world.advance(id)
            world.passes(5)
        shown = await world.shown(id)
        assert "Waiting for Sync" in shown
        assert ("promotion_sync" in shown) is is_granted
        if is_granted:
            await world.as_time_passes(world.promoter.sync(id, user=DANA))
        else:
            world.argocd.sync(NAME)
        promotion = await world.rest(id)
        assert promotion.phase is Phase.LIVE, promotion.ending
        posts = [request for request in world.argocd.requests if request.method == "POST"]
        assert bool(posts) is is_granted
        assert world.answers.keys() == {"2xx"}


@pytest.mark.parametrize(
    ("right", "is_enough"),
    [
        ("default/*", True),
        ("default/team-a/*", True),
        ("default/team-b/*", False),
        (f"default/{NAME}", False),
    ],
)
async def test_an_application_of_a_namespace_is_named_with_it_in_the_policy(
    world: Regions, right: str, is_enough: bool
) -> None:
    """What the guide says of apps in any namespace, and what `check` says of the rights there."""
    token = make_token(right)
    world.us.access.add(token, "promote-bot", f"applications, get, {right}")
    argo = ArgoCD(servers={"us": Server(url=world.us.url, token=token)})
    world.use(argo)
    [of_team] = [each for each in world.target().applications if each.namespace]
    first = (await argo.rights(of_team))[0]
    assert (first.right, first.is_granted) == (f"applications, get, default/{OF_TEAM}", is_enough)
    line = await check._rights(argo, of_team, OF_TEAM)
    assert line.level == ("note" if is_enough else "error")
