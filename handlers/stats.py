"""`/promote stats`: the numbers privately, and their picture in the channel that they are about."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from bot.core.board import Board
from bot.core.errors import Closed, PromoteError
from bot.core.measuring import Measuring, Statistics
from bot.core.together import together
from bot.messages import chart, stats
from handlers.grammar import Stats

MOST_CHANNELS = 3
"""In how many channels one question may put a picture."""
EVERY = timedelta(minutes=1)
"""How long a channel is left alone after a picture."""


class Pictures(Protocol):
    """Slack's channels, for pictures."""

    async def show(self, channel: str, picture: bytes, *, title: str, alternative: str, caption: str) -> None:
        """Upload a PNG; raises `Unavailable`, `Closed`, and `Failed` where the app may not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Tells the numbers in words, and shows them."""

    measuring: Measuring
    pictures: Pictures
    board: Board

    async def tell(self, wish: Stats, user: str) -> str:
        """The private answer, which says what became of the picture."""
        found = await self.measuring.asked(app=wish.app, environment=wish.environment, since=wish.since)
        return stats.answer(found, pictures=await self._shown(found, user))

    async def _shown(self, found: Statistics, user: str) -> Sequence[str]:
        """Show each channel its own targets; a sentence for each."""
        with_news = [each.target.channel for each in found.targets if each.numbers.deployments]
        channels = list(dict.fromkeys(with_news))
        if len(channels) > MOST_CHANNELS:
            return [stats.not_shown_everywhere(len(channels))]
        return await together(*(self._show(found, channel, user) for channel in channels))

    async def _show(self, found: Statistics, channel: str, user: str) -> str:
        own = tuple(each for each in found.targets if each.target.channel == channel)
        there = replace(found, targets=own, left_out=0)
        try:
            if not await self.board.take(f"pictures in {channel}", most=1, within=EVERY):
                return stats.shown_lately(channel)
            await self.pictures.show(
                channel,
                await asyncio.to_thread(chart.draw, there),
                title=stats.title(there),
                alternative=stats.alternative(there),
                caption=stats.caption(there, user=user),
            )
        except Closed:
            return stats.cannot_show(channel)
        except PromoteError as error:
            return stats.not_shown(channel, str(error))
        return stats.shown(channel)
