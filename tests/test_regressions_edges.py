"""Faults at the edges (git, Slack, Redis, the files) that a hostile review proved: none of them comes back."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import target
from structlog.testing import capture_logs
from test_app import refusal
from world import CHANNEL, DANA, World, world_in

from bot.config import ConfigError, build_catalog, load
from bot.core.announcing import CONFIRM_AFTER
from bot.core.catalog import Repository, Target
from bot.core.errors import Refused, Unavailable
from bot.core.policy import Policy
from bot.core.ports import Announcer
from bot.core.promotion import Phase
from bot.core.rollout import ApplicationFacts
from bot.git_access import COMMITTER
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.gitops import Credential, GitRepository
from bot.integrations.slack import SlackAnnouncer
from bot.playground.repository import read_file
from bot.playground.workshop import Workshop
from bot.settings import Settings, SettingsError

ORPHAN = "P-0000000000"
TOKEN = "glpat-a-token-of-the-tests"


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


# --- git


class Redirecting(BaseHTTPRequestHandler):
    """Gives everybody the same answer, and remembers what each was known by."""

    def do_GET(self) -> None:
        self.server.heard.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        status, place = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        if place:
            self.send_header("Location", f"{place}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def http_server(status: int, place: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives everybody this answer; with it, the Authorization headers that it heard."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        server.daemon_threads = True
        server.answer, server.heard = (status, place), []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://localhost:{server.server_port}", server.heard  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_no_redirect_carries_the_git_token_away(tmp_path: Path, status: int) -> None:
    """Where the host sends us on, the token does not follow; people read what it does and what to do about it."""
    with http_server(404) as (elsewhere, followed), http_server(status, elsewhere) as (host, heard):
        writer = GitRepository(
            cache=tmp_path,
            committer=COMMITTER,
            credentials={"gitops": Credential(username="bot", token=TOKEN)},
            allow_local=frozenset({"gitops"}),
        )
        moved = Repository(name="gitops", url=f"{host}/acme/manual-app.git", branch="main")
        try:
            with pytest.raises(Unavailable) as told:
                await writer.plan(target("prod", repository=moved), "15")
        finally:
            await writer.aclose()
    assert any(heard), "the host itself was not asked with the token"
    assert followed == []
    assert "sends us on to another address" in str(told.value)
    assert "put its new address into promote.yaml" in str(told.value)
    assert TOKEN not in str(told.value)


# --- promote.yaml

TEXT = """\
version: 1
environments: [dev, stage, prod]
slack: {channel: C0DEPLOYS}
repositories:
  gitops:
    url: https://git.example.com/acme/gitops.git
  again:
    url: https://git.example.com/acme/gitops.git
  release:
    url: https://git.example.com/acme/gitops.git
    branch: release
argocd:
  main:
    url: https://argocd.example.com
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: "{app}/values-{env}.yaml"
  applications: ["{app}-{env}"]
apps:
  manual-app:
    image: images.example.com/acme/manual-app
  other-app:
    image: images.example.com/acme/other-app
policies:
  prod:
    approvals:
      rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]
"""
OTHER = "    image: images.example.com/acme/other-app\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "promote.yaml"


def targets_of(file: Path, text: str) -> Mapping[str, Target]:
    """The targets that the text describes, by name."""
    file.write_text(text, encoding="utf-8")
    return {each.name: each for each in build_catalog(load(file)).targets}


def mistake(file: Path, old: str, new: str) -> str:
    """What is said where one thing is changed in the file that is right."""
    assert TEXT.count(old) == 1, old
    with pytest.raises(ConfigError) as refused:
        targets_of(file, TEXT.replace(old, new))
    return str(refused.value)


SHARED = {
    # what stands below other-app, and what is said of it
    "another app's file": ('    values: "manual-app/values-{env}.yaml"\n', "manual-app/dev"),
    "one file for all environments": ("    values: other-app/values.yaml\n", "other-app/dev"),
    "stage writes what prod writes": (
        "    environments: {dev: {}, stage: {values: other-app/values-prod.yaml}, prod: {}}\n",
        "other-app/stage",
    ),
    "one key of several": (
        '    values: "manual-app/values-{env}.yaml"\n    keys: [sidecar.tag, image.tag]\n',
        "manual-app/dev",
    ),
    "the same repository by another name": (
        '    values: "manual-app/values-{env}.yaml"\n    repository: again\n',
        "manual-app/dev",
    ),
}


@pytest.mark.parametrize("how", SHARED)
def test_two_targets_never_write_one_value(file: Path, how: str) -> None:
    """A value with two owners would be written under the rules of the laxer one: refused, with file and line."""
    settings, owner = SHARED[how]
    said = mistake(file, OTHER, OTHER + settings)
    assert all(line.startswith(f"{file}:24: apps.other-app: ") for line in said.splitlines()), said
    assert "would write image.tag of " in said
    assert f", as {owner} does" in said


@pytest.mark.parametrize(
    "settings",
    [
        '    values: "manual-app/values-{env}.yaml"\n    keys: [other.tag]\n',
        '    values: "manual-app/values-{env}.yaml"\n    repository: release\n',
    ],
    ids=["another key", "another branch"],
)
def test_two_targets_may_share_a_file(file: Path, settings: str) -> None:
    """Other keys of one file, and the same file on another branch, are other values."""
    assert len(targets_of(file, TEXT.replace(OTHER, OTHER + settings))) == 6


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("policies:\n  prod:\n", "policies:\n  prod:\n    rollout: {timeout: 0s}\n", ":28: policies.prod.rollout.timeout: must be from 1s"),
        ("policies:\n  prod:\n", "policies:\n  prod:\n    rollout: {stable_for: 99999999999d}\n", ":28: policies.prod.rollout.stable_for: must be from 1s to 365d"),
        ("min: 1}]\n", "min: 1}]\n      expires: 366d\n", ":30: policies.prod.approvals.expires: must be from 1s to 365d"),
        ("com\ndefaults", "com\n    headers: {Authorization: Bearer abc}\ndefaults", ": argocd.main.headers: Authorization would be a secret"),
        ("com\ndefaults", "com\n    headers: {authorization: Bearer abc}\ndefaults", "the token belongs into ARGOCD_TOKEN"),
        ("com\ndefaults", "com\n    headers: {Cookie: argocd.token=abc}\ndefaults", ": argocd.main.headers: Cookie would be a secret"),
        ("    approvals:\n      rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]\n", "    approvals:\n", ":28: policies.prod.approvals: is there, but says nothing"),
    ],
    ids=["no time", "ages", "more than a year", "a secret", "a secret in small letters", "a cookie", "blank approvals"],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_at_load(file: Path, old: str, new: str, says: str) -> None:
    """Each with file, line and a sentence; a blank `approvals:` never means that nobody has to approve."""
    said = mistake(file, old, new)
    assert said.startswith(f"{file}:"), said
    assert says in said
    assert "abc" not in said


RULES = "[{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 2}, {users: [U0CARLAPPRO, U0EVEAPPROV], min: 1}]"
ONE_RULE = "[{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]"


@pytest.mark.parametrize(
    ("total", "needed"), [("", 3), ("\n      total: 2", 2), ("\n      total: 4", 4), ("\n      total: 1", 2)]
)
def test_rules_need_as_many_people_as_their_minimums_add_up_to(file: Path, total: str, needed: int) -> None:
    """`total` says otherwise, but never less than the strictest rule asks for."""
    policy = targets_of(file, TEXT.replace(ONE_RULE, RULES + total))["manual-app/prod"].policy
    assert policy.total == needed


def test_two_rules_with_the_same_people_need_two_of_them(file: Path) -> None:
    """Amy is one person, however many rules name her."""
    rules = "[{users: [U0AMYAPPROVE], min: 1}, {users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]"
    policy: Policy = targets_of(file, TEXT.replace(ONE_RULE, rules))["manual-app/prod"].policy
    assert not policy.is_satisfied(["U0AMYAPPROVE"], {})
    assert not policy.is_satisfied(["U0AMYAPPROVE", "U0AMYAPPROVE"], {})
    assert policy.is_satisfied(["U0AMYAPPROVE", "U0BENAPPROVE"], {})


# --- the environment, and processes


@pytest.mark.parametrize("text", ["70000", "0", "-1", "²", "٣", "3000.5", " "])
@pytest.mark.parametrize("name", ["PORT", "OPERATIONS_PORT", "PROMOTE_LEASE_SECONDS"])
def test_a_number_that_cannot_be_meant_is_named(name: str, text: str) -> None:
    """One sentence with the setting, the range and what was found; never a traceback or a loop that runs hot."""
    found = Settings(environ={name: text})
    read = {
        "PORT": lambda: found.port,
        "OPERATIONS_PORT": lambda: found.operations_port(9090),
        "PROMOTE_LEASE_SECONDS": lambda: found.lease_seconds,
    }
    with pytest.raises(SettingsError, match=rf"^{name} must be a number from 1 to \d+, not ") as refused:
        read[name]()
    assert repr(text) in str(refused.value)


@pytest.fixture
async def furnished(tmp_path: Path) -> AsyncIterator[Workshop]:
    """A world whose bot has not started."""
    made = Workshop(tmp_path / "workshop")
    await made.start(with_bot=False)
    yield made
    await made.argocd.stop()
    await made.slack.stop()


async def test_numbers_that_cannot_be_meant_stop_the_start(furnished: Workshop) -> None:
    """The process itself ends with that sentence and code 1."""
    wrong = {"PORT": "70000", "PROMOTE_LEASE_SECONDS": "0"}
    for name, text in wrong.items():
        told = await asyncio.to_thread(refusal, {**furnished.environment(), name: text}, "serve")
        assert f"{name} must be a number from 1 to " in told


async def test_web_and_worker_have_operation_ports_of_their_own(furnished: Workshop, redis_url: str) -> None:
    """Side by side on one machine without a setting: where both ports are taken, each misses its own."""
    environment = {**furnished.environment(), "REDIS_URL": redis_url}
    del environment["OPERATIONS_PORT"]
    with contextlib.ExitStack() as stack:
        for port in (9090, 9091):
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # somebody else has it, which is as good
                taken.bind(("127.0.0.1", port))
                taken.listen()
        web, worker = await asyncio.gather(
            asyncio.to_thread(refusal, environment, "web"),
            asyncio.to_thread(refusal, environment, "worker"),
        )
    assert "Port 9090 cannot be opened" in web
    assert "Port 9091 cannot be opened" in worker


async def test_ci_cannot_pass_a_policy(furnished: Workshop) -> None:
    """An app whose first environment needs approval is not written by CI, whatever comes first."""
    file = furnished.folder / "promote.yaml"
    text = file.read_text(encoding="utf-8")
    image = "    image: ghcr.io/acme/manual-app\n"
    assert text.count(image) == 1
    file.write_text(text.replace(image, f"{image}    environments: {{prod: {{}}}}\n"), encoding="utf-8")
    before = read_file(furnished.repository, "values-prod.yaml")
    code, said = await furnished.command_line("set-image", "manual-app", "prod", "666")
    assert code == 1
    assert said == "prod needs approval; ask for a promotion: /promote in Slack."
    assert read_file(furnished.repository, "values-prod.yaml") == before


# --- Slack


def private(world: World, user: str = DANA) -> list[Any]:
    """What the bot wrote to this person directly."""
    return world.slack.messages(world.slack.direct(user))


@pytest.mark.parametrize("closed", ["archived", "not a member"])
async def test_a_card_without_a_place_is_told_to_its_requester_once(world: World, closed: str) -> None:
    """What to do is said directly, one time; the log warns; invited, the bot posts the card with its story."""
    channel = world.slack.channel(CHANNEL)
    if closed == "archived":
        channel.archived = True
    else:
        channel.members.remove(world.slack.bot_user)
    with capture_logs() as logs:
        id = await world.request()
        for _ in range(5):
            after = await world.advance(id)
            assert after is not None
            assert timedelta(seconds=30) <= after <= timedelta(minutes=5)
            world.passes(after.total_seconds())
    (told,) = private(world)
    assert all(word in told.text for word in (id, f"<#{CHANNEL}>", "/invite @promote-bot"))
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert any(entry.get("error") in ("is_archived", "not_in_channel") for entry in warnings)
    channel.archived = False
    channel.members.add(world.slack.bot_user)
    await world.advance(id)
    assert "promotion_approve" in await world.shown(id)
    assert "asked for `15`" in await world.thread(id)
    assert len(private(world)) == 1


@pytest.mark.parametrize("why", ["they left", "the app takes no messages"])
async def test_a_requester_who_cannot_be_written_to_stops_nothing(world: World, why: str) -> None:
    """Neither the channel nor the person can be reached: the promotion goes its way all the same."""
    id = await world.request("stage")
    world.slack.channel(CHANNEL).archived = True
    if why == "they left":
        world.slack.user(DANA).kind = "deactivated"
    else:
        world.slack.api.messages_tab = False
    promotion = await world.advance_until(id, Phase.LIVE)
    assert promotion.version == "16"


async def test_an_end_that_slack_will_not_show_is_tried_ever_more_rarely(world: World) -> None:
    """A card that Slack refuses for ever costs a few calls a day, and is right as soon as Slack takes it."""
    id = await world.request()
    await world.advance(id)
    await world.promoter.cancel(id, user=DANA)
    world.slack.faults.errors["chat.update"] = "msg_too_long"
    start, pauses = world.clock.at, []
    while world.clock.at - start < timedelta(hours=24):
        after = await world.advance(id)
        assert after is not None
        pauses.append(after)
        world.passes(after.total_seconds())
        assert len(pauses) < 300, "it is tried far too often"
    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert len(pauses) <= 120
    assert pauses[-1] >= timedelta(hours=1)
    world.slack.faults.errors.clear()
    assert await world.advance(id) == CONFIRM_AFTER
    assert (await world.shown(id)).startswith("Cancelled")


async def test_a_pause_that_is_a_date_is_a_pause_like_any_other(world: World) -> None:
    """HTTP allows a Retry-After to be a date: it is waited for a while, and breaks nothing."""
    date: Any = "Wed, 21 Oct 2026 07:28:00 GMT"
    world.slack.rate_limit(calls=1, retry_after=date)
    with pytest.raises(Unavailable, match="it asks for a pause") as told:
        await world.directory.person(DANA)
    assert told.value.retry_after == 1
    announcer: Announcer = SlackAnnouncer(world.client)
    id = await world.request()
    world.slack.rate_limit(calls=1, retry_after=date)
    after = await world.advance(id, world.new_engine(announcer=announcer))
    assert after is not None
    world.passes(after.total_seconds())
    await world.advance(id)
    assert "promotion_approve" in await world.shown(id)


# --- Redis


async def put(world: World, key: str, text: str) -> None:
    """Write beside the bot."""
    await world.store._client.set(f"{{gp}}:{key}", text)


UNREADABLE = {
    "look": '{"applications":[{"name":"manual-app-prod","stage":"hooks","since":"2026-03-02T12:00:00Z","says":"x"}]}',
    "card": '{"channel":["C0DEPLOYS01"],"ts":{},"told":"many"}',
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("text", ["of another version", "no JSON"])
async def test_what_stands_beside_a_record_stops_no_promotion(world: World, what: str, text: str) -> None:
    """A look or card that nobody can read is as good as none: the rollout is followed to its end and shown."""
    id = await world.committed()
    await put(world, f"p:{id}:{what}", UNREADABLE[what] if text == "of another version" else "{")
    promotion = await world.rest(id)
    assert promotion.phase is Phase.LIVE
    assert (await world.shown(id)).startswith("Live")


async def test_a_hold_without_its_record_counts_as_free(world: World) -> None:
    """Nobody could ever cancel a promotion that is not there, so it keeps nobody out."""
    await put(world, "hold:manual-app/prod", ORPHAN)
    id = await world.request()
    assert await world.store.holder(world.target()) == id


async def test_a_hold_with_its_record_keeps_everybody_else_out(world: World) -> None:
    """A promotion that is there still holds its target."""
    id = await world.request()
    with pytest.raises(Refused, match=f"held by {id}"):
        await world.request()


async def test_a_followed_promotion_without_its_record_is_in_nobodys_way(world: World) -> None:
    """The commit is recorded at once, made once, and followed until it is live."""
    id = await world.approved()
    await put(world, "follow:manual-app/prod", ORPHAN)
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    assert await world.store.followed(world.target()) == id
    assert (await world.rest(id)).phase is Phase.LIVE
    assert len(world.commits(id)) == 1


# --- /promote status


class ForgetfulWriter(GitRepository):
    """A writer with a bug that speaks of what nobody may read."""

    async def current(self, target: Target) -> str:
        """Break."""
        raise KeyError(f"{TOKEN} for {target.name}")


class ForgetfulArgoCD(ArgoCD):
    """A reader with such a bug."""

    async def observe(self, *_: Any, **__: Any) -> ApplicationFacts:
        """Break."""
        raise KeyError(TOKEN)


@pytest.mark.parametrize("broken", ["git", "Argo CD"])
async def test_a_bug_is_never_shown_in_the_status(world: World, broken: str) -> None:
    """People read a reference; the text of an exception of ours is for the log alone."""
    if broken == "git":
        writer = ForgetfulWriter(
            cache=world.folder / "forgetful", committer=COMMITTER, allow_local=frozenset({"gitops"})
        )
        world._closing.push_async_callback(writer.aclose)
        promoter = world.new_promoter(values=writer)
    else:
        cluster = ForgetfulArgoCD(servers={"main": Server(url=world.argocd.url, token="a.b.c")})
        world._closing.push_async_callback(cluster.aclose)
        promoter = world.new_promoter(cluster=cluster)
    async with world.hearing(promoter):
        for number, words in enumerate(("status", "status manual-app"), 1):
            await world.command(words)
            said = await world.answer(number=number)
            assert "Something broke on our side (ref " in said
            assert TOKEN not in said
            assert "KeyError" not in said


async def test_a_system_that_is_away_is_named_in_the_status(world: World) -> None:
    """What people may read of a trouble they do read, beside what is known of the rest."""
    async with world.hearing():
        with world.git_host_away():
            await world.command("status")
            said = await world.answer()
    assert "git holds `unknown: " in said
    assert "is live and healthy" in said


async def test_the_status_of_many_targets_says_how_many_are_left_out(world: World) -> None:
    """Thirty are looked at; the rest is counted, with the way to see it."""
    catalog = world.parts.catalog
    many = tuple(
        replace(target, app=f"app-{number:02}")
        for number in range(11)
        for target in world.parts.catalog.targets
    )
    async with world.hearing(world.new_promoter(catalog=replace(catalog, targets=many))):
        await world.command("status")
        said = await world.answer()
    assert said.count("git holds") == 30
    assert said.splitlines()[-1] == "… and 3 more: `/promote status &lt;app&gt;`"


async def test_the_status_of_thirty_targets_leaves_nothing_out(world: World) -> None:
    """Nothing is said of more where there is no more."""
    catalog = world.parts.catalog
    many = tuple(replace(catalog.targets[0], app=f"app-{number:02}") for number in range(30))
    async with world.hearing(world.new_promoter(catalog=replace(catalog, targets=many))):
        await world.command("status")
        said = await world.answer()
    assert said.count("git holds") == 30
    assert "more" not in said.splitlines()[-1]


LATE_IMPORTS = """
import asyncio, sys
import httpx
import bot.integrations

sought = []

class Finder:
    def find_spec(self, name, path=None, target=None):
        sought.append(name)

async def ask():
    async def answer(reader, writer):
        for _ in range(2):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://127.0.0.1:{port}/")
        sys.meta_path.insert(0, Finder())
        await client.get(f"http://127.0.0.1:{port}/")

asyncio.run(ask())
print(*[name for name in sought if name == "sniffio"])
"""


def test_a_request_searches_for_no_package() -> None:
    """Python 3.11 can break a request that imports, where garbage that is collected meanwhile imports the same."""
    searched = subprocess.run(
        [sys.executable, "-c", LATE_IMPORTS], capture_output=True, text=True, check=True, timeout=60
    )
    assert searched.stdout.strip() == ""
