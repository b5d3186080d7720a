"""Bring what the people see up to what is true: one card, edited in place, and its thread."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core.catalog import Target
from bot.core.errors import Gone, Unavailable
from bot.core.ports import Announcer, Card, Clock, Store
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Look

EDIT_AT_MOST_EVERY = timedelta(seconds=3)
EDITS_A_MINUTE = 40
"""Of all cards together: Slack allows fifty, and decisions are shown beside the rollouts."""
CONFIRM_AFTER = timedelta(seconds=17)
"""A lease and a little: whoever is still at an older edit by then has lost its turn to the next worker."""
REMIND_AFTER = (timedelta(minutes=30), timedelta(hours=2))
TRY_AGAIN = timedelta(seconds=5)
CHANNEL_CLOSED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcing:
    """The people's side of `advance`."""

    store: Store
    announcer: Announcer
    clock: Clock

    async def bring_up(self, promotion: Promotion, target: Target, look: Look) -> timedelta | None:
        """Show the promotion as it is; returns when to try again, or None when people see the truth.

        Slack being away never stops the promotion: the last state is shown when it is back.
        """
        try:
            return await self._bring_up(promotion, target, look)
        except Unavailable as error:
            if error.system == "the store":
                raise
            return await self._pause(promotion, asked=timedelta(seconds=error.retry_after or 0))

    async def _pause(self, promotion: Promotion, *, asked: timedelta) -> timedelta:
        """Remember the pause that Slack asked for: the next look at the rollout may come before its end."""
        if not asked:
            return self._patience(promotion)
        card = await self.store.card(promotion.id)
        await self.store.save_card(promotion.id, replace(card, not_before=self.clock.now() + asked))
        return asked

    async def _bring_up(self, promotion: Promotion, target: Target, look: Look) -> timedelta | None:
        card = await self.store.card(promotion.id)
        if card.not_before and (pause := card.not_before - self.clock.now()) > timedelta(0):
            return pause
        try:
            card, again = await self._show(card, promotion, target, look)
            card = await self._tell(card, promotion, look)
            remind = await self._remind(card, promotion, target)
        except Gone:
            return await self._lost(card, promotion, target)
        return min((each for each in (again, remind) if each is not None), default=None)

    async def _show(
        self, card: Card, promotion: Promotion, target: Target, look: Look
    ) -> tuple[Card, timedelta | None]:
        digest = self.announcer.digest(target, promotion, look)
        now = self.clock.now()
        if card.ts is None:
            return await self._post(card, promotion, target, look)
        if digest == card.shown:
            return await self._confirm(card, promotion, target, look)
        is_decided = card.phase is Phase.REQUESTED and promotion.phase is not Phase.REQUESTED
        early = card.edited_at + await self._pace(promotion) - now if card.edited_at else timedelta(0)
        if early > timedelta(0) and not is_decided:  # buttons that are of no use any more go at once
            return card, early
        await self.announcer.edit(card, target, promotion, look)
        card = replace(card, shown=digest, edited_at=now, is_confirmed=False)
        return await self._keep(promotion, card), CONFIRM_AFTER

    async def _post(
        self, card: Card, promotion: Promotion, target: Target, look: Look
    ) -> tuple[Card, timedelta | None]:
        """Post the card, or find the one that was posted when an answer of Slack's, or a worker, was lost."""
        if card.is_posting and (found := await self.announcer.posted(target, promotion)):
            return await self._keep(promotion, found), timedelta(0)
        await self.store.save_card(promotion.id, replace(card, is_posting=True))
        place = await self.announcer.post(target, promotion, look)
        digest = self.announcer.digest(target, promotion, look)
        place = replace(place, shown=digest, edited_at=self.clock.now(), is_confirmed=True)
        return await self._keep(promotion, place), None

    async def _confirm(
        self, card: Card, promotion: Promotion, target: Target, look: Look
    ) -> tuple[Card, timedelta | None]:
        """Edit once more, a lease later: Slack takes edits in the order in which they arrive."""
        if card.is_confirmed or card.edited_at is None:
            return card, None
        early = card.edited_at + CONFIRM_AFTER - self.clock.now()
        if early > timedelta(0):
            return card, early
        await self.announcer.edit(card, target, promotion, look)
        return await self._keep(promotion, replace(card, is_confirmed=True)), None

    async def _pace(self, promotion: Promotion) -> timedelta:
        """How far apart the edits of one card are: all rollouts together stay within what Slack allows."""
        if promotion.phase is not Phase.COMMITTED:
            return EDIT_AT_MOST_EVERY
        rollouts = await self.store.count(Phase.COMMITTED)
        return max(EDIT_AT_MOST_EVERY, timedelta(minutes=1) * rollouts / EDITS_A_MINUTE)

    async def _tell(self, card: Card, promotion: Promotion, look: Look) -> Card:
        events = await self.store.events(promotion.id, after=card.told)
        if events:
            await self.announcer.tell(card, promotion, events)
            card = replace(card, told=events[-1].edition)
            await self.store.save_card(promotion.id, card)
        if look.recovered and not card.is_recovery_told:
            await self.announcer.tell_recovery(card, look.recovered)
            card = replace(card, is_recovery_told=True)
            await self.store.save_card(promotion.id, card)
        return card

    async def _remind(self, card: Card, promotion: Promotion, target: Target) -> timedelta | None:
        """A request that nobody decides is brought to mind, twice; after a long silence of ours only once."""
        if promotion.phase is not Phase.REQUESTED or not target.policy.needs_approval:
            return None
        waited = self.clock.now() - promotion.requested_at
        due = sum(waited >= after for after in REMIND_AFTER)
        if due > card.reminded and self.clock.now() < promotion.expires_at:
            await self.announcer.remind(card, target, promotion)
            await self.store.save_card(promotion.id, replace(card, reminded=due))
        return REMIND_AFTER[due] - waited if due < len(REMIND_AFTER) else None

    async def _lost(self, card: Card, promotion: Promotion, target: Target) -> timedelta:
        """Deleted by somebody: begin anew, with the whole story. Closed to us: tell the requester, once."""
        if card.ts:
            await self.store.save_card(promotion.id, Card())
            return TRY_AGAIN
        if not card.warned:
            await self.store.save_card(promotion.id, replace(card, warned=True))
            with contextlib.suppress(Gone):
                await self.announcer.warn(target, promotion)
        return max(CHANNEL_CLOSED, self._patience(promotion))

    def _patience(self, promotion: Promotion) -> timedelta:
        """How long until Slack is asked again; longer and longer for what ended long ago."""
        ended_for = self.clock.now() - promotion.ended_at if promotion.ended_at else timedelta(0)
        return max(TRY_AGAIN, ended_for / 10)

    async def _keep(self, promotion: Promotion, card: Card) -> Card:
        kept = replace(card, phase=promotion.phase)
        await self.store.save_card(promotion.id, kept)
        return kept
