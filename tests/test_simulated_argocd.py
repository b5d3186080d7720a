"""The simulated Argo CD's two loops and its cluster behave as the real ones do, seen over HTTP."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench, fitting, wait_until

from bot.playground.argocd.server import SimulatedArgoCD, Timings
from bot.playground.repository import head


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


async def test_applications_start_synced_and_healthy_on_the_present_commit(bench: Bench) -> None:
    """A new simulation has a past: deployed two days ago, compared since."""
    shown = await bench.application()
    status = shown["status"]
    assert (status["sync"]["status"], status["health"]["status"]) == ("Synced", "Healthy")
    assert status["sync"]["revision"] == head(bench.repository)
    assert [entry["revision"] for entry in status["history"]] == [head(bench.repository)]
    assert status["summary"]["images"] == ["ghcr.io/acme/manual-app:14"]
    assert "operation" not in shown
    assert bench.argo.truth(PROD).runs("14")


async def test_an_operation_is_queued_before_the_old_status_is_replaced(bench: Bench) -> None:
    """Queueing sets `operation` and drops operationState, while sync and health are still those of the old commit."""
    old = head(bench.repository)
    new = bench.promote("15")
    waiting = await bench.refreshing()
    bench.passes(0.3)
    shown = await bench.application()
    assert shown["operation"]["sync"]["revision"] == new
    assert "operationState" not in shown["status"]
    assert shown["status"]["sync"]["revision"] == old
    assert (shown["status"]["sync"]["status"], shown["status"]["health"]["status"]) == ("Synced", "Healthy")
    bench.passes(0.1)
    assert (await waiting)["status"]["sync"]["status"] == "OutOfSync"


async def test_an_operation_succeeds_while_sync_and_health_are_still_the_old_ones(bench: Bench) -> None:
    """The two loops do not wait for each other: Succeeded beside a health from before the operation."""
    new = bench.promote("15")
    await bench.refresh()
    bench.passes(1.8)
    shown = await bench.application()
    state = shown["status"]["operationState"]
    assert (state["phase"], state["syncResult"]["revision"]) == ("Succeeded", new)
    assert "operation" not in shown
    assert (shown["status"]["sync"]["status"], shown["status"]["health"]["status"]) == (
        "OutOfSync",
        "Healthy",
    )
    assert shown["status"]["reconciledAt"] <= state["finishedAt"]
    assert bench.argo.truth(PROD).health == "Progressing"
    bench.passes(1)
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["health"]["status"]) == ("Synced", "Progressing")


async def test_health_follows_the_pods_by_later_reconciles(bench: Bench) -> None:
    """Live changes are compared without a refresh, so that health ends up Healthy after the last pod, not before."""
    new = bench.promote("15")
    await bench.refresh()
    seen = []
    for _ in range(60):
        bench.passes(0.2)
        status = (await bench.application())["status"]
        if status["health"]["status"] not in seen[-1:]:
            seen.append(status["health"]["status"])
        if seen[-1] == "Healthy" and "Progressing" in seen:
            assert bench.argo.truth(PROD).runs("15")
    assert seen == ["Healthy", "Progressing", "Healthy"]
    assert status["sync"]["revision"] == new
    assert status["reconciledAt"] > status["operationState"]["finishedAt"]


async def test_resources_are_applied_one_by_one_and_history_comes_before_success(bench: Bench) -> None:
    """The running operation lists what it has applied; the history entry is there before the phase says Succeeded."""
    bench.promote("15")
    await bench.refresh()
    counts, history_while_running = [], set()
    for _ in range(40):
        bench.passes(0.05)
        status = (await bench.application())["status"]
        if (state := status.get("operationState", {})).get("phase") == "Running":
            counts.append(len(state.get("syncResult", {}).get("resources", [])))
            history_while_running.add(len(status["history"]))
    assert sorted(set(counts)) == [0, 1, 2, 3]
    assert history_while_running == {1, 2}
    kinds = [resource["kind"] for resource in status["operationState"]["syncResult"]["resources"]]
    assert kinds == ["Service", "Deployment", "Ingress"]


async def test_a_refresh_during_a_reconcile_is_lost(bench: Bench) -> None:
    """Up to 3.5.1 the reconcile in flight removes an annotation it has not seen: both callers get the old revision."""
    old = head(bench.repository)
    first = await bench.refreshing()
    bench.passes(0.1)
    bench.promote("15")
    second = await bench.refreshing()
    bench.passes(0.4)
    assert [(await task)["status"]["sync"]["revision"] for task in (first, second)] == [old, old]
    bench.passes(5)
    assert (await bench.application())["status"]["sync"]["revision"] == old


async def test_a_refresh_during_a_reconcile_is_kept_where_the_fault_is_repaired(bench: Bench) -> None:
    """Without the lossy behaviour the late annotation stays and gets its own reconcile."""
    bench.argo.lossy_refresh = False
    first = await bench.refreshing()
    bench.passes(0.1)
    new = bench.promote("15")
    second = await bench.refreshing()
    bench.passes(0.25)
    assert not second.done()
    bench.passes(0.4)
    assert (await second)["status"]["sync"]["revision"] == new
    await first


async def test_a_refresh_blocks_while_other_requests_go_on(bench: Bench) -> None:
    """Only the refreshing caller waits for the reconcile; everybody else sees the annotation."""
    waiting = await bench.refreshing()
    shown = await bench.application()
    assert shown["metadata"]["annotations"] == {"argocd.argoproj.io/refresh": "normal"}
    assert not waiting.done()
    bench.passes(0.3)
    assert "annotations" not in (await waiting)["metadata"]


async def test_a_refresh_ends_at_the_callers_deadline(bench: Bench) -> None:
    """Grpc-Timeout bounds the wait; the answer says nothing about the application."""
    answer = await bench.call(
        f"applications/{PROD}", headers={"Grpc-Timeout": "20m"}, project="default", refresh="normal"
    )
    assert answer.status_code == 500
    assert fitting(answer.json(), "runtimeError")["message"] == "application refresh deadline exceeded"


async def test_a_commit_that_renders_the_same_needs_no_operation(bench: Bench) -> None:
    """A change for another environment is Synced at the new revision, with the operation of the old one."""
    before = (await bench.application())["status"]
    new = bench.promote("15", environment="dev")
    status = (await bench.refresh())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", new)
    assert status["operationState"] == before["operationState"]
    assert status["history"] == before["history"]
    assert bench.argo.truth(PROD).revision == new


async def test_a_poll_reuses_the_answer_of_ls_remote(bench: Bench) -> None:
    """A reconcile without a refresh can be newer than a commit and still compare with the one before."""
    old = head(bench.repository)
    bench.passes(35)
    new = bench.promote("15")
    bench.passes(60)
    status = (await bench.application("manual-app-stage"))["status"]
    assert status["reconciledAt"] == "2026-08-24T09:01:30Z"
    assert status["sync"]["revision"] == old
    bench.passes(240)
    assert (await bench.application("manual-app-stage"))["status"]["sync"]["revision"] == new


async def test_the_refresh_of_one_application_serves_the_polls_of_the_others(bench: Bench) -> None:
    """A forced ls-remote fills the cache that all applications of the repository share."""
    new = bench.promote("15", environment="stage")
    await bench.refresh("manual-app-dev")
    bench.passes(95)
    assert (await bench.application("manual-app-stage"))["status"]["sync"]["revision"] == new


async def test_a_deaf_argo_cd_never_notices_a_commit(bench: Bench) -> None:
    """While deaf, not even a refresh sees the new revision; afterwards it does."""
    bench.argo.deaf = True
    old, new = head(bench.repository), bench.promote("15")
    assert (await bench.refresh())["status"]["sync"]["revision"] == old
    bench.passes(900)
    assert (await bench.application())["status"]["sync"]["revision"] == old
    bench.argo.deaf = False
    assert (await bench.refresh())["status"]["sync"]["revision"] == new


async def test_a_rollout_replaces_pod_by_pod(bench: Bench) -> None:
    """The surge pod comes first, old pods go through Terminating, and gitops-engine's messages tell the step."""
    bench.promote("15")
    await bench.refresh()
    messages, reasons, totals = [], set(), set()
    for _ in range(80):
        bench.passes(0.1)
        tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
        fitting(tree, "v1alpha1ApplicationTree")
        nodes = {
            kind: [node for node in tree["nodes"] if node["kind"] == kind] for kind in ("Deployment", "Pod")
        }
        message = (
            nodes["Deployment"][0]["health"]
            .get("message", "done")
            .removeprefix("Waiting for rollout to finish: ")
        )
        messages += [message] if message not in messages[-1:] else []
        found = [
            info["value"] for pod in nodes["Pod"] for info in pod["info"] if info["name"] == "Status Reason"
        ]
        reasons |= set(found)
        totals.add(len([reason for reason in found if reason != "Terminating"]))
    assert messages == [
        "done",
        "observed deployment generation less than desired generation",
        "1 out of 3 new replicas have been updated...",
        "2 out of 3 new replicas have been updated...",
        "1 old replicas are pending termination...",
        "done",
    ]
    assert reasons == {"Running", "ContainerCreating", "Terminating"}
    assert totals == {3, 4}
    revisions = [node["info"][0]["value"] for node in tree["nodes"] if node["kind"] == "ReplicaSet"]
    assert revisions == ["Rev:1", "Rev:2"]


async def test_going_back_revives_the_old_replica_set_under_a_new_revision(bench: Bench) -> None:
    """Kubernetes knows a pod template again: no third ReplicaSet, but a third revision."""
    await bench.deploy("15")
    await bench.deploy("14", old="15")
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    revisions = sorted(node["info"][0]["value"] for node in tree["nodes"] if node["kind"] == "ReplicaSet")
    assert revisions == ["Rev:2", "Rev:3"]
    assert bench.argo.truth(PROD).runs("14")


async def test_a_crashing_rollout_is_degraded_only_after_the_deadline(bench: Bench) -> None:
    """Crashing pods are Progressing until the progress deadline; the old pods serve all the time."""
    bench.argo.degrade_next_rollout(PROD)
    await bench.deploy("15")
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["health"]["status"]) == ("Synced", "Progressing")
    bench.passes(15)
    status = (await bench.application())["status"]
    deployment = next(resource for resource in status["resources"] if resource["kind"] == "Deployment")
    assert status["health"]["status"] == "Degraded"
    assert deployment["health"]["message"] == f'Deployment "{PROD}" exceeded its progress deadline'
    truth = bench.argo.truth(PROD)
    assert (truth.versions, truth.all_ready, truth.health) == ({"14", "15"}, False, "Degraded")
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    pods = [
        {info["name"]: info["value"] for info in node["info"]}
        for node in tree["nodes"]
        if node["kind"] == "Pod"
    ]
    assert [pod["Containers"] for pod in pods if pod["Status Reason"] == "CrashLoopBackOff"] == ["0/1"]
    assert [pod["Containers"] for pod in pods if pod["Status Reason"] == "Running"] == ["1/1"] * 3


@pytest.mark.parametrize("repair", ["16", "14"])
async def test_the_next_good_rollout_repairs_a_degraded_one(bench: Bench, repair: str) -> None:
    """Forwards or back: one more rollout and every pod is ready again."""
    bench.argo.degrade_next_rollout()
    await bench.deploy("15")
    bench.passes(30)
    await bench.deploy(repair, old="15")
    assert (await bench.application())["status"]["health"]["status"] == "Healthy"
    assert bench.argo.truth(PROD).runs(repair)


async def test_a_stale_render_is_synced_at_a_commit_it_does_not_run(bench: Bench) -> None:
    """Synced and Healthy at the new revision with the old image, until a hard refresh drops the manifest cache."""
    bench.argo.stale_render_next(PROD)
    new = await bench.deploy("15")
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", new)
    assert bench.argo.truth(PROD).runs("14")
    answer = await bench.call(f"applications/{PROD}/managed-resources", project="default", kind="Deployment")
    (item,) = fitting(answer.json(), "applicationManagedResourcesResponse")["items"]
    image = json.loads(item["targetState"])["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "ghcr.io/acme/manual-app:14"
    await bench.refresh(kind="normal")
    assert bench.argo.truth(PROD).runs("14")
    await bench.refresh(kind="hard")
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")


async def test_broken_values_make_the_comparison_fail_not_the_health(bench: Bench) -> None:
    """YAML that helm cannot read: sync Unknown without a revision, a ComparisonError, and pods that do not care."""
    bench.commit("values-prod.yaml", 'tag: "14"', "tag: a: b")
    status = (await bench.refresh())["status"]
    assert status["sync"]["status"] == "Unknown"
    assert "revision" not in status["sync"]
    assert status["health"]["status"] == "Healthy"
    (condition,) = status["conditions"]
    assert condition["type"] == "ComparisonError"
    assert (
        "values-prod.yaml: error converting YAML to JSON: yaml: line 5: mapping values"
        in condition["message"]
    )
    repaired = bench.commit("values-prod.yaml", "tag: a: b", 'tag: "14"')
    status = (await bench.refresh())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", repaired)
    assert "conditions" not in status


async def test_a_failed_sync_is_not_tried_again_for_the_same_commit(bench: Bench) -> None:
    """The operation ends Failed, a SyncError says so, and only a newer commit is synced again."""
    bench.argo.fail_next_sync(PROD, 'admission webhook "policy" denied the request')
    revision = await bench.deploy("15")
    status = (await bench.application())["status"]
    state = status["operationState"]
    assert state["phase"] == "Failed"
    assert state["message"].startswith("one or more objects failed to apply, reason: admission webhook")
    statuses = {result["kind"]: result["status"] for result in state["syncResult"]["resources"]}
    assert statuses == {"Service": "Synced", "Deployment": "SyncFailed", "Ingress": "Synced"}
    assert status["sync"]["status"] == "OutOfSync"
    assert status["conditions"][0]["message"].startswith(
        f"Failed last sync attempt to {revision}: one or more"
    )
    assert len(status["history"]) == 1
    assert bench.argo.truth(PROD).runs("14")
    await bench.deploy("16", old="15")
    assert "conditions" not in (await bench.application())["status"]
    assert bench.argo.truth(PROD).runs("16")


async def test_a_retried_operation_is_running_with_an_end(bench: Bench) -> None:
    """Waiting for the next attempt looks like Running with finishedAt and a retryCount."""
    await bench.restart(bench.simulate([replace(APPLICATIONS[2], retry_limit=2)]))
    bench.argo.fail_next_sync(PROD, "quota exceeded")
    bench.promote("15")
    await bench.refresh()
    bench.passes(3)
    shown = await bench.application()
    state = shown["status"]["operationState"]
    assert (state["phase"], state["retryCount"], "finishedAt" in state) == ("Running", 1, True)
    assert state["message"].endswith("Retrying attempt #1 at 9:00AM.")
    assert shown["operation"]["retry"] == {"limit": 2}
    bench.passes(60)
    state = (await bench.application())["status"]["operationState"]
    assert (state["phase"], state["retryCount"]) == ("Failed", 2)
    assert state["message"].endswith("quota exceeded (retried 2 times).")


async def test_a_newer_commit_during_an_operation_is_synced_after_it(bench: Bench) -> None:
    """One operation at a time: the next one is queued by the comparison that follows."""
    first = bench.promote("15")
    await bench.refresh()
    bench.passes(0.5)
    second = bench.promote("16", old="15")
    shown = await bench.refresh()
    assert shown["status"]["sync"]["revision"] == second
    assert shown["status"]["operationState"]["operation"]["sync"]["revision"] == first
    bench.passes(20)
    history = (await bench.application())["status"]["history"]
    assert [entry["revision"] for entry in history[1:]] == [first, second]
    assert bench.argo.truth(PROD).runs("16")


async def test_without_auto_sync_a_commit_stays_out_of_sync(bench: Bench) -> None:
    """A manual application notices the commit and waits for somebody."""
    await bench.restart(bench.simulate([replace(APPLICATIONS[2], automated=False)]))
    new = await bench.deploy("15")
    shown = await bench.application()
    assert (shown["status"]["sync"]["status"], shown["status"]["sync"]["revision"]) == ("OutOfSync", new)
    assert "automated" not in shown["spec"]["syncPolicy"]
    assert bench.argo.truth(PROD).runs("14")


async def test_an_object_that_left_the_chart_is_pruned(bench: Bench) -> None:
    """Switching the ingress off removes it, and the operation says so."""
    bench.commit("values-prod.yaml", "enabled: true", "enabled: false")
    shown = await bench.refresh()
    ingress = next(resource for resource in shown["status"]["resources"] if resource["kind"] == "Ingress")
    assert (ingress["status"], ingress["requiresPruning"]) == ("OutOfSync", True)
    bench.passes(10)
    status = (await bench.application())["status"]
    assert status["operationState"]["syncResult"]["resources"][-1]["status"] == "Pruned"
    assert [resource["kind"] for resource in status["resources"]] == ["Service", "Deployment"]


async def test_more_replicas_need_no_new_replica_set(bench: Bench) -> None:
    """Scaling changes the number of pods, not the pod template."""
    bench.commit("values-prod.yaml", "replicaCount: 3", "replicaCount: 5")
    await bench.refresh()
    bench.passes(15)
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    kinds = [node["kind"] for node in tree["nodes"]]
    assert (kinds.count("ReplicaSet"), kinds.count("Pod")) == (1, 5)
    assert bench.argo.truth(PROD).runs("14")


async def test_one_long_step_ends_where_many_short_ones_do(tmp_path: Path) -> None:
    """Each event has its own moment, however seldom somebody looks."""
    ends = []
    for steps in (1, 500):
        bench = Bench(tmp_path / str(steps))
        await bench.argo.start(background=False)
        bench.promote("15")
        for _ in range(steps):
            bench.passes(500 / steps)
        ends.append((bench.argo.snapshot(), (await bench.application())["status"]["health"]))
        await bench.client.aclose()
        await bench.argo.stop()
    lines = [[line | {"revision": ""} for line in snapshot] for snapshot, _ in ends]
    assert lines[0] == lines[1]
    assert ends[0][1] == ends[1][1]


async def test_a_snapshot_shows_claims_beside_pods(bench: Bench) -> None:
    """The demo page's line: what the API says, the version that runs, and how many of the new pods are ready."""
    new = bench.promote("15")
    await bench.refresh()
    bench.passes(2.6)
    line = bench.argo.snapshot()[2]
    assert line == {
        "name": PROD,
        "namespace": "prod",
        "sync": "Synced",
        "health": "Progressing",
        "revision": new[:7],
        "version": "14, 15",
        "pods": "1/3",
        "message": "Waiting for rollout to finish: 2 out of 3 new replicas have been updated...",
    }


async def test_in_the_background_time_passes_by_itself(tmp_path: Path) -> None:
    """A demo needs nobody to step it: a commit is live by polling alone, on the loopback interface alone."""
    bench = Bench(tmp_path)
    fast = Timings(**{name: timedelta(milliseconds=20) for name in Timings.__dataclass_fields__})
    argo = SimulatedArgoCD(
        repository=bench.repository, token=TOKEN, applications=APPLICATIONS[2:], timings=fast
    )
    await argo.start()
    assert argo.url.startswith("http://127.0.0.1:")
    bench.promote("15")
    await wait_until(lambda: argo.truth(PROD).runs("15"), "version 15 is live")
    await argo.stop()
    await bench.client.aclose()
