"""Addresses of every kind; and behind sentinels or in a cluster the store goes on by itself when a primary dies."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.crc import key_slot
from redis_servers import Server, Servers, opened
from store_bench import DEV, approved, new, saved

from bot.core.errors import Unavailable
from bot.core.ports import Change
from bot.core.promotion import Promotion
from bot.integrations import lua
from bot.integrations.redis_address import CANNOT_READ, Client
from bot.integrations.store import DUE, RedisStore, connect

TAKEN_OVER_WITHIN = 20.0
"""Seconds; a sentinel or a cluster that misses its primary after half a second or one takes about three."""


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of this test alone."""
    with Servers(tmp_path_factory.mktemp("servers")) as made:
        yield made


@asynccontextmanager
async def store_at(url: str, *, wait_replicas: int = 0) -> AsyncIterator[RedisStore]:
    store = RedisStore(connect(url, quick=True), wait_replicas=wait_replicas)
    try:
        yield store
    finally:
        await store.aclose()


async def in_the_end(do: Callable[[], Awaitable[object]]) -> None:
    """The store is not available for a while; then it is, without anybody's help."""
    end = time.monotonic() + TAKEN_OVER_WITHIN
    while time.monotonic() < end:
        with suppress(Unavailable):
            await do()
            return
    raise AssertionError("nobody took over")


async def write_until(store: RedisStore, killing: Server) -> list[Promotion]:
    """Promotions that were acknowledged, half of them while the server is killed."""
    acknowledged = []

    async def write(promotion: Promotion) -> None:
        with suppress(Unavailable):
            await store.create(promotion, delivery=None, holds=False)
            acknowledged.append(promotion)

    for number in range(10):
        if number == 5:
            killing.kill()
        await asyncio.gather(*(write(new(DEV)) for _ in range(20)))
    return acknowledged


async def test_a_sentinel_names_the_next_primary(servers: Servers) -> None:
    """It promotes a replica; the store finds that one, and everything that was confirmed is there."""
    primary, _ = servers.primary(replicas=2)
    url = servers.sentinel(primary, replicas=2, down_after=500)
    async with store_at(url, wait_replicas=1) as store:
        kept = await write_until(store, primary)
        assert len(kept) >= 100
        await in_the_end(lambda: saved(store, new(DEV), holds=False))
        for promotion in kept:
            assert await store.load(promotion.id) == promotion
        assert {each.name: each.level for each in await store.soundness()}["role"] == "ok"


async def test_a_cluster_promotes_the_replica_of_our_slot(servers: Servers) -> None:
    """Reads, writes and lists find the new primary, and everything that was confirmed is there."""
    nodes = servers.cluster(timeout=1000)
    primary = owner(nodes)
    servers.replica_of(primary, timeout=1000)
    others = ",".join(node.address for node in nodes)
    async with (
        store_at(f"redis+cluster://{others}", wait_replicas=1) as store,
        store_at(f"redis+cluster://{others}") as reader,
    ):
        kept = await write_until(store, primary)
        assert len(kept) >= 100
        await in_the_end(lambda: saved(reader, new(DEV), holds=False))
        for promotion in kept:
            assert await reader.load(promotion.id) == promotion
        with pytest.raises(Unavailable, match="only 0 of 1 replicas"):
            await store.create(new(DEV), delivery=None, holds=False)


def owner(nodes: list[Server]) -> Server:
    """The node that has our slot, as `Servers.cluster` deals them out."""
    return nodes[slot() // -(-16384 // len(nodes))]


def slot() -> int:
    return key_slot(DUE.encode())


def give_slot(nodes: list[Server], to: Server) -> None:
    """Our slot, empty as it is, belongs to another node now; the clients do not know yet."""
    for node in nodes:
        node.ask("CLUSTER", "SETSLOT", slot(), "NODE", to.ask("CLUSTER", "MYID"))


async def test_a_slot_that_moved_is_followed_and_never_confirmed_by_the_wrong_replica(
    servers: Servers,
) -> None:
    """`WAIT` counts on the server that has the change, not where the change was sent in vain."""
    nodes = servers.cluster()
    with_replica = owner(nodes)
    without = next(node for node in nodes if node is not with_replica)
    servers.replica_of(with_replica, timeout=15_000)
    without.ask("SCRIPT", "LOAD", lua.SAVE)
    url = f"redis+cluster://{nodes[0].address}"
    async with store_at(url, wait_replicas=1) as careful, store_at(url) as other:
        for store in (careful, other):
            await store.ping()
        give_slot(nodes, to=without)
        with pytest.raises(Unavailable, match="only 0 of 1 replicas"):
            await careful.create(new(DEV), delivery=None, holds=False)
        await saved(other, new(DEV), holds=False)


@pytest.fixture(scope="module", params=["sentinel", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store of more than one server, with a replica that can confirm."""
    with Servers(tmp_path_factory.mktemp(request.param)) as servers:
        if request.param == "sentinel":
            primary, _ = servers.primary()
            yield servers.sentinel(primary, replicas=1, down_after=30_000)
        else:
            nodes = servers.cluster()
            servers.replica_of(owner(nodes), timeout=15_000)
            yield f"redis+cluster://{nodes[0].address}"


@pytest.fixture
async def raw(url: str) -> AsyncIterator[Client]:
    """What lies underneath."""
    async with opened(url) as client:
        yield client


@pytest.mark.parametrize("wait_replicas", [0, 1])
async def test_a_server_that_does_not_know_the_scripts_is_taught(
    url: str, raw: Client, wait_replicas: int
) -> None:
    """After a failover or a flush the new server has none of them."""
    async with store_at(url, wait_replicas=wait_replicas) as store:
        await raw.script_flush()
        first = await saved(store, new(DEV), holds=False)
        await raw.script_flush()
        await store.save([Change(before=first, after=approved(first))], holds=False)
        assert await store.load(first.id) == approved(first)


async def test_a_change_wakes_who_waits_elsewhere(url: str) -> None:
    """The word goes round, whichever server the sleeper listens to."""
    async with store_at(url) as sleeper, store_at(url) as other:
        first = await saved(other, new(DEV), holds=False)
        asleep = asyncio.create_task(sleeper.wait(60))
        async with asyncio.timeout(10):
            while not asleep.done():
                await other.wake(first.id)
        await asleep


async def test_many_at_once_on_a_fresh_client_reach_the_one_slot(url: str) -> None:
    """A client that does not know the cluster yet must not send its first commands just anywhere."""
    for _ in range(10):
        async with store_at(url) as store:
            made = [new(DEV) for _ in range(8)]
            told = await asyncio.gather(
                *(store.create(each, delivery=None, holds=False) for each in made), return_exceptions=True
            )
            assert told == [each.id for each in made]


async def test_the_company_is_looked_at_too(url: str, raw: Client) -> None:
    """`check` looks at the one server that has our keys, and at the cluster or the sentinels around it."""
    async with store_at(url, wait_replicas=1) as store:
        found = {each.name: each for each in await store.soundness()}
    company = "cluster" if isinstance(raw, RedisCluster) else "sentinels"
    assert found[company].level == "ok"
    assert found["replicas"].level == "ok"
    assert found["durability"].text.startswith("Writes are not kept on disk")


@pytest.mark.parametrize(
    "scheme", ["redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster", "redis+cluster://127.0.0.1:1"]
)
async def test_where_none_of_them_listens_nothing_was_recorded(scheme: str) -> None:
    """No connection, no doubt."""
    async with store_at(scheme) as store:
        for ask in (
            store.ping(),
            store.create(new(), delivery=None, holds=True),
            store.wait(60),
            store.soundness(),
        ):
            with pytest.raises(Unavailable, match=r"cannot be reached|no sentinel that answers") as away:
                await ask
            assert not away.value.maybe_done


async def test_a_server_alone_is_no_cluster(redis_url: str, servers: Servers) -> None:
    """An address of the wrong kind is told in words."""
    async with store_at(f"redis+cluster://{servers.start().address}") as store:
        with pytest.raises(Unavailable, match="its cluster does not serve"):
            await store.ping()
    assert redis_url


def place(url: str) -> dict[str, object]:
    """What a client for the address is made of."""
    client = connect(url, quick=True)
    assert isinstance(client, Redis)
    found = dict(client.connection_pool.connection_kwargs)
    return {name: found.get(name) for name in ("host", "port", "db", "username", "password", "path")}


def test_an_address_says_where_and_who() -> None:
    """Words are unquoted, and what is missing has its default."""
    assert place("redis://ann:p%2Fw@store:7000/2") == {
        "host": "store", "port": 7000, "db": 2, "username": "ann", "password": "p/w", "path": None,
    }  # fmt: skip
    assert place("redis://store") == {
        "host": "store", "port": 6379, "db": 0, "username": None, "password": None, "path": None,
    }  # fmt: skip
    assert place("unix://:pw@/run/the%20store.sock")["path"] == "/run/the store.sock"


def test_sentinels_have_their_own_users() -> None:
    """User and password are for the servers; encryption is for both."""
    client = connect(
        "rediss+sentinel://ann:pw@one,[::1]:7000/main/3?sentinel_password=other&ssl_cert_reqs=none",
        quick=False,
    )
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert (pool.service_name, pool.is_master) == ("main", True)
    assert issubclass(pool.connection_class, SSLConnection)
    assert [pool.connection_kwargs[name] for name in ("username", "password", "db")] == ["ann", "pw", 3]
    sentinels = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    assert [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in sentinels] == [
        ("one", 26379),
        ("::1", 7000),
    ]
    for each in sentinels:
        assert issubclass(each.connection_class, SSLConnection)
        assert (each.connection_kwargs["username"], each.connection_kwargs["password"]) == (None, "other")
        assert each.connection_kwargs["socket_timeout"] == pool.connection_kwargs["socket_timeout"] == 5


def test_a_cluster_is_asked_where_it_was_named_and_never_read_from_replicas() -> None:
    """The addresses that were given stay known, whatever the cluster calls itself."""
    client = connect("rediss+cluster://ann:pw@one,two:7001?ssl_check_hostname=false", quick=True)
    assert isinstance(client, RedisCluster)
    assert [(each.host, each.port) for each in client.startup_nodes] == [("one", 6379), ("two", 7001)]
    assert not client.read_from_replicas
    assert client.load_balancing_strategy is None
    options = client.connection_kwargs
    assert issubclass(options["connection_class"], SSLConnection)
    assert (options["password"], options["ssl_check_hostname"], options["socket_timeout"]) == (
        "pw",
        False,
        0.7,
    )


@pytest.mark.parametrize(
    "url",
    [
        "", "store", "http://:pw@store", "redis:/store", "redis://:pw#@store", "redis://:p/w@store",
        "redis://:pw@store:port", "redis://:pw@store:70000", "redis://:pw@store/zero", "redis://:pw@store/0/1",
        "redis://:pw@one,two", "redis://:pw@[::1", "redis://:pw@store?socket_timeout=1",
        "redis://:pw@store?ssl_cert_reqs=none", "rediss://:pw@store?ssl_check_hostname=maybe", "unix://:pw@",
        "redis+sentinel://:pw@store", "redis+sentinel://:pw@store/main/x", "redis+cluster://:pw@store/0",
        "redis+proxy://:pw@store", "unix+cluster:///pw", "redis://:pw@store?sentinel_password=x",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    """A typing error in REDIS_URL is found at the start, in one sentence."""
    with pytest.raises(ValueError, match=r"cannot be read: it is redis://") as refused:
        connect(url, quick=True)
    assert str(refused.value) == CANNOT_READ


@given(
    before=st.sampled_from(
        ["redis://u:", "redis+sentinel://:", "rediss+cluster://u:", "unix://:", "http://"]
    ),
    middle=st.text(max_size=5),
    after=st.text(max_size=12),
)
@example(before="redis://u:", middle="/", after="@store")
def test_no_address_is_repeated(before: str, middle: str, after: str) -> None:
    """Whatever cannot be read, nothing of it is shown, in the error or behind it."""
    refused = None
    try:
        connect(f"{before}hunter2{middle}{after}", quick=True)
    except ValueError as error:
        refused = error
    if refused:
        assert str(refused) == CANNOT_READ
        assert refused.__suppress_context__
        assert refused.__cause__ is None
