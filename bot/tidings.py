"""What is looked at now and then, by one process of all, and told of its own accord."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from typing import TypeVar

import structlog

from bot.core.board import Board
from bot.core.doing_once import Once
from bot.core.drafting import Drafting
from bot.core.errors import PromoteError
from bot.core.ports import Clock
from bot.core.readiness import Readiness
from bot.core.reminding import Reminding
from bot.core.rereading import Rereading
from bot.core.soaking import Soaking
from bot.integrations.slack import SlackNotices
from bot.messages import ready
from bot.messages.mrkdwn import Message
from bot.telemetry import BUGS

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ASK_EVERY = 60.0
"""Seconds between two questions whether it is this process's turn: another one may have died with its own."""
A_LITTLE = timedelta(seconds=5)
"""A turn ends so much before the next one, or whoever asks a moment too early would have to leave it out."""

News = TypeVar("News")

log = structlog.get_logger()


def works(
    drafting: Drafting, notices: SlackNotices, clock: Clock, alarm: Callable[[str], None]
) -> tuple[Coroutine[None, None, None], ...]:
    """What runs as long as the bot does; safe beside any number of others."""
    board = drafting.board
    soaking = Soaking(drafting=drafting, clock=clock)
    readiness = Readiness(drafting=drafting, tell=_telling(notices, ready.ready))
    rereading = Rereading(
        drafting=drafting, once=Once(board), tell=_telling(notices, ready.pushed_anew), alarm=alarm
    )
    reminding = Reminding(
        board=board,
        directory=drafting.directory,
        clock=clock,
        once=Once(board),
        tell=_telling(notices, ready.standing),
    )

    async def look() -> tuple[str, ...]:
        seen = await soaking.look()
        return tuple(dict.fromkeys((*seen.reasons, *await readiness.look(seen.builds))))

    return (
        in_turn(board, "soak", look, every=MINUTE),
        in_turn(board, "digests", rereading.reread, every=HOUR),
        in_turn(board, "locks", reminding.remind, every=MINUTE),
    )


async def in_turn(
    board: Board, name: str, work: Callable[[], Awaitable[Iterable[str]]], *, every: timedelta
) -> None:
    """Do it again and again, once in such a span by all processes together; it returns what it could not do."""
    while True:
        try:
            if await board.once(f"turn:{name}", within=every - A_LITTLE):
                for reason in await work():
                    log.warning("left out", work=name, why=reason)
        except PromoteError as error:
            log.warning("left out", work=name, why=str(error))
        except Exception:
            # One strange record must not end it for good.
            BUGS.inc()
            log.exception("broke", work=name)
        await asyncio.sleep(ASK_EVERY)


def _telling(
    notices: SlackNotices, words: Callable[[News], Message]
) -> Callable[[str, News], Awaitable[None]]:
    async def tell(to: str, news: News) -> None:
        message = words(news)
        await notices.tell(to, message.text, message.blocks)

    return tell
