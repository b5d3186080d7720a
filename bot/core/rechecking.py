"""What is checked once more right before a commit: people, content and gates, as they are at that moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from bot.core import people, same_image, trailers
from bot.core.catalog import Catalog, Image, Target
from bot.core.dossier import Dossier
from bot.core.drafting import Drafting
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.gates import Answers
from bot.core.gates import span as in_words
from bot.core.membership import deciding, is_member, known_dossier, members_of
from bot.core.people import Action
from bot.core.policy import Gate, Members
from bot.core.ports import Clock, Directory, Images, Plan, Store, ValuesRepository
from bot.core.promotion import Approval, Promotion
from bot.core.seals import FORGED, Sealer
from bot.core.terms import gates_passed_by

LONGEST_NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecking:
    """What the checks are made on. Each raises `Unavailable` where somebody who has to be asked is away."""

    catalog: Catalog
    store: Store
    values: ValuesRepository
    images: Images
    directory: Directory
    clock: Clock
    sealer: Sealer
    drafting: Drafting
    alarm: Callable[[str], None]
    """Takes a sentence that an operator has to read."""

    async def _may_not_be_written(self, promotion: Promotion, target: Target) -> Promotion | None:
        """The promotion at its end, where it came too late, was tampered with, or is not wanted any more."""
        now = self.clock.now()
        # The time of the request is sealed, that of the approval is not: an old promotion cannot be replayed.
        approved_at = min(promotion.approved_at or now, promotion.requested_at + target.policy.expires)
        within = target.policy.waits if promotion.waits else target.policy.start_within
        if now >= approved_at + within:
            why = f"it could not be written within {in_words(within)} of its approval; nothing was committed"
            return promotion.expire(at=now, why=why)
        if doubt := self.sealer.doubt(promotion, target):
            if doubt == FORGED:
                self.alarm(f"The record of {promotion.id} says what nobody decided: {doubt}.")
            return promotion.outdate(at=now, why=f"{doubt}; nothing was committed")
        if newer := await self._newer(promotion, target):
            return promotion.supersede(at=now, why=f"{newer.id} asks for {newer.version}")
        if why := await self._lost_right(promotion):
            return promotion.outdate(at=now, why=f"{why}; nothing was committed")
        return None

    async def _moved_since(self, promotion: Promotion, target: Target, plan: Plan) -> str:
        """What is not as it was when it was asked for; empty where everything is."""
        if plan.old_version != promotion.old_version:
            return await self._moved(promotion, target, plan.old_version)
        if why := await same_image.pushed_anew(self.images, promotion, target):
            return why
        if why := await self._taken_back(promotion, target):
            return why
        try:
            dossier = await known_dossier(self.store, promotion)
        except Refused as refused:
            return f"{str(refused).partition('.')[0]}; nothing was committed"
        if added := await self.drafting.watched_since(target, dossier):
            return (
                f"what {promotion.environment} renders from changed after it was asked for ({added}); "
                "nothing was committed"
            )
        return ""

    async def _taken_back(self, promotion: Promotion, target: Target) -> str:
        """Was the version rolled back, since it was asked for, in the environment that it comes from?"""
        source = None if promotion.is_rollback else self.catalog.before(target)
        if source is None or Gate.ORDER in gates_passed_by(promotion, target):
            return ""
        for other in await self.store.history(source):
            is_since = other.committed_at is not None and other.committed_at >= promotion.requested_at
            if other.is_rollback and is_since and other.old_version == promotion.version:
                return (
                    f"{source.environment} went back from {promotion.version} to {other.version} ({other.id}) "
                    "after it was asked for; nothing was committed"
                )
        return ""

    async def _lost_right(self, promotion: Promotion) -> str:
        """Why whoever asked may not do so any more: by a shorter way, or having changed the rules; else empty."""
        target = self.catalog.target(promotion.app, promotion.environment)
        changed = await self.drafting.changes.roles(promotion.requested_by, target)
        if promotion.way is None:
            is_barred = changed and not promotion.is_rollback
            return f"{promotion.requested_by.name} changed the rules for it of late" if is_barred else ""
        action = Action.EMERGENCY if promotion.is_emergency else Action.ROLL_BACK_AT_ONCE
        policy = target.policy
        named = (policy.emergency and policy.emergency.who, policy.rollback and policy.rollback.who)
        groups = frozenset(group for listed in named if listed for group in listed.groups)
        person = await self.directory.person(promotion.requested_by.id)
        held = people.standing(person, policy, await members_of(self.directory, groups)) | changed
        if is_member(person) and people.may(action, held):
            return ""
        return f"{promotion.requested_by.name} may not {action} any more"

    async def _answers(self, promotion: Promotion, target: Target) -> Answers:
        return await self.drafting.gatekeeper.ask(
            target,
            None if promotion.is_rollback else self.catalog.before(target),
            Image(version=promotion.version, digest=promotion.digest),
            skips=gates_passed_by(promotion, target),
            is_rollback=promotion.is_rollback,
            asker=promotion.requested_by.id,
        )

    async def _still_valid(self, promotion: Promotion, target: Target) -> tuple[Approval, ...]:
        """The approvals whose givers may still approve."""
        members, dossier = await self._members(target), await self._dossier(promotion)
        kept = []
        for approval in promotion.approvals:
            person = await self.directory.person(approval.by.id)
            held = people.roles(person, promotion, target.policy, members, dossier)
            held |= await self.drafting.changes.roles(person.signer, target)
            if is_member(person) and people.may(Action.APPROVE, held):
                kept.append(approval)
        return tuple(kept)

    async def _dossier(self, promotion: Promotion) -> Dossier:
        """What was found about it; nothing, where that is lost: then nothing is committed either."""
        found = await self.store.dossier(promotion.id)
        return found if found and found.fingerprint == promotion.dossier else Dossier()

    async def _members(self, target: Target) -> Members:
        return await deciding(self.directory, target.policy)

    async def _checked_plan(self, promotion: Promotion, target: Target) -> Plan:
        """The known tip is enough where it holds what was approved: the push itself compares it with the remote.

        Where an approval counts for commits of others too, it is not.
        """
        version, digest = promotion.version, promotion.digest
        if not await self._is_bound(promotion):
            plan = await self.values.plan(target, version, digest=digest, fresh=False)
            if plan.old_version == promotion.old_version:
                return plan
        return await self.values.plan(target, version, digest=digest, fresh=True)

    async def _is_bound(self, promotion: Promotion) -> bool:
        """Was it approved together with all else that would be deployed?"""
        return (await self._dossier(promotion)).binds_watched

    async def _moved(self, promotion: Promotion, target: Target, found: str) -> str:
        """What became of the value while people decided, and whose commit that was, where it can be told."""
        push = None
        with contextlib.suppress(Unavailable, Failed):
            push = await self.values.last_push(target)
        whose = f" ({trailers.one_line(push.author)[:LONGEST_NAME]}, {push.revision[:8]})" if push else ""
        return (
            f"{promotion.environment} went from {promotion.old_version} to {found} after it was asked for{whose}; "
            "nothing was committed"
        )

    async def _newer(self, promotion: Promotion, target: Target) -> Promotion | None:
        """A later request for the first environment, which is never held: the newest wins."""
        if not self.catalog.is_first(target):
            return None
        for other in await self.store.history(target):
            if other.id == promotion.id:
                break
            if not other.phase.is_final:
                return other
        return None
