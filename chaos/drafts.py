"""The making of drafts in a storm: gates and board are the real ones, and nothing else that they ask is configured."""

from __future__ import annotations

from bot.core.board import Board
from bot.core.catalog import Catalog, Image, Target
from bot.core.dossier import Commits
from bot.core.drafting import Drafting
from bot.core.gatekeeper import Gatekeeper
from bot.core.guarding import Page, RuleChanges
from bot.core.policy import Probe
from bot.core.ports import Clock, Cluster, Directory, ValuesRepository
from bot.core.seals import Sealer
from bot.integrations.calendar import CronCalendar
from chaos.images import NoRegistries


def drafting(
    *,
    catalog: Catalog,
    values: ValuesRepository,
    cluster: Cluster,
    directory: Directory,
    board: Board,
    clock: Clock,
    sealer: Sealer,
) -> Drafting:
    """What finds out about requests where no app has a source, no policy a probe, and no chart changes."""
    watched = NothingWatched()
    return Drafting(
        catalog=catalog,
        values=values,
        cluster=cluster,
        images=NoRegistries(),
        directory=directory,
        sources=NoSources(),
        watched=watched,
        board=board,
        gatekeeper=Gatekeeper(
            board=board,
            calendar=CronCalendar(),
            probes=NoProbes(),
            watched=watched,
            clock=clock,
            sealer=sealer,
        ),
        changes=RuleChanges(catalog=catalog, rulebook=NoRulebook(), clock=clock),
    )


class NoRulebook:
    """Rules that nobody changes."""

    async def read(self) -> None:
        """Nobody has written anything down."""

    async def change(self, page: Page) -> bool:
        """Nobody may."""
        raise AssertionError(f"the rules changed: {page.lines}")


class NoSources:
    """What the bot has where no app names its source."""

    async def between(self, target: Target, old: Image, new: Image) -> Commits:
        """Nobody may ask."""
        raise AssertionError(f"{target.name} has no source between {old} and {new}")


class NoProbes:
    """What the bot has where no policy names a probe."""

    async def ask(self, probe: Probe, target: Target, image: Image) -> str:
        """Nobody may ask."""
        raise AssertionError(f"{probe.name} does not stand in the way of {image} to {target.name}")


class NothingWatched:
    """Charts that nobody changes, in an Argo CD that syncs by itself."""

    async def commits(self, _target: Target) -> tuple[Commits, bool]:
        """None, and an approval does not count for them."""
        return Commits(), False

    async def differences(self, _target: Target, _source: Target) -> tuple[str, ...]:
        """The files are alike."""
        return ()
