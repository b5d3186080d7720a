"""One world in which the bot is four processes on one store: two that hear Slack, and two that work."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import aiohttp

from bot.core.promotion import ID, Promotion, PromotionId
from bot.integrations import embedded
from bot.integrations.store import RedisStore, connect
from bot.playground.argocd.application import Timings
from bot.playground.repository import create_repository, read_file
from bot.playground.slack.fake import NotPossibleError
from bot.playground.slack.state import SLACKBOT
from bot.playground.workshop import CHANNEL, Pace, Shape, Workshop, free_port
from chaos.bot import serve
from chaos.by_hand import push, set_version
from chaos.faults import Crossing, Fault, Journal, What
from chaos.processes import Fork
from chaos.world import cards, may_approve

PACE = Pace(
    timings=Timings(
        reconcile_takes=timedelta(milliseconds=100),
        queue_takes=timedelta(milliseconds=100),
        sync_takes=timedelta(milliseconds=200),
        settle_gap=timedelta(milliseconds=200),
        pod_takes=timedelta(milliseconds=100),
    ),
    rollout="{stable_for: 1s, degraded_grace: 10s, pick_up_within: 2m, timeout: 5m}",
    lease_seconds=1,
)
BOTH = "prod-eu"
"""The environment in which two people must approve."""
WEB, WORKERS = ("web-1", "web-2"), ("worker-1", "worker-2")
FIRST = 14
"""The version that every environment runs at first."""
LOOK_EVERY = 0.15
"""Seconds between two looks of a person."""
PATIENCE = 3.0
"""Seconds that a person waits for an answer before trying again."""
ENDS_WITHIN = 15.0
"""Seconds for a process that was told to end: the bot needs ten at most."""
PAUSE = 0.3
"""Seconds between an answer that does not help and the next try."""


Times: TypeAlias = Callable[[], int]
"""How often the next request is delivered."""


def once() -> int:
    """As a request should be."""
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """An app and its own people, so that every private word can be told to be about one app."""

    number: int
    needs_both: bool = False

    @property
    def app(self) -> str:
        """`app-3`."""
        return f"app-{self.number}"

    @property
    def environment(self) -> str:
        """The last one."""
        return BOTH if self.needs_both else "prod"

    @property
    def people(self) -> Mapping[str, str]:
        """Who asks and who approves: name to id."""
        return {name: f"U0{name.upper()}{self.number:05d}" for name in ("dana", "amy", "ben")}

    @property
    def approvers(self) -> Sequence[str]:
        """Those who approve, by id."""
        _dana, amy, ben = self.people.values()
        return (amy, ben) if self.needs_both else (amy,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process of a replica, from its start to its end."""

    replica: str
    number: int
    faults: Sequence[Fault]
    journal: Journal
    process: Fork

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """What it did."""
        return self.journal.read()

    def __str__(self) -> str:
        return f"{self.replica}.{self.number} ({' '.join(map(str, self.faults)) or 'no fault'})"


class ReplicatedWorkshop(Workshop):
    """Several apps, one store, and the bot in several processes."""

    def __init__(self, folder: Path, *, teams: Sequence[Team], store_url: str, pace: Pace) -> None:
        _write_values(create_repository(folder), teams)
        shape = Shape(
            apps={team.app: ("dev", "stage", team.environment) for team in teams},
            values="{app}/values-{env}.yaml",
            approvals={"prod": 1, BOTH: 2},
            approvers=[team.people[name] for team in teams for name in ("amy", "ben")],
        )
        super().__init__(folder, pace=pace, shape=shape)
        self.teams = teams
        self.lives: list[Life] = []
        self.acts: list[tuple[str, float]] = []
        """Who did something, and when, in Unix time."""
        self.late: list[str] = []
        """A sentence for each process that did not end when it was told to."""
        self.client = connect(store_url, quick=False)
        self.store = RedisStore(self.client)
        self._store_url = store_url
        self._ports = {name: (free_port(), free_port()) for name in (*WEB, *WORKERS)}
        self._running: dict[str, Life] = {}
        self._turns = itertools.count()
        self._writing = asyncio.Lock()
        for team in teams:
            self._invite(team)

    def _invite(self, team: Team) -> None:
        for name, id in team.people.items():
            email = f"{name}.{team.number}@acme.example"
            who = f"{name.title()} {team.number}"
            self.slack.add_user(id, name=f"{name}{team.number}", real_name=who, email=email, kind="member")
            self.slack.channel(CHANNEL).members.add(id)

    # --- the replicas

    def begin(self, replica: str, faults: Sequence[Fault] = ()) -> Life:
        """Start a process of this replica, with its own journal."""
        number = 1 + sum(life.replica == replica for life in self.lives)
        path = self.folder / f"{replica}.{number}.jsonl"
        journal = Journal(path)
        journal.begin()
        port, operations_port = self._ports[replica]
        environment = {
            **self.environment(),
            "PORT": str(port),
            "OPERATIONS_PORT": str(operations_port),
            "REDIS_URL": self._store_url,
            "CHAOS_JOURNAL": str(path),
            "CHAOS_FAULTS": " ".join(map(str, faults)),
        }
        is_web = replica in WEB
        process = Fork(
            serve, environment=environment, log=self.log_of(replica), web_side=is_web, worker_side=not is_web
        )
        life = Life(replica=replica, number=number, faults=tuple(faults), journal=journal, process=process)
        self.lives.append(life)
        self._running[replica] = life
        return life

    async def begin_all(self) -> None:
        """Start every replica, and wait until all are ready."""
        for replica in (*WEB, *WORKERS):
            self.begin(replica)
        await asyncio.gather(*(self._ready(replica) for replica in (*WEB, *WORKERS)))

    async def keep_running(self, replica: str, plan: Callable[[str, int], Sequence[Fault]]) -> None:
        """Start the replica again as often as it ends, each time with the faults of the plan."""
        while True:
            life = self._running[replica]
            await life.process.wait()
            self.begin(replica, plan(replica, life.number + 1))

    async def stop(self) -> None:
        """End the replicas as an operator would, then the world."""
        await self.renew()
        await self.store.aclose()
        await super().stop()

    async def renew(self) -> None:
        """End every replica as an operator would; who keeps it running starts the next process."""
        await asyncio.gather(*(self._end(life) for life in self._running.values()))

    async def _end(self, life: Life) -> None:
        with contextlib.suppress(ProcessLookupError):
            life.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(life.process.wait(), ENDS_WITHIN)
        except TimeoutError:
            self.late.append(f"{life} did not end within {ENDS_WITHIN:g} s of SIGTERM")
            life.process.send_signal(signal.SIGKILL)
            await life.process.wait()

    async def kill(self, replica: str) -> None:
        """End a replica with SIGKILL from outside, and note that in its journal."""
        life = self._running[replica]
        life.process.send_signal(signal.SIGKILL)
        await life.process.wait()
        life.journal.note(Crossing(at=time.time(), call="any", nth=0, what=What.KILLED))

    def log_of(self, replica: str) -> Path:
        """What the processes of a replica have logged, JSON lines."""
        return self.folder / f"{replica}.log"

    def living(self, replica: str) -> Life:
        """The present process of a replica."""
        return self._running[replica]

    def address(self, replica: str) -> str:
        """Where Slack reaches a web replica."""
        return f"http://127.0.0.1:{self._ports[replica][0]}/slack/events"

    def _somewhere(self, times: int) -> list[str]:
        """The addresses of web replicas that live, each time the next ones, as Slack's requests are spread."""
        living = [name for name in WEB if self._running[name].process.returncode is None] or WEB
        return [self.address(living[next(self._turns) % len(living)]) for _ in range(times)]

    async def _ready(self, replica: str) -> None:
        await _answers(f"http://127.0.0.1:{self._ports[replica][1]}/readyz", self.living(replica).process)

    async def due(self) -> list[str]:
        """The promotions that a worker is to look at, now or later."""
        return list(await self.client.zrange("{gp}:due", 0, -1))

    async def settled(self, ids: Sequence[str], *, within: float) -> list[str]:
        """Wait until people see the confirmed end of these, and nothing is due; returns a sentence if that comes late."""
        try:
            async with asyncio.timeout(within):
                while await self._unsettled(ids):  # noqa: ASYNC110 - it is read from the store
                    await asyncio.sleep(0.5)
        except TimeoutError:
            return [f"not at rest within {within:g} s: {', '.join(await self._unsettled(ids))}"]
        return []

    async def _unsettled(self, ids: Sequence[str]) -> list[str]:
        left = set(await self.due())
        for id in ids:
            promotion, card = await self.store.load(id), await self.store.card(id)
            is_seen = promotion is not None and (card.phase, card.told) == (
                promotion.phase,
                promotion.edition,
            )
            if not is_seen or not card.is_confirmed:
                left.add(id)
        return sorted(left)

    # --- what people do

    async def write(self, team: Team, version: int) -> None:
        """Somebody puts a version into stage by hand, and waits until it runs there."""
        path, name = f"{team.app}/values-stage.yaml", f"{team.app}-stage"
        async with self._writing:
            await asyncio.to_thread(set_version, self.repository, path, str(version))
        while not self.argocd.truth(name).runs(str(version)):
            self.argocd.refresh(name, "normal")
            for _ in range(10):
                await asyncio.sleep(LOOK_EVERY)
                if self.argocd.truth(name).runs(str(version)):
                    break

    async def ask(self, team: Team, to: Sequence[str] = (), *, times: Times = once) -> PromotionId:
        """Dana asks until she is told an id: at first at these addresses, then each time at so many as `times` says."""
        dana = team.people["dana"]
        while True:
            before = len(self.slack.ephemerals(dana))
            addresses, to = to or self._somewhere(times()), ()
            self.acts.append((dana, time.time()))
            reply = await self.slack.command(
                dana, CHANNEL, f"{team.app} {team.environment} because INC-42", to=addresses
            )
            for _ in range(1 if reply.error else round(PATIENCE / LOOK_EVERY)):
                await asyncio.sleep(LOOK_EVERY)
                told = [each for each in self.slack.ephemerals(dana)[before:] if each.user != SLACKBOT]
                if found := next((found for each in told if (found := ID.search(each.text))), None):
                    return PromotionId(found[0])
                if told:
                    break
            await asyncio.sleep(PAUSE)

    async def approve(self, id: str, user: str, to: Sequence[str] = (), *, times: Times = once) -> None:
        """Somebody presses Approve until that is on record; addresses as for `ask`."""
        while not await self._has_approved(id, user):
            asking = [card for card in cards(self.slack, id) if may_approve(card)]
            if not asking:
                await asyncio.sleep(LOOK_EVERY)
                continue
            addresses, to = to or self._somewhere(times()), ()
            self.acts.append((user, time.time()))
            with contextlib.suppress(NotPossibleError):  # the card was edited at this very moment
                await self.slack.click(user, CHANNEL, asking[-1].ts, "promotion_approve", to=addresses)
            for _ in range(round(PATIENCE / LOOK_EVERY)):
                await asyncio.sleep(LOOK_EVERY)
                if await self._has_approved(id, user):
                    return

    async def ended(self, id: str) -> Promotion:
        """The promotion, when it has come to its end."""
        while True:
            promotion = await self.store.load(id)
            if promotion and promotion.phase.is_final:
                return promotion
            await asyncio.sleep(2 * LOOK_EVERY)

    async def _has_approved(self, id: str, user: str) -> bool:
        promotion = await self.store.load(id)
        return promotion is not None and promotion.approved_by(user)


@contextlib.asynccontextmanager
async def replicated(
    folder: Path, teams: Sequence[Team], *, lease_seconds: int = PACE.lease_seconds
) -> AsyncIterator[ReplicatedWorkshop]:
    """The world in this new folder, with its replicas ready."""
    async with contextlib.AsyncExitStack() as closing:
        server = await asyncio.to_thread(embedded.start, folder / "store")
        closing.push_async_callback(server.stop)
        pace = replace(PACE, lease_seconds=lease_seconds)
        world = ReplicatedWorkshop(folder, teams=teams, store_url=server.url, pace=pace)
        closing.push_async_callback(world.stop)
        await world.start(with_bot=False)
        await world.begin_all()
        yield world


def killed(life: Life) -> Crossing | None:
    """Where a fault ended the process."""
    return next((each for each in life.crossings if each.what == What.KILLED), None)


def _write_values(repository: Path, teams: Sequence[Team]) -> None:
    """Every app has the sample's values files in a folder of its own."""
    push(
        repository,
        {
            f"{team.app}/values-{environment}.yaml": read_file(repository, f"values-{sample}.yaml").replace(
                "ghcr.io/acme/manual-app", f"ghcr.io/acme/{team.app}"
            )
            for team in teams
            for environment, sample in (("dev", "dev"), ("stage", "stage"), (team.environment, "prod"))
        },
    )


async def _answers(address: str, process: Fork) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(address) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.02)
