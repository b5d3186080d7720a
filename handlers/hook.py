"""What machines tell the bot over HTTP: the rim. A call that no key has signed is answered 401 and changes nothing."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

import structlog
from aiohttp import web

from bot.core.board import Board
from bot.core.catalog import UNKNOWN
from bot.core.delivering import Build, Delivered, Delivering
from bot.core.drafting import GatesClosed
from bot.core.errors import Failed, PromoteError, Refused, Unavailable
from bot.core.ports import Clock
from bot.core.reporting import (
    DELIVERY,
    WRONG_DELIVERY,
    Heard,
    HookIdentity,
    NotKept,
    Reporting,
    Unasked,
    signature,
)

LARGEST = 16 * 1024
"""Bytes of a body."""
MOST_BRACKETS = 400
"""In a whole body, so that none can be nested deeper than the parser goes."""
TOLERANCE = timedelta(minutes=5)
CALLS = 60
PERIOD = timedelta(minutes=1)
RETRY_AFTER = 5.0
"""Seconds until a call may be tried again, where whoever is away does not say."""
TIMESTAMP = re.compile(r"[0-9]{1,12}")
NEEDED = frozenset({"app", "environment", "version", "check", "result"})
ALLOWED = NEEDED | {"digest", "said", "link"}
IMAGE_NEEDED = frozenset({"app", "environment", "version"})
IMAGE_ALLOWED = IMAGE_NEEDED | {"digest", "reason", "link"}

_DECOY = secrets.token_hex(32)
"""Nobody's key: a name that nobody has costs as much work as one that somebody has."""
_STRANGER = HookIdentity(name="", keys=(), apps=frozenset(), environments=frozenset(), actions=frozenset())

Handler = Callable[[web.Request], Awaitable[web.Response]]

log = structlog.get_logger()


class Rejected(PromoteError):
    """The call cannot be taken; `status` is its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call whose sender is known: its fields, and the sender's own name for it."""

    identity: HookIdentity
    delivery: str
    fields: Mapping[str, str]


def hook(reporting: Reporting, identities: Iterable[HookIdentity], clock: Clock, board: Board) -> Handler:
    """The handler of `POST /hooks/v1/checks`: one verdict of one check."""

    async def report(call: Call) -> web.Response:
        return _acknowledgement(await _report(reporting, call))

    return _heard(report, identities, clock, board)


def images(delivering: Delivering, identities: Iterable[HookIdentity], clock: Clock, board: Board) -> Handler:
    """The handler of `POST /hooks/v1/images`: one build for the first environment."""

    async def deliver(call: Call) -> web.Response:
        return _delivered(await _deliver(delivering, call), call.fields)

    return _heard(deliver, identities, clock, board)


def _heard(
    work: Callable[[Call], Awaitable[web.Response]],
    identities: Iterable[HookIdentity],
    clock: Clock,
    board: Board,
) -> Handler:
    """Do the work of a call whose sender is known, and say why where it cannot be done."""
    known = {identity.name: identity for identity in identities}

    async def handle(request: web.Request) -> web.Response:
        try:
            return await work(await heard_call(request, known, clock=clock, board=board))
        except (Rejected, Refused, Failed, Unavailable) as error:
            return refusal(error)

    return handle


async def heard_call(
    request: web.Request, identities: Mapping[str, HookIdentity], *, clock: Clock, board: Board
) -> Call:
    """Read a call, prove who sent it and count it; raises `Rejected` or `Unavailable`.

    What it may do is asked of its `identity` afterwards.
    """
    body = await body_of(request, most=LARGEST)
    identity, delivery = authenticated(request, body, identities, now=clock.now())
    if not await board.take(identity.called, most=CALLS, within=PERIOD):
        raise Rejected(429, f"{identity.name} has called {CALLS} times within a minute. Wait a minute.")
    return Call(identity=identity, delivery=delivery, fields=_fields(body))


def authenticated(
    request: web.Request, body: bytes, identities: Mapping[str, HookIdentity], *, now: datetime
) -> tuple[HookIdentity, str]:
    """Who signed the request, and its delivery; raises `Rejected`.

    An unknown name and a wrong signature take the same work and give the same answer.
    """
    name, timestamp, delivery, given = (
        request.headers.get(f"Promote-{each}", "")
        for each in ("Identity", "Timestamp", "Delivery", "Signature")
    )
    identity = identities.get(name, _STRANGER)
    expected = [
        signature(
            key,
            identity=name,
            timestamp=timestamp,
            delivery=delivery,
            method=request.method,
            path=request.raw_path,
            body=body,
        )
        for key in (*identity.keys, _DECOY, _DECOY)[:2]
    ]
    # Each is compared: the first match must not show in the time that it takes.
    matches = [hmac.compare_digest(each.encode(), _bytes(given)) for each in expected]
    if not any(matches):
        raise Rejected(401, "The call is not signed with a key that I know. docs/checks.md says how to sign.")
    if (
        not TIMESTAMP.fullmatch(timestamp)
        or abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds()
    ):
        raise Rejected(401, "Promote-Timestamp is not within five minutes of my clock. Set the clock.")
    if not DELIVERY.fullmatch(delivery):
        raise Rejected(400, WRONG_DELIVERY)
    return identity, delivery


def refusal(error: PromoteError) -> web.Response:
    """The answer to what cannot be done, with the reason in one sentence."""
    status = _status(error)
    log.info("hook refused", status=status, why=str(error))
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(ceil(error.retry_after or RETRY_AFTER))
    if status == 429:
        headers["Retry-After"] = str(ceil(PERIOD.total_seconds()))
    return web.json_response({"ok": False, "sentence": str(error)}, status=status, headers=headers)


def _status(error: PromoteError) -> int:
    if isinstance(error, Rejected):
        return error.status
    if isinstance(error, Unavailable):
        return 503
    if isinstance(error, Unasked):
        return 404
    return 409 if isinstance(error, NotKept | GatesClosed | Failed) else 400


async def body_of(request: web.Request, *, most: int) -> bytes:
    """A body of JSON, as it was sent; raises `Rejected` for another one, and for more than `most` bytes."""
    if request.content_type != "application/json" or "Content-Encoding" in request.headers:
        raise Rejected(415, "The body must be JSON, as application/json and without a Content-Encoding.")
    try:
        return await request.clone(client_max_size=most).read()
    except web.HTTPRequestEntityTooLarge as error:
        raise Rejected(413, f"The body has more than {most} bytes.") from error


def _fields(body: bytes) -> Mapping[str, str]:
    """The body's fields, which are all text; raises `Rejected`."""
    if body.count(b"[") + body.count(b"{") > MOST_BRACKETS:
        raise Rejected(
            400, "The body has too many brackets; it must be one object without another one in it."
        )
    try:
        found = json.loads(body.decode())
    except ValueError as error:
        raise Rejected(400, "The body is no JSON in UTF-8.") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Rejected(400, "The body must be one JSON object, and every value in it text.")
    return found


async def _report(reporting: Reporting, call: Call) -> Heard:
    fields = call.fields
    _require_fields(fields, NEEDED, ALLOWED)
    if fields["result"] not in ("pass", "fail"):
        raise Rejected(400, "result must be pass or fail.")
    app, environment, check = fields["app"], fields["environment"], fields["check"]
    if not call.identity.may(f"check:{check}", app=app, environment=environment):
        raise Rejected(
            403,
            f"{call.identity.name} may not report this check for this app there. "
            "promote.yaml says what it may, under hooks.",
        )
    heard = await reporting.report(
        app=app,
        environment=environment,
        version=fields["version"],
        digest=fields.get("digest"),
        check=check,
        passed=fields["result"] == "pass",
        by=call.identity.called,
        said=fields.get("said", ""),
        link=fields.get("link", ""),
        delivery=call.delivery,
    )
    log.info("check reported", by=call.identity.called, delivery=call.delivery, repeated=heard.is_repeated)
    return heard


def _acknowledgement(heard: Heard) -> web.Response:
    report = heard.report
    verdict = f"{report.check} {'passed' if report.passed else 'failed'}"
    place = f"{report.app} {report.image.version} in {report.environment}"
    if heard.is_repeated:
        sentence = f"Heard before, nothing changed: {verdict} for {place}."
        return web.json_response({"ok": True, "sentence": sentence, "repeated": True})
    return web.json_response({"ok": True, "sentence": f"Kept: {verdict} for {place}."})


async def _deliver(delivering: Delivering, call: Call) -> Delivered:
    fields = call.fields
    _require_fields(fields, IMAGE_NEEDED, IMAGE_ALLOWED)
    app, environment = fields["app"], fields["environment"]
    if not call.identity.may("set-image", app=app, environment=environment):
        raise Rejected(
            403,
            f"{call.identity.name} may not deliver this app there. promote.yaml says what it may, under hooks.",
        )
    delivered = await delivering.deliver(
        Build(
            app=app,
            environment=environment,
            version=fields["version"],
            digest=fields.get("digest") or UNKNOWN,
            reason=fields.get("reason", ""),
            link=fields.get("link", ""),
        ),
        machine=call.identity.name,
        delivery=call.delivery,
    )
    made = delivered.promotion.id if delivered.promotion else None
    log.info("build delivered", by=call.identity.called, delivery=call.delivery, promotion=made)
    return delivered


def _delivered(delivered: Delivered, fields: Mapping[str, str]) -> web.Response:
    promotion = delivered.promotion
    if promotion is None and delivered.is_repeated:
        sentence = f"Taken before: {fields['environment']} held {fields['version']} then; nothing to do."
        return web.json_response({"ok": True, "repeated": True, "sentence": sentence})
    if promotion is None:
        sentence = f"{fields['environment']} already holds {fields['version']}; nothing to do."
        return web.json_response({"ok": True, "sentence": sentence})
    answer: dict[str, object] = {"ok": True, "promotion": promotion.id}
    if delivered.card:
        answer["card"] = delivered.card
    if not delivered.is_repeated:
        answer["sentence"] = f"{promotion.id} brings {promotion.title}."
        return web.json_response(answer, status=202)
    answer |= {"repeated": True, "sentence": f"{promotion.id} brings {promotion.title}: {promotion.told}."}
    if promotion.revision:
        answer["revision"] = promotion.revision
    return web.json_response(answer, status=202)


def _require_fields(fields: Mapping[str, str], needed: Collection[str], allowed: Collection[str]) -> None:
    if not set(needed) <= fields.keys() <= set(allowed):
        must, may = ", ".join(sorted(needed)), ", ".join(sorted(set(allowed) - set(needed)))
        raise Rejected(400, f"The body must hold {must}; it may hold {may}, and nothing else.")


def _bytes(header: str) -> bytes:
    return header.encode(errors="surrogateescape")
