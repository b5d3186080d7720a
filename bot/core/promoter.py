"""The use cases: what people ask of the bot, checked and recorded. Nothing is written to git here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bot.core import people, rollback, same_image
from bot.core import promotion as promotions
from bot.core.catalog import UNKNOWN, Application, Catalog, Image, Target, checked_version
from bot.core.dossier import Dossier
from bot.core.drafting import Draft, Drafting, GatesClosed
from bot.core.errors import Conflict, Newer, PromoteError, Refused, TargetBusy, Unavailable
from bot.core.membership import known_dossier, members_of, require_somebody
from bot.core.people import Action, Person
from bot.core.policy import Gate, Policy
from bot.core.ports import Card, Change, Clock, Cluster, Directory, Images, Store, ValuesRepository
from bot.core.promotion import Approval, Decision, Event, Phase, Promotion, Terms, Way
from bot.core.rollout import ApplicationFacts, Stage
from bot.core.seals import Sealer, request_words
from bot.core.terms import gates_passed, gates_passed_by, target_for, under
from bot.core.trailers import one_line

TRIES = 5
MOST_PLACES = 30
LONGEST_REASON = 500
MOST_COMMITS = 500
"""How far back a rollback looks for what was there before, in commits of ours."""
MOST_ASKED = 20
MOST_OPEN = 5
"""How many open requests one person may have."""
MOST_LISTED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One target as it stands: what git says, what runs, and the promotion that is under way."""

    target: Target
    version: str
    applications: tuple[ApplicationFacts | str, ...]
    """The facts of each application, or why they could not be read."""
    current: Promotion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How somebody asks: to start when the gates open, in place of a request nobody approved, in an emergency."""

    waits: bool = False
    replaces: bool = False
    incident: str | None = None
    """What burns; with it the request breaks glass."""


PLAINLY = Manner()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a request would be, and why this person could not make it; empty where they could."""

    draft: Draft
    why_not: str = ""


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
    drafting: Drafting

    async def request(
        self,
        *,
        app: str,
        environment: str,
        version: str | None,
        reason: str | None,
        user: str,
        delivery: str | None = None,
        manner: Manner = PLAINLY,
    ) -> Promotion:
        """Ask that a target run a version; without one, the version that is live in the environment before.

        Raises `GatesClosed` where something stands in the way that the request may not pass or wait for.
        """
        person = await self.member(user)
        target, skips = await self._may_ask(app, environment, person, reason, manner)
        draft = await self.drafting.draft(target, _checked(version), skips=skips)
        self._require_change(draft, was_named=version is not None)
        _require_open(draft, waits=manner.waits)
        await self._require_somebody(draft, person)
        terms = await self._terms(draft, manner, way=Way.EMERGENCY if manner.incident else None)
        source = draft.source
        promotion = self._asked(
            draft, source=source.environment if source else "ci", by=person, reason=reason, terms=terms
        )
        return await self._create(promotion, draft, delivery, replaces=manner.replaces)

    async def can(self, *, app: str, environment: str, version: str | None, user: str) -> Outlook:
        """Could this person ask for it now, and who could approve it? Nothing is recorded."""
        person = await self.member(user)
        target = self.catalog.target(app, environment)
        draft = await self.drafting.draft(target, _checked(version), skips=frozenset())
        why_not = ""
        try:
            self._require_change(draft, was_named=version is not None)
            await self._require_right(Action.REQUEST, target, person)
            await self._require_somebody(draft, person)
        except Refused as refused:
            why_not = str(refused)
        return Outlook(draft=draft, why_not=why_not)

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

        It needs the environment's ordinary approval, but for what `rollback` of the policy says; it takes the place
        of a request that nobody has written yet.
        """
        person = await self.member(user)
        target = self.catalog.target(app, environment)
        await self._require_right(Action.ROLL_BACK, target, person)
        wanted, stack, at = await self._wanted(target, _checked(version))
        now = await self.values.current(target)
        way = await self._lighter(target, person, wanted, stack, since=at)
        skips = gates_passed(target, way=way, is_rollback=True)
        draft = await self.drafting.draft_back(under(target, skips), wanted.image, skips=skips)
        if draft.plan.is_done:
            raise Refused(f"{environment} already runs {wanted.image.version}; nothing to roll back.")
        _require_open(draft, waits=False)
        await self._require_somebody(draft, person)
        newest = next((each for each in reversed(stack) if each.image.version == now.version), None)
        promotion = self._asked(
            draft,
            source=environment,
            by=person,
            reason=reason,
            terms=await self._terms(draft, PLAINLY, way=way),
            rollback_of=(newest.promotion if newest else None) or UNKNOWN,
        )
        return await self._create(promotion, draft, delivery)

    async def _wanted(
        self, target: Target, version: str | None
    ) -> tuple[rollback.Deployed, Sequence[rollback.Deployed], datetime | None]:
        """What to go back to, what stood in the target, and since when the newest of it does."""
        written = await self.values.written(target.repository, limit=MOST_COMMITS)
        stood, stack = rollback.history(written, target), rollback.deployed(written, target)
        at = rollback.since(written, target)
        if version is not None:
            return rollback.wanted(stood, version, target), stack, at
        now, bad = await self.values.current(target), await self._failed(stack)
        return rollback.before(stack, now=now, bad=bad, target=target), stack, at

    async def _lighter(
        self,
        target: Target,
        person: Person,
        wanted: rollback.Deployed,
        stack: Sequence[rollback.Deployed],
        *,
        since: datetime | None,
    ) -> Way | None:
        """May this rollback go without approval? Only to what was live directly before, proved, and soon enough."""
        rule = target.policy.rollback
        if rule is None or not target.policy.needs_approval:
            return None
        held = await self._standing(target, person, rule.who.groups)
        if not people.may(Action.ROLL_BACK_AT_ONCE, held) or not wanted.image.has_digest:
            return None
        now = await self.values.current(target)
        earlier = [each for each in stack if not each.image.may_be(now)]
        if not earlier or earlier[-1] != wanted or wanted.promotion in await self._failed(stack):
            return None
        is_soon = since is not None and self.clock.now() - since <= rule.within
        return Way.AT_ONCE if is_soon or await self._is_degraded(target) else None

    async def _is_degraded(self, target: Target) -> bool:
        facts = await asyncio.gather(
            *(self.cluster.observe(target, each, refresh=False) for each in target.applications)
        )
        return any(each.health == "Degraded" for each in facts)

    def _require_change(self, draft: Draft, *, was_named: bool) -> None:
        if draft.plan.is_done:
            environment, source = draft.target.environment, draft.source
            told = "" if was_named or not source else f", which is what {source.environment} runs"
            raise Refused(f"{environment} already runs {draft.image.version}{told}; nothing to do.")

    async def _may_ask(
        self, app: str, environment: str, person: Person, reason: str | None, manner: Manner
    ) -> tuple[Target, frozenset[Gate]]:
        """The target under the terms of this request, and the gates that it passes, where the person may ask so."""
        target = self.catalog.target(app, environment)
        if manner.incident is None:
            await self._require_right(Action.REQUEST, target, person)
            await self._require_few_open(person)
            return target, frozenset()
        if target.policy.emergency is None:
            raise Refused(f"Nobody may break glass for {environment}: promote.yaml has no emergency for it.")
        await self._require_right(Action.EMERGENCY, target, person)
        if not (_reason(reason) and _reason(manner.incident)):
            raise Refused("An emergency needs a reason and the incident that it belongs to.")
        skips = gates_passed(target, way=Way.EMERGENCY, is_rollback=False)
        return under(target, skips), skips

    async def _require_right(self, action: Action, target: Target, person: Person) -> None:
        """Raise `Refused` where the person may not do it to the target; groups are asked only where they matter."""
        held = people.standing(person, target.policy, {})
        if not people.may(action, held):
            held = await self._standing(target, person, _groups_for(action, target.policy))
        people.require(action, held, f"promotions of {target.app} to {target.environment}")

    async def _standing(
        self, target: Target, person: Person, groups: Iterable[str]
    ) -> frozenset[people.Role]:
        return people.standing(person, target.policy, await members_of(self.directory, groups))

    async def _require_few_open(self, person: Person) -> None:
        """One person cannot hold everything."""
        waiting = [
            each
            for phase in (Phase.REQUESTED, Phase.APPROVED)
            for each in await self.store.in_phase(phase, limit=MOST_LISTED)
        ]
        own = [each for each in waiting if each.requested_by.id == person.id]
        if len(own) >= MOST_OPEN:
            names = ", ".join(each.id for each in own[:MOST_OPEN])
            raise Refused(f"You have {len(own)} open requests: {names}. Cancel one, or wait for one to end.")

    async def _terms(self, draft: Draft, manner: Manner, *, way: Way | None) -> Terms:
        return Terms(
            way=way,
            incident=_reason(manner.incident),
            waits=manner.waits,
            dossier=draft.dossier.fingerprint if draft.dossier != Dossier() else None,
        )

    def _asked(
        self,
        draft: Draft,
        *,
        source: str,
        by: Person,
        reason: str | None,
        terms: Terms,
        rollback_of: str | None = None,
    ) -> Promotion:
        """The sealed request."""
        promotion = promotions.request(
            draft.target,
            id=promotions.new_id(),
            source=source,
            version=draft.image.version,
            old_version=draft.plan.old_version,
            changes=draft.plan.changes,
            digest=draft.image.digest,
            by=by.signer,
            at=self.clock.now(),
            reason=_reason(reason),
            rollback_of=rollback_of,
            terms=terms,
        )
        return self._sealed(promotion)

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
            manner=Manner(waits=bool(old.waits)),
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
            promotion, lambda current: current.review(by=user, at=now, why=_reason(why))
        )

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
        """The promotion's target, as the configuration describes it now, under the promotion's own terms."""
        return target_for(promotion, self.catalog.target(promotion.app, promotion.environment))

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

    async def _create(
        self, promotion: Promotion, draft: Draft, delivery: str | None, *, replaces: bool = False
    ) -> Promotion:
        """Save it, due now; in the place of what holds the target, where it may have that."""
        holds, instead_of = not self.catalog.is_first(draft.target), None
        if promotion.dossier:
            await self.store.save_dossier(promotion.id, draft.dossier)
        for _ in range(TRIES):
            try:
                id = await self.store.create(promotion, delivery=delivery, holds=holds, instead_of=instead_of)
            except TargetBusy as busy:
                held = await self._readable(busy.holder)
                instead_of = _instead_of(promotion, held, replaces=replaces) if held else None
                if instead_of is None and (held is None or held.phase.holds):
                    raise await self._busy(draft.target, busy) from busy
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
            f"Wait for it, have it cancelled (/promote cancel {busy.holder}), or, as long as nobody has approved it, "
            "take its place with --replace.",
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
        # Who may approve is a matter of the rules of the target, also where this promotion needs nobody's approval.
        policy = self.catalog.target(promotion.app, promotion.environment).policy
        person = await self.member(user)
        dossier = await known_dossier(self.store, promotion)
        held = people.roles(person, promotion, policy, {}, dossier)
        if (
            not people.may(action, held) or policy.denied.groups
        ):  # groups are asked of Slack only where they matter
            members = await members_of(self.directory, _groups_for(action, policy))
            held = people.roles(person, promotion, policy, members, dossier)
        people.require(action, held, promotion.title)
        return promotion, target, person

    async def _require_somebody(self, draft: Draft, person: Person) -> None:
        """A request that nobody living could approve is refused when it is made."""
        policy, dossier = draft.target.policy, draft.dossier
        if not policy.needs_approval:
            return
        never = {person.id}
        if not policy.commit_authors:
            _require_known_authors(policy, dossier)
            never |= {author.user for author in dossier.authors if author.user}
        if not policy.last_requester and dossier.last_requester:
            never.add(dossier.last_requester)
        members = await members_of(self.directory, policy.deciding_groups)
        await require_somebody(
            self.directory, policy, members, never=frozenset(never), where=draft.target.environment
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


def _instead_of(promotion: Promotion, held: Promotion, *, replaces: bool) -> Change | None:
    """A rollback or an emergency goes before what is not being written; another request before one nobody approved."""
    may_be_written = held.base is not None or held.phase not in (Phase.REQUESTED, Phase.APPROVED)
    goes_first = (promotion.is_rollback and not held.is_rollback) or (
        promotion.is_emergency and not held.is_emergency
    )
    is_untouched = held.phase is Phase.REQUESTED and not held.approvals and not held.is_rollback
    if may_be_written or not (goes_first or (replaces and is_untouched)):
        return None
    why = f"{promotion.id} of {promotion.requested_by.name} took its place, with {promotion.version}"
    if promotion.is_rollback:
        why = f"{promotion.id} rolls {promotion.environment} back to {promotion.version}"
    return Change(before=held, after=held.supersede(at=promotion.requested_at, why=why))


def _never_ran(promotion: Promotion) -> bool:
    """Did its rollout end before it was live? Where nobody could look, nobody knows."""
    if promotion.phase is Phase.SUPERSEDED:
        return True
    was_seen = promotion.outcome is None or not promotion.outcome.is_unseen
    return promotion.phase is Phase.FAILED and was_seen


def _checked(version: str | None) -> str | None:
    return None if version is None else checked_version(version)


def _require_open(draft: Draft, *, waits: bool) -> None:
    """Raise `GatesClosed` unless each gate is open, or may open by itself where the request waits for that."""
    if any(not (waits and answer.may_open) for answer in draft.answers.closed):
        raise GatesClosed(draft)


def _require_known_authors(policy: Policy, dossier: Dossier) -> None:
    """Where authors may not approve, it must be known who they are."""
    commits = dossier.source
    if policy.unknown_authors:
        return
    if commits is None or not commits.are_all_known:
        why = (
            commits.unknown
            if commits and commits.unknown
            else "there are too many commits, or none are known"
        )
        raise Refused(f"Authors of its commits may not approve it, and nobody can tell who they are: {why}.")
    strangers = sorted({one_line(author.author) for author in dossier.authors if author.user is None})
    if strangers:
        raise Refused(
            f"Authors of its commits may not approve it, and I do not know who {', '.join(strangers[:5])} is in "
            "Slack. Add the address to identities in promote.yaml."
        )


def _groups_for(action: Action, policy: Policy) -> frozenset[str]:
    """The user groups that can give or take this right."""
    found = policy.deciding_groups
    if action in (Action.REQUEST, Action.ASK_AGAIN, Action.ROLL_BACK) and policy.requesters:
        found |= policy.requesters.groups
    if action is Action.ROLL_BACK and policy.rollback:
        found |= policy.rollback.who.groups
    if action in (Action.EMERGENCY, Action.REVIEW) and policy.emergency:
        found |= policy.emergency.who.groups
    return found


def _reason(text: str | None) -> str | None:
    return one_line(text)[:LONGEST_REASON] or None if text else None


async def _or_why(question: Awaitable[Any]) -> Any:
    """The answer, or the error that people may read; any other error is ours, and nothing to show."""
    try:
        return await question
    except PromoteError as error:
        return error
