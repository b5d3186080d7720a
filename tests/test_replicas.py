"""The bot as several processes on one store: what reaches two of them at once happens once, and a dead one is replaced."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bot.playground.workshop import CHANNEL
from chaos.faults import ANY, How
from chaos.lease import lease
from chaos.reckoning import Aftermath, Promised, aftermath
from chaos.replicas import FIRST, WEB, WORKERS, ReplicatedWorkshop, Team, replicated
from chaos.storm import plan, storm

TEAMS = AT_ONCE, PRESSED, TYPED = (Team(number=1, needs_both=True), Team(number=2), Team(number=3))
VERSION = FIRST + 1
SETTLES_WITHIN = 60.0
SEED = 4

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("replicas")]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One world when everything in it has come to rest, and the promotion of each team."""

    world: ReplicatedWorkshop
    ids: dict[Team, str]
    after: Aftermath

    async def approvals(self, team: Team) -> list[str | None]:
        """Who approved the team's promotion, as often as it was recorded."""
        events = await self.world.store.events(self.ids[team])
        return [event.by for event in events if event.what == "approval"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    """Two approvals at the same moment, a click that comes three times, and a command that comes twice."""
    async with replicated(tmp_path_factory.mktemp("replicas") / "world", TEAMS) as world:
        await asyncio.gather(*(world.write(team, VERSION) for team in TEAMS))
        one, two = (world.address(replica) for replica in WEB)
        asking = ((AT_ONCE, [one]), (PRESSED, [two]), (TYPED, [one, two]))
        ids = dict(zip(TEAMS, await asyncio.gather(*(world.ask(*each) for each in asking)), strict=True))
        amy, ben = AT_ONCE.approvers
        await asyncio.gather(
            world.approve(ids[AT_ONCE], amy, [one]),
            world.approve(ids[AT_ONCE], ben, [two]),
            world.approve(ids[PRESSED], PRESSED.people["amy"], [one, two, one]),
            world.approve(ids[TYPED], TYPED.people["amy"], [two]),
        )
        for id in ids.values():
            await world.ended(id)
        late = await world.settled(list(ids.values()), within=SETTLES_WITHIN)
        promised = [Promised(id=id, team=team, version=str(VERSION)) for team, id in ids.items()]
        yield Told(world=world, ids=ids, after=await aftermath(world, promised, late))


async def test_replicas_keep_every_rule(told: Told) -> None:
    """Four processes on one store, and nothing goes wrong: no rule is broken, and nothing stands twice."""
    part = told.after.part("replicas", seconds=0)
    assert not part.violations, "\n".join(part.violations)
    assert (part.promotions, part.commits, part.copies, part.repeats) == (3, 3, 0, 0)


async def test_two_approvals_at_the_same_moment_both_count(told: Told) -> None:
    """Amy and Ben press at the same instant, each heard by another replica: two approvals and one commit."""
    assert set(await told.approvals(AT_ONCE)) == set(AT_ONCE.approvers)
    assert len(await told.approvals(AT_ONCE)) == 2
    assert len(told.after.commits[told.ids[AT_ONCE]]) == 1


async def test_one_click_that_arrives_three_times_is_one_approval(told: Told) -> None:
    """The deliveries after the first may say at most that it was done before."""
    amy, id = PRESSED.people["amy"], told.ids[PRESSED]
    assert await told.approvals(PRESSED) == [amy]
    answers = [each.text for each in told.world.slack.ephemerals(amy)]
    assert len(answers) <= 2
    for answer in answers:
        assert re.match(f":no_entry_sign: You (have already approved|cannot approve) {id}", answer)


async def test_one_command_that_reaches_two_replicas_makes_one_promotion(told: Told) -> None:
    """Both replicas answer with the same id, and nothing is in anybody's way."""
    dana, id = TYPED.people["dana"], told.ids[TYPED]
    answer = f"`{id}`: asked for {TYPED.app} {VERSION} to prod. Its card is in <#{CHANNEL}>."
    # Stage may become live between the two looks: then she tries again, and hears that her own promotion is there.
    refusals = (
        f"*{TYPED.app}* `{VERSION}` cannot go to *prod* now. Nothing was recorded.\n:no_entry: stage is not live",
        f":no_entry_sign: {TYPED.app} in prod is held by {id}, ",
    )
    answers = {each.text for each in told.world.slack.ephemerals(dana)}
    assert {each for each in answers if not each.startswith(refusals)} == {answer}
    assert [each.promotion.id for each in told.after.kept.values() if each.promotion.app == TYPED.app] == [id]


async def test_a_worker_that_dies_at_work_is_replaced(tmp_path: Path) -> None:
    """Killed in the middle of a push, and of a rollout: the other worker goes on when the lease is over."""
    found = await lease(tmp_path / "world", say=print, seconds=1)
    assert (found.violations, found.kills, found.promotions, found.commits) == ((), 2, 2, 2)
    assert found.takeover is not None


async def test_a_storm_of_kills_leaves_every_promotion_in_order(tmp_path: Path) -> None:
    """Replicas that kill themselves again and again: every promotion ends as it should, and every rule is kept."""
    found = await storm(tmp_path / "world", seed=SEED, kills=25, minutes=2, teams=8, say=print)
    assert not found.violations, "\n".join([f"seed {SEED}", *found.violations])
    assert found.kills >= 25, f"seed {SEED}"
    assert found.promotions == found.commits > 0
    assert (found.lost, found.duplicates, found.wrong_phases) == (0, 0, 0)


async def test_a_storm_can_be_repeated_from_its_seed() -> None:
    """The faults of a process follow from the seed, its replica and its number; each process is killed once."""
    plans = [
        plan(seed, replica, number)
        for seed in (1, 2)
        for replica in (*WEB, *WORKERS)
        for number in range(1, 40)
    ]
    again = [
        plan(seed, replica, number)
        for seed in (1, 2)
        for replica in (*WEB, *WORKERS)
        for number in range(1, 40)
    ]
    assert plans == again
    assert all(sum(fault.how.kills for fault in faults) == 1 for faults in plans)
    assert {fault.how for faults in plans for fault in faults} == set(How)
    assert len({(fault.call, fault.nth) for faults in plans for fault in faults if fault.call == ANY}) > 40
