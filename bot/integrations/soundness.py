"""Is a Redis or Valkey server one that may be trusted with promotions?"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection

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


async def examine(client: Redis) -> list[Finding]:
    """Look at everything; raises the library's errors where the server cannot be reached at all."""
    await client.ping()
    try:
        info = await client.info("everything")
    except exceptions.ResponseError:  # managed servers may forbid it
        info = {}
    try:
        fsync = (await client.config_get("appendfsync")).get("appendfsync")
    except exceptions.ResponseError:
        fsync = None
    return [
        version_finding(info),
        _durability(info, fsync=fsync),
        _eviction(info),
        _role(info),
        *await _probe(client),
        _transport(client),
    ]


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


def _durability(info: Mapping[str, Any], *, fsync: str | None) -> Finding:
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


async def _probe(client: Redis) -> list[Finding]:
    """Write, read and ask the time as our scripts do."""
    word = secrets.token_hex(8)
    try:
        seen, seconds, fraction = await client.register_script(_PROBE)(keys=[PROBE], args=[word])
    except exceptions.ResponseError as error:
        return [Finding(name="scripts", level="error", text=f"The bot may not run its scripts: {error}.")]
    if seen != word:
        return [Finding(name="scripts", level="error", text="What was written could not be read back.")]
    skew = abs(time.time() - (int(seconds) + int(fraction) / 1_000_000))
    clock = Finding(name="clock", level="ok", text="The server's clock agrees with ours.")
    if skew > LONGEST_SKEW:
        text = f"The server's clock and ours differ by {skew:.0f} seconds; expiry is judged by ours."
        clock = Finding(name="clock", level="warn", text=text)
    return [Finding(name="scripts", level="ok", text="Scripts, writing and reading work."), clock]


def _transport(client: Redis) -> Finding:
    name = "transport"
    pool = client.connection_pool
    host = str(pool.connection_kwargs.get("host", "localhost"))
    if issubclass(pool.connection_class, SSLConnection):
        return Finding(name=name, level="ok", text="The connection is encrypted.")
    if "path" in pool.connection_kwargs or host in ("localhost", "127.0.0.1", "::1"):
        return Finding(name=name, level="ok", text="The connection does not leave this machine.")
    has_password = bool(pool.connection_kwargs.get("password"))
    text = f"The connection to {host} is {'' if has_password else 'without a password and '}not encrypted."
    return Finding(name=name, level="warn", text=f"{text} Use rediss:// and a password.")
