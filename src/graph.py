"""What a node and an edge can be, and the containers that carry them: one complex, and a batch of complexes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class Side(IntEnum):
    """Which part of the complex an atom belongs to."""

    LIGAND = 0
    PROTEIN = 1
    ION = 2
    WATER = 3
    COFACTOR = 4


class Hybridisation(IntEnum):
    UNKNOWN = 0
    SP = 1
    SP2 = 2
    SP3 = 3
    OTHER = 4


class EdgeKind(IntEnum):
    """Which of the three graphs an edge belongs to; each kind has its own cutoff and its own embedding."""

    LIGAND_BOND = 0
    PROTEIN_BOND = 1
    PROTEIN_NEAR = 2
    CONTACT = 3


class BondType(IntEnum):
    """Bond order of a ligand bond; NONE for edges of the other kinds."""

    NONE = 0
    SINGLE = 1
    DOUBLE = 2
    TRIPLE = 3
    AROMATIC = 4
    OTHER = 5


RESIDUE_TYPES = (
    "none",  # ligand atoms, ions, waters and cofactors
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
    "other",  # an amino acid that is none of the twenty nor a modified one of them
    "nucleotide",
)

MAX_CHARGE = 3  # formal charges are clipped to [-3, 3] and stored as charge + 3

# Columns of ComplexGraph.features and the number of values each can take. Order and sizes are part of the model.
NODE_FEATURES = {
    "element": 119,  # atomic number; 0 for an unknown element
    "side": len(Side),
    "residue": len(RESIDUE_TYPES),
    "charge": 2 * MAX_CHARGE + 1,
    "hybridisation": len(Hybridisation),
    "aromatic": 2,
    "donor": 2,
    "acceptor": 2,
    "ring": 2,
}
FEATURE_COLUMN = {name: column for column, name in enumerate(NODE_FEATURES)}

BOND_CUTOFF = 3.0  # Å; longer than any covalent bond, so the envelope of a bond edge never ends inside one


class _Sent:
    """Goes to another process as arrays: torch makes a file of each tensor, at twenty times the cost."""

    def __getstate__(self) -> dict[str, object]:
        return {name: one.numpy() if isinstance(one, Tensor) else one for name, one in vars(self).items()}

    def __setstate__(self, state: dict[str, object]) -> None:
        tensors = {name: torch.from_numpy(one) for name, one in state.items() if isinstance(one, np.ndarray)}
        vars(self).update(state | tensors)


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no single truth value
class DirectedEdges(_Sent):
    """Every pair of a complex both ways, sorted by target: 4 bytes an edge, so that those of 20,000 stay in memory.

    The targets are the numbers of edges that end at each atom. At one target stand the pairs that name it second,
    then those that name it first, each in the order ligand bonds, protein bonds, near pairs, contacts.
    """

    source: Tensor  # [E] int16
    degree: Tensor  # [N] int16, edges that end at each atom
    kind: Tensor  # [E] uint8, EdgeKind
    bond_type: Tensor  # [E] uint8, BondType


@dataclass(frozen=True, eq=False)
class ComplexGraph(_Sent):
    """One complex as the cache stores it: ligand atoms first, then pocket atoms, every undirected pair once.

    The protein, ligand and interaction graphs share one numbering of atoms. Pairs of one kind are sorted.
    """

    code: str
    smiles: str  # ligand without hydrogens; empty when RDKit could not write one
    num_ligand_atoms: int
    pos: Tensor  # [N, 3] float32, Å, relative to the centroid of the ligand
    features: Tensor  # [N, 9] uint8, columns NODE_FEATURES
    fade: Tensor  # [N] float32 in (0, 1]: 1 inside the interaction cutoff, falling to 0 at the pocket's edge
    ligand_bonds: Tensor  # [2, B] int16
    ligand_bond_types: Tensor  # [B] uint8, BondType
    protein_bonds: Tensor  # [2, P] int16
    near_pairs: Tensor  # [2, Q] int16, protein atoms within visnet_cutoff
    contacts: Tensor  # [2, C] int16, (ligand atom, pocket atom) within interaction_cutoff

    @property
    def num_atoms(self) -> int:
        return self.pos.shape[0]

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each EdgeKind, in its order."""
        return self.ligand_bonds, self.protein_bonds, self.near_pairs, self.contacts

    @property
    def num_edges(self) -> int:
        """Directed edges: each pair counts twice."""
        return 2 * sum(pair.shape[1] for pair in self.pairs)

    @cached_property
    def edges(self) -> DirectedEdges:
        """Made at the first use and kept: sorting is most of what a batch would cost otherwise."""
        first, second = torch.cat(self.pairs, 1).numpy()
        kind = np.repeat(np.array([*EdgeKind], dtype=np.uint8), [pair.shape[1] for pair in self.pairs])
        bond_type = np.full_like(kind, BondType.NONE)
        bond_type[: len(self.ligand_bond_types)] = self.ligand_bond_types.numpy()
        target = np.concatenate([second, first])
        order = np.argsort(target, kind="stable")
        columns = {
            "source": np.concatenate([first, second])[order],
            "degree": np.bincount(target, minlength=self.num_atoms).astype(np.int16),
            "kind": np.tile(kind, 2)[order],
            "bond_type": np.tile(bond_type, 2)[order],
        }
        return DirectedEdges(**{name: torch.from_numpy(column) for name, column in columns.items()})


@dataclass(frozen=True, eq=False)
class Batch:
    """Several complexes side by side: N atoms, E directed edges sorted by target, G complexes."""

    codes: tuple[str, ...]
    features: Tensor  # [N, 9] int64
    pos: Tensor  # [N, 3] float32, Å
    fade: Tensor  # [N] float32
    graph_of_atom: Tensor  # [N] int64
    source: Tensor  # [E] int64
    target: Tensor  # [E] int64, ascending
    edge_kind: Tensor  # [E] int64, EdgeKind
    bond_type: Tensor  # [E] int64, BondType
    contacts: Tensor  # [2, C] int64, (ligand atom, pocket atom) of each contact once
    pk: Tensor  # [G] float32, NaN where there is no label
    bound: Tensor  # [G] float32: 0 the label is exact, +1 pK is at least the label, -1 at most
    weight: Tensor  # [G] float32, above 0 and at most 1: how much the complex counts in what is learned

    @classmethod
    def empty(cls) -> Batch:
        """No complexes."""
        whole = {"features": (0, len(NODE_FEATURES)), "contacts": (2, 0)}
        whole |= dict.fromkeys(("graph_of_atom", "source", "target", "edge_kind", "bond_type"), (0,))
        real = {"pos": (0, 3), "fade": (0,), "pk": (0,), "bound": (0,), "weight": (0,)}
        tensors = {name: torch.zeros(shape, dtype=torch.long) for name, shape in whole.items()}
        return cls(codes=(), **tensors, **{name: torch.zeros(shape) for name, shape in real.items()})

    @property
    def num_graphs(self) -> int:
        return len(self.codes)

    @property
    def graph_of_contact(self) -> Tensor:
        """Which complex each contact belongs to, [C]."""
        return self.graph_of_atom.index_select(0, self.contacts[0])

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from by itself, while the program goes on."""
        return self._each(Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self) if f.name != "codes"})
