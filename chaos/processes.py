"""Real processes that start fast: each is forked from a template that has imported everything already."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

_TEMPLATE = multiprocessing.get_context("forkserver")
_TEMPLATE.set_forkserver_preload(["chaos.bot"])


class Fork:
    """A child with a process id, an environment and a log of its own; begun where there is a running loop."""

    def __init__(
        self, work: Callable[..., None], *, environment: Mapping[str, str], log: Path, **options: bool
    ) -> None:
        words = (work, options, dict(environment), str(log))
        self._process = _TEMPLATE.Process(target=_work, args=words, daemon=True)
        self._process.start()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._process.sentinel, self._end)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None  # noqa: S101 - it was started
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; minus the signal's number where a signal ended it, None while it runs."""
        return self._process.exitcode

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal; raises `ProcessLookupError` where it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, signal)

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        return await asyncio.shield(self._ended)

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set_result(self._process.exitcode or 0)


def _work(
    work: Callable[..., None], options: Mapping[str, bool], environment: Mapping[str, str], log: str
) -> None:
    """In the child: nothing of the template's environment and output is kept."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output, number)
    work(**options)
