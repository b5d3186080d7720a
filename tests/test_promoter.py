"""What people ask of the bot: each rule with the words that the person reads."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from world import AMY, BEN, DANA, GROUP, GUS, MEL, NOON, OLGA, ROBO, ZED, World, world_in

from bot.core.errors import Refused, TargetBusy, Unavailable
from bot.core.people import Action
from bot.core.promoter import Promoter
from bot.core.promotion import Phase

TWO_OF_THREE = [{"users": [AMY, BEN, MEL], "min": 2}]


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def nothing_recorded(world: World) -> bool:
    """Is the store as it was at the beginning?"""
    return not any([await world.store.history(world.target(name)) for name in ("dev", "stage", "prod")])


# --- the order of environments


async def test_without_a_version_the_live_one_is_pinned(world: World) -> None:
    """What the environment before runs now is taken, and stays what was asked for."""
    id = await world.request()
    world.push_by_hand("stage", "17")
    await world.roll_out("stage")
    promotion = await world.find(id)
    assert (promotion.version, promotion.old_version, promotion.source) == ("15", "14", "stage")
    assert [(change.path, change.before, change.after) for change in promotion.changes] == [
        (
            "values-prod.yaml",
            '  tag: "14" # the same image that stage ran',
            '  tag: "15" # the same image that stage ran',
        )
    ]


async def test_another_version_than_the_one_before_is_refused(world: World) -> None:
    """Only what the environment before runs may be asked for; the answer says what to type first."""
    with pytest.raises(Refused) as refused:
        await world.request("prod", "16")
    assert str(refused.value) == (
        "stage runs 15, not 16. Promote 16 to stage first: /promote manual-app 16 stage"
    )
    assert await nothing_recorded(world)


async def test_a_rollout_that_still_runs_is_not_good_enough(world: World) -> None:
    """The environment before must be live: pods that are coming up are not."""
    world.push_by_hand("stage", "17")
    world.argocd.refresh("manual-app-stage", "normal")
    world.passes(3)
    with pytest.raises(Refused, match="stage is not live and healthy: manual-app-stage "):
        await world.request()


async def test_a_degraded_environment_is_not_good_enough(world: World) -> None:
    """What crashes in stage does not reach prod, whatever version it has."""
    world.argocd.degrade_next_rollout("manual-app-stage")
    world.push_by_hand("stage", "17")
    await world.roll_out("stage")
    with pytest.raises(
        Refused, match="stage is not live and healthy: manual-app-stage is Synced and Degraded"
    ):
        await world.request()
    assert await nothing_recorded(world)


async def test_the_first_environment_needs_a_version(world: World) -> None:
    """There is nothing before it to take one from."""
    with pytest.raises(Refused, match="dev is the first environment, so say which version"):
        await world.request("dev")
    assert (await world.find(await world.request("dev", "17"))).source == "ci"


async def test_the_same_version_is_nothing_to_do(world: World) -> None:
    """Whatever stage runs by now: what prod has already is not asked for again."""
    for environment, version in (("dev", "16"), ("prod", "14")):
        with pytest.raises(Refused) as refused:
            await world.request(environment, version)
        assert str(refused.value) == f"{environment} already runs {version}; nothing to do."
    assert await nothing_recorded(world)


async def test_the_version_of_the_environment_before_may_be_there_already(world: World) -> None:
    """Without a version, the answer says where the version would have come from."""
    world.push_by_hand("prod", "15")
    with pytest.raises(Refused) as refused:
        await world.request()
    assert str(refused.value) == "prod already runs 15, which is what stage runs; nothing to do."


@pytest.mark.parametrize("version", ["1 5", "-15", ".15", "15;rm", "15\n16", "v" * 129, "", "15/16", "ü"])
async def test_an_odd_version_is_refused_with_the_rule(world: World, version: str) -> None:
    """Only an image tag is a version."""
    with pytest.raises(Refused, match="an image tag has up to 128 letters"):
        await world.request("dev", version)


@pytest.mark.parametrize(
    ("app", "environment", "says"),
    [
        ("manual-ap", "prod", "Did you mean “manual-app”?"),
        ("manual-app", "prd", "Did you mean “prod”?"),
        ("manual-app", "zzz", "There is: dev, stage, prod."),
    ],
)
async def test_an_unknown_name_is_answered_with_the_nearest(
    world: World, app: str, environment: str, says: str
) -> None:
    """A slip of the finger costs one more look, and does nothing."""
    with pytest.raises(Refused) as refused:
        await world.promoter.request(app=app, environment=environment, version="15", reason=None, user=DANA)
    assert says in str(refused.value)


# --- one at a time


async def test_a_held_target_is_refused_with_its_holder(world: World) -> None:
    """Who holds it, since when in which state, and the link to its card."""
    id = await world.request()
    await world.advance(id)
    with pytest.raises(TargetBusy) as busy:
        await world.request(user=MEL)
    card = await world.store.card(id)
    assert str(busy.value) == (
        f"manual-app in prod is held by {id}, asked for by Dana Ortiz: it waits for approval. "
        f"Wait for it, have it cancelled (/promote cancel {id}), or, as long as nobody has approved it, "
        "take its place with --replace."
    )
    assert busy.value.link == card.link
    assert busy.value.link


async def test_the_first_environment_is_never_held(world: World) -> None:
    """Two may be asked for dev at once."""
    first, second = await world.request("dev", "17"), await world.request("dev", "18")
    assert first != second
    assert await world.store.holder(world.target("dev")) is None


@pytest.mark.parametrize("ending", ["reject", "cancel", "commit"])
async def test_what_was_decided_holds_no_more(world: World, ending: str) -> None:
    """The next may be asked for as soon as nothing of the last one is in question."""
    id = await world.request()
    if ending == "reject":
        await world.promoter.reject(id, user=AMY, why="not today")
    elif ending == "cancel":
        await world.promoter.cancel(id, user=DANA)
    else:
        await world.promoter.approve(id, user=AMY)
        await world.advance_until(id, Phase.COMMITTED)
        world.push_by_hand("prod", "14")
    assert await world.request() != id


async def test_one_delivery_makes_one_promotion(world: World) -> None:
    """Slack's second copy of a command gets the promotion that the first one made."""
    ids = await asyncio.gather(*(world.request(delivery="1337.42.abc") for _ in range(3)))
    assert len(set(ids)) == 1
    assert len(await world.store.history(world.target())) == 1


async def test_another_delivery_is_another_request(world: World) -> None:
    """Two commands are two commands, also when they say the same."""
    assert await world.request("dev", "17", delivery="a") != await world.request("dev", "17", delivery="b")


# --- who may do what

OUTSIDERS = {GUS: "guests may not promote", OLGA: "you are from another workspace", ROBO: "bots may not"}


@pytest.mark.parametrize("user", [GUS, OLGA, ROBO, ZED])
async def test_only_full_members_do_anything(world: World, user: str) -> None:
    """Guests, people of other workspaces, bots and those who left are refused, also where a rule names them."""
    world.parts = replace(
        world.parts,
        catalog=world.configure(
            policies={"prod": {"approvals": {"rules": [{"users": [user, AMY], "min": 1}]}}}
        ),
    )
    id, promoter = await world.request(), world.promoter
    tries: list[Callable[[], Awaitable[object]]] = [
        lambda: world.request("dev", "17", user=user),
        lambda: promoter.approve(id, user=user),
        lambda: promoter.reject(id, user=user, why="no"),
        lambda: promoter.cancel(id, user=user),
        lambda: promoter.withdraw(id, user=user),
        lambda: promoter.member(user),
    ]
    for attempt in tries:
        with pytest.raises(Refused, match=OUTSIDERS.get(user, "your account is deactivated")):
            await attempt()
    assert ((await world.find(id)).edition, await world.store.history(world.target("dev"))) == (1, ())


async def test_own_approval_is_refused(world: World) -> None:
    """Whoever asked needs somebody else, also where the policy names them."""
    id = await world.request(user=AMY)
    for attempt in (
        world.promoter.approve(id, user=AMY),
        world.promoter.reject(id, user=AMY, why="changed my mind"),
    ):
        with pytest.raises(Refused, match="You asked for manual-app 15 to prod, so somebody else must"):
            await attempt
    await world.promoter.approve(id, user=BEN)


async def test_a_stranger_to_the_policy_is_refused(world: World) -> None:
    """A full member whom no rule names neither approves, nor rejects, nor cancels."""
    id = await world.request()
    for attempt, verb in (
        (lambda: world.promoter.approve(id, user=MEL), "approve"),
        (lambda: world.promoter.reject(id, user=MEL, why="no"), "reject"),
        (lambda: world.promoter.cancel(id, user=MEL), "cancel"),
    ):
        with pytest.raises(Refused, match=f"You may not {verb} manual-app 15 to prod: only"):
            await attempt()
    assert (await world.find(id)).edition == 1


@pytest.mark.parametrize("user", [DANA, AMY])
async def test_requester_and_approvers_may_cancel(world: World, user: str) -> None:
    """Both have a say in calling it off, and the story keeps who it was."""
    id = await world.request()
    cancelled = await world.promoter.cancel(id, user=user, why="not needed")
    assert (cancelled.phase, cancelled.last.by, cancelled.ending) == (Phase.CANCELLED, user, "not needed")


async def test_cancelling_is_too_late_once_the_commit_is_under_way(world: World) -> None:
    """From there only git knows, and nobody may say that it did not happen."""
    id = await world.approved()
    await world.pushed_in_vain(id)
    with pytest.raises(Refused, match=f"It is too late to cancel {id}: its commit is being written"):
        await world.promoter.cancel(id, user=DANA)


async def test_the_sole_approver_cannot_ask(tmp_path: Path, redis_url: str) -> None:
    """A request that nobody could approve is refused when it is made, not after four hours."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"users": [AMY], "min": 1}]) as world:
        says = rf"Nobody could approve this: prod needs 1 of {AMY} \(rule 1\), and 0 of them could: "
        with pytest.raises(Refused, match=says):
            await world.request(user=AMY)
        assert await nothing_recorded(world)
        await world.request(user=DANA)


async def test_a_member_of_the_group_may_approve(tmp_path: Path, redis_url: str) -> None:
    """Groups are expanded at the click: who left a moment ago is refused."""
    async with world_in(tmp_path, redis_url, prod_rules=[{"group": GROUP, "min": 1}]) as world:
        group = world.slack.add_group(GROUP, handle="release", users=[AMY, BEN])
        id = await world.request()
        group.users = [BEN]
        with pytest.raises(Refused, match="You may not approve"):
            await world.promoter.approve(id, user=AMY)
        assert (await world.promoter.approve(id, user=BEN)).approved_by(BEN)


# --- approvals


async def test_two_approvals_at_the_same_time_both_count(tmp_path: Path, redis_url: str) -> None:
    """Neither overwrites the other, and nobody is told to press again."""
    async with world_in(tmp_path, redis_url, prod_rules=TWO_OF_THREE) as world:
        id = await world.request()
        await asyncio.gather(*(world.promoter.approve(id, user=user) for user in (AMY, BEN)))
        assert {approval.by.id for approval in (await world.find(id)).approvals} == {AMY, BEN}
        await world.advance_until(id, Phase.COMMITTED)


async def test_the_same_person_counts_once(tmp_path: Path, redis_url: str) -> None:
    """Pressing twice is not two people."""
    async with world_in(tmp_path, redis_url, prod_rules=TWO_OF_THREE) as world:
        id = await world.request()
        await world.promoter.approve(id, user=AMY)
        with pytest.raises(Refused, match=f"You have already approved {id}"):
            await world.promoter.approve(id, user=AMY)
        await world.advance(id)
        assert (await world.find(id)).phase is Phase.REQUESTED


async def test_only_its_giver_withdraws_an_approval(tmp_path: Path, redis_url: str) -> None:
    """What was given can be taken back as long as it is not enough, by nobody else."""
    async with world_in(tmp_path, redis_url, prod_rules=TWO_OF_THREE) as world:
        id = await world.request()
        await world.promoter.approve(id, user=AMY)
        with pytest.raises(Refused, match="so there is nothing to withdraw"):
            await world.promoter.withdraw(id, user=BEN)
        assert (await world.promoter.withdraw(id, user=AMY)).approvals == ()
        await world.promoter.approve(id, user=BEN)
        await world.advance(id)
        assert (await world.find(id)).phase is Phase.REQUESTED


async def test_a_button_that_showed_something_else_is_refused(world: World) -> None:
    """An approval is for what the person saw."""
    id = await world.request()
    with pytest.raises(Refused, match="is not what that button showed"):
        await world.promoter.approve(id, user=AMY, content_hash="sha256:0")
    assert (await world.find(id)).approvals == ()


async def test_after_the_decision_one_is_told_what_happened(world: World) -> None:
    """Whoever comes late reads how it ended."""
    id = await world.request()
    await world.promoter.reject(id, user=AMY, why="not on a Friday")
    for attempt in (
        world.promoter.approve(id, user=BEN),
        world.promoter.reject(id, user=BEN, why="no"),
        world.promoter.require_may(Action.REJECT, id, user=BEN),
    ):
        with pytest.raises(Refused, match=f"{id} any more: it was rejected"):
            await attempt


async def test_an_unknown_promotion_is_answered_with_ask_again(world: World) -> None:
    """If it was lost, nothing is assumed."""
    for attempt in (
        world.promoter.approve("P-0000000000", user=AMY),
        world.promoter.cancel("P-0000000000", user=AMY),
        world.promoter.ask_again("P-0000000000", user=AMY),
    ):
        with pytest.raises(Refused, match=r"I know no promotion P-0000000000\. If it was lost, ask again"):
            await attempt


async def test_an_id_may_be_typed_in_small_letters(world: World) -> None:
    """Ids are read aloud and typed by hand."""
    id = await world.request()
    assert (await world.promoter.find(id.lower())).id == id


async def test_a_rejection_needs_a_reason(world: World) -> None:
    """The requester has to know what to change."""
    id = await world.request()
    for empty in ("", "   ", "\n"):
        with pytest.raises(Refused, match="Say why"):
            await world.promoter.reject(id, user=AMY, why=empty)
    rejected = await world.promoter.reject(id, user=AMY, why="no\nApproved-By: Amy")
    assert rejected.ending == "no Approved-By: Amy"


async def test_a_long_reason_is_cut(world: World) -> None:
    """Five hundred characters tell enough."""
    promotion = await world.find(await world.request(reason="because " * 200))
    assert promotion.reason is not None
    assert len(promotion.reason) == 500


async def test_asking_again_is_a_new_request(world: World) -> None:
    """Every rule is asked anew; one that is open cannot be asked for again."""
    id = await world.request(reason="the sale")
    with pytest.raises(Refused, match=f"{id} is still open"):
        await world.promoter.ask_again(id, user=MEL)
    await world.promoter.cancel(id, user=DANA)
    again = await world.promoter.ask_again(id, user=MEL)
    assert (again.version, again.reason, again.requested_by.id) == ("15", "the sale", MEL)
    assert (again.phase, again.approvals) == (Phase.REQUESTED, ())


async def test_a_target_taken_out_of_the_file_is_refused(world: World) -> None:
    """A card that outlived its target answers with words."""
    id = await world.request()
    apps = {"manual-app": {"image": "ghcr.io/acme/manual-app", "environments": {"dev": {}, "stage": {}}}}
    promoter = world.new_promoter(catalog=world.configure(apps=apps))
    with pytest.raises(Refused, match="manual-app has no prod environment"):
        await promoter.approve(id, user=AMY)


# --- outside systems that are away


async def test_with_the_directory_away_nothing_is_recorded(world: World) -> None:
    """Who cannot be looked up is not waved through."""
    id = await world.request()
    world.slack.down = True
    for attempt in (
        world.request("dev", "17"),
        world.promoter.approve(id, user=AMY),
        world.promoter.reject(id, user=AMY, why="no"),
        world.promoter.cancel(id, user=DANA),
    ):
        with pytest.raises(Unavailable, match="Slack is not available"):
            await attempt
    assert ((await world.find(id)).edition, await world.store.history(world.target("dev"))) == (1, ())


async def test_with_git_or_argocd_away_nothing_is_recorded(world: World) -> None:
    """A request is checked as a whole, or not made."""
    with world.git_host_away(), pytest.raises(Unavailable, match="the git host is not available"):
        await world.request()
    world.argocd.down = True
    with pytest.raises(Unavailable, match="Argo CD is not available"):
        await world.request()
    assert await nothing_recorded(world)


# --- questions


async def test_pending_lists_what_waits_oldest_first(world: World) -> None:
    """What is decided waits no more."""
    stage, prod = await world.request("stage"), await world.request()
    assert [promotion.id for promotion, _ in await world.promoter.pending()] == [stage, prod]
    await world.promoter.cancel(prod, user=DANA)
    assert [promotion.id for promotion, _ in await world.promoter.pending()] == [stage]


async def test_status_tells_git_argocd_and_what_is_under_way(world: World) -> None:
    """One line for each environment; a system that is away costs its own words alone."""
    id = await world.request()
    places = await world.promoter.status(app="manual-app")
    assert [(place.target.environment, place.version) for place in places] == [
        ("dev", "16"),
        ("stage", "15"),
        ("prod", "14"),
    ]
    assert [place.current.id if place.current else None for place in places] == [None, None, id]
    world.argocd.down = True
    (place,) = (await world.promoter.status())[-1:]
    assert place.version == "14"
    assert "Argo CD is not available" in str(place.applications[0])
    with pytest.raises(Refused, match="Did you mean “manual-app”"):
        await world.promoter.status(app="manual")


async def test_an_expiry_is_fixed_with_the_request(world: World) -> None:
    """Four hours from the request, as the policy says then."""
    promoter: Promoter = world.promoter
    promotion = await world.find(await world.request())
    assert promotion.expires_at == NOON + timedelta(hours=4)
    assert promoter.target_of(promotion) == world.target()
