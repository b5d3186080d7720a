"""What an operation is asked to do: the tasks of a sync in phases and waves, and the operations that start by themselves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.specs import Revisions, SimulatedApplication

PRE_SYNC, SYNC, POST_SYNC, SYNC_FAIL = "PreSync", "Sync", "PostSync", "SyncFail"
_PHASES = (PRE_SYNC, SYNC, POST_SYNC)
_HOOK = "argocd.argoproj.io/hook"
_WAVE = "argocd.argoproj.io/sync-wave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One object's part in a sync."""

    key: Key
    manifest: Json
    phase: str = SYNC
    wave: int = 0
    is_hook: bool = False
    is_surplus: bool = False


def automated(
    spec: SimulatedApplication, revisions: Revisions, *, resources: Sequence[Json] = (), heals: int = 0
) -> Json:
    """The operation that auto-sync queues; with resources, it heals those alone."""
    sync: Json = spec.shown_revisions(revisions) | ({"prune": True} if spec.prune else {})
    if resources:
        sync |= {"resources": list(resources), "autoHealAttemptsCount": heals}
    return {"sync": sync, "initiatedBy": {"automated": True}, "retry": spec.retry}


def hook_of(manifest: Json) -> str:
    """The phase in which an object is a hook; empty for an ordinary object."""
    return str(manifest["metadata"].get("annotations", {}).get(_HOOK, ""))


def without_hooks(targets: Mapping[Key, Json]) -> dict[Key, Json]:
    """The objects that are compared with the cluster."""
    return {key: manifest for key, manifest in targets.items() if not hook_of(manifest)}


def wave_of(manifest: Json) -> int:
    """The wave an object is applied in."""
    return int(manifest["metadata"].get("annotations", {}).get(_WAVE, 0))


def stages(targets: Mapping[Key, Json], surplus: Mapping[Key, Json], sync: Json) -> list[list[Task]]:
    """The tasks of a sync, one list after the other: its phases, and the waves of each phase.

    A sync of selected resources runs no hooks, and neither does the strategy `apply`.
    """
    selected = sync.get("resources", [])
    with_hooks = not selected and "apply" not in sync.get("syncStrategy", {})
    tasks = [task for task in _tasks(targets, surplus) if with_hooks or not task.is_hook]
    if selected:
        tasks = [task for task in tasks if _is_selected(task.key, selected)]
    places = sorted({(_PHASES.index(task.phase), task.wave) for task in tasks if task.phase in _PHASES})
    found = [
        [task for task in tasks if (task.phase, task.wave) == (_PHASES[phase], wave)]
        for phase, wave in places
    ]
    return found or [[]]


def failure_hooks(targets: Mapping[Key, Json]) -> list[Task]:
    """What runs after a sync that failed."""
    return [task for task in _tasks(targets, {}) if task.phase == SYNC_FAIL]


def _tasks(targets: Mapping[Key, Json], surplus: Mapping[Key, Json]) -> Iterable[Task]:
    for key, manifest in targets.items():
        hook = hook_of(manifest)
        yield Task(key=key, manifest=manifest, phase=hook or SYNC, wave=wave_of(manifest), is_hook=bool(hook))
    for key, manifest in surplus.items():
        yield Task(key=key, manifest=manifest, is_surplus=True, wave=wave_of(manifest))


def _is_selected(key: Key, selected: Iterable[Json]) -> bool:
    group, kind, namespace, name = key
    return any(
        (chosen.get("group", ""), chosen["kind"], chosen["name"]) == (group, kind, name)
        and chosen.get("namespace", namespace) == namespace
        for chosen in selected
    )
