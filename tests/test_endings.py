"""What people read when a rollout has ended: named, never guessed at, with its cause and the next step."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import NOON, PROD, in_phase
from endings import BAD, ENDINGS, GOOD, ONE_FAILED, THREE, WAITING, Case, ending, progress
from hypothesis import given
from hypothesis import strategies as st

from bot.core.case import minutes
from bot.core.following import WATCHED_FOR
from bot.core.outcome import Outcome
from bot.core.people import Action
from bot.core.policy import Policy
from bot.core.progress import Look, Stage
from bot.core.promotion import Phase
from bot.core.rollout import PEOPLE_TAKE, REFUSED_FOR
from bot.core.rules import CANNOT_COMPARE_FOR, STUCK_AFTER
from bot.messages.advice import BEGUN, HEALS, NEXT, advice
from bot.messages.card import SIGNS, WAITS, action_id, card, headline
from bot.messages.headlines import EMOJI, OUTCOMES
from bot.messages.mrkdwn import Message
from bot.messages.thread import story
from bot.playground.slack import blocks as block_kit

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "bot" / "playground" / "page" / "mrkdwn.js"
DOCUMENT = ROOT / "docs" / "endings.md"
UNKNOWN = (
    Outcome.TIMED_OUT,
    Outcome.UNREACHABLE,
    Outcome.TOKEN_EXPIRED,
    Outcome.NO_PERMISSION,
    Outcome.NOT_PICKED_UP,
    Outcome.WINDOW_CLOSED,
    Outcome.NOT_SYNCED,
)
"""Endings after which the commit may still come alive."""


def shown(case: Case) -> str:
    """The texts of a card's paragraphs, from its top to its end."""
    found = []
    for block in card(*case).blocks:
        if block["type"] in ("header", "section"):
            texts = [block["text"]] if "text" in block else block["fields"]
            found += [text["text"] for text in texts]
    return "\n".join(found)


def buttons(message: Message) -> dict[str, dict[str, Any]]:
    """The buttons of a card by their words."""
    found = [each for block in message.blocks if block["type"] == "actions" for each in block["elements"]]
    return {each["text"]["text"]: each for each in found}


# --- every ending has its words


def test_every_ending_has_a_headline() -> None:
    """An ending that is added to the rules cannot be forgotten here, and no two read the same."""
    assert OUTCOMES.keys() == set(Outcome)
    assert len({word for _, word in OUTCOMES.values()}) == len(Outcome)


def test_every_bad_ending_has_a_sign_and_an_advice_of_its_own() -> None:
    """At a glance no bad ending looks like another one or like another phase, and each says what to do about it."""
    assert set(NEXT) == set(BAD)
    assert len({*NEXT.values(), BEGUN}) == len(BAD) + 1
    signs = {OUTCOMES[outcome][0] for outcome in BAD}
    assert len(signs) == len(BAD)
    assert signs & set(EMOJI.values()) == {EMOJI[Phase.FAILED]}


def test_the_demo_draws_every_sign() -> None:
    """A sign that the demo's page does not know would stand there as its name."""
    drawn = PAGE.read_text("utf-8")
    signs = {*EMOJI.values(), *SIGNS.values(), *(sign for sign, _ in OUTCOMES.values())}
    missing = {sign for sign in signs if not re.search(rf'[ "]{sign.strip(":")}"?: ', drawn)}
    assert not missing


@pytest.mark.parametrize("outcome", Outcome)
def test_the_headline_and_the_first_paragraph_name_the_ending(outcome: Outcome) -> None:
    """What it came to, then why in Argo CD's words, before anything else."""
    where, promotion, look = ending(outcome)
    sign, word = OUTCOMES[outcome]
    assert headline(where, promotion, look) == f"{sign} {word}: manual-app 15 → prod"
    first = shown((where, promotion, look)).splitlines()[1]
    assert first.startswith(sign)
    assert "|manual-app-prod>" in first, "a link to the application"
    assert look.applications[0].says in first


@pytest.mark.parametrize("outcome", BAD)
def test_a_bad_ending_says_what_to_do(outcome: Outcome) -> None:
    """The next step is the second paragraph of the card, and stands in the text that is read aloud."""
    message = card(*ending(outcome))
    step = f":arrow_right: {NEXT[outcome]}"
    assert message.blocks[2]["text"]["text"].startswith(step)
    assert NEXT[outcome] in message.text.replace("\u200b", "")


@pytest.mark.parametrize("outcome", GOOD)
def test_a_good_ending_asks_nothing_of_anybody(outcome: Outcome) -> None:
    """A live card stays calm: no advice, no red button, no question but behind *Roll back*."""
    message = card(*ending(outcome))
    assert ":arrow_right:" not in shown(ending(outcome))
    assert all("style" not in button for button in buttons(message).values())


@pytest.mark.parametrize("outcome", UNKNOWN)
def test_nothing_has_failed_that_may_still_come(outcome: Outcome) -> None:
    """The bot stopped looking, or could not look: neither card, text nor thread calls that a failure."""
    where, promotion, look = ending(outcome)
    case = where, promotion, look
    said = f"{shown(case)}\n{card(*case).text}\n{story(promotion, [promotion.last])}"
    assert "fail" not in said.lower()


def test_the_hope_for_a_recovery_is_the_watchs_own() -> None:
    """How long the bot goes on looking is said where it looks, and nowhere else."""
    assert minutes(WATCHED_FOR) in HEALS
    for outcome in BAD:
        assert (HEALS in shown(ending(outcome))) is outcome.may_heal


def test_several_failures_have_several_next_steps() -> None:
    """Each application has its line, the same advice is given once, and one that cannot heal ends the hope."""
    case = ENDINGS["ended, two of three failed"]
    text = shown(case)
    assert [text.count(f"|{each.name}>") for each in THREE.applications] == [1, 1, 1]
    assert text.count(NEXT[Outcome.DEGRADED]) == text.count(NEXT[Outcome.TIMED_OUT]) == 1
    assert text.count(HEALS) == 1
    assert advice([Outcome.DEGRADED, Outcome.DELETED]) == [NEXT[Outcome.DEGRADED], NEXT[Outcome.DELETED]]
    assert advice([Outcome.DEGRADED, Outcome.DEGRADED]) == [f"{NEXT[Outcome.DEGRADED]} {HEALS}"]


def test_a_recovery_is_told_beside_what_had_gone_wrong() -> None:
    """Good news in the headline, when and how it came right, and no advice any more."""
    case = ENDINGS["ended, recovered"]
    assert headline(*case) == ":white_check_mark: Recovered: manual-app 15 → prod"
    text = shown(case)
    assert re.search(r"\n:white_check_mark: \*Recovered\* at <!date.*\n:red_circle: <.*degraded: ", text)
    assert ":arrow_right:" not in text
    assert "Recovered: synced and healthy" in card(*case).text


def test_an_end_without_a_look_still_names_its_cause() -> None:
    """Where nothing is remembered of the applications, the promotion's own words stand there, once."""
    where, promotion, _ = ending(Outcome.DEGRADED)
    assert re.search(
        r"^:red_circle: \*Degraded\*: manual-app-prod: Deployment/manual-app: ReplicaSet",
        shown((where, promotion, Look())),
        re.MULTILINE,
    )


def test_a_failure_of_ours_after_the_commit_has_a_next_step_too() -> None:
    """No outcome is known, so none is claimed; the commit is on the branch all the same."""
    promotion = in_phase(Phase.COMMITTED).fail(at=NOON, why="Something broke on our side (ref 4f2a)")
    text = shown((PROD, promotion, ONE_FAILED))
    assert ":x: *Failed*: Something broke on our side (ref 4f2a)" in text
    assert f":arrow_right: {BEGUN}" in text


# --- the thread


@pytest.mark.parametrize("outcome", Outcome)
def test_the_thread_names_the_ending(outcome: Outcome) -> None:
    """`Sync failed: …` and not `Failed: sync failed: …`; the headline's words are not said twice."""
    _, promotion, _ = ending(outcome)
    line = story(promotion, [promotion.last]).replace("\u200b", "")
    sign, word = OUTCOMES[outcome]
    assert line.startswith(f"{sign} {word}: ")
    assert line.lower().count(f"{word.lower()}: ") == 1


def test_what_failed_before_the_commit_is_called_so_in_the_thread() -> None:
    """Nothing was rolled out, so no rollout's ending is named."""
    promotion = in_phase(Phase.APPROVED).fail(at=NOON, why="the git host refused the push")
    assert story(promotion, [promotion.last]) == ":x: Failed: the git host refused the push"


@given(st.sampled_from(Outcome), st.text())
def test_the_thread_loses_no_words_but_the_headlines(outcome: Outcome, why: str) -> None:
    """Whatever the cause is, it stands in one line behind the headline."""
    _, promotion, _ = ending(outcome)
    line = story(promotion, [replace(promotion.last, why=why)])
    assert line.startswith(f"{OUTCOMES[outcome][0]} {OUTCOMES[outcome][1]}")
    assert len(line.splitlines()) == 1


# --- while it runs


@pytest.mark.parametrize("stage", WAITS)
def test_a_rollout_that_waits_for_people_says_so_in_its_headline(stage: Stage) -> None:
    """“Rolling out” would be untrue where nothing moves; it is true again as soon as anything does."""
    waits = progress(stage, "waits", name="manual-app-eu")
    done = progress(Stage.LIVE, "runs", name="manual-app-us")
    moves = progress(Stage.SYNCING, "moves", name="manual-app-asia")
    promotion = in_phase(Phase.COMMITTED)

    def says(*seen: Any) -> str:
        return headline(THREE, promotion, Look(applications=seen))

    assert says(waits, done).startswith(f"{SIGNS[stage]} {WAITS[stage]}: ")
    assert says(waits, done, moves).startswith(":rocket: Rolling out: ")
    assert says(done).startswith(":rocket: Rolling out: ")


def test_a_sync_by_hand_goes_before_a_window() -> None:
    """Where both are waited for, the headline names what somebody can do."""
    seen = tuple(progress(stage, "waits") for stage in (Stage.CLOSED, Stage.UNSYNCED))
    assert "Waiting for Sync" in headline(PROD, in_phase(Phase.COMMITTED), Look(applications=seen))


def test_sync_now_asks_once_more_and_names_what_it_changes() -> None:
    """The question names application, commit and resources; without the right to sync there is no button."""
    sync = buttons(card(*WAITING["waiting for Sync"]))["Sync now"]
    assert sync["action_id"] == action_id(Action.SYNC)
    assert sync["confirm"]["title"]["text"] == "Sync prod?"
    question = sync["confirm"]["text"]["text"]
    for part in ("manual-app-prod", "cccccccc", "dry run", "Deployment/manual-app, ConfigMap/manual-app"):
        assert part in question
    assert buttons(card(*WAITING["waiting for Sync, not allowed"])) == {}


@given(st.integers(1, 40), st.text(min_size=1, max_size=400), st.booleans())
def test_a_question_fits_whatever_it_names(many: int, name: str, is_long: bool) -> None:
    """Slack refuses a card whose dialog is longer than 300 characters, or a button's label beyond 75."""
    seen = tuple(
        progress(Stage.UNSYNCED, "waits", name=f"{name}{number}", may_sync=True, to_sync=(name,) * many)
        for number in range(many)
    )
    where = replace(PROD, app="a" * 60, environment="e" * 60) if is_long else PROD
    promotion = replace(in_phase(Phase.COMMITTED, where), version="v" * 128 if is_long else "15")
    live = replace(promotion, phase=Phase.LIVE)
    for message in (
        card(where, promotion, Look(applications=seen)),
        card(where, live, Look(applications=seen)),
    ):
        assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
        assert len(buttons(message)) == 1


# --- back to what was there before


@pytest.mark.parametrize("outcome", Outcome)
def test_what_stands_on_the_branch_can_be_rolled_back(outcome: Outcome) -> None:
    """Every end with a commit offers it, unless a later commit took its place or somebody took it away."""
    found = buttons(card(*ending(outcome)))
    expected = set() if outcome in (Outcome.SUPERSEDED, Outcome.LOST) else {"Roll back"}
    assert found.keys() - {"Mark 15 bad"} == expected


@pytest.mark.parametrize(
    ("policy", "says"), [(PROD.policy, "Others have to approve it."), (Policy(), "Nobody has to approve it.")]
)
def test_roll_back_asks_once_more_and_promises_nothing(policy: Policy, says: str) -> None:
    """The question names app, environment and version, and whether anybody else is asked; it is quiet."""
    where, promotion, look = ending(Outcome.LIVE)
    button = buttons(card(replace(where, policy=policy), promotion, look))["Roll back"]
    assert button["action_id"] == action_id(Action.ROLL_BACK)
    assert "style" not in button
    assert "style" not in button["confirm"]
    question = button["confirm"]["text"]["text"]
    assert all(part in question for part in ("`manual-app`", "*prod*", "`15`", says))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("rollback requested", ":hourglass_flowing_sand: ROLLBACK · Approval needed: manual-app 14 → prod"),
        ("ended, rolled back", ":white_check_mark: ROLLBACK · Live: manual-app 14 → prod"),
        ("ended, rollback failed", ":x: ROLLBACK · Sync failed: manual-app 14 → prod"),
    ],
)
def test_a_rollback_is_called_one_from_its_request_to_its_end(name: str, title: str) -> None:
    """Nobody approves the old version for a new one; the card names the promotion that is taken back."""
    case = {**WAITING, **ENDINGS}[name]
    assert headline(*case) == title
    assert card(*case).text.startswith("ROLLBACK · ")
    assert "undoing `P-0000000000`" in shown(case)


# --- the page about it


def rows() -> dict[str, list[str]]:
    """The cells of the page's tables, by the name of the outcome in the first one."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_page_knows_every_ending() -> None:
    """An ending that is added, or taken away, has to be described, or goes from the page as well."""
    assert list(rows()) == [outcome.value for outcome in Outcome]


@pytest.mark.parametrize("outcome", Outcome)
def test_the_page_says_what_the_card_says(outcome: Outcome) -> None:
    """Headline and advice are the card's own; the bot's part says whether it goes on looking."""
    title, means, does, todo = rows()[outcome]
    assert title == OUTCOMES[outcome][1]
    assert todo == NEXT.get(outcome, "Nothing.")
    assert (f"Looks for {minutes(WATCHED_FOR)} more" in does) is outcome.may_heal
    assert means.endswith(".")


@pytest.mark.parametrize(
    ("outcome", "patience", "says"),
    [
        (Outcome.WINDOW_CLOSED, PEOPLE_TAKE, "24 hours"),
        (Outcome.NOT_SYNCED, PEOPLE_TAKE, "24 hours"),
        (Outcome.CANNOT_RENDER, CANNOT_COMPARE_FOR, "1 minute,"),
        (Outcome.STUCK, STUCK_AFTER, "10 minutes"),
        (Outcome.UNREACHABLE, REFUSED_FOR, "5 minutes"),
        (Outcome.TOKEN_EXPIRED, REFUSED_FOR, "5 minutes"),
        (Outcome.NO_PERMISSION, REFUSED_FOR, "5 minutes"),
        (Outcome.MISSING, REFUSED_FOR, "5 minutes"),
    ],
)
def test_the_page_waits_as_long_as_the_bot(outcome: Outcome, patience: timedelta, says: str) -> None:
    """The times on the page are those of the rules."""
    number, unit = says.rstrip(",").removesuffix("s").split()
    assert timedelta(**{f"{unit}s": int(number)}) == patience
    assert says in rows()[outcome][2]
