"""What others have changed in the places that a target renders from."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from bot.core.catalog import Target
from bot.core.dossier import MOST, Commit, Commits
from bot.core.errors import Failed
from bot.integrations.mirror import Mirror, Touched
from bot.integrations.target_file import TargetFile
from bot.integrations.values import ValuesFile

MOST_PLACES = 1000
"""How many places are looked through at most for what they name."""
_NAMING = ("kustomization.yaml", "kustomization.yml", "Kustomization", "Chart.yaml")
"""The files of a folder that may name others outside of it."""


class History:
    """The commits of a branch to a target's places, without the promotions that the bot made.

    `places` are files and folders, `""` is everything, with what kustomize and helm read outside of them; the files
    `without` do not count. `committer` is the bot; None: whoever merges what it proposes.
    """

    def __init__(
        self,
        mirror: Mirror,
        target: Target,
        places: Collection[str],
        *,
        without: Collection[str],
        committer: tuple[str, str] | None,
    ) -> None:
        self._mirror = mirror
        self._target = target
        self._places = places
        self._without = without
        self._committer = committer

    def since(self, revision: str) -> Commits:
        """The commits that a revision lacks; unknown where the branch does not hold it, as far as the copy knows."""
        where = f"the branch {self._target.repository.branch}"
        if not self._mirror.knows(revision):
            return Commits(unknown=f"{revision[:8]} is not on {where}")
        try:
            found = self._touching((revision, self._mirror.tip), f"{revision}...{self._mirror.tip}")
        except Failed as error:
            return Commits(unknown=str(error))
        if any(each.is_left_behind for each in found):
            return Commits(unknown=f"{where} does not hold all of {revision[:8]} any more")
        return self._by_others(found)

    def between(self, old: str, new: str) -> Commits:
        """The commits that `new` has and `old` lacks; those that only `old` has do not count."""
        try:
            return self._by_others(self._touching((old, new), f"{old}..{new}"))
        except Failed as error:
            return Commits(unknown=str(error))

    def after(self, moment: datetime) -> Commits:
        """The commits from a moment on, as their committers' clocks say."""
        tip = self._mirror.tip
        return self._by_others(self._touching((tip,), f"--since={int(moment.timestamp())}", tip))

    def _touching(self, revisions: Iterable[str], *span: str) -> list[Touched]:
        """One more than counts, so that it is known whether there are more."""
        places = {place for revision in revisions for place in reached(self._mirror, revision, self._places)}
        return self._mirror.touching(*span, places=sorted(places), without=self._without, limit=MOST + 1)

    def _by_others(self, found: list[Touched]) -> Commits:
        newest = tuple(_commit(each) for each in found[:MOST] if not self._is_promotion(each))
        return Commits(count=len(newest) + len(found[MOST:]), newest=newest)

    def _is_promotion(self, found: Touched) -> bool:
        """Did the bot write it, and nothing but a version of this target?

        Anybody can write a commit with the bot's name, so what it changes is compared.
        """
        logged, target = found.logged, self._target
        trailers = dict(reversed(logged.trailers))
        if self._committer not in (None, logged.committer) or "Promotion-Id" not in trailers:
            return False
        if (trailers.get("App"), trailers.get("Environment")) != (target.app, target.environment):
            return False
        parent = self._mirror.parent_if_only(logged.revision, target.path)
        with contextlib.suppress(Failed):
            return parent is not None and self._only_promotes(parent, logged.revision)
        return False

    def _only_promotes(self, parent: str, revision: str) -> bool:
        """Is the file what the one before it becomes with the version that it holds now?"""
        target = self._target
        before, after = (self._mirror.blob(each, target.path) for each in (parent, revision))
        return TargetFile(before, target).holding(TargetFile(after, target).image()) == after


def reached(mirror: Mirror, revision: str, places: Iterable[str]) -> set[str]:
    """The places, and those that their kustomizations and charts name, and so on.

    Raises `Failed` where one of those files cannot be read, or where they name too many.
    """
    found: set[str] = set()
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        if len(found) > MOST_PLACES:
            raise Failed(f"More than {MOST_PLACES} places are named by one another in {place}.")
        waiting += _named_in(mirror, revision, place)
    return found


def _named_in(mirror: Mirror, revision: str, folder: str) -> Iterator[str]:
    """Whatever a kustomization or a chart says that is the name of something else in the repository."""
    for file in (posixpath.join(folder, name) for name in _NAMING):
        if not mirror.holds(revision, file):
            continue
        for words in ValuesFile(mirror.blob(revision, file), file).leaves().values():
            place = posixpath.normpath(posixpath.join(folder, words.removeprefix("file://")))
            is_inside = not place.startswith(("..", "/")) and place != "."
            if is_inside and "\0" not in place and mirror.holds(revision, place):
                yield place


def _commit(found: Touched) -> Commit:
    return Commit(
        revision=found.logged.revision,
        subject=found.subject,
        author=found.author,
        email=found.email,
        at=found.logged.at,
    )
