"""The edge operation of ViSNet, which costs its time and memory: tensors in, tensors out.

Shapes: N atoms, E directed edges sorted by target, C edges of a chunk, F channels, H heads, L components of a vector
channel (3 for lmax 1, 8 for lmax 2). A message goes from `source` to `target`. Nothing here waits for the device: no
`.item()`, no boolean mask, no branch on the value of a tensor.

The formulas stand once, in `message_chunk`, on the rows that a run of edges reads; `message_chunk_gradient` is its
derivative, written out so that nothing of size E has to be kept for it. `pass_messages` is the plain form: all edges
at once, under autograd. `Kernels` (kernels.py) are other ways to run the operation.

Formulas: Wang et al., doi 10.1038/s41467-023-43720-2, and `torch_geometric.nn.models.visnet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import linear, silu

from src.visnet.geometry import DEGREE_SLICES

ReadFeature = Callable[[slice], Tensor]  # edges -> their features [C, F]


class EdgeWeights(NamedTuple):
    """Weights of one layer that act on edges; layout of `torch.nn.functional.linear`."""

    filter_weight: Tensor  # [3F, F]: filters of keys, of values, gate of the edge update; [2F, F] without an update
    filter_bias: Tensor  # [3F] or [2F]
    gate_weight: Tensor  # [2F, F]: gates of carried vectors, then of directions; [F, F] in the first layer
    gate_bias: Tensor  # [2F]; [F] in the first layer


class Edges(NamedTuple):
    """Geometry of the edges, computed once per batch and read by every layer."""

    source: Tensor  # [E] int64
    target: Tensor  # [E] int64, ascending
    direction: Tensor  # [E, L], spherical harmonics of the unit vector from target to source
    envelope: Tensor  # [E, 1] in [0, 1]: 0 where the edge is at its cutoff or its source has faded
    # Where the edges of each atom stand, for kernels that go through atoms: those that end at atom n from
    # target_start[n] to target_start[n + 1], those that begin there so in the order of by_source.
    target_start: Tensor | None = None  # [N + 1] int64
    by_source: Tensor | None = None  # [E] int64, a permutation
    source_start: Tensor | None = None  # [N + 1] int64

    def part(self, chunk: slice) -> Edges:
        return Edges(self.source[chunk], self.target[chunk], self.direction[chunk], self.envelope[chunk])


class Nodes(NamedTuple):
    """What the edges of a layer read from their atoms; also the gradient of it."""

    query: Tensor  # [N, F], read at targets
    key_value: Tensor  # [N, 2F], read at sources
    vec: Tensor | None  # [N, L, F], read at sources; None in the first layer, where every vector is zero
    target_vec: Tensor | None  # [N, L, F], read at targets; None in a layer that does not update its edges
    source_vec: Tensor | None  # [N, L, F], read at sources

    def rows(self, edges: Edges) -> Nodes:
        """The rows that these edges read, one row for an edge."""
        index = (edges.target, edges.source, edges.source, edges.target, edges.source)
        return Nodes(*(None if t is None else t.index_select(0, i) for t, i in zip(self, index, strict=True)))


class Form(NamedTuple):
    """What of the formulas is a matter of choice."""

    num_heads: int
    # The published code lets gates with a bias pass vector messages at the cutoff, where an edge then appears with a
    # jump, and rejects on all degrees together; corrected, the envelope multiplies the gates and each degree is
    # rejected on its own.
    corrected: bool


class Messages(NamedTuple):
    """What a layer's edges yield; also the gradient with respect to it."""

    scalar: Tensor  # [N, F], summed at the targets, float32 or wider; [C, F] in a chunk
    vector: Tensor  # [N, L, F], summed at the targets, float32 or wider; [C, L, F] in a chunk
    feature: Tensor | None  # [E, F], the features after the layer; None when they are not updated


class Products(NamedTuple):
    """What the matrix products of a run of edges need and yield, in their precision; with it, none is made again."""

    filters: Tensor  # [C, 3F] before silu; [C, 2F] without an update
    message: Tensor  # [C, F]
    gates: Tensor  # [C, 2F] before silu; [C, F] in the first layer


def sum_by_index(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum of the rows of `values` [E, ...] that share an index, [size, ...], in float32 at least."""
    dtype = wide(values.dtype)
    total = torch.zeros((size, *values.shape[1:]), dtype=dtype, device=values.device)
    return total.index_add_(0, index, values.to(dtype))


def rows_at(values: Tensor, index: Tensor) -> Tensor:
    """Rows [n, ...] of values [N, ...]; the gradients of a row that many read are summed in float32 at least."""
    return values.index_select(0, index) if values.dtype == wide(values.dtype) else _RowsAt.apply(values, index)


class _RowsAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = len(values)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return sum_by_index(grad, index, ctx.size).to(grad.dtype), None


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that geometry, norms, attention and sums are computed in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def compute_dtype(like: Tensor) -> torch.dtype:
    """The precision of products: autocast's where it is on, else that of the tensor."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


def pass_messages(nodes: Nodes, feature: Tensor, edges: Edges, weights: EdgeWeights, form: Form) -> Messages:
    """The edge operation of one layer on all edges at once, for autograd to differentiate.

    Args:
        feature: [E, F] edge features. They and the weights are in the precision of the products; a weight of three
            filters asks for updated features.
    """
    (*messages, updated), _ = message_chunk(nodes, feature, edges, weights, form)
    return Messages(*(sum_by_index(one, edges.target, len(nodes.query)) for one in messages), updated)


def message_chunk(
    nodes: Nodes, feature: Tensor, edges: Edges, weights: EdgeWeights, form: Form
) -> tuple[Messages, Products]:
    """Messages of some edges, not summed, and what a backward pass can take from here.

    With f the feature, e the envelope and d the direction of an edge:

        score = sum over a head of query * key * silu(Wk f)          m = value * silu(Wv f) * silu(score) * e
        vector message = vec * silu(Wc m) [* e] + d * silu(Wd m) [* e]
        f' = f + silu(We f) * (rejection of target_vec and source_vec from d)
    """
    rows, channels = nodes.rows(edges), feature.shape[-1]
    filters_in = linear(feature, weights.filter_weight, weights.filter_bias)
    filters = silu(filters_in)
    key, value = rows.key_value.chunk(2, dim=-1)
    score = _per_head(rows.query * key * filters[:, :channels], form).sum(-1, dtype=wide(feature.dtype))
    attention = silu(score) * edges.envelope
    message = _scaled_heads(value * filters[:, channels : 2 * channels], attention, form)
    low_message = message.to(feature.dtype)
    products = Products(filters_in, low_message, linear(low_message, weights.gate_weight, weights.gate_bias))
    gates = silu(products.gates)
    if form.corrected:
        gates = gates * edges.envelope
    vector_message = gates[:, -channels:].unsqueeze(1) * edges.direction.unsqueeze(-1)
    if rows.vec is not None:
        vector_message = vector_message + rows.vec * gates[:, :channels].unsqueeze(1)
    if rows.target_vec is None:
        return Messages(message, vector_message, None), products
    product = rejection_product(rows.target_vec, rows.source_vec, edges.direction, form)
    updated = (feature + filters[:, 2 * channels :] * product).to(feature.dtype)
    return Messages(message, vector_message, updated), products


def message_chunk_gradient(
    nodes: Nodes,
    feature: Tensor,
    edges: Edges,
    weights: EdgeWeights,
    form: Form,
    grad: Messages,
    products: Products | None,
) -> tuple[Nodes, Tensor, EdgeWeights]:
    """The gradient of `message_chunk` with respect to the rows it reads, feature and weights.

    Args:
        grad: the gradient with respect to the sums at the atoms, [N, F] and [N, L, F], and to the features [C, F].
        products: those of `message_chunk`; None = they are computed anew, as all the rest is.
    """
    rows, channels, low = nodes.rows(edges), feature.shape[-1], feature.dtype
    grad = Messages(grad.scalar.index_select(0, edges.target), grad.vector.index_select(0, edges.target), grad.feature)
    filters_in = linear(feature, weights.filter_weight, weights.filter_bias) if products is None else products.filters
    filters = silu(filters_in)
    key_filter, value_filter = filters[:, :channels], filters[:, channels : 2 * channels]
    key, value = rows.key_value.chunk(2, dim=-1)
    filtered_key, filtered_value = key * key_filter, value * value_filter
    score = _per_head(rows.query * filtered_key, form).sum(-1, dtype=wide(low))
    attention = silu(score) * edges.envelope
    if products is None:
        message = _scaled_heads(filtered_value, attention, form).to(low)
        gates_in = linear(message, weights.gate_weight, weights.gate_bias)
    else:
        message, gates_in = products.message, products.gates

    grad_gates_in, grad_vec = _gates_gradient(rows.vec, gates_in, edges, form, grad.vector)

    # message = value * value_filter * attention
    grad_message = grad.scalar + grad_gates_in @ weights.gate_weight
    grad_attention = _per_head(grad_message * filtered_value, form).sum(-1, dtype=wide(low))
    grad_filtered_value = _scaled_heads(grad_message, attention, form)
    grad_score = _silu_backward(grad_attention * edges.envelope, score)
    scaled_query = _scaled_heads(rows.query, grad_score, form)
    grad_filters = [scaled_query * key, grad_filtered_value * value]
    grad_key_value = torch.cat([scaled_query * key_filter, grad_filtered_value * value_filter], dim=-1)
    grad_query = _scaled_heads(filtered_key, grad_score, form)

    # feature' = feature + filters[:, 2F:] * product
    grad_target_vec = grad_source_vec = None
    if rows.target_vec is not None:
        grad_product = grad.feature * filters[:, 2 * channels :]
        product, grad_target_vec, grad_source_vec = _rejection_gradient(
            rows.target_vec, rows.source_vec, edges.direction, grad_product, form
        )
        grad_filters.append(grad.feature * product)
    grad_filters_in = _silu_backward(torch.cat(grad_filters, dim=-1).to(low), filters_in)
    grad_feature = grad_filters_in @ weights.filter_weight
    if grad.feature is not None:
        grad_feature = grad_feature + grad.feature
    of_filters, of_gates = grad_filters_in.t() @ feature, grad_gates_in.t() @ message
    grad_weights = EdgeWeights(of_filters, grad_filters_in.sum(0), of_gates, grad_gates_in.sum(0))
    grad_nodes = Nodes(grad_query, grad_key_value, grad_vec, grad_target_vec, grad_source_vec)
    return grad_nodes, grad_feature.to(low), grad_weights


def rejection_product(target_vec: Tensor, source_vec: Tensor, direction: Tensor, form: Form) -> Tensor:
    """Product [C, F] of the parts of two vectors [C, L, F] that are orthogonal to the edge's direction [C, L].

    With A and B the vectors and d the direction, the product of A - (A.d) d and B - (B.d) d is
    A.B - (2 - d.d) (A.d) (B.d). The published code rejects on all degrees together; for lmax 2, d.d is then 2
    and the direction drops out. Corrected, each degree is rejected on its own. For lmax 1 the two agree.
    """
    product = _dot(target_vec, source_vec)
    for degree, d, weight in _rejected_degrees(direction, form):
        product = product - weight * along(target_vec[:, degree], d) * along(source_vec[:, degree], d)
    return product


def along(vec: Tensor, direction: Tensor) -> Tensor:
    """Projection [C, F] of vectors [C, L, F] on directions [C, L]."""
    total = vec[:, 0] * direction[:, :1]
    for component in range(1, direction.shape[-1]):
        total = torch.addcmul(total, vec[:, component], direction[:, component : component + 1])
    return total


def _gates_gradient(
    vec: Tensor | None, gates_in: Tensor, edges: Edges, form: Form, grad: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Gradients of vec * gates[:, :F] + direction * gates[:, F:] with respect to what goes into the gates, and to vec.

    Args:
        grad: [C, L, F], with respect to the vector messages.
    """
    grad_gates, grad_vec = along(grad, edges.direction), None
    if vec is not None:
        carried = silu(gates_in[:, : grad.shape[-1]])
        if form.corrected:
            carried = carried * edges.envelope
        grad_vec = grad * carried.unsqueeze(1)
        grad_gates = torch.cat([_dot(grad, vec), grad_gates], dim=-1)
    if form.corrected:
        grad_gates = grad_gates * edges.envelope
    return _silu_backward(grad_gates.to(gates_in.dtype), gates_in), grad_vec


def _rejection_gradient(
    target_vec: Tensor, source_vec: Tensor, direction: Tensor, grad: Tensor, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """`rejection_product` and its gradients with respect to both vectors, from the product's gradient [C, F]."""
    product = _dot(target_vec, source_vec)
    of_target, of_source = [], []
    for degree, d, weight in _rejected_degrees(direction, form):
        a, b = target_vec[:, degree], source_vec[:, degree]
        along_a, along_b = along(a, d), along(b, d)
        product = product - weight * along_a * along_b
        of_target.append(grad.unsqueeze(1) * (b - (weight * along_b).unsqueeze(1) * d.unsqueeze(-1)))
        of_source.append(grad.unsqueeze(1) * (a - (weight * along_a).unsqueeze(1) * d.unsqueeze(-1)))
    if len(of_target) == 1:
        return product, of_target[0], of_source[0]
    return product, torch.cat(of_target, dim=1), torch.cat(of_source, dim=1)


def _rejected_degrees(direction: Tensor, form: Form) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Components that are rejected together, their direction, and 2 - d.d as [C, 1]."""
    lmax = 1 if direction.shape[-1] == 3 else 2
    for degree in DEGREE_SLICES[lmax] if form.corrected else (slice(0, direction.shape[-1]),):
        d = direction[:, degree]
        yield degree, d, 2.0 - (d * d).sum(-1, keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Products [C, F] of vectors [C, L, F], channel by channel."""
    total = a[:, 0].to(wide(a.dtype)) * b[:, 0]
    for component in range(1, a.shape[1]):
        total = torch.addcmul(total, a[:, component], b[:, component])
    return total


def _per_head(values: Tensor, form: Form) -> Tensor:
    """[C, F] as [C, H, F / H]."""
    return values.view(-1, form.num_heads, values.shape[-1] // form.num_heads)


def _scaled_heads(values: Tensor, scale: Tensor, form: Form) -> Tensor:
    """Values [C, F], those of each head times its scale [C, H]."""
    return (_per_head(values, form) * scale.unsqueeze(-1)).view(-1, values.shape[-1])


def _silu_backward(grad: Tensor, before: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(grad, before)
