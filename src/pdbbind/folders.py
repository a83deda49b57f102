"""PDBbind folder layouts -> the files of each complex, and where an index may lie."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from src.pdbbind.affinity import PDBbindError

log = logging.getLogger(__name__)

_PDB_CODE = re.compile(r"(?=\w*[a-z])[1-9][a-z0-9]{3}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class ComplexFiles:
    """Where the structures of one complex are; None or empty for what was not found."""

    code: str
    protein: Path | None
    pocket: Path | None
    ligands: tuple[Path, ...]  # in the order to try: .sdf, .sdf.gz, .mol2, .mol2.gz


def locate_complexes(root: Path, codes: Iterable[str]) -> dict[str, ComplexFiles]:
    """Find `<code>/<code>_protein.pdb`, `_pocket.pdb` and `_ligand.sdf` at most three folders below root.

    Covers the flat layout, refined-set, general-set-except-refined, v2020-other-PL, P-L/<years>/ and CASF's
    coreset. Upper and lower case are equal. A code in several places is taken from the first, in the order of
    depth and name, that has a ligand and a protein or pocket. Links that leave root are not followed. Codes
    without a folder are absent from the result.

    Raises:
        PDBbindError: root is not a folder.
    """
    real_root = _real_root(root)
    wanted = {code.lower(): code for code in codes}
    found: dict[str, ComplexFiles] = {}
    parents: list[os.PathLike[str]] = [Path(root)]
    unasked = 0
    for _ in range(3):
        others: list[os.DirEntry[str]] = []
        for folder in (folder for parent in parents for folder in _list(parent, real_root, folders=True)):
            code = wanted.get(folder.name.lower())
            if code is None:
                others.append(folder)
            elif code not in found or not _is_complete(found[code]):
                files = _files_of(code, folder.path, real_root)
                if code not in found or _is_complete(files):
                    found[code] = files
        # Complexes that nobody asked for are the bulk of a large release and hold no further folders.
        parents = [folder for folder in others if not _PDB_CODE.fullmatch(folder.name)]
        unasked += len(others) - len(parents)
    if unasked:
        log.info("%s: %d folders of other complexes, whose codes have no label, are not used", root, unasked)
    return found


def list_index_candidates(root: Path) -> list[Path]:
    """Return the files of root, of its subfolders and of their `index` folder, without complex folders.

    Raises:
        PDBbindError: root is not a folder.
    """
    real_root, root = _real_root(root), Path(root)
    folders: list[os.PathLike[str]] = [root]
    for folder in _list(root, real_root, folders=True):
        if not _PDB_CODE.fullmatch(folder.name):
            below = _list(folder, real_root, folders=True)
            folders += [folder, *(entry for entry in below if entry.name.lower() == "index")]
    return [Path(entry.path) for folder in folders for entry in _list(folder, real_root, folders=False)]


def _real_root(root: Path) -> str:
    if not os.path.isdir(root):
        raise PDBbindError(f"{root}: not a folder; dataset_path must be the folder that holds the complexes")
    return os.path.realpath(root)


def _list(folder: str | os.PathLike[str], real_root: str, *, folders: bool) -> list[os.DirEntry[str]]:
    """Return the subfolders or the plain files of a folder, sorted, without links that leave the root."""

    def belongs(entry: os.DirEntry[str]) -> bool:
        try:
            if not (entry.is_dir() if folders else entry.is_file()):
                return False
        except OSError:  # a link to itself or into a place that may not be read is neither
            return False
        if not entry.is_symlink() or Path(os.path.realpath(entry)).is_relative_to(real_root):
            return True
        log.warning("%s: not followed, the link leaves %s", entry.path, real_root)
        return False

    try:
        with os.scandir(folder) as listing:
            return sorted(filter(belongs, listing), key=lambda entry: entry.path)
    except OSError as error:
        log.warning("%s: cannot be listed: %s", os.fspath(folder), error.strerror)
        return []


def _files_of(code: str, folder: str, real_root: str) -> ComplexFiles:
    by_name = {entry.name.lower(): entry.path for entry in _list(folder, real_root, folders=False)}

    def present(part: str, *suffixes: str) -> tuple[Path, ...]:
        names = [f"{code.lower()}_{part}{suffix}{gz}" for suffix in suffixes for gz in ("", ".gz")]
        return tuple(Path(by_name[name]) for name in names if name in by_name)

    protein = present("protein", ".pdb", ".ent", ".cif", ".mmcif")
    pocket = present("pocket", ".pdb", ".ent", ".cif", ".mmcif")
    ligands = present("ligand", ".sdf", ".mol2")
    return ComplexFiles(code, next(iter(protein), None), next(iter(pocket), None), ligands)


def _is_complete(files: ComplexFiles) -> bool:
    return bool(files.ligands and (files.protein or files.pocket))
