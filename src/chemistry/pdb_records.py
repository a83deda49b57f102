"""PDB and mmCIF text -> one record per atom of the first model, by Biopython.

In a PDB file everything is taken from the fixed columns, in any letter case; short lines, a missing element
or occupancy and non-ASCII bytes are allowed, atoms after END, TER or CONECT are read. Residue numbers beyond
9999 may be hybrid-36 (https://cci.lbl.gov/hybrid_36/). Hydrogens and
residues far from the points of interest are removed from the text before Biopython sees it. In mmCIF the
auth_ identifiers are used, the label_ ones where they are missing. Formats:
https://www.wwpdb.org/documentation/file-format-content/format33/sect9.html,
https://mmcif.wwpdb.org/dictionaries/mmcif_pdbx_v50.dic/Categories/atom_site.html
"""

from __future__ import annotations

import io
import math
import re
from typing import NamedTuple

import numpy as np
from Bio.PDB.MMCIF2Dict import MMCIF2Dict
from Bio.PDB.PDBParser import PDBParser
from Bio.PDB.StructureBuilder import StructureBuilder
from scipy.spatial import cKDTree

from src.chemistry.atoms import MAX_COORDINATE, StructureError, clean_name
from src.chemistry.residues import IONS, atomic_number, is_polymer

_CIF_ATOMS = re.compile(rb"^\s*_atom_site\.", re.MULTILINE | re.IGNORECASE)
_CIF_DATA = re.compile(r"^\s*data_", re.MULTILINE | re.IGNORECASE)
_CIF_TABLE_END = re.compile(rb"^(#|_(?!atom_site\.)|loop_|data_)", re.MULTILINE | re.IGNORECASE)
_COLUMNS = 80
_HYBRID_36 = re.compile(rb"[A-Z][A-Z0-9]{3}|[a-z][a-z0-9]{3}")
_CIF_COLUMNS = {  # what is needed of _atom_site, first choice first
    "record": ("group_pdb",),
    "element": ("type_symbol",),
    "name": ("label_atom_id", "auth_atom_id"),
    "altloc": ("label_alt_id",),
    "residue": ("auth_comp_id", "label_comp_id"),
    "chain": ("auth_asym_id", "label_asym_id"),
    "number": ("auth_seq_id", "label_seq_id"),
    "insertion": ("pdbx_pdb_ins_code",),
    "x": ("cartn_x",),
    "y": ("cartn_y",),
    "z": ("cartn_z",),
    "occupancy": ("occupancy",),
    "model": ("pdbx_pdb_model_num",),
}
_CIF_COORDINATES = {"x": "Cartn_x", "y": "Cartn_y", "z": "Cartn_z"}
_CIF_REQUIRED = ("name", "residue", "chain", "number", "x", "y", "z")


class Record(NamedTuple):
    chain: str
    number: int
    insertion: str
    residue: str
    name: str
    element: int
    altloc: str
    occupancy: float
    run: int  # how many times the residue changed before this line
    pos: tuple[float, float, float]


def is_mmcif(data: bytes) -> bool:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] == b"<":
        raise StructureError("is an HTML or XML page; download the .pdb or .cif file itself")
    if b"\0" in head:
        raise StructureError("is a binary file; expected the text of a PDB or mmCIF file")
    if b"@<TRIPOS>" in data or b"\nM  END" in data:
        raise StructureError("is a MOL2 or SDF file; expected the protein as PDB or mmCIF")
    return b"_atom_site." in data.lower() and _CIF_ATOMS.search(data) is not None


class _RecordBuilder(StructureBuilder):
    """Takes what PDBParser reads as flat records; its own tree would settle altlocs by other rules."""

    def __init__(self, table: _PdbTable, rows: np.ndarray) -> None:
        super().__init__()
        self.records: list[Record] = []
        self._elements = [table.elements[row] for row in rows]
        self._numbers = table.numbers[rows].tolist()
        self._runs = table.runs[rows].tolist()
        self._pos = table.pos[rows].tolist()  # float64; Biopython's own are float32

    def init_model(self, model_id: int, serial_num: int | None = None) -> None:
        pass

    def init_seg(self, segid: str) -> None:
        pass

    def init_chain(self, chain_id: str) -> None:
        self._chain = chain_id.strip()

    def init_residue(self, resname: str, field: str, resseq: int, icode: str) -> None:
        self._insertion, self._name = icode.strip(), resname

    def init_atom(self, name, coord, b_factor, occupancy, altloc, fullname, serial_number, element) -> None:
        row = self.line_counter - 1
        occupancy = 1.0 if occupancy is None or not math.isfinite(occupancy) else occupancy
        self.records.append(
            Record(
                self._chain, self._numbers[row], self._insertion, self._name, name.strip(), self._elements[row],
                altloc.strip(), occupancy, self._runs[row], tuple(self._pos[row]),
            )
        )  # fmt: skip


class _PdbTable(NamedTuple):
    text: np.ndarray  # [lines, 80] uint8, padded with blanks
    pos: np.ndarray  # [lines, 3] float64, Å
    numbers: np.ndarray  # [lines] of the residues
    elements: list[int]  # atomic numbers
    runs: np.ndarray  # [lines] how many times the residue changed before


def pdb_records(data: bytes, tree: cKDTree | None, radius: float, notes: list[str]) -> tuple[list[Record], bool]:
    """The atoms of the residues that may be near, and whether these are all heavy atoms of the file."""
    table = _pdb_table(*_pdb_atom_lines(data, notes))
    rows = np.flatnonzero(_rows_to_parse(table, tree, radius))
    is_whole = len(rows) == sum(element != 1 for element in table.elements)
    if not len(rows):
        return [], is_whole
    text = np.full((len(rows), _COLUMNS + 1), ord("\n"), dtype=np.uint8)
    text[:, :_COLUMNS] = table.text[rows]
    text[_begins_with_letter(text), 22:26] = ord("0")  # Biopython knows no hybrid-36
    builder = _RecordBuilder(table, rows)
    PDBParser(structure_builder=builder, QUIET=True).get_structure("", io.StringIO(text.tobytes().decode("ascii")))
    assert len(builder.records) == len(rows), "Biopython skipped atom lines"
    return builder.records, is_whole


def _rows_to_parse(table: _PdbTable, tree: cKDTree | None, radius: float) -> np.ndarray:
    """[lines] bool: heavy atoms of the residue numbers that have any atom near."""
    heavy = np.array(table.elements) != 1
    if tree is None:
        return heavy
    number = _field(table.text, 21, 27)
    return heavy & np.isin(number, number[heavy & is_near(table.pos, tree, radius)])


def _pdb_atom_lines(data: bytes, notes: list[str]) -> tuple[list[bytes], list[int]]:
    """The ATOM and HETATM lines of the first model that has any, and their line numbers."""
    lines: list[bytes] = []
    numbers: list[int] = []
    begun = ended = 0
    models: list[int] = []  # of the atom lines; MODEL or ENDMDL may be missing
    for number, line in enumerate(data.splitlines(), start=1):
        record = line[:6].upper()
        if record in (b"ATOM  ", b"HETATM"):
            model = max(begun - 1, ended)
            if not models or model != models[-1]:
                models.append(model)
            if len(models) == 1:
                lines.append(line)
                numbers.append(number)
        elif record.startswith(b"MODEL"):
            begun += 1
        elif record == b"ENDMDL":
            ended += 1
    if not lines:
        raise StructureError("has no ATOM or HETATM record and no _atom_site table; expected a PDB or mmCIF file")
    if len(models) > 1:
        notes.append(f"{len(models)} models, first used")
    return lines, numbers


def _pdb_table(lines: list[bytes], numbers: list[int]) -> _PdbTable:
    for line, number in zip(lines, numbers, strict=True):
        if len(line) < 54:
            raise StructureError(f"line {number} ends before its coordinates do (column 54)")
    text = np.frombuffer(b"".join(line[:_COLUMNS].ljust(_COLUMNS) for line in lines), dtype=np.uint8)
    text = text.reshape(-1, _COLUMNS).copy()
    text[(text < 32) | (text > 126)] = ord("?")
    for first, last in ((0, 6), (12, 16), (17, 20), (76, 78)):
        part = text[:, first:last]
        part[(part >= ord("a")) & (part <= ord("z"))] -= 32
    pos = np.stack([_numbers(text, first, first + 8, float, numbers) for first in (30, 38, 46)], axis=1)
    bad = ~(np.abs(pos) <= MAX_COORDINATE).all(axis=1)
    if bad.any():
        raise StructureError(f"line {numbers[bad.argmax()]} has a coordinate that is not finite or beyond 99,999 Å")
    residue_numbers = _residue_numbers(text, numbers)
    names = np.concatenate([text[:, 12:20], text[:, 76:78]], axis=1).view("S10").ravel().tolist()
    words = {name: name.ljust(10).decode("ascii") for name in set(names)}
    _require_protein({(word[5:8].strip(), word[:4].strip()) for word in words.values()})
    known = {name: atomic_number(word[:4], word[5:8], word[8:10]) for name, word in words.items()}
    residue = _field(text, 17, 27)
    runs = np.concatenate([[0], np.cumsum(residue[1:] != residue[:-1])])
    return _PdbTable(text, pos, residue_numbers, [known[name] for name in names], runs)


def _begins_with_letter(text: np.ndarray) -> np.ndarray:
    """[lines] bool: the residue number does, so that it is hybrid-36 or damaged."""
    return text[:, 22] >= ord("A")


def _residue_numbers(text: np.ndarray, line_numbers: list[int]) -> np.ndarray:
    """[lines] int. In hybrid-36 9999 is followed by A000 to ZZZZ and a000 to zzzz, which count with 36 digits."""
    decimal, field = text.copy(), _field(text, 22, 26)
    found = {}
    for row in np.flatnonzero(_begins_with_letter(text)).tolist():
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


def mmcif_records(data: bytes, notes: list[str]) -> list[Record]:
    columns = _mmcif_columns(data)
    models = list(dict.fromkeys(columns["model"]))
    if len(models) > 1:
        notes.append(f"{len(models)} models, first used")
    _require_protein(set(zip(columns["residue"], columns["name"], strict=True)))
    records: list[Record] = []
    run, previous = -1, None
    for row, values in enumerate(zip(*columns.values(), strict=True), start=1):
        atom = dict(zip(columns, values, strict=True))
        if atom["model"] != models[0]:
            continue
        try:
            residue = (atom["chain"], int(atom["number"]), atom["insertion"], atom["residue"].upper())
            # A number may carry its standard deviation: 1.234(5).
            pos = tuple(float(atom[axis].split("(")[0]) for axis in "xyz")
            occupancy = float(atom["occupancy"].split("(")[0] or 1.0)
        except ValueError as error:
            raise StructureError(f"row {row} of _atom_site{_bad_value(atom)}") from error
        if not all(abs(x) <= MAX_COORDINATE for x in pos):
            raise StructureError(f"row {row} of _atom_site has a coordinate that is not finite or beyond 99,999 Å")
        run, previous = run + (residue != previous), residue
        # A blank in front: names of mmCIF are not aligned, so only the first letter may stand for an element.
        element = atomic_number(" " + atom["name"], residue[3], atom["element"])
        occupancy = occupancy if math.isfinite(occupancy) else 1.0
        records.append(Record(*residue, atom["name"].upper(), element, atom["altloc"], occupancy, run, pos))
    return records


def _bad_value(atom: dict[str, str]) -> str:
    """Which value of a row is not a number."""
    for field, column in {**_CIF_COORDINATES, "occupancy": "occupancy"}.items():
        try:
            float(atom[field].split("(")[0] or (1.0 if field == "occupancy" else "none"))
        except ValueError:
            what = "an occupancy" if field == "occupancy" else "a coordinate"
            return f", column {column}: {clean_name(atom[field])!r} is not {what}"
    return f": {clean_name(atom['number'])!r} is not a residue number"


def _mmcif_columns(data: bytes) -> dict[str, list[str]]:
    """The needed columns of _atom_site as text; '.' and '?' become '', except in coordinates, which cannot lack."""
    start = data[: _CIF_ATOMS.search(data).start()].lower().rfind(b"loop_")
    end = _CIF_TABLE_END.search(data, start + len(b"loop_"))
    table = data[start : end.start() if end else None] if start >= 0 else data
    # Biopython reads character by character, so it is given the one table that matters.
    text = table.decode("utf-8", errors="replace")
    try:
        # Biopython wants data_ in small letters, CIF does not.
        whole = _CIF_DATA.sub("data_", text, count=1) if start < 0 else f"data_\n{text}"
        parsed = MMCIF2Dict(io.StringIO(whole))
    except ZeroDivisionError as error:
        raise StructureError("a loop_ of the _atom_site table has values and no column names") from error
    found = {name.lower().removeprefix("_atom_site."): column for name, column in parsed.items()}
    for field in _CIF_REQUIRED:
        if not found.keys() & set(_CIF_COLUMNS[field]):
            raise StructureError(f"the _atom_site table has no column {' or '.join(_CIF_COLUMNS[field])}")
    length = len(found["cartn_x"])
    columns = {}
    for field, names in _CIF_COLUMNS.items():
        choices = [found[name] for name in names if name in found]
        if any(len(choice) != length for choice in choices):
            raise StructureError("the _atom_site table ends in the middle of a row; the file is truncated")
        rows = zip(*choices, strict=True) if choices else [("",)] * length
        unknown = () if field in _CIF_COORDINATES else (".", "?")
        columns[field] = [next((v for v in row if v not in unknown), "") for row in rows]
    if not length:
        raise StructureError("the _atom_site table has no row")
    return columns


def _require_protein(names: set[tuple[str, str]]) -> None:
    """names: (residue name, atom name) of all atoms; an unknown residue with a CA passes as an amino acid."""
    if not any(is_polymer(residue) or (atom == "CA" and residue not in IONS) for residue, atom in names):
        residues = ", ".join(sorted({clean_name(residue) for residue, _ in names})[:10])
        raise StructureError(f"has no protein or nucleic acid atoms, only {residues}")


def is_near(pos: np.ndarray, tree: cKDTree, radius: float) -> np.ndarray:
    # The bound itself is excluded by query, and belongs to the pocket.
    return np.isfinite(tree.query(pos, distance_upper_bound=np.nextafter(radius, np.inf))[0])
