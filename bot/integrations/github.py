"""GitHub's pull requests, by its REST API of 2022-11-28."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import httpx

from bot.core.catalog import Repository
from bot.core.errors import Failed, Unavailable
from bot.core.ports import ChangedFile, Edit, PullRequest, PullState
from bot.integrations.forge_http import Access, ForgeApi, Json, Token, changed_lines

SYSTEM = "GitHub"
NEEDS = "“Contents” and “Pull requests”, both read and write"
METHODS = {"allow_merge_commit": "merge", "allow_squash_merge": "squash", "allow_rebase_merge": "rebase"}
"""The ways to merge by the repository's setting that allows them; the first one keeps our commit as it is."""
BEHIND = frozenset({"dirty", "behind"})
"""Values of `mergeable_state`: a conflict, and a branch that has to be up to date first."""


class GitHub:
    """Implements the port `PullRequests` for one repository, `owner/name`; `api` is where its API is."""

    def __init__(self, client: httpx.AsyncClient, *, api: str, repository: str, token: Token) -> None:
        self._name = repository
        self._owner = repository.partition("/")[0]
        self._path = f"/repos/{repository}"
        access = Access(system=SYSTEM, api=api, token=token, headers=_headers, needs=NEEDS)
        self._api = ForgeApi(client, access)

    async def find(self, edit: Edit) -> PullRequest | None:
        """The edit's pull request in any state; of several the merged one, else the open one, else the newest."""
        base = edit.target.repository.branch
        query = {"head": f"{self._owner}:{edit.branch}", "base": base, "state": "all"}
        listed = await self._api.pages(f"{self._path}/pulls", query=query)
        ours = [each for each in listed if self._is_ours(each, edit)]
        if not ours:
            return None
        number = max(ours, key=lambda each: (_is_merged(each), each.get("state") == "open", each["number"]))
        return await self._read(number["number"])

    async def open(self, edit: Edit, *, title: str, body: str) -> PullRequest:
        """Open it, or find the one that is open already."""
        wanted = {"title": title, "body": body, "head": edit.branch, "base": edit.target.repository.branch}
        answer = await self._api.ask("POST", f"{self._path}/pulls", body=wanted, expects={422})
        if answer.status == 201:
            return _pull(self._api.object(answer))
        if "already exists" not in answer.says:
            raise Failed(f"{SYSTEM} opens no pull request: {answer.says}.")
        found = await self.find(edit)
        if found is None or found.state is not PullState.OPEN:
            raise Unavailable(
                SYSTEM, "it has a pull request already, and does not list it yet", maybe_done=True
            )
        return found

    async def merge(self, edit: Edit, pull: PullRequest, *, revision: str) -> bool:
        """Merge it where its branch is at this revision, in the first way that is allowed."""
        settings = await self._api.one(self._path)
        allowed = [method for setting, method in METHODS.items() if settings.get(setting) is not False]
        for method in allowed:
            answer = await self._api.ask(
                "PUT",
                f"{self._path}/pulls/{pull.number}/merge",
                body={"sha": revision, "merge_method": method, **_message(method, edit, pull)},
                expects={403, 404, 405, 409, 422},
            )
            if answer.status == 200:
                return True
            if answer.status != 405:  # which alone may mean that another way is open
                return False
        return False

    async def files(self, edit: Edit, pull: PullRequest) -> tuple[ChangedFile, ...]:  # noqa: ARG002 - the port's
        """What it changes, by whatever commits: GitHub's “Files changed”, which stays after the merge."""
        listed = await self._api.pages(f"{self._path}/pulls/{pull.number}/files", query={})
        return tuple(map(_file, listed))

    async def close(self, edit: Edit, *, why: str) -> PullRequest | None:
        """Close it, say why, and delete its branch; safe to repeat."""
        found = await self.find(edit)
        if found and found.state is PullState.OPEN:
            pull = f"{self._path}/pulls/{found.number}"
            await self._api.ask("PATCH", pull, body={"state": "closed"}, expects={422})
            found = await self._read(found.number)
            if found.state is PullState.OPEN:
                raise Unavailable(SYSTEM, f"pull request #{found.number} is still open")
            if found.state is PullState.CLOSED:  # only now, as whoever has to try again would say it again
                comments = f"{self._path}/issues/{found.number}/comments"
                await self._api.ask("POST", comments, body={"body": why}, expects={403})
        # There may be no such branch: 422 says so.
        ref = f"{self._path}/git/refs/heads/{quote(edit.branch)}"
        await self._api.ask("DELETE", ref, expects={404, 422})
        return found

    async def probe(self, repository: Repository) -> str:
        """Raise `Failed` where the bot may not push branches, and so open pull requests from them."""
        found = await self._api.one(self._path)
        rights = found.get("permissions")
        if not isinstance(rights, dict) or rights.get("push") is not True:
            raise Failed(f"{SYSTEM} does not let the bot write to {self._name}; its token needs {NEEDS}.")
        query: Mapping[str, str | int] = {"base": repository.branch, "state": "open", "per_page": 1}
        await self._api.ask("GET", f"{self._path}/pulls", query=query)
        ways = [method for setting, method in METHODS.items() if found.get(setting) is not False]
        return f"pull requests of {self._name} can be read, and its branches written; merged by {' or '.join(ways)}"

    def _is_ours(self, pull: Json, edit: Edit) -> bool:
        """Is it from our branch to that of the edit? A fork may have a branch of the same name."""
        head, base = pull.get("head"), pull.get("base")
        if not isinstance(head, dict) or not isinstance(base, dict):
            return False
        whose = head.get("repo")
        name = whose.get("full_name", "") if isinstance(whose, dict) else ""
        is_here = str(name).lower() == self._name.lower()
        return is_here and (head.get("ref"), base.get("ref")) == (edit.branch, edit.target.repository.branch)

    async def _read(self, number: int) -> PullRequest:
        found = await self._api.one(f"{self._path}/pulls/{number}")
        pull = _pull(found)
        if pull.state is not PullState.CLOSED:
            return pull
        issue = await self._api.ask("GET", f"{self._path}/issues/{number}", expects={403, 404, 410})
        closer = issue.body.get("closed_by") if isinstance(issue.body, dict) else None
        return _pull({**found, "closed_by": closer})


def _headers(token: str) -> Mapping[str, str]:
    return {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }


def _is_merged(pull: Json) -> bool:
    return pull.get("merged_at") is not None


def _pull(found: Json) -> PullRequest:
    """What GitHub says of a pull request; raises `Unavailable` where that cannot be one."""
    by = found.get("merged_by") or found.get("closed_by")
    try:
        state = PullState.MERGED if _is_merged(found) else PullState(found["state"])
        return PullRequest(
            number=int(found["number"]),
            url=str(found["html_url"]),
            state=state,
            head=str(found["head"]["sha"]),
            revision=found.get("merge_commit_sha") if state is PullState.MERGED else None,
            by=str(by["login"]) if isinstance(by, dict) and "login" in by else "",
            is_behind=found.get("mergeable") is False or found.get("mergeable_state") in BEHIND,
        )
    except (KeyError, TypeError, ValueError):
        raise Unavailable(SYSTEM, "it describes a pull request in a way that is not its API's") from None


def _file(found: Json) -> ChangedFile:
    """A changed file as GitHub lists it; raises `Unavailable` where that cannot be one."""
    try:
        lines = changed_lines(found.get("patch")) if found["status"] == "modified" else ((), ())
        return ChangedFile(path=str(found["filename"]), lines=lines)
    except KeyError:
        raise Unavailable(SYSTEM, "it describes a changed file in a way that is not its API's") from None


def _message(method: str, edit: Edit, pull: PullRequest) -> Mapping[str, str]:
    """What the host's own commit says: a squashed one is the promotion's, a merge only brings it."""
    subject, _, rest = edit.message.partition("\n")
    lines: Mapping[str, Sequence[str]] = {
        "merge": (f"Merge pull request #{pull.number}: {subject}", ""),
        "squash": (f"{subject} (#{pull.number})", rest.strip()),
    }
    return dict(zip(("commit_title", "commit_message"), lines.get(method, ()), strict=False))
