"""How often one person may ask the bot for something: what is dear behind it is shared by everybody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from bot.core.board import Board
from bot.core.errors import Refused, Unavailable

COMMANDS = 10
CLICKS = 20
WITHIN = timedelta(minutes=1)
ANSWERED_WITHIN = 0.5
"""Seconds for the store: a click has to be answered within three."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Asked before anything outside is. Where the store is away everybody passes: what comes next needs it, too."""

    board: Board
    _late: set[asyncio.Future[bool]] = field(default_factory=set, init=False)

    async def command(self, user: str) -> None:
        """One more command of this person; raises `Refused`, with when to try again, where there were ten already."""
        await self._take("commands", user, most=COMMANDS)

    async def click(self, user: str) -> None:
        """One more click of this person; raises `Refused`, with when to try again, where there were twenty already."""
        await self._take("clicks", user, most=CLICKS)

    async def _take(self, what: str, user: str, *, most: int) -> None:
        asked = asyncio.ensure_future(self.board.take(f"{what} of {user}", most=most, within=WITHIN))
        # Left to end by itself: a question that is broken off would leave its connection behind.
        self._late.add(asked)
        asked.add_done_callback(self._end)
        await asyncio.wait([asked], timeout=ANSWERED_WITHIN)
        if not asked.done() or isinstance(asked.exception(), Unavailable):
            return
        if not asked.result():
            raise Refused(
                f"You have made {most} {what} within a minute, so nothing was done about this one. "
                "Try again in a minute."
            )

    def _end(self, asked: asyncio.Future[bool]) -> None:
        self._late.discard(asked)
        if not asked.cancelled():
            asked.exception()  # whoever waited has gone on
