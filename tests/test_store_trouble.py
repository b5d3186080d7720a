"""When the server is away, mute, loses answers or is set up wrongly, the store says so in our own words."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from store_bench import PROD, Unreliable, approved, new, saved, wait_until

from bot.core.errors import Unavailable
from bot.core.ports import Card, Change
from bot.core.promotion import Phase
from bot.core.rollout import Look
from bot.integrations.soundness import (
    clock_finding,
    durability_finding,
    replicas_finding,
    transport_finding,
    version_finding,
)
from bot.integrations.store import RedisStore, connect

REFUSED = (
    "redis://127.0.0.1:1",
    "redis://localhost:1",
    "unix:///nowhere/server.sock",
)

EVERYTHING: dict[str, Callable[[RedisStore], Awaitable[object]]] = {
    "create": lambda store: store.create(new(), delivery="d", holds=True),
    "delivered": lambda store: store.delivered("d"),
    "settle": lambda store: store.settle("d", said="this"),
    "load": lambda store: store.load("P-1"),
    "events": lambda store: store.events("P-1"),
    "holder": lambda store: store.holder(PROD),
    "followed": lambda store: store.followed(PROD),
    "in_phase": lambda store: store.in_phase(Phase.REQUESTED),
    "history": lambda store: store.history(PROD),
    "card": lambda store: store.card("P-1"),
    "save_card": lambda store: store.save_card("P-1", Card()),
    "look": lambda store: store.look("P-1"),
    "save_look": lambda store: store.save_look("P-1", Look()),
    "claim": lambda store: store.claim(limit=1, lease=timedelta(seconds=1)),
    "renew": lambda store: store.renew(["P-1"], lease=timedelta(seconds=1)),
    "rest": lambda store: store.rest("P-1", edition=1, after=None),
    "wake": lambda store: store.wake("P-1"),
    "wait": lambda store: store.wait(60),
    "ping": lambda store: store.ping(),
    "soundness": lambda store: store.soundness(),
}
WRITES = {"create", "settle", "save_card", "save_look", "claim", "renew", "rest", "wake"}


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RedisStore]:
    async with aclosing(RedisStore(connect(url, quick=True))) as store:
        yield store


@pytest.mark.parametrize("url", REFUSED)
@pytest.mark.parametrize("what", EVERYTHING)
async def test_where_nobody_listens_nothing_was_recorded(url: str, what: str) -> None:
    """No connection, no doubt: the person may be told that nothing was recorded."""
    async with store_at(url) as store:
        with pytest.raises(Unavailable, match="the store is not available: it cannot be reached") as away:
            await EVERYTHING[what](store)
    assert not away.value.maybe_done


@pytest.mark.parametrize("what", ["create", "settle", "load", "wait"])
async def test_a_mute_server_does_not_mute_the_bot(what: str) -> None:
    """Slack gives three seconds; after two tries of 0.7 seconds the person hears that nobody knows."""
    async with Unreliable(None).serving() as url, store_at(url) as store:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="it did not answer in time") as away:
            await EVERYTHING[what](store)
        assert time.monotonic() - started < 2
    assert away.value.maybe_done == (what in WRITES)


@pytest.fixture
def path(redis_url: str) -> str:
    """The socket of an empty embedded server."""
    return redis_url.removeprefix("unix://")


async def test_a_lost_answer_is_asked_for_again_and_counts_once(path: str) -> None:
    """The second try finds what the first one saved, for a request and for a save."""
    unreliable = Unreliable(path)
    async with unreliable.serving() as url, store_at(url) as store:
        first = new()
        unreliable.losing = 1
        assert await store.create(first, delivery="d1", holds=True) == first.id
        unreliable.losing = 1
        await store.save([Change(before=first, after=approved(first))], holds=True)
        assert unreliable.losing == 0
        assert await store.load(first.id) == approved(first)
        assert len(await store.events(first.id)) == 2


async def test_after_two_lost_answers_nobody_knows(path: str) -> None:
    """The request may have been carried out, and here it was: pressing again is safe."""
    async with Unreliable(path, losing=2).serving() as url, store_at(url) as store:
        first = new()
        with pytest.raises(Unavailable, match="the connection broke") as away:
            await store.create(first, delivery="d1", holds=True)
        assert away.value.maybe_done
        assert await store.create(new(), delivery="d1", holds=True) == first.id


async def test_a_server_that_dies_between_two_tries_leaves_the_doubt(path: str) -> None:
    """The second try is refused, but the first one has arrived."""
    async with Unreliable(path, losing=1, dies=True).serving() as url, store_at(url) as store:
        with pytest.raises(Unavailable, match="it cannot be reached") as away:
            await store.create(new(), delivery=None, holds=True)
    assert away.value.maybe_done


async def test_a_restarted_connection_is_not_even_noticed(store: RedisStore, raw: Redis) -> None:
    """A dropped connection costs one more try, nothing else."""
    first = await saved(store, new())
    await raw.client_kill_filter(_type="normal", skipme=True)
    assert await store.load(first.id) == first


async def test_a_server_that_says_no_has_done_nothing(store: RedisStore, raw: Redis) -> None:
    """A full server refuses writes before anything is written; reading goes on."""
    first = await saved(store, new())
    await raw.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable, match="it is full") as away:
            await store.save([Change(before=first, after=approved(first))], holds=True)
        assert not away.value.maybe_done
        assert await store.load(first.id) == first
    finally:
        await raw.config_set("maxmemory", "0")
    await store.save([Change(before=first, after=approved(first))], holds=True)


async def test_a_replica_takes_no_writes(store: RedisStore, raw: Redis) -> None:
    """During a failover the old primary is a replica: nothing is recorded there."""
    first = await saved(store, new())
    await raw.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(Unavailable, match="as a replica does") as away:
            await store.save([Change(before=first, after=approved(first))], holds=True)
        assert not away.value.maybe_done
        assert {finding.name: finding.level for finding in await store.soundness()}["role"] == "error"
    finally:
        await raw.replicaof("NO", "ONE")
    await store.save([Change(before=first, after=approved(first))], holds=True)


async def rewritten(raw: Redis) -> bool:
    return not (await raw.info("persistence"))["aof_rewrite_in_progress"]


@pytest.mark.parametrize(
    ("setting", "value", "sound", "finding", "level"),
    [
        ("appendonly", "no", "yes", "durability", "warn"),
        ("appendfsync", "everysec", "always", "durability", "ok"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "eviction", "error"),
    ],
)
async def test_a_server_that_is_set_up_wrongly_is_found_out(
    store: RedisStore, raw: Redis, setting: str, value: str, sound: str, finding: str, level: str
) -> None:
    """A server that forgets or evicts must be known before it holds promotions."""
    await raw.config_set("maxmemory", "1gb")
    await raw.config_set(setting, value)
    try:
        found = {each.name: each for each in await store.soundness()}
    finally:
        await raw.config_set(setting, sound)
        await raw.config_set("maxmemory", "0")
        await wait_until(lambda: rewritten(raw), "the file is written anew")
    assert found[finding].level == level


async def test_the_embedded_server_is_sound(redis_url: str) -> None:
    """What we start ourselves has nothing to be warned of."""
    async with store_at(redis_url) as store:
        found = await store.soundness()
    assert {each.level for each in found} == {"ok"}
    assert [each.name for each in found] == [
        "version",
        "durability",
        "eviction",
        "role",
        "scripts",
        "clock",
        "transport",
    ]


@asynccontextmanager
async def user(url: str, name: str, *rules: str) -> AsyncIterator[str]:
    """The address with a user who may do only so much."""
    async with Redis.from_url(url) as admin:
        await admin.acl_setuser(
            name,
            enabled=True,
            reset=True,
            passwords=["+word"],
            keys=["{gp}*"],
            channels=["{gp}*"],
            commands=list(rules),
        )
        yield url.replace("://", f"://{name}:word@")
        await admin.acl_deluser(name)


async def test_what_may_not_be_asked_cannot_be_verified(url: str) -> None:
    """Managed servers forbid INFO and CONFIG: that is a warning, and the store works."""
    async with user(url, "bot", "+@all", "-info", "-config") as theirs, store_at(theirs) as store:
        levels = {each.name: each.level for each in await store.soundness()}
        assert await store.create(new(), delivery=None, holds=True)
    verified = ("scripts", "clock", "transport")
    unknown = ("version", "durability", "eviction", "role")
    assert levels == dict.fromkeys(unknown, "warn") | dict.fromkeys(verified, "ok")


async def test_forbidden_scripts_are_found_out(url: str) -> None:
    """Without its scripts the bot can do nothing."""
    async with user(url, "bot", "+ping") as theirs, store_at(theirs) as store:
        assert "error" in {each.level for each in await store.soundness() if each.name == "scripts"}
        with pytest.raises(Unavailable, match="what that user may do"):
            await store.load("P-1")


async def test_a_wrong_password_is_told_and_not_shown(url: str) -> None:
    """Nothing was recorded, and no password stands in the message."""
    async with store_at(url.replace("://", "://bot:wrong@")) as store:
        with pytest.raises(Unavailable, match="refuses the bot's user or password") as away:
            await store.create(new(), delivery=None, holds=True)
    assert not away.value.maybe_done
    assert "wrong" not in str(away.value)


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({}, "warn"),
        ({"redis_version": "6.0.16"}, "error"),
        ({"redis_version": "6.2.19"}, "warn"),
        ({"redis_version": "6.2.20"}, "ok"),
        ({"redis_version": "7.0.15"}, "warn"),
        ({"redis_version": 7.4}, "warn"),
        ({"redis_version": "8.2.2"}, "ok"),
        ({"redis_version": "8.4.0"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.3"}, "warn"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.4"}, "ok"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "ok"),
    ],
)
def test_the_version_is_judged_by_its_own_line(told: dict[str, object], level: str) -> None:
    """Valkey names an old Redis for compatibility; each line was mended in a release of its own."""
    assert version_finding(told).level == level


PASSWORD = {"host": "store.example", "password": "x"}


@pytest.mark.parametrize(
    ("connection", "is_encrypted", "level"),
    [
        ({"path": "/run/store.sock"}, False, "ok"),
        ({"host": "127.0.0.2"}, False, "ok"),
        ({"host": "::1"}, False, "ok"),
        ({"host": "localhost"}, False, "ok"),
        (PASSWORD, True, "ok"),
        ({"host": "store.example", "ssl_certfile": "/run/bot.pem"}, True, "ok"),
        (PASSWORD, False, "error"),
        ({"host": "10.0.0.1", "password": "x"}, False, "error"),
        ({"host": "store.example"}, True, "error"),
        ({"host": "store.example"}, False, "error"),
    ],
)
def test_what_leaves_the_machine_is_encrypted_and_has_a_password(
    connection: dict[str, object], is_encrypted: bool, level: str
) -> None:
    """Else the bot does not start, unless a setting says by name that it may: then it is warned of."""
    found = transport_finding(connection, is_encrypted=is_encrypted)
    allowed = transport_finding(connection, is_encrypted=is_encrypted, allow_plain=True)
    assert found.level == level
    assert allowed.level == ("ok" if level == "ok" else "warn")
    assert level == "ok" or "REDIS_ALLOW_PLAIN=1" in found.text


@pytest.mark.parametrize(("ahead", "level"), [(4.9, "ok"), (5.1, "warn"), (-4.9, "ok"), (-5.1, "warn")])
def test_clocks_that_differ_are_told(ahead: float, level: str) -> None:
    """Expiry is judged by our clock, and the queue by the server's."""
    assert clock_finding(ahead).level == level


def test_a_disk_that_cannot_be_written_is_an_error() -> None:
    """The server would go on and keep nothing."""
    told = {"aof_enabled": 1, "aof_last_write_status": "err"}
    assert durability_finding(told, fsync="always").level == "error"


def test_replicas_that_cannot_be_counted_are_not_vouched_for() -> None:
    """Where INFO is forbidden, nobody knows."""
    assert replicas_finding({}, wanted=1).level == "warn"
