"""GitLab's merge requests, by its REST API, version 4."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import httpx

from bot.core.catalog import Repository
from bot.core.errors import Failed, Unavailable
from bot.core.ports import ChangedFile, Edit, PullRequest, PullState
from bot.integrations.forge_http import Access, ForgeApi, Json, Token, changed_lines

SYSTEM = "GitLab"
NEEDS = "the scope “api” and the role Developer; to merge, what the protected branch asks for"
DEVELOPER = 30
"""The access level from which on branches are pushed and merge requests opened."""
STATES = {
    "opened": PullState.OPEN,
    "locked": PullState.OPEN,  # while it is being merged
    "merged": PullState.MERGED,
    "closed": PullState.CLOSED,
}
BEHIND = frozenset({"conflict", "need_rebase"})
"""Values of `detailed_merge_status`: the branch has to be made anew on the target."""


class GitLab:
    """Implements the port `PullRequests` for one project, `group/name`; `api` is where its API is."""

    def __init__(self, client: httpx.AsyncClient, *, api: str, project: str, token: Token) -> None:
        self._name = project
        self._path = f"/projects/{quote(project, safe='')}"
        self._requests = f"{self._path}/merge_requests"
        access = Access(system=SYSTEM, api=api, token=token, headers=_headers, needs=NEEDS)
        self._api = ForgeApi(client, access)

    async def find(self, edit: Edit) -> PullRequest | None:
        """The edit's merge request in any state; of several the merged one, else the open one, else the newest."""
        base = edit.target.repository.branch
        query = {"source_branch": edit.branch, "target_branch": base, "state": "all", "scope": "all"}
        ours = [each for each in await self._api.pages(self._requests, query=query) if _is_ours(each, edit)]
        if not ours:
            return None
        order = (PullState.CLOSED, PullState.OPEN, PullState.MERGED)
        newest = max(ours, key=lambda each: (order.index(_state(each)), each["iid"]))
        return await self._read(newest["iid"])

    async def open(self, edit: Edit, *, title: str, body: str) -> PullRequest:
        """Open it, or find the one that is open already."""
        wanted = {
            "source_branch": edit.branch,
            "target_branch": edit.target.repository.branch,
            "title": title,
            "description": body,
            "remove_source_branch": True,
        }
        answer = await self._api.ask("POST", self._requests, body=wanted, expects={409})
        if answer.status != 409:
            return _pull(self._api.object(answer))
        found = await self.find(edit)
        if found is None or found.state is not PullState.OPEN:
            raise Unavailable(SYSTEM, f"it has a merge request already: {answer.says}", maybe_done=True)
        return found

    async def merge(self, edit: Edit, pull: PullRequest, *, revision: str) -> bool:
        """Merge it where its branch is at this revision."""
        subject = edit.message.partition("\n")[0]
        answer = await self._api.ask(
            "PUT",
            f"{self._requests}/{pull.number}/merge",
            body={
                "sha": revision,
                "merge_commit_message": f"Merge request !{pull.number}: {subject}",
                "squash_commit_message": edit.message,
                "should_remove_source_branch": True,
            },
            # Its word for “you may not merge this one” is 401.
            expects={401, 403, 404, 405, 406, 409, 422},
        )
        return answer.status == 200 and self._api.object(answer).get("state") in ("merged", "locked")

    async def files(self, edit: Edit, pull: PullRequest) -> tuple[ChangedFile, ...]:  # noqa: ARG002 - the port's
        """What it changes, by whatever commits: GitLab's “Changes”, which stay after the merge."""
        listed = await self._api.pages(f"{self._requests}/{pull.number}/diffs", query={})
        return tuple(map(_file, listed))

    async def close(self, edit: Edit, *, why: str) -> PullRequest | None:
        """Close it, say why, and delete its branch; safe to repeat."""
        found = await self.find(edit)
        if found and found.state is PullState.OPEN:
            request = f"{self._requests}/{found.number}"
            await self._api.ask("PUT", request, body={"state_event": "close"}, expects={400, 405, 409, 422})
            found = await self._read(found.number)
            if found.state is PullState.OPEN:
                raise Unavailable(SYSTEM, f"merge request !{found.number} is still open")
            if found.state is PullState.CLOSED:  # only now, as whoever has to try again would say it again
                await self._api.ask("POST", f"{request}/notes", body={"body": why}, expects={403})
        branch = f"{self._path}/repository/branches/{quote(edit.branch, safe='')}"
        await self._api.ask("DELETE", branch, expects={404})
        return found

    async def probe(self, repository: Repository) -> str:
        """Raise `Failed` where the bot's role does not reach to open merge requests."""
        found = await self._api.one(self._path)
        level = _access_level(found)
        if level < DEVELOPER:
            raise Failed(
                f"{SYSTEM} gives the bot the access level {level} in {self._name}; it needs {NEEDS}."
            )
        query: Mapping[str, str | int] = {
            "target_branch": repository.branch,
            "state": "opened",
            "per_page": 1,
        }
        await self._api.ask("GET", self._requests, query=query)
        return f"merge requests of {self._name} can be opened, with access level {level}"

    async def _read(self, number: int) -> PullRequest:
        return _pull(await self._api.one(f"{self._requests}/{number}"))


def _headers(token: str) -> Mapping[str, str]:
    return {"Accept": "application/json", "PRIVATE-TOKEN": token}


def _is_ours(request: Json, edit: Edit) -> bool:
    """Is it from our branch to that of the edit? A fork may have a branch of the same name."""
    branches = (request.get("source_branch"), request.get("target_branch"))
    is_here = request.get("source_project_id") == request.get("target_project_id")
    return is_here and branches == (edit.branch, edit.target.repository.branch)


def _state(request: Json) -> PullState:
    try:
        return STATES[request["state"]]
    except KeyError:
        raise Unavailable(SYSTEM, "it describes a merge request in a way that is not its API's") from None


def _pull(found: Json) -> PullRequest:
    """What GitLab says of a merge request; raises `Unavailable` where that cannot be one."""
    state = _state(found)
    by = found.get("merge_user") or found.get("merged_by") or found.get("closed_by")
    merged_as = found.get("merge_commit_sha") or found.get("squash_commit_sha") or found.get("sha")
    try:
        return PullRequest(
            number=int(found["iid"]),
            url=str(found["web_url"]),
            state=state,
            head=str(found["sha"]),
            revision=merged_as if state is PullState.MERGED else None,
            by=str(by["name"]) if isinstance(by, dict) and "name" in by else "",
            is_behind=bool(found.get("has_conflicts")) or found.get("detailed_merge_status") in BEHIND,
        )
    except (KeyError, TypeError, ValueError):
        raise Unavailable(SYSTEM, "it describes a merge request in a way that is not its API's") from None


def _file(found: Json) -> ChangedFile:
    """A changed file as GitLab lists it; raises `Unavailable` where that cannot be one."""
    try:
        is_moved = any(found[kind] for kind in ("new_file", "deleted_file", "renamed_file"))
        is_edited = not is_moved and found["a_mode"] == found["b_mode"]
        lines = changed_lines(found.get("diff")) if is_edited else ((), ())
        return ChangedFile(path=str(found["new_path"]), lines=lines)
    except KeyError:
        raise Unavailable(SYSTEM, "it describes a changed file in a way that is not its API's") from None


def _access_level(project: Json) -> int:
    """The highest one that the project or its group gives."""
    rights = project.get("permissions")
    given = rights.values() if isinstance(rights, dict) else ()
    levels = [each.get("access_level") for each in given if isinstance(each, dict)]
    return max((level for level in levels if isinstance(level, int)), default=0)
