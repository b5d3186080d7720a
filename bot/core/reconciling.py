"""Git remembers what the store has lost: the trailers of our own commits are compared with the records.

A promotion that the store does not know is recorded anew from its commit, where it is the last one of its target. One
that the store believes unwritten, although its commit is there, goes on from that commit. What contradicts its record
is only told: nobody may be overruled by a commit message.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core.advance import Engine
from bot.core.catalog import UNKNOWN, VERSION, Repository, Target
from bot.core.errors import Conflict, Failed, Newer, PromoteError, Refused, TargetBusy, Unavailable
from bot.core.ports import Card, Written
from bot.core.promotion import ID, Phase, Promotion, PromotionId, Terms, Way, rebuilt
from bot.core.trailers import signer_of

LOOK_BACK = timedelta(days=14)
MOST = 500
"""Commits of ours that are read, the newest ones."""

_REVISION = re.compile(r"[0-9a-f]{40}")
_LINK = re.compile(
    r"https://[^/]+/archives/(?P<channel>[A-Z0-9]+)/p(?P<seconds>\d{10})(?P<fraction>\d{6})\b.*"
)
_UNWRITTEN = frozenset({Phase.REQUESTED, Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.STALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciling:
    """Compares every branch with the store; safe at any time, beside any number of others."""

    engine: Engine

    async def reconcile(self) -> tuple[str, ...]:
        """Put right what can be; returns a sentence for each record that was, and for each branch that is away."""
        done: list[str] = []
        for repository in {target.repository for target in self.engine.catalog.targets}:
            try:
                await self._branch(repository, done)
            except PromoteError as error:
                done.append(f"{repository.name} cannot be compared with the store yet: {error}")
        return tuple(done)

    async def _branch(self, repository: Repository, done: list[str]) -> None:
        oldest = self.engine.clock.now() - LOOK_BACK
        seen: set[str] = set()
        for written in await self.engine.values.written(repository, limit=MOST):
            target = self._target(written, repository)
            if target is None or written.at < oldest:
                continue
            is_last = target.name not in seen
            seen.add(target.name)
            with contextlib.suppress(Newer):  # a newer version of the bot compares that one
                if sentence := await self._compare(written, target, is_last=is_last):
                    done.append(sentence)

    def _target(self, written: Written, repository: Repository) -> Target | None:
        try:
            target = self.engine.catalog.target(written.trailer("App"), written.trailer("Environment"))
        except Refused:
            return None
        return target if target.repository == repository else None

    async def _compare(self, written: Written, target: Target, *, is_last: bool) -> str:
        """What was put right, empty where nothing was."""
        id = written.trailer("Promotion-Id")
        if not ID.fullmatch(id):
            return ""
        promotion = await self.engine.store.load(id)
        if promotion:
            return await self._adopt(promotion, written)
        return await self._rebuild(written, target, PromotionId(id)) if is_last else ""

    async def _adopt(self, promotion: Promotion, written: Written) -> str:
        """A record from before its commit, as an older backup of the store has it."""
        if promotion.revision or promotion.version != written.trailer("New-Version"):
            return ""
        try:
            if promotion.phase is Phase.APPROVED and await self.engine.adopt(promotion, written.revision):
                return f"{promotion.id} was written as {written.revision}: it goes on from there."
        except (Unavailable, Failed) as error:
            # The host of its pull request may be away, and the other commits need none.
            return (
                f"{promotion.id} was written as {written.revision}, and cannot go on from there yet: {error}"
            )
        if promotion.phase in _UNWRITTEN:
            self.engine.alarm(f"{promotion.id} is {promotion.phase}, and yet {written.revision} wrote it.")
        return ""

    async def _rebuild(self, written: Written, target: Target, id: PromotionId) -> str:
        requester, version = signer_of(written.trailer("Requested-By")), written.trailer("New-Version")
        if requester is None or not VERSION.fullmatch(version):
            return ""  # CI wrote it, or somebody in our name: there is no promotion to be lost
        promotion = rebuilt(
            target,
            id=id,
            source=written.trailer("From"),
            version=version,
            old_version=written.trailer("Old-Version"),
            by=requester,
            approved_by=[signer for each in written.all("Approved-By") if (signer := signer_of(each))],
            at=self.engine.clock.now(),
            revision=written.revision,
            digest=written.trailer("Digest") or UNKNOWN,
            reason=_known(written.trailer("Reason")),
            rollback_of=written.trailer("Rollback-Of") or None,
        )
        terms = terms_of(written)
        brings = terms.brings if target.release else None
        promotion = replace(promotion, way=terms.way, incident=terms.incident, brings=brings)
        promotion = replace(promotion, build=written.trailer("Build") or None)
        store = self.engine.store
        # First the card: a worker that sees a promotion without one posts another.
        try:
            if (await store.card(id)).ts is None:
                await store.save_card(id, _card(written.trailer("Slack-Message"), target))
            await store.create(promotion, delivery=None, holds=False)
        except (Conflict, TargetBusy):
            return ""  # somebody else was faster, or a later promotion is followed
        return f"{id} was lost, and is recorded anew from {written.revision}."


def _known(trailer: str) -> str | None:
    return None if trailer in ("", UNKNOWN) else trailer


def terms_of(written: Written) -> Terms:
    """By which way it came to its commit: somebody still has to look at an emergency."""
    found = _REVISION.fullmatch(written.trailer("Revision"))
    brings = found[0] if found else None
    if written.trailer("Break-Glass") == "true":
        return Terms(way=Way.EMERGENCY, incident=_known(written.trailer("Incident")), brings=brings)
    return Terms(way=Way.AT_ONCE if written.trailer("Way") == Way.AT_ONCE else None, brings=brings)


def _card(link: str, target: Target) -> Card:
    """The card that the commit names, where it is in the target's own channel."""
    found = _LINK.fullmatch(link)
    if found is None or found["channel"] != target.channel:
        return Card()
    return Card(channel=found["channel"], ts=f"{found['seconds']}.{found['fraction']}", link=link)
