"""Tokens of a GitHub App, from a GitHub on loopback that checks all that it is asked."""

import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from conftest import require
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.core.errors import Failed, PromoteError, Unavailable
from bot.integrations.github_app import LONGEST_WORDS, REMEMBERED, InstallationToken

APP = "12345"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
TLS = ssl.create_default_context()
NOON = 1770000000.0
HOUR = 3600.0


def pem(
    key: Any, form: PrivateFormat = PrivateFormat.TraditionalOpenSSL, password: bytes | None = None
) -> str:
    """A private key as GitHub gives it."""
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, form, hidden).decode())


class Wrong(Exception):
    """An answer that is not 200: status and GitHub's message."""


class GitHub(ThreadingHTTPServer):
    """The API of a GitHub Enterprise Server on a free port, with one App that is installed on `acme/deploy`.

    Its clock stands still at `now`. `answer` (status, headers, body) answers all whose path ends with
    `answer_on`, instead of the right one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.reset()
        self.ending = threading.Event()

    def reset(self) -> None:
        """A day without trouble: nothing was asked yet."""
        self.now = NOON
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.answer_on = ""
        self.is_silent = False
        self.asked: list[str] = []
        self.jwts: list[str] = []
        """Every JWT that was heard."""
        self.ends_at: dict[str, float] = {}
        """Every token that was made, and when it ends."""

    def says(self, status: int, message: object, *, on: str = "", **headers: str) -> None:
        """Answer with a message, as GitHub words its errors."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer, self.answer_on = (status, named, json.dumps({"message": message}).encode()), on

    def url(self, path: str = "acme/deploy") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def right_answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, object]:
        """What GitHub answers; raises `Wrong`."""
        if headers.get("accept") != "application/vnd.github+json":
            raise Wrong(415, "Unsupported 'Accept' header")
        if headers.get("x-github-api-version") != "2022-11-28":
            raise Wrong(400, "Unsupported version")
        if not headers.get("user-agent"):
            raise Wrong(403, "Request forbidden by administrative rules.")
        self.check_jwt(headers.get("authorization", ""))
        if (method, path) == ("GET", "/api/v3/repos/acme/deploy/installation") and not body:
            return 200, {"id": 77, "app_id": int(APP)}
        if (method, path) == ("POST", "/api/v3/app/installations/77/access_tokens"):
            return 201, self.make_token(json.loads(body))
        raise Wrong(404, "Not Found")

    def check_jwt(self, authorization: str) -> None:
        token = authorization.removeprefix("Bearer ")
        self.jwts.append(token)
        unchecked = {"verify_exp": False, "verify_iat": False, "require": ["iss", "iat", "exp"]}
        try:
            claims = jwt.decode(token, KEY.public_key(), algorithms=["RS256"], issuer=APP, options=unchecked)
        except jwt.InvalidTokenError as error:
            raise Wrong(401, "A JSON web token could not be decoded") from error
        if not claims["iat"] <= self.now < claims["exp"] <= self.now + 600:
            raise Wrong(401, "'Expiration time' claim ('exp') is too far in the future")

    def make_token(self, wanted: object) -> object:
        if wanted != {"repositories": ["deploy"], "permissions": {"contents": "write"}}:
            raise Wrong(422, "There is at least one repository that does not exist or is not accessible")
        token = f"ghs_{APP}_{len(self.ends_at):030}.part-two"
        self.ends_at[token] = self.now + HOUR
        return {
            "token": token,
            "expires_at": datetime.fromtimestamp(self.now + HOUR, UTC).isoformat()[:19] + "Z",
        }


class _Api(BaseHTTPRequestHandler):
    server: GitHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        github = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        github.asked.append(f"{self.command} {self.path}")
        if github.is_silent:
            github.ending.wait(30)
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            status, answer = github.right_answer(self.command, self.path, headers, body)
        except Wrong as wrong:
            status, answer = wrong.args[0], {"message": wrong.args[1]}
        if github.answer and self.path.endswith(github.answer_on):
            self.reply(*github.answer)
        else:
            self.reply(status, {}, json.dumps(answer).encode())

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def serving(github: GitHub) -> Iterator[GitHub]:
    """It serves until the end of the block."""
    with github:
        thread = threading.Thread(target=github.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield github
        finally:
            github.ending.set()
            github.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[GitHub]:
    with serving(GitHub()) as github:
        yield github


@pytest.fixture
def github(server: GitHub) -> GitHub:
    server.reset()
    return server


def made(github: GitHub, address: str | None = None, **different: Any) -> InstallationToken:
    """The App's token on this GitHub, with its clock."""
    usual = {
        "app_id": APP,
        "private_key": pem(KEY),
        "repository_url": github.url() if address is None else address,
        "verify": TLS,
        "allow_local": True,
        "now": lambda: github.now,
        "timeout": 5.0,
    }
    return InstallationToken(**usual | different)


def trouble(token: InstallationToken, github: GitHub) -> PromoteError:
    """The error of the next question. It shows no piece of a secret, and nothing stands behind it."""
    with pytest.raises(PromoteError) as caught:
        token.current()
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    shown = f"{error} {error!r} {vars(error)!r}"
    secrets = [*github.jwts, *github.ends_at, *pem(KEY).splitlines()[1:-1]]
    assert not [piece for secret in secrets for piece in pieces(secret) if piece in shown]
    return error


def pieces(secret: str) -> Iterator[str]:
    """All that is long enough to give something away."""
    return (secret[start : start + 16] for start in range(len(secret) - 15))


FIND = "GET /api/v3/repos/acme/deploy/installation"
MAKE = "POST /api/v3/app/installations/77/access_tokens"


def test_the_app_gets_a_token_for_the_repository_alone(github: GitHub) -> None:
    """It finds its own installation, and asks for one repository and one permission."""
    token = made(github).current()
    assert token in github.ends_at
    assert github.asked == [FIND, MAKE]


@pytest.mark.parametrize("path", ["acme/deploy", "acme/deploy.git", "acme/deploy/", "acme/deploy.git/"])
def test_the_repository_is_found_in_every_form_of_its_address(github: GitHub, path: str) -> None:
    """With or without `.git` and slash, and with a user name, it is the same repository."""
    address = github.url(path)
    assert made(github, address).current()
    assert made(github, address.replace("//", "//ann:pa55word@")).current()
    assert github.asked == [FIND, MAKE] * 2


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.integers(0, 5000) | st.sampled_from([3299, 3300, 3301]), min_size=1, max_size=6))
def test_a_token_is_kept_until_five_minutes_before_its_end(server: GitHub, steps: list[int]) -> None:
    """Whenever it is asked for, it is good for five more minutes; none is made too early."""
    server.reset()
    token = made(server)
    held = token.current()
    for step in steps:
        server.now += step
        is_good = server.ends_at[held] >= server.now + 300
        given_now = token.current()
        assert (given_now == held) == is_good
        assert server.ends_at[given_now] >= server.now + 300
        held = given_now


def test_threads_that_ask_at_once_get_one_token(github: GitHub) -> None:
    """Git's threads share one token: only the first of them asks GitHub."""
    token = made(github)
    together = threading.Barrier(8)

    def ask() -> str:
        together.wait()
        return token.current()

    with ThreadPoolExecutor(8) as pool:
        got = {each.result() for each in [pool.submit(ask) for _ in range(8)]}
    assert got == set(github.ends_at)
    assert github.asked == [FIND, MAKE]


def test_a_forgotten_token_is_replaced(github: GitHub) -> None:
    """What the git host refused is not handed out again."""
    token = made(github)
    first = token.current()
    token.forget()
    assert token.current() not in {first, ""}
    assert len(github.ends_at) == 2


def test_the_last_tokens_are_known_as_secrets(github: GitHub) -> None:
    """Older ones may still stand in a message that comes late; the list never grows beyond a few."""
    token = made(github)
    assert token.secrets == ()
    handed_out = []
    for _ in range(REMEMBERED + 2):
        token.forget()
        handed_out.append(token.current())
        token.current()
        assert token.secrets == tuple(handed_out[-REMEMBERED:])


def test_nothing_that_is_shown_holds_a_secret(github: GitHub) -> None:
    """A token object in a log line tells neither the key nor the token."""
    token = made(github)
    shown = f"{token!r} {token.current() and token!r} {token._held!r}"
    assert not [secret for secret in [*github.ends_at, *pem(KEY).splitlines()[1:-1]] if secret in shown]


@pytest.mark.parametrize(
    "different",
    [
        {"private_key": pem(OTHER_KEY)},
        {"app_id": "54321"},
        {"now": lambda: NOON + 90},
        {"now": lambda: NOON - 600},
    ],
    ids=["another key", "another App", "clock ahead", "clock behind"],
)
def test_an_app_that_github_does_not_know_is_told_what_to_check(
    github: GitHub, different: dict[str, Any]
) -> None:
    """A wrong id, a wrong key and a wrong clock all look alike to GitHub; waiting helps none of them."""
    error = trouble(made(github, **different), github)
    assert isinstance(error, Failed)
    app = different.get("app_id", APP)
    assert str(error) == (
        f"GitHub does not accept the App {app}: check GITHUB_APP_ID and its key, and this machine's clock."
    )


@pytest.mark.parametrize("drift", [-59, 59])
def test_a_clock_that_is_a_little_wrong_does_no_harm(github: GitHub, drift: float) -> None:
    """Up to a minute either way is what machines are off by."""
    assert made(github, now=lambda: NOON + drift).current()


def test_a_repository_without_the_app_says_where_to_install_it(github: GitHub) -> None:
    """The message names App, repository and permission."""
    error = trouble(made(github, github.url("acme/other")), github)
    assert isinstance(error, Failed)
    assert str(error) == (
        "The GitHub App 12345 is not installed on acme/other: "
        "install it there, with the permission “Contents: Read and write”."
    )


@pytest.mark.parametrize("status", [403, 422])
def test_github_says_itself_why_there_is_no_token(github: GitHub, status: int) -> None:
    """A missing permission or a suspended installation ends the promotion with GitHub's own words."""
    words = "The permissions requested are not granted to this installation."
    github.says(status, words, on="/access_tokens", X_RateLimit_Remaining="4999")
    error = trouble(made(github), github)
    assert isinstance(error, Failed)
    assert str(error) == (
        f"GitHub gives the App 12345 no token for acme/deploy: {words} "
        "Check where it is installed, and that it has the permission “Contents: Read and write”."
    )


LIMITS = [
    (403, {"Retry_After": "17"}, "You have exceeded a secondary rate limit", 17.0),
    (429, {"Retry_After": "17"}, "Slow down", 17.0),
    (403, {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(int(NOON) + 42)}, "Used up", 42.0),
    (429, {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(int(NOON) - 42)}, "Used up", 0.0),
    (403, {"X_RateLimit_Remaining": "0"}, "Used up", HOUR),
    (403, {"Retry_After": "9" * 400}, "Later", HOUR),
    (403, {}, "You have exceeded a secondary rate limit", None),
    (429, {"Retry_After": "tomorrow"}, "Slow down", None),
    (503, {"Retry_After": "5"}, "Maintenance", 5.0),
]


@pytest.mark.parametrize("step", ["/installation", "/access_tokens"])
@pytest.mark.parametrize(("status", "headers", "words", "wait"), LIMITS)
def test_a_limit_is_waited_for(
    github: GitHub, step: str, status: int, headers: dict[str, str], words: str, wait: float | None
) -> None:
    """Too many requests are no refusal: it goes on when GitHub says so, within the hour at most."""
    github.says(status, words, on=step, **headers)
    error = trouble(made(github), github)
    assert isinstance(error, Unavailable)
    assert (error.system, error.retry_after) == ("GitHub", wait)
    assert error.detail == f"127.0.0.1:{github.server_port} answers {status}: {words}."


def test_a_missing_permission_is_no_limit_although_the_limit_is_reached(github: GitHub) -> None:
    """The last request of an hour is answered as well as the first."""
    github.says(422, "Not granted", on="/access_tokens", X_RateLimit_Remaining="0")
    assert isinstance(trouble(made(github), github), Failed)


def body_of(**changed: object) -> bytes:
    """The answer with a token, changed."""
    return json.dumps({"token": "ghs_ok", "expires_at": "2099-01-01T00:00:00Z", **changed}).encode()


NONSENSE = [
    (500, b'{"message": "boom"}'),
    (502, b"<html>Bad gateway</html>"),
    (301, b'{"message": "Moved Permanently"}'),
    (400, b'{"message": "no"}'),
    (401, b"<html>Log in</html>"),
    (403, b"<html>The proxy says no</html>"),
    (404, b'{"error": "404 Not Found"}'),
    (404, b'{"message": ["no", "text"]}'),
    (200, b""),
    (200, b"\xff\xfe"),
    (200, b"[]"),
    (200, b"[" * 100_000),
    (204, b""),
]
NO_INSTALLATIONS = ["{}", '{"id": null}', '{"id": true}', '{"id": "77"}', f'{{"id": {"9" * 5000}}}']
NO_TOKENS = [
    {"token": ""},
    {"token": "two words"},
    {"token": "line\nbreak"},
    {"token": 5},
    {"expires_at": "soon"},
    {"expires_at": None},
    {"expires_at": "2099-01-01T00:00:00"},
    {"expires_at": datetime.fromtimestamp(NOON + 299, UTC).isoformat()},
]


def check_nonsense(github: GitHub, step: str, status: int, body: bytes) -> None:
    """The answer at this step is told apart, nothing is kept of it, and the next try works."""
    github.answer, github.answer_on = (status, {}, body), step
    token = made(github)
    error = trouble(token, github)
    assert isinstance(error, Unavailable)
    assert re.fullmatch(r"127\.0\.0\.1:\d+ (answers|gives|names) [ -~]+\.", error.detail)
    assert github.asked == ([FIND] if step == "/installation" else [FIND, MAKE])
    assert token.secrets == ()
    github.answer = None
    assert token.current() in github.ends_at


@pytest.mark.parametrize("step", ["/installation", "/access_tokens"])
@pytest.mark.parametrize(("status", "body"), NONSENSE, ids=lambda value: str(value)[:40])
def test_nonsense_is_no_answer(github: GitHub, step: str, status: int, body: bytes) -> None:
    """What is neither an answer nor a refusal of GitHub's may be better in a minute."""
    check_nonsense(github, step, status, body)


@pytest.mark.parametrize("body", NO_INSTALLATIONS, ids=lambda value: value[:40])
def test_only_a_number_is_an_installation(github: GitHub, body: str) -> None:
    """Nothing else becomes part of the next address."""
    check_nonsense(github, "/installation", 200, body.encode())


@pytest.mark.parametrize("changed", NO_TOKENS, ids=str)
def test_a_token_that_git_could_not_use_is_not_handed_out(github: GitHub, changed: dict[str, object]) -> None:
    """It is one word, and it is told for how long it is good."""
    usual = {"token": "ghs_ok", "expires_at": "2099-01-01T00:00:00Z"}
    check_nonsense(github, "/access_tokens", 201, json.dumps(usual | changed).encode())


def test_a_redirect_is_not_followed(github: GitHub) -> None:
    """The App's word is for GitHub alone, wherever an answer sends to."""
    github.answer = (307, {"Location": github.url("elsewhere")}, b'{"message": "Moved"}')
    assert isinstance(trouble(made(github), github), Unavailable)
    assert github.asked == [FIND]


def test_a_server_that_never_answers_is_given_up_in_time(github: GitHub) -> None:
    """Git's threads are not held up for longer than the limit."""
    github.is_silent = True
    began_at = time.monotonic()
    error = trouble(made(github, timeout=0.2), github)
    assert time.monotonic() - began_at < 3
    assert isinstance(error, Unavailable)
    assert error.detail == f"127.0.0.1:{github.server_port} did not answer within 0.2 s."


def test_a_server_that_is_not_there_is_not_available(github: GitHub) -> None:
    """A closed port is told in the system's words."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = trouble(made(github, f"http://127.0.0.1:{port}/acme/deploy"), github)
    assert isinstance(error, Unavailable)
    assert error.detail.startswith(f"127.0.0.1:{port} cannot be reached: ")
    assert "refused" in error.detail


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback that no authority has signed, and its key, in one file."""
    both = tmp_path / "both.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = [require("openssl", "openssl"), "req", "-x509", *key, *subject, "-keyout", both, "-out", both]
    subprocess.run(command, check=True, capture_output=True)
    return both


def test_a_host_is_asked_only_where_its_certificate_is_trusted(certificate: Path) -> None:
    """Over https:// the server proves who it is before it hears of the App."""
    with serving(GitHub()) as github:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        github.socket = context.wrap_socket(github.socket, server_side=True)
        address = github.url().replace("http:", "https:")
        error = trouble(made(github, address, allow_local=False), github)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert github.asked == []
        trusting = ssl.create_default_context(cafile=certificate)
        assert made(github, address, allow_local=False, verify=trusting).current()


@settings(max_examples=15, deadline=None)
@example(before="", between="0")
@example(before="x" * 5000, between="")
@given(before=st.text(max_size=300), between=st.text(max_size=20))
def test_githubs_words_are_fit_for_people(server: GitHub, before: str, between: str) -> None:
    """Whatever stands in a message, also our own secrets: one short visible line without them arrives."""
    server.reset()
    token = made(server)
    held = token.current()
    token.forget()
    own = jwt.encode({"iss": APP}, KEY, algorithm="RS256")
    server.jwts.append(own)
    server.says(422, f"{before}{held}{between}{own} https://ann:pa55word@host/")
    words = str(trouble(token, server))
    assert words.isprintable()
    assert "pa55word" not in words
    assert len(words) < LONGEST_WORDS + 200


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that hears where it is to connect to, and refuses."""
    heard: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            heard.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("host", "api"),
    [
        ("github.com", "api.github.com:443"),
        ("GitHub.com", "api.github.com:443"),
        ("acme.ghe.com", "api.acme.ghe.com:443"),
        ("git.acme.example", "git.acme.example:443"),
        ("git.acme.example:8443", "git.acme.example:8443"),
    ],
)
def test_the_api_is_where_the_host_has_it_and_a_proxy_is_used(
    github: GitHub, monkeypatch: pytest.MonkeyPatch, host: str, api: str
) -> None:
    """github.com and GHE.com have a host for their API, a company's server has it beside its repositories."""
    with proxy() as (address, heard):
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("NO_PROXY", "")
        error = trouble(made(github, f"https://{host}/acme/deploy", allow_local=False), github)
    assert heard == [api]
    assert isinstance(error, Unavailable)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com",
        "https://github.com/acme",
        "https://github.com/acme/",
        "https://github.com/acme/deploy/tree/main",
        "https://github.com/acme/deploy?x=1",
        "https://github.com/acme/de%2Fploy",
        "https://github.com//deploy",
        "https://:443/acme/deploy",
        "https://git..acme/acme/deploy",
        "ssh://git@github.com/acme/deploy.git",
        "git@github.com:acme/deploy.git",
        "file:///srv/acme/deploy",
        "https://ann:pa55word@github.com/acme",
        "https://github.com/acme/deploy\n",
    ],
)
def test_an_address_that_names_no_repository_is_refused(github: GitHub, url: str) -> None:
    """It is said at the start, in a sentence that repeats no password."""
    with pytest.raises(ValueError, match="as https://host/owner/name") as caught:
        made(github, url)
    assert "pa55word" not in str(caught.value)


def test_plain_http_is_refused(github: GitHub) -> None:
    """A token that anybody on the way could read is not even asked for."""
    with pytest.raises(
        ValueError, match=r"not sent over plain http://\. Use https://git\.acme\.example/a/b\."
    ):
        made(github, "http://ann:pa55word@git.acme.example/a/b.git", allow_local=False)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "hunter2 hunter2",
        "\udc80 hunter2",
        pem(KEY)[:300],
        pem(KEY, password=b"hunter2"),
        pem(ec.generate_private_key(ec.SECP256R1())),
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    ],
    ids=["nothing", "no key", "no text", "cut off", "passphrase", "no RSA", "public"],
)
def test_what_is_no_key_of_an_app_is_refused(github: GitHub, key: str) -> None:
    """The sentence says which file GitHub gives, and repeats nothing of what it was given."""
    with pytest.raises(ValueError, match="“Generate a private key” on the App's settings page") as caught:
        made(github, private_key=key)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not [line for line in re.findall(r"\S{7,}", key) if line in repr(caught.value)]


def test_a_key_in_either_pem_form_is_accepted(github: GitHub) -> None:
    """GitHub gives PKCS #1; a vault may have made PKCS #8 of it."""
    assert made(github, private_key=pem(KEY, PrivateFormat.PKCS8)).current()
    assert made(github, private_key=f"\n{pem(KEY)}\n").current()
