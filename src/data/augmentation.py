"""An example -> the example as an epoch shows it: atoms shaken, or the ligand moved to where it does not belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from src.data.dataset import Example
from src.data_processing import contact_pairs
from src.graph import ComplexGraph

DECOY_SHIFT = (2.0, 6.0)  # Å; how far the ligand of a decoy is moved
DECOY_MARGIN = 1.0  # pK; a decoy must not be scored higher than the measured value less this


@dataclass(frozen=True)
class Augmentation:
    """How examples differ from epoch to epoch; a function of seed, epoch and code, so the same after any resume."""

    coordinate_noise: float  # Å, standard deviation of each coordinate of each atom
    decoy_fraction: float  # fraction of the examples that are shown with a displaced ligand
    interaction_cutoff: float  # Å
    seed: int

    def shown(self, example: Example, epoch: int) -> Example:
        """The example as this epoch (counted from 0) shows it."""
        rng = np.random.default_rng([self.seed, epoch, crc32(example.graph.code.encode())])
        is_decoy = rng.random() < self.decoy_fraction and example.bound == 0
        graph = decoy(example.graph, rng, self.interaction_cutoff) if is_decoy else example.graph
        if self.coordinate_noise:
            noise = rng.normal(scale=self.coordinate_noise, size=graph.pos.shape).astype(np.float32)
            graph = moved(graph, graph.pos + torch.from_numpy(noise))
        if not is_decoy:
            return replace(example, graph=graph)
        return replace(example, graph=graph, pk=example.pk - DECOY_MARGIN, bound=-1)


class ShownExamples(Sequence):
    """Examples as one epoch shows them, for a loader."""

    def __init__(self, examples: Sequence[Example], augmentation: Augmentation, epoch: int) -> None:
        self._examples, self._augmentation, self._epoch = examples, augmentation, epoch

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> Example:
        return self._augmentation.shown(self._examples[number], self._epoch)


def moved(graph: ComplexGraph, pos: torch.Tensor) -> ComplexGraph:
    """The graph with other positions [N, 3] in Å and the same edges, whose order is not computed again.

    Small moves alone: a pair that comes within a cutoff gets no edge. One that leaves it weighs nothing.
    """
    shifted = replace(graph, pos=pos)
    shifted.__dict__["edges"] = graph.edges  # edges do not depend on positions, so the cached property is kept
    return shifted


def decoy(graph: ComplexGraph, rng: np.random.Generator, interaction_cutoff: float) -> ComplexGraph:
    """The complex with its ligand turned at random and moved by 2 to 6 Å, and the contacts it has there.

    The pocket is that of the measured pose, so at its far side residues are missing.
    """
    num_ligand = graph.num_ligand_atoms
    pos = graph.pos.numpy().copy()
    direction = rng.normal(size=3)
    shift = rng.uniform(*DECOY_SHIFT) * direction / np.linalg.norm(direction)
    ligand = pos[:num_ligand]
    centre = ligand.mean(axis=0)
    pos[:num_ligand] = Rotation.random(random_state=rng).apply(ligand - centre) + centre + shift
    pairs = contact_pairs(pos[:num_ligand], pos[num_ligand:], interaction_cutoff) + np.array([[0], [num_ligand]])
    fade = graph.fade.numpy().copy()
    fade[np.unique(pairs[1])] = 1.0  # what touches the ligand counts fully, as it would in a graph of this pose
    return replace(
        graph, pos=torch.from_numpy(pos), fade=torch.from_numpy(fade), contacts=torch.from_numpy(pairs.astype(np.int16))
    )
