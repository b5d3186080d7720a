"""The use cases: what people ask of the bot, checked and recorded. Nothing is written to git here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bot.core import gates, people, rollback, same_image
from bot.core import promotion as promotions
from bot.core.catalog import UNKNOWN, Application, Catalog, Image, Target, checked_version
from bot.core.errors import Conflict, Newer, PromoteError, Refused, TargetBusy, Unavailable
from bot.core.people import Action, Person
from bot.core.ports import Card, Change, Clock, Cluster, Directory, Images, Store, ValuesRepository
from bot.core.promotion import Approval, Decision, Event, Phase, Promotion
from bot.core.rollout import ApplicationFacts, Stage
from bot.core.seals import Sealer, request_words
from bot.core.trailers import one_line

TRIES = 5
MOST_PLACES = 30
LONGEST_REASON = 500
MOST_COMMITS = 500
"""How far back a rollback looks for what was there before, in commits of ours."""
MOST_ASKED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One target as it stands: what git says, what runs, and the promotion that is under way."""

    target: Target
    version: str
    applications: tuple[ApplicationFacts | str, ...]
    """The facts of each application, or why they could not be read."""
    current: Promotion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoter:
    """What people can do, one method a use case; each raises `Refused` or `Unavailable`."""

    catalog: Catalog
    store: Store
    values: ValuesRepository
    cluster: Cluster
    images: Images
    directory: Directory
    clock: Clock
    sealer: Sealer

    async def request(
        self,
        *,
        app: str,
        environment: str,
        version: str | None,
        reason: str | None,
        user: str,
        delivery: str | None = None,
    ) -> Promotion:
        """Ask that a target run a version; without one, the version that is live in the environment before."""
        person = await self.member(user)
        target = self.catalog.target(app, environment)
        if version is not None:
            checked_version(version)
        self._require_somebody(target, person)
        source = self.catalog.before(target)
        pinned = version or await self._live(target, source)
        held = await self._held(target, source, pinned)
        digest = await same_image.proved(
            self.images, target, held, where=source.environment if source else "CI"
        )
        plan = await self.values.plan(target, pinned, digest=digest)
        if plan.is_done:
            told = "" if version or not source else f", which is what {source.environment} runs"
            raise Refused(f"{environment} already runs {pinned}{told}; nothing to do.")
        if version and source:
            gates.require_order(target, source, wanted=version, live=await self._live(target, source))
        promotion = promotions.request(
            target,
            id=promotions.new_id(),
            source=source.environment if source else "ci",
            version=pinned,
            old_version=plan.old_version,
            changes=plan.changes,
            digest=digest,
            by=person.signer,
            at=self.clock.now(),
            reason=_reason(reason),
        )
        return await self._create(self._sealed(promotion), target, delivery)

    async def roll_back(
        self,
        *,
        app: str,
        environment: str,
        version: str | None = None,
        reason: str | None = None,
        user: str,
        delivery: str | None = None,
    ) -> Promotion:
        """Ask that a target run again what it ran before; without a version, the last one that did not fail.

        It needs the environment's ordinary approval, and takes the place of a request that nobody has written yet.
        """
        person = await self.member(user)
        target = self.catalog.target(app, environment)
        if version is not None:
            checked_version(version)
        self._require_somebody(target, person)
        written = await self.values.written(target.repository, limit=MOST_COMMITS)
        stood, stack = rollback.history(written, target), rollback.deployed(written, target)
        if version is None:
            now, bad = await self.values.current(target), await self._failed(stack)
            wanted = rollback.before(stack, now=now, bad=bad, target=target)
        else:
            wanted = rollback.wanted(stood, version, target)
        digest = await same_image.proved(self.images, target, wanted.image, where=environment)
        plan = await self.values.plan(target, wanted.image.version, digest=digest)
        if plan.is_done:
            raise Refused(f"{environment} already runs {wanted.image.version}; nothing to roll back.")
        newest = next((each for each in reversed(stack) if each.image.version == plan.old_version), None)
        promotion = promotions.request(
            target,
            id=promotions.new_id(),
            source=environment,
            version=wanted.image.version,
            old_version=plan.old_version,
            changes=plan.changes,
            digest=digest,
            by=person.signer,
            at=self.clock.now(),
            reason=_reason(reason),
            rollback_of=(newest.promotion if newest else None) or UNKNOWN,
        )
        return await self._create(self._sealed(promotion), target, delivery)

    async def roll_back_from(self, id: str, *, user: str, delivery: str | None = None) -> Promotion:
        """Take back this very promotion, as long as what it brought is still there."""
        gone, _, _ = await self._authorised(Action.ROLL_BACK, id, user)
        now = await self.values.current(self.target_of(gone))
        if not now.may_be(Image(version=gone.version, digest=gone.digest)):
            raise Refused(
                f"{gone.environment} holds {now} now, not {gone.version}. To go back from there: "
                f"/promote rollback {gone.app} {gone.environment}"
            )
        return await self.roll_back(app=gone.app, environment=gone.environment, user=user, delivery=delivery)

    async def ask_again(self, id: str, *, user: str, delivery: str | None = None) -> Promotion:
        """The same request once more, by whoever may request; every check is made anew."""
        old = await self.find(id)
        if not old.phase.is_final:
            raise Refused(f"{old.id} is still open: {old.told}.")
        return await self.request(
            app=old.app,
            environment=old.environment,
            version=old.version,
            reason=old.reason,
            user=user,
            delivery=delivery,
        )

    async def approve(self, id: str, *, user: str, content_hash: str | None = None) -> Promotion:
        """Record one person's yes. `content_hash` is what the pressed button showed."""
        promotion, target, person = await self._authorised(Action.APPROVE, id, user)
        if doubt := self.sealer.doubt(promotion, target):
            raise Refused(f"{promotion.id} cannot be approved: {doubt}. Ask again with /promote.")
        if content_hash not in (None, promotion.content_hash):
            raise Refused(
                f"{promotion.id} is not what that button showed; look at its card and decide again."
            )
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

    async def withdraw(self, id: str, *, user: str) -> Promotion:
        """Take back one's own approval."""
        promotion, _, _ = await self._authorised(Action.WITHDRAW, id, user)
        now = self.clock.now()
        return await self._change(promotion, lambda current: current.withdraw(by=user, at=now))

    async def reject(self, id: str, *, user: str, why: str) -> Promotion:
        """Record one person's no, with a reason; it ends the promotion."""
        promotion, _, _ = await self._authorised(Action.REJECT, id, user)
        reason = _reason(why)
        if not reason:
            raise Refused("Say why: the requester has to know what to change.")
        now = self.clock.now()
        return await self._change(promotion, lambda current: current.reject(by=user, at=now, why=reason))

    async def cancel(self, id: str, *, user: str, why: str | None = None) -> Promotion:
        """Call it off, as long as its commit is not under way."""
        promotion, _, _ = await self._authorised(Action.CANCEL, id, user)
        now = self.clock.now()
        reason = _reason(why)
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
            await self.cluster.rehearse(each, revision=promotion.revision, promotion=promotion.id)
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
        still = await asyncio.gather(*(self._still_waits(promotion, target, each) for each in waited))
        return [each for each, waits in zip(waited, still, strict=True) if waits]

    async def _still_waits(self, promotion: Promotion, target: Target, application: Application) -> bool:
        """Would a sync bring this commit now, and take nothing back that came after it?"""
        facts = await self.cluster.observe(target, application, refresh=False)
        if facts.is_operating:
            raise Refused(
                f"{application.name}: another operation is already in progress. Wait until that one has ended."
            )
        if facts.sync != "OutOfSync" or not (facts.revision and promotion.revision):
            return False
        relation = await self.values.relate(
            target,
            revision=facts.revision,
            commit=promotion.revision,
            version=promotion.version,
            digest=promotion.digest,
        )
        is_there = await self.values.is_on_branch(target, promotion.revision)
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
            await self.cluster.sync(application, revision=asked.revision, promotion=asked.id)
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

    async def find(self, id: str) -> Promotion:
        """The promotion; raises `Refused` for an id that nobody knows."""
        promotion = await self.store.load(id.upper())
        if promotion is None:
            raise Refused(
                f"I know no promotion {one_line(id)[:40]}. If it was lost, ask again with /promote."
            )
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
        return tuple(await asyncio.gather(*(self._place(target) for target in targets[:MOST_PLACES])))

    def target_of(self, promotion: Promotion) -> Target:
        """The promotion's target, as the configuration describes it now."""
        return self.catalog.target(promotion.app, promotion.environment)

    def _first_environment(self, app: str) -> str:
        for environment in self.catalog.environments:
            if any(
                target.app == app and target.environment == environment for target in self.catalog.targets
            ):
                return environment
        return self.catalog.environments[0]

    async def _place(self, target: Target) -> Place:
        image, *facts = await asyncio.gather(
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

    async def _readable(self, id: str) -> Promotion | None:
        """The promotion, unless it belongs to a newer version of the bot: one that we cannot read hides no other."""
        try:
            return await self.store.load(id)
        except Newer:
            return None

    async def _live(self, target: Target, source: Target | None) -> str:
        """The version that the environment before runs, live and healthy."""
        if source is None:
            raise Refused(
                f"{target.environment} is the first environment, so say which version: "
                f"/promote {target.app} <version> {target.environment}"
            )
        facts = await asyncio.gather(*(self._compared(source, each) for each in source.applications))
        return checked_version(gates.live_version(source, facts))

    async def _held(self, target: Target, source: Target | None, version: str) -> Image:
        """The version, with the digest that the environment before holds for it, where this one's file has one."""
        if not target.digests or source is None:
            return Image(version=version)
        held = await self.values.current(source)
        return held if held.version == version else Image(version=version)

    async def _compared(self, target: Target, application: Application) -> ApplicationFacts:
        """The facts; where Argo CD has not compared since its last operation, they are asked of it anew."""
        facts = await self.cluster.observe(target, application, refresh=False)
        if not (facts.is_fresh and facts.compares_spec):
            facts = await self.cluster.observe(target, application, refresh=True)
        return replace(facts, name=target.called(application))

    def _sealed(self, promotion: Promotion) -> Promotion:
        """The request with the bot's own seal on it."""
        seal = self.sealer.seal(
            id=promotion.id,
            content_hash=promotion.content_hash,
            by=promotion.requested_by,
            decision=Decision.REQUEST,
            at=promotion.requested_at,
            said=request_words(promotion),
        )
        return replace(promotion, request_seal=seal)

    async def _create(self, promotion: Promotion, target: Target, delivery: str | None) -> Promotion:
        """Save it, due now; a rollback in the place of what holds the target, where it may have that."""
        holds, instead_of = not self.catalog.is_first(target), None
        for _ in range(TRIES):
            try:
                id = await self.store.create(promotion, delivery=delivery, holds=holds, instead_of=instead_of)
            except TargetBusy as busy:
                held = await self._readable(busy.holder)
                instead_of = _instead_of(promotion, held) if held else None
                if instead_of is None and (held is None or held.phase.holds):
                    raise await self._busy(target, busy) from busy
            except Conflict:  # what it would have replaced has moved on
                instead_of = None
            else:
                return promotion if id == promotion.id else await self.find(id)
        raise Refused("Something changed at this very moment; try again.")

    async def _failed(self, stack: Sequence[rollback.Deployed]) -> frozenset[str]:
        """Of the newest promotions that brought these, those that nobody has seen live, although somebody looked."""
        newest = [each.promotion for each in stack if each.promotion][-MOST_ASKED:]
        found = await asyncio.gather(*(self._readable(id) for id in newest))
        failed = [each.id for each in found if each and _never_ran(each)]
        looks = await asyncio.gather(*(self.store.look(id) for id in failed))
        return frozenset(id for id, look in zip(failed, looks, strict=True) if not look.recovered)

    async def _busy(self, target: Target, busy: TargetBusy) -> TargetBusy:
        holder = await self._readable(busy.holder)
        card = await self.store.card(busy.holder)
        who = f", asked for by {holder.requested_by.name}: {holder.told}" if holder else ""
        return TargetBusy(
            f"{target.app} in {target.environment} is held by {busy.holder}{who}. "
            f"Wait for it, or have it cancelled: /promote cancel {busy.holder}",
            holder=busy.holder,
            link=card.link,
        )

    async def member(self, user: str) -> Person:
        """Who this is, where they are a full member of the workspace; nobody else is told or does anything."""
        person = await self.directory.person(user)
        people.require_member(person)
        return person

    async def _authorised(self, action: Action, id: str, user: str) -> tuple[Promotion, Target, Person]:
        promotion = await self.find(id)
        target = self.target_of(promotion)
        person = await self.member(user)
        held = people.roles(person, promotion, target.policy, {})
        if not people.may(action, held):  # user groups are asked of Slack only where they can matter
            held = people.roles(person, promotion, target.policy, await self._members(target))
        people.require(action, held, promotion.title)
        return promotion, target, person

    async def _members(self, target: Target) -> dict[str, frozenset[str]]:
        groups = sorted(target.policy.deciding_groups)
        found = await asyncio.gather(*(self.directory.members(group) for group in groups))
        return dict(zip(groups, found, strict=True))

    def _require_somebody(self, target: Target, person: Person) -> None:
        """A request that nobody but its requester could approve is refused when it is made."""
        for rule in target.policy.rules:
            if not rule.groups and len(rule.users - {person.id}) < rule.minimum:
                raise Refused(
                    f"Nobody could approve this: {target.environment} needs {rule.minimum} of "
                    f"{len(rule.users)} named approvers, and you are one of them. Let somebody else ask."
                )
        if not target.policy.groups and len(target.policy.users - {person.id}) < target.policy.total:
            raise Refused(
                f"Nobody could approve this: {target.environment} needs {target.policy.total} of "
                f"{len(target.policy.users)} named approvers, and you are one of them. Let somebody else ask."
            )

    async def _change(self, promotion: Promotion, step: Callable[[Promotion], Promotion]) -> Promotion:
        """Apply one step and save it; on a conflict load again, apply again."""
        current = promotion
        holds = not self.catalog.is_first(self.target_of(promotion))
        for _ in range(TRIES):
            after = step(current)
            try:
                await self.store.save([Change(before=current, after=after)], holds=holds)
            except Conflict:
                current = await self.find(promotion.id)
            else:
                return after
        raise Refused(f"{promotion.id} is changing too fast; look at its card and try again.")


def _instead_of(promotion: Promotion, held: Promotion) -> Change | None:
    """A rollback goes before a request that is not being written; nothing else does."""
    may_be_written = held.base is not None or held.phase not in (Phase.REQUESTED, Phase.APPROVED)
    if not promotion.is_rollback or held.is_rollback or may_be_written:
        return None
    why = f"{promotion.id} rolls {promotion.environment} back to {promotion.version}"
    return Change(before=held, after=held.supersede(at=promotion.requested_at, why=why))


def _never_ran(promotion: Promotion) -> bool:
    """Did its rollout end before it was live? Where nobody could look, nobody knows."""
    if promotion.phase is Phase.SUPERSEDED:
        return True
    was_seen = promotion.outcome is None or not promotion.outcome.is_unseen
    return promotion.phase is Phase.FAILED and was_seen


def _reason(text: str | None) -> str | None:
    return one_line(text)[:LONGEST_REASON] or None if text else None


async def _or_why(question: Awaitable[Any]) -> Any:
    """The answer, or the error that people may read; any other error is ours, and nothing to show."""
    try:
        return await question
    except PromoteError as error:
        return error
