"""The simulated Argo CD's API has the paths, the bodies and the refusals of the real one."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from argocd_bench import APPLICATIONS, PROD, REPO_URL, TOKEN, Bench, fitting, misfits


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


NOT_FOUND = f'applications.argoproj.io "{PROD}x" not found'


@pytest.mark.parametrize(
    ("name", "query", "status", "code", "message"),
    [
        (f"{PROD}x", {}, 403, 7, "permission denied"),
        (f"{PROD}x", {"project": "default"}, 404, 5, NOT_FOUND),
        (PROD, {"project": "unknown"}, 403, 7, "permission denied"),
        (PROD, {"project": "other"}, 404, 5, NOT_FOUND.replace("x", "")),
        ("secret", {}, 403, 7, "permission denied"),
        ("secret", {"project": "default"}, 403, 7, "permission denied"),
        (PROD, {"appNamespace": "nowhere"}, 403, 7, "namespace 'nowhere' is not permitted"),
        ("elsewhere", {}, 403, 7, "permission denied"),
        ("elsewhere", {"project": "other"}, 404, 5, 'applications.argoproj.io "elsewhere" not found'),
    ],
)
@pytest.mark.parametrize("below", ["", "/resource-tree"])
async def test_missing_and_forbidden_are_told_apart_only_with_a_project(
    bench: Bench, name: str, query: dict[str, str], status: int, code: int, message: str, below: str
) -> None:
    """Without `project` a missing application is 403 like a forbidden one; with it, missing is 404."""
    prod = APPLICATIONS[2]
    others = [
        replace(prod, name="secret"),
        replace(prod, name="elsewhere", project="other", namespace="team-a"),
    ]
    await bench.restart(bench.simulate([prod, *others]))
    bench.argo.forbidden = {"secret"}
    answer = await bench.call(f"applications/{name}{below}", **query)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert fitting(answer.json(), "runtimeError") == {"error": message, "code": code, "message": message}


async def test_an_application_elsewhere_is_found_with_its_namespace(bench: Bench) -> None:
    """Applications in any namespace need `appNamespace`; the settings say that they exist."""
    await bench.restart(bench.simulate([replace(APPLICATIONS[2], namespace="team-a")]))
    assert (await bench.application(appNamespace="team-a"))["metadata"]["namespace"] == "team-a"
    settings = fitting((await bench.call("settings")).json(), "clusterSettings")
    assert settings["appsInAnyNamespaceEnabled"] is True


async def test_two_projects_at_once_are_refused(bench: Bench) -> None:
    """A single GET takes one project at most."""
    answer = await bench.call(f"applications/{PROD}", project="default", projects="other")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "no session information"),
        ("Bearer plain-word", "no session information"),
        (f"Basic {TOKEN}", "no session information"),
        ("Bearer not.my.token", "invalid session: token signature is invalid: signature is invalid"),
    ],
)
async def test_without_a_valid_token_the_answer_is_401(
    bench: Bench, authorization: str | None, message: str
) -> None:
    """A token that is no JWT counts as none; the version and userinfo answer anybody, but say less."""
    headers = {"Authorization": authorization} if authorization else {}
    answer = await bench.client.get(f"{bench.argo.url}/api/v1/applications/{PROD}", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": message, "code": 16, "message": message})
    info = await bench.client.get(f"{bench.argo.url}/api/v1/session/userinfo", headers=headers)
    assert (info.status_code, info.json()) == (200, {})
    version = await bench.client.get(f"{bench.argo.url}/api/version", headers=headers)
    assert list(version.json()) == ["Version"]


async def test_a_token_can_expire(bench: Bench) -> None:
    """From one request to the next the same token is refused, and accepted again when it is replaced."""
    bench.argo.token_expired = True
    answer = await bench.call(f"applications/{PROD}", project="default")
    assert answer.status_code == 401
    assert answer.json()["message"] == "invalid session: token has invalid claims: token is expired"
    bench.argo.token_expired = False
    await bench.application()


async def test_a_token_is_accepted_as_a_cookie(bench: Bench) -> None:
    """Proxies that eat Authorization leave the cookie `argocd.token`."""
    answer = await bench.client.get(
        f"{bench.argo.url}/api/v1/applications/{PROD}", headers={"Cookie": f"argocd.token={TOKEN}"}
    )
    assert answer.status_code == 200


async def test_while_down_a_proxy_answers(bench: Bench) -> None:
    """503 with an HTML page, for every path; the model goes on behind it."""
    bench.argo.down = True
    answer = await bench.call("applications")
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "<h1>503 Service Temporarily Unavailable</h1>" in answer.text
    bench.argo.down = False
    assert (await bench.call("applications")).status_code == 200


async def test_the_gateway_refuses_in_plain_text(bench: Bench) -> None:
    """Unknown paths, other methods and wrong content types never get as far as the JSON errors."""
    root = bench.argo.url
    unknown = await bench.call("nonsense")
    assert (unknown.status_code, unknown.text) == (404, "Not Found\n")
    typed = await bench.client.delete(f"{root}/api/v1/applications/{PROD}")
    assert (typed.status_code, typed.text) == (415, "Invalid content type\n")
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert (await bench.client.post(f"{root}/api/v1/applications", headers=charset)).status_code == 415
    method = await bench.client.post(
        f"{root}/api/v1/session/userinfo", headers={"Content-Type": "application/json"}
    )
    assert (method.status_code, method.headers["Content-Type"]) == (405, "text/plain; charset=utf-8")
    page = await bench.client.get(f"{root}/applications/argocd/{PROD}")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (await bench.client.get(f"{root}/healthz")).text == "ok"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["manual-app-dev", "manual-app-stage", "manual-app-prod"]),
        ({"name": PROD}, [PROD]),
        ({"selector": "env=prod"}, [PROD]),
        ({"selector": "env in (dev,stage)"}, ["manual-app-dev", "manual-app-stage"]),
        ({"selector": "env,env!=dev"}, ["manual-app-stage", PROD]),
        ({"selector": "!env"}, None),
        ({"projects": "other"}, None),
        (
            {"repo": REPO_URL, "appNamespace": "argocd"},
            ["manual-app-dev", "manual-app-stage", "manual-app-prod"],
        ),
    ],
)
async def test_a_list_shows_what_is_asked_for(
    bench: Bench, query: dict[str, str], names: list[str] | None
) -> None:
    """The filters of a list; nothing found is null, not an empty array."""
    listed = (await bench.call("applications", **query)).json()
    items = listed["items"]
    assert (items and [item["metadata"]["name"] for item in items]) == names


async def test_a_list_is_silent_about_what_is_forbidden_and_about_the_health_of_resources(
    bench: Bench,
) -> None:
    """Lists leave forbidden applications out, and resources in them have no health."""
    bench.argo.forbidden = {"manual-app-dev"}
    listed = fitting((await bench.call("applications")).json(), "v1alpha1ApplicationList")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["manual-app-stage", PROD]
    assert all(
        "health" not in resource for item in listed["items"] for resource in item["status"]["resources"]
    )
    assert all("health" in resource for resource in (await bench.application())["status"]["resources"])


@pytest.mark.parametrize(
    ("right", "value"),
    [
        (f"applications/get/default/{PROD}", "yes"),
        (f"applications/get/default/argocd/{PROD}", "yes"),
        ("applications/get/default/*", "yes"),
        ("applications/get/other/*", "no"),
        (f"applications/sync/default/{PROD}", "no"),
        ("applications/get/default/secret", "no"),
    ],
)
async def test_the_account_may_read_and_no_more(bench: Bench, right: str, value: str) -> None:
    """Following needs `applications, get` alone, so the simulated account has nothing else."""
    bench.argo.forbidden = {"secret"}
    answer = await bench.call(f"account/can-i/{right}")
    assert fitting(answer.json(), "accountCanIResponse") == {"value": value}


async def test_an_unknown_right_is_a_bad_request(bench: Bench) -> None:
    """can-i answers 400 for a resource or an action that Argo CD does not have."""
    assert (await bench.call("account/can-i/apps/get/default/x")).status_code == 400


async def test_a_live_object_is_read_from_the_cluster(bench: Bench) -> None:
    """Pods and Deployments as Kubernetes has them; something outside the tree is a bad request."""
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    pod = next(node for node in tree["nodes"] if node["kind"] == "Pod")
    where = {"project": "default", "namespace": "prod", "version": "v1"}
    path = f"applications/{PROD}/resource"
    answer = await bench.call(path, **where, kind="Pod", resourceName=pod["name"])
    manifest = json.loads(fitting(answer.json(), "applicationApplicationResourceResponse")["manifest"])
    (container,) = manifest["status"]["containerStatuses"]
    assert (container["image"], container["ready"]) == ("ghcr.io/acme/manual-app:14", True)
    assert re.fullmatch(r"ghcr\.io/acme/manual-app@sha256:[0-9a-f]{64}", container["imageID"])
    answer = await bench.call(path, **where, kind="Deployment", group="apps", resourceName=PROD)
    deployment = json.loads(answer.json()["manifest"])
    assert deployment["metadata"]["generation"] == deployment["status"]["observedGeneration"] == 1
    assert deployment["status"]["readyReplicas"] == 3
    answer = await bench.call(path, **where, kind="Pod", resourceName="nobody")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_events_tell_of_operations_and_of_crashing_pods(bench: Bench) -> None:
    """The application's events are its operations; a pod that crashes has a BackOff warning."""
    bench.argo.degrade_next_rollout()
    await bench.deploy("15")
    answer = await bench.call(f"applications/{PROD}/events", project="default")
    reasons = [event["reason"] for event in fitting(answer.json(), "eventsEventList")["items"]]
    assert reasons == ["OperationStarted", "OperationCompleted"] * 2
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    crashing = next(
        node
        for node in tree["nodes"]
        if node.get("health", {}).get("status") == "Degraded" and node["kind"] == "Pod"
    )
    answer = await bench.call(f"applications/{PROD}/events", project="default", resourceName=crashing["name"])
    assert [event["reason"] for event in fitting(answer.json(), "eventsEventList")["items"]] == ["BackOff"]


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("session/userinfo", "sessionGetUserInfoResponse"),
        ("settings", "clusterSettings"),
        (f"applications/{PROD}/syncwindows", "applicationApplicationSyncWindowsResponse"),
        (f"applications/{PROD}/managed-resources", "applicationManagedResourcesResponse"),
        ("../version", "versionVersionMessage"),
    ],
)
async def test_small_answers_fit_their_schemas(bench: Bench, path: str, schema: str) -> None:
    """What no other test reads is checked against the OpenAPI description all the same."""
    answer = await bench.call(path)
    assert answer.status_code == 200
    assert fitting(answer.json(), schema)


def test_the_schema_check_finds_misfits() -> None:
    """The check of this file is no formality: unknown properties, strings for numbers and odd times are found."""
    schema = {"$ref": "#/definitions/v1alpha1OperationState"}
    wrong = {"phase": 1, "retryCount": "2", "startedAt": "2026-08-24T09:00:00.5Z", "finished": True}
    assert [problem.partition(":")[0] for problem in misfits(wrong, schema)] == [
        ".phase",
        ".retryCount",
        ".startedAt",
        ".finished",
    ]


async def test_requests_are_recorded(bench: Bench) -> None:
    """Tests can count refreshes and see that nothing else was asked for."""
    await bench.refresh()
    (request,) = bench.argo.requests
    assert (request.method, request.path) == ("GET", f"/api/v1/applications/{PROD}")
    assert dict(request.query) == {"project": "default", "refresh": "normal"}


async def test_stopping_answers_those_who_wait(bench: Bench) -> None:
    """A stopped server does not leave a refreshing client hanging."""
    waiting = await bench.refreshing()
    await bench.argo.stop()
    await asyncio.wait([waiting])
