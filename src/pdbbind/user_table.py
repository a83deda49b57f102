"""A table (.csv, .tsv) of one's own -> affinity labels and the paths of structure files."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from src.pdbbind.affinity import (
    AFFINITY_FORM,
    UNSTATED_KIND,
    Index,
    IndexEntry,
    Label,
    PDBbindError,
    checked_code,
    choose_label,
    collect,
    is_content,
    numbered_lines,
    parse_affinity,
    parse_pk,
    parse_resolution,
    parse_weight,
    parse_year,
    quoted,
    starts_with_affinity,
)
from src.pdbbind.folders import ComplexFiles

_TABLE_COLUMNS = {
    "code": ("code", "pdb", "pdb_code", "pdb_id", "pdbid", "id"),
    "protein": ("protein_path", "protein", "protein_file", "receptor", "receptor_path"),
    "pocket": ("pocket_path", "pocket", "pocket_file"),
    "ligand": ("ligand_path", "ligand", "ligand_file"),
    "pk": ("pk", "pkd", "pki", "pic50", "affinity", "label", "logka", "_logkd/ki"),
    "affinity_text": ("affinity_text", "binding_data"),
    "resolution": ("resolution", "resl"),
    "year": ("year", "release_year"),
    "ligand_name": ("ligand_name",),
    "remark": ("remark",),
    "weight": ("weight",),
    "source": ("source",),
}
_ROW_FORM = "expected below the header: a row for each complex, with its code and its pK or affinity_text"
_LABELS = {"pk", "affinity_text"}
# Columns that hold an affinity in parts.
_SEPARATE_PARTS = {"value", "affinity_value", "unit", "units", "affinity_unit", "relation"}


def is_table(path: Path) -> bool:
    return Path(path).suffix.lower() in (".csv", ".tsv")


def header_fault(path: Path) -> str:
    """Why `read_table` does not understand the header of a table; '' where it does."""
    try:
        _read_header(path, numbered_lines(path))
    except PDBbindError as error:
        return str(error)
    return ""


def read_table(path: Path, root: Path | None = None) -> tuple[Index, dict[str, ComplexFiles]]:
    """Read a user's table (comma, semicolon or tab separated, with a header) of labels and structure files.

    The pK column is the label; `affinity_text` (IC50=6.8uM) then gives kind and relation, and is the label
    where pK is empty. Relative paths are looked for beside the table, then below `root`. A row without any
    path is left out of the returned files.

    Raises:
        PDBbindError: the file is missing, has no usable row, or its header is not understood.
    """
    lines = numbered_lines(path)
    cells_of, kind = _read_header(path, lines)
    files: dict[str, ComplexFiles] = {}

    def parse(text: str) -> tuple[IndexEntry, float | None]:
        cells = cells_of(text)
        entry, difference = _parse_row(cells, kind)
        paths = {name: _table_path(cells.get(name, ""), path, root) for name in ("protein", "pocket", "ligand")}
        if any(paths.values()):
            ligands = (paths["ligand"],) if paths["ligand"] else ()
            files.setdefault(entry.code, ComplexFiles(entry.code, paths["protein"], paths["pocket"], ligands))
        return entry, difference

    index = collect(path, lines, parse, expected=_ROW_FORM)
    return index, {entry.code: files[entry.code] for entry in index.entries if entry.code in files}


def label_reader(path: Path, header: Sequence[str]) -> Callable[[Sequence[str]], tuple[float, int]]:
    """What turns the cells of a row into its pK, and 0 where that is exact, 1 where it is a least, -1 a most value.

    It raises PDBbindError for a row whose affinity is missing or not understood.

    Raises:
        PDBbindError: no column of the header gives an affinity, or two give one.
    """
    columns, kind = _columns(path, header)
    if not columns.keys() & _LABELS:
        known = ", ".join(alias for field in sorted(_LABELS) for alias in _TABLE_COLUMNS[field])
        raise PDBbindError(f"{path}: header {quoted(', '.join(header))} lacks a column with the affinity: {known}")

    def read(cells: Sequence[str]) -> tuple[float, int]:
        fields = {name: cells[columns[name]].strip() for name in _LABELS & columns.keys()}
        label, _ = _parse_label(fields, kind)
        entry = IndexEntry("", None, None, *label, ligand_name="", remark="")
        return entry.pk, entry.bound

    return read


def _read_header(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[Callable[[str], dict[str, str]], str]:
    """Return what turns a line into {field: cell}, and the kind that the name of the pK column states."""
    header = next((text for _, text in lines if is_content(text)), "")
    delimiter = max(",;\t", key=header.count)
    try:
        names = _split(header, delimiter)
    except PDBbindError as error:
        raise PDBbindError(f"{path}: header {quoted(header)} {error}") from error
    columns, kind = _columns(path, names)
    if "code" not in columns or not columns.keys() & _LABELS:
        known = "; ".join(f"{field}: {', '.join(aliases)}" for field, aliases in _TABLE_COLUMNS.items())
        raise PDBbindError(f"{path}: header {quoted(header)} lacks code or pK; columns understood are {known}")

    def cells_of(text: str) -> dict[str, str]:
        row = _split(text.rstrip(f"{delimiter} "), delimiter)
        if len(row) > len(names):
            raise PDBbindError(f"{len(row)} cells under {len(names)} column names")
        return {field: row[column].strip() for field, column in columns.items() if column < len(row)}

    return cells_of, kind


def _columns(path: Path, header: Sequence[str]) -> tuple[dict[str, int], str]:
    """The column of each field that a header has, and the kind that the name of the pK column states."""
    names = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in header]
    if apart := _SEPARATE_PARTS.intersection(names):
        # A number in nM that is read as a pK is a wrong label which nothing later can notice.
        raise PDBbindError(f"{path}: column {min(apart)!r}: give pK, or all in one column affinity_text (Kd=49uM)")
    columns: dict[str, int] = {}
    kind = UNSTATED_KIND
    for column, name in enumerate(names):
        field = next((field for field, aliases in _TABLE_COLUMNS.items() if name in aliases), None)
        if field is not None and columns.setdefault(field, column) != column:
            raise PDBbindError(f"{path}: columns {names[columns[field]]!r} and {name!r} both give {field}")
        if field == "pk":
            kind = {"pkd": "Kd", "pki": "Ki", "pic50": "IC50"}.get(name, UNSTATED_KIND)
    return columns, kind


def _split(text: str, delimiter: str) -> list[str]:
    """Split one line; a quoted cell cannot span lines, so a lost quote costs one row and not the file."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise PDBbindError(f"cannot be split at {delimiter!r}: {error}") from error


def _parse_row(cells: dict[str, str], pk_kind: str) -> tuple[IndexEntry, float | None]:
    label, difference = _parse_label(cells, pk_kind)
    resolution, nmr = parse_resolution(cells.get("resolution", ""))
    reference = {field: cells.get(field, "") for field in ("ligand_name", "remark")}
    code, year = checked_code(cells.get("code", "")), parse_year(cells.get("year", ""))
    counts = {"weight": parse_weight(cells.get("weight", "")), "source": cells.get("source", "")}
    return IndexEntry(code, resolution, year, *label, nmr=nmr, **reference, **counts), difference


def _parse_label(cells: dict[str, str], pk_kind: str) -> tuple[Label, float | None]:
    """The affinity of a row, and by how much its pK and its text differ."""
    text, stated = cells.get("affinity_text", ""), parse_pk(cells.get("pk", ""))
    parsed = None
    if starts_with_affinity(text) or (stated is None and text):
        parsed = parse_affinity(text)
    elif any(sign in text for sign in "<>≤≥"):
        raise PDBbindError(f"relation in {quoted(text)} not understood; {AFFINITY_FORM}")
    if parsed is None and stated is None:
        raise PDBbindError("no label: the row has neither a pK nor an affinity_text")
    label, difference = choose_label(parsed, stated, trust_stated=True)
    if parsed is None:
        label = (pk_kind, *label[1:])
    return label, difference


def _table_path(text: str, table: Path, root: Path | None) -> Path | None:
    if not text:
        return None
    path = Path(os.path.expanduser(text))
    beside = Path(table).parent / path
    if root is not None and not os.path.isfile(beside) and os.path.isfile(Path(root) / path):
        return Path(root) / path
    return beside
