"""What CI does: write the version that it has built into an app's first environment."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from bot.config import build_catalog, load
from bot.core.catalog import Image, Target, checked_image
from bot.core.errors import Refused, Stale
from bot.core.ports import Edit
from bot.core.promotion import new_id
from bot.core.trailers import ci_message
from bot.git_access import COMMITTER, git_repository
from bot.integrations.gitops import GitRepository
from bot.settings import Settings

TRIES = 5


async def set_image(settings: Settings, *, app: str, environment: str, version: str) -> str:
    """Commit and push; returns a sentence that says what was done. Raises `Refused` for a later environment."""
    config = load(settings.config_path)
    catalog = build_catalog(config)
    target = catalog.target(app, environment)
    if not catalog.is_first(target):
        raise Refused(
            f"CI writes the first environment only; {environment} takes a promotion: /promote in Slack."
        )
    if target.policy.needs_approval:
        raise Refused(f"{environment} needs approval; ask for a promotion: /promote in Slack.")
    gitops = git_repository(settings, config)
    try:
        for _ in range(TRIES):
            with contextlib.suppress(Stale):  # another version was written at this very moment: ours is newer
                return await _written(gitops, target, checked_image(version))
        raise Refused(f"Others write {environment} all the time; run it again.")
    finally:
        await gitops.aclose()


async def _written(gitops: GitRepository, target: Target, image: Image) -> str:
    """Commit unless the branch holds it; raises `Stale` where somebody else wrote meanwhile."""
    environment = target.environment
    plan = await gitops.plan(target, image.version, digest=image.digest)
    if plan.is_done:
        return f"{environment} already holds {image.version}; nothing to do."
    id, now = new_id(), datetime.now(UTC)
    edit = Edit(
        target=target,
        promotion=id,
        old=plan.old_version,
        new=image.version,
        digest=image.digest,
        message=ci_message(target, id=id, old=plan.old_version, new=image),
        author=COMMITTER,
        at=now,
        base=plan.base,
        since=now,
    )
    revision = await gitops.commit(edit)
    return f"{environment}: {plan.old_version} → {image.version}, committed as {revision[:8]}."
