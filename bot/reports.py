"""What a build says after its tests: the verdict of a check, signed and sent to a running bot."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx

from bot.core.errors import Refused, Unavailable
from bot.core.reporting import CHECKS_PATH, DELIVERY, NAME, WRONG_DELIVERY, signature
from bot.settings import Settings, SettingsError

WAITS = (1, 2, 4, 8, 15, 30)
"""Seconds before each further try: a minute in all."""
ANSWERED_WITHIN = 20.0
"""Seconds for each try."""
AWAY = frozenset({502, 503, 504})
"""The bot's store is away, or the bot itself, as a proxy before it says."""
ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
SYSTEM = "The bot"

Pause = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sender:
    """Who calls, and where."""

    url: str
    name: str
    key: str = field(repr=False)

    def headers(self, body: bytes, delivery: str) -> dict[str, str]:
        """The headers of a call that is sent now."""
        timestamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "Promote-Identity": self.name,
            "Promote-Timestamp": timestamp,
            "Promote-Delivery": delivery,
            "Promote-Signature": signature(
                self.key,
                identity=self.name,
                timestamp=timestamp,
                delivery=delivery,
                method="POST",
                path=CHECKS_PATH,
                body=body,
            ),
        }


async def report_check(
    settings: Settings,
    fields: Mapping[str, str | None],
    *,
    delivery: str | None,
    pause: Pause = asyncio.sleep,
) -> str:
    """Report the verdict that `fields` hold, as the hook calls them, and return the bot's sentence.

    Where the bot is away it is tried again for a minute, with the same delivery. Raises `SettingsError`, `Refused`
    with the bot's reason, or `Unavailable`.
    """
    sender = _sender(settings)
    told = {name: value for name, value in fields.items() if value}
    body, delivery = json.dumps(told).encode(), delivery or named_by_ci(settings.environ, told)
    if not DELIVERY.fullmatch(delivery):
        raise Refused(WRONG_DELIVERY)
    async with httpx.AsyncClient(verify=settings.tls(), timeout=ANSWERED_WITHIN) as client:
        for wait in WAITS:
            try:
                return await _sent(client, sender, body, delivery)
            except Unavailable:
                await pause(wait)
        return await _sent(client, sender, body, delivery)


def named_by_ci(environ: Mapping[str, str], told: Mapping[str, str]) -> str:
    """The delivery: the same for every try of one run of a build server, and a random one anywhere else.

    The verdict itself is no part of it, so that one run cannot take back what it has said.
    """
    run = environ.get("BUILD_TAG") or environ.get("CI_JOB_ID")
    if github := environ.get("GITHUB_RUN_ID"):
        run = f"{github}-{environ.get('GITHUB_RUN_ATTEMPT', '1')}"
    if not run:
        return secrets.token_hex(16)
    about = [told.get(name) for name in ("app", "environment", "version", "digest", "check")]
    return "ci-" + hashlib.sha256(json.dumps([run, *about]).encode()).hexdigest()


def _sender(settings: Settings) -> _Sender:
    url = settings.require("PROMOTE_URL", "it is the address of the running bot.")
    name = settings.require("HOOK_NAME", "it is the caller's name, as hooks of promote.yaml has it.")
    key = settings.require("HOOK_KEY", "it is the caller's key, which the bot has as HOOK_KEY_<NAME>.")
    if not ADDRESS.fullmatch(url):
        raise SettingsError("PROMOTE_URL must begin with https:// or http://, and hold no user or password.")
    if not NAME.fullmatch(name):
        raise SettingsError("HOOK_NAME must be a name of hooks in promote.yaml, like jenkins.")
    return _Sender(url=url.rstrip("/") + CHECKS_PATH, name=name, key=key)


async def _sent(client: httpx.AsyncClient, sender: _Sender, body: bytes, delivery: str) -> str:
    """One try."""
    try:
        answer = await client.post(sender.url, content=body, headers=sender.headers(body, delivery))
    except httpx.InvalidURL as error:
        raise SettingsError(f"PROMOTE_URL is no address: {error}.") from error
    except httpx.TransportError as error:
        raise Unavailable(SYSTEM, f"{sender.url}: {error or type(error).__name__}") from error
    is_kept, sentence = _said(answer)
    if answer.status_code in AWAY:
        raise Unavailable(SYSTEM, sentence)
    if not is_kept:
        raise Refused(f"{sentence} ({answer.status_code} from {sender.url})")
    return sentence


def _said(answer: httpx.Response) -> tuple[bool, str]:
    """Was it kept, and the bot's sentence; a login page that answers 200 keeps nothing."""
    try:
        told = answer.json()
        return answer.status_code == 200 and told["ok"] is True, str(told["sentence"])
    except (ValueError, KeyError, TypeError):
        return False, "What answered is not the bot's hook. PROMOTE_URL must lead to it."
