"""PDBbind index lines -> affinity labels; one call for the labels and files of a whole data set."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from src.pdbbind.affinity import (
    LINE_FORM,
    RELATIONS,
    UNSTATED_KIND,
    Index,
    IndexEntry,
    PDBbindError,
    checked_code,
    choose_label,
    collect,
    is_year,
    numbered_lines,
    parse_affinity,
    parse_pk,
    parse_resolution,
    parse_year,
    quoted,
    starts_with_affinity,
)
from src.pdbbind.folders import ComplexFiles, list_index_candidates, locate_complexes
from src.pdbbind.user_table import header_fault, is_table, read_table
from src.settings import DataSettings
from src.system.storage import write_csv

log = logging.getLogger(__name__)

SETTINGS = "settings"  # stage of what the user's own settings leave out

_LIGAND_NAME = re.compile(r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_COVALENT = re.compile(r"(?<!non)(?<!non-)(?<!non )(?<!not )covalent", re.IGNORECASE)


@dataclass(frozen=True)
class Skipped:
    """One complex that is not used: at which stage it was given up, and why."""

    code: str
    stage: str
    reason: str


def write_skipped(folder: Path, rows: Iterable[Skipped]) -> None:
    """skipped.csv.

    Raises:
        StorageError: the disk does not take it.
    """
    cells = [[row.code, row.stage, row.reason] for row in rows]
    write_csv(folder / "skipped.csv", ["code", "stage", "reason"], cells)


def read_dataset(root: Path, index_file: Path | None) -> tuple[Index, dict[str, ComplexFiles]]:
    """Read labels from an index or a table and find each code's files; None looks for an index below root.

    Raises:
        PDBbindError: no usable index, or root is not a folder.
    """
    path = find_index(root) if index_file is None else index_file
    log.info("labels from %s", path)
    index, files = read_table(path, root) if is_table(path) else (read_index(path), {})
    unplaced = [entry.code for entry in index.entries if entry.code not in files]
    return index, files | (locate_complexes(root, unplaced) if unplaced else {})


def read_index(path: Path) -> Index:
    """Read a PDBbind index with or without the -logKd/Ki column, CASF's CoreSet.dat, or a table's labels.

    A line is `code  resolution  year  [-logKd/Ki]  [Kd=49uM]  // reference (ligand) remark`; resolution and
    year may be missing, `#` starts a comment line. Source: http://www.pdbbind.org.cn, v.2016 to 2020R1.
    When both affinities are there the concentration is the label and a difference above 0.02 is logged.
    Of several lines with one code the first is kept; a later one with another label is a bad line.

    Raises:
        PDBbindError: the file is missing, not a file, or has no usable line.
    """
    if is_table(path):
        return read_table(path)[0]
    return collect(path, numbered_lines(path), _parse_index_line)


def find_index(root: Path) -> Path:
    """Find the best index below root: general over refined over core set over any other, the newest of each.

    Looks in root, in its subfolders and in their `index` folder; a table (.csv, .tsv) counts in root alone.

    Raises:
        PDBbindError: root is not a folder or holds no index.
    """
    candidates = list_index_candidates(root)
    ranked = [(rank, path) for path in candidates if (rank := _index_rank(path)) is not None]
    tables = [path for path in candidates if path.parent == Path(root) and is_table(path)]
    faults = {path: header_fault(path) for path in tables}
    ranked += [(5, path) for path in tables if not faults[path]]
    if not ranked and faults:
        raise PDBbindError(
            f"no index below {root}, and no table that is understood:\n  " + "\n  ".join(faults.values())
        )
    if not ranked:
        raise PDBbindError(
            f"no index below {root}: looked there, in its subfolders and in their index folder for "
            "INDEX_general_PL*, INDEX_refined*, INDEX_core*, INDEX_*, CoreSet.dat, and in it for a .csv with "
            "the columns code and pK; give the file as index_file"
        )
    ranked.sort(key=lambda pair: pair[1].name.rpartition("_")[2].partition(".")[2], reverse=True)
    return min(ranked, key=lambda pair: pair[0])[1]


def select_entries(entries: Iterable[IndexEntry], data: DataSettings) -> tuple[list[IndexEntry], list[Skipped]]:
    """The entries to learn from, and a row for each one that the settings leave out.

    An entry of unstated kind always passes, and so does an unknown resolution; NMR is ruled by keep_nmr alone.
    """
    limit = math.inf if data.max_resolution is None else data.max_resolution
    keep = {"nmr": data.keep_nmr, "covalent": data.keep_covalent, "incomplete_ligand": data.keep_incomplete_ligands}
    keep["multi_ligand"] = data.keep_multi_ligands
    unwanted = [flag for flag, wanted in keep.items() if not wanted]
    kept: list[IndexEntry] = []
    dropped: list[Skipped] = []
    for entry in entries:
        reasons = [flag.replace("_", " ") for flag in unwanted if getattr(entry, flag)]
        if entry.kind not in (*data.affinity_kinds, UNSTATED_KIND):
            reasons.append(f"kind {entry.kind}")
        if entry.bound and data.censored_labels == "drop":
            reasons.append(f"censored label {entry.kind}{entry.relation}")
        if entry.resolution is not None and entry.resolution > limit:
            reasons.append(f"resolution {entry.resolution}, limit {limit:g} Å")
        if reasons:
            dropped.append(Skipped(entry.code, SETTINGS, "; ".join(reasons)))
        else:
            kept.append(entry)
    return kept, dropped


def _parse_index_line(text: str) -> tuple[IndexEntry, float | None]:
    head, _, tail = text.partition("//")
    code, *fields = head.split() or [""]
    measured = next((i for i, field in enumerate(fields) if any(sign in field for sign in RELATIONS)), None)
    columns = fields[:measured]
    parsed, rest = None, []
    if measured is not None:
        parsed, rest = parse_affinity(fields[measured]), fields[measured + 1 :]
        if any(starts_with_affinity(field) for field in rest):
            raise PDBbindError("two affinities in one line")
    resolution, nmr = None, False
    if columns and not is_year(columns[0]):
        resolution, nmr = parse_resolution(columns.pop(0))
    year = parse_year(columns.pop(0)) if columns else None
    stated = parse_pk(columns.pop(0)) if columns else None
    if columns and parsed:
        raise PDBbindError(f"{quoted(columns[0])} before the affinity; {LINE_FORM}")
    # CoreSet.dat ends in the number of its target; a line that lost its // goes on with the reference.
    rest = columns + rest
    reference = _parse_reference(tail if rest and rest[0].isdigit() else " ".join([*rest, tail]))
    label, difference = choose_label(parsed, stated, trust_stated=False)
    return IndexEntry(checked_code(code.lower()), resolution, year, *label, nmr=nmr, **reference), difference


def _parse_reference(text: str) -> dict[str, str | bool]:
    """Read `4tln.pdf (LNO) remark`, what follows the // of an index line."""
    name = _LIGAND_NAME.search(text)
    ligand = name.group(1).strip() if name else ""
    outside = f"{text[: name.start()]} {text[name.end() :]}" if name else text
    remark = " ".join(word for word in outside.replace("//", " ").split() if not word.endswith(".pdf"))
    return {
        "ligand_name": ligand,
        "remark": remark,
        "covalent": _COVALENT.search(remark) is not None,
        "incomplete_ligand": "incomplete ligand" in remark.lower(),
        "multi_ligand": "/" in ligand or "&" in ligand,
    }


def _index_rank(path: Path) -> int | None:
    """Return 0 for the best kind of index, None for a file that holds no protein-ligand affinities."""
    name = path.name.lower()
    if re.search(r"_(name|structure|nl|pn|pp)[_.]", name):
        return None
    starts = ("index_general_pl", "index_refined", "index_core", "index_", "coreset.dat")
    return next((rank for rank, start in enumerate(starts) if name.startswith(start)), None)
