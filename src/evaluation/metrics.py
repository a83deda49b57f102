"""Predictions and labels -> metrics with confidence intervals, by group, given ligand size, and against another model.

A resample is a row of weights: how often each complex was drawn. Every metric is written for weights, so that a
thousand resamples are a few matrix products, and drawing whole clusters needs no other code.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

NUM_RESAMPLES, NUM_PAIRED_RESAMPLES = 1000, 2000
MAX_PAIRED = 3000  # complexes; beyond, the intervals of pair counts (quadratic in complexes) use fewer resamples
LEAST_GROUP = 10  # complexes; a correlation of fewer says nothing

Clusters = Sequence[object] | None  # of each complex, drawn whole; None: complexes are drawn one by one


@dataclass(frozen=True)
class Interval:
    """A metric and its 95% bootstrap percentile interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "n/a"
        value, low, high = (f"{round(number, 3) + 0.0:.3f}" for number in (self.value, self.low, self.high))  # no -0
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Difference(Interval):
    """Ours minus theirs, its 95% interval, and the two-sided p of no difference; all from the same resamples."""

    p: float

    def __str__(self) -> str:
        return super().__str__() if math.isnan(self.p) else f"{super().__str__()} p = {self.p:.3f}"


@dataclass(frozen=True)
class Group:
    """The metrics of one kind of affinity, or of one target."""

    name: str
    count: int
    metrics: dict[str, Interval]


def rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2))) if len(measured) else math.nan


def mae(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted - measured))) if len(measured) else math.nan


def pearson(predicted: np.ndarray, measured: np.ndarray) -> float:
    return _correlation(stats.pearsonr, predicted, measured)


def spearman(predicted: np.ndarray, measured: np.ndarray) -> float:
    return _correlation(stats.spearmanr, predicted, measured)


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Tau b: concordant minus discordant pairs, over the geometric mean of the pairs that either does not tie."""
    return _correlation(stats.kendalltau, predicted, measured)


def concordance(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Concordance index: of the pairs with different labels the fraction in the right order; a tie counts one half.

    Harrell et al., doi 10.1001/jama.1982.03320430047030. In n log n steps, from Kendall's tau b.
    """
    untied = float(_untied_pairs(np.ones((1, len(measured))), measured)[0])
    if untied == 0:
        return math.nan
    tau = kendall(predicted, measured)
    if math.isnan(tau):
        return 0.5 if np.ptp(predicted) == 0 else math.nan  # a constant prediction ties every pair
    excess = tau * math.sqrt(untied * float(_untied_pairs(np.ones((1, len(measured))), predicted)[0]))
    return 0.5 + 0.5 * round(excess) / untied


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "rmse": rmse,
    "mae": mae,
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
    "concordance": concordance,
}
PRINTED_METRICS = ("rmse", "pearson", "spearman")  # a table of 100 columns; all stand in metrics.json


def metrics(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    return {name: metric(predicted, measured) for name, metric in METRICS.items()}


def metrics_with_intervals(
    predicted: np.ndarray, measured: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, clusters: Clusters = None
) -> dict[str, Interval]:
    """Every metric with its 95% interval from resampling complexes, or whole clusters, with replacement."""
    weights = resampling_weights(len(measured), num_resamples=num_resamples, clusters=clusters)
    resampled = _resampled_metrics(weights, _float64(predicted), _float64(measured))
    return {name: interval(value, resampled[name]) for name, value in metrics(predicted, measured).items()}


def resampling_weights(
    num_complexes: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0, clusters: Clusters = None
) -> np.ndarray:
    """How often each complex is drawn in each resample, [num_resamples, num_complexes].

    With clusters, as many whole clusters are drawn as there are: complexes of one target are no independent evidence.
    """
    if num_complexes == 0:
        return np.zeros((0, 0))
    if clusters is not None and len(set(clusters)) < 2:
        return np.zeros((0, num_complexes))  # one cluster drawn again is always the same: no interval
    rng = np.random.default_rng(seed)
    numbers = np.arange(num_complexes) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    num_units = int(numbers.max()) + 1
    draws = rng.integers(num_units, size=(num_resamples, num_units))
    draws += num_units * np.arange(num_resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=num_resamples * num_units).reshape(num_resamples, num_units)
    return counts[:, numbers].astype(np.float64)


def interval(value: float, resampled: np.ndarray) -> Interval:
    """A value with the 95% percentile interval of its resamples; those that are not defined are left out."""
    return Interval(float(value), *_percentiles(resampled))


def metrics_by_group(
    predicted: np.ndarray, measured: np.ndarray, groups: Sequence[str], *, clusters: Clusters = None
) -> list[Group]:
    """Metrics of each group, the largest first; groups of fewer than LEAST_GROUP are put together at the end."""
    counts = Counter(groups)
    small = {name for name, count in counts.items() if count < LEAST_GROUP}
    labels = np.array(["" if name in small else name for name in groups], dtype=object)
    rows = []
    for name in sorted(set(labels), key=lambda name: (name == "", -counts[name], name)):
        chosen = labels == name
        title = name or f"{len(small)} groups of fewer than {LEAST_GROUP}"
        units = None if clusters is None else [clusters[place] for place in np.flatnonzero(chosen)]
        values = metrics_with_intervals(predicted[chosen], measured[chosen], clusters=units)
        rows.append(Group(title, int(chosen.sum()), values))
    return rows


def partial_pearson(
    predicted: np.ndarray, measured: np.ndarray, given: np.ndarray, *, clusters: Clusters = None
) -> Interval:
    """Pearson's R of prediction and label after a straight line in `given` (ligand size) is taken out of both."""
    x, y, z = _float64(predicted), _float64(measured), _float64(given)
    if len(y) < 4 or min(np.ptp(x), np.ptp(y), np.ptp(z)) == 0:  # of three, every residual lies on one line
        return Interval(math.nan, math.nan, math.nan)

    def partial(weights: np.ndarray) -> np.ndarray:
        xy, xz, yz = (weighted_pearson(weights, *pair) for pair in ((x, y), (x, z), (y, z)))
        left = (1 - xz**2) * (1 - yz**2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(left > 1e-10, (xy - xz * yz) / np.sqrt(left), math.nan)  # a function of size has no rest

    weights = resampling_weights(len(y), clusters=clusters)
    return interval(float(partial(np.ones((1, len(y))))[0]), partial(weights))


def compare(
    predicted: np.ndarray, other: np.ndarray, measured: np.ndarray, *, clusters: Clusters = None
) -> dict[str, Difference]:
    """Paired bootstrap: for each metric our value minus the other's, both on the same resampled complexes.

    p is twice the smaller share of resamples on either side of 0 (Efron and Tibshirani 1993, chapter 16); NaN for fewer
    complexes than LEAST_GROUP, of which resamples say nothing.
    """
    weights = resampling_weights(len(measured), num_resamples=NUM_PAIRED_RESAMPLES, clusters=clusters)
    ours, theirs = (_resampled_metrics(weights, _float64(one), _float64(measured)) for one in (predicted, other))
    values, others = metrics(predicted, measured), metrics(other, measured)
    table = {}
    for name in METRICS:
        change = ours[name] - theirs[name]
        change = change[np.isfinite(change)]
        value = values[name] - others[name]
        tail = min((change <= 0).sum(), (change >= 0).sum()) + 1
        tells = len(change) and math.isfinite(value) and len(measured) >= LEAST_GROUP
        p = min(1.0, 2 * float(tail) / (len(change) + 1)) if tells else math.nan
        table[name] = Difference(value, *_percentiles(change), p)
    return table


def weighted_pearson(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's R of each resample, [B], from weights [B, n] and values [n] or [B, n]; NaN where one is constant."""
    total = weights.sum(1)

    def mean(values: np.ndarray) -> np.ndarray:
        return (weights @ values if values.ndim == 1 else np.einsum("bn,bn->b", weights, values)) / total

    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)  # against cancellation
    mean_x, mean_y, square_x, square_y = mean(x), mean(y), mean(x * x), mean(y * y)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    is_constant = (variance_x <= 1e-13 * square_x) | (variance_y <= 1e-13 * square_y)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (mean(x * y) - mean_x * mean_y) / np.sqrt(variance_x * variance_y)
    return np.where(is_constant, math.nan, r)


def results_table(rows: dict[str, dict[str, Interval]]) -> str:
    """Aligned text: a line per predictor, a column per printed metric."""
    width = max(len(name) for name in rows) + 2
    lines = [" " * width + "".join(f"{name:<24}" for name in PRINTED_METRICS)]
    for name, row in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{row[metric]!s:<24}" for metric in PRINTED_METRICS))
    return "\n".join(line.rstrip() for line in lines)


def _correlation(function: Callable, predicted: np.ndarray, measured: np.ndarray) -> float:
    if len(measured) < 2 or np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return math.nan  # not defined for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)  # an untrained model predicts alike
        return float(function(predicted, measured).statistic)


def _percentiles(resampled: np.ndarray) -> tuple[float, float]:
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        return math.nan, math.nan
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _resampled_metrics(weights: np.ndarray, predicted: np.ndarray, measured: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of every resample, [B] each, from weights [B, n]."""
    if not len(measured):
        return {name: np.zeros(0) for name in METRICS}
    total, error = weights.sum(1), predicted - measured
    # Pair counts cost n^2 a resample.
    few = weights[: max(100, int(len(weights) * min(1.0, MAX_PAIRED / len(measured)) ** 2))]
    excess = _pair_excess(few, predicted, measured)
    untied, untied_predicted = _untied_pairs(few, measured), _untied_pairs(few, predicted)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "rmse": np.sqrt(weights @ error**2 / total),
            "mae": weights @ np.abs(error) / total,
            "pearson": weighted_pearson(weights, predicted, measured),
            "spearman": weighted_pearson(weights, _ranks(weights, predicted), _ranks(weights, measured)),
            "kendall": excess / np.sqrt(untied * untied_predicted),
            "concordance": 0.5 + 0.5 * excess / untied,
        }


def _ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean rank of each value in each resample, [B, n], where a value of weight w stands w times."""
    sums, group = _sums_of_equal(weights, values)
    return (np.cumsum(sums, axis=1) - (sums - 1) / 2)[:, group]


def _untied_pairs(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Number of pairs with different values in each resample, [B]."""
    sums, _ = _sums_of_equal(weights, values)
    return (weights.sum(1) ** 2 - (sums**2).sum(1)) / 2


def _sums_of_equal(weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of each different value, ascending, [B, u], and which of them each value is, [n]."""
    if not len(values):
        return np.zeros((len(weights), 0)), np.zeros(0, dtype=int)
    _, first, group = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    back = np.empty_like(group)
    back[order] = group
    return np.add.reduceat(weights[:, order], first, axis=1), back


def _pair_excess(weights: np.ndarray, x: np.ndarray, y: np.ndarray, rows: int = 512) -> np.ndarray:
    """Concordant minus discordant pairs in each resample, [B]; exact, as all sums of signs are whole numbers."""
    light, excess = weights.astype(np.float32), np.zeros(len(weights))
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        signs = np.sign(x[part, None] - x) * np.sign(y[part, None] - y)
        excess += np.einsum("bn,bn->b", weights[:, part], light @ signs.T.astype(np.float32))
    return excess / 2


def _float64(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)
