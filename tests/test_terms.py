"""The shorter ways to a commit: what an emergency passes, and when a rollback needs nobody's approval."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import PROD
from hypothesis import given
from hypothesis import strategies as st
from test_probes import running, saying
from test_time_of_check import RESCUERS, Place, another_memory, block, fail_the_check, forget_the_soak
from world import AMY, BEN, DANA, MEL, NOON, TEAM, World, world_in

from bot.core import trailers
from bot.core.asking import Manner
from bot.core.board import BadVersion, Lock, Scope
from bot.core.catalog import UNKNOWN, Image
from bot.core.drafting import GatesClosed
from bot.core.errors import Refused
from bot.core.outcome import Outcome
from bot.core.policy import CONTENT, ApprovalRule, EmergencyRule, Gate, Listed, Policy
from bot.core.ports import Author, Change, Edit
from bot.core.promotion import Event, Phase, Promotion, PromotionId, Signer, Way, new_id, request
from bot.core.rollout import Look
from bot.core.terms import FOR_ROLLBACKS, gates_passed, target_for, under

HOUR = timedelta(hours=1)
PASSABLE = [gate for gate in Gate if gate not in CONTENT]
EMERGENCY = Manner(incident="INC-7")
GROUPS = "S0ROLLERS01"

# --- which gates

gates = st.frozensets(st.sampled_from(Gate))


@given(skips=st.none() | gates, way=st.sampled_from([None, *Way]), is_rollback=st.booleans())
def test_nothing_is_passed_but_what_the_way_and_the_policy_name(
    skips: frozenset[Gate] | None, way: Way | None, is_rollback: bool
) -> None:
    """An emergency passes what its rule names, a rollback what does not matter to it, and nobody the image."""
    rule = None if skips is None else EmergencyRule(who=Listed(users=frozenset({MEL})), skips=skips)
    found = gates_passed(
        replace(PROD, policy=replace(PROD.policy, emergency=rule)), way=way, is_rollback=is_rollback
    )
    expected = set(FOR_ROLLBACKS if is_rollback else ())
    expected |= {Gate.QUORUM} if way is Way.AT_ONCE else set()
    expected |= set(skips or ()) if way is Way.EMERGENCY else set()
    assert found == expected - CONTENT
    assert not found & CONTENT


def test_a_rollback_passes_what_was_tested_before_and_nothing_else() -> None:
    """It waits for no window; locks, bad versions, the image and the approvals hold for it too."""
    left = {Gate.LOCKS, Gate.BAD_VERSION, Gate.IMAGE, Gate.QUORUM}
    assert set(Gate) - FOR_ROLLBACKS == left


@given(gates)
def test_without_a_quorum_the_approvers_are_told_in_place_of_asked(passed: frozenset[Gate]) -> None:
    """Nobody has to approve, and whoever would have hears of it; nothing else of the target is another."""
    rule = ApprovalRule(users=frozenset({AMY}), groups=frozenset({GROUPS}), minimum=1)
    policy = Policy(rules=(rule,), total=1, notify=Listed(users=frozenset({BEN})), soak=HOUR)
    target = replace(PROD, policy=policy)
    found = under(target, passed)
    if Gate.QUORUM not in passed:
        assert found == target
        return
    assert (found.policy.rules, found.policy.total, found.policy.needs_approval) == ((), 0, False)
    assert found.policy.notify == Listed(users=frozenset({AMY, BEN}), groups=frozenset({GROUPS}))
    assert replace(found, policy=policy) == target
    assert replace(found.policy, rules=policy.rules, total=1, notify=policy.notify) == policy


# --- an emergency


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with running() as system, world_in(tmp_path, redis_url) as world:
        made = Place(world, system)
        await made.open_gates()
        yield made
        made.is_over.set()


async def close_every_gate(place: Place) -> None:
    """All at once: locked, blocked, neither soaked nor checked, in a freeze, with a probe that says no."""
    world = place.world
    await another_memory(place)
    await fail_the_check(place)
    await forget_the_soak(place)
    await place.lock()
    await block(place)
    bad = BadVersion(app="manual-app", version="16", by=BEN, reason="loses orders", at=NOON)
    await world.board.block(bad)
    place.system.answer = saying(409, "errors are up")
    world.clock.at = NOON + timedelta(minutes=20)


async def break_glass(place: Place, version: str, **more: Any) -> Promotion:
    words = {"reason": "checkout is down", "user": MEL, "manner": EMERGENCY} | more
    asked = place.world.promoter.request(app="manual-app", environment="prod", version=version, **words)
    made: Promotion = await place.world.moving(asked)
    return made


def skipping(*passed: Gate) -> dict[str, Any]:
    return {"who": [RESCUERS], "skips": [str(gate) for gate in passed]}


ASKED = {Gate.SOAK, Gate.CHECKS, Gate.PROBES, Gate.PARITY, Gate.WINDOWS, Gate.LOCKS}


@pytest.mark.parametrize("passed", [*((gate,) for gate in PASSABLE), tuple(PASSABLE)], ids=str)
async def test_an_emergency_passes_exactly_what_the_policy_names(
    place: Place, passed: tuple[Gate, ...]
) -> None:
    """With every gate closed, those that are named are not asked, and all others stand in its way."""
    place.configure(emergency=skipping(*passed))
    await close_every_gate(place)
    with pytest.raises(GatesClosed) as refusal:
        await break_glass(place, "15")
    closed = {each.gate for each in refusal.value.draft.answers.closed}
    assert closed == (ASKED | {Gate.BAD_VERSION}) - set(passed)


@pytest.mark.parametrize("passed", [(), (Gate.ORDER,), tuple(PASSABLE)], ids=str)
async def test_no_emergency_brings_a_build_that_nobody_knows(place: Place, passed: tuple[Gate, ...]) -> None:
    """16 is not in stage: whoever passes the order stands before the image, and that nobody passes."""
    place.configure(emergency=skipping(*(passed or (Gate.QUORUM,))))
    with pytest.raises(GatesClosed) as refusal:
        await break_glass(place, "16")
    closed = {each.gate for each in refusal.value.draft.answers.closed}
    assert (Gate.IMAGE in closed, Gate.ORDER in closed) == (bool(passed), not passed)


async def test_no_emergency_brings_a_blocked_version(place: Place) -> None:
    """Whatever burns: what somebody has called bad stays where it is."""
    place.configure(emergency=skipping(*PASSABLE))
    await block(place)
    with pytest.raises(GatesClosed, match="15 is blocked: loses orders"):
        await break_glass(place, "15")


@pytest.mark.parametrize(("passed", "phase"), [(Gate.QUORUM, Phase.COMMITTED), (Gate.SOAK, Phase.REQUESTED)])
async def test_approvals_are_needed_unless_the_policy_passes_them(
    place: Place, passed: Gate, phase: Phase
) -> None:
    """To pass the soak is not to pass the approvers."""
    place.configure(emergency=skipping(passed))
    promotion = await break_glass(place, "15")
    for _ in range(4):
        if (await place.world.find(promotion.id)).phase is not phase:
            await place.world.advance(promotion.id)
    assert (await place.world.find(promotion.id)).phase is phase
    assert len(place.world.commits(promotion.id)) == (phase is Phase.COMMITTED)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"user": DANA}, "You may not break glass"),
        ({"user": AMY}, "You may not break glass"),
        ({"reason": None}, "needs a reason and the incident"),
        ({"reason": " \n"}, "needs a reason and the incident"),
        ({"manner": Manner(incident=" ")}, "needs a reason and the incident"),
    ],
)
async def test_glass_is_broken_by_rescuers_who_say_why(place: Place, words: Any, says: str) -> None:
    """Nobody else, also no approver; and nobody without a reason and an incident."""
    with pytest.raises(Refused, match=says):
        await break_glass(place, "15", **words)
    assert await place.world.pending() == []


async def test_without_a_rule_there_is_no_glass(tmp_path: Path, redis_url: str) -> None:
    """Whoever wants one has to say so in promote.yaml."""
    async with world_in(tmp_path, redis_url) as world:
        with pytest.raises(Refused, match="Nobody may break glass for prod"):
            await world.promoter.request(
                app="manual-app", environment="prod", version="15", reason="why", user=MEL, manner=EMERGENCY
            )


# --- a rollback

ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "abc")


@dataclass
class Past:
    """What stood in prod before, as git tells it, with 17 there now."""

    world: World
    ids: dict[str, PromotionId]

    def configure(self, **rules: Any) -> None:
        """Rules for prod, on top of a rollback by Mel or by who is in the group."""
        world = self.world
        timing = {"rollout": {"stable_for": "5s", "degraded_grace": "8s", "timeout": "5m"}}
        plain = {
            "approvals": {"rules": [{"users": [AMY, BEN], "min": 1}]},
            "rollback": {"who": [MEL, GROUPS], "within": "24h"},
        }
        prod = {key: value for key, value in (plain | rules).items() if value is not None}
        catalog = world.configure(policies={"dev": timing, "stage": timing, "prod": timing | prod})
        world.parts = replace(world.parts, catalog=catalog)
        world.engine = world.new_engine()

    async def brought(self, version: str, digest: str, *, at: datetime) -> None:
        """The bot commits a version to prod; nothing of it is in the store."""
        world, target, by = self.world, self.world.target(), Signer(id=DANA, team=TEAM, name="Dana Ortiz")
        plan = await world.values.plan(target, version)
        promotion = request(
            target,
            id=new_id(),
            source="stage",
            version=version,
            old_version=plan.old_version,
            changes=plan.changes,
            digest=digest,
            by=by,
            at=at,
            reason="next",
        )
        edit = Edit(
            target=target,
            promotion=promotion.id,
            old=plan.old_version,
            new=version,
            digest=digest,
            message=trailers.message(promotion, target),
            author=Author(name=by.name, email=None),
            at=at,
            base=plan.base,
            since=at,
        )
        await world.values.commit(edit)
        self.ids[version] = promotion.id
        await world.store.create(promotion, delivery=None, holds=True)
        await self.ended(version, Phase.LIVE, Outcome.LIVE)

    async def ended(self, version: str, phase: Phase, outcome: Outcome | None) -> None:
        """Its rollout ended so."""
        before = await self.world.find(self.ids[version])
        event = Event(edition=before.edition + 1, at=NOON, what=phase.value, phase=phase)
        after = replace(
            before, edition=event.edition, phase=phase, outcome=outcome, last=event, revision="c" * 40
        )
        await self.world.store.save([Change(before=before, after=after)], holds=True)

    async def roll_back(self, *, user: str = MEL, version: str | None = None) -> Promotion:
        asked = self.world.promoter.roll_back(
            app="manual-app", environment="prod", version=version, reason="slow", user=user
        )
        made: Promotion = await self.world.moving(asked)
        return made


@pytest.fixture
async def past(tmp_path: Path, redis_url: str) -> AsyncIterator[Past]:
    """15, then 16, then 17 an hour ago; each with a digest, each was live."""
    async with world_in(tmp_path, redis_url) as world:
        made = Past(world, {})
        world.slack.add_group(GROUPS, handle="rollers", users=[])
        made.configure()
        for hours, version, digest in ((30, "15", ONE), (20, "16", TWO), (1, "17", THREE)):
            await made.brought(version, digest, at=NOON - hours * HOUR)
        yield made


async def test_the_version_before_comes_back_at_once(past: Past) -> None:
    """The control: proved, directly before, soon, by a roller; it needs nobody, and locks what it brought."""
    promotion = await past.roll_back()
    assert (promotion.way, promotion.version, promotion.digest) == (Way.AT_ONCE, "16", TWO)
    assert promotion.rollback_of == past.ids["17"]
    done = await past.world.advance_until(promotion.id, Phase.COMMITTED)
    assert (done.approvals, past.world.value()) == ((), "16")
    [lock] = await past.world.board.locks()
    assert (lock.scope, lock.after, lock.by) == (
        Scope(app="manual-app", environment="prod"),
        promotion.id,
        MEL,
    )


async def proved_by_nothing(past: Past) -> None:
    await past.brought("18", UNKNOWN, at=NOON - HOUR)
    await past.brought("19", ONE, at=NOON - HOUR)


async def long_ago(past: Past) -> None:
    past.world.clock.at = NOON + 23 * HOUR + timedelta(seconds=1)


async def degraded(past: Past) -> None:
    """Whatever is there crashes, as Argo CD sees it."""
    past.world.argocd.degrade_next_rollout("manual-app-prod")
    await past.world.roll_out("prod")


async def long_ago_and_degraded(past: Past) -> None:
    await degraded(past)
    past.world.clock.at = NOON + 48 * HOUR


async def at_the_very_end(past: Past) -> None:
    past.world.clock.at = NOON + 23 * HOUR


async def failed(past: Past) -> None:
    await past.ended("16", Phase.FAILED, Outcome.DEGRADED)


async def superseded(past: Past) -> None:
    await past.ended("16", Phase.SUPERSEDED, None)


async def recovered(past: Past) -> None:
    await failed(past)
    await past.world.store.save_look(past.ids["16"], Look(recovered="all pods are ready"))


async def join(past: Past) -> None:
    past.world.slack.workspace.groups[GROUPS].users = [DANA]


async def by_hand(past: Past) -> None:
    past.world.push_by_hand("prod", "18")


def rules(**different: Any) -> Callable[[Past], Awaitable[None]]:
    async def change(past: Past) -> None:
        past.configure(**different)

    return change


async def nothing(_: Past) -> None:
    """Only the words are different."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One condition that is another, who asks for what, and whether it goes at once."""

    change: Callable[[Past], Awaitable[object]] = nothing
    words: Mapping[str, Any]
    version: str = "16"
    is_light: bool = False


CASES = {
    "by nobody whom the rule names": Case(words={"user": DANA}),
    "by an approver": Case(words={"user": AMY}),
    "by one of the group": Case(change=join, words={"user": DANA}, is_light=True),
    "not directly before": Case(words={"version": "15"}, version="15"),
    "directly before, by its name": Case(words={"version": "16"}, is_light=True),
    "without a digest": Case(change=proved_by_nothing, words={}, version="18"),
    "at the end of the day": Case(change=at_the_very_end, words={}, is_light=True),
    "later": Case(change=long_ago, words={}),
    "later, while it is degraded": Case(change=long_ago_and_degraded, words={}, is_light=True),
    "to what failed": Case(change=failed, words={"version": "16"}),
    "past what failed": Case(change=failed, words={}, version="15"),
    "to what was never live": Case(change=superseded, words={"version": "16"}),
    "to what recovered": Case(change=recovered, words={"version": "16"}, is_light=True),
    "without a rule": Case(change=rules(rollback=None), words={}),
    "where nobody has to approve": Case(change=rules(approvals=None), words={}),
    "from what somebody wrote by hand": Case(change=by_hand, words={}, version="17", is_light=True),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_rollback_goes_at_once_only_where_each_condition_holds(past: Past, name: str) -> None:
    """One is broken at a time: what remains is a rollback with the ordinary approval."""
    case = CASES[name]
    await case.change(past)
    promotion = await past.roll_back(**case.words)
    assert (promotion.version, promotion.way) == (case.version, Way.AT_ONCE if case.is_light else None)
    needs_approval = past.world.target().policy.needs_approval and not case.is_light
    for _ in range(3):
        if (await past.world.find(promotion.id)).phase in (Phase.REQUESTED, Phase.APPROVED):
            await past.world.advance(promotion.id)
    assert bool(past.world.commits(promotion.id)) is not needs_approval


async def test_a_blocked_version_does_not_come_back(past: Past) -> None:
    """Neither at once nor with approvals: somebody has called it bad."""
    bad = BadVersion(app="manual-app", version="16", by=BEN, reason="loses orders", at=NOON)
    await past.world.board.block(bad)
    for user in (MEL, DANA):
        with pytest.raises(GatesClosed, match="16 is blocked: loses orders"):
            await past.roll_back(user=user)


async def leave_the_list(past: Past) -> None:
    past.configure(rollback={"who": [AMY], "within": "24h"})


async def leave_the_company(past: Past) -> None:
    past.world.slack.user(MEL).kind = "deactivated"


async def leave_the_group(past: Past) -> None:
    past.world.slack.workspace.groups[GROUPS].users = []


async def lock(past: Past) -> None:
    await past.world.board.lock(Lock(scope=Scope(), by=BEN, reason="a migration", at=NOON))


async def block_it(past: Past) -> None:
    bad = BadVersion(app="manual-app", version="16", by=BEN, reason="loses orders", at=NOON)
    await past.world.board.block(bad)


@pytest.mark.parametrize(
    ("user", "change", "says"),
    [
        (MEL, leave_the_list, "the configuration of its target or the rules for it changed"),
        (MEL, leave_the_company, "Mel Roth may not roll back at once any more"),
        (DANA, leave_the_group, "Dana Ortiz may not roll back at once any more"),
        (MEL, lock, "everything is locked: a migration"),
        (MEL, block_it, "16 is blocked: loses orders"),
    ],
)
async def test_a_rollback_at_once_is_checked_once_more_before_its_commit(
    past: Past, user: str, change: Callable[[Past], Awaitable[object]], says: str
) -> None:
    """A right that ended between the request and the commit counts no more, and so for what closed meanwhile."""
    await join(past)
    id = (await past.roll_back(user=user)).id
    await past.world.advance(id)
    assert (await past.world.find(id)).phase is Phase.APPROVED
    await change(past)
    await past.world.advance(id)
    promotion = await past.world.find(id)
    assert promotion.phase is Phase.STALE
    assert says in (promotion.ending or "")
    assert past.world.commits(id) == []


async def test_what_a_rollback_has_locked_another_one_passes(past: Past) -> None:
    """It goes further back, also the ordinary way; a promotion stays out until somebody unlocks."""
    await past.world.advance_until((await past.roll_back()).id, Phase.COMMITTED)
    further = await past.roll_back(user=DANA)
    assert further.way is None
    target = past.world.target()
    answers = await past.world.new_drafting().gatekeeper.ask(target, None, Image(version="17"))
    assert [each.gate for each in answers.closed] == [Gate.LOCKS]
    await past.world.promoter.approve(further.id, user=AMY)
    await past.world.advance_until(further.id, Phase.COMMITTED)
    assert past.world.value() == "15"


async def test_a_rollback_needs_no_argo_cd_that_answers(past: Past) -> None:
    """Where nobody can tell whether it is degraded, the ordinary way is still there."""
    await long_ago(past)
    await past.world.argocd.stop()
    assert (await past.roll_back()).way is None


async def test_each_way_has_its_own_target(past: Past) -> None:
    """Under its terms nobody has to approve a rollback at once; all others are bound by every rule."""
    at_once = await past.roll_back()
    target = past.world.target()
    assert target_for(at_once, target).policy.total == 0
    assert target_for(replace(at_once, way=None), target) == target
