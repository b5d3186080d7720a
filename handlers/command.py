"""`/promote …`: what people type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bot.core.errors import Refused
from bot.core.promoter import Promoter
from bot.messages import answers
from handlers.grammar import Request, Rollback, Verb, meant, parse


@dataclass(frozen=True, slots=True)
class Command:
    """The slash command's work: text in, a private answer out."""

    promoter: Promoter

    async def run(self, body: dict[str, Any]) -> str:
        """Do what was typed; raises `Refused` with what to type instead."""
        user = str(body["user_id"])
        wish = parse(str(body.get("text") or ""))
        if isinstance(wish, Verb):
            return await self._verb(wish, user)
        return await self._asked(wish, user, str(body.get("trigger_id") or "") or None)

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
            case "show":
                return answers.show(*await promoter.show(id))
            case "pending":
                return answers.pending(await promoter.pending())
            case "status":
                places = await promoter.status(app=text)
                left_out = 0 if text else len(promoter.catalog.targets) - len(places)
                return answers.status(places, left_out=left_out)
        return answers.HELP
