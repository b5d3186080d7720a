"""Long random lives of promotions against a real server, compared with a model after every step.

Purely random steps end most lives early, and once missed a slot that was not taken again; so the rules walk along
legal transitions and prefer those that go on, and one rule takes a promotion all the way while others interfere.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from conftest import empty
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from store_bench import (
    DEV,
    NOON,
    PROD,
    STAGE,
    approved,
    committed,
    committing,
    new,
    superseded,
)

from bot.core.catalog import Target
from bot.core.errors import Conflict, TargetBusy
from bot.core.ports import Change, Settled
from bot.core.promotion import Phase, Promotion, PromotionId
from bot.integrations.store import RedisStore, connect

Told = TypeVar("Told")
AT_ONCE = timedelta(0)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
NOW, LATER = "now", "later"
SETTLED = "nothing this"
"""What the server holds of a delivery for which there was nothing to do."""
TARGETS = st.sampled_from([PROD.name, PROD.name, STAGE.name, DEV.name])
BY_NAME = {each.name: each for each in (PROD, STAGE, DEV)}
CLIENTS = st.integers(0, 1)
WHICH = st.integers(0, 1000)
INTERFERENCES = st.lists(
    st.sampled_from(["repeat", "repeat and more", "come late", "ask too", "look", "back"]), max_size=12
)

Way = Callable[[Promotion], Promotion]
ONWARD: dict[Phase, Way] = {
    Phase.REQUESTED: approved,
    Phase.APPROVED: committing,
    Phase.COMMITTING: committed,
    Phase.COMMITTED: lambda each: each.go_live(at=NOON, why="proved"),
}
ASIDE: dict[Phase, list[Way]] = {
    Phase.REQUESTED: [
        lambda each: each.reject(by="U2", at=NOON, why="no"),
        lambda each: each.expire(at=NOON, why="late"),
        superseded,
    ],
    Phase.APPROVED: [
        lambda each: each.lose_quorum(at=NOON, kept=(), why="left"),
        lambda each: each.expire(at=NOON, why="late"),
        lambda each: each.outdate(at=NOON, why="changed"),
    ],
    Phase.COMMITTING: [lambda each: each.reopen(at=NOON), lambda each: each.fail(at=NOON, why="refused")],
    Phase.COMMITTED: [lambda each: each.fail(at=NOON, why="degraded"), superseded],
}
BACK: dict[Phase, Way] = {
    Phase.APPROVED: lambda each: each.lose_quorum(at=NOON, kept=(), why="left"),
    Phase.COMMITTING: lambda each: each.reopen(at=NOON),
}


def late(before: Promotion) -> Change:
    """What somebody saves who has not heard of what came after."""
    return Change(before=before, after=before.cancel(by="U9", at=NOON, why="late"))


class Lives(RuleBasedStateMachine):
    """Two replicas on one server, and beside them what ought to be there."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        empty(self.url)
        self.runner = asyncio.Runner()
        self.stores = [RedisStore(connect(self.url, quick=False)) for _ in range(2)]
        self.raw = Redis.from_url(self.url, decode_responses=True, protocol=2)
        self.made = 0
        self.lives: dict[str, list[Promotion]] = {}
        self.deliveries: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.followed: dict[str, str] = {}
        self.due: dict[str, str] = {}
        self.leased: set[str] = set()
        self.woken: set[str] = set()
        self.workers: dict[str, int] = {}
        """Who claimed it last, and has not put it to rest."""
        self.old: set[str] = set()
        self.touched: set[str] = set()

    def teardown(self) -> None:
        """Leave no connection."""
        for store in self.stores:
            self.run(store.aclose())
        self.run(self.raw.aclose())
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, Told]) -> Told:
        return self.runner.run(work)

    def pick(self, which: int, *phases: Phase) -> Promotion | None:
        """One of those in these phases, or in none that is final."""
        found = [life[-1] for life in self.lives.values()]
        found = [each for each in found if (each.phase in phases if phases else not each.phase.is_final)]
        return found[which % len(found)] if found else None

    def new(self, where: Target) -> Promotion:
        """A new promotion, numbered: what is due at the same instant is claimed in the order of ids."""
        self.made += 1
        return replace(new(where), id=PromotionId(f"P-{self.made:010}"))

    def remember(self, *changed: Promotion) -> None:
        """What a save that was accepted means."""
        for each in changed:
            self.lives.setdefault(each.id, []).append(each)
            self.touched.add(each.id)
            if each.id not in self.leased:
                self.due[each.id] = NOW
            for slots in (self.holder, self.followed):
                if slots.get(each.target) == each.id:
                    del slots[each.target]
        for each in changed:
            if each.phase.holds and each.environment != "dev":
                self.holder[each.target] = each.id
            if each.phase is Phase.COMMITTED:
                self.followed[each.target] = each.id

    @rule(client=CLIENTS, where=TARGETS, delivery=st.sampled_from(["", "d1", "d2", "d3"]))
    def request(self, client: int, where: str, delivery: str) -> None:
        """A person asks, or Slack sends it again."""
        self.ask(client, BY_NAME[where], delivery)

    def ask(self, client: int, where: Target, delivery: str) -> None:
        """It is made, or the answer is the one that the delivery had, or who holds the target."""
        fresh = self.new(where)
        asking = self.stores[client].create(fresh, delivery=delivery or None, holds=where is not DEV)
        if self.deliveries.get(delivery) == SETTLED:
            with pytest.raises(Settled):
                self.run(asking)
        elif delivery in self.deliveries:
            assert self.run(asking) == self.deliveries[delivery]
        elif (holder := self.holder.get(where.name)) and where is not DEV:
            assert self.refusal(asking) == holder
        else:
            assert self.run(asking) == fresh.id
            self.remember(fresh)
            if delivery:
                self.deliveries[delivery] = fresh.id

    @rule(client=CLIENTS, delivery=st.sampled_from(["d1", "d2", "d3"]))
    def settle(self, client: int, delivery: str) -> None:
        """There is nothing to do for it, unless it has made a promotion."""
        made = self.run(self.stores[client].settle(delivery, said="this"))
        kept = self.deliveries.setdefault(delivery, SETTLED)
        assert made == (None if kept == SETTLED else kept)

    def refusal(self, asking: Coroutine[Any, Any, object]) -> str | None:
        try:
            self.run(asking)
        except TargetBusy as busy:
            return busy.holder
        return None

    @precondition(lambda self: self.pick(0))
    @rule(
        client=CLIENTS, which=WHICH, aside=st.sampled_from([None, None, None, 0, 1, 2]), again=st.booleans()
    )
    def step(self, client: int, which: int, aside: int | None, *, again: bool) -> None:
        """One legal step, three of four times onward; a commit supersedes the one that was followed."""
        before = self.pick(which)
        assert before is not None
        ways = ASIDE[before.phase]
        way = ONWARD[before.phase] if aside is None else ways[aside % len(ways)]
        changes = self.take(client, before, way)
        if again:
            self.save(1 - client, changes)

    def take(self, client: int, before: Promotion, way: Way) -> Sequence[Change]:
        """One step, saved; a commit supersedes the one that was followed."""
        after = way(before)
        changes = [Change(before=before, after=after)]
        older = self.followed.get(before.target)
        if after.phase is Phase.COMMITTED and older:
            old = self.lives[older][-1]
            changes.append(Change(before=old, after=superseded(old)))
        self.save(client, changes)
        self.remember(*(change.after for change in changes))
        return changes

    def save(self, client: int, changes: Sequence[Change]) -> None:
        holds = changes[0].after.environment != "dev"
        self.run(self.stores[client].save(changes, holds=holds))

    @rule(client=CLIENTS, where=TARGETS, which=WHICH, interferences=INTERFERENCES, end=st.booleans())
    def live_through(
        self, client: int, where: str, which: int, interferences: list[str], *, end: bool
    ) -> None:
        """A promotion goes the whole way at once; between its steps others repeat, come late, ask, look, undo."""
        each = self.waiting_at(client, BY_NAME[where])
        todo = list(interferences)
        while each.phase is not (Phase.LIVE if end else Phase.COMMITTED):
            interference = todo.pop() if todo else None
            way = BACK.get(each.phase) if interference == "back" else None
            changes = self.take(client, each, way or ONWARD[each.phase])
            each = changes[0].after
            if interference == "repeat":
                self.save(1 - client, changes)
            elif interference == "repeat and more":
                self.require_conflict(1 - client, *changes, Change(before=None, after=self.new(DEV)))
            elif interference == "come late":
                self.require_conflict(1 - client, late(self.lives[each.id][0]))
            elif interference == "ask too":
                self.ask(1 - client, BY_NAME[where], "")
            elif interference == "look":
                self.look(1 - client, which, stale=False, after=HOUR, lease=HOUR)
            self.run(self.compare())

    def waiting_at(self, client: int, where: Target) -> Promotion:
        """Who holds the target, or somebody new."""
        if holder := self.holder.get(where.name):
            return self.lives[holder][-1]
        fresh = self.new(where)
        self.run(self.stores[client].create(fresh, delivery=None, holds=where is not DEV))
        self.remember(fresh)
        return fresh

    @precondition(lambda self: self.pick(0, Phase.REQUESTED, Phase.APPROVED))
    @rule(client=CLIENTS, which=WHICH)
    def break_in(self, client: int, which: int) -> None:
        """A rollback takes the place of one that waits."""
        old = self.pick(which, Phase.REQUESTED, Phase.APPROVED)
        assert old is not None
        urgent = self.new(BY_NAME[old.target])
        changes = [Change(before=None, after=urgent), Change(before=old, after=superseded(old))]
        self.run(self.stores[client].save(changes, holds=old.environment != "dev"))
        self.remember(urgent, superseded(old))

    @precondition(lambda self: self.lives)
    @rule(client=CLIENTS, which=WHICH, back=st.integers(1, 3), mate=st.booleans())
    def come_late(self, client: int, which: int, back: int, *, mate: bool) -> None:
        """A save from an edition that is no more is refused whole, with everything in the same call."""
        life = list(self.lives.values())[which % len(self.lives)]
        if len(life) <= back or life[-1 - back].phase is not Phase.REQUESTED:
            return
        mates = [Change(before=None, after=self.new(DEV))] if mate else []
        self.require_conflict(client, *mates, late(life[-1 - back]))

    def require_conflict(self, client: int, *changes: Change) -> None:
        try:
            self.run(self.stores[client].save(changes, holds=True))
        except Conflict:
            return
        raise AssertionError("what is out of date was accepted")

    @precondition(lambda self: self.lives)
    @rule(
        client=CLIENTS,
        which=WHICH,
        stale=st.booleans(),
        after=st.sampled_from([AT_ONCE, HOUR]),
        lease=st.sampled_from([AT_ONCE, HOUR]),
    )
    def work(self, client: int, which: int, after: timedelta, lease: timedelta, *, stale: bool) -> None:
        """A worker claims what is due; one of it is looked at to the end, the rest stays claimed."""
        self.look(client, which, stale=stale, after=after, lease=lease)

    def look(self, client: int, which: int, *, stale: bool, after: timedelta, lease: timedelta) -> None:
        """Claim, renew, and rest with the edition that was known; without a lease the worker died at once."""
        store, waiting = self.stores[client], {id for id, when in self.due.items() if when == NOW}
        claimed = self.run(store.claim(limit=3, lease=lease))
        assert len(claimed) == len(set(claimed)) == min(3, len(waiting))
        assert set(claimed) <= waiting
        self.workers |= dict.fromkeys(claimed, client)
        if lease == AT_ONCE:
            self.leased -= set(claimed)
            return
        self.lease(*claimed)
        if claimed:
            self.rest(client, claimed[which % len(claimed)], stale=stale, after=after)

    def lease(self, *ids: str) -> None:
        """Somebody has these for an hour."""
        self.leased |= set(ids)
        self.due |= dict.fromkeys(ids, LATER)

    def rest(self, client: int, id: str, *, stale: bool, after: timedelta) -> None:
        """Put to rest by whoever has it; by anybody else only where nobody has it any more."""
        latest = self.lives[id][-1]
        never = latest.phase.is_final
        pause = None if never else after
        self.run(self.stores[client].rest(id, edition=latest.edition - stale, after=pause))
        if id in self.leased and self.workers[id] != client:
            return
        self.workers.pop(id, None)
        self.leased.discard(id)
        again = stale or id in self.woken
        self.woken.discard(id)
        self.due[id] = NOW if again or after == AT_ONCE else LATER
        if never and not again:
            del self.due[id]

    @precondition(lambda self: self.leased)
    @rule(client=CLIENTS, which=WHICH, stale=st.booleans(), after=st.sampled_from([AT_ONCE, HOUR]))
    def end_work(self, client: int, which: int, after: timedelta, *, stale: bool) -> None:
        """What was claimed some steps ago, and may have changed since, comes to its rest."""
        working = [id for id in self.lives if id in self.leased]
        self.rest(client, working[which % len(working)], stale=stale, after=after)

    @precondition(lambda self: self.lives)
    @rule(client=CLIENTS, which=WHICH)
    def renew(self, client: int, which: int) -> None:
        """A worker puts off what it works on, and nothing else."""
        id = list(self.lives)[which % len(self.lives)]
        self.run(self.stores[client].renew([id], lease=HOUR))
        if self.workers.get(id) == client:
            self.lease(id)

    @precondition(lambda self: self.lives)
    @rule(client=CLIENTS, which=WHICH)
    def wake(self, client: int, which: int) -> None:
        """Somebody wants it looked at."""
        id = list(self.lives)[which % len(self.lives)]
        self.run(self.stores[client].wake(id))
        if id in self.leased:
            self.woken.add(id)
        else:
            self.due[id] = NOW

    @precondition(lambda self: self.lives)
    @rule(which=WHICH)
    def grow_old(self, which: int) -> None:
        """One, if it has ended, came to its end long ago."""
        id, life = list(self.lives.items())[which % len(self.lives)]
        if life[-1].phase.is_final:
            key = f"{{gp}}:ph:{life[-1].phase}"
            self.run(self.increase(key, id, -2 * WEEK))
            self.old.add(id)

    async def increase(self, key: str, id: str, by: timedelta) -> None:
        await self.raw.zincrby(key, by / timedelta(milliseconds=1), id)

    @precondition(lambda self: self.old)
    @rule(client=CLIENTS)
    def sweep(self, client: int) -> None:
        """What is old and not due any more goes, whole; everything else stays."""
        lines: list[str] = []
        gone = self.old - set(self.due)
        counted = self.run(self.stores[client].sweep(before_days=WEEK, write=lines.append, limit=100))
        assert counted == len(gone)
        assert {json.loads(line)["record"]["id"] for line in lines} >= gone
        for id in gone:
            assert self.run(self.stores[client].load(id)) is None
            del self.lives[id]
        self.old -= gone

    @invariant()
    def holds_true(self) -> None:
        """Everything on the server is what the model says."""
        self.run(self.compare())

    async def compare(self) -> None:
        """Records, stories, slots, phases, due set, indexes and deliveries."""
        found = await self.everything()
        members: dict[str, list[str]] = {id: [] for id in self.lives}
        for phase in Phase:
            for id in found[f"ph:{phase}"]:
                members[id].append(phase)
        for id, life in self.lives.items():
            assert [each.last.edition for each in life] == list(range(1, len(life) + 1))
            assert (found[f"p:{id}"], found[f"p:{id}:e"]) == (str(len(life)), len(life))
            assert members[id] == [life[-1].phase]
        for where in BY_NAME.values():
            assert found[f"hold:{where.name}"] == self.holder.get(where.name)
            assert found[f"follow:{where.name}"] == self.followed.get(where.name)
            assert found[f"ix:{where.name}"] == [
                id for id, life in self.lives.items() if life[0].target == where.name
            ]
        due = {id: NOW if at <= found["time"] else LATER for id, at in found["due at"]}
        assert due == self.due
        assert {id for id, at in found["leases"].items() if float(at) > found["time"]} == self.leased
        for delivery, id in self.deliveries.items():
            assert found[f"req:{delivery}"] == id
        for id in self.touched & set(self.lives):
            assert await self.stores[0].load(id) == self.lives[id][-1]
            assert await self.stores[1].events(id) == tuple(each.last for each in self.lives[id])
        self.touched.clear()

    async def everything(self) -> dict[str, Any]:
        """The server's keys, without their tag, in one round trip: sets and indexes as lists, counts of stories."""
        sets = [f"ph:{phase}" for phase in Phase]
        words = [f"req:{delivery}" for delivery in self.deliveries]
        for where in BY_NAME.values():
            sets.append(f"ix:{where.name}")
            words += [f"hold:{where.name}", f"follow:{where.name}"]
        records = [f"p:{id}" for id in self.lives]
        async with self.raw.pipeline(transaction=False) as pipeline:
            for key in sets:
                pipeline.zrange(f"{{gp}}:{key}", 0, -1)
            for key in words:
                pipeline.get(f"{{gp}}:{key}")
            for key in records:
                pipeline.hget(f"{{gp}}:{key}", "edition")
                pipeline.llen(f"{{gp}}:{key}:e")
            pipeline.zrange("{gp}:due", 0, -1, withscores=True)
            pipeline.hgetall("{gp}:leases")
            pipeline.time()
            names = [*sets, *words, *(name for key in records for name in (key, f"{key}:e"))]
            found = dict(zip([*names, "due at", "leases", "time"], await pipeline.execute(), strict=True))
        seconds, fraction = found["time"]
        return found | {"time": seconds * 1000 + fraction / 1000}


def test_every_life_of_promotions_keeps_the_invariants(redis_url: str) -> None:
    """Editions without gaps, one holder, one phase, due until done, one delivery one promotion."""

    class LivesHere(Lives):
        url = redis_url

    run_state_machine_as_test(
        LivesHere, settings=settings(max_examples=25, stateful_step_count=40, deadline=None)
    )
