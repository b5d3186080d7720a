"""What can go is told once: to the channel, and to everybody who wished for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from test_soaking import FIFTEEN, compared, push, ruled
from world import AMY, CHANNEL, DANA, GUS, World, world_in

from bot import tidings
from bot.core.asking import MOST_WISHES
from bot.core.board import BadVersion, Lock, Report, Scope, Soaked, Wish
from bot.core.catalog import Image
from bot.core.errors import Closed, Refused
from bot.core.readiness import Readiness, Ready
from bot.core.soaking import Soaking
from bot.integrations.slack import SlackNotices
from bot.messages import ready as messages
from bot.messages.ready import ASK_FOR
from bot.worker import end
from handlers.buttons import Buttons

CHECKS = [{"name": name, "reporters": [AMY]} for name in ("unit", "load")]
RULES = {"soak": "24h", "checks": CHECKS, "approvals": {"rules": [{"users": [AMY], "min": 1}]}}
DAY = timedelta(days=1)
SAYS = ":white_check_mark: *manual-app* `15` is ready for *prod*: checks 2/2, soak 24 h."


class Replica:
    """One process of the bot, with a memory of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        drafting = world.new_drafting()
        self.soaking = Soaking(drafting=drafting, clock=world.clock)
        self.readiness = Readiness(drafting=drafting, tell=self.tell)

    async def tell(self, to: str, ready: Ready) -> None:
        """Through Slack, as the bot does."""
        message = messages.ready(ready)
        await SlackNotices(self.world.client).tell(to, message.text, message.blocks)

    async def look(self) -> tuple[str, ...]:
        """One round; returns what was left out."""
        return tuple(await self.world.moving(self._look()))

    async def _look(self) -> tuple[str, ...]:
        seen = await self.soaking.look()
        return (*seen.reasons, *await self.readiness.look(seen.builds))


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    """Only time is missing: stage runs 15, and both checks passed."""
    async with world_in(tmp_path, redis_url) as made:
        ruled(made, **RULES)
        for name in ("unit", "load"):
            await report(made, name)
        yield made


async def report(world: World, check: str, *, passed: bool = True) -> None:
    verdict = Report(
        app="manual-app",
        environment="stage",
        image=FIFTEEN,
        check=check,
        passed=passed,
        by=AMY,
        at=world.clock.now(),
    )
    await world.board.report(world.parts.sealer.sealed_report(verdict))


async def soaked(world: World, build: Image = FIFTEEN) -> None:
    """It has run for a day."""
    await world.board.soak(
        "manual-app", "stage", build, Soaked(total=DAY, seen_at=world.clock.now(), was_healthy=True)
    )


def heard(world: World, user: str | None = None) -> list[str]:
    """What the channel, or a person, was told of its own accord."""
    place = world.slack.direct(user) if user else CHANNEL
    return [each.text for each in world.slack.messages(place) if "is ready for" in each.text]


async def wished(world: World, user: str = DANA, version: str = "15") -> Wish:
    wish = Wish(app="manual-app", environment="prod", version=version, user=user)
    await world.board.wish(wish)
    return wish


async def test_the_channel_hears_once_that_a_build_is_ready(world: World) -> None:
    """Not before its time, then at the next look, and never again: not by three processes, nor after restarts."""
    replicas = [Replica(world) for _ in range(3)]
    for each in replicas:
        assert await each.look() == ()
    assert heard(world) == []
    await soaked(world)
    await world.moving(asyncio.gather(*(each._look() for each in replicas)))
    assert heard(world) == [SAYS]
    for each in (*replicas, Replica(world), Replica(world)):
        await each.look()
    assert heard(world) == [SAYS]


async def test_the_time_itself_makes_it_ready(world: World) -> None:
    """Look by look, minute by minute: it is told in the minute in which the last gate opens."""
    ruled(world, **RULES | {"soak": "5m"})
    replica = Replica(world)
    for minute in range(8):
        await replica.look()
        assert bool(heard(world)) is (minute >= 5), minute
        world.passes(60)


@pytest.mark.parametrize("shut", ["check", "lock", "bad version", "window", "probe", "order"])
async def test_one_closed_gate_keeps_it_from_being_told(world: World, shut: str) -> None:
    """Each gate counts; when it opens, the channel hears of it."""
    await soaked(world)
    lock = Lock(scope=Scope(environment="prod"), by=AMY, reason="a sale", at=world.clock.now())
    if shut == "check":
        world.passes(1)
        await report(world, "load", passed=False)
    elif shut == "lock":
        await world.board.lock(lock)
    elif shut == "bad version":
        bad = BadVersion(app="manual-app", version="15", by=AMY, reason="slow", at=world.clock.now())
        await world.board.block(bad)
    elif shut == "window":
        ruled(world, **RULES, windows=[{"deny": "0 0 * * *", "for": "23h", "zone": "UTC", "why": "closed"}])
    elif shut == "probe":
        probe = {"name": "quota", "url": "http://127.0.0.1:9/", "allow_local": True}
        ruled(world, **RULES, probes=[probe])
    else:
        world.argocd.break_comparisons("manual-app-stage", "rendering failed")
        await compared(world)
    await Replica(world).look()
    assert heard(world) == []
    if shut == "lock":
        await world.board.unlock(lock.scope)
    elif shut == "bad version":
        await world.board.unblock("manual-app", "15")
    elif shut == "check":
        world.passes(1)
        await report(world, "load")
    elif shut == "order":
        world.argocd.mend_comparisons("manual-app-stage")
        await compared(world)
    else:
        ruled(world, **RULES)
    await soaked(world)
    await Replica(world).look()
    assert heard(world) == [SAYS]


async def test_what_is_there_already_is_no_news(world: World) -> None:
    """Prod holds 15: nobody is told that it could go there, and nobody outside is asked whether it could."""
    world.push_by_hand("prod", "15")
    await world.values.current(world.target())
    await soaked(world)
    await wished(world)
    await world.board.wish(Wish(app="manual-app", environment="dev", version="16", user=DANA))
    await Replica(world).look()
    asked = len(world.argocd.requests)
    await Replica(world).readiness.look({"manual-app/prod": FIFTEEN})
    assert heard(world) + heard(world, DANA) == []
    assert len(world.argocd.requests) == asked


async def test_what_the_store_holds_back_is_asked_of_nobody_else(world: World) -> None:
    """As long as soak time is missing, other systems are not asked every minute."""
    asked = len(world.argocd.requests)
    await Replica(world).readiness.look({"manual-app/prod": FIFTEEN})
    assert len(world.argocd.requests) == asked


async def test_approvals_alone_are_no_news(world: World) -> None:
    """Where nothing opens by itself, every build would be ready at once; and 16 is not asked about while 15 runs."""
    ruled(world, approvals=RULES["approvals"])
    await wished(world, version="16")
    await Replica(world).look()
    asked = len(world.argocd.requests)
    await Replica(world).readiness.look({"manual-app/prod": FIFTEEN})
    assert heard(world) == []
    assert len(world.argocd.requests) == asked


async def test_another_build_is_told_again(world: World) -> None:
    """Once a build, not once a target."""
    await soaked(world)
    replica = Replica(world)
    await replica.look()
    ruled(world, soak="1s")
    replica = Replica(world)
    await push(world, "16")
    await replica.look()
    world.passes(60)
    await replica.look()
    assert [each.split("`")[1] for each in heard(world)] == ["15", "16"]


async def test_nobody_is_told_of_a_build_that_cannot_be_proved(world: World) -> None:
    """A request for it would be refused."""
    ruled(world, soak="1s")
    await Replica(world).look()
    world.passes(60)
    drafting = world.new_drafting()
    answers = (await world.moving(drafting.prospect(world.target(), "16")))[1]
    assert not answers.are_open
    await world.moving(Replica(world).readiness.look({"manual-app/prod": Image(version="16")}))
    assert heard(world) == []


async def test_while_slack_is_away_nothing_is_lost(world: World) -> None:
    """It is told when Slack is back, once, and by whichever process comes first, also after a restart."""
    await soaked(world)
    await wished(world)
    world.slack.down = True
    reasons = await Replica(world).look()
    assert "Slack is not available" in reasons[0]
    await Replica(world).look()
    world.slack.down = False
    await Replica(world).look()
    await Replica(world).look()
    assert (heard(world), heard(world, DANA)) == ([SAYS], [SAYS])
    assert await world.board.wishes() == ()


async def test_who_is_stopped_while_telling_leaves_it_to_the_next(world: World) -> None:
    """A restart in the middle takes it from nobody."""
    await soaked(world)
    await wished(world)
    begun: list[str] = []

    async def stuck(to: str, _: Ready) -> None:
        begun.append(to)
        await asyncio.Event().wait()

    replica = Replica(world)
    task = asyncio.create_task(replace(replica.readiness, tell=stuck).look({"manual-app/prod": FIFTEEN}))
    await world.until(lambda: len(begun) == 2, "both are being told")
    task.cancel()
    await asyncio.wait([task])
    await Replica(world).look()
    assert (heard(world), heard(world, DANA)) == ([SAYS], [SAYS])


async def test_a_channel_that_is_closed_is_not_tried_for_ever(world: World) -> None:
    """There is nobody to be told; everybody else is."""
    await soaked(world)
    await wished(world)
    tried: list[str] = []

    async def closed(to: str, _: Ready) -> None:
        tried.append(to)
        if to == CHANNEL:
            raise Closed("Slack says is_archived")

    for _ in range(3):
        readiness = replace(Replica(world).readiness, tell=closed)
        await world.moving(readiness.look({"manual-app/prod": FIFTEEN}))
    assert sorted(tried) == sorted([CHANNEL, DANA])


async def test_who_wished_for_it_is_told_once(world: World) -> None:
    """Directly, when the last gate opens, once over three processes; who wished for another version is not."""
    await wished(world)
    await wished(world, AMY)
    other = await wished(world, AMY, "16")
    replicas = [Replica(world) for _ in range(3)]
    await replicas[0].look()
    assert heard(world, DANA) == []
    await soaked(world)
    await world.moving(asyncio.gather(*(each._look() for each in replicas)))
    await replicas[0].look()
    assert (heard(world, DANA), heard(world, AMY)) == ([SAYS], [SAYS])
    assert await world.board.wishes() == (other,)


async def test_who_is_no_member_any_more_is_told_nothing(world: World) -> None:
    """The wish of somebody who became a guest is forgotten."""
    await soaked(world)
    await wished(world, GUS)
    await Replica(world).look()
    assert (heard(world, GUS), await world.board.wishes()) == ([], ())


async def test_wishes_for_environments_without_rules_are_granted(world: World) -> None:
    """A lock can be in the way anywhere: also the first environment has wishes."""
    lock = Lock(scope=Scope(environment="dev"), by=AMY, reason="a sale", at=world.clock.now())
    await world.board.lock(lock)
    wish = Wish(app="manual-app", environment="dev", version="17", user=DANA)
    await world.board.wish(wish)
    await Replica(world).look()
    assert heard(world, DANA) == []
    await world.board.unlock(lock.scope)
    await Replica(world).look()
    assert heard(world, DANA) == [":white_check_mark: *manual-app* `17` is ready for *dev*."]


async def test_a_wish_for_what_the_file_does_not_name_any_more_hinders_nobody(world: World) -> None:
    """It is left alone until it is over."""
    await soaked(world)
    await world.board.wish(Wish(app="gone", environment="prod", version="1", user=DANA))
    await wished(world)
    assert await Replica(world).look() == ()
    assert heard(world, DANA) == [SAYS]


async def test_the_button_asks_for_what_was_told(world: World) -> None:
    """The message has one button; pressed, it makes the request of whoever pressed it."""
    await soaked(world)
    replica = Replica(world)
    await replica.look()
    [message] = [each for each in world.slack.messages(CHANNEL) if "is ready" in each.text]
    [button] = message.blocks[1]["elements"]
    assert (button["action_id"], button["text"]["text"]) == (ASK_FOR, "Ask for prod")
    body = {"actions": [button], "user": {"id": DANA}, "trigger_id": "1.2"}
    buttons = Buttons(
        promoter=world.promoter, keeper=world.keeper, notices=SlackNotices(world.client), client=world.client
    )
    answer = await world.moving(buttons.ask_for(body))
    assert await world.moving(buttons.ask_for(body)) == answer
    [promotion] = await world.pending()
    assert (promotion.version, promotion.environment, promotion.requested_by.id) == ("15", "prod", DANA)
    with pytest.raises(Refused, match="I do not know this button"):
        await buttons.ask_for(body | {"actions": [{"value": "prod 15"}]})


async def tell_me(
    world: World, version: str | None = None, user: str = DANA, environment: str = "prod"
) -> None:
    work = world.promoter.tell_me(app="manual-app", environment=environment, version=version, user=user)
    await world.moving(work)


async def test_a_wish_without_a_version_is_for_what_stage_runs(world: World) -> None:
    """The version is found as a request would find it, and that wish is granted."""
    await tell_me(world)
    assert await world.board.wishes() == (
        Wish(app="manual-app", environment="prod", version="15", user=DANA),
    )
    await soaked(world)
    await Replica(world).look()
    assert heard(world, DANA) == [SAYS]


async def test_who_may_not_ask_may_not_wish(world: World) -> None:
    """Neither guests nor those whom `requesters` leaves out, nor for what is there already."""
    with pytest.raises(Refused, match="guests may not"):
        await tell_me(world, user=GUS)
    with pytest.raises(Refused, match="already runs 14"):
        await tell_me(world, "14")
    with pytest.raises(Refused, match="is the first environment"):
        await tell_me(world, environment="dev")
    ruled(world, **RULES, requesters=[AMY])
    with pytest.raises(Refused, match="You may not request"):
        await tell_me(world)
    assert await world.board.wishes() == ()


async def test_nobody_has_more_than_twenty_wishes(world: World) -> None:
    """The same one again is no other, and other people's do not count."""
    for number in range(MOST_WISHES - 1):
        await wished(world, version=str(100 + number))
    await wished(world, AMY)
    await tell_me(world)
    await tell_me(world)
    with pytest.raises(Refused, match="You wait to be told of 20 versions already"):
        await tell_me(world, "16")
    assert len(await world.board.wishes()) == MOST_WISHES + 1


async def test_the_running_bot_looks_reminds_and_tells(world: World) -> None:
    """All of it together, as a worker begins it: the channel hears what is ready, and an owner of their lock."""
    await soaked(world)
    at = world.clock.now() - DAY
    await world.board.lock(Lock(scope=Scope(environment="dev"), by=DANA, reason="a sale", at=at))
    works = tidings.works(world.new_drafting(), SlackNotices(world.client), world.clock, world.alarms.append)
    tasks = [asyncio.create_task(work) for work in works]

    def locks() -> list[str]:
        return [each.text for each in world.slack.messages(world.slack.direct(DANA))]

    await world.until(lambda: heard(world) and locks(), "both are told")
    assert heard(world) == [SAYS]
    assert "You locked *dev*" in locks()[0]
    for task in tasks:
        await end(task)
