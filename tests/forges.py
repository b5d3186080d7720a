"""Both simulated git hosts, and the bot's way to each: what the tests of pull requests stand on."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bot.core.ports import PullRequests
from bot.integrations.cleanroom import Credential
from bot.integrations.forge_http import new_client
from bot.integrations.github import GitHub
from bot.integrations.gitlab import GitLab
from bot.playground.forge.github import FakeGitHub
from bot.playground.forge.gitlab import FakeGitLab
from bot.playground.forge.server import Account

KINDS = ("github", "gitlab")
NAME = "acme/gitops"
TOKEN = "a-token-that-nobody-may-see"
EVERYTHING = frozenset({"read", "write", "pulls", "merge"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A simulated host, and the bot's adapter for it."""

    kind: str
    fake: FakeGitHub | FakeGitLab
    pulls: PullRequests

    def may(self, *scopes: str) -> None:
        """What the bot's token is good for from now on."""
        self.fake.accounts[TOKEN].scopes = frozenset(scopes)


def api_of(kind: str, fake: FakeGitHub | FakeGitLab) -> str:
    """Where the API of the simulated host is."""
    return fake.url if kind == "github" else f"{fake.url}/api/v4"


@asynccontextmanager
async def host(kind: str, folder: Path) -> AsyncIterator[Host]:
    """A host in front of this bare repository."""
    fake_kind = FakeGitHub if kind == "github" else FakeGitLab
    fake = fake_kind(folder, name=NAME, accounts={TOKEN: Account(name="promote-bot", scopes=EVERYTHING)})
    await fake.start()
    client = new_client(ssl.create_default_context())
    try:
        yield Host(kind=kind, fake=fake, pulls=adapter(kind, fake, client))
    finally:
        await client.aclose()
        await fake.stop()


def adapter(
    kind: str, fake: FakeGitHub | FakeGitLab, client: httpx.AsyncClient, *, token: str = TOKEN
) -> PullRequests:
    """The bot's way to it."""
    credential = Credential(token=token)
    if kind == "github":
        return GitHub(client, api=api_of(kind, fake), repository=NAME, token=credential)
    return GitLab(client, api=api_of(kind, fake), project=NAME, token=credential)
