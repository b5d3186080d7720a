"""The hook: machines report verdicts of checks, signed with keys of their own, and nobody else changes anything."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import target
from conftest import require
from hook_servers import (
    CHECKED,
    DIGEST,
    FIELDS,
    JENKINS,
    KEY,
    OLD_KEY,
    OTHER_KEY,
    SEALER,
    Hook,
    hook_at,
    identity,
    signed,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.config import load
from bot.core import gates
from bot.core.catalog import UNKNOWN, Image
from bot.core.errors import Failed, Unavailable
from bot.core.reporting import CHECKS_PATH, signature
from bot.hook_access import identities
from bot.settings import Settings, SettingsError
from handlers import hook as rim

ROOT = Path(__file__).parents[1]
BODY = json.dumps(FIELDS).encode()
OFTEN = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def hook(redis_url: str) -> AsyncIterator[Hook]:
    async with hook_at(redis_url) as made:
        yield made


# --- what is kept


@pytest.mark.parametrize(("result", "is_open"), [("pass", True), ("fail", False)])
async def test_a_signed_verdict_opens_or_closes_the_gate_of_what_comes_next(
    hook: Hook, result: str, is_open: bool
) -> None:
    """It is kept with its words, sealed by the bot, as the word of this machine, for this very build."""
    status, answer = await hook.report(result=result)
    verdict = "passed" if is_open else "failed"
    assert status == 200
    assert answer == {"ok": True, "sentence": f"Kept: integration {verdict} for manual-app v15 in stage."}
    (report,) = await hook.reports()
    assert SEALER.report_is_genuine(report)
    assert (report.by, report.said, report.link) == ("hook:jenkins", FIELDS["said"], FIELDS["link"])
    image = Image(version="v15", digest=DIGEST)
    integration, smoke = gates.checks(CHECKED, target("stage"), image, [report])
    assert (integration.is_open, smoke.is_open) == (is_open, False)


async def test_a_newer_verdict_takes_the_place_of_an_older_one(hook: Hook) -> None:
    """A check that failed, was repaired and ran again has passed; and the other way round."""
    for result in ("fail", "pass", "fail"):
        assert (await hook.report(result=result))[0] == 200
        (report,) = await hook.reports()
        assert report.passed == (result == "pass")


async def test_a_verdict_without_words_and_link_is_enough(hook: Hook) -> None:
    """Only what decides is needed."""
    assert (await hook.report(said=None, link=None))[0] == 200
    (report,) = await hook.reports()
    assert (report.said, report.link) == ("", "")


# --- which build


@pytest.mark.parametrize(
    ("of_stage", "given_digest", "kept"),
    [
        ({"asks_registry": True}, None, "sha256:" + "e" * 64),
        ({"asks_registry": True}, DIGEST, DIGEST),
        ({"is_tag_only": True}, None, UNKNOWN),
        ({"is_tag_only": True}, DIGEST, UNKNOWN),
        ({"is_tag_only": True, "asks_registry": True}, None, "sha256:" + "e" * 64),
        ({"is_tag_only": True, "digests": ("image.digest",)}, DIGEST, DIGEST),
        ({}, DIGEST, DIGEST),
    ],
)
async def test_a_verdict_is_about_one_build(
    redis_url: str, of_stage: dict[str, Any], given_digest: str | None, kept: str
) -> None:
    """The named digest, else the registry's; where the tag alone is all that the bot knows, none."""
    async with hook_at(redis_url, **of_stage) as hook:
        assert (await hook.report(digest=given_digest))[0] == 200
        (report,) = await hook.reports()
        assert report.image == Image(version="v15", digest=kept)


@pytest.mark.parametrize("of_stage", [{}, {"is_tag_only": True, "digests": ("image.digest",)}], ids=str)
async def test_a_verdict_about_a_tag_alone_is_refused(redis_url: str, of_stage: dict[str, Any]) -> None:
    """A tag can be pushed anew, so a digest must be named where nobody else tells."""
    async with hook_at(redis_url, **of_stage) as hook:
        status, answer = await hook.report(digest=None)
        assert (status, answer["ok"]) == (400, False)
        assert "Name the digest of v15" in answer["sentence"]
        assert not await hook.reports()
        assert not hook.images.asked


# --- deliveries


async def test_the_same_delivery_changes_nothing(hook: Hook) -> None:
    """A machine that never heard the answer asks again, and hears that it was kept."""
    await hook.report(delivery="build-4711")
    kept = await hook.reports()
    status, answer = await hook.report(delivery="build-4711")
    assert (status, answer["ok"], answer["repeated"]) == (200, True, True)
    assert await hook.reports() == kept


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "fail"},
        {"version": "v16"},
        {"check": "smoke"},
        {"digest": "sha256:" + "0" * 64},
        {"said": "other words"},
        {"link": None},
    ],
    ids=str,
)
async def test_the_same_delivery_with_another_body_is_a_conflict(
    hook: Hook, changes: dict[str, str | None]
) -> None:
    """However often it is tried; and the first body still counts as repeated."""
    await hook.report(delivery="build-4711")
    kept = await hook.reports(), await hook.reports("v16")
    for _ in range(2):
        status, answer = await hook.report(delivery="build-4711", **changes)
        assert (status, answer["ok"]) == (409, False)
        assert "under another delivery" in answer["sentence"]
    assert (await hook.reports(), await hook.reports("v16")) == kept
    assert (await hook.report(delivery="build-4711"))[1]["repeated"]


async def test_each_machine_has_its_own_deliveries(redis_url: str) -> None:
    """Two build servers may count from the same number."""
    github = identity("github", keys=(OTHER_KEY,))
    async with hook_at(redis_url, identities=(JENKINS, github)) as hook:
        await hook.report(delivery="build-4711")
        status, answer = await hook.report(delivery="build-4711", name="github", key=OTHER_KEY, result="fail")
        assert (status, "repeated" in answer) == (200, False)
        (report,) = await hook.reports()
        assert (report.by, report.passed) == ("hook:github", False)


async def test_one_delivery_many_times_at_once_is_kept_once(hook: Hook) -> None:
    """Whoever comes first is told so, and all the others that it is repeated."""
    answers = await asyncio.gather(*(hook.report(delivery="build-4711") for _ in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    assert sum("repeated" in answer for _, answer in answers) == 7


# --- who may


FORGERIES: dict[str, dict[str, str | None]] = {
    "an unknown name": {"Promote-Identity": "nobody"},
    "another machine's name": {"Promote-Identity": "github"},
    "no name": {"Promote-Identity": None},
    "another key": signed(BODY, key="x" * 32),
    "another body": signed(BODY + b" "),
    "another delivery": {"Promote-Delivery": "delivery-2"},
    "no delivery": {"Promote-Delivery": None},
    "another time": {"Promote-Timestamp": "1700000000"},
    "no time": {"Promote-Timestamp": None},
    "no signature": {"Promote-Signature": None},
    "an empty signature": {"Promote-Signature": ""},
    "no version of the signature": {"Promote-Signature": signed(BODY)["Promote-Signature"][3:]},
    "capital letters": {"Promote-Signature": "v1=" + signed(BODY)["Promote-Signature"][3:].upper()},
    "no ASCII": {"Promote-Signature": "v1=" + "é" * 64},
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_no_key_has_signed_is_answered_401_in_the_same_words(redis_url: str, forgery: str) -> None:
    """The answer does not tell whether there is somebody of that name."""
    github = identity("github", keys=(OTHER_KEY,))
    async with hook_at(redis_url, identities=(JENKINS, github)) as hook:
        headers = {**signed(BODY), **FORGERIES[forgery]}
        status, answer = await hook.call(
            BODY, {name: text for name, text in headers.items() if text is not None}
        )
        assert status == 401
        assert answer == {
            "ok": False,
            "sentence": "The call is not signed with a key that I know. docs/checks.md says how to sign.",
        }
        assert await hook.everything() == {}


@pytest.mark.parametrize("name", ["jenkins", "rotating", "nobody"])
async def test_every_name_takes_the_same_work(
    redis_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one key, with two, and without any: two signatures are made and compared."""
    made: list[str] = []

    def counted(key: str, **words: Any) -> str:
        made.append(key)
        return signature(key, **words)

    monkeypatch.setattr(rim, "signature", counted)
    rotating = identity("rotating", keys=(OTHER_KEY, OLD_KEY))
    async with hook_at(redis_url, identities=(JENKINS, rotating)) as hook:
        await hook.call(BODY, signed(BODY, name=name, key="x" * 32))
        assert len(made) == 2


@pytest.mark.parametrize(("key", "status"), [(KEY, 200), (OLD_KEY, 200), (OTHER_KEY, 401)])
async def test_the_old_key_counts_while_it_is_set(redis_url: str, key: str, status: int) -> None:
    """So that a key can be changed without a moment in which nobody can report."""
    async with hook_at(redis_url, identities=(identity(keys=(KEY, OLD_KEY)),)) as hook:
        assert (await hook.report(key=key))[0] == status


@pytest.mark.parametrize(("seconds", "status"), [(-310, 401), (-290, 200), (290, 200), (310, 401)])
async def test_a_signature_is_good_for_five_minutes_both_ways(hook: Hook, seconds: int, status: int) -> None:
    """Clocks differ a little; an old call that somebody recorded is refused."""
    hook.clock.ahead = timedelta(seconds=seconds)
    found, answer = await hook.report()
    assert found == status
    assert ("Set the clock" in answer["sentence"]) == (status == 401)
    assert bool(await hook.reports()) == (status == 200)


@pytest.mark.parametrize("timestamp", ["", "now", "-5", "1e9", "²", "9" * 13])
async def test_a_signed_time_that_is_none_is_refused(hook: Hook, timestamp: str) -> None:
    """Who has a key may still send nonsense: it is no error of ours."""
    headers = signed(BODY) | {"Promote-Timestamp": timestamp}
    headers["Promote-Signature"] = signature(
        KEY,
        identity="jenkins",
        timestamp=timestamp,
        delivery="delivery-1",
        method="POST",
        path=CHECKS_PATH,
        body=BODY,
    )
    assert (await hook.call(BODY, headers))[0] == 401


@pytest.mark.parametrize("delivery", ["1234567", "x" * 129, "with space", "with:colon", "with/slash"])
async def test_a_delivery_is_a_short_word(hook: Hook, delivery: str) -> None:
    """8 to 128 characters that need no quoting anywhere."""
    status, answer = await hook.report(delivery=delivery)
    assert (status, answer["sentence"]) == (
        400,
        "A delivery takes 8 to 128 letters, digits, “.”, “_” and “-”.",
    )
    assert not await hook.reports()


async def test_a_signature_is_for_one_address(hook: Hook) -> None:
    """A query that nobody signed is another address."""
    assert (await hook.call(BODY, signed(BODY), CHECKS_PATH + "?check=smoke"))[0] == 401
    assert await hook.everything() == {}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"apps": {"manual-app", "other-app"}, "environments": {"dev", "stage"}}, 200),
        ({"actions": {"check:integration"}}, 200),
        ({"actions": {"check:smoke"}}, 403),
        ({"actions": {"set-image"}}, 403),
        ({"actions": {"set-image:*", "*"}}, 403),
        ({"apps": {"other-app"}}, 403),
        ({"apps": {"*"}}, 403),
        ({"apps": set()}, 403),
        ({"environments": {"dev", "prod"}}, 403),
        ({"environments": set()}, 403),
    ],
    ids=lambda case: (
        str({key: sorted(value) for key, value in case.items()}) if isinstance(case, dict) else str(case)
    ),
)
async def test_a_machine_may_do_what_promote_yaml_says(
    redis_url: str, changes: dict[str, set[str]], status: int
) -> None:
    """App, environment and check have to be among its own, all three."""
    async with hook_at(redis_url, identities=(identity(**changes),)) as hook:
        assert (await hook.report())[0] == status
        assert bool(await hook.reports()) == (status == 200)


# --- properties


HEADERS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=90)
NAMES = st.sampled_from(["jenkins", "rotating"])


@OFTEN
@given(
    name=NAMES | HEADERS,
    timestamp=st.just(None) | HEADERS,
    delivery=st.just("delivery-1") | HEADERS,
    proof=st.from_regex(r"v1=[0-9a-f]{64}", fullmatch=True) | HEADERS,
    body=st.just(BODY) | st.binary(max_size=300),
    key=st.none() | st.text(max_size=40).filter(lambda key: key not in (KEY, OTHER_KEY, OLD_KEY)),
)
async def test_without_the_right_key_nothing_changes(
    redis_url: str, name: str, timestamp: str | None, delivery: str, proof: str, body: bytes, key: str | None
) -> None:
    """Whatever is in headers and body, and whatever other key signs it: 401, and not a byte in the store."""
    rotating = identity("rotating", keys=(OTHER_KEY, OLD_KEY))
    async with hook_at(redis_url, identities=(JENKINS, rotating)) as hook:
        headers = signed(body, key=key or "", name=name, delivery=delivery)
        if key is None:
            headers["Promote-Signature"] = proof
        if timestamp is not None:
            headers["Promote-Timestamp"] = timestamp
        assert (await hook.call(body, headers))[0] == 401
        assert await hook.everything() == {}


@OFTEN
@given(data=st.data())
async def test_a_signed_request_with_another_byte_is_refused(redis_url: str, data: st.DataObject) -> None:
    """In method, path, body, name, time, delivery or signature: it is the caller's error, and nothing is kept."""
    parts = {"method": b"POST", "path": CHECKS_PATH.encode(), "body": BODY}
    parts |= {name: text.encode() for name, text in signed(BODY).items() if name.startswith("Promote-")}
    part = data.draw(st.sampled_from(sorted(parts)))
    place = data.draw(st.integers(0, len(parts[part]) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != parts[part][place]))
    changed = bytearray(parts[part])
    changed[place] = other
    async with hook_at(redis_url) as hook:
        assert await sent(hook, parts | {part: bytes(changed)}) in (400, 401, 404, 405)
        assert await hook.everything() == {}


async def test_the_same_bytes_as_they_were_signed_are_taken(hook: Hook) -> None:
    """What the property above changes one byte of is a good request."""
    parts = {"method": b"POST", "path": CHECKS_PATH.encode(), "body": BODY}
    parts |= {name: text.encode() for name, text in signed(BODY).items() if name.startswith("Promote-")}
    assert await sent(hook, parts) == 200


async def sent(hook: Hook, parts: dict[str, bytes]) -> int:
    """Send these very bytes; returns the status."""
    headers = [name.encode() + b": " + text for name, text in parts.items() if name.startswith("Promote-")]
    lines = [
        parts["method"] + b" " + parts["path"] + b" HTTP/1.1",
        b"Host: localhost",
        b"Connection: close",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(parts["body"]),
        *headers,
    ]
    port = int(hook.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + parts["body"])
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


# --- what a body may hold


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b'{"app": "\xff"}', "no JSON in UTF-8"),
        (BODY.decode().encode("utf-16"), "no JSON in UTF-8"),
        (b"[]", "one JSON object"),
        (b'"pass"', "one JSON object"),
        (b'{"app": {"name": "x"}}', "every value in it text"),
        (b'{"app": NaN}', "every value in it text"),
        (b"[" * 16_000, "too many brackets"),
        (b'{"a":' * 3_000, "too many brackets"),
        (b"[" * 399, "no JSON"),
        (b"1" * 16_000, "no JSON"),
        (b"{}", "must hold app, check, environment, result, version"),
    ],
    ids=lambda value: str(value[:24]),
)
async def test_a_body_is_one_flat_object(hook: Hook, body: bytes, says: str) -> None:
    """Whatever else it is, it is answered 400, however deep it is nested."""
    status, answer = await hook.call(body, signed(body))
    assert status == 400
    assert says in answer["sentence"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"check": None}, "must hold app"),
        ({"more": "x"}, "nothing else"),
        ({"result": "passed"}, "pass or fail"),
        ({"result": True}, "every value in it text"),
        ({"version": "v 15"}, "not a version"),
        ({"version": f"v15@{DIGEST}"}, "not a version"),
        ({"digest": "sha256:dd"}, "digest takes sha256:"),
        ({"digest": DIGEST.upper()}, "digest takes sha256:"),
        ({"check": "Integration"}, "check takes a name"),
        ({"said": "two\nlines"}, "said takes one line"),
        ({"said": "\u202eback"}, "said takes one line"),
        ({"said": "\ud800"}, "said takes one line"),
        ({"said": "x" * 301}, "said takes one line of at most 300"),
        ({"link": "ftp://ci.example.com"}, "link takes an address"),
        ({"link": "javascript:alert(1)"}, "link takes an address"),
        ({"link": "https://bob:secret@ci.example.com/"}, "link takes an address"),
        ({"link": "https://ci.example.com/|Approved>"}, "link takes an address"),
        ({"link": "https://ci.example.com/ x"}, "link takes an address"),
        ({"link": "https://ci.example.com/" + "x" * 500}, "link takes an address of at most 500"),
    ],
    ids=str,
)
async def test_what_a_field_cannot_hold_is_answered_400(
    hook: Hook, changes: dict[str, Any], says: str
) -> None:
    """Before anything is kept, and with the rule."""
    status, answer = await hook.report(**changes)
    assert (status, answer["ok"]) == (400, False)
    assert says in answer["sentence"]
    assert not await hook.reports()


@pytest.mark.parametrize(
    "changes",
    [{"said": "x" * 300}, {"said": "größer, 2 × so schnell 🚀 [[{{"}, {"link": "https://[::1]:8443#x"}],
    ids=str,
)
async def test_what_a_field_can_just_hold_is_kept(hook: Hook, changes: dict[str, str]) -> None:
    """Whole, to the last character."""
    assert (await hook.report(**changes))[0] == 200
    (report,) = await hook.reports()
    assert changes.items() <= {"said": report.said, "link": report.link}.items()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"app": "manual-ap"}, "Did you mean “manual-app”?"),
        ({"environment": "stag"}, "Did you mean “stage”?"),
        ({"check": "unit"}, "does not ask for a check called “unit”, only for integration, smoke."),
        ({"environment": "dev"}, "comes after manual-app/dev does not ask for a check"),
        ({"environment": "prod"}, "comes after manual-app/prod does not ask for a check"),
    ],
    ids=str,
)
async def test_a_verdict_that_nobody_waits_for_is_answered_404(
    redis_url: str, changes: dict[str, str], says: str
) -> None:
    """A wrong name would close a gate for ever, and the build would be green."""
    everywhere = identity(apps={"manual-app", "manual-ap"}, environments={"dev", "stage", "stag", "prod"})
    async with hook_at(redis_url, identities=(everywhere,)) as hook:
        status, answer = await hook.report(**changes)
        assert status == 404
        assert says in answer["sentence"]
        assert not await hook.reports()


# --- what the rim does not take


async def test_a_body_over_16_kib_is_answered_413(hook: Hook) -> None:
    """Signed or not, and before it is read to its end."""
    body = b" " * (16 * 1024 + 1)
    assert (await hook.call(body, signed(body)))[0] == 413
    assert (await hook.call(body[1:], signed(body[1:])))[0] == 400


@pytest.mark.parametrize(
    "header",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Encoding": "identity"},
    ],
)
async def test_another_kind_of_body_is_answered_415(hook: Hook, header: dict[str, str]) -> None:
    """It is JSON, and what is signed is what is sent."""
    assert (await hook.call(BODY, signed(BODY) | header))[0] == 415
    assert await hook.everything() == {}


async def test_sixty_calls_a_minute_are_enough_for_each(redis_url: str) -> None:
    """The next one is answered 429 and asks no registry; another machine is not held up."""
    github = identity("github", keys=(OTHER_KEY,))
    async with hook_at(redis_url, identities=(JENKINS, github), asks_registry=True) as hook:
        for _ in range(60):
            assert (await hook.report(digest=None))[0] == 200
        status, answer = await hook.report(digest=None)
        assert (status, answer["ok"], hook.retry_after) == (429, False, "60")
        assert len(hook.images.asked) == 60
        assert (await hook.report(digest=None, name="github", key=OTHER_KEY))[0] == 200


async def test_where_the_store_is_away_it_is_answered_503() -> None:
    """With the time after which it may be tried again, and never as if it had been kept."""
    async with hook_at("redis://127.0.0.1:1") as hook:
        status, answer = await hook.report()
        assert (status, answer["ok"], hook.retry_after) == (503, False, "5")


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Unavailable("the registry", "no answer"), 503, "5"),
        (Unavailable("the registry", "too many calls", retry_after=11.2), 503, "12"),
        (Failed("images.example.com has no manual-app:v15."), 409, None),
    ],
)
async def test_what_the_registry_cannot_tell_is_not_kept(
    redis_url: str, error: Exception, status: int, retry_after: str | None
) -> None:
    """Away: try again later. Not there: somebody has to act."""
    async with hook_at(redis_url, asks_registry=True) as hook:
        hook.images.error = error
        found, answer = await hook.report(digest=None)
        assert (found, answer["sentence"]) == (status, str(error))
        assert not await hook.reports()
        assert hook.retry_after == retry_after


async def test_no_key_and_no_signature_is_logged(hook: Hook) -> None:
    """Neither of a good call nor of a bad one."""
    with capture_logs() as logs:
        await hook.report()
        await hook.report(key=OTHER_KEY)
        await hook.report(version="v 15")
    text = repr(logs)
    assert [line["event"] for line in logs] == ["check reported", "hook refused", "hook refused"]
    assert not [word for word in (KEY, OTHER_KEY, "v1=") if word in text]
    assert KEY not in repr(JENKINS)


# --- who is known


def config(tmp_path: Path, hooks: str) -> Any:
    """The example with these hooks."""
    text = (ROOT / "promote.yaml").read_text("utf-8")
    text = re.sub(r"(?m)^hooks:.*(\n[ #].*)*\n?", "", text)
    file = tmp_path / "promote.yaml"
    file.write_text(f"{text}\nhooks: {hooks}\n")
    return load(file)


MACHINE = '{apps: [manual-app], environments: ["*"], actions: ["check:*"]}'


def test_machines_come_from_promote_yaml_and_their_keys_from_the_environment(tmp_path: Path) -> None:
    """The new key, and while it changes the one before it; also out of a file. “*” stands for all that there is."""
    file = tmp_path / "key"
    file.write_text(f"{OTHER_KEY}\n")
    environ = {
        "HOOK_KEY_JENKINS": KEY,
        "HOOK_KEY_JENKINS_OLD": OLD_KEY,
        "HOOK_KEY_GITHUB_ACTIONS_FILE": str(file),
        "HOOK_KEY": "for nobody, whoever it is for",
    }
    found = identities(
        Settings(environ=environ), config(tmp_path, f"{{jenkins: {MACHINE}, github-actions: {MACHINE}}}")
    )
    jenkins = identity(keys=(KEY, OLD_KEY), environments={"dev", "stage", "prod"})
    assert found == (jenkins, replace(jenkins, name="github-actions", keys=(OTHER_KEY,)))
    assert identities(Settings(environ={}), config(tmp_path, "{}")) == ()


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "HOOK_KEY_JENKINS is not set"),
        ({"HOOK_KEY": KEY}, "HOOK_KEY_JENKINS is not set"),
        ({"HOOK_KEY_JENKINS": "k" * 31}, "HOOK_KEY_JENKINS must have at least 32 characters"),
        (
            {"HOOK_KEY_JENKINS": KEY, "HOOK_KEY_JENKINS_OLD": "k" * 31},
            "HOOK_KEY_JENKINS_OLD must have at least 32 characters",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    """Missing or short: the setting is named, and no key is."""
    with pytest.raises(SettingsError) as caught:
        identities(Settings(environ=environ), config(tmp_path, f"{{jenkins: {MACHINE}}}"))
    assert says in str(caught.value)
    assert "kkk" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "environ"),
    [
        ("github", {"HOOK_KEY_JENKINS": KEY, "HOOK_KEY_GITHUB": KEY}),
        ("github", {"HOOK_KEY_JENKINS": OTHER_KEY, "HOOK_KEY_JENKINS_OLD": KEY, "HOOK_KEY_GITHUB": KEY}),
        ("jenkins-old", {"HOOK_KEY_JENKINS": OTHER_KEY, "HOOK_KEY_JENKINS_OLD": KEY}),
    ],
)
def test_no_machine_can_speak_as_another(tmp_path: Path, other: str, environ: dict[str, str]) -> None:
    """One key for two, also where the name of one makes its key the old key of the other."""
    hooks = f"{{jenkins: {MACHINE}, {other}: {MACHINE}}}"
    with pytest.raises(SettingsError, match=f"{other} could speak as jenkins") as caught:
        identities(Settings(environ=environ), config(tmp_path, hooks))
    assert "kkk" not in str(caught.value)


# --- what the documentation says


async def test_the_documented_lines_report_a_check(hook: Hook) -> None:
    """The shell lines of docs/checks.md, run as they stand there, with openssl and curl."""
    bash, _, _ = (require(binary, binary) for binary in ("bash", "openssl", "curl"))
    text = (ROOT / "docs" / "checks.md").read_text("utf-8")
    (script,) = re.findall(r"```sh\n(body=.*?)```", text, re.DOTALL)
    settings = {"PROMOTE_URL": hook.url, "HOOK_NAME": "jenkins", "HOOK_KEY": KEY, "DIGEST": DIGEST}
    ran = await asyncio.to_thread(
        subprocess.run,
        [str(bash), "-eu", "-c", script],
        env={"PATH": "/usr/bin:/bin", **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, json.loads(ran.stdout)["ok"]) == (0, True), ran.stderr
    (report,) = await hook.reports()
    assert (report.passed, report.image.digest) == (True, DIGEST)
