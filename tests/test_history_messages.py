"""The answer to `/promote history`: the newest rows, what they mean, and nothing from outside that acts."""

from dataclasses import replace
from datetime import timedelta

from builders import AMY, BEN, DANA, NOON, PROD, same_as_golden
from hypothesis import given
from hypothesis import strategies as st
from test_history import entry_of, hostile_commits, moments
from test_messages import as_json, assert_harmless, outside, texts

from bot.core.catalog import UNKNOWN
from bot.core.history import CI, SOMEBODY, Entry, History, Query
from bot.core.ports import Written
from bot.core.promotion import Signer, Way
from bot.messages import history
from bot.messages.history import MOST_ROWS
from bot.messages.mrkdwn import Message
from bot.playground.slack import blocks as block_kit

PROMOTED = Entry(
    at=NOON,
    repository=PROD.repository,
    revision="3f9c2a1b" + "0" * 32,
    promotion="P-7F3KQ0V9XZ",
    app="manual-app",
    environment="prod",
    source="stage",
    old_version="14",
    new_version="15",
    digest=UNKNOWN,
    requested_by=DANA,
    approved_by=(AMY, BEN),
    reason="fixes INC-42",
    rollback_of=None,
    way=None,
    incident=None,
    slack_message=None,
    brings=None,
    build=None,
)
BACK = replace(PROMOTED, rollback_of="P-7F3KQ0V9XZ", old_version="15", new_version="14", approved_by=(AMY,))
HALF_KNOWN = replace(
    PROMOTED, requested_by=SOMEBODY, approved_by=(SOMEBODY,), rollback_of=UNKNOWN, old_version=UNKNOWN
)
ROWS = (
    PROMOTED,
    BACK,
    replace(BACK, way=Way.AT_ONCE, approved_by=()),
    replace(PROMOTED, way=Way.EMERGENCY, incident="INC-99: checkout is down", approved_by=()),
    replace(PROMOTED, approved_by=tuple(Signer(id=f"U{each}", team="T", name="x") for each in range(5))),
    replace(PROMOTED, environment="dev", source="ci", requested_by=CI, approved_by=()),
    replace(HALF_KNOWN, repository=replace(PROD.repository, commit_url=None)),
)
OF_APP = Query(app="manual-app")
ANSWERS = {
    "every kind of commit": History(query=OF_APP, entries=ROWS, is_whole=True),
    "more than are shown, and older ones": History(
        query=Query(
            app="manual-app", environment="prod", since=NOON - timedelta(days=7), until=NOON, by=DANA.id
        ),
        entries=(PROMOTED,) * 21,
        is_whole=False,
    ),
    "one": History(query=replace(OF_APP, by="CI"), entries=(PROMOTED,), is_whole=True),
    "a name": History(
        query=replace(OF_APP, by=DANA.id, name="Dana *Nair* <@U0CEO>"), entries=(PROMOTED,), is_whole=True
    ),
    "none": History(query=replace(OF_APP, environment="prod"), entries=(), is_whole=True),
    "none of those that were read": History(query=OF_APP, entries=(), is_whole=False),
}


def test_the_answers_read_as_it_was_agreed() -> None:
    """Each kind of row, and what is said around the rows, is under review as a golden file."""
    parts = [f"## {name}\n{history.history(found).text}\n" for name, found in ANSWERS.items()]
    same_as_golden("history.txt", "\n".join(parts))


def test_the_message_looks_as_it_was_agreed() -> None:
    """The blocks say the same, a few rows in each."""
    same_as_golden("history.json", as_json(history.history(ANSWERS["every kind of commit"])))


def rows(message: Message) -> list[str]:
    """The rows in the blocks."""
    return [
        line for text in texts(list(message.blocks)) for line in text.splitlines() if line.startswith("• ")
    ]


@given(st.integers(0, 60), st.booleans())
def test_the_newest_are_shown_and_the_others_counted(count: int, is_whole: bool) -> None:
    """Twenty rows at most, in their order; how many there are is told, and whether there may be more."""
    entries = tuple(replace(PROMOTED, revision=f"{number:040x}") for number in range(count))
    message = history.history(History(query=OF_APP, entries=entries, is_whole=is_whole))
    shown = rows(message)
    assert len(shown) == min(count, MOST_ROWS)
    assert all(entry.revision in row for entry, row in zip(entries, shown, strict=False))
    for said in (message.text, " ".join(texts(list(message.blocks)))):
        assert (f"{count} commit" in said) is (count > 0)
        assert ("the newest 20" in said) is (count > 20)
        assert ("There are older commits" in said) is not is_whole
        assert ("`python -m bot history manual-app --csv`" in said) is (count > 0 or not is_whole)


@given(st.none() | moments, st.none() | moments, st.none() | outside)
def test_what_is_to_be_typed_asks_the_same(since: object, until: object, name: str | None) -> None:
    """The command under the rows bears the same app, environment, times and person, by id whatever the name is."""
    query = Query(app="manual-app", environment="prod", since=since, until=until, by="CI", name=name)  # type: ignore[arg-type]
    said = history.history(History(query=query, entries=(PROMOTED,), is_whole=True)).text
    command = said.partition("`python -m bot history ")[2].partition("`")[0]
    assert command.startswith("manual-app prod ")
    assert command.endswith("--by CI --csv")
    assert ("--since" in command, "--until" in command) == (since is not None, until is not None)


@given(st.lists(hostile_commits, max_size=30), outside, outside)
def test_nothing_from_a_commit_acts_in_the_answer(commits: list[Written], text: str, app: str) -> None:
    """Whatever stands in trailers is words and nothing else, fits into Slack, and keeps each row on its line."""
    read = [entry_of(each, PROD.repository) for each in commits]
    odd = replace(
        PROMOTED, environment=text, old_version=text, new_version=app, incident=text, way=Way.EMERGENCY
    )
    strange = replace(odd, requested_by=replace(DANA, id=text, name=app), rollback_of=text)
    found = History(
        query=Query(app=app, environment=text, by=text, name=app),
        entries=(odd, strange, *read),
        is_whole=False,
    )
    message = history.history(found)
    assert block_kit.problems(list(message.blocks), block_kit.MESSAGE) == []
    for each in [message.text, *texts(list(message.blocks))]:
        assert_harmless(each)
    assert len(rows(message)) == min(len(found.entries), MOST_ROWS)
    assert len(message.text) <= 4000
