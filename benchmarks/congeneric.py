"""Judge checkpoints on congeneric ligands with modelled poses: can they tell apart what a chemist has to choose from?

python benchmarks/congeneric.py --data $AIDD_REAL_DATA/fep [--checkpoint checkpoints/cleansplit]

The folder has labels.csv with protein_path, ligand_path, pK and target, such as OpenFF's protein-ligand benchmark (Hahn
et al., doi 10.33011/livecoms.4.1.1497). They are scored by `predict.py --pairs`, as a user would. Within targets the
score stands beside molecular weight and number of heavy atoms, which need no model.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.chemistry.ligands import read_ligand  # noqa: E402
from src.evaluation.casf import ranking_power  # noqa: E402
from src.evaluation.metrics import (  # noqa: E402
    Interval,
    interval,
    metrics_with_intervals,
    pearson,
    resampling_weights,
    spearman,
)
from src.explanation.series import molecular_weight  # noqa: E402


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / "scores.csv"
        command = ["predict.py", "--pairs", options.data / "labels.csv", "--checkpoint", options.checkpoint, "--quiet"]
        subprocess.run([sys.executable, *map(str, command), "--output", str(scores)], cwd=ROOT, check=True)
        with scores.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    scored = [row for row in rows if row["predicted_pK"]]
    measured, predicted = (np.array([float(row[name]) for row in scored]) for name in ("pK", "predicted_pK"))
    targets = np.array([row["target"] for row in scored])
    print(f"{len(scored)} of {len(rows)} ligands scored, {len(set(targets))} targets; intervals resample targets\n")
    for name, found in metrics_with_intervals(predicted, measured, clusters=targets.tolist()).items():
        print(f"{name:12} {found}")
    ligands = [read_ligand([options.data / row["ligand_path"]]) for row in scored]
    predictors = {
        "score": predicted,
        "molecular weight": np.array([molecular_weight(ligand.smiles) for ligand in ligands]),
        "heavy atoms": np.array([len(ligand.atoms) for ligand in ligands], dtype=float),
    }
    for predictor, values in predictors.items():
        for name, found in ranking_power(values, measured, targets.tolist()).items():
            print(f"within a target, {predictor}, {name}: {found}")
        print(f"within a target, {predictor}, R weighted by ligands: {weighted_r(values, measured, targets)}")
    for target in sorted(set(targets)):
        chosen = targets == target
        print(f"  {target:10}{chosen.sum():>4} ligands, Spearman {spearman(predicted[chosen], measured[chosen]):+.2f}")
    if scored[0]["pK_low"]:
        low, high = (np.array([float(row[name]) for row in scored]) for name in ("pK_low", "pK_high"))
        print(f"the 90 % interval holds {np.mean((low <= measured) & (measured <= high)):.1%}")


def weighted_r(values: np.ndarray, measured: np.ndarray, targets: np.ndarray) -> Interval:
    """Pearson's R within each target, weighted by its ligands; the interval resamples targets."""
    names, sizes = np.unique(targets, return_counts=True)
    r = np.nan_to_num([pearson(values[targets == name], measured[targets == name]) for name in names])
    drawn = resampling_weights(len(names)) * sizes
    return interval(sizes @ r / sizes.sum(), drawn @ r / drawn.sum(axis=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "cleansplit", help="file or folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
