"""Bring what the people see up to what is true: one card, edited in place, and its thread."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.core.catalog import Target
from bot.core.dossier import Dossier
from bot.core.errors import Closed, Conflict, Gone, Unavailable, Unreadable
from bot.core.outcome import Outcome
from bot.core.ports import Announcer, Card, Clock, Cluster, Store
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Look
from bot.core.together import together

EDIT_AT_MOST_EVERY = timedelta(seconds=3)
EDITS_A_MINUTE = 40
"""Of all cards together: Slack allows fifty, and decisions are shown beside the rollouts."""
CONFIRM_AFTER = timedelta(seconds=17)
"""A lease of 15 s and a little: whoever is still at an older edit by then has lost its turn to the next worker."""
REMIND_AFTER = (timedelta(minutes=30), timedelta(hours=2))
REVIEW_EVERY = timedelta(days=1)
MOST_REVIEW_REMINDERS = 30
TRY_AGAIN = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=5)
"""How long Slack is left alone at the most when it asks for a pause."""
CHANNEL_CLOSED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcing:
    """The people's side of `advance`."""

    store: Store
    announcer: Announcer
    clock: Clock
    confirm_after: timedelta = CONFIRM_AFTER

    async def bring_up(self, promotion: Promotion, target: Target, look: Look) -> timedelta | None:
        """Show the promotion as it is; returns when to try again, or None when people see the truth.

        Slack being away never stops the promotion: the last state is shown when it is back.
        """
        try:
            return await self._bring_up(promotion, target, look)
        except Conflict:
            await self._doubt(promotion)
            return TRY_AGAIN
        except Unavailable as error:
            if error.system == "the store":
                raise
            return await self._pause(promotion, asked=timedelta(seconds=error.retry_after or 0))

    async def _doubt(self, promotion: Promotion) -> None:
        """Somebody else shows it, and what we have shown may have arrived after that: let it be shown once more."""
        card = await self.store.card(promotion.id)
        with contextlib.suppress(Conflict):
            await self.store.save_card(promotion.id, replace(card, shown=None))

    async def _pause(self, promotion: Promotion, *, asked: timedelta) -> timedelta:
        """Remember the pause that Slack asked for: the next look at the rollout may come before its end."""
        if not asked:
            return self._patience(promotion)
        pause = min(asked, LONGEST_PAUSE)
        card = await self.store.card(promotion.id)
        with contextlib.suppress(Conflict):
            await self.store.save_card(promotion.id, replace(card, not_before=self.clock.now() + pause))
        return pause

    async def _bring_up(self, promotion: Promotion, target: Target, look: Look) -> timedelta | None:
        card = await self.store.card(promotion.id)
        if card.not_before and (pause := self._until(card.not_before, LONGEST_PAUSE)):
            return pause
        try:
            if promotion.dossier:
                look = replace(look, dossier=await self._dossier(promotion))
            card, again = await self._show(card, promotion, target, look)
            card = await self._tell(card, promotion, look)
            card, review = await self._tell_emergency(card, promotion, target)
            remind = await self._remind(card, promotion, target)
        except Closed:
            return await self._closed(promotion, target)
        except Gone:
            await self.store.save_card(promotion.id, Card(edition=card.edition))
            return TRY_AGAIN
        return min((each for each in (again, review, remind) if each is not None), default=None)

    async def _dossier(self, promotion: Promotion) -> Dossier | None:
        """What an approval counts for; nothing where that is lost, or something else stands in its place."""
        try:
            found = await self.store.dossier(promotion.id)
        except Unreadable:  # nobody can approve it then, and it has to be shown all the same
            return None
        return found if found and found.fingerprint == promotion.dossier else None

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
        pace = await self._pace(promotion)
        early = card.edited_at and self._until(card.edited_at + pace, pace)
        if early and not is_decided:  # buttons that are of no use any more go at once
            return card, early
        await self.announcer.edit(card, target, promotion, look)
        card = replace(card, shown=digest, edited_at=now, is_confirmed=False)
        return await self._keep(promotion, card), self.confirm_after

    async def _post(
        self, card: Card, promotion: Promotion, target: Target, look: Look
    ) -> tuple[Card, timedelta | None]:
        """Post the card, or find the one that was posted when an answer of Slack's, or a worker, was lost."""
        if card.is_posting and (found := await self.announcer.posted(target, promotion)):
            return await self._keep(promotion, replace(found, edition=card.edition)), timedelta(0)
        card = await self.store.save_card(promotion.id, replace(card, is_posting=True))
        try:
            place = await self.announcer.post(target, promotion, look)
        except (Closed, Unavailable) as error:
            if isinstance(error, Closed) or not error.maybe_done:
                await self.store.save_card(promotion.id, replace(card, is_posting=False))
            raise
        digest = self.announcer.digest(target, promotion, look)
        place = replace(
            place, edition=card.edition, shown=digest, edited_at=self.clock.now(), is_confirmed=True
        )
        return await self._keep(promotion, place), None

    async def _confirm(
        self, card: Card, promotion: Promotion, target: Target, look: Look
    ) -> tuple[Card, timedelta | None]:
        """Edit once more, a lease later: Slack takes edits in the order in which they arrive."""
        if card.is_confirmed or card.edited_at is None:
            return card, None
        if early := self._until(card.edited_at + self.confirm_after, self.confirm_after):
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
            await self.announcer.tell(card, promotion, events, dossier=look.dossier)
            card = await self.store.save_card(promotion.id, replace(card, told=events[-1].edition))
        if look.recovered and not card.is_recovery_told:
            await self.announcer.tell_recovery(card, look.recovered)
            card = await self.store.save_card(promotion.id, replace(card, is_recovery_told=True))
        return card

    async def _tell_emergency(
        self, card: Card, promotion: Promotion, target: Target
    ) -> tuple[Card, timedelta | None]:
        """Break-glass cannot be quiet: it is told at once, and somebody is reminded daily until it was reviewed."""
        if not promotion.is_emergency:
            return card, None
        if not card.is_glass_told:
            await self.announcer.tell_emergency(card, target, promotion)
            card = await self.store.save_card(promotion.id, replace(card, is_glass_told=True))
        if not promotion.needs_review or promotion.committed_at is None:
            return card, None
        waited = self.clock.now() - promotion.committed_at
        due = min(waited // REVIEW_EVERY, MOST_REVIEW_REMINDERS)
        if due > card.review_reminders:
            await self.announcer.remind_review(card, target, promotion)
            card = await self.store.save_card(promotion.id, replace(card, review_reminders=due))
        return card, REVIEW_EVERY

    async def send_logs(self, promotion: Promotion, target: Target, cluster: Cluster) -> None:
        """What a pod that failed wrote last, once, for requester and approvers alone; as well as it can be done."""
        failed_by_its_pods = promotion.outcome in (Outcome.DEGRADED, Outcome.TIMED_OUT)
        if not (target.rollout.sends_logs and failed_by_its_pods):
            return
        card = await self.store.card(promotion.id)
        if card.are_logs_sent or card.ts is None:
            return
        found = await together(*(cluster.last_words(each, target.image) for each in target.applications))
        with contextlib.suppress(Conflict, Unavailable, Gone):
            card = await self.store.save_card(promotion.id, replace(card, are_logs_sent=True))
            if words := "\n".join(each for each in found if each):
                signers = (promotion.requested_by, *(each.by for each in promotion.approvals))
                people = {each.id for each in signers if each.is_person}
                await self.announcer.send_logs(card, promotion, words, to=people)

    async def _remind(self, card: Card, promotion: Promotion, target: Target) -> timedelta | None:
        """A request that nobody decides is brought to mind, twice; after a long silence of ours only once."""
        if promotion.phase is not Phase.REQUESTED or not target.policy.needs_approval:
            return None
        waited = self.clock.now() - promotion.requested_at
        due = sum(waited >= after for after in REMIND_AFTER)
        if due > card.reminded and self.clock.now() < promotion.expires_at:
            await self.announcer.remind(card, target, promotion)
            await self.store.save_card(promotion.id, replace(card, reminded=due))
        return min(REMIND_AFTER[due] - waited, REMIND_AFTER[due]) if due < len(REMIND_AFTER) else None

    async def _closed(self, promotion: Promotion, target: Target) -> timedelta:
        """Nobody can write there: tell the requester, once; what stands there is shown right when it is open again."""
        card = await self.store.card(promotion.id)
        if not card.warned and promotion.requested_by.is_person:
            with contextlib.suppress(Gone):
                await self.announcer.warn(target, promotion)
            card = await self.store.save_card(promotion.id, replace(card, warned=True))
        if promotion.is_emergency and not card.is_glass_told:
            # Audit channel and approvers hear of it also where the app's own channel is closed.
            with contextlib.suppress(Gone):
                await self.announcer.tell_emergency(card, target, promotion)
                await self.store.save_card(promotion.id, replace(card, is_glass_told=True))
        return max(CHANNEL_CLOSED, self._patience(promotion))

    def _until(self, at: datetime, most: timedelta) -> timedelta | None:
        """How long it is until then; None where it is over, or longer than it can be: the clock has jumped back."""
        left = at - self.clock.now()
        return left if timedelta(0) < left <= most else None

    def _patience(self, promotion: Promotion) -> timedelta:
        """How long until Slack is asked again; longer and longer for what ended long ago."""
        ended_for = self.clock.now() - promotion.ended_at if promotion.ended_at else timedelta(0)
        return max(TRY_AGAIN, ended_for / 10)

    async def _keep(self, promotion: Promotion, card: Card) -> Card:
        return await self.store.save_card(promotion.id, replace(card, phase=promotion.phase))
