"""`python -m bot explain`: could a promotion go, why not, and who could approve it. Nothing is written anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bot.core import gates, people
from bot.core import promotion as promotions
from bot.core.cases import groups_for
from bot.core.catalog import Target, checked_version
from bot.core.drafting import Draft, Drafting
from bot.core.errors import PromoteError, Refused
from bot.core.gates import Answer, Stand
from bot.core.membership import (
    MOST_ASKED,
    deciding,
    is_member,
    members_of,
    require_known_authors,
    require_somebody,
)
from bot.core.people import Action, Person, Role
from bot.core.policy import Gate, Members, Policy
from bot.core.ports import Directory, Store
from bot.core.promotion import Promotion, Signer
from bot.outside import Outside, open_outside
from bot.settings import Settings

GOES, STAYS, UNKNOWN = 0, 1, 2
"""Exit codes: it could go, it could not, nobody can tell."""
ENDS = {
    GOES: "It could go.",
    STAYS: "It could not go; see the lines that do not begin with open.",
    UNKNOWN: "Nobody can tell; see the lines that begin with unknown.",
}
SOMEBODY = Signer(id="", team="", name="somebody")
"""Who asks, where nobody is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A clock that stands at one moment."""

    moment: datetime

    def now(self) -> datetime:
        """That moment."""
        return self.moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question and its answer. `decides` is False for what only explains another row."""

    what: str
    stand: Stand
    says: str
    decides: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """What a request of this moment, or of another one, would meet."""

    drafting: Drafting
    directory: Directory
    store: Store
    now: datetime
    at: datetime

    @classmethod
    def of(cls, outside: Outside, at: datetime | None) -> Explaining:
        """On everything that is outside, as of a moment; None: now."""
        now = datetime.now(UTC)
        # User groups are asked of Slack itself: what is shared with the running bot would be written.
        directory = outside.directory
        drafting = replace(outside.drafting(outside.board), directory=directory)
        return cls(drafting=drafting, directory=directory, store=outside.store, now=now, at=at or now)

    async def rows(
        self, *, app: str, environment: str, version: str | None, user: str | None
    ) -> AsyncIterator[Row]:
        """Every gate, every rule, and everybody who could approve; `user` asks for it, where that is known."""
        target = self.drafting.catalog.target(app, environment)
        asker = await self.directory.person(user) if user else None
        draft = await self._draft(target, version)
        yield _change(draft)
        for answer in draft.answers.each:
            yield self._gate(answer)
        yield await self._hold(target)
        if asker:
            yield await self._request(target, asker)
        async for row in self._approvals(draft, asker):
            yield row

    async def _draft(self, target: Target, version: str | None) -> Draft:
        keeper = replace(self.drafting.gatekeeper, clock=At(moment=self.at))
        drafting = replace(self.drafting, gatekeeper=keeper)
        wanted = None if version is None else checked_version(version)
        return await drafting.draft(target, wanted, skips=frozenset())

    def _gate(self, answer: Answer) -> Row:
        if answer.gate is Gate.SOAK and answer.opens_at:
            # It is counted as of now, and goes on as long as the build stays healthy.
            opens_at = answer.opens_at - (self.at - self.now)
            says = f"{answer.says}; by then it has, if it stays healthy"
            is_over = opens_at <= self.at
            answer = gates.opened(Gate.SOAK, says) if is_over else replace(answer, opens_at=opens_at)
        opens = f"; opens at {answer.opens_at:%Y-%m-%d %H:%M} UTC" if answer.opens_at else ""
        return Row(what=f"gate: {answer.gate}", stand=answer.stand, says=f"{answer.says.rstrip('.')}{opens}")

    async def _hold(self, target: Target) -> Row:
        """Does another request keep it?"""
        holder = await self.store.holder(target)
        if holder:
            return Row(
                what="target", stand=Stand.CLOSED, says=f"held by {holder}; /promote show {holder} says why"
            )
        return Row(what="target", stand=Stand.OPEN, says="no other request holds it")

    async def _request(self, target: Target, asker: Person) -> Row:
        """May this person ask?"""
        what = f"requester: {_called(asker)}"
        try:
            people.require_member(asker)
            members = await members_of(self.directory, groups_for(Action.REQUEST, target.policy))
            held = people.standing(asker, target.policy, members)
            held |= await self.drafting.changes.roles(asker.signer, target)
            people.require(Action.REQUEST, held, f"promotions of {target.app} to {target.environment}")
        except Refused as refused:
            return Row(what=what, stand=Stand.CLOSED, says=str(refused))
        return Row(what=what, stand=Stand.OPEN, says="may ask for it")

    async def _approvals(self, draft: Draft, asker: Person | None) -> AsyncIterator[Row]:
        """Whom each rule admits, who of them could approve, and whether that is enough."""
        policy = draft.target.policy
        if not policy.needs_approval:
            yield Row(what="approvals", stand=Stand.OPEN, says="nobody has to approve")
            return
        members = await deciding(self.directory, policy)
        named = _named(policy, members)
        asked = [await self.directory.person(user) for user in sorted(named)[:MOST_ASKED]]
        changed = {each.id: await self.drafting.changes.roles(each.signer, draft.target) for each in asked}
        excluded = {
            each.id: "; ".join(_reasons(each, draft, members, asker, changed[each.id])) for each in asked
        }
        for person in asked:
            why = excluded[person.id]
            stand, says = (Stand.CLOSED, why) if why else (Stand.OPEN, "could approve")
            yield Row(what=f"approver: {_called(person)}", stand=stand, says=says, decides=False)
        if len(named) > len(asked):
            says = f"{len(named) - len(asked)} more were not looked up"
            yield Row(what="approvers", stand=Stand.UNKNOWN, says=says, decides=False)
        able = {user for user, why in excluded.items() if not why}
        for row in _rules(policy, able, members):
            yield row
        yield await self._enough(draft, members, never=frozenset(excluded) - able)

    async def _enough(self, draft: Draft, members: Members, *, never: frozenset[str]) -> Row:
        """Could the living satisfy every rule, and is it known who may not?"""
        policy, where = draft.target.policy, draft.target.environment
        try:
            require_known_authors(policy, draft.dossier)
            await require_somebody(self.directory, policy, members, never=never, where=where)
        except Refused as refused:
            return Row(what="approvals", stand=Stand.CLOSED, says=str(refused))
        return Row(what="approvals", stand=Stand.OPEN, says="every rule can be met")


async def explain(
    settings: Settings,
    *,
    app: str,
    environment: str,
    version: str | None,
    user: str | None,
    at: datetime | None,
    say: Callable[[str], None],
) -> int:
    """Say every row as it comes; returns the exit code. `at` is an aware moment, None: now."""
    try:
        async with open_outside(settings, may_embed=True) as outside:
            explaining = Explaining.of(outside, at)
            rows = explaining.rows(app=app, environment=environment, version=version, user=user)
            code = await said(rows, say)
    except PromoteError as error:
        for row in _ended("settings", error):
            _say(row, say)
        code = UNKNOWN
    say(f"\n{ENDS[code]}")
    return code


async def said(rows: AsyncIterator[Row], say: Callable[[str], None]) -> int:
    """Say each row; one that is closed decides that it could not go, else one that nobody can tell decides that."""
    stands = set()
    try:
        async for row in rows:
            _say(row, say)
            if row.decides:
                stands.add(row.stand)
    except PromoteError as error:
        for row in _ended("promotion", error):
            _say(row, say)
            stands.add(row.stand)
    if stands & {Stand.CLOSED, Stand.WAITS}:
        return STAYS
    return UNKNOWN if Stand.UNKNOWN in stands else GOES


def _say(row: Row, say: Callable[[str], None]) -> None:
    say(f"{row.stand:<8} {row.what:<34} {row.says}")


def _ended(what: str, error: PromoteError) -> Iterator[Row]:
    """What ended the questions, a row for each line of it, so that the last sentence finds it."""
    stand = Stand.CLOSED if isinstance(error, Refused) else Stand.UNKNOWN
    for line in str(error).splitlines():
        yield Row(what=what, stand=stand, says=line)


def _change(draft: Draft) -> Row:
    """What would be changed."""
    environment, source = draft.target.environment, draft.source
    if draft.plan.is_done:
        return Row(
            what="version",
            stand=Stand.CLOSED,
            says=f"{environment} already has {draft.image.version}; nothing to do",
        )
    origin = f", as {source.environment} has it" if source else ""
    says = f"{draft.plan.old_version} → {draft.image}{origin}"
    return Row(what="version", stand=Stand.OPEN, says=says)


def _named(policy: Policy, members: Members) -> frozenset[str]:
    """Everybody whom a rule names, also who may not approve all the same."""
    users = frozenset(user for rule in policy.rules for user in rule.users)
    return users.union(*(members.get(group, frozenset()) for group in policy.groups))


def _rules(policy: Policy, able: Collection[str], members: Members) -> Iterator[Row]:
    """How many could approve of those whom each rule names."""
    for number, rule in enumerate(policy.rules, start=1):
        count = sum(rule.admits(user, members) for user in able)
        stand = Stand.OPEN if count >= rule.minimum else Stand.CLOSED
        named = ", ".join(sorted(rule.users | rule.groups))
        says = f"needs {rule.minimum} of {named}; {count} could"
        yield Row(what=f"rule {number}", stand=stand, says=says, decides=False)
    stand = Stand.OPEN if len(able) >= policy.total else Stand.CLOSED
    says = f"needs {policy.total} different people; {len(able)} could"
    yield Row(what="total", stand=stand, says=says, decides=False)


def _reasons(
    person: Person, draft: Draft, members: Members, asker: Person | None, changed: frozenset[Role]
) -> Iterator[str]:
    """Why this person could not approve; nothing where they could."""
    policy = draft.target.policy
    held = people.roles(person, _request_of(draft, asker), policy, members, draft.dossier) | changed
    for role in sorted(people.PERMISSIONS[Action.APPROVE].never & held):
        yield f"{role}: {people.MEANINGS[role]}"
    if policy.denied.admits(person.id, members):
        yield "denied: `deny` names them"
    if not is_member(person):
        yield "left" if person.is_deactivated else "no full member of the workspace"


def _request_of(draft: Draft, asker: Person | None) -> Promotion:
    """What the request would be; it is never saved."""
    return promotions.request(
        draft.target,
        id=promotions.new_id(),
        source=draft.source.environment if draft.source else "ci",
        version=draft.image.version,
        old_version=draft.plan.old_version,
        changes=draft.plan.changes,
        digest=draft.image.digest,
        by=asker.signer if asker else SOMEBODY,
        at=datetime.now(UTC),
        reason=None,
    )


def _called(person: Person) -> str:
    return person.id if person.name == person.id else f"{person.name} ({person.id})"
