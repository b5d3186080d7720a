"""Argo CD's JSON becomes facts, whatever is left out, new or odd in it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from rollout_cases import LATER, OLD, OURS, TARGET

from bot.core.facts import ApplicationFacts, ResourceResult
from bot.integrations.argocd_facts import causes, read_application
from bot.integrations.argocd_objects import Result
from bot.integrations.argocd_text import said
from bot.integrations.argocd_tracking import repository_name

SOURCE = {
    "repoURL": "https://git.acme.example/team/manual-app-helm.git",
    "path": ".",
    "targetRevision": "main",
    "helm": {"valueFiles": ["values-prod.yaml"]},
}


def read(status: object = None, *, spec: dict[str, Any] | None = None, **extra: object) -> ApplicationFacts:
    """The facts of an application with this status."""
    answer = {"metadata": {"name": "manual-app-prod"}, "spec": {"source": SOURCE} | (spec or {})}
    return read_application(answer | {"status": status or {}} | extra, TARGET)


def test_an_application_that_was_never_compared_is_nothing_yet() -> None:
    """Every field may be absent: none of them then looks like success."""
    found = read()
    assert (found.sync, found.health, found.revision, found.reconciled_at) == ("", "", None, None)
    assert (found.operation, found.is_operating, found.compares_spec, found.automated) == (
        None,
        False,
        False,
        False,
    )


def test_null_is_the_same_as_absent() -> None:
    """Go writes both."""
    empty = {
        "sync": {"status": None, "revision": None, "comparedTo": {"source": None}},
        "health": None,
        "operationState": None,
        "reconciledAt": None,
        "conditions": None,
        "resources": [{"kind": "Service", "name": "x", "health": None}],
        "history": None,
    }
    assert read(empty, operation=None, spec={"syncPolicy": {"automated": None}}) == read()


def test_what_nobody_knows_yet_is_carried_or_ignored() -> None:
    """A newer Argo CD has more fields and more words."""
    found = read(
        {"sync": {"status": "Dreaming", "dreams": 3}, "health": {"status": "Hibernating"}, "new": [1]}
    )
    assert (found.sync, found.health) == ("Dreaming", "Hibernating")


@pytest.mark.parametrize("answer", [None, [], {}, {"metadata": {"name": "x"}}, {"spec": {}, "metadata": {}}])
def test_what_is_no_application_is_an_error(answer: object) -> None:
    """An answer without a name or a spec comes from something else."""
    with pytest.raises(ValidationError):
        read_application(answer, TARGET)


@pytest.mark.parametrize(
    ("text", "revision"), [(OURS, OURS), ("main", None), ("", None), (OURS[:7], None), (OURS.upper(), None)]
)
def test_only_a_whole_commit_id_is_a_revision(text: str, revision: str | None) -> None:
    """A branch name stands there when a comparison failed."""
    assert read({"sync": {"revision": text}}).revision == revision


@pytest.mark.parametrize(
    ("automated", "is_on"), [({}, True), ({"prune": True}, True), ({"enabled": False}, False), (None, False)]
)
def test_automated_sync_is_on_unless_it_says_otherwise(automated: object, is_on: bool) -> None:
    """`automated: {}` is on; `enabled` came with Argo CD 3.1."""
    assert read(spec={"syncPolicy": {"automated": automated}}).automated is is_on


@pytest.mark.parametrize(
    ("compared", "same"),
    [
        (SOURCE, True),
        (SOURCE | {"kustomize": {}, "chart": ""}, True),
        (SOURCE | {"path": "x"}, False),
        ({}, False),
    ],
)
def test_a_comparison_counts_for_the_settings_it_was_made_with(compared: dict[str, Any], same: bool) -> None:
    """Empty parts are as good as absent ones."""
    assert read({"sync": {"comparedTo": {"source": compared}}}).compares_spec is same


TRACKS: dict[str, tuple[dict[str, Any], str | None]] = {
    "our branch": ({}, None),
    "our branch by its full name": ({"targetRevision": "refs/heads/main"}, None),
    "the default branch": ({"targetRevision": "HEAD"}, None),
    "whatever the default is": ({"targetRevision": ""}, None),
    "another branch": ({"targetRevision": "release"}, "release, not the branch main"),
    "a pinned commit": ({"targetRevision": OLD}, f"{OLD}, not the branch main"),
    "another repository": (
        {"repoURL": "https://bot:pw@git.acme.example/team/other"},
        "git.acme.example/team/other, not git.acme.example/team/manual-app-helm",
    ),
    "no repository": ({"repoURL": ""}, "no repository, not git.acme.example/team/manual-app-helm"),
    "the values of another environment": (
        {"helm": {"valueFiles": ["values-dev.yaml"]}},
        "values-dev.yaml of the repository, not values-prod.yaml",
    ),
    "another folder": (
        {"path": "charts/other", "helm": None},
        "the folder charts/other, not values-prod.yaml",
    ),
    "a folder that leads to the file": (
        {"path": "charts", "helm": {"valueFiles": ["../values-prod.yaml"]}},
        None,
    ),
    "a file from the repository's root": (
        {"path": "charts", "helm": {"valueFiles": ["/values-prod.yaml"]}},
        None,
    ),
    "a file named by a variable": ({"helm": {"valueFiles": ["values-$ARGOCD_ENV.yaml"]}}, None),
    "no helm at all": ({"helm": None}, None),
}


@pytest.mark.parametrize(("changes", "tracks"), TRACKS.values(), ids=TRACKS.keys())
def test_what_an_application_tracks_is_compared_with_the_target(
    changes: dict[str, Any], tracks: str | None
) -> None:
    """Repository, branch and file; what is not ours is named."""
    assert read(spec={"source": SOURCE | changes}).tracks == tracks


def test_the_charts_own_values_are_covered_beside_the_listed_files() -> None:
    """Helm reads values.yaml always, and hands values to subcharts."""
    spec = {"source": SOURCE | {"path": "chart"}}
    for path in ("chart/values.yaml", "chart/charts/db/values.yaml"):
        answer = {"metadata": {"name": "x"}, "spec": spec}
        assert read_application(answer, replace(TARGET, path=path)).tracks is None


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/Acme/charts.git",
        "https://bot:token@GitHub.com/acme/charts/",
        "http://github.com:80/acme/charts",
        "https://github.com:443/acme/charts.git",
        "git@github.com:acme/charts.git",
        "github.com:acme/charts",
        "ssh://git@github.com:22/acme/charts.git",
        " https://github.com/acme/charts ",
    ],
)
def test_a_repository_has_one_name(url: str) -> None:
    """Teams write the same address in many ways."""
    assert repository_name(url) == "github.com/acme/charts"


def test_different_repositories_have_different_names() -> None:
    """Another port is another server; a local folder is a repository too."""
    assert repository_name("https://git.acme.example:8443/a.git") == "git.acme.example:8443/a"
    assert repository_name("file:///srv/charts.git") == repository_name("/srv/charts") == "/srv/charts"


def test_an_operation_tells_what_it_did_and_what_failed() -> None:
    """A failed hook has no status of its own, only a phase; hooks that went well are no resources."""
    resources = [
        {"kind": "Service", "name": "app", "status": "Synced", "message": "service/app configured"},
        {"kind": "Deployment", "name": "app", "status": "SyncFailed", "message": "denied"},
        {"kind": "Job", "name": "check", "hookType": "PreSync", "hookPhase": "Succeeded"},
        {
            "kind": "Job",
            "name": "migrate",
            "hookType": "PostSync",
            "hookPhase": "Failed",
            "message": "exit 1",
        },
    ]
    state = {
        "phase": "Failed",
        "message": "one or more\nobjects failed",
        "operation": {"sync": {"revision": "main"}},
        "syncResult": {"revision": OURS, "resources": resources},
        "finishedAt": "2026-08-24T09:00:03Z",
        "retryCount": 2,
    }
    managed = [{"kind": "ConfigMap", "name": f"part-{number}"} for number in range(5)]
    status = {
        "operationState": state,
        "resources": [*managed, {"kind": "Job", "name": "check", "hook": True}],
    }
    found = read(status).operation
    assert found
    assert found.expected == 5
    assert (found.phase, found.revision, found.is_full, found.retries) == ("Failed", OURS, True, 2)
    assert found.message == "one or more objects failed"
    assert found.finished_at == datetime(2026, 8, 24, 9, 0, 3, tzinfo=UTC)
    assert [(result.name, result.status) for result in found.resources] == [
        ("Service/app", "Synced"),
        ("Deployment/app", "SyncFailed"),
        ("Job/migrate", "SyncFailed"),
    ]


@pytest.mark.parametrize(
    "request_", [{"dryRun": True}, {"resources": [{"kind": "Deployment"}]}, {"manifests": ["{}"]}, None]
)
def test_dry_runs_and_partial_syncs_are_not_full(request_: dict[str, Any] | None) -> None:
    """Their success or failure says little about the commit."""
    found = read({"operationState": {"phase": "Succeeded", "operation": {"sync": request_}}}).operation
    assert found
    assert not found.is_full


def test_a_queued_operation_has_a_revision_and_no_phase() -> None:
    """Argo CD drops the old operation's state when it queues the next one."""
    found = read({}, operation={"sync": {"revision": LATER}})
    assert found.is_operating
    assert found.operation
    assert (found.operation.phase, found.operation.revision) == ("", LATER)


def test_errors_unhealthy_resources_history_and_deletion_are_read() -> None:
    """Warnings are no errors, healthy resources are not listed, and the newest deployment counts."""
    status = {
        "conditions": [
            {"type": "ComparisonError", "message": "helm failed"},
            {"type": "OrphanedResourceWarning", "message": "3 orphans"},
            {"type": "UnknownError"},
        ],
        "resources": [
            {"kind": "Service", "name": "app", "health": {"status": "Healthy"}},
            {"kind": "Deployment", "name": "app", "health": {"status": "Degraded", "message": "deadline"}},
            {"kind": "ConfigMap", "name": "app"},
        ],
        "history": [{"id": 0, "revision": OLD}, {"id": 1, "revision": OURS}],
    }
    answer = {
        "metadata": {"name": "x", "deletionTimestamp": "2026-08-24T09:00:00Z"},
        "spec": {},
        "status": status,
    }
    found = read_application(answer, TARGET)
    assert found.errors == ("helm failed", "UnknownError")
    assert found.unhealthy == (ResourceResult(name="Deployment/app", status="Degraded", message="deadline"),)
    assert found.history_revision == OURS
    assert found.is_deleting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n  lines", "two lines"),
        ("get https://bot:hunter2@git.acme.example/x: 403", "get https://git.acme.example/x: 403"),
        ("ssh://git@host/x and https://a:b/c@host/y", "ssh://host/x and https://host/y"),
        ("see https://git.acme.example/x", "see https://git.acme.example/x"),
    ],
)
def test_outside_texts_lose_their_credentials_and_lines(text: str, shown: str) -> None:
    """They are shown to many people."""
    assert said(text) == shown


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """Helm tells the cause last, after the whole command."""
    shown = said("Failed to load target state: " + "x" * 1000 + " Error: missing value image.tag")
    assert len(shown) == 300
    assert shown.startswith("Failed to load target state:")
    assert shown.endswith("Error: missing value image.tag")


def test_what_differs_is_told_apart_from_what_is_only_too_many() -> None:
    """Argo CD removes nothing by itself unless it is told to; a person's Sync does not either."""
    resources = [
        {"kind": "Deployment", "name": "app", "status": "OutOfSync"},
        {"kind": "Service", "name": "app", "status": "Synced"},
        {"kind": "ConfigMap", "name": "old", "status": "OutOfSync", "requiresPruning": True},
    ]
    automated = {"prune": True}
    for policy, differs, stays in (
        ({"automated": automated}, ("Deployment/app", "ConfigMap/old"), ()),
        ({"automated": {}}, ("Deployment/app",), ("ConfigMap/old",)),
        ({"automated": automated | {"enabled": False}}, ("Deployment/app",), ("ConfigMap/old",)),
        (None, ("Deployment/app",), ("ConfigMap/old",)),
    ):
        found = read({"resources": resources}, spec={"syncPolicy": policy})
        assert (found.out_of_sync, found.to_prune) == (differs, stays)


@pytest.mark.parametrize("phase", ["Running", "Terminating", "Succeeded", "Failed", "Error"])
@pytest.mark.parametrize("is_queued", [True, False])
def test_an_operation_on_record_is_driven_while_it_is_asked_for(phase: str, is_queued: bool) -> None:
    """One that runs on record alone was lost; one that has ended needs nobody."""
    extra = {"operation": {"sync": {}}} if is_queued else {}
    found = read({"operationState": {"phase": phase}}, **extra).operation
    assert found
    assert found.is_driven is (is_queued or phase not in ("Running", "Terminating"))


@pytest.mark.parametrize(
    ("initiator", "by"),
    [
        ({"username": "sam@acme.example"}, "sam@acme.example"),
        ({"username": "applicationset-controller", "automated": True}, ""),
        ({"automated": True}, ""),
        (None, ""),
    ],
)
def test_who_began_an_operation_is_told_where_it_was_a_person(initiator: object, by: str) -> None:
    """Argo CD itself is nobody."""
    found = read({"operationState": {"operation": {"initiatedBy": initiator}}}).operation
    assert found
    assert found.by == by


def running(results: list[dict[str, Any]], resources: list[dict[str, Any]], phase: str = "Running") -> str:
    state = {"phase": phase, "message": "one or more tasks are running", "syncResult": {"resources": results}}
    found = read({"operationState": state, "resources": resources}, operation={}).operation
    assert found
    return found.message


def test_a_running_operation_tells_its_waves_and_hooks() -> None:
    """The hooks that are not over are named; an operation that has ended is told in Argo CD's words alone."""
    resources = [
        {"kind": "Service", "name": "app", "syncWave": -1},
        {"kind": "Deployment", "name": "app"},
        {"kind": "Deployment", "name": "late", "syncWave": 5},
    ]
    results = [
        {"kind": "Job", "name": "check", "hookType": "PreSync", "hookPhase": "Succeeded"},
        {"kind": "Job", "name": "migrate", "hookType": "Sync", "hookPhase": "Running"},
        {"kind": "Service", "name": "app", "status": "Synced"},
        {"kind": "Deployment", "name": "app", "status": "Synced", "hookPhase": "Running"},
    ]
    words = "one or more tasks are running"
    assert running(results, resources) == f"wave 2 of 3, hooks 1 of 2: Job/migrate Running, {words}"
    assert running(results[:1], resources) == f"hooks 1 of 1, {words}"
    assert running(results[2:], resources[:1]) == words
    assert running(results, resources, "Succeeded") == words


def test_a_success_that_nobody_completed_proves_nothing() -> None:
    """Argo CD can lose the end of an operation, and leave `Succeeded` without a result."""
    state = {"phase": "Succeeded", "operation": {"sync": {"revision": OURS}}, "syncResult": None}
    found = read({"operationState": state | {"finishedAt": None}}).operation
    assert found
    assert not found.is_full
    whole = read({"operationState": state | {"syncResult": {"revision": OURS}}}).operation
    assert whole
    assert whole.is_full


def test_an_operation_that_broke_before_its_first_resource_is_ours_by_its_request() -> None:
    """`Error` has no result at all."""
    request = {"sync": {"revision": OURS}}
    state = {"phase": "Error", "message": "denied", "operation": request, "syncResult": None}
    found = read({"operationState": state}).operation
    assert found
    assert (found.phase, found.revision, found.is_full, found.message) == ("Error", OURS, True, "denied")


@pytest.mark.parametrize(
    ("requires_pruning", "namespace", "stays"),
    [(True, "shop", True), (False, "shop", False), (True, "other", False)],
    ids=["kept", "back in git", "of another namespace"],
)
def test_what_must_not_be_pruned_stays_although_argo_cd_prunes(
    requires_pruning: bool, namespace: str, stays: bool
) -> None:
    """`Prune=false` on a resource: the last sync left it, and so will the next one."""
    thing = {"kind": "ConfigMap", "namespace": "shop", "name": "old"}
    skipped = thing | {"namespace": namespace, "status": "PruneSkipped"}
    status = {
        "resources": [thing | {"status": "OutOfSync", "requiresPruning": requires_pruning}],
        "operationState": {"phase": "Succeeded", "syncResult": {"resources": [skipped]}},
    }
    found = read(status, spec={"syncPolicy": {"automated": {"prune": True}}})
    names = ("ConfigMap/old",)
    assert (found.out_of_sync, found.to_prune) == (((), names) if stays else (names, ()))


@pytest.mark.parametrize(
    "piece", ['"://host:80",', "tokentoken", 'token:"', "://a:b/", "eyJ", "a/1", "x--", "\\"]
)
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    """Two megabytes that once took minutes, in which nothing else was done."""
    began = time.monotonic()
    assert len(said(piece * (2_000_000 // len(piece)))) <= 300
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("helm template . --set db.password=hunter2 failed", "helm template . --set db.password=*** failed"),
        ("get https://h/index.yaml?token=abc123secret: 404", "get https://h/index.yaml?token=*** 404"),
        (f"cannot sync to {'a1' * 20} of x@sha256:{'b2' * 32}", None),
        ("the path /tmp/_argocd-repo/3f1c2a9e-11aa-4bcd-9e77-0123456789ab/charts is missing", None),
    ],
)
def test_outside_texts_lose_their_secrets_and_keep_commits_and_paths(text: str, shown: str | None) -> None:
    """Helm repeats its whole command."""
    assert said(text) == (shown or text)


def test_a_failed_resource_keeps_its_reason_whatever_its_name() -> None:
    """It is called like a secret, and is none."""
    broken = {"kind": "Secret", "name": "db-token", "status": "SyncFailed", "message": "denied by a webhook"}
    results = [Result.model_validate(broken)]
    assert causes(results, "") == "Secret/db-token: denied by a webhook"
    told = Result.model_validate(broken | {"message": "exit 1, password=hunter2"})
    assert causes([told], "") == "Secret/db-token: exit 1, password=***"
    assert causes([], "exit 1, password=hunter2") == "exit 1, password=***"
