"""The card's thread: the story, one line an event."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.catalog import Target
from bot.core.dossier import Dossier
from bot.core.promotion import Event, Promotion
from bot.messages.evidence import in_full
from bot.messages.headlines import besides, ended, said_once
from bot.messages.mrkdwn import code, fenced, link, mention, plain, proposal

MOST_MENTIONED = 20


def story(promotion: Promotion, events: Sequence[Event], dossier: Dossier | None = None) -> str:
    """These events as one message, in mrkdwn, with what was found beside the request; empty for nothing to tell."""
    lines = []
    for event in events:
        found = in_full(dossier) if event.what == "requested" else ""
        lines += [line for line in (_line(promotion, event), found) if line]
    return "\n".join(lines)


def waited_for(promotion: Promotion, target: Target) -> frozenset[str]:
    """The people named by id who may still approve."""
    return target.policy.users - {promotion.requested_by.id, *(each.by.id for each in promotion.approvals)}


def reminder(promotion: Promotion, target: Target) -> str:
    """For the thread: who is waited for, people and user groups."""
    named = [*sorted(waited_for(promotion, target)), *sorted(target.policy.groups)]
    return f":bell: Still waiting for approval: {', '.join(map(mention, named[:MOST_MENTIONED]))}"


def direct_reminder(promotion: Promotion, place: str | None) -> str:
    """For one approver, directly; `place` is the card's address."""
    title = f"{code(promotion.id)} ({plain(promotion.title)})"
    return f":bell: {title} waits for your approval on {link(place, 'its card')}."


def last_words(promotion: Promotion, place: str | None, words: str) -> str:
    """For one person, directly: what a pod that failed wrote last; `place` is the card's address."""
    title = f"{code(promotion.id)} ({plain(promotion.title)})"
    return f":scroll: The last lines of {title}, of {link(place, 'its card')}:\n{fenced(words, 3000)}"


def recovery(says: str) -> str:
    """For the thread: what had failed came right."""
    return f":white_check_mark: Recovered: {plain(says, 1000)}"


def emergency(promotion: Promotion, place: str | None) -> str:
    """For the audit channel and for every approver: glass was broken."""
    return (
        f":rotating_light: {mention(promotion.requested_by.id)} broke glass for {code(promotion.id)} "
        f"({plain(promotion.title)}), {link(place, 'its card')}. Incident: {plain(promotion.incident or '')}. "
        f"Reason: {plain(promotion.reason or '')}. Somebody else has to look at it once it is committed: "
        f"`/promote review {promotion.id}`."
    )


def review_reminder(promotion: Promotion, place: str | None) -> str:
    """For the audit channel and the thread: nobody has looked at an emergency yet."""
    return (
        f":rotating_light: {code(promotion.id)} ({plain(promotion.title)}), {link(place, 'its card')}, was an "
        f"emergency, and nobody has reviewed it yet: `/promote review {promotion.id} because …`."
    )


def _for(promotion: Promotion) -> str:
    if promotion.is_rollback:
        return f"to go back to {code(promotion.version)}"
    return f"for {code(promotion.version)}"


def _end(promotion: Promotion, event: Event) -> str:
    """Named by its outcome, which the promotion holds as soon as it has come to its end."""
    sign, word = ended(event.phase, promotion.outcome)
    return f"{sign} {word}: {plain(said_once(word, event.why), 1000)}" if event.why else f"{sign} {word}"


def _line(promotion: Promotion, event: Event) -> str:
    who = mention(event.by) if event.by else ""
    why = f": {plain(event.why, 1000)}" if event.why else ""
    lines = {
        "requested": f":speech_balloon: {who} asked {_for(promotion)} in *{promotion.environment}*{why}",
        "approval": f":thumbsup: {who} approved",
        "withdrawal": f":leftwards_arrow_with_hook: {who} withdrew the approval",
        "approved": ":ballot_box_with_check: Nothing more to wait for: checking everything once more, then committing",
        "proposing": "",
        "pull request": f":twisted_rightwards_arrows: Opened {proposal(event.why)}",
        "merged besides": besides(promotion),
        "taken back": f":twisted_rightwards_arrows: Closed the pull request for now{why}",
        "quorum lost": f":warning: Waiting for approval again{why}",
        "committing": ":writing_hand: Writing the commit",
        "not written": "",  # the card says what it waits for; a line for each try would bury the story
        "committing again": "",
        "drafted anew": "",
        "committed": f":white_check_mark: Committed as {code((event.why or '')[:8])}; following Argo CD now",
        "noticed": f":eyes: {who} committed {code((promotion.revision or '')[:8])} to the branch; following Argo CD now",
        "rebuilt": ":recycle: The record of this promotion was lost; it goes on from its commit "
        f"{code((event.why or '')[:8])}",
        "sync": f":arrows_counterclockwise: {who} asked Argo CD to sync it",
        "review": f":mag: {who} has reviewed the emergency{why}",
        "live": _end(promotion, event),
        "failed": _end(promotion, event),
        "rejected": f":no_entry: {who} rejected it{why}",
        "expired": f":alarm_clock: Expired{why}",
        "cancelled": f":heavy_minus_sign: {f'{who} cancelled it' if who else 'Cancelled'}{why}",
        "superseded": _end(promotion, event),
        "stale": f":warning: Stale{why}",
    }
    return lines.get(event.what, f"{plain(event.what)}{why}")
