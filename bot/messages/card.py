"""The card: one message for each promotion, rendered whole from its state."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.catalog import UNKNOWN, Image, Target
from bot.core.outcome import Outcome
from bot.core.people import Action
from bot.core.policy import ApprovalRule
from bot.core.promotion import Phase, Promotion
from bot.core.rollout import Look, Progress, Stage
from bot.messages.advice import advice
from bot.messages.headlines import EMOJI, HEADLINE, OUTCOMES, ended, said_once
from bot.messages.mrkdwn import (
    Block,
    Message,
    code,
    cut,
    escape,
    facts,
    fenced,
    footnote,
    full_stop,
    header,
    link,
    linked,
    listed,
    mention,
    moment,
    mrkdwn,
    plain,
    section,
    sentence,
    utc,
    words,
)

SIGNS = {
    Stage.CLOSED: ":calendar:",
    Stage.UNSYNCED: ":raised_hand:",
    Stage.CONFIRMING: ":white_check_mark:",
    Stage.LIVE: ":white_check_mark:",
    Stage.DEGRADED: ":warning:",
    Stage.FAILED: ":x:",
    Stage.MISMATCH: ":warning:",
    Stage.SUPERSEDED: ":fast_forward:",
    Stage.UNREACHABLE: ":electric_plug:",
}

WAITS = {Stage.UNSYNCED: "Waiting for Sync", Stage.CLOSED: "Waiting for a sync window"}
"""Headlines for a rollout that stands still until a person, or a window, lets it go on."""

MOST_NAMES = 8

AGAIN = (Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.STALE, Phase.FAILED)
"""Where asking again makes sense, as long as nothing was committed."""


def card(target: Target, promotion: Promotion, look: Look) -> Message:
    """The promotion's message as it should stand in the channel now."""
    asked = [_facts(target, promotion), *_banner(target, promotion), *_reason(promotion)]
    story = _story(target, promotion, look)
    blocks = [
        header(headline(target, promotion, look)),
        # What became of it stands first once that is known, and what will change before.
        *([*story, *asked] if promotion.phase.is_final else [*asked, *_diff(promotion), *story]),
        *_buttons(target, promotion, look),
        footnote(f"{code(promotion.id)}  •  the story is in the thread"),
    ]
    for number, block in enumerate(blocks):
        # A new id for each edition, so that Slack keeps nothing that was typed or pressed before.
        block["block_id"] = f"{promotion.id}:{promotion.edition}:{number}"
    return Message(text=_fallback(target, promotion, look), blocks=tuple(blocks))


def headline(target: Target, promotion: Promotion, look: Look) -> str:
    """`⏳ Approval needed: manual-app 15 → prod`, in Slack's emoji names."""
    before = f"{_word(target, promotion, look)[0]} {_title(target, promotion, look)}: {promotion.app} "
    after = f" → {promotion.environment}"
    return before + cut(promotion.version, max(12, 150 - len(before) - len(after))) + after


def _title(target: Target, promotion: Promotion, look: Look) -> str:
    word = _word(target, promotion, look)[1]
    return f"ROLLBACK · {word}" if promotion.is_rollback else word


def _word(target: Target, promotion: Promotion, look: Look) -> tuple[str, str]:
    """Its sign, and where it stands, in a word or two."""
    if look.recovered:
        return ":white_check_mark:", "Recovered"
    if promotion.phase.is_final:
        return ended(promotion.phase, promotion.outcome)
    if promotion.phase is Phase.COMMITTED and (failure := _first_failure(look)):
        return ended(
            Phase.FAILED, failure.outcome
        )  # the others are followed to their end, but this one is known
    if promotion.phase is Phase.COMMITTED and (stage := _waits(look)):
        return SIGNS[stage], WAITS[stage]
    if promotion.phase is Phase.REQUESTED and not target.policy.needs_approval:
        return EMOJI[promotion.phase], "Requested"
    return EMOJI[promotion.phase], HEADLINE[promotion.phase]


def _first_failure(look: Look) -> Progress | None:
    return next((each for each in look.applications if each.stage is Stage.FAILED), None)


def _waits(look: Look) -> Stage | None:
    """What a rollout waits for in which nothing moves by itself; what somebody can do goes first."""
    stages = {progress.stage for progress in look.applications if not progress.stage.is_end}
    return next((stage for stage in WAITS if stage in stages), None) if stages <= WAITS.keys() else None


def _facts(target: Target, promotion: Promotion) -> Block:
    """What is asked; once it has ended, in one line."""
    versions = f"{code(promotion.old_version)} → {code(promotion.version)}"
    way = _way(promotion)
    requester = mention(promotion.requested_by.id)
    if promotion.phase.is_final:
        parts = [versions, way]
        if promotion.revision:
            parts.append(f"committed as {_commit(target, promotion)}")
        parts.append(f"asked by {requester}")
        if promotion.approvals:
            parts.append(
                f"approved by {', '.join(mention(approval.by.id) for approval in promotion.approvals)}"
            )
        return section("  •  ".join(parts))
    fields = [f"*Version*\n{versions}", f"*Environment*\n{way}", f"*Asked by*\n{requester}"]
    build = Image(version=promotion.version, digest=promotion.digest)
    if build.has_digest:
        fields.append(f"*Digest*\n{code(build.short_digest)}")
    if target.policy.needs_approval:
        fields.append(f"*Approvals*\n{_approvals(target, promotion)}")
        if promotion.phase is Phase.REQUESTED:
            fields += [
                f"*May approve*\n{_may_approve(target, promotion)}",
                f"*Expires*\n{moment(promotion.expires_at)}",
            ]
    return facts(*fields)


def _way(promotion: Promotion) -> str:
    environment = f"*{escape(promotion.environment)}*"
    if promotion.is_rollback:
        known = promotion.rollback_of if promotion.rollback_of != UNKNOWN else ""
        return f"back in {environment}{f', undoing {code(known)}' if known else ''}"
    source = "CI" if promotion.source == "ci" else escape(promotion.source)
    return f"{source} → {environment}"


def _approvals(target: Target, promotion: Promotion) -> str:
    count = f"{len(promotion.approvals)} of {target.policy.total}"
    given = [f"{mention(approval.by.id)}, {moment(approval.at)}" for approval in promotion.approvals]
    return "\n".join([count, *given])


def _may_approve(target: Target, promotion: Promotion) -> str:
    requester = promotion.requested_by.id
    return listed([_rule(rule, but_not=requester) for rule in target.policy.rules], 1900)


def _rule(rule: ApprovalRule, *, but_not: str) -> str:
    """`@amy or @ben`, `@amy and @ben`, `2 of @amy, @ben, @cleo`; a group alone is `2 of @sre`. Never the requester."""
    users = rule.users - {but_not}
    names = [mention(id) for id in sorted(users | rule.groups)]
    if rule.minimum == 1 and len(names) <= MOST_NAMES:
        return " or ".join(names)
    if rule.minimum == len(users) and not rule.groups and len(names) <= MOST_NAMES:
        return " and ".join(names)
    return f"{rule.minimum} of {_some(names)}"


def _some(names: list[str]) -> str:
    """The first names, and how many more there are: a text that is cut could end in half a mention or link."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _banner(target: Target, promotion: Promotion) -> list[Block]:
    """A warning for those who decide; nobody can heed it later."""
    if target.banner and promotion.phase is Phase.REQUESTED:
        return [section(f":rotating_light: *{plain(target.banner)}*")]
    return []


def _reason(promotion: Promotion) -> list[Block]:
    return [section(f"> {plain(promotion.reason, 500)}")] if promotion.reason else []


def _diff(promotion: Promotion) -> list[Block]:
    """What exactly will change."""
    parts = []
    for change in promotion.changes:
        lines = f"- {change.before}\n+ {change.after}"
        parts.append(f"{code(change.path)} line {change.number}\n{fenced(lines, 600)}")
    return [section(listed(parts, 3000))] if parts else []


def _story(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    """How far it is, one line a step; the words come from the systems themselves."""
    if promotion.phase.is_final:
        steps = [f":arrow_right: {escape(step)}" for step in _next_steps(promotion, look)]
        return _paragraphs([*_recovered(look), *_ending(target, promotion, look)], steps)
    lines = []
    if promotion.revision:
        lines.append(
            f":white_check_mark: *Committed* {_commit(target, promotion)} to {code(target.repository.branch)}"
        )
    if promotion.phase is Phase.COMMITTED:
        lines += [_rollout_line(target, progress) for progress in look.applications] or [
            ":hourglass_flowing_sand: asking Argo CD to look"
        ]
    if look.waits_for:
        lines.append(f":electric_plug: {plain(look.waits_for)}")
    return _paragraphs(lines)


def _paragraphs(*parts: Sequence[str]) -> list[Block]:
    return [section(listed(lines, 3000)) for lines in parts if lines]


def _rollout_line(target: Target, progress: Progress) -> str:
    sign = SIGNS.get(progress.stage, ":hourglass_flowing_sand:")
    if progress.stage is Stage.FAILED and progress.outcome:
        sign = OUTCOMES[progress.outcome][0]
    pods = f" ({plain(progress.pods)})" if progress.pods else ""
    again = "; asking again" if progress.stage is Stage.UNREACHABLE else ""
    return f"{sign} {_page(target, progress)}: {plain(progress.says, 900)}{again}{pods}"


def _recovered(look: Look) -> list[str]:
    if not look.recovered:
        return []
    at = f" at {moment(look.recovered_at)}" if look.recovered_at else ""
    return [f":white_check_mark: *Recovered*{at}: {plain(look.recovered)}"]


def _next_steps(promotion: Promotion, look: Look) -> list[str]:
    """What to do about a rollout that came to no good end."""
    if promotion.phase is not Phase.FAILED or promotion.revision is None or look.recovered:
        return []
    failed = [progress.outcome for progress in look.applications if progress.stage is Stage.FAILED]
    return advice(failed if promotion.outcome and failed else [promotion.outcome])


def _page(target: Target, progress: Progress) -> str:
    """Its name, with a link to its page; a record of an older version of the bot has no key."""
    key = progress.key or progress.name
    found = next((each for each in target.applications if key in (each.key, each.name)), None)
    return link(found.link if found else None, escape(progress.name))


def _commit(target: Target, promotion: Promotion) -> str:
    revision = promotion.revision or ""
    template = target.repository.commit_url
    return linked(template.replace("{revision}", revision) if template else None, revision[:8])


def _ending(target: Target, promotion: Promotion, look: Look) -> list[str]:
    """Why it ended: what Argo CD said of each application, where a rollout ended badly."""
    why = plain(promotion.ending, 1500) if promotion.ending else ""
    if promotion.phase is Phase.LIVE:
        names = _some([link(each.link, escape(target.called(each))) for each in target.applications])
        took = took_from(promotion)
        return [f"{EMOJI[promotion.phase]} *Live* in {names}{f' after {took}' if took else ''}: {why}"]
    if promotion.outcome and look.applications:
        return [_rollout_line(target, progress) for progress in look.applications]
    sign, word = ended(promotion.phase, promotion.outcome)
    by = f" by {mention(promotion.last.by)}" if promotion.last.by else ""
    return [f"{sign} *{word}*{by}{': ' + said_once(word, why) if why else ''}"]


def took_from(promotion: Promotion) -> str:
    """From the commit to the end: `42 s`, `2 min 11 s`; empty where nothing was committed."""
    if promotion.committed_at is None or promotion.ended_at is None:
        return ""
    seconds = round((promotion.ended_at - promotion.committed_at).total_seconds())
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"


def _buttons(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    elements = []
    if promotion.phase is Phase.REQUESTED and target.policy.needs_approval:
        elements = [
            _approve(target, promotion),
            _button(promotion, Action.REJECT, "Reject…", style="danger"),
            _button(promotion, Action.CANCEL, "Cancel"),
        ]
    if promotion.phase is Phase.COMMITTED and any(each.may_sync for each in look.applications):
        elements.append(_sync(promotion, look))
    if promotion.phase in AGAIN and promotion.revision is None:
        elements.append(_button(promotion, Action.ASK_AGAIN, "Ask again"))
    if _can_be_rolled_back(promotion) or (promotion.phase is Phase.COMMITTED and _first_failure(look)):
        elements.append(_roll_back(target, promotion))
    return [{"type": "actions", "elements": elements}] if elements else []


def _can_be_rolled_back(promotion: Promotion) -> bool:
    """Does the commit stand on the branch, as far as anybody knows?"""
    has_ended = promotion.phase in (Phase.LIVE, Phase.FAILED) and promotion.revision is not None
    return has_ended and promotion.outcome is not Outcome.LOST


def _sync(promotion: Promotion, look: Look) -> Block:
    waiting = [each for each in look.applications if each.may_sync]
    changes = list(dict.fromkeys(name for each in waiting for name in each.to_sync))
    text = f"Argo CD syncs {_some([each.name for each in waiting])} to {(promotion.revision or '')[:8]}, after a dry run."
    if changes:
        text += f" It changes {_some(changes)}."
    return _confirmed(
        _button(promotion, Action.SYNC, "Sync now", style="primary"),
        title=f"Sync {promotion.environment}?",
        text=plain(text, 300),
        confirm="Sync",
    )


def _roll_back(target: Target, promotion: Promotion) -> Block:
    then = "Others have to approve it." if target.policy.needs_approval else "Nobody has to approve it."
    text = (
        f"This asks to bring back what {code(promotion.app, 40)} ran in *{escape(promotion.environment)}* before "
        f"{code(promotion.version, 40)}. {then}"
    )
    return _confirmed(
        _button(promotion, Action.ROLL_BACK, "Roll back"),
        title=f"Roll back {promotion.environment}?",
        text=text,
        confirm="Ask for it",
    )


def _confirmed(button: Block, *, title: str, text: str, confirm: str) -> Block:
    """The button, with a question before it does anything."""
    button["confirm"] = {
        "title": words(cut(title, 100)),
        "text": mrkdwn(text, 300),
        "confirm": words(confirm),
        "deny": words("Not yet"),
    }
    return button


def _approve(target: Target, promotion: Promotion) -> Block:
    version, environment = code(promotion.version, 40), escape(promotion.environment)
    text = f"This commits {version} for *{escape(promotion.app)}* to *{environment}*, which holds {code(promotion.old_version, 40)} now."
    if target.banner:
        text = f"{plain(target.banner, 90)}\n{text}"
    return _confirmed(
        _button(promotion, Action.APPROVE, "Approve", style="primary"),
        title=f"Promote to {promotion.environment}?",
        text=text,
        confirm="Approve",
    )


def _button(promotion: Promotion, action: Action, label: str, *, style: str | None = None) -> Block:
    button: Block = {
        "type": "button",
        "action_id": action_id(action),
        "text": words(label),
        "accessibility_label": cut(f"{label.rstrip('…')}: {promotion.title}", 75),
        # The id and the content that is shown, never facts: everything else is read from the store at the click.
        "value": f"{promotion.id} {promotion.content_hash}",
    }
    if style:
        button["style"] = style
    return button


def action_id(action: Action) -> str:
    """`promotion_ask_again`."""
    return f"promotion_{action.value.replace(' ', '_')}"


def _fallback(target: Target, promotion: Promotion, look: Look) -> str:
    """The whole story without blocks: for notifications, screen readers and old clients."""
    parts = [
        (
            f"{_title(target, promotion, look)}: {promotion.title} ({promotion.old_version} → {promotion.version}),"
            f" asked by {promotion.requested_by.name}."
        )
    ]
    if promotion.reason:
        parts.append(sentence(f"Reason: {promotion.reason}"))
    if promotion.approvals:
        parts.append(f"Approved by {', '.join(approval.by.name for approval in promotion.approvals)}.")
    if promotion.phase is Phase.REQUESTED and target.policy.needs_approval:
        parts.append(f"Expires at {utc(promotion.expires_at)}.")
    if promotion.revision:
        parts.append(f"Committed as {promotion.revision[:8]}.")
    if promotion.phase is Phase.COMMITTED:
        parts += [f"{progress.name}: {progress.says}." for progress in look.applications]
    if promotion.ending:
        # A rollout that ended badly names its application first, and a name keeps its small letter.
        names_application = promotion.outcome and promotion.phase is not Phase.LIVE
        parts.append(full_stop(promotion.ending) if names_application else sentence(promotion.ending))
    if look.recovered:
        parts.append(sentence(f"Recovered: {look.recovered}"))
    if look.waits_for and not promotion.phase.is_final:
        parts.append(sentence(look.waits_for))
    parts += _next_steps(promotion, look)
    return plain(" ".join(parts), 1500)
