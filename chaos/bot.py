"""The real bot, as `python -m bot serve` runs it, with a numbered boundary around each of its ports.

`CHAOS_JOURNAL` is the file of the calls, `CHAOS_FAULT` the one fault; what struck once does not strike again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from bot import app
from bot.core.errors import Unavailable
from bot.settings import Settings
from chaos.faults import FOUND, Crossing, Fault, How, Journal, counts, parse, struck

PORTS: dict[str, tuple[str, Collection[str]]] = {
    "RedisStore": (
        "the store",
        {
            *("create", "save", "load", "events", "holder", "followed", "in_phase", "history"),
            *("card", "save_card", "look", "save_look", "claim", "renew", "rest", "wake"),
            *("take_turn", "end_turn"),
        },
    ),
    "git_repository": (
        "the git host",
        {"current", "plan", "last_push", "commit", "find", "written", "relate"},
    ),
    "argo_cd": ("Argo CD", {"observe"}),
    "SlackAnnouncer": ("Slack", {"post", "edit", "tell", "remind", "warn"}),
    "SlackDirectory": ("Slack", {"person", "members"}),
}
"""What `bot.app` builds its ports with; the system's name for people; the calls that cross."""


class Boundary:
    """Counts the calls, and does to one of them what was ordered."""

    def __init__(self, journal: Journal, fault: Fault | None) -> None:
        crossings = journal.read()
        self._journal = journal
        self._counted = counts(crossings)
        self._fault = None if struck(crossings) else fault

    def crossed(self, method: Callable[..., Awaitable[Any]], system: str) -> Callable[..., Awaitable[Any]]:
        """The method, as a call across the boundary to this system."""

        async def call(*args: Any, **options: Any) -> Any:
            if not self._journal.is_open:
                return await method(*args, **options)
            if method.__name__ in FOUND:
                found = await method(*args, **options)
                if found:
                    self._end(self._begin(method.__name__), system)
                return found
            crossing = self._begin(_name(method.__name__, args))
            answer = await method(*args, **options)
            self._end(crossing, system)
            return answer

        return call

    def _begin(self, name: str) -> Crossing:
        self._counted[name] += 1
        crossing = self._note(name, self._counted[name], "begins")
        self._strike(crossing, How.BEFORE)
        return crossing

    def _end(self, crossing: Crossing, system: str) -> None:
        self._note(crossing.call, crossing.nth, "ends")
        self._strike(crossing, How.AFTER)
        if self._strike(crossing, How.LOST):
            raise Unavailable(system, "its answer was lost.", maybe_done=True)

    def _strike(self, crossing: Crossing, how: How) -> bool:
        """Does the fault strike here? Where it kills, there is no answer."""
        if self._fault != Fault(call=crossing.call, nth=crossing.nth, how=how):
            return False
        self._note(crossing.call, crossing.nth, "fault")
        if how.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        self._fault = None
        return True

    def _note(self, name: str, nth: int, what: str) -> Crossing:
        crossing = Crossing(at=time.time(), call=name, nth=nth, what=what)
        self._journal.note(crossing)
        return crossing


class Port:
    """A port of the bot, with the boundary around the calls that cross it."""

    def __init__(self, real: Any, *, system: str, calls: Collection[str], boundary: Boundary) -> None:
        self._real = real
        self._system = system
        self._calls = calls
        self._boundary = boundary

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        return self._boundary.crossed(value, self._system) if name in self._calls else value


def _name(method: str, args: tuple[Any, ...]) -> str:
    """A save is named by the phase that it leads to."""
    return f"save-{args[0][0].after.phase}" if method == "save" else method


def surround(boundary: Boundary) -> None:
    """Let `bot.app` build every port with the boundary around it."""
    for name, (system, calls) in PORTS.items():
        setattr(app, name, _building(getattr(app, name), system=system, calls=calls, boundary=boundary))


def _building(real: Callable[..., Any], **around: Any) -> Callable[..., Port]:
    def build(*args: Any, **options: Any) -> Port:
        return Port(real(*args, **options), **around)

    return build


def main() -> None:
    """Serve."""
    fault = os.environ.get("CHAOS_FAULT")
    surround(Boundary(Journal(Path(os.environ["CHAOS_JOURNAL"])), parse(fault) if fault else None))
    asyncio.run(app.run(Settings.from_environment(), web_side=True, worker_side=True))


if __name__ == "__main__":
    main()
