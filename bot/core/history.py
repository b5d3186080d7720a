"""What was promoted, by whom and why, as the trailers of our own commits tell it: git alone, no store.

Whoever may push, or merge pull requests, can write a commit in the bot's name, so nothing of a trailer is taken for granted: what must be there
and cannot be read is `unknown`, what need not be there is None, and every text is one line.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from bot.core.catalog import DIGEST, UNKNOWN, Catalog, Repository, Target
from bot.core.errors import Refused
from bot.core.ports import ValuesRepository, Written
from bot.core.promotion import ID, Signer, Way
from bot.core.reconciling import terms_of
from bot.core.trailers import HOOK, USER, one_line, signer_of

CI = Signer(id="CI", team=UNKNOWN, name="CI")
"""Who asked for what CI has built and written itself."""
SOMEBODY = Signer(id=UNKNOWN, team=UNKNOWN, name=UNKNOWN)
"""Who asked or approved, where the trailer cannot be read."""
UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(days=7),
}
TIMES = "Type 24h, 7d or 4w, a day like 2026-11-01, or a moment like 2026-11-01T18:00Z; it is UTC unless it has an offset."
WHERE_IDS_ARE = "in a profile: ⋮, Copy member ID"

DATED_EARLIER = timedelta(days=30)
"""A commit bears the date of its approval: so much earlier than it came to the branch, where it waited, at the most."""
MOST_PEOPLE = 5
"""So many people a refusal names."""
LONGEST_NAME = 40

_SPAN = re.compile(r"([0-9]{1,5}) ?([mhdw])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(rf"{_DAY.pattern}[T ][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One commit of ours: which version came where, when, and who wanted it."""

    at: datetime
    """The commit's date, in UTC: when it was approved, or else asked for; when a host squashed or rebased it."""
    repository: Repository
    revision: str
    promotion: str
    """Its id, or `unknown`."""
    app: str
    environment: str
    source: str
    """The environment that the version came from, or `ci`."""
    old_version: str
    new_version: str
    digest: str
    requested_by: Signer
    """`CI` where CI wrote it without being asked, `SOMEBODY` where that cannot be read."""
    approved_by: tuple[Signer, ...]
    reason: str | None
    rollback_of: str | None
    """The promotion that it took back, or `unknown`; None where it is no rollback."""
    way: Way | None
    incident: str | None
    slack_message: str | None
    brings: str | None
    """The revision that was brought, where the target follows a branch or tags."""
    build: str | None
    """The page of the build that a machine asked for."""

    @property
    def is_rollback(self) -> bool:
        """Did it bring back what was there before?"""
        return self.rollback_of is not None

    @property
    def is_emergency(self) -> bool:
        """Was glass broken?"""
        return self.way is Way.EMERGENCY

    @property
    def commit(self) -> str | None:
        """The commit's page, where the configuration says what its address is."""
        address = self.repository.commit_url
        return address.replace("{revision}", self.revision) if address else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which entries are meant; None means all of them."""

    app: str | None = None
    environment: str | None = None
    since: datetime | None = None
    """From this moment on."""
    until: datetime | None = None
    """Before this moment."""
    by: str | None = None
    """The Slack id of who asked, `hook:…` for a machine, or `CI`."""
    name: str | None = None
    """The name of who asked, as it was typed; `read` finds `by` for it, and puts the name as the commits have it here.

    Beside `by` before that: the id may be a name in capital letters, where nobody has that id.
    """

    def matches(self, entry: Entry) -> bool:
        """Is this one meant, whatever name was typed?"""
        return (
            self.app in (None, entry.app)
            and self.environment in (None, entry.environment)
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
            and self.by in (None, entry.requested_by.id)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was found, newest first as the branches have it."""

    query: Query
    entries: tuple[Entry, ...]
    is_whole: bool
    """False where older commits were not read that may be meant too."""


def query(
    catalog: Catalog,
    *,
    now: datetime,
    app: str | None = None,
    environment: str | None = None,
    since: str | None = None,
    until: str | None = None,
    by: str | None = None,
    me: str | None = None,
) -> Query:
    """What somebody typed, as a query; `me` is the Slack id of who typed it, None where nobody knows.

    Raises `Refused` for apps, environments and times that nobody knows; a person's name is for `read` to find.
    """
    catalog.meant(app, environment)
    begins = moment(since, now=now) if since else None
    ends = moment(until, now=now, is_end=True) if until else None
    if begins and ends and begins >= ends:
        raise Refused(f"Nothing can lie since {in_utc(begins)} and until {in_utc(ends)}. {TIMES}")
    who = _id_typed(by, me=me) if by else None
    name = by if who is None or (who == by and _may_be_a_name(who)) else None
    return Query(app=app, environment=environment, since=begins, until=ends, by=who, name=name)


async def read(query: Query, *, catalog: Catalog, values: ValuesRepository, limit: int) -> History:
    """The entries that are meant, from every branch that may hold them; each branch is read once.

    `limit` is how many commits of ours are read of each. Raises `Refused` for a target that nobody knows, and for a name
    that nobody has, or several people, who asked for what is meant otherwise; `Unavailable` where a branch cannot be
    read: half a history would look like a whole one.
    """
    homes = {(each.app, each.environment): _branch(each.repository) for each in catalog.targets}
    by_anybody = query if query.name is None else replace(query, by=None)
    is_whole = True
    branches: list[list[Entry]] = []
    for repository in _branches(catalog.meant(query.app, query.environment)):
        written = await values.written(repository, limit=limit + 1)
        if len(written) > limit and not (query.since and written[-1].at < query.since - DATED_EARLIER):
            is_whole = False
        entries = (entry_of(each, repository) for each in written[:limit])
        here = _branch(repository)
        # A branch tells nothing of what has its home on another one; what has none any more may be anywhere.
        belong = (each for each in entries if homes.get((each.app, each.environment), here) == here)
        branches.append([each for each in belong if by_anybody.matches(each)])
    merged = heapq.merge(*branches, key=lambda entry: entry.at, reverse=True)
    # One commit may be on several branches, and be what several tags tell of.
    once = {(each.revision, each.promotion, each.app, each.environment): each for each in merged}
    found = tuple(once.values())
    if query.name is not None:
        query = _with_person(query, query.name, found, unread="" if is_whole else _unread(limit))
        found = tuple(each for each in found if query.matches(each))
    return History(query=query, entries=found, is_whole=is_whole)


def entry_of(written: Written, repository: Repository) -> Entry:
    """What one commit tells, whoever made it."""
    terms = terms_of(written)
    digest = written.trailer("Digest")
    return Entry(
        at=written.at.astimezone(UTC),
        repository=repository,
        revision=written.revision,
        promotion=_id(written.trailer("Promotion-Id")),
        app=_stated(written, "App") or UNKNOWN,
        environment=_stated(written, "Environment") or UNKNOWN,
        source=_stated(written, "From") or UNKNOWN,
        old_version=_stated(written, "Old-Version") or UNKNOWN,
        new_version=_stated(written, "New-Version") or UNKNOWN,
        digest=digest if DIGEST.fullmatch(digest) else UNKNOWN,
        requested_by=_requester(written),
        approved_by=tuple(signer_of(each) or SOMEBODY for each in written.all("Approved-By")),
        reason=_stated(written, "Reason"),
        rollback_of=_id(taken_back) if (taken_back := written.trailer("Rollback-Of")) else None,
        way=terms.way,
        incident=one_line(terms.incident or "") or None,
        slack_message=_stated(written, "Slack-Message"),
        brings=_stated(written, "Revision"),
        build=_stated(written, "Build"),
    )


def person_called(name: str, entries: Iterable[Entry], *, unread: str = "") -> Signer:
    """The one person or machine of this name among those who asked, as the newest of their entries has them.

    Slack ids decide, and a name may be anybody's: raises `Refused` for a name that several ids have, and for one that
    none has, where `unread` is a sentence about what the entries leave out.
    """
    wanted = spelled(name)
    people = [each.requested_by for each in entries if each.requested_by not in (CI, SOMEBODY)]
    namesakes = _once(each for each in people if wanted and spelled(each.name) == wanted)
    typed = f"“{one_line(name)[:LONGEST_NAME]}”"
    if len(namesakes) == 1:
        return namesakes[0]
    if namesakes:
        meant = f"{len(namesakes)} people are called {typed}. Type the id of the one that you mean:"
        raise Refused(f"{meant} {_some(namesakes)}.")
    nobody = f"Nobody called {typed} has asked for any of this."
    raise Refused(" ".join(filter(None, [nobody, unread, _instead(people, wanted)])))


def _with_person(query: Query, name: str, entries: Sequence[Entry], *, unread: str) -> Query:
    """The query with the person that it means, by an id that somebody has or else by name; raises `Refused`."""
    if any(each.requested_by.id == query.by for each in entries):
        return replace(query, name=None)
    person = person_called(name, entries, unread=unread)
    return replace(query, by=person.id, name=person.name)


def spelled(name: str) -> str:
    """The letters and digits of a name, without case: `@dana.nair` and `Dana Nair` are spelled alike."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(each for each in letters if unicodedata.category(each)[0] in "LMN")


def moment(text: str, *, now: datetime, is_end: bool = False) -> datetime:
    """`7d` ago, a day or a moment, in UTC; a day that is an end belongs to what is meant.

    Raises `Refused` with what to type instead.
    """
    words = " ".join(text.split())
    try:
        if span := _SPAN.fullmatch(words.lower()):
            return now - int(span[1]) * UNITS[span[2]]
        if _DAY.fullmatch(words):
            day = datetime.fromisoformat(words).replace(tzinfo=UTC)
            return day + timedelta(days=1) if is_end else day
        if _MOMENT.fullmatch(words.upper()):
            found = datetime.fromisoformat(words.upper())
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise Refused(f"“{words}” is in no calendar. {TIMES}") from error
    raise Refused(f"I do not understand the time “{words}”. {TIMES}")


def in_utc(at: datetime) -> str:
    """`2026-11-01T18:00Z`, as `moment` reads it; with seconds where there are any."""
    return at.replace(tzinfo=None).isoformat(timespec="seconds" if at.second else "minutes") + "Z"


def _id_typed(by: str, *, me: str | None) -> str | None:
    """The id that was typed; None for a name."""
    if by.upper() == CI.id:
        return CI.id
    if by.lower() == "me":
        if me is None:
            raise Refused(
                "The command line cannot tell who “me” is: it does not know your Slack id. Type it, or your name "
                f"(the id is {WHERE_IDS_ARE})."
            )
        return me
    # In small letters a person's id would be a name.
    return by if USER.fullmatch(by) or HOOK.fullmatch(by) else None


def _may_be_a_name(id: str) -> bool:
    """Is this a person's id in letters alone, as WENDY?"""
    return id.isalpha() and USER.fullmatch(id) is not None


def _instead(people: Iterable[Signer], wanted: str) -> str:
    """Whom to type instead, those first whose name has in it what was typed."""
    others = sorted(_once(people), key=lambda each: wanted not in spelled(each.name))
    if not others:
        return f"Nobody else has either. Type a Slack id ({WHERE_IDS_ARE}), or leave “by” out."
    return f"Type the name or the id of somebody who has: {_some(others)}."


def _unread(limit: int) -> str:
    return f"I read only the newest {limit} of my commits on each branch."


def _once(people: Iterable[Signer]) -> list[Signer]:
    """Each id once, under the name that comes first: the newest."""
    found: dict[str, Signer] = {}
    for person in people:
        found.setdefault(person.id, person)
    return list(found.values())


def _some(people: Sequence[Signer]) -> str:
    names = ", ".join(f"{each.name[:LONGEST_NAME]} ({each.id})" for each in people[:MOST_PEOPLE])
    more = len(people) - MOST_PEOPLE
    return f"{names} and {more} more" if more > 0 else names


def _branches(targets: Iterable[Target]) -> Sequence[Repository]:
    """Each branch of each repository once, whatever names it has."""
    found: dict[tuple[object, ...], Repository] = {}
    for target in targets:
        found.setdefault(_branch(target.repository), target.repository)
    return list(found.values())


def _branch(repository: Repository) -> tuple[object, ...]:
    return repository.url, repository.branch, repository.beside


def _requester(written: Written) -> Signer:
    trailer = written.trailer("Requested-By")
    if not trailer and written.trailer("From") == "ci":
        return CI
    return signer_of(trailer) or SOMEBODY


def _id(text: str) -> str:
    return text if ID.fullmatch(text) else UNKNOWN


def _stated(written: Written, name: str) -> str | None:
    """What a trailer says; None where it says nothing."""
    text = one_line(written.trailer(name))
    return None if text in ("", UNKNOWN) else text
