"""The last words of a pod that fails, where the bot's account may read them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta

from bot.core.errors import Unavailable
from bot.integrations.argocd_answers import LogEntry, LogLine, Node
from bot.integrations.argocd_application import ApplicationCalls
from bot.integrations.argocd_http import Rejected
from bot.integrations.argocd_text import said
from bot.integrations.argocd_workloads import container_of, is_ready, pod_nodes

LINES = 20
LIMIT = timedelta(seconds=10)
"""How long all of the reading may take; what came until then is told."""


async def last_words(calls: ApplicationCalls, image: str) -> str:
    """The name of a pod in trouble and what it wrote last, without secrets; empty where nobody tells."""
    try:
        tree = await calls.part("resource-tree")
        pods = calls.read(lambda: [pod for pod in pod_nodes(tree) if not is_ready(pod)])
        # One that was restarted says more than one that has just begun.
        for pod in sorted(pods, key=_restarts, reverse=True)[:1]:
            if lines := await _lines(calls, pod, await _container(calls, pod, image)):
                return "\n".join([f"{pod.name}:", *lines])
    except (Rejected, Unavailable):
        pass
    return ""


async def _container(calls: ApplicationCalls, pod: Node, image: str) -> str:
    """Which container runs the image: Kubernetes asks for a name where there are several. Empty where nobody tells."""
    try:
        answer = await calls.pod(pod)
        return calls.read(lambda: container_of(answer, image))
    except (Rejected, Unavailable):
        return ""


async def _lines(calls: ApplicationCalls, pod: Node, container: str) -> list[str]:
    query = calls.query | {
        "namespace": pod.namespace,
        "podName": pod.name,
        "tailLines": str(LINES),
        "previous": "true" if _restarts(pod) else "false",
    }
    if container:
        query["container"] = container
    found: list[str] = []
    stream = calls.connection.lines(
        f"{calls.path}/logs", query, call="logs", first=LIMIT, later=LIMIT, kind="application/json"
    )
    try:
        async with asyncio.timeout(LIMIT.total_seconds()), aclosing(stream) as lines:
            async for line in lines:
                if not line.strip():
                    continue
                entry: LogLine = calls.read(lambda line=line: LogEntry.model_validate_json(line).result)  # type: ignore[misc]
                if entry.last or len(found) == LINES:
                    break
                found.append(said(entry.content))
    except TimeoutError:
        pass
    return found


def _restarts(pod: Node) -> int:
    count = pod.told("Restart Count")
    return int(count) if count.isdecimal() else 0
