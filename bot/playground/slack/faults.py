"""What a workspace records of the calls it gets, and the troubles it can be put into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from bot.playground.slack.blocks import Json


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that the Web API received, with the answer it gave."""

    method: str
    args: Json
    answer: Json

    @property
    def error(self) -> str | None:
        """Slack's error code, or None where the call succeeded."""
        return self.answer.get("error")


@dataclass(frozen=True, kw_only=True)
class Delay:
    """One call that is on its way until it is let arrive, whether or not its sender still waits for the answer."""

    method: str
    is_under_way: asyncio.Event = field(default_factory=asyncio.Event)
    may_arrive: asyncio.Event = field(default_factory=asyncio.Event)


def _every_call(_method: str, _args: Json) -> bool:
    return True


class Faults:
    """What is wrong with the workspace at the moment, for as long as a test or a demo wants it."""

    def __init__(self) -> None:
        self.limited = False
        self.down = False
        self.errors: dict[str, str] = {}
        self._retry_after = 1
        self._calls_left = 0
        self._is_limited: Callable[[str, Json], bool] = _every_call
        self._delays: list[Delay] = []

    def rate_limit(
        self, *, calls: int, retry_after: int = 1, where: Callable[[str, Json], bool] = _every_call
    ) -> None:
        """Answer the next calls with 429 and this Retry-After; those alone whose method and arguments fit `where`.

        Slack counts the calls of each method on their own, and the posts of each channel.
        """
        self._calls_left, self._retry_after, self._is_limited = calls, retry_after, where

    def delay(self, method: str) -> Delay:
        """Keep the next call of this method on its way."""
        self._delays.append(Delay(method=method))
        return self._delays[-1]

    async def carry(self, method: str) -> None:
        """Return when the call arrives: at once, unless it is one to be delayed."""
        found = next((delay for delay in self._delays if delay.method == method), None)
        if found is not None:
            self._delays.remove(found)
            found.is_under_way.set()
            await found.may_arrive.wait()

    def answer(self, method: str, args: Json) -> web.Response | None:
        """The answer of a workspace in trouble, or None when it is well."""
        if self.down:
            return web.json_response({"ok": False, "error": "internal_error"}, status=500)
        if not self.limited and not (self._calls_left and self._is_limited(method, args)):
            return None
        self._calls_left = max(0, self._calls_left - 1)
        return web.json_response(
            {"ok": False, "error": "ratelimited"},
            status=429,
            headers={"Retry-After": str(self._retry_after)},
        )
