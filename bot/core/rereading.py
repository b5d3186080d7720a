"""What the registry has under the tags that are live is read again: a tag that was pushed anew is told of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from bot.core.catalog import DIGEST, UNKNOWN, Catalog, Image, Repository, Target
from bot.core.doing_once import Once
from bot.core.drafting import Drafting
from bot.core.errors import PromoteError, Refused
from bot.core.ports import Written
from bot.core.rounds import go_round

TOLD_FOR = timedelta(days=90)
MOST = 500
"""Commits of ours that are read, the newest ones."""
ROUND_WITHIN = 1800.0
"""Seconds: there is an hour until the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedAnew:
    """A tag that names another build now than the one that was deployed under it."""

    target: Target
    was: Image
    now: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Rereading:
    """Compares the live versions with the registries; safe beside any number of others."""

    drafting: Drafting
    once: Once
    tell: Callable[[str, PushedAnew], Awaitable[None]]
    """Tells a channel, by id; raises `Unavailable`, and `Gone` where it cannot be written to."""
    alarm: Callable[[str], None]

    async def reread(self) -> tuple[str, ...]:
        """Compare every target whose registry is asked; returns why some could not be, or not be told of."""
        catalog = self.drafting.catalog
        asked = [target for target in catalog.targets if target.asks_registry]
        newest: dict[str, Written] = {}
        reasons: list[str] = []
        unread: set[Repository] = set()
        for repository in dict.fromkeys(target.repository for target in asked):
            try:
                newest |= _newest(catalog, await self.drafting.values.written(repository, limit=MOST))
            except PromoteError as error:
                unread.add(repository)
                reasons.append(str(error))
        works = [
            (target, partial(self._compare, target, newest))
            for target in asked
            if target.repository not in unread
        ]
        return (*reasons, *await go_round(works, within=ROUND_WITHIN))

    async def _compare(self, target: Target, newest: Mapping[str, Written]) -> None:
        held = await self.drafting.values.current(target)
        was = _deployed(held, newest.get(target.name)) or await self._running(target, held)
        if was is None:
            return
        images = self.drafting.images
        now = Image(version=was.version, digest=await images.digest(target.image, was.version))
        # A pod may report the build of its own platform.
        if was == now or was.digest in await images.platforms(target.image, now.digest):
            return
        await self._announce(PushedAnew(target=target, was=was, now=now))

    async def _running(self, target: Target, held: Image) -> Image | None:
        """What the pods report, where they run the version that git holds."""
        try:
            running = await self.drafting.reported(target)
        except Refused:
            return None
        return running if running.version == held.version and running.has_digest else None

    async def _announce(self, news: PushedAnew) -> None:
        target = news.target
        what = f"pushed anew:{target.name}:{news.was}:{news.now.digest}"
        if await self.drafting.board.once(what, within=TOLD_FOR):
            self.alarm(
                f"The tag {news.was.version} of {target.image} was pushed anew: {target.name} was deployed with "
                f"{news.was.digest}, the registry has {news.now.digest} now."
            )
        untold: list[PromoteError] = []
        for channel in dict.fromkeys(filter(None, (target.channel, target.audit))):
            try:
                await self.once.do(f"{what}:{channel}", partial(self.tell, channel, news), within=TOLD_FOR)
            except PromoteError as error:  # one that is closed keeps it from no other
                untold.append(error)
        if untold:
            raise untold[0]


def _newest(catalog: Catalog, written: Iterable[Written]) -> dict[str, Written]:
    """Our newest commit of each target, by its name; `written` has the newest first."""
    names = {target.name for target in catalog.targets}
    found: dict[str, Written] = {}
    for commit in written:
        name = f"{commit.trailer('App')}/{commit.trailer('Environment')}"
        if name in names:
            found.setdefault(name, commit)
    return found


def _deployed(held: Image, commit: Written | None) -> Image | None:
    """The build that git tells of: by the file, else by the commit that brought the version."""
    if held.has_digest:
        return held
    digest = commit.trailer("Digest") if commit and commit.trailer("New-Version") == held.version else UNKNOWN
    return Image(version=held.version, digest=digest) if DIGEST.fullmatch(digest) else None
