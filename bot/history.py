"""`python -m bot history`: what was promoted, from git alone. Neither the store nor Slack is asked."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from bot.config import build_catalog, load
from bot.core import history as chronicle
from bot.core.catalog import UNKNOWN
from bot.core.history import Entry, History
from bot.core.promotion import Signer
from bot.git_access import git_repository
from bot.messages.mrkdwn import cut
from bot.settings import Settings

EVERYTHING = 2**31 - 2
"""More commits than git counts."""
COLUMNS = (
    *("at", "app", "environment", "from", "old_version", "new_version", "digest", "promotion"),
    *("requested_by", "requested_by_id", "requested_by_email", "approved_by", "approved_by_ids"),
    *(
        "way",
        "rollback_of",
        "incident",
        "reason",
        "repository",
        "branch",
        "revision",
        "commit",
        "slack_message",
        "brings",
        "build",
    ),
)
HEADINGS = ("AT", "TARGET", "OLD", "NEW", "REQUESTED BY", "APPROVED BY", "WAY", "REVISION", "REASON")
WIDEST = 40

_FORMULA = re.compile(r"(^|[;\t])(?=[\s\"'“”‘’]*[=+\-@\t\r\n＝＋－＠﹦﹢﹣﹫−])")
"""Where a spreadsheet may begin to calculate; in half of the world it takes `;` for the end of a cell."""


async def read(
    settings: Settings,
    *,
    app: str | None = None,
    environment: str | None = None,
    since: str | None = None,
    until: str | None = None,
    by: str | None = None,
) -> History:
    """Every entry that is meant, newest first; raises `Refused`, `Unavailable` and what is wrong with the settings."""
    config = load(settings.config_path)
    catalog = build_catalog(config)
    query = chronicle.query(
        catalog,
        now=datetime.now(UTC),
        app=app,
        environment=environment,
        since=since,
        until=until,
        by=by,
    )
    gitops = git_repository(settings, config)
    try:
        return await chronicle.read(query, catalog=catalog, values=gitops, limit=EVERYTHING)
    finally:
        await gitops.aclose()


def as_json(entries: Iterable[Entry]) -> str:
    """One object a line, with the same keys in each."""
    return "".join(f"{json.dumps(_record(entry), ensure_ascii=False)}\n" for entry in entries)


def as_csv(entries: Iterable[Entry]) -> str:
    """A table for spreadsheets, every cell in quotes, and none a formula."""
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL)
    table.writerow(COLUMNS)
    for entry in entries:
        row = _row(_record(entry))
        table.writerow([cell(row[column]) for column in COLUMNS])
    return text.getvalue()


def as_table(entries: Iterable[Entry]) -> str:
    """A table to look at; what is too long for its column is cut."""
    rows = [HEADINGS, *([cut(each, WIDEST) for each in _shown(entry)] for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def cell(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would take for a formula."""
    return _FORMULA.sub(r"\1'", text)


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "at": _iso(entry.at, "seconds"),
        "app": entry.app,
        "environment": entry.environment,
        "from": entry.source,
        "old_version": entry.old_version,
        "new_version": entry.new_version,
        "digest": entry.digest,
        "promotion": entry.promotion,
        "requested_by": _person(entry.requested_by),
        "approved_by": [_person(each) for each in entry.approved_by],
        "way": entry.way,
        "rollback_of": entry.rollback_of,
        "incident": entry.incident,
        "reason": entry.reason,
        "repository": entry.repository.name,
        "branch": entry.repository.branch,
        "revision": entry.revision,
        "commit": entry.commit,
        "slack_message": entry.slack_message,
        "brings": entry.brings,
        "build": entry.build,
    }


def _person(signer: Signer) -> dict[str, str | None]:
    return {"id": signer.id, "team": signer.team, "name": signer.name, "email": signer.email}


def _row(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as cells: names and ids of people stand beside one another, and what is not there is empty."""
    requester, approvers = record["requested_by"], record["approved_by"]
    people = {
        "requested_by": requester["name"],
        "requested_by_id": requester["id"],
        "requested_by_email": requester["email"],
        "approved_by": ", ".join(each["name"] for each in approvers),
        "approved_by_ids": ", ".join(each["id"] for each in approvers),
    }
    return {name: str(value or "") for name, value in {**record, **people}.items()}


def _shown(entry: Entry) -> Iterable[str]:
    """The cells of one row to look at."""
    ways = [*([entry.way.upper()] if entry.way else []), *(["ROLLBACK"] if entry.is_rollback else [])]
    return (
        _iso(entry.at, "minutes"),
        f"{entry.app}/{entry.environment}",
        entry.old_version,
        entry.new_version,
        _named(entry.requested_by),
        ", ".join(map(_named, entry.approved_by)),
        ", ".join(ways),
        entry.revision[:8],
        entry.reason or "",
    )


def _iso(at: datetime, precision: str) -> str:
    return at.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _named(signer: Signer) -> str:
    return signer.name if signer.id in (signer.name, UNKNOWN) else f"{signer.name} ({signer.id})"
