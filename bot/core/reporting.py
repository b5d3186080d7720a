"""Verdicts of checks: which may be told, about which build, and by which machine."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field

from bot.core.board import Board, Report
from bot.core.catalog import DIGEST, UNKNOWN, Catalog, Image, Target, checked_version
from bot.core.errors import Refused
from bot.core.ports import Clock, Images
from bot.core.seals import Sealer

CHECKS_PATH = "/hooks/v1/checks"
"""Where machines report verdicts to."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
"""An app, an environment or a check, as `promote.yaml` names them."""
LINK = re.compile(r"https?://[^\s/?#@<>|\"\\]+([/?#][^\s<>|\"\\]*)?")
"""An address without a user or a password in it, that no message can take for anything else."""
DELIVERY = re.compile(r"[A-Za-z0-9._-]{8,128}")
"""A caller's own name for a call."""
WRONG_DELIVERY = "A delivery takes 8 to 128 letters, digits, “.”, “_” and “-”."
LONGEST_TEXT = 300
LONGEST_LINK = 500


class Unasked(Refused):
    """Nobody waits for the verdict: there is no such target, or nothing after it asks for the check."""


class NotKept(Refused):
    """The delivery was used for something else, or a newer verdict stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookIdentity:
    """A machine that may call the bot, and what for. It has one key, or two while they change."""

    name: str
    keys: tuple[str, ...] = field(repr=False)
    apps: frozenset[str]
    environments: frozenset[str]
    actions: frozenset[str]
    """`check:integration`; `check:*` is every one of the kind."""

    @property
    def called(self) -> str:
        """`hook:jenkins`, as a record keeps it."""
        return f"hook:{self.name}"

    def may(self, action: str, *, app: str, environment: str) -> bool:
        """May it do this to that target?"""
        every = action.partition(":")[0] + ":*"
        is_named = app in self.apps and environment in self.environments
        return is_named and bool(self.actions & {action, every})


def signature(
    key: str, *, identity: str, timestamp: str, delivery: str, method: str, path: str, body: bytes
) -> str:
    """What proves a machine's call: `v1=` and 64 hexadecimal digits over all that is sent."""
    head = f"v1:{identity}:{timestamp}:{delivery}:{method}:{path}:"
    # A header may hold what is no text: it has to give a signature all the same, though a wrong one.
    message = head.encode(errors="surrogateescape") + body
    return "v1=" + hmac.new(key.encode(), message, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A verdict that the board keeps; was it kept already, by the same delivery?"""

    report: Report
    is_repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """Takes verdicts, seals them and keeps them; who may give one is decided before."""

    catalog: Catalog
    board: Board
    images: Images
    clock: Clock
    sealer: Sealer

    async def report(
        self,
        *,
        app: str,
        environment: str,
        version: str,
        digest: str | None = None,
        check: str,
        passed: bool,
        by: str,
        said: str = "",
        link: str = "",
        delivery: str,
    ) -> Heard:
        """Keep the verdict of one check of one build in one environment.

        `by` is a Slack id, or `hook:` and the name of an identity; `delivery` is that one's own name for the call.
        Raises `Refused`, `Unasked` or `NotKept` with what to do; of the registry and the board also `Unavailable`
        and `Failed`.
        """
        for what, name in (("app", app), ("environment", environment), ("check", check)):
            require(NAME.fullmatch(name), f"{what} takes a name, as promote.yaml has it.")
        checked_version(version)
        require(
            len(said) <= LONGEST_TEXT and said.isprintable(),
            f"said takes one line of at most {LONGEST_TEXT} printable characters.",
        )
        require_link(link)
        target = self._target(app, environment)
        self._require_wanted(target, check)
        report = Report(
            app=app,
            environment=environment,
            image=Image(version=version, digest=await self._digest(target, version, digest or UNKNOWN)),
            check=check,
            passed=passed,
            by=by,
            at=self.clock.now(),
            said=said,
            link=link,
        )
        return await self._kept(self.sealer.sealed_report(report), delivery)

    def _target(self, app: str, environment: str) -> Target:
        try:
            return self.catalog.target(app, environment)
        except Refused as refusal:
            raise Unasked(str(refusal)) from refusal

    def _require_wanted(self, target: Target, check: str) -> None:
        """Raise `Unasked` unless what comes next after this target asks for the check."""
        following = [each for each in self.catalog.targets if self.catalog.before(each) == target]
        wanted = [rule.name for each in following for rule in each.policy.checks]
        if check not in wanted:
            only = f"only for {', '.join(wanted)}" if wanted else "and for no other one"
            raise Unasked(
                f"What comes after {target.name} does not ask for a check called “{check}”, {only}. "
                "promote.yaml names the checks, under policies."
            )

    async def _digest(self, target: Target, version: str, digest: str) -> str:
        """Which build the verdict is about; raises `Refused` where nobody could tell."""
        is_known = digest != UNKNOWN
        require(not is_known or DIGEST.fullmatch(digest), "digest takes sha256: and 64 hexadecimal digits.")
        if target.is_tag_only and not (target.asks_registry or target.digests):
            return UNKNOWN  # as the gate knows it: nobody tells it which build runs
        if is_known:
            return digest
        require(
            target.asks_registry,
            f"Name the digest of {version}, sha256:…: a tag can be pushed anew, and nobody else tells which "
            "build was checked.",
        )
        return await self.images.digest(target.image, version)

    async def _kept(self, report: Report, delivery: str) -> Heard:
        if await self.board.report(report, delivery=delivery):
            return Heard(report=report, is_repeated=False)
        kept = await self.board.reports(report.app, report.environment, report.image.version)
        for each in kept:
            if _content(each) == _content(report):
                return Heard(report=each, is_repeated=True)
        raise NotKept(
            "Nothing was changed: this delivery was heard before and said something else, or a newer verdict "
            "is kept. Send it again under another delivery if it still holds."
        )


def _content(report: Report) -> tuple[object, ...]:
    """What a verdict says; of the same delivery only time and seal may differ."""
    return (report.image, report.check, report.passed, report.by, report.said, report.link)


def require_link(link: str) -> None:
    """Raise `Refused` for what is no address that people could be shown; empty is none at all."""
    require(
        not link or (len(link) <= LONGEST_LINK and link.isprintable() and LINK.fullmatch(link)),
        f"link takes an address of at most {LONGEST_LINK} characters, http:// or https://, without a password.",
    )


def require(holds: object, sentence: str) -> None:
    """Raise `Refused` with the sentence unless it holds."""
    if not holds:
        raise Refused(sentence)
