"""The whole story, once from end to end: the real bot as a process, real git, the real store, signed HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from bot.playground.argocd.application import Timings
from bot.playground.repository import log
from bot.playground.workshop import AMY, CHANNEL, DANA, GUS, OLGA, Pace, Workshop

QUICK = Pace(
    timings=Timings(
        reconcile_takes=timedelta(milliseconds=100),
        sync_takes=timedelta(milliseconds=300),
        settle_gap=timedelta(milliseconds=300),
        pod_takes=timedelta(milliseconds=200),
    ),
    rollout="{stable_for: 1s, degraded_grace: 3s, pick_up_within: 30s, timeout: 60s}",
    lease_seconds=1,
)


@pytest.fixture(params=["HTTP", "Socket Mode"])
async def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workshop]:
    world = Workshop(tmp_path, pace=QUICK, socket_mode=request.param == "Socket Mode")
    try:
        await world.start()
        await until(lambda: world.slack.is_connected, "Slack has a way to the bot")
        yield world
    finally:
        await world.stop()


async def until(holds: Callable[[], bool], what: str, *, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        await asyncio.sleep(0.05)


async def promote(workshop: Workshop, text: str) -> str:
    """Send `/promote …` as Dana until it is accepted, and return the id; what runs in dev takes a moment."""
    deadline = time.monotonic() + 30
    while True:
        before = len(workshop.slack.ephemerals(DANA))
        await workshop.slack.command(DANA, CHANNEL, text)
        await until(lambda: len(workshop.slack.ephemerals(DANA)) > before, "a private answer")
        answer = workshop.slack.ephemerals(DANA)[-1].text
        if "asked for" in answer:
            return answer.split("`")[1]
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.2)


def cards(workshop: Workshop, id: str) -> list[str]:
    """The headlines of every message in the channel that is about this promotion."""
    return [
        message.blocks[0]["text"]["text"]
        for message in workshop.slack.messages(CHANNEL)
        if message.blocks and id in str(message.blocks)
    ]


def card_says(workshop: Workshop, id: str, word: str) -> Callable[[], bool]:
    return lambda: any(word in headline for headline in cards(workshop, id))


def place(workshop: Workshop, id: str) -> str:
    return next(message.ts for message in workshop.slack.messages(CHANNEL) if id in str(message.blocks))


def commits(workshop: Workshop, id: str) -> list[str]:
    return [
        commit.revision
        for commit in log(workshop.repository, limit=50)
        if ("Promotion-Id", id) in commit.trailers
    ]


def git_at_work(workshop: Workshop) -> bool:
    """Is some git process still reading or writing the repository? A push outlives the bot that began it."""
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = words.read_bytes()
        except OSError:  # it has just ended
            continue
        if b"git" in line and str(workshop.repository).encode() in line:
            return True
    return False


async def test_a_version_reaches_prod_although_the_bot_is_killed_twice(workshop: Workshop) -> None:
    """One commit, one card and the truth on it, with the bot killed before the commit and again before it is live."""
    _, said = await workshop.command_line("set-image", "manual-app", "dev", "15")
    assert "14 → 15" in said
    workshop.argocd.refresh("manual-app-dev", "normal")
    await until(lambda: workshop.argocd.truth("manual-app-dev").runs("15"), "dev runs 15")

    stage = await promote(workshop, "manual-app 15 to stage")
    await until(card_says(workshop, stage, "Live"), "stage is live")
    assert len(commits(workshop, stage)) == 1

    prod = await promote(workshop, "manual-app prod because fixes INC-42")
    await until(card_says(workshop, prod, "Approval needed"), "the card asks for approval")
    for stranger in (DANA, GUS, OLGA):
        before = len(workshop.slack.ephemerals(stranger))
        await workshop.slack.click(stranger, CHANNEL, place(workshop, prod), "promotion_approve")
        await until(
            lambda who=stranger, n=before: len(workshop.slack.ephemerals(who)) > n, "a private refusal"
        )
        assert "no_entry" in workshop.slack.ephemerals(stranger)[-1].text

    lock = workshop.repository / "refs/heads/main.lock"
    lock.touch()  # somebody else is writing the branch, for as long as this file is there
    await workshop.slack.click(AMY, CHANNEL, place(workshop, prod), "promotion_approve")
    await until(card_says(workshop, prod, "Committing"), "the approval is recorded and the commit under way")
    await workshop.end_bot()
    await until(lambda: not git_at_work(workshop), "the push that the dead bot began has ended")
    lock.unlink()
    assert commits(workshop, prod) == []

    workshop.argocd.deaf = True  # so that it cannot go live before it is killed again
    await workshop.start_bot()
    await until(card_says(workshop, prod, "Rolling out"), "the commit is followed")
    await workshop.end_bot()
    workshop.argocd.deaf = False
    await workshop.start_bot()
    await until(card_says(workshop, prod, "Live"), "prod is live")

    assert workshop.argocd.truth("manual-app-prod").runs("15")
    assert len(commits(workshop, prod)) == 1
    assert len(cards(workshop, prod)) == 1
    changed = subprocess.run(
        ["git", "-C", workshop.repository, "show", "--numstat", "--format=", commits(workshop, prod)[0]],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert changed == ["1", "1", "values-prod.yaml"]
    thread = "\n".join(reply.text for reply in workshop.slack.thread(CHANNEL, place(workshop, prod)))
    for told in ("asked for `15`", "approved", "Committed as", "Live"):
        assert told in thread


async def test_a_rollout_that_degrades_is_told_as_failed(workshop: Workshop) -> None:
    """When the new pods crash, the card says so in Argo CD's words, and the old version is not called live."""
    await workshop.command_line("set-image", "manual-app", "dev", "16")
    workshop.argocd.refresh("manual-app-dev", "normal")
    await until(lambda: workshop.argocd.truth("manual-app-dev").runs("16"), "dev runs 16")
    workshop.argocd.degrade_next_rollout("manual-app-stage")
    stage = await promote(workshop, "manual-app stage")
    await until(card_says(workshop, stage, "Degraded"), "the card says that it is degraded", seconds=60)
    shown = str([each.blocks for each in workshop.slack.messages(CHANNEL) if stage in str(each.blocks)])
    assert "degraded" in shown
    assert not workshop.argocd.truth("manual-app-stage").runs("16")
