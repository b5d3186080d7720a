"""Where the store is: one server, the primary that sentinels name, or a cluster.

`redis://USER:PASSWORD@HOST:PORT/DB`, `unix:///path/of/the.sock`,
`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME/DB` and `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT`;
with `rediss` the connections are encrypted. User and password are those of the servers; the sentinels have their
own, in the options `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

Client = Redis | RedisCluster

ENCRYPTION = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
"""The options of an encrypted connection, as redis-py names them; the first, third and last are paths."""
SENTINELS = frozenset({"sentinel_username", "sentinel_password"})
PORT, SENTINEL_PORT = 6379, 26379

CANNOT_READ = (
    "The store's address cannot be read: it is redis://, rediss:// or unix://, redis+sentinel://HOST:PORT,…/NAME or "
    "redis+cluster://HOST:PORT,…; in a user or password write / # ? @ : % as %2F %23 %3F %40 %3A %25."
)


def connect(url: str, *, quick: bool) -> Client:
    """A client for the address; reads and writes go to the primary alone.

    `quick` is for the web side, where a person waits: it gives up a try after 0.7 seconds, else after 5. Raises
    `ValueError` for an address that cannot be read, without repeating it: it may hold a password.
    """
    try:
        return _client(url, patience=0.7 if quick else 5.0)
    except ValueError:  # urllib repeats what it cannot read
        raise ValueError(CANNOT_READ) from None


async def close(client: Client) -> None:
    """Close every connection, those to the sentinels as well."""
    await client.aclose()
    if isinstance(client, Redis) and isinstance(client.connection_pool, SentinelConnectionPool):
        await client.connection_pool.sentinel_manager.aclose()


def _client(url: str, *, patience: float) -> Client:
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError("a fragment")
    scheme, _, kind = parts.scheme.partition("+")
    path = [unquote(word) for word in parts.path.strip("/").split("/") if word]
    options = _options(parts, is_encrypted=scheme == "rediss") | _manner(patience)
    match scheme, kind:
        case ("unix", "") if path:
            return Redis(unix_socket_path=unquote(parts.path), **options)
        case ("redis" | "rediss", ""):
            [(host, port)] = _hosts(parts, default=PORT)
            return Redis(host=host, port=port, db=_database(path), **options)
        case ("redis" | "rediss", "sentinel") if path:
            return _behind_sentinels(
                _hosts(parts, default=SENTINEL_PORT), path[0], _database(path[1:]), options
            )
        case ("redis" | "rediss", "cluster") if not path:
            return _cluster(_hosts(parts, default=PORT), options)
    raise ValueError("another kind")


def _manner(patience: float) -> dict[str, Any]:
    return {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "decode_responses": True,
        "health_check_interval": 15,
        "max_connections": 500,
        "protocol": 2,  # answers of one shape from every server, and no hello before the first command
        # The store itself tries again: it must know whether any of its tries may have arrived. These two errors
        # drop the connection, so that the next try finds the new primary after a failover.
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [exceptions.ReadOnlyError, exceptions.BusyLoadingError],
    }


def _options(parts: SplitResult, *, is_encrypted: bool) -> dict[str, Any]:
    """User, password and encryption. Other options would change how the store's promises are kept."""
    given: dict[str, Any] = dict(
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    )
    allowed = (ENCRYPTION if is_encrypted else frozenset()) | (
        SENTINELS if parts.scheme.endswith("+sentinel") else frozenset()
    )
    if not given.keys() <= allowed:
        raise ValueError("another option")
    if (word := given.get("ssl_check_hostname")) is not None:
        given["ssl_check_hostname"] = ("false", "true").index(word.lower()) == 1
    for name in ("username", "password"):
        if word := getattr(parts, name):
            given[name] = unquote(word)
    return given | ({"ssl": True} if is_encrypted else {})


def _hosts(parts: SplitResult, *, default: int) -> list[tuple[str, int]]:
    found = [urlsplit(f"//{word}") for word in parts.netloc.rpartition("@")[2].split(",")]
    return [(each.hostname or "localhost", each.port or default) for each in found]


def _database(path: list[str]) -> int:
    [number] = path or ["0"]
    return int(number)


def _behind_sentinels(
    sentinels: list[tuple[str, int]], name: str, database: int, options: dict[str, Any]
) -> Redis:
    own = {word.removeprefix("sentinel_"): options.pop(word, None) for word in SENTINELS}
    found = Sentinel(sentinels, sentinel_kwargs={**options, **own}, db=database, **options)  # type: ignore[no-untyped-call]
    client: Redis = found.master_for(name)
    return client


def _cluster(hosts: list[tuple[str, int]], options: dict[str, Any]) -> RedisCluster:
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in hosts],
        dynamic_startup_nodes=False,  # names outlive the addresses that stand behind them
        require_full_coverage=False,  # our keys are in one slot; the others do not matter
        reinitialize_steps=0,  # a redirection tells enough; to begin anew would break what others are asking
        **options,
    )
