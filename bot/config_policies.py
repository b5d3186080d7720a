"""The rules of each target: the environment's, with those that an app has of its own, as the core reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from bot.config_models import Config
from bot.config_problems import Place, Problem, problem, unknown
from bot.core import catalog, policy
from bot.policy_models import (
    ApprovalsModel,
    EmergencyModel,
    PolicyModel,
    ProbeModel,
    RollbackModel,
    WindowModel,
)

OFF = {"soak": "soak: 0s", "checks": "checks: []", "parity": "parity: ignored"}
"""The rules that ask the environment before, and how an app says that it has none of them."""


def rules_of(config: Config, name: str, environment: str) -> PolicyModel:
    """What holds for a target: each key of the app's own policy takes the place of the environment's."""
    common = config.policies.get(environment, PolicyModel())
    own = config.apps[name].policies.get(environment, PolicyModel())
    return common.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


def policy_of(config: Config, name: str, environment: str) -> policy.Policy:
    """A target's rules, as the core reads them."""
    rules = rules_of(config, name, environment)
    return replace(
        _approvals(rules.approvals),
        waits=rules.waits,
        requesters=_listed(rules.requesters) if rules.requesters else None,
        lockers=_listed(rules.lockers) if rules.lockers else None,
        soak=rules.soak,
        checks=tuple(
            policy.CheckRule(name=check.name, reporters=_listed(check.reporters)) for check in rules.checks
        ),
        probes=tuple(map(_probe, rules.probes)),
        parity=rules.parity == "required",
        windows=tuple(window for model in rules.windows for window in _window(model, name)),
        rollback=_rollback(rules.rollback),
        emergency=_emergency(rules.emergency),
    )


def _listed(ids: Iterable[str]) -> policy.Listed:
    """Slack's ids tell what they are: those of user groups begin with an S."""
    ids = frozenset(ids)
    groups = frozenset(id for id in ids if id.startswith("S"))
    return policy.Listed(users=ids - groups, groups=groups)


def _approvals(model: ApprovalsModel | None) -> policy.Policy:
    if model is None:
        return policy.Policy()
    rules = tuple(
        policy.ApprovalRule(
            users=frozenset(rule.users),
            groups=frozenset({rule.group} if rule.group else ()),
            minimum=rule.min,
        )
        for rule in model.rules
    )
    return policy.Policy(
        rules=rules,
        total=model.needed,
        expires=model.expires,
        denied=_listed((*model.deny.users, *model.deny.groups)),
        commit_authors=model.commit_authors,
        unknown_authors=model.unknown_authors == "allow",
        last_requester=model.last_requester,
        notify=_listed(model.notify),
    )


def _probe(model: ProbeModel) -> policy.Probe:
    return policy.Probe(
        name=model.name,
        url=model.url,
        query=model.query,
        at_least=model.at_least,
        at_most=model.at_most,
        within=model.within,
    )


def _window(model: WindowModel, name: str) -> Iterator[policy.Window]:
    """The window, where it holds for the app."""
    if model.apps is not None and name not in model.apps:
        return
    for effect, when in ((policy.Effect.DENY, model.deny), (policy.Effect.ALLOW, model.allow)):
        if when:
            yield policy.Window(
                effect=effect,
                zone=model.zone,
                cron=when.cron,
                lasts=model.for_,
                begins=_instant(when.from_, model.zone),
                ends=_instant(when.to, model.zone),
                why=model.why,
            )


def _instant(shown: datetime | None, zone: str) -> datetime | None:
    """The moment at which a clock in the zone shows this, in UTC."""
    return shown.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) if shown else None


def _rollback(model: RollbackModel | None) -> policy.RollbackRule | None:
    if model is None:
        return None
    return policy.RollbackRule(who=_listed(model.who), within=model.within, locks=model.lock)


def _emergency(model: EmergencyModel | None) -> policy.EmergencyRule | None:
    if model is None:
        return None
    return policy.EmergencyRule(who=_listed(model.who), skips=frozenset(model.skips))


def rollout_of(config: Config, name: str, environment: str) -> catalog.RolloutPolicy:
    """How patiently a target's rollout is followed."""
    rules = rules_of(config, name, environment)
    rollout = rules.rollout
    return catalog.RolloutPolicy(
        timeout=rollout.timeout,
        stable_for=rollout.stable_for,
        degraded_grace=rollout.degraded_grace,
        pick_up_within=rollout.pick_up_within,
        sends_logs=rules.approvals is None if rollout.logs is None else rollout.logs,
    )


def broken_rules(config: Config) -> Iterator[Problem]:
    """Every rule that cannot be kept: where it stands, and what is wrong. Each is told once."""
    yield from dict.fromkeys(
        each
        for name, app in config.apps.items()
        for environment in config.environments_of(app)
        for check in (_without_before, _without_authors, _without_reporter)
        for each in check(config, name, environment)
    )
    yield from _strangers(config)
    yield from _windows_of_others(config)
    yield from _hooks(config)


def _place(config: Config, name: str, environment: str, key: str) -> Place:
    """Where the rule of a target stands: with the app, or with the environment."""
    own = config.apps[name].policies.get(environment)
    is_own = own is not None and key in own.model_fields_set
    return ("apps", name, "policies", environment, key) if is_own else ("policies", environment, key)


def _without_before(config: Config, name: str, environment: str) -> Iterator[Problem]:
    """A rule that asks the environment before, where the app has none."""
    if environment != config.environments_of(config.apps[name])[0]:
        return
    rules, plain = rules_of(config, name, environment), PolicyModel()
    for key, off in OFF.items():
        if getattr(rules, key) == getattr(plain, key):
            continue
        if environment == config.environments[0]:
            says = f"no environment comes before {environment}; take it out"
        else:
            says = f"{name} has no environment before {environment}; say {off} in apps.{name}.policies.{environment}"
        yield problem(_place(config, name, environment, key), says)


def _without_authors(config: Config, name: str, environment: str) -> Iterator[Problem]:
    """Authors who may not approve, although nobody can tell who they are."""
    approvals = rules_of(config, name, environment).approvals
    if approvals is None or approvals.commit_authors or approvals.unknown_authors == "allow":
        return
    app = config.apps[name]
    if app.source is None:
        missing = "Add source, with the url of the app's own repository"
    elif not config.asks_registry(app):
        missing = "Add its image's registry to registries: labels of images tell which commits are in them"
    else:
        return
    says = f"nobody could ever approve for {environment}, as nobody knows who wrote what it brings"
    yield problem(("apps", name), f"{says} (commit_authors is false). {missing}")


def _without_reporter(config: Config, name: str, environment: str) -> Iterator[Problem]:
    """A check that nobody can ever report."""
    for number, check in enumerate(rules_of(config, name, environment).checks):
        if check.reporters or any(hook.may_report(check.name, name) for hook in config.hooks.values()):
            continue
        hint = f"give it reporters, or give a hook the action check:{check.name}"
        place = (*_place(config, name, environment, "checks"), number)
        yield problem(place, f"nobody can report {check.name} for {name}; {hint}")


def _strangers(config: Config) -> Iterator[Problem]:
    """A policy for an environment that the app does not have, or that nobody has."""
    for environment in config.policies:
        place: Place = ("policies", environment)
        yield from unknown(place, environment, config.environments, "the environment")
    for name, app in config.apps.items():
        for environment in app.policies:
            place = ("apps", name, "policies", environment)
            yield from unknown(place, environment, config.environments_of(app), f"{name}'s environment")


def _windows_of_others(config: Config) -> Iterator[Problem]:
    """Apps of a window that nobody knows, or a choice of apps where there is only one."""
    for environment, rules in config.policies.items():
        for number, window in enumerate(rules.windows):
            for index, name in enumerate(window.apps or ()):
                place: Place = ("policies", environment, "windows", number, "apps", index)
                yield from unknown(place, name, config.apps, "the app")
    for app, model in config.apps.items():
        for environment, rules in model.policies.items():
            for number, window in enumerate(rules.windows):
                if window.apps is not None:
                    place = ("apps", app, "policies", environment, "windows", number, "apps")
                    yield problem(place, f"this window is {app}'s own already; take apps out")


def _hooks(config: Config) -> Iterator[Problem]:
    """Names of a hook that lead nowhere."""
    policies = [config.policies, *(app.policies for app in config.apps.values())]
    rules = [each for written in policies for each in written.values()]
    checks = sorted({f"check:{check.name}" for each in rules for check in each.checks})
    actions = ["set-image", "check:*", *checks]
    for hook, model in config.hooks.items():
        for number, name in enumerate(model.apps):
            yield from unknown(("hooks", hook, "apps", number), name, ["*", *config.apps], "the app")
        for number, name in enumerate(model.environments):
            known = ["*", *config.environments]
            yield from unknown(("hooks", hook, "environments", number), name, known, "the environment")
        for number, name in enumerate(model.actions):
            yield from unknown(("hooks", hook, "actions", number), name, actions, "the action")


def scope_of(config: Config, hook: str) -> tuple[frozenset[str], frozenset[str]]:
    """The apps and the environments that a caller of the HTTP hook may speak of, by their names."""
    model = config.hooks[hook]
    apps, environments = frozenset(model.apps), frozenset(model.environments)
    return (
        frozenset(config.apps) if "*" in apps else apps,
        frozenset(config.environments) if "*" in environments else environments,
    )
