"""What the house promises of its own code, and of its logs."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.telemetry import Redactor

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "bot").rglob("*.py"), *(ROOT / "handlers").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def tree(file: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""


def public(node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    """Every public class, function and method, with the docstring's owner."""
    for child in node.body:
        if not isinstance(child, Function | ast.ClassDef) or child.name.startswith("_"):
            continue
        if any(ast.unparse(each).endswith((".setter", "overload")) for each in child.decorator_list):
            continue  # its property, or the function itself, tells what it is
        yield child.name, child
        if isinstance(child, ast.ClassDef):
            yield from ((f"{child.name}.{name}", inner) for name, inner in public(child))


def test_no_question_is_left_behind() -> None:
    """What is asked side by side goes by `together`: `asyncio.gather` lets the others go on where one has failed."""
    calls = [
        (file.name, ast.unparse(node))
        for file in CODE
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.gather"
    ]
    assert len(calls) > 5
    assert not [
        each for each in calls if "return_exceptions=True" not in each[1] and "aclose()" not in each[1]
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "bot" / "core").glob("*.py")), ids=lambda file: file.name)
def test_the_core_imports_the_standard_library_alone(file: Path) -> None:
    """The rules need no package and no other part of the bot, so they can be read and tested by themselves."""
    foreign = {
        name
        for name in imports(file)
        if name.partition(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith("bot.core.")
    }
    assert not foreign


def test_the_core_does_no_input_or_output() -> None:
    """No file, socket, process or clock of the machine: all of that stands behind ports."""
    outside = {
        "os",
        "io",
        "pathlib",
        "socket",
        "subprocess",
        "ssl",
        "http",
        "urllib",
        "time",
        "logging",
        "sys",
    }
    found = {
        f"{file.name} imports {name}"
        for file in (ROOT / "bot" / "core").glob("*.py")
        for name in imports(file)
        if name.partition(".")[0] in outside
    }
    assert not found


def test_what_is_public_says_what_it_is() -> None:
    """Every module, and every public class, function and method of the bot, has a docstring."""
    silent = []
    for file in CODE:
        module = tree(file)
        named = [("the module", module), *public(module)]
        silent += [f"{file.relative_to(ROOT)}: {name}" for name, node in named if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert not silent


def test_every_test_states_its_rule() -> None:
    """A test's name is a claim, and one sentence below it says which rule it proves."""
    silent = [
        f"{file.name}: {node.name}"
        for file in TESTS
        for node in ast.walk(tree(file))
        if isinstance(node, Function) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_every_test_file_says_what_it_is_about() -> None:
    """The first line of a test file tells what is tested."""
    assert [file.name for file in TESTS if not ast.get_docstring(tree(file))] == []


def project_files() -> list[Path]:
    """Every text file of the project, as a clone would hold it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:8000]]


def test_no_file_names_a_package_index() -> None:
    """Where packages come from is the business of whoever installs: locks and settings name no address of one."""
    hosts = [".".join(words) for words in (("pypi", "org"), ("python" + "hosted", "org"), ("npmjs", "org"))]
    options = [
        f"{first}{joined}{second}"
        for joined in "-_"
        for first, second in (("index", "url"), ("find", "links"))
    ]
    found = [
        f"{file.relative_to(ROOT)} names {word}"
        for file in project_files()
        for word in (*hosts, *options)
        if word in file.read_text(encoding="utf-8").lower()
    ]
    assert not found


LOGGING = """
import logging, os, structlog
from bot.telemetry import set_up

set_up([os.environ["TOLD"]])
log = structlog.get_logger("promote")
log.info("told", value="a-told-secret-1234", nested={"deep": ["a-told-secret-1234"]})
log.info("url", url="https://bob:hunter2secret@git.example.com/x.git?y=1")
log.info("tokens", text="xoxb-1-AbC xapp-1-A-2 ghp_abcDEF123 glpat-x_y-z eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl")
logging.getLogger("some.library").warning("cloning %s", "https://x:hunter2secret@host/y")
try:
    raise RuntimeError("could not use a-told-secret-1234")
except RuntimeError:
    log.exception("broke", by="a-told-secret-1234")
    logging.getLogger("some.library").exception("broke too")
log.info("plain", app="manual-app", mail="dana@example.com", revision="c" * 40)
"""
HIDDEN = ["a-told-secret-1234", "hunter2secret", "xoxb-1", "xapp-1", "ghp_abc", "glpat-x", "eyJhbG"]


def test_no_secret_reaches_a_log_line() -> None:
    """Our logs and the libraries', arguments, nested values and tracebacks: each line is JSON without secrets."""
    ran = subprocess.run(
        [sys.executable, "-c", LOGGING],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TOLD": "a-told-secret-1234"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"].split()[0] for line in lines] == [
        *("told", "url", "tokens", "cloning", "broke", "broke", "plain")
    ]
    assert not [secret for secret in HIDDEN if secret in ran.stderr + ran.stdout]
    assert lines[1]["url"] == "https://***@git.example.com/x.git?y=1"
    assert "RuntimeError" in lines[4]["exception"]
    assert (lines[6]["app"], lines[6]["mail"], lines[6]["revision"]) == (
        "manual-app",
        "dana@example.com",
        "c" * 40,
    )
    assert all(line["timestamp"] and line["level"] for line in lines)


@given(
    st.lists(st.text(alphabet="abcdef0123456789-", min_size=8, max_size=20), min_size=1), st.text(), st.text()
)
def test_a_told_secret_is_removed_wherever_it_stands(secrets: list[str], before: str, after: str) -> None:
    """Every told secret of eight characters or more is gone, also where one is part of another."""
    cleaned = Redactor(secrets).clean(f"{before} {' '.join(secrets)} {after}")
    assert not [secret for secret in secrets if secret in cleaned]


def test_a_secret_that_begins_with_another_is_removed_whole() -> None:
    """No tail of the longer one is left because the shorter one was found first."""
    assert Redactor(["12345678", "12345678-tail"]).clean("it is 12345678-tail.") == "it is ***."


def test_short_words_are_no_secrets() -> None:
    """A “secret” of a few characters would blank half of every line."""
    assert Redactor(["prod", "1234567"]).clean("prod runs 1234567") == "prod runs 1234567"
