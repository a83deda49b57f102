"""Benzamidine as a crystal ligand, in a pocket of a few atoms: small enough to know where an analogue must lie."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMolecule

from src.chemistry.analogue_poses import Template
from src.chemistry.contact_energy import Sites
from tests.complexes import pdb_text

BENZAMIDINE = "NC(=N)c1ccccc1"  # atom 6 is para to the amidine, atoms 5 and 7 are meta


def ligand(smiles: str = BENZAMIDINE, name: str = "benzamidine") -> Chem.Mol:
    """Heavy atoms with one conformer around the origin."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert EmbedMolecule(mol, randomSeed=1) == 0
    mol = Chem.RemoveHs(mol)
    mol.GetConformer().SetPositions(mol.GetConformer().GetPositions() - mol.GetConformer().GetPositions().mean(axis=0))
    mol.SetProp("_Name", name)
    return mol


def carbons(*points: np.ndarray) -> Sites:
    """A pocket of hydrophobic carbons."""
    pos, no = np.array(points, dtype=float).reshape(-1, 3), np.zeros(len(points), dtype=bool)
    return Sites(pos, np.full(len(pos), 1.9), ~no, no, no)


def beyond(mol: Chem.Mol, atom: int, distance: float) -> np.ndarray:
    """The point at this distance, Å, outside of an atom of a molecule around the origin."""
    pos = mol.GetConformer().GetAtomPosition(atom)
    return np.array(pos) * (1 + distance / pos.Length())


def template(smiles: str = BENZAMIDINE, name: str = "benzamidine", pocket: Sites | None = None) -> Template:
    mol = ligand(smiles, name)
    return Template(name, mol, carbons([30.0, 0.0, 0.0]) if pocket is None else pocket)


def glycines(*points: np.ndarray) -> str:
    """A PDB file with the CA of a glycine at each point, and its other atoms farther out."""
    residues = []
    for number, point in enumerate(map(np.asarray, points), start=1):
        out = point / np.linalg.norm(point)
        side = np.cross(out, [0.0, 0.6, 0.8])
        side /= np.linalg.norm(side)
        places = {"N": out * 1.2 + side * 0.8, "CA": 0 * out, "C": out * 1.2 - side * 0.9, "O": out * 2.4 - side * 0.9}
        atoms = [(name, name[0], *(point + at)) for name, at in places.items()]
        residues.append(("GLY", "A", 10 * number, atoms))
    return pdb_text(residues)
