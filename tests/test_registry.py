"""The digest of a version, from Debian's docker-registry and from an internet of registries that can do worse."""

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_servers import (
    DOCKER_IMAGE,
    DOCKER_LIST,
    OCI_IMAGE,
    OCI_INDEX,
    SCHEMA_1,
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

from bot.core.errors import Failed, PromoteError, Refused, Unavailable
from bot.core.image_name import ImageName, is_local
from bot.integrations.registry import Registry
from bot.integrations.registry_http import LONGEST_BODY, Access
from bot.integrations.registry_login import Login, from_docker

PASSWORD = "sesame-open"
ROBOT = Login(username="robot", password=PASSWORD)
HOSTS = ("docker.io", "ghcr.io", "registry.acme.example")
SETTINGS = "REGISTRY_USERNAME_X and REGISTRY_TOKEN_X"
Opened = Callable[..., Registry]


# --- names


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("acme/app", "docker.io/acme/app"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/acme/app", "docker.io/acme/app"),
        ("registry-1.docker.io/acme/app", "docker.io/acme/app"),
        ("ghcr.io/acme/manual-app", "ghcr.io/acme/manual-app"),
        ("GHCR.io/acme/app", "ghcr.io/acme/app"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/acme/app", "localhost:5000/acme/app"),
        ("registry:5000/app", "registry:5000/app"),
        ("registry.acme.example/app", "registry.acme.example/app"),
    ],
)
def test_a_name_is_read_as_docker_reads_it(image: str, name: str) -> None:
    """The host is what has a dot or a port; everything else lives at Docker Hub."""
    assert str(ImageName.parse(image)) == name


@pytest.mark.parametrize(
    "image",
    ["", "/app", "ghcr.io/", "ghcr.io/a/../b", "ghcr.io/a//b", "ghcr.io/A/b", "a b", "ghcr.io/a?b", "-"],
)
def test_what_is_no_name_is_refused(image: str) -> None:
    """A name goes into an address, so nothing is in it that could change where that leads."""
    with pytest.raises(ValueError, match="no image's name"):
        ImageName.parse(image)


@given(st.text())
def test_a_name_holds_no_surprises(text: str) -> None:
    """Whatever is read as a name has no step back, no query and no empty part."""
    try:
        name = ImageName.parse(text)
    except ValueError:
        return
    assert not {"..", "", "."} & set(name.repository.split("/"))
    assert set(name.repository) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-/")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("localhost", "localhost:5000", "127.0.0.2:80", "a.localhost")),
        *((host, False) for host in ("ghcr.io", "10.0.0.1:5000", "localhost.acme.example")),
    ],
)
def test_the_own_machine_is_known_by_its_names(host: str, local: bool) -> None:
    """The names of localhost and the loopback addresses are the bot's own machine, and nothing else is."""
    assert is_local(host) is local


# --- logins


def docker_config(**auths: Any) -> str:
    """Docker's config.json."""
    return json.dumps({"auths": auths})


def auth(username: str, password: str) -> dict[str, str]:
    """An entry of it."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry.acme.example:5000", "registry.acme.example:5000"),
    ],
)
def test_a_login_is_found_in_dockers_own_file(entry: str, host: str) -> None:
    """`docker login` writes the host in several ways; a password may hold a colon."""
    text = docker_config(**{entry: auth("robot", "a:b")}, **{"other.example": auth("eve", "no")})
    assert from_docker(text, host) == Login(username="robot", password="a:b")


@pytest.mark.parametrize("entry", ["ghcr.io.evil.example", "evil.example", "ghcr.io/acme", "ghcr.io:444"])
def test_a_login_of_another_place_is_not_used(entry: str) -> None:
    """A password goes to the registry that it was given for, and to no other one."""
    assert from_docker(docker_config(**{entry: auth("robot", "pw")}), "ghcr.io") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"auths": 5}',
        '{"auths": {"ghcr.io": 5}}',
        docker_config(**{"ghcr.io": {"auth": "%%secret"}}),
        docker_config(**{"ghcr.io": {}}),
        docker_config(**{"ghcr.io": {"identitytoken": "secret"}}),
    ],
)
def test_a_file_without_a_password_is_told(text: str) -> None:
    """A file that cannot be used, or a password that a helper keeps: nobody is silently a stranger."""
    with pytest.raises(ValueError, match=r"no config.json|holds no password") as caught:
        from_docker(text, "ghcr.io")
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_password_is_not_shown() -> None:
    """What a traceback prints of a login is its user alone."""
    assert PASSWORD not in repr(ROBOT)


# --- Debian's docker-registry


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("closed"), auth=("robot", PASSWORD)) as registry:
        yield registry


async def at(real: DockerRegistry, ask: str, *words: str, **access: Any) -> Any:
    """Ask for `app` in the real registry."""
    whole = Access(**{"allow_local": True, "settings": SETTINGS, **access})
    registry = Registry({real.host: whole}, verify=ssl.create_default_context())
    try:
        return await getattr(registry, ask)(f"{real.host}/acme/app", *words)
    finally:
        await registry.aclose()


@pytest.mark.parametrize("kind", [OCI_IMAGE, DOCKER_IMAGE])
async def test_an_image_has_the_digest_that_it_was_pushed_with(real: DockerRegistry, kind: str) -> None:
    """For one platform, the digest is the manifest's, and a pod reports that."""
    digest = real.image("acme/app", "15", kind)
    assert await at(real, "digest", "15") == digest
    assert await at(real, "platforms", digest) == {digest}


@pytest.mark.parametrize(("kind", "of"), [(OCI_INDEX, OCI_IMAGE), (DOCKER_LIST, DOCKER_IMAGE)])
async def test_an_image_of_two_platforms_has_the_digest_of_its_index(
    real: DockerRegistry, kind: str, of: str
) -> None:
    """It is promoted whole; a pod reports the index, or the manifest of its node's platform."""
    index, platforms = real.index("acme/app", "two", kind=kind, of=of)
    assert await at(real, "digest", "two") == index
    assert await at(real, "platforms", index) == {index, *platforms}


async def test_a_tag_that_is_pushed_anew_has_another_digest(real: DockerRegistry) -> None:
    """Nothing is remembered from one question to the next, also by the same bot."""
    registry = Registry({real.host: Access(allow_local=True)}, verify=ssl.create_default_context())
    before = real.image("acme/app", "moving", says="one")
    assert await registry.digest(f"{real.host}/acme/app", "moving") == before
    after = real.image("acme/app", "moving", says="two")
    assert await registry.digest(f"{real.host}/acme/app", "moving") == after != before
    await registry.aclose()


async def test_a_version_that_nobody_pushed_is_not_there(real: DockerRegistry) -> None:
    """The sentence names the image as the registry knows it."""
    with pytest.raises(Failed, match=rf"There is no {real.host}/acme/app:99 in the registry"):
        await at(real, "digest", "99")
    with pytest.raises(Failed, match=r"There is no .*@sha256:0{64} in the registry"):
        await at(real, "platforms", "sha256:" + "0" * 64)


async def test_a_registry_that_asks_for_a_password_gets_it(closed: DockerRegistry) -> None:
    """Basic, as a small registry of one's own has it."""
    digest = closed.image("acme/app", "15")
    assert await at(closed, "digest", "15", login=lambda: ROBOT) == digest


@pytest.mark.parametrize(
    ("login", "says"),
    [(None, f"set {SETTINGS}"), (Login(username="robot", password="wrong-password"), f"check {SETTINGS}")],
)
async def test_who_may_not_pull_is_told_what_to_set(
    closed: DockerRegistry, login: Login | None, says: str
) -> None:
    """Without a login, or with a wrong one: the settings are named, and no password is."""
    with pytest.raises(Failed, match=f"does not let the bot read acme/app: {says}") as caught:
        await at(closed, "digest", "15", login=lambda: login)
    assert "wrong-password" not in f"{caught.value!r}"


async def test_a_registry_that_is_not_there_may_come_back() -> None:
    """Nobody listens: that is worth another try."""
    with pytest.raises(
        Unavailable, match="the registry localhost:1 is not available: localhost cannot be reached"
    ):
        await at(DockerRegistry(host="localhost:1"), "digest", "15")


async def test_plain_http_is_spoken_only_where_it_is_allowed(real: DockerRegistry) -> None:
    """Without `allow_local` the bot speaks TLS, which this registry does not understand."""
    with pytest.raises(Unavailable, match="cannot be reached"):
        await at(real, "digest", "15", allow_local=False)


# --- an internet of registries


@pytest.fixture
async def internet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    async with internet_in(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def opened(internet: Internet) -> AsyncIterator[Opened]:
    """Makes the bot's registries: every host of the tests, each reached as `access` says."""
    made: list[Registry] = []

    def make(
        *, limits: tuple[float, float] = (5, 10), verify: ssl.SSLContext | None = None, **access: Any
    ) -> Registry:
        whole = Access(**{"settings": SETTINGS, **access})
        trusting = verify or internet.verify
        registry = Registry(
            dict.fromkeys(HOSTS, whole), verify=trusting, call_limit=limits[0], limit=limits[1]
        )
        made.append(registry)
        return registry

    yield make
    for registry in made:
        await registry.aclose()


HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}
GHCR = {"realm": "https://ghcr.io/token", "service": "ghcr.io"}
ACME = "registry.acme.example"
INDEX = manifest(OCI_INDEX, manifests=[{"digest": "sha256:" + letter * 64} for letter in "ab"])


@pytest.mark.parametrize(
    ("image", "host", "repository", "style"),
    [
        ("nginx", "registry-1.docker.io", "library/nginx", HUB),
        ("ghcr.io/acme/app", "ghcr.io", "acme/app", GHCR),
    ],
)
@pytest.mark.parametrize("login", [None, ROBOT])
async def test_a_token_is_asked_for_at_the_registrys_realm(
    opened: Opened,
    internet: Internet,
    image: str,
    host: str,
    repository: str,
    style: dict[str, str],
    login: Login | None,
) -> None:
    """As Docker Hub and GHCR have it, with and without an account: for one repository, and to pull alone."""
    images = Images(internet, host, **style)
    images.login = f"robot:{PASSWORD}" if login else None
    digest = images.put(repository, "15", OCI_INDEX, INDEX)
    registry = opened(login=lambda: login)
    assert await registry.digest(image, "15") == digest
    assert set(images.tokens.values()) == {f"repository:{repository}:pull"}
    heads = [str(asked) for asked in internet.asked]
    realm = style["realm"].removeprefix("https://")
    asked = f"HEAD {host}/v2/{repository}/manifests/15"
    assert heads == [asked, f"GET {realm}", asked]
    assert not internet.asked[0].authorization


async def test_the_realm_of_another_host_gets_nothing(internet: Internet, opened: Opened) -> None:
    """A registry cannot send the bot's password anywhere: an unlisted realm is not even asked."""
    Images(internet, ACME, realm="https://evil.example/token", service="x")
    registry = opened(login=lambda: ROBOT)
    with pytest.raises(
        Failed, match=r"sends the bot to evil.example to log in, which promote.yaml does not list"
    ):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert {asked.host for asked in internet.asked} == {ACME}
    assert not any(asked.authorization for asked in internet.asked)


async def test_a_realm_that_is_listed_is_asked(internet: Internet, opened: Opened) -> None:
    """A company's registry often has its log-in on a host of its own."""
    images = Images(internet, ACME, realm="https://login.acme.example/token", service="x")
    images.login = f"robot:{PASSWORD}"
    digest = images.put("acme/app", "15", OCI_INDEX, INDEX)
    registry = opened(login=lambda: ROBOT, realms=frozenset({"login.acme.example"}))
    assert await registry.digest(f"{ACME}/acme/app", "15") == digest
    told = {asked.host for asked in internet.asked if asked.authorization.startswith("Basic")}
    assert told == {"login.acme.example"}


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.docker.io/token",
        "http://registry.acme.example/token",
        "",
        "//evil",
        "https://a:b/",
        "ftp://x",
    ],
)
async def test_nobody_logs_in_unencrypted(internet: Internet, opened: Opened, realm: str) -> None:
    """A realm is https, also a listed one."""
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    internet.servers[ACME] = lambda _: Told(status=401, headers=challenge)
    registry = opened(login=lambda: ROBOT, realms=frozenset({"auth.docker.io"}))
    with pytest.raises(Failed, match="at what is no https:// address"):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert len(internet.asked) == 1


async def test_a_user_in_a_realm_is_nobody(internet: Internet, opened: Opened) -> None:
    """The address that a registry names cannot make the bot log in as somebody else."""
    images = Images(internet, ACME, realm=f"https://eve:pw@{ACME}/token", service="x")
    images.login = f"robot:{PASSWORD}"
    internet.servers[ACME] = images.serve
    registry = opened(login=lambda: None)
    images.realm = f"https://{ACME}/token"
    challenge = {"WWW-Authenticate": f'Bearer realm="https://eve:pw@{ACME}/token",service="x"'}
    serve = images.serve
    internet.servers[ACME] = lambda asked: (
        serve(asked) if asked.path == "/token" else Told(status=401, headers=challenge)
    )
    with pytest.raises(Failed, match="does not let the bot read"):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert not any(asked.authorization for asked in internet.asked)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": 5}', b'{"token": "a b"}', b'{"token": "a\\nb"}'])
async def test_a_token_that_is_none_is_not_used(internet: Internet, opened: Opened, body: bytes) -> None:
    """Nothing that could break a header is sent on."""
    challenge = {"WWW-Authenticate": f'Bearer realm="https://{ACME}/token",service="x"'}
    internet.servers[ACME] = lambda asked: (
        Told(body=body) if asked.path == "/token" else Told(status=401, headers=challenge)
    )
    registry = opened()
    with pytest.raises(Unavailable, match="gives no token"):
        await registry.digest(f"{ACME}/acme/app", "15")


async def test_redirects_are_followed_without_credentials(internet: Internet, opened: Opened) -> None:
    """Manifests may be kept in somebody's storage, which says neither type nor digest and must not hear the token."""
    images = Images(internet, ACME, realm=f"https://{ACME}/token", service="x")
    images.answer = lambda asked: Told(
        status=307, headers={"Location": f"https://storage.acme.example/{asked.method}"}
    )
    internet.servers["storage.acme.example"] = lambda _: Told(body=INDEX)
    registry = opened(login=lambda: ROBOT)
    assert await registry.digest(f"{ACME}/acme/app", "15") == digest_of(INDEX)
    storage = [asked for asked in internet.asked if asked.host == "storage.acme.example"]
    assert [asked.method for asked in storage] == ["HEAD", "GET"]
    assert not any(asked.authorization for asked in storage)


async def test_a_redirect_cannot_ask_for_the_password(internet: Internet, opened: Opened) -> None:
    """Whoever a redirect leads to is nobody to log in at, not even with a listed realm."""
    internet.servers[ACME] = lambda _: Told(status=302, headers={"Location": "https://evil.example/"})
    basic = {"WWW-Authenticate": 'Basic realm="x"'}
    internet.servers["evil.example"] = lambda _: Told(status=401, headers=basic)
    registry = opened(login=lambda: ROBOT)
    with pytest.raises(Failed, match="does not let the bot read"):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert not any(asked.authorization for asked in internet.asked)


@pytest.mark.parametrize(
    ("location", "says", "hops"),
    [
        (f"https://{ACME}/again", "without an end", 4),
        (f"http://{ACME}/plain", "on to what is no https:// address", 1),
        ("file:///etc/passwd", "on to what is no https:// address", 1),
    ],
)
async def test_redirects_lead_to_https_and_come_to_an_end(
    internet: Internet, opened: Opened, location: str, says: str, hops: int
) -> None:
    """Three of them at the most, and never to where nothing is encrypted."""
    internet.servers[ACME] = lambda _: Told(status=302, headers={"Location": location})
    registry = opened()
    with pytest.raises(Failed, match=says):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert len(internet.asked) == hops


async def test_a_head_that_does_not_say_enough_is_followed_by_the_body(
    internet: Internet, opened: Opened
) -> None:
    """Where the registry names no digest, the bot makes it of what it reads."""
    images = Images(internet, ACME)
    images.headers = {"Docker-Content-Digest": ""}
    digest = images.put("acme/app", "15", OCI_IMAGE, manifest(OCI_IMAGE))
    registry = opened()
    assert await registry.digest(f"{ACME}/acme/app", "15") == digest
    assert [asked.method for asked in internet.asked] == ["HEAD", "GET"]


async def test_a_digest_that_the_body_does_not_have_is_a_lie(internet: Internet, opened: Opened) -> None:
    """What was read is what counts, for a tag and for the manifests of an index."""
    images = Images(internet, ACME)
    digest = images.put("acme/app", "15", OCI_INDEX, INDEX)
    images.headers = {"Docker-Content-Digest": "sha256:" + "f" * 64, "Content-Type": "application/json"}
    registry = opened()
    with pytest.raises(Unavailable, match="is not that of the manifest"):
        await registry.digest(f"{ACME}/acme/app", "15")
    with pytest.raises(Unavailable, match="is not that of the manifest"):
        await registry.platforms(f"{ACME}/acme/app", digest)
    images.headers = {}
    images.tagged[f"/v2/acme/app/manifests/{digest}"] = (OCI_INDEX, INDEX + b" ")
    with pytest.raises(Unavailable, match="another manifest than it was asked for"):
        await registry.platforms(f"{ACME}/acme/app", digest)


@pytest.mark.parametrize("heads", [True, False])
async def test_schema_1_is_refused_with_the_reason(internet: Internet, opened: Opened, heads: bool) -> None:
    """Its digest is not that of the image, so it could prove nothing."""
    images = Images(internet, ACME)
    images.put("acme/app", "15", SCHEMA_1, json.dumps({"schemaVersion": 1}).encode())
    images.headers = {} if heads else {"Content-Type": "application/json", "Docker-Content-Digest": ""}
    registry = opened()
    with pytest.raises(Failed, match="docker's old schema 1"):
        await registry.digest(f"{ACME}/acme/app", "15")


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"<html>log in</html>", Unavailable, "sends no manifest"),
        (b"[1]", Unavailable, "sends no manifest"),
        (b"[" * 100000, Unavailable, "sends no manifest"),
        (manifest("application/vnd.acme.cake"), Failed, "no container image"),
    ],
)
async def test_what_is_no_image_is_told(
    internet: Internet, opened: Opened, content: bytes, error: type[PromoteError], says: str
) -> None:
    """A log-in page with 200, and things that are kept in registries and are no images."""
    Images(internet, ACME).put("acme/app", "15", "text/html", content)
    registry = opened()
    with pytest.raises(error, match=says):
        await registry.digest(f"{ACME}/acme/app", "15")


async def test_the_manifests_of_an_index_are_those_with_a_digest(internet: Internet, opened: Opened) -> None:
    """An index may hold anything; what is no digest is nobody's proof."""
    strange: list[object] = [
        {"digest": "sha256:" + "a" * 64},
        {"digest": "sha256:x"},
        {},
        5,
        {"digest": None},
    ]
    content = manifest(OCI_INDEX, manifests=strange)
    digest = Images(internet, ACME).put("acme/app", "15", OCI_INDEX, content)
    registry = opened()
    assert await registry.platforms(f"{ACME}/acme/app", digest) == {digest, "sha256:" + "a" * 64}


async def test_a_body_of_megabytes_is_not_read_to_its_end(internet: Internet, opened: Opened) -> None:
    """A manifest is a few kB; nobody fills the bot's memory."""
    Images(internet, ACME).put("acme/app", "15", "text/plain", b" " * (LONGEST_BODY + 1))
    internet.servers["ghcr.io"] = lambda _: Told(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b")
    registry = opened()
    with pytest.raises(Unavailable, match="sends more than 4 MB"):
        await registry.digest(f"{ACME}/acme/app", "15")
    with pytest.raises(Unavailable, match="packed, although nobody asked"):
        await registry.digest("ghcr.io/acme/app", "15")


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [("7", 7.0), ("86400", 300.0), ("soon", None), (None, None), ("Mon, 02 Mar 2026 12:00:00 GMT", 0.0)],
)
async def test_a_registry_that_asks_for_a_pause_is_heard(
    internet: Internet, opened: Opened, wait: str | None, seconds: float | None
) -> None:
    """429 is no fault of the version's: try again, when the registry says, in five minutes at the latest."""
    headers = {"Retry-After": wait} if wait else {}
    internet.servers[ACME] = lambda _: Told(status=429, headers=headers)
    registry = opened()
    with pytest.raises(Unavailable, match=r"asks the bot to wait \(429\)") as caught:
        await registry.digest(f"{ACME}/acme/app", "15")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [418, 500, 502, 503, 206])
async def test_a_registry_in_trouble_is_asked_again_later(
    internet: Internet, opened: Opened, status: int
) -> None:
    """Nothing is decided by an answer that no registry should give."""
    internet.servers[ACME] = lambda _: Told(status=status)
    registry = opened()
    with pytest.raises(Unavailable, match=f"answers {status}"):
        await registry.digest(f"{ACME}/acme/app", "15")


@pytest.mark.parametrize(
    ("limits", "says"),
    [((0.2, 10), f"{ACME} did not answer within 0.2 s"), ((10, 0.2), "it did not answer within 0.2 s")],
)
async def test_silence_is_borne_for_a_while(
    internet: Internet, opened: Opened, limits: tuple[float, float], says: str
) -> None:
    """Each call has its limit, and so has the whole question."""
    internet.servers[ACME] = lambda _: Told(is_silent=True)
    registry = opened(limits=limits)
    with pytest.raises(Unavailable, match=says):
        await registry.digest(f"{ACME}/acme/app", "15")


async def test_the_usual_limits_are_seconds(internet: Internet) -> None:
    """A person waits for the answer."""
    registry = Registry({}, verify=internet.verify)
    assert (registry._call_limit, registry._limit) == (5, 10)
    await registry.aclose()


async def test_a_certificate_of_nobody_we_know_is_no_registry(internet: Internet, opened: Opened) -> None:
    """Without the own authority the bot does not speak to it; the tests above prove that with it it does."""
    Images(internet, ACME)
    registry = opened(verify=ssl.create_default_context())
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await registry.digest(f"{ACME}/acme/app", "15")
    assert not internet.asked


async def test_those_who_ask_at_the_same_time_share_one_answer(internet: Internet, opened: Opened) -> None:
    """Ten people, one request; one of them who gives up does not end it, and the next one asks anew."""
    images = Images(internet, ACME)
    digest = images.put("acme/app", "15", OCI_INDEX, INDEX)
    registry = opened()
    asking = [asyncio.create_task(registry.digest(f"{ACME}/acme/app", "15")) for _ in range(10)]
    await internet.hears(1)
    asking.pop(0).cancel()
    assert set(await asyncio.gather(*asking)) == {digest}
    assert len(internet.asked) == 1
    await registry.digest(f"{ACME}/acme/app", "15")
    assert len(internet.asked) == 2


async def test_closing_ends_what_is_still_asked(internet: Internet, opened: Opened) -> None:
    """The bot can go, whatever a registry does."""
    internet.servers[ACME] = lambda _: Told(is_silent=True)
    registry = opened()
    asking = asyncio.create_task(registry.digest(f"{ACME}/acme/app", "15"))
    await internet.hears(1)
    await registry.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_no_secret_is_told_or_logged(
    internet: Internet, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """Password and token are in no error, and in no log line that we or a library writes."""
    caplog.set_level(logging.DEBUG)
    images = Images(internet, ACME, realm=f"https://{ACME}/token", service="x")
    images.login = f"robot:{PASSWORD}"
    spoken: list[str] = []

    def answers(asked: Asked) -> Told:
        spoken.append(asked.authorization)
        return Told(status=503, headers={"Location": asked.authorization})

    images.answer = answers
    registry = opened(login=lambda: ROBOT)
    with pytest.raises(Unavailable) as caught:
        await registry.digest(f"{ACME}/acme/app", "15")
    assert spoken == [f"Bearer {token}" for token in images.tokens]
    assert caught.value.__cause__ is caught.value.__context__ is None
    # httpcore's own lines of DEBUG hide the header of that name; ours name nothing at all.
    seen = f"{caught.value!r} {vars(caught.value)!r} {caplog.text}"
    assert not [secret for secret in (PASSWORD, ROBOT.basic[6:]) if secret in seen]


async def test_a_host_that_is_not_configured_is_not_asked(internet: Internet, opened: Opened) -> None:
    """The configuration says whom the bot speaks to, and a version is a tag."""
    registry = opened()
    with pytest.raises(Failed, match=r"names no registry quay.io"):
        await registry.digest("quay.io/acme/app", "15")
    with pytest.raises(Refused, match="not a version"):
        await registry.digest("ghcr.io/acme/app", "../../x")
    with pytest.raises(Failed, match="no image's name"):
        await registry.digest("ghcr.io/acme/../app", "15")
    assert not internet.asked
