"""Where pull requests go, and with which token: read from the git address and `promote.yaml`, and nowhere else."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from bot.config_forges import Forge
from bot.config_models import RepositoryModel
from bot.core.catalog import Repository
from bot.core.errors import Failed
from bot.core.proposing import NoHosts
from bot.forge_access import Forges
from bot.git_access import credential
from bot.integrations.cleanroom import Output
from bot.integrations.verdicts import Declined, DeclinedByProtection, check_race
from bot.settings import Settings

HERE = Repository(name="gitops", url="https://github.com/acme/gitops", branch="main")


@pytest.mark.parametrize(
    ("url", "more", "expected"),
    [
        ("https://github.com/acme/gitops.git", {}, ("github", "https://api.github.com", "acme/gitops")),
        ("git@github.com:acme/gitops.git", {}, ("github", "https://api.github.com", "acme/gitops")),
        ("ssh://git@github.com/acme/gitops", {}, ("github", "https://api.github.com", "acme/gitops")),
        ("https://acme.ghe.com/acme/gitops", {}, ("github", "https://api.acme.ghe.com", "acme/gitops")),
        ("https://GitLab.com/a/b/gitops/", {}, ("gitlab", "https://gitlab.com/api/v4", "a/b/gitops")),
        (
            "https://git.acme.io/acme/gitops",
            {"host": "github"},
            ("github", "https://git.acme.io/api/v3", "acme/gitops"),
        ),
        (
            "https://git.acme.io/a/gitops",
            {"host": "gitlab", "api": "https://git.acme.io/gitlab/api/v4/"},
            ("gitlab", "https://git.acme.io/gitlab/api/v4", "a/gitops"),
        ),
    ],
)
def test_the_git_address_tells_where_the_api_is(
    url: str, more: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    """The hosts that everybody knows need no more words, others their kind, and where it is unusual its address."""
    found = RepositoryModel(url=url, mode="pr", **more).forge
    assert (found.host, found.api, found.name) == expected


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("https://git.acme.io/acme/gitops", {}, "need host: github or gitlab"),
        ("https://evil-github.com/acme/gitops", {}, "need host: github or gitlab"),
        ("https://github.com/acme", {}, "the repository's own address"),
        ("https://github.com/a/b/c", {}, "the repository's own address"),
        ("https://github.com/acme/gitops", {"api": "https://api.evil.example"}, "api must be on github.com"),
        ("https://github.com/acme/gitops", {"api": "http://api.github.com"}, "must begin with https://"),
        ("https://github.com/acme/gitops", {"api": "https://u:p@api.github.com"}, "an address alone"),
        ("https://github.com/acme/gitops", {"host": "gitea"}, "'github' or 'gitlab'"),
    ],
)
def test_a_token_goes_to_the_host_of_the_repository_alone(url: str, more: dict[str, Any], says: str) -> None:
    """What leads elsewhere, or is not encrypted, is no configuration."""
    with pytest.raises(ValidationError, match=says):
        RepositoryModel(url=url, mode="auto", **more)


def test_who_pushes_needs_no_host() -> None:
    """As long as nothing is proposed, any git address will do."""
    assert RepositoryModel(url="https://git.acme.io/acme/gitops").mode == "push"


async def test_a_repository_that_takes_none_says_so() -> None:
    """Every question about it fails with a sentence that names the setting."""
    assert not Forges({}).takes(HERE)
    for pulls in (Forges({}), NoHosts()):
        with pytest.raises(Failed, match=r"see its mode in promote\.yaml"):
            await pulls.probe(HERE)


@pytest.mark.parametrize(
    "words",
    [
        "remote: error: GH006: Protected branch update failed for refs/heads/main.",
        "remote: error: GH013: Rule violations.\nremote: - Changes must be made through a pull request.",
        "remote: GitLab: You are not allowed to push code to protected branches on this project.",
    ],
)
def test_a_protected_branch_is_told_from_other_refusals(words: str) -> None:
    """`mode: auto` opens a pull request for the one, and not for whatever else a hook minds."""
    line = "!\trefs/heads/main:refs/heads/main\t[remote rejected] (pre-receive hook declined)"
    with pytest.raises(DeclinedByProtection):
        check_race(Output(code=1, out=line, err=words), HERE)
    with pytest.raises(Declined) as other:
        check_race(Output(code=1, out=line, err="remote: the commit message needs a ticket"), HERE)
    assert not isinstance(other.value, DeclinedByProtection)


def test_an_address_of_this_machine_may_be_anything() -> None:
    """For a test on one machine, where the token meets nobody else."""
    found = Forge.of("file:///tmp/x.git", host="gitlab", api="http://127.0.0.1:1", allow_local=True)
    assert found.api == "http://127.0.0.1:1"


@pytest.mark.parametrize(("mode", "wants"), [("push", {"contents"}), ("pr", {"contents", "pull_requests"})])
def test_a_github_app_asks_for_what_the_mode_needs(mode: Any, wants: set[str]) -> None:
    """Its token may open pull requests only where they are opened."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings = Settings(environ={"GITHUB_APP_ID": "1", "GITHUB_APP_PRIVATE_KEY": pem})
    found = credential(settings, "gitops", RepositoryModel(url=HERE.url, mode=mode))
    assert set(found.token._permissions) == wants  # type: ignore[union-attr]
