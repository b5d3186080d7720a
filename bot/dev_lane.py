"""What keeps an eye on the first environments: at once where a git host calls, and else every fifteen seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from bot.core.board import Board
from bot.core.errors import PromoteError
from bot.core.noticing import Noticing
from bot.telemetry import BUGS

LOOK_EVERY = 15.0
"""Seconds; the copies of the branches are fetched about as often."""
LISTEN_EVERY = 1.0
"""Seconds between two questions whether somebody called."""

log = structlog.get_logger()


async def keep_noticed(noticing: Noticing, board: Board) -> None:
    """Look again and again; ends when it is cancelled."""
    loop, heard, due = asyncio.get_running_loop(), dict[str, str](), 0.0
    while True:
        try:
            calls = await board.calls()
            called = _new(calls, heard)
            if called or loop.time() >= due:
                due, heard = loop.time() + LOOK_EVERY, dict(calls)
                for reason in await noticing.look(fresh=called):
                    log.warning("left out", work="noticing", why=reason)
        except PromoteError as error:
            log.warning("left out", work="noticing", why=str(error))
        except Exception:
            # One strange commit must not end it for good.
            BUGS.inc()
            log.exception("broke", work="noticing")
        await asyncio.sleep(LISTEN_EVERY)


def _new(calls: Mapping[str, str], heard: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name for name, word in calls.items() if heard.get(name) != word)
