"""What git's words about a remote mean: a race, a refusal, a host out of reach, or damage of our own copy."""

from __future__ import annotations

import re

from bot.core.catalog import Repository
from bot.core.errors import Failed, Protected, Unavailable
from bot.integrations.cleanroom import Output

GIT_HOST = "the git host"

_REASON = re.compile(r"\((.*)\)\s*$")
_DAMAGE = re.compile(
    r"is empty|corrupt|does not match index|\.lock'|bad object|unable to read|inflate|not a git repository"
    r"|invalid object|missing (?:blob|tree)|unable to (?:create|write)|No space left"
)
_REFUSAL = re.compile(
    r"Authentication failed|could not read (?:Username|Password)|Permission denied \(|returned error: 40[13]"
    r"|[Aa]ccess denied|denied to|not (?:be )?found|does not appear to be|Host key verification failed|not allowed"
)
_REDIRECT = re.compile(r"returned error: 30[12378]")
_CONNECTION = re.compile(
    r"Could not resolve|unable to access|[Cc]onnection|timed out|hung up|early EOF|RPC failed|unexpected disconnect"
    r"|Could not read from remote|too slow|[Bb]roken pipe|unreachable|No route|ssh:|kex_exchange|SSL|TLS|curl"
)
_BUSY = re.compile(
    r"rate limit|too many requests|returned error: 429|temporarily unavailable|maintenance", re.IGNORECASE
)
_NEVER_SENT = re.compile(
    r"^(?:ssh: connect|ssh: Could not resolve|fatal: (?:unable to access|Authentication failed|could not read "
    r"|repository .* not found|.* does not appear to be|unable to look up|unable to connect))",
    re.MULTILINE | re.IGNORECASE,
)
"""Git says so while it still asks where the branch stands, before it sends anything."""
_RACE = re.compile(
    r"non-fast-forward|fetch first|cannot lock ref|incorrect old value|stale info|failed to update ref"
    r"|lock failure|failed to lock|already been updated"
)
_SERVER_TROUBLE = re.compile(
    r"unpacker error|failed to report|internal (?:server )?error|fatal error|timeout|transaction aborted"
    r"|unable to migrate",
    re.IGNORECASE,
)
_TROUBLED_WORDS = re.compile(
    r"GitLab: .*(?:internal|\b50[234]\b|unavailable|unreachable|read-only)|internal server error"
    r"|unable to contact gitea|error in commit_refs|exceeded \S+ timeout|rate limit exceeded",
    re.IGNORECASE,
)
"""What hosts say through a hook when they themselves are in trouble."""


_PROTECTED = re.compile(
    r"GH006|protected branch|through a (?:pull|merge) request|is protected\b", re.IGNORECASE
)
"""Why a host declines every push to the branch, whatever is in it."""


class Damaged(Exception):
    """Our copy cannot be used; `unsure` says that a push may have got through before that was seen."""

    def __init__(self, words: str, *, unsure: bool = False) -> None:
        super().__init__(words)
        self.unsure = unsure


class Declined(Failed):
    """The host took the push and said no to it: its hooks, or a rule for the branch."""


class DeclinedByProtection(Declined, Protected):
    """It said no because nobody may push to the branch, or not the bot."""


class NoBranch(Failed):
    """The host answers, and says nothing of the branch."""


def silence(seconds: float, *, maybe_done: bool = False) -> Unavailable:
    """The host took longer than we wait."""
    return Unavailable(GIT_HOST, f"it did not answer within {seconds:g} seconds.", maybe_done=maybe_done)


def trouble(output: Output, repository: Repository) -> Failed | Unavailable | Damaged:
    """Why a command that talks to the remote failed; words that nobody knows count as damage of our copy."""
    words = output.words
    ours = "\n".join(line for line in output.err.splitlines() if not line.startswith("remote:"))
    if "couldn't find remote ref" in ours:
        return NoBranch(f"The repository {repository.name} has no branch {repository.branch}.")
    if "mismatched algorithms" in ours:
        return Failed(f"{repository.name} names its commits by SHA-256, which I do not know; I need SHA-1.")
    if _DAMAGE.search(ours):
        return Damaged(words)
    if _REDIRECT.search(ours):
        moved = f"if {repository.name} has moved, put its new address into promote.yaml"
        return Unavailable(GIT_HOST, f"it sends us on to another address, where no token may go; {moved}.")
    if _BUSY.search(output.err):
        return Unavailable(GIT_HOST, f"{words}.")
    if _REFUSAL.search(output.err):
        return Failed(f"The git host refuses us the repository {repository.name}: {words}.")
    if _CONNECTION.search(ours):
        return Unavailable(GIT_HOST, f"{words}.")
    return Damaged(words)


def check_race(output: Output, repository: Repository) -> None:
    """Return where a push only lost a race; raise what any other failed push means."""
    problem = trouble(output, repository)
    refused = [line for line in output.out.splitlines() if line.startswith("!")]
    # Where one ref of several was refused, the others only say that they were refused with it.
    line = min(refused, key=lambda each: "atomic" in each, default=None)
    if line is None:
        if _NEVER_SENT.search(output.err):
            raise problem
        # What a hook says proves nothing: the branch may have moved before the line was cut.
        if isinstance(problem, Damaged):
            raise Damaged(str(problem), unsure=True)
        raise Unavailable(GIT_HOST, getattr(problem, "detail", f"{output.words}."), maybe_done=True)
    found = _REASON.search(line)
    reason = found[1] if found else line
    if _RACE.search(reason):
        return
    if _SERVER_TROUBLE.search(reason) or _TROUBLED_WORDS.search(output.server_words):
        raise Unavailable(GIT_HOST, f"{output.server_words or reason}.", maybe_done=True)
    words = f"{output.server_words} ({reason})" if output.server_words else reason
    kind = DeclinedByProtection if _PROTECTED.search(words) else Declined
    raise kind(f"The git host refused the push to {repository.branch}: {words}.")
