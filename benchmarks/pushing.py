"""A commit on the remote against a bare `git push` and against a clone; and how much git and traffic it takes."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from git_hosts import Remote

from benchmarks.remotes import LARGE, MEDIUM, TRANSPORTS, Hosts, Shape, target
from benchmarks.report import Bar, Figure, ratio, say
from benchmarks.writers import BarePush, Bot, Person, Writer, seconds
from bot.integrations.signing import CommitSigner

PUSH_BAR = Bar(limit=1.3)
CLONE_BAR = Bar(limit=40, is_floor=True)
COMMANDS_BAR = Bar(limit=1)
BYTES_BAR = Bar(limit=2000)
CLONES = 5
"""In how many rounds a person takes part: a clone of 10,000 files takes its time."""


def pushes(
    originals: dict[Shape, Remote], hosts: Hosts, folder: Path, *, rounds: int, order: random.Random
) -> Iterator[Figure]:
    """The figures of each size, over each transport."""
    for shape, original in originals.items():
        for transport in TRANSPORTS:
            cell = folder / f"{shape.files}-{transport}"
            cell.mkdir()
            yield from _cell(shape, original, transport, hosts, cell, rounds=rounds, order=order)
            shutil.rmtree(cell)


def _cell(
    shape: Shape,
    original: Remote,
    transport: str,
    hosts: Hosts,
    folder: Path,
    *,
    rounds: int,
    order: random.Random,
) -> Iterator[Figure]:
    """One size over one transport: each writer has a remote of its own, so its copy is always up to date."""
    what, app = f"{shape.name}, {TRANSPORTS[transport]}", shape.apps // 2
    urls = {
        name: hosts.url(hosts.copy(original, f"{name}-{shape.files}-{transport}"), transport)
        for name in ("push", "bot", "signing", "person")
    }
    signers = {"gitops": CommitSigner(Ed25519PrivateKey.generate())}
    with (
        Bot(folder, [target(original, urls["bot"], app)]) as bot,
        Bot(folder, [target(original, urls["signing"], app)], signers=signers) as signing,
    ):
        push = BarePush(urls["push"], folder, app=app)
        person = Person(urls["person"], folder, app=app)
        clones = _clones(shape, transport, rounds)
        taken: dict[Writer, list[float]] = {push: [], bot: [], signing: [], person: []}
        sent = []
        for number in range(rounds):
            writers: list[Writer] = [push, bot, signing, *([person] if number < clones else [])]
            order.shuffle(writers)
            for writer in writers:
                writer.prepare(f"2.0.{number}")
                before = hosts.http.received
                taken[writer].append(seconds(writer.run))
                if writer is bot:
                    sent.append(hosts.http.received - before)
            say(f"  {what}: round {number + 1} of {rounds}")
    yield ratio(f"{what}: a promotion against a bare `git push`", taken[bot], taken[push], bar=PUSH_BAR)
    yield ratio(f"{what}: a signed promotion against one without", taken[signing], taken[bot])
    if clones:
        yield ratio(
            f"{what}: clone, edit, commit, push against a promotion",
            taken[person],
            taken[bot][:clones],
            bar=CLONE_BAR if shape == MEDIUM else None,
        )
    if transport == "http":
        yield Figure(what=f"{what}: bytes sent", values=tuple(sent), unit="per promotion", bar=BYTES_BAR)


def _clones(shape: Shape, transport: str, rounds: int) -> int:
    if shape == LARGE:
        return 1 if transport == "file" else 0
    return min(CLONES, rounds)


def commands(original: Remote, hosts: Hosts, folder: Path, *, rounds: int) -> Iterator[Figure]:
    """How many git commands the bot starts for a promotion, over each transport."""
    for transport in TRANSPORTS:
        cell = folder / f"commands-{transport}"
        url = hosts.url(hosts.copy(original, cell.name), transport)
        counts = []
        with counted(folder) as log, Bot(cell, [target(original, url, 0)]) as bot:
            for number in range(rounds):
                log.write_text("")
                bot.prepare(f"2.0.{number}")
                if not log.read_text():
                    raise RuntimeError("The bot does not call the git that counts.")
                log.write_text("")
                bot.run()
                counts.append(sum(not line.startswith("cat-file") for line in log.read_text().splitlines()))
        yield Figure(
            what=f"{TRANSPORTS[transport]}: git commands",
            values=tuple(counts),
            unit="per promotion",
            bar=COMMANDS_BAR,
        )


@contextmanager
def counted(folder: Path) -> Iterator[Path]:
    """Put a `git` first on the path that writes each command into a file, one a line, and then is git.

    What git starts itself is not counted: git finds its own parts without the path.
    """
    log, shim, before = folder / "commands.log", folder / "bin" / "git", os.environ["PATH"]
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\necho "$*" >>"{log}"\nexec "{shutil.which("git")}" "$@"\n')
    shim.chmod(0o755)
    os.environ["PATH"] = f"{shim.parent}{os.pathsep}{before}"
    try:
        yield log
    finally:
        os.environ["PATH"] = before
