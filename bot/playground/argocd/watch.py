"""What the API server's watch sends: one event for each write of an application, and everything that can go wrong."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json
from bot.playground.argocd.refusals import Denied
from bot.playground.argocd.timeline import Timeline

KEEPALIVE_EVERY = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message: the application as it was written."""

    kind: str
    application: Json
    source: Application = field(repr=False)

    def json(self) -> Json:
        """The shape of a message of the stream."""
        return {"result": {"type": self.kind, "application": self.application}}


class Signal(Enum):
    """What a stream can send or do besides events."""

    KEEPALIVE = auto()
    END = auto()
    RESET = auto()


Item = Event | Signal | Denied


@dataclass(slots=True, kw_only=True, eq=False)
class Watcher:
    """One open stream: what it wants to hear of, and what waits to be sent."""

    wants: Callable[[Application], bool]
    oldest: int = 0
    waiting: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    has_begun: bool = False
    is_open: bool = True

    def offer(self, event: Event) -> None:
        """Take an event, unless it is of no interest or older than what was asked for."""
        version = int(event.application["metadata"]["resourceVersion"])
        if version >= self.oldest and self.wants(event.source):
            self.waiting.put_nowait(event)


class Streams:
    """Every open stream.

    Attributes:
        drops: while true, what is modified is told to nobody, as when the server's buffer is full.
        repeats: while true, each event is sent twice.
        is_silent: while true, nothing is sent at all, not even a sign of life; the connections stay open.
        piece: how many bytes are written at once; None writes whole messages.
        refuses: what a new stream ends with before it sends anything.
    """

    def __init__(self, timeline: Timeline, shown: Callable[[Application], Json]) -> None:
        self.drops = False
        self.repeats = False
        self.is_silent = False
        self.piece: int | None = None
        self.refuses: Denied | None = None
        self._timeline = timeline
        self._shown = shown
        self._watchers: list[Watcher] = []
        self._past: dict[Application, deque[Event]] = {}

    @property
    def open_count(self) -> int:
        """How many streams are open."""
        return len(self._watchers)

    def open(self, watcher: Watcher, present: list[Application]) -> None:
        """Begin to send to a watcher, first what is there already."""
        self._watchers.append(watcher)
        if self.refuses is not None:
            watcher.waiting.put_nowait(self.refuses)
            return
        for application in present:
            self._send([watcher], self._event("ADDED", application))

    def close(self, watcher: Watcher) -> None:
        """Forget a watcher whose connection has gone."""
        watcher.is_open = False
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def written(self, application: Application, kind: str = "MODIFIED") -> None:
        """Tell every watcher that an application was written; a loss is a loss for all of them."""
        if not self._watchers:
            return
        event = self._event(kind, application)
        if self.drops and kind == "MODIFIED":
            return
        self._send(self._watchers, event)

    def replay(self, application: Application) -> None:
        """Send the oldest remembered event of an application once more, after newer ones."""
        self._send(self._watchers, self._past[application][0])

    def fail(self, denied: Denied) -> None:
        """End every stream with an error chunk."""
        self._interrupt(denied)

    def end(self) -> None:
        """End every stream cleanly, as a restarting server does."""
        self._interrupt(Signal.END)

    def reset(self) -> None:
        """Tear every connection down."""
        self._interrupt(Signal.RESET)

    def _interrupt(self, item: Item) -> None:
        for watcher in self._watchers:
            watcher.waiting.put_nowait(item)

    def _event(self, kind: str, application: Application) -> Event:
        event = Event(kind=kind, application=self._shown(application), source=application)
        self._past.setdefault(application, deque(maxlen=5)).append(event)
        return event

    def _send(self, watchers: list[Watcher], event: Event) -> None:
        if self.is_silent:
            return
        for watcher in watchers:
            for _ in range(2 if self.repeats else 1):
                watcher.offer(event)
            if not watcher.has_begun and not watcher.waiting.empty():
                watcher.has_begun = True
                self._keep_alive_later(watcher)

    def _keep_alive_later(self, watcher: Watcher) -> None:
        """Give signs of life from now on: none was given before the first event."""

        def beat() -> None:
            if watcher.is_open:
                if not self.is_silent:
                    watcher.waiting.put_nowait(Signal.KEEPALIVE)
                self._keep_alive_later(watcher)

        self._timeline.after(KEEPALIVE_EVERY, beat)
