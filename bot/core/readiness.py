"""When a build can go: the channel hears of it once, and so does everybody who wished for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from bot.core.board import Wish
from bot.core.catalog import Image, Target
from bot.core.drafting import Drafting
from bot.core.errors import PromoteError, Refused, Unavailable
from bot.core.gates import Answers
from bot.core.membership import is_member
from bot.core.rounds import AT_ONCE, Work, go_round
from bot.core.soaking import tried_in

TOLD_FOR = timedelta(days=30)
"""How long a channel is not told once more that the same build is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A build that could go to a target now: every gate is open."""

    target: Target
    image: Image
    answers: Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Finds what can go, and tells it; safe beside any number of others."""

    drafting: Drafting
    tell: Callable[[str, Ready], Awaitable[None]]
    """Tells a channel or a person, by id; raises `Unavailable`, and `Gone` where nobody is there to be told."""
    _told: dict[str, Image] = field(default_factory=dict)
    """Of which build each target's channel has heard: its gates need not be asked over and over."""

    async def look(self, builds: Mapping[str, Image]) -> tuple[str, ...]:
        """Tell the channels, and those who wished for it; returns why some could not be looked at, or told.

        `builds` is what could go to each target, by its name: what runs, live and healthy, in the environment before.
        What is no `PromoteError` is raised when all others are told.
        """
        tellings: list[Work] = []
        works = [*self._channels(builds, tellings), *await self._wishes(builds, tellings)]
        reasons = await go_round(works)
        # After the round, which would cut off in the middle what takes too long.
        slots = asyncio.Semaphore(AT_ONCE)
        untold = await asyncio.gather(*(_why_not(tell, slots) for tell in tellings), return_exceptions=True)
        for why in untold:
            if isinstance(why, BaseException):
                raise why
            reasons = (*reasons, why)
        return tuple(dict.fromkeys(filter(None, reasons)))

    def _channels(self, builds: Mapping[str, Image], tellings: list[Work]) -> list[tuple[Target, Work]]:
        """What there is to find out for the channels."""
        return [
            (target, partial(self._look_for_channel, target, builds[target.name], tellings))
            for target in self.drafting.catalog.targets
            if target.name in builds and _is_announced(target)
        ]

    async def _look_for_channel(self, target: Target, build: Image, tellings: list[Work]) -> None:
        if self._told.get(target.name) == build:
            return
        if ready := await self._ready(target, build.version, build):
            tellings.append(partial(self._tell_channel, ready))

    async def _wishes(self, builds: Mapping[str, Image], tellings: list[Work]) -> list[tuple[Target, Work]]:
        """What there is to find out for those who wished for it: each version of each target once."""
        wishes: defaultdict[tuple[str, str, str], list[Wish]] = defaultdict(list)
        for wish in await self.drafting.board.wishes():
            wishes[wish.app, wish.environment, wish.version].append(wish)
        works: list[tuple[Target, Work]] = []
        for (app, environment, version), alike in wishes.items():
            with contextlib.suppress(Refused):  # the file has no such target any more
                target = self.drafting.catalog.target(app, environment)
                work = partial(self._look_for_people, target, version, alike, builds, tellings)
                works.append((target, work))
        return works

    async def _look_for_people(
        self,
        target: Target,
        version: str,
        wishes: Sequence[Wish],
        builds: Mapping[str, Image],
        tellings: list[Work],
    ) -> None:
        build = builds.get(target.name)
        if tried_in(self.drafting.catalog, target) and (build is None or build.version != version):
            return
        if ready := await self._ready(target, version, build):
            tellings += [partial(self._grant, wish, ready) for wish in wishes]

    async def _ready(self, target: Target, version: str, build: Image | None) -> Ready | None:
        """What could go, where everything lets it; the slow questions come last, and only where they matter."""
        if build is not None and (await self._holds(target, build) or not await self._may_go(target, build)):
            return None
        image, answers = await self.drafting.prospect(target, version)
        if not answers.are_open or await self._holds(target, image):
            return None
        return Ready(target=target, image=image, answers=answers)

    async def _holds(self, target: Target, image: Image) -> bool:
        """Is it there already, as far as is known without asking the remote?"""
        plan = await self.drafting.values.plan(target, image.version, digest=image.digest, fresh=False)
        return plan.is_done

    async def _may_go(self, target: Target, build: Image) -> bool:
        """Do the store and the clock let it go?"""
        source = self.drafting.catalog.before(target)
        answers = await self.drafting.gatekeeper.ask(target, source, build, is_quick=True)
        return answers.are_open

    async def _tell_channel(self, ready: Ready) -> None:
        target, image = ready.target, ready.image
        if await self.drafting.board.once(f"ready:{target.name}:{image}", within=TOLD_FOR):
            await self._tell(
                Wish(
                    app=target.app,
                    environment=target.environment,
                    version=image.version,
                    user=target.channel,
                ),
                ready,
            )
        self._told[target.name] = image

    async def _grant(self, wish: Wish, ready: Ready) -> None:
        """Tell who wished for it; who is no member any more is told nothing."""
        is_channel = wish.user == ready.target.channel
        may_hear = is_channel or is_member(await self.drafting.directory.person(wish.user))
        if await self.drafting.board.grant(wish) and may_hear:
            await self._tell(wish, ready)

    async def _tell(self, wish: Wish, ready: Ready) -> None:
        """Tell it; where Slack is away, or we are being stopped, it stays a wish. A channel can have one, too."""
        try:
            await self.tell(wish.user, ready)
        except (Unavailable, asyncio.CancelledError):
            await self.drafting.board.wish(wish)
            raise


async def _why_not(tell: Work, slots: asyncio.Semaphore) -> str:
    """Tell it, when it is its turn; returns why it could not be told."""
    async with slots:
        try:
            await tell()
        except PromoteError as error:
            return str(error)
    return ""


def _is_announced(target: Target) -> bool:
    """Is there a gate that opens by itself, or through somebody else, so that it is news when it does?"""
    policy = target.policy
    return bool(policy.soak or policy.checks or policy.probes or policy.windows)
