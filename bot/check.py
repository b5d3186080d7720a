"""`python -m bot check`: try everything that the configuration and the environment name, and say what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bot.app import TOKEN_WARNED
from bot.core.catalog import Application, Catalog, Target
from bot.core.errors import NoGroup, PromoteError
from bot.core.facts import ApplicationFacts
from bot.core.image_name import ImageName
from bot.core.membership import deciding, is_member, require_somebody
from bot.core.people import Person
from bot.core.policy import NOBODY, Listed, Policy, Probe, Window
from bot.core.ports import Calendar, Directory
from bot.core.together import together
from bot.git_access import COMMITTER, signers, unsigned
from bot.integrations.argocd import ArgoCD
from bot.integrations.calendar import CronCalendar
from bot.integrations.signing import CommitSigner
from bot.integrations.slack import HISTORY_SCOPES, SCOPES
from bot.outside import Outside, open_outside, sealer
from bot.settings import Settings
from bot.watching import Watching

LOOK_BACK = timedelta(days=30)
"""How long ago others may have pushed what makes one wonder."""


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
    for attempt in (
        _slack,
        _people,
        _groups,
        _approvals,
        _windows,
        _repositories,
        _registries,
        _sources,
        _argocd,
        _targets,
        _probes,
        _pushes,
    ):
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
    """Everybody whom promote.yaml names, once, with what for."""
    named = {user: lists for user, lists in _named(outside.catalog).items() if not user.startswith("S")}
    for user, lists in sorted(named.items()):

        async def person(user: str = user, lists: Sequence[str] = lists) -> str:
            found = await outside.directory.person(user)
            if not is_member(found):
                raise PromoteError(f"{found.name} is {_what(found)}, and is named in {', '.join(lists)}")
            return f"{found.name}: {', '.join(lists)}"

        yield await _tried(f"slack: {user}", person(), otherwise=_weight(lists))


async def _groups(outside: Outside) -> AsyncIterator[Line]:
    """Every user group that promote.yaml names, once, with what for."""
    named = {group: lists for group, lists in _named(outside.catalog).items() if group.startswith("S")}
    for group, lists in sorted(named.items()):
        yield await _group(outside.directory, group, lists)


async def _group(directory: Directory, group: str, lists: Collection[str]) -> Line:
    """Who is in a group; without one that `deny` names nobody can approve anything."""
    what, weight, named = f"slack: group {group}", _weight(lists), ", ".join(lists)
    try:
        found = await directory.members(group)
    except NoGroup:
        level = "error" if "deny" in lists else weight
        return Line(what=what, level=level, says=f"the group is disabled or gone: {named}")
    except PromoteError as error:
        return Line(what=what, level=weight, says=str(error))
    if not found:
        return Line(what=what, level=weight, says=f"the group is empty: {named}")
    return Line(what=what, level="ok", says=f"{len(found)} people: {named}")


def _what(person: Person) -> str:
    """What somebody is who is no full member."""
    kinds = {
        "a bot": person.is_bot,
        "a guest": person.is_guest,
        "of another workspace": person.is_stranger,
        "deactivated, or nobody knows them": person.is_deactivated,
    }
    return next(kind for kind, holds in kinds.items() if holds)


def _named(catalog: Catalog) -> Mapping[str, Sequence[str]]:
    """Every person and group by id, and the lists of promote.yaml that name them."""
    found: dict[str, dict[str, None]] = {}
    pairs = [pair for target in catalog.targets for pair in _lists(target.policy)]
    pairs.append(("identities", Listed(users=frozenset(catalog.identities.values()))))
    for name, listed in pairs:
        for id in listed.users | listed.groups:
            found.setdefault(id, {})[name] = None
    return {id: tuple(names) for id, names in found.items()}


def _lists(policy: Policy) -> Iterator[tuple[str, Listed]]:
    """The lists of a policy, by their keys in promote.yaml."""
    for rule in policy.rules:
        yield "approvals", Listed(users=rule.users, groups=rule.groups)
    yield "deny", policy.denied
    yield "notify", policy.notify
    yield "requesters", policy.requesters or NOBODY
    yield "lockers", policy.lockers or NOBODY
    for check in policy.checks:
        yield "reporters", check.reporters
    yield "rollback", policy.rollback.who if policy.rollback else NOBODY
    yield "emergency", policy.emergency.who if policy.emergency else NOBODY


def _weight(lists: Collection[str]) -> str:
    """How bad it is when somebody is not there: who gives no right to anybody is missed by nobody."""
    return "warn" if set(lists) <= {"deny", "notify", "identities"} else "error"


async def _approvals(outside: Outside) -> AsyncIterator[Line]:
    """Could living people satisfy the rules, whoever asks?"""
    for name, target in _places(outside.catalog):
        if not target.policy.needs_approval:
            continue

        async def approvals(target: Target = target) -> str:
            policy = target.policy
            members = await deciding(outside.directory, policy)
            nobody: frozenset[str] = frozenset()
            await require_somebody(outside.directory, policy, members, never=nobody, where=target.environment)
            return f"needs {policy.total}; every rule can be met"

        yield await _tried(f"approvals: {name}", approvals())


async def _windows(outside: Outside) -> AsyncIterator[Line]:
    """What the windows say now, and when that changes."""
    now, calendar = datetime.now(UTC), CronCalendar()
    for name, target in _places(outside.catalog):
        if windows := target.policy.windows:
            yield _hours(f"windows: {name}", calendar, windows, now)


def _hours(what: str, calendar: Calendar, windows: Sequence[Window], now: datetime) -> Line:
    try:
        hours = calendar.hours(windows, now)
    except PromoteError as error:
        return Line(what=what, level="error", says=str(error))
    changes = f"{hours.changes_at:%Y-%m-%d %H:%M} UTC" if hours.changes_at else ""
    if hours.is_open:
        return Line(what=what, level="ok", says=f"open until {changes}" if changes else "open")
    says = f"closed now, and opens at {changes}: {hours.says}" if changes else f"closed: {hours.says}"
    return Line(what=what, level="ok" if changes else "warn", says=says)


def _places(catalog: Catalog) -> Iterator[tuple[str, Target]]:
    """One target for an environment whose apps have the same rules, else each of them by its own name."""
    for environment in catalog.environments:
        targets = [target for target in catalog.targets if target.environment == environment]
        if len({target.policy for target in targets}) == 1:
            yield environment, targets[0]
        else:
            yield from ((target.name, target) for target in targets)


async def _repositories(outside: Outside) -> AsyncIterator[Line]:
    first: dict[str, Target] = {}
    for target in outside.catalog.targets:
        first.setdefault(target.repository.name, target)
    for name, target in first.items():

        async def probe(target: Target = target) -> str:
            await outside.gitops.probe(target)
            return f"{target.repository.branch} can be read and pushed to"

        yield await _tried(f"git: {name}", probe())
        if outside.pulls.takes(target.repository):
            yield await _tried(f"pull requests: {name}", outside.pulls.probe(target.repository))
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


async def _sources(outside: Outside) -> AsyncIterator[Line]:
    """Each source, by the labels of a version that an environment holds."""
    first: dict[str, Target] = {}
    for target in outside.catalog.targets:
        if target.source:
            first.setdefault(target.source.url, target)
    for url, target in first.items():
        needed = [each for each in outside.catalog.targets if each.source == target.source]
        is_needed = any(not each.policy.commit_authors for each in needed)

        async def commits(target: Target = target) -> str:
            image = await outside.gitops.current(target)
            found = await outside.sources.between(target, image, image)
            if found.unknown:
                raise PromoteError(found.unknown)
            return f"the commit of {target.app} {image.version} can be read"

        yield await _tried(f"source: {url}", commits(), otherwise="error" if is_needed else "warn")


async def _probes(outside: Outside) -> AsyncIterator[Line]:
    """Each probe, asked once with what would go: what the environment before holds."""
    asked = [(target, probe) for target in outside.catalog.targets for probe in target.policy.probes]
    for line in await together(*(_probe(outside, target, probe) for target, probe in asked)):
        yield line


async def _probe(outside: Outside, target: Target, probe: Probe) -> Line:
    what = f"probe: {probe.name} ({target.name})"
    try:
        image = await outside.gitops.current(outside.catalog.before(target) or target)
        says = await outside.probes.ask(probe, target, image)
    except PromoteError as error:
        return Line(what=what, level="warn", says=str(error))
    return Line(what=what, level="note" if says else "ok", says=f"{image.version}: {says or 'passed'}")


async def _pushes(outside: Outside) -> AsyncIterator[Line]:
    """Does what others push go live without an approval?"""
    watching = Watching(argocd=outside.argocd, gitops=outside.gitops, catalog=outside.catalog)
    after = datetime.now(UTC) - LOOK_BACK
    for target in outside.catalog.targets:
        if not target.policy.needs_approval:
            continue
        try:
            says = await watching.pushes_by_others(target, after=after)
        except PromoteError as error:
            says = str(error)
        if says:
            yield Line(what=f"pushes: {target.name}", level="warn", says=says)


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
    lines = await together(*(_target(outside, target) for target in outside.catalog.targets))
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
            if target.release and target.release.tag:
                await _require_tag(outside, target, facts)
            return f"{facts.sync}, {facts.health}"

        name = target.called(application)
        lines.append(await _tried(f"{target.name}: {name}", observed()))
        lines.append(await _rights(outside.argocd, application, name))
    return lines


async def _require_tag(outside: Outside, target: Target, facts: ApplicationFacts) -> None:
    """Raise `PromoteError` where Argo CD would not follow the next tag, or is not even at the present one."""
    tag, tagged = await outside.gitops.tag_in_force(target)
    if facts.revision != tagged:
        here = facts.revision[:8] if facts.revision else "no revision"
        raise PromoteError(
            f"it is at {here}, and {tag} names {tagged[:8]}: its targetRevision must "
            f"be a range that {tag} is in, or stand in the file that pin names, and be applied from there"
        )
    if (source := outside.catalog.before(target)) and target.release:
        coming = target.release.tag_of((await outside.gitops.current(source)).version)
        if not facts.takes(coming):
            raise PromoteError(
                f"it follows the range {facts.range}, and {coming}, which {source.environment} would bring, is not in "
                "it: Argo CD passes over it"
            )


async def _tried(what: str, attempt: Awaitable[str], *, otherwise: str = "error") -> Line:
    """What was seen; where that failed, `otherwise` is how bad that is."""
    try:
        return Line(what=what, level="ok", says=await attempt)
    except PromoteError as error:
        return Line(what=what, level=otherwise, says=str(error))
