"""Slack's HTTP requests: the rim. What cannot be from Slack is answered 401 before anything reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.context.async_context import AsyncBoltContext
from slack_bolt.request.async_internals import build_async_context
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier

TIMESTAMP = re.compile(r"[0-9]{1,12}")


class FormSafeRequest(AsyncBoltRequest):
    """Bolt 1.30 loses a form body that has the word “payload” in it (`/promote payload-api`): read it again."""

    def __init__(self, *, body: str, query: str, headers: dict[str, str | Sequence[str]]) -> None:
        """`body` is the raw form, exactly as it was signed."""
        super().__init__(body=body, query=query, headers=headers)
        if body and not self.body:
            self.body: dict[str, Any] = dict(parse_qsl(body, keep_blank_values=True))
            self.context = build_async_context(AsyncBoltContext({}), self.body)


def slack_events(app: AsyncApp, signing_secret: str) -> Any:
    """The handler of `POST /slack/events`: commands, clicks, submissions and events."""
    verifier = SignatureVerifier(signing_secret)

    async def handle(request: web.Request) -> web.Response:
        timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
        signature = request.headers.get("X-Slack-Signature", "")
        # Bolt reads the body before it looks at the signature, and answers 500 to what it cannot read.
        if not TIMESTAMP.fullmatch(timestamp) or not signature.isascii():
            return _not_from_slack()
        try:
            body = (await request.read()).decode()
        except UnicodeDecodeError:
            return _not_from_slack()
        if not verifier.is_valid(body, timestamp, signature):
            return _not_from_slack()
        headers: dict[str, str | Sequence[str]] = dict(request.headers.items())
        response = await app.async_dispatch(
            FormSafeRequest(body=body, query=request.query_string, headers=headers)
        )
        return await to_aiohttp_response(response)

    return handle


def _not_from_slack() -> web.Response:
    return web.Response(status=401, text="not signed by Slack")
