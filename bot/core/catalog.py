"""What can move where: apps, environments, targets and the policy of each."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from bot.core.errors import Refused
from bot.core.policy import Policy

VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""An image tag, as the OCI distribution specification defines it."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One build of an app's image: its tag, and the digest that proves it, where that is known."""

    version: str
    digest: str = UNKNOWN

    @classmethod
    def parse(cls, text: str) -> Image:
        """From `v15` or `v15@sha256:…`; what follows the `@` and is no digest stays part of the version."""
        version, _, digest = text.partition("@")
        return cls(version=version, digest=digest) if DIGEST.fullmatch(digest) else cls(version=text)

    @property
    def has_digest(self) -> bool:
        """Is it known which build this is?"""
        return self.digest != UNKNOWN

    def may_be(self, other: Image) -> bool:
        """The same version, and as far as both digests are known the same build?"""
        is_other_build = self.has_digest and other.has_digest and self.digest != other.digest
        return self.version == other.version and not is_other_build

    @property
    def short_digest(self) -> str:
        """`sha256:0123456789ab…`, for people."""
        return f"{self.digest[:19]}…" if self.has_digest else self.digest

    def __str__(self) -> str:
        return f"{self.version}@{self.digest}" if self.has_digest else self.version


class Mode(StrEnum):
    """How a commit comes to the branch."""

    PUSH = "push"
    PR = "pr"
    """By a pull request."""
    AUTO = "auto"
    """By a push, and where the branch is protected by a pull request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A branch of a GitOps repository that the bot writes to."""

    name: str
    url: str
    branch: str
    mode: Mode = Mode.PUSH
    commit_url: str | None = None
    """Address of a commit for people, with `{revision}` in it."""
    beside: tuple[str, ...] = ()
    """Other refs that are read with the branch, `refs/heads/main` or `refs/tags/*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Argo CD's object that renders a target; `namespace` is the Application's own, None for the default one."""

    server: str
    name: str
    project: str
    namespace: str | None = None
    link: str | None = None
    """Its page in Argo CD, for people."""

    @property
    def key(self) -> str:
        """What tells it from every other one: the same name may stand on two servers, or in two namespaces."""
        return f"{self.server}/{self.namespace or ''}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The repository that an app is built from; labels of its images name only what is compared with it."""

    url: str
    compare_url: str | None = None
    """Address of a comparison for people, with `{old}` and `{new}` in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The place in a file of the repository where an application's `targetRevision` names a tag."""

    path: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How a version comes to a target that follows a branch or tags: a revision is brought, and no value edited."""

    source: str
    """The branch that the environment before follows; only its revisions are brought."""
    tag: str = ""
    """The tag that is made, `v{version}`; empty where the target's own branch is moved forward."""
    pin: Pin | None = None

    def tag_of(self, version: str) -> str:
        """The tag of a version."""
        return self.tag.replace("{version}", version)

    def version_of(self, tag: str) -> str | None:
        """The version of a tag; None for a tag of another form."""
        before, _, after = self.tag.partition("{version}")
        version = tag[len(before) : len(tag) - len(after)]
        is_ours = VERSION.fullmatch(version) is not None and self.tag_of(version) == tag
        return version if is_ours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPolicy:
    """How patiently a rollout is followed."""

    timeout: timedelta = timedelta(minutes=20)
    stable_for: timedelta = timedelta(seconds=10)
    degraded_grace: timedelta = timedelta(seconds=60)
    pick_up_within: timedelta = timedelta(minutes=10)
    sends_logs: bool = False
    """May requester and approvers be sent, privately, what a pod that failed wrote last?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One app in one environment: the values file, its keys, and the applications that render it."""

    app: str
    environment: str
    repository: Repository
    path: str
    keys: tuple[str, ...]
    image: str
    """The image's name without a tag, as the workloads spell it."""
    applications: tuple[Application, ...]
    channel: str
    audit: str | None = None
    """Where emergencies are told besides, and changes of the rules."""
    policy: Policy
    rollout: RolloutPolicy
    banner: str | None = None
    digests: tuple[str, ...] = ()
    """The keys that hold the image's digest; one that is among `keys` too holds `version@digest`."""
    asks_registry: bool = False
    """Is the image's registry asked which build a version is?"""
    is_tag_only: bool = False
    """Is the tag alone compared, as nobody can prove which build runs?"""
    source: Source | None = None
    expected_differences: tuple[str, ...] = ()
    """Keys of the values file that may differ from one environment to the next, with all below them."""
    edit_anchors: bool = False
    """May an anchor be changed that other places of the file repeat?"""
    release: Release | None = None
    """None: a version comes by an edit of the values file."""
    then: str | None = None
    """The app's environment after this one."""

    @property
    def name(self) -> str:
        """`manual-app/prod`."""
        return f"{self.app}/{self.environment}"

    def called(self, application: Application) -> str:
        """Its name; where another one of the target's has the same, with what tells it apart: `web (eu, team-a)`."""
        others = [each for each in self.applications if each.key != application.key]
        namesakes = [each for each in others if each.name == application.name]
        apart = []
        if any(each.server != application.server for each in namesakes):
            apart.append(application.server)
        if application.namespace and any(each.server == application.server for each in namesakes):
            apart.append(application.namespace)
        return f"{application.name} ({', '.join(apart)})" if apart else application.name

    def content_hash(
        self,
        *,
        old_version: str,
        version: str,
        digest: str,
        changes: Sequence[object],
        dossier: str | None = None,
        brings: str | None = None,
    ) -> str:
        """What an approval is bound to: `sha256:…` over all that is shown and will be changed, and the rules."""
        return sha256(
            repr(
                (
                    self.app,
                    self.environment,
                    self.repository.url,
                    self.repository.branch,
                    self.path,
                    self.keys,
                    self.digests,
                    old_version,
                    version,
                    digest,
                    tuple(changes),
                    self.policy.fingerprint,
                    *([dossier] if dossier else []),
                    *([(self.release, brings)] if self.release else []),
                )
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Every environment, in the order of promotion, and every target."""

    environments: tuple[str, ...]
    targets: tuple[Target, ...]
    fingerprint: str = "unknown"
    identities: Mapping[str, str] = field(default_factory=dict)
    """Slack ids of commit authors by their addresses, in small letters."""

    @property
    def apps(self) -> tuple[str, ...]:
        """The names of all apps, sorted."""
        return tuple(sorted({target.app for target in self.targets}))

    def target(self, app: str, environment: str) -> Target:
        """The target; raises `Refused` with the nearest name where there is none."""
        return self.meant(app, environment)[0]

    def meant(self, app: str | None = None, environment: str | None = None) -> tuple[Target, ...]:
        """The targets of an app, of an environment, of both, or all of them, in the order of the configuration.

        Raises `Refused` with the nearest name for a word that names nothing.
        """
        if app is not None and app not in self.apps:
            raise Refused(f"I know no app called “{app}”.{nearest(app, self.apps)}")
        if environment is not None and environment not in self.environments:
            raise Refused(
                f"I know no environment called “{environment}”.{nearest(environment, self.environments)}"
            )
        found = tuple(
            target
            for target in self.targets
            if app in (None, target.app) and environment in (None, target.environment)
        )
        if not found:
            raise Refused(f"{app} has no {environment} environment.")
        return found

    def before(self, target: Target) -> Target | None:
        """The same app in the environment before this one; None for the first environment the app has."""
        place = self.environments.index(target.environment)
        for environment in reversed(self.environments[:place]):
            for other in self.targets:
                if other.app == target.app and other.environment == environment:
                    return other
        return None

    def is_first(self, target: Target) -> bool:
        """Is this where a version enters the chain? The first environment never holds: the newest wins."""
        return self.before(target) is None


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that helps with a word nobody knows: the nearest match, else the whole list."""
    known = list(known)
    if match := difflib.get_close_matches(word, known, n=1, cutoff=0.5):
        return f" Did you mean “{match[0]}”?"
    return f" There is: {', '.join(known)}." if known else ""


def checked_image(text: str) -> Image:
    """`v15` or `v15@sha256:…` as an image; raises `Refused` with the rule where it can be none."""
    image = Image.parse(text)
    checked_version(image.version)
    return image


def checked_version(version: str) -> str:
    """The version itself, where it can be an image tag; raises `Refused` with the rule where it cannot."""
    if VERSION.fullmatch(version):
        return version
    raise Refused(
        "That is not a version: an image tag has up to 128 letters, digits, “.”, “_” and “-”, "
        "and does not begin with “.” or “-”. Try for example 15 or v1.4.2."
    )


def sha256(text: str) -> str:
    """The text's hash, `sha256:…`."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
