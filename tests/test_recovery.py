"""A rollout that failed may come right: for half an hour that is noticed, and told once, in card and thread."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import AMY, MEL, World, world_in

from bot.core.following import WATCH_EVERY, WATCHED_FOR
from bot.core.outcome import Outcome
from bot.core.promotion import Phase
from bot.core.rollout import Stage

PROD = "manual-app-prod"


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def degraded(world: World) -> str:
    """A promotion to prod whose pods crash, and whose card says so."""
    world.argocd.degrade_next_rollout(PROD)
    id = await world.committed()
    await ended(world, id)
    assert (await world.find(id)).outcome is Outcome.DEGRADED
    await world.show(id)
    return id


async def ended(world: World, id: str) -> None:
    while not (await world.find(id)).phase.is_final:
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())


async def approved_and_written(world: World, id: str) -> None:
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.COMMITTED)


async def told(world: World, id: str) -> int:
    """How often the thread says that it recovered."""
    return (await world.thread(id)).count("Recovered")


def recovers(world: World) -> None:
    """The pods serve after all, and Argo CD sees it."""
    world.argocd.recover(PROD)
    for _ in range(10):
        world.passes(0.5)


async def test_a_recovery_is_told_once_in_card_and_thread(world: World) -> None:
    """The card's headline, its first paragraph and its thread; the promotion itself keeps its end."""
    id = await degraded(world)
    assert (await world.shown(id)).startswith("Degraded")
    assert "If it comes right within 30 minutes, I say so here" in await world.shown(id)
    recovers(world)
    promotion = await world.rest(id)
    for _ in range(3):
        world.passes(WATCH_EVERY.total_seconds())
        await world.rest(id)
    shown = await world.shown(id)
    assert shown.startswith("Recovered: manual-app 15 to prod")
    assert "*Recovered* at " in shown
    assert "If it comes right" not in shown
    assert (promotion.phase, promotion.outcome) == (Phase.FAILED, Outcome.DEGRADED)
    assert await told(world, id) == 1


async def test_it_is_looked_at_twice_a_minute(world: World) -> None:
    """Nobody waits longer for the good news, and nobody asks more often."""
    id = await degraded(world)
    world.passes(60)
    assert await world.advance(id) == WATCH_EVERY


@pytest.mark.parametrize(
    ("after", "is_told"),
    [(WATCHED_FOR - timedelta(minutes=2), True), (WATCHED_FOR + timedelta(seconds=1), False)],
    ids=["in time", "too late"],
)
async def test_it_is_watched_for_half_an_hour(world: World, after: timedelta, is_told: bool) -> None:
    """Later it may be anything that put it right, and the card is left as it is."""
    id = await degraded(world)
    ended_at = (await world.find(id)).ended_at
    assert ended_at
    while world.clock.at + WATCH_EVERY < ended_at + after:
        assert await world.advance(id) is not None
        world.passes(WATCH_EVERY.total_seconds())
    world.passes((ended_at + after - world.clock.at).total_seconds())
    recovers(world)
    await world.rest(id)
    assert await told(world, id) == is_told
    assert (await world.shown(id)).startswith("Recovered") is is_told
    assert await world.advance(id) is None


async def test_a_promotion_that_took_its_place_ends_the_watch(world: World) -> None:
    """Its commit decides, before Argo CD has noticed it: the pods that come up then are of no use to anybody."""
    id = await degraded(world)
    world.argocd.deaf = True
    newer = await world.promoter.roll_back(app="manual-app", environment="prod", user=MEL)
    await approved_and_written(world, newer.id)
    recovers(world)
    await world.rest(id)
    world.argocd.deaf = False
    assert (await world.rest(newer.id)).phase is Phase.LIVE
    await world.rest(id)
    assert await told(world, id) == 0
    assert (await world.shown(id)).startswith("Degraded")


async def test_a_promotion_that_is_live_in_its_place_ends_the_watch(world: World) -> None:
    """Also where the watch looks for the first time when the newer one has come to its own end."""
    id = await degraded(world)
    newer = await world.promoter.roll_back(app="manual-app", environment="prod", user=MEL)
    await approved_and_written(world, newer.id)
    assert (await world.rest(newer.id)).phase is Phase.LIVE
    assert await world.store.followed(world.target()) is None
    await world.rest(id)
    assert await told(world, id) == 0


async def test_a_request_alone_does_not_end_the_watch(world: World) -> None:
    """Nobody has approved the rollback yet when the pods come up: whoever decides should know."""
    id = await degraded(world)
    await world.promoter.roll_back(app="manual-app", environment="prod", user=MEL)
    recovers(world)
    await world.rest(id)
    assert await told(world, id) == 1


async def test_a_commit_that_was_reverted_does_not_recover(world: World) -> None:
    """Somebody put the old version back by hand: what is healthy now is not this promotion."""
    id = await degraded(world)
    world.push_by_hand("prod", "14")
    await world.roll_out("prod")
    assert world.argocd.truth(PROD).runs("14")
    promotion = await world.rest(id)
    assert await told(world, id) == 0
    assert promotion.ended_at
    assert world.clock.at < promotion.ended_at + WATCHED_FOR, "nobody looks any longer"
    assert (await world.shown(id)).startswith("Degraded")


async def test_a_revert_that_argo_cd_has_not_noticed_does_not_recover(world: World) -> None:
    """The pods come up at the very moment in which somebody reverts: the last look decides, and it compares anew."""
    id = await degraded(world)
    world.argocd.recover(PROD)
    world.push_by_hand("prod", "14")
    await world.rest(id)
    assert await told(world, id) == 0


async def test_another_process_notices_it(world: World) -> None:
    """The watch is in the store: whoever takes over goes on with it, and tells it once."""
    id = await degraded(world)
    await world.advance(id)
    world.restart()
    recovers(world)
    await world.advance(id)
    world.restart()
    await world.rest(id)
    world.restart()
    await world.rest(id)
    assert await told(world, id) == 1
    assert (await world.shown(id)).startswith("Recovered")


@pytest.mark.parametrize("trouble", ["down", "limited"])
async def test_slack_that_is_away_when_it_recovers_is_told_later(world: World, trouble: str) -> None:
    """The recovery is remembered, and told once when Slack is back, hours later too."""
    id = await degraded(world)
    setattr(world.slack, trouble, True)
    recovers(world)
    for _ in range(30):
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
        if world.clock.at > (await world.find(id)).last.at + timedelta(hours=2):
            break
    assert (await world.store.look(id)).recovered
    setattr(world.slack, trouble, False)
    await world.rest(id)
    assert await told(world, id) == 1
    assert (await world.shown(id)).startswith("Recovered")


async def test_argo_cd_that_is_away_when_it_recovers_is_asked_again(world: World) -> None:
    """Not to see is no recovery; within the half hour it is seen all the same."""
    id = await degraded(world)
    world.argocd.down = True
    recovers(world)
    for _ in range(4):
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    assert await told(world, id) == 0
    world.argocd.down = False
    await world.rest(id)
    assert await told(world, id) == 1


async def test_what_is_healthy_for_a_moment_has_not_recovered(world: World) -> None:
    """It has to stay healthy, as any rollout: one look is not enough."""
    id = await degraded(world)
    recovers(world)
    await world.advance(id)
    assert [each.stage for each in (await world.store.look(id)).watched] == [Stage.CONFIRMING]
    assert await told(world, id) == 0


def _sync_failed(world: World) -> None:
    world.argocd.fail_next_sync(PROD, "exceeded quota")


def _not_noticed(world: World) -> None:
    world.argocd.deaf = True


def _synced_by_hand(world: World) -> None:
    world.argocd.sync(PROD)


def _hears_again(world: World) -> None:
    world.argocd.deaf = False


@pytest.mark.parametrize(
    ("breaks", "mends", "outcome"),
    [
        (_sync_failed, _synced_by_hand, Outcome.SYNC_FAILED),
        (_not_noticed, _hears_again, Outcome.NOT_PICKED_UP),
    ],
)
async def test_whatever_may_heal_is_watched(
    world: World, breaks: Callable[[World], Any], mends: Callable[[World], Any], outcome: Outcome
) -> None:
    """A sync that somebody repeats by hand, an Argo CD that was deaf: each comes right by the same rules."""
    breaks(world)
    id = await world.committed()
    await ended(world, id)
    assert (await world.find(id)).outcome is outcome
    await world.advance(id)
    mends(world)
    await world.rest(id)
    assert await told(world, id) == 1
    assert world.argocd.truth(PROD).runs("15")
