"""The errors of the house, sorted by what happens next.

`Refused` is for the person, `Unavailable` is for another try, `Failed` ends the promotion. Every message is
one or more whole sentences for people, without a secret in it.
"""

from __future__ import annotations

from bot.core.outcome import Outcome


class PromoteError(Exception):
    """Anything that the bot says no to, or could not do; `str()` of it is what people read."""


class Refused(PromoteError):
    """The person can put it right; nothing was changed.

    `link` is the address of a message that explains more, where there is one.
    """

    def __init__(self, sentence: str, *, link: str | None = None) -> None:
        super().__init__(sentence)
        self.link = link


class TargetBusy(Refused):
    """Another promotion holds the target; `holder` is its id."""

    def __init__(self, sentence: str, *, holder: str, link: str | None = None) -> None:
        super().__init__(sentence, link=link)
        self.holder = holder


class Unavailable(PromoteError):
    """An outside system did not answer as it should; trying again may help.

    `system` is its name for people ("Argo CD", "the git host"). `retry_after` is what it asked for, in seconds.
    `maybe_done` says that the request may have been carried out although its answer never came.
    """

    def __init__(
        self, system: str, detail: str, *, retry_after: float | None = None, maybe_done: bool = False
    ) -> None:
        super().__init__(f"{system} is not available: {detail}")
        self.system = system
        self.detail = detail
        self.retry_after = retry_after
        self.maybe_done = maybe_done


class Newer(Unavailable):
    """A record that a newer version of the bot has written: that one goes on with it."""

    def __init__(self, id: str) -> None:
        super().__init__("the store", f"{id} was written by a newer version of this bot")
        self.args = (
            f"{id} belongs to a newer version of this bot, which is being installed and goes on with it.",
        )


class Unreadable(Unavailable):
    """The store answers, and what it holds is nothing that the bot has written."""


class NoGroup(Unavailable):
    """Slack knows no such user group, or it is disabled: that is not the same as a group without members."""

    def __init__(self, group: str) -> None:
        super().__init__("Slack", f"the user group {group} is disabled or gone")
        whose = f"nobody can tell who is in the user group {group}, which is disabled or gone"
        self.args = (f"{whose}. Enable it in Slack, or name another one in promote.yaml",)


class Failed(PromoteError):
    """It cannot go on; the promotion ends as failed, with this reason in the system's own words.

    `outcome` names the ending, where it has a name.
    """

    def __init__(self, sentence: str, *, outcome: Outcome | None = None) -> None:
        super().__init__(sentence)
        self.outcome = outcome


class Protected(Failed):
    """The branch takes no push from the bot; a pull request may do."""


class ValueNotEditable(Failed):
    """The value in the values file cannot be changed without guessing; names file, line and reason."""


class Stale(PromoteError):
    """The values file no longer holds what was approved; `found` is what it holds now."""

    def __init__(self, *, expected: str, found: str) -> None:
        super().__init__(f"the file holds {found} now, not {expected}")
        self.expected = expected
        self.found = found


class Conflict(PromoteError):
    """Somebody else saved the promotion first: load it again and apply the change again."""


class Gone(PromoteError):
    """The Slack message or its channel is no longer there: the card has to be posted anew."""


class Closed(Gone):
    """The channel cannot be written to now; what stands there may still stand when that is over."""
