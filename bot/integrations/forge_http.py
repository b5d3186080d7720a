"""The way to a git host's REST API: one authenticated call, and every wrong answer told apart.

Nothing of httpx leaves this file, and neither does the token. No redirect is followed: the token is for this host.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from typing import Any, Protocol

import httpx

from bot.core.errors import Failed, PromoteError, Unavailable

LIMIT = 20.0
"""Seconds for one call."""
LONGEST_BODY = 8 * 2**20
LONGEST_WAIT = 3600.0
"""The most that a host's word for when to come back is believed, in seconds; limits are by the hour."""
LIMITED_FOR = 60.0
"""Seconds that a host is left alone that says we ask too much, and not for how long."""
LONGEST_WORDS = 300
PAGE = 100
MOST_PAGES = 10

Json = Mapping[str, Any]
_SECRET = re.compile(r"eyJ[\w.-]+|\bgh[oprsu]_\w+|\bgithub_pat_\w+|\bgl[\w]{2,6}-[\w.-]+|(?<=//)[^/@\s]+@")


class Token(Protocol):
    """Who we are; a token may live for a short time, and be made anew."""

    def current_token(self) -> str | None:
        """The token to use now; may block, and raises `Unavailable` or `Failed`."""
        ...

    def renew(self) -> bool:
        """The host refused it: can another one be had?"""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a host answered, where its API did."""

    status: int
    body: Any
    says: str
    """Its own words, for people; empty where it gives none."""
    is_last: bool = True
    """Is there no further page?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What came back over the wire."""

    status: int
    headers: httpx.Headers
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a host is reached, and as whom. `headers` makes the headers of a call from the token."""

    system: str
    """What it is called in errors."""
    api: str
    """Its address, without a slash at the end."""
    token: Token = field(repr=False)
    headers: Callable[[str], Mapping[str, str]] = field(repr=False)
    needs: str
    """What the token has to be allowed to do, as the end of a sentence."""


def new_client(verify: SSLContext) -> httpx.AsyncClient:
    """A client that remembers nothing of one call for the next one."""
    return httpx.AsyncClient(
        headers={"User-Agent": "promote-bot"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        verify=verify,
        trust_env=True,
        follow_redirects=False,
        timeout=LIMIT,
    )


class ForgeApi:
    """The API of one host. `limit`, in seconds, is for each call."""

    def __init__(self, client: httpx.AsyncClient, access: Access, *, limit: float = LIMIT) -> None:
        self._client = client
        self._access = access
        self._limit = limit

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Json | None = None,
        expects: Collection[int] = (),
    ) -> Answer:
        """The answer, where it is good or has a status that is expected.

        Raises:
            Failed: the host says no, in its own words.
            Unavailable: it did not answer as it should, or asks to wait; a change may have been made all the same.
        """
        is_change = method != "GET"
        token = await self._token()
        response = await self._call(method, path, token, query, body)
        if response.status == 401 and 401 not in expects and self._access.token.renew():
            token = await self._token()
            response = await self._call(method, path, token, query, body)
        answer = self._read(response, token, is_change=is_change)
        if answer.status < 300 or (answer.status in expects and not self._is_limited(response, answer)):
            return answer
        raise self._refusal(response, answer, is_change=is_change)

    async def pages(self, path: str, *, query: Mapping[str, str | int]) -> list[Json]:
        """Every entry of a list, as far as `MOST_PAGES` pages go."""
        found: list[Json] = []
        for page in range(1, MOST_PAGES + 1):
            answer = await self.ask("GET", path, query={**query, "per_page": PAGE, "page": page})
            if not isinstance(answer.body, list):
                raise Unavailable(self._access.system, "it answers with no list")
            found += [each for each in answer.body if isinstance(each, dict)]
            if answer.is_last:
                break
        return found

    async def one(self, path: str, *, query: Mapping[str, str | int] | None = None) -> Json:
        """A single object."""
        answer = await self.ask("GET", path, query=query)
        return self.object(answer)

    def object(self, answer: Answer) -> Json:
        """What an answer holds, where that is an object; raises `Unavailable`."""
        if not isinstance(answer.body, dict):
            raise Unavailable(self._access.system, "it answers with something else than its API would")
        return answer.body

    async def _token(self) -> str:
        token = await asyncio.to_thread(self._access.token.current_token)
        if not token:
            raise Failed(
                f"There is no token for {self._access.system}: pull requests need {self._access.needs}."
            )
        return token

    async def _call(
        self,
        method: str,
        path: str,
        token: str,
        query: Mapping[str, str | int] | None,
        body: Json | None,
    ) -> _Reply:
        is_change = method != "GET"
        url = f"{self._access.api}{path}"
        options: dict[str, Any] = {"json": body} if body is not None else {}
        try:
            async with (
                asyncio.timeout(self._limit),
                self._client.stream(
                    method, url, params=query, headers=self._access.headers(token), **options
                ) as response,
            ):
                content = await _bounded(response)
                return _Reply(status=response.status_code, headers=response.headers, content=content)
        except TimeoutError:
            trouble = f"it did not answer within {self._limit:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            trouble = f"it cannot be reached: {self._clean(str(error), token) or type(error).__name__}"
        except ValueError:
            trouble = "its answer is too long"
        raise Unavailable(self._access.system, trouble, maybe_done=is_change)

    def _read(self, response: _Reply, token: str, *, is_change: bool) -> Answer:
        """The answer as JSON; what is none comes from somebody else, as a proxy or a page to log in."""
        status = response.status
        if 300 <= status < 400:
            raise Failed(
                f"{self._access.system} sends the bot on to another address ({status}), where no token may go; "
                "if the repository has moved, put its new address into promote.yaml."
            )
        body: Any = None
        if response.content.strip():
            try:
                body = json.loads(response.content)
            except (ValueError, RecursionError):
                raise Unavailable(
                    self._access.system,
                    f"it answers {status}, but not as its API does",
                    retry_after=_wait(response),
                    maybe_done=is_change,
                ) from None
        has_next = 'rel="next"' in response.headers.get("Link", "")
        return Answer(status=status, body=body, says=self._clean(_words(body), token), is_last=not has_next)

    def _is_limited(self, response: _Reply, answer: Answer) -> bool:
        """Does it mean that we ask too much? GitHub says so with 403, too."""
        if response.status == 429:
            return True
        is_told = "Retry-After" in response.headers or response.headers.get("X-RateLimit-Remaining") == "0"
        return response.status == 403 and (is_told or "rate limit" in answer.says.lower())

    def _refusal(self, response: _Reply, answer: Answer, *, is_change: bool) -> PromoteError:
        system, status = self._access.system, answer.status
        words = answer.says or "it gives no reason"
        if self._is_limited(response, answer):
            wait = _wait(response)
            return Unavailable(
                system, f"it asks the bot to wait: {words}", retry_after=LIMITED_FOR if wait is None else wait
            )
        if status in (408, 425) or status >= 500:
            return Unavailable(
                system, f"it answers {status}: {words}", retry_after=_wait(response), maybe_done=is_change
            )
        if status in (401, 403, 404):
            return Failed(f"{system} says {status}: {words}. The bot's token needs {self._access.needs}.")
        return Failed(f"{system} says {status}: {words}.")

    def _clean(self, text: str, token: str) -> str:
        """An outside text for people: one line of bounded length, nothing invisible and no secret in it."""
        line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        return _SECRET.sub("***", line.replace(token, "***"))[:LONGEST_WORDS].rstrip(". ")


def changed_lines(patch: object) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The lines that a file's unified diff removes and adds, without their ends; None where there is no such diff."""
    _, mark, hunks = f"\n{patch}".partition("\n@@") if isinstance(patch, str) else ("", "", "")
    if not mark:
        return None
    lines = [each.removesuffix("\r") for each in hunks.split("\n")]
    removed, added = (tuple(each[1:] for each in lines if each.startswith(sign)) for sign in "-+")
    return removed, added


async def _bounded(response: httpx.Response) -> bytes:
    """The whole body; raises `ValueError` where it does not end."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > LONGEST_BODY:
            raise ValueError
    return bytes(content)


def _words(body: object) -> str:
    """The reasons in an answer: GitHub's `message` with its `errors`, GitLab's `message` or `error`, in any form."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_words, body)))
    if not isinstance(body, dict):
        return ""
    told = [body.get("message"), body.get("error"), body.get("errors")]
    found = "; ".join(filter(None, map(_words, told)))
    if found:
        return found
    named = {name: _words(value) for name, value in body.items() if isinstance(value, str | list)}
    return "; ".join(f"{name} {value}" for name, value in named.items() if value)


def _wait(response: _Reply) -> float | None:
    """Seconds until the host wants to be asked again; None where it does not say so."""
    seconds = _number(response.headers.get("Retry-After"))
    if seconds is None:
        for prefix in ("X-RateLimit", "RateLimit"):  # GitHub's, GitLab's
            if response.headers.get(f"{prefix}-Remaining") == "0":
                reset = _number(response.headers.get(f"{prefix}-Reset"))
                seconds = LIMITED_FOR if reset is None else reset - time.time()
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    with suppress(ValueError):
        return float(text) if text and text.isascii() and text.isdecimal() else None
    return None
