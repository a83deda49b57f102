"""Predictions and labels -> metrics with confidence intervals, beside baselines that learn nothing of contacts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from scipy import stats

from src.graph import ComplexGraph

MAX_RIDGE_LIGANDS = 5000  # the ligand-only baseline needs the square of this number in memory: 200 MB
RIDGE = 1.0  # regularisation of the ligand-only baseline, added to the diagonal of the similarity matrix


@dataclass(frozen=True)
class Interval:
    """A metric and its 95% bootstrap percentile interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain values; None where the metric is not defined, since JSON has no NaN."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2))) if len(measured) else math.nan


def mae(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted - measured))) if len(measured) else math.nan


def pearson(predicted: np.ndarray, measured: np.ndarray) -> float:
    return _correlation(stats.pearsonr, predicted, measured)


def spearman(predicted: np.ndarray, measured: np.ndarray) -> float:
    return _correlation(stats.spearmanr, predicted, measured)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "rmse": rmse,
    "mae": mae,
    "pearson": pearson,
    "spearman": spearman,
}


def metrics(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    return {name: metric(predicted, measured) for name, metric in METRICS.items()}


def metrics_with_intervals(
    predicted: np.ndarray, measured: np.ndarray, *, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every metric with its 95% interval from resampling complexes with replacement."""
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(measured), size=len(measured)) for _ in range(num_resamples if len(measured) else 0)]
    table = {}
    for name, metric in METRICS.items():
        resampled = np.array([metric(predicted[draw], measured[draw]) for draw in draws])
        resampled = resampled[np.isfinite(resampled)]
        low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (math.nan, math.nan)
        table[name] = Interval(metric(predicted, measured), float(low), float(high))
    return table


def baseline_predictions(
    train: Sequence[ComplexGraph], train_pk: np.ndarray, test: Sequence[ComplexGraph]
) -> dict[str, np.ndarray]:
    """What can be predicted without knowing what touches what; a model that is no better learned no chemistry.

    Returns:
        predict the mean: the mean label of the training set.
        ligand size only: linear regression on the number of heavy atoms.
        contact count only: linear regression on the number of protein-ligand pairs within the interaction cutoff.
        ligand only: kernel ridge regression on the Tanimoto similarity of Morgan fingerprints (radius 2, 2048).
    """
    predictions = {"predict the mean": np.full(len(test), train_pk.mean())}
    counts = {
        "ligand size only": lambda graph: graph.num_ligand_atoms,
        "contact count only": lambda graph: graph.contacts.shape[1],
    }
    for name, count in counts.items():
        known = np.array([count(graph) for graph in train], dtype=float)
        if np.ptp(known) > 0:
            fit = stats.linregress(known, train_pk)
            predictions[name] = fit.intercept + fit.slope * np.array([count(graph) for graph in test], dtype=float)
    predictions["ligand only"] = _tanimoto_ridge(train, train_pk, test)
    return predictions


def results_table(rows: dict[str, dict[str, Interval]]) -> str:
    """Aligned text: a line per predictor, a column per metric."""
    width = max(len(name) for name in rows) + 2
    lines = [" " * width + "".join(f"{name:<24}" for name in METRICS)]
    for name, row in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{row[metric]!s:<24}" for metric in METRICS))
    return "\n".join(line.rstrip() for line in lines)


def _correlation(function: Callable, predicted: np.ndarray, measured: np.ndarray) -> float:
    if len(measured) < 2 or np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return math.nan  # not defined for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)  # an untrained model predicts alike
        return float(function(predicted, measured).statistic)


def _tanimoto_ridge(train: Sequence[ComplexGraph], train_pk: np.ndarray, test: Sequence[ComplexGraph]) -> np.ndarray:
    step = -(-len(train) // MAX_RIDGE_LIGANDS)  # every step-th ligand of a larger set
    train, train_pk = train[::step], train_pk[::step]
    known, queries = _fingerprints(train), _fingerprints(test)
    weights = np.linalg.solve(_similarity(known, known) + RIDGE * np.eye(len(known)), train_pk - train_pk.mean())
    return train_pk.mean() + _similarity(queries, known) @ weights


def _similarity(rows: list, columns: list) -> np.ndarray:
    """Tanimoto similarity of fingerprints, [rows, columns]."""
    table = np.empty((len(rows), len(columns)))
    for row, fingerprint in enumerate(rows):
        table[row] = DataStructs.BulkTanimotoSimilarity(fingerprint, columns)
    return table


def _fingerprints(graphs: Sequence[ComplexGraph]) -> list:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    empty = Chem.MolFromSmiles("")
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(graph.smiles) for graph in graphs]
    return [generator.GetFingerprint(empty if molecule is None else molecule) for molecule in molecules]
