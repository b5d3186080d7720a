"""One world in which the bot is killed, and the people in it, who try again as people do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from bot.core.promotion import ID, PromotionId
from bot.integrations.store import RedisStore
from bot.playground.argocd.application import Timings
from bot.playground.repository import create_repository
from bot.playground.slack.fake import FakeSlack
from bot.playground.slack.state import SLACKBOT, Message
from bot.playground.workshop import AMY, CHANNEL, DANA, Child, Pace, Workshop
from chaos import build_server, forge
from chaos.bot import serve
from chaos.faults import Fault, Journal, has_work
from chaos.forge import protected
from chaos.lanes import PULL, VALUES, Lane
from chaos.processes import Fork

PACE = Pace(
    timings=Timings(
        reconcile_takes=timedelta(milliseconds=100),
        sync_takes=timedelta(milliseconds=300),
        settle_gap=timedelta(milliseconds=300),
        pod_takes=timedelta(milliseconds=200),
    ),
    rollout="{stable_for: 1s, degraded_grace: 3s, pick_up_within: 30s, timeout: 60s}",
    lease_seconds=1,
)
LOOK_EVERY = 0.1
"""Seconds between two looks."""
LOOKS = 30
"""How often a person looks for an answer before trying again."""


class CrashingWorkshop(Workshop):
    """The whole world, with the bot of `chaos.bot` in it, started again whenever it dies."""

    def __init__(self, folder: Path, fault: Fault | None, lane: Lane = VALUES) -> None:
        self.lane = lane
        lane.prepare(folder, create_repository(folder))
        super().__init__(folder, pace=PACE, shape=lane.shape)
        self.forge = protected(self.repository) if lane is PULL else None
        self._fault = fault
        self._journal_path = folder / "journal.jsonl"
        self.journal = Journal(self._journal_path)

    async def _spawn(self) -> Child:
        return Fork(serve, environment=self.environment(), log=self.log_path, web_side=True, worker_side=True)

    def environment(self) -> dict[str, str]:
        """The bot's environment, with its journal and its fault."""
        ordered = {"CHAOS_FAULTS": str(self._fault)} if self._fault else {}
        journal = {"CHAOS_JOURNAL": str(self._journal_path)}
        token = {"GIT_TOKEN": forge.TOKEN} if self.forge else {}
        return {**super().environment(), **build_server.SETTINGS, **token, **journal, **ordered}

    async def start(self, *, with_bot: bool = True) -> None:
        """Start the world, with a git host in front of the repository where that takes pull requests alone."""
        if self.forge:
            await self.forge.start()
        await super().start(with_bot=with_bot)

    async def stop(self) -> None:
        """End the bot as an operator would, then the world."""
        await super().stop()
        if self.forge:
            await self.forge.stop()

    def _config(self) -> str:
        config = f"{super()._config()}{build_server.CONFIG}"
        return forge.configured(config, self.forge) if self.forge else config

    async def keep_running(self) -> None:
        """Start the bot again as often as it dies, as a supervisor would."""
        while True:
            if self._process is not None:
                await self._process.wait()
            with suppress(RuntimeError):  # it died before it was ready: `starts` will tell
                await self.start_bot()

    # --- what people do

    @property
    def written(self) -> Path:
        """The repository to which the promotion goes."""
        return self.lane.repository(self.folder, self.repository)

    async def ask(self) -> PromotionId:
        """Dana asks for it until she is told an id: that of her promotion, or of the one that is in its way."""
        if not self.lane.asked:
            return await build_server.delivered(f"http://127.0.0.1:{self.port}", self.lane.wanted)
        while True:
            before = len(self.slack.ephemerals(DANA))
            await self.slack.command(DANA, CHANNEL, self.lane.asked)
            for _ in range(LOOKS):
                await asyncio.sleep(LOOK_EVERY)
                answers = self.slack.ephemerals(DANA)[before:]
                if found := next((found for each in answers if (found := ID.search(each.text))), None):
                    return PromotionId(found[0])
                if answers:
                    break

    async def approve(self, store: RedisStore, id: PromotionId) -> None:
        """Amy presses Approve wherever she sees it, until her approval is on record."""
        while self.lane.needs_approval:
            asking = [card for card in cards(self.slack, id) if may_approve(card)]
            if asking:
                await self.slack.click(AMY, CHANNEL, asking[-1].ts, "promotion_approve")
            for _ in range(LOOKS if asking else 1):
                await asyncio.sleep(LOOK_EVERY)
                promotion = await store.load(id)
                if promotion and promotion.approvals:
                    return

    async def settled(self, store: RedisStore, id: PromotionId) -> None:
        """Return when it has ended, everybody has been told so, and nothing is left to do."""
        is_settled = False
        while not is_settled:
            await asyncio.sleep(LOOK_EVERY)
            is_settled = await self._is_settled(store, id)

    async def _is_settled(self, store: RedisStore, id: PromotionId) -> bool:
        promotion, card = await store.load(id), await store.card(id)
        if promotion is None or not promotion.phase.is_final:
            return False
        is_told = (card.phase, card.told) == (promotion.phase, promotion.edition)
        return is_told and not has_work(self.journal.read())


# --- what people see


def shown(slack: FakeSlack) -> list[tuple[Message, str]]:
    """Every text that the bot has ever shown to anybody, edited ones as they were before too."""
    workspace = slack.workspace
    everywhere = [message for channel in workspace.channels for message in workspace.messages(channel)]
    privately = [message for user in workspace.users for message in workspace.ephemerals(user)]
    return [
        (message, f"{text} {blocks}")
        for message in (*everywhere, *privately)
        if message.user != SLACKBOT
        for text, blocks in (*message.history, (message.text, message.blocks))
    ]


def cards(slack: FakeSlack, id: str) -> list[Message]:
    """The messages in the channel that are this promotion's card, oldest first."""
    return [message for message in slack.messages(CHANNEL) if promotion_of(message) == id]


def promotion_of(message: Message) -> str | None:
    """Whose card it is; None for a message that is none."""
    return message.metadata["event_payload"]["id"] if message.metadata else None


def may_approve(card: Message) -> bool:
    """Is there the button?"""
    return "promotion_approve" in str(card.blocks)
