"""Where a file comes from: the newest commit that changed it, in the git work tree that it lies in.

Nothing of that repository is run: no hook, filter, pager or helper, and nothing is fetched for it.
"""

from __future__ import annotations

import configparser
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from git import GitError, InvalidGitRepositoryError, NoSuchPathError, Repo

from bot.integrations.cleanroom import CleanRoom, TimedOut

WITHIN = 5.0
"""Seconds for one command; the bot starts meanwhile."""
_TRANSPORTS = ("ext", "fd", "file", "git", "http", "https", "ssh")
"""None of them is used, whatever the repository's own configuration allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The commit that a file comes from: 40 hex digits, and its author's e-mail address; empty where unknown."""

    revision: str = ""
    author: str = ""
    doubt: str = ""
    """Why nobody can tell although the file lies in a repository; empty where it lies in none."""


def origin_of(file: Path) -> Origin:
    """The newest commit that changed the file, where that holds the file as it is now. Raises nothing."""
    try:
        place = file.resolve(strict=True)
        with Repo(place.parent, search_parent_directories=True) as repository:
            tree, folders = (
                repository.working_tree_dir,
                (Path(repository.git_dir), Path(repository.common_dir)),
            )
        if tree is None:
            return Origin()
        return _origin(place, Path(tree).resolve(), *folders)
    except (InvalidGitRepositoryError, NoSuchPathError):
        return Origin()
    except TimedOut:
        return Origin(doubt="git did not answer in time")
    except (OSError, ValueError, LookupError, TypeError, GitError, configparser.Error) as error:
        return Origin(doubt=f"{type(error).__name__}: {error}"[:200])


def _origin(file: Path, tree: Path, folder: Path, common: Path) -> Origin:
    if any(each.stat().st_uid != os.geteuid() for each in (tree, folder, common)):
        return Origin(doubt="the repository belongs to somebody else")
    path = file.relative_to(tree).as_posix()
    committed = _git(folder, "rev-parse", "--verify", "--quiet", f"HEAD:{path}")
    if not committed:
        return Origin(doubt="the file is in no commit")
    if committed != _blob(file.read_bytes()):
        return Origin(doubt="the file is not as the newest commit has it")
    newest = ("--max-count=1", "--no-commit-header", "--format=%H%x00%ae", "HEAD", "--", path)
    revision, _, author = _git(folder, "rev-list", *newest).partition("\0")
    if not revision:
        return Origin(doubt="git does not say which commit changed the file")
    shallow = common / "shallow"
    if shallow.exists() and revision in shallow.read_text().split():
        # To git this one has brought every file, whoever really has.
        return Origin(doubt="the clone is shallow, and ends before the commit that changed the file")
    return Origin(revision=revision, author=author)


def _git(folder: Path, *arguments: str) -> str:
    """What git says, without blanks around it; empty where it refuses."""
    room = CleanRoom(
        url="",
        home=Path(os.devnull),
        credential=None,
        is_local=False,
        proxies={},
        ca_bundle=None,
        timeout=WITHIN,
    )
    settings = [word for name in _TRANSPORTS for word in ("-c", f"protocol.{name}.allow=never")]
    output = room.run(*settings, *arguments, folder=folder)
    return "" if output.code else output.out.strip()


def _blob(content: bytes) -> str:
    """The id that git gives to a file's bytes as they are."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
