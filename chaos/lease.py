"""A worker is killed in the middle of a push, and one in the middle of a rollout: the other one takes the work over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from chaos.faults import What
from chaos.reckoning import Promised, aftermath
from chaos.replicas import FIRST, WORKERS, ReplicatedWorkshop, Team, replicated
from chaos.report import Part

LEASE = 15
"""Seconds; what the bot has where nobody sets another."""
WITHIN = 120.0
"""Seconds for one promotion."""
LOOK_EVERY = 0.005
MOMENTS = {"mid-push": "commit", "mid-rollout": "observe"}
"""When the worker is killed that is at work: after this call has begun, and before it has ended."""
SLOW_HOST = "#!/bin/sh\nsleep 0.5\n"
"""A hook of the git host, so that a push lasts long enough to be hit."""


async def lease(folder: Path, *, say: Callable[[str], None], seconds: int = LEASE) -> Part:
    """Both, one after the other, in this new folder, with a lease of so many seconds."""
    began = time.monotonic()
    team, promised = Team(number=1), []
    async with replicated(folder, [team], lease_seconds=seconds) as world:
        hook = world.repository / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(SLOW_HOST, encoding="utf-8")
        hook.chmod(0o700)
        for version, (moment, call) in enumerate(MOMENTS.items(), start=FIRST + 1):
            async with asyncio.timeout(WITHIN):
                id = await _survived(world, team, version, call)
            say(f"lease of {seconds} s: {id} survived that its worker was killed {moment}")
            promised.append(Promised(id=id, team=team, version=str(version)))
        late = await world.settled([each.id for each in promised], within=WITHIN)
        after = await aftermath(world, promised, late)
        took = {
            f"taken over, killed {moment}": "never" if waited is None else f"{waited:.1f} s"
            for moment, waited in zip(MOMENTS, after.takeovers.values(), strict=False)
        }
        return after.part(f"lease of {seconds} s", seconds=time.monotonic() - began, also=took)


async def _survived(world: ReplicatedWorkshop, team: Team, version: int, call: str) -> str:
    """A promotion that goes live although its worker is killed at this call, and stays away."""
    await world.write(team, version)
    id = await world.ask(team)
    approving = asyncio.gather(*(world.approve(id, user) for user in team.approvers))
    victim = await _at(world, call)
    await world.kill(victim)
    await approving
    await world.ended(id)
    world.begin(victim)
    return id


async def _at(world: ReplicatedWorkshop, call: str) -> str:
    """The worker that is in the middle of this call, as soon as one is."""
    while True:
        for replica in WORKERS:
            whats = [each.what for each in world.living(replica).crossings if each.call == call]
            if whats and whats[-1] == What.BEGINS:
                return replica
        await asyncio.sleep(LOOK_EVERY)
