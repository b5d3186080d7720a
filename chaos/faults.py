"""What may go wrong at a boundary, and the journal of the calls that crossed one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

READS = frozenset(
    {
        "load",
        "events",
        "holder",
        "followed",
        "in_phase",
        "history",
        "card",
        "look",
        "dossier",
        "locks",
        "bad_versions",
        "reports",
        "soaked",
        "wishes",
        "group",
        "rendering",
        "person",
        "members",
        "owner_of",
        "posted",
    }
)
"""What changes nothing anywhere: a crash after it leaves the same world as one before it."""
ANY = "any"
"""Instead of a call's name: whatever crosses and is no read, counted since the process began."""
FOUND = frozenset({"claim"})
"""Counted only where it found work, so it is known too late to be killed before it."""


class How(StrEnum):
    """What happens at the call."""

    BEFORE = "before"
    """SIGKILL instead of the call."""
    AFTER = "after"
    """SIGKILL when it is done; nobody uses the answer."""
    LOST = "lost"
    """It is done, and the caller hears that the other side is not available."""

    @property
    def kills(self) -> bool:
        """Does the process end?"""
        return self is not How.LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, once: at the `nth` call of this name, counted from 1 since the journal was begun."""

    call: str
    nth: int
    how: How

    def __str__(self) -> str:
        return f"{self.call}:{self.nth}:{self.how}"

    def hits(self, crossing: Crossing) -> bool:
        """Is this the call that it waits for?"""
        return (self.call, self.nth) in ((crossing.call, crossing.nth), (ANY, crossing.of_any))


class What(StrEnum):
    """What a line of the journal tells of a call."""

    BEGINS = "begins"
    ENDS = "ends"
    RAISES = "raises"
    """It ends with an error of its own."""
    KILLED = "killed"
    """The process ends here, by a fault."""
    LOST = "lost"
    """It was done, and a fault took the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One line of the journal: a call, and what became of it; `at` is Unix time, in seconds."""

    at: float
    call: str
    nth: int
    what: str
    about: tuple[str, ...] = ()
    """The promotions that it is about."""
    of_any: int = 0
    """Its number among all that are no reads, since the process began; 0 for a read."""


class Journal:
    """Every call that crossed a boundary, in a file that outlives the process.

    As long as the file is not there, nothing is counted: whoever makes it begins the count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> None:
        """Count from now on."""
        self._path.touch()

    @property
    def is_open(self) -> bool:
        """Are calls counted?"""
        return self._path.exists()

    def note(self, crossing: Crossing) -> None:
        """Add one line, in one write."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(crossing)) + "\n")

    def read(self) -> tuple[Crossing, ...]:
        """Every line so far, without one that is still being written."""
        if not self.is_open:
            return ()
        whole = self._path.read_text(encoding="utf-8").rpartition("\n")[0]
        return tuple(_crossing(line) for line in whole.splitlines())


def _crossing(line: str) -> Crossing:
    told = json.loads(line)
    return Crossing(**told | {"about": tuple(told.get("about", ()))})


def parse(text: str) -> Fault:
    """`save-committing:1:after`; raises `ValueError` with what is expected."""
    found = re.fullmatch(r"([a-z_-]+):([1-9]\d*):(before|after|lost)", text)
    if not found:
        raise ValueError(f"{text!r} is no fault; write it like save-committing:1:after.")
    return Fault(call=found[1], nth=int(found[2]), how=How(found[3]))


def counts(crossings: Iterable[Crossing]) -> Counter[str]:
    """How often each call was begun."""
    return Counter(crossing.call for crossing in crossings if crossing.what == What.BEGINS)


def every(counted: Mapping[str, int]) -> Iterator[Fault]:
    """Each fault at each of these boundaries that leaves a world of its own."""
    for call, times in sorted(counted.items()):
        for nth in range(1, times + 1):
            for how in How:
                if (how is How.AFTER and call in READS) or (how is How.BEFORE and call in FOUND):
                    continue
                yield Fault(call=call, nth=nth, how=how)


def struck(crossings: Iterable[Crossing]) -> Crossing | None:
    """Where the first fault struck."""
    return next((crossing for crossing in crossings if crossing.what in (What.KILLED, What.LOST)), None)


def unsaved(crossings: Iterable[Crossing], call: str, *, about: str) -> int:
    """How often a fault struck when this call to Slack had begun, and its outcome was not on record yet.

    The crossings are one process's, or those of several one after the other.
    """
    times, is_unsaved = 0, False
    for crossing in crossings:
        is_ours = about in crossing.about
        if crossing.what == What.KILLED or (is_ours and crossing.what == What.LOST and crossing.call == call):
            times += is_unsaved
            is_unsaved = False
        elif is_ours and (crossing.call, crossing.what) == (call, What.BEGINS):
            is_unsaved = True
        elif is_ours and (crossing.call, crossing.what) in _SAVED:
            is_unsaved = False
    return times


_SAVED = (("save_card", What.ENDS), ("save_card", What.LOST))


def has_work(crossings: Iterable[Crossing]) -> bool:
    """Was something claimed or saved that was not put to rest since?"""
    is_work = False
    for crossing in crossings:
        if crossing.what == What.ENDS and crossing.call.startswith(("claim", "create", "save-")):
            is_work = True
        elif (crossing.call, crossing.what) == ("rest", What.ENDS):
            is_work = False
    return is_work


def held(crossings: Iterable[Crossing]) -> set[str]:
    """The promotions that a process has claimed and not begun to put to rest."""
    ids: set[str] = set()
    for crossing in crossings:
        if crossing.call == "claim":
            ids |= set(crossing.about)
        elif crossing.call == "rest":
            ids -= set(crossing.about)
    return ids


def takeover(crossings: Sequence[Crossing]) -> float | None:
    """The seconds from the fault until its work was claimed again; None where there was none, or nobody did."""
    fault = struck(crossings)
    if fault is None or not has_work(crossings[: crossings.index(fault)]):
        return None
    later = crossings[crossings.index(fault) :]
    claimed = (each.at for each in later if (each.call, each.what) == ("claim", What.ENDS))
    return next((at - fault.at for at in claimed), None)
