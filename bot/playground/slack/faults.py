"""What a workspace records of the calls it gets, and the troubles it can be put into."""

from __future__ import annotations

from dataclasses import dataclass

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


class Faults:
    """What is wrong with the workspace at the moment, for as long as a test or a demo wants it."""

    def __init__(self) -> None:
        self.limited = False
        self.down = False
        self.errors: dict[str, str] = {}
        self._retry_after = 1
        self._calls_left = 0

    def rate_limit(self, *, calls: int, retry_after: int = 1) -> None:
        """Answer the next calls with 429 and this Retry-After."""
        self._calls_left, self._retry_after = calls, retry_after

    def answer(self) -> web.Response | None:
        """The answer of a workspace in trouble, or None when it is well."""
        if self.down:
            return web.json_response({"ok": False, "error": "internal_error"}, status=500)
        if not self.limited and not self._calls_left:
            return None
        self._calls_left = max(0, self._calls_left - 1)
        return web.json_response(
            {"ok": False, "error": "ratelimited"},
            status=429,
            headers={"Retry-After": str(self._retry_after)},
        )
