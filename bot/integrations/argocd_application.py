"""The questions that one application answers, beside its own object: what runs, what holds it up, who may what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from bot.core import catalog
from bot.core.errors import Failed, Unavailable
from bot.core.facts import Workloads
from bot.core.outcome import Outcome
from bot.core.together import together
from bot.integrations.argocd_answers import ApplicationSet, CanI, Node, UserInfo, Windows
from bot.integrations.argocd_http import SYSTEM, Connection, Rejected, TimedOut
from bot.integrations.argocd_objects import Application
from bot.integrations.argocd_text import said
from bot.integrations.argocd_windows import closed
from bot.integrations.argocd_workloads import is_ready, pod_nodes, read_digests, read_workloads

PODS_ASKED = 5
"""How many pods are asked what they really run."""
ROLLING_SYNC = "applicationset-controller"
"""Who starts the operations of a rolling sync."""
RIGHTS = (
    ("applications", "get", "following it"),
    ("applications", "sync", "Sync now"),
    ("logs", "get", "the last lines of a pod that fails"),
    ("applicationsets", "get", "the step of a rolling sync"),
)
"""What the bot can use, and for what."""

_Read = TypeVar("_Read")


class Right(NamedTuple):
    """A right in Argo CD's policy, `applications, get, default/manual-app-prod`, and what it is for."""

    right: str
    is_granted: bool
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCalls:
    """The calls about one application. Unless they say otherwise they raise `Rejected` and `Unavailable`.

    Always with the project: without it, Argo CD answers a missing application like a forbidden one.
    """

    connection: Connection
    application: catalog.Application
    limit: timedelta

    @property
    def path(self) -> str:
        """Its address on the server."""
        return f"/api/v1/applications/{quote(self.application.name, safe='')}"

    @property
    def query(self) -> dict[str, str]:
        """What says which application of that name."""
        query = {"project": self.application.project}
        if self.application.namespace:
            query["appNamespace"] = self.application.namespace
        return query

    @property
    def policy_object(self) -> str:
        """What Argo CD's policy calls it: `project/name`, with its namespace between where it has one of its own."""
        found = self.application
        return "/".join(part for part in (found.project, found.namespace, found.name) if part)

    async def look(self) -> Application:
        """The Application object."""
        answer = await self.connection.get(self.path, self.query, call="application", limit=self.limit)
        return self.read(lambda: Application.model_validate(answer))

    async def refreshed(self, kind: str, *, limit: timedelta) -> Application:
        """The same after a new comparison; one that takes too long proves nothing, so a plain look follows it."""
        query = self.query | {"refresh": kind}
        try:
            answer = await self.connection.refresh(self.path, query, call="refresh", limit=limit)
        except TimedOut:
            return await self.look()
        return self.read(lambda: Application.model_validate(answer))

    async def workloads(self, image: str, *, with_digests: bool) -> Workloads | None:
        """What should run and what runs; None where Argo CD has not got it in its cache just now."""
        try:
            managed = await self.part("managed-resources")
            tree = await self.part("resource-tree")
            pods = self.read(lambda: list(pod_nodes(tree))) if with_digests else []
            digests = await self._digests(pods, image)
            return self.read(lambda: read_workloads(managed, tree, digests))
        except Unavailable:
            return None

    async def closed(self, now: datetime) -> str:
        """Which sync window holds it up, and until when; empty where none does, or nobody tells."""
        try:
            answer = await self.part("syncwindows")
            return self.read(lambda: closed(Windows.model_validate(answer), now))
        except (Rejected, Unavailable):
            return ""

    async def rolls_with(self, found: Application) -> str | None:
        """The ApplicationSet that syncs it in a step of its own, and how far that is.

        Empty where none does, None where one owns it and nobody tells.
        """
        owners = (each.name for each in found.metadata.owner_references if each.kind == "ApplicationSet")
        if not (owner := next(owners, "")):
            return ""
        state = found.status.operation_state
        was_rolled = state is not None and state.operation.initiated_by.username == ROLLING_SYNC
        try:
            its_set = await self._application_set(owner, found.metadata.namespace)
        except (Rejected, Unavailable):
            return f"the ApplicationSet {owner} syncs it in one of its steps" if was_rolled else None
        if its_set.spec.strategy.type != "RollingSync" and not was_rolled:
            return ""
        for step in its_set.status.application_status:
            if step.application == found.metadata.name:
                return said(f"step {step.step} of the ApplicationSet {owner}: {step.status}")
        return f"the ApplicationSet {owner} syncs it in one of its steps"

    async def may(self, resource: str, action: str) -> bool:
        """Does the bot's account have this right here?"""
        parts = (resource, action, *self._object(resource).split("/"))
        path = "/".join(quote(part, safe="*") for part in parts)
        answer = await self.connection.get(
            f"/api/v1/account/can-i/{path}", {}, call="can-i", limit=self.limit
        )
        return self.read(lambda: CanI.model_validate(answer)).value == "yes"

    async def surely_may(self, action: str) -> bool:
        """May the bot's account do this to the application? Where nobody tells, it may not."""
        try:
            return await self.may("applications", action)
        except (Rejected, Unavailable):
            return False

    async def rights(self) -> tuple[Right, ...]:
        """Every right that the bot can use, and whether its account has it."""
        granted = await together(*(self.may(resource, action) for resource, action, _ in RIGHTS))
        return tuple(
            Right(f"{resource}, {action}, {self._object(resource)}", is_granted, purpose)
            for (resource, action, purpose), is_granted in zip(RIGHTS, granted, strict=True)
        )

    async def refusal(self, rejected: Rejected) -> Failed:
        """Why somebody has to act, and what to do."""
        at, name, project = self.connection.place, self.application.name, self.application.project
        where = f" in the namespace “{self.application.namespace}”" if self.application.namespace else ""
        missing = f"{SYSTEM} at {at} has no application “{name}” in the project “{project}”{where}"
        if rejected.status == 404:
            return Failed(missing, outcome=Outcome.MISSING)
        if rejected.status == 401:
            return self._expired(rejected.said)
        if rejected.status != 403:
            return Failed(f"{SYSTEM} at {at} refuses to tell about “{name}”: {rejected.said}")
        # With anonymous access enabled, Argo CD takes a caller whose token expired for nobody instead of saying so.
        if not await self._is_known():
            return self._expired("it is taken for nobody's")
        if await self.surely_may("get"):
            return Failed(missing, outcome=Outcome.MISSING)
        needs = f"its account needs applications, get, {self.policy_object}"
        return Failed(
            f"{SYSTEM} at {at} does not let the bot see “{name}”: {needs}", outcome=Outcome.NO_PERMISSION
        )

    def read(self, reading: Callable[[], _Read]) -> _Read:
        """What `reading` makes of an answer; an answer that it cannot make sense of comes from something else."""
        return read(self.connection, reading)

    async def part(self, name: str, **more: str) -> object:
        """The JSON of what stands below the application, `resource-tree` for one."""
        query = self.query | more
        return await self.connection.get(f"{self.path}/{name}", query, call=name, limit=self.limit)

    async def pod(self, pod: Node) -> object:
        """The JSON of a pod as it is in the cluster."""
        return await self.part(
            "resource", namespace=pod.namespace, resourceName=pod.name, version="v1", kind="Pod"
        )

    async def _digests(self, pods: Iterable[Node], image: str) -> dict[str, frozenset[str]]:
        """What a few ready pods really run; a pod that is gone or hidden tells nothing."""
        asked = [pod for pod in pods if is_ready(pod)][:PODS_ASKED]
        found = await together(*(self._digests_of(pod, image) for pod in asked))
        return {pod.uid: digests for pod, digests in zip(asked, found, strict=True)}

    async def _digests_of(self, pod: Node, image: str) -> frozenset[str]:
        try:
            answer = await self.pod(pod)
            return self.read(lambda: read_digests(answer, image))
        except (Rejected, Unavailable):
            return frozenset()

    async def _application_set(self, name: str, namespace: str) -> ApplicationSet:
        answer = await self.connection.get(
            f"/api/v1/applicationsets/{quote(name, safe='')}",
            {"appsetNamespace": namespace} if namespace else {},
            call="applicationset",
            limit=self.limit,
        )
        return self.read(lambda: ApplicationSet.model_validate(answer))

    def _object(self, resource: str) -> str:
        """What the policy calls what the right is for; nobody says by which name an ApplicationSet comes."""
        if resource == "applicationsets":
            return f"{self.policy_object.rpartition('/')[0]}/*"
        return self.policy_object

    def _expired(self, why: str) -> Failed:
        says = f"the token for {SYSTEM} at {self.connection.place} expired or was revoked: {why}"
        return Failed(says, outcome=Outcome.TOKEN_EXPIRED)

    async def _is_known(self) -> bool:
        try:
            return (await user(self.connection, limit=self.limit)).logged_in
        except (Rejected, Unavailable):
            return True


async def user(connection: Connection, *, limit: timedelta) -> UserInfo:
    """Whom the server takes the bot for."""
    answer = await connection.get("/api/v1/session/userinfo", {}, call="userinfo", limit=limit)
    return read(connection, lambda: UserInfo.model_validate(answer))


def read(connection: Connection, reading: Callable[[], _Read]) -> _Read:
    """What `reading` makes of an answer; an answer that it cannot make sense of comes from something else."""
    try:
        return reading()
    except (ValueError, RecursionError) as error:
        raise Unavailable(SYSTEM, f"{connection.place} answers unlike an Argo CD API") from error
