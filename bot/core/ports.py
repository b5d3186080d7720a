"""The few things that the core needs of the world. Each has a real adapter in `bot.integrations`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from bot.core.catalog import UNKNOWN, Application, Image, Repository, Target
from bot.core.dossier import Commits, Dossier
from bot.core.errors import Refused
from bot.core.people import Person
from bot.core.policy import Probe, Window
from bot.core.promotion import Event, LineChange, Phase, Promotion, PromotionId
from bot.core.rollout import ApplicationFacts, Look, Relation


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Aware, in UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the people have seen of a promotion: where its message is, and how far it and its thread are."""

    edition: int = 0
    """How often it was saved: nobody saves over what somebody else has saved since."""
    channel: str | None = None
    ts: str | None = None
    link: str | None = None
    shown: str | None = None
    """The digest of what the message shows."""
    told: int = 0
    """How many events stand in the thread."""
    is_posting: bool = False
    """May it stand in the channel already, although nobody was told where?"""
    edited_at: datetime | None = None
    phase: Phase | None = None
    """The phase that the message shows."""
    is_confirmed: bool = False
    """Was the last edit repeated? An older one of another worker may have arrived after it."""
    reminded: int = 0
    """How many reminders the approvers have had."""
    is_recovery_told: bool = False
    is_glass_told: bool = False
    """Have audit channel and approvers heard of an emergency?"""
    review_reminders: int = 0
    """How many reminders those had who have to look at an emergency."""
    are_logs_sent: bool = False
    warned: bool = False
    """Was the requester told that the card cannot be posted?"""
    not_before: datetime | None = None
    """Until when Slack asked for a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A promotion before and after one step; `before` is None for a new one."""

    before: Promotion | None
    after: Promotion


class Settled(Refused):
    """The delivery was taken before, and there was nothing to do; `said` is the hash of what it said then."""

    def __init__(self, said: str) -> None:
        super().__init__("This was taken before, and there was nothing to do. Send anything else anew.")
        self.said = said


class Store(Protocol):
    """Where promotions are kept. Every method may raise `Unavailable`."""

    async def create(
        self, promotion: Promotion, *, delivery: str | None, holds: bool, instead_of: Change | None = None
    ) -> PromotionId:
        """Save a new promotion, due now, and return its id; `instead_of` ends the one whose hold it takes.

        A `delivery` (a Slack trigger id) that was seen within 48 hours returns the id that it made then, or raises
        `Settled`, and nothing is saved. Where `holds`, raises `TargetBusy` if another promotion holds the target.
        """
        ...

    async def delivered(self, delivery: str) -> PromotionId | None:
        """The promotion that this delivery has made within 48 hours; None where it was not seen, or raises `Settled`."""
        ...

    async def settle(self, delivery: str, *, said: str) -> PromotionId | None:
        """Remember for 48 hours that there was nothing to do for a delivery; `said` is the hash of what it said.

        A delivery that was seen is left as it is: returns the promotion that it has made, or raises `Settled` where
        it had said something else. Safe to repeat.
        """
        ...

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Save the next editions of one target's promotions at once, or raise `Conflict`.

        Each is due now, or where a worker holds it when that worker rests.

        Safe to repeat: what is saved already counts as saved. Where `holds`, a promotion that newly holds the
        target raises `TargetBusy` if another one does. It follows the target while it is `committed`.
        """
        ...

    async def load(self, id: str) -> Promotion | None:
        """The promotion as it stands, or None."""
        ...

    async def events(self, id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Its story in order, from the event that follows edition `after`."""
        ...

    async def holder(self, target: Target) -> PromotionId | None:
        """Which promotion holds the target."""
        ...

    async def followed(self, target: Target) -> PromotionId | None:
        """Which promotion of the target is committed, and its rollout followed."""
        ...

    async def in_phase(self, phase: Phase, *, limit: int = 50) -> tuple[Promotion, ...]:
        """The promotions in a phase, oldest first."""
        ...

    async def count(self, phase: Phase) -> int:
        """How many promotions are in a phase."""
        ...

    async def history(self, target: Target, *, limit: int = 10) -> tuple[Promotion, ...]:
        """The target's promotions, newest first."""
        ...

    async def card(self, id: str) -> Card:
        """What the people have seen of it."""
        ...

    async def save_card(self, id: str, card: Card) -> Card:
        """Remember what the people have seen, and return it as its next edition.

        Raises `Conflict` where somebody has saved another one since. Safe to repeat.
        """
        ...

    async def look(self, id: str) -> Look:
        """The last look at its rollout; empty where there was none."""
        ...

    async def save_look(self, id: str, look: Look) -> None:
        """Remember the last look; the last write wins, and no edition is counted."""
        ...

    async def dossier(self, id: str) -> Dossier | None:
        """What was found about it when it was asked for; None where nothing is kept."""
        ...

    async def save_dossier(self, id: str, dossier: Dossier) -> None:
        """Keep it as long as the promotion may be open."""
        ...

    async def forget_dossier(self, id: str) -> None:
        """The promotion was not made after all."""
        ...


class Queue(Protocol):
    """The due set: which promotion is to be looked at next. Every method may raise `Unavailable`."""

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Up to `limit` promotions that are due; each is due again after `lease`, unless `rest` comes first."""
        ...

    async def renew(self, ids: Sequence[str], *, lease: timedelta) -> None:
        """Put off the next look at these for another `lease`."""
        ...

    async def rest(self, id: str, *, edition: int, after: timedelta | None) -> None:
        """Look again `after` this long; None: never. At once, where the record has moved on from `edition`."""
        ...

    async def wake(self, id: str) -> None:
        """Make it due now, or, where a worker holds it, when that worker rests."""
        ...

    async def wait(self, timeout: float) -> None:
        """Return when something became due, or after `timeout` seconds at the latest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A commit that somebody brought to the branch."""

    revision: str
    author: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A commit of the bot's own, or what a host made of it, with the trailers of its message."""

    revision: str
    at: datetime
    trailers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a trailer, in order."""
        return tuple(value for key, value in self.trailers if key == name)

    def trailer(self, name: str) -> str:
        """The first value of a trailer; empty where there is none."""
        return next(iter(self.all(name)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a commit would change: the version that is there now, each line, and the tip it was read at."""

    old_version: str
    base: str
    changes: tuple[LineChange, ...]
    is_done: bool
    """Does the branch hold the wanted version already, with its digest where the file has one?"""
    brings: str = ""
    """The revision that would be brought, where the target follows a branch or tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """A person in a commit; the email may be missing."""

    name: str
    email: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One commit: put `new` where `old` is at every key of the target. The same edit gives the same commit."""

    target: Target
    promotion: PromotionId
    old: str
    new: str
    digest: str = UNKNOWN
    brings: str = ""
    """The revision that is brought, where the target follows a branch or tags."""
    message: str
    """Subject, body and trailers."""
    author: Author
    at: datetime
    """The date of the commit, for author and committer."""
    base: str
    only_on: str | None = None
    """The tip that it may go onto, and no later one: an approval counted for all else that lies there."""
    since: datetime
    """A promotion is written once: where a commit dated from then on carries its id, none is made."""

    @property
    def branch(self) -> str:
        """The branch of its own on which it is proposed: `promote/P-7Q4ZC2M9KD`."""
        return f"promote/{self.promotion}"


class ValuesRepository(Protocol):
    """The GitOps repositories. Every method may raise `Unavailable`; those that read a value also `Failed`."""

    async def current(self, target: Target) -> Image:
        """What the branch holds at the target's keys now."""
        ...

    async def plan(
        self, target: Target, version: str, *, digest: str = UNKNOWN, brings: str = "", fresh: bool = True
    ) -> Plan:
        """What a commit of `version` would change; `fresh` asks the remote for its tip first.

        Where the target follows a branch or tags, `brings` is the revision; empty takes what is there to be brought.
        """
        ...

    async def stood(self, target: Target, *, limit: int) -> tuple[str, ...]:
        """The versions that the branch held at the target's keys, newest first, equal ones in a row once.

        The first is there now, as the remote says; they are read at the newest `limit` commits that changed the file,
        whoever made them. What held no version that can be read is left out, but for the newest.
        """
        ...

    async def last_push(self, target: Target) -> Push | None:
        """The newest commit that changed the target's file, as far as is known without asking the remote."""
        ...

    async def commit(self, edit: Edit) -> str:
        """Push the edit as one commit and return its revision.

        Raises `Stale` where the value is not `edit.old` any more, `Failed` where the server refuses the push, or
        where the promotion was written before.
        After `Unavailable` only the remote knows: ask `find`.
        """
        ...

    async def propose(self, edit: Edit, *, anew: bool = False) -> str:
        """Push the edit as one commit to its own branch, beside the one that it is for, and return its revision.

        A commit of ours that stands there and is this very edit is left alone; `anew` builds it on the newest tip, once
        that has moved. Raises `Stale` and `Failed` as `commit`, and `Failed` where somebody else wrote the branch.
        """
        ...

    async def find(self, edit: Edit) -> str | None:
        """The promotion's own commit after `edit.base` on the remote branch as it is now, or None."""
        ...

    async def between(self, target: Target, brings: str) -> Commits:
        """The commits that a revision would bring to a target that follows a branch or tags."""
        ...

    async def written(self, repository: Repository, *, limit: int) -> tuple[Written, ...]:
        """The bot's own commits on the remote branch as it is now, newest first.

        Where they come by pull requests, also those that a host has squashed or rebased, whoever is their committer.
        """
        ...

    async def is_on_branch(self, target: Target, revision: str) -> bool:
        """Does the branch still hold this commit? False only where the remote says so now."""
        ...

    async def relate(
        self, target: Target, *, revision: str, commit: str, version: str, digest: str = UNKNOWN
    ) -> Relation:
        """Does `revision` contain `commit`, and does it still hold `version` at the target's keys?

        Where the digest is known and the file holds one, that one too.
        """
        ...


class PullState(StrEnum):
    """Where a pull request stands."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"
    """Without having been merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """A pull request, or a merge request, as its host has it."""

    number: int
    url: str
    state: PullState
    head: str
    """The revision that its branch is at, or was at when it was merged or closed."""
    revision: str | None = None
    """What brought it to the base branch: a merge, a squashed commit or the last rebased one; None for no merge."""
    by: str = ""
    """Who merged or closed it, by their name on the host; empty where nobody tells."""
    is_behind: bool = False
    """Must its branch be built on a newer tip before it can be merged?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """A file that a pull request changes, beside the base branch as that is in it already."""

    path: str
    """Its name afterwards."""
    lines: tuple[tuple[str, ...], tuple[str, ...]] | None
    """Those that went and those that came, without their ends; None where the host does not show them.

    Empty where more than lines changed: where it was added, removed, renamed or made executable.
    """


class PullRequests(Protocol):
    """The hosts on which a commit is proposed. Every method may raise `Unavailable` and `Failed`.

    The pull request of an edit is known by its branch: there is at most one open one.
    """

    async def find(self, edit: Edit) -> PullRequest | None:
        """The edit's pull request in any state; of several the merged one, else the open one, else the newest."""
        ...

    async def open(self, edit: Edit, *, title: str, body: str) -> PullRequest:
        """Open it, or find the one that is open already; safe to repeat."""
        ...

    async def merge(self, edit: Edit, pull: PullRequest, *, revision: str) -> bool:
        """Merge it where its branch is at this very revision; False where the host does not let us, or not yet.

        After `Unavailable` only the host knows: ask `find`.
        """
        ...

    async def files(self, edit: Edit, pull: PullRequest) -> tuple[ChangedFile, ...]:
        """What it changes, by whatever commits; what the base branch brought into it is none of that.

        Of a merged one, what it has brought. Of very many files, the first thousand.
        """
        ...

    async def close(self, edit: Edit, *, why: str) -> PullRequest | None:
        """Close it, say why in a comment, and delete its branch; safe to repeat.

        Returns what it has come to: somebody may have merged it meanwhile. None where there never was one.
        """
        ...

    async def probe(self, repository: Repository) -> str:
        """What the bot may do there, in words for people; raises `Failed` where it may not open pull requests."""
        ...


class Cluster(Protocol):
    """Argo CD."""

    async def observe(
        self, target: Target, application: Application, *, refresh: bool, hard: bool = False
    ) -> ApplicationFacts:
        """One look at an application and its workloads; `refresh` asks for a new comparison first.

        `hard` has the manifests rendered anew for it. Raises `Unavailable` where waiting may help, `Failed` where
        somebody has to act (no such application, no permission, token expired), with its `outcome`.
        """
        ...

    async def last_words(self, application: Application, image: str = "") -> str:
        """A pod in trouble, and the last lines that it wrote, without secrets; empty where nobody tells."""
        ...

    async def rehearse(
        self, application: Application, *, revision: str | None, promotion: str = ""
    ) -> tuple[str, ...]:
        """Try a sync without doing it; returns what it would change, `Deployment/manual-app`. Raises as `sync`.

        Nothing is tried where a sync of this promotion is under way.
        """
        ...

    async def sync(self, application: Application, *, revision: str | None, promotion: str) -> None:
        """Begin a sync to this revision; None where Argo CD itself syncs, which allows its branch alone.

        It is marked with the promotion's id. Raises `Refused` where Argo CD says no and why, `Unavailable` where
        nobody knows.
        """
        ...


class Images(Protocol):
    """The registries of the configuration.

    Every method may raise `Unavailable`, and `Failed` where somebody has to act (no such version, no permission).
    """

    async def digest(self, image: str, version: str) -> str:
        """Which build the registry has for the version now, `sha256:…`; of several platforms that of the index."""
        ...

    async def platforms(self, image: str, digest: str) -> frozenset[str]:
        """What a pod may report that runs this build: its digest, and those of its platforms."""
        ...

    async def labels(self, image: str, digest: str) -> Mapping[str, str]:
        """The labels of a build, `org.opencontainers.image.revision` and the like; hints, not proofs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """What the windows of a policy say at one moment."""

    is_open: bool
    says: str = ""
    """Why it is closed, in the window's own words; empty where it is open."""
    changes_at: datetime | None = None
    """When that changes next; None where nobody can tell, or never."""


class Calendar(Protocol):
    """What the clock says of windows."""

    def hours(self, windows: Sequence[Window], at: datetime) -> Hours:
        """Open or closed at this moment: a window that denies goes before one that allows. Raises `Failed`."""
        ...


class Probes(Protocol):
    """Questions to other systems."""

    async def ask(self, probe: Probe, target: Target, image: Image) -> str:
        """Why the gate is closed, in words for people; empty where it is open.

        Raises `Unavailable` where no answer came in time, or none that can be read.
        """
        ...


class Sources(Protocol):
    """The repositories that the apps are built from, as `source` of an app names them."""

    async def between(self, target: Target, old: Image, new: Image) -> Commits:
        """The commits that lie between two builds; `unknown` says why nobody can tell. Raises nothing."""
        ...


class Watched(Protocol):
    """What a target's applications render from, besides the value that is promoted."""

    async def commits(self, target: Target) -> tuple[Commits, bool]:
        """The commits to it since the revision that the target runs, and whether Argo CD waits for somebody to sync.

        `unknown` says why nobody can tell. Raises `Unavailable`.
        """
        ...

    async def parameters(self, target: Target) -> str:
        """A hash of what stands in the Applications themselves and is rendered too. Raises `Unavailable`."""
        ...

    async def differences(self, target: Target, source: Target) -> tuple[str, ...]:
        """The keys in which their values files differ although nobody expects it. Raises `Unavailable`, `Failed`."""
        ...


class Announcer(Protocol):
    """Slack's channels. Every method may raise `Unavailable` and `Closed`; `edit` and `tell` also `Gone`."""

    def digest(self, target: Target, promotion: Promotion, look: Look) -> str:
        """A short word for what the card would show: equal words, equal cards."""
        ...

    async def post(self, target: Target, promotion: Promotion, look: Look) -> Card:
        """Post the card and return its place."""
        ...

    async def posted(self, target: Target, promotion: Promotion) -> Card | None:
        """The place of a card that was posted although no answer came; None where there is none, or none to be seen."""
        ...

    async def edit(self, card: Card, target: Target, promotion: Promotion, look: Look) -> None:
        """Make the posted message show the promotion as it is."""
        ...

    async def tell(
        self, card: Card, promotion: Promotion, events: Sequence[Event], *, dossier: Dossier | None = None
    ) -> None:
        """Add these events to the thread, in one message; with the request what the card has no room for."""
        ...

    async def send_logs(self, card: Card, promotion: Promotion, words: str, *, to: Collection[str]) -> None:
        """Send each of these people, directly, what a pod that failed wrote last."""
        ...

    async def tell_recovery(self, card: Card, says: str) -> None:
        """Say in the thread that what had failed came right."""
        ...

    async def remind(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Ask those who may still approve, in the thread and directly."""
        ...

    async def tell_emergency(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Tell the audit channel, and every approver by id directly, that glass was broken."""
        ...

    async def remind_review(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Ask, in the audit channel and the thread, that somebody look at an emergency."""
        ...

    async def warn(self, target: Target, promotion: Promotion) -> None:
        """Tell the requester, directly, that the card cannot be posted."""
        ...


class Directory(Protocol):
    """Slack's people. Every method raises `Unavailable` where it cannot answer: nobody is waved through."""

    async def person(self, user: str) -> Person:
        """Who this is, as Slack says now."""
        ...

    async def members(self, group: str) -> frozenset[str]:
        """The people of a user group now; empty for one that is disabled."""
        ...

    async def owner_of(self, email: str) -> str | None:
        """The id of the person with this address; None where nobody has it."""
        ...
