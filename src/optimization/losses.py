"""Predictions and labels of a batch -> the loss of each complex."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from src.graph import Batch

RANKED_APART = 0.5  # pK; labels that differ by less have no order, since measurements scatter by as much


def squared_errors(predicted: Tensor, batch: Batch) -> Tensor:
    """Squared error of each complex, [G]; a prediction on the right side of a censored label has none."""
    error = _at_least_float(predicted) - batch.pk
    error = torch.where(batch.bound > 0, error.clamp(max=0.0), error)
    error = torch.where(batch.bound < 0, error.clamp(min=0.0), error)
    return error.square()


def ranking_losses(predicted: Tensor, batch: Batch) -> Tensor:
    """What each complex of a batch adds to a pairwise ranking loss, [G]; its mean over the batch is that of the pairs.

    A pair of exact labels more than RANKED_APART apart costs log(1 + exp(-d)), d being by how much the stronger one is
    predicted stronger (RankNet, doi 10.1145/1102351.1102363). Both complexes of a pair bear half, by their weight.
    """
    exact = batch.bound == 0
    is_stronger = (batch.pk.unsqueeze(1) - batch.pk > RANKED_APART) & exact.unsqueeze(1) & exact
    predicted = _at_least_float(predicted)
    lead = predicted.unsqueeze(1) - predicted
    cost = torch.where(is_stronger, softplus(-lead), 0.0)
    return (cost.sum(0) + cost.sum(1)) * batch.weight * (len(batch.pk) / 2 / is_stronger.sum().clamp(min=1))


def _at_least_float(predicted: Tensor) -> Tensor:
    return predicted.to(torch.promote_types(predicted.dtype, torch.float32))
