"""The kernels of a layer in Triton, for CUDA GPUs: what launches them, and the products of matrices between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from torch.nn.functional import linear

from src.visnet.edge_rows import EdgeRows
from src.visnet.message_passing import Edges, EdgeWeights, Form, Messages, Nodes, Products, ReadFeature, compute_dtype
from src.visnet.triton_atoms import AtomChange, VectorNorm
from src.visnet.triton_blocks import launch
from src.visnet.triton_edge_rows import edge_rows
from src.visnet.triton_messages import (
    attend,
    filters_gradient,
    gates_gradient,
    key_value_gradient,
    source_vectors_gradient,
    sum_vectors,
)


class TritonKernels:
    """For numbers of channels and heads that are powers of two, on CUDA."""

    def edge_rows(self, rows: EdgeRows, x: Tensor) -> Tensor:
        return edge_rows(rows, x, compute_dtype(x))

    def rms_norm(self, vec: Tensor, weight: Tensor) -> Tensor:
        return VectorNorm.apply(vec, weight, compute_dtype(vec))

    def atom_change(self, gates: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
        return AtomChange.apply(gates, projected)

    def longest_run(self, _channels: int, _device: torch.device) -> int:
        return 2**31

    def prepared(self, edges: Edges, num_atoms: int) -> Edges:
        atoms = torch.arange(num_atoms + 1, device=edges.source.device)
        sources, by_source = edges.source.sort(stable=True)
        return edges._replace(
            target_start=torch.searchsorted(edges.target, atoms),
            by_source=by_source,
            source_start=torch.searchsorted(sources, atoms),
        )

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
        layer = _Layer(nodes, read_feature(slice(None)), edges, weights, form)
        message, scalar = layer.attend(updated)
        gates = layer.gates(message)
        if kept is not None:
            kept += Products(layer.filters, message, gates)
        vector = scalar.new_empty((len(scalar), layer.components, layer.channels))
        layer.launch(sum_vectors, gates_ptr=gates, vector_ptr=vector, of_vectors=True)
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
        products = Products(*kept) if kept else None
        layer = _Layer(nodes, read_feature(slice(None)), edges, weights, form, products)
        message = layer.attend(None)[0] if products is None else products.message
        gates = layer.gates(message) if products is None else products.gates
        grad = Messages(*(None if part is None else part.contiguous() for part in grad))
        updates = grad.feature is not None

        grad_gates = torch.empty_like(gates)
        of_gates = {"gates_ptr": gates, "grad_vector_ptr": grad.vector}
        layer.launch(gates_gradient, **of_gates, grad_gates_ptr=grad_gates, of_vectors=True)
        through_gates = {"grad_message_ptr": grad_gates @ weights.gate_weight, "grad_scalar_ptr": grad.scalar}

        grad_nodes = Nodes(*(None if part is None else torch.empty_like(part) for part in nodes))
        grad_filters = torch.empty_like(layer.filters)
        heads = torch.empty((2, len(edges.source), form.num_heads), dtype=torch.float32, device=message.device)
        of_filters = {"grad_feature_ptr": grad.feature, "attention_ptr": heads[0], "grad_score_ptr": heads[1]}
        layer.launch(
            filters_gradient,
            **through_gates,
            **of_filters,
            grad_filters_ptr=grad_filters,
            grad_query_ptr=grad_nodes.query,
            grad_target_vec_ptr=grad_nodes.target_vec,
            of_vectors=updates,
        )
        layer.launch(key_value_gradient, **through_gates, **of_filters, grad_key_value_ptr=grad_nodes.key_value)
        if nodes.vec is not None:
            layer.launch(
                source_vectors_gradient,
                **of_gates,
                grad_feature_ptr=grad.feature,
                grad_vec_ptr=grad_nodes.vec,
                grad_source_vec_ptr=grad_nodes.source_vec,
                of_vectors=True,
            )
        grad_feature = grad_filters @ weights.filter_weight
        if updates:
            grad_feature += grad.feature
        grad_weights = EdgeWeights(
            grad_filters.t() @ layer.feature,
            grad_filters.sum(0, dtype=torch.float32),
            grad_gates.t() @ message,
            grad_gates.sum(0, dtype=torch.float32),
        )
        return grad_nodes, grad_feature, grad_weights


class _Layer:
    """What all kernels of a layer read, and how they are launched."""

    def __init__(
        self,
        nodes: Nodes,
        feature: Tensor,
        edges: Edges,
        weights: EdgeWeights,
        form: Form,
        products: Products | None = None,
    ) -> None:
        self.feature, self.edges, self.weights = feature, edges, weights
        self.num_atoms, self.channels = nodes.query.shape
        self.components = edges.direction.shape[1]
        self.filters = linear(feature, *weights[:2]) if products is None else products.filters
        self.tensors = {
            **{f"{name}_ptr": tensor for name, tensor in edges._asdict().items()},
            **{f"{name}_ptr": None if t is None else t.contiguous() for name, t in nodes._asdict().items()},
            "filters_ptr": self.filters,
        }
        self.sizes = {
            "CHANNELS": self.channels,
            "HEADS": form.num_heads,
            "COMPONENTS": self.components,
            "PADDED": triton.next_power_of_2(self.components),
            "CORRECTED": form.corrected,
        }

    def attend(self, updated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Messages [E, F] and their sums [N, F]; the features after the layer are written into `updated`."""
        message = torch.empty_like(self.feature)
        scalar = torch.empty((self.num_atoms, self.channels), dtype=torch.float32, device=message.device)
        found = {"message_ptr": message, "scalar_ptr": scalar, "updated_ptr": updated}
        self.launch(attend, feature_ptr=self.feature, **found, of_vectors=updated is not None)
        return message, scalar

    def gates(self, message: Tensor) -> Tensor:
        """[E, 2F] or [E, F], before the activation."""
        return linear(message, self.weights.gate_weight, self.weights.gate_bias)

    def launch(self, kernel: triton.JITFunction, *, of_vectors: bool = False, **tensors: Tensor | None) -> None:
        """One program an atom.

        Args:
            of_vectors: whether it holds blocks of vectors, which are then shorter.
        """
        elements = self.channels * (self.sizes["PADDED"] if of_vectors else 2)
        launch(kernel, self.num_atoms, elements, {**self.tensors, **tensors}, **self.sizes)
