"""Slack's manifest of the app: one source for Socket Mode and for HTTP."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from bot.core.errors import Refused

SOURCE = Path(__file__).with_name("manifest.yaml")


def manifest(url: str | None = None, *, more_scopes: Collection[str] = ()) -> str:
    """The manifest as YAML; with a public address for HTTP, without one for Socket Mode.

    `more_scopes` are those that are of use and not needed. Raises `Refused` for an address that is not https.
    """
    source = SOURCE.read_text(encoding="utf-8")
    if url is None and not more_scopes:
        return source
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(source)
    if url is not None:
        _speak_http(document, url)
    document["oauth_config"]["scopes"]["bot"] += sorted(more_scopes)
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
