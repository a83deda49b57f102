"""Losses counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from src.optimization.losses import ranking_losses, squared_errors
from tests.synthetic import random_batch


def test_a_prediction_beyond_a_bound_is_no_error() -> None:
    batch = replace(
        random_batch(4, seed=0),
        pk=torch.tensor([5.0, 5.0, 5.0, 5.0]),
        bound=torch.tensor([1.0, 1.0, -1.0, 0.0]),
    )
    errors = squared_errors(torch.tensor([7.0, 4.0, 7.0, 4.0]), batch)
    assert errors.tolist() == [0.0, 1.0, 4.0, 1.0]


def test_the_ranking_loss_of_pairs_counted_by_hand() -> None:
    # Exact labels 5, 7 and 7.3, of which the last two have no order, and a bound, which has none with anything.
    labels, bounds = torch.tensor([5.0, 7.0, 7.3, 9.0]), torch.tensor([0.0, 0.0, 0.0, -1.0])
    batch = replace(random_batch(4, seed=0), pk=labels, bound=bounds)
    first, second = math.log(1 + math.exp(-2)), math.log(1 + math.exp(1))  # 7 is predicted 2 above 5, 7.3 one below it
    losses = ranking_losses(torch.tensor([6.0, 8.0, 5.0, 0.0]), batch)
    assert losses.mean().item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert losses.tolist() == pytest.approx([first + second, first, second, 0.0], rel=1e-5)
    weighed = replace(batch, weight=torch.tensor([0.5, 1.0, 0.1, 1.0]))
    expected = [0.5 * (first + second), first, 0.1 * second, 0.0]
    assert ranking_losses(torch.tensor([6.0, 8.0, 5.0, 0.0]), weighed).tolist() == pytest.approx(expected, rel=1e-5)
    assert ranking_losses(torch.tensor([6.0]), replace(random_batch(1, seed=0), bound=bounds[:1])).item() == 0.0
