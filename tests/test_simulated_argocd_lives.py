"""Applications of the simulated Argo CD that come and go, and those that an ApplicationSet owns."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench, fitting

from bot.playground.argocd.server import SimulatedApplicationSet, SimulatedArgoCD

DEV, STAGE = "manual-app-dev", "manual-app-stage"
OWNED = [replace(spec, application_set="manual-app") for spec in APPLICATIONS]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


async def with_set(bench: Bench, *steps: tuple[str, ...]) -> None:
    """Let the applications be owned by an ApplicationSet that the account may read."""
    argo = SimulatedArgoCD(
        repository=bench.repository,
        token=TOKEN,
        applications=OWNED,
        application_sets=[SimulatedApplicationSet(name="manual-app", steps=steps)],
        now=lambda: bench.now,
    )
    await bench.restart(argo)
    argo.access.grant("applicationsets, get, default/*")


async def statuses(bench: Bench) -> dict[str, Any]:
    """The rolling sync's word for each application."""
    shown = fitting((await bench.call("applicationsets/manual-app")).json(), "v1alpha1ApplicationSet")
    return {told["application"]: told["status"] for told in shown["status"]["applicationStatus"]}


async def test_owned_applications_name_their_owner(bench: Bench) -> None:
    """A set without steps changes nothing else: auto-sync is on."""
    await with_set(bench)
    shown = await bench.application()
    (owner,) = shown["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ApplicationSet", "manual-app", True)
    assert "automated" in shown["spec"]["syncPolicy"]
    described = fitting((await bench.call("applicationsets/manual-app")).json(), "v1alpha1ApplicationSet")
    assert described["metadata"]["uid"] == owner["uid"]
    assert "strategy" not in described["spec"]


async def test_a_rolling_set_syncs_step_by_step(bench: Bench) -> None:
    """Auto-sync is off; the next step's operations begin when the step before is healthy, by its controller."""
    await with_set(bench, (DEV, STAGE), (PROD,))
    for environment in ("dev", "stage", "prod"):
        new = bench.promote("15", environment=environment)
    for name in (DEV, STAGE, PROD):
        await bench.refresh(name)
    bench.passes(1)
    assert await statuses(bench) == {DEV: "Progressing", STAGE: "Progressing", PROD: "Waiting"}
    shown = await bench.application()
    assert "automated" not in shown["spec"]["syncPolicy"]
    assert (shown["status"]["sync"]["status"], shown["status"]["sync"]["revision"]) == ("OutOfSync", new)
    assert "operation" not in shown
    assert bench.argo.truth(PROD).runs("14")
    bench.passes(60)
    assert set((await statuses(bench)).values()) == {"Healthy"}
    state = (await bench.application())["status"]["operationState"]
    initiator = {"username": "applicationset-controller", "automated": True}
    assert state["operation"]["initiatedBy"] == initiator
    assert state["syncResult"]["revision"] == new
    assert "revision" not in state["operation"]["sync"]
    assert bench.argo.truth(PROD).runs("15")


async def test_a_step_waits_for_an_unhealthy_one(bench: Bench) -> None:
    """A crash in the first step holds the second one for as long as it lasts."""
    await with_set(bench, (DEV,), (PROD,))
    bench.argo.degrade_next_rollout(DEV)
    bench.promote("15", environment="dev")
    bench.promote("15")
    await bench.refresh(DEV)
    await bench.refresh()
    bench.passes(900)
    assert await statuses(bench) == {DEV: "Progressing", PROD: "Waiting"}
    shown = (await bench.call("applicationsets/manual-app")).json()
    steps = {told["application"]: told["step"] for told in shown["status"]["applicationStatus"]}
    assert steps == {DEV: "1", PROD: "2"}
    bench.argo.recover(DEV)
    bench.passes(60)
    assert bench.argo.truth(PROD).runs("15")


async def test_reading_a_set_is_a_right_of_its_own(bench: Bench) -> None:
    """403 with the long words without it; with it, 404 for a set that is missing or elsewhere."""
    await with_set(bench)
    missing = await bench.call("applicationsets/other")
    assert (missing.status_code, missing.json()["message"]) == (
        404,
        'applicationsets.argoproj.io "other" not found',
    )
    assert (await bench.call("applicationsets/manual-app", appsetNamespace="x")).status_code == 404
    bench.argo.access.revoke("applicationsets, get, default/*")
    refused = await bench.call("applicationsets/manual-app")
    text = "permission denied: applicationsets, get, default/manual-app, sub: promote-bot, iat: "
    assert refused.status_code == 403
    assert fitting(refused.json(), "runtimeError")["message"].startswith(text)


async def test_an_application_can_appear_late(bench: Bench) -> None:
    """Missing before; then never compared; then deployed like any other, and polled from then on."""
    await bench.restart(bench.simulate(APPLICATIONS[:2]))
    assert (await bench.call(f"applications/{PROD}", project="default")).status_code == 404
    bench.argo.add(APPLICATIONS[2])
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["health"], "reconciledAt" in status) == ("", {}, False)
    bench.passes(1)
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["health"]["status"]) == ("OutOfSync", "Missing")
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("14")
    bench.promote("15")
    bench.passes(400)
    assert bench.argo.truth(PROD).runs("15")


async def test_a_deleted_application_is_marked_and_then_gone(bench: Bench) -> None:
    """Marked at once and still readable; when its objects are gone, so is it."""
    bench.argo.delete(PROD)
    shown = await bench.application()
    assert shown["metadata"]["deletionTimestamp"] == "2026-08-24T09:00:00Z"
    bench.passes(3)
    assert (await bench.call(f"applications/{PROD}", project="default")).status_code == 404
    assert [line["name"] for line in bench.argo.snapshot()] == [DEV, STAGE]
    assert not bench.argo.world.cluster.owned(PROD)
    bench.passes(600)


async def test_a_deleted_application_is_not_synced(bench: Bench) -> None:
    """Between the mark and the end a new commit begins nothing."""
    bench.promote("15")
    bench.argo.delete(PROD)
    shown = await bench.refresh()
    assert shown["status"]["sync"]["status"] == "OutOfSync"
    assert "operation" not in shown
