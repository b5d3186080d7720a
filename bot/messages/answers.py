"""Private answers to commands and clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.core.catalog import Application, Target
from bot.core.errors import PromoteError, Refused, Unavailable
from bot.core.ports import Card
from bot.core.promoter import Place
from bot.core.promotion import Event, Promotion
from bot.core.rollout import ApplicationFacts, running_version
from bot.messages.mrkdwn import code, escape, link, linked, listed, mention, moment, plain, sentence
from bot.messages.thread import story

HELP = """\
*promote-bot* takes one image through the environments, from Slack.

`/promote manual-app prod` – ask for the version that is live in the environment before
`/promote manual-app 15 to stage because fixes INC-42` – a version, and why
`/promote manual-app prod --when-open` – ask now, and let it go by itself when the gates open
`/promote manual-app prod --replace` – take the place of a request that nobody has approved
`/promote manual-app 15 prod --emergency INC-42 because …` – break glass; `/promote review P-…` afterwards
`/promote status [app]` – what every environment holds and runs
`/promote pending` – what waits for approval
`/promote show P-…` – one promotion and its story
`/promote approve P-…`  ·  `/promote reject P-… &lt;reason&gt;`  ·  `/promote withdraw P-…`
`/promote cancel P-… [reason]`
`/promote rollback manual-app prod [to 14] [because …]` – ask for what was there before
`/promote can manual-app prod`  ·  `/promote diff manual-app prod` – could it go now, and what would it bring
`/promote lock (manual-app prod | prod | all) [for 2h | until 18:00] because …`  ·  `/promote unlock …`
`/promote block manual-app 15 because …`  ·  `/promote unblock manual-app 15`
`/promote check manual-app 15 integration pass [in stage] [because …]` – a verdict on what an environment runs
`/promote history manual-app [prod] [since 7d] [until 2026-11-01] [by me | by &lt;name&gt;]` – who promoted what, as git tells it
`/promote stats [manual-app] [prod] [since 7d]` – how often, how fast and how safely it is deployed, with a picture
`/promote locks`  ·  `/promote windows [prod]` – what is kept back now, and what the clock says
`/promote help`

Nothing is written before everybody whom the environment asks for has agreed. The card in the channel shows what will change, who may \
approve, and follows Argo CD until that very image runs."""


def refusal(error: PromoteError) -> str:
    """Why not, and what to do next."""
    if isinstance(error, Unavailable):
        return f":electric_plug: {plain(sentence(str(error)), 800)} {_recorded(error)}"
    text = f":no_entry_sign: {plain(str(error), 800)}"
    return (
        f"{text} {link(error.link, 'Open the card')}" if isinstance(error, Refused) and error.link else text
    )


def _recorded(error: Unavailable) -> str:
    if error.maybe_done:
        return "I could not confirm that it was recorded; look at the card, pressing again is safe."
    return "Nothing was recorded; try again in a moment."


def broken(reference: str) -> str:
    """For a bug of ours."""
    return f":boom: Something broke on our side (ref {reference}). Nothing more was done; try again, or tell us the ref."


def asked(promotion: Promotion, channel: str) -> str:
    """A request was recorded."""
    return f"{code(promotion.id)}: asked for {plain(promotion.title)}. Its card is in <#{channel}>."


def cannot_post(promotion: Promotion, channel: str) -> str:
    """The card has no place: for its requester, directly."""
    return (
        f":warning: I cannot write to <#{channel}>, so nobody sees {code(promotion.id)} "
        f"({plain(promotion.title)}). Invite me there with `/invite @promote-bot`; I go on trying."
    )


def wished(app: str, environment: str, version: str) -> str:
    """Somebody wants to be told when a version can go."""
    return (
        f":bell: I tell you when {plain(app)} {code(version)} can go to *{escape(environment)}*, directly and once. "
        "After seven days I forget it."
    )


def syncing(promotion: Promotion) -> str:
    """Argo CD was asked to sync."""
    return f"{code(promotion.id)}: Argo CD syncs {plain(promotion.title)} now; the card follows it."


def reviewed(promotion: Promotion) -> str:
    """Somebody has looked at an emergency."""
    return (
        f":mag: {code(promotion.id)}: your review of {plain(promotion.title)} is recorded; its card shows it."
    )


def done(promotion: Promotion) -> str:
    """What was asked is recorded; the card shows the rest."""
    return f"{code(promotion.id)}: {plain(promotion.title)} – {plain(promotion.told)}."


def pending(promotions: Sequence[tuple[Promotion, Card]]) -> str:
    """Everything that waits for approval."""
    if not promotions:
        return "Nothing waits for approval."
    lines = [
        f"• {linked(card.link, promotion.id)} *{plain(promotion.title)}*, asked by "
        f"{mention(promotion.requested_by.id)}, expires {moment(promotion.expires_at)}"
        for promotion, card in promotions
    ]
    return listed(["*Waiting for approval*", *lines])


def show(promotion: Promotion, card: Card, events: Sequence[Event]) -> str:
    """One promotion and its story."""
    lines = [
        f"{linked(card.link, promotion.id)} *{plain(promotion.title)}* – {plain(promotion.told)}",
        (
            f"{code(promotion.old_version)} → {code(promotion.version)}, asked by "
            f"{mention(promotion.requested_by.id)}, {moment(promotion.requested_at)}"
        ),
        *story(promotion, events).splitlines(),
    ]
    return listed(lines)


def status(places: Sequence[Place], *, left_out: int = 0) -> str:
    """What every environment holds and runs."""
    lines: list[str] = []
    app = ""
    for place in places:
        if place.target.app != app:
            app = place.target.app
            lines.append(f"*{escape(app)}*")
        lines += _place(place)
    if left_out:
        lines.append(f"… and {left_out} more: `/promote status &lt;app&gt;`")
    return listed(lines) or "No app is configured."


def _place(place: Place) -> list[str]:
    """One line; where there are several applications, one more for each."""
    line = f"• *{escape(place.target.environment)}*: git holds {code(place.version)}"
    applications = zip(place.target.applications, place.applications, strict=True)
    says = [_application(place.target, application, fact) for application, fact in applications]
    if len(says) == 1:
        line += f"; {says.pop()}"
    if place.current:
        line += f"  :hourglass_flowing_sand: {code(place.current.id)} {plain(place.current.version)}: {plain(place.current.told)}"
    return [line, *(f"      {each}" for each in says)]


def _application(target: Target, application: Application, fact: ApplicationFacts | str) -> str:
    """How it is; where it is one of several, which one, too."""
    name = target.called(application)
    is_alone = len(target.applications) == 1
    page = link(application.link, escape(name))
    if isinstance(fact, str):
        return f":warning: {plain(fact) if is_alone else f'{page}: {plain(fact)}'}"
    version, reason = running_version(replace(fact, name=name), target.image)
    if version:
        return f":white_check_mark: {code(version)} is live and healthy{'' if is_alone else f' in {page}'}"
    sign = ":warning:" if fact.health == "Degraded" else ":hourglass_flowing_sand:"
    return f"{sign} {plain(reason)}"
