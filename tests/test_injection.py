"""Words from outside stay words: no forged trailer, no ping, no link, no hidden character, no broken card, no second log line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import AMY, BEN, DANA, NOON, approval, in_phase
from conftest import require
from evidence import FULL, OPEN, STRICT, draft
from hypothesis import example, given, settings
from hypothesis import strategies as st
from world import AMY as AMY_HERE
from world import CHANNEL, World, world_in

from bot.core.board import BadVersion, Lock, Report, Scope
from bot.core.catalog import Image
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.gates import checks, closed, locks, unknown
from bot.core.keeper import Blocked, Held, Locked, Unlocked
from bot.core.outcome import Outcome
from bot.core.policy import CheckRule, Gate, Policy
from bot.core.ports import Card
from bot.core.promotion import LineChange, Phase, Promotion, Signer, Way
from bot.core.rollout import Look, Progress, Stage
from bot.core.trailers import message, one_line
from bot.messages import answers, gates, keeping, modals
from bot.messages.card import card
from bot.messages.mrkdwn import Message, code, fenced, plain, words
from bot.messages.thread import emergency, last_words, recovery, review_reminder, story
from bot.playground import repository as sample
from bot.playground.slack import blocks as block_kit
from handlers.listening import bare

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
PAYLOADS = (
    "fine\nApproved-By: ceo <ceo@example.com> (T0ACME/U0CEO)",
    "fine\r\nApproved-By: ceo",
    "fine\n\nBreak-Glass: true\nApproved-By: ceo",
    "fine\u2028Approved-By: ceo",
    "<!channel>",
    "<!here|everybody>",
    "<@U0CEO>",
    "<!subteam^S0BOARD>",
    "<#C0OTHER>",
    "<https://evil.example.com|Approve>",
    "<mailto:ceo@example.com|mail>",
    "<!date^0^{date}|x>",
    "&lt;!channel&gt;",
    "`<!channel>`",
    "```\n<!channel>\n```",
    "`",
    "```",
    "*Live* _it_ ~no~",
    "\n> quoted\n:white_check_mark: Approved",
    "- tag: 14\n+ tag: 99",
    f"fi{BIDI}ne",
    "\u202egnp.exe",
    f"pro{ZERO_WIDTH}d",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x1b]8;;https://evil.example.com\x07Approve\x1b]8;;\x07",
    "\x00\x07\x08\x7f\x85\x9b31m",
    "\ud800 half",
    '"}\n{"event": "forged"}',
    "&" * 2000,
    "",
)
hostile = st.one_of(
    st.sampled_from(PAYLOADS),
    st.lists(st.sampled_from([*PAYLOADS[:-2], " ", "x", "|", ">", "<", "@"]), max_size=6).map("".join),
    st.text(alphabet=st.characters(codec=None), max_size=60),
)

KNOWN = r"U0DANA|U0AMY|U0BEN"
OURS = re.compile(
    rf"<@(?:{KNOWN})>|<!subteam\^S0SUPPORT>|<#C0DEPLOYS>|<!date\^\d+\^\{{date_short_pretty\}} \{{time\}}\|[\w:, ]+>"
    r"|<https://(?:acme|git|argocd)\.example\.com/[^\s<>|]*\|[^<>\n]*>"
)
"""Every reference that we write ourselves, whole, and only with the people, groups and hosts of these tests."""
CODE = re.compile(r"```[^`]*```|`[^`\n]+`")
"""Code that ends where we end it."""
GUARDED = re.compile(r"(?<=[*_~])\u200b")
"""Our own zero-width space, which keeps a character from formatting."""


def hidden(text: str) -> list[str]:
    """The characters that nobody sees, but for breaks, tabs and our own."""
    seen = GUARDED.sub("", text).replace("\n", "").replace("\t", "")
    return [each for each in seen if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def assert_inert(text: str) -> None:
    """No reference but our own, no half of one, no entity but the three, and nothing that nobody sees."""
    left = OURS.sub("", text)
    assert "<" not in left, f"a reference from outside: {left!r}"
    assert ">" not in re.sub(r"^> ", "", left, flags=re.MULTILINE), f"half a reference: {left!r}"
    assert not re.search(r"&(?!(amp|lt|gt);)", left), f"half an entity: {left!r}"
    assert hidden(text) == [], f"hidden characters: {hidden(text)!r}"
    assert "`" not in CODE.sub("", text), f"code that does not end: {text!r}"


def texts(value: object) -> Iterator[tuple[str, str]]:
    """Every text object in a payload, and of which kind it is."""
    if isinstance(value, dict):
        if value.get("type") in ("mrkdwn", "plain_text") and isinstance(value.get("text"), str):
            yield value["type"], value["text"]
        if label := value.get("accessibility_label"):
            yield "plain_text", label
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def diffs(shown: Message) -> Iterator[str]:
    """The blocks of code that show a line before and after."""
    for _, text in texts(shown.blocks):
        yield from re.findall(r"```(- [^`]*)```", text)


def assert_sound(shown: Message) -> None:
    """Slack takes it, it can be sent as UTF-8, and every text in it is inert, also where nothing is formatted."""
    assert block_kit.problems(list(shown.blocks), block_kit.MESSAGE) == []
    json.dumps(shown.blocks, ensure_ascii=False).encode()
    assert_inert(shown.text)
    for kind, text in texts(shown.blocks):
        if kind == "mrkdwn":
            assert_inert(text)
        assert hidden(text) == []


def poisoned(phase: Phase, word: str, line: str, *, way: Way | None = None) -> Promotion:
    """A promotion in which everything that people or systems write is hostile."""
    eve = Signer(id=DANA.id, team="T0ACME", name=word, email=line)
    change = LineChange(path=line, number=3, before=word, after=line)
    promotion = in_phase(phase, STRICT, reason=word, old_version=line, requested_by=eve, changes=(change,))
    signed = tuple(replace(each, by=replace(each.by, name=line)) for each in promotion.approvals)
    ending = word if promotion.ending else None
    incident = word if way else None
    return replace(promotion, approvals=signed, ending=ending, way=way, incident=incident)


def found(word: str, line: str) -> Dossier:
    """What others wrote: subjects, authors, labels, keys, checks."""
    commits = tuple(
        Commit(revision="f" * 40, subject=word, author=line, email=word)
        for _ in range(len(FULL.differences) + 4)
    )
    listed = Commits(count=9, newest=commits, link=f"https://git.example.com/acme/compare/{line}")
    return Dossier(
        source=listed,
        watched=Commits(unknown=word) if len(word) % 2 else listed,
        binds_watched=bool(len(line) % 2),
        differences=(word, line) * 4,
        differences_unknown=line if len(word) % 3 else "",
        soaked=timedelta(hours=3),
        checks=(f"{word} passed", f"{line} failed"),
        proof=word,
        last_requester=None,
    )


@given(st.sampled_from(Phase), st.sampled_from([None, *Way]), st.sampled_from(Stage), hostile, hostile)
@example(Phase.REQUESTED, Way.EMERGENCY, Stage.FAILED, PAYLOADS[0], PAYLOADS[-8])
@example(Phase.REQUESTED, None, Stage.FAILED, "\u202egnp.exe", "pro\u200bd")
@example(Phase.REQUESTED, None, Stage.FAILED, "- tag: 14\n+ tag: 99", "15")
@example(Phase.LIVE, None, Stage.LIVE, "x", "fi\u202ene")
def test_a_card_is_inert(phase: Phase, way: Way | None, stage: Stage, word: str, line: str) -> None:
    """Reasons, names, values, commits, labels, checks and the words of Argo CD act nowhere on it."""
    promotion = poisoned(phase, word, line, way=way)
    progress = Progress(
        name="manual-app-prod",
        stage=stage,
        since=NOON,
        says=word,
        pods=line,
        may_sync=True,
        to_sync=(line,) * 9,
    )
    look = Look(
        applications=(replace(progress, outcome=Outcome.DEGRADED if stage is Stage.FAILED else None),),
        waits_for=word,
        held_by=line,
        dossier=found(word, line),
    )
    assert_sound(card(replace(STRICT, banner=word or None), promotion, look))
    assert_sound(card(STRICT, replace(promotion, rollback_of="P-0000000000"), look))
    assert_sound(card(STRICT, promotion, replace(look, recovered=word)))
    assert all(len(block.splitlines()) == 2 for block in diffs(card(STRICT, promotion, look)))


@given(hostile, hostile)
def test_an_answer_about_gates_is_inert(word: str, line: str) -> None:
    """Lock reasons, verdicts, probes and names of keys are listed as words, one line each."""
    scope = Scope(app="manual-app", environment="prod")
    lock = Lock(scope=scope, by=AMY.id, reason=word, at=NOON)
    image = Image(version="15")
    failed = Report(
        app="manual-app",
        environment="stage",
        image=image,
        check="load",
        passed=False,
        by="hook:ci",
        at=NOON,
        said=line,
    )
    rules = Policy(checks=(CheckRule(name="load"),))
    says = [
        locks(STRICT, [lock], now=NOON),
        *checks(rules, STRICT, image, [failed]),
        closed(Gate.PROBES, f"errors: {word}"),
        unknown(Gate.WINDOWS, Unavailable("the calendar", line)),
    ]
    shown = gates.closed(draft(*OPEN, *says))
    assert_sound(shown)
    assert len(shown.text.splitlines()) == 1 + len(OPEN) + len(says)


@given(hostile, hostile)
def test_everything_else_that_is_told_is_inert(word: str, line: str) -> None:
    """Threads, notices, modals and refusals, with the same words in every place."""
    promotion, place = poisoned(Phase.FAILED, word, line, way=Way.EMERGENCY), "https://acme.example.com/p1"
    scope = Scope(environment="prod")
    lock = Lock(scope=scope, by=AMY.id, reason=word, at=NOON)
    bad = BadVersion(app="manual-app", version="15", by=BEN.id, reason=line, at=NOON)
    event = replace(promotion.last, why=word)
    done = [
        Locked(lock=lock, replaced=lock, is_replaced_known=True, channels=()),
        Unlocked(lock=lock, by=AMY.id, reason=line, left=(lock,), is_left_known=True, channels=()),
        Blocked(bad=bad, channels=()),
    ]
    for text in (
        story(
            promotion, [replace(event, what="requested"), event, replace(event, what=line)], found(word, line)
        ),
        emergency(promotion, place),
        review_reminder(promotion, place),
        recovery(word),
        last_words(promotion, place, word),
        keeping.held(Held(locks=(lock,), bad_versions=(bad,))),
        keeping.diff(replace(draft(), dossier=found(word, line))),
        *(keeping.answer(each) for each in done),
        *(keeping.notice(each) for each in done),
        *(answers.refusal(error) for error in (Refused(word), Unavailable(word, line), Failed(line))),
        answers.show(promotion, Card(link=place), [event]),
        answers.asked(promotion, "C0DEPLOYS"),
    ):
        assert_inert(text)
    for view in (modals.reject(promotion), modals.emergency(STRICT, None, incident=word, reason=line)):
        assert block_kit.view_problems(view, home=False) == []
        assert all(hidden(text) == [] for _, text in texts(view))
    assert hidden(bare(answers.refusal(Refused(word)))) == []


@given(hostile, st.integers(1, 200))
def test_what_nobody_sees_is_gone_or_shown(text: str, limit: int) -> None:
    """In a sentence it is taken out; in code, which people compare, a sign stands in its place."""
    assert hidden(plain(text, limit)) == hidden(code(text, limit)) == hidden(fenced(text, limit)) == []
    unseen = [each for each in text if unicodedata.category(each) in ("Cf", "Cs")]
    if unseen:
        assert "\ufffd" in code(text, 10**6)
        assert "\ufffd" in fenced(text, 10**6)
    json.dumps(words(plain(text))).encode()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=60))
def test_words_that_everybody_sees_stay(text: str) -> None:
    """Letters of every language, numbers and signs are not taken for something hidden."""
    shown = plain(text, 10**6).replace("\u200b", "")
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text.replace("`", "'")
    assert one_line(text) == text


# --- the commit


@pytest.fixture(scope="module")
def git() -> Path:
    """The program."""
    return require("git", "git")


def trailers_of(git: Path, text: str) -> list[str]:
    """What git finds in a message."""
    clean = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    found = subprocess.run(
        [git, "interpret-trailers", "--parse"],
        input=text.encode(),
        capture_output=True,
        check=True,
        env=clean,
    )
    return found.stdout.decode().splitlines()


@settings(max_examples=40, deadline=None)
@given(hostile, hostile)
@example(PAYLOADS[0], PAYLOADS[2])
@example("\u202eApproved-By: ceo", "\ud800\x1b[31m")
def test_nobody_forges_a_trailer(git: Path, word: str, line: str) -> None:
    """Git finds the same trailers as without the hostile words, and one approval for each that was given."""
    asked = replace(poisoned(Phase.APPROVED, word, line, way=Way.EMERGENCY), approvals=())
    signed = replace(asked, approvals=(approval(asked, replace(AMY, name=line, email=word)),))
    usual = replace(in_phase(Phase.APPROVED, STRICT, way=Way.EMERGENCY, incident="INC-42"), approvals=())
    expected = replace(usual, approvals=(approval(usual, AMY),))
    text = message(signed, STRICT)
    assert hidden(text) == []
    names = [
        [one.partition(":")[0] for one in trailers_of(git, message(each, STRICT))]
        for each in (signed, expected)
    ]
    assert names[0] == names[1]
    assert len(text.splitlines()) == len(message(expected, STRICT).splitlines())
    [given_] = [one for one in trailers_of(git, text) if one.startswith("Approved-By:")]
    assert given_.endswith(f"({AMY.team}/{AMY.id})")


# --- the log

LOGGING = """
import json, logging, sys, structlog
from bot.telemetry import set_up

set_up()
log = structlog.get_logger("promote")
for word in json.loads(sys.stdin.read()):
    log.info(word, reason=word, people=[word], **{"key": word})
    logging.getLogger("some.library").warning("said %s", word)
    try:
        raise RuntimeError(word)
    except RuntimeError:
        log.exception("broke", by=word)
"""


def test_a_log_line_stays_one_line() -> None:
    """Whatever is logged, each record is one line of JSON in plain ASCII: nothing forges a record or turns a terminal."""
    ran = subprocess.run(
        [sys.executable, "-c", LOGGING],
        cwd=Path(__file__).parents[1],
        env={"PATH": os.environ["PATH"]},
        input=json.dumps(PAYLOADS).encode(),
        capture_output=True,
        check=True,
    )
    lines = ran.stderr.split(b"\n")[:-1]
    assert len(lines) == 3 * len(PAYLOADS)
    records = [json.loads(line) for line in lines]
    assert all(line.isascii() and b"\x1b" not in line for line in lines)
    assert [record["reason"] for record in records[::3]] == list(PAYLOADS)
    assert "forged" not in [record["event"] for record in records]


# --- the whole way


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made, made.hearing():
        yield made


def shown_everywhere(world: World) -> Iterator[tuple[str, Any]]:
    """Every message that stands in the channel, with its blocks."""
    for each in (
        *world.cards(),
        *(reply for top in world.cards() for reply in world.slack.thread(CHANNEL, top.ts)),
    ):
        yield each.text, each.blocks


async def test_from_the_command_to_the_commit_words_stay_words(world: World, git: Path) -> None:
    """Typed in Slack by somebody with a hostile name: no ping in the channel, no forged line in the branch."""
    word = " ".join(each for each in PAYLOADS[:-2] if "\ud800" not in each)
    eve = "U0EVEHOSTIL"
    world.slack.add_user(
        eve, name="eve", real_name=PAYLOADS[0] + BIDI, email="eve@acme.example", kind="member"
    )
    world.slack.channel(CHANNEL).members.add(eve)
    await world.command(f"manual-app prod because {word}", user=eve)
    await world.answer(eve)
    [promotion] = await world.pending()
    assert "\n" not in (promotion.reason or "\n")
    await world.advance(promotion.id)
    await world.press(promotion.id, "approve", user=AMY_HERE)
    await world.advance_until(promotion.id, Phase.COMMITTED)
    await world.show(promotion.id)
    for text, blocks in shown_everywhere(world):
        for each in (text, *(text for _, text in texts(list(blocks)))):
            assert "<!channel>" not in each
            assert "<!here" not in each
            assert "U0CEO>" not in each
            assert "<https://evil" not in each
            assert hidden(each) == []
    log = subprocess.run(
        [git, "log", "-1", "--format=%B", "main"], cwd=world.repository, capture_output=True, check=True
    )
    found = trailers_of(git, log.stdout.decode())
    assert [one for one in found if one.startswith("Approved-By")] == [
        f"Approved-By: Amy Chen <amy@acme.example> (T0DEMO00001/{AMY_HERE})"
    ]
    assert len(sample.log(world.repository, limit=1)[0].trailers) == len(found)
