"""A values file as its parser sees it: where the value of a key path stands, or why it cannot be changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from bot.core.errors import ValueNotEditable

MAX_BYTES = 5_000_000
MAX_DEPTH = 200

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_STRING_TAG = "tag:yaml.org,2002:str"
_COLON = re.compile(r"[ \t]*:")
_PROPERTIES = re.compile(r"(?:[&!]\S*(?:\s+|$))*")
"""An anchor and a tag in front of a value."""

_STEP = re.compile(
    r"""(?:^|\.)(?P<key>[^.\[\]]+)"""
    r"""|\[(?P<index>\d+)\]"""
    r"""|\["(?P<quoted>[^"]+)"\]"""
    r"""|\[(?P<field>[^\]="]+)=(?P<value>[^\]]*)\]"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a value stands: the byte offsets of the scalar itself, its 1-based line, and how it is written.

    `style` is `'`, `"` or empty for a plain scalar. An empty value has `start == end`, after its key's colon.
    """

    start: int
    end: int
    value: str
    line: int
    style: str
    event: int
    """The number of its parser event, for the comparison after an edit."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a key path: a key, a place in a list, or the list's entry where `field` is `key`."""

    key: str = ""
    index: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        if self.index is not None:
            return f"[{self.index}]"
        return f"[{self.field}={self.key}]" if self.field else self.key


class _Missing(ValueNotEditable):
    """The path ends early: in a file of several documents another one may have it."""


class ValuesFile:
    """A parsed values file: its events, and for each node the number of the event that follows it."""

    def __init__(self, raw: bytes, path: str) -> None:
        self.path = path
        if len(raw) > MAX_BYTES:
            raise ValueNotEditable(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: I do not edit it.")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise self.refusal(line, "the file is not UTF-8. Please save it as UTF-8") from error
        # The parser's marks count characters and leave out a byte order mark.
        self.text = text.removeprefix(_BOM)
        self.bom = len(_BOM.encode()) if text.startswith(_BOM) else 0
        self.events: list[Any] = []
        self.following: dict[int, int] = {}
        self._parse()

    def refusal(self, line: int, reason: str) -> ValueNotEditable:
        """The error that names the place and the reason."""
        return ValueNotEditable(f"{self.path}:{line}: {reason}.")

    def line(self, event: Event) -> int:
        """The 1-based line where an event begins, as editors and git count."""
        return self.text.count("\n", 0, event.start_mark.index) + 1

    def locate(self, key: str) -> Located:
        """Where the value of `key` stands; the path must exist in exactly one document."""
        steps = self._steps(key)
        found, missing = [], None
        for start, event in enumerate(self.events):
            if isinstance(event, DocumentStartEvent):
                try:
                    found.append(self._follow(start + 1, steps))
                except _Missing as error:
                    missing = missing or error
        if len(found) > 1:
            line = self.line(self.events[found[1][1]])
            raise self.refusal(
                line, f"{key} exists in {len(found)} documents of this file. Please keep one document in it"
            )
        if not found:
            raise missing or self.refusal(1, f"there is no {key}: the file is empty")
        return self._located(key, *found[0])

    def _parse(self) -> None:
        open_nodes: list[int] = []
        try:
            for number, event in enumerate(YAML(typ="safe").parse(self.text)):
                self.events.append(event)
                if isinstance(event, CollectionStartEvent):
                    open_nodes.append(number)
                    if len(open_nodes) > MAX_DEPTH:
                        raise self.refusal(self.line(event), f"it is nested more than {MAX_DEPTH} deep")
                elif isinstance(event, CollectionEndEvent):
                    self.following[open_nodes.pop()] = number + 1
                elif isinstance(event, ScalarEvent | AliasEvent):
                    self.following[number] = number + 1
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or "it cannot be parsed"
            raise self.refusal(mark.line + 1 if mark else 1, f"this is not valid YAML: {problem}") from error

    def _steps(self, key: str) -> list[_Step]:
        steps, place = [], 0
        while place < len(key):
            match = _STEP.match(key, place)
            if match is None:
                raise ValueNotEditable(f"The key “{key}” cannot be read from “{key[place:]}” on.")
            place = match.end()
            if match["index"]:
                steps.append(_Step(index=int(match["index"])))
            elif match["field"]:
                steps.append(_Step(field=match["field"], key=match["value"]))
            else:
                steps.append(_Step(key=match["key"] or match["quoted"]))
        return steps

    def _children(self, node: int) -> Iterator[int]:
        child = node + 1
        while not isinstance(self.events[child], CollectionEndEvent):
            yield child
            child = self.following[child]

    def _pairs(self, mapping: int) -> list[tuple[int, int]]:
        children = self._children(mapping)
        return list(zip(children, children, strict=True))

    def _follow(self, root: int, steps: Sequence[_Step]) -> tuple[int | None, int]:
        """The key node and the value node at the end of the path, in the document that begins at `root`."""
        key_node, node = None, root
        self._check_shared(node)
        for depth, step in enumerate(steps):
            parent = "".join(f"{'' if s.field or s.index is not None else '.'}{s}" for s in steps[:depth])
            parent = parent.removeprefix(".") or "the top of the file"
            if step.index is not None or step.field is not None:
                key_node, node = None, self._item(node, step, parent)
            else:
                key_node, node = self._entry(node, step.key, parent)
            self._check_shared(node)
        return key_node, node

    def _entry(self, node: int, key: str, parent: str) -> tuple[int, int]:
        event = self.events[node]
        if not isinstance(event, MappingStartEvent):
            raise _Missing(f"{self.path}:{self.line(event)}: there is no {key}: {parent} holds no keys.")
        pairs = self._pairs(node)
        names = [self._key_name(name) for name, _ in pairs]
        places = [place for place, name in enumerate(names) if name == key]
        if len(places) > 1:
            line = self.line(self.events[pairs[places[1]][0]])
            raise self.refusal(line, f"{key} stands here a second time. Please remove one of the two")
        if places:
            return pairs[places[0]]
        if "<<" in names:
            line = self.line(self.events[pairs[names.index("<<")][0]])
            raise self.refusal(
                line,
                f"{key} can only come from “<<” here. Please write it out under {parent}, or name another key",
            )
        close = difflib.get_close_matches(key, [name for name in names if name], n=1, cutoff=0.5)
        hint = f" Did you mean “{close[0]}”?" if close else ""
        raise _Missing(f"{self.path}:{self.line(event)}: there is no key “{key}” in {parent}.{hint}")

    def _item(self, node: int, step: _Step, parent: str) -> int:
        event = self.events[node]
        if not isinstance(event, SequenceStartEvent):
            raise _Missing(f"{self.path}:{self.line(event)}: there is no {step}: {parent} is not a list.")
        items = list(self._children(node))
        if step.index is not None:
            if step.index < len(items):
                return items[step.index]
            raise _Missing(
                f"{self.path}:{self.line(event)}: {parent} has no entry {step}, only {len(items)}."
            )
        matches = [item for item in items if self._has(item, step)]
        if len(matches) > 1:
            line = self.line(self.events[matches[1]])
            raise self.refusal(line, f"{step} fits more than one entry of {parent}. Please make it unique")
        if not matches:
            raise _Missing(f"{self.path}:{self.line(event)}: no entry of {parent} fits {step}.")
        return matches[0]

    def _has(self, node: int, step: _Step) -> bool:
        if not isinstance(self.events[node], MappingStartEvent):
            return False
        return any(
            self._key_name(name) == step.field and getattr(self.events[value], "value", None) == step.key
            for name, value in self._pairs(node)
        )

    def _key_name(self, node: int) -> str | None:
        """A key as text; an alias stands for what its anchor holds, and a collection is no key we know."""
        event = self.events[node]
        if isinstance(event, AliasEvent):
            event = self.events[self._anchor(node)]
        return str(event.value) if isinstance(event, ScalarEvent) else None

    def _anchor(self, alias: int) -> int:
        """The node that an alias stands for: the nearest one above it with that anchor."""
        name = self.events[alias].anchor
        for node in range(alias - 1, -1, -1):
            event = self.events[node]
            if isinstance(event, ScalarEvent | CollectionStartEvent) and event.anchor == name:
                return node
        raise self.refusal(self.line(self.events[alias]), f"the alias *{name} has no anchor")

    def _check_shared(self, node: int) -> None:
        """What is written once and used in several places cannot be changed for one of them."""
        event = self.events[node]
        if isinstance(event, AliasEvent):
            anchor = self.line(self.events[self._anchor(node)])
            raise self.refusal(
                self.line(event),
                f"*{event.anchor} repeats what line {anchor} says, and other places may too. "
                "Please write the value out here, or name the key of that line",
            )
        if isinstance(event, NodeEvent) and event.anchor and (uses := self._uses(node)):
            raise self.refusal(
                self.line(event),
                f"&{event.anchor} is repeated in {uses} other place{'s' if uses > 1 else ''}, "
                "which would change too. Please write the value out there",
            )

    def _uses(self, node: int) -> int:
        """How many aliases stand for this node: those up to the next anchor of the same name."""
        name, uses = self.events[node].anchor, 0
        for event in self.events[node + 1 :]:
            if getattr(event, "anchor", None) == name:
                if not isinstance(event, AliasEvent):
                    break
                uses += 1
        return uses

    def _located(self, key: str, key_node: int | None, node: int) -> Located:
        event = self.events[node]
        line = self.line(event)
        if not isinstance(event, ScalarEvent):
            raise self.refusal(
                line, f"{key} is not a single value. Please name the key of the version itself"
            )
        if event.tag not in (None, _STRING_TAG):
            raise self.refusal(line, f"{key} carries the tag {event.tag}. Please remove it")
        start, end = event.start_mark.index, event.end_mark.index
        written = self.text[start:end]
        if event.style in ("|", ">"):
            raise self.refusal(line, f"{key} is a block of text. Please write it on one line")
        properties = _PROPERTIES.match(written) if event.anchor or event.tag else None
        if properties:
            # In front of nothing, the blank after the tag is not part of the value.
            start += len(properties[0].rstrip()) if properties.end() == len(written) else properties.end()
            end = max(start, end) if properties.end() < len(written) else start
        elif not event.value and not event.style:
            start = end = self._after_colon(key, key_node, line)
        if "\n" in written or "\r" in written:
            raise self.refusal(line, f"{key} spans several lines. Please write it on one line")
        return Located(
            start=self._offset(start),
            end=self._offset(end),
            value=str(event.value),
            line=self.text.count("\n", 0, start) + 1,
            style=event.style or "",
            event=node,
        )

    def _after_colon(self, key: str, key_node: int | None, line: int) -> int:
        """Where an empty value goes: the pure parser puts its mark at the next token, so the colon decides."""
        colon = None
        if key_node is not None:
            colon = _COLON.match(self.text, self.events[key_node].end_mark.index)
        if colon is None:
            raise self.refusal(
                line, f"{key} is empty and has no colon of its own. Please write a value there"
            )
        return colon.end()

    def _offset(self, characters: int) -> int:
        return self.bom + len(self.text[:characters].encode())
