"""A GitHub App's way to push: short-lived tokens for one repository, made when they are needed.

Nothing of httpx leaves this file. Errors are raised outside of `except`: what was caught may hold a secret.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bot.core.errors import Failed, PromoteError, Unavailable

SYSTEM = "GitHub"
MARGIN = 300.0
"""Seconds that a token is still good for when it is handed out: a push must not outlive it."""
REMEMBERED = 8
"""How many tokens `secrets` tells of; each is good for an hour."""
LONGEST_WAIT = 3600.0
"""The most that GitHub's word for when to come back is believed, in seconds; its limits are by the hour."""
LONGEST_WORDS = 300

_HOST = r"(?:[\w-]{1,63}(?:\.[\w-]{1,63})*|\[[\da-fA-F:]+\])(?::\d{1,5})?"
_ADDRESS = re.compile(rf"(https?)://(?:[^/@\s]*@)?({_HOST})/([\w-]+)/([\w.-]+?)(?:\.git)?/?", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")
_SECRET = re.compile(r"eyJ[\w.-]+|\bgh[oprsu]_[\w.-]+|(?<=//)[^/@\s]+@")
_PERMISSION = "the permission “Contents: Read and write”"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    host: str
    api: str
    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    value: str = field(repr=False)
    ends_at: float


class InstallationToken:
    """The token of the App's installation on one repository, for git over HTTPS; threads may share it.

    `app_id` may be the client id as well. `repository_url` is `https://host/owner/name`; it tells where the
    API is. `allow_local` allows plain `http://`; `proposes` asks for pull requests, too. `now` is a Unix time. `timeout`, in seconds, is for
    connecting and for each silence.

    Raises:
        ValueError: the address or the key cannot be used; the sentence says what it must be.
    """

    def __init__(
        self,
        *,
        app_id: str,
        private_key: str,
        repository_url: str,
        verify: ssl.SSLContext | bool,
        allow_local: bool,
        proposes: bool = False,
        now: Callable[[], float] = time.time,
        timeout: float = 10.0,
    ) -> None:
        self._app_id = app_id
        self._key = _rsa_key(private_key)
        self._repository = _repository(repository_url, allow_local=allow_local)
        self._permissions = {"contents": "write"} | ({"pull_requests": "write"} if proposes else {})
        self._verify = verify
        self._now = now
        self._timeout = timeout
        self._lock = threading.Lock()
        self._held: _Token | None = None
        self._secrets: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The last tokens that were made, so that they can be kept out of logs and messages."""
        return self._secrets

    def current(self) -> str:
        """A token that is good for five more minutes; GitHub is asked only where none is held.

        Raises:
            Failed: GitHub gives this App no token for the repository.
            Unavailable: GitHub could not be asked, or asks to wait.
        """
        with self._lock:
            held = self._held
            if held is None or self._ends_soon(held):
                held = self._held = self._make()
                self._secrets = (*self._secrets, held.value)[-REMEMBERED:]
            return held.value

    def forget(self) -> None:
        """Make a new token next time: the git host did not accept this one."""
        self._held = None

    def _ends_soon(self, token: _Token) -> bool:
        return token.ends_at < self._now() + MARGIN

    def _make(self) -> _Token:
        with self._client() as client:
            found = self._ask(client, "GET", f"/repos/{self._repository}/installation")
            installation = found.get("id")
            if type(installation) is not int:
                raise self._unavailable("names no installation of the App")
            wanted = {"repositories": [self._repository.name], "permissions": self._permissions}
            given = self._ask(client, "POST", f"/app/installations/{installation}/access_tokens", wanted)
        token = _token(given)
        if token is None:
            raise self._unavailable("gives no token that can be used")
        if self._ends_soon(token):
            raise self._unavailable("gives a token that ends at once; check this machine's clock")
        return token

    def _client(self) -> httpx.Client:
        """A client that says who the App is; GitHub believes that for ten minutes at most."""
        now = int(self._now())
        claims = {"iss": self._app_id, "iat": now - 60, "exp": now + 540}
        return httpx.Client(
            base_url=self._repository.api,
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {jwt.encode(claims, self._key, algorithm='RS256')}",
                "User-Agent": "promote-bot",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            verify=self._verify,
            trust_env=True,
            follow_redirects=False,
            timeout=self._timeout,
        )

    def _ask(
        self, client: httpx.Client, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        """GitHub's answer; raises `Failed` and `Unavailable`."""
        try:
            response = client.request(method, path, json=body)
        except httpx.TimeoutException:
            trouble = f"did not answer within {self._timeout:g} s"
        except httpx.HTTPError as error:
            trouble = f"cannot be reached: {self._clean(str(error)) or type(error).__name__}"
        else:
            answer = _json_object(response)
            if response.is_success and answer is not None:
                return answer
            raise self._refusal(response, answer or {})
        raise self._unavailable(trouble)

    def _refusal(self, response: httpx.Response, answer: Mapping[str, object]) -> PromoteError:
        """The error that an answer stands for; one without GitHub's `message` comes from somebody else."""
        status, message = response.status_code, answer.get("message")
        wait = self._wait(response)
        if not isinstance(message, str):
            return self._unavailable(f"answers {status}, but not as GitHub's API does", wait)
        words = self._clean(message) or "it gives no reason"
        if status == 401:
            return Failed(
                f"GitHub does not accept the App {self._app_id}: "
                "check GITHUB_APP_ID and its key, and this machine's clock."
            )
        if status == 404:
            return Failed(
                f"The GitHub App {self._app_id} is not installed on {self._repository}: "
                f"install it there, with {_PERMISSION}."
            )
        is_limited = wait is not None or "rate limit" in words.lower()
        if status == 422 or (status == 403 and not is_limited):
            return Failed(
                f"GitHub gives the App {self._app_id} no token for {self._repository}: {words}. "
                f"Check where it is installed, and that it has {_PERMISSION}."
            )
        return self._unavailable(f"answers {status}: {words}", wait)

    def _unavailable(self, trouble: str, wait: float | None = None) -> Unavailable:
        return Unavailable(SYSTEM, f"{self._repository.host} {trouble}.", retry_after=wait)

    def _wait(self, response: httpx.Response) -> float | None:
        """Seconds until GitHub wants to be asked again; None where it does not say so."""
        headers = response.headers
        seconds = _number(headers.get("Retry-After"))
        if seconds is None and headers.get("X-RateLimit-Remaining") == "0":
            reset = _number(headers.get("X-RateLimit-Reset"))
            seconds = LONGEST_WAIT if reset is None else reset - self._now()
        return None if seconds is None else min(max(seconds, 0.0), LONGEST_WAIT)

    def _clean(self, text: str) -> str:
        """An outside text for people: one line of bounded length, nothing invisible and no secret in it."""
        line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return _SECRET.sub("***", line)[:LONGEST_WORDS].rstrip(". ")


def _rsa_key(pem: str) -> RSAPrivateKey:
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(pem.encode(), password=None)
    if isinstance(key, RSAPrivateKey):
        return key
    raise ValueError(
        "The GitHub App's private key is none: give the whole .pem file that “Generate a private key” "
        "on the App's settings page downloads."
    )


def _repository(url: str, *, allow_local: bool) -> _Repository:
    """Where the repository and its host's API are. GitHub's own have a host for it, others a path."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise ValueError("A GitHub App needs the repository's address as https://host/owner/name.")
    scheme, host, owner, name = found.groups()
    if scheme == "http" and not allow_local:
        raise ValueError(
            f"A GitHub App's token is not sent over plain http://. Use https://{host}/{owner}/{name}."
        )
    host = host.lower()
    is_githubs_own = host == "github.com" or host.endswith(".ghe.com")
    api = f"{scheme}://api.{host}" if is_githubs_own else f"{scheme}://{host}/api/v3"
    return _Repository(host=host, api=api, owner=owner, name=name)


def _json_object(response: httpx.Response) -> Mapping[str, object] | None:
    with suppress(ValueError, RecursionError):
        body = response.json()
        return body if isinstance(body, dict) else None
    return None


def _token(given: Mapping[str, object]) -> _Token | None:
    value, expires_at = given.get("token"), given.get("expires_at")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or not isinstance(expires_at, str):
        return None
    with suppress(ValueError):
        at = datetime.fromisoformat(expires_at)
        return _Token(value=value, ends_at=at.timestamp()) if at.tzinfo else None
    return None


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdecimal() else None
