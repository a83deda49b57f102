"""Random complexes with edges found by brute force, for tests of what comes after the graphs."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from src.graph import NODE_FEATURES, Batch, BondType, ComplexGraph, EdgeKind, Side
from src.settings import ModelSettings
from src.visnet.geometry import spherical_harmonics
from src.visnet.message_passing import Edges, EdgeWeights, Nodes

NEAR_CUTOFF = 4.5
INTERACTION_CUTOFF = 6.0
SIDE, ELEMENT = 1, 0  # columns of features


def tiny_settings(**changes: object) -> ModelSettings:
    """A model small enough for hundreds of steps in a test."""
    values = {
        "hidden_channels": 16,
        "num_layers": 3,
        "num_heads": 4,
        "num_rbf": 8,
        "lmax": 1,
        "vector_norm": "rms",
        "dropout": 0.0,
        "near_cutoff": NEAR_CUTOFF,
        "interaction_cutoff": INTERACTION_CUTOFF,
    }
    return ModelSettings(**(values | changes))


def random_complex(seed: int, num_ligand_atoms: int = 20, num_pocket_atoms: int = 60) -> ComplexGraph:
    """A chain of ligand atoms near the origin and chains of five pocket atoms in a shell around it."""
    draw = torch.Generator().manual_seed(seed)
    ligand = _spread(num_ligand_atoms, 0.0, 4.0, draw)
    pocket = _spread(num_pocket_atoms, 4.5, 9.0, draw)
    count = num_ligand_atoms + num_pocket_atoms
    features = torch.stack([torch.randint(0, size, (count,), generator=draw) for size in NODE_FEATURES.values()], 1)
    features[:, ELEMENT] = torch.tensor([6, 7, 8, 16])[torch.randint(0, 4, (count,), generator=draw)]
    features[:num_ligand_atoms, SIDE] = Side.LIGAND
    features[num_ligand_atoms:, SIDE] = Side.PROTEIN
    chain = torch.arange(num_ligand_atoms - 1)
    pocket_chain = torch.arange(num_ligand_atoms, max(num_ligand_atoms, count - 1))
    pocket_chain = pocket_chain[(pocket_chain - num_ligand_atoms) % 5 != 4]
    fade = torch.ones(count)
    fade[num_ligand_atoms:] = (0.2 + 0.8 * torch.rand(num_pocket_atoms, generator=draw)).clamp(max=1.0)
    unconnected = ComplexGraph(
        code=f"syn{seed}",
        smiles="",
        num_ligand_atoms=num_ligand_atoms,
        pos=torch.cat([ligand, pocket]),
        features=features.to(torch.uint8),
        fade=fade,
        ligand_bonds=torch.stack([chain, chain + 1]).to(torch.int16),
        ligand_bond_types=torch.randint(1, 5, (len(chain),), generator=draw).to(torch.uint8),
        protein_bonds=torch.stack([pocket_chain, pocket_chain + 1]).to(torch.int16),
        near_pairs=torch.zeros(2, 0, dtype=torch.int16),
        contacts=torch.zeros(2, 0, dtype=torch.int16),
    )
    return with_positions(unconnected, unconnected.pos)


def with_positions(graph: ComplexGraph, pos: Tensor) -> ComplexGraph:
    """The complex with its atoms elsewhere, near pairs and contacts found anew."""
    distance = torch.cdist(pos.double(), pos.double(), compute_mode="donot_use_mm_for_euclid_dist")
    is_ligand = torch.arange(len(pos)) < graph.num_ligand_atoms
    bonded = torch.zeros(len(pos), len(pos), dtype=torch.bool)
    bonded[tuple(graph.protein_bonds.long())] = True
    near = (distance < NEAR_CUTOFF) & ~(is_ligand[:, None] | is_ligand[None]) & ~bonded
    contact = (distance < INTERACTION_CUTOFF) & is_ligand[:, None] & ~is_ligand[None]
    near_pairs = torch.nonzero(near.triu(1)).T.to(torch.int16)
    return replace(graph, pos=pos, near_pairs=near_pairs, contacts=torch.nonzero(contact).T.to(torch.int16))


def batch_of(graphs: list[ComplexGraph], pk: Tensor | None = None) -> Batch:
    """Complexes side by side, each pair as two directed edges, edges sorted by target."""
    parts: dict[str, list[Tensor]] = {"pairs": [], "kinds": [], "bonds": [], "contacts": [], "graph": []}
    start = 0
    for number, graph in enumerate(graphs):
        none = BondType.NONE
        for kind, pairs, types in (
            (EdgeKind.LIGAND_BOND, graph.ligand_bonds, graph.ligand_bond_types.long()),
            (EdgeKind.PROTEIN_BOND, graph.protein_bonds, torch.full((graph.protein_bonds.shape[1],), none)),
            (EdgeKind.PROTEIN_NEAR, graph.near_pairs, torch.full((graph.near_pairs.shape[1],), none)),
            (EdgeKind.CONTACT, graph.contacts, torch.full((graph.contacts.shape[1],), none)),
        ):
            both = torch.cat([pairs, pairs.flip(0)], dim=1).long() + start
            parts["pairs"].append(both)
            parts["kinds"].append(torch.full((both.shape[1],), int(kind)))
            parts["bonds"].append(torch.cat([types, types]))
        parts["contacts"].append(graph.contacts.long() + start)
        parts["graph"].append(torch.full((graph.num_atoms,), number))
        start += graph.num_atoms
    source, target = torch.cat(parts["pairs"], dim=1)
    order = torch.argsort(target, stable=True)
    return Batch(
        codes=tuple(graph.code for graph in graphs),
        features=torch.cat([graph.features.long() for graph in graphs]),
        pos=torch.cat([graph.pos for graph in graphs]),
        fade=torch.cat([graph.fade for graph in graphs]),
        graph_of_atom=torch.cat(parts["graph"]),
        source=source[order],
        target=target[order],
        edge_kind=torch.cat(parts["kinds"])[order],
        bond_type=torch.cat(parts["bonds"])[order],
        contacts=torch.cat(parts["contacts"], dim=1),
        pk=torch.full((len(graphs),), math.nan) if pk is None else pk,
        bound=torch.zeros(len(graphs)),
        weight=torch.ones(len(graphs)),
    )


def random_batch(num_graphs: int, seed: int, **sizes: int) -> Batch:
    """A batch of random complexes with random labels around pK 6."""
    draw = torch.Generator().manual_seed(seed)
    graphs = [random_complex(1000 * seed + number, **sizes) for number in range(num_graphs)]
    return batch_of(graphs, 6.0 + 1.5 * torch.randn(num_graphs, generator=draw))


def in_double(batch: Batch) -> Batch:
    return replace(batch, pos=batch.pos.double(), fade=batch.fade.double())


def scattered(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with noise on every parameter: biases, zeros and near-zeros must not hide a fault."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float32)
            parameter.add_(noise.to(parameter.dtype) * 0.15)
    return model


def random_edge_operation(
    *,
    lmax: int,
    first: bool = False,
    updates: bool = False,
    num_atoms: int = 5,
    num_edges: int = 23,
    channels: int = 6,
    dtype: torch.dtype = torch.float64,
) -> tuple[Nodes, Tensor, Edges, EdgeWeights]:
    """Nodes, features, edges and weights with nothing at zero."""
    draw = torch.Generator().manual_seed(4)

    def random(*shape):
        return torch.randn(shape, dtype=dtype, generator=draw)

    size = 3 if lmax == 1 else 8
    vec = None if first else random(num_atoms, size, channels)
    ends = [random(num_atoms, size, channels) for _ in range(2)] if updates else [None, None]
    nodes = Nodes(random(num_atoms, channels), random(num_atoms, 2 * channels), vec, *ends)
    target = torch.sort(torch.randint(0, num_atoms, (num_edges,), generator=draw)).values
    source = torch.randint(0, num_atoms, (num_edges,), generator=draw)
    unit = torch.nn.functional.normalize(random(num_edges, 3), dim=-1)
    envelope = torch.rand((num_edges, 1), dtype=dtype, generator=draw)
    edges = Edges(source, target, spherical_harmonics(unit, lmax), envelope)
    filters, gates = (3 if updates else 2) * channels, (1 if first else 2) * channels
    weights = EdgeWeights(random(filters, channels), random(filters), random(gates, channels), random(gates))
    return nodes, random(num_edges, channels), edges, weights


def _spread(count: int, inner: float, outer: float, draw: torch.Generator) -> Tensor:
    """Points [count, 3] between two radii, no two closer than 1.1 Å."""
    points, num_placed = torch.zeros(count, 3), 0
    while num_placed < count:
        point = (2 * torch.rand(3, generator=draw) - 1) * outer
        if inner <= float(point.norm()) <= outer and ((points[:num_placed] - point).norm(dim=1) > 1.1).all():
            points[num_placed] = point
            num_placed += 1
    return points
