"""The fake workspace takes files as Slack does: announced, sent once, and shown in a channel that the app is in."""

import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import Closed, Failed, Unavailable
from bot.integrations.slack import SlackNotices, web_client
from bot.playground.page import Page
from bot.playground.slack.fake import FakeSlack
from bot.playground.slack.uploads import LARGEST

CHANNEL, ELSEWHERE, CLOSED = "C0DEPLOYS01", "C0ELSEWHERE", "C0ARCHIVED1"
DANA, TOKEN = "U0DANA", "xoxb-demo"
PICTURE = b"\x89PNG and whatever follows"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    workspace = FakeSlack(signing_secret="a-signing-secret", bot_token=TOKEN)
    workspace.add_user(DANA, name="dana", real_name="Dana Dev", email="dana@acme.example")
    workspace.add_channel(CHANNEL, name="deploys", members=[DANA])
    workspace.add_channel(ELSEWHERE, name="elsewhere", members=[DANA], with_bot=False)
    workspace.add_channel("C0SECRET001", name="secret", members=[DANA], with_bot=False, private=True)
    workspace.add_channel(CLOSED, name="archived", members=[DANA]).archived = True
    await workspace.start()
    yield workspace
    await workspace.stop()


@pytest.fixture
def client(slack: FakeSlack) -> AsyncWebClient:
    return web_client(TOKEN, api_url=slack.api_url)


async def refused(call: Awaitable[Any]) -> str:
    """The error code with which the Web API refuses a call."""
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


async def announced(client: AsyncWebClient, *, length: int = len(PICTURE)) -> tuple[str, str]:
    """The id of a file, and the address that takes it."""
    answer = await client.files_getUploadURLExternal(filename="a.png", length=length, alt_txt="a picture")
    return answer["file_id"], answer["upload_url"]


async def sent(address: str, content: bytes = PICTURE) -> int:
    """The status with which the address answers."""
    async with aiohttp.ClientSession() as session, session.post(address, data=content) as response:
        return response.status


async def completed(client: AsyncWebClient, *ids: str, channel: str | None = CHANNEL) -> Any:
    """Show these files."""
    files = [{"id": id, "title": "A title"} for id in ids]
    return await client.files_completeUploadExternal(files=files, channel_id=channel, initial_comment="look")


async def test_a_file_stands_in_the_channel_with_its_words(slack: FakeSlack, client: AsyncWebClient) -> None:
    """One message of the bot, with the bytes, the title and what to read aloud."""
    await SlackNotices(client).show(CHANNEL, PICTURE, title="Numbers", alternative="two bars", caption="look")
    [message] = slack.messages(CHANNEL)
    [file] = message.files
    assert (message.user, message.text) == (slack.bot_user, "look")
    assert (file.content, file.title, file.alternative) == (PICTURE, "Numbers", "two bars")


async def test_an_address_takes_one_file(client: AsyncWebClient) -> None:
    """Whoever reads the address later can do nothing with it."""
    _, address = await announced(client)
    assert (await sent(address), await sent(address)) == (200, 404)


async def test_an_address_takes_exactly_the_bytes_that_were_announced(client: AsyncWebClient) -> None:
    """More or less is refused, and there is no such file then."""
    id, address = await announced(client, length=5)
    assert await sent(address) == 400
    assert await refused(completed(client, id)) == "file_not_found"


async def test_a_file_without_bytes_is_none(client: AsyncWebClient) -> None:
    """One that was announced alone, or that nobody announced."""
    id, _ = await announced(client)
    assert await refused(completed(client, id)) == "file_not_found"
    assert await refused(completed(client, "F0NOBODY")) == "file_not_found"


async def test_a_file_is_completed_once(slack: FakeSlack, client: AsyncWebClient) -> None:
    """Afterwards it is none that could be shown elsewhere."""
    id, address = await announced(client)
    await sent(address)
    await completed(client, id)
    assert await refused(completed(client, id)) == "file_not_found"
    assert len(slack.messages(CHANNEL)) == 1


@pytest.mark.parametrize(
    ("channel", "error"),
    {
        ELSEWHERE: "not_in_channel",
        "C0SECRET001": "channel_not_found",
        "C0NOWHERE01": "channel_not_found",
        CLOSED: "is_archived",
        "deploys": "invalid_arguments",
        DANA: "invalid_arguments",
    }.items(),
)
async def test_a_file_is_shown_where_the_app_is(
    slack: FakeSlack, client: AsyncWebClient, channel: str, error: str
) -> None:
    """The right to post in every channel does not help, and a name or a person is no channel."""
    slack.api.scopes |= {"chat:write.public"}
    id, address = await announced(client)
    await sent(address)
    assert await refused(completed(client, id, channel=channel)) == error


async def test_a_file_without_a_channel_is_seen_by_nobody(slack: FakeSlack, client: AsyncWebClient) -> None:
    """It stays private."""
    id, address = await announced(client)
    await sent(address)
    assert (await completed(client, id, channel=None))["files"] == [{"id": id, "title": "A title"}]
    assert slack.messages(CHANNEL) == []


@pytest.mark.parametrize(
    ("announcement", "error"),
    [
        ({"filename": "", "length": 5}, "missing_argument"),
        ({"filename": "a.png", "length": 0}, "missing_argument"),
        ({"filename": "a.png", "length": -1}, "invalid_arguments"),
        ({"filename": "a.png", "length": LARGEST + 1}, "file_upload_size_restricted"),
        ({"filename": "a.png", "length": 5, "alt_txt": "x" * 1001}, "alt_txt_too_large"),
    ],
)
async def test_an_announcement_that_slack_would_refuse_is_refused(
    client: AsyncWebClient, announcement: dict[str, Any], error: str
) -> None:
    """With Slack's own word."""
    assert await refused(client.files_getUploadURLExternal(**announcement)) == error


@pytest.mark.parametrize("files", ["", "[]", "{}", '["F1"]', '[{"id": "F1"}, {"id": "F1"}]'])
async def test_a_completion_that_makes_no_sense_is_refused(client: AsyncWebClient, files: str) -> None:
    """At least one file, and none twice."""
    call = client.api_call("files.completeUploadExternal", params={"files": files, "channel_id": CHANNEL})
    assert await refused(call) == "invalid_arguments"


async def test_both_calls_need_the_right_to_write_files(slack: FakeSlack, client: AsyncWebClient) -> None:
    """A token without it is told so at the first call already."""
    slack.api.scopes -= {"files:write"}
    assert await refused(announced(client)) == "missing_scope"
    assert await refused(completed(client, "F1")) == "missing_scope"


# --- the bot's own call


@pytest.mark.parametrize(
    ("channel", "scopes", "error", "words"),
    [
        (CHANNEL, set(), Failed, "Put its manifest in anew"),
        (ELSEWHERE, {"files:write"}, Closed, "not_in_channel"),
        ("C0NOWHERE01", {"files:write"}, Closed, "channel_not_found"),
        ("deploys", {"files:write"}, Unavailable, "invalid_arguments"),
    ],
)
async def test_a_picture_that_cannot_be_shown_is_an_error_that_people_can_read(
    slack: FakeSlack,
    client: AsyncWebClient,
    channel: str,
    scopes: set[str],
    error: type[Exception],
    words: str,
) -> None:
    """What to do where somebody has to act; nothing of the token or the address."""
    slack.api.scopes = frozenset(slack.api.scopes - {"files:write"} | scopes)
    with pytest.raises(error, match=words) as caught:
        await SlackNotices(client).show(channel, PICTURE, title="t", alternative="a", caption="c")
    assert "/upload/" not in str(caught.value)
    assert TOKEN not in str(caught.value)


async def test_an_upload_that_breaks_off_tells_nothing_of_its_address() -> None:
    """The address is a secret for as long as nobody has used it."""

    async def api(request: web.Request) -> web.Response:
        if request.path.endswith("getUploadURLExternal"):
            address = f"http://127.0.0.1:{port}/upload/v1/a-secret-place"
            return web.json_response({"ok": True, "file_id": "F1", "upload_url": address})
        return web.Response(status=500, text=f"broken: {request.path}")

    broken = web.Application()
    broken.router.add_route("*", "/{path:.*}", api)
    runner = web.AppRunner(broken, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    client = web_client(TOKEN, api_url=f"http://127.0.0.1:{port}/api/")
    with pytest.raises(Unavailable) as caught:
        await SlackNotices(client).show(CHANNEL, PICTURE, title="t", alternative="a", caption="c")
    await runner.cleanup()
    assert "a-secret-place" not in str(caught.value)


# --- the demo's page


class Nothing:
    """A world without anything in it."""

    async def snapshot(self) -> dict[str, object]:
        """Nothing."""
        return {}

    async def switch(self, name: str, value: object) -> str:
        """Nothing happens."""
        return f"{name}: {value}"


async def test_the_page_shows_the_picture(slack: FakeSlack, client: AsyncWebClient) -> None:
    """The message names its address, and there are the bytes; of another one there is nothing."""
    await SlackNotices(client).show(CHANNEL, PICTURE, title="Numbers", alternative="two bars", caption="look")
    page = Page(slack, Nothing(), token="a-token")
    await page.start()
    async with aiohttp.ClientSession() as browser:
        async with browser.get(page.address + "state") as response:
            state = json.loads(await response.text())
        [file] = next(each for each in state["channels"] if each["id"] == CHANNEL)["messages"][0]["files"]
        async with browser.get(page.address + file["address"]) as response:
            assert (response.content_type, await response.read()) == ("image/png", PICTURE)
        async with browser.get(page.address + "files/F0NOBODY") as response:
            assert response.status == 404
    await page.stop()
    assert file["alternative"] == "two bars"
