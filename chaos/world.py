"""One world in which the bot is killed, and the people in it, who try again as people do."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from world import push

from bot.core.promotion import ID, PromotionId
from bot.integrations.store import RedisStore
from bot.playground.argocd.application import Timings
from bot.playground.repository import create_repository, read_file
from bot.playground.slack.state import SLACKBOT, Message
from bot.playground.workshop import AMY, CHANNEL, CODE, DANA, Pace, Workshop
from chaos.faults import Fault, Journal, has_work

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
VERSIONS = {"dev": "16", "stage": "15"}
"""What runs from the first moment; prod runs 14, so that 15 can be promoted to it."""
WANTED = "15"
LOOK_EVERY = 0.1
"""Seconds between two looks."""
PORTS = range(10_000, 32_000)
"""Below those that the system gives to outgoing connections: a port must be free again for the next bot."""
LOOKS = 30
"""How often a person looks for an answer before trying again."""


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - any will do
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class CrashingWorkshop(Workshop):
    """The whole world, with the bot of `chaos.bot` in it, started again whenever it dies."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        repository = create_repository(folder)
        for environment, version in VERSIONS.items():
            path = f"values-{environment}.yaml"
            push(repository, {path: re.sub('tag: ".*?"', f'tag: "{version}"', read_file(repository, path))})
        super().__init__(folder, pace=PACE)
        self.port, self.operations_port = free_port(), free_port()
        self._fault = fault
        self._journal_path = folder / "journal.jsonl"
        self.journal = Journal(self._journal_path)

    async def start_bot(self) -> None:
        """Start the bot with its boundaries and wait until it is ready."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "chaos.bot", cwd=CODE, env=self.environment(), stdout=log, stderr=log
            )
        self.starts += 1
        await self._until_ready()

    def environment(self) -> dict[str, str]:
        """The bot's environment, with its journal and its fault."""
        ordered = {"CHAOS_FAULT": str(self._fault)} if self._fault else {}
        return {**super().environment(), "CHAOS_JOURNAL": str(self._journal_path), **ordered}

    async def keep_running(self) -> None:
        """Start the bot again as often as it dies, as a supervisor would."""
        while True:
            if self._process is not None:
                await self._process.wait()
            with suppress(RuntimeError):  # it died before it was ready: `starts` will tell
                await self.start_bot()

    # --- what people see and do

    def shown(self) -> list[str]:
        """Every text that the bot has ever shown to anybody, edited ones as they were before too."""
        slack = self.slack.workspace
        everywhere = [message for channel in slack.channels for message in slack.messages(channel)]
        privately = [message for user in slack.users for message in slack.ephemerals(user)]
        return [
            f"{text} {blocks}"
            for message in (*everywhere, *privately)
            if message.user != SLACKBOT
            for text, blocks in (*message.history, (message.text, message.blocks))
        ]

    def cards(self, id: str) -> list[Message]:
        """The messages in the channel that are this promotion's card."""
        return [message for message in self.slack.messages(CHANNEL) if id in str(message.blocks)]

    async def ask(self) -> PromotionId:
        """Dana asks for prod until she is told an id: that of her promotion, or of the one that is in its way."""
        while True:
            before = len(self.slack.ephemerals(DANA))
            await self.slack.command(DANA, CHANNEL, "manual-app prod because fixes INC-42")
            for _ in range(LOOKS):
                await asyncio.sleep(LOOK_EVERY)
                answers = self.slack.ephemerals(DANA)[before:]
                if found := next((found for each in answers if (found := ID.search(each.text))), None):
                    return PromotionId(found[0])
                if answers:
                    break

    async def approve(self, store: RedisStore, id: PromotionId) -> None:
        """Amy presses Approve wherever she sees it, until her approval is on record."""
        while True:
            asking = [card for card in self.cards(id) if "promotion_approve" in str(card.blocks)]
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
