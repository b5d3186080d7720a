"""The way to an OCI registry: one question, with the token that was given for it, and every wrong answer told apart.

Nothing of httpx leaves this file. Errors are raised outside of `except`: what was caught may hold a secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext

import httpx

from bot.core.catalog import DIGEST
from bot.core.errors import Failed, PromoteError, Unavailable
from bot.core.image_name import DOCKER_HUB, ImageName
from bot.integrations.registry_login import Login

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
KINDS = INDEXES | {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
LONGEST_BODY = 4 * 2**20
"""Bytes; the OCI distribution specification lets a registry refuse a longer manifest."""
MOST_REDIRECTS = 3
LONGEST_WAIT = 300.0
"""The most that a registry's Retry-After is believed, in seconds."""
LONGEST_WORDS = 200

_REDIRECTS = (301, 302, 303, 307, 308)
_PARAMETER = re.compile(r'([\w-]+)="([^"]*)"')
_TOKEN = re.compile(r"[!-~]+")


class _Unusable(Exception):
    """A body that is not read to its end; says what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a registry is reached, and as whom."""

    allow_local: bool = False
    """Is it spoken to over plain http?"""
    realms: frozenset[str] = frozenset()
    """The hosts, beside its own, that may be asked for a token."""
    login: Callable[[], Login | None] = lambda: None
    """Asked anew for each question, as a token may be replaced while the bot runs; may raise `Failed`."""
    settings: str = "REGISTRY_USERNAME_<HOST> and REGISTRY_TOKEN_<HOST>"
    """The names of the settings that hold the login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a registry says of a manifest; the body is empty where only its head was asked for."""

    kind: str
    """Its media type, without parameters."""
    digest: str | None
    """What the registry says its digest is, `sha256:…`."""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    url: httpx.URL
    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)


def new_client(verify: SSLContext, *, limit: float) -> httpx.AsyncClient:
    """A client that remembers nothing of one question for the next one; `limit`, in seconds, is for each silence."""
    return httpx.AsyncClient(
        headers={"User-Agent": "promote-bot", "Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        verify=verify,
        trust_env=True,
        follow_redirects=False,
        timeout=limit,
    )


class Visit:
    """One question about one image. `limit`, in seconds, is for each call."""

    def __init__(self, client: httpx.AsyncClient, name: ImageName, access: Access, *, limit: float) -> None:
        self._client = client
        self._name = name
        self._access = access
        self._limit = limit
        self._authorization: str | None = None

    @property
    def system(self) -> str:
        """What the registry is called in errors."""
        return f"the registry {self._name.host}"

    async def manifest(self, method: str, reference: str) -> Manifest:
        """The manifest of a tag or digest, by `HEAD` or `GET`.

        Raises:
            Failed: there is none, the bot may not read it, or it lies where the bot does not go.
            Unavailable: the registry did not answer as it should; trying again may help.
        """
        answer = self._checked(await self._ask(method, "manifests", reference), reference)
        digest = answer.headers.get("Docker-Content-Digest", "")
        return Manifest(
            kind=answer.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            digest=digest if DIGEST.fullmatch(digest) else None,
            body=answer.body,
        )

    async def blob(self, digest: str) -> bytes:
        """The bytes with this digest, at most `LONGEST_BODY` of them. Raises as `manifest`."""
        body = self._checked(await self._ask("GET", "blobs", digest), digest).body
        if "sha256:" + hashlib.sha256(body).hexdigest() != digest:
            raise Unavailable(self.system, "it sends another blob than it was asked for")
        return body

    async def _ask(self, method: str, what: str, reference: str) -> _Answer:
        url = self._api.join(f"/v2/{self._name.repository}/{what}/{reference}")
        answer = await self._call(method, url, self._authorization)
        if answer.status == 401 and self._authorization is None:
            self._authorization = await self._log_in(answer)
            answer = await self._call(method, url, self._authorization)
        for _ in range(MOST_REDIRECTS):
            if answer.status not in _REDIRECTS:
                return answer
            answer = await self._call(method, self._sent_to(answer))  # nobody else gets our credentials
        if answer.status in _REDIRECTS:
            raise Failed(
                f"{self.system.capitalize()} sends the bot from one place to the next without an end."
            )
        return answer

    @property
    def _api(self) -> httpx.URL:
        host = "registry-1.docker.io" if self._name.host == DOCKER_HUB else self._name.host
        return httpx.URL(f"{'http' if self._access.allow_local else 'https'}://{host}")

    async def _call(self, method: str, url: httpx.URL, authorization: str | None = None) -> _Answer:
        headers = {
            "Accept": ", ".join(sorted(KINDS)),
            **({"Authorization": authorization} if authorization else {}),
        }
        try:
            async with (
                asyncio.timeout(self._limit),
                self._client.stream(method, url, headers=headers) as response,
            ):
                body = await _bounded(response)
                return _Answer(url=url, status=response.status_code, headers=response.headers, body=body)
        except _Unusable as error:
            trouble = f"{url.host} sends {error}"
        except TimeoutError:
            trouble = f"{url.host} did not answer within {self._limit:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            trouble = f"{url.host} cannot be reached: {_line(str(error)) or type(error).__name__}"
        raise Unavailable(self.system, trouble)

    # --- who we are

    async def _log_in(self, refused: _Answer) -> str:
        """The `Authorization` that the registry asks for."""
        scheme, words = _challenge(refused.headers)
        login = self._access.login()
        if scheme == "basic" and login:
            return login.basic
        if scheme == "bearer":
            return f"Bearer {await self._token(words, login)}"
        raise self._may_not_read(login)

    async def _token(self, words: Mapping[str, str], login: Login | None) -> str:
        """A token to pull this repository: we ask for that alone, whatever the registry would have us ask for."""
        asked = {"service": words.get("service", ""), "scope": f"repository:{self._name.repository}:pull"}
        realm = self._realm(words.get("realm", "")).copy_merge_params(asked)
        answer = await self._call("GET", realm, login.basic if login else None)
        if answer.status in (400, 401, 403, 404):
            raise self._may_not_read(login)
        token = _token(answer.body) if answer.status == 200 else None
        if token is None:
            raise self._unavailable(answer, "gives no token")
        return token

    def _realm(self, text: str) -> httpx.URL:
        """Where the token is asked for: the registry's own host, or one that the configuration lists."""
        host = self._name.host
        known = {self._api.netloc.decode(), host, *self._access.realms}
        if host == DOCKER_HUB:
            known.add("auth.docker.io")
        realm = _url(text)
        if realm is None or not self._is_encrypted(realm):
            raise Failed(
                f"{self.system.capitalize()} sends the bot to log in at what is no https:// address."
            )
        if realm.netloc.decode() not in known:
            place = _line(realm.netloc.decode())
            raise Failed(
                f"{self.system.capitalize()} sends the bot to {place} to log in, which promote.yaml does not list. "
                f"If that is right, add {place} to its realms."
            )
        return realm

    def _sent_to(self, answer: _Answer) -> httpx.URL:
        """Where a redirect leads."""
        found = _url(answer.headers.get("Location", ""), base=answer.url)
        if found is None or not self._is_encrypted(found):
            raise Failed(f"{self.system.capitalize()} sends the bot on to what is no https:// address.")
        return found

    def _is_encrypted(self, url: httpx.URL) -> bool:
        """Is it, or is it the local registry that speaks plain http, or a realm of that?"""
        local = {self._api.netloc.decode(), *self._access.realms} if self._access.allow_local else ()
        return url.scheme == "https" or (url.scheme == "http" and url.netloc.decode() in local)

    # --- what an answer stands for

    def _checked(self, answer: _Answer, reference: str) -> _Answer:
        if answer.status == 200:
            return answer
        if answer.status in (401, 403):
            raise self._may_not_read(self._access.login())
        if answer.status == 404:
            joined = "@" if DIGEST.fullmatch(reference) else ":"
            raise Failed(
                f"There is no {self._name}{joined}{reference} in the registry. "
                "Push it there first, or ask for a version that is there."
            )
        raise self._unavailable(answer, "cannot be used")

    def _may_not_read(self, login: Login | None) -> PromoteError:
        todo = (
            f"{self._access.settings}: this account must be allowed to pull"
            if login
            else f"{self._access.settings} to an account that may pull"
        )
        verb = "check" if login else "set"
        return Failed(
            f"{self.system.capitalize()} does not let the bot read {self._name.repository}: {verb} {todo}."
        )

    def _unavailable(self, answer: _Answer, otherwise: str) -> Unavailable:
        trouble = f"{answer.url.host} answers {answer.status}" + (
            f", and {otherwise}" if answer.status < 400 else ""
        )
        if answer.status == 429:
            trouble = f"{answer.url.host} asks the bot to wait (429)"
        return Unavailable(self.system, trouble, retry_after=_retry_after(answer.headers))


async def _bounded(response: httpx.Response) -> bytes:
    """The body as it was sent; raises `_Unusable`."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Unusable("its answer packed, although nobody asked for that")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise _Unusable(f"more than {LONGEST_BODY // 2**20} MB")
    return bytes(body)


def _challenge(headers: httpx.Headers) -> tuple[str, Mapping[str, str]]:
    """The scheme, in small letters, and its parameters; a token before a password where there is a choice."""
    found = []
    for value in headers.get_list("WWW-Authenticate"):
        scheme, _, rest = value.partition(" ")
        # Reversed, so that the first of two parameters of one name counts.
        found.append((scheme.lower(), dict(reversed(_PARAMETER.findall(rest)))))
    known = [each for each in found if each[0] in ("bearer", "basic")]
    return max(known, key=lambda each: each[0] == "bearer", default=("", {}))


def _token(body: bytes) -> str | None:
    with suppress(ValueError, RecursionError, AttributeError):
        given = json.loads(body)
        token = given.get("token") or given.get("access_token")
        if isinstance(token, str) and _TOKEN.fullmatch(token):
            return token
    return None


def _url(text: str, *, base: httpx.URL | None = None) -> httpx.URL | None:
    """The address, without a user in it; None where it is none."""
    with suppress(httpx.InvalidURL, ValueError):
        url = base.join(text) if base else httpx.URL(text)
        return url.copy_with(userinfo=b"") if url.host else None
    return None


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds until the registry wants to be asked again; it may name a number or a date."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if text.isascii() and text.isdecimal() else _seconds_until(text)
    except ValueError:
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _seconds_until(date: str) -> float:
    at = parsedate_to_datetime(date)
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _line(text: str) -> str:
    """An outside text for people: one line of bounded length, nothing invisible in it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:LONGEST_WORDS]
