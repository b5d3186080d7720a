"""Promotions that go by a pull request: opened at quorum, followed, merged by bot or people, and closed at every end."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from forges import KINDS, Host, host
from world import AMY, BEN, DANA, World, world_in

from bot.core.advance import Engine
from bot.core.errors import Refused, Unavailable
from bot.core.ports import Edit, PullRequest
from bot.core.promotion import Phase, Promotion
from bot.core.proposing import LONGEST_PAUSE, STRAGGLES, NoHosts
from bot.playground.forge.server import MERGE, REBASE, SQUASH, Pull, Trouble
from bot.playground.repository import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A world whose repository takes pull requests, and the host of it."""

    world: World
    forge: Host

    @property
    def pull(self) -> Pull:
        """The one pull request that there is."""
        (pull,) = self.forge.fake.pulls.values()
        return self.forge.fake.refreshed(pull.number)

    def use(self, mode: str) -> None:
        """What `promote.yaml` says of the repository."""
        uri = self.world.repository.as_uri()
        model = {
            "url": uri,
            "allow_local": True,
            "mode": mode,
            "host": self.forge.kind,
            "api": self.forge.fake.url,
        }
        catalog = self.world.configure(repositories={"gitops": model})
        self.world.parts = replace(self.world.parts, catalog=catalog, pulls=self.forge.pulls)
        self.world.engine = self.world.new_engine()

    async def opened(self) -> str:
        """An approved promotion whose pull request is open, and not yet merged as it needs a review."""
        self.forge.fake.required_reviews = 1
        id = await self.world.approved()
        await self.until(id, lambda found: found.pull_request is not None)
        for _ in range(4):
            await self.step(id)
        found = await self.world.find(id)
        assert (found.phase, self.pull.state) == (Phase.APPROVED, "open")
        return id

    async def step(self, id: str) -> timedelta | None:
        """One step, and the time until the next one."""
        after = await self.world.advance(id)
        if after is not None:
            self.world.passes(after.total_seconds())
        return after

    async def until(self, id: str, holds: Callable[[Promotion], Any], *, steps: int = 60) -> Promotion:
        """Step by step until it holds."""
        for _ in range(steps):
            found = await self.world.find(id)
            if holds(found):
                return found
            await self.step(id)
        raise AssertionError(f"still {found.phase} after {steps} steps: {found.last}")

    def on_main(self, id: str) -> list[Commit]:
        """The commits of the branch that change what prod runs, and are this promotion's by their trailers."""
        return self.world.commits(id)


@contextlib.asynccontextmanager
async def place_in(folder: Path, redis_url: str, *, kind: str) -> AsyncIterator[Place]:
    """A world whose repository stands on a host of this kind and takes pull requests alone."""
    async with world_in(folder, redis_url) as world, host(kind, world.repository) as forge:
        forge.fake.protect()
        forge.fake.now = world.clock.now
        made = Place(world=world, forge=forge)
        made.use("pr")
        yield made


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with place_in(tmp_path / "world", redis_url, kind=request.param) as made:
        yield made


# --- the way to live


async def test_it_is_opened_at_quorum_with_the_facts_merged_and_followed_until_live(place: Place) -> None:
    """One pull request with what the card says, merged by the bot, and the promotion is live with our own commit."""
    world = place.world
    id = await world.request(reason="fixes INC-42")
    await world.advance(id)
    assert place.forge.fake.pulls == {}
    await world.promoter.approve(id, user=AMY)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    assert place.pull.state == "merged"
    assert place.pull.by == "promote-bot"
    for fact in (id, "14", "15", "Dana Ortiz", "Amy Chen", "fixes INC-42", "values-prod.yaml"):
        assert fact in place.pull.body, fact
    assert place.pull.title == "Promote manual-app 15 to prod"
    assert world.value() == "15"
    (commit,) = place.on_main(id)
    assert commit.revision == promotion.revision
    await world.rest(id)
    assert promotion.pull_request
    assert promotion.pull_request in await world.shown(id)
    assert promotion.pull_request in await world.thread(id)
    assert place.forge.fake.repository.head(f"promote/{id}") is None


@pytest.mark.parametrize("method", ["merge", SQUASH, REBASE])
async def test_what_people_merge_is_followed(place: Place, method: str) -> None:
    """By whatever button, and with whatever message: the promotion goes on from what the branch holds, until live."""
    id = await place.opened()
    place.forge.fake.merge_by_hand(1, method=method, message="My own words")
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    assert promotion.revision is not None
    assert place.forge.fake.repository.contains("main", promotion.revision)
    assert len(place.forge.fake.pulls) == 1


class Silent:
    """Slack's directory, while Slack is away."""

    def __getattr__(self, name: str) -> Any:
        raise Unavailable("Slack", f"nobody answers {name}")


async def test_what_is_merged_is_followed_although_nobody_can_be_asked_any_more(place: Place) -> None:
    """It is on the branch: who may approve, and what the gates say, comes too late to matter."""
    id = await place.opened()
    place.forge.fake.merge_by_hand(1, method=SQUASH, message="My own words")
    await place.world.advance(id, place.world.new_engine(directory=Silent()))
    assert (await place.world.find(id)).phase is Phase.COMMITTED


async def test_a_squash_by_the_bot_is_recognised(place: Place) -> None:
    """The host's own commit carries the trailers, and is the one that is followed."""
    if place.forge.kind == "gitlab":
        place.forge.fake.squashes = True  # type: ignore[union-attr]
    else:
        place.forge.fake.methods = {SQUASH}  # type: ignore[union-attr]
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    (commit,) = place.on_main(id)
    assert commit.revision == promotion.revision == place.pull.merged_as


async def test_meanwhile_it_is_approved_and_the_card_says_what_it_waits_for(place: Place) -> None:
    """A link to the pull request, a button to cancel, and nothing that says it were being written."""
    id = await place.opened()
    shown = await place.world.show(id)
    assert "Waiting to be merged" in shown
    assert place.pull.state == "open"
    assert "/1|" in shown
    assert "promotion_cancel" in shown
    with pytest.raises(Refused, match="waits to be merged"):
        await place.world.promoter.approve(id, user=BEN)


async def test_it_may_wait_for_days_but_not_for_ever(place: Place) -> None:
    """People merge on Monday; after the policy's `waits` it expires, and its pull request is closed."""
    id = await place.opened()
    place.world.passes(timedelta(days=2).total_seconds())
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    place.world.passes(timedelta(days=2).total_seconds())
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.EXPIRED
    assert place.pull.state == "closed"


async def test_it_is_looked_at_ever_more_rarely(place: Place) -> None:
    """Soon at first, every half minute then, and every five minutes at the least."""
    id = await place.opened()
    pauses = [await place.step(id) for _ in range(18)]
    assert pauses[-1] == timedelta(seconds=30)
    place.world.passes(timedelta(hours=11).total_seconds())
    assert [await place.step(id) for _ in range(3)][-1] == LONGEST_PAUSE


async def test_a_branch_that_is_behind_is_built_anew(place: Place) -> None:
    """Others pushed, and the host wants it up to date: our one commit is put on the newest tip, and merged."""
    id = await place.opened()
    if place.forge.kind == "github":
        place.forge.fake.must_be_up_to_date = True  # type: ignore[union-attr]
    else:
        place.forge.fake.method = REBASE  # type: ignore[union-attr]
    tip = place.world.push_by_hand("dev", "17")
    place.forge.fake.review(1)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    (commit,) = place.on_main(id)
    assert place.forge.fake.repository.count(tip, commit.revision) == 1
    assert len(place.forge.fake.pulls) == 1


# --- every other end closes it


async def test_cancelling_closes_it(place: Place) -> None:
    """What nobody wants any more cannot be merged: it is closed with the reason, and its branch is gone."""
    id = await place.opened()
    await place.world.promoter.cancel(id, user=DANA, why="not today")
    promotion = await place.world.rest(id)
    assert promotion.phase is Phase.CANCELLED
    assert place.pull.state == "closed"
    [(_, comment)] = place.pull.comments
    assert "not today" in comment
    assert place.forge.fake.repository.head(f"promote/{id}") is None


async def test_a_host_that_is_away_when_it_is_cancelled_is_asked_until_it_is_back(place: Place) -> None:
    """Slack's answer does not wait for it, and the pull request is closed all the same."""
    id = await place.opened()
    place.forge.fake.troubles.append(Trouble(begins="GET", status=503, body={"message": "away"}, times=7))
    await place.world.promoter.cancel(id, user=DANA)
    await place.world.advance(id)
    assert place.forge.fake.pulls[1].state == "open"
    assert (await place.world.rest(id)).phase is Phase.CANCELLED
    assert place.pull.state == "closed"


async def test_a_value_that_moved_closes_it(place: Place) -> None:
    """Somebody brought another version to prod: the promotion is stale."""
    id = await place.opened()
    place.world.push_by_hand("prod", "13")
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.STALE
    assert place.pull.state == "closed"
    assert "13" in place.pull.comments[0][1]


async def test_a_newer_request_closes_it(place: Place) -> None:
    """In the first environment the newest wins, and what it replaces is closed before that ends."""
    place.forge.fake.required_reviews = 1
    world = place.world
    first = await world.request("dev", "17")
    await place.until(first, lambda found: found.pull_request is not None)
    await world.request("dev", "18")
    promotion = await place.until(first, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.SUPERSEDED
    assert place.forge.fake.pulls[1].state == "closed"


async def test_what_somebody_closes_is_cancelled(place: Place) -> None:
    """A no on the host is a no: the promotion ends, says by whom, and nothing is opened again."""
    id = await place.opened()
    place.forge.fake.close_by_hand(1, who="Mona")
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.CANCELLED
    assert "closed by Mona and not merged" in (promotion.ending or "")
    await place.world.rest(id)
    assert len(place.forge.fake.pulls) == 1
    assert "Mona" in await place.world.thread(id)


async def test_an_approver_who_leaves_takes_the_pull_request_along(place: Place) -> None:
    """It is closed, approvals are asked for again, and the next quorum opens the next one."""
    id = await place.opened()
    user = place.world.slack.workspace.users[AMY]
    place.world.slack.workspace.users[AMY] = replace(user, kind="deactivated")
    await place.until(id, lambda found: found.phase is Phase.REQUESTED)
    assert place.pull.state == "closed"
    await place.world.promoter.approve(id, user=BEN)
    await place.until(id, lambda found: found.pull_request is not None)
    assert [each.state for each in place.forge.fake.pulls.values()] == ["closed", "open"]
    assert "Ben Ruiz" in place.forge.fake.pulls[2].body
    assert "Amy Chen" not in place.forge.fake.pulls[2].body


async def test_a_merge_that_is_faster_than_the_end_counts(place: Place) -> None:
    """Somebody merged it while the bot was about to end it: what is on the branch is followed."""

    class Late:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        async def close(self, edit: Edit, *, why: str) -> PullRequest | None:
            if place.pull.state == "open":
                place.forge.fake.merge_by_hand(1, method=SQUASH, message="Mine")
            found: PullRequest | None = await self._real.close(edit, why=why)
            return found

    id = await place.opened()
    place.world.passes(timedelta(days=4).total_seconds())
    engine = place.world.new_engine(pulls=Late(place.forge.pulls))
    await place.world.advance(id, engine)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending


async def test_what_was_merged_after_the_end_is_an_alarm(place: Place) -> None:
    """A cancelled promotion whose pull request somebody merged in that second: an operator hears of it."""
    id = await place.opened()
    await place.world.promoter.cancel(id, user=DANA)
    place.forge.fake.merge_by_hand(1)
    await place.world.rest(id)
    assert [alarm for alarm in place.world.alarms if id in alarm and "was merged" in alarm]


async def test_a_foreign_commit_on_our_branch_ends_it(place: Place) -> None:
    """What was approved is not what stands there any more, so it is closed and nothing of it merged by the bot."""
    id = await place.opened()
    git = place.forge.fake.repository
    branch = f"promote/{id}"
    extra = git._commit(git._git("rev-parse", f"{branch}^{{tree}}"), git.head(branch) or "", message="extra")
    git._move(branch, git.head(branch) or "", extra)
    place.forge.fake.review(1)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.FAILED
    assert "Somebody else has pushed" in (promotion.ending or "")
    assert place.world.value() == "14"


# --- modes


async def test_auto_opens_one_where_the_branch_takes_no_push(place: Place) -> None:
    """The push is tried, and declined because the branch is protected: the same promotion goes on by a pull request."""
    place.use("auto")
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    assert place.pull.state == "merged"
    assert len(place.on_main(id)) == 1


async def test_auto_pushes_where_it_may(place: Place) -> None:
    """No protection, no pull request."""
    place.use("auto")
    (place.world.repository / "hooks" / "pre-receive").unlink()
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert (promotion.phase, place.forge.fake.pulls) == (Phase.LIVE, {})


async def test_push_alone_does_not_go_around_the_protection(place: Place) -> None:
    """With `mode: push` a protected branch ends the promotion, in the host's own words."""
    place.use("push")
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert (promotion.phase, place.forge.fake.pulls) == (Phase.FAILED, {})
    assert "rotected" in (promotion.ending or "")


async def test_without_the_right_to_open_it_ends_with_the_hosts_words(place: Place) -> None:
    """Nobody can wait for that: the card says what the token needs, and the branch is tidied up."""
    place.forge.may("read", "write")
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.FAILED
    assert "403" in (promotion.ending or "")
    await place.world.rest(id)
    assert place.forge.fake.repository.head(f"promote/{id}") is None


async def test_a_repository_without_a_host_says_so(place: Place) -> None:
    """Fail closed: nothing is pushed and nobody waits for ever."""
    place.world.engine = place.world.new_engine(pulls=NoHosts())
    id = await place.world.approved()
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.FAILED
    assert place.world.value() == "14"


# --- whatever crashes


class Killed(BaseException):
    """The process ends here."""


CROSSED = {
    "store": {"save", "save_look", "save_card"},
    "values": {"propose", "find", "plan", "commit", "is_on_branch", "relate"},
    "pulls": {"find", "open", "merge", "files", "close"},
}


class Port:
    """A port whose `at`th call kills the process, before it or when it is done; `count` is shared by all ports."""

    def __init__(self, real: Any, calls: set[str], count: list[int], at: int, *, is_after: bool) -> None:
        self._real, self._calls = real, calls
        self._count, self._at, self._is_after = count, at, is_after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        return self._crossing(value) if name in self._calls else value

    def _crossing(self, method: Any) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            self._count[0] += 1
            strikes = self._count[0] == self._at
            if strikes and not self._is_after:
                raise Killed
            answer = await method(*args, **options)
            if strikes:
                raise Killed
            return answer

        return call


def mortal(world: World, at: int, *, is_after: bool) -> tuple[Engine, list[int]]:
    """An engine that dies at the `at`th call to the outside."""
    count = [0]
    ports = {
        name: Port(getattr(world.parts, name), calls, count, at, is_after=is_after)
        for name, calls in CROSSED.items()
    }
    return world.new_engine(**ports), count


async def lived(place: Place, id: str, at: int, *, is_after: bool, ends: Callable[[Promotion], bool]) -> bool:
    """Go on with an engine that dies once, and then with a new one, until it ends; did it die?"""
    engine, _ = mortal(place.world, at, is_after=is_after)
    is_dead = False
    for _ in range(80):
        if ends(await place.world.find(id)):
            return is_dead
        try:
            after = await place.world.advance(id, engine)
        except Killed:
            is_dead, engine = True, place.world.new_engine()
            continue
        if after is None:
            return is_dead
        place.world.passes(after.total_seconds())
    raise AssertionError(f"no end: {await place.world.find(id)}")


@pytest.mark.parametrize("method", [MERGE, SQUASH])
@pytest.mark.parametrize("is_after", [False, True])
async def test_a_crash_at_any_boundary_leaves_one_pull_request_and_one_commit(
    place: Place, method: str, *, is_after: bool
) -> None:
    """Killed before or after every call to the outside, from the approval to the commit: one of each, and it is live."""
    world: World = place.world
    fake: Any = place.forge.fake
    fake.methods, fake.squashes = {method}, method == SQUASH
    targets = iter(range(17, 100))
    for at in range(1, 60):
        version = str(next(targets))
        id = await world.request("dev", version)
        before = len(place.forge.fake.pulls)
        died = await lived(place, id, at, is_after=is_after, ends=lambda found: bool(found.revision))
        promotion = await place.until(id, lambda found: found.phase.is_final)
        assert promotion.phase is Phase.LIVE, (at, promotion.ending)
        assert len(place.forge.fake.pulls) == before + 1, at
        assert len(place.on_main(id)) == 1, at
        assert "not written" not in {event.what for event in await world.store.events(id)}, at
        if not died:
            break
    else:
        raise AssertionError("it never came to its end undisturbed")
    assert at > 10


@pytest.mark.parametrize("is_after", [False, True])
async def test_a_crash_while_it_is_cancelled_leaves_nothing_open(place: Place, *, is_after: bool) -> None:
    """Killed anywhere while it is opened, then cancelled at once: nothing is open and nothing was merged."""
    place.forge.fake.required_reviews = 1
    world = place.world
    for at in range(1, 20):
        id = await world.request()
        await world.advance(id)
        await world.promoter.approve(id, user=AMY)
        engine, _ = mortal(world, at, is_after=is_after)
        is_dead = False
        for _ in range(8):
            try:
                await world.advance(id, engine)
            except Killed:
                is_dead = True
                break
        await world.promoter.cancel(id, user=DANA)
        await world.rest(id)
        assert {each.state for each in place.forge.fake.pulls.values()} <= {"closed"}, at
        assert place.forge.fake.repository.head(f"promote/{id}") is None, at
        if not is_dead:
            break
    assert at > 5
    assert world.value() == "14"


async def test_who_opens_it_late_is_tidied_up_after(place: Place) -> None:
    """A worker that had stalled opened it after the promotion was cancelled: somebody looks once more."""
    id = await place.world.approved()
    edit = place.world.engine._edit(await place.world.find(id), place.world.target())
    engine, _ = mortal(place.world, 10**6, is_after=False)
    count = 0
    while (await place.world.find(id)).branch is None and count < 5:
        place.forge.fake.troubles.append(Trouble(begins="POST", status=503, body={"message": "x"}))
        await place.world.advance(id, engine)
        count += 1
    await place.world.promoter.cancel(id, user=DANA)
    await place.world.advance(id)
    place.forge.fake.troubles.clear()
    await place.world.values.propose(edit)
    await place.forge.pulls.open(edit, title="late", body="")
    place.world.passes(STRAGGLES.total_seconds())
    await place.world.rest(id)
    assert {each.state for each in place.forge.fake.pulls.values()} == {"closed"}


async def test_a_host_that_is_away_does_not_end_it(place: Place) -> None:
    """An outage is waited for, and said on the card."""
    id = await place.opened()
    await place.forge.fake.stop()
    with pytest.raises(Unavailable):
        await place.forge.pulls.find(
            place.world.engine._edit(await place.world.find(id), place.world.target())
        )
    await place.world.advance(id)
    found = await place.world.find(id)
    assert found.phase is Phase.APPROVED
    assert "not available" in (await place.world.store.look(id)).waits_for
