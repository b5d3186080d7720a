"""The rules are guarded: which lines they are, who hears of a change and how often, and whom it bars."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import AMY, BEN, DANA, ENVIRONMENTS, TWO, target
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from bot.core.catalog import Catalog, Source
from bot.core.errors import Closed, Unavailable
from bot.core.guarding import (
    ANNOUNCED_EVERY,
    BARRED,
    ONE_TELLS,
    Deployed,
    Difference,
    Guard,
    Page,
    RuleChanges,
)
from bot.core.policy import (
    ApprovalRule,
    CheckRule,
    Effect,
    EmergencyRule,
    Gate,
    Listed,
    Policy,
    Probe,
    RollbackRule,
    Window,
)
from bot.core.promotion import Signer
from bot.core.rule_lines import difference, rules
from bot.integrations.board import RedisBoard
from bot.integrations.rulebook import RULES, RedisRulebook
from bot.integrations.store import connect
from bot.messages import guarding as messages

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AUDIT, DEPLOYS, OTHER = "C0AUDIT", "C0DEPLOYS", "C0OTHER"
SRE = Listed(users=frozenset({AMY.id}), groups=frozenset({"S0SRE"}))
WINDOW = Window(effect=Effect.DENY, zone="UTC", cron="0 17 * * FRI", lasts=63 * HOUR, why="weekend")
PROBE = Probe(name="errors", url="https://prom.example.com", query="up", at_most=0.5)
FULL = Policy(
    rules=(ApprovalRule(users=frozenset({AMY.id}), groups=frozenset(), minimum=1),),
    total=1,
    commit_authors=False,
    checks=(CheckRule(name="integration", reporters=SRE),),
    probes=(PROBE,),
    windows=(WINDOW,),
    rollback=RollbackRule(who=SRE),
    emergency=EmergencyRule(who=SRE, skips=frozenset({Gate.SOAK})),
)
OTHERWISE: dict[str, Any] = {
    "rules": (ApprovalRule(users=frozenset({AMY.id}), groups=frozenset({"S0SRE"}), minimum=1),),
    "total": 2,
    "expires": timedelta(hours=4, seconds=1),
    "start_within": timedelta(minutes=31),
    "waits": timedelta(days=4),
    "denied": SRE,
    "commit_authors": True,
    "unknown_authors": True,
    "last_requester": False,
    "notify": SRE,
    "requesters": SRE,
    "lockers": SRE,
    "soak": HOUR,
    "checks": (CheckRule(name="integration"),),
    "probes": (replace(PROBE, at_most=0.25),),
    "parity": True,
    "windows": (replace(WINDOW, lasts=62 * HOUR),),
    "rollback": RollbackRule(who=SRE, locks=False),
    "emergency": EmergencyRule(who=SRE, skips=frozenset({Gate.SOAK, Gate.QUORUM})),
}
PARTS: list[tuple[Any, dict[str, Any]]] = [
    (
        PROBE,
        {"name": "other", "url": "https://x.example.com", "query": "down", "at_least": 1.0, "at_most": None},
    ),
    (PROBE, {"within": timedelta(seconds=4)}),
    (WINDOW, {"effect": Effect.ALLOW, "zone": "Europe/Berlin", "cron": "1 17 * * FRI", "why": "w"}),
    (
        replace(WINDOW, cron=None, begins=NOON, ends=NOON + HOUR),
        {"begins": NOON - HOUR, "ends": NOON + 2 * HOUR},
    ),
    (RollbackRule(who=SRE), {"who": Listed(users=frozenset({BEN.id})), "within": HOUR, "locks": False}),
    (FULL.emergency, {"who": Listed(users=frozenset({BEN.id})), "skips": frozenset()}),
]
HOLDERS = {Probe: "probes", Window: "windows", RollbackRule: "rollback", EmergencyRule: "emergency"}


def catalog(prod: Policy = TWO, *, audit: str | None = AUDIT, **changes: Any) -> Catalog:
    """Three environments; prod has these rules, and a channel of its own."""
    channels = dict.fromkeys(ENVIRONMENTS, DEPLOYS) | {"prod": OTHER}
    targets = [target(each, audit=audit, channel=channels[each]) for each in ENVIRONMENTS]
    targets[-1] = replace(targets[-1], policy=prod)
    return replace(Catalog(environments=ENVIRONMENTS, targets=tuple(targets)), **changes)


def soaking(hours: int) -> Policy:
    """Rules that differ in one line."""
    return replace(TWO, soak=hours * HOUR)


class Clock:
    """Stands still until a test moves it."""

    at = NOON

    def now(self) -> datetime:
        """Aware, in UTC."""
        return self.at


@dataclass
class Place:
    """A store, a clock, and what the channels and the operators heard."""

    url: str
    rulebook: RedisRulebook
    board: RedisBoard
    clock: Clock = field(default_factory=Clock)
    told: list[tuple[str, Difference, datetime]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    is_slack_away: bool = False
    closed: frozenset[str] = frozenset()

    @classmethod
    def on(cls, url: str) -> "Place":
        """On the store at this address."""
        client = connect(url, quick=False)
        return cls(url=url, rulebook=RedisRulebook(client), board=RedisBoard(client))

    async def announce(self, channel: str, told: Difference) -> None:
        """Slack's channels."""
        if self.is_slack_away:
            raise Unavailable("Slack", "it does not answer")
        if channel in self.closed:
            raise Closed("Slack says not_in_channel")
        self.told.append((channel, told, self.clock.at))

    def guard(self, prod: Policy = TWO, *, deployed: Deployed | None = None, **changes: Any) -> Guard:
        """A worker's guard, with these rules for prod."""
        return Guard(
            catalog=catalog(prod, **changes),
            rulebook=self.rulebook,
            board=self.board,
            clock=self.clock,
            deployed=deployed or Deployed(),
            announce=self.announce,
            alarm=self.alarms.append,
        )

    async def start(self, prod: Policy = TWO, **different: Any) -> Guard:
        """A worker starts, and does at once what it does again and again."""
        guard = self.guard(prod, **different)
        await guard.take_note()
        await guard.tell()
        return guard

    async def passes(self, time: timedelta) -> None:
        """Let it pass here, and on the server: what is done once within a span may be done again after it."""
        self.clock.at += time
        async with Redis.from_url(self.url, decode_responses=True) as raw:
            for key in await raw.keys("{gp}:once:*"):
                left = await raw.pttl(key) - time // timedelta(milliseconds=1)
                await raw.pexpire(key, max(left, 0))

    async def page(self) -> Page:
        """What is written down."""
        page = await self.rulebook.read()
        assert page is not None
        return page

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The lines of each announcement."""
        return [told.lines for _, told, _ in self.told]


@pytest.fixture
async def place(redis_url: str) -> AsyncIterator[Place]:
    made = Place.on(redis_url)
    yield made
    await made.board.aclose()


# --- the lines


@pytest.mark.parametrize("name", OTHERWISE)
def test_every_rule_has_a_line(name: str) -> None:
    """Whatever a policy says otherwise, its lines say otherwise: no change of a rule goes unseen."""
    assert set(OTHERWISE) == set(Policy.__dataclass_fields__)
    assert rules(catalog(FULL)) != rules(catalog(replace(FULL, **{name: OTHERWISE[name]})))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [(part, name, value) for part, changes in PARTS for name, value in changes.items()],
    ids=lambda each: each if isinstance(each, str) and " " not in each and ":" not in each else "",
)
def test_every_part_of_a_rule_is_in_its_line(part: Any, name: str, value: Any) -> None:
    """The rules inside of rules, too."""
    holder = HOLDERS[type(part)]

    def policy(part: Any) -> Policy:
        return replace(FULL, **{holder: (part,) if holder.endswith("s") else part})

    assert rules(catalog(policy(part))) != rules(catalog(policy(replace(part, **{name: value}))))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_tag_only": True},
        {"asks_registry": True},
        {"source": Source(url="https://git.example.com/acme/app.git")},
        {"audit": "C0OTHER"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_proves_an_image_and_who_hears_is_a_rule(changes: dict[str, Any]) -> None:
    """What a target says besides its policy counts where a gate, or somebody's knowledge, depends on it."""
    plain = Catalog(environments=("prod",), targets=(target(),))
    assert rules(plain) != rules(replace(plain, targets=(target(**changes),)))


def test_who_is_who_is_a_rule() -> None:
    """By another identity somebody could approve their own commits."""
    assert rules(catalog()) != rules(catalog(identities={"eve@example.com": BEN.id}))


def test_what_holds_for_some_apps_names_them() -> None:
    """A line for all apps of an environment names none; the order of the apps in the file does not matter."""
    one, two = target(), target(app="web", policy=soaking(1))
    lines = rules(Catalog(environments=("prod",), targets=(one, two)))
    assert "prod: 2 different people must approve" in lines
    assert "prod (web): must run for 1 h in the environment before" in lines
    assert lines == rules(Catalog(environments=("prod",), targets=(two, one)))


def test_no_secret_is_in_a_line_and_yet_a_change_of_one_is_seen() -> None:
    """Lines are told in a channel."""
    asks = [replace(PROBE, url=f"https://prom.example.com/?api_key={key}") for key in ("hunter2", "hunter3")]
    before, after = (rules(catalog(replace(FULL, probes=(ask,)))) for ask in asks)
    assert before != after
    assert "hunter" not in "".join((*before, *after))


LINES = st.lists(st.sampled_from([f"prod: rule {number}" for number in range(6)]), unique=True, max_size=6)


@given(old=LINES, new=LINES)
def test_a_difference_leads_from_the_old_lines_to_the_new_ones(old: list[str], new: list[str]) -> None:
    """Whoever knows the old rules and reads it knows the new ones."""
    lines = list(difference(old, new))
    gone, came = ([line[2:] for line in lines if line.startswith(sign)] for sign in "-+")
    assert sorted(
        [line for line in old if line not in gone or line in came]
        + [line for line in came if line not in old]
    ) == sorted(new)
    assert (lines == []) is (old == new)


# --- who hears of it


async def test_the_first_start_announces_nothing(place: Place) -> None:
    """Nobody knows of other rules; and a start with the same ones is none either."""
    await place.start()
    await place.start()
    assert (place.told, place.alarms) == ([], [])


async def test_a_change_is_announced_in_the_audit_channel_and_alarms(place: Place) -> None:
    """With the line that is new, once."""
    await place.start()
    await place.start(soaking(24))
    await place.start(soaking(24))
    [(channel, told, _)] = place.told
    assert channel == AUDIT
    assert told.lines == ("+ prod: must run for 1 d in the environment before",)
    assert told.places == ("prod",)
    assert place.alarms == ["The rules changed: + prod: must run for 1 d in the environment before."]


async def test_without_an_audit_channel_the_affected_environments_hear_of_it(place: Place) -> None:
    """Not those whose rules are as they were."""
    await place.start(audit=None)
    await place.start(soaking(24), audit=None)
    assert [channel for channel, _, _ in place.told] == [OTHER]


async def test_an_audit_channel_that_is_taken_away_hears_of_that(place: Place) -> None:
    """Nobody gets rid of the witness and the rules in one step."""
    await place.start()
    await place.start(soaking(24), audit=None)
    assert AUDIT in [channel for channel, _, _ in place.told]


async def test_of_several_replicas_one_announces(place: Place) -> None:
    """However many start in the same moment."""
    await place.start()
    guards = [place.guard(soaking(24)) for _ in range(5)]
    await asyncio.gather(*(guard.take_note() for guard in guards))
    await asyncio.gather(*(guard.tell() for guard in guards))
    assert len(place.told) == 1


async def test_what_slack_did_not_take_is_announced_later(place: Place) -> None:
    """By whichever worker looks next; the operators hear of it at once, and once."""
    guard = await place.start()
    place.is_slack_away = True
    with pytest.raises(Unavailable):
        await place.start(soaking(24))
    assert len(place.alarms) == 1
    place.is_slack_away = False
    await place.passes(ONE_TELLS)
    await guard.tell()
    await guard.tell()
    assert (len(place.told), len(place.alarms)) == (1, 1)


async def test_a_channel_that_cannot_be_written_to_is_an_alarm(place: Place) -> None:
    """It keeps nobody else from hearing, and is not tried for ever."""
    place.closed = frozenset({"C0GONE"})
    await place.start(audit="C0GONE")
    await place.start(soaking(24), audit=AUDIT)
    assert [channel for channel, _, _ in place.told] == [AUDIT]
    assert "C0GONE could not be told" in place.alarms[-1]


async def test_a_rolling_update_does_not_announce_to_and_fro(place: Place) -> None:
    """Old and new workers start in turns: each direction is told once, and when it is over, what is in force."""
    await place.start()
    for _ in range(5):
        await place.start(soaking(24))
        await place.start()
        await place.passes(timedelta(minutes=5))
    guard = await place.start(soaking(24))
    assert len(place.told) == 2
    await place.passes(ANNOUNCED_EVERY)
    await guard.tell()
    assert [line[:1] for lines in place.lines for line in lines] == ["+", "-", "+"]


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1, 10, 45, 61])),
    max_size=12,
)


@settings(max_examples=25)
@given(steps=STEPS)
def test_people_know_in_the_end_what_is_in_force_and_hear_nothing_twice_an_hour(
    embedded_server: Any, steps: list[tuple[int, int]]
) -> None:
    """Whoever starts with which rules, and whenever: the announcements, one after the other, lead to the last rules."""

    async def story() -> None:
        async with Redis.from_url(embedded_server.url) as raw:
            await raw.flushall()
        place = Place.on(embedded_server.url)
        known = set(rules(catalog(soaking(1))))
        guard = await place.start(soaking(1))
        for hours, minutes in steps:
            guard = await place.start(soaking(hours + 1))
            await place.passes(timedelta(minutes=minutes))
        await place.passes(ANNOUNCED_EVERY)
        await guard.tell()
        in_force = set((await place.page()).lines)
        told_at = [(told.lines, at) for _, told, at in place.told]
        await place.board.aclose()
        for lines, _ in told_at:
            known -= {line[2:] for line in lines if line.startswith("- ")}
            known |= {line[2:] for line in lines if line.startswith("+ ")}
        assert known == in_force
        for number, (lines, at) in enumerate(told_at):
            again = [later for other, later in told_at[number + 1 :] if other == lines]
            assert all(later - at >= ANNOUNCED_EVERY for later in again)

    asyncio.run(story())


# --- where it is kept


async def test_of_two_that_read_the_same_page_one_changes_it(place: Place) -> None:
    """A repetition of the very same change counts as done: its answer may have been lost."""
    await place.start()
    page = await place.page()
    one, two = (replace(page, edition=page.edition + 1, revision=name) for name in ("one", "two"))
    assert await place.rulebook.change(one)
    assert await place.rulebook.change(one)
    assert not await place.rulebook.change(two)
    assert await place.page() == one


async def test_a_page_that_cannot_be_read_is_never_taken_for_none(place: Place) -> None:
    """Else the next worker would write down its own rules, and announce nothing."""
    async with Redis.from_url(place.url) as raw:
        await raw.set(RULES, '{"edition": "three"}')
    with pytest.raises(Unavailable, match="cannot be read"):
        await place.start()


# --- whom it bars


async def barred(place: Place, who: Signer, where: str = "prod", **different: Any) -> bool:
    """Is this one of those who changed the rules of an environment of late?"""
    found = catalog(**different)
    changes = RuleChanges(catalog=found, rulebook=place.rulebook, clock=place.clock)
    is_by = await changes.are_by(who, found.target("manual-app", where))
    known = who.id in await changes.ids(found.target("manual-app", where))
    assert is_by or not known
    return is_by


async def test_who_changed_the_rules_is_known_for_a_day(place: Place) -> None:
    """By id or by address, for the environments whose rules changed, from when the change was first in force."""
    await place.start(deployed=Deployed(revision="r1", author=BEN.id))
    await place.start(soaking(24), deployed=Deployed(revision="r2", author="Amy@Example.com"))
    assert not await barred(place, AMY, "stage")
    assert not await barred(place, BEN), "nothing is known to have changed at the first start"
    assert not await barred(place, DANA)
    await place.passes(BARRED - timedelta(seconds=1))
    assert await barred(place, AMY)
    await place.passes(timedelta(seconds=1))
    assert not await barred(place, AMY)


async def test_an_address_of_the_author_may_be_another_than_in_slack(place: Place) -> None:
    """`identities` says whose it is."""
    await place.start(deployed=Deployed(revision="r1"))
    await place.start(soaking(24), deployed=Deployed(revision="r2", author="Ben@home.example"))
    assert await barred(place, BEN, identities={"ben@home.example": BEN.id})
    assert not await barred(place, AMY, identities={"ben@home.example": BEN.id})
    assert not await barred(place, BEN)


async def test_who_has_no_address_is_not_an_author_that_nobody_named(place: Place) -> None:
    """A revision without an author bars nobody."""
    await place.start(deployed=Deployed(revision="r1"))
    await place.start(soaking(24), deployed=Deployed(revision="r2"))
    assert BEN.email is None
    assert not await barred(place, BEN)


async def test_a_revision_that_comes_back_bars_nobody_anew(place: Place) -> None:
    """Old workers that start once more do not make the author of old rules one who changed them now."""
    old, new = Deployed(revision="r1", author=BEN.id), Deployed(revision="r2", author=AMY.id)
    await place.start(deployed=old)
    await place.start(soaking(24), deployed=new)
    await place.passes(23 * HOUR)
    await place.start(deployed=old)
    await place.start(soaking(24), deployed=new)
    assert await barred(place, AMY)
    assert not await barred(place, BEN)
    await place.passes(HOUR)
    assert not await barred(place, AMY)


async def test_what_holds_everywhere_bars_everywhere(place: Place) -> None:
    """Whoever changes who is who changes the rules of every environment."""
    await place.start(deployed=Deployed(revision="r1"))
    identities = {"eve@example.com": BEN.id}
    await place.start(identities=identities, deployed=Deployed(revision="r2", author=AMY.id))
    assert [await barred(place, AMY, each) for each in ENVIRONMENTS] == [True] * 3


# --- what people read


def told(lines: tuple[str, ...], **more: Any) -> Difference:
    """A change of prod's rules."""
    return Difference(lines=lines, places=("prod",), **more)


def test_an_announcement_says_whose_rules_changed_and_how() -> None:
    """Each line that is gone and each that is new, who did it, and what to do about it."""
    lines = ("- prod: rule 1", "+ prod: rule 2")
    text = messages.changed(told(lines, revision="3f9c2a1b" * 5, author=AMY.id))
    assert text.startswith(f":scroll: The rules of `prod` have changed by <@{AMY.id}> with `3f9c2a1b3f9c`.")
    assert "```- prod: rule 1\n+ prod: rule 2```" in text
    assert "/promote lock" in text


@given(number=st.integers(41, 300), length=st.integers(1, 400))
def test_a_long_announcement_is_cut_after_forty_lines(number: int, length: int) -> None:
    """It says how many more there are, and stays short enough for Slack."""
    text = messages.changed(told(tuple(f"+ prod: {'&' * length}" for _ in range(number))))
    shown = sum(line.lstrip("`").startswith("+ prod") for line in text.splitlines())
    assert 0 < shown <= messages.MOST_LINES
    assert f"… and {number - shown} more```" in text
    assert len(text) < 40_000


@given(st.text(), st.text())
def test_nobody_writes_into_an_announcement_but_the_lines(line: str, author: str) -> None:
    """A reason of a window or an author that whoever deploys names mentions nobody and ends no block."""
    text = messages.changed(told((f"+ prod: window: {line}",), author=f"<!here> {author}"))
    assert "<!" not in text
    assert text.count("```") == 2
