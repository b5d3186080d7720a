"""Modals: what the bot asks back."""

from __future__ import annotations

from bot.core.catalog import Target
from bot.core.promotion import Promotion, Way
from bot.core.terms import gates_passed
from bot.messages.gates import named
from bot.messages.mrkdwn import Block, code, escape, mention, plain, section, without_hidden, words

REJECT = "promotion_reject_reason"
EMERGENCY = "promotion_emergency"
INCIDENT, REASON, APP = "incident", "reason", "app"
"""The fields of the emergency's modal."""
LONGEST = 500


def reject(promotion: Promotion) -> Block:
    """Why? The reason is required: the requester has to know what to change."""
    about = (
        f"*{escape(promotion.app)}* {code(promotion.version)} to *{escape(promotion.environment)}*, "
        f"asked for by {mention(promotion.requested_by.id)}"
    )
    return {
        "type": "modal",
        "callback_id": REJECT,
        "private_metadata": promotion.id,
        "title": words("Reject promotion"),
        "submit": words("Reject"),
        "close": words("Back"),
        "blocks": [
            section(about),
            _input(REASON, "Why? Shown in the channel", lines=True, hint="For example: freeze until Monday"),
        ],
    }


def emergency(target: Target, version: str | None, *, incident: str, reason: str | None) -> Block:
    """Break glass? It says what is left out, and has the app's name typed, so that nobody does it by mistake."""
    what = code(version) if version else "what the environment before runs"
    passed = named(gates_passed(target, way=Way.EMERGENCY, is_rollback=False)) or "nothing"
    about = [
        f":rotating_light: *{escape(target.app)}* {what} to *{escape(target.environment)}*",
        f"It goes without: *{passed}*. Everything else has to hold.",
        "All who may approve are told now, and one of them has to review it afterwards.",
    ]
    if target.banner:
        about.insert(0, f"*{plain(target.banner)}*")
    return {
        "type": "modal",
        "callback_id": EMERGENCY,
        "private_metadata": " ".join([target.app, target.environment, *([version] if version else [])]),
        "title": words("Break glass"),
        "submit": words("Break glass"),
        "close": words("Back"),
        "blocks": [
            section("\n".join(about)),
            _input(INCIDENT, "Incident", value=incident),
            _input(REASON, "Why? Shown in the channel", value=reason, lines=True),
            _input(APP, f"Type {target.app} to confirm"),
        ],
    }


def done(title: str, text: str) -> Block:
    """What came of it, in the place of the form."""
    return {"type": "modal", "title": words(title), "close": words("Close"), "blocks": [section(text)]}


def _input(
    field: str, label: str, *, value: str | None = None, lines: bool = False, hint: str | None = None
) -> Block:
    element: Block = {
        "type": "plain_text_input",
        "action_id": "text",
        "multiline": lines,
        "max_length": LONGEST,
    }
    if value:
        element["initial_value"] = without_hidden(value)[:LONGEST]
    if hint:
        element["placeholder"] = words(hint)
    return {"type": "input", "block_id": field, "label": words(label), "element": element}
