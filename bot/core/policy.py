"""The rules of an environment: who must say yes, what must hold before, and when nothing may move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum

Members = Mapping[str, frozenset[str]]
"""The people of each user group, by the group's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """People and user groups, by their Slack ids."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def admits(self, user: str, members: Members) -> bool:
        """Is this person one of them?"""
        return user in self.users or any(user in members.get(group, frozenset()) for group in self.groups)

    def __bool__(self) -> bool:
        return bool(self.users or self.groups)


NOBODY = Listed()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRule:
    """At least `minimum` of these people must approve; users and user groups by their Slack ids."""

    users: frozenset[str]
    groups: frozenset[str]
    minimum: int

    def admits(self, user: str, members: Members) -> bool:
        """Is this person one of the rule's? `members` holds the people of each user group."""
        return user in self.users or any(user in members.get(group, frozenset()) for group in self.groups)


class Effect(StrEnum):
    """What a window does while it lasts."""

    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time, again and again by a cron line, or once between two moments."""

    effect: Effect
    zone: str
    """An IANA name; cron lines are read in it."""
    cron: str | None = None
    lasts: timedelta | None = None
    """How long each one is, in time that really passes, where there is a cron line."""
    begins: datetime | None = None
    ends: datetime | None = None
    """Aware moments, where there is no cron line."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRule:
    """A verdict that must be there: `integration`, passed, for this very build in the environment before."""

    name: str
    reporters: Listed = NOBODY
    """Who may give it in Slack; identities of the hook are named beside their keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question to another system, asked anew each time; without an answer in time the gate is closed.

    `{app}`, `{environment}`, `{version}` and `{digest}` in address and query stand for what is promoted.
    """

    name: str
    url: str
    """Without `query` it is fetched, and every answer from 200 to 299 opens the gate."""
    query: str | None = None
    """PromQL for the Prometheus at `url`; it must give exactly one number."""
    at_least: float | None = None
    at_most: float | None = None
    within: timedelta = timedelta(seconds=5)


class Gate(StrEnum):
    """What can stand in the way of a promotion; an emergency may pass those that the policy names."""

    ORDER = "order"
    SOAK = "soak"
    CHECKS = "checks"
    PROBES = "probes"
    PARITY = "parity"
    WINDOWS = "windows"
    LOCKS = "locks"
    QUORUM = "quorum"
    IMAGE = "image"
    BAD_VERSION = "bad version"


CONTENT = frozenset({Gate.IMAGE, Gate.BAD_VERSION})
"""What no emergency passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyRule:
    """Who may pass which gates when something burns."""

    who: Listed
    skips: frozenset[Gate]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRule:
    """When a rollback needs no approval, and what follows one."""

    who: Listed
    within: timedelta = timedelta(hours=24)
    """Since the version that goes was committed; later only while the target is degraded."""
    locks: bool = True
    """Is the target locked after it?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who must approve a promotion into an environment, and what else must hold."""

    rules: tuple[ApprovalRule, ...] = ()
    total: int = 0
    expires: timedelta = timedelta(hours=4)
    start_within: timedelta = timedelta(minutes=30)
    waits: timedelta = timedelta(days=3)
    """How long an approved promotion may wait for its gates, where it was asked to start when they open."""
    denied: Listed = NOBODY
    """These never approve, whatever a rule says."""
    commit_authors: bool = True
    """May somebody approve who wrote one of the commits that it brings?"""
    unknown_authors: bool = False
    """Where they may not: may somebody approve although nobody knows who wrote one of them?"""
    last_requester: bool = True
    """May somebody approve who asked for what is there now?"""
    notify: Listed = NOBODY
    """Who hears of a request besides; it gives no right."""
    requesters: Listed | None = None
    """Who may ask; None for every full member."""
    lockers: Listed | None = None
    """Who may lock and unlock, block and unblock; None for every full member."""
    soak: timedelta = timedelta(0)
    """How long the build must have run healthily in the environment before, in all."""
    checks: tuple[CheckRule, ...] = ()
    probes: tuple[Probe, ...] = ()
    parity: bool = False
    """Is a difference between the two values files that nobody expects a closed gate?"""
    windows: tuple[Window, ...] = ()
    rollback: RollbackRule | None = None
    """None: a rollback needs the ordinary approval, and locks nothing."""
    emergency: EmergencyRule | None = None

    @property
    def needs_approval(self) -> bool:
        """Does anybody have to say yes?"""
        return self.total > 0

    @property
    def groups(self) -> frozenset[str]:
        """Every user group that a rule names."""
        return frozenset(group for rule in self.rules for group in rule.groups)

    @property
    def deciding_groups(self) -> frozenset[str]:
        """Every user group that has to be known for a decision, also among those who never approve."""
        return self.groups | self.denied.groups

    @property
    def users(self) -> frozenset[str]:
        """Every person that a rule names by id, and that may approve."""
        return frozenset(user for rule in self.rules for user in rule.users) - self.denied.users

    def admits(self, user: str, members: Members) -> bool:
        """May this person approve or reject? A no goes before every yes."""
        return not self.denied.admits(user, members) and any(
            rule.admits(user, members) for rule in self.rules
        )

    def is_satisfied(self, approvers: Iterable[str], members: Members) -> bool:
        """Have enough of the right people approved? Counts each person once, and only those whom a rule admits."""
        counted = {user for user in approvers if self.admits(user, members)}
        return len(counted) >= self.total and all(
            sum(rule.admits(user, members) for user in counted) >= rule.minimum for rule in self.rules
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the rules, `sha256:…`: an approval given under other rules does not count."""
        rules = [(sorted(rule.users), sorted(rule.groups), rule.minimum) for rule in self.rules]
        words = repr((rules, self.total, *_others(self)))
        return "sha256:" + hashlib.sha256(words.encode()).hexdigest()


_COUNTED = frozenset({"rules", "total", "expires", "start_within"})
"""Rules and total stand in the hash as they always did; the two times are no rules."""


def _others(policy: Policy) -> list[tuple[str, object]]:
    """What else the policy says, by name: what it leaves as it is by default does not change the hash."""
    plain = Policy()
    names = (field.name for field in fields(Policy) if field.name not in _COUNTED)
    return [
        (name, _ordered(value)) for name in names if (value := getattr(policy, name)) != getattr(plain, name)
    ]


def _ordered(value: object) -> object:
    """The value with its sets in order: their own order differs from one process to the next."""
    if isinstance(value, frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple):
        return [_ordered(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return [(field, _ordered(getattr(value, field))) for field in value.__dataclass_fields__]
    return repr(value)
