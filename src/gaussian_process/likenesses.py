"""Profiles of complexes -> how alike they are by contacts, by ligand and by pocket, from 0 to 1.

Shapes: G complexes, n others, D coordinates, B environments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from src.gaussian_process.profiles import NUM_ENVIRONMENTS, ContactProfiles

HALF_SATURATION = 10.0  # weighted contacts with which likeness counts half; without a contact it counts nothing
LEVELS = (0, 1, 3)  # two ligands share an environment if both have it more often than this

NUM_BITS = len(LEVELS) * NUM_ENVIRONMENTS


class Likenesses(NamedTuple):
    """How alike G complexes are to n others, [G, n] each, from 0 to 1."""

    contacts: Tensor  # exp(-d^2)
    ligands: Tensor  # T
    residues: Tensor  # exp(-r^2), of the pockets

    @property
    def kernel(self) -> Tensor:
        """[G, n] of the three together, without the saturations."""
        return self.contacts + self.ligands * (1 + self.residues)

    @property
    def together(self) -> Tensor:
        """[G, n] of ligand and pocket: both must be alike."""
        return self.ligands * self.residues


def saturation(total: Tensor) -> Tensor:
    """[G] how much likeness counts, from 0 without contacts towards 1."""
    return total / (total + HALF_SATURATION)


def environment_bits(profiles: ContactProfiles) -> Tensor:
    """[G, levels * NUM_ENVIRONMENTS] 1 where a ligand has an environment more often than a level."""
    return torch.cat([profiles.environments > level for level in LEVELS], dim=1).to(profiles.environments.dtype)


def squared_distances(at: Tensor, references: Tensor) -> Tensor:
    """[G, n] of points [G, D] and [n, D]."""
    squares = (at * at).sum(1, keepdim=True) + (references * references).sum(1)
    return torch.addmm(squares, at, references.t(), alpha=-2).clamp(min=0)


def shared_bits(bits: Tensor, references: Tensor) -> Tensor:
    """[G, n] the matrix product of zeros and ones [G, B] and [B, n].

    A ligand has some 60 of 3,072 bits, so that adding up their rows is several times faster than a product, except on
    a GPU, which would be waited for to know how many.
    """
    if bits.device.type != "cpu":
        return bits @ references
    count = bits.sum(1).long()
    return embedding_bag(bits.nonzero()[:, 1], references, count.cumsum(0) - count, mode="sum")


def packed(bits: Tensor) -> Tensor:
    """[n, B / 8] uint8 of zeros and ones [n, B]."""
    return torch.from_numpy(np.packbits(bits.cpu().numpy().astype(bool), axis=1))
