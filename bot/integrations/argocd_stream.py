"""Argo CD's event stream, as hints that an application is worth a look.

Events are dropped, late and out of order, so nothing is concluded from them: a look at the application decides.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.core.errors import Unavailable
from bot.integrations.argocd_http import SYSTEM, Connection, Rejected

Hint = tuple[str, str]
"""The namespace and the name of an Application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a stream is waited for, and how long nobody asks for a new one."""

    first: timedelta = timedelta(seconds=20)
    """Until the first event; nothing is sent before it."""
    later: timedelta = timedelta(seconds=40)
    """Until the next one or a sign of life; those come every 15 s."""
    lasts: timedelta = timedelta(minutes=10)
    """After which it is opened anew: rights are checked at the opening alone."""
    pauses: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    """Seconds between a stream and the next one, the first after one that went well."""
    refused: timedelta = timedelta(minutes=5)
    """How long a refusal is left alone."""


async def hints(
    connection: Connection, projects: Collection[str], patience: Patience | None = None
) -> AsyncGenerator[Hint, None]:
    """Name each application that an event tells of, for as long as somebody listens.

    What was there when the stream began is named only where it changed while there was none. It never raises: what
    goes wrong with a stream ends in another one.
    """
    patience = patience or Patience()
    known: dict[Hint, str] = {}
    failures = 0
    while True:
        began = time.monotonic()
        pause = None
        try:
            async with aclosing(_events(connection, projects, patience)) as events:
                async for event in events:
                    if hint := _news(event, known):
                        yield hint
        except Rejected:
            pause = patience.refused.total_seconds()
        except Unavailable:
            pass
        went_well = time.monotonic() - began >= patience.later.total_seconds()
        failures = 0 if went_well else failures + 1
        if pause is None:
            pause = patience.pauses[min(max(failures - 1, 0), len(patience.pauses) - 1)]
        # Many that lost the same server should not come back as one.
        await asyncio.sleep(pause * random.uniform(1, 1.5))  # noqa: S311 - no secret


async def _events(
    connection: Connection, projects: Collection[str], patience: Patience
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of one stream, until it ends or has lasted long enough. Raises `Rejected` and `Unavailable`."""
    ends_at = time.monotonic() + patience.lasts.total_seconds()
    lines = connection.lines(
        "/api/v1/stream/applications",
        {"projects": sorted(projects)},
        call="stream",
        first=patience.first,
        later=patience.later,
    )
    async with aclosing(lines):
        async for line in lines:
            if line.startswith(b"data:") and (event := _event(connection, line)):
                yield event
            if time.monotonic() >= ends_at:
                return


def _event(connection: Connection, line: bytes) -> dict[str, Any] | None:
    """What a line tells; None for what nobody can read. Raises as `_events` where it tells of an error."""
    try:
        told = json.loads(line.removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    if error := told.get("error"):
        code = error.get("http_code") if isinstance(error, dict) else None
        if code in (401, 403, 404):
            raise Rejected(code, "the stream was refused")
        raise Unavailable(SYSTEM, f"{connection.place} ends its stream with an error")
    found = told.get("result")
    return found if isinstance(found, dict) else None


def _news(event: dict[str, Any], known: dict[Hint, str]) -> Hint | None:
    """Which application changed; `known` remembers the edition of each."""
    try:
        metadata = event["application"]["metadata"]
        hint = (str(metadata.get("namespace") or ""), str(metadata["name"]))
        edition = str(metadata.get("resourceVersion") or "")
    except (LookupError, TypeError, AttributeError):
        return None
    is_first = hint not in known
    was = known.get(hint)
    known[hint] = edition
    if event.get("type") == "DELETED":
        del known[hint]
        return hint
    if event.get("type") == "ADDED":
        return None if is_first or was == edition else hint
    return hint
