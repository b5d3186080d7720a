"""A whole world on this machine: a fake Slack, a simulated Argo CD, a real repository, and the real bot as a child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bot.playground.argocd.application import SimulatedApplication, Timings
from bot.playground.argocd.server import SimulatedArgoCD
from bot.playground.repository import create_repository
from bot.playground.slack.fake import FakeSlack

CODE = Path(__file__).parents[2]
CHANNEL = "C0DEPLOYS01"
DANA, AMY, BEN, GUS, OLGA = "U0DANADEV01", "U0AMYAPPR01", "U0BENAPPR01", "U0GUSGUEST1", "U0OLGAOUTS1"
ENVIRONMENTS = ("dev", "stage", "prod")
READY_WITHIN = 30.0

CONFIG = """\
version: 1
environments: [dev, stage, prod]
slack: {{channel: {channel}}}
repositories:
  gitops: {{url: "{repository}", branch: main, allow_local: true}}
argocd:
  main: {{url: "{argocd}", allow_local: true}}
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: values-{{env}}.yaml
  applications: ["{{app}}-{{env}}"]
apps:
  manual-app:
    image: ghcr.io/acme/manual-app
    banner: {{prod: Real users. Look twice.}}
policies:
  dev: {{rollout: &rollout {rollout}}}
  stage: {{rollout: *rollout}}
  prod:
    rollout: *rollout
    approvals: {{rules: [{{users: [{amy}, {ben}], min: 1}}], expires: {expires}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the world turns; the defaults are for somebody who watches."""

    timings: Timings = field(default_factory=Timings)
    rollout: str = "{stable_for: 5s, degraded_grace: 8s, pick_up_within: 2m, timeout: 5m}"
    expires: str = "4h"
    lease_seconds: int = 15


class Workshop:
    """Starts everything in one folder of its own, and ends it; the bot can be killed and started again."""

    def __init__(self, folder: Path, *, pace: Pace | None = None, socket_mode: bool = False) -> None:
        self.folder = folder
        self.pace = pace or Pace()
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._bot_token = f"xoxb-simulated-{secrets.token_hex(8)}"
        self._app_token = f"xapp-simulated-{secrets.token_hex(8)}" if socket_mode else None
        self._signing_secret = secrets.token_hex(16)
        self._seal_secret = secrets.token_hex(32)
        self._argocd_token = f"eyJhbGciOiJIUzI1NiJ9.{secrets.token_hex(12)}.{secrets.token_hex(12)}"
        self.slack = FakeSlack(
            signing_secret=self._signing_secret, bot_token=self._bot_token, app_token=self._app_token
        )
        self.repository = create_repository(folder)
        self.argocd = SimulatedArgoCD(
            repository=self.repository,
            token=self._argocd_token,
            timings=self.pace.timings,
            applications=[
                SimulatedApplication(
                    name=f"manual-app-{environment}",
                    destination_namespace=environment,
                    values_file=f"values-{environment}.yaml",
                    repo_url=self.repository.as_uri(),
                )
                for environment in ENVIRONMENTS
            ],
        )
        self._signing_key = _signing_key(folder / "signing-key")
        self.port, self.operations_port = _free_port(), _free_port()
        _populate(self.slack)

    async def start(self, *, with_bot: bool = True) -> None:
        """Start the world, then the bot, and wait until it is ready."""
        await self.slack.start()
        await self.argocd.start()
        config = CONFIG.format(
            channel=CHANNEL,
            repository=self.repository.as_uri(),
            argocd=self.argocd.url,
            rollout=self.pace.rollout,
            expires=self.pace.expires,
            amy=AMY,
            ben=BEN,
        )
        (self.folder / "promote.yaml").write_text(config, encoding="utf-8")
        if not self._app_token:
            self.slack.events_url = f"http://127.0.0.1:{self.port}/slack/events"
        if with_bot:
            await self.start_bot()

    async def stop(self) -> None:
        """End the bot as an operator would, then the world."""
        try:
            if self.starts and not self.is_running:
                await (
                    self.start_bot()
                )  # a killed bot left its store running: the next one adopts it and ends it
            if self.is_running:
                await self.end_bot(signal.SIGTERM)
        finally:
            await self.argocd.stop()
            await self.slack.stop()

    @property
    def is_running(self) -> bool:
        """Is the bot's process there?"""
        return self._process is not None and self._process.returncode is None

    @property
    def log_path(self) -> Path:
        """What the bot has logged, JSON lines."""
        return self.folder / "bot.log"

    async def start_bot(self) -> None:
        """Start the bot and wait until it is ready; raises `RuntimeError` with its last words otherwise."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "serve", cwd=CODE, env=self.environment(), stdout=log, stderr=log
            )
        self.starts += 1
        await self._until_ready()

    async def end_bot(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send the bot a signal and wait for its end; returns its exit code."""
        assert self._process is not None  # noqa: S101 - there is nothing to end before `start`
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        return await self._process.wait()

    async def command_line(self, *words: str) -> tuple[int, str]:
        """Run `python -m bot …` in this world; returns its exit code and what it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot",
            *words,
            cwd=CODE,
            env=self.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return await process.wait(), said.decode().strip()

    def environment(self) -> Mapping[str, str]:
        """The bot's environment: this world's addresses and secrets, and nothing of the machine's own."""
        named = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPERATIONS_PORT": str(self.operations_port),
            "PROMOTE_CONFIG": str(self.folder / "promote.yaml"),
            "PROMOTE_DATA_DIR": str(self.folder / "data"),
            "PROMOTE_LEASE_SECONDS": str(self.pace.lease_seconds),
            "PROMOTE_SECRET": self._seal_secret,
            "SLACK_API_URL": self.slack.api_url,
            "SLACK_BOT_TOKEN": self._bot_token,
            "SLACK_SIGNING_SECRET": self._signing_secret,
            "ARGOCD_TOKEN": self._argocd_token,
            "GIT_SIGNING_KEY": str(self._signing_key),
        }
        if self._app_token:
            named["SLACK_APP_TOKEN"] = self._app_token
        return named

    async def _until_ready(self) -> None:
        address = f"http://127.0.0.1:{self.operations_port}/readyz"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN), aiohttp.ClientSession() as session:
                while self.is_running:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(address) as answer:
                            if answer.status == 200:
                                return
                    await asyncio.sleep(0.05)
        last_words = self.log_path.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"The bot did not become ready. Its last words:\n{last_words}")


def _populate(slack: FakeSlack) -> None:
    people = (
        (DANA, "dana", "Dana Ortiz", "member", "Developer"),
        (AMY, "amy", "Amy Chen", "member", "Approver for prod"),
        (BEN, "ben", "Ben Ruiz", "member", "Approver for prod"),
        (GUS, "gus", "Gus Weber", "guest", "Guest"),
        (OLGA, "olga", "Olga Sand", "stranger", "Outsider, from another workspace"),
    )
    for id, name, real_name, kind, role in people:
        email = f"{name}@{'elsewhere' if kind == 'stranger' else 'acme'}.example"
        slack.add_user(id, name=name, real_name=real_name, email=email, kind=kind, role=role)  # type: ignore[arg-type]
    slack.add_channel(CHANNEL, name="deploys", members=[person[0] for person in people])


def _signing_key(path: Path) -> Path:
    """A new key for the bot's commits, as ssh-keygen would make it."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


def _free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections by itself."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
