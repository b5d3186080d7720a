"""What a target's applications render from besides the promoted value: who changed it, and how two targets differ."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from bot.core.catalog import Application, Catalog, Target
from bot.core.dossier import MOST, Commit, Commits
from bot.core.errors import Failed
from bot.core.together import together
from bot.integrations.argocd import ArgoCD
from bot.integrations.argocd_rendering import Rendering, override_of
from bot.integrations.gitops import GitRepository

_STEP = re.compile(r'\["(?P<quoted>[^"]*)"\]|\[(?P<entry>[^\]]*)\]|(?P<key>[^.\[\]]+)')
_EVER = datetime.min.replace(tzinfo=UTC)


class Watching:
    """Implements the port `Watched`, from Argo CD and the repositories.

    An application is asked once, and git's history once for each revision that the applications run.
    """

    def __init__(self, *, argocd: ArgoCD, gitops: GitRepository, catalog: Catalog) -> None:
        self._argocd = argocd
        self._gitops = gitops
        self._catalog = catalog

    async def commits(self, target: Target) -> tuple[Commits, bool]:
        """The commits to it since the revision that the target runs, and whether Argo CD waits for somebody to sync.

        `unknown` says why nobody can tell. Raises `Unavailable`.
        """
        renderings = await self._renderings(target)
        waits_for_sync = not all(rendering.syncs_by_itself for rendering in renderings)
        if reasons := [rendering.unknown for rendering in renderings if rendering.unknown]:
            return Commits(unknown="; ".join(dict.fromkeys(reasons))), waits_for_sync
        running = {rendering.revision for rendering in renderings if rendering.revision}
        found = await together(
            *(
                self._commits(target, [each for each in renderings if each.revision == revision], revision)
                for revision in sorted(running)
            )
        )
        return self._with_users(joined(found)), waits_for_sync

    async def parameters(self, target: Target) -> str:
        """A hash of what stands in the Applications themselves and is rendered too. Raises `Unavailable`."""
        inline = [rendering.inline for rendering in await self._renderings(target)]
        return hashlib.sha256(repr(inline).encode()).hexdigest()[:32] if any(inline) else ""

    async def differences(self, target: Target, source: Target) -> tuple[str, ...]:
        """The keys in which their values files differ although nobody expects it. Raises `Unavailable`, `Failed`."""
        ours, theirs = await together(self._gitops.document(target), self._gitops.document(source))
        differing = (key for key in dict.fromkeys((*ours, *theirs)) if ours.get(key) != theirs.get(key))
        return tuple(key for key in differing if not is_expected(key, target.expected_differences))

    async def pushes_by_others(self, target: Target, *, after: datetime) -> str:
        """A sentence that warns, where what others push to the branch goes live without an approval; else empty.

        So it is where people approve, Argo CD syncs by itself, and others have pushed since `after` to what the
        target renders from. Raises `Unavailable`.
        """
        is_tagged = target.release is not None and bool(target.release.tag)
        if not target.policy.needs_approval or is_tagged:  # a tag stays where it is, whatever is pushed
            return ""
        renderings = [each for each in await self._renderings(target) if each.syncs_by_itself]
        places = _places(renderings)
        if not places:
            return ""
        found = await self._gitops.commits_after(
            target, places, after, without=self._of_others(target, renderings)
        )
        if not found.newest:
            return found.unknown
        newest, branch = found.newest[0], target.repository.branch
        return (
            f"others push to {branch} what {target.name} renders from, {newest.revision[:8]} by {newest.author} for "
            "one, and Argo CD syncs it by itself: it goes live without an approval. Turn automated sync off there, "
            f"or let nobody else push to {branch} without a review"
        )

    async def _renderings(self, target: Target) -> tuple[Rendering, ...]:
        return await together(*(self._rendering(target, each) for each in target.applications))

    async def _rendering(self, target: Target, application: Application) -> Rendering:
        """What cannot be read is unknown, and nobody may rely on its being synced."""
        try:
            return await self._argocd.rendering(target, application)
        except Failed as error:
            return Rendering(unknown=str(error))

    async def _commits(self, target: Target, renderings: Sequence[Rendering], revision: str) -> Commits:
        places, without = _places(renderings), self._of_others(target, renderings)
        return await self._gitops.commits_to(target, places, revision, without=without)

    def _of_others(self, target: Target, renderings: Sequence[Rendering]) -> frozenset[str]:
        """What lies beside ours and is for other targets: their values files, and overrides of their applications."""
        others = [
            each
            for each in self._catalog.targets
            if each.repository == target.repository and each.name != target.name
        ]
        folders = {folder for each in renderings for folder in (*each.folders, *each.charts)}
        overrides = [
            override for other in others for each in other.applications for override in _overrides(each)
        ]
        files = {other.path for other in others} | {
            posixpath.join(folder, override) for folder in folders for override in overrides
        }
        return frozenset(file for file in files if not any(each.reads(file) for each in renderings))

    def _with_users(self, commits: Commits) -> Commits:
        known = self._catalog.identities
        newest = tuple(replace(each, user=known.get(each.email.lower())) for each in commits.newest)
        return replace(commits, newest=newest)


def joined(found: Sequence[Commits]) -> Commits:
    """The commits of several histories of one branch, each once, newest first; unknown where one of them is."""
    if len(found) == 1:
        return found[0]
    if reasons := [each.unknown for each in found if each.unknown]:
        return Commits(unknown="; ".join(dict.fromkeys(reasons)))
    commits = {commit.revision: commit for each in found for commit in each.newest}
    newest = sorted(commits.values(), key=_committed_at, reverse=True)
    unseen = max((each.count - len(each.newest) for each in found), default=0)
    return Commits(count=len(newest) + unseen, newest=tuple(newest[:MOST]))


def is_expected(key: str, expected: Iterable[str]) -> bool:
    """Is this key, or one above it, among the expected? A `*` there stands for any one step of the path."""
    steps = list(_steps(key))
    return any(_leads_to(list(_steps(each)), steps) for each in expected)


def _leads_to(pattern: Sequence[str], steps: Sequence[str]) -> bool:
    # A pattern without a step would be the whole file.
    if not pattern or len(pattern) > len(steps):
        return False
    return all(wanted in ("*", step) for wanted, step in zip(pattern, steps, strict=False))


def _steps(key: str) -> Iterator[str]:
    """`hosts`, `0` and `name` of `hosts[0].name`; a key in quotes is one step, whatever is in it."""
    for step in _STEP.finditer(key):
        yield next(part for part in step.groups() if part is not None)


def _places(renderings: Iterable[Rendering]) -> frozenset[str]:
    return frozenset(place for rendering in renderings for place in rendering.places)


def _overrides(application: Application) -> tuple[str, str]:
    """Argo CD puts the namespace before the name of an application outside of its own."""
    return override_of(application.name), override_of(f"{application.namespace}_{application.name}")


def _committed_at(commit: Commit) -> datetime:
    return commit.at or _EVER
