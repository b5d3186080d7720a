"""Where promote.yaml comes from is read in its own git work tree, of which nothing is run."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot.core.guarding import Deployed
from bot.guard_access import deployed
from bot.integrations import provenance
from bot.integrations.provenance import Origin, origin_of
from bot.settings import Settings

AMY, BEN = "Amy Chen <amy@acme.example>", "Ben Ruiz <ben@acme.example>"


class Checkout:
    """A work tree with promote.yaml in a folder of it, as somebody has cloned it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "-b", "main")
        self.file = folder / "deploy" / "promote.yaml"
        self.file.parent.mkdir()

    def git(self, *words: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        who = ("-c", "user.name=Sam Okafor", "-c", "user.email=sam@acme.example")
        done = subprocess.run(
            ["git", *who, *words],
            cwd=self.folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, text: str, *, author: str = AMY, path: str = "deploy/promote.yaml") -> str:
        (self.folder / path).write_text(text)
        self.git("add", path)
        self.git("commit", "--quiet", "-m", "Change it", f"--author={author}")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "config")


def read(file: Path, **environ: str) -> Deployed:
    return deployed(Settings(environ={"PROMOTE_CONFIG": str(file), **environ}))


def test_the_newest_commit_that_changed_the_file_is_told(checkout: Checkout) -> None:
    """Whoever changed something else since has not changed the rules."""
    checkout.commit("version: 1\n")
    revision = checkout.commit("version: 1\n# more\n", author=BEN)
    checkout.commit("hello\n", path="README.md")
    with capture_logs() as logs:
        assert read(checkout.file) == Deployed(revision=revision, author="ben@acme.example")
    assert logs == []


def test_a_merge_is_not_who_changed_it(checkout: Checkout) -> None:
    """Who merges a pull request has not written it."""
    checkout.commit("version: 1\n")
    checkout.git("checkout", "--quiet", "-b", "more")
    revision = checkout.commit("version: 1\n# more\n", author=BEN)
    checkout.git("checkout", "--quiet", "main")
    checkout.commit("hello\n", path="README.md")
    checkout.git("merge", "--quiet", "--no-ff", "--no-edit", "more")
    assert read(checkout.file) == Deployed(revision=revision, author="ben@acme.example")


@pytest.mark.parametrize(
    ("name", "value"), [("PROMOTE_CONFIG_REVISION", "3f9c2a1b"), ("PROMOTE_CONFIG_AUTHOR", "U0AMY")]
)
def test_what_whoever_deploys_it_says_is_enough(checkout: Checkout, name: str, value: str) -> None:
    """Half of it is not made up from a folder that may be another one."""
    checkout.commit("version: 1\n")
    found = read(checkout.file, **{name: value})
    assert found in (Deployed(revision=value), Deployed(author=value))


def test_a_worktree_and_a_link_lead_to_the_same_file(checkout: Checkout, tmp_path: Path) -> None:
    """As git-sync lays it down: a link to a work tree whose repository is elsewhere."""
    revision = checkout.commit("version: 1\n")
    checkout.git("worktree", "add", "--quiet", str(tmp_path / "worktree"))
    (tmp_path / "current").symlink_to(tmp_path / "worktree")
    file = tmp_path / "current" / "deploy" / "promote.yaml"
    assert read(file) == Deployed(revision=revision, author="amy@acme.example")


def edited(checkout: Checkout) -> None:
    checkout.commit("version: 1\n")
    checkout.file.write_text("version: 1\n# not committed\n")


def staged(checkout: Checkout) -> None:
    edited(checkout)
    checkout.git("add", "deploy/promote.yaml")


def untracked(checkout: Checkout) -> None:
    checkout.commit("hello\n", path="README.md")
    checkout.file.write_text("version: 1\n")


def without_a_commit(checkout: Checkout) -> None:
    checkout.file.write_text("version: 1\n")


def shallow(checkout: Checkout) -> None:
    """The last commit alone, which is not the one that changed the file."""
    checkout.commit("version: 1\n")
    checkout.commit("hello\n", path="README.md", author=BEN)
    clone = checkout.folder.with_name("clone")
    checkout.git("clone", "--quiet", "--depth=1", checkout.folder.as_uri(), str(clone))
    checkout.file = clone / "deploy" / "promote.yaml"


def damaged(checkout: Checkout) -> None:
    checkout.commit("version: 1\n")
    for each in (checkout.folder / ".git" / "objects").rglob("*"):
        if each.is_file():
            each.unlink()


def in_a_strange_repository(checkout: Checkout) -> None:
    checkout.commit("version: 1\n")
    checkout.git("config", "core.repositoryformatversion", "99")


@pytest.mark.parametrize(
    ("lay", "reason"),
    [
        (edited, "the file is not as the newest commit has it"),
        (staged, "the file is not as the newest commit has it"),
        (untracked, "the file is in no commit"),
        (without_a_commit, "the file is in no commit"),
        (shallow, "the clone is shallow"),
        (damaged, "the file is in no commit"),
        (in_a_strange_repository, "the file is in no commit"),
    ],
)
def test_what_git_cannot_vouch_for_is_unknown(
    checkout: Checkout, lay: Callable[[Checkout], None], reason: str
) -> None:
    """Nobody is barred, and nothing is claimed, by a commit that does not hold this very file; the log says why."""
    lay(checkout)
    with capture_logs() as logs:
        assert read(checkout.file) == Deployed()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("revision of the rules unknown", "warning")
    assert line["reason"].startswith(reason)


@pytest.mark.parametrize(
    "place", ["config", "HEAD", "index", "commondir", "shallow", "objects/info/alternates"]
)
@pytest.mark.parametrize("rubbish", [b"", b"\xff\x00 = [", b"[core\nx", b"[core]\n\tworktree = /nowhere\n"])
def test_whatever_is_broken_it_starts(checkout: Checkout, place: str, rubbish: bytes) -> None:
    """A repository that is in disorder bars nobody, and stops nothing."""
    revision = checkout.commit("version: 1\n")
    file = checkout.folder / ".git" / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(rubbish)
    assert origin_of(checkout.file).revision in ("", revision)


def test_a_file_outside_every_repository_is_nothing_to_talk_of(tmp_path: Path) -> None:
    """As most deployments have it: mounted from a ConfigMap."""
    (tmp_path / "promote.yaml").write_text("version: 1\n")
    with capture_logs() as logs:
        assert read(tmp_path / "promote.yaml") == Deployed()
    assert logs == []


def test_a_folder_of_somebody_else_is_not_believed(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git itself has it: whoever owns the repository could say anything."""
    checkout.commit("version: 1\n")
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    assert origin_of(checkout.file) == Origin(doubt="the repository belongs to somebody else")


def test_without_git_it_is_unknown(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot says so when it needs git; this is no reason not to start."""
    checkout.commit("version: 1\n")
    monkeypatch.setenv("PATH", "/nowhere")
    origin = origin_of(checkout.file)
    assert (origin.revision, origin.author) == ("", "")
    assert origin.doubt.startswith("FileNotFoundError")


def test_a_git_that_hangs_is_not_waited_for(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start is not held up by a broken disk."""
    checkout.commit("version: 1\n")
    hanging = tmp_path / "bin" / "git"
    hanging.parent.mkdir()
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{hanging.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "WITHIN", 0.2)
    assert origin_of(checkout.file) == Origin(doubt="git did not answer in time")


def test_nothing_that_the_repository_names_is_run(checkout: Checkout, tmp_path: Path) -> None:
    """Hooks, filters, pagers, signature checks and helpers are programs, and this one belongs to whoever writes there."""
    revision = checkout.commit("version: 1\n")
    ran, trap = tmp_path / "ran", tmp_path / "trap"
    trap.write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\ncat\n')
    trap.chmod(0o755)
    for key in (
        *("core.fsmonitor", "core.pager", "pager.rev-list", "core.editor", "core.sshCommand", "gpg.program"),
        *(
            "diff.external",
            "diff.trap.textconv",
            "filter.trap.clean",
            "filter.trap.process",
            "alias.rev-list",
        ),
        *("credential.helper", "core.alternateRefsCommand", "uploadpack.packObjectsHook"),
    ):
        checkout.git(
            "config", key, f"!{trap}" if key in ("alias.rev-list", "credential.helper") else str(trap)
        )
    checkout.git("config", "log.showSignature", "true")
    (checkout.folder / ".git" / "info" / "attributes").write_text("* filter=trap diff=trap\n")
    hooks = checkout.folder / ".git" / "hooks"
    for name in ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
        (hooks / name).write_bytes(trap.read_bytes())
        (hooks / name).chmod(0o755)
    assert read(checkout.file) == Deployed(revision=revision, author="amy@acme.example")
    assert not ran.exists()


@pytest.mark.parametrize("url", ["ssh://git.example.com/config.git", "ext::{trap} %S", "file:///{trap}"])
def test_what_is_missing_is_not_fetched(checkout: Checkout, tmp_path: Path, url: str) -> None:
    """A partial clone fetches what it lacks by a command that its own configuration names."""
    checkout.commit("version: 1\n")
    ran, trap = tmp_path / "ran", tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho ran >> {ran}\nexit 1\n")
    trap.chmod(0o755)
    tree = checkout.git("rev-parse", "HEAD^{tree}")
    (checkout.folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": url.format(trap=trap),
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(trap),
        "core.sshCommand": str(trap),
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
        "protocol.file.allow": "always",
        "protocol.ssh.allow": "always",
    }.items():
        checkout.git("config", key, value)
    assert read(checkout.file) == Deployed()
    assert not ran.exists()
    subprocess.run(["git", "cat-file", "-p", tree], cwd=checkout.folder, check=False, capture_output=True)
    assert ran.exists(), "the trap works"
