"""Argo CD's Application, as far as the bot reads it.

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


class Owner(Object):
    """What made an object, and removes it."""

    kind: str = ""
    name: str = ""


class Metadata(Object):
    """The part of an Application's metadata that matters."""

    name: str
    namespace: str = ""
    deletion_timestamp: str = ""
    owner_references: tuple[Owner, ...] = ()


class Helm(Object):
    """How helm renders a source."""

    value_files: tuple[str, ...] = ()


class Source(Object):
    """Where an Application's manifests come from; with a `ref` its files are there for other sources."""

    repo_url: str = Field(default="", alias="repoURL")
    target_revision: str = ""
    path: str = ""
    chart: str = ""
    ref: str = ""
    helm: Helm = Helm()


class SyncSource(Object):
    """Where a source hydrator puts what it rendered."""

    repo_url: str = Field(default="", alias="repoURL")
    target_branch: str = ""
    path: str = ""


class SourceHydrator(Object):
    """What is rendered from where; the dry source stays raw, as its repository is compared whole."""

    dry_source: dict[str, Any] = Field(default_factory=dict)
    sync_source: SyncSource = SyncSource()


class Automated(Object):
    """Automated sync; absent means off, and `enabled` is on unless it says otherwise."""

    enabled: bool = True
    prune: bool = False


class SyncPolicy(Object):
    """When an Application is synced."""

    automated: Automated | None = None


class Spec(Object):
    """What an Application is to do; sources stay raw, as they are compared whole."""

    source: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    source_hydrator: dict[str, Any] | None = None
    sync_policy: SyncPolicy = SyncPolicy()

    @property
    def automated(self) -> Automated | None:
        """How Argo CD syncs by itself; None where it does not."""
        found = self.sync_policy.automated
        return found if found and found.enabled else None


class ComparedTo(Object):
    """What the last comparison was made with."""

    source: dict[str, Any] = Field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()


class Named(Object):
    """Something that names the commit it stands for, or where there are several sources, one for each."""

    revision: str = ""
    revisions: tuple[str, ...] = ()


class Sync(Named):
    """The outcome of the last comparison."""

    status: str = ""
    compared_to: ComparedTo = ComparedTo()


class Health(Object):
    """Health of an Application or a resource."""

    status: str = ""
    message: str = ""


class Result(Object):
    """What an operation did to one resource, or what became of a hook."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    status: str = ""
    message: str = ""
    hook_type: str = ""
    hook_phase: str = ""

    @property
    def has_failed(self) -> bool:
        """Hooks, and resources that were applied and then broke, say so in `hookPhase` alone."""
        return self.status == "SyncFailed" or self.hook_phase in ("Failed", "Error")


class SyncResult(Named):
    """What an operation has done so far."""

    resources: tuple[Result, ...] = ()


class SyncRequest(Named):
    """What an operation was asked to do."""

    dry_run: bool = False
    resources: tuple[dict[str, Any], ...] = ()
    manifests: tuple[str, ...] = ()


class Info(Object):
    """A name and a value: what a caller marked an operation with, or what the user interface shows of a node."""

    name: str = ""
    value: str = ""


class Initiator(Object):
    """Who started an operation."""

    username: str = ""
    automated: bool = False


class Request(Object):
    """An operation that is queued or under way."""

    sync: SyncRequest | None = None
    info: tuple[Info, ...] = ()
    initiated_by: Initiator = Initiator()

    def mark(self, name: str) -> str:
        """What its caller marked it with under this name; empty where nothing."""
        return next((item.value for item in self.info if item.name == name), "")


class OperationState(Object):
    """The operation that runs, or ran last."""

    operation: Request = Request()
    phase: str = ""
    message: str = ""
    sync_result: SyncResult | None = None
    finished_at: AwareDatetime | None = None
    retry_count: int = 0

    @property
    def is_active(self) -> bool:
        """Does the record say that it runs?"""
        return self.phase in ("Running", "Terminating")


class Condition(Object):
    """Something that Argo CD complains of."""

    type: str = ""
    message: str = ""


class Resource(Object):
    """One managed resource with its health."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    status: str = ""
    hook: bool = False
    requires_pruning: bool = False
    sync_wave: int = 0
    health: Health = Health()


class HistoryEntry(Named):
    """One deployment on record: a full sync that succeeded."""


class Hydration(Object):
    """One run of the source hydrator: of which commit it made which."""

    phase: str = ""
    message: str = ""
    dry_sha: str = Field(default="", alias="drySHA")
    hydrated_sha: str = Field(default="", alias="hydratedSHA")
    source_hydrator: dict[str, Any] = Field(default_factory=dict)


class HydratorStatus(Object):
    """What the source hydrator does and did."""

    current_operation: Hydration = Hydration()
    last_successful_operation: Hydration = Hydration()


class Status(Object):
    """What Argo CD's two loops found."""

    sync: Sync = Sync()
    health: Health = Health()
    operation_state: OperationState | None = None
    reconciled_at: AwareDatetime | None = None
    conditions: tuple[Condition, ...] = ()
    resources: tuple[Resource, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    source_hydrator: HydratorStatus = HydratorStatus()


class Application(Object):
    """Argo CD's Application."""

    metadata: Metadata
    spec: Spec
    operation: Request | None = None
    status: Status = Status()

    @property
    def is_operating(self) -> bool:
        """Is an operation queued, or on record as running?"""
        state = self.status.operation_state
        return self.operation is not None or (state is not None and state.is_active)
