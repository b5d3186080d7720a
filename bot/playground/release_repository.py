"""A GitOps repository of the other shape: `main` is dev, `release` is stage, and a tag that a file of `main` names is prod.

One chart and three values files, as in the sample repository; the version stands once, in the chart's values.yaml.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bot.playground import repository as git

ENVIRONMENTS = ("dev", "stage", "prod")
MANIFEST = "argocd/{app}-prod.yaml"
_MANIFEST_TEXT = """\
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: {app}-prod
spec:
  source:
    repoURL: {url}
    targetRevision: v14  # moved by the bot
    path: .
"""
_WHO = {"NAME": "Priya Nair", "EMAIL": "priya.nair@acme.example"}


def create_release_repository(folder: Path, app: str) -> Path:
    """Make the repository of an app in `folder`, with version 14 everywhere; one that is there is returned as it is."""
    is_new = not (folder / git.NAME).exists()
    repository = git.create_repository(folder)
    if is_new:
        lay_out(repository, app)
    return repository


def lay_out(repository: Path, app: str) -> str:
    """Bring the sample repository into this shape, and return the first revision that has it."""
    files = {
        path: text.replace("manual-app", app)
        for path, text in git.read_tree(repository, git.BRANCH).items()
        if not path.startswith("templates/")
    }
    for environment in ENVIRONMENTS:
        path = f"values-{environment}.yaml"
        files[path] = re.sub(r"^(?: *# The version.*\n)? *tag: .*\n", "", files[path], flags=re.MULTILINE)
    files[MANIFEST.format(app=app)] = _MANIFEST_TEXT.format(app=app, url=repository.as_uri())
    first = commit(repository, files, message=f"Let {app} follow branches and tags")
    _git(repository, "update-ref", "refs/heads/release", first)
    _git(repository, "tag", "-a", "v14", "-m", "The first release", first)
    return first


def commit(repository: Path, files: Mapping[str, str], *, message: str) -> str:
    """Commit these texts on top of `main`, without a clone; returns the revision."""
    index = repository / f"release-{os.getpid()}.index"
    try:
        _git(repository, "read-tree", git.BRANCH, index=index)
        for path, text in files.items():
            blob = _git(repository, "hash-object", "-w", "--stdin", text=text)
            _git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
        tree = _git(repository, "write-tree", index=index)
    finally:
        index.unlink(missing_ok=True)
    revision = _git(repository, "commit-tree", tree, "-p", git.BRANCH, "-m", message)
    _git(repository, "update-ref", f"refs/heads/{git.BRANCH}", revision)
    return revision


def refs(repository: Path) -> str:
    """Its branches and tags, one a line, each with its revision and the version that it holds; for people."""
    layout = "%(refname:short)%00%(objectname:short=7)%00%(*objectname:short=7)"
    listed = _git(repository, "for-each-ref", f"--format={layout}", "refs/heads", "refs/tags")
    rows = [line.split("\0") for line in listed.splitlines()]
    width = max(len(name) for name, _, _ in rows)
    return "".join(
        f"{name:<{width}}  {peeled or revision}  {_version(repository, peeled or revision)}\n"
        for name, revision, peeled in rows
    )


def _version(repository: Path, revision: str) -> str:
    found = re.search(r'tag: "?([^"\s]+)', git.read_file(repository, "values.yaml", revision))
    return found[1] if found else ""


def _git(repository: Path, *words: str, index: Path | None = None, text: str | None = None) -> str:
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _WHO.items()}
    environment = {"PATH": os.environ.get("PATH", os.defpath), "GIT_CONFIG_GLOBAL": os.devnull, **who}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    done = subprocess.run(
        ["git", *words],
        cwd=repository,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
