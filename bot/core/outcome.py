"""How the rollout of a commit ended, each ending with a name of its own."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The name of an ending, as people read it in a headline."""

    LIVE = "live"
    LIVE_WITHIN = "live as part of a later commit"
    NOTHING_CHANGED = "live, nothing changed"
    SYNC_FAILED = "sync failed"
    DEGRADED = "degraded"
    NOT_PICKED_UP = "not picked up"
    WINDOW_CLOSED = "sync window closed"
    NOT_SYNCED = "not synced"
    CANNOT_RENDER = "cannot render"
    SUPERSEDED = "superseded"
    MISMATCH = "image mismatch"
    STUCK = "operation stuck"
    TIMED_OUT = "timed out"
    UNREACHABLE = "Argo CD unreachable"
    TOKEN_EXPIRED = "token expired"  # noqa: S105 - a word for people
    NO_PERMISSION = "no permission"
    MISSING = "application missing"
    DELETED = "application deleted"
    NOT_TRACKED = "not tracked"
    LOST = "commit lost"
    BROKEN = "given up"
    """Because of a bug of ours: nobody knows."""

    @property
    def is_unseen(self) -> bool:
        """Does nobody know how it ended, because nobody could look?"""
        return self in _UNSEEN

    @property
    def may_heal(self) -> bool:
        """Can it come right by itself, or by somebody's hand in the cluster, without another commit?"""
        return self in _MAY_HEAL


_UNSEEN = frozenset(
    {Outcome.UNREACHABLE, Outcome.TOKEN_EXPIRED, Outcome.NO_PERMISSION, Outcome.MISSING, Outcome.BROKEN}
)
_MAY_HEAL = frozenset(
    {
        Outcome.SYNC_FAILED,
        Outcome.DEGRADED,
        Outcome.NOT_PICKED_UP,
        Outcome.WINDOW_CLOSED,
        Outcome.NOT_SYNCED,
        Outcome.CANNOT_RENDER,
        Outcome.MISMATCH,
        Outcome.STUCK,
        Outcome.TIMED_OUT,
        Outcome.UNREACHABLE,
        Outcome.TOKEN_EXPIRED,
        Outcome.NO_PERMISSION,
        Outcome.MISSING,
    }
)
