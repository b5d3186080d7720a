"""Mistakes that were made once in how the bot asks: none of them comes back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import BEN, NOON, PROD, catalog, requested
from test_history import committed
from test_history_messages import PROMOTED
from test_readiness import RULES, SAYS, Replica, heard, report, soaked, wished
from test_soaking import FIFTEEN, ruled
from world import CHANNEL, DANA, World, world_in

from bot.core import history
from bot.core.catalog import Repository
from bot.core.errors import Refused, Unavailable
from bot.core.history import Entry, History, person_called
from bot.core.ports import Written
from bot.core.promotion import Signer
from bot.core.readiness import Ready
from bot.core.together import together
from bot.core.trailers import message

WENDY = replace(BEN, id="U0WENDYDEV1", name="Wendy")


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """Stage runs 15, which is ready for prod."""
    async with world_in(tmp_path, redis_url) as made:
        ruled(made, **RULES)
        for name in ("unit", "load"):
            await report(made, name)
        await soaked(made)
        yield made


# --- side by side


async def away() -> None:
    """Whoever is asked last is away."""
    raise Unavailable("git", "it is away") from OSError("no route")


async def endless() -> None:
    """Nobody answers."""
    await asyncio.Event().wait()


async def test_a_limit_of_time_holds_after_a_failure_within_it() -> None:
    """What failed side by side before leaves no trace on who asked: the limit is told as the limit."""

    async def hurried() -> None:
        async with asyncio.timeout(0.01):
            with pytest.raises(Unavailable):
                await together(endless(), away())
            await endless()

    with pytest.raises(TimeoutError):
        await hurried()
    me = asyncio.current_task()
    assert me is not None
    assert me.cancelling() == 0


async def test_who_is_stopped_while_the_others_are_ended_stops() -> None:
    """One has failed and another still cleans up: whoever is cancelled then does not go on with the failure."""
    cleaning, may_end = asyncio.Event(), asyncio.Event()

    async def thorough() -> None:
        try:
            await endless()
        finally:
            cleaning.set()
            await may_end.wait()

    asking = asyncio.create_task(together(thorough(), away()))
    await cleaning.wait()
    asking.cancel()
    may_end.set()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def test_no_error_of_one_who_is_ended_hides_that_all_were_stopped() -> None:
    """A question that makes an error of its own cancellation changes nothing about that of who asked."""
    begun = asyncio.Event()

    async def touchy() -> None:
        begun.set()
        try:
            await endless()
        except asyncio.CancelledError as stopped:
            raise Refused("I was interrupted.") from stopped

    asking = asyncio.create_task(together(touchy(), endless()))
    await begun.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def test_an_error_keeps_its_cause() -> None:
    """The log of a failure shows what it came from, also where it was one of several questions."""
    with pytest.raises(Unavailable) as raised:
        await together(endless(), away())
    assert isinstance(raised.value.__cause__, OSError)


# --- tellings


async def test_a_mistake_in_one_telling_interrupts_no_other(world: World) -> None:
    """Whoever was being told when another telling broke is told all the same, and once; the mistake is raised."""
    await wished(world)
    begun, broken = asyncio.Event(), asyncio.Event()
    replica = Replica(world)

    async def tell(to: str, ready: Ready) -> None:
        if to == CHANNEL:
            await begun.wait()
            broken.set()
            raise KeyError("a mistake")
        begun.set()
        await broken.wait()
        await replica.tell(to, ready)

    with pytest.raises(KeyError, match="a mistake"):
        await world.moving(replace(replica.readiness, tell=tell).look({"manual-app/prod": FIFTEEN}))
    assert (heard(world, DANA), await world.board.wishes()) == ([SAYS], ())


# --- the history by name


def story(*signers: Signer) -> tuple[Entry, ...]:
    """Commits that these asked for, newest first."""
    return tuple(replace(PROMOTED, requested_by=each) for each in signers)


class Told:
    """A branch on which these have asked for what was promoted."""

    def __init__(self, *signers: Signer) -> None:
        self._commits = [
            committed(message(replace(requested(), requested_by=each), PROD), revision=f"{number:040x}")
            for number, each in enumerate(signers)
        ]

    async def written(self, _repository: Repository, *, limit: int) -> tuple[Written, ...]:
        """All of them."""
        return tuple(self._commits[:limit])


async def asked_by(typed: str, *signers: Signer) -> History:
    """What is told of who was typed, where these have asked."""
    query = history.query(catalog(), now=NOON, app=PROD.app, by=typed)
    return await history.read(query, catalog=catalog(), values=Told(*signers), limit=9)  # type: ignore[arg-type]


async def test_a_name_in_capital_letters_is_a_name() -> None:
    """WENDY could be an id of Slack's: where nobody has that id, the person is found who is called so."""
    found = await asked_by("WENDY", WENDY, BEN)
    assert [each.requested_by for each in found.entries] == [WENDY]
    assert (found.query.by, found.query.name) == (WENDY.id, WENDY.name)


async def test_an_id_goes_before_a_name() -> None:
    """Nobody takes over the history of another one by a name that is spelled like the other one's id."""
    true = replace(BEN, id="UWENDY")
    found = await asked_by("UWENDY", replace(WENDY, name="U Wendy"), true)
    assert [each.requested_by for each in found.entries] == [true]
    assert (found.query.by, found.query.name) == (true.id, None)


async def test_a_machine_is_found_by_the_name_that_the_history_shows() -> None:
    """Whoever reads “asked by jenkins (CI)” may type that, and is told no such thing as that nobody is called so."""
    jenkins = Signer.machine("jenkins")
    assert person_called("jenkins (CI)", story(BEN, jenkins)) == jenkins
    with pytest.raises(Refused, match=r"somebody who has: jenkins \(CI\) \(hook:jenkins\), Ben"):
        person_called("jenkins", story(BEN, jenkins))
