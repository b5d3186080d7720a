"""From Argo CD's objects to the core's facts, purely."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from bot.core.catalog import Target
from bot.core.rollout import ApplicationFacts, Operation, Pod, ResourceResult, Workloads
from bot.integrations.argocd_objects import (
    Application,
    ManagedResources,
    Node,
    OperationState,
    Reference,
    Result,
    Source,
    Spec,
    Tree,
)

LONGEST_TEXT = 300
_HEAD = 110
_REVISION = re.compile(r"[0-9a-f]{40}")
_CREDENTIALS = re.compile(r"://(?:[^\s/]*|[^\s/:@]+:[^\s@]*)@")
_SCP_ADDRESS = re.compile(r"(?:[^@/\s]+@)?(?P<host>[^:/\s]+):(?P<path>(?!//).+)")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22}

_CORPSES = frozenset(
    {"Completed", "Evicted", "NodeShutdown", "Terminated", "NodeAffinity", "ContainerStatusUnknown"}
    | {"UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"}
)
"""Pods that ended and are kept for the record: something else has taken their place."""
_FAILED_TRIES = frozenset({"Error", "OOMKilled", "DeadlineExceeded"})
"""How a Job's pod ends badly; the Job tries again with another pod, and its own health tells the outcome."""
_CALM = frozenset({"", "Running", "Terminating", "ContainerCreating", "PodInitializing"})
_INITIALISING = re.compile(r"Init:\d+/\d+")


def read_application(answer: object, target: Target) -> ApplicationFacts:
    """The facts of one Application object; raises `pydantic.ValidationError` where it is none."""
    found = Application.model_validate(answer)
    status = found.status
    state = status.operation_state
    return ApplicationFacts(
        name=found.metadata.name,
        tracks=_tracks(found.spec, target),
        automated=found.spec.sync_policy.automated is not None and found.spec.sync_policy.automated.enabled,
        sync=status.sync.status,
        revision=_revision(status.sync.revision),
        compares_spec=_same(status.sync.compared_to.source, found.spec.source),
        health=status.health.status,
        health_message=said(status.health.message),
        is_operating=found.operation is not None
        or (state is not None and state.phase in ("Running", "Terminating")),
        operation=_operation(found),
        reconciled_at=status.reconciled_at,
        is_deleting=bool(found.metadata.deletion_timestamp),
        errors=tuple(
            said(condition.message or condition.type)
            for condition in status.conditions
            if condition.type.endswith("Error")
        ),
        history_revision=_revision(status.history[-1].revision) if status.history else None,
        unhealthy=tuple(
            ResourceResult(
                name=f"{resource.kind}/{resource.name}",
                status=resource.health.status,
                message=said(resource.health.message),
            )
            for resource in status.resources
            if not resource.hook and resource.health.status not in ("", "Healthy")
        ),
    )


def read_workloads(managed: object, tree: object) -> Workloads | None:
    """What should run and what runs; None while the tree does not hold what was rendered.

    Raises `pydantic.ValidationError` or `ValueError` where an answer cannot be read.
    """
    items = ManagedResources.model_validate(managed).items
    nodes = Tree.model_validate(tree).nodes
    rendered = frozenset(image for item in items for image in _images(json.loads(item.target_state)))
    if rendered and not nodes:
        return None
    return Workloads(rendered_images=rendered, pods=tuple(_pods(nodes)))


def said(text: str) -> str:
    """An outside text for people: one line, no `user:password@`, at most 300 characters.

    Of a long one the end is kept as well: helm and kubectl tell the cause last.
    """
    line = " ".join(_CREDENTIALS.sub("://", text).split())
    if len(line) <= LONGEST_TEXT:
        return line
    return f"{line[:_HEAD]} … {line[-(LONGEST_TEXT - _HEAD - 3) :]}"


def _revision(text: str) -> str | None:
    """A commit id; a branch name stands in its place where Argo CD could not resolve it."""
    return text if _REVISION.fullmatch(text) else None


def _same(compared: object, wanted: object) -> bool:
    """Are they equal, where an empty part is as good as an absent one?"""
    return bool(compared) and _dense(compared) == _dense(wanted)


def _dense(value: object) -> object:
    if isinstance(value, dict):
        parts = ((name, _dense(part)) for name, part in value.items())
        return {name: part for name, part in parts if part not in (None, "", [], {})}
    if isinstance(value, list | tuple):
        return [_dense(part) for part in value]
    return value


def _operation(found: Application) -> Operation | None:
    """The operation that runs or ran last; one that is only queued has no phase yet."""
    state, queued = found.status.operation_state, found.operation
    if state is None:
        if queued is None:
            return None
        state = OperationState(operation=queued)
    request = state.operation.sync
    result = state.sync_result
    results = tuple(
        _result(resource) for resource in result.resources if not resource.hook_type or _has_failed(resource)
    )
    return Operation(
        phase=state.phase,
        revision=_revision(result.revision) or _revision(request.revision if request else ""),
        is_full=request is not None and not (request.dry_run or request.resources or request.manifests),
        message=said(state.message),
        finished_at=state.finished_at,
        retries=state.retry_count,
        resources=results,
        expected=max(len(results), sum(not resource.hook for resource in found.status.resources)),
    )


def _has_failed(resource: Result) -> bool:
    """Hooks, and resources that were applied and then broke, say so in `hookPhase` alone."""
    return resource.status == "SyncFailed" or resource.hook_phase in ("Failed", "Error")


def _result(resource: Result) -> ResourceResult:
    return ResourceResult(
        name=f"{resource.kind}/{resource.name}",
        status="SyncFailed" if _has_failed(resource) else resource.status,
        message=said(resource.message),
    )


def _tracks(spec: Spec, target: Target) -> str | None:
    """What the application follows, where that is not the target's branch and file."""
    if spec.source_hydrator is not None:
        return "the output of a source hydrator, which the bot cannot follow yet"
    if spec.sources:
        return "several sources, which the bot cannot follow yet"
    source = Source.model_validate(spec.source)
    ours, theirs = repository_name(target.repository.url), repository_name(source.repo_url)
    if ours != theirs:
        return f"{said(theirs) or 'no repository'}, not {ours}"
    branch = target.repository.branch
    if source.target_revision not in (branch, f"refs/heads/{branch}", "HEAD", ""):
        return f"{said(source.target_revision)}, not the branch {branch}"
    if not _covers(source, target.path):
        files = f"{', '.join(source.helm.value_files)} of " if source.helm.value_files else ""
        folder = f"the folder {source.path}" if source.path.strip("./") else "the repository"
        return f"{said(files + folder)}, not {target.path}"
    return None


def repository_name(url: str) -> str:
    """One spelling for a repository's address, `github.com/acme/charts`: ssh and https, with and without `.git`.

    All in lower case, as Argo CD itself compares them.
    """
    text = url.strip().lower()
    if "://" not in text and (address := _SCP_ADDRESS.fullmatch(text)):
        text = f"ssh://{address['host']}/{address['path'].lstrip('/')}"
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{_DEFAULT_PORTS.get(parts.scheme, '')}")
    return (host + parts.path.rstrip("/")).removesuffix(".git")


def _covers(source: Source, path: str) -> bool:
    """Does the source render this file?

    With a list of value files, helm reads those, the chart's own values and its subcharts. One with a variable or
    a pattern in its name may be any file.
    """
    root = posixpath.normpath(source.path.strip("/") or ".")
    inside = root == "." or path.startswith(f"{root}/")
    files = source.helm.value_files
    if not files:
        return inside
    if any(sign in file for file in files for sign in "$*"):
        return True
    resolved = {posixpath.normpath(posixpath.join("/", root, file)) for file in files}
    own = posixpath.normpath(posixpath.join("/", root, "values.yaml"))
    subcharts = posixpath.normpath(posixpath.join("/", root, "charts"))
    absolute = posixpath.normpath(f"/{path}")
    return absolute in resolved or absolute == own or absolute.startswith(f"{subcharts}/")


def _images(manifest: object) -> Iterator[str]:
    """Every container image of a workload, whatever its kind."""
    if isinstance(manifest, list):
        for part in manifest:
            yield from _images(part)
    elif isinstance(manifest, dict):
        for name, part in manifest.items():
            if name in ("containers", "initContainers") and isinstance(part, list):
                boxes = (box.get("image") for box in part if isinstance(box, dict))
                yield from (image for image in boxes if isinstance(image, str))
            else:
                yield from _images(part)


def _pods(nodes: Sequence[Node]) -> Iterator[Pod]:
    """The pods that stand for the present version: not those of old ReplicaSets, of CronJobs and of ended Jobs."""
    known = {node.uid: node for node in nodes}
    outdated = _outdated(nodes)
    for node in nodes:
        if node.kind != "Pod":
            continue
        owners = list(_owners(node, known))
        kinds = {owner.kind for owner in owners}
        reason = node.told("Status Reason")
        is_over = reason in _CORPSES or ("Job" in kinds and reason in _FAILED_TRIES)
        is_old = any(owner.uid in outdated for owner in owners)
        if not (is_over or is_old or "CronJob" in kinds):
            yield _pod(node, reason)


def _outdated(nodes: Sequence[Node]) -> set[str]:
    """The ReplicaSets that are not the newest of their Deployment or Rollout."""
    owned = [node for node in nodes if node.kind == "ReplicaSet" and node.parent_refs]
    newest: dict[str, Node] = {}
    for node in owned:
        owner = node.parent_refs[0].uid
        newest[owner] = max(newest.get(owner, node), node, key=lambda found: found.age)
    return {node.uid for node in owned} - {node.uid for node in newest.values()}


def _owners(node: Node, known: dict[str, Node]) -> Iterator[Reference]:
    """Its owner, the owner's owner, and so on."""
    seen: set[str] = set()
    below: Node | None = node
    while below is not None and below.parent_refs and below.parent_refs[0].uid not in seen:
        parent = below.parent_refs[0]
        seen.add(parent.uid)
        yield parent
        below = known.get(parent.uid)


def _pod(node: Node, reason: str) -> Pod:
    ready, _, wanted = node.told("Containers").partition("/")
    restarts = node.told("Restart Count")
    trouble = "" if reason in _CALM or _INITIALISING.fullmatch(reason) else said(reason)
    if trouble and restarts not in ("", "0"):
        trouble += f" ({restarts} restart{'' if restarts == '1' else 's'})"
    return Pod(
        name=node.name,
        images=node.images,
        is_ready=reason == "Running" and ready == wanted != "",
        is_terminating=reason == "Terminating",
        trouble=trouble,
    )
