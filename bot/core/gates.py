"""Gates: plain questions with plain answers. All of them answer together, and one that cannot be asked is closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.board import BadVersion, Lock, Report, Soaked
from bot.core.catalog import Image, Target
from bot.core.errors import Refused
from bot.core.facts import ApplicationFacts, running_version, split_image
from bot.core.policy import Gate, Policy
from bot.core.ports import Hours


class Stand(StrEnum):
    """How a gate stands."""

    OPEN = "open"
    WAITS = "waits"
    """Closed, and opens by itself."""
    CLOSED = "closed"
    UNKNOWN = "unknown"
    """Nobody could ask: closed until somebody can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one gate says."""

    gate: Gate
    stand: Stand
    says: str
    """A part of a sentence: `stage has run it for 3 h of 24 h`."""
    opens_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """May it pass?"""
        return self.stand is Stand.OPEN

    @property
    def may_open(self) -> bool:
        """Can this gate open for the same build and the same request, with time or with somebody's help?"""
        return self.gate not in (Gate.ORDER, Gate.IMAGE, Gate.BAD_VERSION)


@dataclass(frozen=True, slots=True)
class Answers:
    """What all gates say of one version and one target."""

    each: tuple[Answer, ...]

    @property
    def closed(self) -> tuple[Answer, ...]:
        """Those that stand in the way."""
        return tuple(answer for answer in self.each if not answer.is_open)

    @property
    def are_open(self) -> bool:
        """Does nothing stand in the way?"""
        return not self.closed

    @property
    def unknown(self) -> tuple[Answer, ...]:
        """Those that nobody could ask."""
        return tuple(answer for answer in self.each if answer.stand is Stand.UNKNOWN)

    @property
    def opens_at(self) -> datetime | None:
        """When all of them may be open; None where one of them does not say."""
        whens = [answer.opens_at for answer in self.closed]
        return max(filter(None, whens)) if whens and all(whens) else None

    @property
    def says(self) -> str:
        """Why not, all reasons in one sentence without its full stop."""
        return "; ".join(answer.says for answer in self.closed)


def opened(gate: Gate, says: str) -> Answer:
    """It may pass."""
    return Answer(gate=gate, stand=Stand.OPEN, says=says)


def closed(gate: Gate, says: str) -> Answer:
    """It may not, until somebody does something."""
    return Answer(gate=gate, stand=Stand.CLOSED, says=says)


def unknown(gate: Gate, error: Exception) -> Answer:
    """Nobody could ask."""
    return Answer(
        gate=gate, stand=Stand.UNKNOWN, says=f"{gate}: could not be checked: {str(error).rstrip('.')}"
    )


def live_version(source: Target, facts: Sequence[ApplicationFacts]) -> str:
    """The one version that every application of the source runs, live and healthy; raises `Refused` with the reason."""
    found: set[str] = set()
    for application in facts:
        version, reason = running_version(application, source.image)
        if version is None:
            raise Refused(
                f"{source.environment} is not live and healthy: {reason}. "
                f"Only what runs well in {source.environment} can go on; try again when it does."
            )
        found.add(version)
    if len(found) != 1:
        raise Refused(
            f"The applications of {source.app} in {source.environment} run different versions: "
            f"{', '.join(sorted(found))}. Bring them to one version first."
        )
    return found.pop()


def require_order(target: Target, source: Target, *, wanted: str, live: str) -> None:
    """Raise `Refused` unless the environment before runs the wanted version."""
    if wanted != live:
        raise Refused(
            f"{source.environment} runs {live}, not {wanted}. Promote {wanted} to {source.environment} first: "
            f"/promote {target.app} {wanted} {source.environment}"
        )


def went_on(source: Target, wanted: str, stood: Sequence[str]) -> Answer | None:
    """What the branch says of a version that the environment before ran when it was asked for; None: it holds it still.

    `stood` is what the branch held there, newest first. Who went on to another version does not take back the one
    before; who went back to what stood there earlier does, whoever wrote it.
    """
    now, where = stood[0], source.environment
    if now == wanted:
        return None
    if wanted not in stood:
        return closed(Gate.ORDER, f"{where} holds {now} now, and {wanted} is not among what it held of late")
    if now in stood[stood.index(wanted) :]:
        return closed(Gate.ORDER, f"{where} went back from {wanted} to {now} after it was asked for")
    return opened(Gate.ORDER, f"{where} has gone on from {wanted} to {now}")


def still_runs(source: Target, wanted: str, facts: Sequence[ApplicationFacts]) -> Answer:
    """What the applications say of a version that the environment before ran when it was asked for.

    It is closed where one of them is in trouble; what passes by itself, a sync or a comparison, is not known yet.
    """
    where = source.environment
    if trouble := next(filter(None, (_trouble(each, source.image, wanted) for each in facts)), ""):
        return closed(Gate.ORDER, f"{where} does not run {wanted} well any more: {trouble}")
    for application in facts:
        version, reason = running_version(application, source.image)
        if version is None:
            says = f"whether {where} still runs {wanted} well is not known yet: {reason}"
            return Answer(gate=Gate.ORDER, stand=Stand.UNKNOWN, says=says)
    return opened(Gate.ORDER, f"{where} still runs {wanted}, live and healthy")


def _trouble(facts: ApplicationFacts, image: str, wanted: str) -> str:
    """Why an application does not run the version well, where that does not pass by itself; else empty."""
    name, workloads = facts.name, facts.workloads
    if facts.is_operating:
        return ""
    if facts.health in ("Degraded", "Missing"):
        return f"{name} is {facts.health}{f': {facts.trouble}' if facts.trouble else ''}"
    if workloads is None:
        return ""
    spelled = [split_image(each) for pod in workloads.running(image) for each in pod.images]
    versions = sorted({version for named, version in spelled if named == split_image(image)[0]})
    if versions and wanted not in versions:
        return f"{name} runs {' and '.join(versions)}"
    is_in_trouble = any(pod.trouble and not pod.is_ready for pod in workloads.staying)
    return f"{name}: {workloads.unready}" if is_in_trouble else ""


def soak(policy: Policy, source: Target, soaked: Soaked | None, *, now: datetime) -> Answer:
    """Has the build run healthily long enough in the environment before?"""
    total = soaked.total if soaked else timedelta(0)
    says = f"{source.environment} has run it healthily for {span(total)} of {span(policy.soak)}"
    if total >= policy.soak:
        return opened(Gate.SOAK, says)
    if soaked is None or not soaked.was_healthy:
        return closed(Gate.SOAK, f"{says}, and does not run it healthily now")
    opens_at = now + policy.soak - total
    return Answer(gate=Gate.SOAK, stand=Stand.WAITS, says=says, opens_at=opens_at)


def checks(
    policy: Policy, source: Target, image: Image, reports: Iterable[Report], *, asker: str | None = None
) -> tuple[Answer, ...]:
    """Is there a good verdict of each check, for this very build? One for another digest counts as missing.

    A verdict counts where it was given, wherever it is kept; not for who asks on the strength of it.
    """
    found = {
        report.check: report
        for report in reports
        if (report.app, report.environment, report.image) == (source.app, source.environment, image)
    }
    return tuple(_check(rule.name, source, found.get(rule.name), asker) for rule in policy.checks)


def _check(name: str, source: Target, report: Report | None, asker: str | None) -> Answer:
    if report and report.passed and report.by == asker:
        return closed(Gate.CHECKS, f"check {name}: who asks has reported it, so somebody else must")
    if report is None:
        return closed(
            Gate.CHECKS, f"check {name}: nobody has reported it for this build in {source.environment}"
        )
    if not report.passed:
        said = f": {report.said}" if report.said else ""
        return closed(Gate.CHECKS, f"check {name}: failed in {source.environment}{said}")
    return opened(Gate.CHECKS, f"check {name}: passed in {source.environment}")


def windows(hours: Hours) -> Answer:
    """Does the clock allow it?"""
    if hours.is_open:
        return opened(Gate.WINDOWS, "the window is open")
    stand = Stand.WAITS if hours.changes_at else Stand.CLOSED
    return Answer(gate=Gate.WINDOWS, stand=stand, says=hours.says, opens_at=hours.changes_at)


def locks(target: Target, found: Iterable[Lock], *, now: datetime, is_rollback: bool = False) -> Answer:
    """Has nobody locked it? What a rollback has locked, another rollback passes."""
    held = [
        lock
        for lock in found
        if lock.scope.covers(target) and lock.holds_at(now) and not (is_rollback and lock.after)
    ]
    if not held:
        return opened(Gate.LOCKS, "nobody has locked it")
    ends = [lock.until for lock in held]
    says = "; ".join(f"{lock.scope} is locked: {lock.reason}" for lock in held)
    opens_at = max(filter(None, ends)) if all(ends) else None
    return Answer(
        gate=Gate.LOCKS, stand=Stand.WAITS if opens_at else Stand.CLOSED, says=says, opens_at=opens_at
    )


def bad_version(image: Image, found: Iterable[BadVersion]) -> Answer:
    """Has nobody called it bad?"""
    for bad in found:
        if bad.version == image.version:
            return closed(Gate.BAD_VERSION, f"{image.version} is blocked: {bad.reason}")
    return opened(Gate.BAD_VERSION, f"nobody has blocked {image.version}")


def parity(differences: Sequence[str], source: Target, target: Target) -> Answer:
    """Do the two environments differ only where that is expected?"""
    if not differences:
        return opened(
            Gate.PARITY, f"{source.environment} and {target.environment} differ only where expected"
        )
    names = ", ".join(differences[:5]) + (f" and {len(differences) - 5} more" if len(differences) > 5 else "")
    return closed(Gate.PARITY, f"{source.environment} and {target.environment} also differ in {names}")


def span(length: timedelta) -> str:
    """`3 d 4 h`, `26 h`, `12 min`, `40 s`: for people, rounded down."""
    seconds = int(length.total_seconds())
    days, hours, minutes = seconds // 86400, seconds // 3600, seconds // 60
    if days >= 2:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"
