"""`python -m bot history`, and the same question in Slack: the whole story from git, also when the store is lost."""

import csv
import io
import json
import subprocess
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import DANA as DANA_O
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from test_command_line import bot
from test_history import entry_of, hostile_commits
from test_history_messages import PROMOTED, ROWS
from test_messages import assert_harmless
from world import AMY, DANA, GUS, TEAM, World, push, world_in

from bot.core.ports import Written
from bot.core.promotion import Phase, PromotionId
from bot.git_access import COMMITTER
from bot.history import COLUMNS, as_csv, as_json, as_table, cell

SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"
FORMULAS = [
    *(f"{sign}cmd|' /C calc'!A0" for sign in SIGNS),
    *(f"{before}=1+1" for before in (" ", "\t", "\r", "\n", '"', "'", ' "', '""', "\u3000", "\xa0", "“")),
    *("\t", "\r", "a;=1+1", 'a;"=1+1', "a; ＝1+1", '";=1+1;"', "−2+3", ";-1", "a\t=1"),
]
cells = st.one_of(
    st.sampled_from(FORMULAS),
    st.text(max_size=20),
    st.lists(st.sampled_from([*SIGNS, '"', "'", ";", ",", " ", "\t", "\r", "\n", "x", "1"]), max_size=8).map(
        "".join
    ),
)


def is_a_formula(text: str) -> bool:
    """Would a spreadsheet calculate with it, be it generous with spaces, quotes and wide letters?"""
    bare = unicodedata.normalize("NFKC", text).strip(' \t\r\n\xa0\u3000"“”‘’')
    return bare[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r")


def calculates(content: str) -> list[str]:
    """The cells that a spreadsheet would take for formulas, whichever of `,` and `;` ends a cell for it."""
    ended_by_commas = [each for row in csv.reader(io.StringIO(content, newline="")) for each in row]
    # What takes `;` for the end of a cell finds our quotes in the middle of words, where they mean nothing.
    ended_by_semicolons = [each for line in content.splitlines() for each in line.split(";")[1:]]
    return [each for each in [*ended_by_commas, *ended_by_semicolons] if is_a_formula(each)]


@given(cells)
def test_no_cell_begins_a_formula(text: str) -> None:
    """An apostrophe stands before whatever would calculate; nothing else of the text is changed, and nothing needless."""
    guarded = cell(text)
    assert not is_a_formula(guarded)
    assert guarded.replace("'", "") == text.replace("'", "")
    if not any(sign in text for sign in (*SIGNS, "−", "\t", "\r", "\n")):
        assert guarded == text


@pytest.mark.parametrize("text", FORMULAS)
def test_known_attacks_on_spreadsheets_are_words(text: str) -> None:
    """In whatever column, and also where `;` ends a cell, each stays text."""
    hostile = replace(
        PROMOTED,
        app=text,
        environment=text,
        source=text,
        old_version=text,
        new_version=text,
        requested_by=replace(DANA_O, name=text, email=text),
        approved_by=(replace(DANA_O, name=text), DANA_O),
        reason=text,
        incident=text,
        slack_message=text,
        brings=text,
        build=text,
    )
    assert calculates(as_csv([hostile])) == []


@given(st.lists(hostile_commits, max_size=6), cells, cells)
def test_every_table_is_whole_whatever_stands_in_it(commits: list[Written], reason: str, name: str) -> None:
    """A row for each commit, a cell for each column, and no formula; the JSON has the very words."""
    odd = replace(PROMOTED, reason=reason, new_version=reason, requested_by=replace(DANA_O, name=name))
    entries = [odd, *(entry_of(each, PROMOTED.repository) for each in commits)]
    content = as_csv(entries)
    assert calculates(content.replace("\n", " ").replace("\r", " ")) == []
    header, *rows = csv.reader(io.StringIO(content, newline=""))
    assert tuple(header) == COLUMNS
    assert [len(row) for row in rows] == [len(COLUMNS)] * len(entries)
    assert rows[0][COLUMNS.index("reason")] == cell(reason)
    assert rows[0][COLUMNS.index("requested_by")] == cell(name)
    objects = [json.loads(line) for line in as_json(entries).split("\n")[:-1]]
    assert len(objects) == len(entries)
    assert (objects[0]["reason"], objects[0]["requested_by"]["name"]) == (reason, name)
    assert {tuple(each) for each in objects} == {tuple(objects[0])}


def test_the_json_has_the_words_of_the_domain() -> None:
    """One commit, every key, and what is not there is null."""
    [line] = as_json([PROMOTED]).splitlines()
    assert json.loads(line) == {
        "at": "2026-03-01T12:00:00Z",
        "app": "manual-app",
        "environment": "prod",
        "from": "stage",
        "old_version": "14",
        "new_version": "15",
        "digest": "unknown",
        "promotion": "P-7F3KQ0V9XZ",
        "requested_by": {"id": "U0DANA", "team": "T0ACME", "name": "Dana", "email": "dana@example.com"},
        "approved_by": [
            {"id": "U0AMY", "team": "T0ACME", "name": "Amy", "email": "amy@example.com"},
            {"id": "U0BEN", "team": "T0ACME", "name": "Ben", "email": None},
        ],
        "way": None,
        "rollback_of": None,
        "incident": None,
        "reason": "fixes INC-42",
        "repository": "gitops",
        "branch": "main",
        "revision": PROMOTED.revision,
        "commit": f"https://git.example.com/acme/manual-app-helm/commit/{PROMOTED.revision}",
        "slack_message": None,
        "brings": None,
        "build": None,
    }


def test_the_table_reads_as_it_was_agreed() -> None:
    """Columns stand below one another; what is too long is cut."""
    lines = as_table([*ROWS, replace(PROMOTED, reason="x" * 50)]).splitlines()
    assert lines[0].split("  ")[0] == "AT"
    said = " ".join(lines[1].split())
    assert said == (
        "2026-03-01T12:00Z manual-app/prod 14 15 Dana (U0DANA) Amy (U0AMY), Ben (U0BEN) 3f9c2a1b fixes INC-42"
    )
    assert "AT ONCE, ROLLBACK" in lines[3]
    assert "EMERGENCY" in lines[4]
    assert " CI " in lines[6]
    assert lines[8].endswith(f"{'x' * 39}…")
    assert len({line.index("3f9c2a1b") for line in lines[1:]}) == 1


CONFIG = """\
version: 1
environments: [dev, stage, prod]
slack: {{channel: C0DEPLOYS01}}
repositories: {{gitops: {{url: "{url}", allow_local: true}}}}
argocd: {{main: {{url: "https://argocd.acme.example"}}}}
defaults: {{repository: gitops, argocd: main, keys: [image.tag], values: "values-{{env}}.yaml", applications: ["{{app}}-{{env}}"]}}
apps: {{manual-app: {{image: ghcr.io/acme/manual-app}}}}
policies: {{dev: {{}}, stage: {{}}, prod: {{approvals: {{rules: [{{users: [U0AMYAPPR01], min: 1}}]}}}}}}
"""


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made, made.hearing():
        (tmp_path / "promote.yaml").write_text(CONFIG.format(url=made.repository.as_uri()))
        yield made


def run(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, which is told of no store, no Slack and no Argo CD."""
    config, data = str(world.folder / "promote.yaml"), str(world.folder / "data")
    return bot(*words, PROMOTE_CONFIG=config, PROMOTE_DATA_DIR=data)


def told(world: World, *words: str) -> list[dict[str, Any]]:
    """What `history … --json` prints."""
    done = run(world, "history", *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def asked(world: World, text: str, *, user: str = DANA) -> str:
    """The private answer to `/promote …`."""
    before = len(world.told(user))
    await world.command(text, user=user)
    return await world.answer(user, number=before + 1)


async def approved(world: World, text: str) -> PromotionId:
    """A promotion that Dana types, Amy approves in Slack, and that is live in the end."""
    assert "Its card is in" in await world.moving(asked(world, text))
    [(promotion, _)] = await world.promoter.pending()
    await world.advance(promotion.id)
    await world.press(promotion.id, "approve", user=AMY)
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    return promotion.id


async def test_the_whole_story_is_told_when_the_store_is_lost(world: World) -> None:
    """What went through Slack, what was taken back and what CI wrote: both ways tell it all, from git alone."""
    promoted = await approved(world, "manual-app prod because =1+1; fixes INC-42")
    back = await approved(world, "rollback manual-app prod because 15 is slow")
    assert run(world, "set-image", "manual-app", "dev", "17").stdout.startswith("dev: 16 → 17")
    before = (told(world), await asked(world, "history manual-app"))
    async with Redis.from_url(world.redis_url) as client:
        await client.flushall()
    records, answer = told(world), await asked(world, "history manual-app")
    assert (records, answer) == before

    assert [(each["environment"], each["old_version"], each["new_version"]) for each in records] == [
        ("dev", "16", "17"),
        ("prod", "15", "14"),
        ("prod", "14", "15"),
    ]
    by_ci, took_back, first = records
    assert (by_ci["requested_by"]["id"], by_ci["from"], by_ci["approved_by"]) == ("CI", "ci", [])
    assert (took_back["promotion"], took_back["rollback_of"], took_back["reason"]) == (
        back,
        promoted,
        "15 is slow",
    )
    assert (first["promotion"], first["rollback_of"], first["way"]) == (promoted, None, None)
    assert first["requested_by"] == {
        "id": DANA,
        "team": TEAM,
        "name": "Dana Ortiz",
        "email": "dana@acme.example",
    }
    assert [each["id"] for each in first["approved_by"]] == [AMY]
    assert first["reason"] == "=1+1; fixes INC-42"
    assert first["at"] < took_back["at"]
    assert [each["revision"] for each in records] == world_revisions(world)

    rows = answer.splitlines()[-3:]
    assert f"asked by CI, `{by_ci['revision'][:8]}`" in rows[0]
    assert f"`15` → `14`  *ROLLBACK* of `{promoted}`, asked by <@{DANA}>, approved by <@{AMY}>" in rows[1]
    assert f"`14` → `15`, asked by <@{DANA}>, approved by <@{AMY}>, `{first['revision'][:8]}`" in rows[2]
    header, *table = csv.reader(io.StringIO(run(world, "history", "--csv").stdout, newline=""))
    assert [dict(zip(header, row, strict=True))["reason"] for row in table] == [
        "",
        "15 is slow",
        "'=1+1; fixes INC-42",
    ]
    assert "AT" in run(world, "history").stdout.splitlines()[0]


def world_revisions(world: World) -> list[str]:
    """The bot's own commits, newest first."""
    return [commit.revision for commit in world.commits()]


async def test_the_command_line_asks_git_and_nothing_else(world: World) -> None:
    """It starts no store and needs no secret; where git is away it says so, and prints no half of a table."""
    await world.committed()
    assert len(told(world, "manual-app", "prod")) == 1
    assert [each.name for each in (world.folder / "data").iterdir()] == ["mirrors"]
    with world.git_host_away():
        done = run(world, "history", "--csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "git" in done.stderr
    assert "Traceback" not in done.stderr


async def test_what_is_asked_for_is_what_is_told(world: World) -> None:
    """App, environment, times and person, in Slack and on the command line."""
    await world.committed()
    day = f"{world.clock.at:%Y-%m-%d}"
    for words, count in {
        ("manual-app",): 1,
        ("manual-app", "stage"): 0,
        ("manual-app", "prod", "since", day, "until", day, "by", DANA): 1,
        ("manual-app", "since", day, "until", f"{day}T12:00Z"): 0,
        ("manual-app", "by", AMY): 0,
        ("manual-app", "by", f"<@{DANA}|dana>"): 1,
        ("manual-app", "by", "ci"): 0,
    }.items():
        answer = await asked(world, f"history {' '.join(words)}")
        assert (": 1 commit." in answer, "None of my commits" in answer) == (count == 1, count == 0), answer
        options = [f"--{word}" if word in ("since", "until", "by") else word for word in words]
        if "<" not in " ".join(words):
            assert len(told(world, *options)) == count


async def test_who_asks_may_name_people(world: World) -> None:
    """`me` is who types it in Slack; a name finds the id, and the answer says whose; the command line knows no `me`."""
    await world.committed()
    whose = f"by Dana Ortiz ({DANA}): 1 commit."
    for name in ("@Dana Ortiz", "dana ortiz", "@dana.ortiz", "@DanaOrtiz"):
        answer = await asked(world, f"history manual-app prod by {name} since 1d")
        assert whose in answer
        assert f"--by {DANA} --csv" in answer
    assert f"by <@{DANA}>: 1 commit." in await asked(world, "history manual-app by me")
    none = await asked(world, "history manual-app by ME", user=AMY)
    assert none == f"None of my commits tells of *manual-app* by <@{AMY}>."
    assert [each["requested_by"]["id"] for each in told(world, "--by", "@dana_ortiz")] == [DANA]
    done = run(world, "history", "--by", "me")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The command line cannot tell who “me” is")


async def test_a_name_that_two_have_is_refused(world: World) -> None:
    """Who can write a commit can write a name into it: nobody is taken for somebody else, and no name acts."""
    await world.committed()
    trailers = ["Promotion-Id: P-7F3KQ0V9XZ", "App: manual-app", "Environment: prod", "New-Version: 66"]
    for number, name in enumerate(("Dana Ortiz", "<!channel> *Eve*")):
        text = "\n".join(["Promote", "", *trailers, f"Requested-By: {name} <x@x> (T1/U{number})"])
        push(
            world.repository,
            {"NOTES.md": text},
            message=text,
            who=(COMMITTER.name, COMMITTER.email or ""),
        )
    two = await asked(world, "history manual-app by @dana.ortiz")
    assert two == (
        ":no_entry_sign: 2 people are called “@dana.ortiz”. Type the id of the one that you mean: "
        f"Dana Ortiz (U0), Dana Ortiz ({DANA})."
    )
    none = await asked(world, "history manual-app by dana")
    assert_harmless(none)
    assert f"Dana Ortiz (U0), Dana Ortiz ({DANA})" in none
    assert "Eve" in none
    done = run(world, "history", "--by", "Dana Ortiz")
    assert (done.returncode, done.stdout) == (1, "")
    assert "2 people are called “Dana Ortiz”" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("manual-ap", "Did you mean “manual-app”?"),
        ("manual-app --since soon", "I do not understand the time “soon”. Type 24h, 7d or 4w"),
        ("manual-app --by @dana", "Nobody called “@dana” has asked for any of this. Nobody else has either."),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_both_places(world: World, words: str, says: str) -> None:
    """The same sentence, in Slack and on the command line; never an empty history."""
    done = run(world, "history", *words.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert says in await asked(world, f"history {words.replace('--', '')}")


def test_a_table_is_of_one_kind() -> None:
    """Both forms at once can be nobody's wish."""
    done = bot("history", "--csv", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not both" in done.stderr


async def test_a_guest_is_told_nothing(world: World) -> None:
    """Only full members may ask what was promoted."""
    await world.committed()
    answer = await asked(world, "history manual-app", user=GUS)
    assert answer.startswith(":no_entry_sign:")
    assert "14" not in answer


async def test_what_was_forged_in_git_breaks_nothing(world: World) -> None:
    """Somebody writes commits in the bot's name: each is shown as far as it can be read, and none acts."""
    await world.committed()
    trailers = ["Promotion-Id: <!channel>", "App: manual-app", "Environment: prod", 'New-Version: "=1+1']
    forged = [
        "Requested-By: ＝x <x@x> (T/U1> <!here>)",
        "Approved-By: @x <x@x> (T/U0EVE)",
        "Break-Glass: true",
    ]
    text = "\n".join(["Promote", "", *trailers, *forged])
    push(world.repository, {"NOTES.md": "x"}, message=text, who=(COMMITTER.name, COMMITTER.email or ""))
    record = told(world)[0]
    assert (record["promotion"], record["requested_by"]["id"], record["way"]) == (
        "unknown",
        "unknown",
        "emergency",
    )
    assert record["approved_by"][0]["name"] == "@x"
    assert calculates(run(world, "history", "--csv").stdout) == []
    answer = await asked(world, "history manual-app prod")
    assert_harmless(answer)
    assert "2 commits" in answer
