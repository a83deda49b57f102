"""Measured ligands of one's own targets, and what a model says of them -> what to add to its score of any other.

It is the mean of the series' process given their errors, a sum over likenesses to them, and so a sum over contacts as
the score itself; far from all of them nothing is added. Formulas: Rasmussen & Williams, Gaussian Processes for Machine
Learning, 2006, eq. 2.25 for exact values, and algorithm 3.1 (Laplace's approximation) where some are bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.checkpoint import CheckpointError
from src.gaussian_process.likenesses import Likenesses, saturation
from src.gaussian_process.process import GaussianProcess, are_stored, no_references
from src.gaussian_process.profiles import ContactProfiles, LabelledProfiles
from src.gaussian_process.series import SeriesPrior

NEWTON_STEPS = 50
TOLERANCE = 1e-9  # pK
SAME_SERIES = 0.5  # likeness of pockets from which ligands are of one series, whose errors are alike in size
LEVEL = 0.95  # quantile whose ratio says how the t distribution tightens

_TENSORS = {  # beside the scales, which are those of the process; k measured ligands
    "references": (torch.int8, "nD"),
    "environments": (torch.uint8, "nB"),
    "weights": (torch.float32, "n"),
    "saturations": (torch.float32, "n"),
    "widths": (torch.float32, "n"),
    "inverse": (torch.float32, "nn"),
}


class KnownLigands(GaussianProcess):
    """What k measured ligands add to the pK of a pose, and how much narrower they make its interval."""

    def __init__(self, stored: Mapping[str, Any], prior: SeriesPrior) -> None:
        """
        Args:
            stored: as state_facts gives it and read_known_ligands checks it.
        """
        super().__init__({**stored, "intercept": 0.0, "slope": 0.0})
        self.prior = prior
        for name in _OWN:
            self.register_buffer(name, stored[name].float(), persistent=False)

    def state_facts(self) -> dict[str, Any]:
        facts = super().state_facts()
        kept = {name: facts[name] for name in ("references", "environments", "weights", "codes")}
        return kept | {name: getattr(self, name).cpu() for name in _OWN}

    def weigh(self, likenesses: Likenesses) -> Tensor:
        """[G] what is added, without the saturation of the pose."""
        return self._shared(likenesses) @ self.weights

    def narrowing(self, profiles: ContactProfiles, likenesses: Likenesses) -> Tensor:
        """[G] by how much the interval is as wide as without the measured ligands."""
        prior, saturations = self.prior, saturation(profiles.total)
        before = saturations**2 * (3 * prior.shared + prior.offset) + prior.noise
        told = saturations.unsqueeze(1) * self._shared(likenesses) * self.saturations
        after = before - ((told @ self.inverse) * told).sum(1)
        likeness, nearest = likenesses.residues.max(1)
        width = self.widths[nearest] ** (saturations * (likeness / SAME_SERIES).clamp(max=1))
        return width * (after.clamp(min=prior.noise) / before).sqrt()

    def _shared(self, likenesses: Likenesses) -> Tensor:
        return self.prior.shared * likenesses.kernel + self.prior.offset * likenesses.residues**self.prior.sharpness


def condition(
    process: GaussianProcess, prior: SeriesPrior, known: LabelledProfiles, errors: np.ndarray, bounds: np.ndarray
) -> KnownLigands:
    """
    Args:
        process: of the model, by whose scales ligands are compared.
        known: the k measured ligands, at least one.
        errors: [k] measured value, or bound of it, minus the score, pK.
        bounds: [k] 0 where the value is exact, 1 where the pK is at least it, -1 where it is at most.
    """
    added = KnownLigands({**process.state_facts(), **no_references(len(process.columns)), **_NOTHING}, prior)
    added.remember(known)
    likenesses = Likenesses(*(part.double().numpy() for part in added.likenesses(known.profiles)))
    saturations = saturation(known.profiles.total).double().numpy()
    kernel = np.outer(saturations, saturations) * likenesses.kernel
    covariance = prior.covariance(kernel, likenesses.residues, saturations)
    covariance = (covariance + covariance.T) / 2  # both ways of rounding
    weights, inverse = _posterior(covariance, prior.noise, errors, bounds)
    added.weights = torch.from_numpy(saturations * weights).float()
    added.saturations, added.inverse = torch.from_numpy(saturations).float(), torch.from_numpy(inverse).float()
    of_series = (likenesses.residues >= SAME_SERIES) & (bounds == 0)
    widths = [_width(prior, covariance[np.ix_(those, those)], errors[those]) for those in of_series]
    added.widths = torch.tensor(widths, dtype=torch.float32)
    return added


def read_known_ligands(
    stored: Mapping[str, Any] | None, process: GaussianProcess, prior: SeriesPrior
) -> KnownLigands | None:
    """The measured ligands that a checkpoint holds; None for None.

    Raises:
        CheckpointError: they are not what this program writes.
    """
    if stored is None:
        return None
    if not isinstance(stored, Mapping) or not are_stored(stored, _TENSORS, width=len(process.columns)):
        raise CheckpointError("the measured ligands stored in it are not what this program writes")
    return KnownLigands({**process.state_facts(), **stored}, prior)


_OWN = ("saturations", "widths", "inverse")  # beside what every process has
_NOTHING = {"saturations": torch.zeros(0), "widths": torch.zeros(0), "inverse": torch.zeros(0, 0)}


def _posterior(
    covariance: np.ndarray, noise: float, errors: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [k] whose product with covariances is the mean, and [k, k] with which those lower a variance."""
    from scipy.special import log_ndtr  # half a second to import, which a scoring of one pose would feel

    deviation, at, identity = math.sqrt(noise), np.zeros(len(errors)), np.eye(len(errors))
    for _ in range(NEWTON_STEPS):
        beyond = bounds * (at - errors) / deviation
        ratio = np.exp(-(beyond**2) / 2 - log_ndtr(beyond)) / math.sqrt(2 * math.pi)  # of density to probability
        slope = np.where(bounds == 0, (errors - at) / noise, bounds * ratio / deviation)
        curvature = np.where(bounds == 0, 1.0, ratio * (ratio + beyond)) / noise
        root = np.sqrt(np.clip(curvature, 0, None))
        inner = root[:, None] * np.linalg.solve(identity + np.outer(root, root) * covariance, np.diag(root))
        pulled = curvature * at + slope
        weights = pulled - inner @ (covariance @ pulled)
        change = np.abs(covariance @ weights - at).max()
        at = covariance @ weights
        if change < TOLERANCE:
            break
    return weights, inner


def _width(prior: SeriesPrior, covariance: np.ndarray, errors: np.ndarray) -> float:
    """Ratio of the t distribution's widths after and before the errors [k] of exact values, for equal variances."""
    from scipy.stats import t  # as above

    count, freedom = len(errors), prior.freedom
    if not count:
        return 1.0
    distance = float(errors @ np.linalg.solve(covariance + prior.noise * np.eye(count), errors))
    scale = math.sqrt((freedom + distance) / (freedom + count))
    return scale * float(t.ppf(LEVEL, freedom + count) / t.ppf(LEVEL, freedom))
