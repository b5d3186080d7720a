"""The one writer of a branch: what waits goes out together, and no edit suffers for another."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import require
from git_hosts import HttpHost, Remote, http_host
from redis.asyncio import Redis

from bot.core.catalog import Target
from bot.core.errors import Failed, Stale, Unavailable
from bot.core.ports import Author, Edit
from bot.core.promotion import PromotionId
from bot.integrations import mirror, writer
from bot.integrations.gitops import GitRepository
from bot.integrations.signing import CommitSigner
from bot.integrations.store import RedisStore, connect

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BOT = Author(name="promote-bot", email="promote-bot@acme.example")
APPS = [f"app-{number}" for number in range(8)]
DIGEST = "sha256:" + "1a" * 32


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
async def stores(redis_url: str) -> AsyncIterator[list[RedisStore]]:
    async with AsyncExitStack() as stack:
        made = [RedisStore(connect(redis_url, quick=True)) for _ in range(2)]
        for store in made:
            stack.push_async_callback(store.aclose)
        yield made


@pytest.fixture
async def writers(stores: list[RedisStore]) -> AsyncIterator[list[GitRepository]]:  # noqa: ARG001 - closed before them
    """Whatever a test makes is closed at its end."""
    made: list[GitRepository] = []
    yield made
    await asyncio.gather(*(each.aclose() for each in made))


@pytest.fixture
def repository(writers: list[GitRepository], tmp_path: Path) -> GitRepository:
    return open_writer(writers, tmp_path)


def open_writer(writers: list[GitRepository], tmp_path: Path, **different: object) -> GitRepository:
    made = GitRepository(
        cache=tmp_path / "cache",
        committer=BOT,
        allow_local=frozenset({"gitops"}),
        timeout=10,
        **different,  # type: ignore[arg-type]
    )
    writers.append(made)
    return made


def path_of(app: str) -> str:
    return f"apps/{app}/values.yaml"


def target_of(remote: Remote, app: str, url: str | None = None) -> Target:
    return replace(remote.target(url, keys=("tag",)), app=app, path=path_of(app))


def edit_of(target: Target, *, old: str = "v14", new: str = "v15", number: int = 0) -> Edit:
    id = PromotionId(f"P-{target.app.replace('-', '')}{number:06}")
    trailers = f"Promotion-Id: {id}\nApp: {target.app}\nEnvironment: prod\nNew-Version: {new}"
    return Edit(
        target=target,
        promotion=id,
        old=old,
        new=new,
        message=f"Promote {target.app}\n\nAs asked for.\n\n{trailers}\n",
        author=Author(name="Ann", email="ann@acme.example"),
        at=AT,
        base="",
        since=AT,
    )


def pushes(host: HttpHost) -> int:
    return sum(
        request.startswith("POST") and request.endswith("git-receive-pack") for request in host.requests
    )


async def test_what_waits_goes_out_in_one_push(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> None:
    """Eight edits that wait together cost one push, and each has a commit of its own."""
    edits = [edit_of(target_of(remote, app, host.url())) for app in APPS]
    revisions = await asyncio.gather(*(repository.commit(edit) for edit in edits))
    assert pushes(host) == 1
    assert len(set(revisions)) == len(APPS)
    for edit, revision in zip(edits, revisions, strict=True):
        assert remote.git("diff", "--name-only", f"{revision}^", revision) == edit.target.path
        assert await repository.find(edit) == revision
        assert remote.text(edit.target.path) == "tag: v15\n"
    assert remote.git("fsck", "--strict") == ""


async def test_what_is_asked_for_during_a_push_waits_for_the_next_one(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> None:
    """While a push is under way edits collect; the next push takes them all."""
    first, *others = (edit_of(target_of(remote, app, host.url())) for app in APPS)
    await repository.plan(first.target, "v15")
    host.hold_on = "receive-pack"
    pushing = asyncio.ensure_future(repository.commit(first))
    await asyncio.to_thread(host.reached.wait, 5)
    waiting = [asyncio.ensure_future(repository.commit(edit)) for edit in others]
    await asyncio.sleep(0)
    host.hold_on = None
    host.released.set()
    await asyncio.gather(pushing, *waiting)
    assert pushes(host) == 2


@pytest.mark.parametrize(
    ("text", "error"),
    [("tag: v13\n", Stale), ("tag: [v14]\n", Failed), ("other: v14\n", Failed)],
)
async def test_a_bad_edit_is_refused_and_the_others_land(
    repository: GitRepository, remote: Remote, host: HttpHost, text: str, error: type[Exception]
) -> None:
    """One edit that cannot be made is told why; it costs the others nothing."""
    remote.push({path_of(APPS[3]): text})
    edits = [edit_of(target_of(remote, app, host.url())) for app in APPS]
    told = await asyncio.gather(*(repository.commit(edit) for edit in edits), return_exceptions=True)
    assert isinstance(told.pop(3), error)
    assert all(isinstance(each, str) for each in told)
    assert pushes(host) == 1
    assert remote.text(path_of(APPS[3])) == text


async def test_a_host_that_minds_one_commit_gets_the_others(
    repository: GitRepository, remote: Remote
) -> None:
    """A hook refuses whatever touches one file: that promotion fails in its words, the others are pushed."""
    remote.hook(
        f"read old new ref\ngit diff --name-only $old $new | grep -q {path_of(APPS[3])} || exit 0\n"
        "echo 'app-3 is frozen.' >&2\nexit 1"
    )
    edits = [edit_of(target_of(remote, app)) for app in APPS]
    told = await asyncio.gather(*(repository.commit(edit) for edit in edits), return_exceptions=True)
    refusal = told.pop(3)
    assert isinstance(refusal, Failed)
    assert "app-3 is frozen" in str(refusal)
    assert all(isinstance(each, str) for each in told)
    assert remote.text(path_of(APPS[3])) == "tag: v14\n"


async def test_an_edit_of_the_same_target_is_judged_after_the_first(
    repository: GitRepository, remote: Remote
) -> None:
    """Two edits of one value never share a push: the second one sees what became of the first."""
    target = target_of(remote, APPS[0])
    first, second = edit_of(target), edit_of(target, old="v15", new="v16", number=1)
    revisions = await asyncio.gather(repository.commit(first), repository.commit(second))
    assert remote.git("rev-list", "--max-count=2", "--reverse", "main").split() == revisions
    assert remote.text(target.path) == "tag: v16\n"


async def test_an_edit_that_nobody_waits_for_any_more_is_not_made(
    repository: GitRepository, remote: Remote
) -> None:
    """Whoever was cancelled before the push began left nothing behind."""
    edits = [edit_of(target_of(remote, app)) for app in APPS[:2]]
    tasks = [asyncio.ensure_future(repository.commit(edit)) for edit in edits]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert remote.text(path_of(APPS[0])) == "tag: v14\n"
    assert remote.text(path_of(APPS[1])) == "tag: v15\n"


async def test_what_waits_at_the_end_is_told_so(
    writers: list[GitRepository], tmp_path: Path, remote: Remote, host: HttpHost
) -> None:
    """Closing waits for the push that is under way; the others hear that the bot is shutting down."""
    repository = open_writer(writers, tmp_path)
    edits = [edit_of(target_of(remote, app, host.url())) for app in APPS[:2]]
    await repository.plan(edits[0].target, "v15")
    host.hold_on = "receive-pack"
    under_way = asyncio.ensure_future(repository.commit(edits[0]))
    await asyncio.to_thread(host.reached.wait, 5)
    waiting = asyncio.ensure_future(repository.commit(edits[1]))
    closing = asyncio.ensure_future(repository.aclose())
    await asyncio.sleep(0)
    host.released.set()
    await closing
    assert await under_way == remote.tip
    with pytest.raises(Unavailable, match="shutting down"):
        await waiting


async def test_a_push_without_an_end_does_not_hold_up_the_end(
    writers: list[GitRepository], tmp_path: Path, remote: Remote, host: HttpHost
) -> None:
    """After a while it is broken off, and whoever waits for it hears that only the remote knows."""
    repository = open_writer(writers, tmp_path)
    edit = edit_of(target_of(remote, APPS[0], host.url()))
    await repository.plan(edit.target, "v15")
    host.silent_on = "receive-pack"
    pushing = asyncio.ensure_future(repository.commit(edit))
    await asyncio.to_thread(host.reached.wait, 5)
    async with asyncio.timeout(5):
        await repository.aclose(within=0.2)
    with pytest.raises(Unavailable) as error:
        await pushing
    assert error.value.maybe_done


async def test_a_change_that_changes_nothing_is_refused(repository: GitRepository, remote: Remote) -> None:
    """An empty commit would tell of a promotion that never was."""
    with pytest.raises(Failed, match=r"apps/app-0/values.yaml already holds v14"):
        await repository.commit(edit_of(target_of(remote, APPS[0]), new="v14"))


# --- digests


async def test_a_digest_is_written_beside_the_tag_and_into_it(
    repository: GitRepository, remote: Remote
) -> None:
    """Where the configuration names the keys, the tag and its digest move in one commit."""
    path = path_of(APPS[0])
    remote.push({path: f"image:\n  tag: v14\n  digest: sha256:{'0' * 64}\nfull: v14@sha256:{'0' * 64}\n"})
    target = replace(target_of(remote, APPS[0]), keys=("image.tag", "full"), digests=("image.digest", "full"))
    plan = await repository.plan(target, "v15", digest=DIGEST)
    assert [change.number for change in plan.changes] == [2, 3, 4]
    await repository.commit(replace(edit_of(target), digest=DIGEST))
    assert remote.text(path) == f"image:\n  tag: v15\n  digest: {DIGEST}\nfull: v15@{DIGEST}\n"
    held = await repository.current(target)
    assert (held.version, held.digest) == ("v15", DIGEST)
    assert (await repository.plan(target, "v15", digest=DIGEST)).is_done
    assert not (await repository.plan(target, "v15", digest=f"sha256:{'2' * 64}")).is_done


@pytest.mark.parametrize(
    ("text", "digests", "words"),
    [
        (f"tag: v14\ndigest: {DIGEST}\n", (), "a digest stands beside tag, and it decides what runs"),
        (f"tag: v14@{DIGEST}\n", (), "Please name tag under `digests` too"),
        (f"tag: v14\ndigest: {DIGEST}\n", ("digest",), "the digest of v15 is unknown"),
        ("tag: v14\n", ("digest",), "there is no key “digest”"),
    ],
)
async def test_a_tag_that_would_change_nothing_is_never_promoted(
    repository: GitRepository, remote: Remote, text: str, digests: tuple[str, ...], words: str
) -> None:
    """An old digest beside a new tag would keep the old image running; it says what to do."""
    remote.push({path_of(APPS[0]): text})
    with pytest.raises(Failed, match=words):
        await repository.plan(replace(target_of(remote, APPS[0]), digests=digests), "v15")


# --- what a path may lead to


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("120000 {blob}", "is a symbolic link to ../../values.yaml. Please name the file itself"),
        ("160000 {commit}", "is a submodule: its files are in a repository of their own"),
        ("040000 {tree}", "is a folder, not a file"),
    ],
)
async def test_what_is_no_plain_file_is_refused(
    repository: GitRepository, remote: Remote, entry: str, words: str
) -> None:
    """A commit through a link or into a submodule would change something else, or break it."""
    path = path_of(APPS[0])
    ids = {
        "blob": remote.git("hash-object", "-w", "--stdin", stdin="../../values.yaml"),
        "commit": remote.tip,
        "tree": remote.git("rev-parse", f"main:{Path(path).parent}"),
    }
    mode, object_id = entry.format(**ids).split()
    command = f"D {path}\nM {mode} {object_id} {path}\n"
    head = "commit refs/heads/main\ncommitter A <a@x> 1700000000 +0000\ndata 1\nx\nfrom refs/heads/main^0\n"
    remote.git("fast-import", "--quiet", stdin=head + command)
    with pytest.raises(Failed) as refusal:
        await repository.plan(target_of(remote, APPS[0]), "v15")
    assert words in str(refusal.value)


async def test_a_file_that_lfs_keeps_is_refused(repository: GitRepository, remote: Remote) -> None:
    """The repository holds only a pointer to it."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid {DIGEST}\nsize 12\n"
    remote.push({path_of(APPS[0]): pointer})
    with pytest.raises(Failed, match="LFS"):
        await repository.plan(target_of(remote, APPS[0]), "v15")


async def test_a_repository_of_another_hash_is_refused(repository: GitRepository, tmp_path: Path) -> None:
    """SHA-256 repositories are told apart from damage."""
    folder = tmp_path / "other.git"
    subprocess.run(
        ["git", "init", "-q", "--bare", "-b", "main", "--object-format=sha256", folder], check=True
    )
    stream = "commit refs/heads/main\ncommitter A <a@x> 1700000000 +0000\ndata 1\nx\nM 100644 inline a\ndata 1\nx\n"
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=folder, input=stream.encode(), check=True, capture_output=True
    )
    target = replace(Remote(tmp_path / "remote.git").target(f"file://{folder}"), path="a")
    with pytest.raises(Failed, match="SHA-256"):
        await repository.plan(target, "v15")


# --- signatures


async def test_every_commit_of_a_batch_carries_a_good_signature(
    writers: list[GitRepository], tmp_path: Path, remote: Remote
) -> None:
    """`git verify-commit` says good, by the bot's key, for each of them; made again, it is the same commit."""
    require("ssh-keygen", "openssh-client")
    key = tmp_path / "signing-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signer = CommitSigner.load(key)
    repository = open_writer(writers, tmp_path, signers={"gitops": signer})
    edits = [edit_of(target_of(remote, app)) for app in APPS]
    revisions = await asyncio.gather(*(repository.commit(edit) for edit in edits))
    allowed = tmp_path / "allowed"
    allowed.write_text(f'{BOT.email} namespaces="git" {signer.public_key}\n')
    remote.git("config", "gpg.ssh.allowedSignersFile", str(allowed))
    for revision in revisions:
        remote.git("verify-commit", revision)
    assert remote.git("log", "-1", "--format=%G? %GS") == f"G {BOT.email}"
    assert remote.git("fsck", "--strict") == ""
    remote.git("update-ref", "refs/heads/main", f"{revisions[0]}^")
    again = open_writer(writers, tmp_path / "elsewhere", signers={"gitops": signer})
    assert await again.commit(edits[0]) == revisions[0]


# --- turns


async def test_two_processes_that_take_turns_lose_no_race(
    writers: list[GitRepository], tmp_path: Path, remote: Remote, host: HttpHost, stores: list[RedisStore]
) -> None:
    """Each waits for the other and fetches what it left behind: no push is refused."""
    pair = [open_writer(writers, tmp_path, turns=store) for store in stores]
    edits = [edit_of(target_of(remote, app, host.url())) for app in APPS]
    await asyncio.gather(*(each.plan(edits[0].target, "v15") for each in pair))
    for round_ in range(0, len(edits), 2):
        await asyncio.gather(*(each.commit(edit) for each, edit in zip(pair, edits[round_:], strict=False)))
    assert pushes(host) == len(edits)
    assert remote.git("rev-list", "--count", "main") == str(2 + len(edits))


async def test_a_turn_belongs_to_one_and_comes_back(stores: list[RedisStore]) -> None:
    """Whoever has it may ask again; giving back what is not one's own does nothing."""
    one, two = stores
    second = timedelta(seconds=30)
    assert await one.take_turn("b", by="one", lease=second) == (True, None)
    assert await one.take_turn("b", by="one", lease=second) == (True, None)
    assert await two.take_turn("b", by="two", lease=second) == (False, None)
    assert await two.take_turn("another", by="two", lease=second) == (True, None)
    await two.end_turn("b", by="two", revision=None)
    assert await two.take_turn("b", by="two", lease=second) == (False, None)
    await one.end_turn("b", by="one", revision="f00")
    assert await two.take_turn("b", by="two", lease=second) == (True, "f00")


async def test_a_turn_of_the_dead_is_not_waited_for_for_ever(
    writers: list[GitRepository],
    tmp_path: Path,
    remote: Remote,
    stores: list[RedisStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turns only save work: who waited long enough writes without one."""
    monkeypatch.setattr(writer, "PATIENCE", 0.1)
    edit = edit_of(target_of(remote, APPS[0]))
    name = f"{edit.target.repository.url} {edit.target.repository.branch}"
    await stores[0].take_turn(name, by="dead", lease=timedelta(hours=1))
    assert await open_writer(writers, tmp_path, turns=stores[1]).commit(edit) == remote.tip


async def test_a_store_that_is_away_does_not_stop_a_commit(
    writers: list[GitRepository], tmp_path: Path, remote: Remote
) -> None:
    """Without turns there may be races, and git decides them."""
    store = RedisStore(Redis.from_url("redis://127.0.0.1:1", retry=None))
    repository = open_writer(writers, tmp_path, turns=store)
    assert await repository.commit(edit_of(target_of(remote, APPS[0]))) == remote.tip
    await repository.aclose()
    await store.aclose()


async def test_what_the_store_says_of_the_branch_is_only_a_hint(
    writers: list[GitRepository], tmp_path: Path, remote: Remote, stores: list[RedisStore]
) -> None:
    """A revision that does not exist costs a fetch, and changes nothing else."""
    edit = edit_of(target_of(remote, APPS[0]))
    name = f"{edit.target.repository.url} {edit.target.repository.branch}"
    await stores[0].end_turn(name, by="somebody", revision="; rm -rf /")
    assert await open_writer(writers, tmp_path, turns=stores[1]).commit(edit) == remote.tip


# --- freshness


async def test_an_idle_branch_is_kept_fresh(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> None:
    """Somebody's push becomes known without being asked for, so that our own push meets no surprise."""
    target = target_of(remote, APPS[0], host.url())
    await repository.plan(target, "v15")
    fresh = asyncio.ensure_future(repository.keep_fresh([target.repository], every=0.01))
    theirs = remote.push({path_of(APPS[0]): "tag: v14 # theirs\n"}, who="Zoë <zoe@acme.example>")
    async with asyncio.timeout(10):
        while (push := await repository.last_push(target)) is None or push.revision != theirs:
            await asyncio.sleep(0)
    assert (push.author, push.at) == ("Zoë", datetime.fromtimestamp(1700000000, UTC))
    fresh.cancel()
    await asyncio.wait([fresh])
    assert await repository.commit(edit_of(target)) == remote.tip
    assert pushes(host) == 1


async def test_keeping_fresh_survives_a_host_that_is_away(
    repository: GitRepository, remote: Remote, host: HttpHost
) -> None:
    """A failed fetch is tried again later, and never ends the task."""
    target = target_of(remote, APPS[0], host.url())
    await repository.plan(target, "v15")
    host.answer = (503, b"busy")
    fresh = asyncio.ensure_future(repository.keep_fresh([target.repository], every=0.01))
    async with asyncio.timeout(10):
        while len(host.requests) < 5:
            await asyncio.sleep(0)
        host.answer = None
        theirs = remote.push({path_of(APPS[0]): "tag: v16\n"})
        while (push := await repository.last_push(target)) is None or push.revision != theirs:
            await asyncio.sleep(0)
    fresh.cancel()
    await asyncio.wait([fresh])


async def test_nobody_has_pushed_a_file_that_is_not_there(repository: GitRepository, remote: Remote) -> None:
    """There is no last push of it."""
    assert await repository.last_push(replace(target_of(remote, APPS[0]), path="nope.yaml")) is None


async def test_what_gathers_is_packed_in_an_idle_moment(
    repository: GitRepository, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects of many promotions do not stay files of their own, and the copy goes on working."""
    monkeypatch.setattr(mirror, "MANY_PACKS", 5)
    target = target_of(remote, APPS[0])
    await repository.plan(target, "v15")
    [copy] = (tmp_path / "cache").glob("gitops-*.0")
    for number in range(14, 20):
        edit = edit_of(target, old=f"v{number}", new=f"v{number + 1}", number=number)
        await repository.commit(edit)
    assert len(list(copy.glob("objects/pack/*.idx"))) >= 5
    fresh = asyncio.ensure_future(repository.keep_fresh([target.repository], every=0.01))
    async with asyncio.timeout(20):
        while len(list(copy.glob("objects/pack/*.idx"))) >= 5:
            await asyncio.sleep(0)
    fresh.cancel()
    await asyncio.wait([fresh])
    assert await repository.commit(edit_of(target, old="v20", new="v21", number=20)) == remote.tip
