"""Finds one value in a values file and replaces exactly its bytes.

YAML libraries that load and dump a file change lines that nobody asked about. So the file is only *parsed*: the
parser's marks say where the scalar begins and ends, its bytes are exchanged, and the result is parsed again and
compared event by event. Whatever cannot be changed that way without guessing is refused with its line and reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from ruamel.yaml.events import CollectionStartEvent, DocumentStartEvent, Event, ScalarEvent

from bot.core.errors import ValueNotEditable
from bot.core.promotion import LineChange
from bot.integrations.values_file import Located, ValuesFile

__all__ = ["Located", "find_value", "line_changes", "read_value", "read_values", "set_value", "set_values"]

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_NOT_A_STRING = re.compile(
    r"[-+]?[0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9_]*)?"  # 15, 0123, 1_000, 1.10, 1e10, 12e4567
    r"|[-+]?0[xXoObB][0-9a-fA-F_]*"
    r"|\d{4}-\d\d?-\d\d?(?:[Tt].*)?"
    r"|(?i:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)"
)
"""Plain scalars that are a number, truth value, null or date in YAML 1.1, in YAML 1.2 or to Go's parser."""


def find_value(text: bytes, key: str, *, path: str) -> Located:
    """Where the value of `key` (`image.tag`, `images[0].tag`, `images[name=web].newTag`) stands in the file.

    `path` is the file's name for messages. Raises `ValueNotEditable`.
    """
    return ValuesFile(text, path).locate(key)


def read_value(text: bytes, key: str, *, path: str) -> str:
    """The value of `key` as it is written, without quotes; empty where nothing is. Raises `ValueNotEditable`."""
    return find_value(text, key, path=path).value


def read_values(text: bytes, keys: Sequence[str], *, path: str) -> dict[str, str]:
    """What `read_value` says of each key, for one parse."""
    file = ValuesFile(text, path)
    return {key: file.locate(key).value for key in keys}


def set_value(text: bytes, key: str, version: str, *, path: str) -> bytes:
    """The file with `version` at `key`, and every other byte as it was. Raises `ValueNotEditable`."""
    return set_values(text, (key,), version, path=path)


def set_values(text: bytes, keys: Sequence[str], version: str, *, path: str) -> bytes:
    """What `set_value` does, for each key at once."""
    before = ValuesFile(text, path)
    places = {located.event: located for located in map(before.locate, keys)}
    changed = text
    for located in sorted(places.values(), key=lambda located: located.start, reverse=True):
        # Go's parser and ours take a plain word in JSON; other readers of JSON do not.
        style = '"' if path.endswith(".json") else located.style
        written = _written(version, style)
        if written is None:
            raise ValueNotEditable(f"{path}:{located.line}: {version!r} cannot be written as a version.")
        lead = b" " if located.start == located.end else b""
        changed = changed[: located.start] + lead + written.encode() + changed[located.end :]
    if not _differs_only_at(before.events, ValuesFile(changed, path).events, places.keys(), version):
        raise ValueNotEditable(
            f"{path}: setting {', '.join(keys)} would change more than the value. Please change it by hand."
        )
    return changed


def line_changes(before: bytes, after: bytes, *, path: str) -> tuple[LineChange, ...]:
    """The lines that differ between two editions of a file; an edit never adds or removes a line."""
    pairs = zip(before.split(b"\n"), after.split(b"\n"), strict=True)
    return tuple(
        LineChange(path=path, number=number, before=_line(old), after=_line(new))
        for number, (old, new) in enumerate(pairs, start=1)
        if old != new
    )


def _written(version: str, style: str) -> str | None:
    """The scalar as it goes into the file, in its old style; None for what is no printable ASCII."""
    if not version or not version.isascii() or not version.isprintable():
        return None
    if style == "'":
        return "'" + version.replace("'", "''") + "'"
    if style == '"' or not _PLAIN.fullmatch(version) or _NOT_A_STRING.fullmatch(version):
        return '"' + version.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return version


def _differs_only_at(
    before: Sequence[Event], after: Sequence[Event], places: Collection[int], version: str
) -> bool:
    """Is everything the same but the values of the events at `places`, which are `version` now?"""
    return len(before) == len(after) and all(
        _became(old, new, version) if place in places else _content(old) == _content(new)
        for place, (old, new) in enumerate(zip(before, after, strict=True))
    )


def _became(old: Event, new: Event, version: str) -> bool:
    return (
        isinstance(old, ScalarEvent)
        and isinstance(new, ScalarEvent)
        and (new.value, new.anchor, new.tag) == (version, old.anchor, old.tag)
    )


def _content(event: Any) -> tuple[object, ...]:
    """All that an event says, without its marks."""
    if isinstance(event, ScalarEvent):
        return (event.value, event.anchor, event.tag, event.style, event.implicit)
    if isinstance(event, CollectionStartEvent):
        return (type(event), event.anchor, event.tag, event.flow_style, event.implicit)
    if isinstance(event, DocumentStartEvent):
        return (type(event), event.explicit, event.version, repr(event.tags))
    return (type(event), getattr(event, "anchor", None))


def _line(raw: bytes) -> str:
    return raw.removesuffix(b"\r").decode("utf-8", "replace")
