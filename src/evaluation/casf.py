"""Scores of native and decoy poses -> the four powers of CASF-2016.

Definitions: Su et al., "Comparative Assessment of Scoring Functions: The CASF-2016 Update", J. Chem. Inf. Model.
2019, 59, 895, doi 10.1021/acs.jcim.8b00545. Higher scores are better throughout.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from src.evaluation.metrics import Interval, interval, kendall, pearson, resampling_weights, spearman, weighted_pearson

NEAR_NATIVE = 2.0  # Å RMSD; a pose this near the crystal's counts as found
LEAST_POSES = 5  # poses in an RMSD window, for a correlation
WINDOWS = range(2, 11)  # Å; the binding funnel is judged on poses from 0 to each of these
FRACTIONS = (0.01, 0.05, 0.10)  # fractions of the candidates of a target

Scores = Mapping[str, float]


def scoring_power(predicted: np.ndarray, measured: np.ndarray) -> dict[str, Interval]:
    """Pearson's R, and the standard deviation of the labels around the regression line (pK, n - 1 degrees)."""
    if len(measured) < 2:
        undefined = Interval(math.nan, math.nan, math.nan)
        return {"R": undefined, "SD": undefined}
    weights = resampling_weights(len(measured))
    r = weighted_pearson(weights, predicted, measured)
    once = np.ones((1, len(measured)))
    deviation = _deviation_from_line(once, weighted_pearson(once, predicted, measured), measured)
    return {
        "R": interval(pearson(predicted, measured), r),
        "SD": interval(deviation[0], _deviation_from_line(weights, r, measured)),
    }


def ranking_power(predicted: np.ndarray, measured: np.ndarray, targets: Sequence[object]) -> dict[str, Interval]:
    """Spearman, Kendall and predictive index within each target, their means, and intervals over targets."""
    labels = np.asarray(targets, dtype=object)
    groups = [labels == name for name in dict.fromkeys(targets)]
    groups = [group for group in groups if group.sum() > 1]
    functions = {"Spearman": spearman, "Kendall": kendall, "predictive index": predictive_index}
    return {
        name: _mean_over([function(predicted[group], measured[group]) for group in groups])
        for name, function in functions.items()
    }


def predictive_index(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Pairs in the right order minus those in the wrong one, each weighted by the difference of its labels.

    Pearlman and Charifson, doi 10.1021/jm0100279.
    """
    difference = np.subtract.outer(measured, measured)
    weight = np.abs(difference).sum()
    agreement = np.sign(difference) * np.sign(np.subtract.outer(predicted, predicted))
    return float((agreement * np.abs(difference)).sum() / weight) if weight > 0 else math.nan


def docking_power(scores: Mapping[str, Scores], rmsd: Mapping[str, Scores]) -> dict[str, Interval]:
    """How often a near-native pose is among the best 1, 2 and 3, and how scores follow RMSD towards the native pose.

    Args:
        scores: code -> name of the pose -> score. A pose without a score counts as not found.
        rmsd: code -> name of the pose -> Å from the native pose.

    Returns:
        'top 1' to 'top 3': fraction of complexes; '0-2 Å' to '0-10 Å': mean Spearman of the score against minus the
        RMSD, over the complexes with 5 poses or more in that window. Intervals are over complexes.
    """
    hits: dict[str, list[float]] = {f"top {best}": [] for best in (1, 2, 3)}
    funnels: dict[str, list[float]] = {f"0-{window} Å": [] for window in WINDOWS}
    for code, distances in rmsd.items():
        named = [(name, score) for name, score in scores.get(code, {}).items() if name in distances]
        score = np.array([value for _, value in named])
        distance = np.array([distances[name] for name, _ in named])
        ranked = distance[np.argsort(-score, kind="stable")]
        for best in (1, 2, 3):
            hits[f"top {best}"].append(float((ranked[:best] <= NEAR_NATIVE).any()))
        for window in WINDOWS:
            inside = distance <= window
            if inside.sum() >= LEAST_POSES:
                funnels[f"0-{window} Å"].append(spearman(score[inside], -distance[inside]))
    return {name: _mean_over(values) for name, values in (hits | funnels).items()}


def screening_power(scores: Mapping[str, Scores], actives: Mapping[str, Sequence[str]]) -> dict[str, Interval]:
    """Forward screening: for each target, are its own ligands at the top of all candidates?

    Args:
        scores: code of the target -> code of the ligand -> best score of its poses there.
        actives: code of the target -> codes of its ligands, the most potent first.

    Returns:
        'success 1%' and so on: fraction of targets with the most potent ligand among the best 1% of the candidates;
        'EF 1%': enrichment factor, the ligands found there over those that chance would put there.
    """
    table: dict[str, list[float]] = {}
    for target, ligands in actives.items():
        ranked = _ranked(scores.get(target, {}))
        for fraction in FRACTIONS:
            top = set(ranked[: _top(len(ranked), fraction)])
            found = len(top & set(ligands)) / (len(set(ligands)) * fraction)
            table.setdefault(f"success {fraction:.0%}", []).append(float(ligands[0] in top))
            table.setdefault(f"EF {fraction:.0%}", []).append(found)
    return {name: _mean_over(values) for name, values in table.items()}


def reverse_screening_power(scores: Mapping[str, Scores], actives: Mapping[str, Sequence[str]]) -> dict[str, Interval]:
    """For each ligand, is a target that it binds at the top of all targets? The arguments are those of forward."""
    table: dict[str, list[float]] = {f"success {fraction:.0%}": [] for fraction in FRACTIONS}
    targets_of: dict[str, set[str]] = defaultdict(set)
    for target, codes in actives.items():
        for code in codes:
            targets_of[code].add(target)
    for ligand, own in targets_of.items():
        ranked = _ranked({target: row[ligand] for target, row in scores.items() if ligand in row})
        for fraction in FRACTIONS:
            table[f"success {fraction:.0%}"].append(float(bool(own & set(ranked[: _top(len(ranked), fraction)]))))
    return {name: _mean_over(values) for name, values in table.items()}


def _deviation_from_line(weights: np.ndarray, r: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Of each resample, [B]: a line with Pearson's R explains the share R^2 of the squares of the labels."""
    total = weights.sum(1)
    centred = measured - measured.mean()  # against cancellation
    squares = weights @ centred**2 - (weights @ centred) ** 2 / total
    return np.sqrt(np.clip(squares * (1 - r**2), 0, None) / (total - 1))


def _mean_over(values: Sequence[float]) -> Interval:
    """Mean with a bootstrap interval over its terms; terms that are not defined are left out."""
    defined = np.array([value for value in values if math.isfinite(value)])
    if not len(defined):
        return Interval(math.nan, math.nan, math.nan)
    return interval(defined.mean(), resampling_weights(len(defined)) @ defined / len(defined))


def _ranked(scores: Scores) -> list[str]:
    return sorted(scores, key=lambda name: -scores[name])


def _top(count: int, fraction: float) -> int:
    """Number of candidates in the top fraction, halves rounded up as in the published scripts: 28.5 is 29."""
    return int((count * Decimal(str(fraction))).quantize(Decimal(0), rounding=ROUND_HALF_UP))
