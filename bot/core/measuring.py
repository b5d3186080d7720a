"""How often, how fast and how safely targets are deployed to: read from git and the store, counted by `stats`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.core.catalog import Catalog, Repository, Target
from bot.core.errors import PromoteError, Refused
from bot.core.history import TIMES, moment
from bot.core.ports import Clock, Store, ValuesRepository, Written
from bot.core.promotion import Phase, Promotion
from bot.core.stats import Numbers, Place, Records, by_target, ids, measure
from bot.core.together import together

WINDOW = timedelta(days=30)
SHORTEST, LONGEST = timedelta(hours=1), timedelta(days=366)
MOST_COMMITS = 10_000
"""Commits of ours that are read of a repository, the newest ones."""
AT_ONCE = 16
"""Records that are read at a time."""
READ_WITHIN = 10.0
"""Seconds for all records."""
MOST_TARGETS = 30
"""Of how many targets one answer tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A target and its numbers."""

    target: Target
    numbers: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The numbers of some targets, and what could not be read."""

    since: datetime
    until: datetime
    targets: tuple[Measured, ...]
    doubts: tuple[str, ...] = ()
    """What could not be read and what that means, in sentences."""
    has_records: bool = True
    """Did the store tell of any promotion that was asked for?"""
    left_out: int = 0
    """How many targets have no place in the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """Our commits by their target, newest first, as far back as they were read."""

    written: Mapping[Place, Sequence[Written]]
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """Reads each repository once, and the records a few at a time."""

    catalog: Catalog
    values: ValuesRepository
    store: Store
    clock: Clock

    async def asked(self, *, app: str | None, environment: str | None, since: str | None) -> Statistics:
        """What somebody asks for; without an app of all apps, without an environment of all. Raises `Refused`.

        `since` is `7d`, a day or a moment; without it the last thirty days count.
        """
        begins = begins_at(since, self.clock.now()) if since else self.clock.now() - WINDOW
        catalog = self.catalog
        if app and not environment and app not in catalog.apps and app in catalog.environments:
            app, environment = None, app  # a single word may be either
        targets = catalog.meant(app, environment)
        found = await self.measured(targets[:MOST_TARGETS], since=begins)
        return replace(found, left_out=len(targets[MOST_TARGETS:]))

    async def measured(self, targets: Sequence[Target], *, since: datetime) -> Statistics:
        """The numbers of these targets since then; those of a branch that cannot be read are missing."""
        firsts = {target.app: self._first(target.app) for target in targets}
        places = {(each.app, each.environment): each.repository for each in (*targets, *firsts.values())}
        branches, doubts = await self._branches(set(places.values()), since)
        written = {
            place: branches[repository].written.get(place, ())
            for place, repository in places.items()
            if repository in branches
        }
        commits = [each for target in targets for each in written.get((target.app, target.environment), ())]
        wanted = ids(commits, since=since)
        records, unread = await self._records(wanted)
        if unread:
            doubts.append(
                f"The store did not tell of {unread} of {len(wanted)} promotions, so what I say of failures and of "
                "restoring comes from git alone for them. Ask again later."
            )
        until = self.clock.now()
        return Statistics(
            since=since,
            until=until,
            doubts=tuple(doubts),
            has_records=unread < len(wanted) or not wanted,
            targets=tuple(
                Measured(
                    target=target,
                    numbers=measure(
                        target.app,
                        target.environment,
                        written,
                        first=firsts[target.app].environment,
                        since=branches[target.repository].since,
                        until=until,
                        records=records,
                    ),
                )
                for target in targets
                if target.repository in branches
            ),
        )

    async def _branches(
        self, repositories: Collection[Repository], since: datetime
    ) -> tuple[dict[Repository, _Branch], list[str]]:
        """What each branch tells, and why some tell nothing, or not of the whole time."""
        found: dict[Repository, _Branch] = {}
        doubts: list[str] = []

        async def read(repository: Repository) -> None:
            try:
                written = await self.values.written(repository, limit=MOST_COMMITS)
            except PromoteError as error:
                doubts.append(f"{repository.name} cannot be read, so what is there is left out: {error}")
                return
            begins = since
            if len(written) >= MOST_COMMITS and written[-1].at > since:
                begins = written[-1].at
                doubts.append(
                    f"Of {repository.name} I read the newest {MOST_COMMITS} commits of mine, so its numbers begin "
                    f"at {begins:%-d %b %Y}."
                )
            found[repository] = _Branch(written=by_target(written), since=begins)

        await together(*map(read, repositories))
        return found, sorted(doubts)

    async def _records(self, wanted: Collection[str]) -> tuple[Records, int]:
        """What the store knows of these promotions, and of how many it did not answer."""
        promotions: dict[str, Promotion] = {}
        recovered: dict[str, datetime] = {}
        unread, slots = set(wanted), asyncio.Semaphore(AT_ONCE)

        async def read(id: str) -> None:
            async with slots:
                with contextlib.suppress(PromoteError):  # one that cannot be read hides no other
                    if promotion := await self.store.load(id):
                        if promotion.phase is Phase.FAILED and (
                            at := (await self.store.look(id)).recovered_at
                        ):
                            recovered[id] = at
                        promotions[id] = promotion
                    unread.discard(id)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_WITHIN):
                await together(*map(read, wanted))
        return Records(promotions=promotions, recovered=recovered), len(unread)

    def _first(self, app: str) -> Target:
        """Where the app's versions enter."""
        return next(each for each in self.catalog.targets if each.app == app and self.catalog.is_first(each))


def begins_at(text: str, now: datetime) -> datetime:
    """When `7d`, a day or a moment begins, from an hour to a year back; raises `Refused` with what to type."""
    begins = moment(text, now=now)
    if not SHORTEST <= now - begins <= LONGEST:
        raise Refused(f"I look back an hour at least and a year at most. {TIMES}")
    return begins
