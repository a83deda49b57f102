"""The tests of the tests: with any one protection switched off, a test fails."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS, ROOT, Mutation, MutationError, copy_program, run_tests, without

every = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.protection.replace(" ", "_"))


@every
def test_a_patch_fits_the_program_and_changes_what_it_does(mutation: Mutation) -> None:
    before = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(without(mutation))) != ast.dump(ast.parse(before))


@every
def test_the_tests_of_a_protection_exist(mutation: Mutation) -> None:
    for test in mutation.tests:
        file, _, name = test.partition("[")[0].partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in names


def test_no_protection_stands_there_twice() -> None:
    assert len({mutation.protection for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({(mutation.file, mutation.old) for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(("content", "count"), [("a = 1\n", 0), ("b = 1\nb = 1\n", 2)])
def test_a_patch_that_no_longer_fits_is_named(tmp_path: Path, content: str, count: int) -> None:
    (tmp_path / "file.py").write_text(content)
    with pytest.raises(MutationError, match=f"some check: .* stands {count} times in file.py"):
        without(Mutation("some check", "file.py", "b = 1\n", "", ()), tmp_path)


@pytest.mark.parametrize(
    ("content", "is_red"),
    [
        ("def test_a(): assert True", False),
        ("def test_a(): assert False", True),
        ("def test_a(): raise KeyboardInterrupt", True),
        ("import no_such_module", False),
        ("def test_other(): ...", False),
    ],
)
def test_only_a_test_that_failed_is_red(tmp_path: Path, content: str, is_red: bool) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sample.py").write_text(content)
    assert run_tests(tmp_path, ["test_sample.py::test_a"], "-x").is_red == is_red


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return copy_program(tmp_path)


@pytest.mark.slow
def test_without_a_patch_all_of_these_tests_pass(program: Path) -> None:
    outcome = run_tests(program, sorted({test for mutation in MUTATIONS for test in mutation.tests}))
    assert outcome.code == 0, outcome.text
    assert outcome.passed >= len({test for mutation in MUTATIONS for test in mutation.tests})


@pytest.mark.slow
@every
def test_without_a_protection_a_test_fails(mutation: Mutation, program: Path) -> None:
    (program / mutation.file).write_text(without(mutation), encoding="utf-8")
    outcome = run_tests(program, mutation.tests, "-x")
    assert outcome.is_red, outcome.text
