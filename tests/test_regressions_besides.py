"""What is merged with a pull request beside what was approved: doors that were open once, and stay shut."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from forges import KINDS, host
from redis.asyncio import Redis
from test_pull_requests_of_promotions import Place
from test_pull_requests_truth import (
    MORE,
    UNSEEN,
    VALUES,
    WAYS,
    assert_silent,
    assert_told,
    followed,
    proposed_text,
    pushed,
    told_of,
    trouble,
)
from world import push, world_in

from bot.core.ports import PullRequest, PullState
from bot.core.promotion import Phase
from bot.core.proposing import NAMELESS, SEEN_WITHIN
from bot.core.reconciling import Reconciling
from bot.playground import repository as sample
from bot.playground.forge.server import SQUASH, Trouble

LISTS = {"github": "/repos/acme/gitops/pulls", "gitlab": "/api/v4/projects/acme/gitops/merge_requests"}


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with (
        world_in(tmp_path / "world", redis_url) as world,
        host(request.param, world.repository) as forge,
    ):
        forge.fake.protect()
        forge.fake.now = world.clock.now
        made = Place(world=world, forge=forge)
        made.use("pr")
        yield made


@dataclass(slots=True, kw_only=True)
class Late:
    """A host that tells of a pull request as it was before, for as many questions as are `left`."""

    place: Place
    head: str
    left: int = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place.forge.pulls, name)

    async def find(self, edit: Any) -> PullRequest | None:
        """The pull request, open and with its older head at first."""
        found = await self.place.forge.pulls.find(edit)
        self.left -= 1
        if found is None or self.left < 0:
            return found
        return replace(found, state=PullState.OPEN, revision=None, head=self.head)


async def test_a_host_that_is_behind_with_the_head_too_is_waited_for(place: Place) -> None:
    """It says for a moment that the pull request is open at the bot's own commit, and more was merged already."""
    id = await place.opened()
    head = (await place.world.find(id)).proposed
    assert head is not None
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    place.world.parts = replace(place.world.parts, pulls=Late(place=place, head=head))  # type: ignore[arg-type]
    place.world.engine = place.world.new_engine()
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


async def test_a_host_that_lists_no_pull_request_for_a_moment_is_asked_again(place: Place) -> None:
    """The record knows its page, so an empty list is no proof that our commit came by itself."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    path = LISTS[place.forge.kind]
    place.forge.fake.troubles.append(Trouble(begins=f"GET {path}", status=200, body=[]))
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


@pytest.mark.parametrize("method", WAYS)
async def test_the_approved_lines_at_another_place_are_more(place: Place, method: str) -> None:
    """A neighbour in the same file got the version, by a diff of the very lines that the card showed."""
    text = sample.read_file(place.world.repository, VALUES)
    [line] = [each for each in text.splitlines() if '"14"' in each]
    push(place.world.repository, {VALUES: f"{text}neighbour:\n{line}\n"})
    id = await place.opened()
    ours, mark, theirs = proposed_text(place).partition("neighbour:")
    pushed(place, {VALUES: ours.replace('"15"', '"14"') + mark + theirs.replace('"14"', '"15"')})
    place.forge.fake.merge_by_hand(1, method=method)
    await place.until(id, lambda found: found.phase.is_final)
    await place.world.rest(id)
    await assert_told(place, id, VALUES)


async def test_the_approved_line_beside_an_equal_one_is_nothing_more(place: Place) -> None:
    """Whoever else has that line keeps it: an updated branch brings what was approved, and that alone."""
    text = sample.read_file(place.world.repository, VALUES)
    [line] = [each for each in text.splitlines() if '"14"' in each]
    push(place.world.repository, {VALUES: f"{text}neighbour:\n{line}\n"})
    id = await place.opened()
    place.world.push_by_hand("dev", "17")
    place.forge.fake.update_by_hand(1)
    place.forge.fake.merge_by_hand(1, method=SQUASH)
    await followed(place, id)
    await assert_silent(place, id)


async def test_a_host_that_asks_to_wait_long_is_not_waited_for(place: Place) -> None:
    """What is on the branch rolls out meanwhile: it is followed within a minute, and the doubt is told."""
    id = await place.opened()
    place.forge.fake.merge_by_hand(1)
    limit = Trouble(
        begins=f"GET {LISTS[place.forge.kind]}",
        status=429,
        body={"message": "too many"},
        headers={"Retry-After": "3000"},
        times=1000,
    )
    place.forge.fake.troubles.append(limit)
    before = place.world.clock.now()
    committed = await place.until(id, lambda found: found.phase is Phase.COMMITTED)
    assert committed.last.at - before <= SEEN_WITHIN + timedelta(seconds=30)
    await followed(place, id)
    [told] = await told_of(place, id)
    assert UNSEEN in told


async def test_an_outage_before_the_merge_does_not_count(place: Place) -> None:
    """Whoever was away for long and is back has a minute of its own to show what was merged."""
    id = await place.opened()
    away = Trouble(begins=f"GET {LISTS[place.forge.kind]}", status=503, body={"message": "away"}, times=1000)
    place.forge.fake.troubles.append(away)
    for _ in range(9):
        await place.step(id)
    place.forge.fake.troubles.clear()
    place.world.push_by_hand("dev", "17")
    place.forge.fake.update_by_hand(1)
    place.forge.fake.merge_by_hand(1)
    trouble(place, times=1)
    await followed(place, id)
    await assert_silent(place, id)


async def test_a_file_whose_name_nobody_sees_is_more(place: Place) -> None:
    """A name of nothing but hidden characters does not turn what is known into a doubt."""
    id = await place.opened()
    pushed(place, {"\u200b": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    [told] = await told_of(place, id)
    assert MORE in told
    assert NAMELESS in told


async def test_the_doubt_stands_in_the_words_without_blocks_too(place: Place) -> None:
    """Who has the card read out, or sees the notification alone, hears that nobody could see."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    trouble(place, times=1000)
    await followed(place, id)
    assert UNSEEN in (await place.world.card(id)).text


async def test_a_host_that_is_away_keeps_no_lost_record_from_being_found(place: Place) -> None:
    """What came before it on the branch is compared all the same, and it goes on by itself a little later."""
    world = place.world
    lost = await world.request("stage")
    await place.until(lost, lambda found: found.phase.is_final)
    await world.rest(lost)
    place.forge.fake.required_reviews = 1
    id = await world.approved()
    await place.until(id, lambda found: found.pull_request is not None)
    pushed(place, {"more.yaml": "a: 1\n"}, branch=f"promote/{id}")
    place.forge.fake.merge_by_hand(2)
    async with Redis.from_url(world.redis_url) as client:
        await client.delete(*[key async for key in client.scan_iter(f"*{lost}*")])
    limit = Trouble(begins=f"GET {LISTS[place.forge.kind]}", status=403, body={"message": "no"}, times=1000)
    place.forge.fake.troubles.append(limit)
    world.restart()
    told = await Reconciling(engine=world.engine).reconcile()
    assert any(id in each and "cannot" in each for each in told)
    assert any(lost in each and "recorded anew" in each for each in told)
    assert (await world.find(lost)).version == "16"
