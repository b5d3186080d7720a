"""The history of the repository that an app is built from: commits alone, in a bare copy without folders and files.

Nothing of the repository is ever checked out or run. The copy is a cache: where it is damaged, it is made anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from bot.core.catalog import Repository
from bot.core.dossier import MOST, Commit, Commits
from bot.core.errors import Failed, Unavailable
from bot.integrations.cleanroom import CleanRoom, Credential, Output, TimedOut
from bot.integrations.verdicts import GIT_HOST, Damaged, silence, trouble

REVISION = re.compile(r"[0-9a-f]{40}")
LONGEST_LINE = 200
"""Characters of a subject, a name or an address."""
MAX_PROCESSES = 32
FIRST_FETCH = 10
"""How many times longer the first fetch may take: it brings the whole history."""
MANY_PACKS = 50
"""From so many on they are put together: each fetch brings one."""

_ADDRESS = re.compile(r"(?:https|ssh)://[^\s]+|[\w.-]+@[\w.-]+:[^\s-][^\s]*")
_LOCAL_ADDRESS = re.compile(r"(?:http|file)://[^\s]+")
_PASSWORD = re.compile(r"\w+://[^/@]*:[^/@]*@")
# NUL is the one character that no commit can smuggle into a name or a subject.
_LAYOUT = "--format=tformat:%H%x00%an%x00%ae%x00%ct%x00%s"
_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


class SourceLog:
    """The log of one source repository; one thread reads it, one question after the other.

    `name` is the repository's for people, `cache` a folder of ours for copies that may be deleted at any time.
    `is_local` allows `file://` and plain `http://`. `proxies` are curl's variables. `timeout` is for each git
    command, in seconds.

    Raises:
        Failed: the address is none that git may be given.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        cache: Path,
        credential: Credential | None = None,
        is_local: bool = False,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        _check(name, url, is_local=is_local)
        self.name = name
        # A copy of every branch: of a repository, this is what the verdicts speak of.
        self._repository = Repository(name=name, url=url, branch="HEAD")
        self._cache = cache
        self._folder = cache
        self._lock: int | None = None
        self._room = CleanRoom(
            url=url,
            home=cache / "home",
            credential=credential,
            is_local=is_local,
            proxies=proxies or {},
            ca_bundle=ca_bundle,
            timeout=timeout,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"source-{name}")
        self._is_closed = False

    async def between(self, old: str, new: str) -> Commits:
        """The commits that `new` has and `old` has not; where `new` is the older one, those that go away.

        The remote is asked only for what the copy does not hold. Only what a branch or a tag held counts: a host may
        also hand out the commits of forks, which anybody can write.

        Raises:
            Failed: the repository has no such revision, or the bot may not read it.
            Unavailable: the host did not answer as it should; trying again may help.
        """
        if self._is_closed:
            raise _shutting_down()
        return await asyncio.wrap_future(self._thread.submit(self._attempt, old, new))

    async def aclose(self) -> None:
        """End what is under way with its processes, and give the folder to whoever comes next."""
        self._is_closed = True
        self._room.end_within(0)
        await asyncio.to_thread(self._thread.shutdown)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _attempt(self, old: str, new: str) -> Commits:
        if self._is_closed:
            raise _shutting_down()
        try:
            self._open()
            try:
                return self._between(old, new)
            except Damaged:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._open()
                return self._between(old, new)
        except Damaged as damage:
            raise Unavailable(GIT_HOST, f"{damage}.") from damage
        except OSError as error:
            raise Unavailable("the git cache", f"{error.strerror}.") from error

    def _between(self, old: str, new: str) -> Commits:
        if not (self._holds(old) and self._holds(new)):
            self._fetch()
        for revision in (old, new):
            if not self._holds(revision):
                raise Failed(f"No branch and no tag of {self.name} holds the revision {revision[:12]}.")
        is_back = old != new and self._is_ancestor(new, old)
        span = f"{new}..{old}" if is_back else f"{old}..{new}"
        return Commits(count=self._count(span), newest=self._newest(span), is_back=is_back)

    def _holds(self, revision: str) -> bool:
        # A revision comes from a label: only what is one may stand where git also takes options.
        if not REVISION.fullmatch(revision):
            return False
        return self._run("cat-file", "-e", f"{revision}^{{commit}}", allow=(0, 1, 128)).code == 0

    def _is_ancestor(self, revision: str, of: str) -> bool:
        return self._run("merge-base", "--is-ancestor", revision, of, allow=(0, 1)).code == 0

    def _count(self, span: str) -> int:
        return int(self._run("rev-list", "--count", span, "--").out)

    def _newest(self, span: str) -> tuple[Commit, ...]:
        said = self._run("log", "-z", f"--max-count={MOST}", _LAYOUT, span, "--").out
        fields = iter(said.split("\0"))
        return tuple(_commit(*each) for each in zip(fields, fields, fields, fields, fields, strict=False))

    # --- the copy

    def _open(self) -> None:
        """Claim a folder of this process's own, and make the copy where there is none."""
        if self._lock is None:
            self._room.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._room.require_version()
            self._claim()
        if not (self._folder / "HEAD").exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._run("init", "--quiet", "--bare", "--template=")

    def _claim(self) -> None:
        """Take the first folder that nobody holds; the kernel gives a dead process's folder back."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-")[-40:]
        address = hashlib.sha256(self._repository.url.encode()).hexdigest()[:12]
        for number in range(MAX_PROCESSES):
            folder = self._cache / f"{slug}-{address}.{number}"
            lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                self._folder, self._lock = folder, lock
                return
        raise Unavailable(
            "the git cache", f"{MAX_PROCESSES} other processes use every copy in {self._cache}."
        )

    def _fetch(self) -> None:
        """Bring every branch and tag, without folders and files where the host can leave them out."""
        timeout = self._room.timeout * (1 if self._packs() else FIRST_FETCH)
        quiet = ("--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        try:
            output = self._room.run(
                *(*self._promisor, "fetch", *quiet, "origin", *_REFSPECS),
                folder=self._folder,
                remote=True,
                timeout=timeout,
                holding=self._lock,
            )
        except TimedOut as error:
            raise silence(timeout) from error
        if output.code:
            raise trouble(output, self._repository)
        if self._packs() >= MANY_PACKS:
            self._run(*self._promisor, "repack", "-a", "-d", "--quiet")

    @property
    def _promisor(self) -> tuple[str, ...]:
        """What allows a copy with gaps; kept out of its configuration, so that no reader ever asks to fill one."""
        origin = {
            "url": self._repository.url,
            "promisor": "true",
            "partialCloneFilter": "tree:0",
        }
        return tuple(word for key, value in origin.items() for word in ("-c", f"remote.origin.{key}={value}"))

    def _packs(self) -> int:
        return sum(1 for _ in (self._folder / "objects" / "pack").glob("*.pack"))

    def _run(self, *arguments: str, allow: tuple[int, ...] = (0,)) -> Output:
        try:
            output = self._room.run(*arguments, folder=self._folder, holding=self._lock)
        except TimedOut as error:
            raise Unavailable("the git cache", "git did not end in time.") from error
        if output.code not in allow:
            raise Damaged(output.words)
        return output


def _check(name: str, url: str, *, is_local: bool) -> None:
    """Refuse what git could take for something else than an address, or what holds a secret."""
    if _PASSWORD.match(url):
        raise Failed(f"The address of {name} holds a password. Please give it as a credential.")
    if not (_ADDRESS.fullmatch(url) or (is_local and _LOCAL_ADDRESS.fullmatch(url))):
        raise Failed(f"The address of {name} is none that I use: https:// or ssh:// it must be.")


def _shutting_down() -> Unavailable:
    return Unavailable(GIT_HOST, "the bot is shutting down.")


def _commit(revision: str, name: str, email: str, seconds: str, subject: str) -> Commit:
    return Commit(
        revision=revision,
        subject=_line(subject),
        author=_line(name) or "somebody",
        email=_line(email),
        at=_date(seconds),
    )


def _date(seconds: str) -> datetime | None:
    """A commit's date; anybody may write a commit, with any number in it."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _line(text: str) -> str:
    """What somebody wrote, for people: one line of bounded length, nothing invisible in it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:LONGEST_LINE]
