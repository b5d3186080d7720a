"""What others commit is noticed: a new version in the first environment becomes a promotion that is followed.

CI that has git rights, or a person, may change a values file without the bot. The newest commit that did so is recorded
once, whichever process sees it first, and is followed to its end like a commit of the bot's own.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bot.core.board import Board
from bot.core.catalog import UNKNOWN, VERSION, Catalog, Image, Repository, Target
from bot.core.errors import Conflict, Failed, Newer, PromoteError, Unavailable
from bot.core.ports import Change, Clock, Images, Store
from bot.core.promotion import CROCKFORD, ID, Phase, Promotion, PromotionId, Signer, rebuilt
from bot.core.trailers import one_line

LONGEST_NAME = 60
LONGEST_SUBJECT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """The commit that brought what a target holds now."""

    target: Target
    image: Image
    old_version: str
    """What the branch held before it; `unknown` where nobody can read that."""
    revision: str
    author: str
    subject: str
    is_ours: bool
    """Is the bot its committer?"""
    trailers: tuple[tuple[str, str], ...] = ()

    def trailer(self, name: str) -> str:
        """The first value of a trailer; empty where there is none."""
        return next((value for key, value in self.trailers if key == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What came to a branch since a revision: of each target that holds another version the newest commit alone."""

    tip: str
    """Where the branch was looked at."""
    brought: tuple[Brought, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Sentences that say which target was changed and cannot be read, and why."""


class Branches(Protocol):
    """The branches, as far as others change them. May raise `Unavailable`."""

    async def arrivals(
        self, repository: Repository, targets: Sequence[Target], *, since: str | None, fresh: bool
    ) -> Arrivals:
        """What came since; nothing where `since` is None, or not known any more. `fresh` asks the remote first."""
        ...


class _BeingWritten(Exception):
    """It is a commit of ours whose record does not say so yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticing:
    """Looks at the branches; safe at any time, beside any number of others."""

    catalog: Catalog
    store: Store
    branches: Branches
    board: Board
    images: Images
    clock: Clock

    async def look(self, *, fresh: Collection[str] = ()) -> tuple[str, ...]:
        """Look once at every branch, asking the remote of the `fresh` repositories first.

        Returns what could not be followed, and why. What is seen of a branch for the first time counts as known.
        """
        reasons: list[str] = []
        for branch, targets in self._first_targets().items():
            names = {target.repository.name for target in targets}
            try:
                reasons += await self._look(branch, targets, fresh=not names.isdisjoint(fresh))
            except PromoteError as error:
                reasons.append(f"{', '.join(sorted(names))}: {error}")
        return tuple(reasons)

    def _first_targets(self) -> Mapping[str, list[Target]]:
        """Where versions enter the chain by an edit of a file, by the branch that holds it, whatever names that has."""
        found: dict[str, list[Target]] = {}
        for target in self.catalog.targets:
            if self.catalog.is_first(target) and target.release is None:
                branch = f"{target.repository.url} {target.repository.branch}"
                found.setdefault(branch, []).append(target)
        return found

    async def _look(self, branch: str, targets: Sequence[Target], *, fresh: bool) -> tuple[str, ...]:
        repository = targets[0].repository
        since = await self.board.looked_at(branch)
        found = await self.branches.arrivals(repository, targets, since=since, fresh=fresh)
        left: list[Brought] = []
        if found.brought:
            # Asked before the remote is: who is followed from then on has a commit that the remote shows us.
            followed = {each.target.name: await self._followed(each.target) for each in found.brought}
            found = await self.branches.arrivals(repository, targets, since=since, fresh=True)
            left = [each for each in found.brought if not await self._notice(each, followed)]
        if found.tip != since and not left:
            await self.board.keep_looked_at(branch, found.tip)
        return found.unreadable if found.tip != since else ()

    async def _followed(self, target: Target) -> Promotion | None:
        """Which promotion of the target is followed, as far as this version of the bot can read it."""
        id = await self.store.followed(target)
        with contextlib.suppress(Newer):
            return await self.store.load(id) if id else None
        return None

    async def _notice(self, brought: Brought, followed: Mapping[str, Promotion | None]) -> bool:
        """Record it where nobody has; False where that is left to the next look."""
        target = brought.target
        if target.name not in followed:
            return False
        try:
            if await self._is_known(brought):
                return True
            await self._record(brought, followed[target.name])
        except (_BeingWritten, Conflict):
            return False
        return True

    async def _is_known(self, brought: Brought) -> bool:
        """Is there a record of this very commit, or will reconciling make one? Raises `_BeingWritten`."""
        for other in await self.store.history(brought.target):
            if other.revision == brought.revision:
                return True
            is_open = other.revision is None and not other.phase.is_final
            if is_open and other.base is not None and other.version == brought.image.version:
                raise _BeingWritten
        try:
            if await self.store.load(_id_of(brought)):
                return True
            own = _own_id(brought)
            kept = await self.store.load(own) if own else None
        except Newer:
            return True
        if kept:
            return kept.revision == brought.revision
        # A record of ours that was lost is recorded anew from all that the commit tells.
        return own is not None and bool(brought.trailer("Requested-By"))

    async def _record(self, brought: Brought, older: Promotion | None) -> None:
        """Follow it, in the place of what was followed; raises `Conflict` where somebody else was faster."""
        own = _own_id(brought)
        id = own if own and await self.store.load(own) is None else _id_of(brought)
        now, target = self.clock.now(), brought.target
        noticed = rebuilt(
            target,
            id=id,
            source="ci",
            version=brought.image.version,
            old_version=brought.old_version,
            by=_author(brought),
            approved_by=(),
            at=now,
            revision=brought.revision,
            digest=await self._digest(target, brought.image),
            reason=None if own else one_line(brought.subject)[:LONGEST_SUBJECT] or None,
        )
        noticed = replace(noticed, last=replace(noticed.last, what="noticed", by=noticed.requested_by.id))
        instead_of = None
        if older and older.phase is Phase.COMMITTED:
            after = older.supersede(at=now, why=f"{id} brought {noticed.version}")
            instead_of = Change(before=older, after=after)
        await self.store.create(noticed, delivery=None, holds=False, instead_of=instead_of)

    async def _digest(self, target: Target, image: Image) -> str:
        """Which build it is, by the file or by the registry; nobody waits for that."""
        if image.has_digest or not target.asks_registry:
            return image.digest
        with contextlib.suppress(Unavailable, Failed):
            return await self.images.digest(target.image, image.version)
        return UNKNOWN


def require_version(target: Target, image: Image) -> Image:
    """The image, where its version can be one; raises `Failed`."""
    if VERSION.fullmatch(image.version):
        return image
    raise Failed(f"{target.path} holds “{one_line(image.version)[:40]}”, which is no image tag.")


def _own_id(brought: Brought) -> PromotionId | None:
    """The id that a commit of the bot's own carries for this target."""
    place = (brought.trailer("App"), brought.trailer("Environment"))
    id = brought.trailer("Promotion-Id")
    is_own = brought.is_ours and place == (brought.target.app, brought.target.environment)
    return PromotionId(id) if is_own and ID.fullmatch(id) else None


def _id_of(brought: Brought) -> PromotionId:
    """The same for everybody who notices this commit, and another one for each target that it changed."""
    target = brought.target
    words = f"{target.name}\n{target.repository.url}\n{target.repository.branch}\n{brought.revision}"
    number = int.from_bytes(hashlib.sha256(words.encode()).digest())
    return PromotionId("P-" + "".join(CROCKFORD[number >> 5 * place & 31] for place in range(10)))


def _author(brought: Brought) -> Signer:
    """Whoever made the commit, by name alone: anybody can write any address into a commit."""
    name = "CI" if _own_id(brought) else one_line(brought.author)[:LONGEST_NAME] or "somebody"
    return Signer(id=f"git:{name}", team="ci", name=name)
