"""What the explain command says: could it go, why not, and who could approve it; and that it changes nothing."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer import BadParameter
from world import AMY, BEN, DANA, GROUP, GUS, NOON, ZED, World, world_in

from bot.__main__ import moment
from bot.core.board import BadVersion, Lock, Scope, Soaked
from bot.core.dossier import Commit, Commits
from bot.core.gates import Stand
from bot.core.membership import MOST_ASKED
from bot.core.ports import Sources
from bot.explain import GOES, STAYS, UNKNOWN, Explaining, Row, said
from bot.playground.workshop import Workshop

HOUR = timedelta(hours=1)
RULES: dict[str, Any] = {"approvals": {"rules": [{"users": [AMY, BEN], "min": 1}]}}
NIGHT = {"deny": "0 18 * * *", "for": "12h", "zone": "UTC", "why": "nobody is awake"}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


def explaining(
    world: World, *, at: datetime | None = None, sources: Sources | None = None, **config: Any
) -> Explaining:
    """On this world, with other words in promote.yaml."""
    drafting = world.new_drafting(catalog=world.configure(**config))
    drafting = replace(drafting, sources=sources or drafting.sources)
    now = world.clock.now()
    return Explaining(drafting=drafting, directory=world.directory, store=world.store, now=now, at=at or now)


async def told(
    world: World,
    *,
    environment: str = "prod",
    version: str | None = None,
    user: str | None = None,
    at: datetime | None = None,
    sources: Sources | None = None,
    prod: dict[str, Any] | None = None,
    **config: Any,
) -> tuple[int, dict[str, Row]]:
    """The exit code, and the rows by what they are about."""
    policies = {"policies": {"prod": RULES if prod is None else RULES | prod}} | config
    rows: list[Row] = []

    async def kept() -> AsyncIterator[Row]:
        found = explaining(world, at=at, sources=sources, **policies).rows(
            app="manual-app", environment=environment, version=version, user=user
        )
        async for row in found:
            rows.append(row)
            yield row

    code = await world.moving(said(kept(), lambda _: None))
    return code, {row.what: row for row in rows}


class Brings:
    """A source repository with these commits between any two builds."""

    def __init__(self, *commits: Commit) -> None:
        self.found = Commits(count=len(commits), newest=commits)

    async def between(self, *_: Any) -> Commits:
        """The commits that lie between two builds."""
        return self.found


def by(email: str) -> Commit:
    return Commit(revision="a" * 40, subject="Change it", author=email.partition("@")[0], email=email)


async def test_what_could_go_is_told_with_everybody_who_could_approve(world: World) -> None:
    """The version that stage runs, each gate, the requester, and every approver by id and name."""
    code, rows = await told(world, user=DANA)
    assert code == GOES
    assert rows["version"].says.startswith("14 → 15")
    assert rows["gate: order"].says == "stage runs 15, live and healthy"
    assert rows["requester: Dana Ortiz (U0DANADEV01)"].stand is Stand.OPEN
    assert rows["approver: Amy Chen (U0AMYAPPR01)"].says == "could approve"
    assert rows["approver: Ben Ruiz (U0BENAPPR01)"].says == "could approve"
    assert rows["rule 1"].says == f"needs 1 of {AMY}, {BEN}; 2 could"


async def test_nothing_is_written(world: World) -> None:
    """No key of the store differs afterwards, and no commit is made, also where groups were asked."""

    async def everything() -> dict[bytes, bytes]:
        async with Redis.from_url(world.redis_url) as raw:
            return {key: await raw.dump(key) for key in await raw.keys("*")}

    world.slack.add_group(GROUP, handle="releasers", users=[AMY, BEN])
    await world.board.lock(Lock(scope=Scope(environment="prod"), by=AMY, reason="freeze", at=NOON))
    before, commits = await everything(), world.commits()
    assert before
    await told(
        world, user=DANA, prod={"approvals": {"rules": [{"group": GROUP, "min": 1}]}, "windows": [NIGHT]}
    )
    assert (await everything(), world.commits()) == (before, commits)


async def test_who_could_not_approve_is_told_with_the_reason(world: World) -> None:
    """The requester, who is denied, who has left, a guest and an author each have theirs."""
    approvals = {
        "rules": [{"users": [AMY, BEN, DANA, ZED, GUS], "min": 1}],
        "deny": {"users": [BEN]},
        "commit_authors": False,
        "unknown_authors": "allow",
    }
    source = {"url": "https://git.example.com/acme/manual-app.git"}
    code, rows = await told(
        world,
        user=DANA,
        prod={"approvals": approvals},
        sources=Brings(by("amy@acme.example")),
        apps={"manual-app": {"image": "ghcr.io/acme/manual-app", "source": source}},
    )
    assert code == STAYS
    why = {name: row.says for name, row in rows.items() if name.startswith("approver")}
    assert why["approver: Dana Ortiz (U0DANADEV01)"].startswith("requester")
    assert why["approver: Amy Chen (U0AMYAPPR01)"].startswith("author")
    assert why["approver: Ben Ruiz (U0BENAPPR01)"].startswith("denied")
    assert why["approver: Zed Gray (U0ZEDLEFT01)"] == "left"
    assert why["approver: Gus Weber (U0GUSGUEST1)"] == "no full member of the workspace"
    assert rows["rule 1"].says.endswith("; 0 could")
    assert rows["approvals"].says.startswith("Nobody could approve this: prod needs 1 of")


async def test_a_rule_that_cannot_be_met_is_named(world: World) -> None:
    """Two must approve, and one of them asks."""
    rules = {"approvals": {"rules": [{"users": [AMY, BEN], "min": 2}]}}
    assert (await told(world, user=DANA, prod=rules))[0] == GOES
    code, rows = await told(world, user=AMY, prod=rules)
    assert code == STAYS
    assert rows["rule 1"].stand is Stand.CLOSED
    assert rows["rule 1"].says == f"needs 2 of {AMY}, {BEN}; 1 could"


async def test_authors_that_nobody_knows_close_it(world: World) -> None:
    """As a request would be refused: it is named whose address is not known."""
    approvals = RULES["approvals"] | {"commit_authors": False}
    source = {"url": "https://git.example.com/acme/manual-app.git"}
    code, rows = await told(
        world,
        prod={"approvals": approvals},
        sources=Brings(by("stranger@else.example")),
        apps={"manual-app": {"image": "ghcr.io/acme/manual-app", "source": source}},
    )
    assert code == STAYS
    assert "I do not know who stranger is" in rows["approvals"].says


@pytest.mark.parametrize(("hours", "code"), [(0, GOES), (5.99, GOES), (6, STAYS), (17.99, STAYS), (18, GOES)])
async def test_the_windows_are_those_of_the_given_moment(world: World, hours: float, code: int) -> None:
    """At noon prod is open; at night it is not, and the row says until when."""
    found, rows = await told(world, at=NOON + hours * HOUR, prod={"windows": [NIGHT]})
    assert found == code
    assert ("opens at 2026-03-03 06:00 UTC" in rows["gate: windows"].says) is (code == STAYS)


@pytest.mark.parametrize(("hours", "code"), [(0, STAYS), (1.99, STAYS), (2, GOES)])
async def test_a_lock_with_an_end_is_over_at_its_end(world: World, hours: float, code: int) -> None:
    """At another time it may be gone; one without an end never is."""
    lock = Lock(scope=Scope(), by=AMY, reason="freeze", at=NOON, until=NOON + 2 * HOUR)
    # By the server's clock it is over already, and kept for a day at the least.
    await world.board.lock(lock)
    assert (await told(world, at=NOON + hours * HOUR))[0] == code


@pytest.mark.parametrize(("hours", "code"), [(0, STAYS), (9.99, STAYS), (10, GOES)])
async def test_what_soaks_goes_on_soaking_until_then(world: World, hours: float, code: int) -> None:
    """Of 24 h it has run 14: ten hours from now, if it stays healthy, it could go."""
    draft = await world.moving(world.new_drafting().draft(world.target(), None, skips=frozenset()))
    soaked = Soaked(total=14 * HOUR, seen_at=NOON, was_healthy=True)
    await world.board.soak("manual-app", "stage", draft.image, soaked)
    found, rows = await told(world, at=NOON + hours * HOUR, prod={"soak": "24h"})
    assert found == code
    assert ("opens at 2026-03-02 22:00 UTC" in rows["gate: soak"].says) is (code == STAYS)


async def test_what_is_not_healthy_soaks_no_more(world: World) -> None:
    """Time alone does not help it."""
    draft = await world.moving(world.new_drafting().draft(world.target(), None, skips=frozenset()))
    soaked = Soaked(total=14 * HOUR, seen_at=NOON, was_healthy=False)
    await world.board.soak("manual-app", "stage", draft.image, soaked)
    assert (await told(world, at=NOON + 100 * HOUR, prod={"soak": "24h"}))[0] == STAYS


async def test_what_nobody_can_ask_is_neither_yes_nor_no(world: World) -> None:
    """A probe whose system is away: nobody can tell; with a closed gate beside it, the answer is no."""
    probe = {"name": "errors", "url": "http://127.0.0.1:9/", "allow_local": True, "within": "1s"}
    code, rows = await told(world, prod={"probes": [probe]})
    assert (code, rows["gate: probes"].stand) == (UNKNOWN, Stand.UNKNOWN)
    await world.board.block(BadVersion(app="manual-app", version="15", by=AMY, reason="leaks", at=NOON))
    code, rows = await told(world, prod={"probes": [probe]})
    assert (code, rows["gate: bad version"].says) == (STAYS, "15 is blocked: leaks")


async def test_another_request_that_holds_the_target_is_named(world: World) -> None:
    """As long as it is there, no other one can be made."""
    id = await world.request()
    code, rows = await told(world)
    assert code == STAYS
    assert id in rows["target"].says


@pytest.mark.parametrize("user", [ZED, GUS])
async def test_who_may_not_ask_is_told_so(world: World, user: str) -> None:
    """Somebody who has left or is a guest asks for nothing."""
    code, rows = await told(world, user=user)
    [row] = [row for what, row in rows.items() if what.startswith("requester")]
    assert (code, row.stand) == (STAYS, Stand.CLOSED)


async def test_who_is_not_among_the_requesters_is_told_so(world: World) -> None:
    """Where promote.yaml names them, also by a group."""
    world.slack.add_group(GROUP, handle="releasers", users=[BEN])
    assert (await told(world, user=DANA, prod={"requesters": [GROUP]}))[0] == STAYS
    assert (await told(world, user=BEN, prod={"requesters": [GROUP]}))[0] == GOES


async def test_what_is_there_already_does_not_go(world: World) -> None:
    """There is nothing to do."""
    code, rows = await told(world, environment="dev", version="16")
    assert code == STAYS
    assert rows["version"].says == "dev already has 16; nothing to do"


async def test_where_nobody_has_to_approve_nobody_is_named(world: World) -> None:
    """An environment without rules for it."""
    code, rows = await told(world, environment="dev", version="17")
    assert (code, rows["approvals"].says) == (GOES, "nobody has to approve")


async def test_unknown_names_are_refused_with_the_nearest_match(world: World) -> None:
    """As everywhere else."""
    rows = explaining(world).rows(app="manual-app", environment="prd", version=None, user=None)
    heard: list[str] = []
    assert await said(rows, heard.append) == STAYS
    assert "Did you mean “prod”?" in heard[0]


async def test_a_no_stays_a_no_where_the_rest_cannot_be_asked(world: World) -> None:
    """Slack is away, and so nobody can tell who could approve; but a blocked version goes nowhere."""
    await world.board.block(BadVersion(app="manual-app", version="15", by=AMY, reason="leaks", at=NOON))
    world.slack.api.scopes = frozenset()
    assert (await told(world))[0] == STAYS
    await world.board.unblock("manual-app", "15")
    assert (await told(world))[0] == UNKNOWN


async def test_of_a_very_large_group_not_everybody_is_looked_up(world: World) -> None:
    """Slack answers only so many questions a minute; what is left out is said."""
    crowd = [f"U0CROWD{number:04}" for number in range(MOST_ASKED + 5)]
    for user in crowd:
        world.slack.add_user(
            user, name=user.lower(), real_name=user, email=f"{user}@acme.example", kind="member"
        )
    world.slack.add_group(GROUP, handle="releasers", users=crowd)
    code, rows = await told(world, prod={"approvals": {"rules": [{"group": GROUP, "min": 1}]}})
    assert code == GOES
    assert rows["approvers"].says == "5 more were not looked up"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-12-24T10:00Z", datetime(2026, 12, 24, 10, tzinfo=UTC)),
        ("2026-12-24T11:00+01:00", datetime(2026, 12, 24, 10, tzinfo=UTC)),
        ("2026-12-24T10:00", datetime(2026, 12, 24, 10, tzinfo=UTC)),
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(text: str, meant: datetime) -> None:
    """As everywhere else in the bot."""
    assert moment(text) == meant


def test_what_is_no_moment_is_refused() -> None:
    """With an example."""
    with pytest.raises(BadParameter, match="2026-12-24T10:00Z"):
        moment("tomorrow")


# --- the command


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path / "workshop")
    await made.start(with_bot=False)
    yield made
    await made.stop()


async def test_the_command_prints_a_table_and_exits_as_it_says(workshop: Workshop) -> None:
    """0 it could go, 1 it could not, 2 nobody can tell."""
    code, text = await workshop.command_line("explain", "manual-app", "dev", "--version", "15")
    assert (code, text.splitlines()[-1]) == (GOES, "It could go.")
    assert "open     version" in text
    code, text = await workshop.command_line("explain", "manual-app", "prod", "--version", "15")
    assert (code, text.splitlines()[-1].startswith("It could not go")) == (STAYS, True)
    code, text = await workshop.command_line("explain", "manual-app", "prd")
    assert (code, text.splitlines()[0].split()[:2]) == (STAYS, ["closed", "promotion"])
    assert "Did you mean “prod”?" in text
    await workshop.argocd.stop()
    code, text = await workshop.command_line("explain", "manual-app", "prod")
    assert (code, text.splitlines()[-1].startswith("Nobody can tell")) == (UNKNOWN, True)
    assert any(line.startswith("unknown ") for line in text.splitlines())


async def test_the_command_leaves_the_store_as_it_was(workshop: Workshop, redis_url: str) -> None:
    """Also where it asks for a user group, which the running bot shares through the store."""
    config = workshop.folder / "promote.yaml"
    workshop.slack.add_group(GROUP, handle="releasers", users=[AMY])
    config.write_text(re.sub(r"users: \[.*?\]", f"group: {GROUP}", config.read_text()))
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "explain", "manual-app", "prod", "--as", DANA),
        cwd=Path(__file__).parents[1],
        env={**workshop.environment(), "REDIS_URL": redis_url},
        stdout=asyncio.subprocess.PIPE,
    )
    text, _ = await done.communicate()
    assert f"needs 1 of {GROUP}" in text.decode()
    async with Redis.from_url(redis_url) as raw:
        assert await raw.keys("*") == []


def test_without_settings_nobody_can_tell(tmp_path: Path) -> None:
    """A wrong setting is no “no”, and no traceback."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PROMOTE_CONFIG": str(tmp_path / "none.yaml"),
    }
    words = ["-m", "bot", "explain", "manual-app", "prod"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == UNKNOWN
    assert "Traceback" not in done.stderr
