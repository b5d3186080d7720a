"""Argo CD's repo-server: which revision a branch has, and what a revision renders to, both from caches."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from bot.playground import repository as git
from bot.playground.argocd.application import SimulatedApplication, Switches, Timings
from bot.playground.argocd.manifests import Json, Key, RenderError, render
from bot.playground.argocd.timeline import Timeline

LOAD_FAILED = "Failed to load target state: failed to generate manifest for source 1 of 1: rpc error: code = Unknown desc = "
_Rendered = dict[Key, Json]


class RepoServer:
    """Resolves branches and renders manifests for every application."""

    def __init__(self, repository: Path, timeline: Timeline, timings: Timings, switches: Switches) -> None:
        self._switches = switches
        self._repository = repository
        self._timeline = timeline
        self._timings = timings
        self._heads: dict[str, tuple[datetime, str]] = {}
        self._tree = lru_cache(maxsize=64)(lambda revision: git.read_tree(repository, revision))
        self._rendered: dict[tuple[str, str], _Rendered] = {}
        self._last: dict[str, _Rendered] = {}
        self._stale: set[str] = set()

    def resolve(self, branch: str, *, forced: bool) -> str:
        """The revision of a branch; the answer of ls-remote is reused for a poll interval unless forced.

        Every fresh answer fills the cache, so that the refresh of one application serves the others.
        """
        known = self._heads.get(branch)
        if known is not None:
            read_at, revision = known
            if self._switches.deaf or (
                not forced and self._timeline.now - read_at < self._timings.poll_interval
            ):
                return revision
        found = git.head(self._repository, branch)
        if found is None:
            raise RenderError(f"unable to resolve '{branch}' to a commit SHA")
        self._heads[branch] = (self._timeline.now, found)
        return found

    def manifests(self, application: SimulatedApplication, revision: str) -> dict[Key, Json]:
        """The objects of an application at a revision, from the manifest cache if they were rendered before."""
        name = application.name
        cached = self._rendered.get((name, revision))
        if cached is not None:
            return cached
        last = self._last.get(name)
        if name in self._stale and last is not None:
            self._stale.discard(name)
            rendered = last
        else:
            rendered = self._render(application, revision)
        self._rendered[name, revision] = self._last[name] = rendered
        return rendered

    def drop_manifests(self, application: str) -> None:
        """Forget what was rendered for an application, as a hard refresh asks."""
        for known in [known for known in self._rendered if known[0] == application]:
            del self._rendered[known]

    def serve_stale(self, application: str) -> None:
        """Render the application's next revision from the files of the one before."""
        self._stale.add(application)

    def _render(self, application: SimulatedApplication, revision: str) -> _Rendered:
        try:
            files = self._tree(revision)
        except git.GitRefused as error:
            raise RenderError(f"failed to checkout revision {revision}: {error}") from error
        rendered = render(
            files,
            values_file=application.values_file,
            release=application.name,
            namespace=application.destination_namespace,
        )
        for (group, kind, namespace, name), manifest in rendered.items():
            tracking = f"{application.name}:{group}/{kind}:{namespace}/{name}"
            metadata = manifest["metadata"]
            metadata["annotations"] = metadata.get("annotations", {}) | {
                "argocd.argoproj.io/tracking-id": tracking
            }
        return rendered
