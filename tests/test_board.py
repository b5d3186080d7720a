"""The board on a real server: locks that hold, verdicts that stay apart, and what is told to one caller alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from conftest import empty, require
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis_servers import Servers, opened
from store_bench import NOON, PROD, Unreliable

from bot.core import gates
from bot.core.board import BadVersion, Lock, Report, Scope, Soaked, Wish
from bot.core.catalog import Image
from bot.core.errors import Unavailable
from bot.core.seals import Sealer
from bot.integrations import board as module
from bot.integrations import embedded
from bot.integrations.board import RedisBoard
from bot.integrations.redis_address import Client, connect

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OURS = Scope(app="manual-app", environment="prod")
LOCK = Lock(scope=OURS, by="U1", reason="INC-42", at=NOON)
BAD = BadVersion(app="manual-app", version="15", by="U1", reason="it eats orders", at=NOON)
BUILD = Image(version="15", digest="sha256:" + "a" * 64)
OTHER_BUILD = Image(version="15", digest="sha256:" + "b" * 64)
REPORT = Report(
    app="manual-app", environment="stage", image=BUILD, check="e2e", passed=True, by="hook:ci", at=NOON
)
SOAKED = Soaked(total=HOUR, seen_at=NOON, was_healthy=True)
WISH = Wish(app="manual-app", environment="prod", version="15", user="U1")
ON_ONE_SERVER = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session", params=["embedded", "debian", "cluster"])
def url_of_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """On either server, and in a cluster."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "cluster":
        with Servers(folder) as servers:
            yield f"redis+cluster://{servers.cluster()[0].address}"
        return
    binary = require("redis-server", "redis-server") if request.param == "debian" else None
    server = embedded.start(folder, binary=binary)
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
async def raw(url_of_server: str) -> AsyncIterator[Client]:
    """The empty server as it is, for looking underneath."""
    async with opened(url_of_server) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def board(url_of_server: str, raw: Client) -> AsyncIterator[RedisBoard]:  # noqa: ARG001 - it empties the server
    async with aclosing(board_at(url_of_server)) as made:
        yield made


def board_at(url: str, *, wait_replicas: int = 0) -> RedisBoard:
    return RedisBoard(connect(url, quick=False), wait_replicas=wait_replicas)


def reports_of(board: RedisBoard) -> Awaitable[tuple[Report, ...]]:
    """The verdicts of the version that the examples are about."""
    return board.reports("manual-app", "stage", "15")


# --- locks and bad versions


SCOPES = st.sampled_from(
    [
        Scope(),
        Scope(environment="prod"),
        Scope(app="prod"),
        Scope(app="manual-app"),
        OURS,
        Scope(app="manual-app/prod"),
    ]
)
UNTIL = st.sampled_from([None, HOUR, -HOUR, -2 * DAY])
STEPS = st.lists(st.tuples(SCOPES, st.just("take away") | UNTIL), max_size=12)


@ON_ONE_SERVER
@given(steps=STEPS)
async def test_a_lock_counts_from_when_it_is_put_up_until_it_is_over_or_taken_away(
    redis_url: str, steps: list[tuple[Scope, Any]]
) -> None:
    """Each scope has one lock of its own; what is over may be forgotten after a day, and nothing else ever is."""
    empty(redis_url)
    expected: dict[Scope, Lock] = {}
    async with aclosing(board_at(redis_url)) as board:
        for number, (scope, step) in enumerate(steps):
            now = datetime.now(UTC)
            if step == "take away":
                taken, wanted = await board.unlock(scope), expected.pop(scope, None)
                assert taken == wanted or (taken is None and is_long_over(wanted, now))
            else:
                until = None if step is None else now + step
                expected[scope] = Lock(scope=scope, by="U1", reason=f"reason {number}", at=now, until=until)
                await board.lock(expected[scope])
            found = {lock.scope: lock for lock in await board.locks()}
            assert found.items() <= expected.items()
            assert all(is_long_over(expected[gone], now) for gone in expected.keys() - found.keys())
            locked = any(each.scope.covers(PROD) and each.holds_at(now) for each in expected.values())
            assert gates.locks(PROD, found.values(), now=now).is_open is not locked


def is_long_over(lock: Lock | None, now: datetime) -> bool:
    """May it be forgotten?"""
    return lock is not None and lock.until is not None and lock.until < now - DAY


async def test_locks_that_are_long_over_do_not_pile_up(board: RedisBoard, raw: Client) -> None:
    """Scopes come and go with the configuration; the next lock takes along what was over a day before."""
    now = datetime.now(UTC)
    for number in range(5):
        past = Scope(app=f"app-{number}")
        await board.lock(replace(LOCK, scope=past, until=now - 2 * DAY))
    just_over = replace(LOCK, scope=Scope(app="new"), until=now - HOUR)
    await board.lock(just_over)
    await board.lock(LOCK)
    assert set(await board.locks()) == {just_over, LOCK}
    assert await raw.hlen("{gp}:locks") == 2


async def test_one_that_cannot_be_read_survives_the_cleaning(board: RedisBoard, raw: Client) -> None:
    """It counts as locked, so it is not swept away by putting up another one."""
    await raw.hset("{gp}:locks", "strange", "what is this")
    await board.lock(LOCK)
    with pytest.raises(Unavailable):
        await board.locks()


async def test_a_lock_that_cannot_be_read_goes_by_another_one_in_its_place(
    board: RedisBoard, raw: Client
) -> None:
    """Nobody takes away what nobody can read, but people have a way out."""
    await board.lock(LOCK)
    [field] = await raw.hkeys("{gp}:locks")
    await raw.hset("{gp}:locks", field, "what is this")
    with pytest.raises(Unavailable):
        await board.unlock(OURS)
    assert await raw.hlen("{gp}:locks") == 1
    await board.lock(LOCK)
    assert await board.unlock(OURS) == LOCK
    assert await board.locks() == ()


async def test_bad_versions_are_each_apps_own(board: RedisBoard) -> None:
    """Blocked is one version of one app; it is put up once, and taken away with the words it had."""
    others = (replace(BAD, app="other"), replace(BAD, version="16"))
    for bad in (BAD, replace(BAD, reason="twice as bad"), *others):
        await board.block(bad)
    assert set(await board.bad_versions("manual-app")) == {replace(BAD, reason="twice as bad"), others[1]}
    assert await board.unblock("manual-app", "15") == replace(BAD, reason="twice as bad")
    assert await board.unblock("manual-app", "15") is None
    assert await board.bad_versions("manual-app") == (others[1],)
    assert await board.bad_versions("other") == (others[0],)


# --- verdicts


async def test_a_verdict_for_another_build_stands_beside_this_one(board: RedisBoard) -> None:
    """The same check failed for a tag that was pushed anew: this build's verdict is still there, and the other's too."""
    failed = replace(REPORT, image=OTHER_BUILD, passed=False, at=NOON + HOUR)
    other_check = replace(REPORT, check="load")
    for report in (REPORT, failed, other_check):
        assert await board.report(report)
    assert set(await reports_of(board)) == {REPORT, failed, other_check}
    assert await board.reports("manual-app", "dev", "15") == ()
    assert await board.reports("manual-app", "stage", "16") == ()


@ON_ONE_SERVER
@given(
    told=st.lists(
        st.tuples(
            st.sampled_from(["e2e", "load"]),
            st.sampled_from([BUILD, OTHER_BUILD, Image(version="15")]),
            st.integers(0, 4),
            st.booleans(),
        ),
        max_size=10,
    )
)
async def test_the_newest_verdict_of_a_check_and_build_stays(
    redis_url: str, told: list[tuple[str, Image, int, bool]]
) -> None:
    """In whatever order they arrive; what is not newer changes nothing and is told so."""
    empty(redis_url)
    expected: dict[tuple[str, Image], Report] = {}
    async with aclosing(board_at(redis_url)) as board:
        for check, image, minute, passed in told:
            at = NOON + timedelta(microseconds=minute)
            report = replace(REPORT, check=check, image=image, passed=passed, at=at)
            kept = expected.get((check, image))
            is_newer = kept is None or kept.at < at
            assert await board.report(report) is is_newer
            if is_newer:
                expected[check, image] = report
        assert set(await reports_of(board)) == set(expected.values())


async def test_the_same_delivery_changes_nothing(board: RedisBoard, raw: Client) -> None:
    """A tool that sends its call again, also with other words, is told that it was kept before, for 48 hours."""
    failed = replace(REPORT, passed=False, at=NOON + HOUR)
    assert await board.report(REPORT, delivery="d1")
    assert not await board.report(failed, delivery="d1")
    assert not await board.report(replace(failed, check="load"), delivery="d1")
    assert await reports_of(board) == (REPORT,)
    [key] = [key for key in await keys_of(raw) if "delivery" in key]
    assert timedelta(hours=47, minutes=59) < await left(raw, key) <= timedelta(hours=48)
    assert await board.report(failed, delivery="d2")
    assert await reports_of(board) == (failed,)


async def test_a_delivery_is_its_reporters_own_word(board: RedisBoard) -> None:
    """Two tools count their calls from one; neither keeps the other's verdict out."""
    assert await board.report(REPORT, delivery="1")
    failed = replace(REPORT, by="hook:other", check="load", passed=False)
    assert await board.report(failed, delivery="1")
    assert set(await reports_of(board)) == {REPORT, failed}


async def test_a_version_has_so_many_verdicts_at_most(
    board: RedisBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag that is pushed anew every hour does not fill the store: the oldest verdicts go."""
    monkeypatch.setattr(module, "MOST_REPORTS", 3)
    told = [
        replace(REPORT, image=Image(version="15", digest=f"sha256:{number:064x}"), at=NOON + number * MINUTE)
        for number in (4, 0, 3, 1, 2)
    ]
    for report in told:
        await board.report(report)
    assert {report.at for report in await reports_of(board)} == {NOON + n * MINUTE for n in (2, 3, 4)}


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=3))])
TIMES = st.datetimes(timezones=ZONES)
SOAKS = st.builds(
    Soaked,
    total=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)),
    seen_at=TIMES,
    was_healthy=st.booleans(),
)


@ON_ONE_SERVER
@given(
    lock=st.builds(Lock, at=TIMES, until=st.none() | TIMES),
    bad=st.builds(BadVersion, at=TIMES),
    report=st.builds(Report, at=TIMES),
    soaked=SOAKS,
    wish=...,
    members=st.lists(st.text()),
)
async def test_whatever_was_kept_comes_back_equal(
    redis_url: str,
    lock: Lock,
    bad: BadVersion,
    report: Report,
    soaked: Soaked,
    wish: Wish,
    members: list[str],
) -> None:
    """Any text, any time to the microsecond; a verdict's seal is still genuine, as it is made over the words."""
    empty(redis_url)
    sealer = Sealer("a-secret-of-the-tests")
    report = sealer.sealed_report(report)
    place = (report.app, report.environment)
    async with aclosing(board_at(redis_url)) as board:
        await board.lock(lock)
        await board.block(bad)
        await board.report(report)
        await board.soak(*place, report.image, soaked)
        await board.wish(wish)
        await board.keep_group("S1", members)
        assert await board.locks() == (lock,)
        assert await board.bad_versions(bad.app) == (bad,)
        [kept] = await board.reports(*place, report.image.version)
        assert kept == report
        assert sealer.report_is_genuine(kept)
        assert await board.soaked(*place, report.image) == soaked
        assert await board.wishes() == (wish,)
        assert await board.group("S1") == frozenset(members)


async def test_soak_is_of_one_build_in_one_place(board: RedisBoard) -> None:
    """Another digest, version, environment or app has not run for a second; the last look counts."""
    await board.soak("manual-app", "stage", BUILD, SOAKED)
    await board.soak("manual-app", "stage", BUILD, replace(SOAKED, total=2 * HOUR))
    assert await board.soaked("manual-app", "stage", BUILD) == replace(SOAKED, total=2 * HOUR)
    for place in (
        ("manual-app", "stage", OTHER_BUILD),
        ("manual-app", "stage", Image(version="15")),
        ("manual-app", "dev", BUILD),
        ("other", "stage", BUILD),
    ):
        assert await board.soaked(*place) is None


# --- wishes, and what is done only so often


async def test_a_wish_is_granted_once(board: RedisBoard) -> None:
    """However often somebody wishes it, and however many are about to tell it."""
    other = replace(WISH, user="U2")
    for wish in (WISH, WISH, other):
        await board.wish(wish)
    assert set(await board.wishes()) == {WISH, other}
    granted = await asyncio.gather(*(board.grant(WISH) for _ in range(10)))
    assert sorted(granted) == [False] * 9 + [True]
    assert await board.wishes() == (other,)


async def test_a_wish_that_is_over_is_not_granted(board: RedisBoard, raw: Client) -> None:
    """Each has seven days of its own, however often somebody else wishes something."""
    await board.wish(WISH)
    [(member, ends)] = await raw.zrange("{gp}:wishes", 0, -1, withscores=True)
    await raw.zadd("{gp}:wishes", {member: ends - timedelta(days=7) / timedelta(milliseconds=1)})
    assert await board.wishes() == ()
    assert not await board.grant(WISH)
    other = replace(WISH, user="U2")
    await board.wish(other)
    assert await board.wishes() == (other,)


async def test_once_is_once_for_all_who_ask_at_the_same_time(board: RedisBoard, raw: Client) -> None:
    """One of them does it; when the span is over, the next one does."""
    told = await asyncio.gather(*(board.once("remind P-1", within=HOUR) for _ in range(10)))
    assert sorted(told) == [False] * 9 + [True]
    assert await board.once("remind P-2", within=HOUR)
    key = '{gp}:once:["remind P-1"]'
    assert HOUR - MINUTE < await left(raw, key) <= HOUR
    await raw.pexpire(key, 0)
    assert await board.once("remind P-1", within=HOUR)


SPAN = timedelta(minutes=10, seconds=30)
TAKES = st.lists(st.sampled_from(["U1", "U2"]) | st.integers(1, 9), max_size=25)


@ON_ONE_SERVER
@given(most=st.integers(0, 4), steps=TAKES)
async def test_nobody_takes_more_than_so_many_in_any_span(
    redis_url: str, most: int, steps: list[str | int]
) -> None:
    """Each person counts alone, over the span that ends now; what was refused does not count. Numbers are minutes."""
    empty(redis_url)
    taken: dict[str, list[timedelta]] = {"U1": [], "U2": []}
    now = timedelta(0)
    async with opened(redis_url) as raw, aclosing(board_at(redis_url)) as board:
        for step in steps:
            if isinstance(step, int):
                now += step * MINUTE
                await grow_older(raw, step * MINUTE)
                continue
            may = len([at for at in taken[step] if at > now - SPAN]) < most
            assert await board.take(step, most=most, within=SPAN) is may
            taken[step] += [now] if may else []
            assert await raw.zcard(f'{{gp}}:taken:["{step}"]') <= most


async def grow_older(raw: Client, age: timedelta) -> None:
    """Let everything that was taken lie so much further back."""
    for key in await raw.keys("{gp}:taken:*"):
        for call, at in await raw.zrange(key, 0, -1, withscores=True):
            await raw.zadd(key, {call: at - age / timedelta(milliseconds=1)})


async def test_those_who_take_at_the_same_time_get_no_more(board: RedisBoard) -> None:
    """Ten at once, three may."""
    told = await asyncio.gather(*(board.take("hook:ci", most=3, within=HOUR) for _ in range(10)))
    assert sum(told) == 3


async def test_one_of_many_takes_a_lock_away(board: RedisBoard) -> None:
    """One person reads that they took it away, everybody else that there was none."""
    await board.lock(LOCK)
    await asyncio.gather(
        *(board.locks() for _ in range(10))
    )  # with connections open they all read it at once
    taken = await asyncio.gather(*(board.unlock(OURS) for _ in range(10)))
    assert [lock for lock in taken if lock] == [LOCK]


ONE_ALONE: dict[str, Callable[[RedisBoard], Awaitable[object]]] = {
    "report": lambda board: board.report(replace(REPORT, check="load")),
    "a delivery": lambda board: board.report(replace(REPORT, check="load"), delivery="d1"),
    "grant": lambda board: board.grant(WISH),
    "once": lambda board: board.once("remind", within=HOUR),
    "take": lambda board: board.take("U1", most=1, within=HOUR),
    "unlock": lambda board: board.unlock(OURS),
    "unblock": lambda board: board.unblock("manual-app", "15"),
}


@pytest.mark.parametrize("what", ONE_ALONE)
async def test_who_lost_the_answer_is_told_it_again(redis_url: str, what: str) -> None:
    """Else nobody would do it: the first try did, and the second would be taken for somebody else. Only once, too."""
    unreliable = Unreliable(redis_url.removeprefix("unix://"), losing=1)
    async with aclosing(board_at(redis_url)) as calm:
        for prepare in (calm.lock(LOCK), calm.block(BAD), calm.wish(WISH)):
            await prepare
        async with unreliable.serving() as url, aclosing(board_at(url)) as board:
            assert await ONE_ALONE[what](board)
            assert unreliable.losing == 0
            assert not await ONE_ALONE[what](calm)


# --- groups


async def test_a_group_is_shared_for_thirty_seconds(board: RedisBoard, raw: Client) -> None:
    """An empty one is known, too; one that nobody read is not."""
    assert await board.group("S1") is None
    await board.keep_group("S1", ["U2", "U1"])
    await board.keep_group("S2", [])
    assert await board.group("S1") == {"U1", "U2"}
    assert await board.group("S2") == frozenset()
    key = '{gp}:group:["S1"]'
    assert timedelta(seconds=28) < await left(raw, key) <= timedelta(seconds=30)
    await raw.pexpire(key, 0)
    assert await board.group("S1") is None


async def test_a_group_that_arrives_late_is_shared_for_less(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thirty seconds begin before the write is sent: a server that hung must not call old members new."""
    client = connect(redis_url, quick=False)
    assert isinstance(client, Redis)
    async with aclosing(RedisBoard(client)) as board, opened(redis_url) as raw:
        write = client.set

        async def hanging(*words: Any, **options: Any) -> object:
            await raw.execute_command("CLIENT", "PAUSE", 400, "WRITE")
            return await write(*words, **options)

        monkeypatch.setattr(client, "set", hanging)
        await board.keep_group("S1", ["U1"])
        assert await left(raw, '{gp}:group:["S1"]') < timedelta(seconds=29.7)


# --- what is kept, and for how long


async def keys_of(raw: Client) -> set[str]:
    """Every key, on whichever node of a cluster."""
    return {key async for key in raw.scan_iter()}


async def left(raw: Client, key: str) -> timedelta:
    """How long the key is still kept."""
    return timedelta(milliseconds=await raw.pttl(key))


FOR_EVER = {"{gp}:locks", '{gp}:bad:["manual-app"]'}
KEPT_DAYS = {
    '{gp}:reports:["manual-app","stage","15"]': 180,
    f'{{gp}}:soak:["manual-app","stage","15","{BUILD.digest}"]': 90,
    "{gp}:wishes": 7,
}


async def test_everything_but_locks_and_bad_versions_has_an_end(board: RedisBoard, raw: Client) -> None:
    """Nothing grows without bound: whatever key any call leaves behind goes by itself."""
    others = (replace(LOCK, scope=Scope()), replace(BAD, version="16"), replace(WISH, user="U2"))
    for call in (
        board.lock(LOCK),
        board.lock(others[0]),
        board.unlock(Scope()),
        board.block(BAD),
        board.block(others[1]),
        board.unblock("manual-app", "16"),
        board.report(REPORT, delivery="d1"),
        board.soak("manual-app", "stage", BUILD, SOAKED),
        board.wish(WISH),
        board.wish(others[2]),
        board.grant(others[2]),
        board.once("remind", within=HOUR),
        board.take("U1", most=3, within=HOUR),
        board.keep_group("S1", ["U1"]),
    ):
        await call
    keys = await keys_of(raw)
    assert {key for key in keys if await raw.pttl(key) == -1} == FOR_EVER
    assert all(key.startswith("{gp}:") for key in keys)
    for key, days in KEPT_DAYS.items():
        assert days * DAY - MINUTE < await left(raw, key) <= days * DAY


async def test_a_version_that_is_still_reported_on_is_kept(board: RedisBoard, raw: Client) -> None:
    """The 180 days begin anew with each verdict that is kept."""
    [key] = [key for key in KEPT_DAYS if "reports" in key]
    await board.report(REPORT)
    await raw.pexpire(key, 1000 * 60)
    await board.report(replace(REPORT, check="load"))
    assert await left(raw, key) > 179 * DAY


# --- trouble


NAIVE = '{"scope":{},"by":"U1","reason":"x","at":"2026-03-01T12:00:00"}'
VAGUE = (
    '{"app":"manual-app","environment":"stage","image":{"version":"15"},"check":"e2e","passed":"yes","by":"U1",'
    '"at":"2026-03-01T12:00:00Z"}'
)
READ: dict[str, tuple[str, str, Callable[[RedisBoard], Awaitable[object]]]] = {
    "locks": ("hset", "{gp}:locks", lambda board: board.locks()),
    "bad versions": ("hset", '{gp}:bad:["manual-app"]', lambda board: board.bad_versions("manual-app")),
    "reports": ("hset", '{gp}:reports:["manual-app","stage","15"]', reports_of),
    "soaked": (
        "set",
        f'{{gp}}:soak:["manual-app","stage","15","{BUILD.digest}"]',
        lambda board: board.soaked("manual-app", "stage", BUILD),
    ),
    "wishes": ("zadd", "{gp}:wishes", lambda board: board.wishes()),
    "group": ("set", '{gp}:group:["S1"]', lambda board: board.group("S1")),
}


@pytest.mark.parametrize("garbage", ["", "what is this", "null", "{}", b"\xff\xfe", NAIVE, VAGUE])
@pytest.mark.parametrize("what", READ)
async def test_what_cannot_be_read_is_not_taken_for_nothing(
    board: RedisBoard, raw: Client, what: str, garbage: str | bytes
) -> None:
    """One such entry among good ones stops everything that would be decided by them."""
    await board.lock(LOCK)
    await board.block(BAD)
    await board.report(REPORT)
    await board.wish(WISH)
    command, key, read = READ[what]
    words = {"hset": ("strange", garbage), "zadd": ("9e15", garbage), "set": (garbage,)}[command]
    await raw.execute_command(command, key, *words)
    with pytest.raises(Unavailable, match="cannot be read"):
        await read(board)


@pytest.mark.parametrize("what", READ)
async def test_a_key_of_another_kind_is_not_taken_for_nothing(
    board: RedisBoard, raw: Client, what: str
) -> None:
    """Somebody has put something else there: that is trouble, not an empty board."""
    _, key, read = READ[what]
    await raw.rpush(key, "x")
    with pytest.raises(Unavailable, match="the store is not available"):
        await read(board)


EVERYTHING: dict[str, Callable[[RedisBoard], Awaitable[object]]] = {
    **{what: read for what, (_, _, read) in READ.items()},
    **ONE_ALONE,
    "lock": lambda board: board.lock(LOCK),
    "block": lambda board: board.block(BAD),
    "soak": lambda board: board.soak("manual-app", "stage", BUILD, SOAKED),
    "wish": lambda board: board.wish(WISH),
    "keep_group": lambda board: board.keep_group("S1", ["U1"]),
}


@pytest.mark.parametrize("what", EVERYTHING)
async def test_where_nobody_listens_nobody_is_told_anything(what: str) -> None:
    """No answer is never an empty board, nor a yes."""
    async with aclosing(board_at("redis://127.0.0.1:1")) as board:
        with pytest.raises(Unavailable, match="it cannot be reached") as away:
            await EVERYTHING[what](board)
    assert not away.value.maybe_done


CLOSES = {name: EVERYTHING[name] for name in ("lock", "block", "report", "a delivery")}


@pytest.mark.parametrize("what", CLOSES)
async def test_what_closes_a_gate_is_confirmed_by_replicas(redis_url: str, what: str) -> None:
    """A failover must not open it; also who repeats the call hears that nobody has confirmed it."""
    async with aclosing(board_at(redis_url, wait_replicas=1)) as board:
        for _ in range(2):
            with pytest.raises(Unavailable, match="only 0 of 1 replicas have confirmed") as unconfirmed:
                await CLOSES[what](board)
            assert unconfirmed.value.maybe_done


async def test_a_replica_confirms_also_what_is_repeated(tmp_path: Path) -> None:
    """With a replica that answers everything goes through; who calls again, from anywhere, while it hangs hears so."""
    with Servers(tmp_path) as servers:
        primary, [replica] = servers.primary()
        url = f"redis://{primary.address}"
        async with aclosing(board_at(url, wait_replicas=1)) as board:
            for close_gate in CLOSES.values():
                await close_gate(board)
            assert replica.ask("HLEN", "{gp}:locks") == 1
        replica.pause()
        for close_gate in CLOSES.values():
            async with aclosing(board_at(url, wait_replicas=1)) as board:
                with pytest.raises(Unavailable, match="only 0 of 1 replicas have confirmed"):
                    await close_gate(board)
        replica.go_on()
