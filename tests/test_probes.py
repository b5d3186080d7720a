"""Questions to other systems: what opens a gate, what closes it, and what nobody could tell."""

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web
from builders import PROD, catalog
from conftest import require
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bot.config_texts import checked_address, checked_query
from bot.core.catalog import Catalog, Image
from bot.core.errors import Unavailable
from bot.core.policy import Policy, Probe
from bot.integrations.probes import LONGEST_BODY, HttpProbes
from bot.probe_access import http_probes
from bot.settings import Settings, SettingsError

TOKEN = "sesame-open-0815"
DIGEST = "sha256:" + "0f" * 32
IMAGE = Image(version="v15", digest=DIGEST)
QUERY = "sum(errors)"
CONNECTION = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
Opened = Callable[..., HttpProbes]


class System:
    """A system on loopback that is asked: what it heard, and what it answers."""

    def __init__(self) -> None:
        self.heard: list[web.Request] = []
        self.callers: list[object] = []
        """The other end of each connection that a question came by."""
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = saying(200)
        self.url = ""

    async def hear(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(request)
        self.callers.append(request.transport and request.transport.get_extra_info("peername"))
        return await self.answer(request)


def saying(
    status: int, body: str | bytes = "", kind: str = "text/plain", **headers: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Always the same answer."""

    async def answer(_: web.Request) -> web.Response:
        named = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        content = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=content, headers=named)

    return answer


@contextlib.asynccontextmanager
async def running(tls: ssl.SSLContext | None = None) -> AsyncIterator[System]:
    """A system of its own until the end of the block."""
    system = System()
    runner = web.ServerRunner(web.Server(system.hear), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    system.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield system
    finally:
        await runner.cleanup()


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running() as found:
        yield found


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """Makes probes, with or without a token."""
    async with contextlib.AsyncExitStack() as stack:

        def made(token: str | None = TOKEN, verify: ssl.SSLContext | None = None) -> HttpProbes:
            probes = HttpProbes(token=lambda _: token, verify=verify or ssl.create_default_context())
            stack.push_async_callback(probes.aclose)
            return probes

        yield made


def probe(url: str, **changes: Any) -> Probe:
    """A probe with time enough, but for the changes."""
    return replace(Probe(name="errors", url=url, within=timedelta(seconds=20)), **changes)


async def asked(probes: HttpProbes, question: Probe) -> str:
    """Why the gate of prod is closed."""
    return await probes.ask(question, PROD, IMAGE)


async def trouble(probes: HttpProbes, question: Probe) -> str:
    """Why nobody could tell."""
    with pytest.raises(Unavailable) as caught:
        await asked(probes, question)
    assert str(caught.value).startswith(f"the probe {question.name} is not available: ")
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)  # either may hold a secret
    return caught.value.detail


def measured(*values: object, **more: object) -> str:
    """What a Prometheus answers: a vector of these values."""
    result = [
        {"metric": {"pod": f"web-{place}"}, "value": [1.5, value]} for place, value in enumerate(values)
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


# --- an address that says yes or no


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (200, "ok", "text/plain", ""),
        (204, "", "text/plain", ""),
        (299, "<h1>fine</h1>", "text/html", ""),
        (200, "", "application/json", ""),
        (200, '{"status": "ok"}', "application/json", ""),
        (200, "[false]", "application/json", ""),
        (200, '{"allowed": true, "reason": "why not"}', "application/json", ""),
        (
            200,
            '{"allowed": false, "reason": "the budget is spent"}',
            "application/json",
            "the budget is spent",
        ),
        (200, '{"allowed": false, "reason": "as problem"}', "application/problem+json", "as problem"),
        (200, ' {"allowed": false, "reason": "told as text"}', "text/plain", "told as text"),
        (200, '\ufeff{"allowed": false, "reason": "marked"}', "text/plain", "marked"),
        (200, '{"allowed": false}', "application/json", "it says no, and gives no reason"),
        (200, '{"allowed": false, "reason": 5}', "application/json", "it says no, and gives no reason"),
        (400, "which app?", "text/plain", "which app?"),
        (409, "\n  a migration runs \nsince noon", "text/plain", "a migration runs"),
        (423, '{"reason": "\\n\\u0000\\nfrozen\\nuntil Monday"}', "application/json", "frozen"),
        (423, "<html>Locked</html>", "text/html", "{place} answers 423"),
        (412, "", "text/plain", "{place} answers 412"),
        (425, '{"error": "early"}', "application/json", "{place} answers 425"),
    ],
)
async def test_an_answer_opens_or_closes(
    system: System, opened: Opened, status: int, body: str, kind: str, says: str
) -> None:
    """200 to 299 opens, but for an `allowed` that is false; what else a system says of the question closes."""
    system.answer = saying(status, body, kind)
    assert await asked(opened(), probe(system.url)) == says.format(place=system.url.removeprefix("http://"))


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (401, "who?", "text/plain", "answers 401; check the probe's token"),
        (403, "not you", "text/plain", "answers 403; check the probe's token"),
        (404, "no such page", "text/plain", "answers 404; check the probe's address"),
        (407, "", "text/plain", "answers 407"),
        (408, "", "text/plain", "answers 408"),
        (429, "slowly", "text/plain", "answers 429"),
        (500, "oh", "text/plain", "answers 500"),
        (503, '{"allowed": true}', "application/json", "answers 503"),
        (304, "", "text/plain", "which sends elsewhere"),
        (200, '{"allowed": "no"}', "application/json", "cannot be read as a yes or a no"),
        (200, '{"allowed": null}', "text/plain", "cannot be read as a yes or a no"),
        (200, '{"allowed": 1}', "application/json", "cannot be read as a yes or a no"),
        (200, '{"allowed": fal', "text/plain", "cannot be read as a yes or a no"),
        (200, "<html>", "application/json", "cannot be read as a yes or a no"),
        (200, "<html>", "application/problem+json", "cannot be read as a yes or a no"),
        (200, '{"allowed": false, "allowed": true}', "application/json", "cannot be read as a yes or a no"),
        (200, '{"a":' * 9999, "application/json", "cannot be read as a yes or a no"),
    ],
)
async def test_what_is_no_answer_to_the_question_is_none(
    system: System, opened: Opened, status: int, body: str, kind: str, says: str
) -> None:
    """Whoever was asked did not know, or did not say it so that it can be read: neither yes nor no."""
    system.answer = saying(status, body, kind)
    assert says in await trouble(opened(), probe(system.url))


async def test_the_answer_is_asked_for_anew_each_time(system: System, opened: Opened) -> None:
    """A gate that has closed since is closed; neither cookie nor connection of the last time is used."""
    probes = opened()
    system.answer = saying(200, Set_Cookie="seen=1")
    assert await asked(probes, probe(system.url)) == ""
    system.answer = saying(409, "closed since")
    assert await asked(probes, probe(system.url)) == "closed since"
    assert "Cookie" not in system.heard[1].headers
    assert len(set(system.callers)) == 2


async def test_a_system_that_packs_where_it_may_is_understood(system: System, opened: Opened) -> None:
    """It is told to send its answer as it is, as a packed one is not read."""

    async def packed(_: web.Request) -> web.Response:
        response = web.json_response({"allowed": False, "reason": "closed " * 20})
        response.enable_compression()
        return response

    system.answer = packed
    assert (await asked(opened(), probe(system.url))).startswith("closed closed")


async def test_placeholders_stay_within_their_part_of_the_address(system: System, opened: Opened) -> None:
    """Whatever a version holds, it adds no path, no parameter and no fragment."""
    question = probe(f"{system.url}/{{app}}/{{version}}/ready?in={{environment}}&of={{digest}}")
    version = 'v1/../x?in=dev&#%2F "'
    assert await opened().ask(question, PROD, Image(version=version, digest=DIGEST)) == ""
    written = "v1%2F..%2Fx%3Fin%3Ddev%26%23%252F%20%22"
    path = f"/manual-app/{written}/ready?in=prod&of={DIGEST.replace(':', '%3A')}"
    assert system.heard[0].raw_path == path


@pytest.mark.parametrize("version", [".", ".."])
async def test_a_version_leads_to_no_other_path(system: System, opened: Opened, version: str) -> None:
    """What a path would take for a step is not sent at all."""
    question = probe(f"{system.url}/{{version}}/ready")
    with pytest.raises(Unavailable, match=r"cannot be asked: url holds /\./ or /\.\./"):
        await opened().ask(question, PROD, Image(version=version))
    assert not system.heard


@pytest.mark.parametrize("query", [None, 'scan{digest="{digest}"}'])
async def test_an_unknown_digest_is_not_asked_for(system: System, opened: Opened, query: str | None) -> None:
    """Nobody is asked about the build “unknown”; people read what to do."""
    question = probe(system.url if query else f"{system.url}/{{digest}}", query=query)
    says = await opened().ask(question, PROD, Image(version="v15"))
    assert "nobody knows that of v15; name the image's registry" in says
    assert not system.heard


# --- a number of a Prometheus


@pytest.mark.parametrize(
    ("value", "bounds", "says"),
    [
        ("0.01", {"at_most": 0.01}, ""),
        ("0.07", {"at_most": 0.01}, "it is 0.07, at most 0.01 is allowed"),
        ("3", {"at_least": 3}, ""),
        ("2", {"at_least": 3}, "it is 2, at least 3 is needed"),
        ("5", {"at_least": 1, "at_most": 9}, ""),
        ("0", {"at_least": 1, "at_most": 9}, "it is 0, at least 1 is needed"),
        ("10", {"at_least": 1, "at_most": 9}, "it is 10, at most 9 is allowed"),
        ("-1e-3", {"at_most": 0}, ""),
        ("7", {}, ""),
        ("0", {"at_most": float("nan")}, "it is 0, at most nan is allowed"),
        ("NaN", {"at_most": 1}, "it is no number: the query gives nan"),
        ("NaN", {}, "it is no number: the query gives nan"),
        ("+Inf", {"at_least": 1}, "it is no number: the query gives inf"),
        ("-Inf", {"at_most": 1}, "it is no number: the query gives -inf"),
    ],
)
async def test_a_number_opens_within_its_bounds(
    system: System, opened: Opened, value: str, bounds: dict[str, float], says: str
) -> None:
    """The bounds themselves are within; what is no finite number is never."""
    question = probe(system.url, query=QUERY, **bounds)
    system.answer = saying(200, measured(value), "application/json")
    assert await asked(opened(), question) == says
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [1, value]}, "warnings": []}
    system.answer = saying(200, json.dumps(scalar), "application/json")
    assert await asked(opened(), question) == says


async def test_no_data_is_closed(system: System, opened: Opened) -> None:
    """A query that finds nothing has measured nothing."""
    system.answer = saying(200, measured(), "application/json")
    assert (
        await asked(opened(), probe(system.url, query=QUERY)) == "there is no data: the query gives nothing"
    )


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, measured("0", "0"), "gives 2 numbers; bring them to one in the query"),
        (200, measured("many"), "gives no number"),
        (200, measured(0), "gives no number"),
        (200, measured(True), "gives no number"),
        (
            200,
            '{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{}]}]}}',
            "no number",
        ),
        (200, '{"status":"success","data":{"resultType":"vector","result":["0"]}}', "gives no number"),
        (200, '{"status":"success","data":{"resultType":"matrix","result":[]}}', "gives no number"),
        (200, '{"status":"success","data":{"resultType":"string","result":[1,"0"]}}', "gives no number"),
        (200, '{"status":"success","data":{"resultType":"scalar","result":[1,"0","0"]}}', "gives no number"),
        (200, '{"status":"success","data":[]}', "gives no number"),
        (200, '{"status":"success"}', "gives no number"),
        (200, measured("0", status="error", error="it timed out"), "answers 200: it timed out"),
        (201, measured("0"), "answers 201, and that is no Prometheus' answer"),
        (400, '{"status":"error","errorType":"bad_data","error":"parse error: eh"}', "400: parse error: eh"),
        (409, "no", "answers 409, and that is no Prometheus' answer"),
        (200, "ok", "that is no Prometheus' answer"),
        (200, '["success"]', "that is no Prometheus' answer"),
        (200, measured("0")[:-1], "that is no Prometheus' answer"),
        (200, measured("0", warnings=["a store is away"]), "only a part of the answer: a store is away"),
        (200, measured("0", warnings="a store is away"), "only a part of the answer: a store is away"),
        (200, measured("0", warnings={"store": "away"}), "only a part of the answer"),
    ],
)
async def test_what_is_no_single_number_is_no_answer(
    system: System, opened: Opened, status: int, body: str, says: str
) -> None:
    """Several numbers, other types, half an answer, or somebody who is no Prometheus."""
    system.answer = saying(status, body, "application/json")
    assert says in await trouble(opened(), probe(system.url, query=QUERY))


async def test_a_prometheus_is_asked_below_its_address(system: System, opened: Opened) -> None:
    """The path and the parameters of the address stay, and Prometheus hears how long it may take."""
    system.answer = saying(200, measured("1"), "application/json")
    query = 'sum by (a) (x{app="{app}", v="{version}"}) / 2 + 1 # &'
    question = probe(f"{system.url}/{{environment}}/?tenant=a%2Fb", query=query)
    assert await asked(opened(), replace(question, within=timedelta(seconds=4.5))) == ""
    assert system.heard[0].path == "/prod/api/v1/query"
    assert dict(system.heard[0].query) == {
        "tenant": "a/b",
        "query": 'sum by (a) (x{app="manual-app", v="v15"}) / 2 + 1 # &',
        "timeout": "4500ms",
    }


GO_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}


def unquoted(text: str) -> tuple[str, str]:
    """What PromQL reads in double quotes at the start of the text, and what follows them."""
    assert text[0] == '"'
    found, rest = "", text[1:]
    while rest[0] != '"':
        taken, read = 1, rest[0]
        assert read != "\n", "no string of PromQL goes on in the next line"
        if read == "\\" and rest[1] == "u":
            taken, read = 6, chr(int(rest[2:6], 16))
        elif read == "\\":
            taken, read = 2, GO_ESCAPES[rest[1]]
        found, rest = found + read, rest[taken:]
    return found, rest[1:]


@CONNECTION
@example(version='"} or vector(0) #')
@example(version='\\"')
@example(version="{app}\n\x00😀")
@given(version=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
async def test_a_version_stays_within_its_quotes(system: System, opened: Opened, version: str) -> None:
    """Whatever a version holds, PromQL reads that very version and nothing else."""
    system.answer = saying(200, measured("1"), "application/json")
    question = probe(system.url, query='x{v="{version}"} > 5')
    assert await opened().ask(question, PROD, Image(version=version)) == ""
    assert unquoted(system.heard[-1].query["query"].removeprefix("x{v=")) == (version, "} > 5")


# --- whatever a server does


def may_open(status: int, kind: str, body: bytes) -> bool:
    """The rule for a probe without a query, in other words than the bot's."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    if not 200 <= status < 300 or len(body) > LONGEST_BODY:
        return False
    if not text or (kind != "application/json" and not text.startswith("{")):
        return True
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        return not isinstance(found, dict) or found.get("allowed", True) is True
    return False


BODIES = st.one_of(
    st.binary(max_size=300),
    st.dictionaries(
        st.sampled_from(["allowed", "reason", "x"]), st.none() | st.booleans() | st.integers() | st.text()
    ).map(lambda found: json.dumps(found).encode()),
)


@CONNECTION
@example(status=200, kind="text/plain", body=b"x" * LONGEST_BODY)
@example(status=200, kind="text/plain", body=b"x" * (LONGEST_BODY + 1))
@example(status=409, kind="text/plain", body=b"x" * (LONGEST_BODY + 1))
@example(status=200, kind="application/json", body=b"9" * 9999)
@given(
    status=st.sampled_from([200, 204, 206, 302, 400, 401, 404, 409, 423, 500, 503]),
    kind=st.sampled_from(["application/json", "text/plain", ""]),
    body=BODIES,
)
async def test_only_what_the_rule_names_opens(
    system: System, opened: Opened, status: int, kind: str, body: bytes
) -> None:
    """Whatever the body, the answer is a short line, or nobody could tell."""
    system.answer = saying(status, b"" if status == 204 else body, kind)
    try:
        says = await asked(opened(), probe(system.url))
    except Unavailable as error:
        says = str(error)
    assert (says == "") == may_open(status, kind, b"" if status == 204 else body)
    assert says.isprintable()
    assert len(says) <= 200


NUMBERS = st.sampled_from(["0", "0.5", "1", "NaN", "+Inf", "-Inf", "1e400", "", "x", None, 1, True, [], {}])
SAMPLES = st.tuples(NUMBERS, NUMBERS).map(list) | NUMBERS
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["success", "success", "error", None]),
        "warnings": st.sampled_from([None, [], ["half"], "half", {}, 0]),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "resultType": st.sampled_from(["vector", "scalar", "matrix", "string", None]),
                "result": SAMPLES
                | st.lists(st.fixed_dictionaries({}, optional={"value": SAMPLES, "x": NUMBERS}), max_size=2),
            },
        )
        | NUMBERS,
    },
)


@settings(CONNECTION, max_examples=150)
@given(status=st.sampled_from([200, 200, 200, 206, 409, 422]), answer=ANSWERS | NUMBERS)
async def test_only_one_finite_number_within_its_bounds_opens(
    system: System, opened: Opened, status: int, answer: Any
) -> None:
    """Whatever looks like an answer of a Prometheus, the gate opens for the one form that says so."""
    system.answer = saying(status, json.dumps(answer), "application/json")
    try:
        says = await asked(opened(), probe(system.url, query=QUERY, at_most=0.5))
    except Unavailable:
        return
    if says == "":
        assert status == 200
        assert answer["status"] == "success"
        assert not answer.get("warnings")
        data = answer["data"]
        (sample,) = [data["result"]] if data["resultType"] == "scalar" else data["result"]
        value = sample if data["resultType"] == "scalar" else sample["value"]
        assert data["resultType"] in ("scalar", "vector")
        assert value[1] in ("0", "0.5")


@contextlib.asynccontextmanager
async def sending(chunks: list[bytes], *, stays: bool) -> AsyncIterator[str]:
    """A server that hears a question and sends these bytes, whatever they are; then it ends, or stays silent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
            if stays:
                await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 409 No\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"HTTP/0.9 200 OK\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Type: application/json\r\n",
        b"Content-Type: \xff\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Set-Cookie: a=b; expires=\xff; domain=x; version=z\r\n",
        b"Location: http://[\r\n",
        b"\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffff\r\n",
        b'{"allowed": false}',
    ]
)


@settings(CONNECTION, max_examples=150)
@example(sent=[b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\n", b"\r\n", b"hell"], query=None)
@example(sent=[b"HTTP/1.1 200 OK\r\n", b"Content-Encoding: gzip\r\n", b"\r\n", b"\x1f\x8b"], query=None)
@example(sent=[], query=None)
@given(sent=st.lists(LINES | st.binary(max_size=40), max_size=8), query=st.sampled_from([None, QUERY]))
async def test_whatever_bytes_come_nothing_but_unavailable_is_raised(
    opened: Opened, sent: list[bytes], query: str | None
) -> None:
    """Half an answer, a packed one or none that HTTP knows opens nothing and breaks nothing."""
    async with sending(sent, stays=False) as url:
        try:
            says = await asked(opened(), probe(url, query=query))
        except Unavailable:
            return
    whole = b"".join(sent)
    assert says or whole.split(b" ", 2)[1][:1] in (b"1", b"2")
    assert says or (query is None and b"gzip" not in whole)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 409 Conflict\r\n\r\nclosed",
    ],
)
async def test_silence_ends_with_the_limit(opened: Opened, sent: bytes) -> None:
    """Wherever a server falls silent, nobody waits for longer than the probe may take."""
    async with sending([sent], stays=True) as url:
        said = await trouble(opened(), probe(url, within=timedelta(milliseconds=100)))
    assert said.endswith("did not answer within 0.1 s")


async def test_a_server_that_drips_is_held_to_the_same_limit(system: System, opened: Opened) -> None:
    """The limit is for the whole answer: bytes that come all the time do not put it off."""
    dripped = 0

    async def drip(request: web.Request) -> web.StreamResponse:
        nonlocal dripped
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b".")
                dripped += 1
                await asyncio.sleep(0.01)
        return response

    system.answer = drip
    said = await trouble(opened(), probe(system.url, within=timedelta(milliseconds=200)))
    assert said.endswith("did not answer within 0.2 s")
    assert 2 <= dripped < 100


async def test_a_long_answer_is_not_read_to_its_end(system: System, opened: Opened) -> None:
    """A body without an end is left after 64 KiB, long before the limit of time."""

    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 4096)
        return response

    system.answer = pour
    assert "of more than 64 KiB" in await trouble(opened(), probe(system.url))


async def test_nobody_there_is_no_answer(opened: Opened) -> None:
    """A port that nobody listens on."""
    async with running() as gone:
        pass
    assert "cannot be reached: " in await trouble(opened(), probe(gone.url))


# --- the token


async def test_the_token_goes_to_the_address_alone(system: System, opened: Opened) -> None:
    """A redirect is not followed, neither to another host nor to the same one."""
    async with running() as other:
        for place in (other.url, "/elsewhere"):
            system.answer = saying(307, Location=place)
            assert "put the last address into promote.yaml" in await trouble(opened(), probe(system.url))
        assert not other.heard
    assert [heard.headers["Authorization"] for heard in system.heard] == [f"Bearer {TOKEN}"] * 2


async def test_without_a_token_none_is_sent(system: System, opened: Opened) -> None:
    """A probe that has none asks as nobody."""
    assert await asked(opened(token=None), probe(system.url)) == ""
    assert "Authorization" not in system.heard[0].headers


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, f"you sent {TOKEN}"),
        (409, "you sent sesame\x00-open\u200b-0815 and password=hunter2secret"),
        (409, "x" * 190 + TOKEN),
        (409, "y " * 95 + "ghp_hunter2secret"),
        (409, "z " * 300 + "password=hunter2secret"),
        (200, json.dumps({"allowed": False, "reason": f"Authorization: Bearer {TOKEN}"})),
        (409, "see https://bob:hunter2secret@git.example.com/x"),
    ],
)
async def test_a_reason_holds_no_secret(system: System, opened: Opened, status: int, body: str) -> None:
    """Neither the token, however it is spelled or cut, nor what looks like another one; and one short line."""
    system.answer = saying(status, body)
    says = await asked(opened(), probe(system.url))
    assert "sesame" not in says
    assert "hunter" not in says
    assert says.isprintable()
    assert len(says) <= 200


async def test_nothing_else_shows_the_token(
    system: System, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """No error, whatever a Prometheus says, and no log line; of the address an error tells the host alone."""
    caplog.set_level(logging.INFO)
    system.answer = saying(422, json.dumps({"error": f"{TOKEN} may not ask"}), "application/json")
    said = await trouble(opened(), probe(f"{system.url}/hook-of-ours", query=QUERY))
    assert said == f"{system.url.removeprefix('http://')} answers 422: *** may not ask"
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("token", ["line\nbreak", "with space", "kÿrillisch", "\x00"])
async def test_a_token_that_is_none_is_not_sent(system: System, opened: Opened, token: str) -> None:
    """It would break the header, or show in the error of whoever tries."""
    said = await trouble(opened(token=token), probe(system.url))
    assert said == "its token holds characters that no token has"
    assert not system.heard


async def test_each_probe_has_its_own_token(system: System, tmp_path: Path) -> None:
    """By its name alone, and read anew each time from a file that may be replaced."""
    file = tmp_path / "token"
    file.write_text("first\n")
    environ = {"PROBE_TOKEN_ERROR_RATE_FILE": str(file), "PROBE_TOKEN": "for-everybody"}
    async with contextlib.aclosing(http_probes(Settings(environ=environ), catalog())) as probes:
        for name in ("error.rate", "other"):
            assert await asked(probes, probe(system.url, name=name)) == ""
        file.write_text("second\n")
        assert await asked(probes, probe(system.url, name="error.rate")) == ""
        file.unlink()
        assert "PROBE_TOKEN_ERROR_RATE_FILE: cannot read" in await trouble(
            probes, probe(system.url, name="error.rate")
        )
    sent = [heard.headers.get("Authorization") for heard in system.heard]
    assert sent == ["Bearer first", None, "Bearer second"]


def test_a_token_that_cannot_be_read_is_told_at_the_start() -> None:
    """Not when the first promotion asks."""
    policy = Policy(probes=(probe("https://x.example", name="slo"),))
    of_prod = Catalog(environments=("prod",), targets=(replace(PROD, policy=policy),))
    environ = {"PROBE_TOKEN_SLO_FILE": "/nonexistent/token"}
    with pytest.raises(SettingsError, match="PROBE_TOKEN_SLO_FILE: cannot read"):
        http_probes(Settings(environ=environ), of_prod)


# --- the way


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback that no authority has signed, and its key, in one file."""
    both = tmp_path / "both.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = [require("openssl", "openssl"), "req", "-x509", *key, *subject, "-keyout", both, "-out", both]
    subprocess.run(command, check=True, capture_output=True)
    return both


async def test_a_system_is_asked_only_where_its_certificate_is_trusted(
    certificate: Path, opened: Opened
) -> None:
    """The machine's authorities and the own one; before that nothing is sent, least of all the token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with running(context) as system:
        assert "CERTIFICATE_VERIFY_FAILED" in await trouble(opened(), probe(system.url))
        assert not system.heard
        own = Settings(environ={"PROMOTE_CA_BUNDLE": str(certificate)})
        async with contextlib.aclosing(http_probes(own, catalog())) as probes:
            assert await asked(probes, probe(system.url)) == ""


async def test_a_proxy_is_used_as_the_environment_says(
    system: System, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `https_proxy` and its kin name is asked instead of the host."""
    monkeypatch.setenv("http_proxy", system.url)
    assert await asked(opened(), probe("http://slo.acme.example/ready")) == ""
    assert system.heard[0].headers["Host"] == "slo.acme.example"


# --- what promote.yaml may say


@pytest.mark.parametrize(
    "text",
    [
        "https://slo.acme.example",
        "https://slo.acme.example:8443/{app}/{environment}/{version}?d={digest}",
        "https://{app}.{environment}.acme.example/ready",
        "https://slo.acme.example/a@b/c.d/..e?x=/../&y=%20",
        "https://[2001:db8::1]:9090/",
        "http://127.0.0.1:9090",
        "http://[::1]:9090/",
        "http://prometheus.localhost/",
    ],
)
def test_an_address_that_can_be_used_stays_as_it_is(text: str) -> None:
    """With every placeholder where it may stand, and plain http to the own machine."""
    assert checked_address(text, allow_local=False) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://slo.acme.example", "url must be like https://"),
        ("slo.acme.example/ready", "url must be like https://"),
        ("//slo.acme.example", "url must be like https://"),
        ("https://slo.acme.example/{ap}", "{ap} is unknown. Did you mean “app”?"),
        ("https://slo.acme.example/{env}", "{env} is unknown."),
        ("https://bob:secret@slo.acme.example", "put a token into PROBE_TOKEN_<NAME>"),
        ("https://token@slo.acme.example", "put a token into PROBE_TOKEN_<NAME>"),
        ("https://slo.acme.example\\@evil.example", "put a token into PROBE_TOKEN_<NAME>"),
        ("https://{version}.acme.example/", "url must be like https://"),
        ("https://{digest}/", "url must be like https://"),
        ("https:///ready", "url must be like https://"),
        ("https://slo.acme.example:{app}/", "url must be like https://"),
        ("https://slo.acme.example:65536/", "url must be like https://"),
        ("https://slo.acme.example\n", "url must be like https://"),
        ("https://slo.acme.example/a b", "percent-encoded"),
        ("https://slo.acme.example/ä", "percent-encoded"),
        ("https://slo.acme.example/#ready", "percent-encoded"),
        ("https://slo.acme.example/{", "percent-encoded"),
        ("https://slo.acme.example/\n", "percent-encoded"),
        ("https://slo.acme.example/a/../b", "without them"),
        ("https://slo.acme.example/.", "without them"),
        ("http://slo.acme.example/", "set allow_local: true"),
        ("http://127.0.0.1.evil.example/", "set allow_local: true"),
        ("http://{app}/", "set allow_local: true"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(text: str, says: str) -> None:
    """With what to write instead, and never with the password that it holds."""
    with pytest.raises(ValueError, match=r".") as caught:
        checked_address(text, allow_local=False)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_plain_http_to_another_machine_is_a_choice() -> None:
    """Inside of a cluster a Prometheus often speaks nothing else."""
    text = "http://prometheus.monitoring:9090"
    assert checked_address(text, allow_local=True) == text


PARTS = [
    "a.example",
    "{app}",
    "{version}",
    "@",
    ":",
    "80",
    "/",
    "..",
    "?",
    "#",
    "\\",
    "[::1]",
    "%2e",
    " ",
    "\n",
    "é",
]


@example("a.example:80/{version}/..a?/../@")
@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_whoever_reads_an_address_that_was_taken_reads_the_same(text: str) -> None:
    """No user, no fragment, no step in the path, and one host for every reader: nobody else is asked."""
    try:
        address = checked_address(f"https://{text}", allow_local=False).format(app="web", version="v1")
    except ValueError:
        return
    url, split = httpx.URL(address), urlsplit(address)
    assert (url.userinfo, url.fragment) == (b"", "")
    assert url.netloc.decode() == split.netloc.removesuffix(":443")
    assert url.raw_path.decode() == (split.path or "/") + (f"?{split.query}" if "?" in address else "")


@pytest.mark.parametrize(
    "query",
    [
        'errors{app="{app}"} / on() 2',
        """x{a='"', b="{version}"} # {app" """.replace("{app", "app"),
        'x{a="\\"{digest}"}',
        "count(up == 0)",
        'x{pod=~"web-[a-z]{5}"}',
    ],
)
def test_a_query_that_can_be_used_stays_as_it_is(query: str) -> None:
    """PromQL's own braces are no placeholders."""
    assert checked_query(query) == query


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "must not be empty"),
        (" \n", "must not be empty"),
        ('x{a="{application}"}', "{application} is unknown."),
        ("{app}_errors", "{app} must stand inside of double quotes"),
        ("x{a='{version}'}", "{version} must stand inside of double quotes"),
        ("x{a=`{version}`}", "{version} must stand inside of double quotes"),
        ('x{a="\\\\"} + {version}', "{version} must stand inside of double quotes"),
        ('x # " {version} "', "{version} must stand inside of double quotes"),
        ('x{a="{version}', "{version} must stand inside of double quotes"),
    ],
)
def test_a_query_that_cannot_be_used_is_told(query: str, says: str) -> None:
    """A placeholder is escaped for double quotes, so it stands nowhere else."""
    with pytest.raises(ValueError, match=r".") as caught:
        checked_query(query)
    assert says in str(caught.value)
