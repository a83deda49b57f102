"""Embeddings, the norm of vectors and linear maps: what they compute, and how large they are at the start."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from src.graph import NODE_FEATURES
from src.visnet.layers import AtomEmbedding, EdgeKindEmbedding, VectorNorm, linear


def random_features(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(0, size, (count,), generator=draw) for size in NODE_FEATURES.values()], 1)


def test_an_atom_is_the_sum_of_a_row_for_each_feature_and_no_two_features_share_a_row() -> None:
    layer, features = AtomEmbedding(8), random_features(20)
    starts = [0, *accumulate(NODE_FEATURES.values())]
    assert len(layer.table.weight) == starts[-1]
    for row, atom in zip(layer(features), features.tolist(), strict=True):
        expected = sum(layer.table.weight[start + value] for start, value in zip(starts, atom, strict=False))
        torch.testing.assert_close(row, expected)


def test_embeddings_start_as_large_as_what_they_are_added_to() -> None:
    torch.manual_seed(0)
    assert AtomEmbedding(512)(random_features(50)).var().item() == pytest.approx(1.0, rel=0.1)
    assert EdgeKindEmbedding(512).weight.std().item() == pytest.approx(0.2, rel=0.1)


def test_parts_of_a_linear_map_start_as_maps_of_their_own() -> None:
    """Xavier's bound of each part is sqrt(6 / (inputs + outputs of the part)); that of the whole would be less."""
    torch.manual_seed(0)
    whole = linear(64, 256, parts=4)
    for part in whole.weight.chunk(4):
        assert part.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 64)), rel=0.01)
    assert linear(64, 256).weight.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 256)), rel=0.01)
    assert not whole.bias.any()
    assert linear(64, 256, bias=False).bias is None


@pytest.mark.parametrize("norm", ["none", "rms", "max_min"])
def test_a_norm_ends_with_a_weight_for_each_channel(norm: str) -> None:
    vec = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(0))
    layer = VectorNorm(4, norm)
    before = layer(vec)
    with torch.no_grad():
        layer.weight[2] = 3.0
    torch.testing.assert_close(layer(vec), before * torch.tensor([1.0, 1.0, 3.0, 1.0]))
    assert torch.equal(before, vec) == (norm == "none")


def test_vectors_and_tensors_are_normed_apart() -> None:
    """By max_min, as the published model does: the second degree says nothing about the first."""
    vec = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(0))
    larger = torch.cat([vec[:, :3], 100 * vec[:, 3:]], dim=1)
    layer = VectorNorm(4, "max_min")
    torch.testing.assert_close(layer(larger), layer(vec))
    torch.testing.assert_close(layer(vec)[:, :3], layer(vec[:, :3]))
