"""Secrets show nowhere but in the environment of the git that needs them, whatever goes wrong."""

import asyncio
import logging
import secrets
import threading
import traceback
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog
from git_bench import BOT, answering, edit_of
from git_hosts import PATH, VALUES, HttpHost, Remote, http_host
from ssh_host import SshHost, make_key, ssh_host

from bot.core.catalog import Target
from bot.core.errors import Failed, PromoteError, Stale, Unavailable, ValueNotEditable
from bot.integrations.gitops import Credential, GitRepository

OF_THE_REMOTE = {
    *("push", "fetch", "ls-remote", "remote-http", "remote-https", "http-fetch", "http-push", "ssh"),
    *("send-pack", "fetch-pack", "index-pack", "unpack-objects", "pack-objects", "rev-list"),
}
"""The commands that talk to a remote, and those that they start for it."""

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Planted:
    """Words that nobody else on this machine uses."""

    token: str = field(default_factory=lambda: f"glpat-{secrets.token_hex(10)}")
    token_of_other: str = field(default_factory=lambda: f"ghp_{secrets.token_hex(10)}")
    proxy_password: str = field(default_factory=lambda: f"proxy-{secrets.token_hex(10)}")
    variables: dict[str, str] = field(
        default_factory=lambda: {
            "PROMOTE_SECRET": secrets.token_hex(20),
            "SLACK_BOT_TOKEN": f"xoxb-{secrets.token_hex(10)}",
            "SLACK_SIGNING_SECRET": secrets.token_hex(16),
            "ARGOCD_TOKEN": f"eyJ{secrets.token_hex(10)}.eyJ.{secrets.token_hex(10)}",
            "REDIS_URL": f"redis://:{secrets.token_hex(10)}@127.0.0.1:1/0",
        }
    )

    @property
    def of_remote(self) -> list[str]:
        return both_forms(self.token)

    @property
    def of_other(self) -> list[str]:
        return both_forms(self.token_of_other)

    @property
    def everything(self) -> list[str]:
        return [*self.of_remote, *self.of_other, self.proxy_password, *self.variables.values()]

    @property
    def echo(self) -> str:
        """What a host that repeats what it was sent would say."""
        token, basic = self.of_remote
        return f"Authorization: Basic {basic}\nbot:{token} at https://bot:{token}@git.acme.example/x.git\n"


def both_forms(token: str) -> list[str]:
    return [token, b64encode(f"bot:{token}".encode()).decode()]


@dataclass(frozen=True)
class Process:
    """A process of git's or ssh's as it was seen."""

    arguments: tuple[str, ...]
    environment: str

    @property
    def command(self) -> str:
        name = Path(self.arguments[0]).name
        if name == "git" and len(self.arguments) > 1:
            return self.arguments[1]
        return name.removeprefix("git-")


def running() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


class Sampler(threading.Thread):
    """Looks at every process of the machine, as fast as it can, until told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.lines: set[bytes] = set()
        self.processes: set[Process] = set()
        self.ending = threading.Event()
        self._old = set(running())

    def run(self) -> None:
        while not self.ending.is_set():
            for process in running():
                if process not in self._old:
                    with suppress(OSError):
                        self.look(process)

    def look(self, process: Path) -> None:
        line = (process / "cmdline").read_bytes()
        self.lines.add(line)
        arguments = tuple(line.decode(errors="replace").rstrip("\0").split("\0"))
        # Read after its arguments: what is git then was git before, and not a copy of this process.
        if Path(arguments[0]).name.startswith(("git", "ssh")):
            environment = (process / "environ").read_bytes().decode(errors="replace")
            self.processes.add(Process(arguments, environment))

    def end(self) -> None:
        self.ending.set()
        self.join()

    @property
    def commands(self) -> set[str]:
        return {process.command for process in self.processes}


@dataclass
class World:
    """A host, a client of it, and everything that either could give away."""

    planted: Planted
    remote: Remote
    host: HttpHost
    cache: Path
    sampler: Sampler
    repository: GitRepository
    target: Target

    async def commit(self) -> str:
        return await self.repository.commit(edit_of(self.target, self.remote.first))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    made = Planted()
    tokens = {"GIT_TOKEN": made.token, "GIT_TOKEN_OTHER": made.token_of_other}
    proxy = {"HTTPS_PROXY": f"http://bot:{made.proxy_password}@127.0.0.1:1"}
    for name, value in {**made.variables, **tokens, **proxy}.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.git")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def host(remote: Remote, planted: Planted) -> Iterator[HttpHost]:
    with http_host(remote.folder.parent, token=planted.token) as made:
        yield made


@pytest.fixture
def sampler(host: HttpHost) -> Iterator[Sampler]:  # noqa: ARG001 - begins when the host is there
    made = Sampler()
    made.start()
    yield made
    made.end()


@pytest.fixture
async def world(
    planted: Planted, remote: Remote, host: HttpHost, cache: Path, sampler: Sampler
) -> AsyncIterator[World]:
    async with aclosing(over_http(cache, planted)) as repository:
        made = World(planted, remote, host, cache, sampler, repository, remote.target(host.url()))
        await repository.plan(made.target, "v15")
        yield made


def over_http(cache: Path, planted: Planted, *, proxies: dict[str, str] | None = None) -> GitRepository:
    return GitRepository(
        cache=cache,
        committer=BOT,
        credentials={
            "gitops": Credential(username="bot", token=planted.token),
            "other": Credential(username="bot", token=planted.token_of_other),
        },
        allow_local=frozenset({"gitops", "other"}),
        proxies=proxies or {"https_proxy": f"http://bot:{planted.proxy_password}@127.0.0.1:1"},
        timeout=2,
    )


class Confession:
    """Everything that was said: exceptions, log lines, and what was printed."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._said: list[str] = []

    async def of(self, attempt: Awaitable[object], error: type[PromoteError] | None) -> str:
        """Await it to its end, which must be `error`; returns all that was said in doing so."""
        with self._caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
            if error is None:
                self._said.append(repr(await attempt))
            else:
                with pytest.raises(error) as raised:
                    await attempt
                self._said += told_by(raised.value)
        printed = self._capfd.readouterr()
        records = [f"{record.getMessage()} {vars(record)}" for record in self._caplog.records]
        return "\n".join([*self._said, *map(repr, events), *records, printed.out, printed.err])


@pytest.fixture
def confession(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Confession:
    return Confession(caplog, capfd)


def told_by(error: BaseException | None) -> Iterator[str]:
    """Every word of an exception and of those that led to it."""
    yield from traceback.format_exception(error)
    waiting = [error]
    while waiting:
        if (each := waiting.pop()) is not None:
            yield f"{each} {each!r} {each.args!r} {getattr(each, '__dict__', {})!r}"
            waiting += [each.__cause__, each.__context__]


def kept_in(cache: Path) -> str:
    """Every file below the cache, and every object as it is before it is packed."""
    texts = []
    for file in cache.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            texts.append(content)
            with suppress(zlib.error):
                texts.append(zlib.decompress(content))
    return "\n".join(text.decode(errors="replace") for text in texts)


def assert_hidden(hidden: list[str], *texts: str) -> None:
    for text in texts:
        for secret in hidden:
            assert secret not in text, text


def assert_processes_are_clean(sampler: Sampler, planted: Planted, cache: Path) -> None:
    """No argument holds a secret; the environment of a remote's git holds that remote's alone, others hold none."""
    sampler.end()
    assert_hidden(planted.everything, *(line.decode(errors="replace") for line in sampler.lines))
    ours = [process for process in sampler.processes if str(cache) in process.environment]
    assert ours, "nothing was seen"
    for process in ours:
        allowed: list[str] = []
        if process.command in OF_THE_REMOTE:
            is_other = "/other.git" in f"{process.arguments} {process.environment}"
            allowed = [*(planted.of_other if is_other else planted.of_remote), planted.proxy_password]
        forbidden = [secret for secret in planted.everything if secret not in allowed]
        found = [secret for secret in forbidden if secret in process.environment]
        assert not found, f"{process.arguments} can see {found}"


Case = Callable[[World], Awaitable[object]]


async def succeed(world: World) -> str:
    plan = await world.repository.plan(world.target, "v15")
    revision = await world.repository.commit(edit_of(world.target, plan.base))
    assert await world.repository.find(edit_of(world.target, plan.base)) == revision
    return revision


def answer(status: int) -> Case:
    async def case(world: World) -> object:
        world.host.answer = (status, world.planted.echo.encode())
        return await world.repository.plan(world.target, "v15")

    return case


def answer_to_the_push(status: int) -> Case:
    async def case(world: World) -> object:
        with answering(world.host, "receive-pack", status, body=world.planted.echo.encode()):
            return await world.commit()

    return case


async def redirect(world: World) -> object:
    there = f"http://bot:{world.planted.token}@localhost:1/remote.git"
    with answering(world.host, "", 302, headers={"Location": there}, body=world.planted.echo.encode()):
        return await world.commit()


async def fall_silent(world: World) -> object:
    world.host.silent_on = "/git-receive-pack"
    return await world.commit()


async def cut_the_line(world: World) -> object:
    world.host.cut_on = "/git-receive-pack"
    return await world.commit()


async def refuse_the_connection(world: World) -> object:
    with http_host(world.remote.folder.parent) as gone:
        url = gone.url()
    return await world.repository.plan(world.remote.target(url), "v15")


async def repeat_all_in_a_hook(world: World) -> object:
    world.remote.hook(f"echo '{world.planted.echo}' >&2\nexit 1")
    return await world.commit()


async def damage_the_copy(world: World) -> object:
    for found in world.cache.rglob("objects/??/*"):
        found.chmod(0o644)
        found.write_bytes(b"")
    world.host.answer = (503, world.planted.echo.encode())
    return await world.commit()


async def change_the_value(world: World) -> object:
    world.remote.push({PATH: VALUES.replace("v14", "v99")})
    return await world.commit()


async def make_it_not_editable(world: World) -> object:
    world.remote.push({PATH: "image: {tag: *x}\n"})
    return await world.repository.plan(world.target, "v15")


async def name_no_branch(world: World) -> object:
    repository = replace(world.target.repository, branch="trunk")
    return await world.repository.plan(replace(world.target, repository=repository), "v15")


@pytest.mark.parametrize(
    ("case", "error"),
    [
        pytest.param(answer(401), Failed, id="401"),
        pytest.param(answer(403), Failed, id="403"),
        pytest.param(answer(404), Failed, id="404"),
        pytest.param(answer(500), Unavailable, id="500"),
        pytest.param(answer(503), Unavailable, id="503"),
        pytest.param(answer(200), PromoteError, id="garbage"),
        pytest.param(answer_to_the_push(403), Failed, id="403 to the push"),
        pytest.param(answer_to_the_push(500), Unavailable, id="500 to the push"),
        pytest.param(answer_to_the_push(200), Unavailable, id="garbage to the push"),
        (redirect, Unavailable),
        (fall_silent, Unavailable),
        (cut_the_line, Unavailable),
        (refuse_the_connection, Unavailable),
        (repeat_all_in_a_hook, Failed),
        (damage_the_copy, Unavailable),
        (change_the_value, Stale),
        (make_it_not_editable, ValueNotEditable),
        (name_no_branch, Failed),
        (succeed, None),
    ],
)
async def test_no_secret_shows_whatever_happens(
    world: World, confession: Confession, case: Case, error: type[PromoteError] | None
) -> None:
    """Not in a message, a log, a file or an argument, and in no environment but that of the git that needs it."""
    said = await confession.of(case(world), error)
    assert_hidden(world.planted.everything, said, kept_in(world.cache))
    assert_processes_are_clean(world.sampler, world.planted, world.cache)


async def test_the_sampler_sees_what_it_looks_for(world: World) -> None:
    """Pushing, fetching and reading were all watched, and the header is where it has to be."""
    await succeed(world)
    world.sampler.end()
    assert {"push", "fetch", "cat-file"} <= world.sampler.commands
    basic = world.planted.of_remote[1]
    knowing = {process.command for process in world.sampler.processes if basic in process.environment}
    assert "push" in knowing


async def test_each_remote_is_told_its_own_token_alone(
    world: World, confession: Confession, tmp_path: Path
) -> None:
    """Two repositories side by side: neither git can see the other one's token, nor can its host hear it."""
    other = Remote(tmp_path / "others" / "other.git")
    with http_host(tmp_path / "others", token=world.planted.token_of_other) as second:
        target = other.target(second.url("other.git"))
        target = replace(target, repository=replace(target.repository, name="other"))
        both = asyncio.gather(world.commit(), world.repository.commit(edit_of(target, other.first)))
        said = await confession.of(both, None)
    assert other.text() == world.remote.text() == VALUES.replace("v14", "v15")
    assert_hidden(world.planted.everything, said, kept_in(world.cache))
    assert_processes_are_clean(world.sampler, world.planted, world.cache)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://bot:{password}@127.0.0.1:{port}",
        "bot:{password}@127.0.0.1:{port}",
        "http://bot:{password}@127.0.0.1:1",
        "http://bot:{password}@127.0.0.1:99999",
        "bot:{password}@127.0.0.1:99999",
        "nonsense://bot:{password}@127.0.0.1",
        "bot:{password}",
    ],
)
async def test_a_proxy_s_password_shows_as_little(
    world: World, confession: Confession, tmp_path: Path, proxy: str
) -> None:
    """A proxy that refuses us, that is not there, or whose address is wrong: git quotes it without the password."""
    planted = world.planted
    with (
        http_host(tmp_path) as between,
        answering(between, "", 407, body=f"{planted.echo} {planted.proxy_password}".encode()),
    ):
        address = proxy.format(password=planted.proxy_password, port=between.server_port)
        async with aclosing(over_http(world.cache, planted, proxies={"http_proxy": address})) as repository:
            said = await confession.of(repository.plan(world.target, "v15"), PromoteError)
    assert_hidden(planted.everything, said, kept_in(world.cache))
    assert_processes_are_clean(world.sampler, planted, world.cache)


def stranger(host: SshHost, folder: Path) -> Credential:
    return replace(host.credential, ssh_key=make_key(folder / "stranger"))


def unknown_host(host: SshHost, _: Path) -> Credential:
    return replace(host.credential, known_hosts=None)


def refused(host: SshHost, _: Path) -> Credential:
    host.refuse("ERROR: Repository not found.")
    return host.credential


def missing_key(host: SshHost, folder: Path) -> Credential:
    return replace(host.credential, ssh_key=folder / "gone")


def welcome(host: SshHost, _: Path) -> Credential:
    return host.credential


@pytest.mark.parametrize("way", [stranger, unknown_host, refused, missing_key, welcome])
async def test_a_private_key_stays_in_its_file(
    world: World, confession: Confession, tmp_path: Path, way: Callable[[SshHost, Path], Credential]
) -> None:
    """Over SSH too: no part of the key shows, and neither git nor ssh can see a token or a setting of the bot."""
    cache = tmp_path / "cache_over_ssh"
    with ssh_host(tmp_path / "ssh") as host:
        credential = way(host, tmp_path)
        client = GitRepository(cache=cache, committer=BOT, credentials={"gitops": credential}, timeout=5)
        edit = edit_of(world.remote.target(host.url(world.remote.folder)), world.remote.first)
        async with aclosing(client) as repository:
            said = await confession.of(repository.commit(edit), None if way is welcome else PromoteError)
        key = (host.folder / "client_key").read_text().splitlines()[1:-1]
    world.sampler.end()
    hidden = [*world.planted.everything, *key]
    ours = [process for process in world.sampler.processes if str(cache) in process.environment]
    assert any(process.command == "ssh" for process in ours)
    assert_hidden(hidden, said, kept_in(cache))
    assert_hidden(hidden, *(f"{process.arguments} {process.environment}" for process in ours))
