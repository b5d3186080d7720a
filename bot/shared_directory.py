"""Slack's people, with the user groups shared by every process of the bot: Slack answers few such questions a minute."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.core.board import Board
from bot.core.errors import NoGroup
from bot.core.people import Person
from bot.core.ports import Clock, Directory
from bot.core.seals import Sealer

FRESH = timedelta(minutes=1)
"""The board forgets after thirty seconds of its own clock; ours may differ from another machine's as much again."""

GONE = frozenset({"gone"})
"""What is shared of a group that is disabled or gone: no id of Slack's, and not the same as a group without members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDirectory:
    """The core's `Directory`: people are asked of `directory`, user groups at most about once in thirty seconds.

    "About": a process asks once for all who wait in it, and two processes may ask at the same moment. Where the
    board does not answer, nobody asks Slack in its place, and `Unavailable` is raised.

    What is shared carries a seal, as it decides who may approve: what somebody else put there counts for nothing.
    """

    directory: Directory
    board: Board
    sealer: Sealer
    clock: Clock
    _asked: dict[str, asyncio.Task[frozenset[str]]] = field(default_factory=dict, init=False)

    async def person(self, user: str) -> Person:
        """Who this is, as Slack says now."""
        return await self.directory.person(user)

    async def members(self, group: str) -> frozenset[str]:
        """The people of a user group, as Slack said within the last thirty seconds; raises as `directory` does."""
        asked = self._asked.get(group)
        if asked is None:
            asked = self._asked[group] = asyncio.create_task(self._shared(group))
            asked.add_done_callback(lambda done: self._forget(group, done))
        await asyncio.wait([asked])  # who gives up does not take the answer from the others
        return asked.result()

    async def owner_of(self, email: str) -> str | None:
        """The id of the person with this address; None where nobody has it."""
        return await self.directory.owner_of(email)

    async def _shared(self, group: str) -> frozenset[str]:
        kept = await self.board.group(group)
        members = None if kept is None else self._genuine(group, kept)
        if members is None:
            members = await self._asked_of_slack(group)
        if members == GONE:
            raise NoGroup(group)
        return members

    async def _asked_of_slack(self, group: str) -> frozenset[str]:
        at = self.clock.now()  # before the question: the answer is no older than that
        try:
            members = await self.directory.members(group)
        except NoGroup:
            members = GONE
        seal = self.sealer.group_seal(group, members, at)
        await self.board.keep_group(group, [*sorted(members), f"{at.isoformat()} {seal}"])
        return members

    def _genuine(self, group: str, kept: frozenset[str]) -> frozenset[str] | None:
        """The members, where one of us has kept them a moment ago; beside the ids stands one seal, with a blank in it."""
        members = frozenset(each for each in kept if " " not in each)
        for word in kept - members:
            text, _, seal = word.partition(" ")
            try:
                at = datetime.fromisoformat(text)
                is_fresh = abs(self.clock.now() - at) <= FRESH
            except (TypeError, ValueError):  # no moment, or one without a zone
                continue
            if is_fresh and self.sealer.group_is_genuine(seal, group, members, at):
                return members
        return None

    def _forget(self, group: str, asked: asyncio.Task[frozenset[str]]) -> None:
        del self._asked[group]
        if not asked.cancelled():
            asked.exception()  # seen here, also where everybody who waited for it has given up
