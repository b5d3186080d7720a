"""The engine, with everything real but Slack, Argo CD and the clock: from each phase it goes on as the rules say."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import AMY, BEN, DANA, GROUP, NOON, World, push, world_in

from bot.core.advance import Engine
from bot.core.catalog import Application, Target
from bot.core.errors import Refused, Unavailable
from bot.core.ports import Card, Change, Edit, Plan
from bot.core.promotion import Approval, Phase, Promotion, Signer
from bot.core.rollout import ApplicationFacts, Look
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.gitops import GitRepository
from bot.integrations.slack import SlackAnnouncer, SlackDirectory
from bot.integrations.store import RedisStore, connect
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
    """Prod waits as long as nobody has approved, and looks again only when the time is up."""
    id = await world.request()
    after = await world.advance(id)
    world.passes(3600)
    assert (await world.find(id)).phase is Phase.REQUESTED
    assert (after, await world.advance(id)) == (FOUR_HOURS, FOUR_HOURS - timedelta(hours=1))
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
    world.push_by_hand("prod", "13")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.STALE
    assert promotion.ending == "prod went from 14 to 13 after it was asked for; nothing was committed"
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
    """Whoever writes an approval to Redis without the key makes the promotion stale, not committed."""
    id = await world.request()
    before = await world.find(id)
    forged = Approval(by=AMY_SIGNS, at=world.clock.now(), content_hash=before.content_hash, seal="0" * 64)
    await world.store.save([Change(before=before, after=before.approve(forged))], holds=True)
    promotion = await world.rest(id)
    assert (promotion.phase, world.commits(id)) == (Phase.STALE, [])
    assert "changed by somebody else than this bot" in (promotion.ending or "")


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
    hashed = target.content_hash(old_version="14", version="99", digest="unknown")
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
    for _ in range(6):
        await world.advance(id)
    assert (world.value(), world.commits()) == ("14", [])
    assert (await world.find(id)).phase in (Phase.STALE, Phase.REQUESTED)


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
    assert "is not available" not in await world.show(id)


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
    assert "within 30 minutes" in (promotion.ending or "")


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
