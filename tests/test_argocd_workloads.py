"""Which pods stand for the present version, and which images were rendered, from Argo CD's tree and manifests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rollout_cases import IMAGE

from bot.core.facts import Pod, Workloads
from bot.integrations.argocd_workloads import read_workloads


def node(kind: str, name: str, owner: str = "", images: tuple[str, ...] = (), **info: str) -> dict[str, Any]:
    """A node of the resource tree; its uid is its name, and so is its owner's: `ReplicaSet/new`."""
    refs = [{"kind": owner.partition("/")[0], "uid": owner}] if owner else []
    items = [{"name": key.replace("_", " "), "value": value} for key, value in info.items()]
    made = {"kind": kind, "name": name, "uid": f"{kind}/{name}", "parentRefs": refs, "info": items}
    return made | {"images": list(images)}


def pod_node(name: str, owner: str, reason: str = "Running", containers: str = "1/1", **info: str) -> Any:
    """A pod of the tree."""
    return node("Pod", name, owner, (f"{IMAGE}:15",), Status_Reason=reason, Containers=containers, **info)


def pods_of(*nodes: dict[str, Any]) -> tuple[Pod, ...]:
    found = read_workloads({"items": None}, {"nodes": list(nodes)})
    assert found
    return found.pods


def test_only_pods_of_the_newest_replica_set_count() -> None:
    """The tenth revision is newer than the ninth, and Argo Rollouts works like Deployments."""
    for kind in ("Deployment", "Rollout"):
        found = pods_of(
            node(kind, "app"),
            node("ReplicaSet", "new", f"{kind}/app", Revision="Rev:10"),
            node("ReplicaSet", "old", f"{kind}/app", Revision="Rev:9"),
            pod_node("new-1", "ReplicaSet/new"),
            pod_node("old-1", "ReplicaSet/old"),
        )
        assert [pod.name for pod in found] == ["new-1"]


def test_without_revisions_the_youngest_replica_set_is_the_newest() -> None:
    """Two Deployments do not mix."""
    made = {"old": "2026-08-24T08:00:00Z", "new": "2026-08-24T09:00:00Z"}
    sets = [node("ReplicaSet", name, "Deployment/app") | {"createdAt": at} for name, at in made.items()]
    other = node("ReplicaSet", "other", "Deployment/other") | {"createdAt": made["old"]}
    found = pods_of(*sets, other, *(pod_node(name, f"ReplicaSet/{name}") for name in ("old", "new", "other")))
    assert [pod.name for pod in found] == ["new", "other"]


def test_pods_of_other_owners_count_unless_they_have_ended() -> None:
    """StatefulSets and DaemonSets own theirs directly; CronJobs, ended Jobs and evicted pods prove nothing."""
    found = pods_of(
        node("Job", "nightly-1", "CronJob/nightly"),
        pod_node("nightly", "Job/nightly-1"),
        pod_node("stateful", "StatefulSet/db"),
        pod_node("daemon", "DaemonSet/agent"),
        pod_node("bare", ""),
        pod_node("job-runs", "Job/migrate"),
        pod_node("job-done", "Job/migrate", "Completed", "0/1"),
        pod_node("job-failed", "Job/migrate", "Error", "0/1"),
        pod_node("evicted", "ReplicaSet/unknown", "Evicted", "0/1"),
        pod_node("crashed", "ReplicaSet/unknown", "Error", "0/1"),
    )
    assert [pod.name for pod in found] == ["stateful", "daemon", "bare", "job-runs", "crashed"]


@pytest.mark.parametrize(
    ("reason", "containers", "ready", "trouble"),
    [
        ("Running", "2/2", True, ""),
        ("Running", "1/2", False, ""),
        ("Running", "", False, ""),
        ("", "", False, ""),
        ("ContainerCreating", "0/1", False, ""),
        ("Init:0/2", "0/1", False, ""),
        ("Init:CrashLoopBackOff", "0/1", False, "Init:CrashLoopBackOff (3 restarts)"),
        ("ImagePullBackOff", "0/1", False, "ImagePullBackOff (3 restarts)"),
        ("Pending", "0/1", False, "Pending (3 restarts)"),
    ],
)
def test_a_pod_is_ready_or_waits_or_is_in_trouble(
    reason: str, containers: str, ready: bool, trouble: str
) -> None:
    """In the words of `kubectl get pods`."""
    (found,) = pods_of(pod_node("app", "", reason, containers, Restart_Count="3"))
    assert (found.is_ready, found.trouble) == (ready, trouble)


def test_a_tree_that_turns_in_a_circle_is_survived() -> None:
    """Nobody should own an owner of itself."""
    assert pods_of(node("ReplicaSet", "a", "ReplicaSet/a"), pod_node("p", "ReplicaSet/a"))


def test_the_rendered_images_are_those_of_every_workload() -> None:
    """Init containers as well, in whatever kind; an object that only exists in the cluster renders nothing."""
    box = {
        "containers": [{"image": f"{IMAGE}:15"}],
        "initContainers": [{"image": "migrate:3"}, {"name": "odd"}],
    }
    states = [
        {"kind": "Deployment", "spec": {"template": {"spec": box}}},
        {
            "kind": "CronJob",
            "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "cron:1"}]}}}}},
        },
        {"kind": "ConfigMap", "data": {"containers": "image: decoy"}},
        None,
    ]
    managed = {"items": [{"targetState": json.dumps(state)} for state in states] + [{}]}
    found = read_workloads(managed, {"nodes": [node("Deployment", "app")]})
    assert found == Workloads(rendered_images=frozenset({f"{IMAGE}:15", "migrate:3", "cron:1"}), pods=())


def test_an_empty_tree_beside_rendered_workloads_is_no_answer_yet() -> None:
    """The cache behind it was lost: absent pods are not absent trouble."""
    state = json.dumps({"spec": {"containers": [{"image": "app:1"}]}})
    assert read_workloads({"items": [{"targetState": state}]}, {"nodes": None}) is None
    assert read_workloads({}, {}) == Workloads(rendered_images=frozenset(), pods=())


@pytest.mark.parametrize(
    ("others", "is_known"),
    [
        ([], False),
        ([pod_node("new-1", "ReplicaSet/new", "Evicted", "0/1")], False),
        ([pod_node("new-1", "ReplicaSet/new", "", "0/1")], True),
    ],
    ids=["no pod", "an evicted one", "one"],
)
def test_old_pods_that_nothing_has_replaced_yet_are_no_answer(others: list[Any], is_known: bool) -> None:
    """The tree is late, or the health is: that there are no new pods to check proves nothing."""
    nodes = [
        node("ReplicaSet", "new", "Deployment/app", Revision="Rev:2"),
        node("ReplicaSet", "old", "Deployment/app", Revision="Rev:1"),
        pod_node("old-1", "ReplicaSet/old"),
        *others,
    ]
    assert (read_workloads({}, {"nodes": nodes}) is not None) is is_known


def test_old_pods_on_their_way_out_are_not_waited_for() -> None:
    """And an application that is scaled to nothing has none at all."""
    sets = [
        node("ReplicaSet", "new", "Deployment/app", Revision="Rev:2"),
        node("ReplicaSet", "old", "Deployment/app", Revision="Rev:1"),
    ]
    assert pods_of(*sets, pod_node("old-1", "ReplicaSet/old", "Terminating")) == ()
    assert pods_of(*sets) == ()
