"""How long a build has run healthily: looked at every minute by one process of all, and never guessed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import catalog, target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from registry_servers import internet_in
from test_same_image import Shop
from world import AMY, ARGOCD_TOKEN, ENVIRONMENTS, ROLLOUT, Clock, World, wait_until, world_in

from bot import tidings
from bot.core import rounds
from bot.core.board import Soaked
from bot.core.catalog import Application, Image, Target
from bot.core.errors import Refused, Unavailable
from bot.core.soaking import LAST_LOOK, LONGEST_GAP, Seen, Soaking
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.board import RedisBoard
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.integrations.store import connect
from bot.playground.argocd.pods import image_id
from bot.telemetry import BUGS
from bot.worker import end

IMAGE = "ghcr.io/acme/manual-app"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
FIFTEEN, SIXTEEN = (
    Image(version=version, digest=image_id(f"{IMAGE}:{version}").partition("@")[2])
    for version in ("15", "16")
)


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """In prod it is wanted that stage has run a build for ten minutes."""
    async with world_in(tmp_path, redis_url) as made:
        ruled(made, soak="10m")
        yield made


def ruled(world: World, **prod: Any) -> None:
    """These rules for prod, and none for the others."""
    rollout = {"rollout": ROLLOUT}
    policies = dict.fromkeys(ENVIRONMENTS, rollout) | {"prod": rollout | prod}
    world.parts = replace(world.parts, catalog=world.configure(policies=policies))


def process(world: World) -> Soaking:
    """What looks, as another process would have it."""
    return Soaking(drafting=world.new_drafting(), clock=world.clock)


async def look(world: World, soaking: Soaking, *, after: timedelta = MINUTE) -> Seen:
    """Let this time pass, and look."""
    world.passes(after.total_seconds())
    seen: Seen = await world.moving(soaking.look())
    return seen


async def soaked(world: World, build: Image = FIFTEEN, environment: str = "stage") -> Soaked | None:
    return await world.board.soaked("manual-app", environment, build)


async def total(world: World, build: Image = FIFTEEN) -> timedelta:
    """How long it has run in stage, as the gate counts it."""
    found = await soaked(world, build)
    assert found is not None, f"nobody has seen {build}"
    return found.total


async def push(world: World, version: str) -> None:
    """Another version comes to stage, and runs there."""
    world.push_by_hand("stage", version)
    await world.roll_out("stage")


async def test_healthy_time_is_added_up_look_by_look(world: World) -> None:
    """The first look begins at nothing; each other one adds what passed since, to the second."""
    soaking = process(world)
    seen = await look(world, soaking)
    assert (seen.builds, seen.reasons) == ({"manual-app/prod": FIFTEEN}, ())
    assert await total(world) == timedelta(0)
    for number in range(1, 4):
        await look(world, soaking, after=MINUTE)
        assert await total(world) == number * MINUTE


async def test_the_gate_counts_what_was_seen(world: World) -> None:
    """What is recorded is recorded for the very build that a request would bring: the gate opens after ten minutes."""
    soaking = process(world)
    for number in range(11):
        await look(world, soaking)
        draft = await world.moving(world.new_drafting().draft(world.target(), None, skips=frozenset()))
        assert draft.answers.are_open is (number == 10), draft.answers.says


async def test_only_what_a_rule_asks_for_is_looked_at(world: World) -> None:
    """What stage runs matters to prod's rules; dev matters to nobody."""
    await look(world, process(world))
    assert await soaked(world, SIXTEEN, "dev") is None
    ruled(world)
    assert (await look(world, process(world))).builds == {}


@pytest.mark.parametrize(
    "rule",
    [{"soak": "1h"}, {"checks": ["load"]}, {"approvals": {"rules": [{"users": [AMY], "min": 1}]}}],
    ids=["soak", "checks", "approvals"],
)
async def test_each_of_these_rules_has_the_environment_before_looked_at(
    world: World, rule: dict[str, Any]
) -> None:
    """Soak time, a check, or somebody who has to say yes and wants to know how long it ran."""
    ruled(world, **rule)
    await look(world, process(world))
    assert await soaked(world) is not None


async def test_what_was_not_healthy_at_a_look_counts_for_nothing(world: World) -> None:
    """Neither the time before that look nor the time after it; what was there before is kept and goes on."""
    soaking = process(world)
    await look(world, soaking)
    await look(world, soaking)
    world.argocd.break_comparisons("manual-app-stage", "rendering failed")
    await compared(world)
    seen = await look(world, soaking, after=30 * SECOND)
    assert seen.builds == {}
    found = await soaked(world)
    assert found is not None
    assert (found.total, found.was_healthy) == (MINUTE, False)
    world.argocd.mend_comparisons("manual-app-stage")
    await compared(world)
    await look(world, soaking, after=30 * SECOND)
    assert await total(world) == MINUTE
    await look(world, soaking)
    assert await total(world) == 2 * MINUTE


async def test_trouble_that_another_process_saw_counts_as_well(world: World) -> None:
    """Who saw it healthy before and after does not count the time in which somebody else saw that it was not."""
    one, other = process(world), process(world)
    await look(world, one)
    world.argocd.break_comparisons("manual-app-stage", "rendering failed")
    await compared(world)
    await look(world, other, after=30 * SECOND)
    world.argocd.mend_comparisons("manual-app-stage")
    await compared(world)
    await look(world, one, after=30 * SECOND)
    assert await total(world) == timedelta(0)


async def compared(world: World) -> None:
    """Argo CD compares stage anew."""
    world.argocd.refresh("manual-app-stage", "normal")
    for _ in range(10):
        world.passes(0.5)


async def test_another_build_begins_its_own_total(world: World) -> None:
    """And the first one goes on from where it was when it comes back, without the time in between."""
    soaking = process(world)
    await look(world, soaking)
    await look(world, soaking)
    await push(world, "16")
    await look(world, soaking, after=SECOND)
    assert (await total(world), await total(world, SIXTEEN)) == (MINUTE, timedelta(0))
    await look(world, soaking)
    assert (await total(world), await total(world, SIXTEEN)) == (MINUTE, MINUTE)
    await push(world, "15")
    await look(world, soaking, after=SECOND)
    await look(world, soaking)
    assert (await total(world), await total(world, SIXTEEN)) == (2 * MINUTE, MINUTE)


async def test_a_build_that_came_back_between_two_looks_of_one_process_is_no_exception(world: World) -> None:
    """One process sees 15 twice within three minutes, and another one 16 between: that time is nobody's."""
    one, other = process(world), process(world)
    await look(world, one)
    await push(world, "16")
    await look(world, other, after=SECOND)
    await push(world, "15")
    await look(world, one, after=SECOND)
    assert world.clock.now() - (await last(world)).seen_at < LONGEST_GAP
    assert await total(world) == timedelta(0)


async def last(world: World) -> Soaked:
    found = await soaked(world, LAST_LOOK)
    assert found is not None
    return found


async def test_the_build_that_is_gone_is_said_not_to_run(world: World) -> None:
    """Its gate does not promise that it opens with time."""
    soaking = process(world)
    await look(world, soaking)
    await push(world, "16")
    await look(world, soaking)
    before, now = await soaked(world), await soaked(world, SIXTEEN)
    assert before is not None
    assert now is not None
    assert (before.was_healthy, now.was_healthy) == (False, True)


async def test_a_restart_costs_nothing_but_the_look_that_is_left_out(world: World) -> None:
    """The total is in the store: another process goes on with it, and adds the time since the last look."""
    await look(world, process(world))
    await look(world, process(world))
    await look(world, process(world), after=2 * MINUTE)
    assert await total(world) == 3 * MINUTE


@pytest.mark.parametrize(
    ("after", "counted"),
    [
        (LONGEST_GAP, LONGEST_GAP),
        (LONGEST_GAP + SECOND, timedelta(0)),
        (timedelta(hours=2), timedelta(0)),
        (-MINUTE, timedelta(0)),
        (-timedelta(hours=2), timedelta(0)),
    ],
    ids=["gap", "longer gap", "away", "clock back", "clock far back"],
)
async def test_a_gap_or_a_jump_of_the_clock_counts_nothing(
    world: World, after: timedelta, counted: timedelta
) -> None:
    """Three minutes are still believed; what is longer, or negative, is not, and the next minute counts again."""
    soaking = process(world)
    for passed in (timedelta(0), after):
        world.clock.at += passed
        assert (await world.moving(soaking.look())).reasons == ()
    assert await total(world) == counted
    world.clock.at += MINUTE
    assert (await world.moving(soaking.look())).reasons == ()
    assert await total(world) == counted + MINUTE


async def test_argo_cd_that_does_not_answer_counts_as_no_look(world: World) -> None:
    """Nothing is written, the reason is told once, and a look soon after counts as if nothing had been."""
    soaking = process(world)
    await look(world, soaking)
    before = await last(world)
    cluster = ArgoCD(
        servers={"main": Server(url="http://127.0.0.1:9", token=ARGOCD_TOKEN)}, call_limit=SECOND
    )
    away = replace(soaking, drafting=world.new_drafting(cluster=cluster))
    [reason] = (await look(world, away)).reasons
    await cluster.aclose()
    assert "Argo CD" in reason
    assert await last(world) == before
    await look(world, soaking)
    assert await total(world) == 2 * MINUTE


async def test_a_store_that_is_away_is_never_taken_for_nothing(world: World, redis_url: str) -> None:
    """A record that cannot be read is not begun anew: what it holds is left as it is."""
    soaking = process(world)
    await look(world, soaking)
    with Redis.from_url(redis_url, decode_responses=True) as raw:
        [key] = [key for key in raw.scan_iter() if key.startswith("{gp}:soak") and '"15"' in key]
        raw.set(key, "no record")
        seen = await look(world, soaking)
        assert seen.builds == {}
        assert "cannot be read" in seen.reasons[0]
        assert raw.get(key) == "no record"


async def test_two_processes_that_look_at_once_count_no_time_twice(world: World) -> None:
    """Turns keep them apart; where those fail, a minute may be lost, and none is won."""
    processes = [process(world) for _ in range(3)]
    await look(world, processes[0])
    for _ in range(3):
        world.passes(60)
        await world.moving(asyncio.gather(*(each.look() for each in processes)))
    assert await total(world) <= 3 * MINUTE


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    looks=st.lists(
        st.tuples(
            st.integers(min_value=-400, max_value=400),
            st.sampled_from([FIFTEEN, SIXTEEN, None]),
            st.integers(min_value=0, max_value=2),
        ),
        min_size=1,
        max_size=12,
    )
)
async def test_whatever_is_seen_by_whomever_only_whole_healthy_spans_count(
    redis_url: str, looks: list[tuple[int, Image | None, int]]
) -> None:
    """Over any looks of three processes, a build's total is the sum of the spans that it was there at both ends of."""
    with Redis.from_url(redis_url) as raw:
        raw.flushall()
    board = RedisBoard(connect(redis_url, quick=False))
    scene = Scene(board)
    expected = {FIFTEEN: timedelta(0), SIXTEEN: timedelta(0)}
    before: Image | None = None
    for seconds, build, number in looks:
        passed = timedelta(seconds=seconds, microseconds=1)  # no moment comes twice, as in real life
        scene.clock.at += passed
        scene.build = build
        await scene.processes[number].look()
        if build is not None and build == before and timedelta(0) <= passed <= LONGEST_GAP:
            expected[build] += passed
        before = build
    for build, sum_ in expected.items():
        found = await board.soaked("manual-app", "stage", build)
        assert (found.total if found else timedelta(0)) == sum_
    await board.aclose()


class Scene:
    """One environment that runs what a test says, and three processes that look at it."""

    def __init__(self, board: RedisBoard) -> None:
        self.clock, self.catalog = Clock(), catalog()
        self.board = board
        self.build: Image | None = None
        self.processes = [
            Soaking(drafting=self, clock=self.clock)  # type: ignore[arg-type]
            for _ in range(3)
        ]

    async def held(self, *_: Target) -> Image:
        """What the environment runs."""
        if self.build is None:
            raise Refused("it is not healthy")
        return self.build

    async def proved(self, _target: Target, _source: Target, held: Image) -> Image:
        """The build itself."""
        return held


async def test_a_slow_argo_cd_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight targets of a server at a time; those of a silent server are left out, and another one's are done."""
    monkeypatch.setattr(rounds, "ONE_WITHIN", 0.05)
    running, most, done = 0, 0, []

    async def answer() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(1)

    async def silence() -> None:
        await asyncio.Event().wait()

    quick, silent = target("prod"), target("prod", applications=(elsewhere(),))
    works = [(silent, silence)] * 20 + [(quick, answer)] * 40
    [reason] = await rounds.go_round(works)
    assert (len(done), most) == (40, rounds.AT_ONCE)
    assert reason == "what concerns Argo CD (eu) took too long"


async def test_a_round_ends_in_time() -> None:
    """What has had no turn by then is left to the next round, so that two rounds do not meet."""
    works = [(target("prod"), asyncio.Event().wait)] * 20
    await asyncio.wait_for(rounds.go_round(works, within=0.05), 5)


async def test_a_strange_target_ends_it_for_no_other() -> None:
    """A defect is raised when all others are done; what people can read is returned, each reason once."""
    done = []

    async def work(number: int) -> None:
        if number == 0:
            raise ValueError("a defect")
        if number < 3:
            raise Unavailable("Argo CD", "it restarts")
        for _ in range(100):  # the defect is there before
            await asyncio.sleep(0)
        done.append(number)

    works = [(target("prod"), partial(work, number)) for number in range(20)]
    with pytest.raises(ValueError, match="a defect"):
        await rounds.go_round(works)
    assert sorted(done) == list(range(3, 20))
    assert await rounds.go_round(works[1:]) == ("Argo CD is not available: it restarts",)


def elsewhere() -> Application:
    return Application(server="eu", name="manual-app-prod", project="default")


class Replica(RedisBoard):
    """The board, and how often this process has asked whether it is its turn."""

    asked = 0

    async def once(self, what: str, *, within: timedelta) -> bool:
        """As the board has it."""
        is_first = await super().once(what, within=within)
        self.asked += 1
        return is_first


async def test_of_many_processes_one_has_the_turn(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes ask, again and again; the work is done once within its span, and by the next one after it."""
    monkeypatch.setattr(tidings, "ASK_EVERY", 0.001)
    replicas = [Replica(connect(redis_url, quick=False)) for _ in range(3)]
    done = []

    async def work(number: int) -> tuple[str, ...]:
        done.append(number)
        return ()

    tasks = [
        asyncio.create_task(tidings.in_turn(each, "x", partial(work, number), every=timedelta(hours=1)))
        for number, each in enumerate(replicas)
    ]
    await wait_until(lambda: min(each.asked for each in replicas) >= 3, "each has asked three times")
    assert len(done) == 1
    with Redis.from_url(redis_url) as raw:
        raw.flushall()  # as the span would
    await wait_until(lambda: len(done) == 2, "somebody has the next turn")
    for task in tasks:
        await end(task)
    for each in replicas:
        await each.aclose()


async def test_a_defect_does_not_end_the_work_for_good(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as a bug, and the next turn comes."""
    monkeypatch.setattr(tidings, "ASK_EVERY", 0.001)
    board = Replica(connect(redis_url, quick=False))
    done = []

    async def work() -> tuple[str, ...]:
        done.append(1)
        if len(done) == 1:
            raise ValueError("a defect")
        return ()

    bugs = BUGS._value.get()
    task = asyncio.create_task(tidings.in_turn(board, "x", work, every=tidings.A_LITTLE + SECOND / 100))
    await wait_until(lambda: len(done) == 3, "the work goes on")
    assert BUGS._value.get() == bugs + 1
    await end(task)
    await board.aclose()


async def test_with_a_registry_it_counts_for_the_build_that_would_go(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods name their platform's build, the gate the whole one; as long as the same pods run, nobody is asked again."""
    async with internet_in(tmp_path, monkeypatch) as internet:
        registry = Registry({"ghcr.io": Access()}, verify=internet.verify)
        shop = Shop(world, internet)
        ruled(world, soak="1m")
        catalog = world.parts.catalog
        targets = tuple(replace(each, asks_registry=True) for each in catalog.targets)
        world.parts = replace(world.parts, catalog=replace(catalog, targets=targets), images=registry)
        build, soaking = Image(version="15", digest=shop.digest), process(world)
        await look(world, soaking)
        shop.is_away()
        assert (await look(world, soaking)).builds == {"manual-app/prod": build}
        assert await total(world, build) == MINUTE
        shop.is_away(False)
        draft = await world.moving(world.new_drafting().draft(world.target(), None, skips=frozenset()))
        assert (draft.image, draft.answers.says) == (build, "")
        await registry.aclose()
