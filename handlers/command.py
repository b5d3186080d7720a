"""`/promote …`: what people type."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.core.errors import PromoteError, Refused
from bot.core.keeper import Keeper, Kept, Notices
from bot.core.promoter import Promoter
from bot.messages import answers, keeping
from handlers.grammar import (
    Block,
    Can,
    Check,
    Diff,
    Keeping,
    Lock,
    Request,
    Rollback,
    Unblock,
    Unlock,
    Verb,
    meant,
    parse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The slash command's work: text in, a private answer out; what concerns everybody is told in the channels."""

    promoter: Promoter
    keeper: Keeper
    notices: Notices

    async def run(self, body: dict[str, Any]) -> str:
        """Do what was typed; raises `Refused` with what to type instead."""
        user = str(body["user_id"])
        delivery = str(body.get("trigger_id") or "") or None
        match parse(str(body.get("text") or "")):
            case Verb(id=None) as question:
                return await self._question(question, user)
            case Verb() as verb:
                return await self._verb(verb, user)
            case Request() | Rollback() as wish:
                return await self._asked(wish, user, delivery)
            case Can() | Diff() as wish:
                return await self._foreseen(wish, user)
            case Check() as check:
                return await self._checked(check, user, delivery)
            case wish:
                return await self._kept(wish, user)

    async def _asked(self, wish: Request | Rollback, user: str, delivery: str | None) -> str:
        if isinstance(wish, Request):
            await self._require_no_verb(wish, user)
        ask = self.promoter.request if isinstance(wish, Request) else self.promoter.roll_back
        promotion = await ask(
            app=wish.app,
            environment=wish.environment,
            version=wish.version,
            reason=wish.reason,
            user=user,
            delivery=delivery,
        )
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def _require_no_verb(self, wish: Request, user: str) -> None:
        """Raise `Refused` for an app that nobody knows, where its name is nearly a verb."""
        if wish.app in self.promoter.catalog.apps or not (verb := meant(wish.app, wish.version or "")):
            return
        await self.promoter.member(user)
        raise Refused(
            f"I know no app called “{wish.app}”. Did you mean the word “{verb}”? Type /promote help."
        )

    async def _foreseen(self, wish: Can | Diff, user: str) -> str:
        outlook = await self.promoter.can(
            app=wish.app, environment=wish.environment, version=wish.version, user=user
        )
        return keeping.can(outlook) if isinstance(wish, Can) else keeping.diff(outlook.draft)

    async def _checked(self, check: Check, user: str, delivery: str | None) -> str:
        done = await self.keeper.report_check(
            check.app,
            check.version,
            check.name,
            passed=check.passed,
            user=user,
            said=check.reason,
            environment=check.environment,
            delivery=delivery,
        )
        return keeping.reported(done)

    async def _kept(self, wish: Keeping, user: str) -> str:
        done = await self._keep(wish, user)
        untold = await self._tell(done.channels, keeping.notice(done))
        return "\n".join([keeping.answer(done), *([keeping.untold(untold)] if untold else [])])

    async def _keep(self, wish: Keeping, user: str) -> Kept:
        match wish:
            case Lock():
                return await self.keeper.lock(wish.scope, user=user, reason=wish.reason, term=wish.term)
            case Unlock():
                return await self.keeper.unlock(wish.scope, user=user, reason=wish.reason)
            case Block():
                return await self.keeper.block(wish.app, wish.version, user=user, reason=wish.reason)
            case Unblock():
                return await self.keeper.unblock(wish.app, wish.version, user=user)

    async def _tell(self, channels: Sequence[str], text: str) -> list[str]:
        """Tell each channel once; returns those that could not be told, as what was done is done all the same."""
        tellings = (self.notices.tell(channel, text) for channel in channels)
        found = await asyncio.gather(*tellings, return_exceptions=True)
        untold = []
        for channel, error in zip(channels, found, strict=True):
            if isinstance(error, PromoteError):
                untold.append(channel)
            elif error is not None:
                raise error
        return untold

    async def _question(self, question: Verb, user: str) -> str:
        promoter, text = self.promoter, question.text
        await promoter.member(user)
        match question.name:
            case "pending":
                return answers.pending(await promoter.pending())
            case "status":
                places = await promoter.status(app=text)
                left_out = 0 if text else len(promoter.catalog.targets) - len(places)
                return answers.status(places, left_out=left_out)
            case "locks":
                return keeping.held(await self.keeper.locks(user=user))
            case "windows":
                return keeping.windows(await self.keeper.windows(text, user=user), text)
        return answers.HELP

    async def _verb(self, verb: Verb, user: str) -> str:
        promoter, id, text = self.promoter, verb.id or "", verb.text
        await promoter.member(user)
        match verb.name:
            case "approve":
                return answers.done(await promoter.approve(id, user=user))
            case "reject":
                if not text:
                    raise Refused(f"Say why: /promote reject {id} <reason>")
                return answers.done(await promoter.reject(id, user=user, why=text or ""))
            case "withdraw":
                return answers.done(await promoter.withdraw(id, user=user))
            case "cancel":
                return answers.done(await promoter.cancel(id, user=user, why=text))
        return answers.show(*await promoter.show(id))
