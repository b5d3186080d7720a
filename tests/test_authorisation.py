"""Every action, for every kind of person, in every phase: who passes, who does not, and what each of them reads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from builders import approval, requested
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from test_manual_sync import asked_to_sync, looked
from world import AMY, BOT_TOKEN, DANA, TEAM, World, world_in

from bot.core.asking import Manner
from bot.core.board import BadVersion, Lock, Scope
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.errors import NoGroup, Refused, Unavailable
from bot.core.people import PERMISSIONS, Action, Person, Role, may, roles, standing
from bot.core.policy import ApprovalRule, CheckRule, EmergencyRule, Gate, Listed, Policy, RollbackRule
from bot.core.ports import Change
from bot.core.promotion import (
    HOLDING,
    Decision,
    LineChange,
    Phase,
    Promotion,
    Terms,
    Way,
    new_id,
    request,
)
from bot.core.rollout import Stage
from bot.core.seals import request_words
from bot.integrations import argocd_sync
from bot.integrations.slack import SlackDirectory, web_client
from bot.playground.slack.fake import FakeSlack

# --- the people

APPROVERS, KEEPERS, CONTRACTORS = "S0APPROVERS", "S0KEEPERS00", "S0CONTRACTS"


@dataclass(frozen=True)
class Kind:
    """A kind of person: what may be done by it, and why it may not decide although a rule names it."""

    id: str
    may: str = ""
    never: Mapping[str, str] = field(default_factory=dict)

    def has(self, action: str) -> bool:
        """Has it the right, where the phase allows it?"""
        return action in self.may.split(", ")


ASKS = "request, replace, ask again, roll back"
DECIDES = "approve, reject, cancel, sync, review"
ALL_BUT_APPROVE = DECIDES.removeprefix("approve, ")
KEEPS = "lock, unlock, block, unblock"
OWN = "You asked for manual-app 15 to prod, so somebody else must"
WROTE = "You wrote one of the commits of manual-app 15 to prod, so somebody else must"
LAST = "You asked for what manual-app 15 to prod replaces, so somebody else must"
DENIED = "and promote.yaml keeps you out (deny)"

MEMBERS = {
    "requester": Kind("U0REQUEST01", f"{ASKS}, cancel, sync", {"approve": OWN, "reject": OWN, "review": OWN}),
    "requester who is an approver": Kind(
        "U0REQUEST02", f"{ASKS}, cancel, sync", {"approve": OWN, "reject": OWN, "review": OWN}
    ),
    "approver who has approved": Kind("U0APPROVE01", f"{DECIDES}, withdraw"),
    "approver by id": Kind("U0APPROVE02", DECIDES),
    "approver by group": Kind("U0APPROVE03", DECIDES),
    "approver who is an author, by id": Kind("U0AUTHORS01", ALL_BUT_APPROVE, {"approve": WROTE}),
    "approver who is an author, by address": Kind("U0AUTHORS02", ALL_BUT_APPROVE, {"approve": WROTE}),
    "approver who asked last": Kind("U0LASTREQ01", ALL_BUT_APPROVE, {"approve": LAST}),
    "approver who is denied by id": Kind("U0DENIED001", "", dict.fromkeys(DECIDES.split(", "), DENIED)),
    "approver who is denied by group": Kind("U0DENIED002", "", dict.fromkeys(DECIDES.split(", "), DENIED)),
    "asker": Kind("U0ASKER0001", ASKS),
    "keeper by id": Kind("U0KEEPER001", KEEPS),
    "keeper by group": Kind("U0KEEPER002", KEEPS),
    "reporter": Kind("U0REPORTER1", "report a check"),
    "roller": Kind("U0ROLLER001", "roll back, roll back at once"),
    "rescuer": Kind("U0RESCUER01", "break glass, review"),
    "plain member": Kind("U0MEMBER001"),
}
"""Full members; each has the one standing that its name tells."""

GIVER = MEMBERS["approver who has approved"].id
OWN_APPROVER = "requester who is an approver"
OUTSIDERS = {
    "guest": (Kind("U0GUEST0001"), "guests may not promote"),
    "single-channel guest": (Kind("U0GUEST0002"), "guests may not promote"),
    "stranger of a shared channel": (Kind("U0STRANGER1"), "you are from another workspace"),
    "member of another workspace": (Kind("U0STRANGER2"), "you are from another workspace"),
    "bot": (Kind("U0ROBOT0001"), "bots may not promote"),
    "somebody who has left": (Kind("U0LEFT00001"), "your account is deactivated"),
    "somebody Slack does not know": (Kind("U0UNKNOWN01"), "your account is deactivated"),
}
"""Everybody else; the policy names each of them for everything."""

KINDS = {
    "U0GUEST0001": "guest",
    "U0GUEST0002": "single_channel_guest",
    "U0STRANGER1": "stranger",
    "U0ROBOT0001": "bot",
    "U0LEFT00001": "deactivated",
}


def ids(*names: str) -> frozenset[str]:
    """Those of the members with these names, and of all outsiders."""
    return frozenset({*(MEMBERS[name].id for name in names), *(kind.id for kind, _ in OUTSIDERS.values())})


def listed(*names: str, groups: tuple[str, ...] = ()) -> Listed:
    return Listed(users=ids(*names), groups=frozenset(groups))


NAMED = [name for name in MEMBERS if "approver" in name and name != "approver by group"]
CHECK = CheckRule(name="accepted", reporters=listed("reporter"))
POLICY = Policy(
    rules=(ApprovalRule(users=ids(*NAMED), groups=frozenset({APPROVERS}), minimum=1),),
    total=1,
    denied=Listed(
        users=frozenset({MEMBERS["approver who is denied by id"].id}), groups=frozenset({CONTRACTORS})
    ),
    commit_authors=False,
    unknown_authors=True,
    last_requester=False,
    requesters=listed("requester", "requester who is an approver", "asker"),
    lockers=listed("keeper by id", groups=(KEEPERS,)),
    rollback=RollbackRule(who=listed("roller"), within=timedelta(hours=24)),
    emergency=EmergencyRule(who=listed("rescuer"), skips=frozenset({Gate.QUORUM})),
)
DOSSIER = Dossier(
    source=Commits(
        count=2,
        newest=(
            Commit(
                revision="a" * 40,
                subject="Fix the till",
                author="An author",
                email="private@example.com",
                user=MEMBERS["approver who is an author, by id"].id,
            ),
            Commit(
                revision="b" * 40, subject="Fix it again", author="Another", email="U0AUTHORS02@Acme.Example"
            ),
        ),
    ),
    last_requester=MEMBERS["approver who asked last"].id,
)


def populate(slack: FakeSlack) -> None:
    """Everybody whom Slack knows, with an address that is their id."""
    everybody = [*MEMBERS.values(), *(kind for kind, _ in OUTSIDERS.values())]
    for id in (kind.id for kind in everybody if kind.id != "U0UNKNOWN01"):
        kind: Any = KINDS.get(id, "member")
        slack.add_user(id, name=id.lower(), real_name=id, email=f"{id}@acme.example".lower(), kind=kind)
    slack.user("U0STRANGER2").team = "T0ELSEWHERE"
    slack.add_group(APPROVERS, handle="approvers", users=[MEMBERS["approver by group"].id])
    slack.add_group(KEEPERS, handle="keepers", users=[MEMBERS["keeper by group"].id])
    slack.add_group(CONTRACTORS, handle="contractors", users=[MEMBERS["approver who is denied by group"].id])


# --- the world they act in


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """The policy above holds for prod."""
    async with world_in(tmp_path, redis_url) as made:
        populate(made.slack)
        govern(made, POLICY)
        yield made


def govern(world: World, policy: Policy) -> None:
    """Let these be the rules of prod."""
    targets = tuple(
        replace(each, policy=policy) if each.environment == "prod" else each
        for each in world.parts.catalog.targets
    )
    world.parts = replace(world.parts, catalog=replace(world.parts.catalog, targets=targets))


@pytest.fixture
def recorded(redis_url: str) -> Iterator[Recorded]:
    with Redis.from_url(redis_url) as raw:
        yield Recorded(raw)


class Recorded:
    """All that the store holds: compared, and put back to how it was.

    Dossiers alone do not count: each is kept just before its request, which may be refused then.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._before: dict[bytes, bytes] = {}

    def keep(self) -> None:
        """Remember how it is now."""
        self._before = self._now()

    def is_same(self) -> bool:
        """Is every record as it was, byte by byte?"""
        return self._now() == self._before

    def put_back(self) -> None:
        """Make it what it was."""
        for name in self._now():
            self._raw.delete(name)
        for name, value in self._before.items():
            self._raw.restore(name, 0, value)

    def forget(self) -> None:
        """Make it empty."""
        self._raw.flushall()

    def _now(self) -> dict[bytes, bytes]:
        names = sorted(name for name in self._raw.scan_iter() if not name.endswith(b":dossier"))
        return {name: self._raw.dump(name) for name in names}


async def asked(world: World, by: str, *, way: Way | None = None) -> Promotion:
    """A request for 15 in prod, of which is known who wrote it, and who asked for what it replaces."""
    target, signer = world.target(), (await world.parts.directory.person(by)).signer
    promotion = request(
        target,
        id=new_id(),
        source="stage",
        version="15",
        old_version="14",
        changes=(LineChange(path=target.path, number=3, before='  tag: "14"', after='  tag: "15"'),),
        by=signer,
        at=world.clock.now(),
        reason="fixes INC-42",
        terms=Terms(way=way, incident="INC-42" if way else None, dossier=DOSSIER.fingerprint),
    )
    seal = world.parts.sealer.seal(
        id=promotion.id,
        content_hash=promotion.content_hash,
        by=signer,
        decision=Decision.REQUEST,
        at=promotion.requested_at,
        said=request_words(promotion),
    )
    sealed = replace(promotion, request_seal=seal)
    await world.store.save_dossier(sealed.id, DOSSIER)
    await world.store.create(sealed, delivery=None, holds=True)
    return sealed


Step = Callable[[Promotion, datetime], Promotion]
QUORUM: Step = lambda promotion, at: promotion.reach_quorum(at=at, link=None)  # noqa: E731
BEGIN: Step = lambda promotion, at: promotion.start_commit(at=at, base="b" * 40)  # noqa: E731
COMMIT: Step = lambda promotion, at: promotion.commit(at=at, revision="c" * 40)  # noqa: E731
PATHS: dict[Phase, tuple[Step, ...]] = {
    Phase.REQUESTED: (),
    Phase.APPROVED: (QUORUM,),
    Phase.COMMITTING: (QUORUM, BEGIN),
    Phase.COMMITTED: (QUORUM, BEGIN, COMMIT),
    Phase.LIVE: (QUORUM, BEGIN, COMMIT, lambda promotion, at: promotion.go_live(at=at, why="it runs")),
    Phase.FAILED: (QUORUM, BEGIN, COMMIT, lambda promotion, at: promotion.fail(at=at, why="it crashed")),
    Phase.REJECTED: (lambda promotion, at: promotion.reject(by=GIVER, at=at, why="no"),),
    Phase.EXPIRED: (lambda promotion, at: promotion.expire(at=at, why="time is up"),),
    Phase.CANCELLED: (lambda promotion, at: promotion.cancel(by=GIVER, at=at, why=None),),
    Phase.SUPERSEDED: (lambda promotion, at: promotion.supersede(at=at, why="a newer one came"),),
    Phase.STALE: (lambda promotion, at: promotion.outdate(at=at, why="it changed"),),
}


async def brought_to(world: World, phase: Phase, promotion: Promotion) -> Promotion:
    """The promotion after these steps, each of them saved."""
    for step in PATHS[phase]:
        after = step(promotion, world.clock.now())
        await world.store.save([Change(before=promotion, after=after)], holds=True)
        promotion = after
    return promotion


# --- what they try


def attempts(world: World, id: str, user: str) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every action that has to do with a promotion, as this person tries it."""
    promoter = world.promoter
    ask = partial(
        promoter.request, app="manual-app", environment="prod", version="15", reason="slow", user=user
    )
    return {
        Action.REQUEST: ask,
        Action.REPLACE: partial(ask, manner=Manner(replaces=True)),
        Action.EMERGENCY: partial(ask, manner=Manner(incident="INC-42")),
        Action.ASK_AGAIN: partial(promoter.ask_again, id, user=user),
        Action.ROLL_BACK: partial(promoter.roll_back_from, id, user=user),
        Action.APPROVE: partial(promoter.approve, id, user=user),
        Action.REJECT: partial(promoter.reject, id, user=user, why="too slow"),
        Action.WITHDRAW: partial(promoter.withdraw, id, user=user),
        Action.CANCEL: partial(promoter.cancel, id, user=user),
        Action.SYNC: partial(promoter.sync, id, user=user),
        Action.REVIEW: partial(promoter.review, id, user=user),
    }


def keeping(world: World, user: str) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every action that keeps others back, or vouches for a version, as this person tries it."""
    keeper, scope = world.keeper, Scope(environment="prod")
    return {
        Action.LOCK: partial(keeper.lock, scope, user=user, reason="a sale"),
        Action.UNLOCK: partial(keeper.unlock, scope, user=user),
        Action.BLOCK: partial(keeper.block, "manual-app", "15", user=user, reason="slow"),
        Action.UNBLOCK: partial(keeper.unblock, "manual-app", "13", user=user),
        Action.REPORT: partial(keeper.report_check, "manual-app", "15", "accepted", passed=True, user=user),
    }


async def answer(world: World, recorded: Recorded, attempt: Callable[[], Awaitable[object]]) -> str:
    """What the person reads, empty where it was done; then everything is as it was."""
    says = ""
    try:
        await world.moving(attempt())
    except Refused as refused:
        says = str(refused)
    assert recorded.is_same() is bool(says), says or "it was done, and nothing was recorded"
    recorded.put_back()
    return says


# --- what they should read

ASKED = "promotions of manual-app to prod"
SAYS: dict[str, str] = {
    Action.REQUEST: f"You may not request {ASKED}: only those whom promote.yaml names (requesters) may.",
    Action.REPLACE: f"You may not request {ASKED}: only those whom promote.yaml names (requesters) may.",
    Action.ASK_AGAIN: f"You may not request {ASKED}: only those whom promote.yaml names (requesters) may.",
    Action.EMERGENCY: f"You may not break glass for {ASKED}: only those whom promote.yaml names (emergency) may.",
    Action.ROLL_BACK: "You may not roll back manual-app 15 to prod: only those whom promote.yaml names "
    "(requesters, rollback) may.",
    Action.APPROVE: "You may not approve manual-app 15 to prod: only its approvers may",
    Action.REJECT: "You may not reject manual-app 15 to prod: only its approvers may",
    Action.CANCEL: "You may not cancel manual-app 15 to prod: only its requester or its approvers may",
    Action.SYNC: "You may not sync manual-app 15 to prod: only its requester or its approvers may",
    Action.WITHDRAW: "You have not approved manual-app 15 to prod, so there is nothing to withdraw.",
    Action.REVIEW: "You may not review manual-app 15 to prod: only its approvers or those whom promote.yaml names "
    "(emergency) may",
    Action.LOCK: "You may not lock manual-app/prod: only those whom promote.yaml names (lockers) may.",
    Action.UNLOCK: "You may not unlock manual-app/prod: only those whom promote.yaml names (lockers) may.",
    Action.BLOCK: "You may not block manual-app/prod: only those whom promote.yaml names (lockers) may.",
    Action.UNBLOCK: "You may not unblock manual-app/prod: only those whom promote.yaml names (lockers) may.",
    Action.REPORT: "You may not report a check on manual-app 15 in stage: only those whom promote.yaml names "
    "(reporters) may.",
}
"""What somebody reads who has not the right."""

ENDED = frozenset(phase for phase in Phase if phase.is_final)
FREE = frozenset(Phase) - HOLDING
OPEN_IN: dict[str, tuple[frozenset[Phase], str]] = {
    Action.REQUEST: (FREE, "manual-app in prod is held by"),
    Action.REPLACE: (FREE, "manual-app in prod is held by"),
    Action.EMERGENCY: (frozenset(Phase) - {Phase.COMMITTING}, "manual-app in prod is held by"),
    Action.ASK_AGAIN: (ENDED, "is still open"),
    Action.ROLL_BACK: (frozenset(), "prod holds 14 now, not 15."),
    Action.APPROVE: (frozenset({Phase.REQUESTED}), "You cannot approve"),
    Action.REJECT: (frozenset({Phase.REQUESTED}), "You cannot reject"),
    Action.WITHDRAW: (frozenset({Phase.REQUESTED}), "You cannot withdraw from"),
    Action.CANCEL: (frozenset({Phase.REQUESTED, Phase.APPROVED}), "It is too late to cancel"),
    Action.SYNC: (frozenset(), "No application of"),
    Action.REVIEW: (frozenset(), "was no emergency, so there is nothing to review."),
}
"""In which phases it can be done by those who may, and what they read in all others."""


def expected(kind: Kind, action: str, phase: Phase) -> str:
    """What this kind of person reads, in part; empty where it is done."""
    phases, otherwise = OPEN_IN[action]
    if action == Action.ASK_AGAIN and phase not in phases:
        return otherwise  # whoever may not ask either: nothing is kept from members
    if not kind.has(action):
        return kind.never.get(action, SAYS[action])
    if (kind.id, action, phase) == (GIVER, Action.APPROVE, Phase.REQUESTED):
        return "You have already approved"
    return "" if phase in phases else otherwise


def same(found: str, wanted: str) -> bool:
    """Does it say this? Nothing is only the same as nothing."""
    return found == wanted if not wanted else wanted in found


# --- every action, for everybody, in every phase


@pytest.mark.parametrize("phase", Phase)
async def test_a_promotion_is_open_to_whom_the_table_names_in_the_phases_that_allow_it(
    world: World, recorded: Recorded, phase: Phase
) -> None:
    """Everybody tries everything: who may not reads why, and nothing at all is recorded; who may, does it."""
    others = [name for name in MEMBERS if name != OWN_APPROVER]
    for requester, names in ((OWN_APPROVER, [OWN_APPROVER]), ("requester", others)):
        recorded.forget()
        promotion = await asked(world, MEMBERS[requester].id)
        await brought_to(world, phase, await world.promoter.approve(promotion.id, user=GIVER))
        recorded.keep()
        for name in names:
            for action, attempt in attempts(world, promotion.id, MEMBERS[name].id).items():
                found, wanted = await answer(world, recorded, attempt), expected(MEMBERS[name], action, phase)
                assert same(found, wanted), f"{name}, {action}, {phase}: {found!r}, not {wanted!r}"
    for name, (outsider, why) in OUTSIDERS.items():
        for action, attempt in attempts(world, promotion.id, outsider.id).items():
            found = await answer(world, recorded, attempt)
            assert found == closed_to(why), f"{name}, {action}, {phase}: {found!r}"


def closed_to(why: str) -> str:
    """What an outsider reads, whatever it is about."""
    return f"You may not do that: {why}. Ask a full member of the workspace."


@pytest.mark.parametrize("phase", [Phase.COMMITTED, Phase.LIVE, Phase.FAILED])
async def test_an_emergency_is_reviewed_by_an_approver_or_another_rescuer(
    world: World, recorded: Recorded, phase: Phase
) -> None:
    """Once its commit is there; never by whoever broke the glass, nor by anybody else."""
    for requester in ("requester", "rescuer"):
        recorded.forget()
        promotion = await asked(world, MEMBERS[requester].id, way=Way.EMERGENCY)
        await brought_to(world, phase, promotion)
        recorded.keep()
        for name, kind in MEMBERS.items():
            review = partial(world.promoter.review, promotion.id, user=kind.id)
            found, wanted = await answer(world, recorded, review), SAYS[Action.REVIEW]
            if name == requester:
                wanted = (
                    f"{OWN} review. Ask one of its approvers or those whom promote.yaml names (emergency)."
                )
            elif kind.has(Action.REVIEW) or name == OWN_APPROVER:
                wanted = ""
            elif "denied" in name:
                wanted = DENIED
            assert same(found, wanted), f"{name}, {phase}: {found!r}, not {wanted!r}"
        for outsider, why in OUTSIDERS.values():
            review = partial(world.promoter.review, promotion.id, user=outsider.id)
            assert await answer(world, recorded, review) == closed_to(why)


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING, Phase.CANCELLED])
async def test_an_emergency_without_a_commit_is_not_reviewed(
    world: World, recorded: Recorded, phase: Phase
) -> None:
    """There is nothing to look at yet, or there never will be."""
    promotion = await asked(world, MEMBERS["requester"].id, way=Way.EMERGENCY)
    await brought_to(world, phase, promotion)
    recorded.keep()
    review = partial(world.promoter.review, promotion.id, user=GIVER)
    assert "There is nothing to review of" in await answer(world, recorded, review)


async def test_only_an_asker_takes_the_place_of_a_request_that_nobody_approved(
    world: World, recorded: Recorded
) -> None:
    """The older request ends; without `--replace`, and for everybody else, it stays."""
    promotion = await asked(world, MEMBERS["requester"].id)
    recorded.keep()
    for name, kind in MEMBERS.items():
        tries = attempts(world, promotion.id, kind.id)
        may = kind.has(Action.REPLACE)
        assert same(
            await answer(world, recorded, tries[Action.REPLACE]), "" if may else SAYS[Action.REPLACE]
        ), name
        wanted = "manual-app in prod is held by" if may else SAYS[Action.REQUEST]
        assert same(await answer(world, recorded, tries[Action.REQUEST]), wanted), name


# --- locks, bad versions and verdicts


async def test_keeping_back_and_vouching_is_open_to_whom_the_table_names(
    world: World, recorded: Recorded
) -> None:
    """Everybody tries everything: who may not reads why, and nothing at all is recorded; who may, does it."""
    govern(world, replace(POLICY, checks=(CHECK,)))
    now, keeper = world.clock.now(), MEMBERS["keeper by id"].id
    await world.board.lock(Lock(scope=Scope(environment="prod"), by=keeper, reason="a sale", at=now))
    await world.board.block(BadVersion(app="manual-app", version="13", by=keeper, reason="slow", at=now))
    world.passes(1)
    recorded.keep()
    for name, kind in MEMBERS.items():
        for action, attempt in keeping(world, kind.id).items():
            found, wanted = await answer(world, recorded, attempt), SAYS[action]
            assert same(found, "" if kind.has(action) else wanted), f"{name}, {action}: {found!r}"
    for name, (outsider, why) in OUTSIDERS.items():
        for action, attempt in keeping(world, outsider.id).items():
            found = await answer(world, recorded, attempt)
            assert found == closed_to(why), f"{name}, {action}: {found!r}"


@pytest.mark.parametrize("phase", Phase)
async def test_who_waits_for_a_version_does_not_vouch_for_it(
    world: World, recorded: Recorded, phase: Phase
) -> None:
    """A reporter who asked for it reads why, as long as the request is open; then they are one like any other."""
    reporter = MEMBERS["reporter"].id
    govern(world, replace(POLICY, checks=(CHECK,)))
    await brought_to(world, phase, await asked(world, reporter))
    recorded.keep()
    found = await answer(world, recorded, keeping(world, reporter)[Action.REPORT])
    wanted = f"{OWN} report a check. Ask one of those whom promote.yaml names (reporters)."
    assert found == (wanted if phase.holds else "")


# --- what begins a sync or a rollback


async def committed(world: World, by: str, *, version: str = "15") -> str:
    """A promotion to prod whose commit is on the branch, made under the world's own rules."""
    id = await world.request(version=version, user=by)
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    return (await world.advance_until(id, Phase.COMMITTED)).id


@pytest.mark.parametrize("name", ["requester", "approver by id", "approver by group"])
async def test_only_whom_the_table_names_has_argo_cd_sync(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Argo CD hears nothing of everybody else who presses; then it hears of the one who may."""
    monkeypatch.setattr(argocd_sync, "LOOK_EVERY", 0.01)
    async with world_in(tmp_path, redis_url, automated=False) as world:
        populate(world.slack)
        world.argocd.access.grant("applications, sync, default/manual-app-prod")
        id = await committed(world, MEMBERS["requester"].id)
        await looked(world, id, Stage.UNSYNCED)
        govern(world, POLICY)
        everybody = [*MEMBERS.values(), *(kind for kind, _ in OUTSIDERS.values())]
        for kind in everybody:
            if not kind.has(Action.SYNC) and kind.id != MEMBERS[OWN_APPROVER].id:
                with pytest.raises(Refused, match=r"^You may not "):
                    await world.promoter.sync(id, user=kind.id)
        assert asked_to_sync(world) == 0
        asked = await moving_argo_cd(world, world.promoter.sync(id, user=MEMBERS[name].id))
        assert (asked.last.what, asked.last.by) == ("sync", MEMBERS[name].id)
        assert asked_to_sync(world) > 0


async def moving_argo_cd(world: World, work: Awaitable[Promotion]) -> Promotion:
    """Do it, and let Argo CD's time pass as long as it takes."""
    task = asyncio.ensure_future(work)

    def is_done() -> bool:
        world.passes(0.05)
        return task.done()

    await world.until(is_done, "it comes to an end", seconds=20)
    return task.result()


async def test_only_a_roller_rolls_back_without_an_approval(
    tmp_path: Path, redis_url: str, recorded: Recorded
) -> None:
    """Askers ask for the ordinary approval, by the button and typed; everybody else reads why not."""
    async with world_in(tmp_path, redis_url) as world:
        populate(world.slack)
        await world.rest(await committed(world, DANA))
        await world.advance_until(await world.request("stage"), Phase.LIVE)
        id = await committed(world, DANA, version="16")
        await world.rest(id)
        govern(world, POLICY)
        recorded.keep()
        for name, kind in MEMBERS.items():
            for attempt in (
                partial(world.promoter.roll_back, app="manual-app", environment="prod", user=kind.id),
                partial(world.promoter.roll_back_from, id, user=kind.id),
            ):
                if kind.has(Action.ROLL_BACK):
                    back = await world.moving(attempt())
                    at_once = Way.AT_ONCE if kind.has(Action.ROLL_BACK_AT_ONCE) else None
                    assert (back.version, back.way) == ("15", at_once), name
                    recorded.put_back()
                else:
                    assert "You may not roll back" in await answer(world, recorded, attempt), name


# --- groups


GROUP_OF = {
    Role.APPROVER: APPROVERS,
    Role.KEEPER: KEEPERS,
    Role.ASKER: "S0ASKERS000",
    Role.ROLLER: "S0ROLLERS00",
    Role.RESCUER: "S0RESCUERS0",
    Role.REPORTER: "S0REPORTERS",
}


def by_groups_alone() -> Policy:
    """Rules that name nobody by id: each right has a user group of its own."""
    who = {role: Listed(groups=frozenset({group})) for role, group in GROUP_OF.items()}
    return replace(
        POLICY,
        rules=(ApprovalRule(users=frozenset(), groups=who[Role.APPROVER].groups, minimum=1),),
        denied=Listed(),
        requesters=who[Role.ASKER],
        lockers=who[Role.KEEPER],
        checks=(CheckRule(name="accepted", reporters=who[Role.REPORTER]),),
        rollback=RollbackRule(who=who[Role.ROLLER], within=timedelta(hours=24)),
        emergency=EmergencyRule(who=who[Role.RESCUER], skips=frozenset({Gate.QUORUM})),
    )


BY_GROUP = [
    (action, role)
    for action, row in PERMISSIONS.items()
    for role in sorted(row.to & GROUP_OF.keys())
    if action is not Action.ROLL_BACK_AT_ONCE
]


@pytest.mark.parametrize(("action", "role"), BY_GROUP)
async def test_a_right_by_group_is_there_as_long_as_slack_says_so(
    world: World, recorded: Recorded, action: Action, role: Role
) -> None:
    """A member of the group passes; one who left it does not; and where nobody can tell, nothing is recorded."""
    member, other = MEMBERS["plain member"].id, MEMBERS["approver by group"].id
    for group in GROUP_OF.values():
        world.slack.add_group(group, handle=group.lower(), users=[other])
    world.slack.group(GROUP_OF[role]).users = [other, member]
    govern(world, by_groups_alone())
    promotion = await brought_to(world, Phase.EXPIRED, await asked(world, DANA))
    recorded.keep()
    attempt = (attempts(world, promotion.id, member) | keeping(world, member))[action]
    assert not (await answer(world, recorded, attempt)).startswith("You may not"), "a member of the group"
    world.slack.faults.errors["usergroups.users.list"] = "fatal_error"
    with pytest.raises(Unavailable, match="Slack is not available"):
        await world.moving(attempt())
    assert recorded.is_same()
    world.slack.faults.errors.clear()
    world.slack.group(GROUP_OF[role]).users = [other]
    assert (await answer(world, recorded, attempt)).startswith("You may not"), "one who left it"


async def test_nobody_decides_while_it_is_unknown_who_is_denied(world: World, recorded: Recorded) -> None:
    """Also whom a rule names by id: they might be in the group that may not."""
    promotion = await asked(world, MEMBERS["requester"].id)
    recorded.keep()
    world.slack.faults.errors["usergroups.users.list"] = "fatal_error"
    tries = attempts(world, promotion.id, MEMBERS["approver by id"].id)
    for action in (Action.APPROVE, Action.REJECT, Action.CANCEL, Action.SYNC, Action.REVIEW):
        with pytest.raises(Unavailable, match="Slack is not available"):
            await tries[action]()
        assert recorded.is_same()


async def test_nobody_decides_while_the_group_that_is_denied_is_gone(
    world: World, recorded: Recorded
) -> None:
    """A group that nobody can read denies everybody, and not nobody; what gives a right gives none then."""
    promotion = await asked(world, MEMBERS["requester"].id)
    recorded.keep()
    tries = attempts(world, promotion.id, MEMBERS["approver by id"].id)
    world.slack.group(CONTRACTORS).disabled = True
    for action in (Action.APPROVE, Action.REJECT, Action.CANCEL, Action.SYNC, Action.REVIEW):
        with pytest.raises(NoGroup, match="disabled or gone"):
            await tries[action]()
        assert recorded.is_same()
    world.slack.group(CONTRACTORS).disabled = False
    world.slack.group(APPROVERS).disabled = True
    by_group = attempts(world, promotion.id, MEMBERS["approver by group"].id)
    with pytest.raises(Refused, match="You may not approve"):
        await by_group[Action.APPROVE]()


async def test_who_is_named_by_id_keeps_back_although_no_group_can_be_read(
    world: World, recorded: Recorded
) -> None:
    """A lock is never late because of a group that does not matter."""
    recorded.keep()
    world.slack.faults.errors["usergroups.users.list"] = "fatal_error"
    by_id, by_group = (keeping(world, MEMBERS[f"keeper by {how}"].id)[Action.LOCK] for how in ("id", "group"))
    with pytest.raises(Unavailable, match="Slack is not available"):
        await by_group()
    assert recorded.is_same()
    assert await answer(world, recorded, by_id) == ""


@pytest.mark.parametrize("word", ["fatal_error", "ratelimited", "missing_scope", "invalid_auth"])
async def test_nobody_does_anything_whom_slack_does_not_tell(
    world: World, recorded: Recorded, word: str
) -> None:
    """A person who cannot be looked up is not let in, whatever Slack's trouble is."""
    promotion = await asked(world, MEMBERS["requester"].id)
    recorded.keep()
    world.slack.faults.errors["users.info"] = word
    for name, kind in MEMBERS.items():
        for action, attempt in (attempts(world, promotion.id, kind.id) | keeping(world, kind.id)).items():
            with pytest.raises(Unavailable, match="Slack is not available"):
                await attempt()
            assert recorded.is_same(), f"{name}, {action}"


# --- Enterprise Grid


@contextlib.asynccontextmanager
async def grid(teams: list[str]) -> AsyncIterator[SlackDirectory]:
    """The directory of an organisation, in which everybody belongs to these workspaces."""

    async def answer(request: web.Request) -> web.Response:
        user = request.query.get("user", "")
        person = {
            "id": user,
            "team_id": "E0ENTERPRISE",
            "name": user.lower(),
            "enterprise_user": {"enterprise_id": "E0ENTERPRISE", "teams": teams},
        }
        told = {
            "auth.test": {"team_id": TEAM},
            "users.info": {"user": person},
            "usergroups.users.list": {"users": []},
            "usergroups.list": {"usergroups": [{"id": CONTRACTORS, "date_delete": 0}]},
        }
        return web.json_response({"ok": True} | told[request.match_info["method"]])

    app = web.Application()
    app.router.add_route("*", "/api/{method}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield SlackDirectory(web_client(BOT_TOKEN, api_url=f"http://127.0.0.1:{runner.addresses[0][1]}/api/"))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", ["requester", "approver by id", "rescuer", "keeper by id", "plain member"])
async def test_on_grid_the_list_of_workspaces_tells_who_is_a_member(
    world: World, recorded: Recorded, name: str
) -> None:
    """A person's team is the organisation: who is in our workspace is a member, who is in others is a stranger."""
    kind = MEMBERS[name]
    promotion = await asked(world, MEMBERS["requester"].id)
    recorded.keep()
    async with grid(["T0OTHER0001", TEAM]) as inside, grid(["T0OTHER0001"]) as outside:
        world.parts = replace(world.parts, directory=inside)
        for action, attempt in attempts(world, promotion.id, kind.id).items():
            found, wanted = await answer(world, recorded, attempt), expected(kind, action, Phase.REQUESTED)
            is_untouched = action == Action.REPLACE and kind.has(Action.REPLACE)
            assert same(found, "" if is_untouched else wanted), f"{action}: {found!r}"
        world.parts = replace(world.parts, directory=outside)
        for action, attempt in (attempts(world, promotion.id, kind.id) | keeping(world, kind.id)).items():
            assert await answer(world, recorded, attempt) == closed_to("you are from another workspace"), (
                action
            )


# --- several at once


@given(st.sets(st.sampled_from(sorted(MEMBERS))), st.sampled_from(sorted(Action)))
def test_one_person_of_several_kinds_may_what_any_of_them_may_and_no_other_takes_away(
    names: set[str], action: Action
) -> None:
    """Rights add up; to have asked, to have written it and to be denied take away, whatever else one is."""
    eve = Person(id="U0EVERYBODY", team=TEAM, name="Eve")
    taken = {MEMBERS[name].id for name in names}

    def now(users: frozenset[str]) -> frozenset[str]:
        """The same people, with Eve in the place of those whose kinds she is of."""
        return frozenset(eve.id if user in taken else user for user in users)

    members = {
        APPROVERS: now(frozenset({MEMBERS["approver by group"].id})),
        KEEPERS: now(frozenset({MEMBERS["keeper by group"].id})),
        CONTRACTORS: now(frozenset({MEMBERS["approver who is denied by group"].id})),
    }
    policy, check = named(POLICY, now), replace(CHECK, reporters=renamed(CHECK.reporters, now))
    promotion = requested(requested_by=replace(eve.signer, id=next(iter(now(OWNERS & taken)), DANA)))
    if GIVER in taken:
        promotion = promotion.approve(approval(promotion, eve.signer))
    author, last = (
        MEMBERS[name].id for name in ("approver who is an author, by id", "approver who asked last")
    )
    by_address = "approver who is an author, by address" in names
    dossier = Dossier(
        source=Commits(
            count=1,
            newest=(
                Commit(
                    revision="a" * 40,
                    subject="Fix it",
                    author="Eve",
                    user=eve.id if author in taken or by_address else None,
                ),
            ),
        ),
        last_requester=eve.id if last in taken else None,
    )
    held = roles(eve, promotion, policy, members, dossier) | standing(eve, policy, members, check=check)
    is_denied = any("denied" in name for name in names)
    given = {
        each
        for name in names
        for each in MEMBERS[name].may.split(", ")
        if not (is_denied and name.startswith("approver") and each != Action.WITHDRAW)
    }
    never = {each for name in names for each, why in MEMBERS[name].never.items() if why != DENIED}
    if OWNERS & taken:
        never |= {Action.REPORT}
    assert may(action, held) is (action in given - never)


OWNERS = frozenset({MEMBERS["requester"].id, MEMBERS[OWN_APPROVER].id})


def renamed(listed: Listed, now: Callable[[frozenset[str]], frozenset[str]]) -> Listed:
    return replace(listed, users=now(listed.users))


def named(policy: Policy, now: Callable[[frozenset[str]], frozenset[str]]) -> Policy:
    """The policy with its people renamed."""
    assert policy.requesters
    assert policy.lockers
    assert policy.rollback
    assert policy.emergency
    return replace(
        policy,
        rules=tuple(replace(rule, users=now(rule.users)) for rule in policy.rules),
        denied=renamed(policy.denied, now),
        requesters=renamed(policy.requesters, now),
        lockers=renamed(policy.lockers, now),
        rollback=replace(policy.rollback, who=renamed(policy.rollback.who, now)),
        emergency=replace(policy.emergency, who=renamed(policy.emergency.who, now)),
    )
