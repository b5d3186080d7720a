"""What stands in the way of a promotion, gate by gate, and what somebody can do about it."""

from __future__ import annotations

from collections.abc import Iterable

from bot.core.drafting import Draft
from bot.core.gates import Answer, Stand
from bot.core.policy import Gate
from bot.messages.mrkdwn import Block, Message, code, escape, footnote, listed, moment, plain, section, words

TELL_ME, START = "gates_tell_me", "gates_start"
"""The buttons' ids."""

SIGNS = {
    Stand.OPEN: ":white_check_mark:",
    Stand.WAITS: ":hourglass_flowing_sand:",
    Stand.CLOSED: ":no_entry:",
    Stand.UNKNOWN: ":grey_question:",
}
NAMES = {Gate.QUORUM: "approvals", Gate.SOAK: "soak time"}
"""What a gate is called where its own name is no word for people."""


def named(gates: Iterable[Gate]) -> str:
    """`approvals, soak time, windows`, in the order in which gates are always named."""
    wanted = frozenset(gates)
    return ", ".join(NAMES.get(gate, gate.value) for gate in Gate if gate in wanted)


def line(answer: Answer) -> str:
    """One gate: its sign, what it says, and when it opens."""
    opens = f" (opens {moment(answer.opens_at)})" if answer.opens_at and not answer.is_open else ""
    return f"{SIGNS[answer.stand]} {plain(answer.says, 500)}{opens}"


def closed(draft: Draft, *, reason: str | None = None, may_wait: bool = True) -> Message:
    """The private answer to who asked too early: every gate, those in the way first, and what may be pressed.

    The checked `reason` goes with what may be started. Without `may_wait` nothing is offered: what was asked for
    never waits.
    """
    subject = f"*{escape(draft.target.app)}* {code(draft.image.version)}"
    head = f"{subject} cannot go to *{escape(draft.target.environment)}* now. Nothing was recorded."
    answers = sorted(draft.answers.each, key=lambda answer: answer.is_open)
    gates = listed([line(answer) for answer in answers], 3000)
    offered = _offered(draft, reason) if may_wait else []
    return Message(text=f"{head}\n{gates}", blocks=(section(head), section(gates), *offered))


def _offered(draft: Draft, reason: str | None) -> list[Block]:
    # What is meant, never what was found: everything is asked anew at the press.
    meant = f"{draft.target.app} {draft.target.environment} {draft.image.version}"
    tell_me = _button(TELL_ME, "Tell me when it can go", meant)
    if not all(answer.may_open for answer in draft.answers.closed):
        return [{"type": "actions", "elements": [tell_me]}]
    started = f"{meant} {reason}" if reason else meant
    start = _button(START, "Start when the gates pass", started) | {"style": "primary"}
    told = (
        "To start means: ask for it now, have it approved, and let it go by itself when every gate is open."
    )
    return [{"type": "actions", "elements": [start, tell_me]}, footnote(told)]


def _button(action: str, label: str, value: str) -> Block:
    return {"type": "button", "action_id": action, "text": words(label), "value": value}
