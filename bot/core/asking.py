"""Asking for a promotion, and for what was there before: checked, drafted and recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot.core import people, rollback
from bot.core import promotion as promotions
from bot.core.board import Wish
from bot.core.cases import TRIES, Cases, checked_reason, groups_for
from bot.core.catalog import UNKNOWN, Image, Target, checked_version
from bot.core.dossier import Dossier
from bot.core.drafting import Draft, GatesClosed
from bot.core.errors import Conflict, Failed, Refused, TargetBusy, Unavailable
from bot.core.membership import deciding, members_of, require_known_authors, require_somebody
from bot.core.people import Action, Person
from bot.core.policy import Gate
from bot.core.ports import Change
from bot.core.promotion import Decision, Phase, Promotion, Terms, Way
from bot.core.seals import request_words
from bot.core.terms import gates_passed, under
from bot.core.together import together

MOST_COMMITS = 500
"""How far back a rollback looks for what was there before, in commits of ours."""
MOST_ASKED = 20
MOST_OPEN = 5
"""How many open requests one person may have."""
MOST_WISHES = 20
"""Of how many versions one person may wait to be told."""
MOST_LISTED = 500


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
class Asking(Cases):
    """What people can ask for."""

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
        draft = await self.drafting.draft(target, _checked(version), skips=skips, asker=person.id)
        self._require_change(draft, was_named=version is not None)
        require_open(draft, waits=manner.waits, reason=reason)
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
        draft = await self.drafting.draft(target, _checked(version), skips=frozenset(), asker=person.id)
        why_not = ""
        try:
            self._require_change(draft, was_named=version is not None)
            await self._require_right(Action.REQUEST, target, person)
            await self._require_somebody(draft, person)
        except Refused as refused:
            why_not = str(refused)
        return Outlook(draft=draft, why_not=why_not)

    async def tell_me(self, *, app: str, environment: str, version: str | None, user: str) -> None:
        """Remember that this person wants to be told when a version can go; without one, what the one before runs."""
        person = await self.member(user)
        target = self.catalog.target(app, environment)
        await self._require_right(Action.REQUEST, target, person)
        draft = await self.drafting.draft(target, _checked(version), skips=frozenset(), asker=person.id)
        self._require_change(draft, was_named=version is not None)
        wish = Wish(app=app, environment=environment, version=draft.image.version, user=person.id)
        own = [each for each in await self.drafting.board.wishes() if each.user == person.id]
        if wish not in own and len(own) >= MOST_WISHES:
            raise Refused(
                f"You wait to be told of {MOST_WISHES} versions already, and more there cannot be. "
                "Ask again when you were told of one; each is forgotten after seven days."
            )
        await self.drafting.board.wish(wish)

    async def require_rescuer(self, *, app: str, environment: str, user: str) -> Target:
        """The target, where this person may break glass for it: asked before a modal opens."""
        person, target = await self.member(user), self.catalog.target(app, environment)
        await self._require_rescuer(target, person)
        return target

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
        draft = await self.drafting.draft_back(
            under(target, skips), wanted.image, brings=wanted.brings, skips=skips
        )
        if (
            way and draft.plan.old_version != now.version
        ):  # what is directly before it was told of another one
            raise Refused("Something changed at this very moment; try again.")
        if draft.plan.is_done:
            raise Refused(f"{environment} already runs {wanted.image.version}; nothing to roll back.")
        require_open(draft, waits=False)
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
        await self.member(user)
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
        held |= await self.drafting.changes.roles(person.signer, target)
        if not people.may(Action.ROLL_BACK_AT_ONCE, held) or not wanted.image.has_digest:
            return None
        now = await self.values.current(target)
        earlier = [each for each in stack if not each.image.may_be(now)]
        if not earlier or earlier[-1] != wanted or not await self._was_live(wanted, target):
            return None
        is_soon = since is not None and self.clock.now() - since <= rule.within
        return Way.AT_ONCE if is_soon or await self._is_degraded(target) else None

    async def _was_live(self, wanted: rollback.Deployed, target: Target) -> bool:
        """Has somebody seen this very build live there? What nobody knows any more takes the ordinary way."""
        brought = await self._readable(wanted.promotion) if wanted.promotion else None
        if brought is None:
            return False
        # Anybody who may push can write a commit that names a promotion: what that brought is on record.
        image = Image(version=brought.version, digest=brought.digest)
        if (brought.target, image, brought.brings or "") != (target.name, wanted.image, wanted.brings):
            return False
        return brought.phase is Phase.LIVE or bool((await self.store.look(brought.id)).recovered)

    async def _is_degraded(self, target: Target) -> bool:
        """Where nobody can tell it is not, and the ordinary way is still there."""
        looks = (self.cluster.observe(target, each, refresh=False) for each in target.applications)
        try:
            facts = await together(*looks)
        except (Unavailable, Failed):
            return False
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
        await self._require_rescuer(target, person)
        if not (checked_reason(reason) and checked_reason(manner.incident)):
            raise Refused("An emergency needs a reason and the incident that it belongs to.")
        skips = gates_passed(target, way=Way.EMERGENCY, is_rollback=False)
        return under(target, skips), skips

    async def _require_rescuer(self, target: Target, person: Person) -> None:
        if target.policy.emergency is None:
            where = target.environment
            raise Refused(f"Nobody may break glass for {where}: promote.yaml has no emergency for it.")
        await self._require_right(Action.EMERGENCY, target, person)

    async def _require_right(self, action: Action, target: Target, person: Person) -> None:
        """Raise `Refused` where the person may not do it to the target; groups are asked only where they matter."""
        held = people.standing(person, target.policy, {})
        if not people.may(action, held):
            held = await self._standing(target, person, groups_for(action, target.policy))
        held |= await self.drafting.changes.roles(person.signer, target)
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
        # What is not configured any more is kept, but nobody can cancel it.
        known = {target.name for target in self.catalog.targets}
        own = [each for each in waiting if each.requested_by.id == person.id and each.target in known]
        if len(own) >= MOST_OPEN:
            names = ", ".join(each.id for each in own[:MOST_OPEN])
            raise Refused(f"You have {len(own)} open requests: {names}. Cancel one, or wait for one to end.")

    async def _terms(self, draft: Draft, manner: Manner, *, way: Way | None) -> Terms:
        return Terms(
            way=way,
            incident=checked_reason(manner.incident),
            waits=manner.waits,
            dossier=draft.dossier.fingerprint if draft.dossier != Dossier() else None,
            brings=draft.plan.brings or None,
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
            reason=checked_reason(reason),
            rollback_of=rollback_of,
            terms=terms,
        )
        return self._sealed(promotion)

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
        if promotion.dossier:
            await self.store.save_dossier(promotion.id, draft.dossier)
        try:
            made = await self._made(promotion, draft, delivery, replaces=replaces)
        except Refused:
            await self._forget(promotion)
            raise
        if made.id != promotion.id:
            await self._forget(promotion)
        return made

    async def _forget(self, promotion: Promotion) -> None:
        """It was not made, so nothing may be left of it: people may ask in vain as often as they like."""
        if promotion.dossier:
            await self.store.forget_dossier(promotion.id)

    async def _made(
        self, promotion: Promotion, draft: Draft, delivery: str | None, *, replaces: bool
    ) -> Promotion:
        """It, or the one that the delivery made before."""
        holds, instead_of = not self.catalog.is_first(draft.target), None
        for _ in range(TRIES):
            try:
                id = await self.store.create(promotion, delivery=delivery, holds=holds, instead_of=instead_of)
            except TargetBusy as busy:
                held = await self._readable(busy.holder)
                instead_of = _instead_of(promotion, held, replaces=replaces) if held else None
                if instead_of is None and (held is None or held.phase.holds):
                    raise await self._busy(promotion, draft.target, busy) from busy
            except Conflict:  # what it would have replaced has moved on
                instead_of = None
            else:
                return promotion if id == promotion.id else await self.find(id)
        raise Refused("Something changed at this very moment; try again.")

    async def _failed(self, stack: Sequence[rollback.Deployed]) -> frozenset[str]:
        """Of the newest promotions that brought these, those that nobody has seen live, although somebody looked."""
        newest = [each.promotion for each in stack if each.promotion][-MOST_ASKED:]
        found = await together(*(self._readable(id) for id in newest))
        failed = [each.id for each in found if each and _never_ran(each)]
        looks = await together(*(self.store.look(id) for id in failed))
        return frozenset(id for id, look in zip(failed, looks, strict=True) if not look.recovered)

    async def _busy(self, promotion: Promotion, target: Target, busy: TargetBusy) -> TargetBusy:
        holder = await self._readable(busy.holder)
        card = await self.store.card(busy.holder)
        who = f", asked for by {holder.requested_by.name}: {holder.told}" if holder else ""
        cancelled = f"have it cancelled (/promote cancel {busy.holder})"
        what_to_do = f"{cancelled}, or, as long as nobody has approved it, take its place with --replace"
        if promotion.is_rollback or (holder and holder.is_rollback):
            what_to_do = f"or {cancelled}"
        return TargetBusy(
            f"{target.app} in {target.environment} is held by {busy.holder}{who}. Wait for it, {what_to_do}.",
            holder=busy.holder,
            link=card.link,
        )

    async def _require_somebody(self, draft: Draft, person: Person) -> None:
        """A request that nobody living could approve is refused when it is made."""
        policy, dossier = draft.target.policy, draft.dossier
        if not policy.needs_approval:
            return
        never = {person.id, *await self.drafting.changes.ids(draft.target)}
        require_known_authors(policy, dossier)
        if not policy.commit_authors:
            never |= {author.user for author in dossier.authors if author.user}
        if not policy.last_requester and dossier.last_requester:
            never.add(dossier.last_requester)
        members = await deciding(self.directory, policy)
        await require_somebody(
            self.directory, policy, members, never=frozenset(never), where=draft.target.environment
        )


def _instead_of(promotion: Promotion, held: Promotion, *, replaces: bool) -> Change | None:
    """A rollback or an emergency goes before what is not being written; another request before one nobody approved."""
    may_be_written = held.may_be_written or held.phase not in (Phase.REQUESTED, Phase.APPROVED)
    goes_first = (
        (promotion.is_rollback and not (held.is_rollback or held.is_emergency))
        or (promotion.is_emergency and not held.is_emergency)
        or (promotion.way is Way.AT_ONCE and held.way is None)
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


def require_open(draft: Draft, *, waits: bool, reason: str | None = None) -> None:
    """Raise `GatesClosed` unless each gate is open, or may open by itself where the request waits for that."""
    if any(not (waits and answer.may_open) for answer in draft.answers.closed):
        raise GatesClosed(draft, reason=checked_reason(reason))
