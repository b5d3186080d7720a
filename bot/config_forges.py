"""Where a repository takes pull requests: read from its git address, so that its token goes nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SSH = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^/\s].*)")
_GITHUB = re.compile(r"(?:\d+\+)?[\w.-]+/[\w.-]+")
_GITLAB = re.compile(r"[\w.-]+(?:/[\w.-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """A repository on a host with an API."""

    host: str
    """`github` or `gitlab`."""
    api: str
    """Its address, without a slash at the end."""
    name: str
    """`owner/name`, or `group/subgroup/name`."""

    @classmethod
    def of(cls, url: str, *, host: str | None, api: str | None, allow_local: bool) -> Forge:
        """From a git address, and what promote.yaml says besides; raises `ValueError` with what to say there."""
        server, port, name = _parts(url)
        kind = host or _kind(server)
        if kind is None:
            raise ValueError(f"pull requests need host: github or gitlab, as {server or url} does not tell")
        if not allow_local and not (_GITHUB if kind == "github" else _GITLAB).fullmatch(name):
            raise ValueError(f"pull requests need the repository's own address on its host, not {url}")
        address = (api or _usual(kind, server, port)).rstrip("/")
        _check(address, server, allow_local=allow_local)
        return cls(host=kind, api=address, name=name)


def _parts(url: str) -> tuple[str, str, str]:
    """The host, in small letters, `:8443` where the web is not at its usual port, and the repository's path there."""
    port = ""
    if "://" not in url and (short := _SSH.fullmatch(url)):
        server, path = short["host"], short["path"]
    else:
        parts = urlsplit(url)
        server, path = parts.hostname or "", parts.path
        if parts.scheme == "https" and parts.port:
            port = f":{parts.port}"
    return server.lower(), port, path.strip("/").removesuffix(".git")


def _kind(server: str) -> str | None:
    if server == "github.com" or server.endswith(".ghe.com"):
        return "github"
    return "gitlab" if server == "gitlab.com" else None


def _usual(kind: str, server: str, port: str) -> str:
    """GitHub's own hosts have another one for the API, all others a path."""
    if kind == "gitlab":
        return f"https://{server}{port}/api/v4"
    return f"https://api.{server}" if _kind(server) == "github" else f"https://{server}{port}/api/v3"


def _check(api: str, server: str, *, allow_local: bool) -> None:
    parts = urlsplit(api)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("api must be an address alone; the token belongs into GIT_TOKEN")
    if allow_local and parts.scheme in ("http", "https"):
        return
    if parts.scheme != "https":
        raise ValueError("api must begin with https://, as the token travels there")
    if parts.hostname not in (server, f"api.{server}"):
        raise ValueError(f"api must be on {server}, whose token it gets, or on api.{server}")
