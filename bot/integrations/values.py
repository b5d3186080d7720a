"""Finds one value in a values file and replaces exactly its bytes.

YAML libraries that load and dump a file change lines that nobody asked about. So the file is only *parsed*: the
parser's marks say where the scalar begins and ends, its bytes are exchanged, and the result is parsed again and
compared event by event. Whatever cannot be changed that way without guessing is refused with its line and reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bot.core.errors import ValueNotEditable
from bot.core.promotion import LineChange
from bot.integrations.values_file import STRING_TAG, ParsedFile
from bot.integrations.values_leaves import leaves
from bot.integrations.values_path import Paths, Place

__all__ = ["Located", "ValuesFile", "line_changes"]

_DIGEST = r"sha256:[0-9a-f]{64}"
_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]*(?:@{_DIGEST})?|{_DIGEST}")
_NOT_A_STRING = re.compile(
    r"[0-9]*\.?[0-9]*(?:[eE][-+]?[0-9]*)?"  # 15, 0123, 1_000, 1.10, 1e10, 12e4567
    r"|0[xXoObB][-+]?[0-9a-fA-F]*"
    r"|\d{4}-\d\d?-\d\d?(?:[Tt].*)?"
    r"|(?i:y|n|yes|no|on|off|true|false|null|nan|inf|infinity)"
)
"""What is a number, truth value, null or date in YAML 1.1, in YAML 1.2 or to Go's parsers, `_` left out as they do."""

_COLON = re.compile(r"[ \t]*:")
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
"""An anchor and a tag in front of a value."""
_BREAKS = re.compile("[\n\r\x85\u2028\u2029]")
_DISPUTED_BREAKS = re.compile("[\x85\u2028\u2029]")
"""They end a line in YAML 1.1 and to Go's parsers, and not in YAML 1.2."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a value stands: the byte offsets of the scalar itself, its 1-based line, and how it is written.

    `style` is `'`, `"` or empty for a plain scalar; `in_flow` says that it stands between braces or brackets. An
    empty value has `start == end`, after its key's colon.
    """

    start: int
    end: int
    value: str
    line: int
    style: str
    in_flow: bool
    event: int
    """The number of its parser event, for the comparison after an edit."""


class ValuesFile:
    """A values file whose values can be read and replaced by their key paths.

    A path is `image.tag`, `images[0].tag`, `images[name=web].newTag` or `labels["app.kubernetes.io/version"]`. With
    `edit_anchors` a value that is shared through an anchor is changed there, and so wherever it is repeated; without
    it such a value is refused. `path` is the file's name for messages. Everything here raises `ValueNotEditable`.
    """

    def __init__(self, raw: bytes, path: str, *, edit_anchors: bool = False) -> None:
        self._raw = raw
        self._path = path
        self._file = ParsedFile(raw, path)
        self._paths = Paths(self._file, edit_anchors=edit_anchors)

    def value(self, key: str) -> str:
        """The value as it is written, without quotes; empty where nothing is."""
        return self.locate(key).value

    def locate(self, key: str) -> Located:
        """Where the value stands; the path must exist in exactly one document."""
        return self._located(key, self._paths.find(key))

    def digest_beside(self, key: str) -> Located | None:
        """The key `digest` next to this one, which wins over a tag where it is not empty; None without one."""
        place = self._paths.find(key)
        if place.key is None or place.parent is None:
            return None
        digest = self._paths.effective(place.parent, "digest")
        if digest is None or digest.node == place.node or self._is_empty(digest.node):
            return None
        return self._located("digest", digest)

    def leaves(self, *, without: Collection[str] = ()) -> dict[str, str]:
        """Every single value by its key path, but for those at the keys `without`.

        A word in quotes keeps them where it would be a number, a truth value or nothing without; `{}` and `[]` are
        values too.
        """
        left_out = {self._paths.find(key).node for key in without}
        return {path: self._said(node) for path, node in leaves(self._file) if node not in left_out}

    def _said(self, node: int) -> str:
        """What a value means, in one spelling."""
        event = self._file.events[node]
        if not self._file.is_scalar(node):
            return "{}" if self._file.is_mapping(node) else "[]"
        is_word = bool(event.style) or event.tag == STRING_TAG
        if not is_word:
            return "null" if event.value in _NULLS else str(event.value)
        is_doubtful = event.value in _NULLS or _NOT_A_STRING.fullmatch(event.value.replace("_", ""))
        return f'"{event.value}"' if is_doubtful else str(event.value)

    def edited(self, new: Mapping[str, str]) -> bytes:
        """The file with each key's new text in its place, and every other byte as it was."""
        places: dict[int, Located] = {}
        texts: dict[int, str] = {}
        for key, text in new.items():
            located = self.locate(key)
            self._check_sops(key, located)
            if texts.setdefault(located.event, text) != text:
                raise self._file.refusal(located.line, f"{key} is asked to become two different values")
            places[located.event] = located
        changed = self._raw
        for located in sorted(places.values(), key=lambda located: located.start, reverse=True):
            scalar = self._scalar(texts[located.event], located)
            changed = changed[: located.start] + scalar + changed[located.end :]
        self._verify(changed, texts)
        return changed

    def _located(self, key: str, place: Place) -> Located:
        file, node = self._file, place.node
        event, line = file.events[node], file.line(node)
        if not file.is_scalar(node):
            raise file.refusal(
                line, f"{key} is not a single value. Please name the key of the version itself"
            )
        if event.tag not in (None, STRING_TAG):
            raise file.refusal(line, f"{key} carries the tag {event.tag}. Please remove it")
        if event.style in ("|", ">"):
            raise file.refusal(line, f"{key} is a block of text. Please write it on one line")
        start, end = self._span(key, place)
        line = file.line_at(start)
        if disputed := _DISPUTED_BREAKS.search(file.line_around(start)):
            raise file.refusal(
                line,
                f"this line holds the character U+{ord(disputed[0]):04X}, where some readers end it. Please remove it",
            )
        return Located(
            start=file.offset(start),
            end=file.offset(end),
            value=str(event.value),
            line=line,
            style=event.style or "",
            in_flow=file.in_flow(node),
            event=node,
        )

    def _span(self, key: str, place: Place) -> tuple[int, int]:
        """The first character of the scalar itself, and the one after its last."""
        event, line = self._file.events[place.node], self._file.line(place.node)
        start, end = event.start_mark.index, event.end_mark.index
        if not event.value and not event.style:
            gap = end if event.anchor or event.tag else self._after_colon(key, place)
            return gap, gap
        written = self._file.text[start:end]
        if _BREAKS.search(written):
            raise self._file.refusal(line, f"{key} spans several lines. Please write it on one line")
        scalar = _PROPERTIES.sub("", written, count=1)
        fits = scalar[:1] == scalar[-1:] == event.style if event.style else scalar == event.value
        if not fits:
            raise self._file.refusal(line, f"I cannot tell where {key} ends. Please change it by hand")
        return end - len(scalar), end

    def _after_colon(self, key: str, place: Place) -> int:
        """Where an empty value goes: the parsers put its mark at the next token, so the colon decides."""
        node = place.node if place.key is None else place.key
        colon = _COLON.match(self._file.text, self._file.events[node].end_mark.index)
        if place.key is None or colon is None:
            raise self._file.refusal(
                self._file.line(node),
                f"{key} is empty and has no colon of its own. Please write a value there",
            )
        return colon.end()

    def _is_empty(self, node: int) -> bool:
        event = self._file.events[node]
        if not self._file.is_scalar(node):
            return False
        return not event.value or (not event.style and event.value in _NULLS)

    def _check_sops(self, key: str, located: Located) -> None:
        """SOPS encrypts some values, and its MAC covers the others too unless it was told otherwise."""
        if located.value.startswith("ENC["):
            raise self._file.refusal(
                located.line, f"{key} is encrypted by SOPS. Please keep the version in a value that is not"
            )
        for root in self._file.roots:
            sops = self._file.child(root, "sops")
            mac = self._file.child(sops, "mac")
            if mac is None:
                continue
            only_encrypted = self._file.child(sops, "mac_only_encrypted")
            if only_encrypted is None or self._file.text_of(only_encrypted) != "true":
                raise self._file.refusal(
                    located.line,
                    f"changing {key} would break the MAC that SOPS keeps in line {self._file.line(mac)}. "
                    "Please encrypt the file again with mac_only_encrypted: true in .sops.yaml",
                )

    def _scalar(self, text: str, located: Located) -> bytes:
        # Go's parser and ours take a plain word in JSON; other readers of JSON do not.
        style = '"' if self._path.endswith(".json") else located.style
        written = _written(text, style=style, in_flow=located.in_flow)
        if written is None:
            raise self._file.refusal(located.line, f"{text!r} cannot be written as a version")
        lead = " " if located.start == located.end else ""
        return (lead + written).encode()

    def _verify(self, changed: bytes, texts: Mapping[int, str]) -> None:
        """Everything must say the same as before, but the scalars in `texts`, which keep their anchor and tag."""
        before = self._file.contents()
        after = ParsedFile(changed, self._path, pure=self._file.pure).contents()
        if len(before) == len(after):
            for event, text in texts.items():
                if after[event][:4] == (*before[event][:3], text):
                    before[event] = after[event]
        if before != after:
            raise ValueNotEditable(
                f"{self._path}: this edit would change more than the value. Please do it by hand."
            )


def line_changes(before: bytes, after: bytes, *, path: str) -> tuple[LineChange, ...]:
    """The lines that differ between two editions of a file; an edit never adds or removes a line."""
    pairs = zip(before.split(b"\n"), after.split(b"\n"), strict=True)
    return tuple(
        LineChange(path=path, number=number, before=_line(old), after=_line(new))
        for number, (old, new) in enumerate(pairs, start=1)
        if old != new
    )


def _written(text: str, *, style: str, in_flow: bool) -> str | None:
    """The scalar as it goes into the file, in its old style where that is safe; None for no printable ASCII."""
    if not text or not text.isascii() or not text.isprintable():
        return None
    if style == "'":
        return "'" + text.replace("'", "''") + "'"
    is_plain = _PLAIN.fullmatch(text) and not _NOT_A_STRING.fullmatch(text.replace("_", ""))
    # Between braces some readers end a plain word at a colon.
    if style == '"' or not is_plain or (in_flow and ":" in text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _line(raw: bytes) -> str:
    return raw.removesuffix(b"\r").decode("utf-8", "replace")
