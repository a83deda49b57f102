"""Ideas that are no setting, put in place of what `main.py` does; each function changes this process for good."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from zlib import crc32

import torch
from torch import Tensor, nn

import main
from src import model
from src.data import augmentation
from src.data.dataset import Dataset, Example
from src.graph import FEATURE_COLUMN, MAX_CHARGE, Batch
from src.optimization import gradients
from src.settings import DataSettings, ModelSettings
from src.similarity.comparison import Similarity
from src.similarity.splits import cluster_thresholds
from src.visnet import layers, readout
from src.visnet.geometry import distances_and_units
from src.visnet.layers import linear

HIDDEN_FRACTION = 0.3  # of the residue types

# Van der Waals radii, Å (Bondi, doi 10.1021/j100785a001); 1.7 for all others
RADII = {7: 1.55, 8: 1.52, 9: 1.47, 15: 1.8, 16: 1.8, 17: 1.75, 35: 1.85, 53: 1.98, 12: 1.2, 20: 1.2, 25: 1.2, 30: 1.2}
METALS = (12, 20, 25, 26, 27, 28, 29, 30)
GREASY = (6, 16, 17, 35, 53)


def balanced_clusters() -> None:
    """A complex of a cluster of n weighs 1 / sqrt(n) in the loss."""
    split, plain = main.split_dataset, gradients.squared_errors
    weights: dict[str, float] = {}

    def split_and_weigh(dataset: Dataset, data: DataSettings, seed: int, similarity: Similarity) -> dict:
        parts = split(dataset, data, seed, similarity)
        labels = similarity.clusters(cluster_thresholds(data)).tolist()
        label_of = {example.graph.code: label for example, label in zip(dataset.examples, labels, strict=True)}
        sizes = Counter(label_of[code] for code in parts["train"])
        raw = {code: sizes[label_of[code]] ** -0.5 for code in parts["train"]}
        mean = sum(raw.values()) / len(raw)
        weights.update({code: value / mean for code, value in raw.items()})
        return parts

    def weighed(predicted: Tensor, batch: Batch) -> Tensor:
        return plain(predicted, batch) * predicted.new_tensor([weights[code] for code in batch.codes])

    main.split_dataset = split_and_weigh
    gradients.squared_errors = weighed


def physical_channels() -> None:
    """Beside the learned radial filter of a contact: steric, hydrophobic, hydrogen bond, ionic and metal terms.

    The shapes are those of AutoDock Vina (doi 10.1002/jcc.21334), of the distance between the surfaces of two atoms.
    """
    model.ContactReadout = ContactReadoutWithPhysics


class ContactReadoutWithPhysics(readout.ContactReadout):
    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        radii = torch.full((119,), 1.7)
        for number, radius in RADII.items():
            radii[number] = radius
        self.register_buffer("radii", radii, persistent=False)
        self.radial = _RadialAndPhysics(self.radial, linear(8, settings.hidden_channels, bias=False))

    def forward(self, x: Tensor, vec: Tensor, weight: Tensor, batch: Batch) -> Tensor:
        self.radial.terms = self._terms(batch)
        return super().forward(x, vec, weight, batch)

    def _terms(self, batch: Batch) -> Tensor:
        """[C, 8] physical terms of the contacts."""
        ligand_atom, pocket_atom = batch.contacts
        distance, _ = distances_and_units(batch.pos, pocket_atom, ligand_atom)
        ours, theirs = batch.features[ligand_atom], batch.features[pocket_atom]
        of = {name: (ours[:, column], theirs[:, column]) for name, column in FEATURE_COLUMN.items()}
        first, second = of["element"]
        surface = distance - self.radii[first] - self.radii[second]
        near = (1 - (surface + 0.7) / 0.7).clamp(0, 1)  # 1 below -0.7 Å, 0 from 0 Å on
        greasy = _is_one_of(first, GREASY) & _is_one_of(second, GREASY)
        bonded = (of["donor"][0] * of["acceptor"][1] + of["acceptor"][0] * of["donor"][1]).clamp(max=1)
        charges = (of["charge"][0] - MAX_CHARGE).float() * (of["charge"][1] - MAX_CHARGE).float()
        terms = [
            torch.exp(-((surface / 0.5) ** 2)),
            torch.exp(-(((surface - 3) / 2) ** 2)),
            surface.clamp(max=0) ** 2,
            greasy * (1 - (surface - 0.5)).clamp(0, 1),
            bonded * near,
            charges / distance.clamp(min=2) * 3,
            _is_one_of(second, METALS) * near,
            (greasy != (_is_one_of(first, GREASY) | _is_one_of(second, GREASY))) * near,  # polar beside greasy
        ]
        return torch.stack([term.to(distance.dtype) for term in terms], dim=-1)


class _RadialAndPhysics(nn.Module):
    def __init__(self, radial: nn.Module, physics: nn.Module) -> None:
        super().__init__()
        self.radial, self.physics = radial, physics
        self.terms: Tensor | None = None

    def forward(self, basis: Tensor) -> Tensor:
        return self.radial(basis) + self.physics(self.terms)


def _is_one_of(element: Tensor, elements: tuple[int, ...]) -> Tensor:
    return torch.isin(element, element.new_tensor(elements))


def hidden_residues() -> None:
    """In training the residue type of three atoms in ten is unknown, so that no protein is known by its residues."""
    plain = augmentation.Augmentation.shown

    def shown(self: augmentation.Augmentation, example: Example, epoch: int) -> Example:
        changed = plain(self, example, epoch)
        features = changed.graph.features.clone()
        draw = torch.Generator().manual_seed(crc32(f"{self.seed} {epoch} {example.graph.code}".encode()))
        hidden = torch.rand(len(features), generator=draw) < HIDDEN_FRACTION
        hidden[: changed.graph.num_ligand_atoms] = False
        features[hidden, FEATURE_COLUMN["residue"]] = 0
        edges = changed.graph.edges
        graph = replace(changed.graph, features=features)
        graph.__dict__["edges"] = edges
        return replace(changed, graph=graph)

    augmentation.Augmentation.shown = shown


def no_residues() -> None:
    """No atom knows of which residue it is, in training and after it."""
    plain = layers.AtomEmbedding.forward

    def forward(self: layers.AtomEmbedding, features: Tensor) -> Tensor:
        features = features.clone()
        features[:, FEATURE_COLUMN["residue"]] = 0
        return plain(self, features)

    layers.AtomEmbedding.forward = forward
