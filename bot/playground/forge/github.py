"""A simulated GitHub: the part of its REST API (version 2022-11-28) that pull requests need, strict about every call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from bot.playground.forge.hosted import CannotMerge, Difference, Hand, HostedRepository
from bot.playground.forge.server import MERGE, REBASE, SQUASH, Account, Forge, Json, Pull, Refusal

DOCS = "https://docs.github.com/rest"
VERSION = "2022-11-28"
PROTECTED = (
    "error: GH006: Protected branch update failed for refs/heads/{branch}.\n"
    "error: Changes must be made through a pull request."
)
SETTINGS = {"allow_merge_commit": MERGE, "allow_squash_merge": SQUASH, "allow_rebase_merge": REBASE}
NOT_ALLOWED = {
    MERGE: "Merge commits are not allowed on this repository.",
    SQUASH: "Squash merges are not allowed on this repository.",
    REBASE: "Rebase merges are not allowed on this repository.",
}
STATUS = {"A": "added", "D": "removed", "M": "modified", "R": "renamed", "T": "changed"}
_SHA = re.compile("[0-9a-f]{40}")

Answer = tuple[int, Any, Mapping[str, str]]


class FakeGitHub(Forge):
    """GitHub with one repository, `owner/name`. `methods` are the ways to merge that its settings allow."""

    def __init__(self, folder: Path, *, name: str, accounts: Mapping[str, Account]) -> None:
        repository = HostedRepository(folder, hand=Hand(name="GitHub", email="noreply@github.com"))
        super().__init__(repository, name=name, accounts=accounts)
        self.methods = {MERGE, SQUASH, REBASE}
        self.must_be_up_to_date = False

    def protect(self, branch: str = "main") -> None:
        """Take changes of the branch by pull requests alone."""
        self.repository.protect(branch, words=PROTECTED.format(branch=branch))

    async def answer(self, request: web.Request, body: Json) -> Answer:
        """Check who asks and how, then do it."""
        account = self._account(request)
        prefix = f"/repos/{self.name}"
        path = request.path
        if not path.lower().startswith(prefix.lower()):
            raise _not_found()
        for method, pattern, handler in self._routes():
            found = re.fullmatch(pattern, path[len(prefix) :])
            if found and method == request.method:
                return handler(request, account, body, *found.groups())
        raise _not_found()

    def _routes(self) -> list[tuple[str, str, Callable[..., Answer]]]:
        return [
            ("GET", "", self._repository),
            ("GET", "/pulls", self._list),
            ("POST", "/pulls", self._open),
            ("GET", r"/pulls/(\d+)", self._get),
            ("PATCH", r"/pulls/(\d+)", self._update),
            ("PUT", r"/pulls/(\d+)/merge", self._merge),
            ("GET", r"/pulls/(\d+)/files", self._files),
            ("GET", r"/issues/(\d+)", self._issue),
            ("POST", r"/issues/(\d+)/comments", self._comment),
            ("DELETE", "/git/refs/heads/(.+)", self._delete),
        ]

    def _account(self, request: web.Request) -> Account:
        if not request.headers.get("User-Agent"):
            raise Refusal(403, {"message": "Request forbidden by administrative rules."})
        if request.headers.get("Accept") != "application/vnd.github+json":
            raise Refusal(415, _problem("Unsupported 'Accept' header"))
        if request.headers.get("X-GitHub-Api-Version") != VERSION:
            raise Refusal(400, _problem("The API version is not supported"))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.accounts:
            raise Refusal(401, _problem("Bad credentials"))
        account = self.accounts[token]
        if "read" not in account.scopes:
            raise _not_found()
        return account

    # --- the repository

    def _repository(self, request: web.Request, account: Account, _body: Json) -> Answer:
        _only(request.query, ())
        rights = {"admin": False, "pull": True, "push": "write" in account.scopes}
        settings = {setting: method in self.methods for setting, method in SETTINGS.items()}
        shown = settings if rights["push"] else {}
        return 200, {"full_name": self.name, "permissions": rights, **shown}, {}

    def _delete(self, request: web.Request, account: Account, _body: Json, branch: str) -> Answer:
        _only(request.query, ())
        _require(account, "write")
        if not self.repository.delete(branch):
            raise Refusal(422, _problem("Reference does not exist"))
        return 204, None, {}

    # --- pull requests

    def _list(self, request: web.Request, _account: Account, _body: Json) -> Answer:
        query = request.query
        _only(query, ("state", "head", "base", "sort", "direction", "per_page", "page"))
        state, head, base = query.get("state", "open"), query.get("head"), query.get("base")
        if state not in ("open", "closed", "all"):
            raise _invalid("state is not a valid value")
        found = [self.refreshed(number) for number in sorted(self.pulls, reverse=True)]
        found = [each for each in found if state == "all" or _state(each) == state]
        if head and ":" in head:  # one without an owner is ignored
            owner, _, branch = head.partition(":")
            found = [each for each in found if (owner, branch) == (self.name.split("/")[0], each.head)]
        found = [each for each in found if base in (None, each.base)]
        return self._page(request, [self._simple(each) for each in found])

    def _files(self, request: web.Request, _account: Account, _body: Json, number: str) -> Answer:
        _only(request.query, ("per_page", "page"))
        return self._page(request, [_file(each) for each in self.files(self._known(number))])

    def _page(self, request: web.Request, found: list[Json]) -> Answer:
        """The page of a list that is asked for, with the address of the next one."""
        query = request.query
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        headers = {}
        if len(found) > page * size:
            further = urlencode({**query, "page": page + 1})
            headers["Link"] = f'<{self.url}{request.path}?{further}>; rel="next"'
        return 200, found[(page - 1) * size : page * size], headers

    def _open(self, _request: web.Request, account: Account, body: Json) -> Answer:
        _require(account, "pulls")
        _fields(body, required=("head", "base", "title"), optional=("body", "draft", "maintainer_can_modify"))
        head, base = body["head"], body["base"]
        for field, branch in (("head", head), ("base", base)):
            if self.repository.head(branch) is None:
                raise _failed({"resource": "PullRequest", "field": field, "code": "invalid"})
        if self.from_branch(head, base):
            owner = self.name.split("/")[0]
            raise _failed(_custom(f"A pull request already exists for {owner}:{head}."))
        if not self.repository.count(base, head):
            raise _failed(_custom(f"No commits between {base} and {head}"))
        pull = self.opened(
            title=body["title"], body=body.get("body", ""), head=head, base=base, who=account.name
        )
        return 201, self._full(pull), {}

    def _get(self, request: web.Request, _account: Account, _body: Json, number: str) -> Answer:
        _only(request.query, ())
        pull = self._known(number)
        shown = self._full(pull)
        pull.looks += 1
        return 200, shown, {}

    def _update(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        _require(account, "pulls")
        _fields(body, optional=("title", "body", "state", "base", "maintainer_can_modify"))
        pull = self._known(number)
        if body.get("state") == "closed":
            self.closed(pull, who=account.name)
        elif "state" in body and pull.state != "open":
            raise _failed(_custom("state cannot be changed."))
        return 200, self._full(pull), {}

    def _merge(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        _fields(body, optional=("commit_title", "commit_message", "sha", "merge_method"))
        pull, method = self._known(number), body.get("merge_method", MERGE)
        if "merge" not in account.scopes:
            raise Refusal(403, _problem("Resource not accessible by integration"))
        if "sha" in body and not _SHA.fullmatch(body["sha"]):
            raise _invalid("sha is not a valid value")
        if pull.state != "open":
            raise Refusal(405, _problem("Pull Request is not mergeable"))
        if method not in self.methods:
            raise Refusal(405, _problem(NOT_ALLOWED[method]))
        if pull.reviews < self.required_reviews:
            words = "At least 1 approving review is required by reviewers with write access."
            raise Refusal(405, _problem(words))
        if body.get("sha", pull.head_sha) != pull.head_sha:
            raise Refusal(409, _problem("Head branch was modified. Review and try the merge again."))
        if self._is_behind(pull):
            raise Refusal(405, _problem("The head branch is not up to date with the base branch"))
        title = body.get("commit_title", f"Merge pull request #{number} from {pull.head}")
        message = f"{title}\n\n{body.get('commit_message', pull.title)}".strip() + "\n"
        try:
            revision = self.merged(pull, method=method, message=message, who=account.name)
        except CannotMerge:
            raise Refusal(405, _problem("Pull Request is not mergeable")) from None
        return 200, {"sha": revision, "merged": True, "message": "Pull Request successfully merged"}, {}

    def _issue(self, request: web.Request, _account: Account, _body: Json, number: str) -> Answer:
        _only(request.query, ())
        pull = self._known(number)
        closer = {"login": pull.by} if pull.by else None
        return 200, {"number": pull.number, "state": _state(pull), "closed_by": closer}, {}

    def _comment(self, _request: web.Request, account: Account, body: Json, number: str) -> Answer:
        _require(account, "pulls")
        _fields(body, required=("body",))
        self._known(number).comments.append((account.name, body["body"]))
        return 201, {"id": 1, "body": body["body"]}, {}

    # --- how it is shown

    def _known(self, number: str) -> Pull:
        if int(number) not in self.pulls:
            raise _not_found()
        return self.refreshed(int(number))

    def _is_behind(self, pull: Pull) -> bool:
        tip = self.repository.head(pull.base) or ""
        return self.must_be_up_to_date and not self.repository.contains(pull.head, tip)

    def _simple(self, pull: Pull) -> Json:
        """As a list has it: nothing is said of whether it can be merged."""
        where = {"repo": {"full_name": self.name}}
        return {
            "number": pull.number,
            "html_url": f"https://github.com/{self.name}/pull/{pull.number}",
            "state": _state(pull),
            "title": pull.title,
            "body": pull.body,
            "user": {"login": pull.opened_by},
            "head": {"ref": pull.head, "sha": pull.head_sha, **where},
            "base": {"ref": pull.base, "sha": pull.base_sha, **where},
            "merged_at": _time(pull.at) if pull.state == "merged" else None,
            "closed_at": _time(pull.at) if pull.state != "open" else None,
            "merge_commit_sha": pull.merged_as or "0" * 40,
            "draft": False,
        }

    def _full(self, pull: Pull) -> Json:
        mergeable, state = None, "unknown"
        if pull.state == "open" and pull.looks:
            tip = self.repository.head(pull.base) or ""
            mergeable = self.repository.can_merge(tip, pull.head_sha)
            is_blocked = pull.reviews < self.required_reviews
            state = "blocked" if is_blocked else "behind" if self._is_behind(pull) else "clean"
            state = state if mergeable else "dirty"
        merger = {"login": pull.by} if pull.state == "merged" and pull.by else None
        return {
            **self._simple(pull),
            "merged": pull.state == "merged",
            "mergeable": mergeable,
            "mergeable_state": state,
            "merged_by": merger,
        }


def _file(found: Difference) -> Json:
    """As the list of changed files has it; without a patch where no lines differ."""
    is_chmod = found.kind == "M" and found.modes[0] != found.modes[1]
    renamed = {"previous_filename": found.old} if found.kind == "R" else {}
    patch = {"patch": found.patch.rstrip("\n")} if found.patch else {}
    return {
        "filename": found.new,
        "status": "changed" if is_chmod else STATUS[found.kind],
        **renamed,
        **patch,
    }


def _state(pull: Pull) -> str:
    """GitHub has two states; what was merged is closed."""
    return "open" if pull.state == "open" else "closed"


def _time(at: datetime | None) -> str | None:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else None


def _problem(message: str) -> Json:
    return {"message": message, "documentation_url": DOCS}


def _custom(message: str) -> Json:
    return {"resource": "PullRequest", "code": "custom", "message": message}


def _failed(error: Json) -> Refusal:
    return Refusal(422, {**_problem("Validation Failed"), "errors": [error]})


def _invalid(words: str) -> Refusal:
    return Refusal(422, _problem(f"Invalid request.\n\n{words}."))


def _not_found() -> Refusal:
    return Refusal(404, _problem("Not Found"))


def _require(account: Account, scope: str) -> None:
    if scope not in account.scopes:
        raise Refusal(403, _problem("Resource not accessible by integration"))


def _only(query: Mapping[str, str], known: tuple[str, ...]) -> None:
    """The real one ignores what it does not know; a call that relies on it is a mistake of ours."""
    for name in query:
        if name not in known:
            raise _invalid(f'"{name}" is not a permitted key')


def _fields(body: Json, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> None:
    for name in required:
        if not body.get(name):
            raise _invalid(f'"{name}" wasn\'t supplied')
    for name in body:
        if name not in (*required, *optional):
            raise _invalid(f'"{name}" is not a permitted key')
