"""Gates, emergencies and blame, as people meet them in Slack: answers with buttons, modals, and typed options."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from evidence import COMPARE, SUBJECTS, commits
from world import AMY, BEN, CHANNEL, DANA, GUS, MEL, ROLLOUT, World, world_in

from bot.core.catalog import Image, Target
from bot.core.dossier import Commits
from bot.core.promotion import Phase, Promotion, Way
from bot.messages.gates import START, TELL_ME
from bot.messages.modals import APP, INCIDENT, REASON
from bot.playground.slack.state import Message, View

RULES = {"rules": [{"users": [AMY, BEN], "min": 1}], "expires": "4h"}
EMERGENCY = {"emergency": {"who": [DANA], "skips": ["quorum", "order", "windows"]}}
CLOSED = {"windows": [{"deny": "0 0 * * *", "for": "24h", "zone": "UTC", "why": "a freeze"}]}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@asynccontextmanager
async def ruled(world: World, **prod: Any) -> AsyncIterator[World]:
    """The bot hears Slack, under these rules of prod."""
    rollout = {"rollout": ROLLOUT}
    policies = {"dev": rollout, "stage": rollout, "prod": {**rollout, "approvals": RULES, **prod}}
    world.parts = replace(world.parts, catalog=world.configure(policies=policies))
    world.engine = world.new_engine()
    async with world.hearing():
        yield world


async def locked(world: World) -> Message:
    """Prod is locked, Dana asks for 15, and this is what she is answered."""
    await world.command("lock prod because the sale runs", user=MEL)
    await world.answer(MEL)
    await world.command("manual-app 15 prod because fixes INC-42")
    await world.answer()
    return newest(world)


def newest(world: World, user: str = DANA) -> Message:
    """The last private answer, with its blocks."""
    return world.slack.ephemerals(user)[-1]


def offered(message: Message) -> dict[str, str]:
    """The buttons of a message, and what each holds."""
    rows = [block["elements"] for block in message.blocks if block["type"] == "actions"]
    return {button["action_id"]: button["value"] for row in rows for button in row}


async def pressed(world: World, message: Message, action: str, *, user: str = DANA) -> str:
    """What the person is told after pressing a button of a private answer."""
    before = len(world.told(user))
    reply = await world.slack.click(user, CHANNEL, message.ts, action)
    assert (reply.status, reply.error) == (200, None)
    return await world.answer(user, number=before + 1)


async def modal(world: World, text: str, *, user: str = DANA) -> View:
    """The modal that a command opens."""
    await world.command(text, user=user)
    await world.until(lambda: world.slack.view(user) or world.told(user), "something opens, or is said")
    view = world.slack.view(user)
    assert view is not None, world.told(user)
    return view


async def only(world: World) -> Promotion:
    """The one promotion to prod that there is."""
    (promotion,) = await world.store.history(world.target())
    return promotion


# --- what is shown of it


class SevenCommits:
    """An app's repository in which seven commits lie between any two builds."""

    async def between(self, _target: Target, _old: Image, _new: Image) -> Commits:
        """The same seven."""
        return commits(*SUBJECTS, link=COMPARE)


async def test_the_card_shows_the_newest_commits_and_the_thread_all(world: World) -> None:
    """Who decides sees five of seven on the card, and the whole list as the first words of the thread."""
    source = {"url": "https://git.example.com/acme/manual-app.git"}
    apps = {"manual-app": {"image": "ghcr.io/acme/manual-app", "source": source}}
    world.parts = replace(world.parts, catalog=world.configure(apps=apps))
    world.sources = SevenCommits()  # type: ignore[assignment]
    world.engine = world.new_engine()
    id = await world.request()
    await world.advance(id)
    shown, thread = await world.shown(id), await world.thread(id)
    assert f"<{COMPARE}|7 commits>" in shown
    subjects = [subject for subject, _ in SUBJECTS]
    assert [subject in shown for subject in subjects] == [True] * 5 + [False] * 2
    assert [subject in thread for subject in subjects] == [True] * 7
    assert thread.startswith(":speech_balloon:")
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.COMMITTED)
    assert "7 commits" not in await world.show(id)
    assert (await world.thread(id)).count(subjects[-1]) == 1


# --- closed gates


async def test_closed_gates_are_answered_with_all_of_them(world: World) -> None:
    """Who asks too early reads every gate, those in the way first, and may wait; nothing is recorded."""
    async with ruled(world, soak="3h"):
        answer = await locked(world)
    lines = answer.text.splitlines()
    assert lines[0] == "*manual-app* `15` cannot go to *prod* now. Nothing was recorded."
    assert lines[1].startswith(":no_entry: prod is locked: the sale runs")
    assert any("healthily for 0 s of 3 h" in line for line in lines)
    assert ":white_check_mark: nobody has blocked 15" in lines
    assert offered(answer) == {START: "manual-app prod 15 fixes INC-42", TELL_ME: "manual-app prod 15"}
    assert await world.pending() == []


async def test_started_when_the_gates_pass_it_goes_by_itself(world: World) -> None:
    """The press is a request that waits: approved while the gate is closed, and written once it is open."""
    async with ruled(world):
        told = await pressed(world, await locked(world), START)
        promotion = await only(world)
        assert promotion.id in told
        assert (promotion.waits, promotion.version, promotion.requested_by.id) == (True, "15", DANA)
        assert promotion.reason == "fixes INC-42"
        await world.advance(promotion.id)
        assert "waits for its gates up to 3 d" in await world.shown(promotion.id)
        await world.press(promotion.id, "approve", user=AMY)
        await world.advance(promotion.id)
        await world.advance(promotion.id)
        shown = await world.show(promotion.id)
        assert "Waiting to start: manual-app 15 → prod" in shown
        assert "prod is locked: the sale runs" in shown
        assert (await world.find(promotion.id)).phase is Phase.APPROVED
        await world.command("unlock prod", user=MEL)
        await world.answer(MEL, number=2)
        await world.advance_until(promotion.id, Phase.COMMITTED)


async def test_what_waits_for_its_gates_can_be_cancelled(world: World) -> None:
    """The card has a button for it, as long as nothing is written."""
    async with ruled(world):
        await pressed(world, await locked(world), START)
        promotion = await only(world)
        await world.advance(promotion.id)
        await world.press(promotion.id, "approve", user=AMY)
        for _ in range(3):
            await world.advance(promotion.id)
            world.passes(3)
        assert (await world.press(promotion.id, "cancel", user=DANA)).error is None
        assert (await world.rest(promotion.id)).phase is Phase.CANCELLED


async def test_a_press_is_checked_anew(world: World) -> None:
    """What the buttons hold is believed of nobody: a guest, a version that is gone and a closed order are refused."""
    async with ruled(world):
        answer = await locked(world)
        forged = world.slack.workspace.add(
            CHANNEL, world.slack.bot_user, answer.text, blocks=answer.blocks, only_for=GUS
        )
        for action in (START, TELL_ME):
            assert "guests may not promote" in await pressed(world, forged, action, user=GUS)
        stale = with_start(world, "manual-app prod 99")
        assert "stage runs 15, not 99" in await pressed(world, stale, START)
    assert await world.store.history(world.target()) == ()


def with_start(world: World, value: str) -> Message:
    """A message with the button to start, of another version of the bot, or of nobody."""
    button = {"type": "button", "action_id": START, "text": {"type": "plain_text", "text": "Start"}}
    block = {"type": "actions", "elements": [{**button, **({"value": value} if value else {})}]}
    return world.slack.workspace.add(CHANNEL, world.slack.bot_user, "x", blocks=[block], only_for=DANA)


@pytest.mark.parametrize("value", ["", "manual-app", "manual-app prod 15 ", "manual-app  prod", " a prod 15"])
async def test_a_button_of_somebody_elses_is_refused(world: World, value: str) -> None:
    """A value that does not begin with app, environment and version, or ends where a reason begins, does nothing."""
    async with ruled(world):
        assert "I do not know this button" in await pressed(world, with_start(world, value), START)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("manual-app prod 15", None),
        ("manual-app prod 15 for a sale  that\nSkips: all", "for a sale  that Skips: all"),
        (f"manual-app prod 15 {'x' * 600}", "x" * 500),
    ],
    ids=["none", "two lines", "too long"],
)
async def test_a_reason_in_a_button_is_checked_anew(world: World, value: str, reason: str | None) -> None:
    """It becomes one line of a decent length; a button of an older version of the bot has none, and still works."""
    async with ruled(world):
        await locked(world)
        await pressed(world, with_start(world, value), START)
        assert (await only(world)).reason == reason


async def test_asked_again_before_closed_gates_it_keeps_its_reason(world: World) -> None:
    """The answer to *Ask again* offers to start with the reason of the request that ended."""
    async with ruled(world):
        id = await world.request(reason="fixes INC-7")
        await world.promoter.cancel(id, user=DANA)
        await world.rest(id)
        await locked(world)
        await world.press(id, "ask_again", user=DANA)
        await world.answer(number=2)
        assert offered(newest(world))[START] == "manual-app prod 15 fixes INC-7"


async def test_who_wants_to_be_told_is_remembered(world: World) -> None:
    """The press keeps who wants to know of which version, and says what will happen."""
    async with ruled(world):
        told = await pressed(world, await locked(world), TELL_ME)
    assert "I tell you when manual-app `15` can go to *prod*" in told
    (wish,) = await world.board.wishes()
    assert (wish.app, wish.environment, wish.version, wish.user) == ("manual-app", "prod", "15", DANA)


async def test_a_rollback_offers_no_waiting(world: World) -> None:
    """What stands in its way is listed; to wait is not what a rollback is for."""
    async with ruled(world):
        id = await world.committed()
        await world.rest(id)
        await world.command("lock prod because a fire", user=MEL)
        await world.answer(MEL)
        await world.command("rollback manual-app prod")
        await world.answer()
        assert ":no_entry: prod is locked: a fire" in newest(world).text
        assert offered(newest(world)) == {}
        before = len(world.told(BEN))
        await world.press(id, "roll_back", user=BEN)
        assert ":no_entry: prod is locked: a fire" in await world.answer(BEN, number=before + 1)
        assert offered(newest(world, BEN)) == {}


# --- options


async def test_asked_with_when_open_it_waits(world: World) -> None:
    """Typed at once, it is the same as the button below the answer."""
    async with ruled(world):
        await locked(world)
        await world.command("manual-app prod --when-open because it can wait")
        await world.answer(number=2)
        promotion = await only(world)
    assert (promotion.waits, promotion.reason) == (True, "it can wait")


async def test_with_replace_it_takes_the_place_of_an_untouched_request(world: World) -> None:
    """Without the option it is refused with how to type it; with it the other one is superseded."""
    async with ruled(world):
        first = await world.request()
        await world.command("manual-app prod", user=MEL)
        assert "--replace" in await world.answer(MEL)
        await world.command("manual-app prod --replace", user=MEL)
        assert "asked for manual-app 15 to prod" in await world.answer(MEL, number=2)
        assert (await world.find(first)).phase is Phase.SUPERSEDED


@pytest.mark.parametrize("text", ["manual-app 15 prod --when-opne", "manual-app 15 prod --force"])
async def test_an_unknown_option_does_nothing(world: World, text: str) -> None:
    """Not even what the rest of the sentence says."""
    async with ruled(world):
        await world.command(text)
        assert "Nothing was done" in await world.answer()
    assert await world.store.history(world.target()) == ()


# --- emergencies


async def test_an_emergency_is_asked_for_in_a_modal(world: World) -> None:
    """It says what is left out; with the app's name typed it goes without approval, and somebody reviews it."""
    async with ruled(world, **EMERGENCY, **CLOSED):
        view = await modal(world, "manual-app prod --emergency INC-42 because checkout is down")
        said = str(view.blocks)
        assert "order, windows, approvals" in said
        assert await world.store.history(world.target()) == ()
        reply = await world.slack.submit(DANA, view.id, {APP: "manual-app"})
        assert (reply.status, reply.error) == (200, None)
        promotion = await only(world)
        assert (promotion.way, promotion.incident, promotion.reason) == (
            Way.EMERGENCY,
            "INC-42",
            "checkout is down",
        )
        after = world.slack.view(DANA)
        assert after is not None
        assert promotion.id in str(after.blocks)
        await world.advance_until(promotion.id, Phase.COMMITTED)
        shown = await world.show(promotion.id)
        assert "EMERGENCY · " in shown
        assert "promotion_review" in shown
        await world.press(promotion.id, "review", user=DANA)
        assert "You asked for" in await world.answer()
        await world.press(promotion.id, "review", user=AMY)
        assert "is recorded" in await world.answer(AMY)
        assert (await world.find(promotion.id)).reviewed_by == AMY
        shown = await world.show(promotion.id)
        assert "promotion_review" not in shown
        assert f"Reviewed by <@{AMY}>" in shown


async def test_a_wrong_name_is_refused_inside_the_modal(world: World) -> None:
    """The error stands under the name, the form stays, and nothing is asked for."""
    async with ruled(world, **EMERGENCY):
        view = await modal(world, "manual-app 15 prod --emergency INC-42 because checkout is down")
        for wrong in ("manual-ap", "Manual-App", "prod"):
            await world.slack.submit(DANA, view.id, {APP: wrong})
            shown = world.slack.view(DANA)
            assert shown is not None
            assert shown.errors == {APP: "That is not manual-app. Type the app's name exactly, or go back."}
    assert await world.store.history(world.target()) == ()


@pytest.mark.parametrize("field", [INCIDENT, REASON])
async def test_an_emergency_needs_an_incident_and_a_reason(world: World, field: str) -> None:
    """Spaces are neither; the error stands inside the modal."""
    async with ruled(world, **EMERGENCY):
        view = await modal(world, "manual-app 15 prod --emergency INC-42 because checkout is down")
        await world.slack.submit(DANA, view.id, {APP: "manual-app", field: "   "})
        shown = world.slack.view(DANA)
        assert shown is not None
        assert "An emergency needs a reason and the incident" in shown.errors[REASON]
    assert await world.store.history(world.target()) == ()


async def test_what_an_emergency_does_not_pass_stands_inside_the_modal(world: World) -> None:
    """Everything else is checked anew when the form comes: here a lock, and the right."""
    async with ruled(world, **EMERGENCY):
        view = await modal(world, "manual-app 15 prod --emergency INC-42 because checkout is down")
        await world.command("lock prod because hands off", user=MEL)
        await world.answer(MEL)
        await world.slack.submit(DANA, view.id, {APP: "manual-app"})
        shown = world.slack.view(DANA)
        assert shown is not None
        assert shown.errors[REASON] == (
            "This stands in the way, and an emergency does not pass it: prod is locked: hands off."
        )
    assert await world.store.history(world.target()) == ()


async def test_a_form_that_is_sent_twice_makes_one_emergency(world: World) -> None:
    """The first answer came too late for Slack, and the person pressed again."""
    async with ruled(world, **EMERGENCY):
        view = await modal(world, "manual-app 15 prod --emergency INC-42 because checkout is down")
        await world.slack.submit(DANA, view.id, {APP: "manual-app"})
        world.slack.workspace.stacks[DANA] = [view]
        await world.slack.submit(DANA, view.id, {APP: "manual-app"})
        shown = world.slack.view(DANA)
        assert shown is not None
        assert shown.errors == {}
        assert (await only(world)).id in str(shown.blocks)


@pytest.mark.parametrize(
    ("user", "rules", "says"),
    [
        (MEL, EMERGENCY, "You may not break glass"),
        (GUS, EMERGENCY, "guests may not promote"),
        (DANA, {}, "Nobody may break glass for prod"),
    ],
)
async def test_no_modal_opens_for_who_may_not(
    world: World, user: str, rules: dict[str, Any], says: str
) -> None:
    """Whoever could not use it is told why at once."""
    async with ruled(world, **rules):
        await world.command("manual-app 15 prod --emergency INC-42 because checkout is down", user=user)
        assert says in await world.answer(user)
        assert world.slack.view(user) is None


async def test_where_the_trigger_is_gone_the_command_is_typed_again(world: World) -> None:
    """Slack gives three seconds for a modal; after that nothing was asked for."""
    async with ruled(world, **EMERGENCY):
        world.slack.faults.errors["views.open"] = "expired_trigger_id"
        await world.command("manual-app 15 prod --emergency INC-42 because checkout is down")
        assert "Type the command again." in await world.answer()
    assert await world.store.history(world.target()) == ()


async def test_a_typed_review_is_the_same_as_a_pressed_one(world: World) -> None:
    """With a reason, which the thread tells."""
    async with ruled(world, **EMERGENCY):
        view = await modal(world, "manual-app 15 prod --emergency INC-42 because checkout is down")
        await world.slack.submit(DANA, view.id, {APP: "manual-app"})
        id = (await only(world)).id
        await world.advance_until(id, Phase.COMMITTED)
        await world.command(f"review {id} because the fix was right", user=BEN)
        assert "is recorded" in await world.answer(BEN)
        await world.show(id)
        assert f"<@{BEN}> has reviewed the emergency: the fix was right" in await world.thread(id)


# --- marking a version bad


async def test_what_was_rolled_back_can_be_marked_bad(world: World) -> None:
    """One press blocks it, with the rollback as the reason; the channel reads of it, and it goes nowhere again."""
    async with ruled(world):
        id = await world.committed()
        await world.rest(id)
        back = await world.moving(
            world.promoter.roll_back(app="manual-app", environment="prod", user=DANA, reason="slow")
        )
        await world.promoter.approve(back.id, user=AMY)
        await world.rest(back.id)
        assert "Mark 15 bad" in await world.shown(back.id)
        await world.press(back.id, "block", user=MEL)
        assert "`15` is blocked" in await world.answer(MEL)
        (bad,) = await world.board.bad_versions("manual-app")
        assert (bad.version, bad.by, bad.reason) == ("15", MEL, f"rolled back by {back.id}")
        assert f"<@{MEL}> blocked *manual-app* `15`" in world.cards()[-1].text


async def test_a_promotion_that_blames_nothing_blocks_nothing(world: World) -> None:
    """A forged or an old button is checked against the record."""
    async with ruled(world):
        id = await world.committed()
        card = await world.card(id)
        hash_ = (await world.find(id)).content_hash
        button = {
            "type": "button",
            "action_id": "promotion_block",
            "text": {"type": "plain_text", "text": "Mark"},
            "value": f"{id} {hash_}",
        }
        world.slack.workspace.edit(card, text="x", blocks=[{"type": "actions", "elements": [button]}])
        await world.press(id, "block", user=MEL)
        assert "speaks against a version" in await world.answer(MEL)
    assert await world.board.bad_versions("manual-app") == ()


async def test_the_lock_of_a_rollback_says_how_it_ends(world: World) -> None:
    """What was rolled back stays so, and the card says what to type."""
    async with ruled(world, rollback={"who": [DANA], "within": "24h"}):
        id = await world.committed()
        await world.rest(id)
        world.passes(timedelta(minutes=5).total_seconds())
        back = await world.moving(
            world.promoter.roll_back(app="manual-app", environment="prod", user=DANA, reason="slow")
        )
        await world.promoter.approve(back.id, user=AMY)
        promotion = await world.rest(back.id)
        assert promotion.phase is Phase.LIVE
        assert "`/promote unlock manual-app prod`" in await world.shown(back.id)
