"""Graphs packed into the arrays of a shard and back."""

from __future__ import annotations

import torch

from src.data.packing import ARRAYS, join, pack, unpack
from tests.complexes import assert_same_graph
from tests.synthetic import random_complex


def test_graphs_come_back_bit_for_bit_and_in_order() -> None:
    graphs = [random_complex(seed, num_ligand_atoms=4 + seed, num_pocket_atoms=20) for seed in range(3)]
    back = list(unpack(join([pack(graph) for graph in graphs])))
    assert [graph.code for graph in back] == [graph.code for graph in graphs]
    for one, other in zip(back, graphs, strict=True):
        assert_same_graph(one, other)


def test_a_graph_without_pocket_comes_back() -> None:
    graph = random_complex(1, num_ligand_atoms=1, num_pocket_atoms=0)
    (back,) = unpack(join([pack(graph)]))
    assert_same_graph(back, graph)


def test_a_pair_list_is_counts_and_second_atoms() -> None:
    graph = random_complex(2)
    arrays = pack(graph).arrays
    assert arrays.keys() == set(ARRAYS)
    first, second = graph.contacts
    assert arrays["contact_second"].tolist() == second.tolist()
    assert torch.bincount(first.long(), minlength=graph.num_ligand_atoms).tolist() == arrays["contact_counts"].tolist()
