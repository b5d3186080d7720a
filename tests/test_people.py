"""Who may do what: the table, what it means for each kind of person, and that the README says the same."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import AMY, BEN, DANA, PROD, approval, catalog, person, requested

from bot.core.errors import Refused
from bot.core.people import PERMISSIONS, Action, Permission, Role, require, require_member, roles
from bot.core.policy import ApprovalRule, Policy
from bot.core.promoter import Promoter
from bot.core.promotion import NEXT, Phase, Promotion, Signer

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CARL = Signer(id="U0CARL", team="T0ACME", name="Carl")

MAY = {
    # whose roles: the actions that these people may take on Dana's promotion, which Amy has approved
    DANA: {Action.REQUEST, Action.CANCEL, Action.ASK_AGAIN, Action.SYNC, Action.ROLL_BACK},
    AMY: {
        Action.REQUEST,
        Action.APPROVE,
        Action.REJECT,
        Action.CANCEL,
        Action.WITHDRAW,
        Action.ASK_AGAIN,
        Action.SYNC,
        Action.ROLL_BACK,
    },
    BEN: {
        Action.REQUEST,
        Action.APPROVE,
        Action.REJECT,
        Action.CANCEL,
        Action.ASK_AGAIN,
        Action.SYNC,
        Action.ROLL_BACK,
    },
    CARL: {Action.REQUEST, Action.ASK_AGAIN, Action.ROLL_BACK},
}

OUTSIDERS = {
    "is_guest": "guests may not promote",
    "is_bot": "bots may not promote",
    "is_stranger": "another workspace",
    "is_deactivated": "deactivated",
}


def is_allowed(action: Action, held: frozenset[Role]) -> bool:
    """Does `require` let somebody with these roles do it?"""
    try:
        require(action, held, requested().title)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("who", MAY, ids=lambda who: who.name)
def test_each_person_may_do_exactly_what_their_roles_allow(who: Signer, action: Action) -> None:
    """A requester, an approver who has approved, one who has not, and a plain member, for every action."""
    promotion = requested()
    promotion = promotion.approve(approval(promotion, AMY))
    held = roles(person(who), promotion, PROD.policy, {})
    assert is_allowed(action, held) is (action in MAY[who])


@pytest.mark.parametrize("action", [Action.APPROVE, Action.REJECT])
def test_the_requester_decides_nothing_even_as_an_approver(action: Action) -> None:
    """Four eyes: who asked is refused with that reason, although the policy names them."""
    own = requested(requested_by=AMY)
    held = roles(person(AMY), own, PROD.policy, {})
    assert Role.APPROVER in held
    with pytest.raises(Refused, match=f"You asked for {own.title}, so somebody else must {action}"):
        require(action, held, own.title)


@pytest.mark.parametrize("action", Action)
def test_every_action_has_its_line_in_the_table(action: Action) -> None:
    """Nothing can be asked of the bot that the table does not decide, and nothing is open to nobody."""
    assert PERMISSIONS[action].to
    assert not PERMISSIONS[action].to & PERMISSIONS[action].never


def test_approvers_come_from_the_policy_by_id_or_by_group() -> None:
    """A user group counts by the members it has now; a group that nobody could look up has none."""
    rule = ApprovalRule(users=frozenset(), groups=frozenset({"S0SRE"}), minimum=1)
    policy = Policy(rules=(rule,), total=1)
    assert Role.APPROVER in roles(person(CARL), requested(), policy, {"S0SRE": frozenset({CARL.id})})
    assert Role.APPROVER not in roles(person(CARL), requested(), policy, {"S0SRE": frozenset()})
    assert Role.APPROVER not in roles(person(CARL), requested(), policy, {})


def test_without_a_policy_nobody_is_an_approver() -> None:
    """An empty list of approvers means nobody, never everybody."""
    assert Role.APPROVER not in roles(person(AMY), requested(), Policy(), {})


def test_a_name_gives_no_right() -> None:
    """Ids decide: somebody with an approver's name and address is still a plain member."""
    double = person(Signer(id="U0EVE", team="T0ACME", name=AMY.name, email=AMY.email))
    assert roles(double, requested(), PROD.policy, {}) == {Role.MEMBER}


@dataclass(frozen=True)
class OneRecord:
    """A store with one promotion in it that nobody may write to."""

    promotion: Promotion

    async def load(self, id: str) -> Promotion | None:
        return self.promotion if id == self.promotion.id else None


@dataclass(frozen=True)
class OnePerson:
    """A directory in which everybody is the same kind of person."""

    kind: str

    async def person(self, user: str):
        return person(Signer(id=user, team="T0ACME", name="Somebody"), **{self.kind: True})

    async def members(self, group: str) -> frozenset[str]:
        raise AssertionError(f"{group} is no business of theirs")


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("kind", OUTSIDERS)
async def test_outsiders_are_refused_everything_with_the_reason(kind: str, action: Action) -> None:
    """Guests, bots, strangers and deactivated people do nothing, whatever else they are; nothing is written."""
    ended = requested().expire(at=requested().expires_at, why="time is up")
    promotion = ended if action is Action.ASK_AGAIN else requested()
    promoter = Promoter(
        catalog=catalog(),
        store=OneRecord(promotion),  # type: ignore[arg-type]  # it has no way to write
        values=None,  # type: ignore[arg-type]  # nothing is read for them
        cluster=None,  # type: ignore[arg-type]
        images=None,  # type: ignore[arg-type]
        directory=OnePerson(kind),
        clock=None,  # type: ignore[arg-type]
        sealer=None,  # type: ignore[arg-type]
    )
    attempts = {
        Action.REQUEST: lambda: promoter.request(
            app="manual-app", environment="prod", version="15", reason=None, user=AMY.id
        ),
        Action.APPROVE: lambda: promoter.approve(promotion.id, user=AMY.id),
        Action.REJECT: lambda: promoter.reject(promotion.id, user=AMY.id, why="no"),
        Action.CANCEL: lambda: promoter.cancel(promotion.id, user=DANA.id),
        Action.WITHDRAW: lambda: promoter.withdraw(promotion.id, user=AMY.id),
        Action.ASK_AGAIN: lambda: promoter.ask_again(promotion.id, user=DANA.id),
        Action.SYNC: lambda: promoter.sync(promotion.id, user=DANA.id),
        Action.ROLL_BACK: lambda: promoter.roll_back_from(promotion.id, user=DANA.id),
    }
    with pytest.raises(Refused, match=OUTSIDERS[kind]):
        await attempts[action]()


def test_a_full_member_is_let_in() -> None:
    """The four kinds of outsider are the only ones who are kept out at the door."""
    require_member(person(DANA))


def test_a_refusal_names_who_may() -> None:
    """Somebody without the right is told what it is that they lack."""
    held = roles(person(CARL), requested(), PROD.policy, {})
    with pytest.raises(
        Refused, match=r"You may not cancel manual-app 15 to prod: only the approver or requester"
    ):
        require(Action.CANCEL, held, requested().title)


def documented_permissions(text: str) -> dict[Action, Permission]:
    """The README's table `Action | Who | Never`; several roles are separated by commas."""
    table = re.search(r"^\| *Action *\| *Who *\| *Never *\|\n\|[-| :]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, "README.md has no table “Action | Who | Never”"
    found = {}
    for row in table[1].splitlines():
        action, to, never = (cell.strip() for cell in row.strip().strip("|").split("|"))
        found[Action(action)] = Permission(to=_roles(to), never=_roles(never))
    return found


def _roles(cell: str) -> frozenset[Role]:
    return frozenset(Role(word.strip()) for word in cell.split(",") if word.strip())


def test_the_readme_says_who_may_do_what() -> None:
    """The table for people is the table that is enforced."""
    assert documented_permissions(README) == PERMISSIONS


def test_the_readme_draws_the_phases_as_they_are() -> None:
    """The state diagram has each change of phase that is possible, and no other."""
    diagram = re.search(r"```mermaid\s+stateDiagram-v2\n(.*?)```", README, re.DOTALL)
    assert diagram, "README.md has no Mermaid state diagram"
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", diagram[1], re.MULTILINE))
    assert drawn == {(phase.value, to.value) for phase, following in NEXT.items() for to in following}
    assert f"[*] --> {Phase.REQUESTED}" in diagram[1]
