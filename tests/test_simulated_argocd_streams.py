"""The simulated Argo CD's watch of applications: its bytes, its silence, and what can go wrong with it."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench, fitting, wait_until

from bot.playground.argocd.refusals import UNAUTHENTICATED, UNKNOWN, Denied

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


class Listener:
    """An open stream with every byte and every chunk that has come so far."""

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.chunks: list[bytes] = []
        self.error: Exception | None = None
        self.has_ended = False

    @property
    def text(self) -> str:
        """What has come."""
        return b"".join(self.chunks).decode()

    @property
    def events(self) -> list[tuple[str, str]]:
        """Kind and resourceVersion of each message, each checked against its schema."""
        lines = [line.removeprefix("data: ") for line in self.text.splitlines() if line and line != ":"]
        results = [json.loads(line)["result"] for line in lines]
        for result in results:
            fitting(result, "v1alpha1ApplicationWatchEvent")
        return [(result["type"], result["application"]["metadata"]["resourceVersion"]) for result in results]

    async def listen(self, bench: Bench, headers: dict[str, str], query: dict[str, str]) -> None:
        """Read until the stream ends."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "identity"} | headers
        path = f"{bench.argo.url}/api/v1/stream/applications"
        try:
            async with bench.client.stream("GET", path, params=query, headers=headers) as response:
                self.response = response
                async for chunk in response.aiter_raw():
                    self.chunks.append(chunk)
        except httpx.HTTPError as error:
            self.error = error
        self.has_ended = True


@contextlib.asynccontextmanager
async def listening(
    bench: Bench, *, headers: dict[str, str] | None = None, **query: str
) -> AsyncIterator[Listener]:
    """A stream that the server has accepted."""
    listener, before = Listener(), bench.argo.streams.open_count
    task = asyncio.create_task(listener.listen(bench, headers or {}, query))
    await wait_until(lambda: bench.argo.streams.open_count > before or listener.has_ended, "it is open")
    try:
        yield listener
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def compact(value: Any) -> str:
    """JSON as Go writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def test_messages_are_lines_of_json(bench: Bench) -> None:
    """Byte by byte: the message and one newline, chunked, as application/json."""
    async with listening(bench, name=PROD) as stream:
        shown = await bench.application()
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        assert stream.text == compact({"result": {"type": "ADDED", "application": shown}}) + "\n"
        assert stream.response is not None
        assert stream.response.headers["Content-Type"] == "application/json"
        assert stream.response.headers["Transfer-Encoding"] == "chunked"
        bench.passes(60)
        await bench.refresh()
        assert ":" not in stream.text.splitlines()


async def test_server_sent_events_end_with_a_space_and_three_newlines(bench: Bench) -> None:
    """Byte by byte: `data: `, the message, a space, an empty line, and one newline more; then signs of life."""
    async with listening(bench, headers=SSE, name=PROD) as stream:
        shown = await bench.application()
        event = "data: " + compact({"result": {"type": "ADDED", "application": shown}}) + " \n\n\n"
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        assert stream.text == event
        assert stream.response is not None
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        bench.passes(14.9)
        await bench.application()
        assert stream.text == event
        bench.passes(0.2)
        await wait_until(lambda: stream.text == event + ":\n", "the first sign of life")
        bench.passes(15)
        await wait_until(lambda: stream.text == event + ":\n:\n", "the second sign of life")
        await bench.refresh()
        bench.passes(29.7)
        await wait_until(lambda: stream.text.splitlines().count(":") >= 4, "two signs of life more")
        await bench.application()
        assert stream.text.splitlines().count(":") == 4


async def test_nothing_is_sent_before_the_first_event(bench: Bench) -> None:
    """For nobody's application there are not even headers, and no signs of life; the first event brings both."""
    async with listening(bench, headers=SSE, selector="env=later") as stream:
        bench.passes(60)
        await bench.application()
        assert stream.response is None
        bench.argo.add(
            replace(APPLICATIONS[2], name="late", destination_namespace="late", labels={"env": "later"})
        )
        await wait_until(lambda: stream.response is not None, "the headers")
        await wait_until(lambda: stream.events and stream.events[0][0] == "ADDED", "the first event")
        bench.passes(15)
        await wait_until(lambda: ":\n" in stream.text, "a sign of life")


async def test_every_write_is_told(bench: Bench) -> None:
    """From the refresh to the end of the operation, in the order of the versions, the last one as a GET shows it."""
    async with listening(bench, name=PROD) as stream:
        bench.promote("15")
        await bench.refresh()
        bench.passes(15)
        newest = (await bench.application())["metadata"]["resourceVersion"]
        await wait_until(lambda: stream.events and stream.events[-1][1] == newest, "the newest version")
        kinds, versions = zip(*stream.events, strict=True)
        assert kinds[0] == "ADDED"
        assert set(kinds[1:]) == {"MODIFIED"}
        assert list(versions) == sorted(set(versions))
        phases = [
            json.loads(line)["result"]["application"]["status"].get("operationState", {}).get("phase")
            for line in stream.text.splitlines()
        ]
        told = [phase for phase, _ in itertools.groupby(phases)]
        assert told == ["Succeeded", None, "Running", "Succeeded"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, {"manual-app-dev", "manual-app-stage", PROD}),
        ({"selector": "env in (dev,prod)"}, {"manual-app-dev", PROD}),
        ({"name": PROD, "resourceVersion": "99999999"}, set()),
        ({"resourceVersion": "1"}, set()),
        ({"name": PROD, "resourceVersion": "nonsense"}, {PROD}),
        ({"projects": "other"}, set()),
    ],
)
async def test_the_initial_events(bench: Bench, query: dict[str, str], names: set[str]) -> None:
    """With a name, or without a resourceVersion; an older version than the one asked for is dropped."""
    async with listening(bench, **query) as stream:
        await bench.application()
        await wait_until(lambda: len(stream.text.splitlines()) >= len(names), "the events")
        found = {
            json.loads(line)["result"]["application"]["metadata"]["name"] for line in stream.text.splitlines()
        }
        assert found == names


async def test_what_is_forbidden_is_silence(bench: Bench) -> None:
    """No status line for an application that may not be read; for no session there is one."""
    bench.argo.forbidden = {PROD}
    async with listening(bench, name=PROD) as stream:
        await bench.refresh("manual-app-dev")
        assert stream.response is None
    async with listening(bench, headers={"Authorization": ""}, name=PROD) as stream:
        await wait_until(lambda: stream.has_ended, "the refusal")
        assert stream.response is not None
        assert stream.response.status_code == 401


async def test_a_token_that_expires_meanwhile_is_not_noticed(bench: Bench) -> None:
    """Who is allowed in is asked only when a stream is opened."""
    async with listening(bench, name=PROD) as stream:
        bench.argo.token_expired = True
        bench.argo.refresh(PROD, "normal")
        bench.passes(1)
        await wait_until(lambda: len(stream.events) > 1, "an event after the expiry")


@pytest.mark.parametrize(("headers", "begin", "end"), [({}, "", ""), (SSE, "data: ", " \n\n")])
async def test_an_error_can_end_a_stream(bench: Bench, headers: dict[str, str], begin: str, end: str) -> None:
    """Inside a 200, as the last chunk, without the newline that messages have."""
    async with listening(bench, headers=headers, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        first = stream.text
        bench.argo.streams.fail(Denied(UNKNOWN, "error getting cached app"))
        await wait_until(lambda: stream.has_ended, "the end")
        error = {
            "grpc_code": 2,
            "http_code": 500,
            "message": "error getting cached app",
            "http_status": "Internal Server Error",
        }
        fitting(error, "runtimeStreamError")
        assert stream.text.removeprefix(first) == begin + compact({"error": error}) + end
        assert stream.error is None
        assert stream.response is not None
        assert stream.response.status_code == 200


async def test_an_error_can_come_first(bench: Bench) -> None:
    """Then it is the HTTP status as well."""
    bench.argo.streams.refuses = Denied(UNAUTHENTICATED, "invalid session: token is expired")
    async with listening(bench, name=PROD) as stream:
        await wait_until(lambda: stream.has_ended, "the end")
        assert stream.response is not None
        assert stream.response.status_code == 401
        assert json.loads(stream.text)["error"]["http_status"] == "Unauthorized"


async def test_a_stream_can_end_cleanly(bench: Bench) -> None:
    """As a restarting server ends it: no error, nothing half."""
    async with listening(bench, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        bench.argo.streams.end()
        await wait_until(lambda: stream.has_ended, "the end")
        assert (stream.error, stream.text[-1]) == (None, "\n")


async def test_a_stream_can_be_torn(bench: Bench) -> None:
    """The connection is reset: the client gets an error, not an end."""
    async with listening(bench, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        bench.argo.streams.reset()
        await wait_until(lambda: stream.has_ended, "the end")
        assert isinstance(stream.error, httpx.TransportError)


async def test_a_stream_can_fall_silent(bench: Bench) -> None:
    """Open, and without a byte: no event and no sign of life; later events are told again."""
    async with listening(bench, headers=SSE, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        before = stream.text
        bench.argo.streams.is_silent = True
        await bench.refresh()
        bench.passes(60)
        await bench.application()
        assert (stream.text, stream.has_ended) == (before, False)
        bench.argo.streams.is_silent = False
        bench.passes(15)
        await wait_until(lambda: stream.text == before + ":\n", "a sign of life")


async def test_events_can_be_lost(bench: Bench) -> None:
    """What is modified is not told, as when the server's buffer is full; signs of life go on."""
    async with listening(bench, headers=SSE, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
        bench.argo.streams.drops = True
        bench.promote("15")
        await bench.refresh()
        bench.passes(20)
        await wait_until(lambda: stream.text.endswith(":\n"), "a sign of life")
        assert [kind for kind, _ in stream.events] == ["ADDED"]


async def test_events_can_come_twice_and_late(bench: Bench) -> None:
    """Each event twice; and one from before comes again after newer ones."""
    bench.argo.streams.repeats = True
    async with listening(bench, name=PROD) as stream:
        await wait_until(lambda: len(stream.events) == 2, "the first event, twice")
        assert stream.events[0] == stream.events[1]
        bench.argo.streams.repeats = False
        await bench.refresh()
        await wait_until(lambda: len(stream.events) >= 4, "newer events")
        first = stream.events[0][1]
        assert stream.events[-1][1] != first
        application = bench.argo.find(PROD, "argocd")
        assert application is not None
        bench.argo.streams.replay(application)
        await wait_until(lambda: stream.events[-1][1] == first, "the old event")


async def test_messages_can_come_in_pieces(bench: Bench) -> None:
    """Cut anywhere, inside a letter of two bytes as well; together they are the same message."""
    bench.argo.streams.piece = 1
    named = replace(APPLICATIONS[2], name="über", destination_namespace="other")
    bench.argo.add(named)
    async with listening(bench, name="über") as stream:
        await wait_until(lambda: stream.chunks and stream.chunks[-1] == b"\n", "the whole message")
        assert "über" in stream.text
        assert [kind for kind, _ in stream.events] == ["ADDED"]
        assert b"\xc3" in stream.chunks


async def test_a_deletion_is_told(bench: Bench) -> None:
    """First as a change that marks it, then as DELETED."""
    async with listening(bench, name=PROD) as stream:
        bench.argo.delete(PROD)
        bench.passes(3)
        await wait_until(lambda: stream.events and stream.events[-1][0] == "DELETED", "the end of it")
        assert {kind for kind, _ in stream.events[1:-1]} == {"MODIFIED"}
        last = json.loads(stream.text.splitlines()[-1])["result"]["application"]
        assert "deletionTimestamp" in last["metadata"]


async def test_a_stream_that_is_left_is_forgotten(bench: Bench) -> None:
    """The server notices that nobody listens any more."""
    async with listening(bench, name=PROD) as stream:
        await wait_until(lambda: stream.text.endswith("\n"), "the first event")
    await wait_until(lambda: bench.argo.streams.open_count == 0, "it is forgotten")
