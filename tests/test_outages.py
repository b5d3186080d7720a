"""An hour without one of the others: everybody is told the truth meanwhile, and afterwards it goes on by itself."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from conftest import empty
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Part
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs
from world import AMY, BEN, CHANNEL, DANA, GROUP, ROLLOUT, World, wait_until, world_in

from bot.core.advance import Engine
from bot.core.errors import Unavailable
from bot.core.ports import Change
from bot.core.promotion import Event, Phase
from bot.integrations import embedded
from bot.integrations.redis_address import Client
from bot.integrations.store import RedisStore, connect
from bot.messages.thread import story
from bot.playground.slack.faults import Call
from bot.playground.workshop import CHANNEL as WORKSHOP_CHANNEL
from bot.playground.workshop import DANA as WORKSHOP_DANA
from bot.playground.workshop import Workshop
from bot.worker import Worker

LEASE = timedelta(seconds=15)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SLACK_WAITS = 3.0
"""Seconds in which an app has to answer."""
PROD_APPROVALS = {"rules": [{"users": [AMY, BEN], "min": 1}], "expires": "4h"}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


class Timetable:
    """Does what a worker does, by the world's clock: each promotion is advanced when it is due, oldest first."""

    def __init__(self, world: World, *ids: str, engine: Engine | None = None) -> None:
        self.calls: list[tuple[datetime, Call]] = []
        """Every call of Slack's that an advance has made, and when."""
        self._world = world
        self._engine = engine
        self._due = dict.fromkeys(ids, world.clock.at)

    def wake(self, *ids: str) -> None:
        """Somebody has changed these: they are due now."""
        self._due |= dict.fromkeys(ids, self._world.clock.at)

    async def run(self, span: timedelta) -> None:
        """Advance whatever is due, for so long."""
        ends_at = self._world.clock.at + span
        while self._due and (soonest := min(self._due.values())) <= ends_at:
            self._move_to(soonest)
            await self._advance(next(id for id, at in self._due.items() if at == soonest))
        self._move_to(ends_at)

    async def rest(self, *, within: timedelta = 2 * HOUR) -> None:
        """Advance until nothing is left to do or to show."""
        ends_at = self._world.clock.at + within
        while self._due:
            assert self._world.clock.at <= ends_at, f"not at rest after {within}: {self._due}"
            await self.run(max(timedelta(0), min(self._due.values()) - self._world.clock.at))

    async def _advance(self, id: str) -> None:
        before = len(self._world.slack.requests)
        began_at = self._world.clock.at
        try:
            after = await self._world.advance(id, self._engine)
        except Unavailable as error:
            if error.system != "the store":
                raise
            after = LEASE
        self.calls += [(began_at, call) for call in self._world.slack.requests[before:]]
        if after is None:
            del self._due[id]
        else:
            self._due[id] = self._world.clock.at + after

    def _move_to(self, moment: datetime) -> None:
        self._world.passes(max(0.0, (moment - self._world.clock.at).total_seconds()))


def patient(world: World) -> None:
    """Let every rollout have two hours."""
    rollout = {"rollout": {**ROLLOUT, "timeout": "2h"}}
    policies = {"dev": rollout, "stage": rollout, "prod": {**rollout, "approvals": PROD_APPROVALS}}
    world.parts = replace(world.parts, catalog=world.configure(policies=policies))
    world.engine = world.new_engine()


async def require_the_whole_story(world: World, id: str, *, told_twice: int = 0) -> None:
    """The card shows the phase, and its thread every event in order; each line once, but so many."""
    promotion, place = await world.find(id), await world.store.card(id)
    events = await world.store.events(id)
    assert [event.edition for event in events] == list(range(1, promotion.edition + 1))
    assert (place.phase, place.told) == (promotion.phase, promotion.edition)
    wanted = [line for event in events if (line := story(promotion, [event]))]
    told = (await world.thread(id)).splitlines()
    assert list(dict.fromkeys(told)) == list(dict.fromkeys(wanted))
    assert sum((Counter(told) - Counter(wanted)).values()) <= told_twice


def cards_of(world: World, id: str) -> list[str]:
    """What every message says that is a card of this promotion."""
    mark = {"event_type": "promotion", "event_payload": {"id": id}}
    return [message.text for message in world.cards() if message.metadata == mark]


async def phases(world: World, *ids: str) -> list[Phase]:
    return [(await world.find(id)).phase for id in ids]


# --- Argo CD


async def test_argo_cd_away_for_an_hour_of_two_rollouts(world: World) -> None:
    """Both cards say so and stay as they are; when it is back, both rollouts are followed to their end."""
    patient(world)
    prod, stage = await world.committed(), await world.request("stage")
    await world.advance_until(stage, Phase.COMMITTED)
    timetable = Timetable(world, prod, stage)
    await timetable.run(timedelta(seconds=4))
    asked, world.argocd.down = len(world.argocd.requests), True
    await timetable.run(HOUR / 2)
    for id in (prod, stage):
        shown = await world.shown(id)
        assert shown.startswith("Rolling out: manual-app")
        assert "Argo CD is not available" in shown
        assert "the commit is pushed; asking again" in shown
    await timetable.run(HOUR / 2)
    assert await phases(world, prod, stage) == [Phase.COMMITTED, Phase.COMMITTED]
    assert len(world.argocd.requests) - asked <= 2 * HOUR / timedelta(seconds=14), "a flood of questions"
    world.argocd.down = False
    await timetable.rest(within=10 * MINUTE)
    assert await phases(world, prod, stage) == [Phase.LIVE, Phase.LIVE]
    for id in (prod, stage):
        assert "is not available" not in await world.shown(id)
        await require_the_whole_story(world, id)


async def test_an_outage_longer_than_the_rollout_may_last_ends_as_unknown(world: World) -> None:
    """Neither live nor broken: it says that nobody knows, also when Argo CD is back."""
    id = await world.committed()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=2))
    world.argocd.down = True
    await timetable.run(10 * MINUTE)
    shown = await world.shown(id)
    assert shown.startswith("Argo CD unreachable: manual-app 15 to prod")
    assert "nobody knows whether it is live: Argo CD is not available" in shown
    await timetable.run(HOUR)
    world.argocd.down = False
    await timetable.rest()
    assert await world.shown(id) == shown
    await require_the_whole_story(world, id)


async def test_a_request_that_needs_argo_cd_is_answered(world: World) -> None:
    """Nobody can say what stage runs: the person hears what is away, and that nothing was recorded."""
    async with world.hearing():
        world.argocd.down = True
        await world.command("manual-app prod")
        told = await world.answer()
    assert "Argo CD is not available" in told
    assert "Nothing was recorded; try again in a moment." in told
    assert await world.pending() == []


# --- Slack

MESSAGES = ("chat.postMessage", "chat.update", "chat.getPermalink")


async def test_messages_away_for_an_hour_hide_the_whole_life_of_two_promotions(world: World) -> None:
    """Approved, written and live meanwhile, as everybody hears who asks; then each card and thread tells it all."""
    prod, stage = await world.request(), await world.request("stage")
    timetable = Timetable(world, prod)
    await timetable.run(timedelta(seconds=10))
    async with world.hearing():
        world.slack.faults.errors |= dict.fromkeys(MESSAGES, "service_unavailable")
        assert (await world.press(prod, "approve", user=AMY)).error is None
        timetable.wake(prod, stage)
        with capture_logs() as logs:
            await timetable.run(HOUR)
        assert await phases(world, prod, stage) == [Phase.LIVE, Phase.LIVE]
        assert (await world.shown(prod)).startswith("Approval needed")
        await world.press(prod, "approve", user=BEN)
        assert "it is live since" in await world.answer(BEN)
    assert ("Slack refused a call", "service_unavailable") in {
        (each["event"], each.get("error")) for each in logs
    }
    world.slack.faults.errors.clear()
    await timetable.rest(within=HOUR / 6)
    for id in (prod, stage):
        assert [text[:4] for text in cards_of(world, id)] == ["Live"]
        await require_the_whole_story(world, id)


@pytest.mark.parametrize(("away", "ends"), [(20 * MINUTE, Phase.LIVE), (HOUR, Phase.EXPIRED)])
async def test_without_slack_nobody_can_be_asked_about_an_approval(
    world: World, away: timedelta, ends: Phase
) -> None:
    """Nothing is written meanwhile; within half an hour of the approval it is written later, then not at all."""
    id = await world.approved()
    timetable = Timetable(world, id)
    world.slack.down = True
    await timetable.run(away)
    assert (world.value(), world.commits()) == ("14", [])
    if ends is Phase.LIVE:
        waits = (await world.store.look(id)).waits_for
        assert waits == "Slack is not available: it says internal_error; trying again"
    world.slack.down = False
    await timetable.rest()
    promotion = await world.find(id)
    assert (promotion.phase, len(world.commits())) == (ends, int(ends is Phase.LIVE))
    assert (ends is Phase.EXPIRED) == ("within 30 min of its approval" in await world.thread(id))
    assert len(cards_of(world, id)) == 1
    await require_the_whole_story(world, id)


# --- the git host


@pytest.mark.parametrize(("away", "ends"), [(20 * MINUTE, Phase.LIVE), (HOUR, Phase.EXPIRED)])
async def test_the_git_host_away_between_approval_and_commit_of_two(
    world: World, away: timedelta, ends: Phase
) -> None:
    """Both cards name it; both are written within half a minute of its return, or, half an hour late, neither."""
    prod = await world.request()
    stage = await world.request("stage")
    await world.promoter.approve(prod, user=AMY)
    timetable = Timetable(world, prod, stage)
    with world.git_host_away():
        await timetable.run(20 * MINUTE)
        for id in (prod, stage):
            assert "the git host is not available" in await world.shown(id)
        await timetable.run(away - 20 * MINUTE)
    await timetable.run(timedelta(seconds=31))
    assert [len(world.commits(id)) for id in (prod, stage)] == [int(ends is Phase.LIVE)] * 2
    await timetable.rest()
    assert await phases(world, prod, stage) == [ends, ends]
    assert [world.value(each) for each in ("prod", "stage")] == (
        ["15", "16"] if ends is Phase.LIVE else ["14", "15"]
    )
    for id in (prod, stage):
        assert "is not available" not in await world.shown(id)
        await require_the_whole_story(world, id)


async def test_the_git_host_away_in_the_middle_of_a_rollout_fails_nothing(world: World) -> None:
    """Neither Argo CD nor the bot can look at the commit: that is waited for, as any other outage is."""
    patient(world)
    id = await world.committed()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=4))
    with world.git_host_away():
        await timetable.run(20 * MINUTE)
    await timetable.rest()
    assert (await world.find(id)).phase is Phase.LIVE


async def test_of_two_that_waited_for_the_git_host_the_later_request_wins(world: World) -> None:
    """Dev is never held: whatever of the older one is written, is written before the newer one."""
    older, newer = await world.request("dev", "17"), await world.request("dev", "18")
    timetable = Timetable(world, older, newer)
    with world.git_host_away():
        await timetable.run(20 * MINUTE)
    await timetable.rest()
    assert (world.value("dev"), (await world.find(newer)).phase) == ("18", Phase.LIVE)
    assert (await world.find(older)).phase is Phase.SUPERSEDED
    for id in (older, newer):
        await require_the_whole_story(world, id)


# --- the store


class OwnStore:
    """A server for one test alone, which may be killed, started again, and made mute."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded.start(folder)
        self.url = self._server.url

    def kill(self) -> None:
        """End it at once, as a crash does."""
        os.kill(self.pid, signal.SIGKILL)

    def start_again(self) -> None:
        """The next server on the same data."""
        self._server._sign.close()
        self._server = embedded.start(self._folder)

    @property
    def pid(self) -> int:
        """The server's process."""
        with Redis.from_url(self.url) as client:
            return int(client.info("server")["process_id"])

    @contextlib.contextmanager
    def mute(self) -> Iterator[None]:
        """It hears everything and answers nothing."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def close(self) -> None:
        """End it."""
        await self._server.stop()


@pytest.fixture
async def own_store(tmp_path: Path) -> AsyncIterator[OwnStore]:
    """Ends after every world that uses it."""
    made = OwnStore(tmp_path / "store")
    yield made
    await made.close()


@pytest.fixture
async def own_world(tmp_path: Path, own_store: OwnStore) -> AsyncIterator[World]:
    """A world with a store that may come to harm."""
    async with world_in(tmp_path / "world", own_store.url) as made:
        yield made


class Harmed:
    """A port; before or after the nth of these calls the store is killed, and comes back only when it is started."""

    def __init__(self, port: Any, call: str, nth: int, *, done: bool, harm: Callable[[], Any]) -> None:
        self._port = port
        self._call = call
        self._left = nth
        self._done = done
        self._harm = harm

    def __getattr__(self, name: str) -> Any:
        return self._crossing if name == self._call else getattr(self._port, name)

    async def _crossing(self, *args: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left == 0 and not self._done:
            await self._harm()
        answer = await getattr(self._port, self._call)(*args, **options)
        if self._left == 0 and self._done:
            await self._harm()
        return answer


PORTS = {
    "store": {"save", "save_card", "save_look"},
    "announcer": {"post", "edit", "tell"},
    "values": {"commit"},
    "cluster": {"observe"},
}
POINTS = [
    ("post", 1, True),
    ("tell", 1, True),
    ("save", 1, False),
    ("save", 1, True),
    ("save", 2, False),
    ("save", 2, True),
    ("commit", 1, False),
    ("commit", 1, True),
    ("save", 3, True),
    ("edit", 2, True),
    ("observe", 2, True),
    ("save_look", 3, False),
    ("save", 4, False),
    ("save", 4, True),
    ("save_card", 5, True),
]
"""A call, the how manieth since the approval, and whether the store is killed after it."""


@pytest.mark.parametrize(("call", "nth", "done"), POINTS)
async def test_a_store_that_is_killed_loses_nothing(
    own_world: World, own_store: OwnStore, call: str, nth: int, done: bool
) -> None:
    """Whatever was saved is there again when it is; everything goes on by itself, to one commit that is live."""
    world = own_world
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    known: list[Event] = []

    async def kill() -> None:
        known.extend(await world.new_store().events(id))
        own_store.kill()

    [part] = [part for part, calls in PORTS.items() if call in calls]
    port = Harmed(getattr(world.parts, part), call, nth, done=done, harm=kill)
    timetable = Timetable(world, id, engine=world.new_engine(**{part: port}))
    for _ in range(60):
        if known:
            break
        await timetable.run(timedelta(seconds=1))
    assert known, "it was never killed"
    with pytest.raises(Unavailable, match="the store is not available: it cannot be reached"):
        await world.store.load(id)
    own_store.start_again()
    assert list(await world.store.events(id))[: len(known)] == known
    await timetable.rest()
    assert ((await world.find(id)).phase, len(world.commits())) == (Phase.LIVE, 1)
    assert (await world.shown(id)).startswith("Live")
    assert len(cards_of(world, id)) <= 1 + (call == "post")
    await require_the_whole_story(world, id, told_twice=2 * (call == "tell"))


async def test_two_promotions_go_on_when_a_killed_store_is_back(
    own_world: World, own_store: OwnStore
) -> None:
    """People hear within three seconds that nothing was recorded; afterwards both end, one commit each."""
    world = own_world
    prod, stage = await world.request(), await world.request("stage")
    timetable = Timetable(world, prod, stage)
    await timetable.run(timedelta(seconds=1))
    ts = (await world.card(prod)).ts
    quick = RedisStore(connect(own_store.url, quick=True))
    async with world.hearing(world.new_promoter(store=quick)):
        own_store.kill()
        await timetable.run(MINUTE)
        began = time.monotonic()
        await world.command("manual-app 17 dev")
        await world.slack.click(AMY, CHANNEL, ts, "promotion_approve")
        for user in (DANA, AMY):
            told = await world.answer(user)
            assert "The store is not available: it cannot be reached. Nothing was recorded" in told
        assert time.monotonic() - began < SLACK_WAITS
        own_store.start_again()
        assert (await world.find(prod)).approvals == await world.store.history(world.target("dev")) == ()
        await world.slack.click(AMY, CHANNEL, ts, "promotion_approve")
    timetable.wake(prod)
    await timetable.rest()
    assert await phases(world, prod, stage) == [Phase.LIVE, Phase.LIVE]
    assert len(world.commits()) == 2
    for id in (prod, stage):
        await require_the_whole_story(world, id)
    await quick.aclose()


@contextlib.asynccontextmanager
async def working(world: World) -> AsyncIterator[None]:
    """The real worker, which is due by the store's own clock."""
    worker = Worker(engine=world.engine, queue=world.store, lease=timedelta(seconds=1))
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await world.moving(worker.stop(5))
        await running


class Muting(RedisStore):
    """It goes mute at the very moment when something is to be saved."""

    def __init__(self, client: Client, mute: Callable[[], Any]) -> None:
        super().__init__(client)
        self._mute = mute

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Nobody hears whether it is."""
        self._mute()
        await super().save(changes, holds=holds)


async def test_a_mute_store_is_told_truly_and_the_worker_goes_on(
    own_world: World, own_store: OwnStore
) -> None:
    """Before anything was sent, nothing was recorded; after that nobody knows, and pressing again is safe."""
    world = own_world
    quick = RedisStore(connect(own_store.url, quick=True))
    async with working(world):
        id = await world.request()
        await world.until(world.cards, "the card is posted")
        card = world.cards()[0]
        async with world.hearing(world.new_promoter(store=quick)):
            with own_store.mute():
                began = time.monotonic()
                pressed = await world.slack.click(AMY, CHANNEL, card.ts, "promotion_approve")
                told = await world.answer(AMY)
                assert (pressed.error, time.monotonic() - began < SLACK_WAITS) == (None, True)
            assert "it did not answer in time. Nothing was recorded; try again in a moment." in told
            assert (await world.find(id)).approvals == ()
        with contextlib.ExitStack() as muted:
            muting = Muting(connect(own_store.url, quick=True), lambda: muted.enter_context(own_store.mute()))
            async with world.hearing(world.new_promoter(store=muting)):
                began = time.monotonic()
                await world.slack.click(AMY, CHANNEL, card.ts, "promotion_approve")
                told = await world.answer(AMY, number=2)
                assert time.monotonic() - began < SLACK_WAITS
        assert "I could not confirm that it was recorded; look at the card, pressing again is safe." in told
        async with world.hearing():
            await world.slack.click(AMY, CHANNEL, card.ts, "promotion_approve", seen=card)
        await world.until(lambda: world.commits(id), "the worker goes on")
    assert len((await world.find(id)).approvals) == 1
    assert len(world.commits()) == 1
    await quick.aclose()
    await muting.aclose()


async def test_a_bot_whose_store_is_mute_is_alive_and_not_ready(tmp_path: Path) -> None:
    """The real process says so, answers people all the same, and is ready again without a restart."""
    workshop = Workshop(tmp_path / "workshop")
    try:
        await workshop.start()
        store = OwnStore(workshop.folder / "data")
        with store.mute():
            began = time.monotonic()
            assert await status(workshop, "/readyz") == (
                503,
                "the store is not available: it did not answer in time",
            )
            assert time.monotonic() - began < SLACK_WAITS
            assert await status(workshop, "/healthz") == (200, "ok")
            began = time.monotonic()
            await workshop.slack.command(WORKSHOP_DANA, WORKSHOP_CHANNEL, "manual-app 15 dev")
            await wait_until(lambda: workshop.slack.ephemerals(WORKSHOP_DANA), "the person is told")
            assert time.monotonic() - began < SLACK_WAITS
        told = workshop.slack.ephemerals(WORKSHOP_DANA)[0].text
        assert "it did not answer in time. Nothing was recorded; try again in a moment." in told
        assert await status(workshop, "/readyz") == (200, "ready")
        await workshop.slack.command(WORKSHOP_DANA, WORKSHOP_CHANNEL, "manual-app 15 dev")
        await wait_until(lambda: workshop.slack.messages(WORKSHOP_CHANNEL), "it works again")
        await store.close()
    finally:
        await workshop.stop()


async def status(workshop: Workshop, path: str) -> tuple[int, str]:
    """What the operations port says."""
    address = f"http://127.0.0.1:{workshop.operations_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        return answer.status, await answer.text()


# --- any of them, in any order


@contextlib.contextmanager
def away(world: World, store: OwnStore, system: str) -> Iterator[None]:
    """One of the others does not answer."""
    with contextlib.ExitStack() as afterwards:
        if system == "Argo CD":
            world.argocd.down = True
            afterwards.callback(setattr, world.argocd, "down", False)
        elif system == "Slack":
            world.slack.down = True
            afterwards.callback(setattr, world.slack, "down", False)
        elif system == "the git host":
            afterwards.enter_context(world.git_host_away())
        else:
            store.kill()
            afterwards.callback(store.start_again)
        yield


OTHERS = ["Argo CD", "Slack", "the store"]
SPANS = st.integers(1, 400)
"""Seconds; four of them are over within half an hour."""
BEFORE_THE_COMMIT = st.tuples(st.sets(st.sampled_from(["the git host", *OTHERS])), SPANS)
LATER = st.tuples(st.sets(st.sampled_from(OTHERS), min_size=1), SPANS)
"""Who is away, and for how many seconds."""
PAUSES = st.lists(st.integers(0, 15), min_size=4, max_size=4)
"""Seconds after each outage."""


@settings(
    max_examples=15,
    deadline=None,
    phases=[Part.explicit, Part.reuse, Part.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(first=BEFORE_THE_COMMIT, later=st.lists(LATER, max_size=3), pauses=PAUSES)
async def test_whoever_is_away_and_whenever_it_goes_on_by_itself(
    own_store: OwnStore,
    first: tuple[set[str], int],
    later: list[tuple[set[str], int]],
    pauses: list[int],
) -> None:
    """Approved is approved: one commit, live, one card with the truth, and a thread with each line once."""
    empty(own_store.url)
    with TemporaryDirectory() as folder:
        async with world_in(Path(folder), own_store.url) as world:
            patient(world)
            id = await world.request()
            await world.promoter.approve(id, user=AMY)
            timetable = Timetable(world, id)
            for (systems, lasts), pause in zip((first, *later), pauses, strict=False):
                with contextlib.ExitStack() as everybody:
                    for system in sorted(systems):
                        everybody.enter_context(away(world, own_store, system))
                    await timetable.run(timedelta(seconds=lasts))
                await timetable.run(timedelta(seconds=pause))
            await timetable.rest()
            assert ((await world.find(id)).phase, len(world.commits())) == (Phase.LIVE, 1)
            assert [text[:4] for text in cards_of(world, id)] == ["Live"]
            await require_the_whole_story(world, id)


# --- what Slack does to us

PAUSE = 40


def _in_thread(method: str, args: dict[str, Any]) -> bool:
    return method == "chat.postMessage" and "thread_ts" in args


KINDS: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "the card": lambda method, args: method == "chat.postMessage" and "thread_ts" not in args,
    "its link": lambda method, _: method == "chat.getPermalink",
    "an edit": lambda method, _: method == "chat.update",
    "a line of the thread": _in_thread,
    "a person": lambda method, _: method == "users.info",
    "a group": lambda method, _: method == "usergroups.users.list",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_pause_that_slack_asks_for_is_kept(tmp_path: Path, redis_url: str, kind: str) -> None:
    """No call of that kind comes before its time, and in the end the card and the thread tell everything."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": GROUP, "min": 1}]) as world:
        world.slack.add_group(GROUP, handle="release", users=[AMY])
        id = await world.request()
        await world.promoter.approve(id, user=AMY)
        world.slack.faults.rate_limit(calls=1, retry_after=PAUSE, where=KINDS[kind])
        timetable = Timetable(world, id)
        await timetable.rest()
        assert (await world.find(id)).phase is Phase.LIVE
        assert (await world.shown(id)).startswith("Live")
        assert len(cards_of(world, id)) == 1
        await require_the_whole_story(world, id)
    calls = [(at, call.error) for at, call in timetable.calls if KINDS[kind](call.method, call.args)]
    refused = [error for _, error in calls].index("ratelimited")
    pauses = [at - calls[refused][0] for at, _ in calls[refused + 1 :]]
    assert all(pause >= timedelta(seconds=PAUSE) for pause in pauses), pauses[0]


async def test_a_reminder_that_slack_puts_off_comes_later(world: World) -> None:
    """It stands in the thread once, and nobody hears of it before its time."""
    id = await world.request()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(minutes=29))
    world.slack.faults.rate_limit(calls=1, retry_after=PAUSE, where=_in_thread)
    await timetable.run(MINUTE + timedelta(seconds=PAUSE - 1))
    assert "Still waiting for approval" not in await world.thread(id)
    assert world.slack.messages(world.slack.direct(AMY)) == []
    await timetable.run(MINUTE)
    assert (await world.thread(id)).count("Still waiting for approval") == 1
    assert len(world.slack.messages(world.slack.direct(AMY))) == 1


async def test_an_edit_that_slack_does_not_answer_stops_nothing(world: World) -> None:
    """It is given up, the rollout goes on, and when the old edit arrives after all, the truth is sent once more."""
    id = await world.committed()
    world.passes(3)
    world.client.timeout = 0.2  # type: ignore[assignment]  # seconds, of the real clock
    delay = world.slack.faults.delay("chat.update")
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=1))
    world.client.timeout = 60
    await timetable.run(timedelta(seconds=20))
    assert (await world.shown(id)).startswith("Live")
    delay.may_arrive.set()
    await wait_until(lambda: cards_of(world, id)[0].startswith("Rolling out"), "the old edit arrives last")
    await timetable.rest(within=timedelta(seconds=20))
    assert (await world.shown(id)).startswith("Live")
    await require_the_whole_story(world, id)


def close(world: World, how: str) -> None:
    if how == "archived":
        world.slack.channel(CHANNEL).archived = True
    else:
        world.slack.channel(CHANNEL).members.remove(world.slack.bot_user)


def open_again(world: World) -> None:
    world.slack.channel(CHANNEL).archived = False
    world.slack.channel(CHANNEL).members.add(world.slack.bot_user)


def told_directly(world: World, user: str) -> list[str]:
    return [message.text for message in world.slack.messages(world.slack.direct(user))]


@pytest.mark.parametrize("how", ["archived", "not a member"])
async def test_a_channel_that_closes_in_the_middle_stops_nothing(world: World, how: str) -> None:
    """The rollout goes on to live, and when the channel is open again, the card and the whole story are there."""
    id = await world.committed()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=1))
    close(world, how)
    await timetable.run(10 * MINUTE)
    assert (await world.find(id)).phase is Phase.LIVE
    open_again(world)
    await timetable.rest(within=2 * MINUTE)
    assert (await world.shown(id)).startswith("Live")
    await require_the_whole_story(world, id)


@pytest.mark.parametrize(
    "how",
    [
        "archived",
        "not a member",
    ],
)
async def test_who_asked_hears_once_that_the_channel_has_closed(world: World, how: str) -> None:
    """Directly, with what to do; and never again, however long it lasts."""
    id = await world.committed()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=1))
    close(world, how)
    await timetable.run(HOUR)
    told = told_directly(world, DANA)
    assert len(told) == 1
    assert id in told[0]
    assert "/invite @promote-bot" in told[0]


@pytest.mark.parametrize(
    "how",
    [
        "archived",
        "not a member",
    ],
)
async def test_no_old_card_is_left_that_says_something_else(world: World, how: str) -> None:
    """Whatever stood in the channel when it closed tells the truth when it is open again."""
    id = await world.request()
    timetable = Timetable(world, id)
    await timetable.run(timedelta(seconds=5))
    close(world, how)
    await world.promoter.approve(id, user=AMY)
    timetable.wake(id)
    await timetable.run(10 * MINUTE)
    open_again(world)
    await timetable.rest(within=2 * MINUTE)
    assert {text[:4] for text in cards_of(world, id)} == {"Live"}


async def test_who_asked_hears_of_the_closed_channel_also_where_slack_asks_for_a_pause(world: World) -> None:
    """The first try to tell it does not get through: the next one does."""
    close(world, "archived")
    id = await world.request()
    world.slack.faults.rate_limit(
        calls=1, retry_after=PAUSE, where=lambda _, args: args.get("channel") == DANA
    )
    await Timetable(world, id).run(10 * MINUTE)
    assert len(told_directly(world, DANA)) == 1
