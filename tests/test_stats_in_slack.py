"""`/promote stats` with a real repository and a real store: numbers privately, a picture in the channel."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image as Picture
from world import AMY, CHANNEL, DANA, GUS, NOON, World, wait_until, world_in

from bot.core.catalog import Image
from bot.core.errors import Unavailable
from bot.core.measuring import MOST_COMMITS, MOST_TARGETS, WINDOW, Measuring, Statistics
from bot.core.ports import Author, Edit, Written
from bot.core.promotion import Phase, Promotion, PromotionId, new_id
from bot.core.stats import Numbers
from bot.core.trailers import ci_message
from bot.dora import Dora, measure_once
from bot.integrations.slack import SlackNotices
from bot.playground.slack.state import File
from bot.playground.workshop import Workshop
from handlers.stats import Telling

HOUR = timedelta(hours=1)


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


async def built(world: World, version: str) -> PromotionId:
    """CI brings a version to dev."""
    target, id, at = world.target("dev"), new_id(), world.clock.now()
    plan = await world.values.plan(target, version)
    await world.values.commit(
        Edit(
            target=target,
            promotion=id,
            old=plan.old_version,
            new=version,
            message=ci_message(target, id=id, old=plan.old_version, new=Image(version=version)),
            author=Author(name="CI", email="ci@acme.example"),
            at=at,
            base=plan.base,
            since=at,
        )
    )
    return id


async def live(world: World) -> PromotionId:
    """Stage's version went live in prod, three hours after CI had built it."""
    await built(world, "15")
    world.passes(3 * 3600)
    id = await world.committed()
    await world.advance_until(id, Phase.LIVE)
    return id


def measuring(world: World, **different: Any) -> Measuring:
    """What counts, on the world's parts, or on `different` ones."""
    parts = replace(world.parts, **different)
    return Measuring(catalog=parts.catalog, values=parts.values, store=parts.store, clock=world.clock)


async def everything(world: World, **different: Any) -> Statistics:
    """The numbers of all targets."""
    counting = measuring(world, **different)
    return await counting.measured(counting.catalog.targets, since=world.clock.now() - WINDOW)


async def asked(world: World, text: str = "stats manual-app prod", *, user: str = DANA) -> str:
    """The private answer to a question."""
    before = len(world.told(user))
    await world.command(text, user=user)
    return await world.answer(user, number=before + 1)


def pictures(world: World) -> list[File]:
    """What was uploaded into the channel, oldest first."""
    return [file for message in world.cards() for file in message.files]


async def test_the_numbers_come_privately_and_the_picture_into_the_channel(world: World) -> None:
    """One live promotion: how often, how long since CI, and that nothing failed; the picture says the same."""
    await live(world)
    async with world.hearing():
        said = await asked(world)
    assert "*manual-app* in *prod*" in said
    assert "Deployments: 0.2 a week (1 in 30 days)" in said
    assert "Lead time from dev: 3 h" in said
    assert "Change failure rate: 0% (0 of 1)" in said
    assert f"The picture is in <#{CHANNEL}>." in said
    [picture] = pictures(world)
    assert Picture.open(BytesIO(picture.content)).format == "PNG"
    assert "manual-app in prod" in picture.alternative
    assert "0.2 a week" in picture.alternative
    message = next(each for each in world.cards() if each.files)
    assert message.text == f"Deployments in the last 30 days, asked for by <@{DANA}>"


async def rolled_back(world: World) -> Promotion:
    """An hour later prod runs again what it ran before."""
    world.passes(3600)
    back: Promotion = await world.moving(
        world.promoter.roll_back(app="manual-app", environment="prod", user=DANA)
    )
    await world.advance(back.id)
    await world.promoter.approve(back.id, user=AMY)
    return await world.advance_until(back.id, Phase.LIVE)


def of_prod(found: Statistics) -> Numbers:
    """The numbers of prod."""
    [numbers] = [each.numbers for each in found.targets if each.target.environment == "prod"]
    return numbers


async def test_a_deployment_that_was_rolled_back_has_failed(world: World) -> None:
    """It is restored when the rollback is live."""
    gone = await live(world)
    back = await rolled_back(world)
    found = of_prod(await everything(world))
    assert (found.deployments, found.rollbacks, found.failures, found.rolled_back) == (1, 1, 1, 1)
    was_live = (await world.find(gone)).ended_at
    assert was_live is not None
    assert back.ended_at is not None
    assert found.restore.median == back.ended_at - was_live


async def test_a_channel_gets_one_picture_a_minute(world: World) -> None:
    """Who asks again reads the numbers all the same, and that there is no new picture."""
    await live(world)
    async with world.hearing():
        await asked(world)
        said = await asked(world, user=AMY)
    assert "Change failure rate" in said
    assert "one a minute" in said
    assert len(pictures(world)) == 1


async def test_where_nothing_was_deployed_there_is_no_picture(world: World) -> None:
    """Nobody is shown an empty picture."""
    async with world.hearing():
        said = await asked(world)
    assert "Deployments in the last 30 days" in said
    assert "none (in 30 days)" in said
    assert "picture" not in said
    assert pictures(world) == []


async def test_without_the_right_to_upload_the_numbers_come_and_what_to_do(world: World) -> None:
    """An app that was installed before pictures has not the scope."""
    await live(world)
    world.slack.api.scopes -= {"files:write"}
    async with world.hearing():
        said = await asked(world)
    assert "Change failure rate" in said
    assert "Put its manifest in anew" in said
    assert pictures(world) == []


async def test_a_channel_without_the_bot_gets_no_picture(world: World) -> None:
    """The answer says how to invite it."""
    await live(world)
    world.slack.channel(CHANNEL).members.discard(world.slack.bot_user)
    async with world.hearing():
        said = await asked(world)
    assert "Change failure rate" in said
    assert "/invite @promote-bot" in said


async def test_a_slack_in_trouble_takes_only_the_picture(world: World) -> None:
    """What Slack answers to the upload is told, and no address of it."""
    await live(world)
    world.slack.faults.errors["files.completeUploadExternal"] = "fatal_error"
    async with world.hearing():
        said = await asked(world)
    assert "Change failure rate" in said
    assert "Slack is not available: it says fatal" in said
    assert "/upload/" not in said


async def test_guests_are_told_nothing(world: World) -> None:
    """Full members alone may ask, and no picture comes for anybody else."""
    await live(world)
    async with world.hearing():
        said = await asked(world, user=GUS)
    assert said.startswith(":no_entry_sign:")
    assert "week" not in said
    assert pictures(world) == []


@pytest.mark.parametrize(
    ("text", "hint"),
    {
        "stats manual-ap": "Did you mean “manual-app”",
        "stats manual-app prd": "Did you mean “prod”",
        "stats manual-app since soon": "Type 24h, 7d or 4w",
    }.items(),
)
async def test_what_nobody_knows_is_refused(world: World, text: str, hint: str) -> None:
    """With the nearest name, or with what to type."""
    async with world.hearing():
        assert hint in await asked(world, text)


async def test_one_word_may_be_an_environment(world: World) -> None:
    """`stats prod` is every app in prod, `stats` everything."""
    await live(world)
    counting = measuring(world)
    prod = await counting.asked(app="prod", environment=None, since=None)
    assert [each.target.name for each in prod.targets] == ["manual-app/prod"]
    whole = await counting.asked(app=None, environment=None, since="2026-03-01")
    assert [each.target.environment for each in whole.targets] == ["dev", "stage", "prod"]
    assert whole.since == datetime(2026, 3, 1, tzinfo=UTC)


async def test_what_ci_built_is_known_to_be_live(world: World) -> None:
    """A commit of CI that was noticed has a record, and that tells how it ended."""
    await world.new_noticing().look()
    id = await built(world, "17")
    await world.new_noticing().look(fresh={"gitops"})
    await world.advance_until(id, Phase.LIVE)
    [dev] = [each.numbers for each in (await everything(world)).targets if each.target.environment == "dev"]
    assert (dev.deployments, dev.endings) == (1, 1)


async def test_a_store_that_is_away_leaves_what_git_tells(world: World) -> None:
    """As many deployments as before, no failure that was not rolled back, and it is said."""

    class Away:
        async def load(self, id: str) -> None:
            raise Unavailable("the store", f"it cannot be reached for {id}")

    await live(world)
    found = await everything(world, store=Away())
    numbers = of_prod(found)
    assert (numbers.deployments, numbers.endings, numbers.failure_rate) == (1, 0, None)
    assert not found.has_records
    [doubt] = found.doubts
    assert doubt.startswith("The store did not tell of 2 of 2 promotions, ")


async def test_a_record_that_cannot_be_read_hides_no_other(world: World) -> None:
    """The end of the rollback is known; the beginning comes from the commit."""
    gone = await live(world)
    [commit] = world.commits(gone)
    back = await rolled_back(world)
    store = world.store

    class Torn:
        async def load(self, id: str) -> Any:
            if id == gone:
                raise Unavailable("the store", f"the record of {id} cannot be read")
            return await store.load(id)

    found = await everything(world, store=Torn())
    assert found.has_records
    assert found.doubts[0].startswith("The store did not tell of 1 of 3 promotions, ")
    assert back.ended_at is not None
    assert of_prod(found).restore.median == back.ended_at - commit.at


async def test_a_branch_that_cannot_be_read_is_left_out_and_named(world: World) -> None:
    """No number is better than none that is invented."""
    await live(world)
    with world.git_host_away():
        found = await everything(world, values=world.new_writer())
    assert found.targets == ()
    assert found.doubts[0].startswith("gitops cannot be read, so what is there is left out: ")


async def test_each_repository_is_read_once(world: World) -> None:
    """However many targets it has."""
    reads: list[str] = []
    values = world.values

    class Counting:
        async def written(self, repository: Any, *, limit: int) -> Any:
            reads.append(repository.name)
            return await values.written(repository, limit=limit)

    assert len((await everything(world, values=Counting())).targets) == 3
    assert reads == ["gitops"]


async def test_a_branch_that_is_longer_than_what_is_read_shortens_the_window(world: World) -> None:
    """A rate over thirty days from ten days of commits would be a third of what it is."""
    at = world.clock.now() - timedelta(days=10)
    trailers = (("App", "manual-app"), ("Environment", "prod"), ("New-Version", "15"))
    commit = Written(revision="c" * 40, at=at, trailers=trailers)

    class Endless:
        async def written(self, repository: Any, *, limit: int) -> list[Written]:
            return [commit] * limit if repository.name == "gitops" else []

    found = await everything(world, values=Endless())
    numbers = of_prod(found)
    assert numbers.since == at
    assert numbers.per_day == pytest.approx(MOST_COMMITS / 10)
    assert found.doubts == (
        f"Of gitops I read the newest {MOST_COMMITS} commits of mine, so its numbers begin at 20 Feb 2026.",
    )


async def test_each_channel_gets_the_picture_of_its_own_targets(world: World) -> None:
    """Where prod has a channel of its own, its numbers go there and the others do not."""
    await live(world)
    world.slack.add_channel("C0PRODUCT01", name="production", members=[DANA])
    slack = {"channel": CHANNEL, "channels": {"prod": "C0PRODUCT01"}}
    promoter = world.new_promoter(catalog=world.configure(slack=slack))
    async with world.hearing(promoter):
        said = await asked(world, "stats")
    assert f"The picture is in <#{CHANNEL}>.\nThe picture is in <#C0PRODUCT01>." in said
    [here], [message] = pictures(world), world.slack.messages("C0PRODUCT01")
    assert "manual-app in dev" in here.alternative
    assert "manual-app in prod" not in here.alternative
    assert message.files[0].alternative.count("manual-app in ") == 1


async def test_a_question_about_many_channels_puts_a_picture_into_none(world: World) -> None:
    """Nobody asked to be shown the numbers of everything."""
    await live(world)
    found = await everything(world)
    [prod] = [each for each in found.targets if each.target.environment == "prod"]
    spread = replace(
        found,
        targets=tuple(replace(prod, target=replace(prod.target, channel=f"C{place}")) for place in range(4)),
    )
    telling = Telling(measuring=measuring(world), pictures=SlackNotices(world.client), board=world.board)
    [said] = await telling._shown(spread, DANA)
    assert "4 channels" in said
    assert pictures(world) == []


async def test_more_targets_than_an_answer_holds_are_counted(world: World) -> None:
    """The first thirty are told, and how many there are besides."""
    apps = {f"app-{number:02}": {"image": f"ghcr.io/acme/app-{number:02}"} for number in range(11)}
    catalog = world.configure(apps=apps)
    found = await measuring(world, catalog=catalog).asked(app=None, environment=None, since=None)
    assert (len(found.targets), found.left_out) == (MOST_TARGETS, 3)


async def test_the_metrics_show_what_is_known(world: World) -> None:
    """By app and environment; what is not known has no series."""
    await live(world)
    dora = Dora()
    assert list(dora.collect()) == []
    await measure_once(measuring(world), dora)
    shown = {
        (sample.name, *sample.labels.values()): sample.value
        for family in dora.collect()
        for sample in family.samples
    }
    prod = ("manual-app", "prod")
    assert shown["promote_dora_deployments", *prod] == 1
    assert shown["promote_dora_deployments", "manual-app", "stage"] == 0
    assert shown["promote_dora_change_failure_ratio", *prod] == 0
    assert shown["promote_dora_known_endings", *prod] == 1
    assert 3 * 3600 <= shown["promote_dora_lead_time_seconds", *prod, "0.5"] < 4 * 3600
    assert shown["promote_dora_window_seconds",] == WINDOW.total_seconds()
    assert shown["promote_dora_measured_timestamp_seconds",] == world.clock.now().timestamp()
    for missing in ("change_failure_ratio", "lead_time_seconds", "time_to_restore_seconds"):
        assert not [key for key in shown if key[:3] == (f"promote_dora_{missing}", "manual-app", "stage")]
    assert (
        "promote_dora_change_failure_ratio",
        "manual-app",
        "dev",
    ) not in shown  # nobody has noticed CI's commit


async def test_a_store_that_is_away_leaves_the_last_metrics(world: World) -> None:
    """A failure rate must not fall because nobody could look; the time of the count tells how old it is."""

    class Away:
        async def load(self, id: str) -> None:
            raise Unavailable("the store", f"it cannot be reached for {id}")

    await live(world)
    dora = Dora()
    await measure_once(measuring(world), dora)
    at = world.clock.now()
    world.passes(600)
    await measure_once(measuring(world, store=Away()), dora)
    [measured, *_] = dora.collect()
    assert measured.samples[0].value == at.timestamp()
    assert at > NOON


async def test_the_bot_as_it_runs_answers_and_measures(tmp_path: Path) -> None:
    """The whole process: the answer comes, and its metrics name every target."""
    workshop = Workshop(tmp_path / "workshop")
    try:
        await workshop.start()
        await workshop.slack.command(DANA, CHANNEL, "stats manual-app")
        await wait_until(lambda: workshop.slack.ephemerals(DANA), "the person is told")
        said = workshop.slack.ephemerals(DANA)[0].text
        shown = ""
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while "promote_dora_deployments{" not in shown:
                async with session.get(f"http://127.0.0.1:{workshop.operations_port}/metrics") as answer:
                    shown = await answer.text()
    finally:
        await workshop.stop()
    assert "*manual-app* in *prod*" in said
    for environment in ("dev", "stage", "prod"):
        assert f'promote_dora_deployments{{app="manual-app",environment="{environment}"}}' in shown
