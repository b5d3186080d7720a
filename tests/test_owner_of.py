"""Whose address it is: what Slack documents of `users.lookupByEmail`, and what the bot makes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from world import AMY, BOT_TOKEN, DANA, GUS, OLGA, ROBO, SIGNING_SECRET, TEAM, ZED, populate

from bot.core.errors import Unavailable
from bot.integrations.slack import SlackDirectory, web_client
from bot.playground.slack.fake import DEFAULT_SCOPES, FakeSlack

DANAS = "dana@acme.example"


@asynccontextmanager
async def workspace(scopes: frozenset[str] = DEFAULT_SCOPES) -> AsyncIterator[FakeSlack]:
    """The workspace alone."""
    slack = FakeSlack(signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN, scopes=scopes)
    populate(slack)
    await slack.start()
    yield slack
    await slack.stop()


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with workspace() as made:
        yield made


def client(slack: FakeSlack) -> AsyncWebClient:
    return AsyncWebClient(token=BOT_TOKEN, base_url=slack.api_url)


def directory(api_url: str) -> SlackDirectory:
    """The bot's view of the people."""
    return SlackDirectory(web_client(BOT_TOKEN, api_url=api_url))


async def refused(slack: FakeSlack, email: str) -> dict[str, Any]:
    """Slack's answer to a call that it refuses."""
    with pytest.raises(SlackApiError) as caught:
        await client(slack).users_lookupByEmail(email=email)
    answer = caught.value.response.data
    assert isinstance(answer, dict)
    return answer


# --- what Slack documents


async def test_the_simulated_slack_tells_the_person_with_their_address(slack: FakeSlack) -> None:
    """The same object as `users.info` tells."""
    found = await client(slack).users_lookupByEmail(email=DANAS)
    assert found["user"] == (await client(slack).users_info(user=DANA))["user"]
    assert found["user"]["profile"]["email"] == DANAS


@pytest.mark.parametrize("user", [ZED, OLGA, ROBO])
async def test_the_simulated_slack_finds_only_who_belongs_to_the_workspace(
    slack: FakeSlack, user: str
) -> None:
    """Who has left, people of other workspaces, and bots: `users_not_found`, as for an address of nobody."""
    slack.user(user).email = "somebody@acme.example"
    assert (await refused(slack, "somebody@acme.example"))["error"] == "users_not_found"
    assert (await refused(slack, "nobody@acme.example"))["error"] == "users_not_found"


async def test_the_simulated_slack_asks_for_its_scope_and_its_argument(slack: FakeSlack) -> None:
    """`users:read` is not enough, and a call without an address is no question."""
    assert (await refused(slack, ""))["error"] == "invalid_arguments"
    async with workspace(DEFAULT_SCOPES - {"users:read.email"}) as poor:
        answer = await refused(poor, DANAS)
    assert (answer["error"], answer["needed"]) == ("missing_scope", "users:read.email")


# --- what the bot makes of it


async def test_the_owner_of_an_address_is_told_by_id(slack: FakeSlack) -> None:
    """Guests write code, too; an address is sent as it is, whatever is in it."""
    people = directory(slack.api_url)
    assert await people.owner_of(DANAS) == DANA
    assert await people.owner_of(slack.user(GUS).email) == GUS
    slack.user(AMY).email = "amy+git&x=1@acme.example"
    assert await people.owner_of("amy+git&x=1@acme.example") == AMY


async def test_an_address_of_nobody_has_no_owner(slack: FakeSlack) -> None:
    """Nor has one of somebody who has left, or of another workspace."""
    people = directory(slack.api_url)
    for email in ("", " ", "nobody@acme.example", slack.user(ZED).email, slack.user(OLGA).email):
        assert await people.owner_of(email) is None
    assert await people.owner_of(DANAS) == DANA
    slack.user(DANA).kind = "deactivated"
    assert await people.owner_of(DANAS) is None


@pytest.mark.parametrize(
    ("told", "owner"),
    [
        ({"id": DANA, "team_id": TEAM}, DANA),
        ({"id": DANA, "team_id": "T2", "enterprise_user": {"teams": [TEAM]}}, DANA),
        ({"id": DANA, "team_id": "T2"}, None),
        ({"id": DANA, "team_id": TEAM, "is_stranger": True}, None),
        ({"id": DANA, "team_id": TEAM, "deleted": True}, None),
    ],
)
async def test_what_slack_tells_of_the_person_counts(told: dict[str, Any], owner: str | None) -> None:
    """Wherever Slack finds a stranger or somebody who has left all the same, nobody of ours has the address."""

    async def answer(request: web.Request) -> web.Response:
        method = request.match_info["method"]
        return web.json_response(
            {"ok": True, "team_id": TEAM} | ({"user": told} if "users" in method else {})
        )

    app = web.Application()
    app.router.add_route("*", "/api/{method}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        people = directory(f"http://127.0.0.1:{runner.addresses[0][1]}/api/")
        assert await people.owner_of(DANAS) == owner
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("word", ["invalid_auth", "missing_scope", "fatal_error", "ratelimited"])
async def test_trouble_is_not_nobody(slack: FakeSlack, word: str) -> None:
    """Where Slack does not say whose it is, nobody may take the address for a stranger's."""
    slack.faults.errors["users.lookupByEmail"] = word
    with pytest.raises(Unavailable, match="Slack is not available"):
        await directory(slack.api_url).owner_of(DANAS)
