"""What must be true of every promotion, whatever goes wrong: each test drives the trouble in which its rule would break.

I1 at most one commit. I2 nothing is written without a quorum. I3 an end is an end. I4 editions without gaps. I5 one
holder. I6 one phase. I7 due until done and shown. I8 what is committed is on the branch. I9 one delivery, one
promotion. I10 what is due is looked at soon. I11 the same again changes nothing. I12 people see the truth, told once.
"""

import asyncio
import contextlib
import functools
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis
from store_bench import (
    DEV,
    PROD,
    Unreliable,
    approved,
    committed,
    committing,
    new,
    saved,
)
from test_regressions_core import LatePush
from world import AMY, BEN, DANA, GUS, MEL, NOON, TEAM, World, push, wait_until, world_in

from bot.core.advance import Engine
from bot.core.catalog import Target
from bot.core.errors import Conflict, PromoteError, Refused, TargetBusy, Unavailable
from bot.core.ports import Announcer, Card, Change
from bot.core.promotion import Approval, Decision, Phase, Promotion, PromotionId, Signer, new_id
from bot.core.reconciling import Reconciling
from bot.core.rollout import Look
from bot.git_access import COMMITTER
from bot.integrations.slack import SlackAnnouncer
from bot.integrations.store import RedisStore, connect
from bot.messages.card import card as render
from bot.messages.thread import story
from bot.playground import repository as sample
from bot.worker import Worker

HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=1)
FINAL = [phase for phase in Phase if phase.is_final]
TWO_OF_FOUR = [{"users": [AMY, BEN, DANA, GUS], "min": 2}]
whole_worlds = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@contextlib.asynccontextmanager
async def fresh_world(redis_url: str, **different: Any) -> AsyncIterator[World]:
    """A world of one example's own, in an empty store."""
    with Redis.from_url(redis_url) as raw, tempfile.TemporaryDirectory() as folder:
        raw.flushall()
        async with world_in(Path(folder), redis_url, **different) as made:
            yield made


# --- trouble

FINE, LOST, UNANSWERED = "fine", "lost", "unanswered"
FATES = st.lists(st.sampled_from([FINE, FINE, LOST, UNANSWERED]), max_size=12)
ACTS = frozenset({"save", "save_card", "save_look", "commit", "post", "edit", "tell"})


class Troubled:
    """A port whose calls meet their fates in turn: they never arrive, or are carried out and nobody hears of it."""

    def __init__(self, port: Any, system: str, fates: Iterable[str]) -> None:
        self.unanswered: Counter[str] = Counter()
        self._port = port
        self._system = system
        self._fates = iter(fates)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return functools.partial(self._call, name, found) if name in ACTS else found

    async def _call(self, name: str, act: Callable[..., Awaitable[Any]], *words: Any, **named: Any) -> Any:
        fate = next(self._fates, FINE)
        if fate == LOST:
            raise Unavailable(self._system, "it was never asked")
        answer = await act(*words, **named)
        if fate == UNANSWERED:
            self.unanswered[name] += 1
            raise Unavailable(self._system, "the answer never came", maybe_done=True)
        return answer


class LastMoment(RedisStore):
    """The real store, in which somebody is a moment faster than one save."""

    def __init__(self, url: str, phase: Phase, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(connect(url, quick=False))
        self._phase = phase
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Let the others go first, once."""
        if self._meanwhile and changes[0].after.phase is self._phase:
            meanwhile, self._meanwhile = self._meanwhile, None
            await meanwhile()
        await super().save(changes, holds=holds)


def closed_with(world: World, made: Any) -> Any:
    world._closing.push_async_callback(made.aclose)
    return made


def unpushed(world: World) -> LatePush:
    made = LatePush(cache=world.folder / "late", committer=COMMITTER, allow_local=frozenset({"gitops"}))
    return closed_with(world, made)


async def turn(world: World, engine: Engine) -> timedelta | None:
    """What a worker does with everything that is due, now or later; returns when to look again, None for never."""
    for id in due(world):
        await world.store.wake(id)
    pauses = []
    for id in await world.store.claim(limit=100, lease=HOUR):
        try:
            edition, after = await world.moving(engine.advance(id))
            await world.store.rest(id, edition=edition, after=after)
        except PromoteError:
            await world.store.rest(id, edition=0, after=None)
            after = timedelta(seconds=15)  # when its lease ends, it is due again
        pauses.append(timedelta(0) if after is None and id in due(world) else after)
    return min((each for each in pauses if each is not None), default=None)


async def work_until_done(world: World, engine: Engine | None = None) -> None:
    """Take turns, with the pauses that are asked for, until nothing is due any more."""
    for _ in range(300):
        after = await turn(world, engine or world.engine)
        if after is None and not due(world):
            return
        world.passes(after.total_seconds() if after else 0)
    raise AssertionError(f"still due: {due(world)}")


# --- what is true


def due(world: World) -> list[str]:
    """The due set."""
    with Redis.from_url(world.redis_url, decode_responses=True) as raw:
        return list(raw.zrange("{gp}:due", 0, -1))


def phases(redis_url: str, id: str) -> list[str]:
    """The phases whose index names the promotion."""
    with Redis.from_url(redis_url, decode_responses=True) as raw:
        return [phase for phase in Phase if raw.zscore(f"{{gp}}:ph:{phase}", id) is not None]


def everything(world: World) -> dict[str, Any]:
    """Every key of the store with what it holds, but for the times of sets."""
    with Redis.from_url(world.redis_url, decode_responses=True) as raw:
        read: dict[str, Callable[[str], Any]] = {
            "string": raw.get,
            "hash": raw.hgetall,
            "list": lambda key: raw.lrange(key, 0, -1),
            "zset": lambda key: sorted(raw.zrange(key, 0, -1)),
        }
        return {key: read[raw.type(key)](key) for key in sorted(raw.keys()) if "turn:" not in key}


def all_but_nobodys(world: World) -> dict[str, Any]:
    """Every key but the dossiers of requests that were not made after all: those are forgotten in time."""
    kept = everything(world)
    nobodys = {key for key in kept if key.endswith(":dossier") and key.removesuffix(":dossier") not in kept}
    with Redis.from_url(world.redis_url) as raw:
        assert all(raw.ttl(key) > 0 for key in nobodys)
    return {key: value for key, value in kept.items() if key not in nobodys}


async def require_whole_record(world: World, id: str) -> None:
    """I4 and I6: the story counts the editions, and one index holds the promotion."""
    promotion = await world.find(id)
    editions = [event.edition for event in await world.store.events(id)]
    assert editions == list(range(1, promotion.edition + 1))
    assert phases(world.redis_url, id) == [promotion.phase]


async def require_commit_or_none(world: World, id: str) -> None:
    """I1 and I8: one commit at most, with what was approved; and where the record says so, that very one."""
    promotion, commits = await world.find(id), world.commits(id)
    assert len(commits) <= 1
    for commit in commits:
        assert ("Content-Hash", promotion.content_hash) in commit.trailers
        assert ("New-Version", promotion.version) in commit.trailers
    if promotion.revision:
        assert [commit.revision for commit in commits] == [promotion.revision]


async def require_one_holder(world: World, ids: Iterable[str]) -> None:
    """I5: who holds prod is one at most, and the store names exactly that one."""
    found = [await world.find(id) for id in ids]
    holding = [each.id for each in found if each.phase.holds and each.environment == "prod"]
    assert len(holding) <= 1
    assert [each for each in [await world.store.holder(world.target())] if each] == holding


async def require_shown(world: World, id: str) -> None:
    """I12: the card on record shows the promotion as it is."""
    promotion, look, card = await world.find(id), await world.store.look(id), await world.card(id)
    meant = render(world.target(promotion.environment), promotion, look)
    assert (card.text, json.dumps(card.blocks)) == (meant.text, json.dumps(meant.blocks))


async def lines_and_times(world: World, id: str) -> list[tuple[str, int, int]]:
    """Each line of the story, how many events tell it, and how often it stands in the thread."""
    promotion, thread = await world.find(id), (await world.thread(id)).splitlines()
    told = Counter(line for event in await world.store.events(id) if (line := story(promotion, [event])))
    return [(line, alike, thread.count(line)) for line, alike in told.items()]


async def require_quorum(world: World, promotion: Promotion) -> None:
    """I2, reckoned anew: enough different people, none of them excluded, each sealed, for this, and in time."""
    target = world.target(promotion.environment)
    if not target.policy.needs_approval:
        return
    givers = [approval.by.id for approval in promotion.approvals]
    members = {giver for giver in givers if world.slack.user(giver).kind == "member"}
    assert len(set(givers)) == len(givers)
    assert len(members & target.policy.users - {promotion.requested_by.id}) >= target.policy.total
    content_hash = target.content_hash(
        old_version=promotion.old_version,
        version=promotion.version,
        digest=promotion.digest,
        changes=promotion.changes,
        dossier=promotion.dossier,
    )
    for approval in promotion.approvals:
        assert world.parts.sealer.approval_is_genuine(promotion, approval)
        assert approval.content_hash == promotion.content_hash == content_hash
        assert approval.at < promotion.expires_at
    story = [event.phase for event in await world.store.events(promotion.id)]
    assert not any(phase.is_final for phase in story)


class Witness(RedisStore):
    """The real store; whenever `committing` is entered or `committed` reached, the rules are reckoned anew."""

    def __init__(self, world: World) -> None:
        super().__init__(connect(world.redis_url, quick=False))
        self._world = world
        self.seen: Counter[Phase] = Counter()

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Look, then save."""
        for change in changes:
            self.seen[change.after.phase] += 1
            written = [commit.revision for commit in self._world.commits(change.after.id)]
            if change.after.phase is Phase.COMMITTING and not written:
                await require_quorum(self._world, change.after)
            if change.after.phase is Phase.COMMITTED:
                assert written == [change.after.revision]
        await super().save(changes, holds=holds)


def witness(world: World) -> Witness:
    return closed_with(world, Witness(world))


# --- without trouble


async def test_without_trouble_a_promotion_goes_live(world: World) -> None:
    """Asked for, approved, written and live: everything below is about what may come in between."""
    id = await world.request()
    await turn(world, world.engine)
    await world.promoter.approve(id, user=AMY)
    await work_until_done(world)
    assert ((await world.find(id)).phase, len(world.commits(id))) == (Phase.LIVE, 1)


# --- I1


async def test_i1_engines_that_hear_nothing_of_their_pushes_make_one_commit(world: World) -> None:
    """Three at once, and none of them is told that its first push got through."""
    id = await world.approved()
    engines = [
        world.new_engine(
            store=world.new_store(), values=Troubled(world.new_writer(), "the git host", [UNANSWERED])
        )
        for _ in range(3)
    ]
    for _ in range(10):
        await asyncio.gather(*(world.advance(id, engine) for engine in engines))
        world.passes(1)
    assert (await world.rest(id)).phase is Phase.LIVE
    await require_commit_or_none(world, id)
    assert world.value() == "15"


async def test_i1_what_was_written_and_undone_is_not_written_again(world: World) -> None:
    """The answer to the push was lost, somebody put the old value back, and Amy left before anybody looked."""
    id = await world.approved()
    writer = Troubled(world.values, "the git host", [UNANSWERED])
    await world.advance(id, world.new_engine(values=writer))
    assert (await world.find(id)).phase is Phase.COMMITTING
    world.push_by_hand("prod", "14")
    world.slack.user(AMY).kind = "deactivated"
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    await world.rest(id)
    assert (len(world.commits(id)), world.value()) == (1, "14")
    await require_commit_or_none(world, id)


async def test_i1_a_push_that_lands_between_two_tries_is_found_before_the_next(world: World) -> None:
    """It was given up, landed after all and was undone: whoever is next looks before anything else is decided."""
    id, late = await world.approved(), unpushed(world)
    await world.advance(id, world.new_engine(values=late))
    world.passes(180)
    world.slack.down = True  # nobody can be asked, so the next try stops before it writes
    await world.advance(id)
    promotion = await world.find(id)
    assert (promotion.phase, promotion.base is not None) == (Phase.APPROVED, True)
    await late.arrive()
    world.push_by_hand("prod", "14")
    world.slack.down = False
    world.slack.user(AMY).kind = "deactivated"
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    await world.rest(id)
    assert (len(world.commits(id)), world.value()) == (1, "14")
    await require_commit_or_none(world, id)


async def test_i1_a_record_from_before_its_commit_writes_nothing(world: World) -> None:
    """Somebody puts the store back to an hour ago, and the value too: git remembers what was written."""
    id = await world.approved()
    before = await world.find(id)
    await world.rest(id)
    world.push_by_hand("prod", "14")
    latest = await world.find(id)
    again = replace(before, edition=latest.edition + 1)
    await world.store.save([Change(before=latest, after=again)], holds=True)
    await work_until_done(world)
    assert (len(world.commits(id)), world.value()) == (1, "14")


# --- I2

WORDS = ("genuine", "forged", "for another promotion", "for other content", "relabelled")
Word = tuple[str, str]


def word(world: World, promotion: Promotion, giver: str, kind: str) -> Approval:
    """Somebody's approval, as it stands in a record that may have been written by anybody."""
    by = Signer(id=giver, team=TEAM, name=world.slack.user(giver).name)
    other = "sha256:" + "0" * 64
    seal = world.parts.sealer.seal(
        id=new_id() if kind == "for another promotion" else promotion.id,
        content_hash=other if kind in ("for other content", "relabelled") else promotion.content_hash,
        by=by,
        decision=Decision.APPROVE,
        at=world.clock.now(),
    )
    return Approval(
        by=by,
        at=world.clock.now(),
        content_hash=other if kind == "for other content" else promotion.content_hash,
        seal="0" * 64 if kind == "forged" else seal,
    )


@settings(whole_worlds, max_examples=8)
@example(words=[(AMY, "genuine"), (BEN, "genuine")], left="")
@example(words=[(AMY, "genuine"), (BEN, "genuine")], left=BEN)
@example(words=[(AMY, "genuine"), (AMY, "genuine")], left="")
@example(words=[(AMY, "genuine"), (DANA, "genuine")], left="")
@example(words=[(AMY, "genuine"), (GUS, "genuine")], left="")
@example(words=[(AMY, "genuine"), (MEL, "genuine")], left="")
@example(words=[(AMY, "genuine"), (BEN, "forged")], left="")
@example(words=[(AMY, "genuine"), (BEN, "for another promotion")], left="")
@example(words=[(AMY, "genuine"), (BEN, "for other content")], left="")
@example(words=[(AMY, "genuine")], left="")
@given(
    words=st.lists(
        st.tuples(st.sampled_from([AMY, BEN, DANA, GUS, MEL]), st.sampled_from(WORDS)), max_size=4
    ),
    left=st.sampled_from(["", "", AMY, BEN]),
)
async def test_i2_only_different_people_who_still_may_make_a_quorum(
    redis_url: str, words: list[Word], left: str
) -> None:
    """Whatever words stand in the record, and whoever is a guest by now: two that count, or nothing is written."""
    async with fresh_world(redis_url, prod_rules=TWO_OF_FOUR) as world:
        id = await world.request()
        before = await world.find(id)
        after = replace(
            before,
            edition=2,
            phase=Phase.APPROVED,
            approvals=tuple(word(world, before, *each) for each in words),
            approved_at=world.clock.now(),
        )
        await world.store.save([Change(before=before, after=after)], holds=True)
        if left:
            world.slack.user(left).kind = "guest"
        engine = world.new_engine(store=witness(world))
        for _ in range(4):
            await world.advance(id, engine)
        counted = {giver for giver, _ in words} & {AMY, BEN} - {left}
        is_sound = all(kind == "genuine" for _, kind in words)
        assert len(world.commits(id)) == int(is_sound and len(counted) == 2)


REFUSALS: dict[str, Callable[[World, PromotionId], Awaitable[object]]] = {
    "reject": lambda world, id: world.promoter.reject(id, user=BEN, why="no"),
    "withdraw": lambda world, id: world.promoter.withdraw(id, user=AMY),
    "cancel": lambda world, id: world.promoter.cancel(id, user=DANA),
}


@pytest.mark.parametrize(
    ("refusal", "phase"),
    [
        ("reject", Phase.APPROVED),
        ("withdraw", Phase.APPROVED),
        ("cancel", Phase.APPROVED),
        ("cancel", Phase.COMMITTING),
    ],
)
async def test_i2_a_no_that_comes_a_moment_before_the_yes_is_saved_is_heard(
    world: World, refusal: str, phase: Phase
) -> None:
    """The engine has checked everything, and in the instant before its save somebody takes it back."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    if phase is Phase.COMMITTING:
        await world.advance(id)
    store = LastMoment(world.redis_url, phase, lambda: REFUSALS[refusal](world, id))
    engine = world.new_engine(store=closed_with(world, store))
    for _ in range(4):
        await world.advance(id, engine)
    assert world.commits() == []
    assert not any(event.phase is Phase.COMMITTING for event in await world.store.events(id))


@pytest.mark.parametrize(("hours", "written"), [(4, 1), (5, 0)])
async def test_i2_what_was_called_off_long_ago_is_not_brought_back(
    world: World, hours: int, written: int
) -> None:
    """Whoever writes to the store can undo a cancellation, with its genuine seals: for some hours, and no longer."""
    id = await world.approved()
    await world.promoter.cancel(id, user=DANA)
    await work_until_done(world)
    world.passes(hours * 3600)
    before = await world.find(id)
    after = replace(
        before, edition=before.edition + 1, phase=Phase.APPROVED, approved_at=world.clock.now(), ended_at=None
    )
    await world.store.save([Change(before=before, after=after)], holds=True)
    await work_until_done(world)
    assert len(world.commits(id)) == written


async def test_i2_an_approval_given_at_the_end_of_its_time_is_none(world: World) -> None:
    """Whatever the clock says when it is saved: the moment of the decision has to lie before the expiry."""
    id = await world.request()
    promotion = await world.find(id)
    given = word(world, promotion, AMY, "genuine")
    for at in (promotion.expires_at, promotion.expires_at + HOUR):
        with pytest.raises(Refused, match="has expired"):
            promotion.approve(replace(given, at=at))
    assert promotion.approve(replace(given, at=promotion.expires_at - timedelta(microseconds=1))).approvals


async def test_i2_who_left_the_policy_is_not_named_as_an_approver(tmp_path: Path, redis_url: str) -> None:
    """Two of the group approved, one was enough, and one has left it since: the commit names the other alone."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": "S0RELEASERS", "min": 1}]) as world:
        group = world.slack.add_group("S0RELEASERS", handle="release", users=[AMY, BEN])
        id = await world.request()
        for user in (AMY, BEN):
            await world.promoter.approve(id, user=user)
        group.users = [BEN]
        await world.advance_until(id, Phase.COMMITTED)
        assert [approval.by.id for approval in (await world.find(id)).approvals] == [BEN]


# --- I3


async def try_everything(world: World, id: str) -> list[str]:
    """Every command by everybody, every step of the engine; the commands that were accepted."""
    promoter, accepted = world.promoter, []
    commands: dict[str, Callable[[str], Awaitable[object]]] = {
        "approve": lambda user: promoter.approve(id, user=user),
        "reject": lambda user: promoter.reject(id, user=user, why="no"),
        "withdraw": lambda user: promoter.withdraw(id, user=user),
        "cancel": lambda user: promoter.cancel(id, user=user),
    }
    for name, command in commands.items():
        for user in (AMY, BEN, DANA):
            with contextlib.suppress(Refused):
                await command(user)
                accepted.append(f"{name} by {user}")
    for number in range(3):
        await world.engine.broke(id, reference=f"r{number}")
    await Reconciling(engine=world.engine).reconcile()
    with contextlib.suppress(Refused):
        await world.engine.adopt(await world.find(id), world.commits(id)[0].revision)
    await world.rest(id)
    return accepted


@pytest.mark.parametrize("phase", FINAL)
async def test_i3_nothing_counts_after_an_end(world: World, phase: Phase) -> None:
    """No command of anybody, no step of the engine, no bug and no commit on the branch moves it again."""
    id = await world.committed()
    before = await world.find(id)
    ended = replace(
        before, edition=before.edition + 1, phase=phase, revision=None, ended_at=world.clock.now()
    )
    ended = replace(ended, last=replace(before.last, edition=ended.edition, phase=phase), ending="over")
    await world.store.save([Change(before=before, after=ended)], holds=True)
    assert await try_everything(world, id) == []
    assert await world.find(id) == ended
    assert len(world.commits(id)) == 1
    await require_whole_record(world, id)


async def test_i3_an_older_promotion_that_was_swept_does_not_come_back(world: World) -> None:
    """Its commit still tells of it, and a later one of the same target has ended: git brings neither back."""
    old = await world.committed()
    await world.rest(old)
    world.push_by_hand("stage", "16")
    await world.roll_out("stage")
    later = await world.committed()
    await world.rest(later)
    with Redis.from_url(world.redis_url) as raw:
        raw.delete(f"{{gp}}:p:{old}", f"{{gp}}:p:{old}:card")
    before = everything(world)
    assert await Reconciling(engine=world.engine).reconcile() == ()
    assert everything(world) == before


# --- I4


def whole_life() -> list[Promotion]:
    """The editions of one promotion that lost its quorum once, was written on the second try, and went live."""
    steps: list[Callable[[Promotion], Promotion]] = [
        approved,
        lambda each: each.lose_quorum(at=NOON, kept=(), why="left"),
        approved,
        committing,
        lambda each: each.reopen(at=NOON),
        committing,
        committed,
        lambda each: each.go_live(at=NOON, why="proved"),
    ]
    life = [new()]
    for step in steps:
        life.append(step(life[-1]))
    return life


EDITIONS = len(whole_life())


async def save_edition(store: RedisStore, life: Sequence[Promotion], number: int) -> bool:
    """Save one edition of a life, counted from 0; False for a conflict."""
    before = life[number - 1] if number else None
    try:
        await store.save([Change(before=before, after=life[number])], holds=True)
    except Conflict:
        return False
    return True


@settings(whole_worlds, max_examples=25)
@example(order=[0, 1, 1, 0], copies=1)
@example(order=[0, 2, 1], copies=1)
@example(order=[0, 5, 1], copies=1)
@given(order=st.lists(st.integers(0, EDITIONS - 1), max_size=20), copies=st.integers(1, 3))
async def test_i4_each_edition_follows_the_one_before_it(
    redis_url: str, order: list[int], copies: int
) -> None:
    """However saves are repeated, reordered and sent by several at once: the next edition counts, once."""
    with Redis.from_url(redis_url, decode_responses=True) as raw:
        raw.flushall()
        stores = [RedisStore(connect(redis_url, quick=False)) for _ in range(copies)]
        life, reached = whole_life(), -1
        for number in [*order, *range(EDITIONS)]:
            told = await asyncio.gather(*(save_edition(store, life, number) for store in stores))
            counts = number in (reached, reached + 1)
            assert told == [counts] * copies
            reached = number if counts else reached
            story = [event.edition for event in await stores[0].events(life[0].id)]
            assert story == list(range(1, reached + 2))
            assert raw.hget(f"{{gp}}:p:{life[0].id}", "edition") == (str(reached + 1) if story else None)
        for store in stores:
            await store.aclose()


async def test_i4_several_changes_are_saved_whole_or_not_at_all(redis_url: str) -> None:
    """Half of a call that somebody else has saved already is no reason to save the other half."""
    store = RedisStore(connect(redis_url, quick=False))
    first, second = await saved(store, new(DEV), holds=False), new(DEV)
    change = Change(before=first, after=approved(first))
    await store.save([change], holds=False)
    with pytest.raises(Conflict):
        await store.save([change, Change(before=None, after=second)], holds=False)
    assert await store.load(second.id) is None
    assert len(await store.events(first.id)) == 2
    await store.aclose()


# --- I5


async def test_i5_of_many_who_ask_at_once_one_holds_the_target(world: World) -> None:
    """Each replica takes the target to be free; the store gives it to one, and the others hear to whom."""
    promoters = [world.new_promoter(store=world.new_store()) for _ in range(4)]
    asked = await world.moving(
        asyncio.gather(
            *(
                each.request(app="manual-app", environment="prod", version=None, reason=None, user=user)
                for each in promoters
                for user in (DANA, MEL)
            ),
            return_exceptions=True,
        )
    )
    made = [each.id for each in asked if isinstance(each, Promotion)]
    assert len(made) == 1
    assert {each.holder for each in asked if isinstance(each, TargetBusy)} == set(made)
    await require_one_holder(world, made)


async def test_i5_who_does_not_hold_frees_nothing(world: World) -> None:
    """An older promotion comes to its end while the next one holds the target: that one keeps it."""
    old = await world.committed()
    world.push_by_hand("stage", "16")
    await world.roll_out("stage")
    young = await world.request()
    assert (await world.rest(old)).phase.is_final
    assert await world.store.holder(world.target()) == young
    with pytest.raises(TargetBusy, match=young):
        await world.request()
    await require_one_holder(world, [old, young])


async def test_i5_a_promotion_that_waits_again_is_still_the_one_that_holds(redis_url: str) -> None:
    """Reopened, or without its quorum: as long as it may be written nobody else gets the target."""
    store = RedisStore(connect(redis_url, quick=False))
    life = whole_life()
    for number, promotion in enumerate(life):
        assert await save_edition(store, life, number)
        assert await store.holder(PROD) == (promotion.id if promotion.phase.holds else None)
        if promotion.phase.holds:
            with pytest.raises(TargetBusy):
                await store.create(new(), delivery=None, holds=True)
    await store.aclose()


# --- I6


async def test_i6_it_is_in_the_index_of_its_phase_alone(redis_url: str) -> None:
    """Also where it comes to a phase for the second time, and where every save is repeated."""
    store = RedisStore(connect(redis_url, quick=False))
    life = whole_life()
    for number, promotion in enumerate(life):
        for _ in range(2):
            assert await save_edition(store, life, number)
        assert phases(redis_url, promotion.id) == [promotion.phase]
    await store.aclose()


# --- I7


async def test_i7_it_is_due_until_it_has_ended_and_people_have_seen_it(world: World) -> None:
    """Slack is away at the end: the promotion stays due although nothing is left to do but to show it."""
    id = await world.request()
    await turn(world, world.engine)
    await world.promoter.approve(id, user=AMY)
    for _ in range(60):
        after = await turn(world, world.engine)
        assert due(world) == [id]
        if (await world.find(id)).phase is Phase.COMMITTED:
            world.slack.down = True
        if (await world.find(id)).phase is Phase.LIVE:
            break
        world.passes(after.total_seconds() if after else 0)
    assert (await world.store.card(id)).phase is not Phase.LIVE
    world.slack.down = False
    while due(world):
        card = await world.store.card(id)
        assert card.phase is not Phase.LIVE or not card.is_confirmed
        after = await turn(world, world.engine)
        world.passes(after.total_seconds() if after else 0)
    await require_shown(world, id)


async def test_i7_a_late_renewal_brings_nothing_back(world: World) -> None:
    """A worker renews what it works on, when another one has just seen it to its end."""
    id = await world.request()
    await world.promoter.cancel(id, user=DANA)
    await work_until_done(world)
    await world.store.renew([id], lease=LEASE)
    assert due(world) == []


async def test_i7_what_does_not_exist_is_never_due(world: World) -> None:
    """It was swept while a worker had it: nobody puts it back, to be looked at for ever."""
    id = await world.request()
    await world.store.claim(limit=1, lease=LEASE)
    with Redis.from_url(world.redis_url) as raw:
        raw.delete(f"{{gp}}:p:{id}")
    await world.store.rest(id, edition=1, after=HOUR)
    assert due(world) == []


# --- I8


@pytest.mark.parametrize("fates", [[FINE], [UNANSWERED], [LOST]], ids=lambda fates: fates[0])
async def test_i8_what_is_committed_is_on_the_branch(world: World, fates: list[str]) -> None:
    """A stranger is faster than the push, which then is heard of, or not, or never arrived."""
    id, store = await world.approved(), witness(world)
    push(world.repository, {"NOTES.md": "hello\n"})
    engine = world.new_engine(store=store, values=Troubled(world.values, "the git host", fates))
    for _ in range(3):
        await world.advance(id, engine)
        world.passes(1)
    assert store.seen[Phase.COMMITTED] == 1
    await require_commit_or_none(world, id)


async def test_i8_what_may_be_on_the_branch_is_never_called_off(world: World) -> None:
    """A push that nobody heard of may land for two minutes: until then nothing says that it was not written."""
    id, late = await world.approved(), unpushed(world)
    await world.advance(id, world.new_engine(values=late))
    for _ in range(3):
        world.slack.down = (
            True  # nobody can be asked whether the approvals still count, so it is not pushed again
        )
        await world.advance(id)
        world.slack.down = False
        with pytest.raises(Refused, match="too late to cancel"):
            await world.promoter.cancel(id, user=AMY)
        world.passes(30)
    assert (await world.find(id)).phase is Phase.COMMITTING
    await late.arrive()
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    await require_commit_or_none(world, id)


# --- I9


async def test_i9_one_delivery_is_one_promotion(world: World) -> None:
    """Slack sends it to three replicas at once, and once more when the promotion has long ended."""

    async def ask(promoter: Any) -> str:
        promotion = await promoter.request(
            app="manual-app", environment="prod", version=None, reason=None, user=DANA, delivery="d1"
        )
        return str(promotion.id)

    promoters = [world.new_promoter(store=world.new_store()) for _ in range(3)]
    asked = await world.moving(asyncio.gather(*(ask(each) for each in promoters)))
    (id,) = set(asked)
    await world.promoter.cancel(id, user=DANA)
    another = await world.request()
    assert await world.moving(ask(world.promoter)) == id
    assert {each.id for each in await world.store.history(world.target())} == {id, another}


async def test_i9_a_delivery_whose_answer_was_lost_is_one_promotion(redis_url: str) -> None:
    """The store did it, and nobody heard: whoever asks again hears of that very promotion."""
    unreliable = Unreliable(redis_url.removeprefix("unix://"), losing=2)
    async with unreliable.serving() as url:
        store, first = RedisStore(connect(url, quick=True)), new()
        with pytest.raises(Unavailable):
            await store.create(first, delivery="d1", holds=True)
        assert await store.create(new(), delivery="d1", holds=True) == first.id
        assert await store.history(PROD) == (first,)
        await store.aclose()


# --- I10


class Looks(SlackAnnouncer):
    """Remembers when each promotion was first looked at in each phase; a post waits where it is told to."""

    def __init__(self, client: Any, *, waits: bool = False) -> None:
        super().__init__(client)
        self.at: dict[tuple[str, Phase], float] = {}
        self.begun = asyncio.Event()
        self.begun_twice = asyncio.Event()
        self.may_go_on = asyncio.Event()
        if not waits:
            self.may_go_on.set()

    def digest(self, target: Target, promotion: Promotion, look: Look) -> str:
        """Remember it."""
        self.at.setdefault((promotion.id, promotion.phase), time.monotonic())
        return super().digest(target, promotion, look)

    async def post(self, target: Target, promotion: Promotion, look: Look) -> Card:
        """Wait, then post."""
        (self.begun_twice if self.begun.is_set() else self.begun).set()
        await self.may_go_on.wait()
        return await super().post(target, promotion, look)


@contextlib.asynccontextmanager
async def working(
    world: World, announcer: Announcer, *, store: RedisStore | None = None, lease: timedelta = LEASE
) -> AsyncIterator[None]:
    """A worker at work, with connections of its own."""
    store = store or world.new_store()
    engine = world.new_engine(announcer=announcer, store=store)
    worker = Worker(engine=engine, queue=store, lease=lease)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await world.moving(worker.stop(5))
        await running


async def test_i10_what_a_dead_worker_held_is_looked_at_within_a_lease_and_a_second(world: World) -> None:
    """It claimed four promotions and died; somebody decides one of them before its lease is over."""
    ids = [await world.request("dev", version) for version in ("17", "18", "19")]
    ids.append(await world.request())
    assert sorted(await world.store.claim(limit=10, lease=LEASE)) == sorted(ids)
    died_at = time.monotonic()
    await world.promoter.cancel(ids[-1], user=DANA)
    looks = Looks(world.client)
    async with working(world, looks):
        await wait_until(lambda: {id for id, _ in looks.at} == set(ids), "all are looked at")
    assert max(looks.at.values()) - died_at <= LEASE.total_seconds() + 1
    assert (ids[-1], Phase.CANCELLED) in looks.at


async def test_i10_what_is_decided_during_a_look_is_looked_at_at_once(world: World) -> None:
    """The look that is under way would rest for half an hour, on what it knows."""
    looks = Looks(world.client, waits=True)
    async with working(world, looks, lease=HOUR):
        id = await world.request()
        await asyncio.wait_for(looks.begun.wait(), 5)
        await world.promoter.cancel(id, user=DANA)
        looks.may_go_on.set()
        await wait_until(lambda: (id, Phase.CANCELLED) in looks.at, "the end is looked at")


# --- I11

COMMANDS: dict[str, Callable[[World, PromotionId], Awaitable[object]]] = {
    "request": lambda world, _: world.request(delivery="d1"),
    "approve": lambda world, id: world.promoter.approve(id, user=AMY),
    **REFUSALS,
}


@pytest.mark.parametrize("when", ["at once", "when all is over"])
@pytest.mark.parametrize("command", COMMANDS)
async def test_i11_the_same_command_again_changes_nothing(world: World, command: str, when: str) -> None:
    """A second press, a repeated delivery, a button of long ago: refused or the same answer, and no key differs.

    But for what was found out for a request that was not made after all: that is nobody's, and is forgotten.
    """
    id = await world.request(delivery="d1")
    if command == "withdraw":
        await world.promoter.approve(id, user=AMY)
    await COMMANDS[command](world, id)
    if when == "when all is over":
        await work_until_done(world)
    before = all_but_nobodys(world)
    for _ in range(2):
        with contextlib.suppress(Refused):
            await COMMANDS[command](world, id)
    assert all_but_nobodys(world) == before


@pytest.mark.parametrize(
    ("command", "phase"),
    [
        ("approve", Phase.REQUESTED),
        ("withdraw", Phase.REQUESTED),
        ("reject", Phase.REJECTED),
        ("cancel", Phase.CANCELLED),
    ],
)
async def test_i11_two_presses_at_the_same_moment_count_once(
    world: World, command: str, phase: Phase
) -> None:
    """Both were allowed when they were looked at; one is saved, and the other hears that it is done already."""
    id = await world.request()
    if command == "withdraw":
        await world.promoter.approve(id, user=AMY)
    before = await world.find(id)

    async def press() -> None:
        world.passes(1)
        await COMMANDS[command](world, id)

    store = closed_with(world, LastMoment(world.redis_url, phase, press))
    world.parts = replace(world.parts, store=store)
    with pytest.raises(Refused):
        await press()
    assert (await world.find(id)).edition == before.edition + 1


async def test_i11_another_look_changes_nothing(world: World) -> None:
    """Waiting for approval, and at the end: whoever looks once more finds nothing to do, to say or to write."""
    id = await world.request()
    for _ in range(2):
        await world.rest_until(timedelta(minutes=1))
        before, calls = everything(world), len(world.slack.requests)
        for _ in range(3):
            await world.engine.advance(id)
        assert (everything(world), len(world.slack.requests)) == (before, calls)
    await world.promoter.approve(id, user=AMY)
    await work_until_done(world)
    before, calls, tip = everything(world), len(world.slack.requests), sample.head(world.repository)
    for _ in range(3):
        world.passes(60)
        assert await world.engine.advance(id) == ((await world.find(id)).edition, None)
    assert (everything(world), len(world.slack.requests)) == (before, calls)
    assert sample.head(world.repository) == tip


# --- I12


@settings(whole_worlds, max_examples=8)
@example(fates=[], ending="approve")
@example(fates=[FINE, UNANSWERED, UNANSWERED, UNANSWERED], ending="approve")
@example(fates=[FINE, FINE, LOST, LOST, UNANSWERED], ending="cancel")
@given(fates=FATES, ending=st.sampled_from(["approve", "reject", "cancel", "expire"]))
async def test_i12_people_see_how_it_ended_and_read_each_event_once(
    redis_url: str, fates: list[str], ending: str
) -> None:
    """Whatever of Slack is lost, on the way there or back: a line comes again for a lost answer, and never not at all."""
    async with fresh_world(redis_url) as world:
        announcer = Troubled(world.parts.announcer, "Slack", fates)
        engine = world.new_engine(announcer=announcer)
        id = await world.request(reason="the sale")
        await turn(world, engine)
        if ending != "expire":
            await COMMANDS[ending](world, id)
        await work_until_done(world, engine)
        assert (await world.find(id)).phase.is_final
        await require_shown(world, id)
        for line, alike, times in await lines_and_times(world, id):
            assert alike <= times <= alike + announcer.unanswered["tell"], line
        cards = [message for message in world.cards() if message.blocks]
        assert len(cards) <= 1 + announcer.unanswered["post"]


class ClaimsOnce(RedisStore):
    """The real store of a worker that takes nothing more once it has something to do."""

    has_claimed = False

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Claim until there was something."""
        claimed = () if self.has_claimed else await super().claim(limit=limit, lease=lease)
        self.has_claimed = self.has_claimed or bool(claimed)
        return claimed


async def test_i12_nobody_tells_people_beside_the_one_who_does(world: World) -> None:
    """However long Slack takes and whatever is decided meanwhile: one worker has it until it rests."""
    looks = Looks(world.client, waits=True)
    store = closed_with(world, ClaimsOnce(connect(world.redis_url, quick=False)))
    async with working(world, looks, store=store):
        id = await world.request()
        await asyncio.wait_for(looks.begun.wait(), 5)
        async with working(world, looks):
            await world.promoter.approve(id, user=AMY)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(looks.begun_twice.wait(), 2 * LEASE.total_seconds())
            looks.may_go_on.set()
            await wait_until(lambda: world.commits(id), "it goes on")
    await world.rest(id)
    assert [line for line, alike, times in await lines_and_times(world, id) if alike != times] == []


# --- all of them


async def _people_leave(world: World, _: str) -> None:
    world.slack.user(AMY).kind = "guest" if world.slack.user(AMY).kind == "member" else "member"


async def _the_value_moves(world: World, _: str) -> None:
    world.push_by_hand("prod", "14" if world.value() != "14" else "13")


async def _somebody_else_asks(world: World, _: str) -> None:
    await world.request(user=MEL)


async def _slack_comes_and_goes(world: World, _: str) -> None:
    world.slack.down = not world.slack.down


EVENTS: dict[str, Callable[[World, Any], Awaitable[object]]] = {
    **COMMANDS,
    "approve, by another": lambda world, id: world.promoter.approve(id, user=BEN),
    "people leave": _people_leave,
    "the value moves": _the_value_moves,
    "somebody else asks": _somebody_else_asks,
    "slack comes and goes": _slack_comes_and_goes,
}
PAUSES = {"5 s": 5, "3 min": 180, "31 min": 1860, "4 h": 14400}
WORK = ["work", "work, troubled", "work, elsewhere"]
HAPPENINGS = st.lists(st.sampled_from([*WORK, *WORK, *EVENTS, *PAUSES]), max_size=25)


@settings(whole_worlds, max_examples=12)
@example(
    happenings=["work", "approve", "work", "work, troubled", "the value moves", "3 min", "work, elsewhere"],
    fates={"the store": [], "the git host": [UNANSWERED], "Slack": []},
)
@given(
    happenings=HAPPENINGS,
    fates=st.fixed_dictionaries({"the store": FATES, "the git host": FATES, "Slack": FATES}),
)
async def test_whatever_happens_all_of_it_holds(
    redis_url: str, happenings: list[str], fates: dict[str, list[str]]
) -> None:
    """People, time, strangers, lost questions and lost answers in any order: no rule above is broken by any step."""
    async with fresh_world(redis_url) as world:
        id = await world.request(delivery="d1")
        parts, store = world.parts, witness(world)
        engines = {
            "work": world.new_engine(store=store),
            "work, elsewhere": world.new_engine(store=store, values=world.new_writer()),
            "work, troubled": world.new_engine(
                store=Troubled(store, "the store", fates["the store"]),
                values=Troubled(parts.values, "the git host", fates["the git host"]),
                announcer=Troubled(parts.announcer, "Slack", fates["Slack"]),
            ),
        }
        for happening in happenings:
            if happening in engines:
                await turn(world, engines[happening])
            elif happening in PAUSES:
                world.passes(PAUSES[happening])
            else:
                with contextlib.suppress(Refused, Unavailable):
                    await EVENTS[happening](world, id)
            await require_all(world)
        world.slack.down = False
        await work_until_done(world, engines["work"])
        for each in await require_all(world):
            assert each.phase.is_final
            await require_shown(world, each.id)
            assert all(times >= alike for _, alike, times in await lines_and_times(world, each.id))


async def require_all(world: World) -> tuple[Promotion, ...]:
    """What holds at every moment; returns the promotions."""
    found = await world.store.history(world.target(), limit=100)
    for each in found:
        await require_whole_record(world, each.id)
        await require_commit_or_none(world, each.id)
        assert each.phase.is_final or each.id in due(world)
    await require_one_holder(world, [each.id for each in found])
    return found
