"""Two versions of the bot on one store, as during a rolling update and after a step back: neither harms the other's."""

import asyncio
import json
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from test_app import status
from test_story import QUICK
from world import AMY, BEN, CHANNEL, DANA, World, push, wait_until, world_in

from bot.core.promotion import SCHEMA, Phase
from bot.core.reconciling import Reconciling
from bot.integrations.store import RedisStore, connect
from bot.playground.repository import create_repository, log, read_file
from bot.playground.slack.fake import Reply
from bot.playground.workshop import CODE, READY_WITHIN, Shape, Workshop, free_port
from bot.worker import Worker

NEWER = "belongs to a newer version of this bot, which is being installed and goes on with it"
CHANGED = {
    "bot/core/promotion.py": (
        (f"SCHEMA = {SCHEMA}\n", f"SCHEMA = {SCHEMA + 1}\n"),
        (
            '    outcome: Outcome | None = None\n    """How the',
            '    mood: str = "calm"\n    outcome: Outcome | None = None\n    """How the',
        ),
        ('what="approved"', 'what="agreed"'),
    ),
}
"""What the next version has: another number, one field more, another word for an event."""


@pytest.fixture(scope="session")
def next_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of the code, in a folder of its own."""
    folder = tmp_path_factory.mktemp("next")
    for package in ("bot", "handlers"):
        shutil.copytree(CODE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in CHANGED.items():
        path = folder / name
        text = path.read_text()
        for before, after in changes:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        path.write_text(text)
    return folder


@dataclass
class Pod:
    """One process of one version."""

    process: asyncio.subprocess.Process
    log: Path

    async def end(self) -> None:
        """As Kubernetes ends it."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        assert await self.process.wait() == 0


class Fleet:
    """A world, one store, and the processes of both versions; prod and stage wait for approvals."""

    def __init__(self, folder: Path, redis_url: str, next_version: Path) -> None:
        repository = create_repository(folder)
        for environment, version in {"dev": "16", "stage": "15"}.items():
            path = f"values-{environment}.yaml"
            text = re.sub('tag: ".*?"', f'tag: "{version}"', read_file(repository, path))
            push(repository, {path: text})
        self.world = Workshop(folder, pace=QUICK, shape=Shape(approvals={"stage": 1, "prod": 1}))
        self.slack = self.world.slack
        self.redis = Redis.from_url(redis_url, decode_responses=True)
        self.store = RedisStore(connect(redis_url, quick=False))
        self._code = {"this": CODE, "next": next_version}
        self._redis_url = redis_url
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        """Start everything but the bot."""
        await self.world.start(with_bot=False)
        self._closing.push_async_callback(self.world.slack.stop)
        self._closing.push_async_callback(self.world.argocd.stop)
        self._closing.push_async_callback(self.store.aclose)
        self._closing.callback(self.redis.close)

    async def close(self) -> None:
        """End everything."""
        await self._closing.aclose()

    async def start(self, version: str, part: str) -> Pod:
        """Start a process and wait until it is ready; Slack speaks to the web side that was started last."""
        port, operations = free_port(), free_port()
        name = f"{version}-{part}-{port}"
        environment = {
            **self.world.environment(),
            "REDIS_URL": self._redis_url,
            "PORT": str(port),
            "OPERATIONS_PORT": str(operations),
            "PROMOTE_DATA_DIR": str(self.world.folder / name),
        }
        path = self.world.folder / f"{name}.log"
        with path.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", part, cwd=self._code[version], env=environment, stderr=written
            )
        pod = Pod(process, path)
        self._closing.push_async_callback(pod.end)
        await ready(operations)
        if part == "web":
            self.slack.events_url = f"http://127.0.0.1:{port}/slack/events"
        return pod

    async def runs(self, version: str) -> tuple[Pod, Pod]:
        """Start both parts of a version."""
        return await self.start(version, "web"), await self.start(version, "worker")

    # --- what people do

    async def ask(self, environment: str) -> str:
        """Dana asks for the version that the environment before runs; the card is there when this returns."""
        told = await self.told(DANA, self.slack.command(DANA, CHANNEL, f"manual-app {environment}"))
        id = told.split("`")[1]
        await wait_until(
            lambda: "promotion_approve" in self.shown(id), "its card asks for approval", seconds=30
        )
        return id

    async def approve(self, id: str, *, user: str = AMY) -> Reply:
        """Press the button; gives what Slack got for an answer."""
        [card] = self.cards(id)
        return await self.slack.click(user, CHANNEL, card.ts, "promotion_approve")

    async def told(self, user: str, act: Awaitable[Reply]) -> str:
        """What a person is told privately for something that they do."""
        before = len(self.slack.ephemerals(user))
        reply = await act
        assert reply.error is None
        await wait_until(lambda: len(self.slack.ephemerals(user)) > before, f"{user} is told something")
        return self.slack.ephemerals(user)[before].text

    async def becomes_live(self, id: str) -> None:
        """Wait for its card to say so; there is one card and one commit."""
        await wait_until(lambda: self.shown(id).startswith("Live"), f"{id} is live", seconds=60)
        commits = [
            each for each in log(self.world.repository, limit=50) if ("Promotion-Id", id) in each.trailers
        ]
        assert len(commits) == 1

    # --- what is there

    def cards(self, id: str) -> list[Any]:
        """The messages in the channel that are this promotion's card."""
        return [message for message in self.slack.messages(CHANNEL) if id in str(message.blocks)]

    def shown(self, id: str) -> str:
        """What its one card says; empty before it is posted."""
        cards = self.cards(id)
        assert len(cards) <= 1
        return f"{cards[0].text} {cards[0].blocks}" if cards else ""

    def record(self, id: str) -> str:
        """The record as it stands in the store."""
        return str(self.redis.hget(f"{{gp}}:p:{id}", "record"))

    def everything(self, id: str) -> tuple[Any, ...]:
        """All that the store and the people have of it."""
        [card] = self.cards(id)
        story = self.redis.lrange(f"{{gp}}:p:{id}:e", 0, -1)
        thread = [reply.text for reply in self.slack.thread(CHANNEL, card.ts)]
        return self.record(id), story, thread, card.text, card.blocks, len(card.history)

    def due_in(self, id: str) -> float:
        """Seconds until it is due; fails where it never is."""
        score = self.redis.zscore("{gp}:due", id)
        assert score is not None
        seconds, fraction = self.redis.time()
        return float(score) / 1000 - (seconds + fraction / 1_000_000)


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, next_version: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path / "world", redis_url, next_version)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def ready(port: int) -> None:
    """Wait until the process with this port for its operations is ready."""
    async with asyncio.timeout(2 * READY_WITHIN):
        while await status(port, "/readyz") != 200:
            await asyncio.sleep(0.05)  # it needs the processor more than we do


async def ended(*pods: Pod) -> None:
    """These processes have ended, and none with an error."""
    await asyncio.gather(*(pod.end() for pod in pods))


async def test_what_the_next_version_wrote_waits_for_it(fleet: Fleet) -> None:
    """After a step back: not a byte of it changes, its buttons say what to do, and what is our own goes on."""
    web, worker = await fleet.runs("next")
    theirs = await fleet.ask("prod")
    await ended(worker)
    await fleet.approve(theirs)
    await wait_until(lambda: '"approvals":[{' in fleet.record(theirs), "the approval is recorded")
    await ended(web)
    before = fleet.everything(theirs)
    assert json.loads(before[0])["schema"] == SCHEMA + 1

    web, worker = await fleet.runs("this")
    told = await fleet.told(BEN, fleet.approve(theirs, user=BEN))
    assert f"{theirs} {NEWER}. Nothing was recorded; try again in a moment." in told
    ours = await fleet.ask("stage")
    assert (await fleet.approve(ours)).status == 200
    await fleet.becomes_live(ours)
    assert fleet.everything(theirs) == before
    assert fleet.due_in(theirs) <= QUICK.lease_seconds
    assert fleet.slack.ephemerals(AMY) == []
    await ended(web, worker)

    await fleet.start("next", "worker")
    await fleet.becomes_live(theirs)


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.COMMITTED])
async def test_what_this_version_began_the_next_one_finishes(fleet: Fleet, phase: Phase) -> None:
    """Before the approval or in the middle of the rollout: one card, one commit, and the whole story."""
    pods = await fleet.runs("this")
    id = await fleet.ask("prod")
    if phase is Phase.COMMITTED:
        fleet.world.argocd.deaf = True
        await fleet.approve(id)
        await wait_until(lambda: fleet.shown(id).startswith("Rolling out"), "it is followed", seconds=30)
    await ended(*pods)
    assert json.loads(fleet.record(id))["phase"] == phase
    fleet.world.argocd.deaf = False
    await fleet.runs("next")
    if phase is Phase.REQUESTED:
        await fleet.approve(id)
    await fleet.becomes_live(id)
    record = json.loads(fleet.record(id))
    assert record["mood"] == "calm"
    [card] = fleet.cards(id)
    told = "\n".join(reply.text for reply in fleet.slack.thread(CHANNEL, card.ts))
    for word in ("asked for `15`", "approved", "Committed as", "Live"):
        assert told.count(word) == 1


async def test_an_update_brings_everything_live(fleet: Fleet) -> None:
    """Begun at the old pods or at the new ones, approved while both are there, and finished after the old ones end."""
    old = await fleet.runs("this")
    ours = await fleet.ask("stage")
    await fleet.runs("next")
    theirs = await fleet.ask("prod")
    await asyncio.gather(fleet.approve(ours), fleet.approve(theirs))
    await fleet.becomes_live(ours)
    await ended(*old)
    await fleet.becomes_live(theirs)
    assert fleet.slack.ephemerals(AMY) == []


async def test_what_the_next_version_went_on_with_is_left_to_it(fleet: Fleet) -> None:
    """Begun by this version and approved at the next one's web: from then on only the next one may touch it."""
    pods = await fleet.runs("this")
    id = await fleet.ask("prod")
    await ended(*pods)
    web = await fleet.start("next", "web")
    await fleet.approve(id)
    await wait_until(lambda: '"approvals":[{' in fleet.record(id), "the approval is recorded")
    await ended(web)
    before = fleet.record(id)
    assert "mood" in before
    await fleet.runs("this")
    ours = await fleet.ask("stage")
    await fleet.approve(ours)
    await fleet.becomes_live(ours)
    assert fleet.record(id) == before


# --- one record of the next version, and everything else that this version does


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def hand_over(world: World, id: str) -> None:
    """The next version writes this promotion's record."""
    with Redis.from_url(world.redis_url, decode_responses=True) as raw:
        record = json.loads(str(raw.hget(f"{{gp}}:p:{id}", "record")))
        theirs = {
            "record": json.dumps({**record, "schema": SCHEMA + 1, "mood": "calm"}),
            "schema": SCHEMA + 1,
        }
        raw.hset(f"{{gp}}:p:{id}", mapping=theirs)


async def test_what_this_version_cannot_read_it_does_not_keep_from_the_next(world: World) -> None:
    """Our worker meets it and leaves it: it is still due, and not only after our lease."""
    id = await world.request()
    hand_over(world, id)
    worker = Worker(engine=world.engine, queue=world.store, lease=timedelta(hours=1))
    await worker._turn()
    await worker.stop()
    with Redis.from_url(world.redis_url) as raw:
        seconds, fraction = raw.time()
        assert raw.zscore("{gp}:due", id) <= 1000 * (seconds + fraction / 1_000_000)


async def test_a_promotion_is_committed_where_the_next_version_follows_another(world: World) -> None:
    """The commit is on the branch, so its record says so, whoever is followed until now."""
    theirs = await world.request("dev", "17")
    await world.advance_until(theirs, Phase.COMMITTED)
    hand_over(world, theirs)
    ours = await world.request("dev", "18")
    await world.advance_until(ours, Phase.COMMITTED)


async def test_the_status_of_everything_is_told_although_one_holder_cannot_be_read(world: World) -> None:
    """What git holds and what runs is known of every target."""
    hand_over(world, await world.request("prod"))
    assert len(await world.promoter.status()) == 3


async def test_others_are_compared_with_git_although_one_record_cannot_be_read(world: World) -> None:
    """A commit whose record the store has lost is found again behind one that only the next version can read."""
    lost = await world.request("dev", "17")
    await world.advance_until(lost, Phase.COMMITTED)
    theirs = await world.request("stage")
    await world.advance_until(theirs, Phase.COMMITTED)
    hand_over(world, theirs)
    with Redis.from_url(world.redis_url) as raw:
        raw.delete(f"{{gp}}:p:{lost}", "{gp}:follow:manual-app/dev")
    await Reconciling(engine=world.engine).reconcile()
    assert await world.store.load(lost)


async def test_nobody_is_told_that_the_store_is_away(world: World) -> None:
    """It answers, and what it holds belongs to the next version."""
    id = await world.request()
    await world.advance(id)
    hand_over(world, id)
    async with world.hearing():
        await world.press(id, "approve", user=AMY)
        assert "not available" not in await world.answer(AMY)
