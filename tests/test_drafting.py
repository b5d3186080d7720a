"""A draft: which build would go, how that is known, and what stands in its way. Nothing is recorded."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_invariants import everything
from world import World, push, world_in

from bot.core.catalog import UNKNOWN, Application, Image, Target
from bot.core.drafting import Draft
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.gates import Stand
from bot.core.policy import Gate
from bot.core.rollout import ApplicationFacts
from bot.playground import repository as sample

IMAGE = "ghcr.io/acme/manual-app"
ONE, OTHER, INDEX = ("sha256:" + digit * 64 for digit in "abc")
NOTHING: frozenset[Gate] = frozenset()


class Pods:
    """Argo CD as it is, but for the digests that the pods report, one entry for each pod in turn."""

    def __init__(self, world: World, *digests: str) -> None:
        self._cluster = world.cluster
        self._digests = digests

    async def observe(
        self, target: Target, application: Application, *, refresh: bool, hard: bool = False
    ) -> ApplicationFacts:
        """The facts, with other digests."""
        facts = await self._cluster.observe(target, application, refresh=refresh, hard=hard)
        assert facts.workloads is not None
        pods = tuple(
            replace(pod, digests=frozenset(filter(None, [self._digests[place % len(self._digests)]])))
            for place, pod in enumerate(facts.workloads.pods)
        )
        assert len(pods) >= len(self._digests)
        return replace(facts, workloads=replace(facts.workloads, pods=pods))


class Shelf:
    """A registry that has one build of each version, for two platforms."""

    def __init__(self, *versions: str) -> None:
        self.versions = versions

    async def digest(self, _image: str, version: str) -> str:
        """The index."""
        if version not in self.versions:
            raise Failed(f"There is no {version}.")
        return INDEX

    async def platforms(self, _image: str, digest: str) -> frozenset[str]:
        """What pods may report."""
        assert digest == INDEX
        return frozenset({INDEX, ONE})

    async def labels(self, _image: str, _digest: str) -> Mapping[str, str]:
        """None."""
        return {}


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def draft(
    world: World,
    version: str | None = None,
    *,
    to: str = "prod",
    pods: tuple[str, ...] = (),
    skips: frozenset[Gate] = NOTHING,
    **different: Any,
) -> Draft:
    """What it would be to bring a version."""
    if pods:
        different["cluster"] = Pods(world, *pods)
    drafting, target = world.new_drafting(**different), world.target(to)
    made: Draft = await world.moving(drafting.draft(target, version, skips=skips))
    return made


def closed(found: Draft) -> list[Gate]:
    return [each.gate for each in found.answers.closed]


def asked(found: Draft) -> list[Gate]:
    return [each.gate for each in found.answers.each]


def configure(world: World, *, registries: Any = None, **app: Any) -> None:
    """Another description of the app."""
    different = {"registries": registries} if registries else {}
    catalog = world.configure(apps={"manual-app": {"image": IMAGE, **app}}, **different)
    world.parts = replace(world.parts, catalog=catalog)


# --- which version


@pytest.mark.parametrize("version", [None, "15"])
async def test_what_runs_before_may_go(world: World, version: str | None) -> None:
    """Named or not, it is the same build, as the pods report it, and one line that changes."""
    before = everything(world)
    found = await draft(world, version)
    reported = await world.new_drafting().running(world.target("stage"), "15")
    assert found.image == reported
    assert found.image.has_digest
    assert (found.source, found.target) == (world.target("stage"), world.target("prod"))
    assert (found.plan.old_version, [change.after for change in found.plan.changes]) == (
        "14",
        ['  tag: "15" # the same image that stage ran'],
    )
    assert found.dossier.proof == "stage"
    assert found.answers.are_open
    assert asked(found) == [Gate.ORDER, Gate.IMAGE, Gate.LOCKS, Gate.BAD_VERSION]
    assert (everything(world), world.value()) == (before, "14")


async def test_another_version_is_out_of_order(world: World) -> None:
    """The gate says what runs there, and nobody speaks of an image that is not there."""
    found = await draft(world, "16")
    assert closed(found) == [Gate.ORDER]
    assert Gate.IMAGE not in asked(found)
    assert (
        "stage runs 15, not 16. Promote 16 to stage first: /promote manual-app 16 stage" in found.answers.says
    )
    assert found.image == Image(version="16")


async def test_a_version_whose_order_is_passed_must_still_be_proved(world: World) -> None:
    """Whoever passes the order brings what stage does not run, and that nobody has seen."""
    found = await draft(world, "16", skips=frozenset({Gate.ORDER}))
    assert closed(found) == [Gate.IMAGE]
    assert "Nobody can prove which build of 16 stage runs" in found.answers.says


@pytest.mark.parametrize("version", [None, "15"])
async def test_a_source_that_does_not_run_well_gives_nothing(world: World, version: str | None) -> None:
    """The draft tells of what its file holds, and the gate of why that cannot go."""
    world.argocd.degrade_next_rollout("manual-app-stage")
    world.push_by_hand("stage", "15.1")
    await world.roll_out("stage")
    found = await draft(world, version)
    assert closed(found) == [Gate.ORDER]
    assert Gate.IMAGE not in asked(found)
    assert "stage is not live and healthy" in found.answers.says
    assert found.image == Image(version=version or "15.1")


async def test_a_source_that_nobody_can_see_gives_no_draft(world: World) -> None:
    """Not seeing is no answer."""
    await world.argocd.stop()
    with pytest.raises(Unavailable, match="Argo CD"):
        await draft(world)


async def test_the_first_environment_has_nothing_before_it(world: World) -> None:
    """There a version has to be named, and neither order nor image is asked."""
    found = await draft(world, "17", to="dev")
    assert (found.source, found.image) == (None, Image(version="17"))
    assert asked(found) == [Gate.LOCKS, Gate.BAD_VERSION]
    with pytest.raises(Refused, match="is the first environment, so say which version"):
        await draft(world, to="dev")


# --- which build


async def test_the_pods_tell_which_build_it_is(world: World) -> None:
    """All of them report one digest, and that one goes."""
    found = await draft(world, pods=(ONE,))
    assert found.image == Image(version="15", digest=ONE)
    assert found.dossier.proof == "stage"
    assert found.answers.are_open


@pytest.mark.parametrize("pods", [(ONE, OTHER), ("",)])
async def test_pods_that_tell_nothing_or_several_things_prove_nothing(
    world: World, pods: tuple[str, ...]
) -> None:
    """A tag that was pushed anew shows itself so: it says 15 twice and means two builds."""
    found = await draft(world, pods=pods)
    assert found.image == Image(version="15")
    assert closed(found) == [Gate.IMAGE]
    assert found.dossier.proof == ""
    assert "its pods report no digest, or several" in found.answers.says
    assert "same_image: tag-only for manual-app" in found.answers.says


@pytest.mark.parametrize("pods", [(ONE, OTHER), ("",)])
async def test_where_the_tag_is_enough_it_is_said_so(world: World, pods: tuple[str, ...]) -> None:
    """Whoever set that lives without the proof, and reads it."""
    configure(world, same_image="tag-only")
    found = await draft(world, pods=pods)
    assert (found.image, found.dossier.proof) == (Image(version="15"), "")
    assert found.answers.are_open
    [image] = [each for each in found.answers.each if each.gate is Gate.IMAGE]
    assert image.says == "the same tag; the image is not proved"


@pytest.mark.parametrize("pods", [("",), (ONE,), (INDEX,)])
async def test_the_registry_tells_which_build_it_is(world: World, pods: tuple[str, ...]) -> None:
    """Pods report the build or one of its platforms, or nothing; the registry's own digest is what goes."""
    configure(world, registries={"ghcr.io": {}})
    found = await draft(world, pods=pods, images=Shelf("15"))
    assert found.image == Image(version="15", digest=INDEX)
    assert found.dossier.proof == "the registry"
    assert found.answers.are_open


async def test_a_tag_that_means_another_build_by_now_is_closed(world: World) -> None:
    """What stage runs is not what the registry would give prod."""
    configure(world, registries={"ghcr.io": {}})
    found = await draft(world, pods=(OTHER,), images=Shelf("15"))
    assert closed(found) == [Gate.IMAGE]
    assert f"stage has 15 as {OTHER[:19]}…, but the registry has {INDEX[:19]}…" in found.answers.says
    assert found.dossier.proof == ""


async def test_a_registry_without_the_version_gives_no_draft(world: World) -> None:
    """Nobody could run it."""
    configure(world, registries={"ghcr.io": {}})
    with pytest.raises(Failed, match="There is no 15"):
        await draft(world, pods=(ONE,), images=Shelf("14"))


async def test_a_file_with_a_digest_tells_which_build_it_is(world: World) -> None:
    """Where prod's file names a digest, stage's does too, and that one is what stage runs."""
    configure(world, digests=["image.digest"])
    for environment, digest in (("stage", ONE), ("prod", OTHER)):
        path = f"values-{environment}.yaml"
        text = sample.read_file(world.repository, path)
        push(world.repository, {path: text.replace("  tag:", f"  digest: {digest}\n  tag:")})
    await world.roll_out("stage")
    found = await draft(world)
    assert found.image == Image(version="15", digest=ONE)
    assert found.dossier.proof == "stage"
    assert [change.after.strip() for change in found.plan.changes] == [
        f"digest: {ONE}",
        'tag: "15" # the same image that stage ran',
    ]


@pytest.mark.parametrize("digest", [ONE, UNKNOWN])
async def test_a_rollback_brings_what_its_commit_names(world: World, digest: str) -> None:
    """What ran there before is proved by the commit that brought it; order and image are not asked."""
    image = Image(version="13", digest=digest)
    back = world.new_drafting().draft_back(world.target(), image, skips=NOTHING)
    found: Draft = await world.moving(back)
    assert (found.image, found.source) == (image, None)
    assert found.dossier.proof == ("its commit" if digest == ONE else "")
    assert asked(found) == [Gate.LOCKS, Gate.BAD_VERSION]


# --- all gates


async def test_order_and_image_stand_before_all_other_answers(world: World) -> None:
    """Nobody mends one thing to hear of the next: all that is closed is told at once."""
    catalog = world.parts.catalog
    strict = replace(world.target(), policy=replace(world.target().policy, parity=True))
    targets = tuple(strict if each.name == strict.name else each for each in catalog.targets)
    world.parts = replace(world.parts, catalog=replace(catalog, targets=targets))
    found = await draft(world, pods=(ONE, OTHER))
    assert closed(found) == [Gate.IMAGE, Gate.PARITY]
    assert asked(found)[:2] == [Gate.ORDER, Gate.IMAGE]
    assert {each.stand for each in found.answers.closed} == {Stand.CLOSED}
    assert found.dossier.differences == ("replicaCount", "ingress.host")
