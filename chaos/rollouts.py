"""Follow rollouts through random trouble in the simulated Argo CD, in virtual time, and check every word said of them.

What is said must be true at the very instant at which it is said, held against the simulation's own cluster and never
against its API. Real are the client of Argo CD with its HTTP, the step that follows, and the git repository. Only the
bot's questions to git are answered from the list of commits that was made: its own copy measures its fetches by the
machine's clock, and a schedule could not be run a second time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import re
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bot.core.catalog import Application, Image, Repository, RolloutPolicy, Target
from bot.core.errors import Conflict, Unavailable
from bot.core.following import Following
from bot.core.outcome import Outcome
from bot.core.policy import Policy
from bot.core.ports import Change
from bot.core.progress import Look
from bot.core.promotion import Phase, Promotion, PromotionId, Signer, rebuilt
from bot.core.rollout import OVERTIME, PEOPLE_TAKE, Relation
from bot.core.rules import CANNOT_COMPARE_FOR
from bot.integrations.argocd import ArgoCD, Server
from bot.playground import repository as sample
from bot.playground.argocd.pods import CRASHING, NO_IMAGE
from bot.playground.argocd.server import SimulatedApplication, SimulatedArgoCD, SyncWindow, Timings
from bot.playground.argocd.workloads import workloads_of
from chaos.images import NoRegistries
from chaos.report import Part

NAME = "manual-app-prod"
IMAGE = "ghcr.io/acme/manual-app"
VALUES = "values-prod.yaml"
URL = "https://git.acme.example/team/manual-app-helm.git"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwcm9tb3RlLWJvdCJ9.c2lnbmF0dXJl"  # noqa: S105 - the simulation's alone
OLD, OURS, OTHER = "14", "15", "16"
PUSHED_AT = datetime(2026, 8, 24, 9, 0, tzinfo=UTC)
LEAD = 20.0
"""Seconds before the push in which something may happen already."""
STEP = 0.25
"""Seconds between two records of what the cluster really does."""
SLACK = timedelta(seconds=50)
"""What the looks at the bounds of a rollout may take beyond them: two of the longest pauses, and comparisons."""
WATCHED = 8
"""Looks at a rollout that has failed, which may come right."""
CLOSED = SyncWindow(kind="deny", schedule="*/5 * * * *", duration="1h")
CLOSED_TO_ROBOTS = replace(CLOSED, manual_sync=True)
TLS = ssl.create_default_context()
"""Made once: it takes longer than a whole look."""
AT_ONCE = 50
"""Schedules that a process runs before it tells of them."""


# --- the repository


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Commit:
    """A commit that really exists, and what is known of it without git."""

    revision: str
    parent: Commit | None
    files: Mapping[str, str] = field(repr=False)

    @property
    def version(self) -> str:
        """What it promotes in prod."""
        found = re.search(r'tag: "(.*)"', self.files[VALUES])
        return found[1] if found else ""

    @property
    def renders(self) -> bool:
        """Can its chart be rendered?"""
        return not self.files[_SERVICE].startswith(_BROKEN)

    def contains(self, revision: str) -> bool:
        """Is that the commit itself, or one before it?"""
        return self.revision == revision or (self.parent is not None and self.parent.contains(revision))


_SERVICE = "templates/service.yaml"
_BROKEN = "{{ .Values.nothing.at.all }}"
_HOOK = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {{{{ .Release.Name }}}}-{name}
  annotations: {{argocd.argoproj.io/hook: {phase}}}
spec:
  template:
    spec:
      containers: [{{name: {name}, image: busybox}}]
"""
_WORKER = """\
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ .Release.Name }}-worker
  annotations: {argocd.argoproj.io/sync-wave: "1"}
spec:
  replicas: 2
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers:
        - name: worker
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
"""
ADDED = {
    "templates/migrate.yaml": _HOOK.format(name="migrate", phase="PreSync"),
    "templates/smoke.yaml": _HOOK.format(name="smoke", phase="PostSync"),
    "templates/worker.yaml": _WORKER,
}
"""What makes of the sample chart one with hooks, and with a second workload in a second wave."""


def _replicas(files: Mapping[str, str]) -> dict[str, str]:
    text = files[VALUES]
    other = "4" if "replicaCount: 3" in text else "3"
    return {VALUES: re.sub(r"replicaCount: \d", f"replicaCount: {other}", text)}


CHANGES: Mapping[str, Callable[[Mapping[str, str]], dict[str, str]]] = {
    **{
        version: lambda files, version=version: {
            VALUES: re.sub(r'tag: ".*"', f'tag: "{version}"', files[VALUES])
        }
        for version in (OLD, OURS, OTHER)
    },
    "notes": lambda files: {"README.md": files["README.md"] + "One more line.\n"},
    "replicas": _replicas,
    "broken": lambda files: {_SERVICE: _BROKEN + files[_SERVICE].removeprefix(_BROKEN)},
    "mended": lambda files: {_SERVICE: files[_SERVICE].removeprefix(_BROKEN)},
    "hooks": lambda _files: ADDED,
}
"""What a commit may do to the files before it."""


class History:
    """Every commit of one bare repository; `main` can be set to each of them.

    It is also the port `ValuesRepository`, as far as a rollout asks for it.
    """

    def __init__(self, folder: Path) -> None:
        self.repository = sample.create_repository(folder)
        self._index = folder / "index"
        revision = sample.head(self.repository) or ""
        self.root = Commit(revision=revision, parent=None, files=sample.read_tree(self.repository, revision))
        self._made: dict[tuple[str, str], Commit] = {}
        self._known = {revision: self.root}
        self.head = self.root
        self.is_down = False
        self._git("update-ref", "refs/heads/release", revision)

    def made(self, parent: Commit, change: str) -> Commit:
        """The commit that makes this change; the same one every time."""
        key = (parent.revision, change)
        if key not in self._made:
            written = CHANGES[change](parent.files)
            self._made[key] = self._commit(parent, written, change)
            self._known[self._made[key].revision] = self._made[key]
        return self._made[key]

    def point(self, commit: Commit) -> None:
        """Put the branch there, by force where need be."""
        self.head = commit
        self._git("update-ref", "refs/heads/main", commit.revision)

    def contains(self, revision: str, commit: str) -> bool | None:
        """Is `commit` part of that revision? None for one that nobody knows."""
        known = self._known.get(revision)
        return known.contains(commit) if known else None

    async def relate(
        self,
        _target: Target,
        *,
        revision: str,
        commit: str,
        version: str,
        digest: str = "unknown",  # noqa: ARG002
    ) -> Relation:
        """As the port has it."""
        self._require_host()
        known = self._known.get(revision)
        if known is None:
            return Relation(contains=None)
        is_kept = known.version == version
        return Relation(contains=known.contains(commit), holds_value=is_kept, author="Sam Okafor")

    async def is_on_branch(self, _target: Target, revision: str) -> bool:
        """As the port has it."""
        self._require_host()
        return self.head.contains(revision)

    async def current(self, _target: Target) -> Image:
        """As the port has it."""
        self._require_host()
        return Image(version=self.head.version)

    def _require_host(self) -> None:
        if self.is_down:
            raise Unavailable("The git host", "it does not answer")

    def _commit(self, parent: Commit, written: Mapping[str, str], change: str) -> Commit:
        self._git("read-tree", parent.revision)
        for path, text in written.items():
            blob = self._git("hash-object", "-w", "--stdin", text=text)
            self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        tree = self._git("write-tree")
        revision = self._git("commit-tree", tree, "-p", parent.revision, "-m", f"Change: {change}")
        return Commit(revision=revision, parent=parent, files={**parent.files, **written})

    def _git(self, *arguments: str, text: str | None = None) -> str:
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (
                ("NAME", "Sam Okafor"),
                ("EMAIL", "sam@acme.example"),
                ("DATE", "1790000000 +0000"),
            )
        }
        done = subprocess.run(
            ["git", f"--git-dir={self.repository}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "GIT_INDEX_FILE": str(self._index), **who},
        )
        return done.stdout.strip()


# --- what stands in for the rest


class Killed(BaseException):
    """The bot has died in the middle of a look."""


class Looks:
    """What was saved: all that the bot still knows after it was killed. Nothing else of the store is needed."""

    def __init__(self, promotion: Promotion) -> None:
        self.promotion = promotion
        self.kept = Look()
        self.dies = False

    async def look(self, _id: str) -> Look:
        """The last look that was saved."""
        return self.kept

    async def save_look(self, _id: str, look: Look) -> None:
        """Keep a look, unless the bot dies before."""
        self._die()
        self.kept = look

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Keep the end, unless the bot dies before."""
        [change] = changes
        if holds or change.before != self.promotion:
            raise Conflict(self.promotion.id)
        self._die()
        self.promotion = change.after

    async def followed(self, _target: Target) -> PromotionId | None:
        """Nobody else has been promoted there."""
        return self.promotion.id

    def _die(self) -> None:
        if self.dies:
            self.dies = False
            raise Killed


class Time:
    """Virtual time: Argo CD's clock, and beside it the bot's, which is a little off."""

    def __init__(self) -> None:
        self.at = PUSHED_AT
        self.latency = timedelta(0)
        self.is_asked = False
        self.off = timedelta(0)

    def told(self) -> datetime:
        """Argo CD's time; it is asked with each request, and each request takes a while."""
        if self.is_asked:
            self.at += self.latency
        return self.at

    def now(self) -> datetime:
        """The bot's time."""
        return self.at + self.off


# --- the schedule


class Happening(NamedTuple):
    """What happens, and how many seconds after the push; negative for before it."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All that is left to chance in one rollout."""

    seed: int = 0
    happenings: tuple[Happening, ...] = ()
    has_hooks: bool = False
    automated: bool = True
    self_heal: bool = False
    retry_limit: int = 0
    lossy: bool = True
    listens: bool = True
    """Do the streams of Argo CD wake the bot?"""
    off: float = 0
    """Seconds by which the bot's clock is ahead."""
    latency: float = 0
    """Seconds that a request takes."""
    waits: bool = False
    """Does what a window kept back begin with a refresh alone?"""
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    timings: Timings = field(default_factory=Timings)

    def __str__(self) -> str:
        told = ", ".join(f"{each.what} at {each.at:.1f} s" for each in self.happenings)
        return f"seed {self.seed}: {told or 'nothing happens'}"


LASTING = {
    "argo down": "argo up",
    "token expired": "token back",
    "right revoked": "right granted",
    "git down": "git up",
    "deaf": "hears",
    "window closed": "window open",
    "window closed to robots": "window open",
    "sync by hand": "sync by itself",
    "compare error": "compares",
    "compare error with a branch": "compares",
    "invalid spec": "compares",
    "status not written": "compares",
    "broken": "mended",
    "crash": "recover",
    "no image": "recover",
    "forced off": "forced back",
}
"""What ends again, mostly, and how."""
PASSING = (
    "notes",
    "replicas",
    OTHER,
    OLD,
    OURS,
    "foreign sync",
    "partial sync",
    "rehearsal",
    "refreshed",
    "old sync",
    "terminate",
    "operation lost",
    "operation orphaned",
    "hook fails before",
    "hook fails after",
    "apply fails",
    "start fails",
    "stale render",
    "flap",
    "scale",
    "cache lost",
    "kill",
    "kill",
    "other branch",
    "delete",
)
_RARE = {"delete": 0.4, "other branch": 0.4, "operation lost": 0.6}


def drawn(seed: int) -> Schedule:
    """The schedule of a seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    happenings: list[Happening] = []
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        what = chance.choice((*LASTING, *PASSING))
        if chance.random() > _RARE.get(what, 1):
            continue
        at = chance.choice((chance.uniform(-LEAD, 0), chance.expovariate(1 / 10), chance.expovariate(1 / 60)))
        happenings.append(Happening(at, what))
        if what in LASTING and chance.random() < 0.8:
            happenings.append(Happening(at + chance.expovariate(1 / 40), LASTING[what]))
    automated = chance.random() < 0.85
    if not automated and chance.random() < 0.8:
        happenings.append(Happening(chance.uniform(5, 200), "foreign sync"))
    return Schedule(
        seed=seed,
        happenings=tuple(sorted(happenings)),
        has_hooks=chance.random() < 0.5,
        automated=automated,
        self_heal=chance.random() < 0.3,
        retry_limit=chance.choice((0, 0, 2)),
        lossy=chance.random() < 0.7,
        listens=chance.random() < 0.5,
        off=chance.choice((0, chance.uniform(-60, 60))),
        latency=chance.choice((0, 0.02, chance.uniform(0, 0.5))),
        policy=_policy(chance),
        timings=timings(chance),
        waits=chance.random() < 0.3,
    )


def _policy(chance: random.Random) -> RolloutPolicy:
    return RolloutPolicy(
        timeout=timedelta(minutes=chance.choice((4, 4, 6, 6, 12))),
        stable_for=timedelta(seconds=chance.choice((5, 10))),
        degraded_grace=timedelta(seconds=chance.choice((15, 60))),
        pick_up_within=timedelta(minutes=chance.choice((1, 3))),
    )


def timings(chance: random.Random) -> Timings:
    """How long everything takes in an Argo CD, and in a cluster that is quick."""

    def seconds(low: float, high: float) -> timedelta:
        return timedelta(seconds=round(chance.uniform(low, high), 2))

    return Timings(
        reconcile_takes=seconds(0.2, 3),
        persist_takes=seconds(0.05, 0.3),
        queue_takes=seconds(0.1, 1),
        sync_takes=seconds(0.5, 6),
        hook_takes=seconds(0.5, 6),
        settle_gap=seconds(0.3, 4),
        pod_takes=seconds(0.5, 8),
        progress_deadline=seconds(12, 40),
    )


# --- one rollout


class Moment(NamedTuple):
    """What was really so at an instant."""

    at: datetime
    runs: bool
    """Is every pod of our version and ready, and none missing?"""
    is_degraded: bool
    """Is a workload?"""
    runs_other: bool
    """Is a pod of another version, or are the manifests?"""
    is_broken: bool
    """Must a comparison that begins now fail?"""


class Ended(NamedTuple):
    """How a rollout ended, after how many looks and seconds, and what was not true of what was said."""

    outcome: Outcome | None
    looks: int
    after: float
    wrong: str = ""


class Rollout:
    """One promotion, pushed and followed to its end, while everything happens that its schedule says."""

    def __init__(self, schedule: Schedule, history: History) -> None:
        self.schedule = schedule
        self.history = history
        self.time = Time()
        self.time.off = timedelta(seconds=schedule.off)
        self.time.latency = timedelta(seconds=schedule.latency)
        self.target = target(schedule.policy)
        self.trouble = ""
        self.away = timedelta(0)
        self.is_waiting = False
        self.looks_taken = 0
        self.moments: list[Moment] = []
        self.looks: Looks | None = None
        self.forced_off: Commit | None = None
        self.ours = ""
        self._left = list(schedule.happenings)
        self.before = history.made(history.root, "hooks") if schedule.has_hooks else history.root
        history.is_down = False
        history.point(self.before)
        self.argo = SimulatedArgoCD(
            repository=history.repository,
            token=TOKEN,
            applications=[application(schedule)],
            timings=schedule.timings,
            now=self.time.told,
        )
        self.argo.lossy_refresh = schedule.lossy
        self.argo.waits_after_window = schedule.waits
        self.argo.access.grant("applications, get, default/*")

    async def run(self) -> Ended:
        """Push, follow to the end, and watch what failed for a while."""
        await self.argo.start(background=False)
        self._cluster = ArgoCD(servers={"main": Server(url=self.argo.url, token=TOKEN, verify=TLS)})
        try:
            return await self._run()
        finally:
            await self._cluster.aclose()
            await self.argo.stop()

    async def _run(self) -> Ended:
        self._note()
        self.passes(LEAD, since=PUSHED_AT)
        self.pushed_at = self.time.at
        self.before = self.history.head
        ours = self.history.made(self.before, OURS)
        self.ours = ours.revision
        self.looks = Looks(promotion(self.target, self.ours, self.time.now()))
        if self.schedule.seed % 4:
            await self._moving(self._following().remember_baseline(self.looks.promotion, self.target))
            self.looks.promotion = replace(self.looks.promotion, committed_at=self.time.now())
        self.history.point(ours)
        self.resumed_at = self.time.at
        wrong = await self._follow()
        ended = self.looks.promotion
        after = (self.time.at - self.pushed_at).total_seconds()
        if not wrong and ended.phase is Phase.FAILED:
            wrong = await self._watch()
        return Ended(ended.outcome, self.looks_taken, after, wrong)

    async def _follow(self) -> str:
        """Look again and again; what was wrong about it."""
        while True:
            began = self.time.at
            pause = await self._look()
            if self.looks.promotion.phase.is_final:
                return self._untrue(self.looks.promotion.outcome)
            if late := self._late():
                return late
            if pause is None:
                self._die()
                continue
            if not self._left and self._waits_for_people():
                pause = max(pause, timedelta(hours=8))  # nothing is left to happen but the end of patience
            self._rest(pause, began)

    async def _look(self) -> timedelta | None:
        """One look; None where the bot has died of it."""
        self.looks_taken += 1
        try:
            return await self._moving(self._following().follow(self.looks.promotion, self.target))
        except Killed:
            return None

    async def _watch(self) -> str:
        """What was said of a rollout that came right after all."""
        for _ in range(WATCHED):
            try:
                pause = await self._moving(self._following().watch(self.looks.promotion, self.target))
            except Killed:
                self._die()
                continue
            if self.looks.kept.recovered:
                return self._untrue(Outcome.LIVE)
            if pause is None:
                return ""
            self.passes(pause.total_seconds())
        return ""

    def _following(self) -> Following:
        """A new one for each look: it has nothing in memory but what was saved."""
        return Following(
            store=self.looks,
            values=self.history,
            cluster=self._cluster,
            images=NoRegistries(),
            clock=self.time,
        )

    async def _moving(self, work: Awaitable[Any]) -> Any:
        """Do it; time passes as each request takes, and as long as Argo CD compares."""
        task = asyncio.ensure_future(work)
        self.time.is_asked = True
        while not task.done():
            if self.is_comparing:
                self.time.is_asked = False
                self.passes(STEP)
                self.time.is_asked = True
            await asyncio.sleep(0)
        self.time.is_asked = False
        return task.result()

    @property
    def is_comparing(self) -> bool:
        """Does somebody wait for Argo CD to compare?"""
        return any(each.refresh for each in self.argo.known())

    def _rest(self, pause: timedelta, began: datetime) -> None:
        """Let time pass until the next look is due, or until a stream tells of a change, a second later at the most."""
        due, seen = self.time.at + pause, self._version()
        while self.time.at < due:
            rest = (due - self.time.at).total_seconds()
            self.passes(rest if rest > 3600 else min(STEP, rest))
            if self.schedule.listens and self._version() != seen:
                due = min(due, max(self.time.at, began + timedelta(seconds=1)))

    def _version(self) -> int:
        return sum(each.version for each in self.argo.known())

    def passes(self, seconds: float, *, since: datetime | None = None) -> None:
        """Let time pass in Argo CD, and let happen what is due by then. `since` is what happenings count from."""
        until = self.time.at + timedelta(seconds=seconds)
        pushed_at = since + timedelta(seconds=seconds) if since else self.pushed_at
        while self._left and (at := pushed_at + timedelta(seconds=self._left[0].at)) <= until:
            self.move(max(at, self.time.at))
            happening = self._left.pop(0)
            self._let(happening.what)
            self._note()
        self.move(until)

    def _let(self, what: str) -> None:
        """Let one thing happen."""
        if what in OUTSIDE:
            OUTSIDE[what](self)
        elif self.found:
            INSIDE[what](self)

    def move(self, at: datetime) -> None:
        """Let time pass in Argo CD, and remember what is so then."""
        self.time.at = at
        self.argo.tick()
        self._note()

    def _note(self) -> None:
        live = self.argo.live(NAME) if self.found else {}
        workloads = workloads_of(live)
        targets = self.found.targets.values() if self.found else ()
        rendered = {image for each in targets for image in _images(each)}
        pods = {image for each in workloads for pod in each.active for image in pod.images}
        wanted = f"{IMAGE}:{OURS}"
        errs = self.trouble in ("ComparisonError", "InvalidSpecError")
        moment = Moment(
            at=self.time.at,
            runs=_runs(self),
            is_degraded=any(each.health.status == "Degraded" for each in workloads),
            runs_other=wanted not in rendered or pods != {wanted},
            is_broken=errs or not self.history.head.renders,
        )
        self.moments.append(moment)

    @property
    def found(self) -> Any:
        """Argo CD's object; None once it is gone."""
        return self.argo.find(NAME, "argocd")

    def _die(self) -> None:
        """The bot is away until another worker takes over, whose clock is another one."""
        away = 1 + (self.looks_taken * 37 + self.schedule.seed) % 60
        self.away += timedelta(seconds=away)
        self.passes(away)
        self.time.off = -self.time.off

    def _waits_for_people(self) -> bool:
        seen = self.looks.kept.applications
        return bool(seen) and all(each.waits for each in seen)

    # What is true.

    def _late(self) -> str:
        """Has it gone on for longer than its policy allows?"""
        at, policy = self.time.at, self.schedule.policy
        spare = SLACK + self.away + self.spare
        waited, self.is_waiting = self.is_waiting, self._waits_for_people()
        if waited or self.is_waiting:
            self.resumed_at = at
        if self.is_waiting:
            is_over = at - self.pushed_at > PEOPLE_TAKE + timedelta(hours=8) + spare
            return "it waits for people for more than a day" if is_over else ""
        limit = policy.timeout + OVERTIME + 2 * policy.stable_for + spare
        return f"it goes on after {at - self.resumed_at}" if at - self.resumed_at > limit else ""

    def _untrue(self, outcome: Outcome | None) -> str:
        """What is not true of an end that is said now; empty where it is."""
        if outcome is None:
            return "an end without a name"
        is_true = TRUE[outcome](self)
        return "" if is_true else f"“{outcome}” is not true: {self.looks.promotion.ending}; {self}"

    def __str__(self) -> str:
        if not self.found:
            return "the application is gone"
        truth, found = self.argo.truth(NAME), self.found
        state = found.operation_state or {}
        return (
            f"pods run {', '.join(sorted(truth.versions))}, ready: {truth.all_ready}, {truth.health}; shown: "
            f"{found.status['sync']['status']} {found.status['health'].get('status')} at {found.revisions}, "
            f"operation {state.get('phase')}; {self.time.at - self.pushed_at} after the push of {self.ours[:8]}"
        )

    @property
    def spare(self) -> timedelta:
        """By how much two workers' clocks differ, where another one took over."""
        return 2 * abs(self.time.off) if self.away else timedelta(0)

    def then(self, ago: timedelta) -> Moment | None:
        """The last moment so long ago."""
        at = self.time.at - ago + self.spare
        return next((each for each in reversed(self.moments) if each.at <= at), None)

    def has_lasted(self, what: str, patience: timedelta) -> bool:
        """Was it so before as well, so long ago?"""
        at = self.time.at - patience + self.spare
        return any(getattr(each, what) for each in self.moments if each.at <= at)

    def since_compared(self) -> Iterator[Moment]:
        """The moments that Argo CD's newest comparison may have seen, and those since."""
        if self.found is None:
            return
        stamp = self.found.status.get("reconciledAt")
        since = datetime.fromisoformat(stamp) if stamp else PUSHED_AT
        older = [each for each in self.moments if each.at <= since][-1:]
        yield from (*older, *(each for each in self.moments if each.at > since))

    def has(self, revision: str) -> bool:
        """Is our commit part of that revision?"""
        return self.history.contains(revision, self.ours) is True


def _runs(rollout: Rollout) -> bool:
    """Every pod of every workload is of our version, and ready, and none is missing."""
    return rollout.found is not None and rollout.argo.truth(NAME).runs(OURS)


def _live(rollout: Rollout) -> bool:
    """It runs now, and it ran when the hold began."""
    policy = rollout.schedule.policy
    then = rollout.then(policy.stable_for)
    return _runs(rollout) and (then is None or then.runs)


def _sync_failed(rollout: Rollout) -> bool:
    """The last operation of a revision with our commit failed, or Argo CD cannot begin one."""
    if rollout.found is None or rollout.found.is_syncing:
        return False
    ends = [text for _, kind, text in rollout.found.events if kind == "OperationCompleted"]
    ours = [text for text in ends if any(rollout.has(word.strip(",")) for word in text.split())]
    return bool(rollout.trouble) or (bool(ours) and ours[-1].rpartition(" ")[2] in ("failed", "error"))


def _degraded(rollout: Rollout) -> bool:
    """A workload is degraded in what Argo CD's newest comparison saw, and was so a grace ago."""
    is_now = any(each.is_degraded for each in rollout.since_compared())
    return is_now and rollout.has_lasted("is_degraded", rollout.schedule.policy.degraded_grace)


def _mismatch(rollout: Rollout) -> bool:
    """Manifests or pods are of another version in what the newest comparison saw, and were so a grace ago."""
    is_now = any(each.runs_other for each in rollout.since_compared())
    return is_now and rollout.has_lasted("runs_other", rollout.schedule.policy.degraded_grace)


def _cannot_render(rollout: Rollout) -> bool:
    """The newest comparison failed; the branch may have been read as long before as Argo CD keeps such an answer."""
    moments = list(rollout.since_compared())
    since = moments[0].at - rollout.schedule.timings.poll_interval if moments else rollout.time.at
    is_now = any(each.is_broken for each in rollout.moments if each.at >= since)
    return is_now and rollout.has_lasted("is_broken", CANNOT_COMPARE_FOR)


def _not_picked_up(rollout: Rollout) -> bool:
    """Argo CD has compared with no commit that contains ours, for as long as the policy waits."""
    waited = rollout.time.at - rollout.pushed_at + rollout.spare
    is_unknown = rollout.found is not None and not any(map(rollout.has, rollout.found.revisions))
    return is_unknown and waited >= rollout.schedule.policy.pick_up_within


def _superseded(rollout: Rollout) -> bool:
    """The branch holds another version, or at least the cluster runs one still."""
    return rollout.history.head.version != OURS or not _runs(rollout)


def _stuck(rollout: Rollout) -> bool:
    found = rollout.found
    phase = (found.operation_state or {}).get("phase") if found else None
    return phase in ("Running", "Terminating") and found.operation is None


def _timed_out(rollout: Rollout) -> bool:
    return rollout.time.at - rollout.resumed_at + rollout.spare >= rollout.schedule.policy.timeout


TRUE: Mapping[Outcome, Callable[[Rollout], bool]] = {
    Outcome.LIVE: _live,
    Outcome.LIVE_WITHIN: _live,
    Outcome.NOTHING_CHANGED: _live,
    Outcome.SYNC_FAILED: _sync_failed,
    Outcome.DEGRADED: _degraded,
    Outcome.MISMATCH: _mismatch,
    Outcome.CANNOT_RENDER: _cannot_render,
    Outcome.NOT_PICKED_UP: _not_picked_up,
    Outcome.WINDOW_CLOSED: lambda rollout: not rollout.argo.world.can_sync(rollout.found.spec, manual=False),
    Outcome.NOT_SYNCED: lambda rollout: not rollout.found.spec.automated,
    Outcome.SUPERSEDED: _superseded,
    Outcome.STUCK: _stuck,
    Outcome.TIMED_OUT: _timed_out,
    Outcome.UNREACHABLE: lambda rollout: rollout.argo.down or rollout.history.is_down,
    Outcome.TOKEN_EXPIRED: lambda rollout: rollout.argo.token_expired,
    Outcome.NO_PERMISSION: lambda rollout: NAME in rollout.argo.forbidden,
    Outcome.MISSING: lambda rollout: rollout.found is None,
    Outcome.DELETED: lambda rollout: rollout.found is None or rollout.found.deleted_at is not None,
    Outcome.NOT_TRACKED: lambda rollout: rollout.found is not None and rollout.found.spec.branch != "main",
    Outcome.LOST: lambda rollout: not rollout.history.head.contains(rollout.ours),
    Outcome.BROKEN: lambda _rollout: False,
}
"""What each ending claims, as the simulation itself knows it at that instant.

What Argo CD finds out by comparing can be as old as the state that its newest comparison began with.
"""


# --- what happens


def _changed(change: str) -> Callable[[Rollout], None]:
    def commit(rollout: Rollout) -> None:
        rollout.history.point(rollout.history.made(rollout.history.head, change))

    return commit


def _forced_off(rollout: Rollout) -> None:
    """Somebody takes our commit off the branch, with all that came after it."""
    if rollout.history.head.contains(rollout.ours):
        rollout.forced_off = rollout.history.head
        rollout.history.point(rollout.history.made(rollout.before, "notes"))


def _forced_back(rollout: Rollout) -> None:
    if rollout.forced_off:
        rollout.history.point(rollout.forced_off)


def _argo(**states: Any) -> Callable[[Rollout], None]:
    """Argo CD as a whole is in another state from now on."""

    def switch(rollout: Rollout) -> None:
        for name, state in states.items():
            setattr(rollout.argo, name, state)

    return switch


def _git(*, is_down: bool) -> Callable[[Rollout], None]:
    def switch(rollout: Rollout) -> None:
        rollout.history.is_down = is_down

    return switch


def _window(*windows: SyncWindow) -> Callable[[Rollout], None]:
    def switch(rollout: Rollout) -> None:
        rollout.argo.windows["default"] = list(windows)

    return switch


def _spec(**fields: Any) -> Callable[[Rollout], None]:
    return lambda rollout: rollout.argo.change(NAME, **fields)


def _compares_badly(kind: str, revision: str = "") -> Callable[[Rollout], None]:
    def switch(rollout: Rollout) -> None:
        rollout.trouble = kind
        rollout.argo.break_comparisons(NAME, "rpc error: helm template failed", kind=kind, revision=revision)

    return switch


def _compares(rollout: Rollout) -> None:
    rollout.trouble = ""
    rollout.argo.mend_comparisons(NAME)


def _sync(**wanted: Any) -> Callable[[Rollout], None]:
    """Somebody presses Sync, which Argo CD refuses while another one runs or a window forbids it."""

    def press(rollout: Rollout) -> None:
        is_open = rollout.argo.world.can_sync(rollout.found.spec, manual=True)
        if is_open and not rollout.found.is_syncing and not rollout.found.deleted_at:
            rollout.argo.sync(NAME, **wanted)

    return press


def _old_sync(rollout: Rollout) -> None:
    _sync(revision=rollout.before.revision, prune=True)(rollout)


def _terminate(rollout: Rollout) -> None:
    if rollout.found.is_syncing and rollout.found.operation_state is not None:
        rollout.argo.terminate(NAME)


def _lose(rollout: Rollout) -> None:
    if rollout.found.is_syncing and rollout.found.operation_state is not None:
        rollout.argo.lose_operation(NAME)


def _orphan(rollout: Rollout) -> None:
    if not rollout.found.is_syncing:
        rollout.argo.orphan_operation(NAME, rollout.history.head.revision)


def _dies(rollout: Rollout) -> None:
    if rollout.looks:
        rollout.looks.dies = True


OUTSIDE: Mapping[str, Callable[[Rollout], None]] = {
    **{change: _changed(change) for change in CHANGES if change != "hooks"},
    "forced off": _forced_off,
    "forced back": _forced_back,
    "argo down": _argo(down=True),
    "argo up": _argo(down=False),
    "git down": _git(is_down=True),
    "git up": _git(is_down=False),
    "token expired": _argo(token_expired=True),
    "token back": _argo(token_expired=False),
    "right revoked": _argo(forbidden={NAME}),
    "right granted": _argo(forbidden=set()),
    "deaf": _argo(deaf=True),
    "hears": _argo(deaf=False),
    "window closed": _window(CLOSED),
    "window closed to robots": _window(CLOSED_TO_ROBOTS),
    "window open": _window(),
    "kill": _dies,
}
"""What happens beside the application."""
INSIDE: Mapping[str, Callable[[Rollout], None]] = {
    "sync by hand": _spec(automated=False),
    "sync by itself": _spec(automated=True),
    "other branch": _spec(branch="release"),
    "compare error": _compares_badly("ComparisonError"),
    "compare error with a branch": _compares_badly("ComparisonError", "main"),
    "invalid spec": _compares_badly("InvalidSpecError"),
    "status not written": _compares_badly("UnknownError"),
    "compares": _compares,
    "crash": lambda rollout: rollout.argo.degrade_next_rollout(NAME, trouble=CRASHING),
    "no image": lambda rollout: rollout.argo.degrade_next_rollout(NAME, trouble=NO_IMAGE),
    "recover": lambda rollout: rollout.argo.recover(NAME),
    "flap": lambda rollout: rollout.argo.flap_next_rollout(NAME),
    "scale": lambda rollout: rollout.argo.scale_by_hand(NAME, 5),
    "cache lost": lambda rollout: rollout.argo.lose_cache(NAME),
    "stale render": lambda rollout: rollout.argo.stale_render_next(NAME),
    "foreign sync": _sync(prune=True),
    "partial sync": _sync(resources=[{"kind": "Service", "name": NAME}]),
    "rehearsal": _sync(dryRun=True),
    "refreshed": lambda rollout: rollout.argo.refresh(NAME, "normal"),
    "old sync": _old_sync,
    "terminate": _terminate,
    "operation lost": _lose,
    "operation orphaned": _orphan,
    "hook fails before": lambda rollout: rollout.argo.fail_next_hook(NAME, "PreSync", "Job has failed"),
    "hook fails after": lambda rollout: rollout.argo.fail_next_hook(NAME, "PostSync", "Job has failed"),
    "apply fails": lambda rollout: rollout.argo.fail_next_sync(NAME, "admission webhook denied the request"),
    "start fails": lambda rollout: rollout.argo.break_next_sync(NAME, "cannot reach the cluster"),
    "delete": lambda rollout: rollout.argo.delete(NAME),
}
"""What happens to the application, for as long as there is one."""


# --- many of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of many schedules."""

    outcomes: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    violations: tuple[str, ...] = ()


async def follow(schedule: Schedule, history: History) -> Ended:
    """Run one schedule to its end; a bug that it ran into counts as a wrong word."""
    try:
        return await Rollout(schedule, history).run()
    except Exception as error:  # noqa: BLE001 - whatever breaks has to be told with its schedule
        return Ended(None, 0, 0, f"it broke: {error!r}")


async def shortest(schedule: Schedule, history: History) -> Schedule:
    """The schedule without every happening that it goes wrong without as well."""
    for happening in schedule.happenings:
        less = replace(schedule, happenings=tuple(each for each in schedule.happenings if each != happening))
        if (await follow(less, history)).wrong:
            schedule = less
    return schedule


async def tally(seeds: Sequence[int], folder: Path) -> Tally:
    """Run the schedules of these seeds, one after the other on one repository; what is wrong comes shortened."""
    history, outcomes, looks, violations = History(folder), Counter[str](), 0, []
    for seed in seeds:
        schedule = drawn(seed)
        ended = await follow(schedule, history)
        outcomes[ended.outcome or "none"] += 1
        looks += ended.looks
        if ended.wrong:
            short = await shortest(schedule, history)
            violations.append(f"{short}: {(await follow(short, history)).wrong}")
    return Tally(outcomes=outcomes, looks=looks, violations=tuple(violations))


def _tally(seeds: Sequence[int]) -> Tally:
    with tempfile.TemporaryDirectory(prefix="rollouts-") as name:
        return asyncio.run(tally(seeds, Path(name)))


def rollouts(*, seed: int, schedules: int, only: Sequence[int], say: Callable[[str], None]) -> Part:
    """As many schedules, the first of them that of `seed`, or `only` those of some seeds, on every core."""
    began = time.monotonic()
    seeds = list(only) or list(range(seed, seed + schedules))
    shares = [seeds[first : first + AT_ONCE] for first in range(0, len(seeds), AT_ONCE)]
    outcomes, looks, violations, done = Counter[str](), 0, [], 0
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawning) as workers:
        for share, found in zip(shares, workers.map(_tally, shares), strict=True):
            outcomes += found.outcomes
            looks += found.looks
            violations += found.violations
            done += len(share)
            for each in found.violations:
                say(f"  {each}")
            if done % (10 * AT_ONCE) == 0:
                say(f"  {done} of {len(seeds)} schedules, {len(violations)} violations")
    told = {f"ended as {outcome}": f"{count}" for outcome, count in sorted(outcomes.items())}
    return Part(
        name="rollouts",
        seed=seeds[0],
        replicas="1",
        promotions=len(seeds),
        commits=len(seeds),
        seconds=time.monotonic() - began,
        violations=tuple(violations),
        also={"looks at Argo CD": f"{looks}", **told},
    )


# --- what a schedule is made into


def target(policy: RolloutPolicy) -> Target:
    """One application in one environment."""
    return Target(
        app="manual-app",
        environment="prod",
        repository=Repository(name="charts", url=URL, branch="main"),
        path=VALUES,
        keys=("image.tag",),
        image=IMAGE,
        applications=(Application(server="main", name=NAME, project="default"),),
        channel="C1",
        policy=Policy(),
        rollout=policy,
    )


def application(schedule: Schedule) -> SimulatedApplication:
    """What Argo CD has of it."""
    return SimulatedApplication(
        name=NAME,
        destination_namespace="prod",
        values_file=VALUES,
        repo_url=URL,
        automated=schedule.automated,
        self_heal=schedule.self_heal,
        retry_limit=schedule.retry_limit,
    )


def promotion(target: Target, revision: str, at: datetime) -> Promotion:
    """One that is pushed, and to be followed from now on."""
    return rebuilt(
        target,
        id=PromotionId("P-0000000000"),
        source="stage",
        version=OURS,
        old_version=OLD,
        by=Signer(id="U1", team="T1", name="Dana"),
        approved_by=(),
        at=at,
        revision=revision,
    )


def _images(manifest: Mapping[str, Any]) -> set[str]:
    template = manifest.get("spec", {}).get("template", {})
    return {each["image"] for each in template.get("spec", {}).get("containers", [])}
