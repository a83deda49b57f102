"""What edges begin with as Triton kernels with their derivatives: the sums over neighbours and the first features."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import pad

from src.visnet.edge_rows import EdgeRows
from src.visnet.message_passing import Edges
from src.visnet.triton_blocks import LONGEST_BLOCK, launch, load_rows


def edge_rows(rows: EdgeRows, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums over neighbours [N, F], or features [E, F], from x [N, F], by products in this precision."""
    function = _PairFeatures if rows.of_both_ends else _SummedNeighbours
    return function.apply(rows, _basis(rows, dtype), x, rows.filter.weight, rows.filter.bias, rows.kind.weight)


class _SummedNeighbours(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: EdgeRows, basis: Tensor, x: Tensor, weight: Tensor, bias: Tensor, kind: Tensor
    ) -> Tensor:
        filters = basis @ _columns(weight, kind.t() + bias.unsqueeze(1), basis).t()
        total = torch.empty_like(x, dtype=torch.float32)
        _launch(sum_neighbours, len(x), rows.edges, x_ptr=x, filters_ptr=filters, total_ptr=total)
        ctx.num_rbf = weight.shape[1]
        ctx.save_for_backward(*rows.edges, basis, x, filters, kind)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        *edges, basis, x, filters, kind = ctx.saved_tensors
        edges, grad_x, grad_filters = Edges(*edges), torch.empty_like(x, dtype=torch.float32), torch.empty_like(filters)
        given = {"x_ptr": x, "filters_ptr": filters, "grad_ptr": grad.contiguous()}
        _launch(neighbour_filters_gradient, _num_blocks(basis), edges, **given, grad_filters_ptr=grad_filters)
        _launch(neighbours_gradient, len(x), edges, **given, grad_x_ptr=grad_x)
        of_weight, of_kind = _parts(grad_filters, basis, ctx.num_rbf, len(kind))
        return None, None, grad_x, of_weight, of_kind.sum(1, dtype=torch.float32), of_kind.t()


class _PairFeatures(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: EdgeRows, basis: Tensor, x: Tensor, weight: Tensor, bias: Tensor, kind: Tensor
    ) -> Tensor:
        filters = basis @ _columns(weight, bias.unsqueeze(1).expand(-1, len(kind)), basis).t()
        feature, given = torch.empty_like(filters), {"x_ptr": x, "filters_ptr": filters}
        chosen = {"kind_ptr": kind, "chemistry_ptr": rows.chemistry}
        _launch(pair_features, _num_blocks(basis), rows.edges, **given, **chosen, feature_ptr=feature)
        ctx.num_rbf = weight.shape[1]
        ctx.save_for_backward(*rows.edges, basis, x, filters, kind)
        return feature

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        *edges, basis, x, filters, kind = ctx.saved_tensors
        edges, grad_x, grad_filters = Edges(*edges), torch.empty_like(x, dtype=torch.float32), torch.empty_like(filters)
        given = {"x_ptr": x, "filters_ptr": filters, "grad_ptr": grad.contiguous()}
        _launch(pair_filters_gradient, _num_blocks(basis), edges, **given, grad_filters_ptr=grad_filters)
        _launch(pairs_gradient, len(x), edges, **given, grad_x_ptr=grad_x)
        of_weight, of_bias = _parts(grad_filters, basis, ctx.num_rbf, len(kind))
        _, of_kind = _parts(grad, basis, ctx.num_rbf, len(kind))
        return None, None, grad_x, of_weight, of_bias.sum(1, dtype=torch.float32), of_kind.t()


def _basis(rows: EdgeRows, dtype: torch.dtype) -> Tensor:
    """Radial functions of the edges beside a one in the column of each edge's kind, [E, C].

    A product with it gives filters and what they add by kind. The product of a gradient with it is that of both, in a
    fixed order.
    """
    columns = triton.next_power_of_2(rows.filter.in_features + rows.kind.num_embeddings)
    basis = torch.empty((len(rows.chemistry), columns), dtype=dtype, device=rows.chemistry.device)
    radial = rows.basis
    _launch(
        edge_basis,
        _num_blocks(basis),
        rows.edges,
        distance_ptr=radial.distance,
        cutoff_ptr=radial.cutoff,
        chemistry_ptr=rows.chemistry,
        means_ptr=radial.means,
        betas_ptr=radial.betas,
        basis_ptr=basis,
    )
    return basis


def _columns(weight: Tensor, by_kind: Tensor, basis: Tensor) -> Tensor:
    """Weights [F, C] for a basis [E, C], from those of radial functions [F, R] and of kinds [F, K]."""
    joined = torch.cat([weight, by_kind], dim=1)
    return pad(joined, (0, basis.shape[1] - joined.shape[1])).to(basis.dtype)


def _parts(grad: Tensor, basis: Tensor, num_rbf: int, num_kinds: int) -> tuple[Tensor, Tensor]:
    """Gradients of radial weights [F, R] and of kinds [F, K], from that of what they give [E, F]."""
    product = grad.t() @ basis
    return product[:, :num_rbf], product[:, num_rbf : num_rbf + num_kinds]


def _num_blocks(of_edges: Tensor) -> int:
    return triton.cdiv(len(of_edges), LONGEST_BLOCK)


def _launch(kernel: triton.JITFunction, num_programs: int, edges: Edges, **tensors: Tensor) -> None:
    tensors |= {f"{name}_ptr": tensor for name, tensor in edges._asdict().items()}
    sizes = {"NUM_EDGES": len(edges.source)}
    if "means_ptr" in tensors:
        sizes |= {"NUM_RBF": len(tensors["means_ptr"]), "COLUMNS": tensors["basis_ptr"].shape[1]}
    else:
        sizes["CHANNELS"] = tensors["x_ptr"].shape[1]
    launch(kernel, num_programs, 1, tensors, **sizes)


@triton.jit
def edge_basis(
    distance_ptr,
    cutoff_ptr,
    chemistry_ptr,
    means_ptr,
    betas_ptr,
    basis_ptr,
    NUM_EDGES,
    NUM_RBF: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`expnorm_basis` of a block of edges, and a one in the column of the kind."""
    edge, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, COLUMNS)
    there, is_radial = edge < NUM_EDGES, column < NUM_RBF
    distance = tl.load(distance_ptr + edge, mask=there, other=1.0)
    cutoff = tl.load(cutoff_ptr + edge, mask=there, other=1.0)
    envelope = 0.5 * (tl.cos(3.141592653589793 * tl.minimum(distance / cutoff, 1.0)) + 1.0)
    means = tl.load(means_ptr + column, mask=is_radial, other=0.0)[None, :]
    betas = tl.load(betas_ptr + column, mask=is_radial, other=0.0)[None, :]
    difference = tl.exp(-5.0 * distance / cutoff)[:, None] - means
    radial = envelope[:, None] * tl.exp(-betas * difference * difference)
    chemistry = tl.load(chemistry_ptr + edge, mask=there, other=0)
    ones = tl.where(column[None, :] == chemistry[:, None] + NUM_RBF, 1.0, 0.0)
    place = edge.to(tl.int64)[:, None] * COLUMNS + column[None, :]
    tl.store(basis_ptr + place, tl.where(is_radial[None, :], radial, ones), mask=there[:, None])


@triton.jit
def sum_neighbours(
    target_start_ptr,
    source_ptr,
    envelope_ptr,
    x_ptr,
    filters_ptr,
    total_ptr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum over the edges that end at an atom."""
    atom, channel = tl.program_id(0), tl.arange(0, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float32)
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        source = tl.load(source_ptr + edge, mask=there, other=0)
        envelope = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
        filters = load_rows(filters_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
        total += tl.sum(load_rows(x_ptr + source * CHANNELS, there, channel) * filters * envelope, axis=0)
    tl.store(total_ptr + atom * CHANNELS + channel, total)


@triton.jit
def neighbour_filters_gradient(
    source_ptr,
    target_ptr,
    envelope_ptr,
    x_ptr,
    grad_ptr,
    grad_filters_ptr,
    NUM_EDGES,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the filters of a block of edges."""
    edge, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, CHANNELS)
    there = edge < NUM_EDGES
    source = tl.load(source_ptr + edge, mask=there, other=0)
    target = tl.load(target_ptr + edge, mask=there, other=0)
    envelope = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
    grad = load_rows(grad_ptr + target * CHANNELS, there, channel) * envelope
    grad *= load_rows(x_ptr + source * CHANNELS, there, channel)
    place = edge.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(grad_filters_ptr + place, grad, mask=there[:, None])


@triton.jit
def neighbours_gradient(
    source_start_ptr,
    by_source_ptr,
    target_ptr,
    envelope_ptr,
    filters_ptr,
    grad_ptr,
    grad_x_ptr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the row of the atom at which edges begin."""
    atom, channel = tl.program_id(0), tl.arange(0, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float32)
    end = tl.load(source_start_ptr + atom + 1)
    for first in range(tl.load(source_start_ptr + atom), end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        there = place < end
        edge = tl.load(by_source_ptr + place, mask=there, other=0)
        target = tl.load(target_ptr + edge, mask=there, other=0)
        envelope = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
        filters = load_rows(filters_ptr + edge * CHANNELS, there, channel)
        total += tl.sum(load_rows(grad_ptr + target * CHANNELS, there, channel) * filters * envelope, axis=0)
    tl.store(grad_x_ptr + atom * CHANNELS + channel, total)


@triton.jit
def pair_features(
    source_ptr,
    target_ptr,
    x_ptr,
    filters_ptr,
    kind_ptr,
    chemistry_ptr,
    feature_ptr,
    NUM_EDGES,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of both ends times the filter, and the row of the kind, of a block of edges."""
    edge, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, CHANNELS)
    there = edge < NUM_EDGES
    source = tl.load(source_ptr + edge, mask=there, other=0)
    target = tl.load(target_ptr + edge, mask=there, other=0)
    chemistry = tl.load(chemistry_ptr + edge, mask=there, other=0)
    pair = load_rows(x_ptr + source * CHANNELS, there, channel) + load_rows(x_ptr + target * CHANNELS, there, channel)
    feature = pair * load_rows(filters_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
    feature += load_rows(kind_ptr + chemistry * CHANNELS, there, channel)
    place = edge.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(feature_ptr + place, feature, mask=there[:, None])


@triton.jit
def pair_filters_gradient(
    source_ptr,
    target_ptr,
    x_ptr,
    grad_ptr,
    grad_filters_ptr,
    NUM_EDGES,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the filters of a block of edges."""
    edge, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, CHANNELS)
    there = edge < NUM_EDGES
    source = tl.load(source_ptr + edge, mask=there, other=0)
    target = tl.load(target_ptr + edge, mask=there, other=0)
    pair = load_rows(x_ptr + source * CHANNELS, there, channel) + load_rows(x_ptr + target * CHANNELS, there, channel)
    pair *= load_rows(grad_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
    place = edge.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(grad_filters_ptr + place, pair, mask=there[:, None])


@triton.jit
def pairs_gradient(
    target_start_ptr,
    source_start_ptr,
    by_source_ptr,
    filters_ptr,
    grad_ptr,
    grad_x_ptr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the row of an atom, at which edges end and begin."""
    atom, channel = tl.program_id(0), tl.arange(0, CHANNELS)
    total = tl.zeros([CHANNELS], tl.float32)
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        filters = load_rows(filters_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
        total += tl.sum(load_rows(grad_ptr + edge.to(tl.int64) * CHANNELS, there, channel) * filters, axis=0)
    end = tl.load(source_start_ptr + atom + 1)
    for first in range(tl.load(source_start_ptr + atom), end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        there = place < end
        edge = tl.load(by_source_ptr + place, mask=there, other=0)
        filters = load_rows(filters_ptr + edge * CHANNELS, there, channel)
        total += tl.sum(load_rows(grad_ptr + edge * CHANNELS, there, channel) * filters, axis=0)
    tl.store(grad_x_ptr + atom * CHANNELS + channel, total)
