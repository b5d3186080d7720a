"""How a listener behaves: no exception leaves it, nobody is left without an answer, nothing is told too early.

Slack waits three seconds. A *command* is acknowledged at once and answered later. A *click* is recorded first and
acknowledged then; after two seconds it is acknowledged all the same, and answered later. A *view submission* is
never acknowledged before its outcome is known, so that an error can stand inside the modal.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog
from aiohttp import ClientError
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.respond.async_respond import AsyncRespond
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.core.drafting import GatesClosed
from bot.core.errors import PromoteError, Refused
from bot.messages import answers, gates, modals
from bot.messages.mrkdwn import Block, Message

ACK_WITHIN = 2.0
"""Seconds that a click may take before it is acknowledged anyway."""
CONFIRM_WITHIN = 2.5
"""Seconds that a view submission may take before the person is asked to press again."""

UNSURE = "I could not confirm in time that it was recorded. Look at the card; pressing again is safe."

T = TypeVar("T")
Work = Coroutine[Any, Any, str | Message | None]
"""What a listener does; it returns what to say privately, if anything."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What to say privately, if anything, and whether that is a refusal; in a modal, of which field."""

    text: str | None = None
    refused: bool = False
    blocks: tuple[Block, ...] = ()
    field: str | None = None


class WrongField(Refused):
    """What was typed into one field of a modal will not do."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class Background:
    """The bot's own running work, so that a shutdown can wait for it: Bolt keeps no reference to its tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for what still runs."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Listening:
    """The three modes of a listener."""

    background: Background

    async def command(self, work: Work, *, ack: AsyncAck, respond: AsyncRespond) -> None:
        """Acknowledge at once; answer when the work is done."""
        await ack()
        self.background.start(self._answer(self.background.start(outcome(work)), respond))

    async def click(self, work: Work, *, ack: AsyncAck, respond: AsyncRespond) -> None:
        """Record first, acknowledge then; never later than two seconds."""
        task = self.background.start(outcome(work))
        await asyncio.wait({task}, timeout=ACK_WITHIN)
        await ack()
        self.background.start(self._answer(task, respond))

    async def submission(self, work: Work, *, ack: AsyncAck, field: str, title: str = "Done") -> None:
        """Acknowledge with the outcome: an error stands under `field`, inside the modal; words take its place."""
        task = self.background.start(outcome(work))
        done, _ = await asyncio.wait({task}, timeout=CONFIRM_WITHIN)
        result = task.result() if done else Outcome(text=UNSURE, refused=True)
        if result.refused:
            errors = {result.field or field: bare(result.text or UNSURE)}
            await ack(response_action="errors", errors=errors)
        elif result.text:
            await ack(response_action="update", view=modals.done(title, result.text))
        else:
            await ack()

    async def _answer(self, task: Awaitable[Outcome], respond: AsyncRespond) -> None:
        result = await task
        if not result.text:
            return
        try:
            response = await _webhook(respond).send(
                text=result.text,
                blocks=list(result.blocks) or None,
                response_type="ephemeral",
                replace_original=False,
            )
        except Exception:
            log.exception("answer not delivered")
            return
        if response.status_code != 200:
            log.warning("answer not delivered", status=response.status_code)


def _webhook(respond: AsyncRespond) -> AsyncWebhookClient:
    """The address for answers; Bolt's own way to it reads HTTPS_PROXY and forgets NO_PROXY, aiohttp knows both."""
    webhook = AsyncWebhookClient(respond.response_url or "", ssl=respond.ssl, trust_env_in_session=True)
    webhook.proxy = None
    return webhook


async def opened(client: AsyncWebClient, trigger: str, view: Block, *, otherwise: str) -> None:
    """Open a modal; raises `Refused` where Slack, which gives three seconds for it, does not."""
    try:
        await client.views_open(trigger_id=trigger, view=view)
    except (SlackClientError, ClientError, OSError) as error:
        raise Refused(f"The window for it could not be opened. {otherwise}") from error


async def outcome(work: Work) -> Outcome:
    """Run a listener's work; whatever it raises becomes words for the person."""
    try:
        return _said(await work)
    except GatesClosed as closed:
        return replace(_said(gates.closed(closed.draft, reason=closed.reason)), refused=True)
    except WrongField as wrong:
        return Outcome(text=answers.refusal(wrong), refused=True, field=wrong.field)
    except PromoteError as error:
        return Outcome(text=answers.refusal(error), refused=True)
    except Exception:
        reference = secrets.token_hex(3)
        log.exception("listener broke", reference=reference)
        return Outcome(text=answers.broken(reference), refused=True)


def _said(words: str | Message | None) -> Outcome:
    return (
        Outcome(text=words.text, blocks=words.blocks) if isinstance(words, Message) else Outcome(text=words)
    )


def bare(text: str) -> str:
    """The text for a place where Slack formats nothing: without emoji names, escapes and what keeps it plain."""
    stripped = text.partition(": ")[2] if text.startswith(":") else text
    stripped = stripped.replace("\u200b", "")
    return stripped.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
