"""The JSON that the store keeps, as short as it can be read again by every version of the bot.

A record leaves out what is None. An event is an array in the order of its fields, up to the last one that is not None; older ones are objects. What
stands beside a record leaves out everything that is as it is by default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bot.core.dossier import Dossier
from bot.core.errors import Newer, Unavailable, Unreadable
from bot.core.ports import Card
from bot.core.promotion import SCHEMA, Event, Promotion
from bot.core.rollout import Look
from bot.integrations.redis_trouble import SYSTEM

Beside = TypeVar("Beside", Card, Look)

_PROMOTION = TypeAdapter(Promotion)
_EVENT = TypeAdapter(Event)
_DOSSIER = TypeAdapter(Dossier)
_BESIDE: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Card, Look)}
_FIELDS = [field.name for field in fields(Event)]
_FIRST = frozenset(
    {"id", "schema", "edition", "phase", "app", "environment", "source", "version", "old_version", "digest"}
    | {"changes", "content_hash", "requested_by", "requested_at", "request_seal", "reason", "rollback_of"}
    | {"expires_at", "approvals", "approved_at", "link", "base", "revision", "committed_at", "ended_at"}
    | {"ending", "outcome", "last"}
)
"""The fields of a record's first form."""
_LATER = [field.name for field in fields(Promotion) if field.name not in _FIRST]


def schema(promotion: Promotion) -> int:
    """The lowest form that can hold the promotion, and no lower one than it had: older bots may go on with the first."""
    is_first = all(getattr(promotion, name) is None for name in _LATER)
    return max(promotion.schema, 1 if is_first else SCHEMA)


def record(promotion: Promotion) -> str:
    """The promotion as JSON, in the lowest form that can hold it."""
    kept = replace(promotion, schema=schema(promotion))
    return _PROMOTION.dump_json(kept, exclude_none=True).decode()


def promotion(id: str, text: str) -> Promotion:
    """The record as a value; `Newer` where a newer version of the bot wrote it, `Unavailable` where nobody can read it."""
    try:
        found = json.loads(text)
        if found.get("schema", SCHEMA) > SCHEMA:
            raise Newer(id)
        return _PROMOTION.validate_python(found)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unavailable(SYSTEM, f"the record of {id} cannot be read") from error


def legible(found: Iterable[tuple[str, str | None]]) -> Iterator[Promotion]:
    """Those of the ids and records that can be read: one that cannot must not hide the others."""
    for id, text in found:
        with suppress(Unavailable):
            if text is not None:
                yield promotion(id, text)


def event(happened: Event) -> str:
    """The event as JSON."""
    words = list(_named(happened).values())
    while words[-1] is None:
        words.pop()
    return json.dumps(words, ensure_ascii=False, separators=(",", ":"))


def events(story: Iterable[str]) -> tuple[Event, ...]:
    """The events in their order, without those that another version wrote in a way that we cannot read."""
    found = []
    for text in story:
        with suppress(TypeError, ValueError):
            found.append(_EVENT.validate_python(_named(text)))
    return tuple(found)


def beside(value: Card | Look) -> str:
    """What stands beside a record, as JSON."""
    return _BESIDE[type(value)].dump_json(value, exclude_defaults=True).decode()


def read(kind: type[Beside], text: str | None) -> Beside:
    """What stands beside a record; empty where nothing does.

    Another version's words about it must not stop a promotion, so they count as nothing.
    """
    try:
        value: Beside = kind() if text is None else _BESIDE[kind].validate_json(text)
    except ValidationError:
        return kind()
    return value


def dossier_text(found: Dossier) -> str:
    """A dossier as JSON."""
    return _DOSSIER.dump_json(found, exclude_defaults=True).decode()


def dossier(id: str, text: str) -> Dossier:
    """A dossier as a value; `Unavailable` where nobody can read it, as it decides who may approve."""
    try:
        return _DOSSIER.validate_json(text)
    except ValueError as error:
        raise Unreadable(SYSTEM, f"what was found about {id} cannot be read") from error


def line(text: str, story: Iterable[str]) -> str:
    """A promotion's record and events as one line of JSON."""
    whole = {"record": json.loads(text), "events": [_named(event) for event in story]}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def _named(happened: Event | str) -> dict[str, Any]:
    """The fields of an event by their names."""
    if isinstance(happened, Event):
        found: Any = _EVENT.dump_python(happened, mode="json")
    else:
        found = json.loads(happened)
    return dict(zip(_FIELDS, found, strict=False)) if isinstance(found, list) else dict(found)
