"""A bare copy of one branch on this disk: a cache, never state. One thread touches it.

Damage of any kind (a power cut, a stale lock, a full disk) ends as `Damaged`, and the copy is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git import Git
from git.db import GitCmdObjectDB
from gitdb.base import IStream
from gitdb.db import LooseObjectDB
from gitdb.exc import ODBError

from bot.core.catalog import Repository, nearest
from bot.core.errors import Failed, Unavailable
from bot.integrations.cleanroom import CleanRoom, Output, TimedOut
from bot.integrations.verdicts import Damaged, check_race, silence, trouble

MAX_PROCESSES = 32
MAX_BYTES = 50_000_000
"""The largest object that is read into memory."""
FIRST_FETCH = 10
"""How many times longer the first fetch may take: it brings the whole history."""

REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A commit that carries trailers."""

    revision: str
    committer: tuple[str, str]
    trailers: dict[str, str]


class Mirror:
    """The copy, in a folder of `cache` that no other process uses as long as this one is open."""

    def __init__(self, *, repository: Repository, cache: Path, room: CleanRoom) -> None:
        self.repository = repository
        self._room = room
        self._cache = cache
        self._ref = f"refs/heads/{repository.branch}"
        self._folder = cache
        self._lock: int | None = None
        self._git: Git | None = None
        self._fetched_at = float("-inf")
        self._fetch_error: Exception | None = None

    def open(self) -> None:
        """Claim a folder, and fill it where a predecessor has not."""
        if self._lock is None:
            self._claim()
        if self._git is None:
            if not self._ref_file.exists():
                self.rebuild()
            else:
                self._attach()

    def close(self) -> None:
        """End the processes that read objects, and give the folder to whoever comes next."""
        self._detach()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def rebuild(self) -> None:
        """Make the copy anew beside the old one, which is given up only then."""
        draft = self._folder.with_name(self._folder.name + ".new")
        self._detach()
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._run("init", "--quiet", "--bare", "--template=", folder=draft)
        self._fetch(folder=draft, timeout=self._room.timeout * FIRST_FETCH)
        shutil.rmtree(self._folder, ignore_errors=True)
        draft.rename(self._folder)
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

    def blob(self, revision: str, path: str) -> bytes:
        """A file's bytes at a revision; raises `Failed` where it has none."""
        return self._read(self._way(revision, path)[-1][2])[1]

    def commit(
        self, *, parent: str, path: str, content: bytes, author: str, committer: str, message: str
    ) -> str:
        """Store a commit on `parent` that changes one file, and return its revision. Nothing is pushed.

        `author` and `committer` are git's identity lines with their dates: equal arguments, equal revision.
        """
        new = self._store(b"blob", content)
        for raw, place, _ in reversed(self._way(parent, path)):
            new = self._store(b"tree", raw[:place] + bytes.fromhex(new) + raw[place + 20 :])
        head = f"tree {new}\nparent {parent}\nauthor {author}\ncommitter {committer}\n\n{message.strip()}\n"
        return self._store(b"commit", head.replace("\0", "").encode(errors="replace"))

    def push(self, *, tip: str, revision: str, dry_run: bool = False) -> bool:
        """Move the remote branch from `tip` to `revision`; False where it was not at `tip`.

        The lease names the revision's own parent, so a push can only ever go forward.
        """
        flags = ["--dry-run"] if dry_run else []
        lease = f"--force-with-lease={self._ref}:{tip}"
        refspec = f"{revision}:{self._ref}"
        try:
            output = self._room.run(
                *("push", "--porcelain", "--no-verify", *flags, lease, self.repository.url, refspec),
                folder=self._folder,
                remote=True,
                holding=self._lock,
            )
        except TimedOut as error:
            raise silence(self._room.timeout, maybe_done=True) from error
        if output.code:
            check_race(output, self.repository)
            return False
        if not dry_run:
            self._move_ref(revision)
        return True

    def contains(self, revision: str, commit: str) -> bool:
        """Is `commit` the known `revision` itself, or one of its ancestors?"""
        if revision == commit:
            return True
        output = self._run("merge-base", "--is-ancestor", commit, revision, allow=(0, 1, 128))
        if output.code == 128 and "Not a valid" not in output.err:
            raise Damaged(output.words)
        # The copy holds all ancestors of what it holds: a commit that it does not know is none of them.
        return output.code == 0

    def author(self, revision: str) -> str | None:
        """The name of a commit's author; None where the copy does not hold the commit."""
        found = self._find(revision) if REVISION.fullmatch(revision) else None
        if found is None or found[0] != "commit":
            return None
        name = re.search(rb"^author (.*?) ?<", found[1], re.MULTILINE)
        return name[1].decode(errors="replace") if name else "somebody"

    def search(self, line: str, *, after: str) -> list[Logged]:
        """The commits whose message holds `line`, oldest first, after a revision, or in all where that is gone."""
        span = f"{after}..{self._ref}" if self.author(after) is not None else self._ref
        # NUL is the one character that no commit can smuggle into a name or a message.
        layout = "%H%x00%cn%x00%ce%x00%(trailers:only,unfold)%x00"
        grep = ("--fixed-strings", f"--grep={line}")
        fields = iter(self._run("log", "--reverse", *grep, f"--format={layout}", span, "--").out.split("\0"))
        return [_logged(*record) for record in zip(fields, fields, fields, fields, strict=False)]

    @property
    def _ref_file(self) -> Path:
        return self._folder / self._ref

    def _claim(self) -> None:
        """Take the first folder that nobody holds; the kernel gives a dead process's folder back."""
        repository = self.repository
        slug = re.sub(r"[^A-Za-z0-9]+", "-", repository.name).strip("-")
        address = hashlib.sha256(f"{repository.url}\n{repository.branch}".encode()).hexdigest()[:12]
        self._room.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(MAX_PROCESSES):
            folder = self._cache / f"{slug}-{address}.{number}"
            lock = os.open(folder.with_name(folder.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._folder, self._lock = folder, lock
            return
        raise Unavailable(
            "the git cache", f"{MAX_PROCESSES} other processes use every copy in {self._cache}."
        )

    def _attach(self) -> None:
        self._git = Git(str(self._folder))
        objects = str(self._folder / "objects")
        environment = self._room.environment(remote=False)
        self._git.update_environment(**environment, GIT_DIR=str(self._folder), GIT_OBJECT_DIRECTORY=objects)
        self._objects = GitCmdObjectDB(objects, self._git)

    def _detach(self) -> None:
        if self._git is not None:
            self._git.clear_cache()
            self._git = None

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
        # The copy follows the branch wherever it goes, also back.
        refspec = f"+{self._ref}:{self._ref}"
        arguments = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", self.repository.url, refspec)
        error: Exception | None = None
        try:
            output = self._room.run(
                *arguments, folder=folder, remote=True, timeout=timeout, holding=self._lock
            )
            if output.code:
                error = trouble(output, self.repository)
        except TimedOut:
            error = silence(timeout)
        if isinstance(error, Damaged):
            raise error
        self._fetched_at, self._fetch_error = started_at, error
        if error:
            raise error

    def _move_ref(self, revision: str) -> None:
        """Remember what we pushed; by hand, since a git process would cost as much as the rest of the edit."""
        draft = self._folder / "pushed"
        try:
            draft.write_text(f"{revision}\n")
            draft.replace(self._ref_file)
        except OSError:
            # The push is done, and that must be told; the next fetch brings the tip.
            self._fetched_at = float("-inf")

    def _way(self, revision: str, path: str) -> list[tuple[bytes, int, str]]:
        """From the top to the file: each folder's raw tree, where in it the next id stands, and that id."""
        head = self._read(revision)[1]
        object_id = head[5:45].decode()
        way: list[tuple[bytes, int, str]] = []
        *folders, _ = parts = path.split("/")
        for depth, part in enumerate(parts):
            raw = self._read(object_id)[1]
            entries = {name: (mode, place) for mode, name, place in _entries(raw)}
            mode, place = entries.get(part.encode(), (b"", 0))
            if not (mode == b"40000" if depth < len(folders) else mode.startswith(b"100")):
                raise self._no_file(path, part, [] if mode else list(entries))
            object_id = raw[place : place + 20].hex()
            way.append((raw, place, object_id))
        return way

    def _no_file(self, path: str, part: str, names: list[bytes]) -> Failed:
        hint = nearest(part, [name.decode(errors="replace") for name in names[:2000]])
        hint = hint if len(hint) < 200 else ""
        name, branch = self.repository.name, self.repository.branch
        return Failed(f"There is no file {path} on the branch {branch} of {name}.{hint}")

    def _read(self, object_id: str) -> tuple[str, bytes]:
        if (found := self._find(object_id)) is None:
            raise Damaged(f"{object_id} is missing")
        return found

    def _find(self, object_id: str) -> tuple[str, bytes] | None:
        """An object's type and bytes, from git's own reading process; None where the copy does not hold it."""
        try:
            return self._ask(object_id)
        except (ValueError, OSError) as error:
            if str(error).endswith("missing'"):
                return None
            problem = error
        # The process may just have been ended, by a Ctrl-C in the terminal for one.
        self._detach()
        self._attach()
        try:
            return self._ask(object_id)
        except (ValueError, OSError) as error:
            self._detach()
            raise Damaged(f"{object_id} cannot be read: {problem}") from error

    def _ask(self, object_id: str) -> tuple[str, bytes]:
        stream = self._objects.stream(bytes.fromhex(object_id))
        if stream.size > MAX_BYTES:
            while stream.read(1 << 20):
                pass
            raise Failed(f"A file of {self.repository.name} is larger than {MAX_BYTES // 1_000_000} MB.")
        kind = stream.type.decode()
        content: bytes = stream.read()
        found = hashlib.sha1(f"{kind} {stream.size}\0".encode() + content, usedforsecurity=False)
        if found.hexdigest() != object_id:
            raise ValueError("its content has changed")
        return kind, content

    def _store(self, kind: bytes, content: bytes) -> str:
        """Write an object in this process: the database's own `store` starts a git process for each."""
        stream = IStream(kind, len(content), io.BytesIO(content))
        try:
            LooseObjectDB.store(self._objects, stream)
        except (OSError, ODBError) as error:
            raise Damaged(f"an object cannot be written: {error}") from error
        return str(stream.binsha.hex())


def _entries(tree: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Mode, name and the place of the 20-byte id of each entry; a search by bytes could match inside an id."""
    place = 0
    while place < len(tree):
        nul = tree.index(b"\0", place)
        mode, _, name = tree[place:nul].partition(b" ")
        yield mode, name, nul + 1
        place = nul + 21


def _logged(revision: str, name: str, email: str, text: str) -> Logged:
    trailers: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        trailers.setdefault(key.strip(), value.strip())
    return Logged(revision=revision.strip(), committer=(name, email), trailers=trailers)
