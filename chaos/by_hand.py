"""Somebody changes files in the repository by hand, while the bot pushes to it too."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bot.playground.repository import BRANCH, head, read_file

TRIES = 20
_WHO = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "Sam Okafor", "EMAIL": "sam@acme.example"}.items()
}


def set_version(repository: Path, path: str, version: str) -> str:
    """Put a version into a values file; returns the revision."""
    return push(repository, {path: with_version(read_file(repository, path), version)})


def with_version(text: str, version: str) -> str:
    """The text of a values file, with another version in it."""
    return re.sub('tag: ".*?"', f'tag: "{version}"', text)


def push(repository: Path, files: Mapping[str, str]) -> str:
    """Commit these texts on top of the branch, wherever others bring it meanwhile; returns the revision.

    Raises `RuntimeError` where others were faster all the time.
    """
    with TemporaryDirectory() as workshop:
        for _ in range(TRIES):
            tip = head(repository) or ""
            revision = _commit(repository, files, parent=tip, index=Path(workshop) / "index")
            if _git(repository, "update-ref", f"refs/heads/{BRANCH}", revision, tip, check=False) is not None:
                return revision
    raise RuntimeError("Others push to the branch all the time.")


def _commit(repository: Path, files: Mapping[str, str], *, parent: str, index: Path) -> str:
    def git(*words: str, stdin: str | None = None) -> str:
        return _git(repository, *words, stdin=stdin, environment={"GIT_INDEX_FILE": str(index)}) or ""

    git("read-tree", parent)
    for path, text in files.items():
        blob = git("hash-object", "-w", "--stdin", stdin=text)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    return git("commit-tree", git("write-tree"), "-p", parent, "-m", "Change a file by hand")


def _git(
    repository: Path,
    *words: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> str | None:
    """What git says; None where it fails, and that is no error."""
    done = subprocess.run(
        ["git", f"--git-dir={repository}", *words],
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **_WHO, **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=check,
    )
    return done.stdout.strip() if done.returncode == 0 else None
