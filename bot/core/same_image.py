"""The same image is promoted, never rebuilt: a version is one build, from the request to the pods."""

from __future__ import annotations

from collections.abc import Iterable

from bot.core.catalog import Image, Target
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.ports import Images
from bot.core.promotion import Promotion
from bot.core.rollout import ApplicationFacts, Unseen


async def proved(images: Images, target: Target, held: Image, *, where: str) -> str:
    """The digest of the version that is asked for, where it is known; `where` is the environment that holds it.

    Raises `Refused` where the registry has another build under this version by now; one of the build's platforms,
    which is what a pod may report, is no other build.
    """
    if not target.asks_registry:
        return held.digest
    found = Image(version=held.version, digest=await images.digest(target.image, held.version))
    is_same = found.may_be(held) or held.digest in await images.platforms(target.image, found.digest)
    if not is_same:
        raise Refused(
            f"{where} has {held.version} as {held.short_digest}, but the registry has {found.short_digest} under "
            f"this tag now: it was pushed anew. Give the new build a version of its own, and begin with that."
        )
    return found.digest


def reported(facts: Iterable[ApplicationFacts], image: str) -> frozenset[str]:
    """Every digest that a pod of the image reports."""
    pods = [pod for each in facts if each.workloads for pod in each.workloads.running(image)]
    return frozenset(digest for pod in pods for digest in pod.digests)


async def require_one_build(
    images: Images, target: Target, digest: str, reports: frozenset[str], *, where: str
) -> None:
    """Raise `Refused` where the pods report several builds: of one, each reports what its platform has."""
    if not target.asks_registry or len(reports) < 2:
        return
    if others := reports - await images.platforms(target.image, digest):
        raise Refused(
            f"A pod of {where} runs {min(others)[:19]}…, which is no part of {digest[:19]}… in the registry: "
            f"{where} runs several builds under one tag. Give the new build a version of its own, and begin with that."
        )


async def pushed_anew(images: Images, promotion: Promotion, target: Target) -> str:
    """What became of the tag since it was asked for; empty where it is still the same build."""
    asked = Image(version=promotion.version, digest=promotion.digest)
    if not target.asks_registry or not asked.has_digest:
        return ""
    found = Image(version=promotion.version, digest=await images.digest(target.image, promotion.version))
    if found == asked:
        return ""
    return (
        f"the tag {promotion.version} was pushed anew since it was asked for: it was {asked.short_digest}, "
        f"now {found.short_digest}; nothing was committed"
    )


async def proofs(
    images: Images, promotion: Promotion, target: Target, facts: ApplicationFacts | Unseen
) -> frozenset[str]:
    """The digests that prove the promoted build in a pod; the registry is asked only where a pod reports another."""
    asked = Image(version=promotion.version, digest=promotion.digest)
    if not asked.has_digest:
        return frozenset()
    pods = facts.workloads.staying if isinstance(facts, ApplicationFacts) and facts.workloads else ()
    if target.asks_registry and any(pod.digests and asked.digest not in pod.digests for pod in pods):
        try:
            return await images.platforms(target.image, asked.digest)
        except (Unavailable, Failed):
            pass  # a proof is welcome, and no rollout waits for it
    return frozenset({asked.digest})
