"""The demo's page: a channel to type in, seen through one person's eyes, beside the world that the bot changes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from bot.playground.page_state import state
from bot.playground.slack.fake import FakeSlack, NotPossibleError, Reply

FILES = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
SWITCHES = frozenset({"ci", "degrade_next", "argocd_down", "slack_limited", "kill_bot"})
SUGGESTIONS = (
    "/promote manual-app to stage",
    "/promote manual-app to prod",
    "/promote status",
    "/promote help",
)
POLL_SECONDS = 1.0
WAIT_SECONDS = 20.0
MAX_BODY = 64 * 1024
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # the token is in the address
    "X-Content-Type-Options": "nosniff",
}


class World(Protocol):
    """What stands around the workspace: the cluster, the repository, the bot's process, and their switches."""

    async def snapshot(self) -> dict[str, object]:
        """How it is now, as JSON.

        Keys: `apps` (names), `environments` (names in order), `files` (`name`, `text`), `log` (`revision`, `subject`, `author`,
        `at`, `trailers` as pairs), `applications` (`name`, `namespace`, `sync`, `health`, `revision`, `version`,
        `pods` as a list of `name`, `status` and `version`, `message`), `bot` (`running`, `starts`), `switches`
        (`argocd_down`, `slack_limited`, `degrade_next`). Where it has any: `suggestions`, commands to try;
        `guide`, steps to try as mrkdwn.
        """
        ...

    async def switch(self, name: str, value: object) -> str:
        """Turn one of `SWITCHES`; the answer is one sentence for the person who did."""
        ...


class Page:
    """Serves the page to browsers on this machine that know its address."""

    def __init__(self, slack: FakeSlack, world: World, *, token: str) -> None:
        self._slack = slack
        self._world = world
        self._token = token
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._poller: asyncio.Task[None] | None = None
        self._snapshot: dict[str, object] = {}
        self._stopping = False

    async def start(self, port: int = 0) -> None:
        """Serve on 127.0.0.1, on a free port unless one is given."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.router.add_get("/{token}/", self._file)
        app.router.add_get("/{token}/state", self._state)
        app.router.add_get("/{token}/{name}", self._file)
        app.router.add_get("/{token}/files/{id}", self._picture)
        app.router.add_post("/{token}/{act}", self._act)
        self._stopping = False
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._port = int(self._runner.addresses[0][1])
        await self._look()
        self._poller = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Stop serving; browsers that wait for news are answered first."""
        self._stopping = True
        self._slack.workspace.touch()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        """Where a browser finds the page, token and all."""
        return f"http://127.0.0.1:{self._port}/{self._token}/"

    # --- who may ask

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let in this page alone, whatever name another site gave this machine in a browser's eyes."""
        try:
            if not self._is_own(request):
                raise web.HTTPForbidden(text="This page answers on its own address only.")
            token = request.match_info.get("token", "")
            if not secrets.compare_digest(token.encode(), self._token.encode()):
                raise web.HTTPNotFound
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        response.headers.update(HEADERS)
        return response

    def _is_own(self, request: web.Request) -> bool:
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        own = host in {f"127.0.0.1:{self._port}", f"localhost:{self._port}"}
        return own and origin in {None, f"http://{host}"}

    # --- what the page shows

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        files = {file.name: file for file in FILES.iterdir() if file.suffix in KINDS}
        if name not in files:
            raise web.HTTPNotFound
        kind = KINDS[files[name].suffix]
        return web.Response(body=files[name].read_bytes(), content_type=kind, charset="utf-8")

    async def _picture(self, request: web.Request) -> web.Response:
        """A picture that somebody uploaded."""
        file = self._slack.workspace.file(request.match_info["id"])
        if file is None:
            raise web.HTTPNotFound
        return web.Response(body=file.content, content_type="image/png")

    async def _state(self, request: web.Request) -> web.Response:
        """One person's view as soon as it differs from the version that the browser has."""
        seen = request.query.get("since", "")
        if seen == str(self._slack.version) and not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._slack.changed(int(seen)), WAIT_SECONDS)
        shown = state(self._slack, you=request.query.get("you", ""))
        suggestions = self._snapshot.get("suggestions", SUGGESTIONS)
        return web.json_response({**shown, "world": self._snapshot, "suggestions": suggestions})

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Take the world's snapshot; one that cannot be taken is told, and tried again."""
        try:
            snapshot = await self._world.snapshot()
        except Exception as error:  # noqa: BLE001 - the page outlives whatever happens to the world
            snapshot = {**self._snapshot, "trouble": f"The panel could not be brought up to date: {error}"}
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._slack.workspace.touch()

    # --- what the person does

    async def _act(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # a form from elsewhere cannot send this
            raise web.HTTPUnsupportedMediaType
        acts: dict[str, Callable[[Any], Awaitable[dict[str, object]]]] = {
            "send": self._send,
            "click": self._click,
            "submit": self._submit,
            "close": self._close,
            "home": self._home,
            "switch": self._switch,
        }
        act = acts.get(request.match_info["act"])
        if act is None:
            raise web.HTTPNotFound
        try:
            answer = await act(await request.json())
        except NotPossibleError as error:
            return web.json_response({"error": "not_possible", "shown": f"{error}."})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise web.HTTPBadRequest(text="That is no act of this page.") from None
        return web.json_response(answer)

    async def _send(self, said: Any) -> dict[str, object]:
        you, channel, text = str(said["you"]), str(said["channel"]), str(said["text"]).strip()
        if not text.startswith("/"):
            self._slack.say(you, channel, _escaped(text))
            return _told(Reply())
        command, _, rest = text.partition(" ")
        return _told(await self._slack.command(you, channel, rest.strip(), command=command))

    async def _click(self, said: Any) -> dict[str, object]:
        you, action_id, value = str(said["you"]), str(said["action_id"]), said.get("value")
        values = _values(said.get("values", {}))
        if "view" in said:
            view_id = str(said["view"])
            reply = await self._slack.click_in_view(you, view_id, action_id, value=value, values=values)
        else:
            channel, ts = str(said["channel"]), str(said["ts"])
            reply = await self._slack.click(you, channel, ts, action_id, value=value, values=values)
        return _told(reply)

    async def _submit(self, said: Any) -> dict[str, object]:
        return _told(await self._slack.submit(str(said["you"]), str(said["view"]), _values(said["values"])))

    async def _close(self, said: Any) -> dict[str, object]:
        return _told(await self._slack.close_view(str(said["you"]), str(said["view"])))

    async def _home(self, said: Any) -> dict[str, object]:
        return _told(await self._slack.open_home(str(said["you"])))

    async def _switch(self, said: Any) -> dict[str, object]:
        name = str(said["name"])
        if name not in SWITCHES:
            raise KeyError(name)
        sentence = await self._world.switch(name, said.get("value"))
        await self._look()
        return {"error": None, "shown": sentence}


def _told(reply: Reply) -> dict[str, object]:
    return {"error": reply.error, "shown": reply.shown}


def _values(said: Any) -> dict[str, str | None]:
    pairs: Iterable[tuple[Any, Any]] = said.items()
    return {str(name): None if value is None else str(value) for name, value in pairs}


def _escaped(text: str) -> str:
    """A person's words as Slack stores them: its three control characters escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
