"""Blocks of edges and of the channels of an atom, as Triton kernels read, combine and write them.

A block has B edges, of which those past the end are not `there`; P is L rounded up to a power of two. Whatever the
precision in memory, a block is in float32. Names that end in `_ptr` are tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK_ELEMENTS = 4096  # of vectors [B, P, F] that a program holds in its registers at once
LONGEST_BLOCK = 16  # edges; an atom has about as many
NUM_WARPS = 4


def launch(
    kernel: triton.JITFunction, num_atoms: int, block_elements: int, tensors: dict[str, Tensor | None], **sizes: int
) -> None:
    """One program for each atom.

    Args:
        block_elements: channels, or channels and components, that a program holds of each edge.
        tensors: those that the kernel has a name for are given to it.
    """
    given = {**tensors, **sizes, "BLOCK": min(LONGEST_BLOCK, max(1, BLOCK_ELEMENTS // block_elements))}
    kernel[(num_atoms,)](**{name: given[name] for name in kernel.arg_names}, num_warps=NUM_WARPS)


@triton.jit
def load_rows(starts, there, channel):
    """Rows [B, F] from their first elements [B] on, 0 where there is none."""
    return tl.load(starts[:, None] + channel[None, :], mask=there[:, None], other=0.0).to(tl.float32)


@triton.jit
def load_vectors(ptr, rows, there, component, channel, COMPONENTS: tl.constexpr, CHANNELS: tl.constexpr):
    """Rows [B] of vectors [rows, L, F] -> [B, P, F], 0 where there is none."""
    place = (rows.to(tl.int64)[:, None, None] * COMPONENTS + component[None, :, None]) * CHANNELS
    mask = there[:, None, None] & (component < COMPONENTS)[None, :, None]
    return tl.load(ptr + place + channel[None, None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_vector(ptr, atom, component, channel, COMPONENTS: tl.constexpr, CHANNELS: tl.constexpr):
    """The vectors [P, F] of one atom."""
    place = (atom.to(tl.int64) * COMPONENTS + component[:, None]) * CHANNELS + channel[None, :]
    return tl.load(ptr + place, mask=(component < COMPONENTS)[:, None], other=0.0).to(tl.float32)


@triton.jit
def store_vector(ptr, atom, component, channel, vector, COMPONENTS: tl.constexpr, CHANNELS: tl.constexpr):
    place = (atom.to(tl.int64) * COMPONENTS + component[:, None]) * CHANNELS + channel[None, :]
    tl.store(ptr + place, vector, mask=(component < COMPONENTS)[:, None])


@triton.jit
def load_directions(ptr, edge, there, component, COMPONENTS: tl.constexpr):
    """[B, P, 1] of edges [B], 0 where there is none."""
    place = edge.to(tl.int64)[:, None] * COMPONENTS + component[None, :]
    mask = there[:, None] & (component < COMPONENTS)[None, :]
    return tl.load(ptr + place, mask=mask, other=0.0).to(tl.float32)[:, :, None]


@triton.jit
def open_gate(
    gates_ptr,
    envelope_ptr,
    edge,
    there,
    channel,
    CARRIES: tl.constexpr,
    OF_DIRECTION: tl.constexpr,
    CHANNELS: tl.constexpr,
    CORRECTED: tl.constexpr,
):
    """The gate [B, F] of carried vectors or of directions; the former come first, where vectors are carried."""
    WIDTH: tl.constexpr = (2 if CARRIES else 1) * CHANNELS
    FIRST: tl.constexpr = CHANNELS if CARRIES and OF_DIRECTION else 0
    gate = silu(load_rows(gates_ptr + edge.to(tl.int64) * WIDTH + FIRST, there, channel))
    if CORRECTED:
        gate *= tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
    return gate


@triton.jit
def rejected_part(vectors, direction, component, COMPONENTS: tl.constexpr, CORRECTED: tl.constexpr):
    """What `rejection_product` multiplies the other vector with: V - (2 - d.d) (V.d) d, by degrees where corrected."""
    if CORRECTED and COMPONENTS == 8:
        first = tl.where((component < 3)[None, :, None], direction, 0.0)
        return vectors - _along(vectors, first) - _along(vectors, direction - first)
    return vectors - _along(vectors, direction)


@triton.jit
def _along(vectors, direction):
    """(2 - d.d) (V.d) d, [B, P, F]."""
    factor = 2.0 - tl.sum(direction * direction, axis=1)
    return (tl.sum(vectors * direction, axis=1) * factor)[:, None, :] * direction


@triton.jit
def per_head(values, BLOCK: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr):
    """Sums [B, H] of values [B, F]."""
    return tl.sum(tl.reshape(values, (BLOCK, HEADS, CHANNELS // HEADS)), axis=2)


@triton.jit
def of_channels(values, BLOCK: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr):
    """Values [B, H] of heads, for each of their channels, [B, F]."""
    wide = tl.broadcast_to(values[:, :, None], (BLOCK, HEADS, CHANNELS // HEADS))
    return tl.reshape(wide, (BLOCK, CHANNELS))


@triton.jit
def silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def silu_slope(x):
    sigmoid = tl.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))
