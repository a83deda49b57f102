"""Ligand files, folders, standard input and tables of pairs -> a stream of poses to score, one at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from src.atoms import STANDARD_INPUT, StructureError
from src.ligands import LigandRecord, ligand_records

LIGAND_ENDINGS = (".sdf", ".sdf.gz", ".mol2", ".mol2.gz")
PROTEIN_COLUMNS = ("protein_path", "protein", "protein_file", "receptor", "receptor_path", "pocket_path", "pocket")
LIGAND_COLUMNS = ("ligand_path", "ligand", "ligand_file")


class PoseError(ValueError):
    """What should be scored cannot be found; the message names the path and what would be right."""


@dataclass(frozen=True)
class Pose:
    """One molecule of a ligand file in the frame of a protein, or the reason why there is none."""

    protein: Path
    ligand: Path
    number: int  # of the molecule in its file, from 1
    record: LigandRecord | None  # None: the file cannot be read from here on
    failure: str = ""
    given: tuple[str, ...] = ()  # the cells of its row in a table of pairs


def find_ligands(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and the ligand files of folders, sorted by name; '-' is standard input.

    Raises:
        PoseError: a path is not there, or a folder has no ligand file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("[!.]*") if one.name.lower().endswith(LIGAND_ENDINGS))
            if not inside:
                raise PoseError(f"{path}: no file in this folder ends in {', '.join(LIGAND_ENDINGS)}")
            found += inside
        elif path == STANDARD_INPUT or path.exists():
            found.append(path)
        else:
            raise PoseError(f"{path}: there is no such file or folder")
    return found


def iter_poses(protein: Path, ligands: Sequence[Path], given: tuple[str, ...] = ()) -> Iterator[Pose]:
    """Every molecule of the ligand files, in order.

    A file that cannot be read is one pose with the reason, unless it is the only one.

    Raises:
        LigandError: the only file cannot be read: it is missing, of another kind, damaged or empty.
    """
    for path in ligands:
        pose = Pose(protein, path, 0, None, given=given)
        try:
            for record in ligand_records(path):
                pose = replace(pose, number=record.number, record=record)
                yield pose
        except StructureError as error:
            if len(ligands) == 1 and pose.number == 0:
                raise
            yield replace(pose, number=pose.number + 1, record=None, failure=str(error))


@dataclass(frozen=True)
class PairTable:
    """A table with a protein and a ligand file in each row; paths start from the folder of the table."""

    path: Path
    columns: tuple[str, ...]
    delimiter: str

    def poses(self) -> Iterator[Pose]:
        """The poses of every row, in order; a row that cannot be used is one pose with the reason.

        Raises:
            PoseError: the text of the table is damaged.
        """
        protein, ligand = (_place(self.path, self.columns, names) for names in (PROTEIN_COLUMNS, LIGAND_COLUMNS))
        rows = _rows(self.path, self.delimiter)
        next(rows)
        for number, cells in rows:
            if not any(map(str.strip, cells)):
                continue
            given = (*cells, *[""] * (len(self.columns) - len(cells)))[: len(self.columns)]
            files = [self._file(given[place]) for place in (protein, ligand)]
            failed = Pose(files[0], files[1], 1, None, given=given)
            if len(cells) > len(self.columns):
                yield replace(failed, failure=f"line {number}: {len(cells)} cells under {len(self.columns)} names")
                continue
            try:
                yield from iter_poses(files[0], files[1:], given)
            except StructureError as error:
                yield replace(failed, failure=str(error))

    def _file(self, text: str) -> Path:
        return self.path.parent / os.path.expanduser(text.strip())


def read_pairs(path: Path) -> PairTable:
    """Read the header of a .csv or .tsv file (comma, semicolon or tab).

    Raises:
        PoseError: the file is missing or empty, or has no columns for protein and ligand.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            delimiter = max(",;\t", key=file.readline().count)
    except (OSError, UnicodeDecodeError) as error:
        raise PoseError(f"{path}: cannot be read as a table: {error}") from error
    _, names = next(_rows(path, delimiter), (0, []))
    columns = tuple(name.strip() for name in names)
    for wanted in (PROTEIN_COLUMNS, LIGAND_COLUMNS):
        _place(path, columns, wanted)
    if len(set(columns)) < len(columns):
        raise PoseError(f"{path}: two columns have one name: {', '.join(columns)}")
    return PairTable(path, columns, delimiter)


def _place(path: Path, columns: Sequence[str], names: Sequence[str]) -> int:
    lower = [column.lower() for column in columns]
    for name in names:
        if name in lower:
            return lower.index(name)
    found = ", ".join(columns) or "empty"
    raise PoseError(f"{path}: the header is {found}; a column {names[0]} is needed (or {', '.join(names[1:])})")


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row; a cell in quotes may span lines."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            yield from ((reader.line_num, cells) for cells in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PoseError(f"{path}: cannot be read as a table: {error}") from error
