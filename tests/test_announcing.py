"""What the people see: one card, edited in place, and a thread that tells everything once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import AMY, BEN, CHANNEL, DANA, World, world_in

from bot.core.announcing import CONFIRM_AFTER
from bot.core.catalog import Target
from bot.core.errors import Unavailable
from bot.core.ports import Card
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Look
from bot.integrations.slack import HISTORY_SCOPES, SlackAnnouncer


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def calls(world: World, method: str) -> int:
    """How often a method of Slack's was called."""
    return sum(call.method == method for call in world.slack.requests)


async def test_a_promotion_has_one_card_for_all_of_its_life(world: World) -> None:
    """Posted once, then edited; the last edit shows the end."""
    id = await world.committed()
    ts = (await world.store.card(id)).ts
    await world.rest(id)
    (card,) = [message for message in world.cards() if message.blocks]
    assert card.ts == ts
    assert card.metadata == {"event_type": "promotion", "event_payload": {"id": id}}
    assert card.text.startswith("Live: manual-app 15 to prod (14 → 15), asked by Dana Ortiz.")


async def test_the_card_is_edited_every_three_seconds_at_most(world: World) -> None:
    """Within that time changes gather; the first look after it shows them."""
    id = await world.request()
    await world.advance(id)
    before = calls(world, "chat.update")
    world.passes(2.9)
    await world.store.save_look(id, Look(waits_for="something"))
    assert await world.advance(id) == timedelta(seconds=0.1)
    assert calls(world, "chat.update") == before
    world.passes(0.1)
    await world.store.save_look(id, Look(waits_for="something"))
    await world.advance(id)
    assert calls(world, "chat.update") == before + 1


async def test_an_approval_is_shown_at_once(world: World) -> None:
    """Buttons that are of no use any more do not wait for three seconds to be over."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.advance(id)
    await world.advance(id)
    assert (await world.shown(id)).startswith("Approved")


async def test_a_cancellation_is_shown_at_once(world: World) -> None:
    """The same holds for every other answer to the card's question."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.cancel(id, user=DANA)
    assert await world.advance(id) == CONFIRM_AFTER
    assert (await world.shown(id)).startswith("Cancelled")


class DeafAnnouncer(SlackAnnouncer):
    """Slack posts the card, and its answer is lost on the way, once."""

    is_deaf = True

    async def post(self, target: Target, promotion: Promotion, look: Look) -> Card:
        """Post, and hear nothing."""
        card = await super().post(target, promotion, look)
        if self.is_deaf:
            self.is_deaf = False
            raise Unavailable("Slack", "its answer was lost.", maybe_done=True)
        return card


@pytest.mark.parametrize(("scopes", "cards"), [(HISTORY_SCOPES, 1), (frozenset(), 2)])
async def test_a_card_whose_place_was_lost_is_found_again(
    world: World, scopes: frozenset[str], cards: int
) -> None:
    """Where the bot may read the channel there is one card; where not, the second one is the valid one."""
    world.slack.api.scopes |= scopes
    world.slack.say(DANA, CHANNEL, "Is anybody there?")
    engine = world.new_engine(announcer=DeafAnnouncer(world.client))
    id = await world.request()
    await world.advance(id, engine)
    world.passes(5)
    await world.advance(id, engine)
    await world.advance(id, engine)
    posted = [each for each in world.cards() if id in str(each.blocks)]
    assert len(posted) == cards
    place = await world.store.card(id)
    assert (place.ts, place.is_posting) == (posted[-1].ts, False)
    assert place.link
    assert place.link.endswith(posted[-1].ts.replace(".", ""))
    assert [each.text for each in world.slack.thread(CHANNEL, posted[-1].ts)] != []


async def test_a_card_is_looked_for_only_where_it_may_stand(world: World) -> None:
    """An ordinary promotion asks Slack for no history, and neither does one whose card somebody deleted."""
    world.slack.api.scopes |= HISTORY_SCOPES
    id = await world.request()
    await world.advance(id)
    world.slack.workspace.delete(await world.card(id))
    await world.promoter.cancel(id, user=DANA)
    await world.rest(id)
    assert "conversations.history" not in [call.method for call in world.slack.requests]
    assert (await world.shown(id)).startswith("Cancelled")


class LateEdit(SlackAnnouncer):
    """An edit that is on its way until the test lets it arrive; its sender does not live to see that."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.is_under_way, self.may_arrive = asyncio.Event(), asyncio.Event()

    async def edit(self, card: Card, target: Target, promotion: Promotion, look: Look) -> None:
        """Wait, then edit, then die."""
        self.is_under_way.set()
        await self.may_arrive.wait()
        await super().edit(card, target, promotion, look)
        raise asyncio.CancelledError


async def test_an_older_edit_that_arrives_last_is_put_right(world: World) -> None:
    """Slack keeps whatever arrives last: a lease later the truth is sent once more, and then no more."""
    id = await world.request()
    await world.advance(id)
    world.passes(3)
    await world.store.save_look(id, Look(waits_for="something"))
    late = LateEdit(world.client)
    editing = asyncio.ensure_future(world.new_engine(announcer=late).advance(id))
    await late.is_under_way.wait()
    await world.promoter.cancel(id, user=DANA)
    assert await world.advance(id) == CONFIRM_AFTER
    late.may_arrive.set()
    await asyncio.wait([editing])
    assert not (await world.shown(id)).startswith("Cancelled"), "the older edit has arrived last"
    world.passes(CONFIRM_AFTER.total_seconds())
    assert await world.advance(id) is None
    assert (await world.shown(id)).startswith("Cancelled")
    before = calls(world, "chat.update")
    assert await world.advance(id) is None
    assert calls(world, "chat.update") == before


async def test_what_has_not_changed_is_not_edited(world: World) -> None:
    """A look that finds nothing new costs Slack nothing."""
    id = await world.request()
    await world.advance(id)
    before = len(world.slack.requests)
    for _ in range(5):
        world.passes(60)
        await world.advance(id)
    assert len(world.slack.requests) == before


async def test_the_thread_tells_every_event_once_and_in_order(world: World) -> None:
    """From the request to the end, one line each."""
    id = await world.request(reason="the sale")
    await world.promoter.approve(id, user=AMY)
    await world.rest(id)
    lines = (await world.thread(id)).splitlines()
    events = await world.store.events(id)
    assert len(lines) == len(events)
    said = (
        "asked for `15` in *prod*: the sale",
        "approved",
        "Nothing more to wait for",
        "Writing the commit",
    )
    for word, line in zip((*said, "Committed as", "Live:"), lines, strict=True):
        assert word in line


async def test_events_that_gathered_are_told_in_one_message(world: World) -> None:
    """The channel is not flooded because the bot was away for a while."""
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    await world.advance(id)
    card = await world.card(id)
    (message,) = world.slack.thread(CHANNEL, card.ts)
    assert len(message.text.splitlines()) == 2


async def test_a_deleted_card_is_posted_anew_with_the_whole_story(world: World) -> None:
    """Somebody tidied the channel: the card is there again, with its thread from the beginning."""
    id = await world.committed()
    world.slack.workspace.delete(await world.card(id))
    await world.rest(id)
    card = await world.card(id)
    assert card.text.startswith("Live: manual-app 15 to prod")
    thread = await world.thread(id)
    assert [thread.count(word) for word in ("asked for", "Committed as", "Live:")] == [1, 1, 1]


async def test_a_thread_without_its_card_is_begun_anew(world: World) -> None:
    """The card was deleted between its last edit and the next line of the thread."""
    id = await world.request()
    await world.advance(id)
    world.slack.workspace.delete(await world.card(id))
    await world.promoter.cancel(id, user=DANA)
    await world.rest(id)
    thread = await world.thread(id)
    assert [thread.count(word) for word in ("asked for", "cancelled it")] == [1, 1]


@pytest.mark.parametrize("closed", ["archived", "not a member", "gone"])
async def test_a_closed_channel_stops_no_promotion(world: World, closed: str) -> None:
    """The rollout goes on unseen; when the channel is open again, everything is told."""
    channel = world.slack.channel(CHANNEL)
    if closed == "archived":
        channel.archived = True
    elif closed == "not a member":
        channel.members.remove(world.slack.bot_user)
    else:
        del world.slack.workspace.channels[CHANNEL]
    id = await world.request("stage")
    await world.advance_until(id, Phase.LIVE)
    assert await world.advance(id) == timedelta(minutes=1)
    channel.archived = False
    channel.members.add(world.slack.bot_user)
    world.slack.workspace.channels[CHANNEL] = channel
    await world.rest(id)
    assert "Live: manual-app 16 to stage" in await world.shown(id)


@pytest.mark.parametrize("ending", ["reject", "cancel", "expire", "live"])
async def test_what_is_decided_has_no_buttons_to_decide_it(world: World, ending: str) -> None:
    """The last card offers nothing that would be refused; the ends that may be tried again offer that."""
    id = await world.request()
    await world.advance(id)
    shown = await world.shown(id)
    assert all(f"promotion_{action}" in shown for action in ("approve", "reject", "cancel"))
    if ending == "reject":
        await world.promoter.reject(id, user=AMY, why="no")
    elif ending == "cancel":
        await world.promoter.cancel(id, user=DANA)
    elif ending == "expire":
        world.passes(4 * 3600)
    else:
        await world.promoter.approve(id, user=AMY)
    await world.rest(id)
    shown = await world.shown(id)
    assert not any(f"promotion_{action}" in shown for action in ("approve", "reject", "cancel"))
    assert ("promotion_ask_again" in shown) is (ending != "live")


async def test_without_a_link_the_card_is_still_one(world: World) -> None:
    """Slack took the post but would not tell the link: the card is not posted a second time."""
    world.slack.faults.errors["chat.getPermalink"] = "internal_error"
    id = await world.request()
    for _ in range(3):
        world.passes(5)
        await world.advance(id)
    assert len([message for message in world.cards() if message.blocks]) == 1
    assert (await world.store.card(id)).link is None


async def test_hostile_words_stay_words(world: World) -> None:
    """Nobody pings a channel or forges a link from inside a reason."""
    id = await world.request(reason="<!channel> <https://evil.example|click> & *bold*")
    await world.advance(id)
    everything = await world.shown(id) + await world.thread(id)
    assert "<!channel>" not in everything
    assert "<https://evil.example" not in everything
    assert "&lt;!channel&gt;" in everything


def told_directly(world: World, user: str) -> list[str]:
    """What the bot has told somebody directly."""
    return [message.text for message in world.slack.messages(world.slack.workspace.direct(user).id)]


async def test_those_who_may_approve_are_reminded_twice(world: World) -> None:
    """After half an hour and after two hours, in the thread and directly; once the time is up, no more."""
    id = await world.request()
    await world.rest_until(timedelta(minutes=29))
    assert told_directly(world, AMY) == []
    await world.rest_until(timedelta(minutes=31))
    [asked] = told_directly(world, AMY)
    assert id in asked
    assert "waits for your approval on" in asked
    assert told_directly(world, DANA) == [], "the requester cannot approve"
    assert f"Still waiting for approval: <@{AMY}>, <@{BEN}>" in await world.thread(id)
    await world.rest_until(timedelta(hours=3, minutes=59))
    assert len(told_directly(world, AMY)) == 2
    await world.rest(id)
    assert len(told_directly(world, AMY)) == 2


async def test_a_reminder_that_was_slept_through_comes_once(world: World) -> None:
    """The bot was away for hours: nobody gets every reminder of that time at once."""
    id = await world.request()
    await world.advance(id)
    world.passes(3 * 3600)
    await world.advance(id)
    await world.advance(id)
    assert len(told_directly(world, AMY)) == 1


async def test_who_has_decided_is_not_reminded(world: World) -> None:
    """Neither those who have approved nor anybody once the request is decided."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.reject(id, user=AMY, why="no")
    world.passes(3600)
    await world.rest(id)
    assert told_directly(world, AMY) == told_directly(world, BEN) == []


async def test_who_asked_is_told_directly_when_the_card_has_no_place(world: World) -> None:
    """The bot was never invited: the requester hears it once, and the card comes as soon as it is."""
    channel = world.slack.channel(CHANNEL)
    channel.members.remove(world.slack.bot_user)
    id = await world.request()
    for _ in range(3):
        assert await world.advance(id) is not None
        world.passes(60)
    [told] = told_directly(world, DANA)
    assert id in told
    assert "/invite @promote-bot" in told
    channel.members.add(world.slack.bot_user)
    await world.advance(id)
    assert id in (await world.shown(id))
