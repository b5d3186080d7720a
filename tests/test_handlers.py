"""Commands, buttons and modals, as people use them: over signed HTTP, with every answer that they read."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from world import AMY, BEN, CHANNEL, DANA, GUS, MEL, OLGA, World, world_in

from bot.core.promotion import Phase
from bot.integrations.store import RedisStore, connect
from bot.playground.slack.state import Message


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made, made.hearing():
        yield made


async def with_card(world: World) -> str:
    """A promotion to prod that waits for approval, with its card in the channel."""
    id = await world.request()
    await world.advance(id)
    return id


def copied(card: Message, world: World) -> Message:
    """The same message once more, as when a post was repeated."""
    return world.slack.workspace.add(CHANNEL, world.slack.bot_user, card.text, blocks=card.blocks)


# --- commands


async def test_a_request_is_answered_privately_and_gets_a_card(world: World) -> None:
    """The person is told where the card is; the channel sees the card alone."""
    reply = await world.command("manual-app 15 to prod because the sale begins")
    assert (reply.status, reply.body) == (200, "")
    answer = await world.answer()
    (promotion,) = await world.pending()
    assert (promotion.version, promotion.reason, promotion.requested_by.id) == (
        "15",
        "the sale begins",
        DANA,
    )
    assert promotion.id in answer
    assert f"<#{CHANNEL}>" in answer
    await world.advance(promotion.id)
    assert [message.text.partition(",")[0] for message in world.cards() if message.blocks] == [
        "Approval needed: manual-app 15 to prod (14 → 15)"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("manual-ap 15 prod", "Did you mean “manual-app”?"),
        ("manual-app 15 prd", "Did you mean “prod”?"),
        ("manual-app 1:5 dev", "That is not a version"),
        ("manual-app 1 5 dev", "a version has no spaces"),
        ("aprove P-0000000000", "Did you mean “approve”?"),
        ("approve", "Which promotion?"),
        ("approve P-12", "Which promotion?"),
        ("show P-0000000000", "I know no promotion P-0000000000"),
        ("manual-app dev", "say which version"),
        ("manual-app 16 dev", "dev already runs 16; nothing to do"),
        ("manual-app 99 prod", "stage runs 15, not 99"),
        ("status manual", "Did you mean “manual-app”?"),
        ("halp", "Did you mean “help”?"),
        ("manual-app", "To which environment? Type /promote manual-app &lt;environment&gt;"),
        ("manual-ap", "I know no app called “manual-ap”. Did you mean “manual-app”? Or type"),
        (
            "frobnicate because x",
            "I know no app called “frobnicate”. There is: manual-app. Or type /promote help.",
        ),
        ("<!channel> 15 dev", "&lt;!channel&gt;"),
        ("lock prod", "/promote lock prod because"),
        ("lock prd because a sale", "Did you mean “prod”?"),
        ("lock prod until Monday because a sale", "until tomorrow 09:00"),
        ("unlock prod", "prod is not locked"),
        ("unblock manual-app 15", "manual-app 15 is not blocked"),
        ("check manual-app 15 integration pass", "No check of manual-app is called “integration”"),
        ("blok manual-app 15", "Did you mean the word “block”?"),
        ("can manual-app prd", "Did you mean “prod”?"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_what_can(world: World, text: str, says: str) -> None:
    """A private answer with the reason or the nearest match, and nothing recorded."""
    reply = await world.command(text)
    assert reply.error is None
    assert says in await world.answer()
    assert await world.pending() == []
    assert [message for message in world.cards() if message.blocks] == []


async def test_questions_are_answered_privately(world: World) -> None:
    """Help, status, what is pending, and one promotion with its story."""
    id = await with_card(world)
    card = await world.store.card(id)
    for number, (text, says) in enumerate(
        [
            ("", "takes one image through the environments"),
            ("help", "takes one image through the environments"),
            ("status", "*prod*: git holds `14`"),
            ("status manual-app", "*stage*: git holds `15`"),
            ("pending", str(card.link)),
            ("locks", "Nothing is locked"),
            ("windows", "No environment has windows"),
            ("windows prod", "*prod* has no windows"),
            ("can manual-app 15 to prod", "*manual-app* `15` to *prod*"),
            ("diff manual-app prod", "*prod*: `14` → `15`"),
            (f"show {id.lower()}", "asked for `15` in *prod*"),
        ],
        start=1,
    ):
        user = DANA if number <= 10 else AMY  # ten commands a minute are enough for one person
        await world.command(text, user=user)
        assert says in await world.answer(user, number=number if number <= 10 else number - 10), text


@pytest.mark.parametrize("user", [GUS, OLGA])
@pytest.mark.parametrize(
    "text",
    [
        *("status", "pending", "help", "manual-app 17 dev", "locks", "windows", "can manual-app prod"),
        *(
            "lock all because I can",
            "unlock all",
            "block manual-app 15 because I can",
            "unblock manual-app 15",
        ),
    ],
)
async def test_outsiders_are_told_nothing(world: World, user: str, text: str) -> None:
    """Guests and people of other workspaces learn neither versions nor names, and change nothing."""
    await world.command(text, user=user)
    answer = await world.answer(user)
    assert "You may not do that" in answer
    assert "manual-app" not in answer


async def test_a_command_that_slack_sends_twice_makes_one_promotion(world: World) -> None:
    """The second delivery is answered with the promotion of the first."""
    for retry in (False, True):
        await world.command("manual-app 17 dev", trigger_id="13.37.abc", retry=retry)
    await world.answer(number=2)
    (promotion,) = await world.store.history(world.target("dev"))
    assert all(promotion.id in told for told in world.told())


async def test_a_second_request_is_refused_with_a_link(world: World) -> None:
    """Who holds the target, and where to look."""
    id = await with_card(world)
    await world.command("manual-app prod", user=MEL)
    answer = await world.answer(MEL)
    assert f"is held by {id}, asked for by Dana Ortiz" in answer
    assert f"<{(await world.store.card(id)).link}|Open the card>" in answer


# --- locks and bad versions


async def test_a_lock_stops_the_line_until_it_is_taken_away(world: World) -> None:
    """Who locks it is answered, the channel reads why, and nobody is waved through; then everything moves again."""
    await world.command("lock all because a fire", user=MEL)
    assert "*everything* is locked" in await world.answer(MEL)
    await world.command("manual-app 15 to prod")
    assert "everything is locked: a fire" in await world.answer()
    assert await world.pending() == []
    await world.command("unlock all because it is out", user=BEN)
    assert f"It was locked by <@{MEL}>" in await world.answer(BEN)
    assert [message.text.splitlines()[0] for message in world.cards()] == [
        f":lock: <@{MEL}> locked *everything* until somebody unlocks it: a fire.",
        f":unlock: <@{BEN}> unlocked *everything*: it is out.",
    ]
    await world.command("manual-app 15 to prod")
    assert "asked for manual-app 15 to prod" in await world.answer(number=2)


async def test_a_blocked_version_goes_nowhere(world: World) -> None:
    """Neither to prod, nor to the first environment, until it is unblocked; another version does."""
    await world.command("block manual-app 15 because it loses orders", user=MEL)
    assert "`15` is blocked: it loses orders" in await world.answer(MEL)
    assert f"<@{MEL}> blocked *manual-app* `15`: it loses orders." in world.cards()[-1].text
    for number, environment in enumerate(("prod", "dev"), start=1):
        await world.command(f"manual-app 15 {environment}")
        assert "15 is blocked: it loses orders" in await world.answer(number=number)
    await world.command("manual-app 17 dev")
    assert "asked for manual-app 17 to dev" in await world.answer(number=3)
    await world.command("unblock manual-app 15", user=BEN)
    assert f"It was blocked by <@{MEL}>" in await world.answer(BEN)
    await world.command("manual-app 15 prod")
    assert "asked for manual-app 15 to prod" in await world.answer(number=4)


# --- approvals


async def test_typed_and_clicked_approvals_are_the_same(world: World) -> None:
    """Both go through the same checks and leave the same record, but for the time."""
    records = []
    for way in ("clicked", "typed"):
        id = await with_card(world)
        if way == "clicked":
            reply = await world.press(id, "approve", user=AMY)
            assert (reply.status, reply.error) == (200, None)
            assert world.told(AMY) == []
        else:
            await world.command(f"approve {id}", user=AMY)
            assert "manual-app 15 to prod" in await world.answer(AMY)
        promotion = await world.find(id)
        (approval,) = promotion.approvals
        records.append((approval.by, approval.content_hash, promotion.last.what, promotion.phase))
        assert world.parts.sealer.approval_is_genuine(promotion, approval)
        await world.promoter.cancel(id, user=DANA)
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (DANA, "You asked for manual-app 15 to prod, so somebody else must approve"),
        (MEL, "You may not approve manual-app 15 to prod"),
        (GUS, "guests may not promote"),
        (OLGA, "you are from another workspace"),
    ],
)
async def test_whoever_may_not_approve_is_told_why(world: World, user: str, says: str) -> None:
    """Clicked or typed: acknowledged in time, answered in private, nothing recorded."""
    id = await with_card(world)
    reply = await world.press(id, "approve", user=user)
    assert (reply.status, reply.error) == (200, None)
    assert says in await world.answer(user)
    await world.command(f"approve {id}", user=user)
    assert says in await world.answer(user, number=2)
    assert (await world.find(id)).edition == 1


@pytest.mark.parametrize("action", ["reject", "cancel"])
@pytest.mark.parametrize("user", [MEL, GUS, OLGA])
async def test_whoever_may_not_end_it_is_told_why(world: World, user: str, action: str) -> None:
    """No modal opens for somebody who could not use it."""
    id = await with_card(world)
    reply = await world.press(id, action, user=user)
    assert (reply.status, reply.error) == (200, None)
    assert "You may not" in await world.answer(user)
    assert (world.slack.view(user), (await world.find(id)).edition) == (None, 1)


async def test_a_click_after_the_decision_is_told_what_happened(world: World) -> None:
    """The person still saw the buttons when they pressed."""
    id = await with_card(world)
    seen = await world.card(id)
    await world.promoter.reject(id, user=BEN, why="not on a Friday")
    await world.show(id)
    for number, action in enumerate(("approve", "reject", "cancel"), start=1):
        reply = await world.slack.click(AMY, CHANNEL, seen.ts, f"promotion_{action}", seen=seen)
        assert reply.error is None
        answer = await world.answer(AMY, number=number)
        assert "it was rejected" in answer
    assert world.slack.view(AMY) is None


async def test_a_click_on_a_lost_promotion_says_ask_again(world: World) -> None:
    """The store was emptied: nothing is assumed, and the person knows what to do."""
    id = await with_card(world)
    card = await world.card(id)
    with Redis.from_url(world.redis_url) as client:
        client.flushall()
    for number, action in enumerate(("approve", "reject", "cancel"), start=1):
        await world.slack.click(AMY, CHANNEL, card.ts, f"promotion_{action}")
        assert f"I know no promotion {id}" in await world.answer(AMY, number=number)
    assert "ask again with /promote" in world.told(AMY)[-1]


async def test_a_click_on_a_copy_of_the_card_is_answered_with_a_link(world: World) -> None:
    """Only the card that the record knows decides; a copy may show something old."""
    id = await with_card(world)
    copy = copied(await world.card(id), world)
    for number, action in enumerate(("approve", "reject", "cancel"), start=1):
        await world.slack.click(AMY, CHANNEL, copy.ts, f"promotion_{action}")
        answer = await world.answer(AMY, number=number)
        assert f"<{(await world.store.card(id)).link}|Open the card>" in answer
    assert (world.slack.view(AMY), (await world.find(id)).edition) == (None, 1)


async def test_a_button_of_old_content_is_refused(world: World) -> None:
    """A button says which content it showed; a record with another one is not approved by it."""
    id = await with_card(world)
    card = await world.card(id)
    blocks = json.loads(
        json.dumps(card.blocks).replace((await world.find(id)).content_hash, "sha256:" + "0" * 64)
    )
    world.slack.workspace.edit(card, text=card.text, blocks=blocks)
    await world.press(id, "approve", user=AMY)
    assert "is not what that button showed" in await world.answer(AMY)
    assert (await world.find(id)).approvals == ()


async def test_two_people_press_at_once_and_one_is_enough(world: World) -> None:
    """The second is either counted too or told what happened; there is one commit."""
    id = await with_card(world)
    for user in (AMY, BEN):
        assert (await world.press(id, "approve", user=user)).error is None
    promotion = await world.advance_until(id, Phase.COMMITTED)
    assert len(world.commits(id)) == 1
    assert {approval.by.id for approval in promotion.approvals} == {AMY, BEN}


# --- rejecting, cancelling, asking again


async def test_rejecting_takes_a_reason(world: World) -> None:
    """The modal opens for an approver; it takes no empty reason; then the channel reads who and why."""
    id = await with_card(world)
    assert (await world.press(id, "reject", user=AMY)).error is None
    await world.until(lambda: world.slack.view(AMY), "the modal is open")
    view = world.slack.view(AMY)
    assert view is not None
    assert (await world.slack.submit(AMY, view.id, {"reason": None})).error == "incomplete"
    assert (await world.find(id)).phase is Phase.REQUESTED
    reply = await world.slack.submit(AMY, view.id, {"reason": "not on a Friday"})
    assert (reply.status, reply.error, world.slack.view(AMY)) == (200, None, None)
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.ending, promotion.last.by) == (
        Phase.REJECTED,
        "not on a Friday",
        AMY,
    )
    assert f"<@{AMY}> rejected it: not on a Friday" in await world.thread(id)


async def test_a_reason_of_spaces_is_refused_inside_the_modal(world: World) -> None:
    """What Slack's own form lets pass is checked again."""
    id = await with_card(world)
    await world.press(id, "reject", user=AMY)
    view = world.slack.view(AMY)
    assert view is not None
    await world.slack.submit(AMY, view.id, {"reason": "   "})
    shown = world.slack.view(AMY)
    assert shown is not None
    assert shown.errors == {"reason": "Say why: the requester has to know what to change."}


async def test_an_error_stands_inside_the_modal(world: World) -> None:
    """Somebody decided while the reason was being typed: the modal says so and stays."""
    id = await with_card(world)
    await world.press(id, "reject", user=AMY)
    view = world.slack.view(AMY)
    assert view is not None
    await world.promoter.approve(id, user=BEN)
    await world.advance_until(id, Phase.COMMITTED)
    reply = await world.slack.submit(AMY, view.id, {"reason": "too late"})
    assert (reply.status, reply.error) == (200, None)
    shown = world.slack.view(AMY)
    assert shown is not None
    assert shown.errors["reason"].startswith(f"You cannot reject {id} any more: it is committed")


async def test_a_modal_that_slack_does_not_open_is_explained(world: World) -> None:
    """Slack gives three seconds for it; after that one may type instead."""
    id = await with_card(world)
    world.slack.faults.errors["views.open"] = "expired_trigger_id"
    reply = await world.press(id, "reject", user=AMY)
    assert reply.error is None
    assert f"/promote reject {id}" in await world.answer(AMY)


async def test_a_typed_rejection_needs_its_reason_too(world: World) -> None:
    """Without one it is refused; with one it ends."""
    id = await with_card(world)
    await world.command(f"reject {id}", user=AMY)
    assert "Say why" in await world.answer(AMY)
    await world.command(f"reject {id} freeze until Monday", user=AMY)
    assert "it was rejected" in await world.answer(AMY, number=2)
    assert (await world.find(id)).ending == "freeze until Monday"


async def test_the_requester_cancels_with_one_click(world: World) -> None:
    """And the card loses its buttons."""
    id = await with_card(world)
    assert (await world.press(id, "cancel", user=DANA)).error is None
    assert (await world.rest(id)).phase is Phase.CANCELLED
    shown = await world.shown(id)
    assert "promotion_approve" not in shown
    assert f"<@{DANA}> cancelled it" in await world.thread(id)


async def test_ask_again_makes_a_new_promotion(world: World) -> None:
    """The button on a card that ended asks for the same once more; pressed twice, one is made and one refused."""
    id = await with_card(world)
    await world.press(id, "cancel", user=DANA)
    await world.rest(id)
    for number in (1, 2):
        assert (await world.press(id, "ask_again", user=MEL)).error is None
        await world.answer(MEL, number=number)
    (again,) = await world.pending()
    assert (again.id != id, again.version, again.requested_by.id) == (True, "15", MEL)
    assert again.id in world.told(MEL)[0]
    assert "is held by" in world.told(MEL)[1]


# --- outside systems that are away


async def test_with_the_store_away_nobody_is_told_that_it_was_recorded(world: World) -> None:
    """Commands and clicks are acknowledged in time, and say that nothing was recorded."""
    id = await with_card(world)
    nowhere = RedisStore(connect(f"unix://{world.folder}/nothing.sock", quick=True))
    promoter = world.new_promoter(store=nowhere)
    async with world.hearing(promoter):
        assert (await world.command("manual-app 17 dev")).error is None
        assert "Nothing was recorded" in await world.answer()
        assert (await world.press(id, "approve", user=AMY)).error is None
        assert "Nothing was recorded" in await world.answer(AMY)
    await nowhere.aclose()
    assert (await world.find(id)).edition == 1


async def test_with_the_directory_away_a_click_is_answered(world: World) -> None:
    """Nobody is waved through, and nobody is left without an answer."""
    id = await with_card(world)
    world.slack.faults.errors["users.info"] = "internal_error"
    assert (await world.press(id, "approve", user=AMY)).error is None
    assert "Nothing was recorded" in await world.answer(AMY)
    assert (await world.find(id)).approvals == ()


async def test_a_bug_is_answered_with_a_reference(world: World) -> None:
    """No traceback, no silence: a reference that stands in the log too."""
    broken = replace(world.promoter, clock=None)  # type: ignore[arg-type]
    async with world.hearing(broken):
        assert (await world.command("manual-app 17 dev")).error is None
        answer = await world.answer()
    assert "Something broke on our side (ref " in answer
    assert "NoneType" not in answer
