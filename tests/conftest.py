"""What tests of several files share: programs they need, and an embedded server for each test process."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from bot.integrations import embedded


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


def empty(url: str) -> None:
    """Forget everything."""
    with Redis.from_url(url) as client:
        client.flushall()
