"""The board in Redis or Valkey: locks, bad versions, verdicts, how long a build ran, and what is done only so often.

Keys carry the tag `{gp}`, so that a cluster keeps them in one slot. Spans are milliseconds of the server's own
clock, never of ours. A script may run twice, because an answer can be lost on its way; so whatever is told to one
caller alone is told to that one again. What can be forgotten has an expiry; locks and bad versions go by hand.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from redis.typing import EncodableT

from bot.core.board import BadVersion, Lock, Report, Scope, Soaked, Wish
from bot.core.catalog import Image
from bot.core.errors import Unavailable
from bot.integrations import lua, scripts
from bot.integrations.redis_address import Client, close
from bot.integrations.redis_trouble import SYSTEM, ask

LOCKS = "{gp}:locks"
WISHES = "{gp}:wishes"
LOOKED_AT = "{gp}:looked-at"
CALLS = "{gp}:calls"

OVER_KEPT = timedelta(days=1)
"""How long a lock that is over stays at least: clocks may differ, and it does not count."""
REPORTS_KEPT = timedelta(days=180)
MOST_REPORTS = 500
"""Verdicts of one version in one environment; the oldest go first, and a check without a verdict is closed."""
DELIVERY_KEPT = timedelta(hours=48)
SOAK_KEPT = timedelta(days=90)
WISH_KEPT = timedelta(days=7)
GROUP_KEPT = timedelta(seconds=30)
CALL_KEPT = timedelta(minutes=1)
"""How long a repetition may still ask what the first try did."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Told = TypeVar("_Told")
_Kept = TypeVar("_Kept", Lock, BadVersion, Report, Soaked, Wish)
_ADAPTERS: Mapping[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (Lock, BadVersion, Report, Soaked, Wish)
}
_MEMBERS = TypeAdapter(frozenset[str])


class RedisBoard:
    """The core's `Board`, wherever `connect` leads. Every method may raise `Unavailable`.

    It raises that also for what is there and cannot be read. What closes a gate (a lock, a bad version, a verdict)
    `wait_replicas` replicas confirm, or the method raises; it may be repeated.
    """

    def __init__(self, client: Client, *, wait_replicas: int = 0) -> None:
        self._client = client
        self._wait_replicas = wait_replicas

    async def locks(self) -> tuple[Lock, ...]:
        """Every lock, also those that are over."""
        return await self._all(Lock, LOCKS)

    async def lock(self, lock: Lock) -> None:
        """Put it up, in the place of one of the same scope. Those that are over for a day are forgotten."""
        ends = None if lock.until is None else _since_epoch(lock.until) // timedelta(milliseconds=1)
        words = (_scope(lock.scope), _text(lock, ends=ends), _milliseconds(OVER_KEPT))
        await self._confirmed(lua.LOCK, *words, keys=[LOCKS])

    async def unlock(self, scope: Scope) -> Lock | None:
        """Take it away and return it, also one that is over; None where there is none.

        One that cannot be read stays: put up another one in its place, and take that away.
        """
        return await self._take_away(Lock, LOCKS, _scope(scope))

    async def bad_versions(self, app: str) -> tuple[BadVersion, ...]:
        """The app's bad versions."""
        return await self._all(BadVersion, _bad(app))

    async def block(self, bad: BadVersion) -> None:
        """Nobody may promote this version from now on."""
        await self._confirmed(lua.PUT, bad.version, _text(bad), keys=[_bad(bad.app)])

    async def unblock(self, app: str, version: str) -> BadVersion | None:
        """It may be promoted again; returns what was put up, None where nothing was."""
        return await self._take_away(BadVersion, _bad(app), version)

    async def reports(self, app: str, environment: str, version: str) -> tuple[Report, ...]:
        """The newest verdict of each check of each build of a version there."""
        return await self._all(Report, _key("reports", app, environment, version))

    async def report(self, report: Report, *, delivery: str | None = None) -> bool:
        """Keep a verdict for 180 days, in the place of an older one of the same check and build.

        False where it changes nothing: a newer one or itself is there, or the reporter has used this `delivery`
        within 48 hours.
        """
        order, call = _since_epoch(report.at) // timedelta(microseconds=1), _new_call()
        keys = [_key("reports", report.app, report.environment, report.image.version)]
        if delivery is not None:
            keys.append(_key("delivery", report.by, delivery))
        field, text = _joined((report.check, report.image.digest)), _text(report, order=order, call=call)
        kept = (_milliseconds(REPORTS_KEPT), _milliseconds(DELIVERY_KEPT))
        return bool(
            await self._confirmed(lua.REPORT, field, text, order, call, MOST_REPORTS, *kept, keys=keys)
        )

    async def soaked(self, app: str, environment: str, image: Image) -> Soaked | None:
        """How long this very build has run healthily there; None where nobody has seen it."""
        key = _soak(app, environment, image)
        found: Any = await self._ask(lambda: self._client.get(key))
        return None if found is None else _read(Soaked, key, found)

    async def soak(self, app: str, environment: str, image: Image, soaked: Soaked) -> None:
        """Remember it, for ninety days after the last look."""
        key, kept = _soak(app, environment, image), _milliseconds(SOAK_KEPT)
        await self._ask(lambda: self._client.set(key, _text(soaked), px=kept), writes=True)

    async def wish(self, wish: Wish) -> None:
        """Remember that somebody wants to be told, for seven days."""
        await self._run(lua.WISH, _text(wish), _milliseconds(WISH_KEPT), keys=[WISHES])

    async def wishes(self) -> tuple[Wish, ...]:
        """Who wants to be told what, longest ago first."""
        found = await self._run(lua.WISHES, keys=[WISHES], writes=False)
        return tuple(_read(Wish, WISHES, text) for text in found)

    async def grant(self, wish: Wish) -> bool:
        """It is about to be told: forget it; False where somebody else has done so first, or it is over."""
        words = (_text(wish), _milliseconds(CALL_KEPT))
        return bool(await self._run(lua.GRANT, *words, keys=[WISHES, _key("call", _new_call())]))

    async def once(self, what: str, *, within: timedelta) -> bool:
        """Is this the first time within this span that somebody is about to do it?"""
        return bool(await self._run(lua.ONCE, _new_call(), _milliseconds(within), keys=[_key("once", what)]))

    async def take(self, who: str, *, most: int, within: timedelta) -> bool:
        """One more of at most `most` within any such span; False where there were so many already."""
        words = (_new_call(), most, _milliseconds(within))
        return bool(await self._run(lua.TAKE, *words, keys=[_key("taken", who)]))

    async def looked_at(self, branch: str) -> str | None:
        """The tip at which somebody looked last for what others brought to a branch; None where nobody has."""
        found: Any = await self._ask(lambda: self._client.hget(LOOKED_AT, branch))
        return None if found is None else str(found)

    async def keep_looked_at(self, branch: str, tip: str) -> None:
        """Everything up to this tip is known."""
        await self._run(lua.PUT, branch, tip, keys=[LOOKED_AT])

    async def call(self, repository: str) -> None:
        """Have whoever looks at this repository's branch look at once."""
        await self._run(lua.PUT, repository, _new_call(), keys=[CALLS])

    async def calls(self) -> Mapping[str, str]:
        """For each repository that was called, by name, a word that is another one after each call."""
        found: Any = await self._ask(lambda: self._client.hgetall(CALLS))
        return dict(found)

    async def group(self, group: str) -> frozenset[str] | None:
        """The people of a user group, as somebody read them within the last thirty seconds."""
        key = _key("group", group)
        found: Any = await self._ask(lambda: self._client.get(key))
        return None if found is None else _checked(_MEMBERS, key, found)

    async def keep_group(self, group: str, members: Sequence[str]) -> None:
        """Share what was read, for thirty seconds from now: a write that is late is shared for less, or not at all."""
        key, text = _key("group", group), _joined(members)
        now = await self._run(lua.CLOCK, keys=[key], writes=False)
        until = int(now) + _milliseconds(GROUP_KEPT)
        await self._ask(lambda: self._client.set(key, text, pxat=until), writes=True)

    async def aclose(self) -> None:
        """Close every connection, and the client with them."""
        await close(self._client)

    async def _all(self, kind: type[_Kept], key: str) -> tuple[_Kept, ...]:
        found: Any = await self._ask(lambda: self._client.hgetall(key))
        return tuple(_read(kind, key, text) for text in found.values())

    async def _take_away(self, kind: type[_Kept], key: str, field: str) -> _Kept | None:
        """Take away what was read, and nothing that somebody has put in its place since."""
        found: Any = await self._ask(lambda: self._client.hget(key, field))
        if found is None:
            return None
        there = _read(kind, key, found)
        words = (field, found, _milliseconds(CALL_KEPT))
        is_ours = await self._run(lua.TAKE_AWAY, *words, keys=[key, _key("call", _new_call())])
        return there if is_ours else None

    async def _run(self, script: str, *words: EncodableT, keys: Sequence[str], writes: bool = True) -> Any:
        return await self._ask(
            lambda: scripts.run(self._client, script, keys=keys, args=words), writes=writes
        )

    async def _confirmed(self, script: str, *words: EncodableT, keys: Sequence[str]) -> Any:
        """The script's answer, when enough replicas have what it wrote."""
        if not self._wait_replicas:
            return await self._run(script, *words, keys=keys)
        wanted = self._wait_replicas
        answer, confirmed = await self._ask(
            lambda: scripts.run_confirmed(self._client, script, keys=keys, args=words, replicas=wanted),
            writes=True,
        )
        if confirmed < wanted:
            raise Unavailable(
                SYSTEM,
                f"only {confirmed} of {wanted} replicas have confirmed the change, and a failover could lose it",
                maybe_done=True,
            )
        return answer

    async def _ask(self, do: Callable[[], Awaitable[_Told]], *, writes: bool = False) -> _Told:
        try:
            return await ask(self._client, do, writes=writes)
        except UnicodeDecodeError as error:
            raise Unavailable(SYSTEM, "it holds something that is no text, and cannot be read") from error


def _text(kept: Lock | BadVersion | Report | Soaked | Wish, **beside: int | str | None) -> str:
    """As JSON, with what the scripts read beside it; equal values give equal words."""
    return _joined({**_ADAPTERS[type(kept)].dump_python(kept, mode="json"), **beside})


def _read(kind: type[_Kept], key: str, text: str) -> _Kept:
    """The value; `Unavailable` where nobody can read it, or where a moment in it has no zone."""
    found: _Kept = _checked(_ADAPTERS[kind], key, text)
    moments = (getattr(found, field.name) for field in fields(found))
    if any(isinstance(moment, datetime) and moment.tzinfo is None for moment in moments):
        raise _unreadable(key)
    return found


def _checked(adapter: TypeAdapter[Any], key: str, text: str) -> Any:
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise _unreadable(key) from error


def _unreadable(key: str) -> Unavailable:
    return Unavailable(
        SYSTEM, f"what it holds in {key} cannot be read; ask whoever runs this bot to put that right"
    )


def _key(*words: str) -> str:
    """`{gp}:reports:["manual-app","prod","15"]`: no two lists of words give the same key."""
    return f"{{gp}}:{words[0]}:{_joined(words[1:])}"


def _bad(app: str) -> str:
    return _key("bad", app)


def _soak(app: str, environment: str, image: Image) -> str:
    return _key("soak", app, environment, image.version, image.digest)


def _scope(scope: Scope) -> str:
    """The field of its lock; an app and an environment may have the same name."""
    return _joined((scope.app, scope.environment))


def _joined(words: Sequence[str | None] | Mapping[str, Any]) -> str:
    return json.dumps(words, ensure_ascii=False, separators=(",", ":"))


def _new_call() -> str:
    return secrets.token_hex(8)


def _since_epoch(moment: datetime) -> timedelta:
    return moment - _EPOCH


def _milliseconds(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))
