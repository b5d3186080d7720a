"""Commits to real bare repositories, over `file://` and over a real git HTTP server."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from git_bench import is_quiet, processes
from git_hosts import PATH, VALUES, HttpHost, Remote, http_host

from bot.core.catalog import Target
from bot.core.errors import Failed, PromoteError, Stale, Unavailable, ValueNotEditable
from bot.core.ports import Author, Edit
from bot.core.promotion import LineChange, PromotionId
from bot.core.rollout import Relation
from bot.integrations.cleanroom import Output
from bot.integrations.gitops import Credential, GitRepository
from bot.integrations.verdicts import Damaged, check_race
from bot.integrations.writer import identity

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BOT = Author(name="promote-bot", email="promote-bot@acme.example")
TOKEN = "glpat-s3cr3t-t0k3n"
BASIC = b64encode(f"bot:{TOKEN}".encode()).decode()


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
def target(remote: Remote) -> Target:
    return remote.target()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def repository(cache: Path) -> AsyncIterator[GitRepository]:
    made = local(cache)
    yield made
    await made.aclose()


def local(cache: Path, *, timeout: float = 10, token: str | None = None) -> GitRepository:
    return GitRepository(
        cache=cache,
        committer=BOT,
        credentials={"gitops": Credential(username="bot", token=token)} if token else {},
        allow_local=frozenset({"gitops"}),
        timeout=timeout,
    )


def edit_of(target: Target, base: str, *, new: str = "v15", promotion: str = "P-0123456789") -> Edit:
    trailers = (
        f"Promotion-Id: {promotion}\nApp: manual-app\nEnvironment: prod\nNew-Version: {new}\nReason: a: b"
    )
    return Edit(
        target=target,
        promotion=PromotionId(promotion),
        old="v14",
        new=new,
        message=f"Promote manual-app {new} to prod\n\nAs asked for.\n\n{trailers}\n",
        author=Author(name="Zoë <root> Ünal\n", email=None),
        at=AT,
        base=base,
        since=AT,
    )


async def test_a_plan_shows_every_line_that_changes(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """The old version, the tip and each line before and after; nothing is written."""
    plan = await repository.plan(target, "v15")
    assert (plan.old_version, plan.base) == ("v14", remote.first)
    assert plan.changes == (
        LineChange(path=PATH, number=2, before="  tag: v14 # ours", after="  tag: v15 # ours"),
        LineChange(path=PATH, number=3, before="sidecar: {tag: 'v14'}", after="sidecar: {tag: 'v15'}"),
    )
    assert remote.tip == remote.first


async def test_a_fresh_plan_asks_the_remote_and_another_does_not(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """Only `fresh` costs a network round trip."""
    await repository.plan(target, "v15")
    pushed = remote.push({"README.md": "new\n"})
    assert (await repository.plan(target, "v15", fresh=False)).base == remote.first
    assert (await repository.plan(target, "v15")).base == pushed


async def test_the_current_version_is_the_remote_s(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """What the branch holds now, not what was fetched some time ago."""
    assert (await repository.current(target)).version == "v14"
    remote.push({PATH: VALUES.replace("v14", "v16")})
    assert (await repository.current(target)).version == "v16"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("image: {tag: v13}\nsidecar: {tag: v14}\n", Failed, "differ"),
        ("image: {tag: v14}\n", ValueNotEditable, f"{PATH}:1: there is no key “sidecar”"),
        ("image: {tag: *x}\n", ValueNotEditable, PATH),
    ],
)
async def test_a_plan_fails_where_the_file_leaves_a_doubt(
    repository: GitRepository, target: Target, remote: Remote, text: str, error: type[Failed], words: str
) -> None:
    """All keys must be there and hold the same version."""
    remote.push({PATH: text})
    with pytest.raises(error, match=words):
        await repository.plan(target, "v15")


async def test_a_missing_file_or_branch_is_named(repository: GitRepository, target: Target) -> None:
    """The nearest name helps with a typing error."""
    with pytest.raises(Failed, match=r"no file apps/manual-ap/x.yaml .* Did you mean “manual-app”\?"):
        await repository.plan(replace(target, path="apps/manual-ap/x.yaml"), "v15")
    with pytest.raises(Failed, match="gitops has no branch trunk"):
        await repository.plan(replace(target, repository=replace(target.repository, branch="trunk")), "v15")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"branch": "-x"}, "cannot be the name of a branch"),
        ({"branch": "main:evil"}, "cannot be the name of a branch"),
        ({"branch": "a..b"}, "cannot be the name of a branch"),
        ({"url": "--upload-pack=touch /tmp/x"}, "https:// or ssh://"),
        ({"url": "ext::sh -c id"}, "https:// or ssh://"),
        ({"url": "https://bot:pw@host/x.git"}, "holds a password"),
        ({"name": "strict"}, "https:// or ssh://"),
    ],
)
async def test_an_address_or_branch_that_git_could_misread_never_reaches_it(
    repository: GitRepository, target: Target, change: dict[str, str], words: str
) -> None:
    """Options, refspecs and helpers in disguise are refused, and local paths where they are not allowed."""
    with pytest.raises(Failed, match=words):
        await repository.plan(replace(target, repository=replace(target.repository, **change)), "v15")


async def test_a_commit_changes_the_values_and_nothing_else(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """One commit on the tip, with our committer, the person as author, the date of the edit and the message."""
    plan = await repository.plan(target, "v15")
    edit = edit_of(target, plan.base)
    revision = await repository.commit(edit)
    assert remote.tip == revision
    assert remote.text() == VALUES.replace("v14", "v15")
    assert remote.git("diff", "--name-only", f"{revision}^", revision) == PATH
    assert remote.git("log", "-1", "--format=%P|%an <%ae>|%cn <%ce>|%aI|%cI", revision) == (
        f"{remote.first}|Zoë root Ünal <promote-bot@users.noreply.invalid>|promote-bot <promote-bot@acme.example>"
        "|2026-03-01T12:00:00+00:00|2026-03-01T12:00:00+00:00"
    )
    assert remote.git("log", "-1", "--format=%B", revision) == edit.message.strip()
    assert remote.git("fsck", "--strict") == ""


async def test_the_same_edit_gives_the_same_commit(tmp_path: Path, cache: Path) -> None:
    """Two processes that carry out the same edit on the same parent make one and the same revision."""
    revisions = set()
    for name in ("one", "two"):
        repository = local(cache / name)
        remote = Remote(tmp_path / f"{name}.git")
        revisions.add(await repository.commit(edit_of(remote.target(), remote.first)))
        await repository.aclose()
    assert len(revisions) == 1


async def test_a_push_in_between_is_built_upon(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """Somebody else's commit that leaves our value alone is kept, and ours goes on top."""
    plan = await repository.plan(target, "v15")
    theirs = remote.push({"README.md": "new\n", PATH: VALUES + "more: 1\n"})
    revision = await repository.commit(edit_of(target, plan.base))
    assert remote.git("rev-parse", f"{revision}^") == theirs
    assert remote.text() == VALUES.replace("v14", "v15") + "more: 1\n"
    assert remote.text("README.md") == "new\n"


async def test_a_push_during_the_push_is_built_upon(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """The server moves the branch while it receives our commit: the update is refused, and tried again."""
    await repository.plan(target, "v15")
    theirs = remote.push({"README.md": "new\n"})
    remote.git("update-ref", "refs/heads/main", remote.first)
    remote.hook(
        f"unset GIT_QUARANTINE_PATH\ntest -e done && exit\ntouch done\ngit update-ref refs/heads/main {theirs}"
    )
    revision = await repository.commit(edit_of(target, remote.first))
    assert remote.git("rev-parse", f"{revision}^") == theirs


async def test_a_branch_that_never_rests_ends_the_tries(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """After ten lost races the bot says so, and that nothing was pushed."""
    commit = "$(git commit-tree -p refs/heads/main -m theirs refs/heads/main^{tree})"
    who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a"
    quarantine = "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES"
    remote.hook(f"{quarantine}\n{who}\ngit update-ref refs/heads/main {commit}")
    with pytest.raises(Unavailable, match="nothing was pushed yet") as error:
        await repository.commit(edit_of(target, remote.first))
    assert not error.value.maybe_done
    assert remote.text() == VALUES


async def test_promotions_side_by_side_all_land(cache: Path, remote: Remote) -> None:
    """Two processes and several apps push to one branch at once: no commit is lost, none is forced."""
    apps = [f"apps/app-{number}/values.yaml" for number in range(6)]
    remote.push(dict.fromkeys(apps, "tag: v14\n"))
    writers = [local(cache), local(cache)]
    edits = [
        edit_of(replace(remote.target(keys=("tag",)), path=path), remote.tip, promotion=f"P-{number:010}")
        for number, path in enumerate(apps)
    ]
    await asyncio.gather(*(writers[number % 2].commit(edit) for number, edit in enumerate(edits)))
    await asyncio.gather(*(writer.aclose() for writer in writers))
    assert remote.git("rev-list", "--count", "main") == "8"
    assert {remote.text(path) for path in apps} == {"tag: v15\n"}


async def test_a_changed_value_is_stale(repository: GitRepository, target: Target, remote: Remote) -> None:
    """What was approved is no longer what would be replaced, so nothing is pushed."""
    plan = await repository.plan(target, "v15")
    theirs = remote.push({PATH: VALUES.replace("v14", "v99")})
    with pytest.raises(Stale) as stale:
        await repository.commit(edit_of(target, plan.base))
    assert (stale.value.expected, stale.value.found) == ("v14", "v99")
    assert remote.tip == theirs


async def test_an_old_copy_alone_never_makes_it_stale(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """Where the copy holds another value, the remote is asked before anybody is told so."""
    remote.push({PATH: VALUES.replace("v14", "v13")})
    await repository.plan(target, "v15")
    remote.push({PATH: VALUES})
    assert await repository.commit(edit_of(target, remote.first)) == remote.tip


async def test_a_commit_that_got_through_unseen_is_not_made_again(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """Carrying out an edit twice gives the first commit, also after others have pushed."""
    edit = edit_of(target, remote.first)
    revision = await repository.commit(edit)
    assert await repository.commit(edit) == revision
    theirs = remote.push({PATH: VALUES.replace("v14", "v16")})
    assert await repository.commit(edit) == revision
    assert remote.tip == theirs


async def test_a_protected_branch_speaks_in_its_own_words(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """A refusal by the server is no race: it is told at once, in the words of its hook."""
    remote.hook("echo 'GL-HOOK-ERR: main is frozen until Monday.' >&2\nexit 1")
    with pytest.raises(
        Failed, match=r"GL-HOOK-ERR: main is frozen until Monday \(pre-receive hook declined\)"
    ):
        await repository.commit(edit_of(target, remote.first))
    assert remote.tip == remote.first


async def test_a_rewound_branch_is_reported_and_never_healed(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """A plain push would bring back the commit that somebody took away; the lease refuses it."""
    remote.push({"README.md": "a secret\n"})
    plan = await repository.plan(target, "v15")
    remote.git("update-ref", "refs/heads/main", remote.first)
    with pytest.raises(Failed, match="was rewound; nothing was pushed"):
        await repository.commit(edit_of(target, plan.base))
    assert remote.tip == remote.first
    assert await repository.commit(edit_of(target, plan.base)) == remote.tip


async def test_find_knows_its_own_commit_alone(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """The bot is the committer, the trailers agree, and the commit lies after the base."""
    base = remote.tip
    edit = edit_of(target, base)
    assert await repository.find(edit) is None
    remote.push({"README.md": "1\n"}, message=edit.message)
    assert await repository.find(edit) is None, "somebody else's commit with our id"
    ours = f"{BOT.name} <{BOT.email}>"
    remote.push({"README.md": "2\n"}, message=edit.message.replace("v15", "v16"), who=ours)
    assert await repository.find(edit) is None, "another version"
    remote.push({"README.md": "3\n"}, message=edit.message.replace("v15\n", "v15\n\n") + "Other: x", who=ours)
    assert await repository.find(edit) is None, "trailers in the middle of the message are no trailers"
    remote.push({"README.md": "4\n"}, message=edit.message, who="a\x1fb\x1e <c\x1fd>")
    assert await repository.find(edit) is None, "a name with strange characters"
    revision = remote.push({"README.md": "5\n"}, message=edit.message, who=ours)
    remote.push({"README.md": "6\n"})
    assert await repository.find(edit) == revision
    assert await repository.find(replace(edit, base=remote.tip)) is None, "before the base"
    assert await repository.find(replace(edit, base="0" * 40)) == revision, "the base is gone"


async def test_a_revision_is_related_to_our_commit(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """It contains the commit or not, still holds the version or not, and has an author."""
    revision = await repository.commit(edit_of(target, remote.first))
    later = remote.push({"README.md": "new\n"})
    changed = remote.push({PATH: VALUES.replace("v14", "v16")}, who="Ben <ben@acme.example>")
    gone = remote.push({PATH: "image: {}\n"})

    async def relate(other: str) -> Relation:
        return await repository.relate(target, revision=other, commit=revision, version="v15")

    assert await relate(revision) == Relation(contains=True, holds_value=True, author="Zoë root Ünal")
    assert await relate(remote.first) == Relation(contains=False, holds_value=False, author="Ann")
    assert await relate(later) == Relation(contains=True, holds_value=True, author="Ann")
    assert await relate(changed) == Relation(contains=True, holds_value=False, author="Ben")
    assert await relate(gone) == Relation(contains=True, holds_value=False, author="Ann")
    assert (await relate("f" * 40)).contains is None
    assert (await relate("1.2.3")).contains is None


async def test_a_relation_is_looked_up_once(
    repository: GitRepository, target: Target, remote: Remote
) -> None:
    """History does not change: the answer stands although the remote is gone."""
    revision = await repository.commit(edit_of(target, remote.first))
    known = await repository.relate(target, revision=revision, commit=revision, version="v15")
    remote.folder.rename(remote.folder.with_name("gone.git"))
    assert await repository.relate(target, revision=revision, commit=revision, version="v15") == known
    with pytest.raises(Unavailable):
        await repository.find(edit_of(target, remote.first))


def truncate_objects(mirror: Path) -> None:
    for found in mirror.rglob("objects/??/*"):
        found.chmod(0o644)
        found.write_bytes(b"")


def plant_lock(mirror: Path) -> None:
    (mirror / "refs/heads/main.lock").touch()


def lose_objects(mirror: Path) -> None:
    for found in mirror.rglob("objects/??/*"):
        found.unlink()


def empty_branch(mirror: Path) -> None:
    (mirror / "refs/heads/main").write_bytes(b"")


def break_config(mirror: Path) -> None:
    (mirror / "config").write_text("[[[")


@pytest.mark.parametrize("damage", [truncate_objects, plant_lock, lose_objects, empty_branch, break_config])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_damaged_copy_is_made_anew(
    cache: Path, target: Target, remote: Remote, damage: Callable[[Path], None], is_restarted: bool
) -> None:
    """A power cut or a killed process may leave anything behind: the copy is a cache, and nobody notices."""
    repository = local(cache)
    await repository.plan(target, "v15")
    if is_restarted:
        await repository.aclose()
        repository = local(cache)
    [mirror] = copies(cache)
    damage(mirror)
    remote.push({"README.md": "new\n"})
    revision = await repository.commit(edit_of(target, remote.first))
    assert (remote.tip, await repository.find(edit_of(target, remote.first))) == (revision, revision)
    await repository.aclose()


async def test_a_reading_process_that_was_ended_is_started_again(
    repository: GitRepository, cache: Path, target: Target
) -> None:
    """A Ctrl-C in the terminal reaches git's reading process too; that is no damage."""
    plan = await repository.plan(target, "v15")
    [mirror] = copies(cache)
    born = mirror.stat().st_ino
    for pid in processes(cache):
        os.kill(pid, signal.SIGKILL)
    assert await repository.plan(target, "v15", fresh=False) == plan
    assert mirror.stat().st_ino == born


async def test_two_processes_never_share_a_copy(cache: Path, target: Target) -> None:
    """Each claims a folder for as long as it lives, and a successor takes over what is there."""
    first, second = local(cache), local(cache)
    await first.plan(target, "v15")
    await second.plan(target, "v15")
    assert len(copies(cache)) == 2
    await first.aclose()
    third = local(cache)
    await third.plan(target, "v15", fresh=False)
    assert len(copies(cache)) == 2
    await asyncio.gather(second.aclose(), third.aclose())


async def test_what_is_closed_says_so(repository: GitRepository, cache: Path, target: Target) -> None:
    """After the end there is an answer, and no reading process is left."""
    await repository.plan(target, "v15")
    await repository.aclose()
    await repository.aclose()
    with pytest.raises(Unavailable, match="shutting down"):
        await repository.plan(target, "v15")
    assert processes(cache) == {}


async def test_configuration_of_the_machine_has_no_say(
    repository: GitRepository, target: Target, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the user's configuration nor variables of the process change where a push goes."""
    (tmp_path / ".gitconfig").write_text('[url "file:///nowhere"]\n\tinsteadOf = file://\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare=false'")
    revision = await repository.commit(edit_of(target, remote.first))
    monkeypatch.undo()
    assert remote.tip == revision


@pytest.mark.parametrize(
    ("name", "email", "expected"),
    [
        ("Ann", "ann@x", ("Ann", "ann@x")),
        ("  <Ann>\n\0Lee. ", " <a b@x>\n", ("Ann Lee", "ab@x")),
        ("<>\n", "", ("unknown", "promote-bot@users.noreply.invalid")),
        ("张伟 🚀", None, ("张伟 🚀", "promote-bot@users.noreply.invalid")),
    ],
)
def test_a_strange_name_never_fails_a_commit(name: str, email: str | None, expected: tuple[str, str]) -> None:
    """Names come from Slack; git's own syntax is taken out of them."""
    assert identity(Author(name=name, email=email)) == expected


# --- over HTTP


@pytest.fixture
def server(remote: Remote) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent, token=TOKEN) as made:
        yield made


def copies(cache: Path) -> list[Path]:
    return sorted(cache.glob("gitops-*.[0-9]"))


def contents(cache: Path) -> bytes:
    return b"".join(found.read_bytes() for found in cache.rglob("*") if found.is_file())


@pytest.fixture
async def online(cache: Path) -> AsyncIterator[GitRepository]:
    made = local(cache, timeout=2, token=TOKEN)
    yield made
    await made.aclose()


async def test_a_commit_travels_over_http_and_the_token_stays_in_the_environment(
    online: GitRepository, server: HttpHost, cache: Path, remote: Remote
) -> None:
    """The token opens the server and stands in no argument and in no file."""
    target = remote.target(server.url())
    await online.probe(target)
    server.silent_on = "receive-pack"
    pushing = asyncio.ensure_future(online.commit(edit_of(target, remote.first)))
    await asyncio.to_thread(server.reached.wait, 5)
    running = processes(cache).values()
    assert any("push" in line for line in running)
    assert not any(TOKEN in line or BASIC in line for line in running)
    with pytest.raises(Unavailable):
        await pushing
    server.silent_on = None
    assert await online.commit(edit_of(target, remote.first)) == remote.tip
    assert TOKEN.encode() not in contents(cache)
    assert BASIC.encode() not in contents(cache)
    assert TOKEN not in repr(Credential(token=TOKEN))


@pytest.mark.parametrize(("silent_on", "maybe_done"), [("info/refs", False), ("/git-receive-pack", True)])
async def test_a_silent_server_ends_in_time_and_leaves_no_process(
    online: GitRepository, server: HttpHost, cache: Path, remote: Remote, silent_on: str, maybe_done: bool
) -> None:
    """Each git command has a hard limit; only a push that was under way may have been carried out."""
    target = remote.target(server.url())
    await online.plan(target, "v15")
    server.silent_on = silent_on
    began_at = time.monotonic()
    with pytest.raises(Unavailable) as error:
        await online.commit(edit_of(target, remote.first))
    assert error.value.maybe_done is maybe_done
    assert time.monotonic() - began_at < 8
    assert await asyncio.to_thread(is_quiet, cache)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((403, f"no: {BASIC} {TOKEN}"), Failed),
        ((401, ""), Failed),
        ((404, "no such thing"), Failed),
        ((503, f"busy: {BASIC}"), Unavailable),
        ((200, "<html>\n<p>Please log in.\n</html>"), Unavailable),
    ],
)
async def test_a_refusal_never_repeats_the_token(
    online: GitRepository,
    server: HttpHost,
    remote: Remote,
    answer: tuple[int, str],
    error: type[PromoteError],
) -> None:
    """Some servers say what they were sent; people read it without secrets."""
    server.answer = (answer[0], answer[1].encode())
    with pytest.raises(error) as raised:
        await online.plan(remote.target(server.url()), "v15")
    cause: BaseException | None = raised.value
    while cause:
        assert TOKEN not in repr(cause)
        assert BASIC not in repr(cause)
        cause = cause.__cause__ or cause.__context__


async def test_a_probe_sees_a_token_that_may_only_read(
    online: GitRepository, server: HttpHost, remote: Remote
) -> None:
    """Reading works and pushing does not: that is found before the first promotion."""
    remote.git("config", "http.receivepack", "false")
    await online.plan(remote.target(server.url()), "v15")
    with pytest.raises(Failed, match="refuses us the repository gitops"):
        await online.probe(remote.target(server.url()))


async def test_a_wrong_token_is_a_failure(cache: Path, server: HttpHost, remote: Remote) -> None:
    """Trying again does not help: somebody has to act. For a question about the past it is only bad luck."""
    repository = local(cache, token="wrong")
    with pytest.raises(Failed, match="refuses us the repository gitops"):
        await repository.plan(remote.target(server.url()), "v15")
    with pytest.raises(Unavailable):
        await repository.find(edit_of(remote.target(server.url()), remote.first))
    await repository.aclose()


async def test_a_killed_predecessor_keeps_its_copy_while_its_git_runs(
    online: GitRepository, server: HttpHost, cache: Path, remote: Remote
) -> None:
    """The lock passes on to git itself, so that nobody works in a folder where an orphan still writes."""
    server.silent_on = "info/refs"
    await asyncio.to_thread(start_and_kill_predecessor, cache, server)
    server.silent_on = None
    await online.plan(remote.target(server.url()), "v15")
    assert [found.name[-1] for found in copies(cache)] == ["1"]


def start_and_kill_predecessor(cache: Path, server: HttpHost) -> None:
    with subprocess.Popen([sys.executable, "-c", PREDECESSOR, cache, server.url()]) as predecessor:
        server.reached.wait(10)
        predecessor.kill()


PREDECESSOR = """
import sys
from pathlib import Path
from bot.core.catalog import Repository
from bot.integrations.cleanroom import CleanRoom
from bot.integrations.mirror import Mirror
cache, url = Path(sys.argv[1]), sys.argv[2]
room = CleanRoom(
    url=url, home=cache / "home", credential=None, is_local=True, proxies={}, ca_bundle=None, timeout=5
)
Mirror(repository=Repository(name="gitops", url=url, branch="main"), cache=cache, room=room).open()
"""


@pytest.mark.parametrize(
    ("reason", "stderr", "outcome"),
    [
        ("[rejected] (stale info)", "", None),
        ("[rejected] (fetch first)", "", None),
        ("[rejected] (non-fast-forward)", "", None),
        ("[remote rejected] (cannot lock ref 'refs/heads/main': is at 1 but expected 2)", "", None),
        ("[remote rejected] (failed to update ref)", "", None),
        ("[remote rejected] (incorrect old value provided)", "", None),
        (
            "[remote rejected] (protected branch hook declined)",
            "remote: error: GH006: Protected branch update failed for refs/heads/main.\nremote:\n",
            "refused the push to main: error: GH006: Protected branch update failed for refs/heads/main (protected",
        ),
        ("[remote rejected] (Internal Server Error)", "", "maybe"),
        ("[remote failure] (remote failed to report status)", "", "maybe"),
        ("[remote rejected] (unpacker error)", "error: remote unpack failed: eof", "maybe"),
        ("", "error: RPC failed; HTTP 502 curl 22\nfatal: the remote end hung up unexpectedly", "maybe"),
        ("", "fatal: unable to access 'https://h/x/': Could not resolve host: h", "not reached"),
        ("", "ssh: connect to host h port 22: Connection refused", "not reached"),
        (
            "",
            "remote: Permission to a/b.git denied to x.\nfatal: unable to access: The requested URL returned error: 403",
            "denied to x",
        ),
        (
            "",
            "fatal: loose object 1 (stored in objects/1) is corrupt\nfatal: the remote end hung up",
            "damaged",
        ),
    ],
)
def test_every_answer_to_a_push_is_understood(
    target: Target, reason: str, stderr: str, outcome: str | None
) -> None:
    """A race is tried again, a refusal is final, and after a broken connection only the remote knows."""
    line = f"!\t1234:refs/heads/main\t{reason}\n" if reason else ""
    output = Output(code=1, out=f"To https://h/x\n{line}", err=stderr)
    if outcome is None:
        check_race(output, target.repository)
    elif outcome == "damaged":
        with pytest.raises(Damaged) as damage:
            check_race(output, target.repository)
        assert damage.value.unsure
    elif outcome in ("maybe", "not reached"):
        with pytest.raises(Unavailable) as unavailable:
            check_race(output, target.repository)
        assert unavailable.value.maybe_done is (outcome == "maybe")
    else:
        with pytest.raises(Failed) as failed:
            check_race(output, target.repository)
        assert outcome in str(failed.value)
