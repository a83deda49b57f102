"""The equivariant edge operations of ViSNet, which cost its time and memory: tensors in, tensors out.

Shapes: N atoms, E directed edges sorted by target, F channels, H heads, R radial functions, L components of a
vector channel (3 for lmax 1, 8 for lmax 2). A message goes from `source` to `target`. Nothing here waits for
the device: no `.item()`, no boolean mask, no branch on the value of a tensor.

Formulas: Wang et al., doi 10.1038/s41467-023-43720-2, and `torch_geometric.nn.models.visnet`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, relu, silu

# Å. Atoms closer than this count as this far apart and their direction shrinks to zero, so that two atoms on
# one spot give finite gradients. Atoms of a real structure are never so close.
SHORTEST_DISTANCE = 0.01

# Added to the mean square of vectors: a zero vector stays zero, and no gradient grows more than tenfold.
RMS_EPSILON = 1e-2

DEGREE_SLICES = {1: (slice(0, 3),), 2: (slice(0, 3), slice(3, 8))}


class EdgeWeights(NamedTuple):
    """Weights of one layer that act on edges; layout of `torch.nn.functional.linear`."""

    filter_weight: Tensor  # [2F, F]: filters of keys, then of values
    filter_bias: Tensor  # [2F]
    gate_weight: Tensor  # [2F, F]: gates of carried vectors, then of directions; [F, F] in the first layer
    gate_bias: Tensor  # [2F]; [F] in the first layer


class Edges(NamedTuple):
    """Geometry of the edges, computed once per batch and read by every layer."""

    source: Tensor  # [E] int64
    target: Tensor  # [E] int64, ascending
    direction: Tensor  # [E, L], spherical harmonics of the unit vector from target to source
    envelope: Tensor  # [E] in [0, 1]: 0 where the edge is at its cutoff or its source has faded


def distances_and_units(pos: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [E] in Å and unit vectors [E, 3] from target to source of atoms at `pos` [N, 3]."""
    difference = pos.index_select(0, source) - pos.index_select(0, target)
    distance = (difference * difference).sum(-1).clamp(min=SHORTEST_DISTANCE**2).sqrt()
    return distance, difference / distance.unsqueeze(-1)


def cosine_envelope(distance: Tensor, cutoff: Tensor) -> Tensor:
    """(cos(pi d / cutoff) + 1) / 2, which falls from 1 to 0 with slope 0 at the cutoff; [E] from [E], [E]."""
    return 0.5 * (torch.cos(math.pi * (distance / cutoff).clamp(max=1.0)) + 1.0)


def expnorm_parameters(num_rbf: int) -> tuple[Tensor, Tensor]:
    """Means and betas [R] of `expnorm_basis`.

    The means span the values that exp(-5 d / cutoff) takes between the cutoff and 0, whatever the cutoff; PyG
    spans exp(-cutoff) to 1, which is the same at 5 Å.
    """
    start = math.exp(-5.0)
    means = torch.linspace(start, 1.0, num_rbf)
    return means, torch.full((num_rbf,), (2.0 / num_rbf * (1.0 - start)) ** -2)


def expnorm_basis(distance: Tensor, cutoff: Tensor, means: Tensor, betas: Tensor) -> Tensor:
    """Radial basis envelope(d) * exp(-beta (exp(-5 d / cutoff) - mean)^2); [E, R] from [E], [E], [R], [R].

    Source: PhysNet (doi 10.1021/acs.jctc.9b00181), as in ViSNet; each edge has its own cutoff.
    """
    decay = torch.exp(-5.0 * distance / cutoff).unsqueeze(-1)
    return cosine_envelope(distance, cutoff).unsqueeze(-1) * torch.exp(-betas * (decay - means) ** 2)


def gaussian_basis(distance: Tensor, centres: Tensor) -> Tensor:
    """Gaussians [E, R] at evenly spaced centres [R] in Å, one spacing wide."""
    spacing = centres[1] - centres[0]
    return torch.exp(-0.5 * ((distance.unsqueeze(-1) - centres) / spacing) ** 2)


def spherical_harmonics(unit: Tensor, lmax: int) -> Tensor:
    """Real spherical harmonics [E, L] of unit vectors [E, 3], degrees 1 to `lmax`, each degree of norm 1.

    Degree 1 is x, y, z; degree 2 is sqrt(3) xz, sqrt(3) xy, y^2 - (x^2 + z^2) / 2, sqrt(3) yz and
    sqrt(3) (z^2 - x^2) / 2.
    """
    if lmax == 1:
        return unit
    x, y, z = unit.unbind(-1)
    root = math.sqrt(3.0)
    second = (
        root * x * z,
        root * x * y,
        y * y - 0.5 * (x * x + z * z),
        root * y * z,
        root / 2 * (z * z - x * x),
    )
    return torch.cat([unit, torch.stack(second, dim=-1)], dim=-1)


def sum_by_index(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum of the rows of `values` [E, ...] that share an index, [size, ...], in float32 at least."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    total = torch.zeros((size, *values.shape[1:]), dtype=dtype, device=values.device)
    return total.index_add_(0, index, values.to(dtype))


def rms_norm(vec: Tensor) -> Tensor:
    """Vectors [N, L, F] over the root of their mean square length over channels; smooth, also at zero."""
    vec = vec.to(torch.promote_types(vec.dtype, torch.float32))
    mean_square = (vec * vec).flatten(1).sum(-1) / vec.shape[-1]
    return vec * torch.rsqrt(mean_square + RMS_EPSILON).view(-1, 1, 1)


def max_min_norm(vec: Tensor) -> Tensor:
    """PyG's norm of vectors [N, L, F] of one degree: lengths rescaled so that each atom's span 0 to 1."""
    vec = vec.to(torch.promote_types(vec.dtype, torch.float32))
    length = (vec * vec).sum(dim=1).clamp(min=1e-24).sqrt()
    lowest = length.min(dim=-1, keepdim=True).values
    span = length.max(dim=-1, keepdim=True).values - lowest
    span = torch.where(span == 0, torch.ones_like(span), span)
    return vec * (relu((length - lowest) / span) / length).unsqueeze(1)


def neighbour_messages(embedded: Tensor, filters: Tensor, edges: Edges) -> Tensor:
    """What surrounds each atom, [N, F]: the sources' rows times filters [E, F] and envelope, summed."""
    messages = embedded.index_select(0, edges.source) * filters * edges.envelope.unsqueeze(-1)
    return sum_by_index(messages, edges.target, embedded.shape[0])


def edge_messages(
    query: Tensor,
    key_value: Tensor,
    vec: Tensor | None,
    feature: Tensor,
    edges: Edges,
    weights: EdgeWeights,
    *,
    num_heads: int,
    corrected: bool,
) -> tuple[Tensor, Tensor]:
    """Attention messages along the edges, summed at their targets.

    Args:
        query: [N, F], read at targets.
        key_value: [N, 2F], read at sources.
        vec: [N, L, F], or None in the first layer, where every vector is zero.
        feature: [E, F] edge features.
        corrected: multiply the vector message by the envelope. The published code does not, and the trainable
            bias of the gates then leaves a jump where an edge appears at its cutoff.

    Returns:
        Scalars [N, F] and vectors [N, L, F], float32 or wider.
    """
    num_atoms, channels = query.shape
    per_head = (-1, num_heads, channels // num_heads)
    filter_key, filter_value = silu(linear(feature, weights.filter_weight, weights.filter_bias)).chunk(2, dim=-1)
    key, value = key_value.index_select(0, edges.source).chunk(2, dim=-1)
    product = query.index_select(0, edges.target) * key * filter_key
    score = product.view(per_head).sum(-1, dtype=torch.promote_types(product.dtype, torch.float32))
    attention = silu(score) * edges.envelope.unsqueeze(-1)  # [E, H]
    message = ((value * filter_value).view(per_head) * attention.unsqueeze(-1)).view(-1, channels)

    gates = silu(linear(message, weights.gate_weight, weights.gate_bias))
    if corrected:
        gates = gates * edges.envelope.unsqueeze(-1)
    vector_message = gates[:, -channels:].unsqueeze(1) * edges.direction.unsqueeze(-1)  # [E, L, F]
    if vec is not None:
        vector_message = vector_message + vec.index_select(0, edges.source) * gates[:, :channels].unsqueeze(1)
    return (
        sum_by_index(message, edges.target, num_atoms),
        sum_by_index(vector_message, edges.target, num_atoms),
    )


def rejection_product(target_vec: Tensor, source_vec: Tensor, edges: Edges, *, corrected: bool) -> Tensor:
    """Product [E, F] of the parts of two atoms' vectors [N, L, F] that are orthogonal to the edge.

    With A and B the vectors and d the direction, the product of A - (A.d) d and B - (B.d) d is
    A.B - (2 - d.d) (A.d) (B.d). The published code rejects on all degrees together; for lmax 2, d.d is then 2
    and the direction drops out. Corrected, each degree is rejected on its own. For lmax 1 the two agree.
    """
    direction = edges.direction
    lmax = 1 if direction.shape[-1] == 3 else 2
    blocks = DEGREE_SLICES[lmax] if corrected else (slice(0, direction.shape[-1]),)
    a = target_vec.index_select(0, edges.target).unbind(1)
    b = source_vec.index_select(0, edges.source).unbind(1)
    d = direction.unsqueeze(-1).unbind(1)
    product = sum(a_l * b_l for a_l, b_l in zip(a, b, strict=True))
    for block in blocks:
        along_a = sum(a_l * d_l for a_l, d_l in zip(a[block], d[block], strict=True))
        along_b = sum(b_l * d_l for b_l, d_l in zip(b[block], d[block], strict=True))
        length = sum(d_l * d_l for d_l in d[block])
        product = product - (2.0 - length) * along_a * along_b
    return product
