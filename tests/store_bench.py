"""Promotions to keep, and servers that misbehave, for the tests of the store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from bot.core.catalog import Policy, Repository, RolloutPolicy, Target
from bot.core.promotion import LineChange, Promotion, Signer, new_id, request

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = Signer(id="U1", team="T1", name="Ann", email="ann@example.com")


def target(environment: str) -> Target:
    """`manual-app` in an environment."""
    return Target(
        app="manual-app",
        environment=environment,
        repository=Repository(name="gitops", url="file:///gitops", branch="main"),
        path=f"values-{environment}.yaml",
        keys=("image.tag",),
        image="ghcr.io/acme/manual-app",
        applications=(),
        channel="C1",
        policy=Policy(),
        rollout=RolloutPolicy(),
    )


PROD, STAGE, DEV = target("prod"), target("stage"), target("dev")


def new(where: Target = PROD, *, at: datetime = NOON, by: Signer = ANN) -> Promotion:
    """A new promotion of 15 in place of 14."""
    return request(
        where,
        id=new_id(),
        source="stage",
        version="15",
        old_version="14",
        changes=(LineChange(path=where.path, number=3, before='tag: "14"', after='tag: "15"'),),
        by=by,
        at=at,
        reason="the sale → tomorrow",
        seal="0" * 64,
    )


def approved(promotion: Promotion) -> Promotion:
    """Its next edition, approved."""
    return promotion.reach_quorum(at=promotion.last.at + timedelta(seconds=1), link=None)


def committing(promotion: Promotion) -> Promotion:
    """Its next edition, about to be written."""
    return promotion.start_commit(at=promotion.last.at + timedelta(seconds=1), base="b" * 40)


def committed(promotion: Promotion) -> Promotion:
    """Its next edition, written."""
    return promotion.commit(at=promotion.last.at + timedelta(seconds=1), revision="c" * 40)


def superseded(promotion: Promotion) -> Promotion:
    """Its last edition, pushed aside."""
    return promotion.supersede(at=promotion.last.at + timedelta(seconds=1), why="a newer one")


@asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """Takes connections and never says a word; gives its address."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    async with _serving(listen) as url:
        yield url


class LossyServer:
    """Stands before a real server and carries everything but answers to scripts, as long as `losing` says so."""

    def __init__(self, path: str) -> None:
        self.losing = 0
        self._path = path

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Gives its address."""
        async with _serving(self._carry) as url:
            yield url

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._path)
        with suppress(ConnectionError):
            while asked := await reader.read(65536):
                to_server.write(asked)
                answer = await from_server.read(65536)
                if b"EVALSHA" in asked and b"NOSCRIPT" not in answer and self.losing:
                    self.losing -= 1
                    break
                writer.write(answer)
        to_server.close()
        writer.close()


@asynccontextmanager
async def _serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], asyncio.Future[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"redis://{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()


async def wait_until(holds: Callable[[], object], what: str, *, seconds: float = 5.0) -> None:
    """Give the other tasks their turn until it holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s in vain: {what}") from None
