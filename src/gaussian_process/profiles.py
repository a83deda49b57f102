"""A batch -> for each complex, counts that say what touches what and of what the ligand is made.

Shapes: G complexes, C contacts. All counts of contacts are sums over contacts with weights that fall to 0 at the
cutoff, so they are continuous in every coordinate; none changes when the complex is turned or its atoms are reordered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from src.graph import FEATURE_COLUMN, MAX_CHARGE, RESIDUE_TYPES, Batch, EdgeKind, Hybridisation, Side
from src.visnet.geometry import distances_and_units
from src.visnet.message_passing import sum_by_index
from src.visnet.readout import contact_weights

# The shells of distance pass into each other at these, Å: polar contacts, touching surfaces, second neighbours.
SHELL_BOUNDARIES = (3.5, 4.5)
SHELL_WIDTH = 0.4

ELEMENT_CLASSES = (6, 7, 8)  # elements of ligand atoms that touch a residue; all others are one class
NUM_CLASSES = len(ELEMENT_CLASSES) + 1
NUM_TYPES = 16  # number of atom_types
NUM_CONTACT_COUNTS = NUM_TYPES**2 * (len(SHELL_BOUNDARIES) + 1)

# Environments of a ligand atom are it alone, it with its neighbours, and with theirs, as in extended-connectivity
# fingerprints (doi 10.1021/ci100050t); their hashes are folded into this many places.
ENVIRONMENT_RADIUS = 2
NUM_ENVIRONMENTS = 1024  # a power of two


class ContactProfiles(NamedTuple):
    """What two complexes are compared by."""

    contacts: Tensor  # [G, T * T * S] weighted contacts by type of ligand atom, type of pocket atom and shell
    residues: Tensor  # [G, R, 4] weighted contacts by residue type and class of the ligand atom
    atoms: Tensor  # [G, T + 1] ligand atoms by type, and all of them
    environments: Tensor  # [G, NUM_ENVIRONMENTS] ligand atoms by environment, each atom once for each radius
    total: Tensor  # [G] weighted contacts


def contact_profiles(batch: Batch, weights: Tensor) -> ContactProfiles:
    """The profiles of the complexes of a batch.

    Args:
        weights: [C], of readout.contact_weights; differentiable.
    """
    ligand_atom, pocket_atom = batch.contacts
    graph, num_graphs = batch.graph_of_contact, batch.num_graphs
    types, residue = atom_types(batch.features), batch.features[:, FEATURE_COLUMN["residue"]]
    ours, theirs = types.index_select(0, ligand_atom), types.index_select(0, pocket_atom)
    distance, _ = distances_and_units(batch.pos, pocket_atom, ligand_atom)
    element = batch.features[:, FEATURE_COLUMN["element"]].index_select(0, ligand_atom)
    of_class = _first_that_holds([element == number for number in ELEMENT_CLASSES])

    def counts(values: Tensor, place: Tensor, size: int) -> Tensor:
        return sum_by_index(values, graph * size + place, num_graphs * size).view(num_graphs, -1)

    of_residue = residue.index_select(0, pocket_atom) * NUM_CLASSES + of_class
    residues = counts(weights, of_residue, len(RESIDUE_TYPES) * NUM_CLASSES)
    is_ligand = batch.features[:, FEATURE_COLUMN["side"]] == Side.LIGAND
    place = batch.graph_of_atom * NUM_TYPES + types
    atoms = sum_by_index(is_ligand.to(weights.dtype), place, num_graphs * NUM_TYPES).view(num_graphs, -1)
    return ContactProfiles(
        counts(_shells(distance) * weights.unsqueeze(-1), ours * NUM_TYPES + theirs, NUM_TYPES**2),
        residues.view(num_graphs, -1, NUM_CLASSES),
        torch.cat([atoms, atoms.sum(1, keepdim=True)], dim=1),
        _environments(batch, is_ligand).to(weights.dtype),
        sum_by_index(weights, graph, num_graphs),
    )


class LabelledProfiles(NamedTuple):
    """The profiles of N complexes with exact labels."""

    profiles: ContactProfiles
    pk: Tensor  # [N] float64
    codes: tuple[str, ...]
    weight: Tensor  # [N] float64; a label of weight 0.5 has twice the noise

    def of(self, chosen: Tensor) -> LabelledProfiles:
        """The complexes [M] of these numbers."""
        profiles = ContactProfiles(*(values[chosen] for values in self.profiles))
        codes = tuple(self.codes[number] for number in chosen.tolist())
        return LabelledProfiles(profiles, self.pk[chosen], codes, self.weight[chosen])


def labelled_profiles(batches: Iterable[Batch], cutoff: float) -> LabelledProfiles:
    """
    Args:
        batches: on the CPU, not augmented, at least one.
        cutoff: of contacts, Å.
    """
    parts, labels, codes, weights = [], [], [], []
    for batch in batches:
        parts.append(contact_profiles(batch, contact_weights(batch, cutoff)))
        labels.append(batch.pk)
        codes += batch.codes
        weights.append(batch.weight)
    profiles = ContactProfiles(*map(torch.cat, zip(*parts, strict=True)))
    return LabelledProfiles(profiles, torch.cat(labels).double(), tuple(codes), torch.cat(weights).double())


def atom_types(features: Tensor) -> Tensor:
    """[N] types below NUM_TYPES by element, charge, hybridisation and hydrogen bonds, of feature values [N, 9]."""
    of = {name: features[:, column] for name, column in FEATURE_COLUMN.items()}
    element, charge = of["element"], of["charge"] - MAX_CHARGE
    carbon, nitrogen, oxygen = (element == number for number in (6, 7, 8))
    aromatic, donor = of["aromatic"] == 1, of["donor"] == 1
    flat = (of["hybridisation"] == Hybridisation.SP2) | (of["hybridisation"] == Hybridisation.SP)
    kinds = [
        of["side"] == Side.ION,
        *(carbon & aromatic, carbon & flat, carbon),
        *(nitrogen & (charge > 0), nitrogen & aromatic, nitrogen & donor, nitrogen),
        *(oxygen & (charge < 0), oxygen & donor, oxygen),
        *(element == number for number in (16, 15, 9)),
        (element == 17) | (element == 35) | (element == 53),
    ]
    assert len(kinds) == NUM_TYPES - 1, "all other atoms are the last type"
    return _first_that_holds(kinds)


def _first_that_holds(tests: list[Tensor]) -> Tensor:
    """[N] the number of the first test [N] that holds; the number of tests where none does."""
    first = torch.full_like(tests[0], len(tests), dtype=torch.int64)
    for number in reversed(range(len(tests))):
        first = first.masked_fill(tests[number], number)
    return first


def _shells(distance: Tensor) -> Tensor:
    """[C, S] share of each shell in a contact; they add up to 1."""
    beyond = [torch.sigmoid((distance - boundary) / SHELL_WIDTH) for boundary in SHELL_BOUNDARIES]
    inner = [torch.ones_like(distance), *beyond]
    outer = [*beyond, torch.zeros_like(distance)]
    return torch.stack([one - other for one, other in zip(inner, outer, strict=True)], dim=-1)


def _environments(batch: Batch, is_ligand: Tensor) -> Tensor:
    """[G, NUM_ENVIRONMENTS] int64; sums of hashes do not hang on the order of neighbours.

    All atoms and edges are gone through, with zeros for what is not of the ligand: to pick some of them, a GPU would be
    waited for.
    """
    device = batch.features.device
    if device.type == "mps":  # 64-bit arithmetic of an Apple GPU may differ from that which hashed the references
        batch, is_ligand = batch.to("cpu"), is_ligand.cpu()
    is_bond, counts = (batch.edge_kind == EdgeKind.LIGAND_BOND).long(), is_ligand.long()

    def told(values: Tensor) -> Tensor:
        """Sums [N] at the atoms of values [E] of their bonds."""
        return torch.zeros_like(counts).index_add_(0, batch.target, values * is_bond)

    hashed = told(is_bond)  # number of neighbours
    for name in ("element", "charge", "aromatic", "ring"):
        hashed = _mixed(hashed * 256 + batch.features[:, FEATURE_COLUMN[name]])
    total = counts.new_zeros(batch.num_graphs * NUM_ENVIRONMENTS)
    for radius in range(ENVIRONMENT_RADIUS + 1):
        if radius:
            hashed = _mixed(hashed * 3 + told(_mixed(hashed.index_select(0, batch.source) + batch.bond_type + 1)))
        place = batch.graph_of_atom * NUM_ENVIRONMENTS + (hashed & (NUM_ENVIRONMENTS - 1))
        total.index_add_(0, place, counts)
    return total.view(batch.num_graphs, NUM_ENVIRONMENTS).to(device)


def _mixed(values: Tensor) -> Tensor:
    """A hash of int64 values, after the finalizer of MurmurHash3, but with shifts that keep the sign."""
    for factor in (-0xAE502812AA7333, -0x3B314601E57A13AD):
        values = (values ^ (values >> 33)) * factor
    return values ^ (values >> 33)
