"""How Argo CD's API shows what lives in a cluster: the resource tree, managed resources, single objects, events."""

import json
from collections.abc import Mapping
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.pods import NO_IMAGE, OUT_OF_MEMORY, TROUBLES, Pod, ReplicaSet, image_id, stamp
from bot.playground.argocd.workload_kinds import Deployment
from bot.playground.argocd.workloads import NODES, Workload, workloads_of

_Live = Mapping[Key, LiveObject]
_NOT_STARTED = frozenset(("ContainerCreating", NO_IMAGE))
_EXIT_CODES = {OUT_OF_MEMORY: 137, "Error": 1}


def resource_tree(live: _Live) -> Json:
    """The tree as it is now: managed objects, then ReplicaSets and pods below their Deployment."""
    nodes = [_managed_node(found) for found in live.values()]
    for workload in workloads_of(live):
        for replica_set in workload.replica_sets:
            if isinstance(workload, Deployment):
                nodes.append(_replica_set_node(workload, replica_set))
            nodes += [_pod_node(workload, replica_set, pod) for pod in replica_set.pods]
    system = {"architecture": "amd64", "operatingSystem": "linux"}
    return {"nodes": nodes, "hosts": [{"name": name, "systemInfo": system} for name in NODES]}


def managed_resources(application: Application) -> Json:
    """Target and live state of every object, as the last comparison saw them."""
    targets, live = application.targets, application.compared
    items = [
        {
            **({"group": group} if group else {}),
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "targetState": json.dumps(targets.get(key)),
            "liveState": json.dumps(live.get(key)),
            "normalizedLiveState": json.dumps(live.get(key)),
            "predictedLiveState": json.dumps(live.get(key, {}) | targets.get(key, {}) or None),
            **({"resourceVersion": live[key]["metadata"]["resourceVersion"]} if key in live else {}),
        }
        for key in dict.fromkeys([*targets, *live])
        for group, kind, namespace, name in [key]
    ]
    return {"items": items}


def live_manifest(live: _Live, key: Key) -> Json | None:
    """One object read from the cluster, managed or below a managed one; None if the tree has none of that name."""
    group, kind, namespace, name = key
    if key in live:
        return live[key].live()
    for workload in workloads_of(live):
        for replica_set in workload.replica_sets:
            if (group, kind, namespace, name) == ("apps", "ReplicaSet", workload.key[2], replica_set.name):
                return _replica_set(workload, replica_set)
            for pod in replica_set.pods:
                if (group, kind, namespace, name) == ("", "Pod", workload.key[2], pod.name):
                    return _pod(workload, replica_set, pod)
    return None


def events(application: Application, live: _Live, *, resource_name: str = "", resource_uid: str = "") -> Json:
    """The events of the application itself, or those of one object in its tree."""
    if not resource_name:
        spec = application.spec
        about = {"kind": "Application", "namespace": spec.namespace, "name": spec.name}
        items = [_event(about, at, "Normal", reason, message) for at, reason, message in application.events]
        return {"metadata": {}, "items": items}
    found = [
        _event(
            about,
            pod.created_at,
            "Warning",
            "Failed" if pod.reason == NO_IMAGE else "BackOff",
            pod.trouble,
            count=count,
        )
        for workload in workloads_of(live)
        for pod in workload.pods
        if pod.name == resource_name and resource_uid in {"", pod.uid}
        for count in [pod.restarts or int(pod.reason in TROUBLES)]
        for about in [{"kind": "Pod", "namespace": workload.key[2], "name": pod.name, "uid": pod.uid}]
        if count
    ]
    return {"metadata": {}, "items": found}


def log_lines(live: _Live, pod_name: str, *, previous: bool, last: int) -> list[Json]:
    """The messages of a pod's log, the newest `last` of them unless that is 0; the final one says so and is empty.

    Only a pod that was restarted has a previous container.
    """
    lines = []
    for workload in workloads_of(live):
        for pod in workload.pods:
            if pod.name == pod_name and (pod.restarts or not previous):
                at = stamp(pod.created_at)
                texts = (
                    ["starting version", "listening on :8080"]
                    if pod.is_ready
                    else ["starting", "panic: exit 1"]
                )
                lines = [_line(pod.name, f"{at} {text}", at) for text in texts]
    end = _line(pod_name, "", lines[-1]["timeStampStr"] if lines else "") | {"last": True}
    return [*lines[-last:], end]


def _line(pod: str, content: str, at: str) -> Json:
    return {"content": content, "timeStampStr": at, "podName": pod, "last": False}


def _event(about: Json, at: datetime, kind: str, reason: str, message: str, *, count: int = 1) -> Json:
    name = f"{about['name']}.{uuid5(NAMESPACE_URL, f'{at.isoformat()} {reason}').hex[:16]}"
    return {
        "metadata": {"name": name, "namespace": about["namespace"], "creationTimestamp": stamp(at)},
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": count,
        "firstTimestamp": stamp(at),
        "lastTimestamp": stamp(at),
    }


def _managed_node(found: LiveObject) -> Json:
    group, kind, namespace, name = found.key
    health = found.health
    node = {
        **_reference(group, kind, namespace, name, found.uid),
        "version": found.applied["apiVersion"].rpartition("/")[2],
        "resourceVersion": str(found.version),
        "createdAt": stamp(found.created_at),
    }
    if isinstance(found, Workload):
        node["info"] = [{"name": "Revision", "value": f"Rev:{found.current.revision}"}]
    return node | ({"health": health.json()} if health is not None else {})


def _replica_set_node(workload: Workload, replica_set: ReplicaSet) -> Json:
    namespace = workload.key[2]
    waiting = [pod for pod in replica_set.active if not pod.is_ready]
    ready = len(replica_set.active) - len(waiting)
    health: Json = {"status": "Healthy"}
    if waiting:
        health = {"status": "Progressing"}
        health["message"] = (
            f"Waiting for rollout to finish: {ready} out of {len(replica_set.active)} new replicas are available..."
        )
    return {
        **_reference("apps", "ReplicaSet", namespace, replica_set.name, replica_set.uid),
        "version": "v1",
        "parentRefs": [_reference("apps", "Deployment", namespace, workload.key[3], workload.uid)],
        "info": [{"name": "Revision", "value": f"Rev:{replica_set.revision}"}],
        "resourceVersion": str(workload.version),
        "createdAt": stamp(replica_set.created_at),
        "health": health,
    }


def _pod_node(workload: Workload, replica_set: ReplicaSet, pod: Pod) -> Json:
    info = [
        {"name": "Status Reason", "value": pod.reason},
        {"name": "Node", "value": pod.node},
        {"name": "Containers", "value": f"{int(pod.is_ready)}/{len(pod.images)}"},
    ]
    if pod.restarts:
        info.append({"name": "Restart Count", "value": str(pod.restarts)})
    namespace = workload.key[2]
    return {
        **_reference("", "Pod", namespace, pod.name, pod.uid),
        "version": "v1",
        "parentRefs": [_parent(workload, replica_set)],
        "info": info,
        "images": pod.images,
        "resourceVersion": str(workload.version),
        "createdAt": stamp(pod.created_at),
        "health": pod.health.json(),
    }


def _parent(workload: Workload, replica_set: ReplicaSet) -> Json:
    """Who owns a pod: a Deployment's ReplicaSet, or the workload itself."""
    group, kind, namespace, name = workload.key
    if isinstance(workload, Deployment):
        return _reference("apps", "ReplicaSet", namespace, replica_set.name, replica_set.uid)
    return _reference(group, kind, namespace, name, workload.uid)


def _reference(group: str, kind: str, namespace: str, name: str, uid: str) -> Json:
    reference = {"group": group} if group else {}
    return reference | {"kind": kind, "namespace": namespace, "name": name, "uid": uid}


def _replica_set(workload: Workload, replica_set: ReplicaSet) -> Json:
    active = replica_set.active
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": replica_set.name,
            "namespace": workload.key[2],
            "uid": replica_set.uid,
            "annotations": {"deployment.kubernetes.io/revision": str(replica_set.revision)},
            "creationTimestamp": stamp(replica_set.created_at),
        },
        "spec": {"replicas": len(active), "template": replica_set.template},
        "status": {"replicas": len(active), "readyReplicas": sum(pod.is_ready for pod in active)},
    }


def _pod(workload: Workload, replica_set: ReplicaSet, pod: Pod) -> Json:
    containers = pod.template["spec"]["containers"]
    statuses = [_container(container, pod) for container in containers]
    owner = _parent(workload, replica_set)
    metadata = {
        "name": pod.name,
        "namespace": workload.key[2],
        "uid": pod.uid,
        "labels": pod.template["metadata"].get("labels", {}),
        "creationTimestamp": stamp(pod.created_at),
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": owner["kind"], "name": owner["name"], "uid": owner["uid"]}
        ],
    }
    if pod.is_terminating:
        metadata["deletionTimestamp"] = stamp(workload.timeline.now)
    phase = "Pending" if pod.reason in _NOT_STARTED else "Running"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": pod.node, "containers": containers},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


def _container(container: Json, pod: Pod) -> Json:
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "" if pod.reason in _NOT_STARTED else image_id(container["image"]),
        "ready": pod.is_ready,
        "restartCount": pod.restarts,
        "state": _state(pod),
    }
    if pod.restarts:
        reason = OUT_OF_MEMORY if pod.reason == OUT_OF_MEMORY else "Error"
        status["lastState"] = {"terminated": {"exitCode": _EXIT_CODES[reason], "reason": reason}}
    return status


def _state(pod: Pod) -> Json:
    """What its container does now."""
    if pod.reason == OUT_OF_MEMORY:
        return {"terminated": {"exitCode": _EXIT_CODES[OUT_OF_MEMORY], "reason": OUT_OF_MEMORY}}
    if pod.reason in TROUBLES:
        return {"waiting": {"reason": pod.reason, "message": pod.trouble}}
    if pod.reason in _NOT_STARTED:
        return {"waiting": {"reason": pod.reason}}
    return {"running": {"startedAt": stamp(pod.created_at)}}
