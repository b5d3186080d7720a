"""The `fields` of a list: of each application only what is asked for, out of the few parts that Argo CD lets choose."""

from typing import Any

from bot.playground.argocd.manifests import Json

_METADATA = ("name", "namespace", "annotations", "labels", "creationTimestamp", "deletionTimestamp")
_SPEC = ("destination", "project", "source", "sources", "sourceHydrator", "syncPolicy")
_STATUS = ("sourceHydrator", "summary", "sync.status", "sync.revision", "health", "resources")
_STATE = ("phase", "startedAt", "finishedAt")
_PARTS = (
    *(f"metadata.{name}" for name in _METADATA),
    "spec",
    *(f"spec.{name}" for name in _SPEC),
    "operation.sync",
    *(f"status.{name}" for name in _STATUS),
    *(f"status.operationState.{name}" for name in _STATE),
)
_RESULT = "status.operationState.operation.sync"


def chosen(application: Json, fields: str) -> Json:
    """What a list with these `fields` shows of an application; a leading `-` shows everything but them.

    What Argo CD calls the sync of the operation in a list is the result of that sync.
    """
    if not fields:
        return application
    excludes = fields.startswith("-")
    named = {field.removeprefix("items.") for field in fields.removeprefix("-").split(",")}
    found: Json = {}
    for part in (*_PARTS, _RESULT):
        source = "status.operationState.syncResult" if part == _RESULT else part
        value = _at(application, source)
        if value is not None and _is_named(part, named) is not excludes:
            _put(found, part, value)
    return found


def _is_named(part: str, named: set[str]) -> bool:
    """Whether a part, or a whole that it belongs to, is among the names."""
    names = part.split(".")
    return any(".".join(names[:length]) in named for length in range(1, len(names) + 1))


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _put(found: Json, path: str, value: Any) -> None:
    *above, last = path.split(".")
    for name in above:
        found = found.setdefault(name, {})
    found[last] = value
