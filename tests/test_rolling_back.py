"""Rollbacks as people ask for them: from a typed sentence or a button to the commit, and to what runs then."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import PROD
from conftest import empty
from hypothesis import given
from hypothesis import strategies as st
from test_rollback import back, history
from world import AMY, BEN, CHANNEL, DANA, GUS, MEL, OLGA, VERSIONS, World, push, world_in

from bot.core import asking
from bot.core.errors import Refused, TargetBusy
from bot.core.ports import Change
from bot.core.promotion import Phase, Promotion, PromotionId
from bot.core.reconciling import Reconciling
from bot.core.rollback import deployed, wanted
from bot.core.rollback import history as everything
from bot.integrations.store import RedisStore, connect
from bot.playground import repository as sample


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made, made.hearing():
        yield made


async def live(world: World) -> str:
    """A promotion that is live in prod: 15 in place of 14."""
    id = await world.committed()
    assert (await world.rest(id)).phase is Phase.LIVE
    return id


async def brought(world: World, *versions: str) -> list[str]:
    """Promotions that brought these versions to dev, each live there."""
    ids = []
    for version in versions:
        ids.append(await world.request("dev", version))
        assert (await world.rest(ids[-1])).phase is Phase.LIVE
    return ids


async def failed(world: World, environment: str, id: str) -> Promotion:
    """The promotion after its pods crashed."""
    world.argocd.degrade_next_rollout(f"manual-app-{environment}")
    while not (promotion := await world.find(id)).phase.is_final:
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    assert promotion.phase is Phase.FAILED
    await world.show(id)
    return promotion


async def roll_back(world: World, environment: str = "prod", *, user: str = MEL, **words: Any) -> Promotion:
    return await world.promoter.roll_back(app="manual-app", environment=environment, user=user, **words)


async def next_one(world: World) -> str:
    """16 is live in stage, and somebody asks for it in prod."""
    await world.advance_until(await world.request("stage"), Phase.LIVE)
    return await world.request()


async def the_only_one(world: World) -> Promotion:
    (promotion,) = await world.pending()
    return promotion


# --- typed


async def test_a_typed_rollback_takes_the_ordinary_way(world: World) -> None:
    """Asked, approved by somebody else, committed, live: called a rollback wherever people read of it."""
    before = await live(world)
    await world.command("rollback manual-app prod because checkout is slow", user=AMY)
    answer, promotion = await world.answer(AMY), await the_only_one(world)
    assert promotion.id in answer
    assert (promotion.version, promotion.old_version, promotion.reason) == ("14", "15", "checkout is slow")
    assert promotion.rollback_of == before
    await world.advance(promotion.id)
    card = await world.card(promotion.id)
    assert card.text.startswith("ROLLBACK · Approval needed: manual-app 14 to prod (15 → 14), asked by Amy")
    assert "ROLLBACK · Approval needed: manual-app 14 → prod" in json.dumps(card.blocks, ensure_ascii=False)
    assert "asked to go back to `14` in *prod*: checkout is slow" in await world.thread(promotion.id)

    await world.press(promotion.id, "approve", user=AMY)
    assert "somebody else must approve" in await world.answer(AMY, number=2)
    assert world.value() == "15"
    await world.press(promotion.id, "approve", user=BEN)
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    assert world.argocd.truth("manual-app-prod").runs("14")
    (commit,) = world.commits(promotion.id)
    trailers = dict(commit.trailers)
    assert commit.subject == "Roll manual-app back to 14 in prod"
    assert (trailers["Rollback-Of"], trailers["New-Version"], trailers["Old-Version"]) == (before, "14", "15")
    assert trailers["Approved-By"].startswith("Ben Ruiz")
    assert (await world.shown(promotion.id)).startswith("ROLLBACK · Live")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rollback manual-app prod to 99", "never had 99 in prod"),
        ("rollback manual-app prod to 16", "It had 15, 14."),
        ("rollback manual-app prod to 15", "prod already runs 15; nothing to roll back"),
        ("rollback manual-app prod to 1:5", "That is not a version"),
        ("rollback manual-ap prod", "Did you mean “manual-app”?"),
        ("rollback manual-app prd", "Did you mean “prod”?"),
        ("rollback manual-app 14 to prod", "I know no environment called “14”"),
        ("rollback manual-app", "Type /promote rollback &lt;app&gt; &lt;environment&gt;"),
        ("rollback manual-app stage", "none of my commits brought anything to manual-app in stage"),
        ("rollback manual-app stage to 14", "none of my commits brought anything to manual-app in stage"),
        ("rolback manual-app prod", "Did you mean the word “rollback”?"),
        ("rollbakc prod", "Did you mean the word “rollback”?"),
        ("roll back prod", "Did you mean the word “rollback”?"),
        ("roll back manual-app prod to 14", "Did you mean “rollback”?"),
    ],
)
async def test_what_is_no_rollback_is_answered_with_what_to_do(world: World, text: str, says: str) -> None:
    """The reason, the nearest word or the versions that there were; and nothing is recorded."""
    await live(world)
    await world.command(text, user=MEL)
    assert says in await world.answer(MEL)
    assert await world.pending() == []


@pytest.mark.parametrize("user", [GUS, OLGA])
@pytest.mark.parametrize(
    "text",
    [
        "rollback manual-app dev",
        "rollback manual-ap dev",
        "rollback manual-app dv",
        "manual-ap 17 dev",
        "rolback x",
        "manual-app",
        "manual-ap",
    ],
)
async def test_outsiders_are_told_nothing(world: World, user: str, text: str) -> None:
    """Guests and people of other workspaces ask for nothing, and a wrong spelling teaches them no name."""
    await brought(world, "17")
    await world.command(text, user=user)
    answer = await world.answer(user)
    assert "You may not do that" in answer
    assert "manual-app" not in answer
    assert len(await world.store.history(world.target("dev"))) == 1


async def test_the_order_of_the_environments_does_not_bind_a_rollback(world: World) -> None:
    """What stage has left behind may come back to prod, if prod had it; it may not be promoted there."""
    await live(world)
    await world.command("manual-app 14 to prod")
    assert "stage runs 15, not 14" in await world.answer()
    await world.command("rollback manual-app prod to 14")
    await world.answer(number=2)
    assert (await the_only_one(world)).version == "14"


# --- the button


async def test_the_button_on_a_live_card_asks_for_what_was_there_before(world: World) -> None:
    """Whoever is a full member may press it; the card of the rollback stands for itself."""
    before = await live(world)
    assert (await world.press(before, "roll_back", user=MEL)).error is None
    answer = await world.answer(MEL)
    promotion = await the_only_one(world)
    assert promotion.id in answer
    assert (promotion.rollback_of, promotion.version, promotion.requested_by.id) == (before, "14", MEL)
    await world.advance(promotion.id)
    assert "ROLLBACK" in (await world.card(promotion.id)).text
    assert (await world.find(before)).phase is Phase.LIVE


async def test_the_button_on_a_failed_card_takes_its_commit_back(world: World) -> None:
    """A rollout that failed blocks nobody: the rollback is written, and runs."""
    before = await world.committed()
    await failed(world, "prod", before)
    await world.press(before, "roll_back", user=DANA)
    promotion = await the_only_one(world)
    assert promotion.rollback_of == before
    await world.advance(promotion.id)
    await world.press(promotion.id, "approve", user=AMY)
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    assert world.argocd.truth("manual-app-prod").runs("14")


@pytest.mark.parametrize("user", [GUS, OLGA])
async def test_the_button_is_for_full_members(world: World, user: str) -> None:
    """Others are told why, in private."""
    before = await live(world)
    await world.press(before, "roll_back", user=user)
    assert "You may not do that" in await world.answer(user)
    assert await world.pending() == []


async def test_a_card_whose_version_is_gone_takes_nothing_back(world: World) -> None:
    """What it brought was replaced since: the person is told what stands there, and what to type."""
    before = await live(world)
    world.push_by_hand("prod", "hotfix")
    await world.press(before, "roll_back", user=MEL)
    answer = await world.answer(MEL)
    assert "prod holds hotfix now, not 15" in answer
    assert "/promote rollback manual-app prod" in answer
    assert await world.pending() == []


async def test_a_copy_of_a_card_rolls_nothing_back(world: World) -> None:
    """Only the promotion's own card has buttons that do something."""
    before = await live(world)
    card = await world.card(before)
    copy = world.slack.workspace.add(CHANNEL, world.slack.bot_user, card.text, blocks=card.blocks)
    await world.slack.click(MEL, CHANNEL, copy.ts, "promotion_roll_back")
    assert "That was a copy" in await world.answer(MEL)
    assert await world.pending() == []


async def test_pressed_twice_it_asks_once(world: World) -> None:
    """The second press is told who holds the target."""
    before = await live(world)
    for number in (1, 2):
        await world.press(before, "roll_back", user=MEL)
        await world.answer(MEL, number=number)
    promotion = await the_only_one(world)
    assert f"is held by {promotion.id}" in world.told(MEL)[1]


@pytest.mark.parametrize("environment", ["dev", "prod"])
async def test_one_press_that_is_delivered_three_times_asks_once(world: World, environment: str) -> None:
    """Every delivery is answered with the same rollback, also where nobody holds the target."""
    before = (await brought(world, "17"))[0] if environment == "dev" else await live(world)
    card = await world.card(before)
    url = world.slack.events_url
    assert url
    await world.slack.click(MEL, CHANNEL, card.ts, "promotion_roll_back", to=[url] * 3)
    await world.answer(MEL, number=3)
    newest, *older = await world.store.history(world.target(environment))
    assert newest.is_rollback
    assert [each.id for each in older] == [before]
    assert all(newest.id in told for told in world.told(MEL))


async def test_one_command_that_is_delivered_twice_asks_once(world: World) -> None:
    """The second delivery is the same rollback, although another one would be the default by now."""
    await brought(world, "17", "18")
    for number, retry in enumerate((False, True), start=1):
        await world.command("rollback manual-app dev", trigger_id="13.37.abc", retry=retry)
        await world.answer(number=number)
        await world.rest((await world.store.history(world.target("dev")))[0].id)
    rollbacks = [each for each in await world.store.history(world.target("dev")) if each.is_rollback]
    assert [each.version for each in rollbacks] == ["17"]
    assert world.value("dev") == "17"


# --- sealed, and kept in git


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, rollback_of=None),
        lambda found: replace(found, rollback_of="P-0000000000"),
        lambda found: replace(found, reason="the board wants it"),
    ],
    ids=["no rollback", "of another", "another reason"],
)
async def test_a_record_that_was_changed_is_not_committed(
    world: World, change: Callable[[Promotion], Promotion]
) -> None:
    """What it takes back, and why, is sealed with the request: nobody who writes to the store can change the trail."""
    await live(world)
    id = (await roll_back(world, reason="checkout is slow")).id
    await world.promoter.approve(id, user=AMY)
    before = await world.find(id)
    after = change(replace(before, edition=before.edition + 1))
    await world.store.save([Change(before=before, after=after)], holds=True)
    assert (await world.rest(id)).phase is Phase.STALE
    assert (world.value(), world.commits(id)) == ("15", [])
    assert [alarm for alarm in world.alarms if id in alarm]


async def test_a_rollback_is_rebuilt_from_its_commit(world: World) -> None:
    """The store has lost everything: it is still called a rollback, and of what."""
    before = await live(world)
    promotion = await roll_back(world)
    await world.advance(promotion.id)
    await world.promoter.approve(promotion.id, user=AMY)
    await world.advance_until(promotion.id, Phase.COMMITTED)
    empty(world.redis_url)
    assert len(await Reconciling(engine=world.new_engine()).reconcile()) == 1
    again = await world.rest(promotion.id)
    assert (again.phase, again.rollback_of, again.version) == (Phase.LIVE, before, "14")
    assert (await world.shown(promotion.id)).startswith("ROLLBACK · Live")


async def test_a_digest_comes_back_with_its_version(world: World) -> None:
    """Where the file holds the image's digest, what was tested comes back, whatever the tag may be by now."""
    world.parts = replace(
        world.parts,
        catalog=world.configure(
            apps={"manual-app": {"image": "ghcr.io/acme/manual-app", "digests": ["image.digest"]}}
        ),
    )
    world.engine = world.new_engine()

    def put(environment: str, version: str) -> None:
        text = sample.read_file(world.repository, f"values-{environment}.yaml").replace("digest:", "was:")
        kept = [line for line in text.splitlines() if "was:" not in line]
        place = next(number for number, line in enumerate(kept) if "tag:" in line)
        kept[place : place + 1] = [f'  tag: "{version}"', f'  digest: "{digest(version)}"']
        push(world.repository, {f"values-{environment}.yaml": "\n".join(kept) + "\n"})

    def digest(version: str) -> str:
        return f"sha256:{int(version):064x}"

    put("prod", "14")
    for version in ("15", "16"):
        put("stage", version)
        await world.roll_out("stage")
        id = await world.request()
        await world.promoter.approve(id, user=AMY)
        await world.advance_until(id, Phase.COMMITTED)
        assert digest(version) in sample.read_file(world.repository, "values-prod.yaml")
    promotion = await roll_back(world, version="15")
    assert (promotion.version, promotion.digest) == ("15", digest("15"))
    await world.promoter.approve(promotion.id, user=AMY)
    await world.advance_until(promotion.id, Phase.COMMITTED)
    text = sample.read_file(world.repository, "values-prod.yaml")
    assert (world.value(), digest("15") in text, digest("16") in text) == ("15", True, False)
    assert ("Digest", digest("15")) in world.commits(promotion.id)[0].trailers


# --- the hold


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.APPROVED])
async def test_a_rollback_takes_the_place_of_what_nobody_has_written(world: World, phase: Phase) -> None:
    """At once, whether it was approved or not; its card and its thread say what took its place."""
    await live(world)
    waiting = await next_one(world)
    await world.advance(waiting)
    if phase is Phase.APPROVED:
        await world.promoter.approve(waiting, user=AMY)
        await world.advance(waiting)
    assert (await world.find(waiting)).phase is phase
    await world.command("rollback manual-app prod", user=MEL)
    answer, promotion = await world.answer(MEL), await the_only_one(world)
    assert promotion.id in answer
    assert await world.store.holder(world.target()) == promotion.id
    ended = await world.rest(waiting)
    says = f"{promotion.id} rolls prod back to 14"
    assert (ended.phase, ended.ending) == (Phase.SUPERSEDED, says)
    assert f"Superseded: {says}" in await world.thread(waiting)
    assert (await world.shown(waiting)).startswith("Superseded")
    assert world.commits(waiting) == []


@pytest.mark.parametrize("phase", [Phase.COMMITTING, Phase.APPROVED])
async def test_a_rollback_waits_for_what_may_be_written(world: World, phase: Phase) -> None:
    """A push that nobody saw the end of may still arrive: it is not pushed aside, and the person is told whose it is."""
    await live(world)
    waiting = await next_one(world)
    await world.promoter.approve(waiting, user=AMY)
    await world.advance_until(waiting, Phase.APPROVED)
    approved = await world.find(waiting)
    tip = sample.head(world.repository)
    assert tip
    writing = approved.start_commit(at=world.clock.now(), base=tip)
    await world.store.save([Change(before=approved, after=writing)], holds=True)
    if phase is Phase.APPROVED:
        opened = writing.reopen(at=world.clock.now())
        await world.store.save([Change(before=writing, after=opened)], holds=True)
    await world.command("rollback manual-app prod", user=MEL)
    answer = await world.answer(MEL)
    assert f"is held by {waiting}, asked for by Dana Ortiz" in answer
    assert "--replace" not in answer
    assert (await world.find(waiting)).phase is phase
    assert await world.pending() == []


async def test_a_rollback_waits_for_another_rollback(world: World) -> None:
    """Two that disagree are settled by people: the second is told who asked first, and no option that helps nobody."""
    await live(world)
    first = await roll_back(world, user=DANA)
    await world.command("rollback manual-app prod to 14", user=MEL)
    answer = await world.answer(MEL)
    assert f"is held by {first.id}, asked for by Dana Ortiz" in answer
    assert f"Wait for it, or have it cancelled (/promote cancel {first.id})." in answer
    assert (await the_only_one(world)).id == first.id


async def test_nobody_is_advised_to_replace_what_cannot_be_replaced(world: World) -> None:
    """A request takes the place of no rollback, and a rollback knows no options."""
    await live(world)
    first = await roll_back(world, user=DANA)
    await world.advance_until(await world.request("stage"), Phase.LIVE)
    await world.command("manual-app prod", user=MEL)
    answer = await world.answer(MEL)
    assert f"is held by {first.id}" in answer
    assert "--replace" not in answer


@pytest.mark.parametrize("is_held", [False, True], ids=["free", "held by a request"])
async def test_of_two_rollbacks_at_once_one_wins(world: World, is_held: bool) -> None:
    """The other person is told so, and there is one request in the end."""
    await live(world)
    waiting = await next_one(world) if is_held else None
    askers = (roll_back(world, user=user) for user in (MEL, DANA))
    made = await asyncio.gather(*askers, return_exceptions=True)
    (winner,) = [each for each in made if isinstance(each, Promotion)]
    (loser,) = [each for each in made if isinstance(each, Exception)]
    assert isinstance(loser, Refused)
    assert f"is held by {winner.id}" in str(loser)
    assert (await the_only_one(world)).id == winner.id
    if waiting:
        assert (await world.find(waiting)).phase is Phase.SUPERSEDED


class Interrupted(RedisStore):
    """Something happens at the very moment at which the place of a request is about to be taken."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def create(self, promotion: Promotion, **words: Any) -> PromotionId:
        """Save, after what happens meanwhile."""
        if words.get("instead_of") and (meanwhile := self.meanwhile):
            self.meanwhile = None
            await meanwhile()
        return await super().create(promotion, **words)


async def interrupted(world: World, meanwhile: Callable[[], Awaitable[object]]) -> Promotion:
    """A rollback during which something happens."""
    store = Interrupted(connect(world.redis_url, quick=False))
    store.meanwhile = meanwhile
    try:
        people = world.new_promoter(store=store)
        return await people.roll_back(app="manual-app", environment="prod", user=MEL)
    finally:
        await store.aclose()


async def test_an_approval_at_that_very_moment_changes_nothing(world: World) -> None:
    """Nobody has to ask for the rollback again: what it takes the place of is looked at once more."""
    await live(world)
    waiting = await next_one(world)
    promotion = await interrupted(world, lambda: world.promoter.approve(waiting, user=AMY))
    ended = await world.find(waiting)
    assert (ended.phase, [each.by.id for each in ended.approvals]) == (Phase.SUPERSEDED, [AMY])
    assert await world.store.holder(world.target()) == promotion.id


async def test_another_rollback_at_that_very_moment_is_told(world: World) -> None:
    """Who holds the target now, and not who held it a moment ago."""
    await live(world)
    await next_one(world)
    with pytest.raises(Refused) as refused:
        await interrupted(world, lambda: roll_back(world, user=DANA))
    winner = await the_only_one(world)
    assert winner.is_rollback
    assert f"is held by {winner.id}, asked for by Dana Ortiz: it waits for approval" in str(refused.value)


class Answering(RedisStore):
    """Something happens right after it has said that the target is held."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def create(self, promotion: Promotion, **words: Any) -> PromotionId:
        """Save; where that is refused, something happens before anybody hears of it."""
        try:
            return await super().create(promotion, **words)
        except TargetBusy:
            if meanwhile := self.meanwhile:
                self.meanwhile = None
                await meanwhile()
            raise


async def test_what_has_just_ended_holds_nobody_up(world: World) -> None:
    """Neither a rollback nor a request is refused because of a promotion that is over when the answer is read."""
    await live(world)
    store = Answering(connect(world.redis_url, quick=False))
    people = world.new_promoter(store=store)
    made = []
    for ask in (people.roll_back, partial(people.request, version=None, reason=None)):
        waiting = await next_one(world) if not made else made[-1]
        store.meanwhile = partial(world.promoter.cancel, waiting, user=AMY)
        promotion = await world.moving(ask(app="manual-app", environment="prod", user=MEL))
        assert (await world.find(waiting)).phase is Phase.CANCELLED
        made.append(promotion.id)
    assert await world.store.holder(world.target()) == made[-1]
    await store.aclose()


async def test_what_is_written_at_that_very_moment_is_not_overruled(world: World) -> None:
    """The commit was faster: the rollback, which showed what stood there before it, is stale and writes nothing."""
    await live(world)
    waiting = await next_one(world)
    await world.advance(waiting)
    await world.promoter.approve(waiting, user=AMY)
    promotion = await interrupted(world, lambda: world.advance_until(waiting, Phase.COMMITTED))
    assert (await world.find(waiting)).phase is Phase.COMMITTED
    await world.promoter.approve(promotion.id, user=AMY)
    assert (await world.rest(promotion.id)).phase is Phase.STALE
    assert world.value() == "16"


async def test_in_the_first_environment_the_newest_rollback_wins(world: World) -> None:
    """Nothing is held there: both are taken, and the one that was asked for last is written."""
    await brought(world, "17", "18")
    first = await roll_back(world, "dev", version="17")
    second = await roll_back(world, "dev", version="16")
    assert (await world.rest(first.id)).phase is Phase.SUPERSEDED
    assert (await world.rest(second.id)).phase is Phase.LIVE
    assert (world.value("dev"), world.commits(first.id)) == ("16", [])


async def test_a_rollout_that_goes_on_does_not_block_a_rollback(world: World) -> None:
    """Committed and followed holds nobody up; with the rollback's commit it is superseded, and the rollback goes live."""
    world.argocd.degrade_next_rollout("manual-app-prod")
    before = await world.committed()
    for _ in range(4):
        await world.advance(before)
        world.passes(2)
    assert (await world.find(before)).phase is Phase.COMMITTED
    promotion = await roll_back(world)
    await world.advance(promotion.id)
    await world.promoter.approve(promotion.id, user=AMY)
    await world.advance_until(promotion.id, Phase.COMMITTED)
    assert await world.store.followed(world.target()) == promotion.id
    ended = await world.find(before)
    assert (ended.phase, ended.ending) == (Phase.SUPERSEDED, f"{promotion.id} brought 14")
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    await world.rest(before)
    assert (await world.shown(before)).startswith("Superseded")


async def test_a_rollback_is_followed_by_the_same_rules(world: World) -> None:
    """Pods that crash end it too, by the name of that ending, and what to do is said."""
    await live(world)
    promotion = await roll_back(world)
    await world.advance(promotion.id)
    await world.promoter.approve(promotion.id, user=AMY)
    await failed(world, "prod", promotion.id)
    shown = await world.shown(promotion.id)
    assert shown.startswith("ROLLBACK · Degraded: manual-app 14 to prod")
    assert "promotion_roll_back" in shown


# --- which version comes back


async def default(world: World) -> str:
    return (await roll_back(world, "dev")).version


async def test_the_version_before_comes_back_and_then_the_one_before_that(world: World) -> None:
    """Two rollbacks in a row go back two versions, and never to and fro."""
    await brought(world, "17", "18")
    for version in ("17", VERSIONS["dev"]):
        promotion = await roll_back(world, "dev")
        assert promotion.version == version
        assert (await world.rest(promotion.id)).phase is Phase.LIVE
    with pytest.raises(Refused, match="I know of no version that manual-app had in dev before 16"):
        await default(world)


async def test_what_was_rolled_back_may_come_back_by_its_name(world: World) -> None:
    """It was there, so it may be there again; only nobody gets it who does not name it."""
    await brought(world, "17", "18")
    await world.rest((await roll_back(world, "dev")).id)
    again = await roll_back(world, "dev", version="18")
    assert (await world.rest(again.id)).phase is Phase.LIVE
    assert world.value("dev") == "18"
    assert await default(world) == "17"


async def test_a_version_that_failed_does_not_come_back_by_itself(world: World) -> None:
    """It is passed over, and may be had by its name."""
    await brought(world, "17")
    await failed(world, "dev", await world.request("dev", "18"))
    await brought(world, "19")
    assert await default(world) == "17"
    assert (await roll_back(world, "dev", version="18")).version == "18"


async def test_a_version_that_recovered_has_not_failed(world: World) -> None:
    """It came right after all, and people worked with it: it is the one before."""
    await brought(world, "17")
    promotion = await failed(world, "dev", await world.request("dev", "18"))
    world.argocd.recover("manual-app-dev")
    await world.rest(promotion.id)
    assert (await world.store.look(promotion.id)).recovered
    await brought(world, "19")
    assert await default(world) == "18"


async def test_after_a_change_by_hand_the_last_of_ours_comes_back(world: World) -> None:
    """And what somebody wrote between two of ours counts as having been there."""
    await brought(world, "17")
    world.push_by_hand("dev", "hotfix")
    await world.roll_out("dev")
    assert await default(world) == "17"
    await brought(world, "18")
    assert await default(world) == "hotfix"


async def test_git_knows_what_the_store_has_forgotten(world: World) -> None:
    """The history is read from the commits: an empty store changes nothing but what is known to have failed."""
    await brought(world, "17", "18")
    empty(world.redis_url)
    promotion = await roll_back(world, "dev")
    assert (promotion.version, promotion.rollback_of) == ("17", world.commits()[0].trailers[1][1])
    assert (await roll_back(world, "dev", version="16")).version == "16"


@given(st.integers(1, 6))
def test_what_lies_too_far_back_to_be_read_is_not_made_up(read: int) -> None:
    """However few of the commits are read: what was rolled back is never the default, and nothing comes to and fro."""
    commits = history("13", "14", "15", "16", "<15", "<14")[:read]
    stack = [each.image.version for each in deployed(commits, PROD)]
    assert stack[-1] == "14"
    assert not {"15", "16"} & set(stack)
    if "13" in stack:
        assert back(commits, "14") == "13"
    else:
        with pytest.raises(Refused, match=r"before 14\. Say which one"):
            back(commits, "14")


async def test_a_history_that_is_longer_than_it_is_read_is_told_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the newest commits alone nobody knows what was there before: it is asked for, and not guessed."""
    await brought(world, "17", "18")
    await world.rest((await roll_back(world, "dev")).id)
    monkeypatch.setattr(asking, "MOST_COMMITS", 1)
    with pytest.raises(Refused, match=r"before 17\. Say which one: /promote rollback manual-app dev to"):
        await default(world)
    assert (await roll_back(world, "dev", version="18")).version == "18"


@given(st.lists(st.sampled_from(["14", "15", "16", "<14", "<15"]), min_size=1, max_size=10))
def test_whatever_was_there_may_be_named(words: list[str]) -> None:
    """Each version that our commits tell of may come back by its name, and no other; the default is one of them."""
    versions = ["13"]
    for word in words:
        if word.lstrip("<") != versions[-1].lstrip("<"):
            versions.append(word)
    commits = history(*versions)
    target = PROD
    if not commits:
        with pytest.raises(Refused, match="none of my commits"):
            everything(commits, target)
        return
    stood = everything(commits, target)
    had = {version.lstrip("<") for version in versions}
    for version in ("13", "14", "15", "16"):
        if version in had:
            assert wanted(stood, version, target).image.version == version
        else:
            with pytest.raises(Refused, match=f"never had {version} in prod"):
                wanted(stood, version, target)
    assert {each.image.version for each in deployed(commits, target)} <= had
    try:
        assert back(commits, versions[-1].lstrip("<")) in had - {versions[-1].lstrip("<")}
    except Refused:
        assert {each.image.version for each in deployed(commits, target)} == {versions[-1].lstrip("<")}
