"""Texts of Argo CD's, made fit for people."""

from __future__ import annotations

import re

LONGEST_TEXT = 300
_HEAD = 110
_CREDENTIALS = re.compile(r"://(?:[^\s/]*|[^\s/:@]+:[^\s@]*)@")


def said(text: str) -> str:
    """An outside text for people: one line, no `user:password@`, at most 300 characters.

    Of a long one the end is kept as well: helm and kubectl tell the cause last.
    """
    line = " ".join(_CREDENTIALS.sub("://", text).split())
    if len(line) <= LONGEST_TEXT:
        return line
    return f"{line[:_HEAD]} … {line[-(LONGEST_TEXT - _HEAD - 3) :]}"
