"""Questions that are asked side by side end together: nothing goes on after the one who asked has gone."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Refused, Unavailable
from bot.core.together import together


@given(turns=st.lists(st.integers(0, 5), max_size=6))
def test_answers_come_in_the_order_of_the_questions(turns: list[int]) -> None:
    """Whoever is faster."""

    async def work(number: int, waits: int) -> int:
        for _ in range(waits):
            await asyncio.sleep(0)
        return number

    works = (work(number, waits) for number, waits in enumerate(turns))

    async def ask() -> tuple[int, ...]:
        return await together(*works)

    assert asyncio.run(ask()) == tuple(range(len(turns)))


@given(turns=st.lists(st.integers(0, 5), min_size=1, max_size=5), fails_after=st.integers(0, 5))
def test_nothing_goes_on_after_a_failure(turns: list[int], fails_after: int) -> None:
    """The error is raised as it is, and the others have ended by then, their clean-up too."""
    cleaned: list[int] = []
    begun: list[int] = []

    async def work(number: int, waits: int) -> None:
        begun.append(number)
        try:
            for _ in range(waits):
                await asyncio.sleep(0)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            cleaned.append(number)

    async def failing() -> None:
        for _ in range(fails_after):
            await asyncio.sleep(0)
        raise Refused("No.")

    async def ask() -> None:
        with pytest.raises(Refused, match=r"^No\.$"):
            await together(failing(), *(work(number, waits) for number, waits in enumerate(turns)))
        assert sorted(cleaned) == sorted(begun)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(ask())


async def test_who_gives_up_ends_them_all() -> None:
    """A limit of time ends the questions before it is told."""
    ended: list[str] = []

    async def endless(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await together(endless("git"), endless("Argo CD"))
    assert sorted(ended) == ["Argo CD", "git"]


async def test_the_first_error_is_told() -> None:
    """What another one says while it is ended hides no reason."""

    async def away() -> None:
        raise Unavailable("git", "it is away")

    async def unhappy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Refused("I was interrupted.")

    with pytest.raises(Unavailable, match="it is away"):
        await together(unhappy(), away())
