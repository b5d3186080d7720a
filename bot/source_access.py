"""What lies between two builds of an app: their images' labels name the revisions, the app's own repository the commits.

Labels are hints, and whoever builds an image writes them. They choose two revisions of the repository that
`promote.yaml` names for the app, and nothing else: no host is asked because a label names it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

import structlog

from bot.config_models import Config
from bot.core.catalog import Image, Source, Target
from bot.core.dossier import Commits
from bot.core.errors import Failed, PromoteError, Unavailable
from bot.core.ports import Images
from bot.core.together import together
from bot.integrations.cleanroom import Credential
from bot.integrations.source_log import SourceLog
from bot.settings import Settings
from bot.telemetry import BUGS

WITHIN = 6.0
"""Seconds that people wait for an answer; what takes longer is there at the next question."""
REMEMBERED = 1024
LONGEST_REASON = 300
LONGEST_LABEL = 100

_SOURCE = "org.opencontainers.image.source"
_REVISION = "org.opencontainers.image.revision"
_IS_REVISION = re.compile(r"[0-9a-f]{40}")
_SSH = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>[^\s]+)")
_USERINFO = re.compile(r"[^\s/@]*@")

T = TypeVar("T")
log = structlog.get_logger()


class _Unknown(PromoteError):
    """Nobody can tell what lies between the builds; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A repository, however its address is written: `github.com` and `acme/app`."""

    host: str
    """In small letters, without a port; empty for a folder of this machine."""
    path: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `https://…`, `ssh://…`, `git@host:path` or `host/path`; raises `ValueError` where it is none of them."""
        if not text.isprintable() or any(each in text for each in " ?#\\"):
            raise ValueError("an address has no blank, no query and nothing invisible")
        if "://" not in text and (short := _SSH.fullmatch(text)):
            host, path = short["host"].lower(), short["path"]
        else:
            parts = urlsplit(text if "://" in text else f"//{text}")
            host, path = parts.hostname or "", parts.path
        path = path.strip("/").removesuffix(".git")
        if not path:
            raise ValueError("an address names a repository")
        return cls(host=host, path=path)

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"


class SourceCommits:
    """Implements the port `Sources`. `logs` go by the address of the source; `within` is in seconds."""

    def __init__(self, *, images: Images, logs: Mapping[str, SourceLog], within: float = WITHIN) -> None:
        self._images = images
        self._logs = logs
        self._within = within
        # History does not change, so what lies between two revisions stays true.
        self._known: dict[tuple[str, str, str], Commits] = {}
        self._asked: dict[tuple[str, str, str], asyncio.Task[Commits]] = {}

    @classmethod
    def open(cls, settings: Settings, config: Config, *, images: Images) -> SourceCommits:
        """For every source of the configuration.

        Its credential goes by the name of its app: `GIT_TOKEN_MANUAL_APP`; of several apps, by that of the first.

        Raises:
            Failed: an address cannot be used.
            SettingsError: a setting cannot be used.
        """
        sources = {
            app.source.url: (name, app.source) for name, app in reversed(config.apps.items()) if app.source
        }
        logs = {
            url: SourceLog(
                name=_named(url, app),
                url=url,
                cache=settings.data_dir / "sources",
                credential=_credential(settings, app),
                is_local=source.allow_local,
                proxies=settings.proxies,
                ca_bundle=settings.ca_bundle,
            )
            for url, (app, source) in sources.items()
        }
        return cls(images=images, logs=logs)

    async def between(self, target: Target, old: Image, new: Image) -> Commits:
        """The commits that lie between two builds; `unknown` says why nobody can tell. Raises nothing."""
        try:
            return await self._between(target, old, new)
        except PromoteError as error:
            return Commits(unknown=_plain(str(error)).rstrip(".")[:LONGEST_REASON])
        except Exception:
            BUGS.inc()
            log.exception("cannot read the source", target=target.name)
            return Commits(unknown="the bot made a mistake, which its log tells")

    async def aclose(self) -> None:
        """End what is still read, with its processes."""
        await asyncio.gather(*(each.aclose() for each in self._logs.values()))
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _between(self, target: Target, old: Image, new: Image) -> Commits:
        source = target.source
        if source is None or source.url not in self._logs:
            raise _Unknown("promote.yaml names no source for this app")
        if not target.asks_registry:
            raise _Unknown("no registry is asked for this image, so its labels cannot be read")
        ends_at = asyncio.get_running_loop().time() + self._within
        both = together(*(self._revision(target, source, image) for image in (old, new)))
        before, after = await _until(ends_at, both, "the registry", "it did not answer in time")
        key = (source.url, before, after)
        found = self._known.get(key)
        if found is None:
            reading = asyncio.shield(self._reading(key))
            said = "it did not answer in time; the bot goes on reading, so ask again in a minute"
            found = await _until(ends_at, reading, "the source repository", said)
        return replace(found, link=_link(source, before, after, is_back=found.is_back))

    async def _revision(self, target: Target, source: Source, image: Image) -> str:
        """Which revision of the configured repository an image says that it was built from."""
        digest = image.digest
        if not image.has_digest:
            digest = await self._images.digest(target.image, image.version)
        labels = await self._images.labels(target.image, digest)
        named = labels.get(_SOURCE)
        if not named:
            raise _Unknown(f"the image {image.version} has no source label")
        if not _is_same(named, source.url):
            raise _Unknown(
                f"the image {image.version} says it was built from {_shown(named)}, "
                "not from the configured repository"
            )
        revision = labels.get(_REVISION, "").lower()
        if not revision:
            raise _Unknown(f"the image {image.version} has no revision label")
        if not _IS_REVISION.fullmatch(revision):
            raise _Unknown(f"the revision label of the image {image.version} names no commit")
        return revision

    def _reading(self, key: tuple[str, str, str]) -> asyncio.Task[Commits]:
        """The one task that reads this; it goes on when nobody waits any more."""
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._read(key))
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    async def _read(self, key: tuple[str, str, str]) -> Commits:
        url, old, new = key
        found = await self._logs[url].between(old, new)
        self._known[key] = found
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return found

    def _end(self, key: tuple[str, str, str], done: asyncio.Task[Commits]) -> None:
        del self._asked[key]
        if not done.cancelled() and (error := done.exception()):
            log.warning("cannot read the source", source=self._logs[key[0]].name, error=str(error))


async def _until(ends_at: float, answer: Awaitable[T], system: str, otherwise: str) -> T:
    try:
        async with asyncio.timeout_at(ends_at):
            return await answer
    except TimeoutError as error:
        raise Unavailable(system, otherwise) from error


def _is_same(label: str, url: str) -> bool:
    try:
        return Address.parse(label) == Address.parse(url)
    except ValueError:
        return False


def _named(url: str, app: str) -> str:
    try:
        return str(Address.parse(url))
    except ValueError as error:
        raise Failed(f"The source of {app} cannot be used: {error}.") from error


def _shown(label: str) -> str:
    """A label for people: short, and nobody's password."""
    return _plain(_USERINFO.sub("", label))[:LONGEST_LABEL]


def _plain(text: str) -> str:
    """One line, nothing invisible in it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _link(source: Source, old: str, new: str, *, is_back: bool) -> str | None:
    """The comparison for people. Where commits go away it is turned round: the other way a host shows nothing."""
    old, new = (new, old) if is_back else (old, new)
    pattern = source.compare_url or _usual_compare_url(source.url)
    return pattern.replace("{old}", old).replace("{new}", new) if pattern else None


def _usual_compare_url(url: str) -> str | None:
    try:
        address = Address.parse(url)
    except ValueError:
        return None
    if address.host == "github.com":
        return f"https://{address}/compare/{{old}}...{{new}}"
    if address.host.partition(".")[0] == "gitlab":
        return f"https://{address}/-/compare/{{old}}...{{new}}"
    return None


def _credential(settings: Settings, app: str) -> Credential:
    """How we log in to the host of a source; the token for every GitOps repository is not for it, a key stays here."""
    return Credential(
        username=settings.own("GIT_USERNAME", app) or "x-access-token",
        token=settings.own("GIT_TOKEN", app),
        ssh_key=settings.path("GIT_SSH_KEY", app),
        known_hosts=settings.path("GIT_KNOWN_HOSTS", app),
    )
