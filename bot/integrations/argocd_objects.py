"""The objects of Argo CD's API, as far as the bot reads them.

A field that is absent or null has its zero value, as Go's `omitempty` means it; fields and enum values that nobody
knows yet are ignored or carried. Times are RFC 3339 strings, cut to whole seconds.
"""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class Object(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {name: part for name, part in value.items() if part is not None}
        return value


class Metadata(Object):
    """The part of an Application's metadata that matters: its name, and whether it is being deleted."""

    name: str
    deletion_timestamp: str = ""


class Helm(Object):
    """How helm renders a source."""

    value_files: tuple[str, ...] = ()


class Source(Object):
    """Where an Application's manifests come from."""

    repo_url: str = Field(default="", alias="repoURL")
    target_revision: str = ""
    path: str = ""
    helm: Helm = Helm()


class Automated(Object):
    """Automated sync; absent means off, and `enabled` is on unless it says otherwise."""

    enabled: bool = True


class SyncPolicy(Object):
    """When an Application is synced."""

    automated: Automated | None = None


class Spec(Object):
    """What an Application is to do; sources stay raw, as they are compared whole."""

    source: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    source_hydrator: dict[str, Any] | None = None
    sync_policy: SyncPolicy = SyncPolicy()


class ComparedTo(Object):
    """What the last comparison was made with."""

    source: dict[str, Any] = Field(default_factory=dict)


class Sync(Object):
    """The outcome of the last comparison."""

    status: str = ""
    revision: str = ""
    compared_to: ComparedTo = ComparedTo()


class Health(Object):
    """Health of an Application or a resource."""

    status: str = ""
    message: str = ""


class Result(Object):
    """What an operation did to one resource, or what became of a hook."""

    kind: str = ""
    name: str = ""
    status: str = ""
    message: str = ""
    hook_type: str = ""
    hook_phase: str = ""


class SyncResult(Object):
    """What an operation has done so far."""

    revision: str = ""
    resources: tuple[Result, ...] = ()


class SyncRequest(Object):
    """What an operation was asked to do."""

    revision: str = ""
    dry_run: bool = False
    resources: tuple[dict[str, Any], ...] = ()
    manifests: tuple[str, ...] = ()


class Request(Object):
    """An operation that is queued or under way."""

    sync: SyncRequest | None = None


class OperationState(Object):
    """The operation that runs, or ran last."""

    operation: Request = Request()
    phase: str = ""
    message: str = ""
    sync_result: SyncResult = SyncResult()
    finished_at: AwareDatetime | None = None
    retry_count: int = 0


class Condition(Object):
    """Something that Argo CD complains of."""

    type: str = ""
    message: str = ""


class Resource(Object):
    """One managed resource with its health."""

    kind: str = ""
    name: str = ""
    hook: bool = False
    health: Health = Health()


class HistoryEntry(Object):
    """One deployment on record: a full sync that succeeded."""

    revision: str = ""


class Status(Object):
    """What Argo CD's two loops found."""

    sync: Sync = Sync()
    health: Health = Health()
    operation_state: OperationState | None = None
    reconciled_at: AwareDatetime | None = None
    conditions: tuple[Condition, ...] = ()
    resources: tuple[Resource, ...] = ()
    history: tuple[HistoryEntry, ...] = ()


class Application(Object):
    """Argo CD's Application."""

    metadata: Metadata
    spec: Spec
    operation: Request | None = None
    status: Status = Status()


class Managed(Object):
    """One managed resource; its states are JSON documents in strings."""

    target_state: str = "null"


class ManagedResources(Object):
    """The answer of `managed-resources`."""

    items: tuple[Managed, ...] = ()


class Reference(Object):
    """A node's owner."""

    kind: str = ""
    uid: str = ""


class Info(Object):
    """One of the facts that Argo CD's user interface shows of a node."""

    name: str = ""
    value: str = ""


class Node(Object):
    """One object in the cluster, managed or made by a managed one."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    parent_refs: tuple[Reference, ...] = ()
    info: tuple[Info, ...] = ()
    images: tuple[str, ...] = ()
    created_at: str = ""

    def told(self, name: str) -> str:
        """One item of its info, `Status Reason` for one; empty where there is none."""
        return next((item.value for item in self.info if item.name == name), "")

    @property
    def age(self) -> tuple[int, str]:
        """Sorts ReplicaSets from old to new: by `Rev:7`, else by when they were made."""
        number = self.told("Revision").removeprefix("Rev:")
        return int(number) if number.isdecimal() else 0, self.created_at


class Tree(Object):
    """The answer of `resource-tree`."""

    nodes: tuple[Node, ...] = ()


class Version(Object):
    """The answer of `/api/version`, the one with capital keys."""

    version: str = Field(alias="Version")


class UserInfo(Object):
    """Whom Argo CD takes the caller for."""

    logged_in: bool = False
    username: str = ""
