"""The use cases: what people ask of the bot, checked and recorded. Nothing is written to git here."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from bot.core import history, same_image
from bot.core.asking import Asking
from bot.core.cases import checked_reason
from bot.core.catalog import Application, Image, Target
from bot.core.errors import PromoteError, Refused, Unavailable
from bot.core.history import History
from bot.core.people import Action
from bot.core.ports import Card
from bot.core.promotion import Approval, Decision, Event, Phase, Promotion
from bot.core.rollout import ApplicationFacts, Stage
from bot.core.terms import gates_passed_by
from bot.core.together import together

MOST_PLACES = 30
MOST_COMMITS = 1000
"""Commits of ours that are read of each branch for a history, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One target as it stands: what git says, what runs, and the promotion that is under way."""

    target: Target
    version: str
    applications: tuple[ApplicationFacts | str, ...]
    """The facts of each application, or why they could not be read."""
    current: Promotion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter(Asking):
    """What people can do, one method a use case; each raises `Refused` or `Unavailable`."""

    async def approve(self, id: str, *, user: str, content_hash: str | None = None) -> Promotion:
        """Record one person's yes. `content_hash` is what the pressed button showed."""
        promotion, target, person = await self._authorised(Action.APPROVE, id, user)
        promotion.require_open("approve")
        if doubt := self.sealer.doubt(promotion, target):
            raise Refused(f"{promotion.id} cannot be approved: {doubt}. Ask again with /promote.")
        if content_hash not in (None, promotion.content_hash):
            raise Refused(
                f"{promotion.id} is not what that button showed; look at its card and decide again."
            )
        await self._require_gates(promotion, target)
        now = self.clock.now()
        if why := await same_image.pushed_anew(self.images, promotion, target):
            await self._change(promotion, lambda current: current.outdate(at=now, why=why))
            raise Refused(f"{promotion.id} cannot be approved: {why}.")
        seal = self.sealer.seal(
            id=promotion.id,
            content_hash=promotion.content_hash,
            by=person.signer,
            decision=Decision.APPROVE,
            at=now,
        )
        approval = Approval(by=person.signer, at=now, content_hash=promotion.content_hash, seal=seal)
        return await self._change(promotion, lambda current: current.approve(approval))

    async def _require_gates(self, promotion: Promotion, target: Target) -> None:
        """Raise `Refused` where something stands in the way now that only a new request, or time, can mend."""
        answers = await self.drafting.gatekeeper.ask(
            target,
            None if promotion.is_rollback else self.catalog.before(target),
            Image(version=promotion.version, digest=promotion.digest),
            skips=gates_passed_by(promotion, target),
            is_quick=True,
            is_rollback=promotion.is_rollback,
            asker=promotion.requested_by.id,
        )
        standing = [each for each in answers.closed if not (promotion.waits and each.may_open)]
        if standing:
            says = "; ".join(each.says.rstrip(".") for each in standing)
            raise Refused(f"{promotion.id} cannot be approved now: {says}.")

    async def review(self, id: str, *, user: str, why: str | None = None) -> Promotion:
        """Acknowledge, as somebody else, that glass was broken."""
        promotion, _, _ = await self._authorised(Action.REVIEW, id, user)
        now = self.clock.now()
        return await self._change(
            promotion, lambda current: current.review(by=user, at=now, why=checked_reason(why))
        )

    async def withdraw(self, id: str, *, user: str) -> Promotion:
        """Take back one's own approval."""
        promotion, _, _ = await self._authorised(Action.WITHDRAW, id, user)
        now = self.clock.now()
        return await self._change(promotion, lambda current: current.withdraw(by=user, at=now))

    async def reject(self, id: str, *, user: str, why: str) -> Promotion:
        """Record one person's no, with a reason; it ends the promotion."""
        promotion, _, _ = await self._authorised(Action.REJECT, id, user)
        reason = checked_reason(why)
        if not reason:
            raise Refused("Say why: the requester has to know what to change.")
        now = self.clock.now()
        return await self._change(promotion, lambda current: current.reject(by=user, at=now, why=reason))

    async def cancel(self, id: str, *, user: str, why: str | None = None) -> Promotion:
        """Call it off, as long as its commit is not under way."""
        promotion, _, _ = await self._authorised(Action.CANCEL, id, user)
        now = self.clock.now()
        reason = checked_reason(why)
        return await self._change(promotion, lambda current: current.cancel(by=user, at=now, why=reason))

    async def sync(self, id: str, *, user: str) -> Promotion:
        """Have Argo CD sync this promotion's commit, and nothing else, where it does not do so by itself.

        The sync is rehearsed first; one that would fail is refused with Argo CD's reason.
        """
        promotion, target, _ = await self._authorised(Action.SYNC, id, user)
        waiting = await self._waiting(promotion, target)
        if not waiting:
            raise Refused(
                f"No application of {promotion.id} waits for somebody to sync it: {promotion.told}."
            )
        for each in waiting:
            await self.cluster.rehearse(each, revision=promotion.rolls_out, promotion=promotion.id)
        now = self.clock.now()
        asked = await self._change(promotion, lambda current: current.ask_to_sync(by=user, at=now))
        await self._sync_all(waiting, asked)
        return asked

    async def _waiting(self, promotion: Promotion, target: Target) -> list[Application]:
        """Which applications wait for somebody to sync them, by the last look, and still."""
        if promotion.phase is not Phase.COMMITTED:
            return []
        look = await self.store.look(promotion.id)
        waited = [
            each
            for each in target.applications
            if (progress := look.of(each)) and progress.stage is Stage.UNSYNCED and progress.may_sync
        ]
        still = await together(*(self._still_waits(promotion, target, each) for each in waited))
        return [each for each, waits in zip(waited, still, strict=True) if waits]

    async def _still_waits(self, promotion: Promotion, target: Target, application: Application) -> bool:
        """Would a sync bring this commit now, and take nothing back that came after it?"""
        facts = await self.cluster.observe(target, application, refresh=False)
        if facts.is_operating:
            raise Refused(
                f"{application.name}: another operation is already in progress. Wait until that one has ended."
            )
        if facts.sync != "OutOfSync" or not (facts.revision and promotion.rolls_out):
            return False
        relation = await self.values.relate(
            target,
            revision=facts.revision,
            commit=promotion.rolls_out,
            version=promotion.version,
            digest=promotion.digest,
        )
        is_there = await self.values.is_on_branch(target, promotion.rolls_out)
        return relation.contains is True and relation.holds_value and is_there

    async def _sync_all(self, applications: Sequence[Application], asked: Promotion) -> None:
        """Begin each; where some are begun and others not, say so of each."""
        begun: list[str] = []
        refused: list[PromoteError] = []
        for each in applications:
            try:
                await self._begin_to_sync(each, asked)
                begun.append(each.name)
            except PromoteError as error:
                refused.append(error)
        if refused and begun:
            raise Refused(
                f"{', '.join(begun)} is being synced now, and not everything: {'; '.join(map(str, refused))}"
            )
        if refused:
            raise refused[0]

    async def _begin_to_sync(self, application: Application, asked: Promotion) -> None:
        try:
            await self.cluster.sync(application, revision=asked.rolls_out, promotion=asked.id)
        except Unavailable as away:  # that somebody asked for it is recorded already
            raise Unavailable(
                away.system, away.detail, retry_after=away.retry_after, maybe_done=True
            ) from away

    async def require_may(self, action: Action, id: str, *, user: str) -> Promotion:
        """The promotion, where this person may do that now: asked before a modal opens."""
        promotion, _, _ = await self._authorised(action, id, user)
        if promotion.phase is not Phase.REQUESTED and action in (Action.APPROVE, Action.REJECT):
            raise Refused(f"You cannot {action} {promotion.id} any more: {promotion.told}.")
        return promotion

    async def pending(self) -> tuple[tuple[Promotion, Card], ...]:
        """Every request that waits for approvals, with its card, oldest first."""
        waiting = await self.store.in_phase(Phase.REQUESTED)
        return tuple([(each, await self.store.card(each.id)) for each in waiting])

    async def show(self, id: str) -> tuple[Promotion, Card, tuple[Event, ...]]:
        """A promotion, its card and its story."""
        promotion = await self.find(id)
        return promotion, await self.store.card(promotion.id), await self.store.events(promotion.id)

    async def require_card(self, id: str, *, channel: str, ts: str) -> None:
        """Raise `Refused`, with a link, for a press on a message that is not the promotion's own card."""
        promotion = await self.find(id)
        card = await self.store.card(promotion.id)
        if card.ts and (channel, ts) != (card.channel, card.ts):
            raise Refused(f"That was a copy. {promotion.id} is decided on its own card.", link=card.link)

    async def status(self, *, app: str | None = None) -> tuple[Place, ...]:
        """What the targets of an app, or of all apps, hold and run now; the first thirty of them."""
        apps = [app] if app else list(self.catalog.apps)
        if app:
            self.catalog.target(app, self._first_environment(app))
        targets = [target for target in self.catalog.targets if target.app in apps]
        return tuple(await together(*(self._place(target) for target in targets[:MOST_PLACES])))

    async def history(
        self,
        app: str,
        environment: str | None = None,
        *,
        user: str,
        since: str | None = None,
        until: str | None = None,
        by: str | None = None,
    ) -> History:
        """What git tells of an app's promotions; times and `by` are as `user` typed them."""
        await self.member(user)
        query = history.query(
            self.catalog,
            now=self.clock.now(),
            app=app,
            environment=environment,
            since=since,
            until=until,
            by=by,
            me=user,
        )
        return await history.read(query, catalog=self.catalog, values=self.values, limit=MOST_COMMITS)

    def _first_environment(self, app: str) -> str:
        for environment in self.catalog.environments:
            if any(
                target.app == app and target.environment == environment for target in self.catalog.targets
            ):
                return environment
        return self.catalog.environments[0]

    async def _place(self, target: Target) -> Place:
        image, *facts = await together(
            _or_why(self.values.current(target)),
            *(
                _or_why(self.cluster.observe(target, application, refresh=False))
                for application in target.applications
            ),
        )
        holder = await self.store.holder(target) or await self.store.followed(target)
        return Place(
            target=target,
            version=image.version if isinstance(image, Image) else f"unknown: {image}",
            applications=tuple(fact if isinstance(fact, ApplicationFacts) else str(fact) for fact in facts),
            current=await self._readable(holder) if holder else None,
        )


async def _or_why(question: Awaitable[Any]) -> Any:
    """The answer, or the error that people may read; any other error is ours, and nothing to show."""
    try:
        return await question
    except PromoteError as error:
        return error
