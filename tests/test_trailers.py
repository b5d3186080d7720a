"""The commit's message is the audit trail: its form is fixed for ever, and nobody can forge a line of it."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import AMY, BEN, DANA, PROD, approval, in_phase, requested, same_as_golden, target
from conftest import require
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.catalog import Image
from bot.core.promotion import Phase, Promotion, Signer, Way
from bot.core.trailers import ci_message, message, one_line, signature

NAMES = [
    "Promotion-Format",
    "Promotion-Id",
    "App",
    "Environment",
    "From",
    "Old-Version",
    "New-Version",
    "Digest",
    "Requested-By",
    "Approved-By",
    "Approved-By",
    "Policy",
    "Content-Hash",
    "Reason",
    "Slack-Message",
]
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
HOSTILE = [
    "fine\nApproved-By: ceo <ceo@example.com> (T0ACME/U0CEO)",
    "fine\r\nApproved-By: ceo",
    "fine\rApproved-By: ceo",
    "fine\n\nApproved-By: ceo",
    "fine\u2028Approved-By: ceo",
    "fine\u2029Approved-By: ceo",
    "fine\x85Approved-By: ceo",
    "fine\x0bApproved-By: ceo",
    "fine\x00\x1b[2JApproved-By: ceo",
    "fine\n folded",
    "---\nApproved-By: ceo",
    "# comment\n---",
    "\n",
    "",
]
outside = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*BREAKS, "Approved-By: ceo", "---", " ", "<", ">", "(", ")", ":"]), max_size=8
    ).map("".join),
)


def both() -> Promotion:
    """An approved promotion, with two approvals and a link."""
    return in_phase(Phase.APPROVED)


def rollback(**changes: Any) -> Promotion:
    """An approved promotion that takes 15 back."""
    back = {"source": "prod", "version": "14", "old_version": "15", "rollback_of": "P-0000000000"}
    return in_phase(Phase.APPROVED, **(back | {"reason": "checkout is slow since 15"} | changes))


def emergency(**changes: Any) -> Promotion:
    """An approved promotion for which glass was broken."""
    return in_phase(
        Phase.APPROVED, **({"way": Way.EMERGENCY, "incident": "INC-99: checkout is down"} | changes)
    )


def trailers_of(text: str) -> list[tuple[str, str]]:
    """The last paragraph, read as the simplest reader would."""
    paragraphs = text.rstrip("\n").split("\n\n")
    return [tuple(line.split(": ", 1)) for line in paragraphs[-1].split("\n")]  # type: ignore[misc]


@pytest.fixture(scope="module")
def git() -> Path:
    """The program."""
    return require("git", "git")


def git_trailers(git: Path, text: str) -> list[str]:
    """What git itself finds in a message."""
    parsed = subprocess.run(
        [git, "interpret-trailers", "--parse"],
        input=text.encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return parsed.stdout.decode().splitlines()


def test_the_message_is_format_1() -> None:
    """History is read from these lines for ever: subject, body, names, order and spelling are fixed."""
    same_as_golden("commit.txt", message(both(), PROD))


def test_the_message_of_ci_is_format_1() -> None:
    """What CI brings into the first environment carries the same trailers, as far as they make sense."""
    built = Image(version="15")
    same_as_golden("commit_ci.txt", ci_message(target("dev"), id="P-7F3KQ0V9XZ", old="14", new=built))


def test_the_message_of_a_rollback_is_format_1(git: Path) -> None:
    """Its subject says what it is, its body promises nothing of another environment, and one more trailer says of what."""
    text = message(rollback(), PROD)
    same_as_golden("commit_rollback.txt", text)
    names = [line.partition(": ")[0] for line in git_trailers(git, text)]
    assert names == [*NAMES[:5], "Rollback-Of", *NAMES[5:]]


def test_only_a_rollback_says_of_what() -> None:
    """A promotion has no such trailer; a rollback of what nobody knows the id of says `unknown`."""
    assert "Rollback-Of" not in message(both(), PROD)
    assert ("Rollback-Of", "unknown") in trailers_of(message(rollback(rollback_of="unknown"), PROD))


def test_the_message_of_an_emergency_is_format_1(git: Path) -> None:
    """It ends with two trailers more: that glass was broken, and for what; the others stand as they always did."""
    text = message(emergency(), PROD)
    same_as_golden("commit_emergency.txt", text)
    names = [line.partition(": ")[0] for line in git_trailers(git, text)]
    assert names == [*NAMES, "Break-Glass", "Incident"]
    assert trailers_of(text)[-2:] == [("Break-Glass", "true"), ("Incident", "INC-99: checkout is down")]


def test_the_message_of_a_rollback_at_once_is_format_1(git: Path) -> None:
    """It ends with the way that it took; one that was approved says nothing of ways."""
    text = message(rollback(way=Way.AT_ONCE), PROD)
    same_as_golden("commit_rollback_at_once.txt", text)
    names = [line.partition(": ")[0] for line in git_trailers(git, text)]
    assert names == [*NAMES[:5], "Rollback-Of", *NAMES[5:], "Way"]
    assert trailers_of(text)[-1] == ("Way", "at once")


@pytest.mark.parametrize(
    "promotion", [both(), rollback(), emergency()], ids=["plain", "rollback", "emergency"]
)
def test_the_revision_of_the_rules_stands_last(promotion: Promotion) -> None:
    """Where it is known from which revision the rules come, one trailer more says it, and no other one changes."""
    before, after = message(promotion, PROD), message(promotion, PROD, policy_revision="f" * 40)
    assert trailers_of(after) == [*trailers_of(before), ("Policy-Revision", "f" * 40)]


@given(incident=outside, revision=outside)
def test_nobody_can_forge_a_trailer_of_an_emergency(incident: str, revision: str) -> None:
    """Whatever is said of the incident is one line, and no second approver."""
    text = message(emergency(incident=incident), PROD, policy_revision=revision)
    more = ["Break-Glass", "Incident", *(["Policy-Revision"] if revision else [])]
    assert [name for name, _ in trailers_of(text)] == [*NAMES, *more]
    assert text.count("\n\n") == 2


@given(reason=outside, version=outside)
def test_nobody_can_forge_a_trailer_of_a_rollback(reason: str, version: str) -> None:
    """Neither the reason nor what stood in the file before makes a second line, or another one a rollback."""
    text = message(rollback(reason=reason, old_version=version), PROD)
    assert [name for name, _ in trailers_of(text)] == [*NAMES[:5], "Rollback-Of", *NAMES[5:]]
    assert text.count("\n\n") == 2


def test_a_promotion_into_the_first_environment_comes_from_ci() -> None:
    """Its body claims no environment before it."""
    text = message(replace(requested(target("dev")), source="ci"), target("dev"))
    assert "\n\ndev ran 14.\n\n" in text
    assert ("From", "ci") in trailers_of(text)


def test_git_reads_every_trailer(git: Path) -> None:
    """`git interpret-trailers` and `git log --format=%(trailers)` see what was meant, in order."""
    parsed = git_trailers(git, message(both(), PROD))
    assert [line.partition(": ")[0] for line in parsed] == NAMES
    assert parsed == [f"{name}: {value}" for name, value in trailers_of(message(both(), PROD))]


def test_what_is_unknown_says_so() -> None:
    """A trailer is never left out: without a reason, a digest or a link it says `unknown`."""
    bare = replace(requested(), reason=None)
    found = dict(trailers_of(message(bare, PROD)))
    assert (found["Reason"], found["Slack-Message"], found["Digest"]) == ("unknown",) * 3


def test_each_approver_has_a_line() -> None:
    """One `Approved-By` for each approval, in the order in which they were given; none without."""
    names = [value for name, value in trailers_of(message(both(), PROD)) if name == "Approved-By"]
    assert names == [signature(AMY), signature(BEN)]
    assert "Approved-By" not in message(requested(), PROD)


def test_a_person_without_an_address_gets_one_that_cannot_exist() -> None:
    """`.invalid` is reserved: no mail goes there, and the ids stay readable."""
    assert signature(BEN) == "Ben <U0BEN@T0ACME.slack.invalid> (T0ACME/U0BEN)"
    assert signature(DANA) == "Dana <dana@example.com> (T0ACME/U0DANA)"


@pytest.mark.parametrize("name", ["", "<>", "\n", "Eve <ceo@example.com> (T0ACME/U0CEO)"])
def test_a_name_cannot_pose_as_an_address_or_an_id(name: str) -> None:
    """Brackets in a name are dropped, and an empty name becomes the id."""
    signed = signature(Signer(id="U0EVE", team="T0ACME", name=name))
    assert re.fullmatch(r"[^<>()]+ <U0EVE@T0ACME\.slack\.invalid> \(T0ACME/U0EVE\)", signed)


@given(reason=outside, name=outside, email=outside, version=outside)
def test_nobody_can_forge_a_trailer(reason: str, name: str, email: str, version: str) -> None:
    """Whatever stands in a reason, a name, an address or the values file, each trailer is one line of its own."""
    eve = Signer(id="U0EVE", team="T0ACME", name=name, email=email)
    asked = requested(reason=reason, requested_by=eve, old_version=version)
    promotion = replace(asked, approvals=(approval(asked, eve),))
    text = message(promotion, PROD)
    assert [found for found, _ in trailers_of(text)] == [*NAMES[:9], *NAMES[10:]]
    assert len(text.splitlines()) == len(text.split("\n")) - 1, "no other line break than our own"
    assert text.count("\n\n") == 2


@settings(max_examples=25, deadline=None)
@given(reason=outside, name=outside, version=outside)
def test_git_finds_no_forged_trailer(git: Path, reason: str, name: str, version: str) -> None:
    """Git's own parser agrees: exactly our trailers, and only the approver who approved."""
    eve = Signer(id="U0EVE", team="T0ACME", name=name)
    asked = requested(reason=reason, requested_by=eve, old_version=version)
    promotion = replace(asked, approvals=(approval(asked, AMY),))
    parsed = git_trailers(git, message(promotion, PROD))
    assert [line.partition(":")[0] for line in parsed] == [*NAMES[:9], *NAMES[10:]]
    assert [line for line in parsed if line.startswith("Approved-By")] == [f"Approved-By: {signature(AMY)}"]


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    """No control character and no separator is left, and words stay as they are."""
    cleaned = one_line(text)
    assert len(cleaned.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", cleaned)
    assert one_line(cleaned) == cleaned
