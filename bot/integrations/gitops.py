"""The GitOps repositories: what a commit would change, the commit, and whether it is still there.

A commit is built in this process on the newest tip that we know, and pushed at once; only where the branch has
moved meanwhile it is fetched, checked and built again. Each branch has one thread and one copy (`Mirror`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import structlog

from bot.core.catalog import UNKNOWN, Image, Mode, Repository, Target
from bot.core.dossier import Commits
from bot.core.errors import Failed, PromoteError, Unavailable
from bot.core.noticing import Arrivals
from bot.core.ports import Author, Edit, Plan, Push, Written
from bot.core.promotion import ID
from bot.core.rollout import Relation
from bot.core.together import together
from bot.integrations import proposal, releases, writer
from bot.integrations.arrivals import arrivals
from bot.integrations.branch import Branch, shutting_down
from bot.integrations.cleanroom import CleanRoom, Credential
from bot.integrations.history import History
from bot.integrations.mirror import REVISION, Logged, Mirror
from bot.integrations.signing import CommitSigner
from bot.integrations.target_file import TargetFile, edition, only
from bot.integrations.values import ValuesFile, line_changes
from bot.integrations.verdicts import GIT_HOST
from bot.integrations.writer import Hand, Turns, Writer
from bot.telemetry import BUGS

__all__ = ["Credential", "GitRepository"]

K = TypeVar("K")
T = TypeVar("T")

FETCH_EVERY = 3.0
"""Seconds between two fetches for revisions that a fetch has not brought."""
FRESH_FOR = 15.0
"""Seconds after which an idle branch is fetched: a push on an old tip costs several times as much."""
LONGEST_PAUSE = 300.0
CLOSE_WITHIN = 10.0
"""Seconds that what is under way has at the end; a push that takes longer is looked for after the next start."""
REMEMBERED = 4096

log = structlog.get_logger()

_BRANCH = re.compile(r"(?![-/.])(?!.*(?:\.\.|@\{|//|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_ADDRESS = re.compile(r"(?:https|ssh)://[^\s]+|[\w.-]+@[\w.-]+:[^\s-][^\s]*")
_LOCAL_ADDRESS = re.compile(r"(?:https?|ssh|file)://[^\s]+|/[^\x00-\x1f]*")
_PASSWORD = re.compile(r"^\w+://[^/@]*:[^/@]*@")


class GitRepository:
    """Reads and writes the branches; implements the port `ValuesRepository`.

    `cache` is a folder of ours, for copies that may be deleted at any time. `credentials` go by the name of the
    repository, and so do `signers`, who sign every commit of it; `allow_local` names those that may be a path,
    `file://` or plain `http://`. `turns` keeps several processes from racing. `proxies` are curl's variables.
    `timeout` is for each git command, in seconds.
    """

    def __init__(
        self,
        *,
        cache: Path,
        committer: Author,
        credentials: Mapping[str, Credential] | None = None,
        signers: Mapping[str, CommitSigner] | None = None,
        turns: Turns | None = None,
        allow_local: frozenset[str] = frozenset(),
        proxies: Mapping[str, str] | None = None,
        ca_bundle: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._cache = cache
        self._committer = writer.identity(committer)
        self._credentials = credentials or {}
        self._signers = signers or {}
        self._turns = turns
        self._allow_local = allow_local
        self._proxies = proxies or {}
        self._ca_bundle = ca_bundle
        self._timeout = timeout
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None
        self._branches: dict[tuple[str, ...], tuple[Branch, Writer]] = {}
        # History does not change, so what is known of two revisions stays true.
        self._relations: dict[tuple[object, ...], Relation] = {}
        self._versions: dict[tuple[object, ...], str] = {}
        self._unknown: dict[str, None] = {}
        self._held: dict[tuple[str, str, str], str] = {}
        """The tip at which a branch was seen to hold a commit."""

    async def aclose(self, *, within: float = CLOSE_WITHIN) -> None:
        """End the threads and their processes; a push that is under way has `within` seconds to come to its end."""
        self._is_closed = True
        self._closing = self._closing or asyncio.create_task(self._close(within))
        await asyncio.shield(self._closing)

    async def _close(self, within: float) -> None:
        branches, self._branches = list(self._branches.values()), {}
        for branch, _ in branches:
            branch.close_soon(within)
        await asyncio.gather(*(each.aclose() for _, each in branches))
        await asyncio.gather(*(branch.aclose() for branch, _ in branches))

    async def keep_fresh(self, repositories: Iterable[Repository], *, every: float = FRESH_FOR) -> None:
        """Fetch each branch that was idle for `every` seconds, and tidy its copy; ends when it is cancelled."""
        await together(*(self._keep_fresh(repository, every) for repository in set(repositories)))

    async def probe(self, target: Target) -> None:
        """Raise `Unavailable` or `Failed` where the branch cannot be reached, or not be pushed to."""
        asked_at = time.monotonic()

        def attempt(mirror: Mirror) -> None:
            mirror.fetch(since=asked_at)
            tip = mirror.tip
            if not mirror.push(tip=tip, revision=tip, dry_run=True):
                raise Unavailable(GIT_HOST, "somebody pushed at this very moment.")

        await self._on(target.repository, attempt)

    async def current(self, target: Target) -> Image:
        """What the branch holds at the target's keys now."""
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> Image:
            mirror.fetch(since=asked_at)
            return TargetFile(mirror.blob(releases.held(mirror, target), target.path), target).image()

        return await self._on(target.repository, look)

    async def plan(
        self, target: Target, version: str, *, digest: str = UNKNOWN, brings: str = "", fresh: bool = True
    ) -> Plan:
        """What a commit of `version` would change; `fresh` asks the remote for its tip first.

        Where the target follows a branch or tags, `brings` is the revision; empty takes what is there to be brought.
        """
        asked_at, image = time.monotonic(), Image(version=version, digest=digest)

        def look(mirror: Mirror) -> Plan:
            if fresh:
                mirror.fetch(since=asked_at)
            if target.release:
                return releases.plan(mirror, target, target.release, image, brings)
            tip = mirror.tip
            before = mirror.blob(tip, target.path)
            after = edition(before, target, image)
            old = only(after.images, target)
            changes = line_changes(before, after.content, path=target.path)
            is_done = not changes if target.digests else old.version == version
            return Plan(old_version=old.version, base=tip, changes=changes, is_done=is_done)

        return await self._on(target.repository, look)

    async def commit(self, edit: Edit) -> str:
        """Push the edit as one commit and return its revision; edits that wait together are pushed together."""
        _, branch_writer = self._branch(edit.target.repository)
        return await branch_writer.commit(edit)

    async def tag_in_force(self, target: Target) -> tuple[str, str]:
        """The tag that a target follows now, and the revision that it names. Raises `Failed`."""
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> tuple[str, str]:
            mirror.fetch(since=asked_at)
            return releases.tag_in_force(mirror, target), releases.held(mirror, target)

        return await self._on(target.repository, look)

    async def stood(self, target: Target, *, limit: int) -> tuple[str, ...]:
        """The versions that the branch held at the target's keys, newest first, equal ones in a row once.

        What held no version that can be read is left out; raises `Failed` where that is the newest.
        """
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> tuple[str, ...]:
            mirror.fetch(since=asked_at)
            if target.release and target.release.tag:
                return releases.stood(mirror, target, target.release)[:limit]
            now = TargetFile(mirror.blob(mirror.tip, target.path), target).image().version
            held = (self._held_at(mirror, target, each) for each in mirror.changes(target.path, limit=limit))
            return tuple(version for version, _ in groupby([now, *filter(None, held)]))

        return await self._on(target.repository, look)

    async def between(self, target: Target, brings: str) -> Commits:
        """The commits that a revision would bring to a target that follows a branch or tags."""

        def look(mirror: Mirror) -> Commits:
            history = self._history(mirror, target, ("",), ())
            return history.between(releases.held(mirror, target), brings)

        return await self._ask(target.repository, look)

    async def last_push(self, target: Target) -> Push | None:
        """The newest commit that changed the target's file, as far as is known without asking the remote."""
        return await self._on(target.repository, lambda mirror: mirror.last_push(target.path))

    async def propose(self, edit: Edit, *, anew: bool = False) -> str:
        """Push the edit as one commit to its own branch, unless it stands there already; returns its revision."""
        branch, _ = self._branch(edit.target.repository)
        hand = self._hand(edit.target.repository)
        return await branch.run(lambda mirror: proposal.propose(mirror, edit, hand=hand, anew=anew))

    async def find(self, edit: Edit) -> str | None:
        """The promotion's own commit after `edit.base` on the remote branch as it is now, or None."""
        asked_at = time.monotonic()

        def search(mirror: Mirror) -> str | None:
            mirror.fetch(since=asked_at)
            return writer.find(mirror, edit, committer=self._committer)

        return await self._ask(edit.target.repository, search)

    async def written(self, repository: Repository, *, limit: int) -> tuple[Written, ...]:
        """The bot's own commits on the remote branch as it is now, newest first.

        Where they come by pull requests, also those that the host, or whoever merged, has squashed or rebased: every
        commit with our trailers and a valid id. There it is trusted who may merge into the protected branch.
        """
        asked_at = time.monotonic()

        def read(mirror: Mirror) -> tuple[Written, ...]:
            mirror.fetch(since=asked_at)
            logged = _newest(mirror, committer=self._hand_of(repository), limit=limit)
            if repository.beside:
                logged = _by_date([*logged, *releases.told(mirror, self._committer, besides=logged)])[:limit]
            return tuple(
                Written(revision=each.revision, at=each.at, trailers=each.trailers)
                for each in logged
                if each.at
            )

        return await self._ask(repository, read)

    async def arrivals(
        self, repository: Repository, targets: Sequence[Target], *, since: str | None, fresh: bool
    ) -> Arrivals:
        """What came to the branch since a revision; `fresh` asks the remote first."""
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> Arrivals:
            # A copy that does not know what somebody has seen is behind.
            if fresh or (since and not mirror.knows(since)):
                mirror.fetch(since=asked_at)
            return arrivals(mirror, targets, since=since, committer=self._hand_of(repository))

        return await self._ask(repository, look)

    async def is_on_branch(self, target: Target, revision: str) -> bool:
        """Does the branch still hold this commit? False only where the remote says so now."""
        asked_at, key = time.monotonic(), (target.repository.url, target.repository.branch, revision)

        def look(mirror: Mirror) -> bool:
            if target.release and target.release.tag:
                mirror.fetch(since=asked_at)
                return any(target.release.version_of(tag) for tag in mirror.tags(at=revision))
            if self._held.get(key) == mirror.tip:
                return True
            if not mirror.contains(mirror.tip, revision):
                mirror.fetch(since=asked_at)
                if not mirror.contains(mirror.tip, revision):
                    return False
            _remember(self._held, key, mirror.tip)
            return True

        return await self._ask(target.repository, look)

    async def relate(
        self, target: Target, *, revision: str, commit: str, version: str, digest: str = UNKNOWN
    ) -> Relation:
        """Does `revision` contain `commit`, and does it still hold `version` at the target's keys?

        Where the digest is known and the file holds one, that one too.
        """
        repository, wanted = target.repository, Image(version=version, digest=digest)
        place = (repository.url, target.path, target.keys, target.digests, target.release)
        key = (*place, revision, commit, wanted)
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
            holds_value = _holds(mirror, target, revision, wanted)
            return Relation(
                contains=_contains(mirror, target, revision, commit), holds_value=holds_value, author=author
            )

        relation = await self._ask(repository, look)
        if relation.contains is None:
            _remember(self._unknown, revision, None)
        else:
            _remember(self._relations, key, relation)
        return relation

    async def commits_to(
        self, target: Target, places: Collection[str], since: str, *, without: Collection[str] = ()
    ) -> Commits:
        """What others have changed in these files and folders since a revision, newest first.

        `""` is everything; the files `without` do not count, nor do promotions of the target that the bot made and
        that change nothing else. `unknown` says why nobody can tell. Raises `Unavailable`.
        """
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> Commits:
            mirror.fetch(since=asked_at - FRESH_FOR)
            if not mirror.knows(since):
                mirror.fetch(since=asked_at)
            return self._history(mirror, target, places, without).since(since)

        return await self._ask(target.repository, look)

    async def commits_after(
        self, target: Target, places: Collection[str], moment: datetime, *, without: Collection[str] = ()
    ) -> Commits:
        """The same from a moment on, as far as is known without asking the remote. Raises `Unavailable`."""
        return await self._ask(
            target.repository, lambda mirror: self._history(mirror, target, places, without).after(moment)
        )

    async def document(self, target: Target) -> Mapping[str, str]:
        """Every single value of the target's file by its key path, but for the promoted version and its digest.

        As the branch holds it now; `hosts[0].name` leads into a list. Raises `Unavailable`, `Failed`.
        """
        asked_at = time.monotonic()

        def look(mirror: Mirror) -> Mapping[str, str]:
            mirror.fetch(since=asked_at)
            raw = mirror.blob(releases.held(mirror, target), target.path)
            file = ValuesFile(raw, target.path, edit_anchors=target.edit_anchors)
            return file.leaves(without=(*target.keys, *target.digests))

        return await self._on(target.repository, look)

    def _held_at(self, mirror: Mirror, target: Target, revision: str) -> str:
        """The version at the target's keys in a revision; empty where there is none that can be read."""
        key = (target.repository.url, target.path, target.keys, target.digests, target.edit_anchors, revision)
        if (known := self._versions.get(key)) is not None:
            return known
        version = ""
        with contextlib.suppress(Failed):
            file = TargetFile(mirror.blob(revision, target.path), target)
            version = only(file.images(), target).version
        _remember(self._versions, key, version)
        return version

    def _history(
        self, mirror: Mirror, target: Target, places: Collection[str], without: Collection[str]
    ) -> History:
        return History(mirror, target, places, without=without, committer=self._hand_of(target.repository))

    def _hand_of(self, repository: Repository) -> tuple[str, str] | None:
        """Whose commits are the bot's own; None for everybody's with our trailers, where a host may have merged them."""
        return self._committer if repository.mode is Mode.PUSH else None

    async def _ask(self, repository: Repository, job: Callable[[Mirror], T]) -> T:
        """A question about the past does not end a promotion: a refusal is one more reason to ask again."""
        try:
            return await self._on(repository, job)
        except Failed as error:
            raise Unavailable(GIT_HOST, str(error)) from error

    async def _on(self, repository: Repository, job: Callable[[Mirror], T]) -> T:
        branch, _ = self._branch(repository)
        return await branch.run(job)

    def _branch(self, repository: Repository) -> tuple[Branch, Writer]:
        if self._is_closed:
            raise shutting_down()
        key = (repository.name, repository.url, repository.branch, *repository.beside)
        if key not in self._branches:
            branch = Branch(self._mirror(repository))
            self._branches[key] = branch, Writer(branch, hand=self._hand(repository), turns=self._turns)
        return self._branches[key]

    def _hand(self, repository: Repository) -> Hand:
        signer = self._signers.get(repository.name)
        if signer is None:
            return Hand(committer=self._committer)
        return Hand(committer=self._committer, sign=signer.signed, sign_tag=signer.signed_tag)

    async def _keep_fresh(self, repository: Repository, every: float) -> None:
        pause = every

        def freshen(mirror: Mirror) -> None:
            mirror.fetch(since=time.monotonic() - every)
            mirror.tidy()

        while True:
            try:
                await self._on(repository, freshen)
                pause = every
            except PromoteError as error:
                pause = min(pause * 2, LONGEST_PAUSE)
                log.warning("cannot fetch", repository=repository.name, error=str(error), again_in=pause)
            except Exception:
                # Whoever promotes next would pay for a copy that nobody keeps fresh.
                BUGS.inc()
                pause = min(pause * 2, LONGEST_PAUSE)
                log.exception("cannot fetch", repository=repository.name)
            await asyncio.sleep(pause * (75 + secrets.randbelow(50)) / 100)

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


def _contains(mirror: Mirror, target: Target, revision: str, commit: str) -> bool:
    """Does a revision contain a commit? What a pinned tag named before may be newer: it counts for itself alone."""
    if target.release and target.release.pin:
        return revision == commit
    return mirror.contains(revision, commit)


def _holds(mirror: Mirror, target: Target, revision: str, wanted: Image) -> bool:
    with contextlib.suppress(Failed):
        images = TargetFile(mirror.blob(revision, target.path), target).images()
        return all(image.may_be(wanted) for image in images)
    return False


def _newest(mirror: Mirror, *, committer: tuple[str, str] | None, limit: int) -> list[Logged]:
    """The newest commits of ours; git also finds some that only speak of one, and those do not count for the limit."""
    asked = limit
    while True:
        found = mirror.newest("Promotion-Id: ", committer=committer, limit=asked)
        ours = [each for each in found if _is_ours(each, committer)]
        if len(ours) >= limit or len(found) < asked:
            return ours[:limit]
        asked *= 2


def _is_ours(logged: Logged, committer: tuple[str, str] | None) -> bool:
    if committer is None:
        return ID.fullmatch(dict(reversed(logged.trailers)).get("Promotion-Id", "")) is not None
    return logged.committer == committer


def _by_date(logged: Iterable[Logged]) -> list[Logged]:
    """Newest first; what has no date that a calendar knows comes last."""
    return sorted(logged, key=lambda each: each.at.timestamp() if each.at else 0.0, reverse=True)


def _remember(known: dict[K, T], key: K, value: T) -> None:
    """Keep an answer; the oldest ones make room."""
    known[key] = value
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def _check(repository: Repository, *, is_local: bool) -> None:
    """Refuse what git could take for something else than an address, a branch or no secret."""
    address = _LOCAL_ADDRESS if is_local else _ADDRESS
    if _PASSWORD.match(repository.url):
        raise Failed(f"The address of {repository.name} holds a password. Please give it as a credential.")
    if not (address.fullmatch(repository.url) or _ADDRESS.fullmatch(repository.url)):
        raise Failed(f"The address of {repository.name} is none that I use: https:// or ssh:// it must be.")
    if not _BRANCH.fullmatch(repository.branch):
        raise Failed(f"“{repository.branch}” cannot be the name of a branch.")
