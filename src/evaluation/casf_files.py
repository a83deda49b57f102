"""The folder of CASF-2016 -> its core set, decoys and targets, and where their files lie.

The benchmark: Su et al., J. Chem. Inf. Model. 2019, 59, 895, doi 10.1021/acs.jcim.8b00545.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from src.pdbbind.affinity import is_content, numbered_lines
from src.pdbbind.index import Skipped
from src.system.errors import UserError

CORE_COLUMNS = 6  # code, resolution, year, pK, affinity, number of the target


class CasfError(UserError):
    """A folder or file of the benchmark that cannot be used; names it and says what is expected there."""


@dataclass(frozen=True)
class CoreComplex:
    """A line of CoreSet.dat."""

    code: str
    pk: float
    target: str  # number of the cluster: five complexes of one protein


@dataclass(frozen=True)
class DockingCase:
    """The decoys of one complex."""

    code: str
    protein: Path
    decoys: Path  # mol2 with about 100 poses, each named as in rmsd
    native: Path | None
    rmsd: dict[str, float]  # Å, by the name of the pose


@dataclass(frozen=True)
class ScreeningCase:
    """The poses of every core ligand docked into one target."""

    target: str  # code of the complex that stands for the target
    protein: Path
    poses: dict[str, Path]  # code of the ligand -> mol2 with about 100 poses
    actives: tuple[str, ...]  # codes of its ligands, the most potent first


def read_core_set(path: Path) -> list[CoreComplex]:
    """Read CoreSet.dat: code, resolution, year, logKa, Ka, target.

    Raises:
        CasfError: a line has other columns. PDBbindError: the file cannot be read.
    """
    rows = []
    for number, text in numbered_lines(path):
        if not is_content(text):
            continue
        cells = text.split()
        if len(cells) < CORE_COLUMNS:
            raise CasfError(
                f"{path}, line {number}: {len(cells)} columns; code, resl, year, logKa, Ka, target expected"
            )
        rows.append(CoreComplex(cells[0].lower(), _float(cells[3], path, number), cells[5]))
    return rows


def read_rmsd(path: Path) -> dict[str, float]:
    """Read <code>_rmsd.dat: a name and an RMSD (Å) a line."""
    return {
        cells[0]: _float(cells[1], path, number)
        for number, text in numbered_lines(path)
        if is_content(text) and len(cells := text.replace(",", " ").split()) > 1
    }


def read_targets(path: Path) -> dict[str, tuple[str, ...]]:
    """Read TargetInfo.dat: the code that stands for a target, then its ligands, the most potent first."""
    lines = [text.lower().split() for _, text in numbered_lines(path) if is_content(text)]
    return {cells[0]: tuple(dict.fromkeys(cells[1:])) or (cells[0],) for cells in lines}


def find_docking(root: Path) -> tuple[list[DockingCase], list[Skipped]]:
    """The complexes with decoys_docking/<code>_decoys.mol2, <code>_rmsd.dat and coreset/<code>/, sorted.

    A damaged list of RMSD costs its complex, as a file that is missing does.

    Raises:
        CasfError: there is none.
    """
    cases, skipped = [], []
    for decoys in sorted((root / "decoys_docking").glob("*_decoys.mol2")):
        code = decoys.name.removesuffix("_decoys.mol2")
        protein, distances = _protein(root, code), decoys.with_name(f"{code}_rmsd.dat")
        if protein is None or not distances.is_file():
            missing = distances if protein else root / "coreset" / code
            skipped.append(Skipped(code, "docking power", f"{missing} is missing"))
            continue
        try:
            rmsd = read_rmsd(distances)
        except UserError as error:
            skipped.append(Skipped(code, "docking power", str(error)))
            continue
        native = root / "coreset" / code / f"{code}_ligand.mol2"
        cases.append(DockingCase(code, protein, decoys, native if native.is_file() else None, rmsd))
    if not cases:
        raise CasfError(f"{root}: no decoys_docking/<code>_decoys.mol2 with <code>_rmsd.dat and coreset/<code>/ there")
    return cases, skipped


def find_screening(root: Path) -> tuple[list[ScreeningCase], list[Skipped]]:
    """The targets of power_screening/TargetInfo.dat with decoys_screening/<target>/<target>_<ligand>.mol2.

    Raises:
        CasfError: there is none, or no TargetInfo.dat.
    """
    path = next(
        (p for p in (root / "power_screening" / "TargetInfo.dat", root / "TargetInfo.dat") if p.is_file()), None
    )
    if path is None:
        raise CasfError(f"{root}: no power_screening/TargetInfo.dat there, which names the ligands of each target")
    cases, skipped = [], []
    for target, actives in read_targets(path).items():
        files = sorted((root / "decoys_screening" / target).glob("*.mol2"))
        poses = {file.stem.removeprefix(f"{target}_").split("_")[0].lower(): file for file in files}
        protein = _protein(root, target)
        if poses and protein:
            cases.append(ScreeningCase(target, protein, poses, actives))
        else:
            missing = root.joinpath(*(("coreset", target) if poses else ("decoys_screening", target)))
            skipped.append(Skipped(target, "screening power", f"{missing} is missing or has no files to score"))
    if not cases:
        raise CasfError(f"{root}: no decoys_screening/<target>/<target>_<ligand>.mol2 with coreset/<target>/ there")
    return cases, skipped


def _protein(root: Path, code: str) -> Path | None:
    names = (f"{code}_protein.pdb", f"{code}_pocket.pdb")  # decoys may lie outside of the pocket that was cut out
    return next((path for name in names if (path := root / "coreset" / code / name).is_file()), None)


def _float(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CasfError(f"{path}, line {number}: {text!r} is not a number")
    return value
