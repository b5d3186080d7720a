"""The order of the environments right before a commit: what the branch held, and what the applications run."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from git_hosts import PATH, VALUES, Remote
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import TARGET, facts, pod, syncing, workloads

from bot.core import gatekeeper, gates
from bot.core.errors import Failed
from bot.core.facts import ApplicationFacts, ResourceResult
from bot.core.gates import Stand
from bot.core.policy import Gate
from bot.core.rechecking import MOST_CHANGES
from bot.git_access import COMMITTER
from bot.integrations.gitops import GitRepository

STAGE = replace(TARGET, environment="stage")
VERSIONS = st.lists(st.sampled_from(["12", "13", "14", "15", "16"]), max_size=8)


# --- what the branch held


@given(before=VERSIONS, after=VERSIONS)
def test_only_who_goes_back_closes_the_gate(before: list[str], after: list[str]) -> None:
    """Whatever stood there: back is what stood before the wanted version did; forward is what did not."""
    after = [version for version in after if version != "15"]
    stood = tuple(version for version, _ in groupby(reversed([*before, "15", *after])))
    answer = gates.went_on(STAGE, "15", stood)
    if not after:
        assert answer is None
    else:
        assert answer is not None
        assert (answer.gate, answer.stand) == (
            Gate.ORDER,
            Stand.CLOSED if after[-1] in before else Stand.OPEN,
        )
        assert answer.says.startswith("stage ")
        assert f" to {after[-1]}" in answer.says


@given(VERSIONS.filter(bool))
def test_what_the_branch_never_held_is_closed(held: list[str]) -> None:
    """A version that is not among what can be read has nobody who speaks for it."""
    answer = gates.went_on(STAGE, "99", tuple(held))
    assert answer is not None
    assert answer.stand is Stand.CLOSED
    assert answer.says == f"stage holds {held[0]} now, and 99 is not among what it held of late"


def test_the_words_say_where_it_went() -> None:
    """People read both versions, and which way it was."""
    back, on = (gates.went_on(STAGE, "15", stood) for stood in (("14", "15", "14"), ("16", "15", "14")))
    assert back is not None
    assert on is not None
    assert back.says == "stage went back from 15 to 14 after it was asked for"
    assert on.says == "stage has gone on from 15 to 16"


# --- what the applications run

CRASHING = pod(is_ready=False, trouble="CrashLoopBackOff")
STARTING = pod(is_ready=False)


@pytest.mark.parametrize(
    ("look", "stand", "says"),
    [
        (facts(), Stand.OPEN, "stage still runs 15, live and healthy"),
        (
            facts(health="Degraded", unhealthy=(ResourceResult(name="Job/x", status="Degraded"),)),
            Stand.CLOSED,
            "stage does not run 15 well any more: manual-app-prod is Degraded: Job/x: Degraded",
        ),
        (facts(health="Missing", sync="OutOfSync"), Stand.CLOSED, "manual-app-prod is Missing"),
        (facts(workloads=workloads(CRASHING)), Stand.CLOSED, "pod pod-1 is not ready: CrashLoopBackOff"),
        (
            facts(health="Progressing", workloads=workloads(pod(), CRASHING)),
            Stand.CLOSED,
            "pod pod-1 is not ready: CrashLoopBackOff",
        ),
        (facts(workloads=workloads(pod("14"), rendered="14")), Stand.CLOSED, "manual-app-prod runs 14"),
        (facts(workloads=workloads(pod("14"), pod("15"))), Stand.UNKNOWN, "runs 14 and 15"),
        (facts(workloads=workloads(STARTING)), Stand.UNKNOWN, "pod pod-1 is not ready"),
        (facts(workloads=workloads()), Stand.UNKNOWN, "runs no pod"),
        (facts(workloads=None), Stand.UNKNOWN, "could not be read"),
        (facts(health="Progressing"), Stand.UNKNOWN, "Synced and Progressing"),
        (facts(health="Suspended"), Stand.UNKNOWN, "Synced and Suspended"),
        (facts(sync="OutOfSync"), Stand.UNKNOWN, "OutOfSync and Healthy"),
        (facts(sync="", health=""), Stand.UNKNOWN, "not compared and of unknown health"),
        (facts(errors=("no such chart",)), Stand.UNKNOWN, "has a problem: no such chart"),
        (facts(compares_spec=False), Stand.UNKNOWN, "not been compared since"),
        (syncing(), Stand.UNKNOWN, "is being synced"),
        (syncing(health="Degraded"), Stand.UNKNOWN, "is being synced"),
    ],
)
def test_what_passes_by_itself_is_not_known_and_what_does_not_is_closed(
    look: ApplicationFacts, stand: Stand, says: str
) -> None:
    """Trouble and another version end it; a sync, a rollout or a comparison under way is waited for."""
    answer = gates.still_runs(STAGE, "15", [look])
    assert (answer.gate, answer.stand) == (Gate.ORDER, stand)
    assert says in answer.says


LOOKS = st.builds(
    facts,
    health=st.sampled_from(["Healthy", "Degraded", "Missing", "Progressing", "Suspended", "Unknown", ""]),
    sync=st.sampled_from(["Synced", "OutOfSync", "Unknown", ""]),
    is_operating=st.booleans(),
    compares_spec=st.booleans(),
    errors=st.sampled_from([(), ("broken",)]),
    workloads=st.none()
    | st.builds(
        lambda pods, rendered: workloads(*pods, rendered=rendered),
        st.lists(
            st.builds(
                pod,
                st.sampled_from(["14", "15"]),
                is_ready=st.booleans(),
                is_terminating=st.booleans(),
                trouble=st.sampled_from(["", "CrashLoopBackOff"]),
            ),
            max_size=3,
        ),
        st.sampled_from(["14", "15"]),
    ),
)


@given(st.lists(LOOKS, min_size=1, max_size=3))
def test_it_is_open_only_where_a_new_request_would_be_allowed(looks: list[ApplicationFacts]) -> None:
    """What the request asks for is asked for again: nothing goes on that could not be asked for now."""
    assert gates.still_runs(STAGE, "15", looks).is_open is all(
        gates.running_version(each, STAGE.image) == ("15", "") for each in looks
    )


# --- what is read of git


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[GitRepository]:
    made = GitRepository(
        cache=tmp_path / "cache", committer=COMMITTER, allow_local=frozenset({"gitops"}), timeout=10
    )
    yield made
    await made.aclose()


def holding(version: str, **more: Any) -> dict[str, str]:
    return {PATH: VALUES.replace("v14", version), **more}


async def test_what_stood_there_is_told_newest_first(repository: GitRepository, remote: Remote) -> None:
    """Whoever wrote it; equal values in a row once, and commits to other files and lines do not count."""
    where = remote.target()
    assert await repository.stood(where, limit=50) == ("v14",)
    remote.push(holding("v15"))
    remote.push(holding("v15") | {PATH: VALUES.replace("v14", "v15") + "# a note\n"})
    remote.push({"README.md": "something else\n"})
    remote.push(holding("v14"))
    remote.push(holding("v16"))
    assert await repository.stood(where, limit=50) == ("v16", "v14", "v15", "v14")


async def test_no_more_is_read_than_was_asked_for(repository: GitRepository, remote: Remote) -> None:
    """The newest changes of the file alone, and what is there now is always told."""
    for version in ("v15", "v16", "v17"):
        remote.push(holding(version))
    assert await repository.stood(remote.target(), limit=2) == ("v17", "v16")


async def test_a_merge_is_one_change_of_the_branch(repository: GitRepository, remote: Remote) -> None:
    """What a pull request tried on the way never stood on the branch, and what it brought did."""
    base = remote.push(holding("v15"))
    tried = remote.push(holding("v99"))
    reverted = remote.push(holding("v14"))
    remote.git("update-ref", "refs/heads/main", base)
    remote.push({"README.md": "meanwhile\n"})
    tree = remote.git("rev-parse", f"{reverted}^{{tree}}")
    merged = remote.git(
        *("-c", "user.name=Ann", "-c", "user.email=ann@acme.example"),
        *("commit-tree", tree, "-p", remote.tip, "-p", reverted, "-m", "Merge"),
    )
    remote.git("update-ref", "refs/heads/main", merged)
    assert tried != reverted
    assert await repository.stood(remote.target(), limit=50) == ("v14", "v15", "v14")


async def test_what_cannot_be_read_held_nothing_but_the_newest_must_be_read(
    repository: GitRepository, remote: Remote
) -> None:
    """A file that was broken or gone for a while is left out; where it is so now, nobody can tell."""
    where = remote.target()
    remote.push(holding("v15"))
    remote.push({PATH: "image: {tag: *x}\n"})
    remote.push(holding("v15"))
    assert await repository.stood(where, limit=50) == ("v15", "v14")
    remote.push({PATH: "image: {tag: v1}\nsidecar: {tag: v2}\n"})
    with pytest.raises(Failed, match="differ"):
        await repository.stood(where, limit=50)


async def test_a_branch_that_cannot_be_reached_is_not_told_from_memory(
    repository: GitRepository, remote: Remote
) -> None:
    """What stands there now is what the remote says now."""
    assert await repository.stood(remote.target(), limit=50) == ("v14",)
    remote.folder.rename(remote.folder.with_name("away"))
    with pytest.raises(Failed, match="does not appear to be a git repository"):
        await repository.stood(remote.target(), limit=50)


async def test_a_file_that_stood_elsewhere_before_has_no_past(
    repository: GitRepository, remote: Remote
) -> None:
    """A renamed file begins with its new name."""
    remote.push({"moved.yaml": VALUES})
    where = replace(remote.target(), path="moved.yaml")
    assert await repository.stood(where, limit=50) == ("v14",)


async def test_many_changes_are_read_in_time(repository: GitRepository, remote: Remote) -> None:
    """As many as are read before a commit cost less than a gate may take."""
    for number in range(MOST_CHANGES + 1):
        remote.push(holding(f"v{number}"))
    began = time.monotonic()
    stood = await repository.stood(remote.target(), limit=MOST_CHANGES)
    assert time.monotonic() - began < gatekeeper.WITHIN
    assert stood == tuple(f"v{number}" for number in range(MOST_CHANGES, 0, -1))
