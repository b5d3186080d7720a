"""What once let something through that nobody may have decided, or left somebody stuck; none of it may come back."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from world import AMY, BEN, CHANNEL, DANA, GROUP, GUS, MEL, PROD_RULES, ROLLOUT, World, world_in

from bot.core.advance import LANDS_WITHIN
from bot.core.asking import Manner
from bot.core.board import Lock, Report, Scope
from bot.core.errors import Refused, Unavailable
from bot.core.people import Action
from bot.core.promotion import Phase, Promotion, PromotionId
from bot.core.rollout import Look
from bot.integrations import records
from bot.integrations.slack import SlackDirectory
from bot.shared_directory import SharedDirectory

EVERYTHING = ["soak", "checks", "probes", "parity", "windows", "locks", "quorum"]


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def governed(world: World, **rules: Any) -> None:
    """Prod has these rules besides its approvals from now on."""
    plain = {"rollout": ROLLOUT}
    prod = plain | {"approvals": {"rules": PROD_RULES, "expires": "4h"}} | rules
    catalog = world.configure(policies={"dev": plain, "stage": plain, "prod": prod})
    world.parts = replace(world.parts, catalog=catalog)
    world.engine = world.new_engine()


def rewritten(world: World, promotion: Promotion) -> None:
    """Somebody who may write to the store puts this in the place of the record."""
    with Redis.from_url(world.redis_url) as raw:
        key = f"{{gp}}:p:{promotion.id}"
        raw.hset(key, mapping={"record": records.record(promotion), "edition": promotion.edition})


async def brought_two(world: World) -> None:
    """Prod has had 15 and has 16 now, both live and proved; so has stage."""
    await world.rest(await world.committed())
    await world.advance_until(await world.request("stage"), Phase.LIVE)
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.LIVE)


async def asked_to_wait(world: World) -> str:
    """A request to prod that starts when the gates pass, approved."""
    request = world.promoter.request(
        app="manual-app", environment="prod", version=None, reason=None, user=DANA, manner=Manner(waits=True)
    )
    id = (await world.moving(request)).id
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.advance(id)
    return str(id)


def closed_now(world: World, reason: str = "not now") -> Lock:
    return Lock(scope=Scope(environment="prod"), by=BEN, reason=reason, at=world.clock.now())


# --- whoever writes to the store decides nothing


async def test_an_old_approval_is_not_written_as_if_its_push_were_under_way(world: World) -> None:
    """What was cancelled a week ago stays so, also where its record says that it is being written right now."""
    id = await world.approved()
    approved = await world.find(id)
    await world.promoter.cancel(id, user=DANA)
    await world.rest(id)
    world.passes(7 * 24 * 3600)
    plan = await world.values.plan(world.target(), "15")
    under_way = approved.start_commit(at=world.clock.now(), base=plan.base)
    rewritten(world, under_way)
    for _ in range(3):
        await world.advance(id)
        world.passes(5)
    assert (world.value(), world.commits(id)) == ("14", [])
    world.passes(LANDS_WITHIN.total_seconds())
    await world.rest(id)
    assert (world.value(), (await world.find(id)).phase) == ("14", Phase.EXPIRED)


async def test_a_verdict_counts_only_where_it_was_given(world: World, redis_url: str) -> None:
    """A verdict on the same build in another environment, laid where this one's would be, is none."""
    governed(world, checks=["integration"])
    image = await world.new_drafting().running(world.target("stage"), "15")
    elsewhere = Report(
        app="manual-app",
        environment="dev",
        image=image,
        check="integration",
        passed=True,
        by="hook:ci",
        at=world.clock.now(),
    )
    await world.board.report(world.parts.sealer.sealed_report(elsewhere), delivery="a-delivery")
    with Redis.from_url(redis_url) as raw:
        raw.rename('{gp}:reports:["manual-app","dev","15"]', '{gp}:reports:["manual-app","stage","15"]')
    with pytest.raises(Refused, match="nobody has reported it"):
        await world.request()


async def test_the_store_makes_nobody_a_member_of_a_group(world: World, redis_url: str) -> None:
    """Who belongs to a group is Slack's word, also where all processes share what was read."""
    world.slack.add_group(GROUP, handle="release", users=[AMY])
    people = SharedDirectory(
        directory=SlackDirectory(world.client),
        board=world.board,
        sealer=world.parts.sealer,
        clock=world.clock,
    )
    assert await people.members(GROUP) == {AMY}
    with Redis.from_url(redis_url) as raw:
        [key] = raw.keys("{gp}:group:*")
        genuine = raw.get(key)
        raw.set(key, f'["{AMY}","{MEL}"]')
        assert await people.members(GROUP) == {AMY}
        raw.set(key, genuine.replace(AMY.encode(), MEL.encode()))
        assert await people.members(GROUP) == {AMY}
        world.slack.group(GROUP).users = [BEN]
        world.passes(61)
        raw.set(key, genuine)
        assert await people.members(GROUP) == {BEN}


async def test_the_card_shows_no_dossier_but_the_one_that_was_found(world: World) -> None:
    """Whoever approves may not be shown something else than what the approval counts for."""
    promotion = await world.find(await world.request())
    found = await world.store.dossier(promotion.id)
    assert found is not None
    await world.store.save_dossier(promotion.id, replace(found, checks=("everything passed",)))
    seen: list[Look] = []
    post = world.parts.announcer.post

    async def posting(target: Any, shown: Any, look: Look) -> Any:
        seen.append(look)
        return await post(target, shown, look)

    world.parts.announcer.post = posting  # type: ignore[assignment, method-assign]
    await world.advance(promotion.id)
    assert [look.dossier for look in seen] == [None]


# --- nobody is stuck


async def test_what_has_lost_its_dossier_can_be_ended(world: World, redis_url: str) -> None:
    """Nobody may approve it, as the refusal says; whoever asked for it calls it off, as the refusal says too."""
    id = await world.request()
    assert (await world.find(id)).dossier
    with Redis.from_url(redis_url) as raw:
        raw.delete(f"{{gp}}:p:{id}:dossier")
    with pytest.raises(Refused, match="lost or was changed"):
        await world.promoter.approve(id, user=AMY)
    await world.promoter.require_may(Action.REJECT, id, user=AMY)
    await world.promoter.cancel(id, user=DANA)
    assert (await world.find(id)).phase is Phase.CANCELLED


async def test_what_is_live_is_rolled_back_without_a_dossier(world: World, redis_url: str) -> None:
    """What was found before a commit says nothing about who may take it back."""
    id = await world.committed()
    await world.rest(id)
    with Redis.from_url(redis_url) as raw:
        raw.set(f"{{gp}}:p:{id}:dossier", "written by another version")
    back = await world.moving(world.promoter.roll_back_from(id, user=DANA))
    assert back.version == "14"


async def test_what_was_tried_to_be_written_does_not_wait_for_its_gates_for_days(world: World) -> None:
    """While it may still be on its way it cannot be called off, so it ends where its gates have closed meanwhile."""
    governed(world, waits="3d")
    id = await asked_to_wait(world)
    commit = world.values.commit

    async def lost(_: Any) -> str:
        raise Unavailable("the git host", "it did not answer")

    world.values.commit = lost  # type: ignore[assignment, method-assign]
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTING
    world.values.commit = commit  # type: ignore[method-assign]
    await world.board.lock(closed_now(world))
    for _ in range(8):
        world.passes(30)
        await world.advance(id)
    ended = await world.find(id)
    assert (ended.phase, world.value()) == (Phase.STALE, "14")
    assert "not now" in (ended.ending or "")


async def test_what_it_waits_for_is_still_told_after_trouble(world: World) -> None:
    """The end of somebody's outage does not take away what was written down about the gates at the same moment."""
    governed(world, waits="3d")
    await world.board.lock(closed_now(world))
    id = await asked_to_wait(world)
    await world.store.save_look(id, Look(waits_for="Slack is not available; trying again", tries=1))
    await world.advance(id)
    look = await world.store.look(id)
    assert (look.waits_for, "not now" in look.held_by) == ("", True)


async def test_nobody_is_kept_from_asking_by_what_is_not_configured_any_more(world: World) -> None:
    """Requests of an app that was taken out cannot be cancelled, so they do not count."""
    promotion = await world.find(await world.request())
    for number in range(5):
        gone = replace(promotion, id=PromotionId(f"P-000000000{number}"), app="retired-app")
        await world.store.create(gone, delivery=None, holds=False)
    await world.promoter.cancel(promotion.id, user=DANA)
    assert await world.request("stage")


async def test_who_asks_in_vain_leaves_nothing_behind(world: World, redis_url: str) -> None:
    """A target that is held refuses every other request; none of those may stay in the store for months."""
    await world.request()
    for _ in range(3):
        with pytest.raises(Refused, match="is held by"):
            await world.request(user=MEL)
    with Redis.from_url(redis_url) as raw:
        assert len(raw.keys("{gp}:p:*:dossier")) == 1


# --- rollbacks and emergencies


async def test_a_rollback_at_once_goes_before_one_that_waits_for_approvals(world: World) -> None:
    """Whoever may roll back at once is not held up by a request for the same that nobody has approved yet."""
    governed(world, rollback={"who": [BEN], "within": "24h"})
    await brought_two(world)
    slow = await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=MEL))
    assert slow.way is None
    fast = await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=BEN))
    assert fast.way == "at once"
    assert (await world.find(slow.id)).phase is Phase.SUPERSEDED


async def test_a_rollback_that_needs_approvals_stops_no_emergency(world: World) -> None:
    """Anybody may ask for a rollback; glass that was broken is not mended by that."""
    governed(world, emergency={"who": [BEN], "skips": EVERYTHING})
    await world.rest(await world.committed())
    await world.advance_until(await world.request("stage"), Phase.LIVE)
    glass = await world.moving(
        world.promoter.request(
            app="manual-app",
            environment="prod",
            version=None,
            reason="it burns",
            user=BEN,
            manner=Manner(incident="INC-42"),
        )
    )
    with pytest.raises(Refused, match="is held by"):
        await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=MEL))
    assert not (await world.find(glass.id)).phase.is_final


async def test_an_emergency_is_told_where_its_channel_is_closed(world: World) -> None:
    """Nobody breaks glass quietly by throwing the bot out of the app's own channel first."""
    plain = {"rollout": ROLLOUT}
    world.slack.add_channel("C0AUDITLOG1", name="audit", members=[AMY, BEN])
    prod = plain | {
        "approvals": {"rules": PROD_RULES, "expires": "4h"},
        "emergency": {"who": [BEN], "skips": EVERYTHING},
    }
    catalog = world.configure(
        slack={"channel": CHANNEL, "audit": "C0AUDITLOG1"},
        policies={"dev": plain, "stage": plain, "prod": prod},
    )
    world.parts = replace(world.parts, catalog=catalog)
    world.engine = world.new_engine()
    world.slack.workspace.channels[CHANNEL].archived = True
    glass = await world.moving(
        world.promoter.request(
            app="manual-app",
            environment="prod",
            version=None,
            reason="it burns",
            user=BEN,
            manner=Manner(incident="INC-42"),
        )
    )
    for _ in range(3):
        await world.advance(glass.id)
        world.passes(61)
    told = [message.text for message in world.slack.messages("C0AUDITLOG1")]
    assert len(told) == 1
    assert "INC-42" in told[0]


async def test_a_lock_of_somebodys_outlives_a_rollback(world: World) -> None:
    """The lock that a rollback leaves may be passed by another rollback; it takes no other lock's place."""
    governed(world, rollback={"who": [BEN], "within": "24h"})
    await brought_two(world)
    back = await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=BEN))
    commit = world.values.commit

    async def slowly(edit: Any) -> str:
        theirs = Scope(app="manual-app", environment="prod")
        await world.board.lock(Lock(scope=theirs, by=AMY, reason="evidence", at=world.clock.now()))
        return await commit(edit)

    world.values.commit = slowly  # type: ignore[method-assign]
    await world.advance_until(back.id, Phase.COMMITTED)
    [lock] = await world.board.locks()
    assert (lock.reason, lock.after) == ("evidence", None)


# --- the order of things


async def test_who_reports_a_check_does_not_ask_on_the_strength_of_it(world: World) -> None:
    """Whether the verdict comes before the request or after it: it is somebody else's."""
    governed(world, checks=[{"name": "accepted", "reporters": [DANA, MEL]}])
    await world.keeper.report_check("manual-app", "15", "accepted", passed=True, user=DANA)
    with pytest.raises(Refused, match="somebody else"):
        await world.request(user=DANA)
    assert await world.request(user=MEL)


async def test_who_is_no_member_learns_nothing_by_a_button(world: World) -> None:
    """A guest is refused as such, whatever the button is about."""
    id = await world.request()
    with pytest.raises(Refused, match="guests may not"):
        await world.promoter.ask_again(id, user=GUS)
    with pytest.raises(Refused, match="guests may not"):
        await world.promoter.cancel("P-0000000000", user=GUS)


async def test_a_version_before_leaves_alone_what_it_cannot_read(world: World) -> None:
    """The form has a number of its own: older workers would drop what is new in it, and ask no gate."""
    promotion = await world.find(await world.request())
    assert json.loads(records.record(promotion))["schema"] >= 2
