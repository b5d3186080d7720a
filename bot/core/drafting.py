"""A draft: what a request would change, what is known of it, and what stands in its way. Nothing is recorded here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot.core import gates, same_image
from bot.core.board import Board
from bot.core.catalog import UNKNOWN, Application, Catalog, Image, Target, checked_version
from bot.core.dossier import Commits, Dossier
from bot.core.errors import Failed, Refused, Unavailable
from bot.core.gatekeeper import Gatekeeper
from bot.core.gates import Answer, Answers
from bot.core.guarding import RuleChanges
from bot.core.policy import Gate
from bot.core.ports import Cluster, Directory, Images, Plan, Sources, ValuesRepository, Watched
from bot.core.rollout import ApplicationFacts
from bot.core.together import together
from bot.core.trailers import one_line

LONGEST_SUBJECT = 60
MOST_READ = 500
"""How many of our own commits are read for who asked last."""
SIGNED = re.compile(r"\([A-Z0-9]+/([UW][A-Z0-9]+)\)$")
"""The ids at the end of `Dana <dana@example.com> (T…/U…)`."""


class GatesClosed(Refused):
    """Something stands in the way: `draft` has what all gates say, `reason` is why somebody asked."""

    def __init__(self, draft: Draft, *, reason: str | None = None) -> None:
        super().__init__(draft.answers.says)
        self.draft = draft
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a request would be, under its terms."""

    target: Target
    source: Target | None
    image: Image
    plan: Plan
    dossier: Dossier
    answers: Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The build that would go, how that is known, and what the gates of order and image say."""

    image: Image
    proof: str
    answers: tuple[Answer, ...]
    brings: str = ""
    """The revision that would be brought, where the target follows a branch or tags; empty where nobody says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """Who makes drafts, and of what."""

    catalog: Catalog
    values: ValuesRepository
    cluster: Cluster
    images: Images
    directory: Directory
    sources: Sources
    watched: Watched
    board: Board
    gatekeeper: Gatekeeper
    changes: RuleChanges

    async def draft(
        self,
        target: Target,
        version: str | None,
        *,
        skips: frozenset[Gate],
        asker: str | None = None,
        digest: str = UNKNOWN,
    ) -> Draft:
        """What it would be for `asker` to bring a version; without one, what the environment before runs.

        `digest` is that of what CI has built, for the first environment.
        """
        source = self.catalog.before(target)
        found = await self._found(target, source, version, digest)
        image = found.image
        plan, _ = await together(
            self.values.plan(target, image.version, digest=image.digest, brings=found.brings),
            self._require_range(target, image.version),
        )
        dossier, answers = await together(
            self._dossier(target, source, plan, found),
            self.gatekeeper.ask(target, source, image, skips=skips, asker=asker),
        )
        first = _asked_first(found.answers, skips)
        return Draft(
            target=target,
            source=source,
            image=image,
            plan=plan,
            dossier=dossier,
            answers=Answers((*first, *answers.each)),
        )

    async def draft_back(
        self, target: Target, image: Image, *, brings: str = "", skips: frozenset[Gate]
    ) -> Draft:
        """What it would be to bring back a build that stood there before, `brings` the revision of it, where one was."""
        _require_way_back(target)
        digest = await same_image.proved(self.images, target, image, where=target.environment)
        image = replace(image, digest=digest)
        plan = await self.values.plan(target, image.version, digest=digest, brings=brings)
        proof = "the registry" if target.asks_registry else "its commit" if image.has_digest else ""
        found = Found(image=image, proof=proof, answers=())
        dossier, answers = await together(
            self._dossier(target, None, plan, found),
            self.gatekeeper.ask(target, None, image, skips=skips, is_rollback=True),
        )
        return Draft(target=target, source=None, image=image, plan=plan, dossier=dossier, answers=answers)

    async def running(self, target: Target, version: str) -> Image:
        """The build of a version that a target runs; raises `Refused` where it runs another one, or not well."""
        held = await self.reported(target)
        if held.version != version:
            raise Refused(f"{target.environment} runs {held.version}, not {version}.")
        digest = await same_image.proved(self.images, target, held, where=target.environment)
        return Image(version=version, digest=digest)

    async def reported(self, target: Target) -> Image:
        """What a target runs, live and healthy, as its pods report it; raises `Refused` with the reason where it does not."""
        facts = await self.seen(target)
        version = checked_version(gates.live_version(target, facts))
        return Image(version=version, digest=_reported(facts, target.image))

    async def seen(self, target: Target, *, anew: bool = False) -> Sequence[ApplicationFacts]:
        """One look at each application; `anew` has Argo CD compare first. Raises `Unavailable`, `Failed`."""
        looks = (self._compared(target, each, anew=anew) for each in target.applications)
        return await together(*looks)

    async def held(self, target: Target, source: Target) -> Image:
        """What could go from its source to a target, by the file or by the pods; `Refused` where nothing runs well."""
        found = await self.reported(source)
        return await self._held(target, source, found.version, ()) if target.digests else found

    async def proved(self, target: Target, source: Target, held: Image) -> Image:
        """The build that this is to the target's gates; `Refused` where the registry has another one by now."""
        digest = await same_image.proved(self.images, target, held, where=source.environment)
        return Image(version=held.version, digest=digest)

    async def prospect(self, target: Target, version: str) -> tuple[Image, Answers]:
        """Which build of a version could go, and what every gate says of it; nothing else is found out."""
        source = self.catalog.before(target)
        found = await self._found(target, source, version)
        answers = await self.gatekeeper.ask(target, source, found.image)
        return found.image, Answers((*_asked_first(found.answers, frozenset()), *answers.each))

    async def watched_since(self, target: Target, dossier: Dossier) -> str:
        """What else would be deployed than what was shown, where an approval counts for that; empty for nothing.

        Raises `Unavailable` where nobody can tell.
        """
        if not (dossier.binds_watched and dossier.watched):
            return ""
        watched, _ = await self.watched.commits(target)
        if watched.unknown and not dossier.watched.unknown:
            raise Unavailable("the list of what would be deployed with it", watched.unknown)
        known = {commit.revision for commit in dossier.watched.newest}
        added = [commit for commit in watched.newest if commit.revision not in known]
        if added:
            return one_line(added[0].subject)[:LONGEST_SUBJECT] or added[0].revision[:8]
        if watched.count != dossier.watched.count:
            return "a commit that was shown was deployed, or taken away, meanwhile"
        if not watched.unknown and await self.watched.parameters(target) != dossier.parameters:
            return "parameters of the Argo CD application"
        return ""

    async def _found(
        self, target: Target, source: Target | None, version: str | None, digest: str = UNKNOWN
    ) -> Found:
        if source is None:
            return await self._from_ci(target, version, digest)
        facts = await self.seen(source)
        live, order = _live(target, source, facts, version)
        wanted = version or live or (await self.values.current(source)).version
        held = await self._held(target, source, wanted, facts if wanted == live else ())
        where = source.environment
        try:
            digest = await same_image.proved(self.images, target, held, where=where)
            if wanted == live:
                reports = same_image.reported(facts, source.image)
                await same_image.require_one_build(self.images, target, digest, reports, where=where)
        except Refused as anew:
            return Found(image=held, proof="", answers=(order, gates.closed(Gate.IMAGE, str(anew))))
        proof = "the registry" if target.asks_registry else f"{where}" if digest != UNKNOWN else ""
        image, brings = (
            Image(version=wanted, digest=digest),
            _revision(target, facts) if wanted == live else "",
        )
        return Found(image=image, proof=proof, answers=(order, _proved(target, source, image)), brings=brings)

    async def _require_range(self, target: Target, version: str) -> None:
        """Raise `Refused` where Argo CD would pass over the tag that is made, as its range does not hold it."""
        release = target.release
        if release is None or not release.tag or release.pin:
            return
        tag = release.tag_of(version)
        for facts in await self.seen(target):
            if not facts.takes(tag):
                raise Refused(
                    f"{facts.name} follows the range {facts.range}, and {tag} is not in it, so nothing would change. "
                    "Build a version that is, or change its targetRevision."
                )

    async def _from_ci(self, target: Target, version: str | None, digest: str) -> Found:
        if version is None:
            raise Refused(
                f"{target.environment} is the first environment, so say which version: "
                f"/promote {target.app} <version> {target.environment}"
            )
        held = Image(version=version, digest=digest)
        digest = await same_image.proved(self.images, target, held, where="CI")
        proof = "" if digest == UNKNOWN else "the registry" if target.asks_registry else "CI"
        return Found(image=Image(version=version, digest=digest), proof=proof, answers=())

    async def _held(
        self, target: Target, source: Target, version: str, facts: Sequence[ApplicationFacts]
    ) -> Image:
        """The version as the environment before has it: by its file where this one's has a digest, else by its pods."""
        if target.digests:
            held = await self.values.current(source)
            return held if held.version == version else Image(version=version)
        return Image(version=version, digest=_reported(facts, source.image))

    async def _compared(self, target: Target, application: Application, *, anew: bool) -> ApplicationFacts:
        """The facts; where Argo CD has not compared since its last operation, they are asked of it anew."""
        facts = await self.cluster.observe(target, application, refresh=anew)
        if not (anew or (facts.is_fresh and facts.compares_spec)):
            facts = await self.cluster.observe(target, application, refresh=True)
        return replace(facts, name=target.called(application))

    async def _dossier(self, target: Target, source: Target | None, plan: Plan, found: Found) -> Dossier:
        commits, watched, differences, ran, last = await together(
            self._commits(target, plan, found.image),
            self._watched(target, plan),
            self._differences(target, source),
            self._ran(source, found.image),
            self._last_requester(target),
        )
        # What ran before has to come back also where nobody can tell what else would be deployed.
        is_bound = watched[1] and source is not None
        is_known = watched[0] is not None and not watched[0].unknown
        return Dossier(
            source=commits,
            watched=watched[0],
            binds_watched=is_bound,
            parameters=await self.watched.parameters(target) if is_bound and is_known else "",
            differences=differences[0],
            differences_unknown=differences[1],
            soaked=ran.soaked,
            checks=ran.checks,
            proof=found.proof,
            last_requester=last,
        )

    async def _commits(self, target: Target, plan: Plan, new: Image) -> Commits | None:
        """The commits of the source, with the Slack ids of their authors where an approval depends on them."""
        if target.source is None:
            return None
        held = await self.values.current(target)
        old = held if held.version == plan.old_version else Image(version=plan.old_version)
        commits = await self.sources.between(target, old, new)
        if target.policy.commit_authors:
            return commits
        owners = await self._owners({commit.email.lower() for commit in commits.newest if commit.email})
        newest = tuple(replace(each, user=owners.get(each.email.lower())) for each in commits.newest)
        return replace(commits, newest=newest)

    async def _owners(self, addresses: set[str]) -> dict[str, str]:
        """Whose addresses these are, as far as anybody knows."""
        known = {each: self.catalog.identities[each] for each in addresses if each in self.catalog.identities}
        asked = sorted(addresses - known.keys())[:MOST_READ]
        found = await together(*(self.directory.owner_of(each) for each in asked))
        return known | {each: owner for each, owner in zip(asked, found, strict=True) if owner}

    async def _watched(self, target: Target, plan: Plan) -> tuple[Commits | None, bool]:
        if target.release:  # the revision itself is bound, with all that it holds
            return await self.values.between(target, plan.brings), False
        if not target.policy.needs_approval:
            return None, False
        try:
            return await self.watched.commits(target)
        except (Unavailable, Failed) as error:
            return Commits(unknown=str(error)), True  # whether anybody has to sync is not known either

    async def _differences(self, target: Target, source: Target | None) -> tuple[tuple[str, ...], str]:
        if source is None or not target.policy.needs_approval:
            return (), ""
        try:
            return await self.watched.differences(target, source), ""
        except (Unavailable, Failed) as error:
            return (), str(error)

    async def _ran(self, source: Target | None, image: Image) -> Dossier:
        """How long it ran in the environment before, and what was said of it there."""
        if source is None:
            return Dossier()
        place = (source.app, source.environment)
        soaked, reports = await together(
            self.board.soaked(*place, image), self.board.reports(*place, image.version)
        )
        words = sorted(
            f"{report.check} {'passed' if report.passed else 'failed'}"
            for report in reports
            if (report.app, report.environment, report.image) == (*place, image)
            and self.gatekeeper.sealer.report_is_genuine(report)
        )
        return Dossier(soaked=soaked.total if soaked else None, checks=tuple(words))

    async def _last_requester(self, target: Target) -> str | None:
        """Who asked for what is there now, by the trailers of our own commits; asked only where it matters."""
        if target.policy.last_requester:
            return None
        written = await self.values.written(target.repository, limit=MOST_READ)
        for commit in written:
            if (commit.trailer("App"), commit.trailer("Environment")) == (target.app, target.environment):
                signed = SIGNED.search(commit.trailer("Requested-By"))
                return signed[1] if signed else None
        if len(written) == MOST_READ:
            raise Refused(
                f"Who asked for what is in {target.environment} now may not approve, and my last {MOST_READ} commits "
                "do not tell who that is. Have last_requester of promote.yaml changed for this once."
            )
        return None


def _asked_first(answers: Sequence[Answer], skips: frozenset[Gate]) -> tuple[Answer, ...]:
    """What order and image say; where the environment before does not run it, there is nothing to prove yet."""
    asked = [answer for answer in answers if answer.gate not in skips]
    is_out_of_order = any(answer.gate is Gate.ORDER and not answer.is_open for answer in asked)
    return tuple(answer for answer in asked if not (is_out_of_order and answer.gate is Gate.IMAGE))


def _live(
    target: Target, source: Target, facts: Sequence[ApplicationFacts], wanted: str | None
) -> tuple[str | None, Answer]:
    """What the environment before runs, live and healthy, and whether that is the version that is wanted."""
    try:
        live = checked_version(gates.live_version(source, facts))
        if wanted is not None:
            gates.require_order(target, source, wanted=wanted, live=live)
    except Refused as refused:
        return None, gates.closed(Gate.ORDER, str(refused))
    return live, gates.opened(Gate.ORDER, f"{source.environment} runs {live}, live and healthy")


def _revision(target: Target, facts: Sequence[ApplicationFacts]) -> str:
    """The one revision that the environment before runs, where one is to be brought; raises `Refused` for several."""
    if target.release is None:
        return ""
    found = {each.revision for each in facts}
    if len(found) == 1 and (revision := found.pop()):
        return revision
    raise Refused(
        f"The applications of {target.app} in the environment before are not at one revision, and {target.environment} "
        "takes exactly that. Have them synced, and ask again."
    )


def _require_way_back(target: Target) -> None:
    """Raise `Refused` for what only goes forward."""
    if target.release and target.release.pin is None:
        moved = (
            f"the tags of {target.environment} only go up"
            if target.release.tag
            else (f"the branch {target.repository.branch} only goes forward")
        )
        raise Refused(
            f"{target.app} cannot be rolled back in {target.environment}: {moved}. Take the change back on "
            f"{target.release.source}, let it be built, and promote that."
        )


def _reported(facts: Sequence[ApplicationFacts], image: str) -> str:
    """The one digest that every pod of the image reports; unknown where they report none, or several."""
    digests = same_image.reported(facts, image)
    return next(iter(digests)) if len(digests) == 1 else UNKNOWN


def _proved(target: Target, source: Target, image: Image) -> Answer:
    if image.has_digest:
        return gates.opened(Gate.IMAGE, f"the same build as in {source.environment}")
    if target.is_tag_only:
        return gates.opened(Gate.IMAGE, "the same tag; the image is not proved")
    return gates.closed(
        Gate.IMAGE,
        f"Nobody can prove which build of {image.version} {source.environment} runs: its pods report no digest, or "
        f"several. Name its registry under registries in promote.yaml, or set same_image: tag-only for {target.app}.",
    )
