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
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return tuple(task.result() for task in tasks)
