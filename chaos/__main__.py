"""`make chaos`: kill the bot wherever it can be killed, check every promotion, and write `build/chaos.md` and `.json`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from chaos.faults import Fault, parse
from chaos.lanes import BRANCHED, HOOK, PULL, TAG, VALUES, Lane
from chaos.lease import lease
from chaos.matrix import matrix
from chaos.races import race
from chaos.report import Part, write
from chaos.rollouts import rollouts
from chaos.storm import storm

Options = argparse.Namespace


def main() -> int:
    """Run everything; 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="this part; without it, all of them")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance")
    parser.add_argument(
        "--minutes", type=float, default=14, help="no fault begins later than this, in each part"
    )
    parser.add_argument("--kills", type=int, default=900, help="of the storm")
    parser.add_argument("--schedules", type=int, default=5000, help="of the rollouts")
    parser.add_argument(
        "--only",
        action="append",
        type=_one,
        default=[],
        help="of the matrix: save-committing:1:after; of the rollouts: a seed",
    )
    parser.add_argument("--sample", type=int, help="of the matrix: as many faults, chosen by the seed")
    options = parser.parse_args()
    names = options.part or _meant(options)
    return asyncio.run(_all({name: PARTS[name] for name in names}, options))


def _meant(options: Options) -> list[str]:
    """The parts that the other options are for; without such options, all of them."""
    if options.only or options.sample:
        is_seed = options.only and all(isinstance(each, int) for each in options.only)
        return ["rollouts" if is_seed else "matrix"]
    return list(PARTS)


def _one(text: str) -> Fault | int:
    """A fault of the matrix, or the seed of a schedule."""
    if text.isdecimal():
        return int(text)
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


async def _matrix(folder: Path, options: Options, lane: Lane = VALUES) -> Part:
    return await matrix(
        folder,
        seed=options.seed,
        minutes=options.minutes,
        say=_say,
        only=[each for each in options.only if isinstance(each, Fault)],
        sample=options.sample,
        lane=lane,
    )


async def _pull(folder: Path, options: Options) -> Part:
    return await _matrix(folder, options, PULL)


async def _hook(folder: Path, options: Options) -> Part:
    return await _matrix(folder, options, HOOK)


async def _branch(folder: Path, options: Options) -> Part:
    return await _matrix(folder, options, BRANCHED)


async def _tag(folder: Path, options: Options) -> Part:
    return await _matrix(folder, options, TAG)


async def _storm(folder: Path, options: Options) -> Part:
    return await storm(folder, seed=options.seed, kills=options.kills, minutes=options.minutes, say=_say)


async def _lease(folder: Path, options: Options) -> Part:  # noqa: ARG001 - it has nothing to choose
    return await lease(folder, say=_say)


async def _races(folder: Path, options: Options) -> Part:  # noqa: ARG001 - it makes a folder of its own
    found = await asyncio.to_thread(race, seed=options.seed)
    _say(found.table)
    return Part(
        name="races",
        seed=found.seed,
        replicas="8",
        promotions=sum(found.phases.values()),
        commits=found.commits,
        seconds=found.seconds,
        violations=tuple(f"{rule}: {each}" for rule, broken in found.violations.items() for each in broken),
        also={"commands": f"{sum(found.answers.values())}"},
    )


async def _rollouts(folder: Path, options: Options) -> Part:  # noqa: ARG001 - each process makes one of its own
    seeds = [each for each in options.only if isinstance(each, int)]
    return await asyncio.to_thread(
        rollouts, seed=options.seed, schedules=options.schedules, only=seeds, say=_say
    )


PARTS: Mapping[str, Callable[[Path, Options], Awaitable[Part]]] = {
    "matrix": _matrix,
    "pull": _pull,
    "hook": _hook,
    "branch": _branch,
    "tag": _tag,
    "storm": _storm,
    "lease": _lease,
    "races": _races,
    "rollouts": _rollouts,
}
"""Each part runs in a new folder of its own, one after the other, and is a column of the table."""


async def _all(chosen: Mapping[str, Callable[[Path, Options], Awaitable[Part]]], options: Options) -> int:
    parts = []
    me = asyncio.current_task()
    if me is not None:  # told to end, it ends its worlds first
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        for part, run in chosen.items():
            _say(f"{part}, seed {options.seed}")
            parts.append(await run(Path(name) / part, options))
    _say(write(parts, Path("build")))
    return int(any(part.violations for part in parts))


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
