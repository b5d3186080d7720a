"""A bare copy of one branch on this disk: a cache, never state. One thread touches it.

Damage of any kind (a power cut, a stale lock, a full disk) ends as `Damaged`, and the copy is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.core.catalog import Repository, nearest
from bot.core.errors import Failed, Unavailable
from bot.core.ports import Push
from bot.integrations.cleanroom import CleanRoom, Output, TimedOut
from bot.integrations.objects import Objects, entry, names
from bot.integrations.verdicts import GIT_HOST, Damaged, NoBranch, check_race, silence, trouble

CLOCKS_DIFFER = timedelta(hours=1)
"""How far the clocks of those who commit may be apart."""
MAX_PROCESSES = 32
MANY_PACKS = 40
"""From so many on they are put together: each of them makes every push a little slower."""
FIRST_FETCH = 10
"""How many times longer the first fetch may take: it brings the whole history."""

REVISION = re.compile(r"[0-9a-f]{40}")
_PARENT = re.compile(rb"^parent ([0-9a-f]{40})$", re.MULTILINE)
_COMMITTED = re.compile(rb"^committer .* (\d{1,15}) [-+]\d+$", re.MULTILINE)
_FOLDERS = (b"40000", b"040000")
"""A tree entry's mode; the second is how some old tools wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A commit that carries trailers."""

    revision: str
    committer: tuple[str, str]
    at: datetime | None
    """None for a date that no calendar knows."""
    trailers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A commit that changed one of the places that were asked for."""

    logged: Logged
    author: str
    email: str
    subject: str
    is_left_behind: bool
    """Does the branch not hold it?"""


class Mirror:
    """The copy, in a folder of `cache` that no other process uses as long as this one is open."""

    def __init__(self, *, repository: Repository, cache: Path, room: CleanRoom) -> None:
        self.repository = repository
        self._room = room
        self._cache = cache
        self._ref = f"refs/heads/{repository.branch}"
        self._folder = cache
        self._lock: int | None = None
        self._objects: Objects | None = None
        self._fetched_at = float("-inf")
        self._fetch_error: Exception | None = None
        self._left_behind: str | None = None

    def open(self) -> None:
        """Claim a folder, and fill it where a predecessor has not."""
        if self._lock is not None and not _is_held(self._folder, self._lock):
            self.close()
        if self._lock is None:
            self._claim()
        if self._objects is None:
            if not self._ref_file.exists():
                self.rebuild()
            else:
                self._attach()

    def end_within(self, seconds: float) -> None:
        """From now on everything together may take so many seconds; called from another thread, at the end."""
        self._room.end_within(seconds)

    def close(self) -> None:
        """End the processes that read objects, and give the folder to whoever comes next."""
        self._detach()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def rebuild(self) -> None:
        """Make the copy anew beside the old one, which is given up only then."""
        self._detach()
        draft, old = (self._folder.with_name(f"{self._folder.name}.{word}") for word in ("new", "old"))
        for left_over in (draft, old):
            _remove(left_over)
        draft.mkdir(mode=0o700)
        self._run("init", "--quiet", "--bare", "--template=", folder=draft)
        self._fetch(folder=draft, timeout=self._room.timeout * FIRST_FETCH)
        if self._folder.exists():
            self._folder.rename(old)
        draft.rename(self._folder)
        _remove(old)
        self._attach()

    @property
    def tip(self) -> str:
        """The newest revision of the branch that we know of."""
        try:
            tip = self._ref_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise Damaged("the branch cannot be read") from error
        if not REVISION.fullmatch(tip):
            raise Damaged("the branch names no revision")
        return tip

    def fetch(self, *, since: float) -> None:
        """Ask the remote for its tip, unless that was done after `since` on the monotonic clock."""
        if self._fetched_at >= since:
            if self._fetch_error:
                raise self._fetch_error
            return
        self._fetch(folder=self._folder, timeout=self._room.timeout)

    def take_rewind(self) -> str | None:
        """A revision that the branch has left behind since this was asked last: somebody rewound it."""
        left_behind, self._left_behind = self._left_behind, None
        return left_behind

    def blob(self, revision: str, path: str) -> bytes:
        """A file's bytes at a revision; raises `Failed` where it has none."""
        return self._read(self._way(revision, path)[-1][2])[1]

    def commit(
        self,
        *,
        parent: str,
        path: str,
        content: bytes,
        author: str,
        committer: str,
        message: str,
        sign: Callable[[bytes], bytes] | None,
    ) -> str:
        """Make a commit on `parent` that changes one file, and return its revision. Nothing is pushed.

        `author` and `committer` are git's identity lines with their dates: equal arguments, equal revision.
        `sign` puts a signature into the finished commit.
        """
        new = self._opened.add("blob", content)
        for raw, place, _ in reversed(self._way(parent, path)):
            new = self._opened.add("tree", raw[:place] + bytes.fromhex(new) + raw[place + 20 :])
        head = f"tree {new}\nparent {parent}\nauthor {author}\ncommitter {committer}\n\n{message.strip()}\n"
        commit = head.replace("\0", "").encode(errors="replace")
        return self._opened.add("commit", sign(commit) if sign else commit)

    def push(
        self, *, tip: str, revision: str, tags: Mapping[str, str] | None = None, dry_run: bool = False
    ) -> bool:
        """Move the remote branch from `tip` to `revision`, and make new `tags` with it: all of that or nothing.

        False where the branch was not at `tip`, or a tag was there already. The lease names the revision's own
        parent, or another ancestor of it, so a push can only ever go forward.
        """
        started_at = time.monotonic()
        flags = ["--dry-run"] if dry_run else []
        if not self._send(self._ref, was=tip, revision=revision, tags=tags or {}, flags=flags):
            return False
        if not dry_run:
            self._fetched_at, self._fetch_error = started_at, None
            self._move_ref(revision)
            for name, tag in (tags or {}).items():
                self._run("update-ref", f"refs/tags/{name}", tag)
        return True

    def tag(
        self, name: str, revision: str, *, tagger: str, message: str, sign: Callable[[bytes], bytes] | None
    ) -> str:
        """Make an annotated tag and return its id. Nothing is pushed; equal arguments, equal id."""
        head = f"object {revision}\ntype commit\ntag {name}\ntagger {tagger}\n\n{message.strip()}\n"
        raw = head.replace("\0", "").encode(errors="replace")
        return self._opened.add("tag", sign(raw) if sign else raw)

    def head(self, branch: str) -> str | None:
        """The tip of a branch that is read with this one, as far as the copy knows."""
        return self._commit_of(f"refs/heads/{branch}")

    def tagged(self, name: str) -> str | None:
        """The commit that a tag names, as far as the copy knows."""
        return self._commit_of(f"refs/tags/{name}")

    def tags(self, *, at: str | None = None) -> list[str]:
        """The names of all tags that the copy knows, or of those on a commit."""
        there = [f"--points-at={at}"] if at else []
        return self._run("for-each-ref", "--format=%(refname:lstrip=2)", *there, "refs/tags").out.split()

    def told_by_tags(self, name: str = "", *, is_held: bool = False, without: str = "") -> list[Logged]:
        """The annotated tags with trailers, newest first: each as the commit that it names.

        Those of a name alone, or under it where it ends with a slash; `is_held`: of what the branch holds;
        `without` those under another one.
        """
        parts = ("refname:lstrip=2", "*objectname", "taggername", "taggeremail:trim", "taggerdate:unix")
        layout = "".join(f"%({part})%00" for part in (*parts, "contents:body"))
        held = [f"--merged={self._ref}"] if is_held else []
        listed = ("--sort=-taggerdate", f"--format={layout}", *held, f"refs/tags/{name}")
        fields = iter(self._run("for-each-ref", *listed).out.split("\0"))
        found = zip(*[fields] * 6, strict=False)
        # Git itself finds no trailers before a signature, which stands at the end of a tag's message.
        return [
            _logged(revision, name, email, at, body.strip().rpartition("\n\n")[2])
            for tag, revision, name, email, at, body in found
            if not (without and tag.strip().startswith(without))
        ]

    def beside(self, branch: str) -> str | None:
        """The revision of another branch of the remote as it is now, with its commit brought here; None for no such one."""
        ref = f"refs/heads/{branch}"
        output = self._ask("ls-remote", self.repository.url, ref)
        revision = output.out.partition("\t")[0].strip()
        if not revision:
            return None
        if not self.knows(revision):
            self._ask("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", self.repository.url, ref)
        return revision

    def put_beside(self, branch: str, *, was: str | None, revision: str) -> bool:
        """Set another branch of the remote; False where it was not at `was`; None: where it was there at all."""
        return self._send(f"refs/heads/{branch}", was=was or "", revision=revision)

    def text(self, revision: str) -> str:
        """A commit as git stores it: its head, an empty line, its message."""
        return self._read(revision)[1].decode(errors="replace")

    def contains(self, revision: str, commit: str) -> bool:
        """Is `commit` the known `revision` itself, or one of its ancestors?"""
        if revision == commit:
            return True
        output = self._run("merge-base", "--is-ancestor", commit, revision, allow=(0, 1, 128))
        if output.code == 128 and "Not a valid" not in output.err:
            raise Damaged(output.words)
        # The copy holds all ancestors of what it holds: a commit that it does not know is none of them.
        return output.code == 0

    def parent(self, revision: str) -> str | None:
        """The first parent of a commit; None for the first commit of all."""
        found = _PARENT.search(self._read(revision)[1].partition(b"\n\n")[0])
        return found[1].decode() if found else None

    def knows(self, revision: str) -> bool:
        """Does the copy hold this commit?"""
        return self.author(revision) is not None

    def last_push(self, path: str) -> Push | None:
        """The newest commit that changed the file, as far as the copy knows."""
        found = self._run("log", "-1", "--format=%H%x00%an%x00%ct", self._ref, "--", path).out
        if not found:
            return None
        revision, author, seconds = found.split("\0")
        at = _date(seconds)
        return Push(revision=revision, author=author, at=at) if at else None

    def changes(self, path: str, *, limit: int) -> list[str]:
        """The revisions in which the branch itself changed the file, newest first; a merge is one change."""
        listed = ("--first-parent", f"--max-count={limit}", "--format=%H", self._ref)
        return self._run("log", *listed, "--", path).out.split()

    def tidy(self) -> None:
        """Put the packs together where there are many, and clear up what was broken off; for an idle moment."""
        packs = self._folder / "objects" / "pack"
        unfinished = {pack for pack in packs.glob("*.pack") if not pack.with_suffix(".idx").exists()}
        for left_over in {*unfinished, *packs.glob("tmp_*"), *packs.glob("*.new")}:
            left_over.unlink(missing_ok=True)
        if sum(1 for _ in packs.glob("*.idx")) >= MANY_PACKS:
            self._run("repack", "--geometric=2", "-d", "-l", "--quiet")

    def author(self, revision: str) -> str | None:
        """The name of a commit's author; None where the copy does not hold the commit."""
        found = self._opened.find(revision) if REVISION.fullmatch(revision) else None
        if found is None or found[0] != "commit":
            return None
        name = re.search(rb"^author (.*?) ?<", found[1], re.MULTILINE)
        return name[1].decode(errors="replace") if name else "somebody"

    def search(self, line: str, *, after: str) -> list[Logged]:
        """The commits whose message holds `line`, oldest first, after a revision, or in all where that is gone."""
        return self._log(line, "--reverse", f"{after}..{self._ref}" if self.knows(after) else self._ref)

    def newest(self, line: str, *, committer: tuple[str, str] | None, limit: int) -> list[Logged]:
        """This committer's commits whose message holds `line`, newest first; a `.mailmap` renames nobody.

        None takes those of everybody, without merges: what such a one tells of is told by the commits that it brings.
        """
        by = ["--committer={} <{}>".format(*committer)] if committer else ["--no-merges"]
        return self._log(line, "--no-mailmap", *by, f"--max-count={limit}", self._ref)

    def touching(
        self, *span: str, places: Iterable[str], without: Iterable[str], limit: int
    ) -> list[Touched]:
        """The commits that changed one of these files and folders, newest first; `""` is everything.

        `span` says between which revisions, as git's log takes it; of `old...new`, those that only the old one has
        are left behind. A merge counts where it brings what none of its sides is alone, or drops what one had.
        """
        # The branches that such a merge leaves aside would be hidden by what git does without being told.
        layout = "%m%x00%an%x00%ae%x00%s%x00%H%x00%cn%x00%ce%x00%ct%x00%(trailers:only,unfold)%x00"
        how = ("--simplify-merges", "--left-right", f"--max-count={limit}", f"--format={layout}")
        paths = [f":(top,literal){place}" for place in places]
        paths += [f":(top,exclude,literal){place}" for place in without]
        output = self._run("--no-literal-pathspecs", "log", *how, *span, "--", *paths)
        fields = iter(output.out.split("\0"))
        return [_touched(*record) for record in zip(*[fields] * 9, strict=False)]

    def parent_if_only(self, revision: str, path: str) -> str | None:
        """The commit's parent, where there is one alone, and nothing but the content of this file lies between."""
        head = self._read(revision)[1].partition(b"\n\n")[0]
        parents = [each.decode() for each in _PARENT.findall(head)]
        if len(parents) != 1:
            return None
        try:
            ways = [self._way(each, path) for each in (*parents, revision)]
        except Failed:
            return None
        before, after = ([raw[:place] + raw[place + 20 :] for raw, place, _ in way] for way in ways)
        return parents[0] if before == after else None

    def holds(self, revision: str, path: str) -> bool:
        """Is there a file or a folder of this name?"""
        mode, object_id = _FOLDERS[0], self._read(revision)[1][5:45].decode()
        for part in path.split("/"):
            raw = self._read(object_id)[1] if mode in _FOLDERS else b""
            if (found := entry(raw, part)) is None:
                return False
            mode, place = found
            object_id = raw[place : place + 20].hex()
        return True

    def mentions(self, line: str, *, since: datetime) -> bool:
        """Does a commit of the branch hold `line`, of those from `since` on, as far as the copy knows?

        Read in memory: a process for it would cost a tenth of a push. A commit that is older than `since` by more than
        clocks differ ends the way back.
        """
        oldest = int((since - CLOCKS_DIFFER).timestamp())
        words, waiting, seen = line.encode(), [self.tip], set[str]()
        while waiting:
            revision = waiting.pop()
            head, _, message = self._read(revision)[1].partition(b"\n\n")
            seen.add(revision)
            if _committed_at(head) < oldest:
                continue
            if words in message:
                return True
            waiting += [
                parent for each in _PARENT.findall(head) if (parent := each.decode()) not in {*seen, *waiting}
            ]
        return False

    def _commit_of(self, ref: str) -> str | None:
        found = self._run("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", allow=(0, 1, 128))
        return found.out.strip() or None

    def _log(self, line: str, *arguments: str) -> list[Logged]:
        # NUL is the one character that no commit can smuggle into a name or a message.
        layout = "%H%x00%cn%x00%ce%x00%ct%x00%(trailers:only,unfold)%x00"
        grep = ("--fixed-strings", f"--grep={line}", f"--format={layout}")
        fields = iter(self._run("log", *grep, *arguments, "--").out.split("\0"))
        return [_logged(*record) for record in zip(fields, fields, fields, fields, fields, strict=False)]

    @property
    def _ref_file(self) -> Path:
        return self._folder / self._ref

    def _claim(self) -> None:
        """Take the first folder that nobody holds; the kernel gives a dead process's folder back."""
        repository = self.repository
        self._room.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._room.require_version()
        slug = re.sub(r"[^A-Za-z0-9]+", "-", repository.name).strip("-")
        address = hashlib.sha256(f"{repository.url}\n{repository.branch}".encode()).hexdigest()[:12]
        for number in range(MAX_PROCESSES):
            folder = self._cache / f"{slug}-{address}.{number}"
            if (lock := _claimed(folder)) is not None:
                self._folder, self._lock = folder, lock
                return
        raise Unavailable(
            "the git cache", f"{MAX_PROCESSES} other processes use every copy in {self._cache}."
        )

    @property
    def _opened(self) -> Objects:
        if self._objects is None:
            self._attach()
        assert self._objects is not None  # noqa: S101 - `_attach` has just seen to it
        return self._objects

    def _attach(self) -> None:
        self._objects = Objects(self._folder, self._room, owner=self.repository.name)

    def _detach(self) -> None:
        if self._objects is not None:
            self._objects.close()
            self._objects = None

    def _run(self, *arguments: str, folder: Path | None = None, allow: tuple[int, ...] = (0,)) -> Output:
        try:
            output = self._room.run(*arguments, folder=folder or self._folder, holding=self._lock)
        except TimedOut as error:
            raise Damaged(f"git {arguments[0]} did not end in time") from error
        if output.code not in allow:
            raise Damaged(output.words)
        return output

    def _fetch(self, *, folder: Path, timeout: float) -> None:
        started_at, self._fetched_at = time.monotonic(), float("-inf")
        before = self._known_tip() if folder == self._folder else ""
        # The copy follows the branch wherever it goes, also back.
        refspecs = [f"+{ref}:{ref}" for ref in dict.fromkeys((self._ref, *self.repository.beside))]
        options = (
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            *(["--prune"] if len(refspecs) > 1 else []),
        )
        arguments = ("fetch", *options, self.repository.url, *refspecs)
        error: Exception | None = None
        try:
            output = self._room.run(
                *arguments, folder=folder, remote=True, timeout=timeout, holding=self._lock
            )
            if output.code:
                error = trouble(output, self.repository)
            if isinstance(error, NoBranch) and not self._lists_branches(folder):
                # A page of a proxy looks to git like a repository without anything in it.
                error = Unavailable(GIT_HOST, f"it shows no branch at all of {self.repository.name}.")
        except TimedOut:
            error = silence(timeout)
        if isinstance(error, Damaged):
            raise error
        if before and not error and self.tip != before and self.knows(before):
            self._left_behind = self._left_behind if self.contains(self.tip, before) else before
        self._fetched_at, self._fetch_error = started_at, error
        if error:
            raise error

    def _send(
        self,
        ref: str,
        *,
        was: str,
        revision: str,
        tags: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> bool:
        """Push a commit of ours, and new tags with it; False where the ref was not at `was`, or a tag was there."""
        self._opened.save()
        moves = [
            (ref, was, revision),
            *((f"refs/tags/{name}", "", tag) for name, tag in (tags or {}).items()),
        ]
        leases = [f"--force-with-lease={name}:{expected}" for name, expected, _ in moves]
        refspecs = [f"{object_id}:{name}" for name, _, object_id in moves]
        options = ("--porcelain", "--no-verify", *(["--atomic"] if tags else []), *flags)
        try:
            output = self._room.run(
                *("push", *options, *leases, self.repository.url, *refspecs),
                folder=self._folder,
                remote=True,
                holding=self._lock,
            )
        except TimedOut as error:
            raise silence(self._room.timeout, maybe_done=True) from error
        if output.code:
            check_race(output, replace(self.repository, branch=ref.removeprefix("refs/heads/")))
        return output.code == 0

    def _ask(self, *arguments: str) -> Output:
        """A question to the remote; raises what its words mean."""
        try:
            output = self._room.run(*arguments, folder=self._folder, remote=True, holding=self._lock)
        except TimedOut as error:
            raise silence(self._room.timeout) from error
        if output.code:
            raise trouble(output, self.repository)
        return output

    def _known_tip(self) -> str:
        try:
            return self.tip
        except Damaged:
            return ""

    def _lists_branches(self, folder: Path) -> bool:
        listed = self._room.run(
            "ls-remote", "--heads", self.repository.url, folder=folder, remote=True, holding=self._lock
        )
        return listed.code == 0 and bool(listed.out.strip())

    def _move_ref(self, revision: str) -> None:
        """Remember what we pushed; by hand, since a git process would cost as much as the rest of the edit."""
        try:
            self._ref_file.write_text(f"{revision}\n")
        except OSError:
            # The push is done, and that must be told; the next fetch brings the tip.
            self._fetched_at = float("-inf")

    def _way(self, revision: str, path: str) -> list[tuple[bytes, int, str]]:
        """From the top to the file: each folder's raw tree, where in it the next id stands, and that id."""
        object_id = self._read(revision)[1][5:45].decode()
        way: list[tuple[bytes, int, str]] = []
        parts = path.split("/")
        for depth, part in enumerate(parts, start=1):
            raw = self._read(object_id)[1]
            if (found := entry(raw, part)) is None:
                raise self._no_file(path, part, raw)
            mode, place = found
            object_id = raw[place : place + 20].hex()
            self._require(mode, object_id, path="/".join(parts[:depth]), is_file=depth == len(parts))
            way.append((raw, place, object_id))
        return way

    def _require(self, mode: bytes, object_id: str, *, path: str, is_file: bool) -> None:
        """Refuse what is no plain file, or no folder on the way to one."""
        if mode.startswith(b"100") if is_file else mode in _FOLDERS:
            return
        where = f"{path} in {self.repository.name}"
        if mode == b"120000":
            link = self._read(object_id)[1].decode(errors="replace")[:200]
            raise Failed(f"{where} is a symbolic link to {link}. Please name the file itself.")
        if mode == b"160000":
            raise Failed(f"{where} is a submodule: its files are in a repository of their own.")
        is_what = "a folder, not a file" if mode in _FOLDERS else "a file, not a folder"
        raise Failed(f"{where} is {is_what}. Please name the values file.")

    def _no_file(self, path: str, part: str, tree: bytes) -> Failed:
        hint = nearest(part, list(names(tree))[:2000])
        hint = hint if len(hint) < 200 else ""
        name, branch = self.repository.name, self.repository.branch
        return Failed(f"There is no file {path} on the branch {branch} of {name}.{hint}")

    def _read(self, object_id: str) -> tuple[str, bytes]:
        return self._opened.read(object_id)


def _is_held(folder: Path, lock: int | None) -> bool:
    """Is the lock still the one of this folder, or was it deleted with everything else?"""
    try:
        return lock is not None and os.fstat(lock).st_ino == _lock_file(folder).stat().st_ino
    except OSError:
        return False


def _remove(place: Path) -> None:
    """A folder with all that is in it, or a file that stands in its place."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


def _claimed(folder: Path) -> int | None:
    """The lock of a folder that is ours now; None where somebody works in it, or where it belongs to another user."""
    try:
        if folder.exists() and folder.stat().st_uid != os.geteuid():
            return None
        lock = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _committed_at(head: bytes) -> float:
    """The committer's date, Unix seconds; a date that cannot be read is no reason to stop looking."""
    found = _COMMITTED.search(head)
    return int(found[1]) if found else float("inf")


def _date(seconds: str) -> datetime | None:
    """A commit's date; anybody may write a commit, with any number in it."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _logged(revision: str, name: str, email: str, seconds: str, text: str) -> Logged:
    lines = [line.partition(":") for line in text.splitlines()]
    trailers = tuple((key.strip(), value.strip()) for key, _, value in lines)
    return Logged(revision=revision.strip(), committer=(name, email), at=_date(seconds), trailers=trailers)


def _touched(mark: str, author: str, email: str, subject: str, *logged: str) -> Touched:
    return Touched(
        logged=_logged(*logged),
        author=author,
        email=email,
        subject=subject,
        is_left_behind=mark.strip() == "<",
    )
