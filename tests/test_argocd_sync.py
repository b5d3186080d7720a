"""Syncs and their rehearsals, against a small Argo CD that only knows operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from argocd_door import HERE, TOKEN, Door, hang, saying, telling
from rollout_cases import APPLICATION, LATER, OURS

from bot.core.errors import Refused, Unavailable
from bot.integrations import argocd_sync
from bot.integrations.argocd import ArgoCD, Server

SOURCE = {"repoURL": "https://git.acme.example/charts", "path": "."}
DONE = {"phase": "Succeeded", "finishedAt": "2026-08-24T09:00:10Z"}


class Syncing:
    """One application; an operation is queued by a POST, and over after so many looks."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.spec: dict[str, Any] = {"source": SOURCE}
        self.resources: list[dict[str, Any]] = []
        self.sync = {"status": "OutOfSync", "revision": OURS}
        self.reconciled_at = "2026-08-24T09:00:00Z"
        self.operation: dict[str, Any] | None = None
        self.state: dict[str, Any] | None = None
        self.end: dict[str, Any] = DONE
        self.looks_until_end = 1
        self.before_post: Callable[[], web.Response | None] = lambda: None
        self.after_post: Callable[[], Any] = lambda: None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == HERE and request.method == "GET":
            return await telling(self._look())(request)
        if request.path != f"{HERE}/sync" or request.method != "POST":
            return await saying(404, "unknown")(request)
        assert request.headers["Content-Type"] == "application/json"
        self.posts.append(await request.json())
        if refused := self.before_post():
            return refused
        if self.operation:
            return error(400, "another operation is already in progress")
        body = self.posts[-1]
        sync = {"dryRun": body.get("dryRun", False), "revision": body.get("revision", "")}
        self.operation, self.state = {"sync": sync, "info": body.get("infos")}, None
        return await (self.after_post() or telling(self._object()))(request)

    def _look(self) -> dict[str, Any]:
        if self.operation and self.looks_until_end <= 0:
            self.state, self.operation = {"operation": self.operation} | self.end, None
        self.looks_until_end -= 1 if self.operation else 0
        return self._object()

    def _object(self) -> dict[str, Any]:
        status = {
            "sync": self.sync,
            "operationState": self.state,
            "resources": self.resources,
            "reconciledAt": self.reconciled_at,
        }
        found = {"metadata": {"name": APPLICATION.name}, "spec": self.spec, "status": status}
        return found | ({"operation": self.operation} if self.operation else {})


def error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message, "message": message, "code": 9}, status=status)


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(argocd_sync, "LOOK_EVERY", 0.01)
    made = Door()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def syncing(door: Door) -> Syncing:
    made = Syncing()
    door.answer = made.answer
    return made


@pytest.fixture
async def argo(door: Door) -> AsyncIterator[ArgoCD]:
    made = ArgoCD(
        servers={"main": Server(url=door.url, token=TOKEN)},
        call_limit=timedelta(seconds=2),
        sync_limit=timedelta(seconds=0.5),
    )
    yield made
    await made.aclose()


async def begin(
    argo: ArgoCD, *, revision: str | None = OURS, promotion: str = "pr-7", **application: Any
) -> None:
    await argo.sync(replace(APPLICATION, **application), revision=revision, promotion=promotion)


def mark(body: dict[str, Any], name: str) -> str:
    return next(item["value"] for item in body["infos"] if item["name"] == name)


async def test_a_sync_asks_for_our_commit_without_pruning(syncing: Syncing, argo: ArgoCD) -> None:
    """Marked with the promotion; nothing is said of options, so the application's own stay."""
    await begin(argo)
    (body,) = syncing.posts
    assert mark(body, "promote-bot/promotion") == "pr-7"
    infos = body.pop("infos")
    assert len(infos) == 2
    assert body == {"name": "manual-app-prod", "project": "default", "prune": False, "revision": OURS}


async def test_a_sync_says_the_namespace_of_the_application(syncing: Syncing, argo: ArgoCD) -> None:
    """Where it has one of its own."""
    await begin(argo, namespace="team-a")
    assert syncing.posts[0]["appNamespace"] == "team-a"


@pytest.mark.parametrize(
    ("spec", "revision"),
    [
        ({"source": SOURCE}, None),
        ({"sources": [SOURCE, SOURCE]}, OURS),
        ({"sourceHydrator": {"drySource": SOURCE}}, OURS),
    ],
    ids=["none given", "several sources", "hydrated"],
)
async def test_a_commit_that_is_not_the_one_revision_is_not_named(
    syncing: Syncing, argo: ArgoCD, spec: dict[str, Any], revision: str | None
) -> None:
    """Argo CD then takes the newest of each branch."""
    syncing.spec = spec
    await begin(argo, revision=revision)
    assert "revision" not in syncing.posts[0]


async def test_a_sync_that_runs_for_the_promotion_is_not_begun_again(syncing: Syncing, argo: ArgoCD) -> None:
    """Queued, running, or over and not looked at since: somebody pressed twice, or we forgot that we asked."""
    await begin(argo)
    await begin(argo)
    syncing.looks_until_end = 0
    await begin(argo)
    assert syncing.state
    assert len(syncing.posts) == 1


@pytest.mark.parametrize(
    ("end", "reconciled_at"),
    [
        ({"phase": "Failed", "finishedAt": "2026-08-24T09:00:10Z"}, "2026-08-24T09:00:00Z"),
        (DONE, "2026-08-24T09:05:00Z"),
    ],
    ids=["failed", "succeeded, and differs since"],
)
async def test_a_sync_that_is_over_may_be_asked_for_again(
    syncing: Syncing, argo: ArgoCD, end: dict[str, Any], reconciled_at: str
) -> None:
    """It failed, or something has changed since."""
    syncing.end, syncing.looks_until_end = end, 0
    await begin(argo)
    syncing.reconciled_at = reconciled_at
    await begin(argo)
    assert len(syncing.posts) == 2


async def test_a_sync_for_another_promotion_is_in_the_way(syncing: Syncing, argo: ArgoCD) -> None:
    """It is not taken for ours."""
    syncing.looks_until_end = 100
    await begin(argo, promotion="pr-6")
    with pytest.raises(
        Refused, match=r"already in progress\. Wait until that one has ended, and try again\."
    ):
        await begin(argo)


@pytest.mark.parametrize("unclear", [hang, saying(502, "bad gateway")], ids=["no answer", "a proxy's error"])
async def test_a_sync_whose_answer_is_lost_is_found_again(
    syncing: Syncing, argo: ArgoCD, unclear: Any
) -> None:
    """It is looked for, and not asked for twice."""
    syncing.after_post = lambda: unclear
    await begin(argo)
    assert len(syncing.posts) == 1
    assert syncing.operation


async def test_a_sync_that_cannot_be_found_is_unclear(syncing: Syncing, argo: ArgoCD) -> None:
    """One begun earlier for the same promotion is not this one."""
    info = [{"name": "promote-bot/promotion", "value": "pr-7"}]
    syncing.state = {"phase": "Failed", "operation": {"info": info}}
    syncing.before_post = lambda: error(503, "try later")
    with pytest.raises(Unavailable, match="try later") as caught:
        await begin(argo)
    assert caught.value.maybe_done
    assert len(syncing.posts) == 1


async def test_a_sync_is_unclear_where_nobody_answers_any_more(
    syncing: Syncing, argo: ArgoCD, door: Door
) -> None:
    """The server went away with the request."""

    def go() -> Any:
        door.answer = saying(503, "gone")
        return saying(503, "gone")

    syncing.after_post = go
    with pytest.raises(Unavailable) as caught:
        await begin(argo)
    assert caught.value.maybe_done


@pytest.mark.parametrize(
    ("status", "words", "todo"),
    [
        (400, "another operation is already in progress", "Wait until that one has ended"),
        (403, "cannot sync: blocked by sync window", "Wait until the window lets it"),
        (
            400,
            f"Cannot sync to {OURS}: auto-sync currently set to main",
            "It syncs this application by itself",
        ),
        (
            403,
            "permission denied: applications, sync, default/manual-app-prod, sub: bot",
            "Give the bot's account applications, sync, default/manual-app-prod",
        ),
        (
            403,
            "permission denied: applications, override, default/manual-app-prod, sub: bot",
            "It asks for that where a sync names a commit; press Sync in Argo CD.",
        ),
        (400, "application is deleting", "Put that right, and try again"),
    ],
)
async def test_a_no_is_told_in_argo_cds_words_and_with_what_to_do(
    syncing: Syncing, argo: ArgoCD, status: int, words: str, todo: str
) -> None:
    """A sync and a rehearsal alike; it is not tried again."""
    syncing.before_post = lambda: error(status, words)
    for asking in (begin(argo), argo.rehearse(APPLICATION, revision=OURS)):
        with pytest.raises(Refused) as caught:
            await asking
        assert f"does not sync “manual-app-prod”: {words}. {todo}" in str(caught.value)
    assert len(syncing.posts) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "expired or was revoked"), (404, "has no application"), (403, "does not let the bot see")],
)
async def test_a_stranger_is_refused_before_anything_is_asked_for(
    door: Door, argo: ArgoCD, status: int, says: str
) -> None:
    """Nothing is posted."""
    door.answer = saying(status, "no")
    with pytest.raises(Refused, match=says):
        await begin(argo)
    assert {request.method for request in door.asked} == {"GET"}


async def test_a_rehearsal_changes_nothing_and_names_what_a_sync_would_change(
    syncing: Syncing, argo: ArgoCD
) -> None:
    """What differs now, and what the dry run touched; what only has to be removed stays."""
    syncing.resources = [
        {"kind": "Service", "name": "app", "status": "OutOfSync"},
        {"kind": "ConfigMap", "name": "old", "status": "OutOfSync", "requiresPruning": True},
        {"kind": "Secret", "name": "app", "status": "Synced"},
    ]
    results = [
        {"kind": "Deployment", "name": "app", "status": "Synced"},
        {"kind": "ConfigMap", "name": "old", "status": "PruneSkipped"},
        {"kind": "Job", "name": "migrate", "hookType": "PreSync"},
    ]
    syncing.end = DONE | {"syncResult": {"resources": results}}
    syncing.looks_until_end = 3
    found = await argo.rehearse(APPLICATION, revision=OURS)
    assert found == ("Deployment/app", "Service/app")
    (body,) = syncing.posts
    assert (body["dryRun"], body["prune"], body["revision"]) == (True, False, OURS)


async def test_a_rehearsal_that_fails_says_why(syncing: Syncing, argo: ArgoCD) -> None:
    """In the words of what failed, else in the operation's own."""
    broken = {"kind": "Deployment", "name": "app", "status": "SyncFailed", "message": "denied by a webhook"}
    syncing.end = {"phase": "Failed", "message": "one or more failed", "syncResult": {"resources": [broken]}}
    with pytest.raises(
        Refused, match=r"would fail: Deployment/app: denied by a webhook\. Nothing was changed"
    ):
        await argo.rehearse(APPLICATION, revision=OURS)
    syncing.end, syncing.looks_until_end = {"phase": "Error", "message": "cannot render"}, 1
    with pytest.raises(Refused, match="would fail: cannot render"):
        await argo.rehearse(APPLICATION, revision=OURS)


async def test_a_rehearsal_waits_for_its_own_end(syncing: Syncing, argo: ArgoCD) -> None:
    """One that does not come, or another operation's, is none."""
    syncing.looks_until_end = 1_000_000
    with pytest.raises(Unavailable, match=r"the dry run at .* did not end within 0\.5 s"):
        await argo.rehearse(APPLICATION, revision=OURS)

    def overtaken() -> None:
        syncing.operation, syncing.state = None, DONE | {"operation": {"info": []}}

    syncing.operation, syncing.looks_until_end = None, 0
    asking = asyncio.create_task(argo.rehearse(APPLICATION, revision=OURS))
    syncing.after_post = overtaken
    with pytest.raises(Unavailable, match="did not end"):
        await asking


@pytest.mark.parametrize("looks", [100, 0], ids=["it runs", "it is over"])
async def test_a_sync_that_is_under_way_is_neither_rehearsed_nor_begun_again(
    syncing: Syncing, argo: ArgoCD, looks: int
) -> None:
    """A dry run would take the place of its record, and with that the mark that keeps it from being begun twice."""
    syncing.looks_until_end = looks
    await begin(argo)
    assert await argo.rehearse(APPLICATION, revision=OURS, promotion="pr-7") == ()
    if not looks:
        syncing.sync["status"], syncing.reconciled_at = "Synced", "2026-08-24T09:05:00Z"
    await begin(argo)
    assert len(syncing.posts) == 1


async def test_a_sync_of_another_promotion_does_not_stand_for_the_rehearsal(
    syncing: Syncing, argo: ArgoCD
) -> None:
    """Nor does one that nobody marked."""
    for info in ([{"name": "promote-bot/promotion", "value": "pr-6"}], []):
        syncing.state, syncing.looks_until_end = DONE | {"operation": {"info": info}}, 0
        await argo.rehearse(APPLICATION, revision=OURS, promotion="pr-7")
        await argo.rehearse(APPLICATION, revision=OURS)
    assert [body.get("dryRun") for body in syncing.posts] == [True] * 4


async def rehearsed(syncing: Syncing, argo: ArgoCD) -> None:
    """A dry run that went well."""
    syncing.looks_until_end = 0
    await argo.rehearse(APPLICATION, revision=OURS, promotion="pr-7")
    assert syncing.posts.pop()["dryRun"]


@pytest.mark.parametrize(
    ("sync", "says"),
    [
        ({"status": "Synced"}, "is Synced by now: there is nothing left to sync"),
        ({"status": "Unknown"}, "is Unknown by now, so nobody knows what a sync would change"),
        ({"status": ""}, "is not known by now"),
        ({"revision": LATER}, f"another commit since the dry run: {LATER}, not {OURS}"),
        ({"revision": "", "revisions": [OURS, LATER]}, f"since the dry run: {OURS},{LATER}, not {OURS}"),
    ],
)
async def test_what_changed_since_the_dry_run_is_not_synced(
    syncing: Syncing, argo: ArgoCD, sync: dict[str, Any], says: str
) -> None:
    """What somebody agreed to is what was rehearsed: the rest is told, and nothing is posted."""
    await rehearsed(syncing, argo)
    syncing.sync |= sync
    with pytest.raises(Refused, match=says):
        await begin(argo)
    assert syncing.posts == []


async def test_what_was_rehearsed_is_synced(syncing: Syncing, argo: ArgoCD) -> None:
    """Also where the branch had gone on before the dry run already."""
    syncing.sync["revision"] = LATER
    await rehearsed(syncing, argo)
    await begin(argo)
    assert len(syncing.posts) == 1
