"""Argo CD's streams as hints: what moves there is looked at at once, instead of at its next look.

A hint proves nothing: it only makes the promotion due that is followed there. Where streams are silent, the looks go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import structlog

from bot.core.catalog import Catalog, Target
from bot.core.errors import Unavailable
from bot.core.ports import Queue, Store

AT_MOST_EVERY = 1.0
"""Seconds between two hints for one target: an application that rolls out is written several times a second."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """Wakes the promotion that an application's change may matter to."""

    catalog: Catalog
    store: Store
    queue: Queue
    _hinted_at: dict[str, float] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)

    def projects(self) -> Mapping[str, frozenset[str]]:
        """Which projects to listen to, by server."""
        found: dict[str, frozenset[str]] = {}
        for target in self.catalog.targets:
            for application in target.applications:
                known = found.get(application.server, frozenset())
                found[application.server] = known | {application.project}
        return found

    async def listen(self, server: str, events: AsyncIterator[tuple[str, str]]) -> None:
        """Pass on every event, an application's namespace and name, until there are no more."""
        async with asyncio.TaskGroup() as hints:
            async for namespace, name in events:
                for target in self._targets(server, namespace, name):
                    if target.name not in self._waiting:
                        self._waiting.add(target.name)
                        hints.create_task(self._hint(target))

    def _targets(self, server: str, namespace: str, name: str) -> list[Target]:
        return [
            target
            for target in self.catalog.targets
            if any(
                (each.server, each.name) == (server, name) and each.namespace in (None, namespace)
                for each in target.applications
            )
        ]

    async def _hint(self, target: Target) -> None:
        """Wake what is followed there; several changes within a second are one."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self._hinted_at.get(target.name, now - AT_MOST_EVERY) + AT_MOST_EVERY - now)
        self._waiting.discard(target.name)
        self._hinted_at[target.name] = asyncio.get_running_loop().time()
        try:
            if id := await self.store.followed(target):
                await self.queue.wake(id)
        except Unavailable as error:
            log.warning("hint lost", error=str(error))
