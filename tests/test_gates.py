"""What each gate says, and that the gatekeeper hears all of them: who does not answer keeps the gate closed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from builders import NOON, target
from hypothesis import given
from hypothesis import strategies as st
from world import Clock

from bot.core import gatekeeper, gates
from bot.core.board import BadVersion, Lock, Report, Scope, Soaked
from bot.core.catalog import UNKNOWN, Image, Target
from bot.core.errors import Failed, Unavailable
from bot.core.gatekeeper import Gatekeeper
from bot.core.gates import Answer, Answers, Stand
from bot.core.policy import CheckRule, Effect, Gate, Policy, Probe, Window
from bot.core.ports import Hours
from bot.core.seals import Sealer
from bot.integrations.calendar import CronCalendar

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
BUILD = Image(version="15", digest="sha256:" + "a" * 64)
STAGE, SEALER = target("stage"), Sealer("a-seal-secret-of-32-characters!!")
EVERYTHING = Policy(
    soak=24 * HOUR,
    checks=(CheckRule(name="integration"), CheckRule(name="accepted")),
    probes=(Probe(name="errors", url="https://e.example"), Probe(name="board", url="https://b.example")),
    parity=True,
    windows=(Window(effect=Effect.DENY, zone="UTC", begins=NOON - HOUR, ends=NOON + HOUR, why="a freeze"),),
)
PROD = target("prod", policy=EVERYTHING)


def stands(answer: Answer) -> tuple[Stand, object]:
    return answer.stand, answer.opens_at


# --- soak


@pytest.mark.parametrize(
    ("total", "was_healthy", "stand", "opens_at", "says"),
    [
        (24 * HOUR, True, Stand.OPEN, None, "24 h of 24 h"),
        (30 * HOUR, False, Stand.OPEN, None, "30 h of 24 h"),
        (24 * HOUR - MINUTE, True, Stand.WAITS, NOON + MINUTE, "23 h 59 min of 24 h"),
        (timedelta(0), True, Stand.WAITS, NOON + 24 * HOUR, "0 s of 24 h"),
        (24 * HOUR - MINUTE, False, Stand.CLOSED, None, "23 h 59 min of 24 h, and does not run it healthily"),
        (None, None, Stand.CLOSED, None, "0 s of 24 h, and does not run it healthily now"),
    ],
)
def test_a_build_soaks_as_long_as_the_rules_say(
    total: timedelta | None, was_healthy: bool, stand: Stand, opens_at: object, says: str
) -> None:
    """It opens by itself only while the build runs well; what nobody has seen has not soaked."""
    seen = None if total is None else Soaked(total=total, seen_at=NOON, was_healthy=was_healthy)
    answer = gates.soak(EVERYTHING, STAGE, seen, now=NOON)
    assert stands(answer) == (stand, opens_at)
    assert says in answer.says


# --- checks


def report(**changes: Any) -> Report:
    """A genuine verdict of the integration check on the build, but for the changes."""
    plain = Report(
        app="manual-app",
        environment="stage",
        image=BUILD,
        check="integration",
        passed=True,
        by="hook:ci",
        at=NOON,
    )
    return SEALER.sealed_report(replace(plain, **changes))


@pytest.mark.parametrize(
    ("reports", "says"),
    [
        ([report()], ["passed in stage", "accepted: nobody has reported it for this build"]),
        ([report(), report(check="accepted")], ["integration: passed", "accepted: passed"]),
        ([report(passed=False, said="3 of 9 failed")], ["failed in stage: 3 of 9 failed", "nobody"]),
        ([report(passed=False)], ["integration: failed in stage", "nobody"]),
        ([report(image=replace(BUILD, digest="sha256:" + "b" * 64))], ["nobody", "nobody"]),
        ([report(image=replace(BUILD, digest=UNKNOWN))], ["nobody", "nobody"]),
        ([report(image=replace(BUILD, version="14"))], ["nobody", "nobody"]),
        ([report(check="another")], ["nobody", "nobody"]),
        ([], ["nobody", "nobody"]),
    ],
)
def test_each_check_must_have_passed_for_this_very_build(reports: list[Report], says: list[str]) -> None:
    """One answer for each check; another build's verdict counts as none."""
    answers = gates.checks(EVERYTHING, STAGE, BUILD, reports)
    assert [each.is_open for each in answers] == ["passed" in word for word in says]
    for answer, word in zip(answers, says, strict=True):
        assert answer.gate is Gate.CHECKS
        assert word in answer.says


# --- windows, locks, bad versions, parity


@pytest.mark.parametrize(
    ("hours", "stand", "opens_at"),
    [
        (Hours(is_open=True), Stand.OPEN, None),
        (Hours(is_open=True, changes_at=NOON + HOUR), Stand.OPEN, None),
        (Hours(is_open=False, says="a freeze", changes_at=NOON + HOUR), Stand.WAITS, NOON + HOUR),
        (Hours(is_open=False, says="a freeze"), Stand.CLOSED, None),
    ],
)
def test_a_window_opens_by_itself_where_it_says_when(hours: Hours, stand: Stand, opens_at: object) -> None:
    """The answer is what the clock says, and why."""
    answer = gates.windows(hours)
    assert stands(answer) == (stand, opens_at)
    assert hours.says in answer.says


def lock(**changes: Any) -> Lock:
    plain = Lock(scope=Scope(), by="U0BEN", reason="a migration", at=NOON - HOUR)
    return replace(plain, **changes)


HERE = Scope(app="manual-app", environment="prod")


@pytest.mark.parametrize(
    ("found", "stand", "opens_at"),
    [
        ([], Stand.OPEN, None),
        ([lock()], Stand.CLOSED, None),
        ([lock(scope=Scope(environment="prod"))], Stand.CLOSED, None),
        ([lock(scope=Scope(app="manual-app"))], Stand.CLOSED, None),
        ([lock(scope=HERE)], Stand.CLOSED, None),
        ([lock(scope=Scope(environment="stage"))], Stand.OPEN, None),
        ([lock(scope=Scope(app="other", environment="prod"))], Stand.OPEN, None),
        ([lock(until=NOON + HOUR)], Stand.WAITS, NOON + HOUR),
        ([lock(until=NOON)], Stand.OPEN, None),
        ([lock(until=NOON + timedelta(microseconds=1))], Stand.WAITS, NOON + timedelta(microseconds=1)),
        ([lock(until=NOON + HOUR), lock(scope=HERE, until=NOON + 2 * HOUR)], Stand.WAITS, NOON + 2 * HOUR),
        ([lock(until=NOON + HOUR), lock(scope=HERE)], Stand.CLOSED, None),
        ([lock(after="P-1")], Stand.CLOSED, None),
    ],
)
def test_a_lock_holds_where_and_as_long_as_it_says(found: list[Lock], stand: Stand, opens_at: object) -> None:
    """Several hold until the last one ends."""
    answer = gates.locks(PROD, found, now=NOON)
    assert stands(answer) == (stand, opens_at)
    assert answer.is_open or "is locked: a migration" in answer.says


@pytest.mark.parametrize(("found", "is_open"), [([lock(after="P-1")], True), ([lock()], False)])
def test_a_rollback_passes_what_a_rollback_has_locked(found: list[Lock], is_open: bool) -> None:
    """What a person has locked it does not pass."""
    assert gates.locks(PROD, found, now=NOON, is_rollback=True).is_open is is_open
    assert not gates.locks(PROD, [*found, lock(scope=HERE)], now=NOON, is_rollback=True).is_open


@pytest.mark.parametrize(("version", "is_open"), [("15", False), ("14", True), ("15.1", True)])
def test_a_bad_version_is_bad_whatever_its_build(version: str, is_open: bool) -> None:
    """The reason is told; no other version is meant."""
    bad = BadVersion(app="manual-app", version="15", by="U0BEN", reason="loses orders", at=NOON)
    answer = gates.bad_version(Image(version=version), [bad])
    assert answer.is_open is is_open
    assert is_open or answer.says == "15 is blocked: loses orders"


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([], "differ only where expected"),
        (["a"], "stage and prod also differ in a"),
        (list("abcde"), "also differ in a, b, c, d, e"),
        (list("abcdefg"), "also differ in a, b, c, d, e and 2 more"),
    ],
)
def test_every_unexpected_difference_closes(differences: list[str], says: str) -> None:
    """The first five are named, the others counted."""
    answer = gates.parity(differences, STAGE, PROD)
    assert answer.is_open is not differences
    assert answer.is_open is (differences == [])
    assert answer.says.endswith(says)


# --- all answers


def answer(gate: Gate, stand: Stand, **more: Any) -> Answer:
    return Answer(gate=gate, stand=stand, says=f"{gate} is {stand}", **more)


def test_answers_are_open_where_nothing_is_closed() -> None:
    """Waiting, closed and unknown all stand in the way, and each is told."""
    whole = Answers(tuple(answer(Gate.LOCKS, stand) for stand in Stand))
    assert [each.stand for each in whole.closed] == [Stand.WAITS, Stand.CLOSED, Stand.UNKNOWN]
    assert [each.stand for each in whole.unknown] == [Stand.UNKNOWN]
    assert whole.says == "locks is waits; locks is closed; locks is unknown"
    assert not whole.are_open
    assert Answers(whole.each[:1]).are_open
    assert Answers(()).are_open


@pytest.mark.parametrize("gate", Gate)
def test_only_content_and_order_never_open_for_the_same_request(gate: Gate) -> None:
    """Another build is another request; everything else may come right."""
    is_final = gate in (Gate.ORDER, Gate.IMAGE, Gate.BAD_VERSION)
    assert answer(gate, Stand.CLOSED).may_open is not is_final


MOMENTS = st.none() | st.timedeltas(min_value=MINUTE, max_value=90 * 24 * HOUR).map(lambda span: NOON + span)


@given(st.lists(st.tuples(st.sampled_from(Stand), MOMENTS), max_size=6))
def test_all_are_open_when_the_last_one_opens(found: list[tuple[Stand, Any]]) -> None:
    """Where one of them does not say when, nobody knows."""
    whole = Answers(tuple(answer(Gate.LOCKS, stand, opens_at=at) for stand, at in found))
    whens = [at for stand, at in found if stand is not Stand.OPEN]
    assert whole.opens_at == (max(whens) if whens and None not in whens else None)


# --- spans


@pytest.mark.parametrize(
    ("length", "says"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=59.9), "59 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(minutes=59, seconds=59), "59 min"),
        (HOUR, "1 h"),
        (HOUR + MINUTE, "1 h 1 min"),
        (26 * HOUR, "26 h"),
        (48 * HOUR - timedelta(seconds=1), "47 h 59 min"),
        (48 * HOUR, "2 d"),
        (76 * HOUR, "3 d 4 h"),
    ],
)
def test_a_span_is_told_as_people_say_it(length: timedelta, says: str) -> None:
    """Each unit up to where the next one is clearer."""
    assert gates.span(length) == says


PARTS = {"d": 24 * HOUR, "h": HOUR, "min": MINUTE, "s": timedelta(seconds=1)}


def read_span(text: str) -> timedelta:
    words = text.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return sum((int(number) * PARTS[unit] for number, unit in pairs), timedelta(0))


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)))
def test_a_span_is_rounded_down_and_never_by_more_than_its_last_unit(length: timedelta) -> None:
    """Nobody reads that something has lasted longer than it has."""
    told = gates.span(length)
    assert read_span(told) <= length
    unit = HOUR if length >= 48 * HOUR else MINUTE if length >= MINUTE else timedelta(seconds=1)
    assert length - read_span(told) < unit


# --- the gatekeeper

Told = Callable[[], Awaitable[Any]]


async def hanging() -> Any:
    await asyncio.Event().wait()


async def away() -> Any:
    raise Unavailable("it", "nobody answers")


async def broken() -> Any:
    raise Failed("It cannot be read.")


@dataclass
class Around:
    """Everything that the gatekeeper asks: what is told, and who was asked."""

    found: Mapping[str, Any] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def _say(self, what: str, otherwise: object) -> Any:
        self.asked.append(what)
        return await self.told[what]() if what in self.told else self.found.get(what, otherwise)

    async def locks(self) -> tuple[Lock, ...]:
        return await self._say("locks", ())

    async def bad_versions(self, _app: str) -> tuple[BadVersion, ...]:
        return await self._say("bad version", ())

    async def soaked(self, *_: object) -> Soaked | None:
        return await self._say("soak", Soaked(total=24 * HOUR, seen_at=NOON, was_healthy=True))

    async def reports(self, *_: object) -> tuple[Report, ...]:
        return await self._say("checks", (report(), report(check="accepted")))

    async def differences(self, *_: Target) -> Sequence[str]:
        return await self._say("parity", ())

    async def ask(self, probe: Probe, _target: Target, _image: Image) -> str:
        return await self._say(probe.name, "")


def keeper(around: Around, *, at: timedelta = 2 * HOUR) -> Gatekeeper:
    """A gatekeeper two hours after noon, when the freeze is over, but for what is said else."""
    port: Any = around
    clock = Clock(NOON + at)
    return Gatekeeper(
        board=port, calendar=CronCalendar(), probes=port, watched=port, clock=clock, sealer=SEALER
    )


async def ask(around: Around, *, at: timedelta = 2 * HOUR, **more: Any) -> Answers:
    return await keeper(around, at=at).ask(PROD, more.pop("source", STAGE), BUILD, **more)


ORDER = [
    Gate.LOCKS,
    Gate.BAD_VERSION,
    Gate.SOAK,
    Gate.CHECKS,
    Gate.CHECKS,
    Gate.WINDOWS,
    Gate.PARITY,
    Gate.PROBES,
    Gate.PROBES,
]
WHOM = {
    "locks": Gate.LOCKS,
    "bad version": Gate.BAD_VERSION,
    "soak": Gate.SOAK,
    "checks": Gate.CHECKS,
    "parity": Gate.PARITY,
    "errors": Gate.PROBES,
    "board": Gate.PROBES,
}
CLOSED: Mapping[str, Any] = {
    "locks": (lock(),),
    "bad version": (BadVersion(app="manual-app", version="15", by="U0BEN", reason="bad", at=NOON),),
    "soak": None,
    "checks": (),
    "parity": ("a",),
    "errors": "too many",
    "board": "not today",
}


async def test_every_gate_answers_in_a_fixed_order() -> None:
    """Where all is well, each says so."""
    answers = await ask(Around())
    assert [each.gate for each in answers.each] == ORDER
    assert answers.are_open


async def test_all_that_is_closed_is_told_together() -> None:
    """Nobody mends one thing only to hear of the next."""
    answers = await ask(Around(found=CLOSED), at=timedelta(0))
    assert [each.gate for each in answers.closed] == ORDER
    for word in (
        "locked",
        "blocked",
        "for 0 s",
        "integration",
        "accepted",
        "a freeze",
        "also differ",
        "too many",
    ):
        assert word in answers.says


@pytest.mark.parametrize("trouble", [hanging, away, broken])
@pytest.mark.parametrize("whom", WHOM)
async def test_who_does_not_answer_keeps_its_own_gate_closed(
    whom: str, trouble: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is unknown, which is not open; all others answer as ever."""
    monkeypatch.setattr(gatekeeper, "WITHIN", 0.05)
    answers = await ask(Around(told={whom: trouble}))
    assert [each.gate for each in answers.closed] == [WHOM[whom]]
    assert answers.unknown == answers.closed
    assert "could not be checked" in answers.says
    assert not answers.are_open
    # The two checks are one question.
    assert len(answers.each) == len(ORDER) - (whom == "checks")


async def test_a_calendar_that_cannot_be_read_keeps_the_window_closed() -> None:
    """A zone that nobody knows is no permission."""
    lost = replace(
        EVERYTHING.windows[0], zone="Nowhere/Atall", begins=None, ends=None, cron="0 0 * * *", lasts=HOUR
    )
    where = replace(PROD, policy=replace(EVERYTHING, windows=(lost,)))
    answers = await keeper(Around()).ask(where, STAGE, BUILD)
    assert [each.gate for each in answers.unknown] == [Gate.WINDOWS]


async def test_a_bug_in_a_gate_opens_nothing() -> None:
    """What nobody foresaw is raised: no answer comes out of it."""

    async def bug() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(Around(told={"soak": bug}))


async def test_gates_are_asked_at_the_same_time() -> None:
    """The slowest one decides how long it takes: each waits here until all have been asked."""
    together = asyncio.Barrier(len(WHOM))
    around = Around()

    async def wait() -> Any:
        await together.wait()
        raise Unavailable("it", "nobody answers")

    around.told = dict.fromkeys(WHOM, wait)
    answers = await asyncio.wait_for(ask(around), 5)
    assert {each.gate for each in answers.unknown} == set(WHOM.values())


async def test_a_quick_look_asks_nobody_outside() -> None:
    """A click has three seconds: the store and the clock answer in them, and other systems may not."""
    around = Around(told={"parity": hanging, "errors": hanging, "board": hanging})
    answers = await ask(around, is_quick=True)
    assert sorted(around.asked) == ["bad version", "checks", "locks", "soak"]
    assert [each.gate for each in answers.each] == ORDER[:6]


@pytest.mark.parametrize("gate", dict.fromkeys(ORDER))
async def test_what_is_skipped_is_not_asked(gate: Gate) -> None:
    """Whatever it would say; and nothing else is skipped with it."""
    around = Around(found=CLOSED)
    answers = await ask(around, at=timedelta(0), skips=frozenset({gate}))
    assert [each.gate for each in answers.each] == [each for each in ORDER if each is not gate]
    assert not [whom for whom in around.asked if WHOM[whom] is gate]


async def test_without_an_environment_before_nothing_is_asked_of_it() -> None:
    """Locks, bad versions, windows and probes are a matter of the target itself."""
    answers = await ask(Around(), source=None)
    asked = {Gate.LOCKS, Gate.BAD_VERSION, Gate.WINDOWS, Gate.PROBES}
    assert {each.gate for each in answers.each} == asked


async def test_an_environment_without_rules_has_two_gates() -> None:
    """Locks and bad versions are everybody's."""
    answers = await keeper(Around()).ask(replace(PROD, policy=Policy()), STAGE, BUILD)
    assert [each.gate for each in answers.each] == [Gate.LOCKS, Gate.BAD_VERSION]


@pytest.mark.parametrize(
    "change",
    [{"passed": True}, {"by": "hook:other"}, {"at": NOON - HOUR}, {"seal": UNKNOWN}, {"image": BUILD}],
)
async def test_a_verdict_without_the_bots_own_seal_is_none(change: dict[str, Any]) -> None:
    """Whoever writes to the store can make a verdict disappear, and cannot make one."""
    other = replace(BUILD, digest="sha256:" + "b" * 64)
    forged = replace(report(passed=False, image=BUILD if "image" not in change else other), **change)
    around = Around(found={"checks": (forged, report(check="accepted"))})
    answers = await ask(around)
    assert answers.says == "check integration: nobody has reported it for this build in stage"
