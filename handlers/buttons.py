"""Buttons and modals: what people press."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.core.asking import PLAINLY, Manner
from bot.core.drafting import GatesClosed
from bot.core.errors import Refused
from bot.core.keeper import Keeper, Notices
from bot.core.people import Action
from bot.core.promoter import Promoter
from bot.messages import answers, gates, modals
from bot.messages.advice import blamed
from bot.messages.mrkdwn import Message
from handlers.listening import WrongField, opened
from handlers.telling import told


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """A press below an answer that gates are closed: who pressed, and what they want to go where."""

    user: str
    app: str
    environment: str
    version: str
    reason: str | None
    """What was typed with the command, where the button keeps it."""
    trigger: str


def meant(body: dict[str, Any]) -> Meant:
    """The click in Slack's payload; raises `Refused` for a button that is not one of ours."""
    words = str(body["actions"][0].get("value") or "").split(" ", maxsplit=3)
    if len(words) < 3 or not all(words):
        raise Refused("I do not know this button. Ask again with /promote.")
    app, environment, version, *reason = words
    return Meant(
        user=str(body["user"]["id"]),
        app=app,
        environment=environment,
        version=version,
        reason=reason[0] if reason else None,
        trigger=str(body.get("trigger_id") or ""),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Buttons:
    """The buttons' work: a payload in, a private answer out, or nothing where the card says it all."""

    promoter: Promoter
    keeper: Keeper
    notices: Notices
    client: AsyncWebClient

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

    async def roll_back(self, body: dict[str, Any]) -> str | Message | None:
        """*Roll back*: ask for what was there before, after Slack's own confirm dialog."""
        pressed = await self._on_its_card(body)
        try:
            promotion = await self.promoter.roll_back_from(
                pressed.id, user=pressed.user, delivery=pressed.trigger or None
            )
        except GatesClosed as closed:
            return gates.closed(closed.draft, may_wait=False)
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def sync(self, body: dict[str, Any]) -> str | None:
        """*Sync now*: after Slack's own confirm dialog, which names what it changes."""
        pressed = await self._on_its_card(body)
        return answers.syncing(await self.promoter.sync(pressed.id, user=pressed.user))

    async def reject(self, body: dict[str, Any]) -> str | None:
        """*Reject…*: ask for the reason, where this person may reject."""
        pressed = await self._on_its_card(body)
        promotion = await self.promoter.require_may(Action.REJECT, pressed.id, user=pressed.user)
        otherwise = f"Press again, or type /promote reject {promotion.id} <reason>."
        await opened(self.client, pressed.trigger, modals.reject(promotion), otherwise=otherwise)
        return None

    async def reject_with_reason(self, body: dict[str, Any]) -> str | None:
        """The reason came: everything is checked again."""
        view = body["view"]
        await self.promoter.reject(
            str(view["private_metadata"]), user=str(body["user"]["id"]), why=_typed(view, modals.REASON)
        )
        return None

    async def review(self, body: dict[str, Any]) -> str | None:
        """*Review*: somebody else has looked at an emergency, after Slack's own confirm dialog."""
        pressed = await self._on_its_card(body)
        return answers.reviewed(await self.promoter.review(pressed.id, user=pressed.user))

    async def block(self, body: dict[str, Any]) -> str | None:
        """*Mark … bad*: the version that this promotion speaks against goes nowhere any more."""
        pressed = await self._on_its_card(body)
        promotion = await self.promoter.find(pressed.id)
        if not (blame := blamed(promotion)):
            raise Refused(f"Nothing about {promotion.id} speaks against a version: {promotion.told}.")
        version, reason = blame
        done = await self.keeper.block(promotion.app, version, user=pressed.user, reason=reason)
        return await told(done, self.notices)

    async def tell_me(self, body: dict[str, Any]) -> str | None:
        """*Tell me when it can go*."""
        wish = meant(body)
        await self.promoter.tell_me(
            app=wish.app, environment=wish.environment, version=wish.version, user=wish.user
        )
        return answers.wished(wish.app, wish.environment, wish.version)

    async def start_when_open(self, body: dict[str, Any]) -> str:
        """*Start when the gates pass*: a request like any other, that waits for them."""
        return await self._asked(meant(body), Manner(waits=True))

    async def ask_for(self, body: dict[str, Any]) -> str:
        """*Ask for …*, below what was told to be ready: everything is checked as if it were typed."""
        return await self._asked(meant(body), PLAINLY)

    async def _asked(self, wish: Meant, manner: Manner) -> str:
        promotion = await self.promoter.request(
            app=wish.app,
            environment=wish.environment,
            version=wish.version,
            reason=wish.reason,
            user=wish.user,
            delivery=wish.trigger or None,
            manner=manner,
        )
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def break_glass(self, body: dict[str, Any]) -> str | None:
        """The emergency's form came: everything is checked anew, and errors stand in it."""
        view = body["view"]
        app, environment, *version = str(view["private_metadata"]).split(" ")
        if _typed(view, modals.APP) != app:
            raise WrongField(modals.APP, f"That is not {app}. Type the app's name exactly, or go back.")
        try:
            promotion = await self.promoter.request(
                app=app,
                environment=environment,
                version=version[0] if version else None,
                reason=_typed(view, modals.REASON),
                user=str(body["user"]["id"]),
                delivery=str(view["id"]),
                manner=Manner(incident=_typed(view, modals.INCIDENT)),
            )
        except GatesClosed as closed:
            raise Refused(f"This stands in the way, and an emergency does not pass it: {closed}.") from closed
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def _on_its_card(self, body: dict[str, Any]) -> Press:
        """The click, where it was made on the promotion's own card; a copy answers with a link to it."""
        pressed = press(body)
        await self.promoter.require_card(pressed.id, channel=pressed.channel, ts=pressed.ts)
        return pressed


def _typed(view: dict[str, Any], field: str) -> str:
    return str(view["state"]["values"][field]["text"].get("value") or "").strip()
