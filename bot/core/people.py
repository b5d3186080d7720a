"""Who may do what: one table, read at the click and again at the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.core.dossier import Dossier
from bot.core.errors import Refused
from bot.core.policy import CheckRule, Members, Policy
from bot.core.promotion import Promotion, Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in Slack, as Slack's directory says now. Ids decide; the name and the email are for show."""

    id: str
    team: str
    name: str
    email: str | None = None
    is_bot: bool = False
    is_guest: bool = False
    is_stranger: bool = False
    is_deactivated: bool = False

    @property
    def signer(self) -> Signer:
        """The person as a record keeps them."""
        return Signer(id=self.id, team=self.team, name=self.name, email=self.email)


class Action(StrEnum):
    """What a person can ask of the bot."""

    REQUEST = "request"
    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    WITHDRAW = "withdraw"
    ASK_AGAIN = "ask again"
    SYNC = "sync"
    ROLL_BACK = "roll back"
    ROLL_BACK_AT_ONCE = "roll back at once"
    REPLACE = "replace"
    EMERGENCY = "break glass"
    REVIEW = "review"
    REPORT = "report a check"
    LOCK = "lock"
    UNLOCK = "unlock"
    BLOCK = "block"
    UNBLOCK = "unblock"


class Role(StrEnum):
    """What a person is to a target, and to one promotion of it."""

    MEMBER = "full member"
    ASKER = "asker"
    APPROVER = "approver"
    DENIED = "denied"
    KEEPER = "keeper"
    REPORTER = "reporter"
    ROLLER = "roller"
    RESCUER = "rescuer"
    REQUESTER = "requester"
    GIVER = "giver of the approval"
    AUTHOR = "author"
    LAST_REQUESTER = "last requester"
    POLICY_AUTHOR = "author of the rules"


MEANINGS: Mapping[Role, str] = {
    Role.MEMBER: "a full member of the workspace",
    Role.ASKER: "somebody whom `requesters` names, or every full member",
    Role.APPROVER: "somebody whom a rule of `approvals` names, and `deny` does not",
    Role.DENIED: "somebody whom `deny` names: never an approver",
    Role.KEEPER: "somebody whom `lockers` names, or every full member",
    Role.REPORTER: "somebody whom the check names",
    Role.ROLLER: "somebody whom `rollback` names",
    Role.RESCUER: "somebody whom `emergency` names",
    Role.REQUESTER: "who asked for this promotion",
    Role.GIVER: "who approved it",
    Role.AUTHOR: "who wrote one of its commits, where `commit_authors` is false",
    Role.LAST_REQUESTER: "who asked for what is there now, where `last_requester` is false",
    Role.POLICY_AUTHOR: "who changed the rules of the environment within the last 24 hours",
}
"""What each role is, for the documentation and for refusals."""


@dataclass(frozen=True, slots=True)
class Permission:
    """Any of `to` may, but none of `never`."""

    to: frozenset[Role]
    never: frozenset[Role] = frozenset()


def _row(*to: Role, never: tuple[Role, ...] = ()) -> Permission:
    return Permission(to=frozenset(to), never=frozenset(never))


PERMISSIONS: Mapping[Action, Permission] = {
    Action.REQUEST: _row(Role.ASKER, never=(Role.POLICY_AUTHOR,)),
    Action.APPROVE: _row(
        Role.APPROVER, never=(Role.REQUESTER, Role.AUTHOR, Role.LAST_REQUESTER, Role.POLICY_AUTHOR)
    ),
    Action.REJECT: _row(Role.APPROVER, never=(Role.REQUESTER,)),
    Action.CANCEL: _row(Role.REQUESTER, Role.APPROVER),
    Action.WITHDRAW: _row(Role.GIVER),
    Action.ASK_AGAIN: _row(Role.ASKER, never=(Role.POLICY_AUTHOR,)),
    Action.SYNC: _row(Role.REQUESTER, Role.APPROVER),
    Action.ROLL_BACK: _row(Role.ASKER, Role.ROLLER),
    Action.ROLL_BACK_AT_ONCE: _row(Role.ROLLER, never=(Role.POLICY_AUTHOR,)),
    Action.REPLACE: _row(Role.ASKER, never=(Role.POLICY_AUTHOR,)),
    Action.EMERGENCY: _row(Role.RESCUER, never=(Role.POLICY_AUTHOR,)),
    Action.REVIEW: _row(Role.APPROVER, Role.RESCUER, never=(Role.REQUESTER,)),
    Action.REPORT: _row(Role.REPORTER, never=(Role.REQUESTER,)),
    Action.LOCK: _row(Role.KEEPER),
    Action.UNLOCK: _row(Role.KEEPER),
    Action.BLOCK: _row(Role.KEEPER),
    Action.UNBLOCK: _row(Role.KEEPER),
}
"""Nobody but a full member of the workspace may do anything, whatever else they are."""


def require_member(person: Person) -> None:
    """Raise `Refused`, with the reason, for everybody who is no full member of the workspace."""
    why = {
        "your account is deactivated": person.is_deactivated,
        "bots may not promote": person.is_bot,
        "you are from another workspace": person.is_stranger,
        "guests may not promote": person.is_guest,
    }
    for reason, applies in why.items():
        if applies:
            raise Refused(f"You may not do that: {reason}. Ask a full member of the workspace.")


def standing(
    person: Person, policy: Policy, members: Members, *, check: CheckRule | None = None
) -> frozenset[Role]:
    """What the person is to a target; `members` holds the people of each user group that counts."""
    emergency, rollback = policy.emergency, policy.rollback
    held = {
        Role.MEMBER: True,
        Role.ASKER: policy.requesters is None or policy.requesters.admits(person.id, members),
        Role.APPROVER: policy.admits(person.id, members),
        Role.DENIED: policy.denied.admits(person.id, members),
        Role.KEEPER: policy.lockers is None or policy.lockers.admits(person.id, members),
        Role.REPORTER: check is not None and check.reporters.admits(person.id, members),
        Role.ROLLER: rollback is not None and rollback.who.admits(person.id, members),
        Role.RESCUER: emergency is not None and emergency.who.admits(person.id, members),
    }
    return frozenset(role for role, holds in held.items() if holds)


def roles(
    person: Person, promotion: Promotion, policy: Policy, members: Members, dossier: Dossier | None = None
) -> frozenset[Role]:
    """What the person is to the promotion now; `dossier` tells who wrote what it brings."""
    dossier = dossier or Dossier()
    held = {
        Role.REQUESTER: person.id == promotion.requested_by.id,
        Role.GIVER: promotion.approved_by(person.id),
        Role.AUTHOR: not policy.commit_authors and _wrote(person, dossier),
        Role.LAST_REQUESTER: not policy.last_requester and person.id == dossier.last_requester,
    }
    return standing(person, policy, members) | {role for role, holds in held.items() if holds}


def _wrote(person: Person, dossier: Dossier) -> bool:
    """Did the person write one of the commits, by id or by address?"""
    address = (person.email or "").lower()
    return any(
        author.user == person.id or (address and author.email.lower() == address)
        for author in dossier.authors
    )


def may(action: Action, held: frozenset[Role]) -> bool:
    """May somebody with these roles do it?"""
    permission = PERMISSIONS[action]
    return bool(permission.to & held) and not permission.never & held


def require(action: Action, held: frozenset[Role], what: str) -> None:
    """Raise `Refused`, with the reason, where somebody with these roles may not do it; `what` is what to do it to."""
    permission = PERMISSIONS[action]
    for role, why in _NEVER.items():
        if role in permission.never & held:
            must = f"so somebody else must {action}. Ask one of {_who(permission.to)}."
            raise Refused(f"{why.format(what=what)}, {must}")
    if not permission.to & held:
        raise Refused(_refusal(action, held, what))


_NEVER: Mapping[Role, str] = {
    Role.REQUESTER: "You asked for {what}",
    Role.AUTHOR: "You wrote one of the commits of {what}",
    Role.LAST_REQUESTER: "You asked for what {what} replaces",
    Role.POLICY_AUTHOR: "You changed the rules that hold for {what} within the last 24 hours",
}

_ON_CARD: Mapping[Role, str] = {Role.REQUESTER: "its requester", Role.APPROVER: "its approvers"}
"""Whom the card of a promotion names."""

_IN_FILE: Mapping[Role, str] = {
    Role.ASKER: "requesters",
    Role.KEEPER: "lockers",
    Role.REPORTER: "reporters",
    Role.ROLLER: "rollback",
    Role.RESCUER: "emergency",
}
"""The key of `promote.yaml` that names them."""


def _refusal(action: Action, held: frozenset[Role], what: str) -> str:
    if action is Action.WITHDRAW:
        return f"You have not approved {what}, so there is nothing to withdraw. Its card says who has."
    to = PERMISSIONS[action].to
    is_denied = Role.DENIED in held and Role.APPROVER in to
    denied = ", and promote.yaml keeps you out (deny)" if is_denied else ""
    where = "Its card says who they are." if to <= _ON_CARD.keys() else "Ask one of them."
    does = "break glass for" if action is Action.EMERGENCY else action
    return f"You may not {does} {what}: only {_who(to)} may{denied}. {where}"


def _who(to: frozenset[Role]) -> str:
    """Whoever has one of these roles, in words that tell where to find them."""
    words = [called for role, called in _ON_CARD.items() if role in to]
    if keys := ", ".join(key for role, key in _IN_FILE.items() if role in to):
        words.append(f"those whom promote.yaml names ({keys})")
    return " or ".join(words)
