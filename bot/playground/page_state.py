"""What one person sees of the workspace, as JSON for the page."""

from __future__ import annotations

from typing import Any

from bot.playground.slack.fake import FakeSlack
from bot.playground.slack.state import Channel, Message, View

Json = dict[str, Any]


def state(slack: FakeSlack, *, you: str) -> Json:
    """Channels with their threads, private messages, the open modal and the Home tab of one person.

    Somebody unknown gets the first person's view, so that a browser may ask before it knows who there is.
    """
    people = [user for user in slack.workspace.users.values() if user.kind != "bot"]
    if people and you not in {user.id for user in people}:
        you = people[0].id
    channels = [c for c in slack.workspace.channels.values() if you in c.members]
    return {
        "version": str(slack.version),
        "you": you,
        "bot": {"id": slack.bot_user, "name": slack.workspace.bot.real_name},
        "people": [
            {
                "id": user.id,
                "name": user.name,
                "real_name": user.real_name,
                "kind": user.kind,
                "role": user.role,
            }
            for user in people
        ],
        "groups": {group.id: group.handle for group in slack.workspace.groups.values()},
        "channels": [_channel(slack, channel, you) for channel in channels],
        "view": _view(slack.view(you)),
        "home": _view(slack.home(you)),
    }


def _channel(slack: FakeSlack, channel: Channel, you: str) -> Json:
    private = [message for message in slack.ephemerals(you) if message.channel == channel.id]
    own = [message for message in private if message.thread_ts is None]
    shown = sorted([*slack.messages(channel.id), *own], key=lambda message: message.ts)
    return {
        "id": channel.id,
        "name": channel.name,
        "direct": channel.direct,
        "private": channel.private,
        "archived": channel.archived,
        "members": len(channel.members),
        "messages": [
            {**_message(message), "replies": _replies(slack, message, private)} for message in shown
        ],
    }


def _replies(slack: FakeSlack, message: Message, private: list[Message]) -> list[Json]:
    own = [reply for reply in private if reply.thread_ts == message.ts]
    replies = sorted([*slack.thread(message.channel, message.ts), *own], key=lambda reply: reply.ts)
    return [_message(reply) for reply in replies]


def _message(message: Message) -> Json:
    return {
        "ts": message.ts,
        "user": message.user,
        "text": message.text,
        "blocks": list(message.blocks),
        "edited": message.edited,
        "private": message.only_for is not None,
        "files": [
            {"address": f"files/{file.id}", "title": file.title, "alternative": file.alternative}
            for file in message.files
        ],
    }


def _view(view: View | None) -> Json | None:
    if view is None:
        return None
    return {"id": view.id, "hash": view.hash, "errors": view.errors, **view.body}
