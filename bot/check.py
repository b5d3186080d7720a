"""`python -m bot check`: try everything that the configuration and the environment name, and say what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.app import TOKEN_WARNED, Outside, open_outside, sealer
from bot.core.catalog import Application, Target
from bot.core.errors import PromoteError
from bot.core.image_name import ImageName
from bot.core.people import require_member
from bot.git_access import COMMITTER, signers, unsigned
from bot.integrations.argocd import ArgoCD
from bot.integrations.signing import CommitSigner
from bot.integrations.slack import HISTORY_SCOPES, SCOPES
from bot.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was tried: `ok`, `note`, `warn` or `error`, and what was seen."""

    what: str
    level: str
    says: str


async def check(settings: Settings, *, say: Callable[[str], None]) -> bool:
    """Try everything, say each result as it comes, and return whether nothing is an error."""
    sound = True
    async with open_outside(settings, may_embed=True) as outside:
        async for line in _lines(outside):
            say(f"{line.level:<6} {line.what:<34} {line.says}")
            sound = sound and line.level != "error"
    say(
        "\nEverything is in place."
        if sound
        else "\nSomething has to be put right; see the lines that begin with error."
    )
    return sound


async def _lines(outside: Outside) -> AsyncIterator[Line]:
    catalog = outside.catalog
    apps, targets = len(catalog.apps), len(catalog.targets)
    yield Line(
        what="configuration", level="ok", says=f"{apps} apps, {targets} targets, {catalog.fingerprint[:19]}…"
    )
    yield await _secrets(outside)
    async for line in _store(outside):
        yield line
    for attempt in (_slack, _people, _repositories, _registries, _argocd, _targets):
        async for line in attempt(outside):
            yield line


async def _secrets(outside: Outside) -> Line:
    async def look() -> str:
        settings = outside.settings
        sealer(settings)
        if settings.get("SLACK_APP_TOKEN"):
            return "PROMOTE_SECRET and SLACK_APP_TOKEN are set: Socket Mode"
        settings.require(
            "SLACK_SIGNING_SECRET", "it proves that a request comes from Slack (or set SLACK_APP_TOKEN)."
        )
        return "PROMOTE_SECRET and SLACK_SIGNING_SECRET are set: HTTP"

    return await _tried("secrets", look())


async def _store(outside: Outside) -> AsyncIterator[Line]:
    place = "REDIS_URL" if outside.settings.get("REDIS_URL") else f"embedded in {outside.settings.data_dir}"
    try:
        findings = await outside.store.soundness()
    except PromoteError as error:
        yield Line(what="store", level="error", says=str(error))
        return
    for finding in findings:
        yield Line(what=f"store: {finding.name}", level=finding.level, says=finding.text)
    yield Line(what="store: place", level="ok", says=place)


async def _slack(outside: Outside) -> AsyncIterator[Line]:
    async def scopes() -> str:
        granted = await outside.directory.granted()
        if missing := SCOPES - granted:
            raise PromoteError(
                f"the token lacks {', '.join(sorted(missing))}; install the app anew with its manifest"
            )
        lacks = sorted(HISTORY_SCOPES - granted)
        twice = f"; without {' and '.join(lacks)} a crash may leave a copy of a card" if lacks else ""
        return f"workspace {await outside.directory.team()}, every scope is granted{twice}"

    yield await _tried("slack: token", scopes())


async def _people(outside: Outside) -> AsyncIterator[Line]:
    policies = [target.policy for target in outside.catalog.targets]
    for user in sorted({user for policy in policies for user in policy.users}):

        async def person(user: str = user) -> str:
            found = await outside.directory.person(user)
            require_member(found)
            return found.name

        yield await _tried(f"slack: approver {user}", person())
    for group in sorted({group for policy in policies for group in policy.groups}):

        async def members(group: str = group) -> str:
            found = await outside.directory.members(group)
            if not found:
                raise PromoteError("the group is empty, disabled or unknown, so nobody of it can approve")
            return f"{len(found)} people"

        yield await _tried(f"slack: group {group}", members())


async def _repositories(outside: Outside) -> AsyncIterator[Line]:
    first: dict[str, Target] = {}
    for target in outside.catalog.targets:
        first.setdefault(target.repository.name, target)
    for name, target in first.items():

        async def probe(target: Target = target) -> str:
            await outside.gitops.probe(target)
            return f"{target.repository.branch} can be read and pushed to"

        yield await _tried(f"git: {name}", probe())
    for sentence in unsigned(outside.settings, outside.config):
        yield Line(what="git: signatures", level="error", says=sentence)
    for name, signer in signers(outside.settings, outside.config).items():
        yield Line(what=f"git: signatures of {name}", level="ok", says=_signer(signer))


async def _registries(outside: Outside) -> AsyncIterator[Line]:
    """Each configured registry, by a version that an environment holds."""
    catalog = outside.catalog
    first: dict[str, Target] = {}
    for target in sorted(catalog.targets, key=lambda each: catalog.environments.index(each.environment)):
        if target.asks_registry:
            first.setdefault(target.image, target)
    for image, target in first.items():

        async def build(image: str = image, target: Target = target) -> str:
            version = (await outside.gitops.current(target)).version
            return f"{target.environment}'s {version} is {await outside.images.digest(image, version)}"

        yield await _tried(f"registry: {image}", build())
    used = {ImageName.parse(image).host for image in first}
    for host in outside.config.registries:
        if host not in used:
            yield Line(what=f"registry: {host}", level="note", says="no app's image comes from it")


def _signer(signer: CommitSigner) -> str:
    """Who signs, in the form that `gpg.ssh.allowedSignersFile` takes."""
    return f'{COMMITTER.email} namespaces="git" {signer.public_key}'


async def _argocd(outside: Outside) -> AsyncIterator[Line]:
    for server in sorted({each.server for target in outside.catalog.targets for each in target.applications}):
        yield await _server(outside.argocd, server, datetime.now(UTC))


async def _server(argocd: ArgoCD, server: str, now: datetime) -> Line:
    """Who answers at a server, whom it takes the bot for, and for how long yet."""
    what = f"argo cd: {server}"
    try:
        found = await argocd.identity(server)
    except PromoteError as error:
        return Line(what=what, level="error", says=str(error))
    seen, expiry = f"{found.version}, as {found.username}", found.token_expires_at
    if expiry and expiry <= now:
        says = f"the token expired at {expiry:%Y-%m-%d %H:%M} UTC; make a new one for the bot's account"
        return Line(what=what, level="error", says=says)
    if not found.is_logged_in:
        anonymous = ", and the bot is served as an anonymous visitor" if found.is_anonymous else ""
        says = f"the token is not accepted{anonymous}; make a new one for the bot's account"
        return Line(what=what, level="error", says=says)
    if expiry and expiry - now < TOKEN_WARNED:
        says = f"{seen}; the token expires at {expiry:%Y-%m-%d %H:%M} UTC: make a new one before that"
        return Line(what=what, level="warn", says=says)
    return Line(what=what, level="ok", says=seen)


async def _rights(argocd: ArgoCD, application: Application, name: str) -> Line:
    """What the bot's account may do with an application, and what the other rights would be for."""
    what = f"rights: {name}"
    try:
        rights = await argocd.rights(application)
    except PromoteError as error:
        return Line(what=what, level="note", says=f"nobody tells which rights the bot has: {error}")
    missing = [right for right in rights if not right.is_granted]
    for right in missing:
        if right.right.startswith("applications, get,"):
            return Line(
                what=what, level="error", says=f"lacks {right.right}: nothing can be followed without it"
            )
    granted = ", ".join(" ".join(right.right.split(", ")[:2]) for right in rights if right.is_granted)
    more = [f"for {right.purpose}: {right.right}" for right in missing]
    return Line(what=what, level="note" if more else "ok", says="; ".join([f"has {granted}", *more]))


async def _targets(outside: Outside) -> AsyncIterator[Line]:
    lines = await asyncio.gather(*(_target(outside, target) for target in outside.catalog.targets))
    for found in lines:
        for line in found:
            yield line


async def _target(outside: Outside, target: Target) -> list[Line]:
    async def value() -> str:
        image = await outside.gitops.current(target)
        return f"{target.path}: {', '.join(target.keys)} is {image.version}"

    lines = [await _tried(target.name, value())]
    for application in target.applications:

        async def observed(application: Application = application) -> str:
            facts = await outside.argocd.observe(target, application, refresh=False)
            if facts.tracks:
                raise PromoteError(f"it does not follow {target.path}: it tracks {facts.tracks}")
            return f"{facts.sync}, {facts.health}"

        name = target.called(application)
        lines.append(await _tried(f"{target.name}: {name}", observed()))
        lines.append(await _rights(outside.argocd, application, name))
    return lines


async def _tried(what: str, attempt: Awaitable[str]) -> Line:
    try:
        return Line(what=what, level="ok", says=await attempt)
    except PromoteError as error:
        return Line(what=what, level="error", says=str(error))
