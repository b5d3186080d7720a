"""Long random lives of promotions against a real server, compared with a model after every step.

Purely random steps end most lives early, and once missed a slot that was not taken again; so the rules walk along
legal transitions and prefer those that go on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

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
from bot.core.ports import Change
from bot.core.promotion import Phase, Promotion
from bot.integrations.store import RedisStore, connect

Told = TypeVar("Told")
HOUR = timedelta(hours=1)
TARGETS = st.sampled_from([PROD, PROD, STAGE, DEV])
CLIENTS = st.integers(0, 1)
WHICH = st.integers(0, 1000)

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


class Lives(RuleBasedStateMachine):
    """Two replicas on one server, and beside them what ought to be there."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        empty(self.url)
        self.runner = asyncio.Runner()
        self.stores = [RedisStore(connect(self.url, quick=False)) for _ in range(2)]
        self.raw = Redis.from_url(self.url, decode_responses=True, protocol=2)
        self.lives: dict[str, list[Promotion]] = {}
        self.deliveries: dict[str, str] = {}
        self.holder: dict[str, str] = {}
        self.followed: dict[str, str] = {}
        self.resting: set[str] = set()
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

    def remember(self, *changed: Promotion) -> None:
        """What a save that was accepted means."""
        for each in changed:
            self.lives.setdefault(each.id, []).append(each)
            self.resting.discard(each.id)
            self.touched.add(each.id)
            for slots in (self.holder, self.followed):
                if slots.get(each.target) == each.id:
                    del slots[each.target]
        for each in changed:
            if each.phase.holds and each.environment != "dev":
                self.holder[each.target] = each.id
            if each.phase is Phase.COMMITTED:
                self.followed[each.target] = each.id

    @rule(client=CLIENTS, where=TARGETS, delivery=st.sampled_from(["", "d1", "d2", "d3"]))
    def request(self, client: int, where: Target, delivery: str) -> None:
        """A person asks, or Slack sends it again."""
        fresh = new(where)
        asking = self.stores[client].create(fresh, delivery=delivery or None, holds=where is not DEV)
        if delivery in self.deliveries:
            assert self.run(asking) == self.deliveries[delivery]
        elif (holder := self.holder.get(where.name)) and where is not DEV:
            assert self.refusal(asking) == holder
        else:
            assert self.run(asking) == fresh.id
            self.remember(fresh)
            if delivery:
                self.deliveries[delivery] = fresh.id

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
        after = ONWARD[before.phase](before) if aside is None else ways[aside % len(ways)](before)
        changes = [Change(before=before, after=after)]
        older = self.followed.get(before.target)
        if after.phase is Phase.COMMITTED and older:
            old = self.lives[older][-1]
            changes.append(Change(before=old, after=superseded(old)))
        holds = before.environment != "dev"
        for _ in range(1 + again):
            self.run(self.stores[client].save(changes, holds=holds))
        self.remember(*(change.after for change in changes))

    @precondition(lambda self: self.pick(0, Phase.REQUESTED, Phase.APPROVED))
    @rule(client=CLIENTS, which=WHICH)
    def break_in(self, client: int, which: int) -> None:
        """A rollback takes the place of one that waits."""
        old = self.pick(which, Phase.REQUESTED, Phase.APPROVED)
        assert old is not None
        urgent = new({each.name: each for each in (PROD, STAGE, DEV)}[old.target])
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
        before = life[-1 - back]
        changes = [Change(before=before, after=before.cancel(by="U9", at=NOON, why="late"))]
        if mate:
            changes.insert(0, Change(before=None, after=new(DEV)))
        try:
            self.run(self.stores[client].save(changes, holds=True))
        except Conflict:
            return
        raise AssertionError("a save from an old edition was accepted")

    @precondition(lambda self: self.lives)
    @rule(client=CLIENTS, which=WHICH, stale=st.booleans(), after=st.sampled_from([timedelta(0), HOUR]))
    def work(self, client: int, which: int, stale: bool, after: timedelta) -> None:
        """A worker claims, renews, and rests with the edition that it knew."""
        store = self.stores[client]
        claimed = self.run(store.claim(limit=3, lease=HOUR))
        assert len(set(claimed)) == len(claimed)
        if claimed:
            id = claimed[which % len(claimed)]
            latest = self.lives[id][-1]
            self.run(store.renew([id], lease=HOUR))
            known = latest.edition - stale
            self.run(store.rest(id, edition=known, after=None if latest.phase.is_final else after))
            if latest.phase.is_final and not stale:
                self.resting.add(id)

    @precondition(lambda self: self.lives)
    @rule(client=CLIENTS, which=WHICH)
    def wake(self, client: int, which: int) -> None:
        """Somebody wants it looked at."""
        id = list(self.lives)[which % len(self.lives)]
        self.run(self.stores[client].wake(id))
        self.resting.discard(id)

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
        for where in (PROD, STAGE, DEV):
            assert found[f"hold:{where.name}"] == self.holder.get(where.name)
            assert found[f"follow:{where.name}"] == self.followed.get(where.name)
            assert found[f"ix:{where.name}"] == [
                id for id, life in self.lives.items() if life[0].target == where.name
            ]
        assert set(found["due"]) == set(self.lives) - self.resting
        for delivery, id in self.deliveries.items():
            assert found[f"req:{delivery}"] == id
        for id in self.touched:
            assert await self.stores[0].load(id) == self.lives[id][-1]
            assert await self.stores[1].events(id) == tuple(each.last for each in self.lives[id])
        self.touched.clear()

    async def everything(self) -> dict[str, Any]:
        """The server's keys, without their tag, in one round trip: sets and indexes as lists, counts of stories."""
        sets = ["due", *(f"ph:{phase}" for phase in Phase)]
        words = [f"req:{delivery}" for delivery in self.deliveries]
        for where in (PROD, STAGE, DEV):
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
            names = [*sets, *words, *(name for key in records for name in (key, f"{key}:e"))]
            return dict(zip(names, await pipeline.execute(), strict=True))


def test_every_life_of_promotions_keeps_the_invariants(redis_url: str) -> None:
    """Editions without gaps, one holder, one phase, due until done, one delivery one promotion."""

    class LivesHere(Lives):
        url = redis_url

    run_state_machine_as_test(
        LivesHere, settings=settings(max_examples=30, stateful_step_count=50, deadline=None)
    )
