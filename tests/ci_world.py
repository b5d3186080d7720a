"""The machines' side of a world: the hooks on a server of their own, and a build server that calls them."""

import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web
from world import World

from bot.core.delivering import IMAGES_PATH, Delivering
from bot.core.reporting import Reporting, signature
from bot.hook_access import hooks
from bot.settings import Settings

KEY = "k" * 40
GITHUB_SECRET = "a-secret-for-github"
HOOKS = {
    "jenkins": {
        "apps": ["manual-app"],
        "environments": ["dev", "stage"],
        "actions": ["set-image", "check:*"],
    }
}


def new_delivering(world: World, **different: Any) -> Delivering:
    """What machines can deliver, on the world's parts, or on `different` ones."""
    parts = replace(world.parts, **different)
    return Delivering(
        catalog=parts.catalog,
        store=parts.store,
        values=parts.values,
        cluster=parts.cluster,
        images=parts.images,
        directory=parts.directory,
        clock=world.clock,
        sealer=parts.sealer,
        drafting=world.new_drafting(**different),
    )


@dataclass(frozen=True)
class BuildServer:
    """A machine with a key, and the address of the bot."""

    world: World
    url: str

    async def deliver(
        self, version: str = "17", *, delivery: str = "jenkins-manual-app-17", **fields: str
    ) -> tuple[int, Any]:
        """Deliver a build; the status and what was said."""
        told = {"app": "manual-app", "environment": "dev", "version": version} | fields
        return await self.call(IMAGES_PATH, json.dumps(told).encode(), delivery=delivery)

    async def call(self, path: str, body: bytes, *, delivery: str) -> tuple[int, Any]:
        """Any call, signed at the time that the world's clock shows."""
        timestamp = str(int(self.world.clock.now().timestamp()))
        proof = signature(
            KEY,
            identity="jenkins",
            timestamp=timestamp,
            delivery=delivery,
            method="POST",
            path=path,
            body=body,
        )
        headers = {
            "Content-Type": "application/json",
            "Promote-Identity": "jenkins",
            "Promote-Timestamp": timestamp,
            "Promote-Delivery": delivery,
            "Promote-Signature": proof,
        }
        return await self.post(path, body, headers)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Send it as it is."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=io.BytesIO(body), headers=headers) as answer,
        ):
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()


@contextlib.asynccontextmanager
async def hearing_machines(
    world: World, *, environ: Mapping[str, str] | None = None, clock: Any = None, **different: Any
) -> AsyncIterator[BuildServer]:
    """Serve the hooks as the real bot does, with the clock of this world; `different` are keys of `promote.yaml`."""
    config = world.config(**{"hooks": HOOKS} | different)
    settings = Settings(environ={"HOOK_KEY_JENKINS": KEY} | dict(environ or {}))
    parts, time = world.parts, clock or world.clock
    reporting = Reporting(
        catalog=parts.catalog, board=world.board, images=parts.images, clock=time, sealer=parts.sealer
    )
    public = web.Application()
    public.add_routes(
        hooks(
            settings,
            config,
            parts.catalog,
            reporting=reporting,
            delivering=new_delivering(world),
            board=world.board,
            clock=time,
        )
    )
    runner = web.AppRunner(public, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield BuildServer(world, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
