"""A branch and its one thread: whoever reads or writes it waits for a turn there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bot.core.errors import PromoteError, Unavailable
from bot.integrations.mirror import Mirror
from bot.integrations.verdicts import GIT_HOST, Damaged

T = TypeVar("T")


class Branch:
    """One thread and the mirror that it alone touches."""

    def __init__(self, mirror: Mirror) -> None:
        self.repository = mirror.repository
        self.closing = threading.Event()
        self._mirror = mirror
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"git-{mirror.repository.name}")

    async def run(self, job: Callable[[Mirror], T]) -> T:
        """Do the job when its turn comes; where the copy is damaged, it is made anew and the job done again."""
        if self.closing.is_set():
            raise shutting_down()
        return await asyncio.wrap_future(self._thread.submit(self._attempt, job))

    def close_soon(self, seconds: float) -> None:
        """Take nothing new; what runs has so many seconds more."""
        self.closing.set()
        self._mirror.end_within(seconds)

    async def aclose(self) -> None:
        """End the thread after what it does now."""
        self.closing.set()
        closed = self._thread.submit(self._mirror.close)
        await asyncio.wrap_future(closed)
        await asyncio.to_thread(self._thread.shutdown)

    def _attempt(self, job: Callable[[Mirror], T]) -> T:
        if self.closing.is_set():
            raise shutting_down()
        try:
            try:
                self._mirror.open()
                return job(self._mirror)
            except Damaged as damage:
                return self._anew(job, damage)
            except (FileNotFoundError, NotADirectoryError):
                return self._anew(job, Damaged("its folder is gone"))
        except OSError as error:
            raise Unavailable("the git cache", f"{error.strerror}.") from error

    def _anew(self, job: Callable[[Mirror], T], damage: Damaged) -> T:
        try:
            self._mirror.rebuild()
            return job(self._mirror)
        except Damaged as again:
            raise Unavailable(GIT_HOST, f"{again}.", maybe_done=damage.unsure or again.unsure) from again
        except PromoteError as error:
            if damage.unsure:
                raise Unavailable(GIT_HOST, getattr(error, "detail", str(error)), maybe_done=True) from error
            raise


def shutting_down(*, maybe_done: bool = False) -> Unavailable:
    """What everybody hears who comes too late."""
    return Unavailable(GIT_HOST, "the bot is shutting down.", maybe_done=maybe_done)
