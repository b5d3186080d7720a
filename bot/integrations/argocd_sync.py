"""Have Argo CD sync an application: tried first, begun once, never pruning."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

from bot.core.errors import Refused, Unavailable
from bot.integrations.argocd_application import ApplicationCalls
from bot.integrations.argocd_facts import causes, out_of_sync, resource_name
from bot.integrations.argocd_http import SYSTEM, Rejected
from bot.integrations.argocd_objects import Application, OperationState
from bot.integrations.argocd_text import said
from bot.integrations.argocd_tracking import is_plain

PROMOTION = "promote-bot/promotion"
"""The name under which an operation carries the id of the promotion that it was begun for."""
REHEARSAL = "promote-bot/rehearsal"
COMPARED = "promote-bot/compared"
"""With what a rehearsal's application was compared: the sync that follows must be of the same."""
ATTEMPT = "promote-bot/attempt"
"""Tells an operation from one that was begun earlier for the same promotion."""
LOOK_EVERY = 1.0
"""Seconds between two looks at a rehearsal."""


async def rehearse(
    calls: ApplicationCalls, revision: str | None, promotion: str, *, limit: timedelta
) -> tuple[str, ...]:
    """Try a sync without doing it; returns what it would change, `Deployment/manual-app`, sorted.

    Where a sync for this promotion is under way, nothing is tried: the record of it would be lost. Raises `Refused` where it would fail or Argo CD says no, `Unavailable` where it does not end within the limit.
    """
    mark = str(uuid4())
    try:
        found = await calls.look()
        if promotion and _is_under_way(found, promotion):
            return ()
        marks = {REHEARSAL: mark, COMPARED: _compared(found)}
        await _post(calls, found, revision, marks, dry_run=True)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                state = await _ended(calls, mark)
        except TimeoutError as error:
            place, seconds = calls.connection.place, f"{limit.total_seconds():g}"
            raise Unavailable(SYSTEM, f"the dry run at {place} did not end within {seconds} s") from error
    except Rejected as rejected:
        raise await _refused(calls, rejected) from rejected
    results = state.sync_result.resources if state.sync_result else ()
    if state.phase != "Succeeded":
        name = calls.application.name
        raise Refused(
            f"A sync of “{name}” would fail: {causes(results, state.message)}. Nothing was changed."
        )
    touched = {
        resource_name(each) for each in results if each.status != "PruneSkipped" and not each.hook_type
    }
    return tuple(sorted(touched | set(out_of_sync(found, with_pruning=False))))


async def begin(calls: ApplicationCalls, revision: str | None, promotion: str, *, limit: timedelta) -> None:
    """Begin a sync for a promotion, once: one that runs for it already is the one.

    Raises `Refused` where Argo CD says no and why, or where it is not what was rehearsed any more, `Unavailable`
    where nobody knows.
    """
    attempt = str(uuid4())
    marks = {PROMOTION: promotion, ATTEMPT: attempt}
    try:
        found = await calls.look()
        if _is_under_way(found, promotion):
            return
        _require_unchanged(found, calls.application.name)
        try:
            await _post(calls, found, revision, marks, limit=limit)
        except Unavailable as unclear:
            if not await _was_begun(calls, attempt):
                raise Unavailable(
                    unclear.system, unclear.detail, retry_after=unclear.retry_after, maybe_done=True
                ) from unclear
    except Rejected as rejected:
        raise await _refused(calls, rejected) from rejected


async def _post(
    calls: ApplicationCalls,
    found: Application,
    revision: str | None,
    marks: dict[str, str],
    *,
    dry_run: bool = False,
    limit: timedelta | None = None,
) -> None:
    """Without options of its own, so that those of the Application stay."""
    application = calls.application
    body: dict[str, object] = {"name": application.name, "project": application.project, "prune": False}
    if application.namespace:
        body["appNamespace"] = application.namespace
    if dry_run:
        body["dryRun"] = True
    # Of several sources and of hydrated ones, our commit is not the one revision that a sync can name.
    if revision and is_plain(found.spec):
        body["revision"] = revision
    body["infos"] = [{"name": name, "value": value} for name, value in marks.items()]
    await calls.connection.post(f"{calls.path}/sync", body, call="sync", limit=limit or calls.limit)


async def _ended(calls: ApplicationCalls, mark: str) -> OperationState:
    """The rehearsal, once it is over."""
    while True:
        found = await calls.look()
        state = found.status.operation_state
        if state and not found.is_operating and state.operation.mark(REHEARSAL) == mark:
            return state
        await asyncio.sleep(LOOK_EVERY)


def _compared(found: Application) -> str:
    """With which commits of its sources it was compared."""
    return ",".join(part for part in (found.status.sync.revision, *found.status.sync.revisions) if part)


def _require_unchanged(found: Application, name: str) -> None:
    """A sync does what was shown; where that is not so any more, somebody has to look again."""
    status, state = found.status.sync.status, found.status.operation_state
    if status == "Synced":
        raise Refused(f"“{name}” is Synced by now: there is nothing left to sync. Look at its card.")
    if status != "OutOfSync":
        raise Refused(
            f"The sync status of “{name}” is {said(status) or 'not known'} by now, so nobody knows what a sync "
            f"would change. Nothing was synced; look at it in {SYSTEM}, and try again."
        )
    rehearsed, compared = state.operation.mark(COMPARED) if state else "", _compared(found)
    if rehearsed and rehearsed != compared:
        raise Refused(
            f"“{name}” has been compared with another commit since the dry run: {said(compared)}, "
            f"not {said(rehearsed)}. Nothing was synced; look at what differs now, and press Sync again."
        )


def _is_under_way(found: Application, promotion: str) -> bool:
    """Is there nothing to begin: does a sync for this promotion run, or has it ended well and nothing differs since?"""
    state = found.status.operation_state
    if found.operation and found.operation.mark(PROMOTION) == promotion:
        return True
    if state is None or state.operation.mark(PROMOTION) != promotion:
        return False
    if state.is_active:
        return True
    compared_at, finished_at = found.status.reconciled_at, state.finished_at
    was_judged = compared_at is not None and finished_at is not None and compared_at > finished_at
    return state.phase == "Succeeded" and (not was_judged or found.status.sync.status == "Synced")


async def _was_begun(calls: ApplicationCalls, attempt: str) -> bool:
    """Did a sync arrive whose answer did not?"""
    try:
        found = await calls.look()
    except (Rejected, Unavailable):
        return False
    state = found.status.operation_state
    requests = (found.operation, state.operation if state else None)
    return any(request.mark(ATTEMPT) == attempt for request in requests if request)


async def _refused(calls: ApplicationCalls, rejected: Rejected) -> Refused:
    """Argo CD's no, in its own words, and what to do."""
    name, words = calls.application.name, rejected.said
    says = f"{SYSTEM} does not sync “{name}”: {words.rstrip('.')}."
    if "blocked by sync window" in words:
        return Refused(f"{says} Wait until the window lets it, or have manual syncs allowed in it.")
    if "already in progress" in words:
        return Refused(f"{says} Wait until that one has ended, and try again.")
    if words.startswith("Cannot sync to"):
        return Refused(f"{says} It syncs this application by itself, and its branch alone; wait for it.")
    if "applications, override" in words:
        return Refused(f"{says} It asks for that where a sync names a commit; press Sync in {SYSTEM}.")
    if rejected.status == 403 and "sync" in words:
        needs = f"applications, sync, {calls.policy_object}"
        return Refused(f"{says} Give the bot's account {needs}, or press Sync in {SYSTEM}.")
    if rejected.status in (401, 403, 404):
        return Refused(f"{await calls.refusal(rejected)}. Nothing was synced.")
    return Refused(f"{says} Put that right, and try again.")
