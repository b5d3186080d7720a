"""How each registry of `promote.yaml` is reached, and as whom."""

from __future__ import annotations

from functools import partial

from bot.config_models import Config, RegistryModel
from bot.core.errors import Failed
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.integrations.registry_login import Login, from_docker
from bot.settings import Settings, SettingsError


def registry(settings: Settings, config: Config) -> Registry:
    """The client of every registry of the configuration; raises `Failed` where a login cannot be used."""
    return Registry(
        {host: _access(settings, host, model) for host, model in config.registries.items()},
        verify=settings.tls(),
    )


def _access(settings: Settings, host: str, model: RegistryModel) -> Access:
    login(settings, host)  # what is wrong with it is told at the start
    names = [settings.name_of(name, host) for name in ("REGISTRY_USERNAME", "REGISTRY_TOKEN")]
    return Access(
        allow_local=model.allow_local,
        realms=frozenset(model.realms),
        login=partial(login, settings, host),
        settings=" and ".join(names),
    )


def login(settings: Settings, host: str) -> Login | None:
    """Who the bot is at this registry now, as a file may be renewed while it runs; None: nobody.

    A registry's own settings go before docker's file. Raises `Failed`.
    """
    try:
        username, token = settings.own("REGISTRY_USERNAME", host), settings.own("REGISTRY_TOKEN", host)
        docker = settings.get("REGISTRY_AUTH")
    except SettingsError as error:
        raise Failed(str(error)) from error
    if username and token:
        return Login(username=username, password=token)
    if username or token:
        names = [settings.name_of(name, host) for name in ("REGISTRY_USERNAME", "REGISTRY_TOKEN")]
        raise Failed(f"{' and '.join(names)} belong together: set both, or neither.")
    try:
        return from_docker(docker, host) if docker else None
    except ValueError as error:
        raise Failed(f"REGISTRY_AUTH_FILE: {error}.") from error
