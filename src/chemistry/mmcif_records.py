"""mmCIF text -> one record per atom of the models that are read, by Biopython.

The auth_ identifiers are used, the label_ ones where they are missing; a molecule that is no polymer may have neither
number, and gets 0. Format: https://mmcif.wwpdb.org/dictionaries/mmcif_pdbx_v50.dic/Categories/atom_site.html
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from itertools import compress

import numpy as np
from Bio.PDB.MMCIF2Dict import MMCIF2Dict

from src.chemistry.atoms import MAX_COORDINATE, StructureError, clean_name
from src.chemistry.models import ModelStart, models_to_read
from src.chemistry.pdb_records import Record, require_protein
from src.chemistry.residues import atomic_number, is_polymer

_ATOM_SITE = b"_atom_site."
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
_CIF_REQUIRED = ("name", "residue", "number", "x", "y", "z")  # Open Babel writes no chains


def is_mmcif(data: bytes) -> bool:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:1] == b"<":
        raise StructureError("is an HTML or XML page; download the .pdb or .cif file itself")
    if b"\0" in head:
        raise StructureError("is a binary file; expected the text of a PDB or mmCIF file")
    if b"@<TRIPOS>" in data or b"\nM  END" in data or b"\rM  END" in data:
        raise StructureError("is a MOL2 or SDF file; expected the protein as PDB or mmCIF")
    lower = data.lower()
    return _ATOM_SITE in lower and any(line.lstrip().startswith(_ATOM_SITE) for line in lower.splitlines())


def mmcif_records(data: bytes, notes: list[str]) -> list[Record]:
    columns = mmcif_columns(data)
    require_protein(set(zip(columns["residue"], columns["name"], strict=True)))
    return _records_of_read_models(list(records_of(columns)), columns["model"], notes)


def records_of(columns: dict[str, list[str]]) -> Iterator[Record]:
    """Every row of the _atom_site table, hydrogens too."""
    for row, values in enumerate(zip(*columns.values(), strict=True), start=1):
        atom = dict(zip(columns, values, strict=True))
        if not atom["number"] and is_polymer(atom["residue"]):
            name = clean_name(atom["residue"])
            raise StructureError(f"row {row} of _atom_site: {name} has neither auth_seq_id nor label_seq_id")
        try:
            # Waters and ligands have no place in a chain.
            residue = (atom["chain"], int(atom["number"] or 0), atom["insertion"], atom["residue"])
            # A number may carry its standard deviation: 1.234(5).
            pos = tuple(float(atom[axis].split("(")[0]) for axis in "xyz")
            occupancy = float(atom["occupancy"].split("(")[0] or 1.0)
        except ValueError as error:
            raise StructureError(f"row {row} of _atom_site{_bad_value(atom)}") from error
        if not all(abs(x) <= MAX_COORDINATE for x in pos):
            raise StructureError(f"row {row} of _atom_site has a coordinate that is not finite or beyond 99,999 Å")
        # A blank in front: names of mmCIF are not aligned, so only the first letter may stand for an element.
        element = atomic_number(" " + atom["name"], residue[3], atom["element"])
        occupancy = occupancy if math.isfinite(occupancy) else 1.0
        yield Record(*residue, atom["name"], element, atom["altloc"], occupancy, pos)


def _records_of_read_models(records: list[Record], models: list[str], notes: list[str]) -> list[Record]:
    if len(set(models)) == 1:
        return records
    heavy = [record.element != 1 for record in records]
    records, models = list(compress(records, heavy)), list(compress(models, heavy))
    number_of = {model: number for number, model in enumerate(dict.fromkeys(models))}
    numbers = np.array([number_of[model] for model in models])
    order = np.argsort(numbers, kind="stable")  # the rows of one model need not stand together
    records = [records[row] for row in order.tolist()]
    starts = [ModelStart(row, True) for row in np.flatnonzero(np.diff(numbers[order], prepend=-1)).tolist()]
    identity: dict[tuple, int] = {}
    codes = [identity.setdefault((*record[:5], record.altloc), len(identity)) for record in records]
    read = models_to_read(starts, np.array(codes), np.array([record.pos for record in records]), notes)
    return [records[row] for row in np.flatnonzero(read).tolist()]


def _bad_value(atom: dict[str, str]) -> str:
    """Which value of a row is not a number."""
    for field, column in {**_CIF_COORDINATES, "occupancy": "occupancy"}.items():
        try:
            float(atom[field].split("(")[0] or (1.0 if field == "occupancy" else "none"))
        except ValueError:
            what = "an occupancy" if field == "occupancy" else "a coordinate"
            return f", column {column}: {clean_name(atom[field])!r} is not {what}"
    return f": {clean_name(atom['number'])!r} is not a residue number"


def cif_table(data: bytes, category: bytes) -> dict[str, list[str]]:
    """Column (in small letters, without the category) -> its values, of one table of a file; {} where it has none.

    Args:
        category: such as b"_atom_site." in small letters.

    Raises:
        ValueError, StructureError: the text is damaged.
    """
    lines = data.splitlines()
    starts = [line.lstrip()[: len(category)].lower() for line in lines]
    if category not in starts:
        return {}
    try:
        parsed = MMCIF2Dict(io.StringIO(_table(lines, starts, category).decode("utf-8", errors="replace")))
    except ZeroDivisionError as error:
        name = category.decode().strip(".")
        raise StructureError(f"a loop_ of the {name} table has values and no column names") from error
    prefix = category.decode()
    return {
        name.lower().removeprefix(prefix): column for name, column in parsed.items() if name.lower().startswith(prefix)
    }


def _table(lines: list[bytes], starts: list[bytes], category: bytes) -> bytes:
    """The one table that matters, for Biopython reads character by character; everything if it is no loop_.

    Line by line, for a search over line ends can take time that grows with the square of the blank lines.
    """
    first = starts.index(category)
    loop = next((number for number in range(first - 1, -1, -1) if starts[number].startswith(b"loop_")), None)
    if loop is not None and any(start[:1] == b"_" for start in starts[loop + 1 : first]):
        loop = None  # of another table
    if loop is None:
        end = next((number for number in range(first, len(lines)) if _ends_table(starts[number], category)), len(lines))
        return b"\n".join([b"data_", *lines[first:end]])
    end = next((number for number in range(loop + 1, len(lines)) if _ends_table(starts[number], category)), len(lines))
    return b"\n".join([b"data_", *lines[loop:end]])


def _ends_table(start: bytes, category: bytes) -> bool:
    return start.startswith((b"loop_", b"data_")) or (start.startswith(b"_") and start != category)


def mmcif_columns(data: bytes, more: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, list[str]]:
    """The needed columns of _atom_site as text, names in capitals; '.' and '?' become '', except in coordinates, which
    cannot lack.

    Args:
        more: name -> columns of the table, the first choice first, beside those of every protein.
    """
    found = cif_table(data, _ATOM_SITE)
    for field in _CIF_REQUIRED:
        if not found.keys() & set(_CIF_COLUMNS[field]):
            raise StructureError(f"the _atom_site table has no column {' or '.join(_CIF_COLUMNS[field])}")
    length = len(found["cartn_x"])
    columns = {}
    for field, names in {**_CIF_COLUMNS, **(more or {})}.items():
        choices = [found[name] for name in names if name in found]
        if any(len(choice) != length for choice in choices):
            raise StructureError("the _atom_site table ends in the middle of a row; the file is truncated")
        rows = zip(*choices, strict=True) if choices else [("",)] * length
        unknown = () if field in _CIF_COORDINATES else (".", "?")
        columns[field] = [next((v for v in row if v not in unknown), "") for row in rows]
    if not length:
        raise StructureError("the _atom_site table has no row")
    named = {field: [text.upper() for text in columns[field]] for field in ("residue", "name")}
    return columns | named
