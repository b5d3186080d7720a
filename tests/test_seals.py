"""Whoever writes to the store can delay or erase a promotion, but cannot make one that is committed."""

from dataclasses import replace

import pytest
from builders import AMY, BEN, DANA, MINUTE, NOON, approval, requested

from bot.core.promotion import Approval, Decision, Promotion
from bot.core.seals import Sealer, request_words

SEALER = Sealer("a secret of the tests")


def sealed() -> tuple[Promotion, Approval]:
    """A promotion and its approval, both sealed as the bot does it."""
    bare = requested()
    seal = SEALER.seal(
        id=bare.id,
        content_hash=bare.content_hash,
        by=DANA,
        decision=Decision.REQUEST,
        at=NOON,
        said=request_words(bare),
    )
    promotion = replace(bare, request_seal=seal)
    given = approval(promotion, AMY)
    seal = SEALER.seal(
        id=bare.id, content_hash=bare.content_hash, by=AMY, decision=Decision.APPROVE, at=given.at
    )
    return promotion, replace(given, seal=seal)


def test_what_the_bot_sealed_is_genuine() -> None:
    """A request and an approval as they were recorded verify, also in another process with the same secret."""
    promotion, given = sealed()
    again = Sealer("a secret of the tests")
    assert again.request_is_genuine(promotion)
    assert again.approval_is_genuine(promotion, given)


OTHER_APPROVALS = {
    "forged": {"seal": "0" * 64},
    "no seal": {"seal": ""},
    "no hexadecimal": {"seal": "✓" * 64},
    "another person": {"by": BEN},
    "another team": {"by": replace(AMY, team="T0EVIL")},
    "another name": {"by": replace(AMY, name="Ben Ruiz")},
    "another address": {"by": replace(AMY, email="boss@acme.example")},
    "another time": {"at": NOON + 2 * MINUTE},
    "other content": {"content_hash": "sha256:" + "f" * 64},
}


@pytest.mark.parametrize("forgery", OTHER_APPROVALS)
def test_a_changed_approval_is_not_genuine(forgery: str) -> None:
    """Person, team, time and content are all sealed: a record with another one does not verify."""
    promotion, given = sealed()
    assert not SEALER.approval_is_genuine(promotion, replace(given, **OTHER_APPROVALS[forgery]))


def test_an_approval_copied_to_another_promotion_is_not_genuine() -> None:
    """The same content asked for once more needs its own approvals."""
    promotion, given = sealed()
    other = replace(promotion, id="P-0000000000")
    assert not SEALER.approval_is_genuine(other, given)


def test_an_approval_does_not_follow_changed_content() -> None:
    """When the promotion's own content is exchanged, its old approvals are worth nothing, even relabelled."""
    promotion, given = sealed()
    other = replace(promotion, content_hash="sha256:" + "f" * 64)
    assert not SEALER.approval_is_genuine(other, given)
    assert not SEALER.approval_is_genuine(other, replace(given, content_hash=other.content_hash))


def test_a_requests_seal_is_no_approval() -> None:
    """The decision itself is sealed: asking for something is not agreeing to it."""
    promotion, given = sealed()
    at_the_request = replace(given, by=DANA, at=NOON, seal=promotion.request_seal)
    assert not SEALER.approval_is_genuine(promotion, at_the_request)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "P-0000000000"},
        {"content_hash": "sha256:" + "f" * 64},
        {"requested_by": BEN},
        {"requested_by": replace(DANA, team="T0EVIL")},
        {"requested_at": NOON + MINUTE},
        {"request_seal": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_request_is_not_genuine(change: dict[str, object]) -> None:
    """Id, content, requester and time of a request are sealed."""
    promotion, _ = sealed()
    assert not SEALER.request_is_genuine(replace(promotion, **change))


def test_another_secret_makes_other_seals() -> None:
    """Without PROMOTE_SECRET nobody can make a seal, and a new secret ends what the old one sealed."""
    promotion, given = sealed()
    other = Sealer("another secret, of somebody")
    assert not other.request_is_genuine(promotion)
    assert not other.approval_is_genuine(promotion, given)


def test_words_cannot_flow_into_one_another() -> None:
    """The parts of a seal have their lengths in front: moving a character between two parts makes another one."""
    short = SEALER.seal(id="P-1", content_hash="23", by=AMY, decision=Decision.APPROVE, at=NOON)
    long = SEALER.seal(id="P-12", content_hash="3", by=AMY, decision=Decision.APPROVE, at=NOON)
    assert short != long


@pytest.mark.parametrize("secret", ["", "short", "x" * 15])
def test_a_short_secret_is_refused(secret: str) -> None:
    """A guessable key would make the seals decoration: at least 16 characters."""
    with pytest.raises(ValueError, match="at least 16 characters"):
        Sealer(secret)
    Sealer("x" * 16)


def test_what_the_old_secret_sealed_still_counts() -> None:
    """While the secret changes, promotions under way go on; what is sealed now needs no old secret."""
    promotion, given = sealed()
    changed = Sealer("the secret from today on", old="a secret of the tests")
    assert changed.request_is_genuine(promotion)
    assert changed.approval_is_genuine(promotion, given)
    words = {"id": promotion.id, "content_hash": promotion.content_hash, "by": BEN, "at": NOON}
    seal = changed.seal(decision=Decision.APPROVE, **words)
    assert seal == Sealer("the secret from today on").seal(decision=Decision.APPROVE, **words)


def test_a_secret_that_is_gone_seals_nothing() -> None:
    """Once the old secret is taken away, what it sealed is worth nothing."""
    promotion, given = sealed()
    changed = Sealer("the secret from today on")
    assert not changed.request_is_genuine(promotion)
    assert not changed.approval_is_genuine(promotion, given)


@pytest.mark.parametrize(
    ("secret", "old", "name"), [("short", None, "SECRET "), ("x" * 16, "", "SECRET_OLD ")]
)
def test_a_secret_that_can_be_guessed_is_refused(secret: str, old: str | None, name: str) -> None:
    """Also the old one: it is checked with as well."""
    with pytest.raises(ValueError, match=name):
        Sealer(secret, old=old)
