"""Gates: plain questions with plain answers, asked before a promotion is made."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.catalog import Target
from bot.core.errors import Refused
from bot.core.rollout import ApplicationFacts, running_version


def live_version(source: Target, facts: Sequence[ApplicationFacts]) -> str:
    """The one version that every application of the source runs, live and healthy; raises `Refused` with the reason."""
    found: set[str] = set()
    for application in facts:
        version, reason = running_version(application, source.image)
        if version is None:
            raise Refused(
                f"{source.environment} is not live and healthy: {reason}. "
                f"Only what runs well in {source.environment} can go on; try again when it does."
            )
        found.add(version)
    if len(found) != 1:
        raise Refused(
            f"The applications of {source.app} in {source.environment} run different versions: "
            f"{', '.join(sorted(found))}. Bring them to one version first."
        )
    return found.pop()


def require_order(target: Target, source: Target, *, wanted: str, live: str) -> None:
    """Raise `Refused` unless the environment before runs the wanted version."""
    if wanted != live:
        raise Refused(
            f"{source.environment} runs {live}, not {wanted}. Promote {wanted} to {source.environment} first: "
            f"/promote {target.app} {wanted} {source.environment}"
        )
