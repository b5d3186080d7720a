"""A promotion takes the steps of the phase table and no others, and each step is told by one event."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from builders import AMY, BEN, DANA, MINUTE, NOON, PROD, approval, in_phase, requested
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Refused
from bot.core.promotion import CROCKFORD, HOLDING, NEXT, Phase, Promotion, Way, new_id

Step = Callable[[Promotion, datetime], Promotion]

STEPS: dict[str, tuple[Step, Phase | None, set[Phase]]] = {
    # name: how to take it, where it leads (None: the same phase), and the only phases it may be taken from
    "approve": (lambda p, at: p.approve(approval(p, AMY, at=at)), None, {Phase.REQUESTED}),
    "withdraw": (lambda p, at: p.withdraw(by=BEN.id, at=at), None, {Phase.REQUESTED}),
    "reject": (lambda p, at: p.reject(by=AMY.id, at=at, why="no"), Phase.REJECTED, {Phase.REQUESTED}),
    "cancel": (
        lambda p, at: p.cancel(by=DANA.id, at=at, why=None),
        Phase.CANCELLED,
        {Phase.REQUESTED, Phase.APPROVED},
    ),
    "expire": (lambda p, at: p.expire(at=at, why="late"), Phase.EXPIRED, {Phase.REQUESTED, Phase.APPROVED}),
    "supersede": (
        lambda p, at: p.supersede(at=at, why="newer"),
        Phase.SUPERSEDED,
        {Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTED},
    ),
    "outdate": (
        lambda p, at: p.outdate(at=at, why="moved"),
        Phase.STALE,
        {Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING},
    ),
    "reach_quorum": (lambda p, at: p.reach_quorum(at=at, link=None), Phase.APPROVED, {Phase.REQUESTED}),
    "lose_quorum": (
        lambda p, at: p.lose_quorum(at=at, kept=(), why="left"),
        Phase.REQUESTED,
        {Phase.APPROVED},
    ),
    "start_commit": (lambda p, at: p.start_commit(at=at, base="b" * 40), Phase.COMMITTING, {Phase.APPROVED}),
    "reopen": (lambda p, at: p.reopen(at=at), Phase.APPROVED, {Phase.COMMITTING}),
    "propose": (
        lambda p, at: p.propose(at=at, branch=f"promote/{p.id}", base="b" * 40, approvals=p.approvals),
        None,
        {Phase.APPROVED},
    ),
    "open_pull_request": (
        lambda p, at: p.open_pull_request(at=at, url="https://host.example/pull/12", proposed="c" * 40),
        None,
        {Phase.APPROVED},
    ),
    "tell_besides": (lambda p, at: p.tell_besides(at=at, besides="a.yaml"), None, {Phase.APPROVED}),
    "draft_anew": (
        lambda p, at: p.draft_anew(at=at, old_version="13", changes=(), content_hash="x"),
        None,
        {Phase.APPROVED},
    ),
    "commit": (lambda p, at: p.commit(at=at, revision="c" * 40), Phase.COMMITTED, {Phase.COMMITTING}),
    "ask_to_sync": (lambda p, at: p.ask_to_sync(by=DANA.id, at=at), None, {Phase.COMMITTED}),
    "review": (
        lambda p, at: replace(p, way=Way.EMERGENCY, revision="a" * 40).review(by=AMY.id, at=at, why=None),
        None,
        set(Phase),  # of an emergency that is committed, whatever became of it
    ),
    "go_live": (lambda p, at: p.go_live(at=at, why="runs"), Phase.LIVE, {Phase.COMMITTED}),
    "take_back": (lambda p, at: p.take_back(at=at, why="closed"), None, {Phase.APPROVED}),
    "commit_late": (
        lambda p, at: p.commit_late(at=at, revision="d" * 40, why="a newer one"),
        Phase.SUPERSEDED,
        {Phase.COMMITTING},
    ),
    "fail": (
        lambda p, at: p.fail(at=at, why="broke"),
        Phase.FAILED,
        {Phase.APPROVED, Phase.COMMITTING, Phase.COMMITTED},
    ),
}
"""Written by hand from the table of phases, so that a wrong `NEXT` and a wrong method both show."""

LATER = NOON + 5 * MINUTE


def standing(phase: Phase) -> Promotion:
    """A promotion in a phase, which Ben has approved and Amy has not."""
    promotion = in_phase(phase)
    return replace(promotion, approvals=(approval(promotion, BEN),))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_possible_from_its_own_phases_alone(name: str, phase: Phase) -> None:
    """Every method leads where the table of phases says, and is refused everywhere else."""
    take, leads_to, allowed = STEPS[name]
    before = standing(phase)
    if phase not in allowed:
        with pytest.raises(Refused, match=before.id):
            take(before, LATER)
        return
    assert take(before, LATER).phase is (leads_to or phase)


def test_the_steps_together_are_the_whole_table() -> None:
    """`NEXT` holds each change of phase that some method makes, and no other."""
    taken = {(phase, to) for _, to, allowed in STEPS.values() if to for phase in allowed}
    assert taken == {(phase, to) for phase, following in NEXT.items() for to in following}


def test_every_transition_of_the_class_is_tested() -> None:
    """A new method that returns a promotion has to come into this file's table too."""
    methods = {
        name
        for name, member in vars(Promotion).items()
        if callable(member)
        and not name.startswith("_")
        and member.__annotations__.get("return") == "Promotion"
    }
    assert methods == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_counts_one_edition_and_tells_one_event(name: str) -> None:
    """A step raises the edition by one, and its event carries that edition, the time and the new phase."""
    take, _, allowed = STEPS[name]
    for phase in allowed:
        before = standing(phase)
        after = take(before, LATER)
        assert after.edition == before.edition + 1
        assert (after.last.edition, after.last.at, after.last.phase) == (after.edition, LATER, after.phase)
        assert after.last != before.last


@pytest.mark.parametrize("name", STEPS)
def test_a_step_changes_nothing_of_what_was_asked(name: str) -> None:
    """Who asked, for what and when, and what the approvals are bound to, stays the same for ever."""
    take, _, allowed = STEPS[name]
    kept = ("id", "app", "environment", "version", "old_version", "content_hash", "requested_by")
    kept += ("requested_at", "request_seal", "reason", "expires_at", "changes", "digest", "source")
    if name == "draft_anew":  # what a machine asked for goes on from what an older one has brought
        kept = tuple(each for each in kept if each not in ("old_version", "content_hash", "changes"))
    for phase in allowed:
        before = standing(phase)
        after = take(before, LATER)
        assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}


@pytest.mark.parametrize("name", ["reject", "cancel", "expire", "supersede", "outdate", "go_live", "fail"])
def test_an_end_is_dated_and_says_why(name: str) -> None:
    """A promotion that ended carries when and, in words for people, why."""
    take, _, allowed = STEPS[name]
    for phase in allowed:
        ended = take(standing(phase), LATER)
        assert ended.ended_at == LATER
        assert ended.ending == ended.last.why
        assert ended.phase.is_final


def test_a_new_promotion_is_the_first_edition_and_waits() -> None:
    """A request begins with edition 1, one event, no approval, and the policy's time to decide."""
    promotion = requested()
    assert (promotion.edition, promotion.phase, promotion.approvals) == (1, Phase.REQUESTED, ())
    assert (promotion.last.edition, promotion.last.what, promotion.last.by) == (1, "requested", DANA.id)
    assert promotion.expires_at == NOON + PROD.policy.expires


def test_an_approval_is_bound_to_the_content() -> None:
    """A yes to other content than the record's is refused, and nothing is counted."""
    promotion = requested()
    other = replace(approval(promotion), content_hash="sha256:" + "f" * 64)
    with pytest.raises(Refused, match="not what that button showed"):
        promotion.approve(other)


@pytest.mark.parametrize(
    ("early", "counts"), [(timedelta(microseconds=1), True), (timedelta(0), False), (-MINUTE, False)]
)
def test_the_moment_of_expiry_is_already_too_late(early: timedelta, counts: bool) -> None:
    """An approval counts up to the last instant before `expires_at`, and not at it."""
    promotion = requested()
    given = approval(promotion, at=promotion.expires_at - early)
    if counts:
        assert promotion.approve(given).approved_by(AMY.id)
    else:
        with pytest.raises(Refused, match="has expired; ask again"):
            promotion.approve(given)


def test_one_person_approves_once() -> None:
    """A second yes of the same person is refused, so that nobody is a quorum alone."""
    promotion = requested()
    once = promotion.approve(approval(promotion, AMY))
    with pytest.raises(Refused, match="already approved"):
        once.approve(approval(promotion, AMY, at=NOON + 2 * MINUTE))
    assert [each.by for each in once.approve(approval(promotion, BEN)).approvals] == [AMY, BEN]


def test_withdrawing_takes_back_ones_own_approval_alone() -> None:
    """The others' approvals stay; the same person may approve again afterwards."""
    promotion = requested()
    both = promotion.approve(approval(promotion, AMY)).approve(approval(promotion, BEN))
    left = both.withdraw(by=AMY.id, at=LATER)
    assert [each.by for each in left.approvals] == [BEN]
    assert left.approve(approval(left, AMY, at=LATER)).approved_by(AMY.id)


def test_who_has_not_approved_has_nothing_to_withdraw() -> None:
    """A withdrawal without an approval is refused with that reason."""
    with pytest.raises(Refused, match="have not approved"):
        requested().withdraw(by=AMY.id, at=LATER)


@pytest.mark.parametrize(
    "phase", [phase for phase in Phase if phase not in (Phase.REQUESTED, Phase.APPROVED)]
)
def test_a_cancel_that_comes_too_late_says_what_happened(phase: Phase) -> None:
    """Once the commit is under way only its outcome counts, and the refusal tells where it stands."""
    promotion = in_phase(phase)
    with pytest.raises(Refused, match="too late to cancel") as refused:
        promotion.cancel(by=DANA.id, at=LATER, why=None)
    assert promotion.told in str(refused.value)


def test_losing_the_quorum_keeps_the_valid_approvals_alone() -> None:
    """Back in `requested`, the record holds the approvals that still count and no date of approval."""
    approved = in_phase(Phase.APPROVED)
    kept = approved.approvals[:1]
    waiting = approved.lose_quorum(at=LATER, kept=kept, why="Ben left")
    assert (waiting.approvals, waiting.approved_at) == (kept, None)


def test_another_try_keeps_the_base_of_the_first() -> None:
    """The tip that the first try was built on stays on record: a late push is looked for from there."""
    again = in_phase(Phase.COMMITTING).reopen(at=LATER)
    assert (again.phase, again.base) == (Phase.APPROVED, "b" * 40)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_its_words(phase: Phase) -> None:
    """`told` ends a sentence for each phase: no full stop, and it begins in lower case."""
    told = in_phase(phase).told
    assert told[0].islower()
    assert not told.endswith(".")


@pytest.mark.parametrize("phase", Phase)
def test_the_hold_ends_with_the_commit(phase: Phase) -> None:
    """Only `requested`, `approved` and `committing` keep other requests away."""
    assert phase.holds is (phase in (Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING))
    assert not (phase.holds and phase.is_final)


def test_the_record_keeps_every_phase_under_its_own_name() -> None:
    """The words are in records and trailers for ever: a renamed phase would orphan them."""
    words = "requested approved committing committed live failed rejected expired cancelled superseded stale"
    assert [phase.value for phase in Phase] == words.split()


def test_ids_are_ten_random_crockford_characters() -> None:
    """`P-` and ten characters without I, L, O and U, so that an id can be read aloud; none comes twice."""
    assert len(CROCKFORD) == len(set(CROCKFORD)) == 32
    assert not set("ILOU") & set(CROCKFORD)
    ids = [new_id() for _ in range(2000)]
    assert all(re.fullmatch(rf"P-[{CROCKFORD}]{{10}}", each) for each in ids)
    assert len(set(ids)) == len(ids)
    assert {character for each in ids for character in each[2:]} == set(CROCKFORD)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(STEPS.keys() - {"review"})), st.sampled_from([AMY, BEN])),
        max_size=30,
    )
)
def test_any_walk_keeps_the_record_sound(walk: list[tuple[str, object]]) -> None:
    """Whatever is tried in whatever order: editions count events, ends are ends, and the hold is lost for good."""
    promotion, events, was_held = requested(), 1, True
    for name, who in walk:
        take: Step = STEPS[name][0]
        if name == "approve":
            take = lambda p, at, who=who: p.approve(approval(p, who, at=at))  # noqa: E731 - the step, by another
        before = promotion
        try:
            promotion = take(before, LATER)
        except Refused:
            assert promotion is before
            continue
        events += 1
        assert not before.phase.is_final
        assert promotion.phase in {before.phase, *NEXT[before.phase]}
        assert promotion.edition == promotion.last.edition == events
        assert promotion.phase.holds is (promotion.phase in HOLDING)
        assert was_held or not promotion.phase.holds
        was_held = promotion.phase.holds
        assert len({each.by.id for each in promotion.approvals}) == len(promotion.approvals)
        assert (promotion.ended_at is not None) is promotion.phase.is_final
