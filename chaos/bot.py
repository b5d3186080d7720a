"""The real bot, as `python -m bot serve`, `web` or `worker` runs it, with a numbered boundary around each of its ports.

`CHAOS_JOURNAL` is the file of the calls, `CHAOS_FAULTS` what goes wrong at them, each once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot import app, outside
from bot.core.errors import Unavailable
from bot.core.ports import Change, Edit
from bot.core.promotion import ID, Promotion
from bot.settings import Settings
from chaos.faults import FOUND, READS, Crossing, Fault, How, Journal, What, counts, parse

PORTS: dict[str, tuple[str, Collection[str]]] = {
    "RedisStore": (
        "the store",
        {
            *("create", "save", "load", "events", "holder", "followed", "in_phase", "history"),
            *("card", "save_card", "look", "save_look", "claim", "renew", "rest", "wake"),
            *("dossier", "save_dossier", "take_turn", "end_turn"),
        },
    ),
    "RedisBoard": (
        "the store",
        {
            *("locks", "lock", "unlock", "bad_versions", "block", "unblock", "reports", "report"),
            *("soaked", "soak", "wish", "wishes", "grant", "once", "take", "group", "keep_group"),
        },
    ),
    "git_repository": (
        "the git host",
        {
            *(
                "current",
                "plan",
                "between",
                "stood",
                "last_push",
                "commit",
                "propose",
                "find",
                "written",
                "relate",
            ),
            *("commits_to", "commits_after", "document"),
        },
    ),
    "forges": ("the host of pull requests", {"open", "merge", "close"}),
    "argo_cd": ("Argo CD", {"observe", "rendering"}),
    "SlackAnnouncer": (
        "Slack",
        {"post", "posted", "edit", "tell", "tell_emergency", "remind", "remind_review", "warn"},
    ),
    "SlackDirectory": ("Slack", {"person", "members", "owner_of"}),
}
"""What `bot.outside` builds its ports with; the system's name for people; the calls that cross."""


class Boundary:
    """Counts the calls, and does to some of them what was ordered."""

    def __init__(self, journal: Journal, faults: Sequence[Fault]) -> None:
        self._journal = journal
        self._counted = counts(journal.read())
        self._of_any = 0
        self._faults = list(faults)

    def crossed(self, method: Callable[..., Awaitable[Any]], system: str) -> Callable[..., Awaitable[Any]]:
        """The method, as a call across the boundary to this system."""

        async def call(*args: Any, **options: Any) -> Any:
            if not self._journal.is_open:
                return await method(*args, **options)
            if method.__name__ in FOUND:
                found = await method(*args, **options)
                if found:
                    self._end(self._begin(method.__name__, about=found), system)
                return found
            crossing = self._begin(_name(method.__name__, args), about=_about(args))
            try:
                answer = await method(*args, **options)
            except Exception:
                self._note(crossing, What.RAISES)
                raise
            self._end(crossing, system)
            return answer

        return call

    def _begin(self, name: str, *, about: Sequence[str]) -> Crossing:
        self._counted[name] += 1
        is_read = name in READS
        self._of_any += not is_read
        crossing = Crossing(
            at=time.time(),
            call=name,
            nth=self._counted[name],
            what=What.BEGINS,
            about=tuple(about),
            of_any=0 if is_read else self._of_any,
        )
        self._journal.note(crossing)
        self._strike(crossing, How.BEFORE)
        return crossing

    def _end(self, crossing: Crossing, system: str) -> None:
        self._note(crossing, What.ENDS)
        self._strike(crossing, How.AFTER)
        if self._strike(crossing, How.LOST):
            raise Unavailable(system, "its answer was lost.", maybe_done=crossing.call not in READS)

    def _strike(self, crossing: Crossing, how: How) -> bool:
        """Does a fault strike here? Where it kills, there is no answer."""
        fault = next((each for each in self._faults if each.how is how and each.hits(crossing)), None)
        if fault is None:
            return False
        self._note(crossing, What.KILLED if how.kills else What.LOST)
        if how.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        self._faults.remove(fault)
        return True

    def _note(self, crossing: Crossing, what: What) -> None:
        self._journal.note(replace(crossing, at=time.time(), what=what))


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


def _about(args: tuple[Any, ...]) -> tuple[str, ...]:
    """The promotions that a call names, in whatever form it has them."""
    for arg in args:
        match arg:
            case Promotion():
                return (arg.id,)
            case Edit():
                return (arg.promotion,)
            case [Change(), *_]:
                return tuple(change.after.id for change in arg)
            case str() if ID.fullmatch(arg):
                return (arg,)
    return ()


def surround(boundary: Boundary) -> None:
    """Let `bot.outside` build every port with the boundary around it."""
    for name, (system, calls) in PORTS.items():
        setattr(
            outside, name, _building(getattr(outside, name), system=system, calls=calls, boundary=boundary)
        )


def _building(real: Callable[..., Any], **around: Any) -> Callable[..., Port]:
    def build(*args: Any, **options: Any) -> Port:
        return Port(real(*args, **options), **around)

    return build


def serve(*, web_side: bool, worker_side: bool) -> None:
    """Be the bot, as the environment says, until it is ended or ends itself."""
    faults = [parse(word) for word in os.environ.get("CHAOS_FAULTS", "").split()]
    surround(Boundary(Journal(Path(os.environ["CHAOS_JOURNAL"])), faults))
    asyncio.run(app.run(Settings.from_environment(), web_side=web_side, worker_side=worker_side))
