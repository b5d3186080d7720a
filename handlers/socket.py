"""Socket Mode: Slack over an outgoing websocket, with a watchdog for one that is open but deaf."""

from __future__ import annotations

import asyncio
import time

import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp

PING_EVERY = 10.0
DEAF_AFTER = 4 * PING_EVERY
LOOK_EVERY = 5.0
CONNECT_WITHIN = 5.0
"""Seconds; the library would sleep between its own tries for as long as between two pings."""

log = structlog.get_logger()


class SocketMode:
    """Keeps one connection to Slack; a deaf one is replaced by a new one, never reused."""

    def __init__(
        self,
        app: AsyncApp,
        app_token: str,
        *,
        look_every: float = LOOK_EVERY,
        connect_within: float = CONNECT_WITHIN,
    ) -> None:
        self._app = app
        self._app_token = app_token
        self._handler: AsyncSocketModeHandler | None = None
        self._connected_at = 0.0
        self._look_every = look_every
        self._connect_within = connect_within

    @property
    def is_hearing(self) -> bool:
        """Has Slack been heard lately?"""
        if self._handler is None:
            return False
        heard_at = self._handler.client.last_ping_pong_time or self._connected_at
        return 0 <= time.time() - heard_at <= DEAF_AFTER  # a word from the future: the clock was set back

    async def run(self) -> None:
        """Connect, and connect anew whenever Slack falls silent; ends when it is cancelled."""
        try:
            while True:
                if not self.is_hearing:
                    await self._connect()
                await asyncio.sleep(self._look_every)
        finally:
            await self._close()

    async def _connect(self) -> None:
        await self._close()
        handler = AsyncSocketModeHandler(self._app, self._app_token, ping_interval=PING_EVERY)
        try:
            async with asyncio.timeout(self._connect_within):
                await handler.connect_async()
        except asyncio.CancelledError:
            await handler.close_async()
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the next turn tries again
            log.warning("Socket Mode could not connect", error=str(error))
            await handler.close_async()
            return
        self._handler, self._connected_at = handler, time.time()
        log.info("Socket Mode connected")

    async def _close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            await handler.close_async()
