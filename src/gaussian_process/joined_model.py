"""A network and a Gaussian process of one training set -> their weighted mean, which is a sum over contacts too.

The two err differently: the network knows what holds for all complexes, the process remembers single ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from src.checkpoint import CheckpointError
from src.gaussian_process.process import GaussianProcess, read_process
from src.graph import Batch
from src.model import AffinityModel, Contributions

PRIOR_WEIGHT = 3.0  # weight of the prior share 0.5, in validation complexes, so that a few do not decide by chance


class JoinedModel(nn.Module):
    """pK as (1 - share) * network + share * process."""

    def __init__(self, network: AffinityModel, process: GaussianProcess, share: float) -> None:
        super().__init__()
        self.network, self.process, self.share = network, process, share

    @property
    def constant(self) -> Tensor:
        """pK of a ligand without contacts."""
        constant = self.network.constant
        return self.mean(constant, constant.new_tensor(self.process.intercept))

    def forward(self, batch: Batch) -> Tensor:
        """pK [G] of the complexes of a batch."""
        return self.mean(self.network(batch), self.process(batch))

    def mean(self, network: Tensor, process: Tensor) -> Tensor:
        """The weighted mean of what the two say."""
        return network.lerp(process, self.share)

    def contributions(self, batch: Batch) -> Contributions:
        """The terms of the prediction: `constant` plus those of one complex is its pK."""
        parts = self.network.contributions(batch)
        return parts._replace(pk=self.mean(parts.pk, self.process.contributions(batch)))


ScoringModel = AffinityModel | JoinedModel


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
    return JoinedModel(network, process, share)
