"""The four numbers of DORA are counted from commits and records, and what nobody knows is never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import MINUTE, NOON, PROD, in_phase
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Refused
from bot.core.measuring import begins_at
from bot.core.outcome import Outcome
from bot.core.ports import Written
from bot.core.promotion import Phase, Promotion
from bot.core.stats import Numbers, Records, by_target, ids, measure, spread

APP, HOUR, DAY = PROD.app, timedelta(hours=1), timedelta(days=1)
SINCE = NOON - 30 * DAY
DIGESTS = ("unknown", "sha256:" + "a" * 64, "sha256:" + "b" * 64)


def id(number: int) -> str:
    """The id of the promotion of this number."""
    return f"P-{number:010}"


def commit(
    number: int, version: str, *, days: float = 1, environment: str = "prod", **trailers: str
) -> Written:
    """Our commit of a promotion that somebody asked for, so many days before noon."""
    named = {
        "Promotion-Id": id(number),
        "App": APP,
        "Environment": environment,
        "New-Version": version,
        "Requested-By": "Dana <dana@example.com> (T0ACME/U0DANA)",
        **{name.replace("_", "-"): value for name, value in trailers.items()},
    }
    return Written(revision=f"{number:040x}", at=NOON - days * DAY, trailers=tuple(named.items()))


def record(number: int, phase: Phase = Phase.LIVE, **changes: Any) -> Promotion:
    """What the store knows of it: it was committed, and how it ended."""
    return replace(in_phase(phase), id=id(number), **changes)


def counted(
    commits: Sequence[Written],
    *records: Promotion,
    recovered: dict[str, Any] | None = None,
    environment: str = "prod",
) -> Numbers:
    """The numbers of prod over thirty days; the commits are newest first."""
    known = Records(promotions={each.id: each for each in records}, recovered=recovered or {})
    return measure(APP, environment, by_target(commits), first="dev", since=SINCE, until=NOON, records=known)


def test_deployments_are_our_commits_to_the_environment_within_the_window() -> None:
    """Other targets, older commits and rollbacks are none; rollbacks and emergencies are counted on their own."""
    found = counted(
        [
            commit(6, "13", days=1, Rollback_Of=id(5)),
            commit(5, "15", days=2, Break_Glass="true"),
            commit(4, "14", days=3),
            commit(3, "14", days=4, environment="stage"),
            commit(2, "14", days=4, App="other"),
            commit(1, "13", days=31),
        ]
    )
    assert (found.deployments, found.rollbacks, found.emergencies) == (2, 1, 1)
    assert found.per_day == pytest.approx(2 / 30)


def test_lead_time_runs_from_the_first_commit_in_the_first_environment() -> None:
    """A version that was brought there twice counts from the first time."""
    found = counted(
        [
            commit(4, "15", days=1),
            commit(3, "15", days=2, environment="dev"),
            commit(2, "14", days=3, environment="dev"),
            commit(1, "15", days=5, environment="dev"),
        ]
    )
    assert found.lead == spread([4 * DAY], of=1)


def test_a_version_counts_for_the_lead_time_when_it_comes_for_the_first_time() -> None:
    """Bringing it once more after something else says nothing about how long it took."""
    found = counted(
        [
            commit(4, "15", days=1),
            commit(3, "16", days=2),
            commit(2, "15", days=8),
            commit(1, "15", days=9, environment="dev"),
        ]
    )
    assert found.lead is not None
    assert (found.lead.median, found.lead.known, found.lead.of) == (DAY, 1, 2)


def test_a_tag_that_was_built_anew_is_another_build() -> None:
    """Where the digests are known, an older build of the same tag is not where this one began."""
    one, other = DIGESTS[1:]
    found = counted(
        [
            commit(3, "main", days=1, Digest=other),
            commit(2, "main", days=2, environment="dev", Digest=other),
            commit(1, "main", days=9, environment="dev", Digest=one),
        ]
    )
    assert found.lead == spread([DAY], of=1)


def test_a_version_that_the_first_environment_never_had_has_no_lead_time() -> None:
    """It is unknown, and counted as such; a commit there that came later is no beginning."""
    found = counted([commit(2, "15", days=1, environment="dev"), commit(1, "15", days=2)])
    assert found.lead == spread([], of=1)
    assert found.lead.median is None


def test_the_first_environment_has_no_lead_time() -> None:
    """Versions enter there."""
    assert counted([commit(1, "15", environment="dev")], environment="dev").lead is None


def test_what_waited_for_its_gates_took_as_long_as_the_record_says() -> None:
    """A commit bears the date of the approval; where it was pushed later, the lead time is the longer one."""
    late = record(2, committed_at=NOON - HOUR)
    commits = [commit(2, "15", days=2), commit(1, "15", days=3, environment="dev")]
    assert counted(commits, late).lead == spread([3 * DAY - HOUR], of=1)
    rebuilt = replace(late, content_hash="unknown")
    assert counted(commits, rebuilt).lead == spread([DAY], of=1)


def test_a_deployment_that_a_later_rollback_names_has_failed() -> None:
    """Git alone tells it, without any record."""
    found = counted([commit(3, "14", Rollback_Of=id(2)), commit(2, "15", days=2), commit(1, "14", days=3)])
    assert (found.failures, found.rolled_back, found.endings, found.failure_rate) == (1, 1, 1, 0.5)
    assert found.is_least


@pytest.mark.parametrize("nameless", ["", "unknown"])
def test_a_rollback_of_nobody_knows_what_makes_nothing_a_failure(nameless: str) -> None:
    """Also not what has no id itself."""
    found = counted([commit(2, "14", Rollback_Of="unknown"), commit(1, "15", days=2, Promotion_Id=nameless)])
    assert (found.rollbacks, found.failures, found.failure_rate) == (1, 0, None)


def test_a_deployment_whose_rollout_failed_has_failed() -> None:
    """The record says it."""
    found = counted([commit(2, "15"), commit(1, "14", days=2)], record(2, Phase.FAILED), record(1))
    assert (found.failures, found.rolled_back, found.endings, found.failure_rate) == (1, 0, 2, 0.5)
    assert not found.is_least


@pytest.mark.parametrize("outcome", [each for each in Outcome if each.is_unseen])
def test_what_nobody_could_see_is_not_known(outcome: Outcome) -> None:
    """An Argo CD that was away, or a bug of ours, is no failure of the deployment."""
    found = counted([commit(1, "15")], record(1, Phase.FAILED, outcome=outcome))
    assert (found.failures, found.endings, found.failure_rate) == (0, 0, None)


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTED, Phase.EXPIRED])
def test_a_promotion_that_has_not_ended_is_not_known(phase: Phase) -> None:
    """Neither is one of which the store believes that it was never written."""
    assert counted([commit(1, "15")], record(1, phase)).failure_rate is None


def test_a_record_of_another_target_counts_for_nothing() -> None:
    """A commit that names somebody else's promotion does not make its failure its own."""
    found = counted([commit(1, "15")], record(1, Phase.FAILED, environment="stage"))
    assert (found.failures, found.endings) == (0, 0)


def test_an_emergency_proves_nothing_about_the_deployment_before_it() -> None:
    """It is a change, and no failure of another one."""
    found = counted([commit(2, "16", Break_Glass="true"), commit(1, "15", days=2)], record(1), record(2))
    assert (found.deployments, found.failures, found.failure_rate) == (2, 0, 0.0)


def test_a_failure_lasts_until_the_next_good_deployment_is_live() -> None:
    """From the end of the failed one to the live end of the next; failed ones between do not end it."""
    bad = record(1, Phase.FAILED, ended_at=NOON - 10 * HOUR)
    worse = record(2, Phase.FAILED, ended_at=NOON - 6 * HOUR)
    good = record(3, ended_at=NOON - 3 * HOUR)
    found = counted(
        [commit(3, "17", days=0.2), commit(2, "16", days=0.3), commit(1, "15", days=0.5)], bad, worse, good
    )
    assert (found.restore.known, found.restore.of) == (2, 2)
    assert (found.restore.median, found.restore.p90) == (5 * HOUR, 7 * HOUR)


def test_without_records_the_commits_say_how_long_a_failure_lasted() -> None:
    """From the commit that was rolled back to the commit of the rollback."""
    found = counted([commit(2, "14", days=1, Rollback_Of=id(1)), commit(1, "15", days=1.5)])
    assert found.restore == spread([12 * HOUR], of=1)


def test_a_rollout_that_recovered_is_restored_by_itself() -> None:
    """What came right again did not wait for the next deployment."""
    bad = record(1, Phase.FAILED, ended_at=NOON - 10 * HOUR)
    commits = [commit(2, "16", days=0.1), commit(1, "15", days=0.5)]
    assert counted(commits, bad, recovered={id(1): NOON - 9 * HOUR}).restore == spread([HOUR], of=1)


def test_a_recovered_rollout_that_was_rolled_back_was_not_in_order() -> None:
    """Somebody took it back all the same."""
    bad = record(1, Phase.FAILED, ended_at=NOON - 10 * HOUR)
    commits = [commit(2, "14", days=0.25, Rollback_Of=id(1)), commit(1, "15", days=0.5)]
    assert counted(commits, bad, recovered={id(1): NOON - 9 * HOUR}).restore == spread([4 * HOUR], of=1)


def test_a_failure_that_was_seen_late_took_no_time_below_zero() -> None:
    """The next one was live before anybody gave up the first."""
    bad = record(1, Phase.FAILED, ended_at=NOON - HOUR)
    good = record(2, ended_at=NOON - 2 * HOUR)
    found = counted([commit(2, "16", days=0.2), commit(1, "15", days=0.5)], bad, good)
    assert found.restore == spread([timedelta(0)], of=1)


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.SUPERSEDED, Phase.FAILED])
def test_what_is_not_live_restores_nothing(phase: Phase) -> None:
    """As long as nothing good came after it, a failure has no time."""
    found = counted([commit(2, "16", days=0.1), commit(1, "15")], record(1, Phase.FAILED), record(2, phase))
    failed = 2 if phase is Phase.FAILED else 1
    assert found.restore == spread([], of=failed)


def test_only_records_that_can_be_there_are_asked_for() -> None:
    """Those of CI too; not those from before the window, nor of an id that is none; each once."""
    ci = replace(commit(1, "15"), trailers=(("Promotion-Id", id(1)),))
    asked = [
        commit(2, "15"),
        commit(2, "15"),
        commit(3, "14", days=31),
        commit(4, "13", Promotion_Id="P-x\n"),
        ci,
    ]
    assert ids(asked, since=SINCE) == (id(2), id(1))


@pytest.mark.parametrize(
    ("text", "back"),
    {"7d": 7 * DAY, "2w": 14 * DAY, "12h": 12 * HOUR, "60m": HOUR, "2026-02-27": 2.5 * DAY}.items(),
)
def test_people_say_since_when(text: str, back: timedelta) -> None:
    """A span, or a day in UTC."""
    assert begins_at(text, NOON) == NOON - back


@pytest.mark.parametrize(
    "text", ["", "soon", "0d", "59m", "2 years", "9999w", "2026-03-02", "2026-02-30", "1 d; x", "٣d"]
)
def test_a_time_that_makes_no_sense_is_refused_with_what_to_type(text: str) -> None:
    """The future, more than a year, and everything else."""
    with pytest.raises(Refused, match="Type 24h, 7d or 4w"):
        begins_at(text, NOON)


# --- what holds for every history

VERSIONS = st.sampled_from(["13", "14", "15", ""])
NUMBERS = st.integers(0, 5)
TRAILERS = st.dictionaries(
    st.sampled_from(
        ["Rollback-Of", "Break-Glass", "Digest", "New-Version", "Promotion-Id", "App", "Requested-By"]
    ),
    st.sampled_from([*DIGESTS, id(1), id(2), "", "true", "sha256:" + "A" * 64]) | st.text(max_size=8),
    max_size=3,
)


@st.composite
def commits(draw: st.DrawFn) -> Written:
    """Any commit of ours, and such as nobody ought to have written."""
    named = commit(draw(NUMBERS), draw(VERSIONS), environment=draw(st.sampled_from(["dev", "prod"])))
    days = draw(st.floats(-2, 40))
    return replace(
        named,
        revision=draw(st.uuids()).hex,
        at=NOON - days * DAY,
        trailers=tuple({**dict(named.trailers), **draw(TRAILERS)}.items()),
    )


HISTORIES = st.lists(commits(), max_size=12)
RECORDS = st.lists(
    st.builds(
        lambda number, phase, minutes: replace(record(number, phase), ended_at=NOON - minutes * MINUTE),
        NUMBERS,
        st.sampled_from(list(Phase)),
        st.integers(-9000, 60_000),
    ),
    max_size=5,
)


@given(HISTORIES, RECORDS)
def test_no_number_says_more_than_there_is(history: list[Written], records: list[Promotion]) -> None:
    """Whatever the trailers say: shares lie within 0 and 1, no time is negative, nothing is known of nothing."""
    for environment in ("dev", "prod"):
        found = counted(history, *records, environment=environment)
        assert 0 <= found.rolled_back <= found.failures <= found.endings <= found.deployments
        assert found.deployments + found.rollbacks <= len(history)
        assert found.emergencies <= found.deployments
        assert found.failure_rate is None or 0 <= found.failure_rate <= 1
        for each in (found.lead, found.restore):
            if each is not None:
                assert 0 <= each.known <= each.of <= found.deployments
                assert (each.median is None) == (each.p90 is None) == (each.known == 0)
                if each.median is not None and each.p90 is not None:
                    assert timedelta(0) <= each.median <= each.p90
        assert found.restore.of == found.failures


@given(HISTORIES, RECORDS, st.randoms())
def test_the_order_of_what_is_not_the_targets_does_not_matter(
    history: list[Written], records: list[Promotion], random: Any
) -> None:
    """A branch tells the order of a target's own commits; how others lie between them changes nothing."""
    own = [each for each in history if each.trailer("Environment") == "prod"]
    others = [each for each in history if each.trailer("Environment") != "prod"]
    mixed = list(others)
    random.shuffle(mixed)
    places = sorted(random.randint(0, len(mixed)) for _ in own)
    for offset, (place, each) in enumerate(zip(places, own, strict=True)):
        mixed.insert(place + offset, each)
    random.shuffle(records)
    unique = list({each.id: each for each in records}.values())
    assert counted(mixed, *unique) == counted([*own, *others], *reversed(unique))


@given(HISTORIES, RECORDS, NUMBERS)
def test_a_rollback_never_lowers_the_failure_rate(
    history: list[Written], records: list[Promotion], number: int
) -> None:
    """It is no change itself, and what it takes back has failed."""
    before = counted(history, *records)
    after = counted([commit(9, "12", days=0, Rollback_Of=id(number)), *history], *records)
    assert after.deployments == before.deployments
    assert (after.failure_rate or 0.0) >= (before.failure_rate or 0.0)
    assert after.rollbacks == before.rollbacks + 1


@given(HISTORIES, RECORDS)
def test_without_records_there_are_as_many_deployments(
    history: list[Written], records: list[Promotion]
) -> None:
    """A store that is away takes nothing from what git tells."""
    with_records, without = counted(history, *records), counted(history)
    assert (without.dates, without.rollbacks) == (with_records.dates, with_records.rollbacks)
    assert without.failures == without.rolled_back == with_records.rolled_back


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_nine_of_ten_are_within_the_90th_percentile(minutes: list[int]) -> None:
    """It is a time that was measured, and at least nine of ten are no longer; half are within the median."""
    times = [each * MINUTE for each in minutes]
    found = spread(times, of=len(times))
    assert found.p90 in times
    assert found.p90 is not None
    assert found.median is not None
    assert sum(each <= found.p90 for each in times) >= 0.9 * len(times)
    assert sum(each <= found.median for each in times) >= 0.5 * len(times)
    assert sum(each >= found.median for each in times) >= 0.5 * len(times)
