"""What an Application follows, and which commit of our branch it means by its revisions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.core.catalog import Target
from bot.core.ranges import Range
from bot.integrations.argocd_objects import Application, Named, Source, SourceHydrator, Spec
from bot.integrations.argocd_text import said

_REVISION = re.compile(r"[0-9a-f]{40}")
_SCP_ADDRESS = re.compile(r"(?:[^@/\s]+@)?(?P<host>[^:/\s]+):(?P<path>(?!//).+)")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """How an Application follows the target."""

    tracks: str | None
    """What it follows where that is not our branch and path; None where it is right."""
    places: tuple[int, ...] | None = None
    """Where it has several sources: which of them are our branch."""
    dry: Mapping[str, str] | None = None
    """Where a source hydrator commits for it: whose rendering a hydrated commit is."""
    range: str = ""
    """The range whose highest tag it follows, where the target's tags are followed so."""

    def revision(self, named: Named) -> str | None:
        """The commit of our branch, 40 hex digits, or None.

        A branch name stands there where Argo CD could not resolve it. Sources that are our branch may differ while
        Argo CD looks: then it is none.
        """
        text = named.revision
        if self.places is not None:
            found = {named.revisions[place] for place in self.places if place < len(named.revisions)}
            text = found.pop() if len(found) == 1 else ""
        if not _REVISION.fullmatch(text):
            return None
        return text if self.dry is None else self.dry.get(text)


def tracking(found: Application, target: Target) -> Tracking:
    """How an Application follows the target."""
    spec = found.spec
    if spec.source_hydrator is not None:
        done = found.status.source_hydrator.last_successful_operation
        is_known = _REVISION.fullmatch(done.dry_sha) and _REVISION.fullmatch(done.hydrated_sha)
        source = _dry_source(spec.source_hydrator)
        return Tracking(
            tracks=_one(source, target),
            range=_range([source], target),
            dry={done.hydrated_sha: done.dry_sha} if is_known else {},
        )
    if spec.sources:
        return _several([Source.model_validate(source) for source in spec.sources], target)
    source = Source.model_validate(spec.source)
    return Tracking(tracks=_one(source, target), range=_range([source], target))


def compares_spec(found: Application) -> bool:
    """Was the last comparison made with the sources that the Application has now?"""
    spec, compared = found.spec, found.status.sync.compared_to
    if spec.source_hydrator is not None:
        done = found.status.source_hydrator.last_successful_operation.source_hydrator
        is_rendered = not done or _dense(done) == _dense(spec.source_hydrator)
        return is_rendered and _same(compared.source, _sync_source(spec.source_hydrator))
    if spec.sources:
        return _same(compared.sources, spec.sources)
    return _same(compared.source, spec.source)


def is_plain(spec: Spec) -> bool:
    """Has it one source, and is it synced from there as it is? Then a revision of that source can be named."""
    return spec.source_hydrator is None and not spec.sources


def repository_name(url: str) -> str:
    """One spelling for a repository's address, `github.com/acme/charts`: ssh and https, with and without `.git`.

    All in lower case, as Argo CD itself compares them.
    """
    text = url.strip().lower()
    if "://" not in text and (address := _SCP_ADDRESS.fullmatch(text)):
        text = f"ssh://{address['host']}/{address['path'].lstrip('/')}"
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{_DEFAULT_PORTS.get(parts.scheme, '')}")
    return (host + parts.path.rstrip("/")).removesuffix(".git")


def _one(source: Source, target: Target) -> str | None:
    """What a source is, where that is not the target's branch and file."""
    ours, theirs = repository_name(target.repository.url), repository_name(source.repo_url)
    if ours != theirs:
        return f"{said(theirs) or 'no repository'}, not {ours}"
    if not _is_followed(source, target):
        return f"{said(source.target_revision)}, not {_followed(target)}"
    if not _covers(source, target.path):
        return f"{said(_files(source))}, not {target.path}"
    return None


def _several(sources: Sequence[Source], target: Target) -> Tracking:
    """Those that are our branch name our commit; it is enough that one of all of them renders the target's file."""
    name = repository_name(target.repository.url)
    ours = [repository_name(each.repo_url) == name and _is_followed(each, target) for each in sources]
    places = tuple(place for place, is_ours in enumerate(ours) if is_ours)
    if not places:
        followed = (
            f"{repository_name(each.repo_url)} at {each.target_revision or 'HEAD'}" for each in sources
        )
        says = f"{said(' and '.join(followed))}, not {_followed(target)} of {name}"
        return Tracking(tracks=says, places=places)
    refs = {each.ref: is_ours for each, is_ours in zip(sources, ours, strict=True) if each.ref}
    if any(_refers(each, target.path, refs) for each in sources) or any(
        _renders(sources[place]) and _covers(sources[place], target.path, refs) for place in places
    ):
        return Tracking(
            tracks=None, places=places, range=_range([sources[place] for place in places], target)
        )
    files = " and ".join(_files(each) for each in sources if _renders(each))
    return Tracking(tracks=f"{said(files) or 'no manifests'}, not {target.path}", places=places)


def _is_followed(source: Source, target: Target) -> bool:
    """Does it follow our branch, or the tags that we make?"""
    release, branch = target.release, target.repository.branch
    if release and release.tag:
        tag = source.target_revision.removeprefix("refs/tags/")
        return release.version_of(tag) is not None if release.pin else Range.parse(tag) is not None
    return source.target_revision in (branch, f"refs/heads/{branch}", "HEAD", "")


def _range(sources: Sequence[Source], target: Target) -> str:
    """The range that the first of these follows, where the target's tags are followed so."""
    release = target.release
    is_by_range = release and release.tag and release.pin is None
    return sources[0].target_revision.removeprefix("refs/tags/") if is_by_range else ""


def _followed(target: Target) -> str:
    release = target.release
    if release and release.tag:
        what = "a tag like" if release.pin else "a range with"
        return f"{what} {release.tag_of('15')}"
    return f"the branch {target.repository.branch}"


def _renders(source: Source) -> bool:
    """Does it render manifests? One with nothing but a `ref` lends its files to the others."""
    return bool(source.path or source.chart or not source.ref)


def _refers(source: Source, path: str, refs: Mapping[str, bool]) -> bool:
    """Does it read this file by the name that another source gave to our repository?"""
    for file in source.helm.value_files:
        ref, _, rest = file.partition("/")
        if refs.get(ref.removeprefix("$")) and ref.startswith("$") and _matches(rest, path):
            return True
    return False


def _matches(file: str, path: str) -> bool:
    """Is it this file? One with a variable or a pattern in its name may be any."""
    return any(sign in file for sign in "$*") or posixpath.normpath(file) == posixpath.normpath(path)


def _files(source: Source) -> str:
    """Which files a source renders, for people."""
    files = f"{', '.join(source.helm.value_files)} of " if source.helm.value_files else ""
    if source.chart:
        return f"{files}the chart {source.chart}"
    return files + (f"the folder {source.path}" if source.path.strip("./") else "the repository")


def _covers(source: Source, path: str, refs: Mapping[str, bool] | None = None) -> bool:
    """Does the source render this file of its own repository?

    With a list of value files, helm reads those, the chart's own values and its subcharts. One with a variable or
    a pattern in its name may be any file; one that begins with the name of another source is of that one.
    """
    root = posixpath.normpath(source.path.strip("/") or ".")
    if not source.helm.value_files:
        return root == "." or path.startswith(f"{root}/")
    own_files = [file for file in source.helm.value_files if not _is_lent(file, refs or {})]
    if any(sign in file for file in own_files for sign in "$*"):
        return True
    resolved = {posixpath.normpath(posixpath.join("/", root, file)) for file in own_files}
    own = posixpath.normpath(posixpath.join("/", root, "values.yaml"))
    subcharts = posixpath.normpath(posixpath.join("/", root, "charts"))
    absolute = posixpath.normpath(f"/{path}")
    return absolute in resolved or absolute == own or absolute.startswith(f"{subcharts}/")


def _is_lent(file: str, refs: Mapping[str, bool]) -> bool:
    return file.startswith("$") and file.partition("/")[0].removeprefix("$") in refs


def _dry_source(hydrator: Mapping[str, object]) -> Source:
    return Source.model_validate(SourceHydrator.model_validate(hydrator).dry_source)


def _sync_source(hydrator: Mapping[str, object]) -> dict[str, object]:
    """The source that Argo CD makes of a hydrator: the branch with what was rendered."""
    sync = SourceHydrator.model_validate(hydrator).sync_source
    repository = sync.repo_url or _dry_source(hydrator).repo_url
    return {"repoURL": repository, "targetRevision": sync.target_branch, "path": sync.path}


def _same(compared: object, wanted: object) -> bool:
    """Are they equal, where an empty part is as good as an absent one?"""
    return bool(compared) and _dense(compared) == _dense(wanted)


def _dense(value: object) -> object:
    if isinstance(value, dict):
        parts = ((name, _dense(part)) for name, part in value.items())
        return {name: part for name, part in parts if part not in (None, "", [], {})}
    if isinstance(value, list | tuple):
        return [_dense(part) for part in value]
    return value
