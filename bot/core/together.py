"""Several questions side by side, none of which outlives the one who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
Work = Coroutine[Any, Any, A]


@overload
async def together(a: Work[A], b: Work[B], /) -> tuple[A, B]: ...
@overload
async def together(a: Work[A], b: Work[B], c: Work[C], d: Work[D], e: Work[E], /) -> tuple[A, B, C, D, E]: ...
@overload
async def together(*works: Work[A]) -> tuple[A, ...]: ...
async def together(*works: Work[Any]) -> tuple[Any, ...]:
    """What each of them returns; where one fails, the others are ended before its error is raised.

    `asyncio.gather` would let them go on, with nobody left to wait for them.
    """
    if not works:
        return ()
    # No `TaskGroup`: in Python 3.11 it cancels who waits for it, and may swallow what others cancel.
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return tuple(task.result() for task in tasks if task in ended)
