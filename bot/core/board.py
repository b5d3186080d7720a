"""What people and tools have put up beside the promotions: locks, bad versions, verdicts, and how long a build ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bot.core.catalog import UNKNOWN, Image, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One target, one environment, or everything."""

    app: str | None = None
    environment: str | None = None

    def covers(self, target: Target) -> bool:
        """Does it hold for this target?"""
        return self.app in (None, target.app) and self.environment in (None, target.environment)

    def __str__(self) -> str:
        """`manual-app/prod`, `prod`, `everything`."""
        named = [word for word in (self.app, self.environment) if word]
        return "/".join(named) or "everything"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Somebody's word that nothing may move; `until` None: until somebody takes it away."""

    scope: Scope
    by: str
    """The owner's Slack id."""
    reason: str
    at: datetime
    until: datetime | None = None
    after: str | None = None
    """The rollback that put it up: another rollback passes it."""

    def holds_at(self, now: datetime) -> bool:
        """Does it still hold?"""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class BadVersion:
    """A version that nobody may promote any more."""

    app: str
    version: str
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One verdict: a check of one build in one environment."""

    app: str
    environment: str
    """Where the build ran that was checked."""
    image: Image
    check: str
    passed: bool
    by: str
    """A Slack id, or `hook:` and the name of an identity."""
    at: datetime
    said: str = ""
    link: str = ""
    seal: str = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """How long a build has run healthily in an environment, in all."""

    total: timedelta
    seen_at: datetime
    """When somebody looked last."""
    was_healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Somebody wants to be told when a version can go; it is told once."""

    app: str
    environment: str
    version: str
    user: str


class Board(Protocol):
    """Where these are kept. Every method may raise `Unavailable`; what cannot be read is never taken for nothing."""

    async def locks(self) -> tuple[Lock, ...]:
        """Every lock, also those that are over."""
        ...

    async def lock(self, lock: Lock) -> None:
        """Put it up, in the place of one of the same scope."""
        ...

    async def unlock(self, scope: Scope) -> Lock | None:
        """Take it away and return it; None where there is none."""
        ...

    async def bad_versions(self, app: str) -> tuple[BadVersion, ...]:
        """The app's bad versions."""
        ...

    async def block(self, bad: BadVersion) -> None:
        """Nobody may promote this version from now on."""
        ...

    async def unblock(self, app: str, version: str) -> BadVersion | None:
        """It may be promoted again; returns what was put up, None where nothing was."""
        ...

    async def reports(self, app: str, environment: str, version: str) -> tuple[Report, ...]:
        """The newest verdict of each check of a version there, whatever its digest."""
        ...

    async def report(self, report: Report, *, delivery: str | None = None) -> bool:
        """Keep a verdict, in the place of an older one of the same check and build; False where it was kept before.

        A `delivery` is a caller's own name for the call: within 48 hours the same one changes nothing.
        """
        ...

    async def soaked(self, app: str, environment: str, image: Image) -> Soaked | None:
        """How long this very build has run healthily there; None where nobody has seen it."""
        ...

    async def soak(self, app: str, environment: str, image: Image, soaked: Soaked) -> None:
        """Remember it, for ninety days after the last look."""
        ...

    async def wish(self, wish: Wish) -> None:
        """Remember that somebody wants to be told, for seven days."""
        ...

    async def wishes(self) -> tuple[Wish, ...]:
        """Who wants to be told what."""
        ...

    async def grant(self, wish: Wish) -> bool:
        """It is about to be told: forget it; False where somebody else has done so first."""
        ...

    async def once(self, what: str, *, within: timedelta) -> bool:
        """Is this the first time within this span that somebody is about to do it?"""
        ...

    async def take(self, who: str, *, most: int, within: timedelta) -> bool:
        """One more of at most `most` within a span; False where there were so many already."""
        ...

    async def looked_at(self, branch: str) -> str | None:
        """The tip at which somebody looked last for what others brought to a branch; None where nobody has."""
        ...

    async def keep_looked_at(self, branch: str, tip: str) -> None:
        """Everything up to this tip is known."""
        ...

    async def call(self, repository: str) -> None:
        """Have whoever looks at this repository's branch look at once."""
        ...

    async def calls(self) -> Mapping[str, str]:
        """For each repository that was called, by name, a word that is another one after each call."""
        ...

    async def group(self, group: str) -> frozenset[str] | None:
        """The people of a user group, as somebody read them within the last thirty seconds."""
        ...

    async def keep_group(self, group: str, members: Sequence[str]) -> None:
        """Share what was read, for thirty seconds."""
        ...
