"""The rules in force as lines that people can read and compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from difflib import SequenceMatcher

from bot.core.catalog import Catalog, Target, sha256
from bot.core.policy import ApprovalRule, Listed, Policy, Probe, Window
from bot.core.secrets import without_secrets
from bot.core.trailers import one_line

EVERYWHERE = "Everywhere"
"""How lines begin that hold for all environments; names of environments have no capitals."""
UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


def rules(catalog: Catalog) -> tuple[str, ...]:
    """The rules in force, a line each: `prod: at least 1 of U0AMY, U0BEN must approve`.

    What holds for some apps alone names them: `prod (manual-app): …`. Equal rules give equal lines, in equal order;
    other rules give other lines.
    """
    found = [f"{EVERYWHERE}: environments in this order: {', '.join(catalog.environments)}"]
    known = sorted(catalog.identities.items())
    found.extend(f"{EVERYWHERE}: {one_line(email)} is {user}" for email, user in known)
    heard = "hears of emergencies and of changed rules"
    found.extend(f"{EVERYWHERE}: {channel} {heard}" for channel in audits(catalog.targets))
    for environment in catalog.environments:
        targets = sorted(
            (target for target in catalog.targets if target.environment == environment),
            key=lambda target: target.app,
        )
        found.extend(_of_environment(environment, targets))
    return tuple(found)


def difference(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """`- ` and each line that is gone, `+ ` and each one that is new."""
    matcher = SequenceMatcher(a=old, b=new, autojunk=False)
    for what, from_old, to_old, from_new, to_new in matcher.get_opcodes():
        if what != "equal":
            yield from (f"- {line}" for line in old[from_old:to_old])
            yield from (f"+ {line}" for line in new[from_new:to_new])


def audits(targets: Iterable[Target]) -> tuple[str, ...]:
    """The channels that hear of emergencies and of changed rules."""
    return tuple(sorted({target.audit for target in targets if target.audit}))


def _of_environment(environment: str, targets: Sequence[Target]) -> Iterator[str]:
    by_app = {target.app: tuple(map(_shown, _of_target(target))) for target in targets}
    for line in dict.fromkeys(line for lines in by_app.values() for line in lines):
        apps = [app for app, lines in by_app.items() if line in lines]
        where = environment if len(apps) == len(by_app) else f"{environment} ({', '.join(apps)})"
        yield f"{where}: {line}"


def _of_target(target: Target) -> Iterator[str]:
    yield from _of_policy(target.policy)
    if target.is_tag_only:
        yield "the tag alone is compared"
    if target.asks_registry:
        yield "the registry is asked which build a version is"
    if target.source:
        yield f"commits are those of {target.source.url}"
    if target.policy.parity:
        yield f"expected to differ: {', '.join(sorted(target.expected_differences)) or 'nothing'}"


def _of_policy(policy: Policy) -> Iterator[str]:
    yield from _of_approvals(policy)
    yield from _of_people(policy)
    yield from _of_gates(policy)
    yield from _of_other_ways(policy)


def _of_approvals(policy: Policy) -> Iterator[str]:
    for number, rule in enumerate(policy.rules, start=1):
        yield f"rule {number}: at least {rule.minimum} of {_names(rule)} must approve"
    yield f"{policy.total} different people must approve" if policy.total else "nobody has to approve"
    if policy.denied:
        yield f"never approve: {_names(policy.denied)}"
    yield f"authors of its commits {_may(policy.commit_authors)} approve"
    if not policy.commit_authors:
        yield f"while an author is not known, people {_may(policy.unknown_authors)} approve"
    yield f"who asked for what is there now {_may(policy.last_requester)} approve"
    yield f"a request waits {_long(policy.expires)}, its commit starts within {_long(policy.start_within)}"
    yield f"what waits for its gates waits {_long(policy.waits)}"


def _of_people(policy: Policy) -> Iterator[str]:
    yield f"may ask: {_names_or_all(policy.requesters)}"
    yield f"may lock and block: {_names_or_all(policy.lockers)}"
    if policy.notify:
        yield f"hear of a request: {_names(policy.notify)}"


def _of_gates(policy: Policy) -> Iterator[str]:
    if policy.soak:
        yield f"must run for {_long(policy.soak)} in the environment before"
    for check in policy.checks:
        people = f", reported by hooks or {_names(check.reporters)}" if check.reporters else ""
        yield f"check {check.name}{people}"
    yield from map(_of_probe, policy.probes)
    if policy.parity:
        yield "values differ from the environment before only as expected"
    yield from map(_of_window, policy.windows)


def _of_probe(probe: Probe) -> str:
    asked = f" for {probe.query}" if probe.query else ""
    bounds = [("at least", probe.at_least), ("at most", probe.at_most)]
    within = "".join(f", {word} {number!r}" for word, number in bounds if number is not None)
    return f"probe {probe.name} asks {probe.url}{asked}{within}, waits {_long(probe.within)}"


def _of_window(window: Window) -> str:
    when = f"from {window.begins} to {window.ends}"
    if window.cron:
        when = f"{window.cron} for {_long(window.lasts or timedelta(0))}"
    return f"window: {window.effect} {when} in {window.zone}{f', {window.why}' if window.why else ''}"


def _of_other_ways(policy: Policy) -> Iterator[str]:
    if rule := policy.rollback:
        lock = "and locks" if rule.locks else "and locks nothing"
        yield f"rolls back without approval within {_long(rule.within)}, {lock}: {_names(rule.who)}"
    if emergency := policy.emergency:
        skips = ", ".join(sorted(emergency.skips)) or "nothing"
        yield f"breaks glass, past {skips}: {_names(emergency.who)}"


def _names(listed: Listed | ApprovalRule) -> str:
    return ", ".join(sorted(listed.users | listed.groups)) or "nobody"


def _names_or_all(listed: Listed | None) -> str:
    return "every full member" if listed is None else _names(listed)


def _may(allowed: bool) -> str:  # noqa: FBT001 - one word for a yes, another for a no
    return "may" if allowed else "may not"


def _long(length: timedelta) -> str:
    """`24 h`, `90 min`, `10 s`: in the largest unit that is exact."""
    for name, unit in UNITS:
        if length and not length % unit:
            return f"{length // unit} {name}"
    return f"{length / timedelta(seconds=1)!r} s"


def _shown(line: str) -> str:
    """One line without secrets; where something is left out, a mark tells one such line from another."""
    shown = one_line(without_secrets(line))
    return shown if shown == line else f"{shown} [{sha256(line)[7:15]}]"
