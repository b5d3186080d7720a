"""How each repository of `promote.yaml` is reached, and who signs what is committed to it."""

from __future__ import annotations

from bot.config import build_catalog
from bot.config_models import Config, RepositoryModel
from bot.core.ports import Author
from bot.integrations.github_app import InstallationToken
from bot.integrations.gitops import Credential, GitRepository
from bot.integrations.signing import MAKE_ONE, CommitSigner
from bot.integrations.store import RedisStore
from bot.settings import Settings, SettingsError

COMMITTER = Author(name="promote-bot", email="promote-bot@users.noreply.invalid")


def git_repository(settings: Settings, config: Config, *, turns: RedisStore | None = None) -> GitRepository:
    """The writer of every repository of the configuration."""
    return GitRepository(
        cache=settings.data_dir / "mirrors",
        credentials={name: credential(settings, name, model) for name, model in config.repositories.items()},
        signers=signers(settings, config),
        turns=turns,
        committer=COMMITTER,
        allow_local=frozenset(name for name, model in config.repositories.items() if model.allow_local),
        proxies=settings.proxies,
        ca_bundle=settings.ca_bundle,
    )


def signers(settings: Settings, config: Config) -> dict[str, CommitSigner]:
    """Who signs the commits of each repository that has a key for it; raises `SettingsError` for a bad key."""
    found = {}
    for name, model in config.repositories.items():
        key = settings.path("GIT_SIGNING_KEY", name) if model.sign else None
        if key is not None:
            try:
                found[name] = CommitSigner.load(key)
            except ValueError as error:
                raise SettingsError(f"GIT_SIGNING_KEY: {error}") from error
    return found


def unsigned(settings: Settings, config: Config) -> list[str]:
    """A sentence for each repository whose commits people approve and nobody signs, with what to do."""
    signed = signers(settings, config)
    needing: dict[str, str] = {}
    for target in build_catalog(config).targets:
        if target.policy.needs_approval:
            needing.setdefault(target.repository.name, target.environment)
    return [
        f"GIT_SIGNING_KEY is not set: {environment} needs approvals, so the commits to {name} are signed. "
        f"{MAKE_ONE}. To go without, set repositories.{name}.sign: false."
        for name, environment in needing.items()
        if config.repositories[name].sign and name not in signed
    ]


def credential(settings: Settings, name: str, model: RepositoryModel) -> Credential:
    """How we log in to a git host: a GitHub App's token, a token of its own, or an SSH key."""
    token: str | InstallationToken | None = settings.named("GIT_TOKEN", name)
    if app_id := settings.named("GITHUB_APP_ID", name):
        key = settings.named("GITHUB_APP_PRIVATE_KEY", name)
        if key is None:
            raise SettingsError("GITHUB_APP_PRIVATE_KEY is not set: it is the App's key, or …_FILE its file.")
        try:
            token = InstallationToken(
                app_id=app_id,
                private_key=key,
                repository_url=model.url,
                verify=settings.tls(),
                allow_local=model.allow_local,
                proposes=model.mode != "push",
            )
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from error
    return Credential(
        username=settings.named("GIT_USERNAME", name) or "x-access-token",
        token=token,
        ssh_key=settings.path("GIT_SSH_KEY", name),
        known_hosts=settings.path("GIT_KNOWN_HOSTS", name),
    )
