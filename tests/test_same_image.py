"""The same image is promoted, never rebuilt: a registry says which build a version is, and says it again later."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from registry_servers import OCI_INDEX, Images, Internet, Told, digest_of, internet_in, manifest
from world import AMY, DANA, World, push, world_in

from bot.check import _registries
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.promotion import Phase
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.playground import repository as sample

IMAGE = "ghcr.io/acme/manual-app"
PLATFORM = digest_of(f"{IMAGE}:15".encode())
"""What the simulated pods report."""
AWAY = Told(status=503)


class Shop:
    """A world whose image comes from a registry that holds every version, each for two platforms."""

    def __init__(self, world: World, internet: Internet) -> None:
        self.world = world
        self.internet = internet
        self.images = Images(internet, "ghcr.io")
        self.digest = self.push("15")
        self.push("14")

    def push(self, version: str, *, build: str = "one") -> str:
        """Push a version; returns its digest."""
        index = manifest(OCI_INDEX, manifests=[{"digest": PLATFORM}], annotations={"build": version + build})
        return self.images.put("acme/manual-app", version, OCI_INDEX, index)

    def is_away(self, away: bool = True) -> None:
        self.images.answer = (lambda _: AWAY) if away else None

    async def shown(self) -> str:
        """What the newest card says."""
        return json.dumps(self.world.cards()[-1].blocks, ensure_ascii=False)


@pytest.fixture
async def shop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    async with internet_in(tmp_path, monkeypatch) as internet, world_in(tmp_path, redis_url) as world:
        registry = Registry({"ghcr.io": Access()}, verify=internet.verify)
        catalog = world.configure(registries={"ghcr.io": {}})
        world.parts = replace(world.parts, catalog=catalog, images=registry)
        world.engine = world.new_engine()
        yield Shop(world, internet)
        await registry.aclose()


async def test_the_digest_is_shown_and_written_into_the_commits_trailers(shop: Shop) -> None:
    """People see which build they approve, and git keeps it; the values file, which has no digest, gets none."""
    id = await shop.world.request()
    await shop.world.advance(id)
    assert f"*Digest*\\n`{shop.digest[:19]}…`" in await shop.shown()
    await shop.world.promoter.approve(id, user=AMY)
    await shop.world.advance_until(id, Phase.LIVE)
    [commit] = shop.world.commits(id)
    assert ("Digest", shop.digest) in commit.trailers
    assert "sha256" not in sample.read_file(shop.world.repository, "values-prod.yaml")
    assert shop.world.value() == "15"


async def test_a_pod_of_one_platform_is_proved_by_the_index(shop: Shop) -> None:
    """What a node reports is one of the manifests of what was promoted."""
    id = await shop.world.request()
    await shop.world.advance(id)
    await shop.world.promoter.approve(id, user=AMY)
    promotion = await shop.world.advance_until(id, Phase.LIVE)
    assert "3 of 3 proved by the digest" in (promotion.ending or "")


async def test_a_rollout_needs_no_registry(shop: Shop) -> None:
    """After the commit a registry that is away costs the proof, and nothing else."""
    id = await shop.world.request()
    await shop.world.advance(id)
    await shop.world.promoter.approve(id, user=AMY)
    await shop.world.advance_until(id, Phase.COMMITTED)
    shop.is_away()
    promotion = await shop.world.advance_until(id, Phase.LIVE)
    assert "its digest cannot be compared" in (promotion.ending or "")


async def test_nothing_is_asked_for_while_the_registry_is_away(shop: Shop) -> None:
    """Nobody is promised a build that nobody has seen; a version that is not there is said to be so."""
    shop.is_away()
    with pytest.raises(Unavailable, match=r"the registry ghcr.io is not available: ghcr.io answers 503"):
        await shop.world.request()
    shop.is_away(False)
    with pytest.raises(Failed, match=rf"There is no {IMAGE}:99 in the registry"):
        await shop.world.request("dev", "99")
    assert await shop.world.pending() == []


async def test_a_tag_that_is_pushed_anew_cannot_be_approved(shop: Shop) -> None:
    """The approver hears both digests, the promotion has ended, and nothing was committed."""
    id = await shop.world.request()
    await shop.world.advance(id)
    new = shop.push("15", build="two")
    says = (
        f"the tag 15 was pushed anew since it was asked for: it was {shop.digest[:19]}…, now {new[:19]}…; "
        "nothing was committed"
    )
    with pytest.raises(Refused, match=says):
        await shop.world.promoter.approve(id, user=AMY)
    stale = await shop.world.find(id)
    assert (stale.phase, stale.ending) == (Phase.STALE, says)
    assert shop.world.commits(id) == []


async def test_a_tag_that_is_pushed_anew_after_the_approval_is_not_committed(shop: Shop) -> None:
    """The last look is right before the commit."""
    id = await shop.world.approved()
    shop.push("15", build="two")
    await shop.world.advance(id)
    assert (await shop.world.find(id)).phase is Phase.STALE
    assert shop.world.commits(id) == []


async def test_an_approval_waits_for_the_registry(shop: Shop) -> None:
    """While nobody can tell which build it is, nobody says yes to it; a later try may."""
    id = await shop.world.request()
    await shop.world.advance(id)
    shop.is_away()
    with pytest.raises(Unavailable):
        await shop.world.promoter.approve(id, user=AMY)
    assert (await shop.world.find(id)).approvals == ()
    shop.is_away(False)
    assert (await shop.world.promoter.approve(id, user=AMY)).approvals


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_commit_waits_for_the_registry_for_a_while(shop: Shop, comes_back: bool) -> None:
    """The card says what it waits for; after half an hour nothing is committed any more."""
    id = await shop.world.approved()
    shop.is_away()
    after = await shop.world.advance(id)
    assert after is not None
    assert timedelta(0) < after <= timedelta(seconds=30)
    assert "the registry ghcr.io is not available" in await shop.world.show(id)
    assert shop.world.commits(id) == []
    if comes_back:
        shop.is_away(False)
        await shop.world.advance_until(id, Phase.COMMITTED)
    else:
        shop.world.passes(1801)
        await shop.world.advance_until(id, Phase.EXPIRED)
        assert shop.world.commits(id) == []


async def test_a_version_that_is_gone_ends_the_promotion(shop: Shop) -> None:
    """What nobody could run is not committed."""
    id = await shop.world.approved()
    shop.images.tagged.clear()
    await shop.world.advance(id)
    failed = await shop.world.find(id)
    assert failed.phase is Phase.FAILED
    assert f"There is no {IMAGE}:15 in the registry" in (failed.ending or "")
    assert shop.world.commits(id) == []


@pytest.mark.parametrize("held", ["right", "wrong"])
async def test_the_digest_of_the_environment_before_is_the_registrys(shop: Shop, held: str) -> None:
    """What stage runs by its digest is what goes on; both digests are named where the tag means another build now."""
    world = shop.world
    app = {"image": IMAGE, "digests": ["image.digest"]}
    catalog = world.configure(registries={"ghcr.io": {}}, apps={"manual-app": app})
    world.parts = replace(world.parts, catalog=catalog)
    digest = shop.digest if held == "right" else "sha256:" + "e" * 64
    for environment, said in (("stage", digest), ("prod", "sha256:" + "d" * 64)):
        path = f"values-{environment}.yaml"
        text = sample.read_file(world.repository, path)
        push(world.repository, {path: text.replace("  tag:", f"  digest: {said}\n  tag:")})
    await world.roll_out("stage")
    if held == "right":
        promotion = await world.find(await world.request())
        assert promotion.digest == digest
        return
    with pytest.raises(
        Refused, match=f"stage has 15 as {digest[:19]}…, but the registry has {shop.digest[:19]}…"
    ):
        await world.request()


@pytest.mark.parametrize("is_tag_only", [False, True])
async def test_where_no_registry_is_configured_none_is_asked(shop: Shop, is_tag_only: bool) -> None:
    """What the pods of stage report is the build then; where the app says so, the tag alone is compared."""
    world = shop.world
    app = {"image": IMAGE} | ({"same_image": "tag-only"} if is_tag_only else {})
    world.parts = replace(world.parts, catalog=world.configure(apps={"manual-app": app}))
    world.engine = world.new_engine()
    id = await world.request()
    await world.advance(id)
    assert ("*Digest*" in await shop.shown()) != is_tag_only
    await world.promoter.approve(id, user=AMY)
    promotion = await world.advance_until(id, Phase.LIVE)
    assert promotion.digest == ("unknown" if is_tag_only else PLATFORM)
    assert ("3 of 3 proved by the digest" in (promotion.ending or "")) != is_tag_only
    assert shop.internet.asked == []


async def test_a_rollback_is_to_the_build_that_was_there(shop: Shop) -> None:
    """A tag that means another build by now brings nothing back."""
    world = shop.world
    first = shop.push("17")
    for version in ("17", "15"):
        await world.advance_until(await world.request("dev", version), Phase.LIVE)
    dev = {"app": "manual-app", "environment": "dev", "user": DANA, "version": "17"}
    new = shop.push("17", build="two")
    with pytest.raises(Refused, match=f"dev has 17 as {first[:19]}…, but the registry has {new[:19]}…"):
        await world.promoter.roll_back(**dev)
    shop.push("17")
    assert (await world.promoter.roll_back(**dev)).digest == first


async def test_the_check_names_the_build_that_an_environment_holds(shop: Shop) -> None:
    """A login that does not work is found before anybody asks for a promotion; a registry of no app is mentioned."""
    world = shop.world
    config = world.config(registries={"ghcr.io": {}, "quay.io": {}})
    outside = SimpleNamespace(
        catalog=world.parts.catalog, config=config, gitops=world.values, images=world.parts.images
    )
    shop.push("16")
    good, unused = [line async for line in _registries(outside)]  # type: ignore[arg-type]
    assert (good.level, good.what) == ("ok", f"registry: {IMAGE}")
    assert good.says.startswith("dev's 16 is sha256:")
    assert (unused.level, unused.says) == ("note", "no app's image comes from it")
    shop.images.answer = lambda _: Told(status=403)
    bad, _ = [line async for line in _registries(outside)]  # type: ignore[arg-type]
    assert (bad.level, "does not let the bot read acme/manual-app" in bad.says) == ("error", True)


async def test_who_asks_hears_it(shop: Shop) -> None:
    """The sentence reaches Slack as it is."""
    shop.is_away()
    async with shop.world.hearing():
        await shop.world.command("manual-app prod")
        assert "he registry ghcr.io is not available" in await shop.world.answer(DANA)
