"""The list of guards does not rot: each stands in the code, its test exists, and one is really taken out."""

import ast
from dataclasses import replace

import pytest

from chaos.guards import CONTROL, GUARDS, ROOT, Verdict, try_without

TESTS = {CONTROL, *(guard.test for guard in GUARDS)}


def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def test_each_guard_stands_in_its_file_exactly_once() -> None:
    """Where the code changes, the list changes with it; else nobody could take the guard out."""
    times = {guard.name: text_of(guard.file).count(guard.removed) for guard in GUARDS}
    assert {name: count for name, count in times.items() if count != 1} == {}


def test_the_code_without_a_guard_is_still_python() -> None:
    """A copy that cannot be read would fail every test, and prove nothing."""
    for guard in GUARDS:
        ast.parse(text_of(guard.file).replace(guard.removed, guard.instead), filename=guard.name)


def test_each_named_test_exists() -> None:
    """A test that was renamed would not run, and nothing would fail."""
    for test in TESTS:
        file, _, name = test.partition("::")
        functions = [
            node.name
            for node in ast.parse(text_of(file)).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert functions.count(name) == 1, test


def test_each_invariant_has_a_guard_and_each_guard_a_name_of_its_own() -> None:
    """Twelve invariants, and no line of the table can be taken for another."""
    assert {guard.invariant for guard in GUARDS} == {f"I{number}" for number in range(1, 13)}
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


SEALED_LENGTHS = next(guard for guard in GUARDS if guard.name == "seal: lengths before words")


def test_a_guard_that_is_taken_out_is_missed() -> None:
    """The real run of one guard: its copy works, and its test fails there."""
    assert try_without(SEALED_LENGTHS) is Verdict.CAUGHT


@pytest.mark.parametrize(
    ("different", "verdict"),
    [
        ({"removed": "nobody wrote this"}, Verdict.LOST),
        ({"instead": '"{nobody}"'}, Verdict.BROKEN),
        ({"removed": "Length before each word", "instead": "The length before it"}, Verdict.SURVIVED),
    ],
    ids=["not there", "a bug instead", "not needed"],
)
def test_a_run_that_proves_nothing_is_told(different: dict[str, str], verdict: Verdict) -> None:
    """Text that is gone, a copy in which nothing works, and a change that no test minds are no success."""
    guard = replace(SEALED_LENGTHS, **different)
    assert try_without(guard) is verdict
