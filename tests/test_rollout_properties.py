"""What holds for every rollout, however Argo CD behaves: claims about the decision procedure, tried at random."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import accumulate, takewhile
from typing import Any, TypeAlias

from hypothesis import assume, find, given, settings
from hypothesis import strategies as st
from rollout_cases import (
    IMAGE,
    LATER,
    OLD,
    OURS,
    POLICY,
    PUSHED_AT,
    RELATIONS,
    REVERTED,
    UNKNOWN,
    Following,
    after,
    case,
    facts,
    operation,
    pod,
    unnoticed,
    workloads,
)

from bot.core.facts import ApplicationFacts, Unseen
from bot.core.progress import Look, Stage, next_look
from bot.core.rollout import Relation, decide

CHANGES: list[dict[str, Any]] = [
    *({"revision": revision} for revision in (LATER, OLD, UNKNOWN, None)),
    *({"history_revision": revision} for revision in (LATER, OLD, UNKNOWN, None)),
    *({"sync": status} for status in ("OutOfSync", "Unknown", "")),
    *({"health": status} for status in ("Progressing", "Degraded", "Suspended", "Missing", "Unknown", "")),
    {"operation": None},
    *(
        {"operation": operation(phase=phase)}
        for phase in ("", "Running", "Terminating", "Failed", "Dreaming")
    ),
    *({"operation": operation(revision=revision)} for revision in (LATER, OLD, UNKNOWN, None)),
    *({"operation": operation(finished_at=at)} for at in (None, after(30))),
    {"operation": operation(is_full=False)},
    *({"workloads": found} for found in (None, workloads(), workloads(pod(), rendered="14"))),
    *({"workloads": workloads(pod(), pod("14", is_terminating=leaving))} for leaving in (True, False)),
    {"workloads": workloads(pod(is_ready=False))},
    {"tracks": "release, not the branch main"},
    {"automated": False},
    {"compares_spec": False},
    {"is_operating": True},
    {"is_deleting": True},
    {"errors": ("helm template failed",)},
]
"""Each a step away from an application that runs our commit; most of them spoil it."""


def merged(changes: list[dict[str, Any]]) -> ApplicationFacts:
    """An application with a few things changed at once."""
    return facts(**{name: value for change in changes for name, value in change.items()})


SIGHTS = st.one_of(st.just(facts()), st.lists(st.sampled_from(CHANGES), max_size=3).map(merged))
BLIND = st.builds(
    Unseen,
    name=st.just("manual-app-prod"),
    reason=st.just("Argo CD is not available"),
    is_final=st.booleans(),
)
ANYTHING = st.one_of(SIGHTS, SIGHTS, SIGHTS, BLIND)
GAPS = st.floats(min_value=0.1, max_value=15)
LATE = st.floats(min_value=1200, max_value=90_000)
LOOKS = st.lists(st.tuples(GAPS, ANYTHING, st.booleans()), min_size=1, max_size=12)
Looks: TypeAlias = list[tuple[float, ApplicationFacts | Unseen, bool]]
FAMILIES = st.sampled_from([RELATIONS, REVERTED])


def good(found: ApplicationFacts | Unseen, family: dict[str, Relation]) -> bool:
    """Every condition of success that one look can show, written down once more."""
    if isinstance(found, Unseen) or found.workloads is None or found.revision is None:
        return False
    named = {found.revision, found.history_revision, found.operation.revision if found.operation else None}
    staying = [pod for pod in found.workloads.pods if not pod.is_terminating]
    return (
        family[found.revision].contains is True
        and all(family[name].holds_value or not family[name].contains for name in named if name)
        and found.tracks is None
        and not (found.is_deleting or found.is_operating or found.errors)
        and found.sync in ("Synced", "OutOfSync")
        and found.compares_spec
        and found.is_fresh
        and found.health == "Healthy"
        and f"{IMAGE}:15" in found.workloads.rendered_images
        and all(pod.is_ready and pod.images == (f"{IMAGE}:15",) for pod in staying)
    )


def follow(
    looks: Looks, family: dict[str, Relation]
) -> tuple[Following, list[tuple[float, ApplicationFacts | Unseen]]]:
    """Look until the end; returns who followed, and each look with its time. Argo CD may fail to compare anew."""
    following = Following(relations=family)
    seen: list[tuple[float, ApplicationFacts | Unseen]] = []
    now = 0.0
    for gap, found, compared in looks:
        now += gap
        shown = found
        if isinstance(found, ApplicationFacts):
            shown = replace(found, reconciled_at=after(int(now) if compared else int(now / 20) * 20))
        seen.append((now, shown))
        if following.look(now, shown, compared=False).is_end:
            break
    return following, seen


def ended(following: Following) -> Stage | None:
    """Where a rollout stands after its looks."""
    return following.progress.stage if following.progress else None


@settings(max_examples=300)
@given(looks=LOOKS, family=FAMILIES)
def test_live_is_only_said_after_a_hold_in_which_everything_was_proved(
    looks: Looks, family: dict[str, Relation]
) -> None:
    """The commit is contained, the comparison fresh, every pod ready with the image, and all of that lasted."""
    following, seen = follow(looks, family)
    if ended(following) is not Stage.LIVE:
        return
    held = list(takewhile(lambda look: good(look[1], family), reversed(seen)))
    assert held, "the look that said live shows a doubt"
    (until, last), (since, first) = held[0], held[-1]
    patience = POLICY.stable_for.total_seconds() - 1e-6
    assert until - since >= patience
    assert following.refreshed_at[-1] - since >= patience
    assert isinstance(last, ApplicationFacts)
    assert isinstance(first, ApplicationFacts)
    assert last.reconciled_at
    assert first.reconciled_at
    assert last.reconciled_at > first.reconciled_at


def test_the_claims_about_live_are_not_empty() -> None:
    """The same random looks do reach it, also by way of a later commit."""
    for revision in (OURS, LATER):
        found = find(
            LOOKS,
            lambda looks, revision=revision: (
                ended(follow(looks, RELATIONS)[0]) is Stage.LIVE
                and getattr(follow(looks, RELATIONS)[1][-1][1], "revision", None) == revision
            ),
            settings=settings(max_examples=20_000, deadline=None, database=None),
        )
        assert found


@given(looks=LOOKS)
def test_unknown_ancestry_is_never_success(looks: Looks) -> None:
    """Where git cannot say whether a revision contains the commit, nothing that Argo CD shows is a proof."""
    nobody_knows = {revision: Relation(contains=None) for revision in RELATIONS}
    following, _ = follow(looks, nobody_knows)
    assert ended(following) is not Stage.LIVE


@given(unseen=BLIND, stage=st.sampled_from(list(Stage)), now=st.floats(min_value=0, max_value=3000))
def test_unseen_is_never_live(unseen: Unseen, stage: Stage, now: float) -> None:
    """Whatever came before, an Argo CD that does not answer turns nothing into success."""
    following = Following()
    following.look(0, unseen)
    assert following.progress
    before = replace(following.progress, stage=stage)
    assert (decide(unseen, case(now, before=before)).stage is Stage.LIVE) == (stage is Stage.LIVE)


@given(found=ANYTHING, late=LATE)
def test_only_what_is_deployed_goes_on_after_the_time_limit(
    found: ApplicationFacts | Unseen, late: float
) -> None:
    """At the first look past it, everything else comes to an end that somebody reads."""
    progress = decide(found, case(late))
    assert progress.stage.is_end or progress.stage in (Stage.SETTLING, Stage.CONFIRMING)
    assert progress.says


@given(looks=st.lists(ANYTHING, min_size=1, max_size=30), late=LATE)
def test_nothing_goes_on_for_ever_after_the_time_limit(
    looks: list[ApplicationFacts | Unseen], late: float
) -> None:
    """Two minutes and two holds later each rollout has ended, whatever was seen meanwhile."""
    following = Following()
    for place in range(29):
        following.look(late + 5 * place, looks[place % len(looks)])
    assert following.progress
    assert following.progress.stage.is_end
    assert following.progress.says


@given(
    before=st.lists(ANYTHING, max_size=5),
    pauses=st.lists(GAPS, min_size=1, max_size=8),
    late=LATE,
)
def test_what_is_proved_after_the_time_limit_is_live(
    before: list[ApplicationFacts | Unseen], pauses: list[float], late: float
) -> None:
    """However long the bot was away, a rollout that looks good at every look since then has not failed."""
    following = Following()
    for place, found in enumerate(before):
        following.look(5 * place, found)
    assume(not (following.progress and following.progress.stage.is_end))
    for now in accumulate([*pauses, 15.0, 15.0, 15.0], initial=late):
        assert following.look(now, facts()) in (Stage.CONFIRMING, Stage.LIVE)
    assert ended(following) is Stage.LIVE


@given(
    before=st.lists(ANYTHING, min_size=1, max_size=8),
    away=st.floats(min_value=0, max_value=1100),
    first=st.sampled_from([unnoticed(), unnoticed(revision=UNKNOWN)]),
)
def test_the_first_good_look_after_a_silence_accuses_nobody(
    before: list[ApplicationFacts | Unseen], away: float, first: ApplicationFacts
) -> None:
    """Whatever was seen before an outage, Argo CD is asked to compare before it is said not to have noticed."""
    following = Following()
    for place, found in enumerate(before):
        following.look(5 * place, found)
    now = 5.0 * len(before) + away
    following.look(now, Unseen(name="manual-app-prod", reason="Argo CD is not available", is_final=False))
    assume(not (following.progress and following.progress.stage.is_end))
    assert following.look(now + 15, first) is Stage.UNNOTICED
    assert following.refreshed_at[-1] == now + 15 or now - following.refreshed_at[-1] < 15


@given(found=ANYTHING, now=st.floats(min_value=0, max_value=3000), age=st.floats(min_value=0, max_value=3000))
def test_the_next_look_comes_soon_and_never_at_once(
    found: ApplicationFacts | Unseen, now: float, age: float
) -> None:
    """Between half a second and twenty: a worker neither spins nor forgets."""
    look = Look(applications=(decide(found, case(now)),))
    wait = next_look(look, committed_at=PUSHED_AT, now=after(now + age), policy=POLICY)
    assert timedelta(seconds=0.5) <= wait <= timedelta(seconds=20)
