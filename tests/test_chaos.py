"""A few of the faults of `make chaos`, with the real bot killed; and that its checks see what they are for."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import MINUTE, NOON, approval, requested
from hypothesis import given
from hypothesis import strategies as st
from world import wait_until

from bot.core.errors import Unavailable
from bot.core.ports import Card
from bot.core.promotion import Phase, Promotion
from bot.messages.thread import story
from bot.playground.repository import create_repository, log, read_file
from bot.playground.slack.state import Message
from bot.playground.workshop import CHANNEL
from chaos.bot import Boundary, Port
from chaos.by_hand import push, set_version
from chaos.checks import Seen, violations
from chaos.faults import READS, Crossing, Fault, How, Journal, every, has_work, held, parse, takeover, unsaved
from chaos.lanes import BRANCHED, HOOK, PULL, TAG, Lane
from chaos.matrix import judged, least, part
from chaos.processes import Fork
from chaos.reckoning import Aftermath, Kept, Promised
from chaos.replicas import PACE, WEB, WORKERS, Life, ReplicatedWorkshop, Team
from chaos.report import Part, write
from chaos.run import Outcome, run

FAULTS = ("commit:1:before", "commit:1:after", "post:1:after", "save-committing:1:after")
REVISION = "c0ffee" * 6 + "c0ff"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_promotion_survives_a_kill(tmp_path: Path, fault: str) -> None:
    """Killed right there, the bot brings it live: one commit, nothing false, a second card only for a lost place."""
    outcome = await run(parse(fault), tmp_path / "world")
    assert outcome.violations == ()
    assert (outcome.struck, outcome.phase, outcome.commits) == (True, "live", 1)
    assert outcome.copies == (fault == "post:1:after")
    assert outcome.takeover is not None


WAYS = [
    *(
        (lane, fault)
        for lane in (BRANCHED, TAG)
        for fault in ("commit:1:before", "commit:1:after", "commit:1:lost")
    ),
    *((HOOK, fault) for fault in ("create:1:after", "create:1:lost", "commit:1:after")),
    *((PULL, fault) for fault in ("propose:1:after", "open:1:after", "open:1:lost", "merge:1:after")),
]


@pytest.mark.parametrize(("lane", "fault"), WAYS, ids=[f"{lane.name}-{fault}" for lane, fault in WAYS])
async def test_each_way_survives_a_kill(tmp_path: Path, fault: str, lane: Lane) -> None:
    """One commit for a delivery, one move of a branch, one tag, one pull request, whatever the bot saw of it."""
    outcome = await run(parse(fault), tmp_path / "world", lane)
    assert outcome.violations == ()
    assert (outcome.struck, outcome.phase, outcome.commits) == (True, "live", 1)


# --- the boundary


class Counting:
    """A system that counts what was asked of it."""

    def __init__(self) -> None:
        self.done = 0

    async def tell(self) -> str:
        self.done += 1
        return "told"

    async def load(self) -> str:
        self.done += 1
        return "read"

    async def claim(self) -> tuple[str, ...]:
        self.done += 1
        return ("P-1",) if self.done > 1 else ()


def around(folder: Path, system: Counting, fault: str) -> Any:
    """The system behind a boundary, as a bot that has just started has it."""
    boundary = Boundary(Journal(folder / "journal"), [parse(word) for word in fault.split()])
    return Port(system, system="Slack", calls={"tell", "load", "claim"}, boundary=boundary)


async def test_a_lost_reply_is_lost_once(tmp_path: Path) -> None:
    """The ordered call is done and its answer lost; the calls before and after it are answered, in a new bot too."""
    system, journal = Counting(), Journal(tmp_path / "journal")
    slack = around(tmp_path, system, "tell:2:lost")
    assert await slack.tell() == "told"
    assert journal.read() == ()
    journal.begin()
    assert await slack.tell() == "told"
    with pytest.raises(Unavailable, match="Slack is not available") as lost:
        await slack.tell()
    assert lost.value.maybe_done
    assert (await slack.tell(), await around(tmp_path, system, "tell:5:lost").tell()) == ("told", "told")
    assert system.done == 5
    assert [(each.nth, each.what) for each in journal.read() if each.what != "begins"] == [
        (1, "ends"),
        (2, "ends"),
        (2, "lost"),
        (3, "ends"),
        (4, "ends"),
    ]


async def test_a_claim_counts_where_it_found_work(tmp_path: Path) -> None:
    """How often an idle bot looks is chance; only what it found has a number."""
    journal = Journal(tmp_path / "journal")
    journal.begin()
    store = around(tmp_path, Counting(), "tell:1:lost")
    assert await store.claim() == ()
    assert journal.read() == ()
    assert await store.claim() == ("P-1",)
    assert [(each.call, each.nth) for each in journal.read()] == [("claim", 1)] * 2


async def test_any_call_counts_since_the_process_began(tmp_path: Path) -> None:
    """A fault of any call passes over reads, and does not care what other processes have counted."""
    journal = Journal(tmp_path / "journal")
    journal.begin()
    for _ in range(2):
        slack = around(tmp_path, Counting(), "any:2:lost load:3:lost")
        assert (await slack.tell(), await slack.load()) == ("told", "read")
        with pytest.raises(Unavailable) as lost:
            await slack.tell()
        assert lost.value.maybe_done
    with pytest.raises(Unavailable) as unread:
        await slack.load()
    assert not unread.value.maybe_done


# --- the processes


def tell_and_wait() -> None:
    """What a child does in the next test."""
    sys.stdout.write(f"{os.environ['NAME']} {'HOME' in os.environ} {os.getpid()}\n")
    sys.stdout.flush()
    signal.pause()


async def test_a_fork_is_a_process_of_its_own(tmp_path: Path) -> None:
    """Two children have their own ids, environments and logs; SIGKILL ends one, and the other goes on."""
    logs = [tmp_path / name for name in ("one", "two")]
    children = [Fork(tell_and_wait, environment={"NAME": log.name}, log=log) for log in logs]
    await wait_until(lambda: all(log.exists() and log.read_text() for log in logs), "both have spoken")
    assert [log.read_text().split() for log in logs] == [
        [log.name, "False", str(child.pid)] for log, child in zip(logs, children, strict=True)
    ]
    children[0].send_signal(signal.SIGKILL)
    assert await children[0].wait() == children[0].returncode == -signal.SIGKILL
    assert children[1].returncode is None
    with pytest.raises(ProcessLookupError):
        children[0].send_signal(signal.SIGTERM)
    children[1].send_signal(signal.SIGTERM)
    assert await children[1].wait() == -signal.SIGTERM


async def test_what_is_pushed_by_hand_loses_nobodys_commit(tmp_path: Path) -> None:
    """Several push at the same moment: every file is there, and one commit for each."""
    repository = create_repository(tmp_path)
    files = [f"file-{number}" for number in range(6)]
    await asyncio.gather(*(asyncio.to_thread(push, repository, {name: name}) for name in files))
    assert [read_file(repository, name) for name in files] == files
    assert len(log(repository)) == 1 + len(files)


# --- the faults and the journal


@given(
    st.builds(
        Fault, call=st.from_regex(r"[a-z_-]+", fullmatch=True), nth=st.integers(1), how=st.sampled_from(How)
    )
)
def test_a_fault_can_be_repeated_from_its_name(fault: Fault) -> None:
    """What is printed for a violation is what `--only` takes."""
    assert parse(str(fault)) == fault


@pytest.mark.parametrize("text", ["commit", "commit:0:after", "commit:1:never", "commit:1:after:"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    """A typing error does not become a run without a fault."""
    with pytest.raises(ValueError, match="save-committing:1:after"):
        parse(text)


def test_every_boundary_has_its_faults() -> None:
    """Three at each call; no kill after a read, and none before a claim, whose find nobody knows beforehand."""
    faults = [str(fault) for fault in every({"commit": 2, "claim": 1, "load": 1})]
    assert faults == [
        "claim:1:after",
        "claim:1:lost",
        *(f"commit:{nth}:{how}" for nth in (1, 2) for how in ("before", "after", "lost")),
        "load:1:before",
        "load:1:lost",
    ]
    assert "load" in READS


def crossings(*words: str, about: str = "") -> tuple[Crossing, ...]:
    """`tell begins`, one second after the other."""
    return tuple(
        Crossing(at=float(at), call=word.split()[0], nth=1, what=word.split()[1], about=(about,))
        for at, word in enumerate(words)
    )


def test_work_is_what_was_claimed_or_saved_and_not_put_to_rest() -> None:
    """A claim or a save is work until the rest that follows it has ended."""
    assert not has_work(())
    assert not has_work(crossings("claim ends", "save-live ends", "save_card ends", "rest ends"))
    assert has_work(crossings("claim ends", "rest begins"))
    assert has_work(crossings("claim ends", "rest ends", "save-requested ends"))


def test_what_a_process_holds_is_what_it_claimed_and_did_not_begin_to_put_to_rest() -> None:
    """A rest that has begun may have reached the store; what others were at work on does not matter."""
    mine, others = crossings("claim begins", about="P-1"), crossings("claim begins", about="P-2")
    assert held((*mine, *others)) == {"P-1", "P-2"}
    assert held((*mine, *others, *crossings("rest begins", about="P-1"))) == {"P-2"}


def test_a_call_to_slack_is_unsaved_until_the_card_is() -> None:
    """Each fault between the two counts once, for the promotion that it is about, and in every process anew."""
    told, saved = crossings("tell begins", "tell ends", about="P-1"), crossings("save_card ends", about="P-1")
    death, lost = crossings("load killed", about="P-9"), crossings("tell begins", "tell lost", about="P-1")
    assert unsaved((*told, *death), "tell", about="P-1") == 1
    assert unsaved((*told, *death, *death, *told, *death), "tell", about="P-1") == 2
    assert unsaved((*lost, *told, *saved, *death), "tell", about="P-1") == 1
    assert unsaved((*told, *saved, *death), "tell", about="P-1") == 0
    assert unsaved((*told, *death), "post", about="P-1") == 0
    assert unsaved((*told, *death), "tell", about="P-2") == 0


def test_a_takeover_lasts_from_the_fault_to_the_next_claim() -> None:
    """Only work that was under way is taken over; a bot that had nothing to do may be idle afterwards."""
    assert takeover(crossings("claim ends", "commit killed", "load ends", "claim ends", "claim ends")) == 2
    assert takeover(crossings("claim ends", "commit killed")) is None
    assert takeover(crossings("claim ends", "rest ends", "load killed", "claim ends")) is None
    assert takeover(crossings("claim ends", "rest ends", "claim ends")) is None


# --- the checks


def steps() -> Iterator[Promotion]:
    """A promotion to prod, edition by edition."""
    yield (asked := requested())
    yield (approving := asked.approve(approval(asked)))
    yield (approved := approving.reach_quorum(at=NOON + MINUTE, link=None))
    yield (committing := approved.start_commit(at=NOON + MINUTE, base="0" * 40))
    yield (committed := committing.commit(at=NOON + MINUTE, revision=REVISION))
    yield committed.go_live(at=NOON + 2 * MINUTE, why="2 pods run it")


def message(ts: str, headline: str) -> Message:
    blocks = ({"type": "header", "text": {"type": "plain_text", "text": headline}},)
    return Message(channel="C1", ts=ts, user="UBOT", text=headline, blocks=blocks)


def good() -> Seen:
    """A run in which all is well."""
    promotions = list(steps())
    events = tuple(each.last for each in promotions)
    return Seen(
        promotion=promotions[-1],
        events=events,
        others=0,
        place=Card(channel="C1", ts="1.0", phase=Phase.LIVE, told=6),
        cards=(message("1.0", "Live: manual-app 15 → prod"),),
        thread="\n".join(story(promotions[-1], [event]) for event in events),
        shown=("Live: manual-app 15 → prod", "Wait for it, or have it cancelled: /promote cancel P-1"),
        commits=(REVISION,),
        holds=True,
        fsck="",
        bugs=(),
        deaths=0,
        crossings=(),
    )


def test_a_good_run_breaks_no_rule() -> None:
    """Nothing is found where nothing is wrong."""
    assert violations(good(), None) == []


TWO_CARDS = {"cards": (message("1.0", "Live: 15"), message("0.5", "Approval needed"))}
TWICE = {"thread": good().thread + "\n" + story(good().promotion, good().events[-1:])}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"promotion": list(steps())[-2], "events": good().events[:-1]}, "ended as committed"),
        ({"events": good().events[:2] + good().events[3:]}, r"editions are \[1, 2, 4, 5, 6\]"),
        ({"others": 1}, "1 promotions beside"),
        ({"commits": ()}, "0 commits"),
        ({"commits": (REVISION, "1" * 40)}, "2 commits"),
        ({"commits": ("1" * 40,)}, "the record names c0ffee"),
        ({"holds": False}, "not where it belongs"),
        ({"pulls": ("open", "merged")}, "not one that is merged"),
        ({"fsck": "missing blob 1234"}, "missing blob"),
        ({"cards": (message("1.0", "Rolling out"),)}, "not Live"),
        ({"place": Card(channel="C1", ts="9.9")}, "not Live"),
        (TWO_CARDS, "2 cards"),
        (TWICE, "'.*Live: 2 pods run it' 2 times"),
        ({"thread": "nothing"}, "asked for .* 0 times"),
        ({"shown": ("manual-app went to 13; nothing was committed",)}, "somebody was told"),
        ({"shown": ("Asked by Dana. Nothing was committed.",)}, "somebody was told 'Nothing was"),
        ({"shown": ("Cancelled: manual-app",)}, "somebody was told 'Cancelled:'"),
        (
            {"shown": ("You cannot approve P-1 any more: it expired at 14:02 UTC.",)},
            "somebody was told 'it exp",
        ),
        ({"bugs": ("advance broke",)}, "logged an error: advance broke"),
        ({"deaths": 1}, "ended 1 times, and was killed 0 times"),
    ],
)
def test_each_broken_rule_is_told(broken: dict[str, Any], told: str) -> None:
    """Whatever is wrong is found, and said so that one knows what to look for."""
    found = violations(replace(good(), **broken), None)
    assert any(re.search(told, each) for each in found), found


@pytest.mark.parametrize(("call", "seen"), [("post", TWO_CARDS), ("tell", TWICE)])
def test_what_stands_twice_is_forgiven_only_where_it_was_not_on_record(
    call: str, seen: dict[str, Any]
) -> None:
    """A crash between telling people and remembering it repeats it; a crash anywhere else must not."""
    fault = parse(f"{call}:1:after")
    id = good().promotion.id
    lost = crossings(f"{call} begins", f"{call} ends", f"{call} killed", about=id)
    kept = crossings(f"{call} begins", f"{call} ends", "save_card ends", "load killed", about=id)
    assert violations(replace(good(), crossings=lost, **seen), fault) == []
    assert violations(replace(good(), crossings=kept, **seen), fault) != []


# --- the checks after a storm

TEAM = Team(number=1)


def calm(folder: Path) -> Aftermath:
    """A world of replicas in which one promotion went live and all is well; nothing in it runs."""
    world = ReplicatedWorkshop(folder, teams=[TEAM], store_url="unix:///nowhere", pace=PACE)
    set_version(world.repository, "app-1/values-prod.yaml", "15")
    for replica in (*WEB, *WORKERS):
        world.log_of(replica).touch()
    promotions = [replace(each, app="app-1") for each in steps()]
    last, amy = promotions[-1], TEAM.people["amy"]
    events = tuple(replace(each.last, by=amy) for each in promotions)
    slack, bot = world.slack.workspace, world.slack.bot_user
    card = slack.add(CHANNEL, bot, "", blocks=[head("Approval needed")], metadata=metadata(last.id))
    slack.edit(card, text="", blocks=[head("Live")])
    for event in events:
        slack.add(CHANNEL, bot, story(last, [event]), thread_ts=card.ts)
    place = Card(channel=CHANNEL, ts=card.ts, phase=Phase.LIVE, told=6, is_confirmed=True)
    after = Aftermath(
        world=world,
        promised=[Promised(id=last.id, team=TEAM, version="15")],
        kept={last.id: Kept(promotion=last, events=events, place=place)},
        phases={last.id: ["live"]},
        due=frozenset(),
        slots={},
    )
    after.commits = {last.id: [REVISION]}
    return after


def head(word: str, what: str = "app-1 15 → prod") -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": f":rocket: {word}: {what}"}}


def metadata(id: str) -> dict[str, Any]:
    return {"event_type": "promotion", "event_payload": {"id": id}}


def answered(after: Aftermath, text: str) -> None:
    """Amy is told this privately, now, a second after she did something."""
    workspace, amy = after.world.slack.workspace, TEAM.people["amy"]
    after.world.acts.append((amy, time.time() - 1))
    workspace.add(CHANNEL, workspace.bot.id, text, only_for=amy)


def edited(after: Aftermath, word: str) -> None:
    """The card says this, and then again that it is live."""
    workspace = after.world.slack.workspace
    for each in (word, "Live"):
        [card] = after.world.slack.messages(CHANNEL)
        workspace.edit(card, text="", blocks=[head(each)])


def said(after: Aftermath, text: str) -> None:
    """A line stands in the card's thread."""
    [card] = after.world.slack.messages(CHANNEL)
    after.world.slack.workspace.add(CHANNEL, after.world.slack.bot_user, text, thread_ts=card.ts)


def copied(after: Aftermath) -> None:
    """A second card stands in the channel."""
    workspace, [id] = after.world.slack.workspace, after.kept
    workspace.add(CHANNEL, workspace.bot.id, "", blocks=[head("Approval needed")], metadata=metadata(id))


def kept(after: Aftermath, **changes: Any) -> None:
    """The record is another one."""
    [(id, found)] = after.kept.items()
    after.kept = {id: replace(found, **changes)}


async def test_a_calm_world_breaks_no_rule(tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong, whatever was said that was true."""
    after, id = calm(tmp_path), good().promotion.id
    answered(after, f":no_entry_sign: You have already approved {id}.")
    answered(
        after, ":electric_plug: Slack is not available: gone. Nothing was recorded; try again in a moment."
    )
    answered(after, f":no_entry_sign: You cannot approve {id} any more: it is live since 12:02 UTC.")
    answered(after, ":no_entry_sign: stage is not live and healthy: pods. Only what runs well can go on.")
    assert after.violations() == []


ID = good().promotion.id
UNTRUE = {
    f":no_entry_sign: You cannot approve {ID} any more: it was rejected at 12:02 UTC.": "not so",
    f":no_entry_sign: You cannot approve {ID} any more: its commit is being written.": "not so",
    f":no_entry_sign: That was a copy. {ID} is decided on its own card.": "not so",
    ":no_entry_sign: You have already approved P-0000000000.": "not so",
    f":no_entry_sign: app-1 in prod is held by {ID}, asked for by Dana 1: it waits for approval. Wait for it": "not so",
    ":no_entry_sign: prod already runs 16, which is what stage runs; nothing to do.": "not so",
    f"`{ID}`: asked for app-1 15 to prod. Its card is in <#C1>.": "not so",
    ":boom: Something broke on our side (ref 123456).": "nobody can explain",
}
BREAKS: list[tuple[Callable[[Aftermath], object], str]] = [
    (lambda after: kept(after, promotion=list(steps())[-2]), "it ended as committed"),
    (lambda after: kept(after, events=after.kept[ID].events[1:]), r"editions are \[2, 3, 4, 5, 6\]"),
    (lambda after: kept(after, place=Card(ts="9.9")), "not Live"),
    (lambda after: setattr(after, "kept", {}), "is lost"),
    (lambda after: setattr(after, "promised", ()), "nobody was told of"),
    (lambda after: setattr(after, "promised", after.promised * 2), "the same id"),
    (lambda after: setattr(after, "phases", {ID: ["committed", "live"]}), "lists it as"),
    (lambda after: setattr(after, "due", frozenset([ID])), "still due"),
    (lambda after: setattr(after, "slots", {"{gp}:hold:app-1/prod": ID}), "hold:app-1/prod still names"),
    (lambda after: setattr(after, "commits", {ID: []}), "0 commits"),
    (lambda after: setattr(after, "commits", {ID: ["1" * 40]}), "the record names c0ffee"),
    (lambda after: setattr(after, "commits", {ID: [REVISION], "P-1": ["1" * 40]}), "which is no promotion"),
    (lambda after: set_version(after.world.repository, "app-1/values-prod.yaml", "14"), "does not hold 15"),
    (lambda after: (after.world.repository / "refs" / "heads" / "odd").write_text("1" * 40), "git fsck says"),
    (lambda after: after.world.log_of("web-1").write_text('{"level": "error"}'), "web-1 logged an error"),
    (lambda after: setattr(after, "takeovers", {("worker-1.1", ID): 6.5}), "only after 6.5 s"),
    (lambda after: setattr(after, "takeovers", {("worker-1.1", ID): None}), "never"),
    (lambda after: setattr(after, "doubts", ["not at rest"]), "not at rest"),
    (lambda after: after.world.late.append("web-1.1 did not end"), "did not end"),
    (copied, "2 cards"),
    (lambda after: edited(after, "Rejected"), "showed ':rocket: Rejected"),
    (lambda after: edited(after, "Committing"), "went back to committing"),
    (lambda after: said(after, ":x: Failed"), "':x: Failed', which never happened"),
    (lambda after: said(after, story(good().promotion, good().events[-1:])), "2 times"),
    (lambda after: after.world.slack.workspace.add(CHANNEL, after.world.slack.bot_user, "?"), "no promotion"),
    *((lambda after, text=text: answered(after, text), told) for text, told in UNTRUE.items()),
]


@pytest.mark.parametrize(("breaks", "told"), BREAKS, ids=[told for _, told in BREAKS])
async def test_each_rule_is_looked_at_after_a_storm(
    tmp_path: Path, breaks: Callable[[Aftermath], object], told: str
) -> None:
    """Whatever is wrong is found, and said so that one knows what to look for."""
    after = calm(tmp_path)
    breaks(after)
    found = after.violations()
    assert any(re.search(told, each) for each in found), found


@pytest.mark.parametrize(
    ("later", "seconds"),
    [(["claim"], 2.0), (["rest"], "in hand"), ([], None), (["load", "claim"], 3.0)],
)
async def test_a_takeover_is_measured_from_a_death_to_the_next_claim(
    tmp_path: Path, later: list[str], seconds: float | str | None
) -> None:
    """Work that another worker still had in hand was not left alone, and what nobody claims is told."""
    after = calm(tmp_path)
    for name, calls in {
        "worker-1": [("claim", 1.0), ("tell", 2.0)],
        "worker-2": [("claim", 0.5), *((call, 3.0 + number) for number, call in enumerate(later, start=1))],
    }.items():
        journal = Journal(tmp_path / f"{name}.jsonl")
        for call, at in calls:
            journal.note(Crossing(at=at, call=call, nth=1, what="begins", about=(ID,)))
        if name == "worker-1":
            journal.note(Crossing(at=2.0, call="tell", nth=1, what="killed", about=(ID,)))
        after.world.lives.append(Life(replica=name, number=1, faults=(), journal=journal, process=None))
    expected = {} if seconds == "in hand" else {("worker-1.1 (no fault)", ID): seconds}
    assert after.takeovers == expected


async def test_nothing_was_recorded_is_untrue_where_it_was(tmp_path: Path) -> None:
    """The answer is compared with what the person did since the act that it answers."""
    after, amy = calm(tmp_path), TEAM.people["amy"]
    answered(after, ":electric_plug: the store is not available: gone. Nothing was recorded; try again.")
    events = list(after.kept[ID].events)
    events[1] = replace(events[1], by=amy, at=datetime.now(UTC) - timedelta(milliseconds=500))
    kept(after, events=tuple(events))
    assert any("Nothing was recorded" in each for each in after.violations())


# --- the report


def outcomes() -> list[Outcome]:
    """A run without a fault, one with a second card, one with a second commit, and one that is lost."""
    return [
        Outcome(fault=None, violations=(), phase="live", commits=1, counted={"commit": 1}),
        Outcome(
            fault=parse("post:1:after"),
            violations=(),
            struck=True,
            phase="live",
            commits=1,
            copies=1,
            takeover=1.2,
        ),
        Outcome(
            fault=parse("commit:1:lost"),
            violations=("2 commits",),
            struck=True,
            phase="failed",
            commits=2,
            takeover=9,
        ),
        Outcome(fault=parse("save-live:2:after"), violations=("there is no promotion",)),
    ]


def test_the_matrix_counts_and_names_what_was_found() -> None:
    """Each figure is the sum over the runs; a reply that was lost is no kill and no takeover."""
    found = part(outcomes(), boundaries=99, left=1, seed=7, seconds=61.4)
    assert found.violations == ("commit:1:lost: 2 commits", "save-live:2:after: there is no promotion")
    figures = found.figures()
    assert {name: figures[name] for name in EXPECTED} == EXPECTED


EXPECTED = {
    "kills": "1",
    "lost replies": "1",
    "promotions": "3",
    "commits": "4",
    "duplicates of commits": "1",
    "lost": "1",
    "wrong phases": "1",
    "copies of cards": "1",
    "copies of cards after": "`post:1:after`",
    "longest takeover": "1.2 s",
    "violations": "2",
    "seconds": "61",
    "seed": "7",
    "boundaries": "99",
    "worlds": "4",
    "boundaries not reached": "`save-live:2:after`",
    "faults without time for a run": "1",
}


def test_a_boundary_counts_as_often_as_it_is_always_crossed() -> None:
    """One run may renew a lease once more than another: only what every run reaches has its faults."""
    assert least([{"renew": 3, "commit": 1}, {"renew": 2, "commit": 1}, {"commit": 1}]) == {
        "commit": 1,
        "renew": 0,
    }


def test_a_boundary_that_is_not_reached_is_told_where_it_should_have_been() -> None:
    """Only a fault that every undisturbed run would meet is missed; more calls than that, and looks, are chance."""
    missed = Outcome(fault=parse("tell:2:after"), violations=())
    assert judged(missed, {"tell": 2}).violations != ()
    assert judged(missed, {"tell": 1}).violations == ()
    assert judged(missed, {}).violations == ()
    look = Outcome(fault=parse("relate:5:after"), violations=())
    assert judged(look, {"relate": 5}).violations == ()


def test_the_report_has_a_column_for_each_part(tmp_path: Path) -> None:
    """A row that only one part has is a dash in the others, and the JSON can be read again."""
    matrix = part(outcomes(), boundaries=99, left=0, seed=7, seconds=1)
    other = Part(
        name="storm",
        lease=1,
        replicas="2 web, 2 worker",
        kills=900,
        lost_replies=1,
        promotions=1,
        commits=1,
        duplicates=0,
        lost=0,
        wrong_phases=0,
        copies=0,
        repeats=0,
        takeover=None,
        seconds=1,
        also={"apps": "12"},
    )
    assert write([matrix, other], tmp_path) == (text := (tmp_path / "chaos.md").read_text())
    for row in (
        "| What | matrix | storm |",
        "| kills | 1 | 900 |",
        "| longest takeover | 1.2 s | – |",
        "| boundaries | 99 | – |",
        "| apps | – | 12 |",
        "- matrix: commit:1:lost: 2 commits",
        "901 kills, 2 violations.",
    ):
        assert row in text
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert [each["name"] for each in told] == ["matrix", "storm"]
    assert [each["fault"] for each in told[0]["details"]] == [str(each.fault or "") for each in outcomes()]
