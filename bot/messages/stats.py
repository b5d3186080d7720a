"""The numbers of DORA as people read them: each with what it was counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.core.measuring import Statistics
from bot.core.stats import Numbers, Spread
from bot.messages.mrkdwn import code, cut, escape, full_stop, listed, mention, plain

LONGEST = 3900
MOST_DOUBTS = 3
MOST_IN_FULL = 6
"""Of how many targets each number has a line of its own."""
LONGEST_ALTERNATIVE = 1000
NONE, UNKNOWN, NOT_YET = "none", "unknown", "not yet"
NO_NUMBERS = frozenset({NONE, UNKNOWN, NOT_YET})
WEEK = timedelta(days=7)
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A number in words, without any markup, and what it was counted from."""

    value: str
    basis: str

    def __str__(self) -> str:
        return f"{self.value} ({self.basis})"


def answer(found: Statistics, *, pictures: Sequence[str] = ()) -> str:
    """For who asked; `pictures` are sentences about what became of the picture."""
    numbers = [each.numbers for each in found.targets]
    told = _in_full if len(numbers) <= MOST_IN_FULL else _in_short
    lines = [f":bar_chart: *{title(found)}*", *(line for each in numbers for line in told(each))]
    besides = [
        *([f"… and {found.left_out} more: {code('/promote stats <app>')}"] if found.left_out else []),
        *(f":warning: {plain(full_stop(each), 600)}" for each in found.doubts[:MOST_DOUBTS]),
        *pictures,
    ]
    room = LONGEST - sum(len(each) + 1 for each in besides)
    return "\n".join([listed(lines, room), *besides])


def title(found: Statistics) -> str:
    """`Deployments in the last 30 days`."""
    return f"Deployments in the last {span(found.until - found.since)}"


def caption(found: Statistics, *, user: str) -> str:
    """What stands above the picture in the channel."""
    return f"{title(found)}, asked for by {mention(user)}"


def alternative(found: Statistics) -> str:
    """What the picture shows, for who cannot see it; plain text."""
    rows = [
        f"{each.numbers.app} in {each.numbers.environment}: {_row(each.numbers)}" for each in found.targets
    ]
    return cut(f"{title(found)}. {'. '.join(rows)}.", LONGEST_ALTERNATIVE)


def shown(channel: str) -> str:
    """The picture is there."""
    return f"The picture is in <#{channel}>."


def shown_lately(channel: str) -> str:
    """One picture a minute is enough."""
    return f"No new picture in <#{channel}>: I post one a minute there at most."


def not_shown(channel: str, why: str) -> str:
    """The picture is nowhere, and what to do."""
    return f":warning: No picture in <#{channel}>: {plain(full_stop(why), 600)}"


def cannot_show(channel: str) -> str:
    """The bot is not in the channel, or nobody can write there any more."""
    return not_shown(channel, "I cannot write there. Invite me with /invite @promote-bot, and ask again")


def not_shown_everywhere(channels: int) -> str:
    """Nobody asked for a picture in every channel."""
    return f"No picture, as this concerns {channels} channels. For one app there is: {code('/promote stats <app>')}"


def frequency(numbers: Numbers) -> Said:
    """`3.2 a week (14 in 30 days, and 1 rollback)`; a window of less than a week is too short for a rate."""
    count, window = numbers.deployments, numbers.until - numbers.since
    besides = [f"{numbers.emergencies} of them in an emergency"] if numbers.emergencies else []
    besides += [f"and {_count(numbers.rollbacks, 'rollback')}"] if numbers.rollbacks else []
    if not count or window < WEEK:
        return Said(value=str(count or NONE), basis=", ".join([f"in {span(window)}", *besides]))
    a_day = numbers.per_day
    rate = f"{a_day:.1f} a day" if a_day >= 1 else f"{a_day * 7:.1f} a week"
    return Said(value=rate.replace(".0 ", " "), basis=", ".join([f"{count} in {span(window)}", *besides]))


def lead(numbers: Numbers) -> Said:
    """`4 h 10 min (median of 12 versions, 9 of 10 within 2 d 3 h)`."""
    if numbers.lead is None:
        return Said(value=NONE, basis="versions enter here")
    if not numbers.lead.of:
        return Said(value=NONE, basis="no version came here for the first time")
    unknown = f"I did not bring {_those(numbers.lead)} to {numbers.first}"
    return _spread(numbers.lead, "version", others="unknown", otherwise=Said(value=UNKNOWN, basis=unknown))


def failures(numbers: Numbers) -> Said:
    """`14% (2 of 14, 1 of them rolled back)`."""
    if not numbers.deployments:
        return Said(value=NONE, basis="no deployments")
    rate, unknown = numbers.failure_rate, numbers.deployments - numbers.endings
    if rate is None:
        those = "it" if numbers.deployments == 1 else f"any of the {numbers.deployments}"
        return Said(value=UNKNOWN, basis=f"I do not know how {those} ended")
    basis = [f"{numbers.failures} of {numbers.deployments}"]
    basis += [f"{numbers.rolled_back} rolled back"] if numbers.rolled_back else []
    basis += [f"ending of {unknown} unknown"] if unknown else []
    return Said(value=f"{'at least ' if unknown else ''}{_percent(rate)}", basis=", ".join(basis))


def restore(numbers: Numbers) -> Said:
    """`35 min (median of 2 failures)`."""
    if not numbers.failures:
        return Said(value=NONE, basis="I know of no failure")
    waiting = Said(value=NOT_YET, basis=f"{_count(numbers.failures, 'failure')}, not restored")
    return _spread(numbers.restore, "failure", others="not restored yet", otherwise=waiting)


def duration(time: timedelta) -> str:
    """The two largest units: `2 d 3 h`, `35 min`, `0 s`."""
    left = max(0, round(time.total_seconds()))
    parts: list[tuple[int, str]] = []
    for size, unit in UNITS:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def span(time: timedelta) -> str:
    """`30 days`, `36 hours`."""
    hours = round(time / timedelta(hours=1))
    return _count(hours, "hour") if hours < 48 and hours % 24 else _count(round(hours / 24), "day")


def _in_full(numbers: Numbers) -> list[str]:
    if not numbers.deployments:
        return [f"{_place(numbers)}: {plain(str(frequency(numbers)))}"]
    return [
        _place(numbers),
        f"• Deployments: {plain(str(frequency(numbers)))}",
        *([f"• Lead time from {escape(numbers.first)}: {plain(str(lead(numbers)))}"] if numbers.lead else []),
        f"• Change failure rate: {plain(str(failures(numbers)))}",
        f"• Time to restore: {plain(str(restore(numbers)))}",
    ]


def _in_short(numbers: Numbers) -> list[str]:
    return [f"• {_place(numbers)}: {plain(_row(numbers))}"]


def _row(numbers: Numbers) -> str:
    """All in one line: each number with how many it was counted from."""
    said = [f"{frequency(numbers).value} ({numbers.deployments})"]
    if numbers.lead and numbers.lead.of:
        said.append(f"lead time {lead(numbers).value} ({numbers.lead.known} of {numbers.lead.of})")
    if numbers.deployments:
        said.append(f"failed {failures(numbers).value}{_share(numbers)}")
    if numbers.restore.known:
        said.append(f"restored in {restore(numbers).value} ({numbers.restore.known} of {numbers.restore.of})")
    return ", ".join(said)


def _share(numbers: Numbers) -> str:
    return f" ({numbers.failures} of {numbers.deployments})" if numbers.endings else ""


def _place(numbers: Numbers) -> str:
    return f"*{escape(numbers.app)}* in *{escape(numbers.environment)}*"


def _spread(spread: Spread, what: str, *, others: str, otherwise: Said) -> Said:
    if spread.median is None or spread.p90 is None:
        return otherwise
    most = "9 of 10" if spread.known >= 10 else "all"
    basis = [f"median of {spread.known} {what}s, {most} within {duration(spread.p90)}"]
    if spread.known == 1:
        basis = [f"1 {what}"]
    basis += [f"{spread.of - spread.known} {others}"] if spread.known < spread.of else []
    return Said(value=duration(spread.median), basis=", ".join(basis))


def _those(spread: Spread) -> str:
    return "that version" if spread.of == 1 else f"any of the {spread.of} versions"


def _percent(rate: float) -> str:
    return f"{rate:.1%}" if 0 < rate < 0.01 else f"{rate:.0%}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
