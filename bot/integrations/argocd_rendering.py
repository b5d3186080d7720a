"""What an Application renders from: places of the target's repository, and what stands in the Application itself."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pydantic import Field

from bot.core.catalog import Target
from bot.integrations.argocd_objects import Application, Helm, Object, Source, SourceHydrator, Spec
from bot.integrations.argocd_text import said
from bot.integrations.argocd_tracking import Tracking, compares_spec, repository_name, tracking

GENERATED_FROM = "argocd.argoproj.io/manifest-generate-paths"
"""The annotation by which people tell Argo CD what an Application is generated from."""

_FIXED = re.compile(r"[0-9a-f]{40}|v?\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?")
"""A commit or a version by its whole name: nothing new comes from there."""
_PLACED = frozenset({"repoURL", "targetRevision", "path", "chart", "ref", "name"})
"""What says where a source is, and not how it is rendered."""
_OF_CHARTS = ("charts", "crds", "templates")
_SIGNS = frozenset("$*?[{")
"""In the name of a file they stand for a variable or a pattern: it may be any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """All that an Application renders from the target's repository. Paths begin at its top; `""` is the top itself."""

    revision: str | None = None
    """The commit of the target's branch whose rendering runs now, 40 hex digits."""
    folders: tuple[str, ...] = ()
    """Every file in them may be rendered."""
    charts: tuple[str, ...] = ()
    """Folders too, of which helm reads those values files alone that it is told to."""
    files: tuple[str, ...] = ()
    """Values files, overrides and the like; not each of them has to exist."""
    inline: str = ""
    """Parameters, values, images and the like in the Application itself: equal texts, equal contents. Not for people."""
    syncs_by_itself: bool = False
    unknown: str = ""
    """Why nobody can tell what it renders, or since when; empty where it is known."""

    @property
    def places(self) -> tuple[str, ...]:
        """All of it, each place once."""
        return _once((*self.folders, *self.charts, *self.files))

    def reads(self, file: str) -> bool:
        """Is this file rendered, rather than lying beside what is?"""
        inside = [posixpath.join(chart, part) for chart in self.charts for part in _OF_CHARTS]
        return file in self.files or any(_is_in(file, folder) for folder in (*self.folders, *inside))


class _FileParameter(Object):
    path: str = ""


class _Helm(Helm):
    file_parameters: tuple[_FileParameter, ...] = ()


class _Kustomize(Object):
    components: tuple[str, ...] = ()


class _Jsonnet(Object):
    libs: tuple[str, ...] = ()


class _Directory(Object):
    jsonnet: _Jsonnet = _Jsonnet()


class _Source(Source):
    helm: _Helm = _Helm()
    kustomize: _Kustomize = _Kustomize()
    directory: _Directory = _Directory()
    plugin: dict[str, Any] | None = None

    @property
    def lends_only(self) -> bool:
        """Does it render nothing, and is there for its files?"""
        return bool(self.ref) and not (self.path or self.chart)

    @property
    def is_chart(self) -> bool:
        """Does helm render it, with the values files that are named?"""
        return bool(self.helm.value_files) and self.plugin is None

    @property
    def named(self) -> Iterator[str]:
        """The files that it names, as they are written."""
        yield from self.helm.value_files
        yield from (each.path for each in self.helm.file_parameters)

    def resolved(self, path: str) -> str:
        """A path that is relative to its folder, or begins at the top with `/`, as one of the repository."""
        return posixpath.normpath(posixpath.join("/", self.path, path)).strip("/")


class _Metadata(Object):
    annotations: dict[str, str] = Field(default_factory=dict)


class _Annotated(Object):
    metadata: _Metadata


def read_rendering(answer: object, target: Target) -> Rendering:
    """What an Application object renders from; raises `pydantic.ValidationError` where it is none."""
    found = Application.model_validate(answer)
    follows = tracking(found, target)
    raw = _raw_sources(found.spec)
    sources = [_Source.model_validate(source) for source in raw]
    ours = [each for place, each in enumerate(sources) if follows.places is None or place in follows.places]
    rendered = [source for source in ours if not source.lends_only]
    annotation = _Annotated.model_validate(answer).metadata.annotations.get(GENERATED_FROM, "")
    named = [*_files(rendered, sources, overrides=_overrides(found)), *_lent(ours, sources)]
    revision = _running(found, follows)
    return Rendering(
        revision=revision,
        folders=_once(
            (*_folders(rendered, annotation), *(_known(each) for each in named if _may_be_any(each)))
        ),
        charts=_once(source.resolved("") for source in rendered if source.is_chart),
        files=_once(each for each in named if not _may_be_any(each)),
        inline=_inline(raw),
        syncs_by_itself=found.spec.automated is not None,
        unknown=_unknown(found, follows, revision, sources, ours),
    )


def override_of(application: str) -> str:
    """The file beside the manifests that overrides parameters for one Application alone."""
    return f".argocd-source-{application}.yaml"


def _overrides(found: Application) -> tuple[str, ...]:
    metadata = found.metadata
    # Argo CD calls it so where it lives in a namespace of its own.
    names = (metadata.name, f"{metadata.namespace}_{metadata.name}")
    return (".argocd-source.yaml", *map(override_of, names))


def _raw_sources(spec: Spec) -> Sequence[dict[str, Any]]:
    if spec.source_hydrator is not None:
        return (SourceHydrator.model_validate(spec.source_hydrator).dry_source,)
    return spec.sources or (spec.source,)


def _running(found: Application, follows: Tracking) -> str | None:
    """What was compared, where nothing differs from it; else what was synced last."""
    status = found.status
    if status.sync.status == "Synced" and compares_spec(found):
        return follows.revision(status.sync)
    return follows.revision(status.history[-1]) if status.history else None


def _folders(rendered: Sequence[_Source], annotation: str) -> Iterator[str]:
    """What is rendered whole, or may be."""
    generated_from = [path.strip() for path in annotation.split(";") if path.strip()]
    for source in rendered:
        if not source.is_chart:
            yield source.resolved("")
        if source.plugin is not None:
            yield ""  # a plugin may read whatever there is
        for path in (*source.kustomize.components, *generated_from):
            yield _known(source.resolved(path))
        for library in source.directory.jsonnet.libs:
            yield _known(source.resolved(f"/{library}"))


def _files(
    rendered: Sequence[_Source], sources: Sequence[_Source], overrides: Sequence[str]
) -> Iterator[str]:
    """The files of each source's own repository; some of them are read although nobody names them."""
    refs = _refs(sources)
    for source in rendered:
        named = [
            each for each in source.named if each.partition("/")[0] not in refs and not _is_fetched(each)
        ]
        own_values = ["values.yaml"] if source.is_chart else []
        yield from map(source.resolved, (*overrides, *own_values, *named))


def _lent(ours: Iterable[_Source], sources: Iterable[_Source]) -> Iterator[str]:
    """The files that are read from one of ours by the name that it has, as in `$values/prod.yaml`."""
    refs = _refs(ours)
    for file in (file for source in sources for file in source.named):
        ref, _, rest = file.partition("/")
        if ref in refs:
            yield posixpath.normpath(f"/{rest}").strip("/")


def _refs(sources: Iterable[_Source]) -> set[str]:
    return {f"${source.ref}" for source in sources if source.ref}


def _unknown(
    found: Application,
    follows: Tracking,
    revision: str | None,
    sources: Sequence[_Source],
    ours: Sequence[_Source],
) -> str:
    name = found.metadata.name
    if follows.tracks:
        return f"{name} tracks {follows.tracks}"
    moving = [
        _called(each) for each in sources if each not in ours and not _FIXED.fullmatch(each.target_revision)
    ]
    moving += [file for source in sources for file in source.named if _is_fetched(file)]
    if moving:
        return f"{name} also renders from {said(' and '.join(moving))}, which I do not read"
    return "" if revision else f"{name} does not say which commit runs"


def _called(source: _Source) -> str:
    return f"{repository_name(source.repo_url)} at {source.target_revision or 'HEAD'}"


def _inline(sources: Iterable[Mapping[str, Any]]) -> str:
    """How each source is rendered, but for the names of its files; empty where nothing is said."""
    said_of_each = [_without_places(source) for source in sources]
    return json.dumps(said_of_each, sort_keys=True) if any(said_of_each) else ""


def _without_places(source: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: part for name, part in source.items() if name not in _PLACED}
    if isinstance(helm := kept.get("helm"), dict):
        kept["helm"] = {name: part for name, part in helm.items() if name != "valueFiles"}
    return {name: part for name, part in kept.items() if part}


def _is_fetched(file: str) -> bool:
    return "://" in file


def _may_be_any(file: str) -> bool:
    return bool(_SIGNS.intersection(file))


def _known(path: str) -> str:
    """The folders before the first part that may be any."""
    return "/".join(takewhile(lambda part: not _may_be_any(part), path.split("/")))


def _is_in(file: str, folder: str) -> bool:
    return not folder or file == folder or file.startswith(f"{folder}/")


def _once(places: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(places))
