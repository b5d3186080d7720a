"""The store keeps promotions on a real server: whole, once, in order, and due when it says so."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import fields, replace
from datetime import UTC, timedelta
from functools import partial

import pytest
from conftest import require
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis_servers import Servers, opened
from store_bench import (
    DEV,
    NOON,
    PROD,
    STAGE,
    approved,
    committed,
    committing,
    due_in,
    new,
    saved,
    superseded,
)

from bot.core.dossier import Dossier
from bot.core.errors import Conflict, TargetBusy, Unavailable
from bot.core.ports import Card, Change, Settled
from bot.core.promotion import SCHEMA, Approval, Event, Phase, Promotion, Way
from bot.core.rollout import Look, Progress
from bot.integrations import embedded
from bot.integrations.redis_address import Client
from bot.integrations.store import RedisStore, connect


@pytest.fixture(scope="session", params=["embedded", "debian", "sentinel", "cluster"])
def url_of_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Wherever a store can be: on either server, behind a sentinel, in a cluster."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param in ("embedded", "debian"):
        binary = require("redis-server", "redis-server") if request.param == "debian" else None
        server = embedded.start(folder, binary=binary)
        yield server.url
        asyncio.run(server.stop())
        return
    with Servers(folder) as servers:
        if request.param == "cluster":
            yield f"redis+cluster://{servers.cluster()[0].address}"
        else:
            primary, _ = servers.primary()
            yield servers.sentinel(primary, replicas=1, down_after=30_000)


@pytest.fixture
async def raw(url_of_server: str) -> AsyncIterator[Client]:
    """The empty server as it is, for looking underneath."""
    async with opened(url_of_server) as client:
        await client.flushall()
        yield client


@pytest.fixture
def url(url_of_server: str, raw: Client) -> str:  # noqa: ARG001 - it empties the server
    """The address of an empty server."""
    return url_of_server


async def test_a_created_promotion_is_there_whole_and_due(store: RedisStore, raw: Redis) -> None:
    """What was saved comes back equal, in the indexes, with its first event, and due at once."""
    promotion = new()
    assert await store.create(promotion, delivery="d1", holds=True) == promotion.id
    assert await store.load(promotion.id) == promotion
    assert await store.events(promotion.id) == (promotion.last,)
    assert await store.in_phase(Phase.REQUESTED) == (promotion,)
    assert await store.history(PROD) == (promotion,)
    assert await store.holder(PROD) == promotion.id
    assert await store.followed(PROD) is None
    due = await due_in(raw, promotion)
    assert due is not None
    assert due <= 0


async def test_one_delivery_makes_one_promotion(store: RedisStore, raw: Redis) -> None:
    """Slack sends a command again when our answer was slow; the second one gets the first one's id, for 48 hours."""
    first = new()
    await store.create(first, delivery="d1", holds=True)
    assert await store.create(new(), delivery="d1", holds=True) == first.id
    assert await store.history(PROD) == (first,)
    kept = await raw.pttl("{gp}:req:d1")
    assert timedelta(hours=47, minutes=59) < timedelta(milliseconds=kept) <= timedelta(hours=48)


async def test_a_delivery_with_nothing_to_do_is_remembered(store: RedisStore, raw: Redis) -> None:
    """For 48 hours it makes no promotion, says what it said first, and may be settled again."""
    assert await store.settle("d1", said="this") is None
    assert await store.settle("d1", said="this") is None
    before = sorted(await raw.keys())
    seen: list[Callable[[], Awaitable[object]]] = [
        lambda: store.delivered("d1"),
        lambda: store.settle("d1", said="that"),
        lambda: store.create(new(DEV), delivery="d1", holds=False),
    ]
    for again in seen:
        with pytest.raises(Settled) as settled:
            await again()
        assert settled.value.said == "this"
    assert sorted(await raw.keys()) == before
    kept = await raw.pttl("{gp}:req:d1")
    assert timedelta(hours=47, minutes=59) < timedelta(milliseconds=kept) <= timedelta(hours=48)


async def test_a_delivery_that_made_a_promotion_is_not_settled(store: RedisStore) -> None:
    """Who finds nothing to do after it gets the promotion, and so does everybody later."""
    made = new(DEV)
    await store.create(made, delivery="d1", holds=False)
    assert await store.settle("d1", said="this") == made.id
    assert await store.delivered("d1") == made.id


async def test_a_delivery_is_settled_or_made_and_never_both(store: RedisStore) -> None:
    """Two workers take the same one at the same time: the first counts, and both say the same."""
    for number in range(20):
        delivery, promotion = f"d{number}", new(DEV)
        create = partial(store.create, promotion, delivery=delivery, holds=False)
        settle = partial(store.settle, delivery, said="this")
        calls = [create, settle] if number % 2 else [settle, create]
        told = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
        is_made = await store.load(promotion.id) is not None
        assert told[calls.index(settle)] == (promotion.id if is_made else None)
        assert isinstance(told[calls.index(create)], str if is_made else Settled)


async def test_a_held_target_is_refused_with_its_holder(store: RedisStore) -> None:
    """One promotion at a time holds a target; another target is free."""
    holder = await saved(store, new())
    with pytest.raises(TargetBusy, match=f"manual-app/prod is taken by {holder.id}") as busy:
        await store.create(new(), delivery="d2", holds=True)
    assert (busy.value.holder, busy.value.link) == (holder.id, None)
    assert await store.create(new(STAGE), delivery="d2", holds=True)


async def test_a_refused_request_leaves_nothing_behind(store: RedisStore, raw: Redis) -> None:
    """All or nothing: no record, no event, no index, no delivery, and the holder keeps the target."""
    holder = await saved(store, new())
    before = sorted(await raw.keys())
    with pytest.raises(TargetBusy):
        await store.create(new(), delivery="d2", holds=True)
    assert sorted(await raw.keys()) == before
    assert await store.holder(PROD) == holder.id


async def test_the_first_environment_is_never_held(store: RedisStore) -> None:
    """There the newest wins, so several may stand side by side."""
    first, second = new(DEV), new(DEV)
    await store.create(first, delivery=None, holds=False)
    await store.create(second, delivery=None, holds=False)
    assert await store.holder(DEV) is None
    assert await store.history(DEV) == (second, first)


async def test_an_id_that_exists_is_not_taken_again(store: RedisStore) -> None:
    """Ids are random, and two promotions never share one."""
    first = await saved(store, new())
    with pytest.raises(Conflict, match=first.id):
        await store.create(replace(new(), id=first.id, version="16"), delivery=None, holds=False)
    assert await store.load(first.id) == first


async def test_a_save_moves_phase_story_and_due_time(store: RedisStore, raw: Redis) -> None:
    """One save: next edition, one event more, the new phase alone, due at once."""
    first = await saved(store, new())
    await store.rest(first.id, edition=1, after=timedelta(hours=1))
    second = approved(first)
    await store.save([Change(before=first, after=second)], holds=True)
    assert await store.load(first.id) == second
    assert await store.events(first.id) == (first.last, second.last)
    assert await store.events(first.id, after=1) == (second.last,)
    assert await store.events(first.id, after=2) == ()
    assert await store.in_phase(Phase.REQUESTED) == ()
    assert await store.in_phase(Phase.APPROVED) == (second,)
    due = await due_in(raw, second)
    assert due is not None
    assert due <= 0


async def test_of_two_different_saves_one_wins(store: RedisStore) -> None:
    """Who comes second gets a conflict and changes nothing."""
    first = await saved(store, new())
    mine, yours = approved(first), first.cancel(by="U2", at=NOON, why=None)
    await store.save([Change(before=first, after=mine)], holds=True)
    with pytest.raises(Conflict, match=first.id):
        await store.save([Change(before=first, after=yours)], holds=True)
    assert await store.load(first.id) == mine
    assert await store.events(first.id) == (first.last, mine.last)


async def test_the_same_save_twice_counts_once(store: RedisStore) -> None:
    """A repeated save and a repeated request are neither a conflict nor a second event."""
    first = new()
    assert await store.create(first, delivery=None, holds=True) == first.id
    assert await store.create(first, delivery=None, holds=True) == first.id
    change = Change(before=first, after=approved(first))
    await store.save([change], holds=True)
    await store.save([change], holds=True)
    assert len(await store.events(first.id)) == 2


async def test_a_change_is_one_edition(store: RedisStore) -> None:
    """Two steps in one save would lose the first one's event."""
    first = await saved(store, new())
    with pytest.raises(ValueError, match="one edition"):
        await store.save([Change(before=first, after=committing(approved(first)))], holds=True)


@pytest.mark.parametrize("end", ["cancel", "commit"])
async def test_the_hold_ends_with_its_phases(store: RedisStore, end: str) -> None:
    """Requested, approved and committing hold the target; what follows does not."""
    first = new()
    if end == "cancel":
        await saved(store, first, first.cancel(by="U1", at=NOON, why=None))
    else:
        second = approved(first)
        third = committing(second)
        await saved(store, first, second, third, committed(third))
    assert await store.holder(PROD) is None
    assert await store.create(new(), delivery=None, holds=True)


async def test_a_reopened_promotion_still_holds(store: RedisStore) -> None:
    """Back in approved after a push that did not arrive, it keeps its target."""
    first = new()
    second = approved(first)
    third = committing(second)
    await saved(store, first, second, third, third.reopen(at=NOON))
    assert await store.holder(PROD) == first.id


async def test_a_request_can_take_the_hold_in_the_save_that_ends_the_holder(store: RedisStore) -> None:
    """A rollback supersedes what waits; at no instant is the target free for a third."""
    old, urgent = await saved(store, new()), new()
    changes = [Change(before=None, after=urgent), Change(before=old, after=superseded(old))]
    await store.save(changes, holds=True)
    assert await store.holder(PROD) == urgent.id
    assert await store.in_phase(Phase.REQUESTED) == (urgent,)
    await store.save(changes, holds=True)
    assert len(await store.events(old.id)) == 2


async def test_changes_are_saved_all_or_none(store: RedisStore) -> None:
    """Where one of several is out of date, the others are not saved either."""
    old = await saved(store, new())
    await store.save([Change(before=old, after=approved(old))], holds=True)
    urgent = new()
    changes = [Change(before=None, after=urgent), Change(before=old, after=superseded(old))]
    with pytest.raises(Conflict):
        await store.save(changes, holds=True)
    assert await store.load(urgent.id) is None
    assert await store.holder(PROD) == old.id


async def test_a_call_that_was_saved_in_part_by_another_one_is_a_conflict(store: RedisStore) -> None:
    """Calls are saved whole or not at all, so half of one can only be somebody else's work."""
    first, second = await saved(store, new(DEV), holds=False), new(DEV)
    change = Change(before=first, after=approved(first))
    await store.save([change], holds=False)
    with pytest.raises(Conflict, match=first.id):
        await store.save([change, Change(before=None, after=second)], holds=False)
    assert await store.load(second.id) is None
    assert len(await store.events(first.id)) == 2


async def test_of_many_at_the_same_time_one_wins(store: RedisStore) -> None:
    """Eight people press at once: one request holds the target, one of eight decisions counts."""
    made = [new() for _ in range(8)]
    asked = await asyncio.gather(
        *(store.create(each, delivery=None, holds=True) for each in made), return_exceptions=True
    )
    holder = await store.holder(PROD)
    assert sorted(map(str, (each for each in asked if not isinstance(each, TargetBusy)))) == [holder]
    first = next(each for each in made if each.id == holder)
    changes = [Change(before=first, after=first.reject(by=f"U{n}", at=NOON, why="no")) for n in range(8)]
    told = await asyncio.gather(
        *(store.save([change], holds=True) for change in changes), return_exceptions=True
    )
    assert [type(each) for each in told].count(Conflict) == 7
    assert len(await store.events(first.id)) == 2


async def test_a_commit_takes_over_the_following_in_one_save(store: RedisStore) -> None:
    """A committed promotion is followed until a newer one is committed, and ends as superseded right then."""
    older = [new()]
    newer = [new()]
    for editions in (older, newer):
        editions.append(approved(editions[-1]))
        editions.append(committing(editions[-1]))
    old = await saved(store, *older, committed(older[-1]))
    assert await store.followed(PROD) == old.id
    young = await saved(store, *newer)
    with pytest.raises(Conflict):
        await store.save([Change(before=young, after=committed(young))], holds=True)
    assert await store.followed(PROD) == old.id
    changes = [Change(before=young, after=committed(young)), Change(before=old, after=superseded(old))]
    await store.save(changes, holds=True)
    assert await store.followed(PROD) == young.id
    assert await store.in_phase(Phase.COMMITTED) == (committed(young),)


async def test_a_promotion_that_ends_is_not_followed_any_more(store: RedisStore) -> None:
    """Live is an end."""
    first = new()
    second = approved(first)
    third = committing(second)
    fourth = committed(third)
    await saved(store, first, second, third, fourth, fourth.go_live(at=NOON, why="proved"))
    assert await store.followed(PROD) is None


async def test_lists_are_in_order_and_bounded(store: RedisStore) -> None:
    """The phase's oldest first, the target's newest first, never more than was asked for."""
    made = [new(DEV) for _ in range(5)]
    for promotion in made:
        await store.create(promotion, delivery=None, holds=False)
    assert await store.in_phase(Phase.REQUESTED, limit=3) == tuple(made[:3])
    assert await store.history(DEV, limit=3) == tuple(reversed(made[2:]))
    assert await store.history(PROD) == ()


async def test_a_change_within_a_phase_keeps_its_place(store: RedisStore) -> None:
    """The list of what waits for approval is by how long it has waited, whoever withdrew or approved meanwhile."""
    first, second = await saved(store, new(DEV), holds=False), await saved(store, new(DEV), holds=False)
    word = Approval(by=first.requested_by, at=NOON, content_hash=first.content_hash, seal="1" * 64)
    after = first.approve(word)
    await store.save([Change(before=first, after=after)], holds=False)
    assert await store.in_phase(Phase.REQUESTED) == (after, second)


async def test_what_is_unknown_is_nothing(store: RedisStore) -> None:
    """An id that nobody gave has no record, no story, an empty card and an empty look."""
    assert await store.load("P-0000000000") is None
    assert await store.events("P-0000000000") == ()
    assert await store.card("P-0000000000") == Card()
    assert await store.look("P-0000000000") == Look()


async def test_a_record_of_a_newer_bot_is_left_to_it(store: RedisStore, raw: Redis) -> None:
    """During an update an old replica neither reads nor overwrites what a newer one wrote, and lists the others."""
    theirs, ours = new(DEV), new(DEV)
    await saved(store, theirs, holds=False)
    await saved(store, ours, holds=False)
    record = json.dumps({"id": theirs.id, "schema": 99, "edition": 2, "phase": "pondering"})
    await raw.hset(f"{{gp}}:p:{theirs.id}", mapping={"record": record, "edition": 2})
    with pytest.raises(Unavailable, match="belongs to a newer version"):
        await store.load(theirs.id)
    assert await store.history(DEV) == (ours,)
    with pytest.raises(Conflict):
        await store.save([Change(before=theirs, after=approved(theirs))], holds=False)
    assert await raw.hget(f"{{gp}}:p:{theirs.id}", "record") == record


@pytest.mark.parametrize("ruined", ["", "[]", "{}", '{"schema": "x"}', "null", "not JSON"])
async def test_a_ruined_record_is_told_and_hides_no_other(store: RedisStore, raw: Redis, ruined: str) -> None:
    """Nothing that stands in the store can break the bot."""
    broken, whole = new(DEV), new(DEV)
    await saved(store, broken, holds=False)
    await saved(store, whole, holds=False)
    await raw.hset(f"{{gp}}:p:{broken.id}", "record", ruined)
    with pytest.raises(Unavailable, match=f"the record of {broken.id} cannot be read"):
        await store.load(broken.id)
    assert await store.in_phase(Phase.REQUESTED) == (whole,)


async def test_a_field_that_an_older_bot_did_not_write_has_its_default(store: RedisStore, raw: Redis) -> None:
    """Records outlive updates."""
    first = await saved(store, new())
    record = str(await raw.hget(f"{{gp}}:p:{first.id}", "record"))
    older = record.replace('"schema":1,', "").replace('"digest":"unknown",', "")
    assert len(older) < len(record) - len('"schema":1,')
    await raw.hset(f"{{gp}}:p:{first.id}", "record", older)
    assert await store.load(first.id) == first


OLDEST = {"reason", "rollback_of", "approved_at", "link", "base", "revision", "committed_at", "ended_at"} | {
    *("ending", "outcome")
}
"""What the first bot of all knows and may leave out."""
LATER = [each.name for each in fields(Promotion) if each.default is None and each.name not in OLDEST]


def filled(name: str) -> Promotion:
    """A promotion that has one field more than the oldest bot knows."""
    return replace(new(DEV), **{name: Way.EMERGENCY if name == "way" else True if name == "waits" else "x"})


async def test_a_record_that_an_older_bot_can_read_is_left_readable_to_it(
    store: RedisStore, raw: Redis
) -> None:
    """It takes the lowest form that holds it, and the store is told of none above the first."""
    first = await saved(store, new(DEV), holds=False)
    kept = await raw.hgetall(f"{{gp}}:p:{first.id}")
    assert (json.loads(kept["record"])["schema"], kept.get("schema")) == (1, None)


@pytest.mark.parametrize("name", LATER)
async def test_a_record_that_an_older_bot_would_cut_short_is_kept_from_it(
    store: RedisStore, raw: Redis, name: str
) -> None:
    """One field that it does not know is enough, and what was in the higher form once stays there."""
    long = await saved(store, filled(name), holds=False)
    kept = await raw.hgetall(f"{{gp}}:p:{long.id}")
    assert (json.loads(kept["record"])["schema"], kept["schema"]) == (SCHEMA, str(SCHEMA))
    found = await store.load(long.id)
    assert found == long
    assert found is not None
    short = replace(approved(found), **{name: None})
    await store.save([Change(before=found, after=short)], holds=False)
    kept = await raw.hgetall(f"{{gp}}:p:{long.id}")
    assert (json.loads(kept["record"])["schema"], kept["schema"]) == (SCHEMA, str(SCHEMA))


async def test_a_record_that_grows_takes_the_higher_form(store: RedisStore, raw: Redis) -> None:
    """The edition that brings what an older bot does not know is kept from it, and no edition before."""
    first = await saved(store, new(DEV), holds=False)
    grown = replace(approved(first), dossier="f" * 64)
    await store.save([Change(before=first, after=grown)], holds=False)
    kept = await raw.hgetall(f"{{gp}}:p:{first.id}")
    assert (json.loads(kept["record"])["schema"], kept["schema"]) == (SCHEMA, str(SCHEMA))


async def test_a_record_in_the_first_form_does_not_overrun_one_in_a_higher(store: RedisStore) -> None:
    """What we can read ourselves is no newer bot's, whatever the form of the one that takes its place."""
    older, newer = replace(new(DEV), dossier="f" * 64), new(DEV)
    for each in (older, newer):
        written = committing(approved(each))
        await saved(store, each, approved(each), written, holds=False)
        if each is older:
            await store.save([Change(before=written, after=committed(written))], holds=False)
    with pytest.raises(Conflict):  # and not overrun, as one of a newer bot would be
        await store.save([Change(before=written, after=committed(written))], holds=False)
    assert await store.followed(DEV) == older.id


TIMES = st.datetimes(timezones=st.just(UTC))
PROMOTIONS = st.builds(
    Promotion,
    id=st.from_regex(r"P-[0-9A-Z]{10}", fullmatch=True),
    schema=st.just(SCHEMA),
    edition=st.just(1),
    requested_at=TIMES,
    expires_at=TIMES,
    approvals=st.lists(st.builds(Approval, at=TIMES), max_size=3).map(tuple),
    approved_at=st.none() | TIMES,
    committed_at=st.none() | TIMES,
    ended_at=st.none() | TIMES,
    last=st.builds(Event, edition=st.just(1), at=TIMES),
)
CARDS = st.builds(Card, edition=st.just(0), edited_at=st.none() | TIMES)
PROGRESS = st.builds(Progress, since=TIMES, seen_at=st.none() | TIMES, refreshed_at=st.none() | TIMES)
LOOKS = st.builds(Look, applications=st.lists(PROGRESS, max_size=3).map(tuple))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(promotion=PROMOTIONS, card=CARDS, look=LOOKS)
async def test_whatever_was_saved_comes_back_equal(
    url: str, raw: Client, promotion: Promotion, card: Card, look: Look
) -> None:
    """Any text, any time to the microsecond; dates keep their spelling, because seals are made over it."""
    await raw.flushall()
    async with aclosing(RedisStore(connect(url, quick=False))) as store:
        await store.create(promotion, delivery=None, holds=False)
        saved = await store.save_card(promotion.id, card)
        await store.save_look(promotion.id, look)
        loaded = await store.load(promotion.id)
        assert loaded is not None
        assert loaded == promotion
        assert loaded.requested_at.isoformat() == promotion.requested_at.isoformat()
        assert await store.events(promotion.id) == (promotion.last,)
        assert await store.card(promotion.id) == saved == replace(card, edition=1)
        assert await store.look(promotion.id) == look


async def test_a_card_is_not_saved_over_what_somebody_else_has_shown(url: str, raw: Client) -> None:
    """Whoever wakes up late must not bring back what people saw before; a repetition of the last save is none."""
    await raw.flushall()
    async with aclosing(RedisStore(connect(url, quick=False))) as store:
        first = await store.save_card("P-1", Card(channel="C1"))
        second = await store.save_card("P-1", replace(first, told=2))
        assert await store.save_card("P-1", replace(first, told=2)) == second
        with pytest.raises(Conflict):
            await store.save_card("P-1", replace(first, told=1))
        assert await store.card("P-1") == second


async def test_what_was_found_is_kept_as_long_as_it_decides(store: RedisStore, raw: Redis) -> None:
    """For months while the promotion is open, and for two days once its commit is made."""
    first = new()
    second = approved(first)
    third = committing(second)
    await saved(store, first, second, third)
    key, two_days = f"{{gp}}:p:{first.id}:dossier", 48 * 3600 * 1000
    await store.save_dossier(first.id, Dossier(proof="the registry"))
    assert await raw.pttl(key) > two_days
    await store.save([Change(before=third, after=committed(third))], holds=True)
    assert 0 < await raw.pttl(key) <= two_days
