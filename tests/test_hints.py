"""Argo CD's streams as hints: what moves there is looked at at once, and nothing depends on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from builders import Application, target
from redis.asyncio import Redis
from store_bench import approved, committed, committing, due_in, new, saved, superseded
from store_bench import wait_until as until
from structlog.testing import capture_logs
from world import World, wait_until, world_in

from bot import hints
from bot.core.catalog import Catalog, Target
from bot.core.errors import Unavailable
from bot.core.ports import Change
from bot.core.progress import FOR_PEOPLE
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Stage
from bot.hints import Hints
from bot.integrations.store import RedisStore, connect
from bot.playground.argocd.refusals import FORBIDDEN, Denied
from bot.worker import Worker, end

LATER = timedelta(hours=1)
LEASE = timedelta(seconds=15)
PAUSE = 0.2
"""Seconds between two hints in these tests."""


def application(name: str, *, server: str = "main", namespace: str | None = None) -> Application:
    """An application of the project `default`."""
    return Application(server=server, name=name, project="default", namespace=namespace, link=None)


PROD = target(
    "prod",
    applications=(application("manual-app-prod", namespace="argocd"), application("worker", server="east")),
)
STAGE = target("stage", applications=(application("manual-app-stage"),))
CATALOG = Catalog(environments=("stage", "prod"), targets=(STAGE, PROD))
HERE = ("argocd", "manual-app-prod")


class CountingStore(RedisStore):
    """Remembers whom it has woken, and when."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, quick=False))
        self.woken: list[tuple[str, float]] = []

    async def wake(self, id: str) -> None:
        """Wake, and remember."""
        await super().wake(id)
        self.woken.append((id, asyncio.get_running_loop().time()))


@pytest.fixture
async def kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CountingStore]:
    monkeypatch.setattr(hints, "AT_MOST_EVERY", PAUSE)
    made = CountingStore(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True, protocol=2) as client:
        yield client


async def followed(store: RedisStore, where: Target) -> Promotion:
    """A committed promotion of the target that nobody looks at for an hour."""
    promotion = new(where)
    editions = [promotion]
    for step in (approved, committing, committed):
        editions.append(step(editions[-1]))
    promotion = await saved(store, *editions)
    await store.claim(limit=9, lease=LEASE)
    await store.rest(promotion.id, edition=promotion.edition, after=LATER)
    return promotion


def listener(store: RedisStore, catalog: Catalog = CATALOG) -> Hints:
    return Hints(catalog=catalog, store=store, queue=store)


async def told(events: Sequence[tuple[str, str]]) -> AsyncIterator[tuple[str, str]]:
    """A stream that tells of these and ends."""
    for event in events:
        yield event


async def is_due(redis: Redis, promotion: Promotion) -> bool:
    seconds = await due_in(redis, promotion)
    return seconds is not None and seconds <= 0


# --- whom an event wakes


@pytest.mark.parametrize(
    ("server", "event", "wakes"),
    [
        ("main", HERE, "prod"),
        ("east", ("argocd", "worker"), "prod"),
        ("east", ("elsewhere", "worker"), "prod"),
        ("main", ("argocd", "manual-app-stage"), "stage"),
        ("east", HERE, None),
        ("main", ("team-a", "manual-app-prod"), None),
        ("main", ("argocd", "worker"), None),
        ("main", ("argocd", "manual-app-dev"), None),
        ("main", ("argocd", ""), None),
        ("nobody's", HERE, None),
    ],
)
async def test_an_event_wakes_what_is_followed_there_and_nothing_else(
    kept: CountingStore, redis: Redis, server: str, event: tuple[str, str], wakes: str | None
) -> None:
    """Server, namespace and name decide; without a namespace of its own, an application may be in any."""
    promotions = {where.environment: await followed(kept, where) for where in (STAGE, PROD)}
    await listener(kept).listen(server, told([event]))
    due = [name for name, promotion in promotions.items() if await is_due(redis, promotion)]
    assert due == ([wakes] if wakes else [])


async def test_of_several_promotions_the_followed_one_is_woken(kept: CountingStore, redis: Redis) -> None:
    """Neither one that was superseded nor one that waits for approval has anything to see there."""
    older = await followed(kept, PROD)
    await kept.save([Change(before=older, after=superseded(older))], holds=True)
    promotion = await followed(kept, PROD)
    await kept.rest(older.id, edition=older.edition + 1, after=None)
    waiting = await saved(kept, new(PROD))
    await kept.claim(limit=9, lease=LEASE)
    await kept.rest(waiting.id, edition=1, after=LATER)
    await listener(kept).listen("main", told([HERE]))
    assert [id for id, _ in kept.woken] == [promotion.id]
    assert not await is_due(redis, waiting)


async def test_where_nothing_is_followed_nobody_is_woken(kept: CountingStore) -> None:
    """An application that rolls out for reasons of its own is no business of ours."""
    await listener(kept).listen("main", told([HERE, ("argocd", "manual-app-stage")]))
    assert kept.woken == []


def test_every_project_of_every_server_is_listened_to() -> None:
    """Each server is asked for its own projects, each of them once."""
    other = replace(application("other"), project="payments")
    more = replace(PROD, app="other", applications=(other, application("third")))
    found = Hints(catalog=replace(CATALOG, targets=(STAGE, PROD, more)), store=None, queue=None)  # type: ignore[arg-type]
    assert found.projects() == {"main": {"default", "payments"}, "east": {"default"}}


# --- how often


async def test_a_burst_is_one_hint_now_and_one_after_it(kept: CountingStore) -> None:
    """What moves several times a second is looked at once at its beginning, and once more at its end."""
    promotion = await followed(kept, PROD)
    began = asyncio.get_running_loop().time()
    gate = asyncio.Event()

    async def burst() -> AsyncIterator[tuple[str, str]]:
        for _ in range(20):
            yield HERE
        await gate.wait()
        for _ in range(20):
            yield HERE

    listening = asyncio.create_task(listener(kept).listen("main", burst()))
    await wait_until(lambda: kept.woken, "the first hint")
    assert kept.woken[0][1] - began < PAUSE
    gate.set()
    await listening
    assert [id for id, _ in kept.woken] == [promotion.id] * 2
    assert kept.woken[1][1] - kept.woken[0][1] >= PAUSE * 0.9


async def test_whatever_moves_after_a_hint_is_hinted_at(kept: CountingStore, redis: Redis) -> None:
    """One event or three, right after a hint or while the next one waits: a look begins after the last of them."""
    promotion = await followed(kept, PROD)
    last = 0.0

    async def trickle() -> AsyncIterator[tuple[str, str]]:
        nonlocal last
        for number in range(5):
            await wait_until(lambda: len(kept.woken) == number, "the hint before")
            for _ in range(number % 3 + 1):
                last = asyncio.get_running_loop().time()
                yield HERE

    await listener(kept).listen("main", trickle())
    assert (len(kept.woken), kept.woken[-1][1] >= last) == (5, True)
    assert await is_due(redis, promotion)
    assert min(after[1] - before[1] for before, after in pairwise(kept.woken)) >= PAUSE * 0.9


class Hesitant(CountingStore):
    """Takes as long as a test wants to wake somebody."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def wake(self, id: str) -> None:
        """Wake, and answer later."""
        await super().wake(id)
        self.has_begun.set()
        await self.may_end.wait()


async def test_a_change_during_a_hint_is_not_lost(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look that the hint begins may be over before the change: there is another one."""
    monkeypatch.setattr(hints, "AT_MOST_EVERY", PAUSE)
    store = Hesitant(redis_url)
    promotion = await followed(store, PROD)

    async def events() -> AsyncIterator[tuple[str, str]]:
        yield HERE
        await store.has_begun.wait()
        yield HERE
        store.may_end.set()

    await listener(store).listen("main", events())
    assert [id for id, _ in store.woken] == [promotion.id] * 2
    await store.aclose()


async def test_two_targets_do_not_wait_for_each_other(kept: CountingStore) -> None:
    """What is busy in one place hides nothing in another."""
    prod, stage = await followed(kept, PROD), await followed(kept, STAGE)
    began = asyncio.get_running_loop().time()
    await listener(kept).listen("main", told([HERE, HERE, ("argocd", "manual-app-stage")]))
    assert {id for id, _ in kept.woken} == {prod.id, stage.id}
    assert all(at - began < PAUSE for _, at in kept.woken)


# --- what can go wrong


class Fading(CountingStore):
    """Is away as long as a test says so."""

    is_away = False

    async def wake(self, id: str) -> None:
        """Wake, unless it is away."""
        if self.is_away:
            raise Unavailable("the store", "nobody answers")
        await super().wake(id)


async def test_a_store_that_is_away_loses_a_hint_and_nothing_else(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, the stream is heard on, and the next change is hinted at."""
    monkeypatch.setattr(hints, "AT_MOST_EVERY", PAUSE)
    store = Fading(redis_url)
    promotion = await followed(store, PROD)
    gate = asyncio.Event()

    async def events() -> AsyncIterator[tuple[str, str]]:
        store.is_away = True
        yield HERE
        await gate.wait()
        store.is_away = False
        yield HERE

    with capture_logs() as logs:
        listening = asyncio.create_task(listener(store).listen("main", events()))
        await wait_until(lambda: logs, "the loss is logged")
        assert store.woken == []
        gate.set()
        await listening
    assert [each["event"] for each in logs] == ["hint lost"]
    assert [id for id, _ in store.woken] == [promotion.id]
    await store.aclose()


async def test_a_worker_that_holds_it_looks_once_more(kept: CountingStore, redis: Redis) -> None:
    """The change may have come after its look: when it rests, the promotion is due at once, whatever it asked for."""
    promotion = await followed(kept, PROD)
    await kept.wake(promotion.id)
    assert await kept.claim(limit=1, lease=LEASE) == (promotion.id,)
    await listener(kept).listen("main", told([HERE]))
    assert not await is_due(redis, promotion), "two workers at once would tell people twice"
    await kept.rest(promotion.id, edition=promotion.edition, after=LATER)
    assert await is_due(redis, promotion)
    assert await kept.claim(limit=1, lease=LEASE) == (promotion.id,)
    await kept.rest(promotion.id, edition=promotion.edition, after=LATER)
    assert not await is_due(redis, promotion), "one hint is one look"


# --- with the streams of Argo CD


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """Nobody syncs prod but people, so that the bot looks at it once a minute."""
    async with world_in(tmp_path, redis_url, automated=False) as made:
        yield made


@contextlib.asynccontextmanager
async def running(*works: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            await end(task)  # type: ignore[arg-type]


async def unsynced(world: World) -> str:
    """A promotion that waits for somebody to sync it, with all of that shown: it is looked at once a minute."""
    id = await world.committed()
    while (after := await world.advance(id)) != FOR_PEOPLE:
        assert after is not None
        world.passes(after.total_seconds())
    assert await stage_of(world, id) is Stage.UNSYNCED
    return id


async def stage_of(world: World, id: str) -> Stage:
    (progress,) = (await world.store.look(id)).applications
    return progress.stage


async def test_with_streams_a_change_is_seen_at_once(world: World, redis: Redis) -> None:
    """Somebody presses Sync in Argo CD: the next look would be a minute away, and comes within seconds."""
    id = await unsynced(world)
    worker = Worker(engine=world.engine, queue=world.store)
    heard = Hints(catalog=world.parts.catalog, store=world.store, queue=world.store)

    promotion = await world.find(id)

    async def listens() -> bool:
        return world.argocd.streams.open_count == 1

    async def rests() -> bool:
        seconds = await due_in(redis, promotion)
        return seconds is not None and seconds > 2 * LEASE.total_seconds()

    async def is_seen() -> bool:
        world.passes(0.01)
        return await stage_of(world, id) is not Stage.UNSYNCED

    async with running(worker.run(), heard.listen("main", world.cluster.hints("main", ["default"]))):
        await until(listens, "somebody listens")
        await until(rests, "the next look is far away")
        world.argocd.sync("manual-app-prod", revision=promotion.revision)
        await until(is_seen, "the sync is seen")
        await worker.stop(1)


@pytest.mark.parametrize("trouble", ["refused", "silent", "dropping"])
async def test_without_streams_everything_still_works(world: World, trouble: str) -> None:
    """The looks go on by themselves, and find the same end."""
    streams = world.argocd.streams
    if trouble == "refused":
        streams.refuses = Denied(FORBIDDEN, "permission denied")
    streams.is_silent, streams.drops = trouble == "silent", trouble == "dropping"
    heard = Hints(catalog=world.parts.catalog, store=world.store, queue=world.store)
    async with running(heard.listen("main", world.cluster.hints("main", ["default"]))):
        id = await unsynced(world)
        world.argocd.sync("manual-app-prod", revision=(await world.find(id)).revision)
        assert (await world.rest(id)).phase is Phase.LIVE
