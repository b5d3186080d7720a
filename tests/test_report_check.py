"""`python -m bot report-check`: a build tells the running bot what its tests say, once, also where the bot restarts."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hook_servers import DIGEST, FIELDS, KEY, OTHER_KEY, hook_at
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Refused, Unavailable
from bot.core.reporting import DELIVERY
from bot.reports import named_by_ci, report_check
from bot.settings import Settings, SettingsError

ROOT = Path(__file__).parents[1]
WORDS = ("manual-app", "stage", "v15", "integration", "pass", "--digest", DIGEST)


class Pauses:
    """Waits for nothing, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def told(url: str, **more: str) -> Settings:
    """The settings of a build server."""
    return Settings(environ={"PROMOTE_URL": url, "HOOK_NAME": "jenkins", "HOOK_KEY": KEY, **more})


async def command(url: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bot report-check …` while our server goes on."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "bot", "report-check", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **told(url).environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )


# --- the command


async def test_the_command_reports_and_prints_the_bots_sentence(redis_url: str) -> None:
    """With its words and its link; without `promote.yaml`, and without any secret of the bot."""
    async with hook_at(redis_url) as hook:
        ran = await command(hook.url, *WORDS, "--said", "128 tests", "--link", "https://ci.example.com/15")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == "Kept: integration passed for manual-app v15 in stage.\n"
        (report,) = await hook.reports()
        assert (report.passed, report.image.digest) == (True, DIGEST)
        assert (report.said, report.link) == ("128 tests", "https://ci.example.com/15")


async def test_the_command_ends_with_1_where_nothing_was_kept(redis_url: str) -> None:
    """With the bot's reason, and neither a traceback nor the key."""
    async with hook_at(redis_url) as hook:
        ran = await command(f"{hook.url}/", *WORDS, HOOK_KEY=OTHER_KEY)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith("The call is not signed with a key that I know.")
        assert "Traceback" not in ran.stderr
        assert OTHER_KEY not in ran.stderr
        assert not await hook.reports()


async def test_a_verdict_is_pass_or_fail(redis_url: str) -> None:
    """Another word is refused before anything is sent."""
    async with hook_at(redis_url) as hook:
        ran = await command(
            hook.url, "manual-app", "stage", "v15", "integration", "passed", "--digest", DIGEST
        )
        assert (ran.returncode, await hook.everything()) == (2, {})


# --- tries


def trouble(*kinds: str) -> tuple[Any, list[dict[str, str]]]:
    """A middleware that spoils the first calls, each in its way, and the headers of all."""
    left, heard = list(kinds), []

    @web.middleware
    async def spoil(request: web.Request, handler: Any) -> web.StreamResponse:
        heard.append({name: text for name, text in request.headers.items() if name.startswith("Promote-")})
        kind = left.pop(0) if left else ""
        if kind.isdecimal():
            return web.Response(status=int(kind), text="<h1>away</h1>")
        answer: web.StreamResponse = await handler(request) if kind != "unheard" else web.Response()
        if kind:
            assert request.transport is not None
            request.transport.abort()
        return answer

    return spoil, heard


@pytest.mark.parametrize(
    ("kinds", "pauses", "says"),
    [
        ((), [], "Kept"),
        (("unheard", "unheard"), [1, 2], "Kept"),
        (("503", "502", "504"), [1, 2, 4], "Kept"),
        (("unanswered",), [1], "Heard before"),
    ],
)
async def test_it_is_tried_again_with_the_same_delivery(
    redis_url: str, kinds: tuple[str, ...], pauses: list[float], says: str
) -> None:
    """A bot that restarts, a proxy before it, a lost answer: one verdict, whoever was away."""
    spoil, heard = trouble(*kinds)
    pause = Pauses()
    async with hook_at(redis_url, middlewares=[spoil]) as hook:
        sentence = await report_check(told(hook.url), FIELDS, delivery=None, pause=pause)
        assert sentence.startswith(says)
        assert pause.seconds == pauses
        assert len({headers["Promote-Delivery"] for headers in heard}) == 1
        assert len(heard) == len(kinds) + 1
        assert len(await hook.reports()) == 1


async def test_after_a_minute_it_gives_up(redis_url: str) -> None:
    """The last reason is told; nobody waits for ever."""
    spoil, heard = trouble(*["503"] * 20)
    pause = Pauses()
    async with hook_at(redis_url, middlewares=[spoil]) as hook:
        with pytest.raises(Unavailable, match="not the bot's hook"):
            await report_check(told(hook.url), FIELDS, delivery=None, pause=pause)
    assert (sum(pause.seconds), len(heard)) == (60, 7)


async def test_a_bot_that_nobody_reaches_is_named() -> None:
    """The address that was tried, so that a wrong one is seen."""
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1/hooks/v1/checks"):
        await report_check(told("http://127.0.0.1:1"), FIELDS, delivery=None, pause=Pauses())


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"check": "unit"}, "404"), ({"app": "other"}, "403"), ({"digest": None}, "400")],
)
async def test_what_the_bot_refuses_is_not_tried_again(
    redis_url: str, changes: dict[str, str | None], says: str
) -> None:
    """Its reason is the answer."""
    pause = Pauses()
    async with hook_at(redis_url) as hook:
        with pytest.raises(Refused, match=says):
            await report_check(told(hook.url), FIELDS | changes, delivery=None, pause=pause)
    assert pause.seconds == []


@pytest.mark.parametrize("status", ["200", "301", "404", "500"])
async def test_what_is_not_the_hook_is_told(redis_url: str, status: str) -> None:
    """A login page, a redirect, another server: never taken for a yes."""
    spoil, _ = trouble(status)
    async with hook_at(redis_url, middlewares=[spoil]) as hook:
        with pytest.raises(Refused, match="What answered is not the bot's hook"):
            await report_check(told(hook.url), FIELDS, delivery=None, pause=Pauses())


# --- deliveries


JENKINS = {"BUILD_TAG": "jenkins-folder-my job-15"}
GITHUB = {"GITHUB_RUN_ID": "4711", "GITHUB_RUN_ATTEMPT": "1"}
GITLAB = {"CI_JOB_ID": "15"}


@pytest.mark.parametrize(
    ("run", "another"),
    [
        (JENKINS, {"BUILD_TAG": "jenkins-folder-my job-16"}),
        (GITHUB, GITHUB | {"GITHUB_RUN_ATTEMPT": "2"}),
        (GITHUB, GITHUB | {"GITHUB_RUN_ID": "4712"}),
        (GITLAB, {"CI_JOB_ID": "16"}),
    ],
)
async def test_one_run_of_a_build_server_is_one_delivery(
    redis_url: str, run: dict[str, str], another: dict[str, str]
) -> None:
    """A step that runs twice is heard once; another run, or another attempt, is heard again."""
    async with hook_at(redis_url) as hook:
        for environ, says in ((run, "Kept"), (run, "Heard before"), (another, "Kept")):
            sentence = await report_check(told(hook.url, **environ), FIELDS, delivery=None)
            assert sentence.startswith(says)


async def test_one_run_reports_several_checks_and_takes_none_back(redis_url: str) -> None:
    """Each check is a delivery of its own; another verdict of the same needs a name of its own."""
    async with hook_at(redis_url) as hook:
        settings = told(hook.url, **JENKINS)
        for check in ("integration", "smoke"):
            assert (await report_check(settings, FIELDS | {"check": check}, delivery=None)).startswith("Kept")
        with pytest.raises(Refused, match="under another delivery"):
            await report_check(settings, FIELDS | {"result": "fail"}, delivery=None)
        said = await report_check(settings, FIELDS | {"result": "fail"}, delivery="second-try")
        assert said.startswith("Kept: integration failed")


@given(
    environ=st.dictionaries(
        st.sampled_from(["BUILD_TAG", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "CI_JOB_ID"]), st.text()
    ),
    fields=st.fixed_dictionaries({name: st.text() for name in ("app", "environment", "version", "check")}),
    name=st.sampled_from(["app", "environment", "version", "check"]),
    other=st.text(),
)
def test_a_delivery_is_good_and_says_what_it_is_about(
    environ: dict[str, str], fields: dict[str, str], name: str, other: str
) -> None:
    """Whatever a build server writes there, the hook takes it; and another check is another delivery."""
    delivery = named_by_ci(environ, fields)
    assert DELIVERY.fullmatch(delivery)
    is_same = named_by_ci(environ, fields | {name: other}) == delivery
    has_run = any(environ.get(each) for each in ("BUILD_TAG", "GITHUB_RUN_ID", "CI_JOB_ID"))
    assert is_same == (has_run and fields[name] == other)


async def test_a_delivery_that_the_hook_would_refuse_is_not_sent(redis_url: str) -> None:
    """The rule is told at once, also for what no header can hold."""
    async with hook_at(redis_url) as hook:
        for delivery in ("short", "two\r\nlines", "x" * 129):
            with pytest.raises(Refused, match="8 to 128"):
                await report_check(told(hook.url), FIELDS, delivery=delivery)
        assert await hook.everything() == {}


# --- settings


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PROMOTE_URL": ""}, "PROMOTE_URL is not set"),
        ({"HOOK_NAME": ""}, "HOOK_NAME is not set"),
        ({"HOOK_KEY": ""}, "HOOK_KEY is not set"),
        ({"PROMOTE_URL": "bot.example.com"}, "PROMOTE_URL must begin with https://"),
        ({"PROMOTE_URL": "https://bob:hunter2@bot.example.com"}, "PROMOTE_URL must begin with https://"),
        ({"PROMOTE_URL": "https://bot.example.com:port"}, "PROMOTE_URL is no address"),
        ({"HOOK_NAME": "Jenkins\r\n"}, "HOOK_NAME must be a name"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(environ: dict[str, str], says: str) -> None:
    """At once, without a call, and without its value where that may be a secret."""
    pause = Pauses()
    with pytest.raises(SettingsError) as caught:
        await report_check(told("https://bot.example.com", **environ), FIELDS, delivery=None, pause=pause)
    assert says in str(caught.value)
    assert not [word for word in ("hunter2", KEY) if word in str(caught.value)]
    assert pause.seconds == []
