"""Follow a commit until it really runs: gather the facts, let the procedure decide, remember what it said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.core.catalog import Application, Target
from bot.core.errors import Failed, Unavailable
from bot.core.ports import Change, Clock, Cluster, Store, ValuesRepository
from bot.core.promotion import Promotion
from bot.core.rollout import (
    ApplicationFacts,
    Case,
    Look,
    Progress,
    Relation,
    Stage,
    Unseen,
    decide,
    next_look,
    wants_refresh,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The step of a promotion in `committed`."""

    store: Store
    values: ValuesRepository
    cluster: Cluster
    clock: Clock

    async def follow(self, promotion: Promotion, target: Target) -> timedelta:
        """Look once at every application of the target; returns when to look again."""
        now = self.clock.now()
        kept = await self.store.look(promotion.id)
        before = replace(kept, began_at=kept.began_at or now).not_after(now)
        seen = await asyncio.gather(
            *(self._progress(promotion, target, application, before) for application in target.applications)
        )
        look = Look(applications=tuple(seen), began_at=before.began_at)
        if look != kept:
            await self.store.save_look(promotion.id, look)
        if ended := _ended(promotion, look, self.clock):
            await self.store.save([Change(before=promotion, after=ended)], holds=False)
            return timedelta(0)
        now = self.clock.now()
        return next_look(
            look, committed_at=_committed_at(promotion, look, now), now=now, policy=target.rollout
        )

    async def _progress(
        self, promotion: Promotion, target: Target, application: Application, look: Look
    ) -> Progress:
        before = look.of(application.name)
        if before and before.stage.is_end:
            return before
        now = self.clock.now()
        refresh = wants_refresh(before, now=now, policy=target.rollout)
        seen = await self._observe(target, application, refresh=refresh)
        facts, relations = await self._related(promotion, target, seen)
        # A hold is measured on the clock that read the facts, so it is asked again after they came.
        case = Case(
            revision=promotion.revision or "",
            image=f"{target.image}:{promotion.version}",
            committed_at=_committed_at(promotion, look, now),
            now=self.clock.now(),
            policy=target.rollout,
            relations=relations,
            before=_refreshed(before, now) if refresh and before else before,
        )
        progress = decide(facts, case)
        return _refreshed(progress, now) if refresh and not before else progress

    async def _observe(
        self, target: Target, application: Application, *, refresh: bool
    ) -> ApplicationFacts | Unseen:
        try:
            return await self.cluster.observe(target, application, refresh=refresh)
        except Unavailable as error:
            return Unseen(name=application.name, reason=str(error), is_final=False)
        except Failed as error:
            return Unseen(name=application.name, reason=str(error), is_final=True)

    async def _related(
        self, promotion: Promotion, target: Target, facts: ApplicationFacts | Unseen
    ) -> tuple[ApplicationFacts | Unseen, Mapping[str, Relation]]:
        """The facts with what their revisions mean; those that nobody can place now say neither yes nor no."""
        if isinstance(facts, Unseen) or promotion.revision is None:
            return facts, {}
        try:
            if facts.is_incomparable:
                await self._require_host(target)
            return facts, {
                revision: await self.values.relate(
                    target, revision=revision, commit=promotion.revision, version=promotion.version
                )
                for revision in sorted(facts.revisions)
            }
        except (Unavailable, Failed) as error:
            return Unseen(name=facts.name, reason=str(error), is_final=False), {}

    async def _require_host(self, target: Target) -> None:
        """A git host that we cannot reach either is no fault of the commit's; raises `Unavailable`."""
        with contextlib.suppress(Failed):
            await self.values.current(target)


def _committed_at(promotion: Promotion, look: Look, now: datetime) -> datetime:
    """When the rollout began, and never later than its first look: the clock may have jumped back since."""
    return min(promotion.committed_at or now, look.began_at or now)


def _refreshed(progress: Progress, now: datetime) -> Progress:
    return replace(progress, refreshed_at=now, refreshes=progress.refreshes + 1)


def _ended(promotion: Promotion, look: Look, clock: Clock) -> Promotion | None:
    """The promotion at its end, once every application has reached one."""
    if not all(progress.stage.is_end for progress in look.applications):
        return None
    now = clock.now()
    for stage, end in ((Stage.FAILED, promotion.fail), (Stage.SUPERSEDED, promotion.supersede)):
        told = [_last_words(progress) for progress in look.applications if progress.stage is stage]
        if told:
            return end(at=now, why="; ".join(told))
    return promotion.go_live(at=now, why=look.applications[0].says)


def _last_words(progress: Progress) -> str:
    pods = f" ({progress.pods})" if progress.pods and progress.stage is Stage.FAILED else ""
    return f"{progress.name}: {progress.says}{pods}"
