"""The work of every reader grows with its input and not with its square: steps are counted, never timed.

A step is a line of Python, in this program or in Biopython. What one call of a compiled library does is not seen; so
the patterns of regular expressions are looked at themselves, and searches for neighbours are bounded by the number of
atoms that may lie in one place.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import ligand_records
from src.chemistry.proteins import read_protein
from src.evaluation.casf_files import CasfError, read_core_set, read_rmsd, read_targets
from src.pdbbind.affinity import PDBbindError
from src.pdbbind.folders import ComplexFiles
from src.pdbbind.index import read_index
from src.pdbbind.user_table import read_table
from src.scoring.poses import PoseError, read_pairs
from src.scoring.row_formats import split_items
from src.similarity.sequences import read_chains
from src.similarity.split_files import SplitFileError, read_split_file
from tests.chemistry.protein_texts import alanine, line
from tests.complexes import mmcif, sdf_text

SRC = Path(__file__).resolve().parents[2] / "src"
SIZES = (150, 300)
MOST = 2.3  # times the work for twice the input
REFUSED = (StructureError, PDBbindError, CasfError, PoseError, SplitFileError)


def steps(function: Callable[[], object]) -> int:
    """How many lines of Python a call runs; a refusal counts as an end."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> Callable:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except REFUSED:
        pass
    finally:
        sys.settrace(before)
    return count


def assert_grows_in_proportion(function: Callable[[int], Callable[[], object]]) -> None:
    """function(n) makes an input of size n, and what reads it."""
    function(SIZES[0])()  # what is done once, such as imports
    small, large = (steps(function(size)) for size in SIZES)
    assert large <= MOST * small, f"{small} steps for {SIZES[0]}, {large} for {SIZES[1]}"


def tried(function: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        try:
            return function()
        except REFUSED as error:
            return error

    return call


def apart(text: str, place: int) -> str:
    """The lines of a PDB file, moved to a place of their own."""
    x, y = 12.0 * (place % 40), 12.0 * (place // 40)
    moved = []
    for row in text.splitlines(keepends=True):
        moved.append(f"{row[:30]}{float(row[30:38]) + x:8.3f}{float(row[38:46]) + y:8.3f}{row[46:]}")
    return "".join(moved)


def names(count: int) -> Iterator[str]:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return (letters[n // 676 % 26] + letters[n // 26 % 26] + letters[n % 26] for n in range(count))


PROTEINS: dict[str, Callable[[int], str]] = {
    "many residues": lambda n: "".join(apart(alanine(k % 9999), k) for k in range(n)),
    "one residue number": lambda n: "".join(apart(alanine(1), k) for k in range(n)),
    "one atom, many times": lambda n: alanine(1) + alanine(1).splitlines(keepends=True)[0] * n,
    "one atom name in many places": lambda n: "".join(apart(line("CA"), k) for k in range(n)),
    "waters with one number": lambda n: alanine() + "".join(apart(line("O", "HOH"), k) for k in range(n)),
    "many names at one number": lambda n: (
        alanine() + "".join(apart(line("C1", name, record="HETATM"), k) for k, name in enumerate(names(n)))
    ),
    "all in one place": lambda n: "".join(alanine(k) for k in range(n)),
    "all in one place, with letters": lambda n: "".join(alanine(1, altloc=chr(65 + k % 26)) for k in range(n)),
    "residues of other names in one place": lambda n: "".join(
        alanine(k, residue=("SER", "ALA")[k % 2]) for k in range(n)
    ),
    "models of one atom": lambda n: "".join(f"MODEL\n{apart(line('CA'), k)}ENDMDL\n" for k in range(n)),
    "models in one place": lambda n: f"MODEL\n{alanine()}ENDMDL\n" * n,
    "a large model and many small ones": lambda n: (
        "MODEL\n"
        + "".join(apart(alanine(k), k) for k in range(n))
        + "".join(f"ENDMDL\nMODEL\n{apart(line('CA', number=k), k + 4 * n)}" for k in range(n))
    ),
    "frames": lambda n: f"{alanine()}END\n" * n,
    "blank lines": lambda n: "\n" * 40 * n + alanine(),
    "one long line": lambda n: "REMARK" + " " * 100 * n + "\n" + alanine(),
    "lines without atoms": lambda n: "ATOM\n" * n + "MODEL\n" * n + "ENDMDL\n" * n + alanine(),
}
TABLES: dict[str, Callable[[int], str]] = {
    "blank lines": lambda n: mmcif(alanine()).replace("loop_", "\n" * 40 * n + "loop_", 1),
    "blank lines in the table": lambda n: mmcif(alanine()).replace("_atom_site.id", "\n" * 40 * n + "_atom_site.id"),
    "the word alone": lambda n: "\n" * 40 * n + "x_atom_site.",
    "the word in one line": lambda n: "x_atom_site." * 10 * n + "\n" + mmcif(alanine()),
    "blanks and the word": lambda n: (" " * 30 + "\n") * n + mmcif(alanine()),
    "many loops": lambda n: "data_x\n" + "loop_\n_a.b\n1\n" * n + mmcif(alanine()).partition("#\n")[2],
    "many columns": lambda n: mmcif(alanine()).replace(
        "_atom_site.id", "\n".join(f"_atom_site.c{k}" for k in range(n)) + "\n_atom_site.id"
    ),
    "one column, many times": lambda n: mmcif(alanine()).replace("_atom_site.id", "_atom_site.id\n" * n),
    "quotation marks": lambda n: mmcif(alanine()).replace("A . 1", "'" * 5 * n),
    "text blocks": lambda n: "data_x\n" + "_a.b\n;\ntext\n;\n" * n + mmcif(alanine()).partition("#\n")[2],
    "one long row": lambda n: mmcif("".join(apart(alanine(k), k) for k in range(n // 3))).replace("\nATOM", " ATOM"),
}


@pytest.mark.parametrize("name", PROTEINS)
@pytest.mark.parametrize("form", ["pdb", "mmcif"])
def test_reading_proteins(tmp_path, name, form):
    def reading(size: int) -> Callable[[], object]:
        text = PROTEINS[name](size)
        rows = "".join(row for row in text.splitlines(keepends=True) if row.startswith(("ATOM  ", "HETATM")))
        (tmp_path / "some.txt").write_text(mmcif(rows) if form == "mmcif" else text)
        return tried(lambda: read_protein(tmp_path / "some.txt"))

    if form == "mmcif" and name in ("blank lines", "one long line", "lines without atoms", "frames"):
        pytest.skip("not of this format")
    assert_grows_in_proportion(reading)


@pytest.mark.parametrize("name", TABLES)
def test_reading_mmcif(tmp_path, name):
    def reading(size: int) -> Callable[[], object]:
        (tmp_path / "some.cif").write_text(TABLES[name](size))
        return tried(lambda: read_protein(tmp_path / "some.cif"))

    assert_grows_in_proportion(reading)


@pytest.mark.parametrize("name", [*PROTEINS, *(f"mmcif: {name}" for name in TABLES), "seqres"])
def test_reading_sequences(tmp_path, name):
    seqres = {"seqres": lambda n: "".join(f"SEQRES {k:>3} {'AB'[k % 2]}  999  ALA SER\n" for k in range(n))}
    make = (PROTEINS | {f"mmcif: {name}": text for name, text in TABLES.items()} | seqres)[name]

    def reading(size: int) -> Callable[[], object]:
        (tmp_path / "some.pdb").write_text(make(size))
        return lambda: read_chains(ComplexFiles("1abc", tmp_path / "some.pdb", None, ()))

    assert_grows_in_proportion(reading)


MOL2 = "@<TRIPOS>MOLECULE\nx\n1 0\n@<TRIPOS>ATOM\n1 C 0 0 0 C.3\n"
LIGANDS: dict[str, Callable[[int], str]] = {
    "SDF": lambda n: sdf_text() * n,
    "SDF without its ends": lambda n: sdf_text().replace("$$$$\n", "") * n,
    "SDF of ends": lambda n: sdf_text() + "$$$$\n" * 20 * n,
    "SDF with many counts lines": lambda n: sdf_text() + "x\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\n" * n,
    "SDF with blank lines": lambda n: "\n" * 3 + sdf_text()[9:] + "\n" * 40 * n,
    "MOL2": lambda n: MOL2 * n,
    "MOL2 with comments": lambda n: "# a comment\n" * n + MOL2 * n,
    "MOL2 of heads": lambda n: "@<TRIPOS>MOLECULE\n" * 10 * n,
    "nothing": lambda n: "\n" * 40 * n,
}


@pytest.mark.parametrize("name", LIGANDS)
def test_splitting_ligand_files(tmp_path, name):
    def reading(size: int) -> Callable[[], object]:
        (tmp_path / "some").write_text(LIGANDS[name](size))
        return tried(lambda: list(ligand_records(tmp_path / "some")))

    assert_grows_in_proportion(reading)


def test_splitting_the_data_items_of_an_sdf():
    for item in ("> <a>\n1\n\n", ">" + "<" * 50 + "\n", "> <a\n\n", ">\n\n"):
        assert_grows_in_proportion(lambda n, item=item: lambda: split_items(sdf_text() + item * n))


LISTS: dict[str, tuple[Callable[[Path], object], Callable[[int], str]]] = {
    "index": (read_index, lambda n: "".join(f"{k:04d} 2.00 2010 Kd=1nM // x (ACM)\n" for k in range(n))),
    "index of one code": (read_index, lambda n: "1abc 2.00 2010 Kd=1nM // x (ACM)\n" * n),
    "index of brackets": (read_index, lambda n: f"1abc 2.00 2010 Kd=1nM // x {'(' * 9 * n}\n"),
    "index of bad lines": (read_index, lambda n: "?\n" * n + "1abc 2.00 2010 Kd=1nM // x (ACM)\n"),
    "index of blank lines": (read_index, lambda n: "\n" * 40 * n + "1abc 2.00 2010 Kd=1nM // x (ACM)\n"),
    "table.csv": (read_table, lambda n: "code,pK\n" + "".join(f"{k:04d},5.0\n" for k in range(n))),
    "columns.csv": (read_table, lambda n: f"code,pK{''.join(f',c{k}' for k in range(n))}\n1abc,5.0\n"),
    "pairs.csv": (read_pairs, lambda n: "protein,ligand\n" + "a.pdb,b.sdf\n" * n),
    "wide pairs.csv": (
        lambda path: sum(1 for _ in read_pairs(path).poses()),
        lambda n: f"protein,ligand{''.join(f',c{k}' for k in range(10 * n))}\n" + ",x\n" * n,
    ),
    "split.json": (
        lambda path: read_split_file(path, [f"{k:04d}" for k in range(2000)]),
        lambda n: json.dumps({"test": [f"{k:04d}" for k in range(n)], "train": [f"{k:04d}" for k in range(n, 2 * n)]}),
    ),
    "deep.json": (lambda path: read_split_file(path, ["1abc"]), lambda n: '{"test": ' + "[" * 500 * n),
    "split.txt": (lambda path: read_split_file(path, ["0001"]), lambda n: "".join(f"{k:04d}\n" for k in range(n))),
    "CoreSet.dat": (read_core_set, lambda n: "1abc 2.00 2010 5.0 Kd=1nM 1\n" * n),
    "x_rmsd.dat": (read_rmsd, lambda n: "".join(f"p{k} 1.0\n" for k in range(n))),
    "TargetInfo.dat": (read_targets, lambda n: "".join(f"{k:04d} 1abc 2abc\n" for k in range(n))),
}


@pytest.mark.parametrize("name", LISTS)
def test_reading_lists(tmp_path, name):
    read, make = LISTS[name]

    def reading(size: int) -> Callable[[], object]:
        (tmp_path / name).write_text(make(size))
        return tried(lambda: read(tmp_path / name))

    assert_grows_in_proportion(reading)


def patterns(path: Path) -> Iterator[tuple[str | bytes, int]]:
    """The regular expressions of a file that stand there as text, and their flags."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
        if not is_call or not isinstance(node.func.value, ast.Name) or node.func.value.id != "re":
            continue
        uses = ("compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
        first = node.args[0]
        if node.func.attr in uses and isinstance(first, ast.Constant) and isinstance(first.value, str | bytes):
            rest = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            flags = [one.attr for each in rest for one in ast.walk(each) if isinstance(one, ast.Attribute)]
            yield first.value, sum(getattr(re, flag) for flag in set(flags) if flag in re.RegexFlag.__members__)


def crosses_lines(pattern: str | bytes, flags: int) -> bool:
    """Whether a pattern that may begin at any line can also run over any number of line ends, as '^\\s*x' does."""
    many_lines = re.compile(pattern, flags).flags & re.MULTILINE
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    repeats = re.findall(r"(\\s|\\W|\\D|\[\^[^\]]*\]|\[[^\]]*\\[ns][^\]]*\]|\\n)(?:[*+]|\{\d*,\})", text)
    return bool(many_lines and (repeats or (flags & re.DOTALL and re.search(r"\.[*+]", text))))


def files() -> Iterable[Path]:
    return sorted(SRC.rglob("*.py"))


def test_no_pattern_begins_at_every_line_and_runs_over_line_ends():
    found = [(path.name, pattern) for path in files() for pattern, flags in patterns(path)]
    assert len(found) > 10
    assert [one for path in files() for one in patterns(path) if crosses_lines(*one)] == []


@pytest.mark.parametrize(
    ("pattern", "flags", "expected"),
    [
        (rb"^\s*_atom_site\.", re.MULTILINE, True),
        (r"(?m)^\s*data_", 0, True),
        (r"^[^#]*x", re.MULTILINE, True),
        (r"^.*x", re.MULTILINE | re.DOTALL, True),
        (rb"^[ \t]*_atom_site\.", re.MULTILINE, False),
        (r"^\s*x", 0, False),
        (r"^.*x", re.MULTILINE, False),
    ],
)
def test_patterns_that_run_over_line_ends_are_recognised(pattern, flags, expected):
    assert crosses_lines(pattern, flags) == expected
