"""*Sync now*: where Argo CD does not sync by itself, somebody who may has it sync the promotion's commit, and no other."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from world import AMY, ARGOCD_TOKEN, BEN, CHANNEL, DANA, GUS, MEL, OLGA, VERSIONS, World, world_in

from bot.core.catalog import Application
from bot.core.promotion import Phase
from bot.core.rollout import Stage
from bot.integrations import argocd_sync
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.store import RedisStore, connect
from bot.playground.argocd.server import SyncWindow
from bot.playground.slack.fake import Reply

PROD = "manual-app-prod"
MAY_SYNC = f"applications, sync, default/{PROD}"
BUTTON = "promotion_sync"


@pytest.fixture
async def world(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Argo CD does not sync prod by itself, and the bot's account may have it do so."""
    monkeypatch.setattr(argocd_sync, "LOOK_EVERY", 0.01)
    async with world_in(tmp_path, redis_url, automated=False) as made, made.hearing():
        made.argocd.access.grant(MAY_SYNC)
        yield made


async def waiting(world: World) -> str:
    """A promotion whose commit waits for somebody to sync it, and whose card says so."""
    id = await world.committed()
    await looked(world, id, Stage.UNSYNCED)
    await world.show(id)
    return id


async def looked(world: World, id: str, stage: Stage) -> None:
    """Look again and again, each time when it is due, until the rollout is at this stage."""
    for _ in range(50):
        if [each.stage for each in (await world.store.look(id)).applications] == [stage]:
            return
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    raise AssertionError(f"never {stage}: {await world.store.look(id)}")


async def answered(world: World, pressing: Any, *, user: str = DANA, number: int = 1) -> str:
    """The private answer to a press; Argo CD's time passes until it is there."""
    task = asyncio.ensure_future(pressing)

    def is_answered() -> bool:
        world.passes(0.05)
        return task.done() and len(world.told(user)) >= number

    await world.until(is_answered, f"{user} is told something", seconds=20)
    reply: Reply = task.result()
    assert reply.error is None
    return world.told(user)[number - 1]


async def press(world: World, id: str, *, user: str = DANA, number: int = 1) -> str:
    return await answered(world, world.press(id, "sync", user=user), user=user, number=number)


def operations(world: World) -> list[dict[str, Any]]:
    """What was really deployed to prod since the beginning, oldest first."""
    (found,) = [each for each in world.argocd.known() if each.spec.name == PROD]
    return [dict(each) for each in found.history][1:]


def asked_to_sync(world: World) -> int:
    """How often Argo CD was asked for a sync or its dry run."""
    return len([each for each in world.argocd.requests if each.path.endswith("/sync")])


# --- the button


async def test_whoever_presses_it_is_named_and_the_rollout_goes_live(world: World) -> None:
    """The person is answered, the thread says who it was, and Argo CD deploys the commit."""
    id = await waiting(world)
    assert await press(world, id) == f"`{id}`: Argo CD syncs manual-app 15 to prod now; the card follows it."
    assert (await world.rest(id)).phase is Phase.LIVE
    assert world.argocd.truth(PROD).runs("15")
    assert f"<@{DANA}> asked Argo CD to sync it" in await world.thread(id)
    assert len(operations(world)) == 1


async def test_the_button_asks_once_more_and_names_what_it_changes(world: World) -> None:
    """Which application, which commit and which objects: read before anything is done."""
    id = await waiting(world)
    (button,) = [
        element
        for block in (await world.card(id)).blocks
        for element in block.get("elements", ())
        if element.get("action_id") == BUTTON
    ]
    text = button["confirm"]["text"]["text"]
    revision = (await world.find(id)).revision or ""
    for word in (PROD, revision[:8], f"Deployment/{PROD}", "dry run"):
        assert word in text


async def test_the_button_is_there_as_long_as_the_account_may_sync(world: World) -> None:
    """It comes and goes with the right; the card says in any case that somebody has to press Sync."""
    id = await waiting(world)
    for is_granted in (True, False, True):
        (world.argocd.access.grant if is_granted else world.argocd.access.revoke)(MAY_SYNC)
        world.passes(60)
        await world.advance(id)
        shown = await world.show(id)
        assert (BUTTON in shown) is is_granted
        assert "somebody has to press Sync" in shown


async def test_where_argo_cd_syncs_by_itself_there_is_no_button(tmp_path: Path, redis_url: str) -> None:
    """At no moment of the rollout, whatever the account may do."""
    async with world_in(tmp_path, redis_url) as world:
        world.argocd.access.grant(MAY_SYNC)
        id = await world.committed()
        while not (await world.find(id)).phase.is_final:
            after = await world.advance(id)
            assert after is not None
            assert BUTTON not in await world.shown(id)
            world.passes(after.total_seconds())


@pytest.mark.parametrize("user", [DANA, AMY, BEN])
async def test_the_requester_and_the_approvers_may_press_it(world: World, user: str) -> None:
    """The person who asked, and everybody who might have approved."""
    id = await waiting(world)
    assert "Argo CD syncs manual-app 15 to prod now" in await press(world, id, user=user)
    assert (await world.find(id)).last.by == user


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (MEL, "You may not sync manual-app 15 to prod: only its requester or its approvers may"),
        (GUS, "guests may not promote"),
        (OLGA, "you are from another workspace"),
    ],
)
async def test_nobody_else_has_it_synced(world: World, user: str, says: str) -> None:
    """They are told why, and Argo CD hears nothing of it."""
    id = await waiting(world)
    assert says in await press(world, id, user=user)
    assert asked_to_sync(world) == 0


# --- what Argo CD says no to


async def test_a_dry_run_that_fails_is_told_and_nothing_is_synced(world: World) -> None:
    """In Argo CD's own words; afterwards it may be pressed again."""
    id = await waiting(world)
    world.argocd.fail_next_sync(PROD, 'exceeded quota: "compute"')
    answer = await press(world, id)
    assert f"A sync of “{PROD}” would fail: " in answer
    assert 'exceeded quota: "compute"' in answer
    assert "Nothing was changed" in answer
    world.passes(30)
    assert world.argocd.truth(PROD).runs(VERSIONS["prod"])
    assert (operations(world), "asked Argo CD to sync it" in await world.thread(id)) == ([], False)
    assert "Argo CD syncs" in await press(world, id, number=2)
    assert (await world.rest(id)).phase is Phase.LIVE


async def test_a_window_that_forbids_it_is_told(world: World) -> None:
    """It waits for the window, and says so; nobody is said to have had it synced."""
    id = await waiting(world)
    world.argocd.windows["default"] = [SyncWindow(kind="deny", schedule="* * * * *", duration="1h")]
    answer = await press(world, id)
    assert "blocked by sync window. Wait until the window lets it" in answer
    assert (operations(world), "asked Argo CD to sync it" in await world.thread(id)) == ([], False)


async def test_a_window_that_lets_people_sync_is_no_obstacle(world: World) -> None:
    """Only automated syncs are kept back by it."""
    id = await waiting(world)
    world.argocd.windows["default"] = [
        SyncWindow(kind="deny", schedule="* * * * *", duration="1h", manual_sync=True)
    ]
    assert "Argo CD syncs" in await press(world, id)
    assert (await world.rest(id)).phase is Phase.LIVE


async def test_an_operation_that_runs_is_told(world: World) -> None:
    """Somebody was faster in Argo CD; what they began is followed, and nothing is begun beside it."""
    id = await waiting(world)
    world.argocd.sync(PROD, revision=(await world.find(id)).revision)
    reply = await world.press(id, "sync", user=DANA)
    assert reply.error is None
    assert "another operation is already in progress. Wait until that one has ended" in await world.answer()
    assert "asked Argo CD to sync it" not in await world.thread(id)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(operations(world)) == 1


async def test_a_right_that_was_taken_away_is_told(world: World) -> None:
    """The card still had its button: the answer names what the account lacks."""
    id = await waiting(world)
    world.argocd.access.revoke(MAY_SYNC)
    assert f"Give the bot's account {MAY_SYNC}" in await press(world, id)
    assert operations(world) == []


# --- once, and ours


async def test_pressed_twice_it_is_synced_once(world: World) -> None:
    """Before anybody has looked again, and after: there is one operation, and one line in the thread."""
    id = await waiting(world)
    seen = await world.card(id)
    await press(world, id)
    again = world.slack.click(DANA, CHANNEL, seen.ts, BUTTON, seen=seen)
    assert "already in progress" in await answered(world, again, number=2)
    assert (await world.rest(id)).phase is Phase.LIVE
    late = world.slack.click(DANA, CHANNEL, seen.ts, BUTTON, seen=seen)
    assert "it is live since" in await answered(world, late, number=3)
    assert len(operations(world)) == 1
    assert (await world.thread(id)).count("asked Argo CD to sync it") == 1


async def test_what_is_synced_already_is_not_synced_again(world: World) -> None:
    """It is over in Argo CD and nobody has looked since: hooks would run a second time for nothing."""
    id = await waiting(world)
    await press(world, id)
    for _ in range(40):
        world.passes(0.5)
    assert world.argocd.truth(PROD).runs("15")
    assert "waits for somebody to sync it" in await press(world, id, number=2)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(operations(world)) == 1
    assert (await world.thread(id)).count("asked Argo CD to sync it") == 1


async def test_one_press_that_is_delivered_three_times_is_one_sync(world: World) -> None:
    """The others meet the first one's dry run, and are told to wait."""
    id = await waiting(world)
    card, url = await world.card(id), world.slack.events_url
    assert url
    await answered(
        world, world.slack.click(DANA, CHANNEL, card.ts, BUTTON, to=[url] * 3), number=3, user=DANA
    )
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(operations(world)) == 1
    assert len([told for told in world.told() if "already in progress" in told]) == 2


async def test_our_commit_is_synced_although_the_branch_has_moved_on(world: World) -> None:
    """What others have pushed since is nobody's wish here."""
    id = await waiting(world)
    world.push_by_hand("dev", "17")
    await press(world, id)
    assert (await world.rest(id)).phase is Phase.LIVE
    (deployed,) = operations(world)
    assert deployed["revision"] == (await world.find(id)).revision


async def test_what_was_superseded_is_not_synced(world: World) -> None:
    """A newer commit took its place while somebody still saw the button: going back would be a rollback."""
    id = await waiting(world)
    seen = await world.card(id)
    newer = await world.promoter.roll_back(app="manual-app", environment="prod", user=MEL)
    await world.promoter.approve(newer.id, user=AMY)
    await world.advance_until(newer.id, Phase.COMMITTED)
    pressing = world.slack.click(DANA, CHANNEL, seen.ts, BUTTON, seen=seen)
    assert "waits for somebody to sync it: a newer one took its place" in await answered(world, pressing)
    assert asked_to_sync(world) == 0


# --- somebody is away


async def test_with_the_store_away_nothing_is_synced(world: World) -> None:
    """Nobody can say what waits, so nothing is asked of Argo CD."""
    id = await waiting(world)
    nowhere = RedisStore(connect(f"unix://{world.folder}/nothing.sock", quick=True))
    async with world.hearing(world.new_promoter(store=nowhere)):
        assert "Nothing was recorded" in await press(world, id)
    await nowhere.aclose()
    assert asked_to_sync(world) == 0


async def test_with_argo_cd_away_nothing_is_recorded(world: World) -> None:
    """The person is told which system it is, and the thread stays as it was."""
    id = await waiting(world)
    world.argocd.down = True
    answer = await press(world, id)
    world.argocd.down = False
    assert "Argo CD is not available" in answer
    assert "Nothing was recorded; try again in a moment" in answer
    assert "asked Argo CD to sync it" not in await world.thread(id)


class LeavesAfterTheDryRun(ArgoCD):
    """Argo CD goes away between the dry run and the sync."""

    world: World

    async def rehearse(
        self, application: Application, *, revision: str | None, promotion: str = ""
    ) -> tuple[str, ...]:
        """Rehearse, and then nobody answers any more."""
        changes = await super().rehearse(application, revision=revision, promotion=promotion)
        self.world.argocd.down = True
        return changes


async def test_argo_cd_that_leaves_after_the_dry_run_is_told_as_it_is(world: World) -> None:
    """That somebody asked for it is recorded by then: nobody is told the opposite, and pressing again is safe."""
    id = await waiting(world)
    leaving = LeavesAfterTheDryRun(
        servers={"main": Server(url=world.argocd.url, token=ARGOCD_TOKEN)}, call_limit=timedelta(seconds=2)
    )
    leaving.world = world
    async with world.hearing(world.new_promoter(cluster=leaving)):
        answer = await press(world, id)
    await leaving.aclose()
    world.argocd.down = False
    assert "Argo CD is not available" in answer
    assert "look at the card, pressing again is safe" in answer
    assert "Nothing was recorded" not in answer
    assert operations(world) == []
    async with world.hearing():
        assert "Argo CD syncs" in await press(world, id, number=2)
        assert (await world.rest(id)).phase is Phase.LIVE
    assert len(operations(world)) == 1


async def test_with_the_directory_away_nothing_is_synced(world: World) -> None:
    """Nobody is waved through because Slack does not say who they are."""
    id = await waiting(world)
    world.slack.faults.errors["users.info"] = "internal_error"
    assert "Nothing was recorded" in await press(world, id)
    assert asked_to_sync(world) == 0
