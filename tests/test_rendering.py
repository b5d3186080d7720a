"""What an Application renders from: places of our repository, texts of its own, and what nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import LATER, OLD, OURS, TARGET

from bot.integrations.argocd_rendering import GENERATED_FROM, Rendering, read_rendering

URL = "https://git.acme.example/team/manual-app-helm.git"
CHARTS = {"repoURL": "https://charts.acme.example", "chart": "app", "targetRevision": "1.4.2"}
LENDER = {"repoURL": URL, "targetRevision": "main", "ref": "values"}


def source(path: str = ".", *value_files: str, **more: Any) -> dict[str, Any]:
    """One source that is the target's branch."""
    helm = {"helm": {"valueFiles": list(value_files)}} if value_files else {}
    return {"repoURL": URL, "targetRevision": "main", "path": path, **helm, **more}


def read(*sources: dict[str, Any], file: str = "values-prod.yaml", **changes: Any) -> Rendering:
    """What an application of these sources renders from that is synced to OURS and was deployed at OLD."""
    several = len(sources) > 1
    spec = {"sources": list(sources)} if several else {"source": sources[0]}
    named = {"revisions": [OURS] * len(sources)} if several else {"revision": OURS}
    before = {"revisions": [OLD] * len(sources)} if several else {"revision": OLD}
    answer = {
        "metadata": {
            "name": "manual-app-prod",
            "namespace": "team-a",
            "annotations": {GENERATED_FROM: changes.pop("annotation", "")},
        },
        "spec": spec | {"syncPolicy": {"automated": changes.pop("automated", None)}},
        "status": {
            "sync": {"status": changes.pop("sync", "Synced"), "comparedTo": spec, **named},
            "history": changes.pop("history", [before]),
        },
    }
    assert not changes
    return read_rendering(answer, replace(TARGET, path=file))


def overrides(folder: str = "") -> set[str]:
    names = ("", "-manual-app-prod", "-team-a_manual-app-prod")
    return {f"{folder}.argocd-source{name}.yaml" for name in names}


def test_a_chart_is_read_with_the_values_files_that_are_named() -> None:
    """Relative to its folder, from the top with a slash, and never from above the top."""
    found = read(
        source("chart", "../envs/prod.yaml", "/common.yaml", "../../../top.yaml"), file="envs/prod.yaml"
    )
    assert (found.unknown, found.folders, found.charts) == ("", (), ("chart",))
    wanted = {"chart/values.yaml", "envs/prod.yaml", "common.yaml", "top.yaml"}
    assert set(found.files) == wanted | overrides("chart/")


def test_without_a_list_of_values_files_the_whole_folder_counts() -> None:
    """Nobody says then which of its files are rendered."""
    found = read(source("overlays/prod/"), file="overlays/prod/kustomization.yaml")
    assert (found.folders, found.charts) == (("overlays/prod",), ())
    assert found.reads("overlays/prod/anything.yaml")
    assert not found.reads("overlays/production/anything.yaml")


def test_values_files_of_others_lie_beside_a_chart() -> None:
    """What helm reads of every chart is read; another values file is not."""
    found = read(source("", "values-prod.yaml"))
    assert found.charts == ("",)
    assert found.reads("templates/deployment.yaml")
    assert found.reads("charts/redis/values.yaml")
    assert found.reads("values.yaml")
    assert not found.reads("values-dev.yaml")
    assert not found.reads(".argocd-source-manual-app-dev.yaml")


@pytest.mark.parametrize(
    ("file", "folder"),
    [("envs/$ARGOCD_APP_NAME/values.yaml", "envs"), ("values-*.yaml", ""), ("/a/b-${X}/c.yaml", "a")],
)
def test_a_file_with_a_variable_or_a_pattern_may_be_any(file: str, folder: str) -> None:
    """The folder before the first part that is not known counts whole."""
    found = read(source("", file), file="values-prod.yaml" if not folder else f"{folder}/x.yaml")
    assert folder in found.folders
    assert not any("$" in place or "*" in place for place in found.places)


def test_files_are_lent_by_the_name_of_a_source() -> None:
    """They are counted from the top of our repository, whatever the path of the source that reads them."""
    chart = CHARTS | {
        "helm": {
            "valueFiles": ["$values/envs/prod/values.yaml", "own.yaml"],
            "fileParameters": [{"name": "conf", "path": "$values/conf/prod.json"}],
        }
    }
    found = read(chart, LENDER, file="envs/prod/values.yaml")
    assert (found.unknown, found.folders, found.charts) == ("", (), ())
    assert set(found.files) == {"envs/prod/values.yaml", "conf/prod.json"}


def test_files_that_another_repository_lends_are_not_looked_for_in_ours() -> None:
    """A chart of ours may read values that are kept elsewhere."""
    elsewhere = LENDER | {
        "repoURL": "https://git.acme.example/other",
        "targetRevision": "v1.0.0",
        "ref": "other",
    }
    found = read(source("chart", "$other/prod.yaml", "/values-prod.yaml"), elsewhere)
    assert found.unknown == ""
    assert set(found.files) == {"chart/values.yaml", "values-prod.yaml"} | overrides("chart/")


def test_what_else_is_named_is_watched_too() -> None:
    """Components, libraries, files for parameters, the annotation; a plugin may read whatever there is."""
    more = {
        "kustomize": {"components": ["../../components/tls"]},
        "directory": {"jsonnet": {"libs": ["vendor"]}},
        "helm": {"fileParameters": [{"name": "a", "path": "../a.json"}]},
    }
    found = read(
        source("overlays/prod", **more), file="overlays/prod/x.yaml", annotation=".;/shared;../base/*.yaml"
    )
    folders = {"overlays/prod", "components/tls", "vendor", "shared", "overlays/base"}
    assert set(found.folders) == folders
    assert "overlays/a.json" in found.files
    assert "" in read(source("app", plugin={"name": "x"}), file="app/x.yaml").folders


def test_a_hydrated_application_renders_from_its_dry_source() -> None:
    """The commit is the one that was hydrated, not the one of the branch with the manifests."""
    dry = {
        "repoURL": URL,
        "targetRevision": "main",
        "path": ".",
        "helm": {"valueFiles": ["values-prod.yaml"]},
    }
    hydrator = {"drySource": dry, "syncSource": {"targetBranch": "env/prod", "path": "prod"}}
    compared = {"repoURL": URL, "targetRevision": "env/prod", "path": "prod"}
    answer = {
        "metadata": {"name": "manual-app-prod"},
        "spec": {"sourceHydrator": hydrator},
        "status": {
            "sync": {"status": "Synced", "revision": LATER, "comparedTo": {"source": compared}},
            "sourceHydrator": {"lastSuccessfulOperation": {"drySHA": OURS, "hydratedSHA": LATER}},
        },
    }
    found = read_rendering(answer, TARGET)
    assert (found.unknown, found.revision, found.charts) == ("", OURS, ("",))


def test_what_runs_is_what_was_compared_only_where_nothing_differs() -> None:
    """An application that waits for a sync still runs what was synced last."""
    assert read(source("", "values-prod.yaml")).revision == OURS
    assert read(source("", "values-prod.yaml"), sync="OutOfSync").revision == OLD
    never = read(source("", "values-prod.yaml"), sync="OutOfSync", history=[])
    assert (never.revision, never.unknown) == (None, "manual-app-prod does not say which commit runs")


def test_automated_sync_is_told() -> None:
    """Also where it is switched off in place."""
    assert not read(source("", "values-prod.yaml")).syncs_by_itself
    assert read(source("", "values-prod.yaml"), automated={"prune": True}).syncs_by_itself
    assert not read(source("", "values-prod.yaml"), automated={"enabled": False}).syncs_by_itself


UNKNOWN: dict[str, tuple[list[dict[str, Any]], str]] = {
    "another branch": (
        [source("", "values-prod.yaml") | {"targetRevision": "release"}],
        "manual-app-prod tracks release, not the branch main",
    ),
    "a chart that moves": (
        [CHARTS | {"targetRevision": "1.*", "helm": {"valueFiles": ["$values/values-prod.yaml"]}}, LENDER],
        "manual-app-prod also renders from charts.acme.example at 1.*, which I do not read",
    ),
    "another repository's branch": (
        [source("", "values-prod.yaml"), {"repoURL": "https://git.acme.example/other", "path": "x"}],
        "manual-app-prod also renders from git.acme.example/other at HEAD, which I do not read",
    ),
    "a file that is fetched": (
        [source("", "values-prod.yaml", "https://files.acme.example/x.yaml")],
        "manual-app-prod also renders from https://files.acme.example/x.yaml, which I do not read",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_moves_elsewhere_is_unknown(name: str) -> None:
    """What the bot does not read is never taken for nothing."""
    sources, says = UNKNOWN[name]
    assert read(*sources).unknown == says


JSON = st.recursive(
    st.text(max_size=3) | st.integers(), lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(values=st.dictionaries(st.sampled_from("abcdef"), JSON, min_size=1), other=JSON)
def test_the_text_of_the_application_says_what_stands_in_it(values: dict[str, Any], other: Any) -> None:
    """The same in another order gives the same text; another value, file names apart, another text."""

    def inline(values: dict[str, Any], *files: str) -> str:
        helm = {"valueFiles": ["values-prod.yaml", *files], "valuesObject": values}
        return read(source("") | {"helm": helm}).inline

    text = inline(values)
    assert text == inline(dict(reversed(values.items())), "more.yaml")
    changed = values | {"a": other}
    assert (inline(changed) == text) == (changed == values)


def test_an_application_without_texts_of_its_own_says_nothing() -> None:
    """Places and revisions are no such text; an image that kustomize sets is."""
    assert read(source("", "values-prod.yaml")).inline == ""
    assert "web:2" in read(source("o", kustomize={"images": ["web:2"]}), file="o/x.yaml").inline
