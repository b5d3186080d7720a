"""What every use case needs: who somebody is, which promotion is meant, and a change that is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bot.core import people
from bot.core.catalog import Catalog, Target
from bot.core.drafting import Drafting
from bot.core.errors import Conflict, Newer, Refused
from bot.core.membership import deciding, known_dossier
from bot.core.people import Action, Person, Role
from bot.core.policy import Policy
from bot.core.ports import Change, Clock, Cluster, Directory, Images, Store, ValuesRepository
from bot.core.promotion import Promotion
from bot.core.seals import Sealer
from bot.core.terms import target_for
from bot.core.trailers import one_line

TRIES = 5
LONGEST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """What the use cases are made on; each raises `Refused` or `Unavailable`."""

    catalog: Catalog
    store: Store
    values: ValuesRepository
    cluster: Cluster
    images: Images
    directory: Directory
    clock: Clock
    sealer: Sealer
    drafting: Drafting

    async def find(self, id: str) -> Promotion:
        """The promotion; raises `Refused` for an id that nobody knows."""
        promotion = await self.store.load(id.upper())
        if promotion is None:
            raise Refused(
                f"I know no promotion {one_line(id)[:40]}. If it was lost, ask again with /promote."
            )
        return promotion

    async def requester_of(self, target: Target, version: str) -> str | None:
        """Who asked for the open promotion of a version to a target, by Slack id; None where none is open."""
        holder = await self.store.holder(target)
        held = await self._readable(holder) if holder else None
        return held.requested_by.id if held and held.version == version else None

    async def member(self, user: str) -> Person:
        """Who this is, where they are a full member of the workspace; nobody else is told or does anything."""
        person = await self.directory.person(user)
        people.require_member(person)
        return person

    def target_of(self, promotion: Promotion) -> Target:
        """The promotion's target, as the configuration describes it now, under the promotion's own terms."""
        return target_for(promotion, self.catalog.target(promotion.app, promotion.environment))

    async def _authorised(self, action: Action, id: str, user: str) -> tuple[Promotion, Target, Person]:
        person = await self.member(user)  # nobody else learns even which promotions there are
        promotion = await self.find(id)
        target = self.target_of(promotion)
        # Who may approve is a matter of the rules of the target, also where this promotion needs nobody's approval.
        policy = self.catalog.target(promotion.app, promotion.environment).policy
        # What it brings only decides who may approve: whose dossier is lost can still be cancelled.
        dossier = await known_dossier(self.store, promotion) if action is Action.APPROVE else None
        changed = await self.drafting.changes.roles(person.signer, target)
        held = people.roles(person, promotion, policy, {}, dossier) | changed
        is_sure = people.may(action, held - {Role.APPROVER} if policy.denied.groups else held)
        if not is_sure:  # user groups are asked of Slack only where they matter
            members = await deciding(self.directory, policy, groups_for(action, policy))
            held = people.roles(person, promotion, policy, members, dossier) | changed
        people.require(action, held, promotion.title)
        return promotion, target, person

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

    async def _readable(self, id: str) -> Promotion | None:
        """The promotion, unless it belongs to a newer version of the bot: one that we cannot read hides no other."""
        try:
            return await self.store.load(id)
        except Newer:
            return None


def groups_for(action: Action, policy: Policy) -> frozenset[str]:
    """The user groups that can give or take this right."""
    found = policy.deciding_groups
    if action in (Action.REQUEST, Action.ASK_AGAIN, Action.ROLL_BACK) and policy.requesters:
        found |= policy.requesters.groups
    if action is Action.ROLL_BACK and policy.rollback:
        found |= policy.rollback.who.groups
    if action in (Action.EMERGENCY, Action.REVIEW) and policy.emergency:
        found |= policy.emergency.who.groups
    return found


def checked_reason(text: str | None) -> str | None:
    """One line of at most five hundred characters; None where nothing is said."""
    return one_line(text)[:LONGEST_REASON] or None if text else None
