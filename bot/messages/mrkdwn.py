"""Slack's text format: every outside string passes through here on its way out."""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Block = dict[str, Any]

MOST_NAMES = 8
LONGEST_LINE = 290
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
UNFORMATTED = {character: f"{character}\u200b" for character in "*_~"} | {"`": "'"}
"""A zero-width space after it keeps a character from formatting anything; a backtick begins code all the same."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that nobody sees: controls, marks that turn the direction of text, halves of a pair."""
SHOWN = "\ufffd"
"""Stands where a hidden character stood, in what people compare letter by letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Blocks, and a text that tells the same story where blocks are not shown."""

    text: str
    blocks: tuple[Block, ...]


def without_hidden(text: str) -> str:
    """The words in one line, and no character in it that nobody sees."""
    seen = (character for character in text if character.isspace() or not _is_hidden(character))
    return " ".join("".join(seen).split())


def with_hidden_shown(text: str) -> str:
    """The lines with a sign for each character that nobody sees."""
    return "".join(
        SHOWN if _is_hidden(character) and character not in "\n\t" else character for character in text
    )


def _is_hidden(character: str) -> bool:
    """Does nobody see it, although it may change how others are read?"""
    return unicodedata.category(character) in HIDDEN


def escape(text: str) -> str:
    """The text with `&`, `<` and `>` escaped, so that it cannot mention, link or ping anybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(text: str, limit: int = 300) -> str:
    """Outside words inside a sentence: one line, cut to `limit`, escaped, and with no formatting of its own."""
    return _fitted(without_hidden(text), limit, {**ENTITIES, **UNFORMATTED})


def code(text: str, limit: int = 128) -> str:
    """Outside words as code; backticks cannot end it early."""
    return f"`{_coded(' '.join(text.split()), limit) or ' '}`"


def fenced(text: str, limit: int = 2000) -> str:
    """Outside lines as a code block."""
    return f"```{_coded(text, limit)}```"


def diff(before: str, after: str) -> str:
    """One line before and after, as a code block; neither can pose as another line, or push the other one out."""
    old, new = (_coded(text.replace("\n", SHOWN), LONGEST_LINE) for text in (before, after))
    return f"```- {old}\n+ {new}```"


def _coded(text: str, limit: int) -> str:
    return _fitted(with_hidden_shown(text.replace("`", "'")), limit, ENTITIES)


def _fitted(text: str, limit: int, shown_as: Mapping[str, str]) -> str:
    """The text with some characters shown as others, cut to `limit` as it is shown, so never inside an entity."""
    pieces = [shown_as.get(character, character) for character in text]
    ends = list(itertools.accumulate(map(len, pieces)))
    if not ends or ends[-1] <= limit:
        return "".join(pieces)
    return "".join(pieces[: bisect.bisect_right(ends, limit - 1)]) + "…"


def sentence(text: str) -> str:
    """The words as a whole sentence: a capital at the beginning and one full stop at the end."""
    return full_stop(f"{text[:1].upper()}{text[1:]}")


def full_stop(text: str) -> str:
    """The words with one full stop at the end."""
    return text.rstrip(".") + "."


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something was left out."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(lines: Sequence[str], limit: int = 3900) -> str:
    """As many whole lines as fit, so that no link is cut in two, and how many more there are."""
    shown: list[str] = []
    room = limit - len("\n… and 9999 more")
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            return "\n".join([*shown, f"… and {len(lines) - len(shown)} more"])
        shown.append(line)
    return "\n".join(shown)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a text that is cut could end in half a mention or link."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def mention(user: str) -> str:
    """A person or a user group by id; a machine, `hook:jenkins`, or a commit's author, `git:Sam`, plainly by name."""
    kind, colon, name = user.partition(":")
    if colon:
        return plain(f"{name} (CI)" if kind == "hook" else name)
    return f"<!subteam^{user}>" if user.startswith("S") else f"<@{user}>"


def link(url: str | None, text: str) -> str:
    """A link where there is an http address, the bare text where there is none."""
    if url and re.fullmatch(r"https?://[^\s<>|`]+", url) and url == without_hidden(url):
        return f"<{escape(url)}|{text}>"
    return text


def linked(url: str | None, text: str) -> str:
    """A short name: as a link, in which Slack draws no code, or as code where there is no address."""
    shown = link(url, escape(text))
    return code(text) if shown == escape(text) else shown


def proposal(url: str | None) -> str:
    """`pull request #12`, or `merge request !12`, as a link; by the last number of its address."""
    number = (url or "").rpartition("/")[2]
    name = f"merge request !{number}" if "/merge_requests/" in (url or "") else f"pull request #{number}"
    return link(url, escape(name))


def moment(at: datetime) -> str:
    """A time in the reader's own zone."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{utc(at)}>"


def utc(at: datetime) -> str:
    """A time for texts that Slack does not format: `14:02 UTC, 23 Nov 2026`."""
    return at.strftime("%H:%M UTC, %-d %b %Y")


def mrkdwn(text: str, limit: int) -> Block:
    """A `mrkdwn` object. Verbatim, else Slack would link and mention what only looks like an address or a name."""
    return {"type": "mrkdwn", "text": cut(text, limit), "verbatim": True}


def header(text: str) -> Block:
    """The line that becomes the notification."""
    return {"type": "header", "text": words(cut(text, 150))}


def section(text: str) -> Block:
    """A paragraph of mrkdwn."""
    return {"type": "section", "text": mrkdwn(text, 3000)}


def facts(*fields: str) -> Block:
    """Facts side by side."""
    return {"type": "section", "fields": [mrkdwn(field, 2000) for field in fields]}


def footnote(text: str) -> Block:
    """Small grey text."""
    return {"type": "context", "elements": [mrkdwn(text, 2000)]}


def words(text: str) -> dict[str, Any]:
    """A `plain_text` object."""
    return {"type": "plain_text", "text": without_hidden(text), "emoji": True}
