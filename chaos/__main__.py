"""`make chaos`: kill the bot at every boundary, check every promotion, and write `build/chaos.md` and `.json`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from chaos.faults import Fault, every, parse
from chaos.report import write
from chaos.run import run

SIDE_BY_SIDE = 2


def main() -> int:
    """Run everything; 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--only", action="append", type=_fault, help="this fault: save-committing:1:after")
    parser.add_argument("--sample", type=int, help="as many faults, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1, help="of the order, and so of the sample")
    parser.add_argument("--minutes", type=float, default=39, help="no run begins later than this")
    options = parser.parse_args()
    return asyncio.run(_all(options.only, options.sample, seed=options.seed, minutes=options.minutes))


def _fault(text: str) -> Fault:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _all(only: Sequence[Fault] | None, sample: int | None, *, seed: int, minutes: float) -> int:
    until = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        undisturbed = await run(None, folder / "undisturbed")
        faults = list(only or every(undisturbed.counted))
        random.Random(seed).shuffle(faults)  # noqa: S311 - an order, no secret
        waiting = deque(faults[:sample])
        boundaries = sum(undisturbed.counted.values())
        _say(f"{undisturbed}\n{boundaries} boundaries, {len(waiting)} of {len(faults)} faults, seed {seed}")
        outcomes = [undisturbed]
        total = len(waiting)

        async def take_turns() -> None:
            while waiting and time.monotonic() < until:
                fault = waiting.popleft()
                outcome = await run(fault, folder / str(fault))
                outcomes.append(outcome)
                _say(f"[{len(outcomes) - 1}/{total}] {outcome}")

        await asyncio.gather(*(take_turns() for _ in range(SIDE_BY_SIDE)))
    figures = write(
        outcomes, Path("build"), boundaries=boundaries, left=[str(each) for each in waiting], seed=seed
    )
    _say("\n".join(f"{what}: {value}" for what, value in figures.items()))
    return int(any(each.violations for each in outcomes))


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
