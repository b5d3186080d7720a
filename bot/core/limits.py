"""How often one person may ask the bot for something: what is dear behind it is shared by everybody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from bot.core.board import Board
from bot.core.errors import Refused, Unavailable

COMMANDS = 10
CLICKS = 20
WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Asked before anything outside is. Where the store is away everybody passes: what comes next needs it, too."""

    board: Board

    async def command(self, user: str) -> None:
        """One more command of this person; raises `Refused`, with when to try again, where there were ten already."""
        await self._take("commands", user, most=COMMANDS)

    async def click(self, user: str) -> None:
        """One more click of this person; raises `Refused`, with when to try again, where there were twenty already."""
        await self._take("clicks", user, most=CLICKS)

    async def _take(self, what: str, user: str, *, most: int) -> None:
        try:
            may_pass = await self.board.take(f"{what} of {user}", most=most, within=WITHIN)
        except Unavailable:
            return
        if not may_pass:
            raise Refused(
                f"That were {most} {what} of yours within a minute, and nothing was done about this one. "
                "Try again in a minute."
            )
