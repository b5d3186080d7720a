"""What a promotion brings: on its card in a few lines, and whole in its thread."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.catalog import Target
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.gates import span
from bot.core.promotion import LineChange, Promotion
from bot.messages.mrkdwn import code, diff, escape, full_stop, link, listed, plain, some

MOST_SUBJECTS = 5
MOST_BESIDES = 2
MOST_KEYS = 5
MOST_IN_DIFF = 10
MOST_IN_THREAD = 40
LONGEST_THREAD = 3500


def in_short(target: Target, promotion: Promotion, dossier: Dossier) -> list[list[str]]:
    """Its paragraphs on the card, each a few lines: the commits, and what else is known."""
    known = [
        *_in_source(promotion, dossier),
        *_besides(target, dossier),
        *_differences(target, promotion, dossier),
    ]
    return [lines for lines in (_source(dossier.source), known) if lines]


def in_full(dossier: Dossier | None) -> str:
    """For the thread: everything that the card has no room for; empty where the card says it all."""
    if dossier is None or not _is_cut_short(dossier):
        return ""
    return listed(brings(dossier, most=MOST_IN_THREAD), LONGEST_THREAD)


def changed(changes: Sequence[LineChange]) -> list[str]:
    """What exactly will change in the values file, place by place."""
    return [
        f"{code(change.path)} line {change.number}\n{diff(change.before, change.after)}" for change in changes
    ]


def brings(dossier: Dossier, *, most: int = MOST_IN_DIFF) -> list[str]:
    """The commits, what comes along, and the differences, at most so many of each, one a line."""
    lines = _commits("Commits of the app", dossier.source, most) if dossier.source else []
    if dossier.watched:
        lines += _commits("Other commits that would come along", dossier.watched, most)
    if dossier.differences_unknown:
        lines.append(f":warning: The values files could not be compared: {_why(dossier.differences_unknown)}")
    if dossier.differences:
        lines.append(f"The environments also differ in {_keys(dossier.differences, most)}.")
    return lines


def _is_cut_short(dossier: Dossier) -> bool:
    source, watched = (len(each.newest) if each else 0 for each in (dossier.source, dossier.watched))
    return source > MOST_SUBJECTS or watched > MOST_BESIDES or len(dossier.differences) > MOST_KEYS


def _source(commits: Commits | None) -> list[str]:
    """How many commits of the app, and the newest of them."""
    if commits is None:
        return []
    if commits.unknown:
        return [f":grey_question: *Commits* unknown: {_why(commits.unknown)}"]
    if not commits.count:
        return ["*Commits*: none."]
    count = link(commits.link, _counted(commits.count))
    head = f":rewind: *Goes back* over {count}, the newest first" if commits.is_back else f"*Brings* {count}"
    shown = [f"• {_short(commit)}" for commit in commits.newest[:MOST_SUBJECTS]]
    left = commits.count - len(shown)
    more = [f"… and {left} more, in the thread"] if left else []
    return [head, *shown, *more]


def _in_source(promotion: Promotion, dossier: Dossier) -> list[str]:
    """How long it ran in the environment before, and what was said of it there."""
    if promotion.is_rollback or promotion.source == "ci":
        return []
    soaked = f"ran well for {span(dossier.soaked)}" if dossier.soaked else ""
    checks = some([plain(check, 60) for check in dossier.checks])
    said = [part for part in (soaked, checks) if part]
    sign = ":warning: " if any(check.endswith(" failed") for check in dossier.checks) else ""
    return [f"{sign}*In {escape(promotion.source)}*: {', '.join(said)}"] if said else []


def _besides(target: Target, dossier: Dossier) -> list[str]:
    """What is deployed with it although nobody asked for it here."""
    commits, where = dossier.watched, escape(target.environment)
    if commits is None:
        return []
    if commits.unknown:
        return [f":grey_question: *What else goes live with it* is unknown: {_why(commits.unknown)}"]
    if not commits.count:
        return []
    count = link(commits.link, _counted(commits.count))
    shown = "; ".join(_short(commit) for commit in commits.newest[:MOST_BESIDES])
    left = commits.count - min(len(commits.newest), MOST_BESIDES)
    named = (f": {shown}" if shown else "") + (f"; and {left} more" if shown and left else "")
    if target.release:
        return [f"*Brings* {count} of {code(target.release.source)}{named}"]
    if dossier.binds_watched:
        return [f"*Also goes live with it*: {count} to what {where} is rendered from{named}"]
    says = "live already, or live with any sync, approved or not"
    return [f":warning: *Beside it* {count} to what {where} is rendered from ({says}){named}"]


def _differences(target: Target, promotion: Promotion, dossier: Dossier) -> list[str]:
    both = f"*{escape(target.environment)} and {escape(promotion.source)}*"
    if dossier.differences_unknown:
        return [f":grey_question: {both} could not be compared: {_why(dossier.differences_unknown)}"]
    if not dossier.differences:
        return []
    return [f":warning: {both} also differ in {_keys(dossier.differences, MOST_KEYS)}"]


def _commits(title: str, commits: Commits, most: int) -> list[str]:
    if commits.unknown:
        return [f"*{title}*: unknown: {_why(commits.unknown)}"]
    if not commits.count:
        return [f"*{title}*: none."]
    back = ", taken back" if commits.is_back else ""
    newest = commits.newest[:most]
    left = f" (the newest {len(newest)})" if len(newest) < commits.count else ""
    return [
        f"*{title}*: {link(commits.link, str(commits.count))}{back}{left}",
        *(
            f"• {code(commit.revision[:8])} {plain(commit.subject, 120)} – {plain(commit.author, 80)}"
            for commit in newest
        ),
    ]


def _short(commit: Commit) -> str:
    return f"{plain(commit.subject, 70) or code(commit.revision[:8])} – {plain(commit.author, 30)}"


def _keys(keys: Sequence[str], most: int) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(code(key, 60) for key in keys[:most]) + more


def _counted(count: int) -> str:
    return "1 commit" if count == 1 else f"{count} commits"


def _why(reason: str) -> str:
    return full_stop(plain(reason, 300))
