"""Files on their way into a workspace: an address to send the bytes to, the bytes, and a channel to show them in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from bot.playground.slack.blocks import Json
from bot.playground.slack.errors import SlackError
from bot.playground.slack.grants import new_secret
from bot.playground.slack.state import File, Workspace

LONGEST_ALTERNATIVE = 1000
LARGEST = 8 * 1024 * 1024
"""A workspace may restrict the size of files; this one does."""
CHANNEL = re.compile(r"[CGDZ][A-Z0-9]{8,}")


@dataclass(kw_only=True)
class Upload:
    """A file that was announced, and its bytes once they came."""

    id: str
    name: str
    length: int
    alternative: str
    content: bytes | None = None


class Uploads:
    """Announce, send, complete: each of the three once for a file."""

    def __init__(self, workspace: Workspace, *, address: Callable[[], str]) -> None:
        self._workspace = workspace
        self._address = address
        self._expected: dict[str, Upload] = {}
        self._announced: dict[str, Upload] = {}

    def announce(self, args: Json) -> Json:
        """`files.getUploadURLExternal`: an address that takes exactly these bytes, once."""
        name, length = str(args.get("filename") or ""), str(args.get("length") or "0")
        if not name or length == "0":
            raise SlackError("missing_argument")
        if not length.isdecimal():
            told = ["[ERROR] must be an integer [json-pointer:/length]"]
            raise SlackError("invalid_arguments", response_metadata={"messages": told})
        alternative = str(args.get("alt_txt") or "")
        if len(alternative) > LONGEST_ALTERNATIVE:
            raise SlackError("alt_txt_too_large")
        if int(length) > LARGEST:
            raise SlackError("file_upload_size_restricted")
        upload = Upload(
            id=self._workspace.new_id("F"), name=name, length=int(length), alternative=alternative
        )
        secret = new_secret()
        self._expected[secret] = self._announced[upload.id] = upload
        return {"file_id": upload.id, "upload_url": f"{self._address()}/upload/v1/{secret}"}

    async def receive(self, request: web.Request) -> web.Response:
        """The bytes, raw; an address that was used is none any more."""
        upload = self._expected.pop(request.match_info["secret"], None)
        if upload is None:
            return web.Response(status=404, text="not found")
        content = await request.read()
        if len(content) != upload.length:
            return web.Response(status=400, text="the length is another one")
        upload.content = content
        return web.Response(text=f"OK - {upload.length}")

    def complete(self, args: Json) -> Json:
        """`files.completeUploadExternal`: show files in a channel that the app is in, as one message."""
        asked = _asked(args.get("files"))
        uploads = [self._announced.get(str(each.get("id"))) for each in asked]
        if any(upload is None or upload.content is None for upload in uploads):
            raise SlackError("file_not_found")
        channel = self._channel(args)
        files = []
        for each, upload in zip(asked, filter(None, uploads), strict=True):
            del self._announced[upload.id]
            files.append(
                File(
                    id=upload.id,
                    name=upload.name,
                    title=str(each.get("title") or upload.name),
                    alternative=upload.alternative,
                    content=upload.content or b"",
                )
            )
        if channel is not None:
            bot, text = self._workspace.bot.id, str(args.get("initial_comment") or "")
            self._workspace.add(channel, bot, text, thread_ts=args.get("thread_ts"), files=files)
        return {"files": [{"id": file.id, "title": file.title} for file in files]}

    def _channel(self, args: Json) -> str | None:
        """Where to show them; None: nowhere. A right to post everywhere is none to upload everywhere."""
        id = args.get("channel_id")
        if id is None:
            return None
        if not CHANNEL.fullmatch(str(id)):
            told = [f"[ERROR] input must match regex pattern: ^{CHANNEL.pattern}$ [json-pointer:/channel_id]"]
            raise SlackError("invalid_arguments", response_metadata={"messages": told})
        channel, bot = self._workspace.channels.get(str(id)), self._workspace.bot.id
        if channel is None or (channel.private and bot not in channel.members):
            raise SlackError("channel_not_found")
        if channel.archived:
            raise SlackError("is_archived")
        if bot not in channel.members:
            raise SlackError("not_in_channel")
        return channel.id


def _asked(files: object) -> list[Json]:
    """Each file with its id; they come as JSON in a string."""
    try:
        found = json.loads(files) if isinstance(files, str) else files
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise SlackError("invalid_arguments", response_metadata={"messages": ["[ERROR] invalid files"]})
    if len({str(each.get("id")) for each in found}) != len(found):
        raise SlackError("invalid_arguments", response_metadata={"messages": ["[ERROR] repeated files"]})
    return found
