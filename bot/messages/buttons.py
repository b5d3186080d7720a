"""The buttons of a card: which there are, and what each asks before it does anything."""

from __future__ import annotations

from bot.core.catalog import Target
from bot.core.outcome import Outcome
from bot.core.people import Action
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Look, Progress, Stage
from bot.messages.advice import blamed
from bot.messages.mrkdwn import Block, code, cut, escape, mrkdwn, plain, some, without_hidden, words
from bot.messages.ready import ask_for

AGAIN = (Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.STALE, Phase.FAILED)
"""Where asking again makes sense, as long as nothing was committed."""


def action_id(action: Action) -> str:
    """`promotion_ask_again`."""
    return f"promotion_{action.value.replace(' ', '_')}"


def first_failure(look: Look) -> Progress | None:
    """The first application whose rollout is known to have failed."""
    return next((each for each in look.applications if each.stage is Stage.FAILED), None)


def buttons(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    """What can be pressed now, in one row; empty for nothing."""
    elements = [*_deciding(target, promotion, look), *_rolling(promotion, look), *_onwards(target, promotion)]
    if promotion.phase in AGAIN and promotion.revision is None:
        elements.append(_button(promotion, Action.ASK_AGAIN, "Ask again"))
    if _can_be_rolled_back(promotion) or (promotion.phase is Phase.COMMITTED and first_failure(look)):
        elements.append(_roll_back(target, promotion))
    if not look.recovered and (blame := blamed(promotion)):
        elements.append(_block(promotion, *blame))
    return [{"type": "actions", "elements": elements}] if elements else []


def _deciding(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    if promotion.phase is Phase.REQUESTED and target.policy.needs_approval:
        return [
            _approve(target, promotion),
            _button(promotion, Action.REJECT, "Reject…", style="danger"),
            _button(promotion, Action.CANCEL, "Cancel"),
        ]
    is_waiting = look.held_by or promotion.pull_request
    waits = promotion.phase is Phase.APPROVED and not promotion.may_be_written and is_waiting
    return [_button(promotion, Action.CANCEL, "Cancel")] if waits else []


def _rolling(promotion: Promotion, look: Look) -> list[Block]:
    found = []
    if promotion.needs_review:
        found.append(_review(promotion))
    if promotion.phase is Phase.COMMITTED and any(each.may_sync for each in look.applications):
        found.append(_sync(promotion, look))
    return found


def _onwards(target: Target, promotion: Promotion) -> list[Block]:
    """What is live goes on to the next environment."""
    if promotion.phase is not Phase.LIVE or promotion.is_rollback or target.then is None:
        return []
    label = f"Promote to {target.then}"
    return [ask_for(promotion.app, target.then, promotion.version, label=label)]


def _can_be_rolled_back(promotion: Promotion) -> bool:
    """Does the commit stand on the branch, as far as anybody knows?"""
    has_ended = promotion.phase in (Phase.LIVE, Phase.FAILED) and promotion.revision is not None
    return has_ended and promotion.outcome is not Outcome.LOST


def _sync(promotion: Promotion, look: Look) -> Block:
    waiting = [each for each in look.applications if each.may_sync]
    changes = list(dict.fromkeys(name for each in waiting for name in each.to_sync))
    text = f"Argo CD syncs {some([each.name for each in waiting])} to {(promotion.revision or '')[:8]}, after a dry run."
    if changes:
        text += f" It changes {some(changes)}."
    return _confirmed(
        _button(promotion, Action.SYNC, "Sync now", style="primary"),
        title=f"Sync {promotion.environment}?",
        text=plain(text, 300),
        confirm="Sync",
    )


def _roll_back(target: Target, promotion: Promotion) -> Block:
    then = "Others have to approve it." if target.policy.needs_approval else "Nobody has to approve it."
    text = (
        f"This asks to bring back what {code(promotion.app, 40)} ran in *{escape(promotion.environment)}* before "
        f"{code(promotion.version, 40)}. {then}"
    )
    return _confirmed(
        _button(promotion, Action.ROLL_BACK, "Roll back"),
        title=f"Roll back {promotion.environment}?",
        text=text,
        confirm="Ask for it",
    )


def _block(promotion: Promotion, version: str, reason: str) -> Block:
    text = (
        f"Then nobody can promote {code(version, 40)} of *{escape(promotion.app)}* to any environment, until somebody "
        f"types {code(f'/promote unblock {promotion.app} {version}', 90)}. Reason: {plain(reason, 60)}"
    )
    return _confirmed(
        _button(promotion, Action.BLOCK, cut(f"Mark {version} bad", 75)),
        title=cut(f"Mark {version} bad?", 100),
        text=text,
        confirm="Mark it bad",
    )


def _review(promotion: Promotion) -> Block:
    text = (
        "You have looked at what was done without the usual checks, and at why. Your name is put to it. "
        f"To say more: {code(f'/promote review {promotion.id} because …')}"
    )
    return _confirmed(
        _button(promotion, Action.REVIEW, "Review", style="primary"),
        title="Reviewed?",
        text=text,
        confirm="I reviewed it",
    )


def _approve(target: Target, promotion: Promotion) -> Block:
    version, environment = code(promotion.version, 40), escape(promotion.environment)
    text = f"This commits {version} for *{escape(promotion.app)}* to *{environment}*, which holds {code(promotion.old_version, 40)} now."
    if target.banner:
        text = f"{plain(target.banner, 90)}\n{text}"
    return _confirmed(
        _button(promotion, Action.APPROVE, "Approve", style="primary"),
        title=f"Promote to {promotion.environment}?",
        text=text,
        confirm="Approve",
    )


def _confirmed(button: Block, *, title: str, text: str, confirm: str) -> Block:
    """The button, with a question before it does anything."""
    button["confirm"] = {
        "title": words(cut(title, 100)),
        "text": mrkdwn(text, 300),
        "confirm": words(confirm),
        "deny": words("Not yet"),
    }
    return button


def _button(promotion: Promotion, action: Action, label: str, *, style: str | None = None) -> Block:
    button: Block = {
        "type": "button",
        "action_id": action_id(action),
        "text": words(label),
        "accessibility_label": cut(without_hidden(f"{label.rstrip('…')}: {promotion.title}"), 75),
        # The id and the content that is shown, never facts: everything else is read from the store at the click.
        "value": f"{promotion.id} {promotion.content_hash}",
    }
    if style:
        button["style"] = style
    return button
