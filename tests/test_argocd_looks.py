"""What a look asks beside the application itself, and how a refusal is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from argocd_door import HERE, TOKEN, Door, Handler, answering, routing, saying, telling
from rollout_cases import APPLICATION, IMAGE, OLD, OURS, TARGET

from bot.core.errors import Failed
from bot.core.facts import ApplicationFacts
from bot.core.outcome import Outcome
from bot.integrations.argocd import ArgoCD, Server

NOW = datetime(2026, 11, 24, 16, 30, tzinfo=UTC)
SOURCE = {"repoURL": TARGET.repository.url, "targetRevision": "main", "helm": {"valueFiles": [TARGET.path]}}
CAN_I = "/api/v1/account/can-i"
MAY_SYNC = f"{CAN_I}/applications/sync/default/manual-app-prod"
MAY_GET = f"{CAN_I}/applications/get/default/manual-app-prod"
YES, NO = telling({"value": "yes"}), telling({"value": "no"})
DENY = {"kind": "deny", "schedule": "0 16 * * *", "duration": "2h"}
CLOSED = telling({"activeWindows": [DENY], "assignedWindows": [DENY], "canSync": False})
BLOCKED = {"phase": "Running", "message": "Sync operation blocked by sync window"}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


@asynccontextmanager
async def client(door: Door, token: str = TOKEN) -> AsyncIterator[ArgoCD]:
    argo = ArgoCD(servers={"main": Server(url=door.url, token=token)}, now=lambda: NOW)
    yield argo
    await argo.aclose()


def application(
    *, automated: bool = True, metadata: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """Ours, at our commit and not synced yet."""
    policy = {"automated": {}} if automated else {}
    return {
        "metadata": {"name": "manual-app-prod", "namespace": "argocd"} | (metadata or {}),
        "spec": {"source": SOURCE, "syncPolicy": policy},
        "status": {"sync": {"status": "OutOfSync", "revision": OURS}},
    } | more


async def look(door: Door, found: dict[str, Any], routes: dict[str, Handler], **how: Any) -> ApplicationFacts:
    """One look at an application, with what is answered beside it."""
    door.answer = routing({HERE: telling(found)} | routes)
    async with client(door) as argo:
        return await argo.observe(how.pop("target", TARGET), APPLICATION, **({"refresh": False} | how))


def asked(door: Door) -> list[str]:
    """What was asked for beside the application."""
    return [request.path.removeprefix(HERE) for request in door.asked if request.path != HERE]


async def test_a_hard_refresh_has_the_manifests_rendered_anew(door: Door) -> None:
    """And a plain one does not."""
    await look(door, application(), {}, refresh=True)
    await look(door, application(), {}, refresh=True, hard=True)
    assert [request.query.get("refresh") for request in door.asked if request.path == HERE] == [
        "normal",
        "hard",
    ]


@pytest.mark.parametrize(
    ("found", "matters"),
    [
        (application(), True),
        (application(status={"operationState": BLOCKED}, operation={}), True),
        (application(operation={}), False),
        (application(automated=False), False),
        (application(status={"sync": {"status": "OutOfSync", "revision": "main"}}), False),
        (application(status={"sync": {"status": "Synced", "revision": OURS}}), False),
    ],
    ids=["waits", "is blocked", "is synced", "for somebody", "not compared", "nothing to sync"],
)
async def test_windows_are_asked_for_where_argo_cd_should_sync_and_does_not(
    door: Door, found: dict[str, Any], matters: bool
) -> None:
    """And told with the time when it may."""
    seen = await look(door, found, {f"{HERE}/syncwindows": CLOSED})
    says = "a sync window keeps Argo CD from syncing until 18:00 UTC, 24 Nov"
    assert seen.closed == (says if matters else "")
    assert ("/syncwindows" in asked(door)) is matters


@pytest.mark.parametrize("answer", [saying(500, "no"), saying(403, "no"), telling([])])
async def test_windows_that_nobody_tells_hide_nothing(door: Door, answer: Handler) -> None:
    """The rest of the look is told all the same."""
    seen = await look(door, application(), {f"{HERE}/syncwindows": answer})
    assert (seen.sync, seen.closed) == ("OutOfSync", "")


@pytest.mark.parametrize(("answer", "may"), [(YES, True), (NO, False), (saying(500, "no"), False)])
async def test_where_somebody_has_to_sync_it_is_told_whether_the_bot_may(
    door: Door, answer: Handler, may: bool
) -> None:
    """A button that would be refused need not be shown."""
    seen = await look(door, application(automated=False), {MAY_SYNC: answer})
    assert seen.may_sync is may
    assert not (await look(door, application(), {MAY_SYNC: answer})).may_sync


OWNED = {"ownerReferences": [{"kind": "ApplicationSet", "name": "shop"}]}
SET = "/api/v1/applicationsets/shop"
STEPS = {"applicationStatus": [{"application": "manual-app-prod", "step": "2", "status": "Waiting"}]}
ROLLING = telling({"spec": {"strategy": {"type": "RollingSync"}}, "status": STEPS})
AT_ONCE = telling({"spec": {}, "status": {}})
ROLLED = {"operation": {"initiatedBy": {"username": "applicationset-controller", "automated": True}}}
STEP = "step 2 of the ApplicationSet shop: Waiting"
SOME_STEP = "the ApplicationSet shop syncs it in one of its steps"


@pytest.mark.parametrize(
    ("metadata", "state", "answer", "says", "may"),
    [
        (OWNED, None, ROLLING, STEP, False),
        (OWNED, ROLLED, ROLLING, STEP, False),
        (OWNED, ROLLED, saying(403, "permission denied"), SOME_STEP, False),
        (OWNED, None, saying(403, "permission denied"), "", False),
        (OWNED, None, AT_ONCE, "", True),
        (OWNED, ROLLED, telling({"spec": {"strategy": {"type": "RollingSync"}}}), SOME_STEP, False),
        ({}, ROLLED, ROLLING, "", True),
    ],
    ids=["rolls", "rolled", "hidden", "hidden, never rolled", "all at once", "no step yet", "not owned"],
)
async def test_an_application_set_that_rolls_tells_its_step(
    door: Door, metadata: dict[str, Any], state: Any, answer: Handler, says: str, may: bool
) -> None:
    """Nobody has to press Sync then, and nobody is offered to where the bot may not see whether there are steps."""
    status = {"sync": {"status": "OutOfSync", "revision": OURS}, "operationState": state}
    found = application(automated=False, metadata=metadata, status=status)
    seen = await look(door, found, {SET: answer, MAY_SYNC: YES})
    assert seen.rolls_with == says
    assert seen.may_sync is may
    assert all(request.query["appsetNamespace"] == "argocd" for request in door.asked if request.path == SET)


DIGEST, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
PINNED = replace(TARGET, digests=("image.digest",))


def pod_node(number: int, containers: str = "1/1") -> dict[str, Any]:
    info = [{"name": "Status Reason", "value": "Running"}, {"name": "Containers", "value": containers}]
    return {"kind": "Pod", "namespace": "shop", "name": f"pod-{number}", "uid": f"{number}", "info": info}


def live(*image_ids: str) -> Handler:
    """A pod with one container of ours for each id, and a sidecar."""
    names = [f"app-{number}" for number in range(len(image_ids))]
    containers = [{"name": name, "image": f"{IMAGE}:15"} for name in names]
    statuses = [{"name": name, "imageID": id} for name, id in zip(names, image_ids, strict=True)]
    pod = {
        "spec": {"containers": [*containers, {"name": "proxy", "image": "envoy:1"}]},
        "status": {"containerStatuses": [*statuses, {"name": "proxy", "imageID": f"envoy@{OTHER}"}]},
    }
    return telling({"manifest": json.dumps(pod)})


def running(health: str = "Healthy", sync: str = "Synced") -> dict[str, Any]:
    status = {"sync": {"status": sync, "revision": OURS}, "health": {"status": health}}
    return application(status=status | {"operationState": {"phase": "Succeeded"}})


def pods(*nodes: dict[str, Any], answer: Handler) -> dict[str, Handler]:
    return {
        f"{HERE}/managed-resources": telling({"items": []}),
        f"{HERE}/resource-tree": telling({"nodes": nodes}),
        f"{HERE}/resource": answer,
    }


@pytest.mark.parametrize(
    ("answer", "digests"),
    [
        (live(f"docker-pullable://{IMAGE}@{DIGEST}"), {DIGEST}),
        (live(f"{IMAGE}@{DIGEST}"), {DIGEST}),
        (live(f"{IMAGE}@{DIGEST}", f"{IMAGE}@{OTHER}"), {DIGEST, OTHER}),
        (live(DIGEST), set()),
        (live(""), set()),
        (saying(400, "not found in the tree"), set()),
        (saying(500, "gone"), set()),
        (telling({"manifest": "{"}), set()),
    ],
    ids=["docker", "plain", "two", "bare", "none yet", "gone", "trouble", "odd"],
)
async def test_what_a_pods_containers_of_ours_really_run_is_asked(
    door: Door, answer: Handler, digests: set[str]
) -> None:
    """A bare id is the hash of a configuration and cannot be compared; a sidecar's does not matter."""
    seen = await look(door, running(), pods(pod_node(1), answer=answer), target=PINNED)
    assert seen.workloads
    assert [pod.digests for pod in seen.workloads.pods] == [digests]
    (request,) = [request for request in door.asked if request.path.endswith("/resource")]
    wanted = {"namespace": "shop", "resourceName": "pod-1", "version": "v1", "kind": "Pod"}
    assert dict(request.query) == wanted | {"project": "default"}


async def test_only_a_few_ready_pods_are_asked(door: Door) -> None:
    """Five tell as much as fifty."""
    nodes = [pod_node(0, "0/1"), *(pod_node(number) for number in range(1, 8))]
    await look(door, running(), pods(*nodes, answer=live(f"{IMAGE}@{DIGEST}")), target=PINNED)
    names = [request.query["resourceName"] for request in door.asked if "resourceName" in request.query]
    assert sorted(names) == [f"pod-{number}" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (running(), replace(TARGET, is_tag_only=True)),
        (running("Progressing"), PINNED),
        (running(sync="OutOfSync"), PINNED),
    ],
    ids=["tag only", "not healthy", "not synced"],
)
async def test_pods_are_not_asked_before_it_matters(door: Door, found: dict[str, Any], target: Any) -> None:
    """Each question goes through Argo CD to the cluster."""
    routes = pods(pod_node(1), answer=live(f"{IMAGE}@{DIGEST}"))
    assert (await look(door, found, routes, target=target)).workloads
    assert "/resource" not in asked(door)


KNOWN, NOBODY = telling({"loggedIn": True, "username": "bot"}), telling({"loggedIn": False})


@pytest.mark.parametrize(
    ("answer", "beside", "outcome", "says"),
    [
        (saying(401, "invalid session: token is expired"), {}, Outcome.TOKEN_EXPIRED, "token is expired"),
        (saying(403, "permission denied"), {"user": NOBODY}, Outcome.TOKEN_EXPIRED, "taken for nobody's"),
        (
            saying(403, "permission denied"),
            {"user": KNOWN, "may": NO},
            Outcome.NO_PERMISSION,
            "needs applications, get, default/manual-app-prod",
        ),
        (
            saying(403, "permission denied"),
            {"user": KNOWN, "may": YES},
            Outcome.MISSING,
            "has no application",
        ),
        (saying(403, "permission denied"), {}, Outcome.NO_PERMISSION, "needs applications, get"),
        (saying(404, "not found"), {}, Outcome.MISSING, "in the project “default”"),
        (saying(400, "bad project"), {}, None, "refuses to tell about “manual-app-prod”: bad project"),
    ],
    ids=["401", "anonymous", "forbidden", "missing though allowed", "nobody tells", "404", "another"],
)
async def test_a_refusal_has_a_name_and_says_what_to_do(
    door: Door, answer: Handler, beside: dict[str, Handler], outcome: Outcome | None, says: str
) -> None:
    """With anonymous access an expired token is only forgotten; and a missing application may look forbidden."""
    unknown = answering("404 page not found", "text/plain", 404)
    routes = {
        HERE: answer,
        "/api/v1/session/userinfo": beside.get("user", unknown),
        MAY_GET: beside.get("may", unknown),
    }
    door.answer = routing(routes)
    async with client(door) as argo:
        with pytest.raises(Failed) as caught:
            await argo.observe(TARGET, APPLICATION, refresh=False)
    assert caught.value.outcome is outcome
    assert says in str(caught.value)
    assert TOKEN not in str(caught.value)


async def test_each_right_is_asked_for_by_the_words_of_the_policy(door: Door) -> None:
    """Within its namespace where the application has one; nobody knows by which name an ApplicationSet comes."""
    granted = f"{CAN_I}/applications/get/default/team-a/manual-app-prod"
    others = (
        f"{CAN_I}/applications/sync/default/team-a/manual-app-prod",
        f"{CAN_I}/logs/get/default/team-a/manual-app-prod",
        f"{CAN_I}/applicationsets/get/default/team-a/*",
    )
    door.answer = routing({granted: YES} | dict.fromkeys(others, NO))
    async with client(door) as argo:
        rights = await argo.rights(replace(APPLICATION, namespace="team-a"))
    assert [(right.right, right.is_granted) for right in rights] == [
        ("applications, get, default/team-a/manual-app-prod", True),
        ("applications, sync, default/team-a/manual-app-prod", False),
        ("logs, get, default/team-a/manual-app-prod", False),
        ("applicationsets, get, default/team-a/*", False),
    ]


@pytest.mark.parametrize(
    ("user", "list_", "known", "anonymous"),
    [
        (KNOWN, telling({"items": None}), True, False),
        (NOBODY, telling({"items": None}), False, True),
        (NOBODY, saying(403, "permission denied"), False, True),
        (NOBODY, saying(401, "no session information"), False, False),
        (NOBODY, saying(500, "no"), False, False),
    ],
)
async def test_an_anonymous_visitor_is_told_from_one_who_is_sent_away(
    door: Door, user: Handler, list_: Handler, known: bool, anonymous: bool
) -> None:
    """An Argo CD with anonymous access never says that a token is wrong."""
    version = telling({"Version": "v3.5.1"})
    routes = {"/api/version": version, "/api/v1/session/userinfo": user, "/api/v1/applications": list_}
    door.answer = routing(routes)
    async with client(door) as argo:
        found = await argo.identity("main")
    assert (found.is_logged_in, found.is_anonymous) == (known, anonymous)


HERE_NOW = {"syncResult": {"revision": OURS}, "finishedAt": "2026-11-24T16:00:00Z"}
BEFORE = {"syncResult": {"revision": OLD}, "finishedAt": "2026-11-24T16:00:00Z"}
DRY = {"sync": {"dryRun": True, "revision": OURS}}


@pytest.mark.parametrize(
    ("operation", "compared", "matters"),
    [
        (None, "16:30", False),
        (BEFORE, "16:30", False),
        (BEFORE, "16:10", True),
        (HERE_NOW, "16:30", True),
        (HERE_NOW | {"operation": DRY}, "16:30", False),
    ],
    ids=["never synced", "an old sync", "a commit came right after", "drifted since", "rehearsed"],
)
async def test_pods_are_not_asked_for_while_somebody_has_to_sync(
    door: Door, operation: dict[str, Any] | None, compared: str, matters: bool
) -> None:
    """That can take a day, and the manifests are megabytes; a rollout that can still be followed is."""
    whole = {"phase": "Succeeded", "operation": {"sync": {}}}
    status = {
        "sync": {"status": "OutOfSync", "revision": OURS},
        "operationState": whole | operation if operation else None,
        "reconciledAt": f"2026-11-24T{compared}:00Z",
    }
    seen = await look(door, application(automated=False, status=status), pods(answer=saying(404, "none")))
    assert (seen.workloads is not None) is matters
    assert ("/managed-resources" in asked(door)) is matters
