"""PDB text -> one record per atom of the models that are read.

Everything is taken from the fixed columns, in any letter case; short lines, a missing element or occupancy and
non-ASCII bytes are allowed, atoms after END, TER or CONECT are read. Residue numbers beyond 9999 may be hybrid-36
(https://cci.lbl.gov/hybrid_36/); names of residues have four letters in simulations. Format:
https://www.wwpdb.org/documentation/file-format-content/format33/sect9.html
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from src.chemistry.atoms import MAX_COORDINATE, StructureError, clean_name
from src.chemistry.models import ModelStart, models_to_read
from src.chemistry.residue_names import FOUR_LETTERS, MAYBE_POLYMERS, WATERS, table_name
from src.chemistry.residues import IONS, atomic_number, is_polymer

_KNOWN_FOUR_LETTERS = FOUR_LETTERS | {name for name in IONS if len(name) == 4}
_COLUMNS = 80
_HYBRID_36 = re.compile(rb"[A-Z][A-Z0-9]{3}|[a-z][a-z0-9]{3}")


class Record(NamedTuple):
    chain: str
    number: int
    insertion: str
    residue: str
    name: str
    element: int
    altloc: str
    occupancy: float
    pos: tuple[float, float, float]


class PdbTable(NamedTuple):
    text: np.ndarray  # [lines, 80] uint8, padded with blanks
    pos: np.ndarray  # [lines, 3] float64, Å
    numbers: np.ndarray  # [lines] of the residues
    residues: np.ndarray  # [lines] object, names
    elements: np.ndarray  # [lines] atomic numbers


def pdb_records(data: bytes, tree: cKDTree | None, radius: float, notes: list[str]) -> tuple[list[Record], bool]:
    """The atoms of the residues that may be near, and whether these are all heavy atoms of the file."""
    lines, numbers, starts = pdb_atom_lines(data)
    table = _of_read_models(pdb_table(lines, numbers), starts, notes)
    rows = np.flatnonzero(_rows_to_parse(table, tree, radius))
    is_whole = len(rows) == (table.elements != 1).sum()
    return _records(table, rows), is_whole


def alpha_carbons(data: bytes) -> list[Record]:
    """The CA of all residues of the models that are read, without calcium."""
    lines, numbers, starts = pdb_atom_lines(data)
    rows = [row for row, line in enumerate(lines) if line[12:16].strip().upper() == b"CA"]
    rows = [row for row in rows if lines[row][17:20].strip().upper().decode("latin-1") not in IONS]
    if not rows:
        return []
    starts = [ModelStart(bisect_left(rows, start.row), start.is_said) for start in starts]
    table = pdb_table([lines[row] for row in rows], [numbers[row] for row in rows])
    table = _of_read_models(table, starts, [])
    return _records(table, np.arange(len(table.text)))


def _records(table: PdbTable, rows: np.ndarray) -> list[Record]:
    """The atoms of these lines of a table."""
    text = table.text[rows]
    spans = (21, 22), (26, 27), (12, 16), (16, 17), (54, 60)
    fields = ([word.decode("ascii").strip() for word in _field(text, *span).tolist()] for span in spans)
    chains, insertions, names, altlocs, occupancies = fields
    numbers, residues, elements, pos = (
        column[rows].tolist() for column in (table.numbers, table.residues, table.elements, table.pos)
    )
    columns = (chains, numbers, insertions, residues, names, elements, altlocs, map(_occupancy, occupancies), pos)
    return [Record(*values, tuple(xyz)) for *values, xyz in zip(*columns, strict=True)]


def _occupancy(text: str) -> float:
    """1 where the column says no number."""
    try:
        occupancy = float(text)
    except ValueError:
        return 1.0
    return occupancy if math.isfinite(occupancy) else 1.0


def _rows_to_parse(table: PdbTable, tree: cKDTree | None, radius: float) -> np.ndarray:
    """[lines] bool: heavy atoms of the residue numbers that have any atom near."""
    heavy = table.elements != 1
    if tree is None:
        return heavy
    number = _field(table.text, 21, 27)
    return heavy & np.isin(number, number[heavy & is_near(table.pos, tree, radius)])


def pdb_atom_lines(data: bytes) -> tuple[list[bytes], list[int], list[ModelStart]]:
    """The ATOM and HETATM lines of all models, their line numbers, and where models may start."""
    lines: list[bytes] = []
    numbers: list[int] = []
    starts = [ModelStart(0, True)]
    begun = ended = finished = 0
    here = before = (0, 0)
    for number, line in enumerate(data.splitlines(), start=1):
        record = line[:6].upper()
        if record in (b"ATOM  ", b"HETATM"):
            if here != before:
                if lines:
                    starts.append(ModelStart(len(lines), here[0] != before[0]))
                before = here
            lines.append(line)
            numbers.append(number)
        elif record[:3] in (b"MOD", b"END"):
            begun += record.startswith(b"MODEL")
            ended += record == b"ENDMDL"
            finished += record.rstrip() == b"END"
            here = (max(begun - 1, ended), finished)  # MODEL or ENDMDL may be missing
    if not lines:
        raise StructureError("has no ATOM or HETATM record and no _atom_site table; expected a PDB or mmCIF file")
    return lines, numbers, starts


def _of_read_models(table: PdbTable, starts: list[ModelStart], notes: list[str]) -> PdbTable:
    """The heavy atoms of the models that are read, and all atoms where there is one model."""
    if len(starts) == 1:
        return table
    heavy = table.elements != 1
    before = np.concatenate([[0], np.cumsum(heavy)])
    of_heavy = [ModelStart(int(before[start.row]), start.is_said) for start in starts]
    rows = np.flatnonzero(heavy)
    rows = rows[models_to_read(of_heavy, _field(table.text[rows], 12, 27), table.pos[rows], notes)]
    return PdbTable(*(column[rows] for column in table))


def pdb_table(lines: list[bytes], numbers: list[int], *, needs_protein: bool = True) -> PdbTable:
    for line, number in zip(lines, numbers, strict=True):
        if len(line) < 54:
            raise StructureError(f"line {number} ends before its coordinates do (column 54)")
    text = np.frombuffer(b"".join(line[:_COLUMNS].ljust(_COLUMNS) for line in lines), dtype=np.uint8)
    text = text.reshape(-1, _COLUMNS).copy()
    text[(text < 32) | (text > 126)] = ord("?")
    for first, last in ((0, 6), (12, 16), (17, 21), (76, 78)):
        part = text[:, first:last]
        part[(part >= ord("a")) & (part <= ord("z"))] -= 32
    pos = np.stack([_numbers(text, first, first + 8, float, numbers) for first in (30, 38, 46)], axis=1)
    bad = ~(np.abs(pos) <= MAX_COORDINATE).all(axis=1)
    if bad.any():
        raise StructureError(f"line {numbers[bad.argmax()]} has a coordinate that is not finite or beyond 99,999 Å")
    residue_numbers = _residue_numbers(text, numbers)
    names = np.concatenate([text[:, 12:21], text[:, 76:78]], axis=1).view("S11").ravel().tolist()
    code_of = {name: code for code, name in enumerate(dict.fromkeys(names))}
    codes = np.array([code_of[name] for name in names])
    words = [name.ljust(11).decode("ascii") for name in code_of]
    residues = [_residue_name(word[5:9]) for word in words]
    if needs_protein:
        require_protein({(residue, word[:4].strip()) for residue, word in zip(residues, words, strict=True)})
    elements = [atomic_number(word[:4], residue, word[9:]) for residue, word in zip(residues, words, strict=True)]
    return PdbTable(text, pos, residue_numbers, np.array(residues, dtype=object)[codes], np.array(elements)[codes])


def _residue_name(columns: str) -> str:
    """From columns 18 to 21, the last of which may be the fourth letter or the first of two letters of a chain."""
    three, four = columns[:3].strip(), columns.strip()
    if len(four) == 4:
        return four if four in _KNOWN_FOUR_LETTERS else three
    if columns[3] == " " or is_polymer(three):
        return three
    is_name = is_polymer(four) or (four in MAYBE_POLYMERS | WATERS | IONS.keys() and three not in WATERS | IONS.keys())
    return four if is_name else three


def _residue_numbers(text: np.ndarray, line_numbers: list[int]) -> np.ndarray:
    """[lines] int. In hybrid-36 9999 is followed by A000 to ZZZZ and a000 to zzzz, which count with 36 digits."""
    decimal, field = text.copy(), _field(text, 22, 26)
    found = {}
    for row in np.flatnonzero(text[:, 22] >= ord("A")).tolist():  # hybrid-36, or damaged
        word = bytes(field[row])
        if _HYBRID_36.fullmatch(word):
            found[row] = int(word, 36) + 10_000 + (16 if word[:1].islower() else -10) * 36**3
            decimal[row, 22:26] = ord("0")
    numbers = _numbers(decimal, 22, 26, int, line_numbers)
    numbers[list(found)] = list(found.values())
    return numbers


def _field(text: np.ndarray, first: int, last: int) -> np.ndarray:
    return np.ascontiguousarray(text[:, first:last]).view(f"S{last - first}").ravel()


def _numbers(text: np.ndarray, first: int, last: int, kind: type, line_numbers: list[int]) -> np.ndarray:
    field = _field(text, first, last)
    try:
        return field.astype(kind)
    except ValueError:
        for word, number in zip(field.tolist(), line_numbers, strict=True):
            try:
                kind(word)
            except ValueError:
                what = "a coordinate" if kind is float else "a residue number"
                raise StructureError(
                    f"line {number}, columns {first + 1}-{last}: {word.decode()!r} is not {what}"
                ) from None
        raise


def require_protein(names: set[tuple[str, str]]) -> None:
    """names: (residue name, atom name) of all atoms; an unknown residue with a CA passes as an amino acid."""
    atoms: dict[str, set[str]] = defaultdict(set)
    for residue, atom in names:
        atoms[residue].add(atom)
    if not any(is_polymer(table_name(residue, atoms[residue])) for residue in atoms) and not any(
        "CA" in atoms[residue] for residue in atoms.keys() - IONS.keys()
    ):
        residues = ", ".join(sorted(map(clean_name, atoms))[:10])
        raise StructureError(f"has no protein or nucleic acid atoms, only {residues}")


def is_near(pos: np.ndarray, tree: cKDTree, radius: float) -> np.ndarray:
    # The bound itself is excluded by query, and belongs to the pocket.
    return np.isfinite(tree.query(pos, distance_upper_bound=np.nextafter(radius, np.inf))[0])
