"""A promotion: one request that a target run a version, and every step it can take.

A promotion is a value. Each transition is a pure method that checks where the promotion stands and returns the
next value, with the one event that made it. Policy and people are passed in; the record holds facts alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from bot.core.catalog import UNKNOWN, Target
from bot.core.errors import Refused
from bot.core.outcome import Outcome

SCHEMA = 2
"""The newest form of a record; 2 may say how it was asked for, and what was found: older versions would drop that."""
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

PromotionId = NewType("PromotionId", str)
ID = re.compile(f"P-[{CROCKFORD}]{{10}}")


class Phase(StrEnum):
    """Where a promotion stands."""

    REQUESTED = "requested"
    APPROVED = "approved"
    COMMITTING = "committing"
    COMMITTED = "committed"
    LIVE = "live"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    STALE = "stale"

    @property
    def is_final(self) -> bool:
        """Does nothing come after it?"""
        return not NEXT[self]

    @property
    def holds(self) -> bool:
        """Does it keep other requests away from the target?"""
        return self in HOLDING


HOLDING = frozenset({Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING})

NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.REQUESTED: frozenset(
        {Phase.APPROVED, Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.SUPERSEDED, Phase.STALE}
    ),
    Phase.APPROVED: frozenset(
        {
            Phase.COMMITTING,
            Phase.REQUESTED,
            Phase.CANCELLED,
            Phase.SUPERSEDED,
            Phase.STALE,
            Phase.FAILED,
            Phase.EXPIRED,
        }
    ),
    Phase.COMMITTING: frozenset(
        {Phase.COMMITTED, Phase.APPROVED, Phase.STALE, Phase.FAILED, Phase.SUPERSEDED}
    ),
    Phase.COMMITTED: frozenset({Phase.LIVE, Phase.FAILED, Phase.SUPERSEDED}),
    Phase.LIVE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.REJECTED: frozenset(),
    Phase.EXPIRED: frozenset(),
    Phase.CANCELLED: frozenset(),
    Phase.SUPERSEDED: frozenset(),
    Phase.STALE: frozenset(),
}
"""Which phase may follow which; a change within `requested` (an approval, a withdrawal) is no change of phase."""


class Way(StrEnum):
    """Another way to the commit than the ordinary one."""

    AT_ONCE = "at once"
    """A rollback that needs no approval."""
    EMERGENCY = "emergency"
    """Glass was broken: it passes the gates that the policy names."""


class Decision(StrEnum):
    """What a person put their name to."""

    REQUEST = "request"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How it was asked for, and what was found about it."""

    way: Way | None = None
    incident: str | None = None
    waits: bool = False
    dossier: str | None = None
    build: str | None = None
    brings: str | None = None


ORDINARY = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A person as the record keeps them: Slack ids decide, name and email are for show."""

    id: str
    team: str
    name: str
    email: str | None = None

    @classmethod
    def machine(cls, name: str) -> Signer:
        """A caller of the HTTP hook, by its name in `promote.yaml`."""
        return cls(id=f"hook:{name}", team="ci", name=f"{name} (CI)")

    @property
    def is_person(self) -> bool:
        """Is this somebody in Slack? The id of a machine, or of a commit's author, has a colon in it."""
        return ":" not in self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One person's recorded word, bound to the content that was shown, and sealed."""

    by: Signer
    at: datetime
    content_hash: str
    seal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChange:
    """One line of the values file, before and after."""

    path: str
    number: int
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step of the story: what happened, who did it and why; `edition` is the record's number after it."""

    edition: int
    at: datetime
    what: str
    phase: Phase
    by: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One request that a target run a version. `edition` counts the record's changes, from 1."""

    id: PromotionId
    schema: int = field(default=1, compare=False)
    """The form that its record was last kept in."""
    edition: int
    phase: Phase
    app: str
    environment: str
    source: str
    """The environment that the version comes from; `ci` for the first environment."""
    version: str
    old_version: str
    digest: str = UNKNOWN
    changes: tuple[LineChange, ...]
    content_hash: str
    requested_by: Signer
    requested_at: datetime
    request_seal: str
    reason: str | None = None
    build: str | None = None
    """The address of the build that it comes from, where a machine asked for it."""
    rollback_of: str | None = None
    """The promotion that it takes back, where it is a rollback; `unknown` where nobody knows its id."""
    way: Way | None = None
    """None: the ordinary one."""
    incident: str | None = None
    """What burns, where it is an emergency."""
    waits: bool | None = None
    """Does it start when the gates open, however long that takes?"""
    dossier: str | None = None
    """The fingerprint of what was found about it when it was asked for."""
    expires_at: datetime
    approvals: tuple[Approval, ...] = ()
    approved_at: datetime | None = None
    link: str | None = None
    """The card's permalink, fixed when the promotion was approved, for the commit's trailers."""
    brings: str | None = None
    """The revision that the target's branch or tag will be at, where no value is edited."""
    base: str | None = None
    """The branch's tip when the commit was built: only later commits can be this promotion's."""
    branch: str | None = None
    """The branch of its own, where it goes by a pull request; on record before there is one."""
    pull_request: str | None = None
    """The page of its pull request, once that is open."""
    proposed: str | None = None
    """The bot's own commit on that branch, as far as that is on record."""
    besides: str | None = None
    """What was merged with the pull request beside what was approved: names of files; empty where nobody could see."""
    revision: str | None = None
    committed_at: datetime | None = None
    ended_at: datetime | None = None
    ending: str | None = None
    """Why it ended, in words for people."""
    outcome: Outcome | None = None
    """How the rollout ended, by name."""
    reviewed_by: str | None = None
    """Who has looked at an emergency afterwards, by Slack id."""
    last: Event

    @property
    def target(self) -> str:
        """`manual-app/prod`."""
        return f"{self.app}/{self.environment}"

    @property
    def title(self) -> str:
        """`manual-app 15 to prod`."""
        return f"{self.app} {self.version} to {self.environment}"

    @property
    def is_emergency(self) -> bool:
        """Was glass broken for it?"""
        return self.way is Way.EMERGENCY

    @property
    def needs_review(self) -> bool:
        """Does somebody else still have to look at it?"""
        return self.is_emergency and self.revision is not None and self.reviewed_by is None

    @property
    def is_rollback(self) -> bool:
        """Does it bring back what was there before?"""
        return self.rollback_of is not None

    @property
    def rolls_out(self) -> str | None:
        """The revision that Argo CD has to reach: what is brought, or else the commit."""
        return (self.brings or self.revision) if self.revision else None

    @property
    def may_be_written(self) -> bool:
        """May a push that nobody saw the end of still arrive? What is only proposed can be called off."""
        return self.base is not None and self.branch is None

    def approved_by(self, user: str) -> bool:
        """Has this person approved, and not withdrawn?"""
        return any(approval.by.id == user for approval in self.approvals)

    def approve(self, approval: Approval) -> Promotion:
        """One more approval; raises `Refused` where it is too late or was given before."""
        self.require_open("approve")
        if approval.at >= self.expires_at:
            raise Refused(f"{self.id} has expired; ask again with /promote.")
        if self.approved_by(approval.by.id):
            raise Refused(f"You have already approved {self.id}.")
        if approval.content_hash != self.content_hash:
            raise Refused(f"{self.id} is not what that button showed; look at its card and decide again.")
        return self._next(
            at=approval.at, what="approval", by=approval.by.id, approvals=(*self.approvals, approval)
        )

    def withdraw(self, *, by: str, at: datetime) -> Promotion:
        """Take back one's own approval, as long as the quorum is not reached."""
        self.require_open("withdraw from")
        if not self.approved_by(by):
            raise Refused(f"You have not approved {self.id}, so there is nothing to withdraw.")
        kept = tuple(approval for approval in self.approvals if approval.by.id != by)
        return self._next(at=at, what="withdrawal", by=by, approvals=kept)

    def reject(self, *, by: str, at: datetime, why: str) -> Promotion:
        """One rejection ends it."""
        self.require_open("reject")
        return self._end(Phase.REJECTED, at=at, by=by, why=why)

    def cancel(self, *, by: str | None, at: datetime, why: str | None) -> Promotion:
        """Nobody wants it any more; possible until the commit is under way. `by` is None for somebody outside of Slack."""
        if self.phase not in (Phase.REQUESTED, Phase.APPROVED) or self.may_be_written:
            raise Refused(f"It is too late to cancel {self.id}: {self.told}.")
        return self._end(Phase.CANCELLED, at=at, by=by, why=why)

    def expire(self, *, at: datetime, why: str) -> Promotion:
        """Nobody decided in time, or it could not be written in time."""
        return self._end(Phase.EXPIRED, at=at, why=why)

    def supersede(self, *, at: datetime, why: str, outcome: Outcome | None = None) -> Promotion:
        """A newer promotion or commit took its place; never while only git knows whether it was written."""
        if self.phase is Phase.COMMITTING:
            raise Refused(f"It is too late to replace {self.id}: {self.told}.")
        return self._end(Phase.SUPERSEDED, at=at, why=why, outcome=outcome)

    def outdate(self, *, at: datetime, why: str) -> Promotion:
        """The target is not what was shown any more; nothing was committed."""
        return self._end(Phase.STALE, at=at, why=why)

    def reach_quorum(self, *, at: datetime, link: str | None) -> Promotion:
        """Enough people have approved; the commit's date and link are fixed from here."""
        return self._move(
            Phase.APPROVED, only=Phase.REQUESTED, at=at, what="approved", approved_at=at, link=link
        )

    def lose_quorum(self, *, at: datetime, kept: tuple[Approval, ...], why: str) -> Promotion:
        """An approver lost the right: it waits for approvals again."""
        return self._move(
            Phase.REQUESTED,
            at=at,
            what="quorum lost",
            why=why,
            approvals=kept,
            approved_at=None,
            pull_request=None,
        )

    def propose(self, *, at: datetime, branch: str, base: str, approvals: tuple[Approval, ...]) -> Promotion:
        """It goes by a pull request from this branch, with the approvals that count; it stays approved until merged."""
        if self.phase is not Phase.APPROVED:
            raise Refused(f"{self.id} cannot be proposed: {self.told}.")
        return self._next(at=at, what="proposing", branch=branch, base=self.base or base, approvals=approvals)

    def open_pull_request(self, *, at: datetime, url: str, proposed: str) -> Promotion:
        """Its pull request is open at the commit that is proposed; or that one is another one now."""
        if self.phase is not Phase.APPROVED:
            raise Refused(f"{self.id} has no pull request to wait for: {self.told}.")
        what = "proposing" if url == self.pull_request else "pull request"
        return self._next(at=at, what=what, why=url, pull_request=url, proposed=proposed)

    def tell_besides(self, *, at: datetime, besides: str) -> Promotion:
        """Its pull request was merged, with more than was approved; `besides` is empty where nobody could see."""
        if self.phase is not Phase.APPROVED:
            raise Refused(f"{self.id} has no pull request that was merged: {self.told}.")
        return self._next(at=at, what="merged besides", why=besides or None, besides=besides)

    def take_back(self, *, at: datetime, why: str) -> Promotion:
        """Its pull request is closed for now; the next one is opened when it may be merged."""
        if self.phase is not Phase.APPROVED:
            raise Refused(f"{self.id} has no pull request to take back: {self.told}.")
        return self._next(at=at, what="taken back", why=why, pull_request=None)

    def start_commit(
        self, *, at: datetime, base: str, approvals: tuple[Approval, ...] | None = None
    ) -> Promotion:
        """The commit is built on `base`, with the approvals that count; from here only git knows if it happened."""
        kept = self.approvals if approvals is None else approvals
        what = "committing again" if self.base else "committing"
        return self._move(Phase.COMMITTING, at=at, what=what, base=base, approvals=kept)

    def reopen(self, *, at: datetime) -> Promotion:
        """The remote was read and does not hold the commit: everything is checked again before another try."""
        return self._move(Phase.APPROVED, only=Phase.COMMITTING, at=at, what="not written")

    def draft_anew(
        self, *, at: datetime, old_version: str, changes: tuple[LineChange, ...], content_hash: str
    ) -> Promotion:
        """The target holds something else by now, and that is gone on from; it has to be sealed anew."""
        if self.phase is not Phase.APPROVED:
            raise Refused(f"{self.id} cannot be drafted anew: {self.told}.")
        return self._next(
            at=at,
            what="drafted anew",
            why=old_version,
            old_version=old_version,
            changes=changes,
            content_hash=content_hash,
        )

    def commit(self, *, at: datetime, revision: str) -> Promotion:
        """The commit is on the remote branch; what only led to it is not kept any more."""
        return self._move(
            Phase.COMMITTED,
            at=at,
            what="committed",
            why=revision,
            revision=revision,
            committed_at=at,
            base=None,
            proposed=None,
            approved_at=None,
        )

    def commit_late(self, *, at: datetime, revision: str, why: str) -> Promotion:
        """The commit is on the remote branch, and a newer one on top of it is followed already."""
        return self._move(
            Phase.SUPERSEDED,
            only=Phase.COMMITTING,
            at=at,
            what="superseded",
            why=why,
            revision=revision,
            committed_at=at,
            ended_at=at,
            ending=why,
        )

    def ask_to_sync(self, *, by: str, at: datetime) -> Promotion:
        """Somebody has Argo CD sync what it does not sync by itself."""
        if self.phase is not Phase.COMMITTED:
            raise Refused(f"There is nothing to sync for {self.id}: {self.told}.")
        return self._next(at=at, what="sync", by=by)

    def review(self, *, by: str, at: datetime, why: str | None) -> Promotion:
        """Somebody else has looked at an emergency."""
        if not self.is_emergency:
            raise Refused(f"{self.id} was no emergency, so there is nothing to review.")
        if self.reviewed_by:
            raise Refused(f"{self.id} has been reviewed already.")
        if self.revision is None:
            raise Refused(f"There is nothing to review of {self.id}: {self.told}.")
        return self._next(at=at, what="review", by=by, why=why, reviewed_by=by)

    def go_live(self, *, at: datetime, why: str, outcome: Outcome | None = Outcome.LIVE) -> Promotion:
        """Every application of the target runs the version, proved."""
        return self._end(Phase.LIVE, at=at, why=why, outcome=outcome)

    def fail(self, *, at: datetime, why: str, outcome: Outcome | None = None) -> Promotion:
        """It cannot go on."""
        return self._end(Phase.FAILED, at=at, why=why, outcome=outcome)

    @property
    def told(self) -> str:
        """What became of it, and when, as the end of a sentence: “it was rejected at 14:02 UTC”."""
        at = f"at {self.last.at:%H:%M} UTC"
        names = " and ".join(approval.by.name for approval in self.approvals)
        story = {
            Phase.REQUESTED: "it waits for approval",
            Phase.APPROVED: f"it was approved{f' by {names}' if names else ''} {at} and is about to be written"
            if self.pull_request is None
            else f"its pull request waits to be merged: {self.pull_request}",
            Phase.COMMITTING: "its commit is being written",
            Phase.COMMITTED: f"it is committed as {(self.revision or '')[:8]} and rolling out",
            Phase.LIVE: f"it is live since {self.last.at:%H:%M} UTC",
            Phase.FAILED: f"its rollout ended {at}: {self.outcome}" if self.outcome else f"it failed {at}",
            Phase.REJECTED: f"it was rejected {at}",
            Phase.EXPIRED: f"it expired {at}",
            Phase.CANCELLED: f"it was cancelled {at}",
            Phase.SUPERSEDED: f"a newer one took its place {at}",
            Phase.STALE: f"the target changed after it was asked for, seen {at}",
        }
        return story[self.phase]

    def require_open(self, verb: str) -> None:
        """Raise `Refused` unless it waits for approvals; `verb` is what somebody wants to do."""
        if self.phase is not Phase.REQUESTED:
            raise Refused(f"You cannot {verb} {self.id} any more: {self.told}.")

    def _end(
        self,
        phase: Phase,
        *,
        at: datetime,
        by: str | None = None,
        why: str | None = None,
        outcome: Outcome | None = None,
    ) -> Promotion:
        return self._move(
            phase, at=at, what=phase.value, by=by, why=why, ended_at=at, ending=why, outcome=outcome
        )

    def _move(
        self, phase: Phase, *, only: Phase | None = None, at: datetime, what: str, **changes: Any
    ) -> Promotion:
        """Where two ways lead to a phase, `only` says which one this is: reopening must not skip the quorum."""
        if phase not in NEXT[self.phase] or only not in (None, self.phase):
            raise Refused(f"{self.id} cannot become {phase}: {self.told}.")
        return self._next(at=at, what=what, phase=phase, **changes)

    def _next(
        self,
        *,
        at: datetime,
        what: str,
        phase: Phase | None = None,
        by: str | None = None,
        why: str | None = None,
        **changes: Any,
    ) -> Promotion:
        phase = phase or self.phase
        edition = self.edition + 1
        event = Event(edition=edition, at=at, what=what, phase=phase, by=by, why=why)
        return replace(self, edition=edition, phase=phase, last=event, **changes)


def new_id() -> PromotionId:
    """`P-` and ten random Crockford characters: 50 bits, easy to read aloud."""
    return PromotionId("P-" + "".join(secrets.choice(CROCKFORD) for _ in range(10)))


def rebuilt(
    target: Target,
    *,
    id: PromotionId,
    source: str,
    version: str,
    old_version: str,
    by: Signer,
    approved_by: Sequence[Signer],
    at: datetime,
    revision: str,
    digest: str = UNKNOWN,
    reason: str | None = None,
    rollback_of: str | None = None,
) -> Promotion:
    """What a commit tells of a promotion whose record was lost: it is followed from there. No seal is needed any more."""
    return Promotion(
        id=id,
        edition=1,
        phase=Phase.COMMITTED,
        app=target.app,
        environment=target.environment,
        source=source,
        version=version,
        old_version=old_version,
        changes=(),
        content_hash=UNKNOWN,
        requested_by=by,
        requested_at=at,
        request_seal=UNKNOWN,
        expires_at=at,
        approvals=tuple(Approval(by=each, at=at, content_hash=UNKNOWN, seal=UNKNOWN) for each in approved_by),
        approved_at=at,
        revision=revision,
        committed_at=at,
        digest=digest,
        reason=reason,
        rollback_of=rollback_of,
        last=Event(edition=1, at=at, what="rebuilt", phase=Phase.COMMITTED, why=revision),
    )


def request(
    target: Target,
    *,
    id: PromotionId,
    source: str,
    version: str,
    old_version: str,
    changes: tuple[LineChange, ...],
    digest: str = UNKNOWN,
    by: Signer,
    at: datetime,
    reason: str | None,
    rollback_of: str | None = None,
    terms: Terms = ORDINARY,
) -> Promotion:
    """A new promotion, waiting for approvals; the first edition of its record. It counts once it is sealed."""
    return Promotion(
        id=id,
        edition=1,
        phase=Phase.REQUESTED,
        app=target.app,
        environment=target.environment,
        source=source,
        version=version,
        old_version=old_version,
        changes=changes,
        digest=digest,
        content_hash=target.content_hash(
            old_version=old_version,
            version=version,
            digest=digest,
            changes=changes,
            dossier=terms.dossier,
            brings=terms.brings,
        ),
        requested_by=by,
        requested_at=at,
        request_seal=UNKNOWN,
        reason=reason,
        rollback_of=rollback_of,
        way=terms.way,
        incident=terms.incident,
        waits=terms.waits or None,
        build=terms.build,
        dossier=terms.dossier,
        brings=terms.brings,
        expires_at=at + target.policy.expires,
        last=Event(edition=1, at=at, what="requested", phase=Phase.REQUESTED, by=by.id, why=reason),
    )
