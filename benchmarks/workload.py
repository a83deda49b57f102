"""What the message-passing benchmark runs on: graphs of pockets, real or drawn, and PyG's and our network alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from torch import Tensor
from torch_geometric.nn.models.visnet import ViSNetBlock

from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data.batching import collate
from src.data.dataset import Example
from src.data_processing import build_graph, contact_pairs, near_pairs
from src.graph import FEATURE_COLUMN, NODE_FEATURES, Batch, BondType, ComplexGraph, EdgeKind, Side
from src.model import ViSNet
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.settings import GraphSettings, ModelSettings
from tests.published_visnet import GivenEdges, load_from_pyg

# Fraction of real complexes with at most so many atoms within 8 Å of the ligand (50 complexes of PDBbind, mean 277).
ATOM_FRACTIONS, ATOM_COUNTS = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0), (125, 220, 274, 308, 408, 592)
LIGAND_SHARE = 31 / 277  # of the atoms
ATOM_DENSITY = 0.045  # drawn protein atoms per Å^3; gives the 3,664 edges that those complexes have on average
CONTACT_DISTANCE = 3.0  # Å; nearest approach of a drawn protein atom and a ligand atom


class Pair(NamedTuple):
    """The same network twice; `weights` are those of `ours` with the rows that PyG has as well."""

    theirs: ViSNetBlock
    ours: ViSNet
    weights: list[tuple[str, slice]]


def real_files(with_protein: bool = False) -> list[ComplexFiles]:
    """The complexes of $AIDD_REAL_DATA/pdbbind, none when it is not set."""
    if "AIDD_REAL_DATA" not in os.environ:
        return []
    root = Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind"
    found = locate_complexes(root, sorted(path.name for path in root.iterdir() if path.is_dir()))
    files = [found[code] for code in sorted(found) if found[code].ligands]
    return [each for each in files if (each.protein if with_protein else each.pocket)]


def pocket_graphs(count: int, settings: GraphSettings) -> tuple[str, list[ComplexGraph]]:
    """Where the graphs come from, and `count` of them: every k-th real complex, else drawn ones."""
    files = real_files()
    if not files:
        return "drawn pockets", [drawn_graph(number, settings) for number in range(count)]
    graphs: list[ComplexGraph] = []
    for each in files[:: max(1, len(files) // count)]:
        try:
            protein = read_protein(each.pocket)
            graphs.append(build_graph(each.code, read_ligand(each.ligands), protein, settings)[0])
        except ValueError:
            continue  # a complex that cannot be used; the audit of `main.py --check-data` names those
    return "real complexes", graphs[:count]


def drawn_graph(number: int, settings: GraphSettings) -> ComplexGraph:
    """A pocket with as many atoms and edges as a real one; the same for the same number.

    The ligand is a chain that keeps away from itself; protein atoms sit on a shaken grid around it. Each atom is
    bonded to the one before it.
    """
    rng = np.random.default_rng([0, number])
    num_atoms = round(float(np.interp(rng.random(), ATOM_FRACTIONS, ATOM_COUNTS)))
    ligand = _chain(round(LIGAND_SHARE * num_atoms), rng)
    protein = _surroundings(ligand, num_atoms - len(ligand), rng)
    is_ligand = np.arange(num_atoms) < len(ligand)
    features = np.zeros((num_atoms, len(NODE_FEATURES)), dtype=np.uint8)
    features[:, FEATURE_COLUMN["element"]] = rng.choice([6, 7, 8, 16], size=num_atoms, p=[0.64, 0.17, 0.18, 0.01])
    features[:, FEATURE_COLUMN["side"]] = np.where(is_ligand, Side.LIGAND, Side.PROTEIN)
    chain = np.stack([np.arange(num_atoms - 1), np.arange(1, num_atoms)])
    ligand_bonds, protein_bonds = chain[:, : len(ligand) - 1], chain[:, len(ligand) :]
    near = near_pairs(protein, settings.near_cutoff, settings.max_neighbors) + len(ligand)
    contacts = contact_pairs(ligand, protein, settings.interaction_cutoff) + np.array([[0], [len(ligand)]])
    return ComplexGraph(
        code=f"drawn{number}",
        smiles="",
        num_ligand_atoms=len(ligand),
        pos=torch.from_numpy(np.concatenate([ligand, protein]).astype(np.float32)),
        features=torch.from_numpy(features),
        fade=torch.ones(num_atoms),
        ligand_bonds=_int16(ligand_bonds),
        ligand_bond_types=torch.full((ligand_bonds.shape[1],), int(BondType.SINGLE), dtype=torch.uint8),
        protein_bonds=_int16(protein_bonds),
        near_pairs=_int16(near),
        contacts=_int16(contacts),
    )


def as_batch(graphs: Sequence[ComplexGraph]) -> Batch:
    """The graphs side by side, their edges of one kind and nothing faded, since PyG knows neither."""
    batch = collate([Example(graph, 6.0) for graph in graphs])
    return replace(
        batch,
        edge_kind=torch.full_like(batch.edge_kind, EdgeKind.CONTACT),
        fade=torch.ones_like(batch.fade),
    )


def make_pair(settings: ModelSettings) -> Pair:
    """PyG's network with random weights, biases included, and ours with the same."""
    torch.manual_seed(1)
    theirs = ViSNetBlock(
        lmax=settings.lmax,
        vecnorm_type=None if settings.vector_norm == "none" else settings.vector_norm,
        trainable_vecnorm=True,
        num_heads=settings.num_heads,
        num_layers=settings.num_layers,
        hidden_channels=settings.hidden_channels,
        num_rbf=settings.num_rbf,
        max_z=NODE_FEATURES["element"],
        cutoff=settings.interaction_cutoff,
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    theirs.distance = GivenEdges()
    ours = ViSNet(settings, corrected=False)
    shared = load_from_pyg(ours, theirs)
    names = {id(parameter): name for name, parameter in ours.named_parameters()}
    return Pair(theirs, ours, [(names[id(parameter)], rows) for parameter, _, rows in shared])


def gradients_like_ours(pair: Pair) -> list[Tensor]:
    """The gradients of PyG's parameters in the layout of `ours`, in the order of `weights`."""
    carrier = deepcopy(pair.theirs)
    with torch.no_grad():
        for own, original in zip(carrier.parameters(), pair.theirs.parameters(), strict=True):
            own.copy_(torch.zeros_like(own) if original.grad is None else original.grad)
    laid_out = deepcopy(pair.ours)
    load_from_pyg(laid_out, carrier)
    return shared_rows(pair, dict(laid_out.named_parameters()))


def shared_rows(pair: Pair, values: dict[str, Tensor]) -> list[Tensor]:
    """What PyG has as well of values that are named like the parameters of `ours`."""
    return [values[name].detach()[rows] for name, rows in pair.weights]


def _chain(count: int, rng: np.random.Generator) -> np.ndarray:
    """Atoms [count, 3] in steps of 1.5 Å, none nearer than 2.2 Å to one that is not its neighbour."""
    pos = np.zeros((1, 3))
    while len(pos) < count:
        step = rng.normal(size=(64, 3)) - 0.1 * (pos[-1] - pos.mean(axis=0))
        places = pos[-1] + 1.5 * step / np.linalg.norm(step, axis=1, keepdims=True)
        free = places[(cdist(places, pos[:-1]) > 2.2).all(axis=1)] if len(pos) > 1 else places
        pos = np.concatenate([pos, free[:1]]) if len(free) else pos[: max(1, len(pos) // 2)]
    return pos - pos.mean(axis=0)


def _surroundings(ligand: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The `count` places [count, 3] of a shaken grid that are nearest to the ligand."""
    spacing = ATOM_DENSITY ** (-1 / 3)
    reach = np.abs(ligand).max() + 12.0
    line = np.arange(-reach, reach, spacing)
    grid = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    grid = grid + rng.uniform(-0.25, 0.25, size=grid.shape) * spacing
    distance = cKDTree(ligand).query(grid)[0]
    usable = distance > CONTACT_DISTANCE
    order = np.argsort(distance[usable])[:count]
    return grid[usable][order]


def _int16(pairs: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pairs, dtype=np.int16))
