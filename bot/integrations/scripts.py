"""Runs a script where the keys are; where replicas are asked for, with `WAIT` behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.typing import EncodableT

from bot.integrations.redis_address import Client

CONFIRM_WITHIN = 500
"""Milliseconds for replicas to confirm."""


async def run(client: Client, script: str, *, keys: Sequence[str], args: Sequence[EncodableT]) -> Any:
    """The script's answer. A server that does not know it is given its text, and keeps it."""
    try:
        return await client.evalsha(_digest(script), len(keys), *keys, *args)
    except exceptions.NoScriptError:
        return await client.eval(script, len(keys), *keys, *args)


async def run_confirmed(
    client: Client, script: str, *, keys: Sequence[str], args: Sequence[EncodableT], replicas: int
) -> tuple[Any, int]:
    """The script's answer, and how many replicas had confirmed what it wrote when `replicas` had, or it took too long."""
    words = (len(keys), *keys, *args)
    answer, confirmed = await _with_wait(client, keys[0], ("EVALSHA", _digest(script), *words), replicas)
    if isinstance(answer, exceptions.NoScriptError):
        answer, confirmed = await _with_wait(client, keys[0], ("EVAL", script, *words), replicas)
    for said in (answer, confirmed):
        if isinstance(said, Exception):
            raise said
    return answer, confirmed


async def _with_wait(
    client: Client, key: str, command: tuple[EncodableT, ...], replicas: int
) -> tuple[Any, Any]:
    """Both answers, either of which may be an error; `WAIT` speaks of its own connection, so they share one."""
    wait = ("WAIT", replicas, CONFIRM_WITHIN)
    if isinstance(client, RedisCluster):
        return await _with_wait_in_cluster(client, key, command, wait)
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(*command)
        pipeline.execute_command(*wait)
        answer, confirmed = await pipeline.execute(raise_on_error=False)
    return answer, confirmed


async def _with_wait_in_cluster(
    client: RedisCluster, key: str, command: tuple[EncodableT, ...], wait: tuple[EncodableT, ...]
) -> tuple[Any, Any]:
    node = client.get_node_from_key(key)
    async with client.pipeline() as pipeline:
        for each in (command, wait):
            pipeline.execute_command(*each, target_nodes=node)
        try:
            # A redirected command would be sent alone, away from its WAIT.
            answer, confirmed = await pipeline.execute(raise_on_error=False, allow_redirections=False)
        except exceptions.RedisError as error:
            answer = confirmed = error
    if isinstance(answer, exceptions.ConnectionError | exceptions.TimeoutError | exceptions.AskError):
        # Only a single command teaches the client where the slot is now.
        with suppress(exceptions.RedisError, exceptions.RedisClusterException):
            await client.type(key)
    return answer, confirmed


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
