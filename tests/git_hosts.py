"""Git hosts on loopback: bare repositories, and git's own HTTP backend behind a real server.

`HttpHost` can ask for a token, stand in for a slow network, fall silent, cut the line, or answer nonsense.
"""

import os
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bot.core.catalog import Repository, RolloutPolicy, Target
from bot.core.policy import Policy

PATH = "apps/manual-app/values-prod.yaml"
VALUES = "image:\n  tag: v14 # ours\nsidecar: {tag: 'v14'}\n"
ROOM = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class Remote:
    """A bare repository as a git host has it, and the people who push to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True, env=ROOM)
        self.git("config", "http.receivepack", "true")
        self.first = self.push({PATH: VALUES, "README.md": "hello\n", "apps/other/values.yaml": "tag: v1\n"})

    def git(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=ROOM,
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def push(
        self, files: dict[str, str], *, message: str = "Change", who: str = "Ann <ann@acme.example>"
    ) -> str:
        """Somebody's commit on `main`; returns its revision."""
        has_tip = (self.folder / "refs/heads/main").exists()
        stream = [
            f"commit refs/heads/main\ncommitter {who} 1700000000 +0000\ndata {len(message)}\n{message}\n"
        ]
        stream += ["from refs/heads/main^0\n"] if has_tip else []
        stream += [f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in files.items()]
        self.git("fast-import", "--quiet", stdin="".join(stream))
        return self.tip

    @property
    def tip(self) -> str:
        return self.git("rev-parse", "refs/heads/main")

    def text(self, path: str = PATH) -> str:
        return self.git("show", f"refs/heads/main:{path}") + "\n"

    def hook(self, script: str) -> None:
        hook = self.folder / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)

    def target(
        self, url: str | None = None, *, keys: tuple[str, ...] = ("image.tag", "sidecar.tag")
    ) -> Target:
        return Target(
            app="manual-app",
            environment="prod",
            repository=Repository(name="gitops", url=url or f"file://{self.folder}", branch="main"),
            path=PATH,
            keys=keys,
            image="ghcr.io/acme/manual-app",
            applications=(),
            channel="C1",
            policy=Policy(),
            rollout=RolloutPolicy(),
        )


class HttpHost(ThreadingHTTPServer):
    """Git's own HTTP backend for every repository in `folder`, on a free port; close with the context manager.

    With `token`, only the user `bot` with that token is let in. `round_trip` (seconds) is added to every request,
    and three times to every new connection, as TCP and TLS cost them.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, token: str | None = None, round_trip: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.folder = folder
        self.authorization = f"Basic {b64encode(f'bot:{token}'.encode()).decode()}" if token else None
        self.round_trip = round_trip
        self.silent_on: str | None = None
        """Requests whose address holds this are heard and never answered."""
        self.hold_on: str | None = None
        """Requests whose address holds this wait until `released` is set."""
        self.released = threading.Event()
        self.cut_on: str | None = None
        """Requests whose address holds this are carried out, and then the line is cut."""
        self.answer: tuple[int, bytes] | None = None
        """The status and body of every answer, instead of git's."""
        self.reached = threading.Event()
        """Was a request heard that is not answered, or has to wait?"""
        self.ending = threading.Event()
        self.requests: list[str] = []
        self.received = 0
        """Bytes of all requests' bodies so far."""

    def url(self, name: str = "remote.git") -> str:
        """The address of one repository."""
        return f"http://127.0.0.1:{self.server_port}/{name}"


@contextmanager
def http_host(folder: Path, *, token: str | None = None, round_trip: float = 0.0) -> Iterator[HttpHost]:
    """A host that serves until the end of the block."""
    with HttpHost(folder, token=token, round_trip=round_trip) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield host
        finally:
            host.ending.set()
            host.shutdown()
            thread.join()


class _Backend(BaseHTTPRequestHandler):
    server: HttpHost
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        time.sleep(3 * self.server.round_trip)

    def do_GET(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.serve(body)

    def serve(self, body: bytes) -> None:
        time.sleep(self.server.round_trip)
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.received += len(body)
        path, _, query = self.path.partition("?")
        if self.server.hold_on and self.server.hold_on in self.path:
            self.server.reached.set()
            self.server.released.wait(30)
        if self.server.silent_on and self.server.silent_on in self.path:
            self.server.reached.set()
            self.server.ending.wait(30)
            self.close_connection = True
        elif self.server.answer:
            self.reply(self.server.answer[0], {"Content-Type": "text/plain"}, self.server.answer[1])
        elif self.server.authorization not in (None, self.headers.get("Authorization")):
            self.reply(401, {"WWW-Authenticate": "Basic realm=x"}, b"")
        else:
            self.backend(path, query, body)

    def backend(self, path: str, query: str, body: bytes) -> None:
        variables = {
            **ROOM,
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "bot",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, check=True
        )
        if self.server.cut_on and self.server.cut_on in self.path:
            self.close_connection = True
            return
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.reply(int(headers.pop("Status", "200").split()[0]), headers, content)

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
