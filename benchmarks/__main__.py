"""`make bench`: measure, print each figure beside its bar, and write `build/bench.md` and `build/bench.json`."""

import argparse
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from git_hosts import http_host

from benchmarks.burst import burst
from benchmarks.editing import edits
from benchmarks.pushing import commands, pushes
from benchmarks.remotes import LARGE, MEDIUM, SMALL, Hosts
from benchmarks.report import Figure, say, write
from benchmarks.rollouts import told
from benchmarks.store import kept

ROUND_TRIP = 0.03
"""Seconds; every request costs one, every new connection three."""
FEW = 5
"""The rounds of what takes long."""


def main() -> None:
    """Run everything; a missed bar is told, and is no error."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often everything is measured")
    parser.add_argument("--quick", action="store_true", help="two rounds, without the largest repository")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds

    figures = []
    for figure in measured(rounds=rounds, is_quick=options.quick):
        say(str(figure))
        figures.append(figure)
    write(figures, Path("build"), rounds=rounds)
    barred = [figure for figure in figures if figure.bar]
    missed = sum(figure.verdict == "MISSED" for figure in barred)
    say(f"{len(barred) - missed} of {len(barred)} bars hold, {missed} missed; see build/bench.md")


def measured(*, rounds: int, is_quick: bool) -> Iterator[Figure]:
    """Every figure, as soon as it is known."""
    order = random.Random(1)  # noqa: S311
    few = min(FEW, rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = (SMALL, MEDIUM) if is_quick else (SMALL, MEDIUM, LARGE)
        originals = {}
        for shape in shapes:
            say(f"  building a repository of {shape.name}")
            originals[shape] = shape.build(folder / f"{shape.files}.git")
        (folder / "hosts").mkdir()
        with http_host(folder / "hosts", round_trip=ROUND_TRIP) as http:
            hosts = Hosts(folder / "hosts", http)
            yield from pushes(originals, hosts, folder, rounds=rounds, order=order)
            yield from burst(MEDIUM, originals[MEDIUM], hosts, folder, rounds=few, order=order)
            yield from commands(originals[SMALL], hosts, folder, rounds=few)
    yield from edits(rounds=rounds, order=order)
    with tempfile.TemporaryDirectory() as name:
        yield from kept(Path(name), rounds=rounds)
    yield from told(rounds=rounds)


if __name__ == "__main__":
    main()
