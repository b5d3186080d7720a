"""What was promoted: the private answer to who asks for the history of an app."""

from __future__ import annotations

from bot.core.catalog import UNKNOWN
from bot.core.history import Entry, History, Query, in_utc
from bot.core.promotion import Signer, Way
from bot.core.trailers import USER
from bot.messages.mrkdwn import (
    Message,
    code,
    footnote,
    linked,
    listed,
    mention,
    moment,
    plain,
    section,
    utc,
)

MOST_ROWS = 20
ROWS_A_SECTION = 4
"""The longest rows that there can be fit into a section."""
MOST_APPROVERS = 3
LONGEST_NAME = 40


def history(found: History) -> Message:
    """The newest rows, one line each, and what to type for all of them."""
    rows = [_row(entry) for entry in found.entries[:MOST_ROWS]]
    head, foot = _head(found), _foot(found)
    sections = [rows[place : place + ROWS_A_SECTION] for place in range(0, len(rows), ROWS_A_SECTION)]
    blocks = [section(head), *(section(listed(each, 2900)) for each in sections)]
    blocks += [footnote("\n".join(foot))] if foot else []
    return Message(text=listed([head, *foot, *rows]), blocks=tuple(blocks))


def _head(found: History) -> str:
    count = len(found.entries)
    subject = _subject(found.query)
    if count == 0:
        return f"None of my commits tells of {subject}."
    newest = f", the newest {MOST_ROWS}" if count > MOST_ROWS else ""
    return f"{subject}: {count} {'commit' if count == 1 else 'commits'}{newest}."


def _foot(found: History) -> list[str]:
    """What is not shown, and where it is."""
    if found.is_whole and not found.entries:
        return []
    older = [] if found.is_whole else ["There are older commits in git that I did not read."]
    return [*older, f"All of it, as a table: {code(_typed(found.query), 300)}"]


def _subject(query: Query) -> str:
    words = [f"*{plain(query.app, LONGEST_NAME)}*" if query.app else "every app"]
    if query.environment:
        words.append(f"in *{plain(query.environment, LONGEST_NAME)}*")
    if query.since:
        words.append(f"since {utc(query.since)}")
    if query.until:
        words.append(f"until {utc(query.until)}")
    if query.by:
        words.append(f"by {_asker(query.by, query.name)}")
    return " ".join(words)


def _asker(id: str, name: str | None) -> str:
    """Whom a typed name was taken for, with the id that decides; else the id, as a mention where it is a person's."""
    if name:
        return f"{plain(name, LONGEST_NAME)} ({plain(id)})"
    return mention(id) if USER.fullmatch(id) else plain(id)


def _typed(query: Query) -> str:
    """The same question, on the command line."""
    words = ["python -m bot history", query.app, query.environment]
    words += [f"--since {in_utc(query.since)}"] if query.since else []
    words += [f"--until {in_utc(query.until)}"] if query.until else []
    words += [f"--by {query.by}"] if query.by else []
    return " ".join(filter(None, [*words, "--csv"]))


def _row(entry: Entry) -> str:
    place = f"{moment(entry.at)} *{plain(entry.environment, LONGEST_NAME)}*"
    versions = f"{code(entry.old_version, LONGEST_NAME)} → {code(entry.new_version, LONGEST_NAME)}"
    return (
        f"• {place}: {versions}{_labels(entry)}, {_people(entry)}, {linked(entry.commit, entry.revision[:8])}"
    )


def _labels(entry: Entry) -> str:
    labels = []
    if entry.is_emergency:
        labels.append(f"*EMERGENCY* {plain(entry.incident or '', LONGEST_NAME)}".rstrip())
    if entry.rollback_of is not None:
        at_once = " AT ONCE" if entry.way is Way.AT_ONCE else ""
        of = f" of {code(entry.rollback_of)}" if entry.rollback_of != UNKNOWN else ""
        labels.append(f"*ROLLBACK{at_once}*{of}")
    return "".join(f"  {label}" for label in labels)


def _people(entry: Entry) -> str:
    asked = f"asked by {_who(entry.requested_by)}"
    approvers = [_who(each) for each in entry.approved_by[:MOST_APPROVERS]]
    if not approvers:
        return asked
    more = len(entry.approved_by) - MOST_APPROVERS
    return f"{asked}, approved by {', '.join(approvers)}{f' and {more} more' if more > 0 else ''}"


def _who(signer: Signer) -> str:
    return mention(signer.id) if USER.fullmatch(signer.id) else plain(signer.name, LONGEST_NAME)
