"""What a request to the API says: who calls, what they ask for, and which objects a selector chooses."""

import json
import re

from aiohttp import web
from multidict import MultiMapping

from bot.playground.argocd.manifests import Json
from bot.playground.argocd.refusals import INVALID, Denied


async def body(request: web.Request) -> Json:
    """The JSON object of a request; an empty body is an empty object."""
    try:
        body = json.loads(await request.text() or "{}")
    except ValueError as error:
        raise Denied(INVALID, f"invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise Denied(
            INVALID, "json: cannot unmarshal into Go value of type application.ApplicationSyncRequest"
        )
    return body


def token_of(request: web.Request) -> str | None:
    """The caller's token; one that does not look like a JWT is none."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    token = bearer if scheme == "Bearer" else request.cookies.get("argocd.token", "")
    return token if token.count(".") == 2 else None


def projects_of(query: MultiMapping[str]) -> set[str]:
    """The projects that a query names, each key as often as it likes."""
    return {project for key in ("project", "projects") for project in query.getall(key, []) if project}


def grpc_timeout(request: web.Request) -> float | None:
    """The seconds after which the caller wants an answer, whatever it is; None without a limit."""
    match = re.fullmatch(r"(\d+)([HMSm])", request.headers.get("Grpc-Timeout", ""))
    return int(match[1]) * {"H": 3600, "M": 60, "S": 1, "m": 0.001}[match[2]] if match else None


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector chooses an object with these labels."""
    for requirement in re.split(r",(?![^(]*\))", selector):
        match = re.fullmatch(
            r"\s*(!?)([\w./-]+)\s*(?:(==?|!=|\bin\b|\bnotin\b)\s*\(?([^()]*)\)?)?\s*", requirement
        )
        if not requirement.strip():
            continue
        if match is None:
            raise Denied(INVALID, f"error parsing the selector: unable to parse requirement: {requirement}")
        absent, name, operator, text = match.groups()
        values = {value.strip() for value in (text or "").split(",")}
        chosen = labels.get(name) in values if operator else name in labels
        if chosen == (bool(absent) or operator in {"!=", "notin"}):
            return False
    return True
