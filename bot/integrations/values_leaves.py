"""Every single value of a values file, by the key path that leads there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.integrations.values_file import MAX_DEPTH, MAX_EVENTS, ParsedFile

_NAME = re.compile(r"[^.\[\]]+")


def leaves(file: ParsedFile) -> Iterator[tuple[str, int]]:
    """Key path and node of each value, and of each empty mapping or list, with all that aliases and `<<` bring.

    `image.tag`, `hosts[0].name`, `labels["a.b/c"]`; of several documents each has its place before that, `[1].image`.
    Raises `ValueNotEditable` where readers disagree, or where aliases make more of the file than it holds.
    """
    several = len(file.roots) > 1
    count = 0
    for number, root in enumerate(file.roots):
        for path, node in _below(file, root, f"[{number}]" if several else "", depth=0):
            count += 1
            if count > MAX_EVENTS:
                raise file.refusal(file.line(node), f"its aliases make more than {MAX_EVENTS:,} values of it")
            yield path, node


def _below(file: ParsedFile, node: int, path: str, *, depth: int) -> Iterator[tuple[str, int]]:
    node = file.resolved(node)
    if depth > MAX_DEPTH:
        raise file.refusal(file.line(node), f"it is nested more than {MAX_DEPTH} deep")
    children: list[tuple[str, int]] = []
    if file.is_mapping(node):
        children = [(_key(path, name), child) for name, child in _entries(file, node, depth=depth).items()]
    elif file.is_list(node):
        children = [(f"{path}[{number}]", child) for number, child in enumerate(file.children(node))]
    if not children:
        yield path, node
    for below, child in children:
        yield from _below(file, child, below, depth=depth + 1)


def _entries(file: ParsedFile, mapping: int, *, depth: int) -> dict[str, int]:
    """The values of a mapping by their keys: its own go before those that `<<` brings."""
    if depth > MAX_DEPTH:
        raise file.refusal(file.line(mapping), f"it is nested more than {MAX_DEPTH} deep")
    own: dict[str, int] = {}
    merged: dict[str, int] = {}
    for name, value in file.pairs(mapping):
        key = file.key(name)
        if key is None:
            raise file.refusal(
                file.line(name), "a key here is a mapping or a list. Please write it as a word"
            )
        if key == "<<" and not file.events[file.resolved(name)].style:
            source = file.resolved(value)
            for each in map(file.resolved, file.children(source) if file.is_list(source) else [source]):
                if file.is_mapping(each):
                    merged = _entries(file, each, depth=depth + 1) | merged
        elif key in own:
            raise file.refusal(
                file.line(name), f"{key} stands here a second time. Please remove one of the two"
            )
        else:
            own[key] = value
    return merged | own


def _key(path: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        return f'{path}["{name}"]'
    return f"{path}.{name}" if path else name
