"""A values file as its parser sees it: the events, how they nest, and where their characters stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from operator import attrgetter
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from bot.core.errors import ValueNotEditable

MAX_BYTES = 5_000_000
MAX_EVENTS = 500_000
MAX_DEPTH = 200
MAX_PURE = 300_000
"""Characters that the slow parser is asked to read: about three seconds of it."""
STRING_TAG = "tag:yaml.org,2002:str"

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_BOM_AT_LINE = re.compile(f"^{_BOM}", re.MULTILINE)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"

_COLON_IN_FLOW = "found unexpected ':'"
"""What libyaml 0.1 says of `{digest: sha256:12}`, which YAML 1.2 and Go's parsers know to be a plain word."""

_STARTS = frozenset({MappingStartEvent, SequenceStartEvent})
_ENDS = frozenset({MappingEndEvent, SequenceEndEvent})

_collection = attrgetter("__class__", "anchor", "tag", "flow_style", "implicit")
_CONTENT = {
    StreamStartEvent: attrgetter("__class__"),
    StreamEndEvent: attrgetter("__class__"),
    DocumentStartEvent: attrgetter("__class__", "explicit", "version", "tags"),
    DocumentEndEvent: attrgetter("__class__", "explicit"),
    MappingStartEvent: _collection,
    MappingEndEvent: attrgetter("__class__"),
    SequenceStartEvent: _collection,
    SequenceEndEvent: attrgetter("__class__"),
    AliasEvent: attrgetter("__class__", "anchor"),
    ScalarEvent: attrgetter("__class__", "anchor", "tag", "value", "style", "implicit"),
}
"""All that an event of each class says, without its marks."""


class ParsedFile:
    """The parser's events of a file. A node is named by the number of the event that begins it.

    `roots` are the topmost nodes of the documents; `ends` holds the last event of each mapping and list. `pure` asks
    for the slow parser, which also reads what the fast one does not know. Raises `ValueNotEditable` for what is no
    YAML of a sensible size.
    """

    def __init__(self, raw: bytes, path: str, *, pure: bool = False) -> None:
        self.path = path
        if len(raw) > MAX_BYTES:
            raise ValueNotEditable(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: I do not edit it.")
        if raw.partition(b"\n")[0].rstrip() == _LFS_POINTER:
            raise self.refusal(1, "the file is kept in Git LFS. Please keep it in git as a plain file")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise self.refusal(line, "the file is not UTF-8. Please save it as UTF-8") from error
        # The parser's marks count characters and leave out a byte order mark.
        self.text = text.removeprefix(_BOM)
        if again := _BOM_AT_LINE.search(self.text):
            line = self.line_at(again.start())
            raise self.refusal(line, "a byte order mark stands here, which readers take for different things")
        self._bom = len(_BOM.encode()) if text.startswith(_BOM) else 0
        self.pure = pure
        self.events: list[Any]
        self.roots: list[int]
        self.ends: dict[int, int]
        self._parse()

    def refusal(self, line: int, reason: str) -> ValueNotEditable:
        """The error that names the place and the reason."""
        return ValueNotEditable(f"{self.path}:{line}: {reason}.")

    def line(self, node: int) -> int:
        """The 1-based line where a node begins."""
        return self.line_at(self.events[node].start_mark.index)

    def line_at(self, character: int) -> int:
        """The 1-based line of a character, as editors and git count: the parser knows more line ends than they."""
        return self.text.count("\n", 0, character) + 1

    def line_around(self, character: int) -> str:
        """The text of that line, without its line feed."""
        start = self.text.rfind("\n", 0, character) + 1
        return self.text[start:].partition("\n")[0]

    def offset(self, character: int) -> int:
        """The offset in bytes of a character."""
        return self._bom + len(self.text[:character].encode())

    def contents(self) -> list[Any]:
        """What each event says, without its marks: two files with equal contents differ in looks alone."""
        return [_CONTENT[type(event)](event) for event in self.events]

    def children(self, node: int) -> Iterator[int]:
        """The entries of a list, or the keys and values of a mapping in turn."""
        child, end = node + 1, self.ends[node]
        while child < end:
            yield child
            child = self.ends.get(child, child) + 1

    def pairs(self, mapping: int) -> list[tuple[int, int]]:
        """The keys and values of a mapping."""
        children = self.children(mapping)
        return list(zip(children, children, strict=True))

    def child(self, mapping: int | None, key: str) -> int | None:
        """The value of a key, where there is such a mapping and it has the key."""
        if mapping is None or not self.is_mapping(mapping):
            return None
        return next((value for name, value in self.pairs(mapping) if self.key(name) == key), None)

    def is_mapping(self, node: int) -> bool:
        """Does it hold keys?"""
        return type(self.events[node]) is MappingStartEvent

    def is_list(self, node: int) -> bool:
        """Does it hold entries?"""
        return type(self.events[node]) is SequenceStartEvent

    def is_scalar(self, node: int) -> bool:
        """Is it a single value?"""
        return type(self.events[node]) is ScalarEvent

    def is_alias(self, node: int) -> bool:
        """Does it stand for a node with an anchor?"""
        return type(self.events[node]) is AliasEvent

    def in_flow(self, node: int) -> bool:
        """Does it stand between braces or brackets?"""
        around = (start for start in range(node - 1, -1, -1) if self.ends.get(start, 0) > node)
        parent = next(around, None)
        return parent is not None and bool(self.events[parent].flow_style)

    def resolved(self, node: int) -> int:
        """The node itself, or the one that an alias stands for."""
        if not self.is_alias(node):
            return node
        if node not in self._anchored:
            raise self.refusal(self.line(node), f"the alias *{self.events[node].anchor} has no anchor")
        return self._anchored[node]

    def uses(self, node: int) -> int:
        """How many aliases stand for the node."""
        return sum(anchored == node for anchored in self._anchored.values())

    def key(self, node: int) -> str | None:
        """A key as text; an alias says what its anchor holds, and a collection is no key that a path can name."""
        event = self.events[self.resolved(node)]
        if type(event) is not ScalarEvent:
            return None
        if event.tag not in (None, STRING_TAG):
            raise self.refusal(self.line(node), f"a key carries the tag {event.tag}. Please remove it")
        return str(event.value)

    def text_of(self, node: int) -> str | None:
        """What a single value says; None for a mapping, a list or an alias."""
        return str(self.events[node].value) if self.is_scalar(node) else None

    @cached_property
    def _anchored(self) -> dict[int, int]:
        """The node that each alias stands for: the nearest above it with that anchor, in the same document."""
        anchors: dict[str, int] = {}
        found: dict[int, int] = {}
        for number, event in enumerate(self.events):
            if type(event) is DocumentStartEvent:
                anchors.clear()
            elif name := getattr(event, "anchor", None):
                if type(event) is not AliasEvent:
                    anchors[name] = number
                elif name in anchors:
                    found[number] = anchors[name]
        return found

    def _parse(self) -> None:
        try:
            self._read()
        except YAMLError as error:
            if self.pure or getattr(error, "problem", None) != _COLON_IN_FLOW:
                raise self._unreadable(error) from error
            if len(self.text) > MAX_PURE and isinstance(error, MarkedYAMLError):
                reason = "a word between braces holds a colon, and the file is large. Please quote that word"
                raise self.refusal(self.line_at(error.problem_mark.index), reason) from error
            self.pure = True
            self._parse()
            disputed = next((node for node, event in enumerate(self.events) if _ends_in_colon(event)), None)
            if disputed is not None:
                reason = "a word ends in a colon, which readers take for different things. Please quote it"
                raise self.refusal(self.line(disputed), reason) from error

    def _read(self) -> None:
        self.events, self.roots, self.ends = [], [], {}
        open_nodes: list[int] = []
        parser = YAML(typ="safe", pure=self.pure)
        for number, event in enumerate(islice(parser.parse(self.text), MAX_EVENTS)):
            self.events.append(event)
            kind = type(event)
            if kind is ScalarEvent:
                continue
            if kind in _STARTS:
                open_nodes.append(number)
                if len(open_nodes) > MAX_DEPTH:
                    raise self.refusal(self.line(number), f"it is nested more than {MAX_DEPTH} deep")
            elif kind in _ENDS:
                self.ends[open_nodes.pop()] = number
            elif kind is DocumentStartEvent:
                self.roots.append(number + 1)
        if len(self.events) == MAX_EVENTS:
            raise self.refusal(
                self.line(-1), f"the file holds more than {MAX_EVENTS:,} values and keys: I do not edit it"
            )

    def _unreadable(self, error: YAMLError) -> ValueNotEditable:
        if isinstance(error, MarkedYAMLError) and error.problem_mark:
            return self.refusal(
                self.line_at(error.problem_mark.index), f"this is not valid YAML: {error.problem}"
            )
        if isinstance(error, ReaderError):
            place = self.text.find(chr(error.character))
            return self.refusal(
                self.line_at(place),
                f"YAML does not allow the character U+{error.character:04X}. Please remove it",
            )
        return self.refusal(1, "this is not valid YAML")


def _ends_in_colon(event: Any) -> bool:
    return type(event) is ScalarEvent and not event.style and event.value.endswith(":")
