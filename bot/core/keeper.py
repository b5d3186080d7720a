"""The keepers' use cases: locks, bad versions, verdicts of checks, and what the clock says. Git is never touched."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from bot.core import people
from bot.core.board import BadVersion, Board, Lock, Report, Scope
from bot.core.cases import checked_reason
from bot.core.catalog import Catalog, Image, Target, checked_version, nearest
from bot.core.errors import Refused, Unavailable
from bot.core.membership import members_of
from bot.core.people import Action, Person, Role
from bot.core.policy import CheckRule
from bot.core.ports import Calendar, Clock, Directory, Hours
from bot.core.seals import Sealer

LONGEST_LOCK = timedelta(days=90)
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
SPAN = re.compile(r"for ([0-9]{1,6}) ?([mhd])")
OFFSET = r"(z|[+-][0-9]{2}:[0-9]{2})?"
TIME_OF_DAY = re.compile(rf"until (?:(today|tomorrow) )?([0-9]{{1,2}}:[0-9]{{2}}){OFFSET}")
MOMENT = re.compile(
    rf"until ([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[t ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,9}})?)?){OFFSET}"
)
TIMES = (
    "Type for 30m, for 2h or for 3d; or until 18:00, until tomorrow 09:00 or until 2026-03-02T18:00Z, and then "
    "because and the reason. A time is UTC unless it has an offset, as 18:00+02:00 has."
)


class Notices(Protocol):
    """Slack's channels, for what concerns everybody in them."""

    async def tell(self, channel: str, text: str) -> None:
        """Post mrkdwn as a message of its own. Raises `Unavailable` and `Closed`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A lock that stands now, and the one whose place it took."""

    lock: Lock
    replaced: Lock | None
    is_replaced_known: bool
    """Could it be read what stood there before?"""
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """A lock that was taken away, and the other ones that hold all the same."""

    lock: Lock
    by: str
    reason: str | None
    left: tuple[Lock, ...]
    is_left_known: bool
    """Could it be read which others there are?"""
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A version that nobody may promote from now on."""

    bad: BadVersion
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unblocked:
    """A version that may be promoted again; `bad` is what was put up against it."""

    bad: BadVersion
    by: str
    channels: tuple[str, ...]


Kept = Locked | Unlocked | Blocked | Unblocked
"""What concerns everybody in the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A verdict that was kept, and the environment that asks for it."""

    report: Report
    wanted_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the windows of an environment, or of one target, say now."""

    scope: Scope
    hours: Hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Everything that people keep back now."""

    locks: tuple[Lock, ...]
    bad_versions: tuple[BadVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What keepers and reporters can do, one method a use case; each raises `Refused` or `Unavailable`."""

    catalog: Catalog
    board: Board
    directory: Directory
    clock: Clock
    calendar: Calendar
    sealer: Sealer
    requester_of: Callable[[Target, str], Awaitable[str | None]]
    """Who asked for the open promotion of a version to a target, by Slack id; None where none is open."""
    build: Callable[[Target, str], Awaitable[Image]]
    """The build of a version that a target runs, with its digest where that is known.

    Raises `Refused` where it runs another version, `Unavailable` or `Failed` where nobody can tell.
    """

    async def lock(self, scope: Scope, *, user: str, reason: str | None, term: str | None = None) -> Locked:
        """Let nothing move there; `term` is `for 2h` or `until 18:00`, None: until somebody unlocks it."""
        person = await self.member(user)
        targets = self._covered(scope)
        await self._require_keeper(Action.LOCK, person, targets)
        now = self.clock.now()
        lock = Lock(
            scope=scope,
            by=person.id,
            reason=_required(reason, f"/promote lock {typed(scope)} because <reason>"),
            at=now,
            until=ends_at(term, now) if term else None,
        )
        found = await self._locks()
        await self.board.lock(lock)
        before = [each for each in found or () if each.scope == scope]
        return Locked(
            lock=lock,
            replaced=before[0] if before else None,
            is_replaced_known=found is not None,
            channels=_channels(targets),
        )

    async def unlock(self, scope: Scope, *, user: str, reason: str | None = None) -> Unlocked:
        """Take a lock away, whoever put it up."""
        person = await self.member(user)
        targets = self._covered(scope)
        await self._require_keeper(Action.UNLOCK, person, targets)
        lock = await self.board.unlock(scope)
        found = await self._locks()
        left = tuple(each for each in found or () if any(map(each.scope.covers, targets)))
        if lock is None or not lock.holds_at(self.clock.now()):
            raise Refused(_not_locked(scope, left))
        return Unlocked(
            lock=lock,
            by=person.id,
            reason=checked_reason(reason),
            left=left,
            is_left_known=found is not None,
            channels=_channels(targets),
        )

    async def block(self, app: str, version: str, *, user: str, reason: str | None) -> Blocked:
        """Let nobody promote this version of the app any more, to wherever."""
        person, targets = await self._keeper_of(Action.BLOCK, app, version, user)
        bad = BadVersion(
            app=app,
            version=version,
            by=person.id,
            reason=_required(reason, f"/promote block {app} {version} because <reason>"),
            at=self.clock.now(),
        )
        await self.board.block(bad)
        return Blocked(bad=bad, channels=_channels(targets))

    async def unblock(self, app: str, version: str, *, user: str) -> Unblocked:
        """Let this version be promoted again, whoever blocked it."""
        person, targets = await self._keeper_of(Action.UNBLOCK, app, version, user)
        bad = await self.board.unblock(app, version)
        if bad is None:
            raise Refused(f"{app} {version} is not blocked. Type /promote locks for what is.")
        return Unblocked(bad=bad, by=person.id, channels=_channels(targets))

    async def report_check(
        self,
        app: str,
        version: str,
        name: str,
        *,
        passed: bool,
        user: str,
        said: str | None = None,
        environment: str | None = None,
        delivery: str | None = None,
    ) -> Reported:
        """Keep a person's verdict on the build that an environment runs; `environment` is where it runs.

        A `delivery` (a Slack trigger id) that was seen within 48 hours changes nothing.
        """
        person = await self.member(user)
        checked_version(version)
        source, target, rule = self._checked(app, name, environment)
        await self._require_reporter(person, source, target, rule, version)
        report = Report(
            app=app,
            environment=source.environment,
            image=await self.build(source, version),
            check=rule.name,
            passed=passed,
            by=person.id,
            at=self.clock.now(),
            said=checked_reason(said) or "",
        )
        await self.board.report(self.sealer.sealed_report(report), delivery=delivery)
        return Reported(report=report, wanted_by=target.environment)

    async def windows(self, environment: str | None = None, *, user: str) -> tuple[Opening, ...]:
        """What the windows say now, in the order of promotion; what has none is left out."""
        await self.member(user)
        if environment is not None:
            self._covered(Scope(environment=environment))
        wanted = [each for each in self.catalog.environments if environment in (None, each)]
        return tuple(opening for each in wanted for opening in self._openings(each))

    async def locks(self, *, user: str) -> Held:
        """Every lock and every blocked version that holds now, oldest first."""
        await self.member(user)
        now = self.clock.now()
        locks = [lock for lock in await self.board.locks() if lock.holds_at(now)]
        bad = [bad for app in self.catalog.apps for bad in await self.board.bad_versions(app)]
        return Held(
            locks=tuple(sorted(locks, key=lambda lock: lock.at)),
            bad_versions=tuple(sorted(bad, key=lambda each: each.at)),
        )

    async def member(self, user: str) -> Person:
        """Who this is, where they are a full member of the workspace; nobody else is told or does anything."""
        person = await self.directory.person(user)
        people.require_member(person)
        return person

    async def _keeper_of(
        self, action: Action, app: str, version: str, user: str
    ) -> tuple[Person, tuple[Target, ...]]:
        """The person, and all targets of the app: a version is bad everywhere or nowhere."""
        person = await self.member(user)
        targets = self._targets_of(app)
        checked_version(version)
        await self._require_keeper(action, person, targets)
        return person, targets

    async def _require_keeper(self, action: Action, person: Person, targets: Sequence[Target]) -> None:
        """Raise `Refused` unless the person may do it to every target; groups are asked for where ids do not decide."""
        undecided = [
            target for target in targets if not people.may(action, people.standing(person, target.policy, {}))
        ]
        listed = [target.policy.lockers for target in undecided if target.policy.lockers]
        members = await members_of(self.directory, [group for each in listed for group in each.groups])
        for target in undecided:
            people.require(action, people.standing(person, target.policy, members), target.name)

    async def _require_reporter(
        self, person: Person, source: Target, target: Target, rule: CheckRule, version: str
    ) -> None:
        """Raise `Refused` unless the check names the person, and for who wants this very version to go on."""
        held = people.standing(person, target.policy, {}, check=rule)
        if not people.may(Action.REPORT, held):
            members = await members_of(self.directory, rule.reporters.groups)
            held = people.standing(person, target.policy, members, check=rule)
        people.require(Action.REPORT, held, f"on {source.app} {version} in {source.environment}")
        if await self.requester_of(target, version) == person.id:
            people.require(
                Action.REPORT, held | {Role.REQUESTER}, f"{target.app} {version} to {target.environment}"
            )

    async def _locks(self) -> tuple[Lock, ...] | None:
        """The locks that hold now; None where they cannot be read: that hinders nobody who locks or unlocks."""
        now = self.clock.now()
        try:
            return tuple(lock for lock in await self.board.locks() if lock.holds_at(now))
        except Unavailable:
            return None

    def _targets_of(self, app: str) -> tuple[Target, ...]:
        if app not in self.catalog.apps:
            raise Refused(f"I know no app called “{app}”.{nearest(app, self.catalog.apps)}")
        return tuple(target for target in self.catalog.targets if target.app == app)

    def _covered(self, scope: Scope) -> tuple[Target, ...]:
        """The targets that the scope covers, at least one; raises `Refused` for names that nobody knows."""
        app, environment, known = scope.app, scope.environment, self.catalog.environments
        if app is None and environment in self.catalog.apps:
            raise Refused(f"{environment} is an app, so say where, too: {environment} <environment>.")
        if app is not None and environment is not None:
            return (self.catalog.target(app, environment),)
        if environment not in (None, *known):
            raise Refused(f"I know no environment called “{environment}”.{nearest(str(environment), known)}")
        if covered := tuple(target for target in self.catalog.targets if scope.covers(target)):
            return covered
        raise Refused(f"No app has {scope}, so there is nothing that could move there.")

    def _checked(self, app: str, name: str, environment: str | None) -> tuple[Target, Target, CheckRule]:
        """Where a check looks at builds, the target that asks for its verdict, and its rule there."""
        asking = [
            (source, target, rule)
            for target in self._targets_of(app)
            if (source := self.catalog.before(target))
            for rule in target.policy.checks
        ]
        if environment is not None:
            self.catalog.target(app, environment)
            asking = [each for each in asking if each[0].environment == environment]
        found = [each for each in asking if each[2].name == name]
        if len(found) == 1:
            return found[0]
        where = environment or app
        if not found:
            names = dict.fromkeys(rule.name for _, _, rule in asking)
            told = nearest(name, names) or " It asks for none."
            raise Refused(f"No check of {where} is called “{name}”.{told}")
        places = " or ".join(f"in {source.environment}" for source, _, _ in found)
        raise Refused(f"{name} is asked for in several environments of {app}. Add where you mean: {places}.")

    def _openings(self, environment: str) -> Iterator[Opening]:
        """One for the environment where all its apps have the same windows, else one for each app with windows."""
        targets = [target for target in self.catalog.targets if target.environment == environment]
        are_same = len({target.policy.windows for target in targets}) == 1
        now = self.clock.now()
        for target in targets[:1] if are_same else targets:
            if windows := target.policy.windows:
                scope = Scope(app=None if are_same else target.app, environment=environment)
                yield Opening(scope=scope, hours=self.calendar.hours(windows, now))


def typed(scope: Scope) -> str:
    """The scope as people type it: `manual-app prod`, `prod`, `all`."""
    return " ".join(word for word in (scope.app, scope.environment) if word) or "all"


def ends_at(term: str, now: datetime) -> datetime:
    """When `for 2h`, `until tomorrow 09:00` and the like are over, in UTC; raises `Refused` with what to type."""
    words = " ".join(term.lower().split())
    try:
        ends = _after(words, now) or _at(words, now)
    except ValueError:  # 25:00, the 31st of February, an offset of a hundred hours
        ends = None
    if ends is None:
        raise Refused(f"I do not understand “{term}”. {TIMES}")
    if ends <= now:
        raise Refused(f"“{term}” is over: it is {now:%H:%M} UTC now. {TIMES}")
    if ends > now + LONGEST_LOCK:
        raise Refused(
            f"“{term}” is too long: a lock with an end lasts {LONGEST_LOCK.days} days at most. "
            "Without an end it holds until somebody unlocks it."
        )
    return ends.astimezone(UTC)


def _after(words: str, now: datetime) -> datetime | None:
    found = SPAN.fullmatch(words)
    return now + int(found[1]) * UNITS[found[2]] if found else None


def _at(words: str, now: datetime) -> datetime | None:
    """A time of day is meant in its own offset, also where that has another day now."""
    if found := MOMENT.fullmatch(words):
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{_offset(found[3])}")
    if not (found := TIME_OF_DAY.fullmatch(words)):
        return None
    offset = _offset(found[3])
    zone = datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo
    day = now.astimezone(zone).date() + timedelta(days=1 if found[1] == "tomorrow" else 0)
    return datetime.fromisoformat(f"{day}T{found[2]:0>5}{offset}")


def _offset(found: str | None) -> str:
    return (found or "z").upper()


def _required(reason: str | None, usage: str) -> str:
    if checked := checked_reason(reason):
        return checked
    raise Refused(f"Say why, so that others know what to wait for: {usage}")


def _channels(targets: Sequence[Target]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(target.channel for target in targets))


def _not_locked(scope: Scope, left: Sequence[Lock]) -> str:
    if not left:
        return f"{scope} is not locked. Type /promote locks for what is."
    others = " and ".join(f"/promote unlock {typed(lock.scope)}" for lock in left)
    return f"{scope} is not locked itself; what holds there has another scope. Type {others}."
