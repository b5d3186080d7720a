"""Both strategies in one bot, from end to end: the real process, real git, the real store, signed HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_story import QUICK, card_says, place, promote, until

from bot.playground import repository as sample
from bot.playground.release_repository import MANIFEST, refs
from bot.playground.workshop import AMY, CHANNEL, Shape, Workshop

APP = "release-app"


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    world = Workshop(tmp_path, pace=QUICK, shape=Shape(released=(APP,)))
    try:
        await world.start()
        await until(lambda: world.slack.is_connected, "Slack has a way to the bot")
        yield world
    finally:
        await world.stop()


async def built(workshop: Workshop, app: str, version: str) -> None:
    """CI writes dev, and Argo CD rolls it out."""
    code, said = await workshop.command_line("set-image", app, "dev", version)
    assert code == 0, said
    workshop.argocd.refresh(f"{app}-dev", "normal")
    await until(lambda: workshop.argocd.truth(f"{app}-dev").runs(version), f"dev runs {version}")


async def approved(workshop: Workshop, text: str) -> str:
    """Asked for by Dana, approved by Amy, live."""
    id = await promote(workshop, text)
    await until(card_says(workshop, id, "Approval needed"), "the card asks")
    await workshop.slack.click(AMY, CHANNEL, place(workshop, id), "promotion_approve")
    await until(card_says(workshop, id, "Live"), "it is live")
    return id


async def test_one_app_goes_over_branches_and_another_over_files(workshop: Workshop) -> None:
    """Main, release and a tag for the one; a values file for each environment of the other."""
    for app in (APP, "manual-app"):
        await built(workshop, app, "15")
    await approved(workshop, f"{APP} to stage")
    stage = await promote(workshop, "manual-app to stage")
    await until(card_says(workshop, stage, "Live"), "stage is live")
    for app in (APP, "manual-app"):
        await approved(workshop, f"{app} to prod because fixes INC-42")
        assert workshop.argocd.truth(f"{app}-prod").runs("15")
    repository = workshop.released[APP]
    shown = [line.split() for line in refs(repository).splitlines()]
    revisions = {name: revision for name, revision, _ in shown}
    assert revisions["release"] == revisions["v15"]
    assert "targetRevision: v15" in sample.read_file(repository, MANIFEST.format(app=APP))
    assert 'tag: "15"' in sample.read_file(workshop.repository, "values-prod.yaml")


async def test_check_takes_a_world_of_both_strategies(workshop: Workshop) -> None:
    """Everything is in place, also what the tag is followed by."""
    code, said = await workshop.command_line("check")
    assert code == 0, said
    assert "Everything is in place." in said
