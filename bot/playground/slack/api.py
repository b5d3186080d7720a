"""Slack's Web API for one fake workspace: who may call what, and what each method answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from aiohttp import web

from bot.playground.slack.blocks import Json, problems, view_problems
from bot.playground.slack.errors import SlackError
from bot.playground.slack.faults import Call, Faults
from bot.playground.slack.grants import Grants
from bot.playground.slack.payloads import BOT_ID, Payloads
from bot.playground.slack.state import Channel, Message, User, View, Workspace
from bot.playground.slack.uploads import Uploads

READ_CHANNELS = ("channels:read", "groups:read", "im:read", "mpim:read")
READ_HISTORY = ("channels:history", "groups:history", "im:history", "mpim:history")
OPEN_CHANNELS = ("channels:manage", "groups:write", "im:write", "mpim:write")
MAX_POST, MAX_UPDATE, MAX_METADATA = 40_000, 4_000, 16_000


class WebApi:
    """The methods under `/api/`."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        grants: Grants,
        payloads: Payloads,
        uploads: Uploads,
        faults: Faults,
        bot_token: str,
        app_token: str | None,
        scopes: frozenset[str],
        socket_url: Callable[[], str],
    ) -> None:
        self.scopes = scopes
        self.calls: list[Call] = []
        self.messages_tab = True
        self._workspace = workspace
        self._grants = grants
        self._payloads = payloads
        self._faults = faults
        self._bot_token = bot_token
        self._app_token = app_token
        self._socket_url = socket_url
        self._methods: dict[str, tuple[Callable[[Json], Json], tuple[str, ...]]] = {
            "auth.test": (self._auth_test, ()),
            "chat.postMessage": (self._post_message, ("chat:write",)),
            "chat.update": (self._update, ("chat:write",)),
            "chat.postEphemeral": (self._post_ephemeral, ("chat:write",)),
            "chat.delete": (self._delete, ("chat:write",)),
            "chat.getPermalink": (self._permalink, ()),
            "conversations.history": (self._history, READ_HISTORY),
            "conversations.info": (self._channel_info, READ_CHANNELS),
            "conversations.members": (self._channel_members, READ_CHANNELS),
            "conversations.open": (self._open_direct, OPEN_CHANNELS),
            "files.getUploadURLExternal": (uploads.announce, ("files:write",)),
            "files.completeUploadExternal": (uploads.complete, ("files:write",)),
            "users.info": (self._user_info, ("users:read",)),
            "users.lookupByEmail": (self._user_by_email, ("users:read.email",)),
            "usergroups.list": (self._groups, ("usergroups:read",)),
            "usergroups.users.list": (self._group_users, ("usergroups:read",)),
            "views.open": (self._open_view, ()),
            "views.update": (self._update_view, ()),
            "views.publish": (self._publish_view, ()),
            "apps.connections.open": (self._open_connection, ()),
        }

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one call in Slack's way: 200 with `ok`, but for 429 and 500."""
        method = request.match_info["method"]
        args = await arguments(request)
        await self._faults.carry(method)
        trouble = self._faults.answer(method, args)
        if trouble is not None:
            self.calls.append(Call(method=method, args=args, answer=json.loads(trouble.text or "{}")))
            return trouble
        try:
            answer = {"ok": True, **self._answer(method, _token(request, args), args)}
        except SlackError as error:
            answer = error.answer
        shown = {name: value for name, value in args.items() if name != "token"}
        self.calls.append(Call(method=method, args=shown, answer=answer))
        return web.json_response(answer, headers={"x-oauth-scopes": ",".join(sorted(self.scopes))})

    def _answer(self, method: str, token: str, args: Json) -> Json:
        if method not in self._methods:
            raise SlackError("unknown_method", req_method=method)
        answer, needed = self._methods[method]
        if not token:
            raise SlackError("not_authed")
        wanted = self._app_token if method == "apps.connections.open" else self._bot_token
        if token != wanted:
            known = token in {self._app_token, self._bot_token}
            raise SlackError("not_allowed_token_type" if known else "invalid_auth")
        if needed and not self.scopes.intersection(needed):
            raise SlackError("missing_scope", needed=",".join(needed), provided=",".join(sorted(self.scopes)))
        if method in self._faults.errors:
            raise SlackError(self._faults.errors[method])
        return answer(args)

    # --- messages

    def _auth_test(self, _args: Json) -> Json:
        bot = self._workspace.bot
        return {
            "url": "https://demo.slack.com/",
            "team": "Demo",
            "team_id": self._workspace.team,
            "user": bot.name,
            "user_id": bot.id,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def _post_message(self, args: Json) -> Json:
        channel = self._writable(args)
        text, blocks = self._content(args, most=MAX_POST)
        parent = args.get("thread_ts")
        if parent is not None:
            self._thread(channel, parent)
        message = self._workspace.add(
            channel.id,
            self._workspace.bot.id,
            text,
            blocks=blocks or [],
            metadata=_metadata(args),
            thread_ts=parent,
            broadcast=bool(args.get("reply_broadcast")) and parent is not None,
        )
        return {"channel": channel.id, "ts": message.ts, "message": self._payloads.message(message)}

    def _update(self, args: Json) -> Json:
        message = self._own_message(args, "cant_update_message")
        if self._workspace.channels[message.channel].archived:
            raise SlackError("is_inactive")
        text, blocks = self._content(args, most=MAX_UPDATE)
        edited = self._workspace.edit(message, text=text, blocks=blocks, metadata=_metadata(args))
        return {
            "channel": edited.channel,
            "ts": edited.ts,
            "text": edited.text,
            "message": self._payloads.message(edited),
        }

    def _delete(self, args: Json) -> Json:
        message = self._own_message(args, "cant_delete_message")
        self._workspace.delete(message)
        return {"channel": message.channel, "ts": message.ts}

    def _post_ephemeral(self, args: Json) -> Json:
        channel = self._writable(args, direct=False)
        if args.get("user") not in channel.members:
            raise SlackError("user_not_in_channel")
        text, blocks = self._content(args, most=MAX_POST)
        message = self._workspace.add(
            channel.id,
            self._workspace.bot.id,
            text,
            blocks=blocks or [],
            thread_ts=args.get("thread_ts"),
            only_for=args["user"],
        )
        return {"message_ts": message.ts}

    def _permalink(self, args: Json) -> Json:
        channel = self._readable(args)
        message = self._workspace.find(channel.id, str(args.get("message_ts")))
        if message is None or message.only_for is not None:
            raise SlackError("message_not_found")
        link = f"https://demo.slack.com/archives/{channel.id}/p{message.ts.replace('.', '')}"
        if message.thread_ts is not None:
            link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
        return {"channel": channel.id, "permalink": link}

    def _content(self, args: Json, *, most: int) -> tuple[str, list[Json] | None]:
        blocks = args.get("blocks")
        if blocks is not None:
            errors = problems(blocks, "message")
            if errors:
                raise SlackError("invalid_blocks", errors=errors, response_metadata={"messages": errors})
        text = args.get("text")
        if not isinstance(text, str) or not text.strip():
            raise SlackError("no_text")
        if len(text) > most:
            raise SlackError("msg_too_long")
        return text, blocks

    def _own_message(self, args: Json, otherwise: str) -> Message:
        channel = self._readable(args)
        message = self._workspace.find(channel.id, str(args.get("ts")))
        if message is None or message.only_for is not None:
            raise SlackError("message_not_found")
        if message.user != self._workspace.bot.id:
            raise SlackError(otherwise)
        return message

    def _thread(self, channel: Channel, ts: object) -> None:
        parent = self._workspace.find(channel.id, str(ts))
        if parent is None or parent.only_for is not None:
            raise SlackError("thread_not_found")

    # --- channels and people

    def _readable(self, args: Json) -> Channel:
        channel = self._workspace.channels.get(str(args.get("channel")))
        if channel is None or (channel.private and self._workspace.bot.id not in channel.members):
            raise SlackError("channel_not_found")
        return channel

    def _writable(self, args: Json, *, direct: bool = True) -> Channel:
        user = self._workspace.users.get(str(args.get("channel")))
        if user is not None and direct:
            if user.kind in {"deactivated", "bot"}:
                raise SlackError("channel_not_found" if user.kind == "deactivated" else "cannot_dm_bot")
            channel = self._workspace.direct(user.id)
        else:
            channel = self._readable(args)
        if channel.archived:
            raise SlackError("is_archived")
        if channel.direct and not self.messages_tab:
            raise SlackError("messages_tab_disabled")
        if self._workspace.bot.id not in channel.members and "chat:write.public" not in self.scopes:
            raise SlackError("not_in_channel")
        return channel

    def _channel_info(self, args: Json) -> Json:
        return {"channel": self._payloads.channel(self._channel_in_scope(args))}

    def _channel_members(self, args: Json) -> Json:
        members = sorted(self._channel_in_scope(args).members)
        return {"members": members, "response_metadata": {"next_cursor": ""}}

    def _history(self, args: Json) -> Json:
        """The newest messages first, without those in threads, in pages of `limit`."""
        channel = self._channel_in_scope(args, "history")
        if self._workspace.bot.id not in channel.members:
            raise SlackError("not_in_channel")
        oldest, limit = float(args.get("oldest") or 0), min(int(args.get("limit") or 100), 999)
        found = [
            message
            for message in reversed(self._workspace.messages(channel.id))
            if message.thread_ts in (None, message.ts) and float(message.ts) > oldest
        ]
        begin = int(args.get("cursor") or 0)
        rest = len(found) > begin + limit
        with_metadata = bool(args.get("include_all_metadata"))
        shown = [self._payloads.message(message) for message in found[begin : begin + limit]]
        for message in shown:
            if not with_metadata:
                message.pop("metadata", None)
        return {
            "messages": shown,
            "has_more": rest,
            "response_metadata": {"next_cursor": str(begin + limit) if rest else ""},
        }

    def _channel_in_scope(self, args: Json, right: str = "read") -> Channel:
        channel = self._readable(args)
        kind = "im" if channel.direct else "groups" if channel.private else "channels"
        needed = f"{kind}:{right}"
        if needed not in self.scopes:
            raise SlackError("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))
        return channel

    def _open_direct(self, args: Json) -> Json:
        user = self._user(args.get("users"))
        if user.kind == "deactivated":
            raise SlackError("user_disabled")
        return {"channel": {"id": self._workspace.direct(user.id).id}}

    def _user(self, user_id: object) -> User:
        user = self._workspace.users.get(str(user_id))
        if user is None:
            raise SlackError("user_not_found")
        return user

    def _user_info(self, args: Json) -> Json:
        with_email = "users:read.email" in self.scopes
        return {"user": self._payloads.user(self._user(args.get("user")), with_email=with_email)}

    def _user_by_email(self, args: Json) -> Json:
        """The workspace's own person with this address; who has left is not found."""
        email = args.get("email")
        if not email:
            told = ["[ERROR] missing required field: email"]
            raise SlackError("invalid_arguments", response_metadata={"messages": told})
        for user in self._workspace.users.values():
            if user.email == email and user.kind not in {"bot", "deactivated", "stranger"}:
                return {"user": self._payloads.user(user, with_email=True)}
        raise SlackError("users_not_found")

    def _group_users(self, args: Json) -> Json:
        group = self._workspace.groups.get(str(args.get("usergroup")))
        is_hidden = group is not None and group.disabled and not args.get("include_disabled")
        if group is None or (is_hidden and not group.lists_nobody):
            raise SlackError("no_such_subteam")
        return {"users": [] if is_hidden else list(group.users)}

    def _groups(self, args: Json) -> Json:
        """Every user group; those that are disabled where they are asked for."""
        shown = [
            group
            for group in self._workspace.groups.values()
            if args.get("include_disabled") or not group.disabled
        ]
        return {"usergroups": [self._payloads.group(group) for group in shown]}

    # --- views and connections

    def _open_view(self, args: Json) -> Json:
        body = _view(args, home=False)
        trigger = str(args.get("trigger_id"))
        user, error = self._grants.use_trigger(trigger)
        if user is None:
            raise SlackError(error)
        return {"view": self._payloads.view(self._workspace.show_view(user, body))}

    def _update_view(self, args: Json) -> Json:
        old = self._workspace.open_view(str(args.get("view_id")))
        if old is None and args.get("external_id"):
            old = self._by_external_id(str(args["external_id"]))
        if old is None:
            raise SlackError("not_found")
        body = _view(args, home=old.is_home)
        _check_hash(args, old)
        shown = self._workspace.show_view(old.user, body, instead_of=old)
        return {"view": self._payloads.view(shown)}

    def _by_external_id(self, external_id: str) -> View | None:
        shown = [view for stack in self._workspace.stacks.values() for view in stack]
        return next((view for view in shown if view.body.get("external_id") == external_id), None)

    def _publish_view(self, args: Json) -> Json:
        user = self._user(args.get("user_id"))
        old = self._workspace.homes.get(user.id)
        body = _view(args, home=True)
        if old is not None:
            _check_hash(args, old)
        return {"view": self._payloads.view(self._workspace.show_view(user.id, body, instead_of=old))}

    def _open_connection(self, _args: Json) -> Json:
        return {"url": self._socket_url()}


def _view(args: Json, *, home: bool) -> Json:
    view = args.get("view")
    errors = view_problems(view, home=home)
    if errors or not isinstance(view, dict):
        raise SlackError("invalid_arguments", response_metadata={"messages": errors})
    return view


def _check_hash(args: Json, view: View) -> None:
    if args.get("hash") not in {None, view.hash}:
        raise SlackError("hash_conflict")


def _metadata(args: Json) -> Json | None:
    metadata = args.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("event_payload"), dict):
        raise SlackError("invalid_metadata_format")
    if not isinstance(metadata.get("event_type"), str) or not metadata["event_type"]:
        raise SlackError("invalid_metadata_format")
    if len(json.dumps(metadata)) > MAX_METADATA:
        raise SlackError("metadata_too_large")
    return metadata


async def arguments(request: web.Request) -> Json:
    """A call's arguments, sent as JSON, as a form or in the query; objects may come as JSON in a string."""
    args: Json = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            _invalid_json()
        args |= body if isinstance(body, dict) else {}
    elif request.method == "POST":
        args |= dict(await request.post())
    for name in ("blocks", "metadata", "view"):
        if isinstance(args.get(name), str):
            args[name] = _decoded(args[name])
    for name in ("reply_broadcast", "include_disabled"):
        if isinstance(args.get(name), str):
            args[name] = args[name].lower() in {"1", "true"}
    return args


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _invalid_json() -> NoReturn:
    raise web.HTTPOk(text='{"ok": false, "error": "invalid_json"}', content_type="application/json")


def _token(request: web.Request, args: Json) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else str(args.get("token", ""))
