"""Runs git in a clean room: an environment built from nothing, a hard time limit, and no secret in sight.

No configuration, hook, credential helper or variable of the machine can change what a command does. A credential
travels in the environment alone: never in an argument, an address or a file.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bot.core.errors import Failed

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_USERINFO = re.compile(r"//[^/@\s]+@")
_BOILERPLATE = re.compile(
    r"fatal: Could not read from remote repository|Please make sure you have|and the repository exists"
)
"""What git adds over SSH to every refusal: the words before it say why."""
_SPEAKER = re.compile(r"^(?:remote|fatal|error):\s*(?:(?:fatal|error):\s*)?")
_NOT_LET_IN = re.compile(
    r"^(?!remote:).*(?:Authentication failed|could not read Username|error: 401)", re.MULTILINE
)
_VERSION = re.compile(r"git version (\d+)\.(\d+)")
OLDEST = (2, 34)
"""Older ones do not take their configuration from the environment, or know no SSH signatures."""
MOST_SAID = 65_536
"""Bytes of complaints that are kept, the last ones: a server may talk without end."""
_LONGEST = 600

_VARIABLES = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
}
_CONFIG = {
    "safe.directory": "*",
    "core.hooksPath": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.unpackLimit": "1",  # what comes stays a pack, and packs are put together when there are many
    "credential.helper": "",
    "http.followRedirects": "false",  # git would carry the credential to wherever it is sent
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.ssh.allow": "always",
}


class Renewable(Protocol):
    """A token that lives for a short time, and is made anew."""

    def current(self) -> str:
        """One that is valid now; raises `Unavailable` or `Failed`."""
        ...

    def forget(self) -> None:
        """The host refused the last one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a git host knows us by: a user name and a token for HTTPS, or a key and the known hosts for SSH."""

    username: str = "promote-bot"
    token: str | Renewable | None = field(default=None, repr=False)
    ssh_key: Path | None = None
    known_hosts: Path | None = None

    def current_token(self) -> str | None:
        """The token to use now; raises `Unavailable` or `Failed` where a new one cannot be had."""
        return self.token if isinstance(self.token, str | None) else self.token.current()

    def renew(self) -> bool:
        """The host refused the token: can another one be had?"""
        if isinstance(self.token, str | None):
            return False
        self.token.forget()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How a command ended and what it said, without secrets."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What git or the server said, for people: their sentences in one line."""
        lines = [line for line in self.err.splitlines() if line.strip() and not _BOILERPLATE.match(line)]
        said = [line.strip() for line in lines if _SPEAKER.match(line)]
        said = said or [line for line in lines[:-1] if line.startswith("Load key")] + lines[-1:]
        lines = [_SPEAKER.sub("", line).strip() for line in said if "failed to push some refs" not in line]
        joined = "; ".join(line.rstrip(".") for line in lines if line)
        return joined[:_LONGEST] or f"git ended with code {self.code}"

    @property
    def server_words(self) -> str:
        """What the server itself said, which hooks and branch protection do; may be empty."""
        lines = [
            line.removeprefix("remote:").strip() for line in self.err.splitlines() if line[:7] == "remote:"
        ]
        return " ".join(line for line in lines if line)[:_LONGEST].rstrip(".")


class TimedOut(Exception):
    """The command did not end in time; it and all that it started were ended."""


class CleanRoom:
    """Git for one repository.

    `home` is an empty folder of ours. `is_local` allows `file://` and plain `http://`. `proxies` are variables
    that curl knows (`https_proxy`, `no_proxy`). `timeout` is in seconds.
    """

    def __init__(
        self,
        *,
        url: str,
        home: Path,
        credential: Credential | None,
        is_local: bool,
        proxies: Mapping[str, str],
        ca_bundle: Path | None,
        timeout: float,
    ) -> None:
        self.home = home
        self.timeout = timeout
        self._proxies = dict(proxies)
        self._url = url
        self._ends_at = float("inf")
        self._credential = credential or Credential()
        self._ssh = _ssh_command(self._credential)
        self._base = _VARIABLES | {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home)}
        # Git gives up by itself first, and can say why; the hard limit ends what does not.
        self._config = _CONFIG | {
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(max(1, int(timeout * 0.8))),
        }
        if is_local:
            self._config |= {"protocol.file.allow": "always", "protocol.http.allow": "always"}
        if ca_bundle:
            self._config["http.sslCAInfo"] = str(ca_bundle)

    def require_version(self) -> None:
        """Raise `Failed` where git is too old for the clean room to be clean."""
        output = self.run("version", folder=self.home)
        found = _VERSION.search(output.out)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            said = output.out.strip() or output.words
            raise Failed(f"git {OLDEST[0]}.{OLDEST[1]} or newer is needed; this is: {said}.")

    def environment(
        self, folder: Path, *, remote: bool = False, authorization: str | None = None
    ) -> dict[str, str]:
        """All that a command in `folder` sees; proxies and the credential only where it talks to the remote."""
        config = dict(self._config)
        if authorization:
            config[f"http.{self._url}.extraHeader"] = f"Authorization: Basic {authorization}"
        # Named outright: git would look for another repository above a damaged one.
        variables = self._base | {"GIT_DIR": str(folder)}
        if remote:
            variables |= self._proxies | {"GIT_SSH_COMMAND": self._ssh, "GIT_SSH_VARIANT": "ssh"}
        variables["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config.items()):
            variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return variables

    def end_within(self, seconds: float) -> None:
        """From now on commands have so many seconds together; called from another thread, at the end."""
        self._ends_at = time.monotonic() + seconds

    def start(self, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
        """Start a command of our own copy that is spoken to through its pipes; the caller ends it."""
        return subprocess.Popen(
            ["git", *arguments],
            cwd=folder,
            env=self.environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def run(
        self,
        *arguments: str,
        folder: Path,
        remote: bool = False,
        timeout: float | None = None,
        holding: int | None = None,
    ) -> Output:
        """Run one command in `folder`; raises `TimedOut`, and leaves no process behind.

        A child inherits the lock file `holding`: the folder stays claimed for as long as anybody works in it.
        Where the host refuses a token that can be renewed, the command is run once more with a new one.
        """
        token = self._credential.current_token() if remote else None
        output = self._run(arguments, folder, token, remote=remote, timeout=timeout, holding=holding)
        if remote and output.code and _NOT_LET_IN.search(output.err) and self._credential.renew():
            token = self._credential.current_token()
            return self._run(arguments, folder, token, remote=remote, timeout=timeout, holding=holding)
        return output

    def _run(
        self,
        arguments: Sequence[str],
        folder: Path,
        token: str | None,
        *,
        remote: bool,
        timeout: float | None,
        holding: int | None,
    ) -> Output:
        pair = base64.b64encode(f"{self._credential.username}:{token}".encode()).decode() if token else None
        with subprocess.Popen(
            ["git", *arguments],
            cwd=folder,
            env=self.environment(folder, remote=remote, authorization=pair),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=() if holding is None else (holding,),
        ) as process:
            try:
                out, err = self._listen(process, timeout or self.timeout)
            except BaseException:
                # Git's own children are in its group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        # Curl repeats the address of a proxy that it cannot read, password and all.
        proxies = (value for name, value in self._proxies.items() if name != "no_proxy")
        secrets = [secret for secret in (token, pair, *proxies) if secret]
        return Output(code=process.returncode, out=_without(secrets, out), err=_plain(_without(secrets, err)))

    def _listen(self, process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
        """All of its output, and the end of its complaints; raises `TimedOut`."""
        ends_at = time.monotonic() + timeout
        said = {process.stdout: bytearray(), process.stderr: bytearray()}
        with selectors.DefaultSelector() as selector:
            for stream in said:
                selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]  # both are pipes
            while selector.get_map():
                for key, _ in selector.select(self._patience(ends_at)):
                    chunk = os.read(key.fd, MOST_SAID)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    said[key.fileobj] += chunk  # type: ignore[index]
                if len(said[process.stderr]) > 2 * MOST_SAID:
                    del said[process.stderr][:-MOST_SAID]
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._patience(ends_at))
        return bytes(said[process.stdout]), bytes(said[process.stderr])

    def _patience(self, ends_at: float) -> float:
        """How long to wait before the clock is looked at again; raises `TimedOut` where the time is up."""
        left = min(ends_at, self._ends_at) - time.monotonic()
        if left <= 0:
            raise TimedOut
        return min(left, 1.0)


def _without(secrets: Sequence[str], said: bytes) -> str:
    words = said.decode(errors="replace")
    for secret in secrets:
        words = words.replace(secret, "***")
    return words


def _plain(words: str) -> str:
    """Words for people: no colours, nothing that cannot be seen, no user names in addresses."""
    words = _COLOUR.sub("", _USERINFO.sub("//", words)).replace("\r", "\n").replace("\t", " ")
    return "".join(character for character in words if character.isprintable() or character == "\n").strip()


def _ssh_command(credential: Credential) -> str:
    options = {
        "IdentityFile": _quoted(credential.ssh_key) if credential.ssh_key else "none",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "StrictHostKeyChecking": "yes",
        "GlobalKnownHostsFile": os.devnull,
        "UserKnownHostsFile": _quoted(credential.known_hosts or Path(os.devnull)),
    }
    command = ["ssh", "-F", os.devnull]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    return shlex.join(command)


def _quoted(path: Path) -> str:
    """A path as ssh's options take it: a blank would end it, and a percent sign begins a placeholder."""
    return '"' + str(path).replace("%", "%%") + '"'
