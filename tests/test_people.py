"""The table of who may do what: each row, each role that it names, each refusal, and that the README says the same."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import AMY, BEN, DANA, PROD, approval, person, requested, same_as_golden
from hypothesis import given
from hypothesis import strategies as st

from bot.core.dossier import Commit, Commits, Dossier
from bot.core.errors import Refused
from bot.core.people import (
    MEANINGS,
    PERMISSIONS,
    Action,
    Permission,
    Role,
    may,
    require,
    require_member,
    roles,
    standing,
)
from bot.core.policy import ApprovalRule, CheckRule, EmergencyRule, Listed, Policy, RollbackRule
from bot.core.promotion import NEXT, Phase, Promotion, Signer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
POLICIES = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
CARL = Signer(id="U0CARL", team="T0ACME", name="Carl", email="carl@example.com")
GROUP = "S0SRE"
OPEN_TO_ALL = frozenset({Role.MEMBER, Role.ASKER, Role.KEEPER})
ANY_ROLES = st.frozensets(st.sampled_from(Role))


def refusal(action: Action, *held: Role) -> str:
    """What somebody with these roles reads; empty where they may."""
    try:
        require(action, frozenset({Role.MEMBER, *held}), "manual-app 15 to prod")
    except Refused as refused:
        return str(refused)
    return ""


# --- the table

ROWS = """
request, ask again, replace   | asker               | author of the rules
approve                       | approver            | requester, author, last requester, author of the rules
reject                        | approver            | requester
withdraw                      | giver of the approval |
cancel, sync                  | requester, approver |
roll back                     | asker, roller       |
roll back at once             | roller              | author of the rules
break glass                   | rescuer             | author of the rules
review                        | approver, rescuer   | requester
report a check                | reporter            | requester
lock, unlock, block, unblock  | keeper              |
"""


def rows(text: str) -> dict[Action, Permission]:
    """Rows `actions | who may | who never`; names are separated by commas, and no action stands in two rows."""
    found: dict[Action, Permission] = {}
    for row in text.strip().splitlines():
        actions, to, never = (cell.strip() for cell in row.strip().removeprefix("|").split("|")[:3])
        for action in actions.split(","):
            assert Action(action.strip()) not in found, f"{action} has two rows"
            found[Action(action.strip())] = Permission(to=_roles(to), never=_roles(never))
    return found


def _roles(cell: str) -> frozenset[Role]:
    return frozenset(Role(word.strip()) for word in cell.split(",") if word.strip())


def test_every_action_has_the_row_that_was_agreed() -> None:
    """Nobody widens a row in passing, and nothing can be asked of the bot that no row decides."""
    assert rows(ROWS) == PERMISSIONS
    assert set(PERMISSIONS) == set(Action)


def test_a_request_has_one_row_however_it_is_made() -> None:
    """Whoever asks again, or in the place of another, is checked as a requester: other rows would decide nothing."""
    assert PERMISSIONS[Action.ASK_AGAIN] == PERMISSIONS[Action.REPLACE] == PERMISSIONS[Action.REQUEST]


def test_the_readme_says_who_may_do_what() -> None:
    """The table for people is the table that is enforced."""
    table = re.search(
        r"^\| *Action *\| *Who *\| *Never *\|\n\|[-| :]+\|\n((?:\|.*\n)+)", README, re.MULTILINE
    )
    assert table, "README.md has no table “Action | Who | Never”"
    assert rows(table[1]) == PERMISSIONS


@given(ANY_ROLES, st.sampled_from(Action))
def test_one_role_of_the_row_is_enough_and_one_that_never_may_is_too_much(
    held: frozenset[Role], action: Action
) -> None:
    """Both for asking and for insisting, with any other roles besides."""
    row = rows(ROWS)[action]
    expected = any(role in row.to for role in held) and not any(role in row.never for role in held)
    assert may(action, held) is expected
    assert (refusal(action, *held) == "") is expected


@given(ANY_ROLES, st.sampled_from(Action))
def test_to_be_a_member_or_denied_gives_no_right(held: frozenset[Role], action: Action) -> None:
    """Neither role opens anything, alone or beside others."""
    without = held - {Role.MEMBER, Role.DENIED}
    assert may(action, held) is may(action, without)


def test_the_readme_draws_the_phases_as_they_are() -> None:
    """The state diagram has each change of phase that is possible, and no other."""
    diagram = re.search(r"```mermaid\s+stateDiagram-v2\n(.*?)```", README, re.DOTALL)
    assert diagram, "README.md has no Mermaid state diagram"
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", diagram[1], re.MULTILINE))
    assert drawn == {(phase.value, to.value) for phase, following in NEXT.items() for to in following}
    assert f"[*] --> {Phase.REQUESTED}" in diagram[1]


# --- who has which role


def listed(*users: str, groups: tuple[str, ...] = ()) -> Listed:
    return Listed(users=frozenset(users), groups=frozenset(groups))


def rule(who: Listed) -> ApprovalRule:
    return ApprovalRule(users=who.users, groups=who.groups, minimum=1)


def naming(role: Role, who: Listed) -> tuple[Policy, CheckRule]:
    """A policy that names these people for one role and Ben for every other, with a check of the kind."""
    named = {each: listed(BEN.id) for each in Role} | {role: who}
    check = CheckRule(name="accepted", reporters=named[Role.REPORTER])
    policy = Policy(
        rules=(rule(named[Role.APPROVER]),),
        total=1,
        denied=named[Role.DENIED],
        requesters=named[Role.ASKER],
        lockers=named[Role.KEEPER],
        rollback=RollbackRule(who=named[Role.ROLLER], within=PROD.policy.expires),
        emergency=EmergencyRule(who=named[Role.RESCUER], skips=frozenset()),
    )
    return policy, check


@pytest.mark.parametrize(
    "role",
    [Role.APPROVER, Role.DENIED, Role.ASKER, Role.KEEPER, Role.REPORTER, Role.ROLLER, Role.RESCUER],
)
def test_each_list_of_the_policy_gives_its_own_role_alone(role: Role) -> None:
    """By id, and by a user group as it is now; whom no list names, and a group that nobody looked up, has none."""
    policy, check = naming(role, listed(CARL.id))
    assert standing(person(CARL), policy, {}, check=check) == {Role.MEMBER, role}
    policy, check = naming(role, listed(groups=(GROUP,)))
    assert standing(person(CARL), policy, {GROUP: frozenset({CARL.id})}, check=check) == {Role.MEMBER, role}
    for members in ({GROUP: frozenset({AMY.id})}, {GROUP: frozenset()}, {}):
        assert standing(person(CARL), policy, members, check=check) == {Role.MEMBER}


def test_what_is_not_restricted_is_open_to_every_member_and_nothing_else_is() -> None:
    """Without a policy members ask and lock; nobody approves, reports, rolls back at once or breaks glass."""
    assert standing(person(CARL), Policy(), {}) == OPEN_TO_ALL


@given(by_id=st.booleans(), by_group=st.booleans(), denied_by_id=st.booleans(), denied_by_group=st.booleans())
def test_a_no_goes_before_every_yes(
    *, by_id: bool, by_group: bool, denied_by_id: bool, denied_by_group: bool
) -> None:
    """Whoever `deny` names, by id or by group, is no approver, however a rule names them."""
    rules = listed(*[CARL.id] * by_id, BEN.id, groups=("S0YES",))
    denied = listed(*[CARL.id] * denied_by_id, groups=("S0NO",))
    members = {
        "S0YES": frozenset([CARL.id] * by_group),
        "S0NO": frozenset([CARL.id] * denied_by_group),
    }
    held = standing(person(CARL), Policy(rules=(rule(rules),), total=1, denied=denied), members)
    is_denied = denied_by_id or denied_by_group
    assert (Role.DENIED in held) is is_denied
    assert (Role.APPROVER in held) is ((by_id or by_group) and not is_denied)


def test_who_asked_and_who_approved_are_told_by_the_promotion() -> None:
    """By their ids, one each."""
    promotion = requested()
    promotion = promotion.approve(approval(promotion, AMY))
    assert roles(person(DANA), promotion, Policy(), {}) == OPEN_TO_ALL | {Role.REQUESTER}
    assert roles(person(AMY), promotion, Policy(), {}) == OPEN_TO_ALL | {Role.GIVER}
    assert roles(person(CARL), promotion, Policy(), {}) == OPEN_TO_ALL


def brought(*commits: Commit) -> Dossier:
    return Dossier(source=Commits(count=len(commits), newest=commits))


def commit(email: str, user: str | None = None) -> Commit:
    return Commit(revision="a" * 40, subject="Fix it", author="Carl", email=email, user=user)


@pytest.mark.parametrize(
    ("dossier", "is_author"),
    [
        (brought(commit("other@example.com", CARL.id)), True),
        (brought(commit("carl@example.com")), True),
        (brought(commit("Carl@Example.com")), True),
        (brought(commit("amy@example.com"), commit("carl@example.com")), True),
        (brought(commit("amy@example.com", AMY.id)), False),
        (brought(commit("")), False),
        (brought(), False),
        (Dossier(), False),
    ],
)
def test_an_author_is_known_by_id_and_by_address(dossier: Dossier, *, is_author: bool) -> None:
    """Any of the commits is enough, in whatever letters; where authors may approve, nobody asks."""
    strict = Policy(commit_authors=False)
    assert (Role.AUTHOR in roles(person(CARL), requested(), strict, {}, dossier)) is is_author
    assert Role.AUTHOR not in roles(person(CARL), requested(), Policy(), {}, dossier)


def test_nobody_without_an_address_is_the_author_of_a_commit_without_one() -> None:
    """Two that say nothing are not the same person."""
    nameless = replace(person(CARL), email=None)
    held = roles(nameless, requested(), Policy(commit_authors=False), {}, brought(commit("")))
    assert Role.AUTHOR not in held


def test_the_last_requester_is_told_by_what_was_found() -> None:
    """Only where the policy asks for it, and only that person."""
    strict, dossier = Policy(last_requester=False), Dossier(last_requester=CARL.id)
    assert Role.LAST_REQUESTER in roles(person(CARL), requested(), strict, {}, dossier)
    assert Role.LAST_REQUESTER not in roles(person(AMY), requested(), strict, {}, dossier)
    assert Role.LAST_REQUESTER not in roles(person(CARL), requested(), Policy(), {}, dossier)
    assert Role.LAST_REQUESTER not in roles(person(CARL), requested(), strict, {}, Dossier())


def test_a_name_gives_no_right() -> None:
    """Ids decide: somebody with an approver's name and address is none."""
    double = person(Signer(id="U0EVE", team="T0ACME", name=AMY.name, email=AMY.email))
    assert roles(double, requested(requested_by=AMY), PROD.policy, {}) == OPEN_TO_ALL


def test_every_role_has_a_meaning_of_its_own() -> None:
    """What the documentation reads is there for each, and no two are the same."""
    assert set(MEANINGS) == set(Role)
    assert len(set(MEANINGS.values())) == len(Role)


# --- the door

OUTSIDERS = {
    "is_guest": "guests may not promote",
    "is_bot": "bots may not promote",
    "is_stranger": "you are from another workspace",
    "is_deactivated": "your account is deactivated",
}


@pytest.mark.parametrize("kind", OUTSIDERS)
def test_an_outsider_is_told_which_kind_they_are(kind: str) -> None:
    """One is enough, and a full member is none of them."""
    with pytest.raises(Refused) as refused:
        require_member(person(DANA, **{kind: True}))
    expected = f"You may not do that: {OUTSIDERS[kind]}. Ask a full member of the workspace."
    assert str(refused.value) == expected
    require_member(person(DANA))


# --- what is read by those who may not

REASONS: dict[str, tuple[Role, ...]] = {
    "nobody": (),
    "denied": (Role.DENIED,),
    "asked": (Role.REQUESTER, Role.APPROVER, Role.RESCUER, Role.REPORTER),
    "wrote": (Role.AUTHOR, Role.APPROVER),
    "asked last": (Role.LAST_REQUESTER, Role.APPROVER),
}


def refusals() -> dict[tuple[Action, str], str]:
    """What is read for each reason, where that is another sentence than the one that everybody reads."""
    everybody = {action: refusal(action) for action in Action}
    found = {(action, why): refusal(action, *held) for why, held in REASONS.items() for action in Action}
    return {
        (action, why): says
        for (action, why), says in found.items()
        if says and (why == "nobody" or says != everybody[action])
    }


def test_refusals_read_well() -> None:
    """The words for people, as they were looked at."""
    lines = [f"{action}, {why}: {says}\n" for (action, why), says in refusals().items()]
    same_as_golden("refusals.txt", "".join(lines))


def test_every_action_and_every_reason_has_a_sentence_of_its_own() -> None:
    """No two are the same; each `never` of a row has one, and so has `deny` wherever approvers may."""
    found = refusals()
    assert len(set(found.values())) == len(found)
    table = rows(ROWS)
    reasons = {"asked": Role.REQUESTER, "wrote": Role.AUTHOR, "asked last": Role.LAST_REQUESTER}
    assert set(found) == {
        *((action, "nobody") for action in Action),
        *((action, "denied") for action in Action if Role.APPROVER in table[action].to),
        *((action, why) for why, role in reasons.items() for action in Action if role in table[action].never),
    }


@pytest.mark.parametrize("says", refusals().values())
def test_every_refusal_says_what_to_do_next(says: str) -> None:
    """Two plain sentences: why not, with what it is about, and whom to ask or where to look."""
    why, step, rest = (*re.split(r"\. (?=[A-Z])", says), "")[:3]
    assert (why.startswith("You "), rest) == (True, "")
    assert "manual-app 15 to prod" in why
    assert step.startswith(("Ask one of ", "Its card says who ")), says
    assert step.endswith(".")


@pytest.mark.parametrize("says", refusals().values())
def test_a_key_that_a_refusal_names_is_described(says: str) -> None:
    """Whoever looks it up in the documentation of the rules finds it there."""
    for keys in re.findall(r"\(([a-z, ]+)\)", says):
        for key in keys.split(", "):
            assert re.search(rf"\b{key}: ", POLICIES), f"docs/policies.md does not describe {key}"


def test_four_eyes_go_before_every_other_reason() -> None:
    """Who asked, wrote and asked last hears the reason that no rule can change."""
    every = refusal(Action.APPROVE, Role.REQUESTER, Role.AUTHOR, Role.LAST_REQUESTER, Role.APPROVER)
    assert every.startswith("You asked for manual-app 15 to prod, so somebody else must approve.")


def test_the_requester_decides_nothing_even_as_an_approver() -> None:
    """The roles of one person are put together: to be an approver does not help who asked."""
    own: Promotion = requested(requested_by=AMY)
    held = roles(person(AMY), own, PROD.policy, {})
    assert Role.APPROVER in held
    assert {
        action for action in Action if Role.APPROVER in PERMISSIONS[action].to and not may(action, held)
    } == {
        Action.APPROVE,
        Action.REJECT,
        Action.REVIEW,
    }
