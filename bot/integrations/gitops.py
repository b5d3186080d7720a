"""The GitOps repositories: what a commit would change, the commit, and whether it is still there.

A commit is built in this process on the newest tip that we know, and pushed at once; only where the branch has
moved meanwhile it is fetched, checked and built again. Each branch has one thread and one copy (`Mirror`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bot.core.catalog import Repository, Target
from bot.core.errors import Failed, PromoteError, Stale, Unavailable
from bot.core.ports import Author, Edit, Plan
from bot.core.rollout import Relation
from bot.integrations.cleanroom import CleanRoom, Credential
from bot.integrations.mirror import REVISION, Mirror
from bot.integrations.values import line_changes, read_values, set_values
from bot.integrations.verdicts import GIT_HOST, Damaged

__all__ = ["Credential", "GitRepository"]

K = TypeVar("K")
T = TypeVar("T")

NO_EMAIL = "promote-bot@users.noreply.invalid"
MAX_TRIES = 10
MAX_SECONDS = 60.0
FETCH_EVERY = 3.0
"""Seconds between two fetches for revisions that a fetch has not brought."""
REMEMBERED = 4096

_BRANCH = re.compile(r"(?![-/.])(?!.*(?:\.\.|@\{|//|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_ADDRESS = re.compile(r"(?:https|ssh)://[^\s]+|[\w.-]+@[\w.-]+:[^\s-][^\s]*")
_LOCAL_ADDRESS = re.compile(r"(?:https?|ssh|file)://[^\s]+|/[^\x00-\x1f]*")
_PASSWORD = re.compile(r"^\w+://[^/@]*:[^/@]*@")


class GitRepository:
    """Reads and writes the branches; implements the port `ValuesRepository`.

    `cache` is a folder of ours, for copies that may be deleted at any time. `credentials` go by the name of the
    repository; `allow_local` names those that may be a path, `file://` or plain `http://`. `proxies` are curl's
    variables. `timeout` is for each git command, in seconds.
    """

    def __init__(
        self,
        *,
        cache: Path,
        committer: Author,
        credentials: Mapping[str, Credential] | None = None,
        allow_local: frozenset[str] = frozenset(),
        proxies: Mapping[str, str] | None = None,
        ca_bundle: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._cache = cache
        self._committer = identity(committer)
        self._credentials = credentials or {}
        self._allow_local = allow_local
        self._proxies = proxies or {}
        self._ca_bundle = ca_bundle
        self._timeout = timeout
        self._closing = threading.Event()
        self._branches: dict[tuple[str, str, str], _Branch] = {}
        # History does not change, so what is known of two revisions stays true.
        self._relations: dict[tuple[object, ...], Relation] = {}
        self._unknown: dict[str, None] = {}

    async def aclose(self) -> None:
        """End the threads and their processes; a push that is under way is awaited."""
        self._closing.set()
        branches, self._branches = list(self._branches.values()), {}
        await asyncio.gather(*(branch.aclose() for branch in branches))

    async def probe(self, target: Target) -> None:
        """Raise `Unavailable` or `Failed` where the branch cannot be reached, or not be pushed to."""
        asked_at = time.monotonic()

        def attempt(mirror: Mirror) -> None:
            mirror.fetch(since=asked_at)
            tip = mirror.tip
            if not mirror.push(tip=tip, revision=tip, dry_run=True):
                raise Unavailable(GIT_HOST, "somebody pushed at this very moment.")

        await self._on(target.repository, attempt)

    async def current(self, target: Target) -> str:
        """The version that the branch holds at the target's keys now."""
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> str:
            mirror.fetch(since=asked_at)
            return _one_version(mirror.blob(mirror.tip, target.path), target)

        return await self._on(target.repository, look)

    async def plan(self, target: Target, version: str, *, fresh: bool = True) -> Plan:
        """What a commit of `version` would change; `fresh` asks the remote for its tip first."""
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> Plan:
            if fresh:
                mirror.fetch(since=asked_at)
            tip = mirror.tip
            before = mirror.blob(tip, target.path)
            after = set_values(before, target.keys, version, path=target.path)
            changes = line_changes(before, after, path=target.path)
            return Plan(old_version=_one_version(before, target), base=tip, changes=changes)

        return await self._on(target.repository, look)

    async def commit(self, edit: Edit) -> str:
        """Push the edit as one commit and return its revision."""
        return await self._on(edit.target.repository, lambda mirror: self._commit(mirror, edit))

    async def find(self, edit: Edit) -> str | None:
        """The promotion's own commit after `edit.base` on the remote branch as it is now, or None."""
        asked_at = time.monotonic()

        def search(mirror: Mirror) -> str | None:
            mirror.fetch(since=asked_at)
            return self._find(mirror, edit)

        return await self._ask(edit.target.repository, search)

    async def relate(self, target: Target, *, revision: str, commit: str, version: str) -> Relation:
        """Does `revision` contain `commit`, and does it still hold `version` at the target's keys?"""
        repository = target.repository
        key = (repository.url, target.path, target.keys, revision, commit, version)
        if known := self._relations.get(key):
            return known
        if not REVISION.fullmatch(revision):
            return Relation(contains=None)

        now = time.monotonic()
        since = now - FETCH_EVERY if revision in self._unknown else now

        def look(mirror: Mirror) -> Relation:
            author = mirror.author(revision)
            if author is None:
                mirror.fetch(since=since)
                author = mirror.author(revision)
            if author is None:
                return Relation(contains=None)
            holds_value = _holds(mirror, target, revision, version)
            return Relation(
                contains=mirror.contains(revision, commit), holds_value=holds_value, author=author
            )

        relation = await self._ask(repository, look)
        if relation.contains is None:
            _remember(self._unknown, revision, None)
        else:
            _remember(self._relations, key, relation)
        return relation

    async def _ask(self, repository: Repository, job: Callable[[Mirror], T]) -> T:
        """A question about the past does not end a promotion: a refusal is one more reason to ask again."""
        try:
            return await self._on(repository, job)
        except Failed as error:
            raise Unavailable(GIT_HOST, str(error)) from error

    async def _on(self, repository: Repository, job: Callable[[Mirror], T]) -> T:
        if self._closing.is_set():
            raise _shutting_down()
        key = (repository.name, repository.url, repository.branch)
        if key not in self._branches:
            self._branches[key] = _Branch(self._mirror(repository), self._closing)
        return await self._branches[key].run(job)

    def _mirror(self, repository: Repository) -> Mirror:
        _check(repository, is_local=repository.name in self._allow_local)
        room = CleanRoom(
            url=repository.url,
            home=self._cache / "home",
            credential=self._credentials.get(repository.name),
            is_local=repository.name in self._allow_local,
            proxies=self._proxies,
            ca_bundle=self._ca_bundle,
            timeout=self._timeout,
        )
        return Mirror(repository=repository, cache=self._cache, room=room)

    def _commit(self, mirror: Mirror, edit: Edit) -> str:
        began_at = time.monotonic()
        for tries in range(MAX_TRIES):
            if tries:
                self._pause(tries)
            if time.monotonic() - began_at > MAX_SECONDS:
                break
            try:
                tip, revision = self._build(mirror, edit)
            except (Stale, Failed):
                # An old copy proves nothing, and our own push may have got through although nobody told us.
                mirror.fetch(since=began_at)
                if own := self._find(mirror, edit):
                    return own
                tip, revision = self._build(mirror, edit)
            if mirror.push(tip=tip, revision=revision):
                return revision
            mirror.fetch(since=time.monotonic())
            if not mirror.contains(mirror.tip, tip):
                raise Failed(
                    f"The branch {edit.target.repository.branch} was rewound; nothing was pushed. "
                    "Please look at its history, and ask for the promotion again."
                )
        raise Unavailable(GIT_HOST, "others push to the branch all the time; nothing was pushed yet.")

    def _pause(self, tries: int) -> None:
        """A short wait of random length, so that two writers do not meet again and again."""
        if self._closing.wait(secrets.randbelow(min(2000, 25 << tries)) / 1000):
            raise _shutting_down()

    def _build(self, mirror: Mirror, edit: Edit) -> tuple[str, str]:
        """The edit as a commit on the newest tip that we know."""
        target, tip = edit.target, mirror.tip
        before = mirror.blob(tip, target.path)
        for found in _values(before, target).values():
            if found != edit.old:
                raise Stale(expected=edit.old, found=found)
        at = f"{int(edit.at.timestamp())} +0000"
        revision = mirror.commit(
            parent=tip,
            path=target.path,
            content=set_values(before, target.keys, edit.new, path=target.path),
            author="{} <{}> {}".format(*identity(edit.author), at),
            committer="{} <{}> {}".format(*self._committer, at),
            message=edit.message,
        )
        return tip, revision

    def _find(self, mirror: Mirror, edit: Edit) -> str | None:
        """A commit is ours where we are its committer and its trailers tell of this very edit."""
        wanted = {
            "Promotion-Id": str(edit.promotion),
            "App": edit.target.app,
            "Environment": edit.target.environment,
            "New-Version": edit.new,
        }
        for logged in mirror.search(f"Promotion-Id: {edit.promotion}", after=edit.base):
            if logged.committer == self._committer and wanted.items() <= logged.trailers.items():
                return logged.revision
        return None


class _Branch:
    """One thread and the mirror that it alone touches."""

    def __init__(self, mirror: Mirror, closing: threading.Event) -> None:
        self._mirror = mirror
        self._closing = closing
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"git-{mirror.repository.name}")

    async def run(self, job: Callable[[Mirror], T]) -> T:
        """Do the job when its turn comes; what is damaged is made anew once."""
        return await asyncio.wrap_future(self._thread.submit(self._attempt, job))

    async def aclose(self) -> None:
        """End the thread after what it does now."""
        closed = self._thread.submit(self._mirror.close)
        await asyncio.wrap_future(closed)
        await asyncio.to_thread(self._thread.shutdown)

    def _attempt(self, job: Callable[[Mirror], T]) -> T:
        if self._closing.is_set():
            raise _shutting_down()
        try:
            try:
                self._mirror.open()
                return job(self._mirror)
            except Damaged as damage:
                return self._anew(job, damage)
        except OSError as error:
            raise Unavailable("the git cache", f"{error.strerror}.") from error

    def _anew(self, job: Callable[[Mirror], T], damage: Damaged) -> T:
        try:
            self._mirror.rebuild()
            return job(self._mirror)
        except Damaged as again:
            raise Unavailable(GIT_HOST, f"{again}.", maybe_done=damage.unsure or again.unsure) from again
        except PromoteError as error:
            if damage.unsure:
                raise Unavailable(GIT_HOST, getattr(error, "detail", str(error)), maybe_done=True) from error
            raise


def identity(author: Author) -> tuple[str, str]:
    """Name and email as git can store them; a strange name never fails a commit."""
    name = re.sub(r"[\x00-\x1f\x7f<>]+", " ", author.name)
    name = re.sub(r" {2,}", " ", name).strip(" .,:;\"'\\")
    email = re.sub(r"[\x00-\x20\x7f<>]+", "", author.email or "").strip(".,:;\"'\\")
    return name or "unknown", email or NO_EMAIL


def _values(text: bytes, target: Target) -> dict[str, str]:
    return read_values(text, target.keys, path=target.path)


def _one_version(text: bytes, target: Target) -> str:
    values = _values(text, target)
    if len(set(values.values())) > 1:
        found = ", ".join(f"{key} is {value}" for key, value in values.items())
        raise Failed(f"The keys of {target.name} differ in {target.path}: {found}. Please make them equal.")
    return next(iter(values.values()))


def _holds(mirror: Mirror, target: Target, revision: str, version: str) -> bool:
    with contextlib.suppress(Failed):
        return set(_values(mirror.blob(revision, target.path), target).values()) == {version}
    return False


def _remember(known: dict[K, T], key: K, value: T) -> None:
    """Keep an answer; the oldest ones make room."""
    known[key] = value
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def _shutting_down() -> Unavailable:
    return Unavailable(GIT_HOST, "the bot is shutting down.")


def _check(repository: Repository, *, is_local: bool) -> None:
    """Refuse what git could take for something else than an address, a branch or no secret."""
    address = _LOCAL_ADDRESS if is_local else _ADDRESS
    if _PASSWORD.match(repository.url):
        raise Failed(f"The address of {repository.name} holds a password. Please give it as a credential.")
    if not (address.fullmatch(repository.url) or _ADDRESS.fullmatch(repository.url)):
        raise Failed(f"The address of {repository.name} is none that I use: https:// or ssh:// it must be.")
    if not _BRANCH.fullmatch(repository.branch):
        raise Failed(f"“{repository.branch}” cannot be the name of a branch.")
