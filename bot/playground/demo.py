"""`make demo`: the whole product on this machine, with one address to open."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bot.core.errors import Refused
from bot.playground.page import Page
from bot.playground.release_repository import MANIFEST, refs
from bot.playground.repository import Commit, log, read_file
from bot.playground.workshop import ENVIRONMENTS, Shape, Workshop

IDLE_HOURS = 8
REAL = re.compile(
    r"(SLACK_|REDIS_URL|ARGOCD_TOKEN|GIT_TOKEN|GIT_SSH_KEY|PROMOTE_SECRET|PROMOTE_CONFIG|PROMOTE_DATA_DIR)"
)

GREETING = """
  promote-bot demo, ready after {seconds:.1f} s

  Open  {address}

  Slack and Argo CD are simulated; git, the store and the bot are real. Ctrl-C ends it and leaves nothing behind.
"""

GUIDE = (
    "Press *CI built version*: it writes 15 to dev, and Argo CD rolls it out.",
    "As *Dana*, send `/promote manual-app to stage` and watch its card until it is live.",
    "Then `/promote manual-app to prod because fixes INC-42`. Try to approve it as Dana, Gus and Olga.",
    "Approve it as *Amy*, and watch the commit, the values file and the pods.",
    "Press *CI built version* for *release-app*: its stage is the branch `release`, its prod a tag. Amy approves both.",
    "Break something: let the next rollout degrade, take Argo CD down, kill the bot.",
)
SUGGESTIONS = (
    "/promote manual-app to stage",
    "/promote manual-app to prod because fixes INC-42",
    "/promote release-app to stage",
    "/promote status",
    "/promote history manual-app",
    "/promote help",
)


class DemoWorld:
    """What stands around the fake workspace, for the page."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._repositories = [workshop.repository, *workshop.released.values()]
        self.touched_at = time.monotonic()

    async def snapshot(self) -> dict[str, object]:
        """How it is now; see the page's `World`."""
        workshop = self._workshop
        files, commits = await asyncio.to_thread(lambda: (self._files(), self._log()))
        return {
            "apps": [*workshop.shape.apps, *workshop.released],
            "environments": list(ENVIRONMENTS),
            "files": [{"name": name, "text": text} for name, text in files],
            "log": [
                {
                    "revision": commit.revision,
                    "subject": commit.subject,
                    "author": commit.author,
                    "at": commit.at.isoformat(),
                    "trailers": commit.trailers,
                }
                for commit in commits
            ],
            "guide": list(GUIDE),
            "suggestions": list(SUGGESTIONS),
            "applications": workshop.argocd.snapshot(),
            "bot": {"running": workshop.is_running, "starts": workshop.starts},
            "switches": {
                "argocd_down": workshop.argocd.down,
                "slack_limited": workshop.slack.limited,
                "degrade_next": workshop.argocd.degrades_next,
            },
        }

    def _files(self) -> list[tuple[str, str]]:
        """What decides which version runs where: the values files, and the branches and tags of the other shape."""
        values = map("values-{}.yaml".format, reversed(ENVIRONMENTS))
        files = [(name, read_file(self._workshop.repository, name)) for name in values]
        for app, repository in self._workshop.released.items():
            files.append((f"{app}: branches and tags", refs(repository)))
            manifest = MANIFEST.format(app=app)
            files.append((f"{app}: {manifest}", read_file(repository, manifest)))
        return files

    def _log(self) -> list[Commit]:
        """The newest commits of every repository's `main`, newest first."""
        found = [commit for repository in self._repositories for commit in log(repository, limit=20)]
        return sorted(found, key=lambda commit: commit.at, reverse=True)[:20]

    async def switch(self, name: str, value: object) -> str:
        """Turn a switch and say what it did."""
        self.touched_at = time.monotonic()
        workshop = self._workshop
        match name:
            case "ci":
                app, _, version = str(value).rpartition(" ")
                app = app or next(iter(workshop.shape.apps))
                _, said = await workshop.command_line("set-image", app, "dev", version)
                workshop.argocd.refresh(f"{app}-dev", "normal")  # as the git host's webhook would
                return said
            case "degrade_next":
                if not value:
                    workshop.argocd.spare_next_rollout()
                    return "The next rollout goes well."
                workshop.argocd.degrade_next_rollout()
                return "The pods of the next rollout will crash."
            case "argocd_down":
                workshop.argocd.down = bool(value)
                return "Argo CD answers 503 now." if value else "Argo CD is back."
            case "slack_limited":
                workshop.slack.limited = bool(value)
                return "Slack answers 429 now." if value else "Slack answers again."
            case "kill_bot":
                if workshop.is_running:
                    await workshop.end_bot(signal.SIGKILL)
                await workshop.start_bot()
                return "The bot was killed with SIGKILL and has started again."
        return f"There is no switch {name}."


async def run(*, port: int, say: Callable[[str], None]) -> None:
    """Run until Ctrl-C, or until nobody has done anything for eight hours; raises `Refused` beside real settings."""
    _refuse_real_settings()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="promote-bot-demo-") as folder:
        workshop = Workshop(Path(folder), shape=Shape(released=("release-app",)))
        world = DemoWorld(workshop)
        page = Page(workshop.slack, world, token=secrets.token_urlsafe(18))
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        try:
            await workshop.start()
            await page.start(port)
            say(GREETING.format(seconds=time.monotonic() - began, address=page.address))
            await _until_idle(stopping, workshop, world)
        finally:
            say("Stopping …")
            await page.stop()
            await workshop.stop()


def _refuse_real_settings() -> None:
    real = sorted(name for name in os.environ if REAL.match(name))
    if real:
        raise Refused(
            f"The demo simulates everything and must not meet anything real, but these are set: {', '.join(real)}. "
            "Unset them, or use another terminal."
        )


async def _until_idle(stopping: asyncio.Event, workshop: Workshop, world: DemoWorld) -> None:
    seen = -1
    while not stopping.is_set() and time.monotonic() - world.touched_at < IDLE_HOURS * 3600:
        if workshop.slack.version != seen:
            seen, world.touched_at = workshop.slack.version, time.monotonic()
        try:
            async with asyncio.timeout(1.0):
                await stopping.wait()
        except TimeoutError:
            continue
