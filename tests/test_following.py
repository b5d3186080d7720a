"""A commit is followed through outages of everything around it: real git and Redis, simulated Slack and Argo CD."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from world import World, world_in

from bot.core.promotion import Phase, PromotionId
from bot.playground.argocd.server import SimulatedArgoCD


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def _follow(world: World, id: PromotionId, *, seconds: float) -> None:
    """Step by step, each when it is due, for so long."""
    until = world.clock.at + timedelta(seconds=seconds)
    while world.clock.at < until:
        after = await world.advance(id)
        assert after is not None, (await world.find(id)).ending
        world.passes(max(after.total_seconds(), 0.1))


async def _deployed_and_out_of_sight(world: World) -> PromotionId:
    """Argo CD has brought the commit to life, and the bot begins anew with an empty copy of the repository."""
    id = await world.committed()
    await world.roll_out("prod")
    assert world.argocd.truth("manual-app-prod").runs("15")
    world.restart()
    return id


# --- the git host is away


async def test_a_git_host_that_is_away_is_named_and_waited_for(world: World) -> None:
    """Whether Argo CD's revision holds the commit is not known: neither live nor not picked up."""
    id = await _deployed_and_out_of_sight(world)
    with world.git_host_away():
        await _follow(world, id, seconds=200)
        shown = await world.show(id)
        assert "the git host is not available" in shown
        assert "the commit is pushed" in shown
        assert (await world.find(id)).phase is Phase.COMMITTED
    assert (await world.rest(id)).phase is Phase.LIVE
    assert "the git host" not in await world.shown(id)


async def test_the_time_limit_holds_while_the_git_host_is_away(world: World) -> None:
    """Each rollout comes to an end that somebody reads, with the reason why nobody knows more."""
    id = await _deployed_and_out_of_sight(world)
    with world.git_host_away():
        promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "nobody knows whether it is live: the git host is not available" in (promotion.ending or "")
    waited = (promotion.ended_at or promotion.requested_at) - (
        promotion.committed_at or promotion.requested_at
    )
    assert timedelta(minutes=5) <= waited < timedelta(minutes=6)


# --- Argo CD will not tell


def _expire(argocd: SimulatedArgoCD) -> None:
    argocd.token_expired = True


def _forbid(argocd: SimulatedArgoCD) -> None:
    argocd.forbidden = {"manual-app-prod"}


@pytest.mark.parametrize(
    ("refuse", "says"),
    [(_expire, "expired or was revoked"), (_forbid, "its account needs applications, get")],
    ids=["401", "403"],
)
async def test_a_refusal_that_is_mended_costs_nothing_but_time(
    world: World, refuse: Callable[[SimulatedArgoCD], None], says: str
) -> None:
    """The card says at once what is wrong; with a new token or right it goes on by itself."""
    id = await world.committed()
    refuse(world.argocd)
    await world.advance(id)
    shown = await world.show(id)
    assert says in shown
    assert "somebody has to put that right within 5 minutes" in shown
    await _follow(world, id, seconds=200)
    assert (await world.find(id)).phase is Phase.COMMITTED
    world.argocd.token_expired = False
    world.argocd.forbidden = set()
    assert (await world.rest(id)).phase is Phase.LIVE
    assert says not in await world.shown(id)


# --- somebody was away


async def test_a_bot_that_was_away_longer_than_the_time_limit_finds_it_live(world: World) -> None:
    """The rollout did not need the bot; its first look past the limit begins the hold."""
    id = await _deployed_and_out_of_sight(world)
    world.passes(3600)
    promotion = await world.rest(id)
    says = "synced and healthy, every pod runs it, 3 of 3 proved by the digest"
    assert (promotion.phase, promotion.ending) == (Phase.LIVE, says)


async def test_an_argo_cd_that_missed_the_push_is_asked_when_it_is_back(world: World) -> None:
    """It was away for longer than it may take to notice a commit, and then needs but one comparison."""
    world.argocd.deaf = True
    id = await world.committed()
    world.argocd.down = True
    await _follow(world, id, seconds=180)
    world.argocd.down = False
    await _follow(world, id, seconds=20)
    assert "has not noticed the commit yet" in await world.show(id)
    world.argocd.deaf = False
    assert (await world.rest(id)).phase is Phase.LIVE
