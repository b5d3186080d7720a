"""No registry is asked in a storm: none is configured, as nothing of it is random."""

from __future__ import annotations

from collections.abc import Mapping


class NoRegistries:
    """What the bot has where `promote.yaml` names no registry."""

    async def digest(self, image: str, version: str) -> str:
        """Nobody may ask."""
        raise AssertionError(f"{image}:{version} is no business of any registry")

    async def platforms(self, image: str, digest: str) -> frozenset[str]:
        """Nobody may ask."""
        raise AssertionError(f"{image}@{digest} is no business of any registry")

    async def labels(self, image: str, digest: str) -> Mapping[str, str]:
        """Nobody may ask."""
        raise AssertionError(f"{image}@{digest} is no business of any registry")
