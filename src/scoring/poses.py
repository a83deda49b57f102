"""Ligand files, folders, standard input and tables of pairs -> a stream of poses to score, one at a time."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from src.chemistry.atoms import STANDARD_INPUT, StructureError, clean_name
from src.chemistry.ligands import LigandError, LigandRecord, ligand_records
from src.chemistry.structure_ligands import COMPLEX, KINDS, is_molecule_file, stem, structure_kind, structure_records
from src.system.errors import UserError

log = logging.getLogger(__name__)

LIGAND_ENDINGS = tuple(
    ending + packed for ending in (".sdf", ".sd", ".mol", ".mol2", ".pdbqt") for packed in ("", ".gz")
)
PROTEIN_COLUMNS = ("protein_path", "protein", "protein_file", "receptor", "receptor_path", "pocket_path", "pocket")
MAX_COLUMNS = 1000
LIGAND_COLUMNS = ("ligand_path", "ligand", "ligand_file")
COMPLEX_COLUMNS = ("complex_path",)
SMILES_COLUMN, RESIDUE_COLUMN = "smiles", "ligand_residue"

_NO_UTF8 = "cannot be read as a table: it is not UTF-8 text; save it as CSV UTF-8"


class PoseError(UserError):
    """What should be scored cannot be found; the message names the path and what would be right."""


@dataclass(frozen=True)
class Pose:
    """One molecule of a ligand file in the frame of a protein, or the reason why there is none."""

    protein: Path
    ligand: Path
    number: int  # number of the molecule in its file, from 1
    record: LigandRecord | None  # None: the file cannot be read from here on
    failure: str = ""
    given: tuple[str, ...] = ()  # the cells of its row in a table of pairs
    smiles: str = ""  # the user's, or a file with the molecule, for a record without bond orders
    residue: str = ""  # the user's word for the ligand of a complex

    @property
    def title(self) -> str:
        """Of the molecule; '' where there is none, for which Open Babel writes asterisks."""
        if self.record is not None and self.record.kind in KINDS:
            return ""
        is_mol2 = self.record is not None and self.record.kind == "mol2"
        if self.record is None or (is_mol2 and not self.record.text.startswith("@<TRIPOS>MOLECULE")):
            return ""
        return clean_name(self.record.text.split("\n", 2)[1 if is_mol2 else 0].strip("*"))

    @property
    def place(self) -> str:
        """The name of a molecule that cannot be read: its file and number, for its title is not to be believed."""
        if self.record is not None and self.record.kind == COMPLEX:
            return stem(self.ligand)
        return f"{self.ligand.name}, molecule {self.number}" if self.ligand.name else "no file"

    @property
    def name(self) -> str:
        return self.title or self.place


def find_ligands(
    paths: Iterable[Path], *, leave_out: Path | None = None, endings: tuple[str, ...] = LIGAND_ENDINGS
) -> list[Path]:
    """Files as they are given, and those of folders with these endings, sorted by name; '-' is standard input.

    Args:
        leave_out: a file that is none of a folder's ligands, whatever its name says.

    Raises:
        PoseError: a path is not there, or a folder has no such file.
    """
    found: list[Path] = []
    unused: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            inside, others = _inside(path, leave_out, endings)
            if not inside:
                there = f"; it has {_counts(others)}" if others else ""
                raise PoseError(f"{path}: no file in this folder ends in {', '.join(endings)}{there}")
            found += inside
            unused += others
        elif path == STANDARD_INPUT or path.exists():
            found.append(path)
        else:
            raise PoseError(f"{path}: there is no such file or folder")
    if unused:
        log.warning("files of the folders that are not scored: %s", _counts(unused))
    return found


def require_protein(path: Path) -> None:
    """Refuse what is plainly a ligand before any work is done.

    Raises:
        PoseError: the protein is a ligand file.
    """
    if _is_ligand_file(path):
        raise PoseError(f"{path}: is a ligand file (SDF or MOL2) and not a protein; are protein and ligand swapped?")


def iter_complexes(
    paths: Iterable[Path], given: tuple[str, ...] = (), smiles: str = "", residue: str = ""
) -> Iterator[Pose]:
    """A pose for each complex, which is its own protein; whoever reads the pose looks for the ligand in it."""
    for path in paths:
        yield Pose(path, path, 1, LigandRecord(path, COMPLEX, 1, ""), "", given, smiles, residue)


def iter_poses(protein: Path, ligands: Sequence[Path], given: tuple[str, ...] = (), smiles: str = "") -> Iterator[Pose]:
    """Every molecule of the ligand files, in order.

    A file that cannot be read is one pose with the reason, unless it is the only one.

    Args:
        smiles: of the molecule in PDB and PDBQT files, or the path of an SDF of it.

    Raises:
        LigandError: the only file cannot be read: it is missing, of another kind, damaged or empty.
    """
    for path in ligands:
        pose = Pose(protein, path, 0, None, given=given, smiles=smiles)
        try:
            for record in (structure_records if structure_kind(path) else ligand_records)(path):
                pose = replace(pose, number=record.number, record=record)
                yield pose
        except StructureError as error:
            reason = _reason(path, error) if pose.number == 0 else str(error)
            if len(ligands) == 1 and pose.number == 0:
                raise LigandError(reason) from error
            yield replace(pose, number=pose.number + 1, record=None, failure=reason)


@dataclass(frozen=True)
class PairTable:
    """A table with a protein and a ligand file, or a complex, in each row; paths start from the folder of the table."""

    path: Path
    columns: tuple[str, ...]

    def poses(self) -> Iterator[Pose]:
        """The poses of every row, in order; a row that cannot be used is one pose with the reason.

        Raises:
            PoseError: the text of the table is damaged.
        """
        for number, cells in self._cells():
            given = (*cells, *[""] * (len(self.columns) - len(cells)))[: len(self.columns)]
            places = self._places(given)
            files = [self._file(given[place]) for place in places]
            failed = Pose(files[0], files[-1], 1, None, given=given)
            if len(cells) > len(self.columns):
                yield replace(failed, failure=f"line {number}: {len(cells)} cells under {len(self.columns)} names")
                continue
            if empty := [self.columns[place] for place in places if not given[place].strip()]:
                fault = f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"
                yield replace(failed, failure=f"line {number}: {fault}")
                continue
            if len(missing := [file for file in files if not file.exists()]) > 1:
                yield replace(failed, failure=f"{' and '.join(map(str, missing))}: there are no such files")
                continue
            try:
                smiles, residue = (self._cell(given, name) for name in (SMILES_COLUMN, RESIDUE_COLUMN))
                if len(files) == 1:
                    yield from iter_complexes(files, given, smiles, residue)
                else:
                    yield from iter_poses(files[0], files[1:], given, smiles)
            except StructureError as error:
                hint = "; are protein and ligand swapped?" if _is_ligand_file(files[0]) else ""
                yield replace(failed, failure=f"{error}{hint}")

    def files(self) -> Iterator[Path]:
        """The files that the rows name."""
        for _, cells in self._cells():
            yield from (self._file(cells[place]) for place in self._places(cells) if place < len(cells))

    def _places(self, cells: Sequence[str]) -> list[int]:
        """Of the files of a row: its complex, or its protein and ligand where the table has both and a row these."""
        ways = [[column_place(self.path, self.columns, names) for names in way] for way in _ways(self.columns)]
        return next((way for way in ways if all(place < len(cells) and cells[place].strip() for place in way)), ways[0])

    def _cell(self, given: Sequence[str], name: str) -> str:
        """Of a column that there may be; the path of a molecule starts from the folder of the table."""
        places = [place for place, column in enumerate(self.columns) if column.lower() == name]
        text = given[places[0]].strip() if places else ""
        return str(self._file(text)) if name == SMILES_COLUMN and is_molecule_file(text) else text

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        rows = table_rows(self.path)
        next(rows)
        return ((number, cells) for number, cells in rows if not is_empty_row(cells))

    def _file(self, text: str) -> Path:
        return self.path.parent / os.path.expanduser(text.strip()) if text.strip() else Path()


def read_pairs(path: Path) -> PairTable:
    """Read a .csv or .tsv file to its end, to see whether it is whole.

    Between cells stand commas, semicolons or tabs, or what a first line such as `sep=;` says.

    Raises:
        PoseError: the file is missing, empty, damaged or not UTF-8, or lacks rows or columns for protein and ligand.
    """
    _, names = next(table_rows(path), (0, []))
    return PairTable(path, read_columns(path, _ways(names)[0]))


def _ways(columns: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """Names of the columns with the files of a row, for each way in which the table can give them, at least one."""
    there = {column.strip().lower() for column in columns}
    ways = [[COMPLEX_COLUMNS], [PROTEIN_COLUMNS, LIGAND_COLUMNS]]
    found = [way for way in ways if not any(there.isdisjoint(names) for names in way)]
    return found or ways[1:]


def read_columns(path: Path, needed: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The names in the header of a table that is whole and has rows; errors as of read_pairs.

    Args:
        needed: names that mean one column, of which there must be one.
    """
    for _ in table_rows(path, whole=True):
        pass
    rows = table_rows(path)
    _, names = next(rows, (0, []))
    columns = tuple(name.strip() for name in names)
    for wanted in needed:
        column_place(path, columns, wanted)
    if len(columns) > MAX_COLUMNS:
        raise PoseError(f"{path}: {len(columns)} columns; at most {MAX_COLUMNS}, for each row of scores repeats them")
    if len(set(columns)) < len(columns):
        raise PoseError(f"{path}: two columns have one name: {', '.join(columns)}")
    if all(is_empty_row(cells) for _, cells in rows):
        raise PoseError(f"{path}: has no rows below its header")
    return columns


def is_empty_row(cells: Sequence[str]) -> bool:
    return not any(map(str.strip, cells))


def _inside(folder: Path, leave_out: Path | None, endings: tuple[str, ...]) -> tuple[list[Path], Counter[str]]:
    """The files of a folder to score, and how many others of each kind there are; what --explain wrote is neither."""
    ligands: list[Path] = []
    others: Counter[str] = Counter()
    for path in folder.rglob("[!.]*"):
        if path.is_dir() or (path.parent / "explanation.html").exists():
            continue
        if leave_out and path.name == leave_out.name and _is_same(path, leave_out):
            continue
        name = path.name.lower()
        if name.endswith(endings):
            ligands.append(path)
        elif not (leave_out and path.name.startswith(leave_out.name)):  # what lies beside it belongs to it
            ending = "".join(Path(name.removesuffix(".gz")).suffixes[-1:]) + ".gz" * name.endswith(".gz")
            others[ending or "without an ending"] += 1
    return sorted(ligands), others


def _is_same(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):  # a link to nothing is no file
        return path.samefile(other)
    return False


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _is_ligand_file(path: Path) -> bool:
    try:
        return path != STANDARD_INPUT and next(ligand_records(path), None) is not None
    except StructureError:
        return False


def _reason(path: Path, error: StructureError) -> str:
    """Why nothing could be read from a ligand file."""
    if path == STANDARD_INPUT:
        return re.sub(r"^-: (?=(is|has|holds|cannot) )", "standard input ", str(error))
    try:
        with open(path, "rb") as file:
            start = file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        start = b""
    if start.startswith((b"<!doctype html", b"<html")):
        return f"{path}: is an HTML page, as a download leaves it that failed or asked to log in; expected SDF or MOL2"
    return str(error)


def column_place(path: Path, columns: Sequence[str], names: Sequence[str]) -> int:
    """Of the column that has one of the names; raises PoseError where there is none."""
    lower = [column.lower() for column in columns]
    for name in names:
        if name in lower:
            return lower.index(name)
    found = ", ".join(columns) or "empty"
    raise PoseError(f"{path}: the header is {found}; a column {names[0]} is needed (or {', '.join(names[1:])})")


def table_rows(path: Path, *, whole: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row, the header first; a cell in quotes may span lines.

    Args:
        whole: see whether every quotation mark has its partner, else the rest of the table is one cell.
    """
    line = 1  # that a row begins in
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            if "\0" in first:  # UTF-16 without its mark
                raise PoseError(f"{path}: {_NO_UTF8}")
            stated = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)  # Excel's
            lines, skipped = (file, 1) if stated else (chain([first], file), 0)
            delimiter = stated[1] if stated else max(",;\t", key=first.count)
            reader = csv.reader(lines, delimiter=delimiter, strict=whole)
            line += skipped
            for cells in reader:
                yield reader.line_num + skipped, cells
                line = reader.line_num + skipped + 1
    except UnicodeDecodeError as error:
        raise PoseError(f"{path}: {_NO_UTF8}") from error
    except csv.Error as error:
        if whole and "unexpected end" not in str(error) and reader.line_num + skipped == line:
            return  # a cell with quotation marks inside, which can be read
        fault = f"line {line}: a quotation mark there has no partner ({error})"
        raise PoseError(f"{path}: cannot be read as a table: {fault}") from error
    except OSError as error:
        raise PoseError(f"{path}: cannot be read as a table: {error}") from error
