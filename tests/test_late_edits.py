"""A worker that stands still and wakes up late: what it sends arrives last, and must not have the last word."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from world import AMY, World, push, wait_until, world_in

from bot.core.announcing import CONFIRM_AFTER
from bot.core.promotion import Phase
from bot.core.rollout import Look
from bot.integrations import embedded
from bot.integrations.store import RedisStore, connect
from bot.messages.thread import story
from bot.playground.argocd.application import Timings
from bot.playground.repository import log, read_file
from bot.playground.slack.faults import Delay
from bot.playground.slack.state import Message
from bot.playground.workshop import CHANNEL, CODE, DANA, Pace, Workshop

LEASE = timedelta(seconds=15)
TRUE_AGAIN = timedelta(seconds=20)
"""How long an older edit that arrived last may be seen."""


# --- two engines, and the world's clock


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        made.client.timeout = 60  # seconds of the real clock, which is not what is tried here
        yield made


async def older_edit(world: World, id: str) -> tuple[Delay, asyncio.Task[tuple[int, timedelta | None]]]:
    """An edit of a card that asks for approval, on its way to Slack, and the worker that waits for its answer."""
    await world.advance(id)
    world.passes(3)
    await world.store.save_look(id, Look(waits_for="something"))
    delay = world.slack.faults.delay("chat.update")
    sender = asyncio.create_task(world.new_engine(store=world.new_store()).advance(id))
    await asyncio.wait_for(delay.is_under_way.wait(), 10)
    return delay, sender


async def finish(world: World, id: str) -> None:
    """Another worker takes over when the lease has ended, and brings the promotion to its end on the card."""
    world.passes(LEASE.total_seconds())
    await world.promoter.approve(id, user=AMY)
    for _ in range(100):
        after = await world.advance(id)
        if (await world.shown(id)).startswith("Live"):
            return
        assert after is not None
        world.passes(after.total_seconds())
    raise AssertionError("it never shows that it is live")


async def arrive(world: World, id: str, delay: Delay) -> None:
    """The older edit reaches Slack after all, and everybody sees the old state."""
    delay.may_arrive.set()
    await world.until(
        lambda: world.cards()[0].text.startswith("Approval needed"), "the old edit arrives last"
    )
    assert "promotion_approve" in await world.shown(id)


async def goes_on_for(world: World, id: str, span: timedelta) -> None:
    """The other worker looks at once, and then each time when it is due, until this much time has passed."""
    ends_at = world.clock.at + span
    while (after := await world.advance(id)) is not None and world.clock.at + after <= ends_at:
        world.passes(after.total_seconds())
    world.passes((ends_at - world.clock.at).total_seconds())


@pytest.mark.parametrize("later", [timedelta(0), CONFIRM_AFTER - timedelta(seconds=1)])
async def test_an_older_edit_of_a_dead_worker_is_put_right(world: World, later: timedelta) -> None:
    """Its sender was killed after it was sent; within twenty seconds the card tells the truth again."""
    id = await world.request()
    delay, sender = await older_edit(world, id)
    sender.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sender
    await finish(world, id)
    await goes_on_for(world, id, later)
    await arrive(world, id, delay)
    await goes_on_for(world, id, TRUE_AGAIN)
    assert (await world.shown(id)).startswith("Live: manual-app 15 to prod")
    assert (await world.find(id)).phase is Phase.LIVE


async def wake_late(world: World, id: str, *, after: timedelta) -> None:
    """A worker that stood still for so long after the end goes on as if nothing had happened, and rests."""
    delay, sender = await older_edit(world, id)
    await finish(world, id)
    await goes_on_for(world, id, after)
    await world.store.rest(id, edition=(await world.find(id)).edition, after=None)
    await arrive(world, id, delay)
    edition, pause = await world.moving(sender)
    await world.store.rest(id, edition=edition, after=pause)


@pytest.mark.parametrize("after", [timedelta(0), CONFIRM_AFTER, timedelta(hours=1)])
async def test_an_older_edit_of_a_worker_that_wakes_up_is_put_right(world: World, after: timedelta) -> None:
    """However late it is: when its own turn ends, the promotion is due, because it has moved on."""
    id = await world.request()
    await wake_late(world, id, after=after)
    assert await world.store.claim(limit=10, lease=LEASE) == (id,)
    await goes_on_for(world, id, TRUE_AGAIN)
    assert (await world.shown(id)).startswith("Live: manual-app 15 to prod")
    assert len(world.commits(id)) == 1
    assert len([card for card in world.cards() if card.blocks]) == 1


async def test_a_worker_that_wakes_up_tells_nothing_twice(world: World) -> None:
    """What the other one has told meanwhile stands in the thread already."""
    id = await world.request()
    await wake_late(world, id, after=timedelta(0))
    await goes_on_for(world, id, TRUE_AGAIN)
    promotion, events = await world.find(id), await world.store.events(id)
    assert (await world.thread(id)).splitlines() == story(promotion, events).splitlines()


# --- two workers as processes, with a lease of one second

QUICK = Pace(
    timings=Timings(
        reconcile_takes=timedelta(milliseconds=100),
        sync_takes=timedelta(milliseconds=300),
        settle_gap=timedelta(milliseconds=300),
        pod_takes=timedelta(milliseconds=200),
    ),
    rollout="{stable_for: 1s, degraded_grace: 3s, pick_up_within: 30s, timeout: 60s}",
    lease_seconds=1,
)


class Crew:
    """A web side and two workers of one world on one store, each a process that can be frozen."""

    def __init__(self, workshop: Workshop, store_url: str) -> None:
        self.workshop = workshop
        self.store_url = store_url
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, part: str, **different: str) -> asyncio.subprocess.Process:
        """Start one of them, and wait until it is ready."""
        environment: Mapping[str, str] = {
            **self.workshop.environment(),
            "REDIS_URL": self.store_url,
            "OPERATIONS_PORT": str(_free_port()),
            "PROMOTE_DATA_DIR": str(self.workshop.folder / f"data-{len(self._running)}"),
            **different,
        }
        path = self.workshop.folder / f"{part}-{len(self._running)}.log"
        with path.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", part, cwd=CODE, env=environment, stdout=said, stderr=said
            )
        self._running.append(process)
        await wait_until(lambda: '"event": "ready"' in path.read_text(), f"the {part} is ready", seconds=30)
        return process

    async def end(self) -> None:
        """End all of them, whatever state they are in."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    async with contextlib.AsyncExitStack() as closing:
        server = await asyncio.to_thread(embedded.start, tmp_path / "store")
        closing.push_async_callback(server.stop)
        workshop = Workshop(tmp_path / "workshop", pace=QUICK)
        path = "values-stage.yaml"
        text = read_file(workshop.repository, path).replace('tag: "14"', 'tag: "15"')
        push(workshop.repository, {path: text})  # so that prod may have 15
        await workshop.start(with_bot=False)
        closing.push_async_callback(workshop.slack.stop)
        closing.push_async_callback(workshop.argocd.stop)
        made = Crew(workshop, server.url)
        closing.push_async_callback(made.end)
        yield made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def freeze(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGSTOP)


def thaw(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGCONT)


async def asked(crew: Crew) -> Message:
    """A request for prod on its card."""
    slack = crew.workshop.slack
    await slack.command(DANA, CHANNEL, "manual-app prod")
    await wait_until(lambda: slack.messages(CHANNEL), "the card is posted")
    return slack.messages(CHANNEL)[0]


def headline(crew: Crew) -> str:
    return crew.workshop.slack.messages(CHANNEL)[0].text


async def test_a_frozen_worker_does_not_have_the_last_word(crew: Crew) -> None:
    """It is frozen before its edit reaches Slack; the other one ends the promotion; the old edit arrives last."""
    slack = crew.workshop.slack
    await crew.start("web")
    first, second = await crew.start("worker"), await crew.start("worker", PORT="0")
    freeze(second)
    card = await asked(crew)
    delay = slack.faults.delay("chat.update")
    await slack.click(AMY, CHANNEL, card.ts, "promotion_approve")
    await asyncio.wait_for(delay.is_under_way.wait(), 10)
    freeze(first)
    id = card.metadata["event_payload"]["id"] if card.metadata else ""
    await slack.command(DANA, CHANNEL, f"cancel {id}")
    thaw(second)
    await wait_until(lambda: headline(crew).startswith("Cancelled"), "the other one shows the end")
    delay.may_arrive.set()
    await wait_until(lambda: headline(crew).startswith("Approved"), "the old edit arrives last")
    thaw(first)
    await wait_until(
        lambda: headline(crew).startswith("Cancelled"),
        "it tells the truth",
        seconds=TRUE_AGAIN.total_seconds(),
    )
    assert slack.messages(CHANNEL)[0].edited >= 3


WAITS_TO_PUSH = """\
#!/bin/sh
case " $* " in
  *" push "*)
    : > "{folder}/pushing"
    left=1200  # a minute: nobody stays behind for ever when the test has failed
    while [ ! -e "{folder}/go" ] && [ "$((left -= 1))" -gt 0 ]; do sleep 0.05; done
    "{git}" "$@"
    echo "$?" > "{folder}/pushed"
    exit "$(cat "{folder}/pushed")" ;;
  *) exec "{git}" "$@" ;;
esac
"""


def slow_git(folder: Path) -> str:
    """A PATH on which `git push` waits for a file `go`; what it does is told by `pushing` and `pushed`."""
    folder.mkdir()
    script = folder / "git"
    script.write_text(WAITS_TO_PUSH.format(folder=folder, git=shutil.which("git")))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("moved", [False, True], ids=["the branch stands", "the branch has moved on"])
async def test_a_push_that_comes_late_adds_no_second_commit(crew: Crew, tmp_path: Path, moved: bool) -> None:
    """Frozen right before `git push`: the other one writes it and brings it live, then the old push arrives."""
    slack, repository = crew.workshop.slack, crew.workshop.repository
    await crew.start("web")
    first = await crew.start("worker", PATH=slow_git(tmp_path / "slow"))
    second = await crew.start("worker")
    freeze(second)
    card = await asked(crew)
    await slack.click(AMY, CHANNEL, card.ts, "promotion_approve")
    await wait_until((tmp_path / "slow/pushing").exists, "the first is about to push")
    freeze(first)
    thaw(second)
    await wait_until(lambda: headline(crew).startswith("Live"), "the other one brings it live", seconds=40)
    if moved:
        push(repository, {"NOTES.md": "somebody else\n"})
    (tmp_path / "slow/go").touch()
    pushed = tmp_path / "slow/pushed"
    await wait_until(lambda: pushed.exists() and pushed.read_text(), "the late push has ended")
    assert pushed.read_text() == ("1\n" if moved else "0\n"), (
        "the same commit is there already, or it is refused"
    )
    newest = log(repository, limit=1)[0]
    assert bool(newest.trailers) is not moved, "what others have pushed since is still there"
    thaw(first)
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), 30) == 0
    written = [commit for commit in log(repository, limit=10) if commit.trailers]
    assert len(written) == 1
    assert 'tag: "15"' in read_file(repository, "values-prod.yaml")
    store = RedisStore(connect(crew.store_url, quick=False))
    [promotion] = await store.in_phase(Phase.LIVE)
    await store.aclose()
    assert promotion.revision == written[0].revision
    assert headline(crew).startswith("Live")
