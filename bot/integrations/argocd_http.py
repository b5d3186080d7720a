"""The way to one Argo CD server: authenticated GETs, few at a time, and every kind of wrong answer told apart.

Nothing of httpx leaves this file, and neither does the token.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from bot.core.errors import Failed, Unavailable
from bot.integrations.argocd_facts import said

SYSTEM = "Argo CD"
CALLS_AT_ONCE = 4
REFRESHES_AT_ONCE = 2
"""A refresh blocks until Argo CD has compared; plain looks must get through beside it."""
CONNECT_LIMIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)
"""The most that a server's Retry-After is believed."""


class TimedOut(Unavailable):
    """No answer within the limit: whatever was asked for may still happen."""


class Rejected(Exception):
    """Argo CD understood the call and said no; `said` is its reason, fit for people."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status
        self.said = said


class Connection:
    """One server with its client; `place` is its address for people."""

    def __init__(
        self, *, url: str, token: str, verify: ssl.SSLContext | bool, headers: Mapping[str, str]
    ) -> None:
        base = _base(url)
        self.place = base.netloc.decode() + base.path.rstrip("/")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise Failed(f"the token for {SYSTEM} at {self.place} holds characters that no token has")
        self._token = token
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

    async def get(self, path: str, query: Mapping[str, str], *, limit: timedelta) -> object:
        """The JSON at a path. Raises `Rejected`, `TimedOut` and `Unavailable`."""
        try:
            async with self._calls, asyncio.timeout(limit.total_seconds()):
                response = await self._client.get(path, params=query)
        except TimeoutError as error:
            seconds = f"{limit.total_seconds():g}"
            raise TimedOut(SYSTEM, f"{self.place} did not answer within {seconds} s") from error
        except httpx.HTTPError as error:
            reason = self._clean(str(error)) or type(error).__name__
            raise Unavailable(SYSTEM, f"{self.place} cannot be reached: {reason}") from error
        return self._checked(response)

    async def refresh(self, path: str, query: Mapping[str, str], *, limit: timedelta) -> object:
        """The same, for a call that blocks for long: only a few of those are under way."""
        async with self._refreshes:
            return await self.get(path, query, limit=limit)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _checked(self, response: httpx.Response) -> object:
        """The answer's JSON, or the error that its status and its type stand for."""
        status = response.status_code
        if 300 <= status < 400:
            raise self._no_api(f"it answers {status} and sends to {_host(response)}")
        body = _json(response)
        if status in (408, 409, 429) or status >= 500:
            raise self._unavailable(response, self._reason(body))
        if body is None:
            kind = response.headers.get("Content-Type", "").partition(";")[0] or "nothing"
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
        """Argo CD's own words: `message`, and `error` before it, say the same."""
        if not isinstance(body, dict):
            return ""
        found = body.get("message") or body.get("error")
        return self._clean(found) if isinstance(found, str) else ""

    def _clean(self, text: str) -> str:
        return said(text.replace(self._token, "***") if self._token else text)


def _base(url: str) -> httpx.URL:
    """The address with its path, without a user in it: the token alone says who we are."""
    try:
        return httpx.URL(url.rstrip("/")).copy_with(userinfo=b"")
    except httpx.InvalidURL as error:
        raise Failed(f"the address of {SYSTEM} is none: {said(url)}") from error


def _json(response: httpx.Response) -> object | None:
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        return None
    try:
        body: object = response.json()
    except ValueError:
        return None
    return body


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
