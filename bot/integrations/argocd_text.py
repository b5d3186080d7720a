"""Texts of Argo CD's, made fit for people."""

from __future__ import annotations

import re

from bot.core.secrets import bounded, without_secrets

LONGEST_TEXT = 300
_HEAD = 110
_CREDENTIALS = re.compile(r"://(?:[^\s/]{0,256}|[^\s/:@]{1,256}:[^\s@]{0,256})@")


def said(text: str) -> str:
    """An outside text for people: one line, no `user:password@`, no other secret, at most 300 characters."""
    # Hidden before it is cut: half a secret looks like none.
    return shortened(without_secrets(_CREDENTIALS.sub("://", bounded(text))))


def shortened(text: str) -> str:
    """One line of at most 300 characters. Of a long one the end is kept as well: helm and kubectl tell the cause last."""
    line = " ".join(text.split())
    if len(line) <= LONGEST_TEXT:
        return line
    return f"{line[:_HEAD]} … {line[-(LONGEST_TEXT - _HEAD - 3) :]}"
