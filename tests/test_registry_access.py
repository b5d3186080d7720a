"""Which registries are asked, and as whom: what promote.yaml and the environment say."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bot.config import ConfigError, build_catalog, load
from bot.config_models import RegistryModel
from bot.core.errors import Failed
from bot.integrations.registry_login import Login
from bot.registry_access import login, registry
from bot.settings import Settings

EXAMPLE = Path(__file__).parents[1] / "promote.yaml"


def written(folder: Path, registries: str, *, image: str = "ghcr.io/acme/manual-app") -> Path:
    """The example with these registries, and another image."""
    text = EXAMPLE.read_text("utf-8").replace("ghcr.io/acme/manual-app", image)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("registries:"))
    file = folder / "promote.yaml"
    file.write_text(f"{text}\n{registries}\n")
    return file


@pytest.mark.parametrize(
    ("registries", "image", "asks"),
    [
        ("", "ghcr.io/acme/app", False),
        ("registries: {quay.io: {}}", "ghcr.io/acme/app", False),
        ("registries: {ghcr.io: {}}", "ghcr.io/acme/app", True),
        ("registries: {docker.io: {}}", "nginx", True),
        ('registries: {"localhost:5000": {allow_local: true}}', "localhost:5000/app", True),
        ("registries: {ghcr.io: {realms: [login.acme.example]}}", "ghcr.io/acme/app", True),
    ],
)
def test_only_a_registry_that_is_configured_is_asked(
    tmp_path: Path, registries: str, image: str, asks: bool
) -> None:
    """By the host of the image's name; without an entry everything is as it was."""
    catalog = build_catalog(load(written(tmp_path, registries, image=image)))
    assert {target.asks_registry for target in catalog.targets} == {asks}


@pytest.mark.parametrize(
    ("registries", "image", "says"),
    [
        (
            'registries: {"localhost:5000": {}}',
            "localhost:5000/app",
            "is on this machine; set allow_local: true",
        ),
        ("registries: {127.0.0.1: {}}", "a/app", "is on this machine; set allow_local: true"),
        ("registries: {ghcr.io: {realm: [a]}}", "ghcr.io/app", 'unknown key "realm", did you mean "realms"'),
        ("registries: {ghcr.io: {}}", "ghcr.io/a/../app", "is no image's name"),
        ('registries: {"https://ghcr.io": {}}', "ghcr.io/app", "must match"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_line(
    tmp_path: Path, registries: str, image: str, says: str
) -> None:
    """A registry of the own machine without the explicit wish, a typing error, a name that is none."""
    with pytest.raises(ConfigError, match=r"promote.yaml:\d+: ") as caught:
        load(written(tmp_path, registries, image=image))
    assert says in str(caught.value)


def test_a_realm_is_a_host() -> None:
    """An address with a path would never be compared with one."""
    with pytest.raises(ValidationError):
        RegistryModel(realms=("https://login.acme.example/token",))


def entry(username: str, password: str) -> dict[str, str]:
    """A login as docker keeps it."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_a_registry_has_a_login_of_its_own(tmp_path: Path) -> None:
    """Its settings go before docker's file; what is another registry's is nobody's here; a file may be renewed."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"ghcr.io": entry("old", "one"), "quay.io": entry("robot", "two")}}))
    environ = {
        "REGISTRY_AUTH_FILE": str(file),
        "REGISTRY_USERNAME_GHCR_IO": "robot",
        "REGISTRY_TOKEN_GHCR_IO": "a-token",
        "REGISTRY_USERNAME": "nobody",
        "REGISTRY_TOKEN": "for-everybody",
        "REGISTRY_USERNAME_REGISTRY_ACME_EXAMPLE_5000": "acme",
        "REGISTRY_TOKEN_REGISTRY_ACME_EXAMPLE_5000": "b-token",
    }
    settings = Settings(environ=environ)
    assert login(settings, "ghcr.io") == Login(username="robot", password="a-token")
    assert login(settings, "quay.io") == Login(username="robot", password="two")
    assert login(settings, "registry.acme.example:5000") == Login(username="acme", password="b-token")
    assert login(settings, "docker.io") is None
    assert "a-token" in settings.secrets
    file.write_text(json.dumps({"auths": {"quay.io": entry("robot", "new")}}))
    assert login(settings, "quay.io") == Login(username="robot", password="new")


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_TOKEN_GHCR_IO": "a-secret"},
        {"REGISTRY_USERNAME_GHCR_IO": "robot"},
        {"REGISTRY_AUTH": "a-secret"},
        {"REGISTRY_AUTH_FILE": "/nowhere/config.json"},
    ],
)
def test_a_login_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, environ: dict[str, Any]) -> None:
    """Half a login, or a file that is none: the setting is named, and no secret is."""
    config = load(written(tmp_path, "registries: {ghcr.io: {}}"))
    with pytest.raises(Failed, match="REGISTRY_") as caught:
        registry(Settings(environ=environ), config)
    assert "a-secret" not in str(caught.value)
