"""The source hydrator: renders the chart at a dry commit and pushes the manifests to the branch that is synced."""

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json, RenderError
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.repo_server import MANIFEST, RepoServer
from bot.playground.argocd.specs import SimulatedApplication, Timings
from bot.playground.argocd.timeline import Timeline
from bot.playground.repository import head

_METADATA = "hydrator.metadata"
_AUTHOR = {"NAME": "Argo CD", "EMAIL": "argo-cd@example.com"}


class Hydrator:
    """Notices new dry commits of the applications that are hydrated; `hydrated` hears of each that is pushed."""

    def __init__(
        self,
        repository: Path,
        repo_server: RepoServer,
        timeline: Timeline,
        timings: Timings,
        hydrated: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._repo_server = repo_server
        self._timeline = timeline
        self._timings = timings
        self._hydrated = hydrated

    def look(self, application: Application, *, forced: bool) -> None:
        """Begin to hydrate if the dry branch is at a commit that was not tried yet."""
        spec = application.spec
        if spec.hydration is None:
            return
        try:
            dry = self._repo_server.resolve(spec.dry_source, forced=forced)
        except RenderError:
            return
        if dry == application.hydration.get("currentOperation", {}).get("drySHA"):
            return
        operation: Json = {
            "phase": "Hydrating",
            "drySHA": dry,
            "sourceHydrator": spec.source_hydrator,
            "startedAt": stamp(self._timeline.now),
        }
        application.hydration = application.hydration | {"currentOperation": operation}
        application.touch()
        self._timeline.after(self._timings.hydrate_takes, lambda: self._end(application, operation))

    def hydrate_now(self, application: Application) -> None:
        """Hydrate the present commit at once, so that there is a branch to deploy."""
        if application.spec.hydration is not None:
            operation: Json = {
                "drySHA": self._repo_server.resolve(application.spec.dry_source, forced=False),
                "sourceHydrator": application.spec.source_hydrator,
                "startedAt": stamp(self._timeline.now),
            }
            self._end(application, operation)

    def _end(self, application: Application, operation: Json) -> None:
        """Push what the dry commit renders to, unless a newer one has overtaken it."""
        current = application.hydration.get("currentOperation", operation)
        if current["drySHA"] != operation["drySHA"]:
            return
        dry, ended = operation["drySHA"], operation | {"finishedAt": stamp(self._timeline.now)}
        try:
            hydrated = self._push(application.spec, dry)
        except RenderError as error:
            ended |= {"phase": "Failed", "message": f"Failed to hydrate: {error}"}
            application.hydration = application.hydration | {"currentOperation": ended}
        else:
            ended |= {"phase": "Hydrated", "hydratedSHA": hydrated}
            done = {"drySHA": dry, "hydratedSHA": hydrated, "sourceHydrator": operation["sourceHydrator"]}
            application.hydration = {"currentOperation": ended, "lastSuccessfulOperation": done}
        application.touch()
        self._hydrated(application.spec.instance)

    def _push(self, spec: SimulatedApplication, dry: str) -> str:
        """Commit the rendered manifests and the dry commit they come from; the answer is the new commit."""
        if spec.hydration is None:
            raise RenderError("there is no branch to hydrate to")
        manifests = [manifest for _, manifest in self._repo_server.render_dry(spec, dry).items()]
        folder = spec.hydration.path
        written = StringIO()
        YAML(typ="safe", pure=True).dump_all(manifests, written)
        metadata = json.dumps({"repoURL": spec.repo_url, "drySha": dry}, indent=2)
        paths = {f"{folder}/{MANIFEST}": written.getvalue(), f"{folder}/{_METADATA}": metadata}
        return self._commit(spec.hydration.branch, paths, f"{dry[:7]}: hydrate {spec.name}")

    def _commit(self, branch: str, files: dict[str, str], message: str) -> str:
        """Put files on a branch of the bare repository, beside what is there."""
        before = head(self._repository, branch)
        index = self._repository / f"hydrator-{os.getpid()}.index"
        try:
            self._git("read-tree", before or "--empty", index=index)
            for path, text in files.items():
                blob = self._git("hash-object", "-w", "--stdin", text=text)
                self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
            tree = self._git("write-tree", index=index)
            parents = ["-p", before] if before else []
            commit = self._git("commit-tree", tree, *parents, "-m", message)
        finally:
            index.unlink(missing_ok=True)
        self._git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def _git(self, *arguments: str, index: Path | None = None, text: str = "") -> str:
        at = datetime.now(UTC).isoformat()
        environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_{key}": value for key, value in _AUTHOR.items()}
            environment[f"GIT_{role}_DATE"] = at
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self._repository,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()
