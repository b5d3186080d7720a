"""A build server that delivers what it has built, and tries again until it is told an id."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import aiohttp

from bot.core.delivering import IMAGES_PATH
from bot.core.promotion import PromotionId
from bot.core.reporting import signature

NAME = "jenkins"
KEY = "a-key-of-the-build-server-of-chaos-0001"
CONFIG = f"hooks: {{{NAME}: {{apps: [manual-app], environments: [dev], actions: [set-image]}}}}\n"
SETTINGS = {"HOOK_KEY_JENKINS": KEY}
PAUSE = 0.2
ANSWERED_WITHIN = aiohttp.ClientTimeout(total=5)


async def delivered(address: str, version: str) -> PromotionId:
    """Deliver a version to dev, always by the same name; returns the promotion that it became."""
    body = json.dumps({"app": "manual-app", "environment": "dev", "version": version}).encode()
    async with aiohttp.ClientSession(timeout=ANSWERED_WITHIN) as session:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                headers = _headers(body, delivery=f"build-of-{version}")
                async with session.post(f"{address}{IMAGES_PATH}", data=body, headers=headers) as answer:
                    if id := (await answer.json()).get("promotion"):
                        return PromotionId(id)
            await asyncio.sleep(PAUSE)


def _headers(body: bytes, *, delivery: str) -> dict[str, str]:
    timestamp = str(int(time.time()))
    proof = signature(
        KEY,
        identity=NAME,
        timestamp=timestamp,
        delivery=delivery,
        method="POST",
        path=IMAGES_PATH,
        body=body,
    )
    return {
        "Content-Type": "application/json",
        "Promote-Identity": NAME,
        "Promote-Timestamp": timestamp,
        "Promote-Delivery": delivery,
        "Promote-Signature": proof,
    }
