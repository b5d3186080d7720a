"""Faults of the engine and the use cases that a hostile review proved: none of them comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import AMY, BEN, DANA, GROUP, NOON, World, world_in

from bot.core.advance import LANDS_WITHIN, LONGEST_BACK_OFF, back_off
from bot.core.announcing import CONFIRM_AFTER
from bot.core.errors import Conflict, Refused, Unavailable
from bot.core.ports import Change, Edit
from bot.core.promotion import Phase, Promotion
from bot.git_access import COMMITTER
from bot.integrations.gitops import GitRepository
from bot.integrations.store import RedisStore, connect

HALF_AN_HOUR = timedelta(minutes=30)
ONLY_THE_GROUP = [{"group": GROUP, "min": 1}]


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
async def group_world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """A world in which Amy may approve because she is in a user group."""
    async with world_in(tmp_path, redis_url, prod_rules=ONLY_THE_GROUP) as made:
        made.slack.add_group(GROUP, handle="release", users=[AMY, BEN])
        yield made


def writer_of(world: World, kind: type[GitRepository]) -> Any:
    """A writer of the world's repository with a trouble of its own, closed with the world."""
    writer = kind(cache=world.folder / kind.__name__, committer=COMMITTER, allow_local=frozenset({"gitops"}))
    world._closing.push_async_callback(writer.aclose)
    return writer


async def overwrite(world: World, id: str, change: Callable[[Promotion], Promotion]) -> Promotion:
    """What somebody who can write to Redis makes of the record; returns the true one."""
    before = await world.find(id)
    after = replace(change(before), edition=before.edition + 1)
    await world.store.save([Change(before=before, after=after)], holds=True)
    return before


def approved_by(world: World, id: str) -> list[str]:
    """Whom the promotion's one commit names as its approvers."""
    (commit,) = world.commits(id)
    return [value.partition(" <")[0] for name, value in commit.trailers if name == "Approved-By"]


# --- trying again


@pytest.mark.parametrize("tries", [0, 1, 5, 1023, 1024, 10**6])
def test_a_back_off_is_never_longer_than_half_a_minute(tries: int) -> None:
    """However often it was tried, also where two to that power would be no number of seconds any more."""
    assert timedelta(0) < back_off(tries) <= timedelta(seconds=30)


def test_a_back_off_grows_and_is_as_long_as_the_other_side_asks() -> None:
    """Each try waits at least as long as the one before, and a Retry-After counts where it is longer."""
    waits = [back_off(tries) for tries in range(20)]
    assert waits == sorted(waits)
    assert back_off(10**6, 300) == timedelta(minutes=5)
    assert back_off(10**6, 1) == LONGEST_BACK_OFF


class NoPush(GitRepository):
    """The repository can be read, but every push ends without a word on whether it got through."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.tries = 0

    async def commit(self, edit: Edit) -> str:
        """Try in vain."""
        self.tries += 1
        raise Unavailable("the git host", f"unpacker error for {edit.new}.", maybe_done=True)


async def test_a_push_that_never_works_is_tried_ever_more_rarely(world: World) -> None:
    """Half an hour of it costs some eighty looks at most and a short thread, then the approval has expired."""
    id = await world.approved()
    writer = writer_of(world, NoPush)
    engine = world.new_engine(values=writer)
    approved_at, pauses = world.clock.at, []
    while not (await world.find(id)).phase.is_final:
        after = await world.advance(id, engine)
        assert after is not None
        pauses.append(after)
        world.passes(after.total_seconds())
        assert len(pauses) < 100, "it is tried far too often"
    promotion = await world.rest(id)
    assert promotion.phase is Phase.EXPIRED
    assert promotion.ended_at is not None
    assert HALF_AN_HOUR <= promotion.ended_at - approved_at <= HALF_AN_HOUR + LANDS_WITHIN + LONGEST_BACK_OFF
    assert CONFIRM_AFTER <= min(pauses[8:-1]) <= max(pauses) == LONGEST_BACK_OFF
    assert writer.tries <= len(pauses) <= 80
    assert len((await world.thread(id)).splitlines()) <= 6
    assert world.commits() == []


class ConflictingStore(RedisStore):
    """Somebody else always saves first."""

    async def save(self, *_: Any, **__: Any) -> None:
        """Lose."""
        raise Conflict("somebody else was first")


@pytest.mark.parametrize(
    "phase", [Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING, Phase.COMMITTED], ids=str
)
async def test_a_conflict_is_never_a_loop_without_a_pause(world: World, phase: Phase) -> None:
    """Whoever loses every race waits a moment each time, in whichever phase it is."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    if phase is Phase.COMMITTING:
        await world.advance_until(id, Phase.APPROVED)
        await world.pushed_in_vain(id)
    elif phase is not Phase.REQUESTED:
        await world.advance_until(id, phase)
    if phase is Phase.COMMITTED:
        await world.roll_out("prod")
    losing = ConflictingStore(connect(world.redis_url, quick=False))
    world._closing.push_async_callback(losing.aclose)
    world.parts = replace(world.parts, store=losing)
    engine = world.new_engine()
    pauses = []
    for _ in range(6):
        after = await world.advance(id, engine)
        assert after is not None
        pauses.append(after)
        world.passes(10)
    assert min(pauses) >= timedelta(milliseconds=50)
    assert (await world.find(id)).phase is phase


# --- a user group that cannot be looked up


def lose_the_groups(world: World) -> None:
    """The token has lost its scope: every look-up of a user group fails from now on."""
    world.slack.faults.errors["usergroups.users.list"] = "missing_scope"


async def test_a_request_expires_on_time_without_its_group(group_world: World) -> None:
    """An approval that nobody can check does not hold the target for ever."""
    world = group_world
    id = await world.request()
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    lose_the_groups(world)
    for _ in range(5):
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    assert (await world.find(id)).phase is Phase.REQUESTED
    world.clock.at = NOON + timedelta(hours=4)
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.ended_at) == (Phase.EXPIRED, NOON + timedelta(hours=4))
    assert await world.store.holder(world.target()) is None


async def test_an_approved_promotion_expires_without_its_group(group_world: World) -> None:
    """Nothing is written on the word of somebody who cannot be checked, and the target is free in time."""
    world = group_world
    id = await world.approved()
    lose_the_groups(world)
    promotion = await world.rest(id)
    assert promotion.phase is Phase.EXPIRED
    assert promotion.ended_at is not None
    assert promotion.ended_at - NOON <= HALF_AN_HOUR + timedelta(minutes=1)
    assert (world.commits(), await world.store.holder(world.target())) == ([], None)


async def test_the_requester_can_cancel_without_the_group(group_world: World) -> None:
    """Who asked needs no group to call it off."""
    world = group_world
    id = await world.request()
    lose_the_groups(world)
    await world.promoter.cancel(id, user=DANA)
    assert (await world.find(id)).phase is Phase.CANCELLED


async def test_a_giver_can_withdraw_without_the_group(group_world: World) -> None:
    """An approval can be taken back by whoever gave it."""
    world = group_world
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    lose_the_groups(world)
    await world.promoter.withdraw(id, user=AMY)
    assert (await world.find(id)).approvals == ()


async def test_an_approval_without_the_group_is_refused_as_unavailable(group_world: World) -> None:
    """Nobody is waved through, and nobody is told that they may not: Slack does not say."""
    world = group_world
    id = await world.request()
    await world.advance(id)
    lose_the_groups(world)
    with pytest.raises(Unavailable, match="Slack is not available: it says missing_scope"):
        await world.promoter.approve(id, user=AMY)
    async with world.hearing():
        await world.press(id, "approve", user=AMY)
        assert "Slack is not available" in await world.answer(AMY)
    assert (await world.find(id)).approvals == ()


# --- what an approval is given to


def _another_line(promotion: Promotion) -> Promotion:
    (line,) = promotion.changes
    return replace(promotion, changes=(replace(line, after=line.after.replace("15", "13")),))


def _another_content(promotion: Promotion) -> Promotion:
    return replace(promotion, content_hash="sha256:" + "0" * 64)


CHANGED: dict[str, Callable[[Promotion], Promotion]] = {
    "the version": lambda promotion: replace(promotion, version="13"),
    "the old version": lambda promotion: replace(promotion, old_version="13"),
    "a line that is shown": _another_line,
    "the hash": _another_content,
    "the requester": lambda promotion: replace(
        promotion, requested_by=replace(promotion.requested_by, id=BEN)
    ),
    "the requester's name": lambda promotion: replace(
        promotion, requested_by=replace(promotion.requested_by, name="The Boss")
    ),
    "the reason": lambda promotion: replace(promotion, reason="the boss said so"),
    "where it comes from": lambda promotion: replace(promotion, source="dev"),
    "when it expires": lambda promotion: replace(
        promotion, expires_at=promotion.expires_at + timedelta(days=30)
    ),
}


@pytest.mark.parametrize("what", CHANGED)
async def test_an_approval_of_a_changed_record_is_refused(world: World, what: str) -> None:
    """Nobody's name is put to what somebody else wrote into Redis, whatever the button says."""
    id = await world.request()
    await world.advance(id)
    true = await overwrite(world, id, CHANGED[what])
    for shown in (None, true.content_hash, (await world.find(id)).content_hash):
        with pytest.raises(Refused, match=f"{id} cannot be approved: "):
            await world.promoter.approve(id, user=AMY, content_hash=shown)
    async with world.hearing():
        await world.press(id, "approve", user=AMY)
        assert "cannot be approved" in await world.answer(AMY)
    assert (await world.find(id)).approvals == ()


async def test_a_changed_record_with_a_hash_to_match_is_refused(world: World) -> None:
    """Whoever computes the hash anew still lacks the key of the seal."""

    def forged(promotion: Promotion) -> Promotion:
        hashed = world.target().content_hash(
            old_version=promotion.old_version,
            version="13",
            digest=promotion.digest,
            changes=promotion.changes,
            dossier=promotion.dossier,
        )
        return replace(promotion, version="13", content_hash=hashed)

    id = await world.request()
    await overwrite(world, id, forged)
    with pytest.raises(Refused, match="its record was changed by somebody else"):
        await world.promoter.approve(id, user=AMY)
    assert (await world.find(id)).approvals == ()


async def test_an_approval_under_other_rules_is_refused(world: World) -> None:
    """The rules changed after it was asked for: it is said at once, not after two people have approved."""
    id = await world.request()
    two = {"approvals": {"rules": [{"users": [AMY, BEN], "min": 2}]}}
    promoter = world.new_promoter(catalog=world.configure(policies={"prod": two}))
    with pytest.raises(Refused, match="the rules for it changed after it was asked for"):
        await promoter.approve(id, user=AMY)
    assert (await world.find(id)).approvals == ()


# --- what cannot be called off any more


class LatePush(GitRepository):
    """The first push arrives long after everybody gave up on it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.late: Edit | None = None

    async def commit(self, edit: Edit) -> str:
        """Say that nobody knows, the first time."""
        if self.late is None:
            self.late = edit
            raise Unavailable("the git host", "it did not answer.", maybe_done=True)
        return await super().commit(edit)

    async def arrive(self) -> str:
        """The first push reaches the branch."""
        assert self.late is not None
        return await super().commit(self.late)


async def test_a_push_that_lands_late_is_never_denied(world: World) -> None:
    """It lands after somebody has looked in vain: the story goes on with that very commit."""
    id = await world.approved()
    late = writer_of(world, LatePush)
    engine = world.new_engine(values=late)
    await world.advance(id, engine)
    world.slack.down = True  # nobody can be asked, so it is not pushed again yet
    await world.advance(id, engine)
    world.slack.down = False
    assert (await world.find(id)).phase is Phase.COMMITTING
    revision = await late.arrive()
    promotion = await world.rest(id, engine)
    assert (promotion.phase, promotion.revision) == (Phase.LIVE, revision)
    assert len(world.commits(id)) == 1
    assert "nothing was committed" not in await world.thread(id)


async def test_a_push_nobody_heard_of_is_made_again_at_once(world: World) -> None:
    """The same commit goes out again within the two minutes in which the first may land, and there is one."""
    id = await world.approved()
    late = writer_of(world, LatePush)
    engine = world.new_engine(values=late)
    await world.advance(id, engine)
    await world.advance(id, engine)
    promotion = await world.find(id)
    assert promotion.phase is Phase.COMMITTED
    assert await late.arrive() == promotion.revision
    assert len(world.commits(id)) == 1


class SlowPush(GitRepository):
    """A push that is on its way until the test lets it arrive."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.is_under_way = asyncio.Event()
        self.may_arrive = asyncio.Event()

    async def commit(self, edit: Edit) -> str:
        """Wait, then push."""
        self.is_under_way.set()
        await self.may_arrive.wait()
        return await super().commit(edit)


async def test_a_commit_that_may_still_land_cannot_be_cancelled(world: World) -> None:
    """Another worker finds nothing on the branch while the push is on its way; it lands, and nobody denies it."""
    id = await world.approved()
    slow = writer_of(world, SlowPush)
    pushing = asyncio.create_task(world.new_engine(values=slow).advance(id))
    await asyncio.wait_for(slow.is_under_way.wait(), 10)
    world.slack.down = True  # so that nobody can be asked whether the approvals still count
    await world.advance(id)
    world.slack.down = False
    assert (await world.find(id)).phase is Phase.COMMITTING
    for user in (DANA, AMY):
        with pytest.raises(Refused, match="too late to cancel"):
            await world.promoter.cancel(id, user=user)
    slow.may_arrive.set()
    await pushing
    promotion = await world.rest(id)
    assert (promotion.phase, world.value(), len(world.commits(id))) == (Phase.LIVE, "15", 1)
    assert "cancelled" not in (await world.shown(id) + await world.thread(id)).lower()


async def test_a_commit_that_was_tried_cannot_be_cancelled_while_it_waits_again(world: World) -> None:
    """Also where an approver lost the right meanwhile, and the promotion asks for approval once more."""
    id = await world.approved()
    failing = world.new_engine(values=writer_of(world, NoPush))
    for _ in range(2):
        await world.advance(id, failing)
    world.slack.user(AMY).kind = "guest"
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTING, "it may still land"
    world.passes(121)
    await world.advance(id)
    promotion = await world.find(id)
    assert (promotion.phase, promotion.base is not None) == (Phase.REQUESTED, True)
    with pytest.raises(Refused, match="too late to cancel"):
        await world.promoter.cancel(id, user=DANA)


async def test_before_the_first_try_an_approved_promotion_can_be_cancelled(world: World) -> None:
    """Nothing can land of what was never built."""
    id = await world.approved()
    await world.promoter.cancel(id, user=DANA)
    assert (await world.rest(id)).phase is Phase.CANCELLED
    assert world.commits() == []


# --- who approved


async def approved_by_both(world: World) -> str:
    """A promotion that needs one approval and has Amy's and Ben's."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.promoter.approve(id, user=BEN)
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.APPROVED
    return id


@pytest.mark.parametrize("kind", ["deactivated", "guest"])
async def test_the_commit_names_only_approvers_who_still_count(world: World, kind: Any) -> None:
    """Somebody who lost the right between the approval and the commit is no witness of it."""
    id = await approved_by_both(world)
    world.slack.user(BEN).kind = kind
    promotion = await world.advance_until(id, Phase.COMMITTED)
    assert approved_by(world, id) == ["Amy Chen"]
    assert [approval.by.id for approval in promotion.approvals] == [AMY]


async def test_an_approver_whom_slack_does_not_know_is_not_named(world: World) -> None:
    """An account that is gone counts no more than one that is deactivated."""
    id = await approved_by_both(world)
    del world.slack.workspace.users[AMY]
    await world.advance_until(id, Phase.COMMITTED)
    assert approved_by(world, id) == ["Ben Ruiz"]


async def test_an_approver_whom_slack_does_not_know_is_no_trouble_of_slack(world: World) -> None:
    """The promotion asks for somebody else at once, and does not wait for Slack to find them again."""
    id = await world.approved()
    del world.slack.workspace.users[AMY]
    await world.advance(id)
    promotion, look = await world.find(id), await world.store.look(id)
    assert (promotion.phase, promotion.approvals, look.waits_for) == (Phase.REQUESTED, (), "")
    assert "Slack is not available" not in await world.show(id)
    await world.promoter.approve(id, user=BEN)
    await world.advance_until(id, Phase.COMMITTED)
    assert approved_by(world, id) == ["Ben Ruiz"]


async def test_somebody_whom_slack_does_not_know_is_refused(world: World) -> None:
    """Whoever has no account here is told no, not to try again."""
    id = await world.request()
    with pytest.raises(Refused, match="account is deactivated"):
        await world.promoter.approve(id, user="U0NOBODY01")


async def test_two_rules_need_one_person_each(tmp_path: Path, redis_url: str) -> None:
    """Amy stands in both rules, and is still one person: somebody else must agree."""
    both = [{"users": [AMY], "min": 1}, {"users": [AMY, BEN], "min": 1}]
    async with world_in(tmp_path, redis_url, prod_rules=both) as world:
        id = await world.request()
        await world.advance(id)
        await world.promoter.approve(id, user=AMY)
        for _ in range(3):
            await world.advance(id)
        assert (await world.find(id)).phase is Phase.REQUESTED
        await world.promoter.approve(id, user=BEN)
        await world.advance_until(id, Phase.COMMITTED)
        assert approved_by(world, id) == ["Amy Chen", "Ben Ruiz"]
