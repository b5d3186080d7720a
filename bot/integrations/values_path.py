"""Where a key path leads in a values file: `image.tag`, `images[0].tag`, `images[name=web].newTag`, `labels["a.b/c"]`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot.core.errors import ValueNotEditable
from bot.integrations.values_file import ParsedFile

_STEP = re.compile(
    r"""(?:^|\.)(?P<key>[^.\[\]]+)"""
    r"""|\[(?P<index>\d+)\]"""
    r"""|\["(?P<quoted>[^"]+)"\]"""
    r"""|\[(?P<field>[^\]="]+)=(?P<value>[^\]]*)\]"""
)


@dataclass(frozen=True, slots=True)
class Place:
    """A node, its key where it has one, and the mapping or list that it was found in."""

    node: int
    key: int | None = None
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of a key path: a key, a place in a list, or the list's entry where `field` is `key`."""

    key: str = ""
    index: int | None = None
    field: str | None = None

    @property
    def is_entry(self) -> bool:
        """Does it choose an entry of a list?"""
        return self.index is not None or self.field is not None

    def __str__(self) -> str:
        if self.index is not None:
            return f"[{self.index}]"
        return f"[{self.field}={self.key}]" if self.field else self.key


class _Missing(ValueNotEditable):
    """The path ends early: in a file of several documents another one may have it."""


class Paths:
    """Follows key paths through a parsed file, and refuses those that do not lead to one place for every reader.

    With `edit_anchors` a path may lead through what an anchor shares with other places.
    """

    def __init__(self, file: ParsedFile, *, edit_anchors: bool) -> None:
        self._file = file
        self._edit_anchors = edit_anchors

    def find(self, key: str) -> Place:
        """The place at the end of the path, which must exist in exactly one document."""
        steps = _steps(key)
        found, missing = [], None
        for root in self._file.roots:
            try:
                found.append(self._follow(root, steps))
            except _Missing as error:
                missing = missing or error
        if len(found) > 1:
            raise self._file.refusal(
                self._file.line(found[1].node),
                f"{key} exists in {len(found)} documents of this file. Please keep one document in it",
            )
        if not found:
            raise missing or self._file.refusal(1, f"there is no {key}: the file is empty")
        return found[0]

    def effective(self, mapping: int, key: str) -> Place | None:
        """The key that readers find in a mapping, its own or one that `<<` brings; aliases are resolved."""
        if pair := self._own(mapping, key):
            return Place(self._file.resolved(pair[1]), pair[0], mapping)
        return self._merged(mapping, key, {mapping})

    def _follow(self, root: int, steps: Sequence[_Step]) -> Place:
        place = Place(self._changeable(root))
        for depth, step in enumerate(steps):
            parent = "".join(f"{'' if step.is_entry else '.'}{step}" for step in steps[:depth])
            parent = parent.removeprefix(".") or "the top of the file"
            place = (self._item if step.is_entry else self._entry)(place.node, step, parent)
            place = Place(self._changeable(place.node), place.key, place.parent)
        return place

    def _changeable(self, node: int) -> int:
        """The node that an edit changes; what is shared may only be changed for all of its places."""
        anchor = self._file.resolved(node)
        name = self._file.events[anchor].anchor
        uses = self._file.uses(anchor) if name else 0
        if self._edit_anchors or not uses:
            return anchor
        places = f"{uses} other place{'s' if uses > 1 else ''}"
        if anchor == node:
            raise self._file.refusal(
                self._file.line(node),
                f"&{name} is repeated in {places}, which would change too. "
                "Please write the value out there, or set edit_anchors: true to change it everywhere",
            )
        raise self._file.refusal(
            self._file.line(node),
            f"*{name} repeats what line {self._file.line(anchor)} says, as {uses} place{'s do' if uses > 1 else ' does'}. "
            "Please write the value out here, or set edit_anchors: true to change it everywhere",
        )

    def _entry(self, mapping: int, step: _Step, parent: str) -> Place:
        key = step.key
        if not self._file.is_mapping(mapping):
            raise self._missing(mapping, f"there is no {key}: {parent} holds no keys.")
        if key == "<<":
            raise self._file.refusal(
                self._file.line(mapping),
                "a key path cannot lead through “<<”. Please name the key of its anchor",
            )
        if pair := self._own(mapping, key):
            return Place(pair[1], pair[0], mapping)
        if merges := self._merges(mapping):
            raise self._file.refusal(
                self._file.line(merges[0][0]),
                f"{key} can only come from “<<” here. Please write it out under {parent}, or name another key",
            )
        names = [name for pair in self._file.pairs(mapping) if (name := self._file.key(pair[0]))]
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        hint = f" Did you mean “{close[0]}”?" if close else ""
        raise self._missing(mapping, f"there is no key “{key}” in {parent}.{hint}")

    def _item(self, node: int, step: _Step, parent: str) -> Place:
        if not self._file.is_list(node):
            raise self._missing(node, f"there is no {step}: {parent} is not a list.")
        items = list(self._file.children(node))
        if step.index is not None:
            if step.index < len(items):
                return Place(items[step.index], parent=node)
            raise self._missing(node, f"{parent} has no entry {step}, only {len(items)}.")
        matches = [item for item in items if self._fits(item, step)]
        if len(matches) > 1:
            raise self._file.refusal(
                self._file.line(matches[1]),
                f"{step} fits more than one entry of {parent}. Please make it unique",
            )
        if not matches:
            raise self._missing(node, f"no entry of {parent} fits {step}.")
        return Place(matches[0], parent=node)

    def _fits(self, item: int, step: _Step) -> bool:
        item = self._file.resolved(item)
        if step.field is None or not self._file.is_mapping(item):
            return False
        found = self.effective(item, step.field)
        return found is not None and self._file.text_of(found.node) == step.key

    def _own(self, mapping: int, key: str) -> tuple[int, int] | None:
        """The mapping's own key and its value; refused where some reader takes another value."""
        pairs = [pair for pair in self._file.pairs(mapping) if self._file.key(pair[0]) == key]
        if not pairs:
            return None
        if len(pairs) > 1:
            raise self._file.refusal(
                self._file.line(pairs[1][0]), f"{key} stands here a second time. Please remove one of the two"
            )
        merge = self._merges(mapping)[-1:]
        if merge and merge[0][0] > pairs[0][0] and self._merged(mapping, key, {mapping}):
            raise self._file.refusal(
                self._file.line(merge[0][0]),
                f"this “<<” brings another {key}, and Helm takes whichever comes last. Please move “<<” up to the top",
            )
        return pairs[0]

    def _merges(self, mapping: int) -> list[tuple[int, int]]:
        """The keys `<<` and what they merge; a quoted one is a key like any other."""
        return [
            (name, value)
            for name, value in self._file.pairs(mapping)
            if self._file.key(name) == "<<" and not self._file.events[self._file.resolved(name)].style
        ]

    def _merged(self, mapping: int, key: str, seen: set[int]) -> Place | None:
        """The key that `<<` brings into a mapping; `seen` guards against anchors that repeat themselves."""
        for _, merged in self._merges(mapping):
            source = self._file.resolved(merged)
            sources = self._file.children(source) if self._file.is_list(source) else [source]
            for each in map(self._file.resolved, sources):
                if each in seen or not self._file.is_mapping(each):
                    continue
                seen.add(each)
                for name, value in self._file.pairs(each):
                    if self._file.key(name) == key:
                        return Place(self._file.resolved(value), name, each)
                if place := self._merged(each, key, seen):
                    return place
        return None

    def _missing(self, node: int, sentence: str) -> _Missing:
        return _Missing(f"{self._file.path}:{self._file.line(node)}: {sentence}")


def _steps(key: str) -> list[_Step]:
    steps: list[_Step] = []
    place = 0
    while place < len(key) or not steps:
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
