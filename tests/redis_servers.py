"""Several servers at once on loopback, from the binary that we carry: a primary and its replica, sentinels, a cluster."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from redis import Redis, RedisError

from bot.integrations.embedded import find_binary
from bot.integrations.redis_address import Client, close, connect

SLOTS = 16384
WITHIN = 20.0
"""Seconds for servers to be ready, to find one another, or to take over."""


@dataclass(kw_only=True)
class Server:
    """One process on a free port of loopback, with its data in a folder of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """`127.0.0.1:7000`."""
        return f"127.0.0.1:{self.port}"

    def ask(self, *words: str | int | bytes) -> object:
        """Its answer to a command; raises redis-py's errors."""
        with Redis(port=self.port, decode_responses=True, protocol=2, socket_timeout=5) as client:
            return client.execute_command(*words)

    def pause(self) -> None:
        """Stop it as it is; its connections stay."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait()


class Servers:
    """Starts servers, and at its end ends all that it started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Server] = []
        self._ports = _free_ports()

    def start(self, *arguments: str, **options: str | int) -> Server:
        """One server that answers; `arguments` go before the options."""
        while True:
            port = next(self._ports)
            server = self._spawn(port, arguments, options)
            self._started.append(server)
            until(
                lambda: server.process.poll() is not None or server.ask("PING"), f"{server.address} answers"
            )
            if server.process.poll() is None:  # else another process was faster to take the port
                return server

    def _spawn(self, port: int, arguments: tuple[str, ...], options: dict[str, str | int]) -> Server:
        folder = self._folder / str(port)
        folder.mkdir()
        given = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", **options}
        words = [
            str(word) for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([find_binary(), *arguments, *words], stdout=log, stderr=log)
        return Server(folder=folder, port=port, process=process)

    def primary(self, *, replicas: int = 1) -> tuple[Server, list[Server]]:
        """A primary, and replicas that follow it and answer to `WAIT`."""
        first = self.start(repl_diskless_sync_delay=0)
        others = [self.start(replicaof=f"127.0.0.1 {first.port}") for _ in range(replicas)]
        until(lambda: confirmed(first, by=replicas), "the replicas follow")
        return first, others

    def sentinel(self, primary: Server, *, replicas: int, down_after: int) -> str:
        """One sentinel that alone may depose the primary, after so many milliseconds; returns the store's address."""
        file = self._folder / f"sentinel-{primary.port}.conf"
        file.write_text(
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds mymaster {down_after}\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        sentinel = self.start(str(file), "--sentinel")
        until(lambda: _known_replicas(sentinel) == replicas, "the sentinel knows the replicas")
        return f"redis+sentinel://{sentinel.address}/mymaster/0"

    def cluster(self, *, size: int = 3, timeout: int = 15_000) -> list[Server]:
        """Primaries that share all slots between them, and miss one another after so many milliseconds."""
        nodes = [self.node(timeout=timeout) for _ in range(size)]
        share = -(-SLOTS // size)
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            until(lambda: _is_whole(node, size), "the cluster is whole")
        return nodes

    def node(self, *, timeout: int) -> Server:
        """One that may join a cluster."""
        return self.start(cluster_enabled="yes", cluster_node_timeout=timeout, repl_diskless_sync_delay=0)

    def replica_of(self, primary: Server, *, timeout: int) -> Server:
        """A node that joins the primary's cluster, and follows it."""
        replica = self.node(timeout=timeout)
        replica.ask("CLUSTER", "MEET", "127.0.0.1", primary.port)
        until(lambda: replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID")), "they have met")
        until(lambda: confirmed(primary, by=1), "the replica follows")
        return replica

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._started:
            server.kill()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    """A client for looking underneath, wherever the address leads."""
    client = connect(url, quick=False)
    try:
        yield client
    finally:
        await close(client)


def confirmed(primary: Server, *, by: int) -> bool:
    """Do so many replicas answer to `WAIT`? They do so only after they have asked for their first piece."""
    with Redis(port=primary.port) as client, client.pipeline(transaction=False) as pipeline:
        pipeline.set("{gp}:first", "")
        pipeline.delete("{gp}:first")
        pipeline.execute_command("WAIT", by, 200)
        return bool(pipeline.execute()[-1] >= by)


def _known_replicas(sentinel: Server) -> int:
    found = sentinel.ask("SENTINEL", "REPLICAS", "mymaster")
    return len(found) if isinstance(found, list) else 0


def _is_whole(node: Server, size: int) -> bool:
    told = node.ask("CLUSTER", "INFO")
    if isinstance(told, bytes | str):
        told = dict(line.split(":") for line in str(told).split())
    return (
        isinstance(told, dict) and told["cluster_state"] == "ok" and told["cluster_known_nodes"] == str(size)
    )


def until(holds: Callable[[], object], what: str) -> None:
    """Ask again until it holds; what is not there yet is no error."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        with suppress(RedisError, OSError):
            if holds():
                return
        time.sleep(0.01)
    raise AssertionError(f"waited {WITHIN:g} s in vain: {what}")


def _free_ports() -> Iterator[int]:
    """Ports that are free now. A cluster's bus is ten thousand further up; the kernel gives away none below 32768."""
    for port in range(10_000 + os.getpid() % 500 * 20, 22_000):
        if _is_free(port) and _is_free(port + 10_000):
            yield port
    raise AssertionError("no port is free")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
