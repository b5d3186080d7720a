"""A few of the faults of `make chaos`, with the real bot killed; and that its checks see what they are for."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import MINUTE, NOON, approval, requested
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Unavailable
from bot.core.ports import Card
from bot.core.promotion import Phase, Promotion
from bot.messages.thread import story
from bot.playground.slack.state import Message
from chaos.bot import Boundary, Port
from chaos.checks import Seen, violations
from chaos.faults import READS, Crossing, Fault, How, Journal, every, has_work, parse, takeover
from chaos.report import write
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


# --- the boundary


class Counting:
    """A system that counts what was asked of it."""

    def __init__(self) -> None:
        self.done = 0

    async def tell(self) -> str:
        self.done += 1
        return "told"

    async def claim(self) -> tuple[str, ...]:
        self.done += 1
        return ("P-1",) if self.done > 1 else ()


def around(folder: Path, system: Counting, fault: str) -> Any:
    """The system behind a boundary, as a bot that has just started has it."""
    boundary = Boundary(Journal(folder / "journal"), parse(fault))
    return Port(system, system="Slack", calls={"tell", "claim"}, boundary=boundary)


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
        (2, "fault"),
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


def crossings(*words: str) -> tuple[Crossing, ...]:
    """`tell begins`, one second after the other."""
    return tuple(
        Crossing(at=float(at), call=word.split()[0], nth=1, what=word.split()[1])
        for at, word in enumerate(words)
    )


def test_work_is_what_was_claimed_or_saved_and_not_put_to_rest() -> None:
    """A claim or a save is work until the rest that follows it has ended."""
    assert not has_work(())
    assert not has_work(crossings("claim ends", "save-live ends", "save_card ends", "rest ends"))
    assert has_work(crossings("claim ends", "rest begins"))
    assert has_work(crossings("claim ends", "rest ends", "save-requested ends"))


def test_a_takeover_lasts_from_the_fault_to_the_next_claim() -> None:
    """Only work that was under way is taken over; a bot that had nothing to do may be idle afterwards."""
    assert takeover(crossings("claim ends", "commit fault", "load ends", "claim ends", "claim ends")) == 2
    assert takeover(crossings("claim ends", "commit fault")) is None
    assert takeover(crossings("claim ends", "rest ends", "load fault", "claim ends")) is None
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
        value='image:\n  tag: "15"\n',
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
        ({"value": 'image:\n  tag: "14"\n'}, "does not hold 15"),
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
    lost = crossings(f"{call} begins", f"{call} ends", f"{call} fault")
    kept = crossings(f"{call} begins", f"{call} ends", "save_card ends", "load fault")
    assert violations(replace(good(), crossings=lost, **seen), fault) == []
    assert violations(replace(good(), crossings=kept, **seen), fault) != []


# --- the report


def test_the_report_counts_and_names_what_was_found(tmp_path: Path) -> None:
    """The table counts, a violation is named with the fault that repeats it, and the JSON can be read again."""
    fine = Outcome(fault=None, violations=(), phase="live", commits=1, counted={"commit": 1})
    copied = Outcome(
        fault=parse("post:1:after"),
        violations=(),
        struck=True,
        phase="live",
        commits=1,
        copies=1,
        takeover=1.2,
    )
    wrong = Outcome(
        fault=parse("commit:1:lost"),
        violations=("2 commits",),
        struck=True,
        phase="failed",
        commits=2,
        takeover=9,
    )
    lost = Outcome(fault=parse("save-live:2:after"), violations=("there is no promotion",))
    write((fine, copied, wrong, lost), tmp_path, boundaries=99, left=["load:1:lost"], seed=7)
    table = (tmp_path / "chaos.md").read_text()
    for row in (
        "| runs | 4 |",
        "| kills | 1 |",
        "| lost replies | 1 |",
        "| boundary not reached | 1 |",
        "| faults without time for a run | 1 |",
        "| commits | 4 |",
        "| duplicates of commits | 1 |",
        "| lost | 1 |",
        "| wrong phases | 1 |",
        "| copies of cards | 1 (`post:1:after`) |",
        "| longest takeover | 1.2 s |",
        "| violations | 2 |",
    ):
        assert row in table
    assert "commit:1:lost: failed" in table
    assert "VIOLATION 2 commits" in table
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert [each["fault"] for each in told["runs"]] == [
        "",
        "post:1:after",
        "commit:1:lost",
        "save-live:2:after",
    ]
    assert (told["seed"], told["left"], told["runs"][0]["counted"]) == (7, ["load:1:lost"], {"commit": 1})
