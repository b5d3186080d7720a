"""Whoever changed the rules of an environment neither asks nor approves there for a day."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from world import AMY, BEN, DANA, MEL, World, world_in

from bot.core.asking import Manner
from bot.core.errors import Refused, Unavailable
from bot.core.guarding import BARRED, Deployed, Guard
from bot.core.promotion import Phase
from bot.integrations.rulebook import RULES

CHANGED = "changed the rules that hold for .* within the last 24 hours, so somebody else must"
PROD: dict[str, Any] = {
    "approvals": {"rules": [{"users": [AMY, BEN], "min": 1}]},
    "emergency": {"who": [DANA, MEL], "skips": ["quorum"]},
}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        made.parts = replace(made.parts, catalog=made.configure(policies={"prod": PROD}))
        made.engine = made.new_engine()
        yield made


async def in_force(world: World, author: str, *, revision: str, **prod: Any) -> None:
    """A worker starts with these rules for prod, of this revision."""

    async def announce(*_: Any) -> None:
        """Nobody listens."""

    catalog = world.configure(policies={"prod": PROD | prod})
    guard = Guard(
        catalog=catalog,
        rulebook=world.rulebook,
        board=world.board,
        clock=world.clock,
        deployed=Deployed(revision=revision, author=author),
        announce=announce,
        alarm=world.alarms.append,
    )
    await guard.take_note()
    world.parts = replace(world.parts, catalog=catalog)
    world.engine = replace(world.new_engine(), policy_revision=revision)


async def changed_by(world: World, author: str) -> None:
    """The rules of prod are others than they were; this is whose change it was."""
    await in_force(world, "somebody@acme.example", revision="r1")
    await in_force(world, author, revision="r2", waits="5d")


@pytest.mark.parametrize("author", [DANA, "dana@acme.example", "Dana@ACME.example"])
async def test_who_changed_the_rules_does_not_ask(world: World, author: str) -> None:
    """By id or by address; others do, and so do they a day later, and elsewhere at once."""
    await changed_by(world, author)
    with pytest.raises(Refused, match=f"{CHANGED} request"):
        await world.request(user=DANA)
    await world.request("stage", "16", user=DANA)
    id = await world.request(user=MEL)
    await world.promoter.cancel(id, user=MEL)
    world.passes(BARRED.total_seconds())
    await world.request(user=DANA)


async def test_who_changed_the_rules_does_not_approve(world: World) -> None:
    """Neither by a click nor at the commit, where the change came between; a rejection is never hindered."""
    await changed_by(world, AMY)
    id = await world.request()
    with pytest.raises(Refused, match=f"{CHANGED} approve"):
        await world.promoter.approve(id, user=AMY)
    await world.promoter.approve(id, user=BEN)
    await world.advance_until(id, Phase.COMMITTED)


async def test_who_changed_the_rules_does_not_reject_less(world: World) -> None:
    """To say no is safe."""
    await changed_by(world, AMY)
    id = await world.request()
    assert (await world.promoter.reject(id, user=AMY, why="not today")).phase is Phase.REJECTED


async def test_an_approval_does_not_count_that_came_before_the_change_was_noted(world: World) -> None:
    """A web process may have the new rules before any worker does: it is asked again right before the commit."""
    await in_force(world, "somebody@acme.example", revision="r1")
    world.parts = replace(world.parts, catalog=world.configure(policies={"prod": PROD | {"waits": "5d"}}))
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    await in_force(world, AMY, revision="r2", waits="5d")
    await world.advance(id)
    await world.advance(id)
    promotion = await world.find(id)
    assert (promotion.phase, promotion.approvals) == (Phase.REQUESTED, ())
    assert world.commits() == []


async def test_a_request_does_not_count_that_came_before_the_change_was_noted(world: World) -> None:
    """The same for whoever asked."""
    await in_force(world, "somebody@acme.example", revision="r1")
    world.parts = replace(world.parts, catalog=world.configure(policies={"prod": PROD | {"waits": "5d"}}))
    id = await world.request(user=DANA)
    await world.promoter.approve(id, user=AMY)
    await in_force(world, DANA, revision="r2", waits="5d")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.STALE
    assert "changed the rules for it of late" in (promotion.ending or "")
    assert world.commits() == []


async def test_who_changed_the_rules_does_not_break_glass(world: World) -> None:
    """Else they would name themselves, and pass every rule that is left."""
    await changed_by(world, DANA)
    emergency = {"app": "manual-app", "environment": "prod", "version": None, "reason": "checkout is down"}
    manner = Manner(incident="INC-99")
    with pytest.raises(Refused, match=f"{CHANGED} break glass"):
        await world.moving(world.promoter.request(**emergency, user=DANA, manner=manner))
    await world.moving(world.promoter.request(**emergency, user=MEL, manner=manner))


async def test_who_changed_the_rules_is_not_counted_among_those_who_could_approve(world: World) -> None:
    """Where nobody else is left, the request is refused when it is made."""
    await in_force(world, MEL, revision="r1")
    only = {"approvals": {"rules": [{"users": [AMY], "min": 1}]}}
    await in_force(world, AMY, revision="r2", **only)
    with pytest.raises(Refused, match="Nobody could approve this"):
        await world.request(user=DANA)


async def test_the_revision_of_the_rules_stands_in_the_commit(world: World) -> None:
    """Whoever reads the history finds the rules that held."""
    await changed_by(world, MEL)
    id = await world.request()
    await world.promoter.approve(id, user=BEN)
    await world.advance_until(id, Phase.COMMITTED)
    [commit] = world.commits(id)
    assert commit.trailers[-1] == ("Policy-Revision", "r2")


async def test_where_it_cannot_be_read_who_changed_the_rules_nobody_asks(world: World) -> None:
    """What cannot be read is never taken for nothing."""
    async with Redis.from_url(world.redis_url) as raw:
        await raw.set(RULES, "{}")
    with pytest.raises(Unavailable, match="cannot be read"):
        await world.request()
