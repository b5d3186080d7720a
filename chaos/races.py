"""`python -m chaos.races`: replicas race one another with commands for the same promotions, and every rule is checked.

Each round some real processes wait at a barrier and then fire at one target at the very same time. The core, the store
and its Valkey are real. Only the outside systems are stand-ins: git is a branch in the same Valkey that a commit moves
by compare-and-swap (so a second commit of a promotion is possible, and would be seen), Slack and Argo CD are objects in
memory, and each process has a clock of its own that goes wrong by some seconds. The seed repeats the commands; who
wins is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from bot.core.advance import AT_ONCE_AGAIN, Engine
from bot.core.announcing import Announcing
from bot.core.catalog import (
    UNKNOWN,
    Application,
    Catalog,
    Image,
    Repository,
    RolloutPolicy,
    Target,
)
from bot.core.dossier import Dossier
from bot.core.errors import Conflict, PromoteError, Refused, Stale, TargetBusy, Unavailable
from bot.core.facts import ApplicationFacts, Pod, Workloads
from bot.core.following import Following
from bot.core.people import Person
from bot.core.policy import ApprovalRule, Policy
from bot.core.ports import Card, Change, Edit, Plan, Push, Written
from bot.core.promoter import Promoter
from bot.core.promotion import NEXT, Event, LineChange, Phase, Promotion
from bot.core.rollout import Look, Relation
from bot.core.seals import Sealer
from bot.integrations import embedded, lua
from bot.integrations.board import RedisBoard
from bot.integrations.redis_address import Client, close, connect
from bot.integrations.store import RedisStore
from chaos.drafts import drafting
from chaos.images import NoRegistries

AT_ONCE = 2
"""Commands that one process fires in a round."""
REPEATED = 0.3
"""How often a command is one more copy of another one of its round."""
STAYS_FOR = 6
"""Rounds in a row at one target."""
WITHIN = 60.0
"""Seconds for all processes to come to the barrier."""

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROUND_TAKES = timedelta(seconds=3)
CLOCK_ERROR = 6.0
"""Seconds that a process's clock is wrong by, either way."""
LEASE = timedelta(milliseconds=200)

VALUES, LOG = "race:values", "race:log"
PUSH_TAKES = 0.01
"""Seconds, at most."""
LOST = 0.15
"""How often a push does not arrive, and how often it does and its answer is lost."""
FIRST_VERSIONS = {"dev": "3", "stage": "2", "prod": "1"}
VERSIONS = tuple("3456789")

APPROVERS = ("U0AMY", "U0BEN", "U0MEL")
OTHERS = ("U0DANA", "U0ERIN", "U0GUS")
GUEST = "U0GUS"
POLICY = Policy(
    rules=(ApprovalRule(users=frozenset(APPROVERS), groups=frozenset(), minimum=2),),
    total=2,
    expires=timedelta(seconds=21),
    start_within=timedelta(seconds=15),
)
APPS = ("api", "search", "shop", "web")
SEALER = Sealer("only the race is sealed with this")


def target(app: str, environment: str) -> Target:
    """An app in an environment, each with two of three approvers."""
    name = f"{app}-{environment}"
    return Target(
        app=app,
        environment=environment,
        repository=Repository(name="gitops", url="https://git.example.com/acme/gitops.git", branch="main"),
        path=f"{name}.yaml",
        keys=("image.tag",),
        image=f"ghcr.io/acme/{app}",
        applications=(Application(server="main", name=name, project="default"),),
        channel="C0DEPLOYS",
        policy=POLICY,
        rollout=RolloutPolicy(stable_for=timedelta(0)),
        is_tag_only=True,
    )


CATALOG = Catalog(
    environments=tuple(FIRST_VERSIONS),
    targets=tuple(itertools.starmap(target, itertools.product(APPS, FIRST_VERSIONS))),
)


def first_values() -> dict[str, str]:
    """What the branch holds before the race, by the target's name."""
    return {each.name: FIRST_VERSIONS[each.environment] for each in CATALOG.targets}


# --- the outside


@dataclass(kw_only=True)
class RacingClock:
    """One process's own time, which its rounds set; no two looks at it see the same."""

    at: datetime = NOON

    def now(self) -> datetime:
        """What this process believes."""
        self.at += timedelta(microseconds=1)
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One entry of the branch's log."""

    promotion: str
    target: str
    old: str
    new: str


COMMIT = """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held ~= ARGV[2] then return {'STALE', held} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'DONE', redis.call('RPUSH', KEYS[2], ARGV[4])}
"""


class Branch:
    """The GitOps repository: values and a log in Valkey. A revision is its commit's place in the log.

    Strict where git is: a commit needs the old value and nothing else. A push takes its time, and a few are lost.
    """

    def __init__(self, client: Client, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        self._known: tuple[dict[str, str], str] | None = None

    async def read(self) -> tuple[dict[str, str], str]:
        """Every target's version and the tip, of one instant."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(VALUES)
            pipeline.llen(LOG)
            values, length = await pipeline.execute()
        self._known = values, _revision(length)
        return self._known

    async def current(self, target: Target) -> Image:
        """What the branch holds now."""
        values, _ = await self.read()
        return Image(version=values[target.name])

    async def plan(
        self,
        target: Target,
        version: str,
        *,
        digest: str = UNKNOWN,  # noqa: ARG002 - the files here hold none
        brings: str = "",  # noqa: ARG002 - values are edited here
        fresh: bool = True,
    ) -> Plan:
        """What a commit would change; without `fresh`, as this process has last seen the branch."""
        values, tip = await self.read() if fresh or self._known is None else self._known
        old = values[target.name]
        change = LineChange(path=target.path, number=2, before=f"  tag: {old}", after=f"  tag: {version}")
        is_done = old == version
        return Plan(old_version=old, base=tip, changes=() if is_done else (change,), is_done=is_done)

    async def stood(self, target: Target, *, limit: int) -> tuple[str, ...]:
        """What each commit brought, newest first, and what was there before the race."""
        brought = [commit.new for commit in await self.log() if commit.target == target.name]
        held = [FIRST_VERSIONS[target.environment], *brought][-limit:]
        return tuple(version for version, _ in itertools.groupby(reversed(held)))

    async def last_push(self, _target: Target) -> Push | None:
        """Nobody knows."""
        return None

    async def commit(self, edit: Edit) -> str:
        """Move the value by compare-and-swap."""
        await asyncio.sleep(self._rng.uniform(0, PUSH_TAKES))
        if self._rng.random() < LOST:
            raise Unavailable("the git host", "the push did not arrive", maybe_done=True)
        name = edit.target.name
        entry = {"promotion": edit.promotion, "target": name, "old": edit.old, "new": edit.new}
        words = (name, edit.old, edit.new, json.dumps(entry))
        said, detail = await self._client.eval(COMMIT, 2, VALUES, LOG, *words)
        if said == "STALE":
            raise Stale(expected=edit.old, found=detail)
        if self._rng.random() < LOST:
            raise Unavailable("the git host", "its answer was lost", maybe_done=True)
        return _revision(detail)

    async def find(self, edit: Edit) -> str | None:
        """The promotion's own commit after the base."""
        base = int(edit.base or "0", 16)
        for place, commit in enumerate(await self.log(base), start=base + 1):
            if (commit.promotion, commit.new) == (edit.promotion, edit.new):
                return _revision(place)
        return None

    async def written(self, _repository: Repository, *, limit: int) -> tuple[Written, ...]:
        """No record is lost here, so nobody asks."""
        raise NotImplementedError(f"the last {limit} commits")

    async def is_on_branch(self, target: Target, revision: str) -> bool:  # noqa: ARG002
        """Nobody rewrites this branch."""
        return True

    async def relate(
        self,
        target: Target,
        *,
        revision: str,
        commit: str,
        version: str,
        digest: str = UNKNOWN,  # noqa: ARG002 - these values have none
    ) -> Relation:
        """Is the commit at or before the revision, and which value is the last one up to there?"""
        ours, theirs = int(commit, 16), int(revision, 16)
        later = (await self.log(ours))[: max(0, theirs - ours)]
        held = [each.new for each in later if each.target == target.name]
        return Relation(contains=ours <= theirs, holds_value=not held or held[-1] == version)

    async def log(self, after: int = 0) -> list[Commit]:
        """The commits in their order, without the first `after`."""
        return [Commit(**json.loads(entry)) for entry in await self._client.lrange(LOG, after, -1)]


def _revision(place: int) -> str:
    return f"{place:040x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCluster:
    """An Argo CD that runs what the branch holds, at once."""

    branch: Branch
    clock: RacingClock

    async def observe(
        self,
        target: Target,
        application: Application,
        *,
        refresh: bool,  # noqa: ARG002
        hard: bool = False,  # noqa: ARG002
    ) -> ApplicationFacts:
        """Synced and healthy at the tip."""
        values, tip = await self.branch.read()
        image = f"{target.image}:{values[target.name]}"
        pod = Pod(name=f"{application.name}-0", images=(image,), is_ready=True, is_terminating=False)
        return ApplicationFacts(
            name=application.name,
            tracks=None,
            automated=True,
            sync="Synced",
            revision=tip,
            compares_spec=True,
            health="Healthy",
            is_operating=False,
            operation=None,
            reconciled_at=self.clock.now(),
            workloads=Workloads(rendered_images=frozenset({image}), pods=(pod,)),
        )


class People:
    """Slack's directory: six people, one of them a guest."""

    async def person(self, user: str) -> Person:
        """Who this is."""
        return Person(id=user, team="T0ACME", name=user[2:].title(), is_guest=user == GUEST)

    async def members(self, _group: str) -> frozenset[str]:
        """The policy names people only."""
        return frozenset()

    async def owner_of(self, _email: str) -> str | None:
        """Nobody here has an address."""
        return None


class Silence:
    """Slack's channels, in which every message arrives and nobody reads."""

    def digest(self, _target: Target, promotion: Promotion, _look: Look) -> str:
        """Each edition has a card of its own."""
        return str(promotion.edition)

    async def post(self, target: Target, promotion: Promotion, _look: Look) -> Card:
        """The card has a place."""
        return Card(channel=target.channel, ts=promotion.id, link=f"https://slack.example.com/{promotion.id}")

    async def posted(self, _target: Target, _promotion: Promotion) -> Card | None:
        """No answer is lost here."""
        return None

    async def edit(self, card: Card, target: Target, promotion: Promotion, look: Look) -> None:
        """Nothing to do."""

    async def tell(
        self, card: Card, promotion: Promotion, events: Sequence[Event], *, dossier: Dossier | None = None
    ) -> None:
        """Nothing to do."""

    async def remind(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Nothing to do."""

    async def tell_emergency(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Nothing to do."""

    async def remind_review(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Nothing to do."""

    async def warn(self, target: Target, promotion: Promotion) -> None:
        """Nothing to do."""


class CountingStore(RedisStore):
    """The real store, which also counts the saves that another one was faster than."""

    too_late = 0

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """As the store does."""
        try:
            await super().save(changes, holds=holds)
        except Conflict:
            self.too_late += 1
            raise


# --- the commands


class Kind(StrEnum):
    """What somebody, or a worker, asks for."""

    REQUEST = "request"
    ASK_AGAIN = "ask again"
    APPROVE = "approve"
    WITHDRAW = "withdraw"
    REJECT = "reject"
    CANCEL = "cancel"
    ADVANCE = "advance"
    WORK = "claim, advance, rest"


class Answer(StrEnum):
    """What came back."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CONFLICT = "conflict"
    BUSY = "busy"
    AWAY = "unavailable"
    BROKE = "broke"


STEPS = {
    Kind.APPROVE: "approval",
    Kind.WITHDRAW: "withdrawal",
    Kind.REJECT: "rejected",
    Kind.CANCEL: "cancelled",
}
"""What stands in the story of a promotion for a decision that was accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; `id` is empty where the target has no promotion yet."""

    kind: Kind
    target: Target
    id: str
    user: str
    version: str | None
    delivery: str
    content_hash: str | None


UNDECIDED: Mapping[Kind, float] = {
    Kind.APPROVE: 10,
    Kind.ADVANCE: 8,
    Kind.WORK: 2,
    Kind.WITHDRAW: 1.5,
    Kind.REQUEST: 1,
    Kind.REJECT: 0.25,
    Kind.CANCEL: 0.25,
    Kind.ASK_AGAIN: 0.2,
}
DECIDED: Mapping[Kind, float] = {
    Kind.ADVANCE: 6,
    Kind.WORK: 2,
    Kind.REQUEST: 4,
    Kind.ASK_AGAIN: 1,
    Kind.APPROVE: 1,
    Kind.WITHDRAW: 0.5,
    Kind.REJECT: 0.5,
    Kind.CANCEL: 0.5,
}


def commands(
    rng: random.Random, target: Target, newest: Sequence[Promotion], *, name: str, count: int
) -> list[Command]:
    """One round's commands for all processes, at the newest promotion of the target or at the one before it."""
    is_undecided = bool(newest) and newest[0].phase in (Phase.REQUESTED, Phase.APPROVED)
    weights = UNDECIDED if is_undecided else DECIDED
    made: list[Command] = []
    for number in range(count):
        if made and rng.random() < REPEATED:
            made.append(rng.choice(made))
            continue
        (kind,) = rng.choices(list(weights), list(weights.values()))
        asks = kind in (Kind.REQUEST, Kind.ASK_AGAIN) or rng.random() < 0.1
        about = newest[0 if rng.random() < 0.9 else -1] if newest else None
        command = Command(
            kind=kind,
            target=target,
            id=about.id if about else "",
            user=rng.choice(OTHERS * 2 + APPROVERS if asks else APPROVERS),
            version=rng.choice(VERSIONS) if CATALOG.is_first(target) else None,
            delivery=f"{name}-{number}",
            content_hash=about.content_hash if about and rng.random() < 0.7 else None,
        )
        made.append(command)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One race, as every process knows it."""

    seed: int
    rounds: int
    processes: int
    save_script: str
    """The Lua that the stores save with."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What one process has to tell at its end."""

    answers: Counter[tuple[Kind, Answer]] = field(default_factory=Counter)
    deliveries: list[tuple[str, str]] = field(default_factory=list)
    """Each delivery that made a promotion or found one, with the id that it was answered with."""
    decisions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Those that were accepted: of which promotion, the step in its story, and by whom."""
    errors: list[str] = field(default_factory=list)
    too_late: int = 0
    """Saves that another process was faster than."""


class Racer:
    """One process's bot, and what it was answered."""

    def __init__(self, store: RedisStore, board: RedisBoard, branch: Branch, clock: RacingClock) -> None:
        cluster, people, images = PromptCluster(branch=branch, clock=clock), People(), NoRegistries()
        drafts = drafting(
            catalog=CATALOG,
            values=branch,
            cluster=cluster,
            directory=people,
            board=board,
            clock=clock,
            sealer=SEALER,
        )
        self.told = Told()
        self._store = store
        self._promoter = Promoter(
            catalog=CATALOG,
            store=store,
            values=branch,
            cluster=cluster,
            images=images,
            directory=people,
            clock=clock,
            sealer=SEALER,
            drafting=drafts,
        )
        self._engine = Engine(
            catalog=CATALOG,
            store=store,
            values=branch,
            images=images,
            directory=people,
            clock=clock,
            sealer=SEALER,
            drafting=drafts,
            following=Following(store=store, values=branch, cluster=cluster, images=images, clock=clock),
            announcing=Announcing(store=store, announcer=Silence(), clock=clock),
            alarm=self.told.errors.append,
        )

    async def fire(self, command: Command) -> None:
        """Do it, and note the answer."""
        self.told.answers[command.kind, await self._answer(command)] += 1

    async def _answer(self, command: Command) -> Answer:
        try:
            return await self._do(command)
        except TargetBusy:
            return Answer.BUSY
        except Refused:
            return Answer.REFUSED
        except Conflict:
            return Answer.CONFLICT
        except PromoteError:
            return Answer.AWAY
        except Exception as error:  # noqa: BLE001 - whatever it is, the rules are told
            self.told.errors.append(f"{command.kind} of {command.id or command.target.name}: {error!r}")
            return Answer.BROKE

    async def _do(self, command: Command) -> Answer:
        id, user, promoter = command.id, command.user, self._promoter
        match command.kind:
            case Kind.REQUEST | Kind.ASK_AGAIN:
                made = await self._ask(command)
                self.told.deliveries.append((command.delivery, made.id))
            case Kind.APPROVE:
                await promoter.approve(id, user=user, content_hash=command.content_hash)
            case Kind.WITHDRAW:
                await promoter.withdraw(id, user=user)
            case Kind.REJECT:
                await promoter.reject(id, user=user, why="not today")
            case Kind.CANCEL:
                await promoter.cancel(id, user=user)
            case Kind.ADVANCE:
                return _heard((await self._engine.advance(id))[1])
            case Kind.WORK:
                return await self._work()
        if step := STEPS.get(command.kind):
            self.told.decisions[id, step, user] += 1
        return Answer.ACCEPTED

    async def _ask(self, command: Command) -> Promotion:
        user, delivery = command.user, command.delivery
        if command.kind is Kind.ASK_AGAIN:
            return await self._promoter.ask_again(command.id, user=user, delivery=delivery)
        app, environment = command.target.app, command.target.environment
        return await self._promoter.request(
            app=app,
            environment=environment,
            version=command.version,
            reason="the race",
            user=user,
            delivery=delivery,
        )

    async def _work(self) -> Answer:
        """One turn of a worker, with whatever is due."""
        answer = Answer.ACCEPTED
        for id in await self._store.claim(limit=1, lease=LEASE):
            edition, after = await self._engine.advance(id)
            await self._store.rest(id, edition=edition, after=after)
            answer = _heard(after)
        return answer


def _heard(after: timedelta | None) -> Answer:
    return Answer.CONFLICT if after == AT_ONCE_AGAIN else Answer.ACCEPTED


# --- the race


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a race came to."""

    seed: int
    seconds: float
    answers: Counter[tuple[Kind, Answer]]
    too_late: int
    """Saves that another process was faster than."""
    repeated: int
    """Deliveries that came again and were answered with the promotion that they had made."""
    phases: Counter[Phase]
    """How many promotions ended, or stand, where."""
    steps: Counter[str]
    """How often each event stands in their stories."""
    commits: int
    violations: Mapping[str, Sequence[str]]
    """For each rule, what breaks it."""

    @property
    def is_sound(self) -> bool:
        """Was no rule broken?"""
        return not any(self.violations.values())

    @property
    def table(self) -> str:
        """Every answer, every figure and every rule, in Markdown."""
        answers = list(Answer)
        rows = [[str(kind), *(self.answers[kind, answer] for answer in answers)] for kind in Kind]
        totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
        figures = {
            "commands": sum(totals),
            "seconds": f"{self.seconds:.1f}",
            "saves that came too late": self.too_late,
            "deliveries answered with what they had made": self.repeated,
            "promotions": f"{sum(self.phases.values())} ({_counted(self.phases)})",
            "steps": f"{sum(self.steps.values())} ({_counted(self.steps)})",
            "commits": self.commits,
            **{f"violations: {rule}": len(found) for rule, found in self.violations.items()},
        }
        return (
            _row("Command", *answers) + _row(*["---"] * (len(answers) + 1))
            + "".join(_row(*row) for row in rows)
            + _row("all", *totals)
            + "\n" + _row("What", "Measured") + _row("---", "---")
            + "".join(_row(what, value) for what, value in figures.items())
        )  # fmt: skip


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"


def _counted(times: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(times.items()))


def race(*, commands: int = 16_000, processes: int = 8, seed: int = 1, save_script: str = lua.SAVE) -> Result:
    """Race, and check everything afterwards; `commands` is rounded up to whole rounds.

    `save_script` is the Lua that the stores save with: another one shows what the checks see. Raises `EOFError` where a
    process dies.
    """
    course = Course(
        seed=seed, rounds=-(-commands // (processes * AT_ONCE)), processes=processes, save_script=save_script
    )
    with tempfile.TemporaryDirectory(prefix="races-") as folder:
        server = embedded.start(Path(folder))
        try:
            asyncio.run(_prepare(server.url))
            began = time.monotonic()
            told = _run(course, server.url)
            seconds = time.monotonic() - began
            seen = asyncio.run(look(server.url, told))
        finally:
            asyncio.run(server.stop())
    return Result(
        seed=seed,
        seconds=seconds,
        answers=sum((each.answers for each in told), Counter()),
        too_late=sum(each.too_late for each in told),
        repeated=len(seen.deliveries) - len(set(seen.deliveries)),
        phases=Counter(life.promotion.phase for life in seen.lives),
        steps=Counter(event.what for life in seen.lives for event in life.events),
        commits=len(seen.commits),
        violations=violations(seen),
    )


async def _prepare(url: str) -> None:
    client = connect(url, quick=False)
    for name, version in first_values().items():
        await client.hset(VALUES, name, version)
    await close(client)


def _run(course: Course, url: str) -> list[Told]:
    """Start the processes, and hear all of them."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(course.processes, timeout=WITHIN)
    started, ears = [], []
    try:
        for number in range(course.processes):
            ear, mouth = context.Pipe(duplex=False)
            process = context.Process(target=_take_part, args=(course, number, url, barrier, mouth))
            process.start()
            mouth.close()  # so that the death of a process is heard
            started.append(process)
            ears.append(ear)
        return list(_heard_of(ears))
    except EOFError:
        for process in started:
            process.kill()
        raise
    finally:
        for process in started:
            process.join()
        for ear in ears:
            ear.close()


def _heard_of(ears: Sequence[Connection]) -> Iterator[Told]:
    """Each process's word as it comes, so that a death is heard before the others give up waiting."""
    silent = list(ears)
    while silent:
        ready = wait(silent)
        for ear in [each for each in silent if each in ready]:
            silent.remove(ear)
            yield ear.recv()


def _take_part(course: Course, number: int, url: str, barrier: Barrier, mouth: Connection) -> None:
    """One process, from its start to its end."""
    lua.SAVE = course.save_script
    mouth.send(asyncio.run(_race(course, number, url, barrier)))


async def _race(course: Course, number: int, url: str, barrier: Barrier) -> Told:
    store, client = CountingStore(connect(url, quick=False)), connect(url, quick=False)
    own = random.Random(f"{course.seed}/process {number}")  # noqa: S311 - accidents, no secret
    clock = RacingClock()
    racer = Racer(store, RedisBoard(client), Branch(client, own), clock)
    for turn in range(course.rounds):
        where = _where(course, turn)
        barrier.wait()  # what all processes see now is the same
        newest = await store.history(where, limit=2)
        rng = random.Random(f"{course.seed}/round {turn}")  # noqa: S311
        fired = commands(rng, where, newest, name=f"D{turn}", count=course.processes * AT_ONCE)
        clock.at = _time(turn) + timedelta(seconds=own.uniform(-CLOCK_ERROR, CLOCK_ERROR))
        barrier.wait()
        await asyncio.gather(*(racer.fire(each) for each in fired[number :: course.processes]))
    racer.told.too_late = store.too_late
    await store.aclose()
    await close(client)
    return racer.told


def _where(course: Course, turn: int) -> Target:
    """The target of a round: of some app one environment after the other, so that there is something to promote."""
    visit, place = divmod(turn // STAYS_FOR, len(CATALOG.environments))
    app = random.Random(f"{course.seed}/visit {visit}").choice(APPS)  # noqa: S311
    return CATALOG.target(app, CATALOG.environments[place])


def _time(turn: int) -> datetime:
    """What a right clock would say in that round."""
    return NOON + turn * ROUND_TAKES


# --- what is left, and the rules

WRITTEN = (Phase.COMMITTING, Phase.COMMITTED)
"""Who has come there may be on the branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One promotion as the store has it."""

    promotion: Promotion
    edition: int
    """The number that the store compares."""
    events: tuple[Event, ...]
    phases: tuple[str, ...]
    """The phases in whose sets it is."""
    is_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that is left after a race."""

    lives: tuple[Life, ...]
    holders: Mapping[str, str]
    """Which promotion holds a target, by the target's name; the same for those that are followed."""
    followed: Mapping[str, str]
    commits: tuple[Commit, ...]
    values: Mapping[str, str]
    """What the branch holds, by the target's name."""
    deliveries: tuple[tuple[str, str], ...]
    """Each answer to a delivery: its name, and the id of the promotion."""
    decisions: Mapping[tuple[str, str, str], int]
    """How often each decision was accepted: of which promotion, the step in its story, and by whom."""
    errors: tuple[str, ...]


async def look(url: str, told: Iterable[Told]) -> Seen:
    """Read the whole store, and what the processes tell."""
    client, told = connect(url, quick=False), list(told)
    store, branch = RedisStore(client), Branch(client, random.Random())  # noqa: S311 - nothing is pushed
    keys = [key async for key in client.scan_iter(match=f"{{gp}}:p:{'?' * len('P-0123456789')}")]
    sets = {phase: set(await client.zrange(f"{{gp}}:ph:{phase}", 0, -1)) for phase in Phase}
    due = set(await client.zrange("{gp}:due", 0, -1))
    seen = Seen(
        lives=tuple([await _life(client, store, key.rpartition(":")[2], sets, due) for key in sorted(keys)]),
        holders=await _owners(client, "hold"),
        followed=await _owners(client, "follow"),
        commits=tuple(await branch.log()),
        values=(await branch.read())[0],
        deliveries=tuple(answer for each in told for answer in each.deliveries),
        decisions=sum((each.decisions for each in told), Counter()),
        errors=tuple(error for each in told for error in each.errors),
    )
    await store.aclose()
    return seen


async def _life(
    client: Client, store: RedisStore, id: str, sets: Mapping[Phase, set[Any]], due: set[Any]
) -> Life:
    promotion = await store.load(id)
    if promotion is None:
        raise LookupError(f"{id} has no record.")
    return Life(
        promotion=promotion,
        edition=int(await client.hget(f"{{gp}}:p:{id}", "edition") or 0),
        events=await store.events(id),
        phases=tuple(phase for phase, ids in sets.items() if id in ids),
        is_due=id in due,
    )


async def _owners(client: Client, slot: str) -> dict[str, str]:
    names = [each.name for each in CATALOG.targets]
    found = await client.mget([f"{{gp}}:{slot}:{name}" for name in names])
    return {name: str(id) for name, id in zip(names, found, strict=True) if id}


def violations(seen: Seen) -> dict[str, list[str]]:
    """For every rule the sentences that say what breaks it."""
    return {name: list(rule(seen)) for name, rule in RULES.items()}


def _one_commit(seen: Seen) -> Iterator[str]:
    for id, times in Counter(commit.promotion for commit in seen.commits).items():
        if times > 1:
            yield f"{id} was committed {times} times"


def _commit_on_record(seen: Seen) -> Iterator[str]:
    places = {commit.promotion: place for place, commit in enumerate(seen.commits, start=1)}
    for life in seen.lives:
        promotion, place = life.promotion, places.pop(life.promotion.id, None)
        revision = _revision(place) if place else None
        if promotion.revision not in (None, revision):
            yield f"{promotion.id} has the revision {promotion.revision}, and the branch {revision}"
        if revision and promotion.revision is None and promotion.phase.is_final:
            yield f"{promotion.id} is {promotion.phase} as if nothing were committed"
    for id in places:
        yield f"there is a commit of {id} and no promotion"


def _approved(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        before = list(itertools.takewhile(lambda event: event.phase not in WRITTEN, life.events))
        if len(before) < len(life.events):
            yield from _unapproved(life.promotion, before)


def _unapproved(promotion: Promotion, before: Sequence[Event]) -> Iterator[str]:
    """What is wrong with the approvals of one that was written; `before` is its story until then."""
    standing = _standing(before)
    genuine = {each.by.id for each in promotion.approvals if SEALER.approval_is_genuine(promotion, each)}
    for event in before:
        if event.phase in (Phase.REJECTED, Phase.CANCELLED):
            yield f"{promotion.id} was written after it was {event.phase}"
    for by in sorted({by for by in standing if standing.count(by) > 1}):
        yield f"{promotion.id} was approved twice by {by}"
    if doubt := SEALER.doubt(promotion, CATALOG.target(promotion.app, promotion.environment)):
        yield f"{promotion.id} was written although {doubt}"
    if len(genuine & set(standing) & set(APPROVERS) - {promotion.requested_by.id}) < POLICY.total:
        yield f"{promotion.id} was written with the approvals of {sorted(genuine & set(standing))}"


def _standing(events: Iterable[Event]) -> list[str]:
    """Who has approved and not withdrawn, in order, as the story tells it."""
    standing: list[str] = []
    for event in events:
        by = event.by or ""
        if event.what == "approval":
            standing.append(by)
        elif event.what == "withdrawal" and by in standing:
            standing.remove(by)
    return standing


def _ended(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        for event, later in itertools.pairwise(life.events):
            if event.phase.is_final:
                yield f"{life.promotion.id} was {event.phase}, and then came “{later.what}”"


def _no_gap(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        told, promotion = [event.edition for event in life.events], life.promotion
        if told != list(range(1, promotion.edition + 1)) or life.edition != promotion.edition:
            yield f"{promotion.id} has edition {promotion.edition}, the store says {life.edition}, the story {told}"
        elif life.events[-1] != promotion.last:
            yield f"{promotion.id} ends with “{promotion.last.what}”, its story with “{life.events[-1].what}”"


def _legal(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        told = [event.phase for event in life.events]
        if told[:1] != [Phase.REQUESTED]:
            yield f"{life.promotion.id} begins as {told[:1]}"
        for event, later in itertools.pairwise(life.events):
            is_open = event.phase is later.phase is Phase.REQUESTED
            is_decision = is_open and later.what in ("approval", "withdrawal")
            if later.phase not in NEXT[event.phase] and not is_decision:
                yield f"{life.promotion.id} went from {event.phase} to {later.phase} with “{later.what}”"


def _one_holder(seen: Seen) -> Iterator[str]:
    for each in CATALOG.targets:
        never = CATALOG.is_first(each)
        holding = [] if never else _at(seen, each, lambda promotion: promotion.phase.holds)
        yield from _misplaced(each, "holding", holding, seen.holders.get(each.name))


def _one_followed(seen: Seen) -> Iterator[str]:
    for each in CATALOG.targets:
        rolling = _at(seen, each, lambda promotion: promotion.phase is Phase.COMMITTED)
        yield from _misplaced(each, "followed", rolling, seen.followed.get(each.name))


def _at(seen: Seen, where: Target, stands: Callable[[Promotion], bool]) -> list[str]:
    """The promotions of a target that stand so."""
    found = [life.promotion for life in seen.lives if life.promotion.target == where.name]
    return [promotion.id for promotion in found if stands(promotion)]


def _misplaced(where: Target, what: str, ids: Sequence[str], owner: str | None) -> Iterator[str]:
    if list(ids) != ([owner] if owner else []):
        yield f"{where.name}: {what} are {', '.join(ids) or 'none'}, and the key names {owner}"


def _one_phase(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        if life.phases != (life.promotion.phase,):
            yield f"{life.promotion.id} is {life.promotion.phase}, and in the sets of {', '.join(life.phases)}"


def _due(seen: Seen) -> Iterator[str]:
    for life in seen.lives:
        if not (life.promotion.phase.is_final or life.is_due):
            yield f"{life.promotion.id} is {life.promotion.phase}, and nobody will look at it again"


def _one_delivery(seen: Seen) -> Iterator[str]:
    made: dict[str, set[str]] = {}
    for delivery, id in seen.deliveries:
        made.setdefault(delivery, set()).add(id)
    for delivery, ids in made.items():
        if len(ids) > 1:
            yield f"{delivery} made {', '.join(sorted(ids))}"
    answered = {id for _, id in seen.deliveries}
    for id in sorted(answered ^ {life.promotion.id for life in seen.lives}):
        yield f"{id} was {'told, and is not there' if id in answered else 'made, and nobody was told'}"


def _no_decision_lost(seen: Seen) -> Iterator[str]:
    told: Counter[tuple[str, str, str]] = Counter(
        (life.promotion.id, event.what, event.by or "")
        for life in seen.lives
        for event in life.events
        if event.what in STEPS.values()
    )
    for id, step, by in sorted(told.keys() | seen.decisions.keys()):
        times, accepted = told[id, step, by], seen.decisions.get((id, step, by), 0)
        if times != accepted:
            yield f"{step} of {id} by {by} was accepted {accepted} times, and its story has it {times} times"
    for life in seen.lives:
        recorded, standing = [each.by.id for each in life.promotion.approvals], _standing(life.events)
        if recorded != standing:
            yield f"{life.promotion.id} has the approvals of {recorded}, and its story those of {standing}"


def _value(seen: Seen) -> Iterator[str]:
    last = first_values() | {commit.target: commit.new for commit in seen.commits}
    for name, version in seen.values.items():
        if version != last[name]:
            yield f"{name} holds {version}, and the last commit brought {last[name]}"


def _no_error(seen: Seen) -> Iterator[str]:
    yield from seen.errors


RULES: Mapping[str, Callable[[Seen], Iterator[str]]] = {
    "at most one commit": _one_commit,
    "record and branch agree": _commit_on_record,
    "written only with two approvals": _approved,
    "nothing follows an end": _ended,
    "editions without a gap": _no_gap,
    "every transition is legal": _legal,
    "one holder of a target": _one_holder,
    "one followed promotion of a target": _one_followed,
    "one set of a phase": _one_phase,
    "due until it ends": _due,
    "one promotion of a delivery": _one_delivery,
    "every accepted decision is kept": _no_decision_lost,
    "the branch holds the last commit": _value,
    "no error but ours": _no_error,
}


def main() -> int:
    """Race once and print the table; 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos.races", description=__doc__)
    parser.add_argument("--commands", type=int, default=16_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="of the commands and of the clocks")
    options = parser.parse_args()
    result = race(commands=options.commands, processes=options.processes, seed=options.seed)
    broken = "".join(
        f"VIOLATION of “{rule}”: {sentence}\n"
        for rule, found in result.violations.items()
        for sentence in found
    )
    sys.stdout.write(f"{result.table}\nSeed {result.seed}.\n{broken}")
    return int(not result.is_sound)


if __name__ == "__main__":
    sys.exit(main())
