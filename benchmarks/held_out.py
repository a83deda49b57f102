"""Judge checkpoints on complexes they have not been trained on: accuracy, displaced poses, noise.

python benchmarks/held_out.py --data $AIDD_REAL_DATA/pdbbind [--checkpoint checkpoints/cleansplit]

Takes the codes of the index that no model of the ensemble was trained or chosen on. Of each it scores the measured
pose, the same moved by 2 to 6 Å, the same also turned at random, and the same with noise of 0.1 Å on each coordinate,
all through the readers and the builder that `predict.py` uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.checkpoint import FOR_PREDICTION, load_checkpoint  # noqa: E402
from src.chemistry.atoms import StructureError  # noqa: E402
from src.chemistry.ligands import Ligand, read_ligand  # noqa: E402
from src.chemistry.proteins import Protein, read_protein  # noqa: E402
from src.data.batching import in_order  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.data_processing import build_graph  # noqa: E402
from src.evaluation.calibration import coverage  # noqa: E402
from src.evaluation.findings import coverage_text  # noqa: E402
from src.evaluation.metrics import metrics_with_intervals, rmse  # noqa: E402
from src.gaussian_process.joined_model import Judge  # noqa: E402
from src.hardware.inference import predict_batches  # noqa: E402
from src.pdbbind.affinity import PDBbindError  # noqa: E402
from src.pdbbind.index import read_dataset  # noqa: E402
from src.scoring.ensemble import Scorer, find_checkpoints, load_scorer  # noqa: E402
from src.scoring.trust import HIGH, LOW, MEDIUM, half_width, trust  # noqa: E402

SHIFT = (2.0, 6.0)  # Å
NOISE = 0.1  # Å


def main() -> None:
    options = _options()
    paths = find_checkpoints([options.checkpoint])
    scorers = [load_scorer(path, "cpu") for path in paths]
    known = {code for path in paths for code in _seen(path)}
    index, files = read_dataset(options.data, None)
    rng = np.random.default_rng(0)
    poses: dict[str, list[Example]] = {name: [] for name in CHANGES}
    for entry in index.entries:
        found = files.get(entry.code)
        odd = entry.covalent or entry.multi_ligand or entry.incomplete_ligand or entry.bound
        if entry.code in known or found is None or odd:
            continue
        try:
            ligand, protein = read_ligand(found.ligands), read_protein(found.protein or found.pocket)
        except (StructureError, PDBbindError) as error:
            print(f"left out: {entry.code}: {error}")
            continue
        for name, change in CHANGES.items():
            poses[name].append(_example(entry.code, change(ligand, rng), protein, entry.pk, scorers[0]))
    told = {name: _told(scorers, examples) for name, examples in poses.items()}
    predicted = {name: each[:, :, 0].mean(axis=0) for name, each in told.items()}
    measured = np.array([example.pk for example in poses["measured"]])
    print(f"{len(measured)} complexes, {len(scorers)} models\n")
    for name, interval in metrics_with_intervals(predicted["measured"], measured).items():
        print(f"{name:12} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]")
    _print_trust(told["measured"], measured, scorers)
    for name in ("moved", "moved and turned"):
        share = np.mean(predicted["measured"] > predicted[name])
        print(f"the measured pose scores higher than the one {name}: {share:.1%}")
    change = np.abs(predicted["noisy"] - predicted["measured"])
    print(f"change under {NOISE} Å noise: mean {change.mean():.3f} pK, 95 % below {np.quantile(change, 0.95):.3f}")


def _moved(ligand: Ligand, rng: np.random.Generator) -> Ligand:
    direction = rng.normal(size=3)
    shift = rng.uniform(*SHIFT) * direction / np.linalg.norm(direction)
    return _at(ligand, ligand.atoms.pos + shift)


def _turned(ligand: Ligand, rng: np.random.Generator) -> Ligand:
    centre = ligand.atoms.pos.mean(axis=0)
    return _at(ligand, Rotation.random(random_state=rng).apply(ligand.atoms.pos - centre) + centre)


def _noisy(ligand: Ligand, rng: np.random.Generator) -> Ligand:
    return _at(ligand, ligand.atoms.pos + rng.normal(scale=NOISE, size=ligand.atoms.pos.shape))


def _at(ligand: Ligand, pos: np.ndarray) -> Ligand:
    return replace(ligand, atoms=replace(ligand.atoms, pos=pos))


CHANGES: dict[str, Callable[[Ligand, np.random.Generator], Ligand]] = {
    "measured": lambda ligand, _: ligand,
    "moved": _moved,
    "moved and turned": lambda ligand, rng: _turned(_moved(ligand, rng), rng),
    "noisy": _noisy,
}


def _example(code: str, ligand: Ligand, protein: Protein, pk: float, scorer: Scorer) -> Example:
    return Example(build_graph(code, ligand, protein, scorer.graph_settings)[0], pk)


def _told(scorers: list[Scorer], examples: list[Example]) -> np.ndarray:
    """[models, number of examples, len(JUDGED)] what each model says."""
    each = [predict_batches(Judge(one.model), in_order(examples, 16), one.device)[0] for one in scorers]
    return np.stack(each).astype(np.float64)


def _print_trust(told: np.ndarray, measured: np.ndarray, scorers: list[Scorer]) -> None:
    """How often the interval holds, and RMSE by the word of trust."""
    calibrations, models = [one.calibration for one in scorers], [one.model for one in scorers]
    poses, predicted = range(len(measured)), told[:, :, 0].mean(axis=0)
    print(coverage_text(coverage(predicted, measured, np.array([half_width(told[:, n], calibrations) for n in poses]))))
    words = np.array([trust(told[:, n], models, calibrations, ()).word for n in poses])
    for word in (HIGH, MEDIUM, LOW):
        chosen = words == word
        if chosen.any():
            print(f"trust {word}: {chosen.sum()} complexes, RMSE {rmse(predicted[chosen], measured[chosen]):.2f}")


def _seen(path: Path) -> set[str]:
    split = load_checkpoint(path, required=FOR_PREDICTION)["split"]
    return {code for part in ("train", "validation") for code in split[part]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with its index")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "cleansplit", help="file or folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
