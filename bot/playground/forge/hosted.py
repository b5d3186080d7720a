"""A bare repository as a git host keeps it: merges are made by git itself, and a protected branch takes no push."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOM = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
_FIELDS = ("%an", "%ae", "%ad", "%B")


class CannotMerge(Exception):
    """Git finds a conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Whose name stands in the commits that the host makes."""

    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that differs between two revisions."""

    kind: str
    """Git's letter: `A`, `D`, `M`, `R`, `T`."""
    old: str
    new: str
    modes: tuple[str, str]
    patch: str
    """Its hunks; empty where no lines differ."""


class HostedRepository:
    """What a host does to a repository, beside taking pushes. `hand` is the host's own committer."""

    def __init__(self, folder: Path, *, hand: Hand) -> None:
        self.folder = folder
        self._hand = hand

    def head(self, branch: str) -> str | None:
        """The revision of a branch; None where there is no such one."""
        found = self._run("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}")
        return found.stdout.strip() or None

    def contains(self, branch: str, revision: str) -> bool:
        """Does the branch hold this commit?"""
        return self._run("merge-base", "--is-ancestor", revision, f"refs/heads/{branch}").returncode == 0

    def count(self, base: str, head: str) -> int:
        """How many commits `head` has that `base` has not."""
        return int(self._git("rev-list", "--count", f"{base}..{head}"))

    def merge_base(self, base: str, head: str) -> str:
        """The newest commit of `base` that `head` stands on."""
        return self._git("merge-base", base, head)

    def differences(self, before: str, after: str) -> list[Difference]:
        """The files that differ between two revisions; what was renamed is one of them."""
        fields = iter(self._git("diff", "--raw", "-z", "--find-renames", before, after).split("\0"))
        found = []
        for head in fields:
            if not head:
                continue
            mode_before, mode_after, _, _, kind = head.removeprefix(":").split()
            old = next(fields)
            new = next(fields) if kind[0] in "RC" else old
            shown = self._git("diff", "--find-renames", before, after, "--", old, new)
            _, mark, hunks = shown.partition("\n@@")
            found.append(
                Difference(
                    kind=kind[0],
                    old=old,
                    new=new,
                    modes=(mode_before, mode_after),
                    patch=f"@@{hunks}\n" if mark else "",
                )
            )
        return found

    def protect(self, branch: str, *, words: str) -> None:
        """Decline every push to the branch, with these words; others are taken."""
        hook = self.folder / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        lines = "\n".join(f"    echo '{line}' >&2" for line in words.splitlines())
        hook.write_text(
            f'#!/bin/sh\nwhile read -r _ _ ref; do\n  if [ "$ref" = refs/heads/{branch} ]; then\n{lines}\n'
            "    exit 1\n  fi\ndone\n"
        )
        hook.chmod(0o755)

    def delete(self, branch: str) -> bool:
        """Delete a branch; False where there is no such one."""
        if self.head(branch) is None:
            return False
        self._git("update-ref", "-d", f"refs/heads/{branch}")
        return True

    def can_merge(self, base: str, head: str) -> bool:
        """Do the two revisions merge without a conflict?"""
        return self._run("merge-tree", "--write-tree", base, head).returncode == 0

    def merge(self, branch: str, head: str, *, message: str) -> str:
        """A merge commit on the branch; raises `CannotMerge`."""
        tip = self._tip(branch)
        return self._move(branch, tip, self._commit(self._merged(tip, head), tip, head, message=message))

    def squash(self, branch: str, head: str, *, message: str) -> str:
        """All of `head` as one commit on the branch; raises `CannotMerge`."""
        tip = self._tip(branch)
        return self._move(branch, tip, self._commit(self._merged(tip, head), tip, message=message))

    def rebase(self, branch: str, head: str) -> str:
        """Each commit of `head` anew on the branch, by its author, with its message; raises `CannotMerge`."""
        tip = onto = self._tip(branch)
        for each in self._git("rev-list", "--reverse", f"{tip}..{head}").split():
            parent = self._git("rev-parse", f"{each}^")
            # The branch as it is now, as a sibling of the commit: git takes what lies between the two.
            sibling = self._commit(self._git("rev-parse", f"{onto}^{{tree}}"), parent, message="sibling")
            onto = self._commit(self._merged(sibling, each), onto, like=each)
        return self._move(branch, tip, onto)

    def fast_forward(self, branch: str, head: str) -> str:
        """Move the branch to `head`; raises `CannotMerge` where that is none of its descendants."""
        tip = self._tip(branch)
        if self._run("merge-base", "--is-ancestor", tip, head).returncode:
            raise CannotMerge
        return self._move(branch, tip, head)

    def _tip(self, branch: str) -> str:
        tip = self.head(branch)
        if tip is None:
            raise CannotMerge
        return tip

    def _merged(self, ours: str, theirs: str) -> str:
        done = self._run("merge-tree", "--write-tree", ours, theirs)
        if done.returncode:
            raise CannotMerge
        return done.stdout.split()[0]

    def _commit(self, tree: str, *parents: str, message: str = "", like: str = "") -> str:
        who = {"GIT_COMMITTER_NAME": self._hand.name, "GIT_COMMITTER_EMAIL": self._hand.email}
        who |= {"GIT_AUTHOR_NAME": self._hand.name, "GIT_AUTHOR_EMAIL": self._hand.email}
        if like:
            layout = f"--format={'%x00'.join(_FIELDS)}"
            name, email, at, message = self._git("show", "-s", "--date=raw", layout, like).split("\0")
            who |= {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": at}
        on = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", tree, *on, stdin=message, who=who)

    def _move(self, branch: str, was: str, revision: str) -> str:
        self._git("update-ref", f"refs/heads/{branch}", revision, was)
        return revision

    def _git(self, *words: str, stdin: str | None = None, who: dict[str, str] | None = None) -> str:
        done = self._run(*words, stdin=stdin, who=who)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def _run(
        self, *words: str, stdin: str | None = None, who: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=ROOM | {"GIT_DIR": str(self.folder)} | (who or {}),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
