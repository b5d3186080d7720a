"""An image's name as its registry knows it: `nginx` is `library/nginx` of docker.io."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """A registry's host, with its port where it names one, and the repository in it."""

    host: str
    repository: str

    @classmethod
    def parse(cls, image: str) -> ImageName:
        """From a name without a tag, by docker's rules; raises `ValueError` where it can be none."""
        first, slash, rest = image.partition("/")
        names_host = slash and ("." in first or ":" in first or first == "localhost")
        host, repository = (first.lower(), rest) if names_host else (DOCKER_HUB, image)
        host = DOCKER_HUB if host in _ALIASES else host
        if host == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if not _HOST.fullmatch(host) or not _REPOSITORY.fullmatch(repository):
            raise ValueError(
                f"{image!r} is no image's name: a repository is of small letters, digits and ._-/"
            )
        return cls(host=host, repository=repository)

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}"


def is_local(host: str) -> bool:
    """Is this the bot's own machine, as `localhost:5000` is?"""
    name = host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
