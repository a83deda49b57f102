"""Positions -> distances, directions, radial bases and spherical harmonics of edges, and norms of vector channels.

Shapes: N atoms, E edges, F channels, R radial functions, L components of a vector channel (3 for lmax 1, 8 for
lmax 2). Nothing here waits for the device: no `.item()`, no boolean mask, no branch on the value of a tensor.

Formulas: Wang et al., doi 10.1038/s41467-023-43720-2, and `torch_geometric.nn.models.visnet`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import relu

# Å. Atoms closer than this count as this far apart and their direction shrinks to zero, so that two atoms on
# one spot give finite gradients. Atoms of a real structure are never so close.
SHORTEST_DISTANCE = 0.01

# Added to the mean square of vectors: a zero vector stays zero, and no gradient grows more than tenfold.
RMS_EPSILON = 1e-2

DEGREE_SLICES = {1: (slice(0, 3),), 2: (slice(0, 3), slice(3, 8))}


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
    second = (root * x * z, root * x * y, y * y - 0.5 * (x * x + z * z), root * y * z, root / 2 * (z * z - x * x))
    return torch.cat([unit, torch.stack(second, dim=-1)], dim=-1)


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
