"""A git host over SSH on loopback: Debian's own sshd, with keys of its own, and what it does at a request."""

import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from conftest import require
from git_hosts import ROOM

from bot.integrations.gitops import Credential

PRIVILEGE_SEPARATION = Path("/run/sshd")
SECONDS_TO_START = 20
SECONDS_TO_END = 10
TRIES = 5

# A shell that is not the first one reads no start-up file of the user; the plain key exchange is the quick one.
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
AcceptEnv GIT_PROTOCOL
SetEnv SHLVL=2
KexAlgorithms curve25519-sha256
PidFile none
StrictModes no
UsePAM no
"""
SERVE = """\
#!/bin/sh
cd {folder}
echo "$SSH_ORIGINAL_COMMAND" >>requests
export {room}
eval "set -- $SSH_ORIGINAL_COMMAND"
. ./conduct
exec "$@"
"""
# For as long as the connection lasts, whatever the client says or ends; but not for ever.
HANG = """\
case $1 in *{service})
  touch reached
  tenths=0
  while kill -0 $PPID && [ $((tenths += 1)) -lt 300 ]; do sleep 0.1; done
  exit
esac
"""
CUT = """\
case $1 in *receive-pack)
  git receive-pack --advertise-refs "$2"
  git receive-pack --stateless-rpc "$2" >/dev/null
  exit
esac
"""
REFUSE = """\
echo '{words}' >&2
exit 1
"""


class SshHost:
    """An sshd in `folder` on `port`; git runs there as whoever runs the tests. Close with the context manager.

    `conduct` changes what happens at the next request, without a new start.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.address = f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1"
        self.log: list[str] = []
        self._heard = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read)

    def url(self, repository: Path) -> str:
        """The address of a repository in any folder."""
        return f"ssh://{self.address}:{self.port}{repository}"

    @property
    def credential(self) -> Credential:
        """The key that is let in, and the known hosts with this host's key."""
        return Credential(ssh_key=self.folder / "client_key", known_hosts=self.folder / "known_hosts")

    @property
    def requests(self) -> list[str]:
        """The commands that clients sent after they were let in."""
        record = self.folder / "requests"
        return record.read_text().splitlines() if record.exists() else []

    @property
    def reached(self) -> Path:
        """A file that is there once a request hangs."""
        return self.folder / "reached"

    def serve(self) -> None:
        """Carry out what is asked, as a host does."""
        self._conduct("")

    def hang(self, service: str = "pack") -> None:
        """Hear requests for a service (`upload-pack`, `receive-pack`), and never answer."""
        self._conduct(HANG.format(service=service))

    def cut(self) -> None:
        """Take a push, and end the line before telling so."""
        self._conduct(CUT)

    def refuse(self, words: str) -> None:
        """Let the key in, and refuse every request in these words."""
        self._conduct(REFUSE.format(words=words))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [require("/usr/sbin/sshd", "openssh-server"), "-D", "-e", "-f", self.folder / "sshd_config"],
            env=ROOM,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader.start()
        assert self._heard.wait(SECONDS_TO_START), "sshd says nothing"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(SECONDS_TO_END)
        # Every process of the host holds the pipe: its end is the end of the last one.
        self._reader.join(SECONDS_TO_END)
        assert not self._reader.is_alive(), "a process of the host is left"

    @property
    def is_listening(self) -> bool:
        """Has it got its port?"""
        return any("Server listening" in line for line in self.log)

    def _conduct(self, script: str) -> None:
        (self.folder / "conduct").write_text(script)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if "Server listening" in line:
                    self._heard.set()
        self._heard.set()


@contextmanager
def ssh_host(folder: Path) -> Iterator[SshHost]:
    """A host that serves until the end of the block; `folder` is made for its keys and records."""
    require("ssh", "openssh-client")
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir()
    for name in ("host_key", "client_key"):
        make_key(folder / name)
    for _ in range(TRIES):
        port = _free_port()
        _furnish(folder, port)
        with SshHost(folder, port) as host:
            if not host.is_listening:
                continue  # somebody else took the port meanwhile
            host.serve()
            yield host
            return
    raise RuntimeError(f"sshd does not start: {''.join(host.log)}")


def make_key(file: Path) -> Path:
    """A new private key without a passphrase; its public half stands beside it."""
    keygen = require("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True, env=ROOM)
    return file


def known_hosts(host: SshHost, key: Path, file: Path) -> Path:
    """A file that says that the host has this key."""
    public = key.with_suffix(".pub").read_text().strip()
    file.write_text(f"[127.0.0.1]:{host.port} {public}\n")
    return file


def _furnish(folder: Path, port: int) -> None:
    (folder / "sshd_config").write_text(CONFIG.format(folder=folder, port=port))
    public = {name: (folder / f"{name}.pub").read_text().strip() for name in ("host_key", "client_key")}
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public['host_key']}\n")
    (folder / "authorized_keys").write_text(f'restrict,command="{folder}/serve" {public["client_key"]}\n')
    room = " ".join(f"{name}='{value}'" for name, value in ROOM.items())
    (folder / "serve").write_text(SERVE.format(folder=folder, room=room))
    (folder / "serve").chmod(0o755)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
