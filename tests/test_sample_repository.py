"""The sample GitOps repository: what it is seeded with, and how it is read."""

from datetime import UTC
from pathlib import Path

import pytest
from argocd_bench import Bench

from bot.playground.repository import GitRefused, create_repository, head, log, read_file


def test_the_repository_is_bare_with_one_commit(tmp_path: Path) -> None:
    """The seed: a chart, three values files of the same version, one commit by a person, made only once."""
    repository = create_repository(tmp_path)
    assert repository == tmp_path / "manual-app-helm.git"
    assert not (repository / ".git").exists()
    (commit,) = log(repository)
    assert (commit.author, commit.revision) == ("Priya Nair <priya.nair@acme.example>", head(repository))
    for environment, replicas in (("dev", 1), ("stage", 2), ("prod", 3)):
        values = read_file(repository, f"values-{environment}.yaml")
        assert "image:\n  repository: ghcr.io/acme/manual-app\n" in values
        assert 'tag: "14"' in values
        assert f"replicaCount: {replicas}\n" in values
    assert create_repository(tmp_path) == repository
    assert len(log(repository)) == 1


def test_the_log_tells_the_trailers(tmp_path: Path) -> None:
    """What a promotion writes below its message is read back as pairs, in order."""
    bench = Bench(tmp_path)
    message = "Promote manual-app 15 to prod\n\nAsked for in Slack.\n\nPromotion: P-1\nApproved-by: Ana\nApproved-by: Bo"
    revision = bench.commit("values-prod.yaml", 'tag: "14"', 'tag: "15"', message)
    newest, _ = log(bench.repository)
    assert (newest.revision, newest.subject) == (revision, "Promote manual-app 15 to prod")
    assert newest.trailers == [("Promotion", "P-1"), ("Approved-by", "Ana"), ("Approved-by", "Bo")]
    assert newest.at.tzinfo is UTC
    assert log(bench.repository, limit=1) == [newest]


def test_a_file_is_read_as_a_revision_has_it(tmp_path: Path) -> None:
    """The past stays readable, and a file that is not there is an error."""
    bench = Bench(tmp_path)
    old = head(bench.repository) or ""
    bench.promote("15")
    assert 'tag: "15"' in read_file(bench.repository, "values-prod.yaml")
    assert 'tag: "14"' in read_file(bench.repository, "values-prod.yaml", old)
    with pytest.raises(GitRefused, match="does not exist"):
        read_file(bench.repository, "nothing.yaml")
