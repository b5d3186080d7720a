"""The bot as a real process: its two ports, its store, how it starts and how it ends."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from redis import Redis
from world import wait_until

from bot.integrations import embedded
from bot.playground.workshop import AMY, CHANNEL, DANA, GUS, Workshop


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path / "workshop")
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def status(port: int, path: str, method: str = "GET") -> int | None:
    """What the bot answers there; None where nobody answers."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
        ):
            return answer.status
    except aiohttp.ClientError:
        return None


async def becomes(port: int, path: str, wanted: int) -> None:
    """Wait until the bot answers so."""
    found: list[int | None] = []

    async def look() -> None:
        while (now := await status(port, path)) != wanted:
            found.append(now)

    try:
        await asyncio.wait_for(look(), 15)
    except TimeoutError:
        raise AssertionError(f"{path} never answered {wanted}, but {set(found)}") from None


def has_store(workshop: Workshop) -> bool:
    """Does a store's process run for this bot?"""
    folder = workshop.folder / "data" / "redis"
    return folder.exists() and embedded._is_running(folder)


async def test_each_port_answers_its_own_paths_alone(workshop: Workshop) -> None:
    """Slack's requests come from the internet; nothing else does."""
    for path in ("/healthz", "/readyz", "/metrics", "/", "/slack", "/slack/events/"):
        assert await status(workshop.port, path) == 404
    assert await status(workshop.port, "/slack/events") == 405
    assert await status(workshop.port, "/slack/events", "POST") == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert await status(workshop.operations_port, path) == 200
    assert await status(workshop.operations_port, "/slack/events", "POST") == 404


async def test_it_is_not_ready_while_its_store_is_away(workshop: Workshop) -> None:
    """The process lives on, says that it is not ready, answers people, and is ready again when the store is."""
    path = embedded._socket_path(workshop.folder / "data" / "redis")
    with Redis(unix_socket_path=str(path)) as client:
        pid = client.info()["process_id"]
    os.kill(pid, signal.SIGKILL)
    await becomes(workshop.operations_port, "/readyz", 503)
    assert await status(workshop.operations_port, "/healthz") == 200
    reply = await workshop.slack.command(DANA, CHANNEL, "manual-app 15 dev")
    assert reply.error is None
    await wait_until(lambda: workshop.slack.ephemerals(DANA), "the person is told")
    assert "Nothing was recorded" in workshop.slack.ephemerals(DANA)[0].text
    again = await asyncio.to_thread(embedded.start, workshop.folder / "data")
    await becomes(workshop.operations_port, "/readyz", 200)
    await workshop.slack.command(DANA, CHANNEL, "manual-app 15 dev")
    await wait_until(lambda: len(workshop.slack.ephemerals(DANA)) == 2, "the person is told")
    assert "asked for manual-app 15 to dev" in workshop.slack.ephemerals(DANA)[1].text
    again._sign.close()


async def test_sigterm_ends_it_cleanly_and_its_store_with_it(workshop: Workshop) -> None:
    """Exit code 0, and no process is left behind."""
    assert has_store(workshop)
    assert await workshop.end_bot(signal.SIGTERM) == 0
    assert not has_store(workshop)
    assert await status(workshop.port, "/slack/events", "POST") is None


async def test_a_killed_bot_leaves_its_store_to_the_next_one(workshop: Workshop) -> None:
    """What was acknowledged is not lost, and the next start adopts the store and ends it."""
    await workshop.slack.command(DANA, CHANNEL, "manual-app 15 dev")
    await wait_until(lambda: workshop.slack.ephemerals(DANA), "the person is told")
    await workshop.end_bot(signal.SIGKILL)
    assert has_store(workshop)
    await workshop.start_bot()
    id = workshop.slack.ephemerals(DANA)[0].text.split("`")[1]
    await workshop.slack.command(DANA, CHANNEL, f"show {id}")
    await wait_until(lambda: len(workshop.slack.ephemerals(DANA)) == 2, "the person is told")
    assert "asked for `15` in *dev*" in workshop.slack.ephemerals(DANA)[1].text
    assert await workshop.end_bot(signal.SIGTERM) == 0
    assert not has_store(workshop)


async def test_no_secret_is_in_the_log(workshop: Workshop) -> None:
    """Not after requests, refusals, trouble and forged signatures; and no traceback either."""
    await workshop.slack.command(DANA, CHANNEL, "manual-app 15 dev")
    await workshop.slack.command(GUS, CHANNEL, "manual-app 15 dev")
    await wait_until(lambda: workshop.slack.ephemerals(GUS), "the guest is told")
    await wait_until(lambda: workshop.slack.messages(CHANNEL), "the card is posted")
    workshop.slack.faults.errors["users.info"] = "invalid_auth"
    await workshop.slack.command(AMY, CHANNEL, "status")
    await wait_until(lambda: workshop.slack.ephemerals(AMY), "the approver is told")
    await status(workshop.port, "/slack/events", "POST")
    assert await workshop.end_bot(signal.SIGTERM) == 0
    log = workshop.log_path.read_text()
    assert '"event": "ready"' in log
    assert "Traceback" not in log
    for name, value in workshop.environment().items():
        if name.endswith(("TOKEN", "SECRET")):
            assert value not in log, name


# --- what refuses to start


def refusal(environment: Mapping[str, str], *words: str) -> str:
    """What the bot says when it refuses to start, with exit code 1 and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", *words],
        cwd=Path(__file__).parents[1],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
async def furnished(tmp_path: Path) -> AsyncIterator[Workshop]:
    """A world whose bot has not started."""
    made = Workshop(tmp_path / "workshop")
    await made.start(with_bot=False)
    yield made
    await made.argocd.stop()
    await made.slack.stop()


@pytest.mark.parametrize("part", ["web", "worker"])
async def test_two_processes_need_one_store_between_them(furnished: Workshop, part: str) -> None:
    """Each with a store of its own would lose everything that is asked for."""
    told = await asyncio.to_thread(refusal, furnished.environment(), part)
    assert told.startswith("REDIS_URL is not set: web and worker are two processes")
    assert not (furnished.folder / "data").exists()


async def test_what_is_missing_is_named(furnished: Workshop) -> None:
    """One sentence each, and what to set; nothing is left running."""
    environment = dict(furnished.environment())
    for name in ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET", "PROMOTE_SECRET", "ARGOCD_TOKEN"):
        less = {key: value for key, value in environment.items() if key != name}
        told = await asyncio.to_thread(refusal, less, "serve")
        assert f"{name} is not set: " in told
        assert not has_store(furnished), name


async def test_commits_that_people_approve_are_signed(furnished: Workshop) -> None:
    """Without a key the bot does not start, and says how to make one; whoever wants none says so."""
    environment = {**furnished.environment()}
    del environment["GIT_SIGNING_KEY"]
    told = await asyncio.to_thread(refusal, environment, "serve")
    assert "GIT_SIGNING_KEY is not set: prod needs approvals" in told
    assert "ssh-keygen -t ed25519" in told
    assert "repositories.gitops.sign: false" in told


async def test_settings_that_cannot_be_meant_are_refused(furnished: Workshop) -> None:
    """A token must not leave for elsewhere; Bolt's own sign-in must not replace the token; a port is a port."""
    for name, value, says in (
        ("SLACK_API_URL", "http://10.0.0.1/api/", "loopback addresses only"),
        ("SLACK_CLIENT_ID", "1.2", "must not be set"),
        ("PROMOTE_SECRET", "short", "at least 16 characters"),
        ("PORT", "http", "PORT must be"),
        ("REDIS_URL", "http://127.0.0.1:6379", ""),
        ("PROMOTE_CONFIG", "/nowhere/promote.yaml", "/nowhere/promote.yaml"),
    ):
        told = await asyncio.to_thread(refusal, {**furnished.environment(), name: value}, "serve")
        assert says in told
        assert told.strip()
        assert not has_store(furnished), name


async def test_a_port_that_is_taken_is_named(furnished: Workshop) -> None:
    """Two bots on one machine: the second says which port, and ends its store."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", furnished.port))
        taken.listen()
        told = await asyncio.to_thread(refusal, furnished.environment(), "serve")
    assert f"Port {furnished.port} cannot be opened" in told
    assert not has_store(furnished)


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[str]:
    """A store of the operator's own."""
    path = folder / "own.sock"
    process = subprocess.Popen(
        [embedded.find_binary(), "--port", "0", "--unixsocket", str(path), "--dir", str(folder), *options],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"unix://{path}"
    finally:
        process.terminate()
        process.wait()


async def test_a_store_that_may_forget_is_refused(furnished: Workshop, tmp_path: Path) -> None:
    """Eviction would throw promotions away silently."""
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--save", "")
    with server(tmp_path, *options) as url:
        await wait_until(lambda: Path(url[7:]).exists(), "the server listens")
        told = await asyncio.to_thread(refusal, {**furnished.environment(), "REDIS_URL": url}, "serve")
    assert "The store cannot be used: " in told
    assert "allkeys-lru" in told


async def test_web_and_worker_share_a_store(furnished: Workshop, tmp_path: Path) -> None:
    """The one hears, the other one works; each has its own health, and both end with exit code 0."""
    with server(tmp_path, "--appendonly", "yes", "--save", "") as url:
        await wait_until(lambda: Path(url[7:]).exists(), "the server listens")
        environment = {**furnished.environment(), "REDIS_URL": url}
        web = await _started(environment, "web")
        other = {**environment, "OPERATIONS_PORT": str(_free_port()), "PORT": "0"}
        worker = await _started(other, "worker")
        try:
            await becomes(int(environment["OPERATIONS_PORT"]), "/readyz", 200)
            await becomes(int(other["OPERATIONS_PORT"]), "/readyz", 200)
            await furnished.slack.command(DANA, CHANNEL, "manual-app 15 dev")
            await wait_until(
                lambda: any(message.blocks for message in furnished.slack.messages(CHANNEL)),
                "the worker posts what the web side heard",
            )
        finally:
            for process in (web, worker):
                process.send_signal(signal.SIGTERM)
            codes = [await process.wait() for process in (web, worker)]
    assert codes == [0, 0]


async def _started(environment: Mapping[str, str], part: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot",
        part,
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
