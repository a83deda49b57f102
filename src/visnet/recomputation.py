"""How layers of messages are run: what is kept for the backward pass, and what is computed again.

`Plain` leaves it to autograd, which keeps some thirty arrays [E, F] of each layer. `Keep` leaves to it what is computed
for atoms, and of the edges keeps the features and what matrix products yield, some seven arrays. `Fast` keeps what goes
into a layer, x [N, F], vec [N, L, F] and edge features [E, F], and the sums [N, F]. `Lean` keeps no edge features
either: those of a chunk are replayed from the first ones through the layers below. Their gradient still flows from
layer to layer, so that nothing is differentiated twice; what stands for the features in autograd is then a tensor
[E, F] whose elements share one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from src.visnet.chunked_kernels import EAGER, chunks
from src.visnet.edge_rows import EdgeRows
from src.visnet.kernels import Kernels
from src.visnet.message_passing import (
    Edges,
    EdgeWeights,
    Form,
    Messages,
    Nodes,
    ReadFeature,
    compute_dtype,
    pass_messages,
    rejection_product,
    sum_by_index,
    wide,
)


class Layer(Protocol):
    """What running a layer needs of it."""

    form: Form
    updates_edges: bool

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def nodes(self, x: Tensor, vec: Tensor | None) -> Nodes: ...

    def edge_vecs(self, vec: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def edge_weights(self, dtype: torch.dtype) -> EdgeWeights: ...

    def updated_feature(self, feature: Tensor, product: Tensor) -> Tensor: ...

    def change(self, vec: Tensor | None, scalar_sum: Tensor) -> tuple[Tensor, Tensor | None]: ...


class Plain:
    """All edges at once, differentiated by autograd: the oracle, and the road to gradients of positions."""

    remakes_rows = False  # whether a backward pass computes `EdgeRows` again

    def __init__(self, first: EdgeRows, x: Tensor, edges: Edges, kernels: Kernels = EAGER) -> None:
        """
        Args:
            first: makes the edge features below the first layer from x [N, F].
            kernels: not used here, where autograd needs the formulas themselves.
        """
        self.edges = edges
        self.feature = first(x)

    @staticmethod
    def summed(rows: EdgeRows, x: Tensor, target: Tensor, _kernels: Kernels = EAGER) -> Tensor:
        """Sums [N, F] of the rows at their targets [E]."""
        return sum_by_index(rows(x), target, len(x))

    def __call__(self, layer: Layer, x: Tensor, vec: Tensor | None) -> tuple[Tensor, Tensor]:
        """Changes of x [N, F] and vec [N, L, F]."""
        nodes, weights = layer.nodes(x, vec), layer.edge_weights(self.feature.dtype)
        messages = self.messages(layer, nodes, weights)
        dx, carried = layer.change(nodes.vec, messages.scalar)
        self.feature = self.feature if messages.feature is None else messages.feature
        return dx, messages.vector if carried is None else carried + messages.vector

    def messages(self, layer: Layer, nodes: Nodes, weights: EdgeWeights) -> Messages:
        return pass_messages(nodes, self.feature, self.edges, weights, layer.form)


class Keep(Plain):
    """Under autograd but for the edge operation, whose written-out derivative is given what its products yielded."""

    def __init__(self, first: EdgeRows, x: Tensor, edges: Edges, kernels: Kernels = EAGER) -> None:
        made = kernels.edge_rows(first, x)
        self.edges, self.kernels = edges, kernels
        self.feature = first(x) if made is None else made

    @staticmethod
    def summed(rows: EdgeRows, x: Tensor, target: Tensor, kernels: Kernels = EAGER) -> Tensor:
        made = kernels.edge_rows(rows, x)
        return Plain.summed(rows, x, target) if made is None else made

    def messages(self, layer: Layer, nodes: Nodes, weights: EdgeWeights) -> Messages:
        where = self.edges, layer.form, self.kernels, torch.is_grad_enabled()
        return Messages(*_Messages.apply(*where, self.feature, *nodes, *weights))


class Fast:
    """Keeps the edge features of each layer; edges are gone through in chunks."""

    remakes_rows = True

    def __init__(self, first: EdgeRows, x: Tensor, edges: Edges, kernels: Kernels = EAGER) -> None:
        self.edges, self.kernels = edges, kernels
        self.feature = _made(first, None, x, kernels)

    @staticmethod
    def summed(rows: EdgeRows, x: Tensor, target: Tensor, kernels: Kernels = EAGER) -> Tensor:
        return _made(rows, target, x, kernels)

    def __call__(self, layer: Layer, x: Tensor, vec: Tensor | None) -> tuple[Tensor, Tensor]:
        where = layer, self.edges, None, self.kernels
        dx, dvec, updated = _Layer.apply(*where, x, vec, self.feature, *layer.parameters())
        self.feature = self.feature if updated is None else updated
        return dx, dvec


class Lean:
    """Keeps nothing that has both edges and channels."""

    remakes_rows, summed = True, Fast.summed

    def __init__(self, first: EdgeRows, x: Tensor, edges: Edges, kernels: Kernels = EAGER) -> None:
        self.edges, self.kernels = edges, kernels
        self.feature = _EdgeRows.apply(first, kernels, None, True, x, *first.parameters)
        with torch.no_grad():
            self.replay = Replay(first, (), (x.detach(),), _EdgeRows.apply(first, kernels, None, False, x))

    def __call__(self, layer: Layer, x: Tensor, vec: Tensor | None) -> tuple[Tensor, Tensor]:
        where = layer, self.edges, self.replay, self.kernels
        dx, dvec, updated = _Layer.apply(*where, x, vec, self.feature, *layer.parameters())
        if updated is not None:
            self.feature, self.replay = updated, self.replay.above(layer, vec)
        return dx, dvec


MODES = {"plain": Plain, "keep": Keep, "fast": Fast, "lean": Lean}


class Replay(NamedTuple):
    """How the edge features below a layer come about."""

    first: EdgeRows
    layers: tuple[Layer, ...]  # layers that updated the features
    states: tuple[Tensor, ...]  # x [N, F] of the first features, then vec [N, L, F] that went into each layer
    values: Tensor | None  # [E, F], the features on the way forward, overwritten by each layer

    def above(self, layer: Layer, vec: Tensor) -> Replay:
        return self._replace(layers=(*self.layers, layer), states=(*self.states, vec.detach()))

    def reader(self, edges: Edges, states: Sequence[Tensor]) -> ReadFeature:
        """Chunk -> its features [C, F]."""
        x, *vecs = states
        below = [(layer, *layer.edge_vecs(vec)[1:]) for layer, vec in zip(self.layers, vecs, strict=True)]

        def read(chunk: slice) -> Tensor:
            part = edges.part(chunk)
            feature = self.first(x, chunk)
            for layer, target_vec, source_vec in below:
                ends = target_vec.index_select(0, part.target), source_vec.index_select(0, part.source)
                product = rejection_product(*ends, part.direction, layer.form)
                feature = layer.updated_feature(feature, product)
            return feature

        return read


class _EdgeRows(torch.autograd.Function):
    """Rows [E, F], or their sums [N, F] at a target, or what stands for the rows; only x [N, F] is kept."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: EdgeRows,
        kernels: Kernels,
        target: Tensor | None,
        stand_in: bool,
        x: Tensor,
        *_parameters: Tensor,
    ) -> Tensor:
        ctx.rows, ctx.kernels, ctx.autocast = rows, kernels, _autocast_now(x)
        ctx.save_for_backward(target, x)
        num_edges, channels = len(rows.ends[0]), x.shape[-1]
        if stand_in:
            return _stand_in(x.new_empty(0, dtype=compute_dtype(x)), num_edges, channels)
        parts = _row_chunks(num_edges, x, kernels)
        if target is None:
            return torch.cat([rows(x, chunk) for chunk in parts])
        total = torch.zeros_like(x, dtype=wide(x.dtype))
        for chunk in parts:
            total.index_add_(0, target[chunk], rows(x, chunk).to(total.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        target, x = ctx.saved_tensors
        rows, parameters = ctx.rows, ctx.rows.parameters
        of_x = torch.zeros_like(x, dtype=wide(x.dtype))
        of_parameters: list[Tensor | None] = [None] * len(parameters)
        for chunk in _row_chunks(len(rows.ends[0]), x, ctx.kernels):
            with torch.enable_grad(), ctx.autocast():
                gathered = _leaf(rows.gathered(x, chunk))
                made = rows.make(gathered, chunk)
            grad_made = grad[chunk] if target is None else grad.index_select(0, target[chunk])
            of_gathered, *more = _gradients((made,), (grad_made,), [gathered, *parameters])
            for end in rows.ends:
                of_x.index_add_(0, end[chunk], of_gathered.to(of_x.dtype))
            of_parameters = [*map(_sum, of_parameters, more)]
        return None, None, None, None, of_x, *of_parameters


class _Messages(torch.autograd.Function):
    """`pass_messages` by kernels; what their products yielded is kept where a backward pass may follow."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        edges: Edges,
        form: Form,
        kernels: Kernels,
        keeps: bool,
        feature: Tensor,
        *given: Tensor | None,
    ) -> Messages:
        nodes, weights = _nodes_and_weights(given)
        updated = None if nodes.target_vec is None else torch.empty_like(feature)
        kept = [] if keeps else None
        messages = kernels.messages(nodes, feature.__getitem__, edges, weights, form, updated=updated, kept=kept)
        ctx.form, ctx.kernels, ctx.autocast = form, kernels, _autocast_now(feature)
        ctx.save_for_backward(*edges, feature, *given, *(kept or ()))
        return messages

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple:
        num_fields = len(Edges._fields)
        edges, (feature, *saved) = Edges(*ctx.saved_tensors[:num_fields]), ctx.saved_tensors[num_fields:]
        nodes, weights = _nodes_and_weights(saved)
        kept = saved[len(nodes) + len(weights) :]
        with ctx.autocast():
            of_nodes, of_feature, of_weights = ctx.kernels.gradients(
                nodes, feature.__getitem__, edges, weights, ctx.form, Messages(*grads), kept
            )
        return None, None, None, None, of_feature, *of_nodes, *of_weights


class _Layer(torch.autograd.Function):
    """A layer of messages -> changes of x and vec, and the features for the next layer (None: as before)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        layer: Layer,
        edges: Edges,
        replay: Replay | None,
        kernels: Kernels,
        x: Tensor,
        vec: Tensor | None,
        feature: Tensor,
        *_parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        nodes = layer.nodes(x, vec)
        values = feature if replay is None else replay.values
        updated = None
        if layer.updates_edges:
            updated = torch.empty_like(values) if replay is None else values
        weights = layer.edge_weights(values.dtype)
        messages = kernels.messages(nodes, values.__getitem__, edges, weights, layer.form, updated=updated)
        dx, carried = layer.change(nodes.vec, messages.scalar)
        ctx.layer, ctx.autocast, ctx.dtype, ctx.kernels = layer, _autocast_now(x), values.dtype, kernels
        ctx.replay = None if replay is None else replay._replace(states=(), values=None)
        ctx.save_for_backward(*edges, x, vec, messages.scalar, *((feature,) if replay is None else replay.states))
        ctx.set_materialize_grads(False)
        if updated is not None and replay is not None:
            updated = _stand_in(values, *values.shape)
        return dx, messages.vector if carried is None else carried + messages.vector, updated

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_x: Tensor | None, grad_vec: Tensor | None, grad_feature: Tensor | None
    ) -> tuple:
        num_fields = len(Edges._fields)
        edges, layer = Edges(*ctx.saved_tensors[:num_fields]), ctx.layer
        x, vec, scalar_sum, *kept = ctx.saved_tensors[num_fields:]
        parameters = list(layer.parameters())
        with torch.enable_grad(), ctx.autocast():
            x, vec, scalar_sum = map(_leaf, (x, vec, scalar_sum))
            nodes, weights = layer.nodes(x, vec), layer.edge_weights(ctx.dtype)
            normed = _leaf(nodes.vec)
            change = layer.change(normed, scalar_sum)
        grad_sum, grad_normed, *of_change = _gradients(change, (grad_x, grad_vec), [scalar_sum, normed, *parameters])
        if grad_sum is None:
            grad_sum = torch.zeros_like(scalar_sum)
        if grad_vec is None:
            grad_vec = scalar_sum.new_zeros((len(x), edges.direction.shape[-1], x.shape[-1]))
        if grad_feature is None and layer.updates_edges:
            grad_feature = x.new_zeros((len(edges.source), x.shape[-1]), dtype=ctx.dtype)
        with ctx.autocast():
            read = kept[0].__getitem__ if ctx.replay is None else ctx.replay.reader(edges, kept)
            grad_nodes, grad_feature, grad_weights = ctx.kernels.gradients(
                Nodes(*map(_detached, nodes)),
                read,
                edges,
                EdgeWeights(*map(_detached, weights)),
                layer.form,
                Messages(grad_sum, grad_vec, grad_feature),
            )
        if grad_normed is not None:
            grad_nodes.vec.add_(grad_normed)
        of_x, of_vec, *of_edges = _gradients((*nodes, *weights), (*grad_nodes, *grad_weights), [x, vec, *parameters])
        return None, None, None, None, of_x, of_vec, grad_feature, *map(_sum, of_change, of_edges)


def _made(rows: EdgeRows, target: Tensor | None, x: Tensor, kernels: Kernels) -> Tensor:
    """The rows [E, F], or their sums [N, F] at their targets."""
    made = kernels.edge_rows(rows, x)
    return _EdgeRows.apply(rows, kernels, target, False, x, *rows.parameters) if made is None else made


def _nodes_and_weights(given: Sequence[Tensor | None]) -> tuple[Nodes, EdgeWeights]:
    """The first tensors, as they were before they were laid out in a row."""
    border = len(Nodes._fields)
    return Nodes(*given[:border]), EdgeWeights(*given[border : border + len(EdgeWeights._fields)])


def _row_chunks(num_edges: int, x: Tensor, kernels: Kernels) -> Iterator[slice]:
    """Four times as long as those of messages, which need many more arrays at once."""
    return chunks(num_edges, 4 * kernels.longest_run(x.shape[-1], x.device))


def _stand_in(like: Tensor, num_edges: int, channels: int) -> Tensor:
    """A tensor of the size of all edge features in the memory of one number."""
    return like.new_zeros(1).expand(num_edges, channels)


def _gradients(
    outputs: Iterable[Tensor | None], grads: Iterable[Tensor | None], inputs: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """`torch.autograd.grad` that passes over what is None."""
    pairs = [
        (output, grad.to(output.dtype))
        for output, grad in zip(outputs, grads, strict=True)
        if output is not None and grad is not None and output.requires_grad
    ]
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    if not pairs or not wanted:
        return [None] * len(inputs)
    differentiated, their_grads = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(differentiated, wanted, their_grads, allow_unused=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs]


def _autocast_now(like: Tensor) -> Callable[[], AbstractContextManager]:
    """Makes the context of mixed precision in which this is called."""
    device = like.device.type
    return partial(torch.autocast, device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))


def _leaf(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().requires_grad_()


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
