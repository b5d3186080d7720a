"""Doing something once, whichever process of all comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from bot.core.board import Board
from bot.core.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Once:
    """Does what is told it once, and once more in this process where the outside was away."""

    board: Board
    _left: set[str] = field(default_factory=set)
    """What this process began and did not bring to an end."""

    async def do(self, what: str, work: Callable[[], Awaitable[None]], *, within: timedelta) -> None:
        """Do the work unless somebody has begun it within this span; after `Unavailable` call it again."""
        if what not in self._left and not await self.board.once(what, within=within):
            return
        self._left.add(what)
        try:
            await work()
        except Unavailable:
            raise
        except Exception:  # trying again would not help
            self._left.discard(what)
            raise
        self._left.discard(what)
