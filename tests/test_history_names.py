"""`history … by <name>`: a name finds the one id that it means, or a refusal that names those whom it may mean."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_history import entry_of, hostile_commits
from test_history import words as anything
from test_history_messages import PROMOTED
from test_messages import assert_harmless

from bot.core.errors import Refused
from bot.core.history import CI, MOST_PEOPLE, SOMEBODY, Entry, person_called, spelled
from bot.core.ports import Written
from bot.core.promotion import Signer
from bot.messages import answers

DANA = Signer(id="U0DANADEV01", team="T0ACME", name="Dana Nair", email="dana@acme.example")
OTHER = replace(DANA, id="U0OTHERDEV1", name="dana.nair")
AMY = replace(DANA, id="U0AMYAPPR01", name="Amy Chen")

words = st.lists(st.sampled_from(["Dana", "Nair", "dan", "ANair", "Zoë", "王", "7"]), min_size=1, max_size=3)
people = st.builds(
    lambda number, name: replace(DANA, id=f"U{number}", name=" ".join(name)), st.integers(0, 9), words
)


def asked_by(*signers: Signer) -> list[Entry]:
    """Commits that these asked for, newest first."""
    return [replace(PROMOTED, requested_by=signer) for signer in signers]


def refused(name: str, signers: Sequence[Signer], **more: str) -> str:
    """Why this name is nobody's."""
    with pytest.raises(Refused) as refusal:
        person_called(name, asked_by(*signers), **more)
    return str(refusal.value)


@given(
    words,
    st.sampled_from([".", "_", "-", "", " ", "  ", "\t"]),
    st.sampled_from(["", "@"]),
    st.sampled_from([str.lower, str.upper, str.title, str]),
)
def test_every_way_to_type_a_name_finds_it(
    name: list[str], between: str, before: str, cased: Callable[[str], str]
) -> None:
    """In either case, with or without `@`, and whatever stands between the words: `@dana.nair` is Dana Nair."""
    typed = before + cased(between.join(name))
    assert person_called(typed, asked_by(AMY, replace(DANA, name=" ".join(name)), AMY)).id == DANA.id


@given(st.lists(people, max_size=8), words)
def test_a_name_is_taken_for_one_id_or_for_none(signers: list[Signer], name: list[str]) -> None:
    """The id that alone has the name, under its newest name; a refusal where several have it, or none has."""
    wanted = "".join(name).lower()
    namesakes = [each for each in signers if each.name.replace(" ", "").lower() == wanted]
    if len({each.id for each in namesakes}) == 1:
        assert person_called(" ".join(name), asked_by(*signers)) == namesakes[0]
        return
    said = refused(" ".join(name), signers)
    meant = namesakes or signers
    ids = list(dict.fromkeys(each.id for each in meant))
    told = re.findall(r"\((U[0-9])\)", said)
    assert len(told) == min(len(ids), MOST_PEOPLE)
    assert set(told) <= set(ids)
    assert (f"and {len(ids) - MOST_PEOPLE} more" in said) is (len(ids) > MOST_PEOPLE)
    assert (f"{len(ids)} people are called" in said) is bool(namesakes)


def test_somebody_who_was_renamed_is_one_person() -> None:
    """Either name finds the id, and the newest spelling is told; two ids of one name are two people."""
    respelled = replace(DANA, name="Dana NAIR")
    assert person_called("dana nair", asked_by(respelled, DANA)) == respelled
    renamed = replace(DANA, name="Dana Ortiz")
    for name in ("dana ortiz", "dana nair"):
        assert person_called(name, asked_by(renamed, AMY, DANA)).id == DANA.id
    assert refused("@dana nair", [DANA, AMY, OTHER, DANA]) == (
        "2 people are called “@dana nair”. Type the id of the one that you mean: "
        "Dana Nair (U0DANADEV01), dana.nair (U0OTHERDEV1)."
    )


@pytest.mark.parametrize("typed", ["dana", "Dana N.", "nair", "Dana Nair Chen", "Dаna Nair", "@", "…", ""])
def test_another_name_is_nobodys(typed: str) -> None:
    """A part of a name, more than it, and letters that only look like it find nobody, but those who asked are named."""
    assert refused(typed, [AMY, DANA, replace(AMY, name="🙂", id="U0SMILE")]).startswith(
        f"Nobody called “{typed}” has asked for any of this. Type the name or the id of somebody who has: "
    )


def test_whom_it_may_mean_comes_first() -> None:
    """Those whose name has in it what was typed stand before the others, who may be too many to be named."""
    many = [replace(AMY, id=f"U{number}", name=f"Amy {number}") for number in range(9)]
    said = refused("@dana", [*many, DANA, OTHER])
    assert "has: Dana Nair (U0DANADEV01), dana.nair (U0OTHERDEV1), Amy 0 (U0), Amy 1 (U1)" in said
    assert said.endswith("Amy 2 (U2) and 6 more.")


def test_it_is_said_what_was_not_read() -> None:
    """Where nobody has the name, the reader learns that older commits may; and what to type where nobody asked at all."""
    assert refused("dana", [AMY], unread="I read only a part.") == (
        "Nobody called “dana” has asked for any of this. I read only a part. "
        "Type the name or the id of somebody who has: Amy Chen (U0AMYAPPR01)."
    )
    assert refused("dana", []) == (
        "Nobody called “dana” has asked for any of this. Nobody else has either. "
        "Type a Slack id (in a profile: ⋮, Copy member ID), or leave “by” out."
    )


@pytest.mark.parametrize("signer", [CI, SOMEBODY])
def test_a_name_is_somebodys(signer: Signer) -> None:
    """Neither CI nor who cannot be read is found by a name, or offered as somebody."""
    assert "Nobody else has either" in refused(signer.name, [signer])


@given(st.lists(hostile_commits, max_size=12), anything, anything)
def test_no_name_acts_in_an_answer(commits: list[Written], typed: str, name: str) -> None:
    """Whatever is typed, and whatever people are called in commits: one of them, or a refusal that is words alone."""
    strange = [replace(each, name=name) for each in (DANA, OTHER, AMY)]
    read = [*asked_by(*strange), *(entry_of(each, PROMOTED.repository) for each in commits)]
    for entries in (read, read[:1], read[3:]):
        with contextlib.suppress(Refused):
            assert spelled(person_called(typed, entries).name) == spelled(typed) != ""
        try:
            person_called(name, entries)
        except Refused as refusal:
            said = answers.refusal(refusal)
            assert_harmless(said)
            assert "\n" not in said
