"""Noticing: whoever changes the first environment in git, the newest commit becomes one promotion that is followed."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, push, world_in

from bot.core.errors import Unavailable
from bot.core.promotion import ID, Phase, Promotion
from bot.playground import repository as sample

PATH = "values-dev.yaml"


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        await look(made)  # what is there already is known
        yield made


async def look(world: World, **different: Any) -> tuple[str, ...]:
    """One look at what the remote holds now."""
    return await world.new_noticing(**different).look(fresh={"gitops"})


async def recorded(world: World, environment: str = "dev") -> list[Promotion]:
    """Every promotion of the environment, oldest first."""
    return list(reversed(await world.store.history(world.target(environment), limit=100)))


def values(version: str, **more: str) -> str:
    """The values file of dev with this version."""
    return "\n".join([f'image:\n  tag: "{version}"', *(f"{key}: {value}" for key, value in more.items()), ""])


def commit(world: World, version: str, **how: Any) -> str:
    """Somebody brings a version, and changes nothing else."""
    text = sample.read_file(world.repository, PATH)
    return push(world.repository, {PATH: re.sub('tag: ".*?"', f'tag: "{version}"', text)}, **how)


# --- what becomes a record


async def test_a_commit_of_somebody_else_is_followed_until_it_is_live(world: World) -> None:
    """CI's own commit ends like one of the bot's: its card says that the version is live."""
    revision = commit(world, "17", message="Bump to 17", who=("Jenkins", "ci@acme.example"))
    assert await look(world) == ()
    [promotion] = await recorded(world)
    assert ID.fullmatch(promotion.id)
    assert (promotion.phase, promotion.revision) == (Phase.COMMITTED, revision)
    assert (promotion.old_version, promotion.version, promotion.source) == ("16", "17", "ci")
    assert (promotion.requested_by.name, promotion.requested_by.is_person) == ("Jenkins", False)
    ended = await world.rest(promotion.id)
    assert ended.phase is Phase.LIVE
    assert "Bump to 17" in await world.shown(promotion.id)
    assert "Jenkins committed" in await world.thread(promotion.id)


async def test_a_failure_names_the_resource_and_why(world: World) -> None:
    """Nobody asked in Slack, and the channel hears what is wrong all the same."""
    world.argocd.fail_next_sync("manual-app-dev", "Deployment/manual-app: quota exceeded")
    commit(world, "17")
    await look(world)
    [promotion] = await recorded(world)
    assert (await world.rest(promotion.id)).phase is Phase.FAILED
    assert "quota exceeded" in await world.shown(promotion.id)


async def test_of_several_commits_between_two_looks_the_last_one_is_recorded(world: World) -> None:
    """The newest wins; what came and went before anybody looked is no news."""
    commit(world, "17")
    newest = commit(world, "18")
    await look(world)
    [promotion] = await recorded(world)
    assert (promotion.revision, promotion.old_version, promotion.version) == (newest, "17", "18")


async def test_a_newer_commit_ends_the_older_record(world: World) -> None:
    """One promotion of a target is followed; the older one says what took its place."""
    commit(world, "17")
    await look(world)
    commit(world, "18")
    await look(world)
    older, newer = await recorded(world)
    assert (older.phase, newer.phase) == (Phase.SUPERSEDED, Phase.COMMITTED)
    assert older.ending == f"{newer.id} brought 18"
    assert await world.store.followed(world.target("dev")) == newer.id


async def test_a_commit_that_changes_another_line_brings_nothing(world: World) -> None:
    """The commit that is followed is the one that brought the value, whatever came after it."""
    brought = commit(world, "17")
    text = sample.read_file(world.repository, PATH)
    push(world.repository, {PATH: text + "# a note\n"})
    await look(world)
    push(world.repository, {PATH: text + "# another note\n", "README.md": "Hello\n"})
    await look(world)
    [promotion] = await recorded(world)
    assert promotion.revision == brought


async def test_what_comes_back_is_news(world: World) -> None:
    """From 16 to 17 and back to 16: the second commit is followed, although 16 stood there before."""
    commit(world, "17")
    back = commit(world, "16")
    await look(world)
    [promotion] = await recorded(world)
    assert (promotion.revision, promotion.old_version, promotion.version) == (back, "17", "16")


async def test_a_merge_counts_as_the_change_that_it_brings(world: World) -> None:
    """Whoever merged brought it to the branch; the commits beside it are not on its first line."""
    side = commit(world, "17", message="On a branch of its own")
    git(world, "update-ref", "refs/heads/main", f"{side}^")
    other = push(world.repository, {"README.md": "Hello\n"})
    merge = git(
        world, "commit-tree", f"{side}^{{tree}}", "-p", other, "-p", side, "-m", "Merge pull request #7"
    )
    git(world, "update-ref", "refs/heads/main", merge)
    await look(world)
    [promotion] = await recorded(world)
    assert (promotion.revision, promotion.version, promotion.old_version) == (merge, "17", "16")
    assert promotion.reason == "Merge pull request #7"


# --- what does not


async def test_what_was_there_before_the_first_look_is_no_news(tmp_path: Path, redis_url: str) -> None:
    """A bot that is installed today tells nobody of last year's commits."""
    async with world_in(tmp_path, redis_url) as world:
        commit(world, "17")
        await look(world)
        assert await recorded(world) == []
        commit(world, "18")
        await look(world)
        assert [each.version for each in await recorded(world)] == ["18"]


async def test_what_happened_while_the_bot_was_away_is_told(world: World) -> None:
    """It is remembered in the store how far it had looked."""
    revision = commit(world, "17")
    world.restart()
    await look(world)
    assert [each.revision for each in await recorded(world)] == [revision]


async def test_a_promotion_of_ours_is_not_recorded_twice(world: World) -> None:
    """Before its own record knows of the commit, and after."""
    id = await world.request("dev", "17")
    await world.advance_until(id, Phase.COMMITTED)
    await look(world)
    assert [each.id for each in await recorded(world)] == [id]


async def test_a_commit_whose_record_is_behind_is_left_to_that_record(world: World) -> None:
    """Killed between the push and its record: the worker that comes next finds the commit, and nothing is twice."""
    id = await world.request("dev", "17")
    await world.advance_until(id, Phase.APPROVED)
    approved = await world.find(id)
    await world.advance_until(id, Phase.COMMITTED)
    committed = await world.find(id)
    behind = replace(
        approved, edition=committed.edition, phase=Phase.COMMITTING, base="0" * 40, last=committed.last
    )

    class Behind:
        """The store as it was before the commit was recorded."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def history(self, *_: Any, **__: Any) -> tuple[Promotion, ...]:
            return (behind,)

    await look(world, store=Behind())
    assert [each.id for each in await recorded(world)] == [id]


async def test_a_commit_that_may_be_a_promotions_own_is_left_until_that_is_known(world: World) -> None:
    """A host that squashed a pull request made the commit itself: whose it is, only the record will tell."""
    id = await world.request("dev", "17")
    await world.advance_until(id, Phase.APPROVED)
    writing = replace(await world.find(id), phase=Phase.COMMITTING, base="0" * 40)

    class Writing:
        """The store while the promotion is being written."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def history(self, *_: Any, **__: Any) -> tuple[Promotion, ...]:
            return (writing,)

    commit(world, "17", message="Promote manual-app 17 to dev (#7)")
    before = await world.board.looked_at(branch(world))
    await look(world, store=Writing())
    assert [each.id for each in await recorded(world)] == [id]
    assert await world.board.looked_at(branch(world)) == before
    await look(world)
    assert len(await recorded(world)) == 2


@pytest.mark.parametrize(("version", "old"), [("16", None), ("17", "16")])
async def test_what_nobody_could_read_in_between_does_not_count(
    world: World, version: str, old: str | None
) -> None:
    """A broken file that is mended brings what is new against the last one that could be read."""
    text = sample.read_file(world.repository, PATH)
    push(world.repository, {PATH: "image: ["})
    push(world.repository, {PATH: text.replace('"16"', f'"{version}"')})
    await look(world)
    assert [each.old_version for each in await recorded(world)] == ([old] if old else [])


async def test_only_the_first_environment_is_looked_at(world: World) -> None:
    """What somebody writes by hand into stage or prod is no promotion."""
    world.push_by_hand("stage", "17")
    world.push_by_hand("prod", "17")
    await look(world)
    for environment in ("dev", "stage", "prod"):
        assert await recorded(world, environment) == []


# --- any number of processes


async def test_however_many_look_there_is_one_record(world: World) -> None:
    """Each has a copy of its own; the id comes from the commit, so the store takes it once."""
    commit(world, "17")
    await asyncio.gather(*(look(world, values=world.new_writer()) for _ in range(4)))
    assert len(await recorded(world)) == 1


async def test_a_look_that_was_broken_off_is_made_again(world: World) -> None:
    """The record is there, and that it was looked at is not: nothing is recorded twice."""
    before = await world.board.looked_at(branch(world))
    commit(world, "17")
    await look(world)
    assert before
    await world.board.keep_looked_at(branch(world), before)
    await look(world)
    assert len(await recorded(world)) == 1
    assert await world.board.looked_at(branch(world)) != before


async def test_a_copy_that_is_behind_ends_nothing_newer(world: World) -> None:
    """It holds 17, the remote and the store have gone on to 18: what is followed stays."""
    slow = world.new_writer()
    commit(world, "17")
    seen = await slow.current(world.target("dev"))
    id = await world.request("dev", "18")
    await world.advance_until(id, Phase.COMMITTED)
    await world.new_noticing(values=slow).look()
    assert seen.version == "17"
    assert await world.store.followed(world.target("dev")) == id


# --- strange histories


async def test_a_rewound_branch_is_no_news(world: World) -> None:
    """Somebody takes the newest commit away: the value of before is there again, and nobody brought it."""
    commit(world, "17")
    await look(world)
    git(world, "update-ref", "refs/heads/main", "main^")
    await look(world)
    assert [each.version for each in await recorded(world)] == ["17"]
    commit(world, "18")
    await look(world)
    assert [each.version for each in await recorded(world)] == ["17", "18"]


async def test_an_amended_commit_takes_the_place_of_the_one_before(world: World) -> None:
    """The same change under another id: what is followed is what the branch holds."""
    first = commit(world, "17", message="Bump")
    await look(world)
    git(world, "update-ref", "refs/heads/main", f"{first}^")
    second = commit(world, "17", message="Bump, amended")
    await look(world)
    older, newer = await recorded(world)
    assert (older.phase, older.revision) == (Phase.SUPERSEDED, first)
    assert (newer.phase, newer.revision, newer.old_version) == (Phase.COMMITTED, second, "16")


async def test_a_history_that_nobody_knows_any_more_begins_anew(world: World) -> None:
    """A repository that was made anew has none of the old commits: what is there counts as known."""
    await world.board.keep_looked_at(branch(world), "f" * 40)
    commit(world, "17")
    await look(world)
    assert await recorded(world) == []
    commit(world, "18")
    await look(world)
    assert [each.version for each in await recorded(world)] == ["18"]


@pytest.mark.parametrize(
    "text",
    [
        "image: [",
        "image:\n  name: no tag at all\n",
        'image:\n  tag: "not a tag!"\n',
        'image:\n  tag: ""\n',
        "image:\n  tag: &anchor 17\nother: *anchor\n---\nimage: {}\n",
        "\x00\x01",
    ],
)
async def test_a_file_that_cannot_be_read_is_said_once_and_forgotten(world: World, text: str) -> None:
    """It stops neither the look nor what comes after it."""
    push(world.repository, {PATH: text})
    [said] = await look(world)
    assert said.startswith("manual-app/dev cannot be followed: ")
    assert await look(world) == ()
    assert await recorded(world) == []
    push(world.repository, {PATH: values("17")})
    await look(world)
    assert [each.version for each in await recorded(world)] == ["17"]


async def test_keys_that_disagree_are_said_once(world: World) -> None:
    """Nobody can tell which version that is."""
    push(world.repository, {PATH: values("17", tag="17")})
    two = world.configure(defaults=defaults(keys=["image.tag", "tag"]))
    await look(world, catalog=two)
    push(world.repository, {PATH: values("17", tag="18")})
    [said] = await look(world, catalog=two)
    assert "manual-app/dev cannot be followed" in said
    assert await look(world, catalog=two) == ()


async def test_a_strange_target_holds_up_no_other(world: World) -> None:
    """Two apps in one repository, changed by one commit: the one that can be read is followed."""
    apps = {
        "broken": {"image": "ghcr.io/acme/broken", "environments": {"dev": {"values": "broken.yaml"}}},
        "manual-app": {"image": "ghcr.io/acme/manual-app"},
    }
    both = world.configure(apps=apps)
    await look(world, catalog=both)
    text = sample.read_file(world.repository, PATH).replace('"16"', '"17"')
    push(world.repository, {PATH: text, "broken.yaml": "image: ["})
    [said] = await look(world, catalog=both)
    assert said.startswith("broken/dev cannot be followed")
    assert [each.version for each in await recorded(world)] == ["17"]


async def test_one_commit_that_changes_two_apps_is_two_records(world: World) -> None:
    """Each target is followed by itself, under an id of its own."""
    apps = {
        name: {"image": f"ghcr.io/acme/{name}", "environments": {"dev": {"values": f"{name}.yaml"}}}
        for name in ("one", "two")
    }
    both = world.configure(apps=apps)
    revision = push(world.repository, {"one.yaml": values("2"), "two.yaml": values("2")})
    await look(world, catalog=both)
    found = [each for name in ("one", "two") for each in await world.store.history(both.target(name, "dev"))]
    assert [each.revision for each in found] == [revision, revision]
    assert len({each.id for each in found}) == 2


async def test_a_file_that_is_new_brings_its_version(world: World) -> None:
    """Nothing was there before, and nothing is made up about it."""
    apps = {"new": {"image": "ghcr.io/acme/new", "environments": {"dev": {"values": "new.yaml"}}}}
    catalog = world.configure(apps=apps)
    await look(world, catalog=catalog)
    push(world.repository, {"new.yaml": values("1")})
    await look(world, catalog=catalog)
    [promotion] = await world.store.history(catalog.target("new", "dev"))
    assert (promotion.old_version, promotion.version) == ("unknown", "1")


async def test_a_git_host_that_is_away_is_a_reason_and_no_end(world: World) -> None:
    """The next look finds what came meanwhile."""
    commit(world, "17")
    with world.git_host_away():
        [said] = await look(world)
    assert "the git host" in said
    await look(world)
    assert [each.version for each in await recorded(world)] == ["17"]


async def test_a_store_that_is_away_leaves_the_commit_to_the_next_look(world: World) -> None:
    """How far it was looked is written down last."""

    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def create(self, *_: Any, **__: Any) -> None:
            raise Unavailable("the store", "it is away")

    commit(world, "17")
    assert await look(world, store=Away()) != ()
    await look(world)
    assert [each.version for each in await recorded(world)] == ["17"]


HOSTILE = st.sampled_from(
    ["<!channel>", "<@U0AMYAPPR01>", "*bold* _it_ `code`", "<https://evil.example|Amy Chen>", "U0AMYAPPR01"]
).flatmap(lambda words: st.text("abc <>&|@!:()\u202e*", max_size=20).map(lambda more: f"x {words} {more}"))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=HOSTILE, subject=HOSTILE)
async def test_a_commit_mentions_and_formats_nothing(world: World, name: str, subject: str) -> None:
    """Names and subjects come from anybody who may commit; whatever they are, they stay words on a card."""
    version = f"v{time.monotonic_ns()}"
    commit(world, version, message=subject, who=(name, "sam@acme.example"))
    await look(world)
    promotion = (await recorded(world))[-1]
    assert promotion.version == version
    assert not promotion.requested_by.is_person
    await world.advance(promotion.id)
    shown = await world.shown(promotion.id) + await world.thread(promotion.id)
    assert not re.search(r"<[@!#]|<https://evil", shown)


def git(world: World, *words: str) -> str:
    """A git command in the remote repository."""
    command = ["git", "-c", "user.name=Sam", "-c", "user.email=sam@acme.example", *words]
    done = subprocess.run(
        command,
        cwd=world.repository,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull},
    )
    return done.stdout.strip()


def branch(world: World) -> str:
    """What the board calls the branch."""
    return f"{world.repository.as_uri()} main"


def defaults(**different: Any) -> dict[str, Any]:
    """The defaults of `promote.yaml`, with something different."""
    return {
        "repository": "gitops",
        "argocd": "main",
        "keys": ["image.tag"],
        "values": "values-{env}.yaml",
        "applications": ["{app}-{env}"],
    } | different
