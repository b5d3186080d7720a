"""Who may do what: one table, read at the click and again at the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.core.errors import Refused
from bot.core.policy import Policy
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


class Role(StrEnum):
    """What a person is to one promotion."""

    MEMBER = "full member"
    REQUESTER = "requester"
    APPROVER = "approver"
    GIVER = "giver of the approval"


@dataclass(frozen=True, slots=True)
class Permission:
    """Any of `to` may, but none of `never`."""

    to: frozenset[Role]
    never: frozenset[Role] = frozenset()


PERMISSIONS: Mapping[Action, Permission] = {
    Action.REQUEST: Permission(to=frozenset({Role.MEMBER})),
    Action.APPROVE: Permission(to=frozenset({Role.APPROVER}), never=frozenset({Role.REQUESTER})),
    Action.REJECT: Permission(to=frozenset({Role.APPROVER}), never=frozenset({Role.REQUESTER})),
    Action.CANCEL: Permission(to=frozenset({Role.REQUESTER, Role.APPROVER})),
    Action.WITHDRAW: Permission(to=frozenset({Role.GIVER})),
    Action.ASK_AGAIN: Permission(to=frozenset({Role.MEMBER})),
    Action.SYNC: Permission(to=frozenset({Role.REQUESTER, Role.APPROVER})),
    Action.ROLL_BACK: Permission(to=frozenset({Role.MEMBER})),
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


def roles(
    person: Person, promotion: Promotion, policy: Policy, members: dict[str, frozenset[str]]
) -> frozenset[Role]:
    """What the person is to the promotion now; `members` holds the people of each user group of the policy."""
    held = {
        Role.MEMBER: True,
        Role.REQUESTER: person.id == promotion.requested_by.id,
        Role.APPROVER: policy.admits(person.id, members),
        Role.GIVER: promotion.approved_by(person.id),
    }
    return frozenset(role for role, holds in held.items() if holds)


def may(action: Action, held: frozenset[Role]) -> bool:
    """May somebody with these roles do it?"""
    permission = PERMISSIONS[action]
    return bool(permission.to & held) and not permission.never & held


def require(action: Action, held: frozenset[Role], promotion: Promotion) -> None:
    """Raise `Refused`, with the reason, where somebody with these roles may not do it."""
    permission = PERMISSIONS[action]
    if permission.never & held:
        raise Refused(f"You asked for {promotion.title}, so somebody else must {action}.")
    if not permission.to & held:
        raise Refused(_refusal(action, promotion))


def _refusal(action: Action, promotion: Promotion) -> str:
    if action is Action.WITHDRAW:
        return f"You have not approved {promotion.title}, so there is nothing to withdraw."
    who = " or ".join(sorted(role.value for role in PERMISSIONS[action].to))
    return f"You may not {action} {promotion.title}: only the {who} may. The card says who that is."
