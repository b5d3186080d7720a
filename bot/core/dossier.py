"""What a promotion brings, as it was found when it was asked for: shown on its card, and bound to its approvals."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of somebody's: of the app's source, or of what the applications render."""

    revision: str
    subject: str
    author: str
    email: str = ""
    at: datetime | None = None
    user: str | None = None
    """The author's Slack id, where the address tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """What lies between two revisions. `unknown` says why nobody can tell; then the rest is empty."""

    count: int = 0
    newest: tuple[Commit, ...] = ()
    """Newest first; all of them, unless there are more than `MOST`."""
    is_back: bool = False
    """Is the new revision the older one?"""
    link: str | None = None
    """The comparison, for people."""
    unknown: str = ""

    @property
    def are_all_known(self) -> bool:
        """Is every author among them?"""
        return not self.unknown and self.count == len(self.newest)


MOST = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """All that is known of what a promotion brings."""

    source: Commits | None = None
    """Between the builds, in the app's own repository; None where none is configured."""
    watched: Commits | None = None
    """In what the applications render from, besides the value itself, since what the target runs."""
    binds_watched: bool = False
    """Does an approval count for these very commits? So where Argo CD does not sync by itself."""
    parameters: str = ""
    """A hash of what stands in the Applications themselves, where an approval counts for that too."""
    differences: tuple[str, ...] = ()
    """Keys in which the two values files differ although nobody expects it."""
    differences_unknown: str = ""
    soaked: timedelta | None = None
    """How long the build ran healthily in the environment before."""
    checks: tuple[str, ...] = ()
    """Each verdict in words: `integration passed`."""
    proof: str = ""
    """Where the digest comes from: `the registry`, `the pods of stage`; empty where the tag alone is compared."""
    last_requester: str | None = None
    """Who asked for what the target holds now, by Slack id."""

    @property
    def authors(self) -> tuple[Commit, ...]:
        """A commit of each author of the source."""
        newest = self.source.newest if self.source else ()
        return tuple({commit.email.lower(): commit for commit in reversed(newest)}.values())

    @property
    def fingerprint(self) -> str:
        """A short hash of all of it, that a promotion keeps: nobody can change it afterwards."""
        plain = asdict(Dossier())
        # What says nothing is left out, so that a field that a later version adds changes no older dossier.
        said = {name: value for name, value in asdict(self).items() if value != plain[name]}
        words = json.dumps(said, default=str, sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()[:32]
