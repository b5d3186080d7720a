"""Commits to a git host over HTTP that refuses, hangs, cuts the line, talks nonsense, or sends us elsewhere."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from git_bench import BOT, answering, commits, edit_of, is_quiet
from git_hosts import VALUES, HttpHost, Remote, http_host
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.catalog import Target
from bot.core.errors import Failed, PromoteError, Unavailable
from bot.integrations.gitops import Credential, GitRepository

TOKEN = "glpat-0n1y-f0r-th1s-h0st"
BASIC = b64encode(f"bot:{TOKEN}".encode()).decode()

ADVERTISEMENT_OF_FETCH = "info/refs?service=git-upload-pack"
FETCH = "/git-upload-pack"
ADVERTISEMENT_OF_PUSH = "info/refs?service=git-receive-pack"
PUSH = "/git-receive-pack"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
def host(remote: Remote) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent, token=TOKEN) as made:
        yield made


@pytest.fixture
def target(remote: Remote, host: HttpHost) -> Target:
    return remote.target(host.url())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def online(cache: Path) -> AsyncIterator[GitRepository]:
    async with aclosing(over_http(cache)) as made:
        yield made


def over_http(cache: Path, *, timeout: float = 10) -> GitRepository:
    return GitRepository(
        cache=cache,
        committer=BOT,
        credentials={"gitops": Credential(username="bot", token=TOKEN)},
        allow_local=frozenset({"gitops"}),
        timeout=timeout,
    )


@pytest.mark.parametrize("seconds", [0, 1.5])
async def test_a_protected_branch_speaks_in_its_own_words(
    cache: Path, target: Target, remote: Remote, seconds: float
) -> None:
    """However long the hook takes within the limit, its words are the reason, and nothing has moved."""
    remote.hook(f"sleep {seconds}\necho 'GH006: main needs a review.' >&2\nexit 1")
    async with aclosing(over_http(cache, timeout=5)) as repository:
        with pytest.raises(Failed, match=r"refused the push to main: GH006: main needs a review \("):
            await repository.commit(edit_of(target, remote.first))
        assert (remote.tip, remote.text()) == (remote.first, VALUES)


async def test_a_hook_that_refuses_too_late_leaves_nothing_to_find(
    cache: Path, target: Target, remote: Remote
) -> None:
    """Whoever gave up waiting asks the branch, and hears the hook's words at the next try."""
    gate = remote.folder / "gate"
    remote.hook(f"until test -e {gate}; do sleep 0.1; done\necho 'GH006: main needs a review.' >&2\nexit 1")
    edit = edit_of(target, remote.first)
    async with aclosing(over_http(cache, timeout=2)) as repository:
        with pytest.raises(Unavailable) as error:
            await repository.commit(edit)
        assert error.value.maybe_done
        gate.touch()
        assert await repository.find(edit) is None
        with pytest.raises(Failed, match="GH006"):
            await repository.commit(edit)
        assert remote.tip == remote.first


@pytest.mark.parametrize(
    ("silent_on", "maybe_done"),
    [(ADVERTISEMENT_OF_FETCH, False), (FETCH, False), (ADVERTISEMENT_OF_PUSH, False), (PUSH, True)],
)
async def test_after_silence_at_any_request_the_edit_is_carried_out_once(
    cache: Path, host: HttpHost, target: Target, remote: Remote, silent_on: str, maybe_done: bool
) -> None:
    """It ends in time, without a process, and says whether a push was under way; then all goes on as planned."""
    async with aclosing(over_http(cache, timeout=2)) as repository:
        await repository.plan(target, "v15")
        remote.push({"README.md": "so that there is something to fetch\n"})
        edit = edit_of(target, remote.first)
        host.silent_on = silent_on
        began_at = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await repository.commit(edit)
        assert time.monotonic() - began_at < 10
        assert host.reached.is_set()
        assert error.value.maybe_done is maybe_done
        assert is_quiet(cache)
        host.silent_on = None
        assert await repository.find(edit) is None
        assert await repository.commit(edit) == remote.tip
        assert commits(remote) == 3


@pytest.mark.parametrize("others_push", [False, True])
async def test_a_push_whose_answer_is_lost_is_found_and_not_made_again(
    online: GitRepository, host: HttpHost, target: Target, remote: Remote, others_push: bool
) -> None:
    """The line is cut after the branch moved: the commit that is there is the one, whoever pushes after it."""
    edit = edit_of(target, remote.first)
    host.cut_on = PUSH
    with pytest.raises(Unavailable) as error:
        await online.commit(edit)
    assert error.value.maybe_done
    host.cut_on = None
    revision = remote.tip
    assert remote.git("rev-parse", f"{revision}^") == remote.first
    if others_push:
        remote.push({"README.md": "new\n"})
    tip = remote.tip
    assert await online.find(edit) == revision
    assert await online.commit(edit) == revision
    assert remote.tip == tip


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_is_heard_once(
    online: GitRepository, host: HttpHost, target: Target, remote: Remote, status: int
) -> None:
    """Asking again would not help, and locks accounts: one request, and the promotion has failed."""
    await online.plan(target, "v15")
    host.answer = (status, b"no")
    for attempt in (
        lambda: online.plan(target, "v15"),
        lambda: online.commit(edit_of(target, remote.first)),
    ):
        host.requests.clear()
        with pytest.raises(Failed, match="refuses us the repository gitops"):
            await attempt()
        assert len(host.requests) == 1
    assert remote.tip == remote.first


async def test_a_branch_that_is_rewound_during_the_push_is_reported_and_never_healed(
    online: GitRepository, target: Target, remote: Remote
) -> None:
    """What somebody takes away between our look and our push stays away."""
    leaked = remote.push({"README.md": "a password\n"})
    plan = await online.plan(target, "v15")
    rewind = f"git update-ref refs/heads/main {remote.first} {leaked}"
    remote.hook(f"unset GIT_QUARANTINE_PATH\ntest -e rewound && exit\ntouch rewound\n{rewind}")
    with pytest.raises(Failed, match="was rewound; nothing was pushed"):
        await online.commit(edit_of(target, plan.base))
    assert remote.tip == remote.first
    revision = await online.commit(edit_of(target, plan.base, promotion="P-9876543210"))
    assert remote.git("rev-list", "main").split() == [revision, remote.first]


@pytest.mark.parametrize("status", [301, 302, 307])
@pytest.mark.parametrize("where", [ADVERTISEMENT_OF_FETCH, ADVERTISEMENT_OF_PUSH, PUSH])
async def test_nothing_is_sent_to_where_a_redirect_points(
    online: GitRepository,
    host: HttpHost,
    target: Target,
    remote: Remote,
    tmp_path: Path,
    where: str,
    status: int,
) -> None:
    """Whoever can make a host redirect must not receive the token, nor the commit."""
    await online.plan(target, "v15")
    remote.push({"README.md": "so that the tip has to be fetched\n"})
    with http_host(tmp_path) as elsewhere:
        there = f"http://localhost:{elsewhere.server_port}/remote.git/{where.lstrip('/')}"
        with (
            answering(host, where, status, headers={"Location": there}) as heard,
            pytest.raises(Unavailable, match="another address"),
        ):
            await online.commit(edit_of(target, remote.first))
        assert f"Basic {BASIC}" in heard[0]
        assert elsewhere.requests == []
    assert commits(remote) == 2


@pytest.mark.parametrize("body", [b"", b"Please log in", b"<html>\n<title>Log in</title>\n</html>\n"])
async def test_a_page_that_is_not_git_s_is_no_verdict_on_the_branch(
    online: GitRepository, host: HttpHost, target: Target, body: bytes
) -> None:
    """A proxy's page, even an empty one, does not say that there is no such branch: asking again may help."""
    headers = {"Content-Type": "text/html"}
    with answering(host, ADVERTISEMENT_OF_FETCH, 200, headers=headers, body=body), pytest.raises(Unavailable):
        await online.plan(target, "v15")


PIECES = [
    b"001e# service=git-upload-pack\n",
    b"001f# service=git-receive-pack\n",
    b"000eversion 2\n",
    b"000eunpack ok\n",
    b"0019ok refs/heads/main\n",
    b"0000",
    b"0001",
    b"ffff",
    b"PACK\0\0\0\2",
    b"<html><title>Log in</title></html>\n",
    b"\x1b[31mred\x1b[0m\r\n",
    b"0032" + b"a" * 40 + b" HEAD\n",
]


@pytest.mark.parametrize("where", [ADVERTISEMENT_OF_FETCH, FETCH, ADVERTISEMENT_OF_PUSH, PUSH])
def test_garbage_is_no_answer(where: str) -> None:
    """Whatever a proxy or a broken host says instead of git: no commit is claimed, none is made twice."""

    @settings(max_examples=5, deadline=None)
    @given(
        body=st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=6).map(b"".join),
        is_git_s_type=st.booleans(),
    )
    def holds(body: bytes, is_git_s_type: bool) -> None:
        with TemporaryDirectory() as folder:
            asyncio.run(_after_garbage(Path(folder), where, body, is_git_s_type=is_git_s_type))

    holds()


async def _after_garbage(folder: Path, where: str, body: bytes, *, is_git_s_type: bool) -> None:
    remote = Remote(folder / "remote.git")
    kind = where.rpartition("=")[2].strip("/") + ("-advertisement" if "info" in where else "-result")
    headers = {"Content-Type": f"application/x-{kind}" if is_git_s_type else "text/html"}
    with http_host(folder, token=TOKEN) as host:
        edit = edit_of(remote.target(host.url()), remote.first)
        async with aclosing(over_http(folder / "cache", timeout=2)) as repository:
            await repository.plan(edit.target, "v15")
            remote.push({"README.md": "so that there is something to fetch\n"})
            with (
                answering(host, where, 200, headers=headers, body=body),
                pytest.raises(PromoteError) as error,
            ):
                await repository.commit(edit)
            assert str(error.value).isprintable()
            assert commits(remote) == 2
            assert await repository.find(edit) is None
            assert await repository.commit(edit) == remote.tip
            assert commits(remote) == 3


class ShortLived:
    """Tokens that follow one another; only the last one is any good."""

    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens)
        self.handed_out = 0

    def current(self) -> str:
        self.handed_out += 1
        return self.left[0]

    def forget(self) -> None:
        if len(self.left) > 1:
            del self.left[0]


async def test_a_token_that_has_run_out_is_renewed_once(cache: Path, target: Target, remote: Remote) -> None:
    """The refused command is run again with a new token; where that one is refused too, it is told."""
    tokens = ShortLived("gone", TOKEN)
    repository = GitRepository(
        cache=cache,
        committer=BOT,
        credentials={"gitops": Credential(username="bot", token=tokens)},
        allow_local=frozenset({"gitops"}),
        timeout=10,
    )
    async with aclosing(repository):
        await repository.plan(target, "v15")
        tokens.left = ["gone too", TOKEN]
        assert await repository.commit(edit_of(target, remote.first)) == remote.tip
        tokens.left, tokens.handed_out = ["gone for good"], 0
        with pytest.raises(Failed, match="refuses us the repository gitops"):
            await repository.plan(target, "v16")
        assert tokens.handed_out == 2
    assert TOKEN not in repr(Credential(token=tokens))
