"""Coordinates of a molecule -> what its lengths and angles say of bonds that are drawn single.

Lengths: Allen et al., J. Chem. Soc. Perkin Trans. 2, 1987, S1 (doi 10.1039/P298700000S1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from src.chemistry.double_bonds import Pair

FLAT = 0.1  # Å of an atom from the plane of its neighbours; 0.5 in a tetrahedron
FLAT_RING = 0.06  # Å of each atom from the plane of the ring
FLAT_PAIR = 0.05, 1.50  # Å of two bonded atoms from their planes, and of the bond at most
TWISTED = 35.0  # degrees between the planes at the ends of what is no double bond
SHORTEST = 1.05  # Å; what is shorter is no bond of any order, and says nothing
LINEAR = math.cos(math.radians(165.0))
HYDROGENS = "_hydrogens_of_the_file"  # property of heavy atoms, where the file has those of carbon
SLACK = 0.06  # Å beyond the middle of single and double that a bond of a flat atom may have
LENGTHS = {  # Å of single and double bonds
    (6, 6): (1.53, 1.34),
    (6, 7): (1.47, 1.28),
    (6, 8): (1.43, 1.22),
    (6, 16): (1.81, 1.66),
    (7, 7): (1.42, 1.25),
    (7, 8): (1.40, 1.21),
}
_TRIPLE = 1.25  # Å, of C#C and C#N at most
_AZO = 1.29  # Å, of N=N at most
_END_OF_AZIDE = 1.2  # Å, of its last bond at most; of a hydrazone N-N is 1.35


class Shape:
    """Lengths and angles of a molecule, and what they say of its bonds."""

    def __init__(self, mol: Chem.Mol):
        self.mol = mol
        self.pos = mol.GetConformer().GetPositions()

    def length(self, i: int, j: int) -> float:
        return float(np.linalg.norm(self.pos[i] - self.pos[j]))

    def stretch(self, i: int, j: int) -> float:
        """Å that a bond is longer than half way between double and single; infinite where lengths are not known."""
        pair = self.elements(i, j)
        length = self.length(i, j)
        return length - sum(LENGTHS[pair]) / 2 if pair in LENGTHS and length > SHORTEST else math.inf

    def half(self, i: int, j: int) -> float:
        """Å from a double bond to half way to a single one."""
        single, double = LENGTHS.get(self.elements(i, j), (0.0, 0.0))
        return (single - double) / 2

    def elements(self, i: int, j: int) -> tuple[int, ...]:
        return tuple(sorted(self.mol.GetAtomWithIdx(number).GetAtomicNum() for number in (i, j)))

    def is_flat_and_short(self, number: int) -> bool:
        """An open carbon that lies between its three neighbours with a bond too short for a single one."""
        if not self._is_open_carbon(number) or self.height(number) > FLAT:
            return False
        height, longest = FLAT_PAIR
        for atom in self.mol.GetAtomWithIdx(number).GetNeighbors():
            other = atom.GetIdx()
            if is_open(atom) and self.can_be_double(number, other):
                both_flat = self._is_open_carbon(other) and max(self.height(number), self.height(other)) < height
                if self.stretch(number, other) < 0 or (both_flat and SHORTEST < self.length(number, other) < longest):
                    return True
        return False

    def lost_in_ring(self, ring: tuple[int, ...]) -> set[int]:
        """Open carbons of a flat ring with short bonds alone, whose other atoms may be those of an aromatic one.

        Six carbons in one plane are no cyclohexane, even where their bonds are a little long.
        """
        if len(ring) not in (5, 6) or (flatness := _flatness(self.pos[list(ring)])) > FLAT_RING:
            return set()
        six = len(ring) == 6 and all(self.mol.GetAtomWithIdx(n).GetAtomicNum() == 6 for n in ring)
        longest = SLACK if six and flatness < FLAT_RING / 2 else 0.0
        lost = set()
        for place, number in enumerate(ring):
            atom = self.mol.GetAtomWithIdx(number)
            if atom.GetAtomicNum() == 6 and is_open(atom):
                if atom.GetDegree() == 3 and self.height(number) > FLAT:
                    return set()
                if any(
                    self.stretch(number, other) > longest for other in (ring[place - 1], ring[(place + 1) % len(ring)])
                ):
                    return set()
                lost.add(number)
            elif atom.GetAtomicNum() == 6 and all(b.GetBondType() == Chem.BondType.SINGLE for b in atom.GetBonds()):
                return set()
        return lost

    def can_be_double(self, i: int, j: int) -> bool:
        """Whether the neighbours of both ends lie in one plane."""
        ends = self.mol.GetAtomWithIdx(i), self.mol.GetAtomWithIdx(j)
        if any(end.GetAtomicNum() == 6 and has_three_nitrogens(end) for end in ends):
            return True
        for a in ends[0].GetNeighbors():
            for b in ends[1].GetNeighbors():
                if a.GetIdx() != j and b.GetIdx() != i:
                    angle = rdMolTransforms.GetDihedralDeg(self.mol.GetConformer(), a.GetIdx(), i, j, b.GetIdx())
                    if min(abs(angle), 180 - abs(angle)) > TWISTED:
                        return False
        return True

    def triples(self) -> Iterator[Pair]:
        """Bonds between open atoms that are as short as triple ones, at a carbon that is linear or terminal."""
        for bond in self.mol.GetBonds():
            i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            ends = self.mol.GetAtomWithIdx(i), self.mol.GetAtomWithIdx(j)
            is_kind = {atom.GetAtomicNum() for atom in ends} in ({6}, {6, 7}) and len(self.mol.GetAtoms()) > 2
            is_short = SHORTEST < self.length(i, j) < _TRIPLE
            if is_kind and is_short and all(map(is_open, ends)) and all(map(self._is_straight, ends)):
                yield i, j

    def short_between_nitrogens(self) -> Iterator[Pair]:
        """Bonds of azo groups and azides that are drawn single."""
        for bond in self.mol.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            ends = bond.GetBeginAtom(), bond.GetEndAtom()
            if bond.GetBondType() == Chem.BondType.SINGLE and {end.GetAtomicNum() for end in ends} == {7}:
                longest = _AZO if all(map(is_open, ends)) else _END_OF_AZIDE if any(map(is_open, ends)) else 0.0
                if SHORTEST < self.length(i, j) < longest:
                    yield min(i, j), max(i, j)

    def is_still_wrong(self, changed: set[int]) -> bool:
        """Whether carbons drawn tetrahedral lie flat, or short bonds of open atoms are left, or half a changed ring."""
        if any(self._is_open_carbon(n) and self.height(n) < FLAT for n in range(self.mol.GetNumAtoms())):
            return True
        for bond in self.mol.GetBonds():
            ends = bond.GetBeginAtom(), bond.GetEndAtom()
            if all(map(is_open, ends)) and self.stretch(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) < 0:
                return True
        return any(self._is_half_saturated(ring) for ring in self.mol.GetRingInfo().AtomRings() if changed & set(ring))

    def _is_half_saturated(self, ring: tuple[int, ...]) -> bool:
        """A flat ring with open carbons."""
        flat = len(ring) in (5, 6) and _flatness(self.pos[list(ring)]) < FLAT_RING
        members = (self.mol.GetAtomWithIdx(number) for number in ring)
        return flat and any(atom.GetAtomicNum() == 6 and is_open(atom) for atom in members)

    def _is_open_carbon(self, number: int) -> bool:
        atom = self.mol.GetAtomWithIdx(number)
        return atom.GetAtomicNum() == 6 and atom.GetDegree() == 3 and is_open(atom)

    def height(self, number: int) -> float:
        """Å of an atom with three neighbours over their plane."""
        a, b, c = self.pos[[other.GetIdx() for other in self.mol.GetAtomWithIdx(number).GetNeighbors()]]
        normal = np.cross(b - a, c - a)
        norm = np.linalg.norm(normal)
        return abs(float(np.dot(self.pos[number] - a, normal) / norm)) if norm > 1e-6 else math.inf

    def _is_straight(self, atom: Chem.Atom) -> bool:
        if atom.GetDegree() < 2:
            return True
        one, *others = (self.pos[other.GetIdx()] - self.pos[atom.GetIdx()] for other in atom.GetNeighbors())
        cosine = np.dot(one, others[0]) / (np.linalg.norm(one) * np.linalg.norm(others[0]) + 1e-9)
        return len(others) == 1 and cosine < LINEAR


def is_open(atom: Chem.Atom) -> bool:
    """Whether an atom may have lost a multiple bond: drawn with single bonds only, and with room for another."""
    if atom.GetFormalCharge() or any(bond.GetBondType() != Chem.BondType.SINGLE for bond in atom.GetBonds()):
        return False
    hydrogens = atom.GetIntProp(HYDROGENS) if atom.HasProp(HYDROGENS) else 0
    if atom.GetAtomicNum() == 6:
        return atom.GetDegree() + hydrogens < 4 or has_three_nitrogens(atom)
    if atom.GetAtomicNum() == 7:  # all of whose hydrogens may be there, as in a guanidinium; not of an amide
        return atom.GetDegree() < 3 and not any(map(_is_carbonyl, atom.GetNeighbors()))
    return atom.GetAtomicNum() in (8, 16) and atom.GetDegree() == 1 and not hydrogens


def has_three_nitrogens(carbon: Chem.Atom) -> bool:
    """Whether it is a guanidine's whatever its shape: three amines at one carbon with single bonds do not last."""
    nitrogens = [other for other in carbon.GetNeighbors() if other.GetAtomicNum() == 7]
    open_ones = sum(map(is_open, nitrogens)) if len(nitrogens) == carbon.GetDegree() == 3 else 0
    return open_ones > 1 and all(bond.GetBondType() == Chem.BondType.SINGLE for bond in carbon.GetBonds())


def _is_carbonyl(atom: Chem.Atom) -> bool:
    doubles = [bond for bond in atom.GetBonds() if bond.GetBondType() == Chem.BondType.DOUBLE]
    return any(bond.GetOtherAtom(atom).GetAtomicNum() in (8, 16) for bond in doubles)


def _flatness(points: np.ndarray) -> float:
    """Å of the farthest point from the best plane."""
    centred = points - points.mean(axis=0)
    return float(np.abs(centred @ np.linalg.svd(centred)[2][2]).max())
