"""A simulated GitLab: the part of its REST API, version 4, that merge requests need, strict about every call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from aiohttp import web

from bot.playground.forge.hosted import CannotMerge, Difference, Hand, HostedRepository
from bot.playground.forge.server import MERGE, REBASE, SQUASH, Account, Forge, Json, Pull, Refusal

PROTECTED = "GitLab: You are not allowed to push code to protected branches on this project."
STATES = {"open": "opened", "closed": "closed", "merged": "merged"}

Answer = tuple[int, Any, Mapping[str, str]]


class FakeGitLab(Forge):
    """GitLab with one project, `group/name`. `method` is how its settings merge."""

    def __init__(self, folder: Path, *, name: str, accounts: Mapping[str, Account]) -> None:
        repository = HostedRepository(folder, hand=Hand(name="GitLab", email="noreply@gitlab.example"))
        super().__init__(repository, name=name, accounts=accounts)
        self.method = MERGE
        """`merge` makes merge commits, `rebase` only moves the branch forward."""
        self.squashes = False

    def protect(self, branch: str = "main") -> None:
        """Take changes of the branch by merge requests alone."""
        self.repository.protect(branch, words=PROTECTED)

    async def answer(self, request: web.Request, body: Json) -> Answer:
        """Check who asks and how, then do it."""
        account = self._account(request)
        prefix = f"/api/v4/projects/{quote(self.name, safe='')}"
        path = request.raw_path.partition("?")[0]
        if not path.startswith(prefix):
            raise _not_found("Project")
        for method, pattern, handler in self._routes():
            found = re.fullmatch(pattern, path[len(prefix) :])
            if found and method == request.method:
                return handler(request, account, body, *found.groups())
        raise Refusal(404, {"error": "404 Not Found"})

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        return [
            ("GET", "", self._project),
            ("GET", "/merge_requests", self._list),
            ("POST", "/merge_requests", self._open),
            ("GET", r"/merge_requests/(\d+)", self._get),
            ("GET", r"/merge_requests/(\d+)/diffs", self._diffs),
            ("PUT", r"/merge_requests/(\d+)", self._update),
            ("PUT", r"/merge_requests/(\d+)/merge", self._merge),
            ("POST", r"/merge_requests/(\d+)/notes", self._note),
            ("DELETE", "/repository/branches/([^/]+)", self._delete),
        ]

    def _account(self, request: web.Request) -> Account:
        token = request.headers.get("PRIVATE-TOKEN", "")
        if "Authorization" in request.headers or token not in self.accounts:
            raise Refusal(401, {"message": "401 Unauthorized"})
        account = self.accounts[token]
        if "read" not in account.scopes:
            raise _not_found("Project")
        return account

    # --- the project

    def _project(self, request: web.Request, account: Account, _body: Json) -> Answer:
        _only(request.query, ())
        level = 40 if "merge" in account.scopes else 30 if "pulls" in account.scopes else 20
        rights = {"project_access": {"access_level": level}, "group_access": None}
        return 200, {"path_with_namespace": self.name, "permissions": rights}, {}

    def _delete(self, request: web.Request, account: Account, _body: Json, branch: str) -> Answer:
        _only(request.query, ())
        _require(account, "write")
        if not self.repository.delete(unquote(branch)):
            raise _not_found("Branch")
        return 204, None, {}

    # --- merge requests

    def _list(self, request: web.Request, _account: Account, _body: Json) -> Answer:
        query = request.query
        _only(
            query,
            ("state", "scope", "source_branch", "target_branch", "order_by", "sort", "per_page", "page"),
        )
        state = query.get("state", "all")
        if state not in ("opened", "closed", "locked", "merged", "all"):
            raise Refusal(400, {"error": "state does not have a valid value"})
        found = [self.refreshed(number) for number in sorted(self.pulls, reverse=True)]
        found = [each for each in found if state in ("all", STATES[each.state])]
        found = [each for each in found if query.get("source_branch", each.head) == each.head]
        found = [each for each in found if query.get("target_branch", each.base) == each.base]
        return self._page(request, [self._shown(each) for each in found])

    def _diffs(self, request: web.Request, _account: Account, _body: Json, number: str) -> Answer:
        _only(request.query, ("per_page", "page", "unidiff"))
        return self._page(request, [_diff(each) for each in self.files(self._known(number))])

    def _page(self, request: web.Request, found: list[Json]) -> Answer:
        """The page of a list that is asked for, with the address of the next one."""
        query = request.query
        size, page = min(int(query.get("per_page", 20)), 100), int(query.get("page", 1))
        headers = {}
        if len(found) > page * size:
            further = urlencode({**query, "page": page + 1})
            headers["Link"] = f'<{self.url}{request.path}?{further}>; rel="next"'
        return 200, found[(page - 1) * size : page * size], headers

    def _open(self, _request: web.Request, account: Account, body: Json) -> Answer:
        _require(account, "pulls")
        optional = ("description", "remove_source_branch", "squash", "labels", "assignee_id")
        _fields(body, required=("source_branch", "target_branch", "title"), optional=optional)
        head, base = body["source_branch"], body["target_branch"]
        if found := self.from_branch(head, base):
            words = f"Another open merge request already exists for this source branch: !{found.number}"
            raise Refusal(409, {"message": [words]})
        for name, branch in (("Source", head), ("Target", base)):
            if self.repository.head(branch) is None:
                raise Refusal(422, {"message": [f'{name} branch "{branch}" does not exist']})
        pull = self.opened(
            title=body["title"], body=body.get("description", ""), head=head, base=base, who=account.name
        )
        return 201, self._shown(pull), {}

    def _get(self, request: web.Request, _account: Account, _body: Json, number: str) -> Answer:
        _only(request.query, ("include_diverged_commits_count", "include_rebase_in_progress", "render_html"))
        pull = self._known(number)
        pull.looks += 1
        return 200, self._shown(pull), {}

    def _update(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        _require(account, "pulls")
        _fields(body, optional=("title", "description", "state_event", "target_branch", "squash"))
        pull = self._known(number)
        if body.get("state_event") == "close":
            self.closed(pull, who=account.name)
        return 200, self._shown(pull), {}

    def _merge(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        optional = (
            "sha",
            "merge_commit_message",
            "squash_commit_message",
            "squash",
            "should_remove_source_branch",
        )
        _fields(body, optional=(*optional, "auto_merge"))
        pull = self._known(number)
        if "merge" not in account.scopes:
            raise Refusal(401, {"message": "401 Unauthorized"})
        if self._status(pull) != "mergeable":
            raise Refusal(405, {"message": "405 Method Not Allowed"})
        if body.get("sha", pull.head_sha) != pull.head_sha:
            raise Refusal(409, {"message": "SHA does not match HEAD of source branch"})
        try:
            self._bring(pull, body, who=account.name)
        except CannotMerge:
            raise Refusal(422, {"message": "Branch cannot be merged"}) from None
        if body.get("should_remove_source_branch"):
            self.repository.delete(pull.head)
        return 200, self._shown(pull), {}

    def _bring(self, pull: Pull, body: Json, *, who: str) -> None:
        """As the project's settings say."""
        if self.squashes:
            self.merged(pull, method=SQUASH, message=body.get("squash_commit_message", pull.title), who=who)
        elif self.method == REBASE:
            revision = self.repository.fast_forward(pull.base, pull.head_sha)
            pull.state, pull.merged_as, pull.method = "merged", revision, REBASE
            pull.by, pull.at = who, self.now()
        else:
            message = body.get("merge_commit_message", f"Merge branch '{pull.head}' into '{pull.base}'")
            self.merged(pull, method=MERGE, message=message, who=who)

    def _note(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        _require(account, "pulls")
        _fields(body, required=("body",))
        self._known(number).comments.append((account.name, body["body"]))
        return 201, {"id": 1, "body": body["body"]}, {}

    def merged(self, pull: Pull, *, method: str, message: str, who: str) -> str:
        """As its parent; a rebase moves the source branch first, and the target to it."""
        tip = self.repository.head(pull.base) or ""
        revision = super().merged(pull, method=method, message=message, who=who)
        if method == REBASE:
            pull.head_sha, pull.fork = revision, tip
        return revision

    # --- how it is shown

    def _known(self, number: str) -> Pull:
        if int(number) not in self.pulls:
            raise _not_found("Merge Request")
        return self.refreshed(int(number))

    def _status(self, pull: Pull) -> str:
        """`detailed_merge_status`, which is known only some time after somebody has looked."""
        if pull.state != "open":
            return "not_open"
        if pull.looks < 2:
            return "checking" if pull.looks else "unchecked"
        tip = self.repository.head(pull.base) or ""
        if not self.repository.can_merge(tip, pull.head_sha):
            return "conflict"
        if self.method == REBASE and not self.repository.contains(pull.head, tip):
            return "need_rebase"
        return "not_approved" if pull.reviews < self.required_reviews else "mergeable"

    def _shown(self, pull: Pull) -> Json:
        is_merged, person = pull.state == "merged", {"name": pull.by, "username": pull.by}
        at = pull.at.strftime("%Y-%m-%dT%H:%M:%S.000Z") if isinstance(pull.at, datetime) else None
        return {
            "iid": pull.number,
            "project_id": 1,
            "source_project_id": 1,
            "target_project_id": 1,
            "web_url": f"https://gitlab.com/{self.name}/-/merge_requests/{pull.number}",
            "state": STATES[pull.state],
            "title": pull.title,
            "description": pull.body,
            "author": {"username": pull.opened_by},
            "source_branch": pull.head,
            "target_branch": pull.base,
            "sha": pull.head_sha,
            "merge_commit_sha": pull.merged_as if is_merged and pull.method == MERGE else None,
            "squash_commit_sha": pull.merged_as if is_merged and pull.method == SQUASH else None,
            "merge_user": person if is_merged and pull.by else None,
            "closed_by": person if pull.state == "closed" and pull.by else None,
            "merged_at": at if is_merged else None,
            "closed_at": at if pull.state == "closed" else None,
            "has_conflicts": self._status(pull) == "conflict",
            "detailed_merge_status": self._status(pull),
        }


def _diff(found: Difference) -> Json:
    """As the list of diffs has it."""
    return {
        "old_path": found.old,
        "new_path": found.new,
        "a_mode": found.modes[0],
        "b_mode": found.modes[1],
        "diff": found.patch,
        "new_file": found.kind == "A",
        "renamed_file": found.kind == "R",
        "deleted_file": found.kind == "D",
    }


def _not_found(what: str) -> Refusal:
    return Refusal(404, {"message": f"404 {what} Not Found"})


def _require(account: Account, scope: str) -> None:
    if scope not in account.scopes:
        raise Refusal(403, {"message": "403 Forbidden"})


def _only(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    """The real one ignores what it does not know; a call that relies on it is a mistake of ours."""
    for name in query:
        if name not in known:
            raise Refusal(400, {"error": f"{name} is invalid"})


def _fields(body: Json, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
    for name in required:
        if not body.get(name):
            raise Refusal(400, {"error": f"{name} is missing"})
    for name in body:
        if name not in (*required, *optional):
            raise Refusal(400, {"error": f"{name} is invalid"})
