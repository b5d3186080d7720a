"""How soon people read what is true of a rollout, in virtual time, and what following many at once costs Argo CD."""

import asyncio
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.report import Bar, Figure, say
from bot.core.catalog import Application, RolloutPolicy
from bot.core.following import Following
from bot.core.outcome import Outcome
from bot.core.promotion import PromotionId
from bot.integrations.argocd import ArgoCD, Server
from bot.playground.argocd.server import SimulatedArgoCD
from chaos.images import NoRegistries
from chaos.rollouts import (
    NAME,
    OURS,
    TLS,
    TOKEN,
    Ended,
    Happening,
    History,
    Looks,
    Rollout,
    Schedule,
    Time,
    application,
    promotion,
    target,
    timings,
)

POLICY = RolloutPolicy()
HOLD, GRACE = POLICY.stable_for.total_seconds(), POLICY.degraded_grace.total_seconds()
MEDIAN_BAR, LATE_BAR = Bar(limit=HOLD + 6), Bar(limit=HOLD + 15)
FAILURE_BAR = Bar(limit=GRACE + 15)
AT_ONCE_BAR, HONEST_BAR = Bar(limit=4), Bar(limit=0)
"""Requests under way at one server, and words that were not true."""
A_ROUND = 10
MANY = 100
FAILURES = ("crash", "no image", "broken", "compare error", "apply fails", "start fails", "hook fails after")
NEVER = datetime.max.replace(tzinfo=UTC)
STEP = timedelta(seconds=0.05)
QUIET = 5
"""Turns of the event loop without a request that comes or goes: all that is under way waits for virtual time."""


def told(*, rounds: int) -> Iterator[Figure]:
    """The figures of a rollout that goes well, of one that fails, and of many at once."""
    with tempfile.TemporaryDirectory() as name:
        history = History(Path(name))
        good = [waited(history, number) for number in range(A_ROUND * rounds)]
        say(f"  {len(good)} rollouts that go well")
        what = f"from the truth in Argo CD's API to “live”, with a hold of {HOLD:g} s"
        yield Figure(what=f"{what}: median", values=tuple(good), unit="s", bar=MEDIAN_BAR)
        yield Figure(what=f"{what}: p95", values=(_late(good),), unit="s", bar=LATE_BAR)
        bad = [
            waited(history, number, FAILURES[number % len(FAILURES)]) for number in range(A_ROUND * rounds)
        ]
        say(f"  {len(bad)} rollouts that fail")
        what = f"from the failure to “failed”, with a grace of {GRACE:g} s: p95"
        yield Figure(what=what, values=(_late(bad),), unit="s", bar=FAILURE_BAR)
        yield from many(history)


def waited(history: History, number: int, failure: str = "") -> float:
    """The seconds between the truth and the word of it, in one rollout."""
    chance = random.Random(f"{number} {failure}")  # noqa: S311
    schedule = Schedule(
        seed=1 + 4 * number,
        happenings=(Happening(-0.5, failure),) if failure else (),
        has_hooks="hook" in failure or (not failure and chance.random() < 0.5),
        latency=chance.uniform(0.01, 0.2),
        policy=POLICY,
        timings=timings(chance),
    )
    rollout = _Timed(schedule, history, is_good=not failure)
    ended: Ended = asyncio.run(rollout.run())
    if ended.wrong or (ended.outcome is Outcome.LIVE) is bool(failure):
        raise RuntimeError(f"{schedule} ended as {ended}")
    return ended.after - (rollout.since - rollout.pushed_at).total_seconds()


class _Timed(Rollout):
    """A rollout that knows since when the truth can be read, or since when it has failed."""

    def __init__(self, schedule: Schedule, history: History, *, is_good: bool) -> None:
        self.since = NEVER
        self._is_good = is_good
        super().__init__(schedule, history)

    def move(self, at: datetime) -> None:
        """Let time pass, and note when it has become true for good."""
        super().move(at)
        if not self.ours:
            return
        is_true = self._shows_success() if self._is_good else self._has_failed()
        self.since = min(self.since, at) if is_true else NEVER

    def _shows_success(self) -> bool:
        """Would a look at Argo CD find our commit synced and healthy, and each of its pods ready?"""
        status = self.found.status
        is_good = (status["sync"]["status"], status["health"].get("status")) == ("Synced", "Healthy")
        is_ours = all(map(self.has, self.found.revisions))
        return is_good and is_ours and not self.found.is_syncing and self.argo.truth(NAME).runs(OURS)

    def _has_failed(self) -> bool:
        """Is a workload degraded, has an operation ended badly, or can nothing be rendered?"""
        now, state = self.moments[-1], self.found.operation_state or {}
        return now.is_degraded or now.is_broken or state.get("phase") in ("Failed", "Error")


def many(history: History) -> Iterator[Figure]:
    """Many rollouts that are followed at once, by one client of one server."""
    fleet = _Fleet(history)
    asyncio.run(fleet.run())
    what = f"{MANY} rollouts at once"
    say(f"  {what}, with {len(fleet.argo.requests)} requests in {fleet.lasted:.0f} s")
    yield Figure(what=f"{what}: requests at a time", values=(fleet.at_once,), unit="", bar=AT_ONCE_BAR)
    yield Figure(
        what=f"{what}: said to be live, and were not", values=(fleet.wrong,), unit="", bar=HONEST_BAR
    )
    yield Figure(what=f"{what}: until the last one is said to be live", values=(fleet.lasted,), unit="s")


class _Fleet:
    """Many applications of one repository, each followed at its own pace in the same virtual time."""

    def __init__(self, history: History) -> None:
        self.at_once = self.wrong = 0
        self.lasted = 0.0
        self._time, self._history = Time(), history
        self._answered = 0
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []
        self._names = [f"manual-app-{number}" for number in range(MANY)]
        history.point(history.root)
        plain = application(Schedule())
        self.argo = SimulatedArgoCD(
            repository=history.repository,
            token=TOKEN,
            applications=[replace(plain, name=name, destination_namespace=name) for name in self._names],
            now=self._time.told,
        )

    async def run(self) -> None:
        """Push one commit that concerns all of them, and follow each to its end."""
        await self.argo.start(background=False)
        server = Server(url=self.argo.url, token=TOKEN, verify=TLS)
        cluster = ArgoCD(servers={"main": server}, count=self._count)
        commit = self._history.made(self._history.root, OURS)
        self._history.point(commit)
        began = self._time.at
        following = [
            asyncio.create_task(self._follow(name, commit.revision, cluster)) for name in self._names
        ]
        await self._pass_time(following)
        self.lasted = (self._time.at - began).total_seconds()
        await asyncio.gather(*following)
        await cluster.aclose()
        await self.argo.stop()

    def _count(self, _server: str, _call: str, _status: str) -> None:
        self._answered += 1

    async def _follow(self, name: str, revision: str, cluster: ArgoCD) -> None:
        wanted = replace(
            target(POLICY), applications=(Application(server="main", name=name, project="default"),)
        )
        looks = Looks(replace(promotion(wanted, revision, self._time.at), id=PromotionId(name)))
        step = Following(
            store=looks, values=self._history, cluster=cluster, images=NoRegistries(), clock=self._time
        )
        while not looks.promotion.phase.is_final:
            pause = await step.follow(looks.promotion, wanted)
            if not looks.promotion.phase.is_final:
                await self._sleep(pause)
        self.wrong += looks.promotion.outcome is not Outcome.LIVE or not self.argo.truth(name).runs(OURS)

    async def _sleep(self, pause: timedelta) -> None:
        awake = asyncio.Event()
        self._sleepers.append((self._time.at + pause, awake))
        await awake.wait()

    async def _pass_time(self, following: list[asyncio.Task[None]]) -> None:
        """Move the clock whenever nothing else moves."""
        seen, quiet = (0, 0), 0
        while not all(each.done() for each in following):
            await asyncio.sleep(0)
            now = len(self.argo.requests), self._answered
            self.at_once = max(self.at_once, now[0] - now[1])
            quiet = quiet + 1 if now == seen else 0
            seen = now
            if quiet >= QUIET:
                quiet = 0
                self._wake()

    def _wake(self) -> None:
        """A moment later: whoever has slept long enough goes on."""
        self._time.at += STEP
        self.argo.tick()
        due = [awake for at, awake in self._sleepers if at <= self._time.at]
        self._sleepers = [each for each in self._sleepers if each[0] > self._time.at]
        for awake in due:
            awake.set()


def _late(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]
