"""The tests of the tests: with any one protection switched off, a test fails."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.mutations import (
    MUTATIONS,
    ROOT,
    Mutation,
    MutationError,
    copy_program,
    read_mutations,
    run_tests,
    without,
)

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
    assert len({(mutation.file, mutation.function, mutation.old) for mutation in MUTATIONS}) == len(MUTATIONS)


PROGRAM = """
LIMIT = 5

class Folder:
    def save(self, file):
        for name in ("a", "b"):
            write(name, whole=True)
        if self.open and not (
            file.closed  # by somebody else
        ):
            whole = True
            sync(file.fileno())

def save(file):
    sync(file.fileno())
"""


@pytest.mark.parametrize(
    ("function", "old", "new", "line"),
    [
        ("", "LIMIT = 5", "LIMIT = None", "LIMIT = None"),
        ("Folder.save", "sync( file.fileno( ) )", "pass", "            pass"),
        ("save", "sync(file.fileno())", "pass", "    pass"),
        ("save", "file.fileno()", "0", "    sync(0)"),
        ("Folder.save", "for name in ('a', 'b'):", "for name in ('a',):", "        for name in ('a',):"),
        ("Folder.save", "if self.open and not file.closed:", "if False:", "        if False:"),
        ("Folder.save", "not file.closed", "True", "        if self.open and True:"),
    ],
)
def test_one_place_is_found_by_what_it_says(tmp_path: Path, function: str, old: str, new: str, line: str) -> None:
    (tmp_path / "file.py").write_text(PROGRAM)
    before = ast.unparse(ast.parse(PROGRAM)).splitlines()
    after = without(Mutation("a check", "file.py", function, old, new, ()), tmp_path).splitlines()
    (changed,) = [number for number, lines in enumerate(zip(before, after, strict=True)) if len(set(lines)) > 1]
    assert after[changed] == line


@pytest.mark.parametrize(
    ("function", "old", "new", "places"),
    [
        ("", "sync(file.fileno())", "pass", "0 times in no function of file.py.* 1 in Folder.save, 1 in save"),
        ("save", "sync(file)", "pass", "0 times in save of file.py, .*: none"),
        ("Folder.save", "whole = True", "whole = False", "2 times in Folder.save"),
        ("Folder.save", "whole=True", "whole=False", "2 times in Folder.save"),  # an argument reads like a statement
    ],
)
def test_what_does_not_stand_there_once_is_named(
    tmp_path: Path, function: str, old: str, new: str, places: str
) -> None:
    (tmp_path / "file.py").write_text(PROGRAM)
    with pytest.raises(MutationError, match=f"a check: .* stands {places}"):
        without(Mutation("a check", "file.py", function, old, new, ()), tmp_path)


def test_an_argument_of_a_call_is_found(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("load(path, whole = True)")
    assert without(Mutation("a check", "file.py", "", "whole=True", "whole=False", ()), tmp_path) == (
        "load(path, whole=False)"
    )


@pytest.mark.parametrize("text", ["and whole", "a = 1; b = 2", "else:"])
def test_what_cannot_stand_alone_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.py").write_text(PROGRAM)
    with pytest.raises(MutationError, match=f"'{text}' is not one statement"):
        without(Mutation("a check", "file.py", "", text, "pass", ()), tmp_path)


def test_a_block_that_is_not_of_the_form_is_refused() -> None:
    for block in ("file.py::f: a check\n- a\n- b\ntest.py", "file.py::f\n- a\n+ b\ntest.py", "file.py: c\n- a\n+ b"):
        with pytest.raises(MutationError, match="not a title"):
            read_mutations(block)


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
