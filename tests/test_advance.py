"""The engine, with everything real but Slack, Argo CD and the clock: from each phase it goes on as the rules say."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from world import AMY, BEN, CHANNEL, DANA, GROUP, NOON, World, push, world_in

from bot.core.advance import Engine
from bot.core.announcing import REMIND_AFTER
from bot.core.catalog import Target
from bot.core.errors import Refused, Unavailable
from bot.core.outcome import Outcome
from bot.core.ports import Author, Change, Plan
from bot.core.promotion import Approval, Phase, Promotion, PromotionId, Signer
from bot.core.rollout import ApplicationFacts
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.gitops import GitRepository
from bot.integrations.slack import SlackDirectory
from bot.integrations.store import RedisStore, connect
from bot.messages.thread import story
from bot.playground import repository as sample

DEFAULTS = {
    "repository": "gitops",
    "argocd": "main",
    "keys": ["image.tag"],
    "values": "values-{env}.yaml",
    "applications": ["{app}-{env}"],
}
FOUR_HOURS = timedelta(hours=4)
AMY_SIGNS = Signer(id=AMY, team="T0DEMO00001", name="Amy Chen", email="amy@acme.example")


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


# --- approvals and time


async def test_without_a_policy_it_is_committed_and_live_at_once(world: World) -> None:
    """Stage needs no approval: nobody is waited for."""
    id = await world.request("stage")
    promotion = await world.advance_until(id, Phase.LIVE)
    assert (promotion.version, world.value("stage"), promotion.approvals) == ("16", "16", ())
    assert world.argocd.truth("manual-app-stage").runs("16")


async def test_with_a_policy_it_waits_for_the_approval(world: World) -> None:
    """Prod waits as long as nobody has approved, and looks again for a reminder and when the time is up."""
    id = await world.request()
    after = await world.advance(id)
    world.passes(3 * 3600)
    assert (await world.find(id)).phase is Phase.REQUESTED
    assert (after, await world.advance(id)) == (REMIND_AFTER[0], FOUR_HOURS - timedelta(hours=3))
    assert (world.value(), world.commits(id)) == ("14", [])


async def test_one_commit_changes_exactly_the_value(world: World) -> None:
    """The commit holds the version, the requester as its author, and who approved it."""
    id = await world.committed()
    (commit,) = world.commits(id)
    card = await world.store.card(id)
    assert world.value() == "15"
    assert commit.author == "Dana Ortiz <dana@acme.example>"
    told = dict(commit.trailers)
    assert told["Approved-By"] == f"Amy Chen <amy@acme.example> (T0DEMO00001/{AMY})"
    assert told["Slack-Message"] == card.link


async def test_it_expires_at_the_very_instant(world: World) -> None:
    """A millisecond before, it waits for that millisecond; then it ends, says so, and loses its buttons."""
    id = await world.request()
    await world.advance(id)
    world.clock.at = NOON + FOUR_HOURS - timedelta(milliseconds=1)
    assert await world.advance(id) == timedelta(milliseconds=1)
    world.clock.at = NOON + FOUR_HOURS
    assert (await world.rest(id)).phase is Phase.EXPIRED
    shown = await world.shown(id)
    assert "Expired" in shown
    assert "promotion_approve" not in shown
    assert "promotion_ask_again" in shown
    assert "Expired: 0 of 1 approvals" in await world.thread(id)
    assert world.commits(id) == []


async def test_an_approval_just_before_the_end_counts(world: World) -> None:
    """What was decided in time is not lost because the worker looks later."""
    id = await world.request()
    world.clock.at = NOON + FOUR_HOURS - timedelta(milliseconds=1)
    await world.promoter.approve(id, user=AMY)
    world.clock.at = NOON + FOUR_HOURS + timedelta(minutes=1)
    await world.advance_until(id, Phase.COMMITTED)


async def test_an_approval_at_the_very_end_is_refused(world: World) -> None:
    """It has expired at that instant, whether or not a worker has looked."""
    id = await world.request()
    world.clock.at = NOON + FOUR_HOURS
    with pytest.raises(Refused, match="has expired"):
        await world.promoter.approve(id, user=AMY)


async def test_an_approver_who_lost_the_right_does_not_count(world: World) -> None:
    """Before the commit everybody is asked for again; the promotion waits for somebody else."""
    id = await world.approved()
    world.slack.user(AMY).kind = "guest"
    await world.advance(id)
    promotion = await world.find(id)
    assert (promotion.phase, promotion.approvals, world.value()) == (Phase.REQUESTED, (), "14")
    assert "promotion_approve" in await world.show(id)
    assert "Waiting for approval again" in await world.thread(id)
    await world.promoter.approve(id, user=BEN)
    await world.advance_until(id, Phase.COMMITTED)
    assert [value for name, value in world.commits(id)[0].trailers if name == "Approved-By"] == [
        f"Ben Ruiz <ben@acme.example> (T0DEMO00001/{BEN})"
    ]


async def test_an_approver_who_left_the_group_does_not_count(tmp_path: Path, redis_url: str) -> None:
    """The group is expanded again before the commit."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": GROUP, "min": 1}]) as world:
        group = world.slack.add_group(GROUP, handle="release", users=[AMY])
        id = await world.approved()
        group.users = [BEN]
        await world.advance(id)
        assert (await world.find(id)).phase is Phase.REQUESTED
        await world.promoter.approve(id, user=BEN)
        await world.advance_until(id, Phase.COMMITTED)


async def test_a_disabled_group_approves_nothing(tmp_path: Path, redis_url: str) -> None:
    """Nobody is in a group that was disabled, also not those who had approved."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": GROUP, "min": 1}]) as world:
        group = world.slack.add_group(GROUP, handle="release", users=[AMY])
        id = await world.approved()
        group.disabled = True
        await world.advance(id)
        assert ((await world.find(id)).phase, world.value()) == (Phase.REQUESTED, "14")


# --- the world changed after the request


async def test_a_value_changed_by_hand_makes_it_stale(world: World) -> None:
    """What was approved is not what would be replaced: nothing is committed."""
    id = await world.approved()
    theirs = world.push_by_hand("prod", "13")[:8]
    promotion = await world.rest(id)
    assert promotion.phase is Phase.STALE
    assert promotion.ending == (
        f"prod went from 14 to 13 after it was asked for (Sam Okafor, {theirs}); nothing was committed"
    )
    assert (world.value(), world.commits(id)) == ("13", [])
    assert "promotion_approve" not in await world.shown(id)


async def test_a_value_changed_before_the_known_tip_makes_it_stale(world: World) -> None:
    """The same where the copy on disk has heard of the change already."""
    id = await world.approved()
    world.push_by_hand("prod", "13")
    await world.values.current(world.target())
    assert (await world.rest(id)).phase is Phase.STALE
    assert not any(event.phase is Phase.COMMITTING for event in await world.store.events(id))


async def test_an_unrelated_commit_does_not_matter(world: World) -> None:
    """Somebody changes another file of the same branch: the promotion is built on top of that."""
    id = await world.approved()
    by_hand = push(world.repository, {"NOTES.md": "hello\n"})
    promotion = await world.advance_until(id, Phase.COMMITTED)
    assert world.value() == "15"
    assert [commit.revision for commit in sample.log(world.repository, limit=2)] == [
        promotion.revision,
        by_hand,
    ]


@pytest.mark.parametrize(
    "different",
    [
        {"policies": {"prod": {"approvals": {"rules": [{"users": [AMY], "min": 1}]}}}},
        {"policies": {}},
        {"defaults": DEFAULTS | {"keys": ["image.repository"]}},
        {"defaults": DEFAULTS | {"values": "values-stage.yaml"}},
    ],
    ids=["fewer approvers", "no approvals", "another key", "another file"],
)
async def test_a_changed_configuration_makes_it_stale(world: World, different: dict[str, Any]) -> None:
    """An approval given under other rules, or for another value, does not count."""
    id = await world.approved()
    engine = world.new_engine(catalog=world.configure(**different))
    await world.advance(id, engine)
    promotion = await world.find(id)
    assert (promotion.phase, world.commits(id)) == (Phase.STALE, [])
    assert "the rules for it changed after it was asked for" in (promotion.ending or "")


async def test_a_target_taken_out_of_the_file_is_kept(world: World) -> None:
    """Its promotion waits until the target is back; nothing is lost and nothing is written."""
    id = await world.approved()
    apps = {"manual-app": {"image": "ghcr.io/acme/manual-app", "environments": {"dev": {}, "stage": {}}}}
    engine = world.new_engine(catalog=world.configure(apps=apps))
    assert await world.advance(id, engine) == timedelta(minutes=10)
    assert (await world.find(id)).phase is Phase.APPROVED
    await world.advance_until(id, Phase.COMMITTED)


async def test_a_refused_push_fails_with_the_servers_words(world: World) -> None:
    """A protected branch cannot be waited for: the promotion ends with what the server said."""
    id = await world.approved()
    hook = world.repository / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "main is protected" in (promotion.ending or "")
    assert (world.value(), world.commits(id)) == ("14", [])


async def test_a_values_file_that_cannot_be_edited_fails(world: World) -> None:
    """What must not be guessed ends the promotion, and the card says why."""
    id = await world.approved()
    push(world.repository, {"values-prod.yaml": 'image: {tag: "14"}\nimage: {tag: "14"}\n'})
    await world.values.plan(world.target("stage"), "16")
    promotion = await world.rest(id)
    assert (promotion.phase, world.commits(id)) == (Phase.FAILED, [])
    assert "values-prod.yaml" in await world.shown(id)


# --- Redis holds state, not authority


async def test_a_forged_approval_is_not_committed(world: World) -> None:
    """Whoever writes an approval to Redis without the key makes the promotion stale, and rings the alarm."""
    id = await world.request()
    before = await world.find(id)
    forged = Approval(by=AMY_SIGNS, at=world.clock.now(), content_hash=before.content_hash, seal="0" * 64)
    await world.store.save([Change(before=before, after=before.approve(forged))], holds=True)
    promotion = await world.rest(id)
    assert (promotion.phase, world.commits(id)) == (Phase.STALE, [])
    assert "changed by somebody else than this bot" in (promotion.ending or "")
    [alarm] = world.alarms
    assert alarm.startswith(f"The record of {id} says what nobody decided")


async def test_an_approval_of_another_promotion_is_not_committed(world: World) -> None:
    """A seal is for one promotion alone, also where the content is the same."""
    first = await world.request()
    await world.promoter.approve(first, user=AMY)
    (approval,) = (await world.find(first)).approvals
    await world.promoter.cancel(first, user=DANA)
    second = await world.request()
    before = await world.find(second)
    await world.store.save([Change(before=before, after=before.approve(approval))], holds=True)
    assert ((await world.rest(second)).phase, world.commits()) == (Phase.STALE, [])


def _another_version(promotion: Promotion, target: Target) -> Promotion:
    hashed = target.content_hash(
        old_version="14",
        version="99",
        digest=promotion.digest,
        changes=promotion.changes,
        dossier=promotion.dossier,
    )
    approvals = tuple(replace(approval, content_hash=hashed) for approval in promotion.approvals)
    return replace(promotion, version="99", content_hash=hashed, approvals=approvals)


def _only_the_version(promotion: Promotion, _target: Target) -> Promotion:
    return replace(promotion, version="99")


def _another_requester(promotion: Promotion, _target: Target) -> Promotion:
    return replace(promotion, requested_by=replace(promotion.requested_by, id=BEN))


def _another_approver(promotion: Promotion, _target: Target) -> Promotion:
    (approval,) = promotion.approvals
    return replace(promotion, approvals=(replace(approval, by=replace(approval.by, id=BEN)),))


def _no_approval(promotion: Promotion, _target: Target) -> Promotion:
    return replace(promotion, approvals=())


@pytest.mark.parametrize(
    "change", [_another_version, _only_the_version, _another_requester, _another_approver, _no_approval]
)
@pytest.mark.parametrize("phase", [Phase.APPROVED, Phase.COMMITTING])
async def test_a_changed_record_is_not_committed(
    world: World, change: Callable[[Promotion, Target], Promotion], phase: Phase
) -> None:
    """Whatever is changed in Redis, and in whichever phase it is put: nothing reaches the branch."""
    id = await world.approved()
    before = await world.find(id)
    changed = change(before, world.target())
    after = replace(changed, edition=before.edition + 1, phase=phase, base=_tip(world))
    await world.store.save([Change(before=before, after=after)], holds=True)
    while (await world.find(id)).phase not in (Phase.STALE, Phase.REQUESTED):
        after_that = await world.advance(id)
        assert after_that is not None
        world.passes(after_that.total_seconds())
        assert (world.value(), world.commits()) == ("14", [])
    await world.advance(id)
    assert (world.value(), world.commits()) == ("14", [])


async def test_an_old_promotion_cannot_be_replayed(world: World) -> None:
    """A promotion that was live long ago is not committed again because Redis says that it is approved."""
    id = await world.committed()
    await world.rest(id)
    world.push_by_hand("prod", "14")
    world.passes(5 * 3600)
    before = await world.find(id)
    after = replace(
        before,
        edition=before.edition + 1,
        phase=Phase.APPROVED,
        approved_at=world.clock.now(),
        base=None,
        revision=None,
    )
    await world.store.save([Change(before=before, after=after)], holds=True)
    for _ in range(4):
        await world.advance(id)
    assert (world.value(), len(world.commits(id))) == ("14", 1)


async def test_a_promotion_that_was_rolled_back_by_hand_is_not_written_again(world: World) -> None:
    """Its record is put back, minutes later, to when it was approved: everything in it is genuine, and git knows better."""
    other = await world.request("dev", "17")
    await world.advance_until(other, Phase.APPROVED)
    world.passes(60)
    id = await world.approved()
    approved = await world.find(id)
    await world.rest(id)
    world.push_by_hand("prod", "14")
    world.passes(60)
    await world.rest(other)  # its commit stands last, and bears an older date
    before = await world.find(id)
    put_back = replace(approved, edition=before.edition + 1)
    await world.store.save([Change(before=before, after=put_back)], holds=True)
    ended = await world.rest(id)
    assert (ended.phase, ended.ending) == (
        Phase.FAILED,
        f"{id} was written before; ask for a new promotion with /promote.",
    )
    assert (world.value(), len(world.commits(id))) == ("14", 1)


def _tip(world: World) -> str:
    tip = sample.head(world.repository)
    assert tip
    return tip


# --- outside systems that are away


async def test_the_git_host_away_before_the_write(world: World) -> None:
    """The card says what it waits for; the pauses grow; when the host is back, it goes on by itself."""
    id = await world.approved()
    with world.git_host_away():
        pauses = [await world.advance(id) for _ in range(4)]
        assert "the git host is not available" in await world.show(id)
        assert (await world.find(id)).phase in (Phase.APPROVED, Phase.COMMITTING)
    known = [pause.total_seconds() for pause in pauses if pause]
    assert known == sorted(known)
    assert known[-1] > known[0]
    await world.advance_until(id, Phase.COMMITTED)
    assert len(world.commits(id)) == 1
    assert (await world.rest(id)).phase is Phase.LIVE
    assert "is not available" not in await world.shown(id)


async def test_the_git_host_away_for_too_long_expires_the_approval(world: World) -> None:
    """What could not be written within half an hour of its approval is not written at all."""
    id = await world.approved()
    with world.git_host_away():
        for _ in range(3):
            await world.advance(id)
        world.passes(31 * 60)
        await world.advance(id)
    promotion = await world.rest(id)
    assert (promotion.phase, world.value(), world.commits(id)) == (Phase.EXPIRED, "14", [])
    assert "within 30 min of its approval" in (promotion.ending or "")


async def test_argocd_away_after_the_commit(world: World) -> None:
    """Not seeing is no failure: the card says so, and the rollout is followed when Argo CD is back."""
    id = await world.committed()
    world.argocd.down = True
    for _ in range(3):
        await world.advance(id)
        world.passes(30)
    shown = await world.shown(id)
    assert "manual-app-prod" in shown
    assert "the commit is pushed" in shown
    assert (await world.find(id)).phase is Phase.COMMITTED
    world.argocd.down = False
    assert (await world.rest(id)).phase is Phase.LIVE
    assert "the commit is pushed" not in await world.shown(id)


async def test_a_token_that_expired_ends_the_following(world: World) -> None:
    """Waiting cannot help: it fails, says that nobody knows, and what somebody has to do."""
    id = await world.committed()
    world.argocd.token_expired = True
    promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "nobody knows whether it is live" in (promotion.ending or "")
    assert "expired or was revoked" in await world.shown(id)


async def test_slack_away_does_not_stop_a_rollout(world: World) -> None:
    """It goes live without anybody seeing; then the card and the thread tell everything, once."""
    id = await world.committed()
    world.slack.down = True
    for _ in range(30):
        if (await world.find(id)).phase is Phase.LIVE:
            break
        after = await world.advance(id)
        world.passes(after.total_seconds() if after else 0)
    assert (await world.find(id)).phase is Phase.LIVE
    assert "Live" not in await world.shown(id)
    world.slack.down = False
    await world.rest(id)
    assert len([card for card in world.cards() if card.blocks]) == 1
    assert "Live: manual-app 15 to prod" in await world.shown(id)
    thread = await world.thread(id)
    assert [thread.count(word) for word in ("asked for", "Committed as", "Live:")] == [1, 1, 1]


async def test_slack_away_from_the_first_moment(world: World) -> None:
    """Where nobody has to approve, it goes on without a card, and the card comes later."""
    id = await world.request("stage")
    world.slack.down = True
    for _ in range(30):
        after = await world.advance(id)
        world.passes(after.total_seconds() if after else 0)
    assert ((await world.find(id)).phase, world.cards()) == (Phase.LIVE, [])
    world.slack.down = False
    await world.rest(id)
    assert "Live: manual-app 16 to stage" in await world.shown(id)


async def test_the_pause_that_slack_asks_for_is_kept(world: World) -> None:
    """After a 429 the rollout goes on, and Slack is not called again before the time that it named."""
    id = await world.committed()
    world.passes(3)
    world.slack.rate_limit(calls=1, retry_after=20)
    await world.advance(id)
    calls = len(world.slack.requests)
    until = world.clock.at + timedelta(seconds=19)
    while world.clock.at < until:
        await world.advance(id)
        world.passes(2)
    assert len(world.slack.requests) == calls
    await world.rest(id)
    assert "Live: manual-app 15 to prod" in await world.shown(id)


async def test_slack_away_before_the_commit_is_waited_for(world: World) -> None:
    """Who cannot be asked about is not believed: the approver is looked up again, or nothing is written."""
    id = await world.approved()
    world.slack.down = True
    for _ in range(3):
        await world.advance(id)
    assert ((await world.find(id)).phase, world.commits(id)) == (Phase.APPROVED, [])
    world.slack.down = False
    await world.advance_until(id, Phase.COMMITTED)


# --- a newer promotion takes the place of an older one


class RememberingStore(RedisStore):
    """The real store; it remembers which phases were saved together."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, quick=False))
        self.saved: list[set[Phase]] = []

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Save, and remember."""
        await super().save(changes, holds=holds)
        self.saved.append({change.after.phase for change in changes})


async def _deploy_to_stage(world: World) -> None:
    """Bring 16 to stage, so that prod may have it."""
    id = await world.request("stage")
    await world.advance_until(id, Phase.LIVE)


async def test_a_newer_commit_supersedes_the_older_in_the_same_save(world: World) -> None:
    """There is no moment at which two promotions of one target are followed, or none is."""
    await _deploy_to_stage(world)
    world.argocd.deaf = True
    old = await world.promoter.request(
        app="manual-app", environment="prod", version=None, reason=None, user=DANA
    )
    await world.promoter.approve(old.id, user=AMY)
    await world.advance_until(old.id, Phase.COMMITTED)
    world.push_by_hand("prod", "14")
    new = await world.request(reason="again")
    await world.promoter.approve(new, user=BEN)
    store = RememberingStore(world.redis_url)
    engine = world.new_engine(store=store)
    for _ in range(6):
        await world.advance(new, engine)
    await store.aclose()
    assert {Phase.COMMITTED, Phase.SUPERSEDED} in store.saved
    assert await world.store.followed(world.target()) == new
    ended = await world.rest(old.id)
    assert (ended.phase, ended.ending) == (Phase.SUPERSEDED, f"{new} brought 16")
    assert "Superseded" in await world.shown(old.id)


async def test_a_later_change_by_hand_supersedes_it(world: World) -> None:
    """Somebody pushes another version over it while it rolls out: it says who, and ends."""
    id = await world.committed()
    world.push_by_hand("prod", "13")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.SUPERSEDED
    assert "by Sam Okafor changed the version again" in (promotion.ending or "")


async def test_in_the_first_environment_the_newest_wins(world: World) -> None:
    """Dev is never held: of two requests at once, the later one is what dev runs at last."""
    first = await world.request("dev", "17")
    second = await world.request("dev", "18")
    await world.rest(first)
    await world.rest(second)
    assert world.value("dev") == "18"


# --- how a rollout ends


async def test_a_degraded_rollout_fails(world: World) -> None:
    """Pods that crash end it, after the grace, with their trouble on the card."""
    id = await world.committed()
    world.argocd.degrade_next_rollout("manual-app-prod")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "degraded" in (promotion.ending or "")
    shown = await world.shown(id)
    assert "Degraded: manual-app 15 → prod" in shown
    assert "promotion_approve" not in shown
    assert promotion.ended_at
    assert promotion.ended_at - (promotion.committed_at or NOON) >= timedelta(seconds=8)


async def test_a_failed_sync_fails(world: World) -> None:
    """Argo CD's own words stand on the card."""
    id = await world.committed()
    world.argocd.fail_next_sync("manual-app-prod", "admission webhook denied the request")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "sync failed: " in (promotion.ending or "")
    assert "admission webhook denied the request" in await world.shown(id)


async def test_a_commit_that_is_not_picked_up_fails(world: World) -> None:
    """Argo CD answers, but never notices the commit."""
    world.argocd.deaf = True
    id = await world.committed()
    promotion = await world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "not picked up" in (promotion.ending or "")
    waited = (promotion.ended_at or NOON) - (promotion.committed_at or NOON)
    assert timedelta(minutes=2) <= waited < timedelta(minutes=3)


async def test_nobody_who_syncs_is_waited_for_a_day(tmp_path: Path, redis_url: str) -> None:
    """Where somebody has to press Sync, it says so, hours later too; a day later it gives up, by a name of its own."""
    async with world_in(tmp_path, redis_url, automated=False) as world:
        id = await world.committed()
        for _ in range(3):
            await world.advance(id)
            world.passes(3)
        assert "somebody has to press Sync" in await world.show(id)
        world.passes(23 * 3600)
        assert "somebody has to press Sync" in await world.show(id)
        world.passes(3600)
        promotion = await world.rest(id)
    assert (promotion.phase, promotion.outcome) == (Phase.FAILED, Outcome.NOT_SYNCED)
    assert "it has waited for 24 hours" in (promotion.ending or "")


async def test_what_recovers_after_it_failed_is_told_once(world: World) -> None:
    """The pods come up after all: card and thread say so, and the promotion stays what it was called."""
    id = await world.committed()
    world.argocd.degrade_next_rollout("manual-app-prod")
    while not (await world.find(id)).phase.is_final:
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    world.argocd.recover("manual-app-prod")
    promotion = await world.rest(id)
    assert (promotion.phase, promotion.outcome) == (Phase.FAILED, Outcome.DEGRADED)
    shown = await world.shown(id)
    assert shown.startswith("Recovered: manual-app 15")
    card = await world.card(id)
    told = [each.text for each in world.slack.thread(CHANNEL, card.ts)]
    assert [each for each in told if "Recovered" in each] == told[-1:]


# --- bugs of ours


class BrokenPlan(GitRepository):
    """A writer with a bug in the way to the commit."""

    async def plan(self, *_: Any, **__: Any) -> Plan:
        """Break."""
        raise KeyError("plan")


class BrokenFind(GitRepository):
    """A writer that cannot look for its own commit."""

    async def find(self, *_: Any) -> str | None:
        """Break."""
        raise KeyError("find")


class BrokenLook(ArgoCD):
    """A reader with a bug in what it makes of Argo CD's answers."""

    async def observe(self, *_: Any, **__: Any) -> ApplicationFacts:
        """Break."""
        raise KeyError("observe")


class BrokenGroups(SlackDirectory):
    """A directory with a bug in reading user groups."""

    async def members(self, group: str) -> frozenset[str]:
        """Break."""
        raise KeyError(group)


async def _advance_like_a_worker(world: World, id: str, engine: Engine, *, reference: str) -> None:
    with pytest.raises(KeyError):
        await world.advance(id, engine)
    await engine.broke(id, reference=reference)


def _broken_writer(world: World, kind: type[GitRepository]) -> GitRepository:
    return kind(
        cache=world.folder / "broken",
        committer=Author(name="promote-bot", email="promote-bot@users.noreply.invalid"),
        allow_local=frozenset({"gitops"}),
    )


async def test_a_bug_before_the_commit_fails_after_three_tries(world: World) -> None:
    """The person gets a reference, not a traceback; nothing was committed, and it may be asked for again."""
    id = await world.approved()
    engine = world.new_engine(values=_broken_writer(world, BrokenPlan))
    for reference in ("aaa111", "bbb222"):
        await _advance_like_a_worker(world, id, engine, reference=reference)
        assert (await world.find(id)).phase is Phase.APPROVED
        assert f"ref {reference}" in await _card_of_a_healthy_worker(world, id)
    await _advance_like_a_worker(world, id, engine, reference="ccc333")
    promotion = await world.find(id)
    assert (promotion.phase, promotion.ending) == (
        Phase.FAILED,
        "Something broke on our side (ref ccc333)",
    )
    assert "ref ccc333" in await world.show(id)
    assert world.commits(id) == []


async def _card_of_a_healthy_worker(world: World, id: str) -> str:
    """Show the card without taking a step."""
    world.passes(3)
    promotion, look = await world.find(id), await world.store.look(id)
    await world.engine.announcing.bring_up(promotion, world.target(), look)
    return await world.shown(id)


async def test_a_bug_while_following_fails_after_three_tries(world: World) -> None:
    """The commit stands, and the card says that the rest is unknown because of us."""
    id = await world.committed()
    broken = BrokenLook(servers={"main": Server(url=world.argocd.url, token="a.b.c")})
    engine = world.new_engine(cluster=broken)
    for reference in ("aaa111", "bbb222", "ccc333"):
        assert (await world.find(id)).phase is Phase.COMMITTED
        await _advance_like_a_worker(world, id, engine, reference=reference)
    await broken.aclose()
    assert (await world.find(id)).phase is Phase.FAILED


async def test_a_bug_while_the_commit_is_under_way_ends_nothing(world: World) -> None:
    """Only git knows what became of the commit, so it is asked again for as long as it takes."""
    id = await world.approved()
    await world.pushed_in_vain(id)
    writer = _broken_writer(world, BrokenFind)
    engine = world.new_engine(values=writer)
    for number in range(5):
        await _advance_like_a_worker(world, id, engine, reference=f"r{number}")
    await writer.aclose()
    assert (await world.find(id)).phase is Phase.COMMITTING
    await world.advance_until(id, Phase.COMMITTED)
    assert len(world.commits(id)) == 1


async def test_a_bug_while_it_waits_for_approval_ends_nothing(tmp_path: Path, redis_url: str) -> None:
    """Nothing is lost as long as nobody has decided; it goes on when we have mended it."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": GROUP, "min": 1}]) as world:
        world.slack.add_group(GROUP, handle="release", users=[AMY])
        id = await world.request()
        await world.promoter.approve(id, user=AMY)
        engine = world.new_engine(directory=BrokenGroups(world.client))
        for number in range(5):
            await _advance_like_a_worker(world, id, engine, reference=f"r{number}")
        assert (await world.find(id)).phase is Phase.REQUESTED
        await world.advance_until(id, Phase.COMMITTED)


async def test_one_bug_after_a_long_wait_does_not_end_it(world: World) -> None:
    """Times at which another system was away are no bugs of ours."""
    id = await world.approved()
    world.slack.down = True
    for _ in range(5):
        await world.advance(id)
    world.slack.down = False
    engine = world.new_engine(values=_broken_writer(world, BrokenPlan))
    await _advance_like_a_worker(world, id, engine, reference="aaa111")
    assert (await world.find(id)).phase is Phase.APPROVED
    await world.advance_until(id, Phase.COMMITTED)


# --- crashes, and two at once


class Killed(BaseException):
    """The process ends here."""


EVERY_ACT = frozenset({"save", "save_card", "save_look", "commit", "post", "edit", "tell"})


class Boundary:
    """Counts what the bot does to the outside, and kills it at one of these acts."""

    def __init__(self, *, after: int, acts: Set[str] = EVERY_ACT) -> None:
        self.left = after
        self.acts = acts

    async def cross(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Do it, unless this is the end."""
        if self.left == 0:
            raise Killed
        self.left -= 1
        return await act()

    def around(self, port: Any) -> Any:
        """The port, with every act that changes something counted."""
        return _Guarded(port, self)


class _Guarded:
    def __init__(self, port: Any, boundary: Boundary) -> None:
        self._port = port
        self._boundary = boundary

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name not in self._boundary.acts:
            return found
        return lambda *args, **named: self._boundary.cross(lambda: found(*args, **named))


SHARES = 6


@pytest.mark.parametrize("share", range(SHARES))
async def test_killed_between_any_two_acts_it_is_taken_over(
    tmp_path: Path, redis_url: str, share: int
) -> None:
    """After every single write to the outside, another process can end it: one commit, live, everything told."""
    acts = share
    while True:
        with Redis.from_url(redis_url) as client:
            client.flushall()
        async with world_in(tmp_path / str(acts), redis_url) as world:
            if not await _killed_and_taken_over(world, Boundary(after=acts)):
                break
        acts += SHARES
    assert acts > 20, "the story has more acts than that"


async def _killed_and_taken_over(world: World, boundary: Boundary) -> bool:
    """Run the whole story; says whether there was a kill."""
    id = await world.request()
    await world.promoter.approve(id, user=AMY)
    parts = world.parts
    engine = world.new_engine(
        store=boundary.around(parts.store),
        values=boundary.around(parts.values),
        announcer=boundary.around(parts.announcer),
    )
    was_killed = True
    with suppress(Killed):
        await world.rest(id, engine)
        was_killed = False
    world.passes(15)
    world.restart()
    promotion = await world.rest(id)
    assert (promotion.phase, world.value(), len(world.commits(id))) == (Phase.LIVE, "15", 1)
    assert promotion.revision == world.commits(id)[0].revision
    assert "Live: manual-app 15 to prod" in (await world.card(id)).text
    assert len([card for card in world.cards() if card.blocks]) <= 2  # a post whose place was never kept
    events = await world.store.events(id)
    assert [event.edition for event in events] == list(range(1, promotion.edition + 1))
    thread = await world.thread(id)
    lines = [line for event in events if (line := story(promotion, [event]))]
    for line in lines:
        alike = lines.count(line)
        assert alike <= thread.count(line) <= alike + 1, line
    return was_killed


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTED])
async def test_another_process_goes_on_in_every_phase(world: World, phase: Phase) -> None:
    """Nothing is remembered in a process: a fresh one, with an empty copy of the repository, goes on."""
    id = await world.request()
    await world.advance(id)
    if phase is not Phase.REQUESTED:
        await world.promoter.approve(id, user=AMY)
        await world.advance_until(id, phase)
    world.restart()
    if phase is Phase.REQUESTED:
        await world.promoter.approve(id, user=AMY)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(world.commits(id)) == 1


@pytest.mark.parametrize("minutes", [0, 3])
@pytest.mark.parametrize("pushed", [False, True], ids=["not pushed", "pushed"])
async def test_a_crash_while_committing_leaves_one_commit(
    world: World, *, pushed: bool, minutes: int
) -> None:
    """Whoever finds it in `committing` reads the remote: there it is and is followed, or it is pushed again.

    Only when nothing can be on its way any more does the story say that it was not written.
    """
    id = await world.approved()
    boundary = Boundary(after=2 if pushed else 1, acts={"save", "commit"})
    writer, store = boundary.around(world.values), boundary.around(world.store)
    with pytest.raises(Killed):
        await world.advance(id, world.new_engine(values=writer, store=store))
    assert (await world.find(id)).phase is Phase.COMMITTING
    assert len(world.commits(id)) == int(pushed)
    world.restart()
    world.passes(60 * minutes)
    await world.advance_until(id, Phase.COMMITTED)
    assert len(world.commits(id)) == 1
    told = [event.what for event in await world.store.events(id)]
    assert ("not written" in told) is (minutes > 0 and not pushed)


@pytest.mark.parametrize("many", [2, 4])
async def test_engines_at_the_same_time_make_one_commit(world: World, many: int) -> None:
    """However many workers advance one promotion beside one another, git holds one commit of it."""
    id = await world.approved()
    engines = [world.new_engine(values=world.new_writer(), store=world.new_store()) for _ in range(many)]
    for _ in range(20):
        await asyncio.gather(*(world.advance(id, engine) for engine in engines))
        if (await world.find(id)).phase is Phase.COMMITTED:
            break
        world.passes(1)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert (len(world.commits(id)), world.value()) == (1, "15")
    events = await world.store.events(id)
    assert [event.edition for event in events] == list(range(1, len(events) + 1))


async def test_the_older_one_may_end_while_the_newer_is_committed(world: World) -> None:
    """A promotion that goes live at the very moment when the next is committed stops nobody."""
    old = await world.committed()
    await world.advance_until(old, Phase.LIVE)
    await _deploy_to_stage(world)
    new = await world.request()
    await world.promoter.approve(new, user=AMY)
    store = LateStore(world.redis_url, old)
    engine = world.new_engine(store=store)
    for _ in range(3):
        await world.advance(new, engine)
    await store.aclose()
    assert (await world.find(new)).phase is Phase.COMMITTED


class LateStore(RedisStore):
    """The real store, whose word on who is followed is a moment old."""

    def __init__(self, url: str, followed: str) -> None:
        super().__init__(connect(url, quick=False))
        self._old = PromotionId(followed)

    async def followed(self, target: Target) -> PromotionId | None:
        """As it was."""
        return await super().followed(target) or self._old


async def test_what_is_not_there_is_left_alone(world: World) -> None:
    """An id that nobody knows is no work."""
    assert await world.engine.advance("P-0000000000") == (0, None)
    assert await world.engine.broke("P-0000000000", reference="abc") == (0, None)


async def test_a_store_that_is_away_is_not_waited_for_here(world: World) -> None:
    """The worker waits for the store; a promotion cannot be told to wait for it."""
    id = await world.request()
    nowhere = RedisStore(connect(f"unix://{world.folder}/nothing.sock", quick=True))
    with pytest.raises(Unavailable, match="the store is not available"):
        await world.new_engine(store=nowhere).advance(id)
    await nowhere.aclose()
