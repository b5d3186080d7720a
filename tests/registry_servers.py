"""Registries for tests: Debian's docker-registry, and an internet of our own for what that cannot do.

The internet is one proxy on loopback: whatever host is asked for, it answers with a certificate of its own authority,
and notes who was told what.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from conftest import require
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
HOSTS = (
    "registry-1.docker.io",
    "auth.docker.io",
    "ghcr.io",
    "login.acme.example",
    "registry.acme.example",
    "storage.acme.example",
    "evil.example",
)


def digest_of(content: bytes) -> str:
    """`sha256:…` of these bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest(kind: str, **fields: object) -> bytes:
    """A manifest of a kind, as a registry stores it."""
    return json.dumps({"schemaVersion": 2, "mediaType": kind, **fields}).encode()


# --- the real one

HTPASSWD = "robot:$2y$05$abcdefghijklmnopqrstuuS9BZOyeahxQEvqVJ2MwcTfokCZow8ni\n"
"""The password is sesame-open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerRegistry:
    """Debian's docker-registry on loopback, and a way to push into it."""

    host: str
    """`localhost:port`, as an image's name begins."""
    auth: tuple[str, str] | None = None

    def blob(self, repository: str, content: bytes) -> dict[str, object]:
        """Push a blob and return its descriptor, without a media type."""
        with self._client() as client:
            place = client.post(f"/v2/{repository}/blobs/uploads/").headers["Location"]
            url = httpx.URL(place).copy_merge_params({"digest": digest_of(content)})
            client.put(url, content=content).raise_for_status()
        return {"digest": digest_of(content), "size": len(content)}

    def manifest(self, repository: str, reference: str, kind: str, content: bytes) -> str:
        """Push a manifest under a tag or its digest; returns its digest."""
        with self._client() as client:
            put = client.put(
                f"/v2/{repository}/manifests/{reference}", content=content, headers={"Content-Type": kind}
            )
            assert put.status_code == 201, put.text
            return put.headers["Docker-Content-Digest"]

    def image(self, repository: str, reference: str, kind: str = OCI_IMAGE, *, says: str = "hello") -> str:
        """Push an image of one small layer, and return its digest; without a reference it has no tag."""
        is_oci = kind == OCI_IMAGE
        config = self.blob(repository, json.dumps({"os": "linux", "architecture": says}).encode())
        layer = self.blob(repository, says.encode())
        content = manifest(
            kind,
            config={
                "mediaType": f"application/vnd.{'oci.image.config' if is_oci else 'docker.container.image'}.v1+json",
                **config,
            },
            layers=[
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar"
                    if is_oci
                    else "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    **layer,
                }
            ],
        )
        return self.manifest(repository, reference or digest_of(content), kind, content)

    def index(
        self, repository: str, tag: str, *, kind: str = OCI_INDEX, of: str = OCI_IMAGE
    ) -> tuple[str, list[str]]:
        """Push an image for two platforms; returns the digest of its index, and those of its manifests."""
        found, entries = [], []
        for architecture in ("amd64", "arm64"):
            digest = self.image(repository, "", of, says=architecture)
            found.append(digest)
            platform = {"architecture": architecture, "os": "linux"}
            entries.append({"mediaType": of, "digest": digest, "size": 400, "platform": platform})
        return self.manifest(repository, tag, kind, manifest(kind, manifests=entries)), found

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.host}", auth=self.auth, trust_env=False)


@contextlib.contextmanager
def docker_registry(folder: Path, *, auth: tuple[str, str] | None = None) -> Iterator[DockerRegistry]:
    """A registry of its own until the end of the block; where there is `auth`, it asks for Basic."""
    binary = require("docker-registry", "docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of-no-meaning"},
    }
    if auth:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "acme", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "serve", folder / "config.yml"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "docker-registry does not begin to listen"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield DockerRegistry(host=f"localhost:{port}", auth=auth)
    finally:
        process.terminate()
        process.wait(10)


# --- the internet


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as a server of the internet heard it."""

    method: str
    host: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer. `is_silent`: none ever comes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_silent: bool = False


Server = Callable[[Asked], Told]


class Internet:
    """Hosts by their names, behind one proxy on loopback that speaks for all of them."""

    def __init__(self, folder: Path) -> None:
        self.servers: dict[str, Server] = {}
        self.asked: list[Asked] = []
        self.ca = folder / "authority.pem"
        self._context = _certified(folder, self.ca)
        self._heard = asyncio.Event()

    @property
    def verify(self) -> ssl.SSLContext:
        """A machine that trusts this internet's own authority."""
        return ssl.create_default_context(cafile=self.ca)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """It serves until the end of the block; the proxy's address."""
        tasks: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._connected(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()

    async def hears(self, number: int) -> None:
        """Wait until so many requests have come."""
        while len(self.asked) < number:
            self._heard.clear()
            await asyncio.wait_for(self._heard.wait(), 10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, place, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            assert method == b"CONNECT", "nothing goes unencrypted"
            host = place.decode().removesuffix(":443")
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await writer.start_tls(self._context)
            while True:
                asked = _request(host, await reader.readuntil(b"\r\n\r\n"))
                self.asked.append(asked)
                self._heard.set()
                told = self.servers[host](asked)
                if told.is_silent:
                    await asyncio.Event().wait()
                writer.write(_response(asked, told))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the bot has gone
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def internet_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    """An internet that everything encrypted goes to, through its proxy, as in a company's network."""
    made = Internet(folder)
    async with made.serving() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        for name in ("NO_PROXY", "no_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield made


def _request(host: str, head: bytes) -> Asked:
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert headers["host"] == host
    assert "cookie" not in headers
    path = urlsplit(target)
    return Asked(method=method, host=host, path=path.path, query=parse_qs(path.query), headers=headers)


def _response(asked: Asked, told: Told) -> bytes:
    length = {"Content-Length": str(len(told.body)), "Set-Cookie": "a=b; Domain=acme.example; Path=/"}
    lines = [
        f"HTTP/1.1 {told.status} Told",
        *(f"{name}: {value}" for name, value in {**length, **told.headers}.items()),
    ]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if asked.method == "HEAD" else head + told.body


def _certified(folder: Path, ca: Path) -> ssl.SSLContext:
    """A server's context with a certificate for every host, by an authority that is written to `ca`."""
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the authority of a test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, folder / "key.pem")
    return context


class Images:
    """A registry of the internet: manifests by tag and digest, and a token for who may pull.

    `login` is the only account that is given a token; without one everybody is.
    """

    def __init__(self, internet: Internet, host: str, *, realm: str | None = None, service: str = "") -> None:
        self.realm, self.service = realm, service
        self.login: str | None = None
        self.tagged: dict[str, tuple[str, bytes]] = {}
        self.headers: dict[str, str] = {}
        """What it says beside or instead of the right headers of a manifest."""
        self.tokens: dict[str, str] = {}
        """Every token that was given, and its scope."""
        self.answer: Server | None = None
        """What answers for a manifest instead."""
        internet.servers[host] = self.serve
        if realm:
            internet.servers[urlsplit(realm).netloc] = self.serve

    def put(self, repository: str, tag: str, kind: str, content: bytes) -> str:
        """Store a manifest under a tag and its digest."""
        for reference in (tag, digest_of(content)):
            self.tagged[f"/v2/{repository}/manifests/{reference}"] = (kind, content)
        return digest_of(content)

    def serve(self, asked: Asked) -> Told:
        """What the registry, or its realm, answers."""
        if self.realm and f"https://{asked.host}{asked.path}" == self.realm:
            return self._token(asked)
        repository = asked.path.removeprefix("/v2/").partition("/manifests/")[0]
        scope = f"repository:{repository}:pull"
        if self.realm and self.tokens.get(asked.authorization.removeprefix("Bearer ")) != scope:
            words = f'Bearer realm="{self.realm}",service="{self.service}",scope="{scope},push"'
            return Told(status=401, headers={"WWW-Authenticate": words})
        if self.answer:
            return self.answer(asked)
        if {OCI_INDEX, OCI_IMAGE, DOCKER_LIST, DOCKER_IMAGE} != set(asked.headers["accept"].split(", ")):
            return Told(status=406)
        if asked.path not in self.tagged:
            return Told(status=404)
        kind, content = self.tagged[asked.path]
        right = {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)}
        headers = {name: value for name, value in {**right, **self.headers}.items() if value}
        return Told(headers=headers, body=content)

    def _token(self, asked: Asked) -> Told:
        if self.login and asked.authorization != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return Told(status=401)
        if asked.query.get("service") != [self.service] or len(asked.query.get("scope", [])) != 1:
            return Told(status=400)
        token = f"a-token-that-nobody-may-see-{len(self.tokens)}"
        self.tokens[token] = asked.query["scope"][0]
        return Told(body=json.dumps({"token": token}).encode())
