"""Is a Redis or Valkey server one that may be trusted with promotions?"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from bot.integrations import scripts
from bot.integrations.redis_address import Client

OLDEST = (6, 2)
PATCHED_REDIS = {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
PATCHED_VALKEY = {(7, 2): 11, (8, 0): 6, (8, 1): 4}
"""The patch release of each line that mended the hole in Lua scripts, CVE-2025-49844; later lines never had it."""
LONGEST_SKEW = 5.0
"""Seconds between the server's clock and ours."""

PROBE = "{gp}:probe"
_PROBE = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000)
redis.call('PUBLISH', KEYS[1], '')
local time = redis.call('TIME')
return {redis.call('GET', KEYS[1]), time[1], time[2]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `error`: the bot must not start on it; `warn`: somebody should know."""

    name: str
    level: Literal["ok", "warn", "error"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """The server that holds the keys: what it says of itself, and how the bot is connected to it."""

    info: Mapping[str, Any]
    fsync: str | None
    connection: Mapping[str, Any]
    is_encrypted: bool


async def examine(client: Client, *, wait_replicas: int = 0, allow_plain: bool = False) -> list[Finding]:
    """Look at everything; raises the library's errors where the server cannot be reached at all.

    `wait_replicas` and `allow_plain` are what the settings REDIS_WAIT_REPLICAS and REDIS_ALLOW_PLAIN say.
    """
    server = await _server(client)
    return [
        version_finding(server.info),
        durability_finding(server.info, fsync=server.fsync),
        _eviction(server.info),
        _role(server.info),
        *([replicas_finding(server.info, wanted=wait_replicas)] if wait_replicas else []),
        *await _probe(client),
        transport_finding(server.connection, is_encrypted=server.is_encrypted, allow_plain=allow_plain),
        *await _company(client),
    ]


async def _server(client: Client) -> _Server:
    """Ask the one server that has our slot, where there are several."""
    options: dict[str, Any] = {}
    made_by: type[AbstractConnection]
    if isinstance(client, RedisCluster):
        node = options["target_nodes"] = client.nodes_manager.get_node_from_slot(client.keyslot(PROBE))
        connection, made_by = node.connection_kwargs, node.connection_class
    else:
        await client.ping()
        pool = client.connection_pool
        connection, made_by = pool.connection_kwargs, pool.connection_class
        if isinstance(pool, SentinelConnectionPool) and pool.master_address:
            connection = {**connection, "host": pool.master_address[0]}
    return _Server(
        info=await _allowed(client.info("everything", **options)),
        fsync=(await _allowed(client.config_get("appendfsync", **options))).get("appendfsync"),
        connection=connection,
        is_encrypted=issubclass(made_by, SSLConnection),
    )


async def _allowed(answer: Awaitable[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    """The answer; nothing where managed servers forbid the question."""
    try:
        return await answer
    except exceptions.ResponseError:
        return {}


def version_finding(info: Mapping[str, Any]) -> Finding:
    """Valkey calls itself Redis 7.2.4 for old clients' sake, and tells its own version beside it."""
    name = "version"
    is_valkey = "valkey_version" in info
    told = str(info.get("valkey_version", info.get("redis_version", "")))
    if not told:
        return Finding(
            name=name, level="warn", text="The server does not tell its version; I cannot verify it."
        )
    server = f"{'Valkey' if is_valkey else 'Redis'} {told}"
    major, minor, patch = (*(int(part) for part in re.findall(r"\d+", told)[:3]), 0, 0, 0)[:3]
    if (major, minor) < OLDEST:
        return Finding(name=name, level="error", text=f"{server} is too old: 6.2 or newer is needed.")
    patched = PATCHED_VALKEY if is_valkey else PATCHED_REDIS
    needed = patched.get((major, minor), 0 if (major, minor) > max(patched) else None)
    if needed is None or patch < needed:
        text = f"{server} has a hole in its Lua scripts (CVE-2025-49844), unless your distribution mended it."
        return Finding(name=name, level="warn", text=text)
    return Finding(name=name, level="ok", text=f"{server}.")


def durability_finding(info: Mapping[str, Any], *, fsync: str | None) -> Finding:
    """Are writes on disk, and how soon? `fsync` is the setting appendfsync; None where it may not be asked."""
    name = "durability"
    if "aof_enabled" not in info:
        return Finding(name=name, level="warn", text="I cannot verify that writes are kept on disk.")
    if not info["aof_enabled"]:
        text = "Writes are not kept on disk (appendonly no): a restart of the server forgets promotions."
        return Finding(name=name, level="warn", text=text)
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding(name=name, level="error", text="The server cannot write to its disk.")
    if fsync is None:
        text = "Every write goes to disk; I cannot verify how soon (appendfsync)."
        return Finding(name=name, level="ok", text=text)
    if fsync == "always":
        return Finding(name=name, level="ok", text="Every write is on disk before it is answered.")
    text = f"Writes go to disk with appendfsync {fsync}: a loss of power can lose the last second."
    return Finding(name=name, level="ok", text=text)


def _eviction(info: Mapping[str, Any]) -> Finding:
    name = "eviction"
    if "maxmemory_policy" not in info:
        return Finding(name=name, level="warn", text="I cannot verify that the server never evicts keys.")
    policy, limit = info["maxmemory_policy"], info.get("maxmemory", 0)
    if policy != "noeviction" and limit:
        text = f"maxmemory-policy is {policy}: a full server would lose promotions. Set it to noeviction."
        return Finding(name=name, level="error", text=text)
    return Finding(name=name, level="ok", text="The server never evicts keys.")


def _role(info: Mapping[str, Any]) -> Finding:
    name = "role"
    if "role" not in info:
        return Finding(name=name, level="warn", text="I cannot verify that the server is a primary.")
    if info["role"] != "master":
        return Finding(name=name, level="error", text="The server is a replica: it takes no writes.")
    return Finding(name=name, level="ok", text="The server is a primary.")


def replicas_finding(info: Mapping[str, Any], *, wanted: int) -> Finding:
    """Are there as many replicas as must confirm a change?"""
    name = "replicas"
    if "connected_slaves" not in info:
        return Finding(name=name, level="warn", text="I cannot verify how many replicas are connected.")
    found = int(info["connected_slaves"])
    if found < wanted:
        text = (
            f"{found} replicas are connected and REDIS_WAIT_REPLICAS asks {wanted} to confirm: until they are back, "
            "every request and decision is answered with “I could not confirm”, and nothing is committed."
        )
        return Finding(name=name, level="warn", text=text)
    return Finding(name=name, level="ok", text=f"{found} are connected; {wanted} confirm each change.")


async def _probe(client: Client) -> list[Finding]:
    """Write, read and ask the time as our scripts do."""
    word = secrets.token_hex(8)
    try:
        seen, seconds, fraction = await scripts.run(client, _PROBE, keys=[PROBE], args=[word])
    except exceptions.ResponseError as error:
        return [Finding(name="scripts", level="error", text=f"The bot may not run its scripts: {error}.")]
    if seen != word:
        return [Finding(name="scripts", level="error", text="What was written could not be read back.")]
    return [
        Finding(name="scripts", level="ok", text="Scripts, writing and reading work."),
        clock_finding(int(seconds) + int(fraction) / 1_000_000 - time.time()),
    ]


def clock_finding(ahead: float) -> Finding:
    """How far the server's clock is ahead of ours, in seconds."""
    if abs(ahead) > LONGEST_SKEW:
        text = f"The server's clock and ours differ by {abs(ahead):.0f} seconds; expiry is judged by ours."
        return Finding(name="clock", level="warn", text=text)
    return Finding(name="clock", level="ok", text="The server's clock agrees with ours.")


def transport_finding(
    connection: Mapping[str, Any], *, is_encrypted: bool, allow_plain: bool = False
) -> Finding:
    """May others read, or pretend to be the bot? `connection` is the library's host or path, and password."""
    name, host = "transport", str(connection.get("host", "localhost"))
    if "path" in connection or _is_here(host):
        return Finding(name=name, level="ok", text="The connection does not leave this machine.")
    lacks = []
    if not connection.get("password") and not (is_encrypted and connection.get("ssl_certfile")):
        lacks.append("without a password")
    if not is_encrypted:
        lacks.append("not encrypted")
    if not lacks:
        return Finding(name=name, level="ok", text="The connection is encrypted, and the bot has a password.")
    text = f"The connection to {host} is {' and '.join(lacks)}: whoever is between can change promotions."
    if allow_plain:
        return Finding(name=name, level="warn", text=f"{text} REDIS_ALLOW_PLAIN allows it.")
    text = f"{text} Use rediss:// and a password, or allow both to be missing with REDIS_ALLOW_PLAIN=1."
    return Finding(name=name, level="error", text=text)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _company(client: Client) -> list[Finding]:
    """The cluster or the sentinels around the server."""
    if isinstance(client, RedisCluster):
        told = await _allowed(client.cluster_info())
        return [_cluster(told or {})]
    pool = client.connection_pool
    return [await _sentinels(pool.sentinel_manager)] if isinstance(pool, SentinelConnectionPool) else []


def _cluster(told: Mapping[str, Any]) -> Finding:
    name = "cluster"
    if "cluster_state" not in told:
        return Finding(name=name, level="warn", text="I cannot verify the state of the cluster.")
    if told["cluster_state"] != "ok":
        text = f"The cluster says {told['cluster_state']}: it may refuse the bot's keys."
        return Finding(name=name, level="error", text=text)
    return Finding(
        name=name, level="ok", text=f"{told['cluster_known_nodes']} servers, all slots are served."
    )


async def _sentinels(manager: Sentinel) -> Finding:
    answers = await asyncio.gather(*(each.ping() for each in manager.sentinels), return_exceptions=True)
    silent = sum(isinstance(answer, Exception) for answer in answers)
    if silent:
        text = f"{silent} of {len(answers)} sentinels do not answer: a failover may not be possible."
        return Finding(name="sentinels", level="warn", text=text)
    return Finding(name="sentinels", level="ok", text=f"All {len(answers)} sentinels answer.")
