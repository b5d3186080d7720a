"""Environments that follow a release branch and tags: exactly what was shown is brought, signed and followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from release_worlds import MANIFEST, ReleaseWorld, UnpinnedWorld, release_world, tagged_text
from world import AMY, DANA, push

from bot import check
from bot.core.catalog import VERSION, Release
from bot.core.errors import Failed, Refused
from bot.core.ports import Change
from bot.core.promotion import Phase
from bot.core.reconciling import Reconciling
from bot.git_access import COMMITTER
from bot.integrations.gitops import GitRepository
from bot.integrations.releases import order
from bot.integrations.signing import CommitSigner
from bot.playground import repository as sample
from bot.playground.argocd.specs import SimulatedSource
from bot.watching import Watching


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[ReleaseWorld]:
    async with release_world(ReleaseWorld, tmp_path, redis_url) as opened:
        yield opened


@pytest.fixture
async def unpinned(tmp_path: Path, redis_url: str) -> AsyncIterator[ReleaseWorld]:
    async with release_world(UnpinnedWorld, tmp_path, redis_url) as opened:
        yield opened


def tags(world: ReleaseWorld) -> list[str]:
    """The names of all tags of the remote."""
    return world.git("tag", "--list").split()


def trailers(world: ReleaseWorld, tag: str) -> dict[str, str]:
    """What a tag's message says."""
    body = world.git("for-each-ref", "--format=%(contents:body)", f"refs/tags/{tag}")
    return dict(line.split(": ", 1) for line in body.rpartition("\n\n")[2].splitlines())


async def test_a_version_goes_from_main_over_the_release_branch_to_a_tag(world: ReleaseWorld) -> None:
    """Each environment runs what the one before ran, at the very same revision."""
    shown = sample.head(world.repository)
    staged = await world.promoted("stage")
    assert staged.phase is Phase.LIVE, staged.ending
    assert (staged.version, staged.old_version, staged.brings) == ("15", "14", shown)
    assert sample.head(world.repository, "release") == shown
    released = await world.promoted("prod")
    assert released.phase is Phase.LIVE, released.ending
    assert world.git("rev-parse", "v15^{commit}") == shown
    assert "targetRevision: v15  # moved by the bot" in sample.read_file(world.repository, MANIFEST)
    assert world.argocd.truth("manual-app-prod").runs("15")


async def test_where_nothing_pins_it_the_tag_alone_is_made(unpinned: ReleaseWorld) -> None:
    """Argo CD follows the highest tag, so main is not touched."""
    before = sample.head(unpinned.repository)
    await unpinned.promoted("stage")
    released = await unpinned.promoted("prod")
    assert released.phase is Phase.LIVE, released.ending
    assert unpinned.git("rev-parse", "v15^{commit}") == before
    assert sample.head(unpinned.repository) == before


async def test_exactly_the_shown_revision_is_brought(world: ReleaseWorld) -> None:
    """What is pushed to main after the request waits for the next promotion."""
    shown = sample.head(world.repository)
    id = await world.request("stage")
    await world.advance(id)
    world.ci_writes("16")
    await world.promoter.approve(id, user=AMY)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert sample.head(world.repository, "release") == shown


async def test_the_card_names_the_commits_and_the_tag(world: ReleaseWorld) -> None:
    """People see what moves with the version, and afterwards what was done."""
    text = tagged_text(sample.read_file(world.repository, "values.yaml"), "16")
    push(world.repository, {"values.yaml": text}, message="Build 16 with a new probe")
    await world.roll_out("dev")
    id = await world.request("stage")
    await world.advance(id)
    card = await world.shown(id)
    assert "*Brings* 2 commits of `main`" in card
    assert "Build 16 with a new probe" in card
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.COMMITTED)
    assert f"*Moved* `release` forward to `{sample.head(world.repository)[:8]}`" in await world.show(id)  # type: ignore[index]
    await world.rest(id)
    id = await world.request("prod")
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.COMMITTED)
    assert "as `v16`" in await world.show(id)


async def test_each_leaves_one_signed_record_with_the_trailers(world: ReleaseWorld) -> None:
    """A branch that is moved tells of nobody, so a tag of the promotion's id does; git verifies all of them."""
    signer = CommitSigner(Ed25519PrivateKey.generate())
    world.values = GitRepository(
        cache=world.folder / "signed",
        committer=COMMITTER,
        signers={"gitops": signer},
        allow_local=frozenset({"gitops"}),
    )
    world.parts = replace(world.parts, values=world.values)
    world.engine = world.new_engine()
    try:
        staged, released = await world.promoted("stage"), await world.promoted("prod")
    finally:
        await world.values.aclose()
    allowed = world.folder / "allowed"
    allowed.write_text(f'{COMMITTER.email} namespaces="git" {signer.public_key}\n')
    for tag, promotion in ((f"promote/{staged.id}", staged), ("v15", released)):
        world.git("-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-tag", tag)
        told = trailers(world, tag)
        assert told["Promotion-Id"] == promotion.id
        assert told["Revision"] == promotion.brings == world.git("rev-parse", f"{tag}^{{commit}}")
        assert told["Approved-By"].endswith(f"/{AMY})")
    assert sorted(tags(world)) == sorted(["v14", f"promote/{staged.id}", "v15"])


async def test_a_branch_that_would_not_go_forward_is_refused_with_what_to_do(world: ReleaseWorld) -> None:
    """Nothing is merged and nothing is forced: somebody has to bring the two branches together."""
    tree = world.git("rev-parse", "release^{tree}")
    stray = world.git("commit-tree", tree, "-p", "release", "-m", "A fix on release alone")
    world.git("update-ref", "refs/heads/release", stray)
    with pytest.raises(Failed, match="Merge release into main first"):
        await world.request("stage")


async def test_a_branch_that_left_main_after_the_request_is_not_forced(world: ReleaseWorld) -> None:
    """The approval counted for a move forward."""
    id = await world.request("stage")
    await world.advance(id)
    tree = world.git("rev-parse", "release^{tree}")
    stray = world.git("commit-tree", tree, "-p", "release", "-m", "A fix on release alone")
    world.git("update-ref", "refs/heads/release", stray)
    await world.promoter.approve(id, user=AMY)
    ended = await world.rest(id)
    assert ended.phase is Phase.FAILED
    assert sample.head(world.repository, "release") == stray
    assert f"promote/{id}" not in tags(world)


async def test_a_branch_with_another_version_than_shown_makes_it_stale(world: ReleaseWorld) -> None:
    """Somebody else has moved stage: what was approved is not what would happen."""
    world.ci_writes("15.1")
    between = sample.head(world.repository)
    world.ci_writes("16")
    await world.roll_out("dev")
    id = await world.request("stage")
    await world.advance(id)
    world.git("update-ref", "refs/heads/release", between or "")
    await world.promoter.approve(id, user=AMY)
    ended = await world.rest(id)
    assert (ended.phase, sample.head(world.repository, "release")) == (Phase.STALE, between)


async def test_a_tag_that_is_there_on_another_revision_is_never_moved(world: ReleaseWorld) -> None:
    """A tag is a promise: the promotion fails and says what is in its way."""
    await world.promoted("stage")
    elsewhere = world.git("rev-parse", "v14^{commit}")
    id = await world.request("prod")
    await world.advance(id)
    world.git("tag", "v15", elsewhere)
    await world.promoter.approve(id, user=AMY)
    ended = await world.rest(id)
    assert ended.phase is Phase.FAILED
    assert "The tag v15 is there already" in (ended.ending or "")
    assert "targetRevision: v14" in sample.read_file(world.repository, MANIFEST)


async def test_a_pinned_tag_can_be_taken_back(world: ReleaseWorld) -> None:
    """The old tag stands where it stood: only the pin goes back, and no tag is made."""
    await world.promoted("stage")
    await world.promoted("prod")
    before = tags(world)
    asked = await world.moving(world.promoter.roll_back(app="manual-app", environment="prod", user=DANA))
    await world.advance(asked.id)
    await world.promoter.approve(asked.id, user=AMY)
    back = await world.rest(asked.id)
    assert (back.phase, back.version) == (Phase.LIVE, "14"), back.ending
    assert "targetRevision: v14" in sample.read_file(world.repository, MANIFEST)
    assert tags(world) == before


@pytest.mark.parametrize(
    ("kind", "environment", "reason"),
    [
        (ReleaseWorld, "stage", "the branch release only goes forward"),
        (UnpinnedWorld, "prod", "the tags of prod only go up"),
    ],
)
async def test_what_only_goes_forward_says_so(
    tmp_path: Path, redis_url: str, kind: type[ReleaseWorld], environment: str, reason: str
) -> None:
    """A rollback that cannot be made is refused with what to do instead."""
    async with release_world(kind, tmp_path, redis_url) as world:
        await world.promoted("stage")
        if environment == "prod":
            await world.promoted("prod")
        with pytest.raises(Refused, match=reason):
            await world.moving(world.promoter.roll_back(app="manual-app", environment=environment, user=DANA))


async def test_the_same_is_refused_as_nothing_to_do(world: ReleaseWorld) -> None:
    """What is there already needs no promotion."""
    await world.promoted("stage")
    with pytest.raises(Refused, match="already runs 15"):
        await world.request("stage")


async def test_a_revision_that_somebody_put_into_the_record_is_not_brought(world: ReleaseWorld) -> None:
    """Redis holds state and no authority: the approval counted for the revision that was shown."""
    id = await world.request("stage")
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    promotion = await world.find(id)
    later = world.ci_writes("15", message="What nobody approved")
    last = replace(promotion.last, edition=promotion.edition + 1)
    flipped = replace(promotion, edition=promotion.edition + 1, brings=later, last=last)
    await world.store.save([Change(before=promotion, after=flipped)], holds=True)
    ended = await world.rest(id)
    assert ended.phase is Phase.STALE
    assert sample.head(world.repository, "release") != later


async def test_after_the_store_was_lost_the_tag_tells_of_it(world: ReleaseWorld) -> None:
    """The newest promotion of each target is recorded anew, and followed to its end."""
    staged = await world.promoted("stage")
    await world.store._client.flushall()
    done = await Reconciling(engine=world.engine).reconcile()
    assert [each for each in done if staged.id in each]
    again = await world.rest(staged.id)
    assert (again.phase, again.brings) == (Phase.LIVE, staged.brings)


@pytest.mark.parametrize("environment", ["stage", "prod"])
@pytest.mark.parametrize("kind", [ReleaseWorld, UnpinnedWorld])
async def test_a_push_of_which_nobody_heard_is_made_once(
    tmp_path: Path, redis_url: str, kind: type[ReleaseWorld], environment: str
) -> None:
    """A bot that was killed right after the push finds it again: one record, one move."""
    async with release_world(kind, tmp_path, redis_url) as world:
        if environment == "prod":
            await world.promoted("stage")
        id = await world.request(environment)
        await world.advance(id)
        await world.promoter.approve(id, user=AMY)
        await world.advance_until(id, Phase.APPROVED)
        pushed = world.values.commit

        async def killed(edit: Any) -> str:
            await pushed(edit)
            raise asyncio.CancelledError

        world.values.commit = killed  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await world.engine.advance(id)
        log, tagged = len(sample.log(world.repository, 100)), tags(world)
        world.restart()
        ended = await world.rest(id)
        assert ended.phase is Phase.LIVE, ended.ending
        assert (len(sample.log(world.repository, 100)), tags(world)) == (log, tagged)


async def test_two_bots_that_write_at_once_make_one(world: ReleaseWorld) -> None:
    """Both hold the same approval: the remote takes one, and the other sees it."""
    id = await world.request("stage")
    await world.advance(id)
    await world.promoter.approve(id, user=AMY)
    await world.advance_until(id, Phase.APPROVED)
    other = world.new_engine(values=world.new_writer(), store=world.new_store())
    await world.moving(asyncio.gather(world.engine.advance(id), other.advance(id)))
    assert (await world.rest(id)).phase is Phase.LIVE
    assert [tag for tag in tags(world) if tag.startswith("promote/")] == [f"promote/{id}"]


class ValuesAfterBranch(ReleaseWorld):
    """Stage follows the release branch; prod has a values file of its own on main, where its tag is edited."""

    def config(self, **different: Any) -> Any:
        app = {
            "image": "ghcr.io/acme/manual-app",
            "same_image": "tag-only",
            "values": "values.yaml",
            "environments": {
                "dev": {},
                "stage": {"strategy": "branch", "branch": "release"},
                "prod": {"values": "values-prod.yaml"},
            },
        }
        return super().config(**{"apps": {"manual-app": app}} | different)

    def lay_out(self) -> None:
        held = sample.read_file(self.repository, "values-prod.yaml")
        super().lay_out()
        push(self.repository, {"values-prod.yaml": held}, message="Give prod its own tag")

    def application(self, environment: str, **different: Any) -> Any:
        made = super().application(environment, **different)
        return replace(made, branch="main", declared_in="") if environment == "prod" else made


class BranchAfterValues(ReleaseWorld):
    """Stage has a values file on main; prod follows the branch `live`, which is moved to what stage runs."""

    def config(self, **different: Any) -> Any:
        app = {
            "image": "ghcr.io/acme/manual-app",
            "same_image": "tag-only",
            "values": "values-{env}.yaml",
            "environments": {"dev": {}, "stage": {}, "prod": {"strategy": "branch", "branch": "live"}},
        }
        app["environments"]["prod"]["values"] = "values-stage.yaml"  # type: ignore[index]
        return super().config(**{"apps": {"manual-app": app}} | different)

    def lay_out(self) -> None:
        self.git("update-ref", "refs/heads/live", "main~2")

    def application(self, environment: str, **different: Any) -> Any:
        made = super().application(environment, **different)
        branch = "live" if environment == "prod" else "main"
        values = "values-stage.yaml" if environment == "prod" else made.values_file
        return replace(made, branch=branch, values_file=values, declared_in="")


@pytest.mark.parametrize("kind", [ValuesAfterBranch, BranchAfterValues])
async def test_strategies_can_be_mixed(tmp_path: Path, redis_url: str, kind: type[ReleaseWorld]) -> None:
    """A branch for stage and a values file for prod, and the other way round."""
    async with release_world(kind, tmp_path, redis_url) as world:
        staged = await world.promoted("stage")
        assert staged.phase is Phase.LIVE, staged.ending
        released = await world.promoted("prod")
        assert (released.phase, released.version) == (Phase.LIVE, staged.version), released.ending


def test_the_version_of_a_tag_is_what_was_put_into_its_name() -> None:
    """A tag of another form has none."""
    release = Release(source="main", tag="manual-app/v{version}-final")
    assert release.version_of("manual-app/v1.0-final") == "1.0"
    assert release.version_of("manual-app/v-final") is None
    assert release.version_of("v1.0-final") is None


@given(
    version=st.from_regex(VERSION, fullmatch=True),
    before=st.text("v/-", max_size=3),
    after=st.text("-x", max_size=3),
)
def test_every_version_comes_back_from_its_tag(version: str, before: str, after: str) -> None:
    """Whatever stands around it."""
    release = Release(source="main", tag=f"{before}{{version}}{after}")
    assert release.version_of(release.tag_of(version)) == version


def test_tags_are_compared_as_versions() -> None:
    """Numbers count as numbers, and what leads to a release comes before it."""
    tags = ["v9", "v1.10", "v1.9", "v1.10-rc2", "v1.10-rc10", "v10"]
    assert sorted(tags, key=order) == ["v1.9", "v1.10-rc2", "v1.10-rc10", "v1.10", "v9", "v10"]


@given(st.lists(st.text("v1.0-rc", max_size=8), min_size=2, max_size=2))
def test_every_two_tags_can_be_compared(pair: list[str]) -> None:
    """Nobody's tag name stops a promotion."""
    one, other = map(order, pair)
    assert one < other or other < one or one == other


async def said_by_check(world: ReleaseWorld, environment: str) -> str:
    """What the check command says of an environment's application."""
    outside: Any = SimpleNamespace(catalog=world.parts.catalog, gitops=world.values, argocd=world.cluster)
    name = f"manual-app/{environment}: manual-app-{environment}"
    lines = await world.moving(check._target(outside, world.target(environment)))
    [line] = [line for line in lines if line.what == name]
    return f"{line.level}: {line.says}"


@pytest.mark.parametrize(
    ("kind", "followed", "says"),
    [
        (ReleaseWorld, "v14", "ok: Synced, Healthy"),
        (
            ReleaseWorld,
            "release",
            "error: it does not follow values.yaml: it tracks release, not a tag like v15",
        ),
        (UnpinnedWorld, "v*", "ok: Synced, Healthy"),
        (UnpinnedWorld, "v14", "error: it does not follow values.yaml: it tracks v14, not a range with v15"),
        (
            UnpinnedWorld,
            "v14*",
            "error: it does not follow values.yaml: it tracks v14*, not a range with v15",
        ),
        (UnpinnedWorld, "v14.*", "and v15 names"),
    ],
)
async def test_check_refuses_what_would_not_follow_the_tag(
    tmp_path: Path, redis_url: str, kind: type[ReleaseWorld], followed: str, says: str
) -> None:
    """Its `targetRevision` stands in a file that is moved, or is a range that the tag is in."""
    async with release_world(kind, tmp_path, redis_url) as world:
        world.git("tag", "v15", "main")
        world.argocd.change("manual-app-prod", branch=followed)
        await world.roll_out("prod")
        assert says in await said_by_check(world, "prod")


async def test_a_tag_that_no_range_holds_is_not_made(unpinned: ReleaseWorld) -> None:
    """Nobody approves what Argo CD would pass over: the request says so, and `check` before anybody asks."""
    await unpinned.promoted("stage")
    unpinned.argocd.change("manual-app-prod", branch="v14.*")
    await unpinned.roll_out("prod")
    with pytest.raises(Refused, match=r"manual-app-prod follows the range v14\.\*, and v15 is not in it"):
        await unpinned.request("prod")
    assert unpinned.git("tag", "--list", "v15") == ""
    says = await said_by_check(unpinned, "prod")
    assert says.startswith(
        "error: it follows the range v14.*, and v15, which stage would bring, is not in it"
    )


async def test_a_version_with_a_hyphen_needs_a_range_with_one(unpinned: ReleaseWorld) -> None:
    """Argo CD passes over `v16-rc1` by `v*`, and follows it by `v*-0`."""
    unpinned.ci_writes("16-rc1")
    await unpinned.roll_out("dev")
    await unpinned.promoted("stage")
    with pytest.raises(Refused, match=r"the range v\*, and v16-rc1 is not in it"):
        await unpinned.request("prod")
    unpinned.argocd.change("manual-app-prod", branch="v*-0")
    await unpinned.roll_out("prod")
    released = await unpinned.promoted("prod")
    assert (released.phase, released.version) == (Phase.LIVE, "16-rc1"), released.ending


class TwoRepositories(ReleaseWorld):
    """Prod's chart stands in a repository of its own, and its values are edited there."""

    def lay_out(self) -> None:
        super().lay_out()
        self.other = sample.create_repository(self.folder / "other")

    def config(self, **different: Any) -> Any:
        app = {
            "image": "ghcr.io/acme/manual-app",
            "same_image": "tag-only",
            "values": "values.yaml",
            "environments": {
                "dev": {},
                "stage": {"strategy": "branch", "branch": "release"},
                "prod": {"repository": "prod", "values": "values-prod.yaml"},
            },
        }
        repositories = {
            "gitops": {"url": self.repository.as_uri(), "allow_local": True},
            "prod": {"url": self.other.as_uri(), "allow_local": True},
        }
        return super().config(**{"apps": {"manual-app": app}, "repositories": repositories} | different)

    def application(self, environment: str, **different: Any) -> Any:
        made = super().application(environment, **different)
        if environment != "prod":
            return made
        repository = self.folder / "other" / sample.NAME
        source = SimulatedSource(
            repo_url=repository.as_uri(), repository=repository, value_files=("values-prod.yaml",)
        )
        return replace(made, declared_in="", sources=(source,))

    def new_writer(self) -> GitRepository:
        writer = super().new_writer()
        writer._allow_local = frozenset({"gitops", "prod"})
        return writer


async def test_an_app_may_live_in_several_repositories(tmp_path: Path, redis_url: str) -> None:
    """A branch in the one, and a values file in the other."""
    async with release_world(TwoRepositories, tmp_path, redis_url) as world:
        assert isinstance(world, TwoRepositories)
        assert (await world.promoted("stage")).phase is Phase.LIVE
        released = await world.promoted("prod")
        assert (released.phase, released.version) == (Phase.LIVE, "15"), released.ending
        assert 'tag: "15"' in sample.read_file(world.other, "values-prod.yaml")


async def test_what_a_tag_stood_for_is_told_by_the_lower_tags(world: ReleaseWorld) -> None:
    """Forward is a higher tag; a pin that went back names a lower one, and the higher are as if they never were."""
    for tag in ("v9", "v15"):
        world.git("tag", tag, "main")
    assert await world.values.stood(world.target(), limit=9) == ("14", "9")
    text = sample.read_file(world.repository, MANIFEST)
    push(world.repository, {MANIFEST: text.replace("v14", "v15")})
    assert await world.values.stood(world.target(), limit=9) == ("15", "14", "9")


async def test_what_is_pushed_beside_a_tag_does_not_go_live(world: ReleaseWorld) -> None:
    """Nobody is warned of pushes to main where a tag is followed; where a branch is, they are."""
    watching = Watching(argocd=world.cluster, gitops=world.values, catalog=world.parts.catalog)
    said = [
        await world.moving(
            watching.pushes_by_others(world.target(each), after=datetime(2020, 1, 1, tzinfo=UTC))
        )
        for each in ("stage", "prod")
    ]
    assert said[0].startswith("others push to release what manual-app/stage renders from")
    assert said[1] == ""
