"""What must be true after every run, whatever went wrong in it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.core.ports import Card
from bot.core.promotion import Event, Phase, Promotion
from bot.integrations.store import RedisStore
from bot.messages.thread import story
from bot.playground.slack.state import Message
from chaos.faults import Crossing, Fault, struck, unsaved
from chaos.world import CrashingWorkshop, cards, shown

FALSE = re.compile(
    r"[Nn]othing was committed|Something broke|:x:|(Failed|Rejected|Expired|Cancelled|Superseded|Stale):"
    r"|(rejected|cancelled) it|it (was rejected|was cancelled|expired|failed) at"
)
"""What nobody may read in a story that ends well."""
BROKEN = re.compile(r'"level": "(error|critical)"|Traceback')


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is left of one run: the record, what people saw, and what git holds."""

    promotion: Promotion
    events: tuple[Event, ...]
    others: int
    """Promotions beside this one."""
    place: Card
    cards: tuple[Message, ...]
    thread: str
    shown: tuple[str, ...]
    commits: tuple[str, ...]
    """The revision of each commit or tag with the promotion's id."""
    holds: bool
    """Does the environment's own place hold the version?"""
    fsck: str
    """What git finds wrong with the repository; empty where all is well."""
    bugs: tuple[str, ...]
    """What the bot logged as errors."""
    deaths: int
    """How often the bot ended by itself."""
    crossings: tuple[Crossing, ...]
    pulls: tuple[str, ...] = ()
    """How each pull request stands."""

    @property
    def copies(self) -> int:
        """Cards beyond the one on record."""
        return len(self.cards) - 1

    @property
    def repeats(self) -> int:
        """Lines of the story that stand in the thread more often than once."""
        return sum(max(0, self.thread.count(line) - 1) for line in self.lines)

    @property
    def lines(self) -> list[str]:
        """What the thread has to tell, line by line."""
        return [line for event in self.events if (line := story(self.promotion, [event]))]


async def look(world: CrashingWorkshop, store: RedisStore, known: Sequence[Promotion]) -> Seen:
    """Look at everything; of the known promotions, which is one where all is well, the first is looked at."""
    promotion = known[0]
    place = await store.card(promotion.id)
    bot_log = world.log_path.read_text(encoding="utf-8", errors="replace")
    return Seen(
        promotion=promotion,
        events=await store.events(promotion.id),
        others=len(known) - 1,
        place=place,
        cards=tuple(cards(world.slack, promotion.id)),
        thread="\n".join(each.text for each in world.slack.thread(place.channel or "", place.ts or "")),
        shown=tuple(text for _, text in shown(world.slack)),
        commits=world.lane.records(world.written, promotion.id),
        holds=world.lane.holds(world.written),
        fsck=fsck(world.written),
        bugs=tuple(line for line in bot_log.splitlines() if BROKEN.search(line)),
        deaths=world.starts - 1,
        crossings=world.journal.read(),
        pulls=tuple(pull.state for pull in world.forge.pulls.values()) if world.forge else (),
    )


def violations(seen: Seen, fault: Fault | None) -> list[str]:
    """Every rule that was broken, as sentences; `fault` is what was ordered, None for an undisturbed run."""
    return [*_of_the_record(seen), *_of_git(seen), *_of_slack(seen), *_of_the_bot(seen, fault)]


def _of_the_record(seen: Seen) -> Iterator[str]:
    if seen.promotion.phase is not Phase.LIVE:
        yield f"the promotion ended as {seen.promotion.phase}: {seen.promotion.ending}"
    editions = [event.edition for event in seen.events]
    if editions != list(range(1, seen.promotion.edition + 1)):
        yield f"the story's editions are {editions}, the record's is {seen.promotion.edition}"
    if seen.others:
        yield f"there are {seen.others} promotions beside it"


def _of_git(seen: Seen) -> Iterator[str]:
    if len(seen.commits) != 1:
        yield f"{len(seen.commits)} commits on the branch, not one"
    if seen.promotion.revision not in seen.commits:
        yield f"the record names {seen.promotion.revision}, the branch has {list(seen.commits)}"
    if not seen.holds:
        yield "the version is not where it belongs"
    if seen.pulls not in ((), ("merged",)):
        yield f"the pull requests are {', '.join(seen.pulls)}, not one that is merged"
    if seen.fsck:
        yield f"git fsck says: {seen.fsck}"


def _of_slack(seen: Seen) -> Iterator[str]:
    on_record = [card for card in seen.cards if card.ts == seen.place.ts]
    if not on_record or "Live" not in headline(on_record[0]):
        yield f"the card on record shows {[headline(card) for card in on_record]}, not Live"
    if seen.copies > unsaved(seen.crossings, "post", about=seen.promotion.id):
        yield f"{len(seen.cards)} cards stand in the channel"
    most = 1 + unsaved(seen.crossings, "tell", about=seen.promotion.id)
    for line in seen.lines:
        if not 1 <= (times := seen.thread.count(line)) <= most:
            yield f"the thread tells {line!r} {times} times"
    for text in seen.shown:
        if found := FALSE.search(text):
            yield f"somebody was told {found[0]!r}: {text[:300]}"


def _of_the_bot(seen: Seen, fault: Fault | None) -> Iterator[str]:
    killed = int(fault is not None and fault.how.kills and struck(seen.crossings) is not None)
    if seen.deaths > killed:
        yield f"the bot ended {seen.deaths} times, and was killed {killed} times"
    for line in seen.bugs:
        yield f"the bot logged an error: {line[:600]}"


def headline(card: Message) -> str:
    """What a card says first."""
    return str(card.blocks[0]["text"]["text"])


def fsck(repository: Path) -> str:
    """What git finds wrong with the repository; empty where all is well."""
    done = subprocess.run(
        ["git", f"--git-dir={repository}", "fsck", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip() or ("" if done.returncode == 0 else f"exit {done.returncode}")
