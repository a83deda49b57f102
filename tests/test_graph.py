"""A graph on its way to another process."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import torch
from torch import Tensor

from tests.complexes import assert_same_graph
from tests.synthetic import random_complex


def test_a_graph_and_its_edges_travel_as_their_bytes_without_what_lies_beside_them() -> None:
    graph, shelf = random_complex(1), torch.zeros(10**6)
    shelf[: graph.pos.numel()] = graph.pos.flatten()
    graph = replace(graph, pos=shelf[: graph.pos.numel()].view_as(graph.pos))  # as the graphs of a shard lie in it
    edges = graph.edges
    sent = pickle.dumps(graph, protocol=pickle.HIGHEST_PROTOCOL)
    tensors = [value for one in (graph, edges) for value in vars(one).values() if isinstance(value, Tensor)]
    assert len(sent) < sum(tensor.nbytes for tensor in tensors) + 2000, "names of fields and dtypes"
    back = pickle.loads(sent)
    assert_same_graph(back, graph)
    assert "edges" in vars(back)
    for field in fields(edges):
        one, other = getattr(back.edges, field.name), getattr(edges, field.name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    back.pos.add_(1.0)
