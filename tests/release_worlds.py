"""A world whose environments follow branches and tags: `main` is dev, `release` is stage, a tag `v…` is prod.

One chart, three values files, three applications, three namespaces. The version stands in the chart's own
values.yaml, which CI writes on `main`: dev runs 15, stage and prod run 14.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from world import AMY, BEN, ROLLOUT, World, push

from bot.core.promotion import Promotion
from bot.playground import repository as sample
from bot.playground.release_repository import lay_out

MANIFEST = "argocd/manual-app-prod.yaml"
APPROVALS = {"rules": [{"users": [AMY, BEN], "min": 1}], "expires": "4h"}


class ReleaseWorld(World):
    """dev on `main`, stage on `release`, prod on a tag that a file of `main` pins, or on the highest tag."""

    is_pinned = True

    def __init__(self, folder: Path, redis_url: str, **different: Any) -> None:
        super().__init__(folder, redis_url, **different)
        self.lay_out()

    def lay_out(self) -> None:
        """Bring the repository into the shape, with 14 everywhere, then let CI write 15."""
        lay_out(self.repository, "manual-app")
        self.ci_writes("15")

    def ci_writes(self, version: str, *, message: str = "") -> str:
        """CI puts a version into the chart's values on `main`; returns the revision."""
        text = tagged_text(sample.read_file(self.repository, "values.yaml"), version)
        return push(self.repository, {"values.yaml": text}, message=message or f"Build {version}")

    def git(self, *words: str) -> str:
        """Somebody works on the repository by hand."""
        who = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in {"NAME": "Sam Okafor", "EMAIL": "sam@acme.example"}.items()
        }
        environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            ["git", *words], cwd=self.repository, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def application(self, environment: str, **different: Any) -> Any:
        """Argo CD's application of an environment."""
        branches = {"dev": "main", "stage": "release", "prod": "v14" if self.is_pinned else "v*"}
        declared = {"declared_in": MANIFEST} if environment == "prod" and self.is_pinned else {}
        return super().application(environment, branch=branches[environment], **declared, **different)

    def config(self, **different: Any) -> Any:
        """The strategies of the three environments."""
        rollout = {"rollout": ROLLOUT}
        pin = {"pin": {"file": "argocd/{app}-{env}.yaml"}} if self.is_pinned else {}
        app = {
            "image": "ghcr.io/acme/manual-app",
            "same_image": "tag-only",
            "values": "values.yaml",
            "environments": {
                "dev": {},
                "stage": {"strategy": "branch", "branch": "release"},
                "prod": {"strategy": "tag", **pin},
            },
        }
        policies = {
            "dev": rollout,
            "stage": rollout | {"approvals": APPROVALS},
            "prod": rollout | {"approvals": APPROVALS},
        }
        return super().config(**{"apps": {"manual-app": app}, "policies": policies} | different)

    async def promoted(self, environment: str, version: str | None = None) -> Promotion:
        """Asked for by Dana, approved by Amy, and followed to its end."""
        id = await self.request(environment, version)
        await self.advance(id)
        await self.promoter.approve(id, user=AMY)
        return await self.rest(id)


class UnpinnedWorld(ReleaseWorld):
    """Prod follows the highest tag `v*`."""

    is_pinned = False


def tagged_text(text: str, version: str) -> str:
    """A values file with another version."""
    return re.sub(r'tag: ".*?"', f'tag: "{version}"', text, count=1)


@contextlib.asynccontextmanager
async def release_world(
    kind: type[ReleaseWorld], folder: Path, redis_url: str
) -> AsyncIterator[ReleaseWorld]:
    """A world of this kind, open."""
    world = kind(folder, redis_url)
    try:
        await world.open()
        yield world
    finally:
        await world.close()


__all__ = ["MANIFEST", "ReleaseWorld", "UnpinnedWorld", "release_world"]
