"""How long each build has run healthily where it is tried: seen every minute, added up, and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from bot.core.board import Soaked
from bot.core.catalog import Catalog, Image, Target
from bot.core.drafting import Drafting
from bot.core.errors import Refused
from bot.core.policy import Policy
from bot.core.ports import Clock
from bot.core.rounds import go_round
from bot.core.together import together

LONGEST_GAP = timedelta(minutes=3)
"""Between two looks; of a longer time nobody knows how it was, and a clock that jumped tells of none."""
LAST_LOOK = Image(version="*")
"""No tag can be spelled so: its record says when somebody looked last, whatever ran there."""
NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one round has found."""

    builds: Mapping[str, Image]
    """What could go to a target, by its name: only what its source runs, live and healthy."""
    reasons: tuple[str, ...]
    """Why some targets could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A build, and how its source holds it: as long as that stays the same, so does the build."""

    held: Image
    build: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaking:
    """Adds up the time that builds run healthily; safe beside any number of others."""

    drafting: Drafting
    clock: Clock
    _known: dict[str, Known] = field(default_factory=dict)
    """What this process saw at its last look, by target."""

    async def look(self) -> Seen:
        """One look at every environment before a target with rules. What cannot be seen now counts for nothing."""
        builds: dict[str, Image] = {}
        works = [
            (source, partial(self._look, target, source, builds))
            for target in self.drafting.catalog.targets
            if (source := tried_in(self.drafting.catalog, target))
        ]
        reasons = await go_round(works)
        return Seen(builds=builds, reasons=reasons)

    async def _look(self, target: Target, source: Target, builds: dict[str, Image]) -> None:
        now = self.clock.now()
        try:
            build = await self._build(target, source)
        except Refused:
            await self._looked(source, now, was_healthy=False)
            await self._end(target, source)
            return
        await self._count(source, build, now)
        builds[target.name] = build

    async def _build(self, target: Target, source: Target) -> Image:
        """What could go now; the registry is asked only where another build is there than at the last look."""
        held = await self.drafting.held(target, source)
        known = self._known.get(target.name)
        if known and known.held == held and held.has_digest:
            return known.build
        build = await self.drafting.proved(target, source, held)
        if known and known.build != build:
            await self._end(target, source)
        self._known[target.name] = Known(held=held, build=build)
        return build

    async def _count(self, source: Target, build: Image, now: datetime) -> None:
        """Add the time since the last look, where that look saw the same build in good health."""
        board, place = self.drafting.board, (source.app, source.environment)
        soaked, last = await together(board.soaked(*place, build), board.soaked(*place, LAST_LOOK))
        total = soaked.total if soaked else NOTHING
        if soaked and last and last.was_healthy and soaked.was_healthy and soaked.seen_at == last.seen_at:
            since = now - last.seen_at
            total += since if NOTHING <= since <= LONGEST_GAP else NOTHING
        # In this order: if only the first is written, the next look counts nothing.
        await board.soak(*place, build, Soaked(total=total, seen_at=now, was_healthy=True))
        await self._looked(source, now, was_healthy=True)

    async def _looked(self, source: Target, now: datetime, *, was_healthy: bool) -> None:
        look = Soaked(total=NOTHING, seen_at=now, was_healthy=was_healthy)
        await self.drafting.board.soak(source.app, source.environment, LAST_LOOK, look)

    async def _end(self, target: Target, source: Target) -> None:
        """Say of the build that was there that it does not run healthily any more; its total stays."""
        if (known := self._known.pop(target.name, None)) is None:
            return
        board, place = self.drafting.board, (source.app, source.environment)
        if soaked := await board.soaked(*place, known.build):
            await board.soak(*place, known.build, replace(soaked, was_healthy=False))


def tried_in(catalog: Catalog, target: Target) -> Target | None:
    """The environment before, where what runs there matters to a rule of the target."""
    return catalog.before(target) if _has_rules(target.policy) else None


def _has_rules(policy: Policy) -> bool:
    asks = policy.soak or policy.checks or policy.probes or policy.windows
    return bool(asks) or policy.needs_approval
