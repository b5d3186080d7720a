"""One look at one application: what a decision about it is made from, and what it may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from bot.core.catalog import RolloutPolicy
from bot.core.facts import ApplicationFacts
from bot.core.outcome import Outcome
from bot.core.progress import Baseline, Progress, Stage


class Verdict(NamedTuple):
    """A stage, what to say of it, and where it is an end, the name of that end."""

    stage: Stage
    says: str
    outcome: Outcome | None = None


def failed(outcome: Outcome, says: str) -> Verdict:
    """An end that is none of the good ones."""
    return Verdict(Stage.FAILED, says, outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How a revision stands to our commit: does it contain it (None: unknown), and still hold our value?"""

    contains: bool | None
    holds_value: bool = True
    author: str = "somebody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that one decision needs: the commit, where it went, the clock, and what was remembered."""

    revision: str
    image: str
    """The promoted image with its tag."""
    digests: frozenset[str] = frozenset()
    """What a pod may report that runs the very build, where that is known."""
    committed_at: datetime
    now: datetime
    policy: RolloutPolicy
    relations: Mapping[str, Relation]
    before: Progress | None
    baseline: Baseline | None = None
    """The application right before the commit, where that is known."""
    is_lost: bool = False
    """Has somebody taken the commit off the branch?"""

    def relation(self, revision: str | None) -> Relation:
        """How a revision stands to our commit; an unknown one is never success."""
        if revision is None:
            return Relation(contains=None)
        return self.relations.get(revision, Relation(contains=None))

    def has(self, revision: str | None) -> bool:
        """Does this revision surely contain our commit?"""
        return self.relation(revision).contains is True

    @property
    def began_at(self) -> datetime:
        """From when the time limit counts: a wait for people does not use it up."""
        resumed_at = self.before.resumed_at if self.before else None
        return max(self.committed_at, resumed_at) if resumed_at else self.committed_at

    @property
    def is_late(self) -> bool:
        """Is the time for the whole rollout up?"""
        return self.now - self.began_at >= self.policy.timeout

    def has_lasted(self, stage: Stage, patience: timedelta, facts: ApplicationFacts) -> bool:
        """Has this stage lasted so long, over two comparisons at the least?"""
        before = self.before
        if before is None or before.stage is not stage or self.now - before.since < patience:
            return False
        if before.compared_at is None or facts.reconciled_at is None:
            return False
        return facts.reconciled_at > before.compared_at


def minutes(span: timedelta) -> str:
    """`12 minutes`."""
    return f"{int(span.total_seconds() // 60)} minutes"
