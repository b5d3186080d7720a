"""Slack's word for what it does not do."""

from __future__ import annotations


class SlackError(Exception):
    """Slack's `"ok": false` with its error code, and whatever else the answer carries."""

    def __init__(self, error: str, **more: object) -> None:
        super().__init__(error)
        self.answer = {"ok": False, "error": error, **more}
