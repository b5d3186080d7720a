"""The four numbers of DORA for one target over a window, from our own commits and the records that are still there.

* **Deployments** are our commits to the environment within the window, by the date of the commit. Rollbacks are counted
  on their own: they take a change back, and are none. An emergency is a change like any other, and counted beside it.
* **Lead time** runs from the first of our commits that brought a build to the app's first environment, to the first one
  that brought it to this one. It is unknown where the first of them is not ours, or too old to be read.
* **Change failure rate** is the share of deployments that failed or were rolled back. *Rolled back*: a later commit
  names the deployment in `Rollback-Of`. *Failed*: its record says that the rollout failed; where nobody could look,
  nobody knows. Where no ending is known there is no rate; where some are not, the rate is at least this one. An
  emergency afterwards proves nothing about the deployment before it.
* **Time to restore** runs from the end of a deployment that failed or was rolled back (without a record from its
  commit) until the target came right: when its rollout recovered by itself, or when the next deployment or rollback
  that neither failed nor was rolled back was live (without a record when it was committed). What is not restored yet
  has no time.

Nothing is guessed: beside each number stands how much is known of how many. The commits of a target count in the order
of the branch, as a commit bears the date of its approval; where they are pushed later the record says when.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot.core.catalog import DIGEST, UNKNOWN, Image
from bot.core.ports import Written
from bot.core.promotion import ID, Phase, Promotion

ENDED = frozenset({Phase.LIVE, Phase.FAILED, Phase.SUPERSEDED})
"""The phases that a commit ends in: of another one nobody knows yet how it ends."""


Place = tuple[str, str]
"""App and environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the store still knows, by the id of the promotion."""

    promotions: Mapping[str, Promotion] = field(default_factory=dict)
    recovered: Mapping[str, datetime] = field(default_factory=dict)
    """When a rollout that had failed came right by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and 90th percentile of those that are known; None where none is."""

    known: int
    of: int
    median: timedelta | None = None
    p90: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The four numbers of one target, each with what it was counted from."""

    app: str
    environment: str
    first: str
    """The app's first environment, where its versions enter."""
    since: datetime
    until: datetime
    dates: tuple[datetime, ...]
    """Of the deployments, oldest first."""
    rollbacks: int
    emergencies: int
    """How many of the deployments broke glass."""
    failures: int
    """How many of the deployments failed or were rolled back."""
    rolled_back: int
    """How many of these were rolled back."""
    endings: int
    """Of how many deployments it is known how they ended."""
    lead: Spread | None
    """Of the builds that came here for the first time; None in the first environment, where they come from."""
    restore: Spread
    """Of the failures."""

    @property
    def deployments(self) -> int:
        """How many there were."""
        return len(self.dates)

    @property
    def days(self) -> float:
        """How long the window is."""
        return (self.until - self.since) / timedelta(days=1)

    @property
    def per_day(self) -> float:
        """Deployments a day."""
        return self.deployments / self.days if self.days > 0 else 0.0

    @property
    def failure_rate(self) -> float | None:
        """From 0 to 1; None where no ending is known."""
        return self.failures / self.deployments if self.endings else None

    @property
    def is_least(self) -> bool:
        """May the failure rate be higher, as some endings are not known?"""
        return self.endings < self.deployments


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """One commit of ours, with what is known of it."""

    at: datetime
    """The date of the commit."""
    image: Image
    is_rollback: bool
    is_emergency: bool
    record: Promotion | None
    recovered_at: datetime | None
    is_rolled_back: bool

    @property
    def ending(self) -> Phase | None:
        """How its rollout ended, where that is known."""
        record = self.record
        if record is None or record.phase not in ENDED or record.revision is None:
            return None
        return None if record.outcome and record.outcome.is_unseen else record.phase

    @property
    def is_bad(self) -> bool:
        return self.is_rolled_back or self.ending is Phase.FAILED

    @property
    def has_known_ending(self) -> bool:
        return self.is_rolled_back or self.ending is not None

    @property
    def written_at(self) -> datetime:
        record = self.record
        # What was recorded anew says when that was, and not when it was written.
        if record is None or record.committed_at is None or record.content_hash == UNKNOWN:
            return self.at
        return record.committed_at

    @property
    def broke_at(self) -> datetime:
        return (self.record.ended_at if self.record else None) or self.at

    @property
    def restores_at(self) -> datetime | None:
        """When it had the target in order; None where it did not, or where that is not known yet."""
        if self.is_bad:
            return None
        if self.record is None:
            return self.at
        return self.record.ended_at if self.ending is Phase.LIVE else None


def measure(
    app: str,
    environment: str,
    written: Mapping[Place, Sequence[Written]],
    *,
    first: str,
    since: datetime,
    until: datetime,
    records: Records,
) -> Numbers:
    """The numbers of a target over a window; `written` is what `by_target` gives, `first` the app's first environment."""
    all_ = _deployments((app, environment), written, records)
    changes = [(place, each) for place, each in enumerate(all_) if each.at >= since and not each.is_rollback]
    bad = [(place, each) for place, each in changes if each.is_bad]
    lead = None
    if environment != first:
        lead = _lead(all_, _deployments((app, first), written, records), since=since)
    return Numbers(
        app=app,
        environment=environment,
        first=first,
        since=since,
        until=until,
        dates=tuple(sorted(each.at for _, each in changes)),
        rollbacks=sum(each.at >= since and each.is_rollback for each in all_),
        emergencies=sum(each.is_emergency for _, each in changes),
        failures=len(bad),
        rolled_back=sum(each.is_rolled_back for _, each in bad),
        endings=sum(each.has_known_ending for _, each in changes),
        lead=lead,
        restore=spread((_restored(each, all_[place + 1 :]) for place, each in bad), of=len(bad)),
    )


def spread(durations: Iterable[timedelta | None], *, of: int) -> Spread:
    """Median and 90th percentile (the nearest one that there is) of those that are known."""
    known = sorted(each for each in durations if each is not None)
    if not known:
        return Spread(known=0, of=of)
    count = len(known)
    median = (known[(count - 1) // 2] + known[count // 2]) / 2
    return Spread(known=count, of=of, median=median, p90=known[math.ceil(0.9 * count) - 1])


def by_target(written: Iterable[Written]) -> dict[Place, list[Written]]:
    """Our commits, in the order in which they come, under the app and the environment that their trailers name."""
    found: defaultdict[Place, list[Written]] = defaultdict(list)
    for commit in written:
        found[commit.trailer("App"), commit.trailer("Environment")].append(commit)
    return dict(found)


def ids(written: Iterable[Written], *, since: datetime) -> tuple[str, ...]:
    """Whose records are worth a look; what CI wrote by itself has one as soon as it was noticed."""
    named = (each.trailer("Promotion-Id") for each in written if each.at >= since)
    return tuple(dict.fromkeys(id for id in named if ID.fullmatch(id)))


def _deployments(
    place: Place, written: Mapping[Place, Sequence[Written]], records: Records
) -> tuple[_Deployment, ...]:
    """The target's own, oldest first."""
    undone: set[str] = set()
    found: list[_Deployment] = []
    for commit in written.get(place, ()):
        id, undoes = commit.trailer("Promotion-Id"), commit.trailer("Rollback-Of")
        record = records.promotions.get(id)
        if record is not None and record.target != "/".join(place):
            record = None  # the commit names somebody else's
        found.append(
            _Deployment(
                at=commit.at,
                image=_image(commit),
                is_rollback=bool(undoes),
                is_emergency=commit.trailer("Break-Glass") == "true",
                record=record,
                recovered_at=records.recovered.get(id) if record else None,
                is_rolled_back=id in undone,
            )
        )
        undone |= {undoes} - {"", UNKNOWN}
    return tuple(reversed(found))


def _lead(here: Iterable[_Deployment], entered: Iterable[_Deployment], *, since: datetime) -> Spread:
    """How long each build took that came here for the first time within the window."""
    entries, arrivals = _Builds(), _Builds()
    for each in entered:
        if not each.is_rollback:
            entries.add(each)
    ways: list[timedelta | None] = []
    for each in here:
        if each.at >= since and not each.is_rollback and arrivals.earliest(each.image) is None:
            began = entries.earliest(each.image)
            ways.append(each.written_at - began if began and began <= each.written_at else None)
        arrivals.add(each)
    return spread(ways, of=len(ways))


class _Builds:
    """When each build was brought somewhere for the first time; without a digest it may be any of its version."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[str, datetime]] = defaultdict(dict)

    def add(self, brought: _Deployment) -> None:
        times, digest = self._of[brought.image.version], brought.image.digest
        times[digest] = min(brought.at, times.get(digest, brought.at))

    def earliest(self, image: Image) -> datetime | None:
        times = self._of[image.version]
        digests = (image.digest, UNKNOWN) if image.has_digest else times
        return min((times[digest] for digest in digests if digest in times), default=None)


def _restored(broken: _Deployment, later: Sequence[_Deployment]) -> timedelta | None:
    """How long until the target was in order again; None where it is not yet."""
    ends = [next((at for each in later if (at := each.restores_at)), None)]
    if not broken.is_rolled_back:
        ends.append(broken.recovered_at)
    known = [end for end in ends if end]
    return max(min(known) - broken.broke_at, timedelta(0)) if known else None


def _image(commit: Written) -> Image:
    digest = commit.trailer("Digest")
    return Image(
        version=commit.trailer("New-Version"), digest=digest if DIGEST.fullmatch(digest) else UNKNOWN
    )
