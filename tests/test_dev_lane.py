"""The dev lane: what CI delivers by the hook becomes a promotion like any other, and the newest build wins."""

import asyncio
import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ci_world import GITHUB_SECRET, KEY, BuildServer, hearing_machines
from redis.asyncio import Redis
from test_story import QUICK
from world import AMY, CHANNEL, DANA, World, push, wait_until, world_in

from bot.ci import set_image
from bot.core.board import BadVersion, Lock, Scope
from bot.core.errors import Refused
from bot.core.ports import Change
from bot.core.promotion import Phase, Promotion, PromotionId
from bot.core.reconciling import Reconciling
from bot.integrations.gitops import GitRepository
from bot.outside import SystemClock
from bot.playground import repository as sample
from bot.playground.workshop import Workshop
from bot.settings import Settings
from handlers.webhook import GITHUB_PATH

BUILD = "https://ci.example.com/job/manual-app/17/"
DIGEST = "sha256:" + "d" * 64


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
async def ci(world: World) -> AsyncIterator[BuildServer]:
    async with hearing_machines(world) as server:
        yield server


async def delivered(ci: BuildServer, version: str = "17", **more: str) -> PromotionId:
    """A build that was taken; the promotion's id."""
    status, answer = await ci.deliver(version, **{"delivery": f"build-of-{version}"} | more)
    assert status == 202, answer
    return PromotionId(answer["promotion"])


# --- the whole way


async def test_a_delivered_build_goes_live_in_dev(world: World, ci: BuildServer) -> None:
    """The same engine, the same commit with its trailers, and a card that names the machine plainly."""
    id = await delivered(ci, reason="Fix the login", link=BUILD)
    assert (await world.rest(id)).phase is Phase.LIVE
    assert world.value("dev") == "17"
    [commit] = world.commits(id)
    trailers = dict(commit.trailers)
    assert trailers["Requested-By"] == "jenkins CI <jenkins@ci.slack.invalid> (ci/hook:jenkins)"
    assert (trailers["From"], trailers["Reason"], trailers["Build"]) == ("ci", "Fix the login", BUILD)
    shown = await world.shown(id)
    assert "`17` is live in *dev*" in shown
    assert "jenkins (CI)" in shown
    assert f"<{BUILD}|its build>" in shown
    assert "hook:jenkins" not in shown + await world.thread(id)
    assert "<@" not in shown + await world.thread(id)


async def test_what_is_live_in_dev_can_be_promoted_from_its_card(world: World, ci: BuildServer) -> None:
    """One press asks for the next environment, as the person who pressed."""
    id = await delivered(ci)
    await world.rest(id)
    async with world.hearing():
        card = await world.card(id)
        await world.moving(world.slack.click(DANA, CHANNEL, card.ts, "ask_for"))
        await world.until(lambda: world.told(DANA), "Dana is told")
    [asked] = await world.store.history(world.target("stage"))
    assert (asked.version, asked.requested_by.id) == ("17", DANA)
    assert '"text": "Promote to stage"' in await world.shown(id)


async def test_a_failure_names_the_resource(world: World, ci: BuildServer) -> None:
    """CI hears that it was taken; the channel hears what became of it."""
    world.argocd.fail_next_sync("manual-app-dev", "Deployment/manual-app: quota exceeded")
    id = await delivered(ci)
    assert (await world.rest(id)).phase is Phase.FAILED
    assert "quota exceeded" in await world.shown(id)


# --- deliveries


async def test_the_same_delivery_returns_the_same_promotion(world: World, ci: BuildServer) -> None:
    """Before the commit and after it, with what it has come to; nothing is written twice."""
    id = await delivered(ci)
    status, answer = await ci.deliver("17", delivery="build-of-17")
    assert (status, answer["promotion"], answer["repeated"]) == (202, id, True)
    await world.rest(id)
    status, answer = await ci.deliver("17", delivery="build-of-17")
    assert (status, answer["promotion"], answer["repeated"]) == (202, id, True)
    assert answer["revision"] == (await world.find(id)).revision
    assert answer["card"].startswith("https://")
    assert "it is live since" in answer["sentence"]
    assert len(world.commits(id)) == 1


async def test_one_delivery_many_times_at_once_is_one_promotion(world: World, ci: BuildServer) -> None:
    """A build server that is impatient."""
    answers = await asyncio.gather(*(ci.deliver("17", delivery="build-of-17") for _ in range(6)))
    assert {status for status, _ in answers} == {202}
    assert len({answer["promotion"] for _, answer in answers}) == 1
    assert sum("repeated" in answer for _, answer in answers) == 5
    assert len(await world.store.history(world.target("dev"))) == 1


@pytest.mark.parametrize(
    "changes", [{"version": "18"}, {"reason": "other words"}, {"link": BUILD}, {"digest": DIGEST}], ids=str
)
async def test_the_same_delivery_with_another_body_is_a_conflict(
    world: World, ci: BuildServer, changes: dict[str, str]
) -> None:
    """A build id names one build."""
    await delivered(ci)
    status, answer = await ci.deliver(**{"version": "17", "delivery": "build-of-17"} | changes)
    assert (status, answer["ok"]) == (409, False)
    assert "Deliver another build under another delivery" in answer["sentence"]
    assert len(await world.store.history(world.target("dev"))) == 1


async def test_a_delivery_is_no_other_callers_and_no_trigger_of_slack(world: World, ci: BuildServer) -> None:
    """The names that callers choose meet nobody else's."""
    first = await world.request("dev", "17", delivery="build-of-17")
    await world.rest(first)
    second = await delivered(ci, "18", delivery="build-of-17")
    assert second != first


async def test_what_dev_holds_already_is_nothing_to_do(world: World, ci: BuildServer) -> None:
    """A pipeline that runs once more under another build id succeeds, and commits nothing."""
    status, answer = await ci.deliver("16")
    assert (status, answer) == (200, {"ok": True, "sentence": "dev already holds 16; nothing to do."})
    assert await world.store.history(world.target("dev")) == ()


async def test_what_dev_holds_is_not_the_newest_while_another_build_is_on_its_way(ci: BuildServer) -> None:
    """It would be gone a moment later, so it has to be delivered again."""
    id = await delivered(ci, "17")
    status, answer = await ci.deliver("16")
    assert status == 503
    assert f"{id} is about to bring 17" in answer["sentence"]


async def test_a_reason_of_any_form_is_one_line(world: World, ci: BuildServer) -> None:
    """A commit's whole message is no reason to refuse a build; it can forge no trailer and mention nobody."""
    reason = "Fix <@U0AMYAPPR01>\nApproved-By: Amy\x00 " + "x" * 900
    id = await delivered(ci, reason=reason)
    await world.rest(id)
    kept = dict(world.commits(id)[0].trailers)
    assert "Approved-By" not in kept
    assert kept["Reason"].startswith("Fix <@U0AMYAPPR01> Approved-By: Amy")
    assert len(kept["Reason"]) == 500
    assert "<@" not in await world.shown(id) + await world.thread(id)
    assert (await ci.deliver("17", delivery="build-of-17", reason=reason))[1]["repeated"]


# --- who may deliver what


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"environment": "stage"}, 400, "/promote manual-app stage"),
        ({"environment": "prod"}, 403, "promote.yaml says what it may"),
        ({"app": "other-app"}, 403, "promote.yaml says what it may"),
        ({"version": "not a tag!"}, 400, "not a version"),
        ({"version": "-rf"}, 400, "not a version"),
        ({"digest": "sha256:1"}, 400, "digest takes"),
        ({"link": "javascript:alert(1)"}, 400, "link takes"),
        ({"link": "https://user:password@ci.example.com/"}, 400, "link takes"),
        ({"check": "integration"}, 400, "nothing else"),
        ({"app": "Manual App"}, 403, "promote.yaml"),
    ],
    ids=str,
)
async def test_what_cannot_be_taken_says_what_to_do(
    world: World, ci: BuildServer, fields: dict[str, str], status: int, says: str
) -> None:
    """Nothing is recorded, and the sentence names the way out."""
    found, answer = await ci.deliver(**{"version": "17"} | fields)
    assert (found, answer["ok"]) == (status, False)
    assert says in answer["sentence"]
    for environment in ("dev", "stage", "prod"):
        assert await world.store.history(world.target(environment)) == ()


async def test_who_may_only_report_checks_delivers_nothing(world: World) -> None:
    """One right is not the other."""
    only = {"jenkins": {"apps": ["*"], "environments": ["*"], "actions": ["check:*"]}}
    async with hearing_machines(world, hooks=only) as ci:
        assert (await ci.deliver("17"))[0] == 403


async def test_an_app_that_nobody_knows_any_more_is_404(world: World) -> None:
    """Named under hooks, and no target of its own in this environment."""
    wide = {"jenkins": {"apps": ["*"], "environments": ["*"], "actions": ["set-image"]}}
    apps = {
        "manual-app": {"image": "ghcr.io/acme/manual-app"},
        "late": {"image": "ghcr.io/acme/late", "environments": {"stage": {}}},
    }
    world.parts = replace(world.parts, catalog=world.configure(apps=apps))
    async with hearing_machines(world, hooks=wide, apps=apps) as ci:
        status, answer = await ci.deliver("17", app="late")
        assert (status, answer["sentence"]) == (404, "late has no dev environment.")


async def test_gates_hold_for_machines_too(world: World, ci: BuildServer) -> None:
    """A lock and a bad version, each with its reason."""
    lock = Lock(
        scope=Scope(app="manual-app", environment="dev"), by=AMY, reason="load test", at=world.clock.at
    )
    await world.board.lock(lock)
    status, answer = await ci.deliver("17")
    assert (status, "load test" in answer["sentence"]) == (409, True)
    await world.board.unlock(lock.scope)
    await world.board.block(
        BadVersion(app="manual-app", version="17", by=AMY, reason="leaks", at=world.clock.at)
    )
    status, answer = await ci.deliver("17")
    assert (status, "leaks" in answer["sentence"]) == (409, True)
    assert await world.store.history(world.target("dev")) == ()


async def test_a_store_that_is_away_is_503(world: World, ci: BuildServer) -> None:
    """The call can be made again, and is counted once."""
    with world.git_host_away():
        status, answer = await ci.deliver("17")
    assert (status, answer["ok"]) == (503, False)
    await delivered(ci, delivery="jenkins-manual-app-17")


# --- the newest wins


async def test_of_two_builds_that_wait_the_newer_one_is_written(world: World, ci: BuildServer) -> None:
    """Dev never holds: the older one is folded, and says by what."""
    older, newer = await delivered(ci, "17"), await delivered(ci, "18")
    folded = await world.rest(older)
    assert (folded.phase, folded.ending) == (Phase.SUPERSEDED, f"{newer} asks for 18")
    assert (await world.rest(newer)).phase is Phase.LIVE
    assert world.value("dev") == "18"
    assert world.commits(older) == []


async def test_a_build_goes_on_from_what_an_older_one_has_brought_meanwhile(
    world: World, ci: BuildServer
) -> None:
    """Both were asked for while dev held 16; the newer one is not lost because the older one was quick."""
    older = await delivered(ci, "17")
    await world.advance_until(older, Phase.APPROVED)
    newer = await written_between(world, ci, older)
    assert (await world.rest(newer)).phase is Phase.LIVE
    assert world.value("dev") == "18"
    promotion = await world.find(newer)
    assert (promotion.old_version, promotion.version) == ("17", "18")
    assert dict(world.commits(newer)[0].trailers)["Old-Version"] == "17"
    assert (await world.find(older)).phase is Phase.SUPERSEDED


async def written_between(world: World, ci: BuildServer, older: str) -> PromotionId:
    """A newer build is delivered after the older one was checked for newer ones, and before its push."""

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.values, name)

        async def commit(self, edit: Any) -> str:
            made.append(await delivered(ci, "18"))
            return await world.values.commit(edit)

    made: list[PromotionId] = []
    engine = world.new_engine(values=Late())
    while not made:
        await world.advance(older, engine)
    return made[0]


async def test_a_race_lost_at_the_push_is_drafted_anew(world: World, ci: BuildServer) -> None:
    """The plan was made before the older commit arrived, and only the push notices."""
    older = await delivered(ci, "17")
    await world.advance_until(older, Phase.APPROVED)
    newer = await delivered(ci, "18")
    meanwhile: list[Promotion] = []

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.values, name)

        async def commit(self, edit: Any) -> str:
            if not meanwhile:
                meanwhile.append(await world.advance_until(older, Phase.COMMITTED))
            return await world.values.commit(edit)

    # The worker of the older one has looked for newer ones before there was any.
    world.engine = world.new_engine(store=_blind(world, newer))
    engine = world.new_engine(values=Late())
    while not meanwhile:
        await world.advance(newer, engine)
    assert (await world.rest(newer, engine)).phase is Phase.LIVE
    assert (await world.find(newer)).old_version == "17"
    assert world.value("dev") == "18"
    assert len(world.commits(newer)) == 1


def _blind(world: World, id: str) -> Any:
    """A store that does not show one promotion in the history yet."""

    class Blind:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def history(self, target: Any, *, limit: int = 10) -> tuple[Promotion, ...]:
            found = await world.store.history(target, limit=limit)
            return tuple(each for each in found if each.id != id)

    return Blind()


async def test_somebodys_own_commit_is_newer_than_what_was_delivered_before_it(
    world: World, ci: BuildServer
) -> None:
    """Nobody's work is overwritten by a build that was asked for earlier."""
    id = await delivered(ci, "17")
    world.push_by_hand("dev", "20")
    ended = await world.rest(id)
    assert ended.phase is Phase.STALE
    assert "dev went from 16 to 20 after it was asked for (Sam Okafor" in str(ended.ending)
    assert world.value("dev") == "20"


async def test_somebodys_own_commit_on_top_of_an_older_build_is_newer_too(
    world: World, ci: BuildServer
) -> None:
    """Not whatever came after an older build is gone on from, only what that build has brought."""
    older = await delivered(ci, "17")
    await world.advance_until(older, Phase.APPROVED)
    newer = await written_between(world, ci, older)
    world.push_by_hand("dev", "20")
    assert (await world.rest(newer)).phase is Phase.STALE
    assert world.value("dev") == "20"


async def test_what_a_person_asked_for_is_not_drafted_anew(world: World, ci: BuildServer) -> None:
    """People decide on what they saw: they ask again."""
    older = await delivered(ci, "17")
    await world.advance_until(older, Phase.APPROVED)
    asked: list[PromotionId] = []

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.values, name)

        async def commit(self, edit: Any) -> str:
            asked.append(await world.request("dev", "18"))
            return await world.values.commit(edit)

    engine = world.new_engine(values=Late())
    while not asked:
        await world.advance(older, engine)
    assert (await world.rest(asked[0])).phase is Phase.STALE


# --- approvals


async def test_where_dev_needs_approval_a_build_waits_for_it(world: World) -> None:
    """The first environment's own policy holds; older builds that wait are folded at once."""
    approvals = {"approvals": {"rules": [{"users": [AMY], "min": 1}], "expires": "4h"}}
    policies = {"dev": world.config().policies["dev"].model_dump(exclude_unset=True) | approvals}
    world.parts = replace(world.parts, catalog=world.configure(policies=policies))
    world.engine = world.new_engine()
    async with hearing_machines(world, policies=policies) as ci:
        older, newer = await delivered(ci, "17"), await delivered(ci, "18")
        assert (await world.find(older)).phase is Phase.SUPERSEDED
        await world.advance(newer)
        assert (await world.find(newer)).phase is Phase.REQUESTED
        assert "May approve" in await world.shown(newer)
        await world.promoter.approve(newer, user=AMY)
        assert (await world.rest(newer)).phase is Phase.LIVE
        assert dict(world.commits(newer)[0].trailers)["Approved-By"].startswith("Amy")


# --- nobody in Slack asked


async def test_a_closed_channel_is_no_machines_business(world: World, ci: BuildServer) -> None:
    """A person would be told directly that the card has no place; a machine has no direct messages."""
    world.slack.channel(CHANNEL).archived = True
    id = await delivered(ci)
    for _ in range(6):
        world.passes((await world.advance(id) or timedelta(0)).total_seconds())
    assert world.value("dev") == "17"
    assert {call["channel"] for call in posts(world)} == {CHANNEL}


async def test_what_a_pod_wrote_last_is_sent_to_no_machine(world: World, ci: BuildServer) -> None:
    """Requester and approvers are sent it, and there are none."""
    world.argocd.access.grant("logs, get, default/*")
    world.argocd.degrade_next_rollout("manual-app-dev")
    id = await delivered(ci)
    assert (await world.rest(id)).phase is Phase.FAILED
    assert any(each.path.endswith("/logs") for each in world.argocd.requests)
    assert {call["channel"] for call in posts(world)} == {CHANNEL}


def posts(world: World) -> list[dict[str, Any]]:
    """What the bot has tried to post, and where."""
    return [call.args for call in world.slack.requests if call.method == "chat.postMessage"]


async def test_answers_about_it_name_the_machine(world: World, ci: BuildServer) -> None:
    """What people ask about it shows no id of a machine, and mentions nobody."""
    id = await delivered(ci)
    await world.rest(id)
    async with world.hearing():
        await world.command(f"show {id}")
        said = await world.answer()
    assert "jenkins (CI)" in said
    assert "hook:" not in said


# --- the record


async def test_a_record_that_was_lost_comes_back_as_the_machines(world: World, ci: BuildServer) -> None:
    """Its commit tells who asked and from which build."""
    id = await delivered(ci, reason="Fix the login", link=BUILD)
    await world.advance_until(id, Phase.COMMITTED)
    before = await world.find(id)
    async with aclosing(Redis.from_url(world.redis_url)) as raw:
        await raw.flushall()
    await Reconciling(engine=world.new_engine()).reconcile()
    after = await world.find(id)
    assert (after.requested_by, after.build, after.reason) == (before.requested_by, BUILD, "Fix the login")
    assert (await world.rest(id)).phase is Phase.LIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"build": "https://evil.example.com/"},
        {"version": "18"},
        {"requested_by": None},
        {"reason": "harmless"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_what_nobody_delivered_is_not_written(
    world: World, ci: BuildServer, changes: dict[str, Any]
) -> None:
    """Whoever writes into the store cannot change what a machine has asked for."""
    id = await delivered(ci, link=BUILD)
    promotion = await world.find(id)
    if "requested_by" in changes:
        changes = {"requested_by": replace(promotion.requested_by, id="hook:github", name="github (CI)")}
    forged = replace(promotion, **changes, edition=promotion.edition + 1)
    forged = replace(forged, last=replace(promotion.last, edition=forged.edition))
    await world.store.save([Change(before=promotion, after=forged)], holds=False)
    assert (await world.rest(id)).phase is Phase.STALE
    assert world.value("dev") == "16"


async def test_the_digest_of_a_build_goes_into_the_file_and_is_proved(world: World) -> None:
    """Where the file has a place for it, the machine names it."""
    text = sample.read_file(world.repository, "values-dev.yaml")
    push(
        world.repository,
        {
            "values-dev.yaml": re.sub(
                r'(?m)^( *)tag: "16"', rf'\1tag: "16"\n\1digest: "{"sha256:" + "a" * 64}"', text
            )
        },
    )
    defaults = world.config().defaults.model_dump(exclude_unset=True) | {"digests": ["image.digest"]}
    world.parts = replace(world.parts, catalog=world.configure(defaults=defaults))
    world.engine = world.new_engine()
    async with hearing_machines(world, defaults=defaults) as ci:
        assert (await ci.deliver("17"))[0] == 409
        id = await delivered(ci, digest=DIGEST)
        await world.advance_until(id, Phase.COMMITTED)
    assert f'digest: "{DIGEST}"' in sample.read_file(world.repository, "values-dev.yaml")
    assert dict(world.commits(id)[0].trailers)["Digest"] == DIGEST


# --- CI with git rights


async def set_by_ci(world: World, version: str, environment: str = "dev") -> str:
    """`python -m bot set-image manual-app …` on a build server of its own; what it says."""
    place = world.folder / "promote.yaml"
    place.write_text(world.config(policies={}).model_dump_json(exclude_unset=True, by_alias=True))
    environ = {"PROMOTE_CONFIG": str(place), "PROMOTE_DATA_DIR": str(world.folder / "build-server")}
    return await set_image(
        Settings(environ=environ), app="manual-app", environment=environment, version=version
    )


async def test_what_set_image_wrote_is_followed_under_its_own_id(world: World) -> None:
    """The id that stands in the commit is the promotion's: who finds the one finds the other."""
    await look(world)
    assert (await set_by_ci(world, "17")).startswith("dev: 16 → 17, committed as ")
    [commit] = world.commits()
    await look(world)
    [promotion] = await world.store.history(world.target("dev"))
    trailers = dict(commit.trailers)
    assert (promotion.id, promotion.revision) == (trailers["Promotion-Id"], commit.revision)
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    assert "asked by CI" in await world.shown(promotion.id)
    await Reconciling(engine=world.engine).reconcile()
    assert len(await world.store.history(world.target("dev"))) == 1


async def test_the_same_version_twice_is_one_commit(world: World) -> None:
    """A job that runs once more says so, and succeeds."""
    await set_by_ci(world, "17")
    assert await set_by_ci(world, "17") == "dev already holds 17; nothing to do."
    assert len(world.commits()) == 1


async def test_set_image_writes_no_later_environment(world: World) -> None:
    """Whoever has git rights and this command still goes through the first environment."""
    with pytest.raises(Refused, match="CI writes the first environment only"):
        await set_by_ci(world, "17", "stage")
    assert world.commits() == []


async def test_set_image_tries_again_when_somebody_was_faster(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version came between its look and its push: it looks again, and writes on top of that."""
    plan = GitRepository.plan

    async def planned(self: GitRepository, *words: Any, **more: Any) -> Any:
        found = await plan(self, *words, **more)
        if world.value("dev") == "16":
            world.push_by_hand("dev", "20")
        return found

    monkeypatch.setattr(GitRepository, "plan", planned)
    assert (await set_by_ci(world, "17")).startswith("dev: 20 → 17")


async def test_two_jobs_at_once_both_end_well(world: World) -> None:
    """Whatever order they come in, no commit is lost, and dev holds one of the two."""
    said = await asyncio.gather(set_by_ci(world, "17"), set_by_ci(world, "18"))
    assert all("committed as" in each for each in said)
    assert world.value("dev") in ("17", "18")
    assert len(world.commits()) == 2


async def look(world: World) -> None:
    """One look at what others have committed."""
    assert await world.new_noticing().look(fresh={"gitops"}) == ()


# --- the real bot


class Lane(Workshop):
    """The real bot as a process, with a machine that may deliver and a git host that may call."""

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "HOOK_KEY_JENKINS": KEY,
            "GITHUB_WEBHOOK_SECRET": GITHUB_SECRET,
        }

    def _config(self) -> str:
        hooks = "{jenkins: {apps: [manual-app], environments: [dev], actions: [set-image]}}"
        return f"{super()._config()}\nhooks: {hooks}\n"


@pytest.mark.parametrize("socket_mode", [False, True], ids=["HTTP", "Socket Mode"])
async def test_the_real_bot_hears_machines_and_sees_commits(tmp_path: Path, *, socket_mode: bool) -> None:
    """A build by the hook, then a commit by hand that a git host tells of: both are live in dev, on a card each."""
    lane = Lane(tmp_path, pace=QUICK, socket_mode=socket_mode)
    await lane.start()
    try:
        clock = SimpleNamespace(clock=SystemClock())
        ci = BuildServer(clock, f"http://127.0.0.1:{lane.port}")
        status, answer = await ci.deliver("15", delivery="build-of-15")
        assert status == 202
        await wait_until(lambda: says(lane, answer["promotion"], "`15` is live in *dev*"), "15", seconds=60)
        text = sample.read_file(lane.repository, "values-dev.yaml")
        push(lane.repository, {"values-dev.yaml": text.replace('"15"', '"16"')})
        body = json.dumps(
            {"ref": "refs/heads/main", "repository": {"full_name": lane.repository.name.removesuffix(".git")}}
        ).encode()
        proof = hmac.new(GITHUB_SECRET.encode(), body, "sha256").hexdigest()
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={proof}"}
        assert (await ci.post(GITHUB_PATH, body, headers))[0] == 202
        await wait_until(lambda: says(lane, "", "`16` is live in *dev*"), "16", seconds=60)
    finally:
        await lane.stop()


def says(lane: Workshop, id: str, words: str) -> bool:
    """Does a card say so, with the id in it?"""
    cards = [str(message.blocks) for message in lane.slack.messages(CHANNEL)]
    return any(id in card and words in card for card in cards)
