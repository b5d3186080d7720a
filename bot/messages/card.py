"""The card: one message for each promotion, rendered whole from its state."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.board import Scope
from bot.core.catalog import UNKNOWN, Image, Target
from bot.core.dossier import Dossier
from bot.core.gates import span
from bot.core.keeper import typed
from bot.core.policy import ApprovalRule
from bot.core.promotion import Phase, Promotion, Way
from bot.core.rollout import Look, Progress, Stage
from bot.core.terms import gates_passed_by
from bot.messages.advice import advice
from bot.messages.buttons import action_id, buttons, first_failure
from bot.messages.evidence import changed, in_short
from bot.messages.gates import named
from bot.messages.headlines import EMOJI, HEADLINE, OUTCOMES, besides, ended, said_once
from bot.messages.mrkdwn import (
    MOST_NAMES,
    Block,
    Message,
    code,
    cut,
    escape,
    facts,
    footnote,
    full_stop,
    header,
    link,
    linked,
    listed,
    mention,
    moment,
    plain,
    proposal,
    section,
    sentence,
    some,
    utc,
)

__all__ = ["SIGNS", "WAITS", "action_id", "card", "headline", "took_from"]

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
WAITS_FOR_GATES = "Waiting to start"
WAITS_FOR_MERGE = "Waiting to be merged"


def card(target: Target, promotion: Promotion, look: Look) -> Message:
    """The promotion's message as it should stand in the channel now."""
    asked = [
        *_way(target, promotion),
        _facts(target, promotion, look),
        *_banner(target, promotion),
        *_reason(promotion),
    ]
    changes = [*_diff(promotion), *_evidence(target, promotion, look)]
    story = _story(target, promotion, look)
    blocks = [
        header(headline(target, promotion, look)),
        # What became of it stands first once that is known, and what will change before.
        *([*story, *asked] if promotion.phase.is_final else [*asked, *changes, *story]),
        *buttons(target, promotion, look),
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
    goes_back = promotion.is_rollback or (
        look.dossier and look.dossier.source and look.dossier.source.is_back
    )
    labels = ["EMERGENCY"] if promotion.is_emergency else []
    labels += ["ROLLBACK"] if goes_back else []
    return " · ".join([*labels, _word(target, promotion, look)[1]])


def _word(target: Target, promotion: Promotion, look: Look) -> tuple[str, str]:
    """Its sign, and where it stands, in a word or two."""
    if look.recovered:
        return ":white_check_mark:", "Recovered"
    if promotion.phase.is_final:
        return ended(promotion.phase, promotion.outcome)
    if promotion.phase is Phase.COMMITTED and (failure := first_failure(look)):
        return ended(
            Phase.FAILED, failure.outcome
        )  # the others are followed to their end, but this one is known
    if promotion.phase is Phase.COMMITTED and (stage := _waits(look)):
        return SIGNS[stage], WAITS[stage]
    if promotion.phase is Phase.REQUESTED and not target.policy.needs_approval:
        return EMOJI[promotion.phase], "Requested"
    if promotion.phase is Phase.APPROVED and look.held_by:
        return EMOJI[Phase.REQUESTED], WAITS_FOR_GATES
    if promotion.phase is Phase.APPROVED and promotion.pull_request:
        return EMOJI[Phase.REQUESTED], WAITS_FOR_MERGE
    return EMOJI[promotion.phase], HEADLINE[promotion.phase]


def _waits(look: Look) -> Stage | None:
    """What a rollout waits for in which nothing moves by itself; what somebody can do goes first."""
    stages = {progress.stage for progress in look.applications if not progress.stage.is_end}
    return next((stage for stage in WAITS if stage in stages), None) if stages <= WAITS.keys() else None


def _facts(target: Target, promotion: Promotion, look: Look) -> Block:
    """What is asked; once it has ended, in one line."""
    versions = f"{code(promotion.old_version)} → {code(promotion.version)}"
    way = _from_to(promotion)
    requester = mention(promotion.requested_by.id)
    if promotion.build:
        requester += f", {link(promotion.build, 'its build')}"
    if promotion.phase.is_final:
        parts = [versions, way]
        if promotion.pull_request:
            parts.append(proposal(promotion.pull_request))
        if promotion.revision:
            parts.append(f"committed as {_commit(target, promotion)}")
        parts.append(f"asked by {requester}")
        if promotion.approvals:
            parts.append(
                f"approved by {', '.join(mention(approval.by.id) for approval in promotion.approvals)}"
            )
        return section("  •  ".join(parts))
    fields = [f"*Version*\n{versions}", f"*Environment*\n{way}", f"*Asked by*\n{requester}"]
    if image := _image(target, promotion, look.dossier):
        fields.append(image)
    if target.policy.needs_approval:
        fields.append(f"*Approvals*\n{_approvals(target, promotion)}")
        if promotion.phase is Phase.REQUESTED:
            fields += [
                f"*May approve*\n{_may_approve(target, promotion)}",
                f"*Expires*\n{moment(promotion.expires_at)}",
            ]
    told = target.policy.notify
    if told and promotion.phase.holds:
        fields.append(f"*Also told*\n{some([mention(id) for id in sorted(told.users | told.groups)])}")
    return facts(*fields)


def _image(target: Target, promotion: Promotion, dossier: Dossier | None) -> str:
    """Which build it is, and how that is known."""
    build = Image(version=promotion.version, digest=promotion.digest)
    if build.has_digest:
        proof = f"\nas {plain(dossier.proof)} has it" if dossier and dossier.proof else ""
        return f"*Digest*\n{code(build.short_digest)}{proof}"
    return "*Image*\nsame tag; image not proved" if target.is_tag_only else ""


def _way(target: Target, promotion: Promotion) -> list[Block]:
    """What was left out on its way to the commit, and what somebody has to do about that."""
    if promotion.is_emergency:
        passed = named(gates_passed_by(promotion, target)) or "nothing"
        lines = [
            f":rotating_light: *{plain(promotion.incident or 'Emergency')}*: an emergency, without {passed}."
        ]
        return [section("\n".join([*lines, *_review(promotion)]))]
    if promotion.way is Way.AT_ONCE:
        where, needs = escape(promotion.environment), "Needed" if promotion.phase.is_final else "Needs"
        return [
            section(
                f":rewind: {needs} no approval: it brings back what was live in *{where}* directly before."
            )
        ]
    return []


def _review(promotion: Promotion) -> list[str]:
    if promotion.reviewed_by:
        return [f":mag: Reviewed by {mention(promotion.reviewed_by)}"]
    if promotion.needs_review:
        return ["Somebody else has to look at it: press *Review*."]
    return []


def _from_to(promotion: Promotion) -> str:
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
    return f"{rule.minimum} of {some(names)}"


def _banner(target: Target, promotion: Promotion) -> list[Block]:
    """A warning for those who decide; nobody can heed it later."""
    if target.banner and promotion.phase is Phase.REQUESTED:
        return [section(f":rotating_light: *{plain(target.banner)}*")]
    return []


def _reason(promotion: Promotion) -> list[Block]:
    return [section(f"> {plain(promotion.reason, 500)}")] if promotion.reason else []


def _diff(promotion: Promotion) -> list[Block]:
    return _paragraphs(changed(promotion.changes))


def _evidence(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    """What it brings, for those who decide; later the thread has it."""
    if look.dossier is None or not promotion.phase.holds:
        return []
    return _paragraphs(*in_short(target, promotion, look.dossier))


def _story(target: Target, promotion: Promotion, look: Look) -> list[Block]:
    """How far it is, one line a step; the words come from the systems themselves."""
    if promotion.phase.is_final:
        steps = [f":arrow_right: {escape(step)}" for step in _next_steps(promotion, look)]
        ends = [*_recovered(look), *_ending(target, promotion, look), *_locked(target, promotion)]
        return _paragraphs([*ends, *_proposed(promotion)], steps)
    lines = [*_waits_for_gates(target, promotion, look), *_proposed(promotion)]
    if promotion.revision:
        lines.append(f":white_check_mark: {_written(target, promotion)}")
    if promotion.phase is Phase.COMMITTED:
        lines += [_rollout_line(target, progress) for progress in look.applications] or [
            ":hourglass_flowing_sand: asking Argo CD to look"
        ]
    if look.waits_for:
        lines.append(f":electric_plug: {plain(look.waits_for)}")
    return _paragraphs([*lines, *_locked(target, promotion)])


def _written(target: Target, promotion: Promotion) -> str:
    """What the bot did to the repository."""
    release, commit = target.release, _commit(target, promotion)
    if release and release.tag:
        return f"*Tagged* {code((promotion.brings or '')[:8])} as {code(release.tag_of(promotion.version))}"
    if release:
        return f"*Moved* {code(target.repository.branch)} forward to {commit}"
    return f"*Committed* {commit} to {code(target.repository.branch)}"


def _proposed(promotion: Promotion) -> list[str]:
    """The pull request that somebody has to merge, where the host does not let the bot; then what else came with it."""
    if more := besides(promotion):
        return [more]
    if promotion.phase is not Phase.APPROVED or promotion.pull_request is None:
        return []
    return [f":twisted_rightwards_arrows: Waits for {proposal(promotion.pull_request)} to be merged"]


def _waits_for_gates(target: Target, promotion: Promotion, look: Look) -> list[str]:
    """That it starts by itself, and what it waits for as soon as that is known."""
    if promotion.phase is Phase.APPROVED and look.held_by:
        return [f":hourglass_flowing_sand: {plain(look.held_by, 900)}"]
    if promotion.phase is Phase.REQUESTED and promotion.waits:
        within = span(target.policy.waits)
        return [
            f":hourglass_flowing_sand: Once approved, it waits for its gates up to {within} and starts by itself."
        ]
    return []


def _locked(target: Target, promotion: Promotion) -> list[str]:
    """What was rolled back stays so until somebody says otherwise."""
    rule = target.policy.rollback
    if not promotion.is_rollback or promotion.revision is None or rule is None or not rule.locks:
        return []
    scope = typed(Scope(app=promotion.app, environment=promotion.environment))
    return [
        f":lock: This rollback locked *{escape(target.name)}*. To unlock it: {code(f'/promote unlock {scope}')}"
    ]


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
    if promotion.phase is Phase.STALE:
        return ["Press Ask again: the new card shows what would go now."]
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
        names = some([link(each.link, escape(target.called(each))) for each in target.applications])
        took = took_from(promotion)
        says = "*Live* in"
        if promotion.source == "ci":
            says = f"{code(promotion.version)} is live in *{escape(promotion.environment)}*:"
        return [f"{EMOJI[promotion.phase]} {says} {names}{f' after {took}' if took else ''}: {why}"]
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


def _fallback(target: Target, promotion: Promotion, look: Look) -> str:
    """The whole story without blocks: for notifications, screen readers and old clients."""
    parts = [*_asked_in_words(target, promotion, look), *_story_in_words(promotion, look)]
    return plain(" ".join([*parts, *_next_steps(promotion, look)]), 1500)


def _asked_in_words(target: Target, promotion: Promotion, look: Look) -> list[str]:
    title = f"{_title(target, promotion, look)}: {promotion.title}"
    versions = f"({promotion.old_version} → {promotion.version})"
    parts = [f"{title} {versions}, asked by {promotion.requested_by.name}."]
    if promotion.incident:
        parts.append(sentence(f"Incident: {promotion.incident}"))
    if promotion.reason:
        parts.append(sentence(f"Reason: {promotion.reason}"))
    if promotion.approvals:
        parts.append(f"Approved by {', '.join(approval.by.name for approval in promotion.approvals)}.")
    if promotion.phase is Phase.REQUESTED and target.policy.needs_approval:
        parts.append(f"Expires at {utc(promotion.expires_at)}.")
    return parts


def _story_in_words(promotion: Promotion, look: Look) -> list[str]:
    parts = [f"Committed as {promotion.revision[:8]}."] if promotion.revision else []
    if promotion.besides:
        parts.append(f"More was merged than was approved here: {promotion.besides}.")
    elif promotion.besides is not None:
        parts.append("Nobody could see whether more was merged than was approved here.")
    if promotion.phase is Phase.COMMITTED:
        parts += [f"{progress.name}: {progress.says}." for progress in look.applications]
    if promotion.ending:
        # A rollout that ended badly names its application first, and a name keeps its small letter.
        names_application = promotion.outcome and promotion.phase is not Phase.LIVE
        parts.append(full_stop(promotion.ending) if names_application else sentence(promotion.ending))
    if look.recovered:
        parts.append(sentence(f"Recovered: {look.recovered}"))
    if look.held_by and promotion.phase is Phase.APPROVED:
        parts.append(sentence(look.held_by))
    if look.waits_for and not promotion.phase.is_final:
        parts.append(sentence(look.waits_for))
    return parts
