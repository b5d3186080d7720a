"""A round: the same work for many targets, a few at a time, where a slow or broken one holds up no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable

from bot.core.catalog import Target
from bot.core.errors import PromoteError

AT_ONCE = 8
"""How many targets of one Argo CD server are worked on at a time: a slow server holds up its own targets alone."""
ONE_WITHIN = 10.0
"""Seconds for one target."""
ALL_WITHIN = 25.0
"""Seconds for all of them, unless somebody has more; what has not had its turn by then is left to the next round."""

Work = Callable[[], Awaitable[object]]


async def go_round(works: Iterable[tuple[Target, Work]], *, within: float = ALL_WITHIN) -> tuple[str, ...]:
    """Do the work of each target; returns why some could not be done, each reason once.

    What is no `PromoteError` is raised when all others are done.
    """
    works = list(works)
    random.shuffle(works)  # where time is short, it is not always the same ones that are left out
    slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
    reasons: dict[str, None] = {}

    async def do(target: Target, work: Work) -> None:
        server = target.applications[0].server
        async with slots[server]:
            try:
                async with asyncio.timeout(ONE_WITHIN):
                    await work()
            except TimeoutError:
                reasons[f"what concerns Argo CD ({server}) took too long"] = None
            except PromoteError as error:
                reasons[str(error)] = None

    bugs: list[BaseException | None] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            bugs = await asyncio.gather(*(do(*each) for each in works), return_exceptions=True)
    for bug in filter(None, bugs):
        raise bug
    return tuple(reasons)
