"""The commits between two revisions of a source repository, from real repositories, some of them not to be trusted."""

import asyncio
import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from git_bench import is_quiet
from git_hosts import HttpHost, Remote, http_host
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.dossier import MOST, Commits
from bot.core.errors import Failed, Unavailable
from bot.integrations.cleanroom import Credential
from bot.integrations.source_log import MANY_PACKS, SourceLog

TOKEN = "glpat-0n1y-f0r-th1s-h0st"
FETCH = "/git-upload-pack"
Opened = Callable[..., SourceLog]

pytestmark = pytest.mark.timeout(60)


def source(folder: Path) -> Remote:
    """A source repository whose host can leave out folders and files."""
    made = Remote(folder)
    made.git("config", "uploadpack.allowFilter", "true")
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return source(tmp_path / "remote.git")


@pytest.fixture
def host(remote: Remote) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent, token=TOKEN) as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def log(cache: Path, remote: Remote) -> AsyncIterator[SourceLog]:
    async with aclosing(opened(cache, f"file://{remote.folder}")) as made:
        yield made


def opened(cache: Path, url: str, *, token: str | None = None, timeout: float = 20) -> SourceLog:
    """The log of a repository on this machine."""
    credential = Credential(username="bot", token=token)
    return SourceLog(
        name="acme/app", url=url, cache=cache, credential=credential, is_local=True, timeout=timeout
    )


def raw(remote: Remote, commit: bytes) -> str:
    """Put these bytes on `main` as a commit, as no git would write them; returns its revision."""
    whole = b"commit %d\0" % len(commit) + commit
    revision = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
    file = remote.folder / "raw"
    file.write_bytes(commit)
    assert (
        remote.git("hash-object", "-t", "commit", "-w", "--literally", "--no-filters", str(file)) == revision
    )
    (remote.folder / "refs/heads/main").write_text(f"{revision}\n")
    return revision


def written(
    remote: Remote, *, author: bytes = b"Ann <ann@acme.example>", message: bytes = b"Change\n"
) -> str:
    """A commit after the tip with such an author and message."""
    tip = remote.tip
    tree = remote.git("rev-parse", f"{tip}^{{tree}}")
    head = f"tree {tree}\nparent {tip}\n".encode()
    return raw(
        remote,
        head + b"author " + author + b" 1700000000 +0000\ncommitter B <b@x> 1700000000 +0000\n\n" + message,
    )


def subjects(found: Commits) -> list[str]:
    return [commit.subject for commit in found.newest]


async def test_what_lies_between_is_told_newest_first(log: SourceLog, remote: Remote) -> None:
    """Each commit has its revision, the first line of its message, its author and its date; the old one is not in it."""
    first = remote.push({"a": "1"}, message="Add one\n\nWith a body.", who="Bo Ek <bo@acme.example>")
    second = remote.push({"a": "2"}, message="Make it two")
    found = await log.between(remote.first, second)
    assert (found.count, found.is_back, found.unknown, found.are_all_known) == (2, False, "", True)
    assert [commit.revision for commit in found.newest] == [second, first]
    assert subjects(found) == ["Make it two", "Add one"]
    assert (found.newest[1].author, found.newest[1].email) == ("Bo Ek", "bo@acme.example")
    assert found.newest[1].at == datetime.fromtimestamp(1700000000, UTC)


async def test_nothing_lies_between_a_revision_and_itself(log: SourceLog, remote: Remote) -> None:
    """Two builds of the same commit bring nothing, and that is no way back."""
    assert await log.between(remote.first, remote.first) == Commits()


async def test_the_way_back_tells_what_goes_away(log: SourceLog, remote: Remote) -> None:
    """Where the new revision is the older one, the commits are those that it has not."""
    tip = remote.push({"a": "1"}, message="Go away")
    found = await log.between(tip, remote.first)
    assert (found.is_back, found.count, subjects(found)) == (True, 1, ["Go away"])


async def test_of_two_branches_only_what_the_new_one_adds_is_told(log: SourceLog, remote: Remote) -> None:
    """What the old build alone has is not brought, and this is no way back."""
    old = remote.push({"a": "1"}, message="Only here")
    remote.git("update-ref", "refs/heads/release", old)
    remote.git("update-ref", "refs/heads/main", remote.first)
    new = remote.push({"b": "1"}, message="Only there")
    found = await log.between(old, new)
    assert (found.is_back, found.count, subjects(found)) == (False, 1, ["Only there"])


async def test_a_tag_alone_may_hold_a_revision(log: SourceLog, remote: Remote) -> None:
    """Releases are often built from a tag whose branch is gone."""
    tagged = remote.push({"a": "1"}, message="Release")
    remote.git("update-ref", "refs/tags/v1", tagged)
    remote.git("update-ref", "refs/heads/main", remote.first)
    assert subjects(await log.between(remote.first, tagged)) == ["Release"]


async def test_a_long_way_is_counted_and_cut(log: SourceLog, remote: Remote) -> None:
    """At most MOST commits are read, the newest ones; the count is the true one."""
    commits = "".join(
        f"commit refs/heads/main\ncommitter A <a@x> {1700000000 + number} +0000\ndata 2\nx\n"
        + ("from refs/heads/main^0\n" if number == 1 else "")
        for number in range(1, MOST + 6)
    )
    remote.git("fast-import", "--quiet", stdin=commits)
    found = await log.between(remote.first, remote.tip)
    assert (found.count, len(found.newest), found.are_all_known) == (MOST + 5, MOST, False)
    assert found.newest[0].revision == remote.tip


async def test_no_folder_and_no_file_is_fetched(log: SourceLog, remote: Remote, cache: Path) -> None:
    """The copy holds commits alone; nothing is missed while it is read, also at the second fetch."""
    await log.between(remote.first, remote.push({"a": "1"}))
    await log.between(remote.first, remote.push({"a": "2"}))
    assert kinds(remote, cache) == {"commit"}


def kinds(remote: Remote, cache: Path) -> set[str]:
    """What the objects in the copy are."""
    [copy] = cache.glob("*.0")
    said = remote.git(f"--git-dir={copy}", "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
    return set(said.split())


async def test_a_host_that_leaves_nothing_out_serves_as_well(log: SourceLog, remote: Remote) -> None:
    """Not every host knows filters; it sends more then, and the answer is the same."""
    remote.git("config", "uploadpack.allowFilter", "false")
    tip = remote.push({"a": "1"}, message="Add one")
    assert subjects(await log.between(remote.first, tip)) == ["Add one"]


async def test_what_is_held_is_read_without_the_host(log: SourceLog, remote: Remote) -> None:
    """History does not change: the host is asked for what is new, and for nothing else."""
    tip = remote.push({"a": "1"}, message="Add one")
    found = await log.between(remote.first, tip)
    shutil.rmtree(remote.folder)
    assert await log.between(remote.first, tip) == found
    with pytest.raises((Failed, Unavailable)):
        await log.between(tip, "e" * 40)


async def test_a_revision_that_a_branch_has_left_is_still_known(log: SourceLog, remote: Remote) -> None:
    """What was built once stays built, also where its branch was rewound or deleted since."""
    gone = remote.push({"a": "1"}, message="Rewound")
    await log.between(remote.first, gone)
    remote.git("update-ref", "refs/heads/main", remote.first)
    new = remote.push({"b": "1"}, message="Instead")
    assert subjects(await log.between(gone, new)) == ["Instead"]


async def test_a_branch_may_take_the_place_of_a_folder_of_branches(
    log: SourceLog, remote: Remote, cache: Path
) -> None:
    """`fix/a` is deleted and `fix` comes: the copy follows, and need not be made anew."""
    remote.git("update-ref", "refs/heads/fix/a", remote.first)
    await log.between(remote.first, remote.first)
    [copy] = cache.glob("*.0")
    (copy / "the-same").touch()
    remote.git("update-ref", "-d", "refs/heads/fix/a")
    tip = remote.push({"a": "2"}, message="Two")
    remote.git("update-ref", "refs/heads/fix", tip)
    assert subjects(await log.between(remote.first, tip)) == ["Two"]
    assert (copy / "the-same").exists()


@pytest.mark.parametrize("revision", ["e" * 40, "HEAD", "main", "", "c" * 39, "C" * 40, "c" * 41])
async def test_a_revision_that_is_nowhere_is_told(log: SourceLog, remote: Remote, revision: str) -> None:
    """A name is no revision, and a revision that no branch holds is none of this repository."""
    for pair in ((remote.first, revision), (revision, remote.first)):
        with pytest.raises(Failed, match=r"No branch and no tag of acme/app holds the revision"):
            await log.between(*pair)


async def test_a_commit_that_only_a_fork_has_is_not_taken(log: SourceLog, remote: Remote) -> None:
    """Hosts keep the commits of forks and pull requests in one store; a branch or tag must hold it."""
    remote.git("config", "uploadpack.allowAnySHA1InWant", "true")
    of_fork = remote.push({"a": "1"}, message="By anybody")
    remote.git("update-ref", "refs/pull/1/head", of_fork)
    remote.git("update-ref", "refs/heads/main", remote.first)
    with pytest.raises(Failed, match="No branch and no tag"):
        await log.between(remote.first, of_fork)


@pytest.mark.parametrize(
    "evil",
    [
        "--upload-pack=touch {mark}",
        "--output={mark}",
        "-c core.pager=x",
        "--exec=touch {mark}",
        "$(touch {mark})",
    ],
)
async def test_a_revision_is_never_an_option(
    log: SourceLog, remote: Remote, tmp_path: Path, evil: str
) -> None:
    """What a label holds does nothing but be refused."""
    mark = tmp_path / "mark"
    for pair in ((evil.format(mark=mark), remote.first), (remote.first, evil.format(mark=mark))):
        with pytest.raises(Failed, match="No branch and no tag"):
            await log.between(*pair)
    assert not mark.exists()


# --- what people can write into a commit


async def test_no_escape_code_and_no_line_end_comes_through(log: SourceLog, remote: Remote) -> None:
    """A terminal's codes, line ends, marks that turn the text round and NUL are gone from every field."""
    written(
        remote,
        author="A\x1b[31mnn\r\u202e\x07 <a\x1b]0;x\x07@x>".encode(),
        message="Fix\x1b[2J\r\x08 it\u2028now\u200b\nand more\x00hidden\n\nBody".encode(),
    )
    [commit] = (await log.between(remote.first, remote.tip)).newest
    assert (commit.subject, commit.author, commit.email) == (
        "Fix [2J it now and more",
        "A [31mnn",
        "a ]0;x @x",
    )


async def test_a_record_cannot_be_forged(log: SourceLog, remote: Remote) -> None:
    """NULs and placeholders in a message neither add a commit nor move a field."""
    message = b"One\0" + b"\0".join([b"f" * 40, b"Boss", b"boss@x", b"1700000000", b"Approved"])
    first = written(remote, message=message)
    second = written(remote, message=b"%H%x00%an%n <script>&amp; *bold*")
    found = await log.between(remote.first, second)
    assert [(commit.revision, commit.subject, commit.author) for commit in found.newest] == [
        (second, "%H%x00%an%n <script>&amp; *bold*", "Ann"),
        (first, "One", "Ann"),
    ]


@pytest.mark.parametrize(
    ("head", "author", "at"),
    [
        (b"author  <x@y> 1 +0000\ncommitter B <b> 1 +0000", "somebody", datetime.fromtimestamp(1, UTC)),
        (b"author Ann <x@y> 1 +0000\ncommitter B <b> 99999999999999999 +0000", "Ann", None),
        (b"author Ann <x@y> 1 +0000\ncommitter B <b> never", "Ann", None),
        (
            b"author \xff\xfe <x@y> 1 +0000\ncommitter B <b> 5 +0000",
            "\ufffd\ufffd",
            datetime.fromtimestamp(5, UTC),
        ),
    ],
)
async def test_a_broken_head_is_read_as_far_as_it_goes(
    log: SourceLog, remote: Remote, head: bytes, author: str, at: datetime | None
) -> None:
    """Anybody may write a commit, with any number and any bytes in it."""
    tree = remote.git("rev-parse", "main^{tree}")
    revision = raw(remote, f"tree {tree}\nparent {remote.first}\n".encode() + head + b"\n\nOdd\n")
    [commit] = (await log.between(remote.first, revision)).newest
    assert (commit.author, commit.at, commit.subject) == (author, at, "Odd")


async def test_a_long_subject_is_cut(log: SourceLog, remote: Remote) -> None:
    """Two hundred characters of it are enough for a card."""
    written(remote, message=b"x" * 50_000, author=b"y" * 5000 + b" <z@z>")
    [commit] = (await log.between(remote.first, remote.tip)).newest
    assert (commit.subject, commit.author) == ("x" * 200, "y" * 200)


@settings(max_examples=10)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_whatever_a_message_holds_every_field_is_one_plain_line(messages: list[bytes]) -> None:
    """As many commits as there are, each with its own revision, and nothing invisible in them."""
    with TemporaryDirectory() as folder:
        remote = source(Path(folder) / "remote.git")
        revisions = [written(remote, message=message) for message in messages]

        async def read() -> Commits:
            async with aclosing(opened(Path(folder) / "cache", f"file://{remote.folder}")) as log:
                return await log.between(remote.first, remote.tip)

        found = asyncio.run(read())
    assert [commit.revision for commit in found.newest] == revisions[::-1]
    fields = [each for commit in found.newest for each in (commit.subject, commit.author, commit.email)]
    assert all(each.isprintable() and each == each.strip() for each in fields)


async def test_nothing_of_the_repository_is_run(
    log: SourceLog, remote: Remote, tmp_path: Path, cache: Path
) -> None:
    """Hooks, attributes, mailmaps and submodules of the repository are just commits' content to the bot."""
    mark = tmp_path / "mark"
    tip = remote.push(
        {
            ".gitattributes": "* filter=x diff=x",
            ".gitmodules": f'[submodule "a"]\n\tpath = a\n\turl = ext::touch {mark}\n',
            ".mailmap": "Boss <boss@x> <ann@acme.example>\n",
            "hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n",
        }
    )
    [commit] = (await log.between(remote.first, tip)).newest
    assert (commit.author, commit.email) == ("Ann", "ann@acme.example")
    again = remote.push({".gitmodules": f'[submodule "a"]\n\tpath = a\n\turl = ext::touch {mark}2\n'})
    await log.between(remote.first, again)
    assert not list(tmp_path.glob("mark*"))
    assert not list(cache.rglob("*.md"))


# --- the host


async def test_the_host_is_told_the_token_and_nobody_else(
    cache: Path, remote: Remote, host: HttpHost
) -> None:
    """Over HTTP with the credential; without it the refusal is told, and no secret with it."""
    tip = remote.push({"a": "1"}, message="Add one")
    async with aclosing(opened(cache, host.url(), token=TOKEN)) as log:
        assert subjects(await log.between(remote.first, tip)) == ["Add one"]
        asked = len(host.requests)
        await log.between(remote.first, tip)
        assert len(host.requests) == asked
    left = [file for file in cache.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    assert not left
    async with aclosing(opened(cache, host.url(), token="wrong-token")) as stranger:
        with pytest.raises(Failed, match="refuses us the repository acme/app") as refused:
            await stranger.between(tip, "e" * 40)
    assert "wrong-token" not in str(refused.value)


async def test_no_reader_asks_the_host_to_fill_a_gap(cache: Path, remote: Remote, host: HttpHost) -> None:
    """Git would fetch missing objects by itself, one by one and without our limits."""
    tip = remote.push({"a": "1"})
    async with aclosing(opened(cache, host.url(), token=TOKEN)) as log:
        await log.between(remote.first, tip)
        before = len(host.requests)
        with pytest.raises(Failed):
            await log.between(tip, "e" * 40)
    # One fetch finds that nothing is new: what the host has, and no more.
    assert [each.partition("?")[0] for each in host.requests[before:]] == [
        *("GET /remote.git/info/refs", "POST /remote.git/git-upload-pack")
    ]


async def test_a_host_that_sends_us_elsewhere_is_not_followed(
    cache: Path, remote: Remote, host: HttpHost
) -> None:
    """The token goes to the configured address alone."""
    host.answer = (302, b"")
    async with aclosing(opened(cache, host.url(), token=TOKEN)) as log:
        with pytest.raises(Unavailable, match="sends us on to another address"):
            await log.between(remote.first, remote.first)
    assert len(host.requests) == 1


async def test_a_silent_host_ends_in_time(cache: Path, remote: Remote, host: HttpHost) -> None:
    """It is told, no process is left, and the next question is answered."""
    async with aclosing(opened(cache, host.url(), token=TOKEN, timeout=2)) as log:
        await log.between(remote.first, remote.first)
        tip = remote.push({"a": "1"}, message="Add one")
        host.silent_on = FETCH
        with pytest.raises(Unavailable, match=r"did not answer within 2 seconds|too slow"):
            await log.between(remote.first, tip)
        assert is_quiet(cache)
        host.silent_on = None
        assert subjects(await log.between(remote.first, tip)) == ["Add one"]


@pytest.mark.parametrize("status", [200, 404, 500, 503])
async def test_nonsense_is_told(cache: Path, remote: Remote, host: HttpHost, status: int) -> None:
    """A page of a proxy, or a host in trouble: nothing is made up."""
    host.answer = (status, b"<html>hello</html>")
    async with aclosing(opened(cache, host.url(), token=TOKEN)) as log:
        with pytest.raises((Failed, Unavailable)):
            await log.between(remote.first, remote.first)


async def test_closing_ends_a_fetch_under_way(cache: Path, remote: Remote, host: HttpHost) -> None:
    """The end of the bot waits for no host, and leaves no process; what comes later is refused."""
    log = opened(cache, host.url(), token=TOKEN, timeout=30)
    host.silent_on = FETCH
    asked = [asyncio.create_task(log.between(remote.first, remote.first)) for _ in range(2)]
    assert await asyncio.to_thread(host.reached.wait, 20)
    async with asyncio.timeout(5):
        await log.aclose()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in told)
    assert is_quiet(cache)
    with pytest.raises(Unavailable, match="shutting down"):
        await log.between(remote.first, remote.first)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("source-")]


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("file:///srv/app.git", False),
        ("http://git.acme.example/app.git", False),
        ("ext::touch mark", True),
        ("--upload-pack=touch mark", True),
        ("/srv/app.git", True),
        ("git://git.acme.example/app.git", True),
        ("https://bot:secret@git.acme.example/app.git", False),
        ("git@git.acme.example:-oProxyCommand=x", False),
    ],
)
def test_an_address_is_one_that_git_may_be_given(tmp_path: Path, url: str, is_local: bool) -> None:
    """Encrypted, unless the configuration says otherwise; no option, no command, no password."""
    with pytest.raises(Failed, match=r"The address of app") as caught:
        SourceLog(name="app", url=url, cache=tmp_path, is_local=is_local)
    assert "secret" not in str(caught.value)


# --- the copy


def break_head(copy: Path) -> None:
    (copy / "HEAD").write_text("nonsense")


def empty_packs(copy: Path) -> None:
    for pack in (copy / "objects" / "pack").iterdir():
        pack.unlink()


def cut_packs(copy: Path) -> None:
    for pack in (copy / "objects" / "pack").iterdir():
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:20])


@pytest.mark.parametrize("damage", [shutil.rmtree, break_head, empty_packs, cut_packs])
async def test_a_damaged_copy_is_made_anew(
    log: SourceLog, remote: Remote, cache: Path, damage: Callable[[Path], None]
) -> None:
    """A copy is a cache: whatever happened to it, the next answer is right."""
    tip = remote.push({"a": "1"}, message="Add one")
    found = await log.between(remote.first, tip)
    [copy] = cache.glob("*.0")
    damage(copy)
    assert await log.between(remote.first, tip) == found


async def test_each_process_has_a_copy_of_its_own(cache: Path, remote: Remote) -> None:
    """Nobody waits for another's lock, and a folder that was given back is taken again."""
    url = f"file://{remote.folder}"
    async with aclosing(opened(cache, url)) as one, aclosing(opened(cache, url)) as other:
        assert await one.between(remote.first, remote.first) == await other.between(
            remote.first, remote.first
        )
        assert len([each for each in cache.glob("acme-app-*") if each.is_dir()]) == 2
    async with aclosing(opened(cache, url)) as third:
        await third.between(remote.first, remote.first)
    assert len([each for each in cache.glob("acme-app-*") if each.is_dir()]) == 2


READER = """
import asyncio, sys
from pathlib import Path
from bot.integrations.source_log import SourceLog
log = SourceLog(name="acme/app", url=sys.argv[1], cache=Path(sys.argv[2]), is_local=True)
asyncio.run(log.between("e" * 40, "e" * 40))
"""


async def test_a_folder_in_which_git_still_works_is_nobodys(cache: Path, remote: Remote) -> None:
    """Where the bot was killed, its git may go on for a while: the next one takes another folder."""
    with http_host(remote.folder.parent) as host:
        host.silent_on = FETCH
        with subprocess.Popen([sys.executable, "-c", READER, host.url(), str(cache)]) as reader:
            assert await asyncio.to_thread(host.reached.wait, 20)
            reader.kill()
        host.silent_on = None
        async with aclosing(opened(cache, host.url())) as log:
            await log.between(remote.first, remote.first)
        assert len(list(cache.glob("acme-app-*.1"))) == 1


async def test_many_fetches_do_not_leave_many_packs(log: SourceLog, remote: Remote, cache: Path) -> None:
    """Each fetch brings a pack; from so many on they are put together, and nothing is lost."""
    await log.between(remote.first, remote.first)
    [copy] = cache.glob("*.0")
    packs = copy / "objects" / "pack"
    [pack] = packs.glob("*.pack")
    for number in range(MANY_PACKS - 1):
        for suffix in (".pack", ".idx", ".promisor"):
            shutil.copy(pack.with_suffix(suffix), packs / f"pack-{number:040x}{suffix}")
    (copy / "the-same").touch()
    tip = remote.push({"a": "1"}, message="Add one")
    assert subjects(await log.between(remote.first, tip)) == ["Add one"]
    assert len(list(packs.glob("*.pack"))) == 1
    assert (copy / "the-same").exists()
    assert kinds(remote, cache) == {"commit"}
    assert subjects(await log.between(remote.first, remote.push({"a": "2"}, message="Two"))) == [
        "Two",
        "Add one",
    ]
