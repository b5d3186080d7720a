"""Was everything true that people were shown? Each text is compared with what happened, at the time when it was shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.core import promotion
from bot.core.outcome import Outcome
from bot.core.promotion import Event, Phase
from bot.messages.headlines import HEADLINE, OUTCOMES
from bot.playground.slack.state import SLACKBOT, Message
from chaos.replicas import FIRST, ReplicatedWorkshop, Team

SPAN = 6.0
"""Seconds that an answer may be on its way: what it says was true since then."""
SOON = 0.5
"""Seconds for clocks and for what is said while it is saved."""
PHASES = {
    "it waits for approval": Phase.REQUESTED,
    "it was approved": Phase.APPROVED,
    "its commit is being written": Phase.COMMITTING,
    "it is committed as": Phase.COMMITTED,
    "it is live since": Phase.LIVE,
    "it failed": Phase.FAILED,
    "it was rejected": Phase.REJECTED,
    "it expired": Phase.EXPIRED,
    "it was cancelled": Phase.CANCELLED,
    "a newer one took its place": Phase.SUPERSEDED,
    "the target changed": Phase.STALE,
}
"""How a promotion's state is told in a sentence."""
ORDER = (Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTING, Phase.COMMITTED, Phase.LIVE)
NEVER = re.compile(r"[Nn]othing was committed|Something broke")
"""What nobody may read where every promotion ends well."""
HEAD = re.compile(r":\w+: (?P<word>[^:]+): (?P<what>.+)")
"""A card's headline."""
ID = promotion.ID.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One private answer: the words that it fills in, when it was shown (Unix time, in seconds), and to whom."""

    words: Sequence[str]
    at: float
    team: Team
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The texts of one world, and what they are compared with; `kept` and `cards` are by the promotion's id."""

    world: ReplicatedWorkshop
    kept: Mapping[str, Any]
    cards: Mapping[str, Sequence[Message]]

    def doubts(self) -> list[str]:
        """A sentence for each text that was false, or that nobody can explain."""
        found = [*self._of_cards()]
        for team in self.world.teams:
            for user in team.people.values():
                found += self._of_answers(team, user)
        return [*found, *self._elsewhere()]

    def _of_answers(self, team: Team, user: str) -> Iterator[str]:
        """What this person was told privately."""
        for message in self.world.slack.ephemerals(user):
            if message.user == SLACKBOT:
                continue
            for pattern, holds in self._rules().items():
                if found := re.match(pattern, message.text):
                    told = Told(words=found.groups(), at=float(message.ts), team=team, user=user)
                    if holds and not holds(told):
                        yield f"{user} was told {message.text!r}, which was not so"
                    break
            else:
                yield f"{user} was told {message.text!r}, which nobody can explain"

    def _of_cards(self) -> Iterator[str]:
        """Every card, also as it was before each edit: it names a phase that was, and never an older one again."""
        phases = {word: phase for phase, word in HEADLINE.items()}
        phases |= {
            OUTCOMES[outcome][1]: Phase.LIVE for outcome in (Outcome.LIVE_WITHIN, Outcome.NOTHING_CHANGED)
        }
        for id, card in ((id, card) for id, cards in self.cards.items() for card in cards):
            if id not in self.kept:
                yield f"there is a card of {id}, which is no promotion"
                continue
            asked = self.kept[id].promotion
            what = f"{asked.app} {asked.version} → {asked.environment}"
            latest = 0
            for text, blocks in (*card.history, (card.text, card.blocks)):
                shown = HEAD.fullmatch(blocks[0]["text"]["text"])
                phase = phases.get(shown["word"]) if shown and shown["what"] == what else None
                if phase not in {event.phase for event in self.kept[id].events}:
                    yield f"a card of {id} showed {blocks[0]['text']['text']!r}"
                elif (order := ORDER.index(phase)) < latest:
                    yield f"a card of {id} went back to {phase}"
                else:
                    latest = order
                if found := NEVER.search(f"{text} {blocks}"):
                    yield f"a card of {id} said {found[0]!r}: {text}"

    def _elsewhere(self) -> Iterator[str]:
        """Whatever else the bot said in the channel, or directly."""
        workspace = self.world.slack.workspace
        known = {card.ts for cards in self.cards.values() for card in cards}
        for channel in workspace.channels:
            for message in workspace.messages(channel):
                if message.user == workspace.bot.id and not {message.ts, message.thread_ts} & known:
                    yield f"{channel} holds {message.text!r}, which belongs to no promotion"

    def _rules(self) -> Mapping[str, Callable[[Told], bool] | None]:
        """What each kind of answer claims; None for what claims nothing of a promotion."""
        return {
            rf"`({ID})`: asked for (.+?)\. Its card is in": self._was_asked,
            rf":no_entry_sign: (\S+) in (\S+) is held by ({ID}), asked for by \w+ \d+: (.+?)\. Wait for it": self._was_held,
            r":no_entry_sign: (\S+) already runs (\S+), which is what stage runs": self._was_done,
            rf":no_entry_sign: You have already approved ({ID})": self._was_approved,
            rf":no_entry_sign: You cannot approve ({ID}) any more: (.+)\.": self._was_decided,
            rf":no_entry_sign: That was a copy\. ({ID}) is decided on its own card": self._was_copy,
            r":electric_plug: .+ is not available: .* Nothing was recorded; try again": self._was_nothing,
            r":electric_plug: .+ is not available: .* I could not confirm that it was recorded": None,
            r":no_entry_sign: stage is not live and healthy": None,
            r"\*\S+\* `\S+` cannot go to \*\S+\* now\. Nothing was recorded\.\n:no_entry: stage is not live and healthy": None,
            rf":no_entry_sign: {ID} is changing too fast": None,
        }

    def _was_asked(self, told: Told) -> bool:
        id, title = told.words
        kept = self.kept.get(id)
        asked = (title, told.user)
        return kept is not None and (kept.promotion.title, kept.promotion.requested_by.id) == asked

    def _was_held(self, told: Told) -> bool:
        app, environment, id, state = told.words
        is_ours = (app, environment) == (told.team.app, told.team.environment)
        return is_ours and self._was_in(id, state, told.at)

    def _was_done(self, told: Told) -> bool:
        committed = {
            kept.promotion.version
            for kept in self.kept.values()
            if kept.promotion.app == told.team.app
            and any(
                each.what == "committed" and each.at.timestamp() <= told.at + SOON for each in kept.events
            )
        }
        environment, version = told.words
        return environment == told.team.environment and version in committed | {str(FIRST)}

    def _was_approved(self, told: Told) -> bool:
        return any(
            event.what == "approval" and event.by == told.user and event.at.timestamp() <= told.at + SOON
            for event in self._events(told.words[0])
        )

    def _was_decided(self, told: Told) -> bool:
        id, state = told.words
        return self._was_in(id, state, told.at)

    def _was_copy(self, told: Told) -> bool:
        return len(self.cards.get(told.words[0], ())) > 1

    def _was_nothing(self, told: Told) -> bool:
        """Nothing that this person did with the last act before the answer is on record."""
        began = max(when for who, when in self.world.acts if who == told.user and when < told.at)
        return not any(
            event.by == told.user and began < event.at.timestamp() <= told.at
            for kept in self.kept.values()
            for event in kept.events
        )

    def _was_in(self, id: str, state: str, at: float) -> bool:
        """Was the promotion in the phase that the sentence tells, when the answer was on its way?"""
        phase = next((phase for words, phase in PHASES.items() if state.startswith(words)), None)
        events = self._events(id)
        ends = [event.at.timestamp() for event in events[1:]] + [float("inf")]
        return any(
            event.phase is phase and event.at.timestamp() <= at + SOON and end >= at - SPAN
            for event, end in zip(events, ends, strict=False)
        )

    def _events(self, id: str) -> Sequence[Event]:
        return self.kept[id].events if id in self.kept else ()
