"""The gatekeeper asks every gate of a target at once, and gives all their answers together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from bot.core import gates
from bot.core.board import Board
from bot.core.catalog import Image, Target
from bot.core.errors import Failed, Unavailable
from bot.core.gates import Answer, Answers
from bot.core.policy import Gate, Probe
from bot.core.ports import Calendar, Clock, Probes, Watched
from bot.core.seals import Sealer
from bot.core.together import together

WITHIN = 8.0
"""Seconds in which a gate must answer."""

Question = Callable[[], Awaitable[tuple[Answer, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatekeeper:
    """Who asks the gates, and whom. The order of the environments is asked where the version is chosen."""

    board: Board
    calendar: Calendar
    probes: Probes
    watched: Watched
    clock: Clock
    sealer: Sealer

    async def ask(
        self,
        target: Target,
        source: Target | None,
        image: Image,
        *,
        skips: frozenset[Gate] = frozenset(),
        is_quick: bool = False,
        is_rollback: bool = False,
        asker: str | None = None,
    ) -> Answers:
        """What every gate says now, in a fixed order; `skips` are not asked. `asker` is who asks for it.

        Quick is what the store and the clock alone can tell, for a click that has to be answered at once.
        """
        questions = self._questions(target, source, image, is_rollback=is_rollback, asker=asker)
        if is_quick:
            questions = [each for each in questions if each[0] not in (Gate.PROBES, Gate.PARITY)]
        asked = [(gate, question) for gate, question in questions if gate not in skips]
        answers = await together(*(answered(gate, question) for gate, question in asked))
        return Answers(tuple(answer for found in answers for answer in found))

    def _questions(
        self, target: Target, source: Target | None, image: Image, *, is_rollback: bool, asker: str | None
    ) -> list[tuple[Gate, Question]]:
        policy = target.policy
        found: list[tuple[Gate, Question]] = [
            (Gate.LOCKS, lambda: self._locks(target, is_rollback=is_rollback)),
            (Gate.BAD_VERSION, lambda: self._bad_version(target, image)),
        ]
        if source and policy.soak:
            found.append((Gate.SOAK, lambda: self._soak(target, source, image)))
        if source and policy.checks:
            found.append((Gate.CHECKS, lambda: self._checks(target, source, image, asker)))
        if policy.windows:
            found.append((Gate.WINDOWS, lambda: self._windows(target)))
        if source and policy.parity:
            found.append((Gate.PARITY, lambda: self._parity(target, source)))
        probes = [partial(self._probe, probe, target, image) for probe in policy.probes]
        return [*found, *((Gate.PROBES, ask) for ask in probes)]

    async def _locks(self, target: Target, *, is_rollback: bool) -> tuple[Answer, ...]:
        found = await self.board.locks()
        return (gates.locks(target, found, now=self.clock.now(), is_rollback=is_rollback),)

    async def _bad_version(self, target: Target, image: Image) -> tuple[Answer, ...]:
        return (gates.bad_version(image, await self.board.bad_versions(target.app)),)

    async def _soak(self, target: Target, source: Target, image: Image) -> tuple[Answer, ...]:
        soaked = await self.board.soaked(source.app, source.environment, image)
        return (gates.soak(target.policy, source, soaked, now=self.clock.now()),)

    async def _checks(
        self, target: Target, source: Target, image: Image, asker: str | None
    ) -> tuple[Answer, ...]:
        found = await self.board.reports(source.app, source.environment, image.version)
        genuine = [report for report in found if self.sealer.report_is_genuine(report)]
        return gates.checks(target.policy, source, image, genuine, asker=asker)

    async def _windows(self, target: Target) -> tuple[Answer, ...]:
        return (gates.windows(self.calendar.hours(target.policy.windows, self.clock.now())),)

    async def _parity(self, target: Target, source: Target) -> tuple[Answer, ...]:
        return (gates.parity(await self.watched.differences(target, source), source, target),)

    async def _probe(self, probe: Probe, target: Target, image: Image) -> tuple[Answer, ...]:
        if says := await self.probes.ask(probe, target, image):
            return (gates.closed(Gate.PROBES, f"{probe.name}: {says}"),)
        return (gates.opened(Gate.PROBES, f"{probe.name}: passed"),)


async def answered(gate: Gate, question: Question) -> tuple[Answer, ...]:
    """The gate's answer; where none comes, that."""
    try:
        async with asyncio.timeout(WITHIN):
            return await question()
    except TimeoutError:
        return (gates.unknown(gate, Unavailable("the gate", "it did not answer in time")),)
    except (Unavailable, Failed) as error:
        return (gates.unknown(gate, error),)
