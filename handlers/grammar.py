"""The grammar of `/promote`: words in, a wish out. Nothing is looked up and nothing is done here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from bot.core.board import Scope
from bot.core.catalog import nearest
from bot.core.errors import Refused

ABOUT_ONE = ("show", "approve", "reject", "withdraw", "cancel", "review")
QUESTIONS = ("help", "status", "pending", "locks", "windows")
ACTIONS = ("rollback", "lock", "unlock", "block", "unblock", "check")
VERBS = (*QUESTIONS, *ABOUT_ONE, *ACTIONS, "can", "diff", "history", "stats")
ID = re.compile(r"P-[0-9A-HJKMNP-TV-Z]{10}", re.IGNORECASE | re.ASCII)
INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff]")
QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-"})
BECAUSE = re.compile(r"\s+because(?:\s+|$)", re.IGNORECASE)
OPTION = re.compile(r"-+([a-z].*)", re.IGNORECASE)
OPTIONS = ("--when-open", "--replace", "--emergency")
NEARLY = 0.78
"""How alike a word and a verb are where the verb may be meant, by difflib's measure: “checkout” is no “check”."""
TERMS = ("for", "until")
MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^<>]*)?>")
"""A person, as Slack writes one where it escapes what was typed."""
VERDICTS = {"pass": True, "passed": True, "fail": False, "failed": False}
USAGE = "Type /promote <app> [version] [to] <environment> [because …], or /promote help."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Ask that a target run a version; without one, what the environment before runs."""

    app: str
    environment: str
    version: str | None = None
    reason: str | None = None
    waits: bool = False
    """Does it start when the gates open?"""
    replaces: bool = False
    """May it take the place of a request that nobody has approved?"""
    incident: str | None = None
    """What burns, where glass is to be broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Ask that a target run again what it ran before; without a version, the last one that did not fail."""

    app: str
    environment: str
    version: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`approve P-… text` and the like; `id` and `text` where the verb has them."""

    name: str
    id: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Let nothing move there; `term` is `for 2h` or `until 18:00`, as it was typed."""

    scope: Scope
    term: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """Let things move there again."""

    scope: Scope
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Let nobody promote a version any more."""

    app: str
    version: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unblock:
    """Let a version be promoted again."""

    app: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A verdict on the version that an environment runs; without one, on that which asks for it."""

    app: str
    version: str
    name: str
    passed: bool
    environment: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Can:
    """Could a target run a version now, and what stands in the way?"""

    app: str
    environment: str
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What would a version bring to a target?"""

    app: str
    environment: str
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was promoted? The times and `by` are as they were typed; a mention is the id in it."""

    app: str
    environment: str | None = None
    since: str | None = None
    until: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How often, how fast and how well? `since` is as it was typed."""

    app: str | None = None
    environment: str | None = None
    since: str | None = None


class NoEnvironment(Refused):
    """One word, which is an app if anything: where to is missing."""

    def __init__(self, app: str) -> None:
        super().__init__(f"To which environment? Type /promote {app} <environment>, or /promote help.")
        self.app = app


class Options(TypedDict):
    """What the options of a request say."""

    waits: bool
    replaces: bool
    incident: str | None


Keeping = Lock | Unlock | Block | Unblock
"""What concerns everybody in the channels."""
Wish = Request | Rollback | Verb | Keeping | Check | Can | Diff | History | Stats


def parse(text: str) -> Wish:
    """What was typed after `/promote`; raises `Refused` with what to type instead."""
    cleaned = INVISIBLE.sub("", text).strip()
    words = cleaned.split()
    if not words:
        return Verb(name="help")
    first = _word(words[0]).lower()
    if first in ABOUT_ONE:
        return _about_one(first, words[1:])
    if first in ("status", "windows"):
        return Verb(name=first, text=_word(words[1]) if len(words) > 1 else None)
    if first in QUESTIONS:
        return Verb(name=first)
    return _READ.get(first, _request)(cleaned)


def _about_one(name: str, words: list[str]) -> Verb:
    id = _word(words[0]) if words else ""
    if not ID.fullmatch(id):
        raise Refused(f"Which promotion? Type /promote {name} P-…, with the id that its card shows.")
    if len(words) > 1 and words[1].lower() == "because":
        del words[1]
    return Verb(name=name, id=id.upper(), text=" ".join(words[1:]) or None)


def _rollback(text: str) -> Rollback:
    head, reason = _reason(text)
    words = _words(head)[1:]
    if len(words) == 4 and words[2].lower() == "to":
        del words[2]
    if len(words) not in (2, 3) or "to" in map(str.lower, words):
        raise Refused("Type /promote rollback <app> <environment> [to <version>] [because …].")
    return Rollback(
        app=words[0], environment=words[1], version=words[2] if len(words) == 3 else None, reason=reason
    )


def _lock(text: str) -> Lock:
    head, reason = _reason(text)
    words = _words(head)[1:]
    end = next((place for place, word in enumerate(words) if word.lower() in TERMS), len(words))
    usage = "lock (<app> <environment> | <environment> | all) [for 2h | until 18:00] because <reason>"
    return Lock(scope=_scope(words[:end], usage), term=" ".join(words[end:]) or None, reason=reason)


def _unlock(text: str) -> Unlock:
    head, reason = _reason(text)
    usage = "unlock (<app> <environment> | <environment> | all) [because …]"
    return Unlock(scope=_scope(_words(head)[1:], usage), reason=reason)


def _scope(words: list[str], usage: str) -> Scope:
    if len(words) == 2:
        return Scope(app=words[0], environment=words[1])
    if len(words) == 1:
        return Scope() if words[0].lower() == "all" else Scope(environment=words[0])
    raise Refused(f"Type /promote {usage}.")


def _block(text: str) -> Block:
    head, reason = _reason(text)
    app, version = _two(_words(head)[1:], "block <app> <version> because <reason>")
    return Block(app=app, version=version, reason=reason)


def _unblock(text: str) -> Unblock:
    head, _ = _reason(text)
    app, version = _two(_words(head)[1:], "unblock <app> <version>")
    return Unblock(app=app, version=version)


def _two(words: list[str], usage: str) -> tuple[str, str]:
    if len(words) != 2:
        raise Refused(f"Type /promote {usage}.")
    return words[0], words[1]


def _check(text: str) -> Check:
    head, reason = _reason(text)
    words = _words(head)[1:]
    environment = words[5] if len(words) == 6 and words[4].lower() == "in" else None
    if len(words) != (6 if environment else 4) or words[3].lower() not in VERDICTS:
        raise Refused("Type /promote check <app> <version> <name> pass|fail [in <environment>] [because …].")
    return Check(
        app=words[0],
        version=words[1],
        name=words[2],
        passed=VERDICTS[words[3].lower()],
        environment=environment,
        reason=reason,
    )


def _can(text: str) -> Can:
    app, version, environment = _destination(text)
    return Can(app=app, version=version, environment=environment)


def _diff(text: str) -> Diff:
    app, version, environment = _destination(text)
    return Diff(app=app, version=version, environment=environment)


def _destination(text: str) -> tuple[str, str | None, str]:
    """The words of a question about a promotion that nobody has asked for yet."""
    head, _ = _reason(text)
    verb, *words = _words(head)
    if len(words) >= 2 and words[-2].lower() == "to":
        del words[-2]
    if len(words) not in (2, 3) or "to" in map(str.lower, words):
        raise Refused(f"Type /promote {verb.lower()} <app> [version] [to] <environment>.")
    return words[0], words[1] if len(words) == 3 else None, words[-1]


def _history(text: str) -> History:
    usage = (
        "history <app> [environment] [since 7d | since 2026-11-01] [until …] [by me | by <name or Slack id>]"
    )
    places, said = _clauses(MENTION.sub(r"\1", text), ("since", "until", "by"), usage)
    if not places:
        raise Refused(f"Type /promote {usage}.")
    return History(app=places[0], environment=places[1] if len(places) == 2 else None, **said)


def _stats(text: str) -> Stats:
    usage = "stats [app] [environment] [since 7d | since 2026-11-01]"
    places, said = _clauses(text, ("since",), usage)
    app, environment = (*places, None, None)[:2]
    return Stats(app=app, environment=environment, **said)


def _clauses(text: str, names: Sequence[str], usage: str) -> tuple[list[str], dict[str, str]]:
    """The words of a place, two at most, and what is said behind each of these names."""
    places: list[str] = []
    said: dict[str, list[str]] = {}
    last = places
    for word in _words(text)[1:]:
        if (name := word.lower()) in names and name not in said:
            last = said[name] = []
        else:
            last.append(word)
    if len(places) > 2 or not all(said.values()):
        raise Refused(f"Type /promote {usage}.")
    return places, {name: " ".join(words) for name, words in said.items()}


def _request(text: str) -> Request:
    head, reason = _reason(text)
    words, manner = _options([_word(word) for word in head.split()])
    words = [word for word in words if word.strip("-")]
    if not words:
        raise Refused(f"I do not understand {text}. {USAGE}")
    if len(words) > 1 and words[1].upper().startswith("P-"):
        raise Refused(f"I do not understand “{words[0]}”.{nearest(words[0].lower(), ABOUT_ONE)}")
    if len(words) >= 2 and words[-2].lower() == "to":
        del words[-2]
    if len(words) == 2:
        return Request(app=words[0], environment=words[1], reason=reason, **manner)
    if len(words) == 3:
        return Request(app=words[0], version=words[1], environment=words[2], reason=reason, **manner)
    if len(words) > 3:
        if verb := meant(*words[:2]):
            raise Refused(f"I do not understand “{words[0]}”. Did you mean “{verb}”? Type /promote help.")
        raise Refused(
            f"I do not understand “{words[3]}”: a version has no spaces, and a reason begins with because. {USAGE}"
        )
    if difflib.get_close_matches(words[0].lower(), VERBS, n=1):
        raise Refused(f"I do not understand “{words[0]}” alone.{nearest(words[0].lower(), VERBS)} {USAGE}")
    raise NoEnvironment(words[0])


def meant(*words: str) -> str | None:
    """The verb that the first word, or all of them together, nearly is: `rolback`, `roll back`."""
    spellings = (words[0].lower(), "".join(words).lower())
    matches = (difflib.get_close_matches(each, VERBS, n=1, cutoff=NEARLY) for each in spellings)
    return next((match[0] for match in matches if match), None)


def _options(words: list[str]) -> tuple[list[str], Options]:
    """The other words, and what the options among them say; an option that nobody knows is refused."""
    others: list[str] = []
    found = Options(waits=False, replaces=False, incident=None)
    left = iter(words)
    for word in left:
        match _option(word):
            case None:
                others.append(word)
            case "--when-open":
                found["waits"] = True
            case "--replace":
                found["replaces"] = True
            case "--emergency":
                found["incident"] = _incident(next(left, ""))
            case unknown:
                raise Refused(
                    f"I do not understand “{unknown}”.{nearest(unknown, OPTIONS)} Nothing was done."
                )
    if found["incident"] and (found["waits"] or found["replaces"]):
        raise Refused("An emergency waits for nothing and goes first: leave --when-open and --replace out.")
    return others, found


def _incident(word: str) -> str:
    if not word.strip("-") or _option(word):
        raise Refused(
            "Which incident? Type /promote <app> [version] [to] <environment> --emergency INC-42 because …."
        )
    return word


def _option(word: str) -> str | None:
    """The option that a word is, with two dashes however many a phone has made of them; None for another word."""
    found = OPTION.fullmatch(word)
    return f"--{found[1].lower()}" if found else None


def _words(head: str) -> list[str]:
    """The words before the reason, without a dash that stands alone; raises `Refused` for an option."""
    words = [word for word in map(_word, head.split()) if word.strip("-")]
    if option := next(filter(None, map(_option, words)), None):
        raise Refused(f"I do not understand “{option}” here: only a request has options. Nothing was done.")
    return words


def _word(word: str) -> str:
    """One word without the quotes and dashes that a phone puts in."""
    return word.translate(QUOTES).strip("\"'")


def _reason(text: str) -> tuple[str, str | None]:
    head, *reason = BECAUSE.split(text, maxsplit=1)
    return head, (reason[0].strip() or None) if reason else None


_READ: Mapping[str, Callable[[str], Wish]] = {
    "rollback": _rollback,
    "lock": _lock,
    "unlock": _unlock,
    "block": _block,
    "unblock": _unblock,
    "check": _check,
    "can": _can,
    "diff": _diff,
    "history": _history,
    "stats": _stats,
}
