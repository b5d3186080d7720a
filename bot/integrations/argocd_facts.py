"""From an Application to the core's facts, purely."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bot.core.catalog import Target
from bot.core.facts import ApplicationFacts, Operation, ResourceResult
from bot.integrations.argocd_objects import Application, OperationState, Request, Resource, Result
from bot.integrations.argocd_text import said, shortened
from bot.integrations.argocd_tracking import Tracking, compares_spec, tracking


def read_application(answer: object, target: Target) -> ApplicationFacts:
    """The facts of one Application object; raises `pydantic.ValidationError` where it is none."""
    found = Application.model_validate(answer)
    follows = tracking(found, target)
    status = found.status
    return ApplicationFacts(
        name=found.metadata.name,
        tracks=follows.tracks,
        range=follows.range,
        automated=found.spec.automated is not None,
        sync=status.sync.status,
        revision=follows.revision(status.sync),
        compares_spec=compares_spec(found),
        health=status.health.status,
        health_message=said(status.health.message),
        is_operating=found.is_operating,
        operation=_operation(found, follows),
        reconciled_at=status.reconciled_at,
        is_deleting=bool(found.metadata.deletion_timestamp),
        errors=_errors(found),
        out_of_sync=out_of_sync(found, with_pruning=_prunes(found)),
        to_prune=_names(resource for resource in _differing(found) if _stays(resource, found)),
        history_revision=follows.revision(status.history[-1]) if status.history else None,
        unhealthy=tuple(
            ResourceResult(
                name=resource_name(resource),
                status=resource.health.status,
                message=said(resource.health.message),
            )
            for resource in status.resources
            if not resource.hook and resource.health.status not in ("", "Healthy")
        ),
    )


def out_of_sync(found: Application, *, with_pruning: bool) -> tuple[str, ...]:
    """What a sync would change, `Deployment/manual-app`."""
    return _names(
        resource
        for resource in _differing(found)
        if not resource.requires_pruning or (with_pruning and not _stays(resource, found))
    )


def causes(results: Sequence[Result], message: str) -> str:
    """Why an operation failed: the resources that did, else its own message."""
    broken = [f"{resource_name(each)}: {said(each.message)}" for each in results if each.has_failed]
    return shortened("; ".join(broken[:3])) or said(message)


def resource_name(thing: Resource | Result) -> str:
    """`Deployment/manual-app`."""
    return f"{thing.kind}/{thing.name}"


def _prunes(found: Application) -> bool:
    """Does Argo CD remove by itself what the manifests hold no more?"""
    return found.spec.automated is not None and found.spec.automated.prune


def _stays(resource: Resource, found: Application) -> bool:
    """Has it to be removed, and does nobody let Argo CD? The last sync says so of one that must not be pruned."""
    if not resource.requires_pruning or not _prunes(found):
        return resource.requires_pruning
    state = found.status.operation_state
    results = state.sync_result.resources if state and state.sync_result else ()
    return any(
        each.status == "PruneSkipped"
        and (each.kind, each.namespace, each.name) == (resource.kind, resource.namespace, resource.name)
        for each in results
    )


def _differing(found: Application) -> Iterator[Resource]:
    return (resource for resource in found.status.resources if resource.status == "OutOfSync")


def _names(resources: Iterable[Resource]) -> tuple[str, ...]:
    return tuple(map(resource_name, resources))


def _errors(found: Application) -> tuple[str, ...]:
    """Texts of the error conditions; a source hydrator that failed is one as well."""
    hydration = found.status.source_hydrator.current_operation
    conditions = (
        said(condition.message or condition.type)
        for condition in found.status.conditions
        if condition.type.endswith("Error")
    )
    if found.spec.source_hydrator is None or hydration.phase != "Failed":
        return tuple(conditions)
    return (*conditions, said(f"the source hydrator failed: {hydration.message}"))


def _operation(found: Application, follows: Tracking) -> Operation | None:
    """The operation that runs or ran last; one that is only queued has no phase yet."""
    state, queued = found.status.operation_state, found.operation
    if state is None:
        if queued is None:
            return None
        state = OperationState(operation=queued)
    request, result = state.operation.sync, state.sync_result
    results = result.resources if result else ()
    told = tuple(_result(each) for each in results if not each.hook_type or each.has_failed)
    return Operation(
        phase=state.phase,
        revision=(result and follows.revision(result)) or (request and follows.revision(request)) or None,
        is_full=_is_full(state),
        is_driven=not state.is_active or queued is not None,
        by=_by(state.operation),
        message=_message(state, found),
        finished_at=state.finished_at,
        retries=state.retry_count,
        resources=told,
        expected=max(len(told), sum(not resource.hook for resource in found.status.resources)),
    )


def _is_full(state: OperationState) -> bool:
    """Was everything to be synced, for good? A success without a result is a record that nobody completed."""
    request = state.operation.sync
    if request is None or request.dry_run or request.resources or request.manifests:
        return False
    return state.phase != "Succeeded" or state.sync_result is not None


def _by(request: Request) -> str:
    return "" if request.initiated_by.automated else said(request.initiated_by.username)


def _message(state: OperationState, found: Application) -> str:
    """Argo CD's words, and while it runs, how far its waves and hooks are."""
    words = said(state.message)
    if not state.is_active or state.sync_result is None:
        return words
    results = state.sync_result.resources
    return ", ".join(
        part for part in (_waves(results, found.status.resources), _hooks(results), words) if part
    )


def _waves(results: Sequence[Result], resources: Sequence[Resource]) -> str:
    """`wave 2 of 3`, where there is more than one."""
    wave_of = {(each.kind, each.name): each.sync_wave for each in resources}
    waves = sorted(set(wave_of.values()))
    begun = [wave_of[each.kind, each.name] for each in results if (each.kind, each.name) in wave_of]
    if len(waves) < 2 or not begun:
        return ""
    return f"wave {waves.index(max(begun)) + 1} of {len(waves)}"


def _hooks(results: Sequence[Result]) -> str:
    """`hooks 1 of 2: Job/migrate Running`."""
    hooks = [each for each in results if each.hook_type]
    if not hooks:
        return ""
    done = sum(each.hook_phase == "Succeeded" for each in hooks)
    left = [
        f"{resource_name(each)} {each.hook_phase}".strip() for each in hooks if each.hook_phase != "Succeeded"
    ]
    return f"hooks {done} of {len(hooks)}{': ' if left else ''}{', '.join(left[:3])}"


def _result(resource: Result) -> ResourceResult:
    return ResourceResult(
        name=resource_name(resource),
        status="SyncFailed" if resource.has_failed else resource.status,
        message=said(resource.message),
    )
