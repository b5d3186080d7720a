"""The engine: move one promotion one step. Safe to call at any time, any number of times, anywhere.

Level-triggered: each call reads where the promotion stands and does what is next, so a restart, a second worker
or a crash needs no code of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core.announcing import Announcing
from bot.core.catalog import Mode, Target
from bot.core.errors import Conflict, Failed, Protected, Refused, Stale, Unavailable
from bot.core.gates import Answers
from bot.core.newest import drafted_anew
from bot.core.outcome import Outcome
from bot.core.ports import PullRequest, PullState
from bot.core.promotion import Phase, Promotion
from bot.core.proposing import Proposing
from bot.core.recording import NOW
from bot.core.rollout import Look
from bot.core.terms import target_for

AT_ONCE_AGAIN = timedelta(milliseconds=100)
"""After a conflict: soon, but never a loop that runs hot."""
LONGEST_BACK_OFF = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=5)
"""How long an outside system that asked for a pause is left alone at the most."""
LANDS_WITHIN = timedelta(minutes=2)
"""How long a push that nobody has heard of may still be on its way: far above the time limit of a git command."""
LOOK_AGAIN = timedelta(seconds=5)
GIVE_UP_AFTER = 3
GATES_ASKED_EVERY = timedelta(minutes=1)
"""How often somebody's gates are asked who wants to start when they open."""
UNCONFIGURED = timedelta(minutes=10)
"""How often a promotion is looked at whose target was taken out of promote.yaml: it is kept until that is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Proposing):
    """`advance` and what it needs."""

    announcing: Announcing

    async def advance(self, id: str) -> tuple[int, timedelta | None]:
        """Show where the promotion stands, then take its next step, if there is one.

        Returns the edition that was looked at, and when to look again: None for never. Raises `Unavailable` where
        the store does not answer.
        """
        promotion = await self.store.load(id)
        if promotion is None:
            return 0, None
        try:
            target = target_for(promotion, self.catalog.target(promotion.app, promotion.environment))
        except Refused:
            return promotion.edition, UNCONFIGURED
        look = await self.store.look(id)
        if await self._has_just_been_decided(promotion):
            # People should see what came of it next, not the same buttons once more.
            again = await self._step_or_wait(promotion, target, look)
            if again == NOW:
                return promotion.edition, NOW
        shown = await self.announcing.bring_up(promotion, target, look)
        if promotion.phase.is_final:
            await self.announcing.send_logs(promotion, target, self.following.cluster)
            tidied = await self._tidy(promotion, target)
            return promotion.edition, _soonest(shown, tidied, await self._watch(promotion, target))
        again = await self._step_or_wait(promotion, target, look)
        return promotion.edition, _soonest(again, shown)

    async def _has_just_been_decided(self, promotion: Promotion) -> bool:
        """Is there a card that asks, and somebody who answered?"""
        if promotion.phase is not Phase.REQUESTED or not promotion.approvals:
            return False
        return (await self.store.card(promotion.id)).ts is not None

    async def _watch(self, promotion: Promotion, target: Target) -> timedelta | None:
        """A rollout that failed may still come right."""
        if promotion.phase is not Phase.FAILED or promotion.revision is None:
            return None
        return await self.following.watch(promotion, target)

    async def _step_or_wait(self, promotion: Promotion, target: Target, look: Look) -> timedelta:
        """Take the step; where an outside system is away, say so on the card and try again later and later."""
        if look.not_before and NOW < (pause := look.not_before - self.clock.now()) <= LONGEST_PAUSE:
            return pause
        try:
            again = await self._step(promotion, target)
        except Conflict:
            return AT_ONCE_AGAIN
        except Unavailable as error:
            if error.system == "the store":
                raise
            latest = await self.store.look(promotion.id)
            await self._wait_for(promotion, latest, str(error), asked=error.retry_after)
            return back_off(look.tries, error.retry_after)
        except Failed as error:
            # Only the remote knows what became of the commit, and it will not say: keep asking.
            await self._wait_for(promotion, await self.store.look(promotion.id), str(error))
            return back_off(look.tries)
        if look.waits_for or (look.held_by and again == NOW):
            latest = await self.store.look(promotion.id)
            held_by = "" if again == NOW else latest.held_by
            await self.store.save_look(
                promotion.id,
                replace(latest, waits_for="", held_by=held_by, not_before=None, tries=0, breaks=0),
            )
        return again

    async def adopt(self, promotion: Promotion, revision: str) -> bool:
        """Go on from a commit that the record does not know of; False where somebody else did so first."""
        try:
            await self._found_on_branch(promotion, revision)
        except Conflict:
            return False
        return True

    async def broke(self, id: str, *, reference: str) -> tuple[int, timedelta | None]:
        """A bug of ours stopped `advance`: say so, try again, and after three times end what may be ended."""
        promotion = await self.store.load(id)
        if promotion is None:
            return 0, None
        look = await self.store.look(id)
        sentence = f"Something broke on our side (ref {reference})"
        look = replace(look, breaks=look.breaks + 1)
        if look.breaks >= GIVE_UP_AFTER and promotion.phase in (Phase.APPROVED, Phase.COMMITTED):
            outcome = Outcome.BROKEN if promotion.revision else None
            ended = promotion.fail(at=self.clock.now(), why=sentence, outcome=outcome)
            return promotion.edition, await self._save(promotion, ended)
        await self._wait_for(promotion, look, sentence)
        return promotion.edition, back_off(look.tries)

    async def _wait_for(
        self, promotion: Promotion, look: Look, sentence: str, *, asked: float | None = None
    ) -> None:
        waiting = replace(
            look,
            waits_for=f"{sentence}; trying again",
            tries=look.tries + 1,
            not_before=self.clock.now() + min(timedelta(seconds=asked), LONGEST_PAUSE) if asked else None,
        )
        await self.store.save_look(promotion.id, waiting)

    async def _step(self, promotion: Promotion, target: Target) -> timedelta:
        if promotion.phase is Phase.REQUESTED:
            return await self._await_quorum(promotion, target)
        if promotion.phase is Phase.APPROVED:
            return await self._write(promotion, target)
        if promotion.phase is Phase.COMMITTING:
            return await self._settle(promotion, target)
        return await self.following.follow(promotion, target)

    async def _await_quorum(self, promotion: Promotion, target: Target) -> timedelta:
        """`requested`: enough approvals, or too late?"""
        now = self.clock.now()
        approvers = [approval.by.id for approval in promotion.approvals]
        if await self._has_quorum(target, approvers, is_late=now >= promotion.expires_at):
            card = await self.store.card(promotion.id)
            return await self._save(promotion, promotion.reach_quorum(at=now, link=card.link))
        if now >= promotion.expires_at:
            why = f"{len(approvers)} of {target.policy.total} approvals when the time was up"
            return await self._save(promotion, promotion.expire(at=now, why=why))
        # A clock that jumped back must not make it longer.
        return min(promotion.expires_at - now, target.policy.expires)

    async def _has_quorum(self, target: Target, approvers: Sequence[str], *, is_late: bool) -> bool:
        """Have enough of the right people approved? Groups are asked of Slack only when it matters."""
        if len(approvers) < target.policy.total:
            return False
        try:
            return target.policy.is_satisfied(approvers, await self._members(target))
        except Unavailable:
            if is_late:  # a look-up that never works must not hold the target for ever
                return False
            raise

    async def _write(self, promotion: Promotion, target: Target) -> timedelta:
        """`approved`: check everything once more, then commit."""
        now = self.clock.now()
        if promotion.base and (found := await self._find(promotion, target)):
            return await self._found_on_branch(promotion, found)
        pull = await self._proposed(promotion, target)
        if pull and pull.state is PullState.MERGED:
            return await self._merged(promotion, target, pull)
        if ended := await self._may_not_be_written(promotion, target):
            return await self._end(promotion, target, ended)
        kept = await self._still_valid(promotion, target)
        if not target.policy.is_satisfied([approval.by.id for approval in kept], await self._members(target)):
            why = "an approver may not approve any more"
            return await self._end(promotion, target, promotion.lose_quorum(at=now, kept=kept, why=why))
        try:
            plan = await self._checked_plan(promotion, target)
            moved = await self._moved_since(promotion, target, plan)
        except Failed as error:
            return await self._end(promotion, target, promotion.fail(at=now, why=str(error)))
        if moved:
            anew = await drafted_anew(promotion, target, plan, store=self.store, sealer=self.sealer, at=now)
            return await self._end(promotion, target, anew or promotion.outdate(at=now, why=moved))
        if (again := await self._held_by_gates(promotion, target, pull)) is not None:
            return again
        if promotion.branch or target.repository.mode is Mode.PR:
            return await self._propose(promotion, target, pull, base=plan.base, kept=kept)
        await self.following.remember_baseline(promotion, target)
        committing = promotion.start_commit(at=now, base=promotion.base or plan.base, approvals=kept)
        await self._save(promotion, committing)
        return await self._push(committing, target, checked=plan.base)

    async def _held_by_gates(
        self, promotion: Promotion, target: Target, pull: PullRequest | None
    ) -> timedelta | None:
        """Ask every gate once more: None where all are open; else when to look again, or what became of it is saved."""
        now, answers = self.clock.now(), await self._answers(promotion, target)
        if answers.are_open:
            return None
        # What was tried before cannot be called off any more, so it does not wait for days either.
        is_untried = not promotion.may_be_written
        may_open = all(answer.may_open or answer in answers.unknown for answer in answers.closed)
        if promotion.waits and is_untried and may_open:
            is_known = len(answers.unknown) < len(answers.closed)
            if is_known and pull and pull.state is PullState.OPEN:
                return await self._take_back(promotion, target, why=answers.says)
            await self._wait_for_gates(promotion, answers)
            opens_in = answers.opens_at - now if answers.opens_at else GATES_ASKED_EVERY
            return min(max(opens_in, NOW), GATES_ASKED_EVERY)
        if len(answers.unknown) == len(answers.closed):
            raise Unavailable("what has to be checked first", answers.says)
        says = "; ".join(answer.says for answer in answers.closed if answer not in answers.unknown)
        why = f"{says.rstrip('.')}; nothing was committed"
        return await self._end(promotion, target, promotion.outdate(at=now, why=why))

    async def _wait_for_gates(self, promotion: Promotion, answers: Answers) -> None:
        """The card says what it waits for; that is saved only where it changes, as every save is a look."""
        look = await self.store.look(promotion.id)
        waiting = f"It starts by itself when it may: {answers.says}"
        if look.held_by != waiting:
            await self.store.save_look(promotion.id, replace(look, held_by=waiting))

    async def _push(self, promotion: Promotion, target: Target, *, checked: str) -> timedelta:
        """Only the call whose own save reached `committing` comes here; every other one looks at the remote first.

        `checked` is the tip at which everything was checked.
        """
        now = self.clock.now()
        only_on = checked if await self._is_bound(promotion) else None
        try:
            revision = await self.values.commit(replace(self._edit(promotion, target), only_on=only_on))
        except Stale as stale:
            if found := await self._find(promotion, target):
                return await self._committed(promotion, found)
            if not promotion.requested_by.is_person:  # it may go on from what an older one of CI has brought
                return await self._save(promotion, promotion.reopen(at=now))
            why = await self._moved(promotion, target, stale.found)
            return await self._save(promotion, promotion.outdate(at=now, why=why))
        except Failed as error:
            is_auto = target.repository.mode is Mode.AUTO and target.release is None
            if isinstance(error, Protected) and is_auto:
                return await self._propose_instead(promotion, target, base=checked)
            return await self._save(promotion, promotion.fail(at=now, why=str(error)))
        return await self._committed(promotion, revision)

    async def _settle(self, promotion: Promotion, target: Target) -> timedelta:
        """`committing`, found by somebody who did not see how it ended: the remote knows."""
        if found := await self._find(promotion, target):
            return await self._committed(promotion, found)
        pull = await self._proposed(promotion, target)
        if pull and pull.state is PullState.MERGED and pull.revision:
            return await self._committed(promotion, pull.revision)  # the host's own commit, or a rebased one
        if promotion.branch is None and await self._may_be_on_its_way(promotion):
            return await self._push_again(promotion, target)
        reopened = promotion.reopen(at=self.clock.now())
        await self._save(promotion, reopened)
        # At once: a card that goes to and fro between two phases would be looked at again every three seconds.
        return await self._write(reopened, target)

    async def _may_be_on_its_way(self, promotion: Promotion) -> bool:
        """Has nobody waited long enough for the push? Counted by the looks: the clock may have jumped back since."""
        now, look = self.clock.now(), await self.store.look(promotion.id)
        since = min(promotion.last.at, look.began_at or now, now)
        if since != look.began_at and promotion.last.at > now:
            await self.store.save_look(promotion.id, replace(look, began_at=since))
        return now < since + LANDS_WITHIN

    async def _push_again(self, promotion: Promotion, target: Target) -> timedelta:
        """The push may still be on its way, so nobody may hear that nothing was committed.

        The same commit once more is safe: as long as the branch has not moved it has the same id, and where it has
        moved the first push is refused.
        """
        kept = await self._still_valid(promotion, target)
        is_satisfied = target.policy.is_satisfied(
            [approval.by.id for approval in kept], await self._members(target)
        )
        # A record from long ago that says it is being written would else be written now.
        reopened = promotion.reopen(at=self.clock.now())
        if not is_satisfied:
            return LOOK_AGAIN
        if await self._may_not_be_written(reopened, target):
            raise Unavailable("the git host", "nobody has heard yet what became of the last push")
        plan = await self._checked_plan(promotion, target)
        is_there = plan.old_version == promotion.old_version  # else the push itself tells what became of it
        if is_there and await self._moved_since(promotion, target, plan):
            return LOOK_AGAIN
        if not (await self._answers(promotion, target)).are_open:
            return LOOK_AGAIN
        return await self._push(promotion, target, checked=plan.base)


def back_off(tries: int, asked: float | None = None) -> timedelta:
    """How long to wait after so many failed tries in a row; at least as long as the other side asked for."""
    waits = min(timedelta(seconds=2 ** min(tries, 10)), LONGEST_BACK_OFF)
    return max(waits, timedelta(seconds=asked)) if asked else waits


def _soonest(*whens: timedelta | None) -> timedelta | None:
    return min((when for when in whens if when is not None), default=None)
