"""The rarer kinds of applications, through the simulated Argo CD: what the bot says is what the cluster does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argocd_bench import APPLICATIONS, PROD, REPO_URL, TOKEN, Bench, wait_until
from rollout_cases import APPLICATION, IMAGE, TARGET
from test_argocd import Follower

from bot.core.errors import Refused
from bot.core.progress import Stage
from bot.integrations import argocd_sync
from bot.integrations.argocd import ArgoCD, Server
from bot.playground.argocd.server import (
    SimulatedApplication,
    SimulatedApplicationSet,
    SimulatedHydration,
    SimulatedSource,
    SyncWindow,
)
from bot.playground.repository import create_repository

SPEC = APPLICATIONS[2]
MANUAL = replace(SPEC, automated=False)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


async def client(bench: Bench, *specs: SimulatedApplication) -> ArgoCD:
    """A client for a simulation of these applications."""
    await bench.restart(bench.simulate(list(specs)))
    return client_of(bench)


def client_of(bench: Bench) -> ArgoCD:
    return ArgoCD(servers={"main": Server(url=bench.argo.url, token=TOKEN)}, now=lambda: bench.now)


async def while_time_passes(bench: Bench, work: Any) -> Any:
    """What `work` returns; the simulation's time passes as it waits."""
    task = asyncio.create_task(work)
    while not task.done():
        bench.passes(0.05)
        await asyncio.sleep(0.002)
    return task.result()


async def test_a_chart_with_our_values_beside_it_goes_live(bench: Bench) -> None:
    """The chart's own revision says nothing; that of the values does."""
    chart = SimulatedSource(
        repo_url="https://git.acme.example/team/charts.git",
        repository=create_repository(bench.folder / "charts"),
        value_files=("$values/values-prod.yaml",),
    )
    argo = await client(
        bench, replace(SPEC, sources=(chart, SimulatedSource(repo_url=REPO_URL, ref="values")))
    )
    progress = await Follower(bench=bench, argo=argo, commit=bench.promote("15")).to_the_end()
    await argo.aclose()
    assert (progress.stage, progress.says) == (Stage.LIVE, "synced and healthy, every pod runs it")
    assert bench.argo.truth(PROD).runs("15")


async def test_a_hydrated_application_goes_live(bench: Bench) -> None:
    """What is synced is another commit on another branch, made of ours."""
    hydrated = replace(SPEC, hydration=SimulatedHydration(branch="environments/prod", path="prod"))
    argo = await client(bench, hydrated)
    progress = await Follower(bench=bench, argo=argo, commit=bench.promote("15")).to_the_end()
    await argo.aclose()
    assert progress.stage is Stage.LIVE, progress.says
    assert bench.argo.truth(PROD).runs("15")


async def test_a_window_is_waited_for_until_it_opens(bench: Bench) -> None:
    """The time that is told is the time when it goes on."""
    argo = await client(bench, SPEC)
    bench.argo.windows["default"] = [SyncWindow(kind="deny", schedule="0 9 * * *", duration="1h")]
    bench.passes(1)
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))
    told = []

    def note(stage: Stage) -> None:
        if stage is Stage.CLOSED and follower.progress:
            told.append(follower.progress.says)

    progress = await follower.to_the_end(note)
    await argo.aclose()
    assert told == ["a sync window keeps Argo CD from syncing until 10:00 UTC, 24 Aug"]
    assert progress.stage is Stage.LIVE, progress.says
    assert bench.now.hour == 10


async def test_a_rolling_sync_is_told_by_its_step(bench: Bench) -> None:
    """The application waits for its turn, and nobody has to press Sync."""
    members = [replace(spec, automated=False, application_set="shop") for spec in APPLICATIONS]
    steps = [[spec.name] for spec in members]
    await bench.argo.stop()
    bench.argo = type(bench.argo)(
        repository=bench.repository,
        token=TOKEN,
        applications=members,
        application_sets=[SimulatedApplicationSet(name="shop", steps=steps)],
        now=lambda: bench.now,
    )
    await bench.argo.start(background=False)
    bench.argo.access.grant("applicationsets, get, default/*")
    bench.commit("values-dev.yaml", 'tag: "14"', 'tag: "15"')
    commit = bench.promote("15")
    argo = client_of(bench)
    for name in ("manual-app-dev", PROD):
        bench.argo.refresh(name, "normal")
    bench.passes(1)
    waiting = await argo.observe(TARGET, APPLICATION, refresh=False)
    assert waiting.revision == commit
    assert waiting.rolls_with == "step 3 of the ApplicationSet shop: Waiting"
    assert not waiting.may_sync
    await argo.aclose()


async def test_a_manual_application_is_rehearsed_and_synced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rehearsal changes nothing; the sync does, once, and carries the promotion's id."""
    monkeypatch.setattr(argocd_sync, "LOOK_EVERY", 0.01)
    argo = await client(bench, MANUAL)
    bench.argo.access.grant("applications, sync, default/*")
    commit = bench.promote("15")
    await while_time_passes(bench, argo.observe(TARGET, APPLICATION, refresh=True))
    seen = await argo.observe(TARGET, APPLICATION, refresh=False)
    assert (seen.sync, seen.automated, seen.may_sync) == ("OutOfSync", False, True)
    changes = await while_time_passes(bench, argo.rehearse(APPLICATION, revision=commit))
    assert f"Deployment/{PROD}" in changes
    assert bench.argo.truth(PROD).runs("14")
    for _ in range(2):
        await argo.sync(APPLICATION, revision=commit, promotion="pr-7")
    assert [request.method for request in bench.argo.requests].count("POST") == 2
    shown = await bench.application()
    assert {"name": "promote-bot/promotion", "value": "pr-7"} in shown["operation"]["info"]
    bench.passes(30)
    assert bench.argo.truth(PROD).runs("15")
    await argo.aclose()


@pytest.mark.parametrize(
    ("spec", "granted", "windows", "says"),
    [
        (MANUAL, False, [], "Give the bot's account applications, sync, default/manual-app-prod"),
        (
            MANUAL,
            True,
            [SyncWindow(kind="deny", schedule="0 8 * * *", duration="3h")],
            "blocked by sync window. Wait",
        ),
        (SPEC, True, [], "auto-sync currently set to main"),
    ],
    ids=["no right", "window", "automated"],
)
async def test_a_sync_that_argo_cd_refuses_changes_nothing(
    bench: Bench, spec: SimulatedApplication, granted: bool, windows: list[SyncWindow], says: str
) -> None:
    """And the person hears why."""
    argo = await client(bench, spec)
    if granted:
        bench.argo.access.grant("applications, sync, default/*")
    bench.argo.windows["default"] = windows
    commit = bench.promote("15")
    await while_time_passes(bench, argo.observe(TARGET, APPLICATION, refresh=True))
    with pytest.raises(Refused, match=says):
        await argo.sync(APPLICATION, revision=commit, promotion="pr-7")
    await argo.aclose()
    operation = (await bench.application()).get("operation", {})  # Argo CD's own, where it syncs by itself
    assert not operation.get("info")


async def test_the_stream_hints_at_what_moves(bench: Bench) -> None:
    """Not at what was there when it began."""
    argo = client_of(bench)
    heard: list[tuple[str, str]] = []

    async def listen() -> None:
        async for hint in argo.hints("main", ["default"]):
            heard.append(hint)  # noqa: PERF401 - the list is looked at meanwhile

    listener = asyncio.create_task(listen())
    await wait_until(lambda: any("stream" in request.path for request in bench.argo.requests), "it listens")
    bench.promote("15")
    bench.argo.refresh(PROD, "normal")
    for _ in range(20):
        bench.passes(0.1)
        await asyncio.sleep(0.01)
    await wait_until(lambda: heard, "a hint")
    listener.cancel()
    await asyncio.wait([listener])
    await argo.aclose()
    assert set(heard) == {("argocd", PROD)}


async def test_the_digests_of_the_pods_are_told(bench: Bench) -> None:
    """What runs is what the registry calls it, not only a tag."""
    argo = client_of(bench)
    pinned = replace(TARGET, digests=("image.digest",))
    found = await argo.observe(pinned, APPLICATION, refresh=False)
    await argo.aclose()
    assert found.workloads
    assert all(image.startswith(IMAGE) for pod in found.workloads.pods for image in pod.images)
    assert all(digest.startswith("sha256:") for pod in found.workloads.pods for digest in pod.digests)
    assert any(pod.digests for pod in found.workloads.pods)


async def test_the_rights_are_those_of_the_account(bench: Bench) -> None:
    """As the server itself says them."""
    argo = client_of(bench)
    bench.argo.access.grant("logs, get, default/*")
    rights = await argo.rights(APPLICATION)
    await argo.aclose()
    assert [right.is_granted for right in rights] == [True, False, True, False]
