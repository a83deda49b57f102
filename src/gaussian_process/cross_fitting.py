"""Training complexes, each predicted by a process of the others -> errors, and what was known of each beforehand.

They are made twice: without the complex alone, which shows how well relatives of the training are predicted, and
without all of its cluster, which shows the same of new targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from src.evaluation.calibration import FACTS
from src.gaussian_process.likenesses import Likenesses, saturation
from src.gaussian_process.process import NOISE, GaussianProcess
from src.gaussian_process.profiles import LabelledProfiles
from src.gaussian_process.series import LEAST_LIGANDS, SeriesErrors

NUM_FOLDS = 5  # of whole clusters


class CrossFit(NamedTuple):
    """M predictions of complexes that were left out."""

    facts: np.ndarray  # [M, F] as GaussianProcess.facts
    errors: np.ndarray  # [M] predicted minus measured pK
    series: list[SeriesErrors]  # of the proteins with enough ligands, each predicted without any of its cluster


def cross_fit(
    process: GaussianProcess, known: LabelledProfiles, clusters: Sequence[object], proteins: Sequence[object]
) -> CrossFit:
    """
    Args:
        process: that of these complexes, whose scales and line are kept.
        known: its n references, in their order.
        clusters, proteins: of each reference; those of one protein are in one cluster.
    """
    both_ways = (part.double() for part in process.likenesses(known.profiles))
    likenesses = Likenesses(*((part + part.T) / 2 for part in both_ways))  # float32 rounds each in its own way
    saturations = saturation(known.profiles.total).double()
    covariance = torch.outer(saturations, saturations) * likenesses.kernel
    rest = known.pk - process.intercept - process.slope * known.profiles.total.double()
    noisy = covariance + torch.diag(NOISE / known.weight)
    facts, errors, series = [torch.zeros(0, len(FACTS))], [torch.zeros(0)], []
    if len(rest) > 1:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(noisy))
        errors.append(-(inverse @ rest) / inverse.diagonal())  # Rasmussen & Williams, eq. 5.12
        facts.append(process.facts(known.profiles, _without(likenesses, torch.eye(len(rest), dtype=torch.bool))))
    fold, protein = folds_of(clusters), np.unique(np.asarray(proteins, dtype=str), return_inverse=True)[1]
    for number in range(int(fold.max()) + 1 if len(set(clusters)) > 1 else 0):
        is_out = torch.from_numpy(fold == number)
        out, kept = is_out.nonzero().squeeze(1), (~is_out).nonzero().squeeze(1)
        factor = torch.linalg.cholesky(noisy[kept][:, kept])
        weights = torch.cholesky_solve(rest[kept].unsqueeze(1), factor).squeeze(1)
        error = covariance[out][:, kept] @ weights - rest[out]
        errors.append(error)
        parts = Likenesses(*(part[out][:, kept] for part in likenesses))
        facts.append(process.facts(known.of(out).profiles, parts))
        of_protein = protein[out.numpy()]
        for one in np.unique(of_protein):
            places = (of_protein == one).nonzero()[0]
            if len(places) >= LEAST_LIGANDS:
                chosen = out[places]
                kernel, pockets = (part[chosen][:, chosen].numpy() for part in (covariance, likenesses.residues))
                series.append(SeriesErrors(-error[places].numpy(), kernel, pockets, saturations[chosen].numpy()))
    return CrossFit(torch.cat(facts).numpy(), torch.cat(errors).numpy(), series)


def folds_of(clusters: Sequence[object]) -> np.ndarray:
    """[n] the fold of each complex; whole clusters, dealt out at random."""
    number = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    return np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % NUM_FOLDS


def _without(likenesses: Likenesses, left_out: torch.Tensor) -> Likenesses:
    return Likenesses(*(part.masked_fill(left_out, 0.0) for part in likenesses))
