"""What can go wrong in the simulated Argo CD: comparisons that fail, pods in trouble, caches, and clocks set back."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from argocd_bench import PROD, Bench, fitting

from bot.playground.repository import head


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


async def tree(bench: Bench, kind: str) -> list[dict[str, Any]]:
    """The nodes of a kind in the application's tree."""
    answer = await bench.call(f"applications/{PROD}/resource-tree", project="default")
    return [
        node for node in fitting(answer.json(), "v1alpha1ApplicationTree")["nodes"] if node["kind"] == kind
    ]


async def pods(bench: Bench) -> list[dict[str, str]]:
    """The info items of every pod."""
    return [{item["name"]: item["value"] for item in node["info"]} for node in await tree(bench, "Pod")]


async def container(bench: Bench, pod: str) -> Any:
    """The container status of a live pod."""
    query = {"project": "default", "namespace": "prod", "version": "v1", "kind": "Pod", "resourceName": pod}
    answer = await bench.call(f"applications/{PROD}/resource", **query)
    manifest = json.loads(fitting(answer.json(), "applicationApplicationResourceResponse")["manifest"])
    return manifest["status"]["containerStatuses"][0]


@pytest.mark.parametrize("revision", ["", "main"])
async def test_a_failed_comparison_knows_no_commit(bench: Bench, revision: str) -> None:
    """Sync Unknown with a branch's name or nothing as its revision, a ComparisonError, and health as it was."""
    bench.argo.break_comparisons(PROD, "Failed to load target state: connection refused", revision=revision)
    status = (await bench.refresh())["status"]
    assert (status["sync"]["status"], status["sync"].get("revision", "")) == ("Unknown", revision)
    assert status["health"]["status"] == "Healthy"
    (condition,) = status["conditions"]
    assert condition["type"] == "ComparisonError"
    assert condition["message"] == "Failed to load target state: connection refused"
    assert {resource["status"] for resource in status["resources"]} == {"Unknown"}
    bench.argo.mend_comparisons(PROD)
    status = (await bench.refresh())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", head(bench.repository))
    assert "conditions" not in status


async def test_an_invalid_spec_makes_everything_unknown(bench: Bench) -> None:
    """Sync and health are Unknown, and no operation begins."""
    bench.promote("15")
    bench.argo.break_comparisons(PROD, "project gone does not exist", kind="InvalidSpecError")
    status = (await bench.refresh())["status"]
    assert (status["sync"]["status"], status["health"]["status"]) == ("Unknown", "Unknown")
    assert [condition["type"] for condition in status["conditions"]] == ["InvalidSpecError"]
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("14")


async def test_a_status_that_cannot_be_written_stays_the_old_one(bench: Bench) -> None:
    """UnknownError beside the old Synced and the old reconciledAt; the application is still polled."""
    old, before = head(bench.repository), (await bench.application())["status"]
    bench.argo.break_comparisons(PROD, "status could not be persisted and may be stale", kind="UnknownError")
    bench.promote("15")
    status = (await bench.refresh())["status"]
    assert [condition["type"] for condition in status["conditions"]] == ["UnknownError"]
    assert (status["sync"]["revision"], status["reconciledAt"]) == (old, before["reconciledAt"])
    bench.passes(400)
    bench.argo.mend_comparisons(PROD)
    bench.passes(400)
    assert bench.argo.truth(PROD).runs("15")


async def test_auto_sync_refuses_to_delete_everything(bench: Bench) -> None:
    """An application that renders to nothing is left alone, with a SyncError that says so."""
    for path in (bench.folder / "work" / "templates").iterdir():
        path.unlink()
    bench._git("commit", "--quiet", "--all", "-m", "Remove everything")
    bench._git("push", "--quiet", "origin", "HEAD:main")
    await bench.refresh()
    bench.passes(15)
    status = (await bench.application())["status"]
    (condition,) = status["conditions"]
    assert condition["type"] == "SyncError"
    assert condition["message"].endswith("auto-sync will wipe out all resources")
    assert bench.argo.truth(PROD).runs("14")


@pytest.mark.parametrize(
    ("trouble", "restarts", "image_id", "state", "event"),
    [
        ("CrashLoopBackOff", "Restart Count", True, "waiting", "BackOff"),
        ("ImagePullBackOff", "", False, "waiting", "Failed"),
        ("OOMKilled", "Restart Count", True, "terminated", "BackOff"),
    ],
)
async def test_a_pod_can_get_into_trouble(
    bench: Bench, trouble: str, restarts: str, image_id: bool, state: str, event: str
) -> None:
    """Its reason stands in the tree at once, its live object and its events agree, and it is Degraded itself."""
    bench.argo.degrade_next_rollout(PROD, trouble=trouble)
    await bench.deploy("15")
    (pod,) = [found for found in await pods(bench) if found["Status Reason"] == trouble]
    assert pod["Containers"] == "0/1"
    assert ("Restart Count" in pod) is bool(restarts)
    (node,) = [node for node in await tree(bench, "Pod") if node["health"]["status"] == "Degraded"]
    assert node["health"]["message"]
    status = await container(bench, node["name"])
    assert status["state"][state]["reason"] == trouble
    assert (bool(status["imageID"]), status["ready"]) == (image_id, False)
    assert bool(status.get("lastState")) is bool(restarts)
    answer = await bench.call(f"applications/{PROD}/events", project="default", resourceName=node["name"])
    (warning,) = fitting(answer.json(), "eventsEventList")["items"]
    assert (warning["type"], warning["reason"]) == ("Warning", event)
    assert (await bench.application())["status"]["health"]["status"] == "Progressing"
    bench.passes(20)
    assert (await bench.application())["status"]["health"]["status"] == "Degraded"


async def test_what_was_degraded_can_recover_by_itself(bench: Bench) -> None:
    """The pods serve after all, and the rollout goes on to its end without another commit."""
    bench.argo.degrade_next_rollout(PROD)
    new = await bench.deploy("15")
    bench.passes(20)
    assert (await bench.application())["status"]["health"]["status"] == "Degraded"
    bench.argo.recover(PROD)
    bench.passes(15)
    status = (await bench.application())["status"]
    assert (status["health"]["status"], status["sync"]["revision"]) == ("Healthy", new)
    assert bench.argo.truth(PROD).runs("15")


async def test_health_can_flap(bench: Bench) -> None:
    """Healthy, Progressing and Healthy again within a few seconds, after the rollout was complete."""
    bench.argo.flap_next_rollout(PROD)
    bench.promote("15")
    await bench.refresh()
    seen: list[tuple[str, float]] = []
    for step in range(150):
        bench.passes(0.1)
        health = (await bench.application())["status"]["health"]["status"]
        if not seen or health != seen[-1][0]:
            seen.append((health, step / 10))
    assert [health for health, _ in seen] == ["Healthy", "Progressing", "Healthy", "Progressing", "Healthy"]
    assert seen[4][1] - seen[3][1] <= 2
    assert bench.argo.truth(PROD).runs("15")


async def test_a_paused_rollout_is_suspended(bench: Bench) -> None:
    """The new template waits behind the old pods for as long as the Deployment is paused."""
    bench.commit("templates/deployment.yaml", "  selector:", "  paused: true\n  selector:")
    new = await bench.deploy("15")
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", new)
    assert status["health"]["status"] == "Suspended"
    (node,) = await tree(bench, "Deployment")
    assert node["health"] == {"status": "Suspended", "message": "Deployment is paused"}
    assert bench.argo.truth(PROD).runs("14")
    bench.commit("templates/deployment.yaml", "  paused: true\n", "")
    await bench.refresh()
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        (
            "StatefulSet",
            {
                "Waiting for statefulset spec update to be observed...",
                "Waiting for 1 pods to be ready...",
                "statefulset rolling update complete 3 pods at revision manual-app-prod-*...",
            },
        ),
        (
            "DaemonSet",
            {
                "Waiting for rollout to finish: observed daemon set generation less than desired generation",
                'Waiting for daemon set "manual-app-prod" rollout to finish: 0 out of 3 new pods have been updated...',
                'Waiting for daemon set "manual-app-prod" rollout to finish: 1 out of 3 new pods have been updated...',
                'Waiting for daemon set "manual-app-prod" rollout to finish: 2 out of 3 new pods have been updated...',
                'Waiting for daemon set "manual-app-prod" rollout to finish: 2 of 3 updated pods are available...',
                "",
            },
        ),
    ],
)
async def test_other_workloads_replace_a_pod_only_after_the_one_before(
    bench: Bench, kind: str, messages: set[str]
) -> None:
    """In gitops-engine's words, never with a pod too many, and with pods directly below the workload."""
    bench.commit("templates/deployment.yaml", "kind: Deployment", f"kind: {kind}")
    await bench.refresh()
    bench.passes(30)
    assert bench.argo.truth(PROD).runs("14")
    names = {node["name"] for node in await tree(bench, "Pod")}
    bench.promote("15")
    await bench.refresh()
    seen, most = set(), 0
    for _ in range(150):
        bench.passes(0.1)
        (node,) = await tree(bench, kind)
        message = node["health"].get("message", "")
        before, found, _ = message.partition("manual-app-prod-")
        seen.add(f"{before}{found}*..." if found else message)
        most = max(most, len(await tree(bench, "Pod")))
    assert seen == messages
    assert most == 3
    found_pods = await tree(bench, "Pod")
    assert {parent["kind"] for pod in found_pods for parent in pod["parentRefs"]} == {kind}
    assert ({pod["name"] for pod in found_pods} == names) is (kind == "StatefulSet")
    assert not await tree(bench, "ReplicaSet")
    assert bench.argo.truth(PROD).runs("15")


async def test_a_stateful_set_in_trouble_is_never_degraded(bench: Bench) -> None:
    """It has no deadline: it is Progressing for as long as its pod crashes, and only that one is down."""
    bench.commit("templates/deployment.yaml", "kind: Deployment", "kind: StatefulSet")
    await bench.refresh()
    bench.passes(30)
    bench.argo.degrade_next_rollout(PROD)
    await bench.deploy("15")
    bench.passes(900)
    assert (await bench.application())["status"]["health"]["status"] == "Progressing"
    assert sorted(pod["Status Reason"] for pod in await pods(bench)) == [
        "CrashLoopBackOff",
        "Running",
        "Running",
    ]


@pytest.mark.parametrize("path", ["resource-tree", "managed-resources"])
async def test_a_lost_cache_is_filled_by_the_comparison_it_asks_for(bench: Bench, path: str) -> None:
    """500 with Argo CD's words until the application is compared again."""
    bench.argo.lose_cache(PROD)
    lost = await bench.call(f"applications/{PROD}/{path}", project="default")
    assert (lost.status_code, lost.json()["code"]) == (500, 2)
    assert fitting(lost.json(), "runtimeError")["message"].endswith("cache: key is missing")
    bench.passes(1)
    assert (await bench.call(f"applications/{PROD}/{path}", project="default")).status_code == 200


async def test_a_clock_that_is_set_back_holds_nothing_up(bench: Bench) -> None:
    """An hour back and on again: what was begun goes on at the clock's pace."""
    bench.promote("15")
    await bench.refresh()
    bench.passes(-3600)
    assert bench.argo.truth(PROD).runs("14")
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")
