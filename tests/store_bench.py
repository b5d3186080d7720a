"""Promotions to keep, and servers that misbehave, for the tests of the store."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from bot.core.catalog import Repository, RolloutPolicy, Target
from bot.core.policy import Policy
from bot.core.ports import Change
from bot.core.promotion import LineChange, Promotion, Signer, new_id, request
from bot.integrations.store import RedisStore

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
    promotion = request(
        where,
        id=new_id(),
        source="stage",
        version="15",
        old_version="14",
        changes=(LineChange(path=where.path, number=3, before='tag: "14"', after='tag: "15"'),),
        by=by,
        at=at,
        reason="the sale → tomorrow",
    )
    return replace(promotion, request_seal="0" * 64)


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


async def saved(store: RedisStore, *editions: Promotion, holds: bool = True) -> Promotion:
    """Save these editions of one promotion one after another."""
    await store.create(editions[0], delivery=None, holds=holds)
    for before, after in itertools.pairwise(editions):
        await store.save([Change(before=before, after=after)], holds=holds)
    return editions[-1]


async def due_in(raw: Redis, promotion: Promotion) -> float | None:
    """Seconds until it is due by the server's clock; None where it is not in the due set."""
    score = await raw.zscore("{gp}:due", promotion.id)
    seconds, fraction = await raw.time()
    return None if score is None else score / 1000 - (seconds + fraction / 1_000_000)


class Unreliable:
    """A server on a TCP port that carries everything to the real one behind it and loses answers to scripts.

    Without a real one it is mute. `losing` answers are lost, each with its connection; where `dies`, nobody
    listens any more after the first.
    """

    def __init__(self, path: str | None, *, losing: int = 0, dies: bool = False) -> None:
        self.losing = losing
        self._path = path
        self._dies = dies
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Gives its address; its clients must be closed first."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        try:
            yield f"redis://{host}:{port}"
        finally:
            self._server.close()
            await asyncio.gather(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_hang_up, writer)
            if self._path is None:
                await reader.read()
                return
            answers, asks = await asyncio.open_unix_connection(self._path)
            stack.push_async_callback(_hang_up, asks)
            while asked := await reader.read(65536):
                asks.write(asked)
                answer = await answers.read(65536)
                if b"EVAL" in asked and b"NOSCRIPT" not in answer and self.losing:
                    self.losing -= 1
                    if self._dies and self._server:
                        self._server.close()
                    return
                writer.write(answer)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def wait_until(holds: Callable[[], Awaitable[object]], what: str, *, seconds: float = 5.0) -> None:
    """Give the other tasks their turn until it holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await holds():
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s in vain: {what}") from None
