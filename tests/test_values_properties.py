"""Whatever a values file looks like: the bytes around an edited value stay, and every reader gets the new value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bot.core.catalog import VERSION
from bot.core.errors import ValueNotEditable
from bot.integrations import values_file
from bot.integrations.values import ValuesFile, line_changes

DATA = Path(__file__).parent / "data" / "values.yaml"
DIGEST = "sha256:" + "0123456789abcdef" * 4
WORDS = "15 1.10 1e10 12e4567 0123 1_000 0x1F 0_x1F 0b-1 0o17 on Off y N null ~ = << .5 .inf - -1 +1 2024-01-01 1:30"
NAMES = "1.2.3 v1.2 sha-1234567 deadbeef {} [] * & ! | > % @ ` # , ? : v1: {{x}} 'v1' \"v1\" \\ a'b a\"b a\\b ENC[x] ${x}"
PHRASES = ["a # b", "a: b", " v1", "v1 ", "- a", "--- a", f"v15@{DIGEST}", f"15@{DIGEST}", DIGEST]
AWKWARD = [*WORDS.split(), *NAMES.split(), *PHRASES]

versions = st.from_regex(VERSION, fullmatch=True).filter(str.isascii) | st.sampled_from(AWKWARD)
printable = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="\ufeff")
comments = st.text(printable, max_size=12).map(lambda words: f"# {words}")


@dataclass(frozen=True)
class Written:
    """A piece of YAML with a hole for the value; `path` leads to the hole, by key path and by place.

    `is_line` says that it fits behind `key: `.
    """

    text: str
    path: str = ""
    places: tuple[int, ...] = ()
    is_line: bool = True


HOLE = "\ue000"
KEYS = {
    "image": ".image",
    "'tag'": ".tag",
    '"version"': ".version",
    "app.kubernetes.io/tag": '["app.kubernetes.io/tag"]',
    "'a[0]'": '["a[0]"]',
    "7": ".7",
    "on": ".on",
    "~": ".~",
    "größe": ".größe",
    "two words": ".two words",
    "? tag\n": ".tag",
}
FLOW_SIBLINGS = ["x", "'it''s'", '"a\\"b"', "15", "~", "[1,  2]", "{ a: b,c: [d] }", '"{"', "!!str 1", "é"]
LINE_SIBLINGS = [*FLOW_SIBLINGS, "", "a:b", "[1,\n      2]", '"two\n      lines"', "plain\n      words"]
BLOCK_SIBLINGS = [
    "|\n      tag: v1\n      # no comment\n",
    ">-\n      folded\n\n      text\n",
    "\n      tag: v0\n",
    "\n      - a\n",
]


def indented(text: str, by: int) -> str:
    return re.sub(r"(?m)^(?=.)", " " * by, text)


@st.composite
def flow_maps(draw: st.DrawFn, inner: Written) -> Written:
    """`{a: 1, key: <inner>, b: 2}`, with odd spaces, comments and line ends between the entries."""
    key = draw(st.sampled_from([key for key in KEYS if "\n" not in key]))
    entries, place = draw(
        around(FLOW_SIBLINGS, lambda number, value: f"k{number}: {value}", f"{key}: {inner.text}")
    )
    text = "{" + joined(draw, entries) + "}"
    return Written(text, KEYS[key] + inner.path, (place, *inner.places))


@st.composite
def flow_lists(draw: st.DrawFn, inner: Written) -> Written:
    """`[1, <inner>, 2]`, likewise."""
    entries, place = draw(around(FLOW_SIBLINGS, lambda _, value: value, inner.text))
    return Written("[" + joined(draw, entries) + "]", f"[{place}]{inner.path}", (place, *inner.places))


@st.composite
def block_maps(draw: st.DrawFn, inner: Written) -> Written:
    """Keys below one another, with comments and empty lines between them."""
    key = draw(st.sampled_from(sorted(KEYS)))
    behind = f" {inner.text}{draw(st.sampled_from(['', ' ', '   ']))}{draw(st.just('') | comments.map(' {}'.format))}\n"
    if not inner.is_line:
        behind = f"\n{indented(inner.text, draw(st.integers(1, 4)))}"
    mine = f"{key}:{behind}"
    siblings = LINE_SIBLINGS + BLOCK_SIBLINGS
    entries, place = draw(
        around(siblings, lambda number, value: f"k{number}: {value}".rstrip("\n") + "\n", mine)
    )
    text = "".join(draw(gaps) + entry for entry in entries)
    return Written(text, KEYS[key] + inner.path, (place, *inner.places), is_line=False)


@st.composite
def block_lists(draw: st.DrawFn, inner: Written) -> Written:
    """Entries below one another; an entry that is a mapping may be chosen by its name."""
    spaces = draw(st.integers(1, 3))
    mine = (
        "-" + indented(inner.text, spaces + 1).removeprefix(" ")
        if not inner.is_line
        else f"-{' ' * spaces}{inner.text}\n"
    )
    is_named = not inner.is_line and inner.path.startswith((".", '["')) and not inner.path.startswith(".name")
    if is_named:
        mine += f"{' ' * (spaces + 1)}name: ghcr.io/acme/app\n"
    sibling = "- {{name: other{}, x: {}}}\n" if is_named else "- {1}\n"
    entries, place = draw(around(FLOW_SIBLINGS, sibling.format, mine))
    text = "".join(draw(gaps) + entry for entry in entries)
    step = "[name=ghcr.io/acme/app]" if is_named and draw(st.booleans()) else f"[{place}]"
    return Written(text, step + inner.path, (place, *inner.places), is_line=False)


gaps = st.lists(st.just("\n") | comments.map("{}\n".format), max_size=2).map("".join)


def joined(draw: st.DrawFn, entries: list[str]) -> str:
    """Entries of a flow collection; what follows a line end is indented."""
    separators = st.sampled_from([",", ", ", " ,  ", ",\n        ", ", # a comment, {it} says\n        "])
    blank = st.sampled_from(["", " ", "  "])
    text = entries[0] + "".join(draw(separators) + entry for entry in entries[1:])
    return draw(blank) + text + draw(blank)


@st.composite
def around(
    draw: st.DrawFn, siblings: list[str], entry: Callable[[int, str], str], mine: str
) -> tuple[list[str], int]:
    """Some siblings with this entry among them, and its place."""
    values = draw(st.lists(st.sampled_from(siblings), max_size=3))
    place = draw(st.integers(0, len(values)))
    entries = [entry(number, value) for number, value in enumerate(values)]
    return [*entries[:place], mine, *entries[place:]], place


@st.composite
def documents(draw: st.DrawFn) -> Written:
    """A random tree around the hole: flow collections inside, block collections outside."""
    written = Written(HOLE)
    for _ in range(draw(st.integers(0, 2))):
        written = draw(flow_maps(written) | flow_lists(written))
    for _ in range(draw(st.integers(0 if written.path else 1, 4))):
        written = draw(block_maps(written) | block_lists(written))
    return replace(written, path=written.path.removeprefix("."))


OLD = [
    "v1",
    "'14'",
    '"1.0"',
    "14",
    "!!str 15",
    "&unused v1",
    "'it''s'",
    '"a\\x20b"',
    "~",
    "&u !!str  'v1'",
    "null",
    "é🚀",
]
MUTATIONS: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "as it is": lambda before, after: (before, after),
    "Windows line ends": lambda before, after: (before.replace("\n", "\r\n"), after.replace("\n", "\r\n")),
    "old Mac line ends": lambda before, after: (before.replace("\n", "\r"), after.replace("\n", "\r")),
    "byte order mark": lambda before, after: ("\ufeff" + before, after),
    "no final line end": lambda before, after: (before, after.rstrip("\n")),
    "another document": lambda before, after: (before, after.rstrip("\n") + "\n...\n--- another document\n"),
}
STARTS = ["", "---\n", "%YAML 1.1\n---\n", "# first\n--- # start\n"]


def readers() -> dict[str, Callable[[str], Any]]:
    """YAML 1.1, where `on` is true and 0123 is octal, and YAML 1.2; each gives the first document."""
    made: dict[str, Callable[[str], Any]] = {
        "PyYAML": lambda text: next(yaml.load_all(text, yaml.SafeLoader)),
    }
    for number in ((1, 1), (1, 2)):
        reader = YAML(typ="safe", pure=True)
        reader.version = number
        made[f"ruamel, YAML {number}"] = lambda text, reader=reader: next(reader.load_all(text))
    return made


def at(document: Any, places: tuple[int, ...]) -> Any:
    for place in places:
        document = list(document.values())[place] if isinstance(document, dict) else document[place]
    return document


@settings(deadline=None, max_examples=60)
@given(
    documents(), st.sampled_from(OLD), st.sampled_from(sorted(MUTATIONS)), st.sampled_from(STARTS), versions
)
def test_bytes_outside_the_value_never_change(
    written: Written, old: str, mutation: str, start: str, version: str
) -> None:
    """Whatever stands around the value stays, and the value reads back as exactly the version, as a string."""
    before, after = MUTATIONS[mutation](*(start + written.text).split(HOLE))
    properties, _, scalar = old.rpartition(" ") if old[0] in "&!" else ("", "", old)
    before += properties + " " if properties else ""
    changed = (
        ValuesFile((before + scalar + after).encode(), "v.yaml").edited({written.path: version}).decode()
    )
    assert changed.startswith(before)
    assert changed.endswith(after)
    assert ValuesFile(changed.encode(), "v.yaml").value(written.path) == version
    for name, read in readers().items():
        found = at(read(changed.removeprefix("\ufeff")), written.places)
        assert (type(found), found) == (str, version), name


@dataclass(frozen=True)
class Scalar:
    """A scalar of a file as PyYAML sees it; `before` and `after` are the text around it where it can be edited."""

    path: str
    places: tuple[int, ...]
    before: str | None
    after: str = ""


def scalars(text: str) -> list[Scalar]:
    """Every scalar that a key path can name, and whether it can be changed for itself alone."""
    root = next(yaml.compose_all(text, yaml.CSafeLoader))
    places = Counter(id(node) for node in nodes(root, set()))
    return list(
        walk(text, root, None, Scalar("", (), None), {node for node, count in places.items() if count > 1})
    )


def nodes(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    """Each node as often as it is repeated; what it holds only once."""
    yield node
    if isinstance(node, yaml.CollectionNode) and id(node) not in seen:
        seen.add(id(node))
        for child in node.value:
            for each in child if isinstance(child, tuple) else (child,):
                yield from nodes(each, seen)


def walk(
    text: str, node: yaml.Node, key: yaml.Node | None, above: Scalar, shared: set[int]
) -> Iterator[Scalar]:
    if id(node) in shared:
        shared = shared | {id(child) for child in nodes(node, set())}
    if isinstance(node, yaml.ScalarNode):
        free = id(node) not in shared
        yield Scalar(above.path, above.places, *(around_scalar(text, node, key) if free else (None, "")))
        return
    for place, child in enumerate(node.value):
        name, value = child if isinstance(child, tuple) else (None, child)
        step = f'["{name.value}"]' if isinstance(name, yaml.ScalarNode) else f"[{place}]"
        if name is None or (isinstance(name, yaml.ScalarNode) and name.value != "<<"):
            there = Scalar(above.path + step, (*above.places, place), None)
            yield from walk(text, value, name, there, shared)


def around_scalar(text: str, node: yaml.Node, key: yaml.Node | None) -> tuple[str | None, str]:
    start, end = node.start_mark.index, node.end_mark.index
    if not node.value and not node.style:
        colon = text.index(":", key.end_mark.index) + 1 if key else 0
        return (text[:colon], text[colon:]) if key else (None, "")
    while text[start] in "&!":
        if text[start] == "!" and not text.startswith("!!str ", start):
            return None, ""
        start = text.index(" ", start) + 1
    is_line = "\n" not in text[start:end] and node.style not in ("|", ">")
    return (text[:start], text[end:]) if is_line else (None, "")


def node_at(node: yaml.Node, places: tuple[int, ...]) -> yaml.Node:
    for place in places:
        node = node.value[place][1] if isinstance(node, yaml.MappingNode) else node.value[place]
    return node


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_scalar_of_a_file_is_changed_alone(mutation: str) -> None:
    """In a file as teams write them, each value can become any version, and only its own bytes change."""
    text, mutate = DATA.read_text(), MUTATIONS[mutation]
    editable = [scalar for scalar in scalars(text) if scalar.before is not None]
    assert len(editable) > 200
    raw = "".join(mutate(text[:1], text[1:])).encode()
    file = ValuesFile(raw, "values.yaml")
    for number, scalar in enumerate(editable):
        before, after = mutate(scalar.before or "", scalar.after)
        for version in ("v2", AWKWARD[(number + len(mutation)) % len(AWKWARD)]):
            changed = file.edited({scalar.path: version})
            assert changed.startswith(before.encode()), scalar.path
            assert changed.endswith(after.encode()), scalar.path
        if mutation == "as it is":
            assert len(line_changes(raw, changed, path="values.yaml")) == 1
            found = node_at(yaml.compose(changed.decode(), yaml.CSafeLoader), scalar.places)
            assert (found.value, found.tag) == (version, "tag:yaml.org,2002:str"), scalar.path


def test_every_other_scalar_of_a_file_is_refused() -> None:
    """Blocks, several lines, foreign tags, shared anchors and empty entries; each refusal names its line."""
    refused = [scalar for scalar in scalars(DATA.read_text()) if scalar.before is None]
    assert len(refused) > 15
    file = ValuesFile(DATA.read_bytes(), "values.yaml")
    for scalar in refused:
        with pytest.raises(ValueNotEditable, match=r"^values\.yaml:\d+: "):
            file.edited({scalar.path: "v2"})


def test_the_parser_in_python_finds_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the C library an edit takes longer, and changes the same bytes."""
    raw = DATA.read_bytes()
    fast = ValuesFile(raw, "values.yaml")
    monkeypatch.setattr(values_file, "YAML", lambda **options: YAML(**{**options, "pure": True}))
    slow = ValuesFile(raw, "values.yaml")
    editable = [scalar.path for scalar in scalars(raw.decode()) if scalar.before is not None]
    assert [slow.locate(path) for path in editable] == [fast.locate(path) for path in editable]


@given(st.binary(max_size=200) | st.text(printable).map(str.encode), versions)
def test_any_bytes_are_edited_or_refused(text: bytes, version: str) -> None:
    """No file, however broken, ends in anything but an edit or a refusal."""
    try:
        changed = ValuesFile(text + b"\ntag: v1\n", "values.yaml").edited({"tag": version})
    except ValueNotEditable:
        return
    assert ValuesFile(changed, "values.yaml").value("tag") == version


@given(st.text(alphabet="tag: {}[],&*!|>'\"\n-#?<x1\\%@", max_size=30), versions)
def test_any_yaml_is_edited_or_refused(text: str, version: str) -> None:
    """Random syntax before and behind the value: an edit changes what the key path names, or is refused."""
    before, after = text[: len(text) // 2], text[len(text) // 2 :]
    raw = f"{before}\ntag: v1\n{after}".encode()
    try:
        changed = ValuesFile(raw, "values.yaml").edited({"tag": version})
    except ValueNotEditable:
        return
    assert len(line_changes(raw, changed, path="values.yaml")) <= 1
    assert ValuesFile(changed, "values.yaml").value("tag") == version
