"""Questions to other systems before a promotion: an address that says yes or no, or a number of a Prometheus.

Nothing of httpx leaves this file, and neither does a token. Errors are raised outside of `except`: what was caught
may hold a secret.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from urllib.parse import quote

import httpx

from bot.config_texts import PLACEHOLDERS, checked_address, checked_query
from bot.core.catalog import Image, Target
from bot.core.errors import PromoteError, Unavailable
from bot.core.policy import Probe
from bot.core.secrets import HIDDEN, without_secrets

LONGEST_BODY = 64 * 2**10
"""Bytes of an answer."""
LONGEST_REASON = 200
"""Characters of another system's words that people are shown."""
NO_VERDICT = frozenset({401, 403, 404, 407, 408, 429})
"""Answers of 4xx that say nothing of the question: whoever could know was not reached. Every other one is a no."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_TOKEN = re.compile(r"[!-~]+")


class HttpProbes:
    """Asks probes over HTTP: each time anew, without following redirects, with nothing kept for the next time.

    `token` gives a probe's own token by its name, None where it has none, and may raise `PromoteError`. It is asked
    each time, as a token may be replaced while the bot runs. `verify` says whose certificates are believed.
    """

    def __init__(self, *, token: Callable[[str], str | None], verify: SSLContext) -> None:
        self._token = token
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "promote-bot", "Accept": "application/json, */*;q=0.5"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=verify,
            trust_env=True,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the limit of a probe is for all of it, not for each silence
        )

    async def ask(self, probe: Probe, target: Target, image: Image) -> str:
        """Why the gate is closed, in words for people; empty where it is open.

        Without a query 200 to 299 opens, unless the body is a JSON object whose `allowed` is false: then its `reason`
        closes. 4xx closes with the first line of its text or its `reason`, but for those of `NO_VERDICT`. With a query
        one finite number opens, within the bounds that the probe has; no data and NaN close.

        Raises:
            Unavailable: every other answer, one that is longer than `LONGEST_BODY`, or none within `probe.within`.
        """
        if "{digest}" in probe.url + (probe.query or "") and not image.has_digest:
            return (
                f"it asks for a digest, and nobody knows that of {image.version}; "
                "name the image's registry in promote.yaml, or ask without {digest}"
            )
        question = self._question(probe, target, image)
        answer = await self._answer(question)
        return _verdict(question, answer) if probe.query is None else _measured(question, answer)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _question(self, probe: Probe, target: Target, image: Image) -> _Question:
        try:
            token = self._token(probe.name)
            if not token or _TOKEN.fullmatch(token):
                return _Question(probe=probe, url=_url(probe, target, image), token=token)
            trouble = "its token holds characters that no token has"
        except (PromoteError, ValueError, httpx.InvalidURL) as error:
            trouble = f"it cannot be asked: {str(error).rstrip('.')}"
        raise _unavailable(probe, trouble)

    async def _answer(self, question: _Question) -> _Answer:
        limit = question.probe.within.total_seconds()
        try:
            async with (
                asyncio.timeout(limit),
                self._client.stream("GET", question.url, headers=question.headers) as response,
            ):
                answer = _Answer(
                    status=response.status_code,
                    kind=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
                    is_packed=response.headers.get("Content-Encoding", "identity") != "identity",
                    body=await _body(response),
                )
        except TimeoutError:
            trouble = f"did not answer within {limit:g} s"
        except httpx.HTTPError as error:
            trouble = f"cannot be reached: {question.said(str(error)) or type(error).__name__}"
        else:
            if not answer.is_packed and len(answer.body) <= LONGEST_BODY:
                return answer
            what = "packed" if answer.is_packed else f"of more than {LONGEST_BODY // 2**10} KiB"
            trouble = f"sends an answer {what}, which is not read"
        raise question.unavailable(trouble)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One call, with the token that must not be seen."""

    probe: Probe
    url: httpx.URL
    token: str | None = field(repr=False)

    @property
    def place(self) -> str:
        """Whom it is put to; the rest of the address may be nobody's business."""
        return self.url.netloc.decode()

    @property
    def headers(self) -> dict[str, str]:
        """What this call says besides: who asks, and that a packed answer would not be read."""
        who = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Accept-Encoding": "identity", **who}

    def said(self, text: str) -> str:
        """An outside text for people: its first line that says something, without secrets."""
        lines = filter(None, map(_printable, text.splitlines()))
        line = next(lines, "")
        return _line(line.replace(self.token, HIDDEN) if self.token else line)

    def unavailable(self, trouble: str) -> Unavailable:
        """What was wrong with the other side."""
        return _unavailable(self.probe, f"{self.place} {trouble}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    kind: str
    """Its media type, without parameters."""
    is_packed: bool
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8-sig", errors="replace").strip()

    @property
    def is_json(self) -> bool:
        """Does it say so, or look like it?"""
        return bool(self.text) and (self.kind.endswith(("/json", "+json")) or self.text.startswith("{"))

    def json(self) -> object:
        """What its JSON says; raises `ValueError` where that cannot be told without guessing."""
        try:
            found: object = json.loads(self.body, object_pairs_hook=_unique)
        except RecursionError as error:
            raise ValueError("it is too deep") from error
        return found


def _unavailable(probe: Probe, trouble: str) -> Unavailable:
    return Unavailable(f"the probe {probe.name}", trouble)


def _url(probe: Probe, target: Target, image: Image) -> httpx.URL:
    """Where to ask; raises `ValueError` and `httpx.InvalidURL`."""
    values = dict(
        zip(PLACEHOLDERS, (target.app, target.environment, image.version, image.digest), strict=True)
    )
    template = checked_address(probe.url, allow_local=True)
    # Checked again with the values in it: a version must not lead to another path.
    address = checked_address(_filled(template, values, partial(quote, safe="")), allow_local=True)
    if probe.query is None:
        return httpx.URL(address)
    query = _filled(checked_query(probe.query), values, _escaped)
    base, _, given = address.partition("?")
    milliseconds = int(probe.within.total_seconds() * 1000)
    asked = f"query={quote(query, safe='')}&timeout={milliseconds}ms"
    return httpx.URL(f"{base.rstrip('/')}/api/v1/query?{given and f'{given}&'}{asked}")


def _filled(template: str, values: Mapping[str, str], encoded: Callable[[str], str]) -> str:
    return _PLACEHOLDER.sub(lambda found: encoded(values[found[1]]), template)


def _escaped(text: str) -> str:
    """For PromQL's double quotes, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


async def _body(response: httpx.Response) -> bytes:
    """The body as it was sent; of one that is too long, no more than shows that it is."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LONGEST_BODY:
            break
    return bytes(body)


# --- what an answer stands for


def _verdict(question: _Question, answer: _Answer) -> str:
    """What the status says, and `allowed` where there is one."""
    if 200 <= answer.status < 300:
        return _decision(question, answer)
    if 400 <= answer.status < 500 and answer.status not in NO_VERDICT:
        return _reason(question, answer) or f"{question.place} answers {answer.status}"
    todo = ""
    if 300 <= answer.status < 400:
        todo = ", which sends elsewhere; put the last address into promote.yaml"
    elif answer.status in (401, 403):
        todo = "; check the probe's token"
    elif answer.status == 404:
        todo = "; check the probe's address"
    raise question.unavailable(f"answers {answer.status}{todo}")


def _decision(question: _Question, answer: _Answer) -> str:
    try:
        found = answer.json() if answer.is_json else None
    except ValueError:
        allowed = None
    else:
        allowed = found.get("allowed", True) if isinstance(found, dict) else True
    if allowed is True:
        return ""
    if allowed is False:
        return _reason(question, answer) or "it says no, and gives no reason"
    raise question.unavailable("answers with JSON that cannot be read as a yes or a no")


def _reason(question: _Question, answer: _Answer) -> str:
    """The `reason` of JSON, else the first line of a text; nothing of a page for browsers."""
    if answer.is_json:
        given = _object(answer).get("reason")
        return question.said(given) if isinstance(given, str) else ""
    return "" if answer.text.startswith("<") else question.said(answer.text)


def _measured(question: _Question, answer: _Answer) -> str:
    """What the one number of a Prometheus says."""
    body = _object(answer)
    if answer.status != 200 or body.get("status") != "success":
        error = body.get("error")
        why = f": {question.said(error)}" if isinstance(error, str) else ", and that is no Prometheus' answer"
        raise question.unavailable(f"answers {answer.status}{why}")
    if warnings := body.get("warnings"):
        first = warnings[0] if isinstance(warnings, list) else warnings
        raise question.unavailable(f"knows only a part of the answer: {question.said(str(first))}")
    samples = _samples(body.get("data"))
    if not samples:
        return "there is no data: the query gives nothing"
    if len(samples) > 1:
        raise question.unavailable(
            f"gives {len(samples)} numbers; bring them to one in the query, as with sum()"
        )
    number = _number(samples[0])
    if number is None:
        raise question.unavailable("gives no number; change the query so that it gives exactly one")
    return _compared(question.probe, number)


def _samples(data: object) -> list[object]:
    """Each value with its time; what is neither a vector nor a scalar is one that is no number."""
    match data:
        case {"resultType": "vector", "result": [*found]}:
            return [each.get("value") if isinstance(each, dict) else None for each in found]
        case {"resultType": "scalar", "result": value}:
            return [value]
    return [None]


def _number(sample: object) -> float | None:
    match sample:
        case [_, str(text)]:
            try:
                return float(text)
            except ValueError:
                return None
    return None


def _compared(probe: Probe, number: float) -> str:
    if not math.isfinite(number):
        return f"it is no number: the query gives {number}"
    if probe.at_least is not None and not number >= probe.at_least:
        return f"it is {number:.10g}, at least {probe.at_least:.10g} is needed"
    if probe.at_most is not None and not number <= probe.at_most:
        return f"it is {number:.10g}, at most {probe.at_most:.10g} is allowed"
    return ""


def _object(answer: _Answer) -> dict[str, object]:
    """Its JSON, where that is an object; empty where it is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object, if it says everything once: readers differ in which of two they believe."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _line(text: str) -> str:
    """One line of bounded length, without secrets: hidden before it is cut, as half a secret looks like none."""
    return without_secrets(_printable(text))[:LONGEST_REASON]


def _printable(text: str) -> str:
    kept = (each for each in text if each.isprintable() or each.isspace())
    return " ".join("".join(kept).split())
