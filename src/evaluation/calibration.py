"""Errors on the validation set -> the interval around a prediction that holds the measured value in 9 of 10 cases.

Split-conformal prediction (Lei et al., doi 10.1080/01621459.2017.1307116): the half width is the k-th smallest of n
absolute validation errors, k = ceil((n + 1) * LEVEL). It holds for new complexes that are drawn as the validation set
was; the error on a new target is larger than a random split says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.checkpoint import CheckpointError

LEVEL = 0.9  # share of the measured values that lie in the interval


@dataclass(frozen=True, eq=False)
class Calibration:
    """The errors of a model on its validation set, of n complexes."""

    codes: tuple[str, ...]
    errors: np.ndarray  # [n] predicted minus measured pK

    @property
    def half_width(self) -> float | None:
        """Of the interval, pK; None where there are too few complexes to tell."""
        return conformal_half_width(self.errors)

    def state_dict(self) -> dict[str, Any]:
        return {"codes": list(self.codes), "errors": torch.from_numpy(self.errors.astype(np.float32))}


@dataclass(frozen=True)
class Coverage:
    """How often the interval held the measured value, in complexes that had no part in its making."""

    level: float  # promised share of measured values in the interval
    half_width: float  # pK
    share: float  # share that was found there
    low: float  # Wilson's 95 % interval of the share (doi 10.1080/01621459.1927.10502953)
    high: float
    count: int  # complexes


def calibrate(codes: Sequence[str], predicted: np.ndarray, measured: np.ndarray) -> Calibration:
    """The calibration by a validation set of n complexes; those without a finite prediction are left out.

    Args:
        predicted: [n] pK.
        measured: [n] pK.
    """
    errors = np.asarray(predicted, dtype=np.float64) - np.asarray(measured, dtype=np.float64)
    kept = np.isfinite(errors)
    return Calibration(tuple(code for code, keep in zip(codes, kept, strict=True) if keep), errors[kept])


def conformal_half_width(errors: np.ndarray, level: float = LEVEL) -> float | None:
    """The k-th smallest absolute error, k = ceil((n + 1) * level); None when k is larger than n."""
    place = math.ceil((len(errors) + 1) * level - 1e-9)  # 0.9 * 10 is a little more than 9
    if place > len(errors):
        return None
    return float(np.sort(np.abs(errors))[place - 1])


def ensemble_half_width(members: Sequence[Calibration | None]) -> float | None:
    """Half width of the interval around the mean of several models, pK.

    With one validation set the errors of the mean are known. With several, as in a cross-validation, it is the mean
    of the half widths, which is on the safe side: errors partly cancel in a mean.
    """
    known = [one for one in members if one is not None]
    if not known or len(known) < len(members):
        return None
    if len({one.codes for one in known}) == 1:
        return conformal_half_width(np.mean([one.errors for one in known], axis=0))
    widths = [one.half_width for one in known]
    return None if None in widths else float(np.mean(widths))


def coverage(predicted: np.ndarray, measured: np.ndarray, half_width: float) -> Coverage:
    """The share of complexes whose measured value lies within half_width of the prediction."""
    from scipy.stats import binomtest  # half a second to import, which a scoring of one pose would feel

    inside = np.abs(np.asarray(predicted) - np.asarray(measured)) <= half_width
    test = binomtest(int(inside.sum()), len(inside))
    interval = test.proportion_ci(0.95, method="wilson")
    return Coverage(LEVEL, half_width, test.statistic, float(interval.low), float(interval.high), len(inside))


def read_calibration(state: Mapping[str, Any]) -> Calibration | None:
    """The calibration that a checkpoint holds; None for a checkpoint without one.

    Raises:
        CheckpointError: it is not what this program writes.
    """
    stored = state.get("calibration")
    if stored is None:
        return None
    codes, errors = stored.get("codes"), stored.get("errors")
    sound = (
        type(codes) is list
        and all(type(code) is str for code in codes)
        and type(errors) is torch.Tensor
        and errors.shape == (len(codes),)
        and errors.is_floating_point()
        and bool(torch.isfinite(errors).all())
    )
    if not sound:
        raise CheckpointError("the calibration stored in the checkpoint is not a list of codes with an error each")
    return Calibration(tuple(codes), errors.double().numpy())
