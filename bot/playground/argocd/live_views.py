"""How Argo CD's API shows what lives in a cluster: the resource tree, managed resources, single objects, events."""

import json
from collections.abc import Mapping
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.application import Application, deployments_of
from bot.playground.argocd.cluster import Deployment, LiveObject
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.pods import Pod, ReplicaSet, image_id, stamp

_Live = Mapping[Key, LiveObject]
_NODE = "node-1"


def resource_tree(live: _Live) -> Json:
    """The tree as it is now: managed objects, then ReplicaSets and pods below their Deployment."""
    nodes = [_managed_node(found) for found in live.values()]
    for deployment in deployments_of(live):
        for replica_set in deployment.replica_sets:
            nodes.append(_replica_set_node(deployment, replica_set))
            nodes += [_pod_node(deployment, replica_set, pod) for pod in replica_set.pods]
    return {
        "nodes": nodes,
        "hosts": [{"name": _NODE, "systemInfo": {"architecture": "amd64", "operatingSystem": "linux"}}],
    }


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
    for deployment in deployments_of(live):
        for replica_set in deployment.replica_sets:
            if (group, kind, namespace, name) == ("apps", "ReplicaSet", deployment.key[2], replica_set.name):
                return _replica_set(deployment, replica_set)
            for pod in replica_set.pods:
                if (group, kind, namespace, name) == ("", "Pod", deployment.key[2], pod.name):
                    return _pod(deployment, replica_set, pod)
    return None


def events(application: Application, live: _Live, *, resource_name: str = "", resource_uid: str = "") -> Json:
    """The events of the application itself, or those of one object in its tree."""
    if not resource_name:
        spec = application.spec
        about = {"kind": "Application", "namespace": spec.namespace, "name": spec.name}
        items = [_event(about, at, "Normal", reason, message) for at, reason, message in application.events]
        return {"metadata": {}, "items": items}
    found: list[Json] = []
    for deployment in deployments_of(live):
        for pod in deployment.pods:
            if pod.name == resource_name and resource_uid in {"", pod.uid} and pod.restarts:
                about = {"kind": "Pod", "namespace": deployment.key[2], "name": pod.name, "uid": pod.uid}
                message = f"Back-off restarting failed container app in pod {pod.name}"
                found.append(_event(about, pod.created_at, "Warning", "BackOff", message, count=pod.restarts))
    return {"metadata": {}, "items": found}


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
    if isinstance(found, Deployment):
        node["info"] = [{"name": "Revision", "value": f"Rev:{found.current.revision}"}]
    return node | ({"health": health.json()} if health is not None else {})


def _replica_set_node(deployment: Deployment, replica_set: ReplicaSet) -> Json:
    namespace = deployment.key[2]
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
        "parentRefs": [_reference("apps", "Deployment", namespace, deployment.key[3], deployment.uid)],
        "info": [{"name": "Revision", "value": f"Rev:{replica_set.revision}"}],
        "resourceVersion": str(deployment.version),
        "createdAt": stamp(replica_set.created_at),
        "health": health,
    }


def _pod_node(deployment: Deployment, replica_set: ReplicaSet, pod: Pod) -> Json:
    info = [
        {"name": "Status Reason", "value": pod.reason},
        {"name": "Node", "value": _NODE},
        {"name": "Containers", "value": f"{int(pod.is_ready)}/{len(pod.images)}"},
    ]
    if pod.restarts:
        info.append({"name": "Restart Count", "value": str(pod.restarts)})
    namespace = deployment.key[2]
    return {
        **_reference("", "Pod", namespace, pod.name, pod.uid),
        "version": "v1",
        "parentRefs": [_reference("apps", "ReplicaSet", namespace, replica_set.name, replica_set.uid)],
        "info": info,
        "images": pod.images,
        "resourceVersion": str(deployment.version),
        "createdAt": stamp(pod.created_at),
        "health": pod.health.json(),
    }


def _reference(group: str, kind: str, namespace: str, name: str, uid: str) -> Json:
    reference = {"group": group} if group else {}
    return reference | {"kind": kind, "namespace": namespace, "name": name, "uid": uid}


def _replica_set(deployment: Deployment, replica_set: ReplicaSet) -> Json:
    active = replica_set.active
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": replica_set.name,
            "namespace": deployment.key[2],
            "uid": replica_set.uid,
            "annotations": {"deployment.kubernetes.io/revision": str(replica_set.revision)},
            "creationTimestamp": stamp(replica_set.created_at),
        },
        "spec": {"replicas": len(active), "template": replica_set.template},
        "status": {"replicas": len(active), "readyReplicas": sum(pod.is_ready for pod in active)},
    }


def _pod(deployment: Deployment, replica_set: ReplicaSet, pod: Pod) -> Json:
    containers = pod.template["spec"]["containers"]
    statuses = [_container(container, pod) for container in containers]
    metadata = {
        "name": pod.name,
        "namespace": deployment.key[2],
        "uid": pod.uid,
        "labels": pod.template["metadata"].get("labels", {}),
        "creationTimestamp": stamp(pod.created_at),
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set.name, "uid": replica_set.uid}
        ],
    }
    if pod.is_terminating:
        metadata["deletionTimestamp"] = stamp(deployment.timeline.now)
    phase = "Pending" if pod.reason == "ContainerCreating" else "Running"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": _NODE, "containers": containers},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


def _container(container: Json, pod: Pod) -> Json:
    started = pod.reason != "ContainerCreating"
    running = {"running": {"startedAt": stamp(pod.created_at)}}
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": image_id(container["image"]) if started else "",
        "ready": pod.is_ready,
        "restartCount": pod.restarts,
        "state": running if pod.is_ready else {"waiting": {"reason": pod.reason}},
    }
