"""The labels of a build, from Debian's docker-registry and from an internet of registries that can do worse."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_servers import (
    DOCKER_IMAGE,
    DOCKER_LIST,
    OCI_IMAGE,
    OCI_INDEX,
    Asked,
    DockerRegistry,
    Images,
    Internet,
    Told,
    digest_of,
    docker_registry,
    internet_in,
    manifest,
)

from bot.core.errors import Failed, PromoteError, Unavailable
from bot.integrations.registry import Registry
from bot.integrations.registry_http import LONGEST_BODY, Access
from bot.integrations.registry_login import Login

PASSWORD = "sesame-open"
ROBOT = Login(username="robot", password=PASSWORD)
ACME = "registry.acme.example"
BUILT = {
    "org.opencontainers.image.revision": "c" * 40,
    "org.opencontainers.image.source": "https://x.example/a",
}


def configuration(labels: object = BUILT, **other: object) -> bytes:
    """An image's configuration, as a builder writes it."""
    return json.dumps({"os": "linux", "config": {"Labels": labels, "Env": ["A=b"]}, **other}).encode()


def image_of(kind: str, config: dict[str, object]) -> bytes:
    """A manifest of a kind with this configuration."""
    is_oci = kind == OCI_IMAGE
    media_type = f"application/vnd.{'oci.image.config' if is_oci else 'docker.container.image'}.v1+json"
    return manifest(kind, config={"mediaType": media_type, **config}, layers=[])


def descriptor(content: bytes, **other: object) -> dict[str, object]:
    """What names a content."""
    return {"digest": digest_of(content), "size": len(content), **other}


def pushed(real: DockerRegistry, config: bytes, kind: str = OCI_IMAGE) -> str:
    """Push an image with this configuration, and return its digest."""
    content = image_of(kind, real.blob("acme/app", config))
    return real.manifest("acme/app", digest_of(content), kind, content)


def listed(digest: str, kind: str, platform: str, **other: object) -> dict[str, object]:
    """An entry of an index."""
    return {
        "mediaType": kind,
        "digest": digest,
        "size": 400,
        "platform": {"architecture": platform, "os": platform},
        **other,
    }


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("closed"), auth=("robot", PASSWORD)) as registry:
        yield registry


async def labels(real: DockerRegistry, digest: str, **access: Any) -> Any:
    """Ask for the labels of `app` in the real registry."""
    registry = Registry(
        {real.host: Access(**{"allow_local": True, **access})}, verify=ssl.create_default_context()
    )
    try:
        return await registry.labels(f"{real.host}/acme/app", digest)
    finally:
        await registry.aclose()


# --- Debian's docker-registry


@pytest.mark.parametrize("kind", [OCI_IMAGE, DOCKER_IMAGE])
async def test_an_image_has_the_labels_of_its_configuration(real: DockerRegistry, kind: str) -> None:
    """Both kinds of manifest name a blob, and the labels stand in that."""
    assert await labels(real, pushed(real, configuration(), kind)) == BUILT


@pytest.mark.parametrize(("kind", "of"), [(OCI_INDEX, OCI_IMAGE), (DOCKER_LIST, DOCKER_IMAGE)])
async def test_an_image_of_several_platforms_has_the_labels_of_one(
    real: DockerRegistry, kind: str, of: str
) -> None:
    """They are built together; an attestation beside them, which builders put anywhere, is no platform."""
    attestation = pushed(real, configuration({"is": "an attestation"}), of)
    image = pushed(real, configuration(), of)
    content = manifest(kind, manifests=[listed(attestation, of, "unknown"), listed(image, of, "linux")])
    assert await labels(real, real.manifest("acme/app", digest_of(content), kind, content)) == BUILT


async def test_a_registry_that_asks_for_a_password_gives_the_labels_too(closed: DockerRegistry) -> None:
    """One log-in is good for the manifest and for the configuration."""
    digest = pushed(closed, configuration())
    assert await labels(closed, digest, login=lambda: ROBOT) == BUILT
    with pytest.raises(Failed, match="does not let the bot read acme/app"):
        await labels(closed, digest)


async def test_a_build_that_nobody_pushed_has_no_labels_to_read(real: DockerRegistry) -> None:
    """It is told, and not taken for an image without labels."""
    with pytest.raises(Failed, match=rf"There is no {real.host}/acme/app@sha256:0{{64}} in the registry"):
        await labels(real, "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    "config",
    [
        b"{}",
        json.dumps({"config": None}).encode(),
        json.dumps({"config": []}).encode(),
        configuration(None),
        configuration([]),
        configuration({"a": 5, "b": None, "c": ["x"], "d": {}}),
    ],
)
async def test_an_image_may_have_no_labels(real: DockerRegistry, config: bytes) -> None:
    """Builders write none, null or nothing; what is no string is no label."""
    assert await labels(real, pushed(real, config)) == {}


@settings(max_examples=25)
@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_labels_are_read_as_they_are_written(real: DockerRegistry, written: dict[str, object]) -> None:
    """Every string is there under its name, unchanged; nothing else is."""
    expected = {name: value for name, value in written.items() if isinstance(value, str)}
    assert asyncio.run(labels(real, pushed(real, configuration(written)))) == expected


# --- an internet of registries


@pytest.fixture
async def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    async with internet_in(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def registry(internet: Internet) -> AsyncIterator[Registry]:
    made = Registry({ACME: Access(login=lambda: ROBOT)}, verify=internet.verify, call_limit=5, limit=10)
    yield made
    await made.aclose()


def serving(
    internet: Internet, content: bytes, *, blob: Told, kind: str = OCI_IMAGE, realm: str | None = None
) -> tuple[Images, str]:
    """A registry with one manifest, which answers this for every blob; the manifest's digest."""
    images = Images(internet, ACME, realm=realm, service="x")
    digest = images.put("acme/app", "15", kind, content)
    internet.servers[ACME] = lambda asked: blob if "/blobs/" in asked.path else images.serve(asked)
    return images, digest


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (Told(body=configuration({"org.opencontainers.image.revision": "e" * 40})), "another blob than"),
        (Told(body=configuration()[:-1]), "another blob than"),
        (Told(body=b" " * (LONGEST_BODY + 1)), "sends more than 4 MB"),
        (Told(body=configuration(), headers={"Content-Encoding": "gzip"}), "packed"),
        (Told(status=500), "answers 500"),
    ],
)
async def test_a_configuration_is_proved_by_its_digest(
    internet: Internet, registry: Registry, blob: Told, says: str
) -> None:
    """Whatever else a registry sends under it, the bot reads no labels from that, and not without an end."""
    _, digest = serving(internet, image_of(OCI_IMAGE, descriptor(configuration())), blob=blob)
    with pytest.raises(Unavailable, match=says):
        await registry.labels(f"{ACME}/acme/app", digest)


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{", b"[" * 100_000])
async def test_a_configuration_that_is_none_is_told(
    internet: Internet, registry: Registry, body: bytes
) -> None:
    """Its digest may be right: what nobody can read is not taken for an image without labels."""
    _, digest = serving(internet, image_of(OCI_IMAGE, descriptor(body)), blob=Told(body=body))
    with pytest.raises(Unavailable, match="no configuration of an image"):
        await registry.labels(f"{ACME}/acme/app", digest)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (OCI_INDEX, {}),
        (OCI_INDEX, {"manifests": []}),
        (OCI_INDEX, {"manifests": [listed("sha256:" + "a" * 64, OCI_IMAGE, "unknown")]}),
        (OCI_INDEX, {"manifests": [5, {"digest": "../../other"}, {"digest": 5}]}),
        (OCI_IMAGE, {}),
        (OCI_IMAGE, {"config": 5}),
        (OCI_IMAGE, {"config": {"digest": "../../other/blobs/sha256:" + "a" * 64}}),
        (OCI_IMAGE, {"config": {"digest": "sha512:" + "a" * 128}}),
    ],
)
async def test_a_build_without_a_configuration_is_told(
    internet: Internet, registry: Registry, kind: str, fields: dict[str, object]
) -> None:
    """Nothing is asked for but what a digest names, and nothing is made up."""
    _, digest = serving(internet, manifest(kind, **fields), kind=kind, blob=Told(body=configuration()))
    with pytest.raises(Failed, match="no container image under this digest"):
        await registry.labels(f"{ACME}/acme/app", digest)
    assert [str(asked) for asked in internet.asked] == [f"GET {ACME}/v2/acme/app/manifests/{digest}"]


async def test_an_index_in_an_index_is_not_followed(internet: Internet, registry: Registry) -> None:
    """A registry cannot lead the bot round and round."""
    inner = manifest(OCI_INDEX, manifests=[])
    content = manifest(OCI_INDEX, manifests=[listed(digest_of(inner), OCI_INDEX, "linux")])
    images, digest = serving(internet, content, kind=OCI_INDEX, blob=Told(body=configuration()))
    images.put("acme/app", "inner", OCI_INDEX, inner)
    with pytest.raises(Failed, match="no container image under this digest"):
        await registry.labels(f"{ACME}/acme/app", digest)
    assert len(internet.asked) == 2


async def test_another_manifest_than_the_build_is_not_read(internet: Internet, registry: Registry) -> None:
    """The labels are those of the digest that was asked for, whatever the registry sends."""
    images, digest = serving(
        internet, image_of(OCI_IMAGE, descriptor(configuration())), blob=Told(body=configuration())
    )
    wanted = "sha256:" + "b" * 64
    images.tagged[f"/v2/acme/app/manifests/{wanted}"] = images.tagged[f"/v2/acme/app/manifests/{digest}"]
    images.headers = {"Docker-Content-Digest": ""}
    with pytest.raises(Unavailable, match="another manifest than it was asked for"):
        await registry.labels(f"{ACME}/acme/app", wanted)


async def test_a_storage_gives_the_configuration_without_hearing_the_token(
    internet: Internet, registry: Registry
) -> None:
    """Blobs are kept in somebody's storage, which a redirect leads to; nobody there gets a credential."""
    sent_on = Told(status=307, headers={"Location": "https://storage.acme.example/a"})
    images, digest = serving(
        internet,
        image_of(OCI_IMAGE, descriptor(configuration())),
        blob=sent_on,
        realm=f"https://{ACME}/token",
    )
    images.login = f"robot:{PASSWORD}"
    heard: list[Asked] = []

    def storage(asked: Asked) -> Told:
        heard.append(asked)
        return Told(body=configuration())

    internet.servers["storage.acme.example"] = storage
    assert await registry.labels(f"{ACME}/acme/app", digest) == BUILT
    assert [asked.authorization for asked in heard] == [""]
    at_blob = [asked.authorization for asked in internet.asked if "/blobs/" in asked.path]
    assert [given.partition(" ")[0] for given in at_blob] == ["Bearer"]


async def test_a_registry_that_is_not_configured_is_not_asked(internet: Internet, registry: Registry) -> None:
    """An image's name alone sends the bot nowhere."""
    with pytest.raises(PromoteError, match=r"promote.yaml names no registry evil.example"):
        await registry.labels("evil.example/acme/app", "sha256:" + "a" * 64)
    assert not internet.asked
