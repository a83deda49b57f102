"""A scorer and the files of CASF-2016 -> its four powers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.evaluation.casf import (
    CoreComplex,
    docking_power,
    find_docking,
    find_screening,
    ranking_power,
    read_core_set,
    reverse_screening_power,
    scoring_power,
    screening_power,
)
from src.evaluation.metrics import Interval
from src.scoring.prediction import Scorer

log = logging.getLogger(__name__)

Powers = dict[str, dict[str, Interval]]


def casf_powers(scorer: Scorer, root: Path, *, trained_on: set[str]) -> Powers:
    """The powers of CASF-2016 whose files are there: scoring and ranking need coreset/ and CoreSet.dat alone.

    Args:
        trained_on: codes, in any case; each power says how many of its complexes are among them.

    Raises:
        CasfError: neither CoreSet.dat nor decoys are there, or a file of them cannot be used.
    """
    powers: Powers = {}
    known = {code.lower() for code in trained_on}
    core_set = next((p for p in (root / "power_scoring" / "CoreSet.dat", root / "CoreSet.dat") if p.is_file()), None)
    if core_set is not None:
        powers |= _native_powers(scorer, root, read_core_set(core_set), known)
    if core_set is None or (root / "decoys_docking").is_dir():
        cases = find_docking(root)
        scores, rmsd = {}, {}
        for case in cases:
            log.info("docking power: %s", case.code)
            native = list(_scores(scorer, case.protein, case.native).values()) if case.native else []
            own = {f"{case.code}_ligand": pk for pk in native[:1]}  # the name it has in the published lists
            scores[case.code] = _scores(scorer, case.protein, case.decoys) | own
            rmsd[case.code] = case.rmsd | dict.fromkeys(own, 0.0)
        note = _note([{case.code} for case in cases], known)
        powers[f"docking power, {len(cases)} complexes with the native pose{note}"] = docking_power(scores, rmsd)
    if (root / "decoys_screening").is_dir():
        table, actives = _screening_scores(scorer, root)
        note = _note([{target, *codes} for target, codes in actives.items()], known)
        powers[f"forward screening power, {len(table)} targets{note}"] = screening_power(table, actives)
        ligands = {code for codes in actives.values() for code in codes}
        note = _note([{code} for code in ligands], known)
        powers[f"reverse screening power, {len(ligands)} ligands{note}"] = reverse_screening_power(table, actives)
    return powers


def _native_powers(scorer: Scorer, root: Path, core: Sequence[CoreComplex], known: set[str]) -> Powers:
    scored = []
    for one in core:
        folder = root / "coreset" / one.code
        protein = next(
            (p for name in ("pocket", "protein") if (p := folder / f"{one.code}_{name}.pdb").is_file()), None
        )
        ligand = next((p for end in ("sdf", "mol2") if (p := folder / f"{one.code}_ligand.{end}").is_file()), None)
        values = _scores(scorer, protein, ligand) if protein and ligand else {}
        scored += [(one, next(iter(values.values())))] if values else []
    if len(scored) < len(core):
        log.warning("%d of %d complexes of the core set have no score", len(core) - len(scored), len(core))
    predicted, measured = np.array([pk for _, pk in scored]), np.array([one.pk for one, _ in scored])
    title = f"{len(scored)} complexes{_note([{one.code} for one, _ in scored], known)}"
    return {
        f"scoring power, {title}": scoring_power(predicted, measured),
        f"ranking power, {title}": ranking_power(predicted, measured, [one.target for one, _ in scored]),
    }


def _note(groups: Sequence[set[str]], known: set[str]) -> str:
    """How many groups of codes hold one that was trained on, for the title of a power; '' where none does."""
    count = sum(any(code.lower() in known for code in group) for group in groups)
    return f", {count} OF THEM TRAINED ON" if count else ""


def _screening_scores(scorer: Scorer, root: Path) -> tuple[dict[str, dict[str, float]], dict[str, tuple[str, ...]]]:
    """The best score of each ligand at each target, and the ligands that belong there."""
    table: dict[str, dict[str, float]] = {}
    cases = find_screening(root)
    for number, case in enumerate(cases, 1):
        log.info("screening power: %s, target %d of %d, %d ligands", case.target, number, len(cases), len(case.poses))
        best = {ligand: _scores(scorer, case.protein, path) for ligand, path in case.poses.items()}
        table[case.target] = {ligand: max(values.values()) for ligand, values in best.items() if values}
    return table, {case.target: case.actives for case in cases}


def _scores(scorer: Scorer, protein: Path, ligands: Path) -> dict[str, float]:
    """Name of each pose -> pK; poses that cannot be scored are absent."""
    return {one.ligand: one.pk for one in scorer.score(protein, ligands) if one.pk is not None}
