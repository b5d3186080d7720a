"""The matrix: the bot in one process, one promotion, and one fault at each boundary, each in a world of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from chaos.faults import READS, Fault, every
from chaos.lanes import VALUES, Lane
from chaos.report import Part
from chaos.run import Outcome, run
from chaos.world import PACE

SIDE_BY_SIDE = 5
TRIES = 2
LOOKS = READS | {
    *("observe", "relate", "rest", "claim", "renew", "save_look", "is_on_branch", "soak", "keep_group"),
}
"""Calls whose number is a matter of time."""
"""How many runs a boundary has to be reached: the number of calls varies a little with the time that each takes."""


async def matrix(
    folder: Path,
    *,
    seed: int,
    minutes: float,
    say: Callable[[str], None],
    only: Sequence[Fault] = (),
    sample: int | None = None,
    lane: Lane = VALUES,
) -> Part:
    """Run every fault, or those that are named, or a sample; each run in a folder of its own below this one."""
    began = time.monotonic()
    undisturbed = await asyncio.gather(
        *(run(None, folder / f"undisturbed-{number}", lane) for number in range(SIDE_BY_SIDE))
    )
    counted = least([each.counted for each in undisturbed])
    faults = list(only or every(counted))
    random.Random(seed).shuffle(faults)  # noqa: S311 - an order, no secret
    waiting = deque(faults[:sample])
    total, boundaries = len(waiting), sum(counted.values())
    say(f"matrix: {boundaries} boundaries, {total} of {len(faults)} faults, seed {seed}")
    outcomes = list(undisturbed)

    async def take_turns() -> None:
        while waiting and time.monotonic() < began + minutes * 60:
            outcome = await tried(waiting.popleft(), folder, counted, lane)
            outcomes.append(outcome)
            say(f"[{len(outcomes) - SIDE_BY_SIDE}/{total}] {outcome}")

    await asyncio.gather(*(take_turns() for _ in range(SIDE_BY_SIDE)))
    return part(
        outcomes,
        name="matrix" if lane is VALUES else lane.name,
        boundaries=boundaries,
        left=len(waiting),
        seed=seed,
        seconds=time.monotonic() - began,
    )


def least(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """How often each boundary was crossed in every run."""
    return {call: min(each.get(call, 0) for each in counted) for call in sorted(set().union(*counted))}


async def tried(fault: Fault, folder: Path, counted: Mapping[str, int], lane: Lane = VALUES) -> Outcome:
    """The first run in which the fault struck; where it struck in none, the last one, judged."""
    for number in range(TRIES):
        outcome = await run(fault, folder / f"{fault}-{number}".replace(":", "-"), lane)
        if outcome.struck:
            return outcome
    return judged(outcome, counted)


def judged(outcome: Outcome, counted: Mapping[str, int]) -> Outcome:
    """A boundary that was never reached is a violation where the undisturbed runs all come to it.

    How often the bot looks depends on how busy the machine is, so a look that does not come proves nothing.
    """
    fault = outcome.fault
    if fault is None or fault.call in LOOKS or fault.nth > counted.get(fault.call, 0):
        return outcome
    missed = f"the boundary was not reached in {TRIES} runs, and every undisturbed one reaches it"
    return replace(outcome, violations=(*outcome.violations, missed))


def part(
    outcomes: Sequence[Outcome],
    *,
    name: str = "matrix",
    boundaries: int,
    left: int,
    seed: int,
    seconds: float,
) -> Part:
    """What the runs came to; `left` is how many faults there was no time for."""
    struck = [each for each in outcomes if each.fault and each.struck]
    takeovers = [each.takeover for each in struck if each.killed and each.takeover is not None]
    return Part(
        name=name,
        seed=seed,
        lease=PACE.lease_seconds,
        replicas="1",
        kills=sum(each.killed for each in struck),
        lost_replies=sum(not each.killed for each in struck),
        promotions=sum(each.phase != "lost" for each in outcomes),
        commits=sum(each.commits for each in outcomes),
        duplicates=sum(max(0, each.commits - 1) for each in outcomes),
        lost=sum(each.phase == "lost" for each in outcomes),
        wrong_phases=sum(each.phase not in ("live", "lost") for each in outcomes),
        copies=sum(each.copies for each in outcomes),
        repeats=sum(each.repeats for each in outcomes),
        takeover=max(takeovers, default=None),
        seconds=seconds,
        violations=tuple(
            f"{each.fault or 'undisturbed'}: {violation}"
            for each in outcomes
            for violation in each.violations
        ),
        also={
            "boundaries": f"{boundaries}",
            "worlds": f"{len(outcomes)}",
            "boundaries not reached": _named([each for each in outcomes if each.fault and not each.struck]),
            "faults without time for a run": f"{left}",
            "copies of cards after": _named([each for each in outcomes if each.copies]),
            "lines told twice after": _named([each for each in outcomes if each.repeats]),
        },
        details=[asdict(each) | {"fault": str(each.fault or "")} for each in outcomes],
    )


def _named(outcomes: Sequence[Outcome]) -> str:
    """The faults of these runs."""
    return ", ".join(f"`{each.fault}`" for each in outcomes) or "0"
