"""What is wrong with `promote.yaml`, in the words of somebody who writes YAML, and where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bot.config_models import Config
from bot.core.catalog import nearest

Place: TypeAlias = tuple[str | int, ...]
"""A path of keys into the file."""
Problem: TypeAlias = tuple[Place, str]
"""Where it stands, and what is wrong."""


def dotted(place: Place) -> str:
    """`policies.prod.windows.0`, for people."""
    return ".".join(map(str, place))


def problem(place: Place, says: str) -> Problem:
    """The problem with the place's name before it."""
    return place, f"{dotted(place)}: {says}"


def unknown(place: Place, name: str | None, known: Iterable[str], what: str) -> Iterator[Problem]:
    """The problem of a name that leads nowhere; `what` is what it should name."""
    if name is not None and name not in known:
        yield problem(place, f"{what} {name!r} is unknown.{nearest(name, known)}")


WORDS = {
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "string_type": "must be a text; put it into quotes",
    "int_parsing": "must be a number",
    "int_type": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
"""Pydantic's findings in the words of somebody who writes YAML."""


def explained(path: Path, raw: Any, finding: Any) -> str:
    """One of pydantic's findings as a line: the file's place, and what to do."""
    loc = [step for step in finding["loc"] if step != "[key]"]
    where = f"{path}:{line_of(raw, loc)}"
    name = ".".join(str(step) for step in loc)
    if finding["type"] == "extra_forbidden":
        match = difflib.get_close_matches(str(loc[-1]), _known_keys(loc[:-1]), n=1, cutoff=0.6)
        hint = f', did you mean "{match[0]}"?' if match else ""
        return f'{where}: unknown key "{loc[-1]}"{hint}'
    if finding["type"] == "missing":
        return f'{where}: "{name}" is missing'
    message = finding["msg"].removeprefix("Value error, ")
    if known := WORDS.get(finding["type"]):
        message = known.format_map(finding.get("ctx", {}))
    return f"{where}: {name}: {message}" if name else f"{where}: {message}"


def line_of(root: Any, loc: Sequence[Any]) -> int:
    """The line of the innermost key that the file really has."""
    line = 1
    node: Any = root
    for step in loc:
        try:
            marks: Any = node.lc
            place = marks.key(step) if isinstance(node, dict) else marks.item(step)
            line, node = place[0] + 1, node[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _known_keys(loc: list[Any]) -> list[str]:
    """The keys that may stand at a place of the file, from its own schema."""
    schema = Config.model_json_schema()
    nodes = [schema]
    for step in loc:
        nodes = [child for node in nodes for child in _children(schema, node, step)]
    return [key for node in nodes for key in _resolved(schema, node).get("properties", {})]


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _children(schema: dict[str, Any], node: dict[str, Any], step: Any) -> list[dict[str, Any]]:
    node = _resolved(schema, node)
    found = node.get("properties", {}).get(step) or node.get("items") or node.get("additionalProperties")
    for pattern in node.get("patternProperties", {}).values():
        found = found or pattern
    if not isinstance(found, dict):
        return []
    options = found.get("anyOf", [found])
    # A list of alternatives: its items are the alternatives of each of its entries.
    return [alternative for option in options for alternative in option.get("anyOf", [option])]
