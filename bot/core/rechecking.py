"""What is checked once more right before a commit: people, content and gates, as they are at that moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from bot.core import gates, people, same_image, trailers
from bot.core.catalog import Catalog, Image, Target
from bot.core.dossier import Dossier
from bot.core.drafting import Drafting
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.gatekeeper import answered
from bot.core.gates import Answer, Answers, Stand
from bot.core.gates import span as in_words
from bot.core.membership import deciding, is_member, known_dossier, members_of
from bot.core.people import Action
from bot.core.policy import Gate, Members
from bot.core.ports import Clock, Directory, Images, Plan, Store, ValuesRepository
from bot.core.promotion import Approval, Phase, Promotion
from bot.core.seals import FORGED, Sealer
from bot.core.terms import gates_passed_by
from bot.core.together import together

LONGEST_NAME = 60
MOST_CHANGES = 200
"""How many changes of a values file are read for what stood in it."""


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
        # Whoever merges a pull request may take days.
        may_wait = promotion.waits or promotion.pull_request
        within = target.policy.waits if may_wait else target.policy.start_within
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
        """What every gate says now, the order of the environments first."""
        source = None if promotion.is_rollback else self.catalog.before(target)
        skips = gates_passed_by(promotion, target)
        order, others = await together(
            self._order(promotion, None if Gate.ORDER in skips else source),
            self.drafting.gatekeeper.ask(
                target,
                source,
                Image(version=promotion.version, digest=promotion.digest),
                skips=skips,
                is_rollback=promotion.is_rollback,
                asker=promotion.requested_by.id,
            ),
        )
        return Answers((*order, *others.each))

    async def _order(self, promotion: Promotion, source: Target | None) -> tuple[Answer, ...]:
        """Does the environment before run the version as it did when it was asked for, or has it gone on since?"""
        if source is None:
            return ()
        wanted = promotion.version
        went, runs = await together(
            answered(Gate.ORDER, lambda: self._went_on(source, wanted)),
            answered(Gate.ORDER, lambda: self._still_runs(source, wanted)),
        )
        return went or runs

    async def _went_on(self, source: Target, wanted: str) -> tuple[Answer, ...]:
        """What the branch says; nothing where it still holds the version, and then its history is not read either."""
        if (await self.values.current(source)).version == wanted:
            return ()
        stood = await self.values.stood(source, limit=MOST_CHANGES)
        answer = gates.went_on(source, wanted, stood)
        return (answer,) if answer else ()

    async def _still_runs(self, source: Target, wanted: str) -> tuple[Answer, ...]:
        """What the applications say; Argo CD may not know the newest commit yet, or that its trouble is over."""
        facts = await self.drafting.seen(source)
        answer = gates.still_runs(source, wanted, facts)
        if answer.stand is Stand.CLOSED or any(each.errors for each in facts):
            answer = gates.still_runs(source, wanted, await self.drafting.seen(source, anew=True))
        return (answer,)

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
            plan = await self.values.plan(
                target, version, digest=digest, brings=promotion.brings or "", fresh=False
            )
            if plan.old_version == promotion.old_version:
                return plan
        return await self.values.plan(
            target, version, digest=digest, brings=promotion.brings or "", fresh=True
        )

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
            # A commit of others is noticed late: where the request goes on from it, it came before.
            is_gone_on_from = other.phase is Phase.COMMITTED and other.version == promotion.old_version
            if not (other.phase.is_final or is_gone_on_from):
                return other
        return None
