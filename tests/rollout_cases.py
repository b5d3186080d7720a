"""What the tests of a rollout share: looks at an application, and somebody who looks again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.core.catalog import Application, Repository, RolloutPolicy, Target
from bot.core.facts import ApplicationFacts, Operation, Pod, Unseen, Workloads
from bot.core.policy import Policy
from bot.core.progress import Progress, Stage, wants_refresh
from bot.core.rollout import Case, Relation, decide

OLD, OURS, LATER, UNKNOWN = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
IMAGE = "ghcr.io/acme/manual-app"
PUSHED_AT = datetime(2026, 8, 24, 9, 0, tzinfo=UTC)
POLICY = RolloutPolicy()
RELATIONS = {
    OLD: Relation(contains=False),
    OURS: Relation(contains=True, author="Priya"),
    LATER: Relation(contains=True, author="Sam"),
    UNKNOWN: Relation(contains=None),
}
REVERTED = RELATIONS | {LATER: Relation(contains=True, holds_value=False, author="Sam")}

APPLICATION = Application(server="main", name="manual-app-prod", project="default")
TARGET = Target(
    app="manual-app",
    environment="prod",
    repository=Repository(name="charts", url="git@git.acme.example:team/manual-app-helm.git", branch="main"),
    path="values-prod.yaml",
    keys=("image.tag",),
    image=IMAGE,
    applications=(APPLICATION,),
    channel="C1",
    policy=Policy(),
    rollout=POLICY,
)


def after(seconds: float) -> datetime:
    """An instant, counted from the push."""
    return PUSHED_AT + timedelta(seconds=seconds)


def operation(**changes: Any) -> Operation:
    """The operation that synced our commit. Argo CD's clock is a little slow, which must not matter."""
    whole = Operation(phase="Succeeded", revision=OURS, is_full=True, finished_at=after(-2))
    return replace(whole, **changes)


def pod(version: str = "15", **changes: Any) -> Pod:
    whole = Pod(name="pod-1", images=(f"{IMAGE}:{version}",), is_ready=True, is_terminating=False)
    return replace(whole, **changes)


def workloads(*pods: Pod, rendered: str = "15") -> Workloads:
    return Workloads(rendered_images=frozenset({f"{IMAGE}:{rendered}"}), pods=pods)


def facts(**changes: Any) -> ApplicationFacts:
    """An application that runs our commit and has been compared since."""
    whole = ApplicationFacts(
        name="manual-app-prod",
        tracks=None,
        automated=True,
        sync="Synced",
        revision=OURS,
        compares_spec=True,
        health="Healthy",
        is_operating=False,
        operation=operation(),
        reconciled_at=after(-1),
        history_revision=OURS,
        workloads=workloads(pod()),
    )
    return replace(whole, **changes)


def unnoticed(**changes: Any) -> ApplicationFacts:
    """The same application while Argo CD knows only the commit before ours: Synced and Healthy, as it happens."""
    old = operation(revision=OLD, finished_at=after(-900))
    whole = facts(
        revision=OLD, history_revision=OLD, operation=old, workloads=workloads(pod("14"), rendered="14")
    )
    return replace(whole, **changes)


def syncing(**changes: Any) -> ApplicationFacts:
    running = operation(phase="Running", finished_at=None)
    return replace(unnoticed(is_operating=True, operation=running, workloads=None), **changes)


def case(now: float = 10, **changes: Any) -> Case:
    whole = Case(
        revision=OURS,
        image=f"{IMAGE}:15",
        committed_at=PUSHED_AT,
        now=after(now),
        policy=POLICY,
        relations=RELATIONS,
        before=None,
    )
    return replace(whole, **changes)


def been(stage: Stage, *, since: float, **changes: Any) -> Progress:
    """What was remembered of an application that has been in a stage for a while."""
    whole = Progress(
        name="manual-app-prod", stage=stage, since=after(since), says="", compared_at=after(since)
    )
    return replace(whole, **changes)


def _refreshed(progress: Progress, now: float) -> Progress:
    return replace(progress, refreshed_at=after(now), refreshes=progress.refreshes + 1)


@dataclass(kw_only=True)
class Following:
    """Looks at an application again and again, as the engine does, and keeps the account of it."""

    policy: RolloutPolicy = POLICY
    relations: dict[str, Relation] = field(default_factory=lambda: dict(RELATIONS))
    progress: Progress | None = None
    refreshed_at: list[float] = field(default_factory=list)

    def look(self, now: float, found: ApplicationFacts | Unseen, *, compared: bool = True) -> Stage:
        """One look; Argo CD compares just before it, unless it does not."""
        if isinstance(found, ApplicationFacts) and compared:
            found = replace(found, reconciled_at=after(now))
        refresh = wants_refresh(self.progress, now=after(now), policy=self.policy)
        before = _refreshed(self.progress, now) if refresh and self.progress else self.progress
        done = decide(found, case(now, before=before, policy=self.policy, relations=self.relations))
        if refresh:
            self.refreshed_at.append(now)
        self.progress = _refreshed(done, now) if refresh and not before else done
        return done.stage

    def every(self, seconds: Sequence[float], found: ApplicationFacts | Unseen) -> Stage:
        """The same look several times."""
        return [self.look(now, found) for now in seconds][-1]
