"""Who is in which user group, and who of the named people could still say yes."""

from __future__ import annotations

from collections.abc import Iterable

from bot.core import people
from bot.core.dossier import Dossier
from bot.core.errors import NoGroup, Refused
from bot.core.people import Person
from bot.core.policy import Members, Policy
from bot.core.ports import Directory, Store
from bot.core.promotion import Promotion
from bot.core.together import together
from bot.core.trailers import one_line

MOST_NAMED = 5
MOST_ASKED = 100
"""How many of the named people are looked up; whoever comes after them counts as here: nobody is refused unasked."""


async def members_of(
    directory: Directory, groups: Iterable[str], *, known: frozenset[str] = frozenset()
) -> Members:
    """The people of each group now; nobody is in one that is disabled or gone, which gives no right to anybody.

    Of `known` it must be known: raises `NoGroup` where one of those is disabled or gone.
    """
    names = sorted(known.union(groups))
    found = await together(*(_members(directory, group, is_needed=group in known) for group in names))
    return dict(zip(names, found, strict=True))


async def _members(directory: Directory, group: str, *, is_needed: bool) -> frozenset[str]:
    try:
        return await directory.members(group)
    except NoGroup:
        if is_needed:
            raise
        return frozenset()


async def known_dossier(store: Store, promotion: Promotion) -> Dossier:
    """What was found about it when it was asked for; raises `Refused` where that is lost, or not what it was."""
    if promotion.dossier is None:
        return Dossier()
    found = await store.dossier(promotion.id)
    if found is None or found.fingerprint != promotion.dossier:
        raise Refused(
            f"What was found about {promotion.id} when it was asked for is lost or was changed. Cancel it, and ask "
            "again with /promote."
        )
    return found


async def deciding(directory: Directory, policy: Policy, more: Iterable[str] = ()) -> Members:
    """The people of each group that decides about an approval, and of `more`.

    Raises `NoGroup` where nobody can tell whom `deny` keeps from approving.
    """
    denied = policy.denied.groups if policy.needs_approval else frozenset()
    return await members_of(directory, policy.deciding_groups | frozenset(more), known=denied)


def is_member(person: Person) -> bool:
    """Is this a full member of the workspace?"""
    try:
        people.require_member(person)
    except Refused:
        return False
    return True


async def require_somebody(
    directory: Directory, policy: Policy, members: Members, *, never: frozenset[str], where: str
) -> None:
    """Raise `Refused`, with who is missing, for a policy that nobody living can satisfy; `never` may not approve."""
    named = policy.users.union(*(members.get(group, frozenset()) for group in policy.groups))
    candidates = sorted(user for user in named - never if policy.admits(user, members))
    living = set(candidates[MOST_ASKED:])
    for user in candidates[:MOST_ASKED]:
        if policy.is_satisfied(living, members):
            return
        if is_member(await directory.person(user)):
            living.add(user)
    if not policy.is_satisfied(living, members):
        raise Refused(f"Nobody could approve this: {_missing(policy, members, living, where)}")


def require_known_authors(policy: Policy, dossier: Dossier) -> None:
    """Raise `Refused` where nobody can tell who may not approve: so where authors may not, and are not known."""
    commits = dossier.source
    if policy.commit_authors or policy.unknown_authors:
        return
    if commits is None or not commits.are_all_known:
        said = commits.unknown if commits else ""
        why = said or "there are too many commits, or none are known"
        raise Refused(f"Authors of its commits may not approve it, and nobody can tell who they are: {why}.")
    strangers = sorted({one_line(author.author) for author in dossier.authors if author.user is None})
    if strangers:
        raise Refused(
            f"Authors of its commits may not approve it, and I do not know who {', '.join(strangers[:MOST_NAMED])} is "
            "in Slack. Add the address to identities in promote.yaml."
        )


def _missing(policy: Policy, members: Members, living: set[str], where: str) -> str:
    """Which rule cannot be met, and by how many."""
    for number, rule in enumerate(policy.rules, start=1):
        able = sum(rule.admits(user, members) for user in living)
        if able < rule.minimum:
            named = ", ".join(sorted(rule.users | rule.groups))
            return (
                f"{where} needs {rule.minimum} of {named} (rule {number}), and {able} of them could: the others "
                "asked for it, wrote it, or are not here any more. Let somebody else ask, or have promote.yaml changed."
            )
    return (
        f"{where} needs {policy.total} different approvers, and {len(living)} could. "
        "Let somebody else ask, or have promote.yaml changed."
    )
