"""The way to one Argo CD server: authenticated calls, few at a time, and every kind of wrong answer told apart.

Nothing of httpx leaves this file, and neither does the token.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from bot.core.errors import Failed, Unavailable
from bot.integrations.argocd_text import said

EVENTS = "text/event-stream"
SYSTEM = "Argo CD"
CALLS_AT_ONCE = 4
REFRESHES_AT_ONCE = 2
"""A refresh blocks until Argo CD has compared; plain looks must get through beside it."""
CONNECT_LIMIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)
"""The most that a server's Retry-After is believed."""
LONGEST_LINE = 16 * 2**20
"""Bytes of one line of a stream; an Application with its whole status can be megabytes."""
LONGEST_BODY = 32 * 2**20
"""Bytes of an answer; the manifests of a large application are megabytes."""

Query = Mapping[str, str | Sequence[str]]
_Done = TypeVar("_Done")


class TimedOut(Unavailable):
    """No answer within the limit: whatever was asked for may still happen."""


class Rejected(Exception):
    """Argo CD understood the call and said no; `said` is its reason, fit for people."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status
        self.said = said


class Connection:
    """One server with its client; `place` is its address for people.

    `count` hears of every call: its kind and how it ended, `2xx`, `timeout` or `unreachable`.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str,
        verify: ssl.SSLContext | bool,
        headers: Mapping[str, str],
        count: Callable[[str, str], None],
    ) -> None:
        base = _base(url)
        self.place = base.netloc.decode() + base.path.rstrip("/")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise Failed(f"the token for {SYSTEM} at {self.place} holds characters that no token has")
        self._token = token
        self._count = count
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._refreshes = asyncio.Semaphore(REFRESHES_AT_ONCE)
        self._client = httpx.AsyncClient(
            base_url=base,
            headers={
                "Accept": "application/json",
                "User-Agent": "promote-bot",
                "Authorization": f"Bearer {token}",
                **headers,
            },
            verify=verify,
            trust_env=True,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_LIMIT.total_seconds()),
        )

    async def get(self, path: str, query: Query, *, call: str, limit: timedelta) -> object:
        """The JSON at a path. Raises `Rejected`, `TimedOut` and `Unavailable`."""
        return await self._answer(self._client.build_request("GET", path, params=query), call, limit)

    async def refresh(self, path: str, query: Query, *, call: str, limit: timedelta) -> object:
        """The same, for a call that blocks for long: only a few of those are under way."""
        async with self._refreshes:
            return await self.get(path, query, call=call, limit=limit)

    async def post(self, path: str, body: Mapping[str, object], *, call: str, limit: timedelta) -> object:
        """Send JSON, once. Raises as `get`; after `Unavailable` it may have been carried out."""
        # httpx sends `application/json` alone, the one type that Argo CD takes for JSON.
        return await self._answer(self._client.build_request("POST", path, json=body), call, limit)

    async def lines(
        self,
        path: str,
        query: Query,
        *,
        call: str,
        first: timedelta,
        later: timedelta,
        kind: str = EVENTS,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a stream of this content type, without their ends, until the server ends it.

        Not even its head comes before the first event, so silence is borne `first`, and `later` from then on.
        Raises as `get`. It takes no turn of a call's: it stays for as long as it is wanted.
        """
        wanted = {"Accept": kind, "Accept-Encoding": "identity"}
        request = self._client.build_request("GET", path, params=query, headers=wanted)
        response = await self._within(first, self._client.send(request, stream=True), call)
        try:
            self._counted(response, call)
            if response.status_code != 200 or not _is_of(kind, response):
                self._checked(response, await self._within(first, _content(response), call))
                raise self._no_api("it answers with no stream")
            chunks, begun, limit = response.aiter_bytes(), bytearray(), first
            while chunk := await self._within(limit, anext(chunks, b""), call):
                begun += chunk
                if b"\n" in chunk:
                    *whole, rest = bytes(begun).split(b"\n")
                    begun, limit = bytearray(rest), later
                    for line in whole:
                        yield line
                elif len(begun) > LONGEST_LINE:
                    raise Unavailable(SYSTEM, f"{self.place} sends a line without an end")
            yield bytes(begun)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _answer(self, request: httpx.Request, call: str, limit: timedelta) -> object:
        async with self._calls:
            response, content = await self._within(limit, self._sent(request), call)
        self._counted(response, call)
        return self._checked(response, content)

    async def _sent(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        response = await self._client.send(request, stream=True)
        try:
            return response, await _content(response)
        finally:
            await response.aclose()

    async def _within(self, limit: timedelta, work: Awaitable[_Done], call: str) -> _Done:
        """What `work` returns within the limit, with httpx's errors as ours."""
        try:
            async with asyncio.timeout(limit.total_seconds()):
                return await work
        except TimeoutError as error:
            self._count(call, "timeout")
            seconds = f"{limit.total_seconds():g}"
            raise TimedOut(SYSTEM, f"{self.place} did not answer within {seconds} s") from error
        except httpx.HTTPError as error:
            self._count(call, "unreachable")
            reason = self._clean(str(error)) or type(error).__name__
            raise Unavailable(SYSTEM, f"{self.place} cannot be reached: {reason}") from error

    def _counted(self, response: httpx.Response, call: str) -> None:
        self._count(call, f"{response.status_code // 100}xx")

    def _checked(self, response: httpx.Response, content: bytes) -> object:
        """The answer's JSON, or the error that its status and its type stand for."""
        status = response.status_code
        if len(content) > LONGEST_BODY:
            raise Unavailable(SYSTEM, f"{self.place} answers with more than {LONGEST_BODY // 2**20} MB")
        if 300 <= status < 400:
            raise self._no_api(f"it answers {status} and sends to {_host(response)}")
        body = _json(response, content)
        if status in (408, 409, 429) or status >= 500:
            raise self._unavailable(response, self._reason(body))
        if body is None:
            kind = _kind(response).partition(";")[0] or "nothing"
            raise self._no_api(f"it answers {status} with {self._clean(kind)}")
        if status >= 400:
            raise Rejected(status, self._reason(body) or response.reason_phrase)
        return body

    def _no_api(self, what: str) -> Unavailable:
        """A login page, a proxy, the user interface, plain HTTP where TLS is spoken."""
        return Unavailable(SYSTEM, f"there is no {SYSTEM} API at {self.place}: {what}")

    def _unavailable(self, response: httpx.Response, reason: str) -> Unavailable:
        status = response.status_code
        detail = f"{self.place} answers {status} {response.reason_phrase}{reason and ': '}{reason}"
        is_late = status in (408, 504) or (status == 500 and "deadline exceeded" in reason)
        kind = TimedOut if is_late else Unavailable
        return kind(SYSTEM, detail, retry_after=_retry_after(response))

    def _reason(self, body: object) -> str:
        """Argo CD's own words: `message`, and `error` before it, say the same; of a stream, `error` holds both."""
        if not isinstance(body, dict):
            return ""
        found = body.get("message") or body.get("error")
        return self._clean(found) if isinstance(found, str) else self._reason(found)

    def _clean(self, text: str) -> str:
        return said(text.replace(self._token, "***") if self._token else text)


def _base(url: str) -> httpx.URL:
    """The address with its path, without a user in it: the token alone says who we are."""
    try:
        return httpx.URL(url.rstrip("/")).copy_with(userinfo=b"")
    except httpx.InvalidURL as error:
        raise Failed(f"the address of {SYSTEM} is none: {said(url)}") from error


async def _content(response: httpx.Response) -> bytes:
    """What an answer holds; of one that is too long, no more than shows that it is."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > LONGEST_BODY:
            break
    return bytes(content)


def _json(response: httpx.Response, content: bytes) -> object | None:
    text = content.removeprefix(b"data:") if _is_of(EVENTS, response) else content
    if not _is_of(EVENTS, response) and not _kind(response).startswith("application/json"):
        return None
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return body


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Type", ""))


def _is_of(kind: str, response: httpx.Response) -> bool:
    return _kind(response).startswith(kind)


def _host(response: httpx.Response) -> str:
    """Where a redirect leads, without the rest of the address: it may hold a session."""
    try:
        return httpx.URL(response.headers.get("Location", "")).host or "another path"
    except httpx.InvalidURL:
        return "nowhere"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds until the server wants to be asked again; it may name a number or a date."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(text)
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT.total_seconds())


def _seconds_until(date: str) -> float:
    at = parsedate_to_datetime(date)
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
