"""What a channel reads when other rules are in force."""

from __future__ import annotations

import re
from itertools import accumulate

from bot.core.guarding import Difference
from bot.core.rule_lines import EVERYWHERE
from bot.messages.mrkdwn import code, cut, fenced, mention, plain

MOST_LINES = 40
LONGEST_LINE = 250
LONGEST = 3500
"""Characters of all lines, before some of them are escaped."""
ESCAPED = 5
"""How much longer that makes the text at most."""
PERSON = re.compile(r"[UW][A-Z0-9]{2,}")


def changed(told: Difference) -> str:
    """Which rules are gone and which are new, and who changed them."""
    places = ["every environment" if place == EVERYWHERE else code(place) for place in told.places]
    return "\n".join(
        (
            f":scroll: The rules of {', '.join(places)} have changed{_by(told)}.",
            fenced("\n".join(_lines(told)), ESCAPED * (LONGEST + MOST_LINES)),
            "If nobody meant that, lock what must not move with /promote lock, and look at who changed promote.yaml.",
        )
    )


def _lines(told: Difference) -> list[str]:
    """Whole lines, as many as may stand there, and how many more there are."""
    lines = [cut(line, LONGEST_LINE) for line in told.lines[:MOST_LINES]]
    ends = accumulate(len(line) for line in lines)
    shown = [line for line, end in zip(lines, ends, strict=True) if end <= LONGEST]
    left_out = len(told.lines) - len(shown)
    return [*shown, *([f"… and {left_out} more"] if left_out else [])]


def _by(told: Difference) -> str:
    """` by Amy with 3f9c2a1b`, as far as whoever deploys the file says so."""
    author = mention(told.author) if PERSON.fullmatch(told.author) else plain(told.author, 100)
    by = f" by {author}" if author else ""
    return f"{by} with {code(told.revision[:12])}" if told.revision else by
