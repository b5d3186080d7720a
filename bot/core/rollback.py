"""What was there before: the versions that a target has had, from the trailers of our own commits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.core.catalog import DIGEST, UNKNOWN, Image, Target
from bot.core.errors import Refused
from bot.core.ports import Written

MOST_NAMED = 5
REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One version that our commit brought, or that it found there, where `promotion` is None."""

    image: Image
    promotion: str | None = None
    brings: str = ""
    """The revision that was brought, where the target follows tags; empty where our commit does not tell."""


def deployed(written: Iterable[Written], target: Target) -> tuple[Deployed, ...]:
    """What stood in the target, oldest first, without what was rolled back: the last one is what stands there now.

    `written` are our commits, newest first. A rollback takes everything from the stack that came after the version
    that it brought back; so two rollbacks in a row go back two versions, and not to and fro.
    """
    stack: list[Deployed] = []
    known: set[str] = set()
    for commit in _oldest_first(written, target):
        _find(stack, commit)
        known |= {each.image.version for each in stack}
        _put(stack, commit, known)
    return tuple(stack)


def history(written: Iterable[Written], target: Target) -> tuple[Deployed, ...]:
    """Everything that ever stood in the target, oldest first, what was rolled back as well.

    Raises `Refused` where none of our commits tells of it.
    """
    stood: list[Deployed] = []
    for commit in _oldest_first(written, target):
        _find(stood, commit)
        stood.append(_brought(commit))
    if not stood:
        raise Refused(
            f"As far back as I look, none of my commits brought anything to {target.app} in {target.environment}, so "
            f"I know of nothing to go back to. Promote the version that you want: /promote {target.app} <version> {target.environment}"
        )
    return tuple(stood)


def since(written: Iterable[Written], target: Target) -> datetime | None:
    """When our newest commit of the target was made; None where there is none."""
    commits = _oldest_first(written, target)
    return commits[-1].at if commits else None


def before(stack: Sequence[Deployed], *, now: Image, bad: Iterable[str], target: Target) -> Deployed:
    """The newest version before the present one whose promotion is not among the `bad` ones, that failed."""
    bad = frozenset(bad)
    for each in reversed(stack):
        if not each.image.may_be(now) and each.promotion not in bad:
            return each
    raise Refused(
        f"I know of no version that {target.app} had in {target.environment} before {now.version}. "
        f"Say which one: /promote rollback {target.app} {target.environment} to <version>"
    )


def wanted(stood: Sequence[Deployed], version: str, target: Target) -> Deployed:
    """The version that somebody names, if the target has had it; raises `Refused` with those that it has had."""
    for each in reversed(stood):
        if each.image.version == version:
            return each
    had = list(dict.fromkeys(each.image.version for each in reversed(stood)))
    known = f" It had {', '.join(had[:MOST_NAMED])}." if had else ""
    raise Refused(
        f"{target.app} never had {version} in {target.environment}, as far as my commits tell, so that is no "
        f"rollback.{known}"
    )


def _oldest_first(written: Iterable[Written], target: Target) -> list[Written]:
    """The commits of this target alone."""
    name = (target.app, target.environment)
    ours = [each for each in written if (each.trailer("App"), each.trailer("Environment")) == name]
    return ours[::-1]


def _find(stood: list[Deployed], commit: Written) -> None:
    """Add what the commit found there, where somebody else wrote that."""
    old = commit.trailer("Old-Version")
    if not stood or stood[-1].image.version != old:
        stood.append(Deployed(image=Image(version=old)))


def _put(stack: list[Deployed], commit: Written, known: Collection[str]) -> None:
    """Add what the commit brought; a rollback brings it back from where it is in the stack."""
    version = commit.trailer("New-Version")
    if commit.trailer("Rollback-Of"):
        if (place := _place(stack, version)) is not None:
            del stack[place + 1 :]
            return
        if version not in known:
            stack.clear()  # it is older than every commit that we have read
    stack.append(_brought(commit))


def _brought(commit: Written) -> Deployed:
    revision = commit.trailer("Revision")
    return Deployed(
        image=_image(commit),
        promotion=commit.trailer("Promotion-Id") or None,
        brings=revision if REVISION.fullmatch(revision) else "",
    )


def _image(commit: Written) -> Image:
    digest = commit.trailer("Digest")
    return Image(
        version=commit.trailer("New-Version"), digest=digest if DIGEST.fullmatch(digest) else UNKNOWN
    )


def _place(stack: Sequence[Deployed], version: str) -> int | None:
    return next(
        (place for place in reversed(range(len(stack))) if stack[place].image.version == version), None
    )
