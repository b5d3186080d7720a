"""Each repository's credential and signer, from the settings."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bot.config import load
from bot.config_models import Config
from bot.git_access import credential, signers, unsigned
from bot.integrations.github_app import InstallationToken
from bot.settings import Settings, SettingsError

EXAMPLE = Path(__file__).parents[1] / "promote.yaml"


def written(path: Path, key: object) -> str:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))  # type: ignore[attr-defined]
    return str(path)


@pytest.fixture
def signing_key(tmp_path: Path) -> str:
    return written(tmp_path / "key", Ed25519PrivateKey.generate())


@pytest.fixture
def config() -> Config:
    return load(EXAMPLE)


def other(config: Config, **different: object) -> Config:
    gitops = config.repositories["gitops"].model_copy(update=different)
    return config.model_copy(update={"repositories": {"gitops": gitops}})


def test_a_key_signs_for_every_repository_or_for_one(config: Config, signing_key: str) -> None:
    """The name of the repository goes before the common setting."""
    for name in ("GIT_SIGNING_KEY", "GIT_SIGNING_KEY_GITOPS"):
        assert signers(Settings(environ={name: signing_key}), config)["gitops"].public_key.startswith("ssh-")
    assert signers(Settings(environ={"GIT_SIGNING_KEY_OTHER": signing_key}), config) == {}


def test_where_people_approve_somebody_signs(config: Config, signing_key: str) -> None:
    """The sentence names the environment and says what to do; `sign: false` and no approvals need no key."""
    [sentence] = unsigned(Settings(environ={}), config)
    assert sentence.startswith("GIT_SIGNING_KEY is not set: prod needs approvals, so the commits to gitops")
    assert "ssh-keygen -t ed25519" in sentence
    assert unsigned(Settings(environ={"GIT_SIGNING_KEY": signing_key}), config) == []
    assert unsigned(Settings(environ={}), other(config, sign=False)) == []
    assert unsigned(Settings(environ={}), config.model_copy(update={"policies": {}})) == []
    assert signers(Settings(environ={"GIT_SIGNING_KEY": signing_key}), other(config, sign=False)) == {}


@pytest.mark.parametrize("make", [lambda: generate_ecdsa(SECP256R1()), lambda: "no key"])
def test_a_key_that_cannot_sign_is_named(config: Config, tmp_path: Path, make: Callable[[], object]) -> None:
    """The setting's name, why, and what to do."""
    key, path = make(), tmp_path / "key"
    if isinstance(key, str):
        path.write_text(key)
    else:
        written(path, key)
    with pytest.raises(SettingsError, match=r"^GIT_SIGNING_KEY: .*ssh-keygen -t ed25519"):
        signers(Settings(environ={"GIT_SIGNING_KEY": str(path)}), config)


def test_a_github_app_takes_the_place_of_a_token(config: Config) -> None:
    """Its id and key make an installation token for the repository's own address."""
    pem = generate_rsa(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    environ = {"GITHUB_APP_ID": "12345", "GITHUB_APP_PRIVATE_KEY": pem, "GIT_TOKEN": "unused"}
    made = credential(Settings(environ=environ), "gitops", config.repositories["gitops"])
    assert made.username == "x-access-token"
    assert isinstance(made.token, InstallationToken)
    assert pem.splitlines()[1] not in repr(made)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"GITHUB_APP_ID": "12345"}, "GITHUB_APP_PRIVATE_KEY is not set"),
        ({"GITHUB_APP_ID": "12345", "GITHUB_APP_PRIVATE_KEY": "no key"}, "^gitops: "),
    ],
)
def test_a_github_app_without_its_key_is_named(config: Config, environ: dict[str, str], words: str) -> None:
    """One sentence, before anything starts."""
    with pytest.raises(SettingsError, match=words):
        credential(Settings(environ=environ), "gitops", config.repositories["gitops"])


def test_the_key_of_an_app_is_a_secret() -> None:
    """The redactor of logs is told about it."""
    assert Settings(environ={"GITHUB_APP_PRIVATE_KEY": "pem"}).secrets == ["pem"]
