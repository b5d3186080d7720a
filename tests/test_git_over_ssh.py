"""Commits to a git host over SSH: Debian's own sshd and ssh, with keys of their own."""

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import require
from git_bench import BOT, commits, edit_of, is_quiet
from git_hosts import ROOM, VALUES, Remote
from ssh_host import SshHost, known_hosts, make_key, ssh_host

from bot.core.catalog import Target
from bot.core.errors import Failed, PromoteError, Unavailable
from bot.integrations.gitops import Credential, GitRepository

pytestmark = pytest.mark.timeout(60)

SPY = """\
#!/bin/sh
echo "$@" >>{folder}/arguments
{ssh} -G "$@" >{folder}/effective
exec {ssh} "$@"
"""


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SshHost]:
    with ssh_host(tmp_path / "ssh") as made:
        yield made


@pytest.fixture
def target(remote: Remote, host: SshHost) -> Target:
    return remote.target(host.url(remote.folder))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
async def online(cache: Path, host: SshHost) -> AsyncIterator[GitRepository]:
    async with aclosing(over_ssh(cache, host.credential)) as made:
        yield made


def over_ssh(cache: Path, credential: Credential, *, timeout: float = 10) -> GitRepository:
    return GitRepository(cache=cache, committer=BOT, credentials={"gitops": credential}, timeout=timeout)


async def refusal(cache: Path, credential: Credential, target: Target) -> str:
    """The words that end a question to a host that lets us not in."""
    async with aclosing(over_ssh(cache, credential)) as repository:
        with pytest.raises(Failed) as error:
            await repository.plan(target, "v15")
    return str(error.value)


async def test_a_commit_over_ssh_lands(online: GitRepository, target: Target, remote: Remote) -> None:
    """The value is on the remote branch, as one commit, and `find` knows it."""
    await online.probe(target)
    plan = await online.plan(target, "v15")
    edit = edit_of(target, plan.base)
    revision = await online.commit(edit)
    assert remote.text() == VALUES.replace("v14", "v15")
    assert (remote.tip, commits(remote)) == (revision, 2)
    assert await online.find(edit) == revision


async def test_the_host_is_asked_for_the_repository_alone(
    online: GitRepository, host: SshHost, target: Target, remote: Remote
) -> None:
    """Reading and writing that very path are the only two commands that it hears."""
    await online.commit(edit_of(target, remote.first))
    assert set(host.requests) == {
        f"git-upload-pack '{remote.folder}'",
        f"git-receive-pack '{remote.folder}'",
    }


@pytest.mark.parametrize("known", ["nothing", "no such file", "another key", "another port"])
async def test_a_host_that_cannot_prove_itself_is_told_nothing(
    tmp_path: Path, cache: Path, remote: Remote, known: str
) -> None:
    """A host key that is unknown or has changed ends it before the user's name or key is shown."""
    with ssh_host(tmp_path / "ssh") as host:
        mine = host.folder / "known_hosts"
        if known == "another key":
            known_hosts(host, make_key(tmp_path / "another_key"), mine)
        elif known == "another port":
            mine.write_text(mine.read_text().replace(str(host.port), "22"))
        elif known == "no such file":
            mine.unlink()
        credential = host.credential if known != "nothing" else replace(host.credential, known_hosts=None)
        words = await refusal(cache, credential, remote.target(host.url(remote.folder)))
    assert not [line for line in host.log if "user" in line]
    assert host.requests == []
    assert "host key" in words.lower()


async def test_a_key_that_is_not_authorised_is_named_as_the_reason(
    cache: Path, host: SshHost, target: Target, tmp_path: Path
) -> None:
    """“Could not read” alone sends people to look in the wrong place."""
    stranger = replace(host.credential, ssh_key=make_key(tmp_path / "stranger"))
    assert "Permission denied (publickey)" in await refusal(cache, stranger, target)
    assert host.requests == []


@pytest.mark.parametrize(
    "words",
    [
        "ERROR: Repository not found.",
        "ERROR: The project you were looking for could not be found or you don’t have permission to view it.",
    ],
)
@pytest.mark.parametrize("prefix", ["", "remote: "])
async def test_a_host_that_lets_us_in_and_then_refuses_is_quoted(
    cache: Path, host: SshHost, target: Target, prefix: str, words: str
) -> None:
    """Over SSH a host's own words need no `remote:` before them, and asking again does not help."""
    host.refuse(prefix + words)
    assert words.rstrip(".") in await refusal(cache, host.credential, target)


async def test_a_protected_branch_speaks_in_its_own_words(
    online: GitRepository, target: Target, remote: Remote
) -> None:
    """What the hook says is why it failed, and the branch stays as it was."""
    remote.hook("echo 'GL-HOOK-ERR: main is frozen until Monday.' >&2\nexit 1")
    with pytest.raises(
        Failed, match=r"GL-HOOK-ERR: main is frozen until Monday \(pre-receive hook declined\)"
    ):
        await online.commit(edit_of(target, remote.first))
    assert remote.tip == remote.first


@pytest.mark.parametrize(("service", "maybe_done"), [("upload-pack", False), ("receive-pack", True)])
async def test_a_host_that_hangs_ends_in_time_and_leaves_no_process(
    cache: Path, host: SshHost, target: Target, remote: Remote, service: str, maybe_done: bool
) -> None:
    """Neither git nor its ssh outlives the limit; only a push that was under way may have been carried out."""
    async with aclosing(over_ssh(cache, host.credential, timeout=2)) as repository:
        plan = await repository.plan(target, "v15")
        theirs = remote.push({"README.md": "so that the tip has to be fetched\n"})
        host.hang(service)
        began_at = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await (
                repository.plan(target, "v15")
                if service == "upload-pack"
                else _commit(repository, target, plan.base)
            )
        assert time.monotonic() - began_at < 8
        assert host.reached.exists()
        assert error.value.maybe_done is maybe_done
        assert is_quiet(cache)
        assert remote.tip == theirs


async def _commit(repository: GitRepository, target: Target, base: str) -> None:
    await repository.commit(edit_of(target, base))


async def test_a_push_whose_answer_is_lost_is_found_and_not_made_again(
    online: GitRepository, host: SshHost, target: Target, remote: Remote
) -> None:
    """The line is cut after the branch moved: only the remote knows, and it holds exactly one commit."""
    edit = edit_of(target, remote.first)
    host.cut()
    with pytest.raises(Unavailable) as error:
        await online.commit(edit)
    assert error.value.maybe_done
    host.serve()
    assert commits(remote) == 2
    assert await online.find(edit) == remote.tip
    assert await online.commit(edit) == remote.tip
    assert commits(remote) == 2


@pytest.mark.parametrize(
    "address",
    [
        "ssh://-oProxyCommand=touch${{IFS}}{ran}/x.git",
        "ssh://{login}@-oProxyCommand=touch${{IFS}}{ran}/x.git",
        "git@-oProxyCommand:x.git",
        "git@127.0.0.1:--upload-pack=touch${{IFS}}{ran}",
        "ssh://{login}@127.0.0.1:{port}/--upload-pack=touch${{IFS}}{ran}",
        "ssh://{login}@127.0.0.1:{port}/x';touch${{IFS}}{ran};'",
        "ssh://{login}@127.0.0.1:{port}/$(touch${{IFS}}{ran})",
        "ssh://{login}@127.0.0.1:{port}/`touch${{IFS}}{ran}`",
    ],
)
async def test_a_command_in_disguise_is_never_run(
    cache: Path, host: SshHost, target: Target, tmp_path: Path, address: str
) -> None:
    """Neither here nor on the host is a part of an address taken for an option or for words of a shell."""
    ran = tmp_path / "ran"
    login = host.address.partition("@")[0]
    url = address.format(ran=ran, login=login, port=host.port)
    async with aclosing(over_ssh(cache, host.credential)) as repository:
        with pytest.raises(PromoteError):
            await repository.plan(replace(target, repository=replace(target.repository, url=url)), "v15")
    assert not ran.exists()


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the real ssh is called with, and what it makes of it."""
    folder = tmp_path / "spy"
    folder.mkdir()
    (folder / "ssh").write_text(SPY.format(folder=folder, ssh=require("ssh", "openssh-client")))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def effective(spy: Path) -> dict[str, list[str]]:
    """The configuration that ssh worked with: each option's values."""
    options: dict[str, list[str]] = {}
    for line in (spy / "effective").read_text().splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return options


async def test_ssh_works_with_our_configuration_alone(
    spy: Path, online: GitRepository, host: SshHost, target: Target
) -> None:
    """The files of the user and of the machine are not read, and the key is the only one that is offered."""
    await online.plan(target, "v15")
    assert "-F /dev/null" in (spy / "arguments").read_text()
    options = effective(spy)
    assert options["identityfile"] == [str(host.credential.ssh_key)]
    assert options["identitiesonly"] == ["yes"]
    assert options["userknownhostsfile"] == [str(host.credential.known_hosts)]
    assert options["globalknownhostsfile"] == ["/dev/null"]
    assert options["stricthostkeychecking"] == ["true"]
    assert options["batchmode"] == ["yes"]
    assert options["forwardagent"] == ["no"]
    assert not {"proxycommand", "proxyjump", "controlpath"} & options.keys()


async def test_without_a_key_of_ours_none_of_the_machine_is_offered(
    spy: Path, cache: Path, host: SshHost, target: Target
) -> None:
    """A key in somebody's home folder was not given to the bot."""
    await refusal(cache, replace(host.credential, ssh_key=None), target)
    assert effective(spy)["identityfile"] == ["none"]


@contextmanager
def agent(folder: Path, key: Path) -> Iterator[str]:
    """An ssh-agent that holds a key; yields its socket."""
    address = folder / "agent"
    command = [require("ssh-agent", "openssh-client"), "-D", "-a", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "SSH_AUTH_SOCK" in process.stdout.readline()
            add = ["ssh-add", "-q", key]
            subprocess.run(add, check=True, env=ROOM | {"SSH_AUTH_SOCK": str(address)}, capture_output=True)
            yield str(address)
        finally:
            process.terminate()


@pytest.mark.parametrize("has_key", [True, False])
async def test_an_agent_has_no_say(
    cache: Path, host: SshHost, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_key: bool
) -> None:
    """An agent whose key the host lets in, as it does for a plain ssh, is not asked."""
    stranger = make_key(tmp_path / "stranger") if has_key else None
    with agent(tmp_path, host.folder / "client_key") as address:
        monkeypatch.setenv("SSH_AUTH_SOCK", address)
        await refusal(cache, replace(host.credential, ssh_key=stranger), target)
        assert host.requests == []
        plain = ["ssh", "-F", os.devnull, "-o", f"UserKnownHostsFile={host.credential.known_hosts}"]
        subprocess.run([*plain, "-p", str(host.port), host.address, "true"], check=True)
    assert host.requests == ["true"]


@pytest.mark.parametrize("name", ["two words", "it's", "100%"])
async def test_files_may_lie_in_any_folder(
    cache: Path, host: SshHost, target: Target, remote: Remote, tmp_path: Path, name: str
) -> None:
    """Nothing in a path is taken for an end, for a token of ssh, or for a variable."""
    folder = tmp_path / name
    folder.mkdir()
    files = {
        "ssh_key": folder / "client_key",
        "known_hosts": folder / "known_hosts",
    }
    for file in files.values():
        shutil.copy(host.folder / file.name, file)
    async with aclosing(over_ssh(cache, Credential(**files))) as repository:
        assert (await repository.plan(target, "v15")).base == remote.tip
