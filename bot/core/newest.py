"""The first environment never holds: what CI asked for goes on from whatever older ones have brought meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from bot.core.catalog import Target
from bot.core.ports import Plan, Store
from bot.core.promotion import Decision, Phase, Promotion
from bot.core.seals import Sealer, request_words


async def drafted_anew(
    promotion: Promotion, target: Target, plan: Plan, *, store: Store, sealer: Sealer, at: datetime
) -> Promotion | None:
    """The promotion on what the branch holds now, where an older one of the target has brought that; else None.

    Only for what a machine asked for and nobody has to approve: people have decided on what they saw.
    """
    if promotion.requested_by.is_person or target.policy.needs_approval or plan.is_done:
        return None
    if plan.old_version == promotion.old_version or not await _came_before(promotion, target, plan, store):
        return None
    anew = promotion.draft_anew(
        at=at,
        old_version=plan.old_version,
        changes=plan.changes,
        content_hash=target.content_hash(
            old_version=plan.old_version,
            version=promotion.version,
            digest=promotion.digest,
            changes=plan.changes,
            dossier=promotion.dossier,
            brings=promotion.brings,
        ),
    )
    seal = sealer.seal(
        id=anew.id,
        content_hash=anew.content_hash,
        by=anew.requested_by,
        decision=Decision.REQUEST,
        at=anew.requested_at,
        said=request_words(anew),
    )
    return replace(anew, request_seal=seal)


async def _came_before(promotion: Promotion, target: Target, plan: Plan, store: Store) -> bool:
    """Did the newest of the older ones that were written bring what is there? Anybody else's commit is newer."""
    history = await store.history(target, limit=100)
    ids = [other.id for other in history]
    older = history[ids.index(promotion.id) + 1 :] if promotion.id in ids else ()
    for other in older:
        if other.revision or other.phase is Phase.COMMITTING:
            return other.version == plan.old_version
    return False
