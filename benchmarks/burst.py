"""Many promotions of one branch at once."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from git_hosts import Remote

from benchmarks.remotes import TRANSPORTS, Hosts, Shape, target
from benchmarks.report import Bar, Figure, ratio, say
from benchmarks.writers import Bot, lost, seconds

BURST_BAR = Bar(limit=6)
LOST_BAR = Bar(limit=0)
APPS = 50


def burst(
    shape: Shape, original: Remote, hosts: Hosts, folder: Path, *, rounds: int, order: random.Random
) -> Iterator[Figure]:
    """Fifty apps at once, against one app and against fifty in turn, over HTTP; and what of it was lost."""
    with ExitStack() as open_bots:

        def bot(name: str, apps: int) -> tuple[Bot, Path]:
            copy = hosts.copy(original, f"burst-{name}")
            url = hosts.url(copy, "http")
            targets = [target(original, url, app) for app in range(apps)]
            return open_bots.enter_context(Bot(folder / f"burst-{name}", targets)), copy

        one, at_once, in_turn = bots = (bot("one", 1), bot("at-once", APPS), bot("in-turn", APPS))
        jobs = {"one": one[0].run, "at once": at_once[0].run, "in turn": in_turn[0].run_in_turn}
        taken: dict[str, list[float]] = {name: [] for name in jobs}
        for number in range(rounds):
            for each, _ in bots:
                each.prepare(f"2.0.{number}")
            for name in order.sample(list(jobs), len(jobs)):
                taken[name].append(seconds(jobs[name]))
            say(f"  {APPS} at once: round {number + 1} of {rounds}")
        what = f"{shape.name}, {TRANSPORTS['http']}"
        yield ratio(
            f"{what}: {APPS} promotions at once against one", taken["at once"], taken["one"], bar=BURST_BAR
        )
        yield ratio(
            f"{what}: {APPS} promotions one after another against at once", taken["in turn"], taken["at once"]
        )
        yield Figure(
            what="commits and values lost, of all these",
            values=(float(sum(lost(copy, each) for each, copy in bots)),),
            unit=f"of {sum(len(each.promotions) for each, _ in bots)}",
            bar=LOST_BAR,
        )
