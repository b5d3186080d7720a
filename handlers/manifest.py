"""Slack's manifest of the app: one source for Socket Mode and for HTTP."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from bot.core.errors import Refused
from bot.integrations.slack import HISTORY_SCOPES

SOURCE = Path(__file__).with_name("manifest.yaml")


def manifest(url: str | None = None, *, history: bool = False) -> str:
    """The manifest as YAML; with a public address for HTTP, without one for Socket Mode.

    `history` asks for the right to read the channels too. Raises `Refused` for an address that is not https.
    """
    source = SOURCE.read_text(encoding="utf-8")
    if url is None and not history:
        return source
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(source)
    if url is not None:
        _speak_http(document, url)
    if history:
        document["oauth_config"]["scopes"]["bot"] += sorted(HISTORY_SCOPES)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _speak_http(document: Any, url: str) -> None:
    if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
        raise Refused("Slack needs a public https:// address.")
    events = f"{url.rstrip('/')}/slack/events"
    document["settings"]["socket_mode_enabled"] = False
    document["settings"]["interactivity"]["request_url"] = events
    for command in document["features"]["slash_commands"]:
        command["url"] = events
