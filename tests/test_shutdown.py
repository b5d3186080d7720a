"""SIGTERM: what runs is finished, nothing new is begun, nothing is forgotten, and all of it ends in time."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from git_hosts import http_host
from test_app import becomes, status
from test_versions import ready
from test_worker import SHORT, SlowAnnouncer, never, working
from world import wait_until, world_in

from bot.core.promotion import Phase, PromotionId
from bot.integrations.store import RedisStore, connect
from bot.playground.repository import log
from bot.playground.workshop import AMY, CHANNEL, CODE, DANA, Pace, Shape, Workshop, free_port

ENDS_WITHIN = 18.0
"""Seconds for a stop: ten for what runs, one for a push, and a little for everything to be closed."""
GOES_ON_WITHIN = 5.0
"""Seconds until the next worker has written what it took over."""
AN_HOUR = timedelta(hours=1)
LEASE = 60
"""Seconds; so long that nobody can have waited for its end."""


class Gate:
    """A way to a server of this machine; where it is shut, what comes is taken and nothing is answered."""

    def __init__(self, behind: str) -> None:
        self.is_reached = asyncio.Event()
        """Is somebody waiting for an answer?"""
        self._behind = urlsplit(behind)
        self._shut_for: bytes | None = None
        self._opened = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = self._behind._replace(netloc=f"127.0.0.1:{port}").geturl()

    async def close(self) -> None:
        """Hang up on everybody."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def shut(self, words: bytes) -> None:
        """Answer no request any more that holds these words."""
        self._shut_for = words

    def reopen(self) -> None:
        """Answer everything, also what waits."""
        self._shut_for = None
        self._opened.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            answers, onward = await asyncio.open_connection(self._behind.hostname, self._behind.port)
            with contextlib.closing(onward):
                back = asyncio.create_task(_pass(answers, writer))
                try:
                    await self._pass_gate(reader, onward)
                finally:
                    back.cancel()
                    await asyncio.wait([back])

    async def _pass_gate(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._shut_for is not None and self._shut_for in data:
                self.is_reached.set()
                await self._opened.wait()
            onward.write(data)
            await onward.drain()


async def _pass(reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            onward.write(data)
            await onward.drain()
        onward.close()


@dataclass
class Part:
    """A process of the bot that is to end."""

    process: asyncio.subprocess.Process
    operations_port: int
    told_at: float = field(default=0.0)

    def tell_to_end(self) -> None:
        """As Kubernetes does."""
        self.told_at = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    async def ends(self) -> float:
        """Its exit code is 0; gives the seconds that it took."""
        assert await asyncio.wait_for(self.process.wait(), 60) == 0
        return time.monotonic() - self.told_at


class Site:
    """A world with gates in front of Slack, Argo CD and git, one store, and the processes in it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.world = Workshop(folder, shape=Shape(approvals={"dev": 1}))
        self.slack = self.world.slack
        self.store = RedisStore(connect(redis_url, quick=False))
        self.gates: dict[str, Gate] = {}
        self._redis_url = redis_url
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        """Start everything but the bot."""
        await self.world.start(with_bot=False)
        self._closing.push_async_callback(self.slack.stop)
        self._closing.push_async_callback(self.world.argocd.stop)
        self._closing.push_async_callback(self.store.aclose)
        repository = self.world.repository
        subprocess.run(["git", "config", "http.receivepack", "true"], cwd=repository, check=True)
        git = self._closing.enter_context(http_host(repository.parent)).url(repository.name)
        for name, url in {"Slack": self.slack.api_url, "Argo CD": self.world.argocd.url, "git": git}.items():
            self.gates[name] = Gate(url)
            await self.gates[name].open()
            self._closing.push_async_callback(self.gates[name].close)
        config = self.world.folder / "promote.yaml"
        text = config.read_text().replace(repository.as_uri(), self.gates["git"].url)
        config.write_text(text.replace(self.world.argocd.url, self.gates["Argo CD"].url))

    async def close(self) -> None:
        """End everything."""
        await self._closing.aclose()

    async def start(self, part: str, *, is_gated: bool = True, own_store: bool = False) -> Part:
        """Start a process and wait until it is ready; where it is not gated, it reaches Slack past the gate."""
        port, operations_port = free_port(), free_port()
        environment = {
            **self.world.environment(),
            "PORT": str(port),
            "OPERATIONS_PORT": str(operations_port),
            "PROMOTE_DATA_DIR": str(self.world.folder / f"{part}-{port}"),
        }
        if not own_store:
            environment["REDIS_URL"] = self._redis_url
        if is_gated:
            environment["SLACK_API_URL"] = self.gates["Slack"].url
        with (self.world.folder / f"{part}-{port}.log").open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", part, cwd=CODE, env=environment, stderr=written
            )
        self._closing.push_async_callback(_ended, process)
        await ready(operations_port)
        if part != "worker":
            self.slack.events_url = f"http://127.0.0.1:{port}/slack/events"
        return Part(process, operations_port)

    async def ask(self, version: str = "15") -> str:
        """Dana asks for a version in dev; gives the promotion's id."""
        before = len(self.slack.ephemerals(DANA))
        assert (await self.slack.command(DANA, CHANNEL, f"manual-app {version} dev")).error is None
        await wait_until(lambda: len(self.slack.ephemerals(DANA)) > before, "Dana is told", seconds=20)
        return self.slack.ephemerals(DANA)[-1].text.split("`")[1]

    async def asked(self, version: str = "15") -> str:
        """The same, and its card is there."""
        id = await self.ask(version)
        await wait_until(self.has_card(id), "its card is posted", seconds=20)
        return id

    def has_card(self, id: str) -> Callable[[], bool]:
        """Does the channel show it?"""
        return lambda: bool(self.cards(id))

    def commits(self, id: str) -> list[str]:
        """Its commits on the branch."""
        found = log(self.world.repository, limit=20)
        return [each.revision for each in found if ("Promotion-Id", id) in each.trailers]

    def cards(self, id: str) -> list[str]:
        """Where its cards are."""
        return [each.ts for each in self.slack.messages(CHANNEL) if id in str(each.blocks)]


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.fixture
async def site(tmp_path: Path, redis_url: str) -> AsyncIterator[Site]:
    made = Site(tmp_path / "world", redis_url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("part", ["worker", "serve"])
async def test_what_a_worker_began_is_finished_while_it_says_that_it_ends(site: Site, part: str) -> None:
    """`/readyz` says 503 at once and as long as the card is on its way; then it stands there, once."""
    if part == "worker":
        await site.start("web", is_gated=False)
    ending = await site.start(part)
    site.gates["Slack"].shut(b"chat.postMessage")
    id = await site.ask()
    await asyncio.wait_for(site.gates["Slack"].is_reached.wait(), 10)
    ending.tell_to_end()
    await becomes(ending.operations_port, "/readyz", 503)
    assert time.monotonic() - ending.told_at < 2
    assert await status(ending.operations_port, "/healthz") == 200
    assert ending.process.returncode is None
    site.gates["Slack"].reopen()
    assert await ending.ends() < ENDS_WITHIN
    assert site.cards(id) == [(await site.store.card(id)).ts]


@pytest.mark.parametrize("part", ["web", "serve"])
async def test_a_click_right_before_the_end_is_answered_and_recorded(site: Site, part: str) -> None:
    """It waits for Slack's word about the person when SIGTERM comes; its approval is not forgotten."""
    if part == "web":
        await site.start("worker", is_gated=False)
    ending = await site.start(part)
    id = await site.asked()
    site.gates["Slack"].shut(b"users.info")
    click = asyncio.create_task(site.slack.click(AMY, CHANNEL, site.cards(id)[0], "promotion_approve"))
    await asyncio.wait_for(site.gates["Slack"].is_reached.wait(), 10)
    ending.tell_to_end()
    await becomes(ending.operations_port, "/readyz", 503)
    site.gates["Slack"].reopen()
    reply = await click
    assert (reply.status, reply.error) == (200, None)
    assert await ending.ends() < ENDS_WITHIN
    promotion = await site.store.load(id)
    assert promotion is not None
    assert promotion.approved_by(AMY)


@pytest.mark.parametrize("part", ["web", "serve"])
async def test_a_command_that_was_acknowledged_is_done_and_answered(site: Site, part: str) -> None:
    """Slack has been told that all is well, so the person hears what came of it."""
    ending = await site.start(part)
    site.gates["Slack"].shut(b"users.info")
    assert (await site.slack.command(DANA, CHANNEL, "manual-app 15 dev")).error is None
    await asyncio.wait_for(site.gates["Slack"].is_reached.wait(), 10)
    ending.tell_to_end()
    await becomes(ending.operations_port, "/readyz", 503)
    site.gates["Slack"].reopen()
    assert await ending.ends() < ENDS_WITHIN
    [told] = [each.text for each in site.slack.ephemerals(DANA)]
    assert "asked for manual-app 15 to dev" in told
    [promotion] = await site.store.in_phase(Phase.REQUESTED)
    assert promotion.id in told


async def test_no_new_work_is_begun(site: Site) -> None:
    """What becomes due while a worker ends is left to the next one."""
    await site.start("web", is_gated=False)
    ending = await site.start("worker")
    site.gates["Slack"].shut(b"chat.postMessage")
    await site.ask("15")
    await asyncio.wait_for(site.gates["Slack"].is_reached.wait(), 10)
    ending.tell_to_end()
    await becomes(ending.operations_port, "/readyz", 503)
    late = await site.ask("16")
    site.gates["Slack"].reopen()
    await ending.ends()
    assert site.cards(late) == []
    await site.start("worker", is_gated=False)
    await wait_until(site.has_card(late), "the next worker posts it")


async def test_another_worker_goes_on_at_once(site: Site) -> None:
    """A push that could not be finished is given back: nobody waits for the end of its lease."""
    site.world.pace = Pace(lease_seconds=LEASE)
    await site.start("web")
    ending = await site.start("worker")
    id = await site.asked()
    site.gates["git"].shut(b"git-receive-pack")
    await site.slack.click(AMY, CHANNEL, site.cards(id)[0], "promotion_approve")
    await asyncio.wait_for(site.gates["git"].is_reached.wait(), 20)
    await site.start("worker")
    ending.tell_to_end()
    await ending.ends()
    assert not site.commits(id)
    site.gates["git"].reopen()
    await wait_until(lambda: site.commits(id), "the other worker writes it", seconds=GOES_ON_WITHIN)
    assert len(site.commits(id)) == 1


async def test_what_is_being_finished_is_nobody_elses(tmp_path: Path, redis_url: str) -> None:
    """The lease is renewed until the end, so that no other worker tells people the same at the same time."""
    async with world_in(tmp_path, redis_url) as world:
        slow = SlowAnnouncer(world.client)
        async with working(world, announcer=slow) as worker:
            await world.request()
            await wait_until(lambda: slow.waiting == 1, "it works on it")
            stopping = asyncio.create_task(worker.stop(10))

            async def claimed() -> object:
                return await world.store.claim(limit=10, lease=SHORT)

            try:
                await never(claimed, seconds=4 * SHORT.total_seconds(), what="somebody else could claim it")
            finally:
                slow.free.set()
                await stopping


class SlowRests(RedisStore):
    """The real store, whose answer to the first rest takes its time on the way."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, quick=False))
        self.claims, self.free = 0, asyncio.Event()

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Claim, and count what was found."""
        found = await super().claim(limit=limit, lease=lease)
        self.claims += len(found)
        return found

    async def rest(self, id: str, *, edition: int, after: timedelta | None) -> None:
        """Let it rest, then keep the answer back."""
        await super().rest(id, edition=edition, after=after)
        await self.free.wait()


async def test_what_is_claimed_before_its_rest_is_answered_goes_on(tmp_path: Path, redis_url: str) -> None:
    """It was due again at once, and came back before the task was over: nobody waits for the lease."""
    async with world_in(tmp_path, redis_url) as world:
        await world.request("dev", "17")
        async with aclosing(SlowRests(redis_url)) as store, working(world, queue=store, lease=AN_HOUR):
            await wait_until(lambda: store.claims == 2, "it is claimed again")
            store.free.set()
            await wait_until(lambda: store.claims > 2, "it goes on", seconds=2)


HANGING = {
    "Slack": ("Slack", b"chat.", "pending"),
    "Argo CD": ("Argo CD", b"/api/v1/", "status"),
    "git, writing": ("git", b"git-receive-pack", "pending"),
    "git, reading": ("git", b"git-upload-pack", "manual-app 17 dev"),
}
"""What says nothing any more: its gate, its requests, and a command that is under way at the end."""


@pytest.mark.parametrize("silent", HANGING)
async def test_it_ends_in_time_although_somebody_says_nothing(site: Site, silent: str) -> None:
    """A promotion and a command are under way; ten seconds are theirs, and then it ends, its own store too."""
    ending = await site.start("serve", own_store=True)
    id = await site.asked()
    name, words, command = HANGING[silent]
    site.gates[name].shut(words)
    await site.slack.click(AMY, CHANNEL, site.cards(id)[0], "promotion_approve")
    await site.slack.command(DANA, CHANNEL, command)
    await asyncio.wait_for(site.gates[name].is_reached.wait(), 40)
    ending.tell_to_end()
    assert await ending.ends() < ENDS_WITHIN
