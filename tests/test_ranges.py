"""Which tags Argo CD follows by a range: its own rules, by examples and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.ranges import Range, Version

NUMBERS = st.integers(0, 30)
VERSIONS = st.tuples(NUMBERS, NUMBERS, NUMBERS)


def followed(text: str) -> Range:
    """The range; there must be one."""
    found = Range.parse(text)
    assert found is not None
    return found


def tag(numbers: tuple[int, ...]) -> str:
    """`v1.2.3`."""
    return "v" + ".".join(map(str, numbers))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", "v15 1 0.0.1 v2026.11.23", "v15-rc1 main release-15 1.2.3.4"),
        ("v*", "v15 15", "v15-rc1"),
        ("*-0", "v15 v15-rc1 0.0.0-1", "rc1"),
        ("v1.*", "v1 v1.0 v1.99.3", "v2 v0.9 v1.5-rc1"),
        ("1.2.x", "v1.2 1.2.9", "1.3 1.1.9"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3"),
        ("~1", "1.9.9", "2 0.9"),
        ("~>1.2", "1.2 1.2.7", "1.3"),
        ("^1.2.3", "1.2.3 1.9", "1.2.2 2.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3 0.2.2 1.0"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^0.0", "0.0.7", "0.1 1"),
        ("^0", "0.9.9", "1"),
        (">=1.0, <2", "1.0 1.9.9", "0.9 2.0 1.5-rc1"),
        (">= 1.0 < 2", "1.0 1.9.9", "0.9 2.0"),
        (">=1.0-0, <2", "1.0-rc1 1.5-rc1 1.9", "0.9 2.0"),
        (">11", "12", "11 11.9.9 10"),
        (">11.1", "11.2 12", "11.1 11.1.9"),
        ("<=11", "11.9.9 10", "12"),
        ("=>2 || <1", "2 3 0.9", "1 1.9"),
        ("1.2 - 1.4.5", "1.2 1.4.5 1.3.9", "1.1.9 1.4.6"),
        ("1.2 - 1.4", "1.4.9", "1.5"),
        ("!=1.x", "2 0.9", "1.0 1.9"),
        ("!=1.4.2, ^1", "1.4.1 1.4.3", "1.4.2 2"),
        ("=1.2.3 || 1.3.x", "1.2.3 1.3.9", "1.2.4"),
        (">=1.0.0-rc.2", "1.0.0-rc.2 1.0.0-rc.10 1.0.0", "1.0.0-rc.1 1.0.0-beta"),
    ],
)
def test_a_range_holds_what_argo_cd_follows_by_it(text: str, inside: str, outside: str) -> None:
    """Operators, wildcards, spans, alternatives, and versions with a hyphen."""
    assert [each for each in inside.split() if not followed(text).admits(each)] == []
    assert [each for each in outside.split() if followed(text).admits(each)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "main",
        "HEAD",
        "v15",
        "15",
        "1.2.3-rc1",
        "v14*",
        "release-1.x",
        ">",
        ">=1 ||",
        "1.2.3.*",
        ">=main",
        "v*x",
    ],
)
def test_a_branch_and_a_tag_are_no_range(text: str) -> None:
    """A plain version is a tag, and what is none of Argo CD's is a name."""
    assert Range.parse(text) is None


@given(low=VERSIONS, high=VERSIONS, version=VERSIONS)
def test_two_bounds_hold_what_lies_between(
    low: tuple[int, ...], high: tuple[int, ...], version: tuple[int, ...]
) -> None:
    """As numbers are compared, not as text; in a span the ends belong to it."""
    is_between = low <= version <= high
    span = f"{tag(low)} - {tag(high)}"
    assert followed(f">={tag(low)}, <={tag(high)}").admits(tag(version)) is is_between
    assert followed(span).admits(tag(version)) is is_between
    assert followed(f"<{tag(low)} || >{tag(high)}").admits(tag(version)) is not (low <= version <= high)


@given(one=VERSIONS, other=VERSIONS)
def test_every_way_to_say_the_same_major_is_the_same(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """`1.*`, `~1`, `1.x.x` and `>=1, <2`."""
    major = one[0]
    ways = (f"{major}.*", f"~{major}", f"v{major}.x.x", f">={major}, <{major + 1}", f"^{major}")
    assert {followed(way).admits(tag(other)) for way in ways} == {other[0] == major}


@given(versions=st.lists(VERSIONS, min_size=1))
def test_the_highest_is_the_newest_by_number(versions: list[tuple[int, ...]]) -> None:
    """What stands behind a hyphen comes before the version itself."""
    parsed = [Version.parse(tag(each)) for each in versions]
    assert max(each for each in parsed if each) == Version.parse(tag(max(versions)))
    early, late = Version.parse(f"{tag(versions[0])}-rc1"), parsed[0]
    assert early
    assert late
    assert early < late


@given(text=st.text(alphabet="v0129.xX*-+ab<>=~^!|, ", max_size=30), name=st.text(max_size=20))
def test_nothing_that_stands_there_is_too_strange(text: str, name: str) -> None:
    """Anybody who may write an Application may write anything into it."""
    found = Range.parse(text)
    assert found is None or found.admits(name) in (True, False)


def test_what_is_far_too_long_is_no_range() -> None:
    """Whoever may write an Application keeps nobody busy with it."""
    assert Range.parse(">=1" + " " * 200_000 + "- 2") is None
    assert Range.parse(" || ".join(["1.*"] * 100)) is None
