"""What to do next when a rollout did not come to a good end."""

from __future__ import annotations

from collections.abc import Collection

from bot.core.case import minutes
from bot.core.following import WATCHED_FOR
from bot.core.outcome import Outcome
from bot.core.promotion import Promotion

BEGUN = "The commit stays: promote a newer version, or roll back."
NEXT = {
    Outcome.SYNC_FAILED: "Fix what the message names and press Sync in Argo CD, or roll back.",
    Outcome.DEGRADED: "Look at the pods and their logs. If the new version is at fault, roll back.",
    Outcome.NOT_PICKED_UP: (
        "Press Refresh in Argo CD. If it still shows an older commit, it does not reach git, or follows another branch."
    ),
    Outcome.WINDOW_CLOSED: (
        "Once the window opens, Argo CD goes on by itself. If that must not happen, roll back."
    ),
    Outcome.NOT_SYNCED: "Press Sync in Argo CD, or roll back, so that nobody syncs it unawares.",
    Outcome.CANNOT_RENDER: (
        "If Argo CD only could not reach git, this passes. Else fix the manifests that it names, or roll back."
    ),
    Outcome.MISMATCH: (
        "Look for what else sets the image: a parameter of the application, an image updater, another key of the file."
    ),
    Outcome.STUCK: "Terminate the operation in Argo CD, then press Sync there.",
    Outcome.TIMED_OUT: "It may still come: look in Argo CD how far it is. If it hangs, roll back.",
    Outcome.UNREACHABLE: "Look at Argo CD yourself: it may well be rolling this out.",
    Outcome.TOKEN_EXPIRED: "Give the bot a new token (ARGOCD_TOKEN). Until then look at Argo CD yourself.",
    Outcome.NO_PERMISSION: (
        "Give the bot's account that right in Argo CD's policy. Until then look at Argo CD yourself."
    ),
    Outcome.MISSING: "Create the application in Argo CD, or put its right name and project into promote.yaml.",
    Outcome.DELETED: (
        "Nothing deploys the values file any more. Create the application again, or take it out of promote.yaml."
    ),
    Outcome.NOT_TRACKED: "Point the application at this branch and file, or put the right ones into promote.yaml.",
    Outcome.BROKEN: "Tell whoever runs the bot the ref. Look at Argo CD yourself: it may well be rolling this out.",
    Outcome.LOST: "Find out in the branch's history who rewrote it, then ask for the promotion again.",
}
MAY_BE_ITS_FAULT = (Outcome.SYNC_FAILED, Outcome.DEGRADED, Outcome.TIMED_OUT)
"""Endings that may speak against the version, and not against Argo CD, a window or somebody's manifests."""
HEALS = f"If it comes right within {minutes(WATCHED_FOR)}, I say so here."


def advice(outcomes: Collection[Outcome | None]) -> list[str]:
    """The next steps after what failed, each in a sentence or two; `outcomes` has one for each application."""
    steps = [NEXT.get(each, BEGUN) if each else BEGUN for each in dict.fromkeys(outcomes)]
    may_heal = all(each is not None and each.may_heal for each in outcomes)
    return [*steps[:-1], f"{steps[-1]} {HEALS}"] if may_heal and steps else steps


def blamed(promotion: Promotion) -> tuple[str, str] | None:
    """The version that somebody may want to mark bad after this, and why; None where nothing speaks against one."""
    if not promotion.phase.is_final or promotion.revision is None or promotion.outcome is Outcome.LOST:
        return None
    if promotion.is_rollback:
        return promotion.old_version, f"rolled back by {promotion.id}"
    if promotion.outcome in MAY_BE_ITS_FAULT:
        return promotion.version, f"failed: {promotion.ending}"
    return None
