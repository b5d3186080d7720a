"""What git hosts tell the bot: that somebody pushed. It carries no authority, it only says when to look."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from bot.core.board import Board
from bot.core.catalog import Repository
from bot.core.errors import Unavailable
from bot.core.ports import Clock
from handlers.hook import TIMESTAMP, TOLERANCE, Handler, Rejected, body_of, refusal

GITHUB_PATH = "/hooks/v1/github"
GITLAB_PATH = "/hooks/v1/gitlab"
LARGEST = 1024 * 1024
"""Bytes of a body. A larger push is not heard, and seen at the next look."""
SIGNING_TOKEN = "whsec_"  # noqa: S105 - how GitLab begins a secret that signs, and is not sent
UNSIGNED = "The call is not signed with the secret that I have for it."

log = structlog.get_logger()

Proof = Callable[[web.Request, bytes], bool]
"""Was this body sent by whoever has the secret?"""


def github(secret: str, repositories: Collection[Repository], board: Board) -> Handler:
    """The handler of `POST /hooks/v1/github`: a push wakes whoever looks at that branch."""

    def is_theirs(request: web.Request, body: bytes) -> bool:
        expected = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
        return _equal(expected, request.headers.get("X-Hub-Signature-256", ""))

    return _webhook(is_theirs, lambda pushed: _text(pushed, "repository", "full_name"), repositories, board)


def gitlab(secret: str, repositories: Collection[Repository], board: Board, clock: Clock) -> Handler:
    """The handler of `POST /hooks/v1/gitlab`; a secret `whsec_…` signs, any other one is sent as it is.

    Raises `ValueError` for a signing token that is none.
    """
    proof = _signed_by(secret, clock) if secret.startswith(SIGNING_TOKEN) else _sent_with(secret)
    return _webhook(
        proof, lambda pushed: _text(pushed, "project", "path_with_namespace"), repositories, board
    )


def _sent_with(secret: str) -> Proof:
    return lambda request, _: _equal(secret, request.headers.get("X-Gitlab-Token", ""))


def _signed_by(token: str, clock: Clock) -> Proof:
    """By the Standard Webhooks' rules: over id, time and body; one of several signatures has to be right."""
    try:
        key = base64.b64decode(token.removeprefix(SIGNING_TOKEN), validate=True)
    except binascii.Error as error:
        raise ValueError("a signing token is whsec_ and Base64") from error

    def is_theirs(request: web.Request, body: bytes) -> bool:
        id, at = (request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
        message = f"{id}.{at}.".encode(errors="surrogateescape") + body
        expected = "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()
        given = request.headers.get("webhook-signature", "").split(" ")
        is_signed = any(_equal(expected, each) for each in given)
        is_timely = TIMESTAMP.fullmatch(at) and _is_near(int(at), clock)
        return is_signed and bool(is_timely)

    return is_theirs


def _is_near(seconds: int, clock: Clock) -> bool:
    return abs(clock.now().timestamp() - seconds) <= TOLERANCE.total_seconds()


def _webhook(
    is_theirs: Proof,
    name_of: Callable[[Mapping[str, Any]], str],
    repositories: Collection[Repository],
    board: Board,
) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = await body_of(request, most=LARGEST)
            _require(is_proved=is_theirs(request, body))
            pushed = _object(body)
            found = _meant(repositories, path=name_of(pushed), ref=_text(pushed, "ref"))
            for name in found:
                await board.call(name)
        except (Rejected, Unavailable) as error:
            return refusal(error)
        log.info("webhook", repositories=sorted(found))
        sentence = "I look at it now." if found else "That is nothing that I look at."
        return web.json_response({"ok": True, "sentence": sentence}, status=202)

    return handle


def _require(*, is_proved: bool) -> None:
    """Raise `Rejected` for a call that somebody else may have made."""
    if not is_proved:
        raise Rejected(401, UNSIGNED)


def _meant(repositories: Collection[Repository], *, path: str, ref: str) -> frozenset[str]:
    """The names of the repositories whose branch was pushed to."""
    return frozenset(
        each.name for each in repositories if is_at(each, path) and ref == f"refs/heads/{each.branch}"
    )


def is_at(repository: Repository, path: str) -> bool:
    """Is this the repository `acme/manual-app-helm`? The host may have several names, so its name does not count."""
    url = repository.url
    place = urlsplit(url).path if "://" in url else url.partition(":")[2]
    own = place.strip("/").removesuffix(".git").lower()
    return f"/{own}".endswith(f"/{path.strip('/').lower()}")


def _object(body: bytes) -> Mapping[str, Any]:
    """The body, where it is a JSON object; raises `Rejected`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(400, "The body is no JSON that I can read.") from error
    if not isinstance(found, dict):
        raise Rejected(400, "The body must be one JSON object.")
    return found


def _text(pushed: Mapping[str, Any], *way: str) -> str:
    """The text at the end of the way; empty where there is none, as in a ping."""
    found: Any = pushed
    for name in way:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _equal(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode(errors="surrogateescape"))
