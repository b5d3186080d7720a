"""Applications of the simulated Argo CD with several sources, in other namespaces, hydrated, and on rewound branches."""

import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from argocd_bench import APPLICATIONS, PROD, REPO_URL, Bench, fitting
from test_simulated_argocd_sync import sync

from bot.playground.argocd.server import SimulatedHydration, SimulatedSource
from bot.playground.repository import create_repository, head, read_file

SPEC = APPLICATIONS[2]
HYDRATED = replace(SPEC, hydration=SimulatedHydration(branch="environments/prod", path="prod"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


def two_sources(bench: Bench, **different: Any) -> Any:
    """An application whose chart is in one repository and whose values are in the bench's."""
    charts = create_repository(bench.folder / "charts")
    chart = SimulatedSource(
        repo_url="https://git.acme.example/team/charts.git",
        repository=charts,
        value_files=("$values/values-prod.yaml",),
    )
    values = SimulatedSource(repo_url=REPO_URL, ref="values")
    return replace(SPEC, sources=(chart, values), **different)


async def test_several_sources_have_a_revision_each(bench: Bench) -> None:
    """`sources` and `revisions` everywhere, in the same order; `source` and `revision` nowhere."""
    await bench.restart(bench.simulate([two_sources(bench)]))
    chart = head(bench.folder / "charts" / "manual-app-helm.git")
    new = await bench.deploy("15")
    shown = await bench.application()
    status = shown["status"]
    assert status["sync"]["revisions"] == [chart, new]
    assert status["sync"]["comparedTo"]["sources"] == shown["spec"]["sources"]
    assert shown["spec"]["sources"][1]["ref"] == "values"
    assert shown["spec"]["sources"][0]["helm"] == {"valueFiles": ["$values/values-prod.yaml"]}
    operation = status["operationState"]
    assert operation["operation"]["sync"]["revisions"] == [chart, new]
    assert operation["syncResult"]["revisions"] == [chart, new]
    assert [entry["revisions"][1] for entry in status["history"]][-1] == new
    told = [
        shown["spec"],
        status["sync"],
        status["sync"]["comparedTo"],
        operation["syncResult"],
        *status["history"],
    ]
    assert not [part for part in told if {"source", "revision"} & part.keys()]
    assert bench.argo.truth(PROD).runs("15")


async def test_a_sync_of_several_sources_names_positions_from_one(bench: Bench) -> None:
    """`sourcePositions` pair with `revisions`; sources that are not named are looked up."""
    await bench.restart(bench.simulate([two_sources(bench, automated=False)]))
    bench.argo.access.grant("applications, sync, default/*")
    old = head(bench.repository)
    await bench.deploy("15")
    answer = await sync(bench, sourcePositions=[2], revisions=[old])
    chart = head(bench.folder / "charts" / "manual-app-helm.git")
    assert fitting(answer.json(), "v1alpha1Application")["operation"]["sync"]["revisions"] == [chart, old]
    bench.passes(15)
    wrong = await sync(bench, sourcePositions=[3], revisions=[old])
    assert (wrong.status_code, wrong.json()["message"]) == (400, "source position is out of range")


async def test_the_same_name_lives_in_two_namespaces(bench: Bench) -> None:
    """Each has its own objects, operations and rights; the namespace tells them apart."""
    twin = replace(SPEC, namespace="team-a", destination_namespace="elsewhere")
    await bench.restart(bench.simulate([SPEC, twin]))
    bench.argo.fail_next_sync(f"team-a/{PROD}", "quota exceeded")
    new = bench.promote("15")
    await bench.refresh()
    bench.passes(200)
    here = (await bench.application())["status"]
    there = (await bench.application(appNamespace="team-a"))["status"]
    assert (here["operationState"]["phase"], there["operationState"]["phase"]) == ("Succeeded", "Failed")
    assert (here["sync"]["revision"], there["sync"]["revision"]) == (new, new)
    assert bench.argo.truth(PROD).runs("15")
    assert bench.argo.truth(f"team-a/{PROD}").runs("14")
    right = f"account/can-i/applications/get/default/team-a/{PROD}"
    assert (await bench.call(right)).json() == {"value": "yes"}
    listed = (await bench.call("applications", name=PROD)).json()["items"]
    assert [item["metadata"]["namespace"] for item in listed] == ["argocd", "team-a"]


async def test_an_application_can_move_to_another_project(bench: Bench) -> None:
    """From one request to the next the old project has no such application, and the new one has."""
    await bench.restart(bench.simulate([SPEC, APPLICATIONS[0], replace(APPLICATIONS[1], project="other")]))
    bench.argo.change(PROD, project="other")
    assert (await bench.call(f"applications/{PROD}", project="default")).status_code == 404
    moved = await bench.call(f"applications/{PROD}", project="other")
    assert fitting(moved.json(), "v1alpha1Application")["spec"]["project"] == "other"


async def test_a_changed_spec_is_compared_a_moment_later(bench: Bench) -> None:
    """Until then `comparedTo` is the spec of before, at the revision of before."""
    bench._git("push", "--quiet", "origin", "HEAD:release")
    new = bench.promote("15")
    bench._git("push", "--quiet", "origin", "HEAD~1:release", "--force")
    bench.argo.change(PROD, branch="release")
    shown = await bench.application()
    assert shown["spec"]["source"]["targetRevision"] == "release"
    assert shown["status"]["sync"]["comparedTo"]["source"]["targetRevision"] == "main"
    bench.passes(1)
    sync_status = (await bench.application())["status"]["sync"]
    assert sync_status["comparedTo"]["source"]["targetRevision"] == "release"
    assert sync_status["revision"] == head(bench.repository, "release") != new


@pytest.mark.parametrize("branch", ["HEAD", "refs/heads/main"])
async def test_a_branch_has_several_names(bench: Bench, branch: str) -> None:
    """`HEAD` is the default branch."""
    bench.argo.change(PROD, branch=branch)
    bench.passes(1)
    assert (await bench.application())["status"]["sync"]["revision"] == head(bench.repository)


async def test_a_pinned_commit_never_moves(bench: Bench) -> None:
    """An application that tracks a commit stays Synced there, whatever the branch does."""
    old = head(bench.repository)
    bench.argo.change(PROD, branch=old)
    await bench.deploy("15")
    status = (await bench.application())["status"]["sync"]
    assert (status["revision"], status["status"]) == (old, "Synced")
    assert bench.argo.truth(PROD).runs("14")


async def test_a_rewound_branch_is_deployed_again(bench: Bench) -> None:
    """After a force-push the older commit is the newest one: auto-sync goes back to it, and the pushed one is lost."""
    old = head(bench.repository)
    await bench.deploy("15")
    bench._git("push", "--quiet", "--force", "origin", f"{old}:main")
    await bench.refresh()
    bench.passes(15)
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", old)
    assert [entry["revision"] for entry in status["history"]][-1] == old
    assert bench.argo.truth(PROD).runs("14")


async def test_a_hydrated_application_syncs_another_commit_than_the_one_pushed(bench: Bench) -> None:
    """The dry commit is rendered, the manifests are pushed, and that commit is what status.sync names."""
    await bench.restart(bench.simulate([HYDRATED]))
    before = (await bench.application())["status"]["sync"]["revision"]
    dry = bench.promote("15")
    shown = await bench.refresh()
    current = shown["status"]["sourceHydrator"]["currentOperation"]
    assert (current["phase"], current["drySHA"], "hydratedSHA" in current) == ("Hydrating", dry, False)
    assert shown["status"]["sync"]["revision"] == before
    bench.passes(15)
    shown = await bench.application()
    assert "source" not in shown["spec"]
    done = shown["status"]["sourceHydrator"]
    hydrated = done["currentOperation"]["hydratedSHA"]
    assert (done["currentOperation"]["phase"], hydrated) == (
        "Hydrated",
        head(bench.repository, "environments/prod"),
    )
    last = done["lastSuccessfulOperation"]
    assert (last["drySHA"], last["hydratedSHA"]) == (dry, hydrated)
    assert hydrated not in {dry, before}
    status = shown["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", hydrated)
    assert status["sync"]["comparedTo"]["source"]["targetRevision"] == "environments/prod"
    assert status["history"][-1]["revision"] == hydrated
    assert "manual-app:15" in read_file(bench.repository, "prod/manifest.yaml", hydrated)
    assert bench.argo.truth(PROD).runs("15")


async def test_what_cannot_be_rendered_is_not_hydrated(bench: Bench) -> None:
    """The operation is Failed with helm's words, the last success stands, and the branch stays where it was."""
    await bench.restart(bench.simulate([HYDRATED]))
    before = head(bench.repository, "environments/prod")
    bench.commit("values-prod.yaml", 'tag: "14"', "tag: a: b")
    await bench.refresh()
    bench.passes(5)
    status = (await bench.application())["status"]
    hydrator = status["sourceHydrator"]
    assert hydrator["currentOperation"]["phase"] == "Failed"
    assert "mapping values" in hydrator["currentOperation"]["message"]
    assert (
        hydrator["lastSuccessfulOperation"]["hydratedSHA"]
        == before
        == head(bench.repository, "environments/prod")
    )
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("Synced", before)


async def test_hydrating_leaves_the_working_branch_alone(bench: Bench) -> None:
    """The hydrated branch has a history of its own, without the chart."""
    await bench.restart(bench.simulate([HYDRATED]))
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "environments/prod"],
        cwd=bench.repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == ["prod/hydrator.metadata", "prod/manifest.yaml"]
    assert not list(bench.repository.glob("*.index"))
