"""The demo's page answers its own browser alone, and does what a person does in Slack."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest
from aiohttp import web
from conftest import require
from playwright.async_api import async_playwright

from bot.playground.page import Page
from bot.playground.slack.fake import FakeSlack

CHANNEL, DANA, AMY = "C0DEPLOYS01", "U0DANA", "U0AMY"
TOKEN = "a-token-for-the-page"
MODAL = {
    "type": "modal",
    "title": {"type": "plain_text", "text": "Reject"},
    "submit": {"type": "plain_text", "text": "Reject"},
    "blocks": [
        {
            "type": "input",
            "block_id": "reason",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


class SmallWorld:
    """A world with one application, which remembers the switches that were turned."""

    def __init__(self) -> None:
        self.turned: list[tuple[str, object]] = []
        self.version = "14"
        self.broken = False

    async def snapshot(self) -> dict[str, object]:
        """The application and its values file."""
        if self.broken:
            raise OSError("the cluster is on fire")
        application = {
            "name": "manual-app-prod",
            "health": "Healthy",
            "sync": "Synced",
            "version": self.version,
        }
        file = {"name": "values-prod.yaml", "text": f'image:\n  tag: "{self.version}"\n'}
        return {"applications": [application], "files": [file], "switches": {}, "log": []}

    async def switch(self, name: str, value: object) -> str:
        """Remember it."""
        self.turned.append((name, value))
        self.version = str(value)
        return f"CI built version {value}"


class SmallBot:
    """The other end of the workspace: it keeps what it hears and always agrees."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    async def events(self, request: web.Request) -> web.Response:
        """Keep one request."""
        if request.content_type == "application/json":
            self.heard.append(await request.json())
            return web.Response()
        form = {name: values[0] for name, values in parse_qs(await request.text()).items()}
        self.heard.append(json.loads(form["payload"]) if "payload" in form else form)
        return web.Response(text="Understood." if "command" in form else "")


@pytest.fixture
async def bot() -> SmallBot:
    return SmallBot()


@pytest.fixture
async def slack(bot: SmallBot) -> AsyncIterator[FakeSlack]:
    workspace = FakeSlack(signing_secret="a-signing-secret", bot_token="xoxb-demo")
    workspace.add_user(DANA, name="dana", real_name="Dana Dev", email="dana@acme.example", role="developer")
    workspace.add_user(AMY, name="amy", real_name="Amy Approver", email="amy@acme.example")
    workspace.add_channel(CHANNEL, name="deploys", members=[DANA, AMY])
    await workspace.start()
    server = web.Application()
    server.router.add_post("/slack/events", bot.events)
    runner = web.AppRunner(server, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    workspace.events_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    yield workspace
    await workspace.stop()
    await runner.cleanup()


@pytest.fixture
async def world() -> SmallWorld:
    return SmallWorld()


@pytest.fixture
async def page(slack: FakeSlack, world: SmallWorld) -> AsyncIterator[Page]:
    served = Page(slack, world, token=TOKEN)
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def browser(page: Page) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=page.address) as session:
        yield session


async def act(browser: aiohttp.ClientSession, path: str, /, **said: object) -> dict[str, Any]:
    """Do what the page's script does, and give back its answer."""
    async with browser.post(path, json=said) as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def seen_by(browser: aiohttp.ClientSession, you: str, since: str = "") -> dict[str, Any]:
    """The state that one person's browser shows."""
    async with browser.get("state", params={"you": you, "since": since}) as answer:
        return dict(await answer.json())


def card(slack: FakeSlack) -> str:
    """Post a card with one button as the bot; the answer is its time stamp."""
    button = {
        "type": "button",
        "action_id": "approve",
        "text": {"type": "plain_text", "text": "Approve"},
        "value": "P-1",
    }
    blocks = [{"type": "actions", "block_id": "act", "elements": [button]}]
    return slack.workspace.add(CHANNEL, slack.bot_user, "card", blocks=blocks).ts


# --- who may ask


@pytest.mark.parametrize("path", ["", "app.js", "style.css", "state"])
async def test_the_page_is_served_under_its_token_only(
    browser: aiohttp.ClientSession, page: Page, path: str
) -> None:
    """Without the token there is nothing, and with it a strict policy keeps other origins out."""
    async with browser.get(path) as answer:
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    for other in (page.address.replace(TOKEN, "guess"), page.address.replace(f"{TOKEN}/", "")):
        async with browser.get(other + path) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("path", ["..%2fslack.py", "nothing.js", "%2e%2e/page.py"])
async def test_no_other_file_is_served(browser: aiohttp.ClientSession, page: Page, path: str) -> None:
    """Only the page's own files have names here."""
    async with browser.get(page.address + path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
async def test_another_host_name_is_turned_away(browser: aiohttp.ClientSession, host: str) -> None:
    """A name that a stranger's DNS points at this machine does not open the page."""
    async with browser.get("state", headers={"Host": host}) as answer:
        assert answer.status == 403
    async with browser.post("send", json={}, headers={"Host": host}) as answer:
        assert answer.status == 403


async def test_another_origin_is_turned_away(
    browser: aiohttp.ClientSession, page: Page, world: SmallWorld
) -> None:
    """A page from elsewhere can neither read nor act; the page itself can, by either name of this machine."""
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        async with browser.get("state", headers={"Origin": origin}) as answer:
            assert answer.status == 403
        async with browser.post(
            "switch", json={"name": "ci", "value": "15"}, headers={"Origin": origin}
        ) as answer:
            assert answer.status == 403
    assert not world.turned
    local = page.address.removesuffix(f"/{TOKEN}/").replace("127.0.0.1", "localhost")
    headers = {"Origin": local, "Host": local.removeprefix("http://")}
    async with browser.get("state", headers=headers) as answer:
        assert answer.status == 200


async def test_only_json_acts(browser: aiohttp.ClientSession, world: SmallWorld) -> None:
    """A form, which any site may send, is no act; neither is nonsense."""
    async with browser.post("switch", data={"name": "ci", "value": "15"}) as answer:
        assert answer.status == 415
    nonsense: list[object] = [[], {}, {"name": "format_disk"}]
    for said in nonsense:
        async with browser.post("switch", json=said) as answer:
            assert answer.status == 400
    async with browser.post("format", json={}) as answer:
        assert answer.status == 404
    assert not world.turned


# --- what a person does and sees


async def test_a_typed_command_reaches_the_bot(browser: aiohttp.ClientSession, bot: SmallBot) -> None:
    """What begins with a slash is a command, and its answer is shown to the person who typed it."""
    await act(browser, "send", you=DANA, channel=CHANNEL, text="/promote manual-app to stage")
    assert (bot.heard[0]["command"], bot.heard[0]["text"]) == ("/promote", "manual-app to stage")
    (private,) = (await seen_by(browser, DANA))["channels"][0]["messages"]
    assert (private["text"], private["private"]) == ("Understood.", True)
    assert not (await seen_by(browser, AMY))["channels"][0]["messages"]


async def test_a_typed_message_is_escaped(browser: aiohttp.ClientSession, bot: SmallBot) -> None:
    """Anything else is an ordinary message, stored as Slack stores it."""
    await act(browser, "send", you=DANA, channel=CHANNEL, text="<b> & <!channel>")
    assert not bot.heard
    assert (await seen_by(browser, AMY))["channels"][0]["messages"][0][
        "text"
    ] == "&lt;b&gt; &amp; &lt;!channel&gt;"


async def test_a_click_reaches_the_bot(
    browser: aiohttp.ClientSession, slack: FakeSlack, bot: SmallBot
) -> None:
    """A press carries the person; one on a button that is not there is refused with a sentence."""
    ts = card(slack)
    assert (await act(browser, "click", you=AMY, channel=CHANNEL, ts=ts, action_id="approve", value="P-1"))[
        "error"
    ] is None
    assert (bot.heard[0]["user"]["id"], bot.heard[0]["actions"][0]["value"]) == (AMY, "P-1")
    answer = await act(browser, "click", you=AMY, channel=CHANNEL, ts=ts, action_id="reject")
    assert answer["error"] == "not_possible"


async def test_a_modal_is_sent_and_closed(
    browser: aiohttp.ClientSession, slack: FakeSlack, bot: SmallBot
) -> None:
    """An empty form stays open with its complaint; a filled one goes to the bot."""
    view = slack.workspace.show_view(AMY, MODAL)
    await act(browser, "submit", you=AMY, view=view.id, values={"reason": ""})
    assert "reason" in (await seen_by(browser, AMY))["view"]["errors"]
    await act(browser, "submit", you=AMY, view=view.id, values={"reason": "frozen"})
    assert bot.heard[0]["view"]["state"]["values"]["reason"]["text"]["value"] == "frozen"
    assert (await seen_by(browser, AMY))["view"] is None
    other = slack.workspace.show_view(AMY, MODAL)
    await act(browser, "close", you=AMY, view=other.id)
    assert (await seen_by(browser, AMY))["view"] is None


async def test_the_home_tab_is_asked_for(browser: aiohttp.ClientSession, bot: SmallBot) -> None:
    """Opening it tells the bot."""
    await act(browser, "home", you=AMY)
    assert bot.heard[0]["event"]["type"] == "app_home_opened"


async def test_a_switch_is_turned_and_its_effect_is_shown(
    browser: aiohttp.ClientSession, world: SmallWorld
) -> None:
    """The person reads what happened, and the next state holds it already."""
    assert (await act(browser, "switch", name="ci", value="15"))["shown"] == "CI built version 15"
    assert world.turned == [("ci", "15")]
    assert (await seen_by(browser, DANA))["world"]["applications"][0]["version"] == "15"


async def test_news_arrives_without_asking_again(browser: aiohttp.ClientSession, slack: FakeSlack) -> None:
    """A browser that waits is answered as soon as something changes."""
    before = await seen_by(browser, DANA)
    waiting = asyncio.create_task(seen_by(browser, DANA, before["version"]))
    slack.say(AMY, CHANNEL, "hello")
    after = await asyncio.wait_for(waiting, 0.2)
    assert after["channels"][0]["messages"][0]["text"] == "hello"


async def test_a_world_in_trouble_is_told(browser: aiohttp.ClientSession, world: SmallWorld) -> None:
    """The last snapshot stays, beside a sentence about the trouble, until the world is well again."""
    before = await seen_by(browser, DANA)
    world.broken = True
    shown = (await seen_by(browser, DANA, before["version"]))["world"]
    assert "on fire" in shown["trouble"]
    assert shown["applications"]


async def test_a_stranger_to_the_page_gets_the_first_persons_view(browser: aiohttp.ClientSession) -> None:
    """A browser may ask before it knows who there is."""
    assert (await seen_by(browser, "U0NOBODY"))["you"] == DANA


# --- the page itself


async def test_a_browser_shows_words_as_words(page: Page, slack: FakeSlack, bot: SmallBot) -> None:
    """Markup in a message is shown, never run, and the page's buttons do what they say."""
    trouble: list[str] = []
    slack.say(DANA, CHANNEL, "<img src=x onerror=alert(1)> &lt;script&gt;alert(2)&lt;/script&gt; *bold*")
    ts = card(slack)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=require("chromium", "chromium"), args=["--no-sandbox"]
        )
        tab = await chromium.new_page()
        tab.on("dialog", lambda dialog: trouble.append(dialog.message))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        await tab.goto(page.address)
        await tab.get_by_test_id(f"persona-{AMY}").click()
        await tab.get_by_text("<script>alert(2)</script>").wait_for()
        assert await tab.locator("#log strong", has_text="bold").count() == 1
        assert await tab.locator("#log img, #log script").count() == 0
        await tab.get_by_test_id(f"message-{ts}").locator("[data-action-id=approve]").click()
        await tab.get_by_test_id("composer").fill("/promote status")
        await tab.get_by_test_id("send").click()
        await tab.get_by_text("Only visible to you").wait_for()
        slack.workspace.show_view(AMY, MODAL)
        await tab.get_by_test_id("dialog").locator("input").fill("frozen")
        await tab.get_by_test_id("dialog-submit").click()
        await tab.get_by_test_id("dialog").wait_for(state="detached")
        await chromium.close()
    assert [sorted({"type", "command"} & set(heard)) for heard in bot.heard] == [
        ["type"],
        ["command"],
        ["type"],
    ]
    assert not trouble
