"""The edge operation in runs of edges that stay in the cache of a CPU core, or in a few tens of MB of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.visnet.edge_rows import EdgeRows
from src.visnet.geometry import rms_norm
from src.visnet.message_passing import (
    Edges,
    EdgeWeights,
    Form,
    Messages,
    Nodes,
    Products,
    ReadFeature,
    message_chunk,
    message_chunk_gradient,
    wide,
)

# Elements [C, F] of a chunk. On a CPU core the few dozen arrays of a chunk then stay near its caches; a GPU needs
# enough edges at once to fill it, and where its memory is not short, as many as there are: each chunk costs a step 700
# operations.
CHUNK_ELEMENTS = {"cpu": 2**16, "cuda": 2**20}
MOST_ELEMENTS = 2**24  # 131,072 edges of 128 channels
ELEMENT_BYTES = 60  # that one element more of a chunk takes at the peak of a step, for each component of its vectors
CHUNK_SHARE = 0.5  # of the free memory


class ChunkedKernels(NamedTuple):
    """`message_chunk` and `message_chunk_gradient`, as they stand or compiled, on one chunk of edges after another."""

    message_chunk: Callable[..., tuple[Messages, Products]]
    gradient_chunk: Callable[..., tuple[Nodes, Tensor, EdgeWeights]]
    elements: int | None = None  # [C, F] of a chunk; None = by the kind of device

    def prepared(self, edges: Edges, _num_atoms: int) -> Edges:
        return edges

    def edge_rows(self, _rows: EdgeRows, _x: Tensor) -> None:
        return None

    def rms_norm(self, vec: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(vec) * weight

    def atom_change(self, gates: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
        gate_vec, gate_dot, added = gates.chunk(3, dim=-1)
        first, second, third = projected.chunk(3, dim=-1)
        dot = (first * second).sum(dim=1, dtype=wide(gates.dtype))
        return dot * gate_dot + added, third * gate_vec.unsqueeze(1)

    def longest_run(self, channels: int, device: torch.device) -> int:
        elements = self.elements or CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"])
        return max(1, elements // channels)

    def messages(
        self,
        nodes: Nodes,
        read_feature: ReadFeature,
        edges: Edges,
        weights: EdgeWeights,
        form: Form,
        *,
        updated: Tensor | None,
        kept: list[Tensor] | None = None,
    ) -> Messages:
        (num_atoms, channels), components = nodes.query.shape, edges.direction.shape[-1]
        dtype = wide(nodes.query.dtype)
        scalar = nodes.query.new_zeros((num_atoms, channels), dtype=dtype)
        vector = nodes.query.new_zeros((num_atoms, components, channels), dtype=dtype)
        for chunk in self._chunks(edges, channels):
            part = edges.part(chunk)
            message, products = self.message_chunk(nodes, read_feature(chunk), part, weights, form)
            scalar.index_add_(0, part.target, message.scalar.to(dtype))
            vector.index_add_(0, part.target, message.vector.to(dtype))
            if message.feature is not None:
                updated[chunk] = message.feature
            if kept is not None:
                kept += products
        return Messages(scalar, vector, updated)

    def gradients(
        self,
        nodes: Nodes,
        read_feature: ReadFeature,
        edges: Edges,
        weights: EdgeWeights,
        form: Form,
        grad: Messages,
        kept: Sequence[Tensor] = (),
    ) -> tuple[Nodes, Tensor, EdgeWeights]:
        channels, dtype = nodes.query.shape[-1], wide(nodes.query.dtype)
        grad_nodes = Nodes(*(None if t is None else torch.zeros_like(t, dtype=dtype) for t in nodes))
        grad_weights = EdgeWeights(*(torch.zeros_like(t, dtype=dtype) for t in weights))
        grad_feature = nodes.query.new_empty((len(edges.source), channels), dtype=weights.filter_weight.dtype)
        products = iter(zip(*[iter(kept)] * len(Products._fields), strict=True))  # those of one chunk after another
        for chunk in self._chunks(edges, channels):
            part, feature = edges.part(chunk), read_feature(chunk)
            grad_chunk = grad if grad.feature is None else grad._replace(feature=grad.feature[chunk])
            given = Products(*next(products)) if kept else None
            rows, grad_feature[chunk], of_weights = self.gradient_chunk(
                nodes, feature, part, weights, form, grad_chunk, given
            )
            index = (part.target, part.source, part.source, part.target, part.source)
            for total, row, where in zip(grad_nodes, rows, index, strict=True):
                if total is not None:
                    total.index_add_(0, where, row.to(dtype))
            for total, one in zip(grad_weights, of_weights, strict=True):
                total.add_(one)
        return grad_nodes, grad_feature, grad_weights

    def _chunks(self, edges: Edges, channels: int) -> Iterator[slice]:
        return chunks(len(edges.source), self.longest_run(channels, edges.source.device))


EAGER = ChunkedKernels(message_chunk, message_chunk_gradient)


def elements_within(free: float, components: int) -> int | None:
    """Elements of the chunks on a GPU of which a step leaves so many bytes free; None = no more than usual."""
    more = CHUNK_SHARE * free / (ELEMENT_BYTES * components)
    return min(MOST_ELEMENTS, CHUNK_ELEMENTS["cuda"] + int(more)) if more >= CHUNK_ELEMENTS["cuda"] else None


def chunks(num_edges: int, longest: int) -> Iterator[slice]:
    """Runs of edges, nearly equal in length, that cover all edges in order."""
    count = max(1, -(-num_edges // longest))
    for number in range(count):
        yield slice(number * num_edges // count, (number + 1) * num_edges // count)
