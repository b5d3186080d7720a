"""Faults of pull requests, and of what is read from git about them, that were proved: none of them comes back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from forges import KINDS, TOKEN, host
from redis.asyncio import Redis
from release_worlds import ReleaseWorld, release_world
from test_pull_requests_of_promotions import Killed, Place, mortal, place_in
from world import AMY, DANA, NOON, World, push

from bot.config_models import RepositoryModel
from bot.core import history, rollback
from bot.core.asking import Manner
from bot.core.board import Lock, Scope
from bot.core.catalog import Mode
from bot.core.history import Query
from bot.core.measuring import Measuring
from bot.core.ports import Written
from bot.core.promotion import Phase, Promotion
from bot.core.reconciling import Reconciling
from bot.playground.forge.server import REBASE, SQUASH, Trouble

FORGED = "P-FRGEDFRGED"
TRAILERS = (
    "App: manual-app\nEnvironment: prod\nFrom: stage\nOld-Version: 15\nNew-Version: 16\n"
    f"Requested-By: Dana Ortiz <dana@acme.example> (T0DEMO00001/{DANA})"
)


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with place_in(tmp_path / "world", redis_url, kind=request.param) as made:
        yield made


async def live(place: Place, method: str, *, by_hand: bool) -> Promotion:
    """A promotion to prod whose pull request was squashed or rebased, by Mona or by the bot."""
    fake: Any = place.forge.fake
    if by_hand:
        id = await place.opened()
        message = fake.repository._git("show", "-s", "--format=%B", place.pull.head_sha)
        fake.merge_by_hand(1, method=method, message=message)
    else:
        fake.methods, fake.squashes, fake.method = {method}, method == SQUASH, method
        place.world.push_by_hand("dev", "17")
        id = await place.world.approved()
    found = await place.until(id, lambda promotion: promotion.phase.is_final)
    assert found.phase is Phase.LIVE, found.ending
    return found


async def written(world: World, *, limit: int = 100) -> tuple[Written, ...]:
    return await world.values.written(world.target().repository, limit=limit)


async def lose_everything(world: World) -> None:
    async with Redis.from_url(world.redis_url) as client:
        await client.flushall()


# --- what the host, or whoever merged, has written in our place


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("method", [SQUASH, REBASE])
async def test_a_squashed_or_rebased_promotion_is_told_by_git(
    place: Place, method: str, *, by_hand: bool
) -> None:
    """History, statistics and rollback know a promotion whose commit bears the host's name."""
    promotion = await live(place, method, by_hand=by_hand)
    world, target = place.world, place.world.target()
    found = await history.read(
        Query(environment="prod"), catalog=world.parts.catalog, values=world.values, limit=10
    )
    [entry] = found.entries
    assert (entry.promotion, entry.revision, found.is_whole) == (promotion.id, promotion.revision, True)
    assert [each.id for each in entry.approved_by] == [AMY]
    stack = rollback.deployed(await written(world), target)
    assert [each.image.version for each in stack] == ["14", "15"]
    measuring = Measuring(
        catalog=world.parts.catalog, values=world.values, store=world.store, clock=world.clock
    )
    counted = await measuring.measured([target], since=NOON - timedelta(days=1))
    assert [each.numbers.deployments for each in counted.targets] == [1]


@pytest.mark.parametrize("method", [SQUASH, REBASE])
async def test_a_lost_store_goes_on_from_a_squashed_or_rebased_commit(place: Place, method: str) -> None:
    """The record is made anew from the trailers, whoever is the committer."""
    before = await live(place, method, by_hand=True)
    await lose_everything(place.world)
    done = await Reconciling(engine=place.world.new_engine()).reconcile()
    assert [before.id in each for each in done] == [True]
    promotion = await place.world.rest(before.id)
    assert (promotion.phase, promotion.revision) == (Phase.LIVE, before.revision)


async def test_a_squash_without_trailers_tells_nothing(place: Place) -> None:
    """Whoever wrote words of their own over the trailers took the promotion out of git's memory."""
    id = await place.opened()
    place.forge.fake.merge_by_hand(1, method=SQUASH, message="My own words")
    await place.until(id, lambda promotion: promotion.phase.is_final)
    assert await written(place.world) == ()


@pytest.mark.parametrize("mode", list(Mode))
async def test_only_where_others_merge_their_commits_count(place: Place, mode: Mode) -> None:
    """With `mode: push` nobody but our own committer writes promotions; else everybody who may merge can."""
    place.use(mode)
    (place.world.repository / "hooks" / "pre-receive").unlink()
    push(place.world.repository, {"a": "1"}, message=f"Mine\n\nPromotion-Id: {FORGED}\n{TRAILERS}")
    told = [each.trailer("Promotion-Id") for each in await written(place.world)]
    assert told == ([] if mode is Mode.PUSH else [FORGED])


async def test_what_only_speaks_of_a_promotion_does_not_count_and_hides_none(place: Place) -> None:
    """Commits that mention an id, or carry none that can be one, use up nothing of the limit."""
    (place.world.repository / "hooks" / "pre-receive").unlink()
    push(place.world.repository, {"a": "1"}, message=f"Mine\n\nPromotion-Id: {FORGED}\n{TRAILERS}")
    for number in range(5):
        words = "Promotion-Id: P-FRGEDFRGED is live" if number % 2 else "Promotion-Id: nonsense"
        push(place.world.repository, {"a": f"x{number}"}, message=f"Other\n\n{words}\n\nMore words.")
    push(place.world.repository, {"a": "y"}, message="Other\n\nPromotion-Id: nonsense\nApp: manual-app")
    told = [each.trailer("Promotion-Id") for each in await written(place.world, limit=2)]
    assert told == [FORGED]


@pytest.mark.parametrize("method", ["merge", SQUASH, REBASE])
async def test_a_merged_promotion_is_no_commit_of_others(place: Place, method: str) -> None:
    """What the bot proposed and a host merged is not shown as somebody's change of what the target renders from."""
    before = place.forge.fake.repository.head("main")
    await live(place, method, by_hand=True)
    found = await place.world.values.commits_to(place.world.target(), [""], str(before))
    assert (found.count, found.unknown) == (0, "")


@pytest.mark.parametrize("method", ["merge", SQUASH, REBASE])
async def test_the_merge_of_a_promotion_is_not_noticed_as_another_one(place: Place, method: str) -> None:
    """In the first environment others' commits are followed; the merge of our own pull request is none of these."""
    world, fake = place.world, place.forge.fake
    noticing = world.new_noticing()
    await noticing.look(fresh=["gitops"])
    fake.required_reviews = 1
    id = await world.request("dev", "17")
    await place.until(id, lambda found: found.pull_request is not None)
    message = fake.repository._git("show", "-s", "--format=%B", place.pull.head_sha)
    fake.merge_by_hand(1, method=method, message=message if method == SQUASH else None)
    await place.until(id, lambda found: found.revision is not None)
    assert await noticing.look(fresh=["gitops"]) == ()
    assert [each.id for each in await world.store.history(world.target("dev"))] == [id]
    assert (await place.until(id, lambda found: found.phase.is_final)).phase is Phase.LIVE


# --- what is merged although nobody wants it any more


class Meanwhile:
    """A port before whose one call somebody does something."""

    def __init__(self, real: Any, call: str, something: Callable[[], Awaitable[object]]) -> None:
        self._real, self._call, self._something = real, call, something

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        return self._late(value) if name == self._call else value

    def _late(self, method: Any) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            await self._something()
            return await method(*args, **options)

        return call


async def test_what_is_cancelled_while_it_is_checked_is_not_merged(place: Place) -> None:
    """Whoever cancels hears that it is cancelled, so the look that is under way merges nothing."""
    id = await place.opened()
    place.forge.fake.review(1)

    async def cancel() -> None:
        await place.world.promoter.cancel(id, user=DANA)

    engine = place.world.new_engine(values=Meanwhile(place.world.values, "propose", cancel))
    await place.world.advance(id, engine)
    promotion = await place.world.rest(id)
    assert (promotion.phase, place.pull.state, place.world.value()) == (Phase.CANCELLED, "closed", "14")
    assert place.world.alarms == []


async def waiting(place: Place) -> str:
    """A promotion that may wait for its gates, and whose pull request is open."""
    asked: Promotion = await place.world.moving(
        place.world.promoter.request(
            app="manual-app",
            environment="prod",
            version=None,
            reason=None,
            user=DANA,
            manner=Manner(waits=True),
        )
    )
    await place.world.advance(asked.id)
    await place.world.promoter.approve(asked.id, user=AMY)
    await place.until(asked.id, lambda found: found.pull_request is not None)
    return asked.id


async def test_nobody_can_merge_it_while_it_waits_for_the_gates_again(place: Place) -> None:
    """It is closed when somebody locks the target, and the next one is opened, once, when that is over."""
    world, fake = place.world, place.forge.fake
    fake.required_reviews = 1
    id = await waiting(place)
    await place.step(id)
    scope = Scope(app="manual-app", environment="prod")
    await world.board.lock(Lock(scope=scope, by=DANA, reason="a sale", at=world.clock.now()))
    for _ in range(4):
        await place.step(id)
    assert (fake.pulls[1].state, (await world.find(id)).phase) == ("closed", Phase.APPROVED)
    assert "a sale" in fake.pulls[1].comments[-1][1]
    await world.board.unlock(scope)
    await place.until(id, lambda found: found.pull_request is not None)
    fake.review(2)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert (promotion.phase, [each.state for each in fake.pulls.values()]) == (
        Phase.LIVE,
        ["closed", "merged"],
    )


async def test_a_crash_while_it_is_taken_back_leaves_nothing_to_merge(place: Place) -> None:
    """Killed after every call to the outside: it is closed all the same, and its closing is nobody's no."""
    world, fake = place.world, place.forge.fake
    fake.required_reviews = 1
    scope = Scope(app="manual-app", environment="prod")
    for at in range(1, 30):
        id = await waiting(place)
        await world.board.lock(Lock(scope=scope, by=DANA, reason="a sale", at=world.clock.now()))
        engine, _ = mortal(world, at, is_after=True)
        is_dead = False
        for _ in range(4):
            try:
                await world.advance(id, engine)
            except Killed:
                is_dead, engine = True, world.engine
        assert {fake.refreshed(number).state for number in fake.pulls} == {"closed"}, at
        await world.board.unlock(scope)
        world.passes(60)
        await place.until(id, lambda found: found.pull_request is not None)
        await world.promoter.cancel(id, user=DANA)
        assert (await world.rest(id)).phase is Phase.CANCELLED
        if not is_dead:
            break
    assert at > 3


# --- what would hold its target for ever


async def test_a_host_that_has_shut_us_out_does_not_hold_the_target(place: Place) -> None:
    """Its token is gone for good: after the policy's `waits` the promotion expires, and an operator hears why."""
    id = await place.opened()
    place.forge.fake.accounts.pop(TOKEN)
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    place.world.passes(timedelta(days=4).total_seconds())
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.EXPIRED
    assert [alarm for alarm in place.world.alarms if id in alarm and "could not be closed" in alarm]


async def test_a_merge_that_was_taken_off_the_branch_does_not_hold_the_target(place: Place) -> None:
    """The host says that it is merged, and the branch was rewound: nobody waits for that commit for ever."""
    id = await place.opened()
    git = place.forge.fake.repository
    before = git.head("main")
    place.forge.fake.merge_by_hand(1, method=SQUASH, message="My own words")
    git._git("update-ref", "refs/heads/main", str(before))
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    place.world.passes(timedelta(days=4).total_seconds())
    await place.world.advance(id)
    promotion = await place.world.find(id)
    assert promotion.phase is Phase.FAILED
    assert "does not hold" in (promotion.ending or "")


# --- what is said too often, and to whom


async def test_a_pull_request_that_cannot_be_closed_is_not_told_so_each_time(place: Place) -> None:
    """The reason is one comment, however often the host says no to the closing."""
    id = await place.opened()
    verb = "PATCH" if place.forge.kind == "github" else "PUT"
    refusal = Trouble(begins=verb, status=403, body={"message": "Forbidden"}, times=5)
    place.forge.fake.troubles.append(refusal)
    await place.world.promoter.cancel(id, user=DANA)
    await place.world.rest(id)
    assert (place.pull.state, len(place.pull.comments)) == ("closed", 1)


async def test_a_name_on_the_host_is_plain_text_in_slack(place: Place) -> None:
    """Whoever closes it may call themselves what they want: nobody is called, and nothing is a link."""
    id = await place.opened()
    place.forge.fake.close_by_hand(1, who="<!channel> <https://evil.example|Mona>")
    await place.until(id, lambda found: found.phase.is_final)
    await place.world.rest(id)
    said = await place.world.shown(id) + await place.world.thread(id)
    assert "Mona" in said
    assert "<!channel>" not in said
    assert "<https://evil.example" not in said


@pytest.mark.parametrize(
    ("url", "kind", "api"),
    [
        ("https://git.acme.io:8443/acme/gitops.git", "github", "https://git.acme.io:8443/api/v3"),
        ("https://git.acme.io:8443/acme/gitops.git", "gitlab", "https://git.acme.io:8443/api/v4"),
        ("ssh://git@git.acme.io:2222/acme/gitops.git", "gitlab", "https://git.acme.io/api/v4"),
    ],
)
def test_the_token_goes_to_the_port_of_its_host(url: str, kind: str, api: str) -> None:
    """Another port of the same machine may be somebody else's."""
    assert RepositoryModel.model_validate({"url": url, "mode": "pr", "host": kind}).forge.api == api


# --- what is no edit of a file


@pytest.mark.parametrize(("environment", "branch"), [("stage", "release"), ("prod", "main")])
async def test_a_release_is_never_proposed(
    tmp_path: Path, redis_url: str, environment: str, branch: str
) -> None:
    """A branch that is moved and a tag that is made are no pull request: with `auto` the host's no is the end."""
    async with (
        release_world(ReleaseWorld, tmp_path / "world", redis_url) as world,
        host("github", world.repository) as forge,
    ):
        if environment == "prod":
            assert (await world.promoted("stage")).phase is Phase.LIVE
        uri = world.repository.as_uri()
        model = {"url": uri, "allow_local": True, "mode": "auto", "host": "github", "api": forge.fake.url}
        catalog = world.configure(repositories={"gitops": model})
        world.parts = replace(world.parts, catalog=catalog, pulls=forge.pulls)
        world.engine = world.new_engine()
        forge.fake.protect(branch)
        promotion = await world.promoted(environment)
        assert (promotion.phase, promotion.branch, forge.fake.pulls) == (Phase.FAILED, None, {})
        assert "rotected" in (promotion.ending or "")
