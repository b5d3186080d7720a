"""The guard of the rules: where the file comes from, who hears of a change, and when somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bot.core.board import Board
from bot.core.catalog import Catalog
from bot.core.errors import Unavailable
from bot.core.guarding import Deployed, Difference, Guard, Rulebook
from bot.core.keeper import Notices
from bot.core.ports import Clock
from bot.integrations.provenance import origin_of
from bot.messages.guarding import changed
from bot.settings import Settings
from bot.telemetry import BUGS

LOOK_EVERY = 60.0
"""Seconds; what could not be told then is told at one of the next looks."""

log = structlog.get_logger()


def deployed(settings: Settings) -> Deployed:
    """Which revision the file is, and who made it: as whoever deploys it says, else as its git work tree has it."""
    revision, author = settings.get("PROMOTE_CONFIG_REVISION"), settings.get("PROMOTE_CONFIG_AUTHOR")
    if revision or author:
        return Deployed(revision=revision or "", author=author or "")
    origin = origin_of(settings.config_path)
    if origin.doubt:
        log.warning("revision of the rules unknown", file=str(settings.config_path), reason=origin.doubt)
    return Deployed(revision=origin.revision, author=origin.author)


def guard_of(
    settings: Settings,
    catalog: Catalog,
    *,
    rulebook: Rulebook,
    board: Board,
    notices: Notices,
    clock: Clock,
    alarm: Callable[[str], None],
) -> Guard:
    """The guard of these rules; it tells Slack's channels."""

    async def announce(channel: str, told: Difference) -> None:
        await notices.tell(channel, changed(told))

    return Guard(
        catalog=catalog,
        rulebook=rulebook,
        board=board,
        clock=clock,
        deployed=deployed(settings),
        announce=announce,
        alarm=alarm,
    )


async def keep_guarded(guard: Guard) -> None:
    """Write down the rules in force once, and look every minute whether people know them."""
    is_noted = False
    while True:
        try:
            if not is_noted:
                await guard.take_note()
                is_noted = True
            await guard.tell()
        except Unavailable as error:
            log.warning("cannot guard the rules", error=str(error))
        except Exception:
            # One strange rule must not end it for all the others.
            BUGS.inc()
            log.exception("cannot guard the rules")
        await asyncio.sleep(LOOK_EVERY)
