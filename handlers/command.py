"""`/promote …`: what people type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.core.asking import Manner
from bot.core.catalog import checked_version
from bot.core.drafting import GatesClosed
from bot.core.errors import Refused
from bot.core.keeper import Keeper, Kept, Notices
from bot.core.promoter import Promoter
from bot.messages import answers, gates, history, keeping, modals
from bot.messages.mrkdwn import Message
from handlers.grammar import (
    Block,
    Can,
    Check,
    Diff,
    History,
    Keeping,
    Lock,
    NoEnvironment,
    Request,
    Rollback,
    Stats,
    Unblock,
    Unlock,
    Verb,
    meant,
    parse,
)
from handlers.listening import opened
from handlers.stats import Telling
from handlers.telling import told


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The slash command's work: text in, a private answer out; what concerns everybody is told in the channels."""

    promoter: Promoter
    keeper: Keeper
    notices: Notices
    stats: Telling
    client: AsyncWebClient

    async def run(self, body: dict[str, Any]) -> str | Message | None:
        """Do what was typed; raises `Refused` with what to type instead."""
        user = str(body["user_id"])
        delivery = str(body.get("trigger_id") or "") or None
        try:
            wish = parse(str(body.get("text") or ""))
        except NoEnvironment as short:
            await self._require_app(short.app, user)
            raise
        match wish:
            case Verb(id=None) as question:
                return await self._question(question, user)
            case Verb() as verb:
                return await self._verb(verb, user)
            case Request():
                return await self._asked(wish, user, delivery)
            case Rollback():
                return await self._rolled_back(wish, user, delivery)
            case Can() | Diff():
                return await self._foreseen(wish, user)
            case History():
                return await self._history(wish, user)
            case Stats():
                await self.promoter.member(user)
                return await self.stats.tell(wish, user)
            case Check() as check:
                return await self._checked(check, user, delivery)
            case _:
                return await self._kept(wish, user)

    async def _asked(self, wish: Request, user: str, delivery: str | None) -> str | None:
        await self._require_no_verb(wish, user)
        if wish.incident:
            await self._break_glass(wish, wish.incident, user, delivery)
            return None
        promotion = await self.promoter.request(
            app=wish.app,
            environment=wish.environment,
            version=wish.version,
            reason=wish.reason,
            user=user,
            delivery=delivery,
            manner=Manner(waits=wish.waits, replaces=wish.replaces),
        )
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def _rolled_back(self, wish: Rollback, user: str, delivery: str | None) -> str | Message:
        try:
            promotion = await self.promoter.roll_back(
                app=wish.app,
                environment=wish.environment,
                version=wish.version,
                reason=wish.reason,
                user=user,
                delivery=delivery,
            )
        except GatesClosed as closed:
            return gates.closed(closed.draft, may_wait=False)
        return answers.asked(promotion, self.promoter.target_of(promotion).channel)

    async def _break_glass(self, wish: Request, incident: str, user: str, trigger: str | None) -> None:
        """Nothing is asked for yet: a modal says what is left out, and has the app's name typed."""
        target = await self.promoter.require_rescuer(app=wish.app, environment=wish.environment, user=user)
        version = None if wish.version is None else checked_version(wish.version)
        view = modals.emergency(target, version, incident=incident, reason=wish.reason)
        await opened(self.client, trigger or "", view, otherwise="Type the command again.")

    async def _require_app(self, app: str, user: str) -> None:
        """Raise `Refused` for an app that nobody knows; who is no member learns no name."""
        await self.promoter.member(user)
        try:
            self.promoter.catalog.meant(app)
        except Refused as unknown:
            raise Refused(f"{unknown} Or type /promote help.") from None

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

    async def _history(self, wish: History, user: str) -> Message:
        found = await self.promoter.history(
            wish.app, wish.environment, user=user, since=wish.since, until=wish.until, by=wish.by
        )
        return history.history(found)

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
        return await told(await self._keep(wish, user), self.notices)

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
            case "review":
                return answers.reviewed(await promoter.review(id, user=user, why=text))
        return answers.show(*await promoter.show(id))
