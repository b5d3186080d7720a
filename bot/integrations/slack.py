"""Slack: the announcer of cards and the directory of people, over slack_sdk's async client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.core.catalog import Target
from bot.core.dossier import Dossier
from bot.core.errors import Closed, Failed, Gone, NoGroup, Unavailable
from bot.core.people import Person
from bot.core.ports import Card
from bot.core.promotion import Event, Promotion
from bot.core.rollout import Look
from bot.core.together import together
from bot.messages.answers import cannot_post
from bot.messages.card import card as render
from bot.messages.mrkdwn import Block, Message
from bot.messages.thread import (
    direct_reminder,
    emergency,
    last_words,
    recovery,
    reminder,
    review_reminder,
    story,
    waited_for,
)

log = structlog.get_logger()

CLOCKS_DIFFER = timedelta(minutes=5)
"""How far Slack's clock and ours may be apart, generously."""
LOOK_UP_WITHIN = 2.0
"""Seconds for a question about a person: a click has to be answered within three."""

GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})
"""The message is not there any more, or not ours to edit."""
CLOSED = frozenset({"channel_not_found", "not_in_channel", "is_archived", "is_inactive"})
"""The channel cannot be written to; `is_inactive` is what an edit in an archived one meets."""
SCOPES = frozenset(
    {"commands", "chat:write", "files:write", "users:read", "users:read.email", "usergroups:read"}
)
"""Every scope that a call in this file or a surface of the manifest needs."""
HISTORY_SCOPES = frozenset({"channels:history", "groups:history"})
"""Of use, not needed: with them a card is found again whose place was lost; without them it is posted once more."""
PICTURE = "statistics.png"
PAGES = 5
"""How far back a lost card is looked for, in pages of two hundred messages."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def web_client(
    token: str, *, api_url: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncWebClient:
    """A client without retries of its own: a post that is sent twice stands twice, so the engine decides.

    `api_url` is for a simulated Slack: a loopback address, or `ValueError`.
    """
    base_url = AsyncWebClient.BASE_URL
    if api_url:
        if urlsplit(api_url).hostname not in LOOPBACK:
            raise ValueError(
                "SLACK_API_URL is accepted for loopback addresses only: a token must not leave for elsewhere."
            )
        base_url = api_url
    client = AsyncWebClient(token=token, base_url=base_url, timeout=5, ssl=tls, retry_handlers=[])
    client.proxy = _proxy(base_url)
    return client


def _proxy(url: str) -> str | None:
    """The proxy on the way to an address; slack_sdk's own reading of HTTPS_PROXY ignores NO_PROXY."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


class SlackAnnouncer:
    """Posts a card once, then edits it; tells the story in its thread."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    def digest(self, target: Target, promotion: Promotion, look: Look) -> str:
        """A short word for what the card would show: equal words, equal cards."""
        message = render(target, promotion, look)
        shown = json.dumps([message.text, message.blocks], sort_keys=True)
        return hashlib.sha256(shown.encode()).hexdigest()[:16]

    async def post(self, target: Target, promotion: Promotion, look: Look) -> Card:
        """Post the card and return its place, with its permalink."""
        message = render(target, promotion, look)
        posted = await _call(
            lambda: self._client.chat_postMessage(
                channel=target.channel,
                unfurl_links=False,
                unfurl_media=False,
                metadata=_mark(promotion),
                **_body(message),
            )
        )
        return await self._place(str(posted["channel"]), str(posted["ts"]))

    async def posted(self, target: Target, promotion: Promotion) -> Card | None:
        """The place of a card that was posted although no answer came, as far as the bot may read the channel."""
        try:
            me, cursor = (await _call(self._client.auth_test))["bot_id"], ""
            for _ in range(PAGES):
                page = await self._history(target.channel, since=promotion.requested_at, cursor=cursor)
                for message in page["messages"]:
                    if message.get("bot_id") == me and message.get("metadata") == _mark(promotion):
                        return await self._place(target.channel, str(message["ts"]))
                cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
                if not cursor:
                    break
        except _NotGranted:
            log.info("lost card not looked for", promotion=promotion.id, needed=sorted(HISTORY_SCOPES))
        return None

    async def _history(self, channel: str, *, since: datetime, cursor: str) -> AsyncSlackResponse:
        oldest = str((since - CLOCKS_DIFFER).timestamp())
        return await _call(
            lambda: self._client.conversations_history(
                channel=channel, oldest=oldest, limit=200, include_all_metadata=True, cursor=cursor or None
            )
        )

    async def _place(self, channel: str, ts: str) -> Card:
        try:
            found = await _call(lambda: self._client.chat_getPermalink(channel=channel, message_ts=ts))
        except (Unavailable, Gone):
            return Card(channel=channel, ts=ts)  # the card stands; a missing link must not post it twice
        return Card(channel=channel, ts=ts, link=str(found["permalink"]))

    async def edit(self, card: Card, target: Target, promotion: Promotion, look: Look) -> None:
        """Make the posted message show the promotion as it is: text and blocks together, else old buttons stay."""
        message = render(target, promotion, look)
        await _call(
            lambda: self._client.chat_update(channel=card.channel or "", ts=card.ts or "", **_body(message))
        )

    async def tell(
        self, card: Card, promotion: Promotion, events: Sequence[Event], *, dossier: Dossier | None = None
    ) -> None:
        """Add these events to the thread, in one message; with the request what the card has no room for."""
        if text := story(promotion, events, dossier):
            await _call(
                lambda: self._client.chat_postMessage(
                    channel=card.channel or "",
                    thread_ts=card.ts or "",
                    text=text,
                    unfurl_links=False,
                    unfurl_media=False,
                )
            )

    async def send_logs(self, card: Card, promotion: Promotion, words: str, *, to: Collection[str]) -> None:
        """Send each of these people, directly, what a pod that failed wrote last."""
        text = last_words(promotion, card.link, words)
        for user in sorted(to):
            with contextlib.suppress(
                Unavailable, Gone
            ):  # one who cannot be reached keeps it from nobody else
                await _call(
                    lambda user=user: self._client.chat_postMessage(  # type: ignore[misc]
                        channel=user, text=text, unfurl_links=False
                    )
                )

    async def tell_recovery(self, card: Card, says: str) -> None:
        """Say in the thread that what had failed came right."""
        await _call(
            lambda: self._client.chat_postMessage(
                channel=card.channel or "", thread_ts=card.ts or "", text=recovery(says), unfurl_links=False
            )
        )

    async def remind(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Ask those who may still approve, in the thread, and each of them directly as far as that is possible."""
        in_thread, direct = reminder(promotion, target), direct_reminder(promotion, card.link)
        await _call(
            lambda: self._client.chat_postMessage(
                channel=card.channel or "", thread_ts=card.ts or "", text=in_thread, unfurl_links=False
            )
        )
        for user in sorted(waited_for(promotion, target)):
            # The thread has told it; who cannot be reached directly must not bring it there once more.
            with contextlib.suppress(Unavailable, Gone):
                await _call(
                    lambda user=user: self._client.chat_postMessage(  # type: ignore[misc]
                        channel=user, text=direct, unfurl_links=False
                    )
                )

    async def tell_emergency(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Tell every approver by id directly as far as that is possible, then the audit channel."""
        text, reached = emergency(promotion, card.link), 0
        for user in sorted(target.policy.users | target.policy.notify.users):
            with contextlib.suppress(Unavailable, Gone):
                await self._say(user, text)
                reached += 1
        try:
            await self._say(target.audit or target.channel, text)
        except Closed:
            if not reached:  # somebody has to hear of it
                raise

    async def _say(self, place: str, text: str) -> None:
        await _call(lambda: self._client.chat_postMessage(channel=place, unfurl_links=False, text=text))

    async def remind_review(self, card: Card, target: Target, promotion: Promotion) -> None:
        """Ask, in the audit channel and the thread, that somebody look at an emergency."""
        text = review_reminder(promotion, card.link)
        places = {(card.channel or "", card.ts), (target.audit or card.channel or "", None)}
        for channel, thread in sorted(places, key=str):
            if thread is None and channel == card.channel:
                continue  # the thread of the card is the place for it
            await _call(
                lambda channel=channel, thread=thread: self._client.chat_postMessage(  # type: ignore[misc]
                    channel=channel, thread_ts=thread, text=text, unfurl_links=False
                )
            )

    async def warn(self, target: Target, promotion: Promotion) -> None:
        """Tell the requester, directly, that the card cannot be posted, and what to do."""
        text = cannot_post(promotion, target.channel)
        await _call(lambda: self._client.chat_postMessage(channel=promotion.requested_by.id, text=text))


class SlackNotices:
    """Messages of their own, for what concerns everybody in a channel."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def tell(self, channel: str, text: str, blocks: Sequence[Block] = ()) -> None:
        """Post it; a person's id instead of a channel's reaches that person directly."""
        await _call(
            lambda: self._client.chat_postMessage(
                channel=channel,
                text=text,
                blocks=list(blocks) or None,
                unfurl_links=False,
                unfurl_media=False,
            )
        )

    async def show(self, channel: str, picture: bytes, *, title: str, alternative: str, caption: str) -> None:
        """Upload a PNG into a channel; raises `Unavailable`, `Closed`, and `Failed` where the app may not upload."""
        try:
            await _call(
                lambda: self._client.files_upload_v2(
                    channel=channel,
                    content=picture,
                    filename=PICTURE,
                    title=title,
                    alt_txt=alternative,
                    initial_comment=caption,
                )
            )
        except _NotGranted as error:
            raise Failed(
                "The app may not upload files. Put its manifest in anew (python -m bot manifest) and install it anew."
            ) from error


class SlackDirectory:
    """Who people are, asked anew each time; where Slack does not answer, nobody is waved through."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._team: str | None = None

    async def team(self) -> str:
        """The id of the workspace that the bot is installed in."""
        if self._team is None:
            self._team = str((await _call(self._client.auth_test))["team_id"])
        return self._team

    async def person(self, user: str) -> Person:
        """Who this is, as Slack says now."""
        try:
            answer, team = await self._within(
                together(_call(lambda: self._client.users_info(user=user)), self.team())
            )
        except _Unknown:
            return Person(id=user, team=await self.team(), name=user, is_deactivated=True)
        return _person(answer["user"], team)

    async def members(self, group: str) -> frozenset[str]:
        """The people of a user group now; raises `NoGroup` for one that is disabled or gone, and `Unavailable`."""
        try:
            found: frozenset[str] = await self._within(self._members(group))
        except _Unknown as error:
            raise NoGroup(group) from error
        return found

    async def _members(self, group: str) -> frozenset[str]:
        answer = await _call(lambda: self._client.usergroups_users_list(usergroup=group))
        # Slack does not say what it answers for a disabled group, so nobody is taken for nobody only with care.
        if not answer["users"] and not await self._is_enabled(group):
            raise NoGroup(group)
        return frozenset(str(user) for user in answer["users"])

    async def _is_enabled(self, group: str) -> bool:
        answer = await _call(self._client.usergroups_list)
        return any(each.get("id") == group and not each.get("date_delete") for each in answer["usergroups"])

    async def owner_of(self, email: str) -> str | None:
        """The id of the person with this address; None for nobody, for who has left and for another workspace's."""
        if not email.strip():  # git lets a commit have none, and Slack calls that no question
            return None
        try:
            answer, team = await self._within(
                together(_call(lambda: self._client.users_lookupByEmail(email=email)), self.team())
            )
        except _Unknown:
            return None
        person = _person(answer["user"], team)
        return None if person.is_deactivated or person.is_stranger else person.id

    async def granted(self) -> frozenset[str]:
        """The scopes of the bot's token."""
        answer = await _call(self._client.auth_test)
        return frozenset(str(answer.headers.get("x-oauth-scopes", "")).replace(" ", "").split(","))

    async def _within(self, question: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(LOOK_UP_WITHIN):
                return await question
        except TimeoutError as error:
            raise Unavailable("Slack", "it did not say in time who you are") from error


class _Unknown(Unavailable):
    """Slack knows no such user or group."""


class _NotGranted(Unavailable):
    """The token has not the scope for it."""


def _person(user: dict[str, Any], team: str) -> Person:
    profile = user.get("profile") or {}
    grid = user.get("enterprise_user") or {}
    teams = {user.get("team_id"), *(grid.get("teams") or [])}
    return Person(
        id=str(user["id"]),
        team=team,
        name=str(profile.get("real_name") or user.get("real_name") or user.get("name") or user["id"]),
        email=str(profile["email"]) if profile.get("email") else None,
        is_bot=bool(user.get("is_bot")) or user["id"] == "USLACKBOT",
        is_guest=bool(user.get("is_restricted") or user.get("is_ultra_restricted")),
        is_stranger=bool(user.get("is_stranger")) or team not in teams,
        is_deactivated=bool(user.get("deleted")),
    )


def _mark(promotion: Promotion) -> dict[str, Any]:
    """What tells a card from every other message; people cannot write it."""
    return {"event_type": "promotion", "event_payload": {"id": promotion.id}}


def _body(message: Message) -> dict[str, Any]:
    return {"text": message.text, "blocks": list(message.blocks)}


async def _call(call: Callable[[], Awaitable[AsyncSlackResponse]]) -> AsyncSlackResponse:
    """One call of the Web API, its errors sorted by what happens next."""
    try:
        return await call()
    except SlackApiError as error:
        raise _sorted(error) from error
    except (TimeoutError, aiohttp.ClientError, OSError, SlackClientError) as error:
        raise Unavailable("Slack", _trouble(error), maybe_done=True) from error


def _trouble(error: Exception) -> str:
    """What kept a call from its answer; the host is Slack's or the proxy's."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"it cannot be reached: {error.host}: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be reached: {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return "it did not answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _sorted(error: SlackApiError) -> Exception:
    response = error.response
    data = response.data if isinstance(response.data, dict) else {}
    word = str(data.get("error") or response.status_code)
    if word in GONE | CLOSED:
        log.warning("Slack message cannot be written", error=word)
        return (Gone if word in GONE else Closed)(f"Slack says {word}")
    if word in ("user_not_found", "users_not_found", "no_such_subteam", "subteam_disabled"):
        return _Unknown("Slack", f"it says {word}")
    if response.status_code == 429 or word == "ratelimited":
        wait = str(response.headers.get("Retry-After") or "")
        return Unavailable(
            "Slack", "it asks for a pause", retry_after=float(wait) if wait.isdecimal() else 1.0
        )
    log.warning("Slack refused a call", error=word, needed=data.get("needed"))
    if word == "missing_scope":
        return _NotGranted("Slack", f"it says {word} (the token needs the scope {data.get('needed')})")
    return Unavailable("Slack", f"it says {word}")
