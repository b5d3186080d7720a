"""What tests of several files share: the programs they need, and servers for the store."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from bot.integrations import embedded
from bot.integrations.store import RedisStore, connect

settings.register_profile(
    "promote", deadline=None
)  # the machines are noisy: how long one example takes proves nothing
settings.load_profile("promote")


structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)  # to draw every local of a traceback takes seconds, in which nobody is answered


def require(binary: str, package: str) -> Path:
    """The program on PATH. Without it the test is skipped; under CI=true that is an error, not a skip."""
    if found := shutil.which(binary):
        return Path(found)
    missing = f"{binary} is missing: install Debian's package {package}"
    if os.environ.get("CI") == "true":
        raise RuntimeError(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.EmbeddedServer]:
    """One server for each test process."""
    server = embedded.start(tmp_path_factory.mktemp("store"))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def redis_url(embedded_server: embedded.EmbeddedServer) -> str:
    """The address of an empty store."""
    empty(embedded_server.url)
    return embedded_server.url


@pytest.fixture(scope="session", params=["embedded", "debian"])
def url_of_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Every test runs on the server that we carry and on the one that Debian maintains."""
    if request.param == "embedded":
        yield request.getfixturevalue("embedded_server").url
        return
    binary = require("redis-server", "redis-server")
    server = embedded.start(tmp_path_factory.mktemp("debian"), binary=binary)
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def url(url_of_server: str) -> str:
    """The address of an empty server of either kind."""
    empty(url_of_server)
    return url_of_server


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    """An empty store on either server."""
    made = RedisStore(connect(url, quick=False))
    yield made
    await made.aclose()


@pytest.fixture
async def raw(url: str) -> AsyncIterator[AsyncRedis]:
    """The server as it is, for looking underneath."""
    async with AsyncRedis.from_url(url, decode_responses=True, protocol=2) as client:
        yield client


def empty(url: str) -> None:
    """Forget everything."""
    with Redis.from_url(url) as client:
        client.flushall()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once, in one line each, what is missing on this machine."""
    reasons = {report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])}
    for reason in sorted(reasons):
        terminalreporter.write_line(reason)
