"""The command line, as a process: what it prints and how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bot.integrations.slack import HISTORY_SCOPES, SCOPES
from bot.playground.workshop import AMY, Workshop
from handlers.manifest import SOURCE, manifest

ROOT = Path(__file__).parents[1]


def bot(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bot …` with nothing but these settings."""
    return subprocess.run(
        [sys.executable, "-m", "bot", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_json_schema_in_the_repository_is_fresh() -> None:
    """Editors read promote.schema.json; `python -m bot schema > promote.schema.json` renews it."""
    printed = bot("schema").stdout
    assert json.loads(printed) == json.loads((ROOT / "promote.schema.json").read_text())


def test_edit_prints_the_file_with_one_value_changed(tmp_path: Path) -> None:
    """Every byte but the value stays, and the file itself is left alone without --in-place."""
    file = tmp_path / "values.yaml"
    file.write_bytes(b"# top\r\nimage: {tag: 14 , pull: Always}   # keep\r\n")
    done = subprocess.run(
        [sys.executable, "-m", "bot", "edit", str(file), "image.tag", "1.10"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b'# top\r\nimage: {tag: "1.10" , pull: Always}   # keep\r\n'
    assert b"tag: 14 " in file.read_bytes()


def test_edit_in_place_writes_the_file(tmp_path: Path) -> None:
    """With --in-place the file holds the new value, and nothing is printed."""
    file = tmp_path / "values.yaml"
    file.write_text("image:\n  tag: v1\n")
    done = bot("edit", str(file), "image.tag", "v2", "--in-place")
    assert (done.returncode, done.stdout) == (0, "")
    assert file.read_text() == "image:\n  tag: v2\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("image.tagg", "v2"), "Did you mean “tag”?"),
        (("image.tag", "v 2"), "not a version"),
    ],
)
def test_edit_refuses_with_a_sentence_and_exit_code_1(
    tmp_path: Path, words: tuple[str, str], says: str
) -> None:
    """A wrong key or version is named; there is no traceback and the file is as it was."""
    file = tmp_path / "values.yaml"
    file.write_text("image:\n  tag: v1\n")
    done = bot("edit", str(file), *words, "--in-place")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_text() == "image:\n  tag: v1\n"


@pytest.mark.parametrize("part", ["web", "worker"])
def test_web_and_worker_refuse_to_start_without_a_store_between_them(part: str) -> None:
    """Two processes with a store of their own each would never meet."""
    done = bot(part)
    assert done.returncode == 1
    assert done.stderr.startswith("REDIS_URL is not set")


def test_the_demo_refuses_to_start_beside_real_settings() -> None:
    """What simulates everything must not meet anything real."""
    done = bot("demo", SLACK_BOT_TOKEN="xoxb-real")
    assert done.returncode == 1
    assert "SLACK_BOT_TOKEN" in done.stderr
    assert "xoxb-real" not in done.stderr


def test_the_manifest_asks_for_exactly_the_scopes_that_the_code_needs() -> None:
    """A scope that nothing uses is a risk; one that is missing is a failure at the worst moment."""
    scopes = YAML(typ="safe").load(SOURCE.read_text())["oauth_config"]["scopes"]["bot"]
    assert frozenset(scopes) == SCOPES
    assert len(scopes) == len(SCOPES)


@pytest.mark.parametrize("url", [None, "https://bot.acme.example"])
def test_the_manifest_reads_channels_only_where_somebody_asks_for_it(url: str | None) -> None:
    """Reading messages is a right that many companies do not give; everything but one thing works without it."""

    def scopes(*more: str) -> set[str]:
        document = YAML(typ="safe").load(manifest(url, more_scopes=more))
        return {*document["oauth_config"]["scopes"]["bot"]}

    assert not HISTORY_SCOPES & scopes()
    assert scopes(*HISTORY_SCOPES) == SCOPES | HISTORY_SCOPES


def test_the_manifest_declares_no_surface_without_a_listener() -> None:
    """A Home tab, a shortcut or an event that nobody answers looks broken to people."""
    document = YAML(typ="safe").load(SOURCE.read_text())
    assert set(document["features"]) == {"bot_user", "slash_commands"}
    assert [command["command"] for command in document["features"]["slash_commands"]] == ["/promote"]
    assert "event_subscriptions" not in document["settings"]


def test_the_manifest_for_http_sends_everything_to_one_address() -> None:
    """The two manifests differ in nothing but how Slack reaches the bot."""
    http = YAML(typ="safe").load(manifest("https://bot.example.com/"))
    socket = YAML(typ="safe").load(manifest())
    events = "https://bot.example.com/slack/events"
    assert http["features"]["slash_commands"][0].pop("url") == events
    assert http["settings"]["interactivity"].pop("request_url") == events
    assert http["settings"].pop("socket_mode_enabled") is False
    assert socket["settings"].pop("socket_mode_enabled") is True
    assert http == socket


def test_the_manifest_refuses_an_address_that_slack_would_not_take() -> None:
    """Slack sends to https only."""
    done = bot("manifest", "--url", "http://bot.example.com")
    assert (done.returncode, done.stdout) == (1, "")
    assert "https://" in done.stderr


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    """The world without the bot."""
    world = Workshop(tmp_path)
    await world.start(with_bot=False)
    yield world
    await world.stop()


async def test_check_tries_everything_and_finds_it_in_place(workshop: Workshop) -> None:
    """Each line of promote.yaml and each credential is tried, and the exit code is 0."""
    code, said = await workshop.command_line("check")
    assert code == 0, said
    for what in ("configuration", "secrets", "store", "slack: token", AMY, "git: gitops", "argo cd: main"):
        assert what in said
    assert "values-prod.yaml: image.tag is 14" in said
    assert "manual-app/prod: manual-app-prod" in said
    assert 'namespaces="git" ssh-ed25519 AAAA' in said


async def test_check_names_what_is_wrong_and_exits_1(workshop: Workshop) -> None:
    """A missing scope, a deactivated approver, a wrong key, an application that is not there: each has its line."""
    workshop.slack.api.scopes = frozenset({"commands", "chat:write", "users:read"})
    workshop.slack.user(AMY).kind = "deactivated"
    workshop.argocd.forbidden.add("manual-app-stage")
    config = workshop.folder / "promote.yaml"
    config.write_text(config.read_text().replace("image.tag", "image.tagg"))
    code, said = await workshop.command_line("check")
    assert code == 1
    errors = [line for line in said.splitlines() if line.startswith("error")]
    for what in ("usergroups:read", "deactivated", "Did you mean “tag”?", "manual-app-stage"):
        assert any(what in line for line in errors), (what, said)


async def test_check_says_how_to_make_the_key_that_signs(workshop: Workshop) -> None:
    """Where prod needs approvals its commits are signed, unless the repository says otherwise."""
    Path(workshop.environment()["GIT_SIGNING_KEY"]).unlink()
    _, said = await workshop.command_line("check")
    assert "GIT_SIGNING_KEY" in said
    assert "Traceback" not in said


async def test_ci_writes_the_first_environment_and_no_other(workshop: Workshop) -> None:
    """What CI has built enters the chain in dev; later environments take a promotion."""
    code, said = await workshop.command_line("set-image", "manual-app", "dev", "15")
    assert (code, said.startswith("dev: 14 → 15")) == (0, True)
    code, said = await workshop.command_line("set-image", "manual-app", "dev", "15")
    assert (code, said) == (0, "dev already holds 15; nothing to do.")
    code, said = await workshop.command_line("set-image", "manual-app", "prod", "15")
    assert code == 1
    assert "takes a promotion" in said


async def test_two_ci_jobs_at_once_leave_one_version_and_a_clear_answer(workshop: Workshop) -> None:
    """Whoever loses the race is told what was written; nothing is overwritten unseen."""
    answers = await asyncio.gather(
        *(workshop.command_line("set-image", "manual-app", "dev", version) for version in ("15", "16"))
    )
    assert any(code == 0 for code, _ in answers)
    for code, said in answers:
        assert code == 0 or "Somebody else wrote" in said
