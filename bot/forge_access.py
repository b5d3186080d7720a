"""How pull requests are opened: the API of each repository's own host, with the token that git uses there."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from bot.config_models import Config, RepositoryModel
from bot.core.catalog import Repository
from bot.core.ports import ChangedFile, Edit, PullRequest, PullRequests
from bot.core.proposing import NoHosts
from bot.git_access import credential
from bot.integrations.forge_http import new_client
from bot.integrations.github import GitHub
from bot.integrations.gitlab import GitLab
from bot.settings import Settings, SettingsError


class Forges:
    """The port `PullRequests`, for every repository by its name; one that takes none says so."""

    def __init__(self, hosts: Mapping[str, PullRequests], client: httpx.AsyncClient | None = None) -> None:
        self._hosts = hosts
        self._client = client

    async def aclose(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()

    def takes(self, repository: Repository) -> bool:
        """Is there a host to which its commits may be proposed?"""
        return repository.name in self._hosts

    async def find(self, edit: Edit) -> PullRequest | None:
        """The edit's pull request in any state."""
        return await self._of(edit.target.repository).find(edit)

    async def open(self, edit: Edit, *, title: str, body: str) -> PullRequest:
        """Open it, or find the one that is open already."""
        return await self._of(edit.target.repository).open(edit, title=title, body=body)

    async def merge(self, edit: Edit, pull: PullRequest, *, revision: str) -> bool:
        """Merge it where its branch is at this very revision."""
        return await self._of(edit.target.repository).merge(edit, pull, revision=revision)

    async def files(self, edit: Edit, pull: PullRequest) -> tuple[ChangedFile, ...]:
        """What it changes, by whatever commits."""
        return await self._of(edit.target.repository).files(edit, pull)

    async def close(self, edit: Edit, *, why: str) -> PullRequest | None:
        """Close it, say why in a comment, and delete its branch."""
        return await self._of(edit.target.repository).close(edit, why=why)

    async def probe(self, repository: Repository) -> str:
        """What the bot may do there, in words for people."""
        return await self._of(repository).probe(repository)

    def _of(self, repository: Repository) -> PullRequests:
        return self._hosts.get(repository.name, NoHosts())


def forges(settings: Settings, config: Config) -> Forges:
    """The host of every repository whose mode asks for one; raises `SettingsError` where a token is missing."""
    models = {name: model for name, model in config.repositories.items() if model.mode != "push"}
    if not models:
        return Forges({})
    client = new_client(settings.tls())
    return Forges({name: _host(settings, client, name, model) for name, model in models.items()}, client)


def _host(settings: Settings, client: httpx.AsyncClient, name: str, model: RepositoryModel) -> PullRequests:
    known = credential(settings, name, model)
    if known.token is None:
        raise SettingsError(
            f"GIT_TOKEN is not set: with mode: {model.mode} the bot opens pull requests of {name} with it."
        )
    if model.forge.host == "gitlab":
        return GitLab(client, api=model.forge.api, project=model.forge.name, token=known)
    return GitHub(client, api=model.forge.api, repository=model.forge.name, token=known)
