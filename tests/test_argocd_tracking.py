"""Which sources of an application are ours, and which of our commits its revisions stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import LATER, OLD, OURS, TARGET

from bot.core.facts import ApplicationFacts
from bot.integrations.argocd_facts import read_application

VALUES = replace(TARGET, path="envs/prod/values.yaml")
OUR_URL = "https://git.acme.example/team/manual-app-helm.git"
CHART = {
    "repoURL": "https://charts.acme.example",
    "chart": "app",
    "targetRevision": "1.4.2",
    "helm": {"valueFiles": ["$values/envs/prod/values.yaml"]},
}
LENDER = {"repoURL": OUR_URL, "targetRevision": "main", "ref": "values"}
PLAIN = {"repoURL": OUR_URL, "targetRevision": "main", "path": "envs/prod"}


def read(sources: list[dict[str, Any]], **status: Any) -> ApplicationFacts:
    answer = {"metadata": {"name": "manual-app-prod"}, "spec": {"sources": sources}, "status": status}
    return read_application(answer, VALUES)


TRACKS: dict[str, tuple[list[dict[str, Any]], str | None]] = {
    "a chart with our values": ([CHART, LENDER], None),
    "in any order": ([LENDER, CHART], None),
    "our manifests beside others": ([CHART | {"helm": None}, PLAIN], None),
    "values of another environment": (
        [CHART | {"helm": {"valueFiles": ["$values/envs/dev/values.yaml"]}}, LENDER],
        "$values/envs/dev/values.yaml of the chart app, not envs/prod/values.yaml",
    ),
    "values by a variable": (
        [CHART | {"helm": {"valueFiles": ["$values/envs/$ENV/values.yaml"]}}, LENDER],
        None,
    ),
    "values of another repository": (
        [CHART, LENDER | {"repoURL": "https://git.acme.example/other"}, PLAIN | {"path": "docs"}],
        "$values/envs/prod/values.yaml of the chart app and the folder docs, not envs/prod/values.yaml",
    ),
    "values of another branch": (
        [CHART, LENDER | {"targetRevision": "v1"}],
        (
            "charts.acme.example at 1.4.2 and git.acme.example/team/manual-app-helm at v1, "
            "not the branch main of git.acme.example/team/manual-app-helm"
        ),
    ),
    "files that are lent to nobody": (
        [CHART | {"helm": None}, LENDER],
        "the chart app, not envs/prod/values.yaml",
    ),
    "a source that lends and renders": ([CHART | {"helm": None}, LENDER | {"path": "envs"}], None),
    "lent files beside its own": (
        [PLAIN | {"path": "app", "helm": {"valueFiles": ["$values/envs/prod/values.yaml"]}}, LENDER],
        None,
    ),
    "lent files that only look like a variable": (
        [PLAIN | {"path": "app", "helm": {"valueFiles": ["$other/x.yaml"]}}, LENDER | {"ref": "other"}],
        "$other/x.yaml of the folder app, not envs/prod/values.yaml",
    ),
}


@pytest.mark.parametrize(("sources", "tracks"), TRACKS.values(), ids=TRACKS.keys())
def test_of_several_sources_one_must_render_our_file(
    sources: list[dict[str, Any]], tracks: str | None
) -> None:
    """Its own, or one that it reads by the name that another source gave to our repository."""
    assert read(sources).tracks == tracks


def test_of_several_sources_ours_tells_the_commit() -> None:
    """In the comparison, in the operation's result, in its request, and in the history."""
    state = {"phase": "Running", "operation": {"sync": {"revisions": ["1.4.2", LATER]}}}
    found = read(
        [CHART, LENDER],
        sync={"revisions": ["1.4.2", OURS], "comparedTo": {"sources": [CHART, LENDER]}},
        operationState=state,
        history=[{"revisions": ["1.4.1", OLD]}],
    )
    assert (found.revision, found.history_revision, found.compares_spec) == (OURS, OLD, True)
    assert found.operation
    assert found.operation.revision == LATER
    done = read([CHART, LENDER], operationState=state | {"syncResult": {"revisions": ["1.4.2", OURS]}})
    assert done.operation
    assert done.operation.revision == OURS


def test_a_comparison_with_other_sources_does_not_count() -> None:
    """Somebody changed the list since."""
    compared = {"sources": [CHART | {"targetRevision": "1.4.1"}, LENDER]}
    assert not read([CHART, LENDER], sync={"comparedTo": compared}).compares_spec
    assert not read([CHART, LENDER], sync={"comparedTo": {"source": CHART}}).compares_spec


@given(st.lists(st.sampled_from([OLD, OURS, "main", ""]), max_size=4), st.lists(st.booleans(), max_size=4))
def test_sources_that_are_ours_must_agree(revisions: list[str], ours: list[bool]) -> None:
    """Two looks at one branch may differ while Argo CD resolves it: then nothing is known; others do not matter."""
    sources = [PLAIN if is_ours else CHART for is_ours in ours]
    named = {revision for revision, is_ours in zip(revisions, ours, strict=False) if is_ours}
    found = read(sources, sync={"revisions": revisions}).revision if sources else None
    assert found == (named.pop() if len(named) == 1 and named <= {OLD, OURS} else None)


DRY = {"repoURL": OUR_URL, "targetRevision": "main", "path": "envs/prod"}
HYDRATOR = {"drySource": DRY, "syncSource": {"targetBranch": "rendered/prod", "path": "app"}}
RENDERED = {"repoURL": OUR_URL, "targetRevision": "rendered/prod", "path": "app"}
HYDRATED, HYDRATED_BEFORE = "e" * 40, "f" * 40


def hydrated(
    hydrator: dict[str, Any] | None = None, rendered_with: Any = None, current: Any = None, **status: Any
) -> ApplicationFacts:
    """An application whose hydrator rendered our commit last."""
    done = {"drySHA": OURS, "hydratedSHA": HYDRATED, "sourceHydrator": rendered_with or HYDRATOR}
    answer = {
        "metadata": {"name": "manual-app-prod"},
        "spec": {"sourceHydrator": hydrator or HYDRATOR},
        "status": status | {"sourceHydrator": {"lastSuccessfulOperation": done, "currentOperation": current}},
    }
    return read_application(answer, VALUES)


def test_a_hydrated_commit_stands_for_the_one_it_was_rendered_from() -> None:
    """In the comparison, the operation and the history; one that nobody can place stands for none."""
    state = {"phase": "Succeeded", "operation": {"sync": {}}, "syncResult": {"revision": HYDRATED}}
    found = hydrated(
        sync={"revision": HYDRATED, "comparedTo": {"source": RENDERED}},
        operationState=state,
        history=[{"revision": HYDRATED}],
    )
    assert (found.tracks, found.revision, found.history_revision) == (None, OURS, OURS)
    assert found.compares_spec
    assert found.operation
    assert found.operation.revision == OURS
    before = hydrated(sync={"revision": HYDRATED_BEFORE}, history=[{"revision": OURS}])
    assert (before.revision, before.history_revision) == (None, None)


def test_a_hydrator_is_judged_by_what_it_renders() -> None:
    """Its own branch is never ours."""
    other = HYDRATOR | {"drySource": DRY | {"targetRevision": "v1"}}
    assert hydrated(other).tracks == "v1, not the branch main"
    elsewhere = HYDRATOR | {"drySource": DRY | {"path": "envs/dev"}}
    assert hydrated(elsewhere).tracks == "the folder envs/dev, not envs/prod/values.yaml"


def test_a_hydrator_with_new_settings_has_to_render_and_compare_anew() -> None:
    """What it made before stands for other settings."""
    moved = HYDRATOR | {"syncSource": {"targetBranch": "rendered/prod", "path": "other"}}
    assert not hydrated(moved, sync={"comparedTo": {"source": RENDERED | {"path": "other"}}}).compares_spec
    assert not hydrated(sync={"comparedTo": {"source": RENDERED | {"path": "other"}}}).compares_spec


def test_a_hydrator_may_write_into_another_repository() -> None:
    """What is compared then comes from there."""
    url = "https://git.acme.example/rendered"
    apart = HYDRATOR | {"syncSource": {"targetBranch": "rendered/prod", "path": "app", "repoURL": url}}
    there = {"comparedTo": {"source": RENDERED | {"repoURL": url}}}
    assert hydrated(apart, rendered_with=apart, sync=there).compares_spec
    assert not hydrated(apart, rendered_with=apart, sync={"comparedTo": {"source": RENDERED}}).compares_spec


def test_a_hydrator_that_fails_is_an_error() -> None:
    """No condition tells it; one that works is none."""
    failed = {"phase": "Failed", "message": "helm template failed", "drySHA": OURS}
    assert hydrated(current=failed).errors == ("the source hydrator failed: helm template failed",)
    assert hydrated(current={"phase": "Hydrating", "message": "working"}).errors == ()
