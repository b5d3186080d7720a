"""What is merged with a pull request beside what was approved is told, once, and nothing else is called so."""

import difflib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forges import KINDS
from hypothesis import given
from hypothesis import strategies as st
from test_pull_requests_of_promotions import Place, lived, place_in
from world import push

from bot.core.ports import ChangedFile, PullRequest, PullState
from bot.core.promotion import Phase, Promotion
from bot.core.proposing import MANY
from bot.core.reconciling import Reconciling
from bot.integrations.forge_http import changed_lines
from bot.playground import repository as sample
from bot.playground.forge.server import MERGE, REBASE, SQUASH, Trouble

VALUES = "values-prod.yaml"
WAYS = [MERGE, SQUASH, REBASE]
MORE = "More was merged with"
UNSEEN = "Nobody could see whether more was merged"


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> AsyncIterator[Place]:
    async with place_in(tmp_path / "world", redis_url, kind=request.param) as made:
        yield made


def pushed(
    place: Place,
    files: Mapping[str, str | None],
    *,
    branch: str = "",
    on: str | None = None,
    mode: str = "100644",
) -> str:
    """Somebody pushes a commit with these texts to the branch of a pull request; None removes a file."""
    git: Any = place.forge.fake.repository
    branch = branch or place.pull.head
    parent = on or git.head(branch)
    room = {"GIT_INDEX_FILE": str(git.folder / "theirs")}
    git._git("read-tree", parent, who=room)
    for path, text in files.items():
        blob = "0" * 40 if text is None else git._git("hash-object", "-w", "--stdin", stdin=text)
        line = f"{'0' if text is None else mode} {blob}\t{path}\n"
        git._git("update-index", "--index-info", stdin=line, who=room)
    revision: str = git._commit(git._git("write-tree", who=room), parent, message="Theirs")
    git._move(branch, git.head(branch), revision)
    return revision


def proposed_text(place: Place, path: str = VALUES) -> str:
    """A file as the pull request has it."""
    git: Any = place.forge.fake.repository
    return f"{git._git('show', f'{place.pull.head}:{path}')}\n"


async def story(place: Place, id: str) -> list[str]:
    """What happened, in order, by the names of the events."""
    return [event.what for event in await place.world.store.events(id)]


async def followed(place: Place, id: str) -> Promotion:
    """The promotion at its end, which is that it is live, and everything told."""
    promotion = await place.until(id, lambda found: found.phase.is_final)
    assert promotion.phase is Phase.LIVE, promotion.ending
    return await place.world.rest(id)


async def told_of(place: Place, id: str) -> list[str]:
    """The lines of the thread about what was merged besides."""
    return [line for line in (await place.world.thread(id)).splitlines() if "more was merged" in line.lower()]


async def assert_told(place: Place, id: str, files: str) -> None:
    """It stands once in the thread, with the files and the page, on the card, and in one alarm."""
    promotion = await place.world.find(id)
    [line] = await told_of(place, id)
    assert MORE in line
    assert line.endswith(f"Look at what came: {files}")
    assert promotion.pull_request is not None
    assert promotion.pull_request in line
    assert MORE in await place.world.shown(id)
    assert (await story(place, id)).count("merged besides") == 1
    [alarm] = [each for each in place.world.alarms if "more than was approved" in each]
    assert id in alarm
    assert files in alarm


async def assert_silent(place: Place, id: str) -> None:
    """Nobody was told anything of the kind."""
    assert await told_of(place, id) == []
    assert "more was merged" not in (await place.world.shown(id)).lower()
    assert "merged besides" not in await story(place, id)
    assert place.world.alarms == []


# --- more than was approved


@pytest.mark.parametrize("method", WAYS)
async def test_what_somebody_else_pushed_and_merged_is_told_and_followed(place: Place, method: str) -> None:
    """By whatever button: the channel and the operator hear once which file came besides, and it goes live."""
    id = await place.opened()
    pushed(place, {"values-dev.yaml": "replicas: 9\n"})
    place.forge.fake.merge_by_hand(1, method=method)
    await followed(place, id)
    await assert_told(place, id, "values-dev.yaml")


@pytest.mark.parametrize("method", WAYS)
async def test_another_line_of_the_same_file_is_more(place: Place, method: str) -> None:
    """The approval was for one line of the file, and not for all that stands in it."""
    id = await place.opened()
    pushed(place, {VALUES: proposed_text(place) + "replicas: 9\n"})
    place.forge.fake.merge_by_hand(1, method=method)
    await followed(place, id)
    await assert_told(place, id, VALUES)


async def test_more_that_was_pushed_beneath_our_commit_is_told(place: Place) -> None:
    """A branch that ends with our very change may bring something else before it."""
    id = await place.opened()
    git: Any = place.forge.fake.repository
    text, parent = proposed_text(place), git._git("rev-parse", f"{place.pull.head}^")
    beneath = pushed(place, {"values-dev.yaml": "replicas: 9\n"}, on=parent)
    pushed(place, {VALUES: text}, on=beneath)
    place.forge.fake.merge_by_hand(1, method=REBASE)
    await followed(place, id)
    await assert_told(place, id, "values-dev.yaml")


async def test_several_of_many_files_are_named(place: Place) -> None:
    """Three names, and how many more."""
    id = await place.opened()
    pushed(place, {f"extra/{number}.yaml": "a: 1\n" for number in range(7)})
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    await assert_told(place, id, "extra/0.yaml, extra/1.yaml, extra/2.yaml and 4 more")


async def test_very_many_files_are_not_counted(place: Place) -> None:
    """A host may not list them all, so no number is given that could be too low."""
    id = await place.opened()
    pushed(place, {f"extra/{number:03}.yaml": "a: 1\n" for number in range(MANY + 3)})
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    await assert_told(place, id, "extra/000.yaml, extra/001.yaml, extra/002.yaml and many more")


async def test_a_name_of_a_file_calls_nobody(place: Place) -> None:
    """Whoever pushes may call a file what they want: in Slack it is plain text."""
    id = await place.opened()
    pushed(place, {"<!channel> *a*.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    said = await place.world.shown(id) + await place.world.thread(id)
    assert "&lt;!channel&gt;" in said
    assert "<!channel>" not in said


async def test_an_update_that_drops_what_the_branch_had_is_told(place: Place) -> None:
    """Merging the base and throwing away its changes takes them back in production."""
    id = await place.opened()
    git: Any = place.forge.fake.repository
    tip = place.world.push_by_hand("dev", "17")
    head = git.head(place.pull.head)
    git._move(
        place.pull.head,
        head,
        git._commit(git._git("rev-parse", f"{head}^{{tree}}"), head, tip, message="Ours"),
    )
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    await assert_told(place, id, "values-dev.yaml")


@pytest.mark.parametrize("method", [SQUASH, REBASE])
async def test_more_is_also_told_where_the_version_did_not_come(place: Place, method: str) -> None:
    """Somebody pushed another version and merged it: the promotion failed, and the file is named besides."""
    id = await place.opened()
    pushed(place, {VALUES: proposed_text(place).replace('"15"', '"13"'), "more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1, method=method)
    promotion = await place.until(id, lambda found: found.phase.is_final)
    await place.world.rest(id)
    assert promotion.phase is Phase.FAILED
    assert "does not hold 15" in (promotion.ending or "")
    await assert_told(place, id, f"more.yaml, {VALUES}")


async def test_a_merge_that_is_faster_than_the_end_is_told_too(place: Place) -> None:
    """Somebody pushed more and merged it while the bot was about to end the promotion."""
    id = await place.opened()

    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(place.forge.pulls, name)

        async def close(self, edit: Any, *, why: str) -> PullRequest | None:
            if place.pull.state == "open":
                pushed(place, {"more.yaml": "a: 1\n"})
                place.forge.fake.merge_by_hand(1, method=SQUASH)
            return await place.forge.pulls.close(edit, why=why)

    place.world.passes(4 * 24 * 3600)
    await place.world.advance(id, place.world.new_engine(pulls=Late()))
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


# --- nothing else than was approved


@pytest.mark.parametrize("method", WAYS)
async def test_an_ordinary_merge_by_a_person_is_not_spoken_of(place: Place, method: str) -> None:
    """It was merged at the bot's own commit, so the host is not even asked what came."""
    id = await place.opened()
    place.forge.fake.merge_by_hand(1, method=method, message="My own words")
    await followed(place, id)
    await assert_silent(place, id)
    if (place.forge.kind, method) != ("gitlab", REBASE):  # where the branch itself is rebased first
        assert not [each for each in place.forge.fake.requests if "/files" in each or "/diffs" in each]


async def test_an_ordinary_merge_by_the_bot_is_not_spoken_of(place: Place) -> None:
    """Nobody has pushed anything."""
    id = await place.world.approved()
    await followed(place, id)
    await assert_silent(place, id)
    assert place.pull.by == "promote-bot"


@pytest.mark.parametrize("method", WAYS)
async def test_a_branch_that_was_updated_brings_nothing_more(place: Place, method: str) -> None:
    """“Update branch” merges what the base has already: others' changes of the same file and of others."""
    id = await place.opened()
    place.world.push_by_hand("dev", "17")
    text = sample.read_file(place.world.repository, VALUES)
    push(place.world.repository, {VALUES: f"{text}theirs: 1\n"})
    place.forge.fake.update_by_hand(1)
    place.forge.fake.merge_by_hand(1, method=method)
    await followed(place, id)
    await assert_silent(place, id)


async def test_an_updated_branch_with_more_is_told_without_what_the_base_had(place: Place) -> None:
    """Of both kinds of commits only the file that nobody approved is named."""
    id = await place.opened()
    place.world.push_by_hand("dev", "17")
    place.forge.fake.update_by_hand(1)
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1, method=SQUASH)
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


async def test_the_same_change_by_another_commit_is_nothing_more(place: Place) -> None:
    """Somebody rebased the branch by hand: other commits, and the one line that was approved."""
    id = await place.opened()
    text, tip = proposed_text(place), place.world.push_by_hand("dev", "17")
    pushed(place, {VALUES: text}, on=tip)
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    await assert_silent(place, id)


async def test_a_branch_that_the_bot_has_built_anew_is_its_own(place: Place) -> None:
    """Beside the value somebody else's comment stands by now: the bot's newest commit is on record, not its first."""
    id = await place.opened()
    text = sample.read_file(place.world.repository, VALUES)
    git: Any = place.forge.fake.repository
    tip = git.head("main")
    changed = pushed(place, {VALUES: text.replace('"14"', '"14" # ours')}, on=tip)
    first = (await place.world.find(id)).proposed
    git._move(place.pull.head, changed, first)
    git._move("main", tip, changed)
    await place.until(id, lambda found: found.proposed != first)
    place.forge.fake.merge_by_hand(1)
    await followed(place, id)
    assert '"15" # ours' in sample.read_file(place.world.repository, VALUES)
    await assert_silent(place, id)


async def test_our_commit_alone_may_come_by_another_way(place: Place) -> None:
    """Somebody pushed it to the base by hand, and what else is on its branch has not come."""
    id = await place.opened()
    git: Any = place.forge.fake.repository
    ours = git.head(place.pull.head)
    pushed(place, {"more.yaml": "a: 1\n"})
    git.fast_forward("main", ours)
    await followed(place, id)
    await assert_silent(place, id)


# --- crashes, restarts and outages


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("method", [MERGE, SQUASH])
async def test_a_crash_at_any_boundary_tells_it_once(place: Place, method: str, *, is_after: bool) -> None:
    """Killed before or after every call to the outside, from the merge to the commit: one event each time."""
    place.forge.fake.required_reviews = 1
    world = place.world
    for at in range(1, 40):
        id = await world.request("dev", str(16 + at))
        await place.until(id, lambda found: found.pull_request is not None)
        number = max(place.forge.fake.pulls)
        branch = place.forge.fake.pulls[number].head
        pushed(place, {f"more-{at}.yaml": "a: 1\n"}, branch=branch)
        place.forge.fake.merge_by_hand(number, method=method)
        died = await lived(place, id, at, is_after=is_after, ends=lambda found: bool(found.revision))
        assert (await story(place, id)).count("merged besides") == 1, at
        assert (await world.find(id)).besides == f"more-{at}.yaml", at
        await place.until(id, lambda found: found.phase.is_final)
        if not died:
            break
    assert at > 5
    assert not died


async def test_another_process_tells_it_no_second_time(place: Place) -> None:
    """The bot is started anew between the merge, the rollout and its end."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    for _ in range(4):
        place.world.restart()
        await place.step(id)
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


async def test_what_was_merged_while_the_bot_was_down_is_told(place: Place) -> None:
    """It finds its commit on the branch when it starts, and the host knows what came with it."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    place.world.restart()
    [sentence] = await Reconciling(engine=place.world.engine).reconcile()
    assert id in sentence
    assert (await place.world.find(id)).phase is Phase.COMMITTED
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


def trouble(place: Place, *, times: int, status: int = 503, body: object = None) -> None:
    """The host does not say what a pull request changes, or says something else."""
    path = "/repos/acme/gitops/pulls/1/files"
    if place.forge.kind == "gitlab":
        path = "/api/v4/projects/acme/gitops/merge_requests/1/diffs"
    place.forge.fake.troubles.append(
        Trouble(
            begins=f"GET {path}",
            status=status,
            body={"message": "away"} if body is None else body,
            times=times,
        )
    )


async def test_a_host_that_is_away_for_a_moment_is_asked_again(place: Place) -> None:
    """It is known a little later what came, and told then."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    trouble(place, times=5)
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


@pytest.mark.parametrize("status", [403, 503])
async def test_a_host_that_stays_silent_does_not_keep_it_from_being_followed(
    place: Place, status: int
) -> None:
    """What is on the branch rolls out: after a minute it is followed, and it is said that nobody could see."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    trouble(place, times=1000, status=status)
    before = place.world.clock.now()
    committed = await place.until(id, lambda found: found.phase is Phase.COMMITTED)
    assert (committed.last.at - before).total_seconds() < 120
    await followed(place, id)
    [line] = await told_of(place, id)
    assert UNSEEN in line
    assert UNSEEN in await place.world.shown(id)
    [alarm] = place.world.alarms
    assert "may have brought more" in alarm


@pytest.mark.parametrize("body", [[], [{"path": "what is this"}], {"message": "moved"}])
async def test_what_cannot_be_read_is_never_taken_for_nothing(place: Place, body: object) -> None:
    """A list that is empty, or is none, is asked for again; a moment later the host knows what came."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)
    trouble(place, times=2, status=200, body=body)
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


async def test_a_host_that_does_not_show_the_file_leaves_a_doubt(place: Place) -> None:
    """A diff that is too large is left out: whether it holds more than the approved line nobody can tell."""
    id = await place.opened()
    pushed(place, {VALUES: proposed_text(place) + "replicas: 9\n"})
    place.forge.fake.merge_by_hand(1)

    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(place.forge.pulls, name)

        async def files(self, *each: Any) -> tuple[ChangedFile, ...]:
            return tuple(replace(file, lines=None) for file in await place.forge.pulls.files(*each))

    place.world.parts = replace(place.world.parts, pulls=Short())  # type: ignore[arg-type]
    place.world.engine = place.world.new_engine()
    await followed(place, id)
    [line] = await told_of(place, id)
    assert UNSEEN in line


async def test_a_host_that_knows_of_its_merge_late_is_waited_for(place: Place) -> None:
    """The branch holds it, and the host says for a moment that it is open: nothing is taken for certain before."""
    id = await place.opened()
    pushed(place, {"more.yaml": "a: 1\n"})
    place.forge.fake.merge_by_hand(1)

    class Behind:
        left = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(place.forge.pulls, name)

        async def find(self, edit: Any) -> PullRequest | None:
            found = await place.forge.pulls.find(edit)
            self.left -= 1
            is_late = found and self.left >= 0
            return replace(found, state=PullState.OPEN, revision=None) if found and is_late else found

    place.world.parts = replace(place.world.parts, pulls=Behind())  # type: ignore[arg-type]
    place.world.engine = place.world.new_engine()
    await place.step(id)
    assert (await place.world.find(id)).phase is Phase.APPROVED
    await followed(place, id)
    await assert_told(place, id, "more.yaml")


# --- what the hosts say of a pull request's files


CHANGES: Mapping[str, tuple[Callable[[Place], Any], ChangedFile]] = {
    "added": (
        lambda place: pushed(place, {"new.yaml": "a: 1\n"}),
        ChangedFile(path="new.yaml", lines=((), ())),
    ),
    "removed": (
        lambda place: pushed(place, {"values-dev.yaml": None}),
        ChangedFile(path="values-dev.yaml", lines=((), ())),
    ),
    "renamed": (
        lambda place: pushed(
            place, {"values-dev.yaml": None, "other.yaml": proposed_text(place, "values-dev.yaml")}
        ),
        ChangedFile(path="other.yaml", lines=((), ())),
    ),
    "made executable": (
        lambda place: pushed(
            place, {"values-dev.yaml": proposed_text(place, "values-dev.yaml")}, mode="100755"
        ),
        ChangedFile(path="values-dev.yaml", lines=((), ())),
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_more_than_lines_is_no_edit(place: Place, kind: str) -> None:
    """A file that came, went or was renamed has no lines to compare, so it is never taken for the approved one."""
    id = await place.opened()
    do, expected = CHANGES[kind]
    do(place)
    found = await files_of(place, id)
    assert [each for each in found if each.path != VALUES] == [expected]


async def files_of(place: Place, id: str) -> tuple[ChangedFile, ...]:
    """What the host says that the promotion's pull request changes."""
    edit = place.world.engine._edit(await place.world.find(id), place.world.target())
    pull = await place.forge.pulls.find(edit)
    assert pull is not None
    return await place.forge.pulls.files(edit, pull)


async def test_the_files_of_a_proposal_are_the_one_line_of_its_card(place: Place) -> None:
    """What both hosts show of our own commit is what the record says that it changes."""
    id = await place.opened()
    [change] = (await place.world.find(id)).changes
    expected = ChangedFile(path=VALUES, lines=((change.before,), (change.after,)))
    assert await files_of(place, id) == (expected,)


async def test_the_files_stay_when_it_was_merged_and_its_branch_deleted(place: Place) -> None:
    """Nothing of the base that came later is among them either."""
    id = await place.opened()
    before = await files_of(place, id)
    place.forge.fake.merge_by_hand(1)
    place.world.push_by_hand("dev", "17")
    place.forge.fake.repository.delete(place.pull.head)
    assert await files_of(place, id) == before


LINES = st.lists(st.text(alphabet="-+@ ab", max_size=4), max_size=8)


@given(before=LINES, after=LINES, is_dos=st.booleans(), has_head=st.booleans())
def test_the_lines_of_a_diff_are_those_that_it_removes_and_adds(
    before: list[str], after: list[str], *, is_dos: bool, has_head: bool
) -> None:
    """Whatever stands in them, with the names of the files before them or without, and whatever ends the lines."""
    told = list(difflib.unified_diff(before, after, "a/x", "b/x", lineterm=""))
    hunks = told if has_head else told[2:]
    patch = "".join(f"{line}\r\n" if is_dos else f"{line}\n" for line in hunks)
    pairs = difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    removed = tuple(line for kind, a, b, _, _ in pairs if kind != "equal" for line in before[a:b])
    added = tuple(line for kind, _, _, a, b in pairs if kind != "equal" for line in after[a:b])
    assert changed_lines(patch) == ((removed, added) if told else None)


@pytest.mark.parametrize("patch", [None, "", 7, "Binary files differ"])
def test_where_no_lines_are_shown_none_are_known(patch: object) -> None:
    """What the host leaves out is never taken for an empty change."""
    assert changed_lines(patch) is None
