"""`promote.yaml`, checked strictly and turned into the core's catalog."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bot.config_models import (
    ApplicationModel,
    AppModel,
    ArgoCDModel,
    Config,
    SourceModel,
    TargetDefaults,
    filled,
)
from bot.config_policies import broken_rules, policy_of, rollout_of
from bot.config_problems import Place, Problem, explained, line_of, problem, unknown
from bot.config_releases import beside_of, branch_of, broken_releases, release_of
from bot.core import catalog
from bot.core.errors import PromoteError
from bot.core.image_name import ImageName, is_local

RESERVED = frozenset(
    "help status pending show approve reject withdraw cancel diff history nudge rollback train lock unlock block "  # noqa: SIM905 - a list of words reads better as words
    "unblock windows can check locks config to all review for until in because since by stats".split()
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
        needed = ", ".join(name for name, field in Config.model_fields.items() if field.is_required())
        raise ConfigError(f"{path}:1: must hold the keys {needed}; copy the example promote.yaml")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        # A list counts as too short when an entry of it is wrong: the entry's own error says enough.
        findings = [each for each in error.errors() if each["type"] != "too_short"] or error.errors()
        raise ConfigError("\n".join(explained(path, raw, each) for each in findings)) from error
    if wrong := [f"{path}:{line_of(raw, loc)}: {sentence}" for loc, sentence in _misnamed(config)]:
        raise ConfigError("\n".join(wrong))
    return config


REQUIRED = ("repository", "argocd", "keys", "values", "applications")


def _misnamed(config: Config) -> Iterator[Problem]:
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
    yield from broken_rules(config)
    yield from broken_releases(config)
    yield from _ambiguous(config)


def _registries(config: Config) -> Iterator[Problem]:
    for host, registry in config.registries.items():
        if is_local(host) and not registry.allow_local:
            sentence = "is on this machine; set allow_local: true, or take it out"
            yield ("registries", host), f"registries.{host}: {sentence}"
    for name, app in config.apps.items() if config.registries else ():
        try:
            ImageName.parse(app.image)
        except ValueError as error:
            yield ("apps", name, "image"), f"apps.{name}.image: {error}"


def _shared(config: Config) -> Iterator[Problem]:
    """Two targets that write one value: the rules of the one would not hold for the other."""
    owners: dict[tuple[str, str, str, str], str] = {}
    for name, app in config.apps.items():
        for environment in config.environments_of(app):
            values, repository = (
                config.setting(app, environment, "values"),
                config.setting(app, environment, "repository"),
            )
            model = config.repositories.get(repository or "")
            if values is None or model is None:
                continue  # told already
            if config.setting(app, environment, "strategy") not in (None, "values"):
                continue  # it writes none
            path = filled(values, name, environment)
            keys = config.setting(app, environment, "keys") or ()
            digests = config.setting(app, environment, "digests") or ()
            for key in dict.fromkeys((*keys, *digests)):
                owner = owners.setdefault(
                    (model.url, branch_of(config, app, environment), path, key), f"{name}/{environment}"
                )
                if owner != f"{name}/{environment}":
                    yield (
                        ("apps", name),
                        f"apps.{name}: {environment} would write {key} of {path}, as {owner} does",
                    )


def _repeated(config: Config) -> Iterator[Problem]:
    """An application that a target names twice, or that two environments of an app share: it can run one version."""
    for name, app in config.apps.items():
        owners: dict[str, str] = {}
        for environment in config.environments_of(app):
            for each in _applications(config, name, app, environment):
                names = f"apps.{name}: {environment} names the application {each.name} of {each.server}"
                owner = owners.get(each.key)
                if owner == environment:
                    yield ("apps", name), f"{names} twice"
                elif owner:
                    yield ("apps", name), f"{names}, as {owner} does; put {{env}} into its name"
                owners[each.key] = environment


def _environments(config: Config) -> Iterator[Problem]:
    known = config.environments
    if len(set(known)) != len(known):
        yield ("environments",), "environments: one of them stands there twice"
    named: dict[Place, Mapping[str, Any]] = {
        ("slack", "channels"): config.slack.channels,
        **{("apps", name, "environments"): app.environments or {} for name, app in config.apps.items()},
        **{("apps", name, "banner"): app.banner for name, app in config.apps.items()},
    }
    for place, entries in named.items():
        for name in entries:
            yield from unknown((*place, name), name, known, "the environment")


def _ambiguous(config: Config) -> Iterator[Problem]:
    """Two spellings of one address: letters large and small are the same there."""
    owners: dict[str, str] = {}
    for email, user in config.identities.items():
        if owners.setdefault(email.lower(), user) != user:
            yield problem(("identities", email), f"this address belongs to {owners[email.lower()]} already")


def _taken(config: Config) -> Iterator[Problem]:
    for name in config.apps:
        if name in RESERVED or name in config.environments:
            sentence = f"{name!r} is a word of /promote or an environment; name the app otherwise"
            yield ("apps", name), f"apps: {sentence}"


def _references(config: Config, place: Place, settings: TargetDefaults) -> Iterator[Problem]:
    servers, server = config.argocd, "the Argo CD server"
    yield from unknown((*place, "repository"), settings.repository, config.repositories, "the repository")
    yield from unknown((*place, "argocd"), settings.argocd, servers, server)
    for number, entry in enumerate(settings.applications or ()):
        yield from unknown((*place, "applications", number, "server"), entry.server, servers, server)
        for text in (entry.name, entry.project, entry.namespace):
            yield from _unfilled((*place, "applications", number), text or "")
    yield from _unfilled((*place, "values"), settings.values or "")


def _unfilled(place: Place, text: str) -> Iterator[Problem]:
    for word in re.findall(r"\{([^}]*)\}", text):
        if word not in ("app", "env"):
            yield problem(place, f"{{{word}}} is unknown; there is {{app}} and {{env}}")


def _missing(config: Config) -> Iterator[Problem]:
    for name, app in config.apps.items():
        for environment in config.environments_of(app):
            for key in REQUIRED:
                if config.setting(app, environment, key) is None:
                    sentence = f"{environment} has no {key}; give it there or in defaults"
                    yield ("apps", name), f"apps.{name}: {sentence}"


def _settings(config: Config) -> Iterator[tuple[Place, TargetDefaults]]:
    """Every part of the file that describes targets."""
    yield ("defaults",), config.defaults
    for name, app in config.apps.items():
        yield ("apps", name), app
        for environment, here in (app.environments or {}).items():
            yield ("apps", name, "environments", environment), here


def build_catalog(config: Config) -> catalog.Catalog:
    """The core's catalog, from a configuration that `load` has checked."""
    fingerprint = "sha256:" + hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()
    targets = [
        _target(config, name, app, environment)
        for name, app in config.apps.items()
        for environment in config.environments_of(app)
    ]
    return catalog.Catalog(
        environments=config.environments,
        targets=tuple(targets),
        fingerprint=fingerprint,
        identities={email.lower(): user for email, user in config.identities.items()},
    )


def _target(config: Config, name: str, app: AppModel, environment: str) -> catalog.Target:
    def setting(key: str) -> Any:
        return config.setting(app, environment, key)

    later = config.environments_of(app)[config.environments_of(app).index(environment) + 1 :]
    channel = setting("channel") or config.slack.channels.get(environment) or config.slack.channel
    return catalog.Target(
        app=name,
        environment=environment,
        repository=_repository(config, setting("repository"), branch_of(config, app, environment)),
        path=filled(setting("values"), name, environment),
        keys=tuple(setting("keys")),
        digests=tuple(setting("digests") or ()),
        edit_anchors=bool(setting("edit_anchors")),
        release=release_of(config, name, environment),
        image=app.image,
        asks_registry=config.asks_registry(app),
        is_tag_only=app.same_image == "tag-only",
        source=_source(app.source),
        expected_differences=tuple(setting("expected_differences") or ()),
        applications=_applications(config, name, app, environment),
        channel=channel,
        audit=config.slack.audit,
        policy=policy_of(config, name, environment),
        rollout=rollout_of(config, name, environment),
        banner=app.banner.get(environment),
        then=later[0] if later else None,
    )


def _source(model: SourceModel | None) -> catalog.Source | None:
    return catalog.Source(url=model.url, compare_url=model.compare_url) if model else None


def _repository(config: Config, name: str, branch: str) -> catalog.Repository:
    model = config.repositories[name]
    return catalog.Repository(
        name=name,
        url=model.url,
        branch=branch,
        beside=beside_of(config, name, branch),
        mode=catalog.Mode(model.mode),
        commit_url=model.commit_url,
    )


def _applications(
    config: Config, name: str, app: AppModel, environment: str
) -> tuple[catalog.Application, ...]:
    """The applications of a target, without those whose server nobody knows."""
    entries = config.setting(app, environment, "applications") or ()
    default = config.setting(app, environment, "argocd")
    servers = [(entry.server or default, entry) for entry in entries]
    return tuple(
        _application(config.argocd[server], server, entry, lambda text: filled(text, name, environment))
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
