"""Whoever puts up a lock is not left to forget it: reminded every day, and told when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from bot.core.board import Board, Lock
from bot.core.doing_once import Once
from bot.core.errors import PromoteError
from bot.core.membership import is_member
from bot.core.ports import Clock, Directory

DAY = timedelta(days=1)
TOLD_LATE = timedelta(days=7)
"""How long after its end somebody is still told of it: the bot, or Slack, may have been away."""
TOLD_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A lock, and whether it is over."""

    lock: Lock
    is_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminding:
    """Tells the owners of locks; safe beside any number of others."""

    board: Board
    directory: Directory
    clock: Clock
    once: Once
    tell: Callable[[str, Standing], Awaitable[None]]
    """Tells a person, by id; raises `Unavailable`, and `Gone` where nobody is there to be told."""

    async def remind(self) -> tuple[str, ...]:
        """Tell every owner what is due; returns why some could not be told."""
        now, reasons = self.clock.now(), []
        for lock in await self.board.locks():
            try:
                await self._remind(lock, now)
            except PromoteError as error:
                reasons.append(str(error))
        return tuple(dict.fromkeys(reasons))

    async def _remind(self, lock: Lock, now: datetime) -> None:
        if due := _due(lock, now):
            what = f"lock:{lock.scope}:{lock.at.isoformat()}:{due}"
            news = Standing(lock=lock, is_over=not lock.holds_at(now))
            await self.once.do(what, partial(self._tell, news), within=TOLD_FOR)

    async def _tell(self, news: Standing) -> None:
        """Tell the owner; who is no member any more is told nothing."""
        if is_member(await self.directory.person(news.lock.by)):
            await self.tell(news.lock.by, news)


def _due(lock: Lock, now: datetime) -> str:
    """What there is to tell now: `over`, or the day that it stands; empty for nothing."""
    if lock.until is not None and not lock.holds_at(now):
        return "over" if now - lock.until <= TOLD_LATE else ""
    days = (now - lock.at) // DAY
    return f"day {days}" if days >= 1 else ""
