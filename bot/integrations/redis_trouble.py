"""When the store's server fails: whether another try may do, whether anything was done, and words for people."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError

from bot.core.errors import Unavailable
from bot.integrations.redis_address import Client

SYSTEM = "the store"
TRIES = 2

_Told = TypeVar("_Told")

_MOVING = (exceptions.AskError, exceptions.TryAgainError, exceptions.ClusterDownError)
"""A cluster is being rearranged, and did nothing; that a slot has moved is a kind of `AskError`."""

_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.RedisClusterException,
    *_MOVING,
)
"""Another try may do; `ConnectionError` includes that the server is loading its data."""

_NOTHING_DONE = (
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
    exceptions.MaxConnectionsError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.RedisClusterException,
    MasterNotFoundError,
    *_MOVING,
)
"""The server, or our own side, said no before anything was written."""


async def ask(client: Client, do: Callable[[], Awaitable[_Told]], *, writes: bool = False) -> _Told:
    """What the server answers, with one more try; each of its errors becomes `Unavailable`."""
    maybe_done = False
    tries = TRIES
    while True:
        try:
            if isinstance(client, RedisCluster):
                await client.initialize()  # else first commands go to any node, and are sent on
            return await do()
        except (exceptions.RedisError, exceptions.RedisClusterException) as raised:
            # A refused password arrives wrapped in an error of the connection, a dead node in one of the cluster.
            error = raised.__cause__ if isinstance(raised.__cause__, exceptions.RedisError) else raised
            tries -= 1
            maybe_done = maybe_done or (writes and not _never_arrived(error))
            if tries == 0 or not isinstance(error, _PASSING):
                raise Unavailable(SYSTEM, _words(error), maybe_done=maybe_done) from raised


def _never_arrived(error: Exception) -> bool:
    """Is it certain that nothing was done, because somebody said so or because there was no connection?"""
    if type(error) is not exceptions.ConnectionError:
        return isinstance(error, _NOTHING_DONE)
    cause = error.__context__
    if isinstance(cause, ConnectionRefusedError | FileNotFoundError | PermissionError | socket.gaierror):
        return True
    # Behind sentinels, a primary that has become a replica arrives as a broken connection. And asyncio sums up
    # the failures of several addresses in an error without a number.
    return isinstance(cause, exceptions.ReadOnlyError) or (type(cause) is OSError and cause.errno is None)


def _words(error: Exception) -> str:
    """What happened, for people; the library's own words can hold an address."""
    if isinstance(error, exceptions.TimeoutError):
        return "it did not answer in time"
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return "it refuses the bot's user or password, or what that user may do"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "it is full: its memory limit is reached"
    if isinstance(error, exceptions.BusyLoadingError):
        return "it is still loading its data"
    if isinstance(error, exceptions.ReadOnlyError):
        return "it takes no writes, as a replica does; a failover may be under way"
    if isinstance(error, MasterNotFoundError):
        return "no sentinel that answers knows a primary; a failover may be under way"
    if isinstance(error, exceptions.RedisClusterException | exceptions.ClusterError | exceptions.AskError):
        return "its cluster does not serve the bot's keys just now"
    if isinstance(error, exceptions.ConnectionError):
        return "it cannot be reached" if _never_arrived(error) else "the connection broke"
    return f"it answered with an error: {error}"
