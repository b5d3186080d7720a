"""Logs as JSON lines, metrics for Prometheus, and no secret in either."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

TRANSITIONS = Counter(
    "promote_transitions_total", "Promotions that reached a phase", ["phase", "environment"]
)
ADVANCE_SECONDS = Histogram("promote_advance_seconds", "Time of one advance of a promotion")
BUGS = Counter("promote_bugs_total", "Errors that nobody expected")
ALARMS = Counter("promote_alarms_total", "Records that contradict git or their seals")
TOKEN_ENDS = Gauge(
    "promote_argocd_token_ends_seconds", "When a token for Argo CD ends, Unix time", ["server"]
)
ARGOCD_CALLS = Counter("promote_argocd_calls_total", "Calls to Argo CD", ["server", "call", "status"])

log = structlog.get_logger()

URL_CREDENTIALS = re.compile(r"(?<=://)[^@\s\"']+@")
TOKENS = re.compile(
    r"\b(xox[abeprs]-[\w-]+|xapp-[\w-]+|gh[oprsu]_[\w.-]+|github_pat_\w+|glpat-[\w-]+|eyJ[\w-]+\.[\w-]+\.[\w-]+)"
    r"|(?<=Bearer )\S+|(?<=Basic )\S+"
)


class Redactor:
    """Takes secrets out of whatever is logged: the ones it was told, and everything that looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= 8}
        as_json = {json.dumps(secret)[1:-1] for secret in long_enough}  # a log line is JSON by then
        self._secrets = sorted(long_enough | as_json, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return TOKENS.sub("***", URL_CREDENTIALS.sub("***@", text))

    def __call__(self, _logger: Any, _method: str, line: Any) -> str:
        """The last step of a log line: clean the line as it will be written."""
        return self.clean(str(line))


def set_up(secrets: Iterable[str] = (), *, level: str = "INFO") -> None:
    """Send our own logs and those of the libraries to standard error, one JSON object a line."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
                Redactor(secrets),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Bolt logs the whole body of a request with a bad signature; the clients log every address they call.
    logging.getLogger("slack_bolt").setLevel(logging.ERROR)  # it warns of choices that are meant
    for noisy in ("slack_sdk", "httpx", "httpcore", "aiohttp.access", "git", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def alarm(sentence: str) -> None:
    """Say what an operator has to read, and count it."""
    ALARMS.inc()
    log.error("alarm", what=sentence)
