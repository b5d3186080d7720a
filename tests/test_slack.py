"""Slack's side: who people are, which error means what, and the way there through proxies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from world import (
    AMY,
    BEN,
    BOT_TOKEN,
    CHANNEL,
    DANA,
    GROUP,
    GUS,
    OLGA,
    ROBO,
    SIGNING_SECRET,
    TEAM,
    ZED,
    World,
    populate,
    world_in,
)

from bot.core.errors import Gone, NoGroup, Unavailable
from bot.core.people import Person
from bot.core.ports import Card
from bot.core.promotion import PromotionId
from bot.core.rollout import Look
from bot.integrations.slack import (
    GONE,
    HISTORY_SCOPES,
    SCOPES,
    SlackAnnouncer,
    SlackDirectory,
    _person,
    web_client,
)
from bot.playground.slack.fake import DEFAULT_SCOPES, FakeSlack


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with workspace() as made:
        yield made


@asynccontextmanager
async def workspace(scopes: frozenset[str] = DEFAULT_SCOPES) -> AsyncIterator[FakeSlack]:
    """The workspace alone."""
    slack = FakeSlack(signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN, scopes=scopes)
    populate(slack)
    await slack.start()
    yield slack
    await slack.stop()


def directory(slack: FakeSlack) -> SlackDirectory:
    """The bot's view of the people."""
    return SlackDirectory(web_client(BOT_TOKEN, api_url=slack.api_url))


# --- people


async def test_a_member_is_known_by_id_with_name_and_email(slack: FakeSlack) -> None:
    """Ids decide; the name and the email are for the commit."""
    assert await directory(slack).person(DANA) == Person(
        id=DANA, team=TEAM, name="Dana Ortiz", email="dana@acme.example"
    )


@pytest.mark.parametrize(
    ("user", "flag"),
    [
        (GUS, "is_guest"),
        (OLGA, "is_stranger"),
        (ROBO, "is_bot"),
        (ZED, "is_deactivated"),
    ],
)
async def test_everybody_else_is_marked(slack: FakeSlack, user: str, flag: str) -> None:
    """Guests, people of other workspaces, bots and those who left are told apart."""
    person = await directory(slack).person(user)
    flags = ("is_guest", "is_stranger", "is_bot", "is_deactivated")
    assert [name for name in flags if getattr(person, name)] == [flag]


async def test_a_single_channel_guest_is_a_guest(slack: FakeSlack) -> None:
    """Slack has two kinds of guests; neither promotes."""
    slack.user(AMY).kind = "single_channel_guest"
    assert (await directory(slack).person(AMY)).is_guest


async def test_without_the_email_scope_there_is_no_email() -> None:
    """The commit goes on without it."""
    async with workspace(DEFAULT_SCOPES - {"users:read.email"}) as slack:
        assert (await directory(slack).person(DANA)).email is None


GRID = {"id": DANA, "name": "dana", "enterprise_user": {"enterprise_id": "E1", "teams": [TEAM, "T2"]}}


@pytest.mark.parametrize(
    ("user", "is_stranger"),
    [
        ({"id": DANA, "team_id": TEAM}, False),
        ({"id": DANA, "team_id": "T2"}, True),
        ({"id": DANA}, True),
        ({"id": DANA, "team_id": TEAM, "is_stranger": True}, True),
        (GRID, False),
        (GRID | {"team_id": "E1"}, False),
        (GRID | {"team_id": "T2"}, False),
        (GRID | {"enterprise_user": {"enterprise_id": "E1", "teams": ["T2"]}}, True),
        (GRID | {"enterprise_user": {"enterprise_id": "E1"}}, True),
        (GRID | {"enterprise_user": None}, True),
    ],
)
def test_outsiders_are_told_by_their_team(user: dict[str, Any], *, is_stranger: bool) -> None:
    """On Enterprise Grid a person's own team may be the organisation or missing: their list of teams counts."""
    person = _person(user, TEAM)
    assert (person.is_stranger, person.team, bool(person.name)) == (is_stranger, TEAM, True)


def test_slackbot_is_a_bot() -> None:
    """Slack itself does not call it one."""
    assert _person({"id": "USLACKBOT", "team_id": TEAM, "is_bot": False}, TEAM).is_bot


async def test_an_unknown_user_is_nobody(slack: FakeSlack) -> None:
    """Whom Slack does not know is not waved through, and no reason to ask for ever."""
    assert (await directory(slack).person("U0NOBODY001")).is_deactivated


async def test_a_group_is_expanded_anew_each_time(slack: FakeSlack) -> None:
    """Members change; a group may have none, and only one without members is asked about twice."""
    group = slack.add_group(GROUP, handle="release", users=[AMY, BEN])
    people = directory(slack)
    assert await people.members(GROUP) == {AMY, BEN}
    group.users = [BEN]
    assert await people.members(GROUP) == {BEN}
    assert "usergroups.list" not in [call.method for call in slack.requests]
    group.users = []
    assert await people.members(GROUP) == frozenset()


@pytest.mark.parametrize("lists_nobody", [True, False])
async def test_a_group_that_is_disabled_or_gone_is_not_taken_for_one_without_members(
    slack: FakeSlack, lists_nobody: bool
) -> None:
    """Slack does not say what it answers for a disabled group; the list of all groups tells it from an empty one."""
    group = slack.add_group(GROUP, handle="release", users=[AMY, BEN])
    group.disabled, group.lists_nobody = True, lists_nobody
    for id in (GROUP, "S0NOWHERE01"):
        with pytest.raises(NoGroup) as error:
            await directory(slack).members(id)
        assert str(error.value) == (
            f"nobody can tell who is in the user group {id}, which is disabled or gone. Enable it in Slack, or name "
            "another one in promote.yaml"
        )


async def test_an_empty_group_is_unknown_where_slack_does_not_list_its_groups(slack: FakeSlack) -> None:
    """Half an answer is none."""
    slack.add_group(GROUP, handle="release", users=[])
    slack.faults.errors["usergroups.list"] = "fatal_error"
    with pytest.raises(Unavailable, match="fatal_error"):
        await directory(slack).members(GROUP)


async def test_the_scopes_are_what_slack_says(slack: FakeSlack) -> None:
    """`check` compares them with what is needed, and what is needed is enough for the whole bot."""
    assert await directory(slack).granted() == DEFAULT_SCOPES
    assert SCOPES == DEFAULT_SCOPES


# --- errors, sorted by what happens next


async def test_trouble_of_slack_is_unavailable(slack: FakeSlack) -> None:
    """Every error in looking somebody up stops the decision, and says whose trouble it is."""
    people = directory(slack)
    slack.down = True
    with pytest.raises(Unavailable, match="Slack is not available: it says internal_error"):
        await people.person(DANA)
    slack.down = False
    for word in ("invalid_auth", "account_inactive", "token_revoked", "fatal_error"):
        slack.faults.errors["users.info"] = word
        with pytest.raises(Unavailable, match=word):
            await people.person(DANA)
    slack.faults.errors.clear()
    assert (await people.person(DANA)).id == DANA


async def test_a_rate_limit_carries_its_pause(slack: FakeSlack) -> None:
    """The engine waits as long as Slack asked for; the client does not try again by itself."""
    slack.rate_limit(calls=2, retry_after=17)
    with pytest.raises(Unavailable) as limited:
        await directory(slack).members(GROUP)
    assert limited.value.retry_after == 17
    assert len(slack.requests) == 1


async def test_a_missing_scope_is_named() -> None:
    """Whoever runs the bot reads what to add."""
    async with workspace(DEFAULT_SCOPES - {"usergroups:read"}) as slack:
        with pytest.raises(Unavailable, match=r"missing_scope \(the token needs the scope usergroups:read\)"):
            await directory(slack).members(GROUP)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """No connection is no answer, and the reason is said in words: it may be a proxy or a certificate."""
    client = web_client(BOT_TOKEN, api_url="http://127.0.0.1:9/api/")
    with pytest.raises(Unavailable, match=r"Slack is not available: it cannot be reached: .*127\.0\.0\.1:9"):
        await SlackDirectory(client).person(DANA)


async def test_a_silent_server_is_given_two_seconds() -> None:
    """A click has to be answered within three."""
    async with listening(silent=True) as (port, _):
        client = web_client(BOT_TOKEN, api_url=f"http://127.0.0.1:{port}/api/")
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="did not say in time"):
            await SlackDirectory(client).members(GROUP)
        assert asyncio.get_running_loop().time() - began < 2.5


@pytest.mark.parametrize("word", sorted(GONE))
async def test_a_message_that_is_gone_is_told_apart(tmp_path: Path, redis_url: str, word: str) -> None:
    """There the card has to be posted anew; everything else is worth another try."""
    async with world_in(tmp_path, redis_url) as world:
        promotion = await world.find(await world.request())
        announcer = SlackAnnouncer(world.client)
        card = await announcer.post(world.target(), promotion, Look())
        world.slack.faults.errors |= {"chat.update": word, "chat.postMessage": word}
        with pytest.raises(Gone, match=word):
            await announcer.edit(card, world.target(), promotion, Look())
        with pytest.raises(Gone, match=word):
            await announcer.tell(card, promotion, [promotion.last])


async def test_every_other_word_is_worth_another_try(tmp_path: Path, redis_url: str) -> None:
    """A card that Slack refuses now is tried again; nothing is posted twice."""
    async with world_in(tmp_path, redis_url) as world:
        promotion = await world.find(await world.request())
        world.slack.faults.errors["chat.update"] = "invalid_blocks"
        with pytest.raises(Unavailable, match="invalid_blocks"):
            await SlackAnnouncer(world.client).edit(
                Card(channel=CHANNEL, ts="1.1"), world.target(), promotion, Look()
            )


# --- the way there


@pytest.mark.parametrize(
    "url",
    [
        "https://slack.com.evil.example/api/",
        "http://127.0.0.1.evil.example/api/",
        "http://127.0.0.1@evil.example/api/",
        "http://evil.example/?127.0.0.1",
        "http://evil.example#@127.0.0.1/",
        "http://0.0.0.0/api/",
        "http://10.0.0.1/api/",
        "127.0.0.1/api/",
        "localhost",
    ],
)
def test_a_token_does_not_leave_for_elsewhere(url: str) -> None:
    """SLACK_API_URL is for a simulated Slack on this machine."""
    with pytest.raises(ValueError, match="SLACK_API_URL is accepted for loopback addresses only"):
        web_client(BOT_TOKEN, api_url=url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_simulated_slack_on_this_machine_is_accepted(host: str) -> None:
    """And without one it is Slack's own address."""
    assert web_client(BOT_TOKEN, api_url=f"http://{host}:8080/api/").base_url == f"http://{host}:8080/api/"
    assert web_client(BOT_TOKEN).base_url == "https://slack.com/api/"


@asynccontextmanager
async def listening(*, silent: bool = False) -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy that writes down the first line of each request and says ok to it, or never says a word."""
    heard: list[str] = []

    tasks: set[asyncio.Task[None] | None] = set()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        heard.append((await reader.readline()).decode().strip())
        if silent:
            with suppress(ConnectionError):
                while await reader.read(4096):
                    pass
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await asyncio.gather(*(task for task in tasks if task))


def proxies(monkeypatch: pytest.MonkeyPatch, **named: str) -> None:
    """The machine's proxy settings, these and no others."""
    for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.delenv(spelled, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)


async def test_the_proxy_is_used_for_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves the machine goes through HTTPS_PROXY."""
    async with listening() as (port, heard):
        proxies(monkeypatch, HTTPS_PROXY=f"http://127.0.0.1:{port}")
        with pytest.raises(Unavailable):
            await SlackDirectory(web_client(BOT_TOKEN)).members(GROUP)
    assert heard
    assert heard[0].startswith("CONNECT slack.com:443")


async def test_no_proxy_covers_every_way_to_slack(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look-ups, cards, private answers and modals all keep NO_PROXY: none of them tries the dead proxy."""
    dead = "http://127.0.0.1:9"
    proxies(monkeypatch, HTTPS_PROXY=dead, HTTP_PROXY=dead, NO_PROXY="127.0.0.1,localhost")
    async with world_in(tmp_path, redis_url) as world, world.hearing():
        await _everything(world)


async def _everything(world: World) -> None:
    await world.command("manual-app prod")
    assert "asked for manual-app 15 to prod" in await world.answer()
    (promotion,) = await world.pending()
    await world.advance(promotion.id)
    assert "Approval needed" in await world.shown(promotion.id)
    await world.press(promotion.id, "approve", user=DANA)
    assert "somebody else must approve" in await world.answer(number=2)
    await world.press(promotion.id, "reject", user=AMY)
    assert world.slack.view(AMY) is not None


async def test_without_no_proxy_private_answers_take_the_proxy_too(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company that lets nothing out directly gets every request of ours through its proxy."""
    async with world_in(tmp_path, redis_url) as world, world.hearing(), listening() as (port, heard):
        proxies(monkeypatch, HTTP_PROXY=f"http://127.0.0.1:{port}")
        await world.command("help")
        await world.until(lambda: heard, "the answer goes through the proxy")
    assert [line.startswith(f"POST {world.slack.api_url[:-5]}/commands/") for line in heard] == [True]
    assert world.told() == []


# --- a card whose place was lost


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def test_a_lost_card_is_found_behind_many_messages(world: World) -> None:
    """Page after page is read; neither a quotation of the id nor another promotion's card is taken for it."""
    world.slack.api.scopes |= HISTORY_SCOPES
    announcer, target = SlackAnnouncer(world.client), world.target()
    lost = await world.find(await world.request())
    place = await announcer.post(target, lost, Look())
    other = replace(lost, id=PromotionId("P-0000000000"))
    await announcer.post(target, other, Look())
    for number in range(450):
        world.slack.say(DANA, CHANNEL, f"{number}: {lost.id}")
    assert await announcer.posted(target, lost) == place
    assert await announcer.posted(target, replace(lost, id=PromotionId("P-1111111111"))) is None


async def test_a_mark_of_another_app_is_no_card(world: World) -> None:
    """Any app may put metadata on its messages; only our own message can be our card."""
    world.slack.api.scopes |= HISTORY_SCOPES
    promotion = await world.find(await world.request())
    mark = {"event_type": "promotion", "event_payload": {"id": promotion.id}}
    world.slack.workspace.add(CHANNEL, DANA, "Approved", metadata=mark)
    assert await SlackAnnouncer(world.client).posted(world.target(), promotion) is None
