"""Renders the sample chart: the few Helm expressions it uses, with Helm's way of failing.

Argo CD renders with the real `helm`; the playground must run where none is installed. Known are `.Values`, `.Release`
and `.Chart` paths, `if … end`, and the pipeline functions `quote`, `default`, `toYaml` and `nindent`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Json: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, str, str]
"""Group, kind, namespace and name: how Argo CD knows one object of an application."""

_TOKEN = re.compile(r"(?:(?P<left>\s*)\{\{-|\{\{)\s*(?P<action>.*?)\s*(?:-\}\}\s*|\}\})", re.DOTALL)
_APPLY_ORDER = {
    kind: place
    for place, kind in enumerate(
        ("Namespace", "ConfigMap", "Service", "DaemonSet", "Deployment", "StatefulSet", "Job", "Ingress")
    )
}


class RenderError(Exception):
    """The chart cannot be rendered; the text is what helm would have said."""


def render(
    files: Mapping[str, str], *, values_files: Sequence[str], release: str, namespace: str
) -> dict[Key, Json]:
    """The objects that a chart's files make with values files, in the order in which Argo CD applies them.

    Raises RenderError for a file that is missing or is no YAML, and for a value that the templates miss.
    """
    values = _yaml(files, "values.yaml")
    for name in values_files:
        values = _merged(values, _yaml(files, name))
    scope = {
        "Values": values,
        "Chart": {"Name": _yaml(files, "Chart.yaml").get("name", release)},
        "Release": {"Name": release, "Namespace": namespace},
    }
    objects: dict[Key, Json] = {}
    for path in sorted(name for name in files if re.fullmatch(r"templates/[^_].*\.ya?ml", name)):
        text = _Template(path, files[path], scope).text()
        objects |= keyed(documents(text, path), path, namespace=namespace)
    return dict(sorted(objects.items(), key=lambda item: (_APPLY_ORDER.get(item[0][1], 99), item[0])))


def keyed(manifests: Iterable[Json], path: str, *, namespace: str) -> dict[Key, Json]:
    """Manifests by their keys, with a namespace for those that name none."""
    objects: dict[Key, Json] = {}
    for manifest in manifests:
        if not {"apiVersion", "kind"} <= manifest.keys() or "name" not in manifest.get("metadata", {}):
            raise RenderError(f"manual-app/{path}: an object needs apiVersion, kind and metadata.name")
        manifest["metadata"].setdefault("namespace", namespace)
        objects[key_of(manifest)] = manifest
    return objects


def documents(text: str, path: str) -> list[Json]:
    """The YAML documents of a file; raises RenderError for a text that is no YAML."""
    try:
        return [document for document in YAML(typ="safe").load_all(text) if document]
    except YAMLError as error:
        raise RenderError(
            f"YAML parse error on manual-app/{path}: error converting YAML to JSON: {_reason(error)}"
        ) from error


def key_of(manifest: Json) -> Key:
    """The key of one object."""
    group, _, _ = manifest["apiVersion"].rpartition("/")
    return group, manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def images_of(manifest: Json) -> list[str]:
    """The container images of a workload, as written; none for other kinds."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [
        container["image"] for name in ("initContainers", "containers") for container in pod.get(name, [])
    ]


def _yaml(files: Mapping[str, str], path: str) -> Json:
    if path not in files:
        raise RenderError(f"open <path to cached source>/{path}: no such file or directory")
    try:
        loaded = YAML(typ="safe").load(files[path])
    except YAMLError as error:
        raise RenderError(
            f"failed to parse <path to cached source>/{path}: error converting YAML to JSON: {_reason(error)}"
        ) from error
    if not isinstance(loaded, dict):
        raise RenderError(
            f"failed to parse <path to cached source>/{path}: cannot unmarshal into map[string]interface {{}}"
        )
    return loaded


def _reason(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"yaml: line {error.problem_mark.line + 1}: {error.problem}"
    return f"yaml: {error}"


def _merged(base: Json, over: Json) -> Json:
    result = dict(base)
    for name, value in over.items():
        below = result.get(name)
        result[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


class _Template:
    """One template file on its way to text."""

    def __init__(self, path: str, source: str, scope: Mapping[str, Any]) -> None:
        self._path = path
        self._source = source
        self._scope = scope

    def text(self) -> str:
        out: list[str] = []
        shown = [True]
        at = 0
        for match in _TOKEN.finditer(self._source):
            if shown[-1]:
                out.append(self._source[at : match.start()])
            at = match.end()
            action = match["action"]
            if action.startswith("/*"):
                continue
            if action == "end":
                shown.pop()
            elif action.startswith("if "):
                shown.append(shown[-1] and bool(self._value(action[3:])))
            elif shown[-1]:
                out.append(self._pipeline(action))
        return "".join(out) + self._source[at:] if shown[-1] else "".join(out)

    def _pipeline(self, action: str) -> str:
        first, *filters = (part.strip() for part in action.split("|"))
        as_yaml = first.startswith("toYaml ")
        value = self._value(first.removeprefix("toYaml "))
        text = _to_yaml(value) if as_yaml else None
        for name, _, argument in (part.partition(" ") for part in filters):
            if name == "nindent":
                text = "\n" + "\n".join(" " * int(argument) + line for line in (text or "").splitlines())
            elif name == "quote":
                text = json.dumps(_printed(value))
            elif name == "default":
                value = value or json.loads(argument)
            else:
                raise RenderError(f'parse error at (manual-app/{self._path}): function "{name}" not defined')
        return _printed(value) if text is None else text

    def _value(self, path: str) -> Any:
        value: Any = self._scope
        names = path.strip().removeprefix(".").split(".")
        for name in names:
            if not isinstance(value, Mapping):
                raise RenderError(
                    f"template: manual-app/{self._path}: executing <{path}>: nil pointer evaluating interface {{}}.{name}"
                )
            value = value.get(name)
        return value


def _printed(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _to_yaml(value: Any) -> str:
    stream = StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(value, stream)
    return stream.getvalue().rstrip("\n")
