"""The worker: claim what is due, advance it, put it back. Redis is the queue and the timer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from bot.core.advance import Engine
from bot.core.errors import PromoteError, Unavailable
from bot.core.ports import Queue
from bot.telemetry import ADVANCE_SECONDS, BUGS

SIDE_BY_SIDE = 100
LOOK_EVERY = 0.5
STORE_AWAY = 1.0
CANCEL_AGAIN_AFTER = 0.1

log = structlog.get_logger()


@dataclass(kw_only=True)
class Worker:
    """One loop; any number of them on one store share the work."""

    engine: Engine
    queue: Queue
    lease: timedelta = timedelta(seconds=15)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _again: set[str] = field(default_factory=set)
    """Claimed while their last turn was not over yet: its `rest` was done, and we had not heard."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _renewing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until `stop`; a store that is away is waited for."""
        self._renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping.is_set():
                try:
                    await self._turn()
                except Unavailable as error:
                    log.warning("store away", error=str(error))
                    await self._pause(STORE_AWAY)
                except Exception:
                    # A worker that ends without a word would leave every promotion where it is.
                    BUGS.inc()
                    log.exception("worker broke")
                    await self._pause(STORE_AWAY)
        finally:
            if not self._stopping.is_set():
                await self._stop_renewing()

    async def stop(self, timeout: float = 10.0) -> None:
        """Take no new work, wait up to `timeout` seconds for what runs, and give the rest back at once."""
        self._stopping.set()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=timeout)
        left = dict(self._running)
        for task in left.values():
            task.cancel()
        await asyncio.gather(*left.values(), return_exceptions=True)
        await self._stop_renewing()
        for id in {*left, *self._again}:
            # Of no edition: another worker finds it due now, and does not wait for our lease.
            with contextlib.suppress(Unavailable):
                await self.queue.rest(id, edition=0, after=None)

    async def _turn(self) -> None:
        room = SIDE_BY_SIDE - len(self._running)
        claimed = await self.queue.claim(limit=room, lease=self.lease) if room else ()
        for id in claimed:
            if self._stopping.is_set():
                # `stop` came while we asked: another worker takes it at once.
                await self.queue.rest(id, edition=0, after=None)
            elif id in self._running:
                self._again.add(id)
            else:
                self._begin(id)
        if not claimed:
            await self.queue.wait(LOOK_EVERY)

    def _begin(self, id: str) -> None:
        task = asyncio.create_task(self._advance(id))
        self._running[id] = task
        task.add_done_callback(functools.partial(self._end, id))

    def _end(self, id: str, _task: asyncio.Task[None]) -> None:
        self._running.pop(id, None)
        if id in self._again and not self._stopping.is_set():
            self._again.discard(id)
            self._begin(id)

    async def _advance(self, id: str) -> None:
        with structlog.contextvars.bound_contextvars(promotion=id), ADVANCE_SECONDS.time():
            try:
                edition, after = await self._step(id)
                await self.queue.rest(id, edition=edition, after=after)
            except PromoteError as error:
                log.warning("could not advance", error=str(error))  # the lease brings it back
            except Exception:
                BUGS.inc()
                log.exception("could not advance")

    async def _step(self, id: str) -> tuple[int, timedelta | None]:
        try:
            return await self.engine.advance(id)
        except PromoteError:
            raise
        except Exception:
            reference = secrets.token_hex(3)
            BUGS.inc()
            log.exception("advance broke", reference=reference)
            return await self.engine.broke(id, reference=reference)

    async def _renew(self) -> None:
        """Keep the leases of what is being worked on."""
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 3)
            if self._running:
                with contextlib.suppress(Unavailable):
                    await self.queue.renew(list(self._running), lease=self.lease)

    async def _stop_renewing(self) -> None:
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            await end(renewing)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def end(task: asyncio.Task[None]) -> None:
    """Cancel the task until it has ended: redis-py swallows a cancellation that comes while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_AFTER)
    if not task.cancelled() and (error := task.exception()):
        log.error("ended with an error", error=str(error))
