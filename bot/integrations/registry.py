"""OCI registries: which build a tag stands for, what a pod may report that runs it, and what its labels say."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any

from bot.core.catalog import DIGEST, checked_version
from bot.core.errors import Failed, Unavailable
from bot.core.image_name import ImageName
from bot.integrations.registry_http import INDEXES, KINDS, Access, Manifest, Visit, new_client

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"


class Registry:
    """Every registry of the configuration, by host. Nothing is remembered: a tag can be pushed anew at any time.

    `call_limit` and `limit`, in seconds, are for one call and for a whole question.
    """

    def __init__(
        self,
        accesses: Mapping[str, Access],
        *,
        verify: SSLContext,
        call_limit: float = 5.0,
        limit: float = 10.0,
    ) -> None:
        self._accesses = accesses
        self._client = new_client(verify, limit=call_limit)
        self._call_limit = call_limit
        self._limit = limit
        self._asked: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def digest(self, image: str, version: str) -> str:
        """The digest of a tag, `sha256:…`; of an image for several platforms that of its index.

        Those who ask for the same tag at the same time share one answer.

        Raises:
            Failed: there is none, the bot may not read it, or it is of a kind that proves nothing.
            Unavailable: the registry did not answer as it should; trying again may help.
        """
        tag = checked_version(version)
        task = self._asked.get((image, tag))
        if task is None:
            task = asyncio.create_task(self._within_limit(image, lambda visit: _digest(visit, tag)))
            self._asked[image, tag] = task
            task.add_done_callback(lambda _: self._asked.pop((image, tag)))
        found: str = await asyncio.shield(task)
        return found

    async def platforms(self, image: str, digest: str) -> frozenset[str]:
        """What a pod may report that runs this build: its digest, and of an index that of each manifest.

        Raises as `digest`.
        """
        found: frozenset[str] = await self._within_limit(image, lambda visit: _platforms(visit, digest))
        return found

    async def labels(self, image: str, digest: str) -> Mapping[str, str]:
        """The labels of a build; of an index those of one of its platforms. Hints, as whoever builds it writes them.

        Raises as `digest`.
        """
        found: Mapping[str, str] = await self._within_limit(image, lambda visit: _labels(visit, digest))
        return found

    async def aclose(self) -> None:
        """End what is still asked, and close the client."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._client.aclose()

    async def _within_limit(self, image: str, question: Callable[[Visit], Awaitable[Any]]) -> Any:
        visit = self._visit(image)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limit):
                return await question(visit)
        raise Unavailable(visit.system, f"it did not answer within {self._limit:g} s")

    def _visit(self, image: str) -> Visit:
        try:
            name = ImageName.parse(image)
        except ValueError as error:
            raise Failed(f"{error}.") from error
        access = self._accesses.get(name.host)
        if access is None:
            raise Failed(f"promote.yaml names no registry {name.host} under registries.")
        return Visit(self._client, name, access, limit=self._call_limit)


async def _digest(visit: Visit, tag: str) -> str:
    """By its head where that says enough: registries count what is downloaded."""
    head = await visit.manifest("HEAD", tag)
    _require_provable(head.kind)
    if head.digest and head.kind in KINDS:
        return head.digest
    return _verified(await visit.manifest("GET", tag), visit)[0]


async def _platforms(visit: Visit, digest: str) -> frozenset[str]:
    kind, content = await _named(visit, digest)
    return frozenset({digest, *(_digest_in(each) for each in _entries(kind, content))} - {""})


async def _labels(visit: Visit, digest: str) -> dict[str, str]:
    kind, content = await _named(visit, digest)
    if kind in INDEXES:
        platforms = [_digest_in(each) for each in _entries(kind, content) if _is_for_a_platform(each)]
        first = next(filter(None, platforms), None)
        content = (await _named(visit, first))[1] if first else {}
    config = _digest_in(content.get("config"))
    if not config:
        raise Failed("The registry keeps no container image under this digest whose labels can be read.")
    return _labels_in(_json(await visit.blob(config), visit, "no configuration of an image"))


async def _named(visit: Visit, digest: str) -> tuple[str, dict[str, Any]]:
    """The kind and the content of the manifest with this digest."""
    found, kind, content = _verified(await visit.manifest("GET", digest), visit)
    if found != digest:
        raise Unavailable(visit.system, "it sends another manifest than it was asked for")
    return kind, content


def _entries(kind: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    """What an index lists; nothing for another kind."""
    manifests = content.get("manifests") if kind in INDEXES else ()
    return [each for each in manifests if isinstance(each, dict)] if isinstance(manifests, list) else []


def _digest_in(descriptor: object) -> str:
    """The digest that a descriptor names; empty where that is none."""
    digest = str(descriptor.get("digest")) if isinstance(descriptor, dict) else ""
    return digest if DIGEST.fullmatch(digest) else ""


def _is_for_a_platform(entry: dict[str, Any]) -> bool:
    """Is it an image? Builders list attestations beside them, for the platform `unknown`, which have no labels."""
    platform = entry.get("platform")
    return not (isinstance(platform, dict) and platform.get("os") == "unknown")


def _labels_in(configuration: dict[str, Any]) -> dict[str, str]:
    config = configuration.get("config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    pairs = labels.items() if isinstance(labels, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def _verified(manifest: Manifest, visit: Visit) -> tuple[str, str, dict[str, Any]]:
    """The digest, the kind and the content of a manifest whose body was read."""
    digest = "sha256:" + hashlib.sha256(manifest.body).hexdigest()
    if manifest.digest not in (None, digest):
        raise Unavailable(visit.system, "the digest that it names is not that of the manifest that it sends")
    content = _json(manifest.body, visit, "no manifest")
    # What a redirect leads to is often stored without its type.
    kind = manifest.kind if manifest.kind in KINDS else str(content.get("mediaType"))
    _require_provable(_SCHEMA_1 if content.get("schemaVersion") == 1 else kind)
    if kind not in KINDS:
        raise Failed("The registry keeps something under this tag that is no container image.")
    return digest, kind, content


def _json(body: bytes, visit: Visit, otherwise: str) -> dict[str, Any]:
    content: Any = None
    with suppress(ValueError, RecursionError):
        content = json.loads(body)
    if not isinstance(content, dict):
        raise Unavailable(visit.system, f"it sends {otherwise}")
    return content


def _require_provable(kind: str) -> None:
    if kind.startswith(_SCHEMA_1):
        raise Failed(
            "The image is stored in docker's old schema 1, whose digest changes with its signatures and proves "
            "nothing. Build and push it anew with a current tool."
        )
