"""User groups that all processes share: Slack is asked seldom, and never answered for."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis_servers import opened
from world import AMY, BEN, BOT_TOKEN, DANA, GROUP, SEAL_SECRET, SIGNING_SECRET, populate

from bot.core.errors import NoGroup, Unavailable
from bot.core.seals import Sealer
from bot.integrations.board import RedisBoard
from bot.integrations.redis_address import connect
from bot.integrations.slack import SlackDirectory, web_client
from bot.outside import SystemClock
from bot.playground.slack.fake import FakeSlack
from bot.shared_directory import SharedDirectory

METHOD = "usergroups.users.list"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    made = FakeSlack(signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN)
    populate(made)
    made.add_group(GROUP, handle="release", users=[AMY, BEN])
    await made.start()
    yield made
    await made.stop()


class Processes:
    """Processes of the bot that share a store, each with clients of its own."""

    def __init__(self, slack: FakeSlack) -> None:
        self._slack = slack
        self.closing = AsyncExitStack()

    def start(self, redis_url: str) -> SharedDirectory:
        """One more."""
        board = RedisBoard(connect(redis_url, quick=True))
        self.closing.push_async_callback(board.aclose)
        people = SlackDirectory(web_client(BOT_TOKEN, api_url=self._slack.api_url))
        return SharedDirectory(directory=people, board=board, sealer=Sealer(SEAL_SECRET), clock=SystemClock())


@pytest.fixture
async def processes(slack: FakeSlack) -> AsyncIterator[Processes]:
    made = Processes(slack)
    async with made.closing:
        yield made


@pytest.fixture
def people(processes: Processes, redis_url: str) -> SharedDirectory:
    return processes.start(redis_url)


def questions(slack: FakeSlack) -> int:
    """How often Slack was asked for the members of a group."""
    return len([call for call in slack.requests if call.method == METHOD])


async def test_what_one_process_read_every_other_one_knows(
    slack: FakeSlack, processes: Processes, redis_url: str
) -> None:
    """Three processes, one question; another group is another question."""
    for _ in range(3):
        people = processes.start(redis_url)
        assert await people.members(GROUP) == {AMY, BEN}
    assert questions(slack) == 1
    slack.add_group("S0OTHER0001", handle="other", users=[DANA])
    assert await people.members("S0OTHER0001") == {DANA}
    assert questions(slack) == 2


async def test_many_who_ask_at_once_are_one_question(slack: FakeSlack, people: SharedDirectory) -> None:
    """Fifty promotions that are due together must not use up what Slack answers in a minute."""
    told = await asyncio.gather(*(people.members(GROUP) for _ in range(50)))
    assert told == [frozenset({AMY, BEN})] * 50
    assert questions(slack) == 1


async def test_a_group_without_members_is_known_as_well(slack: FakeSlack, people: SharedDirectory) -> None:
    """Nobody is an answer."""
    slack.group(GROUP).users = []
    for _ in range(2):
        assert await people.members(GROUP) == frozenset()
    assert questions(slack) == 1


@pytest.mark.parametrize("is_unknown", [True, False])
async def test_a_group_that_is_gone_is_not_shared_as_one_without_members(
    slack: FakeSlack, processes: Processes, redis_url: str, is_unknown: bool
) -> None:
    """Every process hears that nobody can tell, and Slack is asked once; thirty seconds later it may be back."""
    if is_unknown:
        group = slack.workspace.groups.pop(GROUP)
    else:
        group = slack.group(GROUP)
        group.disabled = True
    for _ in range(3):
        with pytest.raises(NoGroup, match=f"the user group {GROUP}, which is disabled or gone"):
            await processes.start(redis_url).members(GROUP)
    assert questions(slack) == 1
    slack.workspace.groups[GROUP] = group
    group.disabled = False
    async with opened(redis_url) as raw:
        [key] = await raw.keys("{gp}:group:*")
        await raw.pexpire(key, 0)
    assert await processes.start(redis_url).members(GROUP) == {AMY, BEN}


async def test_the_store_makes_no_group_of_one_that_is_gone(
    slack: FakeSlack, people: SharedDirectory, redis_url: str
) -> None:
    """Whoever writes to the store turns what is gone into no empty group, else whom `deny` names could approve."""
    slack.group(GROUP).disabled = True
    with pytest.raises(NoGroup):
        await people.members(GROUP)
    async with opened(redis_url) as raw:
        [key] = await raw.keys("{gp}:group:*")
        kept = json.loads(await raw.get(key))
        assert "gone" in kept
        await raw.set(key, json.dumps([each for each in kept if each != "gone"]))
    with pytest.raises(NoGroup):
        await people.members(GROUP)
    assert questions(slack) == 2


async def test_after_thirty_seconds_slack_is_asked_anew(
    slack: FakeSlack, people: SharedDirectory, redis_url: str
) -> None:
    """Nothing that is older is served, although the same process has read it."""
    await people.members(GROUP)
    slack.group(GROUP).users = [BEN]
    async with opened(redis_url) as raw:
        [key] = await raw.keys("{gp}:group:*")
        assert 0 < await raw.pttl(key) <= 30_000
        await raw.pexpire(key, 0)
    assert await people.members(GROUP) == {BEN}
    assert questions(slack) == 2


async def test_without_the_store_slack_is_not_asked(slack: FakeSlack, processes: Processes) -> None:
    """Else every process would ask for itself, as often as it likes."""
    people = processes.start("redis://127.0.0.1:1")
    with pytest.raises(Unavailable, match="the store is not available"):
        await people.members(GROUP)
    assert questions(slack) == 0


async def test_trouble_of_slack_is_everybodys_and_not_kept(slack: FakeSlack, people: SharedDirectory) -> None:
    """Whoever waits hears of it after one question, and the next one asks anew."""
    slack.faults.errors[METHOD] = "fatal_error"
    told = await asyncio.gather(*(people.members(GROUP) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 5
    assert questions(slack) == 1
    slack.faults.errors.clear()
    assert await people.members(GROUP) == {AMY, BEN}


async def test_who_gives_up_does_not_take_the_answer_from_the_others(
    slack: FakeSlack, people: SharedDirectory
) -> None:
    """A click that was answered too late ends its own question alone."""
    delay = slack.faults.delay(METHOD)
    first, second = (asyncio.create_task(people.members(GROUP)) for _ in range(2))
    await delay.is_under_way.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    delay.may_arrive.set()
    assert await second == {AMY, BEN}
    assert questions(slack) == 1


async def test_trouble_that_nobody_waits_for_any_more_is_no_alarm(
    slack: FakeSlack, people: SharedDirectory
) -> None:
    """The loop reports no lost exception where all have given up."""
    alarms: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: alarms.append(told))
    slack.faults.errors[METHOD] = "fatal_error"
    delay = slack.faults.delay(METHOD)
    waiting = asyncio.create_task(people.members(GROUP))
    await delay.is_under_way.wait()
    [asked] = people._asked.values()
    waiting.cancel()
    delay.may_arrive.set()
    await asyncio.wait([waiting, asked])
    while people._asked:
        await asyncio.sleep(0)
    del asked, waiting  # what had an exception holds on to what it waited for
    gc.collect()
    assert alarms == []
    slack.faults.errors.clear()
    assert await people.members(GROUP) == {AMY, BEN}


async def test_people_are_asked_of_slack_each_time(slack: FakeSlack, people: SharedDirectory) -> None:
    """Who somebody is, and whose an address is, is shared with nobody."""
    for _ in range(2):
        assert (await people.person(DANA)).id == DANA
        assert await people.owner_of("dana@acme.example") == DANA
    methods = [call.method for call in slack.requests]
    assert methods.count("users.info") == methods.count("users.lookupByEmail") == 2
