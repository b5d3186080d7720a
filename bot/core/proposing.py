"""A commit that is proposed: its pull request is opened, followed, merged where the host allows it, and closed.

The promotion stays `approved` meanwhile, and is checked again at every look. That it is proposed is on record before
anything is: whoever comes after a crash knows the branch, and the host knows the one pull request from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from bot.core import trailers
from bot.core.catalog import Repository, Target
from bot.core.errors import Failed, Stale, Unavailable
from bot.core.following import Following
from bot.core.ports import ChangedFile, Edit, PullRequest, PullRequests, PullState
from bot.core.promotion import Approval, Phase, Promotion
from bot.core.recording import NOW, Recording
from bot.core.rollout import Relation

FIRST_LOOK = timedelta(seconds=3)
LOOK_EVERY = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=5)
STRAGGLES = timedelta(minutes=2)
"""How long somebody who was about to open it may still do so after the promotion has ended."""
TIDIED_FOR = timedelta(days=7)
"""How long after its end a pull request is tried to be closed, where its host is away or says no."""
SEEN_WITHIN = timedelta(minutes=1)
"""How long a host that is away is asked what was merged: what is on the branch has to be followed."""
MOST_NAMED = 3
LONGEST_NAME = 120
NAMELESS = "a file with a name that nobody sees"
MANY = 100
"""From so many files on nobody says how many more there are: a host may not list them all."""

ASKED = """Approved in Slack. The bot merges this when it may, and closes it when the promotion ends otherwise;
please push nothing to its branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHosts:
    """The port `PullRequests` where no repository takes any."""

    async def find(self, edit: Edit) -> PullRequest | None:
        """Raise `Failed`."""
        raise _not_set_up(edit.target.repository)

    async def open(self, edit: Edit, *, title: str, body: str) -> PullRequest:  # noqa: ARG002 - the port's
        """Raise `Failed`."""
        raise _not_set_up(edit.target.repository)

    async def merge(self, edit: Edit, pull: PullRequest, *, revision: str) -> bool:  # noqa: ARG002 - the port's
        """Raise `Failed`."""
        raise _not_set_up(edit.target.repository)

    async def files(self, edit: Edit, pull: PullRequest) -> tuple[ChangedFile, ...]:  # noqa: ARG002 - the port's
        """Raise `Failed`."""
        raise _not_set_up(edit.target.repository)

    async def close(self, edit: Edit, *, why: str) -> PullRequest | None:  # noqa: ARG002 - the port's
        """Raise `Failed`."""
        raise _not_set_up(edit.target.repository)

    async def probe(self, repository: Repository) -> str:
        """Raise `Failed`."""
        raise _not_set_up(repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposing(Recording):
    """The steps of a promotion that goes by a pull request."""

    following: Following
    pulls: PullRequests = field(default_factory=NoHosts)

    async def _proposed(self, promotion: Promotion, target: Target) -> PullRequest | None:
        """Its pull request as it is now, where it goes by one."""
        if promotion.branch is None:
            return None
        try:
            return await self.pulls.find(self._edit(promotion, target))
        except Failed:
            # A host that has shut us out must not hold the target for longer than it may wait.
            if await self._may_not_be_written(promotion, target):
                return None
            raise

    async def _propose(
        self,
        promotion: Promotion,
        target: Target,
        pull: PullRequest | None,
        *,
        base: str,
        kept: tuple[Approval, ...],
    ) -> timedelta:
        """`approved`, and everything was checked: open the pull request, or merge it where the host lets us."""
        now = self.clock.now()
        if pull and pull.state is PullState.CLOSED and promotion.pull_request:
            whose = f" by {pull.by}" if pull.by else ""
            why = f"pull request {pull.number} was closed{whose} and not merged; nothing was committed"
            return await self._end(promotion, target, promotion.cancel(by=None, at=now, why=why))
        if promotion.branch is None or (promotion.pull_request is None and promotion.approvals != kept):
            branch = self._edit(promotion, target).branch
            proposed = promotion.propose(at=now, branch=branch, base=base, approvals=kept)
            await self._save(promotion, proposed)
            promotion = proposed
        edit = self._edit(promotion, target)
        try:
            revision = await self.values.propose(edit, anew=pull is not None and pull.is_behind)
            if pull is None or pull.state is PullState.CLOSED:
                pull = await self.pulls.open(edit, title=_title(edit), body=_body(promotion, edit))
        except Stale as stale:
            why = await self._moved(promotion, target, stale.found)
            return await self._end(promotion, target, promotion.outdate(at=now, why=why))
        except Failed as error:
            return await self._end(promotion, target, promotion.fail(at=now, why=str(error)))
        if (promotion.pull_request, promotion.proposed) != (pull.url, revision):
            opened = promotion.open_pull_request(at=now, url=pull.url, proposed=revision)
            return await self._save(promotion, opened)
        await self.following.remember_baseline(promotion, target)
        is_approved = pull.head == revision and await self._is_still(promotion)
        if is_approved and await self.pulls.merge(edit, pull, revision=revision):
            return NOW
        return _pause(now - promotion.last.at)

    async def _is_still(self, promotion: Promotion) -> bool:
        """Has nobody decided otherwise while everything was checked? No save of ours stands before the merge."""
        latest = await self.store.load(promotion.id)
        return latest is not None and latest.edition == promotion.edition

    async def _take_back(self, promotion: Promotion, target: Target, *, why: str) -> timedelta:
        """Nobody may merge it while the gates are closed. That is on record before it is done: its closing is ours."""
        if promotion.pull_request:
            return await self._save(promotion, promotion.take_back(at=self.clock.now(), why=why))
        await self.pulls.close(self._edit(promotion, target), why=_closed_gates(promotion, why))
        return NOW

    async def _propose_instead(self, promotion: Promotion, target: Target, *, base: str) -> timedelta:
        """The branch takes no push: `committing` goes back to `approved`, and on by a pull request."""
        now = self.clock.now()
        reopened = promotion.reopen(at=now)
        await self._save(promotion, reopened)
        branch = self._edit(promotion, target).branch
        proposed = reopened.propose(at=now, branch=branch, base=base, approvals=promotion.approvals)
        return await self._save(reopened, proposed)

    async def _merged(self, promotion: Promotion, target: Target, pull: PullRequest) -> timedelta:
        """Merged, by whomever and however: the branch must hold that commit, and the commit our version."""
        revision = pull.revision or ""
        if not await self.values.is_on_branch(target, revision):
            if await self._may_not_be_written(promotion, target):
                why = (
                    f"pull request {pull.number} was merged as {revision[:8]}, which the branch does not hold"
                )
                return await self._save(promotion, promotion.fail(at=self.clock.now(), why=why))
            raise _lacks(pull)
        promotion = await self._told_besides(promotion, target)
        if (await self._relation(promotion, target, revision)).holds_value:
            return await self._found_again(promotion, revision)
        why = (
            f"pull request {pull.number} was merged as {revision[:8]}, "
            f"and {target.path} does not hold {promotion.version} there"
        )
        return await self._save(promotion, promotion.fail(at=self.clock.now(), why=why))

    async def _found_on_branch(self, promotion: Promotion, revision: str) -> timedelta:
        """Our commit is on the branch, whoever brought it there: it is followed, and what came with it is told."""
        target = self.catalog.target(promotion.app, promotion.environment)
        return await self._found_again(await self._told_besides(promotion, target), revision)

    async def _told_besides(self, promotion: Promotion, target: Target) -> Promotion:
        """The promotion, with what its pull request brought besides on record: whoever comes after tells it no more."""
        if promotion.branch is None or promotion.besides is not None:
            return promotion
        try:
            besides = await self._besides(promotion, target)
        except (Unavailable, Failed) as error:
            if await self._may_soon_be_seen(promotion, error):
                raise
            besides = ""
        if besides is None:
            return promotion
        told = promotion.tell_besides(at=self.clock.now(), besides=besides)
        page = promotion.pull_request or promotion.branch
        more = (
            f"brought more than was approved: {besides}"
            if besides
            else "may have brought more than was approved"
        )
        self.alarm(f"{page} was merged for {promotion.id}, and {more}.")
        await self._save(promotion, told)
        return told

    async def _may_soon_be_seen(self, promotion: Promotion, error: Unavailable | Failed) -> bool:
        """Is it worth asking the host again what was merged? The first time that it could not be seen is kept."""
        now, look = self.clock.now(), await self.store.look(promotion.id)
        since = min(look.unseen_since or now, now)
        if since != look.unseen_since:
            await self.store.save_look(promotion.id, replace(look, unseen_since=since))
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return now + timedelta(seconds=asked or 0) < since + SEEN_WITHIN

    async def _besides(self, promotion: Promotion, target: Target) -> str | None:
        """What its pull request brought beside what was approved: names of files, empty where the host does not show it.

        None where it brought nothing else. That is asked of the changes, not of the commits: a branch that was only
        brought up to date holds others, and changes nothing more.
        """
        edit = self._edit(promotion, target)
        pull = await self._known_as_merged(promotion, target, edit)
        if pull is None or pull.head == promotion.proposed:
            return None
        files = await self.pulls.files(edit, pull)
        if not files:
            raise Unavailable("the git host", f"it lists no file of pull request {pull.number} yet")
        besides = _not_approved(promotion, target, files)
        if besides is None and not await self._is_held(promotion, target, pull):
            return _named([target.path])
        return besides

    async def _known_as_merged(self, promotion: Promotion, target: Target, edit: Edit) -> PullRequest | None:
        """Its pull request, which is merged; None where our commit came to the branch by itself.

        Raises `Unavailable` where the host is behind: of one that it calls open still, it may say an older head, too.
        """
        pull = await self.pulls.find(edit)
        if pull is None and promotion.pull_request:
            raise Unavailable("the git host", f"it does not list {promotion.pull_request}")
        if pull and pull.state is PullState.OPEN and await self.values.is_on_branch(target, pull.head):
            raise Unavailable(
                "the git host", f"it does not say yet that pull request {pull.number} is merged"
            )
        return pull if pull and pull.state is PullState.MERGED else None

    async def _is_held(self, promotion: Promotion, target: Target, pull: PullRequest) -> bool:
        """Did the merge bring our version? The approved lines may come to another place of the file, too."""
        relation = await self._relation(promotion, target, pull.revision or "")
        if relation.contains is None:
            raise _lacks(pull)
        return relation.holds_value

    async def _relation(self, promotion: Promotion, target: Target, revision: str) -> Relation:
        """Does a revision hold the promotion's version?"""
        return await self.values.relate(
            target, revision=revision, commit=revision, version=promotion.version, digest=promotion.digest
        )

    async def _end(self, promotion: Promotion, target: Target, after: Promotion) -> timedelta:
        """Save that it does not go on, once nobody can merge it any more; who was faster has merged it."""
        if promotion.branch and after.phase is not Phase.APPROVED:
            edit = self._edit(promotion, target)
            try:
                pull = await self.pulls.close(edit, why=_last_words(after))
            except Failed as error:
                # A host that has shut us out must not hold the target; it is tried again after the end.
                self.alarm(f"The pull request of {promotion.id} could not be closed: {error}")
            else:
                if pull and pull.state is PullState.MERGED:
                    return await self._merged(promotion, target, pull)
        return await self._save(promotion, after)

    async def _tidy(self, promotion: Promotion, target: Target) -> timedelta | None:
        """After the end: nobody may merge what is not wanted any more. Returns when to look again, None for never."""
        look = await self.store.look(promotion.id)
        ended_for = self.clock.now() - (promotion.ended_at or self.clock.now())
        if promotion.branch is None or look.is_tidied or ended_for >= TIDIED_FOR:
            return None
        try:
            pull = await self.pulls.close(self._edit(promotion, target), why=_last_words(promotion))
        except (Unavailable, Failed):
            return max(LOOK_EVERY, ended_for / 10)
        if NOW <= ended_for < STRAGGLES:
            return STRAGGLES - ended_for
        if pull and pull.state is PullState.MERGED and promotion.revision is None:
            self.alarm(
                f"{promotion.id} is {promotion.phase}, and yet {pull.url} was merged as {pull.revision}."
            )
        await self.store.save_look(promotion.id, replace(look, is_tidied=True))
        return None


def _not_set_up(repository: Repository) -> Failed:
    return Failed(f"No pull requests are set up for {repository.name}; see its mode in promote.yaml.")


def _lacks(pull: PullRequest) -> Unavailable:
    return Unavailable(
        "the git host", f"it says that pull request {pull.number} is merged, and its branch lacks that yet"
    )


def _not_approved(promotion: Promotion, target: Target, files: Sequence[ChangedFile]) -> str | None:
    """The names of the files that change otherwise than the card showed; empty for doubt, None for no such file."""
    before = tuple(each.before for each in promotion.changes)
    after = tuple(each.after for each in promotion.changes)
    approved = ChangedFile(path=target.path, lines=(before, after))
    unseen = ChangedFile(path=target.path, lines=None)
    others = [each.path for each in files if each not in (approved, unseen)]
    if others:
        return _named(others)
    return "" if unseen in files else None


def _named(paths: Sequence[str]) -> str:
    """`a`, `a, b`, `a, b, c and 4 more`."""
    more = len(paths) - MOST_NAMED
    rest = f" and {more if more < MANY else 'many'} more" if more > 0 else ""
    names = (trailers.one_line(path)[:LONGEST_NAME] or NAMELESS for path in paths[:MOST_NAMED])
    return ", ".join(names) + rest


def _pause(waited: timedelta) -> timedelta:
    """Until the next look: soon at first, as the host finds out whether it can be merged; then more and more rarely."""
    soon = min(max(waited / 4, FIRST_LOOK), LOOK_EVERY)
    return max(soon, min(waited / 120, LONGEST_PAUSE))


def _title(edit: Edit) -> str:
    return edit.message.partition("\n")[0]


def _body(promotion: Promotion, edit: Edit) -> str:
    """The facts of the card. What people wrote stands in indented lines: hosts show them as they are."""
    summary, _, facts = edit.message.partition("\n")[2].strip().partition("\n\n")
    changed = [
        line
        for change in promotion.changes
        for line in (f"{change.path}, line {change.number}", f"- {change.before}", f"+ {change.after}")
    ]
    parts = (
        ASKED,
        _indented(summary),
        "What changes:",
        _indented("\n".join(changed)),
        "Who, why and what:",
        _indented(facts),
    )
    return "\n\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _closed_gates(promotion: Promotion, why: str) -> str:
    return f"{promotion.id} may not be merged now; another one is opened when it may:\n\n{_indented(why)}"


def _last_words(promotion: Promotion) -> str:
    """Why it is closed, for its page."""
    why = f":\n\n{_indented(promotion.last.why)}" if promotion.last.why else "."
    return f"{promotion.id} is {promotion.phase}{why}"
