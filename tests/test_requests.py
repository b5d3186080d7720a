"""The rim: what comes over HTTP, signed by Slack or by nobody."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from world import CHANNEL, DANA, SIGNING_SECRET, TEAM, World, world_in

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made, made.hearing():
        yield made


def signed(body: str, *, ago: float = 0, secret: str = SIGNING_SECRET) -> dict[str, str]:
    """The headers that Slack would send with this body."""
    at = str(int(time.time() - ago))
    digest = hmac.new(secret.encode(), f"v0:{at}:{body}".encode(), hashlib.sha256).hexdigest()
    return FORM | {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={digest}"}


async def post(world: World, body: bytes | str | BytesIO, headers: dict[str, str]) -> int:
    """Send it as it is; returns the status."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(str(world.slack.events_url), data=body, headers=headers) as answer,
    ):
        return answer.status


def command(text: str, *, answer_to: str) -> str:
    """The form of a slash command."""
    return urlencode(
        {
            "command": "/promote",
            "text": text,
            "user_id": DANA,
            "team_id": TEAM,
            "channel_id": CHANNEL,
            "trigger_id": "1.2.abc",
            "response_url": answer_to,
        }
    )


def address(world: World) -> str:
    """Where an answer for the developer may go."""
    return world.slack.grants.response_url("commands", channel=CHANNEL, user=DANA)


async def nothing_asked(world: World) -> bool:
    """Did nobody get to ask for anything?"""
    return not await world.store.history(world.target("dev"))


# --- Bolt's trap: the word “payload”


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("payload-api 15 dev", "“payload-api”"),
        ("manual-app 17 dev because the payload= grew", "asked for manual-app 17 to dev"),
        ("payload", "/promote"),
    ],
)
async def test_the_word_payload_in_a_command_is_only_a_word(world: World, text: str, says: str) -> None:
    """Bolt 1.30 loses a form that has this word in it; we do not."""
    reply = await world.command(text)
    assert (reply.status, reply.error) == (200, None)
    assert says in await world.answer()


async def test_a_channel_may_be_named_payload(world: World) -> None:
    """The same where the word is the channel's."""
    world.slack.add_channel("C0PAYLOAD01", name="payload-team", members=[DANA])
    reply = await world.slack.command(DANA, "C0PAYLOAD01", "manual-app 17 dev")
    assert (reply.status, reply.error) == (200, None)
    assert "asked for manual-app 17 to dev" in await world.answer()


# --- what is not from Slack

BODY = command("manual-app 17 dev", answer_to="http://127.0.0.1:9/nowhere")
TIME, SIGNATURE = "X-Slack-Request-Timestamp", "X-Slack-Signature"
FORGERIES: dict[str, Callable[[], dict[str, str]]] = {
    "no time": lambda: {TIME: ""},
    "a word for a time": lambda: {TIME: "abc"},
    "a negative time": lambda: {TIME: "-1"},
    "an exponent": lambda: {TIME: "1e9"},
    "digits of other scripts": lambda: {TIME: "\u00b2\u0663"},
    "a fraction": lambda: {TIME: f"{int(time.time())}.5"},
    "a number too long to read": lambda: {TIME: "9" * 5000},
    "an old time": lambda: {TIME: str(int(time.time()) - 3600)},
    "no signature": lambda: {SIGNATURE: ""},
    "an empty signature": lambda: {SIGNATURE: "v0="},
    "zeros": lambda: {SIGNATURE: "v0=" + "0" * 64},
    "a signature in another script": lambda: {SIGNATURE: "v0=\u00e9"},
    "a long signature": lambda: {SIGNATURE: "v0=" + "0" * 6000},
    "another secret": lambda: signed(BODY, secret="another-secret"),
    "an old signature": lambda: signed(BODY, ago=301),
    "a signature from the future": lambda: signed(BODY, ago=-320),
    "another body": lambda: signed(BODY + "&text=more"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_slack_did_not_sign_is_answered_401(world: World, forgery: str) -> None:
    """Wrong, old, missing or malformed: never heard, and never an error of ours."""
    assert await post(world, BODY, signed(BODY) | FORGERIES[forgery]()) == 401
    assert await nothing_asked(world)


@pytest.mark.parametrize("missing", [TIME, SIGNATURE])
async def test_a_missing_header_is_answered_401(world: World, missing: str) -> None:
    """Without both there is nothing to check."""
    headers = signed(BODY)
    del headers[missing]
    assert await post(world, BODY, headers) == 401


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("{", "application/x-www-form-urlencoded"),
        ("not json", "application/json"),
        ("[1]", "application/json"),
        ('"x"', "application/json"),
        ("payload={", "application/x-www-form-urlencoded"),
        ("payload=[1]", "application/x-www-form-urlencoded"),
        ("[" * 100_000, "application/json"),
        ("ssl_check=1&token=x", "application/x-www-form-urlencoded"),
        ("", "application/x-www-form-urlencoded"),
    ],
    ids=lambda value: value[:12],
)
async def test_nothing_unsigned_is_read(world: World, body: str, kind: str) -> None:
    """What a body holds does not matter before its signature is known to be good."""
    headers = signed("something else") | {"Content-Type": kind}
    assert await post(world, body, headers) == 401


async def test_what_is_not_utf8_is_answered_401(world: World) -> None:
    """Slack writes UTF-8."""
    assert await post(world, b"text=\xff\xfe", signed(BODY)) == 401


async def test_a_body_over_a_mebibyte_is_refused(world: World) -> None:
    """Nobody fills our memory, signed or not."""
    body = "text=" + "x" * (1024 * 1024)
    assert await post(world, BytesIO(body.encode()), signed(body)) == 413


async def test_only_the_one_path_is_served(world: World) -> None:
    """A public port shows nothing else, and takes nothing but POST there."""
    url = str(world.slack.events_url)
    async with aiohttp.ClientSession() as session:
        for method, path, status in (("GET", url, 405), ("POST", f"{url}/x", 404), ("GET", url[:-13], 404)):
            async with session.request(method, path) as answer:
                assert answer.status == status


async def test_a_signature_is_good_for_five_minutes(world: World) -> None:
    """Slack's own rule; clocks differ a little."""
    body = command("help", answer_to=address(world))
    assert await post(world, body, signed(body, ago=290)) == 200
    assert "promote-bot" in await world.answer()


# --- deliveries


async def test_a_delivery_that_comes_again_makes_one_promotion(world: World) -> None:
    """Whether Slack says that it tries again, or the very same bytes come twice."""
    body = command("manual-app 17 dev", answer_to=address(world))
    headers = signed(body)
    again = headers | {"X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"}
    for sent in (headers, headers, again):
        assert await post(world, body, sent) == 200
    await world.answer(number=3)
    (promotion,) = await world.store.history(world.target("dev"))
    assert all(promotion.id in told for told in world.told())


async def test_a_charset_that_does_not_exist_does_not_matter(world: World) -> None:
    """What the header says of the text is not trusted: it is UTF-8, or it is not from Slack."""
    body = command("help", answer_to=address(world))
    headers = signed(body) | {"Content-Type": "application/x-www-form-urlencoded; charset=klingon"}
    assert await post(world, body, headers) == 200
    assert "promote-bot" in await world.answer()
