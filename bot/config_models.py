"""The shape of `promote.yaml`: every key, what it means, and what it may hold."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

DURATION = re.compile(r"(\d+)(s|m|h|d)")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = 365 * UNITS["d"]


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (found := DURATION.fullmatch(value)):
        seconds = int(found[1]) * UNITS[found[2]]
        if 1 <= seconds <= LONGEST:
            return timedelta(seconds=seconds)
        raise ValueError("must be from 1s to 365d")
    if isinstance(value, timedelta):
        return value
    raise ValueError("must be a number with a unit, like 30s, 20m, 4h or 7d")


def _person(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[UW][A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a user id. Write the id, like U0123ABCD: in Slack, open the profile, ⋮, “Copy member ID”"
    )


def _group(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"S[A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a user group's id. Write the id, like S0123ABCD; its page in Slack shows it"
    )


def _channel(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[CG][A-Z0-9]{5,}", value):
        return value
    raise ValueError(
        f"{value!r} is not a channel id. Write the id, like C0123ABCD: it stands at the end of “View channel details”"
    )


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+(s|m|h|d)$")]),
]
PersonId = Annotated[str, BeforeValidator(_person)]
GroupId = Annotated[str, BeforeValidator(_group)]
ChannelId = Annotated[str, BeforeValidator(_channel)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")]


class Strict(BaseModel):
    """A part of the file; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SlackModel(Strict):
    """Where the cards go."""

    channel: ChannelId = Field(description="The channel of every card, by id")
    channels: dict[Name, ChannelId] = Field(default={}, description="Another channel for an environment")


class RepositoryModel(Strict):
    """A GitOps repository."""

    url: str = Field(description="https://… or git@host:…; never with a password in it")
    branch: str = Field(
        default="main", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$", description="The branch to write"
    )
    mode: Literal["push"] = Field(default="push", description="Commits are pushed to the branch")
    commit_url: str | None = Field(default=None, description="A commit's page, with {revision} in it")
    sign: bool = Field(
        default=True,
        description="Commits carry an SSH signature; a must where an environment needs approvals, unless false",
    )
    allow_local: bool = Field(default=False, description="Allow file:// and plain http:// addresses")

    @model_validator(mode="after")
    def _check_url(self) -> RepositoryModel:
        if re.match(r"https?://[^/]*@|ssh://[^/@]*:[^/]*@", self.url):
            raise ValueError("url holds a user or a password; put the token into GIT_TOKEN or GIT_TOKEN_FILE")
        if re.match(r"https://|ssh://|[\w.-]+@[\w.-]+:", self.url):
            return self
        if re.match(r"file://|http://", self.url):
            if self.allow_local:
                return self
            raise ValueError("url is not encrypted; use https:// or ssh, or set allow_local: true for a test")
        raise ValueError("url must begin with https:// or ssh://, or be like git@host:owner/name.git")


class ArgoCDModel(Strict):
    """An Argo CD server. Its token comes from ARGOCD_TOKEN_<SERVER>, else from ARGOCD_TOKEN."""

    url: str = Field(description="Its address, with the path where it runs with --rootpath")
    project: str = Field(
        default="default",
        description="The project of its applications, where they name none; it may hold {app} and {env}",
    )
    namespace: str | None = Field(
        default=None,
        description="The namespace of its Application objects, where they name none and it is not the server's own; it may hold {app} and {env}",
    )
    headers: dict[str, str] = Field(
        default={},
        description="Extra headers for a proxy in front of it; no secrets, as this file holds none",
    )
    allow_local: bool = Field(default=False, description="Allow a plain http:// address")

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in ("authorization", "cookie"):
                raise ValueError(
                    f"{name} would be a secret in this file; the token belongs into ARGOCD_TOKEN"
                )
        return headers

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if re.match(r"https?://[^/]*@", url):
            raise ValueError("it holds a user or a password; put the token into ARGOCD_TOKEN")
        if not re.match(r"https?://", url):
            raise ValueError("must begin with https://")
        return url

    @model_validator(mode="after")
    def _check_encryption(self) -> ArgoCDModel:
        if self.url.startswith("http://") and not self.allow_local:
            raise ValueError(
                "url is not encrypted, and the token would travel in clear; use https://, or set allow_local: true"
            )
        return self


class RegistryModel(Strict):
    """An OCI registry. Its login comes from REGISTRY_USERNAME_<HOST> and REGISTRY_TOKEN_<HOST>, else from REGISTRY_AUTH_FILE."""

    realms: tuple[HostName, ...] = Field(
        default=(), description="Other hosts that it may send the bot to for a token; auth.docker.io is known"
    )
    allow_local: bool = Field(
        default=False, description="Speak plain http:// to it; a must for one on this machine"
    )


class ApplicationModel(Strict):
    """One Argo CD application, where its name alone is not enough. {app} and {env} stand for the target's."""

    name: str = Field(description="Its name")
    project: str | None = Field(default=None, description="Its project; otherwise the server's")
    namespace: str | None = Field(
        default=None,
        description="The namespace of the Application object, for apps in any namespace; otherwise the server's",
    )
    server: str | None = Field(
        default=None, description="One of argocd; otherwise the one that argocd names for the target"
    )


def _application_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Application = Annotated[
    ApplicationModel, BeforeValidator(_application_entry, json_schema_input_type=str | ApplicationModel)
]
"""An entry of `applications`: its name alone, or what is special about it too."""


class TargetDefaults(Strict):
    """How a target is found; values and applications may hold {app} and {env}."""

    repository: str | None = Field(default=None, description="One of repositories")
    argocd: str | None = Field(
        default=None, description="One of argocd: the server of the applications that name none"
    )
    keys: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The version's keys in the values file"
    )
    digests: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The keys of the image's digest; one that is among keys too holds version@sha256:…",
    )
    edit_anchors: bool | None = Field(
        default=None, description="Change an anchor (&name) although other places of the file repeat it"
    )
    values: str | None = Field(default=None, description="The values file in the repository")
    applications: tuple[Application, ...] | None = Field(
        default=None,
        min_length=1,
        description="The Argo CD applications that render the target: it is live when all of them are. Each is a name, or a name with what is special about it",
    )
    channel: ChannelId | None = Field(default=None, description="Another channel")


class AppModel(TargetDefaults):
    """One app; what it does not say, defaults say."""

    image: str = Field(
        pattern=r"^([a-z0-9][a-zA-Z0-9.-]*(:[0-9]+)?/)?[a-z0-9][a-zA-Z0-9._/-]*$",
        description="The image's name without a tag, as the workloads spell it",
    )
    banner: dict[Name, str] = Field(default={}, description="A warning on the cards of an environment")
    environments: dict[Name, TargetDefaults] | None = Field(
        default=None,
        description="Only these environments, each with what is different there; otherwise all of them",
    )


class RuleModel(Strict):
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


def _never_self(value: Any) -> Any:
    if value is False:
        return value
    raise ValueError("must be false: nobody approves their own request")


class ApprovalsModel(Strict):
    """Who must say yes before anything is written."""

    rules: tuple[RuleModel, ...] = Field(min_length=1, description="Each must be met")
    total: int | None = Field(
        default=None, ge=1, description="How many different people in all; without it, the sum of every min"
    )
    self_: Annotated[Literal[False], BeforeValidator(_never_self)] = Field(
        default=False, alias="self", description="Nobody approves their own request"
    )
    expires: Duration = Field(default=timedelta(hours=4), description="How long a request waits")

    @property
    def needed(self) -> int:
        """How many different people in all: at least as many as the strictest rule asks for."""
        if self.total is None:
            return sum(rule.min for rule in self.rules)
        return max(self.total, *(rule.min for rule in self.rules))

    @model_validator(mode="after")
    def _check_total(self) -> ApprovalsModel:
        people = {user for rule in self.rules for user in rule.users}
        if not any(rule.group for rule in self.rules) and len(people) < self.needed:
            raise ValueError(f"total is {self.needed}, but only {len(people)} people are named")
        return self


class RolloutModel(Strict):
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


def _never_blank(value: Any) -> Any:
    if value is None:
        raise ValueError("is there, but says nothing; name the approvers, or take the key out")
    return value


class PolicyModel(Strict):
    """The rules of one environment."""

    approvals: Annotated[ApprovalsModel | None, BeforeValidator(_never_blank)] = Field(
        default=None, description="Without it, nobody has to approve"
    )
    rollout: RolloutModel = Field(default=RolloutModel())


class Config(Strict):
    """`promote.yaml`."""

    version: Literal[1] = Field(description="The version of this file's form")
    environments: tuple[Name, ...] = Field(min_length=1, description="The order of promotion")
    slack: SlackModel
    repositories: dict[str, RepositoryModel] = Field(min_length=1)
    argocd: dict[str, ArgoCDModel] = Field(min_length=1)
    registries: dict[HostName, RegistryModel] = Field(
        default={},
        description="The registries that are asked which build a version is, by host, as images name it; docker.io for Docker Hub",
    )
    defaults: TargetDefaults = Field(default=TargetDefaults())
    apps: dict[Name, AppModel] = Field(min_length=1)
    policies: dict[Name, PolicyModel] = Field(default={})
