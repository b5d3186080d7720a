"""A server for the tests of Argo CD's client that answers as it is told, and remembers who knocked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HERE = "/api/v1/applications/manual-app-prod"
ANSWER = {"metadata": {"name": "manual-app-prod"}, "spec": {}, "status": {"sync": {"status": "Unknown"}}}
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwcm9tb3RlLWJvdCJ9.c2lnbmF0dXJl"


class Door:
    """A server that answers as it is told, and remembers who knocked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.answer: Handler = answering(json.dumps(ANSWER))
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._hear)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request)


def answering(text: str, kind: str = "application/json", status: int = 200, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(text=text, content_type=kind, status=status, headers=named)

    return answer


def telling(answer: object, status: int = 200) -> Handler:
    """An answer of the API."""
    return answering(json.dumps(answer), status=status)


def routing(routes: dict[str, Handler]) -> Handler:
    """Each path its answer; one that nobody expects is unknown, as the API has it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        unknown = answering("404 page not found", "text/plain", 404)
        return await routes.get(request.path, unknown)(request)

    return answer


def saying(status: int, message: str, **headers: str) -> Handler:
    """An error as Argo CD words it."""
    body = {"error": message, "code": 2, "message": message}
    return answering(json.dumps(body), status=status, **headers)


async def hang(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def wait_until(predicate: Callable[[], object], what: str) -> None:
    """Let the event loop run until something holds; five seconds at most."""
    deadline = asyncio.get_running_loop().time() + 5
    while not predicate():
        assert asyncio.get_running_loop().time() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.002)
