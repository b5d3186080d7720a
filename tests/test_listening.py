"""How a listener behaves, over real signed HTTP: the acknowledgement, the answer, and what happens in between."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from world import AMY, BOT_TOKEN, CHANNEL, DANA, SIGNING_SECRET, World, populate, wait_until, world_in

from bot.core.errors import Refused, Unavailable
from bot.integrations.slack import web_client
from bot.playground.slack.fake import FakeSlack
from handlers.listening import Background, Listening, Outcome, bare, outcome
from handlers.requests import slack_events

MODAL = {
    "type": "modal",
    "callback_id": "form",
    "title": {"type": "plain_text", "text": "Form"},
    "submit": {"type": "plain_text", "text": "Send"},
    "blocks": [
        {
            "type": "input",
            "block_id": "reason",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}
BUTTON = {
    "type": "actions",
    "elements": [{"type": "button", "action_id": "press", "text": {"type": "plain_text", "text": "Press"}}],
}


class Bench:
    """A workspace and an app whose listeners do what a test says."""

    def __init__(self, slack: FakeSlack, background: Background) -> None:
        self.slack = slack
        self.background = background
        self.work: Callable[[], Awaitable[str | None]] = self.nothing
        self.done = False

    async def nothing(self) -> str | None:
        """No work, no answer."""
        return None

    async def press(self) -> Any:
        """Press the button of a message."""
        message = self.slack.workspace.add(CHANNEL, self.slack.bot_user, "Press", blocks=[BUTTON])
        return await self.slack.click(DANA, CHANNEL, message.ts, "press")

    async def submit(self) -> Any:
        """Fill the form of a modal."""
        view = self.slack.workspace.show_view(DANA, MODAL)
        return await self.slack.submit(DANA, view.id, {"reason": "because"})

    def told(self) -> list[str]:
        """What the person was told privately."""
        return [message.text for message in self.slack.ephemerals(DANA)]


@asynccontextmanager
async def benched() -> AsyncIterator[Bench]:
    """Everything, connected."""
    slack = FakeSlack(signing_secret=SIGNING_SECRET, bot_token=BOT_TOKEN)
    populate(slack)
    await slack.start()
    background = Background()
    bench = Bench(slack, background)

    async def authorize(**_: Any) -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=BOT_TOKEN)

    client = web_client(BOT_TOKEN, api_url=slack.api_url)
    app = AsyncApp(signing_secret=SIGNING_SECRET, client=client, authorize=authorize)
    listening = Listening(background)

    async def work() -> str | None:
        told = await bench.work()
        bench.done = True
        return told

    @app.command("/promote")
    async def command(ack: Any, respond: Any) -> None:
        await listening.command(work(), ack=ack, respond=respond)

    @app.action("press")
    async def click(ack: Any, respond: Any) -> None:
        await listening.click(work(), ack=ack, respond=respond)

    @app.view("form")
    async def form(ack: Any) -> None:
        await listening.submission(work(), ack=ack, field="reason")

    public = web.Application()
    public.router.add_post("/slack/events", slack_events(app, SIGNING_SECRET))
    runner = web.AppRunner(public, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    slack.events_url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    yield bench
    await runner.cleanup()
    await background.finish(5)
    await slack.stop()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with benched() as made:
        yield made


async def breaks() -> str | None:
    """A bug of ours, with a secret in it."""
    raise KeyError("xoxb-very-secret")


# --- nobody is left without an answer


async def test_a_command_whose_work_raises_is_acknowledged_and_answered(bench: Bench) -> None:
    """Bolt would lose the acknowledgement of a listener that raises; here nothing leaves the listener."""
    bench.work = breaks
    reply = await bench.slack.command(DANA, CHANNEL, "x")
    assert (reply.status, reply.error, reply.body) == (200, None, "")
    await wait_until(bench.told, "the person is told")
    (told,) = bench.told()
    assert "Something broke on our side (ref " in told
    assert "xoxb" not in told


async def test_a_click_whose_work_raises_is_acknowledged_and_answered(bench: Bench) -> None:
    """The same for buttons."""
    bench.work = breaks
    assert (await bench.press()).error is None
    await wait_until(bench.told, "the person is told")
    assert "Something broke on our side" in bench.told()[0]


async def test_a_submission_whose_work_raises_says_so_in_the_modal(bench: Bench) -> None:
    """And for forms, where the words stand under the field."""
    bench.work = breaks
    assert (await bench.submit()).error is None
    view = bench.slack.view(DANA)
    assert view is not None
    assert view.errors["reason"].startswith("Something broke on our side (ref ")


async def test_an_answer_that_slack_does_not_take_breaks_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """An address for answers can be used up or away: it is logged, and the next command is heard."""

    async def words() -> str | None:
        bench.slack.faults.down = True
        return "words"

    bench.work = words
    assert (await bench.slack.command(DANA, CHANNEL, "x")).error is None
    await bench.background.finish(5)
    assert bench.told() == []
    bench.slack.faults.down = False
    bench.work = bench.nothing
    assert (await bench.slack.command(DANA, CHANNEL, "x")).error is None
    assert "Traceback" not in caplog.text


# --- when it is acknowledged


async def test_a_command_is_acknowledged_before_its_work_is_done(bench: Bench) -> None:
    """However long the work takes, Slack has its answer at once."""
    released = asyncio.Event()

    async def slow() -> str | None:
        await released.wait()
        return "done at last"

    bench.work = slow
    reply = await bench.slack.command(DANA, CHANNEL, "x")
    assert (reply.status, reply.error, bench.done) == (200, None, False)
    released.set()
    await wait_until(bench.told, "the person is told")
    assert bench.told() == ["done at last"]


async def test_a_click_is_acknowledged_after_its_work(bench: Bench) -> None:
    """Nobody is told that something was recorded before it was."""
    assert (await bench.press()).error is None
    assert bench.done


async def test_a_slow_click_is_acknowledged_after_two_seconds(bench: Bench) -> None:
    """Slack waits three: at two it gets its answer, and the person theirs when the work is done."""
    released = asyncio.Event()

    async def slow() -> str | None:
        await released.wait()
        return "recorded at last"

    bench.work = slow
    began = time.monotonic()
    reply = await bench.press()
    assert (reply.status, reply.error, bench.done) == (200, None, False)
    assert 1.9 <= time.monotonic() - began < 3
    released.set()
    await wait_until(bench.told, "the person is told")
    assert bench.told() == ["recorded at last"]


async def test_a_submission_is_acknowledged_with_its_outcome(bench: Bench) -> None:
    """The modal closes only once the work is done."""
    assert (await bench.submit()).error is None
    assert (bench.done, bench.slack.view(DANA)) == (True, None)


async def test_a_slow_submission_is_never_taken_for_done(bench: Bench) -> None:
    """When Slack's three seconds run out, the modal stays and says that nobody knows yet."""
    released = asyncio.Event()

    async def slow() -> str | None:
        await released.wait()
        return None

    bench.work = slow
    reply = await bench.submit()
    released.set()
    assert (reply.status, reply.error) == (200, None)
    view = bench.slack.view(DANA)
    assert view is not None
    assert "pressing again is safe" in view.errors["reason"]
    await wait_until(lambda: bench.done, "the work goes on all the same")


async def test_a_shutdown_waits_for_what_was_heard(bench: Bench) -> None:
    """What was acknowledged is done before the process ends."""
    begun, released = asyncio.Event(), asyncio.Event()

    async def slow() -> str | None:
        begun.set()
        await released.wait()
        return None

    bench.work = slow
    await bench.slack.command(DANA, CHANNEL, "x")
    await begun.wait()
    ending = asyncio.create_task(bench.background.finish(5))
    await asyncio.wait({ending}, timeout=0.05)
    assert not ending.done()
    released.set()
    await ending
    assert bench.done


async def test_a_shutdown_does_not_wait_for_ever(bench: Bench) -> None:
    """After its time is up, a process ends."""
    never = asyncio.Event()

    async def forever() -> str | None:
        await never.wait()
        return None

    bench.work = forever
    await bench.slack.command(DANA, CHANNEL, "x")
    await bench.background.finish(0.05)
    assert not bench.done
    never.set()


# --- the words


async def _raises(error: Exception) -> str | None:
    raise error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Refused("No.", link="https://acme.slack.com/x"), "No. <https://acme.slack.com/x|Open the card>"),
        (Refused("<!channel> & *bold*"), "&lt;!channel&gt; &amp;"),
        (Unavailable("the store", "gone"), "store is not available: gone. Nothing was recorded"),
        (Unavailable("the store", "gone", maybe_done=True), "I could not confirm that it was recorded"),
        (KeyError("oops"), "Something broke on our side (ref "),
    ],
)
async def test_every_error_becomes_words_for_the_person(error: Exception, says: str) -> None:
    """Why not, and what to do next; never a traceback."""
    result = await outcome(_raises(error))
    assert result.refused
    assert says in (result.text or "")


async def test_work_without_words_is_no_refusal() -> None:
    """Where the card says it all, nothing is said."""

    async def silent() -> str | None:
        return None

    assert await outcome(silent()) == Outcome()


def test_a_modal_shows_bare_words() -> None:
    """Slack formats nothing inside a modal's errors."""
    assert bare(":no_entry_sign: 1 &lt; 2 &amp; 3: no") == "1 < 2 & 3: no"
    assert bare("Say why: it helps.") == "Say why: it helps."


# --- the loop


async def slow_steps(caplog: pytest.LogCaptureFixture, act: Callable[[], Awaitable[Any]]) -> list[str]:
    """What asyncio's own watch says of our code while this is done: each step over 100 ms, by its coroutine."""
    loop = asyncio.get_running_loop()
    caplog.clear()
    loop.slow_callback_duration = 0.1
    loop.set_debug(True)
    try:
        with caplog.at_level(logging.WARNING, logger="asyncio"):
            await act()
    finally:
        loop.set_debug(False)
    ours = ("handlers/", "bot/core/", "bot/integrations/", "slack_bolt/", "test_listening")
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "asyncio" and any(place in record.getMessage() for place in ours)
    ]


async def test_the_watch_notices_what_blocks(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The watch of the next test is worth something: a listener that sleeps without yielding is seen."""

    async def blocks() -> str | None:
        time.sleep(0.15)
        return None

    bench.work = blocks
    assert await slow_steps(caplog, bench.press)


async def test_no_listener_blocks_the_loop(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request, its approval and a rejection's modal never hold up anybody else for a tenth of a second."""
    async with world_in(tmp_path, redis_url) as world, world.hearing():
        found: list[str] = []
        for _ in range(3):  # a machine under load stalls now and then; what blocks, blocks each time
            found = await slow_steps(caplog, lambda: _everything(world))
            if not found:
                break
        assert found == []


async def _everything(world: World) -> None:
    before = len(world.told())
    await world.command("manual-app prod")
    await world.answer(number=before + 1)
    (promotion,) = await world.pending()
    await world.advance(promotion.id)
    await world.press(promotion.id, "reject", user=AMY)
    view = world.slack.view(AMY)
    assert view is not None
    await world.slack.close_view(AMY, view.id)
    await world.press(promotion.id, "approve", user=AMY)
    await world.press(promotion.id, "cancel", user=DANA)
