"""What CI delivers: a build for the first environment, asked for by a machine and written like any other promotion."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, replace

from bot.core.asking import PLAINLY, Asking, require_open
from bot.core.cases import checked_reason
from bot.core.catalog import DIGEST, UNKNOWN, Target, checked_version, sha256
from bot.core.drafting import Draft
from bot.core.errors import Refused, Unavailable
from bot.core.people import Person
from bot.core.ports import Settled
from bot.core.promotion import Phase, Promotion, Signer
from bot.core.reporting import NAME, NotKept, Unasked, require, require_link

IMAGES_PATH = "/hooks/v1/images"
"""Where machines deliver to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A version that was built, and where it is to run."""

    app: str
    environment: str
    version: str
    digest: str = UNKNOWN
    reason: str = ""
    link: str = ""
    """Its page on the build server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of a delivery; `promotion` is None where the environment held that build already."""

    promotion: Promotion | None
    card: str | None = None
    """The card's permalink, once it is posted."""
    is_repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivering(Asking):
    """Takes builds; which machine may deliver what is decided before."""

    async def deliver(self, build: Build, *, machine: str, delivery: str) -> Delivered:
        """Ask that the app's first environment run a build, in the place of older ones that nobody has written yet.

        `machine` is the caller's name, `delivery` its own name for the build: within 48 hours the same one returns the
        same promotion, or does nothing where there was nothing to do. Raises `Refused`, `Unasked` or `NotKept` with
        what to do; also `Unavailable` and `Failed`.
        """
        build = _sound(build)
        signer = Signer.machine(machine)
        try:
            return await self._taken(build, signer, f"{signer.id}:{delivery}")
        except Settled as settled:
            if settled.said != _said(build):
                raise NotKept(
                    "Nothing was changed: there was nothing to do for this delivery, and it said something else. "
                    "Deliver another build under another delivery."
                ) from settled
            return Delivered(promotion=None, is_repeated=True)

    async def _taken(self, build: Build, signer: Signer, key: str) -> Delivered:
        """What the first of these deliveries does, and what every other one returns; raises `Settled`."""
        if made := await self.store.delivered(key):
            return await self._repeated(await self.find(made), build)
        target = self._first(build)
        draft = await self.drafting.draft(
            target, build.version, skips=frozenset(), asker=signer.id, digest=build.digest
        )
        if draft.plan.is_done:
            await self._require_nothing_open(target)
            # An older build that comes again must find that it was taken, whatever stands there by then.
            made = await self.store.settle(key, said=_said(build))
            return await self._repeated(await self.find(made), build) if made else Delivered(promotion=None)
        require_open(draft, waits=False)
        return await self._ask(draft, build, signer, key)

    async def _ask(self, draft: Draft, build: Build, signer: Signer, key: str) -> Delivered:
        person = Person(id=signer.id, team=signer.team, name=signer.name, is_bot=True)
        await self._require_somebody(draft, person)
        terms = replace(await self._terms(draft, PLAINLY, way=None), build=build.link or None)
        asked = self._asked(draft, source="ci", by=person, reason=build.reason, terms=terms)
        made = await self._create(asked, draft, key)
        if made.id != asked.id:
            return await self._repeated(made, build)
        await self._fold(made)
        return Delivered(promotion=made)

    def _first(self, build: Build) -> Target:
        """The target; raises `Unasked` for one that nobody knows, `Refused` for a later environment."""
        try:
            target = self.catalog.target(build.app, build.environment)
        except Refused as refused:
            raise Unasked(str(refused)) from refused
        if before := self.catalog.before(target):
            raise Refused(
                f"CI delivers to the first environment of {build.app} alone, and {build.environment} comes after "
                f"{before.environment}. What is live there is promoted in Slack: /promote {build.app} {build.environment}"
            )
        return target

    async def _repeated(self, made: Promotion, build: Build) -> Delivered:
        """What this delivery made before; raises `NotKept` where it said something else then."""
        then = (made.app, made.environment, made.version, made.reason or "", made.build or "")
        now = (build.app, build.environment, build.version, build.reason, build.link)
        if then != now or build.digest not in (UNKNOWN, made.digest):
            raise NotKept(
                f"Nothing was changed: this delivery made {made.id} ({made.title}), and said something else. "
                "Deliver another build under another delivery."
            )
        card = await self.store.card(made.id)
        return Delivered(promotion=made, card=card.link, is_repeated=True)

    async def _require_nothing_open(self, target: Target) -> None:
        """What the environment holds is not the newest where something else is about to be written."""
        for other in await self.store.history(target):
            if other.phase.holds:
                raise Unavailable(
                    f"{target.app} in {target.environment}",
                    f"{other.id} is about to bring {other.version}. Deliver again when that has ended",
                )

    async def _fold(self, newest: Promotion) -> None:
        """The newest wins: what still waits for approvals there is not wanted any more."""
        for other in await self.store.history(self.target_of(newest)):
            if other.id != newest.id and other.phase is Phase.REQUESTED:
                why = f"{newest.id} asks for {newest.version}"
                await self._change(
                    other,
                    lambda current: current.supersede(at=newest.requested_at, why=why),  # noqa: B023
                )


def _said(build: Build) -> str:
    """The hash of all that a delivery says."""
    return sha256(json.dumps(astuple(build)))


def _sound(build: Build) -> Build:
    """The build, with a reason of one line; raises `Refused` for what can be no delivery."""
    for what, name in (("app", build.app), ("environment", build.environment)):
        require(NAME.fullmatch(name), f"{what} takes a name, as promote.yaml has it.")
    checked_version(build.version)
    is_digest = build.digest == UNKNOWN or DIGEST.fullmatch(build.digest)
    require(is_digest, "digest takes sha256: and 64 hexadecimal digits.")
    require_link(build.link)
    return replace(build, reason=checked_reason(build.reason) or "")
