"""What was there before: the versions that a target has had, from the trailers of our own commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.core.catalog import DIGEST, UNKNOWN, Image, Target
from bot.core.errors import Refused
from bot.core.ports import Written

MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One version that our commit brought, or that it found there, where `promotion` is None."""

    image: Image
    promotion: str | None = None


def deployed(written: Iterable[Written], target: Target) -> tuple[Deployed, ...]:
    """What stood in the target, oldest first, without what was rolled back: the last one is what stands there now.

    `written` are our commits, newest first. A rollback takes everything from the stack that came after the version
    that it brought back; so two rollbacks in a row go back two versions, and not to and fro.
    """
    stack: list[Deployed] = []
    for commit in reversed([each for each in written if _is_of(each, target)]):
        new, old = commit.trailer("New-Version"), commit.trailer("Old-Version")
        if not stack or stack[-1].image.version != old:
            stack.append(Deployed(image=Image(version=old)))  # somebody else wrote that one
        if commit.trailer("Rollback-Of") and (place := _place(stack, new)) is not None:
            del stack[place + 1 :]
        else:
            stack.append(Deployed(image=_image(commit), promotion=commit.trailer("Promotion-Id") or None))
    return tuple(stack)


def before(stack: Sequence[Deployed], *, now: Image, bad: Iterable[str], target: Target) -> Deployed:
    """The newest version before the present one whose promotion is not among the `bad` ones, that failed."""
    bad = frozenset(bad)
    for each in reversed(stack):
        if each.image.version != now.version and each.promotion not in bad:
            return each
    raise Refused(
        f"I know of no version that {target.app} had in {target.environment} before {now.version}. "
        f"Say which one: /promote rollback {target.app} {target.environment} to <version>"
    )


def wanted(stack: Sequence[Deployed], version: str, target: Target) -> Deployed:
    """The version that somebody names, if the target has had it; raises `Refused` with those that it has had."""
    for each in reversed(stack):
        if each.image.version == version:
            return each
    had = list(dict.fromkeys(each.image.version for each in reversed(stack)))
    known = f" It had {', '.join(had[:MOST_NAMED])}." if had else ""
    raise Refused(
        f"{target.app} never had {version} in {target.environment}, as far as my commits tell, so that is no "
        f"rollback.{known}"
    )


def _is_of(commit: Written, target: Target) -> bool:
    return (commit.trailer("App"), commit.trailer("Environment")) == (target.app, target.environment)


def _image(commit: Written) -> Image:
    digest = commit.trailer("Digest")
    return Image(
        version=commit.trailer("New-Version"), digest=digest if DIGEST.fullmatch(digest) else UNKNOWN
    )


def _place(stack: Sequence[Deployed], version: str) -> int | None:
    return next(
        (place for place in reversed(range(len(stack))) if stack[place].image.version == version), None
    )
