"""Promotions in Redis or Valkey: the record, its story, its indexes, and the due set that drives the work.

Every rule about a promotion lives in the core; here, one script saves any number of changes at once or none of
them. Scripts may run twice, because an answer can be lost on its way. Keys carry the tag `{gp}`, so that a
cluster keeps them in one slot. Scores and delays are milliseconds of the server's own clock, never of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio.client import PubSub
from redis.typing import EncodableT

from bot.core.catalog import Target
from bot.core.dossier import Dossier
from bot.core.errors import Conflict, TargetBusy, Unavailable
from bot.core.ports import Card, Change, Settled
from bot.core.promotion import SCHEMA, Event, Phase, Promotion, PromotionId
from bot.core.rollout import Look
from bot.integrations import lua, records, scripts
from bot.integrations.redis_address import Client, close, connect
from bot.integrations.redis_trouble import SYSTEM, ask
from bot.integrations.soundness import Finding, examine
from bot.telemetry import TRANSITIONS

__all__ = ["RedisStore", "connect"]

DUE = "{gp}:due"
WAKE = "{gp}:wake"
DELIVERY_KEPT = timedelta(hours=48)
DOSSIER_KEPT = timedelta(days=100)
REVISION_TOLD = timedelta(hours=1)
NOTHING = "nothing "
"""Stands, with the hash of what a delivery said, where else the id of the promotion stands that it has made."""

_Told = TypeVar("_Told")


class RedisStore:
    """The core's `Store` and `Queue`, wherever `connect` leads. Every method may raise `Unavailable`.

    What `create`, `settle` and `save` write, `wait_replicas` replicas confirm, or the method raises: it may be
    repeated, and then asks for their confirmation again. `allow_plain` accepts a server on another machine without
    encryption or password.
    """

    def __init__(self, client: Client, *, wait_replicas: int = 0, allow_plain: bool = False) -> None:
        self._client = client
        self._wait_replicas = wait_replicas
        self._allow_plain = allow_plain
        self._me = secrets.token_hex(8)
        self._wakes: PubSub | None = None
        self._listening = asyncio.Lock()

    async def create(
        self, promotion: Promotion, *, delivery: str | None, holds: bool, instead_of: Change | None = None
    ) -> PromotionId:
        """Save a new promotion, due now, and return its id, or the one that the delivery made before.

        `instead_of` ends, in the same call, the promotion whose hold it takes. Raises `TargetBusy` where another one
        holds the target, `Conflict` where the id is taken, or that promotion has moved on, `Settled` as `delivered`.
        """
        changes = [Change(before=None, after=promotion), *([instead_of] if instead_of else [])]
        return await self._write(changes, holds=holds, delivery=delivery) or promotion.id

    async def delivered(self, delivery: str) -> PromotionId | None:
        """The promotion that this delivery has made within 48 hours; None where it was not seen.

        Raises `Settled` where there was nothing to do for it.
        """
        made = await self._owner(f"{{gp}}:req:{delivery}")
        return None if made is None else _made(made)

    async def settle(self, delivery: str, *, said: str) -> PromotionId | None:
        """Remember for 48 hours that there was nothing to do for a delivery that said this.

        One that was seen is left as it is: returns the promotion that it has made, or raises `Settled` where it had
        said something else. Safe to repeat.
        """
        words = (delivery, NOTHING + said, _milliseconds(DELIVERY_KEPT))
        _, made = await self._ask(lambda: self._confirmed(lua.SETTLE, words), writes=True)
        return None if made == NOTHING + said else _made(made)

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
        return None if record is None else records.promotion(id, record)

    async def events(self, id: str, *, after: int = 0) -> tuple[Event, ...]:
        """Its story in order, from the event that follows edition `after`."""
        found: list[Any] = await self._ask(lambda: self._client.lrange(f"{_key(id)}:e", after, -1))
        return records.events(found)

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

    async def count(self, phase: Phase) -> int:
        """How many promotions are in a phase."""
        return int(await self._ask(lambda: self._client.zcard(f"{{gp}}:ph:{phase}")))

    async def history(self, target: Target, *, limit: int = 10) -> tuple[Promotion, ...]:
        """The target's promotions, newest first; without unreadable ones."""
        return await self._records(f"{{gp}}:ix:{target.name}", limit=limit, newest_first=True)

    async def card(self, id: str) -> Card:
        """What the people have seen of it; nothing, where that cannot be read: the card is posted anew."""
        found: Any = await self._ask(lambda: self._client.get(f"{_key(id)}:card"))
        return records.read(Card, found)

    async def save_card(self, id: str, card: Card) -> Card:
        """Remember what the people have seen, and return it as its next edition; `Conflict` where it is not that."""
        after = replace(card, edition=card.edition + 1)
        words = (records.beside(after), card.edition)
        if await self._run(lua.SAVE_CARD, *words, keys=[f"{_key(id)}:card"]) != "OK":
            raise Conflict(f"Somebody else has shown {id} since; nothing was saved.")
        return after

    async def look(self, id: str) -> Look:
        """The last look at its rollout; empty where there was none, or none that can be read."""
        found: Any = await self._ask(lambda: self._client.get(f"{_key(id)}:look"))
        return records.read(Look, found)

    async def save_look(self, id: str, look: Look) -> None:
        """Remember the last look; the last write wins, and no edition is counted."""
        await self._ask(lambda: self._client.set(f"{_key(id)}:look", records.beside(look)), writes=True)

    async def dossier(self, id: str) -> Dossier | None:
        """What was found about it when it was asked for; None where nothing is kept."""
        found: Any = await self._ask(lambda: self._client.get(f"{_key(id)}:dossier"))
        return None if found is None else records.dossier(id, found)

    async def save_dossier(self, id: str, dossier: Dossier) -> None:
        """Keep it for a hundred days: longer than any promotion is open."""
        text, kept = records.dossier_text(dossier), _milliseconds(DOSSIER_KEPT)
        await self._ask(lambda: self._client.set(f"{_key(id)}:dossier", text, px=kept), writes=True)

    async def forget_dossier(self, id: str) -> None:
        """The promotion was not made after all."""
        await self._ask(lambda: self._client.delete(f"{_key(id)}:dossier"), writes=True)

    async def claim(self, *, limit: int, lease: timedelta) -> tuple[PromotionId, ...]:
        """Up to `limit` promotions that are due, longest first; each is due again after `lease`.

        What a newer version of the bot has written is left to that one.
        """
        ids = await self._run(lua.CLAIM, limit, _milliseconds(lease), SCHEMA, self._me)
        return tuple(PromotionId(id) for id in ids)

    async def renew(self, ids: Sequence[str], *, lease: timedelta) -> None:
        """Put off the next look at these for another `lease`, where nobody else has claimed them meanwhile."""
        await self._run(lua.RENEW, _milliseconds(lease), self._me, *ids)

    async def rest(self, id: str, *, edition: int, after: timedelta | None) -> None:
        """Look again `after` this long; None: never. At once, where the record has moved on from `edition`.

        Nothing happens where somebody else has claimed it meanwhile: that one rests.
        """
        pause = "" if after is None else _milliseconds(after)
        await self._run(lua.REST, id, edition, pause, self._me)

    async def wake(self, id: str) -> None:
        """Make it due now, where it exists; what a worker holds is due when that worker rests."""
        await self._run(lua.WAKE, id)

    async def take_turn(self, branch: str, *, by: str, lease: timedelta) -> tuple[bool, str | None]:
        """Whether the branch is `by`'s to write for `lease`, and the revision that the last one left there."""
        said = await self._run(lua.TAKE_TURN, by, _milliseconds(lease), keys=_turn(branch))
        return said[0] == "OURS", str(said[1]) or None

    async def end_turn(self, branch: str, *, by: str, revision: str | None) -> None:
        """Give the branch to the next one; `revision` is where it stands now, None where nothing was pushed."""
        kept = _milliseconds(REVISION_TOLD)
        await self._run(lua.END_TURN, by, revision or "", kept, keys=_turn(branch))

    async def wait(self, timeout: float) -> None:
        """Return when something became due, or after `timeout` seconds; waiters of one store take turns."""
        async with self._listening:
            until = asyncio.get_running_loop().time() + timeout
            await self._ask(lambda: self._hear(until))

    async def sweep(self, *, before_days: timedelta, write: Callable[[str], None], limit: int) -> int:
        """Forget up to `limit` promotions that ended longer ago than `before_days`; returns how many.

        Each is first handed to `write` as one line of JSON, its record and its events; `write` returns when the
        line is safe. Where several sweep, or one is stopped, a line may be written twice. What is still due, holds
        its target, or was written by a newer version of the bot is kept.

        Raises `ValueError` for less than 48 hours: a delivery may still ask for its promotion.
        """
        if before_days < DELIVERY_KEPT:
            raise ValueError(f"promotions are kept for {DELIVERY_KEPT} at least")
        swept = 0
        for phase in (phase for phase in Phase if phase.is_final):
            passed = 0
            while swept < limit:
                age = _milliseconds(before_days)
                ids = await self._run(lua.ENDED, phase, age, passed, limit - swept)
                for id in ids:
                    forgotten = await self._forget(id, phase, write)
                    swept += forgotten
                    passed += not forgotten
                if not ids:
                    break
        return swept

    async def ping(self) -> None:
        """Return where the server that holds the keys answers."""
        await self._ask(lambda: self._client.type(DUE))

    async def soundness(self) -> list[Finding]:
        """Is the server one that may be trusted with promotions?"""
        look = partial(
            examine, self._client, wait_replicas=self._wait_replicas, allow_plain=self._allow_plain
        )
        return await self._ask(look)

    async def aclose(self) -> None:
        """Close every connection, and the client with them."""
        await self._stop_listening()
        await close(self._client)

    async def _write(
        self, changes: Sequence[Change], *, holds: bool, delivery: str | None
    ) -> PromotionId | None:
        """Run the one script that saves; returns the id that the delivery made before, if it did."""
        saved = json.dumps([_arguments(change, holds=holds) for change in changes])
        words = (saved, delivery or "", _milliseconds(DELIVERY_KEPT))
        code, detail = await self._ask(lambda: self._confirmed(lua.SAVE, words), writes=True)
        target = changes[0].after.target
        if code == "BUSY":
            raise TargetBusy(
                f"{target} is taken by {detail}: wait until that one is written or ended, or cancel it first.",
                holder=detail,
            )
        if code == "CONFLICT":
            raise Conflict(f"{detail} was changed by somebody else at the same moment; nothing was saved.")
        if code == "SEEN":
            return _made(detail)
        for change in changes:
            if change.before is None or change.before.phase is not change.after.phase:
                TRANSITIONS.labels(phase=change.after.phase, environment=change.after.environment).inc()
        return None

    async def _confirmed(self, script: str, words: Sequence[EncodableT]) -> Any:
        """The answer of a script that saves, when enough replicas have what it wrote."""
        if not self._wait_replicas:
            return await scripts.run(self._client, script, keys=[DUE], args=words)
        answer, confirmed = await scripts.run_confirmed(
            self._client, script, keys=[DUE], args=words, replicas=self._wait_replicas
        )
        if answer[0] in ("OK", "SEEN") and confirmed < self._wait_replicas:
            raise Unavailable(
                SYSTEM,
                f"only {confirmed} of {self._wait_replicas} replicas have confirmed the change, and a failover could "
                "lose it",
                maybe_done=True,
            )
        return answer

    async def _run(self, script: str, *words: EncodableT, keys: Sequence[str] = (DUE,)) -> Any:
        return await self._ask(lambda: scripts.run(self._client, script, keys=keys, args=words), writes=True)

    async def _forget(self, id: str, phase: Phase, write: Callable[[str], None]) -> bool:
        """Write one down and forget it, if it can be read and nobody works with it any more."""
        record: Any = await self._ask(lambda: self._client.hget(_key(id), "record"))
        story: list[Any] = await self._ask(lambda: self._client.lrange(f"{_key(id)}:e", 0, -1))
        found = next(records.legible([(id, record)]), None)
        if found is None or found.phase is not phase:
            return False
        write(records.line(record, story))
        words = (id, found.edition, phase, found.target, found.requested_by.id)
        return bool(await self._run(lua.FORGET, *words))

    async def _ask(self, do: Callable[[], Awaitable[_Told]], *, writes: bool = False) -> _Told:
        return await ask(self._client, do, writes=writes)

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

        return tuple(records.legible(await self._ask(read)))

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
        "schema": records.schema(after),
        "reads": SCHEMA,
        "keeps": after.phase.holds,
        "record": records.record(after),
        "event": records.event(after.last),
        "from": before.phase if before else "",
        "to": after.phase,
        "target": after.target,
        "gives": [slot for slot, wanted in has.items() if not wanted],
        "takes": [slot for slot, wanted in has.items() if wanted],
    }


def _made(remembered: str) -> PromotionId:
    """The promotion that a delivery has made; raises `Settled` where there was nothing to do."""
    if remembered.startswith(NOTHING):
        raise Settled(remembered.removeprefix(NOTHING))
    return PromotionId(remembered)


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
