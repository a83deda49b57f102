"""Atoms of a ligand and a protein -> protein, ligand and interaction graph: THE definition of a model input."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from scipy.spatial import cKDTree

from src import __version__
from src.chemistry.atoms import Atoms, take
from src.chemistry.ligands import Ligand
from src.chemistry.proteins import Protein, copy_notes, drop_ligand_copy
from src.graph import FEATURE_COLUMN, ComplexGraph, Side
from src.settings import GraphSettings, as_dict
from src.system.errors import UserError

# Change this string in the commit that changes any tensor of a graph: old caches and checkpoints then say so.
DATA_PROCESSING_VERSION = "1.2"
# Version of the graphs -> release of the program that builds them.
RELEASES = {"1.0": "0.1.0", "1.1": "0.2.0", "1.2": "0.3.0"}

MAX_ATOMS = 32_767  # atoms are numbered in int16
LEAST_DISTANCE = 0.4  # Å between heavy atoms of a ligand; the shortest bonds have 1.1 Å
# Å; a protein may have an atom twice, as alternative conformers without letters are, but not three times.
ONE_POINT = 0.1


class GraphError(UserError):
    """A complex was read but has no usable graph."""


def other_version_text(version: str) -> str:
    """What is said of a checkpoint whose graphs are of another version."""
    release = f"release {RELEASES[version]} of the program, see CHANGELOG.md" if version in RELEASES else "its program"
    return (
        f"trained on graphs of version {version}; this program ({__version__}) builds version "
        f"{DATA_PROCESSING_VERSION}. Use {release}, or train again"
    )


def graph_fingerprint(settings: GraphSettings) -> str:
    """Eight hexadecimal digits that change with the data processing version and with every graph setting."""
    text = json.dumps([DATA_PROCESSING_VERSION, as_dict(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def build_graph(
    code: str, ligand: Ligand, protein: Protein, settings: GraphSettings
) -> tuple[ComplexGraph, tuple[str, ...]]:
    """The graph of one complex, for training and for prediction alike.

    Whole residues with a heavy atom nearer than pocket_radius to a ligand atom form the pocket. A residue's
    atoms carry a fade: 1 while its nearest atom is within interaction_cutoff, then a half cosine down to 0 at
    pocket_radius, so that a residue enters the graph without a jump in what the model computes.

    Returns:
        The graph, which has no contacts when the ligand is far from the protein, and notes for the user.

    Raises:
        GraphError: when the complex has more atoms than a graph can number, or atoms that lie on one point.
    """
    pocket, residue_distance, copies = _pocket(ligand, protein, settings)
    num_ligand = len(ligand.atoms.pos)
    num_atoms = num_ligand + len(pocket.pos)
    if num_atoms > MAX_ATOMS:
        raise GraphError(f"{num_atoms} atoms in ligand and pocket; a graph holds at most {MAX_ATOMS}")
    _require_apart(ligand.atoms, pocket)

    centroid = ligand.atoms.pos.mean(axis=0)
    pos = np.concatenate([ligand.atoms.pos, pocket.pos]) - centroid
    fade = np.ones(num_atoms, dtype=np.float32)
    fade[num_ligand:] = _fade(residue_distance, settings)[pocket.residue_index]
    graph = ComplexGraph(
        code=code,
        smiles=ligand.smiles,
        num_ligand_atoms=num_ligand,
        pos=torch.from_numpy(pos.astype(np.float32)),
        features=torch.from_numpy(np.concatenate([ligand.atoms.features, pocket.features])),
        fade=torch.from_numpy(fade),
        ligand_bonds=_pairs(ligand.atoms.bonds),
        ligand_bond_types=torch.from_numpy(ligand.atoms.bond_types.astype(np.uint8)),
        protein_bonds=_pairs(pocket.bonds + num_ligand),
        near_pairs=_pairs(near_pairs(pocket.pos, settings.near_cutoff, settings.max_neighbors) + num_ligand),
        contacts=_pairs(
            contact_pairs(ligand.atoms.pos, pocket.pos, settings.interaction_cutoff) + np.array([[0], [num_ligand]])
        ),
    )
    return graph, (*ligand.notes, *protein.notes, *copy_notes(copies))


def pocket_atoms(ligand: Ligand, protein: Protein, settings: GraphSettings) -> Atoms:
    """The pocket of `build_graph` with its names: atom i is atom num_ligand_atoms + i of the graph."""
    return _pocket(ligand, protein, settings)[0]


class Receptor:
    """A protein that many poses are scored in; what lies around a pose is cut out without a look at all atoms."""

    def __init__(self, protein: Protein):
        self.protein = protein
        self._tree = cKDTree(protein.atoms.pos)

    def around(self, ligand_pos: np.ndarray, radius: float) -> Protein:
        """The whole residues within radius, Å, of a ligand atom: build_graph makes the same graph of them."""
        atoms = self.protein.atoms
        centre = ligand_pos.mean(axis=0)
        reach = radius + np.linalg.norm(ligand_pos - centre, axis=1).max()
        # A little more than radius, so that rounding leaves out no residue that build_graph would take.
        candidates = np.array(self._tree.query_ball_point(centre, reach + 1e-3), dtype=int)
        distance = cKDTree(ligand_pos).query(atoms.pos[candidates])[0] if len(candidates) else np.zeros(0)
        kept = np.zeros(len(atoms.residue_labels), dtype=bool)
        kept[atoms.residue_index[candidates[distance <= radius + 1e-3]]] = True
        if kept.all():
            return self.protein
        return Protein(take(atoms, kept[atoms.residue_index]), self.protein.notes, is_whole=False)


def near_pairs(pos: np.ndarray, cutoff: float, max_neighbors: int) -> np.ndarray:
    """Pairs i < j with a distance of at most cutoff, sorted; shape [2, Q].

    A pair stays when either atom counts the other among its max_neighbors nearest. The limit guards against
    broken structures; at the default cutoff no atom of a protein reaches it.
    """
    if len(pos) < 2:
        return np.zeros((2, 0), dtype=np.int64)
    pairs = cKDTree(pos).query_pairs(cutoff, output_type="ndarray").astype(np.int64)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T
    if pairs.size and np.bincount(pairs.ravel()).max() > max_neighbors:
        pairs = pairs[:, _among_nearest(pos, pairs, max_neighbors)]
    return pairs


def contact_pairs(ligand_pos: np.ndarray, pocket_pos: np.ndarray, cutoff: float) -> np.ndarray:
    """Every (ligand atom, pocket atom) with a distance of at most cutoff, sorted; shape [2, C]."""
    distance = np.linalg.norm(ligand_pos[:, None, :] - pocket_pos[None, :, :], axis=2)
    return np.stack(np.nonzero(distance <= cutoff))


def residue_distances(atoms: Atoms, ligand_pos: np.ndarray) -> np.ndarray:
    """[residues], Å: from the nearest atom of each residue to the nearest ligand atom."""
    distance = np.full(len(atoms.residue_labels), np.inf)
    if len(atoms.pos):
        np.minimum.at(distance, atoms.residue_index, cKDTree(ligand_pos).query(atoms.pos)[0])
    return distance


def _pocket(ligand: Ligand, protein: Protein, settings: GraphSettings) -> tuple[Atoms, np.ndarray, list[str]]:
    """The pocket, how far each of its residues is from the ligand, Å, and the labels of copies of the ligand."""
    atoms, copies = drop_ligand_copy(protein.atoms, ligand.atoms)
    atoms = _drop_sides(atoms, settings)
    return *_cut_pocket(atoms, ligand.atoms.pos, settings.pocket_radius), copies


def _require_apart(ligand: Atoms, pocket: Atoms) -> None:
    """Refuse atoms without a place of their own, as failed conversions and editors leave them."""
    pairs = cKDTree(ligand.pos).query_pairs(LEAST_DISTANCE, output_type="ndarray")
    if len(pairs):
        distance = np.linalg.norm(ligand.pos[pairs[:, 0]] - ligand.pos[pairs[:, 1]], axis=1)
        one, other = (ligand.atom_names[number] for number in pairs[distance.argmin()])
        raise GraphError(
            f"{len(np.unique(pairs))} heavy atoms of the ligand lie on others ({one} and {other} are "
            f"{distance.min():.2f} Å apart); expected a place of its own for each"
        )
    if len(pocket.pos) < 3:
        return
    pairs = cKDTree(pocket.pos).query_pairs(ONE_POINT, output_type="ndarray")
    pairs = pairs[pocket.residue_index[pairs[:, 0]] == pocket.residue_index[pairs[:, 1]]]  # an ion may lie on an axis
    others = np.bincount(pairs.ravel(), minlength=1)
    if others.max() > 1:
        label = pocket.residue_labels[pocket.residue_index[others.argmax()]]
        raise GraphError(f"{others.max() + 1} atoms of {label} lie on one point; expected a place of its own for each")


def _drop_sides(atoms: Atoms, settings: GraphSettings) -> Atoms:
    kept = {Side.WATER: settings.keep_waters, Side.ION: settings.keep_ions, Side.COFACTOR: settings.keep_cofactors}
    dropped = [side for side, keep in kept.items() if not keep]
    return take(atoms, ~np.isin(atoms.features[:, FEATURE_COLUMN["side"]], dropped))


def _cut_pocket(atoms: Atoms, ligand_pos: np.ndarray, radius: float) -> tuple[Atoms, np.ndarray]:
    """Residues nearer than radius, and the distance of each kept residue to the ligand, [residues], Å."""
    distance = residue_distances(atoms, ligand_pos)
    near = distance < radius
    return take(atoms, near[atoms.residue_index]), distance[near]


def _fade(residue_distance: np.ndarray, settings: GraphSettings) -> np.ndarray:
    width = settings.pocket_radius - settings.interaction_cutoff
    way_out = np.clip((residue_distance - settings.interaction_cutoff) / width, 0.0, 1.0)
    return 0.5 * (1.0 + np.cos(np.pi * way_out))


def _among_nearest(pos: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    """Which pairs are among the count nearest of at least one of their atoms, [Q] bool."""
    num_pairs = pairs.shape[1]
    distance = np.tile(np.linalg.norm(pos[pairs[0]] - pos[pairs[1]], axis=1), 2)
    owner = pairs.ravel()
    order = np.lexsort((distance, owner))
    first = np.searchsorted(owner[order], np.arange(len(pos)))
    rank = np.empty(2 * num_pairs, dtype=np.int64)
    rank[order] = np.arange(2 * num_pairs) - first[owner[order]]
    near = rank < count
    return near[:num_pairs] | near[num_pairs:]


def _pairs(pairs: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pairs, dtype=np.int16))
