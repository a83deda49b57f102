"""A scorer and the files of CASF-2016 -> its four powers, and the complexes that have no part in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.evaluation.casf import docking_power, ranking_power, reverse_screening_power, scoring_power, screening_power
from src.evaluation.casf_files import CoreComplex, find_docking, find_screening, read_core_set
from src.evaluation.metrics import Interval
from src.pdbbind.index import Skipped
from src.scoring.ensemble import Scorer
from src.system.errors import UserError

log = logging.getLogger(__name__)

Powers = dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class CasfScores:
    """What a scorer does on CASF-2016."""

    powers: Powers = field(default_factory=dict)  # title -> name of a metric -> its value
    skipped: tuple[Skipped, ...] = ()


def score_casf(scorer: Scorer, root: Path, *, trained_on: set[str]) -> CasfScores:
    """The powers of CASF-2016 whose files are there: scoring and ranking need coreset/ and CoreSet.dat alone.

    A file that cannot be scored costs its complex or target, which then is in `skipped`.

    Args:
        trained_on: codes, in any case; each power says how many of its complexes are among them.

    Raises:
        CasfError: neither CoreSet.dat nor decoys are there, or CoreSet.dat cannot be used.
    """
    benchmark = _Benchmark(scorer, root, {code.lower() for code in trained_on})
    powers: Powers = {}
    core_set = next((p for p in (root / "power_scoring" / "CoreSet.dat", root / "CoreSet.dat") if p.is_file()), None)
    if core_set is not None:
        powers |= benchmark.native_powers(read_core_set(core_set))
    if core_set is None or (root / "decoys_docking").is_dir():
        powers |= benchmark.docking_powers()
    if (root / "decoys_screening").is_dir():
        powers |= benchmark.screening_powers()
    for row in benchmark.skipped:
        log.warning("%s, %s: left out: %s", row.stage, row.code, row.reason)
    return CasfScores(powers, tuple(benchmark.skipped))


class _Benchmark:
    def __init__(self, scorer: Scorer, root: Path, known: set[str]):
        self.scorer, self.root, self.known = scorer, root, known
        self.skipped: list[Skipped] = []

    def native_powers(self, core: Sequence[CoreComplex]) -> Powers:
        scored = []
        for one in core:
            folder = self.root / "coreset" / one.code
            proteins = [folder / f"{one.code}_{name}.pdb" for name in ("pocket", "protein")]
            ligands = [folder / f"{one.code}_ligand.{ending}" for ending in ("sdf", "mol2")]
            protein, ligand = (next(filter(Path.is_file, paths), paths[0]) for paths in (proteins, ligands))
            values = self._scores(one.code, "scoring power", protein, ligand)
            scored += [(one, pk) for pk in list(values.values())[:1]]
        predicted, measured = np.array([pk for _, pk in scored]), np.array([one.pk for one, _ in scored])
        title = f"{len(scored)} complexes{self._note([{one.code} for one, _ in scored])}"
        return {
            f"scoring power, {title}": scoring_power(predicted, measured),
            f"ranking power, {title}": ranking_power(predicted, measured, [one.target for one, _ in scored]),
        }

    def docking_powers(self) -> Powers:
        scores, rmsd = {}, {}
        cases, skipped = find_docking(self.root)
        self.skipped += skipped
        for case in cases:
            log.info("docking power: %s", case.code)
            decoys = self._scores(case.code, "docking power", case.protein, case.decoys)
            if not decoys:
                continue
            native = self._scores(case.code, "docking power", case.protein, case.native) if case.native else {}
            own = {f"{case.code}_ligand": pk for pk in list(native.values())[:1]}  # its name in the published lists
            scores[case.code], rmsd[case.code] = decoys | own, case.rmsd | dict.fromkeys(own, 0.0)
        title = f"docking power, {len(scores)} complexes with the native pose{self._note([{code} for code in scores])}"
        return {title: docking_power(scores, rmsd)}

    def screening_powers(self) -> Powers:
        """By the best score of each ligand at each target."""
        table: dict[str, dict[str, float]] = {}
        cases, skipped = find_screening(self.root)
        self.skipped += skipped
        for number, case in enumerate(cases, 1):
            about = case.target, number, len(cases), len(case.poses)
            log.info("screening power: %s, target %d of %d, %d ligands", *about)
            name = "screening power"
            best = {code: self._scores(case.target, name, case.protein, path) for code, path in case.poses.items()}
            if any(best.values()):
                table[case.target] = {code: max(values.values()) for code, values in best.items() if values}
        actives = {case.target: case.actives for case in cases if case.target in table}
        groups = [{target, *codes} for target, codes in actives.items()]
        ligands = {code for codes in actives.values() for code in codes}
        forward = f"forward screening power, {len(table)} targets{self._note(groups)}"
        reverse = f"reverse screening power, {len(ligands)} ligands{self._note([{code} for code in ligands])}"
        return {forward: screening_power(table, actives), reverse: reverse_screening_power(table, actives)}

    def _scores(self, code: str, power: str, protein: Path, ligands: Path) -> dict[str, float]:
        """Name of each pose -> pK; poses that cannot be scored are absent, and where none can there is a row."""
        try:
            predictions = list(self.scorer.score(protein, ligands))
        except UserError as error:  # the file as a whole cannot be read
            predictions, reason = [], str(error)
        else:
            reason = predictions[0].failure if predictions else f"{ligands}: holds no molecule"
        scores = {one.ligand: one.pk for one in predictions if one.pk is not None}
        if not scores:
            self.skipped.append(Skipped(code, power, reason))
        return scores

    def _note(self, groups: Sequence[set[str]]) -> str:
        """How many groups of codes hold one that was trained on, for the title of a power; '' where none does."""
        count = sum(any(code.lower() in self.known for code in group) for group in groups)
        return f", {count} OF THEM TRAINED ON" if count else ""
