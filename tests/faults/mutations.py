"""The program with one of its protections switched off, and the tests that must then fail; protections.txt lists them.

A protection is found by its function and by what it says, compared as syntax, so that its wording may change.
"""

from __future__ import annotations

import ast
import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("protections.txt")
COPIED = ("src", "tests", "main.py", "predict.py", "config.py", "pyproject.toml")
TIMEOUT_S = 600.0
COUNT = re.compile(r"(\d+) (passed|error)")
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Mutation(NamedTuple):
    protection: str
    file: str
    function: str  # Class.method of a method; empty for what stands outside functions
    old: str
    new: str
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """What pytest counted, its exit code and the end of what it wrote."""

    passed: int
    errors: int
    code: int
    text: str

    @property
    def is_red(self) -> bool:
        """A test or its setup failed, or its signal reached pytest; not that tests could not be found or collected."""
        interrupted = self.code == pytest.ExitCode.INTERRUPTED and not self.errors
        return interrupted or self.code == pytest.ExitCode.TESTS_FAILED


class MutationError(ValueError):
    """A protection does not stand in the program as it is listed."""


def read_mutations(text: str) -> list[Mutation]:
    mutations = []
    for block in text.strip().split("\n\n"):
        title, old, new, *tests = block.splitlines()
        place, _, protection = title.partition(": ")
        file, _, function = place.partition("::")
        if not (old.startswith("- ") and new.startswith("+ ") and tests and protection):
            raise MutationError(f"not a title, a line with '-', a line with '+' and names of tests: {block}")
        mutations.append(Mutation(protection, f"src/{file}", function, old[2:], new[2:], tuple(tests)))
    return mutations


MUTATIONS = read_mutations(LIST.read_text(encoding="utf-8").partition("\n\n")[2])  # the first block explains the form


def without(mutation: Mutation, root: Path = ROOT) -> str:
    """The mutation's file with the protection switched off.

    Raises:
        MutationError: the protection does not stand in its function exactly once.
    """
    tree = ast.parse((root / mutation.file).read_text(encoding="utf-8"))
    meanings = _meanings(mutation.old, mutation.new)
    found: dict[str, list[tuple[ast.AST, ast.AST]]] = {}
    for function, node in _nodes(tree):
        places = found.setdefault(function, [])
        places += [(node, new) for old, new in meanings if type(node) is type(old) and _text(node) == _text(old)]
    here = found.get(mutation.function, [])
    if len(here) != 1:
        counts = ", ".join(f"{len(places)} in {name or 'no function'}" for name, places in found.items() if places)
        raise MutationError(
            f"{mutation.protection}: {mutation.old!r} stands {len(here)} times in {mutation.function or 'no function'}"
            f" of {mutation.file}, where all places are: {counts or 'none'}"
        )
    return ast.unparse(ast.fix_missing_locations(_Replacement(*here[0]).visit(tree)))


def _meanings(old: str, new: str) -> list[tuple[ast.AST, ast.AST]]:
    """The two texts as heads of blocks, expressions, or statements; `name=value` is also an argument of a call."""
    one, other = _statement(old), _statement(new)
    if isinstance(one, ast.Expr) and isinstance(other, ast.Expr):
        return [(one.value, other.value)]
    if isinstance(one, ast.Assign) and isinstance(other, ast.Assign):
        arguments = [ast.keyword(ast.unparse(node.targets[0]), node.value) for node in (one, other)]
        return [(one, other), tuple(arguments)]
    return [(one, other)]


def _statement(text: str) -> ast.stmt:
    try:
        (statement,) = ast.parse(f"{text} pass" if text.endswith(":") else text).body
    except (SyntaxError, ValueError) as error:
        raise MutationError(f"{text!r} is not one statement, expression or head of a block") from error
    return statement


def _nodes(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.AST]]:
    """All nodes of a file, each with the function or class that it stands in: "", Class, Class.method."""
    for node in ast.iter_child_nodes(tree):
        yield outer, node
        name = f"{outer}.{node.name}".lstrip(".") if isinstance(node, DEFINITION) else outer
        yield from _nodes(node, name)


def _text(node: ast.AST) -> str:
    """What the node says; of a block its head."""
    if not _is_block(node):
        return ast.unparse(node)
    head = copy.copy(node)
    head.body = [ast.Pass()]
    head.orelse = []
    return ast.unparse(head)


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt) and hasattr(node, "body")


class _Replacement(ast.NodeTransformer):
    """Puts a node in the place of another; a head of a block keeps the block."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new
        if _is_block(old):
            new.body, new.orelse = old.body, getattr(old, "orelse", [])

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def copy_program(folder: Path) -> Path:
    """The program and its tests, without data, in a folder that is empty or not there."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(root: Path, tests: Sequence[str], *options: str) -> Outcome:
    """Run tests of a copy of the program in a process of their own, slow ones too."""
    foreign = ("PYTHONPATH", "PYTEST_ADDOPTS", "AIDD_REAL_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    alone = ("-p", "no:cacheprovider", "-o", "addopts=--strict-markers", f"--basetemp={root / 'basetemp'}")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, *options, *(f"tests/{test}" for test in tests)],
        cwd=root,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    lines = finished.stdout.strip().splitlines() or [""]
    counts = {what: int(count) for count, what in COUNT.findall(lines[-1])}
    return Outcome(counts.get("passed", 0), counts.get("error", 0), finished.returncode, "\n".join(lines[-40:]))
