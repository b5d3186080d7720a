"""What a pod that failed wrote last: for those who decide about it, privately, and without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from argocd_door import HERE, TOKEN, Door, Handler, answering, routing, saying, telling
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import APPLICATION, TARGET
from world import AMY, BEN, CHANNEL, DANA, ROLLOUT, World, world_in

from bot.core.promotion import Phase
from bot.core.secrets import HIDDEN, LONGEST, without_secrets
from bot.integrations import argocd_logs
from bot.integrations.argocd import ArgoCD, Server

LOGS = "logs, get, default/*"
SECRET = st.text("abcdefXYZ0123456789+/_-", min_size=8, max_size=30).filter(lambda word: word not in HIDDEN)


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        made.argocd.access.grant(LOGS)
        yield made


def told(world: World, user: str) -> list[str]:
    """What somebody was told directly."""
    return [each.text for each in world.slack.messages(world.slack.direct(user))]


async def fails(world: World, *, logs: bool | None) -> str:
    """A promotion to prod that Amy approved and whose pods crash; `logs` is what promote.yaml says."""
    said = {} if logs is None else {"logs": logs}
    approvals = {"rules": [{"users": [AMY, BEN], "min": 1}]}
    catalog = world.configure(policies={"prod": {"rollout": ROLLOUT | said, "approvals": approvals}})
    engine = world.new_engine(catalog=catalog)
    promoter = world.new_promoter(catalog=catalog)
    promotion = await world.moving(
        promoter.request(
            app="manual-app", environment="prod", version=None, reason=None, user=DANA, delivery=None
        )
    )
    world.argocd.degrade_next_rollout("manual-app-prod")
    await world.advance(promotion.id, engine)
    await promoter.approve(promotion.id, user=AMY)
    ended = await world.rest(promotion.id, engine)
    assert ended.phase is Phase.FAILED
    return ended.id


async def test_requester_and_approvers_are_sent_the_last_lines_once(world: World) -> None:
    """Where the environment says so: both of them directly, and nobody else, and nothing in the channel."""
    await fails(world, logs=True)
    for user in (DANA, AMY):
        (words,) = [text for text in told(world, user) if "The last lines of" in text]
        assert "panic: exit 1" in words
        assert re.search(r"manual-app-prod\S*:", words)
    assert not [text for text in told(world, BEN) if "last lines" in text]
    assert not [each for each in world.slack.workspace.messages(CHANNEL) if "panic" in each.text]


async def test_where_somebody_has_to_approve_nothing_is_sent_by_itself(world: World) -> None:
    """What production writes is sent to nobody unless the configuration says so."""
    await fails(world, logs=None)
    assert not [text for user in (DANA, AMY) for text in told(world, user) if "last lines" in text]
    assert not [each for each in world.argocd.requests if each.path.endswith("/logs")]


async def test_without_the_right_nothing_is_sent_and_nothing_breaks(world: World) -> None:
    """Reading logs is a right of its own in Argo CD."""
    world.argocd.access.revoke(LOGS)
    await fails(world, logs=True)
    assert not [text for text in told(world, DANA) if "last lines" in text]


# --- secrets


@given(
    st.sampled_from(
        (
            "password={}",
            "DB_PASSWORD: {}",
            '{{"api_key": "{}"}}',
            "Authorization: Bearer {}",
            "TOKEN='{}'",
            "postgres://app:{}@db/app",
            "secret_key={}, retrying",
            "x-auth-token: {}",
            "DB_PASS={}",
            "mysql.pass = {}",
            "dbPass={}",
            "passwd: {}",
            "run --db-password {} --quiet",
            "run --token '{} more'",
            "Authorization: Digest user=app, response={}",
            "Cookie: theme=dark; session={}",
            "GET /blob?sv=1&sig={}&se=2",
            "X-Amz-Signature={}",
            '"password":"a\\"{}"',
            'msg="login with password: two {}"',
            '{{\\"password\\": \\"{}\\"}}',
            'password="cut off {}',
        )
    ),
    SECRET,
)
def test_what_is_named_like_a_secret_is_hidden(line: str, secret: str) -> None:
    """Whatever its spelling: the value is gone, and what it is called stays."""
    shown = without_secrets(line.format(secret))
    assert secret not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib3QifQ.c2lnbmF0dXJl",
        "ghp_0123456789abcdefABCDEF0123456789abcd",
        "xoxb-1234567890-abcdefghij",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY0000",
    ],
)
def test_what_looks_like_a_key_is_hidden_wherever_it_stands(secret: str) -> None:
    """Nobody has to name it."""
    assert without_secrets(f"panic: cannot use {secret} here") == f"panic: cannot use {HIDDEN} here"


def test_a_private_key_is_hidden_whole_also_where_its_end_is_cut_off() -> None:
    """Its lines alone look like nothing."""
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n"
    assert without_secrets(f"loaded {key}") == f"loaded {HIDDEN}"
    assert without_secrets(f"{key}-----END RSA PRIVATE KEY-----\nok") == f"{HIDDEN}\nok"


@pytest.mark.parametrize(
    "line",
    [
        "panic: exit 1",
        "GET /healthz 200 in 3 ms",
        "connection to db:5432 refused",
        "java.lang.OutOfMemoryError: heap",
        "bypass=1, 3 tests pass",
        "error getting credentials: rpc error",
        f"at commit {'a1' * 20} of app@sha256:{'b2' * 32}",
        "/apis/apps/v1/namespaces/shop/deployments/manual-app-prod-7d9f8b6c5d",
    ],
)
def test_an_ordinary_line_stays_as_it_is(line: str) -> None:
    """A line that is hidden helps nobody."""
    assert without_secrets(line) == line


@given(SECRET, st.integers(0, 3 * LONGEST))
def test_a_long_line_loses_its_secrets_wherever_it_is_cut(secret: str, before: int) -> None:
    """The middle is left out, and no half of a secret stays at its edges."""
    secret = f"q9{secret}9q"
    line = f"{'word ' * (before // 5)}password={secret} {'more ' * LONGEST}"
    shown = without_secrets(line)
    assert len(shown) <= LONGEST + len(HIDDEN)
    assert "q9" not in shown
    assert "9q" not in shown


@given(SECRET, st.integers(LONGEST // 2 - 45, LONGEST // 2))
def test_the_kept_end_of_a_long_line_begins_with_a_whole_word(secret: str, after: int) -> None:
    """What a name tells to be a secret is not shown without that name."""
    end = " m" * (after // 2)
    shown = without_secrets(f"{'word ' * LONGEST}password={secret}9q{end}")
    assert "9q" not in shown


@pytest.mark.parametrize(
    "piece", ["password", 'token:"', "x--", "eyJ", "://a:b", "a/1", '"', "-----BEGIN PRIVATE KEY-----", "\\"]
)
def test_a_hostile_line_takes_no_time(piece: str) -> None:
    """Of whatever it is made, and however long it is."""
    began = time.monotonic()
    without_secrets(piece * (200_000 // len(piece)))
    assert time.monotonic() - began < 1


# --- one container's lines

POD = "manual-app-1"
LOG_PATH, RESOURCE = f"{HERE}/logs", f"{HERE}/resource"


def tree() -> Handler:
    """One pod that crashed twice."""
    told = {"Status Reason": "CrashLoopBackOff", "Containers": "1/2", "Restart Count": "2"}
    info = [{"name": name, "value": value} for name, value in told.items()]
    pod = {"kind": "Pod", "namespace": "shop", "name": POD, "uid": "1", "info": info}
    return telling({"nodes": [pod]})


def pod_of(*containers: tuple[str, str]) -> Handler:
    """The pod as it is in the cluster."""
    made = [{"name": name, "image": image} for name, image in containers]
    return telling({"manifest": json.dumps({"spec": {"containers": made}})})


def writing(*lines: str) -> Handler:
    """What a container wrote, as Argo CD sends it."""
    events = [{"result": {"content": line}} for line in lines] + [{"result": {"last": True}}]
    return answering("\n".join(map(json.dumps, events)))


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


async def last_words(door: Door, routes: dict[str, Handler]) -> str:
    """What is told of the pod."""
    door.answer = routing({f"{HERE}/resource-tree": tree()} | routes)
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    try:
        return await argo.last_words(APPLICATION, TARGET.image)
    finally:
        await argo.aclose()


@pytest.mark.parametrize(
    ("pod", "container"),
    [
        (pod_of(("proxy", "envoy:1"), ("app", f"{TARGET.image}:15")), "app"),
        (pod_of(("proxy", "envoy:1")), None),
        (saying(500, "gone"), None),
    ],
    ids=["beside a sidecar", "not there", "nobody tells"],
)
async def test_the_container_of_the_image_is_read(door: Door, pod: Handler, container: str | None) -> None:
    """Kubernetes tells nothing of a pod with several where none is named."""
    words = await last_words(door, {RESOURCE: pod, LOG_PATH: writing("panic: exit 1")})
    assert words == f"{POD}:\npanic: exit 1"
    (request,) = [each for each in door.asked if each.path == LOG_PATH]
    assert request.query.get("container") == container
    assert request.query["previous"] == "true"


async def test_a_secret_in_a_long_line_is_hidden_before_the_line_is_cut(door: Door) -> None:
    """Half of it would look like nothing."""
    secret = "".join(f"s3cr{number}" for number in range(40))
    words = await last_words(door, {LOG_PATH: writing(f"{'x ' * 40}https://app:{secret}@db {'y ' * 100}")})
    assert "https://db" in words
    assert "s3cr" not in words
    assert len(words) <= len(f"{POD}:\n") + 300


async def test_a_log_that_never_ends_is_told_as_far_as_it_came(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blank lines are signs of life, and nothing to wait for."""
    monkeypatch.setattr(argocd_logs, "LIMIT", timedelta(seconds=0.5))

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"result": {"content": "panic: exit 1"}}\n')
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"\n")
                await asyncio.sleep(0.01)
        return response

    async with asyncio.timeout(10):
        assert await last_words(door, {LOG_PATH: answer}) == f"{POD}:\npanic: exit 1"
