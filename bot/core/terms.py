"""Which rules hold for one promotion: those of its target, without what its way to the commit may pass."""

from __future__ import annotations

from dataclasses import replace

from bot.core.catalog import Target
from bot.core.policy import CONTENT, Gate, Listed
from bot.core.promotion import Promotion, Way

FOR_ROLLBACKS = frozenset({Gate.ORDER, Gate.SOAK, Gate.CHECKS, Gate.PROBES, Gate.PARITY, Gate.WINDOWS})
"""What ran there before is not tested again, and a fire does not wait for Monday."""


def gates_passed(target: Target, *, way: Way | None, is_rollback: bool) -> frozenset[Gate]:
    """The gates that need not be open."""
    found = FOR_ROLLBACKS if is_rollback else frozenset()
    if way is Way.AT_ONCE:
        found |= {Gate.QUORUM}
    if way is Way.EMERGENCY and target.policy.emergency:
        found |= target.policy.emergency.skips
    return found - CONTENT


def gates_passed_by(promotion: Promotion, target: Target) -> frozenset[Gate]:
    """The gates that need not be open for this promotion."""
    return gates_passed(target, way=promotion.way, is_rollback=promotion.is_rollback)


def under(target: Target, gates: frozenset[Gate]) -> Target:
    """The target under these terms: where the quorum is passed, nobody has to approve, and all approvers are told."""
    if Gate.QUORUM not in gates:
        return target
    policy = target.policy
    told = Listed(users=policy.users | policy.notify.users, groups=policy.groups | policy.notify.groups)
    return replace(target, policy=replace(policy, rules=(), total=0, notify=told))


def target_for(promotion: Promotion, target: Target) -> Target:
    """The target under the terms of this promotion."""
    return under(target, gates_passed_by(promotion, target))
