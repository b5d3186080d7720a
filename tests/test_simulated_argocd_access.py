"""Access to the simulated Argo CD: accounts, tokens that end, and everything that answers in its place."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench, fitting

from bot.playground.argocd.access import make_token
from bot.playground.argocd.interceptions import login_page, plain_error, redirect, throttled
from bot.playground.argocd.server import SimulatedArgoCD


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


async def test_another_account_has_its_own_rights(bench: Bench) -> None:
    """Each token sees what its account may; a list shows that, and a right can be for one application alone."""
    token = make_token("reader")
    bench.argo.access.add(token, "reader", f"applications, get, default/{PROD}")
    listed = (await bench.call("applications", headers=bearer(token))).json()["items"]
    assert [item["metadata"]["name"] for item in listed] == [PROD]
    other = "applications/manual-app-dev"
    assert (await bench.call(other, headers=bearer(token), project="default")).status_code == 403
    info = (await bench.call("session/userinfo", headers=bearer(token))).json()
    assert fitting(info, "sessionGetUserInfoResponse")["username"] == "reader"
    assert (await bench.call(other, project="default")).status_code == 200


async def test_a_right_reaches_into_another_namespace(bench: Bench) -> None:
    """`default/*` covers `default/team-a/name`, as globs do not stop at slashes; `default/team-b/*` does not."""
    await bench.restart(bench.simulate([replace(APPLICATIONS[2], namespace="team-a")]))
    for right, status in (("default/*", 200), ("default/team-b/*", 403), ("default/team-a/*", 200)):
        token = make_token(right)
        bench.argo.access.add(token, "reader", f"applications, get, {right}")
        answer = await bench.call(f"applications/{PROD}", headers=bearer(token), appNamespace="team-a")
        assert answer.status_code == status, right


async def test_a_token_ends_when_it_says(bench: Bench) -> None:
    """Its own `exp` decides: valid a second before, refused from then on."""
    token = make_token("short", expires_at=bench.now + timedelta(minutes=5))
    bench.argo.access.add(token, "short", "applications, get, *")
    path = f"applications/{PROD}"
    bench.passes(299)
    assert (await bench.call(path, headers=bearer(token))).status_code == 200
    bench.passes(1)
    expired = await bench.call(path, headers=bearer(token))
    assert (expired.status_code, fitting(expired.json(), "runtimeError")["code"]) == (401, 16)
    assert expired.json()["message"] == "invalid session: token has invalid claims: token is expired"


@pytest.mark.parametrize(("rights", "status"), [((), 403), (("applications, get, *",), 200)])
async def test_with_anonymous_access_an_expired_token_is_nobodys(
    bench: Bench, rights: tuple[str, ...], status: int
) -> None:
    """No 401: the caller is a nobody with a nobody's rights, which only userinfo tells."""
    bench.argo.access.allow_anonymous(*rights)
    bench.argo.token_expired = True
    assert (await bench.call(f"applications/{PROD}", project="default")).status_code == status
    assert (await bench.call("session/userinfo")).json() == {}
    bench.argo.token_expired = False
    assert (await bench.call("session/userinfo")).json()["loggedIn"] is True


async def test_reading_logs_is_a_right_of_its_own(bench: Bench) -> None:
    """Without it 403 with the long words; with it lines of JSON, the last of which says so."""
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    pod = next(node["name"] for node in tree["nodes"] if node["kind"] == "Pod")
    path, query = f"applications/{PROD}/logs", {"project": "default", "podName": pod, "tailLines": "1"}
    refused = await bench.call(path, **query)
    text = f"permission denied: logs, get, default/{PROD}, sub: promote-bot, iat: "
    assert refused.status_code == 403
    assert refused.json()["message"].startswith(text)
    bench.argo.access.grant("logs, get, default/*")
    for where in (path, f"applications/{PROD}/pods/{pod}/logs"):
        answer = await bench.call(where, **query)
        lines = [json.loads(line)["result"] for line in answer.text.splitlines()]
        assert [fitting(line, "applicationLogEntry")["last"] for line in lines] == [False, True]
        assert lines[0]["podName"] == pod
        assert lines[0]["content"].endswith("listening on :8080")
    none = await bench.call(path, **query, previous="true")
    assert [json.loads(line)["result"]["last"] for line in none.text.splitlines()] == [True]


async def test_a_crashed_container_has_a_previous_log(bench: Bench) -> None:
    """What it said last can still be read."""
    bench.argo.access.grant("logs, get, default/*")
    bench.argo.degrade_next_rollout(PROD)
    await bench.deploy("15")
    tree = (await bench.call(f"applications/{PROD}/resource-tree", project="default")).json()
    pods = [node for node in tree["nodes"] if node["kind"] == "Pod"]
    name = next(node["name"] for node in pods if node["health"]["status"] == "Degraded")
    answer = await bench.call(f"applications/{PROD}/logs", project="default", podName=name, previous="true")
    assert "panic: exit 1" in answer.text


async def test_what_stands_before_answers_in_its_place(bench: Bench) -> None:
    """One answer each, in turn: throttled, redirected, a login page, a plain error; then Argo CD again."""
    bench.argo.intercept(
        throttled("3"), redirect("https://sso.acme.example/"), login_page(), plain_error(504, "timeout")
    )
    answers = [await bench.call("applications") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [429, 307, 200, 504, 200]
    kinds = [answer.headers["Content-Type"].partition(";")[0] for answer in answers]
    assert kinds == ["text/plain", "text/html", "text/html", "text/plain", "application/json"]
    assert answers[0].headers["Retry-After"] == "3"
    assert answers[1].headers["Location"] == "https://sso.acme.example/"
    assert "Sign in" in answers[2].text


async def test_an_interception_can_be_for_one_path(bench: Bench) -> None:
    """Other requests pass, and it waits for its own."""
    bench.argo.intercept(throttled("1", path="/resource-tree"))
    await bench.application()
    path = f"applications/{PROD}/resource-tree"
    assert [(await bench.call(path, project="default")).status_code for _ in range(2)] == [429, 200]


async def test_everything_can_live_below_a_path(bench: Bench) -> None:
    """With a root path the API, its version and the pages are there alone; healthz is at both places."""
    argo = SimulatedArgoCD(
        repository=bench.repository,
        token=TOKEN,
        applications=APPLICATIONS,
        rootpath="/argocd/",
        now=lambda: bench.now,
    )
    await bench.restart(argo)
    assert argo.url.endswith("/argocd")
    await bench.application()
    root = argo.url.removesuffix("/argocd")
    assert (await bench.client.get(f"{argo.url}/api/version")).json()["Version"].startswith("v3.5")
    below = await bench.client.get(f"{root}/api/v1/applications", headers=bearer(TOKEN))
    assert below.headers["Content-Type"].startswith("text/html")
    assert [(await bench.client.get(f"{at}/healthz")).text for at in (root, argo.url)] == ["ok", "ok"]


async def test_a_list_can_lag(bench: Bench) -> None:
    """It goes on showing an application as it was, and one that has gone, while a GET knows better."""
    bench.argo.list_lags = True
    new = bench.promote("15")
    await bench.refresh()
    listed = fitting((await bench.call("applications", name=PROD)).json(), "v1alpha1ApplicationList")
    assert listed["items"][0]["status"]["sync"]["revision"] != new
    assert (await bench.application())["status"]["sync"]["revision"] == new
    bench.argo.list_lags = False
    listed = (await bench.call("applications", name=PROD)).json()
    assert listed["items"][0]["status"]["sync"]["revision"] == new


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ("items.metadata.name", {"metadata": {"name": PROD}}),
        (
            "items.status.sync.status,items.spec.project",
            {"spec": {"project": "default"}, "status": {"sync": {"status": "Synced"}}},
        ),
        ("items.status.sync.revisions,items.status.reconciledAt,items.status.conditions", {}),
        ("metadata.resourceVersion", {}),
    ],
)
async def test_a_list_shows_the_fields_asked_for(bench: Bench, fields: str, shown: dict[str, object]) -> None:
    """Only those that Argo CD lets choose; the metadata of the list itself is always there."""
    listed = (await bench.call("applications", name=PROD, fields=fields)).json()
    assert listed["items"] == [shown]
    assert listed["metadata"]["resourceVersion"]


async def test_the_sync_of_an_operation_in_a_list_is_its_result(bench: Bench) -> None:
    """With `fields`, the name of the one leads to the other; and a leading `-` leaves a part out."""
    field = "items.status.operationState.operation.sync"
    (item,) = (await bench.call("applications", name=PROD, fields=field)).json()["items"]
    whole = await bench.application()
    assert (
        item["status"]["operationState"]["operation"]["sync"]
        == whole["status"]["operationState"]["syncResult"]
    )
    (item,) = (await bench.call("applications", name=PROD, fields="-items.spec")).json()["items"]
    assert ("spec" in item, item["metadata"]["name"]) == (False, PROD)
    everything = fitting((await bench.call("applications", name=PROD)).json(), "v1alpha1ApplicationList")
    assert "reconciledAt" in everything["items"][0]["status"]


async def test_a_newer_release_has_fields_that_nobody_knows(bench: Bench) -> None:
    """They stand beside the known ones, in the whole and in its parts; everything else is as it was."""
    known = await bench.application()
    bench.argo.is_newer = True
    newer = (await bench.call(f"applications/{PROD}", project="default")).json()
    for part in (newer, newer["spec"], newer["status"]):
        del part["fieldOfALaterRelease"]
    assert newer == known
