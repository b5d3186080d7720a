"""One scalar of a values file is replaced, and nothing else: examples, refusals and properties."""

from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bot.core.catalog import VERSION
from bot.core.errors import ValueNotEditable
from bot.core.promotion import LineChange
from bot.integrations.values import find_value, line_changes, read_value, read_values, set_value, set_values

NUMBERS = "15 1.10 1e10 12e4567 0123 010 1_000 0x1F 0o17 0b11 1. 1.5e3 12345678 685_230 0 00 _1 1e _"
WORDS = "2024-01-01 on off On yes NO y n true False null NULL nan inf"
NAMES = "1.2.3 v1.2 v15 sha-1234567 2024-01-01-abc 15-rc1 abcdef1 1.2.3-4 main latest deadbeef 0x1G nope"
LOOK_LIKE_SOMETHING_ELSE = [*NUMBERS.split(), *WORDS.split()]
STAY_PLAIN = NAMES.split()

versions = st.from_regex(VERSION, fullmatch=True).filter(str.isascii)
awkward = st.sampled_from(LOOK_LIKE_SOMETHING_ELSE + STAY_PLAIN)
comments = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="\ufeff")
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"tag: v1 # keep me", b"tag: v2 # keep me"),
        (b"tag:   v1   # spaces\n", b"tag:   v2   # spaces\n"),
        (b"tag: v1\t# a tab\n", b"tag: v2\t# a tab\n"),
        (b"tag: 'v1'\n", b"tag: 'v2'\n"),
        (b'tag: "v1"\n', b'tag: "v2"\n'),
        (b"tag: 14\n", b"tag: v2\n"),
        (b"a: 1\r\ntag: v1\r\nb: 2\r\n", b"a: 1\r\ntag: v2\r\nb: 2\r\n"),
        (
            b"\xef\xbb\xbf# caf\xc3\xa9 \xf0\x9f\x9a\x80\ntag: v1\n",
            b"\xef\xbb\xbf# caf\xc3\xa9 \xf0\x9f\x9a\x80\ntag: v2\n",
        ),
        (b"{ drop: [ALL],tag: v1,x: ~ }", b"{ drop: [ALL],tag: v2,x: ~ }"),
        (b'{"tag":"v1"}', b'{"tag":"v2"}'),
        (b"tag: !!str v1\n", b"tag: !!str v2\n"),
        (b"tag: &unused v1\n", b"tag: &unused v2\n"),
        (b"tag: &unused !!str  'v1'\n", b"tag: &unused !!str  'v2'\n"),
        (b"tag:", b"tag: v2"),
        (b"tag:   # none\nb: 1", b"tag: v2   # none\nb: 1"),
        (b"tag: !!str # none\n", b"tag: !!str v2 # none\n"),
        (b"{tag: , a: b}", b"{tag: v2 , a: b}"),
        (b"tag: ~\n", b"tag: v2\n"),
        (b"? tag\n: v1\n", b"? tag\n: v2\n"),
        (b"a: &k tag\n*k : v1\n", b"a: &k tag\n*k : v2\n"),
        (b"other: {}\n---\ntag: v1\n", b"other: {}\n---\ntag: v2\n"),
        (b"%YAML 1.1\n---\ntag: v1\n...\n", b"%YAML 1.1\n---\ntag: v2\n...\n"),
    ],
)
def test_only_the_scalar_is_replaced(before: bytes, after: bytes) -> None:
    """Comments, spaces, line ends, a byte order mark, quotes, tags and flow style stay byte for byte."""
    assert set_value(before, "tag", "v2", path="values.yaml") == after
    assert read_value(after, "tag", path="values.yaml") == "v2"


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("image.tag", 2),
        ("images[1].newTag", 5),
        ("images[name=web].newTag", 4),
        ('labels["app.kubernetes.io/version"]', 7),
        ("matrix[0][1]", 8),
    ],
)
def test_a_key_path_goes_through_maps_and_lists(key: str, line: int) -> None:
    """A path names keys, places in a list, the list's entry with a field, and keys that hold dots."""
    text = (
        b"image:\n  tag: v1\nimages:\n- {name: web, newTag: v1}\n- {name: db, newTag: v1}\n"
        b"labels:\n  app.kubernetes.io/version: v1\nmatrix: [[x, v1]]\n"
    )
    assert find_value(text, key, path="values.yaml").line == line
    changed = set_value(text, key, "v2", path="values.yaml")
    assert [change.number for change in line_changes(text, changed, path="values.yaml")] == [line]
    assert read_value(changed, key, path="values.yaml") == "v2"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (b"a: &t v1\ntag: *t\n", 2, "*t repeats what line 1 says"),
        (b"tag: &t v1\na: *t\nb: *t\n", 1, "&t is repeated in 2 other places"),
        (b"tag: v1\na: 1\ntag: v2\n", 3, "a second time"),
        (b"tag: v1\n---\ntag: v1\n", 3, "2 documents"),
        (b"a: 1\ntga: v1\n", 1, "Did you mean “tga”?"),
        (b"x: &x {tag: v1}\n<<: *x\n", 2, "can only come from “<<”"),
        (b"a: 1\ntag: |\n  v1\n", 2, "block of text"),
        (b"a: 1\ntag: >-\n  v1\n", 2, "block of text"),
        (b"tag: v1\n  v2\n", 1, "several lines"),
        (b'tag: "v1\n  v2"\n', 1, "several lines"),
        (b"tag: !mine v1\n", 1, "the tag !mine"),
        (b"tag: !!int 15\n", 1, "the tag tag:yaml.org,2002:int"),
        (b"a: 1\ntag: \xff\n", 2, "not UTF-8"),
        (b"tag: [v1]\n", 1, "not a single value"),
        (b"tag: {{ .Values.tag }}\n", 1, "not a single value"),
        (b"a: 1\ntag: v1: v2\n", 2, "not valid YAML"),
        (b"{tag, a: b}", 1, "no colon of its own"),
        (b"- tag\n", 1, "holds no keys"),
        (b"", 1, "the file is empty"),
        (b"[" * 300, 1, "nested more than 200 deep"),
    ],
)
def test_what_cannot_be_changed_without_guessing_is_refused(text: bytes, line: int, reason: str) -> None:
    """The refusal names the file, the line and the reason."""
    with pytest.raises(ValueNotEditable) as refusal:
        set_value(text, "tag", "v2", path="app/values.yaml")
    assert str(refusal.value).startswith(f"app/values.yaml:{line}: ")
    assert reason in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("images[2].tag", "images has no entry [2], only 2"),
        ("images[name=api].tag", "no entry of images fits [name=api]"),
        ("images[kind=x].tag", "fits more than one entry"),
        ("image[0]", "image is not a list"),
        ("shared.image.tag", "&shared is repeated in 1 other place,"),
        ("images[", "cannot be read from “[” on"),
        ("image..tag", "cannot be read"),
        ("image.tag.x", "holds no keys"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(key: str, reason: str) -> None:
    """A place that is missing, ambiguous or shared with others is no place to write."""
    text = (
        b"image: {tag: v1}\nimages:\n- {name: web, kind: x, tag: v1}\n- {name: db, kind: x, tag: v1}\n"
        b"shared: &shared\n  image: {tag: v1}\nproduction:\n  <<: *shared\n"
    )
    with pytest.raises(ValueNotEditable) as refusal:
        set_value(text, key, "v2", path="values.yaml")
    assert reason in str(refusal.value)


def test_a_file_of_more_than_five_megabytes_is_refused() -> None:
    """A values file is written by people; anything of that size is something else."""
    with pytest.raises(ValueNotEditable, match="larger than 5 MB"):
        read_value(b"tag: v1\n" + b"#" * 5_000_000, "tag", path="values.yaml")


@pytest.mark.parametrize("version", ["", "v1\nb: 2", "é", "a\x00"])
def test_what_is_no_version_is_never_written(version: str) -> None:
    """The core has checked the version; a line break would still be refused here."""
    with pytest.raises(ValueNotEditable, match="cannot be written"):
        set_value(b"tag: v1\n", "tag", version, path="values.yaml")


@pytest.mark.parametrize("version", LOOK_LIKE_SOMETHING_ELSE)
def test_a_version_that_looks_like_something_else_is_quoted(version: str) -> None:
    """1.10 would be read as the number 1.1, 12e4567 as infinity and 0123 as 83."""
    assert set_value(b"tag: v1 # x\n", "tag", version, path="v.yaml") == f'tag: "{version}" # x\n'.encode()


@pytest.mark.parametrize("version", STAY_PLAIN)
def test_a_version_that_can_only_be_a_string_stays_plain(version: str) -> None:
    """No quotes appear where nobody needs them."""
    assert set_value(b"tag: v1 # x\n", "tag", version, path="v.yaml") == f"tag: {version} # x\n".encode()


def test_several_keys_are_changed_at_once() -> None:
    """Each in its own style and on its own line, also where two names lead to one place."""
    text = b"image:\n  tag: 14\nsidecar: {tag: '14', other: 14}\nlist: [14]\n"
    keys = ("sidecar.tag", "image.tag", "list[0]", 'image["tag"]')
    assert set(read_values(text, keys, path="values.yaml").values()) == {"14"}
    changed = set_values(text, keys, "15", path="values.yaml")
    assert changed == b'image:\n  tag: "15"\nsidecar: {tag: \'15\', other: 14}\nlist: ["15"]\n'


def test_json_stays_json() -> None:
    """In a .json file every version is quoted: readers of JSON know no plain words."""
    assert set_value(b'{"tag": 14}', "tag", "v2", path="values.json") == b'{"tag": "v2"}'


def test_a_changed_line_is_shown_with_its_number() -> None:
    """People see the line as it was and as it will be, without its line end."""
    before = b"image:\r\n  tag: v1 # keep\r\n"
    after = set_value(before, "image.tag", "v2", path="values.yaml")
    assert line_changes(before, after, path="values.yaml") == (
        LineChange(path="values.yaml", number=2, before="  tag: v1 # keep", after="  tag: v2 # keep"),
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """A values file as the bytes before its value, the value and the bytes after it."""
    word = f"# {draw(comments)}"
    indent = " " * draw(st.integers(1, 6))
    frames: list[Callable[[], tuple[str, str]]] = [
        lambda: (f"{word}\nimage:\n{indent}repository: x\n{indent}tag: ", f"   {word}\nother: [1,  2]\n"),
        lambda: (f"image: {{ {word}\n  a: é, tag: ", f"{indent}, b: ~ }} {word}\nlist:\n- a\n-   b"),
        lambda: (f"---\n{word}\nimage:\n{indent}? tag\n{indent}: ", "\n...\n---\nsecond: document\n"),
        lambda: ('image: {"x": 1, "tag": ', "}"),
    ]
    before, after = draw(st.sampled_from(frames))()
    old = draw(
        st.sampled_from(["v1", "'14'", '"1.0"', "14", "!!str 15", "&unused v1", "'it''s'", '"a\\x20b"'])
    )
    end = draw(st.sampled_from(["\n", "\r\n"]))
    mark = draw(st.sampled_from(["", "\ufeff"]))
    prefix, _, _ = old.rpartition(" ")
    before += prefix + " " if prefix else ""
    old = old.rpartition(" ")[2]
    return (
        (mark + before).replace("\n", end).encode(),
        old.encode(),
        after.replace("\n", end).encode(),
    )


def readers() -> list[YAML]:
    """YAML 1.1, where `on` is true and 0123 is octal, and YAML 1.2."""
    made = []
    for number in ((1, 1), (1, 2)):
        reader = YAML(typ="safe", pure=True)
        reader.version = number
        made.append(reader)
    return made


@given(files(), versions | awkward)
def test_bytes_outside_the_value_never_change(parts: tuple[bytes, bytes, bytes], version: str) -> None:
    """Whatever stands around the value stays, and the value reads back as exactly the version, as a string."""
    before, old, after = parts
    changed = set_value(before + old + after, "image.tag", version, path="values.yaml")
    assert changed.startswith(before)
    assert changed.endswith(after)
    written = changed[len(before) : len(changed) - len(after)]
    assert written.strip(b"'\"").decode() == version
    for reader in readers():
        documents = list(reader.load_all(BytesIO(changed)))
        assert documents[0]["image"]["tag"] == version
        assert isinstance(documents[0]["image"]["tag"], str)


@given(st.binary(max_size=200) | comments.map(str.encode), versions)
def test_any_bytes_are_edited_or_refused(text: bytes, version: str) -> None:
    """No file, however broken, ends in anything but an edit or a refusal."""
    try:
        changed = set_value(text + b"\ntag: v1\n", "tag", version, path="values.yaml")
    except ValueNotEditable:
        return
    assert read_value(changed, "tag", path="values.yaml") == version
