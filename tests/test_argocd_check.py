"""What the check command says of an Argo CD: whom it takes the bot for, for how long, and what the bot may do."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from argocd_door import Door, Handler, routing, saying, telling
from rollout_cases import APPLICATION

from bot import check
from bot.check import Line
from bot.integrations.argocd import ArgoCD, Server

NOW = datetime(2026, 8, 24, 9, 0, tzinfo=UTC)
YES, NO = telling({"value": "yes"}), telling({"value": "no"})
CAN_I = "/api/v1/account/can-i"
ASKED = {
    "get": f"{CAN_I}/applications/get/default/manual-app-prod",
    "sync": f"{CAN_I}/applications/sync/default/manual-app-prod",
    "logs": f"{CAN_I}/logs/get/default/manual-app-prod",
    "sets": f"{CAN_I}/applicationsets/get/default/*",
}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.open()
    yield made
    await made.close()


def token(expires_at: datetime | None) -> str:
    claims = {"exp": expires_at.timestamp()} if expires_at else {}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


async def server(
    door: Door, *, expires_at: datetime | None = None, known: bool = True, anonymous: bool = False
) -> Line:
    """The line about a server."""
    door.answer = routing(
        {
            "/api/version": telling({"Version": "v3.5.1"}),
            "/api/v1/session/userinfo": telling({"loggedIn": known, "username": "promote-bot"}),
            "/api/v1/applications": telling({"items": None}) if anonymous else saying(401, "no session"),
        }
    )
    argo = ArgoCD(servers={"main": Server(url=door.url, token=token(expires_at))})
    line = await check._server(argo, "main", NOW)
    await argo.aclose()
    return line


async def rights(door: Door, **answers: Handler) -> Line:
    """The line about the rights on an application."""
    door.answer = routing({ASKED[name]: answer for name, answer in answers.items()})
    argo = ArgoCD(servers={"main": Server(url=door.url, token=token(None))})
    line = await check._rights(argo, APPLICATION, APPLICATION.name)
    await argo.aclose()
    return line


@pytest.mark.parametrize(
    ("expires_at", "level", "says"),
    [
        (None, "ok", "v3.5.1, as promote-bot"),
        (NOW + timedelta(days=14), "ok", "v3.5.1, as promote-bot"),
        (
            NOW + timedelta(days=13),
            "warn",
            "v3.5.1, as promote-bot; the token expires at 2026-09-06 09:00 UTC: make a new one before that",
        ),
        (NOW, "error", "the token expired at 2026-08-24 09:00 UTC; make a new one for the bot's account"),
    ],
    ids=["never", "later", "soon", "now"],
)
async def test_a_token_that_ends_soon_is_a_warning_and_one_that_ended_an_error(
    door: Door, expires_at: datetime | None, level: str, says: str
) -> None:
    """Two weeks are enough to make a new one."""
    line = await server(door, expires_at=expires_at)
    assert (line.what, line.level, line.says) == ("argo cd: main", level, says)


@pytest.mark.parametrize(("anonymous", "told"), [(True, True), (False, False)])
async def test_a_token_that_nobody_knows_is_an_error(door: Door, anonymous: bool, told: bool) -> None:
    """Also where the bot is served without one: it would see what anybody sees."""
    line = await server(door, known=False, anonymous=anonymous)
    assert line.level == "error"
    assert line.says.startswith("the token is not accepted")
    assert ("served as an anonymous visitor" in line.says) is told


async def test_a_server_that_does_not_answer_is_an_error(door: Door) -> None:
    """In its own words."""
    door.answer = saying(503, "maintenance")
    argo = ArgoCD(servers={"main": Server(url=door.url, token=token(None))})
    line = await check._server(argo, "main", NOW)
    await argo.aclose()
    assert line.level == "error"
    assert "maintenance" in line.says


async def test_rights_that_are_there_are_named(door: Door) -> None:
    """All of them: nothing to note."""
    line = await rights(door, get=YES, sync=YES, logs=YES, sets=YES)
    has = "has applications get, applications sync, logs get, applicationsets get"
    assert (line.what, line.level, line.says) == ("rights: manual-app-prod", "ok", has)


async def test_a_missing_right_is_noted_with_what_it_is_for(door: Door) -> None:
    """Nobody has to give it."""
    line = await rights(door, get=YES, sync=NO, logs=YES, sets=YES)
    assert line.level == "note"
    says = "has applications get, logs get, applicationsets get; for Sync now: applications, sync, default/manual-app-prod"
    assert line.says == says


async def test_without_the_right_to_see_an_application_nothing_works(door: Door) -> None:
    """That one is an error."""
    line = await rights(door, get=NO, sync=NO, logs=NO, sets=NO)
    assert line.level == "error"
    assert line.says == "lacks applications, get, default/manual-app-prod: nothing can be followed without it"


async def test_an_argo_cd_that_tells_no_rights_is_noted(door: Door) -> None:
    """The look at the application itself says what matters."""
    line = await rights(door)
    assert line.level == "note"
    assert line.says.startswith("nobody tells which rights the bot has")
