"""Seals: Redis holds state, not authority.

Every request and every approval carries an HMAC over what was decided, by whom and when, made with a key that
never enters Redis. Whoever writes to Redis can delay or erase a promotion, or bring back what was withdrawn while it
could still be written, but cannot make a decision that nobody made.
"""

from __future__ import annotations

import hmac
from datetime import datetime

from bot.core.catalog import Target
from bot.core.promotion import Approval, Decision, Promotion, Signer


class Sealer:
    """Makes and checks seals with `PROMOTE_SECRET`."""

    def __init__(self, secret: str) -> None:
        """`secret` is any text of at least 16 characters; raises `ValueError` for a shorter one."""
        if len(secret) < 16:  # a guessable key would make the seals decoration
            raise ValueError("PROMOTE_SECRET must have at least 16 characters.")
        self._key = secret.encode()

    def seal(self, *, id: str, content_hash: str, by: Signer, decision: Decision, at: datetime) -> str:
        """The seal of one decision, 64 hexadecimal digits."""
        words = (id, content_hash, by.id, by.team, decision.value, at.isoformat())
        # Length before each word, so that no two lists of words give the same bytes.
        message = "".join(f"{len(word)}:{word}" for word in words)
        return hmac.new(self._key, message.encode(), "sha256").hexdigest()

    def doubt(self, promotion: Promotion, target: Target) -> str:
        """Why the record cannot be trusted as it stands, as the end of a sentence; empty where it can."""
        expected = target.content_hash(
            old_version=promotion.old_version,
            version=promotion.version,
            digest=promotion.digest,
            changes=promotion.changes,
        )
        if expected != promotion.content_hash:
            return "the configuration of its target or the rules for it changed after it was asked for"
        sealed = self.request_is_genuine(promotion) and all(
            self.approval_is_genuine(promotion, approval) for approval in promotion.approvals
        )
        return "" if sealed else "its record was changed by somebody else than this bot"

    def request_is_genuine(self, promotion: Promotion) -> bool:
        """Did the bot itself record this request, with this content and this requester?"""
        expected = self.seal(
            id=promotion.id,
            content_hash=promotion.content_hash,
            by=promotion.requested_by,
            decision=Decision.REQUEST,
            at=promotion.requested_at,
        )
        return _equal(expected, promotion.request_seal)

    def approval_is_genuine(self, promotion: Promotion, approval: Approval) -> bool:
        """Did the bot itself record this approval, for this promotion and this content?"""
        expected = self.seal(
            id=promotion.id,
            content_hash=promotion.content_hash,
            by=approval.by,
            decision=Decision.APPROVE,
            at=approval.at,
        )
        return approval.content_hash == promotion.content_hash and _equal(expected, approval.seal)


def _equal(expected: str, found: str) -> bool:
    """Compared as bytes: for text, Python raises where somebody put other characters than ASCII into a record."""
    return hmac.compare_digest(expected.encode(), found.encode())
