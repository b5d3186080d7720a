"""Locks, bad versions, verdicts and windows: who may put them up, what they cover, and what is told of them."""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from builders import AMY, BEN, DANA, catalog, person
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from bot.core import gates
from bot.core.board import BadVersion, Lock, Report, Scope
from bot.core.cases import LONGEST_REASON
from bot.core.catalog import Image, Target
from bot.core.errors import Closed, PromoteError, Refused, Unavailable
from bot.core.keeper import LONGEST_LOCK, Keeper, ends_at
from bot.core.people import Person
from bot.core.policy import CheckRule, Effect, Listed, Policy, Window
from bot.core.ports import Hours
from bot.core.seals import Sealer
from bot.integrations.board import LOCKS, RedisBoard
from bot.integrations.store import connect
from handlers.command import Command

NOON = datetime(2126, 3, 2, 12, tzinfo=UTC)
"""Long after today: by its own clock the store forgets locks that are long over."""
HOUR = timedelta(hours=1)
SRE = "S0SRE"
EVERYTHING = Scope()
PROD = Scope(environment="prod")
STAGE = Scope(environment="stage")
APP_IN_PROD = Scope(app="manual-app", environment="prod")
SEALER = Sealer("a-seal-secret-of-32-characters!!")
DIGEST = "sha256:" + "0123456789abcdef" * 4
INTEGRATION = CheckRule(name="integration", reporters=Listed(users=frozenset({AMY.id})))
LOAD = CheckRule(name="load", reporters=Listed(groups=frozenset({SRE})))
NIGHT = Window(effect=Effect.DENY, zone="UTC", cron="0 18 * * *", lasts=12 * HOUR, why="nobody is awake")


class Clock:
    """Stands still until a test moves it."""

    at = NOON

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self.at


class People:
    """Slack's directory: three members, one of everybody else, and one user group."""

    def __init__(self) -> None:
        self.groups: dict[str, frozenset[str]] = {SRE: frozenset({BEN.id})}
        self.asked: list[str] = []
        self.known = {each.id: person(each) for each in (AMY, BEN, DANA)}

    async def person(self, user: str) -> Person:
        """Who this is."""
        return self.known[user]

    async def members(self, group: str) -> frozenset[str]:
        """The people of a user group; those of one that nobody knows cannot be told."""
        self.asked.append(group)
        if group not in self.groups:
            raise Unavailable("Slack", "it does not answer")
        return self.groups[group]

    async def owner_of(self, email: str) -> str | None:
        """Nobody's address matters here."""
        raise AssertionError(email)


class Timetable:
    """Any window is closed until six, in its own words."""

    def hours(self, windows: Any, at: datetime) -> Hours:
        """Closed."""
        return Hours(is_open=False, says=windows[0].why, changes_at=at + 6 * HOUR)


class Channels:
    """What the channels were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.closed: set[str] = set()

    async def tell(self, channel: str, text: str) -> None:
        """One message."""
        if channel in self.closed:
            raise Closed("the channel is archived")
        self.told.append((channel, text))


class World:
    """The keeper, the board that it writes to, and everybody around it."""

    def __init__(self, board: RedisBoard) -> None:
        self.board = board
        self.clock, self.people, self.channels = Clock(), People(), Channels()
        self.requesters: dict[tuple[str, str], str] = {}
        self.catalog = catalog()

    def configure(self, *apps: str, **policies: Policy) -> None:
        """These policies in these environments, for `manual-app` or for all of `apps`, each with a channel an environment."""
        self.catalog = replace(
            catalog(),
            targets=tuple(
                replace(
                    target,
                    app=app,
                    channel=f"C0{target.environment.upper()}",
                    policy=policies.get(target.environment, Policy()),
                )
                for app in apps or ("manual-app",)
                for target in catalog().targets
            ),
        )

    @property
    def keeper(self) -> Keeper:
        """The use cases."""
        return Keeper(
            catalog=self.catalog,
            board=self.board,
            directory=self.people,
            clock=self.clock,
            calendar=Timetable(),
            sealer=SEALER,
            requester_of=self.requester_of,
            build=self.build,
        )

    async def requester_of(self, target: Target, version: str) -> str | None:
        """Who asked for it."""
        return self.requesters.get((target.name, version))

    async def build(self, target: Target, version: str) -> Image:
        """Stage runs 15."""
        if version != "15":
            raise Refused(f"{target.environment} runs 15, not {version}.")
        return Image(version=version, digest=DIGEST)

    async def type(self, text: str, user: str = DANA.id) -> str:
        """The private answer to `/promote …`."""
        nothing: Any = cast(Any, None)  # none of these words is for it
        command = Command(
            promoter=nothing, keeper=self.keeper, notices=self.channels, stats=nothing, client=nothing
        )
        return await command.run({"user_id": user, "text": text, "trigger_id": "1.2.3"})


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    board = RedisBoard(connect(redis_url, quick=False))
    yield World(board)
    await board.aclose()


@pytest.fixture
def raw(redis_url: str) -> Any:
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def refused(work: Coroutine[Any, Any, object]) -> str:
    """Why it was refused."""
    with pytest.raises(Refused) as raised:
        await work
    return str(raised.value)


# --- who may

USE_CASES: dict[str, Callable[[Keeper], Coroutine[Any, Any, object]]] = {
    "lock": lambda keeper: keeper.lock(PROD, user=DANA.id, reason="a sale"),
    "unlock": lambda keeper: keeper.unlock(PROD, user=DANA.id),
    "block": lambda keeper: keeper.block("manual-app", "15", user=DANA.id, reason="slow"),
    "unblock": lambda keeper: keeper.unblock("manual-app", "14", user=DANA.id),
    "report": lambda keeper: keeper.report_check("manual-app", "15", "any", passed=True, user=DANA.id),
    "windows": lambda keeper: keeper.windows(user=DANA.id),
    "locks": lambda keeper: keeper.locks(user=DANA.id),
}


@pytest.mark.parametrize("use_case", USE_CASES)
@pytest.mark.parametrize("kind", ["is_bot", "is_guest", "is_stranger", "is_deactivated"])
async def test_nobody_but_full_members_does_anything(world: World, use_case: str, kind: str) -> None:
    """Whatever the rules say, others change nothing and are told nothing."""
    anybody = CheckRule(name="any", reporters=Listed(users=frozenset({DANA.id})))
    world.configure(prod=Policy(checks=(anybody,)))
    lock = Lock(scope=PROD, by=AMY.id, reason="a sale", at=NOON)
    await world.board.lock(lock)
    await world.board.block(BadVersion(app="manual-app", version="14", by=AMY.id, reason="slow", at=NOON))
    world.people.known[DANA.id] = person(DANA, **{kind: True})
    assert "You may not do that" in await refused(USE_CASES[use_case](world.keeper))
    assert await world.board.locks() == (lock,)
    assert [bad.version for bad in await world.board.bad_versions("manual-app")] == ["14"]
    assert await world.board.reports("manual-app", "stage", "15") == ()


async def test_a_lock_needs_the_right_on_all_that_it_covers(world: World) -> None:
    """For every way to name lockers of stage and prod: it stands where each covered target admits the person."""
    lockers = {
        "everybody": None,
        "by id": Listed(users=frozenset({BEN.id})),
        "by group": Listed(groups=frozenset({SRE})),
        "others": Listed(users=frozenset({AMY.id}), groups=frozenset({"S0EMPTY"})),
    }
    world.people.groups["S0EMPTY"] = frozenset()
    covered = {EVERYTHING: {"stage", "prod"}, PROD: {"prod"}, STAGE: {"stage"}, APP_IN_PROD: {"prod"}}
    for stage, prod in itertools.product(lockers, repeat=2):
        world.configure(stage=Policy(lockers=lockers[stage]), prod=Policy(lockers=lockers[prod]))
        for scope, environments in covered.items():
            named = {"stage": stage, "prod": prod}
            closed = [each for each in sorted(environments) if named[each] == "others"]
            lock = world.keeper.lock(scope, user=BEN.id, reason="a sale")
            if closed:
                assert re.search(f"You may not lock manual-app/({'|'.join(closed)})", await refused(lock))
                assert await world.board.unlock(scope) is None
                assert "You may not unlock" in await refused(world.keeper.unlock(scope, user=BEN.id))
            else:
                assert (await lock).lock in await world.board.locks()
                await world.keeper.unlock(scope, user=BEN.id)


async def test_a_version_is_blocked_by_who_may_keep_every_environment(world: World) -> None:
    """A block holds everywhere, so one environment that does not admit the person is enough for a no."""
    world.configure("manual-app", "other", stage=Policy(lockers=Listed(users=frozenset({AMY.id}))))
    block = world.keeper.block("manual-app", "15", user=BEN.id, reason="slow")
    assert "You may not block manual-app/stage" in await refused(block)
    await world.keeper.block("manual-app", "15", user=AMY.id, reason="slow")
    unblock = world.keeper.unblock("manual-app", "15", user=BEN.id)
    assert "You may not unblock manual-app/stage" in await refused(unblock)
    assert [bad.version for bad in await world.board.bad_versions("manual-app")] == ["15"]
    assert await world.board.bad_versions("other") == ()


async def test_groups_are_asked_for_only_where_ids_do_not_decide(world: World) -> None:
    """Who is named by id, or needs no name, does not wait for Slack's groups."""
    both = Listed(users=frozenset({AMY.id}), groups=frozenset({SRE}))
    world.configure(prod=Policy(lockers=both, checks=(CheckRule(name="load", reporters=both),)))
    await world.keeper.lock(EVERYTHING, user=AMY.id, reason="a sale")
    await world.keeper.lock(STAGE, user=BEN.id, reason="a sale")
    await world.keeper.report_check("manual-app", "15", "load", passed=True, user=AMY.id)
    assert world.people.asked == []
    await world.keeper.lock(EVERYTHING, user=BEN.id, reason="a sale")
    assert world.people.asked == [SRE]


async def test_a_group_that_nobody_can_read_admits_nobody(world: World) -> None:
    """Slack is away: no lock, no block and no verdict, and no word that the person may not."""
    away = Listed(groups=frozenset({"S0AWAY"}))
    world.configure(prod=Policy(lockers=away, checks=(CheckRule(name="load", reporters=away),)))
    for work in (
        world.keeper.lock(PROD, user=BEN.id, reason="a sale"),
        world.keeper.block("manual-app", "15", user=BEN.id, reason="slow"),
        world.keeper.report_check("manual-app", "15", "load", passed=True, user=BEN.id),
    ):
        with pytest.raises(Unavailable):
            await work
    assert await world.board.locks() == ()
    assert await world.board.bad_versions("manual-app") == ()
    assert await world.board.reports("manual-app", "stage", "15") == ()


# --- locks


async def test_a_lock_says_who_why_and_until_when(world: World) -> None:
    """What is put up is what was typed, and the gate of every covered target reads it."""
    world.configure("manual-app", "other")
    done = await world.keeper.lock(PROD, user=DANA.id, reason="  a\nsale ", term="for 2h")
    assert done.lock == Lock(scope=PROD, by=DANA.id, reason="a sale", at=NOON, until=NOON + 2 * HOUR)
    assert (done.replaced, done.is_replaced_known, done.channels) == (None, True, ("C0PROD",))
    found = await world.board.locks()
    closed = [
        target.name for target in world.catalog.targets if not gates.locks(target, found, now=NOON).is_open
    ]
    assert closed == ["manual-app/prod", "other/prod"]


@pytest.mark.parametrize("reason", [None, "", "  ", "\n\t"])
async def test_nothing_is_kept_back_without_a_reason(world: World, reason: str | None) -> None:
    """The next person has to know what to wait for; the refusal shows the sentence to type."""
    said = await refused(world.keeper.lock(APP_IN_PROD, user=DANA.id, reason=reason))
    assert "/promote lock manual-app prod because" in said
    said = await refused(world.keeper.lock(EVERYTHING, user=DANA.id, reason=reason))
    assert "/promote lock all because" in said
    said = await refused(world.keeper.block("manual-app", "15", user=DANA.id, reason=reason))
    assert "/promote block manual-app 15 because" in said
    assert (await world.board.locks(), await world.board.bad_versions("manual-app")) == ((), ())


async def test_a_reason_is_one_line_and_not_too_long(world: World) -> None:
    """Nobody can put a second line, or a book, into everybody's messages."""
    done = await world.keeper.lock(PROD, user=DANA.id, reason="a\r\nb\u2028" + "c" * 1000)
    assert done.lock.reason.startswith("a b c")
    assert len(done.lock.reason) == LONGEST_REASON


async def test_locking_again_replaces_and_names_the_owner(world: World) -> None:
    """One lock a scope: the new one says whose it was, and another scope's stays."""
    await world.keeper.lock(PROD, user=AMY.id, reason="a sale")
    await world.keeper.lock(APP_IN_PROD, user=AMY.id, reason="slow")
    done = await world.keeper.lock(PROD, user=DANA.id, reason="a longer sale", term="for 1h")
    assert done.replaced
    assert (done.replaced.by, done.replaced.reason) == (AMY.id, "a sale")
    assert {(lock.scope, lock.by) for lock in await world.board.locks()} == {
        (PROD, DANA.id),
        (APP_IN_PROD, AMY.id),
    }
    world.clock.at += HOUR
    again = await world.keeper.lock(PROD, user=BEN.id, reason="and another one")
    assert again.replaced is None, "what is over was nobody's lock any more"


async def test_anybody_elses_lock_can_be_taken_away(world: World) -> None:
    """A keeper who is ill keeps nobody waiting; the outcome names the owner."""
    put_up = (await world.keeper.lock(PROD, user=AMY.id, reason="a sale")).lock
    done = await world.keeper.unlock(PROD, user=DANA.id, reason="it is over")
    assert (done.lock, done.by, done.reason, done.left) == (put_up, DANA.id, "it is over", ())
    assert await world.board.locks() == ()


async def test_what_holds_all_the_same_is_told(world: World) -> None:
    """After unlocking one scope nobody has to find out that a wider or a narrower lock is still there."""
    world.configure("manual-app", "other")
    for scope in (EVERYTHING, PROD, APP_IN_PROD, STAGE):
        await world.keeper.lock(scope, user=AMY.id, reason="a sale")
    done = await world.keeper.unlock(PROD, user=DANA.id)
    assert {lock.scope for lock in done.left} == {EVERYTHING, APP_IN_PROD}
    said = await refused(world.keeper.unlock(Scope(app="other", environment="prod"), user=DANA.id))
    assert said == (
        "other/prod is not locked itself; what holds there has another scope. Type /promote unlock all."
    )


async def test_what_is_not_locked_cannot_be_unlocked(world: World) -> None:
    """Neither where nobody put up a lock, nor where it is over."""
    assert "prod is not locked. Type" in await refused(world.keeper.unlock(PROD, user=DANA.id))
    await world.keeper.lock(PROD, user=AMY.id, reason="a sale", term="for 1h")
    world.clock.at += HOUR
    assert "prod is not locked. Type" in await refused(world.keeper.unlock(PROD, user=DANA.id))


async def test_a_lock_that_cannot_be_read_hinders_nobody_who_stops_the_line(world: World, raw: Redis) -> None:
    """The lock is put up, or taken away, and what could not be read is not taken for nothing."""
    raw.hset(LOCKS, "somebody's", "not a lock")
    locked = await world.keeper.lock(EVERYTHING, user=DANA.id, reason="everything burns")
    assert (locked.replaced, locked.is_replaced_known) == (None, False)
    unlocked = await world.keeper.unlock(EVERYTHING, user=DANA.id)
    assert (unlocked.lock, unlocked.is_left_known) == (locked.lock, False)
    with pytest.raises(Unavailable):
        await world.keeper.locks(user=DANA.id)


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        (Scope(app="manual-ap", environment="prod"), "Did you mean “manual-app”?"),
        (Scope(app="manual-app", environment="prd"), "Did you mean “prod”?"),
        (Scope(environment="prd"), "Did you mean “prod”?"),
        (Scope(environment="manual-app"), "manual-app is an app, so say where, too"),
        (Scope(environment="spare"), "No app has spare"),
    ],
)
async def test_a_scope_that_covers_nothing_is_refused(world: World, scope: Scope, says: str) -> None:
    """A name that is misspelt, or an environment without apps, would be a lock that holds nothing."""
    world.catalog = replace(world.catalog, environments=(*world.catalog.environments, "spare"))
    assert says in await refused(world.keeper.lock(scope, user=DANA.id, reason="a sale"))
    assert says in await refused(world.keeper.unlock(scope, user=DANA.id))
    assert await world.board.locks() == ()


async def test_everything_that_holds_is_listed(world: World) -> None:
    """Locks that are over are left out; bad versions of every app are there; oldest first."""
    world.configure("manual-app", "other")
    await world.keeper.lock(PROD, user=AMY.id, reason="a sale", term="for 1h")
    await world.keeper.block("other", "7", user=BEN.id, reason="slow")
    world.clock.at += HOUR
    await world.keeper.lock(EVERYTHING, user=DANA.id, reason="second")
    await world.keeper.block("manual-app", "15", user=BEN.id, reason="slower")
    world.clock.at += HOUR
    await world.keeper.lock(APP_IN_PROD, user=DANA.id, reason="third")
    held = await world.keeper.locks(user=DANA.id)
    assert [lock.scope for lock in held.locks] == [EVERYTHING, APP_IN_PROD]
    assert [(bad.app, bad.version) for bad in held.bad_versions] == [("other", "7"), ("manual-app", "15")]


# --- until when

TERMS = {
    "for 30m": timedelta(minutes=30),
    "for 2h": 2 * HOUR,
    "for 2 h": 2 * HOUR,
    "FOR 3D": timedelta(days=3),
    "for 90d": timedelta(days=90),
    "until 18:00": 6 * HOUR,
    "until 18:00Z": 6 * HOUR,
    "until today 18:00": 6 * HOUR,
    "until 18:00+02:00": 4 * HOUR,
    "until 9:00-05:00": 2 * HOUR,
    "until tomorrow 09:00": 21 * HOUR,
    "until Tomorrow 9:00": 21 * HOUR,
    "until 01:00+13:00": None,
    "until 02:00+13:00": HOUR,
    "until tomorrow 02:00+13:00": 25 * HOUR,
    "until 2126-03-02T18:00Z": 6 * HOUR,
    "until 2126-03-02t18:00:00z": 6 * HOUR,
    "until 2126-03-02 18:00": 6 * HOUR,
    "until 2126-03-02T18:00:00.5+01:00": 5 * HOUR + timedelta(seconds=0.5),
    "until 11:59": None,
    "until 12:00": None,
    "until 2126-03-01T18:00Z": None,
    "for 0m": None,
    "for 91d": None,
    "for 999999d": None,
    "until 2126-06-01T12:00Z": None,
    "until 9999-12-31T23:59:59-23:59": None,
    "until 0001-01-01T00:00+23:59": None,
    "until 24:00": None,
    "until 18:60": None,
    "until 2126-02-30T18:00Z": None,
    "until 18:00+99:00": None,
    "until monday": None,
    "until": None,
    "for": None,
    "for ever": None,
    "for 2 weeks": None,
    "for 1h30m": None,
    "for -2h": None,
    "for ٢h": None,
    "2h": None,
    "18:00": None,
}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_understood_or_explained(term: str) -> None:
    """Spans, times of day and moments, in UTC or in a given offset; the rest gets what to type, and in which zone."""
    lasts = TERMS[term]
    if lasts is not None:
        assert ends_at(term, NOON) == NOON + lasts
        return
    with pytest.raises(Refused) as raised:
        ends_at(term, NOON)
    assert "until tomorrow 09:00" in str(raised.value) or "90 days at most" in str(raised.value)
    assert "UTC unless" in str(raised.value) or "Without an end" in str(raised.value)


moments = st.integers(0, 10**9).map(lambda seconds: NOON + timedelta(seconds=seconds))
terms = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [*"0123456789mhd:-+TZ. ", "for ", "until ", "today ", "tomorrow ", "2126-03-02", "18:00"]
        ),
        max_size=14,
    ).map("".join),
)


@given(terms, moments)
def test_whatever_is_typed_ends_in_time_or_is_refused(term: str, now: datetime) -> None:
    """Every lock with an end is over within 90 days and not at once; no other error comes out of any text."""
    try:
        ends = ends_at(term, now)
    except Refused:
        return
    assert now < ends <= now + LONGEST_LOCK
    assert ends.tzinfo is UTC


@given(st.integers(1, 90 * 24 * 60), st.sampled_from(["m", "h", "d"]))
def test_a_span_is_as_long_as_it_says(count: int, unit: str) -> None:
    """Minutes, hours and days, up to 90 days."""
    length = count * {"m": timedelta(minutes=1), "h": HOUR, "d": timedelta(days=1)}[unit]
    if length <= LONGEST_LOCK:
        assert ends_at(f"for {count}{unit}", NOON) == NOON + length
    else:
        with pytest.raises(Refused, match="90 days at most"):
            ends_at(f"for {count}{unit}", NOON)


@given(
    moments,
    st.times(),
    st.integers(-23 * 60, 23 * 60),
    st.booleans(),
)
def test_a_time_of_day_is_meant_in_its_own_offset(
    now: datetime, time: Any, minutes: int, tomorrow: bool
) -> None:
    """Today and tomorrow are those of the offset, and the clock there shows the time that was typed."""
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    word = "tomorrow " if tomorrow else ""
    try:
        ends = ends_at(f"until {word}{time:%H:%M}{offset}", now)
    except Refused:
        assert not tomorrow, "tomorrow is never over"
        return
    there, seen = now + timedelta(minutes=minutes), ends + timedelta(minutes=minutes)
    assert seen.date() - there.date() == timedelta(days=int(tomorrow))
    assert f"{seen:%H:%M:%S}" == f"{time:%H:%M}:00"


async def test_a_wrong_term_locks_nothing(world: World) -> None:
    """A lock that was meant to end is not put up for ever instead."""
    assert "UTC" in await refused(world.keeper.lock(PROD, user=DANA.id, reason="a sale", term="until monday"))
    assert await world.board.locks() == ()


# --- bad versions


async def test_a_bad_version_is_blocked_and_unblocked(world: World) -> None:
    """It is the gate that reads it; who blocked it is named when it is taken back."""
    done = await world.keeper.block("manual-app", "15", user=AMY.id, reason="it loses orders")
    assert done.bad == BadVersion(
        app="manual-app", version="15", by=AMY.id, reason="it loses orders", at=NOON
    )
    found = await world.board.bad_versions("manual-app")
    assert not gates.bad_version(Image(version="15", digest=DIGEST), found).is_open
    assert gates.bad_version(Image(version="14"), found).is_open
    taken = await world.keeper.unblock("manual-app", "15", user=DANA.id)
    assert (taken.bad, taken.by) == (done.bad, DANA.id)
    assert await world.board.bad_versions("manual-app") == ()
    assert "is not blocked" in await refused(world.keeper.unblock("manual-app", "15", user=DANA.id))


@pytest.mark.parametrize(
    ("app", "version", "says"),
    [("manual-ap", "15", "Did you mean “manual-app”?"), ("manual-app", "1 5", "That is not a version")],
)
async def test_only_versions_of_apps_are_blocked(world: World, app: str, version: str, says: str) -> None:
    """A misspelt app would leave the bad version free."""
    assert says in await refused(world.keeper.block(app, version, user=DANA.id, reason="slow"))
    assert says in await refused(world.keeper.unblock(app, version, user=DANA.id))


# --- verdicts


def checked(world: World) -> None:
    """Stage asks for `integration` in dev; prod asks for `integration` and `load` in stage."""
    world.configure(stage=Policy(checks=(INTEGRATION,)), prod=Policy(checks=(INTEGRATION, LOAD)))


async def test_a_verdict_opens_the_gate_of_the_next_environment(world: World) -> None:
    """It counts for the very build that runs there, is sealed, and says who gave it."""
    checked(world)
    done = await world.keeper.report_check(
        "manual-app", "15", "load", passed=True, user=BEN.id, said="200\nms"
    )
    (report,) = await world.board.reports("manual-app", "stage", "15")
    assert done.report == replace(report, seal=done.report.seal)
    assert done.wanted_by == "prod"
    assert SEALER.report_is_genuine(report)
    assert report == Report(
        app="manual-app",
        environment="stage",
        image=Image(version="15", digest=DIGEST),
        check="load",
        passed=True,
        by=BEN.id,
        at=NOON,
        said="200 ms",
        seal=report.seal,
    )
    prod, stage = world.catalog.target("manual-app", "prod"), world.catalog.target("manual-app", "stage")
    answers = gates.checks(prod.policy, stage, report.image, [report])
    assert [answer.is_open for answer in answers] == [False, True]


async def test_the_environment_is_found_where_only_one_asks(world: World) -> None:
    """Else the person says which; a name that nobody asks for gets the nearest one."""
    checked(world)
    report = world.keeper.report_check
    asked = await refused(report("manual-app", "15", "integration", passed=True, user=AMY.id))
    assert asked.endswith("Add where you mean: in dev or in stage.")
    done = await report("manual-app", "15", "integration", passed=False, user=AMY.id, environment="dev")
    assert (done.report.environment, done.wanted_by, done.report.passed) == ("dev", "stage", False)
    for words, environment, says in (
        ("integratoin", None, "Did you mean “integration”?"),
        ("load", "dev", "No check of dev is called “load”. There is: integration."),
        ("load", "prod", "No check of prod is called “load”. It asks for none."),
        ("load", "prd", "Did you mean “prod”?"),
    ):
        work = report("manual-app", "15", words, passed=True, user=AMY.id, environment=environment)
        assert says in await refused(work)
    assert "Did you mean “manual-app”?" in await refused(
        report("manual-ap", "15", "load", passed=True, user=AMY.id)
    )


@pytest.mark.parametrize(("user", "check"), [(DANA.id, "load"), (AMY.id, "load"), (BEN.id, "integration")])
async def test_only_whom_the_check_names_reports_it(world: World, user: str, check: str) -> None:
    """Somebody who may report one check may not report another."""
    checked(world)
    work = world.keeper.report_check("manual-app", "15", check, passed=True, user=user, environment="stage")
    assert "You may not report a check on manual-app 15 in stage" in await refused(work)
    assert await world.board.reports("manual-app", "stage", "15") == ()


async def test_who_asked_for_it_does_not_vouch_for_it(world: World) -> None:
    """The requester of the version's open promotion to the next environment finds somebody else."""
    checked(world)
    world.requesters["manual-app/prod", "15"] = BEN.id
    work = world.keeper.report_check("manual-app", "15", "load", passed=True, user=BEN.id)
    assert "You asked for manual-app 15 to prod, so somebody else must" in await refused(work)
    assert await world.board.reports("manual-app", "stage", "15") == ()
    world.requesters = {("manual-app/prod", "16"): BEN.id, ("manual-app/stage", "15"): BEN.id}
    await world.keeper.report_check("manual-app", "15", "load", passed=True, user=BEN.id)


async def test_a_verdict_is_on_what_runs(world: World) -> None:
    """A version that does not run there was not checked there."""
    checked(world)
    work = world.keeper.report_check("manual-app", "14", "load", passed=True, user=BEN.id)
    assert await refused(work) == "stage runs 15, not 14."
    work = world.keeper.report_check("manual-app", "1 4", "load", passed=True, user=BEN.id)
    assert "That is not a version" in await refused(work)


async def test_a_delivery_that_comes_twice_changes_nothing(world: World) -> None:
    """Slack may repeat a command after another verdict was given."""
    checked(world)
    report = world.keeper.report_check
    await report("manual-app", "15", "load", passed=True, user=BEN.id, delivery="1.2.3")
    world.clock.at += HOUR
    await report("manual-app", "15", "load", passed=False, user=BEN.id, delivery="1.2.4")
    world.clock.at += HOUR
    await report("manual-app", "15", "load", passed=True, user=BEN.id, delivery="1.2.3")
    assert [each.passed for each in await world.board.reports("manual-app", "stage", "15")] == [False]


# --- windows


async def test_windows_are_told_by_environment_where_its_apps_agree(world: World) -> None:
    """Otherwise by target; what has no windows is left out."""
    world.configure("manual-app", "other", stage=Policy(windows=(NIGHT,)), prod=Policy(windows=(NIGHT,)))
    odd = replace(NIGHT, why="it sleeps longer")
    targets = [
        replace(target, policy=Policy(windows=(odd,))) if target.name == "other/prod" else target
        for target in world.catalog.targets
    ]
    world.catalog = replace(world.catalog, targets=tuple(targets))
    found = await world.keeper.windows(user=DANA.id)
    assert [(str(opening.scope), opening.hours.says) for opening in found] == [
        ("stage", "nobody is awake"),
        ("manual-app/prod", "nobody is awake"),
        ("other/prod", "it sleeps longer"),
    ]
    assert found[0].hours.changes_at == NOON + 6 * HOUR
    assert [str(each.scope) for each in await world.keeper.windows("stage", user=DANA.id)] == ["stage"]
    assert await world.keeper.windows("dev", user=DANA.id) == ()
    assert "Did you mean “stage”?" in await refused(world.keeper.windows("stag", user=DANA.id))


# --- typed


async def test_each_command_does_what_it_says(world: World) -> None:
    """From the words to the board and back, with a private answer and one message in each channel."""
    checked(world)
    for text, says, channels in (
        ("lock prod for 2h because a sale", "*prod* is locked until", ["C0PROD"]),
        ("lock all because a fire", "*everything* is locked", ["C0DEV", "C0STAGE", "C0PROD"]),
        ("unlock all because it is out", "*everything* is unlocked", ["C0DEV", "C0STAGE", "C0PROD"]),
        ("unlock prod", "*prod* is unlocked", ["C0PROD"]),
        ("block manual-app 15 because slow", "`15` is blocked", ["C0DEV", "C0STAGE", "C0PROD"]),
        ("unblock manual-app 15", "`15` may be promoted again", ["C0DEV", "C0STAGE", "C0PROD"]),
    ):
        world.channels.told.clear()
        assert says in await world.type(text)
        assert sorted(channel for channel, _ in world.channels.told) == sorted(channels)
        assert all(f"<@{DANA.id}>" in told for _, told in world.channels.told)
    world.channels.told.clear()
    answer = await world.type("check manual-app 15 load fail in stage because 900 ms", BEN.id)
    assert "load failed in *stage*" in answer
    (report,) = await world.board.reports("manual-app", "stage", "15")
    assert (report.passed, report.said) == (False, "900 ms")
    assert world.channels.told == []


async def test_a_channel_that_cannot_be_told_is_named(world: World) -> None:
    """The lock stands all the same, the other channels know of it, and the person knows who does not."""
    world.configure()
    world.channels.closed = {"C0STAGE"}
    answer = await world.type("lock all because a fire")
    assert "I could not write to <#C0STAGE>" in answer
    assert "*everything* is locked" in answer
    assert sorted(channel for channel, _ in world.channels.told) == ["C0DEV", "C0PROD"]
    assert [lock.scope for lock in await world.board.locks()] == [EVERYTHING]


@pytest.mark.parametrize("text", ["lock prod", "unlock prod", "lock prod until monday because x"])
async def test_what_is_refused_is_told_to_nobody_else(world: World, text: str) -> None:
    """No channel hears of a lock that is not there."""
    with pytest.raises(PromoteError):
        await world.type(text)
    assert world.channels.told == []
