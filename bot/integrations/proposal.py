"""A commit on a branch of its own, beside the one that it is for: what a pull request proposes."""

from __future__ import annotations

import contextlib
import time

from bot.core.errors import Failed, Stale, Unavailable
from bot.core.ports import Edit
from bot.integrations.mirror import Mirror
from bot.integrations.verdicts import GIT_HOST
from bot.integrations.writer import Hand, build, id_line, require_first

MOST_TRIES = 3


def propose(mirror: Mirror, edit: Edit, *, hand: Hand, anew: bool) -> str:
    """Bring the edit to its branch, and return its revision; one that stands there already is left alone.

    `anew` builds it on the newest tip. Whoever else proposes the same at this moment makes a commit of ours too, so
    the first one counts.
    """
    began_at = time.monotonic()
    for _ in range(MOST_TRIES):
        mirror.fetch(since=began_at)
        require_first(mirror, edit)
        there = mirror.beside(edit.branch)
        if there and _is_edit(mirror, edit, there, hand=hand, anew=anew):
            return there
        revision = build(mirror, edit, parent=mirror.tip, hand=hand)
        if revision == there or mirror.put_beside(edit.branch, was=there, revision=revision):
            return revision
    raise Unavailable(GIT_HOST, f"somebody else writes {edit.branch} at this very moment.")


def _is_edit(mirror: Mirror, edit: Edit, there: str, *, hand: Hand, anew: bool) -> bool:
    """Is this the very edit, on a tip that is new enough? Raises `Failed` where somebody else made it."""
    parent = mirror.parent_if_only(there, edit.target.path)
    head, _, message = mirror.text(there).partition("\n\n")
    is_ours = "\ncommitter {} <{}> ".format(*hand.committer) in head and id_line(edit) in message
    if parent is None or not is_ours:
        raise Failed(
            f"Somebody else has pushed to {edit.branch}, which is for the bot alone; delete that branch."
        )
    if anew and parent != mirror.tip:
        return False
    with contextlib.suppress(Stale, Failed):
        return build(mirror, edit, parent=parent, hand=hand) == there
    return False
