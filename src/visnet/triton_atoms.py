"""What a layer does with vectors of atoms, the norm and the change, as Triton kernels with their derivatives."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from src.visnet.geometry import RMS_EPSILON
from src.visnet.triton_blocks import launch, load_vector, store_vector


class VectorNorm(torch.autograd.Function):
    """`rms_norm` of vectors [N, L, F] times weights [F], in a precision of one's own."""

    @staticmethod
    def forward(ctx: FunctionCtx, vec: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        vec, normed = vec.contiguous(), torch.empty_like(vec, dtype=dtype)
        _launch(norm, vec, vec_ptr=vec, weight_ptr=weight, normed_ptr=normed)
        ctx.save_for_backward(vec, weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        vec, weight = ctx.saved_tensors
        grad_vec, of_atoms = torch.empty_like(vec), torch.empty_like(vec[:, 0], dtype=torch.float32)
        given = {"vec_ptr": vec, "weight_ptr": weight, "grad_ptr": grad.contiguous()}
        _launch(norm_gradient, vec, **given, grad_vec_ptr=grad_vec, grad_weight_ptr=of_atoms)
        return grad_vec, of_atoms.sum(0), None


class AtomChange(torch.autograd.Function):
    """`layers.atom_change` of gates [N, 3F] and projected vectors [N, L, 3F]."""

    @staticmethod
    def forward(ctx: FunctionCtx, gates: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
        gates, projected = gates.contiguous(), projected.contiguous()
        (num_atoms, components, width), wide = projected.shape, {"dtype": torch.float32, "device": gates.device}
        dx, dvec = (torch.empty((num_atoms, *part, width // 3), **wide) for part in ((), (components,)))
        _launch(change, dvec, gates_ptr=gates, projected_ptr=projected, dx_ptr=dx, dvec_ptr=dvec)
        ctx.save_for_backward(gates, projected)
        return dx, dvec

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_dx: Tensor, grad_dvec: Tensor) -> tuple:
        gates, projected = ctx.saved_tensors
        grad_gates, grad_projected = torch.empty_like(gates), torch.empty_like(projected)
        _launch(
            change_gradient,
            grad_dvec,
            gates_ptr=gates,
            projected_ptr=projected,
            grad_dx_ptr=grad_dx.contiguous(),
            grad_dvec_ptr=grad_dvec.contiguous(),
            grad_gates_ptr=grad_gates,
            grad_projected_ptr=grad_projected,
        )
        return grad_gates, grad_projected


def _launch(kernel: triton.JITFunction, vectors: Tensor, **tensors: Tensor) -> None:
    num_atoms, components, channels = vectors.shape
    padded = triton.next_power_of_2(components)
    sizes = {"CHANNELS": channels, "COMPONENTS": components, "PADDED": padded, "EPSILON": RMS_EPSILON}
    launch(kernel, num_atoms, channels * padded, tensors, **sizes)


@triton.jit
def norm(
    vec_ptr,
    weight_ptr,
    normed_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """Vectors of an atom over the root of their mean square length, times the weights."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    vec = load_vector(vec_ptr, atom, component, channel, COMPONENTS, CHANNELS)
    scale = tl.rsqrt(tl.sum(tl.sum(vec * vec, axis=1), axis=0) / CHANNELS + EPSILON)
    normed = vec * scale * tl.load(weight_ptr + channel).to(tl.float32)[None, :]
    store_vector(normed_ptr, atom, component, channel, normed, COMPONENTS, CHANNELS)


@triton.jit
def norm_gradient(
    vec_ptr,
    weight_ptr,
    grad_ptr,
    grad_vec_ptr,
    grad_weight_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """With respect to the vectors of an atom, and what the atom adds to the gradient of the weights."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    vec = load_vector(vec_ptr, atom, component, channel, COMPONENTS, CHANNELS)
    grad = load_vector(grad_ptr, atom, component, channel, COMPONENTS, CHANNELS)
    scale = tl.rsqrt(tl.sum(tl.sum(vec * vec, axis=1), axis=0) / CHANNELS + EPSILON)
    normed = vec * scale
    tl.store(grad_weight_ptr + atom * CHANNELS + channel, tl.sum(grad * normed, axis=0))
    grad = grad * tl.load(weight_ptr + channel).to(tl.float32)[None, :]
    along = tl.sum(tl.sum(grad * normed, axis=1), axis=0) / CHANNELS
    store_vector(grad_vec_ptr, atom, component, channel, (grad - normed * along) * scale, COMPONENTS, CHANNELS)


@triton.jit
def change(
    gates_ptr,
    projected_ptr,
    dx_ptr,
    dvec_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Changes of the scalars and the vectors of an atom."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    gates = gates_ptr + atom * 3 * CHANNELS + channel
    gate_vec, gate_dot = tl.load(gates).to(tl.float32), tl.load(gates + CHANNELS).to(tl.float32)
    first = load_part(projected_ptr, 0, atom, component, channel, COMPONENTS, CHANNELS)
    second = load_part(projected_ptr, 1, atom, component, channel, COMPONENTS, CHANNELS)
    third = load_part(projected_ptr, 2, atom, component, channel, COMPONENTS, CHANNELS)
    dx = tl.sum(first * second, axis=0) * gate_dot + tl.load(gates + 2 * CHANNELS).to(tl.float32)
    tl.store(dx_ptr + atom * CHANNELS + channel, dx)
    store_vector(dvec_ptr, atom, component, channel, third * gate_vec[None, :], COMPONENTS, CHANNELS)


@triton.jit
def change_gradient(
    gates_ptr,
    projected_ptr,
    grad_dx_ptr,
    grad_dvec_ptr,
    grad_gates_ptr,
    grad_projected_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """With respect to the gates and the projected vectors of an atom."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    gates, grad_gates = gates_ptr + atom * 3 * CHANNELS + channel, grad_gates_ptr + atom * 3 * CHANNELS + channel
    gate_vec, gate_dot = tl.load(gates).to(tl.float32), tl.load(gates + CHANNELS).to(tl.float32)
    first = load_part(projected_ptr, 0, atom, component, channel, COMPONENTS, CHANNELS)
    second = load_part(projected_ptr, 1, atom, component, channel, COMPONENTS, CHANNELS)
    third = load_part(projected_ptr, 2, atom, component, channel, COMPONENTS, CHANNELS)
    grad_dx = tl.load(grad_dx_ptr + atom * CHANNELS + channel).to(tl.float32)
    grad_dvec = load_vector(grad_dvec_ptr, atom, component, channel, COMPONENTS, CHANNELS)
    tl.store(grad_gates, tl.sum(grad_dvec * third, axis=0))
    tl.store(grad_gates + CHANNELS, grad_dx * tl.sum(first * second, axis=0))
    tl.store(grad_gates + 2 * CHANNELS, grad_dx)
    grad_dot = (grad_dx * gate_dot)[None, :]
    store_part(grad_projected_ptr, 0, atom, component, channel, grad_dot * second, COMPONENTS, CHANNELS)
    store_part(grad_projected_ptr, 1, atom, component, channel, grad_dot * first, COMPONENTS, CHANNELS)
    grad_third = grad_dvec * gate_vec[None, :]
    store_part(grad_projected_ptr, 2, atom, component, channel, grad_third, COMPONENTS, CHANNELS)


@triton.jit
def load_part(ptr, part, atom, component, channel, COMPONENTS: tl.constexpr, CHANNELS: tl.constexpr):
    """One of three parts [P, F] of the projected vectors [N, L, 3F] of an atom."""
    place = ((atom.to(tl.int64) * COMPONENTS + component[:, None]) * 3 + part) * CHANNELS + channel[None, :]
    return tl.load(ptr + place, mask=(component < COMPONENTS)[:, None], other=0.0).to(tl.float32)


@triton.jit
def store_part(ptr, part, atom, component, channel, vector, COMPONENTS: tl.constexpr, CHANNELS: tl.constexpr):
    place = ((atom.to(tl.int64) * COMPONENTS + component[:, None]) * 3 + part) * CHANNELS + channel[None, :]
    tl.store(ptr + place, vector, mask=(component < COMPONENTS)[:, None])
