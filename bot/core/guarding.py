"""The rules themselves are guarded: when others are in force than people know of, they are told which.

A worker that starts writes down the rules that it has (`take_note`); what people have not heard of is announced by one
of all workers (`tell`). While a new file is rolled out, workers with the old one and with the new one may start in
turns: each step from one state to another is announced once an hour at most, and where it ends is always told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from bot.core.board import Board
from bot.core.catalog import Catalog, Target, sha256
from bot.core.errors import Gone, Unavailable
from bot.core.people import Role
from bot.core.ports import Clock
from bot.core.promotion import Signer
from bot.core.rule_lines import EVERYWHERE, audits, difference, rules

ANNOUNCED_EVERY = timedelta(hours=1)
ONE_TELLS = timedelta(minutes=2)
"""How long others leave an announcement to the one who began with it."""
BARRED = timedelta(hours=24)
"""How long whoever changed the rules neither asks nor approves under them."""
MOST_NOTED = 50
MOST_NAMED = 5
TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Where the file comes from, as whoever deploys it says; empty where nobody does."""

    revision: str = ""
    author: str = ""
    """Who made that revision: a Slack id or an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A revision of the file, when it was first in force, and whose rules it changed."""

    revision: str
    author: str
    at: datetime
    environments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A step that people were told of, by the hashes of both states."""

    step: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is known of the rules: those in force, those that people have heard of, and who changed them."""

    edition: int = 1
    """How often it was changed: nobody writes over what somebody else has written since."""
    lines: tuple[str, ...]
    told: tuple[str, ...]
    revision: str = ""
    author: str = ""
    audits: tuple[str, ...] = ()
    """The audit channels of the rules in force: one that a change takes away hears of that change, too."""
    channels: tuple[str, ...] = ()
    """Who has to hear of what is not told yet."""
    noted: tuple[Noted, ...] = ()
    announced: tuple[Announced, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Rules that are in force, and other ones that people know."""

    lines: tuple[str, ...]
    """`- ` and a rule that is gone, `+ ` and one that is new, in the order of the environments."""
    places: tuple[str, ...]
    """Whose rules these are."""
    revision: str = ""
    author: str = ""


class Rulebook(Protocol):
    """Where the page is kept. Every method may raise `Unavailable`, also for a page that cannot be read."""

    async def read(self) -> Page | None:
        """The page; None where nobody has written one."""
        ...

    async def change(self, page: Page) -> bool:
        """Put it in the place of the edition before; False where somebody else has changed that since."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Compares the rules in force with those that people know."""

    catalog: Catalog
    rulebook: Rulebook
    board: Board
    clock: Clock
    deployed: Deployed
    announce: Callable[[str, Difference], Awaitable[None]]
    """Tells a channel. Raises `Unavailable`, and `Gone` where the channel cannot be written to."""
    alarm: Callable[[str], None]

    async def take_note(self) -> None:
        """Write down the rules that this process has; raises `Unavailable`. Safe to repeat."""
        for _ in range(TRIES):
            before = await self.rulebook.read()
            after = self._first() if before is None else self._next(before)
            if after == before or await self.rulebook.change(after):
                return
        raise Unavailable("the store", "the rules in force change too fast to be written down")

    async def tell(self) -> None:
        """Announce what people have not heard of, unless they were told of this very step within the hour.

        Raises `Unavailable`, also where Slack is away: then it is announced at one of the next calls.
        """
        page = await self.rulebook.read()
        if page is None or page.told == page.lines:
            return
        step, now = sha256("\n".join((*page.told, "", *page.lines))), self.clock.now()
        if any(each.step == step and now < each.at + ANNOUNCED_EVERY for each in page.announced):
            return
        if not await self.board.once(f"announce {step}", within=ONE_TELLS):
            return
        told = _told(page)
        if await self.board.once(f"alarm {step}", within=ANNOUNCED_EVERY):
            self.alarm(_in_words(told))
        await self._announce(told, page.channels)
        await self._remember(page.lines, Announced(step=step, at=now))

    async def _announce(self, told: Difference, channels: Sequence[str]) -> None:
        for channel in channels:
            try:
                await self.announce(channel, told)
            except Gone as error:
                self.alarm(f"{channel} could not be told that the rules changed: {error}.")

    async def _remember(self, lines: tuple[str, ...], announced: Announced) -> None:
        """They have heard of these lines, whatever is in force by now."""
        for _ in range(TRIES):
            page = await self.rulebook.read()
            if page is None:
                return
            fresh = [each for each in page.announced if announced.at < each.at + ANNOUNCED_EVERY]
            is_all = page.lines == lines
            after = replace(
                page,
                edition=page.edition + 1,
                told=lines,
                channels=() if is_all else page.channels,
                announced=(*fresh, announced),
            )
            if await self.rulebook.change(after):
                return

    def _first(self) -> Page:
        """Nothing is known to have changed; the revision is written down, so that it bars nobody later."""
        lines = rules(self.catalog)
        return Page(
            lines=lines,
            told=lines,
            revision=self.deployed.revision,
            author=self.deployed.author,
            audits=audits(self.catalog.targets),
            noted=self._noted((), ()),
        )

    def _next(self, before: Page) -> Page:
        """The page with our rules; the very same one where nothing is new."""
        lines = rules(self.catalog)
        changed = _environments(difference(before.lines, lines), self.catalog)
        noted = self._noted(before.noted, changed)
        if lines == before.lines and noted == before.noted:
            return before
        after = replace(before, edition=before.edition + 1, noted=noted)
        if lines == before.lines:
            return after
        return replace(
            after,
            lines=lines,
            revision=self.deployed.revision,
            author=self.deployed.author,
            audits=audits(self.catalog.targets),
            channels=() if lines == before.told else self._channels(before, changed),
        )

    def _channels(self, before: Page, changed: Sequence[str]) -> tuple[str, ...]:
        """The audit channels, that of now and the one before; without any, those of the environments."""
        targets = self.catalog.targets
        hear = (*before.audits, *audits(targets))
        affected = tuple(each.channel for each in targets if each.environment in changed)
        found = hear or affected or tuple(each.channel for each in targets)
        return tuple(dict.fromkeys((*before.channels, *found)))

    def _noted(self, noted: tuple[Noted, ...], changed: Sequence[str]) -> tuple[Noted, ...]:
        """A revision counts from when it was first seen, however often it comes back."""
        revision, author = self.deployed.revision, self.deployed.author
        if not revision or any(each.revision == revision for each in noted):
            return noted
        new = Noted(revision=revision, author=author, at=self.clock.now(), environments=tuple(changed))
        return (*noted, new)[-MOST_NOTED:]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChanges:
    """Who has changed the rules of which environment within the last day. Every method may raise `Unavailable`."""

    catalog: Catalog
    rulebook: Rulebook
    clock: Clock

    async def are_by(self, who: Signer, target: Target) -> bool:
        """Has this person, by id or by address, changed the rules that hold for the target?"""
        address = (who.email or "").lower()
        authors = await self._authors(target)
        return who.id in self._ids(authors) or any(author.lower() == address for author in authors)

    async def roles(self, who: Signer, target: Target) -> frozenset[Role]:
        """What that makes of the person."""
        return frozenset({Role.POLICY_AUTHOR} if await self.are_by(who, target) else ())

    async def ids(self, target: Target) -> frozenset[str]:
        """The Slack ids of those who have, as far as they are known without asking Slack."""
        return self._ids(await self._authors(target))

    def _ids(self, authors: Iterable[str]) -> frozenset[str]:
        return frozenset(self.catalog.identities.get(author.lower(), author) for author in authors)

    async def _authors(self, target: Target) -> frozenset[str]:
        """Their ids or addresses, as whoever deploys the file gives them."""
        page, now = await self.rulebook.read(), self.clock.now()
        return frozenset(
            each.author
            for each in (page.noted if page else ())
            if each.author and target.environment in each.environments and now < each.at + BARRED
        )


def _told(page: Page) -> Difference:
    """What people have not heard of."""
    lines = tuple(difference(page.told, page.lines))
    places = tuple(dict.fromkeys(_place(line) for line in lines))
    return Difference(lines=lines, places=places, revision=page.revision, author=page.author)


def _in_words(told: Difference) -> str:
    """One sentence for the operators."""
    more = f", and {len(told.lines) - MOST_NAMED} more" if len(told.lines) > MOST_NAMED else ""
    return f"The rules changed: {'; '.join(told.lines[:MOST_NAMED])}{more}."


def _place(line: str) -> str:
    """Where a line that differs holds: an environment, or everywhere."""
    return line[2:].partition(":")[0].partition(" ")[0]


def _environments(lines: Iterable[str], catalog: Catalog) -> tuple[str, ...]:
    """Whose rules these differing lines are, in the order of promotion."""
    named = {_place(line) for line in lines}
    return tuple(each for each in catalog.environments if each in named or EVERYWHERE in named)
