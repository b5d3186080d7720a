"""Webhooks: a push that a git host tells of is looked at at once; what is not proved does nothing."""

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from builders import target
from ci_world import GITHUB_SECRET, BuildServer, hearing_machines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, world_in

from bot.core.promotion import Phase
from bot.dev_lane import keep_noticed
from bot.settings import Settings, SettingsError
from bot.worker import end
from handlers.webhook import GITHUB_PATH, GITLAB_PATH, LARGEST, is_at

GITLAB_SECRET = "a-secret-for-gitlab"
KEY = b"0123456789abcdef0123456789abcdef"
SIGNING_TOKEN = "whsec_" + base64.b64encode(KEY).decode()
BOTH = {"GITHUB_WEBHOOK_SECRET": GITHUB_SECRET, "GITLAB_WEBHOOK_SECRET": GITLAB_SECRET}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
async def host(world: World) -> AsyncIterator[BuildServer]:
    async with hearing_machines(world, environ=BOTH) as server:
        yield server


def github_push(world: World, **changes: Any) -> bytes:
    """What GitHub says of a push, as far as anybody needs it."""
    pushed = {"ref": "refs/heads/main", "repository": {"full_name": name_of(world)}, "commits": []}
    return json.dumps(pushed | changes).encode()


def gitlab_push(world: World, **changes: Any) -> bytes:
    """What GitLab says of a push."""
    pushed = {
        "object_kind": "push",
        "ref": "refs/heads/main",
        "project": {"path_with_namespace": name_of(world)},
    }
    return json.dumps(pushed | changes).encode()


def name_of(world: World) -> str:
    """The repository as its host would call it: the last two parts of its address."""
    return "/".join(world.repository.parts[-2:]).removesuffix(".git")


def from_github(body: bytes, *, secret: str = GITHUB_SECRET, event: str = "push") -> dict[str, str]:
    """The headers of GitHub's call."""
    proof = hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-Hub-Signature-256": f"sha256={proof}",
    }


def from_gitlab(token: str = GITLAB_SECRET) -> dict[str, str]:
    """The headers of GitLab's call with a secret that is sent."""
    return {"Content-Type": "application/json", "X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": token}


def signed_by_gitlab(body: bytes, *, at: int, key: bytes = KEY, id: str = "8a3f") -> dict[str, str]:
    """The headers of GitLab's call with a secret that signs."""
    proof = base64.b64encode(hmac.digest(key, f"{id}.{at}.".encode() + body, "sha256")).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{proof}",
    }


# --- what a push does


@pytest.mark.parametrize("path", [GITHUB_PATH, GITLAB_PATH])
async def test_a_push_has_the_branch_looked_at(world: World, host: BuildServer, path: str) -> None:
    """The call is left in the store, where every worker sees it."""
    body = github_push(world) if path == GITHUB_PATH else gitlab_push(world)
    headers = from_github(body) if path == GITHUB_PATH else from_gitlab()
    status, answer = await host.post(path, body, headers)
    assert (status, answer) == (202, {"ok": True, "sentence": "I look at it now."})
    first = await world.board.calls()
    assert list(first) == ["gitops"]
    await host.post(path, body, headers)
    assert (await world.board.calls())["gitops"] != first["gitops"]


async def test_a_worker_that_is_called_sees_the_commit_at_once(world: World, host: BuildServer) -> None:
    """Web and worker are two processes: the loop that looks hears of it within a second or two."""
    looking = asyncio.create_task(keep_noticed(world.new_noticing(), world.board))
    try:
        await asyncio.wait_for(first_look(world), 10)
        world.push_by_hand("dev", "17")
        asked_at = time.monotonic()
        await host.post(GITHUB_PATH, body := github_push(world), from_github(body))
        while not (found := await world.store.history(world.target("dev"))):
            await asyncio.sleep(0.05)
        took = time.monotonic() - asked_at
    finally:
        await end(looking)
    assert [(each.version, each.phase) for each in found] == [("17", Phase.COMMITTED)]
    assert took < 8  # far below the fifteen seconds after which it would be seen anyway


async def first_look(world: World) -> None:
    """Return when somebody has looked at the branch."""
    while await world.board.looked_at(f"{world.repository.as_uri()} main") is None:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"ref": "refs/heads/other"},
        {"ref": "refs/tags/main"},
        {"ref": "main"},
        {"ref": None},
        {"ref": ["refs/heads/main"]},
        {"repository": {"full_name": "acme/other"}},
        {"repository": {"full_name": ""}},
        {"repository": {"full_name": "/"}},
        {"repository": {}},
        {"repository": None},
        {"repository": "acme/manual-app-helm"},
    ],
    ids=str,
)
async def test_what_concerns_nobody_does_nothing(
    world: World, host: BuildServer, changes: dict[str, Any]
) -> None:
    """Other branches, tags and repositories are heard and forgotten."""
    body = github_push(world, **changes)
    status, answer = await host.post(GITHUB_PATH, body, from_github(body))
    assert (status, answer["sentence"]) == (202, "That is nothing that I look at.")
    assert await world.board.calls() == {}


async def test_a_ping_is_answered(world: World, host: BuildServer) -> None:
    """GitHub sends one when the webhook is made; it names no branch."""
    body = json.dumps({"zen": "Design for failure.", "repository": {"full_name": name_of(world)}}).encode()
    status, answer = await host.post(GITHUB_PATH, body, from_github(body, event="ping"))
    assert (status, answer["ok"]) == (202, True)
    assert await world.board.calls() == {}


@pytest.mark.parametrize(
    ("url", "path", "is_there"),
    [
        ("https://github.com/acme/manual-app-helm.git", "acme/manual-app-helm", True),
        ("https://github.com/acme/manual-app-helm", "Acme/Manual-App-Helm", True),
        ("ssh://git@github.example.com:2222/acme/manual-app-helm.git", "acme/manual-app-helm", True),
        ("git@github.com:acme/manual-app-helm.git", "acme/manual-app-helm", True),
        ("https://example.com/gitlab/group/sub/app.git", "group/sub/app", True),
        ("https://github.com/acme/manual-app-helm.git", "manual-app-helm", True),
        ("https://github.com/acme/manual-app-helm.git", "app-helm", False),
        ("https://github.com/acme/manual-app-helm.git", "evil/manual-app-helm", False),
        ("https://github.com/acme/manual-app-helm.git", "acme/manual-app", False),
        ("https://github.com/acme/manual-app-helm.git", "", False),
        ("https://github.com/acme/manual-app-helm.git", "/", False),
    ],
)
def test_a_repository_is_known_by_its_path(url: str, path: str, is_there: bool) -> None:
    """A host may have an internal name that the bot uses, so its name does not count."""
    repository = replace(target("dev").repository, url=url)
    assert is_at(repository, path) == is_there


# --- what is not proved


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        {"X-Hub-Signature-256": "é" * 71},
        {"X-Gitlab-Token": GITHUB_SECRET},
        from_github(b"another body"),
        from_github(b"{}", secret="another-secret!!"),
        {"X-Hub-Signature": "sha1=" + "0" * 40},
    ],
    ids=str,
)
async def test_a_call_that_github_has_not_signed_is_401(
    world: World, host: BuildServer, headers: Mapping[str, str]
) -> None:
    """Before a byte of the body is understood."""
    body = github_push(world)
    status, answer = await host.post(GITHUB_PATH, body, {"Content-Type": "application/json"} | dict(headers))
    assert (status, answer["ok"]) == (401, False)
    assert GITHUB_SECRET not in answer["sentence"]
    assert await world.board.calls() == {}


@pytest.mark.parametrize("token", ["", "another-secret!!", GITLAB_SECRET[:-1], GITLAB_SECRET + "x", "é"])
async def test_a_call_without_gitlabs_secret_is_401(world: World, host: BuildServer, token: str) -> None:
    """The whole secret, and nothing like it."""
    assert (await host.post(GITLAB_PATH, gitlab_push(world), from_gitlab(token)))[0] == 401
    assert await world.board.calls() == {}


async def test_gitlab_may_sign_instead(world: World) -> None:
    """With a signing token the secret itself is never sent, and one that is sent proves nothing."""
    async with hearing_machines(world, environ={"GITLAB_WEBHOOK_SECRET": SIGNING_TOKEN}) as host:
        body, now = gitlab_push(world), int(world.clock.now().timestamp())
        right = signed_by_gitlab(body, at=now)
        wrong = [
            from_gitlab(SIGNING_TOKEN),
            signed_by_gitlab(body + b" ", at=now),
            signed_by_gitlab(body, at=now, key=b"x" * 32),
            signed_by_gitlab(body, at=now - 301),
            signed_by_gitlab(body, at=now + 301),
            right | {"webhook-id": "other"},
            right | {"webhook-timestamp": str(now + 1)},
            right | {"webhook-timestamp": "²"},
            right | {"webhook-signature": right["webhook-signature"].removeprefix("v1,")},
        ]
        for headers in wrong:
            assert (await host.post(GITLAB_PATH, body, headers))[0] == 401
        assert await world.board.calls() == {}
        two = right | {
            "webhook-signature": f"v1,{base64.b64encode(bytes(32)).decode()} {right['webhook-signature']}"
        }
        for headers in (right, two):
            assert (await host.post(GITLAB_PATH, body, headers))[0] == 202
        assert list(await world.board.calls()) == ["gitops"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signature=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=90)
    | st.from_regex(r"sha256=[0-9a-f]{64}", fullmatch=True),
    body=st.binary(max_size=200),
)
async def test_no_guess_is_a_proof(world: World, host: BuildServer, signature: str, body: bytes) -> None:
    """Whatever somebody sends, it is 401 and leaves nothing behind."""
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature}
    assert (await host.post(GITHUB_PATH, body, headers))[0] == 401
    assert await world.board.calls() == {}


# --- what cannot be taken


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"push"', 400),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b" " * (LARGEST + 1), 413),
    ],
    ids=lambda case: case[:8] if isinstance(case, bytes) else str(case),
)
async def test_a_body_that_is_none_is_refused(host: BuildServer, body: bytes, status: int) -> None:
    """Also where it is signed: a host may send nonsense, and nothing breaks."""
    assert (await host.post(GITHUB_PATH, body, from_github(body)))[0] == status


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
async def test_another_content_type_is_refused(world: World, host: BuildServer, kind: str) -> None:
    """GitHub can be told to send a form; it has to be JSON."""
    body = github_push(world)
    status, answer = await host.post(GITHUB_PATH, body, from_github(body) | {"Content-Type": kind})
    assert (status, "application/json" in answer["sentence"]) == (415, True)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_post_is_heard(host: BuildServer, method: str) -> None:
    """There is nothing to read."""
    async with aiohttp.ClientSession() as session, session.request(method, host.url + GITHUB_PATH) as answer:
        assert answer.status == 405


# --- secrets


async def test_without_a_secret_there_is_no_route(world: World) -> None:
    """Nobody can call what nobody can prove."""
    async with hearing_machines(world) as host:
        body = github_push(world)
        assert (await host.post(GITHUB_PATH, body, from_github(body)))[0] == 404
        assert (await host.post(GITLAB_PATH, body, from_gitlab()))[0] == 404


@pytest.mark.parametrize(
    ("name", "secret", "says"),
    [
        ("GITHUB_WEBHOOK_SECRET", "short", "GITHUB_WEBHOOK_SECRET must have at least 16 characters"),
        ("GITLAB_WEBHOOK_SECRET", "short", "GITLAB_WEBHOOK_SECRET must have at least 16 characters"),
        ("GITLAB_WEBHOOK_SECRET", "whsec_not base64 at all!", "a signing token is whsec_ and Base64"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named(world: World, name: str, secret: str, says: str) -> None:
    """Before anything is heard, and without the secret in it."""
    with pytest.raises(SettingsError, match=re.escape(says)) as refused:
        async with hearing_machines(world, environ={name: secret}):
            pass
    assert secret not in str(refused.value)


def test_secrets_are_kept_out_of_logs() -> None:
    """The redactor knows both."""
    assert set(BOTH.values()) <= set(Settings(environ=BOTH).secrets)
