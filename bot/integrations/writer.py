"""Writes a branch: what is asked for while a push is under way goes out together with the next one."""

from __future__ import annotations

import asyncio
import functools
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from bot.core.catalog import Image
from bot.core.errors import Failed, PromoteError, Stale, Unavailable
from bot.core.ports import Author, Edit
from bot.integrations import releases
from bot.integrations.branch import Branch, shutting_down
from bot.integrations.mirror import Logged, Mirror
from bot.integrations.target_file import edition
from bot.integrations.verdicts import GIT_HOST, Damaged, Declined

NO_EMAIL = "promote-bot@users.noreply.invalid"
MOST_AT_ONCE = 100
MAX_TRIES = 10
LOCKED_TRIES = 3
"""Tries after which a branch that is said to move, and does not, is believed to be stuck."""
MAX_SECONDS = 60.0
TURN = timedelta(seconds=15)
PATIENCE = 2.0
"""Seconds that are waited for a turn; then we write without one."""


log = structlog.get_logger()


class Turns(Protocol):
    """Lets one process at a time write a branch. It only saves lost races: git itself keeps the order."""

    async def take_turn(self, branch: str, *, by: str, lease: timedelta) -> tuple[bool, str | None]:
        """Is it ours now, and which revision did the last one leave behind? May raise `Unavailable`."""
        ...

    async def end_turn(self, branch: str, *, by: str, revision: str | None) -> None:
        """Give it to the next one, and say what the branch is at now. May raise `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Whose commits they are: the committer, and how a finished commit is signed, where it is."""

    committer: tuple[str, str]
    sign: Callable[[bytes], bytes] | None = None
    sign_tag: Callable[[bytes], bytes] | None = None

    def at(self, moment: datetime) -> str:
        """The committer with a date, as git writes it into a commit or a tag."""
        return "{} <{}> {} +0000".format(*self.committer, int(moment.timestamp()))


class Writer:
    """The one writer of a branch in this process."""

    def __init__(self, branch: Branch, *, hand: Hand, turns: Turns | None) -> None:
        self._branch = branch
        self._hand = hand
        self._turns = turns
        self._name = f"{branch.repository.url} {branch.repository.branch}"
        self._me = secrets.token_hex(8)
        self._waiting: list[tuple[Edit, asyncio.Future[str]]] = []
        self._work: asyncio.Task[None] | None = None

    async def commit(self, edit: Edit) -> str:
        """Push the edit as one commit, together with whatever else is waiting, and return its revision."""
        if self._branch.closing.is_set():
            raise shutting_down()
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((edit, outcome))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._write())
        return await outcome

    async def aclose(self) -> None:
        """Wait for the push that is under way; what only waits is told that the bot is shutting down."""
        self._branch.closing.set()
        if self._work is not None:
            await asyncio.wait([self._work])

    async def _write(self) -> None:
        try:
            while self._waiting:
                left_by_others = await self._take_turn()
                batch, outcomes = self._take()
                await self._push(batch, outcomes, left_by_others)
                await self._end_turn(batch.pushed)
        finally:
            # Nobody may wait for ever, whatever ended this.
            for _, outcome in self._waiting:
                _tell(outcome, shutting_down())

    async def _push(
        self, batch: Batch, outcomes: Sequence[asyncio.Future[str]], left_by_others: str | None
    ) -> None:
        why: Exception = shutting_down(maybe_done=True)
        try:
            await self._branch.run(functools.partial(batch.write, left_by_others=left_by_others))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear it
            why = error
        finally:
            for number, outcome in enumerate(outcomes):
                _tell(outcome, batch.told.get(number, why))

    def _take(self) -> tuple[Batch, list[asyncio.Future[str]]]:
        """Those that wait, one for each target: what follows it is judged by what became of it."""
        taken: list[tuple[Edit, asyncio.Future[str]]] = []
        left: list[tuple[Edit, asyncio.Future[str]]] = []
        targets: set[str] = set()
        for edit, outcome in self._waiting:
            if outcome.cancelled():
                continue
            if edit.target.name in targets or len(taken) == MOST_AT_ONCE:
                left.append((edit, outcome))
            else:
                targets.add(edit.target.name)
                taken.append((edit, outcome))
        self._waiting = left
        batch = Batch([edit for edit, _ in taken], hand=self._hand, rest=self._branch.closing.wait)
        return batch, [outcome for _, outcome in taken]

    async def _take_turn(self) -> str | None:
        """Wait for our turn, within reason; returns what the last one left behind."""
        revision, ends_at = None, time.monotonic() + PATIENCE
        try:
            while self._turns and not self._branch.closing.is_set():
                is_ours, revision = await self._turns.take_turn(self._name, by=self._me, lease=TURN)
                if is_ours or time.monotonic() > ends_at:
                    break
                await asyncio.sleep((25 + secrets.randbelow(50)) / 1000)
        except Exception as error:  # noqa: BLE001 - a turn only saves work, and nobody may wait for ever
            log.warning("no turn", branch=self._name, error=str(error))
        return revision

    async def _end_turn(self, revision: str | None) -> None:
        try:
            if self._turns:
                await self._turns.end_turn(self._name, by=self._me, revision=revision)
        except Exception as error:  # noqa: BLE001 - it ends by itself
            log.warning("turn not given back", branch=self._name, error=str(error))


class Batch:
    """Edits that go out in one push, one commit each. Touched by the branch's thread alone.

    `rest` waits so many seconds, and says whether the bot is shutting down.
    """

    def __init__(self, edits: Sequence[Edit], *, hand: Hand, rest: Callable[[float], bool]) -> None:
        self.pushed: str | None = None
        """Where our last push left the branch."""
        self.told: dict[int, str | Exception] = {}
        """What became of each edit so far, by its number: its revision, or why it has none."""
        self._edits = edits
        self._hand = hand
        self._rest = rest
        self._began_at = time.monotonic()
        self._runs = 0

    def write(self, mirror: Mirror, left_by_others: str | None = None) -> None:
        """Make and push the commits, and tell of each; may be called again on a new copy."""
        self.told = {number: told for number, told in self.told.items() if isinstance(told, str)}
        self._runs += 1
        if left_by_others and not mirror.knows(left_by_others):
            mirror.fetch(since=time.monotonic())
        self._push(mirror, range(len(self._edits)))

    def _push(self, mirror: Mirror, numbers: Sequence[int]) -> None:
        ends_at, is_moving = time.monotonic() + MAX_SECONDS, False
        for tries in range(MAX_TRIES):
            if tries:
                self._pause(tries)
            if time.monotonic() > ends_at or (tries == LOCKED_TRIES and not is_moving):
                break
            tip, chain, tags = self._chain(mirror, numbers)
            if mirror.take_rewind():
                self._tell(self._open(numbers), _rewound(mirror))
            if not self._open(numbers):
                return
            try:
                is_done = mirror.push(tip=tip, revision=chain[max(chain)], tags=tags)
            except Declined as refusal:
                self._part(mirror, list(chain), refusal)
                return
            if is_done:
                self.told |= {number: _told(self._edits[number], made) for number, made in chain.items()}
                self.pushed = chain[max(chain)]
                return
            mirror.fetch(since=time.monotonic())
            is_moving = is_moving or mirror.tip != tip
        why = (
            "others push to the branch all the time" if is_moving else "it says that others push, but none do"
        )
        self._tell(self._open(numbers), Unavailable(GIT_HOST, f"{why}; nothing was pushed yet."))

    def _chain(self, mirror: Mirror, numbers: Sequence[int]) -> tuple[str, dict[int, str], dict[str, str]]:
        """The commits, each on the one before it, and their tags; an edit of which none can be made is settled here."""
        tip = parent = mirror.tip
        chain: dict[int, str] = {}
        tags: dict[str, str] = {}
        doubts: dict[int, Exception] = {}
        for number in self._open(numbers):
            edit = self._edits[number]
            try:
                require_first(mirror, edit)
                _require_tip(tip, edit)
                made = tags_of(mirror, edit, hand=self._hand)
                parent = chain[number] = build(mirror, edit, parent=parent, hand=self._hand)
                tags |= made
            except (Damaged, OSError):
                raise
            except Exception as doubt:  # noqa: BLE001 - also a bug that one edit meets is no other's trouble
                doubts[number] = doubt
        if doubts:
            # An old copy proves nothing, and our own push may have got through although nobody told us.
            mirror.fetch(since=self._began_at)
            if mirror.tip != tip:
                return self._chain(mirror, numbers)
        for number, why in doubts.items():
            self.told[number] = find(mirror, self._edits[number], committer=self._hand.committer) or why
        return tip, chain, tags

    def _part(self, mirror: Mirror, numbers: Sequence[int], refusal: Declined) -> None:
        """The host said no to the push: it may mind one commit only, so each half goes alone."""
        if len(numbers) > 1:
            middle = len(numbers) // 2
            for half in (numbers[:middle], numbers[middle:]):
                self._push(mirror, half)
        elif self._runs == 1:
            self._tell(numbers, refusal)
        else:
            # The copy was damaged during a push: what became of that one, only the remote knows.
            self._tell(numbers, Unavailable(GIT_HOST, str(refusal), maybe_done=True))

    def _open(self, numbers: Sequence[int]) -> list[int]:
        return [number for number in numbers if number not in self.told]

    def _tell(self, numbers: Sequence[int], why: PromoteError) -> None:
        self.told |= dict.fromkeys(numbers, why)

    def _pause(self, tries: int) -> None:
        """A short wait of random length, so that two writers do not meet again and again."""
        if self._rest(secrets.randbelow(min(2000, 25 << tries)) / 1000):
            raise shutting_down()


def _rewound(mirror: Mirror) -> Failed:
    return Failed(
        f"The branch {mirror.repository.branch} was rewound; nothing was pushed. "
        "Please look at its history, and ask for the promotion again."
    )


def build(mirror: Mirror, edit: Edit, *, parent: str, hand: Hand) -> str:
    """The edit as a commit on `parent`, or what it brings instead of one; raises `Stale` or `Failed`."""
    release = edit.target.release
    if release:
        moved = releases.moved(mirror, edit, release, tip=parent)
        if release.pin is None:
            return moved
    path = release.pin.path if release and release.pin else edit.target.path
    before = mirror.blob(parent, path)
    after = releases.pinned(release, before, edit.new) if release else _edited(edit, before)
    if after == before:
        raise Failed(f"{path} already holds {edit.new}.")
    return mirror.commit(
        parent=parent,
        path=path,
        content=after,
        author="{} <{}> {} +0000".format(*identity(edit.author), int(edit.at.timestamp())),
        committer=hand.at(edit.at),
        message=edit.message,
        sign=hand.sign,
    )


def _edited(edit: Edit, before: bytes) -> bytes:
    """The values file with the new image."""
    after = edition(before, edit.target, Image(version=edit.new, digest=edit.digest))
    for image in after.images:
        if image.version != edit.old:
            raise Stale(expected=edit.old, found=image.version)
    return after.content


def tags_of(mirror: Mirror, edit: Edit, *, hand: Hand) -> dict[str, str]:
    """The tags that have to be pushed with the edit, by their names; raises `Failed`."""
    release = edit.target.release
    if release is None:
        return {}
    return releases.made_tag(mirror, edit, release, tagger=hand.at(edit.at), sign=hand.sign_tag)


def require_first(mirror: Mirror, edit: Edit) -> None:
    """Nobody's word is taken for it, not even our own record's: it may have been put back to before the commit."""
    if mirror.mentions(id_line(edit), since=edit.since) or told_by_tag(mirror, edit):
        raise Failed(f"{edit.promotion} was written before; ask for a new promotion with /promote.")


def _require_tip(tip: str, edit: Edit) -> None:
    """What was checked is not what lies there now: everything is checked once more before another try."""
    if edit.only_on not in (None, tip):
        raise Unavailable(GIT_HOST, "somebody else pushed at this very moment; nothing was pushed yet.")


def id_line(edit: Edit) -> str:
    """The trailer by which the promotion's commit is known."""
    return f"Promotion-Id: {edit.promotion}"


def find(mirror: Mirror, edit: Edit, *, committer: tuple[str, str]) -> str | None:
    """The edit's own commit: we are its committer, and its trailers tell of this very edit."""
    wanted = {
        "Promotion-Id": str(edit.promotion),
        "App": edit.target.app,
        "Environment": edit.target.environment,
        "New-Version": edit.new,
    }
    release = edit.target.release
    told = (
        each
        for each in told_by_tag(mirror, edit)
        if release and releases.is_brought(mirror, edit, release, each.revision)
    )
    for logged in (*mirror.search(id_line(edit), after=edit.base), *told):
        # Where a trailer stands twice, the first one counts.
        if logged.committer == committer and wanted.items() <= dict(reversed(logged.trailers)).items():
            return logged.revision
    return None


def _told(edit: Edit, made: str) -> str:
    """What tells of the edit: its commit, or what it brings where only a tag was made."""
    release = edit.target.release
    return edit.brings if release and release.pin is None else made


def told_by_tag(mirror: Mirror, edit: Edit) -> list[Logged]:
    """The tag that tells of the edit, where no commit does."""
    release = edit.target.release
    if release is None or release.pin:
        return []
    wanted = ("Promotion-Id", str(edit.promotion))
    return [each for each in mirror.told_by_tags(releases.tag_name(edit, release)) if wanted in each.trailers]


def identity(author: Author) -> tuple[str, str]:
    """Name and email as git can store them; a strange name never fails a commit."""
    name = re.sub(r"[\x00-\x1f\x7f<>]+", " ", author.name)
    name = re.sub(r" {2,}", " ", name).strip(" .,:;\"'\\")
    email = re.sub(r"[\x00-\x20\x7f<>]+", "", author.email or "").strip(".,:;\"'\\")
    return name or "unknown", email or NO_EMAIL


def _tell(outcome: asyncio.Future[str], told: str | Exception) -> None:
    if outcome.done():
        return
    if isinstance(told, str):
        outcome.set_result(told)
    else:
        outcome.set_exception(told)
