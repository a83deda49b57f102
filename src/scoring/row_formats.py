"""Predictions as rows of text: CSV, JSON, and SDF with the molecules."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from rdkit import Chem, rdBase

from src.chemistry.aromatic_bonds import has_aromatic_bonds
from src.chemistry.ligand_parsing import parse_ligand
from src.chemistry.ligand_typing import Sanitisation, settled
from src.chemistry.ligands import LigandRecord
from src.scoring.poses import Pose
from src.system.storage import csv_line

_MARK = "predict.py_items"  # the data item that names those which were written here


class RowFormat:
    """Rows as text, and what stands before and behind all of them in a file."""

    head, tail = "", ""

    def __init__(self, columns: Sequence[str]):
        self.columns = columns

    def row(self, row: Mapping[str, object], pose: Pose, *, first: bool, scored: bool) -> str:
        raise NotImplementedError


class CsvRows(RowFormat):
    def __init__(self, columns: Sequence[str]):
        super().__init__(columns)
        self.head = csv_line(columns)

    def row(self, row: Mapping[str, object], pose: Pose, *, first: bool, scored: bool) -> str:
        return csv_line("" if row.get(name) is None else row[name] for name in self.columns)


class JsonRows(RowFormat):
    """One array with an object on each line."""

    head, tail = "[", "\n]\n"

    def row(self, row: Mapping[str, object], pose: Pose, *, first: bool, scored: bool) -> str:
        values = {name: row.get(name) for name in self.columns}
        return ("\n" if first else ",\n") + json.dumps(values, ensure_ascii=False, allow_nan=False)


class SdfRows(RowFormat):
    """The molecule, and each column that has a value as a data item.

    The items of the molecule stay, but for those that an earlier run of this program left, which the item _MARK lists.
    Where it has an item of the name of a column, the column's begins with `predicted_`, or with `table_` when it comes
    from a table of pairs.
    """

    def row(self, row: Mapping[str, object], pose: Pose, *, first: bool, scored: bool) -> str:
        block, items = split_items(_record(pose, str(row.get(self.columns[len(pose.given)], "")), scored))
        earlier = _earlier_items(items)
        items = [(name, text) for name, text in items if name not in earlier]
        users = [name for name, _ in items]
        taken = {*users, _MARK}
        for number, column in enumerate(self.columns):
            is_given, value = number < len(pose.given), row.get(column)
            # An empty item beside the user's says that theirs is none of ours.
            if value in (None, "") and (is_given or _item_name(column) not in taken):
                continue
            name = free_name(_item_name(column), taken, "table_" if is_given else "predicted_")
            taken.add(name)
            items.append((name, f"> <{name}>\n{'' if value is None else on_a_line(value)}\n\n"))
        own = json.dumps([name for name, _ in items[len(users) :]])
        return block + "".join(text for _, text in items) + f"> <{_MARK}>\n{own}\n\n$$$$\n"


def row_format(path: Path, columns: Sequence[str]) -> RowFormat:
    """By the ending of the file, without .gz."""
    return {"csv": CsvRows, "json": JsonRows, "sdf": SdfRows}[path.name.removesuffix(".gz").rpartition(".")[2]](columns)


def own_names(names: Sequence[str], given: Collection[str]) -> dict[str, str]:
    """Names of our columns beside the user's, in any case: as they are, or all with one prefix where one is taken.

    A user's measured pK beside our pK_low and pK_high alone would be taken for ours.
    """
    prefix, taken = "", {name.lower() for name in given}
    while any((prefix + name).lower() in taken for name in names):
        prefix += "predicted_"
    return {name: prefix + name for name in names}


def free_name(name: str, taken: Collection[str], prefix: str = "predicted_") -> str:
    """The name, with the prefix where somebody else's column or item has it already."""
    while name in taken:
        name = f"{prefix}{name}"
    return name


def split_items(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A molecule of an SDF without its data items, and the name and the text, header line included, of each.

    An item begins with a line in '>' below the molecule or an empty line (CTfile formats, BIOVIA 2020).
    """
    lines = list(io.StringIO(text))
    first = next((number for number, line in enumerate(lines) if line.startswith("M  END")), 3) + 1
    starts = [
        number
        for number in range(first, len(lines))
        if lines[number].startswith(">") and (number == first or not lines[number - 1].strip())
    ]
    items = []
    for start, end in pairwise([*starts, len(lines)]):
        name = re.search(r"<(.*)>", lines[start])
        items.append((name[1] if name else "", "".join(lines[start:end])))
    return "".join(lines[: starts[0]] if starts else lines), items


def _earlier_items(items: Iterable[tuple[str, str]]) -> set[str]:
    """Names of the items that an earlier run left, as it says itself; none where it says nothing."""
    for name, text in items:
        if name == _MARK:
            try:
                names = json.loads(text.partition("\n")[2])
            except ValueError:  # somebody has changed it
                names = []
            return {_MARK, *(one for one in names if isinstance(one, str))} if isinstance(names, list) else {_MARK}
    return set()


def _record(pose: Pose, name: str, scored: bool) -> str:
    """The molecule of a pose as a record of an SDF, with its data items.

    An SDF stays as it is, unless RDKit cannot read it or it has aromatic bonds, of which every reader makes its own.
    """
    is_pose = pose.record is not None and pose.record.kind in ("sdf", "mol2")  # SMILES are none
    text = pose.record.text if is_pose else ""
    block = _mol_block(pose.record, scored) if text else ""
    if text and pose.record.kind == "sdf":
        # A data field ends with an empty line.
        text = text if text.rstrip().endswith("M  END") or text.endswith("\n\n") else text.rstrip("\n") + "\n\n"
        head, items = text.split("\n", 3)[:3], "".join(item for _, item in split_items(text)[1])
        return "\n".join([*head, block.split("\n", 3)[3] + items]) if block else text
    return block or f"{on_a_line(name)}\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"


def _mol_block(record: LigandRecord, scored: bool) -> str:
    """With the bond orders and charges that were scored; '' for damage, and for an SDF that can stay as it is."""
    is_sdf = record.kind == "sdf"
    with rdBase.BlockLogs(), contextlib.suppress(ValueError, RuntimeError):  # all of RDKit's own are one of these
        if is_sdf and not scored:
            return ""  # who knows what it would end
        mol = parse_ligand(record.text, record.kind)[0]
        if mol is None or (is_sdf and not has_aromatic_bonds(mol) and _is_plain(record.text)):
            return ""
        if scored:
            # The last of the ways to read it, which overlooks what others do not.
            mol, _ = settled(mol, how=Sanitisation.PARTIAL, states_charges=is_sdf)
            mol.UpdatePropertyCache(strict=False)
        if mol.HasProp("_Name"):
            mol.SetProp("_Name", on_a_line(mol.GetProp("_Name")))
        return Chem.MolToMolBlock(mol, kekulize=False, forceV3000=is_sdf and "V3000" in record.text.split("\n", 4)[3])
    return ""


def _is_plain(text: str) -> bool:
    """Whether RDKit reads a record by itself, and as a molecule without queries."""
    mol = Chem.MolFromMolBlock(text, removeHs=False)
    return mol is not None and not any(atom.HasQuery() for atom in mol.GetAtoms())


def on_a_line(value: object) -> str:
    """The value on one line in which no reader, however simple, sees the four dollar signs that end a record."""
    return re.sub(r"\$\$(?=\$\$)", "$$ ", " ".join(str(value).split()))


def _item_name(column: str) -> str:
    """The column's name without the brackets that names of data items stand in."""
    return on_a_line(re.sub(r"[<>]+", " ", column)) or "column"
