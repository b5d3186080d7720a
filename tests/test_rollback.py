"""What a rollback brings back: read from the trailers of our own commits alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import NOON, PROD
from hypothesis import given
from hypothesis import strategies as st

from bot.core.catalog import Image
from bot.core.errors import Refused
from bot.core.ports import Written
from bot.core.rollback import before, deployed, wanted

VERSIONS = st.sampled_from(["13", "14", "15", "16", "17"])
DIGEST = "sha256:" + "a" * 64


def commit(number: int, old: str, new: str, *, undoes: str = "", **trailers: str) -> Written:
    """Our commit that brought `new`; `undoes` makes it a rollback."""
    named = {
        "Promotion-Id": f"P-{number:010}",
        "App": PROD.app,
        "Environment": PROD.environment,
        "Old-Version": old,
        "New-Version": new,
        **({"Rollback-Of": undoes} if undoes else {}),
        **trailers,
    }
    return Written(revision=f"{number:040x}", at=NOON, trailers=tuple(named.items()))


def history(*versions: str) -> list[Written]:
    """Our commits, newest first, that brought these versions one after the other; `<14` is a rollback to 14."""
    commits, now = [], versions[0]
    for number, word in enumerate(versions[1:], start=1):
        commits.append(commit(number, now, word.lstrip("<"), undoes="P-0" if word.startswith("<") else ""))
        now = word.lstrip("<")
    return commits[::-1]


def back(commits: Sequence[Written], now: str, *bad: str) -> str:
    """The version that a rollback without a version brings back."""
    found = before(deployed(commits, PROD), now=Image(version=now), bad=bad, target=PROD)
    return found.image.version


def test_the_version_before_comes_back() -> None:
    """13, 14, 15: a rollback brings 14."""
    assert back(history("13", "14", "15"), "15") == "14"


def test_the_first_commit_tells_what_was_there_before_it() -> None:
    """Also the version that nobody promoted with the bot can be brought back."""
    assert back(history("13", "14"), "14") == "13"


def test_two_rollbacks_go_back_two_versions() -> None:
    """What was rolled back once is not brought back by the next rollback."""
    assert back(history("13", "14", "15", "<14"), "14") == "13"


def test_after_a_rollback_a_new_version_is_put_on_what_came_back() -> None:
    """15 was taken back, 16 came: the version before 16 is 14."""
    assert back(history("13", "14", "15", "<14", "16"), "16") == "14"


def test_a_version_that_failed_is_passed_over() -> None:
    """14 was live, 15 failed, 16 failed: nobody wants 15 back."""
    assert back(history("13", "14", "15", "16"), "16", "P-0000000002") == "14"


def test_what_somebody_wrote_by_hand_was_there_too() -> None:
    """The old version of our commit tells of a change that is not ours."""
    commits = [commit(2, "99", "16"), commit(1, "14", "15")]
    assert back(commits, "16") == "99"


def test_a_change_by_hand_since_goes_back_to_ours() -> None:
    """Where the file holds what none of our commits brought, the newest that we brought is the one before it."""
    assert back(history("13", "14", "15"), "hotfix") == "15"


def test_other_targets_do_not_count() -> None:
    """Another app, or the same one elsewhere, has a history of its own."""
    commits = [commit(2, "14", "99", App="other"), commit(3, "14", "98", Environment="stage")]
    with pytest.raises(Refused, match=r"no version that manual-app had in prod before 14\. Say which one"):
        back([*commits], "14")


def test_a_digest_comes_back_with_its_version() -> None:
    """What was tested is what comes back, not what the tag may hold by now."""
    commits = [commit(2, "14", "15"), commit(1, "13", "14", Digest=DIGEST)]
    assert wanted(deployed(commits, PROD), "14", PROD).image == Image(version="14", digest=DIGEST)


def test_what_was_never_there_is_no_rollback() -> None:
    """The order of the environments is not got round by calling it a rollback."""
    with pytest.raises(Refused, match=r"never had 99 in prod.*It had 15, 14, 13\."):
        wanted(deployed(history("13", "14", "15"), PROD), "99", PROD)


@given(st.lists(VERSIONS, min_size=2, max_size=12))
def test_the_last_one_is_what_stands_there(versions: list[str]) -> None:
    """Whatever came and went, the top of the stack is the newest commit's version, and a rollback never brings it."""
    for rollbacks in (False, True):
        words = [versions[0]]
        for version in versions[1:]:
            if version != words[-1].lstrip("<"):
                words.append(f"<{version}" if rollbacks and version in words else version)
        if len(words) < 2:
            continue
        now = words[-1].lstrip("<")
        stack = deployed(history(*words), PROD)
        assert stack[-1].image.version == now
        try:
            assert before(stack, now=Image(version=now), bad=(), target=PROD).image.version != now
        except Refused:
            assert {each.image.version for each in stack} == {now}
