"""What keepers and reporters read: locks, bad versions, verdicts, windows, and what a promotion would meet and bring."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bot.core.asking import Outlook
from bot.core.board import BadVersion, Lock, Scope
from bot.core.drafting import Draft
from bot.core.gates import Stand
from bot.core.keeper import Blocked, Held, Kept, Locked, Opening, Reported, Unblocked, Unlocked, typed
from bot.core.policy import ApprovalRule, Policy
from bot.messages import gates
from bot.messages.evidence import brings, changed
from bot.messages.mrkdwn import code, escape, full_stop, listed, mention, moment, plain

MOST_NAMES = 10


def answer(done: Kept) -> str:
    """For who did it."""
    match done:
        case Locked():
            return _locked(done)
        case Unlocked():
            return _unlocked(done)
        case Blocked():
            return _blocked(done)
        case Unblocked():
            return _unblocked(done)


def notice(done: Kept) -> str:
    """For the channels that it concerns."""
    match done:
        case Locked():
            return _locked_notice(done)
        case Unlocked():
            return _unlocked_notice(done)
        case Blocked():
            return _blocked_notice(done)
        case Unblocked():
            return _unblocked_notice(done)


def untold(channels: Sequence[str]) -> str:
    """What was done is done, and these channels do not know of it."""
    places = ", ".join(f"<#{channel}>" for channel in channels)
    return f":warning: I could not write to {places}; tell people there yourself."


def reported(done: Reported) -> str:
    """A verdict was kept."""
    report = done.report
    sign, verdict = (":white_check_mark:", "passed") if report.passed else (":x:", "failed")
    digest = report.image.short_digest if report.image.has_digest else "its tag alone, as no digest is known"
    said = f": {plain(report.said, 500)}" if report.said else ""
    return (
        f"{sign} {escape(report.check)} {verdict} in *{escape(report.environment)}* for *{escape(report.app)}* "
        f"{code(report.image.version)} ({escape(digest)}){said}\n"
        f"*{escape(done.wanted_by)}* counts it for this build; another verdict takes its place."
    )


def held(found: Held) -> str:
    """Every lock and blocked version."""
    if not found.locks and not found.bad_versions:
        return "Nothing is locked, and no version is blocked."
    locks = [f"• {_place(lock.scope)}{_lasts(lock)}, by {_whose(lock)}" for lock in found.locks]
    bad = [f"• {_version(each)}, by {_whose(each)}" for each in found.bad_versions]
    return listed([*_under("Locked", locks), *_under("Blocked", bad)])


def windows(openings: Sequence[Opening], environment: str | None = None) -> str:
    """What the clock says."""
    if openings:
        return listed(["*Windows*", *map(_opening, openings)])
    if environment:
        return f"*{escape(environment)}* has no windows: the clock never stands in the way there."
    return "No environment has windows: the clock never stands in the way."


def can(outlook: Outlook) -> str:
    """Whether a version could go now, gate by gate, who may approve, and why this person could not ask for it."""
    draft = outlook.draft
    subject = (
        f"*{escape(draft.target.app)}* {code(draft.image.version)} to *{escape(draft.target.environment)}*"
    )
    if draft.plan.is_done:
        return f"{subject}: it is there already."
    answers = draft.answers
    head = f"{gates.SIGNS[Stand.OPEN]} {subject} can go now."
    if not answers.are_open:
        opens = f"; from {moment(answers.opens_at)} on it may" if answers.opens_at else ""
        head = f"{gates.SIGNS[Stand.CLOSED]} {subject} cannot go now{opens}."
    lines = [
        head,
        *(f"• {gates.line(answer)}" for answer in answers.each),
        f"*May approve*: {_approvers(draft.target.policy)}",
    ]
    if outlook.why_not:
        lines.append(f":warning: You could not ask for it: {plain(outlook.why_not, 800)}")
    return listed(lines)


def diff(draft: Draft) -> str:
    """What a version would bring: the lines that change, and the commits."""
    target, plan = draft.target, draft.plan
    subject, new = f"*{escape(target.app)}* in *{escape(target.environment)}*", code(draft.image.version)
    if plan.is_done:
        return f"{subject}: {new} is there already; nothing would change."
    return listed(
        [f"{subject}: {code(plan.old_version)} → {new}", *changed(plan.changes), *brings(draft.dossier)]
    )


def _locked(done: Locked) -> str:
    lines = [f":lock: {_place(done.lock.scope)} is locked{_lasts(done.lock)}: {_why(done.lock.reason)}"]
    if done.replaced:
        lines.append(f"It takes the place of a lock by {_whose(done.replaced)}")
    if not done.is_replaced_known:
        lines.append("I could not read whether it was locked before.")
    return "\n".join(lines)


def _locked_notice(done: Locked) -> str:
    lock = done.lock
    lines = [
        f":lock: {mention(lock.by)} locked {_place(lock.scope)}{_lasts(lock)}: {_why(lock.reason)}",
        f"Nothing is promoted there while that lasts. To end it: {_typed('unlock', typed(lock.scope))}",
    ]
    return "\n".join(lines)


def _unlocked(done: Unlocked) -> str:
    lines = [
        f":unlock: {_place(done.lock.scope)} is unlocked. It was locked by {_whose(done.lock)}",
        *_left(done),
    ]
    return listed(lines)


def _unlocked_notice(done: Unlocked) -> str:
    because = f": {_why(done.reason)}" if done.reason else "."
    lines = [
        f":unlock: {mention(done.by)} unlocked {_place(done.lock.scope)}{because}",
        f"It was locked by {_whose(done.lock)}",
        *_left(done),
    ]
    return listed(lines)


def _blocked(done: Blocked) -> str:
    bad = done.bad
    return (
        f":no_entry: {_version(bad)} is blocked: {_why(bad.reason)} Nobody can promote it to any environment."
    )


def _blocked_notice(done: Blocked) -> str:
    bad = done.bad
    return (
        f":no_entry: {mention(bad.by)} blocked {_version(bad)}: {_why(bad.reason)}\n"
        f"Nobody can promote it to any environment. To take that back: {_typed('unblock', bad.app, bad.version)}"
    )


def _unblocked(done: Unblocked) -> str:
    return (
        f":white_check_mark: {_version(done.bad)} may be promoted again. It was blocked by {_whose(done.bad)}"
    )


def _unblocked_notice(done: Unblocked) -> str:
    bad = done.bad
    return (
        f":white_check_mark: {mention(done.by)} unblocked {_version(bad)}: it may be promoted again.\n"
        f"It was blocked by {_whose(bad)}"
    )


def _approvers(policy: Policy) -> str:
    """Of each rule how many, and who."""
    if not policy.needs_approval:
        return "nobody has to."
    rules = "; ".join(f"{rule.minimum} of {_named(rule)}" for rule in policy.rules)
    return f"{rules}; {policy.total} in all."


def _named(rule: ApprovalRule) -> str:
    names = [mention(id) for id in sorted(rule.users | rule.groups)]
    return ", ".join(names[:MOST_NAMES]) + _more(len(names), MOST_NAMES)


def _opening(opening: Opening) -> str:
    hours = opening.hours
    state = "open" if hours.is_open else "closed"
    until = _until(hours.changes_at)
    says = f": {_why(hours.says)}" if hours.says else "."
    return f"• {_place(opening.scope)} is {state}{until}{says}"


def _left(done: Unlocked) -> list[str]:
    """What holds all the same, so that nobody waits in vain."""
    if not done.is_left_known:
        return [f"I could not read which other locks there are: {_typed('locks')}"]
    return [
        f":lock: Still locked: {_place(lock.scope)}{_lasts(lock)}, by {_whose(lock)}" for lock in done.left
    ]


def _under(title: str, lines: Sequence[str]) -> list[str]:
    return [f"*{title}*", *lines] if lines else []


def _place(scope: Scope) -> str:
    return f"*{escape(str(scope))}*"


def _version(bad: BadVersion) -> str:
    return f"*{escape(bad.app)}* {code(bad.version)}"


def _whose(put_up: Lock | BadVersion) -> str:
    return f"{mention(put_up.by)}, {moment(put_up.at)}: {_why(put_up.reason)}"


def _why(reason: str) -> str:
    return full_stop(plain(reason, 500))


def _lasts(lock: Lock) -> str:
    return _until(lock.until) or " until somebody unlocks it"


def _until(at: datetime | None) -> str:
    return f" until {moment(at)}" if at else ""


def _typed(*words: str) -> str:
    return code(" ".join(("/promote", *words)), 300)


def _more(count: int, shown: int) -> str:
    return f" and {count - shown} more" if count > shown else ""
