"""Heavy atoms of a ligand and of what lies around it -> energy of their contacts, by the short-ranged terms of Vina."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from scipy.spatial.distance import cdist

from src.chemistry.atoms import Atoms
from src.chemistry.residues import METALS, SYMBOLS
from src.graph import FEATURE_COLUMN

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# AutoDock Vina (doi 10.1002/jcc.21334): radii in Å, weights in kcal/mol. Its second, wide Gaussian is left
# out: it is largest near 6.8 Å, where a graph of contacts ends. The other terms end below 6 Å by themselves.
RADIUS = {"C": 1.9, "N": 1.8, "O": 1.7, "F": 1.5, "P": 2.1, "S": 2.0, "Cl": 1.8, "Br": 2.0, "I": 2.2, "ZN": 1.2}
OTHER_RADIUS = 1.9  # Å, of a ligand's or cofactor's atom that Vina does not know
METAL_RADIUS = RADIUS["ZN"]  # as Vina's radius of each metal
GAUSS, REPULSION, HYDROPHOBIC, HBOND = -0.0356, 0.840, -0.0351, -0.587


@dataclass(frozen=True)
class Sites:
    """Heavy atoms as the energy function sees them, n of them."""

    pos: Floats  # [n, 3], Å
    radius: Floats  # [n], Å
    hydrophobic: Flags  # [n]
    donor: Flags  # [n]
    acceptor: Flags  # [n]


def interaction_energy(ligand: Sites, pocket: Sites) -> float:
    """Interaction energy in kcal/mol: the short-ranged terms of AutoDock Vina (doi 10.1002/jcc.21334).

    Sums over all pairs, with their surface distance d = r - R_ligand - R_pocket in Å: gauss exp(-(d / 0.5)²),
    repulsion d² for d < 0, hydrophobic falling from 1 at d = 0.5 to 0 at d = 1.5, and hydrogen bond falling
    from 1 at d = -0.7 to 0 at d = 0, each times its weight. There is no term of the ligand alone.
    """
    d = cdist(ligand.pos, pocket.pos) - (ligand.radius[:, None] + pocket.radius)  # [n, m]
    hydrophobic = ligand.hydrophobic[:, None] & pocket.hydrophobic
    energy = (
        GAUSS * np.exp(-((d / 0.5) ** 2))
        + REPULSION * np.minimum(d, 0) ** 2
        + HYDROPHOBIC * hydrophobic * np.clip(1.5 - d, 0, 1)
        + HBOND * can_bond(ligand, pocket) * np.clip(-d / 0.7, 0, 1)
    )
    return float(energy.sum())


def can_bond(a: Sites, b: Sites) -> Flags:
    """Pairs [n, m] of a hydrogen bond donor and an acceptor."""
    return (a.donor[:, None] & b.acceptor) | (a.acceptor[:, None] & b.donor)


def classify(mol: Chem.Mol) -> tuple[Floats, Flags]:
    """Radii [n] in Å and classes [3, n], in the order of _patterns, of the heavy atoms, which come first."""
    heavy = (atom.GetSymbol() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1)
    radius = np.array([RADIUS.get(symbol, OTHER_RADIUS) for symbol in heavy])
    classes = np.zeros((3, len(radius)), dtype=bool)
    for row, pattern in zip(classes, _patterns(), strict=True):
        row[[match[0] for match in mol.GetSubstructMatches(pattern)]] = True
    return radius, classes


def pocket_sites(atoms: Atoms) -> Sites:
    """Atoms that a structure file gave, with the donors and acceptors that the model sees; metals are donors."""
    column = {name: atoms.features[:, place] for name, place in FEATURE_COLUMN.items()}
    element = column["element"]
    is_metal, is_carbon = np.isin(element, list(METALS)), element == 6
    known = np.array([RADIUS.get(symbol, OTHER_RADIUS) for symbol in SYMBOLS])
    is_polar = np.zeros(len(atoms), dtype=bool)
    for one, other in (atoms.bonds, atoms.bonds[::-1]):
        is_polar[one[~is_carbon[other]]] = True
    return Sites(
        atoms.pos,
        np.where(is_metal, METAL_RADIUS, known[element]),
        (is_carbon & ~is_polar) | np.isin(element, (9, 17, 35, 53)),
        is_metal | (column["donor"] > 0),
        column["acceptor"] > 0,
    )


@cache
def _patterns() -> tuple[Chem.Mol, ...]:
    """SMARTS of hydrophobic atoms, donors and acceptors: Vina's classes, acids being acceptors only."""
    return (
        Chem.MolFromSmarts("[F,Cl,Br,I,$([#6]);!$([#6]~[!#6;!#1])]"),
        Chem.MolFromSmarts("[#7,#8;!H0;!$([OX2H]C=O)]"),
        Chem.MolFromSmarts("[O,$([nX2]),$([NX1]#C),$([NX2]=[C,N]);!$([NX2]=CN)]"),
    )
