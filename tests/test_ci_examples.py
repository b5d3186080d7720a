"""The examples for build servers: each passes its own linter or parser, and its shell is run against a real bot."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_groovy
import yaml
from ci_world import KEY, BuildServer, hearing_machines
from conftest import require
from tree_sitter import Language, Node, Parser
from world import World, world_in

from bot.core.promotion import Phase

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "ci"
SCRIPT = EXAMPLES / "deliver.sh"
JENKINSFILE = EXAMPLES / "Jenkinsfile"
GITHUB = EXAMPLES / "github-actions.yaml"
GITLAB = EXAMPLES / "gitlab-ci.yml"
MACHINES = {
    name: {"apps": ["manual-app"], "environments": ["dev"], "actions": ["set-image"]}
    for name in ("jenkins", "github", "gitlab")
}
KEYS = {"HOOK_KEY_JENKINS": KEY, "HOOK_KEY_GITHUB": KEY + "-2", "HOOK_KEY_GITLAB": KEY + "-3"}
SUBJECT = 'Fix "the login": 50 % \\ of it, für alle\' Fälle $HOME `id`'
SECTIONS = {"agent", "environment", "options", "parameters", "post", "stages", "tools", "triggers"}
"""What may stand in a declarative pipeline."""


class SystemClock:
    """The build server's own: a script signs with the time that it is."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
async def world(tmp_path: Path, redis_url: str) -> AsyncIterator[World]:
    async with world_in(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
async def bot(world: World) -> AsyncIterator[BuildServer]:
    async with hearing_machines(world, environ=KEYS, clock=SystemClock(), hooks=MACHINES) as server:
        yield server


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The app's own repository on a build server, with the script in it."""
    require("curl", "curl")
    require("openssl", "openssl")
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "deliver.sh").write_bytes(SCRIPT.read_bytes())
    (folder / "deliver.sh").chmod(0o755)
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", SUBJECT]):
        subprocess.run(
            ["git", "-c", "user.name=Sam", "-c", "user.email=sam@acme.example", *words],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull},
            check=True,
        )
    return folder


async def run(*command: str, at: Path, **environ: str) -> tuple[int, str]:
    """Run it on the build server; its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=at,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return await process.wait(), said.decode()


# --- each by its own linter


def lint(*command: str) -> None:
    """Run a linter of the development tools; it must have nothing to say."""
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_of_github_is_one() -> None:
    """By GitHub's own schema of workflows."""
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(GITHUB))


def test_the_pipeline_of_gitlab_is_one() -> None:
    """By GitLab's own schema of pipelines."""
    lint(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.gitlab-ci",
        "--data-transform",
        "gitlab-ci",
        str(GITLAB),
    )


def test_the_script_is_sound_shell() -> None:
    """By the shell's own parser, and by ShellCheck."""
    subprocess.run(["sh", "-n", SCRIPT], check=True)
    lint("shellcheck", str(SCRIPT))


def test_the_shell_within_the_pipelines_is_sound(tmp_path: Path) -> None:
    """What stands in a string of another language is shell all the same."""
    for name, text in (
        ("jenkins", jenkins_steps()),
        ("github", github_steps()[1]),
        ("gitlab", gitlab_steps()[1]),
    ):
        script = tmp_path / f"{name}.sh"
        script.write_text(f"#!/bin/{'sh' if name == 'jenkins' else 'bash'}\n{text}")
        lint("shellcheck", str(script))


def test_the_jenkinsfile_is_a_declarative_pipeline() -> None:
    """There is no linter without a Jenkins; its Groovy is parsed, and its sections are those of such a pipeline."""
    root = parsed(JENKINSFILE.read_bytes())
    assert not root.has_error
    [pipeline] = [each for each in root.named_children if each.type != "line_comment"]
    assert called(pipeline) == "pipeline"
    sections = [called(each) for each in statements(pipeline)]
    assert {"agent", "stages"} <= set(sections) <= SECTIONS
    assert len(sections) == len(set(sections))
    stages = next(each for each in statements(pipeline) if called(each) == "stages")
    for stage in statements(stages):
        assert called(stage) == "stage"
        assert [called(each) for each in statements(stage)] == ["steps"]


@pytest.mark.parametrize("broken", ["pipeline { agent any", "pipeline { stages { stage('a' { } } }"])
def test_the_parser_of_groovy_finds_what_is_broken(broken: str) -> None:
    """So that the test above says something."""
    assert parsed(broken.encode()).has_error


# --- run against a bot


@pytest.mark.parametrize("name", ["jenkins", "github", "gitlab"])
async def test_the_shell_of_an_example_delivers_a_build(
    world: World, bot: BuildServer, checkout: Path, name: str
) -> None:
    """The steps themselves, with what that build server sets: the build becomes a promotion and goes live."""
    command, environ = steps_of(name, bot.url)
    code, said = await run(*command, at=checkout, **environ)
    assert code == 0, said
    [promotion] = await world.store.history(world.target("dev"))
    assert f'"promotion": "{promotion.id}"' in said
    assert (promotion.version, promotion.requested_by.id) == (environ["VERSION"], f"hook:{name}")
    assert promotion.reason == SUBJECT
    assert promotion.build == LINKS[name]
    code, again = await run(*command, at=checkout, **environ)
    assert (code, '"repeated": true' in again) == (0, True)
    assert (await world.rest(promotion.id)).phase is Phase.LIVE
    assert environ["HOOK_KEY"] not in said


async def test_the_script_fails_with_the_bots_own_sentence(bot: BuildServer, checkout: Path) -> None:
    """A build server shows why, and the job is red."""
    command, environ = steps_of("jenkins", bot.url)
    environ["HOOK_NAME"] = "gitlab"
    code, said = await run(*command, at=checkout, **environ)
    assert code != 0
    assert "The call is not signed with a key that I know" in said


async def test_the_script_can_be_given_any_words(world: World, bot: BuildServer, checkout: Path) -> None:
    """Quotes, line breaks and controls in a reason end no text, and long names of runs fit."""
    _, environ = steps_of("jenkins", bot.url)
    environ |= {
        "DELIVERY": "jenkins-" + "feature%2F" * 30 + "17",
        "REASON": 'one "two"\nthree\\four\t\x01five, "version":"18"',
        "DIGEST": "sha256:" + "d" * 64,
        "LINK": "",
    }
    code, said = await run("./deliver.sh", "manual-app", "dev", "17", at=checkout, **environ)
    assert code == 0, said
    [promotion] = await world.store.history(world.target("dev"))
    assert promotion.reason == 'one "two" three\\four five, "version":"18"'
    assert (promotion.version, promotion.digest) == ("17", environ["DIGEST"])


@pytest.mark.parametrize("missing", ["PROMOTE_URL", "HOOK_NAME", "HOOK_KEY", "DELIVERY"])
async def test_the_script_says_what_is_missing(bot: BuildServer, checkout: Path, missing: str) -> None:
    """Before anything is sent."""
    _, environ = steps_of("jenkins", bot.url)
    environ |= {"DELIVERY": "jenkins-17"}
    del environ[missing]
    code, said = await run("./deliver.sh", "manual-app", "dev", "17", at=checkout, **environ)
    assert code != 0
    assert missing in said


async def test_the_curl_line_of_the_guide_delivers_a_build(
    world: World, bot: BuildServer, checkout: Path
) -> None:
    """What people copy from the guide works as it stands."""
    [line] = re.findall(r"```sh\n(body=.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    environ = {"PROMOTE_URL": bot.url, "HOOK_NAME": "jenkins", "HOOK_KEY": KEY, "BUILD_TAG": "jenkins-app-17"}
    code, said = await run("sh", "-eu", "-c", line, at=checkout, VERSION="17", **environ)
    assert code == 0, said
    [promotion] = await world.store.history(world.target("dev"))
    assert f'"promotion": "{promotion.id}"' in said


# --- the steps

LINKS = {
    "jenkins": "https://ci.example.com/job/app/17/",
    "github": "https://github.com/acme/app/actions/runs/4711",
    "gitlab": "https://gitlab.com/acme/app/-/pipelines/4711",
}


def steps_of(name: str, url: str) -> tuple[list[str], dict[str, str]]:
    """How a build server runs the example's delivery, and the environment that it runs in."""
    if name == "jenkins":
        own = {
            "BUILD_TAG": "jenkins-app-17",
            "BUILD_URL": LINKS[name],
            "VERSION": "17",
            "HOOK_NAME": "jenkins",
        }
        return ["sh", "-xe", "-c", jenkins_steps()], own | {"PROMOTE_URL": url, "HOOK_KEY": KEY}
    if name == "github":
        environ, text = github_steps()
        own = {
            "GITHUB_RUN_ID": "4711",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "acme/app",
            "VERSION": "v17",
            "HOOK_KEY": KEYS["HOOK_KEY_GITHUB"],
        }
        return ["bash", "-e", "-c", text], dict(environ) | own | {"PROMOTE_URL": url}
    environ, text = gitlab_steps()
    own = {
        "CI_PROJECT_ID": "42",
        "CI_PIPELINE_ID": "4711",
        "CI_PIPELINE_URL": LINKS[name],
        "CI_COMMIT_TITLE": SUBJECT,
        "VERSION": "v17",
        "HOOK_KEY": KEYS["HOOK_KEY_GITLAB"],
    }
    return ["bash", "-eo", "pipefail", "-c", text], dict(environ) | own | {"PROMOTE_URL": url}


def github_steps() -> tuple[Mapping[str, str], str]:
    """The environment and the shell of the last step."""
    step = yaml.safe_load(GITHUB.read_text())["jobs"]["deliver"]["steps"][-1]
    return step["env"], step["run"]


def gitlab_steps() -> tuple[Mapping[str, str], str]:
    """The variables and the shell of the job that delivers."""
    job = yaml.safe_load(GITLAB.read_text())["deliver to dev"]
    return job["variables"], "\n".join(job["script"])


def jenkins_steps() -> str:
    """The shell of the stage that delivers, as Groovy reads the text."""
    text = JENKINSFILE.read_bytes()
    stage = next(
        node
        for node in walked(parsed(text))
        if node.type == "method_invocation" and node.text.startswith(b"stage('Deliver to dev')")
    )
    [shell] = re.findall(r"sh '''(.*?)'''", stage.text.decode(), re.DOTALL)
    return shell.replace("\\\\", "\\")


def parsed(text: bytes) -> Node:
    """The Groovy as a tree."""
    return Parser(Language(tree_sitter_groovy.language())).parse(text).root_node


def walked(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in node.children:
        yield from walked(child)


def statements(node: Node) -> list[Node]:
    """What stands within the braces that belong to a statement."""
    closure = next(each for each in walked(node) if each.type == "closure")
    return [each for each in closure.named_children if each.type != "line_comment"]


def called(statement: Node) -> str:
    """The first word of a statement."""
    found: Any = re.match(rb"\w+", statement.text)
    return found[0].decode()
