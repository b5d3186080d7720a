"""The worker on the real store: what is due is claimed, worked on, and put back."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis import Redis
from world import AMY, World, wait_until, world_in

from bot.core.catalog import Target
from bot.core.errors import Unavailable
from bot.core.ports import Announcer, Card
from bot.core.promotion import Phase, Promotion, PromotionId, new_id
from bot.core.rollout import Look
from bot.integrations import embedded
from bot.integrations.slack import SlackAnnouncer
from bot.integrations.store import RedisStore, connect
from bot.worker import SIDE_BY_SIDE, Worker

SHORT = timedelta(seconds=0.4)


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


class SlowAnnouncer(SlackAnnouncer):
    """Posts only when it is let go; counts who waits."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.free = asyncio.Event()
        self.waiting = 0
        self.most = 0

    async def post(self, target: Target, promotion: Promotion, look: Look) -> Card:
        """Wait, then post."""
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await self.free.wait()
        finally:
            self.waiting -= 1
        return await super().post(target, promotion, look)


class BrokenAnnouncer(SlackAnnouncer):
    """An announcer with a bug."""

    async def post(self, *_: Any) -> Card:
        """Break."""
        raise KeyError("post")


@asynccontextmanager
async def working(
    world: World, *, announcer: Announcer | None = None, lease: timedelta = SHORT, queue: Any = None
) -> AsyncIterator[Worker]:
    """A worker at work; it is stopped at the end."""
    store = queue or world.store
    engine = world.new_engine(announcer=announcer or world.parts.announcer, store=store)
    worker = Worker(engine=engine, queue=store, lease=lease)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await world.moving(worker.stop(5))
        await running


async def never(holds: Callable[[], Awaitable[object]], *, seconds: float, what: str) -> None:
    """Look again and again for so long: it must not come true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert not await holds(), what
        await asyncio.sleep(0.01)


async def reaches(world: World, id: str, phase: Phase, *, store: RedisStore | None = None) -> Promotion:
    """The promotion, once it is in a phase."""
    found: list[Promotion] = []

    async def look() -> bool:
        promotion = await (store or world.store).load(id)
        found[:] = [promotion] if promotion else []
        return bool(promotion and promotion.phase is phase)

    deadline = time.monotonic() + 15
    while not await look():
        assert time.monotonic() < deadline, f"waited in vain for {phase}: {found}"
        await asyncio.sleep(0.005)
    return found[0]


async def test_it_takes_a_promotion_from_the_request_to_the_commit(world: World) -> None:
    """Each step makes the next one due: nobody has to push."""
    async with working(world):
        id = await world.request()
        await wait_until(lambda: any(card.blocks for card in world.cards()), "the card is posted")
        await world.promoter.approve(id, user=AMY)
        await reaches(world, id, Phase.COMMITTED)
    assert len(world.commits(id)) == 1


async def test_what_is_done_and_shown_is_due_no_more(world: World) -> None:
    """A promotion at its end costs nothing for ever after."""
    id = await world.request()
    await world.promoter.cancel(id, user=AMY)
    async with working(world):
        await wait_until(lambda: any("Cancelled" in card.text for card in world.cards()), "it is shown")
    with Redis.from_url(world.redis_url) as raw:
        await wait_until(lambda: raw.zcard("{gp}:due") == 0, "nothing is due")


async def test_the_lease_is_renewed_while_it_works(world: World) -> None:
    """However slow an outside system is, nobody else starts on the same promotion."""
    slow = SlowAnnouncer(world.client)
    async with working(world, announcer=slow):
        await world.request()
        await wait_until(lambda: slow.waiting == 1, "it works on it")

        async def claimed() -> object:
            return await world.store.claim(limit=10, lease=SHORT)

        await never(claimed, seconds=4 * SHORT.total_seconds(), what="somebody else could claim it")
        slow.free.set()
    assert (slow.most, len([card for card in world.cards() if card.blocks])) == (1, 1)


async def test_what_a_dead_worker_held_is_taken_over(world: World) -> None:
    """It claimed and died: after the lease another one goes on."""
    id = await world.request("stage")
    claimed_at = time.monotonic()
    assert await world.store.claim(limit=10, lease=timedelta(seconds=1)) == (id,)
    async with working(world):
        await wait_until(world.cards, "another worker shows it")
        waited = time.monotonic() - claimed_at
    assert 1 <= waited < 3


async def test_two_workers_share_the_work(world: World) -> None:
    """Neither takes what the other one has."""
    slow = SlowAnnouncer(world.client)
    ids = [await world.request("dev", str(version)) for version in range(17, 22)]
    async with working(world, announcer=slow), working(world, announcer=slow, queue=world.new_store()):
        await wait_until(lambda: slow.waiting == len(ids), "all are worked on")
        slow.free.set()
        await wait_until(
            lambda: len([card for card in world.cards() if card.blocks]) == len(ids), "all shown"
        )
    assert slow.most == len(ids)


async def test_at_most_a_hundred_are_advanced_side_by_side(world: World) -> None:
    """The rest waits for its turn, and comes to it."""
    first = await world.find(await world.request("dev", "17"))
    for _ in range(SIDE_BY_SIDE + 19):
        await world.store.create(replace(first, id=new_id()), delivery=None, holds=False)
    held = HeldAnnouncer(world.client)
    async with working(world, announcer=held, lease=timedelta(seconds=15)):
        await wait_until(lambda: held.waiting == SIDE_BY_SIDE, "a hundred are worked on")

        async def more() -> bool:
            return held.waiting > SIDE_BY_SIDE

        await never(more, seconds=0.5, what="more than a hundred at once")
        held.free.set()
        await wait_until(lambda: len(held.seen) == SIDE_BY_SIDE + 20, "the rest has its turn")
    assert held.most == SIDE_BY_SIDE


class HeldAnnouncer(SlowAnnouncer):
    """Waits, and then says that Slack is away: a hundred posts would tell nothing more."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.seen: set[str] = set()

    async def post(self, _target: Target, promotion: Promotion, _look: Look) -> Card:
        """Wait, then be away."""
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.free.wait()
        self.waiting -= 1
        self.seen.add(promotion.id)
        raise Unavailable("Slack", "it asks for a pause", retry_after=60)


async def test_a_store_that_was_away_is_waited_for(world: World) -> None:
    """Killed and started again: the worker goes on with what was due, without a restart."""
    first = await world.find(await world.request("dev", "17"))
    server = await asyncio.to_thread(embedded.start, world.folder / "other")
    store = RedisStore(connect(server.url, quick=False))
    async with working(world, queue=store):
        await store.create(first, delivery=None, holds=False)
        await reaches(world, first.id, Phase.COMMITTED, store=store)
        with Redis.from_url(server.url) as raw:
            pid = raw.info()["process_id"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await store.ping()
        again = await asyncio.to_thread(embedded.start, world.folder / "other")
        await store.create(replace(first, id=new_id(), version="18"), delivery=None, holds=False)
        await wait_until(lambda: len([card for card in world.cards() if card.blocks]) == 2, "it works again")
    await store.aclose()
    await server.stop()
    assert await again.stop()


async def test_stopping_waits_for_what_runs_and_takes_nothing_new(world: World) -> None:
    """What was begun is ended; what comes meanwhile is left to the next one."""
    slow = SlowAnnouncer(world.client)
    async with working(world, announcer=slow) as worker:
        await world.request("stage")
        await wait_until(lambda: slow.waiting == 1, "it works on it")
        stopping = asyncio.create_task(worker.stop(10))
        late = await world.request("dev", "17")

        async def ended() -> bool:
            return stopping.done()

        await never(ended, seconds=0.2, what="it does not wait")
        slow.free.set()
        await stopping
    assert [card.blocks != () for card in world.cards()].count(True) == 1
    assert (await world.store.card(late)).ts is None


async def test_stopping_does_not_wait_for_ever(world: World) -> None:
    """The lease heals what could not be ended in time."""
    slow = SlowAnnouncer(world.client)
    async with working(world, announcer=slow) as worker:
        await world.request("stage")
        await wait_until(lambda: slow.waiting == 1, "it works on it")
        began = time.monotonic()
        await worker.stop(0.1)
        assert time.monotonic() - began < 2
        slow.free.set()


class SlowClaims(RedisStore):
    """The real store, whose answer to a claim takes its time on the way."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, quick=False))
        self.claimed, self.free = asyncio.Event(), asyncio.Event()

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Claim, then keep the answer back."""
        found = await super().claim(limit=limit, lease=lease)
        if found:
            self.claimed.set()
            await self.free.wait()
        return found


async def test_what_is_left_at_the_end_is_given_back_at_once(world: World) -> None:
    """Another worker takes it without waiting for the lease of the one that ended."""
    announcer = SlowAnnouncer(world.client)
    async with working(world, announcer=announcer, lease=timedelta(hours=1)) as worker:
        id = await world.request()
        await wait_until(lambda: announcer.waiting, "the card is being posted")
        await worker.stop(0.1)
    assert announcer.waiting == 0
    assert await world.store.claim(limit=10, lease=SHORT) == (id,)


async def test_what_is_claimed_while_it_stops_is_left_to_the_next(world: World) -> None:
    """No work is begun that nobody waits for; it is due again at once, not after the lease."""
    store = SlowClaims(world.redis_url)
    async with working(world, queue=store, lease=timedelta(seconds=60)) as worker:
        id = await world.request("stage")
        await store.claimed.wait()
        await worker.stop(1)
        store.free.set()
    assert await world.store.claim(limit=10, lease=SHORT) == (id,)
    assert world.cards() == []
    await store.aclose()


async def test_a_bug_is_counted_and_ends_what_may_be_ended(world: World) -> None:
    """Three tries, a reference for the people, and the other promotions go on meanwhile."""
    id = await world.approved()
    before = REGISTRY.get_sample_value("promote_bugs_total") or 0
    with Redis.from_url(world.redis_url) as raw:
        raw.delete(f"{{gp}}:p:{id}:card")
    async with working(world, announcer=BrokenAnnouncer(world.client)):
        promotion = await reaches(world, id, Phase.FAILED)
    assert (promotion.ending or "").startswith("Something broke on our side (ref ")
    assert (REGISTRY.get_sample_value("promote_bugs_total") or 0) >= before + 3
    assert world.commits(id) == []


class StumblingStore(RedisStore):
    """The real store, with a bug in its first claims."""

    stumbles = 1

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Break once, then do what it should."""
        if self.stumbles:
            self.stumbles -= 1
            raise KeyError("claim")
        return await super().claim(limit=limit, lease=lease)


async def test_a_bug_in_claiming_does_not_end_the_worker(world: World) -> None:
    """A loop that ends without a word would leave every promotion where it is."""
    store = StumblingStore(connect(world.redis_url, quick=False))
    async with working(world, queue=store):
        await world.request("stage")
        await wait_until(world.cards, "it works all the same")
    await store.aclose()
