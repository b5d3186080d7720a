"""*Ask for …*: the button of what was told to be ready."""

from __future__ import annotations

from typing import Any

from slack_bolt.app.async_app import AsyncApp
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.core.errors import Refused
from bot.core.promoter import Promoter
from bot.messages import answers
from bot.messages.ready import ASK_FOR
from handlers.listening import Listening


def register_ready(app: AsyncApp, promoter: Promoter, listening: Listening) -> None:
    """The listener of the button."""

    @app.action(ASK_FOR)
    async def pressed(body: dict[str, Any], ack: AsyncAck, respond: AsyncRespond) -> None:
        await listening.click(ask_for(promoter, body), ack=ack, respond=respond)


async def ask_for(promoter: Promoter, body: dict[str, Any]) -> str:
    """Ask for what the button names, as whoever pressed it; everything is checked as if it were typed."""
    named = str(body["actions"][0].get("value") or "").split(" ")
    if len(named) != 3:
        raise Refused("I do not know this button. Ask with /promote.")
    app, environment, version = named
    promotion = await promoter.request(
        app=app,
        environment=environment,
        version=version,
        reason=None,
        user=str(body["user"]["id"]),
        delivery=str(body.get("trigger_id") or "") or None,
    )
    return answers.asked(promotion, promoter.target_of(promotion).channel)
