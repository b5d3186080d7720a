"""What is remembered of a rollout between two looks, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.catalog import Application, RolloutPolicy
from bot.core.dossier import Dossier
from bot.core.outcome import Outcome

REFRESH_SOON = timedelta(seconds=5)
"""The first refresh after a push is the one most often lost: a comparison is under way already."""
REFRESH_EVERY = timedelta(seconds=15)
REFRESH_SLOWLY = timedelta(seconds=60)
QUICK_REFRESHES = 5
SETTLES_WITHIN = timedelta(seconds=30)
"""How long every look at something that settles asks for a new comparison."""
SELDOM = timedelta(seconds=15)
"""The pace at which an Argo CD that does not answer is asked."""
FOR_PEOPLE = timedelta(seconds=60)
"""The pace at which an application is asked that waits for a window, or for somebody who presses Sync."""


class Stage(StrEnum):
    """How far the rollout of one application is."""

    UNREACHABLE = "unreachable"
    UNNOTICED = "unnoticed"
    BEHIND = "behind"
    COMPARING = "comparing"
    WAITING = "waiting for its sync"
    CLOSED = "waiting for a sync window"
    UNSYNCED = "waiting for somebody to sync"
    SYNCING = "syncing"
    SETTLING = "settling"
    ROLLING_OUT = "rolling out"
    PAUSED = "paused"
    DEGRADED = "degraded"
    MISMATCH = "mismatch"
    CONFIRMING = "confirming"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_end(self) -> bool:
        """Has the rollout of this application ended?"""
        return self in (Stage.LIVE, Stage.FAILED, Stage.SUPERSEDED)

    @property
    def waits_for_people(self) -> bool:
        """Does it wait for what no time limit of a rollout can know: a window, or somebody who presses Sync?"""
        return self in (Stage.CLOSED, Stage.UNSYNCED)


_MOVES_BY_ITSELF = (Stage.SYNCING, Stage.ROLLING_OUT, Stage.BEHIND, Stage.PAUSED)
"""Stages in which Argo CD tells of each change without being asked to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is remembered of one application between two looks. `stage` began at `since`."""

    name: str
    key: str = ""
    """Which application it is, among those of the same name."""
    stage: Stage
    since: datetime
    says: str
    outcome: Outcome | None = None
    """The name of its end."""
    compared_at: datetime | None = None
    """Argo CD's stamp of the comparison that `stage` began with: a later one proves that it looked again."""
    seen_at: datetime | None = None
    """When it could last be judged."""
    refused_since: datetime | None = None
    """Since when every look has met an answer that stays so until somebody acts."""
    overtime_since: datetime | None = None
    """Since when it has gone on past the time limit of the rollout."""
    refreshed_at: datetime | None = None
    refreshes: int = 0
    """How many were asked for since it could last not be judged."""
    rendered_anew_at: datetime | None = None
    """When Argo CD was asked to forget what it had rendered; once is enough."""
    waits: bool = False
    """Does it wait for people, also while Argo CD is out of sight?"""
    resumed_at: datetime | None = None
    """When a wait for people was over: the time limit counts from there."""
    pods: str = ""
    may_sync: bool = False
    """Does it wait for a sync that the bot may begin?"""
    to_sync: tuple[str, ...] = ()
    """What that sync would change."""

    def not_after(self, now: datetime) -> Progress:
        """The same without a time that is still to come: the clock has jumped back since."""
        return replace(
            self,
            since=min(self.since, now),
            seen_at=_not_after(self.seen_at, now),
            refused_since=_not_after(self.refused_since, now),
            overtime_since=_not_after(self.overtime_since, now),
            refreshed_at=_not_after(self.refreshed_at, now),
            resumed_at=_not_after(self.resumed_at, now),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """An application as it was right before the commit: what was wrong then, this commit has not broken."""

    key: str
    sync: str
    health: str


def _not_after(at: datetime | None, now: datetime) -> datetime | None:
    return min(at, now) if at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The last look at a rollout: what is remembered of every application of the target."""

    applications: tuple[Progress, ...] = field(default=())
    waits_for: str = ""
    """What the promotion waits for, as a sentence for people: an outside system that does not answer."""
    held_by: str = ""
    """Which gates it waits for, as a sentence for people, where it starts when they open."""
    not_before: datetime | None = None
    """Until when that system asked for a pause."""
    tries: int = 0
    """How many times in a row its next step could not be taken."""
    breaks: int = 0
    """How many of those times were a bug of ours."""
    began_at: datetime | None = None
    """The first look in this phase."""
    unseen_since: datetime | None = None
    """Since when it is on the branch, and its host does not show what was merged with it."""
    baseline: tuple[Baseline, ...] = ()
    watched: tuple[Progress, ...] = ()
    """What is remembered of the applications since the rollout failed: it may still come right."""
    recovered: str = ""
    """How it came right after it had failed, as a sentence for people."""
    recovered_at: datetime | None = None
    is_tidied: bool = False
    """Is its pull request closed, and its branch gone?"""
    dossier: Dossier | None = None
    """What was found about the promotion when it was asked for: for the card, and not kept here."""

    def not_after(self, now: datetime) -> Look:
        """The same without a time that is still to come: the clock has jumped back since."""
        return replace(
            self,
            applications=tuple(each.not_after(now) for each in self.applications),
            watched=tuple(each.not_after(now) for each in self.watched),
            began_at=_not_after(self.began_at, now),
        )

    @property
    def may_heal(self) -> bool:
        """Is there nothing in what failed that could only come right by another commit?"""
        failed = [each for each in self.applications if each.stage is Stage.FAILED]
        return bool(failed) and all(each.outcome is not None and each.outcome.may_heal for each in failed)

    def of(self, application: Application) -> Progress | None:
        """What is remembered of one application."""
        return next((each for each in self.applications if each.key == application.key), None)

    def was(self, application: Application) -> Baseline | None:
        """How an application was right before the commit, where Argo CD told."""
        return next((each for each in self.baseline if each.key == application.key), None)


def wants_refresh(progress: Progress | None, *, now: datetime, policy: RolloutPolicy) -> bool:
    """Should this look ask Argo CD to compare anew? A refresh can be lost, so it is asked for again and again."""
    if progress is None:
        return True
    stage = progress.stage
    if stage.is_end or progress.refreshed_at is None:
        return not stage.is_end
    if stage in _MOVES_BY_ITSELF:
        return False
    ago = now - progress.refreshed_at
    if stage.waits_for_people:
        return ago >= FOR_PEOPLE
    if (patience := _patience(stage, policy)) is not None:
        ends_at = progress.since + patience
        return now >= ends_at and (progress.refreshed_at < ends_at or ago >= REFRESH_SOON)
    if stage is Stage.SETTLING and now - progress.since < SETTLES_WITHIN:
        return ago >= timedelta(seconds=2)
    if stage is Stage.UNNOTICED and progress.refreshes <= 1:
        return ago >= REFRESH_SOON
    return ago >= (REFRESH_EVERY if progress.refreshes < QUICK_REFRESHES else REFRESH_SLOWLY)


def wants_rendering(progress: Progress | None) -> bool:
    """Should Argo CD forget what it has rendered? It may hold the manifests of the commit before ours; asked once."""
    return progress is not None and progress.stage is Stage.MISMATCH and progress.rendered_anew_at is None


def next_look(look: Look, *, committed_at: datetime, now: datetime, policy: RolloutPolicy) -> timedelta:
    """When to look again: closely at first, and at the instant when a hold ends."""
    age = now - committed_at
    pace = timedelta(seconds=2)
    if age > timedelta(minutes=2):
        pace = timedelta(seconds=10)
    if age > timedelta(minutes=10):
        pace = timedelta(seconds=20)
    open_ = [progress for progress in look.applications if not progress.stage.is_end]
    if open_ and all(progress.stage is Stage.UNREACHABLE for progress in open_):
        # Ever more seldom, up to a limit: a server in trouble is not helped by questions.
        pace = max(pace, min(SELDOM, now - max(progress.since for progress in open_)))
    if open_ and all(progress.stage.waits_for_people for progress in open_):
        pace = FOR_PEOPLE
    holds = (
        progress.since + policy.stable_for - now for progress in open_ if progress.stage is Stage.CONFIRMING
    )
    ends = (max(hold, timedelta(milliseconds=500)) for hold in holds if hold > timedelta(0))
    return min([pace, *ends])


def _patience(stage: Stage, policy: RolloutPolicy) -> timedelta | None:
    """How long a stage has to last before a new comparison decides."""
    if stage is Stage.CONFIRMING:
        return policy.stable_for
    return policy.degraded_grace if stage in (Stage.DEGRADED, Stage.MISMATCH) else None
