"""Which machines may call the hook, what for, and with which keys."""

from __future__ import annotations

from bot.config_models import Config, HookModel
from bot.config_policies import scope_of
from bot.core.reporting import HookIdentity
from bot.settings import Settings, SettingsError

SHORTEST = 32
"""Characters of a key."""


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
