"""Socket Mode: a connection that is open but deaf is noticed, and replaced by a new one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult

from bot.integrations.slack import web_client
from bot.playground.slack.fake import FakeSlack
from handlers.socket import DEAF_AFTER, SocketMode

APP_TOKEN = "xapp-for-tests"
BOT_TOKEN = "xoxb-for-tests"


async def until(holds: Callable[[], bool], what: str, *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    fake = FakeSlack(signing_secret="s" * 16, bot_token=BOT_TOKEN, app_token=APP_TOKEN)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def socket(slack: FakeSlack) -> AsyncIterator[SocketMode]:
    async def authorize(**_: object) -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=BOT_TOKEN)

    app = AsyncApp(
        client=web_client(BOT_TOKEN, api_url=slack.api_url), authorize=authorize, signing_secret=""
    )
    made = SocketMode(app, APP_TOKEN, look_every=0.05, connect_within=1)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_it_connects_and_hears(slack: FakeSlack, socket: SocketMode) -> None:
    """One connection is open, and counts as hearing at once."""
    await until(lambda: slack.delivery.connections == 1, "one connection")
    await until(lambda: socket.is_hearing, "it hears")


async def test_a_deaf_connection_is_replaced_by_a_new_one(slack: FakeSlack, socket: SocketMode) -> None:
    """The process lives and the socket is open, but nothing comes: a new client connects, the old one is closed."""
    await until(lambda: socket.is_hearing, "it hears")
    deaf = socket._handler
    assert deaf is not None

    def hears_anew() -> bool:
        # Again and again: the pong of its first ping may still come.
        deaf.client.last_ping_pong_time = time.time() - DEAF_AFTER - 1
        return socket.is_hearing and socket._handler is not deaf

    await until(hears_anew, "it hears through another client")
    assert deaf.client.closed
    await until(lambda: slack.delivery.connections == 1, "one connection again")


async def test_slack_being_away_at_the_start_is_waited_for(slack: FakeSlack, socket: SocketMode) -> None:
    """It tries again until there is an answer."""
    slack.down = True
    await until(lambda: bool(slack.requests), "it has tried")
    assert not socket.is_hearing
    slack.down = False
    await until(lambda: socket.is_hearing, "it hears")
