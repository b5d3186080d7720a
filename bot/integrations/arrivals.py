"""What others brought to a branch: for each values file that was changed, the commit that brought what it holds now."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from bot.core.catalog import UNKNOWN, Image, Target
from bot.core.errors import Failed
from bot.core.noticing import Arrivals, Brought, require_version
from bot.integrations.mirror import Mirror, Touched
from bot.integrations.target_file import TargetFile

MOST = 500
"""Commits that are read, the newest ones."""


def arrivals(
    mirror: Mirror, targets: Sequence[Target], *, since: str | None, committer: tuple[str, str] | None
) -> Arrivals:
    """What came to the branch after `since`, as far as the copy knows; nothing where it does not know that one.

    A merge counts as one change of the branch, made by whoever merged. `committer` is the bot; None: whoever merges what
    it proposes, and then a merge that brings nothing but the bot's own commit is that commit.
    """
    tip = mirror.tip
    if since in (None, tip) or not mirror.knows(str(since)):
        return Arrivals(tip=tip)
    places = sorted({target.path for target in targets})
    found = mirror.touching("--first-parent", f"{since}..{tip}", places=places, without=(), limit=MOST)
    brought: list[Brought] = []
    unreadable: list[str] = []
    for target in targets if found else ():
        try:
            brought += _brought(mirror, target, found, tip=tip, committer=committer)
        except Failed as error:
            unreadable.append(f"{target.name} cannot be followed: {error}")
    return Arrivals(tip=tip, brought=tuple(brought), unreadable=tuple(unreadable))


def _brought(
    mirror: Mirror, target: Target, found: Sequence[Touched], *, tip: str, committer: tuple[str, str] | None
) -> list[Brought]:
    """The newest commit after which the file held what it holds now, and before it something else; at most one."""
    contents = [_content(mirror, each.logged.revision, target.path) for each in found]
    contents.append(_content(mirror, mirror.parent(found[-1].logged.revision), target.path))
    if len(set(contents)) == 1:
        return []
    now = require_version(target, TargetFile(mirror.blob(tip, target.path), target).image())
    bringer: Touched | None = None
    for touched, raw in zip((*found, None), contents, strict=True):
        held = _image(target, raw)
        if bringer and held not in (None, now):
            return [_told(mirror, target, now, bringer, old=held, committer=committer)]
        if held == now:
            bringer = touched
    return [_told(mirror, target, now, bringer, old=None, committer=committer)] if bringer else []


def _told(
    mirror: Mirror,
    target: Target,
    now: Image,
    touched: Touched,
    *,
    old: Image | None,
    committer: tuple[str, str] | None,
) -> Brought:
    if committer is None:
        touched = _merged(mirror, target, touched) or touched
    return Brought(
        target=target,
        image=now,
        old_version=old.version if old else UNKNOWN,
        revision=touched.logged.revision,
        author=touched.author,
        subject=touched.subject,
        is_ours=committer in (None, touched.logged.committer),
        trailers=touched.logged.trailers,
    )


def _merged(mirror: Mirror, target: Target, merge: Touched) -> Touched | None:
    """The one commit with our trailers that a merge brought to the file; None where it brought another or more."""
    revision = merge.logged.revision
    span = f"{mirror.parent(revision) or revision}..{revision}"
    found = mirror.touching(span, places=[target.path], without=(), limit=2)
    is_ours = len(found) == 1 and "Promotion-Id" in dict(found[0].logged.trailers)
    return found[0] if is_ours else None


def _content(mirror: Mirror, revision: str | None, path: str) -> bytes | None:
    """The file's bytes; None where there is no such file."""
    with contextlib.suppress(Failed):
        return mirror.blob(revision, path) if revision else None
    return None


def _image(target: Target, raw: bytes | None) -> Image | None:
    """What the file held; None where nobody can read that."""
    with contextlib.suppress(Failed):
        return TargetFile(raw, target).image() if raw is not None else None
    return None
