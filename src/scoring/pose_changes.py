"""A pose -> the same pose turned, shifted, reordered, pulled out or damaged: what a score must not, or must, notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from src.chemistry.atoms import Atoms, take
from src.chemistry.ligands import Ligand
from src.chemistry.proteins import Protein
from src.data_processing import pocket_atoms, residue_distances
from src.graph import FEATURE_COLUMN
from src.settings import GraphSettings

NEARBY = 0.5  # Å; an atom is moved no farther to bring a pair to its cutoff
REACH = 4.0  # Å; nor a residue to bring it to the pocket radius


@dataclass(frozen=True)
class Complex:
    """A pose and its protein as they are read."""

    ligand: Ligand
    protein: Protein


Crossing = Callable[[float], Complex]  # Å beyond a cutoff -> the pose there; below 0 it is inside


def turned(pose: Complex, rotation: Rotation) -> Complex:
    """Turned about the ligand's centre."""
    centre = pose.ligand.atoms.pos.mean(axis=0)
    return _each(pose, lambda atoms: replace(atoms, pos=rotation.apply(atoms.pos - centre) + centre))


def shifted(pose: Complex, shift: np.ndarray) -> Complex:
    """Ligand and protein together, Å."""
    return _each(pose, lambda atoms: replace(atoms, pos=atoms.pos + shift))


def reordered(pose: Complex, rng: np.random.Generator) -> Complex:
    """Ligand atoms, residues, and the atoms within each residue in another order."""
    return _each(pose, lambda atoms: _shuffled(atoms, rng))


def with_ligand_moved(pose: Complex, shift: np.ndarray) -> Complex:
    """The ligand alone, Å."""
    atoms = pose.ligand.atoms
    return replace(pose, ligand=replace(pose.ligand, atoms=replace(atoms, pos=atoms.pos + shift)))


def pulled_out(pose: Complex, distance: float) -> Complex:
    """The ligand moved along the way out until its nearest protein atom is `distance` (Å) away."""
    ligand, protein = pose.ligand.atoms.pos, pose.protein.atoms.pos
    way = ligand.mean(axis=0) - protein.mean(axis=0)
    way = way / np.linalg.norm(way) if np.linalg.norm(way) > 1e-6 else np.array([1.0, 0.0, 0.0])
    tree = cKDTree(protein)

    def excess(way_out: float) -> float:
        return float(tree.query(ligand + way_out * way)[0].min()) - distance

    step = 0.25  # Å; from outside, so that no protein atom lies farther out on the way
    outside = np.linalg.norm(np.ptp(np.concatenate([ligand, protein]), axis=0)) + distance + 1.0
    while excess(outside - step) > 0:
        outside -= step
    return with_ligand_moved(pose, brentq(excess, outside - step, outside) * way)


def odd_poses(pose: Complex) -> dict[str, Complex]:
    """Poses that no chemist would dock and every program is given one day."""
    ligand, protein = pose.ligand.atoms, pose.protein.atoms
    first, second = np.unravel_index(cdist(ligand.pos, protein.pos).argmin(), (len(ligand), len(protein)))
    # On one spot but for 0.1 Å along x.
    onto = protein.pos[second] - ligand.pos[first] + np.array([0.1, 0.0, 0.0])
    alone = replace(pose.ligand, atoms=take(ligand, np.arange(len(ligand)) == first), smiles="")
    nothing = replace(pose.protein, atoms=take(protein, np.zeros(len(protein), dtype=bool)))
    return {
        "a ligand of one atom": replace(pose, ligand=alone),
        "an unknown element": _each(pose, lambda atoms: _with_unknown(atoms, first if atoms is ligand else second)),
        "atoms 0.1 Å apart": with_ligand_moved(pose, onto),
        "no contacts": with_ligand_moved(pose, np.array([1000.0, 0.0, 0.0])),
        "no protein atoms": replace(pose, protein=nothing),
    }


def contact_crossings(pose: Complex, settings: GraphSettings, count: int) -> list[Crossing]:
    """The ligand moved so that one of its atoms comes to the contact cutoff of a protein atom."""
    ligand, protein = pose.ligand.atoms.pos, pocket_atoms(pose.ligand, pose.protein, settings).pos
    distance = cdist(ligand, protein)
    crossings = []
    for i, j in _nearest_to(distance, settings.interaction_cutoff, count):
        way = (ligand[i] - protein[j]) / distance[i, j]
        start = settings.interaction_cutoff - distance[i, j]
        crossings.append(lambda t, way=way, start=start: with_ligand_moved(pose, (start + t) * way))
    return crossings


def near_crossings(pose: Complex, settings: GraphSettings, count: int) -> list[Crossing]:
    """One protein atom that touches the ligand moved to the near cutoff of another."""
    pocket = pocket_atoms(pose.ligand, pose.protein, settings)
    touching = cdist(pocket.pos, pose.ligand.atoms.pos).min(axis=1) < settings.interaction_cutoff - 1.0
    distance = cdist(pocket.pos, pocket.pos)
    distance[~touching] = np.inf
    crossings = []
    for i, j in _nearest_to(distance, settings.near_cutoff, count):
        way = (pocket.pos[i] - pocket.pos[j]) / distance[i, j]
        start = settings.near_cutoff - distance[i, j]

        def at(t: float, i: int = i, way: np.ndarray = way, start: float = start) -> Complex:
            pos = pocket.pos.copy()
            pos[i] += (start + t) * way
            return _with_protein_at(pose, pocket, pos)

        crossings.append(at)
    return crossings


def pocket_crossings(pose: Complex, settings: GraphSettings, count: int) -> list[Crossing]:
    """One residue moved to the pocket radius, where it leaves the graph."""
    ligand, protein = pose.ligand.atoms.pos, pose.protein.atoms
    ligand_tree = cKDTree(ligand)
    distance, partner = ligand_tree.query(protein.pos)
    crossings = []
    for residue in np.argsort(np.abs(residue_distances(protein, ligand) - settings.pocket_radius), kind="stable"):
        members = np.flatnonzero(protein.residue_index == residue)
        j = members[distance[members].argmin()]
        way = (protein.pos[j] - ligand[partner[j]]) / distance[j]

        def at(t: float, members: np.ndarray = members, way: np.ndarray = way) -> np.ndarray:
            pos = protein.pos.copy()
            pos[members] += t * way
            return pos

        def beyond(t: float, members: np.ndarray = members, at: Callable = at) -> float:
            return float(ligand_tree.query(at(t)[members])[0].min()) - settings.pocket_radius

        if len(crossings) == count or not beyond(-REACH) < 0 < beyond(REACH):
            break
        start = brentq(beyond, -REACH, REACH, xtol=1e-9)
        crossings.append(lambda t, at=at, start=start: _with_protein_at(pose, protein, at(start + t)))
    return crossings


def _nearest_to(distance: np.ndarray, cutoff: float, count: int) -> list[tuple[int, int]]:
    """At most `count` places [i, j] whose distances are nearest to the cutoff, and within NEARBY of it."""
    away = np.abs(distance - cutoff)
    order = np.argsort(away, axis=None, kind="stable")[:count]
    places = np.stack(np.unravel_index(order, distance.shape), axis=1)
    return [(int(i), int(j)) for i, j in places if away[i, j] < NEARBY]


def _with_protein_at(pose: Complex, atoms: Atoms, pos: np.ndarray) -> Complex:
    return replace(pose, protein=replace(pose.protein, atoms=replace(atoms, pos=pos)))


def _each(pose: Complex, change: Callable[[Atoms], Atoms]) -> Complex:
    ligand, protein = pose.ligand, pose.protein
    return Complex(
        replace(ligand, atoms=change(ligand.atoms)),
        replace(protein, atoms=change(protein.atoms)) if len(protein.atoms) else protein,
    )


def _with_unknown(atoms: Atoms, place: int) -> Atoms:
    features = atoms.features.copy()
    features[place, FEATURE_COLUMN["element"]] = 0
    return replace(atoms, features=features)


def _shuffled(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    residues = rng.permutation(len(atoms.residue_labels))
    order = np.concatenate([rng.permutation(np.flatnonzero(atoms.residue_index == residue)) for residue in residues])
    new_place = np.argsort(order)
    bonds = np.sort(new_place[atoms.bonds], axis=0).astype(atoms.bonds.dtype)
    by_place = np.lexsort((bonds[1], bonds[0]))
    new_residue = np.argsort(residues)
    return Atoms(
        pos=atoms.pos[order],
        features=atoms.features[order],
        residue_index=new_residue[atoms.residue_index[order]].astype(atoms.residue_index.dtype),
        residue_labels=tuple(atoms.residue_labels[residue] for residue in residues),
        atom_names=tuple(atoms.atom_names[place] for place in order),
        bonds=bonds[:, by_place],
        bond_types=atoms.bond_types[by_place],
        residue_ids=tuple(atoms.residue_ids[residue] for residue in residues) if atoms.residue_ids else (),
    )
