"""What is kept of a promotion's steps, and the commit that it asks for: beneath all that decides which step is next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core import trailers
from bot.core.board import Lock, Scope
from bot.core.catalog import Target
from bot.core.errors import Newer
from bot.core.ports import Author, Change, Edit
from bot.core.promotion import Phase, Promotion
from bot.core.rechecking import Rechecking

NOW = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording(Rechecking):
    """Saves where a promotion stands; each step is saved before the next one begins."""

    policy_revision: str | None = None
    """The revision that the rules in force come from, where that is known."""

    async def _found_again(self, promotion: Promotion, revision: str) -> timedelta:
        committing = promotion.start_commit(at=self.clock.now(), base=promotion.base or revision)
        await self._save(promotion, committing)
        return await self._committed(committing, revision)

    async def _committed(self, promotion: Promotion, revision: str) -> timedelta:
        """The commit is on the branch: this promotion is followed now, and the older one no more.

        Where what is followed already lies on top of it, this one is the older.
        """
        now = self.clock.now()
        target = self.catalog.target(promotion.app, promotion.environment)
        await self._lock_after_rollback(promotion, now)
        id = await self.store.followed(target)
        other = await self._committed_still(id) if id and id != promotion.id else None
        if other and await self._is_on_top(other, promotion, revision, target):
            why = f"{other.id} brought {other.version}"
            return await self._save(promotion, promotion.commit_late(at=now, revision=revision, why=why))
        changes = [Change(before=promotion, after=promotion.commit(at=now, revision=revision))]
        if other:
            why = f"{promotion.id} brought {promotion.version}"
            changes.append(Change(before=other, after=other.supersede(at=now, why=why)))
        await self.store.save(changes, holds=self._holds(promotion))
        return NOW

    async def _is_on_top(self, other: Promotion, promotion: Promotion, revision: str, target: Target) -> bool:
        """Does the commit that is followed hold ours? Then it is the newer one, and was only recorded sooner."""
        if other.revision in (None, revision):
            return False
        relation = await self.values.relate(
            target,
            revision=str(other.revision),
            commit=revision,
            version=promotion.version,
            digest=promotion.digest,
        )
        return bool(relation.contains)

    async def _lock_after_rollback(self, promotion: Promotion, now: datetime) -> None:
        """What was rolled back stays so until somebody unlocks it. Safe to repeat."""
        target = self.catalog.target(promotion.app, promotion.environment)
        rule = target.policy.rollback
        if not promotion.is_rollback or rule is None or not rule.locks:
            return
        scope, board = Scope(app=target.app, environment=target.environment), self.drafting.board
        if any(
            each.scope == scope and each.after is None and each.holds_at(now) for each in await board.locks()
        ):
            return  # somebody's own lock holds more than ours would
        await board.lock(
            Lock(
                scope=scope,
                by=promotion.requested_by.id,
                reason=f"rolled back to {promotion.version} by {promotion.id}",
                at=now,
                after=promotion.id,
            )
        )

    async def _committed_still(self, id: str) -> Promotion | None:
        """The older promotion, unless it came to its end this very moment, or belongs to a newer version of the bot."""
        try:
            older = await self.store.load(id)
        except Newer:
            return None
        return older if older and older.phase is Phase.COMMITTED else None

    async def _save(self, before: Promotion, after: Promotion) -> timedelta:
        await self.store.save([Change(before=before, after=after)], holds=self._holds(before))
        return NOW

    async def _find(self, promotion: Promotion, target: Target) -> str | None:
        return await self.values.find(self._edit(promotion, target))

    def _edit(self, promotion: Promotion, target: Target) -> Edit:
        requester = promotion.requested_by
        return Edit(
            target=target,
            promotion=promotion.id,
            old=promotion.old_version,
            new=promotion.version,
            digest=promotion.digest,
            brings=promotion.brings or "",
            message=trailers.message(promotion, target, policy_revision=self.policy_revision),
            author=Author(name=requester.name, email=requester.email),
            at=promotion.approved_at or promotion.requested_at,
            base=promotion.base or "",
            # Commits are dated by their approval, so one of another promotion may stand later and bear an older date.
            since=promotion.requested_at - target.policy.start_within,
        )

    def _holds(self, promotion: Promotion) -> bool:
        return not self.catalog.is_first(self.catalog.target(promotion.app, promotion.environment))
