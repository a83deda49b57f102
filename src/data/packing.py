"""Graphs <-> the few long arrays of a shard: about 18 kB for a complex instead of a file of many small tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from src.graph import ComplexGraph

# Arrays of one graph; in a shard those of all graphs are concatenated along the first axis.
# A pair list is stored as the second atom of each pair and, for each first atom, its number of pairs.
ARRAYS = (
    "pos",
    "features",
    "fade",
    "ligand_bonds",
    "ligand_bond_types",
    "protein_bonds",
    "near_counts",
    "near_second",
    "contact_counts",
    "contact_second",
)


@dataclass(frozen=True)
class PackedGraph:
    """One graph as plain arrays: so it travels between processes, where tensors would use shared memory."""

    code: str
    smiles: str
    num_ligand_atoms: int
    arrays: dict[str, np.ndarray]  # ARRAYS


def pack(graph: ComplexGraph) -> PackedGraph:
    near, contacts = graph.near_pairs.numpy(), graph.contacts.numpy()
    arrays = {
        "pos": graph.pos.numpy(),
        "features": graph.features.numpy(),
        "fade": graph.fade.numpy(),
        "ligand_bonds": graph.ligand_bonds.numpy().T,
        "ligand_bond_types": graph.ligand_bond_types.numpy(),
        "protein_bonds": graph.protein_bonds.numpy().T,
        "near_counts": np.bincount(near[0], minlength=graph.num_atoms).astype(np.int16),
        "near_second": near[1],
        "contact_counts": np.bincount(contacts[0], minlength=graph.num_ligand_atoms).astype(np.int16),
        "contact_second": contacts[1],
    }
    return PackedGraph(graph.code, graph.smiles, graph.num_ligand_atoms, arrays)


def join(graphs: Sequence[PackedGraph]) -> dict:
    """One shard, ready to be written: lists of texts, and tensors."""
    shard: dict = {
        "codes": [graph.code for graph in graphs],
        "smiles": [graph.smiles for graph in graphs],
        "num_ligand_atoms": torch.tensor([graph.num_ligand_atoms for graph in graphs], dtype=torch.int32),
        "lengths": torch.tensor(
            [[len(graph.arrays[name]) for name in ARRAYS] for graph in graphs], dtype=torch.int32
        ),  # [graphs, arrays]
    }
    for name in ARRAYS:
        shard[name] = torch.from_numpy(np.concatenate([graph.arrays[name] for graph in graphs]))
    return shard


def unpack(shard: dict) -> Iterator[ComplexGraph]:
    """The graphs of a shard, in the order they were joined in; their tensors are views of the shard's.

    Raises:
        KeyError, RuntimeError: the dictionary is no shard.
    """
    lengths = dict(zip(ARRAYS, shard["lengths"].T.tolist(), strict=True))
    parts = {name: shard[name].split(lengths[name]) for name in ARRAYS}
    near, contacts = (_pair_lists(shard, lengths, name) for name in ("near", "contact"))
    num_ligand_atoms = shard["num_ligand_atoms"].tolist()
    for row, (code, smiles) in enumerate(zip(shard["codes"], shard["smiles"], strict=True)):
        yield ComplexGraph(
            code=code,
            smiles=smiles,
            num_ligand_atoms=num_ligand_atoms[row],
            pos=parts["pos"][row],
            features=parts["features"][row],
            fade=parts["fade"][row],
            ligand_bonds=parts["ligand_bonds"][row].T,
            ligand_bond_types=parts["ligand_bond_types"][row],
            protein_bonds=parts["protein_bonds"][row].T,
            near_pairs=near[row],
            contacts=contacts[row],
        )


def _pair_lists(shard: dict, lengths: dict[str, list[int]], name: str) -> tuple[torch.Tensor, ...]:
    """The pairs [2, n] of every graph, found for all at once: one by one they took half the time of reading."""
    num_firsts = torch.tensor(lengths[f"{name}_counts"])
    before = torch.repeat_interleave(num_firsts.cumsum(0) - num_firsts, num_firsts)
    atoms = (torch.arange(len(before)) - before).to(torch.int16)  # numbers within each graph
    first = torch.repeat_interleave(atoms, shard[f"{name}_counts"].long())
    return torch.stack([first, shard[f"{name}_second"]]).split(lengths[f"{name}_second"], 1)
