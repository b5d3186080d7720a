"""One run: a promotion to prod from the request until it is live, with one fault on the way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.core.promotion import Phase
from bot.integrations import embedded
from bot.integrations.store import RedisStore, connect
from chaos.checks import look, violations
from chaos.faults import Fault, counts, struck, takeover
from chaos.lanes import VALUES, Lane
from chaos.world import CrashingWorkshop

LIMIT = 45.0
"""Seconds for the story; with its start and its stop a run stays below a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run; `fault` is None for an undisturbed one."""

    fault: Fault | None
    violations: tuple[str, ...]
    struck: bool = False
    """Was the boundary reached?"""
    seconds: float = 0.0
    takeover: float | None = None
    """Seconds from the fault until its work was claimed again."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """How often each boundary was crossed."""
    phase: str = "lost"
    commits: int = 0
    copies: int = 0
    """Cards beyond the one on record."""
    repeats: int = 0
    """Lines of the thread beyond the first of their kind."""

    @property
    def killed(self) -> bool:
        """Was the bot killed?"""
        return bool(self.struck and self.fault and self.fault.how.kills)

    def __str__(self) -> str:
        name = str(self.fault or "undisturbed")
        ended = f"{self.phase} after {self.seconds:.1f} s"
        missed = "" if self.struck or not self.fault else ", the boundary was not reached"
        again = f", went on after {self.takeover:.1f} s" if self.takeover is not None else ""
        told = "".join(f"\n    VIOLATION {each}" for each in self.violations)
        return f"{name}: {ended}{again}{missed}{told}"


async def run(fault: Fault | None, folder: Path, lane: Lane = VALUES) -> Outcome:
    """Run the story in this new folder, with this fault; whatever goes wrong is a violation, never an error."""
    began = time.monotonic()
    try:
        async with _world(folder, fault, lane) as (world, store):
            outcome = await _watched(world, store, fault)
    except RuntimeError as error:
        outcome = Outcome(fault=fault, violations=(str(error),))
    return replace(outcome, seconds=time.monotonic() - began)


async def _watched(world: CrashingWorkshop, store: RedisStore, fault: Fault | None) -> Outcome:
    """The story, and what everything looks like after it."""
    late = []
    try:
        async with asyncio.timeout(LIMIT):
            await _story(world, store)
    except TimeoutError:
        late = [f"it was not at its end within {LIMIT:g} s"]
    known = [each for phase in Phase for each in await store.in_phase(phase)]
    if not known:
        return Outcome(fault=fault, violations=(*late, "there is no promotion"))
    seen = await look(world, store, known)
    return Outcome(
        fault=fault,
        violations=(*late, *violations(seen, fault)),
        struck=struck(seen.crossings) is not None,
        takeover=takeover(seen.crossings),
        counted=dict(counts(seen.crossings)),
        phase=seen.promotion.phase.value,
        commits=len(seen.commits),
        copies=seen.copies,
        repeats=seen.repeats,
    )


async def _story(world: CrashingWorkshop, store: RedisStore) -> None:
    """Dana asks, Amy approves, and everybody waits until it is live; meanwhile a dead bot is started again."""
    supervisor = asyncio.create_task(world.keep_running())
    try:
        world.journal.begin()
        id = await world.ask()
        await world.approve(store, id)
        await world.settled(store, id)
    finally:
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor


@contextlib.asynccontextmanager
async def _world(
    folder: Path, fault: Fault | None, lane: Lane
) -> AsyncIterator[tuple[CrashingWorkshop, RedisStore]]:
    """The world, started, and the store that its bot adopts."""
    async with contextlib.AsyncExitStack() as closing:
        server = await asyncio.to_thread(embedded.start, folder / "data")
        closing.push_async_callback(server.stop)
        store = RedisStore(connect(server.url, quick=False))
        closing.push_async_callback(store.aclose)
        world = CrashingWorkshop(folder, fault, lane)
        closing.push_async_callback(world.stop)
        await world.start()
        yield world, store
