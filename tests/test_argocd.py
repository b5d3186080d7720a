"""Following promotions through the simulated Argo CD: what the bot says is what the cluster does."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from argocd_bench import APPLICATIONS, PROD, TOKEN, Bench
from rollout_cases import APPLICATION, TARGET

from bot.core.catalog import Application
from bot.core.errors import Failed, Unavailable
from bot.core.facts import ApplicationFacts, Unseen, running_version
from bot.core.progress import Look, Progress, Stage, next_look, wants_refresh
from bot.core.rollout import Case, Relation, decide
from bot.integrations.argocd import ArgoCD, Identity, Server


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    async with made.client:
        yield made
    await made.argo.stop()


@pytest.fixture
async def argo(bench: Bench) -> AsyncIterator[ArgoCD]:
    """The client under test, with the simulation's token."""
    made = client(bench)
    yield made
    await made.aclose()


def client(bench: Bench) -> ArgoCD:
    return ArgoCD(servers={"main": Server(url=bench.argo.url, token=TOKEN)})


@dataclass(kw_only=True)
class Follower:
    """Follows one commit as the engine does, on the simulation's clock."""

    bench: Bench
    argo: ArgoCD
    commit: str
    version: str = "15"
    stages: list[Stage] = field(default_factory=list)
    progress: Progress | None = None

    async def to_the_end(self, meanwhile: Callable[[Stage], None] = lambda _: None) -> Progress:
        """Look until it is over; `meanwhile` is told of each new stage, and may meddle."""
        committed_at = self.bench.now
        while True:
            progress = await self._look(committed_at)
            if not self.stages or progress.stage is not self.stages[-1]:
                self.stages.append(progress.stage)
                meanwhile(progress.stage)
            if progress.stage.is_end:
                return progress
            pause = next_look(
                Look(applications=(progress,)),
                committed_at=committed_at,
                now=self.bench.now,
                policy=TARGET.rollout,
            )
            self.bench.passes(pause.total_seconds())

    async def _look(self, committed_at: object) -> Progress:
        asked_at, before = self.bench.now, self.progress
        refresh = wants_refresh(before, now=asked_at, policy=TARGET.rollout)
        if refresh and before:
            before = replace(before, refreshed_at=asked_at, refreshes=before.refreshes + 1)
        found = await self._observe(refresh=refresh)
        case = Case(
            revision=self.commit,
            image=f"{TARGET.image}:{self.version}",
            committed_at=committed_at,
            now=self.bench.now,
            policy=TARGET.rollout,
            relations={} if isinstance(found, Unseen) else self._relations(found),
            before=before,
        )
        self.progress = decide(found, case)
        return self.progress

    async def _observe(self, *, refresh: bool) -> ApplicationFacts | Unseen:
        """One look; the simulation's time passes only while a refresh waits for its comparison."""
        looking = asyncio.create_task(self.argo.observe(TARGET, APPLICATION, refresh=refresh))
        while not looking.done():
            application = self.bench.argo.find(PROD, "argocd")
            if application and application.refresh:
                self.bench.passes(0.05)
            await asyncio.sleep(0.001)
        try:
            return looking.result()
        except Unavailable as error:
            return Unseen(name=PROD, reason=str(error), is_final=False)
        except Failed as error:
            return Unseen(name=PROD, reason=str(error), is_final=True)

    def _relations(self, found: ApplicationFacts) -> dict[str, Relation]:
        wanted = f'tag: "{self.version}"'
        return {
            revision: Relation(
                contains=self._git("merge-base", "--is-ancestor", self.commit, revision).returncode == 0,
                holds_value=wanted in self._git("show", f"{revision}:{TARGET.path}").stdout,
                author="Sam",
            )
            for revision in found.revisions
        }

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "--git-dir", str(self.bench.repository), *arguments],
            capture_output=True,
            check=False,
            text=True,
        )


async def test_a_look_shows_what_runs(bench: Bench, argo: ArgoCD) -> None:
    """One look gives the facts and the proof of the running version; it asks for the project by name."""
    found = await argo.observe(TARGET, APPLICATION, refresh=False)
    assert (found.tracks, found.automated, found.sync, found.health) == (None, True, "Synced", "Healthy")
    assert found.is_fresh
    assert found.compares_spec
    assert running_version(found, TARGET.image) == ("14", "")
    assert all(request.query.get("project") == "default" for request in bench.argo.requests)


async def test_a_promotion_that_goes_well_passes_every_stage(bench: Bench) -> None:
    """Noticed by a refresh, synced, rolled out, held, live: and then the cluster does run it."""
    await bench.restart(bench.simulate(APPLICATIONS, pod_takes=timedelta(seconds=3)))
    argo = client(bench)
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))
    pods: list[str] = []
    progress = await follower.to_the_end(
        lambda _: pods.append(follower.progress.pods if follower.progress else "")
    )
    await argo.aclose()
    assert (progress.stage, progress.says) == (Stage.LIVE, "synced and healthy, every pod runs it")
    assert bench.argo.truth(PROD).runs("15")
    assert follower.stages == [Stage.SYNCING, Stage.SETTLING, Stage.ROLLING_OUT, Stage.CONFIRMING, Stage.LIVE]
    assert pods[-1] == "3 of 3 pods ready"
    assert pods[1] != pods[-1]


async def test_a_commit_that_changes_nothing_here_is_live_without_an_operation(
    bench: Bench, argo: ArgoCD
) -> None:
    """Argo CD compares, finds no difference, and syncs nothing."""
    await bench.deploy("15")
    commit = bench.commit("values-dev.yaml", 'tag: "14"', 'tag: "15"')
    progress = await Follower(bench=bench, argo=argo, commit=commit).to_the_end()
    assert progress.stage is Stage.LIVE
    operation = (await argo.observe(TARGET, APPLICATION, refresh=False)).operation
    assert operation
    assert operation.revision != commit


async def test_a_commit_of_somebody_else_on_top_is_live_as_part_of_it(bench: Bench, argo: ArgoCD) -> None:
    """It keeps our version, so our version is what runs."""
    commit = bench.promote("15")
    later = bench.commit("values-prod.yaml", "replicaCount: ", "replicaCount: 1")
    progress = await Follower(bench=bench, argo=argo, commit=commit).to_the_end()
    assert progress.stage is Stage.LIVE
    assert progress.says.startswith(f"{later[:8]} by Sam contains it, ")


async def test_a_commit_that_changes_the_version_again_supersedes(bench: Bench, argo: ArgoCD) -> None:
    """In the middle of our sync, somebody goes on to 16."""
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))

    def meddle(stage: Stage) -> None:
        if stage is Stage.SETTLING:
            bench.promote("16", old="15")
            bench.argo.refresh(PROD, "normal")

    progress = await follower.to_the_end(meddle)
    assert progress.stage is Stage.SUPERSEDED
    assert not bench.argo.truth(PROD).runs("15")


async def test_a_failed_sync_ends_in_its_own_words(bench: Bench, argo: ArgoCD) -> None:
    """The resource that was refused, and why."""
    bench.argo.fail_next_sync(PROD, "admission webhook denied the request")
    progress = await Follower(bench=bench, argo=argo, commit=bench.promote("15")).to_the_end()
    assert progress.stage is Stage.FAILED
    assert progress.says == "sync failed: Deployment/manual-app-prod: admission webhook denied the request"
    assert bench.argo.truth(PROD).runs("14")


async def test_a_crash_loop_is_shown_at_once_and_fails_as_degraded(bench: Bench, argo: ArgoCD) -> None:
    """The pods' trouble is seen long before the Deployment's own deadline passes."""
    bench.argo.degrade_next_rollout(PROD)
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))
    troubles: list[str] = []
    progress = await follower.to_the_end(
        lambda _: troubles.append(follower.progress.pods if follower.progress else "")
    )
    assert progress.stage is Stage.FAILED
    assert progress.says.startswith("degraded: Deployment")
    assert "exceeded its progress deadline" in progress.says
    assert any("CrashLoopBackOff" in trouble for trouble in troubles)


async def test_manifests_from_a_stale_cache_are_found_out(bench: Bench, argo: ArgoCD) -> None:
    """Synced at our commit and Healthy, and yet the old image: the revision alone is no proof."""
    bench.argo.stale_render_next(PROD)
    progress = await Follower(bench=bench, argo=argo, commit=bench.promote("15")).to_the_end()
    assert progress.stage is Stage.FAILED
    assert "not with the promoted image: the manifests hold 14" in progress.says


async def test_a_chart_that_does_not_render_fails_after_a_minute(bench: Bench, argo: ArgoCD) -> None:
    """Argo CD's error is shown, with the cause that it tells last."""
    bench.promote("15")
    commit = bench.commit("values-prod.yaml", "image:", "image: [")
    progress = await Follower(bench=bench, argo=argo, commit=commit).to_the_end()
    assert progress.stage is Stage.FAILED
    assert progress.says.startswith("Argo CD cannot render it: Failed to load target state")


async def test_a_deaf_argo_cd_is_reported_as_not_picked_up(bench: Bench, argo: ArgoCD) -> None:
    """Ten minutes of asking for a comparison, at most once a minute in the end."""
    bench.argo.deaf = True
    progress = await Follower(bench=bench, argo=argo, commit=bench.promote("15")).to_the_end()
    assert progress.stage is Stage.FAILED
    assert progress.says.startswith("not picked up")
    refreshes = [request for request in bench.argo.requests if "refresh" in request.query]
    assert len(refreshes) <= 16


async def test_an_outage_in_the_middle_only_delays(bench: Bench, argo: ArgoCD) -> None:
    """A proxy's error page for half a minute is neither success nor failure."""
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))
    silent: list[str] = []

    def meddle(stage: Stage) -> None:
        bench.argo.down = stage is Stage.SETTLING and not silent
        if stage is Stage.UNREACHABLE and follower.progress:
            silent.append(follower.progress.says)
            bench.argo.down = False

    assert (await follower.to_the_end(meddle)).stage is Stage.LIVE
    assert len(silent) == 1
    assert "Argo CD is not available" in silent[0]


@pytest.mark.parametrize("seed", range(6))
async def test_the_verdict_is_the_truth_whatever_the_timing(bench: Bench, seed: int) -> None:
    """Slow and quick loops, lost refreshes, crashes: live means that every pod runs it, at that very instant."""
    chance = random.Random(seed)
    timings = {
        "reconcile_takes": timedelta(seconds=chance.choice([0.1, 0.9, 4])),
        "settle_gap": timedelta(seconds=chance.choice([0.2, 3, 12])),
        "sync_takes": timedelta(seconds=chance.choice([0.3, 5])),
        "pod_takes": timedelta(seconds=chance.choice([0.5, 6])),
    }
    await bench.restart(bench.simulate(APPLICATIONS, **timings))
    bench.argo.lossy_refresh = chance.random() < 0.7
    if doomed := chance.random() < 0.3:
        bench.argo.degrade_next_rollout(PROD)
    argo = client(bench)
    follower = Follower(bench=bench, argo=argo, commit=bench.promote("15"))
    progress = await follower.to_the_end()
    await argo.aclose()
    assert progress.stage is (Stage.FAILED if doomed else Stage.LIVE), progress.says
    assert bench.argo.truth(PROD).runs("15") is not doomed


async def test_an_expired_token_is_named_as_such(bench: Bench, argo: ArgoCD) -> None:
    """Somebody has to give the bot a new one; waiting does not help."""
    bench.argo.token_expired = True
    with pytest.raises(
        Failed, match=r"the token for Argo CD at .* expired or was revoked: .*token is expired"
    ):
        await argo.observe(TARGET, APPLICATION, refresh=False)


async def test_a_missing_right_is_named_with_the_object_it_is_for(bench: Bench, argo: ArgoCD) -> None:
    """What to write into Argo CD's policy stands in the message."""
    bench.argo.forbidden = {PROD}
    with pytest.raises(Failed, match=f"needs applications, get, default/{PROD}$"):
        await argo.observe(TARGET, APPLICATION, refresh=False)


@pytest.mark.parametrize(
    ("application", "said"),
    [
        (replace(APPLICATION, name="gone"), "has no application “gone” in the project “default”"),
        (
            replace(APPLICATION, namespace="team-a"),
            f"has no application “{PROD}” in the project “default” in the namespace “team-a”",
        ),
        (replace(APPLICATION, server="east"), "no Argo CD called “east” is configured"),
    ],
    ids=["no such application", "another namespace", "no such server"],
)
async def test_an_application_that_is_not_there_is_an_error_of_the_configuration(
    argo: ArgoCD, application: Application, said: str
) -> None:
    """It will not come by waiting."""
    with pytest.raises(Failed, match=said):
        await argo.observe(TARGET, application, refresh=False)


async def test_an_application_in_another_namespace_is_found_by_its_namespace(bench: Bench) -> None:
    """Applications outside Argo CD's own namespace are asked for with it."""
    spec = replace(APPLICATIONS[2], namespace="team-a")
    await bench.restart(bench.simulate([spec]))
    argo = client(bench)
    found = await argo.observe(TARGET, replace(APPLICATION, namespace="team-a"), refresh=False)
    await argo.aclose()
    assert found.health == "Healthy"


async def test_the_identity_tells_version_and_account(bench: Bench, argo: ArgoCD) -> None:
    """What the check command shows; a token that expired is taken for nobody's."""
    assert await argo.identity("main") == Identity(
        version="v3.5.1+2b1f0a5", username="promote-bot", is_logged_in=True, token_expires_at=None
    )
    bench.argo.token_expired = True
    assert not (await argo.identity("main")).is_logged_in
