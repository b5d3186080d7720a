"""A clock that is set back does no harm: nothing hangs, nothing is lost, told twice, ended early or written late."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import empty
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Part
from hypothesis import strategies as st
from redis import Redis
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from world import AMY, BEN, BOT_TOKEN, DANA, NOON, World, wait_until, world_in

from bot.core.advance import LANDS_WITHIN, LONGEST_BACK_OFF
from bot.core.announcing import CONFIRM_AFTER, REMIND_AFTER
from bot.core.catalog import Target
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import OVERTIME
from bot.integrations.slack import web_client
from bot.playground.argocd.timeline import Timeline
from bot.playground.slack.fake import FakeSlack
from handlers.socket import SocketMode

SECONDS, HOUR, DAY = timedelta(seconds=3), timedelta(hours=1), timedelta(days=1)
JUMPS = (SECONDS, HOUR, DAY)
A_MINUTE = timedelta(minutes=1)
"""Twice what a promotion needs in this world from the request until its card shows that it is live."""


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def requested(world: World) -> str:
    """A request with its card."""
    id = await world.request()
    await world.advance(id)
    return id


async def committing(world: World) -> str:
    """A promotion whose push nobody saw the end of."""
    id = await world.approved()
    await world.pushed_in_vain(id)
    return id


async def confirming(world: World) -> str:
    """A promotion that is healthy and has to stay so for a while."""
    id = await world.committed()
    while "must stay so" not in str((await world.store.look(id)).applications):
        after = await world.advance(id)
        assert after is not None
        world.passes(after.total_seconds())
    return id


async def live(world: World) -> str:
    """A promotion that is live, and its card does not say so yet."""
    id = await world.committed()
    await world.advance_until(id, Phase.LIVE)
    return id


WAYS: dict[str, Callable[[World], Awaitable[str]]] = {
    "requested": requested,
    "approved": World.approved,
    "committing": committing,
    "committed": World.committed,
    "confirming": confirming,
    "live": live,
}


WAYS_AND_JUMPS = [(way, jump) for way in WAYS for jump in JUMPS]


def set_back(world: World, jump: timedelta) -> None:
    """Somebody sets the clock of this machine, of the bot and of Argo CD, back."""
    world.clock.at -= jump
    world.argocd.tick()


async def waits(world: World, id: str, *, within: timedelta) -> list[timedelta]:
    """Step by step, each when it is due, until nothing is left to do or so much time has passed."""
    found: list[timedelta] = []
    while sum(found, timedelta(0)) < within and (after := await world.advance(id)) is not None:
        found.append(after)
        world.passes(min(after, within).total_seconds())
    return found


def longest_wait(promotion: Promotion, target: Target) -> timedelta:
    """The longest that anything waits by a clock that goes right, whatever is away.

    A request waits for its end, what is under way for another try, what has ended for the last edit of its card.
    """
    if promotion.phase is Phase.REQUESTED:
        return target.policy.expires
    return CONFIRM_AFTER if promotion.phase.is_final else LONGEST_BACK_OFF


# --- the promotion


@pytest.mark.parametrize(("way", "jump"), WAYS_AND_JUMPS)
async def test_it_goes_on_to_its_end(world: World, way: str, jump: timedelta) -> None:
    """In the time that it always takes, with one commit, and every event in the record and in the thread once."""
    id = await WAYS[way](world)
    set_back(world, jump)
    if way == "requested":
        await world.advance(id)
        await world.promoter.approve(id, user=AMY)
    await waits(world, id, within=A_MINUTE)
    promotion = await world.find(id)
    assert promotion.phase is Phase.LIVE
    assert len(world.commits(id)) == 1
    assert [event.edition for event in await world.store.events(id)] == list(range(1, promotion.edition + 1))
    told = (await world.thread(id)).splitlines()
    assert len(told) == len(set(told))
    assert (await world.store.card(id)).told == promotion.edition
    assert world.alarms == []


@pytest.mark.parametrize(("way", "jump"), WAYS_AND_JUMPS)
async def test_its_card_shows_the_end(world: World, way: str, jump: timedelta) -> None:
    """Within the same time, and no step puts the next one off for longer than a clock that goes right would."""
    id = await WAYS[way](world)
    set_back(world, jump)
    if way == "requested":
        await world.promoter.approve(id, user=AMY)
    found = await waits(world, id, within=A_MINUTE)
    assert (await world.shown(id)).startswith("Live")
    assert max(found) <= LONGEST_BACK_OFF


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_request_is_looked_at_again_in_time(world: World, jump: timedelta) -> None:
    """The queue counts by the store's clock: where ours is put right, the end must not wait for the whole jump."""
    id = await requested(world)
    set_back(world, jump)
    after = await world.advance(id)
    assert after is not None
    assert after <= longest_wait(await world.find(id), world.target())


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_pause_that_slack_asked_for_is_no_longer(world: World, jump: timedelta) -> None:
    """Slack asked for ten seconds when its card had to be edited: a little later the card is right."""
    id = await requested(world)
    await world.promoter.cancel(id, user=DANA)
    world.slack.rate_limit(calls=1, retry_after=10)
    await world.advance(id)
    set_back(world, jump)
    world.passes(15)
    await world.advance(id)
    assert (await world.shown(id)).startswith("Cancelled")


@pytest.mark.parametrize(
    "jump",
    JUMPS,
)
async def test_what_cannot_be_seen_is_told_in_time(world: World, jump: timedelta) -> None:
    """Argo CD is away for good: the promotion ends when the time for the rollout is up, and not a jump later."""
    id = await world.committed()
    world.argocd.down = True
    await world.advance(id)
    set_back(world, jump)
    patience = world.target().rollout.timeout + OVERTIME + 2 * world.target().rollout.stable_for
    await waits(world, id, within=patience + A_MINUTE)
    assert (await world.find(id)).phase is Phase.FAILED


@pytest.mark.parametrize(
    "jump",
    JUMPS,
)
async def test_a_commit_that_nobody_may_write_any_more_is_given_up_in_time(
    world: World, jump: timedelta
) -> None:
    """Its approver has left during the push: when that can no longer arrive, the promotion asks for approval again."""
    id = await committing(world)
    world.slack.user(AMY).kind = "deactivated"
    set_back(world, jump)
    await waits(world, id, within=LANDS_WITHIN + A_MINUTE)
    assert (await world.find(id)).phase is Phase.REQUESTED
    assert world.commits(id) == []


async def test_nobody_is_reminded_twice(world: World) -> None:
    """The clock passes the same half hour again and again: one word for it, and one for the two hours."""
    id = await requested(world)

    async def bells() -> int:
        return (await world.thread(id)).count(":bell:")

    set_back(world, DAY)
    await world.advance(id)
    assert await bells() == 0
    for _ in range(3):
        world.clock.at = NOON + REMIND_AFTER[0]
        await world.advance(id)
        assert await bells() == 1
        set_back(world, HOUR)
        await world.advance(id)
    for _ in range(2):
        world.clock.at = NOON + REMIND_AFTER[1]
        await world.advance(id)
        set_back(world, HOUR)
        await world.advance(id)
    assert await bells() == 2


class Shaken:
    """A promotion in a world whose clock goes to and fro, and what must hold after each step."""

    def __init__(self, world: World, id: str) -> None:
        self.world = world
        self.id = id

    async def step(self, minutes: int) -> None:
        """Move the clock, take a step, and look."""
        self.world.clock.at += timedelta(minutes=minutes)
        before = await self.world.find(self.id)
        after = await self.world.advance(self.id)
        assert after is None or after >= timedelta(0)
        await self.look(before, await self.world.find(self.id))

    async def look(self, before: Promotion, now: Promotion) -> None:
        """Nothing ended early, nothing was written late, nothing was lost or told twice."""
        policy, at = self.world.target().policy, self.world.clock.at
        if now.phase is Phase.EXPIRED and before.phase is not Phase.EXPIRED:
            ends_at = before.approved_at + policy.start_within if before.approved_at else before.expires_at
            assert at >= min(ends_at, before.expires_at + policy.start_within)
        if now.revision and not before.revision:
            assert at < now.requested_at + policy.expires + policy.start_within
        assert (now.requested_at, now.expires_at) == (before.requested_at, before.expires_at)
        events = await self.world.store.events(self.id)
        assert [event.edition for event in events] == list(range(1, now.edition + 1))
        assert (await self.world.thread(self.id)).count(":bell:") <= len(REMIND_AFTER)


MINUTES = st.one_of(st.integers(1, 45), st.integers(-90, -1), st.integers(-1500, 300))


# Each example is a world of its own: to look for a smaller one would take minutes.
@settings(
    max_examples=25,
    deadline=None,
    phases=[Part.explicit, Part.reuse, Part.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    waiting=st.lists(MINUTES, max_size=5),
    late=st.lists(MINUTES, max_size=5),
    approved=st.sampled_from([AMY, BEN]),
)
async def test_whatever_the_clock_does_nothing_ends_early_or_is_written_late(
    redis_url: str, waiting: list[int], late: list[int], approved: str
) -> None:
    """Forth and back, before and after the approval, with a git host that comes back at last."""
    empty(redis_url)
    with TemporaryDirectory() as folder:
        async with world_in(Path(folder), redis_url) as world:
            shaken = Shaken(world, await requested(world))
            for minutes in waiting:
                await shaken.step(minutes)
            if (await world.find(shaken.id)).phase.is_final or world.clock.at >= NOON + timedelta(hours=4):
                return
            await world.promoter.approve(shaken.id, user=approved)
            with world.git_host_away():
                for minutes in late:
                    await shaken.step(minutes)
            for _ in range(5):
                await shaken.step(0)
            assert (await world.find(shaken.id)).phase in (Phase.COMMITTED, Phase.EXPIRED)


# --- the store


@pytest.mark.parametrize("jump", [*JUMPS, -DAY], ids=str)
async def test_the_queue_and_the_lists_go_by_the_servers_clock(world: World, jump: timedelta) -> None:
    """However wrong the clocks of the bots are: due at once, in the order of arrival, swept by the server's days."""
    first = await world.find(await world.request("dev", "17"))
    set_back(world, jump)
    second = await world.find(await world.request("dev", "18"))
    with contextlib.closing(Redis.from_url(world.redis_url, decode_responses=True)) as raw:
        seconds, fraction = raw.time()
        now = seconds + fraction / 1_000_000
        for promotion in (first, second):
            score = raw.zscore("{gp}:due", promotion.id)
            assert now - 10 < score / 1000 <= now
    assert [each.id for each in await world.store.in_phase(Phase.REQUESTED)] == [first.id, second.id]
    assert [each.id for each in await world.store.history(world.target("dev"))] == [second.id, first.id]
    assert await world.store.claim(limit=5, lease=DAY) == (first.id, second.id)
    await world.promoter.cancel(first.id, user=DANA)
    await world.store.rest(first.id, edition=2, after=None)
    assert await world.store.sweep(before_days=timedelta(days=3), write=pytest.fail, limit=5) == 0


# --- what stands beside the promotion


@given(moves=st.lists(st.integers(-100_000, 100_000), max_size=20), delay=st.integers(0, 100_000))
def test_the_simulated_argo_cd_goes_on_at_the_clocks_pace(moves: list[int], delay: int) -> None:
    """A clock that is set back takes no time away and holds nothing up."""
    at, passed, ran = NOON, 0, []
    timeline = Timeline(begins_at=at)
    timeline.after(timedelta(seconds=delay), lambda: ran.append(timeline.now))
    for move in moves:
        at += timedelta(seconds=move)
        passed += max(move, 0)
        timeline.run_until(at)
        assert timeline.now == NOON + timedelta(seconds=passed)
        assert ran == ([NOON + timedelta(seconds=delay)] if passed >= delay else [])


async def test_a_deaf_socket_is_replaced_although_the_clock_was_set_back() -> None:
    """It was last heard an hour from now, and nothing has come since: another connection takes its place."""
    slack = FakeSlack(signing_secret="s" * 16, bot_token=BOT_TOKEN, app_token="xapp-for-tests")
    await slack.start()

    async def authorize(**_: object) -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=BOT_TOKEN)

    app = AsyncApp(
        client=web_client(BOT_TOKEN, api_url=slack.api_url), authorize=authorize, signing_secret=""
    )
    socket = SocketMode(app, "xapp-for-tests", look_every=0.05, connect_within=1)
    running = asyncio.create_task(socket.run())
    try:
        await wait_until(lambda: socket.is_hearing, "it hears")
        deaf = socket._handler
        assert deaf is not None

        def is_replaced() -> bool:
            """It goes deaf again after each answer to a ping."""
            deaf.client.last_ping_pong_time = (datetime.now(UTC) + HOUR).timestamp()
            return socket._handler not in (None, deaf)

        await wait_until(is_replaced, "another one takes its place", seconds=15)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await slack.stop()
