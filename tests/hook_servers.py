"""The hook on a server of its own, with a real board behind it, and a machine that signs its calls."""

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from builders import target
from redis.asyncio import Redis

from bot.core.board import Report
from bot.core.catalog import Catalog, Target
from bot.core.policy import CheckRule, Policy
from bot.core.reporting import CHECKS_PATH, HookIdentity, Reporting, signature
from bot.core.seals import Sealer
from bot.integrations.board import RedisBoard
from bot.integrations.store import connect
from handlers.hook import hook

KEY = "k" * 32
OTHER_KEY = "o" * 32
OLD_KEY = "a" * 32
DIGEST = "sha256:" + "d" * 64
SEALER = Sealer("a secret of the tests")
CHECKED = Policy(checks=(CheckRule(name="integration"), CheckRule(name="smoke")))
FIELDS = {
    "app": "manual-app",
    "environment": "stage",
    "version": "v15",
    "digest": DIGEST,
    "check": "integration",
    "result": "pass",
    "said": "128 tests, 3 minutes",
    "link": "https://ci.example.com/runs/15?tab=tests",
}


def identity(name: str = "jenkins", **changes: Any) -> HookIdentity:
    """A machine that may report every check of `manual-app` in stage, but for the changes."""
    plain: dict[str, Any] = {
        "keys": (KEY,),
        "apps": {"manual-app"},
        "environments": {"stage"},
        "actions": {"check:*"},
    }
    return HookIdentity(name=name, **plain | changes)


JENKINS = identity()


@dataclass
class Clock:
    """The machine's clock, set wrong by so much."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class OneImage:
    """A registry that has one build, or an answer that is an error."""

    error: Exception | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def digest(self, image: str, version: str) -> str:
        self.asked.append((image, version))
        if self.error:
            raise self.error
        return "sha256:" + "e" * 64


@dataclass
class Hook:
    """A hook that runs."""

    url: str
    board: RedisBoard
    raw: Redis
    clock: Clock
    images: OneImage
    retry_after: str | None = None
    """When the last call may be tried again, as its answer said."""

    async def reports(self, version: str = "v15") -> tuple[Report, ...]:
        """What the board keeps."""
        return await self.board.reports("manual-app", "stage", version)

    async def everything(self) -> dict[bytes, bytes | None]:
        """All that is in the store, byte for byte."""
        return {key: await self.raw.dump(key) for key in await self.raw.keys()}

    async def call(self, body: bytes, headers: dict[str, str], path: str = CHECKS_PATH) -> tuple[int, Any]:
        """Send it as it is; the status and what was said."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=body, headers=headers) as answer,
        ):
            self.retry_after = answer.headers.get("Retry-After")
            return answer.status, await answer.json()

    async def report(self, *, key: str = KEY, name: str = "jenkins", **changes: Any) -> tuple[int, Any]:
        """Send the fields with these changes, signed; a field that is None is left out."""
        delivery = changes.pop("delivery", f"delivery-{time.monotonic_ns()}")
        fields = {name: value for name, value in (FIELDS | changes).items() if value is not None}
        body = json.dumps(fields).encode()
        return await self.call(body, signed(body, key=key, name=name, delivery=delivery))


def signed(
    body: bytes, *, key: str = KEY, name: str = "jenkins", delivery: str = "delivery-1", ago: float = 0
) -> dict[str, str]:
    """The headers of a call that was signed so many seconds ago."""
    timestamp = str(int(time.time() - ago))
    proof = signature(
        key,
        identity=name,
        timestamp=timestamp,
        delivery=delivery,
        method="POST",
        path=CHECKS_PATH,
        body=body,
    )
    return {
        "Content-Type": "application/json",
        "Promote-Identity": name,
        "Promote-Timestamp": timestamp,
        "Promote-Delivery": delivery,
        "Promote-Signature": proof,
    }


@asynccontextmanager
async def hook_at(
    redis_url: str,
    *,
    identities: Iterable[HookIdentity] = (JENKINS,),
    middlewares: Iterable[Any] = (),
    **of_stage: Any,
) -> AsyncIterator[Hook]:
    """A hook with its board at this address; prod asks for two checks of what runs in stage."""
    targets: list[Target] = [target("dev"), target("stage", **of_stage), target("prod", policy=CHECKED)]
    catalog = Catalog(environments=("dev", "stage", "prod"), targets=tuple(targets))
    clock, images = Clock(), OneImage()
    async with (
        aclosing(RedisBoard(connect(redis_url, quick=True))) as board,
        aclosing(Redis.from_url(redis_url, protocol=2)) as raw,
    ):
        reporting = Reporting(catalog=catalog, board=board, images=images, clock=clock, sealer=SEALER)
        public = web.Application(middlewares=list(middlewares))
        public.router.add_post(CHECKS_PATH, hook(reporting, identities, clock, board))
        runner = web.AppRunner(public, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            yield Hook(f"http://127.0.0.1:{port}", board, raw, clock, images)
        finally:
            await runner.cleanup()
