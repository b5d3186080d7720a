"""What people see: every message has its golden file, fits into Slack, and lets nothing from outside act."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    AMY,
    APPROVERS,
    DANA,
    ID,
    MINUTE,
    NOON,
    PROD,
    approval,
    in_phase,
    requested,
    same_as_golden,
    target,
)
from endings import ENDINGS, WAITING
from evidence import BACK, DRAFTS, EVERYTHING, FULL, HELD, SHOWN, STRICT, found
from hypothesis import example, given
from hypothesis import strategies as st

from bot.core.cases import LONGEST_REASON, checked_reason
from bot.core.catalog import Application, Target
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.errors import Failed, PromoteError, Refused, TargetBusy, Unavailable
from bot.core.outcome import Outcome
from bot.core.people import Action
from bot.core.policy import ApprovalRule, Policy
from bot.core.ports import Card
from bot.core.promoter import Place
from bot.core.promotion import Event, LineChange, Phase, Promotion, Signer, Way
from bot.core.rollout import ApplicationFacts, Look, Pod, Progress, ResourceResult, Stage, Workloads
from bot.messages import answers, modals
from bot.messages.advice import blamed
from bot.messages.card import action_id, card, headline
from bot.messages.evidence import in_full
from bot.messages.gates import START, TELL_ME, closed
from bot.messages.headlines import EMOJI, HEADLINE
from bot.messages.mrkdwn import (
    Message,
    code,
    cut,
    escape,
    fenced,
    link,
    listed,
    mention,
    plain,
    without_hidden,
)
from bot.messages.thread import recovery, story
from bot.playground.slack import blocks as block_kit
from handlers.buttons import meant

PLACE = Card(channel="C0DEPLOYS", ts="1.0", link="https://acme.example.com/archives/C0DEPLOYS/p1")
EMPTY = Look()
NO_APPROVAL = target("prod", policy=Policy(), banner=None)
GROUP = ApprovalRule(users=frozenset(), groups=frozenset({"S0OWNERS"}), minimum=1)


def progress(stage: Stage, says: str, **changes: Any) -> Progress:
    """One application of prod, as it was seen last."""
    return Progress(name="manual-app-prod", stage=stage, since=NOON, says=says, **changes)


ROLLING = Look(
    applications=(progress(Stage.ROLLING_OUT, "synced, pods rolling out", pods="1 of 3 pods ready"),)
)
DEGRADED = Look(
    applications=(
        progress(
            Stage.DEGRADED,
            "degraded: Deployment/manual-app: exceeded its progress deadline",
            pods="2 of 3 pods ready, CrashLoopBackOff",
        ),
    ),
)
AWAY = Look(
    applications=(progress(Stage.UNREACHABLE, "Argo CD is not available: timed out; the commit is pushed"),),
    waits_for="Argo CD is not available: timed out; trying again",
)
ONE_YES = requested().approve(approval(requested(), AMY))

CARDS: dict[str, tuple[Target, Promotion, Look]] = {
    **{phase.value: (PROD, in_phase(phase), EMPTY) for phase in Phase},
    "requested, one of two": (PROD, ONE_YES, EMPTY),
    "requested by group": (
        target("prod", policy=Policy(rules=(APPROVERS, GROUP), total=2)),
        requested(),
        EMPTY,
    ),
    "requested, no approval needed": (NO_APPROVAL, requested(NO_APPROVAL, reason=None), EMPTY),
    "requested, Slack away": (
        PROD,
        requested(),
        Look(waits_for="Slack is not available: it asks for a pause; trying again"),
    ),
    "from CI": (target("dev"), replace(requested(target("dev")), source="ci"), EMPTY),
    "two keys": (
        PROD,
        requested(
            changes=(
                LineChange(path="values-prod.yaml", number=3, before="  tag: 14", after="  tag: 15"),
                LineChange(path="values-prod.yaml", number=9, before="  tag: 14", after="  tag: 15"),
            )
        ),
        EMPTY,
    ),
    "requested, digest known": (PROD, requested(digest="sha256:" + "0123456789abcdef" * 4), EMPTY),
    "committed, rolling out": (PROD, in_phase(Phase.COMMITTED), ROLLING),
    "committed, degraded": (PROD, in_phase(Phase.COMMITTED), DEGRADED),
    "committed, Argo CD away": (PROD, in_phase(Phase.COMMITTED), AWAY),
    "approved, its pull request open": (
        PROD,
        in_phase(Phase.APPROVED)
        .propose(
            at=NOON + 3 * MINUTE,
            branch="promote/P-7Q4ZC2M9KD",
            base="b" * 40,
            approvals=in_phase(Phase.APPROVED).approvals,
        )
        .open_pull_request(at=NOON + 3 * MINUTE, url="https://github.com/acme/gitops/pull/12", proposed=""),
        EMPTY,
    ),
    "committed, more was merged than approved": (
        PROD,
        replace(
            in_phase(Phase.COMMITTED),
            pull_request="https://github.com/acme/gitops/pull/12",
            besides="chart/templates/deployment.yaml, values-prod.yaml",
        ),
        ROLLING,
    ),
    "failed before the commit": (
        PROD,
        in_phase(Phase.APPROVED).fail(
            at=NOON + 3 * MINUTE, why="the git host refused the push: protected branch"
        ),
        EMPTY,
    ),
    **WAITING,
    **ENDINGS,
    **SHOWN,
}

EVENTS = tuple(
    Event(edition=number, at=NOON, what=what, phase=phase, by=by, why=why)
    for number, (what, phase, by, why) in enumerate(
        [
            ("requested", Phase.REQUESTED, DANA.id, "fixes INC-42"),
            ("approval", Phase.REQUESTED, AMY.id, None),
            ("withdrawal", Phase.REQUESTED, AMY.id, None),
            ("approved", Phase.APPROVED, None, None),
            ("quorum lost", Phase.REQUESTED, None, "an approver may not approve any more"),
            ("committing", Phase.COMMITTING, None, None),
            ("not written", Phase.APPROVED, None, None),
            ("committed", Phase.COMMITTED, None, "c" * 40),
            ("sync", Phase.COMMITTED, AMY.id, None),
            ("live", Phase.LIVE, None, "synced and healthy, every pod runs it"),
            ("failed", Phase.FAILED, None, "the git host refused the push: protected branch"),
            ("rejected", Phase.REJECTED, AMY.id, "freeze until Monday"),
            ("expired", Phase.EXPIRED, None, "1 of 2 approvals when the time was up"),
            ("cancelled", Phase.CANCELLED, DANA.id, None),
            ("superseded", Phase.SUPERSEDED, None, "P-0000000000 brought 16"),
            ("stale", Phase.STALE, None, "prod went from 14 to 16 after it was asked for"),
            ("something of a newer bot", Phase.REQUESTED, None, "why *not*"),
        ],
        start=1,
    )
)


def facts(**changes: Any) -> ApplicationFacts:
    """`manual-app-prod` as Argo CD shows it: synced, healthy, running 14."""
    image = "images.example.com/acme/manual-app:14"
    pod = Pod(name="manual-app-1", images=(image,), is_ready=True, is_terminating=False)
    plain_facts = ApplicationFacts(
        name="manual-app-prod",
        revision="c" * 40,
        tracks=None,
        compares_spec=True,
        is_operating=False,
        operation=None,
        sync="Synced",
        health="Healthy",
        reconciled_at=NOON,
        automated=True,
        workloads=Workloads(rendered_images=frozenset({image}), pods=(pod,)),
    )
    return replace(plain_facts, **changes)


def place(fact: ApplicationFacts | str, *, version: str = "14", current: Promotion | None = None) -> Place:
    """Prod as `/promote status` finds it."""
    return Place(target=PROD, version=version, applications=(fact,), current=current)


ANSWERS: dict[str, Callable[[], str]] = {
    "help": lambda: answers.HELP,
    "refused": lambda: answers.refusal(
        Refused("I know no app called “manual-ap”. Did you mean “manual-app”?")
    ),
    "busy": lambda: answers.refusal(
        TargetBusy(f"manual-app in prod is held by {ID}.", holder=ID, link=PLACE.link)
    ),
    "unavailable": lambda: answers.refusal(Unavailable("the store", "it does not answer")),
    "maybe done": lambda: answers.refusal(Unavailable("the store", "the answer was lost", maybe_done=True)),
    "failed": lambda: answers.refusal(Failed("values-prod.yaml has no key image.tag")),
    "broken": lambda: answers.broken("4f2a"),
    "asked": lambda: answers.asked(requested(), "C0DEPLOYS"),
    **{f"done, {phase}": lambda phase=phase: answers.done(in_phase(phase)) for phase in Phase},  # type: ignore[misc]
    "pending, none": lambda: answers.pending([]),
    "pending": lambda: answers.pending([(requested(), PLACE), (ONE_YES, Card())]),
    "show": lambda: answers.show(in_phase(Phase.LIVE), PLACE, EVENTS[:4]),
    "status": lambda: answers.status(
        [
            place(facts()),
            place(facts(health="Degraded"), version="15", current=in_phase(Phase.COMMITTED)),
            place("Argo CD is not available: timed out"),
        ]
    ),
    "status, no app": lambda: answers.status([]),
}


def as_json(message: Message) -> str:
    """A message as it is sent, for a golden file."""
    return json.dumps({"text": message.text, "blocks": message.blocks}, indent=2, ensure_ascii=False) + "\n"


def texts(value: object) -> Iterator[str]:
    """Every text in a payload that Slack would render, but for ids and values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in (
                "type",
                "block_id",
                "action_id",
                "value",
                "callback_id",
                "private_metadata",
                "style",
            ):
                yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


OURS = re.compile(
    r"<@U0\w+>|<!subteam\^S0\w+>|<#C0\w+>|<!date\^\d+\^\{date_short_pretty\} \{time\}\|[\w:, ]+>"
    r"|<https://(?:acme|git|argocd)\.example\.com/[^\s<>|]*\|"
)
"""Every form of `<…>` that we write ourselves; the label of a link ends with the next `>`."""


def assert_harmless(text: str) -> None:
    """No mention, link or entity that is not our own, and each of ours is whole."""
    left = OURS.sub(lambda found: "" if found[0].endswith(">") else "⟨", text)
    assert "<" not in left, f"markup from outside: {left!r}"
    assert left.count(">") - len(re.findall(r"^> ", left, re.MULTILINE)) == left.count("⟨"), left
    assert not re.search(r"&(?!(amp|lt|gt);)", text.removesuffix("…")), f"half an entity: {text!r}"


def buttons(message: Message) -> list[dict[str, Any]]:
    """Every button of a card."""
    return [each for block in message.blocks if block["type"] == "actions" for each in block["elements"]]


@pytest.mark.parametrize("name", CARDS)
def test_the_card_looks_as_it_was_agreed(name: str) -> None:
    """The whole message of each phase, and of each special case, is under review as a golden file."""
    same_as_golden(f"card_{re.sub(r'[^a-z]+', '_', name.lower())}.json", as_json(card(*CARDS[name])))


def test_the_thread_tells_the_story_as_it_was_agreed() -> None:
    """One line for each kind of event, in people's words."""
    promotion = replace(in_phase(Phase.LIVE), outcome=None)
    lines = [story(promotion, EVENTS), recovery("synced and healthy, every pod runs it")]
    same_as_golden("thread.txt", "\n".join(lines) + "\n")


MODALS = {
    "reject": modals.reject(requested()),
    "emergency": modals.emergency(STRICT, "15", incident="INC-42", reason="checkout is down"),
    "done": modals.done("Emergency recorded", answers.asked(requested(), "C0DEPLOYS")),
}


@pytest.mark.parametrize("name", MODALS)
def test_the_modal_looks_as_it_was_agreed(name: str) -> None:
    """Reject asks for a reason, an emergency for what burns and the app's name; each says about what."""
    text = json.dumps(MODALS[name], indent=2, ensure_ascii=False) + "\n"
    same_as_golden(f"modal_{name}.json", text)


@pytest.mark.parametrize("name", DRAFTS)
def test_closed_gates_look_as_it_was_agreed(name: str) -> None:
    """The private answer to who asked too early: every gate, and what may be pressed."""
    same_as_golden(f"gates_{name.replace(' ', '_')}.json", as_json(closed(DRAFTS[name])))


def test_the_thread_begins_with_what_the_card_has_no_room_for() -> None:
    """With the request comes the whole list, once; where the card shows everything there is none."""
    events = [EVENTS[0], EVENTS[1]]
    same_as_golden("thread_evidence.txt", story(requested(), events, FULL) + "\n")
    assert story(requested(), events, BACK) == story(requested(), events)
    assert story(requested(), EVENTS[1:], FULL) == story(requested(), EVENTS[1:])


def test_the_answers_read_as_it_was_agreed() -> None:
    """Every private answer stands in one golden file, under the name of its occasion."""
    parts = [f"## {name}\n{answer()}\n" for name, answer in ANSWERS.items()]
    same_as_golden("answers.txt", "\n".join(parts))


@pytest.mark.parametrize("name", CARDS)
def test_slack_accepts_every_card(name: str) -> None:
    """Each card keeps Slack's limits, has a text beside its blocks, and block ids of its own edition."""
    where, promotion, look = CARDS[name]
    message = card(where, promotion, look)
    assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
    assert message.text.strip()
    assert all(f"{promotion.id}:{promotion.edition}:" in block["block_id"] for block in message.blocks)


@pytest.mark.parametrize("name", MODALS)
def test_slack_accepts_the_modal(name: str) -> None:
    """Each modal keeps Slack's limits, and knows what it is about by names alone."""
    view = MODALS[name]
    assert block_kit.view_problems(view, home=False) == []
    known = {"reject": ID, "emergency": "manual-app prod 15"}
    assert view.get("private_metadata") == known.get(name)


@pytest.mark.parametrize("name", DRAFTS)
def test_slack_accepts_the_answer_of_the_gates(name: str) -> None:
    """It keeps Slack's limits, has a text beside its blocks, and its buttons hold names, and nothing that was found."""
    message = closed(DRAFTS[name])
    assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
    for answer in DRAFTS[name].answers.each:
        assert plain(answer.says) in message.text
    assert {button["value"] for button in buttons(message)} == {"manual-app prod 15"}


@given(reason=st.text(max_size=600).map(checked_reason))
@example(reason="\U0001f680" * LONGEST_REASON)
def test_a_reason_comes_back_from_the_button_that_starts(reason: str | None) -> None:
    """Whatever was typed, it fits beside the longest names, however Slack counts characters, and comes back whole."""
    draft = DRAFTS["may open"]
    longest = replace(draft.target, app="a" * 40, environment="e" * 40)
    image = replace(draft.image, version="v" * 128)
    start, tell_me = buttons(closed(replace(draft, target=longest, image=image), reason=reason))
    assert len(start["value"].encode("utf-16-le")) // 2 <= 2000
    wish = meant({"user": {"id": DANA.id}, "actions": [start]})
    assert (wish.app, wish.environment, wish.version) == (longest.app, longest.environment, image.version)
    assert wish.reason == reason
    assert tell_me["value"] == f"{longest.app} {longest.environment} {image.version}"


def test_only_what_can_open_can_be_waited_for() -> None:
    """Another build, or a version out of order, never passes: nobody is offered to start it when it does."""
    offered = {
        name: [button["action_id"] for button in buttons(closed(draft))] for name, draft in DRAFTS.items()
    }
    assert offered == {"may open": [START, TELL_ME], "never for this build": [TELL_ME]}
    assert buttons(closed(DRAFTS["may open"], may_wait=False)) == []


def test_what_stands_in_the_way_stands_first() -> None:
    """On a phone the reason is seen without scrolling, with when it opens; all gates are there."""
    lines = closed(DRAFTS["may open"]).text.splitlines()[1:]
    signs = [line.split()[0] for line in lines]
    ahead, waits, unknown, passed = (
        ":no_entry:",
        ":hourglass_flowing_sand:",
        ":grey_question:",
        ":white_check_mark:",
    )
    assert signs == [ahead, waits, waits, unknown, *[passed] * 4]
    assert len(lines) == len(DRAFTS["may open"].answers.each)
    assert "(opens <!date^" in lines[1]


@pytest.mark.parametrize("phase", Phase)
def test_an_emergency_says_so_until_the_end_and_after_it(phase: Phase) -> None:
    """In every headline, with the incident and what it goes without; it can be reviewed once it is committed."""
    promotion = in_phase(phase, STRICT, way=Way.EMERGENCY, incident="INC-42")
    message = card(STRICT, promotion, EMPTY)
    assert headline(STRICT, promotion, EMPTY).partition(" ")[2].startswith("EMERGENCY · ")
    assert "*INC-42*: an emergency, without soak time, windows, approvals." in "\n".join(
        texts(message.blocks)
    )
    may_be_reviewed = action_id(Action.REVIEW) in [each["action_id"] for each in buttons(message)]
    assert may_be_reviewed is (promotion.revision is not None)
    reviewed = replace(promotion, reviewed_by=AMY.id)
    assert action_id(Action.REVIEW) not in [
        each["action_id"] for each in buttons(card(STRICT, reviewed, EMPTY))
    ]


def test_what_it_brings_stands_on_the_card_while_it_can_be_stopped() -> None:
    """Who decides sees commits, proof and what comes along; after the commit the card is about the rollout."""
    for phase in Phase:
        shown = as_json(card(STRICT, in_phase(phase, STRICT), found(FULL)))
        assert ("7 commits" in shown) is phase.holds
        assert ("@S0SUPPORT" in shown.replace("!subteam^", "@")) is phase.holds


def test_the_card_stays_short() -> None:
    """Everything that is known of it takes at most a dozen lines more than nothing does, on a wide screen."""
    target_, promotion, look = EVERYTHING
    bare = card(target_, replace(promotion, waits=None), EMPTY)
    lines = [
        len("\n".join(texts(message.blocks)).splitlines())
        for message in (card(target_, promotion, look), bare)
    ]
    assert lines[0] - lines[1] <= 12


def test_what_is_live_already_is_no_part_of_what_is_approved() -> None:
    """Where an approval does not count for other commits, they stand there with a warning."""
    bound, loose = (
        "\n".join(texts(card(*SHOWN[name]).blocks))
        for name in ("requested, with everything", "requested, with what is live already")
    )
    assert "\n*Also goes live with it*: 2 commits" in bound
    assert ":warning: *Beside it* 2 commits" in loose
    assert "live already, or live with any sync, approved or not" in loose


def test_who_goes_back_is_told_so() -> None:
    """A version whose commits are the older ones is a rollback, however it was asked for."""
    assert headline(PROD, requested(), found(BACK)).startswith(":hourglass_flowing_sand: ROLLBACK · ")
    assert headline(PROD, requested(), found(FULL)) == headline(PROD, requested(), EMPTY)


def test_an_approved_promotion_that_waits_can_be_cancelled() -> None:
    """As long as its gates are closed, and its commit was never begun."""
    waiting = in_phase(Phase.APPROVED, STRICT, waits=True)
    begun = replace(waiting, base="b" * 40)
    found_ = [
        [each["action_id"] for each in buttons(card(STRICT, promotion, look))]
        for promotion, look in ((waiting, HELD), (waiting, EMPTY), (begun, HELD))
    ]
    assert found_ == [[action_id(Action.CANCEL)], [], []]


@pytest.mark.parametrize("outcome", Outcome)
def test_a_version_is_blamed_where_it_may_be_at_fault(outcome: Outcome) -> None:
    """Its pods or its manifests failed; a window, a token or a name in promote.yaml are not its fault."""
    failed = replace(in_phase(Phase.FAILED), outcome=outcome, ending="it broke")
    may_be = outcome in (Outcome.DEGRADED, Outcome.SYNC_FAILED, Outcome.TIMED_OUT)
    assert blamed(failed) == (("15", "failed: it broke") if may_be else None)
    labels = [each["text"]["text"] for each in buttons(card(PROD, failed, EMPTY))]
    assert ("Mark 15 bad" in labels) is may_be
    recovered = [each["text"]["text"] for each in buttons(card(PROD, failed, Look(recovered="it runs")))]
    assert "Mark 15 bad" not in recovered


def test_a_rollback_blames_what_it_took_away() -> None:
    """Once it is committed and over; what was called off, or lost, says nothing about a version."""
    back = {"version": "14", "old_version": "15", "rollback_of": "P-0000000000"}
    assert blamed(in_phase(Phase.LIVE, **back)) == ("15", f"rolled back by {ID}")
    for phase in (Phase.REQUESTED, Phase.COMMITTED, Phase.CANCELLED, Phase.STALE):
        assert blamed(in_phase(phase, **back)) is None
    assert blamed(replace(in_phase(Phase.LIVE, **back), outcome=Outcome.LOST)) is None


@pytest.mark.parametrize("name", CARDS)
def test_the_text_alone_says_where_it_stands(name: str) -> None:
    """Old clients, screen readers and phones show `text` only: app, versions, environment, people and phase."""
    where, promotion, look = CARDS[name]
    text = card(where, promotion, look).text
    first = headline(where, promotion, look).partition(": manual-app")[0].partition(": ")[2]
    versions = f"({promotion.old_version} → {promotion.version})"
    assert text.startswith(f"{first}: {promotion.title} {versions}, asked by Dana.")
    for part in (
        promotion.reason,
        promotion.ending,
        look.waits_for,
        *(each.by.name for each in promotion.approvals),
    ):
        assert not part or part.lower() in text.lower()
    assert not re.search(r"<@|<!|`|:\w+:", text), "no markup in a text that nobody formats"


@pytest.mark.parametrize("phase", Phase)
def test_the_state_is_a_word_beside_the_emoji(phase: Phase) -> None:
    """Nobody needs to see colours or pictures: the header begins with an emoji and says the phase in words."""
    assert headline(PROD, in_phase(phase), EMPTY) == f"{EMOJI[phase]} {HEADLINE[phase]}: manual-app 15 → prod"
    assert len(set(EMOJI.values())) == len(set(HEADLINE.values())) == len(Phase)


@pytest.mark.parametrize("stage", Stage)
def test_each_line_of_a_rollout_has_words(stage: Stage) -> None:
    """A rollout's emoji is never alone either: the application and Argo CD's words stand beside it."""
    look = Look(applications=(progress(stage, "says something"),))
    shown = "\n".join(texts(card(PROD, in_phase(Phase.COMMITTED), look).blocks))
    assert re.search(r":\w+: <https://argocd[^>]*\|manual-app-prod>: says something", shown)


def test_what_failed_before_its_commit_can_be_asked_for_again() -> None:
    """After the commit the file holds the version already, so that asking again would be refused."""
    failed = replace(in_phase(Phase.FAILED), revision=None)
    found = [button["action_id"] for button in buttons(card(PROD, failed, EMPTY))]
    assert found == [action_id(Action.ASK_AGAIN)]


@pytest.mark.parametrize("phase", Phase)
def test_buttons_vanish_once_it_is_decided(phase: Phase) -> None:
    """Only an open request can be decided; afterwards there is at most “Ask again”, or “Roll back” after a commit."""
    found = [button["action_id"] for button in buttons(card(PROD, in_phase(phase), EMPTY))]
    if phase is Phase.REQUESTED:
        assert found == [action_id(each) for each in (Action.APPROVE, Action.REJECT, Action.CANCEL)]
    elif phase in (Phase.REJECTED, Phase.EXPIRED, Phase.CANCELLED, Phase.STALE):
        assert found == [action_id(Action.ASK_AGAIN)]
    elif phase in (Phase.LIVE, Phase.FAILED):
        assert found == [action_id(Action.ROLL_BACK)]
    else:
        assert found == []


def test_without_a_policy_there_is_nothing_to_press() -> None:
    """Where no approval is needed nobody is asked for one."""
    message = card(NO_APPROVAL, requested(NO_APPROVAL), EMPTY)
    assert buttons(message) == []
    assert "Approval" not in as_json(message)


@pytest.mark.parametrize("name", CARDS)
def test_a_button_holds_the_id_and_the_content_alone(name: str) -> None:
    """Facts in a button could be forged or old: the click is looked up by id, and bound to what was shown."""
    where, promotion, look = CARDS[name]
    for button in buttons(card(where, promotion, look)):
        assert button["value"] == f"{promotion.id} {promotion.content_hash}"
        assert promotion.title in button["accessibility_label"]


def test_approve_asks_once_more_and_repeats_what_it_does() -> None:
    """Slack's confirm dialog names version, app, environment, the old version and the banner."""
    approve = buttons(card(PROD, requested(), EMPTY))[0]
    text = approve["confirm"]["text"]["text"]
    for part in ("`15`", "manual-app", "prod", "`14`", "Real users. Look twice."):
        assert part in text
    assert approve["confirm"]["title"]["text"] == "Promote to prod?"


def test_a_group_is_mentioned_as_a_group() -> None:
    """User groups and people have different mentions; the wrong one shows as an empty name."""
    shown = "\n".join(texts(card(*CARDS["requested by group"]).blocks))
    assert "\n<!subteam^S0OWNERS>" in shown
    assert "\n<@U0AMY> or <@U0BEN>\n" in shown


def test_the_banner_stands_only_while_it_can_help() -> None:
    """“Look twice” is for those who decide; later nobody can heed it."""
    for phase in Phase:
        shown = as_json(card(PROD, in_phase(phase), EMPTY))
        assert ("Look twice" in shown) is (phase is Phase.REQUESTED)


def test_the_cards_are_told_apart_in_every_edition() -> None:
    """Slack keeps what was typed or pressed in a block of the same id, so each edition has new ids."""
    first = {block["block_id"] for block in card(PROD, requested(), EMPTY).blocks}
    second = {block["block_id"] for block in card(PROD, ONE_YES, EMPTY).blocks}
    assert not first & second


@pytest.mark.parametrize("name", CARDS)
def test_slack_changes_nothing_in_our_texts(name: str) -> None:
    """`verbatim` keeps Slack from linking or mentioning what only looks like an address, a channel or a name."""

    def formatted(value: object) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if value.get("type") == "mrkdwn":
                yield value
            for inner in value.values():
                yield from formatted(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from formatted(inner)

    found = list(formatted(card(*CARDS[name]).blocks))
    assert found
    assert all(each.get("verbatim") is True for each in found)


PINGS = [
    "<!channel>",
    "<!here> look",
    "<@U0CEO> said yes",
    "<!subteam^S0SRE>",
    "<https://evil.example.com|Approve>",
    "<mailto:a@example.com|mail>",
    "<#C0OTHER>",
    "&lt;!channel&gt;",
    "<!date^0^{date}|x>",
    "`<!channel>`",
    "```\n<!channel>\n```",
    "*bold* _it_ ~no~ `code`",
    "> quoted\n> twice",
    "|<>&" * 200,
    "&" * 5000,
    "*" * 5000,
    "\u202etxet\u202c \u200b\x00\x1b",
    "",
]
outside = st.one_of(
    st.sampled_from(PINGS),
    st.text(max_size=100),
    st.lists(
        st.sampled_from(["<", ">", "&", "`", "```", "*", "|", "!channel", "@U0CEO", "\n", " ", "x"]),
        max_size=20,
    ).map("".join),
)


@given(
    st.sampled_from(Phase),
    st.sampled_from(Stage),
    st.none() | st.sampled_from(Outcome),
    outside,
    outside,
    outside,
    outside,
)
@example(Phase.FAILED, Stage.FAILED, Outcome.DEGRADED, *["&" * 5000] * 4)
@example(Phase.COMMITTED, Stage.UNSYNCED, None, *["<" * 5000] * 4)
@example(
    Phase.COMMITTED,
    Stage.SYNCING,
    None,
    "<!channel>",
    "<@U0CEO>",
    "<!here>",
    "<https://evil.example.com|Approve>",
)
def test_nothing_from_outside_acts_in_a_card(
    phase: Phase, stage: Stage, outcome: Outcome | None, reason: str, name: str, says: str, line: str
) -> None:
    """Reasons, names, values files and Argo CD's words cannot ping, link, or break the card's form."""
    change = LineChange(path="values-prod.yaml", number=3, before=line, after=line)
    promotion = in_phase(phase, reason=reason, requested_by=replace(DANA, name=name), changes=(change,))
    ending = says if promotion.ending else None
    promotion = replace(promotion, old_version=line or "14", ending=ending, outcome=outcome)
    look = Look(
        applications=(
            progress(stage, says, pods=says, outcome=outcome, may_sync=True, to_sync=(line, name) * 9),
        ),
        waits_for=says,
        recovered=line,
    )
    message = card(replace(PROD, banner=says or None), promotion, look)
    assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
    for text in texts([block for block in message.blocks if block["type"] != "header"]):
        assert_harmless(text)
    assert_harmless(message.text)
    assert message.text.strip()


@given(outside, outside)
def test_nothing_from_outside_acts_in_an_answer(says: str, version: str) -> None:
    """Errors of other systems, stories and versions of values files are shown as words and nothing else."""
    promotion = requested(reason=says, old_version=version, requested_by=replace(DANA, name=says))
    events = [replace(event, why=says) for event in EVENTS]
    errors: list[PromoteError] = [Refused(says), Unavailable("Argo CD", says), Failed(says)]
    unhealthy = facts(health="Degraded", unhealthy=(ResourceResult(name=says, status=says, message=says),))
    for text in [
        *(answers.refusal(error) for error in errors),
        answers.show(promotion, PLACE, events),
        answers.pending([(promotion, PLACE)]),
        answers.status([place(says, version=version), place(unhealthy)]),
        answers.done(promotion),
        story(promotion, events),
        story(replace(in_phase(Phase.FAILED), outcome=Outcome.DEGRADED), events),
        recovery(says),
        *texts(modals.reject(promotion)),
        *texts(modals.emergency(PROD, None, incident=says, reason=says)["blocks"][:1]),
    ]:
        assert_harmless(text)
        assert text.strip()


@given(st.text(), st.integers(1, 400))
def test_plain_words_stay_in_their_line(text: str, limit: int) -> None:
    """Outside words in a sentence have no line break and no formatting, fit, and come back when unescaped."""
    shown, whole = plain(text, limit), plain(text, 10**6)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"[*_~](?!\u200b)|`", shown)
    assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", shown)
    assert len(shown) <= limit
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))
    bare = whole.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("\u200b", "")
    assert bare == without_hidden(text).replace("`", "'")


@given(st.text(), st.integers(1, 200))
def test_code_ends_where_we_end_it(text: str, limit: int) -> None:
    """Outside words as code hold no backtick, no line break, and are never empty: `` `` `` is not code."""
    shown = code(text, limit)
    assert re.fullmatch(r"`[^`<>\n]+`", shown)


@given(st.text(alphabet="`ab\n<&"), st.integers(3, 100))
def test_a_fence_ends_where_we_end_it(text: str, limit: int) -> None:
    """Outside lines cannot close their code block early."""
    shown = fenced(text, limit)
    assert shown.startswith("```")
    assert shown.endswith("```")
    assert "```" not in shown[3:-3]


@given(st.text(), st.integers(1, 50))
def test_a_cut_shows_that_something_was_left_out(text: str, limit: int) -> None:
    """At most so many characters; an ellipsis only where text is missing."""
    shown = cut(text, limit)
    assert len(shown) <= limit
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]))


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "https://a b", "https://x|y", "https://x>y", "file:///etc", "", None, "https://"],
)
def test_only_web_addresses_become_links(url: str | None) -> None:
    """Anything else that stands where an address should be leaves the bare text."""
    assert link(url, "text") == "text"
    assert link("https://x.example.com/?a=1&b=2", "text") == "<https://x.example.com/?a=1&amp;b=2|text>"


def test_mentions_tell_people_from_groups() -> None:
    """`S…` is a user group, everything else a person."""
    assert (mention("U0AMY"), mention("W0AMY"), mention("S0SRE")) == (
        "<@U0AMY>",
        "<@W0AMY>",
        "<!subteam^S0SRE>",
    )


def test_escaping_comes_first_for_ampersands() -> None:
    """Escaped text is shown as it was typed, also where it looks escaped already."""
    assert escape("<a> & &lt;") == "&lt;a&gt; &amp; &amp;lt;"


def test_a_long_list_is_cut_between_lines() -> None:
    """A hundred requests do not end in half a link; the answer says how many more there are."""
    text = answers.pending([(requested(), PLACE)] * 100)
    assert len(text) <= 3900
    assert_harmless(text)
    found = re.search(r"\n… and (\d+) more$", text)
    assert found
    assert text.count("• ") + int(found[1]) == 100
    assert listed(["one", "two"]) == "one\ntwo"


def test_a_card_with_everything_at_its_longest_is_accepted() -> None:
    """Long names, many approvers, many applications and long reasons stay within Slack's limits."""
    many = frozenset(f"U0{number:09}" for number in range(200))
    rule = ApprovalRule(users=many, groups=frozenset(), minimum=3)
    applications = tuple(
        Application(
            server="main",
            name=f"{'a' * 60}-{number}",
            project="default",
            link="https://argocd.example.com/" + "x" * 200,
        )
        for number in range(20)
    )
    where = replace(
        PROD,
        app="a" * 40,
        environment="e" * 40,
        policy=Policy(rules=(rule,) * 3, total=9),
        applications=applications,
        banner="B" * 500,
    )
    change = LineChange(path="p" * 200, number=10**6, before="&" * 2000, after="<" * 2000)
    promotion = requested(
        where, reason="&" * 500, version="v" * 128, old_version="o" * 128, changes=(change,) * 10
    )
    signers = [Signer(id=user, team="T0ACME", name="N" * 80) for user in sorted(many)[:9]]
    promotion = replace(promotion, approvals=tuple(approval(promotion, signer) for signer in signers))
    look = Look(
        applications=tuple(
            replace(progress(Stage.DEGRADED, "<" * 900), name=each.name) for each in applications
        ),
        waits_for="&" * 900,
    )
    much = Commit(revision="f" * 40, subject="&" * 900, author="<" * 900)
    many_commits = Commits(count=10**6, newest=(much,) * 250, link="https://git.example.com/" + "x" * 2000)
    dossier = Dossier(
        source=many_commits,
        watched=many_commits,
        differences=("&" * 500,) * 900,
        soaked=timedelta(days=900),
        checks=("&" * 500,) * 99,
        proof="<" * 500,
    )
    assert len(in_full(dossier)) <= 3500
    look = replace(look, dossier=dossier, held_by="&" * 5000)
    promotion = replace(promotion, way=Way.EMERGENCY, incident="<" * 500, digest="sha256:" + "0" * 64)
    for phase in (Phase.REQUESTED, Phase.APPROVED, Phase.COMMITTED, Phase.LIVE, Phase.FAILED):
        shown = replace(promotion, phase=phase, revision="c" * 40, ending="&" * 5000)
        message = card(where, shown, look)
        assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
        assert len(message.text) <= 10_000


@pytest.mark.parametrize(
    ("seconds", "says"), [(0, "0 s"), (42, "42 s"), (59, "59 s"), (60, "1 min 0 s"), (131, "2 min 11 s")]
)
def test_the_end_tells_how_long_it_took(seconds: int, says: str) -> None:
    """From the commit to the end, in seconds or minutes."""
    committed = in_phase(Phase.COMMITTED)
    live = committed.go_live(at=NOON + 2 * MINUTE + timedelta(seconds=seconds), why="it runs")
    assert f"after {says}" in as_json(card(PROD, live, EMPTY))
