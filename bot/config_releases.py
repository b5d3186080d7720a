"""How versions come to the targets of `promote.yaml` that follow a branch or tags, and what cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.config_models import AppModel, Config, filled
from bot.config_problems import Problem
from bot.core.catalog import Pin, Release

_TAG = re.compile(r"(?![-/.])(?!.*(?:\.\.|//|@\{))[A-Za-z0-9._/{}+-]+(?<![/.])")
RECORDS = "refs/tags/promote/*"


def branch_of(config: Config, app: AppModel, environment: str) -> str:
    """The branch that is written for a target."""
    model = config.repositories.get(config.setting(app, environment, "repository") or "")
    return config.setting(app, environment, "branch") or (model.branch if model else "")


def release_of(config: Config, name: str, environment: str) -> Release | None:
    """How a version comes to the target; None where a values file is edited."""
    app = config.apps[name]
    strategy, before = _strategy(config, app, environment), _before(config, app, environment)
    if strategy == "values" or before is None:
        return None
    source = _followed(config, app, before)
    if strategy == "branch":
        return Release(source=source)
    pin = config.setting(app, environment, "pin")
    return Release(
        source=source,
        tag=_tag(config, name, environment),
        pin=Pin(path=filled(pin.file, name, environment), key=pin.key) if pin else None,
    )


def beside_of(config: Config, repository: str, branch: str) -> tuple[str, ...]:
    """The other refs of a repository that are read with a branch, for all targets together."""
    found: set[str] = set()
    for name, app, environment in _targets(config):
        is_here = config.setting(app, environment, "repository") == repository
        release = release_of(config, name, environment) if is_here else None
        if release and branch_of(config, app, environment) == branch:
            found |= {f"refs/heads/{release.source}", "refs/tags/*" if release.tag else RECORDS}
    if "refs/tags/*" in found:
        found.discard(RECORDS)
    return tuple(sorted(found - {f"refs/heads/{branch}"}))


def broken_releases(config: Config) -> Iterator[Problem]:
    """Everything that is wrong with them: where it stands, and what to do."""
    for name, app, environment in _targets(config):
        for sentence in _wrong(config, name, app, environment):
            yield ("apps", name), f"apps.{name}: {environment} {sentence}"
    yield from _moved_by_others(config)
    yield from _same_tags(config)


def _wrong(config: Config, name: str, app: AppModel, environment: str) -> Iterator[str]:
    strategy, before = _strategy(config, app, environment), _before(config, app, environment)
    if strategy != "tag" and any(config.setting(app, environment, key) for key in ("tag", "pin")):
        yield "has a tag or a pin, which only strategy: tag takes"
    if strategy == "values":
        return
    if before is None:
        yield f"is the first environment, so there is nothing that strategy: {strategy} could bring there"
        return
    repositories = [config.setting(app, each, "repository") for each in (before, environment)]
    models = [config.repositories.get(each or "") for each in repositories]
    if None in models:
        return  # told already
    if repositories[0] != repositories[1]:
        yield f"has another repository than {before}, so no revision can be brought from there"
    if any(model and model.mode == "pr" for model in models[1:]):
        yield f"cannot have strategy: {strategy} with mode: pr; set mode: push for {repositories[1]}"
    if strategy == "branch" and branch_of(config, app, environment) == _followed(config, app, before):
        yield f"follows the branch that {before} follows; name another one, like branch: release"
    tag = _tag(config, name, environment)
    if strategy == "tag" and (tag.count("{version}") != 1 or not _TAG.fullmatch(tag)):
        yield f"has the tag {tag!r}; it must be a name with {{version}} in it, like v{{version}}"


def _moved_by_others(config: Config) -> Iterator[Problem]:
    """A branch that is moved forward brings everything on it, so no other app may stand there."""
    moved: dict[tuple[str, str], tuple[str, str]] = {}
    for name, app, environment in _targets(config):
        if _strategy(config, app, environment) == "branch":
            moved[_place(config, app, environment)] = (name, environment)
    for name, app, environment in _targets(config):
        owner, mover = moved.get(_place(config, app, environment), (name, ""))
        if owner != name:
            branch = branch_of(config, app, environment)
            sentence = (
                f"{environment} follows {branch}, which is moved forward with {owner} to {mover}: {name} would "
                "move with it, whoever approves. Give it a branch or a repository of its own"
            )
            yield ("apps", name), f"apps.{name}: {sentence}"


def _same_tags(config: Config) -> Iterator[Problem]:
    owners: dict[tuple[str, str], str] = {}
    for name, app, environment in _targets(config):
        if _strategy(config, app, environment) != "tag":
            continue
        url, _ = _place(config, app, environment)
        tag = _tag(config, name, environment)
        owner = owners.setdefault((url, tag), f"{name}/{environment}")
        if owner != f"{name}/{environment}":
            sentence = (
                f"{environment} makes the tags {tag}, as {owner} does; put {{app}} or {{env}} into the name"
            )
            yield ("apps", name), f"apps.{name}: {sentence}"


def _targets(config: Config) -> Iterator[tuple[str, AppModel, str]]:
    for name, app in config.apps.items():
        for environment in config.environments_of(app):
            yield name, app, environment


def _place(config: Config, app: AppModel, environment: str) -> tuple[str, str]:
    model = config.repositories.get(config.setting(app, environment, "repository") or "")
    return (model.url if model else "", branch_of(config, app, environment))


def _strategy(config: Config, app: AppModel, environment: str) -> str:
    return config.setting(app, environment, "strategy") or "values"


def _tag(config: Config, name: str, environment: str) -> str:
    return filled(config.setting(config.apps[name], environment, "tag") or "v{version}", name, environment)


def _before(config: Config, app: AppModel, environment: str) -> str | None:
    known = config.environments_of(app)
    place = known.index(environment)
    return known[place - 1] if place else None


def _followed(config: Config, app: AppModel, environment: str) -> str:
    """The branch on which the revisions lie that an environment runs."""
    before = _before(config, app, environment)
    if before and _strategy(config, app, environment) == "tag":
        return _followed(config, app, before)
    return branch_of(config, app, environment)
