"""What the environment says: addresses and secrets. A secret may also stand in a file that `<NAME>_FILE` names."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bot.core.errors import PromoteError


class SettingsError(PromoteError):
    """A setting is missing or cannot be used; the message says which, and what to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the environment says. Secrets are never shown: `repr` of this is for nobody."""

    environ: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Settings:
        """The settings of this process; raises `SettingsError` for a combination that cannot be meant."""
        environ = dict(os.environ)
        if {"SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET"} & environ.keys():
            # Bolt would turn its OAuth on and drop the token, with only a log line.
            raise SettingsError(
                "SLACK_CLIENT_ID and SLACK_CLIENT_SECRET must not be set: the bot uses SLACK_BOT_TOKEN."
            )
        return cls(environ=environ)

    def __repr__(self) -> str:
        return "Settings(…)"

    def get(self, name: str) -> str | None:
        """A setting, or what stands in the file that `<NAME>_FILE` names; None where neither is set."""
        if value := self.environ.get(name):
            return value
        if path := self.environ.get(f"{name}_FILE"):
            try:
                return Path(path).read_text(encoding="utf-8").strip() or None
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise SettingsError(f"{name}_FILE: cannot read {path}: {why}.") from error
        return None

    def require(self, name: str, why: str) -> str:
        """A setting that must be there; `why` ends the sentence “NAME is not set: …”."""
        if value := self.get(name):
            return value
        raise SettingsError(f"{name} is not set: {why} Set it, or {name}_FILE to a file that holds it.")

    def named(self, name: str, owner: str) -> str | None:
        """`GIT_TOKEN_GITOPS` for the repository `gitops`, else `GIT_TOKEN`."""
        return self.get(f"{name}_{_suffix(owner)}") or self.get(name)

    def own(self, name: str, owner: str) -> str | None:
        """`REGISTRY_TOKEN_GHCR_IO` for ghcr.io, and nothing that is for everybody."""
        return self.get(self.name_of(name, owner))

    def name_of(self, name: str, owner: str) -> str:
        """The setting's name: `REGISTRY_TOKEN_GHCR_IO`."""
        return f"{name}_{_suffix(owner)}"

    def path(self, name: str, owner: str) -> Path | None:
        """A file that a setting names, like `GIT_SSH_KEY_GITOPS`; None where it is not set."""
        given = self.environ.get(f"{name}_{_suffix(owner)}") or self.environ.get(name)
        if given and "\n" in given:
            raise SettingsError(f"{name} holds a key itself; it must be the path of a file that holds it.")
        if given and not os.access(given, os.R_OK):
            raise SettingsError(f"{name}: {given} is not a file that can be read; it is the path of a file.")
        return Path(given) if given else None

    @property
    def config_path(self) -> Path:
        """Where `promote.yaml` is."""
        return Path(self.environ.get("PROMOTE_CONFIG", "promote.yaml"))

    @property
    def data_dir(self) -> Path:
        """Where the embedded store and the mirrors of repositories are kept."""
        if given := self.environ.get("PROMOTE_DATA_DIR"):
            return Path(given)
        state = self.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return Path(state) / "promote-bot"

    @property
    def host(self) -> str:
        """The address that Slack's requests are heard on."""
        return self.environ.get("HOST", "0.0.0.0")  # noqa: S104 - Slack comes from outside; nothing else is on it

    @property
    def port(self) -> int:
        """The public port."""
        return self._number("PORT", 3000)

    def operations_port(self, default: int) -> int:
        """The port of `/healthz`, `/readyz` and `/metrics`."""
        return self._number("OPERATIONS_PORT", default)

    @property
    def lease_seconds(self) -> float:
        """How long a worker's claim lasts when it dies."""
        return float(self._number("PROMOTE_LEASE_SECONDS", 15, most=3600))

    @property
    def wait_replicas(self) -> int:
        """How many replicas of the store must confirm what people are told."""
        return self._number("REDIS_WAIT_REPLICAS", 0, least=0, most=10)

    @property
    def allow_plain(self) -> bool:
        """May the store be spoken to without TLS and a user of its own, on another machine?"""
        return self.environ.get("REDIS_ALLOW_PLAIN") == "1"

    @property
    def keep(self) -> timedelta:
        """How long a promotion that ended stays in the store."""
        return timedelta(days=self._number("PROMOTE_KEEP_DAYS", 90, least=3, most=3650))

    @property
    def archive(self) -> Path:
        """Where promotions are written, a line of JSON each, before they are removed from the store."""
        return Path(self.environ.get("PROMOTE_ARCHIVE") or self.data_dir / "archive.jsonl")

    @property
    def ca_bundle(self) -> Path | None:
        """An own certificate authority, for Slack, git and Argo CD."""
        given = self.environ.get("PROMOTE_CA_BUNDLE")
        return Path(given) if given else None

    def tls(self) -> ssl.SSLContext:
        """How servers prove who they are: the machine's authorities, and the own one."""
        context = ssl.create_default_context()
        if self.ca_bundle:
            try:
                context.load_verify_locations(cafile=self.ca_bundle)
            except (OSError, ssl.SSLError) as error:
                raise SettingsError(f"PROMOTE_CA_BUNDLE: {self.ca_bundle} holds no certificates.") from error
        return context

    @property
    def proxies(self) -> dict[str, str]:
        """The proxy settings, by their usual names in lower case."""
        names = ("https_proxy", "http_proxy", "no_proxy")
        found = {name: self.environ.get(name) or self.environ.get(name.upper()) for name in names}
        return {name: value for name, value in found.items() if value}

    @property
    def secrets(self) -> list[str]:
        """Every value that must never be seen, for the redactor of logs."""
        words = ("TOKEN", "SECRET", "PASSWORD", "PRIVATE_KEY", "HOOK_KEY", "REDIS_URL", "PROXY")
        names = {
            name.removesuffix("_FILE")
            for name in self.environ
            if any(word in name.upper() for word in words) and name.upper() != "NO_PROXY"
        }
        found = []
        for name in sorted(names):
            with suppress(SettingsError):  # somebody else's file, which the bot does not use and may not read
                found.append(self.get(name))
        return [value for value in found if value]

    def _number(self, name: str, default: int, *, least: int = 1, most: int = 65535) -> int:
        text = self.environ.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise SettingsError(f"{name} must be a number from {least} to {most}, not {text!r}.")
        return int(text)


def _suffix(owner: str) -> str:
    return re.sub(r"[-.:]", "_", owner.upper())
