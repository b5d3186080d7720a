"""Where a promotion stands, in a sign and a word or two: the same in its card and in its thread."""

from __future__ import annotations

from bot.core.outcome import Outcome
from bot.core.promotion import Phase, Promotion
from bot.messages.mrkdwn import plain, proposal

EMOJI = {
    Phase.REQUESTED: ":hourglass_flowing_sand:",
    Phase.APPROVED: ":ballot_box_with_check:",
    Phase.COMMITTING: ":writing_hand:",
    Phase.COMMITTED: ":rocket:",
    Phase.LIVE: ":white_check_mark:",
    Phase.FAILED: ":x:",
    Phase.REJECTED: ":no_entry:",
    Phase.EXPIRED: ":alarm_clock:",
    Phase.CANCELLED: ":heavy_minus_sign:",
    Phase.SUPERSEDED: ":fast_forward:",
    Phase.STALE: ":warning:",
}

HEADLINE = {
    Phase.REQUESTED: "Approval needed",
    Phase.APPROVED: "Approved",
    Phase.COMMITTING: "Committing",
    Phase.COMMITTED: "Rolling out",
    Phase.LIVE: "Live",
    Phase.FAILED: "Failed",
    Phase.REJECTED: "Rejected",
    Phase.EXPIRED: "Expired",
    Phase.CANCELLED: "Cancelled",
    Phase.SUPERSEDED: "Superseded",
    Phase.STALE: "Stale",
}

OUTCOMES = {
    Outcome.LIVE: (EMOJI[Phase.LIVE], HEADLINE[Phase.LIVE]),
    Outcome.LIVE_WITHIN: (EMOJI[Phase.LIVE], "Live as part of a later commit"),
    Outcome.NOTHING_CHANGED: (EMOJI[Phase.LIVE], "Live, nothing changed"),
    Outcome.SYNC_FAILED: (":x:", "Sync failed"),
    Outcome.DEGRADED: (":red_circle:", "Degraded"),
    Outcome.NOT_PICKED_UP: (":zzz:", "Not picked up"),
    Outcome.WINDOW_CLOSED: (":calendar:", "Sync window closed"),
    Outcome.NOT_SYNCED: (":raised_hand:", "Nobody synced it"),
    Outcome.CANNOT_RENDER: (":no_entry_sign:", "Cannot render"),
    Outcome.SUPERSEDED: (EMOJI[Phase.SUPERSEDED], HEADLINE[Phase.SUPERSEDED]),
    Outcome.MISMATCH: (":package:", "Not the promoted image"),
    Outcome.STUCK: (":construction:", "Sync stuck"),
    Outcome.TIMED_OUT: (":stopwatch:", "Timed out"),
    Outcome.UNREACHABLE: (":electric_plug:", "Argo CD unreachable"),
    Outcome.TOKEN_EXPIRED: (":key:", "Argo CD token expired"),
    Outcome.NO_PERMISSION: (":lock:", "No permission in Argo CD"),
    Outcome.MISSING: (":mag:", "Application missing"),
    Outcome.DELETED: (":wastebasket:", "Application deleted"),
    Outcome.NOT_TRACKED: (":twisted_rightwards_arrows:", "Application follows something else"),
    Outcome.LOST: (":question:", "Commit lost"),
    Outcome.BROKEN: (":boom:", "Given up"),
}
"""How the rollout of a commit ended. Only what is known to be broken is said to have failed."""


def ended(phase: Phase, outcome: Outcome | None) -> tuple[str, str]:
    """The sign and the word for an end; by its phase where nothing was rolled out."""
    return OUTCOMES[outcome] if outcome else (EMOJI[phase], HEADLINE[phase])


def besides(promotion: Promotion) -> str:
    """That a pull request was merged with more than was approved, where it was; empty elsewhere."""
    if promotion.besides is None:
        return ""
    merged = proposal(promotion.pull_request) if promotion.pull_request else "its pull request"
    if not promotion.besides:
        unseen = f"Nobody could see whether more was merged with {merged} than was approved here"
        return f":rotating_light: {unseen}. Look at what came."
    more = f"More was merged with {merged} than was approved here: somebody pushed to its branch"
    return f":rotating_light: {more}. Look at what came: {plain(promotion.besides, 500)}"


def said_once(word: str, why: str) -> str:
    """The reason without the words of the headline that stands before it."""
    return why.replace(f": {word.lower()}: ", ": ").removeprefix(f"{word.lower()}: ")
