"""What the bot hears from Slack: one line a listener, the whole surface at a glance."""

from __future__ import annotations

from typing import Any

from slack_bolt.app.async_app import AsyncApp
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.core.keeper import Keeper, Notices
from bot.core.people import Action
from bot.core.promoter import Promoter
from bot.messages.card import action_id
from bot.messages.modals import REJECT
from handlers.buttons import Buttons
from handlers.command import Command
from handlers.listening import Background, Listening

Body = dict[str, Any]


def register(
    app: AsyncApp, promoter: Promoter, keeper: Keeper, notices: Notices, background: Background
) -> None:
    """Every listener. Exactly one for each: Bolt runs the next match when an acknowledgement is late."""
    listening, buttons = Listening(background), Buttons(promoter)
    command = Command(promoter=promoter, keeper=keeper, notices=notices)

    @app.command("/promote")
    async def promote(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.command(command.run(body), ack=ack, respond=respond)

    @app.action(action_id(Action.APPROVE))
    async def approve(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(buttons.approve(body), ack=ack, respond=respond)

    @app.action(action_id(Action.REJECT))
    async def reject(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        # Bolt's own copy of the client would read HTTPS_PROXY again, and forget NO_PROXY.
        await listening.click(buttons.reject(body, app.client), ack=ack, respond=respond)

    @app.view(REJECT)
    async def reject_reason(body: Body, ack: AsyncAck) -> None:
        await listening.submission(buttons.reject_with_reason(body), ack=ack, field="reason")

    @app.action(action_id(Action.CANCEL))
    async def cancel(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(buttons.cancel(body), ack=ack, respond=respond)

    @app.action(action_id(Action.ASK_AGAIN))
    async def ask_again(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(buttons.ask_again(body), ack=ack, respond=respond)

    @app.action(action_id(Action.ROLL_BACK))
    async def roll_back(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(buttons.roll_back(body), ack=ack, respond=respond)

    @app.action(action_id(Action.SYNC))
    async def sync(body: Body, ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(buttons.sync(body), ack=ack, respond=respond)
