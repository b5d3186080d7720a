"""What git remembers of promotions when the store has lost them."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from world import AMY, DANA, NOON, World, push, world_in

from bot.core.asking import Manner
from bot.core.catalog import UNKNOWN
from bot.core.errors import Refused
from bot.core.ports import Change, Written
from bot.core.promotion import Phase, PromotionId, Terms, Way
from bot.core.reconciling import LOOK_BACK, Reconciling, terms_of
from bot.git_access import COMMITTER
from bot.playground import repository as sample


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def reconciling(world: World) -> Reconciling:
    return Reconciling(engine=world.new_engine())


async def lose_everything(world: World) -> None:
    async with Redis.from_url(world.redis_url) as client:
        await client.flushall()


async def test_a_lost_promotion_goes_on_from_its_commit(world: World) -> None:
    """Its record is made anew, its own card shows how it ends, and its thread says what happened."""
    id = await world.committed()
    before = await world.store.card(id)
    await lose_everything(world)
    assert len(await reconciling(world).reconcile()) == 1
    assert len(await reconciling(world).reconcile()) == 0
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.version, promotion.old_version) == (Phase.LIVE, "15", "14")
    assert (promotion.requested_by.id, [each.by.id for each in promotion.approvals]) == (DANA, [AMY])
    after = await world.store.card(id)
    assert (after.channel, after.ts, after.link) == (before.channel, before.ts, before.link)
    assert len([message for message in world.cards() if message.blocks]) == 1
    assert (await world.shown(id)).startswith("Live")
    assert "The record of this promotion was lost" in await world.thread(id)
    assert len(world.commits(id)) == 1


@pytest.mark.parametrize(("reason", "is_proved"), [(None, False), ("fixes INC-42", True)])
async def test_reason_and_digest_are_remembered_where_there_were_any(
    world: World, reason: str | None, is_proved: bool
) -> None:
    """The trailer says “unknown” where nobody said why, or knew which build; that is no reason, and no digest."""
    if not is_proved:
        app = {"image": "ghcr.io/acme/manual-app", "same_image": "tag-only"}
        world.parts = replace(world.parts, catalog=world.configure(apps={"manual-app": app}))
        world.engine = world.new_engine()
    id = await world.request(reason=reason)
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    before = await world.advance_until(id, Phase.COMMITTED)
    assert (before.digest != UNKNOWN) == is_proved
    await lose_everything(world)
    await reconciling(world).reconcile()
    promotion = await world.find(id)
    assert (promotion.reason, promotion.digest) == (reason, before.digest)


async def test_what_nobody_knows_any_more_is_asked_for_again(world: World) -> None:
    """Approved and not yet written: nothing tells of it, so nothing is written, and a click says what to do."""
    id = await world.approved()
    await lose_everything(world)
    assert len(await reconciling(world).reconcile()) == 0
    with pytest.raises(Refused, match="ask again with /promote"):
        await world.promoter.approve(id, user=AMY)
    assert world.commits() == []


async def test_a_record_from_an_older_backup_learns_of_its_commit(world: World) -> None:
    """The store says `approved`, git holds the commit: it is not written again, and goes on from there."""
    id = await world.approved()
    async with Redis.from_url(world.redis_url) as client:
        backup = {key: await client.dump(key) for key in await client.keys()}
        await world.rest(id)
        await client.flushall()
        for key, value in backup.items():
            await client.restore(key, 0, value)
    assert (await world.find(id)).phase is Phase.APPROVED
    assert len(await reconciling(world).reconcile()) == 1
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(world.commits(id)) == 1


async def test_a_commit_that_contradicts_its_record_is_only_told(
    world: World,
) -> None:
    """Somebody rejected it, and yet it is on the branch: an alarm, and nobody's word is changed."""
    id = await world.committed()
    promotion = await world.find(id)
    rejected = replace(
        promotion,
        phase=Phase.REJECTED,
        revision=None,
        edition=promotion.edition + 1,
        last=replace(promotion.last, edition=promotion.edition + 1),
    )
    await world.store.save([Change(before=promotion, after=rejected)], holds=True)
    assert len(await reconciling(world).reconcile()) == 0
    assert (await world.find(id)).phase is Phase.REJECTED
    [alarm] = world.alarms
    assert alarm.startswith(f"{id} is rejected, and yet ")


def commit(world: World, message: str, *, who: tuple[str, str] | None = None) -> None:
    """A commit with this message, the bot's own or somebody else's."""
    ours = (COMMITTER.name, COMMITTER.email or "")
    push(world.repository, {"NOTES.md": message}, message=message, who=who or ours)
    world.clock.at = datetime.now(UTC)  # git has dated it by the machine's clock


TRAILERS = """\
Promotion-Format: 1
Promotion-Id: P-7F3KQ0V9XZ
App: manual-app
Environment: prod
From: stage
Old-Version: 13
New-Version: 14
Requested-By: Dana <dana@acme.example> (T0DEMO00001/U0DANADEV01)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("P-7F3KQ0V9XZ", "P-7F3"),
        ("manual-app", "another-app"),
        ("Environment: prod", "Environment: mars"),
        ("Requested-By: Dana", "Seen-By: Dana"),
        ("(T0DEMO00001/U0DANADEV01)", ""),
        ("(T0DEMO00001/U0DANADEV01)", "(T0DEMO00001/U0DANADEV01> <!channel)"),
        ("New-Version: 14", "New-Version: 14> <!channel"),
    ],
)
async def test_what_is_no_promotion_of_ours_is_left_alone(world: World, old: str, new: str) -> None:
    """CI's commits, strange ids, apps of others: nothing is recorded of them."""
    commit(world, "Promote\n\n" + TRAILERS.replace(old, new))
    assert len(await reconciling(world).reconcile()) == 0


async def test_a_commit_of_somebody_else_is_left_alone(world: World) -> None:
    """Anybody may write trailers; only the bot's own commits count."""
    commit(world, "Promote\n\n" + TRAILERS, who=("Eve", "eve@acme.example"))
    assert len(await reconciling(world).reconcile()) == 0
    commit(world, "Promote\n\n" + TRAILERS)
    assert len(await reconciling(world).reconcile()) == 1


async def test_what_lies_long_ago_is_left_alone(world: World) -> None:
    """Old promotions are swept out of the store on purpose."""
    id = await world.committed()
    await lose_everything(world)
    world.passes((LOOK_BACK + timedelta(days=1)).total_seconds())
    assert len(await reconciling(world).reconcile()) == 0
    assert await world.store.load(id) is None


async def test_only_the_last_promotion_of_a_target_is_followed_again(world: World) -> None:
    """An older one was superseded; its story is in git."""
    first = await world.committed()
    await world.rest(first)
    world.push_by_hand("stage", "16")
    await world.roll_out("stage")
    second = await world.committed()
    await lose_everything(world)
    assert len(await reconciling(world).reconcile()) == 1
    assert await world.store.load(first) is None
    assert (await world.rest(PromotionId(second))).phase is Phase.LIVE


async def test_two_replicas_record_it_once(world: World) -> None:
    """Whoever comes second finds the record there."""
    id = await world.committed()
    await lose_everything(world)
    engines = [world.new_engine(values=world.new_writer(), store=world.new_store()) for _ in range(3)]
    told = await asyncio.gather(*(Reconciling(engine=engine).reconcile() for engine in engines))
    assert any(told)
    assert [event.what for event in await world.store.events(id)] == ["rebuilt"]


async def test_a_branch_that_is_away_is_compared_later(world: World) -> None:
    """Nothing is concluded from what cannot be read."""
    id = await world.committed()
    await lose_everything(world)
    world.repository.rename(world.repository.with_name("gone"))
    [sentence] = await reconciling(world).reconcile()
    assert sentence.startswith("gitops cannot be compared with the store yet: ")
    world.repository.with_name("gone").rename(world.repository)
    assert len(await reconciling(world).reconcile()) == 1
    assert sample.log(world.repository, limit=1)
    assert (await world.find(id)).phase is Phase.COMMITTED


@pytest.mark.parametrize("date", ["99999999999999 +0000", "-5 +0000", "yesterday"])
async def test_a_date_that_no_calendar_knows_stops_nobody(world: World, date: str) -> None:
    """Anybody may push a commit with the bot's name and such a date: the other commits are still compared."""
    id = await world.committed()

    def git(*words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["git", *words], cwd=world.repository, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    tip = git("rev-parse", "main")
    ours = f"{COMMITTER.name} <{COMMITTER.email}>"
    head = f"tree {git('rev-parse', 'main^{tree}')}\nparent {tip}\nauthor {ours} {date}\ncommitter {ours} {date}\n"
    raw = f"{head}\nPromote\n\n{TRAILERS}"
    odd = git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw)
    git("update-ref", "refs/heads/main", odd)
    await lose_everything(world)
    [sentence] = await reconciling(world).reconcile()
    assert sentence.startswith(f"{id} was lost")


async def test_by_which_way_it_came_to_its_commit_is_remembered(world: World) -> None:
    """Glass that was broken has to be looked at, whatever the store has lost; and the incident is known."""
    prod = {
        "approvals": {"rules": [{"users": [AMY], "min": 1}]},
        "emergency": {"who": [DANA], "skips": ["quorum"]},
    }
    catalog = world.configure(policies={"prod": prod})
    world.parts = replace(world.parts, catalog=catalog)
    world.engine = world.new_engine()
    asked = await world.moving(
        world.promoter.request(
            app="manual-app",
            environment="prod",
            version=None,
            reason="checkout is down",
            user=DANA,
            manner=Manner(incident="INC-99"),
        )
    )
    await world.advance_until(asked.id, Phase.COMMITTED)
    await lose_everything(world)
    await reconciling(world).reconcile()
    promotion = await world.find(asked.id)
    assert (promotion.way, promotion.incident) == (Way.EMERGENCY, "INC-99")
    assert promotion.needs_review


@pytest.mark.parametrize(
    ("trailers", "terms"),
    [
        ({}, Terms()),
        ({"Way": "at once"}, Terms(way=Way.AT_ONCE)),
        ({"Way": "emergency"}, Terms()),
        ({"Break-Glass": "true", "Incident": "unknown"}, Terms(way=Way.EMERGENCY)),
        ({"Incident": "INC-99"}, Terms()),
    ],
)
def test_a_way_is_what_its_trailers_say(trailers: dict[str, str], terms: Terms) -> None:
    """A rollback that nobody had to approve, an emergency, and the ordinary way of all older commits."""
    written = Written(revision="a" * 40, at=NOON, trailers=tuple(trailers.items()))
    assert terms_of(written) == terms
