"""Hints from Argo CD's event stream: every frame is read, and nothing that goes wrong with it is anybody's trouble."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from argocd_door import TOKEN, Door, answering, hang, saying, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.integrations import argocd_http
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.argocd_stream import Hint, Patience

QUICK = Patience(
    first=timedelta(seconds=2),
    later=timedelta(seconds=2),
    lasts=timedelta(minutes=10),
    pauses=(0.01, 0.02),
    refused=timedelta(seconds=60),
)
PROD, DEV = ("argocd", "manual-app-prod"), ("argocd", "manual-app-dev")
KEEPALIVE = b":\n"
Script = Callable[[web.StreamResponse], Awaitable[Any]]


def frame(kind: str, hint: Hint = PROD, version: str = "1", padding: str = "") -> bytes:
    """One event, byte by byte as Argo CD sends it."""
    metadata = {"name": hint[1], "namespace": hint[0], "resourceVersion": version}
    event = {"type": kind, "application": {"metadata": metadata, "status": {"é": padding}}}
    return b"data: " + json.dumps({"result": event}, ensure_ascii=False).encode() + b" \n\n\n"


class Streams:
    """Streams one after another; after the last script they stay open and silent."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.scripts: list[Script] = []
        self.opened = 0
        door.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/api/v1/stream/applications"
        assert request.headers["Accept"] == "text/event-stream"
        assert request.headers["Accept-Encoding"] == "identity"
        self.opened += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if self.opened > len(self.scripts):
            return await hang(request)
        await response.prepare(request)
        await self.scripts[self.opened - 1](response)
        return response


def sending(*frames: bytes, then: Callable[[web.StreamResponse], Awaitable[None]] | None = None) -> Script:
    """These frames, and then the end, or something else."""

    async def script(response: web.StreamResponse) -> None:
        for each in frames:
            await response.write(each)
        if then:
            await then(response)

    return script


async def stays_open(_: web.StreamResponse) -> None:
    await asyncio.Event().wait()


async def resets(response: web.StreamResponse) -> None:
    request = response._req
    assert request
    assert request.transport
    request.transport.abort()


class Listener:
    """Somebody who listens, and what was heard."""

    def __init__(self, argo: ArgoCD, patience: Patience) -> None:
        self.heard: list[Hint] = []
        self.task = asyncio.create_task(self._listen(argo, patience))

    async def _listen(self, argo: ArgoCD, patience: Patience) -> None:
        async for hint in argo.hints("main", ["shop", "default"], patience):
            self.heard.append(hint)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


async def heard(
    door: Door, *scripts: Script, until: Callable[[Streams, list[Hint]], object], patience: Patience = QUICK
) -> list[Hint]:
    """What a listener hears of these streams until something holds."""
    streams = Streams(door)
    streams.scripts = list(scripts)
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    listener = Listener(argo, patience)
    await wait_until(lambda: listener.task.done() or until(streams, listener.heard), "the hints come")
    assert not listener.task.done()
    listener.task.cancel()
    await asyncio.wait([listener.task])
    assert listener.task.cancelled()
    await argo.aclose()
    return listener.heard


def once(_: Streams, hints: list[Hint]) -> bool:
    return bool(hints)


def again(streams: Streams, _: list[Hint]) -> bool:
    """A script ended, and the next stream was asked for."""
    return streams.opened > len(streams.scripts)


async def test_each_change_names_its_application_and_what_was_there_does_not(door: Door) -> None:
    """The stream begins with everything that there is."""
    frames = [frame("ADDED"), frame("ADDED", DEV), KEEPALIVE, frame("MODIFIED", DEV, "2"), frame("DELETED")]
    assert await heard(door, sending(*frames), until=again) == [DEV, PROD]


async def test_the_projects_are_asked_for(door: Door) -> None:
    """Other applications are nobody's business."""
    await heard(door, sending(frame("MODIFIED"), then=stays_open), until=once)
    assert door.asked[0].query.getall("projects") == ["default", "shop"]


async def test_what_changed_between_two_streams_is_named(door: Door) -> None:
    """Nothing is sent again after an interruption, but the new stream begins with every edition there is."""
    first = sending(frame("ADDED", version="1"), frame("ADDED", DEV, "1"))
    second = sending(frame("ADDED", version="2"), frame("ADDED", DEV, "1"))
    assert await heard(door, first, second, until=again) == [PROD]


async def test_one_that_comes_back_after_its_end_is_new(door: Door) -> None:
    """Its edition before does not matter."""
    frames = [frame("ADDED"), frame("DELETED"), frame("ADDED", version="9")]
    assert await heard(door, sending(*frames), until=again) == [PROD]


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_frames_may_be_cut_anywhere(door: Door, data: st.DataObject) -> None:
    """In the middle of a letter, and several at once."""
    whole = frame("ADDED") + KEEPALIVE + frame("MODIFIED", DEV, "2", "ü" * 9) + frame("MODIFIED", PROD, "3")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=6)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert await heard(door, sending(*pieces), until=again) == [DEV, PROD]


async def test_a_frame_of_megabytes_is_read(door: Door) -> None:
    """An application with a long status."""
    large = frame("MODIFIED", padding="x" * 3_000_000)
    assert await heard(door, sending(large), until=again) == [PROD]


async def test_a_line_without_an_end_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fill the memory."""
    monkeypatch.setattr(argocd_http, "LONGEST_LINE", 50_000)
    endless = sending(*[b"x" * 10_000] * 10, then=stays_open)
    fine = sending(frame("MODIFIED"), then=stays_open)
    patience = replace(QUICK, first=timedelta(minutes=1), later=timedelta(minutes=1))
    assert await heard(door, endless, fine, until=once, patience=patience) == [PROD]


ERROR = {"grpc_code": 14, "http_code": 503, "message": "unavailable"}


@pytest.mark.parametrize(
    "trouble",
    [
        sending(frame("ADDED")),
        sending(frame("ADDED"), then=resets),
        sending(frame("ADDED"), b"data: " + json.dumps({"error": ERROR}).encode()),
        sending(json.dumps({"error": ERROR}).encode()),
        sending(frame("ADDED"), b'data: {"error": "unavailable", "code": 14}'),
        sending(b"data: " + b"[" * 200_000 + b"\n"),
        sending(b"data: {not json\n", b"data: [1]\n", b'data: {"result": 3}\n', b'data: {"result": {}}\n'),
    ],
    ids=["end", "reset", "error", "bare error", "error as a word", "too deep", "nonsense"],
)
async def test_after_a_trouble_another_stream_is_opened(door: Door, trouble: Script) -> None:
    """And the listener hears of changes again."""
    fine = sending(frame("MODIFIED", DEV, "2"), then=stays_open)
    assert await heard(door, trouble, fine, until=once) == [DEV]


async def test_an_error_that_is_told_ends_the_stream(door: Door) -> None:
    """What stands after it is not waited for."""
    told = sending(b'data: {"error": "unavailable"}\n', frame("MODIFIED"), then=stays_open)
    assert await heard(door, told, until=again) == []


@pytest.mark.parametrize(
    ("first", "later", "frames"),
    [(0.1, 5, []), (5, 0.1, [frame("ADDED")])],
    ids=["from the beginning", "after an event"],
)
async def test_a_silent_stream_is_replaced(
    door: Door, first: float, later: float, frames: list[bytes]
) -> None:
    """It may be dead; only a server that has sent an event sends signs of life."""
    patience = replace(QUICK, first=timedelta(seconds=first), later=timedelta(seconds=later))
    silent = sending(*frames, then=stays_open)
    fine = sending(frame("MODIFIED", DEV), then=stays_open)
    assert await heard(door, silent, fine, until=once, patience=patience) == [DEV]


async def test_signs_of_life_keep_a_stream_until_its_time_is_up(door: Door) -> None:
    """Then it is opened anew: Argo CD looks at the token when it begins, and never again."""

    async def lives(response: web.StreamResponse) -> None:
        while True:
            await asyncio.sleep(0.05)
            await response.write(KEEPALIVE)

    patience = replace(QUICK, later=timedelta(seconds=1), lasts=timedelta(seconds=0.4))
    alive = sending(frame("ADDED"), then=lives)
    began = asyncio.get_running_loop().time()
    await heard(door, alive, until=again, patience=patience)
    assert asyncio.get_running_loop().time() - began >= 0.4


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_refusal_is_left_alone(door: Door, status: int, is_stream: bool) -> None:
    """Nobody is helped by the same question every second; after a while it is asked again."""
    text = json.dumps({"error": {"http_code": status, "message": "no"}})
    refusing = answering(f"data: {text}", "text/event-stream", status) if is_stream else saying(status, "no")
    door.answer = refusing
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    patience = replace(QUICK, refused=timedelta(seconds=0.5))
    listener = Listener(argo, patience)
    loop = asyncio.get_running_loop()
    await wait_until(lambda: len(door.asked) == 1, "the first question")
    began = loop.time()
    await wait_until(lambda: len(door.asked) == 2, "the second question")
    assert loop.time() - began >= 0.4
    listener.task.cancel()
    await asyncio.wait([listener.task])
    await argo.aclose()


async def test_a_refusal_in_the_middle_is_left_alone_too(door: Door) -> None:
    """The stream tells it as its last event."""
    told = b'data: {"error": {"http_code": 403, "message": "no"}}'
    fine = sending(frame("MODIFIED"), then=stays_open)
    patience = replace(QUICK, refused=timedelta(seconds=0.5))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await heard(door, sending(told), fine, until=once, patience=patience) == [PROD]
    assert loop.time() - began >= 0.5


@pytest.mark.parametrize(
    "answer",
    [answering("<html>", "text/html"), saying(503, "no"), answering("{}")],
    ids=["a login page", "trouble", "no stream"],
)
async def test_what_is_no_stream_is_asked_for_ever_more_seldom(door: Door, answer: Any) -> None:
    """The pauses grow up to the last of them."""
    door.answer = answer
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    listener = Listener(argo, replace(QUICK, pauses=(0.01, 0.3)))
    loop = asyncio.get_running_loop()
    await wait_until(lambda: len(door.asked) == 2, "the second question")
    began = loop.time()
    await wait_until(lambda: len(door.asked) == 3, "the third question")
    assert loop.time() - began >= 0.2
    assert not listener.task.done()
    listener.task.cancel()
    await asyncio.wait([listener.task])
    await argo.aclose()


async def test_a_stream_takes_no_turn_of_a_call(door: Door) -> None:
    """A few calls at once may be under way, however many streams there are."""
    streams = Streams(door)
    streams.scripts = [sending(frame("ADDED"), then=stays_open)] * 5
    argo = ArgoCD(servers={"main": Server(url=door.url, token=TOKEN)})
    listeners = [Listener(argo, QUICK) for _ in range(5)]
    await wait_until(lambda: streams.opened == 5, "five streams are open")
    door.answer = answering('{"Version": "v3.5.1", "loggedIn": true}')
    assert (await argo.identity("main")).version == "v3.5.1"
    for listener in listeners:
        listener.task.cancel()
    await asyncio.wait([listener.task for listener in listeners])
    await argo.aclose()
