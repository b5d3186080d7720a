"""Who the bot is for a registry: a user name and a password or token."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

from bot.core.image_name import DOCKER_HUB

_DOCKER_HUBS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_PATHS = frozenset({"", "v1", "v2"})
"""What may follow a host that stands for the whole registry; a longer path is one repository's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """An account of a registry."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


def from_docker(text: str, host: str) -> Login | None:
    """The login for a registry in docker's `config.json`; None where that has none for it.

    Raises `ValueError`, with a sentence without a secret, where the file is none or the login stands elsewhere.
    """
    try:
        entries = json.loads(text).get("auths", {}).items()
        found = next((entry for name, entry in entries if _names(name, host)), None)
        if found is None:
            return None
        username, password = found.get("username"), found.get("password")
        if found.get("auth"):
            username, _, password = base64.b64decode(found["auth"], validate=True).decode().partition(":")
    except (AttributeError, TypeError, ValueError, binascii.Error):
        broken = True
    else:
        broken = False
    if broken:  # raised here, because what was caught may hold a piece of the file
        raise ValueError("it is no config.json of docker's")
    if not isinstance(username, str) or not isinstance(password, str) or not username or not password:
        raise ValueError(f"it names {host}, but holds no password for it; a credential helper may keep it")
    return Login(username=username, password=password)


def _names(name: str, host: str) -> bool:
    """Is this entry for the host? Docker Hub stands there as `https://index.docker.io/v1/`."""
    place, _, path = name.rpartition("://")[2].partition("/")
    hosts = _DOCKER_HUBS if host == DOCKER_HUB else {host}
    return place.lower() in hosts and path.strip("/") in _PATHS
