"""Promotions in Redis or Valkey: the record, its story, its indexes, and the due set that drives the work.

Every rule about a promotion lives in the core; here, one script saves any number of changes at once or none of
them. Scripts may run twice, because an answer can be lost on its way. Keys carry the tag `{gp}`, so that a
cluster keeps them in one slot. Scores and delays are milliseconds of the server's own clock, never of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.typing import EncodableT

from bot.core.catalog import Target
from bot.core.errors import Conflict, TargetBusy, Unavailable
from bot.core.ports import Card, Change
from bot.core.promotion import SCHEMA, Event, Phase, Promotion, PromotionId
from bot.core.rollout import Look
from bot.integrations import lua
from bot.integrations.soundness import Finding, examine
from bot.telemetry import TRANSITIONS

SYSTEM = "the store"
DUE = "{gp}:due"
WAKE = "{gp}:wake"
DELIVERY_KEPT = timedelta(hours=48)
REVISION_TOLD = timedelta(hours=1)

_Told = TypeVar("_Told")
_PROMOTION = TypeAdapter(Promotion)
_EVENT = TypeAdapter(Event)
_CARD = TypeAdapter(Card)
_LOOK = TypeAdapter(Look)


def connect(url: str, *, quick: bool) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; raises `ValueError` for another address.

    `quick` is for the web side, where a person waits: it gives up a try after 0.7 seconds, else after 5.
    """
    patience = 0.7 if quick else 5.0
    return Redis.from_url(
        url,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        decode_responses=True,
        health_check_interval=15,
        max_connections=500,
        protocol=2,  # answers of one shape from every server, and no hello before the first command
        # The store itself tries again: it must know whether any of its tries may have arrived. These two errors
        # drop the connection, so that the next try finds the new primary after a failover.
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[exceptions.ReadOnlyError, exceptions.BusyLoadingError],
    )


class RedisStore:
    """The core's `Store` and `Queue` on one Redis or Valkey server. Every method may raise `Unavailable`."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._save = client.register_script(lua.SAVE)
        self._claim = client.register_script(lua.CLAIM)
        self._renew = client.register_script(lua.RENEW)
        self._rest = client.register_script(lua.REST)
        self._wake = client.register_script(lua.WAKE)
        self._take_turn = client.register_script(lua.TAKE_TURN)
        self._end_turn = client.register_script(lua.END_TURN)
        self._wakes: PubSub | None = None
        self._listening = asyncio.Lock()

    async def create(self, promotion: Promotion, *, delivery: str | None, holds: bool) -> PromotionId:
        """Save a new promotion, due now, and return its id, or the one that the delivery made before.

        Raises `TargetBusy` where another one holds the target, `Conflict` where the id is taken.
        """
        change = Change(before=None, after=promotion)
        return await self._write([change], holds=holds, delivery=delivery) or promotion.id

    async def save(self, changes: Sequence[Change], *, holds: bool) -> None:
        """Save the next editions of one target's promotions, all or none, each due now.

        One that a worker holds is due when that worker rests: two at once would tell people twice.

        Raises `Conflict` where a record is not as it was before, or where another promotion is followed and not
        superseded in the same call; `TargetBusy` where another one holds the target.
        """
        await self._write(changes, holds=holds, delivery=None)

    async def load(self, id: str) -> Promotion | None:
        """The promotion as it stands, or None; `Unavailable` where this version of the bot cannot read it."""
        record: Any = await self._ask(lambda: self._client.hget(_key(id), "record"))
        return None if record is None else _promotion(id, record)

    async def events(self, id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Its story in order, from the event that follows edition `after`."""
        found: list[Any] = await self._ask(lambda: self._client.lrange(f"{_key(id)}:e", after, -1))
        story = [_read(_EVENT, event) for event in found]
        return tuple(event for event in story if event is not None)

    async def holder(self, target: Target) -> PromotionId | None:
        """Which promotion holds the target."""
        return await self._owner(_hold(target.name))

    async def followed(self, target: Target) -> PromotionId | None:
        """Which promotion of the target is committed, and its rollout followed."""
        return await self._owner(_follow(target.name))

    async def in_phase(self, phase: Phase, *, limit: int = 50) -> tuple[Promotion, ...]:
        """The promotions in a phase, those that entered it first in front; without unreadable ones."""
        found = await self._records(f"{{gp}}:ph:{phase}", limit=limit, newest_first=False)
        return tuple(promotion for promotion in found if promotion.phase is phase)

    async def history(self, target: Target, *, limit: int = 10) -> tuple[Promotion, ...]:
        """The target's promotions, newest first; without unreadable ones."""
        return await self._records(f"{{gp}}:ix:{target.name}", limit=limit, newest_first=True)

    async def card(self, id: str) -> Card:
        """What the people have seen of it; nothing, where that cannot be read: the card is posted anew."""
        found: Any = await self._ask(lambda: self._client.get(f"{_key(id)}:card"))
        return _read(_CARD, found) or Card()

    async def save_card(self, id: str, card: Card) -> None:
        """Remember what the people have seen; the last write wins."""
        await self._ask(lambda: self._client.set(f"{_key(id)}:card", _CARD.dump_json(card)), writes=True)

    async def look(self, id: str) -> Look:
        """The last look at its rollout; empty where there was none, or none that can be read."""
        found: Any = await self._ask(lambda: self._client.get(f"{_key(id)}:look"))
        return _read(_LOOK, found) or Look()

    async def save_look(self, id: str, look: Look) -> None:
        """Remember the last look; the last write wins, and no edition is counted."""
        await self._ask(lambda: self._client.set(f"{_key(id)}:look", _LOOK.dump_json(look)), writes=True)

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Up to `limit` promotions that are due, longest first; each is due again after `lease`."""
        ids = await self._run(self._claim, limit, _milliseconds(lease))
        return tuple(PromotionId(id) for id in ids)

    async def renew(self, ids: Sequence[str], *, lease: timedelta) -> None:
        """Put off the next look at these for another `lease`."""
        await self._run(self._renew, _milliseconds(lease), *ids)

    async def rest(self, id: str, *, edition: int, after: timedelta | None) -> None:
        """Look again `after` this long; None: never. At once, where the record has moved on from `edition`."""
        await self._run(self._rest, id, edition, "" if after is None else _milliseconds(after))

    async def wake(self, id: str) -> None:
        """Make it due now, where it exists."""
        await self._run(self._wake, id)

    async def take_turn(self, branch: str, *, by: str, lease: timedelta) -> tuple[bool, str | None]:
        """Whether the branch is `by`'s to write for `lease`, and the revision that the last one left there."""
        said: Any = await self._ask(
            lambda: self._take_turn(keys=_turn(branch), args=[by, _milliseconds(lease)]), writes=True
        )
        return said[0] == "OURS", str(said[1]) or None

    async def end_turn(self, branch: str, *, by: str, revision: str | None) -> None:
        """Give the branch to the next one; `revision` is where it stands now, None where nothing was pushed."""
        arguments: list[str | int] = [by, revision or "", _milliseconds(REVISION_TOLD)]
        await self._ask(lambda: self._end_turn(keys=_turn(branch), args=arguments), writes=True)

    async def wait(self, timeout: float) -> None:
        """Return when something became due, or after `timeout` seconds; waiters of one store take turns."""
        async with self._listening:
            until = asyncio.get_running_loop().time() + timeout
            await self._ask(lambda: self._hear(until))

    async def ping(self) -> None:
        """Return where the server answers."""
        await self._ask(self._client.ping)

    async def soundness(self) -> list[Finding]:
        """Is the server one that may be trusted with promotions?"""
        return await self._ask(lambda: examine(self._client))

    async def aclose(self) -> None:
        """Close every connection, and the client with them."""
        await self._stop_listening()
        await self._client.aclose()

    async def _write(
        self, changes: Sequence[Change], *, holds: bool, delivery: str | None
    ) -> PromotionId | None:
        """Run the one script that saves; returns the id that the delivery made before, if it did."""
        words = json.dumps([_arguments(change, holds=holds) for change in changes])
        kept = _milliseconds(DELIVERY_KEPT)
        code, detail = await self._run(self._save, words, delivery or "", kept)
        target = changes[0].after.target
        if code == "BUSY":
            raise TargetBusy(
                f"{target} is taken by {detail}: wait until that one is written or ended, or cancel it first.",
                holder=detail,
            )
        if code == "CONFLICT":
            raise Conflict(f"{detail} was changed by somebody else at the same moment; nothing was saved.")
        if code == "SEEN":
            return PromotionId(detail)
        for change in changes:
            if change.before is None or change.before.phase is not change.after.phase:
                TRANSITIONS.labels(phase=change.after.phase, environment=change.after.environment).inc()
        return None

    async def _run(self, script: AsyncScript, *words: EncodableT) -> Any:
        return await self._ask(lambda: script(keys=[DUE], args=words), writes=True)

    async def _owner(self, slot: str) -> PromotionId | None:
        found: Any = await self._ask(lambda: self._client.get(slot))
        return None if found is None else PromotionId(found)

    async def _records(self, index: str, *, limit: int, newest_first: bool) -> tuple[Promotion, ...]:
        async def read() -> list[tuple[str, str | None]]:
            ids: list[Any] = await self._client.zrange(index, 0, limit - 1, desc=newest_first)
            async with self._client.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hget(_key(id), "record")
                return list(zip(ids, await pipeline.execute(), strict=True))

        return tuple(_legible(await self._ask(read)))

    async def _hear(self, until: float) -> None:
        """Read the wake channel until a word comes; what piled up is one word."""
        try:
            if self._wakes is None:
                self._wakes = self._client.pubsub(ignore_subscribe_messages=True)
                await self._wakes.subscribe(WAKE)
            while (left := until - asyncio.get_running_loop().time()) > 0:
                if await self._wakes.get_message(timeout=left):
                    break
            while await self._wakes.get_message(timeout=0):
                pass
        except exceptions.RedisError:
            await self._stop_listening()
            raise

    async def _stop_listening(self) -> None:
        wakes, self._wakes = self._wakes, None
        if wakes is not None:
            await wakes.aclose()  # type: ignore[no-untyped-call]

    async def _ask(self, do: Callable[[], Awaitable[_Told]], *, writes: bool = False) -> _Told:
        """What the server answers, with one more try; each of its errors becomes `Unavailable`."""
        maybe_done = False
        tries = 2
        while True:
            try:
                return await do()
            except exceptions.RedisError as raised:
                # A refused password arrives wrapped in an error of the connection.
                error = raised.__cause__ if isinstance(raised.__cause__, exceptions.RedisError) else raised
                tries -= 1
                maybe_done = maybe_done or (writes and not _never_arrived(error))
                if tries == 0 or not isinstance(error, _PASSING):
                    raise Unavailable(SYSTEM, _words(error), maybe_done=maybe_done) from raised


_PASSING = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError)
"""Another try may do; `ConnectionError` includes that the server is loading its data."""

_NOTHING_DONE = (
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
    exceptions.MaxConnectionsError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
)
"""The server, or our own pool, said no before anything was written."""


def _never_arrived(error: exceptions.RedisError) -> bool:
    """Is it certain that nothing was done, because somebody said so or because there was no connection?"""
    if type(error) is not exceptions.ConnectionError:
        return isinstance(error, _NOTHING_DONE)
    cause = error.__context__
    if isinstance(cause, ConnectionRefusedError | FileNotFoundError | PermissionError | socket.gaierror):
        return True
    # asyncio sums up the failures of several addresses in an error without a number.
    return type(cause) is OSError and cause.errno is None


def _words(error: exceptions.RedisError) -> str:
    """What happened, for people; the library's own words can hold an address."""
    if isinstance(error, exceptions.TimeoutError):
        return "it did not answer in time"
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return "it refuses the bot's user or password, or what that user may do"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "it is full: its memory limit is reached"
    if isinstance(error, exceptions.BusyLoadingError):
        return "it is still loading its data"
    if isinstance(error, exceptions.ReadOnlyError):
        return "it takes no writes, as a replica does; a failover may be under way"
    if isinstance(error, exceptions.ConnectionError):
        return "it cannot be reached" if _never_arrived(error) else "the connection broke"
    return f"it answered with an error: {error}"


def _arguments(change: Change, *, holds: bool) -> dict[str, Any]:
    """One change as the script reads it. The phase alone says which slots the promotion has afterwards."""
    before, after = change.before, change.after
    if after.edition != (before.edition if before else 0) + 1:
        raise ValueError(f"{after.id}: a change is one edition, so that no event is lost")
    has = {
        _hold(after.target): holds and after.phase.holds,
        _follow(after.target): after.phase is Phase.COMMITTED,
    }
    return {
        "id": after.id,
        "edition": after.edition,
        "record": _PROMOTION.dump_json(after).decode(),
        "event": _EVENT.dump_json(after.last).decode(),
        "from": before.phase if before else "",
        "to": after.phase,
        "target": after.target,
        "by": after.requested_by.id,
        "gives": [slot for slot, wanted in has.items() if not wanted],
        "takes": [slot for slot, wanted in has.items() if wanted],
    }


def _promotion(id: str, record: str) -> Promotion:
    """The record as a value; `Unavailable` where a newer version of the bot wrote it, or nobody can read it."""
    try:
        found = json.loads(record)
        if found.get("schema", SCHEMA) > SCHEMA:
            raise Unavailable(SYSTEM, f"{id} was written by a newer version of the bot and is left to it")
        return _PROMOTION.validate_python(found)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unavailable(SYSTEM, f"the record of {id} cannot be read") from error


def _read(kind: TypeAdapter[_Told], text: str | None) -> _Told | None:
    """What stands beside a record, or None: another version's words about it must not stop a promotion."""
    try:
        return None if text is None else kind.validate_json(text)
    except ValidationError:
        return None


def _legible(found: Iterable[tuple[str, str | None]]) -> Iterator[Promotion]:
    """A record that we cannot read must not hide the others."""
    for id, record in found:
        with suppress(Unavailable):
            if record is not None:
                yield _promotion(id, record)


def _key(id: str) -> str:
    return f"{{gp}}:p:{id}"


def _hold(target: str) -> str:
    return f"{{gp}}:hold:{target}"


def _follow(target: str) -> str:
    return f"{{gp}}:follow:{target}"


def _turn(branch: str) -> list[str]:
    name = hashlib.sha256(branch.encode()).hexdigest()[:24]
    return [f"{{gp}}:turn:{name}", f"{{gp}}:tip:{name}"]


def _milliseconds(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))
