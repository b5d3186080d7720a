"""The last words of a pod that fails, where the bot's account may read them."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

from bot.core.errors import Unavailable
from bot.core.secrets import without_secrets
from bot.integrations.argocd_answers import LogEntry, LogLine, Node
from bot.integrations.argocd_application import ApplicationCalls
from bot.integrations.argocd_http import Rejected
from bot.integrations.argocd_text import said
from bot.integrations.argocd_workloads import is_ready, pod_nodes

LINES = 20
LONGEST_LINE = 300
LIMIT = timedelta(seconds=10)


async def last_words(calls: ApplicationCalls) -> str:
    """The name of a pod in trouble and what it wrote last, without secrets; empty where nobody tells."""
    try:
        tree = await calls.part("resource-tree")
        pods = calls.read(lambda: [pod for pod in pod_nodes(tree) if not is_ready(pod)])
        # One that was restarted says more than one that has just begun.
        for pod in sorted(pods, key=_restarts, reverse=True)[:1]:
            if lines := await _lines(calls, pod):
                return "\n".join([f"{pod.name}:", *lines])
    except (Rejected, Unavailable):
        pass
    return ""


async def _lines(calls: ApplicationCalls, pod: Node) -> list[str]:
    query = calls.query | {
        "namespace": pod.namespace,
        "podName": pod.name,
        "tailLines": str(LINES),
        "previous": "true" if _restarts(pod) else "false",
    }
    found: list[str] = []
    stream = calls.connection.lines(
        f"{calls.path}/logs", query, call="logs", first=LIMIT, later=LIMIT, kind="application/json"
    )
    async with aclosing(stream) as lines:
        async for line in lines:
            if not line.strip():
                continue
            entry: LogLine = calls.read(lambda line=line: LogEntry.model_validate_json(line).result)  # type: ignore[misc]
            if entry.last or len(found) == LINES:
                break
            found.append(without_secrets(said(entry.content))[:LONGEST_LINE])
    return found


def _restarts(pod: Node) -> int:
    count = pod.told("Restart Count")
    return int(count) if count.isdecimal() else 0
