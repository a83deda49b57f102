"""mmCIF text -> one record per atom of the models that are read, by Biopython.

The auth_ identifiers are used, the label_ ones where they are missing; a molecule that is no polymer may have neither
number, and gets 0. Format: https://mmcif.wwpdb.org/dictionaries/mmcif_pdbx_v50.dic/Categories/atom_site.html
"""

from __future__ import annotations

import io
import math
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
    columns = _mmcif_columns(data)
    columns["residue"] = [name.upper() for name in columns["residue"]]
    columns["name"] = [name.upper() for name in columns["name"]]
    require_protein(set(zip(columns["residue"], columns["name"], strict=True)))
    records = []
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
        records.append(Record(*residue, atom["name"], element, atom["altloc"], occupancy, pos))
    return _records_of_read_models(records, columns["model"], notes)


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


def _table(data: bytes) -> bytes:
    """The one table that matters, for Biopython reads character by character; everything if it is no loop_.

    Line by line, for a search over line ends can take time that grows with the square of the blank lines.
    """
    lines = data.splitlines()
    starts = [line.lstrip()[: len(_ATOM_SITE)].lower() for line in lines]
    first = starts.index(_ATOM_SITE)
    loop = next((number for number in range(first - 1, -1, -1) if starts[number].startswith(b"loop_")), None)
    if loop is None:
        # Biopython wants data_ in small letters, CIF does not.
        named = next((number for number in range(first) if starts[number].startswith(b"data_")), None)
        if named is not None:
            lines[named] = b"data_" + lines[named].lstrip()[len(b"data_") :]
        return b"\n".join(lines)
    end = next((number for number in range(loop + 1, len(lines)) if _ends_table(starts[number])), len(lines))
    return b"\n".join([b"data_", *lines[loop:end]])


def _ends_table(start: bytes) -> bool:
    return start.startswith((b"loop_", b"data_")) or (start.startswith(b"_") and start != _ATOM_SITE)


def _mmcif_columns(data: bytes) -> dict[str, list[str]]:
    """The needed columns of _atom_site as text; '.' and '?' become '', except in coordinates, which cannot lack."""
    try:
        parsed = MMCIF2Dict(io.StringIO(_table(data).decode("utf-8", errors="replace")))
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
