"""Two real processes and a stranger push to one branch at the same time: nothing is lost, nothing is done twice."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from git_bench import BOT, edit_of
from git_hosts import ROOM, HttpHost, Remote, http_host

from bot.core.errors import Unavailable
from bot.core.ports import Edit
from bot.integrations.gitops import GitRepository

APPS = 20
WRITERS = 2
TRIES = 8
README = "README.md"
FEWEST_PUSHES = 6
SECONDS_TO_START = 20
SECONDS = 25
STRANGER = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "Stranger"), ("EMAIL", "stranger@acme.example"))
}

pytestmark = [pytest.mark.timeout(60), pytest.mark.xdist_group("races")]


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remote.git")
    made.push({path_of(number): values(number, "v14") for number in range(APPS)})
    return made


@pytest.fixture
def host(remote: Remote) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent) as made:
        yield made


def path_of(number: int) -> str:
    return f"apps/app-{number:02}/values.yaml"


def values(number: int, version: str) -> str:
    return f"image:\n  repository: acme/app-{number:02}\n  tag: {version}  # of app {number}\nreplicas: 3\n"


def promotion(remote: Remote, host: HttpHost, number: int) -> Edit:
    target = remote.target(host.url(), keys=("image.tag",))
    target = replace(target, app=f"app-{number:02}", path=path_of(number))
    return edit_of(target, remote.tip, promotion=f"P-{number:010}")


# --- one writer: a process of its own


async def write(edits: Sequence[Edit], cache: Path) -> dict[str, str]:
    """Carry out all edits side by side when told to; the revision of each by its promotion."""
    async with aclosing(
        GitRepository(cache=cache, committer=BOT, allow_local=frozenset({"gitops"}), timeout=10)
    ) as repository:
        await repository.plan(edits[0].target, edits[0].new)
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        sys.stdin.readline()
        revisions = await asyncio.gather(*(settle(repository, edit) for edit in edits))
    return {edit.promotion: revision for edit, revision in zip(edits, revisions, strict=True)}


async def settle(repository: GitRepository, edit: Edit) -> str:
    """As the engine does it: where the outcome is open the branch is asked, and only then it is tried again."""
    for _ in range(TRIES):
        with suppress(Unavailable):
            return await repository.commit(edit)
        with suppress(Unavailable):
            if found := await repository.find(edit):
                return found
    raise RuntimeError(f"{edit.promotion} never got through")


def main(edits_file: str, cache: str) -> None:
    edits = pickle.loads(Path(edits_file).read_bytes())
    print(json.dumps(asyncio.run(write(edits, Path(cache)))))  # noqa: T201 - the parent reads it


def run_writers(folder: Path, shares: Sequence[Sequence[Edit]]) -> list[dict[str, str]]:
    """Start a process for each share, let all of them go at once, and collect what they say."""
    writers = [start_writer(folder / f"writer-{number}", share) for number, share in enumerate(shares)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        return [json.loads(said) for said in asyncio.run(go(writers))]
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


async def go(writers: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """Each writer's last words."""
    ends = (asyncio.to_thread(writer.communicate, "go\n", SECONDS) for writer in writers)
    return [said for said, _ in await asyncio.gather(*ends)]


def start_writer(folder: Path, share: Sequence[Edit]) -> "subprocess.Popen[str]":
    folder.mkdir()
    (folder / "edits").write_bytes(pickle.dumps(share))
    here = Path(__file__)
    return subprocess.Popen(
        [sys.executable, here, folder / "edits", folder / "cache"],
        env=os.environ | {"PYTHONPATH": str(here.parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- the stranger


class Stranger:
    """Somebody with plain git, who pushes a line to one file after the other whenever it hurts us most."""

    def __init__(self, remote: Remote, folder: Path, paths: Sequence[str]) -> None:
        self.folder = folder
        self.accepted: list[str] = []
        self.lines: dict[str, list[str]] = {path: [] for path in paths}
        self._paths = cycle(paths)
        self._alone = threading.Lock()
        self.git("clone", "-q", str(remote.folder), str(folder), at=remote.folder)

    def get_in_between(self) -> None:
        """Commit one line on the newest tip and push it, unless somebody else is faster."""
        with self._alone:
            path, line = next(self._paths), f"# note {len(self.accepted)}\n"
            self.git("fetch", "-q", "origin", "main")
            self.git("reset", "-q", "--hard", "FETCH_HEAD")
            with (self.folder / path).open("a") as file:
                file.write(line)
            self.git("commit", "-q", "-a", "-m", "Note")
            if self.git("push", "-q", "origin", "HEAD:main", check=False).returncode == 0:
                self.accepted.append(self.git("rev-parse", "HEAD").stdout.strip())
                self.lines[path].append(line)

    def git(
        self, *arguments: str, at: Path | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["git", *arguments],
            cwd=at or self.folder,
            env=ROOM | STRANGER,
            capture_output=True,
            text=True,
            check=check,
        )


class Trouble:
    """What happens to the pushes that a host hears, in turn: overtaken by the stranger, taken, or left unanswered."""

    def __init__(self) -> None:
        self.of_advertisements = cycle([None, None, "overtake"])
        self.of_pushes = cycle([*["overtake"] * 3, None, *["overtake"] * 3, "cut"])
        self.cuts = 0

    def at(self, path: str) -> str | None:
        """What happens to a request for this address."""
        if "info/refs?service=git-receive-pack" in path:
            return next(self.of_advertisements)
        return next(self.of_pushes) if "/git-receive-pack" in path else None


@contextmanager
def troubled(host: HttpHost, stranger: Stranger) -> Iterator[Trouble]:
    """Within the block the host's pushes are in trouble."""
    plain = host.RequestHandlerClass
    trouble = Trouble()

    class Troubled(plain):  # type: ignore[misc, valid-type]
        is_cut = False

        def serve(self, body: bytes) -> None:
            kind = trouble.at(self.path)
            if kind == "overtake":
                stranger.get_in_between()
            self.is_cut = kind == "cut"
            super().serve(body)

        def reply(self, *answer: Any) -> None:
            if self.is_cut:
                trouble.cuts += 1
                self.close_connection = True
                return
            super().reply(*answer)

    host.RequestHandlerClass = Troubled
    yield trouble
    host.RequestHandlerClass = plain


def of_the_bot(remote: Remote) -> Counter[str]:
    """How many commits of ours each promotion has."""
    log = remote.git(
        "log", "--format=%cn <%ce>|%(trailers:key=Promotion-Id,valueonly,separator=%x2c)", "main"
    )
    records = [line.partition("|") for line in log.splitlines()]
    return Counter(id for committer, _, id in records if committer == f"{BOT.name} <{BOT.email}>")


def history(remote: Remote) -> set[str]:
    return set(remote.git("rev-list", "main").split())


def test_promotions_and_a_stranger_leave_no_trace_on_one_another(
    remote: Remote, host: HttpHost, tmp_path: Path
) -> None:
    """Each promotion is one commit and one value, and every line that the stranger got accepted is there."""
    edits = [promotion(remote, host, number) for number in range(APPS)]
    shares = [edits[number::WRITERS] for number in range(WRITERS)]
    noted = [README, path_of(0), README, path_of(1), README, path_of(APPS - 1)]
    stranger = Stranger(remote, tmp_path / "stranger", noted)
    with troubled(host, stranger) as trouble:
        told = run_writers(tmp_path, shares)
    revisions = {id: revision for said in told for id, revision in said.items()}
    assert of_the_bot(remote) == {str(edit.promotion): 1 for edit in edits}
    assert set(revisions) == {str(edit.promotion) for edit in edits}
    assert history(remote) >= {*revisions.values(), *stranger.accepted}
    assert len(history(remote)) == 2 + len(edits) + len(stranger.accepted)
    for number in range(APPS):
        notes = "".join(stranger.lines.get(path_of(number), []))
        assert remote.text(path_of(number)) == values(number, "v15") + notes
    assert remote.text(README) == "hello\n" + "".join(stranger.lines[README])
    assert len(stranger.accepted) >= FEWEST_PUSHES
    assert trouble.cuts
    remote.git("fsck", "--strict", "--no-dangling")


def test_one_edit_in_two_processes_is_one_commit(remote: Remote, host: HttpHost, tmp_path: Path) -> None:
    """Both begin the same edits at the same moment, in another order, and are told of the same commits."""
    edits = [promotion(remote, host, number) for number in range(4)]
    stranger = Stranger(remote, tmp_path / "stranger", [README])
    with troubled(host, stranger):
        first, second = run_writers(tmp_path, [edits, edits[::-1]])
    assert first == second
    assert of_the_bot(remote) == {str(edit.promotion): 1 for edit in edits}
    assert history(remote) >= {*first.values(), *stranger.accepted}
    assert len(history(remote)) == 2 + len(edits) + len(stranger.accepted)
    remote.git("fsck", "--strict", "--no-dangling")


if __name__ == "__main__":
    main(*sys.argv[1:])
