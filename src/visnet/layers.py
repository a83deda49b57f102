"""Layers that know nothing of messages: embeddings of atoms and edges, the norm of vectors, a linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.graph import NODE_FEATURES, BondType, EdgeKind
from src.visnet.chunked_kernels import EAGER
from src.visnet.geometry import DEGREE_SLICES, max_min_norm
from src.visnet.kernels import Kernels


class AtomEmbedding(nn.Module):
    """Sum of one learned row per node feature: all features share a table, each has its own range of rows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = torch.tensor(list(NODE_FEATURES.values()))
        self.table = nn.EmbeddingBag(sum(NODE_FEATURES.values()), channels, mode="sum")
        nn.init.normal_(self.table.weight, std=len(sizes) ** -0.5)  # the sum of an atom's rows has unit variance
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, F] from feature values [N, 9]."""
        return self.table(features + self.offsets)


class EdgeKindEmbedding(nn.Embedding):
    """One learned row [F] per pair of edge kind and bond type."""

    def __init__(self, channels: int) -> None:
        super().__init__(len(EdgeKind) * len(BondType), channels)
        nn.init.normal_(self.weight, std=0.2)  # as large as the radial part of an edge feature at the start


class VectorNorm(nn.Module):
    """Norm of vectors [N, L, F] over their channels, then a learned weight per channel."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = norm
        self.kernels: Kernels = EAGER
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, vec: Tensor) -> Tensor:
        if self.norm == "rms":
            return self.kernels.rms_norm(vec, self.weight)
        if self.norm == "max_min":
            lmax = 1 if vec.shape[1] == 3 else 2
            vec = torch.cat([max_min_norm(vec[:, degree]) for degree in DEGREE_SLICES[lmax]], dim=1)
        return vec * self.weight


def linear(inputs: int, outputs: int, *, bias: bool = True, parts: int = 1) -> nn.Linear:
    """A linear layer with Xavier weights and zero bias; `parts` maps of one input are drawn one by one."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    for part in linear.weight.chunk(parts):
        nn.init.xavier_uniform_(part)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
