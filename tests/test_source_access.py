"""What lies between two builds: from the labels of real images to the commits of a real repository."""

import asyncio
import json
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from git_hosts import HttpHost, Remote, http_host
from hypothesis import given
from hypothesis import strategies as st
from registry_servers import OCI_IMAGE, DockerRegistry, digest_of, docker_registry, manifest

from bot.config import load
from bot.config_models import Config, SourceModel
from bot.core.catalog import Image, Source, Target
from bot.core.dossier import Commits
from bot.core.errors import Failed, Refused, Unavailable
from bot.integrations.cleanroom import Credential
from bot.integrations.registry import Registry
from bot.integrations.registry_http import Access
from bot.integrations.source_log import SourceLog
from bot.settings import Settings, SettingsError
from bot.source_access import WITHIN, Address, SourceCommits

TOKEN = "glpat-0n1y-f0r-th1s-h0st"
SOURCE = "org.opencontainers.image.source"
REVISION = "org.opencontainers.image.revision"
IMAGE = "ghcr.io/acme/manual-app"
FETCH = "/git-upload-pack"
EXAMPLE = Path(__file__).parents[1] / "promote.yaml"

pytestmark = pytest.mark.timeout(60)


@dataclass
class Labelled:
    """A registry in memory: the labels of each version; a digest is its version."""

    labelled: dict[str, Mapping[str, str]] = field(default_factory=dict)
    trouble: Exception | None = None
    is_silent: bool = False
    asked: list[str] = field(default_factory=list)

    async def digest(self, image: str, version: str) -> str:
        self.asked.append(f"{image}:{version}")
        if self.trouble:
            raise self.trouble
        if self.is_silent:
            await asyncio.Event().wait()
        return version

    async def platforms(self, image: str, digest: str) -> frozenset[str]:
        raise AssertionError(f"nobody asks for the platforms of {image}@{digest}")

    async def labels(self, image: str, digest: str) -> Mapping[str, str]:
        self.asked.append(f"{image}@{digest}")
        return self.labelled[digest]


@dataclass
class World:
    """A source repository behind HTTP, images that were built from it, and the target that runs them."""

    remote: Remote
    host: HttpHost
    images: Labelled
    target: Target
    cache: Path

    def built(self, version: str, revision: str, source: str | None = None) -> Image:
        """An image with labels."""
        self.images.labelled[version] = {SOURCE: source or self.host.url(), REVISION: revision}
        return Image(version=version)

    def commits(self, *, within: float = WITHIN, token: str = TOKEN, timeout: float = 20) -> SourceCommits:
        """What is tested."""
        log = SourceLog(
            name="acme/app",
            url=self.host.url(),
            cache=self.cache,
            credential=Credential(username="bot", token=token),
            is_local=True,
            timeout=timeout,
        )
        return SourceCommits(images=self.images, logs={self.host.url(): log}, within=within)

    async def between(self, old: Image, new: Image) -> Commits:
        """Ask once."""
        async with aclosing(self.commits()) as commits:
            return await commits.between(self.target, old, new)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    remote = Remote(tmp_path / "remote.git")
    remote.git("config", "uploadpack.allowFilter", "true")
    with http_host(tmp_path, token=TOKEN) as host:
        target = replace(remote.target(), asks_registry=True, source=Source(url=host.url()))
        yield World(remote, host, Labelled(), target, tmp_path / "cache")


# --- the whole way


def pushed(real: DockerRegistry, tag: str, labels: Mapping[str, str]) -> str:
    """Push an image with these labels, and return its digest."""
    config = real.blob("acme/app", json.dumps({"config": {"Labels": labels}}).encode())
    content = manifest(
        OCI_IMAGE, config={"mediaType": "application/vnd.oci.image.config.v1+json", **config}, layers=[]
    )
    assert real.manifest("acme/app", tag, OCI_IMAGE, content) == digest_of(content)
    return digest_of(content)


async def test_from_the_images_to_the_commits(world: World, tmp_path: Path) -> None:
    """The old build is known by its version alone, the new one by its digest, whatever its tag stands for by now."""
    tip = world.remote.push({"a": "1"}, message="Add one")
    url = world.host.url()
    with docker_registry(tmp_path) as real:
        registry = Registry({real.host: Access(allow_local=True)}, verify=ssl.create_default_context())
        pushed(real, "14", {SOURCE: url, REVISION: world.remote.first})
        new = pushed(real, "15", {SOURCE: url, REVISION: tip})
        pushed(real, "15", {SOURCE: "https://elsewhere.example/app", REVISION: "e" * 40})
        log = SourceLog(
            name="acme/app",
            url=url,
            cache=world.cache,
            credential=Credential(username="bot", token=TOKEN),
            is_local=True,
        )
        target = replace(world.target, image=f"{real.host}/acme/app")
        async with aclosing(registry), aclosing(SourceCommits(images=registry, logs={url: log})) as commits:
            found = await commits.between(target, Image(version="14"), Image(version="15", digest=new))
    assert (found.unknown, found.count, found.newest[0].subject) == ("", 1, "Add one")
    assert found.newest[0].revision == tip


async def test_the_way_back_is_told(world: World) -> None:
    """Where an older build is to go, the commits are those that go away."""
    tip = world.remote.push({"a": "1"}, message="Go away")
    found = await world.between(world.built("15", tip), world.built("14", world.remote.first))
    assert (found.is_back, found.count, found.newest[0].subject) == (True, 1, "Go away")


async def test_a_digest_is_looked_up_only_where_it_is_not_known(world: World) -> None:
    """What was pinned is asked for by its digest."""
    digest = "sha256:" + "a" * 64
    world.images.labelled[digest] = {SOURCE: world.host.url(), REVISION: world.remote.first}
    old = world.built("14", world.remote.first)
    assert not (await world.between(old, Image(version="15", digest=digest))).unknown
    image = world.target.image
    assert sorted(world.images.asked) == [f"{image}:14", f"{image}@14", f"{image}@{digest}"]


# --- why nobody can tell


async def test_without_a_source_or_a_registry_nothing_is_asked(world: World) -> None:
    """Each has its reason, and no image is looked at."""
    old, new = world.built("14", world.remote.first), world.built("15", world.remote.first)
    async with aclosing(world.commits()) as commits:
        for target, says in (
            (replace(world.target, source=None), "promote.yaml names no source for this app"),
            (replace(world.target, asks_registry=False), "no registry is asked for this image"),
            (replace(world.target, source=Source(url="https://x.example/y")), "names no source"),
        ):
            found = await commits.between(target, old, new)
            assert says in found.unknown
            assert found == Commits(unknown=found.unknown)
    assert not world.images.asked
    assert not world.host.requests


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({}, "the image 15 has no source label"),
        ({REVISION: "c" * 40}, "the image 15 has no source label"),
        ({SOURCE: "URL"}, "the image 15 has no revision label"),
        ({SOURCE: "URL", REVISION: ""}, "the image 15 has no revision label"),
        *(
            ({SOURCE: "URL", REVISION: odd}, "the revision label of the image 15 names no commit")
            for odd in (
                *("main", "c" * 39, "c" * 41, "c" * 40 + "\n", "c" * 40 + "-dirty", "\uff11" * 40),
                *("--upload-pack=touch mark", "--output=mark", "HEAD", "$(touch mark)", "a..b"),
            )
        ),
        ({SOURCE: "URL", REVISION: "e" * 40}, "holds the revision eeeeeeeeeeee"),
        (
            {SOURCE: "https://evil.example/acme/app", REVISION: "c" * 40},
            "the image 15 says it was built from https://evil.example/acme/app, not from the configured repository",
        ),
        (
            {SOURCE: "https://u:pa55word@evil.example/a\x1b[31m\n" + "b" * 500, REVISION: "c" * 40},
            "built from https://evil.example/a [31m bbb",
        ),
    ],
)
async def test_what_the_labels_do_not_tell_is_said(world: World, labels: dict[str, str], says: str) -> None:
    """A short plain reason, never a blank; and a label is never an option, a command or a secret on a card."""
    url = world.host.url()
    world.images.labelled["15"] = {key: url if value == "URL" else value for key, value in labels.items()}
    found = await world.between(world.built("14", world.remote.first), Image(version="15"))
    assert says in found.unknown
    assert found.unknown.isprintable()
    assert len(found.unknown) <= 300
    assert "pa55word" not in found.unknown
    assert found == Commits(unknown=found.unknown)
    assert not list(world.cache.rglob("mark"))


async def test_no_host_is_asked_that_only_a_label_names(world: World, tmp_path: Path) -> None:
    """A label that names another host brings it no request, least of all the token; nor does it bring the own one."""
    with http_host(tmp_path, token=TOKEN) as evil:
        label = evil.url().replace("127.0.0.1", "localhost")
        old, new = world.built("14", "c" * 40, label), world.built("15", "d" * 40, label)
        assert "not from the configured repository" in (await world.between(old, new)).unknown
        assert not evil.requests
    assert not world.host.requests


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (
            Unavailable("the registry ghcr.io", "it is away"),
            "the registry ghcr.io is not available: it is away",
        ),
        (Failed("There is no such image. Push it."), "There is no such image. Push it"),
        (Refused("That is not\x1b a version."), "That is not a version"),
        (Failed("x" * 1000), "x" * 300),
        (RuntimeError("a mistake"), "the bot made a mistake, which its log tells"),
    ],
)
async def test_a_registry_in_trouble_is_a_reason(world: World, trouble: Exception, says: str) -> None:
    """Nothing is raised, also by a mistake of our own."""
    world.images.trouble = trouble
    found = await world.between(Image(version="14"), Image(version="15"))
    assert found == Commits(unknown=says)


async def test_a_refused_credential_is_a_reason(world: World) -> None:
    """The host's own words, without the token."""
    old, new = world.built("14", world.remote.first), world.built("15", world.remote.first)
    async with aclosing(world.commits(token="wrong-token")) as commits:
        found = await commits.between(world.target, old, new)
    assert "refuses us the repository acme/app" in found.unknown
    assert "wrong-token" not in found.unknown


# --- in time


async def test_a_registry_that_is_silent_is_not_waited_for(world: World) -> None:
    """The limit is for the whole answer."""
    world.images.is_silent = True
    async with aclosing(world.commits(within=0.2)) as commits:
        found = await commits.between(world.target, Image(version="14"), Image(version="15"))
    assert found == Commits(unknown="the registry is not available: it did not answer in time")


async def test_what_takes_longer_is_there_the_next_time(world: World) -> None:
    """People wait for so long; the bot reads on, once for all who ask, and the next answer is at hand."""
    tip = world.remote.push({"a": "1"}, message="Add one")
    old, new = world.built("14", world.remote.first), world.built("15", tip)
    world.host.hold_on = FETCH
    async with aclosing(world.commits(within=1)) as commits:
        began_at = time.monotonic()
        asked = [commits.between(world.target, old, new) for _ in range(3)]
        for found in await asyncio.gather(*asked):
            assert "the source repository is not available: it did not answer in time" in found.unknown
        assert time.monotonic() - began_at < 5
        world.host.released.set()
        async with asyncio.timeout(20):
            while (found := await commits.between(world.target, old, new)).unknown:
                assert "in time" in found.unknown
        assert (found.count, found.newest[0].subject) == (1, "Add one")
    assert sum(FETCH in each for each in world.host.requests) <= 2


async def test_who_goes_away_takes_no_answer_with_him(world: World) -> None:
    """Two ask for the same, and share the reading; one of them gives up."""
    tip = world.remote.push({"a": "1"}, message="Add one")
    old, new = world.built("14", world.remote.first), world.built("15", tip)
    world.host.hold_on = FETCH
    async with aclosing(world.commits(within=20)) as commits:
        goes, stays = (asyncio.create_task(commits.between(world.target, old, new)) for _ in range(2))
        assert await asyncio.to_thread(world.host.reached.wait, 20)
        goes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await goes
        world.host.released.set()
        assert (await stays).count == 1


async def test_those_who_ask_for_the_same_share_one_answer(world: World) -> None:
    """A revision that is nowhere costs one fetch, however many people look."""
    old, new = world.built("14", world.remote.first), world.built("15", "e" * 40)
    async with aclosing(world.commits()) as commits:
        asked = [commits.between(world.target, old, new) for _ in range(3)]
        assert all("holds the revision" in found.unknown for found in await asyncio.gather(*asked))
    assert sum("info/refs" in each for each in world.host.requests) == 1


async def test_what_is_known_is_not_read_again(world: World) -> None:
    """Two revisions stay what they are, under whatever versions they come."""
    tip = world.remote.push({"a": "1"})
    async with aclosing(world.commits()) as commits:
        found = await commits.between(
            world.target, world.built("14", world.remote.first), world.built("15", tip)
        )
        shutil.rmtree(world.cache)
        world.host.answer = (500, b"")
        again = world.built("1.4", world.remote.first.upper()), world.built("1.5", tip)
        assert await commits.between(world.target, *again) == found


async def test_trouble_is_not_remembered(world: World) -> None:
    """What was not there may be pushed, and what was away may come back."""
    old = world.built("14", world.remote.first)
    async with aclosing(world.commits()) as commits:
        world.host.answer = (503, b"")
        assert (await commits.between(world.target, old, old)).unknown
        world.host.answer = None
        assert not (await commits.between(world.target, old, old)).unknown


async def test_closing_waits_for_no_host(world: World) -> None:
    """Whoever asks meanwhile is told so, and nothing is raised."""
    old = world.built("14", world.remote.first)
    commits = world.commits()
    world.host.silent_on = FETCH
    asked = asyncio.create_task(commits.between(world.target, old, old))
    assert await asyncio.to_thread(world.host.reached.wait, 20)
    async with asyncio.timeout(5):
        await commits.aclose()
    assert (await asked).unknown
    assert "shutting down" in (await commits.between(world.target, old, old)).unknown


# --- addresses

SAME = [
    "https://github.com/acme/app",
    "https://github.com/acme/app.git",
    "https://github.com/acme/app/",
    "https://GitHub.com/acme/app",
    "https://github.com:443/acme/app",
    "https://somebody:token@github.com/acme/app.git",
    "http://github.com/acme/app",
    "git://github.com/acme/app.git",
    "ssh://git@github.com/acme/app.git",
    "ssh://git@github.com:22/acme/app",
    "git@github.com:acme/app.git",
    "git@GITHUB.com:/acme/app",
    "github.com:acme/app",
    "github.com/acme/app",
]
OTHERS = [
    "https://github.com/acme/app2",
    "https://github.com/acme/app/tree/main",
    "https://github.com/acme/other/../app",
    "https://github.com/Acme/app",
    "https://github.com.evil.example/acme/app",
    "https://evil.example/github.com/acme/app",
    "https://github.com@evil.example/acme/app",
    "git@evil.example:acme/app.git",
    "git@evil.example:github.com/acme/app.git",
    "https://evil.example#@github.com/acme/app",
    "https://evil.example\\@github.com/acme/app",
    "https://github.com/acme/app?x",
    "https://github.com/acme/app#main",
    "https://github.com/acme/\napp",
    "https://g\u0131thub.com/acme/app",
    "https://[github.com/acme/app",
    "https://github.com",
    "file:///acme/app",
    "/acme/app",
    "acme/app",
    "",
]


@pytest.mark.parametrize("written", SAME)
def test_a_repository_is_the_same_however_it_is_written(written: str) -> None:
    """Scheme, user, port, `.git`, ssh's short form and the case of the host make no difference."""
    assert Address.parse(written) == Address(host="github.com", path="acme/app")


@pytest.mark.parametrize("written", OTHERS)
def test_another_repository_is_another_one(written: str) -> None:
    """Host and path must be the very ones; what is no address is nobody's."""
    try:
        found = Address.parse(written)
    except ValueError:
        return
    assert found != Address(host="github.com", path="acme/app")


@given(st.text())
def test_any_label_is_an_address_or_none(text: str) -> None:
    """Whatever an image says is read or refused, and what is read is one plain line."""
    try:
        found = Address.parse(text)
    except ValueError:
        return
    assert f"{found}".isprintable()
    assert found.path.strip("/")


# --- the comparison for people


@pytest.mark.parametrize(
    ("url", "compare_url", "link"),
    [
        ("https://github.com/acme/app.git", None, "https://github.com/acme/app/compare/OLD...NEW"),
        ("git@github.com:acme/app.git", None, "https://github.com/acme/app/compare/OLD...NEW"),
        ("https://gitlab.com/a/b/app", None, "https://gitlab.com/a/b/app/-/compare/OLD...NEW"),
        (
            "ssh://git@gitlab.acme.example:2222/a/app",
            None,
            "https://gitlab.acme.example/a/app/-/compare/OLD...NEW",
        ),
        ("https://git.acme.example/a/app", None, None),
        ("https://notgitlab.example/a/app", None, None),
        ("https://github.com/a/app", "https://x.example/{new}/{old}?{}", "https://x.example/NEW/OLD?{}"),
    ],
)
@pytest.mark.parametrize("is_back", [False, True])
async def test_the_comparison_has_an_address(
    world: World, url: str, compare_url: str | None, link: str | None, is_back: bool
) -> None:
    """The configured one goes first; on the way back it shows what goes away, as the card does."""
    tip = world.remote.push({"a": "1"})
    pair = (tip, world.remote.first) if is_back else (world.remote.first, tip)
    images = [world.built(version, each, url) for version, each in zip(("14", "15"), pair, strict=True)]
    log = SourceLog(name="app", url=f"file://{world.remote.folder}", cache=world.cache, is_local=True)
    target = replace(world.target, source=Source(url=url, compare_url=compare_url))
    async with aclosing(SourceCommits(images=world.images, logs={url: log})) as commits:
        found = await commits.between(target, images[0], images[1])
    assert (found.unknown, found.is_back) == ("", is_back)
    expected = link and link.replace("OLD", world.remote.first).replace("NEW", tip)
    assert found.link == expected


# --- from the configuration


def configured(**source: object) -> Config:
    """The example, with two apps of one source."""
    config = load(EXAMPLE)
    app = config.apps["manual-app"].model_copy(update={"source": SourceModel.model_validate(source)})
    return config.model_copy(update={"apps": {"manual-app": app, "second-app": app}})


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., SourceCommits]]:
    """Opens the sources of a configuration, and closes them in the end."""
    made: list[SourceCommits] = []

    def make(environ: dict[str, str], config: Config, images: Labelled) -> SourceCommits:
        made.append(SourceCommits.open(Settings(environ=environ), config, images=images))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


@pytest.mark.parametrize(
    ("given", "is_let_in"),
    [
        ({"GIT_TOKEN_MANUAL_APP": TOKEN, "GIT_USERNAME_MANUAL_APP": "bot"}, True),
        ({"GIT_TOKEN": TOKEN, "GIT_USERNAME": "bot", "GIT_USERNAME_MANUAL_APP": "bot"}, False),
        ({}, False),
    ],
)
async def test_a_source_has_a_credential_of_its_own(
    world: World,
    opened: Callable[..., SourceCommits],
    tmp_path: Path,
    given: dict[str, str],
    is_let_in: bool,
) -> None:
    """By the name of the app; the token of the GitOps repositories goes to their hosts, and to no other one."""
    config = configured(url=world.host.url(), allow_local=True)
    commits = opened({"PROMOTE_DATA_DIR": str(tmp_path / "data"), **given}, config, world.images)
    old = world.built("14", world.remote.first)
    found = await commits.between(world.target, old, old)
    assert bool(found.unknown) is not is_let_in
    assert (tmp_path / "data" / "sources").is_dir()


def test_a_credential_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    """The setting is named before anything starts."""
    environ = {"GIT_TOKEN_MANUAL_APP_FILE": "/nowhere/token", "PROMOTE_DATA_DIR": str(tmp_path)}
    config = configured(url="https://github.com/acme/app")
    with pytest.raises(SettingsError, match="GIT_TOKEN_MANUAL_APP_FILE: cannot read /nowhere/token"):
        SourceCommits.open(Settings(environ=environ), config, images=Labelled())


def test_a_source_that_names_no_repository_is_told_at_the_start(tmp_path: Path) -> None:
    """Its labels could never be compared with it."""
    config = configured(url="https://github.com/acme/app?x=y")
    with pytest.raises(Failed, match="The source of manual-app cannot be used: an address has no blank"):
        SourceCommits.open(Settings(environ={"PROMOTE_DATA_DIR": str(tmp_path)}), config, images=Labelled())
