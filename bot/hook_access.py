"""Which machines may call, what for, and with which keys; and the routes that there are for them."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from bot.config_models import Config, HookModel
from bot.config_policies import scope_of
from bot.core.board import Board
from bot.core.catalog import Catalog
from bot.core.delivering import IMAGES_PATH, Delivering
from bot.core.ports import Clock
from bot.core.reporting import CHECKS_PATH, HookIdentity, Reporting
from bot.settings import Settings, SettingsError
from handlers.hook import hook, images
from handlers.webhook import GITHUB_PATH, GITLAB_PATH, github, gitlab

SHORTEST = 32
"""Characters of a key."""
SHORTEST_SECRET = 16
"""Characters of a git host's secret: it opens nothing, it only has the bot look."""


def hooks(
    settings: Settings,
    config: Config,
    catalog: Catalog,
    *,
    reporting: Reporting,
    delivering: Delivering,
    board: Board,
    clock: Clock,
) -> Sequence[web.RouteDef]:
    """The routes for machines: those of `hooks` in the configuration, and of git hosts whose secret is set.

    Raises `SettingsError` as `identities` does, and for a secret that is none.
    """
    found: list[web.RouteDef] = []
    if machines := identities(settings, config):
        found.append(web.post(CHECKS_PATH, hook(reporting, machines, clock, board)))
        found.append(web.post(IMAGES_PATH, images(delivering, machines, clock, board)))
    repositories = {target.repository for target in catalog.targets}
    if secret := _webhook_secret(settings, "GITHUB_WEBHOOK_SECRET"):
        found.append(web.post(GITHUB_PATH, github(secret, repositories, board)))
    if secret := _webhook_secret(settings, "GITLAB_WEBHOOK_SECRET"):
        try:
            found.append(web.post(GITLAB_PATH, gitlab(secret, repositories, board, clock)))
        except ValueError as error:
            raise SettingsError(f"GITLAB_WEBHOOK_SECRET cannot be used: {error}.") from error
    return found


def _webhook_secret(settings: Settings, name: str) -> str | None:
    """The secret that a git host proves its calls with; without it there is no route."""
    secret = settings.get(name)
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise SettingsError(
            f"{name} must have at least {SHORTEST_SECRET} characters; make one: openssl rand -hex 32."
        )
    return secret


def identities(settings: Settings, config: Config) -> tuple[HookIdentity, ...]:
    """Everybody whom `hooks` of the configuration names.

    Raises `SettingsError` where a key is missing or short, or where two of them would share one.
    """
    found = tuple(_identity(settings, config, name, model) for name, model in config.hooks.items())
    _require_own_keys(settings, found)
    return found


def _identity(settings: Settings, config: Config, name: str, model: HookModel) -> HookIdentity:
    setting = settings.name_of("HOOK_KEY", name)
    key = settings.require(setting, f"{name} signs its calls with it, as hooks of promote.yaml names it.")
    old = settings.get(f"{setting}_OLD")
    for called, value in ((setting, key), (f"{setting}_OLD", old)):
        if value is not None and len(value) < SHORTEST:
            raise SettingsError(
                f"{called} must have at least {SHORTEST} characters; make one: openssl rand -hex 32."
            )
    apps, environments = scope_of(config, name)
    return HookIdentity(
        name=name,
        keys=(key, old) if old else (key,),
        apps=frozenset(apps),
        environments=frozenset(environments),
        actions=frozenset(model.actions),
    )


def _require_own_keys(settings: Settings, found: tuple[HookIdentity, ...]) -> None:
    """Raise `SettingsError` where one could speak as another."""
    owners: dict[str, str] = {}
    for identity in found:
        for key in identity.keys:
            owner = owners.setdefault(key, identity.name)
            if owner != identity.name:
                mine, other = (settings.name_of("HOOK_KEY", name) for name in (identity.name, owner))
                raise SettingsError(
                    f"{mine} and {other}, or the _OLD of one of them, hold the same key: {identity.name} could "
                    f"speak as {owner}. Give each a key of its own."
                )
