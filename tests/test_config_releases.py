"""Strategies in `promote.yaml`: what they become, and what cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.config import ConfigError, build_catalog, load
from bot.core.catalog import Pin, Release, Target

TEXT = """\
version: 1
environments: [dev, stage, prod]
slack: {channel: C0DEPLOYS}
repositories:
  gitops: {url: https://git.example.com/acme/manual-app-helm.git}
  other: {url: https://git.example.com/acme/other.git}
argocd:
  main: {url: https://argocd.example.com}
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: values.yaml
  applications: ["{app}-{env}"]
apps:
  manual-app:
    image: images.example.com/acme/manual-app
    environments:
      dev: {}
      stage: {strategy: branch, branch: release}
      prod: {strategy: tag, pin: {file: "argocd/{app}-{env}.yaml"}}
"""
STAGE = "stage: {strategy: branch, branch: release}"
PROD = 'prod: {strategy: tag, pin: {file: "argocd/{app}-{env}.yaml"}}'
SECOND = """\
  second:
    image: images.example.com/acme/second
    values: second.yaml
    environments: {dev: {}, prod: {PROD}}
"""


def targets(file: Path, text: str) -> dict[str, Target]:
    """The targets of the first app by their environments."""
    file.write_text(text, encoding="utf-8")
    found = build_catalog(load(file)).targets
    return {target.environment: target for target in found if target.app == "manual-app"}


def test_each_environment_takes_from_the_branch_before(tmp_path: Path) -> None:
    """Main, the release branch and a tag that a file of main pins."""
    found = targets(tmp_path / "promote.yaml", TEXT)
    assert found["dev"].release is None
    assert found["stage"].release == Release(source="main")
    pin = Pin(path="argocd/manual-app-prod.yaml", key="spec.source.targetRevision")
    assert found["prod"].release == Release(source="release", tag="v{version}", pin=pin)
    assert {name: target.repository.branch for name, target in found.items()} == {
        "dev": "main",
        "stage": "release",
        "prod": "main",
    }


def test_targets_on_one_branch_share_one_copy_of_it(tmp_path: Path) -> None:
    """Their repositories are equal, so they are written by one writer."""
    found = targets(tmp_path / "promote.yaml", TEXT)
    assert found["dev"].repository == found["prod"].repository
    assert found["dev"].repository.beside == ("refs/heads/release", "refs/tags/*")
    assert found["stage"].repository.beside == ("refs/heads/main", "refs/tags/promote/*")


def test_a_branch_may_hold_values_of_its_own(tmp_path: Path) -> None:
    """Another branch alone is no strategy: its values file is edited."""
    found = targets(tmp_path / "promote.yaml", TEXT.replace(STAGE, "stage: {branch: release}"))
    assert (found["stage"].release, found["stage"].repository.branch) == (None, "release")
    assert found["stage"].repository.beside == ()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("dev: {}", "dev: {strategy: branch, branch: x}", "dev is the first environment"),
        (STAGE, "stage: {strategy: branch}", "stage follows the branch that dev follows"),
        (
            STAGE,
            "stage: {strategy: branch, branch: release, repository: other}",
            "has another repository than dev",
        ),
        (STAGE, "stage: {branch: release, tag: 'x{version}'}", "which only strategy: tag takes"),
        (PROD, "prod: {strategy: tag, tag: latest}", "must be a name with {version} in it"),
        (PROD, "prod: {strategy: tag, tag: 'v{version}..x'}", "must be a name with {version} in it"),
        (PROD, "prod: {strategy: tag, tag: '-{version}'}", "must be a name with {version} in it"),
        (PROD, "prod: {strategy: tag, pin: {}}", "prod.pin.file"),
        (PROD, "prod: {strategy: rebase}", "must be 'values', 'branch' or 'tag'"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    """Before anything starts."""
    assert old in TEXT
    with pytest.raises(ConfigError) as refused:
        targets(tmp_path / "promote.yaml", TEXT.replace(old, new))
    assert says in str(refused.value)
    assert f"{tmp_path / 'promote.yaml'}:" in str(refused.value)


@pytest.mark.parametrize(
    ("prod", "says"),
    [
        ("branch: release", "second would move with it, whoever approves"),
        ("strategy: tag", "makes the tags v{version}, as manual-app/prod does"),
    ],
)
def test_two_apps_do_not_share_what_one_of_them_moves(tmp_path: Path, prod: str, says: str) -> None:
    """A branch that goes forward takes everything with it, and a tag can be made once."""
    text = TEXT + SECOND.replace("PROD", prod)
    with pytest.raises(ConfigError) as refused:
        targets(tmp_path / "promote.yaml", text)
    assert says in str(refused.value)


def test_tags_of_several_apps_have_their_names(tmp_path: Path) -> None:
    """`{app}` stands for each."""
    text = TEXT + SECOND.replace("PROD", "strategy: tag, tag: '{app}-{version}'")
    file = tmp_path / "promote.yaml"
    file.write_text(text, encoding="utf-8")
    release = build_catalog(load(file)).target("second", "prod").release
    assert release is not None
    assert release.tag_of("15") == "second-15"


def test_one_place_is_not_written_by_a_pull_request_and_a_tag(tmp_path: Path) -> None:
    """A tag needs no file, and a branch that is moved no merge."""
    text = TEXT.replace("manual-app-helm.git}", "manual-app-helm.git, mode: pr, host: github}")
    with pytest.raises(ConfigError) as refused:
        targets(tmp_path / "promote.yaml", text)
    assert "cannot have strategy: branch with mode: pr" in str(refused.value)


GUIDE = Path(__file__).parents[1] / "docs" / "releases.md"


def test_the_guide_shows_what_works(tmp_path: Path) -> None:
    """Its example loads as it stands, and stage asks for a named approval."""
    head = TEXT.partition("apps:")[0].replace("  values: values.yaml\n", "")
    example = GUIDE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    found = targets(tmp_path / "promote.yaml", head + example)
    assert found["stage"].release == Release(source="main")
    assert found["stage"].policy.needs_approval
    pin = Pin(path="argocd/manual-app-prod.yaml", key="spec.source.targetRevision")
    assert found["prod"].release == Release(source="release", tag="v{version}", pin=pin)
