"""One scalar of a values file is replaced, and nothing else: examples and refusals."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import ruamel.yaml
from ruamel.yaml import YAML

from bot.core.errors import ValueNotEditable
from bot.core.promotion import LineChange
from bot.integrations import values_file
from bot.integrations.values import ValuesFile, line_changes
from bot.integrations.values_file import ParsedFile

DIGEST = "sha256:" + "0123456789abcdef" * 4

NUMBERS = "15 1.10 1e10 12e4567 0123 010 1_000 0x1F 0_x1F 0x-1F 0o17 0o-7 0b11 0b-1 0_b1 1. 1.5e3 685_230 0 00 _1 1e _"
WORDS = "2024-01-01 2024-1-1T10 on off On yes NO y n Y true False null NULL nan inf .inf .5 -1 ~ = << 1:30 1:30:45.5"
NAMES = (
    "1.2.3 v1.2 v15 sha-1234567 2024-01-01-abc 15-rc1 abcdef1 1.2.3-4 main latest deadbeef 0x1G 0b-2x nope"
)
LOOK_LIKE_SOMETHING_ELSE = [*NUMBERS.split(), *WORDS.split()]
STAY_PLAIN = [*NAMES.split(), f"v15@{DIGEST}", f"15@{DIGEST}", DIGEST]


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of ruamel.yaml: without its C library there is only the one in Python."""
    if request.param == "Python":
        monkeypatch.setattr(values_file, "YAML", lambda **options: YAML(**{**options, "pure": True}))
    return str(request.param)


@dataclass
class Mark:
    """Where a parser says that a token begins or ends, in characters."""

    index: int


def edited(raw: bytes, key: str = "tag", text: str = "v2", *, edit_anchors: bool = False) -> bytes:
    return ValuesFile(raw, "values.yaml", edit_anchors=edit_anchors).edited({key: text})


def refusal(raw: bytes, key: str = "tag", *, path: str = "values.yaml", edit_anchors: bool = False) -> str:
    with pytest.raises(ValueNotEditable) as refused:
        ValuesFile(raw, path, edit_anchors=edit_anchors).edited({key: "v2"})
    return str(refused.value)


def test_the_fast_parser_is_installed() -> None:
    """An edit in Python's own parser would take thirty times as long."""
    assert ruamel.yaml.__with_libyaml__


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"tag: v1 # keep me", b"tag: v2 # keep me"),
        (b"tag:   v1   # spaces\n", b"tag:   v2   # spaces\n"),
        (b"tag: 'v1'\n", b"tag: 'v2'\n"),
        (b'tag: "v1"\n', b'tag: "v2"\n'),
        (b'tag: "v\\u0031"\n', b'tag: "v2"\n'),
        (b"tag: ''\n", b"tag: 'v2'\n"),
        (b"tag: 14\n", b"tag: v2\n"),
        (b"tag: \xc3\xa9\xf0\x9f\x9a\x80 # \xc3\xa9\n", b"tag: v2 # \xc3\xa9\n"),
        (b"a: 1\r\ntag: v1\r\nb: 2\r\n", b"a: 1\r\ntag: v2\r\nb: 2\r\n"),
        (b"a: 1\rtag: v1\rb: 2\r", b"a: 1\rtag: v2\rb: 2\r"),
        (b"\xef\xbb\xbf# caf\xc3\xa9\ntag: v1\n", b"\xef\xbb\xbf# caf\xc3\xa9\ntag: v2\n"),
        (
            "a: 'x\ufeffy\u2028z' # \ufeff\ntag: v1\n".encode(),
            "a: 'x\ufeffy\u2028z' # \ufeff\ntag: v2\n".encode(),
        ),
        ("# one\u2028# two\ntag: v1\n".encode(), "# one\u2028# two\ntag: v2\n".encode()),
        (b"{ drop: [ALL],tag: v1,x: ~ }", b"{ drop: [ALL],tag: v2,x: ~ }"),
        (b"{a: 1, # x\n  tag: v1, # y\n  b: 2}\n", b"{a: 1, # x\n  tag: v2, # y\n  b: 2}\n"),
        (b"{tag: v1#x\n}", b"{tag: v2\n}"),
        (b"{tag: 'v1'#x\n}", b"{tag: 'v2'#x\n}"),
        (b'{"tag":"v1"}', b'{"tag":"v2"}'),
        (b"{a: http://b:80/c,tag: v1:x}", b"{a: http://b:80/c,tag: v2}"),
        (b"{tag: v1:x}", b"{tag: v2}"),
        (b"tag: !!str v1\n", b"tag: !!str v2\n"),
        (b"tag: !<tag:yaml.org,2002:str> v1\n", b"tag: !<tag:yaml.org,2002:str> v2\n"),
        (
            b"%TAG !e! tag:yaml.org,2002:\n---\ntag: !e!str v1\n",
            b"%TAG !e! tag:yaml.org,2002:\n---\ntag: !e!str v2\n",
        ),
        (b"tag: &unused v1\n", b"tag: &unused v2\n"),
        (b"tag: &unused !!str  'v1'\n", b"tag: &unused !!str  'v2'\n"),
        (b"a: &t v0\nb: *t\ntag: &t v1\n", b"a: &t v0\nb: *t\ntag: &t v2\n"),
        (b"tag:", b"tag: v2"),
        (b"tag:   # none\nb: 1", b"tag: v2   # none\nb: 1"),
        (b"tag: !!str # none\n", b"tag: !!str v2 # none\n"),
        (b"tag: !!str &unused  \n", b"tag: !!str &unused v2  \n"),
        (b"{tag: , a: b}", b"{tag: v2 , a: b}"),
        (b"tag: ~\n", b"tag: v2\n"),
        (b"tag:\n# below\n  v1 # beside\n", b"tag:\n# below\n  v2 # beside\n"),
        (b"? tag\n: v1\n", b"? tag\n: v2\n"),
        (b"'tag': v1\n", b"'tag': v2\n"),
        (b"? [a]\n: 1\n? {b: c}\n: 2\ntag: v1\n", b"? [a]\n: 1\n? {b: c}\n: 2\ntag: v2\n"),
        (b"a: &k tag\n*k : v1\n", b"a: &k tag\n*k : v2\n"),
        (b"other: {}\n---\ntag: v1\n", b"other: {}\n---\ntag: v2\n"),
        (b"%YAML 1.1\n---\ntag: v1\n...\n", b"%YAML 1.1\n---\ntag: v2\n...\n"),
        (b"x: &x {tag: v0}\n<<: [*x]\ntag: v1\n", b"x: &x {tag: v0}\n<<: [*x]\ntag: v2\n"),
        (b"x: &x {<<: *x}\ntag: v1\n<<: *x\n", b"x: &x {<<: *x}\ntag: v2\n<<: *x\n"),
        (b"tag: v1\n'<<': {tag: v0}\n", b"tag: v2\n'<<': {tag: v0}\n"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_only_the_scalar_is_replaced(before: bytes, after: bytes) -> None:
    """Comments, spaces, line ends, a byte order mark, quotes, tags and flow style stay byte for byte."""
    assert edited(before) == after
    assert ValuesFile(after, "values.yaml").value("tag") == "v2"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"tag:\tv1\t# a tab\n", b"tag:\tv2\t# a tab\n"),
        (b"a: &k tag\n*k: v1\n", b"a: &k tag\n*k: v2\n"),
    ],
)
def test_what_only_the_fast_parser_reads_is_replaced_too(before: bytes, after: bytes) -> None:
    """Tabs before a comment, and a colon at an alias; the parser in Python takes neither."""
    assert edited(before) == after


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("image.tag", 2),
        ("images[1].newTag", 5),
        ("images[name=web].newTag", 4),
        ('labels["app.kubernetes.io/version"]', 7),
        ("matrix[0][1]", 8),
        ("1.tag", 9),
        ("on.tag", 10),
        ("null.tag", 11),
        ('["a[0]"].tag', 12),
        ("implicit[0].tag", 13),
        ("named[name=web].tag", 14),
        ("merged[name=web].tag", 15),
    ],
)
@pytest.mark.usefixtures("parser")
def test_a_key_path_goes_through_maps_and_lists(key: str, line: int) -> None:
    """A path names keys as they are written, places in a list, and the list's entry with a field."""
    text = (
        b"image:\n  tag: v1\nimages:\n- {name: web, newTag: v1}\n- {name: db, newTag: v1}\n"
        b"labels:\n  app.kubernetes.io/version: v1\nmatrix: [[x, v1]]\n1: {tag: v1}\non: {tag: v1}\n"
        b"null: {tag: v1}\n'a[0]': {tag: v1}\nimplicit: [tag: v1]\n"
        b"named: [{x: &n web}, {name: *n , tag: v1}, {name: db, tag: v0}]\n"
        b"merged: [{<<: [{name: db}, {name: web}], tag: v0}, {<<: [{a: b}, {<<: {name: web}}], tag: v1}]\n"
    )
    assert ValuesFile(text, "values.yaml").locate(key).line == line
    changed = edited(text, key)
    assert [change.number for change in line_changes(text, changed, path="values.yaml")] == [line]
    assert ValuesFile(changed, "values.yaml").value(key) == "v2"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (b"a: &t v1\ntag: *t\n", 2, "*t repeats what line 1 says, as 1 place does"),
        (b"a: &t v1\nb: *t\ntag: *t\n", 3, "*t repeats what line 1 says, as 2 places do"),
        (b"tag: &t v1\na: *t\nb: *t\n", 1, "&t is repeated in 2 other places"),
        (b"&r {tag: v1, me: *r}", 1, "&r is repeated in 1 other place,"),
        (b"tag: *t\n", 1, "*t has no anchor"),
        (b"a: &t v1\n---\ntag: *t\n", 3, "*t has no anchor"),
        (b"tag: v1\na: 1\ntag: v2\n", 3, "a second time"),
        (b"tag: v1\n'tag': v1\n", 2, "a second time"),
        (b"a: &k tag\ntag: v1\n*k : v1\n", 3, "a second time"),
        (b"tag: v1\n---\ntag: v1\n", 3, "2 documents"),
        (b"a: 1\ntga: v1\n", 1, "Did you mean “tga”?"),
        (b"tag:v1\n", 1, "holds no keys"),
        (b"x: &x {tag: v1}\n<<: *x\n", 2, "can only come from “<<”"),
        (b"x: &x {tag: v1}\n<<: [*x]\n", 2, "can only come from “<<”"),
        (b"x: &x {tag: v0}\ntag: v1\n<<: *x\n", 3, "“<<” brings another tag"),
        (b"x: &x {a: &y {tag: v0}, <<: [*y]}\ntag: v1\n<<: *x\n", 3, "“<<” brings another tag"),
        (b"a: 1\ntag: |\n  v1\n", 2, "block of text"),
        (b"a: 1\ntag: >-\n  v1\n", 2, "block of text"),
        (b"tag: v1\n  v2\n", 1, "several lines"),
        (b'tag: "v1\n  v2"\n', 1, "several lines"),
        ("tag: 'v1\u2028v2'\n".encode(), 1, "several lines"),
        ("tag: v1 #\u2028# x\n".encode(), 1, "U+2028, where some readers end it"),
        ("# x\n# y\x85tag: v1\n".encode(), 2, "U+0085, where some readers end it"),
        (b"tag: !mine v1\n", 1, "the tag !mine"),
        (b"tag: ! v1\n", 1, "the tag !"),
        (b"tag: !!int 15\n", 1, "the tag tag:yaml.org,2002:int"),
        (b"tag: !!binary djE=\n", 1, "the tag tag:yaml.org,2002:binary"),
        (b"tag: !!null ~\n", 1, "the tag tag:yaml.org,2002:null"),
        (b"tag: !!timestamp 2024-01-01\n", 1, "the tag tag:yaml.org,2002:timestamp"),
        (b"%TAG !! tag:acme,2024:\n---\ntag: !!str v1\n", 3, "the tag tag:acme,2024:str"),
        (b"tag: v1\n!!binary dGFn: v1\n", 2, "a key carries the tag"),
        (b"a: 1\ntag: \xff\n", 2, "not UTF-8"),
        (b"a: 1\ntag: \x01\n", 2, "U+0001"),
        ("\ufeff\ufefftag: v1\n".encode(), 1, "byte order mark"),
        ("a: 1\n---\n\ufefftag: v1\n".encode(), 3, "byte order mark"),
        (b"tag: [v1]\n", 1, "not a single value"),
        (b"tag: {{ .Values.tag }}\n", 1, "not a single value"),
        (b"a: 1\ntag: v1: v2\n", 2, "not valid YAML"),
        (b"# a\r# b\n# c\ntag: v1: v2\n", 3, "not valid YAML"),
        (b"{tag, a: b}", 1, "no colon of its own"),
        (b"a: 1\n? tag\nb: 1\n", 2, "no colon of its own"),
        (b"a: 1\n? tag\n:\nb: 1\n", 2, "no colon of its own"),
        (b"- tag\n", 1, "holds no keys"),
        (b"", 1, "the file is empty"),
        (b"[" * 300, 1, "nested more than 200 deep"),
        (b"[" * 4_000_000, 1, "nested more than 200 deep"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", 1, "kept in Git LFS"),
        (b"version https://git-lfs.github.com/spec/v1\r\noid sha256:1\r\n", 1, "kept in Git LFS"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_what_cannot_be_changed_without_guessing_is_refused(text: bytes, line: int, reason: str) -> None:
    """The refusal names the file, the line and the reason."""
    sentence = refusal(text, path="app/values.yaml")
    assert sentence.startswith(f"app/values.yaml:{line}: ")
    assert reason in sentence
    assert sentence.endswith((".", "?"))


def test_a_word_that_ends_in_a_colon_between_braces_is_refused() -> None:
    """`{tag:, a: b}` has a key `tag` for some readers and `tag:` for others."""
    assert refusal(b"{image: {tag: v1},\n a:, b: c}", "image.tag").startswith(
        "values.yaml:2: a word ends in a colon"
    )


def test_an_alias_as_a_key_needs_an_anchor() -> None:
    """An anchor of another document does not count."""
    assert "has no anchor" in refusal(b"a: &k tag\n---\n*k : v1\n")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("images[2].tag", "images has no entry [2], only 2"),
        ("images[name=api].tag", "no entry of images fits [name=api]"),
        ("images[kind=x].tag", "fits more than one entry"),
        ("image[0]", "image is not a list"),
        ("shared.image.tag", "&shared is repeated in 1 other place,"),
        ("production.<<.image.tag", "cannot lead through “<<”"),
        ("images[", "cannot be read from “[” on"),
        ("image..tag", "cannot be read"),
        ("", "cannot be read"),
        ("image.tag.x", "holds no keys"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(key: str, reason: str) -> None:
    """A place that is missing, ambiguous or shared with others is no place to write."""
    text = (
        b"image: {tag: v1}\nimages:\n- {name: web, kind: x, tag: v1}\n- {name: db, kind: x, tag: v1}\n"
        b"shared: &shared\n  image: {tag: v1}\nproduction:\n  <<: *shared\n"
    )
    assert reason in refusal(text, key)


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        (b"a: &t v1\ntag: *t\n", "tag", b"a: &t v2\ntag: *t\n"),
        (b"a: &t v1\ntag: *t\n", "a", b"a: &t v2\ntag: *t\n"),
        (b"a: &t\ntag: *t\n", "tag", b"a: &t v2\ntag: *t\n"),
        (b"a: &i {tag: v1}\nb: *i\n", "b.tag", b"a: &i {tag: v2}\nb: *i\n"),
        (b"a: &i {tag: v1}\nb: *i\n", "a.tag", b"a: &i {tag: v2}\nb: *i\n"),
        (b"a: &t v1\nb: *t\nc: &t v1\ntag: *t\n", "tag", b"a: &t v1\nb: *t\nc: &t v2\ntag: *t\n"),
        (
            b"a: [&i {name: w, tag: &t v1}]\nb: [*i]\n",
            "b[name=w].tag",
            b"a: [&i {name: w, tag: &t v2}]\nb: [*i]\n",
        ),
    ],
)
@pytest.mark.usefixtures("parser")
def test_an_anchor_is_edited_where_that_is_wanted(before: bytes, key: str, after: bytes) -> None:
    """With `edit_anchors` every place that repeats the anchor changes; without it the refusal tells of the option."""
    assert edited(before, key, edit_anchors=True) == after
    assert "set edit_anchors: true" in refusal(before, key)


def test_a_merge_is_never_edited() -> None:
    """What `<<` brings belongs to its anchor, also where anchors may be edited."""
    assert "can only come from “<<”" in refusal(b"x: &x {tag: v1}\n<<: *x\n", edit_anchors=True)
    assert "cannot lead through" in refusal(b"x: &x {tag: v1}\n<<: *x\n", "<<.tag", edit_anchors=True)


SOPS = "sops:\n  mac: ENC[AES256_GCM,data:x]\n"


@pytest.mark.parametrize(
    ("text", "path", "line", "reason"),
    [
        (f"a: 1\ntag: v1\n{SOPS}", "values.yaml", 2, "would break the MAC that SOPS keeps in line 4"),
        (f"tag: v1\n{SOPS}  mac_only_encrypted: false\n", "values.yaml", 1, "mac_only_encrypted: true"),
        (f"a: 1\n{SOPS}---\ntag: v1\n", "values.yaml", 5, "would break the MAC"),
        (
            '{"tag": "v1",\n"sops": {"mac": "x"}}',
            "values.json",
            1,
            "would break the MAC that SOPS keeps in line 2",
        ),
        (
            f"tag: ENC[AES256_GCM,data:y]\n{SOPS}  mac_only_encrypted: true\n",
            "values.yaml",
            1,
            "encrypted by SOPS",
        ),
        ('{"tag": "ENC[AES256_GCM,data:y]"}', "values.json", 1, "encrypted by SOPS"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_an_edit_that_sops_would_not_open_again_is_refused(
    text: str, path: str, line: int, reason: str
) -> None:
    """SOPS checks a MAC over every value of a file, and decrypts what begins with ENC."""
    sentence = refusal(text.encode(), path=path)
    assert sentence.startswith(f"{path}:{line}: ")
    assert reason in sentence


@pytest.mark.parametrize(
    "text",
    [
        f"tag: v1\n{SOPS}  mac_only_encrypted: true\n",
        "tag: v1\nsops: {version: 3}\n",
        "tag: v1\nsops: off\n",
        "tag: v1\nchart:\n  sops: {mac: x}\n",
    ],
)
def test_a_value_beside_encrypted_ones_is_changed(text: str) -> None:
    """Where the MAC covers encrypted values alone, or nothing is sealed at all, a plain value is free."""
    assert edited(text.encode()) == text.replace("v1", "v2").encode()


KUSTOMIZATION = f"""\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../../base
images:
  - name: ghcr.io/acme/other
    newTag: "14"
  - name: ghcr.io/acme/manual-app   # CI writes this
    newTag: "14"
    digest: {DIGEST}
"""


@pytest.mark.usefixtures("parser")
def test_a_kustomization_is_edited() -> None:
    """The entry goes by its name, and a digest beside its tag is seen: Kustomize would prefer it."""
    key = "images[name=ghcr.io/acme/manual-app].newTag"
    file = ValuesFile(KUSTOMIZATION.encode(), "kustomization.yaml")
    assert file.value(key) == "14"
    beside = file.digest_beside(key)
    assert beside is not None
    assert (beside.value, beside.line) == (DIGEST, 10)
    changed = file.edited({key: "15", "images[name=ghcr.io/acme/manual-app].digest": DIGEST.upper()}).decode()
    assert changed == KUSTOMIZATION.replace(
        f'newTag: "14"\n    digest: {DIGEST}', f'newTag: "15"\n    digest: "{DIGEST.upper()}"'
    )
    assert file.digest_beside("images[name=ghcr.io/acme/other].newTag") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"image: {{tag: v1, digest: {DIGEST}}}", DIGEST),
        (f"image: {{digest: '{DIGEST}', tag: v1}}", DIGEST),
        (f"x: &d {DIGEST}\nimage: {{tag: v1, digest: *d}}", DIGEST),
        (f"x: &x {{digest: {DIGEST}}}\nimage:\n  <<: *x\n  tag: v1", DIGEST),
        (f"x: &x {{digest: {DIGEST}}}\nimage:\n  <<: *x\n  tag: v1\n  digest: ''", None),
        ("image: {tag: v1, digest: ''}", None),
        ("image: {tag: v1, digest: }", None),
        ("image: {tag: v1, digest: ~}", None),
        ("image: {tag: v1, digest: null}", None),
        ("image: {tag: v1, digest: {sha256: a}}", "refused"),
        ("image: {tag: v1}\ndigest: x", None),
    ],
)
@pytest.mark.usefixtures("parser")
def test_a_digest_beside_a_tag_is_found(text: str, value: str | None) -> None:
    """A tag would change nothing where a digest decides: its own, repeated from elsewhere, or merged."""
    file = ValuesFile(text.encode(), "values.yaml")
    if value == "refused":
        with pytest.raises(ValueNotEditable, match="digest is not a single value"):
            file.digest_beside("image.tag")
        return
    beside = file.digest_beside("image.tag")
    assert (beside.value if beside else None) == value


def test_a_digest_has_none_beside_it() -> None:
    """Where the value is the digest itself, or an entry of a list, nothing stands beside it."""
    file = ValuesFile(b"image: {digest: sha, list: [v1]}", "values.yaml")
    assert file.digest_beside("image.digest") is None
    assert file.digest_beside("image.list[0]") is None


def test_the_slow_parser_is_spared_large_files() -> None:
    """What only the slow parser reads would hold up everybody else; the word to quote is named."""
    text = b"a: 1\nimage: {digest: sha256:x}\ntag: v1\n"
    assert ValuesFile(text, "values.yaml").value("tag") == "v1"
    with pytest.raises(ValueNotEditable, match=r"values.yaml:2: a word between braces holds a colon"):
        ValuesFile(text + b"#" * 300_000, "values.yaml")


def test_a_file_of_more_than_five_megabytes_is_refused() -> None:
    """A values file is written by people; anything of that size is something else."""
    assert "larger than 5 MB" in refusal(b"tag: v1\n" + b"#" * 5_000_000)


def test_a_file_of_countless_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes of `[1,1,1` would take a gigabyte of memory."""
    monkeypatch.setattr(values_file, "MAX_EVENTS", 1_000)
    assert "more than 1,000 values" in refusal(b"tag: v1\nlist: [" + b"1," * 1_000 + b"]\n")


@pytest.mark.parametrize("version", ["", "v1\nb: 2", "é", "a\x00"])
def test_what_is_no_version_is_never_written(version: str) -> None:
    """The core has checked the version; a line break would still be refused here."""
    with pytest.raises(ValueNotEditable, match="cannot be written"):
        edited(b"tag: v1\n", text=version)


@pytest.mark.parametrize("version", LOOK_LIKE_SOMETHING_ELSE)
def test_a_version_that_looks_like_something_else_is_quoted(version: str) -> None:
    """1.10 would be read as the number 1.1, 12e4567 as infinity, 0123 as 83, and 0_b1 by Go as 1."""
    assert edited(b"tag: v1 # x\n", text=version) == f'tag: "{version}" # x\n'.encode()


@pytest.mark.parametrize("version", STAY_PLAIN)
def test_a_version_that_can_only_be_a_string_stays_plain(version: str) -> None:
    """No quotes appear where nobody needs them, a digest's colon included."""
    assert edited(b"tag: v1 # x\n", text=version) == f"tag: {version} # x\n".encode()


@pytest.mark.parametrize("version", [f"v15@{DIGEST}", DIGEST])
def test_a_digest_is_quoted_between_braces(version: str) -> None:
    """Older parsers end a plain word at its colon there."""
    assert edited(b"{tag: v1, a: [b]}", text=version) == f'{{tag: "{version}", a: [b]}}'.encode()
    assert edited(b"a: {b: c}\ntag: v1\n", text=version) == f"a: {{b: c}}\ntag: {version}\n".encode()


def test_several_keys_are_changed_at_once() -> None:
    """Each to its own text, in its own style and on its own line, also where two names lead to one place."""
    text = b"image:\n  tag: 14\nsidecar: {tag: '14', other: 14}\nlist: [14]\n"
    new = {"sidecar.tag": "15", "image.tag": "v16", "list[0]": "17", 'image["tag"]': "v16"}
    changed = ValuesFile(text, "values.yaml").edited(new)
    assert changed == b"image:\n  tag: v16\nsidecar: {tag: '15', other: 14}\nlist: [\"17\"]\n"


def test_one_place_cannot_become_two_values() -> None:
    """Two names of one value with different texts are a mistake that nobody should guess about."""
    with pytest.raises(ValueNotEditable, match=r"^values\.yaml:1: .*two different values"):
        ValuesFile(b"tag: v1\n", "values.yaml").edited({"tag": "v2", '["tag"]': "v3"})


def test_json_stays_json() -> None:
    """In a .json file every version is quoted: readers of JSON know no plain words."""
    assert ValuesFile(b'{"tag": 14}', "values.json").edited({"tag": "v2"}) == b'{"tag": "v2"}'


def test_a_changed_line_is_shown_with_its_number() -> None:
    """People see the line as it was and as it will be, without its line end."""
    before = b"image:\r\n  tag: v1 # keep\r\n"
    assert line_changes(before, edited(before, "image.tag"), path="values.yaml") == (
        LineChange(path="values.yaml", number=2, before="  tag: v1 # keep", after="  tag: v2 # keep"),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a: b", "a: c"),
        ("a: b", "a: 'b'"),
        ("a: 'b'", 'a: "b"'),
        ("a: b", "a: &x b"),
        ("a: &x b", "a: &y b"),
        ("a: b", "a: !!str b"),
        ("a: !!str b", "a: !!int b"),
        ("a: *x", "a: *y"),
        ("a: *x", "a: x"),
        ("a: {}", "a: []"),
        ("a: {b: c}", "a:\n  b: c"),
        ("a: [b]", "a:\n- b"),
        ("a: &x {}", "a: {}"),
        ("a: !!map {}", "a: {}"),
        ("a: b", "---\na: b"),
        ("---\na: b", "%YAML 1.1\n---\na: b"),
        ("%TAG !e! tag:e,1:\n---\na: b", "%TAG !e! tag:f,1:\n---\na: b"),
        ("a: b", "a: b\n..."),
        ("a: b", "a: b\n---\n"),
        ("a: b\nc: d", "c: d\na: b"),
        ("a: [b, [c]]", "a: [[b], c]"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_the_comparison_sees_every_difference(one: str, other: str) -> None:
    """Values, anchors, tags, styles, directives and structure: an edit that changed any of them would be refused."""
    contents = [ParsedFile(text.encode(), "values.yaml").contents() for text in (one, other, f"{one} # x\n")]
    assert contents[0] != contents[1]
    assert contents[0] == contents[2]


@pytest.mark.parametrize(
    "changed",
    [
        "x\n",
        "a: x\ntag: v3\n",
        "a: y\ntag: v2\n",
        "a: x\ntag: v2\nb: c\n",
        "a: x\ntag: &t v2\n",
        "a: x\ntag: !!str v2\n",
        "a: x\ntag: [v2]\n",
        "a: x\ntag: v2\n---\n",
        "a: x\ntag: v2: v2\n",
    ],
)
@pytest.mark.usefixtures("parser")
def test_an_edit_that_would_change_more_is_refused(changed: str) -> None:
    """The result is read again: the value must be the text, and everything else must say what it said."""
    file = ValuesFile(b"a: x\ntag: v1\n", "values.yaml")
    event = file.locate("tag").event
    file._verify(b"a: x\ntag: v2\n", {event: "v2"})
    with pytest.raises(ValueNotEditable, match=r"^values\.yaml:"):
        file._verify(changed.encode(), {event: "v2"})


@pytest.mark.parametrize("value", ["v1", "'v1'", '"v1"'])
def test_a_parser_that_errs_about_the_place_is_not_trusted(value: str) -> None:
    """A mark beside the end of the value would take the comment along."""
    file = ValuesFile(f"tag: {value} # keep\nb: 1\n".encode(), "values.yaml")
    place = file.locate("tag").event
    file._file.events[place].end_mark = Mark(file._file.events[place].start_mark.index + len(value) + 2)
    with pytest.raises(ValueNotEditable, match="cannot tell where tag ends"):
        file.edited({"tag": "v2"})
