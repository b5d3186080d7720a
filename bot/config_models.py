"""The shape of `promote.yaml`: every key, what it means, and what it may hold."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bot.config_fields import ChannelId, Email, HostName, Name, PersonId, Strict
from bot.config_forges import Forge
from bot.core.image_name import ImageName
from bot.policy_models import PolicyModel


class SlackModel(Strict):
    """Where the cards go."""

    channel: ChannelId = Field(description="The channel of every card, by id")
    channels: dict[Name, ChannelId] = Field(default={}, description="Another channel for an environment")
    audit: ChannelId | None = Field(
        default=None, description="Where emergencies and changed policies are told besides, by id"
    )


class GitModel(Strict):
    """A git repository's address."""

    url: str = Field(description="https://… or git@host:…; never with a password in it")
    allow_local: bool = Field(default=False, description="Allow file:// and plain http:// addresses")

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if re.match(r"https?://[^/]*@|ssh://[^/@]*:[^/]*@", self.url):
            raise ValueError("url holds a user or a password; put the token into GIT_TOKEN or GIT_TOKEN_FILE")
        if re.match(r"https://|ssh://|[\w.-]+@[\w.-]+:", self.url):
            return self
        if re.match(r"file://|http://", self.url):
            if self.allow_local:
                return self
            raise ValueError("url is not encrypted; use https:// or ssh, or set allow_local: true for a test")
        raise ValueError("url must begin with https:// or ssh://, or be like git@host:owner/name.git")


BRANCH = r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$"


class RepositoryModel(GitModel):
    """A GitOps repository."""

    branch: str = Field(default="main", pattern=BRANCH, description="The branch to write")
    mode: Literal["push", "pr", "auto"] = Field(
        default="push",
        description="push: commits are pushed to the branch; pr: they come by pull requests; auto: by one where the branch takes no push",
    )
    host: Literal["github", "gitlab"] | None = Field(
        default=None,
        description="Whose API takes pull requests; known for github.com, *.ghe.com and gitlab.com",
    )
    api: str | None = Field(
        default=None,
        description="Where that API is, if not where such a host has it: https://host/api/v3, https://host/api/v4",
    )
    commit_url: str | None = Field(default=None, description="A commit's page, with {revision} in it")
    sign: bool = Field(
        default=True,
        description="Commits carry an SSH signature; a must where an environment needs approvals, unless false",
    )

    @property
    def forge(self) -> Forge:
        """Where pull requests are opened; raises `ValueError` where the address does not tell."""
        return Forge.of(self.url, host=self.host, api=self.api, allow_local=self.allow_local)

    @model_validator(mode="after")
    def _check_forge(self) -> Self:
        if self.mode != "push":
            assert self.forge  # noqa: S101 - it raises what is wrong
        return self


class SourceModel(GitModel):
    """The repository that an app is built from."""

    compare_url: str | None = Field(
        default=None, description="A comparison's page, with {old} and {new} in it"
    )

    @field_validator("compare_url")
    @classmethod
    def _check_compare_url(cls, url: str | None) -> str | None:
        if url is not None and not (re.match("https?://", url) and "{old}" in url and "{new}" in url):
            raise ValueError(
                "must be an address that holds {old} and {new}, like https://…/compare/{old}...{new}"
            )
        return url


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


class PinModel(Strict):
    """The place in a file of the repository where an application's targetRevision names a tag."""

    file: str = Field(description="The file, like argocd/{app}-{env}.yaml")
    key: str = Field(default="spec.source.targetRevision", description="The key in it")


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
    expected_differences: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None,
        description="Keys of the values file that may differ from one environment to the next, with all below them",
    )
    values: str | None = Field(default=None, description="The values file in the repository")
    branch: str | None = Field(
        default=None,
        pattern=BRANCH,
        description="Another branch of the repository; otherwise the repository's",
    )
    strategy: Literal["values", "branch", "tag"] | None = Field(
        default=None,
        description="How a version comes there. values: the values file is edited; branch: the branch is moved forward to what the environment before runs; tag: a tag is made on that",
    )
    tag: str | None = Field(
        default=None, description="The name of the tags, with {version} in it; otherwise v{version}"
    )
    pin: PinModel | None = Field(
        default=None,
        description="Where targetRevision names the tag, in a file of this branch; it is moved there",
    )
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
    source: SourceModel | None = Field(
        default=None, description="The repository that it is built from: whose commits a promotion brings"
    )
    same_image: Literal["tag-only"] | None = Field(
        default=None, description="tag-only: compare the tag alone, as nobody can prove which build runs"
    )
    banner: dict[Name, str] = Field(default={}, description="A warning on the cards of an environment")
    policies: dict[Name, PolicyModel] = Field(
        default={}, description="Rules of this app; each takes the place of the environment's"
    )
    environments: dict[Name, TargetDefaults] | None = Field(
        default=None,
        description="Only these environments, each with what is different there; otherwise all of them",
    )


def _action(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(ACTION, value):
        return value
    raise ValueError(f"{value!r} is no action: write set-image, check:* or check: with a check's name")


ACTION = r"set-image|check:(\*|[a-z0-9][a-z0-9._-]{0,39})"
Action = Annotated[
    str, BeforeValidator(_action, json_schema_input_type=Annotated[str, Field(pattern=f"^({ACTION})$")])
]
NameOrAll = Annotated[str, Field(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,39})$")]
HookName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
"""Small letters, digits and dashes, so that no two names share a HOOK_KEY_<NAME>."""


class HookModel(Strict):
    """What one caller of the HTTP hook may do. Its key comes from HOOK_KEY_<NAME>."""

    apps: tuple[NameOrAll, ...] = Field(min_length=1, description='For which apps; "*" for all')
    environments: tuple[NameOrAll, ...] = Field(
        min_length=1, description='In which environments; "*" for all'
    )
    actions: tuple[Action, ...] = Field(
        min_length=1, description="check:NAME or check:* to report checks, set-image to write a version"
    )

    def may_report(self, check: str, app: str) -> bool:
        """Is this somebody who reports the check, in any environment of the app?"""
        return bool({app, "*"} & set(self.apps) and {f"check:{check}", "check:*"} & set(self.actions))


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
    policies: dict[Name, PolicyModel] = Field(default={}, description="The rules of each environment")
    identities: dict[Email, PersonId] = Field(
        default={}, description="Who is who, where the address of a commit's author is not the one in Slack"
    )
    hooks: dict[HookName, HookModel] = Field(default={}, description="The callers of the HTTP hook")

    def environments_of(self, app: AppModel) -> list[str]:
        """The environments that the app has, in the order of promotion."""
        return [each for each in self.environments if app.environments is None or each in app.environments]

    def setting(self, app: AppModel, environment: str, key: str) -> Any:
        """What holds for a target: the environment's own word, else the app's, else the defaults'."""
        for source in ((app.environments or {}).get(environment), app, self.defaults):
            if source is not None and (value := getattr(source, key)) is not None:
                return value
        return None

    def asks_registry(self, app: AppModel) -> bool:
        """Is the registry of the app's image one of those that are asked?"""
        try:
            return ImageName.parse(app.image).host in self.registries
        except ValueError:
            return False


def filled(text: str, app: str, environment: str) -> str:
    """The text with what {app} and {env} stand for."""
    return text.replace("{app}", app).replace("{env}", environment)
