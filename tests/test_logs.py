"""What a pod that failed wrote last: for those who decide about it, privately, and without secrets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import AMY, BEN, CHANNEL, DANA, ROLLOUT, World, world_in

from bot.core.promotion import Phase
from bot.core.secrets import HIDDEN, without_secrets

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
    ],
)
def test_an_ordinary_line_stays_as_it_is(line: str) -> None:
    """A line that is hidden helps nobody."""
    assert without_secrets(line) == line
