"""The way from a workspace to its app: signed HTTP requests, or envelopes over a Socket Mode connection."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from bot.core.together import together
from bot.playground.slack.blocks import Json

ANSWER_SECONDS = 3.0
EnvelopeType = Literal["slash_commands", "interactive", "events_api"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the app said within three seconds, or Slack's word for why it said nothing useful."""

    status: int | None
    body: str
    error: str | None = None

    @property
    def content(self) -> Json | None:
        """The answer as a JSON object, where it is one."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


class Delivery:
    """Hands payloads to the app; HTTP where an address is set, else Socket Mode."""

    def __init__(self, *, signing_secret: str, app_id: str) -> None:
        self.signing_secret = signing_secret
        self.events_url: str | None = None
        self._app_id = app_id
        self._session: aiohttp.ClientSession | None = None
        self._tickets: set[str] = set()
        self._sockets: list[web.WebSocketResponse] = []
        self._waiting: dict[str, asyncio.Future[str]] = {}

    def open(self) -> None:
        """Get ready to send."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def close(self) -> None:
        """Hang up on the app."""
        await self.disconnect()
        if self._session is not None:
            await self._session.close()

    @property
    def connections(self) -> int:
        """How many Socket Mode connections are open."""
        return len(self._sockets)

    async def send(
        self, kind: EnvelopeType, payload: Json, *, retry: bool = False, to: Sequence[str] = ()
    ) -> Answer:
        """Deliver one payload and wait for the app's answer, three seconds at most.

        `to` are addresses over HTTP that get it at the same moment, instead of `events_url`, each as often as it
        stands there; the answer is then the first useful one.
        """
        if addresses := to or ([self.events_url] if self.events_url else []):
            sending = (self._send_http(kind, payload, retry=retry, url=each) for each in addresses)
            answers = await together(*sending)
            return next((answer for answer in answers if answer.error is None), answers[0])
        if self._sockets:
            return await self._send_envelope(kind, payload, retry=retry)
        return Answer(status=None, body="", error="dispatch_failed")

    async def _send_http(self, kind: EnvelopeType, payload: Json, *, retry: bool, url: str) -> Answer:
        if self._session is None:
            return Answer(status=None, body="", error="dispatch_failed")
        body, content_type = _encoded(kind, payload)
        headers = {**self._signed(body), "Content-Type": content_type}
        if retry:
            headers |= {"X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"}
        try:
            async with self._session.post(url, data=body.encode(), headers=headers) as response:
                text = await response.text()
        except TimeoutError:
            return Answer(status=None, body="", error="operation_timeout")
        except aiohttp.ClientError:
            return Answer(status=None, body="", error="dispatch_failed")
        error = None if response.status == 200 else "dispatch_failed"
        return Answer(status=response.status, body=text, error=error)

    def _signed(self, body: str) -> dict[str, str]:
        at = str(int(time.time()))
        basis = f"v0:{at}:{body}".encode()
        signature = hmac.new(self.signing_secret.encode(), basis, hashlib.sha256).hexdigest()
        return {
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": f"v0={signature}",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "Accept": "application/json,*/*",
        }

    async def _send_envelope(self, kind: EnvelopeType, payload: Json, *, retry: bool) -> Answer:
        envelope_id = secrets.token_hex(16)
        envelope: Json = {
            "type": kind,
            "envelope_id": envelope_id,
            "payload": payload,
            "accepts_response_payload": kind != "events_api",
        }
        if kind == "events_api":
            envelope |= {"retry_attempt": int(retry), "retry_reason": "timeout" if retry else ""}
        answer = asyncio.get_running_loop().create_future()
        self._waiting[envelope_id] = answer
        try:
            await secrets.choice(self._sockets).send_json(envelope)
            body = await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError:
            return Answer(status=None, body="", error="operation_timeout")
        except ConnectionError:
            return Answer(status=None, body="", error="dispatch_failed")
        finally:
            del self._waiting[envelope_id]
        return Answer(status=200, body=body)

    # --- Socket Mode

    def new_ticket(self) -> str:
        """The right to open one Socket Mode connection."""
        ticket = secrets.token_urlsafe(18)
        self._tickets.add(ticket)
        return ticket

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Hold one Socket Mode connection for as long as the app stays on it."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=404)
        self._tickets.remove(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        try:
            await socket.send_json(self._hello())
            async for frame in socket:
                self._take(frame)
        finally:
            if socket in self._sockets:
                self._sockets.remove(socket)
        return socket

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Ask the app to connect anew, as Slack does every few hours, and close what is open."""
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            if not socket.closed:
                await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
                await socket.close()

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "connection_info": {"app_id": self._app_id},
            "num_connections": len(self._sockets),
            "debug_info": {"host": "127.0.0.1", "approximate_connection_time": 18_060},
        }

    def _take(self, frame: aiohttp.WSMessage) -> None:
        if frame.type is not aiohttp.WSMsgType.TEXT:
            return
        try:
            said = json.loads(frame.data)
        except ValueError:
            return
        waiting = self._waiting.get(said.get("envelope_id", "")) if isinstance(said, dict) else None
        if waiting is not None and not waiting.done():
            payload = said.get("payload")
            waiting.set_result(json.dumps(payload) if payload else "")


def _encoded(kind: EnvelopeType, payload: Json) -> tuple[str, str]:
    if kind == "events_api":
        return json.dumps(payload), "application/json"
    form = payload if kind == "slash_commands" else {"payload": json.dumps(payload)}
    return urlencode(form), "application/x-www-form-urlencoded"
