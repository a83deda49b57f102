"""Every fault that a user can mend has one type, so that the scripts need not know them one by one."""

from __future__ import annotations

import ast
from pathlib import Path

from src.system.errors import UserError

SRC = Path(__file__).resolve().parents[2] / "src"
OTHERS = {"TrainingError", "TooLargeError", "RankLostError"}  # of a run that began well: exit code 1


def bases_of_errors() -> dict[str, set[str]]:
    """Name of each error class of the program -> names of the classes that it is made from."""
    nodes = [node for path in SRC.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    return {one.name: {ast.unparse(base) for base in one.bases} for one in classes if one.name.endswith("Error")}


def test_every_error_is_a_fault_of_the_user_or_named_here() -> None:
    bases = bases_of_errors()
    known = {UserError.__name__}
    while more := {name for name, above in bases.items() if above & known} - known:
        known |= more
    assert set(bases) - known == OTHERS
    assert len(known) > 10
