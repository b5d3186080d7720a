"""The ways of a version to an environment, each with what has to be there after a run."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bot.playground import release_repository as release
from bot.playground.repository import BRANCH, log, read_file
from bot.playground.workshop import Shape
from chaos.by_hand import set_version

APP = "release-app"
HELD = {"dev": "16", "stage": "15"}
"""What runs from the first moment where values are edited; prod runs 14, so that 15 can be promoted to it."""
WANTED = "15"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Values are edited, pushed or proposed, as somebody asked or CI delivered; or a branch is moved, or a tag made."""

    name: str
    asked: str = ""
    """What Dana types; empty where a build server delivers."""
    wanted: str = WANTED
    needs_approval: bool = True
    """Does Amy have to approve it?"""
    environment: str = "prod"

    @property
    def edits_values(self) -> bool:
        """Does a value come into the environment's values file?"""
        return self in (VALUES, HOOK, PULL)

    @property
    def shape(self) -> Shape:
        """What stands in the workshop."""
        return Shape() if self.edits_values else Shape(released=(APP,))

    def prepare(self, folder: Path, repository: Path) -> None:
        """Let the environment before run what is promoted, and the environment itself what was there."""
        if self.edits_values:
            for environment, version in HELD.items():
                set_version(repository, f"values-{environment}.yaml", version)
            return
        released = self.repository(folder, repository)
        revision = set_version(released, "values.yaml", WANTED)
        if self is TAG:
            _git(released, "update-ref", "refs/heads/release", revision)

    def repository(self, folder: Path, repository: Path) -> Path:
        """Where the version comes to the environment."""
        return repository if self.edits_values else release.create_release_repository(folder / APP, APP)

    def records(self, repository: Path, id: str) -> tuple[str, ...]:
        """The revision of everything that tells of a promotion: its commits on main, or the tags in their stead."""
        if self is not BRANCHED:
            commits = log(repository, limit=50)
            return tuple(each.revision for each in commits if ("Promotion-Id", id) in each.trailers)
        listed = _git(repository, "for-each-ref", "--format=%(*objectname) %(contents:body)%00", "refs/tags")
        return tuple(each.split()[0] for each in listed.split("\0") if f"Promotion-Id: {id}" in each)

    def holds(self, repository: Path) -> bool:
        """Does the environment's own place hold the version?"""
        if self.edits_values:
            return f'tag: "{self.wanted}"' in read_file(repository, f"values-{self.environment}.yaml")
        at = "release" if self is BRANCHED else f"v{WANTED}"
        is_there = f'tag: "{WANTED}"' in read_file(repository, "values.yaml", at)
        manifest = release.MANIFEST.format(app=APP)
        return is_there and (
            self is BRANCHED or f"targetRevision: v{WANTED} " in read_file(repository, manifest, BRANCH)
        )


VALUES = Lane(name="values", asked="manual-app prod because fixes INC-42")
PULL = Lane(name="pull", asked=VALUES.asked)
HOOK = Lane(name="hook", wanted="17", needs_approval=False, environment="dev")
BRANCHED = Lane(name="branch", asked=f"{APP} stage because fixes INC-42")
TAG = Lane(name="tag", asked=f"{APP} prod because fixes INC-42")


def _git(repository: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout
