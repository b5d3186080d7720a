"""Seals: Redis holds state, not authority.

Every request and every approval carries an HMAC over what was decided, by whom and when, made with a key that
never enters Redis. Whoever writes to Redis can delay or erase a promotion, or bring back what was withdrawn while it
could still be written, but cannot make a decision that nobody made.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from bot.core.board import Report
from bot.core.catalog import Target
from bot.core.promotion import Approval, Decision, Promotion, Signer

FORGED = "its record was changed by somebody else than this bot"


class Sealer:
    """Makes seals with `PROMOTE_SECRET`, and checks them with it or with the one before it."""

    def __init__(self, secret: str, *, old: str | None = None) -> None:
        """Each is any text of at least 16 characters; raises `ValueError` for a shorter one.

        `old` is what the secret was until now: what it sealed still counts, and nothing new is sealed with it.
        """
        for name, key in (("PROMOTE_SECRET", secret), ("PROMOTE_SECRET_OLD", old)):
            if key is not None and len(key) < 16:  # a guessable key would make the seals decoration
                raise ValueError(f"{name} must have at least 16 characters.")
        self._keys = [key.encode() for key in (secret, old) if key is not None]

    def seal(
        self,
        *,
        id: str,
        content_hash: str,
        by: Signer,
        decision: Decision,
        at: datetime,
        said: Sequence[str] = (),
    ) -> str:
        """The seal of one decision and the words that go with it, 64 hexadecimal digits."""
        return _sealed(self._keys[0], _message(id, content_hash, by, decision, at, said))

    def doubt(self, promotion: Promotion, target: Target) -> str:
        """Why the record cannot be trusted as it stands, as the end of a sentence; empty where it can."""
        expected = target.content_hash(
            old_version=promotion.old_version,
            version=promotion.version,
            digest=promotion.digest,
            changes=promotion.changes,
            dossier=promotion.dossier,
            brings=promotion.brings,
        )
        if expected != promotion.content_hash:
            return "the configuration of its target or the rules for it changed after it was asked for"
        is_genuine = self.request_is_genuine(promotion) and all(
            self.approval_is_genuine(promotion, approval) for approval in promotion.approvals
        )
        return "" if is_genuine else FORGED

    def request_is_genuine(self, promotion: Promotion) -> bool:
        """Did the bot itself record this request, with this content and this requester?"""
        words = _message(
            promotion.id,
            promotion.content_hash,
            promotion.requested_by,
            Decision.REQUEST,
            promotion.requested_at,
            request_words(promotion),
        )
        return self._is_ours(promotion.request_seal, words)

    def approval_is_genuine(self, promotion: Promotion, approval: Approval) -> bool:
        """Did the bot itself record this approval, for this promotion and this content?"""
        words = _message(promotion.id, promotion.content_hash, approval.by, Decision.APPROVE, approval.at)
        return approval.content_hash == promotion.content_hash and self._is_ours(approval.seal, words)

    def sealed_report(self, report: Report) -> Report:
        """The verdict with the bot's own seal on it."""
        return replace(report, seal=_sealed(self._keys[0], _words(_report_words(report))))

    def report_is_genuine(self, report: Report) -> bool:
        """Did the bot itself record this verdict?"""
        return self._is_ours(report.seal, _words(_report_words(report)))

    def group_seal(self, group: str, members: Collection[str], at: datetime) -> str:
        """The seal of who is in a user group, as Slack said at a moment."""
        return _sealed(self._keys[0], _group_words(group, members, at))

    def group_is_genuine(self, seal: str, group: str, members: Collection[str], at: datetime) -> bool:
        """Did the bot itself read this of Slack at that moment?"""
        return self._is_ours(seal, _group_words(group, members, at))

    def _is_ours(self, seal: str, message: bytes) -> bool:
        return any(_equal(_sealed(key, message), seal) for key in self._keys)


def request_words(promotion: Promotion) -> tuple[str, ...]:
    """What a request says besides its content: it stands in the commit, or decides until when it counts."""
    return (
        promotion.source,
        promotion.reason or "",
        promotion.rollback_of or "",
        promotion.expires_at.isoformat(),
        *((f"way {promotion.way}",) if promotion.way else ()),
        *((f"incident {promotion.incident}",) if promotion.incident else ()),
        *(("waits",) if promotion.waits else ()),
        *((f"build {promotion.build}",) if promotion.build else ()),
    )


def _message(
    id: str, content_hash: str, by: Signer, decision: Decision, at: datetime, said: Sequence[str] = ()
) -> bytes:
    giver = (by.id, by.team, by.name, by.email or "")
    words = (id, content_hash, *giver, decision.value, at.isoformat(), *said)
    return _words(words)


def _report_words(report: Report) -> tuple[str, ...]:
    verdict = "passed" if report.passed else "failed"
    place = (report.app, report.environment, str(report.image))
    return ("report", *place, report.check, verdict, report.by, report.at.isoformat())


def _group_words(group: str, members: Collection[str], at: datetime) -> bytes:
    return _words(("group", group, at.isoformat(), *sorted(members)))


def _words(words: Sequence[str]) -> bytes:
    """Length before each word, so that no two lists of words give the same bytes."""
    return "".join(f"{len(word)}:{word}" for word in words).encode()


def _sealed(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, "sha256").hexdigest()


def _equal(expected: str, found: str) -> bool:
    """Compared as bytes: for text, Python raises where somebody put other characters than ASCII into a record."""
    return hmac.compare_digest(expected.encode(), found.encode())
