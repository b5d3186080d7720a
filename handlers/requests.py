"""Slack's HTTP requests: the rim. What cannot be from Slack is answered 401 before anything reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.context.async_context import AsyncBoltContext
from slack_bolt.request.async_internals import build_async_context
from slack_bolt.request.async_request import AsyncBoltRequest


class FormSafeRequest(AsyncBoltRequest):
    """Bolt 1.30 loses a form body that has the word “payload” in it (`/promote payload-api`): read it again."""

    def __init__(self, *, body: str, query: str, headers: dict[str, str | Sequence[str]]) -> None:
        """`body` is the raw form, exactly as it was signed."""
        super().__init__(body=body, query=query, headers=headers)
        if body and not self.body:
            self.body: dict[str, Any] = dict(parse_qsl(body, keep_blank_values=True))
            self.context = build_async_context(AsyncBoltContext({}), self.body)


def slack_events(app: AsyncApp) -> Any:
    """The handler of `POST /slack/events`: commands, clicks, submissions and events."""

    async def handle(request: web.Request) -> web.Response:
        timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
        # Bolt answers 500 to a time stamp that is no number.
        if not (timestamp.isascii() and timestamp.isdigit()) or "X-Slack-Signature" not in request.headers:
            return web.Response(status=401, text="not signed by Slack")
        try:
            body = await request.text()
        except (UnicodeDecodeError, LookupError):  # Slack sends UTF-8 and says so
            return web.Response(status=401, text="not signed by Slack")
        headers: dict[str, str | Sequence[str]] = dict(request.headers.items())
        response = await app.async_dispatch(
            FormSafeRequest(body=body, query=request.query_string, headers=headers)
        )
        return await to_aiohttp_response(response)

    return handle
