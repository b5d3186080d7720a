"""Slack's manifest of the app: one source for Socket Mode and for HTTP."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from bot.core.errors import Refused

SOURCE = Path(__file__).with_name("manifest.yaml")


def manifest(url: str | None = None) -> str:
    """The manifest as YAML; with a public address for HTTP, without one for Socket Mode.

    Raises `Refused` for an address that is not https.
    """
    if url is None:
        return SOURCE.read_text(encoding="utf-8")
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise Refused("Slack needs a public https:// address.")
    events = f"{url.rstrip('/')}/slack/events"
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(SOURCE.read_text(encoding="utf-8"))
    document["settings"]["socket_mode_enabled"] = False
    document["settings"]["interactivity"]["request_url"] = events
    for command in document["features"]["slash_commands"]:
        command["url"] = events
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()
