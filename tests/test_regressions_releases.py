"""Releases by branch and tag, and commits of others: what went wrong once, and may not again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from release_worlds import ReleaseWorld, release_world
from test_regressions_approvals import brought_two, governed
from world import AMY, BEN, DANA, World, push, world_in

from bot.core.errors import Failed
from bot.core.promotion import Phase, Promotion
from bot.core.reconciling import Reconciling
from bot.git_access import COMMITTER
from bot.integrations.writer import NO_EMAIL
from bot.playground import repository as sample


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        await look(made)
        yield made


@pytest.fixture
async def releases(tmp_path: Path, redis_url: str) -> AsyncIterator[ReleaseWorld]:
    async with release_world(ReleaseWorld, tmp_path, redis_url) as made:
        yield made


async def look(world: World) -> None:
    """One look at what others have brought, at what the remote holds now."""
    assert await world.new_noticing().look(fresh={"gitops"}) == ()


async def noticed(world: World, version: str) -> Promotion:
    """Somebody commits a version to dev, and it is noticed."""
    world.push_by_hand("dev", version)
    await look(world)
    newest, *_ = await world.store.history(world.target("dev"))
    assert (newest.version, newest.phase) == (version, Phase.COMMITTED)
    return newest


async def killed_after_the_push(world: World, id: str) -> None:
    """A worker writes an approved promotion, and is killed before it can tell anybody."""
    pushed = world.values.commit

    async def killed(edit: Any) -> str:
        await pushed(edit)
        raise asyncio.CancelledError

    world.values.commit = killed  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await world.engine.advance(id)
    world.restart()


def forged_tag(world: ReleaseWorld, name: str, revision: str, **trailers: str) -> None:
    """Somebody who may push tags makes one in the bot's name."""
    told = "\n".join(f"{key.replace('_', '-')}: {value}" for key, value in trailers.items())
    head = (
        f"object {revision}\ntype commit\ntag {name}\ntagger {COMMITTER.name} <{NO_EMAIL}> 1772452800 +0000"
    )
    written = world.folder / "forged"
    written.write_text(f"{head}\n\nPromote\n\nBody.\n\n{told}\n")
    made = world.git("hash-object", "-w", "-t", "tag", str(written))
    world.git("update-ref", f"refs/tags/{name}", made)


# --- who is followed


async def test_a_commit_that_is_settled_late_ends_nothing_newer(world: World) -> None:
    """The branch holds the newer one on top of it, so it is the older one that ends."""
    id = await world.request("dev", "17")
    await world.advance_until(id, Phase.APPROVED)
    await killed_after_the_push(world, id)
    newer = await noticed(world, "18")
    late = await world.rest(id)
    assert (late.phase, late.ending) == (Phase.SUPERSEDED, f"{newer.id} brought 18")
    assert [each.revision for each in world.commits(id)] == [late.revision]
    assert await world.store.followed(world.target("dev")) == newer.id
    assert (await world.rest(newer.id)).phase is Phase.LIVE


async def test_a_commit_noticed_after_a_request_that_goes_on_from_it_takes_nothing_back(world: World) -> None:
    """Who asked for 18 saw 17 there: that 17 is seen later by others makes it no newer wish."""
    world.push_by_hand("dev", "17")
    id = await world.request("dev", "18")
    await look(world)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert world.value("dev") == "18"


async def test_two_names_of_one_branch_hide_nothing_from_each_other(world: World) -> None:
    """Two teams may each give the same branch a name of their own."""
    place = {"url": world.repository.as_uri(), "allow_local": True}
    app = {"image": "ghcr.io/acme/one", "environments": {"dev": {"values": "{app}.yaml"}}}
    both = world.configure(
        repositories={"gitops": place, "other": place},
        apps={"one": app, "two": app | {"repository": "other"}},
    )
    push(world.repository, {f"{name}.yaml": 'image:\n  tag: "2"\n' for name in ("one", "two")})
    await world.new_noticing(catalog=both).look(fresh={"gitops", "other"})
    found = [await world.store.history(both.target(name, "dev")) for name in ("one", "two")]
    assert [len(each) for each in found] == [1, 1]


async def test_a_commit_in_the_name_of_what_was_live_goes_nowhere_at_once(world: World) -> None:
    """Somebody else's promotion that was live proves nothing of another build, so people have to approve that."""
    governed(world, rollback={"who": [BEN], "within": "24h"})
    await brought_two(world)
    _, first = await world.store.history(world.target())
    told = (
        f"Promotion-Id: {first.id}\nApp: manual-app\nEnvironment: prod\nOld-Version: 16\nNew-Version: 13\n"
        f"Digest: sha256:{'e' * 64}"
    )
    who = (COMMITTER.name, NO_EMAIL)
    push(world.repository, {"notes": "x"}, message=f"Promote\n\nBody.\n\n{told}", who=who)
    back = await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=BEN))
    assert (back.version, back.way) == ("13", None)


# --- tags of others


async def test_a_tag_in_the_bots_name_moves_no_branch(releases: ReleaseWorld) -> None:
    """A record tells of a branch that holds what it names; else anybody with a tag could call it committed."""
    id = await releases.request("stage")
    await releases.advance(id)
    await releases.promoter.approve(id, user=AMY)
    await releases.advance_until(id, Phase.APPROVED)
    before = sample.head(releases.repository, "release")
    asked = await releases.find(id)
    assert asked.brings
    forged_tag(
        releases,
        f"promote/{id}",
        asked.brings,
        Promotion_Id=id,
        App="manual-app",
        Environment="stage",
        New_Version="15",
    )
    await releases.pushed_in_vain(id)
    assert not any(id in each for each in await Reconciling(engine=releases.engine).reconcile())
    ended = await releases.rest(id)
    assert (ended.phase, ended.revision) == (Phase.FAILED, None)
    assert sample.head(releases.repository, "release") == before


async def test_a_record_that_somebody_else_made_is_none(releases: ReleaseWorld) -> None:
    """Nothing goes out without its own record, and the sentence says what to do."""
    id = await releases.request("stage")
    await releases.advance(id)
    await releases.promoter.approve(id, user=AMY)
    before, asked = sample.head(releases.repository, "release"), await releases.find(id)
    releases.git("tag", f"promote/{id}", asked.brings or "")
    ended = await releases.rest(id)
    assert ended.phase is Phase.FAILED
    assert "Take it away, and ask for the promotion again" in (ended.ending or "")
    assert sample.head(releases.repository, "release") == before


async def test_tags_of_others_hide_none_of_ours(releases: ReleaseWorld) -> None:
    """However many there are, who asked last is still known."""
    staged = await releases.promoted("stage")
    for number in range(5):
        releases.git("tag", "-a", f"nightly-{number}", "-m", "Nightly", "main")
    written = await releases.values.written(releases.target("prod").repository, limit=3)
    assert [each.trailer("Promotion-Id") for each in written] == [staged.id]


async def test_a_tag_that_is_elsewhere_is_said_to_who_asks(releases: ReleaseWorld) -> None:
    """Nobody has to approve what cannot be done."""
    await releases.promoted("stage")
    releases.git("tag", "v15", "v14^{commit}")
    with pytest.raises(Failed, match=r"The tag v15 is there already, on .* and not on"):
        await releases.request("prod")


async def test_a_tag_that_was_moved_is_no_way_back(releases: ReleaseWorld) -> None:
    """A rollback brings the revision that was there, whatever the tag's name stands on now."""
    await releases.promoted("stage")
    first = await releases.promoted("prod")
    releases.ci_writes("16")
    await releases.roll_out("dev")
    await releases.promoted("stage")
    await releases.promoted("prod")
    tree = releases.git("rev-parse", f"{first.brings}^{{tree}}")
    stray = releases.git("commit-tree", tree, "-p", first.brings or "", "-m", "What nobody approved")
    releases.git("tag", "-f", "v15", stray)
    with pytest.raises(Failed, match=r"The tag v15 is there already, on .* and not on"):
        await releases.moving(
            releases.promoter.roll_back(app="manual-app", environment="prod", version="15", user=DANA)
        )


async def test_a_pinned_target_and_a_branch_keep_apart_what_they_know_of_a_revision(
    releases: ReleaseWorld,
) -> None:
    """A later revision replaces an older one on a branch; where a tag is pinned, it says nothing of the other."""
    old = sample.head(releases.repository) or ""
    new = releases.ci_writes("16")
    found = [
        await releases.values.relate(releases.target(each), revision=new, commit=old, version="15")
        for each in ("stage", "prod")
    ]
    assert [each.contains for each in found] == [True, False]


async def test_a_pinned_promotion_is_written_once_in_the_history(releases: ReleaseWorld) -> None:
    """Its commit and its tag tell of the same."""
    await releases.promoted("stage")
    released = await releases.promoted("prod")
    written = await releases.values.written(releases.target("prod").repository, limit=50)
    assert [each.revision for each in written if each.trailer("Promotion-Id") == released.id] == [
        released.revision
    ]
