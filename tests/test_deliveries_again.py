"""A delivery that found nothing to do is remembered: the same one brings no old build back later."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ci_world import BuildServer, hearing_machines, new_delivering
from world import World, world_in

from bot.core.delivering import Build, Delivered
from bot.core.promotion import Phase, PromotionId
from bot.integrations.store import RedisStore

SENT = "build-of-16"
LINK = "https://ci.example.com/job/manual-app/16/"
OLDER = Build(app="manual-app", environment="dev", version="16")


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
async def ci(world: World) -> AsyncIterator[BuildServer]:
    async with hearing_machines(world) as server:
        yield server


async def with_newer(world: World, ci: BuildServer) -> None:
    """Build 16 finds itself in dev already, and then 17 goes live there."""
    status, answer = await ci.deliver("16", delivery=SENT)
    assert (status, answer) == (200, {"ok": True, "sentence": "dev already holds 16; nothing to do."})
    status, answer = await ci.deliver("17", delivery="build-of-17")
    assert status == 202
    assert (await world.rest(answer["promotion"])).phase is Phase.LIVE


async def test_a_repetition_brings_no_old_build_back(world: World, ci: BuildServer) -> None:
    """A build server that sends once more what had nothing to do hears so, as often as it likes."""
    await with_newer(world, ci)
    for _ in range(2):
        status, answer = await ci.deliver("16", delivery=SENT)
        sentence = "Taken before: dev held 16 then; nothing to do."
        assert (status, answer) == (200, {"ok": True, "repeated": True, "sentence": sentence})
    assert world.value("dev") == "17"
    assert [each.version for each in await world.store.history(world.target("dev"))] == ["17"]


@pytest.mark.parametrize(
    "changes",
    [{"version": "18"}, {"reason": "other words"}, {"link": LINK}, {"digest": "sha256:" + "d" * 64}],
    ids=str,
)
async def test_a_repetition_that_says_something_else_is_a_conflict(
    world: World, ci: BuildServer, changes: dict[str, str]
) -> None:
    """A delivery names one build, also where that had nothing to do."""
    await with_newer(world, ci)
    status, answer = await ci.deliver(**{"version": "16", "delivery": SENT} | changes)
    assert (status, answer["ok"]) == (409, False)
    assert "Deliver another build under another delivery" in answer["sentence"]
    assert [each.version for each in await world.store.history(world.target("dev"))] == ["17"]


async def test_another_delivery_brings_the_older_build_back(world: World, ci: BuildServer) -> None:
    """What is remembered is the delivery, not the version: who runs the old pipeline anew wants its build."""
    await with_newer(world, ci)
    status, answer = await ci.deliver("16", delivery="build-of-16-again")
    assert status == 202
    await world.rest(answer["promotion"])
    assert world.value("dev") == "16"


# --- two workers with one delivery


@dataclass
class Slow:
    """The store of a worker that is overtaken right before one of its calls."""

    store: RedisStore
    before: str
    overtaken: Any

    def __getattr__(self, name: str) -> Any:
        kept = getattr(self.store, name)
        if name != self.before:
            return kept

        async def late(*words: Any, **more: Any) -> Any:
            await self.overtaken()
            return await kept(*words, **more)

        return late


async def sent(world: World, **different: Any) -> Delivered:
    """Build 16, delivered to a worker that has `different` parts."""
    return await new_delivering(world, **different).deliver(OLDER, machine="jenkins", delivery=SENT)


async def test_who_finds_nothing_to_do_too_late_tells_of_what_was_made(world: World) -> None:
    """Between its look at dev and its answer another worker made a promotion of the same delivery."""
    made: list[PromotionId] = []

    async def overtaken() -> None:
        world.push_by_hand("dev", "17")
        first = await sent(world)
        assert first.promotion is not None
        made.append(first.promotion.id)

    told = await sent(world, store=Slow(world.store, "settle", overtaken))
    assert told.promotion is not None
    assert ([told.promotion.id], told.is_repeated) == (made, True)


async def test_what_had_nothing_to_do_is_not_made_by_a_slower_worker(world: World) -> None:
    """Between its look at dev and its request another worker found that dev holds the build."""
    world.push_by_hand("dev", "17")

    async def overtaken() -> None:
        world.push_by_hand("dev", "16")
        assert await sent(world) == Delivered(promotion=None)

    told = await sent(world, store=Slow(world.store, "create", overtaken))
    assert told == Delivered(promotion=None, is_repeated=True)
    assert await world.store.history(world.target("dev")) == ()
