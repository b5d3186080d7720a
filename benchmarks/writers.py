"""Three ways to bring one new version to a remote branch: a bare push, the bot's, and a person's."""

import asyncio
import gc
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from git_hosts import ROOM

from benchmarks.remotes import path, values
from bot.core.catalog import Target
from bot.core.ports import Author, Edit, Plan
from bot.core.promotion import PromotionId
from bot.integrations.cleanroom import CleanRoom
from bot.integrations.gitops import GitRepository
from bot.integrations.signing import CommitSigner

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOT = Author(name="promote-bot", email="promote-bot@acme.example")
TIMEOUT = 300.0
"""Seconds for one git command: a limit, so that nothing waits for ever."""

MESSAGE = """\
Promote {app} {new} to prod

prod ran {old}; stage runs {new}.

Promotion-Format: 1
Promotion-Id: {id}
App: {app}
Environment: prod
From: stage
Old-Version: {old}
New-Version: {new}
Digest: sha256:3eabe46449952aec409bbff0e24dbe5123fa541a082929509c33086a58385426
Requested-By: Dana <dana@acme.example> (T0ACME/U0DANA)
Approved-By: Amy <amy@acme.example> (T0ACME/U0AMY)
Policy: sha256:145c2ed33210c408502dff45038d7240a497c677bab933f00ba0610ac9bd110f
Content-Hash: sha256:9f3a0c6d7b1e52f84aa90e6d1c7be4430f5d28b3a61e97c08d24f5b6e7a1830c
Reason: fixes INC-42
Slack-Message: https://acme.slack.com/archives/C0DEPLOYS/p1772366400000000
"""

_numbers = itertools.count(1)


class Writer(Protocol):
    """Brings a version to the remote in two steps, of which the second is measured."""

    def prepare(self, version: str) -> None:
        """Do what is not measured."""
        ...

    def run(self) -> None:
        """Do what is."""
        ...


class BarePush:
    """The floor: `git push` of a commit that is ready, from a bare copy, with the bot's environment."""

    def __init__(self, url: str, folder: Path, *, app: int) -> None:
        self._url = url
        self._app = app
        self._folder = folder / "copy.git"
        self._room = CleanRoom(
            url=url,
            home=folder,
            credential=None,
            is_local=True,
            proxies={},
            ca_bundle=None,
            timeout=TIMEOUT,
        )
        self._git("clone", "--quiet", "--bare", "--single-branch", url, str(self._folder), folder=folder)

    def prepare(self, version: str) -> None:
        """Make the commit, on the tip that the last push left."""
        text = values(self._app, version)
        stream = (
            f"commit refs/heads/main\ncommitter {BOT.name} <{BOT.email}> 1772366400 +0000\n"
            f"data 8\nPromote\nfrom refs/heads/main^0\n"
            f"M 100644 inline {path(self._app)}\ndata {len(text)}\n{text}\n"
        )
        self._git("fast-import", "--quiet", stdin=stream)

    def run(self) -> None:
        """Push it."""
        self._git("push", "--quiet", self._url, "refs/heads/main:refs/heads/main")

    def _git(self, *arguments: str, folder: Path | None = None, stdin: str = "") -> None:
        subprocess.run(
            ["git", *arguments],
            cwd=folder or self._folder,
            env=self._room.environment(self._folder, remote=True),
            input=stdin.encode(),
            capture_output=True,
            check=True,
            timeout=TIMEOUT,
        )


class Person:
    """Clone, edit, commit, push: what somebody without a copy does, or a script in CI."""

    def __init__(self, url: str, folder: Path, *, app: int) -> None:
        self._url = url
        self._app = app
        self._folder = folder / "work"
        self._version = ""
        who = {"NAME": "Dana", "EMAIL": "dana@acme.example"}
        self._environment = ROOM | {
            f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()
        }

    def prepare(self, version: str) -> None:
        """Begin without a copy."""
        self._version = version
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self) -> None:
        """All of it."""
        self._git(
            "clone", "--quiet", "--depth", "1", self._url, str(self._folder), folder=self._folder.parent
        )
        (self._folder / path(self._app)).write_text(values(self._app, self._version))
        self._git("commit", "--quiet", "--all", "--message", "Promote")
        self._git("push", "--quiet")

    def _git(self, *arguments: str, folder: Path | None = None) -> None:
        subprocess.run(
            ["git", *arguments],
            cwd=folder or self._folder,
            env=self._environment,
            capture_output=True,
            check=True,
            timeout=TIMEOUT,
        )


class Bot(AbstractContextManager["Bot"]):
    """The bot's writer, through its port alone: `plan` shows what is approved, `commit` is what is measured."""

    def __init__(
        self, folder: Path, targets: Sequence[Target], *, signers: Mapping[str, CommitSigner] | None = None
    ) -> None:
        self.promotions: dict[PromotionId, tuple[Target, str]] = {}
        """What was promoted so far, in order."""
        self._targets = targets
        self._edits: list[Edit] = []
        self._repository = GitRepository(
            cache=folder,
            committer=BOT,
            signers=signers,
            allow_local=frozenset({"gitops"}),
            timeout=TIMEOUT,
        )
        self._runner = asyncio.Runner()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._repository.aclose())
        self._runner.close()

    def prepare(self, version: str) -> None:
        """Plan a promotion of each target on the remote's tip, as the bot does before it asks for approval."""
        self._edits = self._runner.run(self._planned(version))

    def run(self) -> None:
        """Commit all of them at once."""
        self._runner.run(self._at_once())

    def run_in_turn(self) -> None:
        """Commit them one after another."""
        self._runner.run(self._in_turn())

    async def _planned(self, version: str) -> list[Edit]:
        edits = []
        for number, target in enumerate(self._targets):
            plan = await self._repository.plan(target, version, fresh=number == 0)
            edit = _edit(target, version, plan)
            self.promotions[edit.promotion] = (target, version)
            edits.append(edit)
        return edits

    async def _at_once(self) -> None:
        await asyncio.gather(*map(self._repository.commit, self._edits))

    async def _in_turn(self) -> None:
        for edit in self._edits:
            await self._repository.commit(edit)


def lost(copy: Path, bot: Bot) -> int:
    """How many of the bot's promotions have no commit on the remote, and how many apps not their last version.

    Raises `CalledProcessError` where `git fsck` finds the remote damaged.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=copy,
            env=ROOM,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT,
        ).stdout

    git("fsck", "--strict")
    listed = git("log", "--format=%(trailers:key=Promotion-Id,valueonly)", "main").split()
    without_commit = sum(listed.count(id) != 1 for id in bot.promotions)
    newest = {target.path: version for target, version in bot.promotions.values()}
    without_value = sum(
        f"tag: {version} #" not in git("show", f"main:{file}") for file, version in newest.items()
    )
    return without_commit + without_value


def seconds(job: Callable[[], object]) -> float:
    """How long the job takes; it does not pay for what the one before it has left to the garbage collector."""
    gc.collect()
    began_at = time.perf_counter()
    job()
    return time.perf_counter() - began_at


def _edit(target: Target, version: str, plan: Plan) -> Edit:
    """An approved promotion, as the worker hands it to the writer."""
    promotion = PromotionId(f"P-{next(_numbers):010}")
    return Edit(
        target=target,
        promotion=promotion,
        old=plan.old_version,
        new=version,
        message=MESSAGE.format(id=promotion, app=target.app, old=plan.old_version, new=version),
        author=Author(name="Dana", email="dana@acme.example"),
        at=AT,
        base=plan.base,
        since=AT,
    )
