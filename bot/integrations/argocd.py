"""Argo CD over its REST API: looks at applications as the core's facts, and syncs where somebody asked for one.

The right `applications, get` is enough for all that only looks, a refresh included. Whatever goes wrong leaves as
`Unavailable` (waiting may help), `Failed` or `Refused` (somebody has to act), without a token in it.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from bot.core.catalog import Application, Target
from bot.core.errors import Failed, Unavailable
from bot.core.facts import ApplicationFacts, Operation
from bot.integrations import argocd_sync
from bot.integrations.argocd_answers import Version
from bot.integrations.argocd_application import ApplicationCalls, Right, read, user
from bot.integrations.argocd_facts import read_application
from bot.integrations.argocd_http import SYSTEM, Connection, Rejected
from bot.integrations.argocd_logs import last_words
from bot.integrations.argocd_rendering import Rendering, read_rendering
from bot.integrations.argocd_stream import Hint, Patience, hints

CALL_LIMIT = timedelta(seconds=10)
REFRESH_LIMIT = timedelta(seconds=45)
SYNC_LIMIT = timedelta(seconds=30)
"""How long the start of a sync may take, and how long its rehearsal."""

Count = Callable[[str, str, str], None]
"""Hears of every call: the server's name, the kind of call, and how it ended, `2xx`, `timeout` or `unreachable`."""


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
    is_anonymous: bool = False
    """Is it served all the same, as one whom nobody knows?"""
    token_expires_at: datetime | None


def _count_nothing(_server: str, _call: str, _status: str) -> None:
    """For those who do not measure."""


class ArgoCD:
    """The port `Cluster` for several servers, by the names that the catalog gives them.

    The limits say how long a call may take, one that waits for a new comparison, and one that begins or rehearses a
    sync. Raises `Failed` for a token that no HTTP header can hold.
    """

    def __init__(
        self,
        *,
        servers: Mapping[str, Server],
        call_limit: timedelta = CALL_LIMIT,
        refresh_limit: timedelta = REFRESH_LIMIT,
        sync_limit: timedelta = SYNC_LIMIT,
        count: Count = _count_nothing,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._call_limit = call_limit
        self._refresh_limit = refresh_limit
        self._sync_limit = sync_limit
        self._now = now
        self._tokens = {name: server.token.strip() for name, server in servers.items()}
        self._connections = {
            name: Connection(
                url=server.url,
                token=self._tokens[name],
                verify=server.verify,
                headers=server.headers,
                count=partial(count, name),
            )
            for name, server in servers.items()
        }

    async def observe(
        self, target: Target, application: Application, *, refresh: bool, hard: bool = False
    ) -> ApplicationFacts:
        """One look at an application, and at whatever else matters as it is: its pods, or what holds it up."""
        calls = self._calls(application)
        try:
            if refresh or hard:
                kind = "hard" if hard else "normal"
                found = await calls.refreshed(kind, limit=self._refresh_limit)
            else:
                found = await calls.look()
            facts = read(calls.connection, lambda: read_application(found, target))
            facts = replace(facts, name=application.name)
            if _shows_workloads(facts, target):
                is_deployed = facts.sync == "Synced" and facts.health == "Healthy"
                with_digests = is_deployed and (
                    not target.is_tag_only or bool(target.digests) or target.asks_registry
                )
                workloads = await calls.workloads(target.image, with_digests=with_digests)
                facts = replace(facts, workloads=workloads)
            if _waits_by_itself(facts):
                facts = replace(facts, closed=await calls.closed(self._now()))
            if _waits_for_somebody(facts):
                rolls_with = await calls.rolls_with(found)
                may_sync = rolls_with == "" and await calls.surely_may("sync")
                facts = replace(facts, rolls_with=rolls_with or "", may_sync=may_sync)
        except Rejected as rejected:
            raise await calls.refusal(rejected) from rejected
        return facts

    async def rendering(self, target: Target, application: Application) -> Rendering:
        """What an application renders from, by one look at its object. Raises as `observe`."""
        calls = self._calls(application)
        try:
            answer = await calls.connection.get(
                calls.path, calls.query, call="application", limit=self._call_limit
            )
        except Rejected as rejected:
            raise await calls.refusal(rejected) from rejected
        return read(calls.connection, lambda: read_rendering(answer, target))

    async def rehearse(
        self, application: Application, *, revision: str | None, promotion: str = ""
    ) -> tuple[str, ...]:
        """Try a sync without doing it; returns what it would change, `Deployment/manual-app`.

        Where a sync for this promotion is under way, nothing is tried.
        """
        calls = self._calls(application)
        return await argocd_sync.rehearse(calls, revision, promotion, limit=self._sync_limit)

    async def sync(self, application: Application, *, revision: str | None, promotion: str) -> None:
        """Begin a sync, marked with the promotion's id; where one runs for it already, nothing is begun."""
        await argocd_sync.begin(self._calls(application), revision, promotion, limit=self._sync_limit)

    async def last_words(self, application: Application, image: str = "") -> str:
        """A pod in trouble, and the last lines that it wrote, without secrets; empty where nobody tells.

        Of several containers, the one that runs the image is read.
        """
        return await last_words(self._calls(application), image)

    async def rights(self, application: Application) -> tuple[Right, ...]:
        """Every right that the bot can use on an application, and whether its account has it. Raises as `observe`."""
        calls = self._calls(application)
        try:
            return await calls.rights()
        except Rejected as rejected:
            raise await calls.refusal(rejected) from rejected

    def hints(
        self, server: str, projects: Collection[str], patience: Patience | None = None
    ) -> AsyncGenerator[Hint, None]:
        """The namespace and name of each application of these projects that changes, as far as the server tells."""
        return hints(self._connection(server), projects, patience)

    async def identity(self, server: str) -> Identity:
        """Who answers at this server and whom it takes us for; for a check before anything depends on it."""
        connection = self._connection(server)
        try:
            version = await connection.get("/api/version", {}, call="version", limit=self._call_limit)
            known = await user(connection, limit=self._call_limit)
        except Rejected as rejected:
            raise Failed(f"{SYSTEM} at {connection.place} refuses: {rejected.said}") from rejected
        return Identity(
            version=read(connection, lambda: Version.model_validate(version)).version,
            username=known.username,
            is_logged_in=known.logged_in,
            is_anonymous=not known.logged_in and await self._serves_anybody(connection),
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

    def _calls(self, application: Application) -> ApplicationCalls:
        connection = self._connection(application.server)
        return ApplicationCalls(connection=connection, application=application, limit=self._call_limit)

    async def _serves_anybody(self, connection: Connection) -> bool:
        """Is a caller that nobody knows answered? Without anonymous access, it is sent away."""
        path, query = "/api/v1/applications", {"name": "-", "fields": "metadata.resourceVersion"}
        try:
            await connection.get(path, query, call="list", limit=self._call_limit)
        except Rejected as rejected:
            return rejected.status == 403
        except Unavailable:
            return False
        return True


def _is_noticed(facts: ApplicationFacts) -> bool:
    """Has a commit of our branch been compared with, and is nothing being synced?"""
    return not (facts.is_deleting or facts.tracks or facts.is_operating) and facts.revision is not None


def _shows_workloads(facts: ApplicationFacts, target: Target) -> bool:
    """Would pods tell anything now: is something of git's applied, and nothing being applied or waited for?"""
    if not _is_noticed(facts) or facts.sync == "Synced":
        return _is_noticed(facts)
    operation = facts.operation
    if operation is None or operation.phase != "Succeeded":
        return False
    return not _waits_for_somebody(facts) or _is_rolling_out(facts, operation, target)


def _is_rolling_out(facts: ApplicationFacts, operation: Operation, target: Target) -> bool:
    """Can a rollout of this operation be followed still, although something differs again?

    What differs may be what it left, or a later commit. Both times are Argo CD's, so no other clock matters.
    """
    if not operation.is_full and operation.revision != facts.history_revision:
        return False
    if operation.revision == facts.revision or facts.reconciled_at is None or operation.finished_at is None:
        return True
    return facts.reconciled_at - operation.finished_at <= target.rollout.timeout


def _waits_by_itself(facts: ApplicationFacts) -> bool:
    """Is there something to sync that Argo CD syncs by itself, and does it not, or not yet?"""
    if facts.is_operating:
        return facts.operation is not None and "blocked by sync window" in facts.operation.message
    return _is_noticed(facts) and facts.automated and facts.sync == "OutOfSync"


def _waits_for_somebody(facts: ApplicationFacts) -> bool:
    """Is there something to sync that Argo CD does not sync by itself?"""
    return _is_noticed(facts) and not facts.automated and facts.sync == "OutOfSync"


def _expiry(token: str) -> datetime | None:
    """When a token ends, as it says itself; its signature is Argo CD's business."""
    try:
        claims = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return datetime.fromtimestamp(float(expires), tz=UTC)
    except (LookupError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        return None
