"""Ranges of versions, as Argo CD reads them in a `targetRevision`: which tags it would follow.

See “Git tags - Semantic Versions” in Argo CD's guide to tracking strategies; the rules are those of the Go package
Masterminds/semver, version 3.4.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import total_ordering

LONGEST = 256
"""Characters; nobody names a longer range, and to look for one in more takes time."""

_NUMBER = r"[0-9]{1,19}"
_REST = r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_TAG = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?(?:\.{_NUMBER})?{_REST}")
_PLACE = rf"v?(?:{_NUMBER}|[xX*])(?:\.(?:{_NUMBER}|[xX*]))?(?:\.(?:{_NUMBER}|[xX*]))?{_REST}"
_BOUND = re.compile(rf"\s*(?P<sign>!=|>=|=>|<=|=<|~>|[=><~^]|)\s*(?P<place>{_PLACE})(?:\s*,\s*|\s+|$)")
_SPAN = re.compile(rf"\s*({_PLACE})\s+-\s+({_PLACE})\s*")
_SAME = {"": "=", "=>": ">=", "=<": "<=", "~>": "~"}


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """What a tag is to Argo CD: three numbers, and what stands behind a hyphen, `rc1` of `v15-rc1`."""

    numbers: tuple[int, int, int]
    before: str = ""

    @classmethod
    def parse(cls, tag: str) -> Version | None:
        """The version that a tag names, numbers left out being 0; None for a tag that Argo CD passes over."""
        return _version(tag)[0] if _TAG.fullmatch(tag) else None

    def __lt__(self, other: Version) -> bool:
        return (self.numbers, _order(self.before)) < (other.numbers, _order(other.before))


@dataclass(frozen=True, slots=True)
class Bound:
    """One comparison of a range, `>=1.2`; `depth` is how many numbers stand there, 1 of `1.x`."""

    sign: str
    version: Version
    depth: int

    def admits(self, version: Version) -> bool:
        """Does the version keep it?"""
        mine, theirs, depth = self.version.numbers, version.numbers, self.depth
        match self.sign:
            case "=":
                return self._within(version, depth) if depth < 3 else version == self.version
            case "!=":
                return theirs[:depth] != mine[:depth] if depth < 3 else version != self.version
            case ">":
                return theirs[:depth] > mine[:depth] if depth < 3 else version > self.version
            case "<":
                return version < self.version
            case ">=":
                return version >= self.version
            case "<=":
                return theirs[:depth] <= mine[:depth] if depth < 3 else version <= self.version
            case "~":
                return self._within(version, min(depth, 2))
            case _:
                first = next((place for place, number in enumerate(mine) if number), 2)
                return self._within(version, min(first + 1, max(depth, 1)))

    def _within(self, version: Version, depth: int) -> bool:
        return version >= self.version and version.numbers[:depth] == self.version.numbers[:depth]


@dataclass(frozen=True, slots=True)
class Range:
    """Alternatives, of which one has to be kept with all its bounds."""

    alternatives: tuple[tuple[Bound, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Range | None:
        """The range that a `targetRevision` names; None for a branch, a tag and anything else."""
        if len(text) > LONGEST or _TAG.fullmatch(text):
            return None
        alternatives = [_bounds(_SPAN.sub(r">=\1 <=\2 ", each)) for each in text.split("||")]
        return cls(tuple(alternatives)) if all(alternatives) else None

    def admits(self, tag: str) -> bool:
        """Would Argo CD follow this tag, where it is the highest?

        A version with a hyphen is passed over unless a bound beside it has one, too.
        """
        version = Version.parse(tag)
        return version is not None and any(
            (not version.before or any(bound.version.before for bound in bounds))
            and all(bound.admits(version) for bound in bounds)
            for bounds in self.alternatives
        )


def _bounds(text: str) -> tuple[Bound, ...]:
    """Every comparison of an alternative; none where it holds anything else."""
    found: list[Bound] = []
    place = 0
    while text[place:].strip():
        if (bound := _BOUND.match(text, place)) is None:
            return ()
        found.append(Bound(_SAME.get(bound["sign"], bound["sign"]), *_version(bound["place"])))
        place = bound.end()
    return tuple(found)


def _version(text: str) -> tuple[Version, int]:
    """The version at a place, and how many of its numbers stand there before the first `x`, or the end."""
    plain, _, before = text.removeprefix("v").partition("+")[0].partition("-")
    said = [int(each) for each in itertools.takewhile(str.isdigit, plain.split("."))]
    major, minor, patch = (*said, 0, 0, 0)[:3]
    return Version((major, minor, patch), before), len(said)


def _order(before: str) -> tuple[object, ...]:
    """By which what stands behind a hyphen is compared: none is highest, and numbers are below words."""
    words = ((0, int(word), "") if word.isdigit() else (1, 0, word) for word in before.split("."))
    return (before == "", *(words if before else ()))
