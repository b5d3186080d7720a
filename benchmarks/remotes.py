"""GitOps repositories of several sizes, and copies of them behind `file://` and smart HTTP."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from git_hosts import ROOM, HttpHost, Remote

from bot.core.catalog import Target

TRANSPORTS = {"file": "file://", "http": "smart HTTP, 30 ms"}
BLOCK = """\
# Values of {app} in {block}; whoever changes them tells the team
{block}:
  # How many pods there are, and how a new version takes their place
  replicas: 3
  strategy:
    type: RollingUpdate # one pod at a time
    maxSurge: 1
    maxUnavailable: 0
  # What each pod asks for, and what it must not exceed
  resources:
    requests: {{cpu: 100m, memory: 256Mi}}
    limits:
      cpu: "1"
      memory: 512Mi
  # Where it can be reached from; a certificate is made for each host
  ingress:
    enabled: true
    className: nginx
    annotations:
      cert-manager.io/cluster-issuer: letsencrypt-production
    hosts:
      - host: {app}.acme.example
        paths: ["/"]
  # Settings are read once, when the pod starts: a change restarts it
  env:
    - name: LOG_LEVEL
      value: info
    - name: OTEL_EXPORTER_OTLP_ENDPOINT
      value: http://collector.observability.svc.cluster.local:4317
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a repository is: a tenth of its files are values files of apps, the others lie in `folders`."""

    files: int
    folders: int
    commits: int = 1

    @property
    def name(self) -> str:
        """`10,000 files`."""
        return f"{self.files:,} files"

    @property
    def apps(self) -> int:
        """How many entries `apps/` has."""
        return self.files // 10

    def build(self, folder: Path) -> Remote:
        """The repository, made by `git fast-import`."""
        remote = Remote(folder)
        others = self.files - self.apps
        files = {path(number): values(number) for number in range(self.apps)}
        files |= {
            f"teams/team-{number % self.folders:03}/config-{number:05}.yaml": BLOCK.format(
                app=f"config-{number:05}", block="config"
            )
            for number in range(others)
        }
        stream = [_commit("Everything"), "from refs/heads/main^0\ndeleteall\n"]
        stream += [_file(path, text) for path, text in files.items()]
        for number in range(1, self.commits):
            app = number % self.apps
            stream += [_commit(f"Change {number}"), _file(path(app), values(app, f"1.0.{number}"))]
        remote.git("fast-import", "--quiet", stdin="".join(stream))
        return remote


SMALL = Shape(files=100, folders=10)
MEDIUM = Shape(files=10_000, folders=100, commits=1_000)
LARGE = Shape(files=100_000, folders=100)


def path(app: int) -> str:
    """The values file of an app, by its number."""
    return f"apps/app-{app:05}/values.yaml"


def values(app: int, version: str = "1.0.0") -> str:
    """A values file of about sixty lines."""
    name = f"app-{app:05}"
    head = f"image:\n  repository: ghcr.io/acme/{name}\n  tag: {version} # set by promote-bot\n"
    return head + "".join(BLOCK.format(app=name, block=block) for block in ("web", "worker"))


class Hosts:
    """Where copies of the repositories can be reached; none shares a branch with another."""

    def __init__(self, folder: Path, http: HttpHost) -> None:
        self.http = http
        self._folder = folder

    def copy(self, original: Remote, name: str) -> Path:
        """One more copy; its objects are hard links to the original's."""
        copy = self._folder / f"{name}.git"
        subprocess.run(["git", "clone", "-q", "--bare", original.folder, copy], check=True, env=ROOM)
        subprocess.run(["git", "config", "http.receivepack", "true"], cwd=copy, check=True, env=ROOM)
        return copy

    def url(self, copy: Path, transport: str) -> str:
        """The address of a copy."""
        return f"file://{copy}" if transport == "file" else self.http.url(copy.name)


def target(original: Remote, url: str, app: int) -> Target:
    """An app in a repository."""
    return replace(original.target(url, keys=("image.tag",)), app=f"app-{app:05}", path=path(app))


def _commit(message: str) -> str:
    who = "Ann <ann@acme.example> 1700000000 +0000"
    return f"commit refs/heads/main\ncommitter {who}\ndata {len(message)}\n{message}\n"


def _file(path: str, text: str) -> str:
    return f"M 100644 inline {path}\ndata {len(text)}\n{text}\n"
