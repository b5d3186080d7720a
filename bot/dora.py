"""The four numbers of every target for Prometheus, counted anew every ten minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bot.core.measuring import WINDOW, Measuring, Statistics
from bot.core.stats import Spread
from bot.telemetry import BUGS

EVERY = 600.0
LABELS = ("app", "environment")
EPOCH = datetime.fromtimestamp(0, UTC)
NOTHING = Statistics(since=EPOCH, until=EPOCH, targets=())

log = structlog.get_logger()


class Dora(Collector):
    """Shows the last numbers as gauges; what is not known has no series."""

    def __init__(self) -> None:
        self._found: Statistics | None = None

    def keep(self, found: Statistics) -> None:
        """Show these from now on, and nothing else."""
        self._found = found

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Every gauge that there can be."""
        yield from _families(NOTHING)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What Prometheus reads; nothing before the first numbers."""
        if self._found is not None:
            yield from _families(self._found)


async def keep_measured(measuring: Measuring, dora: Dora) -> None:
    """Count now, and then every ten minutes, in each worker: so all of them show the same."""
    while True:
        try:
            await measure_once(measuring, dora)
        except Exception:
            # One strange commit must not end it for good.
            BUGS.inc()
            log.exception("cannot measure")
        await asyncio.sleep(EVERY)


async def measure_once(measuring: Measuring, dora: Dora) -> None:
    """Count everything; where the store tells of no promotion the last numbers stay, as failures would look like none."""
    since = measuring.clock.now() - WINDOW
    found = await measuring.measured(measuring.catalog.targets, since=since)
    for doubt in found.doubts:
        log.warning("statistics", what=doubt)
    if found.has_records:
        dora.keep(found)


def _families(found: Statistics) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(
        "promote_dora_measured_timestamp_seconds",
        "When the promote_dora numbers were counted, Unix time",
        value=found.until.timestamp(),
    )
    yield GaugeMetricFamily(
        "promote_dora_window_seconds",
        "Over which time the promote_dora numbers are counted",
        value=(found.until - found.since).total_seconds(),
    )
    yield from _counts(found)
    yield from _times(found)


def _counts(found: Statistics) -> Iterator[GaugeMetricFamily]:
    deployments = _family("deployments", "Commits of changes, without rollbacks")
    rollbacks = _family("rollbacks", "Commits that took a change back")
    failures = _family("failures", "Deployments that failed or were rolled back")
    endings = _family("known_endings", "Deployments of which it is known how they ended")
    ratio = _family(
        "change_failure_ratio", "Failures by deployments; at least this where endings are unknown"
    )
    for each in found.targets:
        place, numbers = (each.target.app, each.target.environment), each.numbers
        deployments.add_metric(place, numbers.deployments)
        rollbacks.add_metric(place, numbers.rollbacks)
        failures.add_metric(place, numbers.failures)
        endings.add_metric(place, numbers.endings)
        if numbers.failure_rate is not None:
            ratio.add_metric(place, numbers.failure_rate)
    yield from (deployments, rollbacks, failures, endings, ratio)


def _times(found: Statistics) -> Iterator[GaugeMetricFamily]:
    lead = _family("lead_time_seconds", "From the first environment to this one", "quantile")
    versions = _family("lead_time_versions", "Versions whose lead time is known")
    restore = _family("time_to_restore_seconds", "From a failure until the target was in order", "quantile")
    restored = _family("restored_failures", "Failures whose time to restore is known")
    for each in found.targets:
        place, numbers = (each.target.app, each.target.environment), each.numbers
        _add(restore, place, numbers.restore)
        restored.add_metric(place, numbers.restore.known)
        if numbers.lead is not None:
            _add(lead, place, numbers.lead)
            versions.add_metric(place, numbers.lead.known)
    yield from (lead, versions, restore, restored)


def _family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"promote_dora_{name}", what, labels=(*LABELS, *labels))


def _add(family: GaugeMetricFamily, place: tuple[str, str], spread: Spread) -> None:
    for quantile, time in (("0.5", spread.median), ("0.9", spread.p90)):
        if time is not None:
            family.add_metric((*place, quantile), time.total_seconds())


DORA = Dora()
REGISTRY.register(DORA)
