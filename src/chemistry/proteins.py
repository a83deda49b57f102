"""Protein files (PDB and mmCIF, plain or gzip) -> Atoms.

What is kept of a file:
- The first model that has atoms, and the models that lie elsewhere, as those of a biological assembly do. Atoms
  after END, TER or CONECT belong to a model too.
- Heavy atoms only. An element that nobody knows becomes 0.
- One conformer per residue: the altloc letter with the highest summed occupancy (blank counts 1), the
  alphabetically first when equal; atoms without a letter always. Two polymer residues at one number are
  alternatives when they overlap in space or their atoms carry other letters (the first is kept); otherwise (two
  chains with one letter or none, an ion and a water, waters after number 9999) both stay.
- Residues that differ in insertion code are different residues. An atom that occurs twice in a residue counts
  once.
- Atoms are sorted by chain, residue number, insertion code, residue name and atom name, so whole protein,
  pocket file, PDB and mmCIF of one entry give the same arrays.

Bonds: by name inside a residue; C-N (peptide) between any two residues below LINK_DISTANCE, and between
neighbours by number below BOND_CUTOFF; SG-SG (disulfide) below BOND_CUTOFF. None is longer than
BOND_CUTOFF. A bond depends on its two residues alone, so a pocket has the bonds of its protein.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from src.chemistry.atoms import Atoms, ResidueId, StructureError, clean_name, read_bytes, sorted_bonds, take
from src.chemistry.conformers import refuse_crowd, resolve_residues
from src.chemistry.mmcif_records import is_mmcif, mmcif_records
from src.chemistry.pdb_records import Record, is_near, pdb_records
from src.chemistry.residues import atom_features, classify, lacks_heavy_atoms, residue_bonds
from src.graph import BOND_CUTOFF, FEATURE_COLUMN, NODE_FEATURES, RESIDUE_TYPES, BondType, Side

DEFAULT_RADIUS = 8.0  # Å
COPY_DISTANCE = 0.5  # Å; two determinations of one atom agree better than this
LINK_DISTANCE = 2.0  # Å; C and N of residues that are not neighbours come to 2.8 Å in tight turns
CONFORMER_DISTANCE = 1.5  # Å; between two molecules only when they stand for the same one


@dataclass(frozen=True)
class Protein:
    """The heavy atoms of a protein file, or of the part that was asked for, and what was decided."""

    atoms: Atoms
    notes: tuple[str, ...]
    is_whole: bool = True  # nothing was farther than the radius that was asked for


def read_protein(path: Path, *, near: np.ndarray | None = None, radius: float = DEFAULT_RADIUS) -> Protein:
    """Read a .pdb, .ent, .cif or .mmcif file, plain or gzip; the content decides which, not the ending.

    Args:
        near: [m, 3] points in Å; only whole residues with a heavy atom within radius of a point are returned.
            None returns everything. Reading near a ligand skips the parsing of all far residues.
        radius: Å.

    Returns:
        The atoms in canonical order; there are none when the protein is farther than radius from every point.

    Raises:
        StructureError: the file is missing, not a structure, damaged, or has no polymer atoms.
    """
    path = Path(path)
    data = read_bytes(path)
    tree = None if near is None else cKDTree(np.asarray(near, dtype=np.float64).reshape(-1, 3))
    notes: list[str] = []
    try:
        if is_mmcif(data):
            records, is_whole = mmcif_records(data, notes), True
        else:
            records, is_whole = pdb_records(data, tree, radius, notes)
        whole = _assemble(records, notes)
        atoms = _near(whole, tree, radius)
        if unknown := int((atoms.features[:, FEATURE_COLUMN["element"]] == 0).sum()):
            notes.append(f"{unknown} atoms of unknown element")
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error
    except MemoryError:
        raise  # the machine's fault and not the file's
    except Exception as error:  # Biopython raises KeyError, IndexError, ValueError, ... for damaged text
        raise StructureError(f"{path}: cannot be parsed: {type(error).__name__}: {clean_name(str(error))}") from error
    return Protein(atoms, tuple(notes), is_whole and len(atoms) == len(whole))


def drop_ligand_copy(protein: Atoms, ligand: Atoms) -> tuple[Atoms, list[str]]:
    """Remove the residues of a protein file that are the ligand itself, which would tell the model its pose.

    A residue (water excepted) is a copy when at least half of its atoms lie within COPY_DISTANCE of a
    ligand atom of the same element, or when it is no amino acid or nucleotide, has the ligand's element
    composition and comes nearer to it than CONFORMER_DISTANCE (another conformer of it).

    Returns:
        The protein without the copies, and their labels.
    """
    if not len(protein) or not len(ligand):
        return protein, []
    element, side = FEATURE_COLUMN["element"], FEATURE_COLUMN["side"]
    touching = cKDTree(ligand.pos).query(protein.pos, distance_upper_bound=CONFORMER_DISTANCE)[0] < CONFORMER_DISTANCE
    suspects = np.unique(protein.residue_index[touching & (protein.features[:, side] != Side.WATER)])
    copies = []
    for residue in suspects:
        members = np.flatnonzero(protein.residue_index == residue)
        kinds = protein.features[members, element]
        distance = np.linalg.norm(protein.pos[members, None] - ligand.pos[None], axis=2)
        same = (distance < COPY_DISTANCE) & (kinds[:, None] == ligand.features[None, :, element])
        composition = np.array_equal(np.sort(kinds), np.sort(ligand.features[:, element]))
        hetero = protein.features[members[0], side] == Side.COFACTOR
        if 2 * same.any(axis=1).sum() >= len(members) or (hetero and composition):
            copies.append(residue)
    kept = take(protein, ~np.isin(protein.residue_index, copies)) if copies else protein
    return kept, [protein.residue_labels[residue] for residue in copies]


def without_copies(protein: Protein, ligands: Sequence[Atoms]) -> Protein:
    """The protein without the residues that are one of these ligands, with a note on them."""
    for ligand in ligands:
        atoms, copies = drop_ligand_copy(protein.atoms, ligand)
        protein = replace(protein, atoms=atoms, notes=(*protein.notes, *copy_notes(copies)))
    return protein


def copy_notes(labels: Sequence[str]) -> tuple[str, ...]:
    """What is said of the residues that drop_ligand_copy removed; one sentence, for a peptide has many."""
    if len(labels) < 2:
        return tuple(f"{label} of the protein file lies where the ligand is and was left out" for label in labels)
    named = ", ".join([*labels[:3], *(["..."] if len(labels) > 3 else [])])
    return (f"{len(labels)} residues of the protein file ({named}) lie where the ligand is and were left out",)


def incomplete_residues(atoms: Atoms) -> frozenset[ResidueId]:
    """The amino acids of a protein that lack heavy atoms, which a crystal did not show or a program cut off."""
    starts = np.searchsorted(atoms.residue_index, np.arange(len(atoms.residue_ids) + 1)).tolist()
    spans = zip(atoms.residue_ids, starts[:-1], starts[1:], strict=True)
    return frozenset(one for one, begin, end in spans if lacks_heavy_atoms(one.name, atoms.atom_names[begin:end]))


def _near(whole: Atoms, tree: cKDTree | None, radius: float) -> Atoms:
    """Whole residues with an atom within radius of the tree, or everything."""
    if tree is None or not len(whole):
        return whole
    return take(whole, np.isin(whole.residue_index, whole.residue_index[is_near(whole.pos, tree, radius)]))


def _assemble(records: Sequence[Record], notes: list[str]) -> Atoms:
    pos: list[tuple[float, float, float]] = []
    features: list[tuple[int, ...]] = []
    names: list[str] = []
    index: list[int] = []
    labels: list[str] = []
    residue_ids: list[ResidueId] = []
    bonds: list[tuple[int, int, int]] = []
    links: dict[str, list[int]] = {"C": [], "N": [], "SG": []}  # atoms that may be bonded to another residue
    for known, atom_names, atoms in resolve_residues((record for record in records if record.element != 1), notes):
        first = atoms[0]
        side, residue_type = classify(known, {name: a.element for name, a in zip(atom_names, atoms, strict=True)})
        number_of = {name: number for number, name in enumerate(atom_names, start=len(names))}
        for one, other, kind in residue_bonds(known, side):
            if one in number_of and other in number_of:
                bonds.append((number_of[one], number_of[other], kind))
        if side == Side.PROTEIN and RESIDUE_TYPES[residue_type] != "nucleotide":
            for name in links.keys() & number_of.keys():
                links[name].append(number_of[name])
        features += [
            atom_features(known, name, atom.element, side, residue_type)
            for name, atom in zip(atom_names, atoms, strict=True)
        ]
        pos += [atom.pos for atom in atoms]
        names += [clean_name(atom.name) for atom in atoms]
        index += [len(labels)] * len(atoms)
        residue_ids.append(ResidueId(first.chain, first.residue, first.number, first.insertion))
        labels.append(clean_name(f"{first.chain}:{first.residue}{first.number}{first.insertion}"))
    xyz = np.array(pos, dtype=np.float64).reshape(-1, 3)
    refuse_crowd(xyz)
    residue_index = np.array(index, dtype=np.int32)
    bonds += _links(links["C"], links["N"], xyz, residue_index, residue_ids)
    bonds += _links(links["SG"], links["SG"], xyz, residue_index, residue_ids)
    pairs, kinds = sorted_bonds(bonds)
    short = np.linalg.norm(xyz[pairs[0]] - xyz[pairs[1]], axis=1) < BOND_CUTOFF
    rows = np.array(features, dtype=np.uint8).reshape(-1, len(NODE_FEATURES))
    return Atoms(
        xyz, rows, residue_index, tuple(labels), tuple(names), pairs[:, short], kinds[short], tuple(residue_ids)
    )


def _links(
    firsts: list[int], seconds: list[int], pos: np.ndarray, residue: np.ndarray, residue_ids: list[ResidueId]
) -> list[tuple[int, int, int]]:
    """Single bonds between atoms of different residues."""
    if not firsts or not seconds:
        return []
    near = cKDTree(pos[firsts]).query_ball_tree(cKDTree(pos[seconds]), BOND_CUTOFF)
    bonds = []
    for i, j in ((firsts[one], seconds[other]) for one, found in enumerate(near) for other in found):
        one_id, other_id = residue_ids[residue[i]], residue_ids[residue[j]]
        adjacent = one_id.chain == other_id.chain and abs(one_id.number - other_id.number) <= 1
        stretched = math.dist(pos[i], pos[j]) >= LINK_DISTANCE
        if residue[i] != residue[j] and (adjacent or not stretched or firsts is seconds):
            bonds.append((i, j, BondType.SINGLE))
    return bonds
