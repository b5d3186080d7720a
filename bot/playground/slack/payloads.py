"""What a workspace tells the app: people, channels, messages, views and interactions in Slack's form."""

from __future__ import annotations

import time

from bot.playground.slack.blocks import Json
from bot.playground.slack.grants import Grants
from bot.playground.slack.state import Channel, Group, Message, User, View, Workspace

BOT_ID = "B0DEMOBOT01"


class Payloads:
    """Builds what Slack sends, from the workspace as it is now."""

    def __init__(self, workspace: Workspace, grants: Grants) -> None:
        self._workspace = workspace
        self._grants = grants

    def team(self, user: User) -> Json:
        """The acting person's team, which is another one for people from outside."""
        own = user.team == self._workspace.team
        return {"id": user.team, "domain": "demo" if own else "elsewhere"}

    def user(self, user: User, *, with_email: bool) -> Json:
        """A person as `users.info` tells it."""
        profile: Json = {"real_name": user.real_name, "display_name": user.name, "team": user.team}
        if with_email and user.kind not in {"stranger", "bot"}:
            profile["email"] = user.email
        told: Json = {
            "id": user.id,
            "team_id": user.team,
            "name": user.name,
            "deleted": user.kind == "deactivated",
            "is_bot": user.kind == "bot",
            "updated": 1_700_000_000,
            "profile": profile,
        }
        if user.kind == "deactivated":  # Slack tells next to nothing about people who left
            return told
        told |= {
            "real_name": user.real_name,
            "is_restricted": user.kind in {"guest", "single_channel_guest"},
            "is_ultra_restricted": user.kind == "single_channel_guest",
            "is_admin": False,
            "is_owner": False,
            "is_app_user": False,
            "tz": "Europe/Berlin",
            "tz_offset": 3600,
        }
        return {**told, "is_stranger": True} if user.kind == "stranger" else told

    def group(self, group: Group) -> Json:
        """A user group as `usergroups.list` tells it; `date_delete` is when it was disabled, else 0."""
        return {
            "id": group.id,
            "team_id": self._workspace.team,
            "is_usergroup": True,
            "name": group.handle,
            "handle": group.handle,
            "is_external": False,
            "date_create": 1_700_000_000,
            "date_update": 1_700_000_000,
            "date_delete": 1_700_000_000 if group.disabled else 0,
            "user_count": str(len(group.users)),
        }

    def channel(self, channel: Channel) -> Json:
        """A channel as `conversations.info` tells it."""
        return {
            "id": channel.id,
            "name": channel.name,
            "is_channel": not channel.private and not channel.direct,
            "is_im": channel.direct,
            "is_private": channel.private,
            "is_archived": channel.archived,
            "is_member": self._workspace.bot.id in channel.members,
            "is_shared": channel.shared,
            "is_ext_shared": channel.shared,
            "num_members": len(channel.members),
        }

    def message(self, message: Message) -> Json:
        """A message as the Web API and payloads carry it."""
        told: Json = {
            "type": "message",
            "user": message.user,
            "ts": message.ts,
            "text": message.text,
            "team": self._workspace.team,
            "blocks": list(message.blocks),
        }
        if message.user == self._workspace.bot.id:
            told |= {"bot_id": BOT_ID, "app_id": self._workspace.app_id}
        if message.files:
            told["files"] = [
                {"id": file.id, "name": file.name, "title": file.title, "alt_txt": file.alternative}
                for file in message.files
            ]
        if message.metadata is not None:
            told["metadata"] = message.metadata
        if message.thread_ts is not None:
            told["thread_ts"] = message.thread_ts
        if message.edited:
            told["edited"] = {"user": message.user, "ts": message.ts}
        return told

    def view(self, view: View, values: Json | None = None) -> Json:
        """A view as the Web API and payloads carry it."""
        optional = ("title", "submit", "close")
        return {
            "id": view.id,
            "team_id": self._workspace.team,
            "type": view.body["type"],
            "blocks": view.blocks,
            "private_metadata": view.body.get("private_metadata", ""),
            "callback_id": view.body.get("callback_id", ""),
            "external_id": view.body.get("external_id", ""),
            "state": {"values": values or {}},
            "hash": view.hash,
            "clear_on_close": view.body.get("clear_on_close", False),
            "notify_on_close": view.body.get("notify_on_close", False),
            "root_view_id": view.id,
            "previous_view_id": None,
            "app_id": self._workspace.app_id,
            "app_installed_team_id": self._workspace.team,
            "bot_id": BOT_ID,
            **{name: view.body.get(name) for name in optional},
        }

    def command(self, user: User, channel: Channel, command: str, text: str, trigger: str) -> dict[str, str]:
        """The form of a slash command."""
        team = self.team(user)
        return {
            "token": "legacy",
            "team_id": team["id"],
            "team_domain": team["domain"],
            "channel_id": channel.id,
            "channel_name": channel.name,
            "user_id": user.id,
            "user_name": user.name,
            "command": command,
            "text": text,
            "api_app_id": self._workspace.app_id,
            "is_enterprise_install": "false",
            "response_url": self._grants.response_url("commands", channel=channel.id, user=user.id),
            "trigger_id": trigger,
        }

    def interaction(self, kind: str, user: User, **more: object) -> Json:
        """What every interaction's payload has in common."""
        team = self.team(user)
        person = {"id": user.id, "username": user.name, "name": user.name, "team_id": user.team}
        return {
            "type": kind,
            "user": person,
            "api_app_id": self._workspace.app_id,
            "token": "legacy",
            "team": team,
            "enterprise": None,
            "is_enterprise_install": False,
            **more,
        }

    def message_action(self, user: User, message: Message, action: Json, values: Json) -> Json:
        """The payload of a click in a message."""
        channel = self._workspace.channels[message.channel]
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": channel.id,
            "is_ephemeral": message.only_for is not None,
        }
        if message.thread_ts is not None:
            container["thread_ts"] = message.thread_ts
        payload = self.interaction(
            "block_actions",
            user,
            container=container,
            trigger_id=self._grants.trigger(user.id),
            channel={"id": channel.id, "name": channel.name},
            state={"values": values},
            response_url=self._grants.response_url(
                "actions", channel=channel.id, user=user.id, original=message
            ),
            actions=[action],
        )
        if message.only_for is None:  # Slack does not send ephemeral messages back
            payload["message"] = self.message(message)
        return payload

    def view_action(self, user: User, view: View, action: Json, values: Json) -> Json:
        """The payload of a click in a Home tab or a modal."""
        return self.interaction(
            "block_actions",
            user,
            container={"type": "view", "view_id": view.id},
            trigger_id=self._grants.trigger(user.id),
            view=self.view(view, values),
            actions=[action],
        )

    def home_opened(self, user: User) -> Json:
        """The event that a person opened the App Home."""
        event: Json = {
            "type": "app_home_opened",
            "user": user.id,
            "channel": self._workspace.direct(user.id).id,
            "tab": "home",
            "event_ts": self._workspace.new_ts(),
        }
        home = self._workspace.homes.get(user.id)
        if home is not None:
            event["view"] = self.view(home)
        return {
            "token": "legacy",
            "team_id": self._workspace.team,
            "api_app_id": self._workspace.app_id,
            "event": event,
            "type": "event_callback",
            "event_id": self._workspace.new_id("Ev"),
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": self._workspace.team,
                    "user_id": self._workspace.bot.id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
        }
