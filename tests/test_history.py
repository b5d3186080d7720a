"""What git tells of promotions: read from trailers that anybody may have written, filtered, and merged over branches."""

import contextlib
import subprocess
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders import AMY, BEN, DANA, NOON, PROD, approval, catalog, requested
from hypothesis import given
from hypothesis import strategies as st
from test_trailers import HOSTILE, trailers_of
from world import push

from bot.core import history
from bot.core.catalog import UNKNOWN, Catalog, Image, Repository, Target
from bot.core.errors import Refused, Unavailable
from bot.core.history import CI, SOMEBODY, Entry, Query, entry_of, in_utc, moment
from bot.core.ports import Written
from bot.core.promotion import ID, Promotion, Signer, Way
from bot.core.trailers import ci_message, message, one_line, signature, signer_of
from bot.git_access import COMMITTER
from bot.integrations.gitops import GitRepository
from bot.playground.repository import create_repository

CONTEXT = PROD.repository
DIGEST = "sha256:" + "0123456789abcdef" * 4
OURS = (COMMITTER.name, COMMITTER.email or "")

words = st.text(max_size=30) | st.sampled_from(HOSTILE)
ids = st.from_regex(r"[UW][A-Z0-9]{1,10}", fullmatch=True)
persons = st.builds(
    Signer,
    id=ids,
    team=st.from_regex(r"[TE][A-Z0-9]{1,10}", fullmatch=True),
    name=words,
    email=st.none() | st.from_regex(r"[a-z.]{1,8}@[a-z]{1,8}\.example", fullmatch=True),
)
machines = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True).map(Signer.machine)
promotion_ids = st.from_regex(ID, fullmatch=True)
versions = st.from_regex(r"[a-z0-9][a-z0-9.]{0,8}", fullmatch=True).filter(lambda text: text != UNKNOWN)
moments = st.integers(0, 10**10).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@st.composite
def promotions(draw: st.DrawFn) -> Promotion:
    """Any promotion that may be committed, whatever was typed."""
    asked = requested(
        id=draw(promotion_ids),
        version=draw(versions),
        old_version=draw(versions),
        digest=draw(st.sampled_from([UNKNOWN, DIGEST])),
        requested_by=draw(persons | machines),
        reason=draw(st.none() | words),
        rollback_of=draw(st.none() | st.just(UNKNOWN) | promotion_ids),
        way=draw(st.none() | st.sampled_from(Way)),
        incident=draw(words),
        brings=draw(st.none() | st.just("d" * 40)),
        build=draw(st.none() | st.just("https://ci.acme.example/runs/42")),
        link=draw(st.none() | st.just("https://acme.example.com/archives/C0DEPLOYS/p1772366400000100")),
    )
    return replace(
        asked, approvals=tuple(approval(asked, each) for each in draw(st.lists(persons, max_size=3)))
    )


def committed(text: str, *, at: datetime = NOON, revision: str = "c" * 40) -> Written:
    """The commit that bears this message, read as the simplest reader would."""
    trailers = tuple((name, value.strip()) for name, value in trailers_of(text))
    return Written(revision=revision, at=at, trailers=trailers)


def as_signed(signer: Signer) -> Signer:
    """What a trailer keeps of a person: a name of one line, without brackets; the id where nothing is left."""
    if not signer.is_person:
        return signer
    return replace(signer, name=one_line("".join(c for c in signer.name if c not in "<>()")) or signer.id)


def said(text: str | None) -> str | None:
    """What a trailer keeps of words; `unknown` means that there are none."""
    line = one_line(text or "")
    return None if line in ("", UNKNOWN) else line


@given(promotions(), moments)
def test_what_went_into_a_commit_comes_out_of_it(promotion: Promotion, at: datetime) -> None:
    """Every fact of a promotion is read back from its commit, whatever people are called and whatever they typed."""
    entry = entry_of(committed(message(promotion, PROD), at=at), CONTEXT)
    assert entry == Entry(
        at=at,
        repository=CONTEXT,
        revision="c" * 40,
        promotion=promotion.id,
        app=promotion.app,
        environment=promotion.environment,
        source=promotion.source,
        old_version=promotion.old_version,
        new_version=promotion.version,
        digest=promotion.digest,
        requested_by=as_signed(promotion.requested_by),
        approved_by=tuple(as_signed(each.by) for each in promotion.approvals),
        reason=said(promotion.reason),
        rollback_of=promotion.rollback_of,
        way=promotion.way,
        incident=said(promotion.incident) if promotion.is_emergency else None,
        slack_message=promotion.link,
        brings=promotion.brings,
        build=promotion.build,
    )


@given(versions, versions, promotion_ids)
def test_what_ci_wrote_is_an_entry_by_ci(old: str, new: str, id: str) -> None:
    """Nobody asked for it in Slack and nobody approved it, and it stands in the history all the same."""
    text = ci_message(PROD, id=id, old=old, new=Image(version=new, digest=DIGEST))
    entry = entry_of(committed(text), CONTEXT)
    assert (entry.requested_by, entry.approved_by, entry.source) == (CI, (), "ci")
    assert (entry.promotion, entry.old_version, entry.new_version, entry.digest) == (id, old, new, DIGEST)


NAMES = [line.partition(":")[0] for line in message(requested(), PROD).splitlines() if ": " in line]
trailer_names = st.sampled_from([*NAMES, "Approved-By", "Rollback-Of", "Break-Glass", "Incident", "Way"])
hostile = st.one_of(
    words,
    st.sampled_from(["true", "at once", "ci", UNKNOWN, "P-7F3KQ0V9XZ", "=1+1", signature(DANA)]),
    st.builds("{} <{}> ({}/{})".format, words, words, words, words),
)
hostile_commits = st.builds(
    Written,
    revision=st.just("e" * 40),
    at=moments,
    trailers=st.lists(st.tuples(trailer_names, hostile), max_size=20).map(tuple),
)


@given(hostile_commits)
def test_no_trailer_breaks_the_history(written: Written) -> None:
    """Whatever somebody wrote in the bot's name, there is an entry; its ids are ids or `unknown`, its texts one line."""
    entry = entry_of(written, CONTEXT)
    assert entry.promotion == UNKNOWN or ID.fullmatch(entry.promotion)
    assert entry.rollback_of in (None, UNKNOWN) or ID.fullmatch(entry.rollback_of)
    assert entry.digest in (UNKNOWN, DIGEST)
    assert len(entry.approved_by) == len(written.all("Approved-By")), "nobody's approval is left out unseen"
    for signer in (entry.requested_by, *entry.approved_by):
        assert signer in (CI, SOMEBODY) or not signer.is_person or history.USER.fullmatch(signer.id)
    texts = [entry.app, entry.environment, entry.source, entry.old_version, entry.new_version, entry.digest]
    people = [
        each for signer in (entry.requested_by, *entry.approved_by) for each in (signer.id, signer.name)
    ]
    assert all([*texts, *people]), "what must be there is there, or unknown"
    for text in [*texts, *people, entry.reason, entry.incident, entry.slack_message]:
        assert not [
            each for each in text or "" if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        ]


@pytest.mark.parametrize(
    "trailer",
    [
        "",
        "Dana",
        "Dana <dana@example.com>",
        "Dana <dana@example.com> (T0ACME/)",
        "Dana <dana@example.com> (T0ACME/U0DANA",
        "Dana <dana@example.com> (T0ACME/u0dana)",
        "Dana <dana@example.com> (T0ACME/U0DANA> <!channel>)",
        "Dana <dana@example.com> (T0ACME/S0GROUP)",
        "Dana <dana@example.com> (T0ACME/hook:tekton)",
        "tekton <tekton@ci.slack.invalid> (ci/hook:)",
        "tekton <tekton@ci.slack.invalid> (ci/hook:@U0CEO)",
        f"Dana <dana@example.com> (T0ACME/U{'0' * 500})",
        "<dana@example.com> (T0ACME/U0DANA)",
    ],
)
def test_a_broken_signature_is_nobody(trailer: str) -> None:
    """Where the id is none of Slack's, nobody's name is taken for a person's."""
    assert signer_of(trailer) is None


days = st.integers(0, 9).map(lambda day: NOON + timedelta(days=day))
entries = st.builds(
    lambda app, environment, at, by: replace(
        entry_of(committed(message(requested(), PROD)), CONTEXT),
        app=app,
        environment=environment,
        at=at,
        requested_by=by,
    ),
    st.sampled_from(["web", "api"]),
    st.sampled_from(["dev", "prod"]),
    days,
    st.sampled_from([DANA, AMY, CI, SOMEBODY]),
)
queries = st.builds(
    Query,
    app=st.none() | st.sampled_from(["web", "api", "none"]),
    environment=st.none() | st.sampled_from(["dev", "prod"]),
    since=st.none() | days,
    until=st.none() | days,
    by=st.none() | st.sampled_from([DANA.id, AMY.id, BEN.id, CI.id]),
)


@given(st.lists(entries, max_size=12), queries)
def test_the_filter_is_exact(found: list[Entry], query: Query) -> None:
    """An entry is shown if and only if it fits everything that was asked; the first moment counts, the last does not."""
    left = found
    if query.app is not None:
        left = [each for each in left if each.app == query.app]
    if query.environment is not None:
        left = [each for each in left if each.environment == query.environment]
    if query.since is not None:
        left = [each for each in left if not each.at < query.since]
    if query.until is not None:
        left = [each for each in left if not each.at >= query.until]
    if query.by is not None:
        left = [each for each in left if each.requested_by.id == query.by]
    assert [each for each in found if query.matches(each)] == left


TIMES = {
    "24h": NOON - timedelta(hours=24),
    "7d": NOON - timedelta(days=7),
    "7 D": NOON - timedelta(days=7),
    "4w": NOON - timedelta(days=28),
    "90m": NOON - timedelta(minutes=90),
    "2026-02-01": datetime(2026, 2, 1, tzinfo=UTC),
    "2026-02-01T18:00": datetime(2026, 2, 1, 18, tzinfo=UTC),
    "2026-02-01 18:00z": datetime(2026, 2, 1, 18, tzinfo=UTC),
    "2026-02-01T18:00:30+02:00": datetime(2026, 2, 1, 16, 0, 30, tzinfo=UTC),
}


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own zone is nine hours before UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_understood(text: str) -> None:
    """How long ago, a day or a moment; what has no offset is UTC, whatever zone the machine is in."""
    assert moment(text, now=NOON) == TIMES[text]
    assert moment(text, now=NOON).tzinfo is UTC


def test_the_last_day_is_part_of_it() -> None:
    """`until 2026-02-01` ends with that day; `since 2026-02-01` begins with it."""
    assert moment("2026-02-01", now=NOON, is_end=True) == datetime(2026, 2, 2, tzinfo=UTC)


NO_TIMES = [
    *("", "yesterday", "7", "d", "-7d", "999999d", "٧d", "18:00", "2026-02", "20260201", "2026-W05-1"),
    *("2026-13-01", "2026-02-30", "2026-02-01T25:00", "2026-02-01T18:00+99:00"),
    *("9999-12-31", "0001-01-01T00:00+14:00"),
]


@pytest.mark.parametrize("text", NO_TIMES)
def test_another_time_is_refused(text: str) -> None:
    """What is no time, or lies in no calendar, is refused with what to type."""
    with pytest.raises(Refused, match="Type 24h, 7d or 4w"):
        moment(text, now=NOON, is_end=True)


@given(
    st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9:]{5})?", fullmatch=True),
    st.booleans(),
)
def test_any_time_is_understood_or_refused(text: str, is_end: bool) -> None:
    """No other error, whatever was typed."""
    with contextlib.suppress(Refused):
        assert moment(text, now=NOON, is_end=is_end).tzinfo is UTC


@given(moments)
def test_a_time_that_is_shown_can_be_typed(at: datetime) -> None:
    """What an answer says to type means the very same moment."""
    assert moment(in_utc(at), now=NOON) == at


def asked(**typed: str | None) -> Query:
    return history.query(catalog(), now=NOON, **typed)


def test_what_was_typed_is_the_query() -> None:
    """Names, times and ids come to their places."""
    assert asked() == Query()
    assert asked(app="manual-app", environment="prod", since="7d", until="2026-02-28", by="U0DANA") == Query(
        app="manual-app",
        environment="prod",
        since=NOON - timedelta(days=7),
        until=datetime(2026, 3, 1, tzinfo=UTC),
        by="U0DANA",
    )
    assert asked(by="ci") == Query(by="CI")
    assert asked(by="hook:tekton") == Query(by="hook:tekton")
    assert [asked(by=each, me="U0DANA") for each in ("me", "ME")] == [Query(by="U0DANA")] * 2
    for name in ("@dana", "ursula", "u0danadev01", "hook:Tekton", "@me", ""):
        assert asked(by=name, me="U0DANA") == Query(name=name), "a name is for the history to find"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"app": "manual-ap"}, "Did you mean “manual-app”?"),
        ({"environment": "prd"}, "Did you mean “prod”?"),
        ({"app": "manual-app", "environment": "mars"}, "I know no environment called “mars”"),
        ({"since": "soon"}, "I do not understand the time “soon”"),
        ({"since": "1d", "until": "2d"}, "Nothing can lie since"),
        ({"by": "me"}, "The command line cannot tell who “me” is"),
    ],
)
def test_a_question_that_means_nothing_is_refused(typed: dict[str, str], says: str) -> None:
    """An app, a time or a person that nobody knows gets no empty answer: it is said what to type instead."""
    with pytest.raises(Refused) as refused:
        asked(**typed)
    assert says in str(refused.value)


# --- branches


@pytest.fixture
async def git(tmp_path: Path) -> AsyncIterator[GitRepository]:
    found = GitRepository(
        cache=tmp_path / "mirrors", committer=COMMITTER, allow_local=frozenset({"gitops", "other", "again"})
    )
    yield found
    await found.aclose()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {name: create_repository(tmp_path / name) for name in ("gitops", "other")}


def target(folder: Path, app: str, environment: str, *, name: str) -> Target:
    repository = Repository(name=name, url=folder.as_uri(), branch="main")
    return replace(PROD, app=app, environment=environment, repository=repository)


def known(*targets: Target) -> Catalog:
    return Catalog(environments=("dev", "prod"), targets=targets)


def write(
    folder: Path,
    where: Target,
    version: str,
    at: datetime,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by: Signer = DANA,
) -> None:
    """A commit of the bot's own, of this date."""
    monkeypatch.setenv("GIT_COMMITTER_DATE", at.isoformat())
    asked = requested(app=where.app, environment=where.environment, version=version, old_version="1")
    text = message(replace(asked, requested_by=by), where)
    push(folder, {"NOTES.md": f"{where.name} {version}"}, message=text, who=OURS)


def found(story: history.History) -> list[str]:
    return [f"{each.app}/{each.environment} {each.new_version}" for each in story.entries]


async def test_branches_are_merged_newest_first(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each repository is read once, also under two names, and the commits of all lie in one order."""
    gitops, other = folders["gitops"], folders["other"]
    web, web_dev = (target(gitops, "web", each, name="gitops") for each in ("prod", "dev"))
    api, again = target(other, "api", "prod", name="other"), target(other, "api", "dev", name="again")
    places = [(gitops, web), (other, api), (gitops, web_dev), (other, again)]
    for hour, (folder, where) in enumerate(places):
        write(folder, where, f"{hour}", NOON + timedelta(hours=hour), monkeypatch)
    story = await history.read(Query(), catalog=known(web, web_dev, api, again), values=git, limit=9)
    assert found(story) == ["api/dev 3", "web/dev 2", "api/prod 1", "web/prod 0"]
    assert story.is_whole
    story = await history.read(
        Query(app="api", environment="prod"), catalog=known(web, api, again), values=git, limit=9
    )
    assert found(story) == ["api/prod 1"]


async def test_a_branch_tells_nothing_of_another_ones_targets(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write to one repository writes no history of another; what has no home any more is told."""
    gitops, other = folders["gitops"], folders["other"]
    web, api = target(gitops, "web", "prod", name="gitops"), target(other, "api", "prod", name="other")
    write(other, web, "66", NOON, monkeypatch)
    write(other, replace(api, app="gone"), "2", NOON, monkeypatch)
    story = await history.read(Query(), catalog=known(web, api), values=git, limit=9)
    assert found(story) == ["gone/prod 2"]


async def test_it_is_said_whether_there_are_older_ones(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly as many as may be read are all; one more is said, unless it is older than everything that was asked for."""
    web = target(folders["gitops"], "web", "prod", name="gitops")
    for day in range(3):
        write(folders["gitops"], web, f"{day}", NOON + timedelta(days=day), monkeypatch)

    async def read(limit: int, **asked: datetime) -> tuple[list[str], bool]:
        story = await history.read(Query(**asked), catalog=known(web), values=git, limit=limit)
        return found(story), story.is_whole

    assert await read(3) == (["web/prod 2", "web/prod 1", "web/prod 0"], True)
    assert await read(2) == (["web/prod 2", "web/prod 1"], False)
    assert await read(2, since=NOON + timedelta(days=1)) == (["web/prod 2", "web/prod 1"], False)
    assert await read(2, since=NOON + timedelta(days=60)) == ([], True)


async def test_a_name_finds_the_id_among_what_is_meant_otherwise(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one id is what counts then, under whatever name; a namesake who asked for something else is not meant."""
    web, api = (target(folders["gitops"], app, "prod", name="gitops") for app in ("web", "api"))
    called = replace(DANA, name="Dana Nair")
    asked = [(web, DANA), (api, replace(AMY, name="dana nair")), (web, BEN), (web, called), (web, CI)]
    for day, (where, by) in enumerate(asked):
        write(folders["gitops"], where, f"{day}", NOON + timedelta(days=day), monkeypatch, by=by)

    async def read(limit: int = 9, **more: str | datetime) -> history.History:
        query = Query(name="@dana.nair", **more)  # type: ignore[arg-type]
        return await history.read(query, catalog=known(web, api), values=git, limit=limit)

    story = await read(app="web")
    assert found(story) == ["web/prod 3", "web/prod 0"]
    assert story.query == Query(app="web", by=DANA.id, name="Dana Nair")
    assert found(await read(until=NOON + timedelta(days=2))) == ["api/prod 1"]
    with pytest.raises(Refused, match=r"2 people are called “@dana\.nair”"):
        await read()
    with pytest.raises(Refused, match=r"I read only the newest 1 of my commits on each branch\."):
        await read(limit=1)
    with pytest.raises(Refused, match=r"has asked for any of this\. Type the name"):
        await read(app="web", until=NOON + timedelta(days=3))


async def test_commits_of_others_leave_no_gap(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither commits that only look like ours nor a `.mailmap` hide one of ours, or take its place."""
    gitops = folders["gitops"]
    web = target(gitops, "web", "prod", name="gitops")
    write(gitops, web, "2", NOON, monkeypatch)
    for number in range(5):
        text = message(requested(app="web", version=f"9{number}"), web)
        push(gitops, {"NOTES.md": text}, message=text, who=("Eve", "eve@acme.example"))
    push(gitops, {".mailmap": "Eve <eve@acme.example> {} <{}>\n".format(*OURS)})
    subprocess.run(["git", "update-ref", "refs/heads/master", "main"], cwd=gitops, check=True)
    # In a bare copy git reads the `.mailmap` of HEAD, which is `master` where nobody says otherwise.
    for branch in ("main", "master"):
        on_branch = replace(web, repository=replace(web.repository, branch=branch))
        story = await history.read(Query(), catalog=known(on_branch), values=git, limit=1)
        assert (found(story), story.is_whole) == (["web/prod 2"], True)


async def test_one_commit_may_be_brought_to_several_places(
    git: GitRepository, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tags of the bot's on the same commit are two entries: each tells of another environment."""
    gitops = folders["gitops"]
    by_tags = Repository(name="gitops", url=gitops.as_uri(), branch="main", beside=("refs/tags/*",))
    places = [replace(PROD, environment=each, repository=by_tags) for each in ("dev", "prod")]
    monkeypatch.setenv("GIT_COMMITTER_NAME", OURS[0])
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", OURS[1])
    for day, place in enumerate(places):
        monkeypatch.setenv("GIT_COMMITTER_DATE", (NOON + timedelta(days=day)).isoformat())
        text = message(requested(environment=place.environment, brings="d" * 40), place)
        command = ["git", "tag", "--annotate", "--message", text, place.environment, "main"]
        subprocess.run(command, cwd=gitops, check=True)
    story = await history.read(Query(), catalog=known(*places), values=git, limit=9)
    assert found(story) == ["manual-app/prod 15", "manual-app/dev 15"]
    assert {each.brings for each in story.entries} == {"d" * 40}
    assert len({each.revision for each in story.entries}) == 1


async def test_half_a_history_is_none(
    git: GitRepository, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one branch cannot be read, nobody is shown the others as if they were all."""
    web = target(folders["gitops"], "web", "prod", name="gitops")
    away = target(tmp_path / "away", "api", "prod", name="other")
    write(folders["gitops"], web, "2", NOON, monkeypatch)
    with pytest.raises(Unavailable):
        await history.read(Query(), catalog=known(web, away), values=git, limit=9)
