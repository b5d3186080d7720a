"""The streams of the API over HTTP: the watch of applications, and a pod's log, framed byte by byte as Argo CD does."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterable

from aiohttp import web

from bot.playground.argocd.manifests import Json
from bot.playground.argocd.refusals import Denied
from bot.playground.argocd.watch import Item, Signal, Streams, Watcher

EVENT_STREAM = "text/event-stream"
_AT_ONCE = struct.pack("ii", 1, 0)


def framed(item: Item, *, is_sse: bool) -> bytes:
    """The bytes of one message, error or sign of life.

    A message is followed by a newline, an error by nothing; as a server-sent event each stands in a `data:` field,
    whose text ends with a space.
    """
    if isinstance(item, Signal):
        return b":\n" if is_sse else b""
    body = item.chunk() if isinstance(item, Denied) else item.json()
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    end = "" if isinstance(item, Denied) else "\n"
    return (f"data: {text} \n\n{end}" if is_sse else f"{text}{end}").encode()


async def serve(request: web.Request, streams: Streams, watcher: Watcher) -> web.StreamResponse:
    """Send a watcher's messages until one of them ends the stream; not even headers are sent before the first one."""
    is_sse = request.headers.get("Accept") == EVENT_STREAM
    response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM if is_sse else "application/json"})
    try:
        while True:
            item = await watcher.waiting.get()
            if not response.prepared:
                if isinstance(item, Denied):
                    response.set_status(item.status)
                response.enable_chunked_encoding()
                await response.prepare(request)
            if item is Signal.RESET:
                _reset(request)
                return response
            if item is Signal.END:
                return response
            await _write(response, framed(item, is_sse=is_sse), streams.piece)
            if isinstance(item, Denied):
                return response
    except ConnectionResetError:  # whoever listened is gone
        return response
    finally:
        streams.close(watcher)


async def serve_lines(request: web.Request, messages: Iterable[Json]) -> web.StreamResponse:
    """Send a stream that is known to its end, one JSON message a line."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for message in messages:
        await response.write(json.dumps({"result": message}).encode() + b"\n")
    return response


async def _write(response: web.StreamResponse, frame: bytes, piece: int | None) -> None:
    for begin in range(0, len(frame), piece or len(frame) or 1):
        await response.write(frame[begin : begin + (piece or len(frame))])
        if piece:
            await asyncio.sleep(0)


def _reset(request: web.Request) -> None:
    """Close the connection so that the other side sees a reset, not an end."""
    if request.transport is not None:
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        request.transport.abort()
