"""The storm: replicas that kill themselves at random, as fast as they are started, while promotions flow all the time."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.faults import ANY, Fault, How
from chaos.reckoning import Promised, aftermath
from chaos.replicas import FIRST, WEB, WORKERS, ReplicatedWorkshop, Team, Times, replicated
from chaos.report import Part

TEAMS = 12
BOTH_EVERY = 2
"""Every second app needs two approvals."""
LONGEST_LIFE = {True: 15, False: 50}
"""At how many crossings at most a process of the web side (True) or a worker is killed."""
READS = {True: ("load", "card", "person"), False: ("load", "card", "look", "events")}
READ_SHARE = 0.15
LOST_SHARE = 0.3
"""How many of the processes lose a reply too, before they are killed."""
TWICE_SHARE = 0.25
"""How many of the commands and clicks are delivered more often than once."""
SETTLES_WITHIN = 120.0
"""Seconds for everything to come to rest when the faults have stopped, with the edits that confirm the cards."""
SAY_EVERY = 15.0


def plan(seed: int, replica: str, number: int) -> list[Fault]:
    """What goes wrong in this process: it loses a reply perhaps, and is killed."""
    random_ = random.Random(f"{seed} {replica} {number}")  # noqa: S311 - to be repeated, no secret
    is_web = replica in WEB
    last = random_.randint(1, LONGEST_LIFE[is_web])
    is_read = random_.random() < READ_SHARE
    call = random_.choice(READS[is_web]) if is_read else ANY
    death = Fault(call=call, nth=last, how=random_.choice((How.BEFORE, How.AFTER)))
    if random_.random() < LOST_SHARE:
        return [Fault(call=ANY, nth=random_.randint(1, last), how=How.LOST), death]
    return [death]


@dataclass(kw_only=True)
class Storm:
    """What goes on in one world until there were enough kills, or the time is up."""

    world: ReplicatedWorkshop
    seed: int
    kills: int
    until: float
    """On the monotonic clock."""
    say: Callable[[str], None]
    promised: list[Promised] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many processes were killed so far."""
        codes = [life.process.returncode for life in self.world.lives]
        return codes.count(-signal.SIGKILL)

    @property
    def is_over(self) -> bool:
        """Do the faults stop?"""
        return self.killed >= self.kills or time.monotonic() >= self.until

    async def rage(self) -> list[str]:
        """Let it all happen, and come to rest; returns what did not."""
        async with asyncio.TaskGroup() as tasks:
            supervisors = [
                tasks.create_task(self.world.keep_running(each, self._plan)) for each in (*WEB, *WORKERS)
            ]
            reporter = tasks.create_task(self._report())
            await self.world.renew()  # the next processes have their faults
            rounds = [tasks.create_task(self._rounds(team)) for team in self.world.teams]
            while not self.is_over:  # noqa: ASYNC110 - it is read from processes and a clock
                await asyncio.sleep(0.1)
            await self.world.renew()  # the next processes have none any more
            late = await self._rest(rounds)
            for task in (*supervisors, reporter, *rounds):
                task.cancel()
        return late

    def _plan(self, replica: str, number: int) -> Sequence[Fault]:
        return () if self.is_over else plan(self.seed, replica, number)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(SAY_EVERY)
            self.say(f"storm: {self.killed} kills, {len(self.promised)} promotions")

    async def _rest(self, rounds: Sequence[asyncio.Task[None]]) -> list[str]:
        """Wait until everybody is at the end of a round and nothing is left to be done."""
        _, late = await asyncio.wait(rounds, timeout=SETTLES_WITHIN)
        unfinished = [f"a round was not at its end within {SETTLES_WITHIN:g} s"] * len(late)
        return unfinished + await self.world.settled(
            [each.id for each in self.promised], within=SETTLES_WITHIN
        )

    # --- what people do

    async def _rounds(self, team: Team) -> None:
        """Version after version, into stage by hand and on from there by promotions."""
        chance = random.Random(f"{self.seed} {team.app}")  # noqa: S311 - to be repeated, no secret
        version = FIRST
        while not self.is_over:
            version += 1
            await self._round(team, version, chance)

    async def _round(self, team: Team, version: int, chance: random.Random) -> None:
        world = self.world
        await world.write(team, version)
        id = await world.ask(team, times=self._times(chance, 2))
        self.promised.append(Promised(id=id, team=team, version=str(version)))
        # Two people press at the same moment, and another replica hears each of them.
        first = [[world.address(replica)] for replica in WEB] if team.needs_both else [[]]
        times = self._times(chance, 3)
        await asyncio.gather(
            *(
                world.approve(id, user, to, times=times)
                for user, to in zip(team.approvers, first, strict=True)
            )
        )
        await world.ended(id)

    def _times(self, chance: random.Random, most: int) -> Times:
        """Now and then a request is delivered as often as `most`, to several replicas."""
        return lambda: most if chance.random() < TWICE_SHARE else 1


async def storm(
    folder: Path,
    *,
    seed: int,
    kills: int,
    minutes: float,
    say: Callable[[str], None],
    teams: int = TEAMS,
) -> Part:
    """One storm in this new folder, and what everything looks like after it."""
    began = time.monotonic()
    crew = [Team(number=number, needs_both=not number % BOTH_EVERY) for number in range(1, teams + 1)]
    async with replicated(folder, crew) as world:
        raging = Storm(world=world, seed=seed, kills=kills, until=began + minutes * 60, say=say)
        late = await raging.rage()
        after = await aftermath(world, raging.promised, late)
        return after.part("storm", seed=seed, seconds=time.monotonic() - began, also={"apps": f"{len(crew)}"})
