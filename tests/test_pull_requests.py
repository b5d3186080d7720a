"""The bot's way to GitHub and to GitLab: one contract, kept against both simulated hosts over real repositories."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from forges import KINDS, NAME, TOKEN, Host, adapter, host
from git_hosts import PATH, Remote

from bot.core.errors import Failed, Stale, Unavailable
from bot.core.ports import Author, Edit, PullRequest, PullState
from bot.core.promotion import PromotionId
from bot.git_access import COMMITTER
from bot.integrations.forge_http import LONGEST_WAIT, new_client
from bot.integrations.gitops import GitRepository
from bot.playground.forge.gitlab import FakeGitLab
from bot.playground.forge.server import REBASE, SQUASH, Trouble

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ID = PromotionId("P-7Q4ZC2M9KD")
BRANCH = f"promote/{ID}"
MESSAGE = f"Promote manual-app v15 to prod\n\nprod ran v14.\n\nPromotion-Id: {ID}\nApp: manual-app\nEnvironment: prod\nNew-Version: v15\n"


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture(params=KINDS)
async def forge(request: pytest.FixtureRequest, remote: Remote) -> AsyncIterator[Host]:
    async with host(request.param, remote.folder) as made:
        yield made


@pytest.fixture
async def values(tmp_path: Path) -> AsyncIterator[GitRepository]:
    writer = GitRepository(
        cache=tmp_path / "cache", committer=COMMITTER, allow_local=frozenset({"gitops"}), timeout=20
    )
    yield writer
    await writer.aclose()


@pytest.fixture
def edit(remote: Remote) -> Edit:
    return Edit(
        target=remote.target(),
        promotion=ID,
        old="v14",
        new="v15",
        message=MESSAGE,
        author=Author(name="Dana", email="dana@acme.example"),
        at=NOON,
        base=remote.tip,
        since=datetime(2023, 1, 1, tzinfo=UTC),
    )


async def opened(forge: Host, values: GitRepository, edit: Edit) -> tuple[PullRequest, str]:
    """A pull request for the edit, and the revision that it proposes."""
    revision = await values.propose(edit)
    return await forge.pulls.open(edit, title="Promote it", body="Facts."), revision


async def ready(forge: Host, edit: Edit) -> PullRequest:
    """The pull request, once the host has found out whether it can be merged."""
    for _ in range(3):
        found = await forge.pulls.find(edit)
    assert found is not None
    return found


# --- the branch


async def test_a_proposal_is_one_commit_of_ours_beside_the_branch(
    remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """The branch of its own holds the approved change and its trailers; the other one is where it was."""
    before = remote.tip
    revision = await values.propose(edit)
    assert remote.git("rev-parse", BRANCH) == revision
    assert remote.git("rev-parse", f"{BRANCH}^") == before == remote.tip
    assert remote.git("diff", "--name-only", "main", BRANCH) == PATH
    assert remote.git("show", "-s", "--format=%B", BRANCH) == MESSAGE.strip()


async def test_a_proposal_that_stands_there_is_left_alone(
    remote: Remote, values: GitRepository, edit: Edit, tmp_path: Path
) -> None:
    """Whoever proposes it again, also from another copy and after others pushed, finds the same commit."""
    first = await values.propose(edit)
    remote.push({"README.md": "others\n"})
    other = GitRepository(cache=tmp_path / "2", committer=COMMITTER, allow_local=frozenset({"gitops"}))
    try:
        assert await values.propose(edit) == await other.propose(edit) == first
    finally:
        await other.aclose()


async def test_a_proposal_is_built_anew_on_the_newest_tip_where_that_is_asked_for(
    remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """A host that wants the branch up to date gets it so, and once only."""
    await values.propose(edit)
    tip = remote.push({"README.md": "others\n"})
    anew = await values.propose(edit, anew=True)
    assert remote.git("rev-parse", f"{BRANCH}^") == tip
    assert await values.propose(edit, anew=True) == anew


async def test_other_approvals_make_another_commit(remote: Remote, values: GitRepository, edit: Edit) -> None:
    """What stands there of an earlier quorum is replaced: the commit tells who approved this one."""
    first = await values.propose(edit)
    again = replace(edit, message=MESSAGE + "Approved-By: Ben\n")
    second = await values.propose(again)
    assert second != first
    assert remote.git("rev-parse", BRANCH) == second


async def test_what_somebody_else_pushed_to_our_branch_is_not_overwritten(
    remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """A commit of others there is nothing that was approved, and nothing that we may delete."""
    theirs = remote.push({"README.md": "theirs\n"})
    remote.git("update-ref", f"refs/heads/{BRANCH}", theirs)
    with pytest.raises(Failed, match="Somebody else has pushed to promote/"):
        await values.propose(edit)
    assert remote.git("rev-parse", BRANCH) == theirs


async def test_a_value_that_has_moved_is_not_proposed(
    remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """What was approved was v14 to v15."""
    remote.push({PATH: "image:\n  tag: v16\nsidecar: {tag: v16}\n"})
    with pytest.raises(Stale):
        await values.propose(edit)


async def test_what_was_written_is_not_proposed_again(
    remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """Also where somebody put the value back since: a promotion is written once."""
    await values.commit(edit)
    remote.push({PATH: "image:\n  tag: v14\nsidecar: {tag: v14}\n"})
    with pytest.raises(Failed, match="was written before"):
        await values.propose(edit)


# --- opening and finding


async def test_there_is_none_before_it_is_opened(forge: Host, edit: Edit) -> None:
    """Nobody has proposed it, so nothing is found."""
    assert await forge.pulls.find(edit) is None


async def test_what_is_opened_is_found(forge: Host, values: GitRepository, edit: Edit) -> None:
    """It is open, at our commit, with title and body, and a page for people."""
    pull, revision = await opened(forge, values, edit)
    found = await forge.pulls.find(edit)
    assert found == pull
    assert (found.state, found.head, found.revision) == (PullState.OPEN, revision, None)
    assert found.url.startswith("https://")
    assert (forge.fake.pulls[1].title, forge.fake.pulls[1].body) == ("Promote it", "Facts.")


async def test_opening_twice_opens_one(forge: Host, values: GitRepository, edit: Edit) -> None:
    """The host says that there is one already, and that one is it."""
    first, _ = await opened(forge, values, edit)
    assert await forge.pulls.open(edit, title="Again", body="") == first
    assert list(forge.fake.pulls) == [first.number]


async def test_a_lost_answer_does_not_open_a_second_one(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """Nobody heard whether it was opened: it may be, the next try finds it."""
    await values.propose(edit)
    forge.fake.troubles.append(Trouble(begins="POST"))
    with pytest.raises(Unavailable) as lost:
        await forge.pulls.open(edit, title="Promote it", body="")
    assert lost.value.maybe_done
    found = await forge.pulls.open(edit, title="Promote it", body="")
    assert (found.number, list(forge.fake.pulls)) == (1, [1])


async def test_others_from_the_same_branch_are_not_ours(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """One from our branch to another base, and one from another branch to ours, are somebody else's."""
    await values.propose(edit)
    remote.git("branch", "other", "main~0")
    remote.git("branch", f"{BRANCH}-2", BRANCH)
    for head, base in ((BRANCH, "other"), (f"{BRANCH}-2", "main")):
        forge.fake.opened(title="x", body="", head=head, base=base, who="Mona")
    assert await forge.pulls.find(edit) is None


async def test_of_several_the_merged_one_counts_then_the_open_one(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """After an earlier one was closed the open one is found, and what was merged is found for ever."""
    await opened(forge, values, edit)
    forge.fake.close_by_hand(1)
    second = await forge.pulls.open(edit, title="Once more", body="")
    assert second.number == 2
    assert (await ready(forge, edit)).number == 2
    forge.fake.merge_by_hand(2)
    third = forge.fake.opened(title="x", body="", head=BRANCH, base="main", who="Mona")
    third.state = "closed"
    assert (await ready(forge, edit)).state is PullState.MERGED


async def test_every_page_of_the_list_is_read(forge: Host, values: GitRepository, edit: Edit) -> None:
    """The one that was merged long ago is on the second page."""
    await opened(forge, values, edit)
    forge.fake.merge_by_hand(1)
    for _ in range(120):
        forge.fake.opened(title="x", body="", head=BRANCH, base="main", who="Mona").state = "closed"
    found = await forge.pulls.find(edit)
    assert found is not None
    assert (found.number, found.state) == (1, PullState.MERGED)


async def test_nothing_to_propose_is_refused_in_the_hosts_words(forge: Host, edit: Edit) -> None:
    """A branch that is not there cannot be proposed, and the host says so."""
    with pytest.raises(Failed, match=r"invalid|does not exist"):
        await forge.pulls.open(edit, title="x", body="")


# --- merging


async def test_it_is_merged_at_our_revision(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """The base branch holds our very commit, and the host tells which of its own brought it, and who."""
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    assert await forge.pulls.merge(edit, pull, revision=revision)
    found = await ready(forge, edit)
    assert (found.state, found.revision, found.by) == (PullState.MERGED, remote.tip, "promote-bot")
    assert forge.fake.repository.contains("main", revision)
    assert "v15" in remote.text()


async def test_only_the_revision_that_was_approved_is_merged(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """Where somebody pushed to the branch meanwhile, nothing is."""
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    before = remote.tip
    who = ("-c", "user.name=Mona", "-c", "user.email=mona@acme.example")
    extra = remote.git(*who, "commit-tree", f"{BRANCH}^{{tree}}", "-p", BRANCH, "-m", "extra")
    remote.git("update-ref", f"refs/heads/{BRANCH}", extra)
    await ready(forge, edit)
    assert not await forge.pulls.merge(edit, pull, revision=revision)
    assert remote.tip == before
    assert (await ready(forge, edit)).head == extra


async def test_what_needs_reviews_waits_for_them(forge: Host, values: GitRepository, edit: Edit) -> None:
    """The host does not let it be merged before; then it does."""
    forge.fake.required_reviews = 1
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    assert not await forge.pulls.merge(edit, pull, revision=revision)
    forge.fake.review(pull.number)
    assert await forge.pulls.merge(edit, pull, revision=revision)


async def test_a_bot_that_may_not_merge_leaves_that_to_others(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """No right to merge is no error: somebody else merges."""
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    forge.may("read", "write", "pulls")
    assert not await forge.pulls.merge(edit, pull, revision=revision)


async def test_a_conflict_is_not_merged_and_told(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """The branch has to be made anew on the newest tip, or the promotion is stale."""
    pull, revision = await opened(forge, values, edit)
    remote.push({PATH: "image:\n  tag: v14 # yours\nsidecar: {tag: 'v14'}\n"})
    assert (await ready(forge, edit)).is_behind
    assert not await forge.pulls.merge(edit, pull, revision=revision)
    anew = await values.propose(edit, anew=True)
    assert not (await ready(forge, edit)).is_behind
    assert await forge.pulls.merge(edit, pull, revision=anew)


async def test_a_squashed_commit_carries_the_promotions_message(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """Where the host allows squashing alone, history still tells of the promotion by its trailers."""
    if isinstance(forge.fake, FakeGitLab):
        forge.fake.squashes = True
    else:
        forge.fake.methods = {SQUASH}
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    assert await forge.pulls.merge(edit, pull, revision=revision)
    assert f"Promotion-Id: {ID}" in remote.git("show", "-s", "--format=%(trailers)", "main")
    assert (await ready(forge, edit)).revision == remote.tip != revision


async def test_where_only_moving_forward_is_allowed_our_commit_or_its_twin_is_there(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """GitHub rebases it into a commit of its own with our message; GitLab moves the branch to ours."""
    if isinstance(forge.fake, FakeGitLab):
        forge.fake.method = REBASE
    else:
        forge.fake.methods = {REBASE}
    pull, revision = await opened(forge, values, edit)
    await ready(forge, edit)
    assert await forge.pulls.merge(edit, pull, revision=revision)
    assert (await ready(forge, edit)).revision == remote.tip
    assert f"Promotion-Id: {ID}" in remote.git("show", "-s", "--format=%(trailers)", "main")


@pytest.mark.parametrize("method", ["merge", SQUASH, REBASE])
async def test_what_people_merge_is_recognised(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit, method: str
) -> None:
    """Whatever button they press, and whatever they write, it is merged, by them, as a commit of the base branch."""
    await opened(forge, values, edit)
    forge.fake.merge_by_hand(1, method=method, message="I did it my way")
    found = await ready(forge, edit)
    assert (found.state, found.by, found.revision) == (PullState.MERGED, "Mona", remote.tip)


async def test_what_was_pushed_to_the_base_counts_as_merged(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """Somebody moved the base branch to our commit by hand: the host knows that it is merged."""
    _, revision = await opened(forge, values, edit)
    remote.git("update-ref", "refs/heads/main", revision)
    found = await ready(forge, edit)
    assert (found.state, found.revision) == (PullState.MERGED, revision)


# --- closing


async def test_it_is_closed_with_a_reason_and_without_its_branch(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """Nobody can merge it any more, and everybody can read why."""
    await opened(forge, values, edit)
    closed = await forge.pulls.close(edit, why="It was cancelled.")
    assert closed is not None
    assert closed.state is PullState.CLOSED
    assert forge.fake.pulls[1].comments == [("promote-bot", "It was cancelled.")]
    assert forge.fake.repository.head(BRANCH) is None


async def test_closing_twice_says_it_once(forge: Host, values: GitRepository, edit: Edit) -> None:
    """Whoever comes again finds it closed, and the branch gone."""
    await opened(forge, values, edit)
    for _ in range(2):
        closed = await forge.pulls.close(edit, why="It was cancelled.")
        assert closed is not None
    assert len(forge.fake.pulls[1].comments) == 1


async def test_a_branch_without_a_pull_request_is_deleted(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """The bot died between the two, and the promotion was cancelled."""
    await values.propose(edit)
    assert await forge.pulls.close(edit, why="It was cancelled.") is None
    assert forge.fake.repository.head(BRANCH) is None


async def test_what_was_merged_meanwhile_is_told_when_it_should_be_closed(
    forge: Host, remote: Remote, values: GitRepository, edit: Edit
) -> None:
    """Closing comes too late, and the answer is what it has come to."""
    await opened(forge, values, edit)
    forge.fake.merge_by_hand(1)
    found = await forge.pulls.close(edit, why="It was cancelled.")
    assert found is not None
    assert (found.state, found.revision) == (PullState.MERGED, remote.tip)
    assert forge.fake.pulls[1].comments == []


async def test_who_closed_it_is_told(forge: Host, values: GitRepository, edit: Edit) -> None:
    """Somebody closed it on the host without merging it."""
    await opened(forge, values, edit)
    forge.fake.close_by_hand(1, who="Mona")
    found = await forge.pulls.find(edit)
    assert found is not None
    assert (found.state, found.by) == (PullState.CLOSED, "Mona")


# --- who we are, and hosts in trouble


async def test_what_the_bot_may_do_is_told_before_it_is_needed(forge: Host, edit: Edit) -> None:
    """`check` tries it: with the rights it is fine, and without them the sentence says which are missing."""
    assert NAME in await forge.pulls.probe(edit.target.repository)
    forge.may("read")
    with pytest.raises(Failed, match=r"needs .*(Pull requests|api)"):
        await forge.pulls.probe(edit.target.repository)


async def test_a_token_that_is_not_accepted_is_never_repeated(forge: Host, edit: Edit) -> None:
    """The host's words and what the token needs are told, the token is not."""
    async with new_client(ssl.create_default_context()) as client:
        stranger = adapter(forge.kind, forge.fake, client, token="glpat-nobody-knows-this-one")
        with pytest.raises(Failed, match="says 401") as refused:
            await stranger.find(edit)
    assert "nobody-knows" not in str(refused.value)


async def test_a_token_without_the_right_to_open_ends_it(
    forge: Host, values: GitRepository, edit: Edit
) -> None:
    """The host says 403, and somebody has to act."""
    await values.propose(edit)
    forge.may("read", "write")
    with pytest.raises(Failed, match=r"says 403.*token needs"):
        await forge.pulls.open(edit, title="x", body="")


@pytest.mark.parametrize(
    ("status", "body", "headers", "wait"),
    [
        (429, {"message": "Too Many Requests"}, {"Retry-After": "17"}, 17.0),
        (403, {"message": "You have exceeded a secondary rate limit"}, {"Retry-After": "30"}, 30.0),
        (403, {"message": "You have exceeded a secondary rate limit"}, {}, 60.0),
        (
            403,
            {"message": "x"},
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"},
            LONGEST_WAIT,
        ),
        (503, {"message": "Unavailable"}, {"Retry-After": "5"}, 5.0),
        (502, b"<html>Bad gateway</html>", {}, None),
        (200, b"<html>Log in</html>", {}, None),
        (200, {"unexpected": True}, {}, None),
        (200, [{"number": "x"}], {}, None),
    ],
)
async def test_a_host_in_trouble_is_tried_again(
    forge: Host, edit: Edit, status: int, body: Any, headers: dict[str, str], wait: float | None
) -> None:
    """Limits, outages and pages of somebody else say nothing of the pull request; how long to wait is kept."""
    forge.fake.troubles.append(Trouble(begins="GET", status=status, body=body, headers=headers))
    if body == [{"number": "x"}]:
        assert await forge.pulls.find(edit) is None  # an entry that is none of ours
        return
    with pytest.raises(Unavailable) as away:
        await forge.pulls.find(edit)
    assert away.value.retry_after == wait


async def test_no_token_follows_a_redirect(forge: Host, edit: Edit) -> None:
    """Somebody has to put the new address into promote.yaml; the token goes nowhere else."""
    trouble = Trouble(begins="GET", status=301, body=None, headers={"Location": f"{forge.fake.url}/else"})
    forge.fake.troubles.append(trouble)
    with pytest.raises(Failed, match="another address"):
        await forge.pulls.find(edit)
    assert len(forge.fake.requests) == 1


async def test_a_host_that_is_away_is_tried_again(forge: Host, edit: Edit) -> None:
    """Nobody answers: that is no word about the pull request, and no secret is in the sentence."""
    await forge.fake.stop()
    with pytest.raises(Unavailable, match="cannot be reached") as away:
        await forge.pulls.find(edit)
    assert TOKEN not in str(away.value)


async def test_what_a_host_says_cannot_break_the_line(forge: Host, edit: Edit) -> None:
    """Its words come as one line, without what nobody sees, and without the token."""
    words = f"first\nsecond \u202e {TOKEN} ghp_0123456789abcdef " + "x" * 1000
    forge.fake.troubles.append(Trouble(begins="GET", status=422, body={"message": words}))
    with pytest.raises(Failed) as refused:
        await forge.pulls.find(edit)
    said = str(refused.value)
    assert "first second" in said
    assert not [each for each in ("\n", "\u202e", TOKEN, "ghp_0123") if each in said]
    assert len(said) < 400


class ShortLived:
    """A token that the host refuses until it is made anew."""

    def __init__(self) -> None:
        self.tokens = ["an-old-one", TOKEN]

    def current_token(self) -> str:
        """The one that is held."""
        return self.tokens[0]

    def renew(self) -> bool:
        """Make another one."""
        self.tokens.pop(0)
        return True


async def test_a_token_that_has_run_out_is_renewed_once(forge: Host, edit: Edit) -> None:
    """A GitHub App's token lives for an hour: the call is made again with the next one."""
    forge.pulls._api._access = replace(forge.pulls._api._access, token=ShortLived())  # type: ignore[attr-defined]
    assert await forge.pulls.find(edit) is None
    assert len(forge.fake.requests) == 2


async def test_no_cookie_is_kept_between_calls() -> None:
    """The client remembers nothing of a host."""
    async with new_client(ssl.create_default_context()) as client:
        response = httpx.Response(
            200, headers={"Set-Cookie": "a=b"}, request=httpx.Request("GET", "http://h/")
        )
        client.cookies.extract_cookies(response)
        assert not client.cookies
