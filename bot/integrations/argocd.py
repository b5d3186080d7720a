"""Argo CD over its REST API: one look at an application, as the core's facts.

It only reads: the right `applications, get` is enough for everything here, a refresh included. Whatever goes wrong
leaves as `Unavailable` (waiting may help) or `Failed` (somebody has to act), without a token in it.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote

from bot.core.catalog import Application, Target
from bot.core.errors import Failed, Unavailable
from bot.core.rollout import ApplicationFacts, Workloads
from bot.integrations.argocd_facts import read_application, read_workloads
from bot.integrations.argocd_http import SYSTEM, Connection, Rejected, TimedOut
from bot.integrations.argocd_objects import UserInfo, Version

CALL_LIMIT = timedelta(seconds=10)
REFRESH_LIMIT = timedelta(seconds=45)

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One Argo CD. `url` may have a path, where it runs with `--rootpath`; `headers` are for a proxy before it."""

    url: str
    token: str = field(repr=False)
    verify: ssl.SSLContext | bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which Argo CD it is, and whom it takes us for. A token without an expiry is valid until it is revoked."""

    version: str
    username: str
    is_logged_in: bool
    token_expires_at: datetime | None


class ArgoCD:
    """The port `Cluster` for several servers, by the names that the catalog gives them.

    The limits say how long a call may take, and one that waits for a new comparison. Raises `Failed` for a token
    that no HTTP header can hold.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, Server],
        call_limit: timedelta = CALL_LIMIT,
        refresh_limit: timedelta = REFRESH_LIMIT,
    ) -> None:
        self._call_limit = call_limit
        self._refresh_limit = refresh_limit
        self._tokens = {name: server.token.strip() for name, server in servers.items()}
        self._connections = {
            name: Connection(
                url=server.url,
                token=self._tokens[name],
                verify=server.verify,
                headers=server.headers,
            )
            for name, server in servers.items()
        }

    async def observe(self, target: Target, application: Application, *, refresh: bool) -> ApplicationFacts:
        """One look at an application, and at its workloads where it is settled enough for them to matter."""
        connection = self._connection(application.server)
        try:
            answer = await self._get_application(connection, application, refresh=refresh)
            facts = _read(connection, lambda: read_application(answer, target))
            facts = replace(facts, name=application.name)
            if _shows_workloads(facts):
                facts = replace(facts, workloads=await self._workloads(connection, application))
        except Rejected as rejected:
            raise Failed(await self._reason(connection, application, rejected)) from rejected
        return facts

    async def identity(self, server: str) -> Identity:
        """Who answers at this server and whom it takes us for; for a check before anything depends on it."""
        connection = self._connection(server)
        try:
            version = await connection.get("/api/version", {}, limit=self._call_limit)
            user = await self._user(connection)
        except Rejected as rejected:
            raise Failed(f"{SYSTEM} at {connection.place} refuses: {rejected.said}") from rejected
        return Identity(
            version=_read(connection, lambda: Version.model_validate(version)).version,
            username=user.username,
            is_logged_in=user.logged_in,
            token_expires_at=_expiry(self._tokens[server]),
        )

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            await connection.aclose()

    def _connection(self, server: str) -> Connection:
        if server not in self._connections:
            raise Failed(f"no {SYSTEM} called “{server}” is configured")
        return self._connections[server]

    async def _get_application(
        self, connection: Connection, application: Application, *, refresh: bool
    ) -> object:
        """The Application object; a refresh that takes too long proves nothing, so a plain look follows it."""
        path, query = _address(application)
        if refresh:
            try:
                return await connection.refresh(
                    path, query | {"refresh": "normal"}, limit=self._refresh_limit
                )
            except TimedOut:
                pass
        return await connection.get(path, query, limit=self._call_limit)

    async def _workloads(self, connection: Connection, application: Application) -> Workloads | None:
        """What should run and what runs; None where Argo CD has not got it in its cache just now."""
        path, query = _address(application)
        try:
            managed = await connection.get(f"{path}/managed-resources", query, limit=self._call_limit)
            tree = await connection.get(f"{path}/resource-tree", query, limit=self._call_limit)
            return _read(connection, lambda: read_workloads(managed, tree))
        except Unavailable:
            return None

    async def _user(self, connection: Connection) -> UserInfo:
        answer = await connection.get("/api/v1/session/userinfo", {}, limit=self._call_limit)
        return _read(connection, lambda: UserInfo.model_validate(answer))

    async def _reason(self, connection: Connection, application: Application, rejected: Rejected) -> str:
        """Why somebody has to act, and what to do."""
        at, project, name = connection.place, application.project, application.name
        expired = f"the token for {SYSTEM} at {at} expired or was revoked: "
        if rejected.status == 401:
            return expired + rejected.said
        if rejected.status == 404:
            where = f" in the namespace “{application.namespace}”" if application.namespace else ""
            return f"{SYSTEM} at {at} has no application “{name}” in the project “{project}”{where}"
        if rejected.status == 403:
            # With anonymous access enabled, Argo CD takes a caller whose token expired for nobody instead of saying so.
            try:
                is_known = (await self._user(connection)).logged_in
            except (Rejected, Unavailable):
                is_known = True
            if not is_known:
                return expired + "it is taken for nobody's"
            of = f"{project}/{application.namespace}/{name}" if application.namespace else f"{project}/{name}"
            return f"{SYSTEM} at {at} does not let the bot see “{name}”: its account needs applications, get, {of}"
        return f"{SYSTEM} at {at} refuses to tell about “{name}”: {rejected.said}"


def _address(application: Application) -> tuple[str, dict[str, str]]:
    """Always with the project: without it, Argo CD answers a missing application like a forbidden one."""
    query = {"project": application.project}
    if application.namespace:
        query["appNamespace"] = application.namespace
    return f"/api/v1/applications/{quote(application.name, safe='')}", query


def _shows_workloads(facts: ApplicationFacts) -> bool:
    """Would pods tell anything now: is something of git's applied, and nothing being applied?"""
    if facts.is_deleting or facts.tracks or facts.is_operating or not facts.revision:
        return False
    was_synced = facts.operation is not None and facts.operation.phase == "Succeeded"
    return facts.sync == "Synced" or was_synced


def _read(connection: Connection, reading: Callable[[], _Read]) -> _Read:
    """What `reading` makes of an answer; an answer that it cannot make sense of comes from something else."""
    try:
        return reading()
    except ValueError as error:
        raise Unavailable(SYSTEM, f"{connection.place} answers unlike an Argo CD API") from error


def _expiry(token: str) -> datetime | None:
    """When a token ends, as it says itself; its signature is Argo CD's business."""
    try:
        claims = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return datetime.fromtimestamp(float(expires), tz=UTC)
    except (LookupError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        return None
