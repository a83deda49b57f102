"""A pose and the protein around it -> what a chemist should know before believing its score."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.spatial.distance import cdist

from src.chemistry.atoms import Atoms, ResidueId, clean_name
from src.chemistry.ligands import Ligand
from src.chemistry.proteins import Protein
from src.chemistry.residues import METALS
from src.data_processing import residue_distances
from src.graph import FEATURE_COLUMN, ComplexGraph, Side
from src.settings import GraphSettings
from src.system.terminal import listed

CUT_MARGIN = 0.5  # Å; the outermost residue of a pocket that was cut at a radius lies a little inside it
CLASH_DISTANCE = 2.0  # Å between heavy atoms that are not bonded
METAL_BOND = 2.6  # Å; N, O and S lie 1.9 to 2.5 Å from the metals of proteins, and at least METAL_CLASH
METAL_CLASH = 1.6
COORDINATING = (7, 8, 15, 16, 34)  # elements of a ligand that bind metals; any other so near is a clash

_METAL_TABLE = np.isin(np.arange(256), list(METALS))  # by atomic number


def geometry_warnings(graph: ComplexGraph, settings: GraphSettings) -> Iterable[str]:
    """What a chemist should know about the pose before believing its score."""
    if not graph.contacts.shape[1]:
        yield f"no protein atom within {settings.interaction_cutoff:g} Å: the pK says nothing about this pose"
        return
    if clash := clash_warning(graph):
        yield f"{clash} (a clash or a covalent bond)"


def clash_warning(graph: ComplexGraph) -> str:
    """How near the nearest atoms are, where that is nearer than atoms come that are not bonded; else ''."""
    atom, pocket, distance = _contacts(graph)
    is_bond = _is_metal(graph)[pocket] & _coordinates(graph, atom)
    closest = float(distance.min(initial=np.inf, where=~is_bond))
    return f"ligand and protein atoms are only {closest:.1f} Å apart" if closest < CLASH_DISTANCE else ""


def metal_warnings(graph: ComplexGraph, protein: Atoms, ligand: Ligand) -> Iterable[str]:
    """Which metals of the protein file the ligand is bound to, and whether it is too near.

    Args:
        protein: what lies around the ligand; the graph does not know the names.
    """
    is_metal = _is_metal(graph)
    if not is_metal[graph.num_ligand_atoms :].any():
        return
    atom, pocket, distance = _contacts(graph)
    is_bound = is_metal[pocket] & _coordinates(graph, atom) & (distance < METAL_BOND)
    for metal in np.unique(pocket[is_bound]):
        place = graph.pos[metal].numpy() + ligand.atoms.pos.mean(axis=0)
        residue = protein.residue_index[np.linalg.norm(protein.pos - place, axis=1).argmin()]
        name, closest = _name(protein.residue_ids[residue]), distance[is_bound & (pocket == metal)].min()
        if closest < METAL_CLASH:
            yield f"the ligand is only {closest:.1f} Å from the metal of {name}, nearer than a bond"
        else:
            yield f"bound to {name} ({closest:.1f} Å)"


def foreign_warnings(protein: Atoms, ligand: Ligand) -> Iterable[str]:
    """Which other molecules lie where the ligand does, as a crystal ligand that was left in the file.

    Args:
        protein: what lies around the ligand, without copies of it.
    """
    is_cofactor = protein.features[:, FEATURE_COLUMN["side"]] == Side.COFACTOR
    distance = cdist(protein.pos, ligand.atoms.pos).min(axis=1, initial=np.inf)
    for residue in np.unique(protein.residue_index[is_cofactor & (distance < CLASH_DISTANCE)]):
        name = _name(protein.residue_ids[residue])
        yield f"{name} of the protein file lies in the way: take it out if it is another ligand"


def incomplete_warnings(pocket: Atoms, incomplete: frozenset[ResidueId], ligand_pos: np.ndarray) -> Iterable[str]:
    """Which amino acids around the ligand lack heavy atoms, the nearest first.

    Args:
        incomplete: residues of the whole protein.
        ligand_pos: [m, 3], Å.
    """
    if incomplete.isdisjoint(pocket.residue_ids):
        return
    found = [number for number, residue in enumerate(pocket.residue_ids) if residue in incomplete]
    nearest = sorted(found, key=residue_distances(pocket, ligand_pos).__getitem__)
    count = "1 residue of the pocket lacks" if len(found) == 1 else f"{len(found)} residues of the pocket lack"
    named = listed([_name(pocket.residue_ids[one]) for one in nearest], 3)
    yield f"{count} heavy atoms ({named}): the score misses their contacts"


def pocket_warnings(protein: Protein, ligand: Ligand, settings: GraphSettings) -> Iterable[str]:
    """Whether the protein file may be a pocket that was cut nearer to the ligand than the model looks."""
    if not protein.is_whole:  # something lies farther away
        return
    reach = residue_distances(protein.atoms, ligand.atoms.pos).max()
    if reach < settings.pocket_radius - CUT_MARGIN:
        yield (
            f"the protein file ends {reach:.1f} Å from the ligand and the model looks {settings.pocket_radius:g} Å "
            "far: if this is a pocket that was cut too small, give the whole protein"
        )


def _contacts(graph: ComplexGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ligand atom and pocket atom of each contact, and their distance, Å; all [C]."""
    ligand, pocket = graph.contacts.long().numpy()
    pos = graph.pos.numpy()
    return ligand, pocket, np.linalg.norm(pos[ligand] - pos[pocket], axis=1)


def _is_metal(graph: ComplexGraph) -> np.ndarray:
    """[atoms] bool."""
    return _METAL_TABLE[graph.features[:, FEATURE_COLUMN["element"]].numpy()]


def _coordinates(graph: ComplexGraph, atom: np.ndarray) -> np.ndarray:
    """Whether these atoms can bind a metal, bool as atom."""
    return np.isin(graph.features[:, FEATURE_COLUMN["element"]].numpy()[atom], COORDINATING)


def _name(residue: ResidueId) -> str:
    """Such as ASP A 189."""
    return clean_name(f"{residue.name} {residue.chain} {residue.number}{residue.insertion}")
