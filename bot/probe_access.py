"""Who the bot is to the systems that it asks before a promotion."""

from __future__ import annotations

from functools import partial

from bot.core.catalog import Catalog
from bot.integrations.probes import HttpProbes
from bot.settings import Settings

TOKEN = "PROBE_TOKEN"  # noqa: S105 - the setting's name


def http_probes(settings: Settings, catalog: Catalog) -> HttpProbes:
    """The asker of every probe of the catalog; raises `SettingsError` where a token cannot be read."""
    for name in sorted({probe.name for target in catalog.targets for probe in target.policy.probes}):
        settings.own(TOKEN, name)  # what is wrong with it is told at the start
    return HttpProbes(token=partial(settings.own, TOKEN), verify=settings.tls())
