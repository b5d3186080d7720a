"""Buttons and modals: what people press."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import Refused
from bot.core.people import Action
from bot.core.promoter import Promoter
from bot.messages import answers, modals


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """One click: who pressed, on which promotion, and the content that the button showed."""

    user: str
    id: str
    content_hash: str
    channel: str
    ts: str
    trigger: str


def press(body: dict[str, Any]) -> Press:
    """The click in Slack's payload; raises `Refused` for a button that is not one of ours."""
    id, _, content_hash = str(body["actions"][0].get("value") or "").partition(" ")
    if not id:
        raise Refused("I do not know this button. Ask again with /promote.")
    container = body.get("container") or {}
    return Press(
        user=str(body["user"]["id"]),
        id=id,
        content_hash=content_hash,
        channel=str(container.get("channel_id") or ""),
        ts=str(container.get("message_ts") or ""),
        trigger=str(body.get("trigger_id") or ""),
    )


@dataclass(frozen=True, slots=True)
class Buttons:
    """The buttons' work: a payload in, a private answer out, or nothing where the card says it all."""

    promoter: Promoter

    async def approve(self, body: dict[str, Any]) -> str | None:
        """*Approve*, after Slack's own confirm dialog."""
        pressed = await self._on_its_card(body)
        await self.promoter.approve(pressed.id, user=pressed.user, content_hash=pressed.content_hash)
        return None

    async def cancel(self, body: dict[str, Any]) -> str | None:
        """*Cancel*."""
        pressed = await self._on_its_card(body)
        await self.promoter.cancel(pressed.id, user=pressed.user)
        return None

    async def ask_again(self, body: dict[str, Any]) -> str | None:
        """*Ask again*: the same request, checked anew."""
        pressed = await self._on_its_card(body)
        promotion = await self.promoter.ask_again(
            pressed.id, user=pressed.user, delivery=pressed.trigger or None
        )
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def roll_back(self, body: dict[str, Any]) -> str | None:
        """*Roll back*: ask for what was there before, after Slack's own confirm dialog."""
        pressed = await self._on_its_card(body)
        promotion = await self.promoter.roll_back_from(
            pressed.id, user=pressed.user, delivery=pressed.trigger or None
        )
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def sync(self, body: dict[str, Any]) -> str | None:
        """*Sync now*: after Slack's own confirm dialog, which names what it changes."""
        pressed = await self._on_its_card(body)
        return answers.syncing(await self.promoter.sync(pressed.id, user=pressed.user))

    async def reject(self, body: dict[str, Any], client: AsyncWebClient) -> str | None:
        """*Reject…*: ask for the reason, where this person may reject."""
        pressed = await self._on_its_card(body)
        promotion = await self.promoter.require_may(Action.REJECT, pressed.id, user=pressed.user)
        try:
            await client.views_open(trigger_id=pressed.trigger, view=modals.reject(promotion))
        except (SlackClientError, ClientError, OSError) as error:  # Slack gives three seconds for it
            raise Refused(
                "The window for the reason could not be opened. "
                f"Press again, or type /promote reject {promotion.id} <reason>."
            ) from error
        return None

    async def reject_with_reason(self, body: dict[str, Any]) -> str | None:
        """The reason came: everything is checked again."""
        view = body["view"]
        reason = view["state"]["values"]["reason"]["text"].get("value") or ""
        await self.promoter.reject(
            str(view["private_metadata"]), user=str(body["user"]["id"]), why=str(reason)
        )
        return None

    async def _on_its_card(self, body: dict[str, Any]) -> Press:
        """The click, where it was made on the promotion's own card; a copy answers with a link to it."""
        pressed = press(body)
        await self.promoter.require_card(pressed.id, channel=pressed.channel, ts=pressed.ts)
        return pressed
