"""Whatever the rules are: what is committed was approved by enough of the right people, as they are at the commit."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import NOON, PROD, approval, catalog, requested
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_invariants import fresh_world
from world import CHANNEL, TEAM, Clock, World

from bot.core import trailers
from bot.core.catalog import Catalog, Image, Source, Target
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.errors import Refused
from bot.core.membership import members_of, require_somebody
from bot.core.people import Person
from bot.core.policy import (
    ApprovalRule,
    CheckRule,
    Effect,
    EmergencyRule,
    Gate,
    Listed,
    Members,
    Policy,
    Probe,
    RollbackRule,
    Window,
)
from bot.core.ports import Author, Edit
from bot.core.promotion import Phase, Signer, new_id, request
from bot.core.rechecking import Rechecking
from chaos.drafts import drafting

PEOPLE = tuple(f"U0PERSON{letter}1" for letter in "ABCDEF")
GROUPS = ("S0GROUPONE1", "S0GROUPTWO1")
OLD = "13"

# --- rules and people

someone = st.sampled_from(PEOPLE)
some_people = st.frozensets(someone, max_size=4)
some_groups = st.frozensets(st.sampled_from(GROUPS), max_size=2)
listed = st.builds(Listed, users=st.frozensets(someone, max_size=2), groups=some_groups)
memberships = st.fixed_dictionaries(dict.fromkeys(GROUPS, some_people))
approval_rules = st.builds(
    ApprovalRule, users=some_people, groups=some_groups, minimum=st.integers(1, 3)
).filter(lambda rule: bool(rule.users or rule.groups))
policies = st.builds(
    Policy,
    rules=st.lists(approval_rules, min_size=1, max_size=3).map(tuple),
    total=st.integers(1, 4),
    denied=listed,
    commit_authors=st.booleans(),
    unknown_authors=st.just(value=True),
    last_requester=st.booleans(),
)
kinds = st.sampled_from(["member", "member", "member", "guest", "deactivated", "stranger", "bot"])


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Who approved what, and who everybody is by the time of the commit."""

    policy: Policy
    members: Members
    requester: str
    givers: tuple[str, ...]
    authors: frozenset[str] = frozenset()
    by_address: bool = False
    """Are the authors known by their addresses alone?"""
    last_requester: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    def kind(self, person: str) -> str:
        return self.kinds.get(person, "member")


situations = st.builds(
    Situation,
    policy=policies,
    members=memberships,
    requester=someone,
    givers=st.lists(someone, max_size=6, unique=True).map(tuple),
    authors=st.frozensets(someone, max_size=2),
    by_address=st.booleans(),
    last_requester=st.none() | someone,
    kinds=st.dictionaries(someone, kinds),
)


def who_counts(now: Situation) -> set[str]:
    """Reckoned anew, in the words of the rules: living people whom nothing excludes."""
    policy = now.policy
    excluded = {now.requester, *policy.denied.users}
    excluded |= {person for group in policy.denied.groups for person in now.members[group]}
    if not policy.commit_authors:
        excluded |= now.authors
    if not policy.last_requester and now.last_requester:
        excluded.add(now.last_requester)
    living = {giver for giver in now.givers if now.kind(giver) == "member"}
    named = {person for rule in policy.rules for person in named_by(rule, now.members)}
    return (living & named) - excluded


def named_by(rule: ApprovalRule, members: Members) -> set[str]:
    return set(rule.users).union(*(members[group] for group in rule.groups))


def is_enough(now: Situation) -> bool:
    """Each rule by its own number, and all together by different people."""
    counted = who_counts(now)
    each = all(len(counted & named_by(rule, now.members)) >= rule.minimum for rule in now.policy.rules)
    return each and len(counted) >= now.policy.total


# --- the core alone


def address_of(person: str) -> str:
    return f"{person.lower()}@acme.example"


@dataclass
class Everybody:
    """Slack's directory and the dossier's keeper, as a situation has them."""

    now: Situation
    asked: Counter[str] = field(default_factory=Counter)

    async def person(self, user: str) -> Person:
        self.asked[user] += 1
        kind = self.now.kind(user)
        flags = {f"is_{name}": kind == name for name in ("guest", "deactivated", "stranger", "bot")}
        return Person(id=user, team=TEAM, name=user, email=address_of(user).upper(), **flags)

    async def members(self, group: str) -> frozenset[str]:
        return frozenset(self.now.members[group])

    async def dossier(self, _id: str) -> Dossier:
        return dossier_of(self.now)


def dossier_of(now: Situation) -> Dossier:
    commits = tuple(
        Commit(
            revision=f"{place:040}",
            subject="s",
            author=author,
            email=address_of(author),
            user=None if now.by_address else author,
        )
        for place, author in enumerate(sorted(now.authors))
    )
    return Dossier(source=Commits(count=len(commits), newest=commits), last_requester=now.last_requester)


def signer(person: str) -> Signer:
    return Signer(id=person, team=TEAM, name=person)


def rechecking(now: Situation) -> Rechecking:
    """The checks before a commit, that ask people alone."""
    port: Any = Everybody(now)
    nobody: Any = None
    return Rechecking(
        catalog=catalog(),
        store=port,
        directory=port,
        values=nobody,
        images=nobody,
        clock=nobody,
        sealer=nobody,
        drafting=drafting(
            catalog=catalog(),
            values=nobody,
            cluster=nobody,
            board=nobody,
            directory=port,
            clock=Clock(),
            sealer=nobody,
        ),
        alarm=nobody,
    )


ONE_OF_A = ApprovalRule(users=frozenset({PEOPLE[0]}), groups=frozenset(), minimum=1)
TWO_OF_GROUP = ApprovalRule(users=frozenset(), groups=frozenset({GROUPS[0]}), minimum=2)
SOUND = Situation(
    policy=Policy(rules=(ONE_OF_A, TWO_OF_GROUP), total=2),
    members={GROUPS[0]: frozenset(PEOPLE[:3]), GROUPS[1]: frozenset()},
    requester=PEOPLE[5],
    givers=PEOPLE[:2],
)


@settings(max_examples=400)
@example(SOUND)
@example(replace(SOUND, policy=replace(SOUND.policy, total=3)))
@example(replace(SOUND, requester=PEOPLE[0]))
@example(replace(SOUND, kinds={PEOPLE[1]: "guest"}))
@example(replace(SOUND, members={GROUPS[0]: frozenset(PEOPLE[:1]), GROUPS[1]: frozenset()}))
@example(replace(SOUND, policy=replace(SOUND.policy, denied=Listed(users=frozenset({PEOPLE[0]})))))
@example(replace(SOUND, policy=replace(SOUND.policy, commit_authors=False), authors=frozenset({PEOPLE[0]})))
@example(
    replace(
        SOUND,
        policy=replace(SOUND.policy, commit_authors=False),
        authors=frozenset({PEOPLE[0]}),
        by_address=True,
    )
)
@example(replace(SOUND, policy=replace(SOUND.policy, last_requester=False), last_requester=PEOPLE[1]))
@given(situations)
async def test_the_commit_counts_exactly_who_may_approve_then(now: Situation) -> None:
    """Whoever is excluded, has left or is no longer named does not count; everybody else does, once."""
    target = replace(PROD, policy=now.policy)
    found = dossier_of(now).fingerprint
    promotion = requested(target, requested_by=signer(now.requester), dossier=found)
    approvals = tuple(approval(promotion, signer(giver)) for giver in now.givers)
    kept = await rechecking(now)._still_valid(replace(promotion, approvals=approvals), target)
    givers = [each.by.id for each in kept]
    assert len(givers) == len(set(givers))
    assert set(givers) == who_counts(now)
    members = await members_of(Everybody(now), now.policy.deciding_groups)  # type: ignore[arg-type]
    assert now.policy.is_satisfied(givers, members) is is_enough(now)


@given(situations, st.lists(someone, max_size=12))
def test_nobody_counts_twice(now: Situation, approvers: list[str]) -> None:
    """Neither by saying it again nor by being in two groups; and the denied not at all."""
    once = now.policy.is_satisfied(set(approvers), now.members)
    assert now.policy.is_satisfied(approvers, now.members) is once
    assert now.policy.is_satisfied([*approvers, *approvers], now.members) is once
    if once:
        assert len(set(approvers) - set(now.policy.denied.users)) >= now.policy.total


@given(situations, someone)
def test_one_more_yes_never_does_harm(now: Situation, another: str) -> None:
    """More approvals satisfy whatever fewer did; without any, a policy that asks for somebody is not."""
    assert not now.policy.is_satisfied([], now.members)
    if now.policy.is_satisfied(now.givers, now.members):
        assert now.policy.is_satisfied({*now.givers, another}, now.members)


# --- who could


@settings(max_examples=300)
@given(situations)
async def test_a_request_is_refused_exactly_where_nobody_could_approve_it(now: Situation) -> None:
    """If everybody said yes, would it be enough? Otherwise people would wait for nothing."""
    everybody: Any = Everybody(replace(now, givers=PEOPLE))
    never = frozenset(PEOPLE) - who_counts(replace(now, givers=PEOPLE, kinds={}))
    asked = require_somebody(everybody, now.policy, now.members, never=never, where="prod")
    if is_enough(replace(now, givers=PEOPLE)):
        await asked
        return
    with pytest.raises(Refused, match=r"^Nobody could approve this: prod needs "):
        await asked


@pytest.mark.parametrize("many", [99, 100, 101, 300])
async def test_a_large_group_hides_nobody_else(many: int) -> None:
    """However many people a group has, the one whom another rule names by id still counts."""
    group = frozenset(f"U0AAA{number:04}" for number in range(many))
    rules = (
        ApprovalRule(users=frozenset(), groups=frozenset({GROUPS[0]}), minimum=1),
        ApprovalRule(users=frozenset({"U0ZOE00001"}), groups=frozenset(), minimum=1),
    )
    everybody = Everybody(replace(SOUND, kinds={}))
    await require_somebody(
        everybody,  # type: ignore[arg-type]
        Policy(rules=rules, total=2),
        {GROUPS[0]: group},
        never=frozenset(),
        where="prod",
    )


# --- the fingerprint

RULE = ApprovalRule(users=frozenset({"U0AMY", "U0BEN"}), groups=frozenset({"S0SRE"}), minimum=2)
BEFORE = Policy(rules=(RULE,), total=2)
SOME = Listed(users=frozenset({"U0AMY"}))
GROUP = Listed(groups=frozenset({"S0SRE"}))
FREEZE = Window(effect=Effect.DENY, zone="UTC", begins=NOON, ends=NOON + timedelta(hours=1))
CRON = Window(effect=Effect.ALLOW, zone="UTC", cron="0 8 * * *", lasts=timedelta(hours=9))
ERRORS = Probe(name="errors", url="https://errors.example", query="sum(errors)", at_most=0.5)
GLASS = EmergencyRule(who=SOME, skips=frozenset({Gate.SOAK, Gate.WINDOWS}))
VALUES: Mapping[str, tuple[Any, ...]] = {
    "rules": (
        (),
        (replace(RULE, minimum=1),),
        (replace(RULE, users=frozenset({"U0AMY"})),),
        (replace(RULE, groups=frozenset()),),
        (RULE, RULE),
    ),
    "total": (1, 3),
    "waits": (timedelta(days=2),),
    "denied": (SOME, GROUP, Listed(users=SOME.users, groups=GROUP.groups)),
    "commit_authors": (False,),
    "unknown_authors": (True,),
    "last_requester": (False,),
    "notify": (SOME, GROUP),
    "requesters": (SOME, GROUP, Listed()),
    "lockers": (SOME, GROUP, Listed()),
    "soak": (timedelta(hours=1), timedelta(hours=2)),
    "checks": (
        (CheckRule(name="a"),),
        (CheckRule(name="b"),),
        (CheckRule(name="a"), CheckRule(name="b")),
        (CheckRule(name="a", reporters=SOME),),
    ),
    "probes": (
        (ERRORS,),
        *(
            (replace(ERRORS, **{name: value}),)
            for name, value in [("name", "e"), ("url", "https://e.example")]
        ),
        *((replace(ERRORS, **{name: value}),) for name, value in [("query", "1"), ("at_most", 0.6)]),
        (replace(ERRORS, at_least=0.1),),
        (replace(ERRORS, within=timedelta(seconds=2)),),
    ),
    "parity": (True,),
    "windows": (
        (FREEZE,),
        (replace(FREEZE, effect=Effect.ALLOW),),
        (replace(FREEZE, ends=NOON + timedelta(hours=2)),),
        (replace(FREEZE, begins=NOON - timedelta(hours=2)),),
        (replace(FREEZE, zone="Europe/Berlin"),),
        (CRON,),
        (replace(CRON, cron="0 9 * * *"),),
        (replace(CRON, lasts=timedelta(hours=8)),),
        (FREEZE, CRON),
    ),
    "rollback": (
        RollbackRule(who=SOME),
        RollbackRule(who=GROUP),
        RollbackRule(who=SOME, locks=False),
        RollbackRule(who=SOME, within=timedelta(hours=1)),
    ),
    "emergency": (
        GLASS,
        replace(GLASS, who=GROUP),
        replace(GLASS, skips=frozenset({Gate.SOAK})),
        replace(GLASS, skips=frozenset({Gate.QUORUM})),
    ),
}
NO_RULES = {"expires", "start_within"}


def test_a_policy_from_before_has_the_fingerprint_that_it_had() -> None:
    """What was approved before an update counts after it."""
    assert BEFORE.fingerprint == "sha256:661aa4ee8c3b4e5c609c93b472a18eaae93b267273f04681556f02cef6c5afc0"
    assert Policy().fingerprint == "sha256:078c4414e8299d5b4df50c2a690b329319826cffa6356472a36fc0ad6106f58a"


def test_the_fingerprint_of_every_rule_is_pinned() -> None:
    """With everything in it too: another release must not call the same rules others."""
    whole = replace(
        BEFORE, **{name: values[0] for name, values in VALUES.items() if name not in ("rules", "total")}
    )
    assert whole.fingerprint == "sha256:cae9754ed61184da91855589e7546ef0bdda9a3bd7ed94bcf1743cb5826a46a9"


def test_each_rule_that_is_another_changes_the_fingerprint() -> None:
    """No two of these policies are the same to an approval."""
    changed = [BEFORE, *(replace(BEFORE, **{name: each}) for name in VALUES for each in VALUES[name])]
    assert len({policy.fingerprint for policy in changed}) == len(changed)


def test_no_field_of_a_policy_is_forgotten() -> None:
    """A new rule has to be named here, and whether it binds."""
    assert {each.name for each in fields(Policy)} == VALUES.keys() | NO_RULES


@pytest.mark.parametrize("name", sorted(NO_RULES))
def test_how_long_something_may_take_is_no_rule(name: str) -> None:
    """Nobody would approve otherwise because of it."""
    changed: Any = {name: timedelta(minutes=7)}
    assert replace(BEFORE, **changed).fingerprint == BEFORE.fingerprint


class Backwards(frozenset[Any]):
    """The same set, that is gone through in another order, as in another process."""

    def __iter__(self) -> Any:
        return iter(sorted(super().__iter__(), key=str, reverse=True))


def test_the_order_in_a_set_does_not_matter() -> None:
    """Two processes go through the same set in different orders, and mean the same rules."""
    people, groups = ("U0AMY", "U0BEN", "U0CARA"), ("S0SRE", "S0DEV")
    gates = (Gate.SOAK, Gate.WINDOWS, Gate.LOCKS)

    def written(kind: Any) -> Policy:
        some = Listed(users=kind(people), groups=kind(groups))
        return Policy(
            rules=(ApprovalRule(users=kind(people), groups=kind(groups), minimum=1),),
            total=1,
            denied=some,
            notify=some,
            requesters=some,
            checks=(CheckRule(name="a", reporters=some),),
            rollback=RollbackRule(who=some),
            emergency=EmergencyRule(who=some, skips=kind(gates)),
        )

    assert list(Backwards(people)) != sorted(people)
    assert written(Backwards).fingerprint == written(frozenset).fingerprint


# --- the whole bot


@dataclass(frozen=True)
class History:
    """The app's own repository: whoever wrote what is brought."""

    commits: Commits

    async def between(self, _target: Target, _old: Image, _new: Image) -> Commits:
        """Always the same."""
        return self.commits


async def populate(world: World, now: Situation) -> None:
    """Everybody is a full member when it begins, with the groups as they are."""
    for person in PEOPLE:
        world.slack.add_user(person, name=person.lower(), real_name=person, email=address_of(person))
        world.slack.workspace.channels[CHANNEL].members.add(person)
    for group in GROUPS:
        world.slack.add_group(group, handle=group.lower(), users=sorted(now.members[group]))
    targets = tuple(
        replace(each, policy=now.policy) if each.environment == "prod" else each
        for each in world.parts.catalog.targets
    )
    world.parts = replace(world.parts, catalog=replace(world.parts.catalog, targets=targets))
    source = dossier_of(now).source
    assert source is not None
    world.sources = History(source)  # type: ignore[assignment]
    if not now.policy.commit_authors:
        world.parts = replace(world.parts, catalog=with_source(world))
    world.engine = world.new_engine()


def with_source(world: World) -> Catalog:
    """The catalog of a file that says where the app is built from."""
    source = Source(url="https://git.example.com/acme/manual-app.git")
    targets = tuple(replace(each, source=source) for each in world.parts.catalog.targets)
    return replace(world.parts.catalog, targets=targets)


async def asked_before(world: World, person: str) -> None:
    """What is in prod now was asked for by this person."""
    target = world.target()
    plan = await world.values.plan(target, OLD)
    promotion = request(
        target,
        id=new_id(),
        source="stage",
        version=OLD,
        old_version=plan.old_version,
        changes=plan.changes,
        by=signer(person),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        reason=None,
    )
    await world.values.commit(
        Edit(
            target=target,
            promotion=promotion.id,
            old=plan.old_version,
            new=OLD,
            message=trailers.message(promotion, target),
            author=Author(name=person, email=None),
            at=promotion.requested_at,
            base=plan.base,
            since=promotion.requested_at,
        )
    )


async def approve(world: World, id: str, givers: Iterable[str]) -> None:
    for giver in givers:
        with contextlib.suppress(Refused):
            await world.promoter.approve(id, user=giver)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@example(now=SOUND, later=SOUND.members, left="guest")
@example(now=SOUND, later=SOUND.members, left="")
@example(now=SOUND, later={GROUPS[0]: frozenset(PEOPLE[:1]), GROUPS[1]: frozenset()}, left="")
@example(
    now=replace(SOUND, policy=replace(SOUND.policy, last_requester=False), last_requester=PEOPLE[1]),
    later=SOUND.members,
    left="",
)
@example(
    now=replace(SOUND, policy=replace(SOUND.policy, commit_authors=False), authors=frozenset({PEOPLE[1]})),
    later=SOUND.members,
    left="",
)
@given(now=situations, later=memberships, left=st.sampled_from(["", "", "guest", "deactivated"]))
async def test_what_is_committed_was_approved_by_the_right_people(
    redis_url: str, now: Situation, later: Members, left: str
) -> None:
    """Asked, approved by whoever tried, then people move; a commit is on the branch only where it is still enough."""
    now = replace(now, kinds={})
    everybody = is_enough(replace(now, givers=PEOPLE))
    async with fresh_world(redis_url) as world:
        await populate(world, now)
        if now.last_requester:
            await asked_before(world, now.last_requester)
        if not everybody:
            with pytest.raises(Refused, match="Nobody could approve this"):
                await world.request(user=now.requester)
            return
        id = await world.request(user=now.requester)
        await approve(world, id, now.givers)
        given = [each.by.id for each in (await world.find(id)).approvals]
        assert set(given) == who_counts(now)
        await world.advance(id)
        assert ((await world.find(id)).phase is Phase.APPROVED) is is_enough(now)
        for group, members in later.items():
            world.slack.workspace.groups[group].users = sorted(members)
        if left and given:
            world.slack.user(given[0]).kind = left  # type: ignore[assignment]
        gone = {given[0]: left} if left and given else {}
        by_then = replace(now, givers=tuple(given), members=later, kinds=gone)
        for _ in range(2):
            if not (await world.find(id)).phase.is_final:
                await world.advance(id)
        assert len(world.commits(id)) == int(is_enough(now) and is_enough(by_then))
