"""The commit's message, format 1: what happened, for people, and the same as trailers, for ever.

History is rebuilt from these trailers, so their names and their order do not change; golden files fix them. What is
not so in every promotion stands behind the others.
"""

from __future__ import annotations

import re
import unicodedata

from bot.core.catalog import Image, Target
from bot.core.promotion import Promotion, Signer, Way

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
USER = re.compile(r"[UW][A-Z0-9]{1,30}")
"""A person's id in Slack."""
HOOK = re.compile(r"hook:(?P<hook>[a-z0-9-]{1,60})")
"""The id of a machine that asks over HTTP."""
_PERSON = rf"(?P<team>[A-Z0-9]{{1,30}})/(?P<id>{USER.pattern})"
_SIGNER = re.compile(rf"(?P<name>.+) <(?P<email>[^<>\s]+)> \(({_PERSON}|ci/{HOOK.pattern})\)")
HIDDEN = frozenset({"Cf", "Cs"})
"""Characters that nobody sees, and that may turn the direction of others or hide a word; halves of a pair too."""


def message(promotion: Promotion, target: Target, *, policy_revision: str | None = None) -> str:
    """Subject, body and trailers of the promotion's commit.

    `policy_revision` is the revision of the repository that the rules in force come from, where that is known.
    """
    subject = f"Promote {promotion.app} {promotion.version} to {promotion.environment}"
    body = (
        f"{promotion.environment} ran {promotion.old_version}; {promotion.source} runs {promotion.version}."
    )
    if promotion.source == "ci":
        body = f"{promotion.environment} ran {promotion.old_version}."
    if promotion.is_rollback:
        subject = f"Roll {promotion.app} back to {promotion.version} in {promotion.environment}"
        body = f"{promotion.environment} ran {promotion.old_version}, and {promotion.version} before it."
    trailers = [
        ("Promotion-Format", "1"),
        ("Promotion-Id", promotion.id),
        ("App", promotion.app),
        ("Environment", promotion.environment),
        ("From", promotion.source),
        *([("Rollback-Of", promotion.rollback_of)] if promotion.rollback_of else []),
        ("Old-Version", promotion.old_version),
        ("New-Version", promotion.version),
        ("Digest", promotion.digest),
        ("Requested-By", signature(promotion.requested_by)),
        *(("Approved-By", signature(approval.by)) for approval in promotion.approvals),
        ("Policy", target.policy.fingerprint),
        ("Content-Hash", promotion.content_hash),
        ("Reason", promotion.reason or "unknown"),
        ("Slack-Message", promotion.link or "unknown"),
        *_by_another_way(promotion),
        *([("Revision", promotion.brings)] if promotion.brings else []),
        *([("Policy-Revision", policy_revision)] if policy_revision else []),
        *([("Build", promotion.build)] if promotion.build else []),
    ]
    return _text(subject, body, trailers)


def _by_another_way(promotion: Promotion) -> list[tuple[str, str]]:
    """What is said of a promotion that did not take the ordinary way."""
    if promotion.is_emergency:
        return [("Break-Glass", "true"), ("Incident", promotion.incident or "unknown")]
    return [("Way", Way.AT_ONCE)] if promotion.way is Way.AT_ONCE else []


def ci_message(target: Target, *, id: str, old: str, new: Image) -> str:
    """The message of a commit that brings what CI has built into the first environment: nobody asked in Slack."""
    trailers = [
        ("Promotion-Format", "1"),
        ("Promotion-Id", id),
        ("App", target.app),
        ("Environment", target.environment),
        ("From", "ci"),
        ("Old-Version", old),
        ("New-Version", new.version),
        ("Digest", new.digest),
    ]
    return _text(
        f"Set {target.app} {new.version} in {target.environment}",
        f"{target.environment} ran {old}.",
        trailers,
    )


def _text(subject: str, body: str, trailers: list[tuple[str, str]]) -> str:
    lines = "\n".join(f"{name}: {one_line(value)}" for name, value in trailers)
    return f"{one_line(subject)}\n\n{one_line(body)}\n\n{lines}\n"


def signature(signer: Signer) -> str:
    """`Dana <dana@example.com> (T…/U…)`; without an address `Dana <U…@T….slack.invalid> (T…/U…)`."""
    name = one_line(re.sub(r"[<>()]", "", signer.name)) or signer.id
    email = (
        re.sub(r"[<>()\s]", "", one_line(signer.email or ""))
        or f"{signer.id.rpartition(':')[2]}@{signer.team}.slack.invalid"
    )
    return f"{name} <{email}> ({signer.team}/{signer.id})"


def signer_of(trailer: str) -> Signer | None:
    """Who signed, as `signature` has written it; None for what it would not write: anybody can write a commit."""
    found = _SIGNER.fullmatch(one_line(trailer))
    if found is None:
        return None
    if found["hook"]:
        return Signer.machine(found["hook"])
    is_made_up = found["email"] == f"{found['id']}@{found['team']}.slack.invalid"
    email = None if is_made_up else found["email"]
    return Signer(id=found["id"], team=found["team"], name=found["name"], email=email)


def one_line(text: str) -> str:
    """The text without line breaks and without what nobody sees, so that nobody can forge a trailer in a reason."""
    seen = (character for character in text if unicodedata.category(character) not in HIDDEN)
    return CONTROL.sub(" ", "".join(seen)).strip()
