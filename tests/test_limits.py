"""How often one person may ask: so many commands and clicks within a minute, each person by themselves."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot.core.errors import Refused
from bot.core.limits import CLICKS, COMMANDS, WITHIN, Limits
from bot.integrations.board import RedisBoard
from bot.integrations.store import connect

AMY, BEN = "U0AMY", "U0BEN"
Asks = Callable[[Limits, str], Awaitable[None]]
KINDS = pytest.mark.parametrize(
    ("ask", "most"),
    [(Limits.command, COMMANDS), (Limits.click, CLICKS)],
    ids=["commands", "clicks"],
)


@pytest.fixture
async def limits(redis_url: str) -> AsyncIterator[Limits]:
    board = RedisBoard(connect(redis_url, quick=True))
    yield Limits(board)
    await board.aclose()


async def use_up(limits: Limits, ask: Asks, most: int, user: str = AMY) -> None:
    for _ in range(most):
        await ask(limits, user)


@KINDS
async def test_who_asks_too_often_is_told_when_to_try_again(limits: Limits, ask: Asks, most: int) -> None:
    """So many pass within a minute, and not one more."""
    await use_up(limits, ask, most)
    with pytest.raises(Refused, match=rf"You have made {most} .* Try again in a minute\."):
        await ask(limits, AMY)


@KINDS
async def test_one_person_takes_nothing_from_another(limits: Limits, ask: Asks, most: int) -> None:
    """Everybody has a minute of their own."""
    await use_up(limits, ask, most)
    await ask(limits, BEN)


async def test_commands_and_clicks_are_counted_apart(limits: Limits) -> None:
    """Somebody who has typed a lot may still press a button, and the other way round."""
    await use_up(limits, Limits.command, COMMANDS)
    await use_up(limits, Limits.click, CLICKS)
    with pytest.raises(Refused, match="commands"):
        await limits.command(AMY)
    with pytest.raises(Refused, match="clicks"):
        await limits.click(AMY)


async def test_a_minute_later_everything_may_be_asked_again(limits: Limits, redis_url: str) -> None:
    """What was taken is kept for one minute: the server forgets it by itself."""
    await limits.command(AMY)
    async with Redis.from_url(redis_url) as raw:
        [key] = await raw.keys("*")
        left = await raw.pttl(key)
    assert 0 < left <= WITHIN.total_seconds() * 1000


async def test_where_the_store_is_away_everybody_passes(tmp_path: Path) -> None:
    """What comes behind it needs the store as well, and says that it is away."""
    board = RedisBoard(connect(f"unix://{tmp_path}/nobody.sock", quick=True))
    await use_up(Limits(board), Limits.command, COMMANDS + 1)
    await use_up(Limits(board), Limits.click, CLICKS + 1)
    await board.aclose()
