"""A file of SMILES, as a list or as a table, -> molecules to pose, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.chemistry.atoms import clean_name, iter_lines
from src.chemistry.ligands import LigandRecord, ligand_records
from src.scoring.poses import Pose, PoseError, column_place, is_empty_row, read_columns, table_rows

LIST_ENDINGS, TABLE_ENDINGS = (".smi", ".smiles", ".ism", ".smi.gz"), (".csv", ".tsv")
SMILES_COLUMNS = ("smiles", "canonical_smiles", "isomeric_smiles")
NAME_COLUMNS = ("name", "title", "id", "ligand", "compound", "code")
KIND = "smiles"  # of a record: its text is a title and, in the second line, the SMILES

_LINE = re.compile(r"(\S+)((?:\s+\|[^|]*\|)?)\s*(.*)")  # SMILES, extensions of ChemAxon, title


def is_smiles_file(path: Path) -> bool:
    return path.name.lower().endswith((*LIST_ENDINGS, *TABLE_ENDINGS))


@dataclass(frozen=True)
class SmilesFile:
    """Molecules as drawn for one protein; a table has columns, a list has none."""

    protein: Path
    path: Path
    columns: tuple[str, ...] = ()

    def poses(self) -> Iterator[Pose]:
        """A pose without coordinates for each molecule, in order; a row that cannot be used has its reason."""
        for number, (fault, smiles, title, given) in enumerate(self._molecules(), start=1):
            record = LigandRecord(self.path, KIND, number, f"{clean_name(title) or clean_name(smiles)}\n{smiles}\n")
            yield Pose(self.protein, self.path, number, None if fault else record, fault, given)

    def _molecules(self) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
        """(what is wrong with the row, SMILES, title, cells)"""
        if not self.columns:
            for line, raw in enumerate(iter_lines(self.path), start=1):
                text = raw.decode("utf-8-sig", errors="replace").strip()
                smiles, extension, title = _LINE.fullmatch(text).groups() if text else ("", "", "")
                if text and not (line == 1 and smiles.lower() in SMILES_COLUMNS):
                    yield "", smiles + " " * bool(extension) + extension.strip(), title, ()
            return
        place = column_place(self.path, self.columns, SMILES_COLUMNS)
        names = [self.columns.index(name) for name in self.columns if name.lower() in NAME_COLUMNS]
        rows = table_rows(self.path)
        next(rows)
        for line, cells in rows:
            if is_empty_row(cells):
                continue
            given = (*cells, *[""] * (len(self.columns) - len(cells)))[: len(self.columns)]
            fault = "" if given[place].strip() else f"line {line}: {self.columns[place]} is empty"
            if len(cells) > len(self.columns):
                fault = f"line {line}: {len(cells)} cells under {len(self.columns)} names"
            yield fault, given[place].strip(), given[names[0]] if names else "", given


def read_smiles_file(protein: Path, path: Path) -> SmilesFile:
    """A list (.smi: SMILES, blank, title) or a table (.csv or .tsv with a column smiles, the others are kept).

    Raises:
        PoseError: the file is missing, empty or damaged, or a table has no column smiles.
        StructureError: the file cannot be read.
    """
    is_table = path.name.lower().endswith(TABLE_ENDINGS)
    found = SmilesFile(protein, path, read_columns(path, [SMILES_COLUMNS]) if is_table else ())
    if next(found.poses(), None) is None:
        raise PoseError(f"{path}: has no SMILES; expected a SMILES and a title in each line")
    return found


def read_templates(paths: Sequence[Path]) -> tuple[LigandRecord, ...]:
    """Every molecule of the files: the crystal ligands, still as text.

    Raises:
        LigandError: a file is missing, of another kind, damaged or empty.
    """
    return tuple(record for path in paths for record in ligand_records(path))
