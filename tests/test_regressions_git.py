"""Faults of the git writer that a hostile review proved: none of them comes back."""

import asyncio
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from git_bench import BOT, commits, edit_of, processes
from git_hosts import ROOM, HttpHost, Remote, http_host

from bot.core.catalog import Target
from bot.core.errors import Failed, Stale, Unavailable
from bot.core.ports import Edit
from bot.integrations import mirror
from bot.integrations.cleanroom import CleanRoom, Output
from bot.integrations.gitops import Credential, GitRepository
from bot.integrations.mirror import Mirror
from bot.integrations.objects import Objects
from bot.integrations.verdicts import Damaged, Declined, check_race

APPS = [f"app-{number:02}" for number in range(16)]
MANY_EDITS = 60
TOKEN = "glpat-a-token-of-the-tests"
SPAM = 100_000_000
MOST_MEMORY = 50_000
"""Kilobytes that a process may grow by while a host talks without end."""
MOST_WORDS = 1000
FEW_REQUESTS = 6
SECONDS = 10

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote(tmp_path / "remote.git")
    made.push({path_of(app): "tag: v14\n" for app in APPS})
    return made


@pytest.fixture
def host(remote: Remote) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def repository(cache: Path) -> AsyncIterator[GitRepository]:
    async with aclosing(open_repository(cache)) as made:
        yield made


def open_repository(cache: Path, **different: Any) -> GitRepository:
    return GitRepository(
        cache=cache, committer=BOT, allow_local=frozenset({"gitops"}), timeout=SECONDS, **different
    )


def path_of(app: str) -> str:
    return f"apps/{app}/values.yaml"


def target_of(remote: Remote, app: str = APPS[0], url: str | None = None) -> Target:
    return replace(remote.target(url, keys=("tag",)), app=app, path=path_of(app))


def edits_of(remote: Remote, count: int, url: str | None = None) -> list[Edit]:
    """One promotion of each of the first `count` apps."""
    targets = [target_of(remote, app, url) for app in APPS[:count]]
    return [edit_of(target, remote.tip, promotion=f"P-{number:010}") for number, target in enumerate(targets)]


def pushes(host: HttpHost) -> int:
    return sum(request.startswith("POST") and "git-receive-pack" in request for request in host.requests)


def minding(path: str) -> str:
    """A hook that counts every push, and declines the ones that touch a file."""
    return (
        "echo x >>pushes\nread old new ref\n"
        f"git diff --name-only $old $new | grep -q {path} || exit 0\necho 'It is frozen!' >&2\nexit 1"
    )


def counted(remote: Remote) -> int:
    """How many pushes the hook has seen."""
    return len((remote.folder / "pushes").read_text().split())


async def tell_all(repository: GitRepository, edits: list[Edit]) -> list[str | BaseException]:
    """Ask for all of them at once; the revision of each, or why it has none."""
    return await asyncio.gather(*(repository.commit(edit) for edit in edits), return_exceptions=True)


@contextmanager
def before_request(host: HttpHost, where: str, number: int, act: Callable[[], None]) -> Iterator[None]:
    """Within the block, something happens before the so-and-so-many-th request whose address holds `where`."""
    plain = host.RequestHandlerClass
    seen: list[str] = []

    class Watched(plain):  # type: ignore[misc, valid-type]
        def serve(self, body: bytes) -> None:
            if where in self.path:
                seen.append(self.path)
                if len(seen) == number:
                    act()
            super().serve(body)

    host.RequestHandlerClass = Watched
    yield
    host.RequestHandlerClass = plain


@contextmanager
def cut_after(host: HttpHost, words: bytes) -> Iterator[None]:
    """Within the block, an answer ends right after the line that holds `words`, and so does the connection."""
    plain = host.RequestHandlerClass

    class Cutting(plain):  # type: ignore[misc, valid-type]
        def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
            if words not in content:
                super().reply(status, headers, content)
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: content.index(words) + len(words) + 1])
            self.close_connection = True

    host.RequestHandlerClass = Cutting
    yield
    host.RequestHandlerClass = plain


# --- the copy, and what lies around it


def files_in(folder: Path) -> dict[Path, bytes]:
    return {found: found.read_bytes() for found in folder.rglob("*") if found.is_file()}


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@acme.example")
    subprocess.run(["git", *who, *arguments], cwd=folder, env=ROOM, check=True)


@pytest.mark.parametrize("lost", ["HEAD", "objects", "refs"])
async def test_a_damaged_copy_never_lets_git_find_the_repository_around_it(
    tmp_path: Path, remote: Remote, lost: str
) -> None:
    """The cache may lie in somebody's work tree: nothing in its repository changes, and the commit lands."""
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q", "-b", "main")
    git(project, "commit", "-q", "--allow-empty", "-m", "My own work")
    git(project, "checkout", "-q", "-b", "feature")
    before = files_in(project / ".git")
    [edit] = edits_of(remote, 1)
    async with aclosing(open_repository(project / "data")) as repository:
        await repository.plan(edit.target, "v15")
        place = copy_in(project / "data") / lost
        place.unlink() if place.is_file() else shutil.rmtree(place)
        await repository.plan(edit.target, "v15")
        assert await repository.commit(edit) == remote.tip
    assert files_in(project / ".git") == before


def copy_in(cache: Path) -> Path:
    [found] = cache.glob("gitops-*.0")
    return found


def delete_copy(cache: Path) -> None:
    shutil.rmtree(copy_in(cache))


def delete_cache(cache: Path) -> None:
    shutil.rmtree(cache)


def put_file_in_its_place(cache: Path) -> None:
    copy = copy_in(cache)
    shutil.rmtree(copy)
    copy.write_text("not a folder")


async def plan(repository: GitRepository, edit: Edit) -> None:
    assert (await repository.plan(edit.target, "v15")).old_version == "v14"


async def find(repository: GitRepository, edit: Edit) -> None:
    assert await repository.find(edit) is None


async def current(repository: GitRepository, edit: Edit) -> None:
    assert (await repository.current(edit.target)).version == "v14"


async def commit(repository: GitRepository, edit: Edit) -> None:
    assert await repository.commit(edit)


async def keep_fresh(repository: GitRepository, edit: Edit) -> None:
    """Until the copy is there again."""
    fresh = asyncio.ensure_future(repository.keep_fresh([edit.target.repository], every=0.01))
    async with asyncio.timeout(SECONDS):
        while not list(repository._cache.glob("gitops-*.0/refs/heads/main")):
            await asyncio.sleep(0)
    fresh.cancel()
    await asyncio.wait([fresh])


@pytest.mark.parametrize("use", [plan, find, current, commit, keep_fresh])
@pytest.mark.parametrize("loss", [delete_copy, delete_cache, put_file_in_its_place])
async def test_a_copy_that_is_deleted_under_a_running_bot_comes_back(
    repository: GitRepository,
    cache: Path,
    remote: Remote,
    loss: Callable[[Path], None],
    use: Callable[[GitRepository, Edit], Awaitable[None]],
) -> None:
    """Whatever comes next makes it anew, and still no other process works in it."""
    edit, later = edits_of(remote, 2)
    await repository.plan(edit.target, "v15")
    loss(cache)
    await use(repository, edit)
    assert await repository.commit(later) == remote.tip
    async with aclosing(open_repository(cache)) as neighbour:
        await neighbour.plan(edit.target, "v15")
        assert {found.name[-2:] for found in cache.glob("gitops-*.[0-9]")} == {".0", ".1"}


async def test_a_file_in_the_place_of_the_copy_leaves_nothing_in_the_way(
    repository: GitRepository, cache: Path, remote: Remote
) -> None:
    """What was put aside is gone, so that the next damage heals too."""
    first, second = edits_of(remote, 2)
    await repository.plan(first.target, "v15")
    put_file_in_its_place(cache)
    assert await repository.commit(first) == remote.tip
    (copy_in(cache) / "config").write_text("[[[")
    assert await repository.commit(second) == remote.tip


def delete_locks(cache: Path) -> None:
    for lock in cache.glob("*.lock"):
        lock.unlink()


@pytest.mark.parametrize("loss", [delete_cache, delete_locks])
async def test_who_lost_the_lock_gives_way_to_the_neighbour_who_has_it(
    repository: GitRepository, cache: Path, remote: Remote, loss: Callable[[Path], None]
) -> None:
    """A neighbour comes between the loss and our next use: each has a copy of its own all the same."""
    first, second = edits_of(remote, 2)
    await repository.plan(first.target, "v15")
    loss(cache)
    async with aclosing(open_repository(cache)) as neighbour:
        await neighbour.plan(first.target, "v15")
        assert await repository.commit(first) == remote.tip
        assert await neighbour.commit(second) == remote.tip
        assert {found.name[-2:] for found in cache.glob("gitops-*.[0-9]")} == {".0", ".1"}


# --- what a push was told


@pytest.mark.parametrize("hook", ["pre-receive", "post-receive"])
@pytest.mark.parametrize("words", ["ticket not found, ignored", "unable to access the tracker"])
async def test_a_hook_s_words_never_turn_a_lost_answer_into_a_refusal(
    repository: GitRepository, remote: Remote, host: HttpHost, hook: str, words: str
) -> None:
    """The branch has moved when the line is cut: that stays open, and the commit is found."""
    remote.hook(f"echo '{words}' >&2")
    (remote.folder / "hooks/pre-receive").rename(remote.folder / "hooks" / hook)
    [edit] = edits_of(remote, 1, host.url())
    await repository.plan(edit.target, "v15")
    with cut_after(host, words.encode()), pytest.raises(Unavailable) as error:
        await repository.commit(edit)
    assert words in str(error.value)
    assert error.value.maybe_done
    assert remote.text(edit.target.path) == "tag: v15\n"
    assert await repository.find(edit) == remote.tip


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_part_that_was_pushed_keeps_its_revision_whatever_follows(
    repository: GitRepository, cache: Path, remote: Remote, host: HttpHost, is_damaged: bool
) -> None:
    """A batch is split, its first part lands, and then the host refuses all: only the others hear of that."""
    remote.hook(minding(path_of(APPS[1])))
    edits = edits_of(remote, 3, host.url())
    await repository.plan(edits[0].target, "v15")

    def refuse() -> None:
        host.answer = (403, b"no")

    def lose_objects() -> None:
        shutil.rmtree(copy_in(cache) / "objects/pack")

    at_third_push = lose_objects if is_damaged else refuse
    with (
        before_request(host, "service=git-receive-pack", 3, at_third_push),
        before_request(host, "service=git-upload-pack", 1, refuse),
    ):
        first, *others = await tell_all(repository, edits)
    assert first == remote.tip
    assert remote.text(edits[0].target.path) == "tag: v15\n"
    for other in others:
        assert isinstance(other, Unavailable if is_damaged else Failed)
        assert "403" in str(other)


async def test_one_declined_commit_of_many_costs_few_pushes(
    repository: GitRepository, remote: Remote
) -> None:
    """Halves are tried: fifteen of sixteen land, and the one is found in a few steps."""
    remote.hook(minding(path_of(APPS[5])))
    told = await tell_all(repository, edits_of(remote, len(APPS)))
    assert isinstance(told.pop(5), Declined)
    assert all(isinstance(each, str) for each in told)
    assert commits(remote) == 2 + len(told)
    assert counted(remote) <= 10


async def test_a_frozen_branch_costs_at_most_two_pushes_an_edit(
    repository: GitRepository, remote: Remote
) -> None:
    """Each hears the hook's words, and nobody is asked without end."""
    remote.hook(minding("."))
    told = await tell_all(repository, edits_of(remote, len(APPS)))
    assert all(isinstance(each, Declined) and "It is frozen!" in str(each) for each in told)
    assert counted(remote) <= 2 * len(APPS)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_revoked_token_is_not_tried_once_for_each_edit(
    cache: Path, remote: Remote, status: int
) -> None:
    """Whoever is let in nowhere hears it once, and so does everybody who waited with them."""
    apps = [f"many-{number:02}" for number in range(MANY_EDITS)]
    remote.push({path_of(app): "tag: v14\n" for app in apps})
    credentials = {"gitops": Credential(username="bot", token=TOKEN)}
    with http_host(remote.folder.parent, token=TOKEN) as host:
        targets = [target_of(remote, app, host.url()) for app in apps]
        edits = [edit_of(each, "", promotion=f"P-{number:010}") for number, each in enumerate(targets)]
        async with aclosing(open_repository(cache, credentials=credentials)) as repository:
            await repository.plan(targets[0], "v15")
            host.requests.clear()
            if status == 401:
                host.authorization = "Basic another"
            else:
                host.answer = (status, b"no")
            told = await tell_all(repository, edits)
    assert all(isinstance(each, Failed) and not isinstance(each, Declined) for each in told)
    assert len(host.requests) <= FEW_REQUESTS


async def test_a_host_that_is_stuck_is_not_taken_for_a_busy_one(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> None:
    """It cannot lock its branch, and nobody pushes: after three tries that is said."""
    (remote.folder / "refs/heads/main.lock").touch()
    with pytest.raises(Unavailable, match="it says that others push, but none do; nothing was pushed yet"):
        await repository.commit(edits_of(remote, 1, host.url())[0])
    assert pushes(host) == 3


DECLINED = "[remote rejected] (pre-receive hook declined)"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (DECLINED, "remote: GitLab: Internal API unreachable"),
        (DECLINED, "remote: GitLab: 500 Internal Server Error"),
        (DECLINED, "remote: Gitea: Internal Server Error\nremote: Unable to contact gitea"),
        (DECLINED, "remote: GitLab: 502 Bad Gateway"),
        (DECLINED, "remote: GitLab: The repository is temporarily read-only. Please try again later."),
        (DECLINED, "remote: error: execution exceeded 5s timeout"),
        ("[remote rejected] (failure)", "remote: fatal error in commit_refs"),
        ("[remote rejected] (fatal error in commit_refs)", ""),
        ("[remote rejected] (transaction aborted)", ""),
        (
            "",
            "fatal: remote error: down for maintenance\nfatal: unable to access 'https://h/x/': returned error: 403",
        ),
        (
            "",
            "remote: API rate limit exceeded.\nfatal: unable to access 'https://h/x/': The requested URL returned error: 403",
        ),
    ],
)
def test_a_host_in_trouble_refuses_nothing(remote: Remote, reason: str, said: str) -> None:
    """Another try may help, so the promotion does not end."""
    with pytest.raises(Unavailable):
        check_race(answer(reason, said), remote.target().repository)


@pytest.mark.parametrize(
    "words",
    [
        "main is temporarily frozen",
        "Internal policy 500: no pushes on Fridays",
        "rate limited to 3 a day",
        "GL-HOOK-ERR: no",
    ],
)
def test_a_rule_of_the_people_is_a_refusal(remote: Remote, words: str) -> None:
    """Words that only sound like trouble end the promotion, and are repeated."""
    with pytest.raises(Declined, match=words):
        check_race(answer(DECLINED, f"remote: {words}"), remote.target().repository)


@pytest.mark.parametrize(
    "reason",
    [
        "failed to lock",
        "lock failure",
        "TF401028: The reference refs/heads/main has already been updated by another client. Please try again.",
    ],
)
def test_every_host_s_word_for_a_lost_race_is_known(remote: Remote, reason: str) -> None:
    """JGit and Azure DevOps name it in words of their own: it is tried again."""
    check_race(answer(f"[remote rejected] ({reason})"), remote.target().repository)


def answer(reason: str, said: str = "") -> Output:
    line = f"!\t1234:refs/heads/main\t{reason}\n" if reason else ""
    return Output(code=1, out=f"To https://h/x\n{line}", err=said)


# --- closing


async def under_way(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> tuple["asyncio.Task[str]", "asyncio.Task[str]"]:
    """A commit whose push the host holds, and one that waits for the next push."""
    first, second = edits_of(remote, 2, host.url())
    await repository.plan(first.target, "v15")
    host.hold_on = "receive-pack"
    pushing = asyncio.create_task(repository.commit(first))
    await asyncio.to_thread(host.reached.wait, 5)
    waiting = asyncio.create_task(repository.commit(second))
    await asyncio.sleep(0)
    return pushing, waiting


async def test_closing_that_is_cut_short_leaves_nobody_waiting(
    repository: GitRepository, cache: Path, remote: Remote, host: HttpHost
) -> None:
    """The push goes on: its caller hears the revision, the others that the bot is shutting down.

    Who closes again waits for the rest of it, and leaves no process behind.
    """
    pushing, waiting = await under_way(repository, remote, host)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(repository.aclose(), 0.01)
    host.released.set()
    await asyncio.wait([pushing, waiting], timeout=SECONDS)
    assert pushing.result() == remote.tip
    assert "shutting down" in str(waiting.exception())
    await repository.aclose()
    assert processes(cache) == {}


async def test_a_writer_that_is_cancelled_leaves_nobody_waiting(
    repository: GitRepository, cache: Path, remote: Remote, host: HttpHost
) -> None:
    """The end of the loop cancels every task: each caller is told, and the bot still closes in order."""
    pushing, waiting = await under_way(repository, remote, host)
    _, writer = repository._branch(target_of(remote, url=host.url()).repository)
    assert writer._work is not None
    writer._work.cancel()
    await asyncio.wait([pushing, waiting], timeout=SECONDS)
    assert [type(each.exception()) for each in (pushing, waiting)] == [Unavailable, Unavailable]
    host.released.set()
    await repository.aclose()
    assert processes(cache) == {}


# --- a rewound branch


async def see_by_plan(repository: GitRepository, target: Target, rewound: str) -> None:
    neighbour = replace(target, app=APPS[1], path=path_of(APPS[1]))
    assert (await repository.plan(neighbour, "v15")).base == rewound


async def see_by_itself(repository: GitRepository, target: Target, rewound: str) -> None:
    fresh = asyncio.ensure_future(repository.keep_fresh([target.repository], every=0.01))
    async with asyncio.timeout(SECONDS):
        while (await repository.plan(target, "v15", fresh=False)).base != rewound:
            await asyncio.sleep(0)
    fresh.cancel()
    await asyncio.wait([fresh])


@pytest.mark.parametrize("see", [see_by_plan, see_by_itself])
async def test_a_rewind_that_was_seen_in_passing_is_told_by_the_next_commit(
    repository: GitRepository,
    remote: Remote,
    host: HttpHost,
    see: Callable[[GitRepository, Target, str], Awaitable[None]],
) -> None:
    """Somebody took a commit away: the next promotion is refused once, whoever noticed it first."""
    rewound = remote.tip
    remote.push({"README.md": "a secret\n"})
    [edit] = edits_of(remote, 1, host.url())
    await repository.plan(edit.target, "v15")
    remote.git("update-ref", "refs/heads/main", rewound)
    await see(repository, edit.target, rewound)
    with pytest.raises(Failed, match="was rewound; nothing was pushed"):
        await repository.commit(edit)
    assert (remote.tip, pushes(host)) == (rewound, 0)
    assert await repository.commit(edit) == remote.tip


# --- what the copy is asked


@pytest.mark.parametrize(
    ("text", "keys", "digests"),
    [
        ("image:\n  tag: v15\n  digest: {new}\nfull: v15@{old}\n", ("image.tag", "full"), ("image.digest", "full")),
        ("a: v15@{new}\nb: v15@{old}\n", ("a", "b"), ("a", "b")),
    ],
)  # fmt: skip
async def test_an_old_digest_at_a_second_key_is_still_to_be_changed(
    repository: GitRepository, remote: Remote, text: str, keys: tuple[str, ...], digests: tuple[str, ...]
) -> None:
    """What decides which image runs is not done where one of its places is old."""
    old, new = ("sha256:" + digit * 64 for digit in "01")
    remote.push({path_of(APPS[0]): text.format(old=old, new=new)})
    plan = await repository.plan(replace(target_of(remote), keys=keys, digests=digests), "v15", digest=new)
    assert not plan.is_done
    assert [change.after.partition("@")[2] for change in plan.changes] == [new]


@pytest.mark.parametrize("date", ["99999999999999 +0000", "-5 +0000", "yesterday"])
async def test_a_date_that_no_calendar_knows_stops_nobody(
    repository: GitRepository, remote: Remote, date: str
) -> None:
    """Anybody can push a commit with such a date: its file is still planned, and its push may be unknown."""
    target = target_of(remote)
    remote.push({target.path: "tag: v16\n"})
    head, _, message = remote.git("cat-file", "commit", "main").partition("\n\n")
    lines = [line for line in head.splitlines() if not line.startswith("committer ")]
    raw = "\n".join([*lines, f"committer Ann <ann@acme.example> {date}", "", message, ""])
    odd = remote.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw)
    remote.git("update-ref", "refs/heads/main", odd)
    assert (await repository.plan(target, "v17")).base == odd
    push = await repository.last_push(target)
    assert push is None or push.revision == odd


async def test_a_path_is_no_pattern(repository: GitRepository, remote: Remote) -> None:
    """Square brackets in a folder's name stand for themselves."""
    ours = remote.push({"apps/[x]/v.yaml": "tag: v14\n", "apps/x/v.yaml": "tag: v14\n"})
    remote.push({"apps/x/v.yaml": "tag: v15\n"}, who="Ben <ben@acme.example>")
    push = await repository.last_push(replace(target_of(remote), path="apps/[x]/v.yaml"))
    assert push is not None
    assert push.revision == ours


# --- the disk


@pytest.fixture
def room(remote: Remote, cache: Path) -> CleanRoom:
    return CleanRoom(
        url=f"file://{remote.folder}",
        home=cache / "home",
        credential=None,
        is_local=True,
        proxies={},
        ca_bundle=None,
        timeout=SECONDS,
    )


@pytest.fixture
def copy(remote: Remote, cache: Path, room: CleanRoom) -> Iterator[Mirror]:
    made = Mirror(repository=remote.target().repository, cache=cache, room=room)
    made.open()
    yield made
    made.close()


def packs_in(cache: Path) -> list[Path]:
    return sorted((copy_in(cache) / "objects/pack").glob("*.idx"))


def test_what_others_push_gathers_in_packs_that_are_put_together(
    copy: Mirror, cache: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loose objects would be left behind by every fetch, and nobody would ever pack them."""
    monkeypatch.setattr(mirror, "MANY_PACKS", 10)
    for number in range(12):
        remote.push({"README.md": f"{number}\n"})
        copy.fetch(since=time.monotonic())
    assert list(copy_in(cache).glob("objects/??/*")) == []
    assert len(packs_in(cache)) > 10
    copy.tidy()
    assert len(packs_in(cache)) < 10
    assert copy.blob(copy.tip, "README.md") == b"11\n"


def test_what_was_broken_off_is_cleared_up(copy: Mirror, cache: Path) -> None:
    """A killed fetch, or a push that died half way, leaves nothing for ever; what is whole stays."""
    folder = copy_in(cache) / "objects/pack"
    before = sorted(folder.iterdir())
    for name in ("tmp_pack_a1b2c3", "tmp_idx_a1b2c3", "pack-1234.new", "pack-1234.pack"):
        (folder / name).write_bytes(b"half")
    copy.tidy()
    assert sorted(folder.iterdir()) == before


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block no file of this process can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room_for", [20, 500])
def test_a_full_disk_leaves_no_half_written_pack(
    copy: Mirror, cache: Path, room: CleanRoom, room_for: int
) -> None:
    """The pack itself does not fit, or only its index: each try would leave one more behind."""
    folder = copy_in(cache)
    before = sorted((folder / "objects/pack").iterdir())
    objects = Objects(folder, room, owner="gitops")
    object_id = objects.add("blob", b"tag: v15\n")
    with pytest.raises(Damaged, match="File too large"), largest_file(room_for):
        objects.save()
    assert sorted((folder / "objects/pack").iterdir()) == before
    objects.save()
    assert len(list((folder / "objects/pack").iterdir())) == len(before) + 2
    assert objects.find(object_id) == ("blob", b"tag: v15\n")
    objects.close()
    copy.tidy()


# --- a host without manners, and an old git


def test_a_hook_that_talks_without_end_fills_no_memory(tmp_path: Path, remote: Remote) -> None:
    """A hundred megabytes of complaints: the refusal is told in time, in short, from little memory."""
    remote.hook(f"yes '{'spam ' * 200}' | head -c {SPAM} >&2\nexit 1")
    (tmp_path / "edit").write_bytes(pickle.dumps(edits_of(remote, 1)[0]))
    done = subprocess.run(
        [sys.executable, __file__, tmp_path / "edit", tmp_path / "cache"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    kind, words, seconds, grown = json.loads(done.stdout)
    assert kind == "Declined"
    assert "spam spam" in words
    assert len(words) < MOST_WORDS
    assert seconds < SECONDS
    assert grown < MOST_MEMORY


async def refusal(edit: Edit, cache: Path) -> tuple[str, str, float, int]:
    """How a commit was refused: kind, words, seconds, and kilobytes that this process has grown by."""
    async with aclosing(open_repository(cache)) as repository:
        await repository.plan(edit.target, edit.new)
        before, began_at = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            await repository.commit(edit)
        except (Failed, Stale, Unavailable) as error:
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return type(error).__name__, str(error), time.monotonic() - began_at, after - before
    raise RuntimeError("nobody refused it")


@pytest.mark.parametrize("use", ["plan", "current", "last_push", "probe", "find", "commit"])
async def test_a_git_that_is_too_old_is_named_and_never_used(
    tmp_path: Path, cache: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """It would not heed our configuration: whatever is asked for, the answer is which git is needed."""
    [edit] = edits_of(remote, 1)
    arguments = {"plan": (edit.target, "v15"), "find": (edit,), "commit": (edit,)}.get(use, (edit.target,))
    log, old = tmp_path / "log", tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text(f'#!/bin/sh\necho "$@" >>{log}\necho git version 2.30.2\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    async with aclosing(open_repository(cache)) as repository:
        for _ in range(2):
            with pytest.raises(
                (Failed, Unavailable), match=r"git 2\.34 or newer is needed; this is: git version 2\.30\.2"
            ):
                await getattr(repository, use)(*arguments)
    assert set(log.read_text().splitlines()) == {"version"}


if __name__ == "__main__":
    told = asyncio.run(refusal(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])))
    print(json.dumps(told))  # noqa: T201 - the parent reads it
