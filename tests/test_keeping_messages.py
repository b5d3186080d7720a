"""What keepers and reporters see: every text has its place in a golden file, and lets nothing from outside act."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from builders import AMY, APPROVERS, BEN, DANA, MINUTE, NOON, PROD, same_as_golden, target
from hypothesis import given
from hypothesis import strategies as st
from test_messages import assert_harmless, outside

from bot.core.asking import Outlook
from bot.core.board import BadVersion, Lock, Report, Scope
from bot.core.catalog import Image
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.drafting import Draft
from bot.core.errors import Unavailable
from bot.core.gates import Answer, Answers, Stand, closed, opened, unknown
from bot.core.keeper import Blocked, Held, Kept, Locked, Opening, Reported, Unblocked, Unlocked
from bot.core.policy import ApprovalRule, Gate, Policy
from bot.core.ports import Hours, Plan
from bot.core.promotion import LineChange
from bot.messages import keeping
from bot.messages.evidence import MOST_IN_DIFF

HOUR = timedelta(hours=1)
DIGEST = "sha256:" + "0123456789abcdef" * 4
FIFTEEN = Image(version="15", digest=DIGEST)
CHANNELS = ("C0DEPLOYS", "C0OTHER")
EVERYTHING = Lock(scope=Scope(), by=AMY.id, reason="a fire", at=NOON)
IN_PROD = Lock(
    scope=Scope(app="manual-app", environment="prod"),
    by=DANA.id,
    reason="the sale",
    at=NOON + MINUTE,
    until=NOON + 2 * HOUR,
)
BAD = BadVersion(app="manual-app", version="15", by=BEN.id, reason="it loses orders", at=NOON)
REPORT = Report(
    app="manual-app", environment="stage", image=FIFTEEN, check="load", passed=True, by=AMY.id, at=NOON
)
GROUP = ApprovalRule(users=frozenset(), groups=frozenset({"S0OWNERS"}), minimum=1)
CHANGE = LineChange(path="values-prod.yaml", number=3, before='  tag: "14"', after='  tag: "15"')


def commits(count: int, **changes: object) -> Commits:
    """So many commits between two builds."""
    newest = tuple(
        Commit(
            revision=f"{number:08x}" * 5, subject=f"Fix order {number}", author="Sam", email="sam@example.com"
        )
        for number in range(count)
    )
    link = "https://git.example.com/acme/compare/a...b"
    return replace(Commits(count=count, newest=newest, link=link), **changes)  # type: ignore[arg-type]


def draft(*answers: Answer, dossier: Dossier | None = None, is_done: bool = False) -> Draft:
    """15 in the place of 14, in prod."""
    return Draft(
        target=replace(PROD, policy=Policy(rules=(APPROVERS, GROUP), total=2)),
        source=target("stage"),
        image=FIFTEEN,
        plan=Plan(old_version="14", base="b" * 40, changes=(CHANGE,), is_done=is_done),
        dossier=dossier or Dossier(),
        answers=Answers(answers),
    )


OPEN = opened(Gate.ORDER, "stage runs 15, live and healthy")
SOAKS = Answer(
    gate=Gate.SOAK,
    stand=Stand.WAITS,
    says="stage has run it healthily for 3 h of 24 h",
    opens_at=NOON + 21 * HOUR,
)
LOCKED = closed(Gate.LOCKS, "prod is locked: the sale")
AWAY = unknown(Gate.PROBES, Unavailable("Prometheus", "it does not answer"))

KEPT: dict[str, Kept] = {
    "locked": Locked(lock=EVERYTHING, replaced=None, is_replaced_known=True, channels=CHANNELS),
    "locked again": Locked(lock=IN_PROD, replaced=EVERYTHING, is_replaced_known=True, channels=CHANNELS),
    "locked, others not read": Locked(
        lock=EVERYTHING, replaced=None, is_replaced_known=False, channels=CHANNELS
    ),
    "unlocked": Unlocked(
        lock=IN_PROD, by=BEN.id, reason=None, left=(), is_left_known=True, channels=CHANNELS
    ),
    "unlocked, others left": Unlocked(
        lock=IN_PROD,
        by=BEN.id,
        reason="it is over",
        left=(EVERYTHING,),
        is_left_known=True,
        channels=CHANNELS,
    ),
    "unlocked, others not read": Unlocked(
        lock=EVERYTHING, by=BEN.id, reason=None, left=(), is_left_known=False, channels=CHANNELS
    ),
    "blocked": Blocked(bad=BAD, channels=CHANNELS),
    "unblocked": Unblocked(bad=BAD, by=AMY.id, channels=CHANNELS),
}

TEXTS: dict[str, Callable[[], str]] = {
    **{f"{name}, answer": lambda done=done: keeping.answer(done) for name, done in KEPT.items()},  # type: ignore[misc]
    **{f"{name}, channels": lambda done=done: keeping.notice(done) for name, done in KEPT.items()},  # type: ignore[misc]
    "channels that could not be told": lambda: keeping.untold(CHANNELS),
    "check passed": lambda: keeping.reported(Reported(report=REPORT, wanted_by="prod")),
    "check failed, no digest": lambda: keeping.reported(
        Reported(
            report=replace(REPORT, passed=False, said="900 ms", image=Image(version="15")), wanted_by="prod"
        )
    ),
    "locks, none": lambda: keeping.held(Held(locks=(), bad_versions=())),
    "locks": lambda: keeping.held(Held(locks=(EVERYTHING, IN_PROD), bad_versions=(BAD,))),
    "windows, none": lambda: keeping.windows([]),
    "windows, none there": lambda: keeping.windows([], "dev"),
    "windows": lambda: keeping.windows(
        [
            Opening(scope=Scope(environment="stage"), hours=Hours(is_open=True)),
            Opening(scope=Scope(environment="prod"), hours=Hours(is_open=True, changes_at=NOON + 6 * HOUR)),
            Opening(
                scope=Scope(app="manual-app", environment="prod"),
                hours=Hours(is_open=False, says="nobody is awake", changes_at=NOON + 6 * HOUR),
            ),
            Opening(scope=Scope(environment="spare"), hours=Hours(is_open=False, says="it is closed down")),
        ]
    ),
    "can": lambda: keeping.can(Outlook(draft=draft(OPEN))),
    "can, already there": lambda: keeping.can(Outlook(draft=draft(OPEN, is_done=True), why_not="x")),
    "can, later": lambda: keeping.can(Outlook(draft=draft(OPEN, SOAKS))),
    "can, closed": lambda: keeping.can(
        Outlook(
            draft=draft(OPEN, SOAKS, LOCKED, AWAY),
            why_not="You may not request manual-app/prod: only the asker may. promote.yaml names them.",
        )
    ),
    "can, no approval": lambda: keeping.can(
        Outlook(draft=replace(draft(OPEN), target=target("prod", policy=Policy())))
    ),
    "diff": lambda: keeping.diff(
        draft(
            dossier=Dossier(
                source=commits(12),
                watched=commits(1, link=None),
                differences=("replicas", "resources.limits"),
            )
        )
    ),
    "diff, unknown": lambda: keeping.diff(
        draft(
            dossier=Dossier(
                source=Commits(unknown="15 has no label of its revision"),
                watched=Commits(),
                differences_unknown="values-stage.yaml cannot be read",
            )
        )
    ),
    "diff, back": lambda: keeping.diff(draft(dossier=Dossier(source=commits(2, is_back=True)))),
    "diff, already there": lambda: keeping.diff(draft(is_done=True)),
}


def test_the_texts_read_as_it_was_agreed() -> None:
    """Every text stands in one golden file, under the name of its occasion."""
    parts = [f"## {name}\n{text()}\n" for name, text in TEXTS.items()]
    same_as_golden("keeping.txt", "\n".join(parts))


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_is_ours(name: str) -> None:
    """Mentions, links and moments are whole, and nothing else looks like one."""
    assert_harmless(TEXTS[name]())


@pytest.mark.parametrize("name", KEPT)
def test_the_channels_read_who_did_it(name: str) -> None:
    """A message in a channel names its author; how to undo it, or whose it was, stands in it too."""
    done = KEPT[name]
    by = {Locked: lambda: done.lock.by, Blocked: lambda: done.bad.by}.get(type(done), lambda: done.by)()  # type: ignore[union-attr]
    text = keeping.notice(done)
    assert f"<@{by}>" in text.splitlines()[0]
    assert "/promote un" in text or " was " in text


@given(outside, outside, outside)
def test_nothing_from_outside_acts_in_a_text(says: str, name: str, version: str) -> None:
    """Reasons, verdicts, commits, values files and other systems' words are shown as words and nothing else."""
    lock, bad = replace(IN_PROD, reason=says), replace(BAD, reason=says, version=version)
    image = Image(version=version, digest=DIGEST)
    change = replace(CHANGE, path=name, before=says, after=version)
    commit = Commit(revision=version, subject=says, author=name)
    unread = Commits(unknown=says)
    dossiers = [
        Dossier(
            source=Commits(count=9, newest=(commit,), link=says),
            watched=unread,
            differences=(name, says),
            differences_unknown=says,
        ),
        Dossier(source=unread),
    ]
    kept: list[Kept] = [
        Locked(lock=lock, replaced=lock, is_replaced_known=True, channels=CHANNELS),
        Unlocked(lock=lock, by=AMY.id, reason=says, left=(lock,) * 40, is_left_known=True, channels=CHANNELS),
        Blocked(bad=bad, channels=CHANNELS),
        Unblocked(bad=bad, by=AMY.id, channels=CHANNELS),
    ]
    drafts = [
        replace(
            draft(closed(Gate.PROBES, says), dossier=dossier),
            image=image,
            plan=Plan(old_version=version, base="b" * 40, changes=(change,) * 9, is_done=False),
        )
        for dossier in dossiers
    ]
    hours = Hours(is_open=False, says=says, changes_at=NOON)
    report = replace(REPORT, said=says, image=image)
    for text in [
        *map(keeping.answer, kept),
        *map(keeping.notice, kept),
        *map(keeping.diff, drafts),
        *(keeping.can(Outlook(draft=each, why_not=says)) for each in drafts),
        keeping.reported(Reported(report=report, wanted_by="prod")),
        keeping.held(Held(locks=(lock,) * 40, bad_versions=(bad,) * 40)),
        keeping.windows([Opening(scope=Scope(environment="prod"), hours=hours)] * 40),
    ]:
        assert_harmless(text.replace("\n> ", "\n"))
        assert len(text) <= 4000


@given(st.integers(0, 300))
def test_many_commits_are_counted_and_the_newest_shown(count: int) -> None:
    """Ten lines are enough to know what comes; how many there are is always told."""
    text = keeping.diff(draft(dossier=Dossier(source=commits(count))))
    assert text.count("\n• ") == min(count, MOST_IN_DIFF)
    assert (f"|{count}>" in text) is (count > 0)
    assert (f"the newest {MOST_IN_DIFF}" in text) is (count > MOST_IN_DIFF)
