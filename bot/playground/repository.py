"""The sample GitOps repository: one Helm chart, a values file for each environment, bare and ready to be pushed to."""

import os
import re
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from bot.core.ranges import Range, Version

NAME = "manual-app-helm.git"
BRANCH = "main"
_CHART = Path(__file__).parent / "chart"
_AUTHOR = {"NAME": "Priya Nair", "EMAIL": "priya.nair@acme.example"}
_FIELDS = ("%H", "%an <%ae>", "%cn <%ce>", "%ct", "%s", "%b", "%(trailers:only,unfold)")


class GitRefused(Exception):
    """Git ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of the sample repository, as a page shows it."""

    revision: str
    author: str
    committer: str
    at: datetime
    subject: str
    body: str
    trailers: list[tuple[str, str]]


def create_repository(folder: Path) -> Path:
    """Make the bare repository `manual-app-helm.git` in `folder` with one commit on `main`, and return its path.

    A repository that is there already is returned as it is, so that a demo can be started again on its own history.
    """
    folder.mkdir(parents=True, exist_ok=True)
    repository = folder / NAME
    if repository.exists():
        return repository
    with TemporaryDirectory(dir=folder) as workshop:
        draft = Path(workshop) / NAME
        _git(folder, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(draft))
        _git(draft, "config", "uploadpack.allowFilter", "true")
        _git(draft, "config", "uploadpack.allowAnySHA1InWant", "true")
        _commit_chart(draft, index=Path(workshop) / "index")
        (draft / "COMMIT_EDITMSG").unlink()
        draft.rename(repository)
    return repository


def head(repository: Path, branch: str = BRANCH) -> str | None:
    """The revision a branch points at, or None if there is no such branch."""
    try:
        return _git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").decode().strip()
    except GitRefused:
        return None


def resolve(repository: Path, name: str) -> str | None:
    """The revision that Argo CD means by a branch, a tag, or a range of tags such as `v1.*`; None for none of them."""
    followed = Range.parse(name.removeprefix("refs/tags/"))
    if followed is None:
        return head(repository, name) or _tagged(repository, name.removeprefix("refs/tags/"))
    tags = _git(repository, "tag", "--list").decode().split()
    versions = {version: tag for tag in tags if followed.admits(tag) and (version := Version.parse(tag))}
    return _tagged(repository, versions[max(versions)]) if versions else None


def _tagged(repository: Path, tag: str) -> str | None:
    try:
        return _git(repository, "rev-parse", "--verify", f"refs/tags/{tag}^{{commit}}").decode().strip()
    except GitRefused:
        return None


def read_file(repository: Path, path: str, revision: str = BRANCH) -> str:
    """The text of one file as a revision has it; raises GitRefused if it has none."""
    return _git(repository, "cat-file", "blob", f"{revision}:{path}").decode()


def read_tree(repository: Path, revision: str) -> dict[str, str]:
    """Every file of a revision: path to text."""
    archive = _git(repository, "archive", "--format=tar", revision)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        return {
            member.name: content.read().decode(errors="replace")
            for member in tar.getmembers()
            if (content := tar.extractfile(member)) is not None
        }


def log(repository: Path, limit: int = 20) -> list[Commit]:
    """The newest commits of `main`, newest first."""
    pretty = "%x1f".join(_FIELDS) + "%x1e"
    text = _git(repository, "log", f"--max-count={limit}", f"--format={pretty}", BRANCH).decode(
        errors="replace"
    )
    return [_commit(record.lstrip("\n")) for record in text.split("\x1e") if record.strip()]


def _commit(record: str) -> Commit:
    revision, author, committer, at, subject, body, trailers = record.split("\x1f")
    return Commit(
        revision=revision,
        author=author,
        committer=committer,
        at=datetime.fromtimestamp(int(at), tz=UTC),
        subject=subject,
        body=body.strip(),
        trailers=[
            (match["key"], match["value"])
            for line in trailers.splitlines()
            if (match := re.match(r"(?P<key>[\w-]+):\s*(?P<value>.*)", line))
        ],
    )


def _commit_chart(repository: Path, *, index: Path) -> None:
    """Commit the chart's files with an index outside the repository: a bare one keeps none."""
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _AUTHOR.items()}
    environment = {**who, "GIT_INDEX_FILE": str(index)}
    _git(repository, f"--work-tree={_CHART}", "add", "--all", ".", environment=environment, at=_CHART)
    message = "Add the chart of manual-app\n\nThree environments, one chart. All of them run version 14."
    _git(
        repository,
        f"--work-tree={_CHART}",
        "commit",
        "--quiet",
        "-m",
        message,
        environment=environment,
        at=_CHART,
    )


def _git(
    repository: Path, *arguments: str, environment: Mapping[str, str] | None = None, at: Path | None = None
) -> bytes:
    """Run git in an environment built from nothing, so that no configuration of this machine changes the answer."""
    git_dir = () if arguments[0] == "init" else (f"--git-dir={repository}",)
    result = subprocess.run(
        ["git", *git_dir, *arguments],
        capture_output=True,
        check=False,
        cwd=at or repository,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(repository),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
            **(environment or {}),
        },
    )
    if result.returncode != 0:
        raise GitRefused(
            result.stderr.decode(errors="replace").strip() or f"git ended with {result.returncode}"
        )
    return result.stdout
