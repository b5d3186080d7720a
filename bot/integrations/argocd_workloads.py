"""From Argo CD's manifests and resource tree to what should run and what runs, purely."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from bot.core.facts import Pod, Workloads, split_image
from bot.integrations.argocd_answers import (
    Container,
    Live,
    LivePod,
    ManagedResources,
    Node,
    Reference,
    Tree,
)
from bot.integrations.argocd_text import said

_CORPSES = frozenset(
    {"Completed", "Evicted", "NodeShutdown", "Terminated", "NodeAffinity", "ContainerStatusUnknown"}
    | {"UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"}
)
"""Pods that ended and are kept for the record: something else has taken their place."""
_FAILED_TRIES = frozenset({"Error", "OOMKilled", "DeadlineExceeded"})
"""How a Job's pod ends badly; the Job tries again with another pod, and its own health tells the outcome."""
_CALM = frozenset({"", "Running", "Terminating", "ContainerCreating", "PodInitializing"})
_INITIALISING = re.compile(r"Init:\d+/\d+")
_REPOSITORY_DIGEST = re.compile(r"(?:docker-pullable://)?[^@\s]+@(?P<digest>sha256:[0-9a-f]{64})")

Digests = Mapping[str, frozenset[str]]
"""What the containers of a pod really run, by the pod's uid."""


def read_workloads(managed: object, tree: object, digests: Digests | None = None) -> Workloads | None:
    """What should run and what runs; None while the tree does not hold what was rendered, or lags behind.

    Raises `pydantic.ValidationError` or `ValueError` where an answer cannot be read.
    """
    items = ManagedResources.model_validate(managed).items
    rendered = frozenset(image for item in items for image in _images(json.loads(item.target_state)))
    nodes = Tree.model_validate(tree).nodes
    if (rendered and not nodes) or _lags(nodes):
        return None
    pods = tuple(_pod(node, (digests or {}).get(node.uid, frozenset())) for node in pod_nodes(tree))
    return Workloads(rendered_images=rendered, pods=pods)


def pod_nodes(tree: object) -> Iterator[Node]:
    """The pods that stand for the present version: not those of old ReplicaSets, of CronJobs and of ended Jobs."""
    nodes = Tree.model_validate(tree).nodes
    known = {node.uid: node for node in nodes}
    newest = _newest(nodes)
    outdated = newest.keys() - set(newest.values())
    for node in nodes:
        if node.kind != "Pod":
            continue
        owners = list(_owners(node, known))
        kinds = {owner.kind for owner in owners}
        reason = node.told("Status Reason")
        is_over = reason in _CORPSES or ("Job" in kinds and reason in _FAILED_TRIES)
        is_old = any(owner.uid in outdated for owner in owners)
        if not (is_over or is_old or "CronJob" in kinds):
            yield node


def is_ready(pod: Node) -> bool:
    """Does it run, with every container ready?"""
    ready, _, wanted = pod.told("Containers").partition("/")
    return pod.told("Status Reason") == "Running" and ready == wanted != ""


def container_of(answer: object, image: str) -> str:
    """The name of the first container of a pod that runs this image; empty where none does. Raises as `read_workloads`."""
    return next((each.name for each in _containers(_live(answer), image)), "")


def read_digests(answer: object, image: str) -> frozenset[str]:
    """What a pod's containers of this image really run, `sha256:…`, where it can be compared.

    A bare id is the hash of an image's configuration, which no registry knows. Raises as `read_workloads`.
    """
    pod = _live(answer)
    ours = {each.name for each in _containers(pod, image)}
    ids = (each.image_id for each in pod.status.container_statuses if each.name in ours)
    return frozenset(found["digest"] for id in ids if (found := _REPOSITORY_DIGEST.fullmatch(id)))


def _live(answer: object) -> LivePod:
    return LivePod.model_validate(json.loads(Live.model_validate(answer).manifest))


def _containers(pod: LivePod, image: str) -> Iterator[Container]:
    """Those that run an image of this name, whatever its version."""
    name, _ = split_image(image)
    return (each for each in pod.spec.containers if split_image(each.image)[0] == name)


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


def _newest(nodes: Sequence[Node]) -> dict[str, str]:
    """Of each ReplicaSet, the newest one of its Deployment or Rollout, by their uids."""
    owned = [node for node in nodes if node.kind == "ReplicaSet" and node.parent_refs]
    newest: dict[str, Node] = {}
    for node in owned:
        owner = node.parent_refs[0].uid
        newest[owner] = max(newest.get(owner, node), node, key=lambda found: found.age)
    return {node.uid: newest[node.parent_refs[0].uid].uid for node in owned}


def _lags(nodes: Sequence[Node]) -> bool:
    """Do pods of an old ReplicaSet stay where the newest one has none? Then nobody knows yet what replaces them."""
    newest = _newest(nodes)
    staying = {
        node.parent_refs[0].uid
        for node in nodes
        if node.kind == "Pod"
        and node.parent_refs
        and node.told("Status Reason") not in _CORPSES | {"Terminating"}
    }
    return any(newest[uid] not in staying for uid in staying & newest.keys())


def _owners(node: Node, known: dict[str, Node]) -> Iterator[Reference]:
    """Its owner, the owner's owner, and so on."""
    seen: set[str] = set()
    below: Node | None = node
    while below is not None and below.parent_refs and below.parent_refs[0].uid not in seen:
        parent = below.parent_refs[0]
        seen.add(parent.uid)
        yield parent
        below = known.get(parent.uid)


def _pod(node: Node, digests: frozenset[str]) -> Pod:
    reason, restarts = node.told("Status Reason"), node.told("Restart Count")
    trouble = "" if reason in _CALM or _INITIALISING.fullmatch(reason) else said(reason)
    if trouble and restarts not in ("", "0"):
        trouble += f" ({restarts} restart{'' if restarts == '1' else 's'})"
    return Pod(
        name=node.name,
        images=node.images,
        is_ready=is_ready(node),
        is_terminating=reason == "Terminating",
        trouble=trouble,
        digests=digests,
    )
