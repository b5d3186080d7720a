"""Sync windows of the simulated Argo CD: when they are active, and what they keep from syncing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argocd_bench import APPLICATIONS, PROD, Bench, fitting
from hypothesis import given
from hypothesis import strategies as st
from test_simulated_argocd_sync import sync

from bot.playground.argocd.windows import SyncWindow, can_sync

NOON = datetime(2026, 8, 24, 12, 0, tzinfo=UTC)  # a Monday
ALWAYS = SyncWindow(kind="deny", schedule="* * * * *", duration="1h")
NEVER = SyncWindow(kind="allow", schedule="0 0 29 2 *", duration="1m")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A started simulation whose time stands still until a test moves it; it is nine o'clock."""
    made = Bench(tmp_path)
    await made.argo.start(background=False)
    made.argo.access.grant("applications, sync, default/*")
    async with made.client:
        yield made
    await made.argo.stop()


@pytest.mark.parametrize(
    ("schedule", "duration", "zone", "active"),
    [
        ("0 11 * * *", "2h", "UTC", True),
        ("0 11 * * *", "1h", "UTC", False),
        ("0 11 * * *", "1h1m", "UTC", True),
        ("0 12 * * *", "2h", "UTC", False),  # it begins this very moment
        ("30 11 * * 1", "90m", "UTC", True),
        ("30 11 * * 0,2-6", "90m", "UTC", False),
        ("*/20 * * * *", "21m", "UTC", True),
        ("5-50/15 * * * *", "15m", "UTC", True),
        ("5-50/15 * * * *", "10m", "UTC", False),
        ("0 13 * * *", "2h", "Europe/Berlin", True),  # two hours ahead in summer
        ("0 11 24 8 *", "2h", "UTC", True),
        ("0 11 1 8 1", "2h", "UTC", True),  # the day of the week is enough
        ("0 11 1 8 2", "2h", "UTC", False),
    ],
)
def test_a_window_is_active_from_its_minute_for_its_duration(
    schedule: str, duration: str, zone: str, active: bool
) -> None:
    """Schedules are cron expressions in a time zone; the first moment does not count yet, the last not any more."""
    window = SyncWindow(kind="allow", schedule=schedule, duration=duration, time_zone=zone)
    assert window.is_active(NOON) is active


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 1439), st.integers(0, 2 * 1439))
def test_a_daily_window_is_active_for_its_share_of_the_day(
    minute: int, hour: int, length: int, passed: int
) -> None:
    """Counted from its beginning, a window of n minutes is active in the minutes 0 to n of each day."""
    window = SyncWindow(kind="deny", schedule=f"{minute} {hour} * * *", duration=f"{length}m")
    begins = datetime(2026, 8, 24, hour, minute, tzinfo=UTC)
    moment = begins + timedelta(minutes=passed, seconds=30)
    assert window.is_active(moment) is (passed % 1440 < length)


def test_a_schedule_of_another_form_is_refused() -> None:
    """Six fields are no schedule of Argo CD."""
    with pytest.raises(ValueError, match="five fields"):
        replace(ALWAYS, schedule="0 0 * * * *").is_active(NOON)


@pytest.mark.parametrize(
    ("windows", "automatic", "manual"),
    [
        ([], True, True),
        ([ALWAYS], False, False),
        ([replace(ALWAYS, manual_sync=True)], False, True),
        ([replace(ALWAYS, manual_sync=True), ALWAYS], False, False),
        ([replace(ALWAYS, kind="allow")], True, True),
        ([replace(ALWAYS, kind="allow"), ALWAYS], False, False),
        ([NEVER], False, False),
        ([replace(NEVER, manual_sync=True)], False, True),
        ([replace(NEVER, manual_sync=True), NEVER], False, False),
        ([replace(NEVER, kind="deny")], True, True),
    ],
)
def test_windows_decide_together(windows: list[SyncWindow], automatic: bool, manual: bool) -> None:
    """An active deny wins; where there is any allow one must be active; by hand it takes everybody's consent."""
    assert can_sync(windows, NOON, manual=False) is automatic
    assert can_sync(windows, NOON, manual=True) is manual


@pytest.mark.parametrize(
    ("globs", "assigned"),
    [
        ({"applications": ("manual-*",)}, True),
        ({"applications": ("other",)}, False),
        ({"applications": (), "namespaces": ("pro?",)}, True),
        ({"applications": (), "clusters": ("https://*",)}, True),
        ({"applications": ("other",), "namespaces": ("dev",)}, False),
    ],
)
def test_a_window_is_assigned_by_any_of_its_globs(globs: dict[str, tuple[str, ...]], assigned: bool) -> None:
    """By name, by destination namespace or by cluster."""
    assert replace(ALWAYS, **globs).is_assigned_to(APPLICATIONS[2]) is assigned


async def test_a_denied_auto_sync_leaves_no_trace(bench: Bench) -> None:
    """OutOfSync at the new commit with the old operation, no condition, and nothing queued; then the window ends."""
    before = (await bench.application())["status"]["operationState"]
    bench.argo.windows["default"] = [SyncWindow(kind="deny", schedule="50 8 * * *", duration="15m")]
    new = await bench.deploy("15")
    shown = await bench.application()
    status = shown["status"]
    assert (status["sync"]["status"], status["sync"]["revision"]) == ("OutOfSync", new)
    assert status["operationState"] == before
    assert not {"conditions"} & status.keys()
    assert "operation" not in shown
    bench.passes(600)
    assert bench.argo.truth(PROD).runs("15")


async def test_after_a_window_auto_sync_may_wait_for_a_refresh(bench: Bench) -> None:
    """With the switch, polls do not begin what a window has kept back; a refresh does."""
    bench.argo.waits_after_window = True
    bench.argo.windows["default"] = [SyncWindow(kind="deny", schedule="50 8 * * *", duration="15m")]
    await bench.deploy("15")
    bench.passes(3600)
    status = (await bench.application())["status"]
    assert (status["sync"]["status"], bench.argo.truth(PROD).runs("14")) == ("OutOfSync", True)
    await bench.refresh()
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")


async def test_the_windows_of_an_application_are_shown(bench: Bench) -> None:
    """Assigned and active ones apart; `canSync` is about syncs by hand, and left out when false."""
    path = f"applications/{PROD}/syncwindows"
    schema = "applicationApplicationSyncWindowsResponse"
    by_hand = SyncWindow(kind="deny", schedule="50 8 * * *", duration="15m", manual_sync=True)
    night = SyncWindow(kind="deny", schedule="0 22 * * *", duration="1h30m")
    other = replace(ALWAYS, applications=("other",))
    bench.argo.windows["default"] = [by_hand, night, other]
    shown = fitting((await bench.call(path, project="default")).json(), schema)
    first = {"kind": "deny", "schedule": "50 8 * * *", "duration": "15m", "manualSync": True}
    second = {"kind": "deny", "schedule": "0 22 * * *", "duration": "1h30m"}
    assert shown == {"activeWindows": [first], "assignedWindows": [first, second], "canSync": True}
    bench.argo.windows["default"] = [replace(by_hand, manual_sync=False)]
    shown = fitting((await bench.call(path, project="default")).json(), schema)
    assert "canSync" not in shown


async def test_a_window_that_begins_meanwhile_blocks_what_is_queued(bench: Bench) -> None:
    """The operation runs, says that it is blocked, and goes on when the window has ended."""
    bench.promote("15")
    await bench.refresh()
    bench.argo.windows["default"] = [SyncWindow(kind="deny", schedule="50 8 * * *", duration="15m")]
    bench.passes(5)
    state = (await bench.application())["status"]["operationState"]
    assert (state["phase"], state["message"]) == ("Running", "Sync operation blocked by sync window")
    bench.passes(600)
    assert bench.argo.truth(PROD).runs("15")


async def test_a_sync_by_hand_passes_where_a_window_lets_it(bench: Bench) -> None:
    """403 in a window, unless it allows manual syncs; then auto-sync stays back and the person does not."""
    bench.argo.windows["default"] = [ALWAYS]
    refused = await sync(bench)
    assert (refused.status_code, refused.json()["message"]) == (403, "cannot sync: blocked by sync window")
    bench.argo.windows["default"] = [replace(ALWAYS, manual_sync=True)]
    await bench.deploy("15")
    assert bench.argo.truth(PROD).runs("14")
    assert (await sync(bench)).status_code == 200
    bench.passes(15)
    assert bench.argo.truth(PROD).runs("15")
