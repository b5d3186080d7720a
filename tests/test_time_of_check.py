"""Between a decision and its commit one fact changes: then nothing is written, and people read which fact it was.

Every world here has every gate, and a control says that without the change it is committed.
"""

import asyncio
import json
import os
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis import Redis
from registry_servers import OCI_IMAGE, DockerRegistry, docker_registry
from test_probes import System, running, saying
from world import AMY, BEN, CHANNEL, DANA, GROUP, MEL, NOON, World, push, world_in

from bot.core.asking import PLAINLY, Manner
from bot.core.board import BadVersion, Lock, Report, Scope, Soaked
from bot.core.catalog import Image
from bot.core.errors import NoGroup, Refused, Unavailable
from bot.core.ports import Change, Edit
from bot.core.promotion import Phase, Promotion, PromotionId, Way
from bot.git_access import COMMITTER
from bot.integrations.gitops import GitRepository
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.playground import repository as sample

CARA = "U0CARAGROUP"
"""She approves; only the user group makes her an approver."""
RESCUERS = "S0RESCUERS1"
IMAGE = "ghcr.io/acme/manual-app"
OTHER_BUILD = "sha256:" + "e" * 64
CHART = "templates/deployment.yaml"
HOUR = timedelta(hours=1)
FREEZE = {"deny": {"from": "2026-03-02T12:10", "to": "2026-03-02T14:00"}, "zone": "UTC", "why": "a freeze"}


class Place:
    """A world whose prod has every gate, all of them open, and 15 in stage ready to go there."""

    def __init__(self, world: World, system: System) -> None:
        self.world = world
        self.system = system
        self.is_over = asyncio.Event()
        self.group = world.slack.add_group(GROUP, handle="releasers", users=[CARA])
        self.rescuers = world.slack.add_group(RESCUERS, handle="rescuers", users=[MEL])
        world.slack.add_user(CARA, name="cara", real_name="Cara Diaz", email="cara@acme.example")
        world.slack.workspace.channels[CHANNEL].members.add(CARA)
        self.configure()

    def configure(self, **different: Any) -> None:
        """Begin to follow a file with these rules for prod, as a bot that was started anew does."""
        world = self.world
        rules = {
            "approvals": {"rules": [{"users": [AMY, BEN], "group": GROUP, "min": 1}]},
            "soak": "1h",
            "checks": ["integration"],
            "probes": [{"name": "errors", "url": self.system.url, "within": "1s", "allow_local": True}],
            "parity": "required",
            "windows": [FREEZE],
            "waits": "2d",
            "emergency": {"who": [RESCUERS], "skips": ["quorum"]},
        }
        app = {"image": IMAGE, "expected_differences": ["replicaCount", "ingress.host"]}
        timing = {"rollout": {"stable_for": "5s", "degraded_grace": "8s", "timeout": "5m"}}
        policies = {"dev": timing, "stage": timing, "prod": timing | rules | different}
        catalog = world.configure(policies=policies, apps={"manual-app": app})
        world.parts = replace(world.parts, catalog=catalog)
        world.engine = world.new_engine()

    async def open_gates(self) -> None:
        """The build has soaked and was checked, as stage runs it."""
        self.build = await self.world.new_drafting().running(self.world.target("stage"), "15")
        assert self.build.has_digest
        await self.soak(HOUR)
        await self.report(passed=True)

    async def soak(self, total: timedelta) -> None:
        soaked = Soaked(total=total, seen_at=self.world.clock.now(), was_healthy=True)
        await self.world.board.soak("manual-app", "stage", self.build, soaked)

    async def report(self, *, passed: bool, image: Image | None = None) -> None:
        """The check says something new of a build."""
        self.world.clock.at += timedelta(seconds=1)
        report = Report(
            app="manual-app",
            environment="stage",
            image=image or self.build,
            check="integration",
            passed=passed,
            by="hook:ci",
            at=self.world.clock.now(),
        )
        await self.world.board.report(self.world.parts.sealer.sealed_report(report))

    async def request(self, *, user: str = DANA, manner: Manner = PLAINLY) -> PromotionId:
        """Dana asks for what stage runs, and the card is posted."""
        asked = self.world.promoter.request(
            app="manual-app",
            environment="prod",
            version=None,
            reason="fixes INC-42",
            user=user,
            manner=manner,
        )
        promotion: Promotion = await self.world.moving(asked)
        await self.world.advance(promotion.id)
        return promotion.id

    async def approved(self, *, manner: Manner = PLAINLY) -> PromotionId:
        """Cara has approved it, and nothing but the commit is left to do."""
        id = await self.request(manner=manner)
        await self.world.promoter.approve(id, user=CARA)
        await self.world.advance(id)
        assert (await self.world.find(id)).phase is Phase.APPROVED
        return id

    async def lock(self, **scope: str) -> None:
        lock = Lock(scope=Scope(**scope), by=BEN, reason="a migration", at=self.world.clock.now())
        await self.world.board.lock(lock)

    def raw(self) -> Redis:
        """The store as it is, for whoever can write to it."""
        return Redis.from_url(self.world.redis_url, decode_responses=True)

    def keys(self, like: str) -> list[str]:
        with self.raw() as raw:
            found = raw.keys(like)
        assert found, f"there is no {like}"
        return list(found)

    async def rewrite(self, id: str, **changes: Any) -> None:
        """Somebody who can write to the store changes the record."""
        before = await self.world.find(id)
        after = replace(before, edition=before.edition + 1, **changes)
        await self.world.store.save([Change(before=before, after=after)], holds=True)

    async def why(self, id: str) -> str:
        """What people read of why nothing is written."""
        promotion, look = await self.world.find(id), await self.world.store.look(id)
        return promotion.ending or look.waits_for or look.held_by or promotion.last.why or ""


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with running() as system, world_in(tmp_path, redis_url) as world:
        made = Place(world, system)
        await made.open_gates()
        yield made
        made.is_over.set()


# --- what changes


async def fall_silent(place: Place) -> None:
    """The probe hears the question, and says nothing as long as the test lasts."""

    async def silence(_: web.Request) -> web.Response:
        await place.is_over.wait()
        return web.Response()

    place.system.answer = silence


async def by_hand(place: Place) -> None:
    place.world.push_by_hand("prod", "13")


async def back_by_hand(place: Place) -> None:
    place.world.push_by_hand("stage", "14")


async def lose_the_value(place: Place) -> None:
    push(place.world.repository, {"values-stage.yaml": "image: {}\n"})


async def lose_argo_cd(place: Place) -> None:
    place.world.argocd.down = True


async def another_memory(place: Place) -> None:
    text = sample.read_file(place.world.repository, "values-prod.yaml")
    push(place.world.repository, {"values-prod.yaml": text.replace("cpu: 250m", "cpu: 500m")})


async def leave_the_group(place: Place) -> None:
    place.group.users = []


def become(kind: Any) -> Callable[[Place], Awaitable[None]]:
    async def change(place: Place) -> None:
        place.world.slack.user(CARA).kind = kind

    return change


def rules(**different: Any) -> Callable[[Place], Awaitable[None]]:
    async def change(place: Place) -> None:
        place.configure(**different)

    return change


async def the_freeze_begins(place: Place) -> None:
    place.world.clock.at = NOON + timedelta(minutes=10)


async def block(place: Place) -> None:
    bad = BadVersion(app="manual-app", version="15", by=BEN, reason="loses orders", at=NOON)
    await place.world.board.block(bad)


async def unreadable_lock(place: Place) -> None:
    with place.raw() as raw:
        raw.hset("{gp}:locks", "a lock of another version", '{"scope":"all"}')


async def fail_the_check(place: Place) -> None:
    await place.report(passed=False)


async def check_another_build(place: Place) -> None:
    with place.raw() as raw:
        raw.delete(*place.keys("*:reports:*"))
    await place.report(passed=True, image=replace(place.build, digest=OTHER_BUILD))


async def forge_the_check(place: Place) -> None:
    """It failed, and whoever writes to the store turns the very words round."""
    await place.report(passed=False)
    (key,) = place.keys("*:reports:*")
    with place.raw() as raw:
        for field, text in raw.hgetall(key).items():
            raw.hset(key, field, json.dumps(json.loads(text) | {"passed": True}))


async def forget_the_soak(place: Place) -> None:
    with place.raw() as raw:
        raw.delete(*place.keys("*:soak:*"))


def answer(told: Any) -> Callable[[Place], Awaitable[None]]:
    async def change(place: Place) -> None:
        place.system.answer = told

    return change


async def change_the_dossier(place: Place) -> None:
    (key,) = place.keys("*:dossier")
    with place.raw() as raw:
        raw.set(key, json.dumps(json.loads(raw.get(key) or "") | {"checks": ["everything passed"]}))


async def delete_the_dossier(place: Place) -> None:
    with place.raw() as raw:
        raw.delete(*place.keys("*:dossier"))


async def garble_the_dossier(place: Place) -> None:
    (key,) = place.keys("*:dossier")
    with place.raw() as raw:
        raw.set(key, "[]")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that changes, where the promotion stands then, and what people read."""

    change: Callable[[Place], Awaitable[object]]
    stands: Phase = Phase.STALE
    says: str
    click: str = ""
    """What an approver reads who comes after it; empty where only the commit asks."""


CHANGED_RULES = "the configuration of its target or the rules for it changed after it was asked for"
LOST_DOSSIER = "when it was asked for is lost or was changed"
FACTS: Mapping[str, Fact] = {
    "the value": Fact(change=by_hand, says="prod went from 14 to 13 after it was asked for"),
    "the environment before goes back": Fact(
        change=back_by_hand, says="stage went back from 15 to 14 after it was asked for"
    ),
    "the environment before cannot be read": Fact(
        change=lose_the_value, stands=Phase.APPROVED, says=r"order: could not be checked: .*trying again"
    ),
    "the environment before cannot be seen": Fact(
        change=lose_argo_cd,
        stands=Phase.APPROVED,
        says=r"order: could not be checked: Argo CD is not available.*trying again",
    ),
    "the group": Fact(
        change=leave_the_group, stands=Phase.REQUESTED, says="may not approve", click="You may not approve"
    ),
    "the approver leaves": Fact(
        change=become("deactivated"), stands=Phase.REQUESTED, says="may not approve", click="is deactivated"
    ),
    "the approver becomes a guest": Fact(
        change=become("guest"), stands=Phase.REQUESTED, says="may not approve", click="guests may not promote"
    ),
    "the rules": Fact(
        change=rules(approvals={"rules": [{"users": [AMY, BEN], "group": GROUP, "min": 2}]}),
        says=CHANGED_RULES,
        click=CHANGED_RULES,
    ),
    "the soak of the rules": Fact(change=rules(soak="30m"), says=CHANGED_RULES, click=CHANGED_RULES),
    "the windows of the rules": Fact(change=rules(windows=[]), says=CHANGED_RULES, click=CHANGED_RULES),
    "the window": Fact(change=the_freeze_begins, says="a freeze", click="a freeze"),
    "a lock on the target": Fact(
        change=lambda place: place.lock(app="manual-app", environment="prod"),
        says="manual-app/prod is locked: a migration",
        click="manual-app/prod is locked: a migration",
    ),
    "a lock on the environment": Fact(
        change=lambda place: place.lock(environment="prod"),
        says="prod is locked: a migration",
        click="prod is locked: a migration",
    ),
    "a lock on everything": Fact(
        change=lambda place: place.lock(),
        says="everything is locked: a migration",
        click="everything is locked: a migration",
    ),
    "a lock that cannot be read": Fact(
        change=unreadable_lock,
        stands=Phase.APPROVED,
        says=r"locks: could not be checked: .* cannot be read.*trying again",
        click="locks: could not be checked",
    ),
    "the check fails": Fact(
        change=fail_the_check, says="check integration: failed", click="check integration: failed"
    ),
    "the check is of another build": Fact(
        change=check_another_build, says="nobody has reported it", click="nobody has reported it"
    ),
    "the check is forged": Fact(
        change=forge_the_check, says="nobody has reported it", click="nobody has reported it"
    ),
    "the version is blocked": Fact(
        change=block, says="15 is blocked: loses orders", click="15 is blocked: loses orders"
    ),
    "the soak is forgotten": Fact(change=forget_the_soak, says="for 0 s of 1 h", click="for 0 s of 1 h"),
    "the probe says no": Fact(change=answer(saying(409, "errors are up")), says="errors: errors are up"),
    "the probe hangs": Fact(
        change=fall_silent, stands=Phase.APPROVED, says="probes: could not be checked.*trying again"
    ),
    "the probe breaks": Fact(
        change=answer(saying(500)), stands=Phase.APPROVED, says="probes: could not be .*answers 500.*trying"
    ),
    "the environments differ": Fact(
        change=another_memory, says="stage and prod also differ in resources.requests.cpu"
    ),
    "the dossier is changed": Fact(change=change_the_dossier, says=LOST_DOSSIER, click=LOST_DOSSIER),
    "the dossier is gone": Fact(change=delete_the_dossier, says=LOST_DOSSIER, click=LOST_DOSSIER),
}


async def stays_unwritten(place: Place, id: str) -> None:
    """However often the worker looks, nothing of this promotion is on the branch."""
    for _ in range(4):
        await place.world.advance(id)
        assert place.world.commits(id) == []
        place.world.passes(31)


# --- the controls


async def test_where_nothing_changes_it_is_committed(place: Place) -> None:
    """Every gate is there and open: what follows below is the work of one changed fact."""
    id = await place.approved()
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.COMMITTED
    assert (len(place.world.commits(id)), place.world.value()) == (1, "15")
    assert place.system.heard


async def test_an_unrelated_edit_of_the_same_file_does_not_matter(place: Place) -> None:
    """Only what was shown binds: somebody else's line stays, and the promoted one changes."""
    id = await place.approved()
    text = sample.read_file(place.world.repository, "values-prod.yaml")
    push(place.world.repository, {"values-prod.yaml": text.replace("replicaCount: 3", "replicaCount: 4")})
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.COMMITTED
    assert "replicaCount: 4" in sample.read_file(place.world.repository, "values-prod.yaml")
    assert place.world.value() == "15"


# --- one fact


@pytest.mark.parametrize("name", FACTS)
async def test_a_fact_that_changes_after_the_approval_stops_the_commit(place: Place, name: str) -> None:
    """The last look is right before the commit: it ends, or waits, and people read why."""
    fact, id = FACTS[name], await place.approved()
    await fact.change(place)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is fact.stands
    assert re.search(fact.says, await place.why(id), re.DOTALL)
    await stays_unwritten(place, id)
    assert place.world.value() != "15"


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if fact.click])
async def test_a_fact_that_changed_before_the_click_refuses_it(place: Place, name: str) -> None:
    """The approver reads why, and no approval is recorded."""
    fact, id = FACTS[name], await place.request()
    await fact.change(place)
    with pytest.raises(Refused, match=fact.click) as refusal:
        await place.world.promoter.approve(id, user=CARA)
    assert str(refusal.value).endswith(".")
    assert (await place.world.find(id)).approvals == ()
    await stays_unwritten(place, id)


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if not fact.click])
async def test_what_no_click_asks_stops_the_commit_all_the_same(place: Place, name: str) -> None:
    """What other systems say is asked once a worker has the time; an approval does not make up for it."""
    fact, id = FACTS[name], await place.request()
    await fact.change(place)
    await place.world.promoter.approve(id, user=CARA)
    await stays_unwritten(place, id)
    assert re.search(fact.says, await place.why(id), re.DOTALL)


@pytest.mark.parametrize("name", [name for name, fact in FACTS.items() if fact.stands is Phase.APPROVED])
async def test_what_cannot_be_asked_for_half_an_hour_ends_it(place: Place, name: str) -> None:
    """It waits for an answer, and not for ever."""
    id = await place.approved()
    await FACTS[name].change(place)
    await place.world.advance(id)
    place.world.passes(1801)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.EXPIRED
    await stays_unwritten(place, id)


@pytest.mark.parametrize(
    ("name", "mended"), [("the probe breaks", saying(200)), ("the probe hangs", saying(200))]
)
async def test_what_answers_again_is_enough(place: Place, name: str, mended: Any) -> None:
    """A system that was away for a moment costs a moment."""
    id = await place.approved()
    await FACTS[name].change(place)
    await place.world.advance(id)
    place.system.answer = mended
    await place.world.advance_until(id, Phase.COMMITTED)


async def test_a_dossier_that_cannot_be_read_is_not_taken_for_none(place: Place) -> None:
    """Nobody approves and nothing is written without it; what lost it may be cancelled."""
    id = await place.request()
    await garble_the_dossier(place)
    with pytest.raises(Unavailable, match=f"what was found about {id} cannot be read"):
        await place.world.promoter.approve(id, user=CARA)
    await delete_the_dossier(place)
    await place.world.promoter.cancel(id, user=DANA)

    id = await place.approved()
    await garble_the_dossier(place)
    for _ in range(3):
        with pytest.raises(Unavailable, match=f"what was found about {id} cannot be read"):
            await place.world.advance(id)
        assert place.world.commits(id) == []


DENIED = "S0DENIED001"


@pytest.mark.parametrize("is_before_the_click", [True, False])
async def test_nothing_is_written_while_nobody_can_tell_who_is_denied(
    place: Place, is_before_the_click: bool
) -> None:
    """The group that may not approve is disabled: whoever approved may be in it, until Slack shows it again."""
    world = place.world
    denied = world.slack.add_group(DENIED, handle="contractors", users=[])
    rules = [{"users": [AMY, BEN], "group": GROUP, "min": 1}]
    place.configure(approvals={"rules": rules, "deny": {"groups": [DENIED]}})
    says = f"nobody can tell who is in the user group {DENIED}, which is disabled or gone"
    if is_before_the_click:
        id = await place.request()
        denied.disabled = True
        with pytest.raises(NoGroup, match=says):
            await world.promoter.approve(id, user=CARA)
        denied.disabled = False
        await world.promoter.approve(id, user=CARA)
    else:
        id = await place.approved()
        denied.disabled = True
        await world.advance(id)
        assert (await world.find(id)).phase is Phase.APPROVED
        assert says in (await world.store.look(id)).waits_for
        await stays_unwritten(place, id)
        denied.disabled = False
    await world.advance_until(id, Phase.COMMITTED)


async def test_whom_the_denied_group_holds_when_it_is_back_does_not_count(place: Place) -> None:
    """She approved while nobody could tell, and is one of those who may not."""
    denied = place.world.slack.add_group(DENIED, handle="contractors", users=[])
    rules = [{"users": [AMY, BEN], "group": GROUP, "min": 1}]
    place.configure(approvals={"rules": rules, "deny": {"groups": [DENIED]}})
    id = await place.approved()
    denied.users, denied.disabled = [CARA], True
    await stays_unwritten(place, id)
    denied.disabled = False
    await place.world.advance(id)
    assert ((await place.world.find(id)).phase, place.world.commits(id)) == (Phase.REQUESTED, [])


async def test_a_request_is_not_recorded_while_nobody_can_tell_who_is_denied(place: Place) -> None:
    """Whoever asks hears it at once, with what to do."""
    place.configure(
        approvals={"rules": [{"users": [AMY, BEN], "min": 1}], "deny": {"groups": ["S0NOWHERE01"]}}
    )
    with pytest.raises(NoGroup, match=r"S0NOWHERE01.*name another one in promote.yaml"):
        await place.request()
    assert await place.world.pending() == []


async def test_an_emergency_that_needs_no_approval_does_not_wait_for_a_denied_group(place: Place) -> None:
    """Where nobody has to approve, it does not matter who may not."""
    denied = place.world.slack.add_group(DENIED, handle="contractors", users=[])
    place.configure(approvals={"rules": [{"users": [AMY, BEN], "min": 1}], "deny": {"groups": [DENIED]}})
    id = await breaks_glass(place)
    denied.disabled = True
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.COMMITTED


# --- the tag


@pytest.fixture
async def shop(tmp_path: Path, redis_url: str) -> AsyncIterator[tuple[World, DockerRegistry]]:
    """A world whose image comes from a registry of its own, and whose files hold its digest."""
    with docker_registry(tmp_path) as registry:
        image = f"{registry.host}/acme/manual-app"
        async with world_in(tmp_path, redis_url) as world:
            made = Registry({registry.host: Access(allow_local=True)}, verify=ssl.create_default_context())
            old, new = (registry.image("acme/manual-app", tag, says=tag) for tag in ("14", "15"))
            for environment, digest in (("stage", new), ("prod", old)):
                path = f"values-{environment}.yaml"
                text = sample.read_file(world.repository, path).replace(IMAGE, image)
                push(world.repository, {path: text.replace("  tag:", f"  digest: {digest}\n  tag:")})
            await world.roll_out("stage")
            catalog = world.configure(
                registries={registry.host: {"allow_local": True}},
                apps={"manual-app": {"image": image, "digests": ["image.digest"]}},
            )
            world.parts = replace(world.parts, catalog=catalog, images=made)
            world.engine = world.new_engine()
            yield world, registry
            await made.aclose()


@pytest.mark.parametrize("is_pushed_anew", [True, False])
async def test_a_tag_that_is_pushed_anew_after_the_approval(
    shop: tuple[World, DockerRegistry], is_pushed_anew: bool
) -> None:
    """The registry is asked right before the commit: another build under the same tag was approved by nobody."""
    world, registry = shop
    id = await world.approved()
    if is_pushed_anew:
        registry.image("acme/manual-app", "15", OCI_IMAGE, says="another build")
    await world.advance(id)
    promotion = await world.find(id)
    assert promotion.phase is (Phase.STALE if is_pushed_anew else Phase.COMMITTED)
    assert ("the tag 15 was pushed anew" in (promotion.ending or "")) is is_pushed_anew
    assert len(world.commits(id)) == (0 if is_pushed_anew else 1)


async def test_a_tag_that_is_pushed_anew_before_the_click(shop: tuple[World, DockerRegistry]) -> None:
    """The approver reads both digests, and the request has ended."""
    world, registry = shop
    id = await world.request()
    new = registry.image("acme/manual-app", "15", OCI_IMAGE, says="another build")
    with pytest.raises(Refused, match=f"pushed anew since it was asked for: .* now {new[:19]}"):
        await world.promoter.approve(id, user=AMY)
    assert (await world.find(id)).phase is Phase.STALE


# --- what goes with it


@pytest.mark.parametrize("automated", [True, False])
async def test_a_commit_to_the_chart_matters_where_somebody_syncs(
    tmp_path: Path, redis_url: str, automated: bool
) -> None:
    """By hand, one sync brings all that waits, so an approval counts for that list alone; else it is out already."""
    async with world_in(tmp_path, redis_url, automated=automated) as world:
        id = await world.approved()
        text = sample.read_file(world.repository, CHART)
        push(world.repository, {CHART: text + "# slower\n"}, message="Make it slower")
        await world.advance(id)
        promotion = await world.find(id)
        assert promotion.phase is (Phase.COMMITTED if automated else Phase.STALE)
        assert len(world.commits(id)) == int(automated)
        if not automated:
            assert "renders from changed after it was asked for (Make it slower)" in (promotion.ending or "")


async def test_the_chart_matters_between_two_pushes_too(tmp_path: Path, redis_url: str) -> None:
    """A push that is repeated onto somebody else's commit would bring that commit along."""
    async with world_in(tmp_path, redis_url, automated=False) as world:
        id = await world.approved()
        await world.pushed_in_vain(id)
        push(world.repository, {CHART: sample.read_file(world.repository, CHART) + "# slower\n"})
        for _ in range(4):
            await world.advance(id)
            world.passes(60)
        assert (await world.find(id)).phase is Phase.STALE
        assert world.commits(id) == []


class Overtaken(GitRepository):
    """A writer that somebody else is a moment ahead of, once."""

    def __init__(self, ahead: Callable[[], object], **more: Any) -> None:
        super().__init__(**more)
        self._ahead = [ahead]

    async def commit(self, edit: Edit) -> str:
        """After everything was checked, and before it is pushed."""
        if self._ahead:
            self._ahead.pop()()
        return await super().commit(edit)


async def test_what_is_pushed_at_that_very_moment_is_not_carried_along(
    tmp_path: Path, redis_url: str
) -> None:
    """The commit goes onto the tip that was checked, or nowhere."""
    async with world_in(tmp_path, redis_url, automated=False) as world:
        id = await world.approved()
        slower = {CHART: sample.read_file(world.repository, CHART) + "# slower\n"}
        writer = Overtaken(
            lambda: push(world.repository, slower, message="Make it slower"),
            cache=tmp_path / "overtaken",
            committer=COMMITTER,
            allow_local=frozenset({"gitops"}),
        )
        try:
            await world.new_engine(values=writer).advance(id)
        finally:
            await writer.aclose()
        assert world.commits(id) == []
        for _ in range(4):
            await world.advance(id)
            world.passes(60)
        assert ((await world.find(id)).phase, world.commits(id)) == (Phase.STALE, [])


async def test_what_was_there_when_it_was_asked_for_is_approved_with_it(
    tmp_path: Path, redis_url: str
) -> None:
    """A commit to the chart that waits for a sync already stands in the dossier, and binds nobody any further."""
    async with world_in(tmp_path, redis_url, automated=False) as world:
        push(world.repository, {CHART: sample.read_file(world.repository, CHART) + "# slower\n"})
        id = await world.approved()
        dossier = await world.store.dossier(id)
        assert dossier is not None
        assert dossier.watched is not None
        assert (dossier.binds_watched, dossier.watched.count) == (True, 1)
        await world.advance(id)
        assert (await world.find(id)).phase is Phase.COMMITTED


# --- the order of the environments


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def approved_after_stage(world: World) -> PromotionId:
    """16 has come to stage by a promotion, and its promotion to prod is approved."""
    assert (await world.rest(await world.request("stage"))).phase is Phase.LIVE
    return await world.approved()


async def the_bot_rolls_back(world: World) -> None:
    back = await world.promoter.roll_back(app="manual-app", environment="stage", user=MEL)
    assert (await world.rest(back.id)).phase is Phase.LIVE


async def a_hand_takes_it_back(world: World) -> None:
    world.push_by_hand("stage", "15")


async def a_git_revert(world: World) -> None:
    """As git itself does it, in a clone of somebody's own."""
    (commit,) = [each for each in world.commits() if ("Environment", "stage") in each.trailers]
    clone = world.folder / "clone"
    git("clone", "--quiet", world.repository.as_uri(), str(clone), folder=world.folder)
    git("revert", "--no-edit", commit.revision, folder=clone)
    git("push", "--quiet", "origin", "main", folder=clone)


async def a_merged_revert(world: World) -> None:
    """As a pull request brings it, whose own commits are no part of the branch."""
    (commit,) = [each for each in world.commits() if ("Environment", "stage") in each.trailers]
    clone = world.folder / "clone"
    git("clone", "--quiet", world.repository.as_uri(), str(clone), folder=world.folder)
    git("checkout", "--quiet", "-b", "revert", folder=clone)
    git("revert", "--no-edit", commit.revision, folder=clone)
    git("checkout", "--quiet", "main", folder=clone)
    git("merge", "--quiet", "--no-ff", "--no-edit", "revert", folder=clone)
    git("push", "--quiet", "origin", "main", folder=clone)


def git(*words: str, folder: Path) -> None:
    who = ("-c", "user.name=Sam Okafor", "-c", "user.email=sam@acme.example")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *who, *words], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    "take_back", [the_bot_rolls_back, a_hand_takes_it_back, a_git_revert, a_merged_revert]
)
async def test_what_is_taken_back_before_does_not_go_on(
    world: World, take_back: Callable[[World], Awaitable[None]]
) -> None:
    """Whoever takes it back, and however: prod does not get what stage could not keep."""
    id = await approved_after_stage(world)
    await take_back(world)
    await world.advance(id)
    promotion = await world.find(id)
    assert promotion.phase is Phase.STALE
    assert promotion.ending == ("stage went back from 16 to 15 after it was asked for; nothing was committed")
    assert (world.commits(id), world.value()) == ([], "14")


async def test_what_is_taken_back_between_two_pushes_is_not_pushed_again(world: World) -> None:
    """Nobody knows whether the first push arrived, and the second is not made."""
    id = await approved_after_stage(world)
    await world.pushed_in_vain(id)
    world.push_by_hand("stage", "15")
    for _ in range(4):
        await world.advance(id)
        assert world.commits(id) == []
        world.passes(60)
    assert (await world.find(id)).phase is Phase.STALE


@pytest.mark.parametrize("then", [["17"], ["17", "18"], ["17", "16"]])
async def test_where_the_environment_before_goes_on_it_is_committed(world: World, then: list[str]) -> None:
    """A newer version in stage ends no request for the one that was tested there, nor does its own return."""
    id = await approved_after_stage(world)
    for version in then:
        world.push_by_hand("stage", version)
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    assert world.value() == "16"


async def test_who_goes_on_is_not_held_up_by_argo_cd(world: World) -> None:
    """Git alone tells that stage has gone on: what runs there now says nothing of what is promoted."""
    id = await approved_after_stage(world)
    world.push_by_hand("stage", "17")
    world.argocd.down = True
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED


async def edit(world: World, environment: str, old: str, new: str) -> None:
    """Somebody changes something else than the version, and Argo CD notices."""
    path = f"values-{environment}.yaml"
    text = sample.read_file(world.repository, path)
    assert old in text
    push(world.repository, {path: text.replace(old, new)})
    world.argocd.refresh(f"manual-app-{environment}", "normal")


async def test_what_crashes_before_does_not_go_on(world: World) -> None:
    """Stage holds the very version, and its pods crash since somebody gave them less memory."""
    id = await world.approved()
    world.argocd.degrade_next_rollout("manual-app-stage")
    await edit(world, "stage", "cpu: 250m", "cpu: 10m")
    await world.roll_out("stage")
    await world.advance(id)
    promotion = await world.find(id)
    assert promotion.phase is Phase.STALE
    assert "stage does not run 15 well any more: manual-app-stage is Degraded: " in (promotion.ending or "")
    assert (world.commits(id), world.value()) == ([], "14")


async def test_what_is_synced_before_is_waited_for(world: World) -> None:
    """A sync of the same version under way says neither yes nor no; when it has ended well, it is committed."""
    id = await world.approved()
    world.argocd.sync("manual-app-stage")
    for _ in range(2):
        await world.advance(id)
        promotion, look = await world.find(id), await world.store.look(id)
        assert (promotion.phase, world.commits(id)) == (Phase.APPROVED, [])
        assert "not known yet: manual-app-stage is being synced; trying again" in look.waits_for
    world.passes(30)
    await world.advance_until(id, Phase.COMMITTED)
    assert world.value() == "15"


async def test_what_rolls_out_before_is_waited_for(world: World) -> None:
    """Pods that are replaced without trouble are waited for."""
    id = await world.approved()
    await edit(world, "stage", "cpu: 250m", "cpu: 200m")
    world.passes(3)
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.APPROVED
    assert "is not known yet" in (await world.store.look(id)).waits_for
    await world.roll_out("stage")
    await world.advance_until(id, Phase.COMMITTED)


async def test_what_runs_another_version_before_than_its_branch_holds_does_not_go_on(world: World) -> None:
    """The chart does not take the version from the file any more, and Argo CD calls that Synced and Healthy."""
    id = await world.approved()
    text = sample.read_file(world.repository, CHART)
    push(world.repository, {CHART: text.replace("{{ .Values.image.tag }}", "13")})
    await world.roll_out("stage")
    await world.advance(id)
    promotion = await world.find(id)
    assert promotion.phase is Phase.STALE
    assert "stage does not run 15 well any more: manual-app-stage runs 13" in (promotion.ending or "")


async def test_who_comes_back_is_seen_before_argo_cd_has_noticed(world: World) -> None:
    """16 is followed by 17 and comes back: Argo CD still runs 17, and is asked to compare before anything ends."""
    id = await approved_after_stage(world)
    world.push_by_hand("stage", "17")
    await world.roll_out("stage")
    world.push_by_hand("stage", "16")
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.APPROVED
    await world.roll_out("stage")
    await world.advance_until(id, Phase.COMMITTED)


@pytest.mark.parametrize("is_mended", [True, False])
async def test_what_could_not_be_compared_before_is_compared_anew(world: World, is_mended: bool) -> None:
    """Argo CD's error may be over since it looked; where it is not, nobody knows what stage would run."""
    id = await world.approved()
    world.argocd.break_comparisons("manual-app-stage", "repository not accessible")
    world.argocd.refresh("manual-app-stage", "normal")
    world.passes(3)
    if is_mended:
        world.argocd.mend_comparisons("manual-app-stage")
    await world.advance(id)
    assert (await world.find(id)).phase is (Phase.COMMITTED if is_mended else Phase.APPROVED)
    if not is_mended:
        assert "repository not accessible" in (await world.store.look(id)).waits_for


async def test_argo_cd_away_is_waited_for(world: World) -> None:
    """Nobody can tell what stage runs, so nothing is written until somebody can."""
    id = await world.approved()
    world.argocd.down = True
    for _ in range(3):
        after = await world.advance(id)
        assert after is not None
        assert (await world.find(id)).phase is Phase.APPROVED
        assert "order: could not be checked: Argo CD" in (await world.store.look(id)).waits_for
        world.passes(after.total_seconds())
    world.argocd.down = False
    await world.advance_until(id, Phase.COMMITTED)


@pytest.mark.parametrize(("skips", "stands"), [(["order"], Phase.COMMITTED), (["quorum"], Phase.STALE)])
async def test_an_emergency_asks_for_the_order_unless_its_policy_skips_it(
    place: Place, skips: list[str], stands: Phase
) -> None:
    """Where the order is skipped neither the branch nor Argo CD is asked about stage; else an emergency waits too."""
    place.configure(emergency={"who": [RESCUERS], "skips": [*skips, "quorum"]})
    id = await breaks_glass(place)
    place.world.push_by_hand("stage", "14")
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is stands


@pytest.mark.parametrize("unseen", [True, False])
async def test_what_waits_for_a_window_ends_by_the_order_and_not_by_a_moment_without_argo_cd(
    frozen: tuple[Place, PromotionId], unseen: bool
) -> None:
    """It was asked for to wait, so it waits for Argo CD as well; but a version that is taken back comes never."""
    place, id = frozen
    await (lose_argo_cd(place) if unseen else back_by_hand(place))
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is (Phase.APPROVED if unseen else Phase.STALE)
    place.world.argocd.down = False
    place.world.clock.at = NOON + timedelta(hours=2)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is (Phase.COMMITTED if unseen else Phase.STALE)


# --- a shorter way


async def breaks_glass(place: Place) -> PromotionId:
    """Mel, a rescuer, needs nobody's approval; the worker has taken note of that."""
    id = await place.request(user=MEL, manner=Manner(incident="INC-7"))
    for _ in range(3):
        if (await place.world.find(id)).phase is Phase.APPROVED:
            return id
        await place.world.advance(id)
    raise AssertionError(f"{await place.world.find(id)}")


async def stop_rescuing(place: Place) -> None:
    place.rescuers.users = []


async def rescue_by_others(place: Place) -> None:
    place.configure(emergency={"who": [AMY], "skips": ["quorum"]})


async def rescue_by_nobody(place: Place) -> None:
    world = place.world
    place.configure()
    target = world.target()
    changed = replace(target, policy=replace(target.policy, emergency=None))
    targets = tuple(changed if each == target else each for each in world.parts.catalog.targets)
    world.parts = replace(world.parts, catalog=replace(world.parts.catalog, targets=targets))
    world.engine = world.new_engine()


async def leave_as_rescuer(place: Place) -> None:
    place.world.slack.user(MEL).kind = "deactivated"


async def nothing(_: Place) -> None:
    """The control."""


RESCUE_ENDS = {
    "nothing": (nothing, ""),
    "the group": (stop_rescuing, "Mel Roth may not break glass any more"),
    "the list": (rescue_by_others, CHANGED_RULES),
    "the rule": (rescue_by_nobody, CHANGED_RULES),
    "the person": (leave_as_rescuer, "Mel Roth may not break glass any more"),
    "a lock": (lambda place: place.lock(), "everything is locked"),
    "the version": (block, "15 is blocked"),
}


@pytest.mark.parametrize("name", RESCUE_ENDS)
async def test_who_broke_glass_must_still_be_allowed_to(place: Place, name: str) -> None:
    """The right is asked again at the commit, and so is every gate that the policy does not name."""
    change, says = RESCUE_ENDS[name]
    id = await breaks_glass(place)
    await change(place)
    await place.world.advance(id)
    promotion = await place.world.find(id)
    assert promotion.phase is (Phase.STALE if says else Phase.COMMITTED)
    assert says in (promotion.ending or "")
    assert len(place.world.commits(id)) == (0 if says else 1)


@pytest.mark.parametrize("name", RESCUE_ENDS)
async def test_a_push_is_repeated_only_for_who_still_may(place: Place, name: str) -> None:
    """Nobody knows whether the first push arrived, and the next one is checked like the first."""
    (change, says), id = RESCUE_ENDS[name], await breaks_glass(place)
    await place.world.pushed_in_vain(id)
    await change(place)
    for _ in range(4):
        await place.world.advance(id)
        place.world.passes(60)
    promotion = await place.world.find(id)
    assert promotion.phase is (Phase.STALE if says else Phase.LIVE)
    assert len(place.world.commits(id)) == (0 if says else 1)


AGAIN = [name for name, fact in FACTS.items() if fact.stands is not Phase.APPROVED]


@pytest.mark.parametrize("name", AGAIN)
async def test_a_fact_that_changes_between_two_pushes_stops_the_second(place: Place, name: str) -> None:
    """What stops the first push stops every other one; it is told when the first cannot arrive any more."""
    fact, id = FACTS[name], await place.approved()
    await place.world.pushed_in_vain(id)
    await fact.change(place)
    for _ in range(4):
        await place.world.advance(id)
        assert place.world.commits(id) == []
        place.world.passes(60)
    assert (await place.world.find(id)).phase is fact.stands


FLIPS: Mapping[str, dict[str, Any]] = {
    "an emergency": {"way": Way.EMERGENCY},
    "an emergency with an incident": {"way": Way.EMERGENCY, "incident": "INC-7"},
    "at once": {"way": Way.AT_ONCE},
    "at once, as a rollback": {"way": Way.AT_ONCE, "rollback_of": "P-0000000000"},
    "an incident": {"incident": "INC-7"},
    "waiting": {"waits": True},
}


@pytest.mark.parametrize("is_approved", [True, False])
@pytest.mark.parametrize("flip", FLIPS)
async def test_no_way_is_shorter_because_the_store_says_so(
    place: Place, flip: str, is_approved: bool
) -> None:
    """How it was asked for is sealed: whoever writes to the store changes neither the way nor what it passes."""
    id = await (place.approved() if is_approved else place.request())
    await place.rewrite(id, **FLIPS[flip])
    await stays_unwritten(place, id)
    promotion = await place.world.find(id)
    if is_approved:
        assert promotion.phase is Phase.STALE
    assert place.world.value() == "14"


async def test_an_ordinary_promotion_of_a_rescuer_does_not_become_an_emergency(place: Place) -> None:
    """Mel might have broken glass in the freeze, and did not: only the seal knows that."""
    place.configure(emergency={"who": [RESCUERS], "skips": ["windows"]})
    id = await place.request(user=MEL)
    await place.world.promoter.approve(id, user=CARA)
    await place.world.advance(id)
    await place.rewrite(id, way=Way.EMERGENCY)
    await the_freeze_begins(place)
    await stays_unwritten(place, id)
    promotion = await place.world.find(id)
    assert promotion.phase is Phase.STALE
    assert "its record was changed by somebody else" in (promotion.ending or "")
    assert [alarm for alarm in place.world.alarms if id in alarm]


async def test_an_emergency_cannot_be_turned_into_an_ordinary_promotion(place: Place) -> None:
    """Nobody takes the glass out of the record, and with it the review."""
    id = await breaks_glass(place)
    await place.rewrite(id, way=None, incident=None)
    await stays_unwritten(place, id)
    assert (await place.world.find(id)).phase is not Phase.COMMITTED


# --- start when the gates open

WAITING = Manner(waits=True)


@pytest.fixture
async def frozen(place: Place) -> tuple[Place, PromotionId]:
    """An approved promotion that waits for the end of the freeze."""
    place.world.clock.at = NOON + timedelta(minutes=20)
    id = await place.approved(manner=WAITING)
    await place.world.advance(id)
    promotion, look = await place.world.find(id), await place.world.store.look(id)
    assert promotion.phase is Phase.APPROVED
    assert look.held_by.startswith("It starts by itself when it may: ")
    assert "a freeze" in look.held_by
    return place, id


async def test_what_cannot_wait_is_not_asked_for_in_a_freeze(place: Place) -> None:
    """Without the wish to wait the request itself is refused, with the window's own words."""
    place.world.clock.at = NOON + timedelta(minutes=20)
    with pytest.raises(Refused, match="a freeze"):
        await place.request()
    assert await place.world.pending() == []


async def test_it_starts_by_itself_when_the_window_opens(frozen: tuple[Place, PromotionId]) -> None:
    """While it is closed nothing is written, far beyond the half hour that others have; then it is, untouched."""
    place, id = frozen
    world = place.world
    while world.clock.at < NOON + timedelta(hours=2):
        assert (await world.find(id)).phase is Phase.APPROVED
        assert world.commits(id) == []
        after = await world.advance(id)
        assert after is not None
        assert timedelta(0) < after <= timedelta(minutes=1)
        world.clock.at = min(world.clock.at + timedelta(minutes=10), NOON + timedelta(hours=2))
    await world.advance(id)
    assert (await world.find(id)).phase is Phase.COMMITTED
    assert (await world.store.look(id)).held_by == ""


async def test_it_waits_as_long_as_the_rules_say(place: Place) -> None:
    """After `waits` the approval counts no more, however long the window stays closed."""
    place.configure(windows=[FREEZE | {"deny": FREEZE["deny"] | {"to": "2026-03-09T14:00"}}])  # type: ignore[operator]
    place.world.clock.at = NOON + timedelta(minutes=20)
    id = await place.approved(manner=WAITING)
    approved_at = (await place.world.find(id)).approved_at
    assert approved_at is not None
    place.world.clock.at = approved_at + timedelta(days=2) - timedelta(seconds=1)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    place.world.clock.at += timedelta(seconds=1)
    await place.world.advance(id)
    expired = await place.world.find(id)
    assert expired.phase is Phase.EXPIRED
    assert "could not be written within 2 d of its approval" in (expired.ending or "")
    await stays_unwritten(place, id)


WHILE_IT_WAITS = [
    "the group",
    "the approver leaves",
    "the rules",
    "the version is blocked",
    "the dossier is changed",
]


@pytest.mark.parametrize("name", WHILE_IT_WAITS)
async def test_what_waits_is_no_better_than_what_does_not(
    frozen: tuple[Place, PromotionId], name: str
) -> None:
    """What moves meanwhile is seen while it waits, and not only when the window opens."""
    (place, id), fact = frozen, FACTS[name]
    await fact.change(place)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is fact.stands
    assert re.search(fact.says, await place.why(id), re.DOTALL)
    place.world.clock.at = NOON + timedelta(hours=3)
    await stays_unwritten(place, id)


async def test_a_value_that_moved_meanwhile_is_seen_at_the_latest_by_the_push(
    frozen: tuple[Place, PromotionId],
) -> None:
    """When the window opens, the branch does not hold any more what was approved."""
    place, id = frozen
    await by_hand(place)
    place.world.clock.at = NOON + timedelta(hours=2)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.STALE
    assert "prod went from 14 to 13" in await place.why(id)
    assert place.world.commits(id) == []


async def test_what_waits_may_be_cancelled(frozen: tuple[Place, PromotionId]) -> None:
    """Its requester calls it off, and the window opens for nothing."""
    place, id = frozen
    await place.world.promoter.cancel(id, user=DANA)
    place.world.clock.at = NOON + timedelta(hours=3)
    await place.world.advance(id)
    assert (await place.world.find(id)).phase is Phase.CANCELLED
    assert place.world.commits(id) == []


@pytest.mark.parametrize("change", [change_the_dossier, delete_the_dossier])
async def test_what_lost_its_dossier_may_be_cancelled(place: Place, change: Any) -> None:
    """The refusal says to cancel it, so that must be possible."""
    id = await place.request()
    await change(place)
    with pytest.raises(Refused, match="Cancel it, and ask again"):
        await place.world.promoter.approve(id, user=CARA)
    assert (await place.world.promoter.cancel(id, user=DANA)).phase is Phase.CANCELLED
