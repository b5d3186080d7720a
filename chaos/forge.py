"""A git host that takes pull requests alone, in front of the world's repository."""

from __future__ import annotations

from pathlib import Path

from bot.playground.forge.github import FakeGitHub
from bot.playground.forge.server import SQUASH, Account

TOKEN = "a-token-of-the-bot-of-chaos"  # noqa: S105 - for a simulated host
RIGHTS = frozenset({"read", "write", "pulls", "merge"})
PUSHED = "branch: main, allow_local: true"


def protected(repository: Path) -> FakeGitHub:
    """The host; it squashes, so that a promotion is one commit there too."""
    name = str(repository).strip("/").removesuffix(".git")
    host = FakeGitHub(repository, name=name, accounts={TOKEN: Account(name="promote-bot", scopes=RIGHTS)})
    host.methods = {SQUASH}
    host.protect()
    return host


def configured(config: str, host: FakeGitHub) -> str:
    """`promote.yaml` with pull requests to this host."""
    return config.replace(PUSHED, f'{PUSHED}, mode: pr, host: github, api: "{host.url}"', 1)
