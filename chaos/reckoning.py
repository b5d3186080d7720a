"""What must be true when a storm is over: of every promotion, of git, of Slack, of the store and of the replicas."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from bot.core.ports import Card
from bot.core.promotion import Event, Phase, Promotion
from bot.messages.thread import story
from bot.playground.repository import log, read_file
from bot.playground.slack.state import Message
from bot.playground.workshop import CHANNEL
from chaos.checks import BROKEN, fsck, headline
from chaos.faults import Crossing, What, held, unsaved
from chaos.replicas import WEB, WORKERS, Life, ReplicatedWorkshop, Team, killed
from chaos.report import Part
from chaos.words import Words
from chaos.world import promotion_of

BAR = 5.0
"""Seconds beyond the lease in which a dead worker's work must be claimed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """A promotion as people were told of it."""

    id: str
    team: Team
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A promotion as the store has it."""

    promotion: Promotion
    events: tuple[Event, ...]
    place: Card

    @property
    def lines(self) -> list[str]:
        """What the thread has to tell, line by line."""
        return [line for event in self.events if (line := story(self.promotion, [event]))]


@dataclass(kw_only=True)
class Aftermath:
    """What is left of a world of several replicas; the properties are looked at once."""

    world: ReplicatedWorkshop
    promised: Sequence[Promised]
    kept: Mapping[str, Kept]
    phases: Mapping[str, Sequence[str]]
    """The sets of the store that name each promotion, by the phase in their name."""
    due: frozenset[str]
    slots: Mapping[str, str]
    """Who holds or follows each target, by the slot's key."""
    doubts: list[str] = field(default_factory=list)

    @cached_property
    def commits(self) -> Mapping[str, Sequence[str]]:
        """The revisions on the branch, by the promotion's id that they carry."""
        found = defaultdict(list)
        for commit in log(self.world.repository, limit=1_000_000):
            for name, value in commit.trailers:
                if name == "Promotion-Id":
                    found[value].append(commit.revision)
        return found

    @cached_property
    def cards(self) -> Mapping[str, Sequence[Message]]:
        """The messages in the channel, by the promotion whose card they are."""
        found = defaultdict(list)
        for message in self.world.slack.messages(CHANNEL):
            if id := promotion_of(message):
                found[id].append(message)
        return found

    @cached_property
    def threads(self) -> Mapping[str, Sequence[str]]:
        """The lines below each message, by its time stamp."""
        found = defaultdict(list)
        for message in self.world.slack.workspace.messages(CHANNEL):
            if message.thread_ts:
                found[message.thread_ts] += message.text.splitlines()
        return found

    @cached_property
    def deaths(self) -> Mapping[Life, Crossing]:
        """The processes that a fault ended, and where."""
        return {life: crossing for life in self.world.lives if (crossing := killed(life))}

    @cached_property
    def lost_replies(self) -> int:
        """How many answers a fault took."""
        return sum(each.what == What.LOST for life in self.world.lives for each in life.crossings)

    @cached_property
    def journals(self) -> Mapping[str, Sequence[Crossing]]:
        """What all processes did, by promotion, process after process; where one was killed stands in each."""
        found: dict[str, list[Crossing]] = defaultdict(list)
        for life in self.world.lives:
            touched = set()
            for crossing in life.crossings:
                for id in crossing.about if crossing.what != What.KILLED else touched:
                    found[id].append(crossing)
                    touched.add(id)
        return found

    @cached_property
    def takeovers(self) -> Mapping[tuple[str, str], float | None]:
        """By the worker that died and the work that it held: the seconds until that was claimed again, None for never.

        What another one puts to rest next was in hand all the time: its lease had run out while it worked on it.
        """
        turns: dict[str, list[tuple[Crossing, Life]]] = defaultdict(list)
        for life in self.world.lives:
            for crossing in life.crossings:
                if crossing.call in ("claim", "rest") and crossing.what == What.BEGINS:
                    for id in crossing.about:
                        turns[id].append((crossing, life))
        found = {}
        for life, death in self.deaths.items():
            for id in held(life.crossings):
                in_order = sorted(turns[id], key=lambda turn: turn[0].at)
                before = [who for turn, who in in_order if turn.at <= death.at and turn.call == "claim"]
                later = next((turn for turn, _ in in_order if turn.at > death.at), None)
                if before[-1] is life and (later is None or later.call == "claim"):
                    found[str(life), id] = later.at - death.at if later else None
        return found

    def copies(self, id: str) -> int:
        """Cards beyond the one."""
        return max(0, len(self.cards[id]) - 1)

    def repeats(self, id: str) -> int:
        """Lines of the story that stand in the card's thread more often than once."""
        thread = self.threads[self.kept[id].place.ts or ""]
        return sum(max(0, thread.count(line) - 1) for line in self.kept[id].lines)

    def part(
        self,
        name: str,
        *,
        seed: int | None = None,
        seconds: float,
        also: Mapping[str, str] = MappingProxyType({}),
    ) -> Part:
        """What it came to."""
        takeovers = [each for each in self.takeovers.values() if each is not None]
        commits = [len(revisions) for revisions in self.commits.values()]
        return Part(
            name=name,
            seed=seed,
            lease=self.world.pace.lease_seconds,
            replicas=f"{len(WEB)} web, {len(WORKERS)} worker",
            kills=len(self.deaths),
            lost_replies=self.lost_replies,
            promotions=len(self.kept),
            commits=sum(commits),
            duplicates=sum(each - 1 for each in commits),
            lost=len({each.id for each in self.promised} - self.kept.keys()),
            wrong_phases=sum(each.promotion.phase is not Phase.LIVE for each in self.kept.values()),
            copies=sum(map(self.copies, self.kept)),
            repeats=sum(map(self.repeats, self.kept)),
            takeover=max(takeovers, default=None),
            seconds=seconds,
            violations=tuple(self.violations()),
            also={**also, "works taken over": f"{len(takeovers)}"},
            details=[f"{life}" for life in self.deaths],
        )

    # --- the rules

    def violations(self) -> list[str]:
        """Every rule that was broken, as sentences."""
        found = [
            *self.doubts,
            *self.world.late,
            *self._of_promises(),
            *self._of_git(),
            *self._of_replicas(),
            *self._of_slots(),
        ]
        for id, kept in self.kept.items():
            rules = (self._of_the_record, self._of_commits, self._of_the_card, self._of_the_thread)
            found += [f"{id} ({kept.promotion.title}): {each}" for rule in rules for each in rule(kept)]
        words = Words(world=self.world, kept=self.kept, cards=self.cards)
        return [*found, *words.doubts()]

    def _of_promises(self) -> Iterator[str]:
        known = {each.id: each for each in self.promised}
        for each in self.promised:
            wanted = f"{each.team.app} {each.version} to {each.team.environment}"
            if each.id not in self.kept:
                yield f"{each.id} ({wanted}) is lost"
            elif (found := self.kept[each.id].promotion.title) != wanted:
                yield f"{each.id} is {found}, not {wanted}"
        for id in self.kept.keys() - known:
            yield f"{id} ({self.kept[id].promotion.title}) is one that nobody was told of"
        if len(known) != len(self.promised):
            yield "people were told the same id for two requests"

    def _of_the_record(self, kept: Kept) -> Iterator[str]:
        promotion = kept.promotion
        if promotion.phase is not Phase.LIVE:
            yield f"it ended as {promotion.phase}: {promotion.ending}"
        editions = [event.edition for event in kept.events]
        if editions != list(range(1, promotion.edition + 1)):
            yield f"the story's editions are {editions}, the record's is {promotion.edition}"
        if self.phases[promotion.id] != [promotion.phase]:
            yield f"it is {promotion.phase}, and the store lists it as {list(self.phases[promotion.id])}"
        if promotion.phase.is_final == (promotion.id in self.due):
            yield f"it is {promotion.phase}, and {'still' if promotion.phase.is_final else 'not'} due"

    def _of_commits(self, kept: Kept) -> Iterator[str]:
        revisions = self.commits[kept.promotion.id]
        if len(revisions) != 1:
            yield f"{len(revisions)} commits on the branch, not one"
        if kept.promotion.revision not in revisions:
            yield f"the record names {kept.promotion.revision}, the branch has {list(revisions)}"

    def _of_git(self) -> Iterator[str]:
        for id in self.commits.keys() - self.kept:
            yield f"the branch has a commit of {id}, which is no promotion"
        last = {each.team: each.version for each in self.promised}
        for team, version in last.items():
            path = f"{team.app}/values-{team.environment}.yaml"
            if f'tag: "{version}"' not in (text := read_file(self.world.repository, path)):
                yield f"{path} does not hold {version}: {text!r}"
        if found := fsck(self.world.repository):
            yield f"git fsck says: {found}"

    def _of_the_card(self, kept: Kept) -> Iterator[str]:
        id = kept.promotion.id
        on_record = [card for card in self.cards[id] if card.ts == kept.place.ts]
        if not on_record or "Live" not in headline(on_record[0]):
            yield f"the card on record shows {[headline(card) for card in on_record]}, not Live"
        if self.copies(id) > unsaved(self.journals[id], "post", about=id):
            yield f"{len(self.cards[id])} cards stand in the channel"

    def _of_the_thread(self, kept: Kept) -> Iterator[str]:
        id = kept.promotion.id
        thread = self.threads[kept.place.ts or ""]
        most = 1 + unsaved(self.journals[id], "tell", about=id)
        for line in kept.lines:
            if not 1 <= (times := thread.count(line)) <= most:
                yield f"the thread tells {line!r} {times} times, {most} at most"
        for card in self.cards[id]:
            for line in set(self.threads[card.ts]) - set(kept.lines):
                yield f"the thread tells {line!r}, which never happened"

    def _of_slots(self) -> Iterator[str]:
        for slot, id in self.slots.items():
            if id not in self.kept or self.kept[id].promotion.phase.is_final:
                yield f"{slot} still names {id}"

    def _of_replicas(self) -> Iterator[str]:
        for life in self.world.lives:
            code = life.process.returncode
            # One that was told to end before it had got ready ends at once, by the signal itself.
            if code not in (None, 0, -signal.SIGTERM) and life not in self.deaths:
                yield f"{life} ended by itself, with {code}"
        for replica in (*WEB, *WORKERS):
            lines = self.world.log_of(replica).read_text(encoding="utf-8", errors="replace").splitlines()
            yield from (f"{replica} logged an error: {line[:900]}" for line in lines if BROKEN.search(line))
        bar = self.world.pace.lease_seconds + BAR
        for (life, id), seconds in self.takeovers.items():
            if seconds is None or seconds > bar:
                waited = "never" if seconds is None else f"only after {seconds:.1f} s"
                yield f"{id}, which {life} held when it died, was claimed again {waited}"


async def aftermath(
    world: ReplicatedWorkshop, promised: Sequence[Promised], doubts: Sequence[str]
) -> Aftermath:
    """Look at everything."""
    store, client = world.store, world.client
    phases: dict[str, list[str]] = defaultdict(list)
    for phase in Phase:
        for id in await client.zrange(f"{{gp}}:ph:{phase}", 0, -1):
            phases[id].append(phase)
    kept = {}
    async for key in client.scan_iter(match="{gp}:p:P-??????????", count=1000):
        id = key.rpartition(":")[2]
        if promotion := await store.load(id):
            kept[id] = Kept(promotion=promotion, events=await store.events(id), place=await store.card(id))
    slots: dict[str, Any] = {}
    for word in ("hold", "follow"):
        async for key in client.scan_iter(match=f"{{gp}}:{word}:*", count=1000):
            slots[key] = await client.get(key)
    return Aftermath(
        world=world,
        promised=promised,
        kept=kept,
        phases=phases,
        due=frozenset(await world.due()),
        slots=slots,
        doubts=list(doubts),
    )
