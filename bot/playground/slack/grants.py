"""What a workspace grants the app for a while: triggers that open modals, addresses that take answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from bot.playground.slack.blocks import Json, problems
from bot.playground.slack.state import Message, Workspace

TRIGGER_SECONDS = 3.0
RESPONSE_SECONDS = 30 * 60.0
RESPONSE_USES = 5
ResponseKind = Literal["commands", "actions"]


@dataclass(kw_only=True)
class Trigger:
    """The right to open one modal for one person, within three seconds."""

    user: str
    expires: float
    used: bool = False


@dataclass(kw_only=True)
class ResponseAddress:
    """The right to answer one interaction, five times within thirty minutes."""

    channel: str
    user: str
    original: str | None
    thread_ts: str | None
    expires: float
    uses: int = 0


class Grants:
    """Gives out triggers and response addresses, and takes them back when they are used up or too old."""

    def __init__(self, workspace: Workspace, *, address: Callable[[], str]) -> None:
        self.now: Callable[[], float] = time.monotonic
        self._workspace = workspace
        self._address = address
        self._triggers: dict[str, Trigger] = {}
        self._responses: dict[str, ResponseAddress] = {}

    def trigger(self, user: str, given: str | None = None) -> str:
        """A new trigger id, or the given one as Slack sends it again with a repeated request."""
        trigger_id = given or f"{new_secret()}.{new_secret()}"
        expires = self.now() + TRIGGER_SECONDS
        self._triggers.setdefault(trigger_id, Trigger(user=user, expires=expires))
        return trigger_id

    def use_trigger(self, trigger_id: str) -> tuple[str | None, str]:
        """Whose trigger it is, or None and Slack's error code."""
        trigger = self._triggers.get(trigger_id)
        if trigger is None:
            return None, "invalid_trigger_id"
        if trigger.used:
            return None, "exchanged_trigger_id"
        if self.now() > trigger.expires:
            return None, "expired_trigger_id"
        trigger.used = True
        return trigger.user, ""

    def response_url(
        self, kind: ResponseKind, *, channel: str, user: str, original: Message | None = None
    ) -> str:
        """A new address where the app may answer."""
        secret = new_secret()
        self._responses[secret] = ResponseAddress(
            channel=channel,
            user=user,
            original=original.ts if original else None,
            thread_ts=original.thread_ts if original else None,
            expires=self.now() + RESPONSE_SECONDS,
        )
        return f"{self._address()}/{kind}/{self._workspace.team}/{secret}"

    async def respond(self, request: web.Request) -> web.Response:
        """Take the app's answer at a response address."""
        address = self._responses.get(request.match_info["secret"])
        if address is None:
            return _plain("invalid_url", 404)
        if self.now() > address.expires:
            return _plain("expired_url", 404)
        if address.uses >= RESPONSE_USES:
            return _plain("used_url", 404)
        try:
            body = await request.json()
        except ValueError:
            return _plain("invalid_payload", 400)
        if not isinstance(body, dict):
            return _plain("invalid_payload", 400)
        error = self.show(address, body)
        if error:
            return _plain(error, 400)
        address.uses += 1
        return _plain("ok", 200)

    def show(self, address: ResponseAddress, body: Json) -> str | None:
        """Show an answer where it belongs; the error code if Slack would not take it."""
        original = self._workspace.find(address.channel, address.original or "")
        if body.get("delete_original"):
            if original is None:
                return "message_not_found"
            self._workspace.delete(original)
            return None
        blocks, text = body.get("blocks"), body.get("text") or ""
        if blocks is not None and problems(blocks, "message"):
            return "invalid_blocks"
        if not text and not blocks:
            return "no_text"
        if body.get("replace_original") and original is not None:
            self._workspace.edit(original, text=text, blocks=blocks or [])
            return None
        open_to_all = body.get("response_type") == "in_channel"
        self._workspace.add(
            address.channel,
            self._workspace.bot.id,
            text,
            blocks=blocks or [],
            thread_ts=body.get("thread_ts") or address.thread_ts,
            only_for=None if open_to_all else address.user,
        )
        return None


def new_secret() -> str:
    """An unguessable part of an address."""
    return secrets.token_urlsafe(18)


def _plain(text: str, status: int) -> web.Response:
    if status == 200:
        return web.Response(text=text)
    return web.json_response({"ok": False, "error": text}, status=status)
