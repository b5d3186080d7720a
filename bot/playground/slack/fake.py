"""A fake Slack workspace, as strict as Slack, for the demo and the tests.

It shares no code and no types with the bot, so that one mistake cannot hide another. The bot reaches it
through a base address; people act in it through the methods below; and it tells what they then see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from bot.playground.slack.api import WebApi
from bot.playground.slack.blocks import Json, view_problems
from bot.playground.slack.delivery import Answer, Delivery
from bot.playground.slack.faults import Call, Faults
from bot.playground.slack.forms import filled, find_action
from bot.playground.slack.grants import Grants, ResponseAddress
from bot.playground.slack.payloads import Payloads
from bot.playground.slack.state import SLACKBOT, Channel, Group, Kind, Message, User, View, Workspace
from bot.playground.slack.uploads import LARGEST, Uploads

DEFAULT_SCOPES = frozenset(
    {"commands", "chat:write", "files:write", "users:read", "users:read.email", "usergroups:read"}
)
NOT_RESPONDING = "This app did not respond. Try again later, or ask whoever runs it."
TROUBLE = "We had some trouble connecting. Try again?"


class NotPossibleError(Exception):
    """What a person tried cannot be done in Slack: a button that is not there, a channel they are not in."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of one act of a person.

    Attributes:
        status: the app's HTTP status; 200 for a Socket Mode answer; None when nothing was sent or nothing came.
        body: the app's answer.
        error: Slack's word for a failure, such as `operation_timeout` or `dispatch_failed`.
        shown: what the person is told at once: the app's private answer, or Slack's own complaint.
    """

    status: int | None = None
    body: str = ""
    error: str | None = None
    shown: str | None = None


class FakeSlack:
    """One workspace with one app in it, served on this machine only."""

    def __init__(
        self,
        *,
        signing_secret: str,
        bot_token: str,
        app_token: str | None = None,
        team: str = "T0DEMO00001",
        app_id: str = "A0DEMO00001",
        scopes: frozenset[str] = DEFAULT_SCOPES,
        bot_user: str = "U0DEMOBOT01",
        commands: frozenset[str] = frozenset({"/promote"}),
    ) -> None:
        bot = User(id=bot_user, name="promote-bot", real_name="promote-bot", email="", kind="bot", team=team)
        self.faults = Faults()
        self.workspace = Workspace(team=team, app_id=app_id, bot=bot)
        self.grants = Grants(self.workspace, address=lambda: self._address)
        self.delivery = Delivery(signing_secret=signing_secret, app_id=app_id)
        self._commands = commands
        self._payloads = Payloads(self.workspace, self.grants)
        self._uploads = Uploads(self.workspace, address=lambda: self._address)
        self.api = WebApi(
            workspace=self.workspace,
            grants=self.grants,
            payloads=self._payloads,
            uploads=self._uploads,
            faults=self.faults,
            bot_token=bot_token,
            app_token=app_token,
            scopes=scopes,
            socket_url=self._socket_url,
        )
        self._address = "http://127.0.0.1:0"
        self._runner: web.AppRunner | None = None

    # --- the server

    async def start(self, port: int = 0) -> None:
        """Serve the Web API on 127.0.0.1, on a free port unless one is given."""
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/api/{method}", self.api.handle)
        app.router.add_post("/upload/v1/{secret}", self._uploads.receive)
        app.router.add_post("/{kind:commands|actions}/{team}/{secret}", self._respond)
        app.router.add_get("/link", self.delivery.connect)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.delivery.open()

    async def stop(self) -> None:
        """Stop serving and hang up on the bot."""
        await self.delivery.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        """The Web API's base address, for a client's `base_url`."""
        return f"{self._address}/api/"

    @property
    def events_url(self) -> str | None:
        """Where the bot takes requests, such as `http://127.0.0.1:3000/slack/events`; None for Socket Mode."""
        return self.delivery.events_url

    @events_url.setter
    def events_url(self, url: str | None) -> None:
        self.delivery.events_url = url

    @property
    def is_connected(self) -> bool:
        """Whether there is a way to the bot: an address for HTTP, or an open socket."""
        return self.events_url is not None or self.delivery.connections > 0

    @property
    def bot_user(self) -> str:
        """The bot's user id."""
        return self.workspace.bot.id

    @property
    def version(self) -> int:
        """A number that moves with every change that people can see."""
        return self.workspace.version

    async def changed(self, version: int) -> None:
        """Return as soon as `version` is another one than this."""
        await self.workspace.changed(version)

    def _socket_url(self) -> str:
        return f"{self._address.replace('http', 'ws', 1)}/link?ticket={self.delivery.new_ticket()}"

    async def _respond(self, request: web.Request) -> web.Response:
        if self.faults.down:
            return web.json_response({"ok": False, "error": "internal_error"}, status=500)
        return await self.grants.respond(request)

    # --- the world

    def add_user(
        self, user_id: str, *, name: str, real_name: str, email: str, kind: Kind = "member", role: str = ""
    ) -> User:
        """Add a person or a bot; the user's `kind` may be changed later."""
        team = "T0STRANGER1" if kind == "stranger" else self.workspace.team
        user = User(id=user_id, name=name, real_name=real_name, email=email, kind=kind, team=team, role=role)
        self.workspace.users[user_id] = user
        self.workspace.touch()
        return user

    def add_group(self, group_id: str, *, handle: str, users: Iterable[str]) -> Group:
        """Add a user group; its `users` and `disabled` may be changed later."""
        self.workspace.groups[group_id] = Group(id=group_id, handle=handle, users=list(users))
        return self.workspace.groups[group_id]

    def add_channel(
        self,
        channel_id: str,
        *,
        name: str,
        members: Iterable[str],
        with_bot: bool = True,
        private: bool = False,
    ) -> Channel:
        """Add a channel, with the bot invited unless it shall stay outside; `archived` may be set later."""
        bot = {self.bot_user} if with_bot else set()
        channel = Channel(id=channel_id, name=name, members={*members, *bot}, private=private)
        self.workspace.channels[channel_id] = channel
        self.workspace.touch()
        return channel

    def user(self, user_id: str) -> User:
        """The person with this id."""
        return self.workspace.users[user_id]

    def group(self, group_id: str) -> Group:
        """The user group with this id."""
        return self.workspace.groups[group_id]

    def channel(self, channel_id: str) -> Channel:
        """The channel with this id."""
        return self.workspace.channels[channel_id]

    def direct(self, user: str) -> str:
        """The id of a person's direct messages with the bot."""
        return self.workspace.direct(user).id

    # --- faults and records

    @property
    def requests(self) -> list[Call]:
        """Every call of the Web API, oldest first; clear it to start counting anew."""
        return self.api.calls

    @property
    def limited(self) -> bool:
        """Whether every call is answered with 429."""
        return self.faults.limited

    @limited.setter
    def limited(self, value: bool) -> None:
        self.faults.limited = value

    @property
    def down(self) -> bool:
        """Whether every call is answered with 500."""
        return self.faults.down

    @down.setter
    def down(self, value: bool) -> None:
        self.faults.down = value

    def rate_limit(self, *, calls: int, retry_after: int = 1) -> None:
        """Answer the next calls with 429 and this Retry-After."""
        self.faults.rate_limit(calls=calls, retry_after=retry_after)

    # --- what people do

    async def command(
        self,
        user: str,
        channel: str,
        text: str,
        *,
        command: str = "/promote",
        trigger_id: str | None = None,
        retry: bool = False,
        to: Sequence[str] = (),
    ) -> Reply:
        """Type a slash command; a trigger id that was sent before makes it the same command again.

        `to` are the addresses of replicas of the app; each gets this one command, as often as it stands there.
        """
        person, place = self._person(user), self._place(user, channel)
        if command not in self._commands:
            return self._told(user, channel, f"{command} is not a valid command.", error="invalid_command")
        trigger = self.grants.trigger(user, trigger_id)
        form = self._payloads.command(person, place, command, text, trigger)
        answer = await self.delivery.send("slash_commands", form, retry=retry, to=to)
        if answer.error is not None:
            complaint = f'{command} failed with the error "{answer.error}"'
            return self._told(user, channel, complaint, error=answer.error, answer=answer)
        return self._show_answer(user, channel, command, answer)

    async def click(
        self,
        user: str,
        channel: str,
        ts: str,
        action_id: str,
        *,
        value: str | None = None,
        values: Mapping[str, str | None] | None = None,
        seen: Message | None = None,
        to: Sequence[str] = (),
    ) -> Reply:
        """Press a button in a message, or choose an option by its value.

        Where several elements share the action id, `value` tells which one is meant. `values` is what stands in
        the message's other inputs. `seen` is the message as this person still saw it, for a press that races
        with an edit. `to` are the addresses of replicas of the app; each gets this one click, as often as it stands
        there.
        """
        person = self._person(user)
        message = self.workspace.find(channel, ts) or seen
        if message is None or message.only_for not in {None, user}:
            raise NotPossibleError(f"{person.name} sees no message {ts}")
        self._place(user, channel)
        blocks = list((seen or message).blocks)
        action = find_action(blocks, action_id, value, ts=self.workspace.new_ts())
        if action is None:
            raise NotPossibleError(f"Message {ts} has no {action_id}")
        state, _ = filled(blocks, values or {})
        payload = self._payloads.message_action(person, seen or message, action, state)
        return self._pressed(await self.delivery.send("interactive", payload, to=to))

    async def click_in_view(
        self,
        user: str,
        view_id: str,
        action_id: str,
        *,
        value: str | None = None,
        values: Mapping[str, str | None] | None = None,
    ) -> Reply:
        """Press a button in an open modal or in the Home tab."""
        person, view = self._person(user), self._view(user, view_id)
        action = find_action(view.blocks, action_id, value, ts=self.workspace.new_ts())
        if action is None:
            raise NotPossibleError(f"View {view_id} has no {action_id}")
        state, _ = filled(view.blocks, values or {})
        payload = self._payloads.view_action(person, view, action, state)
        return self._pressed(await self.delivery.send("interactive", payload))

    async def submit(self, user: str, view_id: str, values: Mapping[str, str | None]) -> Reply:
        """Send a modal's form; values are given by the input's block_id or its element's action_id."""
        person, view = self._person(user), self._view(user, view_id)
        state, complaints = filled(view.blocks, values)
        if complaints:  # the client keeps such a form to itself
            self.workspace.mark_view(view, complaints)
            return Reply(error="incomplete", shown=next(iter(complaints.values())))
        payload = self._payloads.interaction(
            "view_submission",
            person,
            trigger_id=self.grants.trigger(user),
            view=self._payloads.view(view, state),
            response_urls=[],
        )
        answer = await self.delivery.send("interactive", payload)
        error = answer.error or self._follow(view, answer)
        shown = TROUBLE if error else None
        return Reply(status=answer.status, body=answer.body, error=error, shown=shown)

    async def close_view(self, user: str, view_id: str) -> Reply:
        """Close the modal on top; the app hears of it only where it asked to."""
        person, view = self._person(user), self._view(user, view_id)
        self.workspace.close_view(user)
        if not view.body.get("notify_on_close"):
            return Reply()
        shown = self._payloads.view(view)
        payload = self._payloads.interaction("view_closed", person, view=shown, is_cleared=False)
        answer = await self.delivery.send("interactive", payload)
        return Reply(status=answer.status, body=answer.body, error=answer.error)

    async def open_home(self, user: str) -> Reply:
        """Open the App Home; an event that fails is sent once more, as Slack does."""
        event = self._payloads.home_opened(self._person(user))
        answer = await self.delivery.send("events_api", event)
        if answer.error is not None:
            answer = await self.delivery.send("events_api", event, retry=True)
        return Reply(status=answer.status, body=answer.body, error=answer.error)

    def say(self, user: str, channel: str, text: str, *, thread_ts: str | None = None) -> Message:
        """Write an ordinary message, which the bot does not hear."""
        self._person(user)
        return self.workspace.add(self._place(user, channel).id, user, text, thread_ts=thread_ts)

    # --- what people see

    def messages(self, channel: str) -> list[Message]:
        """A channel's own messages, newest last; replies only where they were sent to the channel too."""
        everything = self.workspace.messages(channel)
        return [m for m in everything if m.thread_ts in {None, m.ts} or m.broadcast]

    def thread(self, channel: str, ts: str) -> list[Message]:
        """The replies to one message, newest last."""
        return [m for m in self.workspace.messages(channel) if m.thread_ts == ts]

    def ephemerals(self, user: str) -> list[Message]:
        """What only this person sees, in any channel, newest last."""
        return self.workspace.ephemerals(user)

    def view(self, user: str) -> View | None:
        """The modal that this person has open, with its errors."""
        stack = self.workspace.stacks.get(user)
        return stack[-1] if stack else None

    def home(self, user: str) -> View | None:
        """This person's Home tab, once the bot has published it."""
        return self.workspace.homes.get(user)

    # --- inside

    def _person(self, user: str) -> User:
        person = self.workspace.users.get(user)
        if person is None or person.kind in {"deactivated", "bot"}:
            raise NotPossibleError(f"{user} cannot act in this workspace")
        return person

    def _place(self, user: str, channel: str) -> Channel:
        place = self.workspace.channels.get(channel)
        if place is None or user not in place.members or place.archived:
            raise NotPossibleError(f"{user} cannot act in {channel}")
        return place

    def _view(self, user: str, view_id: str) -> View:
        for view in (self.view(user), self.home(user)):
            if view is not None and view.id == view_id:
                return view
        raise NotPossibleError(f"{user} has no view {view_id} open")

    def _told(self, user: str, channel: str, text: str, *, error: str, answer: Answer | None = None) -> Reply:
        self.workspace.add(channel, SLACKBOT, text, only_for=user)
        status, body = (answer.status, answer.body) if answer else (None, "")
        return Reply(status=status, body=body, error=error, shown=text)

    def _show_answer(self, user: str, channel: str, command: str, answer: Answer) -> Reply:
        content = answer.content or ({"text": answer.body} if answer.body.strip() else None)
        if content is None:
            return Reply(status=answer.status, body=answer.body)
        here = ResponseAddress(channel=channel, user=user, original=None, thread_ts=None, expires=0)
        if self.grants.show(here, content) is not None:
            complaint = f'{command} failed with the error "invalid_command_response"'
            return self._told(user, channel, complaint, error="invalid_command_response", answer=answer)
        return Reply(status=answer.status, body=answer.body, shown=content.get("text"))

    def _pressed(self, answer: Answer) -> Reply:
        shown = NOT_RESPONDING if answer.error else None
        return Reply(status=answer.status, body=answer.body, error=answer.error, shown=shown)

    def _follow(self, view: View, answer: Answer) -> str | None:
        """Do to a modal what the app's answer says; the error if Slack would not."""
        content: Json = answer.content or {}
        action, body = content.get("response_action"), content.get("view")
        if action is None and not answer.body.strip():
            self.workspace.close_view(view.user)
        elif action == "clear":
            self.workspace.close_view(view.user, everything=True)
        elif action == "errors":
            errors = content.get("errors")
            inputs = {block["block_id"] for block in view.blocks if block["type"] == "input"}
            if not isinstance(errors, dict) or not errors or not inputs.issuperset(errors):
                return "invalid_errors"
            self.workspace.mark_view(view, {str(name): str(text) for name, text in errors.items()})
        elif action in {"update", "push"} and isinstance(body, dict) and not view_problems(body, home=False):
            self.workspace.show_view(view.user, body, instead_of=view if action == "update" else None)
        else:
            return "invalid_response_action"
        return None
