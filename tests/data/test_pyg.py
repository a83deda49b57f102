"""Complexes as PyG's HeteroData: nothing is lost, doubled or renumbered wrongly on the way."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Batch

from src.data.dataset import Example
from src.data.pyg import EDGE_TYPES, NODE_TYPES, ComplexDataset, to_hetero
from src.graph import BondType, Side
from tests.synthetic import random_complex

SIDES = {2: 5, 3: 4, 4: 6}  # ions, waters and atoms of cofactors among the atoms of the pocket


def mixed_complex(seed: int = 0):
    graph = random_complex(seed)
    for side, count in SIDES.items():
        graph.features[torch.randperm(60, generator=torch.Generator().manual_seed(side))[:count] + 20, 1] = side
    return graph


def test_every_node_has_its_facts_under_its_type() -> None:
    graph = mixed_complex()
    data = to_hetero(graph)
    side = graph.features[:, 1].long()
    assert data.code == graph.code
    assert set(side.tolist()) == set(range(len(Side)))
    for number, name in enumerate(NODE_TYPES):
        assert torch.equal(data[name].x, graph.features[side == number].long())
        assert torch.equal(data[name].pos, graph.pos[side == number])
        assert torch.equal(data[name].fade, graph.fade[side == number])


def test_every_pair_is_an_edge_both_ways_between_the_same_atoms() -> None:
    graph = mixed_complex()
    data = to_hetero(graph)
    side = graph.features[:, 1].long()
    atoms = {name: (side == number).nonzero()[:, 0] for number, name in enumerate(NODE_TYPES)}
    found = {"bond": set(), "near": set(), "contact": set()}
    for source, relation, target in EDGE_TYPES:
        edges = data[source, relation, target]
        ends = atoms[source][edges.edge_index[0]], atoms[target][edges.edge_index[1]]
        found[relation] |= set(zip(*(end.tolist() for end in ends), edges.bond_type.tolist(), strict=True))
    expected = {
        "bond": [(*pair, kind) for pair, kind in _pairs(graph.ligand_bonds, graph.ligand_bond_types)]
        + [(*pair, BondType.NONE) for pair, _ in _pairs(graph.protein_bonds)],
        "near": [(*pair, BondType.NONE) for pair, _ in _pairs(graph.near_pairs)],
        "contact": [(*pair, BondType.NONE) for pair, _ in _pairs(graph.contacts)],
    }
    for relation, pairs in expected.items():
        assert found[relation] == {*pairs, *((b, a, kind) for a, b, kind in pairs)}
    assert sum(store.edge_index.shape[1] for store in data.edge_stores) == graph.num_edges


def test_complexes_of_other_kinds_stand_in_one_batch_with_their_labels() -> None:
    examples = [Example(random_complex(1), 6.5), Example(mixed_complex(), 4.0, bound=-1)]
    batch = Batch.from_data_list(list(ComplexDataset(examples)))
    assert batch.y.tolist() == [6.5, 4.0]
    assert batch.bound.tolist() == [0, -1]
    assert batch.code == [one.graph.code for one in examples]
    assert batch["water"].batch.tolist() == [1] * SIDES[3]
    whole = ComplexDataset(examples, lambda one: one.to_homogeneous())[1]
    assert whole.num_edges == examples[1].graph.num_edges
    distance = (whole.pos[whole.edge_index[0]] - whole.pos[whole.edge_index[1]]).norm(dim=1)
    assert np.isclose(distance.max(), _longest(examples[1].graph))


def _pairs(pairs, types=None):
    kinds = [BondType.NONE] * pairs.shape[1] if types is None else types.tolist()
    return list(zip(zip(*pairs.tolist(), strict=True), kinds, strict=True))


def _longest(graph) -> float:
    pairs = torch.cat([graph.ligand_bonds, graph.protein_bonds, graph.near_pairs, graph.contacts], 1).long()
    return float((graph.pos[pairs[0]] - graph.pos[pairs[1]]).norm(dim=1).max())
