"""What both simulated hosts share: a server on loopback, pull requests over a real repository, and trouble to order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bot.playground.forge.hosted import Difference, HostedRepository

Json = dict[str, Any]
MERGE, SQUASH, REBASE = "merge", "squash", "rebase"


@dataclass(slots=True, kw_only=True)
class Account:
    """Somebody with a token, and what they may do."""

    name: str
    scopes: frozenset[str]
    """Of `read`, `write` (branches), `pulls` (open and close), `merge`."""


@dataclass(slots=True, kw_only=True)
class Pull:
    """A pull request as the host keeps it."""

    number: int
    title: str
    body: str
    head: str
    base: str
    opened_by: str
    head_sha: str
    base_sha: str
    fork: str = ""
    """Where its branch stands on the base, as long as it is open."""
    state: str = "open"
    """`open`, `closed` or `merged`."""
    merged_as: str | None = None
    method: str | None = None
    by: str | None = None
    at: datetime | None = None
    comments: list[tuple[str, str]] = field(default_factory=list)
    reviews: int = 0
    looks: int = 0
    """How often somebody has looked at it since it changed last: only then the host knows whether it can be merged."""


@dataclass(slots=True, kw_only=True)
class Trouble:
    """What goes wrong with the next requests whose method and path begin so: an answer, or none."""

    begins: str
    status: int | None = None
    """None: it is carried out, and the line is cut before the answer."""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers


class Forge:
    """A host with one repository; `accounts` go by their tokens. Start it with `start`, end it with `stop`."""

    def __init__(self, repository: HostedRepository, *, name: str, accounts: Mapping[str, Account]) -> None:
        self.repository = repository
        self.name = name
        self.accounts = dict(accounts)
        self.pulls: dict[int, Pull] = {}
        self.required_reviews = 0
        self.troubles: list[Trouble] = []
        self.requests: list[str] = []
        """Every method and path, in order."""
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where the server is."""
        assert self._runner is not None  # noqa: S101 - it is started
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- what people do on its pages

    def review(self, number: int) -> None:
        """Somebody approves it."""
        self.pulls[number].reviews += 1

    def merge_by_hand(
        self, number: int, *, method: str = MERGE, message: str | None = None, who: str = "Mona"
    ) -> str:
        """Somebody presses the button, and may write another message; returns the new tip."""
        pull = self.refreshed(number)
        return self.merged(pull, method=method, message=message or f"{pull.title} (#{number})", who=who)

    def close_by_hand(self, number: int, *, who: str = "Mona") -> None:
        """Somebody closes it without merging it."""
        self.closed(self.pulls[number], who=who)

    # --- what becomes of it

    def opened(self, *, title: str, body: str, head: str, base: str, who: str) -> Pull:
        """A new one; the caller has checked that there may be."""
        number = max(self.pulls, default=0) + 1
        pull = Pull(
            number=number,
            title=title,
            body=body,
            head=head,
            base=base,
            opened_by=who,
            head_sha=self.repository.head(head) or "",
            base_sha=self.repository.head(base) or "",
        )
        self.pulls[number] = pull
        return self.refreshed(number)

    def refreshed(self, number: int) -> Pull:
        """It as it is now: pushes move its head, and bring it to the base; without its branch it is closed."""
        pull = self.pulls[number]
        if pull.state != "open":
            return pull
        head = self.repository.head(pull.head)
        if head is None:
            self.closed(pull, who="the host")
        elif head != pull.head_sha:
            pull.head_sha, pull.looks = head, 0
        if pull.state == "open" and self.repository.contains(pull.base, pull.head_sha):
            pull.state, pull.merged_as, pull.at = "merged", pull.head_sha, self.now()
        if pull.state == "open":
            pull.fork = self.repository.merge_base(f"refs/heads/{pull.base}", pull.head_sha)
        return pull

    def files(self, pull: Pull) -> list[Difference]:
        """What it changes, beside what the base branch has brought into it; it stays so once it has ended."""
        return self.repository.differences(pull.fork, pull.head_sha) if pull.fork else []

    def update_by_hand(self, number: int) -> str:
        """Somebody presses “Update branch”, which merges the base into it; returns its new head."""
        pull = self.refreshed(number)
        base = self.repository.head(pull.base) or ""
        return self.repository.merge(pull.head, base, message=f"Merge branch '{pull.base}' into {pull.head}")

    def merged(self, pull: Pull, *, method: str, message: str, who: str) -> str:
        """Merge it in git; raises `CannotMerge`."""
        git = self.repository
        if method == MERGE:
            revision = git.merge(pull.base, pull.head_sha, message=message)
        elif method == SQUASH:
            revision = git.squash(pull.base, pull.head_sha, message=message)
        else:
            revision = git.rebase(pull.base, pull.head_sha)
        pull.state, pull.merged_as, pull.method = "merged", revision, method
        pull.by, pull.at = who, self.now()
        return revision

    def closed(self, pull: Pull, *, who: str) -> None:
        """It is closed, unless it has ended already."""
        if pull.state == "open":
            pull.state, pull.by, pull.at = "closed", who, self.now()

    def from_branch(self, head: str, base: str) -> Pull | None:
        """The open one between these two branches."""
        open_ones = [self.refreshed(number) for number in self.pulls]
        return next(
            (each for each in open_ones if (each.state, each.head, each.base) == ("open", head, base)), None
        )

    # --- the wire

    async def answer(self, request: web.Request, body: Json) -> tuple[int, Any, Mapping[str, str]]:
        """The status, the body and the headers of an answer; raises `Refusal`."""
        raise NotImplementedError

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path}")
        trouble = self._trouble(f"{request.method} {request.path}")
        if trouble and trouble.status is not None:
            return _response(trouble.status, trouble.body, trouble.headers)
        try:
            text = await request.text()
            status, body, headers = await self.answer(request, json.loads(text) if text else {})
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.body, refusal.headers
        if trouble and request.transport is not None:
            request.transport.abort()
        return _response(status, body, headers)

    def _trouble(self, words: str) -> Trouble | None:
        found = next((each for each in self.troubles if words.startswith(each.begins)), None)
        if found:
            found.times -= 1
            self.troubles = [each for each in self.troubles if each.times]
        return found


def _response(status: int, body: Any, headers: Mapping[str, str]) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    if isinstance(body, bytes):
        return web.Response(status=status, body=body, headers=headers, content_type="text/html")
    return web.json_response(body, status=status, headers=headers)
