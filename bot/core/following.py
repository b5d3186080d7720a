"""Follow a commit until it really runs: gather the facts, let the procedure decide, remember what it said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.core import same_image
from bot.core.catalog import Application, Target
from bot.core.errors import Failed, Unavailable
from bot.core.ports import Change, Clock, Cluster, Images, Store, ValuesRepository
from bot.core.progress import wants_rendering
from bot.core.promotion import Promotion
from bot.core.rollout import (
    ApplicationFacts,
    Baseline,
    Case,
    Look,
    Outcome,
    Progress,
    Relation,
    Stage,
    Unseen,
    decide,
    next_look,
    wants_refresh,
)
from bot.core.together import together

BASELINE_WITHIN = 2.0
"""Seconds that a commit waits for a look at what it will change."""
WATCHED_FOR = timedelta(minutes=30)
WATCH_EVERY = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The step of a promotion in `committed`."""

    store: Store
    values: ValuesRepository
    cluster: Cluster
    images: Images
    clock: Clock

    async def follow(self, promotion: Promotion, target: Target) -> timedelta:
        """Look once at every application of the target; returns when to look again."""
        now = self.clock.now()
        kept = await self.store.look(promotion.id)
        before = replace(kept, began_at=kept.began_at or now).not_after(now)
        seen = await self._look(promotion, target, before, {each.key: each for each in before.applications})
        seen = await self._certain(promotion, target, before, seen)
        look = replace(before, applications=seen, waits_for="", not_before=None, tries=0, breaks=0)
        if look != kept:
            await self.store.save_look(promotion.id, look)
        if ended := _ended(promotion, look, self.clock):
            await self.store.save([Change(before=promotion, after=ended)], holds=False)
            return timedelta(0)
        now = self.clock.now()
        return next_look(
            look, committed_at=_committed_at(promotion, look, now), now=now, policy=target.rollout
        )

    async def remember_baseline(self, promotion: Promotion, target: Target) -> None:
        """How the applications are right before the commit, as far as Argo CD tells it at once."""
        found = await together(*(self._baseline(target, each) for each in target.applications))
        look = await self.store.look(promotion.id)
        baseline = tuple(each for each in found if each)
        await self.store.save_look(promotion.id, replace(look, baseline=baseline))

    async def watch(self, promotion: Promotion, target: Target) -> timedelta | None:
        """A rollout that failed may come right later: look now and then, and remember where it did.

        Returns when to look again, None for never.
        """
        now, look = self.clock.now(), await self.store.look(promotion.id)
        ended_at = promotion.ended_at or now
        if look.recovered or now >= ended_at + WATCHED_FOR or not look.may_heal:
            return None
        if (follower := await self.store.followed(target)) and follower != promotion.id:
            return None
        seen = await self._look(
            promotion, target, look, {each.key: each for each in look.watched if not _has_failed(each)}
        )
        if any(each.stage is Stage.SUPERSEDED for each in seen):
            return None
        seen = await self._certain(promotion, target, look, _rendered_anew(seen, look))
        latest = replace(await self.store.look(promotion.id), watched=seen)
        if all(each.stage is Stage.LIVE for each in seen):
            latest = replace(latest, recovered=_all_say(seen), recovered_at=self.clock.now())
        await self.store.save_look(promotion.id, latest)
        return timedelta(0) if latest.recovered else WATCH_EVERY

    async def _certain(
        self, promotion: Promotion, target: Target, look: Look, seen: tuple[Progress, ...]
    ) -> tuple[Progress, ...]:
        """Where the last of several is live, the others are looked at once more: they may have changed since."""
        if len(seen) == 1 or any(each.stage is not Stage.LIVE for each in seen):
            return seen
        again = await self._look(promotion, target, look, {})
        return tuple(
            live if now.stage is Stage.CONFIRMING else now for live, now in zip(seen, again, strict=True)
        )

    async def _look(
        self, promotion: Promotion, target: Target, look: Look, known: Mapping[str, Progress]
    ) -> tuple[Progress, ...]:
        """The progress of every application, from one look at each."""
        return tuple(
            await together(
                *(
                    self._progress(promotion, target, each, look, known.get(each.key))
                    for each in target.applications
                )
            )
        )

    async def _baseline(self, target: Target, application: Application) -> Baseline | None:
        try:
            async with asyncio.timeout(BASELINE_WITHIN):
                facts = await self.cluster.observe(target, application, refresh=False)
        except (TimeoutError, Unavailable, Failed):
            return None  # nobody waits with a commit for it
        return Baseline(key=application.key, sync=facts.sync, health=facts.health)

    async def _progress(
        self,
        promotion: Promotion,
        target: Target,
        application: Application,
        look: Look,
        before: Progress | None,
    ) -> Progress:
        if before and before.stage.is_end:
            return before
        now, hard = self.clock.now(), wants_rendering(before)
        refresh = hard or wants_refresh(before, now=now, policy=target.rollout)
        seen = await self._observe(target, application, refresh=refresh, hard=hard)
        facts, relations, is_lost = await self._related(promotion, target, seen)
        if refresh and before:
            before = _refreshed(before, now, hard=hard)
        digests = await same_image.proofs(self.images, promotion, target, facts)
        # A hold is measured on the clock that read the facts, so it is asked again after they came.
        case = Case(
            revision=promotion.rolls_out or "",
            image=f"{target.image}:{promotion.version}",
            digests=digests,
            committed_at=_committed_at(promotion, look, now),
            now=self.clock.now(),
            policy=target.rollout,
            relations=relations,
            before=before,
            baseline=look.was(application),
            is_lost=is_lost,
        )
        progress = replace(decide(facts, case), name=target.called(application), key=application.key)
        return _refreshed(progress, now) if refresh and not before else progress

    async def _observe(
        self, target: Target, application: Application, *, refresh: bool, hard: bool
    ) -> ApplicationFacts | Unseen:
        try:
            return await self.cluster.observe(target, application, refresh=refresh, hard=hard)
        except Unavailable as error:
            return Unseen(name=application.name, reason=str(error), is_final=False)
        except Failed as error:
            outcome = error.outcome or Outcome.UNREACHABLE
            return Unseen(name=application.name, reason=str(error), is_final=True, outcome=outcome)

    async def _related(
        self, promotion: Promotion, target: Target, facts: ApplicationFacts | Unseen
    ) -> tuple[ApplicationFacts | Unseen, Mapping[str, Relation], bool]:
        """The facts with what their revisions mean, and whether the commit was lost.

        Revisions that nobody can place now say neither yes nor no.
        """
        commit = promotion.rolls_out
        if isinstance(facts, Unseen) or commit is None:
            return facts, {}, False
        try:
            if facts.is_incomparable:
                await self._require_host(target)
            relations = {
                revision: await self.values.relate(
                    target,
                    revision=revision,
                    commit=commit,
                    version=promotion.version,
                    digest=promotion.digest,
                )
                for revision in sorted(facts.revisions)
            }
            return facts, relations, not await self.values.is_on_branch(target, commit)
        except (Unavailable, Failed) as error:
            return Unseen(name=facts.name, reason=str(error), is_final=False), {}, False

    async def _require_host(self, target: Target) -> None:
        """A git host that we cannot reach either is no fault of the commit's; raises `Unavailable`."""
        with contextlib.suppress(Failed):
            await self.values.current(target)


def _committed_at(promotion: Promotion, look: Look, now: datetime) -> datetime:
    """When the rollout began, and never later than its first look: the clock may have jumped back since."""
    return min(promotion.committed_at or now, look.began_at or now)


def _refreshed(progress: Progress, now: datetime, *, hard: bool = False) -> Progress:
    rendered_anew_at = now if hard else progress.rendered_anew_at
    return replace(
        progress, refreshed_at=now, refreshes=progress.refreshes + 1, rendered_anew_at=rendered_anew_at
    )


def _has_failed(progress: Progress) -> bool:
    return progress.stage is Stage.FAILED


def _ended(promotion: Promotion, look: Look, clock: Clock) -> Promotion | None:
    """The promotion at its end, once every application has reached one."""
    if not all(progress.stage.is_end for progress in look.applications):
        return None
    now = clock.now()
    for stage, end in ((Stage.FAILED, promotion.fail), (Stage.SUPERSEDED, promotion.supersede)):
        told = [progress for progress in look.applications if progress.stage is stage]
        if told:
            why = "; ".join(_last_words(progress) for progress in told)
            return end(at=now, why=why, outcome=told[0].outcome)
    outcomes = {progress.outcome for progress in look.applications}
    outcome = outcomes.pop() if len(outcomes) == 1 else Outcome.LIVE
    return promotion.go_live(at=now, why=_all_say(look.applications), outcome=outcome)


def _all_say(seen: Sequence[Progress]) -> str:
    """What is said of all, once where it is the same."""
    said = {progress.says for progress in seen}
    return said.pop() if len(said) == 1 else "; ".join(map(_last_words, seen))


def _rendered_anew(seen: Sequence[Progress], look: Look) -> tuple[Progress, ...]:
    """What was asked of Argo CD's cache once is not asked again because a look was forgotten."""
    asked = {each.key: each.rendered_anew_at for each in (*look.applications, *look.watched)}
    return tuple(
        replace(each, rendered_anew_at=each.rendered_anew_at or asked.get(each.key)) for each in seen
    )


def _last_words(progress: Progress) -> str:
    pods = f" ({progress.pods})" if progress.pods and progress.stage is Stage.FAILED else ""
    return f"{progress.name}: {progress.says}{pods}"
