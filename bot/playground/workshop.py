"""A whole world on this machine: a fake Slack, a simulated Argo CD, a real repository, and the real bot as a child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bot.playground.argocd.application import SimulatedApplication, Timings
from bot.playground.argocd.server import SimulatedArgoCD
from bot.playground.release_repository import MANIFEST, create_release_repository
from bot.playground.repository import create_repository
from bot.playground.slack.fake import FakeSlack

CODE = Path(__file__).parents[2]
CHANNEL = "C0DEPLOYS01"
DANA, AMY, BEN, GUS, OLGA = "U0DANADEV01", "U0AMYAPPR01", "U0BENAPPR01", "U0GUSGUEST1", "U0OLGAOUTS1"
ENVIRONMENTS = ("dev", "stage", "prod")
FOLLOWED = {"dev": "main", "stage": "release", "prod": "v14"}
"""What the applications follow at first whose app has a release branch and tags."""
READY_WITHIN = 30.0

CONFIG = """\
version: 1
environments: [{environments}]
slack: {{channel: {channel}}}
repositories:
  gitops: {{url: "{repository}", branch: main, allow_local: true}}
{released}argocd:
  main: {{url: "{argocd}", allow_local: true}}
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: "{values}"
  applications: ["{{app}}-{{env}}"]
apps:
{apps}policies:
{policies}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the world turns; the defaults are for somebody who watches."""

    timings: Timings = field(default_factory=Timings)
    rollout: str = "{stable_for: 5s, degraded_grace: 8s, pick_up_within: 2m, timeout: 5m}"
    expires: str = "4h"
    lease_seconds: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What stands in the workshop; the default is one app, whose promotions to prod Amy or Ben approve."""

    apps: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"manual-app": ENVIRONMENTS})
    """The environments of each app, in their order."""
    values: str = "values-{env}.yaml"
    """The values file of each, in a repository that holds it."""
    approvals: Mapping[str, int] = field(default_factory=lambda: {"prod": 1})
    """How many of the approvers must say yes, in the environments that ask for that."""
    approvers: Sequence[str] = (AMY, BEN)
    released: Sequence[str] = ()
    """Apps of another shape: a release branch is their stage, and a tag their prod; each has its own repository."""

    @property
    def environments(self) -> list[str]:
        """Every environment, once."""
        return list(dict.fromkeys(each for environments in self.apps.values() for each in environments))

    def values_file(self, app: str, environment: str) -> str:
        """Where an app's values of an environment stand in the repository."""
        return self.values.format(app=app, env=environment)


class Child(Protocol):
    """A process that was started here, as asyncio's own."""

    @property
    def returncode(self) -> int | None:
        """How it ended; minus the signal's number where a signal ended it, None while it runs."""
        ...

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal; raises `ProcessLookupError` where it has ended."""
        ...

    async def wait(self) -> int:
        """Return its exit code when it has ended."""
        ...


class Workshop:
    """Starts everything in one folder of its own, and ends it; the bot can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        pace: Pace | None = None,
        shape: Shape | None = None,
        socket_mode: bool = False,
    ) -> None:
        self.folder = folder
        self.pace = pace or Pace()
        self.shape = shape or Shape()
        self.starts = 0
        self._process: Child | None = None
        self._bot_token = f"xoxb-simulated-{secrets.token_hex(8)}"
        self._app_token = f"xapp-simulated-{secrets.token_hex(8)}" if socket_mode else None
        self._signing_secret = secrets.token_hex(16)
        self._seal_secret = secrets.token_hex(32)
        self._argocd_token = f"eyJhbGciOiJIUzI1NiJ9.{secrets.token_hex(12)}.{secrets.token_hex(12)}"
        self.slack = FakeSlack(
            signing_secret=self._signing_secret, bot_token=self._bot_token, app_token=self._app_token
        )
        self.repository = create_repository(folder)
        self.released = {app: create_release_repository(folder / app, app) for app in self.shape.released}
        self.argocd = SimulatedArgoCD(
            repository=self.repository,
            token=self._argocd_token,
            timings=self.pace.timings,
            applications=[
                SimulatedApplication(
                    name=f"{app}-{environment}",
                    destination_namespace=environment,
                    values_file=self.shape.values_file(app, environment),
                    repo_url=self.repository.as_uri(),
                    image_repository=_image(app),
                )
                for app, environments in self.shape.apps.items()
                for environment in environments
            ]
            + [
                _follower(app, repository, environment)
                for app, repository in self.released.items()
                for environment in FOLLOWED
            ],
        )
        self._signing_key = _signing_key(folder / "signing-key")
        self.port, self.operations_port = free_port(), free_port()
        _populate(self.slack)

    async def start(self, *, with_bot: bool = True) -> None:
        """Start the world, then the bot, and wait until it is ready."""
        await self.slack.start()
        await self.argocd.start()
        (self.folder / "promote.yaml").write_text(self._config(), encoding="utf-8")
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
        self._process = await self._spawn()
        self.starts += 1
        await self._until_ready()

    async def _spawn(self) -> Child:
        with self.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "serve", cwd=CODE, env=self.environment(), stdout=log, stderr=log
            )

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

    def _config(self) -> str:
        """This world's `promote.yaml`."""
        shape = self.shape
        return CONFIG.format(
            environments=", ".join(shape.environments),
            channel=CHANNEL,
            repository=self.repository.as_uri(),
            released="".join(
                f'  {app}: {{url: "{repository.as_uri()}", allow_local: true}}\n'
                for app, repository in self.released.items()
            ),
            argocd=self.argocd.url,
            values=shape.values,
            apps="".join([*map(self._app, shape.apps), *map(self._released_app, self.released)]),
            policies="".join(map(self._policy, shape.environments)),
        )

    def _app(self, app: str) -> str:
        lines = [f"image: {_image(app)}", "banner: {prod: Real users. Look twice.}"]
        if list(environments := self.shape.apps[app]) != self.shape.environments:
            lines.append(f"environments: {{{', '.join(f'{each}: {{}}' for each in environments)}}}")
        return "".join([f"  {app}:\n", *(f"    {line}\n" for line in lines)])

    def _released_app(self, app: str) -> str:
        """An app that goes from `main` over `release` to a tag; only approved code gets to `release`."""
        rule = f"{{users: [{', '.join(self.shape.approvers)}], min: 1}}"
        return f"""\
  {app}:
    image: {_image(app)}
    repository: {app}
    values: values.yaml
    environments:
      dev: {{}}
      stage: {{strategy: branch, branch: release}}
      prod: {{strategy: tag, pin: {{file: "argocd/{{app}}-{{env}}.yaml"}}}}
    policies: {{stage: {{approvals: {{rules: [{rule}], expires: {self.pace.expires}}}}}}}
"""

    def _policy(self, environment: str) -> str:
        needed = self.shape.approvals.get(environment)
        rule = f"{{users: [{', '.join(self.shape.approvers)}], min: {needed}}}"
        approvals = f", approvals: {{rules: [{rule}], expires: {self.pace.expires}}}" if needed else ""
        return f"  {environment}: {{rollout: {self.pace.rollout}{approvals}}}\n"

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


def _follower(app: str, repository: Path, environment: str) -> SimulatedApplication:
    """The application of an app that follows branches and tags."""
    branch, url, values = FOLLOWED[environment], repository.as_uri(), f"values-{environment}.yaml"
    return SimulatedApplication(
        name=f"{app}-{environment}",
        destination_namespace=environment,
        values_file=values,
        repo_url=url,
        branch=branch,
        repository=repository,
        image_repository=_image(app),
        declared_in=MANIFEST.format(app=app) if environment == "prod" else "",
    )


def _image(app: str) -> str:
    return f"ghcr.io/acme/{app}"


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


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections by itself."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
