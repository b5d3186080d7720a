"""The shape of `policies` in `promote.yaml`: every rule that an environment can have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bot.config_fields import (
    Cron,
    Duration,
    DurationOrNone,
    GroupId,
    Id,
    Moment,
    Name,
    PersonId,
    Query,
    Strict,
    Zone,
)
from bot.config_texts import checked_address
from bot.core.catalog import nearest
from bot.core.gatekeeper import WITHIN
from bot.core.policy import CONTENT, Gate


class Rules(Strict):
    """A part of a policy; a key without a value is an error, as it would look like a rule and be none."""

    @field_validator("*", mode="before")
    @classmethod
    def _never_blank(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("is there, but says nothing; fill it in, or take the key out")
        return value


class RuleModel(Rules):
    """At least `min` of these people."""

    users: tuple[PersonId, ...] = Field(default=(), description="People, by id")
    group: GroupId | None = Field(default=None, description="A user group, by id")
    min: int = Field(default=1, ge=1, description="How many of them")

    @model_validator(mode="after")
    def _check_people(self) -> RuleModel:
        if not self.users and not self.group:
            raise ValueError("the rule names nobody: give users or a group")
        if not self.group and len(set(self.users)) < self.min:
            raise ValueError(f"min is {self.min}, but only {len(set(self.users))} people are named")
        return self


class DenyModel(Rules):
    """Who never approves."""

    users: tuple[PersonId, ...] = Field(default=(), description="People, by id")
    groups: tuple[GroupId, ...] = Field(default=(), description="User groups, by id")


def _never_self(value: Any) -> Any:
    if value is False:
        return value
    raise ValueError("must be false: nobody approves their own request")


class ApprovalsModel(Rules):
    """Who must say yes before anything is written."""

    rules: tuple[RuleModel, ...] = Field(min_length=1, description="Each must be met")
    total: int | None = Field(
        default=None, ge=1, description="How many different people in all; without it, the sum of every min"
    )
    self_: Annotated[Literal[False], BeforeValidator(_never_self)] = Field(
        default=False, alias="self", description="Nobody approves their own request"
    )
    expires: Duration = Field(default=timedelta(hours=4), description="How long a request waits")
    deny: DenyModel = Field(default=DenyModel(), description="These never approve, whatever a rule says")
    commit_authors: bool = Field(
        default=True, description="May somebody approve who wrote one of the commits that it brings?"
    )
    unknown_authors: Literal["refuse", "allow"] = Field(
        default="refuse", description="Where commit_authors is false and nobody knows who wrote one of them"
    )
    last_requester: bool = Field(
        default=True, description="May somebody approve who asked for what is there now?"
    )
    notify: tuple[Id, ...] = Field(
        default=(), description="People and groups who hear of a request besides; it gives no right"
    )

    @property
    def needed(self) -> int:
        """How many different people in all: at least as many as the strictest rule asks for."""
        if self.total is None:
            return sum(rule.min for rule in self.rules)
        return max(self.total, *(rule.min for rule in self.rules))

    @model_validator(mode="after")
    def _check_reach(self) -> ApprovalsModel:
        denied = set(self.deny.users)
        left = " who are not denied" if denied else ""
        for rule in self.rules:
            people = set(rule.users) - denied
            if not rule.group and len(people) < rule.min:
                raise ValueError(f"min is {rule.min}, but only {len(people)} people are named{left}")
        people = {user for rule in self.rules for user in rule.users} - denied
        if not any(rule.group for rule in self.rules) and len(people) < self.needed:
            raise ValueError(f"total is {self.needed}, but only {len(people)} people are named{left}")
        return self


class RolloutModel(Rules):
    """How patiently a rollout is followed."""

    timeout: Duration = Field(default=timedelta(minutes=20), description="When to give up")
    stable_for: Duration = Field(default=timedelta(seconds=10), description="How long it must stay healthy")
    degraded_grace: Duration = Field(default=timedelta(seconds=60), description="How long it may be degraded")
    pick_up_within: Duration = Field(
        default=timedelta(minutes=10), description="How long Argo CD may not notice"
    )
    logs: bool | None = Field(
        default=None,
        description="Send requester and approvers the last lines of a pod that fails; unless said, only where nobody "
        "has to approve",
    )


class CheckModel(Rules):
    """A verdict that must be there for this very build, given in the environment before."""

    name: Name = Field(description="What the check is called")
    reporters: tuple[Id, ...] = Field(
        default=(), description="People and groups who may give it in Slack; a hook may give it besides"
    )


def _check_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Check = Annotated[CheckModel, BeforeValidator(_check_entry, json_schema_input_type=str | CheckModel)]
"""An entry of `checks`: its name alone, or who may report it too."""


class ProbeModel(Rules):
    """A question to another system, asked anew each time; without an answer in time nothing is promoted."""

    name: Name = Field(description="What the probe is called")
    url: str = Field(
        description="Without query: fetched, and an answer from 200 to 299 is a yes. With it: a Prometheus. "
        "{app}, {environment}, {version} and {digest} stand for what is promoted. Its token comes from PROBE_TOKEN_<NAME>"
    )
    query: Query | None = Field(default=None, description="PromQL that gives one number")
    at_least: float | None = Field(default=None, strict=True, allow_inf_nan=False, description="The least")
    at_most: float | None = Field(default=None, strict=True, allow_inf_nan=False, description="The most")
    within: Duration = Field(
        default=timedelta(seconds=5), description=f"How long it may take, at most {WITHIN:g}s"
    )

    allow_local: bool = Field(default=False, description="Allow a plain http:// address")

    @field_validator("within")
    @classmethod
    def _check_within(cls, within: timedelta) -> timedelta:
        if within > timedelta(seconds=WITHIN):
            raise ValueError(f"must be at most {WITHIN:g}s: nobody waits longer for a gate")
        return within

    @model_validator(mode="after")
    def _check_url(self) -> ProbeModel:
        checked_address(self.url, allow_local=self.allow_local)
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> ProbeModel:
        has_limit = self.at_least is not None or self.at_most is not None
        if self.query is None and has_limit:
            raise ValueError("at_least and at_most need a query: an answer alone is no number")
        if self.query is not None and not has_limit:
            raise ValueError("query needs at_least or at_most, or every number would do")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most, so no number would do")
        return self


class WhenModel(Rules):
    """A cron line, or one span of time on the clock of the window's zone."""

    cron: Cron | None = Field(default=None, description="When it begins, again and again")
    from_: Moment | None = Field(default=None, alias="from", description="When it begins, once")
    to: Moment | None = Field(default=None, description="When it ends")

    @model_validator(mode="after")
    def _check_one(self) -> WhenModel:
        if self.cron is not None and (self.from_ or self.to):
            raise ValueError("give a cron line, or from and to, not both")
        if self.cron is None and not (self.from_ and self.to):
            raise ValueError("give a cron line, or from and to")
        if self.from_ and self.to and self.from_ >= self.to:
            raise ValueError("from must be before to")
        return self


def _when_entry(value: Any) -> Any:
    return {"cron": value} if isinstance(value, str) else value


When = Annotated[WhenModel, BeforeValidator(_when_entry, json_schema_input_type=str | WhenModel)]
"""A cron line, or `{from, to}`."""


class WindowModel(Rules):
    """When nothing may be promoted (`deny`), or when alone (`allow`)."""

    deny: When | None = Field(default=None, description="When nothing may be promoted")
    allow: When | None = Field(default=None, description="When alone something may be promoted")
    for_: Duration | None = Field(
        default=None, alias="for", description="How long it lasts after each time of its cron line"
    )
    zone: Zone = Field(description="Whose clock it means, like Europe/Berlin")
    why: str = Field(default="", description="A word for people, like weekend")
    apps: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="Only these apps; not where it is one app's own already"
    )

    @model_validator(mode="after")
    def _check_one(self) -> WindowModel:
        when = self.deny or self.allow
        if when is None or (self.deny and self.allow):
            raise ValueError("give either deny or allow")
        if when.cron is not None and self.for_ is None:
            raise ValueError("a cron line only says when it begins; say how long it lasts, like for: 63h")
        if when.cron is None and self.for_ is not None:
            raise ValueError("for belongs to a cron line; from and to say themselves how long it lasts")
        return self


class RollbackModel(Rules):
    """Who may roll back without an approval."""

    who: tuple[Id, ...] = Field(default=(), description="People and groups, by id")
    within: Duration = Field(
        default=timedelta(hours=24),
        description="Since the version that goes was committed; later only while it is degraded",
    )
    lock: bool = Field(default=True, description="Is the target locked after it?")

    @model_validator(mode="after")
    def _check_who(self) -> RollbackModel:
        if not self.who:
            raise ValueError("names nobody who may roll back: give who, with the ids of people or groups")
        return self


PASSABLE = tuple(gate.value for gate in Gate if gate not in CONTENT)


def _gate(value: Any) -> Any:
    if value in CONTENT:
        raise ValueError(f"no emergency passes {value}: whatever burns, only a known and good image goes out")
    if value not in PASSABLE:
        raise ValueError(f"{value!r} is no gate.{nearest(str(value), PASSABLE)}")
    return value


Skipped = Annotated[
    Gate,
    BeforeValidator(
        _gate, json_schema_input_type=Annotated[str, Field(json_schema_extra={"enum": [*PASSABLE]})]
    ),
]


class EmergencyModel(Rules):
    """Who may pass which gates when something burns."""

    who: tuple[Id, ...] = Field(default=(), description="People and groups, by id")
    skips: tuple[Skipped, ...] = Field(
        min_length=1, description="The gates that it passes; quorum stands for the approvals"
    )

    @model_validator(mode="after")
    def _check_who(self) -> EmergencyModel:
        if not self.who:
            raise ValueError("names nobody who may declare it: give who, with the ids of people or groups")
        return self


class PolicyModel(Rules):
    """The rules of one environment."""

    approvals: ApprovalsModel | None = Field(default=None, description="Without it, nobody has to approve")
    rollout: RolloutModel = Field(default=RolloutModel())
    soak: DurationOrNone = Field(
        default=timedelta(0),
        description="How long the build must have run healthily in the environment before",
    )
    checks: tuple[Check, ...] = Field(
        default=(), description="Verdicts that must be there. Each is a name, or a name with its reporters"
    )
    probes: tuple[ProbeModel, ...] = Field(default=(), description="Questions to other systems")
    parity: Literal["required", "ignored"] = Field(
        default="ignored", description="May its values differ from the environment before only as expected?"
    )
    windows: tuple[WindowModel, ...] = Field(default=(), description="When something may be promoted")
    waits: Duration = Field(
        default=timedelta(days=3), description="How long “start when the gates pass” may wait"
    )
    requesters: tuple[Id, ...] | None = Field(
        default=None, min_length=1, description="Who may ask; without it every full member"
    )
    lockers: tuple[Id, ...] | None = Field(
        default=None, min_length=1, description="Who may lock and block; without it every full member"
    )
    rollback: RollbackModel | None = Field(
        default=None, description="Without it, a rollback needs the ordinary approval"
    )
    emergency: EmergencyModel | None = Field(default=None, description="Without it, there is none")

    @field_validator("checks", "probes")
    @classmethod
    def _check_names(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        if twice := _repeated(entry.name for entry in entries):
            raise ValueError(f"{twice} stands there twice")
        return entries


def _repeated(names: Iterable[str]) -> str:
    """The names that are there more than once, for people."""
    return ", ".join(name for name, times in Counter(names).items() if times > 1)
