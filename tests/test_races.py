"""A short race of commands between processes; and that its checks see what they are for."""

import multiprocessing
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.core.catalog import Target
from bot.core.promotion import (
    Approval,
    Decision,
    Event,
    LineChange,
    Phase,
    Promotion,
    PromotionId,
    Signer,
    request,
)
from bot.core.seals import request_words
from bot.integrations import lua
from chaos.races import (
    CATALOG,
    NOON,
    RULES,
    SEALER,
    STEPS,
    Answer,
    Commit,
    Kind,
    Life,
    Result,
    Seen,
    first_values,
    race,
    violations,
)

ROOT = Path(__file__).parents[1]
PROD, DEV = CATALOG.target("shop", "prod"), CATALOG.target("shop", "dev")
MINUTE = timedelta(minutes=1)
DANA, AMY, BEN, GUS = (
    Signer(id=id, team="T0ACME", name=id[2:].title()) for id in ("U0DANA", "U0AMY", "U0BEN", "U0GUS")
)
FIRST, LATER, REJECTED, NEW = (PromotionId(f"P-000000000{number}") for number in range(1, 5))
"""One that was superseded while it was followed, the one that did it, one that was rejected, and one for dev."""


def test_replicas_that_race_break_no_rule() -> None:
    """Four processes fire 600 commands at the same promotions: some come too late, and every rule is kept."""
    result = race(commands=600, processes=4, seed=3)
    assert {rule: found for rule, found in result.violations.items() if found} == {}
    assert result.is_sound
    assert sum(result.answers.values()) == 600
    assert {kind for kind, answer in result.answers if answer is Answer.REFUSED} >= set(STEPS)
    assert result.answers[Kind.REQUEST, Answer.BUSY]
    assert result.too_late
    assert result.repeated
    assert result.commits
    assert result.commits <= sum(result.phases.values())


@pytest.mark.parametrize(
    ("guard", "rules"),
    [
        ("edition ~= change.edition - 1", ("editions without a gap", "every accepted decision is kept")),
        ("other and other ~= change.id", ("one holder of a target",)),
        ("made", ("one promotion of a delivery",)),
    ],
)
def test_a_store_without_one_of_its_guards_is_found_out(guard: str, rules: tuple[str, ...]) -> None:
    """Where the script that saves does not look at one thing, the race breaks just the rule that needs it."""
    blind = lua.SAVE.replace(f"if {guard} then", "if false then")
    assert blind != lua.SAVE
    result = race(commands=600, processes=4, seed=3, save_script=blind)
    assert not result.is_sound
    assert all(result.violations[rule] for rule in rules), result.table


def test_the_death_of_a_process_is_no_sound_race() -> None:
    """One that dies cannot tell what it was answered, so there is no result."""
    with ThreadPoolExecutor() as threads:
        racing = threads.submit(race, commands=4_000, processes=2)
        while len(multiprocessing.active_children()) < 2:
            assert not racing.done()
        multiprocessing.active_children()[0].kill()
        with pytest.raises(EOFError):
            racing.result()


def test_the_command_prints_its_seed_and_every_rule() -> None:
    """Whoever reads the table knows how to repeat the commands, and that each rule was looked at."""
    words = ("--commands", "8", "--processes", "2", "--seed", "5")
    done = subprocess.run(
        [sys.executable, "-m", "chaos.races", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\nSeed 5.\n")
    assert "| commands | 8 |" in done.stdout
    for rule in RULES:
        assert f"| violations: {rule} | 0 |" in done.stdout


# --- the checks


def asked(id: PromotionId, where: Target, *, by: Signer = DANA, old: str = "1", new: str = "2") -> Promotion:
    """A sealed request."""
    change = LineChange(path=where.path, number=2, before=f"  tag: {old}", after=f"  tag: {new}")
    bare = request(
        where,
        id=id,
        source="stage",
        version=new,
        old_version=old,
        changes=(change,),
        by=by,
        at=NOON,
        reason=None,
    )
    seal = SEALER.seal(
        id=id,
        content_hash=bare.content_hash,
        by=by,
        decision=Decision.REQUEST,
        at=NOON,
        said=request_words(bare),
    )
    return replace(bare, request_seal=seal)


def yes(promotion: Promotion, by: Signer) -> Approval:
    """A sealed approval."""
    content_hash = promotion.content_hash
    seal = SEALER.seal(id=promotion.id, content_hash=content_hash, by=by, decision=Decision.APPROVE, at=NOON)
    return Approval(by=by, at=NOON, content_hash=content_hash, seal=seal)


def written(promotion: Promotion, *, place: int, by: tuple[Signer, ...] = (AMY, BEN)) -> Iterator[Promotion]:
    """Edition by edition until it is committed; `place` is that of its commit in the log."""
    yield promotion
    for each in by:
        yield (promotion := promotion.approve(yes(promotion, each)))
    yield (promotion := promotion.reach_quorum(at=NOON, link=None))
    yield (promotion := promotion.start_commit(at=NOON, base="0" * 40))
    yield promotion.commit(at=NOON, revision=f"{place:040x}")


def life(*editions: Promotion) -> Life:
    """What the store has of it where all is well."""
    last = editions[-1]
    return Life(
        promotion=last,
        edition=last.edition,
        events=tuple(each.last for each in editions),
        phases=(last.phase,),
        is_due=not last.phase.is_final,
    )


def good() -> Seen:
    """A race after which all is well."""
    first = list(written(asked(FIRST, PROD), place=1))
    refused = asked(REJECTED, PROD, old="2", new="3")
    lives = (
        life(*first, first[-1].supersede(at=NOON, why="a newer one")),
        life(*written(asked(LATER, PROD, old="2", new="3"), place=2)),
        life(refused, refused.reject(by=AMY.id, at=NOON, why="not today")),
        life(asked(NEW, DEV)),
    )
    return Seen(
        lives=lives,
        holders={},
        followed={PROD.name: LATER},
        commits=(
            Commit(promotion=FIRST, target=PROD.name, old="1", new="2"),
            Commit(promotion=LATER, target=PROD.name, old="2", new="3"),
        ),
        values=first_values() | {PROD.name: "3"},
        deliveries=tuple((f"D-{each.promotion.id}", each.promotion.id) for each in lives) * 2,
        decisions=Counter(
            (each.promotion.id, event.what, event.by)
            for each in lives
            for event in each.events
            if event.what in STEPS.values()
        ),
        errors=(),
    )


def test_a_good_race_breaks_no_rule() -> None:
    """Nothing is found where nothing is wrong."""
    assert {rule: found for rule, found in violations(good()).items() if found} == {}


Tampering = Callable[[Seen], Seen]


def of(number: int, **changes: Any) -> Tampering:
    """Another life in the place of the one with this number."""

    def tamper(seen: Seen) -> Seen:
        lives = list(seen.lives)
        lives[number] = replace(lives[number], **changes)
        return replace(seen, lives=tuple(lives))

    return tamper


def record(number: int, **changes: Any) -> Tampering:
    """Another record, with the same story."""
    return lambda seen: of(number, promotion=replace(seen.lives[number].promotion, **changes))(seen)


def events(number: int, change: Callable[[tuple[Event, ...]], tuple[Event, ...]]) -> Tampering:
    """Another story, with the same record."""
    return lambda seen: of(number, events=change(seen.lives[number].events))(seen)


def before_the_commit(what: str, by: Signer, phase: Phase = Phase.REQUESTED) -> Tampering:
    """One more event in the story of the first, while it waited."""
    event = Event(edition=4, at=NOON, what=what, phase=phase, by=by.id)
    return events(0, lambda told: (*told[:3], event, *told[3:]))


def anew(*editions: Promotion) -> Tampering:
    """The second one with another life."""
    return lambda seen: replace(seen, lives=(seen.lives[0], life(*editions), *seen.lives[2:]))


def told(**changes: Any) -> Tampering:
    """What is beside the promotions."""
    return lambda seen: replace(seen, **changes)


def held(*, by: str | None, where: Target = PROD) -> Tampering:
    """A promotion that waits for prod, and what the key of the target says."""

    def tamper(seen: Seen) -> Seen:
        waiting = of(2, promotion=asked(REJECTED, PROD))(seen)
        return replace(waiting, holders={where.name: by} if by else {})

    return tamper


def one_more_holder(seen: Seen) -> Seen:
    """Two that wait for prod, and the key names one of them."""
    first = of(0, promotion=asked(FIRST, PROD))(seen)
    return held(by=REJECTED)(first)


BY_DANA = asked(LATER, PROD, old="2", new="3")
BY_AMY = asked(LATER, PROD, by=AMY, old="2", new="3")
FORGED = replace(yes(BY_DANA, BEN), seal="0" * 64)
OF_ANOTHER = yes(asked(LATER, PROD, old="1", new="2"), BEN)
TWICE = (Commit(promotion=FIRST, target=PROD.name, old="1", new="2"),) * 2
WRITTEN = good().commits
STRANGER = Commit(promotion="P-0000000009", target=PROD.name, old="2", new="3")
DECIDED = good().decisions

TAMPERED: dict[str, list[tuple[str, Tampering]]] = {
    "at most one commit": [
        ("committed 2 times", told(commits=(*TWICE, WRITTEN[1]))),
    ],
    "record and branch agree": [
        (f"{LATER} has the revision 0*2, and the branch None", told(commits=WRITTEN[:1])),
        ("and the branch 0*1", told(commits=WRITTEN[1:])),
        ("superseded as if nothing", record(0, revision=None)),
        ("a commit of P-0000000009 and no", told(commits=(*WRITTEN, STRANGER))),
    ],
    "written only with two approvals": [
        (r"with the approvals of \['U0BEN'\]", before_the_commit("withdrawal", AMY)),
        ("approved twice by U0AMY", before_the_commit("approval", AMY)),
        ("after it was cancelled", before_the_commit("cancelled", DANA, Phase.CANCELLED)),
        ("after it was rejected", before_the_commit("rejected", BEN, Phase.REJECTED)),
        (r"of \['U0AMY'\]$", anew(*written(BY_DANA, place=2, by=(AMY,)))),
        (r"of \['U0AMY', 'U0GUS'\]$", anew(*written(BY_DANA, place=2, by=(AMY, GUS)))),
        (r"of \['U0AMY', 'U0BEN'\]$", anew(*written(BY_AMY, place=2))),
        (r"although its record was changed", record(1, approvals=(yes(BY_DANA, AMY), FORGED))),
        (r"of \['U0AMY'\]$", record(1, approvals=(yes(BY_DANA, AMY), OF_ANOTHER))),
        ("although its record was changed", record(1, request_seal="0" * 64)),
        (r"of \[\]$", record(1, content_hash="sha256:0")),
    ],
    "nothing follows an end": [
        (
            "rejected, and then came “approval”",
            events(2, lambda story: (*story, replace(story[0], what="approval"))),
        ),
    ],
    "editions without a gap": [
        (r"story \[1, 2, 4, 5, 6, 7\]", events(0, lambda story: (*story[:2], *story[3:]))),
        (r"story \[1, 2, 3, 3, 4, 5, 6, 7\]", events(0, lambda story: (*story[:3], *story[2:]))),
        ("edition 2, the store says 3", of(2, edition=3)),
        (
            "ends with “rejected”, its story with “cancelled”",
            events(2, lambda story: (story[0], replace(story[1], what="cancelled"))),
        ),
    ],
    "every transition is legal": [
        ("from requested to committing", events(0, lambda story: (*story[:3], *story[4:]))),
        ("requested with “quorum lost”", before_the_commit("quorum lost", AMY)),
        ("begins as .*approved", events(0, lambda story: story[3:])),
    ],
    "one holder of a target": [
        (
            "shop/prod: holding are P-0000000001, P-0000000003, and the key names P-0000000003",
            one_more_holder,
        ),
        ("and the key names None", held(by=None)),
        (f"and the key names {NEW}", held(by=NEW)),
        ("shop/prod: holding are none, and", told(holders={PROD.name: LATER})),
        ("shop/dev: holding are none, and", told(holders={DEV.name: NEW})),
    ],
    "one followed promotion of a target": [
        ("and the key names None", told(followed={})),
        (f"followed are {LATER}, and the key names {FIRST}", told(followed={PROD.name: FIRST})),
        (f"followed are {FIRST}, {LATER}, and", record(0, phase=Phase.COMMITTED)),
    ],
    "one set of a phase": [
        ("sets of requested, rejected", of(2, phases=(Phase.REQUESTED, Phase.REJECTED))),
        ("rejected, and in the sets of requested", of(2, phases=(Phase.REQUESTED,))),
        ("in the sets of $", of(2, phases=())),
    ],
    "due until it ends": [
        (f"{NEW} is requested, and nobody", of(3, is_due=False)),
    ],
    "one promotion of a delivery": [
        (f"D-{NEW} made {FIRST}, {NEW}", told(deliveries=(*good().deliveries, (f"D-{NEW}", FIRST)))),
        ("told, and is not there", told(deliveries=(*good().deliveries, ("D-9", "P-0000000009")))),
        (f"{NEW} was made, and nobody", told(deliveries=good().deliveries[:3])),
    ],
    "every accepted decision is kept": [
        (
            "accepted 1 times, and its story has it 0 times",
            told(decisions=DECIDED + Counter({(NEW, "approval", AMY.id): 1})),
        ),
        (
            "accepted 2 times, and its story has it 1 times",
            told(decisions=DECIDED + Counter({(FIRST, "approval", AMY.id): 1})),
        ),
        (
            "accepted 0 times, and its story has it 1 times",
            told(decisions=DECIDED - Counter({(REJECTED, "rejected", AMY.id): 1})),
        ),
        (
            r"approvals of \['U0AMY'\], and its story those of \['U0AMY', 'U0BEN'\]",
            record(1, approvals=(yes(BY_DANA, AMY),)),
        ),
        (
            f"{FIRST} has the approvals of .* story those of \\['U0BEN'\\]",
            before_the_commit("withdrawal", AMY),
        ),
    ],
    "the branch holds the last commit": [
        ("shop/prod holds 2, and the last commit brought 3", told(values=first_values() | {PROD.name: "2"})),
        ("shop/dev holds 9", told(values=first_values() | {PROD.name: "3", DEV.name: "9"})),
    ],
    "no error but ours": [
        ("KeyError", told(errors=("approve of P-1: KeyError('x')",))),
    ],
}
"""For each rule what breaks it, with the words that tell of it."""


@pytest.mark.parametrize(
    ("rule", "sentence", "tamper"),
    [(rule, *case) for rule, cases in TAMPERED.items() for case in cases],
)
def test_each_broken_rule_is_told(rule: str, sentence: str, tamper: Tampering) -> None:
    """Whatever is wrong is found by the rule that it breaks, and said so that one knows what to look for."""
    found = violations(tamper(good()))[rule]
    assert any(re.search(sentence, each) for each in found), found


def test_every_rule_is_seen_to_be_broken() -> None:
    """No rule is there that nothing breaks."""
    assert TAMPERED.keys() == RULES.keys()


def test_the_table_counts_what_was_found() -> None:
    """Answers by command and in all, and violations by rule; one violation is enough to be unsound."""
    result = Result(
        seed=1,
        seconds=2.0,
        answers=Counter(
            {
                (Kind.REQUEST, Answer.BUSY): 2,
                (Kind.CANCEL, Answer.BUSY): 1,
                (Kind.CANCEL, Answer.ACCEPTED): 4,
            }
        ),
        too_late=5,
        repeated=6,
        phases=Counter({Phase.LIVE: 2, Phase.STALE: 1}),
        steps=Counter({"approval": 7}),
        commits=2,
        violations={"at most one commit": ["P-1 was committed 2 times"], "due until it ends": []},
    )
    assert not result.is_sound
    assert replace(result, violations={"due until it ends": []}).is_sound
    for row in (
        "| request | 0 | 0 | 0 | 2 | 0 | 0 |",
        "| cancel | 4 | 0 | 0 | 1 | 0 | 0 |",
        "| all | 4 | 0 | 0 | 3 | 0 | 0 |",
        "| commands | 7 |",
        "| saves that came too late | 5 |",
        "| deliveries answered with what they had made | 6 |",
        "| promotions | 3 (2 live, 1 stale) |",
        "| steps | 7 (7 approval) |",
        "| violations: at most one commit | 1 |",
        "| violations: due until it ends | 0 |",
    ):
        assert row in result.table
