"""What the bot hears from Slack: one line a listener, the whole surface at a glance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.app.async_app import AsyncApp
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.core.keeper import Keeper, Notices
from bot.core.limits import Limits
from bot.core.measuring import Measuring
from bot.core.people import Action
from bot.core.promoter import Promoter
from bot.messages.buttons import action_id
from bot.messages.gates import START, TELL_ME
from bot.messages.modals import EMERGENCY, REASON, REJECT
from bot.messages.ready import ASK_FOR
from handlers.buttons import Buttons
from handlers.command import Command
from handlers.listening import Background, Listening, Work
from handlers.stats import Pictures, Telling

Body = dict[str, Any]


def register(
    app: AsyncApp,
    promoter: Promoter,
    keeper: Keeper,
    *,
    notices: Notices,
    pictures: Pictures,
    limits: Limits,
    background: Background,
) -> None:
    """Every listener. Exactly one for each: Bolt runs the next match when an acknowledgement is late."""
    listening = Listening(background)
    # Bolt's own copy of the client would read HTTPS_PROXY again, and forget NO_PROXY.
    buttons = Buttons(promoter=promoter, keeper=keeper, notices=notices, client=app.client)
    measuring = Measuring(
        catalog=promoter.catalog, values=promoter.values, store=promoter.store, clock=promoter.clock
    )
    stats = Telling(measuring=measuring, pictures=pictures, board=limits.board)
    command = Command(promoter=promoter, keeper=keeper, notices=notices, stats=stats, client=app.client)

    @app.command("/promote")
    async def promote(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.command(
            _limited(limits.command, body["user_id"], command.run, body), ack=ack, respond=respond
        )

    for id, work in _clicks(buttons).items():
        app.action(id)(_on_click(listening, limits, work))

    @app.view(REJECT)
    async def reject_reason(body: Body, ack: AsyncAck) -> None:
        work = _limited(limits.click, body["user"]["id"], buttons.reject_with_reason, body)
        await listening.submission(work, ack=ack, field=REASON)

    @app.view(EMERGENCY)
    async def break_glass(body: Body, ack: AsyncAck) -> None:
        work = _limited(limits.click, body["user"]["id"], buttons.break_glass, body)
        await listening.submission(work, ack=ack, field=REASON, title="Emergency recorded")


def _clicks(buttons: Buttons) -> dict[str, Callable[[Body], Work]]:
    """What each button does, by its id."""
    return {
        action_id(Action.APPROVE): buttons.approve,
        action_id(Action.REJECT): buttons.reject,
        action_id(Action.CANCEL): buttons.cancel,
        action_id(Action.ASK_AGAIN): buttons.ask_again,
        action_id(Action.ROLL_BACK): buttons.roll_back,
        action_id(Action.SYNC): buttons.sync,
        action_id(Action.REVIEW): buttons.review,
        action_id(Action.BLOCK): buttons.block,
        TELL_ME: buttons.tell_me,
        START: buttons.start_when_open,
        ASK_FOR: buttons.ask_for,
    }


def _on_click(
    listening: Listening, limits: Limits, work: Callable[[Body], Work]
) -> Callable[..., Awaitable[None]]:
    async def listen(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        limited = _limited(limits.click, body["user"]["id"], work, body)
        await listening.click(limited, ack=ack, respond=respond)

    return listen


async def _limited(
    limit: Callable[[str], Awaitable[None]], user: str, work: Callable[[Body], Work], body: Body
) -> Any:
    """The work, unless this person asks too often: that is known before anything outside is asked."""
    await limit(str(user))
    return await work(body)
