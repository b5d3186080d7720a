"""Who changed what a target renders from, and how two environments differ: real git, simulated Argo CD."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import TWO
from git_hosts import ROOM, Remote
from hypothesis import given
from hypothesis import strategies as st
from world import ARGOCD_TOKEN, ENVIRONMENTS, NOON, Clock, push

from bot.core.catalog import Application, Catalog, Repository, RolloutPolicy, Target
from bot.core.dossier import MOST, Commit, Commits
from bot.core.errors import Unavailable, ValueNotEditable
from bot.core.policy import Policy
from bot.core.ports import Edit
from bot.core.promotion import PromotionId
from bot.git_access import COMMITTER
from bot.integrations.argocd import ArgoCD, Server
from bot.integrations.gitops import GitRepository
from bot.integrations.values import ValuesFile
from bot.playground import repository as sample
from bot.playground.argocd.server import SimulatedApplication, SimulatedArgoCD
from bot.watching import Watching, is_expected, joined

DEPLOYMENT = "templates/deployment.yaml"
TRAILERS = "Promotion-Id: P-0123456789\nApp: manual-app\nEnvironment: prod\nNew-Version: 15"


class Place:
    """The sample repository with its three environments, all at 14; prod is synced by somebody or by itself."""

    def __init__(self, folder: Path, *, automated: bool = True) -> None:
        self.folder = folder
        self.clock = Clock()
        self.repository = sample.create_repository(folder)
        self.argocd = SimulatedArgoCD(
            repository=self.repository,
            token=ARGOCD_TOKEN,
            applications=[
                SimulatedApplication(
                    name=f"manual-app-{environment}",
                    destination_namespace=environment,
                    values_file=f"values-{environment}.yaml",
                    repo_url=self.repository.as_uri(),
                    automated=automated or environment != "prod",
                )
                for environment in ENVIRONMENTS
            ],
            now=self.clock.now,
        )
        self.gitops = self.copy("cache")
        self.catalog = Catalog(
            environments=ENVIRONMENTS, targets=tuple(self._target(each) for each in ENVIRONMENTS)
        )

    async def open(self) -> None:
        await self.argocd.start(background=False)
        servers = {"main": Server(url=self.argocd.url, token=ARGOCD_TOKEN)}
        self.cluster = ArgoCD(servers=servers, call_limit=timedelta(seconds=5))

    async def close(self) -> None:
        await self.cluster.aclose()
        await self.gitops.aclose()
        await self.argocd.stop()

    def copy(self, name: str) -> GitRepository:
        """A reader of the repository with a copy of its own."""
        return GitRepository(
            cache=self.folder / name, committer=COMMITTER, allow_local=frozenset({"gitops"}), timeout=10
        )

    def target(self, environment: str = "prod") -> Target:
        return self.catalog.target("manual-app", environment)

    def watching(self, **different: Any) -> Watching:
        catalog = replace(self.catalog, **different)
        return Watching(argocd=self.cluster, gitops=self.gitops, catalog=catalog)

    def change(self, path: str, line: str = "# changed\n", **more: Any) -> str:
        """Somebody adds a line to a file, or makes it; returns the revision."""
        files = sample.read_tree(self.repository, "main")
        return push(self.repository, {path: files.get(path, "") + line}, **more)

    def set_version(self, environment: str, version: str, **more: Any) -> str:
        """Somebody puts another version there by hand; returns the revision."""
        path = f"values-{environment}.yaml"
        text = sample.read_file(self.repository, path)
        return push(self.repository, {path: re.sub('tag: ".*?"', f'tag: "{version}"', text)}, **more)

    async def promote(self, version: str = "15") -> str:
        """The bot's own commit to prod."""
        plan = await self.gitops.plan(self.target(), version)
        return await self.gitops.commit(
            Edit(
                target=self.target(),
                promotion=PromotionId("P-0123456789"),
                old=plan.old_version,
                new=version,
                message=f"Promote manual-app {version} to prod\n\n{TRAILERS}",
                author=COMMITTER,
                at=NOON,
                base=plan.base,
                since=NOON,
            )
        )

    def roll_out(self, environment: str) -> None:
        """Argo CD notices what was pushed, and does what it does."""
        self.argocd.refresh(f"manual-app-{environment}", "normal")
        for _ in range(80):
            self.clock.at += timedelta(seconds=0.5)
            self.argocd.tick()

    async def look(self, target: Target | None = None, **different: Any) -> tuple[Commits, bool]:
        """What is found with a copy that knows the newest tip."""
        await self.gitops.current(self.target())
        return await self.watching(**different).commits(target or self.target())

    def _target(self, environment: str) -> Target:
        name = f"manual-app-{environment}"
        return Target(
            app="manual-app",
            environment=environment,
            repository=Repository(name="gitops", url=self.repository.as_uri(), branch="main"),
            path=f"values-{environment}.yaml",
            keys=("image.tag",),
            image="ghcr.io/acme/manual-app",
            applications=(Application(server="main", name=name, project="default"),),
            channel="C1",
            policy=TWO if environment == "prod" else Policy(),
            rollout=RolloutPolicy(),
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def unsynced(tmp_path: Path) -> AsyncIterator[Place]:
    """Where somebody has to sync prod."""
    made = Place(tmp_path, automated=False)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
async def gitops(tmp_path: Path) -> AsyncIterator[GitRepository]:
    made = GitRepository(cache=tmp_path / "cache", committer=COMMITTER, allow_local=frozenset({"gitops"}))
    yield made
    await made.aclose()


def revisions(commits: Commits) -> list[str]:
    assert not commits.unknown, commits.unknown
    return [commit.revision for commit in commits.newest]


# --- what a target renders from


async def test_a_commit_to_the_chart_is_listed_and_one_to_another_environment_is_not(place: Place) -> None:
    """All environments render one chart; each has a values file that is nobody else's."""
    place.change("values-dev.yaml")
    chart = place.change(DEPLOYMENT, message="Ask for more memory")
    values = place.change("values-prod.yaml")
    found, waits = await place.look()
    assert revisions(found) == [values, chart]
    assert found.are_all_known
    assert found.newest[1].subject == "Ask for more memory"
    assert (found.newest[1].author, found.newest[1].email) == ("Sam Okafor", "sam@acme.example")
    assert not waits


async def test_nothing_is_listed_once_it_runs(place: Place) -> None:
    """The commits are counted from the revision that the application runs now."""
    place.change(DEPLOYMENT)
    assert revisions((await place.look())[0])
    place.roll_out("prod")
    assert revisions((await place.look())[0]) == []


async def test_what_waits_for_a_sync_is_listed_although_argo_cd_has_compared_it(unsynced: Place) -> None:
    """Out of sync means that the older commit still runs; somebody has to sync, and that is told."""
    chart = unsynced.change(DEPLOYMENT)
    by_hand = unsynced.set_version("prod", "15")
    unsynced.roll_out("prod")
    found, waits = await unsynced.look()
    assert revisions(found) == [by_hand, chart]
    assert waits


async def test_the_bots_own_promotion_does_not_count(unsynced: Place) -> None:
    """It changes the promoted value and nothing else; the same change by hand counts."""
    own = await unsynced.promote("15")
    assert sample.head(unsynced.repository) == own
    assert revisions((await unsynced.look())[0]) == []
    by_hand = unsynced.set_version("prod", "16")
    assert revisions((await unsynced.look())[0]) == [by_hand]


@pytest.mark.parametrize("more", ["same file", "another file", "another app", "another committer"])
async def test_a_commit_in_the_bots_name_counts_where_it_is_no_promotion(place: Place, more: str) -> None:
    """Anybody who may push can write the bot's name and trailers under a commit."""
    text = sample.read_file(place.repository, "values-prod.yaml").replace('"14"', '"15"')
    files = {"values-prod.yaml": text + "replicas: 9\n" if more == "same file" else text}
    if more == "another file":
        files[DEPLOYMENT] = "# changed\n"
    trailers = TRAILERS.replace("manual-app", "other") if more == "another app" else TRAILERS
    name = "Sam" if more == "another committer" else COMMITTER.name
    who = (name, str(COMMITTER.email))
    forged = push(place.repository, files, message=f"Promote\n\n{trailers}", who=who)
    assert revisions((await place.look())[0]) == [forged]


async def test_the_applications_of_a_target_are_joined(place: Place) -> None:
    """A commit counts as long as one of them does not run it, and is listed once."""
    prod, stage = place.target(), Application(server="main", name="manual-app-stage", project="default")
    both = replace(prod, applications=(*prod.applications, stage))
    place.argocd.change(stage.name, values_file=prod.path)
    place.roll_out("stage")
    old = place.change(DEPLOYMENT)
    place.roll_out("stage")
    new = place.change("values.yaml")
    apart = [
        revisions((await place.look(replace(prod, applications=(each,))))[0]) for each in both.applications
    ]
    assert apart == [[new, old], [new]]
    found, _ = await place.look(both)
    assert sorted(revisions(found)) == sorted([old, new])
    assert found.are_all_known


async def test_an_override_of_ones_own_application_counts_and_anothers_does_not(place: Place) -> None:
    """Argo CD reads `.argocd-source-<application>.yaml` for that application alone."""
    place.change(".argocd-source-manual-app-dev.yaml")
    ours = place.change(".argocd-source-manual-app-prod.yaml")
    assert revisions((await place.look())[0]) == [ours]


async def test_a_file_that_two_targets_render_counts_for_both(place: Place) -> None:
    """It is not left out because another target's version stands in it."""
    shared = replace(place.target("dev"), path="values-prod.yaml")
    changed = place.change("values-prod.yaml")
    found, _ = await place.look(targets=(shared, place.target()))
    assert revisions(found) == [changed]


async def test_the_author_is_known_by_the_address(place: Place) -> None:
    """`identities` holds addresses in small letters; commits spell them as they like."""
    place.change(DEPLOYMENT, who=("Sam", "Sam@Acme.Example"))
    found, _ = await place.look(identities={"sam@acme.example": "U0SAM"})
    assert found.newest[0].user == "U0SAM"


async def test_an_application_that_cannot_be_read_is_unknown(place: Place) -> None:
    """It is never taken for one that renders nothing, and nobody relies on its being synced."""
    gone = Application(server="main", name="gone", project="default")
    found, waits = await place.look(replace(place.target(), applications=(gone,)))
    assert "has no application “gone”" in found.unknown
    assert (found.newest, waits) == ((), True)


async def test_one_unknown_application_makes_all_unknown(place: Place) -> None:
    """A list that may lack something is not shown as the whole."""
    place.change(DEPLOYMENT)
    prod = place.target()
    gone = Application(server="main", name="gone", project="default")
    found, waits = await place.look(replace(prod, applications=(*prod.applications, gone)))
    assert found.unknown
    assert (found.newest, waits) == ((), True)


async def test_an_application_that_follows_another_branch_is_unknown(place: Place) -> None:
    """Our history says nothing of what it renders."""
    place.argocd.change("manual-app-prod", branch="release")
    found, _ = await place.look()
    assert found.unknown == "manual-app-prod tracks release, not the branch main"


async def test_what_does_not_answer_is_told_as_such(place: Place) -> None:
    """Where waiting may help, that is said instead of an answer: of Argo CD, and of the git host."""
    url = f"file://{place.folder}/gone.git"
    moved = replace(place.target(), repository=replace(place.target().repository, url=url))
    place.argocd.change("manual-app-prod", repo_url=url)
    with pytest.raises(Unavailable, match="git host"):
        await place.watching().commits(moved)
    await place.argocd.stop()
    with pytest.raises(Unavailable, match="Argo CD"):
        await place.watching().commits(place.target())


# --- history


def git(remote: Remote, *words: str) -> str:
    who = {
        f"GIT_{role}_{part}": "x@acme.example"
        for role in ("AUTHOR", "COMMITTER")
        for part in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *words], cwd=remote.folder, env=ROOM | who, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def merge(remote: Remote, tree_of: str, *parents: str) -> str:
    """A merge of these parents with the files of one revision; `main` stands there then."""
    sides = [word for parent in parents for word in ("-p", parent)]
    made = git(remote, "commit-tree", f"{tree_of}^{{tree}}", *sides, "-m", "Merge")
    git(remote, "update-ref", "refs/heads/main", made)
    return made


@pytest.mark.parametrize("running_is_first", [True, False])
async def test_a_merge_that_drops_what_runs_counts(
    gitops: GitRepository, remote: Remote, running_is_first: bool
) -> None:
    """Its other side has never changed the place, so no other commit tells that it changes now."""
    running = remote.push({"base/a.yaml": "2\n"})
    git(remote, "update-ref", "refs/heads/main", remote.first)
    side = remote.push({"README.md": "new\n"})
    parents = (running, side) if running_is_first else (side, running)
    merged = merge(remote, side, *parents)
    found = await gitops.commits_to(remote.target(), ["base"], running)
    assert revisions(found) == [merged]


async def test_a_merge_that_brings_a_branch_as_it_is_does_not_count(
    gitops: GitRepository, remote: Remote
) -> None:
    """The commit of the branch says all of it."""
    change = remote.push({"base/a.yaml": "2\n"})
    merge(remote, change, remote.first, change)
    assert revisions(await gitops.commits_to(remote.target(), ["base"], remote.first)) == [change]


async def test_a_branch_that_was_rewound_is_unknown(gitops: GitRepository, remote: Remote) -> None:
    """What runs is not on the branch any more, so a list of what came since would lack what goes."""
    running = remote.push({"base/a.yaml": "2\n"})
    await gitops.current(remote.target())
    git(remote, "update-ref", "refs/heads/main", remote.first)
    remote.push({"README.md": "new\n"})
    await gitops.current(remote.target())
    found = await gitops.commits_to(remote.target(), ["base"], running)
    assert found.unknown == f"the branch main does not hold all of {running[:8]} any more"


async def test_a_commit_that_nobody_knows_is_unknown(gitops: GitRepository, remote: Remote) -> None:
    """Also a word that is no commit at all, whatever git would make of it."""
    for revision in ("f" * 40, "main", "--all"):
        found = await gitops.commits_to(remote.target(), ["base"], revision)
        assert found.unknown == f"{revision[:8]} is not on the branch main"


async def test_a_revision_newer_than_the_copy_is_fetched(gitops: GitRepository, remote: Remote) -> None:
    """Argo CD may know of a commit before the bot does."""
    await gitops.current(remote.target())
    running = remote.push({"base/a.yaml": "2\n"})
    assert revisions(await gitops.commits_to(remote.target(), ["base"], running)) == []


async def test_more_than_the_most_are_counted_as_more(gitops: GitRepository, remote: Remote) -> None:
    """The list is cut, and says that it is."""
    stream = [f"reset refs/heads/main\nfrom {remote.first}\n\n"]
    stream += [
        f"commit refs/heads/main\ncommitter A <a@acme.example> {number} +0000\ndata 1\nx\n"
        f"M 100644 inline base/a.yaml\ndata 3\n{number:03}\n"
        for number in range(MOST + 3)
    ]
    remote.git("fast-import", "--quiet", stdin="".join(stream))
    found = await gitops.commits_to(remote.target(), ["base"], remote.first)
    assert (found.count, len(found.newest), found.are_all_known) == (MOST + 1, MOST, False)
    assert found.newest[0].revision == remote.tip


async def test_names_are_taken_as_they_are(gitops: GitRepository, remote: Remote) -> None:
    """A file may be called like a pattern of git's, and stands for itself alone."""
    odd = remote.push({"a[b]/:(top)*.yaml": "1\n"})
    remote.push({"ab/x.yaml": "1\n"})
    for place in ("a[b]", "a[b]/:(top)*.yaml"):
        assert revisions(await gitops.commits_to(remote.target(), [place], remote.first)) == [odd]
    without = ["a[b]/:(top)*.yaml"]
    assert revisions(await gitops.commits_to(remote.target(), ["a[b]"], remote.first, without=without)) == []


async def test_what_a_kustomization_names_is_watched(gitops: GitRepository, remote: Remote) -> None:
    """Bases of bases too, as they were and as they are; a chart's local dependencies as well."""
    since = remote.push(
        {
            "overlays/prod/kustomization.yaml": "resources: [../../base]\n",
            "base/kustomization.yaml": "components:\n- ../shared\n",
            "shared/a.yaml": "0\n",
            "lib/a.yaml": "0\n",
            "chart/Chart.yaml": "name: x\ndependencies:\n- {name: lib, repository: 'file://../lib'}\n",
        }
    )
    base = remote.push({"base/a.yaml": "1\n"})
    shared = remote.push({"shared/a.yaml": "1\n"})
    library = remote.push({"lib/a.yaml": "1\n"})
    gone = remote.push({"base/kustomization.yaml": "{}\n"})
    remote.push({"elsewhere/a.yaml": "1\n"})
    overlay = await gitops.commits_to(remote.target(), ["overlays/prod"], since)
    assert revisions(overlay) == [gone, shared, base]
    assert revisions(await gitops.commits_to(remote.target(), ["chart"], since)) == [library]


async def test_a_kustomization_that_cannot_be_read_is_unknown(gitops: GitRepository, remote: Remote) -> None:
    """It may name anything."""
    remote.push({"base/kustomization.yaml": "resources: [\n"})
    found = await gitops.commits_to(remote.target(), ["base"], remote.first)
    assert found.unknown.startswith("base/kustomization.yaml:")


# --- two environments


EXPECTED = ("ingress.host", "replicaCount", "resources")


async def test_environments_differ_where_nobody_expects_it(place: Place) -> None:
    """The promoted value may differ, and what is expected; all else is told by its key."""
    prod, dev = replace(place.target(), expected_differences=EXPECTED), place.target("dev")
    place.set_version("dev", "16")
    assert await place.watching().differences(prod, dev) == ()
    place.change("values-prod.yaml", "flags:\n- {name: new, is: on}\n")
    assert await place.watching().differences(prod, dev) == ("flags[0].name", "flags[0].is")
    place.change("values-dev.yaml", "flags:\n- {name: new, is: off}\n")
    assert await place.watching().differences(prod, dev) == ("flags[0].is",)
    plain = replace(prod, expected_differences=EXPECTED[:2])
    found = await place.watching().differences(plain, dev)
    assert set(found) == {"flags[0].is", *(f"resources.{each}" for each in RESOURCES)}


RESOURCES = ("requests.cpu", "requests.memory", "limits.memory")


async def test_a_file_that_cannot_be_compared_is_no_equal_one(place: Place) -> None:
    """Where readers disagree about a file, nobody says that it is like another."""
    place.change("values-dev.yaml", "replicaCount: 1\n")
    with pytest.raises(ValueNotEditable, match="replicaCount stands here a second time"):
        await place.watching().differences(place.target(), place.target("dev"))


WORDS = st.text(alphabet="abc0.*[]", min_size=1, max_size=4)
TREES = st.recursive(
    st.sampled_from(["x", "1", "true", ""]),
    lambda inner: st.dictionaries(WORDS, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """The tree as YAML between braces, every word in quotes."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{key}": {written(value)}' for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(written, tree)) + "]"
    return f'"{tree}"'


def paths(tree: Any, path: str = "") -> set[str]:
    """The key paths of a tree, as people write them."""
    if tree and isinstance(tree, list):
        return {each for number, part in enumerate(tree) for each in paths(part, f"{path}[{number}]")}
    if tree and isinstance(tree, dict):
        return {each for key, part in tree.items() for each in paths(part, path + step(path, key))}
    return {path}


def step(path: str, key: str) -> str:
    if re.search(r"[.\[\]]", key):
        return f'["{key}"]'
    return f".{key}" if path else key


@given(st.dictionaries(WORDS, TREES, min_size=1))
def test_every_value_is_found_under_its_key(tree: dict[str, Any]) -> None:
    """No two share a key, nothing is left out, and a single value can be asked for by that key."""
    file = ValuesFile(written(tree).encode(), "values.yaml")
    leaves = file.leaves()
    assert set(leaves) == paths(tree)
    for key, value in leaves.items():
        assert value in ("{}", "[]") or file.value(key) == value.strip('"')
    key = min(leaves)
    if leaves[key] not in ("{}", "[]"):
        assert file.leaves(without=[key]) == {each: said for each, said in leaves.items() if each != key}


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("a: 'false'\nb: false\nc: 'on the way'\n", {"a": '"false"', "b": "false", "c": "on the way"}),
        ("a:\nb: ~\nc: '~'\n", {"a": "null", "b": "null", "c": '"~"'}),
        ("a: &x {b: 1}\nc: *x\n", {"a.b": "1", "c.b": "1"}),
        ("a: &x {b: 1, c: 2}\nd:\n  c: 3\n  <<: *x\n", {"a.b": "1", "a.c": "2", "d.b": "1", "d.c": "3"}),
        ("a: 1\n---\na: 2\n", {"[0].a": "1", "[1].a": "2"}),
        ("", {}),
    ],
)
def test_a_value_is_what_helm_reads(text: str, leaves: dict[str, str]) -> None:
    """A word in quotes is no truth value, nothing has one spelling, aliases and `<<` bring what they stand for."""
    assert ValuesFile(text.encode(), "values.yaml").leaves() == leaves


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {<<: *x}\n"])
def test_aliases_that_never_end_are_refused(text: str) -> None:
    """The limits of a file hold for what its aliases make of it as well."""
    with pytest.raises(ValueNotEditable, match="nested more than"):
        ValuesFile(text.encode(), "values.yaml").leaves()


def test_aliases_that_multiply_are_refused() -> None:
    """Ten lists of ten aliases of each other would be thousands of millions of values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ValueNotEditable, match="aliases make more than"):
        ValuesFile("\n".join(lines).encode(), "values.yaml").leaves()


@pytest.mark.parametrize(
    ("key", "expected", "is_so"),
    [
        ("ingress.host", "ingress.host", True),
        ("ingress.host", "ingress", True),
        ("ingress", "ingress.host", False),
        ("ingressClass", "ingress", False),
        ("ingress.hosts[1].host", "ingress.hosts", True),
        ("ingress.hosts[1].host", "ingress.hosts.*.host", True),
        ("ingress.hosts[1].host", "ingress.hosts[*].host", True),
        ("ingress.hosts[1].host", "ingress.hosts[0]", False),
        ("ingress.hosts[1].host", "*.host", False),
        ("web.replicas", "*.replicas", True),
        ('labels["a.b/c"]', 'labels["a.b/c"]', True),
        ('labels["a.b/c"]', "labels.a", False),
        ("anything", "", False),
    ],
)
def test_an_expected_key_covers_all_below_it(key: str, expected: str, is_so: bool) -> None:
    """Step by step from the top; a `*` stands for one step, of whatever kind."""
    assert is_expected(key, [expected]) is is_so
    assert is_expected(key, ["elsewhere", expected]) is is_so


# --- several histories


COMMITS = st.builds(
    lambda number: Commit(
        revision=f"{number:040x}",
        subject="x",
        author="x",
        at=None if number == 3 else NOON + timedelta(seconds=number),
    ),
    st.integers(0, 20),
)
HISTORIES = st.lists(COMMITS, unique_by=lambda each: each.revision, max_size=8).map(
    lambda each: Commits(count=len(each), newest=tuple(each))
)


@given(st.lists(HISTORIES, min_size=2, max_size=4))
def test_joined_histories_hold_each_commit_once_and_the_newest_first(histories: list[Commits]) -> None:
    """Nothing is lost, nothing stands twice, and the dates go down."""
    whole = joined(histories)
    assert sorted(each.revision for each in whole.newest) == sorted(
        {each.revision for history in histories for each in history.newest}
    )
    dates = [each.at or datetime.min.replace(tzinfo=UTC) for each in whole.newest]
    assert dates == sorted(dates, reverse=True)
    assert whole.are_all_known


@given(st.lists(HISTORIES, min_size=1, max_size=3), st.integers(0, 3))
def test_one_unknown_history_makes_the_whole_unknown(histories: list[Commits], place: int) -> None:
    """And one that is cut short makes a whole that is."""
    place = min(place, len(histories))
    assert joined([*histories[:place], Commits(unknown="gone"), *histories[place:]]) == Commits(
        unknown="gone"
    )
    assert not joined([*histories[:place], Commits(count=1), *histories[place:]]).are_all_known


# --- a warning before anything is promoted


async def test_others_who_push_to_what_syncs_by_itself_are_named(place: Place) -> None:
    """So long as it is lately, to what prod renders from, and by somebody else than the bot."""
    prod, long_ago = place.target(), datetime(2000, 1, 1, tzinfo=UTC)
    now = datetime.now(UTC) + timedelta(minutes=1)
    await place.promote("15")
    pushed = place.change(DEPLOYMENT)
    place.change("values-dev.yaml")
    await place.gitops.current(prod)
    warning = await place.watching().pushes_by_others(prod, after=long_ago)
    assert f"{pushed[:8]} by Sam Okafor" in warning
    assert await place.watching().pushes_by_others(prod, after=now) == ""
    assert await place.watching().pushes_by_others(place.target("dev"), after=long_ago) == ""


async def test_nobody_is_warned_where_somebody_syncs(unsynced: Place) -> None:
    """What others push waits there for whoever syncs, and the promotion shows it."""
    unsynced.change(DEPLOYMENT)
    await unsynced.gitops.current(unsynced.target())
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    assert await unsynced.watching().pushes_by_others(unsynced.target(), after=long_ago) == ""
