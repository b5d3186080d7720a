"""What was true is looked at again: tags that were pushed anew, and locks that still stand or are over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from registry_servers import OCI_INDEX, digest_of, internet_in, manifest
from test_same_image import IMAGE, PLATFORM, Shop
from world import AMY, CHANNEL, DANA, GUS, World, world_in

from bot.core.board import Lock, Scope
from bot.core.doing_once import Once
from bot.core.errors import Closed, Unavailable
from bot.core.promotion import Phase
from bot.core.reminding import Reminding
from bot.core.rereading import Rereading
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.messages.mrkdwn import Message
from bot.messages.ready import pushed_anew, standing

AUDIT = "C0AUDIT0001"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PROD = Scope(environment="prod")


@dataclass
class Told:
    """What was told to whom, in words; Slack may be away, and a channel closed."""

    words: Callable[[Any], Message]
    messages: list[tuple[str, str]] = field(default_factory=list)
    is_away: bool = False
    closed: str = ""

    async def tell(self, to: str, news: Any) -> None:
        """One message."""
        if to == self.closed:
            raise Closed("Slack says is_archived")
        if self.is_away:
            raise Unavailable("Slack", "it restarts")
        self.messages.append((to, self.words(news).text))

    @property
    def places(self) -> list[str]:
        """Who was told something."""
        return [to for to, _ in self.messages]


@pytest.fixture
async def shop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """A registry that has the builds that run, and an audit channel."""
    async with internet_in(tmp_path, monkeypatch) as internet, world_in(tmp_path, redis_url) as world:
        registry = Registry({"ghcr.io": Access()}, verify=internet.verify)
        catalog = world.configure(registries={"ghcr.io": {}}, slack={"channel": CHANNEL, "audit": AUDIT})
        world.parts = replace(world.parts, catalog=catalog, images=registry)
        world.engine = world.new_engine()
        made = Shop(world, internet)
        for version in ("14", "15", "16"):
            push(made, version, digest_of(f"{IMAGE}:{version}".encode()))
        yield made
        await registry.aclose()


def push(shop: Shop, version: str, platform: str, *, build: str = "one") -> str:
    """Push a version that consists of one platform's build; returns its digest."""
    index = manifest(OCI_INDEX, manifests=[{"digest": platform}], annotations={"build": version + build})
    return shop.images.put("acme/manual-app", version, OCI_INDEX, index)


@pytest.fixture
def told() -> Told:
    return Told(pushed_anew)


def rereading(shop: Shop, told: Told) -> Rereading:
    """What reads again, as another process would have it."""
    world = shop.world
    return Rereading(
        drafting=world.new_drafting(), once=Once(world.board), tell=told.tell, alarm=world.alarms.append
    )


async def reread(shop: Shop, work: Rereading) -> tuple[str, ...]:
    found: tuple[str, ...] = await shop.world.moving(work.reread())
    return found


async def test_what_is_as_it_was_is_not_worth_a_word(shop: Shop, told: Told) -> None:
    """The registry names the index, the pods their platform of it: that is the same build."""
    assert await reread(shop, rereading(shop, told)) == ()
    assert (told.messages, shop.world.alarms) == ([], [])


async def test_a_tag_that_was_pushed_anew_is_told_once(shop: Shop, told: Told) -> None:
    """In the channel and in the audit channel, with both digests, and as one alarm; not again after a restart."""
    new = push(shop, "15", digest_of(b"another build"), build="two")
    works = [rereading(shop, told) for _ in range(3)]
    await shop.world.moving(asyncio.gather(*(each.reread() for each in works)))
    await reread(shop, rereading(shop, told))
    assert sorted(told.places) == [AUDIT, CHANNEL]
    for text in (*(text for _, text in told.messages), *shop.world.alarms):
        assert PLATFORM in text
        assert new in text
    [alarm] = shop.world.alarms
    assert "manual-app/stage" in alarm
    again = push(shop, "15", digest_of(b"a third build"), build="three")
    await reread(shop, works[0])
    assert again in told.messages[-1][1]
    assert len(told.messages) == 4


async def test_what_the_commit_names_goes_before_what_pods_report(shop: Shop, told: Told) -> None:
    """The digest that was approved stands in the trailer, also while nothing of it runs yet."""
    old = push(shop, "15", PLATFORM)
    await shop.world.committed()
    new = push(shop, "15", PLATFORM, build="two")  # made of the same platforms, and another index
    await reread(shop, rereading(shop, told))
    assert {(old in text, new in text, "*prod*" in text) for _, text in told.messages} == {(True, True, True)}


async def test_the_commit_of_another_version_proves_nothing(shop: Shop, told: Told) -> None:
    """Somebody has pushed 14 by hand since: the digest of 15 is not its own."""
    await shop.world.committed()
    shop.world.push_by_hand("prod", "14")
    assert await reread(shop, rereading(shop, told)) == ()
    assert told.messages == []


async def test_the_newest_commit_counts(shop: Shop, told: Told) -> None:
    """The same version was brought twice, and its tag pushed anew between: what was approved last is what is live."""
    world = shop.world
    await world.advance_until(await world.committed(), Phase.LIVE)
    world.push_by_hand("prod", "14")
    push(shop, "15", PLATFORM, build="two")
    await world.committed()
    await reread(shop, rereading(shop, told))
    assert not [text for _, text in told.messages if "*prod*" in text]


async def test_what_nobody_knows_is_not_guessed(shop: Shop, told: Told) -> None:
    """Git holds 16 for prod, and the pods still run 14: no digest of one is held against the other."""
    shop.world.push_by_hand("prod", "16")
    push(shop, "14", digest_of(b"another build"), build="two")
    await reread(shop, rereading(shop, told))
    assert told.messages == []


async def test_a_registry_that_is_away_is_no_news(shop: Shop, told: Told) -> None:
    """The reason is returned, nothing is announced, and the next hour asks again."""
    push(shop, "15", digest_of(b"another build"), build="two")
    shop.is_away()
    work = rereading(shop, told)
    assert "ghcr.io is not available" in (await reread(shop, work))[0]
    assert (told.messages, shop.world.alarms) == ([], [])
    shop.is_away(False)
    await reread(shop, work)
    assert len(told.messages) == 2


async def test_git_that_is_away_leaves_out_its_targets(shop: Shop, told: Told) -> None:
    """Commits that cannot be read are never taken for none: their digests would be missed."""
    await shop.world.committed()
    push(shop, "15", PLATFORM, build="two")
    with shop.world.git_host_away():
        [reason] = await reread(shop, rereading(shop, told))
    assert "git host is not available" in reason
    assert told.messages == []


async def test_news_that_slack_did_not_take_is_told_in_the_next_hour(shop: Shop, told: Told) -> None:
    """The alarm is raised at once, and once; a closed channel keeps it from no other one."""
    push(shop, "15", digest_of(b"another build"), build="two")
    work = rereading(shop, told)
    told.is_away = True
    assert "Slack is not available: it restarts" in await reread(shop, work)
    assert (told.messages, len(shop.world.alarms)) == ([], 1)
    told.is_away, told.closed = False, CHANNEL
    await reread(shop, work)
    assert told.places == [AUDIT]
    told.closed = ""
    await reread(shop, work)
    assert (told.places, len(shop.world.alarms)) == ([AUDIT], 1)


async def test_apps_without_a_registry_are_left_alone(shop: Shop, told: Told) -> None:
    """Nobody could say what their tags name."""
    shop.world.parts = replace(shop.world.parts, catalog=shop.world.configure())
    asked = len(shop.internet.asked)
    assert await reread(shop, rereading(shop, told)) == ()
    assert len(shop.internet.asked) == asked


# --- locks


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def reminding(world: World, told: Told) -> Reminding:
    """What reminds, as another process would have it."""
    return Reminding(
        board=world.board,
        directory=world.directory,
        clock=world.clock,
        once=Once(world.board),
        tell=told.tell,
    )


async def locked(world: World, *, lasts: timedelta | None = None, by: str = DANA) -> Lock:
    now = world.clock.now()
    lock = Lock(scope=PROD, by=by, reason="a <sale>", at=now, until=now + lasts if lasts else None)
    await world.board.lock(lock)
    return lock


async def test_the_owner_of_a_lock_is_reminded_once_a_day(world: World) -> None:
    """Hour by hour, over three processes: nothing on the first day, then one message a day, until it is gone."""
    told = Told(standing)
    processes = [reminding(world, told) for _ in range(3)]
    await locked(world)
    for hour in range(73):
        await asyncio.gather(*(each.remind() for each in processes))
        assert len(told.messages) == hour // 24, hour
        world.clock.at += HOUR
    assert set(told.places) == {DANA}
    assert "a &lt;sale&gt;" in told.messages[0][1]
    assert "/promote unlock prod" in told.messages[0][1]
    await world.board.unlock(PROD)
    world.clock.at += DAY
    await processes[0].remind()
    assert len(told.messages) == 3


async def test_the_owner_is_told_once_when_it_is_over(world: World, redis_url: str) -> None:
    """At its end, not before it, not by every process, and not weeks later."""
    told = Told(standing)
    await locked(world, lasts=2 * HOUR)
    world.clock.at += 2 * HOUR - timedelta(seconds=1)
    await reminding(world, told).remind()
    assert told.messages == []
    world.clock.at += timedelta(seconds=1)
    for _ in range(3):
        await reminding(world, told).remind()
    [(owner, text)] = told.messages
    assert (owner, "is over" in text) == (DANA, True)
    world.clock.at += 8 * DAY
    with Redis.from_url(redis_url) as raw:
        raw.delete(*raw.scan_iter("{gp}:once*"))
    await reminding(world, told).remind()
    assert len(told.messages) == 1


async def test_another_lock_in_its_place_is_another_one(world: World) -> None:
    """Its days begin anew."""
    told = Told(standing)
    await locked(world)
    world.clock.at += DAY
    await reminding(world, told).remind()
    await locked(world)
    await reminding(world, told).remind()
    world.clock.at += DAY
    await reminding(world, told).remind()
    assert len(told.messages) == 2


async def test_a_reminder_that_slack_did_not_take_is_sent_again(world: World) -> None:
    """In the next round, by the process that tried; each owner by themselves."""
    told = Told(standing, is_away=True)
    work = reminding(world, told)
    await locked(world)
    world.clock.at += DAY
    assert await work.remind() == ("Slack is not available: it restarts",)
    told.is_away = False
    assert await work.remind() == ()
    await work.remind()
    assert told.places == [DANA]


async def test_who_is_no_member_any_more_is_not_reminded(world: World) -> None:
    """A guest is told nothing; the next lock's owner is."""
    told = Told(standing)
    await locked(world, by=GUS)
    await world.board.lock(Lock(scope=Scope(), by=AMY, reason="a sale", at=world.clock.now()))
    world.clock.at += DAY
    assert await reminding(world, told).remind() == ()
    assert told.places == [AMY]
