"""Argo CD's repo-server: which revision a branch has, and what a revision renders to, both from caches."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bot.playground import repository as git
from bot.playground.argocd.manifests import Json, Key, RenderError, documents, keyed, render
from bot.playground.argocd.specs import (
    Revisions,
    SimulatedApplication,
    SimulatedSource,
    Switches,
    Timings,
)
from bot.playground.argocd.timeline import Timeline

MANIFEST = "manifest.yaml"
"""The file of rendered manifests on a hydrated branch."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_Rendered = dict[Key, Json]


class RepoServer:
    """Resolves branches and renders manifests for every application."""

    def __init__(self, repository: Path, timeline: Timeline, timings: Timings, switches: Switches) -> None:
        self._switches = switches
        self._repository = repository
        self._timeline = timeline
        self._timings = timings
        self._heads: dict[tuple[Path, str], tuple[datetime, str]] = {}
        self._tree = lru_cache(maxsize=64)(git.read_tree)
        self._rendered: dict[tuple[str, Revisions], _Rendered] = {}
        self._last: dict[str, _Rendered] = {}
        self._stale: set[str] = set()

    def resolve(self, source: SimulatedSource, *, forced: bool) -> str:
        """The revision of a source; the answer of ls-remote is reused for a poll interval unless forced.

        Every fresh answer fills the cache, so that the refresh of one application serves the others. Raises
        RenderError for a branch that is not there.
        """
        if _COMMIT.fullmatch(source.branch):
            return source.branch
        repository = source.repository or self._repository
        known = self._heads.get((repository, source.branch))
        if known is not None:
            read_at, revision = known
            if self._switches.deaf or (
                not forced and self._timeline.now - read_at < self._timings.poll_interval
            ):
                return revision
        name = source.branch.removeprefix("refs/heads/")
        found = git.resolve(repository, git.BRANCH if name in {"", "HEAD"} else name)
        if found is None:
            raise RenderError(f"unable to resolve '{source.branch}' to a commit SHA")
        self._heads[repository, source.branch] = (self._timeline.now, found)
        return found

    def resolve_all(self, application: SimulatedApplication, *, forced: bool) -> Revisions:
        """The revision of each source of an application."""
        return tuple(self.resolve(source, forced=forced) for source in application.all_sources)

    def manifests(self, application: SimulatedApplication, revisions: Revisions) -> _Rendered:
        """The objects of an application at its revisions, from the manifest cache if they were rendered before."""
        name = application.instance
        cached = self._rendered.get((name, revisions))
        if cached is not None:
            return cached
        last = self._last.get(name)
        if name in self._stale and last is not None:
            self._stale.discard(name)
            rendered = last
        else:
            rendered = _tracked(application, self._load(application, revisions))
        self._rendered[name, revisions] = self._last[name] = rendered
        return rendered

    def render_dry(self, application: SimulatedApplication, revision: str) -> _Rendered:
        """What the chart renders to at a revision, for a branch that is to hold it."""
        source = application.dry_source
        return self._render(application, source, self._files(source, revision), {})

    def drop_manifests(self, application: str) -> None:
        """Forget what was rendered for an application, as a hard refresh asks."""
        for known in [known for known in self._rendered if known[0] == application]:
            del self._rendered[known]

    def serve_stale(self, application: str) -> None:
        """Render the application's next revision from the files of the one before."""
        self._stale.add(application)

    def _load(self, application: SimulatedApplication, revisions: Revisions) -> _Rendered:
        sources = application.all_sources
        files = [self._files(source, revision) for source, revision in zip(sources, revisions, strict=True)]
        if application.hydration is not None:
            return _plain(application, sources[0], files[0])
        by_ref = {source.ref: found for source, found in zip(sources, files, strict=True) if source.ref}
        rendered: _Rendered = {}
        for source, found in zip(sources, files, strict=True):
            if not source.ref:
                rendered |= self._render(application, source, found, by_ref)
        return rendered

    def _files(self, source: SimulatedSource, revision: str) -> dict[str, str]:
        try:
            return self._tree(source.repository or self._repository, revision)
        except git.GitRefused as error:
            raise RenderError(f"failed to checkout revision {revision}: {error}") from error

    @staticmethod
    def _render(
        application: SimulatedApplication,
        source: SimulatedSource,
        files: Mapping[str, str],
        by_ref: Mapping[str, Mapping[str, str]],
    ) -> _Rendered:
        for name in source.value_files:
            ref, _, path = name.removeprefix("$").partition("/")
            if name.startswith("$") and path in by_ref.get(ref, {}):
                files = {**files, name: by_ref[ref][path]}
        return render(
            files,
            values_files=source.value_files,
            release=application.name,
            namespace=application.destination_namespace,
        )


def _plain(application: SimulatedApplication, source: SimulatedSource, files: Mapping[str, str]) -> _Rendered:
    """The objects of a folder of plain manifests."""
    path = str(PurePosixPath(source.path) / MANIFEST)
    if path not in files:
        raise RenderError(f"{source.path}: app path does not exist")
    return keyed(documents(files[path], path), path, namespace=application.destination_namespace)


def _tracked(application: SimulatedApplication, rendered: _Rendered) -> _Rendered:
    """The objects with the annotation by which Argo CD knows its own."""
    for (group, kind, namespace, name), manifest in rendered.items():
        tracking = f"{application.instance}:{group}/{kind}:{namespace}/{name}"
        metadata = manifest["metadata"]
        metadata["annotations"] = metadata.get("annotations", {}) | {
            "argocd.argoproj.io/tracking-id": tracking
        }
    return rendered


def load_failed(application: SimulatedApplication, problem: object) -> str:
    """What a comparison or a sync says when there is no target state."""
    count = len(application.all_sources)
    source = f"failed to generate manifest for source 1 of {count}: rpc error: code = Unknown desc = "
    return f"Failed to load target state: {source}{problem}"
