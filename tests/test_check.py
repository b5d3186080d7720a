"""What the check command says of people, rules, windows, probes, sources and what others push."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from world import AMY, BEN, DANA, GROUP, GUS, MEL, NOON, OLGA, ROBO, ZED, World, world_in

from bot import check
from bot.check import Line
from bot.core.dossier import Commits
from bot.core.policy import Effect, Window
from bot.integrations.calendar import CronCalendar

HOUR = timedelta(hours=1)
ONE: dict[str, Any] = {"approvals": {"rules": [{"users": [AMY], "min": 1}]}}
SOURCE = "https://git.example.com/acme/manual-app.git"
EMPTY = "S0EMPTYGRP"

Look = Callable[[Any], AsyncIterator[Line]]


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def lines(
    world: World, look: Look, *, prod: dict[str, Any] | None = None, unknown: str = "", **config: Any
) -> dict[str, Line]:
    """What one part of the check says, by what it is about; nothing is said twice."""

    async def between(*_: Any) -> Commits:
        return Commits(unknown=unknown)

    outside = SimpleNamespace(
        catalog=world.configure(**({"policies": {"prod": prod or ONE}} | config)),
        directory=world.directory,
        gitops=world.values,
        argocd=world.cluster,
        probes=world.probes,
        sources=SimpleNamespace(between=between),
    )
    found = [line async for line in look(outside)]
    assert len({line.what for line in found}) == len(found)
    return {line.what: line for line in found}


@pytest.mark.parametrize(
    "where",
    [
        lambda user: {"approvals": {"rules": [{"users": [AMY, user], "min": 1}]}},
        lambda user: {"requesters": [user]},
        lambda user: {"lockers": [user]},
        lambda user: {"checks": [{"name": "accepted", "reporters": [user]}]},
        lambda user: {"rollback": {"who": [user]}},
        lambda user: {"emergency": {"who": [user], "skips": ["soak"]}},
    ],
    ids=["approvals", "requesters", "lockers", "reporters", "rollback", "emergency"],
)
@pytest.mark.parametrize(
    ("user", "level", "says"),
    [
        (MEL, "ok", "Mel Roth: "),
        (ZED, "error", "Zed Gray is deactivated"),
        (GUS, "error", "Gus Weber is a guest"),
        (OLGA, "error", "Olga Sand is of another workspace"),
        (ROBO, "error", "Robo is a bot"),
        ("U0NOBODY001", "error", "U0NOBODY001 is deactivated, or nobody knows them"),
    ],
    ids=["member", "deactivated", "guest", "stranger", "bot", "unknown"],
)
async def test_whoever_has_a_right_must_be_a_full_member(
    world: World, where: Callable[[str], dict[str, Any]], user: str, level: str, says: str
) -> None:
    """Every list of a policy that gives one is looked at."""
    found = await lines(world, check._people, prod=where(user))
    assert (found[f"slack: {user}"].level, found[f"slack: {user}"].says[: len(says)]) == (level, says)


async def test_who_has_no_right_is_a_warning_at_most(world: World) -> None:
    """People who are denied, told of requests, or wrote commits long ago may have left since."""
    approvals = ONE["approvals"] | {"deny": {"users": [ZED]}, "notify": [GUS]}
    found = await lines(
        world, check._people, prod={"approvals": approvals}, identities={"rob@acme.example": ROBO}
    )
    levels = {what: line.level for what, line in found.items()}
    assert levels == {
        f"slack: {AMY}": "ok",
        f"slack: {ZED}": "warn",
        f"slack: {GUS}": "warn",
        f"slack: {ROBO}": "warn",
    }


async def test_each_person_has_one_line_with_all_lists(world: World) -> None:
    """However often promote.yaml names them."""
    rules: dict[str, Any] = {"requesters": [AMY, DANA], "lockers": [AMY]} | ONE
    found = await lines(world, check._people, policies={"stage": rules, "prod": rules})
    assert found[f"slack: {AMY}"].says == "Amy Chen: approvals, requesters, lockers"
    assert len(found) == 2


async def test_a_group_that_gives_a_right_must_not_be_empty(world: World) -> None:
    """One that is only told of something is a warning."""
    world.slack.add_group(GROUP, handle="releasers", users=[AMY, BEN])
    rules: dict[str, Any] = {"lockers": [GROUP, EMPTY]}
    found = await lines(world, check._groups, prod=rules)
    assert found[f"slack: group {GROUP}"].says == "2 people: lockers"
    assert found[f"slack: group {EMPTY}"].level == "error"
    told = {"approvals": ONE["approvals"] | {"notify": [EMPTY]}}
    assert (await lines(world, check._groups, prod=told))[f"slack: group {EMPTY}"].level == "warn"


@pytest.mark.parametrize(
    ("is_disabled", "level", "says"),
    [(True, "error", "the group is disabled or gone: deny"), (False, "warn", "the group is empty: deny")],
)
async def test_without_a_group_that_is_denied_nobody_can_approve(
    world: World, is_disabled: bool, level: str, says: str
) -> None:
    """An empty one denies nobody; of one that is gone nobody knows whom it would deny."""
    world.slack.add_group(GROUP, handle="contractors", users=[]).disabled = is_disabled
    rules = {"approvals": ONE["approvals"] | {"deny": {"groups": [GROUP]}}}
    line = (await lines(world, check._groups, prod=rules))[f"slack: group {GROUP}"]
    assert (line.level, line.says) == (level, says)
    (line,) = (await lines(world, check._approvals, prod=rules)).values()
    assert line.level == ("error" if is_disabled else "ok")


@pytest.mark.parametrize(
    ("users", "minimum", "level"), [([AMY, BEN], 2, "ok"), ([AMY, BEN, ZED], 3, "error"), ([ZED], 1, "error")]
)
async def test_rules_that_no_living_people_can_meet_are_an_error(
    world: World, users: Sequence[str], minimum: int, level: str
) -> None:
    """It names the rule."""
    rules = {"approvals": {"rules": [{"users": users, "min": minimum}]}}
    [line] = (await lines(world, check._approvals, prod=rules)).values()
    assert (line.what, line.level) == ("approvals: prod", level)
    assert ("(rule 1)" in line.says) is (level == "error")


async def test_apps_with_rules_of_their_own_are_looked_at_by_themselves(world: World) -> None:
    """Else one of them hides the others."""
    image = "ghcr.io/acme/manual-app"
    own = {"prod": {"approvals": {"rules": [{"users": [ZED], "min": 1}]}}}
    apps = {"manual-app": {"image": image}, "web": {"image": image, "policies": own}}
    found = await lines(world, check._approvals, apps=apps)
    assert {what: line.level for what, line in found.items()} == {
        "approvals: manual-app/prod": "ok",
        "approvals: web/prod": "error",
    }


NIGHT = Window(effect=Effect.DENY, zone="UTC", cron="0 18 * * *", lasts=12 * HOUR, why="night")
PAST = Window(effect=Effect.ALLOW, zone="UTC", begins=NOON - 2 * HOUR, ends=NOON - HOUR)
FUTURE = Window(effect=Effect.DENY, zone="UTC", begins=NOON - 2 * HOUR, ends=NOON - HOUR)


@pytest.mark.parametrize(
    ("window", "at", "level", "says"),
    [
        (NIGHT, NOON, "ok", "open until 2026-03-02 18:00 UTC"),
        (NIGHT, NOON + 8 * HOUR, "ok", "closed now, and opens at 2026-03-03 06:00 UTC: night"),
        (PAST, NOON, "warn", "closed: "),
        (FUTURE, NOON, "ok", "open"),
    ],
    ids=["open", "closed", "closed for ever", "open for ever"],
)
def test_windows_say_what_holds_now_and_when_that_changes(
    window: Window, at: datetime, level: str, says: str
) -> None:
    """One that never opens again is a warning."""
    line = check._hours("windows: prod", CronCalendar(), (window,), at)
    assert (line.level, line.says[: len(says)]) == (level, says)


async def test_only_environments_with_windows_are_named(world: World) -> None:
    """By the clock of the machine."""
    rules = {"windows": [{"allow": "0 0 * * *", "for": "24h", "zone": "UTC"}]}
    found = await lines(world, check._windows, prod=rules)
    assert {what: line.level for what, line in found.items()} == {"windows: prod": "ok"}


async def test_a_probe_that_cannot_be_asked_is_a_warning(world: World) -> None:
    """It would close its gate; which environment's version it was asked with does not matter then."""
    probe = {"name": "errors", "url": "http://127.0.0.1:9/", "within": "1s"}
    [line] = (await lines(world, check._probes, prod={"probes": [probe]})).values()
    assert (line.what, line.level) == ("probe: errors (manual-app/prod)", "warn")


@pytest.mark.parametrize(("answer", "level"), [("", "ok"), ("too many errors", "note")])
async def test_a_probe_is_asked_with_what_would_go(world: World, answer: str, level: str) -> None:
    """With the version that the environment before holds; a no is one that may be a yes tomorrow."""
    asked: list[str] = []

    async def ask(_: Any, target: Any, image: Any) -> str:
        asked.append(f"{target.name} {image.version}")
        return answer

    world.probes = SimpleNamespace(ask=ask, aclose=world.probes.aclose)  # type: ignore[assignment]
    probe = {"name": "errors", "url": "https://errors.example.com/"}
    [line] = (await lines(world, check._probes, prod={"probes": [probe]})).values()
    assert (asked, line.level) == (["manual-app/prod 15"], level)
    assert line.says == f"15: {answer or 'passed'}"


@pytest.mark.parametrize(
    ("approvals", "unknown", "level"),
    [
        ({}, "", "ok"),
        ({}, "no such repository", "warn"),
        ({"commit_authors": False}, "no such repository", "error"),
    ],
)
async def test_a_source_that_cannot_be_read_is_told(
    world: World, approvals: dict[str, Any], unknown: str, level: str
) -> None:
    """An error where a request would be refused for it, because authors must be known."""
    apps = {"manual-app": {"image": "ghcr.io/acme/manual-app", "source": {"url": SOURCE}}}
    rules = {"approvals": ONE["approvals"] | approvals}
    registries: dict[str, Any] = {"ghcr.io": {}}
    found = await lines(world, check._sources, prod=rules, unknown=unknown, apps=apps, registries=registries)
    assert found[f"source: {SOURCE}"].level == level
    assert unknown in found[f"source: {SOURCE}"].says


async def test_what_others_push_and_argo_cd_syncs_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes live without an approval; where nobody has pushed of late, nothing is said."""
    with monkeypatch.context() as nothing_of_late:
        nothing_of_late.setattr(check, "LOOK_BACK", -timedelta(days=1))
        assert await lines(world, check._pushes) == {}
    found = await lines(world, check._pushes)
    assert {what: line.level for what, line in found.items()} == {"pushes: manual-app/prod": "warn"}
    assert "without an approval" in found["pushes: manual-app/prod"].says
