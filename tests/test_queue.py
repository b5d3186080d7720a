"""The due set is queue and timer: what is due is claimed by one, for a lease, and comes back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from store_bench import DEV, approved, due_in, new, saved, wait_until

from bot.core.ports import Change
from bot.core.promotion import Promotion
from bot.integrations.store import WAKE, RedisStore, connect

LEASE = timedelta(seconds=15)
NEVER_SEEN = timedelta(hours=1)


@pytest.fixture
async def other(url: str) -> AsyncIterator[RedisStore]:
    """Another replica's store."""
    made = RedisStore(connect(url, quick=True))
    yield made
    await made.aclose()


async def listening(raw: Redis) -> bool:
    return bool((await raw.pubsub_numsub(WAKE))[0][1])


async def seconds_until_due(raw: Redis, promotion: Promotion) -> float:
    due = await due_in(raw, promotion)
    assert due is not None
    return due


async def test_what_is_due_is_claimed_once(store: RedisStore, other: RedisStore, raw: Redis) -> None:
    """Of two workers one gets it; it stays in the due set, for the end of the lease."""
    promotion = await saved(store, new())
    claims = await asyncio.gather(*(each.claim(limit=5, lease=LEASE) for each in (store, other)))
    assert sorted(claims) == [(), (promotion.id,)]
    assert 14 < await seconds_until_due(raw, promotion) <= 15


async def test_a_claim_is_bounded_and_takes_the_longest_due_first(store: RedisStore) -> None:
    """A worker takes what it has room for; the rest is left to others."""
    made = [await saved(store, new(DEV), holds=False) for _ in range(3)]
    assert await store.claim(limit=2, lease=LEASE) == (made[0].id, made[1].id)
    assert await store.claim(limit=2, lease=LEASE) == (made[2].id,)


async def test_what_a_crashed_worker_held_is_due_again_after_its_lease(
    store: RedisStore, other: RedisStore
) -> None:
    """Nothing else is needed after a crash."""
    promotion = await saved(store, new())
    assert await store.claim(limit=5, lease=timedelta(0)) == (promotion.id,)
    assert await other.claim(limit=5, lease=LEASE) == (promotion.id,)


async def test_whoever_was_slower_than_its_lease_ends_nobody_elses(
    store: RedisStore, other: RedisStore, raw: Redis
) -> None:
    """Another worker has taken over: it alone says when the promotion is due again, and keeps its lease."""
    promotion = await saved(store, new())
    await store.claim(limit=5, lease=timedelta(0))
    await other.claim(limit=5, lease=LEASE)
    await store.rest(promotion.id, edition=1, after=None)
    await store.renew([promotion.id], lease=timedelta(seconds=1))
    assert 14 < await seconds_until_due(raw, promotion) <= 15
    await other.rest(promotion.id, edition=1, after=None)
    assert await due_in(raw, promotion) is None


async def test_a_worker_renews_its_leases(store: RedisStore, raw: Redis) -> None:
    """Long work keeps its claim; what has left the due set is not brought back."""
    here, gone = new(DEV), new(DEV)
    await saved(store, here, holds=False)
    await saved(store, gone, holds=False)
    await store.claim(limit=5, lease=timedelta(seconds=1))
    await store.rest(gone.id, edition=1, after=None)
    await store.renew([here.id, gone.id], lease=LEASE)
    await store.renew([], lease=LEASE)
    assert 14 < await seconds_until_due(raw, here) <= 15
    assert await due_in(raw, gone) is None


async def test_what_rests_is_due_after_its_time(store: RedisStore, raw: Redis) -> None:
    """The due set is the timer, too: no other clock is asked than the server's."""
    promotion = await saved(store, new())
    await store.rest(promotion.id, edition=1, after=timedelta(milliseconds=2500))
    assert 2 < await seconds_until_due(raw, promotion) <= 2.5
    assert await store.claim(limit=5, lease=LEASE) == ()


async def test_a_save_during_a_lease_waits_for_the_one_who_works(store: RedisStore, raw: Redis) -> None:
    """A second worker beside the first would tell people twice; when the first rests, it is due at once."""
    promotion = await saved(store, new())
    assert await store.claim(limit=1, lease=LEASE) == (promotion.id,)
    await store.save([Change(before=promotion, after=approved(promotion))], holds=True)
    assert 14 < await seconds_until_due(raw, promotion) <= 15
    await store.rest(promotion.id, edition=promotion.edition, after=timedelta(hours=1))
    assert await seconds_until_due(raw, promotion) <= 0
    assert await raw.hlen("{gp}:leases") == 0


async def test_a_save_after_a_lease_has_run_out_is_due_at_once(store: RedisStore, raw: Redis) -> None:
    """A worker that died holds nothing up for longer than its lease."""
    promotion = await saved(store, new())
    assert await store.claim(limit=1, lease=timedelta(milliseconds=1)) == (promotion.id,)

    async def ran_out() -> bool:
        return await seconds_until_due(raw, promotion) <= 0

    await wait_until(ran_out, "the lease ran out")
    await store.save([Change(before=promotion, after=approved(promotion))], holds=True)
    assert await seconds_until_due(raw, promotion) <= 0


async def test_what_is_done_leaves_the_due_set(store: RedisStore, raw: Redis) -> None:
    """Resting for ever is leaving."""
    promotion = await saved(store, new())
    await store.rest(promotion.id, edition=1, after=None)
    assert await due_in(raw, promotion) is None


@pytest.mark.parametrize("after", [None, NEVER_SEEN], ids=["for ever", "for an hour"])
async def test_what_has_moved_on_never_rests(
    store: RedisStore, other: RedisStore, raw: Redis, after: timedelta | None
) -> None:
    """An approval that came while the worker was at work must be seen at once, not after the worker's rest."""
    first = await saved(store, new())
    await store.claim(limit=5, lease=LEASE)
    await other.save([Change(before=first, after=approved(first))], holds=True)
    await store.rest(first.id, edition=1, after=after)
    assert await seconds_until_due(raw, first) <= 0
    await store.rest(first.id, edition=2, after=NEVER_SEEN)
    assert await seconds_until_due(raw, first) > 3000


async def test_what_does_not_exist_is_never_due(store: RedisStore, raw: Redis) -> None:
    """Ids come from buttons of old messages, too."""
    unknown = new()
    await store.wake(unknown.id)
    assert await due_in(raw, unknown) is None
    await raw.zadd("{gp}:due", {unknown.id: 0})
    await store.rest(unknown.id, edition=1, after=LEASE)
    assert await due_in(raw, unknown) is None


async def test_a_wake_makes_it_due_now(store: RedisStore, raw: Redis) -> None:
    """Whatever its rest."""
    promotion = await saved(store, new())
    await store.rest(promotion.id, edition=1, after=None)
    await store.wake(promotion.id)
    assert await seconds_until_due(raw, promotion) <= 0


async def test_a_wait_ends_with_its_time(store: RedisStore) -> None:
    """The look every half second is the net under lost messages."""
    started = asyncio.get_running_loop().time()
    await store.wait(0.05)
    await store.wait(0.05)
    assert 0.1 <= asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize("by", ["request", "save", "wake", "rest"])
async def test_a_waiter_is_woken(store: RedisStore, other: RedisStore, raw: Redis, by: str) -> None:
    """Whatever makes a promotion due wakes sleeping workers; five hundred milliseconds a step would be felt."""
    first = await saved(store, new())
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiter = group.create_task(store.wait(60))
        await wait_until(lambda: listening(raw), "the waiter listens")
        assert not waiter.done()
        if by == "request":
            await other.create(new(DEV), delivery=None, holds=False)
        elif by == "save":
            await other.save([Change(before=first, after=approved(first))], holds=True)
        elif by == "wake":
            await other.wake(first.id)
        else:
            await other.rest(first.id, edition=0, after=None)


async def test_what_came_between_two_waits_is_heard_once(store: RedisStore, other: RedisStore) -> None:
    """A worker that was busy does not sleep over a word, and hardly wakes again for the other ninety-nine."""
    promotion = await saved(store, new())
    await store.wait(0.01)
    for _ in range(100):
        await other.wake(promotion.id)
    waits = 0
    started = ended = asyncio.get_running_loop().time()
    while ended - started < 0.05:
        started = asyncio.get_running_loop().time()
        await store.wait(0.06)
        ended = asyncio.get_running_loop().time()
        waits += 1
    assert 2 <= waits < 20


async def test_a_waiter_survives_a_broken_connection(
    store: RedisStore, other: RedisStore, raw: Redis
) -> None:
    """It listens again on a new connection, and leaves no old one behind."""
    promotion = await saved(store, new())
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(store.wait(60))
        await wait_until(lambda: listening(raw), "the waiter listens")
        await raw.client_kill_filter(_type="pubsub")
        await wait_until(lambda: listening(raw), "the waiter listens again")
        await other.wake(promotion.id)
    assert len([each for each in await raw.client_list() if each["sub"] != "0"]) == 1


async def test_a_cancelled_waiter_leaves_the_store_usable(
    store: RedisStore, other: RedisStore, raw: Redis
) -> None:
    """Shutting down cancels whoever sleeps."""
    promotion = await saved(store, new())
    waiter = asyncio.create_task(store.wait(60))
    await wait_until(lambda: listening(raw), "the waiter listens")
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(store.wait(60))
        await wait_until(lambda: listening(raw), "the next waiter listens")
        await other.wake(promotion.id)


async def test_a_closed_store_leaves_no_connection(url: str, raw: Redis) -> None:
    """Neither the commands' connections nor the waiter's."""
    before = len(await raw.client_list())
    store = RedisStore(connect(url, quick=False))
    await asyncio.gather(store.wait(0.01), *(store.ping() for _ in range(10)))
    assert len(await raw.client_list()) > before
    await store.aclose()

    async def closed() -> bool:
        return len(await raw.client_list()) == before

    await wait_until(closed, "every connection is closed")
