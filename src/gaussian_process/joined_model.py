"""A network and a Gaussian process of one training set -> their weighted mean, which is a sum over contacts too.

The two err differently: the network knows what holds for all complexes, the process remembers single ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoint import CheckpointError
from src.evaluation.calibration import FACTS
from src.gaussian_process.known_ligands import KnownLigands, read_known_ligands
from src.gaussian_process.process import GaussianProcess, read_process
from src.gaussian_process.series import USUAL, SeriesPrior, read_series_prior
from src.graph import Batch
from src.model import AffinityModel, Contributions

# Columns of what a model says of a complex: pK by both, by the network and by the process; by how much measured ligands
# make the interval narrower; numbers of the references nearest by pocket, and by ligand and pocket together; FACTS
JUDGED = ("pK", "network", "process", "narrowing", "nearest pocket", "nearest together", *FACTS)

PRIOR_WEIGHT = 3.0  # weight of the prior share 0.5, in validation complexes, so that a few do not decide by chance


class JoinedModel(nn.Module):
    """pK as (1 - share) * network + share * process, and what measured ligands of the user's series add to it."""

    def __init__(
        self,
        network: AffinityModel,
        process: GaussianProcess,
        share: float,
        prior: SeriesPrior = USUAL,
        known: KnownLigands | None = None,
    ) -> None:
        super().__init__()
        self.network, self.process, self.share, self.prior, self.known = network, process, share, prior, known

    @property
    def constant(self) -> Tensor:
        """pK of a ligand without contacts."""
        constant = self.network.constant
        return self.mean(constant, torch.full_like(constant, self.process.intercept))

    def forward(self, batch: Batch) -> Tensor:
        """pK [G] of the complexes of a batch."""
        return self.judge(batch)[:, 0]

    def judge(self, batch: Batch) -> Tensor:
        """[G, len(JUDGED)] of the complexes of a batch."""
        profiles, network = self.process.profiles(batch), self.network(batch)
        likenesses = self.process.likenesses(profiles)
        process = self.process.predict(profiles, likenesses)
        pk, narrowing = self.mean(network, process), torch.ones_like(network)
        if self.known is not None:
            to_known = self.known.likenesses(profiles)
            pk, narrowing = pk + self.known.predict(profiles, to_known), self.known.narrowing(profiles, to_known)
        nearest = [part.argmax(1) for part in (likenesses.residues, likenesses.together)]
        facts = self.process.facts(profiles, likenesses).unbind(1)
        return torch.stack([pk, network, process, narrowing, *nearest, *facts], dim=1)

    def mean(self, network: Tensor, process: Tensor) -> Tensor:
        return network.lerp(process, self.share)

    def contributions(self, batch: Batch) -> Contributions:
        """The terms of the prediction: `constant` plus those of one complex is its pK."""
        parts = self.network.contributions(batch)
        pk = self.mean(parts.pk, self.process.contributions(batch))
        return parts._replace(pk=pk if self.known is None else pk + self.known.contributions(batch))


ScoringModel = AffinityModel | JoinedModel


class Judge(nn.Module):
    """What a model says of complexes beside their pK; a network alone says nothing else."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """[G, len(JUDGED)], NaN for what is not known."""
        if isinstance(self.model, JoinedModel):
            return self.model.judge(batch)
        pk = self.model(batch)
        told = torch.full((len(pk), len(JUDGED)), math.nan, dtype=pk.dtype, device=pk.device)
        told[:, :2], told[:, 3] = pk.unsqueeze(1), 1.0
        return told


def best_share(network: np.ndarray, process: np.ndarray, measured: np.ndarray) -> float:
    """The share of a process in its mean with a network that errs least on n complexes, drawn to a half by few.

    Args:
        network, process, measured: [n] pK, finite.
    """
    apart, count = process - network, len(measured)
    best = np.sum(apart * (measured - network)) / np.sum(apart**2) if np.any(apart) else 0.5
    return float((count * np.clip(best, 0, 1) + PRIOR_WEIGHT * 0.5) / (count + PRIOR_WEIGHT))


def join_stored(network: AffinityModel, state: Mapping[str, Any]) -> ScoringModel:
    """The network, joined by the process that its checkpoint holds if there is one.

    Raises:
        CheckpointError: the process is not what this program writes, or counts other contacts than the network.
    """
    process = read_process(state.get("process"))
    if process is None:
        return network
    share = state["process"].get("share")
    if type(share) is not float or not 0 <= share <= 1:
        raise CheckpointError(f"the share of the Gaussian process is {share!r}, not a number from 0 to 1")
    if process.cutoff != network.readout.cutoff:
        raise CheckpointError(
            f"the Gaussian process counts contacts to {process.cutoff:g} Å, the network to {network.readout.cutoff:g} Å"
        )
    stored = state["process"]
    prior = read_series_prior(stored.get("series"))
    return JoinedModel(network, process, share, prior, read_known_ligands(stored.get("known"), process, prior))
