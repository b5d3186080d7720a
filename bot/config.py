"""`promote.yaml`, checked strictly and turned into the core's catalog."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.config_models import (
    ApplicationModel,
    AppModel,
    ArgoCDModel,
    Config,
    PolicyModel,
    RepositoryModel,
    TargetDefaults,
)
from bot.core import catalog, policy
from bot.core.errors import PromoteError
from bot.core.image_name import ImageName, is_local

RESERVED = frozenset(
    "help status pending show approve reject withdraw cancel diff history nudge rollback train lock unlock block "  # noqa: SIM905 - a list of words reads better as words
    "unblock windows can config to all".split()
)
"""Words of `/promote`, today's and tomorrow's, that can be no app's name."""


class ConfigError(PromoteError):
    """`promote.yaml` cannot be used; the message names file and line, one problem a line."""


def load(path: Path) -> Config:
    """Read and check the file; raises `ConfigError` with file, line and a near match for every problem."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Set PROMOTE_CONFIG to the file's place.") from error
    try:
        raw = YAML(typ="rt").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}:1: must hold the keys {', '.join(Config.model_fields)}")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        # A list counts as too short when an entry of it is wrong: the entry's own error says enough.
        problems = [problem for problem in error.errors() if problem["type"] != "too_short"] or error.errors()
        raise ConfigError("\n".join(_explained(path, raw, problem) for problem in problems)) from error
    if wrong := [f"{path}:{_line(raw, list(loc))}: {sentence}" for loc, sentence in _misnamed(config)]:
        raise ConfigError("\n".join(wrong))
    return config


REQUIRED = ("repository", "argocd", "keys", "values", "applications")

Place: TypeAlias = tuple[str | int, ...]
"""A path of keys into the file."""


def _misnamed(config: Config) -> Iterator[tuple[Place, str]]:
    """Every name that leads nowhere or cannot be used: where it stands, and what is wrong."""
    yield from _environments(config)
    yield from _taken(config)
    for name, server in config.argocd.items():
        for text in (server.project, server.namespace):
            yield from _unfilled(("argocd", name), text or "")
    for place, settings in _settings(config):
        yield from _references(config, place, settings)
    yield from _registries(config)
    yield from _missing(config)
    yield from _shared(config)
    yield from _repeated(config)


def _registries(config: Config) -> Iterator[tuple[Place, str]]:
    for host, registry in config.registries.items():
        if is_local(host) and not registry.allow_local:
            sentence = "is on this machine; set allow_local: true, or take it out"
            yield ("registries", host), f"registries.{host}: {sentence}"
    for name, app in config.apps.items() if config.registries else ():
        try:
            ImageName.parse(app.image)
        except ValueError as error:
            yield ("apps", name, "image"), f"apps.{name}.image: {error}"


def _shared(config: Config) -> Iterator[tuple[Place, str]]:
    """Two targets that write one value: the rules of the one would not hold for the other."""
    owners: dict[tuple[str, str, str, str], str] = {}
    for name, app in config.apps.items():
        for environment in _environments_of(config, app):
            values, repository = (
                _setting(config, app, environment, "values"),
                _setting(config, app, environment, "repository"),
            )
            model = config.repositories.get(repository or "")
            if values is None or model is None:
                continue  # told already
            path = _filled(values, name, environment)
            keys = _setting(config, app, environment, "keys") or ()
            digests = _setting(config, app, environment, "digests") or ()
            for key in dict.fromkeys((*keys, *digests)):
                owner = owners.setdefault((model.url, model.branch, path, key), f"{name}/{environment}")
                if owner != f"{name}/{environment}":
                    yield (
                        ("apps", name),
                        f"apps.{name}: {environment} would write {key} of {path}, as {owner} does",
                    )


def _repeated(config: Config) -> Iterator[tuple[Place, str]]:
    """An application that a target names twice, or that two environments of an app share: it can run one version."""
    for name, app in config.apps.items():
        owners: dict[str, str] = {}
        for environment in _environments_of(config, app):
            for each in _applications(config, name, app, environment):
                names = f"apps.{name}: {environment} names the application {each.name} of {each.server}"
                owner = owners.get(each.key)
                if owner == environment:
                    yield ("apps", name), f"{names} twice"
                elif owner:
                    yield ("apps", name), f"{names}, as {owner} does; put {{env}} into its name"
                owners[each.key] = environment


def _environments(config: Config) -> Iterator[tuple[Place, str]]:
    known = config.environments
    if len(set(known)) != len(known):
        yield ("environments",), "environments: one of them stands there twice"
    named: dict[Place, Mapping[str, Any]] = {
        ("policies",): config.policies,
        ("slack", "channels"): config.slack.channels,
        **{("apps", name, "environments"): app.environments or {} for name, app in config.apps.items()},
        **{("apps", name, "banner"): app.banner for name, app in config.apps.items()},
    }
    for place, entries in named.items():
        for name in entries:
            yield from _unknown((*place, name), name, known, "the environment")


def _taken(config: Config) -> Iterator[tuple[Place, str]]:
    for name in config.apps:
        if name in RESERVED or name in config.environments:
            sentence = f"{name!r} is a word of /promote or an environment; name the app otherwise"
            yield ("apps", name), f"apps: {sentence}"


def _references(config: Config, place: Place, settings: TargetDefaults) -> Iterator[tuple[Place, str]]:
    servers, server = config.argocd, "the Argo CD server"
    yield from _unknown((*place, "repository"), settings.repository, config.repositories, "the repository")
    yield from _unknown((*place, "argocd"), settings.argocd, servers, server)
    for number, entry in enumerate(settings.applications or ()):
        yield from _unknown((*place, "applications", number, "server"), entry.server, servers, server)
        for text in (entry.name, entry.project, entry.namespace):
            yield from _unfilled((*place, "applications", number), text or "")
    yield from _unfilled((*place, "values"), settings.values or "")


def _unfilled(place: Place, text: str) -> Iterator[tuple[Place, str]]:
    for word in re.findall(r"\{([^}]*)\}", text):
        if word not in ("app", "env"):
            yield place, f"{'.'.join(map(str, place))}: {{{word}}} is unknown; there is {{app}} and {{env}}"


def _missing(config: Config) -> Iterator[tuple[Place, str]]:
    for name, app in config.apps.items():
        for environment in _environments_of(config, app):
            for key in REQUIRED:
                if _setting(config, app, environment, key) is None:
                    sentence = f"{environment} has no {key}; give it there or in defaults"
                    yield ("apps", name), f"apps.{name}: {sentence}"


def _environments_of(config: Config, app: AppModel) -> list[str]:
    return [each for each in config.environments if app.environments is None or each in app.environments]


def _setting(config: Config, app: AppModel, environment: str, key: str) -> Any:
    """What holds for a target: the environment's own word, else the app's, else the defaults'."""
    for source in ((app.environments or {}).get(environment), app, config.defaults):
        if source is not None and (value := getattr(source, key)) is not None:
            return value
    return None


def _settings(config: Config) -> Iterator[tuple[Place, TargetDefaults]]:
    """Every part of the file that describes targets."""
    yield ("defaults",), config.defaults
    for name, app in config.apps.items():
        yield ("apps", name), app
        for environment, here in (app.environments or {}).items():
            yield ("apps", name, "environments", environment), here


def _unknown(place: Place, name: str | None, known: Iterable[str], what: str) -> Iterator[tuple[Place, str]]:
    if name is not None and name not in known:
        dotted = ".".join(str(step) for step in place)
        yield place, f"{dotted}: {what} {name!r} is unknown.{catalog.nearest(name, known)}"


WORDS = {
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "string_type": "must be a text; put it into quotes",
    "int_parsing": "must be a number",
    "int_type": "must be a number",
}
"""Pydantic's findings in the words of somebody who writes YAML."""


def _explained(path: Path, raw: Any, problem: Any) -> str:
    loc = list(problem["loc"])
    where = f"{path}:{_line(raw, loc)}"
    name = ".".join(str(step) for step in loc)
    if problem["type"] == "extra_forbidden":
        match = difflib.get_close_matches(str(loc[-1]), _known_keys(loc[:-1]), n=1, cutoff=0.6)
        hint = f', did you mean "{match[0]}"?' if match else ""
        return f'{where}: unknown key "{loc[-1]}"{hint}'
    if problem["type"] == "missing":
        return f'{where}: "{name}" is missing'
    message = problem["msg"].removeprefix("Value error, ")
    if known := WORDS.get(problem["type"]):
        message = known.format_map(problem.get("ctx", {}))
    return f"{where}: {name}: {message}" if name else f"{where}: {message}"


def _line(root: Any, loc: list[Any]) -> int:
    """The line of the innermost key that the file really has."""
    line = 1
    node: Any = root
    for step in loc:
        try:
            marks: Any = node.lc
            place = marks.key(step) if isinstance(node, dict) else marks.item(step)
            line, node = place[0] + 1, node[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _known_keys(loc: list[Any]) -> list[str]:
    """The keys that may stand at a place of the file, from its own schema."""
    schema = Config.model_json_schema()
    nodes = [schema]
    for step in loc:
        nodes = [child for node in nodes for child in _children(schema, node, step)]
    return [key for node in nodes for key in _resolved(schema, node).get("properties", {})]


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _children(schema: dict[str, Any], node: dict[str, Any], step: Any) -> list[dict[str, Any]]:
    node = _resolved(schema, node)
    found = node.get("properties", {}).get(step) or node.get("items") or node.get("additionalProperties")
    for pattern in node.get("patternProperties", {}).values():
        found = found or pattern
    if not isinstance(found, dict):
        return []
    options = found.get("anyOf", [found])
    # A list of alternatives: its items are the alternatives of each of its entries.
    return [alternative for option in options for alternative in option.get("anyOf", [option])]


def build_catalog(config: Config) -> catalog.Catalog:
    """The core's catalog, from a configuration that `load` has checked."""
    fingerprint = "sha256:" + hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()
    targets = [
        _target(config, name, app, environment)
        for name, app in config.apps.items()
        for environment in _environments_of(config, app)
    ]
    return catalog.Catalog(environments=config.environments, targets=tuple(targets), fingerprint=fingerprint)


def _target(config: Config, name: str, app: AppModel, environment: str) -> catalog.Target:
    def setting(key: str) -> Any:
        return _setting(config, app, environment, key)

    repository = config.repositories[setting("repository")]
    channel = setting("channel") or config.slack.channels.get(environment) or config.slack.channel
    return catalog.Target(
        app=name,
        environment=environment,
        repository=_repository(setting("repository"), repository),
        path=_filled(setting("values"), name, environment),
        keys=tuple(setting("keys")),
        digests=tuple(setting("digests") or ()),
        edit_anchors=bool(setting("edit_anchors")),
        image=app.image,
        asks_registry=bool(config.registries) and ImageName.parse(app.image).host in config.registries,
        applications=_applications(config, name, app, environment),
        channel=channel,
        policy=_policy(config, environment),
        rollout=_rollout(config, environment),
        banner=app.banner.get(environment),
    )


def _filled(text: str, app: str, environment: str) -> str:
    return text.replace("{app}", app).replace("{env}", environment)


def _repository(name: str, model: RepositoryModel) -> catalog.Repository:
    return catalog.Repository(name=name, url=model.url, branch=model.branch, commit_url=model.commit_url)


def _applications(
    config: Config, name: str, app: AppModel, environment: str
) -> tuple[catalog.Application, ...]:
    """The applications of a target, without those whose server nobody knows."""
    entries = _setting(config, app, environment, "applications") or ()
    default = _setting(config, app, environment, "argocd")
    servers = [(entry.server or default, entry) for entry in entries]
    return tuple(
        _application(config.argocd[server], server, entry, lambda text: _filled(text, name, environment))
        for server, entry in servers
        if server in config.argocd
    )


def _application(
    place: ArgoCDModel, server: str, model: ApplicationModel, fill: Callable[[str], str]
) -> catalog.Application:
    name, project = fill(model.name), fill(model.project or place.project)
    namespace = fill(model.namespace or place.namespace or "") or None
    page = f"{place.url.rstrip('/')}/applications/{f'{namespace}/' if namespace else ''}{name}"
    return catalog.Application(server=server, name=name, project=project, namespace=namespace, link=page)


def _policy(config: Config, environment: str) -> policy.Policy:
    approvals = config.policies.get(environment, PolicyModel()).approvals
    if approvals is None:
        return policy.Policy()
    rules = tuple(
        policy.ApprovalRule(
            users=frozenset(rule.users),
            groups=frozenset({rule.group} if rule.group else ()),
            minimum=rule.min,
        )
        for rule in approvals.rules
    )
    return policy.Policy(rules=rules, total=approvals.needed, expires=approvals.expires)


def _rollout(config: Config, environment: str) -> catalog.RolloutPolicy:
    policy = config.policies.get(environment, PolicyModel())
    rollout = policy.rollout
    return catalog.RolloutPolicy(
        timeout=rollout.timeout,
        stable_for=rollout.stable_for,
        degraded_grace=rollout.degraded_grace,
        pick_up_within=rollout.pick_up_within,
        sends_logs=policy.approvals is None if rollout.logs is None else rollout.logs,
    )
