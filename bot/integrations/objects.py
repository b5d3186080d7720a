"""The objects of a bare repository, read through one long-lived git process and written by this one."""

from __future__ import annotations

import hashlib
import io
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from git import Git
from git.db import GitCmdObjectDB
from gitdb.base import OStream
from gitdb.pack import PackEntity

from bot.core.errors import Failed
from bot.integrations.cleanroom import CleanRoom
from bot.integrations.verdicts import Damaged

MAX_BYTES = 50_000_000
"""The largest object that is read into memory."""
REMEMBERED_BYTES = 16_000_000
"""How much of what was read or written last is kept: a batch of commits reads the trees that it has just written."""


class Objects:
    """One thread's view of the object database in `folder`; raises `Damaged` where it cannot be used."""

    def __init__(self, folder: Path, room: CleanRoom, *, owner: str) -> None:
        self._folder = folder
        self._room = room
        self._owner = owner
        self._known: dict[str, tuple[str, bytes]] = {}
        self._known_bytes = 0
        self._new: dict[str, tuple[str, bytes]] = {}
        self._start()

    def close(self) -> None:
        """End the reading process."""
        self._git.clear_cache()

    def read(self, object_id: str) -> tuple[str, bytes]:
        """An object's type and bytes, also of one that is not saved yet."""
        if (found := self._new.get(object_id) or self.find(object_id)) is None:
            raise Damaged(f"{object_id} is missing")
        return found

    def find(self, object_id: str) -> tuple[str, bytes] | None:
        """An object's type and bytes; None where the copy does not hold it."""
        if found := self._known.get(object_id):
            return found
        try:
            return self._ask(object_id)
        except (ValueError, OSError) as error:
            if str(error).endswith("missing'"):
                return None
            problem = error
        # The process may just have been ended from outside.
        self.close()
        self._start()
        try:
            return self._ask(object_id)
        except (ValueError, OSError) as error:
            raise Damaged(f"{object_id} cannot be read: {problem}") from error

    def add(self, kind: str, content: bytes) -> str:
        """Keep a new object in memory, until `save`; returns its id."""
        object_id = _id(kind, content)
        self._new[object_id] = (kind, content)
        return object_id

    def save(self) -> None:
        """Write what was added as one pack: a file for each object would cost more than the rest of an edit."""
        if not self._new:
            return
        pack, index = io.BytesIO(), io.BytesIO()
        streams = [
            OStream(bytes.fromhex(object_id), kind.encode(), len(content), io.BytesIO(content))
            for object_id, (kind, content) in self._new.items()
        ]
        PackEntity.write_pack(streams, pack.write, index.write, len(streams), zlib_compression=0)
        place = self._folder / "objects" / "pack" / f"pack-{secrets.token_hex(20)}"
        written, draft = place.with_suffix(".pack"), place.with_suffix(".new")
        try:
            written.write_bytes(pack.getvalue())
            draft.write_bytes(index.getvalue())
            # A pack is seen as soon as its index is there.
            draft.rename(place.with_suffix(".idx"))
        except OSError as error:
            written.unlink(missing_ok=True)
            draft.unlink(missing_ok=True)
            raise Damaged(f"a pack cannot be written: {error.strerror}") from error
        for object_id, (kind, content) in self._new.items():
            self._remember(object_id, kind, content)
        self._new.clear()

    def _start(self) -> None:
        self._git = Git(str(self._folder))
        # GitPython would hand its reading process every variable of ours, secrets too.
        reader = self._room.start("cat-file", "--batch", folder=self._folder)
        self._git.cat_file_all = Git.AutoInterrupt(reader, ["git", "cat-file", "--batch"])
        self._objects = GitCmdObjectDB(str(self._folder / "objects"), self._git)

    def _ask(self, object_id: str) -> tuple[str, bytes]:
        stream = self._objects.stream(bytes.fromhex(object_id))
        if stream.size > MAX_BYTES:
            while stream.read(1 << 20):
                pass
            raise Failed(f"A file of {self._owner} is larger than {MAX_BYTES // 1_000_000} MB.")
        kind = stream.type.decode()
        content: bytes = stream.read()
        if _id(kind, content) != object_id:
            raise ValueError("its content has changed")
        self._remember(object_id, kind, content)
        return kind, content

    def _remember(self, object_id: str, kind: str, content: bytes) -> None:
        if object_id in self._known:
            return
        self._known[object_id] = (kind, content)
        self._known_bytes += len(content)
        while self._known_bytes > REMEMBERED_BYTES:
            _, oldest = self._known.pop(next(iter(self._known)))
            self._known_bytes -= len(oldest)


def _id(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def entry(tree: bytes, name: str) -> tuple[bytes, int] | None:
    """An entry's mode, and where in the raw tree its 20-byte id stands; None where there is none.

    The tree is walked from its beginning: a search for the name alone could match inside somebody's id.
    """
    found = re.match(
        rb"(?:[0-7]+ [^\0]+\0.{20})*?([0-7]+) " + re.escape(name.encode()) + rb"\0", tree, re.DOTALL
    )
    return (found[1], found.end()) if found else None


def names(tree: bytes) -> Iterator[str]:
    """The names of all entries of a raw tree."""
    place = 0
    while place < len(tree):
        nul = tree.index(b"\0", place)
        yield tree[place:nul].partition(b" ")[2].decode(errors="replace")
        place = nul + 21
