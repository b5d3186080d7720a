"""The fake workspace is as strict as Slack: a bot that gets by here has met Slack's rules."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from bot.playground.slack.blocks import problems, view_problems
from bot.playground.slack.fake import DEFAULT_SCOPES, FakeSlack, NotPossibleError

CHANNEL = "C0DEPLOYS01"
DANA, AMY, GUS, OLGA = "U0DANA", "U0AMY", "U0GUS", "U0OLGA"
SECRET, TOKEN, APP_TOKEN = "a-signing-secret", "xoxb-demo", "xapp-demo"


def furnish(slack: FakeSlack) -> FakeSlack:
    """Put the usual people and a channel into a workspace."""
    slack.add_user(DANA, name="dana", real_name="Dana Dev", email="dana@acme.example", kind="member")
    slack.add_user(AMY, name="amy", real_name="Amy Approver", email="amy@acme.example", kind="member")
    slack.add_user(GUS, name="gus", real_name="Gus Guest", email="gus@acme.example", kind="guest")
    slack.add_user(OLGA, name="olga", real_name="Olga Out", email="olga@other.example", kind="stranger")
    slack.add_group("S0RELEASE", handle="release", users=[AMY])
    slack.add_channel(CHANNEL, name="deploys", members=[DANA, AMY, GUS, OLGA])
    return slack


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    workspace = furnish(FakeSlack(signing_secret=SECRET, bot_token=TOKEN, app_token=APP_TOKEN))
    await workspace.start()
    yield workspace
    await workspace.stop()


@pytest.fixture
def client(slack: FakeSlack) -> AsyncWebClient:
    return AsyncWebClient(token=TOKEN, base_url=slack.api_url)


@pytest.fixture
async def bolt(slack: FakeSlack, client: AsyncWebClient) -> AsyncIterator[AsyncApp]:
    """A real Bolt app over HTTP, which the workspace reaches at its own address."""
    app = AsyncApp(signing_secret=SECRET, client=client)

    async def events(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

    server = web.Application()
    server.router.add_post("/slack/events", events)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    slack.events_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    yield app
    await runner.cleanup()


async def until(claim: Callable[[], object], what: str) -> None:
    """Wait until a claim holds, for five seconds at most."""
    for _ in range(500):
        if claim():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not within five seconds: {what}")


async def refused(call: Awaitable[Any]) -> str:
    """The error code with which the Web API refuses a call."""
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


def section(text: str = "Hello") -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def button(action_id: str = "approve", **more: object) -> dict[str, Any]:
    label = {"type": "plain_text", "text": "Approve"}
    return {"type": "button", "action_id": action_id, "text": label, "value": "P-1", **more}


def actions(*elements: dict[str, Any], block_id: str = "act") -> dict[str, Any]:
    return {"type": "actions", "block_id": block_id, "elements": list(elements)}


def modal(**more: object) -> dict[str, Any]:
    title = {"type": "plain_text", "text": "Reject"}
    entry = {"type": "plain_text_input", "action_id": "text", "max_length": 20}
    asked = {
        "type": "input",
        "block_id": "reason",
        "label": {"type": "plain_text", "text": "Why?"},
        "element": entry,
    }
    return {
        "type": "modal",
        "callback_id": "reject",
        "title": title,
        "submit": title,
        "blocks": [asked],
        **more,
    }


# --- the Web API


async def test_a_message_is_edited_in_place_and_keeps_its_history(
    slack: FakeSlack, client: AsyncWebClient
) -> None:
    """Blocks and metadata that an update leaves out stay as they were."""
    metadata = {"event_type": "promotion", "event_payload": {"id": "P-1"}}
    posted = await client.chat_postMessage(
        channel=CHANNEL, text="one", blocks=[actions(button())], metadata=metadata
    )
    await client.chat_update(channel=CHANNEL, ts=posted["ts"], text="two")
    (message,) = slack.messages(CHANNEL)
    assert (message.text, message.edited, message.history[0][0]) == ("two", 1, "one")
    assert message.blocks[0]["elements"][0]["action_id"] == "approve"
    assert message.metadata == metadata


async def test_a_reply_stands_in_its_thread_alone(slack: FakeSlack, client: AsyncWebClient) -> None:
    """A channel shows a thread's replies only where they were broadcast."""
    parent = await client.chat_postMessage(channel=CHANNEL, text="card")
    await client.chat_postMessage(channel=CHANNEL, text="quiet", thread_ts=parent["ts"])
    await client.chat_postMessage(channel=CHANNEL, text="loud", thread_ts=parent["ts"], reply_broadcast=True)
    assert [message.text for message in slack.messages(CHANNEL)] == ["card", "loud"]
    assert [message.text for message in slack.thread(CHANNEL, parent["ts"])] == ["quiet", "loud"]
    assert (
        await refused(client.chat_postMessage(channel=CHANNEL, text="x", thread_ts="1.1"))
        == "thread_not_found"
    )


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({"channel": "C0OUTSIDE", "text": "x"}, "not_in_channel"),
        ({"channel": "C0SECRET", "text": "x"}, "channel_not_found"),
        ({"channel": "C0OLD", "text": "x"}, "is_archived"),
        ({"channel": CHANNEL, "text": ""}, "no_text"),
        ({"channel": CHANNEL, "blocks": [section()]}, "no_text"),
        ({"channel": CHANNEL, "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": CHANNEL, "text": "x", "blocks": [{"type": "section"}]}, "invalid_blocks"),
        ({"channel": CHANNEL, "text": "x", "metadata": {"event_type": "p"}}, "invalid_metadata_format"),
    ],
)
async def test_a_post_that_slack_would_refuse_is_refused(
    slack: FakeSlack, client: AsyncWebClient, args: dict[str, Any], error: str
) -> None:
    """Each refusal carries Slack's own error code, and nothing is shown."""
    slack.add_channel("C0OUTSIDE", name="outside", members=[DANA], with_bot=False)
    slack.add_channel("C0SECRET", name="secret", members=[DANA], with_bot=False, private=True)
    slack.add_channel("C0OLD", name="old", members=[DANA]).archived = True
    assert await refused(client.api_call("chat.postMessage", json=args)) == error
    assert not slack.messages(CHANNEL)


async def test_only_the_bots_own_messages_can_be_changed(slack: FakeSlack, client: AsyncWebClient) -> None:
    """A person's message, a deleted one and an ephemeral one are out of reach."""
    words = slack.say(DANA, CHANNEL, "hello")
    assert await refused(client.chat_update(channel=CHANNEL, ts=words.ts, text="x")) == "cant_update_message"
    assert await refused(client.chat_delete(channel=CHANNEL, ts=words.ts)) == "cant_delete_message"
    posted = await client.chat_postMessage(channel=CHANNEL, text="one")
    await client.chat_delete(channel=CHANNEL, ts=posted["ts"])
    assert (
        await refused(client.chat_update(channel=CHANNEL, ts=posted["ts"], text="x")) == "message_not_found"
    )
    private = await client.chat_postEphemeral(channel=CHANNEL, user=DANA, text="psst")
    ts = private["message_ts"]
    assert await refused(client.chat_update(channel=CHANNEL, ts=ts, text="x")) == "message_not_found"
    assert [message.text for message in slack.ephemerals(DANA)] == ["psst"]
    assert not slack.ephemerals(AMY)


async def test_a_token_without_the_scope_is_told_which_it_needs(
    slack: FakeSlack, client: AsyncWebClient
) -> None:
    """`missing_scope` names what is needed and what is granted, and the header lists the grants."""
    answer = await client.auth_test()
    assert set(answer.headers["x-oauth-scopes"].split(",")) == DEFAULT_SCOPES
    assert answer["team_id"] == slack.workspace.team
    with pytest.raises(SlackApiError) as caught:
        await client.conversations_info(channel=CHANNEL)
    assert caught.value.response["error"] == "missing_scope"
    assert "channels:read" in caught.value.response["needed"]
    slack.api.scopes |= {"channels:read"}
    assert (await client.conversations_info(channel=CHANNEL))["channel"]["name"] == "deploys"
    assert DANA in (await client.conversations_members(channel=CHANNEL))["members"]


async def test_a_wrong_token_is_refused(slack: FakeSlack) -> None:
    """An unknown token, none at all, and the wrong kind each have their own code."""
    for token, error in (
        (TOKEN + "x", "invalid_auth"),
        ("", "not_authed"),
        (APP_TOKEN, "not_allowed_token_type"),
    ):
        client = AsyncWebClient(token=token, base_url=slack.api_url)
        assert await refused(client.auth_test()) == error
    assert (
        await refused(AsyncWebClient(token=TOKEN, base_url=slack.api_url).api_call("a.b")) == "unknown_method"
    )


async def test_people_are_told_apart_by_their_kind(slack: FakeSlack, client: AsyncWebClient) -> None:
    """`users.info` shows guests, strangers, and who has left since."""
    assert (await client.users_info(user=DANA))["user"]["profile"]["email"] == "dana@acme.example"
    assert (await client.users_info(user=GUS))["user"]["is_restricted"] is True
    stranger = (await client.users_info(user=OLGA))["user"]
    assert stranger["is_stranger"] is True
    assert stranger["team_id"] != slack.workspace.team
    assert "email" not in stranger["profile"]
    slack.user(DANA).kind = "deactivated"
    assert (await client.users_info(user=DANA))["user"]["deleted"] is True
    assert await refused(client.users_info(user="U0NOBODY")) == "user_not_found"
    with pytest.raises(NotPossibleError):
        await slack.command(DANA, CHANNEL, "status")


async def test_a_group_changes_at_once(slack: FakeSlack, client: AsyncWebClient) -> None:
    """Members may come and go, and a disabled group is nobody's."""
    slack.group("S0RELEASE").users.append(DANA)
    assert (await client.usergroups_users_list(usergroup="S0RELEASE"))["users"] == [AMY, DANA]
    slack.group("S0RELEASE").disabled = True
    assert await refused(client.usergroups_users_list(usergroup="S0RELEASE")) == "no_such_subteam"
    slack.group("S0RELEASE").lists_nobody = True
    assert (await client.usergroups_users_list(usergroup="S0RELEASE"))["users"] == []


async def test_the_list_of_groups_leaves_out_what_is_disabled(
    slack: FakeSlack, client: AsyncWebClient
) -> None:
    """Unless it is asked for: then `date_delete` tells it apart."""
    (shown,) = (await client.usergroups_list())["usergroups"]
    assert (shown["id"], shown["date_delete"]) == ("S0RELEASE", 0)
    slack.group("S0RELEASE").disabled = True
    assert (await client.usergroups_list())["usergroups"] == []
    (shown,) = (await client.usergroups_list(include_disabled=True))["usergroups"]
    assert (shown["id"], shown["date_delete"] > 0) == ("S0RELEASE", True)


async def test_a_direct_message_reaches_one_person(slack: FakeSlack, client: AsyncWebClient) -> None:
    """Posting to a user id opens their direct messages; edits need the channel's id."""
    posted = await client.chat_postMessage(channel=AMY, text="your turn")
    assert posted["channel"] == slack.direct(AMY)
    assert [message.text for message in slack.messages(slack.direct(AMY))] == ["your turn"]
    assert await refused(client.chat_update(channel=AMY, ts=posted["ts"], text="x")) == "channel_not_found"


async def test_a_permalink_leads_to_the_message(client: AsyncWebClient) -> None:
    """The link holds the channel and the time stamp without its dot."""
    posted = await client.chat_postMessage(channel=CHANNEL, text="card")
    link = await client.chat_getPermalink(channel=CHANNEL, message_ts=posted["ts"])
    assert link["permalink"].endswith(f"/archives/{CHANNEL}/p{posted['ts'].replace('.', '')}")


async def test_calls_beyond_the_rate_are_told_when_to_come_back(
    slack: FakeSlack, client: AsyncWebClient
) -> None:
    """A 429 carries Retry-After, and a client that honours it gets through once."""
    slack.rate_limit(calls=1, retry_after=1)
    assert await refused(client.chat_postMessage(channel=CHANNEL, text="card")) == "ratelimited"
    client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
    slack.rate_limit(calls=1, retry_after=0)
    await client.chat_postMessage(channel=CHANNEL, text="card")
    assert [call.error for call in slack.requests] == ["ratelimited", "ratelimited", None]
    assert len(slack.messages(CHANNEL)) == 1


async def test_switches_stay_until_they_are_turned_back(slack: FakeSlack, client: AsyncWebClient) -> None:
    """`limited`, `down` and one method's own error hold for every call."""
    slack.limited = True
    assert await refused(client.auth_test()) == "ratelimited"
    slack.limited, slack.down = False, True
    async with aiohttp.ClientSession() as session, session.post(f"{slack.api_url}auth.test") as answer:
        assert answer.status == 500
    slack.down = False
    slack.faults.errors["auth.test"] = "account_inactive"
    assert await refused(client.auth_test()) == "account_inactive"


# --- Block Kit


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ({"type": "sectoin"}, "unsupported type: sectoin"),
        ({"type": "header", "text": {"type": "mrkdwn", "text": "x"}}, "expected plain_text"),
        ({"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}, "less than 151"),
        (section("x" * 3001), "less than 3001"),
        (section(""), "must be more than 0"),
        ({"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}, "less than 2001"),
        ({"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}, "no more than 10"),
        ({"type": "section", "text": {"type": "mrkdwn", "text": "x", "emoji": True}}, "property: emoji"),
        ({"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * 11}, "no more than 10"),
        (actions(), "no fewer than 1"),
        (actions(*(button(f"a{n}") for n in range(26))), "no more than 25"),
        (actions(button(), button()), '`action_id` "approve" already exists'),
        (actions(button(style="warning")), "must be one of: primary, danger"),
        (actions(button(value="x" * 2001)), "less than 2001"),
        (actions(button(url="nowhere")), "valid URL"),
        (actions(button(accessibility_label="x" * 76)), "less than 76"),
        (actions(button(confirm={"title": {"type": "plain_text", "text": "x"}})), "required field: text"),
        (actions({"type": "static_select", "action_id": "a"}), "must define either `options`"),
        ({"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]] * 101}, "no more than 100"),
        ({"type": "divider", "colour": "red"}, "invalid additional property: colour"),
    ],
)
def test_blocks_beyond_slacks_limits_are_named(block: dict[str, Any], complaint: str) -> None:
    """Each complaint says what is wrong and points to the place."""
    found = problems([section(), block], "message")
    assert any(complaint in problem and "/blocks/1" in problem for problem in found), found


def test_block_ids_are_unique_and_messages_are_short() -> None:
    """Two blocks cannot share an id, nor can a message have more than fifty."""
    assert "already exists" in problems([actions(button()), actions(button("other"))], "message")[0]
    assert "no more than 50" in problems([section()] * 51, "message")[0]
    assert not problems([section()] * 51, "home")


def test_a_modal_keeps_slacks_limits() -> None:
    """Titles are short, forms have a submit button, and tables have no place in a modal."""
    assert not view_problems(modal(), home=False)
    assert (
        "less than 25" in view_problems(modal(title={"type": "plain_text", "text": "x" * 25}), home=False)[0]
    )
    assert "less than 3001" in view_problems(modal(private_metadata="x" * 3001), home=False)[0]
    without = {name: value for name, value in modal().items() if name != "submit"}
    assert "submit is required" in view_problems(without, home=False)[0]
    table = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}
    assert "not supported in a modal" in view_problems(modal(blocks=[table]), home=False)[0]


# --- towards the app, over HTTP


async def test_a_command_arrives_signed_and_its_answer_is_private(slack: FakeSlack, bolt: AsyncApp) -> None:
    """The app's immediate answer is shown to the person who typed, and to nobody else."""
    heard: list[dict[str, Any]] = []

    @bolt.command("/promote")
    async def promote(ack: Any, command: dict[str, Any]) -> None:
        heard.append(command)
        await ack(f"You said {command['text']}")

    reply = await slack.command(DANA, CHANNEL, "manual-app to stage")
    assert (reply.status, reply.shown) == (200, "You said manual-app to stage")
    assert [message.text for message in slack.ephemerals(DANA)] == ["You said manual-app to stage"]
    assert not slack.ephemerals(AMY)
    assert (heard[0]["user_id"], heard[0]["channel_name"]) == (DANA, "deploys")
    await slack.command(DANA, CHANNEL, "again", trigger_id=heard[0]["trigger_id"], retry=True)
    assert heard[1]["trigger_id"] == heard[0]["trigger_id"]


async def test_a_wrong_secret_is_turned_away_by_bolt(slack: FakeSlack, bolt: AsyncApp) -> None:
    """The signature is real: the app refuses one that was made with another secret."""

    @bolt.command("/promote")
    async def promote(ack: Any) -> None:
        await ack()

    slack.delivery.signing_secret = "another"
    reply = await slack.command(DANA, CHANNEL, "status")
    assert (reply.status, reply.error) == (401, "dispatch_failed")


async def test_an_app_that_is_away_shows_in_the_channel(slack: FakeSlack, unused_port: int) -> None:
    """A command that nobody takes says so to the person who typed it."""
    for url in (None, f"http://127.0.0.1:{unused_port}/slack/events"):
        slack.events_url = url
        reply = await slack.command(DANA, CHANNEL, "status")
        assert reply.error == "dispatch_failed"
        assert reply.shown == slack.ephemerals(DANA)[-1].text
    unknown = await slack.command(DANA, CHANNEL, "", command="/deploy")
    assert unknown.shown == "/deploy is not a valid command."


@pytest.fixture
async def unused_port() -> int:
    """A port at which nobody listens."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


async def test_an_app_that_is_slow_times_out_after_three_seconds(slack: FakeSlack, bolt: AsyncApp) -> None:
    """Slack does not wait longer, whatever the app does in the end."""
    late = asyncio.Event()

    @bolt.command("/promote")
    async def promote(ack: Any) -> None:
        await late.wait()
        await ack()

    reply = await slack.command(DANA, CHANNEL, "status")
    late.set()
    assert reply.error == "operation_timeout"
    assert "operation_timeout" in slack.ephemerals(DANA)[-1].text


async def test_a_click_carries_the_message_and_may_replace_it(
    slack: FakeSlack, bolt: AsyncApp, client: AsyncWebClient
) -> None:
    """A press on a button sends what Slack sends; its response address edits the message."""
    heard: list[dict[str, Any]] = []

    @bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any], respond: Any) -> None:
        heard.append(body)
        await ack()
        await respond(text="approved", blocks=[section("approved")], replace_original=True)
        await respond(text="thank you")

    posted = await client.chat_postMessage(
        channel=CHANNEL, text="card", blocks=[section(), actions(button())]
    )
    before = slack.messages(CHANNEL)[0]
    assert (await slack.click(AMY, CHANNEL, posted["ts"], "approve")).status == 200
    await until(lambda: slack.ephemerals(AMY), "the private answer")
    after = slack.messages(CHANNEL)[0]
    assert (after.ts, after.text, after.edited) == (posted["ts"], "approved", 1)
    assert heard[0]["actions"][0] | {"action_ts": ""} == {
        "type": "button",
        "action_id": "approve",
        "block_id": "act",
        "text": {"type": "plain_text", "text": "Approve"},
        "value": "P-1",
        "action_ts": "",
    }
    assert heard[0]["container"]["message_ts"] == heard[0]["message"]["ts"] == posted["ts"]
    assert heard[0]["user"]["team_id"] == heard[0]["team"]["id"] == slack.workspace.team
    with pytest.raises(NotPossibleError):
        await slack.click(AMY, CHANNEL, posted["ts"], "approve")
    assert (await slack.click(AMY, CHANNEL, posted["ts"], "approve", seen=before)).status == 200


async def test_one_request_can_reach_several_replicas(
    slack: FakeSlack, bolt: AsyncApp, unused_port: int
) -> None:
    """Each address gets the very same request, as often as it is named; one that is away does not hide an answer."""
    triggers = []

    @bolt.command("/promote")
    async def promote(ack: Any, body: Any) -> None:
        triggers.append(body["trigger_id"])
        await ack("here")

    @bolt.action("approve")
    async def approve(ack: Any, body: Any) -> None:
        triggers.append(body["trigger_id"])
        await ack()

    here, away = slack.events_url or "", f"http://127.0.0.1:{unused_port}/slack/events"
    slack.events_url = away
    reply = await slack.command(DANA, CHANNEL, "help", to=[away, here, here])
    assert (reply.error, reply.shown) == (None, "here")
    message = slack.workspace.add(CHANNEL, slack.bot_user, "one", blocks=[actions(button())])
    assert (await slack.click(AMY, CHANNEL, message.ts, "approve", to=[here] * 3)).error is None
    assert (len(triggers), len(set(triggers[:2])), len(set(triggers[2:]))) == (5, 1, 1)
    assert (await slack.click(AMY, CHANNEL, message.ts, "approve", to=[away])).error == "dispatch_failed"
    assert (await slack.click(AMY, CHANNEL, message.ts, "approve")).error == "dispatch_failed"


async def test_a_strangers_payload_carries_their_own_team(
    slack: FakeSlack, bolt: AsyncApp, client: AsyncWebClient
) -> None:
    """People from another workspace share the channel, not the team."""
    heard: list[dict[str, Any]] = []

    @bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any]) -> None:
        heard.append(body)
        await ack()

    posted = await client.chat_postMessage(channel=CHANNEL, text="card", blocks=[actions(button())])
    await slack.click(OLGA, CHANNEL, posted["ts"], "approve")
    assert heard[0]["user"]["team_id"] == heard[0]["team"]["id"] == slack.user(OLGA).team


async def test_a_response_address_takes_five_answers(slack: FakeSlack, bolt: AsyncApp) -> None:
    """The sixth answer, and any after thirty minutes, is refused and shown to nobody."""
    addresses: list[str] = []

    @bolt.command("/promote")
    async def promote(ack: Any, command: dict[str, Any]) -> None:
        addresses.append(command["response_url"])
        await ack()

    await slack.command(DANA, CHANNEL, "status")
    await slack.command(DANA, CHANNEL, "status")
    async with aiohttp.ClientSession() as session:
        for expected in (200, 200, 200, 200, 200, 404):
            async with session.post(addresses[0], json={"text": "x"}) as answer:
                assert answer.status == expected
        async with session.post(addresses[1], json={"text": "x", "blocks": [{"type": "?"}]}) as answer:
            assert (answer.status, (await answer.json())["error"]) == (400, "invalid_blocks")
        async with session.post(addresses[1], json={"text": "all", "response_type": "in_channel"}) as answer:
            assert answer.status == 200
        now = slack.grants.now
        slack.grants.now = lambda: now() + 1801
        async with session.post(addresses[1], json={"text": "x"}) as answer:
            assert (answer.status, (await answer.json())["error"]) == (404, "expired_url")
    assert len(slack.ephemerals(DANA)) == 5
    assert slack.messages(CHANNEL)[-1].text == "all"


async def test_a_modal_is_opened_filled_and_sent(
    slack: FakeSlack, bolt: AsyncApp, client: AsyncWebClient
) -> None:
    """Errors stay beside the field, and an empty answer closes the modal."""
    said: list[str] = []

    @bolt.action("reject")
    async def reject(ack: Any, body: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=modal())

    @bolt.view("reject")
    async def rejected(ack: Any, view: dict[str, Any]) -> None:
        reason = view["state"]["values"]["reason"]["text"]["value"]
        if reason == "bad":
            await ack(response_action="errors", errors={"reason": "Say more"})
            return
        said.append(reason)
        await ack()

    posted = await client.chat_postMessage(channel=CHANNEL, text="card", blocks=[actions(button("reject"))])
    await slack.click(AMY, CHANNEL, posted["ts"], "reject")
    await until(lambda: slack.view(AMY), "the modal")
    view = slack.view(AMY)
    assert view is not None
    assert (await slack.submit(AMY, view.id, {"reason": ""})).error == "incomplete"
    assert (await slack.submit(AMY, view.id, {"reason": "x" * 21})).error == "incomplete"
    await slack.submit(AMY, view.id, {"reason": "bad"})
    shown = slack.view(AMY)
    assert shown is not None
    assert shown.errors == {"reason": "Say more"}
    await slack.submit(AMY, view.id, {"text": "frozen"})
    assert slack.view(AMY) is None
    assert said == ["frozen"]


async def test_a_trigger_opens_one_modal_within_three_seconds(
    slack: FakeSlack, bolt: AsyncApp, client: AsyncWebClient
) -> None:
    """A trigger that is used, old or unknown is refused with its own code."""
    triggers: list[str] = []

    @bolt.command("/promote")
    async def promote(ack: Any, command: dict[str, Any]) -> None:
        triggers.append(command["trigger_id"])
        await ack()

    await slack.command(DANA, CHANNEL, "")
    await slack.command(DANA, CHANNEL, "")
    await client.views_open(trigger_id=triggers[0], view=modal())
    assert await refused(client.views_open(trigger_id=triggers[0], view=modal())) == "exchanged_trigger_id"
    now = slack.grants.now
    slack.grants.now = lambda: now() + 3.1
    assert await refused(client.views_open(trigger_id=triggers[1], view=modal())) == "expired_trigger_id"
    assert await refused(client.views_open(trigger_id="1.2", view=modal())) == "invalid_trigger_id"
    assert await refused(client.views_open(trigger_id="1.2", view=modal(blocks=[]))) == "invalid_arguments"


async def test_a_view_is_updated_under_its_hash(
    slack: FakeSlack, bolt: AsyncApp, client: AsyncWebClient
) -> None:
    """An update with an old hash conflicts, and a closed modal is not found."""
    triggers: list[str] = []

    @bolt.command("/promote")
    async def promote(ack: Any, command: dict[str, Any]) -> None:
        triggers.append(command["trigger_id"])
        await ack()

    await slack.command(DANA, CHANNEL, "")
    view = (await client.views_open(trigger_id=triggers[0], view=modal()))["view"]
    await client.views_update(view_id=view["id"], hash=view["hash"], view=modal())
    again = client.views_update(view_id=view["id"], hash=view["hash"], view=modal())
    assert await refused(again) == "hash_conflict"
    await slack.close_view(DANA, view["id"])
    assert await refused(client.views_update(view_id=view["id"], view=modal())) == "not_found"


def option(value: str) -> dict[str, Any]:
    return {"text": {"type": "plain_text", "text": value.title()}, "value": value}


def question(element: dict[str, Any], *, block_id: str) -> dict[str, Any]:
    label = {"type": "plain_text", "text": block_id}
    return {
        "type": "input",
        "block_id": block_id,
        "label": label,
        "element": {"action_id": "a", **element},
        "optional": True,
    }


async def test_a_form_carries_what_was_chosen(slack: FakeSlack, bolt: AsyncApp) -> None:
    """Choices arrive as options, what nobody touched arrives as the app set it, and the rest is null."""
    heard: list[dict[str, Any]] = []

    @bolt.view("form")
    async def sent(ack: Any, view: dict[str, Any]) -> None:
        heard.append(view["state"]["values"])
        await ack(response_action="clear")

    options = [option("dev"), option("stage"), option("prod")]
    asked = [
        question(
            {"type": "static_select", "options": options, "initial_option": options[1]}, block_id="kept"
        ),
        question(
            {"type": "static_select", "options": options, "initial_option": options[1]}, block_id="changed"
        ),
        question({"type": "checkboxes", "options": options}, block_id="boxes"),
        question({"type": "users_select"}, block_id="who"),
        question({"type": "plain_text_input"}, block_id="empty"),
    ]
    view = slack.workspace.show_view(DANA, modal(callback_id="form", blocks=asked))
    await slack.submit(DANA, view.id, {"changed": "prod", "boxes": "dev,prod", "who": AMY})
    values = {name: block["a"] for name, block in heard[0].items()}
    assert values == {
        "kept": {"type": "static_select", "selected_option": options[1]},
        "changed": {"type": "static_select", "selected_option": options[2]},
        "boxes": {"type": "checkboxes", "selected_options": [options[0], options[2]]},
        "who": {"type": "users_select", "selected_user": AMY},
        "empty": {"type": "plain_text_input", "value": None},
    }
    assert slack.view(DANA) is None


async def test_an_answer_that_slack_does_not_know_leaves_the_modal_open(
    slack: FakeSlack, bolt: AsyncApp
) -> None:
    """The person reads that there was trouble; a good update replaces the modal's content."""
    answers: list[dict[str, Any]] = [
        {"response_action": "explode"},
        {"response_action": "errors", "errors": {"nowhere": "x"}},
        {"response_action": "update", "view": {"type": "modal"}},
        {"response_action": "update", "view": modal(callback_id="second")},
    ]

    @bolt.view("reject")
    async def sent(ack: Any) -> None:
        await ack(**answers.pop(0))

    view = slack.workspace.show_view(DANA, modal())
    for _ in range(3):
        reply = await slack.submit(DANA, view.id, {"reason": "x"})
        assert reply.shown is not None
        assert "trouble" in reply.shown
    assert (await slack.submit(DANA, view.id, {"reason": "x"})).shown is None
    shown = slack.view(DANA)
    assert shown is not None
    assert (shown.id, shown.body["callback_id"]) == (view.id, "second")


async def test_closing_a_modal_is_told_where_the_app_asked_for_it(slack: FakeSlack, bolt: AsyncApp) -> None:
    """`notify_on_close` sends an event, and no other modal does."""
    heard: list[str] = []

    @bolt.view_closed("reject")
    async def closed(ack: Any, view: dict[str, Any]) -> None:
        heard.append(view["id"])
        await ack()

    silent = slack.workspace.show_view(DANA, modal())
    assert (await slack.close_view(DANA, silent.id)).status is None
    told = slack.workspace.show_view(DANA, modal(notify_on_close=True))
    assert (await slack.close_view(DANA, told.id)).status == 200
    assert heard == [told.id]


async def test_the_home_tab_is_published_to_one_person(slack: FakeSlack, bolt: AsyncApp) -> None:
    """Opening the App Home sends an event, and its buttons work."""
    pressed: list[str] = []

    @bolt.event("app_home_opened")
    async def opened(event: dict[str, Any], client: AsyncWebClient) -> None:
        blocks = [section("Welcome"), actions(button("refresh"))]
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": blocks})

    @bolt.action("refresh")
    async def refresh(ack: Any, body: dict[str, Any]) -> None:
        pressed.append(body["view"]["id"])
        await ack()

    assert (await slack.open_home(AMY)).status == 200
    await until(lambda: slack.home(AMY), "the Home tab")
    home = slack.home(AMY)
    assert home is not None
    await slack.click_in_view(AMY, home.id, "refresh")
    assert pressed == [home.id]
    assert slack.home(DANA) is None


# --- towards the app, in Socket Mode


async def test_socket_mode_carries_the_same_as_http(slack: FakeSlack, client: AsyncWebClient) -> None:
    """Without an address the app's own connection is used, and an ack's payload comes back."""
    app = AsyncApp(client=client)

    @app.command("/promote")
    async def promote(ack: Any, command: dict[str, Any]) -> None:
        await ack(f"You said {command['text']}")

    @app.action("approve")
    async def approve(ack: Any) -> None:
        await ack()

    handler = AsyncSocketModeHandler(app, APP_TOKEN, web_client=client)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    try:
        await until(lambda: slack.delivery.connections, "the connection")
        reply = await slack.command(DANA, CHANNEL, "payload status")
        assert reply.shown == slack.ephemerals(DANA)[-1].text == "You said payload status"
        posted = await client.chat_postMessage(channel=CHANNEL, text="card", blocks=[actions(button())])
        assert (await slack.click(AMY, CHANNEL, posted["ts"], "approve")).status == 200
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]
    await until(lambda: not slack.delivery.connections, "the end of the connection")


async def test_a_socket_ticket_is_good_for_one_connection(slack: FakeSlack) -> None:
    """The address from `apps.connections.open` needs the app's token and works once."""
    wrong = AsyncWebClient(token=TOKEN, base_url=slack.api_url)
    assert await refused(wrong.apps_connections_open(app_token=TOKEN)) == "not_allowed_token_type"
    url = (await wrong.apps_connections_open(app_token=APP_TOKEN))["url"]
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url) as socket:
            assert json.loads((await socket.receive()).data)["type"] == "hello"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)


async def test_who_waits_for_a_change_is_woken(slack: FakeSlack) -> None:
    """`changed` returns as soon as there is something new to see."""
    version = slack.version
    waiting = asyncio.create_task(slack.changed(version))
    slack.say(DANA, CHANNEL, "hello")
    await asyncio.wait_for(waiting, 1)
    assert slack.version > version
