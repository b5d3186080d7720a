"""What was acknowledged is kept: by replicas that confirm it, and after its end until it is written down."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis_servers import Server, Servers, confirmed
from store_bench import DEV, NOON, PROD, approved, new, saved

from bot.core.errors import TargetBusy, Unavailable
from bot.core.ports import Card, Change
from bot.core.promotion import Event, Promotion
from bot.core.rollout import Look
from bot.integrations.store import RedisStore, connect

WEEK = timedelta(days=7)


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of this test alone."""
    with Servers(tmp_path_factory.mktemp("servers")) as made:
        yield made


@asynccontextmanager
async def store_on(server: Server, *, wait_replicas: int = 0) -> AsyncIterator[RedisStore]:
    store = RedisStore(connect(f"redis://{server.address}", quick=True), wait_replicas=wait_replicas)
    try:
        yield store
    finally:
        await store.aclose()


async def test_what_no_replica_has_confirmed_is_not_acknowledged(servers: Servers) -> None:
    """Every way of repeating a change asks for the confirmation again, from whichever connection; then it is kept once."""
    primary, [replica] = servers.primary()
    async with store_on(primary, wait_replicas=1) as store:
        first = await saved(store, new())
        change = Change(before=first, after=approved(first))
        second = new(DEV)
        repeated: list[Callable[[RedisStore], Awaitable[object]]] = [
            lambda store: store.save([change], holds=True),
            lambda store: store.create(second, delivery="d1", holds=False),
            lambda store: store.create(new(DEV), delivery="d1", holds=False),
            lambda store: store.settle("d2", said="this"),
        ]
        replica.pause()
        for write in (*repeated, *repeated):
            async with store_on(primary, wait_replicas=1) as other:
                with pytest.raises(Unavailable, match="only 0 of 1 replicas have confirmed") as unsure:
                    await write(other)
                assert unsure.value.maybe_done
        replica.go_on()
        assert [await write(store) for write in repeated] == [None, second.id, second.id, None]
        assert await store.load(first.id) == change.after
        assert len(await store.events(first.id)) == 2


async def test_what_was_refused_needs_no_confirmation(servers: Servers) -> None:
    """A conflict and a busy target are told as what they are, whatever the replicas do."""
    primary, [replica] = servers.primary()
    async with store_on(primary, wait_replicas=1) as store:
        first = await saved(store, new())
        replica.pause()
        with pytest.raises(TargetBusy, match=f"is taken by {first.id}"):
            await store.create(new(), delivery=None, holds=True)


@pytest.mark.parametrize("wait_replicas", [0, 1])
async def test_after_a_failover_everything_that_was_confirmed_is_there(
    servers: Servers, wait_replicas: int
) -> None:
    """The primary dies behind a link that stands still. Without confirmation acknowledged changes are lost."""
    primary, [replica] = servers.primary()
    made = [new(DEV) for _ in range(200)]
    acknowledged: list[Promotion] = []

    async def ask(store: RedisStore, promotion: Promotion) -> None:
        with suppress(Unavailable):
            await store.create(promotion, delivery=None, holds=False)
            acknowledged.append(promotion)

    async with store_on(primary, wait_replicas=wait_replicas) as store:
        await asyncio.gather(*(ask(store, each) for each in made[:100]))
        assert len(acknowledged) == 100
        replica.pause()
        primary.ask("CLIENT", "KILL", "TYPE", "replica")
        await asyncio.gather(*(ask(store, each) for each in made[100:]))
        primary.kill()
    replica.go_on()
    replica.ask("REPLICAOF", "NO", "ONE")
    async with store_on(replica) as store:
        lost = [each for each in acknowledged if await store.load(each.id) != each]
    assert len(lost) == (0 if wait_replicas else 100)
    assert len(acknowledged) == (100 if wait_replicas else 200)


async def test_a_replica_that_is_missing_is_told_beforehand(servers: Servers) -> None:
    """`check` says what will happen where more confirmations are asked for than there are replicas."""
    primary, _ = servers.primary()
    async with store_on(primary, wait_replicas=1) as enough, store_on(primary, wait_replicas=2) as short:
        levels = [
            {each.name: each.level for each in await store.soundness()}["replicas"]
            for store in (enough, short)
        ]
    assert levels == ["ok", "warn"]
    assert confirmed(primary, by=1)


def ended(promotion: Promotion) -> Promotion:
    return promotion.reject(by="U2", at=NOON, why="no → not today")


async def put_back(raw: Redis, promotion: Promotion, by: timedelta = WEEK * 2) -> None:
    """Let it have entered its phase so much earlier."""
    await raw.zincrby(f"{{gp}}:ph:{promotion.phase}", -by / timedelta(milliseconds=1), promotion.id)


async def resting(store: RedisStore, raw: Redis, promotion: Promotion) -> Promotion:
    """The same, ended long ago, with everything that can stand beside it, and nobody who looks at it."""
    await store.save_card(promotion.id, Card(channel="C1"))
    await store.save_look(promotion.id, Look(waits_for="git"))
    await store.claim(limit=100, lease=WEEK)
    await store.rest(promotion.id, edition=promotion.edition, after=None)
    await put_back(raw, promotion)
    return promotion


async def test_what_ended_long_ago_is_written_down_and_forgotten_whole(store: RedisStore, raw: Redis) -> None:
    """One line each, with record and story; afterwards no key and no index knows it, and the others are untouched."""
    kept = await saved(store, new())
    await store.claim(limit=1, lease=WEEK)
    keys = sorted(await raw.keys())
    lines: list[str] = []
    first = new(DEV)
    gone = await resting(store, raw, await saved(store, first, ended(first), holds=False))
    assert await store.sweep(before_days=WEEK, write=lines.append, limit=10) == 1
    [line] = map(json.loads, lines)
    assert "\n" not in lines[0]
    assert (line["record"]["id"], line["record"]["phase"]) == (gone.id, "rejected")
    assert [(event["what"], event.get("why")) for event in line["events"]] == [
        ("requested", first.reason),
        ("rejected", "no → not today"),
    ]
    assert sorted(await raw.keys()) == keys
    assert await store.load(gone.id) is None
    assert await store.history(PROD) == (kept,)
    assert await store.sweep(before_days=WEEK, write=lines.append, limit=10) == 0
    assert len(lines) == 1


async def test_what_is_young_due_open_holding_or_followed_is_kept(store: RedisStore, raw: Redis) -> None:
    """Nothing goes that somebody may still look at, however long ago it ended; nor does it stand in others' way."""
    written: list[str] = []
    young, due, open_one, holder, followed, old = (new(DEV) for _ in range(6))
    for each in (due, holder, followed, old, young):
        await saved(store, each, ended(each), holds=False)
    for each in (due, holder, followed, old):
        await resting(store, raw, ended(each))
        await raw.zincrby("{gp}:ph:rejected", -1 if each is not old else 0, each.id)
    await saved(store, open_one, holds=False)
    await put_back(raw, open_one)
    await store.wake(due.id)
    await store.claim(limit=100, lease=WEEK)
    await raw.set("{gp}:hold:manual-app/dev", holder.id)
    await raw.set("{gp}:follow:manual-app/dev", followed.id)
    assert await store.sweep(before_days=WEEK, write=written.append, limit=1) == 1
    assert await store.load(old.id) is None
    for each in (young, due, open_one, holder, followed):
        assert await store.load(each.id)


@pytest.mark.parametrize("record", ['{"schema": 99, "phase": "rejected"}', "not JSON"])
async def test_what_cannot_be_read_is_left_alone(store: RedisStore, raw: Redis, record: str) -> None:
    """A newer bot's record is its own business, and a ruined one is for people to look at."""
    first = new(DEV)
    await resting(store, raw, await saved(store, first, ended(first), holds=False))
    await raw.hset(f"{{gp}}:p:{first.id}", "record", record)
    written: list[str] = []
    assert await store.sweep(before_days=WEEK, write=written.append, limit=10) == 0
    assert written == []
    assert await raw.hget(f"{{gp}}:p:{first.id}", "record") == record


async def test_what_cannot_be_written_down_is_not_forgotten(store: RedisStore, raw: Redis) -> None:
    """A full disk costs nothing."""

    def fail(_: str) -> None:
        raise OSError("no space left")

    first = new(DEV)
    await resting(store, raw, await saved(store, first, ended(first), holds=False))
    with pytest.raises(OSError, match="no space"):
        await store.sweep(before_days=WEEK, write=fail, limit=10)
    assert await store.load(first.id)


async def test_sweepers_side_by_side_lose_nothing(store: RedisStore, url: str, raw: Redis) -> None:
    """Each promotion is written once at least before it is gone, and is counted once."""
    made = [new(DEV) for _ in range(12)]
    for each in made:
        await resting(store, raw, await saved(store, each, ended(each), holds=False))
    other = RedisStore(connect(url, quick=False))
    lines: list[str] = []
    try:
        sweeps = (each.sweep(before_days=WEEK, write=lines.append, limit=20) for each in (store, other))
        assert sum(await asyncio.gather(*sweeps)) == 12
    finally:
        await other.aclose()
    assert {json.loads(line)["record"]["id"] for line in lines} == {each.id for each in made}
    assert await raw.keys() == []


async def test_a_limit_is_kept_and_deliveries_are_waited_for(store: RedisStore, raw: Redis) -> None:
    """A sweep takes a bounded time; and nothing goes that a delivery may still ask for."""
    lines: list[str] = []
    for each in (first := new(DEV), second := new(DEV), third := new(DEV)):
        await resting(store, raw, await saved(store, each, ended(each), holds=False))
    assert await store.sweep(before_days=WEEK, write=lines.append, limit=2) == 2
    assert [await store.load(each.id) is None for each in (first, second, third)].count(True) == 2
    with pytest.raises(ValueError, match="kept for 2 days"):
        await store.sweep(before_days=timedelta(hours=47), write=lines.append, limit=1)


async def test_what_older_bots_wrote_is_still_read(store: RedisStore, raw: Redis) -> None:
    """Records with every None, events as objects: they outlive updates, and their story goes on."""
    first = await saved(store, new(DEV), holds=False)
    record = TypeAdapter(Promotion).dump_json(first).decode()
    event = TypeAdapter(Event).dump_json(first.last).decode()
    assert '"approved_at":null' in record
    await raw.hset(f"{{gp}}:p:{first.id}", "record", record)
    await raw.lset(f"{{gp}}:p:{first.id}:e", 0, event)
    assert await store.load(first.id) == first
    await store.save([Change(before=first, after=approved(first))], holds=False)
    assert await store.events(first.id) == (first.last, approved(first).last)
