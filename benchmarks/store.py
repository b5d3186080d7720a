"""What the store costs on the server that the bot brings along, which writes everything to disk before it answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from store_bench import DEV, NOON, approved, committed, committing, new, saved

from benchmarks.report import Bar, Figure, ratio
from bot.core.ports import Card, Change
from bot.core.progress import Stage
from bot.core.promotion import Approval, Phase, Promotion, Signer, new_id
from bot.core.rollout import Look, Progress
from bot.integrations import embedded
from bot.integrations.store import RedisStore, connect

SAVE_BAR = Bar(limit=0.25, is_floor=True)
PAGE_BAR = Bar(limit=60)
MEMORY_BAR = Bar(limit=3000)
OPEN = 10_000
ENDED = 1_000
AMY = Signer(id="U0APPROVER", team="T0ACME", name="Amy Approver", email="amy@acme.example")
LINK = "https://acme.slack.com/archives/C0DEPLOYS/p1772366400000000"


def kept(folder: Path, *, rounds: int) -> Iterator[Figure]:
    """How fast a promotion is saved and a page is read, and how much memory one takes when it has ended."""
    server = embedded.start(folder)
    try:
        yield from asyncio.run(_measured(server.url, rounds=rounds))
    finally:
        asyncio.run(server.stop())


async def _measured(url: str, *, rounds: int) -> list[Figure]:
    store = RedisStore(connect(url, quick=False))
    raw = Redis.from_url(url, decode_responses=True, protocol=2)
    try:
        return [
            await _memory(store, raw),
            await _saves(store, raw, rounds=rounds),
            await _pages(store, raw, rounds=rounds),
        ]
    finally:
        await store.aclose()
        await raw.aclose()


async def _saves(store: RedisStore, raw: Redis, *, rounds: int) -> Figure:
    """Twenty of each a round, in turn."""
    plain, ours = [], []
    for _ in range(rounds):
        made = [await saved(store, new(DEV), holds=False) for _ in range(20)]
        plain.append(await _seconds(lambda: raw.set("{gp}:plain", "x" * 1000), times=20))
        ours.append(await _seconds(partial(_approve_next, store, iter(made)), times=20))
    return ratio("a save against a plain SET, both on disk", plain, ours, bar=SAVE_BAR)


async def _approve_next(store: RedisStore, made: Iterator[Promotion]) -> None:
    promotion = next(made)
    await store.save([Change(before=promotion, after=approved(promotion))], holds=False)


async def _pages(store: RedisStore, raw: Redis, *, rounds: int) -> Figure:
    first = new(DEV)
    for _ in range(OPEN // 200):
        made = [replace(first, id=new_id()) for _ in range(200)]
        await asyncio.gather(*(store.create(each, delivery=None, holds=False) for each in made))
    some = (await store.in_phase(Phase.REQUESTED))[0]
    one = [await _seconds(lambda: raw.hget(f"{{gp}}:p:{some.id}", "record"), times=20) for _ in range(rounds)]
    pages = [await _seconds(lambda: store.in_phase(Phase.REQUESTED), times=20) for _ in range(rounds)]
    return ratio(f"a page of 50 out of {OPEN:,} against one HGET", pages, one, bar=PAGE_BAR)


async def _memory(store: RedisStore, raw: Redis) -> Figure:
    """Bytes of every key that is a promotion's own, after ten events."""
    for _ in range(ENDED):
        last = await saved(store, *_life())
        card = Card(
            channel="C0DEPLOYS", ts="1772366400.000000", link=LINK, shown="a" * 16, told=10, phase=last.phase
        )
        await store.save_card(last.id, card)
        await store.save_look(last.id, _LOOK)
    keys = [key async for key in raw.scan_iter(match="{gp}:p:*", count=1000)]
    used = sum([await raw.memory_usage(key, samples=0) or 0 for key in keys])
    return Figure(
        what="memory of an ended promotion with ten events",
        values=(used / ENDED,),
        unit="bytes",
        bar=MEMORY_BAR,
    )


_LOOK = Look(
    applications=(
        Progress(
            name="manual-app-prod",
            stage=Stage.ROLLING_OUT,
            since=NOON,
            says="3 of 3 pods run it",
            seen_at=NOON,
            pods="3 of 3 pods run 15",
        ),
    )
)


def _life() -> list[Promotion]:
    """Approved twice, withdrawn once, written at the second try, and live."""
    editions = [replace(new(by=AMY), dossier="d" * 32)]

    def go_on(after: Promotion) -> None:
        editions.append(after)

    for _ in range(2):
        at = editions[-1].last.at + timedelta(seconds=3, microseconds=123456)
        word = Approval(by=AMY, at=at, content_hash=editions[-1].content_hash, seal="1" * 64)
        go_on(editions[-1].approve(word))
        if len(editions) == 2:
            go_on(editions[-1].withdraw(by=AMY.id, at=at))
    go_on(editions[-1].reach_quorum(at=NOON, link=LINK))
    go_on(committing(editions[-1]))
    go_on(editions[-1].reopen(at=NOON))
    go_on(committing(editions[-1]))
    go_on(committed(editions[-1]))
    go_on(editions[-1].go_live(at=NOON, why="every pod of 3 runs ghcr.io/acme/manual-app:15"))
    return editions


async def _seconds(do: Callable[[], Awaitable[object]], *, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        await do()
    return (time.perf_counter() - start) / times
