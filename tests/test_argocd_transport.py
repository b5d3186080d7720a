"""Everything that can stand between the bot and Argo CD: each wrong answer becomes the right error, without a secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from argocd_door import (
    ANSWER,
    HERE,
    TOKEN,
    Door,
    Handler,
    answering,
    hang,
    routing,
    saying,
    telling,
    wait_until,
)
from rollout_cases import APPLICATION, TARGET

from bot.core.errors import Failed, PromoteError, Unavailable
from bot.core.facts import ApplicationFacts
from bot.integrations import argocd_http
from bot.integrations.argocd import ArgoCD, Server


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


async def look(
    url: str, *, refresh: bool = False, token: str = TOKEN, patience: float = 5, **extra: Any
) -> ApplicationFacts:
    """One look by a client of its own; it waits so many seconds for a call, and for a refresh."""
    argo = ArgoCD(
        servers={"main": Server(url=url, token=token, **extra)},
        call_limit=timedelta(seconds=max(patience, 1)),  # under load, a plain look must still get through
        refresh_limit=timedelta(seconds=patience),
    )
    try:
        return await argo.observe(TARGET, APPLICATION, refresh=refresh)
    finally:
        await argo.aclose()


async def trouble(url: str, **how: Any) -> PromoteError:
    """The error that a look ends in; none of them holds the token."""
    with pytest.raises(PromoteError) as caught:
        await look(url, **how)
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_the_call_carries_token_project_and_extra_headers_below_the_servers_own_path(
    door: Door,
) -> None:
    """An Argo CD with a root path, behind a proxy that wants a word of its own."""
    await look(f"{door.url}/argo/", headers={"CF-Access-Client-Id": "bot"}, token=f"{TOKEN}\n")
    (request,) = door.asked
    assert request.path == f"/argo{HERE}"
    assert dict(request.query) == {"project": "default"}
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["CF-Access-Client-Id"] == "bot"


PAGE = "<html><body>Please sign in</body></html>"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answering(PAGE, "text/html"), "it answers 200 with text/html"),
        (
            answering("", status=307, Location="https://login.acme.example/?session=s3cret"),
            "it answers 307 and sends to login.acme.example",
        ),
        (answering("", status=302, Location="/login"), "it answers 302 and sends to another path"),
        (answering(PAGE, "text/html", 403), "it answers 403 with text/html"),
        (answering("404 page not found", "text/plain", 404), "it answers 404 with text/plain"),
        (answering("Invalid content type", "text/plain", 415), "it answers 415 with text/plain"),
        (answering("{not json"), "it answers 200 with application/json"),
        (answering("[]"), "answers unlike an Argo CD API"),
        (answering("{}"), "answers unlike an Argo CD API"),
        (answering('{"metadata": {"name": 7}}'), "answers unlike an Argo CD API"),
    ],
    ids=[
        "login page",
        "to TLS",
        "to login",
        "a guard",
        "wrong path",
        "415",
        "cut off",
        "list",
        "empty",
        "odd",
    ],
)
async def test_what_is_no_argo_cd_api_is_called_so(door: Door, answer: Handler, said: str) -> None:
    """A redirect is not followed and a page is not read: the address is wrong, or something stands before it."""
    door.answer = answer
    error = await trouble(door.url)
    assert isinstance(error, Unavailable)
    assert said in str(error)
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_unavailable_with_its_own_words(door: Door, status: int) -> None:
    """Trying again may help."""
    door.answer = saying(status, "the cache lost its key")
    error = await trouble(door.url)
    assert isinstance(error, Unavailable)
    assert f"answers {status}" in str(error)
    assert "the cache lost its key" in str(error)


async def test_a_proxys_error_page_is_not_shown(door: Door) -> None:
    """Nobody wants to read HTML in Slack."""
    door.answer = answering(PAGE, "text/html", 503)
    assert str(await trouble(door.url)).endswith("answers 503 Service Unavailable")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("86400", 300), ("soon", None), ("", None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0)],
)
async def test_the_server_says_when_to_ask_again(door: Door, header: str, seconds: float | None) -> None:
    """Retry-After is passed on, within reason."""
    door.answer = saying(429, "slow down", Retry_After=header)
    error = await trouble(door.url)
    assert isinstance(error, Unavailable)
    assert error.retry_after == seconds


async def test_the_server_may_name_a_date_to_ask_again(door: Door) -> None:
    """Proxies do."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    door.answer = saying(503, "maintenance", Retry_After=at)
    error = await trouble(door.url)
    assert isinstance(error, Unavailable)
    assert error.retry_after == pytest.approx(60, abs=5)


def nobody() -> str:
    """An address where nobody listens: the system gives such a low port to no other test."""
    return "http://127.0.0.1:1"


async def test_nobody_at_the_address_is_unavailable() -> None:
    """A refused connection, in the system's words."""
    error = await trouble(nobody())
    assert isinstance(error, Unavailable)
    assert "cannot be reached" in str(error)


async def test_a_server_that_hangs_is_unavailable(door: Door) -> None:
    """After the limit, which the message names."""
    door.answer = hang
    error = await trouble(door.url, patience=1)
    assert isinstance(error, Unavailable)
    assert "did not answer within 1 s" in str(error)


@pytest.mark.parametrize(
    "late",
    [hang, saying(500, "application refresh deadline exceeded"), answering(PAGE, "text/html", 504)],
    ids=["hangs", "deadline", "a proxy's patience"],
)
async def test_a_refresh_that_takes_too_long_is_followed_by_a_plain_look(door: Door, late: Handler) -> None:
    """It proves nothing: the comparison may come any moment, or never."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (late if "refresh" in request.query else answering(json.dumps(ANSWER)))(request)

    door.answer = answer
    assert (await look(door.url, refresh=True, patience=0.3)).sync == "Unknown"
    assert [request.query.get("refresh") for request in door.asked] == ["normal", None]


@pytest.mark.parametrize(("refresh", "at_once"), [(True, 2), (False, 4)])
async def test_only_a_few_calls_are_under_way_at_once(door: Door, refresh: bool, at_once: int) -> None:
    """A slow Argo CD is not helped by more questions, and those who wait for comparisons leave room for looks."""
    release, waiting = asyncio.Event(), []

    async def answer(request: web.Request) -> web.StreamResponse:
        if release.is_set() or ("refresh" not in request.query and refresh):
            return await answering(json.dumps(ANSWER))(request)
        waiting.append(request)
        await release.wait()
        return await answering(json.dumps(ANSWER))(request)

    door.answer = answer
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    slow = [asyncio.create_task(argo.observe(TARGET, APPLICATION, refresh=refresh)) for _ in range(6)]
    await wait_until(lambda: len(waiting) == at_once, "as many calls as may be are under way")
    if refresh:
        assert (await argo.observe(TARGET, APPLICATION, refresh=False)).sync == "Unknown"
    assert len(waiting) == at_once
    release.set()
    assert len(await asyncio.gather(*slow)) == 6
    await argo.aclose()


SYNCED = {"status": "Synced", "revision": "b" * 40}
SUCCEEDED = {"phase": "Succeeded", "operation": {"sync": {}}}


@pytest.mark.parametrize(
    ("application", "matters"),
    [
        ({"status": {"sync": SYNCED}}, True),
        ({"status": {"sync": SYNCED | {"status": "OutOfSync"}, "operationState": SUCCEEDED}}, True),
        ({"status": {"sync": SYNCED | {"status": "OutOfSync"}}}, False),
        ({"status": {"sync": SYNCED}, "operation": {}}, False),
        ({"status": {"sync": SYNCED | {"revision": "main"}}}, False),
        ({"status": {"sync": SYNCED}, "spec": {"sources": [{}]}}, False),
    ],
    ids=["synced", "just synced", "not synced", "being synced", "not compared", "not followed"],
)
async def test_pods_are_asked_for_where_they_tell_something(
    door: Door, application: dict[str, Any], matters: bool
) -> None:
    """The manifests of a large application are megabytes: they are fetched when something is applied, and not before."""
    source = {
        "repoURL": TARGET.repository.url,
        "targetRevision": "main",
        "helm": {"valueFiles": [TARGET.path]},
    }
    spec = {"source": source, "syncPolicy": {"automated": {}}}
    door.answer = answering(json.dumps(ANSWER | {"spec": spec} | application))
    assert ((await look(door.url)).workloads is not None) is matters
    parts = {request.path.removeprefix(HERE) for request in door.asked} - {"", "/syncwindows"}
    assert parts == ({"/managed-resources", "/resource-tree"} if matters else set())


async def test_pods_that_cannot_be_read_now_do_not_hide_the_rest(door: Door) -> None:
    """The cache behind the resource tree is lost now and then; sync and health are still told."""
    source = {"repoURL": TARGET.repository.url, "helm": {"valueFiles": [TARGET.path]}}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/resource-tree"):
            return await saying(500, "error getting cached app resource tree: cache: key is missing")(request)
        return await answering(json.dumps(ANSWER | {"spec": {"source": source}, "status": {"sync": SYNCED}}))(
            request
        )

    door.answer = answer
    found = await look(door.url)
    assert (found.sync, found.workloads) == ("Synced", None)


async def test_another_refusal_is_told_in_argo_cds_words(door: Door) -> None:
    """And in no more than 300 characters of them, without credentials."""
    door.answer = saying(400, f"cannot clone https://bot:hunter2@git.acme.example/x {TOKEN} {'why ' * 200}")
    error = await trouble(door.url)
    assert isinstance(error, Failed)
    assert "cannot clone https://git.acme.example/x *** why" in str(error)
    assert "hunter2" not in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize("token", ["two words.a.b", "clé.a.b", "a.b\nX-Admin: yes"])
def test_a_token_that_no_header_can_hold_is_refused_at_once(token: str) -> None:
    """A wrong secret is an error of the start, and is not printed."""
    with pytest.raises(Failed, match="holds characters that no token has") as caught:
        ArgoCD(servers={"main": Server(url="https://argocd.acme.example", token=token)})
    assert token not in str(caught.value)


def test_a_server_does_not_print_its_secrets() -> None:
    """Configurations are logged now and then."""
    server = Server(url="https://argocd.acme.example", token=TOKEN, headers={"X-Key": "hunter2"})
    assert TOKEN not in repr(server)
    assert "hunter2" not in repr(server)


async def test_the_user_in_an_address_is_neither_sent_nor_shown(door: Door) -> None:
    """The token alone says who we are."""
    door.answer = saying(500, "broken")
    error = await trouble(door.url.replace("http://", "http://bot:hunter2@"))
    assert "hunter2" not in str(error)
    assert door.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("claims", "expires"),
    [
        ({"exp": 1_790_000_000}, datetime.fromtimestamp(1_790_000_000, tz=UTC)),
        ({"sub": "promote-bot"}, None),
        ({"exp": "never"}, None),
        ([], None),
    ],
)
async def test_the_identity_tells_when_the_token_ends(
    door: Door, claims: object, expires: datetime | None
) -> None:
    """So that the check command can warn in time."""
    door.answer = answering('{"Version": "v3.5.1", "loggedIn": true, "username": "promote-bot"}')
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    argo = ArgoCD(servers={"main": Server(url=door.url, token=f"header.{payload}.signature")})
    identity = await argo.identity("main")
    await argo.aclose()
    assert (identity.version, identity.username, identity.token_expires_at) == (
        "v3.5.1",
        "promote-bot",
        expires,
    )


@pytest.mark.parametrize(
    ("answer", "ended"), [(telling(ANSWER), "2xx"), (saying(404, "gone"), "4xx"), (saying(503, "no"), "5xx")]
)
async def test_every_call_is_counted(door: Door, answer: Handler, ended: str) -> None:
    """By server, by what was asked, and by how it ended."""
    counted = []
    door.answer = answer
    argo = ArgoCD(
        servers={"main": Server(url=door.url, token=TOKEN)}, count=lambda *what: counted.append(what)
    )
    for refresh in (False, True):
        with contextlib.suppress(PromoteError):
            await argo.observe(TARGET, APPLICATION, refresh=refresh)
    await argo.aclose()
    assert counted == [("main", "application", ended), ("main", "refresh", ended)]


async def test_a_call_without_an_answer_is_counted_too(door: Door) -> None:
    """A server that hangs, and one that is not there."""
    counted = []
    door.answer = hang
    argo = ArgoCD(
        servers={"slow": Server(url=door.url, token=TOKEN), "away": Server(url=nobody(), token=TOKEN)},
        call_limit=timedelta(seconds=0.2),
        count=lambda *what: counted.append(what),
    )
    for server in ("slow", "away"):
        with pytest.raises(Unavailable):
            await argo.observe(TARGET, replace(APPLICATION, server=server), refresh=False)
    await argo.aclose()
    assert counted == [("slow", "application", "timeout"), ("away", "application", "unreachable")]


NESTED = "[" * 200_000


@pytest.mark.parametrize(
    "answer",
    [
        answering(NESTED),
        answering(f"data:{NESTED}", "text/event-stream"),
    ],
)
async def test_an_answer_that_is_too_deep_is_none(door: Door, answer: Handler) -> None:
    """It is told like any other that cannot be read."""
    door.answer = answer
    assert isinstance(await trouble(door.url), Unavailable)


async def test_manifests_that_are_too_deep_hide_only_themselves(door: Door) -> None:
    """Argo CD hands them on as they are in git."""
    source = {"repoURL": TARGET.repository.url, "helm": {"valueFiles": [TARGET.path]}}
    here = ANSWER | {"spec": {"source": source}, "status": {"sync": SYNCED}}
    managed = {"items": [{"targetState": NESTED}]}
    door.answer = routing(
        {
            HERE: telling(here),
            f"{HERE}/managed-resources": telling(managed),
            f"{HERE}/resource-tree": telling({}),
        }
    )
    found = await look(door.url)
    assert (found.sync, found.workloads) == ("Synced", None)


async def test_an_answer_without_an_end_is_not_read_to_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's memory is filled with it."""
    monkeypatch.setattr(argocd_http, "LONGEST_BODY", 2**20)
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 2**26:
                await response.write(b" " * 2**16)
                sent += 2**16
        return response

    door.answer = answer
    assert "answers with more than 1 MB" in str(await trouble(door.url))
    assert sent < 2**26
