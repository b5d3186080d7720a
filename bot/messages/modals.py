"""Modals: what the bot asks back."""

from __future__ import annotations

from bot.core.promotion import Promotion
from bot.messages.mrkdwn import Block, code, escape, mention, section, words

REJECT = "promotion_reject_reason"


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
            {
                "type": "input",
                "block_id": "reason",
                "label": words("Why? Shown in the channel"),
                "element": {
                    "type": "plain_text_input",
                    "action_id": "text",
                    "multiline": True,
                    "max_length": 500,
                    "placeholder": words("For example: freeze until Monday"),
                },
            },
        ],
    }
