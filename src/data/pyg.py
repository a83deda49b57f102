"""Labelled graphs -> torch_geometric's HeteroData, so that any of its models learns from this data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch_geometric.data import Dataset, HeteroData

from src.data.dataset import Example
from src.graph import FEATURE_COLUMN, BondType, ComplexGraph, Side

NODE_TYPES = tuple(side.name.lower() for side in Side)  # by their number
_POCKET = NODE_TYPES[1:]
# The same in every complex, many of them without an edge, so that complexes can stand in one batch.
EDGE_TYPES = (
    ("ligand", "bond", "ligand"),
    *((one, "bond", other) for one, other in product(_POCKET, _POCKET)),
    *((one, "near", other) for one, other in product(_POCKET, _POCKET)),
    *(("ligand", "contact", other) for other in _POCKET),
    *((other, "contact", "ligand") for other in _POCKET),
)


class ComplexDataset(Dataset):
    """The examples as PyG takes them, made when they are asked for; nothing is written or unpickled."""

    def __init__(self, examples: Sequence[Example], transform: Callable[[HeteroData], object] | None = None) -> None:
        """
        Args:
            transform: of each complex, for example `lambda data: data.to_homogeneous()`.
        """
        super().__init__(transform=transform)
        self.examples = examples

    def len(self) -> int:
        return len(self.examples)

    def get(self, idx: int) -> HeteroData:
        one = self.examples[idx]
        data = to_hetero(one.graph)
        data.y, data.bound = torch.tensor([one.pk], dtype=torch.float32), torch.tensor([one.bound])
        return data


def to_hetero(graph: ComplexGraph) -> HeteroData:
    """All nodes and edges of a complex, and its `code`; edges go both ways.

    Returns:
        For each of NODE_TYPES `x` [n, 9] int64, columns NODE_FEATURES of src/graph.py, `pos` [n, 3] Å and `fade` [n];
        for each of EDGE_TYPES `edge_index` [2, E] and `bond_type` [E], BondType, NONE for edges that are no ligand
        bond. Nodes keep the order of the graph within their type.
    """
    data = HeteroData(code=graph.code)
    side = graph.features[:, FEATURE_COLUMN["side"]].long()
    place = torch.empty_like(side)  # of an atom among those of its type
    for number, name in enumerate(NODE_TYPES):
        here = (side == number).nonzero()[:, 0]
        place[here] = torch.arange(len(here))
        node = data[name]
        node.x, node.pos, node.fade = graph.features[here].long(), graph.pos[here], graph.fade[here]
    bonds = torch.cat([graph.ligand_bonds, graph.protein_bonds], 1)
    of_pocket = torch.full(graph.protein_bonds.shape[1:], BondType.NONE, dtype=torch.uint8)
    bond_types = torch.cat([graph.ligand_bond_types, of_pocket])
    relations = {
        "bond": _both_ways(bonds, bond_types),
        "near": _both_ways(graph.near_pairs),
        "contact": _both_ways(graph.contacts),
    }
    for source, relation, target in EDGE_TYPES:
        pairs, types = relations[relation]
        ends = NODE_TYPES.index(source), NODE_TYPES.index(target)
        chosen = (side[pairs[0]] == ends[0]) & (side[pairs[1]] == ends[1])
        edges = data[source, relation, target]
        edges.edge_index, edges.bond_type = place[pairs[:, chosen]], types[chosen]
    return data


def _both_ways(pairs: Tensor, types: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """[2, 2 n] and the bond types [2 n], both int64."""
    types = torch.full(pairs.shape[1:], BondType.NONE) if types is None else types
    return torch.cat([pairs, pairs.flip(0)], 1).long(), types.repeat(2).long()
