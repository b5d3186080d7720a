"""The simulated Argo CD syncs on request by the real one's rules, and its operations end in all of its ways."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench, fitting

from bot.playground.argocd.server import SyncWindow
from bot.playground.repository import head

MANUAL = replace(APPLICATIONS[2], automated=False)
MAY_SYNC = "applications, sync, default/*"
NO_WINDOW = [SyncWindow(kind="deny", schedule="0 0 1 1 *", duration="8784h")]
JSON = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A simulation of one application without auto-sync, whose account may sync it."""
    made = Bench(tmp_path)
    made.argo = made.simulate([MANUAL])
    await made.argo.start(background=False)
    made.argo.access.grant(MAY_SYNC)
    async with made.client:
        yield made
    await made.argo.stop()


async def sync(
    bench: Bench, name: str = PROD, headers: dict[str, str] = JSON, **asked: Any
) -> httpx.Response:
    """POST a request to sync that fits its own schema."""
    body = fitting({"name": name, "project": "default"} | asked, "applicationApplicationSyncRequest")
    path = f"{bench.argo.url}/api/v1/applications/{name}/sync"
    return await bench.client.post(path, json=body, headers=headers)


async def terminate(bench: Bench, headers: dict[str, str] = JSON) -> httpx.Response:
    """DELETE the operation that runs."""
    path = f"{bench.argo.url}/api/v1/applications/{PROD}/operation"
    return await bench.client.delete(path, params={"project": "default"}, headers=headers)


async def state(bench: Bench) -> Any:
    """The operation state that the application shows now."""
    return (await bench.application())["status"]["operationState"]


async def test_a_sync_is_queued_with_who_asked_and_what_for(bench: Bench) -> None:
    """The answer has the operation and no state of the last one; infos come back in the state for whoever follows."""
    new = await bench.deploy("15")
    infos = [{"name": "promotion", "value": "p-1"}]
    answer = await sync(bench, revision=new, infos=infos, retryStrategy={"limit": 2})
    shown = fitting(answer.json(), "v1alpha1Application")
    assert shown["operation"]["sync"] == {"revision": new}
    assert shown["operation"]["info"] == infos
    assert shown["operation"]["initiatedBy"] == {"username": "promote-bot"}
    assert shown["operation"]["retry"] == {"limit": 2}
    assert "operationState" not in shown["status"]
    bench.passes(15)
    status = (await bench.application())["status"]
    assert status["operationState"]["operation"]["info"] == infos
    assert status["operationState"]["phase"] == "Succeeded"
    assert status["history"][-1]["initiatedBy"] == {"username": "promote-bot"}
    assert bench.argo.truth(PROD).runs("15")


@pytest.mark.parametrize(
    ("broken", "status", "code", "message"),
    [
        ({"window", "right", "delete", "busy"}, 403, 7, "cannot sync: blocked by sync window"),
        (
            {"right", "delete", "busy"},
            403,
            7,
            "permission denied: applications, sync, default/manual-app-prod, ",
        ),
        ({"delete", "revision", "busy"}, 400, 9, "application is deleting"),
        ({"revision", "busy"}, 400, 9, "unable to resolve 'nowhere' to a commit SHA"),
        ({"auto", "busy"}, 400, 9, "Cannot sync to nowhere: auto-sync currently set to main"),
        ({"busy"}, 400, 9, "another operation is already in progress"),
    ],
    ids=["window", "right", "deleting", "revision", "auto-sync", "busy"],
)
async def test_the_rules_of_a_sync_are_checked_in_order(
    bench: Bench, broken: set[str], status: int, code: int, message: str
) -> None:
    """Window before right, right before deletion, then the revision, and only then whether something runs."""
    if "busy" in broken:
        assert (await sync(bench)).status_code == 200
    if "window" in broken:
        bench.argo.windows["default"] = NO_WINDOW
    if "right" in broken:
        bench.argo.access.revoke(MAY_SYNC)
    if "delete" in broken:
        bench.argo.delete(PROD)
    if "auto" in broken:
        bench.argo.change(PROD, automated=True)
    answer = await sync(bench, revision="nowhere") if broken & {"revision", "auto"} else await sync(bench)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert fitting(answer.json(), "runtimeError")["message"].startswith(message)


async def test_a_sync_needs_the_right_to_read_first(bench: Bench) -> None:
    """Whoever may not read an application learns nothing by syncing it: 404 only where the project is named."""
    bench.argo.windows["default"] = NO_WINDOW
    assert (await sync(bench, name="nobody")).status_code == 404
    hidden = await sync(bench, name="nobody", project="")
    assert (hidden.status_code, hidden.json()["message"]) == (403, "permission denied")
    nobody = await sync(bench, headers={"Content-Type": "application/json"})
    assert nobody.status_code == 401


@pytest.mark.parametrize("kind", [None, "application/json; charset=utf-8", "text/plain"])
async def test_a_write_needs_the_exact_content_type(bench: Bench, kind: str | None) -> None:
    """415 in plain text, for the DELETE without a body as well."""
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Content-Type": kind} if kind else {})
    path = f"{bench.argo.url}/api/v1/applications/{PROD}"
    posted = await bench.client.post(f"{path}/sync", content="{}", headers=headers)
    deleted = await bench.client.delete(f"{path}/operation", headers=headers)
    for answer in (posted, deleted):
        assert (answer.status_code, answer.text) == (415, "Invalid content type\n")


async def test_a_body_that_is_no_object_is_a_bad_request(bench: Bench) -> None:
    """Neither broken JSON nor an array gets anywhere."""
    path = f"{bench.argo.url}/api/v1/applications/{PROD}/sync"
    for body in ("{", "[]"):
        answer = await bench.client.post(path, content=body, headers=JSON)
        assert (answer.status_code, fitting(answer.json(), "runtimeError")["code"]) == (400, 3)


async def test_can_i_follows_the_rights(bench: Bench) -> None:
    """A right that was granted is there, also with the control plane's namespace; one that was taken is not."""
    rights = [f"applications/sync/default/{PROD}", f"applications/sync/default/argocd/{PROD}"]
    answers = [(await bench.call(f"account/can-i/{right}")).json()["value"] for right in rights]
    assert answers == ["yes", "yes"]
    assert (await bench.call(f"account/can-i/logs/get/default/{PROD}")).json() == {"value": "no"}
    bench.argo.access.revoke(MAY_SYNC)
    assert (await bench.call(f"account/can-i/{rights[0]}")).json() == {"value": "no"}


async def test_a_dry_run_changes_nothing_and_leaves_no_history(bench: Bench) -> None:
    """A dry run may even name another revision on auto-sync; its operation state looks like a success."""
    new = await bench.deploy("15")
    bench.argo.change(PROD, automated=True)
    bench.argo.windows["default"] = [
        replace(NO_WINDOW[0], manual_sync=True)
    ]  # auto-sync must not begin by itself
    answer = await sync(bench, revision=new, dryRun=True)
    assert answer.json()["operation"]["sync"] == {"revision": new, "dryRun": True}
    bench.passes(10)
    status = (await bench.application())["status"]
    assert status["operationState"]["phase"] == "Succeeded"
    messages = [result["message"] for result in status["operationState"]["syncResult"]["resources"]]
    assert all(message.endswith("(dry run)") for message in messages)
    assert (len(status["history"]), status["sync"]["status"]) == (1, "OutOfSync")
    assert bench.argo.truth(PROD).runs("14")


async def test_a_partial_sync_applies_what_it_names(bench: Bench) -> None:
    """Succeeded at the new commit with one resource, without an entry in the history."""
    bench.commit("values-prod.yaml", "className: nginx", "className: other")
    await bench.deploy("15")
    chosen = {"group": "apps", "kind": "Deployment", "namespace": "prod", "name": PROD}
    await sync(bench, resources=[chosen])
    bench.passes(15)
    status = (await bench.application())["status"]
    results = status["operationState"]["syncResult"]["resources"]
    assert [result["kind"] for result in results] == ["Deployment"]
    statuses = {resource["kind"]: resource["status"] for resource in status["resources"]}
    assert statuses == {"Service": "Synced", "Deployment": "Synced", "Ingress": "OutOfSync"}
    assert len(status["history"]) == 1
    assert bench.argo.truth(PROD).runs("15")


async def test_without_prune_what_left_git_stays(bench: Bench) -> None:
    """PruneSkipped, and OutOfSync with requiresPruning afterwards; with prune it goes."""
    bench.commit("values-prod.yaml", "enabled: true", "enabled: false")
    await bench.refresh()
    await sync(bench)
    bench.passes(10)
    status = (await bench.application())["status"]
    assert status["operationState"]["phase"] == "Succeeded"
    assert status["operationState"]["syncResult"]["resources"][-1]["status"] == "PruneSkipped"
    (left,) = [resource for resource in status["resources"] if resource["status"] == "OutOfSync"]
    assert (left["kind"], left["requiresPruning"]) == ("Ingress", True)
    await sync(bench, prune=True)
    bench.passes(10)
    assert (await bench.application())["status"]["sync"]["status"] == "Synced"


async def test_an_operation_can_be_terminated(bench: Bench) -> None:
    """First Terminating, then Failed and not retried; the API answers an empty object."""
    await bench.deploy("15")
    await sync(bench, retryStrategy={"limit": 5})
    bench.passes(0.5)
    answer = await terminate(bench)
    assert (answer.status_code, fitting(answer.json(), "applicationOperationTerminateResponse")) == (200, {})
    assert (await state(bench))["phase"] == "Terminating"
    bench.passes(5)
    ended = await state(bench)
    assert (ended["phase"], ended["message"]) == ("Failed", "Operation terminated")
    assert "operation" not in await bench.application()
    assert bench.argo.truth(PROD).runs("14")


async def test_terminating_needs_an_operation_and_the_right_to_sync(bench: Bench) -> None:
    """400 code 3 if nothing runs; without the right, the application is as good as missing."""
    none = await terminate(bench)
    text = "Unable to terminate operation. No operation is in progress"
    assert (none.status_code, none.json()["code"], none.json()["message"]) == (400, 3, text)
    bench.argo.access.revoke(MAY_SYNC)
    assert (await terminate(bench)).status_code == 403


async def test_somebody_elses_operation_is_no_different(bench: Bench) -> None:
    """An administrator syncs by hand: the state names them, and no information of ours."""
    new = await bench.deploy("15")
    bench.argo.sync(PROD, username="dana", revision=new)
    bench.passes(15)
    operation = (await state(bench))["operation"]
    assert operation["initiatedBy"] == {"username": "dana"}
    assert "info" not in operation
    assert bench.argo.truth(PROD).runs("15")


async def test_drift_is_healed_by_a_partial_operation(bench: Bench) -> None:
    """Self-heal syncs at the known commit only what drifted, counts its attempts, and leaves no history."""
    bench.argo.change(PROD, automated=True, self_heal=True)
    bench.passes(5)
    await bench.deploy("15")
    before = (await bench.application())["status"]["history"]
    bench.argo.scale_by_hand(PROD, 5)
    bench.passes(15)
    status = (await bench.application())["status"]
    assert status["operationState"]["operation"]["sync"]["autoHealAttemptsCount"] == 1
    results = status["operationState"]["syncResult"]["resources"]
    assert [result["kind"] for result in results] == ["Deployment"]
    assert (status["sync"]["status"], status["history"]) == ("Synced", before)
    assert bench.argo.truth(PROD).runs("15")


async def test_without_self_heal_drift_stays(bench: Bench) -> None:
    """Auto-sync does not repeat a commit that it has synced."""
    bench.argo.change(PROD, automated=True)
    await bench.deploy("15")
    before = await state(bench)
    bench.argo.scale_by_hand(PROD, 5)
    bench.passes(15)
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["operationState"]) == ("OutOfSync", before)


async def test_an_operation_can_end_as_error_without_a_result(bench: Bench) -> None:
    """Error with a message and nothing else: the sync did not even begin."""
    await bench.deploy("15")
    bench.argo.break_next_sync(PROD, "Failed to load application project: not found")
    await sync(bench)
    bench.passes(5)
    ended = await state(bench)
    assert (ended["phase"], "syncResult" in ended, "finishedAt" in ended) == ("Error", False, True)
    assert ended["message"] == "Failed to load application project: not found"


async def test_a_lost_operation_runs_for_ever(bench: Bench) -> None:
    """The state says Running although the object names no operation any more."""
    await bench.deploy("15")
    await sync(bench)
    bench.passes(0.5)
    bench.argo.lose_operation(PROD)
    bench.passes(600)
    shown = await bench.application()
    assert "operation" not in shown
    assert (shown["status"]["operationState"]["phase"], bench.argo.truth(PROD).runs("14")) == (
        "Running",
        True,
    )


async def test_an_orphaned_success_keeps_auto_sync_from_beginning(bench: Bench) -> None:
    """Succeeded without an end and a result: OutOfSync at the commit, and no operation ever, until one by hand."""
    new = bench.promote("15")
    bench.argo.orphan_operation(PROD, new)
    bench.argo.change(PROD, automated=True, self_heal=True)
    bench.passes(600)
    shown = await bench.application()
    orphan = shown["status"]["operationState"]
    assert orphan["phase"] == "Succeeded"
    assert not {"finishedAt", "syncResult"} & orphan.keys()
    assert (shown["status"]["sync"]["status"], shown["status"]["sync"]["revision"]) == ("OutOfSync", new)
    assert "operation" not in shown
    await sync(bench)
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")


JOB = """apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations:
    argocd.argoproj.io/hook: {phase}
spec:
  template:
    spec:
      containers:
        - name: migrate
          image: ghcr.io/acme/migrate:1
"""


def add_hook(bench: Bench, phase: str) -> None:
    """Commit a Job that is a hook of a phase, together with version 15."""
    path = bench.folder / "work" / "templates" / f"{phase.lower()}.yaml"
    path.write_text(JOB.format(phase=phase).replace("name: migrate", f"name: {phase.lower()}", 1))
    bench._git("add", "--all")
    bench.promote("15")


async def test_hooks_run_before_and_after_and_are_not_compared(bench: Bench) -> None:
    """A PreSync hook runs to its end before anything is applied; it is no resource of the application."""
    add_hook(bench, "PreSync")
    await bench.refresh()
    await sync(bench)
    bench.passes(1.2)
    running = await state(bench)
    assert running["message"] == "waiting for completion of hook batch/Job/presync"
    (hook,) = running["syncResult"]["resources"]
    assert (hook["hookType"], hook["syncPhase"], hook["hookPhase"]) == ("PreSync", "PreSync", "Running")
    assert "status" not in hook
    bench.passes(15)
    status = (await bench.application())["status"]
    results = status["operationState"]["syncResult"]["resources"]
    assert [(result["kind"], result["hookPhase"]) for result in results[:2]] == [
        ("Job", "Succeeded"),
        ("Service", "Running"),
    ]
    assert (status["sync"]["status"], len(status["resources"])) == ("Synced", 3)


@pytest.mark.parametrize(
    ("phase", "version", "sync_status"), [("PreSync", "14", "OutOfSync"), ("PostSync", "15", "Synced")]
)
async def test_a_failing_hook_fails_the_sync(
    bench: Bench, phase: str, version: str, sync_status: str
) -> None:
    """Before the sync nothing is applied; after it everything is, and the application is Synced all the same."""
    add_hook(bench, phase)
    await bench.refresh()
    bench.argo.fail_next_hook(PROD, phase, "Job has reached the specified backoff limit")
    await sync(bench)
    bench.passes(25)
    status = (await bench.application())["status"]
    assert status["operationState"]["phase"] == "Failed"
    expected = "one or more synchronization tasks completed unsuccessfully, reason: Job has reached"
    assert status["operationState"]["message"].startswith(expected)
    (hook,) = [
        result for result in status["operationState"]["syncResult"]["resources"] if "hookType" in result
    ]
    assert hook["hookPhase"] == "Failed"
    assert (status["sync"]["status"], len(status["history"])) == (sync_status, 1)
    assert bench.argo.truth(PROD).runs(version)


async def test_a_sync_fail_hook_runs_after_a_failure_alone(bench: Bench) -> None:
    """Its result stands after the one that failed; a sync that succeeds does not run it."""
    add_hook(bench, "SyncFail")
    await bench.refresh()
    bench.argo.fail_next_sync(PROD, "quota exceeded")
    await sync(bench)
    bench.passes(10)
    ended = await state(bench)
    last = ended["syncResult"]["resources"][-1]
    assert (last["hookType"], last["hookPhase"], ended["phase"]) == ("SyncFail", "Succeeded", "Failed")
    assert ended["message"] == "one or more objects failed to apply, reason: quota exceeded"
    await sync(bench)
    bench.passes(10)
    ended = await state(bench)
    assert ended["phase"] == "Succeeded"
    assert not [result for result in ended["syncResult"]["resources"] if "hookType" in result]


async def test_the_strategy_apply_runs_no_hooks(bench: Bench) -> None:
    """`strategy.apply` applies the objects alone."""
    add_hook(bench, "PreSync")
    await bench.refresh()
    await sync(bench, strategy={"apply": {"force": False}})
    bench.passes(15)
    ended = await state(bench)
    assert [result["kind"] for result in ended["syncResult"]["resources"]] == [
        "Service",
        "Deployment",
        "Ingress",
    ]


async def test_a_wave_waits_until_the_one_before_is_healthy(bench: Bench) -> None:
    """What comes in a later wave is applied only when the Deployment's pods are ready."""
    wave = 'kind: Ingress\nmetadata:\n  annotations: {argocd.argoproj.io/sync-wave: "1"}'
    bench.commit("templates/ingress.yaml", "kind: Ingress\nmetadata:", wave)
    await bench.deploy("15")
    await sync(bench)
    bench.passes(3)
    running = await state(bench)
    assert running["message"] == f"waiting for healthy state of apps/Deployment/{PROD}"
    assert [result["kind"] for result in running["syncResult"]["resources"]] == ["Service", "Deployment"]
    assert not bench.argo.truth(PROD).runs("15")
    bench.passes(20)
    status = (await bench.application())["status"]
    assert status["operationState"]["phase"] == "Succeeded"
    assert status["operationState"]["syncResult"]["resources"][-1]["kind"] == "Ingress"
    assert [resource.get("syncWave") for resource in status["resources"]] == [None, None, 1]


async def test_a_sync_without_a_revision_goes_to_the_branch(bench: Bench) -> None:
    """The API looks the branch up at once, past every cache."""
    new = bench.promote("15")
    answer = await sync(bench)
    assert answer.json()["operation"]["sync"]["revision"] == new == head(bench.repository)
