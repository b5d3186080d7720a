"""What a workspace knows: its people, groups, channels, messages and views, and who sees which of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Literal

from bot.playground.slack.blocks import Json, completed

Kind = Literal["member", "guest", "single_channel_guest", "stranger", "bot", "deactivated"]
SLACKBOT = "USLACKBOT"


@dataclass(kw_only=True)
class User:
    """A person or a bot; `kind` may change at any time, as people leave and become guests."""

    id: str
    name: str
    real_name: str
    email: str
    kind: Kind
    team: str
    role: str = ""


@dataclass(kw_only=True)
class Group:
    """A user group, whose members may change at any time."""

    id: str
    handle: str
    users: list[str]
    disabled: bool = False
    lists_nobody: bool = False
    """Are the people of a disabled group listed as nobody, and not refused? Slack documents neither."""


@dataclass(kw_only=True)
class Channel:
    """A channel, or one person's direct messages with the app."""

    id: str
    name: str
    members: set[str]
    private: bool = False
    archived: bool = False
    shared: bool = False
    direct: bool = False


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that was uploaded, such as a picture."""

    id: str
    name: str
    title: str
    alternative: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as people see it now, with what it said before."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: tuple[Json, ...] = ()
    metadata: Json | None = None
    thread_ts: str | None = None
    broadcast: bool = False
    only_for: str | None = None
    files: tuple[File, ...] = ()
    history: tuple[tuple[str, tuple[Json, ...]], ...] = ()

    @property
    def edited(self) -> int:
        """How often the message was edited."""
        return len(self.history)


@dataclass(frozen=True, kw_only=True)
class View:
    """A modal or a Home tab as one person sees it."""

    id: str
    user: str
    body: Json
    hash: str
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def blocks(self) -> list[Json]:
        """The view's blocks."""
        return list(self.body["blocks"])

    @property
    def is_home(self) -> bool:
        """Whether it is a Home tab rather than a modal."""
        return bool(self.body["type"] == "home")


class Workspace:
    """The state of one workspace and every change to it; each change moves `version`."""

    def __init__(self, *, team: str, app_id: str, bot: User) -> None:
        self.team = team
        self.app_id = app_id
        self.bot = bot
        self.users = {bot.id: bot}
        self.groups: dict[str, Group] = {}
        self.channels: dict[str, Channel] = {}
        self.stacks: dict[str, list[View]] = {}
        self.homes: dict[str, View] = {}
        self.version = 0
        self._messages: dict[tuple[str, str], Message] = {}
        self._last_ts = 0
        self._last_id = 0
        self._change = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()

    def touch(self) -> None:
        """Note that something people see has changed, and wake whoever waits for it."""
        self.version += 1
        try:
            waker = asyncio.get_running_loop().create_task(self._wake())
        except RuntimeError:  # the world is being set up; nobody can wait yet
            return
        self._wakers.add(waker)
        waker.add_done_callback(self._wakers.discard)

    async def _wake(self) -> None:
        async with self._change:
            self._change.notify_all()

    async def changed(self, version: int) -> None:
        """Return as soon as the version is another one than this."""
        async with self._change:
            await self._change.wait_for(lambda: self.version != version)

    def new_id(self, prefix: str) -> str:
        """An id in Slack's form that was not used before."""
        self._last_id += 1
        return f"{prefix}0DEMO{self._last_id:05d}"

    def new_ts(self) -> str:
        """A message's time stamp; it is its id too, so no two are equal."""
        self._last_ts = max(time.time_ns() // 1000, self._last_ts + 1)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def direct(self, user: str) -> Channel:
        """One person's direct messages with the app, opened when needed."""
        known = next((c for c in self.channels.values() if c.direct and user in c.members), None)
        if known is not None:
            return known
        members = {user, self.bot.id}
        opened = Channel(id=self.new_id("D"), name="directmessage", members=members, direct=True)
        self.channels[opened.id] = opened
        self.touch()
        return opened

    def add(
        self,
        channel: str,
        user: str,
        text: str,
        *,
        blocks: Iterable[Json] = (),
        metadata: Json | None = None,
        thread_ts: str | None = None,
        broadcast: bool = False,
        only_for: str | None = None,
        files: Iterable[File] = (),
    ) -> Message:
        """Put a message into a channel, for everyone in it or for one person only."""
        message = Message(
            channel=channel,
            ts=self.new_ts(),
            user=user,
            text=text,
            blocks=tuple(completed(list(blocks))),
            metadata=deepcopy(metadata),
            thread_ts=thread_ts,
            broadcast=broadcast,
            only_for=only_for,
            files=tuple(files),
        )
        self._messages[channel, message.ts] = message
        self.touch()
        return message

    def edit(
        self, message: Message, *, text: str, blocks: list[Json] | None, metadata: Json | None = None
    ) -> Message:
        """Change a message; blocks and metadata that are not given stay as they are, as in Slack."""
        edited = replace(
            message,
            text=text,
            blocks=message.blocks if blocks is None else tuple(completed(blocks)),
            metadata=message.metadata if metadata is None else deepcopy(metadata),
            history=(*message.history, (message.text, message.blocks)),
        )
        self._messages[message.channel, message.ts] = edited
        self.touch()
        return edited

    def delete(self, message: Message) -> None:
        """Remove a message."""
        del self._messages[message.channel, message.ts]
        self.touch()

    def find(self, channel: str, ts: str) -> Message | None:
        """The message at this place, an ephemeral one too."""
        return self._messages.get((channel, ts))

    def file(self, id: str) -> File | None:
        """The file with this id, as far as it stands in a message."""
        return next(
            (file for message in self._messages.values() for file in message.files if file.id == id), None
        )

    def messages(self, channel: str) -> list[Message]:
        """A channel's messages for everyone, oldest first, replies included."""
        found = [m for m in self._messages.values() if m.channel == channel and m.only_for is None]
        return sorted(found, key=lambda message: message.ts)

    def ephemerals(self, user: str) -> list[Message]:
        """What is shown to this person alone, in every channel, oldest first."""
        found = [m for m in self._messages.values() if m.only_for == user]
        return sorted(found, key=lambda message: message.ts)

    def show_view(self, user: str, body: Json, *, instead_of: View | None = None) -> View:
        """Publish a Home tab, push a modal, or put new content into an open view."""
        body = {**deepcopy(body), "blocks": completed(body["blocks"])}
        view_id = instead_of.id if instead_of else self.new_id("V")
        view = View(id=view_id, user=user, body=body, hash=f"{self.new_ts()}.h")
        stack = self.stacks.setdefault(user, [])
        if view.is_home:
            self.homes[user] = view
        elif instead_of is None:
            stack.append(view)
        else:
            stack[:] = [view if shown.id == view_id else shown for shown in stack]
        self.touch()
        return view

    def mark_view(self, view: View, errors: dict[str, str]) -> None:
        """Show errors beside the fields of an open modal."""
        stack = self.stacks.get(view.user, [])
        stack[:] = [replace(shown, errors=errors) if shown.id == view.id else shown for shown in stack]
        self.touch()

    def close_view(self, user: str, *, everything: bool = False) -> None:
        """Close the modal on top, or all of a person's modals."""
        stack = self.stacks.get(user, [])
        del stack[0 if everything else -1 :]
        self.touch()

    def open_view(self, view_id: str) -> View | None:
        """The open modal or published Home tab with this id."""
        shown = [view for stack in self.stacks.values() for view in stack]
        return next((view for view in [*shown, *self.homes.values()] if view.id == view_id), None)
