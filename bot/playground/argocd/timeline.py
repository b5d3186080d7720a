"""What will happen when: the simulation's events, run in the order of their moments."""

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta


class Timeline:
    """A queue of future actions over a time that its owner moves.

    Each action runs with `now` set to its own moment, however late it is looked at: stepping an hour at once and
    stepping it in milliseconds end in the same state. A clock that is set back takes nothing back and holds nothing
    up: `now` goes on from where it is, at the clock's pace.
    """

    def __init__(self, *, begins_at: datetime) -> None:
        self._order = itertools.count()
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self.now = begins_at
        self._told = begins_at

    def after(self, delay: timedelta, action: Callable[[], None]) -> None:
        """Run an action when `delay` has passed since `now`."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), action))

    def run_until(self, moment: datetime) -> None:
        """Run everything that is due by then; a moment before the one told last runs nothing."""
        until = self.now + max(moment - self._told, timedelta(0))
        self._told = moment
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until
