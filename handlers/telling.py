"""What concerns everybody is told in the channels, and whoever did it reads what could not be told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bot.core.errors import PromoteError
from bot.core.keeper import Kept, Notices
from bot.messages import keeping


async def told(done: Kept, notices: Notices) -> str:
    """Tell every channel that it concerns; returns the private answer for who did it."""
    untold = await _untold(notices, done.channels, keeping.notice(done))
    return "\n".join([keeping.answer(done), *([keeping.untold(untold)] if untold else [])])


async def _untold(notices: Notices, channels: Sequence[str], text: str) -> list[str]:
    """Tell each channel once; returns those that could not be told, as what was done is done all the same."""
    tellings = (notices.tell(channel, text) for channel in channels)
    found = await asyncio.gather(*tellings, return_exceptions=True)
    untold = []
    for channel, error in zip(channels, found, strict=True):
        if isinstance(error, PromoteError):
            untold.append(channel)
        elif error is not None:
            raise error
    return untold
