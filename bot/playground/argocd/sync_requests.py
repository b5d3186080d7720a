"""What a request to sync is allowed to ask for, and the operation it becomes."""

from collections.abc import Callable

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json, RenderError
from bot.playground.argocd.refusals import FAILED_PRECONDITION, INVALID, Denied
from bot.playground.argocd.specs import Revisions, SimulatedApplication, SimulatedSource

Resolve = Callable[[SimulatedSource], str]


def requested_operation(application: Application, asked: Json, *, username: str, resolve: Resolve) -> Json:
    """The operation that somebody asks for.

    Raises Denied for an application that is being deleted or busy, and for revisions it cannot be synced to.
    """
    if application.deleted_at is not None:
        raise Denied(FAILED_PRECONDITION, "application is deleting")
    spec = application.spec
    revisions = _revisions(spec, asked, resolve)
    if application.operation is not None:
        raise Denied(FAILED_PRECONDITION, "another operation is already in progress")
    sync: Json = {**spec.shown_revisions(revisions)}
    sync |= {name: True for name in ("prune", "dryRun") if asked.get(name)}
    if asked.get("strategy"):
        sync["syncStrategy"] = asked["strategy"]
    if asked.get("resources"):
        sync["resources"] = asked["resources"]
    if asked.get("syncOptions"):
        sync["syncOptions"] = asked["syncOptions"].get("items", [])
    operation: Json = {"sync": sync, "initiatedBy": {"username": username}}
    operation["retry"] = asked.get("retryStrategy") or {}
    return operation | ({"info": asked["infos"]} if asked.get("infos") else {})


def _revisions(spec: SimulatedApplication, asked: Json, resolve: Resolve) -> Revisions:
    """The commit of each source; a whole commit id is taken as it is, anything else is looked up."""
    wanted = [source.branch for source in spec.all_sources]
    if spec.has_many_sources:
        pairs = zip(asked.get("sourcePositions") or [], asked.get("revisions") or [], strict=False)
        for position, revision in pairs:
            if not 1 <= position <= len(wanted):
                raise Denied(INVALID, "source position is out of range")
            wanted[position - 1] = revision
    elif asked.get("revision"):
        wanted = [asked["revision"]]
    followed = [source.branch for source in spec.all_sources]
    if wanted != followed and spec.automated and not asked.get("dryRun"):
        differing = next(pair for pair in zip(wanted, followed, strict=True) if pair[0] != pair[1])
        text = f"Cannot sync to {differing[0]}: auto-sync currently set to {differing[1]}"
        raise Denied(FAILED_PRECONDITION, text)
    return tuple(
        _resolved(source, revision, resolve)
        for source, revision in zip(spec.all_sources, wanted, strict=True)
    )


def _resolved(source: SimulatedSource, revision: str, resolve: Resolve) -> str:
    followed = SimulatedSource(repo_url=source.repo_url, branch=revision, repository=source.repository)
    try:
        return resolve(followed)
    except RenderError as error:
        raise Denied(FAILED_PRECONDITION, str(error)) from error
