"""The forward pass without gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from src.graph import Batch
from src.hardware.inference import predict_batches
from src.hardware.out_of_memory import TooLargeError
from src.model import build_model
from tests.synthetic import batch_of, random_complex, scattered, tiny_settings

CPU = torch.device("cpu")


def batches(sizes: list[int]) -> list:
    start, result = 0, []
    for size in sizes:
        graphs = [random_complex(start + number, num_ligand_atoms=4, num_pocket_atoms=12) for number in range(size)]
        result.append(batch_of(graphs, torch.arange(start, start + size, dtype=torch.float32)))
        start += size
    return result


def test_predictions_come_in_order_whatever_the_batches() -> None:
    torch.manual_seed(0)
    model = scattered(build_model(tiny_settings(num_layers=1, dropout=0.5)))
    predicted, measured = predict_batches(model, batches([2, 1, 2]), CPU)
    assert measured.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    alone, _ = predict_batches(model, batches([1] * 5), CPU)
    np.testing.assert_allclose(predicted, alone, atol=1e-6)
    assert np.ptp(predicted) > 1e-4


def test_predicting_uses_no_dropout_no_gradient_and_no_random_number() -> None:
    model = scattered(build_model(tiny_settings(num_layers=1, dropout=0.5)))
    model.train()
    before = torch.get_rng_state()
    first, _ = predict_batches(model, batches([2]), CPU)
    second, _ = predict_batches(model, batches([2]), CPU)
    assert first.tolist() == second.tolist()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_comes_back_as_float32(precision: torch.dtype) -> None:
    model = build_model(tiny_settings(num_layers=1))
    half, _ = predict_batches(model, batches([3]), CPU, precision)
    full, _ = predict_batches(model, batches([3]), CPU)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.05)


def test_no_batch_is_no_number() -> None:
    predicted, measured = predict_batches(build_model(tiny_settings()), [], CPU)
    assert predicted.shape == measured.shape == (0,)


def test_a_batch_without_labels_is_predicted() -> None:
    batch = batch_of([random_complex(0, num_ligand_atoms=3, num_pocket_atoms=6)])
    predicted, measured = predict_batches(build_model(tiny_settings(num_layers=1)), [batch], CPU)
    assert math.isfinite(predicted[0])
    assert math.isnan(measured[0])


class SmallMemory(nn.Module):
    """Predicts the number of atoms of each complex, as long as a batch has no more complexes than fit."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most
        self.failed: list[tuple[str, ...]] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        if batch.num_graphs > self.most:
            self.failed.append(batch.codes)
            torch.empty(10**15)  # what the CPU's allocator says is what is handled
        return torch.bincount(batch.graph_of_atom).float()


def uneven_batches() -> list[Batch]:
    graphs = [random_complex(number, num_ligand_atoms=3 + number, num_pocket_atoms=6) for number in range(10)]
    return [batch_of(graphs[:5]), batch_of(graphs[5:])]


def test_a_batch_that_does_not_fit_is_predicted_in_parts_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model, freed = SmallMemory(most=2), []
    monkeypatch.setattr("src.hardware.inference.free_memory", freed.append)
    predicted, measured = predict_batches(model, uneven_batches(), CPU)
    assert predicted.tolist() == [9.0 + number for number in range(10)]
    assert measured.shape == (10,)
    # Five, then three of them; the second batch is larger than what failed and is cut before it is tried.
    assert model.failed == [tuple(f"syn{n}" for n in range(5)), ("syn2", "syn3", "syn4")]
    assert freed == [CPU, CPU]


def test_a_complex_that_does_not_fit_is_named() -> None:
    with pytest.raises(TooLargeError, match=r"syn0 alone \(9 atoms, \d+ edges\) does not fit into memory: .*allocate"):
        predict_batches(SmallMemory(most=0), uneven_batches(), CPU)


def test_another_error_of_the_model_is_not_taken_for_it() -> None:
    class Wrong(nn.Module):
        def forward(self, batch: Batch) -> torch.Tensor:
            return batch.pos @ batch.pos

    with pytest.raises(RuntimeError, match="shapes"):
        predict_batches(Wrong(), uneven_batches(), CPU)
