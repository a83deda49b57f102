"""How much a few measured ligands of a series tell of its others: the score, an offset, and scores conditioned on them.

python benchmarks/known.py --data $AIDD_REAL_DATA/fep [--checkpoint checkpoints/cleansplit] [--draws 20]

The folder has labels.csv with protein_path, ligand_path, pK and target. Of each target with enough ligands, some are
drawn as known, and all others are predicted: by the score, by the score plus one offset for the series, by the score
conditioned as `predict.py --known` does it, and by a ridge regression on the known ligands' fingerprints alone.
R is the mean of Pearson's R within a target, weighted by its ligands; intervals resample targets, and differences are
paired.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.data.batching import in_order  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.evaluation.metrics import resampling_weights  # noqa: E402
from src.gaussian_process.joined_model import JUDGED, JoinedModel, Judge  # noqa: E402
from src.gaussian_process.known_ligands import condition  # noqa: E402
from src.gaussian_process.likenesses import Likenesses  # noqa: E402
from src.gaussian_process.profiles import ContactProfiles, LabelledProfiles, labelled_profiles  # noqa: E402
from src.hardware.inference import predict_batches  # noqa: E402
from src.scoring.conditioning import read_known  # noqa: E402
from src.scoring.ensemble import Ensemble, find_checkpoints, load_ensemble  # noqa: E402
from src.scoring.trust import half_width  # noqa: E402

LEAST_OTHERS = 5  # ligands that are predicted
OFFSET_NOISE = 1.0  # variance of single errors over that of offsets, for the offset alone
RIDGE = 0.3
METHODS = ("score", "offset alone", "conditioned", "ligands alone")


class Series(NamedTuple):
    """The ligands of one target, n of them."""

    profiles: list[LabelledProfiles]  # as each model sees them
    told: np.ndarray  # [models, n, len(JUDGED)]
    measured: np.ndarray  # [n] pK
    tanimoto: np.ndarray  # [n, n]


def main() -> None:
    options = _options()
    ensemble = load_ensemble(find_checkpoints([options.checkpoint]), "cpu")
    series = _read(options.data, ensemble)
    print(f"{len(series)} targets, {sum(len(one.measured) for one in series.values())} ligands, {options.draws} draws")
    for count in options.known:
        chosen = {name: one for name, one in series.items() if len(one.measured) >= count + LEAST_OTHERS}
        _print(count, [_judge(one, ensemble, count, options.draws) for one in chosen.values()], chosen)


def _read(data: Path, ensemble: Ensemble) -> dict[str, Series]:
    with (data / "labels.csv").open(newline="", encoding="utf-8") as file:
        targets = [row["target"] for row in csv.DictReader(file)]
    known = read_known(data / "labels.csv", ensemble)
    assert len(known) == len(targets), "a row could not be read: leave it out of labels.csv"
    found = {}
    for target in dict.fromkeys(targets):
        mine = [one for one, name in zip(known, targets, strict=True) if name == target]
        examples = [Example(one.graph, one.pk) for one in mine]
        told = [predict_batches(Judge(model), in_order(examples, 16), ensemble.device)[0] for model in ensemble.models]
        profiles = [labelled_profiles(in_order(examples, 16), model.process.cutoff) for model in ensemble.models]
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
        prints = [generator.GetFingerprint(Chem.MolFromSmiles(one.graph.smiles)) for one in mine]
        tanimoto = np.array([DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints])
        measured = np.array([one.pk for one in mine])
        found[target] = Series(profiles, np.stack(told).astype(np.float64), measured, tanimoto)
    return found


def _judge(one: Series, ensemble: Ensemble, count: int, draws: int) -> dict[str, np.ndarray]:
    """For each method, mean over draws: R, mean squared error; of the interval: share that it holds, half width."""
    rng, size = np.random.default_rng(0), len(one.measured)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in (*METHODS, "interval", "interval before")}
    for _ in range(draws):
        order = rng.permutation(size)
        known, others = order[:count], order[count:]
        score, errors = one.told[:, :, 0].mean(axis=0), one.measured - one.told[:, :, 0].mean(axis=0)
        told = np.stack([_conditioned(one, m, ensemble.models[m], known, others) for m in range(len(ensemble.models))])
        kernel = one.tanimoto[np.ix_(known, known)] + RIDGE * np.eye(count)
        mean = one.measured[known].mean()
        by_ligands = one.tanimoto[np.ix_(others, known)] @ np.linalg.solve(kernel, one.measured[known] - mean)
        predicted = {
            "score": score[others],
            "offset alone": score[others] + errors[known].sum() / (count + OFFSET_NOISE),
            "conditioned": told[:, :, 0].mean(axis=0),
            "ligands alone": mean + by_ligands,
        }
        measured = one.measured[others]
        for name, values in predicted.items():
            spread = values.std() * measured.std()
            r = float(np.corrcoef(values, measured)[0, 1]) if spread > 1e-9 else 0.0
            found[name].append((r, float(np.mean((values - measured) ** 2))))
        calibrations = [scorer.calibration for scorer in ensemble.scorers]
        for name, columns in {"interval": told, "interval before": one.told[:, others]}.items():
            widths = np.array([half_width(columns[:, place], calibrations) for place in range(len(others))])
            holds = np.abs(columns[:, :, 0].mean(axis=0) - measured) <= widths
            found[name].append((float(holds.mean()), float(widths.mean())))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def _conditioned(one: Series, number: int, model: JoinedModel, known: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What one model says of the other ligands, [others, len(JUDGED)], when it is told the known ones."""
    profiles, told = one.profiles[number], one.told[number, others].copy()
    errors = one.measured[known] - one.told[number, known, 0]
    mine = profiles.of(_numbers(known))
    added = condition(model.process, model.prior, mine, errors, np.zeros(len(known), dtype=int))
    asked: ContactProfiles = profiles.of(_numbers(others)).profiles
    likenesses: Likenesses = added.likenesses(asked)
    told[:, 0] += added.predict(asked, likenesses).double().numpy()
    told[:, JUDGED.index("narrowing")] = added.narrowing(asked, likenesses).double().numpy()
    return told


def _print(count: int, judged: list[dict[str, np.ndarray]], series: dict[str, Series]) -> None:
    sizes = np.array([len(one.measured) - count for one in series.values()], dtype=float)
    drawn = resampling_weights(len(sizes)) * sizes
    print(f"\n{count} known, {len(sizes)} targets")

    def show(name: str, value: np.ndarray, root: bool) -> str:
        """Mean weighted by ligands, and its interval."""
        end = np.sqrt if root else (lambda x: x)
        low, high = np.quantile(end(drawn @ value / drawn.sum(axis=1)), (0.025, 0.975))
        return f"{name} {end(sizes @ value / sizes.sum()):.3f} [{low:.3f}, {high:.3f}]"

    table = {name: np.array([one[name] for one in judged]) for name in judged[0]}
    for name in METHODS:
        print(f"  {name:14} {show('R', table[name][:, 0], False)}   {show('RMSE', table[name][:, 1], True)}")
    for name in (one for one in METHODS if one != "conditioned"):
        gain = drawn @ (table["conditioned"][:, 0] - table[name][:, 0]) / drawn.sum(axis=1)
        both = [np.sqrt(drawn @ table[one][:, 1] / drawn.sum(axis=1)) for one in ("conditioned", name)]
        (low, high), (down, up) = (np.quantile(values, (0.025, 0.975)) for values in (gain, both[0] - both[1]))
        difference = sizes @ (table["conditioned"][:, 0] - table[name][:, 0]) / sizes.sum()
        print(f"  less {name}: R {difference:+.3f} [{low:+.3f}, {high:+.3f}], RMSE [{down:+.3f}, {up:+.3f}]")
    for name in ("interval before", "interval"):
        share, width = sizes @ table[name] / sizes.sum()
        print(f"  {name}: holds {share:.1%}, ±{width:.2f}")


def _numbers(places: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(places)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "cleansplit", help="file or folder")
    parser.add_argument("--known", type=int, nargs="+", default=[3, 5, 10], metavar="N", help="measured ligands")
    parser.add_argument("--draws", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
