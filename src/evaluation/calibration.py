"""Errors on complexes that a model has not seen -> the interval around a prediction that holds the measured value in
9 of 10 cases, as wide as complexes like the new one were wrong.

Scaled conformal prediction (Papadopoulos et al., doi 10.1016/j.neunet.2011.05.008): errors are divided by the size that
is expected of them from what is known of a complex, and the interval is that size times the quantile of these ratios.
The expected size comes from many complexes, predicted by a part of the model in a cross-validation; what the whole
model does better or worse, from its validation set.

Shapes: n complexes, F facts of each, in the order of FACTS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from src.checkpoint import CheckpointError
from src.evaluation.metrics import resampling_weights

LEVEL = 0.9  # share of the measured values that lie in the interval
FACTS = (
    "likeness of the pocket to the nearest of the training",
    "likeness of ligand and pocket together to the nearest of the training",
    "logarithm of the number of heavy atoms of the ligand",
)
LEAST_ERROR = 1e-3  # pK; labels that are all the same are predicted without an error
LEAST_ERRORS = 9  # errors, the largest of which is then the quantile
RIDGE = 5.0  # weight of the squares of standardised slopes, in complexes
PRIOR_COUNT = 3.0  # complexes of the validation set that weigh as much as the belief that the model errs as its part
NORMAL_QUANTILE = 1.645  # of LEVEL, both sides


@dataclass(frozen=True)
class Calibration:
    """How wide the interval of a model is."""

    constant: float  # logarithm of the half width, pK, where all facts are 0
    slopes: tuple[float, ...] = (0.0,) * len(FACTS)  # of the same by each of FACTS
    thirds: tuple[float, float] = (0.0, math.inf)  # half widths, pK, that part the complexes it was made from in three

    def half_widths(self, facts: np.ndarray) -> np.ndarray:
        """[n] pK, of facts [n, F]; NaN where a fact is not known that counts."""
        counted = np.array(self.slopes) != 0
        return np.exp(self.constant + facts[:, counted] @ np.array(self.slopes)[counted])

    def state_dict(self) -> dict[str, Any]:
        return {"constant": self.constant, "slopes": list(self.slopes), "thirds": list(self.thirds)}


@dataclass(frozen=True)
class Coverage:
    """How often the interval held the measured value, in complexes that had no part in its making."""

    level: float  # promised share of measured values in the interval
    half_width: float  # pK, on average
    share: float  # share that was found there
    low: float  # 95 % interval of the share
    high: float
    count: int  # complexes
    by_width: float  # Pearson's R of half width and absolute error; NaN where all are as wide
    thirds: tuple[float, float]  # RMSE, pK, of the third with the narrowest intervals and of that with the widest


def calibrate(errors: np.ndarray) -> Calibration | None:
    """One width for all, by the finite ones of n errors in pK on a validation set; None where they are too few."""
    width = conformal_half_width(errors[np.isfinite(errors)])
    return Calibration(math.log(max(width, LEAST_ERROR))) if width is not None else None


def calibrate_by_facts(
    facts: np.ndarray, errors: np.ndarray, validation_facts: np.ndarray, validation_errors: np.ndarray
) -> tuple[Calibration | None, float]:
    """A width by what is known of a complex, and how many times as large the model's errors are as its part's.

    There is no width where too few complexes are known to tell.

    Args:
        facts, errors: [n, F] and [n] pK, of predictions by a part of the model that had not seen the complexes.
        validation_facts, validation_errors: [v, F] and [v] pK, of the model on its validation set.
    """
    if len(errors) < LEAST_ERRORS:
        return None, 1.0
    constant, slopes = _expected_size(facts, errors)
    quantile = conformal_half_width(np.maximum(np.abs(errors), LEAST_ERROR) / np.exp(constant + facts @ slopes))
    ratios = np.abs(validation_errors) / np.exp(constant + validation_facts @ slopes)
    whole = (ratios.sum() + PRIOR_COUNT) / (len(ratios) + PRIOR_COUNT)  # of the part, the mean ratio is 1
    found = Calibration(constant + math.log(quantile * whole), tuple(slopes.tolist()))
    low, high = np.quantile(found.half_widths(facts), (1 / 3, 2 / 3)).tolist()
    return replace(found, thirds=(low, high)), float(whole)


def conformal_half_width(errors: np.ndarray, level: float = LEVEL) -> float | None:
    """The k-th smallest absolute error, k = ceil((n + 1) * level); None when k is larger than n."""
    place = math.ceil((len(errors) + 1) * level - 1e-9)  # 0.9 * 10 is a little more than 9
    if place > len(errors):
        return None
    return float(np.sort(np.abs(errors))[place - 1])


def ensemble_half_widths(members: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Half widths [n], pK, around the mean of several models: the mean of theirs, and wider where they disagree.

    Both arguments are [models, n] in pK: the half widths of the members, and what they predicted.
    """
    return widened(members.mean(axis=0), member_spread(predicted))


def widened(half_widths: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Half widths [n], pK, of single models on average, wider by the standard deviation [n] of their predictions."""
    return np.hypot(half_widths, NORMAL_QUANTILE * spread)


def member_spread(predicted: np.ndarray) -> np.ndarray:
    """Standard deviation [n] of predictions [models, n], pK; NaN is no prediction, and one alone has none."""
    count = np.isfinite(predicted).sum(axis=0)
    squares = np.nansum((predicted - np.nanmean(predicted, axis=0)) ** 2, axis=0)
    return np.sqrt(squares / np.maximum(count - 1, 1))


def coverage(
    predicted: np.ndarray, measured: np.ndarray, half_widths: np.ndarray, groups: Sequence[object] | None = None
) -> Coverage:
    """How often the measured value of n complexes lies in the interval, and what its width says of the error.

    Args:
        half_widths: [n] pK.
        groups: of each complex, which the bootstrap of the share draws whole; None: Wilson's interval of the share
            (doi 10.1080/01621459.1927.10502953).
    """
    errors = np.abs(np.asarray(predicted) - np.asarray(measured))
    inside, order, third = errors <= half_widths, np.argsort(half_widths, kind="stable"), max(1, len(errors) // 3)
    low, high = _share_interval(inside, groups)
    varies = len(errors) > 2 and float(np.std(half_widths)) > 0 and float(np.std(errors)) > 0
    return Coverage(
        level=LEVEL,
        half_width=float(np.mean(half_widths)),
        share=float(inside.mean()),
        low=low,
        high=high,
        count=len(inside),
        by_width=float(np.corrcoef(half_widths, errors)[0, 1]) if varies else math.nan,
        thirds=tuple(float(np.sqrt(np.mean(errors[part] ** 2))) for part in (order[:third], order[-third:])),
    )


def read_calibration(state: Mapping[str, Any]) -> Calibration | None:
    """The calibration that a checkpoint holds; None for a checkpoint without one.

    Raises:
        CheckpointError: it is not what this program writes.
    """
    stored = state.get("calibration")
    if stored is None:
        return None
    constant, slopes, thirds = (stored.get(name) for name in ("constant", "slopes", "thirds"))
    sound = _are_numbers([constant], 1) and _are_numbers(slopes, len(FACTS)) and _are_numbers(thirds, 2)
    sound = sound and all(map(math.isfinite, (constant, *slopes))) and thirds[0] <= thirds[1]
    if not sound:
        raise CheckpointError(
            "the calibration stored in it is not a constant with slopes and thirds, as this release writes it"
        )
    return Calibration(constant, tuple(slopes), tuple(thirds))


def _expected_size(facts: np.ndarray, errors: np.ndarray) -> tuple[float, np.ndarray]:
    """Constant and slopes [F] of the logarithm of the mean absolute error, the likeliest for Laplace's distribution."""
    from scipy.optimize import minimize  # half a second to import, which a scoring of one pose would feel

    mean, deviation = facts.mean(axis=0), facts.std(axis=0)
    varies = deviation > 1e-6
    standard = np.where(varies, (facts - mean) / np.where(varies, deviation, 1.0), 0.0)
    size = np.maximum(np.abs(errors), LEAST_ERROR)

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        log_scale = at[0] + standard @ at[1:]
        ratio = size * np.exp(-log_scale)
        value = np.sum(log_scale + ratio) + RIDGE * np.sum(at[1:] ** 2)
        return float(value), np.append(np.sum(1 - ratio), standard.T @ (1 - ratio) + 2 * RIDGE * at[1:])

    start = np.append(math.log(float(size.mean())), np.zeros(facts.shape[1]))
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    slopes = np.where(varies, found[1:] / np.where(varies, deviation, 1.0), 0.0)
    return float(found[0] - mean @ slopes), slopes


def _share_interval(inside: np.ndarray, groups: Sequence[object] | None) -> tuple[float, float]:
    if groups is not None and len(set(groups)) > 1:
        weights = resampling_weights(len(inside), clusters=groups)
        low, high = np.quantile(weights @ inside / weights.sum(axis=1), (0.025, 0.975))
        return float(low), float(high)
    from scipy.stats import binomtest

    found = binomtest(int(inside.sum()), len(inside)).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def _are_numbers(value: Any, count: int) -> bool:
    return type(value) is list and len(value) == count and all(type(one) is float for one in value)
