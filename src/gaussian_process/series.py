"""How the errors of a model go together within a series -> what a few measured ligands of it say of all others.

A series is ligands of one protein. The errors of a model on it are taken for a draw from a Student-t process (Shah et
al., arXiv 1402.4306): complexes that are alike share their errors, pockets that are alike share an offset, and what is
left is noise. How much of each is what makes the errors on training complexes likeliest that were predicted without
their series.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from src.checkpoint import CheckpointError

LEAST_LIGANDS = 5  # of a series that shapes the prior
DOUBT = 0.1  # weight of squared log ratios to USUAL, so that a few series decide little


class SeriesErrors(NamedTuple):
    """Of k ligands of one protein, predicted without any of them."""

    errors: np.ndarray  # [k] measured minus predicted pK
    kernel: np.ndarray  # [k, k] saturations times Likenesses.kernel
    pockets: np.ndarray  # [k, k] Likenesses.residues
    saturations: np.ndarray  # [k]


@dataclass(frozen=True)
class SeriesPrior:
    """Variances in pK squared; all are above 0."""

    shared: float  # of what complexes share that are alike, times the kernel
    offset: float  # of what pockets share that are alike
    sharpness: float  # power of the pockets' likeness there: 1 / the square of a length scale
    noise: float
    freedom: float  # degrees of freedom of the t distribution: how well the size of a series' errors is known

    def covariance(self, kernel: np.ndarray, pockets: np.ndarray, saturations: np.ndarray) -> np.ndarray:
        """[k, k] of the errors of one series, without the noise."""
        return self.shared * kernel + self.offset * np.outer(saturations, saturations) * pockets**self.sharpness

    def scaled(self, factor: float) -> SeriesPrior:
        """For errors that are `factor` times as large."""
        variances = {name: getattr(self, name) * factor**2 for name in ("shared", "offset", "noise")}
        return replace(self, **variances)

    def state_dict(self) -> dict[str, float]:
        return asdict(self)


# Of 1,943 complexes of 142 proteins of PDBbind, each protein predicted without it
USUAL = SeriesPrior(shared=0.45, offset=0.9, sharpness=2.2, noise=0.27, freedom=8.0)
LEAST_FREEDOM = 2.0  # more degrees than this, else there is no variance


def fit_series_prior(series: Sequence[SeriesErrors]) -> SeriesPrior:
    """The likeliest prior; USUAL where there is no series."""
    from scipy.optimize import minimize  # half a second to import, which a scoring of one pose would feel

    usual = _free(USUAL)

    def loss(at: np.ndarray) -> float:
        prior = _prior(at)
        return DOUBT * float(np.sum((at - usual) ** 2)) - sum(log_likelihood(prior, one) for one in series)

    return _prior(minimize(loss, usual, method="L-BFGS-B", bounds=[(value - 5, value + 5) for value in usual]).x)


def log_likelihood(prior: SeriesPrior, series: SeriesErrors) -> float:
    """Of the errors of one series, by the density of the multivariate t distribution."""
    count, freedom = len(series.errors), prior.freedom
    covariance = prior.covariance(series.kernel, series.pockets, series.saturations)
    factor = np.linalg.cholesky(covariance + prior.noise * np.eye(count))
    distance = float(np.sum(np.linalg.solve(factor, series.errors) ** 2))
    return (
        math.lgamma((freedom + count) / 2)
        - math.lgamma(freedom / 2)
        - count / 2 * math.log(freedom * math.pi)
        - float(np.log(np.diag(factor)).sum())
        - (freedom + count) / 2 * math.log1p(distance / freedom)
    )


def read_series_prior(stored: Mapping[str, Any]) -> SeriesPrior:
    """The prior of what a checkpoint holds. Raises CheckpointError: it is not what this program writes."""
    names = [field.name for field in fields(SeriesPrior)]
    values = [stored.get(name) for name in names] if isinstance(stored, Mapping) else []
    if not values or not all(type(value) is float and 0 < value < math.inf for value in values):
        raise CheckpointError(f"what it says of series is not {', '.join(names)}, each above 0")
    return SeriesPrior(*values)


def _free(prior: SeriesPrior) -> np.ndarray:
    """The prior as numbers without bounds."""
    *variances, freedom = astuple(prior)
    return np.log([*variances, freedom - LEAST_FREEDOM])


def _prior(free: np.ndarray) -> SeriesPrior:
    *variances, freedom = np.exp(free).tolist()
    return SeriesPrior(*variances, freedom + LEAST_FREEDOM)
